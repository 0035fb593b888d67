/* htransformer1d_train.c - H-Transformer-1D for training. Forward is that of the method and saves the log-sum-exp L of every row of every level.
 *
 * Backward  out_i of a position is a chain of softmax states, one a level; with w_i = 2^(L_parent - L_child) along the chain, what a coarse
 *           row receives is G = sum over its children of w G_child, and likewise for delta = dout . out. With those each level is
 *           ordinary softmax backward; gradients of means go down to the children by their counts (causal queries: to the one that
 *           stood for them). */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "baselines/htransformer1d.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"

typedef struct ht_grad { /* one thread's; sums of all levels, one after the other */
  ht_head h;
  ht_work w;
  float *g, *delta;    /* [rows, dv], [rows] */
  float *dq, *dk, *dv; /* [rows, d], [rows, d], [rows, dv] */
} ht_grad;

static void place_grad(attn_layout *at, const attn_problem *pb, const ht_params *p, ht_grad *t) {
  ht_place_keys(at, pb, attn_micro_get(), p->rank, 1, &t->h);
  ht_place_queries(at, 0, &t->h);
  ht_place_work(at, pb, p->rank, 1, &t->w);
  t->g = attn_place_floats(at, t->h.rows, pb->dv);
  t->delta = attn_place_floats(at, t->h.rows, 1);
  t->dq = attn_place_floats(at, t->h.rows, pb->d);
  t->dk = attn_place_floats(at, t->h.rows, pb->d);
  t->dv = attn_place_floats(at, t->h.rows, pb->dv);
}

static attn_status train_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  const ht_params *p = params;
  attn_mem fwd;
  ht_grad t;
  attn_layout thread = {0};
  ATTN_TRY(attn_method_htransformer1d.sizes(pb, params, &fwd));
  place_grad(&thread, pb, p, &t);
  const size_t forward = attn_add(fwd.plan, fwd.scratch), backward = attn_mul((size_t)pb->threads, thread.used);
  need->plan = attn_round(attn_mul((size_t)(pb->b * pb->h), attn_mul((size_t)t.h.rows, sizeof(float))));
  need->scratch = forward > backward ? forward : backward;
  return ATTN_OK;
}

static attn_status train_forward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                 const uint8_t *kmask, float drop, uint64_t key, attn_viewm out, void *saved, void *scratch) {
  attn_mem need;
  ATTN_TRY(attn_method_htransformer1d.sizes(pb, params, &need));
  ATTN_TRY(attn_method_htransformer1d.prepare(scratch, pb, params));
  ATTN_TRY(attn_method_htransformer1d.build(scratch, k, v, kmask, NULL));
  return ht_run(scratch, &(ht_call){q, out, drop, key, saved}, (char *)scratch + need.plan, NULL);
}

/* What rows of all levels receive. */
static void raise_gradients(ht_grad *t, const float *out, ptrdiff_t os, const float *dout, ptrdiff_t gs, const float *lse2) {
  const ht_head *h = &t->h;
  const int64_t dv = h->pb->dv;
  memset(t->g, 0, (size_t)(h->rows * dv) * sizeof(float));
  memset(t->delta, 0, (size_t)h->rows * sizeof(float));
  for (int64_t i = 0; i < h->level[0].n; i++) {
    if (h->level[0].count[i] == 0.0f) continue;
    memcpy(t->g + i * dv, dout + i * gs, (size_t)dv * sizeof(float));
    t->delta[i] = h->mk->dot(dv, dout + i * gs, out + i * os);
  }
  for (int level = 1; level < h->levels; level++)
    for (int64_t i = 0; i < h->level[level - 1].n; i++) {
      const int64_t child = h->level[level - 1].at + i, parent = h->level[level].at + i / 2;
      if (lse2[parent] == -INFINITY || lse2[child] == -INFINITY) continue;
      const float w = exp2f(lse2[parent] - lse2[child]);
      h->mk->axpy(dv, w, t->g + child * dv, t->g + parent * dv);
      t->delta[parent] += w * t->delta[child];
    }
}

static void grad_tile(ht_grad *t, int level, int64_t block, const float *lse2, const attn_drop *dr) {
  const ht_head *h = &t->h;
  const ht_level *l = &h->level[level];
  const attn_micro *mk = h->mk;
  const ht_tile tile = ht_tile_of(h, level, block);
  const int64_t d = h->pb->d, dv = h->pb->dv, row = l->at + tile.i0, ld = t->w.ld;
  const float *g = t->g + row * dv;
  ht_score(h, level, &tile, &t->w);
  mk->exp2_block(tile.rows, tile.width, t->w.s, ld, NULL, lse2 + row);
  int64_t at = 0;
  for (int p = 0; p < tile.parts; at += tile.cols[p++])
    mk->gemm(tile.rows, tile.cols[p], dv, g, dv, 1, l->vt + tile.j0[p], l->ld, mk->panel, t->w.ds + at, ld, 0);
  mk->softmax_grad(tile.rows, tile.width, t->w.s, t->w.ds, ld, t->delta + row, dr, row, 0);
  at = 0;
  for (int p = 0; p < tile.parts; at += tile.cols[p++]) {
    const int64_t j0 = tile.j0[p], cols = tile.cols[p];
    const float *s = t->w.s + at, *ds = t->w.ds + at;
    mk->gemm(cols, dv, tile.rows, s, 1, ld, g, dv, mk->panel, t->dv + (l->at + j0) * dv, dv, 1);
    mk->gemm(cols, d, tile.rows, ds, 1, ld, t->w.q, d + 1, mk->panel, t->dk + (l->at + j0) * d, d, 1);
    if (level) mk->gemm(tile.rows, d, cols, ds, ld, 1, l->k + j0 * l->ks, l->ks, mk->panel, t->dq + row * d, d, 1);
    else /* keys of masked positions may be anything */
      for (int64_t j = 0, run; j < cols; j += run ? run : 1) {
        for (run = 0; j + run < cols && l->count[j0 + j + run] > 0.0f; run++) {}
        mk->gemm(tile.rows, d, run, ds + j, ld, 1, l->k + (j0 + j) * l->ks, l->ks, mk->panel, t->dq + row * d, d, 1);
      }
  }
}

/* Gradients of means go to what they are means of. */
static void lower_gradients(ht_grad *t) {
  const ht_head *h = &t->h;
  const int64_t d = h->pb->d, dv = h->pb->dv;
  for (int level = h->levels - 1; level > 0; level--) {
    const ht_level *l = &h->level[level], *below = l - 1;
    for (int64_t i = 0; i < below->n; i++) {
      const int64_t child = below->at + i, parent = l->at + i / 2;
      if (below->count[i] == 0.0f) continue;
      const float w = below->count[i] / l->count[i / 2];
      const float wq = !h->pb->causal ? w : ht_first_child(below, i / 2) == i ? 1.0f : 0.0f;
      h->mk->axpy(d, w, t->dk + parent * d, t->dk + child * d);
      h->mk->axpy(dv, w, t->dv + parent * dv, t->dv + child * dv);
      h->mk->axpy(d, wq, t->dq + parent * d, t->dq + child * d);
    }
  }
}

static void store_rows(const ht_head *h, int64_t width, const float *from, float factor, float *to, ptrdiff_t stride) {
  for (int64_t i = 0; i < h->level[0].n; i++)
    for (int64_t x = 0; x < width; x++) to[i * stride + x] = h->level[0].count[i] > 0.0f ? from[i * width + x] * factor : 0.0f;
}

static attn_status train_backward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                  const uint8_t *kmask, float drop, uint64_t key, attn_view out, attn_view dout, attn_viewm dq,
                                  attn_viewm dk, attn_viewm dv, float *dweights, void *saved, void *scratch) {
  (void)dweights;
  ht_grad size;
  attn_layout bytes = {0};
  place_grad(&bytes, pb, params, &size);
#pragma omp parallel num_threads(pb->threads)
  {
    ht_grad t;
    attn_layout own = {.p = (char *)scratch + (size_t)omp_get_thread_num() * bytes.used};
    place_grad(&own, pb, params, &t);
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < pb->b * pb->h; head++) {
      const int64_t ib = head / pb->h, ih = head % pb->h;
      const attn_drop dr = attn_drop_make(drop, attn_hash(key, (uint64_t)ib, (uint64_t)ih));
      const float *lse2 = (const float *)saved + head * t.h.rows;
      ht_fill_keys(&t.h, kmask ? kmask + ib * pb->nk : NULL, k.p + ib * k.sb + ih * k.sh, k.sn, v.p + ib * v.sb + ih * v.sh, v.sn);
      ht_fill_queries(&t.h, q.p + ib * q.sb + ih * q.sh, q.sn);
      raise_gradients(&t, out.p + ib * out.sb + ih * out.sh, out.sn, dout.p + ib * dout.sb + ih * dout.sh, dout.sn, lse2);
      memset(t.dq, 0, (size_t)(t.h.rows * pb->d) * sizeof(float));
      memset(t.dk, 0, (size_t)(t.h.rows * pb->d) * sizeof(float));
      memset(t.dv, 0, (size_t)(t.h.rows * pb->dv) * sizeof(float));
      for (int level = 0; level < t.h.levels; level++)
        for (int64_t b = 0; b < ht_blocks(&t.h, level); b++) grad_tile(&t, level, b, lse2, &dr);
      lower_gradients(&t);
      store_rows(&t.h, pb->d, t.dq, pb->scale, dq.p + ib * dq.sb + ih * dq.sh, dq.sn);
      store_rows(&t.h, pb->d, t.dk, (float)LN2, dk.p + ib * dk.sb + ih * dk.sh, dk.sn);
      store_rows(&t.h, pb->dv, t.dv, 1.0f, dv.p + ib * dv.sb + ih * dv.sh, dv.sn);
    }
  }
  return ATTN_OK;
}

const attn_training attn_training_htransformer1d = {.sizes = train_sizes, .forward = train_forward, .backward = train_backward};
