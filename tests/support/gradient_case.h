/* gradient_case.h - the training part of a method against its definition in double: outputs, and gradients of queries, keys,
 * values and learned tensors against central differences. */
#ifndef TEST_GRADIENT_CASE_H
#define TEST_GRADIENT_CASE_H

#include "kernels/attn.h"
#include "tests/support/encoder_ref.h"

enum { GRAD_Q, GRAD_K, GRAD_V, GRAD_W, GRAD_OUT, GRAD_DOUT, GRAD_DQ, GRAD_DK, GRAD_DV, GRAD_DW, GRAD_TENSORS };

/** One problem with all its tensors; those of the heads lie [b, n, h, width] in memory, as in the encoder. */
typedef struct gradient_case {
  const attn_method *m;
  const void *params;
  attn_problem pb;
  float drop;
  uint64_t key;
  uint8_t *mask;             /* [b, nk] or NULL */
  float *t[GRAD_TENSORS];    /* W: all learned tensors */
  double *ref[GRAD_OUT + 1]; /* inputs in double, which may be changed, and the output of the reference */
  int64_t size[GRAD_TENSORS];
  void *saved, *scratch;     /* of the sizes asked for, NaN at first */
} gradient_case;

/** The definition: reads x->ref[GRAD_Q .. GRAD_W] through gradient_ref_view, x->mask, drop, key; writes ref[GRAD_OUT]. */
typedef void (*gradient_definition)(const gradient_case *x);

/** Normal queries and keys of standard deviation `size`, normal values; masked: random holes. Fails the test when the method refuses. */
gradient_case gradient_case_new(const attn_method *m, const void *params, attn_problem pb, float drop, int masked, float size);
void gradient_case_free(gradient_case *x);
attn_view gradient_view(const gradient_case *x, int tensor);
ref_view gradient_ref_view(const gradient_case *x, int tensor);

void gradient_forward(gradient_case *x);
/** After gradient_forward; dweights start from zero. */
void gradient_backward(gradient_case *x);

/** Fails the test when an output is further from the definition than `bound`. */
void gradient_check_forward(gradient_case *x, gradient_definition f, double bound);
/** Fails when an entry of a gradient is off by more than bound * (largest entry of that gradient) + 1e-6; up to `samples` entries
 *  of each tensor. Masked keys' gradients must be 0. */
void gradient_check_backward(gradient_case *x, gradient_definition f, double bound, int64_t samples);
/** Runs forward without dropout and the method's own forward: same bits. */
void gradient_check_same_as_method(gradient_case *x);

/** A problem of equal nq and nk for one thread more than heads need. */
attn_problem gradient_problem(int64_t b, int64_t h, int64_t n, int64_t d, int64_t dv);

#endif
