/* train_bench.h - the training part of any method on one problem: tensors, runs, and gradients against central differences of a
 * reference in double that a test brings along. */
#ifndef TEST_TRAIN_BENCH_H
#define TEST_TRAIN_BENCH_H

#include "kernels/attn.h"

enum { TB_Q, TB_K, TB_V, TB_OUT, TB_DOUT, TB_DQ, TB_DK, TB_DV, TB_TENSORS };

/** Tensors lie as in the encoder, [b, n, h, width], so that heads are strided; nq = nk, h = hkv. Masked positions hold NaN in k
 *  and v, and in q as well when the method takes its keys from there. */
typedef struct train_bench {
  const attn_method *m;
  const void *params;
  attn_problem pb;
  float drop;
  uint64_t key;
  uint8_t *mask; /* [b, n] or NULL */
  float *t[TB_TENSORS];
  double *ref[TB_DOUT]; /* q, k, v, out in double; masked positions are 0 */
  int64_t size[TB_TENSORS];
  void *saved, *scratch;
} train_bench;

/** Fills x->ref[TB_OUT] from the other x->ref. Buckets and the like, once chosen, stay the same in ctx. */
typedef void (*train_reference)(const train_bench *x, void *ctx);

void train_bench_new(train_bench *x, const attn_method *m, const void *params, attn_problem pb, float drop, int masked);
void train_bench_free(train_bench *x);
void train_bench_forward(train_bench *x);
void train_bench_backward(train_bench *x);
/** Offset of row (ib, ih, i) of a tensor. */
int64_t train_bench_at(const train_bench *x, int tensor, int64_t ib, int64_t ih, int64_t i);

/** Fails the test unless out is within `bound` of the reference. */
void train_bench_check_forward(train_bench *x, train_reference reference, void *ctx, double bound);
/** Fails the test unless `samples` elements of dq, dk, dv (all when there are no more) are the slopes of sum(out dout), within bound
 *  times the largest entry of their tensor, or 0.05: sums of terms of unit size may cancel. Forward and backward are run first. */
void train_bench_check_gradients(train_bench *x, train_reference reference, void *ctx, int64_t samples, double bound);
/** Gradients have the same bits with 1 and 2 threads; forward without dropout has those of the method. */
void train_bench_check_bits(const attn_method *m, const void *params, attn_problem pb);

#endif
