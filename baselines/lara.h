/* lara.h - the pieces of linear randomised attention for one head, shared by inference (lara.c) and training
 * (lara_train.c). Row-major matrices without gaps unless said otherwise; logits in base 2, `factor` = scale * log2 e. */
#ifndef BASELINES_LARA_H
#define BASELINES_LARA_H

#include "baselines/segments.h"
#include "kernels/attn.h"

extern const attn_training attn_training_lara;

typedef struct lara_params {
  int64_t landmarks, estimator, noise;
  double share; /* a of the mis_opt weights */
} lara_params;
enum { LARA_OPT, LARA_BH, LARA_BIASED };                /* lara_params.estimator */
enum { LARA_NOISE_SCALED, LARA_NOISE_UNIT, LARA_NOISE_NONE }; /* lara_params.noise */
enum { LARA_QUERIES = 48 };                             /* query rows at a time */
#define LARA_LEAST 1e-8f                                /* smallest weight alpha */

/** Landmarks of a head over `kept` tokens; with nk: the most there can be, at least 1. */
static inline int64_t lara_landmarks(const lara_params *p, int64_t kept) { return kept < p->landmarks ? kept : p->landmarks; }
static inline int64_t lara_most(const lara_params *p, int64_t nk) { return nk < 1 ? 1 : lara_landmarks(p, nk); }

/** Standard deviation of the training noise per coordinate. */
double lara_noise_size(const lara_params *p, float scale);
/** The noise of head (ib, ih) for problem.seed, out [m, d]. */
void lara_noise(const attn_problem *pb, const lara_params *p, int64_t ib, int64_t ih, int64_t m, float *out);

/** What the weights of a row are made of, for all landmarks of a head. */
typedef struct lara_head {
  int64_t m, d;
  int estimator;
  float share;
  const float *ft, *qt;            /* panels of f = omega (+ mu when biased) and of qbar, both scaled */
  const float *constant, *lse_t;   /* [m] LK - prop; minus the log-sum-exp of qbar's products with all queries */
  const float *bh;                 /* [m] balance heuristic */
} lara_head;

typedef struct lara_work { /* of one thread */
  segment_work segment;
  float *p, *t, *alpha, *ones, *top, *l, *zeros;
} lara_work;
static inline int64_t lara_ld(const attn_micro *mk, int64_t m) { return attn_padded(mk, m) + 16; }
void lara_work_place(lara_work *w, attn_layout *at, const attn_problem *pb, const lara_params *p);

/** From omega and mu [m, d]: lm [m, m] = softmax over c' of log xi(mu_c', omega_c), prop [m] in base 2, bh [m]. mut: panels
 *  of room for m, top, l of w are used. */
void lara_proposals(const attn_micro *mk, int64_t m, int64_t d, float factor, int estimator, const float *omega,
                    const float *mu, float *mut, float *lm, float *prop, float *bh, lara_work *w);
/** Rows [rows, d] of queries (stride ld) against the landmarks: w->p their weights, summing to 1; for mis_opt w->t the shares t
 *  (0 where keep, NULL = 1, is 0) and w->alpha; all with stride lara_ld. lse2 [rows] or NULL: of the weights before they were
 *  normalised. At most LARA_QUERIES rows. */
void lara_weights(const attn_micro *mk, const lara_head *h, int64_t rows, const float *q, ptrdiff_t ld, const uint8_t *keep,
                  float *lse2, lara_work *w);
/** Only w->t. */
void lara_shares(const attn_micro *mk, const lara_head *h, int64_t rows, const float *q, ptrdiff_t ld, const uint8_t *keep,
                 lara_work *w);

/** out [m, d + 1] = factor x, then 1: landmark queries of segment_summarise with a norm. */
void lara_augment(int64_t m, int64_t d, float factor, const float *x, float *out);

#endif
