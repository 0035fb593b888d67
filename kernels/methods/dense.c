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
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/methods/dense.h"
#include "kernels/methods/dense_block.h"
#include "kernels/micro/micro.h"

enum {
  MAX_Q = 384, /* most query rows of a task; a multiple of every register tile */
  MIN_Q = 96,
  PART = 1024  /* keys packed by a task; whole panels */
};

/* Query rows of a task: the more, the less often keys come from memory, as long as threads have tasks to share. The bits
 * of a row do not depend on it. */
static int64_t block_q(const attn_problem *pb) {
  int64_t rows = pb->d <= 64 ? MAX_Q / 2 : MAX_Q;
  while (rows > MIN_Q && pb->b * pb->h * pb->nq / rows < 8 * pb->threads) rows /= 2;
  return rows;
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
  need->scratch = attn_mul((size_t)pb->threads, dense_block_bytes(pb, mk, block_q(pb)));
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

/* Packs kept keys and values [j0, j0 + n) of key head i. */
static void pack_part(dense_plan *pl, int64_t i, int64_t j0, int64_t n, const float *k, ptrdiff_t ks, const float *v,
                      ptrdiff_t vs) {
  const attn_problem *pb = &pl->pb;
  const int32_t *idx = pl->idx + i / pb->hkv * pb->nk + j0;
  attn_pack_transposed(pl->mk, n, pb->d, k, ks, idx, 1.0f, pl->kt + i * pl->kt_stride + j0 * pb->d);
  attn_pack_panels(pl->mk, pl->count[i / pb->hkv], n, pb->dv, v, vs, idx, pl->v + i * pl->v_stride + j0 * pl->mk->panel);
  for (int64_t j = 0; j < n; j++)
    if (!attn_all_finite(pb->dv, v + idx[j] * vs)) {
#pragma omp atomic write
      pl->wild[i] = 1;
    }
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
  const int64_t heads = pb->b * pb->hkv, parts = (pb->nk + PART - 1) / PART;
  memset(pl->wild, 0, (size_t)heads);
#pragma omp parallel for num_threads(pb->threads) schedule(static)
  for (int64_t task = 0; task < heads * parts; task++) {
    const int64_t i = task / parts, j0 = task % parts * PART, n = pl->count[i / pb->hkv] - j0;
    if (n > 0) pack_part(pl, i, j0, n < PART ? n : PART, attn_key_head(k, pb, i), k.sn, attn_key_head(v, pb, i), v.sn);
  }
  pl->built = 1;
  return ATTN_OK;
}

/* One task: queries [i0, i0 + rows) of a head over all keys they see. */
static uint64_t attend_block(const dense_plan *pl, int64_t head, int64_t i0, int64_t rows, attn_view q, attn_viewm out,
                             dense_block *b, float drop, uint64_t key, float *lse) {
  const int64_t ib = head / pl->pb.h, ih = head % pl->pb.h;
  const dense_head hd = dense_head_of(pl, ib, ih, drop, key);
  uint64_t pairs = 0;
  dense_block_load(pl, ib, ih, i0, rows, q, b);
  for (int64_t i = 0; i < rows; i++) pairs += (uint64_t)b->prefix[i];
  dense_block_attend_all(pl, &hd, i0, rows, b);
  dense_block_store(pl, ib, ih, i0, rows, b, out, lse);
  return pairs;
}

attn_status attn_dense_ready(const void *plan, attn_view q, attn_viewm out, const void *scratch) {
  const dense_plan *pl = plan;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "dense: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG,
               "dense: scratch is null or not 64-byte aligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nq > 0 && (q.sn < pb->d || out.sn < pb->dv), ATTN_ERR_SHAPE,
               "dense: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn,
               (long long)pb->d, (long long)pb->dv);
  return ATTN_OK;
}

attn_status attn_dense_run(const void *plan, attn_view q, attn_viewm out, void *scratch, float drop, uint64_t key,
                           float *lse, uint64_t *pairs) {
  const dense_plan *pl = plan;
  ATTN_TRY(attn_dense_ready(plan, q, out, scratch));
  const attn_problem *pb = &pl->pb;
  const int64_t block = block_q(pb), blocks = (pb->nq + block - 1) / block;
  uint64_t total = 0;
#pragma omp parallel num_threads(pb->threads) reduction(+ : total)
  {
    const size_t bytes = dense_block_bytes(pb, pl->mk, block);
    dense_block b = dense_block_carve((char *)scratch + (size_t)omp_get_thread_num() * bytes, pb, pl->mk, block);
    /* Last blocks first: with a causal mask they are the long ones. */
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < pb->b * pb->h * blocks; task++) {
      const int64_t head = task % (pb->b * pb->h), i0 = (blocks - 1 - task / (pb->b * pb->h)) * block;
      total += attend_block(pl, head, i0, pb->nq - i0 < block ? pb->nq - i0 : block, q, out, &b, drop, key, lse);
    }
  }
  if (pairs) *pairs = total;
  return ATTN_OK;
}

static attn_status dense_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                 attn_stats *st) {
  (void)params;
  const dense_plan *pl = plan;
  ATTN_TRY(attn_dense_run(plan, q, out, scratch, 0.0f, 0, st ? st->lse : NULL, st ? &st->pairs : NULL));
  if (st) st->bytes = attn_streamed(&pl->pb, pl->idx, pl->count, block_q(&pl->pb)) * (uint64_t)(pl->pb.d + pl->pb.dv) * sizeof(float);
  return ATTN_OK;
}

attn_status attn_dense_instead(const void *plan, attn_view q, attn_viewm out, void *scratch, attn_stats *st) {
  const dense_plan *pl = plan;
  const attn_problem *pb = &pl->pb;
  ATTN_TRY(dense_forward(plan, NULL, q, out, scratch, st));
  if (!st) return ATTN_OK;
  st->path = "dense";
  for (int64_t row = 0; row < pb->b * pb->h * pb->nq; row++) {
    const int64_t ib = row / (pb->h * pb->nq), ih = row / pb->nq % pb->h, iq = row % pb->nq;
    const int32_t *idx = pl->idx + ib * pb->nk;
    if (st->on_keys) st->on_keys(st->ctx, ib, ih, iq, idx, attn_prefix(pb, idx, pl->count[ib], iq));
    if (st->missing) st->missing[row] = 0.0f;
  }
  return ATTN_OK;
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
