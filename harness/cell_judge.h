/* cell_judge.h - errors of a method inside a model: every attention call of a run against exact attention on the same Q, K, V. */
#ifndef ICE_CELL_JUDGE_H
#define ICE_CELL_JUDGE_H

#include "harness/quality.h"
#include "models/encoder.h"

typedef struct cell_judge { /* zeroed: nothing seen yet */
  quality_sums sums;
  int rc; /* of the first call that could not be judged; later ones are passed over */
  ice_err err;
} cell_judge;

/** An observer of calls; ctx is a cell_judge. */
void cell_judge_call(void *ctx, const encoder_call *call);

#endif
