/* dense_train.c - softmax attention for training: forward that keeps one number per row, backward without an n x n
 * matrix.
 *
 * Idea    Forward saves the log-sum-exp of each row. Backward recomputes a tile of weights P = exp(S - lse) and uses
 *             delta_i = dout_i . out_i            (equals the softmax's row sum of P dP, dropout included)
 *             dP = dout V^T,  dS = P (dP Z - delta),  dV = (P Z)^T dout,  dQ = scale dS K,  dK = scale dS^T Q
 *         tile by tile, Z the dropout mask, recomputed from its key.
 * Source  Dao et al. 2022 (arXiv:2205.14135), appendix B, reordered for one core per key head.
 * Cost    5 products of 2 nq nk d flops; memory O(n d) per thread: packed K, K^T, V^T and the sums dK, dV.
 * Threads One task per (batch, key head); the query heads of its group follow one another, so sums have a fixed order.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/methods/dense.h"
#include "kernels/micro/micro.h"

enum { ROWS = 48, COLS = 128, LD = COLS + 16 };

typedef struct grad_scratch { /* one thread's */
  float *kt, *vt, *k;         /* K^T, V^T, K as panels */
  float *dk, *dv;             /* [kept, d], [kept, dv] sums */
  float *q, *p, *dp, *dq;     /* one tile: scaled queries, weights, their gradients, query gradients */
  float delta[ROWS], lse2[ROWS];
  int32_t n[ROWS];
  int32_t *idx;
} grad_scratch;

static size_t grad_floats(const attn_problem *pb, const attn_micro *mk) {
  size_t keys = (size_t)(attn_padded(mk, pb->nk)), d = (size_t)pb->d, dv = (size_t)pb->dv;
  size_t dp = (size_t)(attn_padded(mk, pb->d));
  size_t per_key = d + dv + dp + d + dv + 1;
  return attn_add(attn_mul(keys, per_key), ROWS * (2 * d + 2 * LD));
}
static size_t grad_bytes(const attn_problem *pb, const attn_micro *mk) {
  return attn_add(attn_round(sizeof(grad_scratch)), attn_round(attn_mul(grad_floats(pb, mk), sizeof(float))));
}

static grad_scratch *grad_scratch_of(void *scratch, const attn_problem *pb, const attn_micro *mk, int thread) {
  char *at = (char *)scratch + (size_t)thread * grad_bytes(pb, mk);
  grad_scratch *sc = (grad_scratch *)(void *)at;
  float *p = (float *)(void *)(at + attn_round(sizeof *sc));
  int64_t keys = attn_padded(mk, pb->nk);
  sc->kt = p, p += keys * pb->d;
  sc->vt = p, p += keys * pb->dv;
  sc->k = p, p += keys * attn_padded(mk, pb->d);
  sc->dk = p, p += keys * pb->d;
  sc->dv = p, p += keys * pb->dv;
  sc->idx = (int32_t *)(void *)p, p += keys;
  sc->q = p, p += ROWS * pb->d;
  sc->dq = p, p += ROWS * pb->d;
  sc->p = p, p += ROWS * LD;
  sc->dp = p;
  return sc;
}

/* saved: lse [b, h, nq]. scratch: the larger of forward (plan + scratch of "dense") and backward. */
static attn_status train_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  attn_mem fwd;
  ATTN_TRY(attn_method_dense.sizes(pb, params, &fwd));
  size_t forward = attn_add(fwd.plan, fwd.scratch);
  size_t backward = attn_mul((size_t)pb->threads, grad_bytes(pb, attn_micro_get()));
  need->plan = attn_round(attn_mul((size_t)(pb->b * pb->h * pb->nq), sizeof(float)));
  need->scratch = forward > backward ? forward : backward;
  return ATTN_OK;
}

static attn_status train_forward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                 const uint8_t *kmask, float drop, uint64_t key, attn_viewm out, void *saved,
                                 void *scratch) {
  attn_mem need;
  ATTN_TRY(attn_method_dense.sizes(pb, params, &need));
  ATTN_TRY(attn_method_dense.prepare(scratch, pb, params));
  ATTN_TRY(attn_method_dense.build(scratch, k, v, kmask, NULL));
  return attn_dense_run(scratch, q, out, (char *)scratch + need.plan, drop, key, saved, NULL);
}

/* The tile loop of one query head; q0, o0, g0, dq0 point to its first rows. */
static void head_grad(const attn_problem *pb, const attn_micro *mk, grad_scratch *sc, int64_t kept, const float *q0,
                      ptrdiff_t qs, const float *o0, ptrdiff_t os, const float *g0, ptrdiff_t gs, float *dq0,
                      ptrdiff_t dqs, const float *lse, const attn_drop *dr) {
  const int64_t d = pb->d, dv = pb->dv, w = mk->panel;
  const float factor = (float)(pb->scale * LOG2E);
  for (int64_t i0 = 0; i0 < pb->nq; i0 += ROWS) {
    int64_t rows = pb->nq - i0 < ROWS ? pb->nq - i0 : ROWS, most = 0, prefix[ROWS];
    const float *q = q0 + i0 * qs, *g = g0 + i0 * gs;
    for (int64_t i = 0; i < rows; i++) {
      for (int64_t t = 0; t < d; t++) sc->q[i * d + t] = q[i * qs + t] * factor;
      sc->delta[i] = mk->dot(dv, o0 + (i0 + i) * os, g + i * gs);
      sc->lse2[i] = (float)(lse[i0 + i] * LOG2E);
      prefix[i] = attn_prefix(pb, sc->idx, kept, i0 + i);
      if (prefix[i] > most) most = prefix[i];
    }
    memset(sc->dq, 0, (size_t)(rows * d) * sizeof(float));
    for (int64_t j0 = 0; j0 < most; j0 += COLS) {
      int64_t cols = most - j0 < COLS ? most - j0 : COLS;
      for (int64_t i = 0; i < rows; i++) {
        int64_t c = prefix[i] - j0;
        sc->n[i] = (int32_t)(c < 0 ? 0 : c < cols ? c : cols);
      }
      mk->gemm(rows, cols, d, sc->q, d, 1, sc->kt + j0 * d, w, w * d, sc->p, LD, 0);
      mk->exp2_block(rows, cols, sc->p, LD, sc->n, sc->lse2);
      mk->gemm(rows, cols, dv, g, gs, 1, sc->vt + j0 * dv, w, w * dv, sc->dp, LD, 0);
      mk->softmax_grad(rows, cols, sc->p, sc->dp, LD, sc->delta, dr, i0, j0);
      mk->gemm(cols, dv, rows, sc->p, 1, LD, g, gs, w, sc->dv + j0 * dv, dv, 1);
      mk->gemm(rows, d, cols, sc->dp, LD, 1, sc->k + j0 * w, w, w * kept, sc->dq, d, 1);
      mk->gemm(cols, d, rows, sc->dp, 1, LD, q, qs, w, sc->dk + j0 * d, d, 1);
    }
    for (int64_t i = 0; i < rows; i++)
      for (int64_t t = 0; t < d; t++) dq0[(i0 + i) * dqs + t] = sc->dq[i * d + t] * pb->scale;
  }
}

/* Spreads rows of the kept keys back to their positions, times factor; masked keys get zeros. */
static void scatter_rows(int64_t n, int64_t width, const int32_t *idx, int64_t kept, const float *from, float factor,
                         float *to, ptrdiff_t stride) {
  if (kept < n)
    for (int64_t j = 0; j < n; j++) memset(to + j * stride, 0, (size_t)width * sizeof(float));
  for (int64_t j = 0; j < kept; j++)
    for (int64_t t = 0; t < width; t++) to[idx[j] * stride + t] = from[j * width + t] * factor;
}

static attn_status train_backward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                  const uint8_t *kmask, float drop, uint64_t key, attn_view out, attn_view dout,
                                  attn_viewm dq, attn_viewm dk, attn_viewm dv, float *dweights, void *saved, void *scratch) {
  (void)params, (void)dweights;
  const attn_micro *mk = attn_micro_get();
  const int64_t group = pb->h / pb->hkv;
  const float *lse = saved;
#pragma omp parallel num_threads(pb->threads)
  {
    grad_scratch *sc = grad_scratch_of(scratch, pb, mk, omp_get_thread_num());
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < pb->b * pb->hkv; task++) {
      int64_t ib = task / pb->hkv, ik = task % pb->hkv;
      int64_t kept = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, sc->idx);
      const float *kp = k.p + ib * k.sb + ik * k.sh, *vp = v.p + ib * v.sb + ik * v.sh;
      attn_pack_transposed(mk, kept, pb->d, kp, k.sn, sc->idx, 1.0f, sc->kt);
      attn_pack_transposed(mk, kept, pb->dv, vp, v.sn, sc->idx, 1.0f, sc->vt);
      attn_pack_panels(mk, kept, kept, pb->d, kp, k.sn, sc->idx, sc->k);
      memset(sc->dk, 0, (size_t)(kept * pb->d) * sizeof(float));
      memset(sc->dv, 0, (size_t)(kept * pb->dv) * sizeof(float));
      for (int64_t ih = ik * group; ih < (ik + 1) * group; ih++) {
        attn_drop dr = attn_drop_make(drop, attn_hash(key, (uint64_t)ib, (uint64_t)ih));
        head_grad(pb, mk, sc, kept, q.p + ib * q.sb + ih * q.sh, q.sn, out.p + ib * out.sb + ih * out.sh, out.sn,
                  dout.p + ib * dout.sb + ih * dout.sh, dout.sn, dq.p + ib * dq.sb + ih * dq.sh, dq.sn,
                  lse + (ib * pb->h + ih) * pb->nq, &dr);
      }
      scatter_rows(pb->nk, pb->d, sc->idx, kept, sc->dk, pb->scale, dk.p + ib * dk.sb + ik * dk.sh, dk.sn);
      scatter_rows(pb->nk, pb->dv, sc->idx, kept, sc->dv, 1.0f, dv.p + ib * dv.sb + ik * dv.sh, dv.sn);
    }
  }
  return ATTN_OK;
}

const attn_training attn_training_dense = {.sizes = train_sizes, .forward = train_forward, .backward = train_backward};
