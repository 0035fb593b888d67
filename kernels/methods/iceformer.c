/* iceformer.c - k-nearest-neighbour attention: each query attends to the k keys that Prioritized DCI finds for it.
 *
 * Idea    Softmax is ruled by few keys, those of largest inner product. An index of the keys (core/dci.h) is built per key
 *         head; each query scores the keys its search meets, keeps the k best by exact score, and the softmax is taken over
 *         those alone. No retraining: weights of the model stay as they are.
 * Causal  Row i may depend on keys <= i only, and so may the index it uses. The kept keys are cut into blocks of 128. A query
 *         scans the keys after its last complete block directly; the complete blocks before it are covered by indices over
 *         ranges of 1, 2, 4, ... blocks, those of the binary digits of their number. Each index is built in bulk from its
 *         own range, so later keys cannot move it. A query searches them as one forest: `beam` cells in all.
 * Append  Keys that arrive after build are cut into blocks too. The complete ones are covered by the same binary counter of
 *         indices beside the one that build made; each key is indexed anew log2(n / 128) times at most. A query searches them
 *         as one forest, `beam` cells for each index of it, and scans the incomplete block.
 * Scale   Queries are scaled by a power of two to a norm in [1/2, 1), as the index does with its keys: rounding is that of
 *         ordinary numbers for any finite input, and results do not change when keys grow as queries shrink.
 * Source  Mao et al. 2024 (arXiv:2405.02842), Li & Malik 2017 (arXiv:1703.00440).
 * Cost    per query about beam * (levels - 1) * n^(1/levels) products of width d, and k of width dv; building the same per key
 *         with build_beam and one level less; plan = one copy of the keys + comp*simp + 9 numbers per key (causal:
 *         log2(n/128)/2 + 1 copies); scratch per thread = lists for 256 queries + 5 simp + 10 numbers per key.
 * Limits  f32. A zero query, or keys all zero, take the first k visible keys. NaN or infinite keys and queries are refused. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/attn.h"
#include "kernels/core/alloc.h"
#include "kernels/core/dci.h"
#include "kernels/core/finite.h"
#include "kernels/core/ranges.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/micro/micro.h"

enum {
  BLOCK = 128, /* keys of a causal block */
  TASK = 256,  /* queries of a task, searched together */
  CHUNK = 512, /* keys of a task looking for parents   */
  PARTS = 8,   /* tasks that copy the keys of an index */
  WIDTHS = 20, /* BLOCK << WIDTHS exceeds any nk */
  KEY_DIRECTIONS = 1,
  KEY_LEVELS
};

typedef struct iceformer_params {
  int64_t k, comp, simp, levels, build_beam, beam, order;
  double build_visit, build_retrieve, visit, retrieve;
} iceformer_params;

typedef struct iceformer_plan {
  attn_problem pb;
  const attn_micro *mk;
  dci_shape shape;
  int built;
  int64_t ranges;          /* indices per key head */
  int32_t *idx;            /* [b, nk] kept positions */
  int64_t *kept;           /* [b] */
  double *square;          /* [b * hkv, nk] squared norms of the kept keys, by position */
  float *direction;        /* [b * hkv, comp * simp, d + 1] */
  dci *index;              /* [b * hkv, ranges] */
  attn_view k, v;
  int64_t start, length;   /* positions covered by build, and by now */
  dci *grown;              /* [b * hkv, WIDTHS] indices of appended blocks, one per width; NULL before the first append */
  void *store[WIDTHS];     /* their memory, all heads of a width; NULL before it is needed */
} iceformer_plan;

/* --- ranges ------------------------------------------------------------------------------------------------------- */

/* Indices per key head: one, or all causal ranges that fit into nk keys. */
static int64_t ranges_of(const attn_problem *pb) { return pb->causal ? attn_ranges(pb->nk, BLOCK) : 1; }
static attn_span range_at(const attn_problem *pb, int64_t number) {
  return pb->causal ? attn_range_at(pb->nk, BLOCK, number) : (attn_span){0, pb->nk};
}
static int64_t widest_of(const attn_problem *pb) { return pb->causal ? attn_range_widest(pb->nk, BLOCK) : pb->nk; }

/* Of an appended range: log2 of its blocks. */
static int order_of(int64_t width) {
  int order = 0;
  while (BLOCK << order < width) order++;
  return order;
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static dci_shape shape_of(const attn_problem *pb, const iceformer_params *p) {
  return (dci_shape){.d = pb->d,
                     .comp = (int)p->comp,
                     .simp = (int)p->simp,
                     .levels = (int)p->levels,
                     .l2 = p->order == 1,
                     .build = {.beam = p->build_beam, .visit = p->build_visit, .retrieve = p->build_retrieve}};
}

static size_t index_bytes(const attn_problem *pb, const dci_shape *shape) { /* of one key head */
  size_t sum = 0;
  for (int64_t i = 0; i < ranges_of(pb); i++) sum = attn_add(sum, dci_bytes(shape, range_at(pb, i).width));
  return sum;
}

/* A thread's memory: the search's, then what belongs to the queries of a task. */
typedef struct iceformer_scratch {
  dci_work work;
  float *tail;                       /* [d, BLOCK] and slack: keys behind the last index, a column each */
  int32_t *exponent, *visible, *all; /* [TASK] of the query's scale (ZERO: no direction); keys it sees; 0, 1, 2, ... */
  float *weight;                     /* [nk] */
} iceformer_scratch;
enum { ZERO = INT32_MIN };

static int64_t task_rows(const attn_problem *pb) { return pb->nq < TASK ? pb->nq : TASK; }
static size_t tail_bytes(const attn_problem *pb) { return attn_round(((size_t)pb->d * BLOCK + DCI_SLACK) * sizeof(float)); }

static size_t thread_bytes(const attn_problem *pb, const dci_shape *shape) {
  size_t sum = attn_add(dci_work_bytes(shape, pb->nk, task_rows(pb)), tail_bytes(pb));
  sum = attn_add(sum, 3 * attn_round(TASK * sizeof(int32_t)));
  return attn_add(sum, attn_round(attn_mul((size_t)pb->nk, sizeof(float))));
}

static iceformer_scratch scratch_of(void *scratch, const attn_problem *pb, const dci_shape *shape, int thread) {
  char *at = (char *)scratch + (size_t)thread * thread_bytes(pb, shape);
  iceformer_scratch s;
  dci_work_carve(&s.work, shape, attn_micro_get(), at, pb->nk, task_rows(pb));
  at += dci_work_bytes(shape, pb->nk, task_rows(pb));
  s.tail = attn_carve(&at, tail_bytes(pb));
  s.exponent = attn_carve(&at, TASK * sizeof(int32_t));
  s.visible = attn_carve(&at, TASK * sizeof(int32_t));
  s.all = attn_carve(&at, TASK * sizeof(int32_t));
  s.weight = attn_carve(&at, (size_t)pb->nk * sizeof(float));
  return s;
}

static attn_status iceformer_check(const attn_problem *pb, const void *params) {
  (void)params;
  ATTN_FAIL_IF(pb->nk > INT32_MAX / DCI_MAX_SIMP, ATTN_ERR_SHAPE, "iceformer: nk = %lld, allowed up to %d",
               (long long)pb->nk, INT32_MAX / DCI_MAX_SIMP);
  return ATTN_OK;
}

static attn_status iceformer_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  const dci_shape shape = shape_of(pb, params);
  const size_t heads = attn_mul((size_t)pb->b, (size_t)pb->hkv), b = (size_t)pb->b;
  size_t plan = attn_round(sizeof(iceformer_plan));
  plan = attn_add(plan, attn_round(attn_mul(attn_mul(b, (size_t)pb->nk), sizeof(int32_t))));
  plan = attn_add(plan, attn_round(attn_mul(b, sizeof(int64_t))));
  plan = attn_add(plan, attn_round(attn_mul(attn_mul(heads, (size_t)pb->nk), sizeof(double))));
  plan = attn_add(plan, attn_round(attn_mul(attn_mul(heads, (size_t)(shape.comp * shape.simp)), (size_t)(pb->d + 1) * sizeof(float))));
  plan = attn_add(plan, attn_round(attn_mul(attn_mul(heads, (size_t)ranges_of(pb)), sizeof(dci))));
  need->plan = attn_add(plan, attn_mul(heads, index_bytes(pb, &shape)));
  need->scratch = attn_mul((size_t)pb->threads, thread_bytes(pb, &shape));
  return ATTN_OK;
}

static attn_status iceformer_prepare(void *plan, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "iceformer: plan is null or not 64-byte aligned");
  iceformer_plan *pl = plan;
  *pl = (iceformer_plan){.pb = *pb, .mk = attn_micro_get(), .shape = shape_of(pb, params), .ranges = ranges_of(pb)};
  const int64_t heads = pb->b * pb->hkv, row = (int64_t)pl->shape.comp * pl->shape.simp * (pb->d + 1);
  char *at = (char *)plan + attn_round(sizeof *pl);
  pl->idx = attn_carve(&at, (size_t)(pb->b * pb->nk) * sizeof(int32_t));
  pl->kept = attn_carve(&at, (size_t)pb->b * sizeof(int64_t));
  pl->square = attn_carve(&at, (size_t)(heads * pb->nk) * sizeof(double));
  pl->direction = attn_carve(&at, (size_t)(heads * row) * sizeof(float));
  pl->index = attn_carve(&at, (size_t)(heads * pl->ranges) * sizeof(dci));
  for (int64_t i = 0; i < heads * pl->ranges; i++) {
    const int64_t head = i / pl->ranges, room = range_at(pb, i % pl->ranges).width;
    if (i % pl->ranges == 0) dci_directions(&pl->shape, attn_hash(pb->seed, (uint64_t)head, KEY_DIRECTIONS), pl->direction + head * row);
    dci_carve(&pl->index[i], &pl->shape, pl->mk, pl->direction + head * row, at, room);
    at += dci_bytes(&pl->shape, room);
  }
  return ATTN_OK;
}

/* --- build -------------------------------------------------------------------------------------------------------- */

typedef struct job { /* one index to build */
  dci *x;
  const float *keys;
  const double *square;
  const int32_t *idx;
  int64_t n;
  uint64_t seed;
} job;

/* The i-th of all indices that build makes; or, where `appended` is not empty, that of head i over these appended keys. */
static job job_of(const iceformer_plan *pl, attn_span appended, int64_t i) {
  const attn_problem *pb = &pl->pb;
  const int64_t head = appended.width ? i : i / pl->ranges, ib = head / pb->hkv, ih = head % pb->hkv, kept = pl->kept[ib];
  const attn_span range = appended.width ? appended : range_at(pb, i % pl->ranges);
  const uint64_t seed = attn_hash(pb->seed, (uint64_t)head, KEY_LEVELS);
  job j = {.keys = pl->k.p + ib * pl->k.sb + ih * pl->k.sh, .square = pl->square + head * pb->nk, .idx = pl->idx + ib * pb->nk + range.begin};
  if (appended.width) {
    j.x = &pl->grown[head * WIDTHS + order_of(appended.width)];
    j.idx += kept - (pl->length - pl->start);
    j.n = range.width;
  } else {
    j.x = &pl->index[i];
    j.n = !pb->causal ? kept : range.begin + range.width <= kept ? range.width : 0;
  }
  const int all = !pb->causal && !appended.width;
  j.seed = attn_hash(seed, (uint64_t)range.begin, all ? 0 : (uint64_t)range.width);
  return j;
}

/* Norms of the kept keys, or of `added` keys behind them; refuses those that are not finite. */
static attn_status measure_keys(const iceformer_plan *pl, int64_t added) {
  const attn_problem *pb = &pl->pb;
  const int64_t each = added ? added : pb->nk, rows = pb->b * pb->hkv * each;
  int64_t bad = rows;
#pragma omp parallel for num_threads(pb->threads) schedule(static) reduction(min : bad)
  for (int64_t row = 0; row < rows; row++) {
    const int64_t ib = row / (pb->hkv * each), ih = row / each % pb->hkv, r = row % each;
    if (!added && r >= pl->kept[ib]) continue;
    const int32_t id = pl->idx[ib * pb->nk + (added ? pl->kept[ib] : 0) + r];
    const double square = dci_square(pb->d, pl->k.p + ib * pl->k.sb + ih * pl->k.sh + id * pl->k.sn);
    if (!isfinite(square)) bad = row < bad ? row : bad; /* finite keys have finite squares in double */
    pl->square[(ib * pb->hkv + ih) * pb->nk + id] = square;
  }
  if (bad == rows) return ATTN_OK;
  const int64_t ib = bad / (pb->hkv * each);
  ATTN_FAIL_IF(1, ATTN_ERR_NUMERIC, "iceformer: key %lld of head %lld holds a NaN or infinity, allowed finite numbers",
               (long long)pl->idx[ib * pb->nk + (added ? pl->kept[ib] : 0) + bad % each], (long long)(bad / each % pb->hkv));
}

static void build_indices(const iceformer_plan *pl, attn_span appended, void *scratch) {
  const attn_problem *pb = &pl->pb;
  const int64_t heads = pb->b * pb->hkv, indices = appended.width ? heads : heads * pl->ranges;
  const int64_t chunks = ((appended.width ? appended.width : widest_of(pb)) + CHUNK - 1) / CHUNK;
#pragma omp parallel num_threads(pb->threads)
  {
    iceformer_scratch sc = scratch_of(scratch, pb, &pl->shape, omp_get_thread_num());
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < indices; i++) {
      const job j = job_of(pl, appended, i);
      dci_begin(j.x, j.keys, pl->k.sn, j.square, j.idx, j.n, j.seed);
    }
    for (int depth = 1; depth < pl->shape.levels; depth++) {
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < indices * chunks; task++) {
        dci *x = job_of(pl, appended, task / chunks).x;
        const int64_t r0 = task % chunks * CHUNK, r1 = r0 + CHUNK < x->n ? r0 + CHUNK : x->n;
        if (depth < x->depths && r0 < x->n) dci_assign(x, depth, r0, r1, &sc.work);
      }
#pragma omp for schedule(dynamic)
      for (int64_t i = 0; i < indices; i++) {
        dci *x = job_of(pl, appended, i).x;
        if (depth < x->depths) dci_place(x, depth);
      }
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < indices * PARTS; task++) {
        dci *x = job_of(pl, appended, task / PARTS).x;
        if (depth < x->depths) dci_fill(x, depth, task % PARTS, PARTS);
      }
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < indices; i++) dci_finish(job_of(pl, appended, i).x);
  }
}

static attn_status iceformer_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  iceformer_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "iceformer: build without plan");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "iceformer: scratch is null or misaligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv), ATTN_ERR_SHAPE,
               "iceformer: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  pl->built = 0, pl->k = k, pl->v = v;
  for (int64_t ib = 0; ib < pb->b; ib++)
    pl->kept[ib] = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, pl->idx + ib * pb->nk);
  ATTN_TRY(measure_keys(pl, 0));
  pl->start = 0;
  for (int64_t ib = 0; ib < pb->b; ib++)
    if (pl->kept[ib] && pl->idx[ib * pb->nk + pl->kept[ib] - 1] >= pl->start) pl->start = pl->idx[ib * pb->nk + pl->kept[ib] - 1] + 1;
  pl->length = pl->start;
  build_indices(pl, (attn_span){0, 0}, scratch);
  pl->built = 1;
  return ATTN_OK;
}

/* --- append ------------------------------------------------------------------------------------------------------- */

/* The appended keys that one index of this width covers when `count` were appended; empty where there is none. */
static attn_span grown_range(int64_t count, int64_t width) {
  const int64_t full = count / BLOCK * BLOCK;
  return full & width ? (attn_span){full & ~(2 * width - 1), width} : (attn_span){0, 0};
}

/* Memory for the indices of a width, for all heads. */
static attn_status make_room(iceformer_plan *pl, int64_t width) {
  const int64_t heads = pl->pb.b * pl->pb.hkv, row = (int64_t)pl->shape.comp * pl->shape.simp * (pl->pb.d + 1);
  const int order = order_of(width);
  const size_t each = dci_bytes(&pl->shape, width), all = attn_mul((size_t)heads, each);
  if (!pl->grown) pl->grown = attn_calloc(attn_mul(attn_mul((size_t)heads, WIDTHS), sizeof *pl->grown));
  if (pl->grown && !pl->store[order]) {
    pl->store[order] = attn_alloc(all);
    for (int64_t i = 0; i < heads && pl->store[order]; i++)
      dci_carve(&pl->grown[i * WIDTHS + order], &pl->shape, pl->mk, pl->direction + i * row, (char *)pl->store[order] + (size_t)i * each, width);
  }
  ATTN_FAIL_IF(!pl->grown || !pl->store[order], ATTN_ERR_NOMEM, "iceformer: no memory for an index of %lld appended keys (%zu bytes)",
               (long long)width, all);
  return ATTN_OK;
}

static attn_status iceformer_append(void *plan, int64_t n, void *scratch) {
  iceformer_plan *pl = plan;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "iceformer: append before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "iceformer: scratch is null or misaligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->causal, ATTN_ERR_UNSUPPORTED, "iceformer: append to a causal plan; decode with causal = 0, where a query sees all keys so far");
  ATTN_FAIL_IF(n < pl->length || n > pb->nk, ATTN_ERR_SHAPE, "iceformer: append up to %lld keys, allowed %lld, the keys so far, to %lld, the capacity",
               (long long)n, (long long)pl->length, (long long)pb->nk);
  const int64_t added = n - pl->length, before = pl->length - pl->start;
  if (added == 0) return ATTN_OK;
  for (int64_t ib = 0; ib < pb->b; ib++) /* behind the kept ones: nothing looks there yet */
    for (int64_t i = 0; i < added; i++) pl->idx[ib * pb->nk + pl->kept[ib] + i] = (int32_t)(pl->length + i);
  ATTN_TRY(measure_keys(pl, added));
  for (int64_t width = BLOCK; width <= before + added; width *= 2)
    if (grown_range(before + added, width).width) ATTN_TRY(make_room(pl, width));
  pl->length = n;
  for (int64_t ib = 0; ib < pb->b; ib++) pl->kept[ib] += added;
  for (int64_t width = BLOCK; width <= before + added; width *= 2) {
    const attn_span range = grown_range(before + added, width), old = grown_range(before, width);
    if (range.width && (!old.width || old.begin != range.begin)) build_indices(pl, range, scratch);
  }
  return ATTN_OK;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

typedef struct iceformer_call { /* arguments of one forward */
  const iceformer_plan *pl;
  int64_t k;
  dci_budget budget;
  attn_view q;
  attn_viewm out;
  const attn_stats *st;
} iceformer_call;

/* The forest that the queries of a task search. */
typedef struct forest {
  dci_tree tree[DCI_TREES];
  int trees;
} forest;

/* Scales a query by 2^-exponent to a norm in [1/2, 1); returns the exponent, ZERO for a zero query. */
static int scale_query(int64_t d, const float *q, float *scaled) {
  int exponent;
  const double square = dci_square(d, q);
  (void)frexp(sqrt(square), &exponent);
  const double unit = ldexp(1.0, -exponent);
  for (int64_t t = 0; t < d; t++) scaled[t] = (float)((double)q[t] * unit);
  scaled[d] = 0.0f;
  return square > 0.0 ? exponent : ZERO;
}

/* Adds the first n keys of idx with scores of 0: where all scores are 0 the first k keys are the best. */
static void add_zeros(const iceformer_call *c, dci_list *l, const int32_t *idx, int64_t n) {
  static const float zero[DCI_COLS + DCI_SLACK];
  n = n < c->k ? n : c->k;
  for (int64_t j = 0; j < n; j += DCI_COLS) dci_add(c->pl->mk, l, n - j < DCI_COLS ? n - j : DCI_COLS, zero, 1.0f, 0, idx + j);
}

/* Queries [from, to) of the task shall search index x over idx[0..n). */
static void add_tree(const iceformer_call *c, forest *f, const dci *x, const int32_t *idx, int64_t n, int64_t from, int64_t to,
                     iceformer_scratch *sc) {
  for (int64_t i = from; i < to; i++)
    if (sc->exponent[i] == ZERO || x->norm == 0.0f) add_zeros(c, &sc->work.best[i], idx, n);
  if (x->norm == 0.0f) return;
  int i = 0; /* an earlier group of queries may search it too */
  while (i < f->trees && f->tree[i].x != x) i++;
  if (i == f->trees) f->tree[f->trees++] = (dci_tree){x, from, to};
  f->tree[i].to = to;
}

/* All queries of the task search the index that build made, and those of the complete blocks appended since. */
static void add_all(const iceformer_call *c, forest *f, int64_t head, const int32_t *idx, int64_t kept, int64_t rows, iceformer_scratch *sc) {
  const iceformer_plan *pl = c->pl;
  const int64_t count = pl->length - pl->start, base = kept - count;
  add_tree(c, f, pl->index + head, idx, base, 0, rows, sc);
  int64_t width = BLOCK;
  while (2 * width <= count) width *= 2;
  for (; width >= BLOCK; width /= 2) { /* in order of positions */
    const attn_span range = grown_range(count, width);
    if (range.width) add_tree(c, f, pl->grown + head * WIDTHS + order_of(width), idx + base + range.begin, width, 0, rows, sc);
  }
}

/* Queries [from, to) of the task score the keys idx[full..visible) directly: one small matrix product. */
static void scan_tail(const iceformer_call *c, const float *keys, const int32_t *idx, int64_t full, int64_t from, int64_t to,
                      iceformer_scratch *sc, dci_cost *cost) {
  const iceformer_plan *pl = c->pl;
  const int64_t d = pl->pb.d, count = sc->visible[to - 1] - full;
  dci_work *w = &sc->work;
  for (int64_t j = 0; j < count; j++)
    for (int64_t t = 0; t < d; t++) sc->tail[t * count + j] = keys[idx[full + j] * pl->k.sn + t];
  cost->bytes += (uint64_t)(count * d) * sizeof(float); /* once, into the tail that all of them share */
  for (int64_t j = 0; j < count; j += DCI_COLS)
    for (int64_t i = from; i < to; i += DCI_ROWS) {
      enum { LD = DCI_COLS + DCI_SLACK };
      const int64_t n = count - j < DCI_COLS ? count - j : DCI_COLS, m = to - i < DCI_ROWS ? to - i : DCI_ROWS;
      pl->mk->scores(m, n, d, w->row, d + 1, sc->all + i, sc->tail + j, count, w->tile, LD);
      for (int64_t r = 0; r < m; r++) {
        const int64_t sees = sc->visible[i + r] - full - j, some = sees < 0 ? 0 : sees < n ? sees : n;
        dci_add(pl->mk, &w->best[i + r], some, w->tile + r * LD, 1.0f, 0, idx + full + j);
        cost->pairs += (uint64_t)some;
      }
    }
}

/* Softmax over the keys of query i of the task, values, and what the caller wants to know. */
static void attend(const iceformer_call *c, int64_t ib, int64_t ih, int64_t iq, int64_t i, iceformer_scratch *sc) {
  const iceformer_plan *pl = c->pl;
  const attn_problem *pb = &pl->pb;
  dci_list *l = &sc->work.best[i];
  dci_close(pl->mk, l);
  const double factor = sc->exponent[i] == ZERO ? 0.0 : ldexp((double)pb->scale, sc->exponent[i]);
  float top = -INFINITY, none = 0.0f, lane[16] = {0.0f};
  for (int64_t j = 0; j < l->count; j++) top = l->score[j] > top ? l->score[j] : top;
  for (int64_t j = 0; j < l->count; j++) sc->weight[j] = (float)(factor * LOG2E * (double)(l->score[j] - top));
  pl->mk->softmax_block(1, l->count, sc->weight, l->count, NULL, &none, lane, NULL, 0, 0);
  const float sum = attn_lane_sum(lane), inverse = 1.0f / sum;
  for (int64_t j = 0; j < l->count; j++) sc->weight[j] *= inverse;
  pl->mk->weigh_rows(l->count, sc->weight, l->id, pl->v.p + ib * pl->v.sb + ih / (pb->h / pb->hkv) * pl->v.sh, pl->v.sn, pb->dv,
                     c->out.p + ib * c->out.sb + ih * c->out.sh + iq * c->out.sn);
  if (c->st && c->st->on_keys && l->count) c->st->on_keys(c->st->ctx, ib, ih, iq, l->id, l->count);
  if (c->st && c->st->lse)
    c->st->lse[(ib * pb->h + ih) * pb->nq + iq] = l->count ? (float)(factor * (double)top + log((double)sum)) : -INFINITY;
}

/* Of a task of `rows` queries, [from, *to) see the same complete blocks; returns how many keys these hold. */
static int64_t same_blocks(const iceformer_scratch *sc, int64_t rows, int64_t from, int64_t *to) {
  const int64_t full = sc->visible[from] / BLOCK * BLOCK;
  for (*to = from; *to < rows && sc->visible[*to] / BLOCK * BLOCK == full;) ++*to;
  return full;
}

/* Queries [i0, i0 + rows) of head (ib, ih). */
static void attend_rows(const iceformer_call *c, int64_t ib, int64_t ih, int64_t i0, int64_t rows, iceformer_scratch *sc, dci_cost *cost) {
  const iceformer_plan *pl = c->pl;
  const attn_problem *pb = &pl->pb;
  const int64_t head = ib * pb->hkv + ih / (pb->h / pb->hkv), d = pb->d;
  const int32_t *idx = pl->idx + ib * pb->nk;
  const float *keys = pl->k.p + ib * pl->k.sb + head % pb->hkv * pl->k.sh;
  const dci *index = pl->index + head * pl->ranges;
  dci_work *w = &sc->work;
  forest f = {.trees = 0};
  int64_t active = 0;
  for (int64_t i = 0; i < rows; i++) {
    sc->exponent[i] = scale_query(d, c->q.p + ib * c->q.sb + ih * c->q.sh + (i0 + i) * c->q.sn, w->row + i * (d + 1));
    sc->visible[i] = (int32_t)attn_prefix(pb, idx, pl->kept[ib], i0 + i);
    sc->all[i] = (int32_t)i;
    if (sc->exponent[i] != ZERO) w->who[active++] = (int32_t)i;
    w->best[i].count = 0, w->best[i].floor = -INFINITY;
  }
  if (!pb->causal) add_all(c, &f, head, idx, pl->kept[ib], rows, sc);
  for (int64_t from = 0, to; pb->causal && from < rows; from = to) {
    const int64_t full = same_blocks(sc, rows, from, &to);
    attn_span range = {0, widest_of(pb)};
    for (; range.width >= BLOCK; range.width /= 2) {
      if (!(full & range.width)) continue;
      add_tree(c, &f, index + attn_range_number(pb->nk, BLOCK, range), idx + range.begin, range.width, from, to, sc);
      range.begin += range.width;
    }
  }
  dci_search(w, active, f.tree, f.trees, c->k, &c->budget, cost);
  /* The tails last: few of their keys are among the best by then. */
  for (int64_t from = 0, to; pb->causal && from < rows; from = to) {
    const int64_t full = same_blocks(sc, rows, from, &to);
    scan_tail(c, keys, idx, full, from, to, sc, cost);
  }
  if (!pb->causal) scan_tail(c, keys, idx, pl->kept[ib] - (pl->length - pl->start) % BLOCK, 0, rows, sc, cost);
  for (int64_t i = 0; i < rows; i++) {
    attend(c, ib, ih, i0 + i, i, sc);
    cost->bytes += (uint64_t)(w->best[i].count * pb->dv) * sizeof(float);
  }
}

static attn_status check_queries(const attn_problem *pb, attn_view q) {
  const int64_t rows = pb->b * pb->h * pb->nq;
  int64_t bad = rows;
#pragma omp parallel for num_threads(pb->threads) schedule(static) reduction(min : bad)
  for (int64_t row = 0; row < rows; row++) {
    const int64_t ib = row / (pb->h * pb->nq), ih = row / pb->nq % pb->h, iq = row % pb->nq;
    if (!attn_all_finite(pb->d, q.p + ib * q.sb + ih * q.sh + iq * q.sn)) bad = row < bad ? row : bad;
  }
  ATTN_FAIL_IF(bad < rows, ATTN_ERR_NUMERIC, "iceformer: query %lld of head %lld holds a NaN or infinity, allowed finite numbers",
               (long long)(bad % pb->nq), (long long)(bad / pb->nq % pb->h));
  return ATTN_OK;
}

static attn_status iceformer_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                     attn_stats *st) {
  const iceformer_plan *pl = plan;
  const iceformer_params *p = params;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "iceformer: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "iceformer: scratch is null or misaligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nq > 0 && (q.sn < pb->d || out.sn < pb->dv), ATTN_ERR_SHAPE,
               "iceformer: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn,
               (long long)pb->d, (long long)pb->dv);
  ATTN_TRY(check_queries(pb, q));
  int64_t indices = 1; /* that each query searches */
  for (int64_t width = BLOCK; width <= pl->length - pl->start; width *= 2) indices += grown_range(pl->length - pl->start, width).width != 0;
  const iceformer_call c = {.pl = pl,
                            .k = p->k < pb->nk ? p->k : pb->nk,
                            .budget = {.beam = indices * (p->beam ? p->beam : p->k), .visit = p->visit, .retrieve = p->retrieve},
                            .q = q,
                            .out = out,
                            .st = st};
  const int64_t tasks = (pb->nq + TASK - 1) / TASK;
  uint64_t pairs = 0, bytes = 0;
#pragma omp parallel num_threads(pb->threads) reduction(+ : pairs, bytes)
  {
    iceformer_scratch sc = scratch_of(scratch, pb, &pl->shape, omp_get_thread_num());
    dci_cost cost = {0, 0};
    dci_work_split(&sc.work, c.k, c.budget.beam, task_rows(pb));
#pragma omp for schedule(dynamic) nowait
    for (int64_t task = 0; task < pb->b * pb->h * tasks; task++) {
      const int64_t head = task / tasks, i0 = task % tasks * TASK, i1 = i0 + TASK < pb->nq ? i0 + TASK : pb->nq;
      for (int64_t i = i0; i < i1; i += sc.work.probes)
        attend_rows(&c, head / pb->h, head % pb->h, i, i1 - i < sc.work.probes ? i1 - i : sc.work.probes, &sc, &cost);
    }
    pairs += cost.pairs, bytes += cost.bytes;
  }
  if (st) st->pairs = pairs, st->bytes = bytes;
  return ATTN_OK;
}

static void iceformer_release(void *plan) {
  iceformer_plan *pl = plan;
  if (!pl) return;
  attn_free(pl->grown);
  for (int i = 0; i < WIDTHS; i++) attn_free(pl->store[i]);
  pl->grown = NULL;
  memset(pl->store, 0, sizeof pl->store);
}

static const char *const order_choices[] = {"dci", "l2", NULL};
#define AT(member) offsetof(iceformer_params, member)
static const attn_param iceformer_table[] = {
    {.key = "k", .doc = "keys that a query attends to", .type = ATTN_P_INT, .late = 1, .offset = AT(k), .dflt = 32, .min = 1, .max = 1 << 20},
    {.key = "comp", .doc = "composite indices", .type = ATTN_P_INT, .offset = AT(comp), .dflt = 2, .min = 1, .max = DCI_MAX_COMP},
    {.key = "simp", .doc = "simple indices (directions) of a composite", .type = ATTN_P_INT, .offset = AT(simp), .dflt = 4, .min = 1, .max = DCI_MAX_SIMP},
    {.key = "levels", .doc = "levels of the tree; fewer where there are too few keys", .type = ATTN_P_INT, .offset = AT(levels), .dflt = 2, .min = 1, .max = DCI_MAX_LEVELS},
    {.key = "build_beam", .doc = "cells opened per level when a parent is sought", .type = ATTN_P_INT, .offset = AT(build_beam), .dflt = 20, .min = 1, .max = 4096},
    {.key = "build_visit", .doc = "share of a cell that building may pop", .type = ATTN_P_REAL, .offset = AT(build_visit), .dflt = 1.0, .min = 1e-6, .max = 1},
    {.key = "build_retrieve", .doc = "share of a cell that building may score", .type = ATTN_P_REAL, .offset = AT(build_retrieve), .dflt = 1.0, .min = 1e-6, .max = 1},
    {.key = "beam", .doc = "cells a query opens per level; 0: k", .type = ATTN_P_INT, .late = 1, .offset = AT(beam), .dflt = 0, .min = 0, .max = 4096},
    {.key = "visit", .doc = "share of a cell that a query may pop", .type = ATTN_P_REAL, .late = 1, .offset = AT(visit), .dflt = 1.0, .min = 1e-6, .max = 1},
    {.key = "retrieve", .doc = "share of a cell that a query may score", .type = ATTN_P_REAL, .late = 1, .offset = AT(retrieve), .dflt = 1.0, .min = 1e-6, .max = 1},
    {.key = "order", .doc = "order of candidates in a cell: largest difference (as published), or Euclidean", .type = ATTN_P_CHOICE, .offset = AT(order), .dflt = 0, .choices = order_choices},
    {.key = NULL}};

const attn_method attn_method_iceformer = {
    .name = "iceformer",
    .version = "2",
    .cite = "arXiv:2405.02842, arXiv:1703.00440",
    .doc = "softmax over the k keys that Prioritized DCI finds, as in the paper",
    .caps = ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_CROSS | ATTN_CAP_GQA | ATTN_CAP_RANDOMISED | ATTN_CAP_STOCHASTIC |
            ATTN_CAP_CONVERGES | ATTN_CAP_KEYSET,
    .params_size = sizeof(iceformer_params),
    .params = iceformer_table,
    .check = iceformer_check,
    .sizes = iceformer_sizes,
    .prepare = iceformer_prepare,
    .build = iceformer_build,
    .forward = iceformer_forward,
    .release = iceformer_release,
    .append = iceformer_append,
};
