/* reformer_train.c - Reformer attention for training. Forward is that of the method and saves the sortings and the log-sum-exp
 * of each row; backward walks the same windows. Sortings count as constant; gradients flow through queries, through the
 * length of the keys, and not through the logit of a position with itself when that is a constant (self = last). */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "baselines/reformer.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"

typedef struct grad_thread {
  set_rows rows;
  set_keys keys[2];
  int32_t *idx, *place; /* [n], [rounds, n] */
  float *unit, *dk;     /* [n], [n, d] gradient of the unit keys */
} grad_thread;

static void place_thread(attn_layout *at, const attn_problem *pb, const reformer_params *p, const set_dims *sd, grad_thread *t) {
  const int64_t n = pb->nk;
  set_place_rows(at, sd, 1, &t->rows);
  for (int i = 0; i < 2; i++) set_place_keys(at, sd, n < p->chunk ? n : p->chunk, 1, t->keys + i);
  t->idx = attn_place_floats(at, n, 1);
  t->place = attn_place_floats(at, p->duplicates == DUP_REMOVED ? p->rounds : 0, n);
  t->unit = attn_place_floats(at, n, 1);
  t->dk = attn_place_floats(at, n, pb->d);
}

typedef struct saved_parts {
  int32_t *order; /* [b, h, rounds, n] */
  double *lse2;   /* [b, h, n] */
} saved_parts;
static saved_parts place_saved(attn_layout *at, const attn_problem *pb, const reformer_params *p) {
  saved_parts s;
  s.order = attn_place_floats(at, pb->b * pb->h * p->rounds, pb->nk);
  s.lse2 = attn_place_floats(at, pb->b * pb->h, 2 * pb->nk);
  return s;
}

static attn_status train_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  attn_mem fwd;
  attn_layout saved = {0}, thread = {0};
  const set_dims sd = {attn_micro_get(), pb->d, pb->dv};
  ATTN_TRY(attn_method_reformer.sizes(pb, params, &fwd));
  (void)place_saved(&saved, pb, params);
  place_thread(&thread, pb, params, &sd, &(grad_thread){0});
  const size_t forward = attn_add(fwd.plan, fwd.scratch), backward = attn_mul((size_t)pb->threads, thread.used);
  need->plan = saved.used;
  need->scratch = forward > backward ? forward : backward;
  return ATTN_OK;
}

static attn_status train_forward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                 const uint8_t *kmask, float drop, uint64_t key, attn_viewm out, void *saved, void *scratch) {
  attn_mem need;
  attn_layout at = {.p = saved};
  const saved_parts s = place_saved(&at, pb, params);
  ATTN_TRY(attn_method_reformer.sizes(pb, params, &need));
  ATTN_TRY(attn_method_reformer.prepare(scratch, pb, params));
  ATTN_TRY(attn_method_reformer.build(scratch, k, v, kmask, NULL));
  return reformer_run(scratch, &(reformer_call){q, v, out, drop, key, s.order, s.lse2}, (char *)scratch + need.plan, NULL);
}

typedef struct grad_head { /* tensors of one head */
  const float *x, *v, *out, *dout;
  const double *lse2;
  ptrdiff_t xs, vs, os, gs;
  float *dx, *dv;
  ptrdiff_t dxs, dvs;
} grad_head;

/* One window: rows [i0, ...) of the chunk in `own`, which also looks back. */
static void grad_block(const reformer_head *h, const set_dims *sd, const grad_head *g, attn_drop mask, int64_t r, int64_t c,
                       int64_t i0, int leaks, const set_keys *back, const set_keys *own, grad_thread *t) {
  const int64_t rows = own->n - i0 < SET_ROWS ? own->n - i0 : SET_ROWS;
  const float factor = reformer_factor(h->pb, h->p);
  set_load_rows(sd, &t->rows, rows, own->id + i0, g->x, g->xs, factor);
  set_load_grad(sd, &t->rows, g->dout, g->gs, g->out, g->os, g->lse2);
  for (int64_t i = 0; i < rows; i++) t->rows.lse2[i] = reformer_lift(g->lse2[t->rows.id[i]]);
  for (int part = back ? 0 : 1; part < 2; part++) {
    const reformer_window win = {.head = h, .part = part ? OWN_CHUNK : leaks ? OTHER_ROUND : CHUNK_BEFORE, .i0 = i0, .lse2 = g->lse2};
    const set_rule rule = reformer_rule(&win);
    const set_drop dr = reformer_drop(&win, mask, r, c);
    set_grad(sd, &t->rows, part ? own : back, &rule, &dr);
  }
  for (int64_t i = 0; i < rows; i++)
    sd->mk->axpy(sd->d, (float)((double)factor * LN2), t->rows.dq + i * sd->d, g->dx + t->rows.id[i] * g->dxs);
}

static void grad_rounds(const reformer_head *h, const set_dims *sd, const grad_head *g, attn_drop mask, grad_thread *t) {
  const int64_t n = h->pb->nk, d = sd->d;
  for (int64_t r = 0; r < h->cut.rounds; r++) {
    set_keys *back = h->cut.chunks > 1 ? t->keys : NULL, *own = t->keys + 1;
    for (int64_t c = 0; c < h->cut.chunks; c++) {
      int64_t back_r, back_c;
      reformer_back(h, r, c, &back_r, &back_c);
      if (c == 0 && back)
        set_load_keys(sd, back, reformer_size(&h->cut, back_c), h->order + back_r * n + reformer_first(&h->cut, back_c), g->x,
                      g->xs, t->unit, g->v, g->vs);
      set_load_keys(sd, own, reformer_size(&h->cut, c), h->order + r * n + reformer_first(&h->cut, c), g->x, g->xs, t->unit, g->v,
                    g->vs);
      for (int64_t i0 = 0; i0 < own->n; i0 += SET_ROWS) grad_block(h, sd, g, mask, r, c, i0, back_r != r, back, own, t);
      if (back) set_spread_keys(sd, back, (float)LN2, t->dk, d, g->dv, g->dvs);
      set_keys *swap = back;
      if (back) back = own, own = swap;
    }
    if (h->cut.chunks) set_spread_keys(sd, back ? back : own, (float)LN2, t->dk, d, g->dv, g->dvs);
  }
}

/* dx += gradient through the keys k = unit x, unit = (|x|^2 + epsilon)^(-1/2). */
static void grad_units(const reformer_head *h, const set_dims *sd, const grad_head *g, const grad_thread *t) {
  for (int64_t j = 0; j < h->cut.kept; j++) {
    const int32_t id = t->idx[j];
    const float u = t->unit[id], *x = g->x + id * g->xs, *dk = t->dk + id * sd->d;
    float *dx = g->dx + id * g->dxs;
    sd->mk->axpy(sd->d, u, dk, dx);
    if (h->p->logits != LOGITS_DOT) sd->mk->axpy(sd->d, -u * (u * sd->mk->dot(sd->d, x, dk)) * u, x, dx);
  }
}

static void zero_rows(attn_viewm x, int64_t ib, int64_t ih, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; i++) memset(x.p + ib * x.sb + ih * x.sh + i * x.sn, 0, (size_t)width * sizeof(float));
}

static attn_status train_backward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                  const uint8_t *kmask, float drop, uint64_t key, attn_view out, attn_view dout, attn_viewm dq,
                                  attn_viewm dk, attn_viewm dv, float *dweights, void *saved, void *scratch) {
  (void)k, (void)dweights;
  const reformer_params *p = params;
  const set_dims sd = {attn_micro_get(), pb->d, pb->dv};
  attn_layout at = {.p = saved}, size = {0};
  const saved_parts s = place_saved(&at, pb, p);
  place_thread(&size, pb, p, &sd, &(grad_thread){0});
#pragma omp parallel num_threads(pb->threads)
  {
    grad_thread t;
    attn_layout own = {.p = (char *)scratch + (size_t)omp_get_thread_num() * size.used};
    place_thread(&own, pb, p, &sd, &t);
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < pb->b * pb->h; head++) {
      const int64_t ib = head / pb->h, ih = head % pb->h, n = pb->nk;
      const int64_t kept = attn_keep(kmask ? kmask + ib * n : NULL, n, t.idx);
      const reformer_head h = {pb, p, reformer_cut_of(p, kept), s.order + head * p->rounds * n, t.place};
      const grad_head g = {.x = q.p + ib * q.sb + ih * q.sh, .xs = q.sn,
                           .v = v.p + ib * v.sb + ih * v.sh, .vs = v.sn,
                           .out = out.p + ib * out.sb + ih * out.sh, .os = out.sn,
                           .dout = dout.p + ib * dout.sb + ih * dout.sh, .gs = dout.sn,
                           .lse2 = s.lse2 + head * n,
                           .dx = dq.p + ib * dq.sb + ih * dq.sh, .dxs = dq.sn,
                           .dv = dv.p + ib * dv.sb + ih * dv.sh, .dvs = dv.sn};
      zero_rows(dq, ib, ih, n, pb->d), zero_rows(dk, ib, ih, n, pb->d), zero_rows(dv, ib, ih, n, pb->dv);
      memset(t.dk, 0, (size_t)(n * pb->d) * sizeof(float));
      reformer_unit(pb, p, sd.mk, t.idx, kept, g.x, g.xs, t.unit);
      if (p->duplicates == DUP_REMOVED) reformer_fill_place(&h);
      grad_rounds(&h, &sd, &g, attn_drop_make(drop, attn_hash(key, (uint64_t)ib, (uint64_t)ih)), &t);
      grad_units(&h, &sd, &g, &t);
    }
  }
  return ATTN_OK;
}

const attn_training attn_training_reformer = {.sizes = train_sizes, .forward = train_forward, .backward = train_backward};
