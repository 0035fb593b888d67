/* select.h - the k best of many scored keys, without sorting. */
#ifndef ATTN_SELECT_H
#define ATTN_SELECT_H

#include <stdint.h>

typedef struct attn_hit {
  float score; /* q.k, no NaN */
  int32_t id;  /* whose score it is; ids are distinct */
} attn_hit;

/** The order of all k-nearest-neighbour methods: larger score first, lower id on ties. */
static inline int attn_better(attn_hit a, attn_hit b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}
/** Moves the k best of hit[0..n) to the front, in no particular order. The set is unique, the time linear on average. */
void attn_select(attn_hit *hit, int64_t n, int64_t k);
/** Sorts a [n] ascending; spare [n] is working memory. */
void attn_sort_u64(uint64_t *a, int64_t n, uint64_t *spare);

#endif
