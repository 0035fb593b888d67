/* reformer_ref.h - Reformer attention of one head in double, by loops from its definition. Shares with the code under test the
 * stream of the rotations and the element of the dropout mask. */
#ifndef TEST_REFORMER_REF_H
#define TEST_REFORMER_REF_H

#include "baselines/reformer.h"

typedef struct reformer_ref { /* the windows of one head; free with reformer_ref_free */
  const attn_problem *pb;
  const reformer_params *p;
  int64_t kept, chunks, rounds;
  int32_t *order; /* [rounds, n] */
  int32_t *times; /* [n, n] how often key j stands in the windows of query i */
} reformer_ref;

/** Hashes and sorts the positions that mask [n] keeps (NULL: all); x [n, d] with row stride xs. Head ih of the problem. */
void reformer_ref_new(reformer_ref *r, const attn_problem *pb, const reformer_params *p, int64_t ih, const uint8_t *mask,
                      const double *x, ptrdiff_t xs);
void reformer_ref_free(reformer_ref *r);

/** How often key j stands in the windows of query i. */
int64_t reformer_ref_times(const reformer_ref *r, int64_t i, int64_t j);
/** The logit of a pair that is not hidden, duplicates left aside. */
double reformer_ref_logit(const reformer_ref *r, const double *x, ptrdiff_t xs, int64_t i, int64_t j);

/** out [n, dv] (row stride os) and lse [n] (NULL: not wanted), round by round as the algorithm is told, stored rounds merged at
 *  the end; weights times the dropout mask `dr` (threshold 0: none). */
void reformer_ref_run(const reformer_ref *r, const double *x, ptrdiff_t xs, const double *v, ptrdiff_t vs, const attn_drop *dr,
                      double *out, ptrdiff_t os, double *lse);
/** The closed form: out_i = sum_j c_ij e^z_ij v_j / sum_j c_ij e^z_ij, c the number of times, or 1 with duplicates removed. */
void reformer_ref_closed(const reformer_ref *r, const double *x, ptrdiff_t xs, const double *v, ptrdiff_t vs, double *out,
                         ptrdiff_t os, double *lse);

#endif
