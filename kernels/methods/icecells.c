/* icecells.c - k-NN attention on cells: near keys exactly, far keys by the means of their cells.
 *
 * Idea    Keys are grouped into cells of near neighbours (core/cells.h), each a contiguous slab. Queries are sorted by
 *         their best two cells, so that a group of them wants the same few slabs, and every product is a small dense gemm:
 *           route  scores of the group against all cell means, in 8-bit integers; with the size of a cell and the spread
 *                  of its keys they estimate the softmax mass of the cell (log-normal mean of exp over its keys);
 *           near   the cells with the most mass over the group are visited: dense attention on their slabs, until `mass`
 *                  of the estimate is covered or `visit` cells are;
 *           far    each other cell takes part as one pseudo-key, its estimated mass times the mean of its values.
 *         Every score computed is used: no selection among keys, no sorting, no heap. All parts share one online softmax,
 *         so the weights of a row are positive and sum to 1, and with visit = all cells the result is exact.
 *         With stop=bound, visiting goes by what a cell can hold at most, count * exp(q.mean + |q| radius), and ends when
 *         no row can miss more than 1 - mass: a certain error knob, at the price of more visits.
 * Source  Cells as in inverted-file search (Jegou et al. 2011), near and far field as in the fast multipole method
 *         (Greengard & Rokhlin 1987), the rest our own. k-NN view of attention: Mao et al. 2024 (arXiv:2405.02842).
 * Cost    per query 2 cells d byte products (route) + cells dv (far) + 2 visit cell d (near) multiply-adds; building
 *         (1 + lloyd / 2) cells d byte products per key; cells = n / cell.
 * Limits  f32; not causal. Below `dense_below` keys it is "dense", bit for bit, and says so (attn_stats.path). */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/methods/dense.h"
#include "kernels/methods/icecells.h"

enum {
  GROUP = ICECELLS_GROUP,
  BLOCK = CELLS_BLOCK, /* keys or queries routed at once */
  PART = 16,           /* cells of a task while building */
  SAMPLE = 2           /* means are improved by every second key; the last step is for all */
};

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

/* Cells of 24 keys up to 65,536 keys, then wider ones: with of order sqrt(n) cells and keys in a cell neither routing nor
 * visiting grows out of proportion, but wide cells cost accuracy. */
static int64_t cells_of(const attn_problem *pb, const icecells_params *p) {
  const double n = (double)pb->nk, grown = n > 65536.0 ? 24.0 * sqrt(n / 65536.0) : 24.0;
  const int64_t size = p->cell ? p->cell : (int64_t)grown;
  return (pb->nk + size - 1) / size;
}
static int is_dense(const attn_problem *pb, const icecells_params *p) { return pb->nk < p->dense_below || pb->nk < 2; }

/* --- memory ------------------------------------------------------------------------------------------------------ */

/* A thread's: that of building or routing, later that of a group. */
static size_t thread_bytes(const attn_problem *pb, const attn_micro *mk, int64_t cells) {
  const size_t block = attn_cells_work(mk, cells, pb->d), group = icecells_work_bytes(pb, mk, cells);
  return attn_round(block > group ? block : group);
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
  const size_t per_head = attn_round(attn_cells_bytes(mk, cells, pb->nk, pb->d, pb->dv));
  need->plan = attn_add(head, attn_round(attn_mul(attn_mul(b, (size_t)pb->nk), sizeof(int32_t))));
  need->plan = attn_add(need->plan, attn_round(attn_mul(b, sizeof(int64_t))));
  need->plan = attn_add(need->plan, attn_round(attn_mul(heads, sizeof(attn_cells))));
  need->plan = attn_add(need->plan, attn_mul(heads, per_head));
  const size_t threads = attn_mul((size_t)pb->threads, thread_bytes(pb, mk, cells));
  need->scratch = attn_add(threads, order_bytes(pb, cells, NULL, NULL));
  return ATTN_OK;
}

static attn_status icecells_check(const attn_problem *pb, const void *params) {
  (void)params;
  ATTN_FAIL_IF(pb->d > 32768, ATTN_ERR_SHAPE, "icecells: d = %lld, allowed up to 32768", (long long)pb->d);
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
  const size_t per_head = attn_round(attn_cells_bytes(mk, pl->cells, pb->nk, pb->d, pb->dv));
  for (int64_t i = 0; i < pb->b * pb->hkv; i++, at += per_head)
    attn_cells_carve(&pl->head[i], mk, at, pl->cells, pb->nk, pb->d, pb->dv);
  return ATTN_OK;
}

/* --- build ------------------------------------------------------------------------------------------------------- */

/* One pass of assignment, sorting and means over all heads, of every `every`-th key; by all threads of a parallel region. Tasks of fixed size, so
 * that bits are those of any number of threads. */
static void lloyd_step(icecells_plan *pl, attn_view k, int64_t every, void *tmp) {
  const attn_problem *pb = &pl->pb;
  const int64_t heads = pb->b * pb->hkv, parts = (pl->cells + PART - 1) / PART;
  const int64_t blocks = ((pb->nk + every - 1) / every + BLOCK - 1) / BLOCK;
#pragma omp for schedule(dynamic)
  for (int64_t i = 0; i < heads; i++) attn_cells_aim(&pl->head[i], pl->mk, tmp);
#pragma omp for schedule(dynamic)
  for (int64_t task = 0; task < heads * blocks; task++) {
    const int64_t i = task / blocks, i0 = task % blocks * BLOCK, ib = i / pb->hkv;
    const int64_t keys = (pl->kept[ib] + every - 1) / every;
    if (i0 < keys)
      attn_cells_assign(&pl->head[i], pl->mk, attn_key_head(k, pb, i), k.sn, pl->idx + ib * pb->nk, every, i0,
                        i0 + BLOCK < keys ? i0 + BLOCK : keys, tmp);
  }
#pragma omp for schedule(dynamic)
  for (int64_t i = 0; i < heads; i++) attn_cells_sort(&pl->head[i], pl->mk, pl->idx + i / pb->hkv * pb->nk, every);
#pragma omp for schedule(dynamic)
  for (int64_t task = 0; task < heads * parts; task++) {
    const int64_t i = task / parts, c0 = task % parts * PART, c1 = c0 + PART < pl->cells ? c0 + PART : pl->cells;
    attn_cells_means(&pl->head[i], pl->mk, attn_key_head(k, pb, i), k.sn, c0, c1);
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
  const size_t per_thread = thread_bytes(pb, pl->mk, pl->cells);
  for (int64_t ib = 0; ib < pb->b; ib++)
    pl->kept[ib] = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, pl->idx + ib * pb->nk);
#pragma omp parallel num_threads(pb->threads)
  {
    void *tmp = (char *)scratch + (size_t)omp_get_thread_num() * per_thread;
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < heads; i++)
      attn_cells_seed(&pl->head[i], attn_key_head(k, pb, i), k.sn, pl->idx + i / pb->hkv * pb->nk, pl->kept[i / pb->hkv],
                      attn_hash(pb->seed, (uint64_t)i, 0));
    for (int64_t step = 0; step <= pl->params.lloyd; step++) lloyd_step(pl, k, step < pl->params.lloyd ? SAMPLE : 1, tmp);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * parts; task++) {
      const int64_t i = task / parts, c0 = task % parts * PART, c1 = c0 + PART < pl->cells ? c0 + PART : pl->cells;
      attn_cells_pack(&pl->head[i], pl->mk, attn_key_head(k, pb, i), k.sn, attn_key_head(v, pb, i), v.sn, c0, c1, tmp);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < heads; i++) attn_cells_finish(&pl->head[i], pl->mk, tmp);
  }
  pl->built = 1;
  return ATTN_OK;
}

/* --- routing ----------------------------------------------------------------------------------------------------- */

/* First and second cell of queries [i0, i1) of one head, by the score of the mean and the size of the cell. */
static void route_block(const icecells_plan *pl, const attn_cells *c, const float *q, ptrdiff_t qs, int64_t i0,
                        int64_t i1, char *tmp, int32_t *first, int32_t *second) {
  const attn_micro *mk = pl->mk;
  const int64_t rows = i1 - i0, ld = attn_padded(mk, c->cells);
  const float factor = (float)(pl->pb.scale * LOG2E);
  float as[BLOCK], best;
  uint8_t *a = attn_carve((void *)&tmp, (size_t)(BLOCK * attn_width_i8(c->d)));
  float *score = (float *)(void *)tmp;
  attn_rows_i8(mk, rows, c->d, q + i0 * qs, qs, NULL, a, as);
  for (int64_t i = 0; i < rows; i++) as[i] *= factor;
  attn_cells_scores(c, mk, rows, a, as, c->log2_count, score, ld);
  for (int64_t i = 0; i < rows; i++) {
    float *row = score + i * ld;
    first[i0 + i] = (int32_t)mk->argmax(c->cells, row, NULL, &best);
    row[first[i0 + i]] = -INFINITY;
    second[i0 + i] = (int32_t)mk->argmax(c->cells, row, NULL, &best);
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

/* --- forward -------------------------------------------------------------------------------------------------------- */

static attn_status icecells_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                    attn_stats *st) {
  const icecells_plan *pl = plan;
  if (pl && pl->dense) return attn_dense_instead(dense_plan_of(pl), q, out, scratch, st);
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "icecells: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "icecells: scratch is null or misaligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nq > 0 && (q.sn < pb->d || out.sn < pb->dv), ATTN_ERR_SHAPE,
               "icecells: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn,
               (long long)pb->d, (long long)pb->dv);
  const icecells_call call = {.pb = pb, .params = params, .mk = pl->mk, .q = q, .out = out, .st = st};
  const int64_t heads = pb->b * pb->h, nq = pb->nq, group = pb->h / pb->hkv;
  const int64_t blocks = (nq + BLOCK - 1) / BLOCK, groups = (nq + GROUP - 1) / GROUP;
  const size_t per_thread = thread_bytes(pb, pl->mk, pl->cells);
  icecells_order order;
  char *threads = (char *)scratch + order_bytes(pb, pl->cells, scratch, &order);
  uint64_t pairs = (uint64_t)(heads * nq * pl->cells);
#pragma omp parallel num_threads(pb->threads) reduction(+ : pairs)
  {
    char *mine = threads + (size_t)omp_get_thread_num() * per_thread;
    icecells_work work;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * blocks; task++) {
      const int64_t head = task / blocks, ib = head / pb->h, ih = head % pb->h, i0 = task % blocks * BLOCK;
      route_block(pl, &pl->head[ib * pb->hkv + ih / group], q.p + ib * q.sb + ih * q.sh, q.sn, i0,
                  i0 + BLOCK < nq ? i0 + BLOCK : nq, mine, order.first + head * nq, order.second + head * nq);
    }
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < heads; head++) { /* by second cell, then stably by first */
      int32_t *count = order.count + head * (pl->cells + 1), *by_second = order.query + head * nq;
      sort_by(nq, pl->cells, order.second + head * nq, NULL, by_second, count);
      sort_by(nq, pl->cells, order.first + head * nq, by_second, order.second + head * nq, count);
    }
    icecells_work_carve(&work, pb, pl->mk, pl->cells, mine);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * groups; task++) {
      const int64_t head = task / groups, ib = head / pb->h, ih = head % pb->h, i0 = task % groups * GROUP;
      pairs += icecells_group(&call, &pl->head[ib * pb->hkv + ih / group], ib, ih, nq - i0 < GROUP ? nq - i0 : GROUP,
                              order.second + head * nq + i0, &work);
    }
  }
  if (st) st->pairs = pairs;
  return ATTN_OK;
}

static void icecells_release(void *plan) { (void)plan; }

static const char *const far_choices[] = {"none", "mean", NULL};
static const char *const stop_choices[] = {"estimate", "bound", NULL};

#define P(field) .key = #field, .offset = offsetof(icecells_params, field)
static const attn_param icecells_table[] = {
    {P(cell), .doc = "mean number of keys in a cell; 0: 24, growing as sqrt(n) beyond 65,536 keys", .type = ATTN_P_INT, .dflt = 0, .min = 0, .max = 4096},
    {P(lloyd), .doc = "steps of Lloyd's algorithm after the first assignment", .type = ATTN_P_INT, .dflt = 1, .min = 0, .max = 20},
    {P(dense_below), .doc = "fewer keys than this: dense attention", .type = ATTN_P_INT, .dflt = 512, .min = 0, .max = 1e9},
    {P(visit), .doc = "most cells a query visits", .type = ATTN_P_INT, .late = 1, .dflt = 8, .min = 1, .max = 1e9},
    {P(mass), .doc = "share of the softmax mass at which visiting stops; 1: only visit counts", .type = ATTN_P_REAL, .late = 1, .dflt = 0.99, .min = 0, .max = 1},
    {P(stop), .doc = "mass counts as estimated, or for certain, by a bound", .type = ATTN_P_CHOICE, .late = 1, .dflt = 0, .choices = stop_choices},
    {P(far), .doc = "cells not visited: left out, or present by their means", .type = ATTN_P_CHOICE, .late = 1, .dflt = 1, .choices = far_choices},
    {.key = NULL}};
#undef P

const attn_method attn_method_icecells = {
    .name = "icecells",
    .version = "4",
    .cite = "this project; k-NN attention: arXiv:2405.02842",
    .doc = "near cells of keys exactly, far cells by their means; dense attention of few keys",
    .caps = ATTN_CAP_MASK | ATTN_CAP_CROSS | ATTN_CAP_GQA | ATTN_CAP_RANDOMISED | ATTN_CAP_STOCHASTIC |
            ATTN_CAP_CONVERGES | ATTN_CAP_KEYSET,
    .params_size = sizeof(icecells_params),
    .params = icecells_table,
    .check = icecells_check,
    .sizes = icecells_sizes,
    .prepare = icecells_prepare,
    .build = icecells_build,
    .forward = icecells_forward,
    .release = icecells_release,
};
