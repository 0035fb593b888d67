/* visible.h - which keys a query may see. A padding mask is resolved once, by compaction: kept keys move together in
 * order of position. A causal limit then is a prefix of the compacted list, so inner loops know no masks at all. */
#ifndef ATTN_VISIBLE_H
#define ATTN_VISIBLE_H

#include "kernels/attn.h"

/** Keys or values of key head i of [b, hkv], counted over the batch. */
static inline const float *attn_key_head(attn_view x, const attn_problem *pb, int64_t i) {
  return x.p + i / pb->hkv * x.sb + i % pb->hkv * x.sh;
}

/** Positions of the kept keys of one batch entry, ascending, into idx [nk]; returns how many. mask NULL keeps all. */
static inline int64_t attn_keep(const uint8_t *mask, int64_t nk, int32_t *idx) {
  int64_t count = 0;
  for (int64_t j = 0; j < nk; j++)
    if (!mask || mask[j]) idx[count++] = (int32_t)j;
  return count;
}

/** Of `count` kept keys, how many query iq of the problem sees: all, or those at positions <= iq + nk - nq. */
static inline int64_t attn_prefix(const attn_problem *pb, const int32_t *idx, int64_t count, int64_t iq) {
  if (!pb->causal) return count;
  int64_t limit = iq + pb->nk - pb->nq, lo = 0, hi = count;
  while (lo < hi) { /* first kept key beyond the limit */
    int64_t mid = lo + (hi - lo) / 2;
    if (idx[mid] <= limit) lo = mid + 1;
    else hi = mid;
  }
  return lo;
}

/** Keys that a forward pass in blocks of `block` queries reads, all heads together: a block those that its last query sees. idx [b, nk] and
 *  count [b] as of attn_keep(). */
static inline uint64_t attn_streamed(const attn_problem *pb, const int32_t *idx, const int64_t *count, int64_t block) {
  uint64_t keys = 0;
  for (int64_t ib = 0; ib < pb->b; ib++)
    for (int64_t i = 0; i < pb->nq; i += block)
      keys += (uint64_t)attn_prefix(pb, idx + ib * pb->nk, count[ib], (i + block < pb->nq ? i + block : pb->nq) - 1);
  return keys * (uint64_t)pb->h;
}

#endif
