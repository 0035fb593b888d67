/* performer.h - the random projection of method "performer", for those who check it. */
#ifndef BASELINES_PERFORMER_H
#define BASELINES_PERFORMER_H

#include "kernels/attn.h"

extern const attn_method attn_method_performer;

/** Rows of the projection: the parameter `features`; d with kernel=relu_plain. */
int64_t performer_features(const attn_problem *pb, const void *params);
/** The projection that a problem draws by its seed: w [features, d] such that w_r . x is what feature r sees of a query or
 *  key x, scale included. */
void performer_projection(const attn_problem *pb, const void *params, float *w);

#endif
