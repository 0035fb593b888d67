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

/** Forward of a "dense" plan for a method that chose to be dense attention: says so in st->path, hands every row its
 *  visible keys through st->on_keys, misses nothing. */
attn_status attn_dense_instead(const void *plan, attn_view q, attn_viewm out, void *scratch, attn_stats *st);
/** What forward checks of its arguments before it begins. */
attn_status attn_dense_ready(const void *plan, attn_view q, attn_viewm out, const void *scratch);

#endif
