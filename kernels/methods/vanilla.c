/* vanilla.c - exact attention with the scores of a head in memory: the design that papers compare with.
 *
 * Idea    S = scale Q K^T, row softmax, O = P V, each head's nq x nk matrix materialised. Both products are OpenBLAS
 *         sgemm. What the design allows is done: the matrices are reused, a slab of rows goes through all three steps
 *         while it sits in cache, softmax is one vector pass with the normalisation moved behind P V, causal slabs end
 *         at their last visible key, and slabs of one head are shared among threads when there are fewer heads.
 * Source  Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.1. Baseline of Mao et al. 2024 (arXiv:2405.02842).
 * Cost    2 nq nk (d + dv) flops and nq nk exponentials per head; scratch = min(threads, b h) matrices of nq x nk.
 * Limits  f32. Masked keys are compacted away (visible.h): by copying where the mask has holes, by a shorter matrix
 *         where it only cuts the end. Slabs are of fixed size, so bits do not depend on threads. A value that is NaN or
 *         infinite must not meet the zero weights of causal rows that do not see it: sgemm reads 0 in its place, and
 *         rows that do see it add it afterwards. */
#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/attn.h"
#include "kernels/core/alloc.h"
#include "kernels/core/blas.h"
#include "kernels/core/finite.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/micro/micro.h"

enum { SLAB = 128 }; /* query rows of a task */

typedef struct vanilla_plan {
  attn_problem pb;
  const attn_micro *mk;
  int built;
  int64_t *count;       /* [b] kept keys                                      */
  int32_t *idx;         /* [b, nk] their positions                            */
  uint8_t *wild;        /* [b, hkv, nk] by rank, 1: its value holds NaN or infinity */
  attn_view k, v;       /* rows of kept keys: the caller's, or copies         */
  attn_view all_values; /* the caller's                                       */
  float *copy;          /* NULL, or [b, hkv, nk, d] and [b, hkv, nk, dv]      */
} vanilla_plan;

/* Floats from one row of a matrix to the next. */
static size_t row_floats(const attn_problem *pb) { return attn_round((size_t)pb->nk * sizeof(float)) / sizeof(float) + 16; }
static int64_t live_heads(const attn_problem *pb) {
  return pb->b * pb->h < pb->threads ? pb->b * pb->h : pb->threads;
}
static size_t matrix_bytes(const attn_problem *pb) {
  return attn_mul(attn_mul((size_t)pb->nq, row_floats(pb)), sizeof(float));
}

static attn_status vanilla_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  (void)params;
  const size_t heads = attn_mul((size_t)pb->b, (size_t)pb->hkv);
  size_t plan = attn_round(sizeof(vanilla_plan));
  plan = attn_add(plan, attn_round(attn_mul((size_t)pb->b, sizeof(int64_t))));
  plan = attn_add(plan, attn_round(attn_mul(attn_mul((size_t)pb->b, (size_t)pb->nk), sizeof(int32_t))));
  need->plan = attn_add(plan, attn_round(attn_mul(heads, (size_t)pb->nk)));
  need->scratch = attn_add(attn_mul((size_t)live_heads(pb), matrix_bytes(pb)), ATTN_ALIGN);
  return ATTN_OK;
}

static attn_status vanilla_prepare(void *plan, const attn_problem *pb, const void *params) {
  (void)params;
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "vanilla: plan is null or not 64-byte aligned");
  attn_blas_serial();
  vanilla_plan *pl = plan;
  *pl = (vanilla_plan){.pb = *pb, .mk = attn_micro_get()};
  char *at = (char *)plan + attn_round(sizeof *pl);
  pl->count = attn_carve(&at, (size_t)pb->b * sizeof(int64_t));
  pl->idx = attn_carve(&at, (size_t)(pb->b * pb->nk) * sizeof(int32_t));
  pl->wild = (uint8_t *)at;
  return ATTN_OK;
}

/* --- build ------------------------------------------------------------------------------------------------------- */

static void copy_rows(int64_t n, int64_t width, const float *from, ptrdiff_t stride, const int32_t *idx, float *to) {
  for (int64_t j = 0; j < n; j++) memcpy(to + j * width, from + idx[j] * stride, (size_t)width * sizeof(float));
}

/* Marks the rows idx[0..n) that hold a number which is not finite; returns whether there are any. */
static int find_wild(int64_t n, int64_t width, const float *x, ptrdiff_t stride, const int32_t *idx, uint8_t *wild) {
  int any = 0;
  for (int64_t j = 0; j < n; j++) {
    wild[j] = (uint8_t)!attn_all_finite(width, x + idx[j] * stride);
    any |= wild[j];
  }
  return any;
}

static attn_status vanilla_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  (void)scratch;
  vanilla_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "vanilla: build without plan");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv || k.sn > INT_MAX || v.sn > INT_MAX), ATTN_ERR_SHAPE,
               "vanilla: key stride %td, value stride %td, allowed from the widths %lld, %lld to %d", k.sn, v.sn,
               (long long)pb->d, (long long)pb->dv, INT_MAX);
  attn_free(pl->copy);
  pl->copy = NULL;
  pl->built = 0;
  int copied = 0;
  for (int64_t ib = 0; ib < pb->b; ib++) {
    const int32_t *idx = pl->idx + ib * pb->nk;
    const int64_t n = pl->count[ib] = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, pl->idx + ib * pb->nk);
    copied |= n > 0 && idx[n - 1] != n - 1;
  }
  const int64_t heads = pb->b * pb->hkv, key_floats = pb->nk * pb->d, value_floats = pb->nk * pb->dv;
#pragma omp parallel for num_threads(pb->threads) schedule(static) reduction(| : copied)
  for (int64_t task = 0; task < heads; task++) {
    const int64_t ib = task / pb->hkv, ih = task % pb->hkv;
    copied |= find_wild(pl->count[ib], pb->dv, v.p + ib * v.sb + ih * v.sh, v.sn, pl->idx + ib * pb->nk,
                        pl->wild + task * pb->nk);
  }
  pl->k = k, pl->v = pl->all_values = v;
  pl->built = 1;
  if (!copied) return ATTN_OK;
  const size_t bytes = attn_mul(attn_mul((size_t)heads, (size_t)(key_floats + value_floats)), sizeof(float));
  pl->copy = attn_alloc(bytes);
  pl->built = pl->copy != NULL;
  ATTN_FAIL_IF(!pl->copy, ATTN_ERR_NOMEM, "vanilla: no %zu bytes for a copy of keys and values", bytes);
  float *keys = pl->copy, *values = pl->copy + heads * key_floats;
  pl->k = (attn_view){keys, pb->hkv * key_floats, key_floats, pb->d};
  pl->v = (attn_view){values, pb->hkv * value_floats, value_floats, pb->dv};
#pragma omp parallel for num_threads(pb->threads) schedule(static)
  for (int64_t task = 0; task < heads; task++) {
    const int64_t ib = task / pb->hkv, ih = task % pb->hkv, n = pl->count[ib];
    const int32_t *idx = pl->idx + ib * pb->nk;
    float *to = values + task * value_floats;
    copy_rows(n, pb->d, k.p + ib * k.sb + ih * k.sh, k.sn, idx, keys + task * key_floats);
    copy_rows(n, pb->dv, v.p + ib * v.sb + ih * v.sh, v.sn, idx, to);
    for (int64_t x = 0; x < n * pb->dv; x++) to[x] = isfinite(to[x]) ? to[x] : 0.0f;
  }
  return ATTN_OK;
}

/* --- forward ----------------------------------------------------------------------------------------------------- */

/* C [m, n] = alpha A [m, k] B, with B [k, n], or [n, k] when it is transposed. */
static void multiply(int transposed, int64_t m, int64_t n, int64_t k, float alpha, const float *a, ptrdiff_t lda,
                     const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
              (int)lda, b, (int)ldb, 0.0f, c, (int)ldc);
}

/* Adds to a row what sgemm read as 0: weights s[0..n) times values of batch ib, key head kv, that are not finite. */
static void add_wild(const vanilla_plan *pl, int64_t ib, int64_t kv, int64_t n, const float *s, float *to) {
  const attn_problem *pb = &pl->pb;
  const uint8_t *wild = pl->wild + (ib * pb->hkv + kv) * pb->nk;
  for (int64_t j = 0; j < n; j++) {
    if (!wild[j]) continue;
    const float *v = pl->all_values.p + ib * pl->all_values.sb + kv * pl->all_values.sh + pl->idx[ib * pb->nk + j] * pl->all_values.sn;
    for (int64_t t = 0; t < pb->dv; t++) to[t] += isfinite(v[t]) ? 0.0f : s[j] * v[t];
  }
}

/* Rows [i0, i0 + rows) of head (ib, ih); s is their part of the head's matrix. Returns the visible pairs. */
static uint64_t attend_slab(const vanilla_plan *pl, int64_t ib, int64_t ih, int64_t i0, int64_t rows, attn_view q,
                            attn_viewm out, float *s, float *lse) {
  const attn_problem *pb = &pl->pb;
  const int64_t kv = ih / (pb->h / pb->hkv), ld = (int64_t)row_floats(pb);
  const float *k = pl->k.p + ib * pl->k.sb + kv * pl->k.sh, *v = pl->v.p + ib * pl->v.sb + kv * pl->v.sh;
  float *to = out.p + ib * out.sb + ih * out.sh + i0 * out.sn;
  float m[SLAB], l[SLAB * 16];
  int32_t prefix[SLAB];
  uint64_t pairs = 0;
  for (int64_t i = 0; i < rows; i++) {
    prefix[i] = (int32_t)attn_prefix(pb, pl->idx + ib * pb->nk, pl->count[ib], i0 + i);
    pairs += (uint64_t)prefix[i];
    m[i] = -INFINITY;
  }
  memset(l, 0, (size_t)rows * 16 * sizeof(float));
  const int64_t cols = prefix[rows - 1]; /* of causal prefixes the last is the longest */
  if (cols > 0) {
    multiply(1, rows, cols, pb->d, (float)(pb->scale * LOG2E), q.p + ib * q.sb + ih * q.sh + i0 * q.sn, q.sn, k,
             pl->k.sn, s, ld);
    pl->mk->softmax_block(rows, cols, s, ld, prefix, m, l, m, 0, 0);
    multiply(0, rows, pb->dv, cols, 1.0f, s, ld, v, pl->v.sn, to, out.sn);
    for (int64_t i = 0; i < rows && pl->copy; i++) add_wild(pl, ib, kv, prefix[i], s + i * ld, to + i * out.sn);
  }
  for (int64_t i = 0; i < rows; i++) {
    const float sum = attn_lane_sum(l + i * 16);
    const float inv = 1.0f / sum; /* no visible key, or only scores of -inf: zeros */
    for (int64_t t = 0; t < pb->dv; t++) to[i * out.sn + t] = sum != 0.0f ? to[i * out.sn + t] * inv : 0.0f;
    if (lse) lse[(ib * pb->h + ih) * pb->nq + i0 + i] = attn_lse(m[i], sum);
  }
  return pairs;
}

static attn_status vanilla_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                   attn_stats *st) {
  (void)params;
  const vanilla_plan *pl = plan;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "vanilla: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG,
               "vanilla: scratch is null or not 64-byte aligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nq > 0 && (q.sn < pb->d || out.sn < pb->dv || q.sn > INT_MAX || out.sn > INT_MAX), ATTN_ERR_SHAPE,
               "vanilla: query stride %td, output stride %td, allowed from the widths %lld, %lld to %d", q.sn, out.sn,
               (long long)pb->d, (long long)pb->dv, INT_MAX);
  ATTN_FAIL_IF(row_floats(pb) > INT_MAX, ATTN_ERR_SHAPE, "vanilla: nk=%lld, allowed nk <= %d", (long long)pb->nk,
               INT_MAX - 32);
  const int64_t heads = pb->b * pb->h, live = live_heads(pb), slabs = (pb->nq + SLAB - 1) / SLAB;
  const size_t matrix = matrix_bytes(pb) / sizeof(float);
  float *lse = st ? st->lse : NULL;
  uint64_t pairs = 0;
#pragma omp parallel num_threads(pb->threads) reduction(+ : pairs)
  for (int64_t first = 0; first < heads; first += live) {
    const int64_t wave = heads - first < live ? heads - first : live;
    /* Last slabs first: with a causal mask they are the long ones. */
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < wave * slabs; task++) {
      const int64_t slot = task % wave, head = first + slot, i0 = (slabs - 1 - task / wave) * SLAB;
      float *s = (float *)scratch + (size_t)slot * matrix + (size_t)i0 * row_floats(pb);
      pairs += attend_slab(pl, head / pb->h, head % pb->h, i0, pb->nq - i0 < SLAB ? pb->nq - i0 : SLAB, q, out, s, lse);
    }
  }
  if (st) st->pairs = pairs, st->bytes = attn_streamed(pb, pl->idx, pl->count, SLAB) * (uint64_t)(pb->d + pb->dv) * sizeof(float);
  return ATTN_OK;
}

static void vanilla_release(void *plan) {
  vanilla_plan *pl = plan;
  if (!pl) return;
  attn_free(pl->copy);
  pl->copy = NULL;
  pl->built = 0;
}

static const attn_param vanilla_params[] = {{.key = NULL}};

const attn_method attn_method_vanilla = {
    .name = "vanilla",
    .version = "1",
    .cite = "arXiv:1706.03762",
    .doc = "exact attention with the scores of a head in memory, OpenBLAS; the baseline of the IceFormer paper",
    .caps = ATTN_CAP_EXACT | ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_CROSS | ATTN_CAP_GQA | ATTN_CAP_STOCHASTIC |
            ATTN_CAP_ORDER_FREE,
    .params_size = 0,
    .params = vanilla_params,
    .sizes = vanilla_sizes,
    .prepare = vanilla_prepare,
    .build = vanilla_build,
    .forward = vanilla_forward,
    .release = vanilla_release,
};
