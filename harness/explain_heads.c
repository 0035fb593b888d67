/* explain_heads.c - see explain_heads.h */
#include "harness/explain_heads.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "harness/measure_method.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

const double explain_factor[EXPLAIN_VALUES] = {1.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0};

/* ---- Parameters. */

static double get(const attn_param *p, const void *params) {
  const char *at = (const char *)params + p->offset;
  int64_t whole;
  double real;
  memcpy(&whole, at, sizeof whole);
  memcpy(&real, at, sizeof real);
  return p->type == ATTN_P_INT ? (double)whole : real;
}

static void set(const attn_param *p, void *params, double value) {
  const double real = fmin(fmax(value, p->min), p->max);
  const int64_t whole = (int64_t)fmin(fmax(fmax(round(value), 1.0), p->min), p->max);
  char *at = (char *)params + p->offset;
  if (p->type == ATTN_P_INT) memcpy(at, &whole, sizeof whole);
  else memcpy(at, &real, sizeof real);
}

static char *params_at(const explain_heads *h, int head, int v) {
  return h->params + (size_t)(head * EXPLAIN_VALUES + v) * h->o->method->params_size;
}
const void *explain_heads_params(const explain_heads *h, int head, int v) { return params_at(h, head, v); }
double explain_heads_value(const explain_heads *h, int head, int v) { return get(h->o->vary, params_at(h, head, v)); }

int explain_heads_open(explain_heads *h, const explain_options *o, ice_err *e) {
  const encoder_config *m = &o->model->cfg;
  const int n = m->layers * m->heads;
  const attn_method *topk = registry_find("topk", NULL);
  *h = (explain_heads){.o = o, .layers = m->layers, .heads = m->heads};
  h->params = attn_calloc((size_t)n * EXPLAIN_VALUES * o->method->params_size);
  h->sums = attn_calloc((size_t)n * sizeof *h->sums);
  if (!h->params || !h->sums) return ice_fail(e, ICE_INTERNAL, "out of memory for %d heads", n);
  for (int i = 0; i < n; i++) {
    const void *own = o->heads ? o->heads[i].params : o->params;
    const double value = get(o->vary, own);
    if (!(value > 0.0)) return ice_fail(e, ICE_USAGE, "%s.%s = %g cannot be varied, allowed numbers above 0", o->method->name, o->vary->key, value);
    for (int v = 0; v < EXPLAIN_VALUES; v++) {
      memcpy(params_at(h, i, v), own, o->method->params_size);
      if (v > 0) set(o->vary, params_at(h, i, v), value * explain_factor[v]);
    }
  }
  if (!(o->method->caps & ATTN_CAP_KEYSET) || !quality_k(o->method, o->params)) return ICE_OK;
  h->topk_params = registry_defaults(topk);
  return h->topk_params ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

void explain_heads_close(explain_heads *h) {
  attn_free(h->params);
  attn_free(h->topk_params);
  attn_free(h->sums);
  *h = (explain_heads){0};
}

/* ---- One head of one call. */

typedef struct look { /* at one head's Q, K, V */
  const measure_inputs *in;
  const quality_ref *ref;
  attn_viewm out;
} look;

static int go(const look *l, const attn_method *m, const void *params, attn_stats *st, measure_cost *cost, ice_err *e) {
  const attn_status status = measure_method_once(m, params, l->in, l->out, st, cost);
  return status == ATTN_OK ? ICE_OK : ice_fail(e, ICE_INTERNAL, "%s: %s", m->name, attn_last_error());
}

/* As it was run: with its key sets, judged. */
static int look_at_own(explain_heads *h, const look *l, const void *params, explain_sums *s, ice_err *e) {
  const attn_method *m = h->o->method;
  const int set = (m->caps & ATTN_CAP_KEYSET) != 0;
  quality_keys keys = {0};
  if (set) ICE_TRY(quality_keys_create(&keys, &l->in->pb, e));
  attn_stats st = {.on_keys = set ? quality_on_keys : NULL, .ctx = &keys, .missing = keys.missing};
  int rc = go(l, m, params, &st, NULL, e);
  if (rc == ICE_OK) rc = quality_add(&s->own, l->ref, measure_const_view(l->out), set ? &keys : NULL, quality_k(m, params), e);
  quality_keys_destroy(&keys);
  return rc;
}

/* The error of a perfect search for as many keys. */
static int look_at_best(explain_heads *h, const look *l, const void *params, explain_sums *s, ice_err *e) {
  const attn_method *topk = registry_find("topk", e);
  if (!topk) return ICE_INTERNAL;
  set(registry_param(topk, "k", NULL), h->topk_params, (double)quality_k(h->o->method, params));
  ICE_TRY(go(l, topk, h->topk_params, NULL, NULL, e));
  return quality_add(&s->best, l->ref, measure_const_view(l->out), NULL, 0, e);
}

static void count_keys(void *ctx, int64_t ib, int64_t ih, int64_t iq, const int32_t *keys, int64_t count) {
  (void)ib, (void)ih, (void)iq, (void)keys;
  atomic_fetch_add_explicit((atomic_llong *)ctx, count, memory_order_relaxed);
}

/* Error and work with one value. */
static int look_at_value(explain_heads *h, const look *l, int head, int v, ice_err *e) {
  atomic_llong keys = 0;
  attn_stats st = {.on_keys = h->o->method->caps & ATTN_CAP_KEYSET ? count_keys : NULL, .ctx = &keys};
  quality_sums sums = {0};
  explain_sums *s = h->sums + head;
  ICE_TRY(go(l, h->o->method, params_at(h, head, v), &st, NULL, e));
  ICE_TRY(quality_add(&sums, l->ref, measure_const_view(l->out), NULL, 0, e));
  s->value[v].diff2 += sums.diff2;
  s->value[v].pairs += (double)st.pairs;
  s->value[v].keys += (double)keys;
  return ICE_OK;
}

static int look_at_head(explain_heads *h, const measure_inputs *in, int head, ice_err *e) {
  const attn_problem *pb = &in->pb;
  quality_ref ref;
  float *out = attn_alloc((size_t)(pb->nq * pb->dv) * sizeof *out);
  if (!out) return ice_fail(e, ICE_INTERNAL, "out of memory for outputs");
  int rc = quality_ref_create(&ref, in, e);
  if (rc == ICE_OK) {
    const look l = {in, &ref, measure_dense_view(out, 1, pb->nq, pb->dv)};
    explain_sums *s = h->sums + head;
    rc = look_at_own(h, &l, params_at(h, head, 0), s, e);
    if (rc == ICE_OK && h->topk_params) rc = look_at_best(h, &l, params_at(h, head, 0), s, e);
    for (int v = 0; rc == ICE_OK && v < EXPLAIN_VALUES; v++) rc = look_at_value(h, &l, head, v, e);
    quality_ref_destroy(&ref);
  }
  attn_free(out);
  return rc;
}

void explain_heads_look(void *ctx, const encoder_call *call) {
  explain_heads *h = ctx;
  for (int i = 0; i < call->problem.h && h->rc == ICE_OK; i++) {
    const int head = call->head + i;
    measure_inputs in = {.pb = call->problem, .q = call->q, .k = call->k, .v = call->v, .kmask = call->kmask};
    in.pb.h = in.pb.hkv = 1;
    in.pb.seed = attn_hash(h->o->seed, (uint64_t)call->layer, (uint64_t)head); /* as a head that has a call of its own */
    in.q.p += i * in.q.sh, in.k.p += i * in.k.sh, in.v.p += i * in.v.sh;
    h->rc = look_at_head(h, &in, call->layer * h->heads + head, &h->err);
  }
}
