/* dense.c - exact attention without the nq x nk matrix: the strongest exact attention of this project, and the
 * reference that every speed-up and every error is measured against.
 *
 * Idea    Visit keys in blocks; keep per query row a running maximum m and a running sum l of 2^(s - m); when m grows,
 *         rescale what was accumulated. A task is (batch, head, block of queries); inside, a register tile of queries
 *         meets a block of keys: scores against packed K^T panels become weights while they are in registers, values
 *         follow by a small GEMM. Logits are in base 2: scale * log2(e) is folded into the copy of the queries.
 * Source  Milakov & Gimelshein 2018 (arXiv:1805.02867); blocking as in Dao et al. 2022 (arXiv:2205.14135), forward only.
 * Cost    2 nq nk (d + dv) flops and nq nk exponentials per head; plan = packed copies of K and V; scratch per thread =
 *         one block of queries, scores and outputs. O(n) memory.
 * Limits  f32. The walk over key blocks is fixed, so bits do not depend on threads. Masked keys are compacted away
 *         (visible.h); causal rows stop at their prefix, and blocks beyond it are never touched. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/attn.h"
#include "kernels/core/alloc.h"
#include "kernels/core/finite.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/methods/dense.h"
#include "kernels/micro/micro.h"

enum {
  MAX_Q = 384,  /* most query rows of a task; a multiple of every register tile */
  MIN_Q = 96,
  MAX_ROWS = 16 /* no register tile has more rows */
};

typedef struct dense_plan {
  attn_problem pb;
  const attn_micro *mk;
  int built;
  int64_t kt_stride, v_stride; /* floats per (batch, key head) */
  int64_t *count;              /* [b] kept keys */
  int32_t *idx;                /* [b, nk] their positions */
  uint8_t *wild;               /* [b, hkv] 1: a kept value is NaN or infinite, so that 0 * v is not 0 */
  float *kt, *v;               /* packed panels */
} dense_plan;

/* Keys per block: scores, keys and values of a block stay in the first-level cache for narrow heads. */
static int64_t block_k(int64_t d) { return d <= 128 ? 256 : 128; }
static int64_t lds(int64_t d) { return block_k(d) + 16; }

/* Query rows of a task: the more, the less often keys come from memory, as long as threads have tasks to share. The bits
 * of a row do not depend on it. */
static int64_t block_q(const attn_problem *pb) {
  int64_t rows = pb->d <= 64 ? MAX_Q / 2 : MAX_Q;
  while (rows > MIN_Q && pb->b * pb->h * pb->nq / rows < 8 * pb->threads) rows /= 2;
  return rows;
}

typedef struct dense_scratch { /* one thread's */
  float *q, *o, *m, *l;        /* [block_q, d], [block_q, padded dv], [block_q], [block_q, 16] */
  float *s;                    /* [MAX_ROWS, lds] logits, then weights, of one tile */
} dense_scratch;

static size_t scratch_floats(const attn_problem *pb, const attn_micro *mk) {
  int64_t o = attn_padded(mk, pb->dv);
  return (size_t)block_q(pb) * (size_t)(pb->d + o + 1 + 16) + (size_t)MAX_ROWS * (size_t)lds(pb->d);
}

static dense_scratch scratch_of(void *scratch, const attn_problem *pb, const attn_micro *mk, int thread) {
  size_t bytes = attn_round(scratch_floats(pb, mk) * sizeof(float));
  float *p = (float *)(void *)((char *)scratch + (size_t)thread * bytes);
  const int64_t rows = block_q(pb);
  dense_scratch s;
  s.s = p, p += MAX_ROWS * lds(pb->d);
  s.o = p, p += rows * attn_padded(mk, pb->dv);
  s.l = p, p += rows * 16;
  s.q = p, p += rows * pb->d;
  s.m = p;
  return s;
}

static attn_status dense_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  (void)params;
  const attn_micro *mk = attn_micro_get();
  size_t heads = attn_mul((size_t)pb->b, (size_t)pb->hkv);
  size_t kt = attn_mul((size_t)attn_padded(mk, pb->nk), (size_t)pb->d);
  size_t v = attn_mul((size_t)attn_padded(mk, pb->dv), (size_t)pb->nk);
  size_t plan = attn_round(sizeof(dense_plan));
  plan = attn_add(plan, attn_round(attn_mul((size_t)pb->b, sizeof(int64_t))));
  plan = attn_add(plan, attn_round(attn_mul(attn_mul((size_t)pb->b, (size_t)pb->nk), sizeof(int32_t))));
  plan = attn_add(plan, attn_round(heads));
  plan = attn_add(plan, attn_round(attn_mul(attn_mul(heads, kt), sizeof(float))));
  plan = attn_add(plan, attn_round(attn_mul(attn_mul(heads, v), sizeof(float))));
  need->plan = plan;
  need->scratch = attn_mul((size_t)pb->threads, attn_round(scratch_floats(pb, mk) * sizeof(float)));
  return ATTN_OK;
}

static attn_status dense_prepare(void *plan, const attn_problem *pb, const void *params) {
  (void)params;
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "dense: plan is null or not 64-byte aligned");
  const attn_micro *mk = attn_micro_get();
  char *at = plan;
  dense_plan *pl = attn_carve(&at, sizeof *pl);
  *pl = (dense_plan){.pb = *pb, .mk = mk};
  pl->kt_stride = attn_padded(mk, pb->nk) * pb->d;
  pl->v_stride = attn_padded(mk, pb->dv) * pb->nk;
  int64_t heads = pb->b * pb->hkv;
  pl->count = attn_carve(&at, (size_t)pb->b * sizeof(int64_t));
  pl->idx = attn_carve(&at, (size_t)(pb->b * pb->nk) * sizeof(int32_t));
  pl->wild = attn_carve(&at, (size_t)heads);
  pl->kt = attn_carve(&at, (size_t)(heads * pl->kt_stride) * sizeof(float));
  pl->v = attn_carve(&at, (size_t)(heads * pl->v_stride) * sizeof(float));
  return ATTN_OK;
}

static attn_status dense_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  (void)scratch;
  dense_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "dense: build without plan");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv), ATTN_ERR_SHAPE,
               "dense: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  for (int64_t ib = 0; ib < pb->b; ib++)
    pl->count[ib] = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, pl->idx + ib * pb->nk);
#pragma omp parallel for num_threads(pb->threads) schedule(static)
  for (int64_t task = 0; task < pb->b * pb->hkv; task++) {
    int64_t ib = task / pb->hkv, ih = task % pb->hkv, n = pl->count[ib];
    const int32_t *idx = pl->idx + ib * pb->nk;
    attn_pack_transposed(pl->mk, n, pb->d, k.p + ib * k.sb + ih * k.sh, k.sn, idx, 1.0f, pl->kt + task * pl->kt_stride);
    attn_pack_panels(pl->mk, n, pb->dv, v.p + ib * v.sb + ih * v.sh, v.sn, idx, pl->v + task * pl->v_stride);
    pl->wild[task] = (uint8_t)!attn_all_finite(attn_padded(pl->mk, pb->dv) * n, pl->v + task * pl->v_stride);
  }
  pl->built = 1;
  return ATTN_OK;
}

/* What a register tile needs to know about its head. */
typedef struct dense_head {
  const float *kt, *v; /* panels of its key head */
  int64_t kept;
  int wild;
  attn_drop drop;
} dense_head;

/* One register tile of rows: `first` is its place in the block of queries, row0 in the head; row i sees the first
 * prefix[i] keys. */
typedef struct dense_tile {
  int64_t rows, first, row0;
  const int32_t *prefix;
} dense_tile;

/* The tile against keys [j0, j1), at most block_k. plain: every row sees them all, and they are whole panels. */
static void attend_keys(const dense_plan *pl, const dense_head *hd, const dense_tile *t, int64_t j0, int64_t j1, int plain,
                        const dense_scratch *sc) {
  const attn_problem *pb = &pl->pb;
  const attn_micro *mk = pl->mk;
  const int64_t ld = lds(pb->d), wo = attn_padded(mk, pb->dv), cols = j1 - j0;
  const float *q = sc->q + t->first * pb->d, *kt = hd->kt + j0 * pb->d, *v = hd->v + j0 * mk->panel;
  float *s = sc->s, *m = sc->m + t->first, *l = sc->l + t->first * 16, *o = sc->o + t->first * wo;
  int32_t n[MAX_ROWS];
  if (plain)
    mk->weigh_block(t->rows, cols, pb->d, q, pb->d, kt, s, ld, m, l, o, wo, wo);
  else {
    for (int64_t i = 0; i < t->rows; i++) {
      const int64_t seen = t->prefix[i] - j0;
      n[i] = (int32_t)(seen < 0 ? 0 : seen < cols ? seen : cols);
    }
    mk->gemm(t->rows, cols, pb->d, q, pb->d, 1, kt, mk->panel, mk->panel * pb->d, s, ld, 0);
    mk->softmax_block(t->rows, cols, s, ld, n, m, l, o, wo, wo);
  }
  mk->drop_block(t->rows, cols, s, ld, &hd->drop, t->row0, j0);
  if (plain || !hd->wild)
    mk->gemm(t->rows, wo, cols, s, ld, 1, v, mk->panel, mk->panel * hd->kept, o, wo, 1);
  else
    for (int64_t i = 0; i < t->rows; i++)
      mk->gemm(1, wo, n[i], s + i * ld, ld, 1, v, mk->panel, mk->panel * hd->kept, o + i * wo, wo, 1);
}

/* The tile against the block of keys that begins at j0: whole panels that all rows see, then what is left. */
static void attend_tile(const dense_plan *pl, const dense_head *hd, const dense_tile *t, int64_t j0,
                        const dense_scratch *sc) {
  enum { WHOLE = 32 }; /* keys: panels of every instruction set, and what drop_block wants to begin at */
  int64_t most = 0, least = hd->kept;
  for (int64_t i = 0; i < t->rows; i++) {
    if (t->prefix[i] > most) most = t->prefix[i];
    if (t->prefix[i] < least) least = t->prefix[i];
  }
  const int64_t end = j0 + block_k(pl->pb.d), stop = most < end ? most : end;
  const int64_t whole = least < stop ? least : stop, middle = whole > j0 ? j0 + (whole - j0) / WHOLE * WHOLE : j0;
  if (middle > j0) attend_keys(pl, hd, t, j0, middle, 1, sc);
  if (stop > middle) attend_keys(pl, hd, t, middle, stop, 0, sc);
}

static void attend_block(const dense_plan *pl, int64_t ib, int64_t ih, int64_t i0, attn_view q, attn_viewm out,
                         const dense_scratch *sc, float drop, uint64_t key, float *lse, uint64_t *pairs) {
  const attn_problem *pb = &pl->pb;
  const attn_micro *mk = pl->mk;
  const int64_t most = block_q(pb), rows = pb->nq - i0 < most ? pb->nq - i0 : most, wo = attn_padded(mk, pb->dv);
  const int64_t kv = ib * pb->hkv + ih / (pb->h / pb->hkv), kept = pl->count[ib];
  const dense_head hd = {.kt = pl->kt + kv * pl->kt_stride,
                         .v = pl->v + kv * pl->v_stride,
                         .kept = kept,
                         .wild = pl->wild[kv],
                         .drop = attn_drop_make(drop, attn_hash(key, (uint64_t)ib, (uint64_t)ih))};
  const float factor = (float)(pb->scale * LOG2E);
  int32_t prefix[MAX_Q];
  for (int64_t i = 0; i < rows; i++) {
    const float *row = q.p + ib * q.sb + ih * q.sh + (i0 + i) * q.sn;
    for (int64_t t = 0; t < pb->d; t++) sc->q[i * pb->d + t] = row[t] * factor;
    prefix[i] = (int32_t)attn_prefix(pb, pl->idx + ib * pb->nk, kept, i0 + i);
    *pairs += (uint64_t)prefix[i];
    sc->m[i] = -INFINITY;
  }
  memset(sc->o, 0, (size_t)(rows * wo) * sizeof(float));
  memset(sc->l, 0, (size_t)rows * 16 * sizeof(float));
  /* A block of keys meets all tiles of the query block while it sits in cache. */
  for (int64_t j0 = 0; j0 < prefix[rows - 1]; j0 += block_k(pb->d))
    for (int64_t i = 0; i < rows; i += mk->rows) {
      const dense_tile t = {rows - i < mk->rows ? rows - i : mk->rows, i, i0 + i, prefix + i};
      attend_tile(pl, &hd, &t, j0, sc);
    }
  for (int64_t i = 0; i < rows; i++) {
    float *to = out.p + ib * out.sb + ih * out.sh + (i0 + i) * out.sn;
    const float sum = attn_lane_sum(sc->l + i * 16);
    float inv = sum != 0.0f ? 1.0f / sum : 0.0f; /* no visible key, or only scores of -inf: zeros */
    for (int64_t t = 0; t < pb->dv; t++) to[t] = sc->o[i * wo + t] * inv;
    if (lse) lse[(ib * pb->h + ih) * pb->nq + i0 + i] = attn_lse(sc->m[i], sum);
  }
}

attn_status attn_dense_run(const void *plan, attn_view q, attn_viewm out, void *scratch, float drop, uint64_t key,
                           float *lse, uint64_t *pairs) {
  const dense_plan *pl = plan;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "dense: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG,
               "dense: scratch is null or not 64-byte aligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nq > 0 && (q.sn < pb->d || out.sn < pb->dv), ATTN_ERR_SHAPE,
               "dense: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn,
               (long long)pb->d, (long long)pb->dv);
  const int64_t block = block_q(pb), blocks = (pb->nq + block - 1) / block;
  uint64_t total = 0;
#pragma omp parallel num_threads(pb->threads) reduction(+ : total)
  {
    dense_scratch sc = scratch_of(scratch, pb, pl->mk, omp_get_thread_num());
    /* Last blocks first: with a causal mask they are the long ones. */
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < pb->b * pb->h * blocks; task++) {
      const int64_t head = task % (pb->b * pb->h), i0 = (blocks - 1 - task / (pb->b * pb->h)) * block;
      attend_block(pl, head / pb->h, head % pb->h, i0, q, out, &sc, drop, key, lse, &total);
    }
  }
  if (pairs) *pairs = total;
  return ATTN_OK;
}

static attn_status dense_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                 attn_stats *st) {
  (void)params;
  return attn_dense_run(plan, q, out, scratch, 0.0f, 0, st ? st->lse : NULL, st ? &st->pairs : NULL);
}

void attn_dense_report(const void *plan, const attn_stats *st) {
  const dense_plan *pl = plan;
  const attn_problem *pb = &pl->pb;
  for (int64_t row = 0; row < pb->b * pb->h * pb->nq; row++) {
    const int64_t ib = row / (pb->h * pb->nq), ih = row / pb->nq % pb->h, iq = row % pb->nq;
    const int32_t *idx = pl->idx + ib * pb->nk;
    st->on_keys(st->ctx, ib, ih, iq, idx, attn_prefix(pb, idx, pl->count[ib], iq));
  }
}

static void dense_release(void *plan) { (void)plan; }

static const attn_param dense_params[] = {{.key = NULL}};

const attn_method attn_method_dense = {
    .name = "dense",
    .version = "2",
    .cite = "arXiv:1805.02867, arXiv:2205.14135",
    .doc = "exact attention, blocked online softmax; the strongest exact attention here",
    .caps = ATTN_CAP_EXACT | ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_CROSS | ATTN_CAP_GQA | ATTN_CAP_STOCHASTIC |
            ATTN_CAP_ORDER_FREE,
    .params_size = 0,
    .params = dense_params,
    .sizes = dense_sizes,
    .prepare = dense_prepare,
    .build = dense_build,
    .forward = dense_forward,
    .release = dense_release,
    .training = &attn_training_dense,
};
