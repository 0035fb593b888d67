/* dense.h - the two halves of method "dense": forward (dense.c) and training (dense_train.c). */
#ifndef ATTN_DENSE_H
#define ATTN_DENSE_H

#include "kernels/attn.h"

extern const attn_method attn_method_dense;
extern const attn_training attn_training_dense;

/** Forward of a prepared and built "dense" plan with dropout `drop` on the weights (0: none; head (ib, ih) uses the
 * mask keyed attn_hash(key, ib, ih), columns counted among kept keys). lse [b, h, nq] and pairs may be NULL. Statuses
 * as in attn_method.forward. */
attn_status attn_dense_run(const void *plan, attn_view q, attn_viewm out, void *scratch, float drop, uint64_t key,
                           float *lse, uint64_t *pairs);

/** Hands every row its visible keys through st->on_keys, for methods that fall back to "dense". After build. */
void attn_dense_report(const void *plan, const attn_stats *st);

#endif
