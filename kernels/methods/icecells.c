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
 * Causal  Row i may depend on keys and queries <= i only, and so may the cells it uses. The complete blocks of 256 keys before it are
 *         covered by cells of ranges of 1, 2, 4, ... blocks (core/ranges.h), the keys behind them are attended exactly. Each row visits
 *         the cells that it chose itself, in order of position; a cell meets the rows of a task that chose it together.
 * Source  Cells as in inverted-file search (Jegou et al. 2011), near and far field as in the fast multipole method
 *         (Greengard & Rokhlin 1987), the rest our own. k-NN view of attention: Mao et al. 2024 (arXiv:2405.02842).
 * Cost    per query 2 cells d byte products (route) + cells dv (far) + 2 visit cell d (near) multiply-adds; building
 *         (1 + lloyd / 2) cells d byte products per key; cells = n / cell. Causal: 128 (d + dv) more per query; a third of the building;
 *         log2(n/256)/2 + 2 copies of keys and values instead of one.
 * Limits  f32. Below `dense_below` keys it is "dense", bit for bit, and says so (attn_stats.path). */
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

/* Cells of 24 keys up to 65,536 keys, then wider ones: with of order sqrt(n) cells and keys in a cell neither routing nor
 * visiting grows out of proportion, but wide cells cost accuracy. */
static int64_t cells_of(const attn_problem *pb, const icecells_params *p, int64_t keys) {
  const double n = (double)pb->nk, grown = n > 65536.0 ? 24.0 * sqrt(n / 65536.0) : 24.0;
  const int64_t size = p->cell ? p->cell : (int64_t)grown;
  return (keys + size - 1) / size;
}

/* Indices of a key head: one of all keys, or one of each causal range. */
static int64_t ranges_of(const attn_problem *pb) { return pb->causal ? attn_ranges(pb->nk, ICECELLS_BLOCK) : 1; }
static attn_span range_at(const attn_problem *pb, int64_t number) {
  return pb->causal ? attn_range_at(pb->nk, ICECELLS_BLOCK, number) : (attn_span){0, pb->nk};
}
static int64_t widest_of(const attn_problem *pb) { return pb->causal ? attn_range_widest(pb->nk, ICECELLS_BLOCK) : pb->nk; }

/* Every range but the last adds at most one cell that is not full. */
static int64_t before_of(const attn_problem *pb, const icecells_params *p) { return cells_of(pb, p, pb->nk) + 64; }
int64_t icecells_before(const icecells_plan *pl) { return before_of(&pl->pb, &pl->params); }
static int is_dense(const attn_problem *pb, const icecells_params *p) { return pb->nk < p->dense_below || pb->nk < 2; }

/* --- memory ------------------------------------------------------------------------------------------------------ */

/* A thread's: that of building or routing, later that of a group or of a causal task. */
static size_t thread_bytes(const attn_problem *pb, const attn_micro *mk, const icecells_params *p) {
  const int64_t cells = cells_of(pb, p, widest_of(pb));
  const size_t block = attn_cells_work(mk, cells, pb->d),
               answer = pb->causal ? icecells_causal_bytes(pb, mk, before_of(pb, p)) : icecells_work_bytes(pb, mk, cells);
  return attn_round(block > answer ? block : answer);
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

static size_t index_bytes(const attn_problem *pb, const attn_micro *mk, const icecells_params *p, int64_t number) {
  const int64_t keys = range_at(pb, number).width;
  return attn_round(attn_cells_bytes(mk, cells_of(pb, p, keys), keys, pb->d, pb->dv));
}

static attn_status icecells_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  const icecells_params *p = params;
  const attn_micro *mk = attn_micro_get();
  *need = (attn_mem){0};
  if (is_dense(pb, p) || pb->causal) ATTN_TRY(attn_method_dense.sizes(pb, NULL, need));
  need->plan = attn_add(need->plan, attn_round(sizeof(icecells_plan)));
  if (is_dense(pb, p)) return ATTN_OK;
  const size_t heads = attn_mul((size_t)pb->b, (size_t)pb->hkv), b = (size_t)pb->b;
  size_t index = 0;
  for (int64_t r = 0; r < ranges_of(pb); r++) index = attn_add(index, index_bytes(pb, mk, p, r));
  need->plan = attn_add(need->plan, attn_round(attn_mul(attn_mul(b, (size_t)pb->nk), sizeof(int32_t))));
  need->plan = attn_add(need->plan, attn_round(attn_mul(b, sizeof(int64_t))));
  need->plan = attn_add(need->plan, attn_round(attn_mul(attn_mul(heads, (size_t)ranges_of(pb)), sizeof(attn_cells))));
  need->plan = attn_add(need->plan, attn_mul(heads, index));
  const size_t threads = attn_mul((size_t)pb->threads, thread_bytes(pb, mk, p)),
               scratch = pb->causal ? threads : attn_add(threads, order_bytes(pb, cells_of(pb, p, pb->nk), NULL, NULL));
  if (scratch > need->scratch) need->scratch = scratch;
  return ATTN_OK;
}

static attn_status icecells_check(const attn_problem *pb, const void *params) {
  (void)params;
  ATTN_FAIL_IF(pb->d > 32768, ATTN_ERR_SHAPE, "icecells: d = %lld, allowed up to 32768", (long long)pb->d);
  return ATTN_OK;
}

static attn_status icecells_prepare(void *plan, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "icecells: plan is null or not 64-byte aligned");
  icecells_plan *pl = plan;
  const attn_micro *mk = attn_micro_get();
  char *at = (char *)plan + attn_round(sizeof *pl);
  *pl = (icecells_plan){.pb = *pb, .params = *(const icecells_params *)params, .mk = mk, .ranges = ranges_of(pb)};
  pl->dense = is_dense(pb, &pl->params);
  if (!pl->dense) {
    const int64_t indices = pb->b * pb->hkv * pl->ranges;
    pl->cells = cells_of(pb, &pl->params, widest_of(pb));
    pl->idx = attn_carve(&at, (size_t)(pb->b * pb->nk) * sizeof(int32_t));
    pl->kept = attn_carve(&at, (size_t)pb->b * sizeof(int64_t));
    pl->head = attn_carve(&at, (size_t)indices * sizeof(attn_cells));
    for (int64_t i = 0; i < indices; i++) {
      const int64_t keys = range_at(pb, i % pl->ranges).width;
      attn_cells_carve(&pl->head[i], mk, at, cells_of(pb, &pl->params, keys), keys, pb->d, pb->dv);
      at += index_bytes(pb, mk, &pl->params, i % pl->ranges);
    }
  }
  pl->exact = at;
  return pl->dense || pb->causal ? attn_method_dense.prepare(pl->exact, pb, NULL) : ATTN_OK;
}

/* --- build ------------------------------------------------------------------------------------------------------- */

/* One index to build: `kept` of idx, of the keys and values of a head. */
typedef struct job {
  attn_cells *c;
  const float *k, *v;
  ptrdiff_t ks, vs;
  const int32_t *idx;
  int64_t kept;
  uint64_t seed;
} job;

/* The i-th of all indices. A causal range that is not full is used by nobody. */
static job job_of(const icecells_plan *pl, attn_view k, attn_view v, int64_t i) {
  const attn_problem *pb = &pl->pb;
  const int64_t head = i / pl->ranges, ib = head / pb->hkv, kept = pl->kept[ib];
  const attn_span range = range_at(pb, i % pl->ranges);
  const uint64_t seed = attn_hash(pb->seed, (uint64_t)head, 0);
  return (job){.c = &pl->head[i],
               .k = attn_key_head(k, pb, head),
               .v = attn_key_head(v, pb, head),
               .ks = k.sn,
               .vs = v.sn,
               .idx = pl->idx + ib * pb->nk + range.begin,
               .kept = !pb->causal ? kept : range.begin + range.width <= kept ? range.width : 0,
               .seed = pb->causal ? attn_hash(seed, (uint64_t)range.begin, (uint64_t)range.width) : seed};
}

/* One pass of assignment, sorting and means over all indices, of every `every`-th key; by all threads of a parallel region. Tasks of fixed size, so
 * that bits are those of any number of threads. */
static void lloyd_step(const icecells_plan *pl, attn_view k, attn_view v, int64_t every, void *tmp) {
  const attn_problem *pb = &pl->pb;
  const int64_t indices = pb->b * pb->hkv * pl->ranges, parts = (pl->cells + PART - 1) / PART;
  const int64_t blocks = ((widest_of(pb) + every - 1) / every + BLOCK - 1) / BLOCK;
#pragma omp for schedule(dynamic)
  for (int64_t i = 0; i < indices; i++) attn_cells_aim(&pl->head[i], pl->mk, tmp);
#pragma omp for schedule(dynamic)
  for (int64_t task = 0; task < indices * blocks; task++) {
    const job j = job_of(pl, k, v, task / blocks);
    const int64_t i0 = task % blocks * BLOCK, keys = (j.kept + every - 1) / every;
    if (i0 < keys) attn_cells_assign(j.c, pl->mk, j.k, j.ks, j.idx, every, i0, i0 + BLOCK < keys ? i0 + BLOCK : keys, tmp);
  }
#pragma omp for schedule(dynamic)
  for (int64_t i = 0; i < indices; i++) attn_cells_sort(&pl->head[i], pl->mk, job_of(pl, k, v, i).idx, every);
#pragma omp for schedule(dynamic)
  for (int64_t task = 0; task < indices * parts; task++) {
    const job j = job_of(pl, k, v, task / parts);
    const int64_t c0 = task % parts * PART, c1 = c0 + PART < j.c->cells ? c0 + PART : j.c->cells;
    attn_cells_means(j.c, pl->mk, j.k, j.ks, c0, c1);
  }
}

static attn_status icecells_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  icecells_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "icecells: build without plan");
  const attn_problem *pb = &pl->pb;
  if (pl->dense || pb->causal) ATTN_TRY(attn_method_dense.build(pl->exact, k, v, kmask, scratch));
  if (pl->dense) return ATTN_OK;
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "icecells: scratch is null or misaligned");
  ATTN_FAIL_IF(k.sn < pb->d || v.sn < pb->dv, ATTN_ERR_SHAPE,
               "icecells: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  const int64_t indices = pb->b * pb->hkv * pl->ranges, parts = (pl->cells + PART - 1) / PART;
  const size_t per_thread = thread_bytes(pb, pl->mk, &pl->params);
  for (int64_t ib = 0; ib < pb->b; ib++)
    pl->kept[ib] = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, pl->idx + ib * pb->nk);
#pragma omp parallel num_threads(pb->threads)
  {
    void *tmp = (char *)scratch + (size_t)omp_get_thread_num() * per_thread;
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < indices; i++) {
      const job j = job_of(pl, k, v, i);
      attn_cells_seed(j.c, j.k, j.ks, j.idx, j.kept, j.seed);
    }
    for (int64_t step = 0; step <= pl->params.lloyd; step++) lloyd_step(pl, k, v, step < pl->params.lloyd ? SAMPLE : 1, tmp);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < indices * parts; task++) {
      const job j = job_of(pl, k, v, task / parts);
      const int64_t c0 = task % parts * PART, c1 = c0 + PART < j.c->cells ? c0 + PART : j.c->cells;
      attn_cells_pack(j.c, pl->mk, j.k, j.ks, j.v, j.vs, c0, c1, tmp);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < indices; i++) attn_cells_finish(&pl->head[i], pl->mk, tmp);
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

/* Queries in the order of their cells, in groups that visit the same ones. */
static uint64_t forward_groups(const icecells_call *call, const icecells_plan *pl, void *scratch) {
  const attn_problem *pb = &pl->pb;
  const int64_t heads = pb->b * pb->h, nq = pb->nq, group = pb->h / pb->hkv;
  const int64_t blocks = (nq + BLOCK - 1) / BLOCK, groups = (nq + GROUP - 1) / GROUP;
  const size_t per_thread = thread_bytes(pb, pl->mk, &pl->params);
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
      route_block(pl, &pl->head[ib * pb->hkv + ih / group], call->q.p + ib * call->q.sb + ih * call->q.sh, call->q.sn, i0,
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
      pairs += icecells_group(call, &pl->head[ib * pb->hkv + ih / group], ib, ih, nq - i0 < GROUP ? nq - i0 : GROUP,
                              order.second + head * nq + i0, &work);
    }
  }
  return pairs;
}

/* Queries in the order of their positions. The last blocks, which see most, come first. */
static uint64_t forward_causal(const icecells_call *call, const icecells_plan *pl, void *scratch) {
  const attn_problem *pb = &pl->pb;
  const int64_t heads = pb->b * pb->h, blocks = (pb->nq + ICECELLS_BLOCK - 1) / ICECELLS_BLOCK;
  const size_t per_thread = thread_bytes(pb, pl->mk, &pl->params);
  uint64_t pairs = 0;
#pragma omp parallel for num_threads(pb->threads) schedule(dynamic) reduction(+ : pairs)
  for (int64_t task = 0; task < heads * blocks; task++) {
    const int64_t head = task % heads, i0 = (blocks - 1 - task / heads) * ICECELLS_BLOCK;
    pairs += icecells_causal(call, pl, head / pb->h, head % pb->h, i0, pb->nq - i0 < ICECELLS_BLOCK ? pb->nq - i0 : ICECELLS_BLOCK,
                             (char *)scratch + (size_t)omp_get_thread_num() * per_thread);
  }
  return pairs;
}

static attn_status icecells_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                    attn_stats *st) {
  const icecells_plan *pl = plan;
  if (pl && pl->dense) return attn_dense_instead(pl->exact, q, out, scratch, st);
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "icecells: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "icecells: scratch is null or misaligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nq > 0 && (q.sn < pb->d || out.sn < pb->dv), ATTN_ERR_SHAPE,
               "icecells: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn,
               (long long)pb->d, (long long)pb->dv);
  const icecells_call call = {.pb = pb, .params = params, .mk = pl->mk, .q = q, .out = out, .st = st};
  const uint64_t pairs = (pb->causal ? forward_causal : forward_groups)(&call, pl, scratch);
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
    .caps = ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_CROSS | ATTN_CAP_GQA | ATTN_CAP_RANDOMISED | ATTN_CAP_STOCHASTIC |
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
