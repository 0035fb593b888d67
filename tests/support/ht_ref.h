/* ht_ref.h - H-Transformer-1D attention of one head in double, by loops from its definition: every pair of tokens of every level, in
 * one softmax a row. Shares with the code under test only the element of the dropout mask. */
#ifndef TEST_HT_REF_H
#define TEST_HT_REF_H

#include "kernels/attn.h"
#include "kernels/micro/micro.h"

/** q, k [n, d], v, out [n, dv], row strides in doubles; mask [n] or NULL; lse [n] or NULL. covered [n, n] or NULL: adds 1 for each
 *  position j that a weight of row i stands for. */
void ht_ref(const attn_problem *pb, int64_t rank, const uint8_t *mask, const double *q, ptrdiff_t qs, const double *k, ptrdiff_t ks,
            const double *v, ptrdiff_t vs, const attn_drop *dr, double *out, ptrdiff_t os, double *lse, int *covered);

#endif
