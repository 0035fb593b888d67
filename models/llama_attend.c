/* llama_attend.c - the attention slot of a Llama model: any method over a whole prompt; in decoding, the method's index kept
 * up to date, or exact attention straight from the cache. */
#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/clock.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/methods/dense.h"
#include "kernels/micro/micro.h"
#include "models/llama_run.h"

static int method_error(const attn_method *me, attn_status st, ice_err *e) {
  return ice_fail(e, ICE_INTERNAL, "%s: %s (%s)", me->name, attn_last_error(), attn_status_text(st));
}

static attn_problem problem_of(const llama_run *r, int layer, int64_t nq, int64_t nk, int causal) {
  const llama_config *c = &r->m->cfg;
  return (attn_problem){.b = 1,
                        .h = c->heads,
                        .hkv = c->kv_heads,
                        .nq = nq,
                        .nk = nk,
                        .d = c->head_dim,
                        .dv = c->head_dim,
                        .scale = 1.0f / sqrtf((float)c->head_dim),
                        .causal = causal,
                        .threads = r->slot.attention.threads,
                        .seed = attn_hash(r->slot.attention.seed, (uint64_t)layer, 0)};
}
static attn_view cache_of(const llama_run *r, const float *cache, int layer) {
  const llama_config *c = &r->m->cfg;
  const ptrdiff_t head = r->capacity * c->head_dim;
  return (attn_view){cache + layer * c->kv_heads * head, c->kv_heads * head, head, c->head_dim};
}
static int is_dense(const llama_run *r, int layer) {
  return r->exact || (r->slot.dense_layer && r->slot.dense_layer[layer]);
}

int llama_check_slot(const llama_run *r, ice_err *e) {
  const attn_problem pb = problem_of(r, 0, r->capacity, r->capacity, 1);
  const attn_method *me = r->slot.attention.method;
  const attn_status st = attn_check(me, &pb, r->slot.attention.params);
  return st == ATTN_OK ? ICE_OK : ice_fail(e, ICE_USAGE, "%s: %s (%s)", me->name, attn_last_error(), attn_status_text(st));
}

/* --- prompts ------------------------------------------------------------------------------------------------------ */

int llama_attend(llama_run *r, int layer, int64_t n, llama_cost *cost, llama_seen *seen, ice_err *e) {
  const llama_config *c = &r->m->cfg;
  const attn_method *me = is_dense(r, layer) ? &attn_method_dense : r->slot.attention.method;
  const void *params = me == r->slot.attention.method ? r->slot.attention.params : NULL;
  const ptrdiff_t keys = c->heads * c->head_dim;
  encoder_call call = {.layer = layer,
                       .method = me,
                       .params = params,
                       .problem = problem_of(r, layer, n, r->n + n, 1),
                       .q = {r->q, n * keys, c->head_dim, keys},
                       .k = cache_of(r, r->k, layer),
                       .v = cache_of(r, r->v, layer),
                       .out = {r->o, n * keys, c->head_dim, keys}};
  attn_mem need;
  const int64_t start = attn_now_ns();
  attn_status st = attn_check(me, &call.problem, params);
  if (st == ATTN_OK) st = me->sizes(&call.problem, params, &need);
  if (st != ATTN_OK) return method_error(me, st, e);
  ICE_TRY(llama_grow(&r->plan, need.plan, e));
  ICE_TRY(llama_grow(&r->scratch, need.scratch, e));
  st = me->prepare(r->plan.p, &call.problem, params);
  if (st != ATTN_OK) return method_error(me, st, e);
  attn_stats stats = {0};
  attn_alloc_reset_peak();
  const size_t live = attn_alloc_counters().live_bytes;
  const int64_t t0 = attn_now_ns();
  st = me->build(r->plan.p, call.k, call.v, NULL, r->scratch.p);
  const int64_t t1 = attn_now_ns();
  if (st == ATTN_OK)
    st = me->forward(r->plan.p, params, call.q, (attn_viewm){r->o, call.out.sb, call.out.sh, call.out.sn}, r->scratch.p, &stats);
  const int64_t t2 = attn_now_ns();
  const uint64_t bytes = need.plan + need.scratch + (attn_alloc_counters().peak_bytes - live);
  if (me->release) me->release(r->plan.p);
  if (st != ATTN_OK) return method_error(me, st, e);
  cost->attention_ns += (uint64_t)(t2 - t0);
  cost->build_ns += (uint64_t)(t1 - t0) + stats.build_ns;
  cost->query_ns += (uint64_t)(t2 - t1) - stats.build_ns;
  if (cost->layer_ns) cost->layer_ns[layer] += (uint64_t)(t2 - t0);
  cost->pairs += stats.pairs;
  cost->touched += stats.bytes;
  if (bytes > cost->peak_bytes) cost->peak_bytes = bytes;
  if (seen->observer) seen->observer(seen->ctx, &call);
  seen->outside_ns += (uint64_t)(t0 - start) + (uint64_t)(attn_now_ns() - t2);
  return ICE_OK;
}

/* --- one token ---------------------------------------------------------------------------------------------------- */

/* Exact attention of one query, head by head over the rows of the cache. */
static void attend_cache(llama_run *r, int layer) {
  const attn_micro *mk = attn_micro_get();
  const llama_config *c = &r->m->cfg;
  const int64_t n = r->n + 1, d = c->head_dim;
  const attn_view k = cache_of(r, r->k, layer), v = cache_of(r, r->v, layer);
  const float scale = (float)(LOG2E / sqrt((double)d));
  const int team = n * d * c->heads < 1 << 15 ? 1 : r->slot.attention.threads; /* threads cost more than short ones */
#pragma omp parallel for num_threads(team) schedule(static)
  for (int64_t h = 0; h < c->heads; h++) {
    const int64_t kv = h / (c->heads / c->kv_heads);
    float *s = r->score + h * r->capacity, *q = r->q + h * d, m = -INFINITY, l[16] = {0};
    for (int64_t t = 0; t < d; t++) q[t] *= scale;
    mk->dots(n, d, q, k.p + kv * k.sh, k.sn, s);
    mk->softmax_block(1, n, s, r->capacity, NULL, &m, l, NULL, 0, 0);
    mk->gemm(1, d, n, s, n, 1, v.p + kv * v.sh, v.sn, mk->panel, r->o + h * d, d, 0);
    const float inverse = 1.0f / attn_lane_sum(l);
    for (int64_t t = 0; t < d; t++) r->o[h * d + t] *= inverse;
  }
}

static int appends(const llama_run *r, int layer) {
  const attn_method *me = r->slot.attention.method;
  return me->append && me->caps & ATTN_CAP_MASK && !r->slot.decode_dense && !is_dense(r, layer);
}

/* The plan of a layer for one query over the whole capacity, with the keys that are there. */
static int build_index(llama_run *r, int layer, ice_err *e) {
  const attn_method *me = r->slot.attention.method;
  const void *params = r->slot.attention.params;
  const attn_problem pb = problem_of(r, layer, 1, r->capacity, 0);
  attn_mem need;
  attn_status st = attn_check(me, &pb, params);
  if (st == ATTN_OK) st = me->sizes(&pb, params, &need);
  if (st != ATTN_OK) return method_error(me, st, e);
  ICE_TRY(llama_grow(&r->index_scratch, need.scratch, e));
  void *plan = attn_alloc(need.plan);
  if (!plan) return ice_fail(e, ICE_INTERNAL, "out of memory: the index of layer %d needs %zu bytes", layer, need.plan);
  st = me->prepare(plan, &pb, params);
  if (st == ATTN_OK) st = me->build(plan, cache_of(r, r->k, layer), cache_of(r, r->v, layer), r->mask, r->index_scratch.p);
  if (st == ATTN_OK) {
    r->index[layer] = plan;
    r->index_bytes += need.plan;
    return ICE_OK;
  }
  if (me->release) me->release(plan);
  attn_free(plan);
  return method_error(me, st, e);
}

int llama_attend_one(llama_run *r, int layer, ice_err *e) {
  const llama_config *c = &r->m->cfg;
  const attn_method *me = r->slot.attention.method;
  const ptrdiff_t keys = c->heads * c->head_dim;
  if (!appends(r, layer)) {
    attend_cache(r, layer);
    return ICE_OK;
  }
  attn_status st = ATTN_OK;
  if (!r->index[layer]) {
    memset(r->mask, 0, (size_t)r->capacity);
    memset(r->mask, 1, (size_t)r->n + 1);
    ICE_TRY(build_index(r, layer, e));
  } else
    st = me->append(r->index[layer], r->n + 1, r->index_scratch.p);
  if (st == ATTN_OK)
    st = me->forward(r->index[layer], r->slot.attention.params, (attn_view){r->q, keys, c->head_dim, keys},
                     (attn_viewm){r->o, keys, c->head_dim, keys}, r->index_scratch.p, NULL);
  return st == ATTN_OK ? ICE_OK : method_error(me, st, e);
}

void llama_drop_index(llama_run *r) {
  const attn_method *me = r->slot.attention.method;
  for (int64_t l = 0; r->index && l < r->m->cfg.layers; l++) {
    if (!r->index[l]) continue;
    if (me->release) me->release(r->index[l]);
    attn_free(r->index[l]);
    r->index[l] = NULL;
  }
  r->index_bytes = 0;
}
