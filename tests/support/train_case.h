/* train_case.h - the training part of an attention on one problem: its float forward against a reference in double, its
 * gradients of q, k, v and of what it learned against central differences of that reference. */
#ifndef TEST_TRAIN_CASE_H
#define TEST_TRAIN_CASE_H

#include "tests/support/encoder_ref.h"

enum { TRAIN_Q, TRAIN_K, TRAIN_V, TRAIN_OUT, TRAIN_DOUT, TRAIN_DQ, TRAIN_DK, TRAIN_DV, TRAIN_TENSORS };

typedef struct train_case {
  const attn_method *m;
  const void *params;
  attn_problem pb;
  float drop;
  uint64_t key;
  uint8_t *mask;                /* [b, nk], NULL: all keys */
  float *t[TRAIN_TENSORS];      /* [b, n, heads, width] in memory as in the encoder, so that heads are strided */
  double *ref[TRAIN_DOUT];      /* q, k, v, out in double */
  int64_t size[TRAIN_TENSORS];
  float *weights, *dweights;    /* learned tensors, N(0, 1) / 4 */
  double *ref_weights;
  int64_t n_weights;
  void *saved, *scratch;
  /* Computes ref[TRAIN_OUT] from the other doubles. What counts as constant in backward is computed when `fresh`, and taken
     from ctx otherwise. */
  void (*reference)(struct train_case *x, int fresh);
  void *ctx;
} train_case;

/** Normal q, k, v, dout of size `spread`; masked: a quarter of the keys, which then hold NaN in float and 0 in double. Memory of the method
 *  begins as NaN. Fails the test when the method refuses. */
void train_case_make(train_case *x, const attn_method *m, const void *params, attn_problem pb, float drop, int masked, double spread);
void train_case_free(train_case *x);
attn_view train_case_view(const train_case *x, int tensor);
ref_view train_case_ref(const train_case *x, int tensor);
void train_case_forward(train_case *x);
/** Gradients of sum(out * dout); dweights begin at 1, which they are added to. */
void train_case_backward(train_case *x);

/** Forward equals the reference within `bound` of each element. */
void train_case_check_forward(train_case *x, double bound);
/** After forward and backward: up to `samples` elements of each gradient equal the slopes of the reference within `bound` of the largest
 *  element of the tensor; gradients of masked keys are 0, all are finite. step: of the differences. */
void train_case_check_backward(train_case *x, int64_t samples, double bound, double step);
/** The same bits with 1 thread and with those of the problem. */
void train_case_check_threads(train_case *x);

/** A whole encoder with the method in its slots, against the double encoder with `attend` in them: loss, and every element of its
 *  gradient, for n tokens (at most 64), some of them masked. */
void train_case_check_encoder(const encoder_config *c, const attn_method *m, const void *params, int64_t n, double dropout,
                              void (*attend)(void *ctx, int l, const attn_problem *pb, ref_view q, ref_view k, ref_view v,
                                             const double *learned, float drop, uint64_t key, ref_view out),
                              void *ctx);

#endif
