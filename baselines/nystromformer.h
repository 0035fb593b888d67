/* nystromformer.h - the pieces of Nystromformer for one head, shared by inference (nystromformer.c) and training
 * (nystromformer_train.c). Row-major matrices without gaps unless said otherwise; logits in base 2. */
#ifndef BASELINES_NYSTROMFORMER_H
#define BASELINES_NYSTROMFORMER_H

#include "baselines/segments.h"
#include "kernels/attn.h"
#include "kernels/core/alloc.h"

extern const attn_training attn_training_nystromformer;

typedef struct nystrom_params {
  int64_t landmarks, iterations, kappa, conv, shorter;
} nystrom_params;
enum { NYSTROM_KAPPA_MATRIX, NYSTROM_KAPPA_GLOBAL };    /* nystrom_params.kappa */
enum { NYSTROM_SHORT_SOFTMAX, NYSTROM_SHORT_PINV };     /* nystrom_params.shorter */
enum {
  NYSTROM_QUERIES = 48, /* query rows at a time */
  NYSTROM_CONV_ROWS = 12
};

/** Landmarks of a head over `kept` tokens; *exact: they are the tokens, and attention is softmax. */
int64_t nystrom_landmarks(const nystrom_params *p, int64_t kept, int *exact);
/** The most that a problem of nk tokens can have, at least 1. */
int64_t nystrom_most(const nystrom_params *p, int64_t nk);

/** Working memory of one thread. */
typedef struct nystrom_work {
  segment_work segment;
  float *s, *square, *m, *l, *window;
} nystrom_work;
void nystrom_work_place(nystrom_work *w, attn_layout *at, const attn_problem *pb, const nystrom_params *p);

/** a [m, m] = softmax of qbar times the keys in panels kt (scale and log2 e folded in). Returns the largest column sum;
 *  *column: which. */
float nystrom_scores(const attn_micro *mk, int64_t m, int64_t d, const float *qbar, const float *kt, float *a,
                     nystrom_work *w, int64_t *column);
/** z[0] = a^T / kappa, then `steps` times z[i+1] = z[i] (13 I - t (15 I - t (7 I - t))) / 4 with t = a z[i]. z [steps+1]
 *  matrices, `apart` floats from one to the next: 0 keeps only the last, in z. */
void nystrom_pinv(const attn_micro *mk, int64_t m, int64_t steps, const float *a, float kappa, float *z, int64_t apart,
                  nystrom_work *w);
/** The factors of a step, each [m, m]: n = -a z, p = 15 I + 7 n + n n, r = 13 I + n p. */
void nystrom_factors(const attn_micro *mk, int64_t m, const float *a, const float *z, float *n, float *p, float *r);

/** out [rows, dv] (stride os) = softmax of q [rows, d] (stride qs) times kt, times u [m, dv]; at most NYSTROM_QUERIES rows.
 *  lse2 [rows] = log2-sum-exp2 of the rows. */
void nystrom_answer(const attn_micro *mk, int64_t m, int64_t d, int64_t dv, int64_t rows, const float *q, ptrdiff_t qs,
                    const float *kt, const float *u, float *out, ptrdiff_t os, float *lse2, nystrom_work *w);

/** Taps of a head with the zeros around them that nystrom_conv wants: conv + 2 NYSTROM_CONV_ROWS floats; reversed for backward. */
void nystrom_taps(const float *taps, int64_t conv, int reversed, float *out);
/** Rows of x that the convolution of rows [i0, i1) reads, zeros where keep is 0: row j is at (j - *first) * *ld. In place when keep
 *  is NULL, else in w->window (at most NYSTROM_QUERIES rows). */
const float *nystrom_window(int64_t conv, int64_t n, int64_t dv, const float *x, ptrdiff_t *ld, const uint8_t *keep, int64_t i0,
                            int64_t i1, int64_t *first, nystrom_work *w);
/** Rows [i0, i1) of out (stride os, row 0 = token 0) += convolution of x [n, dv] (stride ld) with the taps. Where keep
 *  (NULL: everywhere) is 0, x counts as 0. At most NYSTROM_QUERIES rows when keep is given. */
void nystrom_conv(const attn_micro *mk, const float *taps, int64_t conv, int64_t n, int64_t dv, const float *x, ptrdiff_t ld,
                  const uint8_t *keep, int64_t i0, int64_t i1, float *out, ptrdiff_t os, nystrom_work *w);

#endif
