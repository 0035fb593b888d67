/* nystrom_ref.h - Nystromformer in double precision, by plain loops from its definition; nothing is shared with the code
 * under test but the element of a dropout mask. */
#ifndef TEST_NYSTROM_REF_H
#define TEST_NYSTROM_REF_H

#include "tests/support/train_case.h"

/** Settings, as the parameters of the method. */
typedef struct nystrom_ref_settings {
  int64_t landmarks, iterations, conv;
  int global_kappa, pinv_when_short;
  double *residual; /* NULL, or [iterations + 1]: largest |I - A Z| of each iterate of the last head */
} nystrom_ref_settings;

/** Fills x->ref[TRAIN_OUT]. */
void nystrom_ref(const train_case *x, const nystrom_ref_settings *s);
/** First token of segment c of n in m, by handing out one token after the other. */
int64_t nystrom_ref_segment(int64_t n, int64_t m, int64_t c);

#endif
