/* lara_ref.h - linear randomised attention in double precision, by plain loops from its definition. Shared with the code under
 * test: the random draws (lara_noise) and the element of a dropout mask. */
#ifndef TEST_LARA_REF_H
#define TEST_LARA_REF_H

#include "baselines/lara.h"
#include "tests/support/train_case.h"

/** Fills x->ref[TRAIN_OUT]; noise: as in training. */
void lara_ref(const train_case *x, const lara_params *p, int noise);
/** log xi(x, omega) = scale (omega.x - |x|^2 / 2). */
double lara_ref_log_xi(double scale, int64_t d, const double *x, const double *omega);

#endif
