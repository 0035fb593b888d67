/* train_case.h - the training part of an attention on one problem: its float forward against a reference in double, its
 * gradients of q, k, v and of what it learned against central differences of that reference. */
#ifndef TEST_TRAIN_CASE_H
#define TEST_TRAIN_CASE_H

#include "tests/support/encoder_ref.h"

enum { TRAIN_Q, TRAIN_K, TRAIN_V, TRAIN_W, TRAIN_OUT, TRAIN_DOUT, TRAIN_DQ, TRAIN_DK, TRAIN_DV, TRAIN_DW, TRAIN_TENSORS };
#define TRAIN_DW_START 1.0f /* what dweights hold before backward adds to them */

typedef struct train_case {
  const attn_method *m;
  const void *params;
  attn_problem pb;
  float drop;
  uint64_t key;
  uint8_t *mask;               /* [b, nk], NULL: all keys */
  float *t[TRAIN_TENSORS];     /* [b, n, heads, width] in memory as in the encoder, so that heads are strided; W, DW: all that is learned */
  double *ref[TRAIN_OUT + 1];  /* q, k, v, what is learned, out in double */
  int64_t size[TRAIN_TENSORS];
  void *saved, *scratch;
  /* Computes ref[TRAIN_OUT] from the other doubles. What counts as constant in backward is computed when `fresh`, and taken
     from ctx otherwise. */
  void (*reference)(struct train_case *x, int fresh);
  void *ctx;
} train_case;

/** A problem of equal nq and nk, two threads; learned tensors are those of sequences of nk, unless positions says more. */
attn_problem train_case_problem(int64_t b, int64_t h, int64_t n, int64_t d, int64_t dv, int causal);

/** Normal v and dout, q and k `spread` times that, 0.3 times that for learned tensors. masked: a quarter of the keys, which then hold NaN
 *  in float and 0 in double (queries as well where keys are the queries). Memory of the method begins as NaN. Fails the test when the method
 *  refuses. */
train_case train_case_new(const attn_method *m, const void *params, attn_problem pb, float drop, int masked, double spread);
void train_case_free(train_case *x);
attn_view train_case_view(const train_case *x, int tensor);
ref_view train_case_ref(const train_case *x, int tensor);
/** Row (ib, ih, i) of a tensor in double. */
double *train_case_row(const train_case *x, int tensor, int64_t ib, int64_t ih, int64_t i);
void train_case_forward(train_case *x);
/** Gradients of sum(out * dout). */
void train_case_backward(train_case *x);

/** Forward equals the reference within `bound` of each element. */
void train_case_check_forward(train_case *x, double bound);
/** After forward and backward: up to `samples` elements of each gradient equal the slopes of the reference within `bound` of the largest
 *  element of the tensor; gradients of masked keys are 0, all are finite. step: of the differences. */
void train_case_check_backward(train_case *x, int64_t samples, double bound, double step);
/** The same bits with 1 thread and with those of the problem. */
void train_case_check_threads(train_case *x);
/** Forward has the bits of the method's own. No dropout. */
void train_case_check_method(train_case *x);
/** The two above, on a problem with dropout and a mask if the method takes one, and that another key drops other weights. */
void train_case_check_bits(const attn_method *m, const void *params, attn_problem pb);

/** Padding behind `n` tokens, NaN in keys and values, changes no bit of their outputs, and gradients by rounding (`bound`) at most. */
void train_case_check_padding(const attn_method *m, const void *params, int64_t n, double bound);
/** Without any key, outputs and gradients are zeros. */
void train_case_check_nothing_left(const attn_method *m, const void *params);

/** A whole encoder with the method in its slots, against the double encoder with `attend` in them: loss, and every element of its
 *  gradient, for n tokens (at most 64), some of them masked. */
void train_case_check_encoder(const encoder_config *c, const attn_method *m, const void *params, int64_t n, double dropout,
                              void (*attend)(void *ctx, int l, const attn_problem *pb, ref_view q, ref_view k, ref_view v,
                                             const double *learned, float drop, uint64_t key, ref_view out),
                              void *ctx);

#endif
