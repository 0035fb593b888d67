/* encoder_forward.c - inference: one example through the encoder, any attention in its slot, with a clock around it.
 *
 * A padded run differs at three places: all positions are embedded, attention gets a mask, and the rows that count move
 * together before the pooling. The last makes both kinds of run sum the same rows in the same order.
 *
 * The row-local parts of a layer are cut into blocks of rows for the threads; the attention threads itself. The clock
 * of the attention covers build + forward of every layer: what a user pays for it, index included. Preparation that
 * needs no data (projections, tables) and memory are outside. */
#include "models/encoder.h"

#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/clock.h"
#include "kernels/core/rng.h"
#include "models/network.h"

enum { ROW_BLOCK = 96 };

struct encoder_run {
  const encoder *m;
  encoder_slot slot;
  network net;
  int64_t n_max;
  layer_acts acts;
  float *memory, *x[2];
  uint8_t *mask; /* [positions] of a padded run, 1: not masked; else NULL */
  void *plan, *scratch; /* grown on demand, outside the clock */
  size_t plan_bytes, scratch_bytes;
};

/* Does what stands in the slot fit into this kind of run? */
static int check_heads(const encoder *m, const encoder_slot *slot, ice_err *e) {
  const int n = slot->heads ? m->cfg.layers * m->cfg.heads : 1;
  for (int i = 0; i < n; i++) {
    const attn_method *me = slot->heads ? slot->heads[i].method : slot->method;
    if (slot->padded && !(me->caps & ATTN_CAP_MASK))
      return ice_fail(e, ICE_USAGE, "%s takes no mask, which padded positions need", me->name);
    if (slot->heads && me->learned) return ice_fail(e, ICE_USAGE, "%s learns tensors for all heads together: heads cannot differ", me->name);
  }
  return ICE_OK;
}

int encoder_run_create(encoder_run **out, const encoder *m, const encoder_slot *slot, int64_t n_max, ice_err *e) {
  *out = NULL;
  if (slot->threads < 1 || slot->threads > 4096)
    return ice_fail(e, ICE_USAGE, "encoder: threads = %d, allowed 1..4096", slot->threads);
  if (n_max < 1 || n_max > m->cfg.positions)
    return ice_fail(e, ICE_USAGE, "encoder: memory for %lld tokens, allowed 1..%d", (long long)n_max, m->cfg.positions);
  ICE_TRY(check_heads(m, slot, e));
  encoder_run *r = attn_calloc(sizeof *r);
  if (!r) return ice_fail(e, ICE_INTERNAL, "out of memory");
  r->m = m;
  r->slot = *slot;
  r->n_max = n_max;
  const int64_t w = m->cfg.width, rows = slot->padded ? m->cfg.positions : n_max;
  int rc = network_create(&r->net, m, m->params, e);
  int64_t floats = layer_acts_floats(rows, w, m->cfg.mlp);
  if (rc == ICE_OK) {
    r->memory = attn_alloc((size_t)(floats + 2 * rows * w) * sizeof(float));
    if (slot->padded) r->mask = attn_alloc((size_t)rows);
    if (!r->memory || (slot->padded && !r->mask))
      rc = ice_fail(e, ICE_INTERNAL, "out of memory for %lld tokens", (long long)rows);
  }
  if (rc != ICE_OK) {
    encoder_run_destroy(r);
    return rc;
  }
  layer_acts_carve(&r->acts, r->memory, rows, w, m->cfg.mlp);
  r->x[0] = r->memory + floats;
  r->x[1] = r->x[0] + rows * w;
  *out = r;
  return ICE_OK;
}

void encoder_run_destroy(encoder_run *r) {
  if (!r) return;
  network_destroy(&r->net);
  attn_free(r->memory);
  attn_free(r->mask);
  attn_free(r->plan);
  attn_free(r->scratch);
  attn_free(r);
}

void encoder_run_refresh(encoder_run *r) { network_pack(&r->net); }

static int grow(void **p, size_t *have, size_t need, ice_err *e) {
  if (need <= *have) return ICE_OK;
  attn_free(*p);
  *have = 0;
  *p = attn_alloc(need);
  if (!*p) return ice_fail(e, ICE_INTERNAL, "out of memory: attention needs %zu bytes", need);
  *have = need;
  return ICE_OK;
}

static int method_error(const attn_method *m, attn_status st, ice_err *e) {
  return ice_fail(e, ICE_INTERNAL, "%s: %s (%s)", m->name, attn_last_error(), attn_status_text(st));
}

/* What a head gets, and the end of the run of heads from there on that get the same. */
static encoder_head head_of(const encoder_run *r, int layer, int head) {
  const encoder_slot *s = &r->slot;
  return s->heads ? s->heads[layer * r->m->cfg.heads + head] : (encoder_head){s->method, s->params};
}
static int run_of_heads(const encoder_run *r, int layer, int from) {
  const encoder_head first = head_of(r, layer, from);
  for (int to = from + 1; to < r->m->cfg.heads; to++) {
    const encoder_head h = head_of(r, layer, to);
    if (h.method != first.method || h.params != first.params) return to;
  }
  return r->m->cfg.heads;
}

/* The attention of the heads [from, to) of one layer, which get the same, on r->acts, timed. */
static int attend(encoder_run *r, int layer, int from, int to, int64_t n, encoder_cost *cost,
                  void (*observer)(void *, const encoder_call *), void *ctx, ice_err *e) {
  const encoder_config *c = &r->m->cfg;
  const encoder_slot *slot = &r->slot;
  const encoder_head own = head_of(r, layer, from);
  const attn_method *me = own.method;
  const ptrdiff_t w = c->width, hd = w / c->heads, skip = from * hd;
  const layer_acts *a = &r->acts;
  const layer_weights *lw = &r->net.layer[layer];
  encoder_call call = {.layer = layer,
                       .head = from,
                       .method = me,
                       .params = own.params,
                       .problem = {.b = 1,
                                   .h = to - from,
                                   .hkv = to - from,
                                   .nq = n,
                                   .nk = n,
                                   .d = hd,
                                   .dv = hd,
                                   .scale = 1.0f / sqrtf((float)hd),
                                   .threads = slot->threads,
                                   .seed = attn_hash(slot->seed, (uint64_t)layer, (uint64_t)from),
                                   .weights = lw->learned,
                                   .weights_bytes = lw->learned_bytes,
                                   .positions = lw->learned ? c->positions : 0},
                       .q = {a->q + skip, n * w, hd, w},
                       .k = {(layer_shared_qk(lw) ? a->q : a->k) + skip, n * w, hd, w},
                       .v = {a->v + skip, n * w, hd, w},
                       .kmask = r->mask};
  const attn_viewm out = {a->o + skip, n * w, hd, w};
  attn_mem need;
  attn_status st = attn_check(me, &call.problem, own.params);
  if (st == ATTN_OK) st = me->sizes(&call.problem, own.params, &need);
  if (st != ATTN_OK) return method_error(me, st, e);
  ICE_TRY(grow(&r->plan, &r->plan_bytes, need.plan, e));
  ICE_TRY(grow(&r->scratch, &r->scratch_bytes, need.scratch, e));
  st = me->prepare(r->plan, &call.problem, own.params);
  if (st != ATTN_OK) return method_error(me, st, e);
  attn_stats stats = {0};
  attn_alloc_reset_peak();
  size_t live = attn_alloc_counters().live_bytes;
  uint64_t t0 = (uint64_t)attn_now_ns();
  st = me->build(r->plan, call.k, call.v, call.kmask, r->scratch);
  uint64_t t1 = (uint64_t)attn_now_ns();
  if (st == ATTN_OK) st = me->forward(r->plan, own.params, call.q, out, r->scratch, &stats);
  uint64_t t2 = (uint64_t)attn_now_ns();
  size_t index = attn_alloc_counters().peak_bytes - live;
  if (me->release) me->release(r->plan);
  if (st != ATTN_OK) return method_error(me, st, e);
  if (cost) {
    uint64_t bytes = need.plan + need.scratch + index;
    cost->attention_ns += t2 - t0;
    cost->build_ns += t1 - t0 + stats.build_ns;
    cost->query_ns += t2 - t1 - stats.build_ns;
    cost->layer_ns[layer] += t2 - t0;
    cost->pairs += stats.pairs;
    cost->touched += stats.bytes;
    if (bytes > cost->peak_bytes) cost->peak_bytes = bytes;
  }
  if (observer) {
    call.out = (attn_view){out.p, out.sb, out.sh, out.sn};
    observer(ctx, &call);
  }
  return ICE_OK;
}

static int check_ids(const encoder_config *c, const int32_t *ids, int64_t n, int64_t n_max, ice_err *e) {
  if (n < 1 || n > c->positions || n > n_max)
    return ice_fail(e, ICE_DATA, "sequence of %lld tokens, allowed 1..%lld", (long long)n,
                    (long long)(c->positions < n_max ? c->positions : n_max));
  for (int64_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= c->vocab)
      return ice_fail(e, ICE_DATA, "token %lld has id %d, allowed 0..%d", (long long)i, ids[i], c->vocab - 1);
  return ICE_OK;
}

/* x = the embedded sequence: all positions and their mask when padded, else those that count. Returns the rows. */
static int64_t embed(encoder_run *r, const int32_t *ids, int64_t length) {
  const int64_t L = r->m->cfg.positions;
  if (!r->mask) return network_embed(&r->net, ids, length, r->x[0]);
  for (int64_t i = 0; i < L; i++) r->mask[i] = i < length && ids[i] != 0;
  network_embed_padded(&r->net, ids, length, r->x[0]);
  return L;
}

/* Moves the rows of x [n, width] that count together; returns their number. */
static int64_t live_rows(const encoder_run *r, int64_t n, float *x) {
  const int64_t w = r->m->cfg.width;
  int64_t live = 0;
  for (int64_t i = 0; r->mask && i < n; i++)
    if (r->mask[i]) memmove(x + live++ * w, x + i * w, (size_t)w * sizeof *x);
  return r->mask ? live : n;
}

/* One input sequence to its pooled vector; adds to *model_ns the time of the model alone, without observers and memory.
 */
static int encode(encoder_run *r, const int32_t *ids, int64_t length, float *pooled, encoder_cost *cost,
                  void (*observer)(void *, const encoder_call *), void *ctx, uint64_t *model_ns, ice_err *e) {
  const attn_micro *mk = attn_micro_get();
  const encoder_config *c = &r->m->cfg;
  layer_acts *s = &r->acts;
  uint64_t t0 = (uint64_t)attn_now_ns();
  const int64_t n = embed(r, ids, length), blocks = (n + ROW_BLOCK - 1) / ROW_BLOCK;
  *model_ns += (uint64_t)attn_now_ns() - t0;
  for (int l = 0; l < c->layers && n > 0; l++) {
    const layer_weights *w = &r->net.layer[l];
    s->x = r->x[l % 2];
    s->y = r->x[(l + 1) % 2];
    t0 = (uint64_t)attn_now_ns();
#pragma omp parallel for num_threads(r->slot.threads) schedule(static)
    for (int64_t i = 0; i < blocks; i++)
      layer_before_attention(mk, w, s, i * ROW_BLOCK, i + 1 < blocks ? (i + 1) * ROW_BLOCK : n);
    *model_ns += (uint64_t)attn_now_ns() - t0;
    encoder_cost one = {0};
    for (int h = 0, to; h < c->heads; h = to) {
      to = run_of_heads(r, l, h);
      ICE_TRY(attend(r, l, h, to, n, &one, observer, ctx, e));
    }
    *model_ns += one.attention_ns;
    if (cost) {
      cost->attention_ns += one.attention_ns;
      cost->build_ns += one.build_ns;
      cost->query_ns += one.query_ns;
      cost->pairs += one.pairs;
      cost->touched += one.touched;
      cost->layer_ns[l] += one.attention_ns;
      if (one.peak_bytes > cost->peak_bytes) cost->peak_bytes = one.peak_bytes;
    }
    t0 = (uint64_t)attn_now_ns();
#pragma omp parallel for num_threads(r->slot.threads) schedule(static)
    for (int64_t i = 0; i < blocks; i++)
      layer_after_attention(mk, w, s, i * ROW_BLOCK, i + 1 < blocks ? (i + 1) * ROW_BLOCK : n, (layer_drop){0});
    *model_ns += (uint64_t)attn_now_ns() - t0;
  }
  t0 = (uint64_t)attn_now_ns();
  network_pool(mk, &r->net, live_rows(r, n, r->x[c->layers % 2]), r->x[c->layers % 2], s->c, s->mean1, s->rstd1, pooled);
  *model_ns += (uint64_t)attn_now_ns() - t0;
  return ICE_OK;
}

int encoder_forward(encoder_run *r, const int32_t *const *ids, const int64_t *n, float *logits, encoder_cost *cost,
                    void (*observer)(void *ctx, const encoder_call *call), void *ctx, ice_err *e) {
  const encoder_config *c = &r->m->cfg;
  float pooled[2 * 4096], features[4 * 4096], hidden[16384];
  uint64_t model_ns = 0;
  for (int i = 0; i < c->inputs; i++) {
    ICE_TRY(check_ids(c, ids[i], n[i], r->n_max, e));
    ICE_TRY(encode(r, ids[i], n[i], pooled + i * c->width, cost, observer, ctx, &model_ns, e));
  }
  uint64_t t0 = (uint64_t)attn_now_ns();
  network_features(&r->net, pooled, features);
  network_head(attn_micro_get(), &r->net, features, hidden, logits);
  model_ns += (uint64_t)attn_now_ns() - t0;
  if (cost) cost->model_ns += model_ns;
  for (int k = 0; k < c->classes; k++)
    if (!isfinite(logits[k]))
      return ice_fail(e, ICE_INTERNAL, "%s: logit %d is not a finite number", r->slot.method->name, k);
  return ICE_OK;
}
