/* icecells.c - k-NN attention on cells: near keys exactly, far keys by the means of their cells.
 *
 * Idea    Keys are grouped into cells of near neighbours (core/cells.h), each a contiguous slab. Queries are sorted by
 *         their best cell, so that a group of them wants the same few slabs, and every product is a small dense gemm:
 *           route  scores of the group against all cell means; with the size of a cell and the spread of its keys they
 *                  estimate the softmax mass that each query has in each cell (log-normal mean of exp over the cell);
 *           near   the cells with the largest mass over the group are visited in full: dense attention on their slabs,
 *                  until `mass` of the estimate is covered or `visit` cells are;
 *           far    each other cell takes part as one pseudo-key, its estimated mass times the mean of its values.
 *         Every score computed is used: no selection among keys, no sorting, no heap. All three parts share one online
 *         softmax, so the weights of a row are positive and sum to 1, and with visit = cells the result is exact.
 * Source  Cells as in inverted-file search (Jegou et al. 2011), near and far field as in the fast multipole method
 *         (Greengard & Rokhlin 1987), the rest our own. k-NN view of attention: Mao et al. 2024 (arXiv:2405.02842).
 * Cost    per query about 2 cells d (route) + cells dv (far) + 2 visit cell d (near) multiply-adds; building
 *         (1 + lloyd) cells d per key. With cells = n / cell this grows as n^2 / cell, a small share up to 64k keys.
 * Limits  f32; not causal. Below `dense_below` keys it is "dense", bit for bit. */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/attn.h"
#include "kernels/core/alloc.h"
#include "kernels/core/cells.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/methods/dense.h"
#include "kernels/micro/micro.h"

enum {
  GROUP = 24,     /* queries that visit the same cells; a multiple of every register tile */
  SLAB = 256,     /* keys of a cell scored at once                                        */
  LD = SLAB + 16, /* row stride of their scores                                           */
  BLOCK = 96,     /* keys or queries routed at once                                       */
  PART = 16       /* cells of a task while building                                       */
};

typedef struct icecells_params {
  int64_t cell, lloyd, dense_below, visit, far;
  double mass;
} icecells_params;

typedef struct icecells_plan {
  attn_problem pb;
  icecells_params params;
  const attn_micro *mk;
  int built, dense;  /* dense: the memory behind belongs to method "dense" */
  int64_t cells;     /* of every head */
  int32_t *idx;      /* [b, nk] kept positions */
  int64_t *kept;     /* [b] */
  attn_cells *head;  /* [b * hkv] */
} icecells_plan;

static int64_t cells_of(const attn_problem *pb, const icecells_params *p) { return (pb->nk + p->cell - 1) / p->cell; }
static int is_dense(const attn_problem *pb, const icecells_params *p) { return pb->nk < p->dense_below || pb->nk < 2; }

/* --- memory ------------------------------------------------------------------------------------------------------ */

typedef struct icecells_scratch { /* one thread's */
  float *q, *o, *m, *l;           /* [GROUP, d], [GROUP, padded dv], [GROUP], [GROUP, 16] */
  float *estimate, *share;        /* [GROUP, padded cells] log2 of the mass; its softmax, then a working copy */
  float *priority;                /* [padded cells] */
  float *s;                       /* [GROUP, LD] */
  float *route;                   /* [BLOCK, d + padded cells], before the groups */
  int32_t *near;                  /* [cells] */
} icecells_scratch;

static size_t thread_floats(const attn_problem *pb, const attn_micro *mk, int64_t cells) {
  const int64_t pc = attn_padded(mk, cells);
  return (size_t)(GROUP * (pb->d + attn_padded(mk, pb->dv) + 1 + 16 + 2 * pc + LD) + 2 * pc + BLOCK * (pb->d + pc));
}

static icecells_scratch scratch_of(char *scratch, const attn_problem *pb, const attn_micro *mk, int64_t cells,
                                   int thread) {
  const int64_t pc = attn_padded(mk, cells);
  float *p = (float *)(void *)(scratch + (size_t)thread * attn_round(thread_floats(pb, mk, cells) * sizeof(float)));
  icecells_scratch s;
  s.estimate = p, p += GROUP * pc;
  s.share = p, p += GROUP * pc;
  s.priority = p, p += pc;
  s.near = (int32_t *)(void *)p, p += pc;
  s.s = p, p += GROUP * LD;
  s.o = p, p += GROUP * attn_padded(mk, pb->dv);
  s.l = p, p += GROUP * 16;
  s.q = p, p += GROUP * pb->d;
  s.route = p, p += BLOCK * (pb->d + pc);
  s.m = p;
  return s;
}

/* Shared by all threads: first and second cell of every query, and the queries of each head in the order of both. */
typedef struct icecells_order {
  int32_t *first, *second, *query, *count; /* [b, h, nq] x 3; [b, h, cells + 1] */
} icecells_order;

static size_t order_bytes(const attn_problem *pb, int64_t cells, char *at, icecells_order *o) {
  const size_t heads = attn_mul((size_t)pb->b, (size_t)pb->h);
  const size_t rows = attn_round(attn_mul(attn_mul(heads, (size_t)pb->nq), sizeof(int32_t)));
  const size_t counts = attn_round(attn_mul(attn_mul(heads, (size_t)cells + 1), sizeof(int32_t)));
  if (o) {
    o->first = (int32_t *)(void *)at;
    o->second = (int32_t *)(void *)(at + rows);
    o->query = (int32_t *)(void *)(at + 2 * rows);
    o->count = (int32_t *)(void *)(at + 3 * rows);
  }
  return attn_add(attn_mul(3, rows), counts);
}

static attn_status icecells_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  const icecells_params *p = params;
  const attn_micro *mk = attn_micro_get();
  const size_t head = attn_round(sizeof(icecells_plan));
  if (is_dense(pb, p)) {
    ATTN_TRY(attn_method_dense.sizes(pb, NULL, need));
    need->plan = attn_add(need->plan, head);
    return ATTN_OK;
  }
  const int64_t cells = cells_of(pb, p);
  const size_t heads = attn_mul((size_t)pb->b, (size_t)pb->hkv), b = (size_t)pb->b;
  const size_t per_head = attn_round(attn_cells_floats(mk, cells, pb->nk, pb->d, pb->dv) * sizeof(float));
  need->plan = attn_add(head, attn_round(attn_mul(attn_mul(b, (size_t)pb->nk), sizeof(int32_t))));
  need->plan = attn_add(need->plan, attn_round(attn_mul(b, sizeof(int64_t))));
  need->plan = attn_add(need->plan, attn_round(attn_mul(heads, sizeof(attn_cells))));
  need->plan = attn_add(need->plan, attn_mul(heads, per_head));
  const size_t threads = attn_mul((size_t)pb->threads, attn_round(thread_floats(pb, mk, cells) * sizeof(float)));
  need->scratch = attn_add(threads, order_bytes(pb, cells, NULL, NULL));
  return ATTN_OK;
}

static void *dense_plan_of(const icecells_plan *pl) { return (char *)(uintptr_t)pl + attn_round(sizeof *pl); }

static attn_status icecells_prepare(void *plan, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "icecells: plan is null or not 64-byte aligned");
  icecells_plan *pl = plan;
  const attn_micro *mk = attn_micro_get();
  *pl = (icecells_plan){.pb = *pb, .params = *(const icecells_params *)params, .mk = mk};
  pl->dense = is_dense(pb, &pl->params);
  if (pl->dense) return attn_method_dense.prepare(dense_plan_of(pl), pb, NULL);
  pl->cells = cells_of(pb, &pl->params);
  char *at = dense_plan_of(pl);
  pl->idx = attn_carve(&at, (size_t)(pb->b * pb->nk) * sizeof(int32_t));
  pl->kept = attn_carve(&at, (size_t)pb->b * sizeof(int64_t));
  pl->head = attn_carve(&at, (size_t)(pb->b * pb->hkv) * sizeof(attn_cells));
  const size_t per_head = attn_round(attn_cells_floats(mk, pl->cells, pb->nk, pb->d, pb->dv) * sizeof(float));
  for (int64_t i = 0; i < pb->b * pb->hkv; i++, at += per_head)
    attn_cells_carve(&pl->head[i], mk, (float *)(void *)at, pl->cells, pb->nk, pb->d, pb->dv);
  return ATTN_OK;
}

/* --- build ------------------------------------------------------------------------------------------------------- */

/* One pass of assignment, sorting and means over all heads. Tasks of fixed size, so that bits are those of any number
 * of threads. */
static void lloyd_step(icecells_plan *pl, attn_view k, char *scratch) {
  const attn_problem *pb = &pl->pb;
  const int64_t heads = pb->b * pb->hkv, blocks = (pb->nk + BLOCK - 1) / BLOCK, parts = (pl->cells + PART - 1) / PART;
#pragma omp parallel num_threads(pb->threads)
  {
    icecells_scratch sc = scratch_of(scratch, pb, pl->mk, pl->cells, omp_get_thread_num());
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * blocks; task++) {
      const int64_t i = task / blocks, i0 = task % blocks * BLOCK, ib = i / pb->hkv, kept = pl->kept[ib];
      if (i0 < kept)
        attn_cells_assign(&pl->head[i], pl->mk, k.p + ib * k.sb + i % pb->hkv * k.sh, k.sn, pl->idx + ib * pb->nk, i0,
                          i0 + BLOCK < kept ? i0 + BLOCK : kept, sc.route);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < heads; i++) attn_cells_sort(&pl->head[i], pl->mk, pl->idx + i / pb->hkv * pb->nk);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * parts; task++) {
      const int64_t i = task / parts, c0 = task % parts * PART, c1 = c0 + PART < pl->cells ? c0 + PART : pl->cells;
      attn_cells_means(&pl->head[i], pl->mk, k.p + i / pb->hkv * k.sb + i % pb->hkv * k.sh, k.sn, c0, c1);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < heads; i++) attn_cells_pack_means(&pl->head[i], pl->mk);
  }
}

static attn_status icecells_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  icecells_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "icecells: build without plan");
  if (pl->dense) return attn_method_dense.build(dense_plan_of(pl), k, v, kmask, scratch);
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "icecells: scratch is null or misaligned");
  ATTN_FAIL_IF(k.sn < pb->d || v.sn < pb->dv, ATTN_ERR_SHAPE,
               "icecells: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  const int64_t heads = pb->b * pb->hkv, parts = (pl->cells + PART - 1) / PART;
  for (int64_t ib = 0; ib < pb->b; ib++)
    pl->kept[ib] = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, pl->idx + ib * pb->nk);
  for (int64_t i = 0; i < heads; i++)
    attn_cells_seed(&pl->head[i], pl->mk, k.p + i / pb->hkv * k.sb + i % pb->hkv * k.sh, k.sn,
                    pl->idx + i / pb->hkv * pb->nk, pl->kept[i / pb->hkv], attn_hash(pb->seed, (uint64_t)i, 0));
  for (int64_t step = 0; step <= pl->params.lloyd; step++) lloyd_step(pl, k, scratch);
#pragma omp parallel num_threads(pb->threads)
  {
    icecells_scratch sc = scratch_of(scratch, pb, pl->mk, pl->cells, omp_get_thread_num());
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * parts; task++) {
      const int64_t i = task / parts, ib = i / pb->hkv, ih = i % pb->hkv;
      const int64_t c0 = task % parts * PART, c1 = c0 + PART < pl->cells ? c0 + PART : pl->cells;
      attn_cells_pack(&pl->head[i], pl->mk, k.p + ib * k.sb + ih * k.sh, k.sn, v.p + ib * v.sb + ih * v.sh, v.sn, c0, c1,
                      sc.route);
    }
  }
  pl->built = 1;
  return ATTN_OK;
}

/* --- routing ----------------------------------------------------------------------------------------------------- */

/* First and second cell of queries [i0, i1) of one head, by the score of the mean and the size of the cell. */
static void route_block(const icecells_plan *pl, const attn_cells *c, const float *q, ptrdiff_t qs, int64_t i0,
                        int64_t i1, float *tmp, int32_t *first, int32_t *second) {
  const attn_micro *mk = pl->mk;
  const int64_t d = pl->pb.d, rows = i1 - i0, ld = attn_padded(mk, c->cells);
  const float factor = (float)(pl->pb.scale * LOG2E);
  float *scaled = tmp, *score = tmp + rows * d, best;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t t = 0; t < d; t++) scaled[i * d + t] = q[(i0 + i) * qs + t] * factor;
  mk->gemm(rows, c->cells, d, scaled, d, 1, c->mean_t, mk->panel, mk->panel * d, score, ld, 0);
  for (int64_t i = 0; i < rows; i++) {
    float *row = score + i * ld;
    first[i0 + i] = (int32_t)mk->argmax(c->cells, row, c->log2_count, &best);
    row[first[i0 + i]] = -INFINITY;
    second[i0 + i] = (int32_t)mk->argmax(c->cells, row, c->log2_count, &best);
  }
}

/* Stable counting sort of from[0..n) by key[from[.]] into to; count [cells + 1] is working memory. */
static void sort_by(int64_t n, int64_t cells, const int32_t *key, const int32_t *from, int32_t *to, int32_t *count) {
  memset(count, 0, (size_t)(cells + 1) * sizeof *count);
  for (int64_t i = 0; i < n; i++) count[key[i] + 1]++;
  for (int64_t c = 0; c < cells; c++) count[c + 1] += count[c];
  for (int64_t i = 0; i < n; i++) {
    const int32_t row = from ? from[i] : (int32_t)i;
    to[count[key[row]]++] = row;
  }
}

/* --- one group of queries ---------------------------------------------------------------------------------------- */

/* log2 of the mass of every cell for every row of the group: score of the mean + log2 count + spread term, the last
 * never more than the radius allows: q.k <= q.mean + |q| radius. */
static void estimate(const icecells_plan *pl, const attn_cells *c, int64_t rows, const icecells_scratch *sc) {
  const attn_micro *mk = pl->mk;
  const int64_t d = pl->pb.d, ld = attn_padded(mk, c->cells);
  mk->gemm(rows, c->cells, d, sc->q, d, 1, c->mean_t, mk->panel, mk->panel * d, sc->estimate, ld, 0);
  for (int64_t i = 0; i < rows; i++) {
    const float *q = sc->q + i * d, square = fminf(mk->dot(d, q, q), FLT_MAX), length = sqrtf(square);
    const float half = (float)(0.5 * LN2) * square;
    float *row = sc->estimate + i * ld;
    for (int64_t j = 0; j < c->cells; j++) {
      const float wide = half * c->spread[j], most = length * c->radius[j];
      row[j] += c->log2_count[j] + (wide < most ? wide : most);
    }
  }
}

/* Cells that the group visits, most mass first; returns their number. */
static int64_t choose_near(const icecells_plan *pl, const icecells_params *p, const attn_cells *c, int64_t rows,
                           const icecells_scratch *sc) {
  const attn_micro *mk = pl->mk;
  const int64_t ld = attn_padded(mk, c->cells);
  float inverse[GROUP], total = 0.0f, covered = 0.0f, best;
  memcpy(sc->share, sc->estimate, (size_t)(rows * ld) * sizeof(float));
  for (int64_t i = 0; i < rows; i++) sc->m[i] = -INFINITY;
  memset(sc->l, 0, (size_t)rows * 16 * sizeof(float));
  mk->softmax_block(rows, c->cells, sc->share, ld, NULL, sc->m, sc->l, sc->o, 0, 0);
  for (int64_t i = 0; i < rows; i++) {
    const float sum = attn_lane_sum(sc->l + i * 16);
    const int sane = sum > 0.0f && sum < INFINITY;
    if (!sane) memset(sc->share + i * ld, 0, (size_t)c->cells * sizeof(float)); /* NaN or infinity stays in its row */
    inverse[i] = sane ? 1.0f / sum : 0.0f;
    total += sane ? 1.0f : 0.0f;
  }
  mk->gemm(1, c->cells, rows, inverse, rows, 1, sc->share, ld, mk->panel, sc->priority, ld, 0);
  int64_t near = 0;
  const int64_t most = p->visit < c->cells ? p->visit : c->cells;
  while (near < most && (near == 0 || covered < (float)p->mass * total || p->mass >= 1.0)) {
    const int64_t j = mk->argmax(c->cells, sc->priority, NULL, &best);
    if (!(best > -INFINITY)) break;
    sc->near[near++] = (int32_t)j;
    sc->priority[j] = -INFINITY;
    covered += best;
  }
  return near;
}

/* The online softmax of the group starts with the far field: every cell not visited is one pseudo-key. */
static void attend_far(const icecells_plan *pl, const icecells_params *p, const attn_cells *c, int64_t rows,
                       int64_t near, const icecells_scratch *sc) {
  const attn_micro *mk = pl->mk;
  const int64_t ld = attn_padded(mk, c->cells), wo = attn_padded(mk, pl->pb.dv);
  for (int64_t i = 0; i < rows; i++) sc->m[i] = -INFINITY;
  memset(sc->l, 0, (size_t)rows * 16 * sizeof(float));
  memset(sc->o, 0, (size_t)(rows * wo) * sizeof(float));
  if (!p->far || near == c->cells) return;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < near; j++) sc->estimate[i * ld + sc->near[j]] = -INFINITY;
  mk->softmax_block(rows, c->cells, sc->estimate, ld, NULL, sc->m, sc->l, sc->o, wo, wo);
  mk->gemm(rows, c->dv, c->cells, sc->estimate, ld, 1, c->v_mean, c->dv, mk->panel, sc->o, wo, 1);
}

static void attend_cell(const icecells_plan *pl, const attn_cells *c, int64_t cell, int64_t rows,
                        const icecells_scratch *sc) {
  const attn_micro *mk = pl->mk;
  const int64_t d = pl->pb.d, wo = attn_padded(mk, pl->pb.dv), count = c->start[cell + 1] - c->start[cell];
  const float *kt = c->kt + (int64_t)c->panel[cell] * mk->panel * d, *v = c->v + c->start[cell] * wo;
  for (int64_t j0 = 0; j0 < count; j0 += SLAB) {
    const int64_t cols = count - j0 < SLAB ? count - j0 : SLAB;
    mk->gemm(rows, cols, d, sc->q, d, 1, kt + j0 * d, mk->panel, mk->panel * d, sc->s, LD, 0);
    mk->softmax_block(rows, cols, sc->s, LD, NULL, sc->m, sc->l, sc->o, wo, wo);
    mk->gemm(rows, wo, cols, sc->s, LD, 1, v + j0 * mk->panel, mk->panel, mk->panel * count, sc->o, wo, 1);
  }
}

typedef struct icecells_call { /* arguments of one forward */
  const icecells_plan *pl;
  const icecells_params *params;
  attn_view q;
  attn_viewm out;
  const attn_stats *st;
} icecells_call;

/* Rows query[0..rows) of head (ib, ih). Returns the products evaluated. */
static uint64_t attend_group(const icecells_call *call, const attn_cells *c, int64_t ib, int64_t ih, int64_t rows,
                             const int32_t *query, const icecells_scratch *sc) {
  const icecells_plan *pl = call->pl;
  const attn_problem *pb = &pl->pb;
  const int64_t wo = attn_padded(pl->mk, pb->dv);
  const float factor = (float)(pb->scale * LOG2E);
  for (int64_t i = 0; i < rows; i++) {
    const float *row = call->q.p + ib * call->q.sb + ih * call->q.sh + query[i] * call->q.sn;
    for (int64_t t = 0; t < pb->d; t++) sc->q[i * pb->d + t] = row[t] * factor;
  }
  estimate(pl, c, rows, sc);
  const int64_t near = choose_near(pl, call->params, c, rows, sc);
  attend_far(pl, call->params, c, rows, near, sc);
  uint64_t pairs = (uint64_t)(rows * c->cells);
  for (int64_t j = 0; j < near; j++) {
    const int32_t cell = sc->near[j], count = c->start[cell + 1] - c->start[cell];
    attend_cell(pl, c, cell, rows, sc);
    pairs += (uint64_t)(rows * count);
    if (call->st && call->st->on_keys)
      for (int64_t i = 0; i < rows; i++)
        call->st->on_keys(call->st->ctx, ib, ih, query[i], c->order + c->start[cell], count);
  }
  for (int64_t i = 0; i < rows; i++) {
    float *to = call->out.p + ib * call->out.sb + ih * call->out.sh + query[i] * call->out.sn;
    const float sum = attn_lane_sum(sc->l + i * 16);
    const float inv = sum != 0.0f ? 1.0f / sum : 0.0f; /* no key kept: zeros */
    for (int64_t t = 0; t < pb->dv; t++) to[t] = sc->o[i * wo + t] * inv;
    if (call->st && call->st->lse) call->st->lse[(ib * pb->h + ih) * pb->nq + query[i]] = attn_lse(sc->m[i], sum);
  }
  return pairs;
}

/* "dense" with every kept key reported. */
static attn_status forward_dense(const icecells_plan *pl, attn_view q, attn_viewm out, void *scratch, attn_stats *st) {
  ATTN_TRY(attn_method_dense.forward(dense_plan_of(pl), NULL, q, out, scratch, st));
  if (st && st->on_keys) attn_dense_report(dense_plan_of(pl), st);
  return ATTN_OK;
}

static attn_status icecells_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                    attn_stats *st) {
  const icecells_plan *pl = plan;
  if (pl && pl->dense) return forward_dense(pl, q, out, scratch, st);
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "icecells: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "icecells: scratch is null or misaligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nq > 0 && (q.sn < pb->d || out.sn < pb->dv), ATTN_ERR_SHAPE,
               "icecells: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn,
               (long long)pb->d, (long long)pb->dv);
  const icecells_call call = {.pl = pl, .params = params, .q = q, .out = out, .st = st};
  const int64_t heads = pb->b * pb->h, nq = pb->nq, group = pb->h / pb->hkv;
  const int64_t blocks = (nq + BLOCK - 1) / BLOCK, groups = (nq + GROUP - 1) / GROUP;
  icecells_order order;
  char *threads = (char *)scratch + order_bytes(pb, pl->cells, scratch, &order);
  uint64_t pairs = (uint64_t)(heads * nq * pl->cells);
#pragma omp parallel num_threads(pb->threads) reduction(+ : pairs)
  {
    icecells_scratch sc = scratch_of(threads, pb, pl->mk, pl->cells, omp_get_thread_num());
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * blocks; task++) {
      const int64_t head = task / blocks, ib = head / pb->h, ih = head % pb->h, i0 = task % blocks * BLOCK;
      route_block(pl, &pl->head[ib * pb->hkv + ih / group], q.p + ib * q.sb + ih * q.sh, q.sn, i0,
                  i0 + BLOCK < nq ? i0 + BLOCK : nq, sc.route, order.first + head * nq, order.second + head * nq);
    }
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < heads; head++) { /* by second cell, then stably by first */
      int32_t *count = order.count + head * (pl->cells + 1), *by_second = order.query + head * nq;
      sort_by(nq, pl->cells, order.second + head * nq, NULL, by_second, count);
      sort_by(nq, pl->cells, order.first + head * nq, by_second, order.second + head * nq, count);
    }
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * groups; task++) {
      const int64_t head = task / groups, ib = head / pb->h, ih = head % pb->h, i0 = task % groups * GROUP;
      pairs += attend_group(&call, &pl->head[ib * pb->hkv + ih / group], ib, ih, nq - i0 < GROUP ? nq - i0 : GROUP,
                            order.second + head * nq + i0, &sc);
    }
  }
  if (st) st->pairs = pairs;
  return ATTN_OK;
}

static void icecells_release(void *plan) { (void)plan; }

static const char *const far_choices[] = {"none", "mean", NULL};

static const attn_param icecells_table[] = {
    {.key = "cell", .doc = "mean number of keys in a cell", .type = ATTN_P_INT, .offset = offsetof(icecells_params, cell), .dflt = 64, .min = 8, .max = 4096},
    {.key = "lloyd", .doc = "steps of Lloyd's algorithm after the first assignment", .type = ATTN_P_INT, .offset = offsetof(icecells_params, lloyd), .dflt = 1, .min = 0, .max = 20},
    {.key = "dense_below", .doc = "fewer keys than this: dense attention", .type = ATTN_P_INT, .offset = offsetof(icecells_params, dense_below), .dflt = 1024, .min = 0, .max = 1e9},
    {.key = "visit", .doc = "most cells a query visits", .type = ATTN_P_INT, .late = 1, .offset = offsetof(icecells_params, visit), .dflt = 8, .min = 1, .max = 1e9},
    {.key = "mass", .doc = "share of the estimated softmax mass at which visiting stops; 1: only visit counts", .type = ATTN_P_REAL, .late = 1, .offset = offsetof(icecells_params, mass), .dflt = 0.99, .min = 0, .max = 1},
    {.key = "far", .doc = "cells not visited: left out, or present by their means", .type = ATTN_P_CHOICE, .late = 1, .offset = offsetof(icecells_params, far), .dflt = 1, .choices = far_choices},
    {.key = NULL}};

const attn_method attn_method_icecells = {
    .name = "icecells",
    .version = "1",
    .cite = "this project; k-NN attention: arXiv:2405.02842",
    .doc = "near cells of keys exactly, far cells by their means; never more than dense",
    .caps = ATTN_CAP_MASK | ATTN_CAP_CROSS | ATTN_CAP_GQA | ATTN_CAP_RANDOMISED | ATTN_CAP_STOCHASTIC |
            ATTN_CAP_CONVERGES | ATTN_CAP_KEYSET,
    .params_size = sizeof(icecells_params),
    .params = icecells_table,
    .sizes = icecells_sizes,
    .prepare = icecells_prepare,
    .build = icecells_build,
    .forward = icecells_forward,
    .release = icecells_release,
};
