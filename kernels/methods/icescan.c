/* icescan.c - exact attention over the few stretches of keys that an 8-bit scan finds worth it.
 *
 * Idea    Softmax is ruled by few keys, and products of 8-bit integers cost a quarter of those of floats:
 *           scan   scores of a register tile of queries against all keys in 8 bits; of every stretch of 32 keys only the
 *                  largest score of each row is kept;
 *           choose per row the stretches with the largest maxima, until they hold `mass` of the sum of 2^maximum (or
 *                  `visit` of them are taken);
 *           visit  the chosen stretches in floats, as "dense" does (dense_block.h): what the 8 bits lost is lost in the
 *                  choice only. Rows of a tile share their stretches: what one chose, the others use.
 *         A head of which a few tiles of queries want most stretches is answered densely: it has nothing to skip.
 *         There is no index: building is packing, every key is looked at, and no structure of the keys is assumed but that
 *         weights are uneven. With stop=bound the choice goes on until no row can miss more than 1 - mass: 32 keys at the
 *         maximum of each stretch left out, scores off by the most that rounding to 8 bits can do.
 * Causal  Row i may depend on keys <= i only, so it uses the stretches that it chose itself, one by one.
 * Source  8-bit scan with exact re-ranking is common in vector search (e.g. Johnson et al. 2017, arXiv:1702.08734); doing
 *         it by stretches, so that the exact part is small gemms without selection or gathering, is ours.
 * Cost    nq nk d byte products and nq nk / 32 exponentials; then 2 visited (d + dv) flops; plan = that of dense and
 *         d + 8 bytes per key.
 * Limits  f32. NaN and infinite keys are refused. Below `dense_below` keys it is "dense", bit for bit, and says so. */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/attn.h"
#include "kernels/core/alloc.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/methods/dense.h"
#include "kernels/methods/dense_block.h"
#include "kernels/micro/micro.h"

enum {
  STRETCH = DENSE_WHOLE, /* keys chosen together */
  ROWS = 96,             /* queries of a task; a multiple of every register tile */
  CHUNK = 512,           /* keys scanned at once: their bytes meet all tiles of the task in cache */
  PART = 1024,           /* keys quantised by a task; whole panels */
  BUCKETS = 64,          /* shares are sorted by their binary exponent */
  FEW = 16,              /* stretches that are found by looking for the largest */
  PROBES = 3             /* register tiles per head by which it is told whether scanning pays */
};

typedef struct icescan_params {
  int64_t dense_below, visit, stop;
  double mass;
} icescan_params;

typedef struct icescan_plan {
  attn_problem pb;
  const attn_micro *mk;
  int dense;           /* too few keys to scan */
  int8_t *key;         /* [b * hkv] quantised keys, as columns of gemm_i8 */
  float *scale;        /* [b * hkv, nk] */
  float *longest, *step; /* [b * hkv, nk] over the kept keys so far: largest length, largest scale */
  size_t key_bytes;    /* of one head */
  void *exact;         /* plan of "dense" */
} icescan_plan;

static int is_dense(const attn_problem *pb, const icescan_params *p) { return pb->nk < p->dense_below; }
static int64_t stretches_of(int64_t keys) { return (keys + STRETCH - 1) / STRETCH; }
static size_t key_bytes(const attn_problem *pb, const attn_micro *mk) { return attn_round((size_t)attn_bytes_i8(mk, pb->nk, pb->d)); }

static attn_status icescan_check(const attn_problem *pb, const void *params) {
  (void)params;
  ATTN_FAIL_IF(pb->d > 32768, ATTN_ERR_SHAPE, "icescan: d = %lld, allowed up to 32768", (long long)pb->d);
  return ATTN_OK;
}

/* --- memory --------------------------------------------------------------------------------------------------------- */

typedef struct icescan_scratch { /* one thread's */
  dense_block block;
  uint8_t *a;          /* [ROWS, width] quantised queries */
  float *as, *off;     /* [ROWS] their scales; how far scores can be off, in powers of two */
  float *score;        /* [tile, CHUNK] */
  float *top;          /* [ROWS, stretches] largest score of each stretch */
  float *share;        /* [stretches] of the row that chooses */
  int32_t *order;      /* [stretches] by share */
  int32_t *chosen;     /* [stretches] bit i: chosen by row i of the tile */
} icescan_scratch;

static size_t lay_out(icescan_scratch *s, const attn_problem *pb, const attn_micro *mk, char *p) {
  const int64_t stretches = stretches_of(pb->nk);
  attn_layout at = {.p = p};
  void *block = attn_place(&at, dense_block_bytes(pb, mk, ROWS));
  if (block) s->block = dense_block_carve(block, pb, mk, ROWS);
  s->a = attn_place(&at, (size_t)(ROWS * attn_width_i8(pb->d)));
  s->as = attn_place_floats(&at, ROWS, 1);
  s->off = attn_place_floats(&at, ROWS, 1);
  s->score = attn_place_floats(&at, DENSE_MAX_ROWS, CHUNK);
  s->top = attn_place_floats(&at, ROWS, stretches);
  s->share = attn_place_floats(&at, stretches, 1);
  s->order = attn_place_floats(&at, stretches, 1);
  s->chosen = attn_place_floats(&at, stretches, 1);
  return at.used;
}

static attn_status icescan_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  const attn_micro *mk = attn_micro_get();
  const size_t heads = attn_mul((size_t)pb->b, (size_t)pb->hkv);
  icescan_scratch s;
  ATTN_TRY(attn_method_dense.sizes(pb, NULL, need));
  need->plan = attn_add(attn_round(sizeof(icescan_plan)), need->plan);
  if (is_dense(pb, params)) return ATTN_OK;
  need->plan = attn_add(need->plan, attn_mul(heads, key_bytes(pb, mk)));
  need->plan = attn_add(need->plan, attn_mul(3, attn_round(attn_mul(attn_mul(heads, (size_t)pb->nk), sizeof(float)))));
  const size_t scan = attn_add(attn_mul((size_t)pb->threads, lay_out(&s, pb, mk, NULL)), attn_round(attn_mul((size_t)pb->b, (size_t)pb->h)));
  if (scan > need->scratch) need->scratch = scan;
  return ATTN_OK;
}

static attn_status icescan_prepare(void *plan, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "icescan: plan is null or not 64-byte aligned");
  icescan_plan *pl = plan;
  const attn_micro *mk = attn_micro_get();
  char *at = plan;
  (void)attn_carve(&at, sizeof *pl);
  *pl = (icescan_plan){.pb = *pb, .mk = mk, .dense = is_dense(pb, params), .key_bytes = key_bytes(pb, mk)};
  if (!pl->dense) {
    const size_t heads = (size_t)(pb->b * pb->hkv), keys = heads * (size_t)pb->nk * sizeof(float);
    pl->key = attn_carve(&at, heads * pl->key_bytes);
    pl->scale = attn_carve(&at, keys);
    pl->longest = attn_carve(&at, keys);
    pl->step = attn_carve(&at, keys);
  }
  pl->exact = at;
  return attn_method_dense.prepare(pl->exact, pb, NULL);
}

/* --- build ---------------------------------------------------------------------------------------------------------- */

/* Quantises kept keys [j0, j0 + PART) of key head i. Returns the place of a key that is not finite, or -1. */
static int64_t pack_part(icescan_plan *pl, attn_view k, int64_t i, int64_t j0, int8_t *tmp) {
  const attn_problem *pb = &pl->pb;
  const dense_plan *exact = pl->exact;
  const int64_t left = exact->count[i / pb->hkv] - j0, n = left < PART ? left : PART, at = i * pb->nk + j0;
  const int32_t *idx = exact->idx + i / pb->hkv * pb->nk + j0;
  const float *keys = attn_key_head(k, pb, i);
  int64_t wild = -1;
  if (n <= 0) return -1;
  attn_pack_i8(pl->mk, n, pb->d, keys, k.sn, idx, pl->key + (size_t)i * pl->key_bytes + j0 * (attn_width_i8(pb->d) + 4),
               pl->scale + at, tmp);
  for (int64_t j = 0; j < n; j++) {
    const float *key = keys + idx[j] * k.sn;
    pl->longest[at + j] = sqrtf(pl->mk->dot(pb->d, key, key));
    pl->step[at + j] = pl->scale[at + j];
    if (!(pl->scale[at + j] < INFINITY)) wild = at + j;
  }
  return wild;
}

static attn_status icescan_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  icescan_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "icescan: build without plan");
  const attn_problem *pb = &pl->pb;
  ATTN_TRY(attn_method_dense.build(pl->exact, k, v, kmask, scratch));
  if (pl->dense) return ATTN_OK;
  dense_plan *exact = pl->exact;
  const int64_t heads = pb->b * pb->hkv, parts = (pb->nk + PART - 1) / PART;
  const size_t row = attn_round((size_t)attn_width_i8(pb->d));
  int64_t wild = -1;
#pragma omp parallel num_threads(pb->threads)
  {
    int8_t *tmp = (int8_t *)scratch + (size_t)omp_get_thread_num() * row;
#pragma omp for schedule(static) reduction(max : wild)
    for (int64_t task = 0; task < heads * parts; task++) {
      const int64_t bad = pack_part(pl, k, task / parts, task % parts * PART, tmp);
      wild = bad > wild ? bad : wild;
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < heads; i++)
      for (int64_t j = i * pb->nk + 1; j < i * pb->nk + exact->count[i / pb->hkv]; j++) {
        if (pl->longest[j] < pl->longest[j - 1]) pl->longest[j] = pl->longest[j - 1];
        if (pl->step[j] < pl->step[j - 1]) pl->step[j] = pl->step[j - 1];
      }
  }
  exact->built = wild < 0;
  ATTN_FAIL_IF(wild >= 0, ATTN_ERR_NUMERIC, "icescan: key %lld of head %lld holds a NaN or infinity, allowed finite numbers",
               (long long)exact->idx[wild / pb->nk / pb->hkv * pb->nk + wild % pb->nk], (long long)(wild / pb->nk % pb->hkv));
  return ATTN_OK;
}

/* --- scan ----------------------------------------------------------------------------------------------------------- */

typedef struct icescan_call { /* one forward */
  const icescan_plan *pl;
  const icescan_params *params;
  const dense_plan *exact;
  attn_view q;
  attn_viewm out;
  const attn_stats *st;
} icescan_call;

typedef struct icescan_task { /* queries [i0, i0 + rows) of a head */
  int64_t ib, ih, i0, rows, kv;
} icescan_task;

static icescan_task task_of(const attn_problem *pb, int64_t head, int64_t i0) {
  const int64_t ib = head / pb->h, ih = head % pb->h;
  return (icescan_task){ib, ih, i0, pb->nq - i0 < ROWS ? pb->nq - i0 : ROWS, ib * pb->hkv + ih / (pb->h / pb->hkv)};
}

/* Queries in 8 bits, and what that can do to their scores: |q.k - q'.k'| <= |q - q'| |k| + |q'| |k - k'|, where rounding
 * is off by half a step per dimension. */
static void quantise_queries(const icescan_call *call, const icescan_task *t, icescan_scratch *s) {
  const attn_problem *pb = &call->pl->pb;
  const attn_micro *mk = call->pl->mk;
  const float half = 0.51f * sqrtf((float)pb->d);
  attn_rows_i8(mk, t->rows, pb->d, s->block.q, pb->d, NULL, s->a, s->as);
  for (int64_t i = 0; i < t->rows; i++) {
    const float *q = s->block.q + i * pb->d, length = sqrtf(mk->dot(pb->d, q, q));
    const int64_t last = t->kv * pb->nk + s->block.prefix[i] - 1; /* keys a row does not see are nothing to it */
    s->off[i] = 0.0f;
    if (s->block.prefix[i] > 0)
      s->off[i] = half * (s->as[i] * call->pl->longest[last] + (length + half * s->as[i]) * call->pl->step[last]);
  }
}

/* top [rows, stretches] = largest score of each row in each stretch of the keys it sees. */
static void scan(const icescan_call *call, const icescan_task *t, icescan_scratch *s) {
  const icescan_plan *pl = call->pl;
  const attn_micro *mk = pl->mk;
  const int64_t width = attn_width_i8(pl->pb.d), keys = s->block.prefix[t->rows - 1], stretches = stretches_of(pl->pb.nk);
  const int8_t *key = pl->key + (size_t)t->kv * pl->key_bytes;
  const float *scale = pl->scale + t->kv * pl->pb.nk;
  for (int64_t j0 = 0; j0 < keys; j0 += CHUNK) {
    const int64_t cols = keys - j0 < CHUNK ? keys - j0 : CHUNK, whole = stretches_of(cols) * STRETCH;
    for (int64_t i0 = 0; i0 < t->rows; i0 += mk->rows) {
      const int64_t rows = t->rows - i0 < mk->rows ? t->rows - i0 : mk->rows;
      mk->gemm_i8(rows, cols, width, s->a + i0 * width, width, key + j0 * (width + 4), s->as + i0, scale + j0, NULL, s->score,
                  CHUNK);
      for (int64_t i = 0; i < rows; i++) {
        const int64_t seen = s->block.prefix[i0 + i] - j0;
        for (int64_t j = seen < 0 ? 0 : seen; j < whole; j++) s->score[i * CHUNK + j] = -INFINITY;
        mk->max_blocks(whole, s->score + i * CHUNK, s->top + (i0 + i) * stretches + j0 / STRETCH);
      }
    }
  }
}

/* --- choose --------------------------------------------------------------------------------------------------------- */

static int bucket_of(float share) { /* 0: at least 1/2 of the largest; NaN and zero come last */
  uint32_t bits;
  memcpy(&bits, &share, sizeof bits);
  const int e = 127 - (int)(bits >> 23 & 255u);
  return e < 0 ? 0 : e < BUCKETS ? e : BUCKETS - 1;
}

/* order [n]: stretches by falling share, as far as buckets tell, by position within one. */
static void sort_shares(int64_t n, const float *share, int32_t *order) {
  int32_t start[BUCKETS + 1] = {0};
  for (int64_t j = 0; j < n; j++) start[bucket_of(share[j]) + 1]++;
  for (int i = 0; i < BUCKETS; i++) start[i + 1] += start[i];
  for (int64_t j = 0; j < n; j++) order[start[bucket_of(share[j])]++] = (int32_t)j;
}

/* Marks the stretches that row `i` of the tile that begins at `first` wants, among those it sees. */
static void choose(const icescan_call *call, int64_t first, int64_t i, icescan_scratch *s) {
  const icescan_params *p = call->params;
  const attn_micro *mk = call->pl->mk;
  const float *top = s->top + (first + i) * stretches_of(call->pl->pb.nk), mass = (float)p->mass;
  const int64_t n = stretches_of(s->block.prefix[first + i]), most = p->visit < n ? p->visit : n;
  float lanes[16] = {0}, best = -INFINITY, covered = 0.0f, share;
  memcpy(s->share, top, (size_t)n * sizeof(float));
  mk->softmax_block(1, n, s->share, n, NULL, &best, lanes, lanes, 0, 0);
  const float total = attn_lane_sum(lanes);
  const float harm = STRETCH * exp2f(2.0f * s->off[first + i]); /* of a stretch left out, at worst, for one of those taken */
  for (int64_t taken = 0; taken < most; taken++) {
    const float rest = total - covered;
    if (taken > 0 && mass < 1.0f && (p->stop ? harm * rest * mass <= (1.0f - mass) * covered : covered >= mass * total)) break;
    if (taken == FEW) sort_shares(n, s->share, s->order); /* those taken come last */
    const int64_t j = taken < FEW ? mk->argmax(n, s->share, NULL, &share) : s->order[taken - FEW];
    covered += s->share[j];
    s->share[j] = 0.0f;
    if (top[j] > -INFINITY) s->chosen[j] |= 1 << i;
  }
}

/* --- visit ---------------------------------------------------------------------------------------------------------- */

/* Row i of the tile takes part in what the mask of a stretch tells: with a causal mask what it chose, else what any did. */
static int takes_part(const icescan_call *call, int32_t mask, int64_t i) {
  return call->pl->pb.causal ? mask >> i & 1 : mask != 0;
}

/* Rows [first, first + rows) of the task, one register tile, over the stretches they chose. Returns the products. */
static uint64_t visit(const icescan_call *call, const icescan_task *t, int64_t first, int64_t rows, int64_t n,
                      const dense_head *hd, icescan_scratch *s) {
  const attn_problem *pb = &call->pl->pb;
  const int64_t most = pb->causal ? 1 : dense_block_k(pb->d) / STRETCH;
  int32_t prefix[DENSE_MAX_ROWS];
  uint64_t pairs = 0;
  for (int64_t j = 0, end; j < n; j = end) {
    const int32_t mask = s->chosen[j];
    for (end = j + 1; end < n && end - j < most && (s->chosen[end] != 0) == (mask != 0);) end++;
    if (!mask) continue;
    const int64_t j0 = j * STRETCH, j1 = end * STRETCH;
    for (int64_t i = 0; i < rows; i++) {
      const int64_t seen = s->block.prefix[first + i];
      prefix[i] = takes_part(call, mask, i) ? (int32_t)(seen < j1 ? seen : j1) : 0;
      if (call->st && call->st->on_keys && prefix[i] > j0)
        call->st->on_keys(call->st->ctx, t->ib, t->ih, t->i0 + first + i, call->exact->idx + t->ib * pb->nk + j0, prefix[i] - j0);
    }
    if (pb->causal)
      dense_block_attend_some(call->exact, hd, first, rows, t->i0 + first, j0, j1, prefix, &s->block);
    else
      dense_block_attend(call->exact, hd, first, rows, t->i0 + first, j0, j1, &s->block);
    pairs += (uint64_t)(rows * (j1 - j0));
  }
  return pairs;
}

/* Upper bound of the mass that row `i` of the tile leaves out: 32 keys at the maximum of every stretch it does not use. */
static float missing(const icescan_call *call, int64_t first, int64_t i, int64_t n, const icescan_scratch *s) {
  const float *top = s->top + (first + i) * stretches_of(call->pl->pb.nk), off = s->off[first + i];
  double out = 0.0;
  for (int64_t j = 0; j < n; j++)
    if (!takes_part(call, s->chosen[j], i))
      out += STRETCH * exp2((double)top[j] + (double)off - (double)s->block.m[first + i]);
  if (out == 0.0) return 0.0f;
  const double in = (double)attn_lane_sum(s->block.l + (first + i) * 16);
  return (float)fmin(1.0, out / (out + in) * (1.0 + 1e-5));
}

/* --- tasks ---------------------------------------------------------------------------------------------------------- */

static void begin(const icescan_call *call, const icescan_task *t, icescan_scratch *s) {
  dense_block_load(call->exact, t->ib, t->ih, t->i0, t->rows, call->q, &s->block);
  quantise_queries(call, t, s);
  scan(call, t, s);
}

/* The tile of rows [first, first + rows) of the task chooses. Returns the stretches it sees; products go to *pairs. */
static int64_t choose_all(const icescan_call *call, int64_t first, int64_t rows, icescan_scratch *s, uint64_t *pairs) {
  const int64_t n = stretches_of(s->block.prefix[first + rows - 1]);
  memset(s->chosen, 0, (size_t)n * sizeof *s->chosen);
  for (int64_t i = 0; i < rows; i++) {
    *pairs += (uint64_t)s->block.prefix[first + i];
    choose(call, first, i, s);
  }
  return n;
}

/* Does scanning pay for this head? A scan costs about a third of dense attention, so most stretches must stay unvisited. Not
 * asked with a causal mask, where rows may not know of each other. */
static int pays(const icescan_call *call, const icescan_task *head, icescan_scratch *s) {
  const attn_problem *pb = &call->pl->pb;
  const int64_t tile = call->pl->mk->rows;
  int64_t seen = 0, chosen = 0;
  uint64_t pairs = 0;
  if (pb->causal || pb->nq < PROBES * 8 * tile || call->params->mass >= 1.0) return 1;
  for (int64_t probe = 0; probe < PROBES; probe++) {
    icescan_task t = *head;
    t.i0 = (2 * probe + 1) * pb->nq / (2 * PROBES), t.rows = tile;
    begin(call, &t, s);
    const int64_t n = choose_all(call, 0, tile, s, &pairs);
    for (int64_t j = 0; j < n; j++) chosen += s->chosen[j] != 0;
    seen += n;
  }
  return 2 * chosen <= seen;
}

/* A task of a head for which scanning does not pay: all keys. */
static uint64_t attend_densely(const icescan_call *call, const icescan_task *t, const dense_head *hd, icescan_scratch *s) {
  const attn_problem *pb = &call->pl->pb;
  const int32_t *idx = call->exact->idx + t->ib * pb->nk;
  dense_block_load(call->exact, t->ib, t->ih, t->i0, t->rows, call->q, &s->block);
  dense_block_attend_all(call->exact, hd, t->i0, t->rows, &s->block);
  for (int64_t i = 0; i < t->rows && call->st; i++) {
    if (call->st->on_keys) call->st->on_keys(call->st->ctx, t->ib, t->ih, t->i0 + i, idx, hd->kept);
    if (call->st->missing) call->st->missing[(t->ib * pb->h + t->ih) * pb->nq + t->i0 + i] = 0.0f;
  }
  return (uint64_t)(t->rows * hd->kept);
}

static uint64_t attend(const icescan_call *call, const icescan_task *t, const dense_head *hd, icescan_scratch *s) {
  const attn_problem *pb = &call->pl->pb;
  const int64_t tile = call->pl->mk->rows;
  uint64_t pairs = 0;
  begin(call, t, s);
  for (int64_t first = 0; first < t->rows; first += tile) {
    const int64_t rows = t->rows - first < tile ? t->rows - first : tile, n = choose_all(call, first, rows, s, &pairs);
    pairs += visit(call, t, first, rows, n, hd, s);
    if (call->st && call->st->missing)
      for (int64_t i = 0; i < rows; i++)
        call->st->missing[(t->ib * pb->h + t->ih) * pb->nq + t->i0 + first + i] = missing(call, first, i, n, s);
  }
  return pairs;
}

static attn_status icescan_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                   attn_stats *st) {
  const icescan_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "icescan: forward before build");
  if (pl->dense) return attn_dense_instead(pl->exact, q, out, scratch, st);
  const attn_problem *pb = &pl->pb;
  const icescan_call call = {.pl = pl, .params = params, .exact = pl->exact, .q = q, .out = out, .st = st};
  ATTN_TRY(attn_dense_ready(call.exact, q, out, scratch));
  const int64_t blocks = (pb->nq + ROWS - 1) / ROWS, heads = pb->b * pb->h;
  uint64_t pairs = 0;
  uint8_t *scanned = scratch; /* [b, h] 1: scanning pays */
  scratch = scanned + attn_round((size_t)heads);
#pragma omp parallel num_threads(pb->threads) reduction(+ : pairs)
  {
    icescan_scratch s;
    const size_t bytes = lay_out(&s, pb, pl->mk, NULL);
    (void)lay_out(&s, pb, pl->mk, (char *)scratch + (size_t)omp_get_thread_num() * bytes);
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < heads; head++) {
      const icescan_task t = task_of(pb, head, 0);
      scanned[head] = (uint8_t)pays(&call, &t, &s);
    }
    /* Last blocks first: with a causal mask they are the long ones. */
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * blocks; task++) {
      const icescan_task t = task_of(pb, task % heads, (blocks - 1 - task / heads) * ROWS);
      const dense_head hd = dense_head_of(call.exact, t.ib, t.ih, 0.0f, 0);
      pairs += scanned[task % heads] ? attend(&call, &t, &hd, &s) : attend_densely(&call, &t, &hd, &s);
      dense_block_store(call.exact, t.ib, t.ih, t.i0, t.rows, &s.block, out, st ? st->lse : NULL);
    }
  }
  if (st) st->pairs = pairs;
  return ATTN_OK;
}

static void icescan_release(void *plan) { (void)plan; }

static const char *const stop_choices[] = {"estimate", "bound", NULL};

#define P(field) .key = #field, .offset = offsetof(icescan_params, field)
static const attn_param icescan_table[] = {
    {P(dense_below), .doc = "fewer keys than this: dense attention", .type = ATTN_P_INT, .dflt = 1024, .min = 0, .max = 1e9},
    {P(visit), .doc = "most stretches of 32 keys that a query asks for", .type = ATTN_P_INT, .late = 1, .dflt = 1e9, .min = 1, .max = 1e9},
    {P(mass), .doc = "share of the softmax mass at which choosing stops; 1: only visit counts", .type = ATTN_P_REAL, .late = 1, .dflt = 0.9, .min = 0, .max = 1},
    {P(stop), .doc = "mass counts as estimated, or for certain, by a bound", .type = ATTN_P_CHOICE, .late = 1, .dflt = 0, .choices = stop_choices},
    {.key = NULL}};
#undef P

const attn_method attn_method_icescan = {
    .name = "icescan",
    .version = "2",
    .cite = "this project; 8-bit scan: arXiv:1702.08734",
    .doc = "all keys in 8 bits, then the stretches that matter exactly",
    .caps = ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_CROSS | ATTN_CAP_GQA | ATTN_CAP_STOCHASTIC | ATTN_CAP_CONVERGES |
            ATTN_CAP_KEYSET,
    .params_size = sizeof(icescan_params),
    .params = icescan_table,
    .check = icescan_check,
    .sizes = icescan_sizes,
    .prepare = icescan_prepare,
    .build = icescan_build,
    .forward = icescan_forward,
    .release = icescan_release,
};
