/* quality.h - how far an attention is from exact attention on the same Q, K, V.
 *
 * The harness does not believe a method: outputs are compared with those of `dense`, and the softmax mass and the
 * recall of a key set are recomputed here from the keys themselves.
 *
 *   l2_error      mean over rows of ||o - o_dense||_2
 *   rel_l2_error  ||O - O_dense||_F / ||O_dense||_F
 *   mass          mean over rows of sum_{j used} exp(scale q.k_j - lse), lse over all visible keys
 *   recall        mean over rows of |used with one of the k_i best scores| / k_i,  k_i = min(k, visible keys)
 *
 *   mass_bound    mean over rows of the mass that the method guarantees, 1 - attn_stats.missing; checked row by row
 *
 * k is the method's parameter `k`; a method without one is measured against the best set as large as its own. Scores
 * that differ by less than the rounding of a dot product count as ties. A row that sees no key has no mass and no
 * recall. All sums run in double. Source of the definitions: DESIGN.md "What is measured". */
#ifndef ICE_QUALITY_H
#define ICE_QUALITY_H

#include <stdatomic.h>
#include <stdint.h>

#include "harness/measure_method.h"
#include "kernels/core/err.h"

/** Exact attention on one set of inputs; computed once, shared by all methods compared on it. */
typedef struct quality_ref {
  const measure_inputs *in;
  float *out, *lse;     /* [b, h, nq, dv], [b, h, nq]; owned */
  int32_t *keep, *kept; /* [b, nk] positions of the kept keys, [b] their number; owned */
  double *longest;      /* [b, hkv] length of the longest kept key; owned */
} quality_ref;

/** Runs `dense` on the inputs, which must outlive the reference. */
int quality_ref_create(quality_ref *r, const measure_inputs *in, ice_err *e);
void quality_ref_destroy(quality_ref *r);
/** The exact output. */
attn_view quality_ref_out(const quality_ref *r);

/** The keys that each row of one forward pass used. */
typedef struct quality_keys {
  int64_t b, h, nq;
  int32_t **row;  /* [b, h, nq], owned; NULL for a row without keys */
  int32_t *count; /* [b, h, nq] */
  float *missing; /* [b, h, nq] for attn_stats.missing; -1 where the method said nothing */
  atomic_int bad; /* a row out of range was reported, or memory was out */
} quality_keys;

int quality_keys_create(quality_keys *s, const attn_problem *pb, ice_err *e);
void quality_keys_destroy(quality_keys *s);
/** attn_stats.on_keys; ctx is the quality_keys. */
void quality_on_keys(void *ctx, int64_t ib, int64_t ih, int64_t iq, const int32_t *keys, int64_t count);

/** Sums that may run over several inputs and layers. Start with zeros. */
typedef struct quality_sums {
  double l2, diff2, ref2; /* sums over rows of ||o - o_dense||, its square, ||o_dense||^2 */
  double mass, recall, bound, best; /* best: the mass on the k keys of largest score, which recall is judged by */
  int64_t rows, set_rows, bound_rows; /* rows compared; rows with visible keys of methods with key sets; those with a bound */
  int64_t keys;                       /* that the set_rows used */
} quality_sums;

typedef struct quality {
  double l2_error, rel_l2_error, mass, recall, mass_bound; /* NAN: undefined */
} quality;

/** Adds the outputs of a pass and (keys not NULL) the key sets that made them, judged against the best k (0: as many as
 *  the row used). ICE_INTERNAL when an output (or the exact one) is not finite, with its place; when a set is impossible:
 *  keys out of range, invisible or reported twice; or when a row leaves out more mass than the method said. */
int quality_add(quality_sums *s, const quality_ref *ref, attn_view out, quality_keys *keys, int64_t k, ice_err *e);
/** Adds sums to sums. */
void quality_merge(quality_sums *to, const quality_sums *from);
quality quality_of(const quality_sums *s);
/** Parameter `k` of a method; 0 when it has none. */
int64_t quality_k(const attn_method *m, const void *params);

#endif
