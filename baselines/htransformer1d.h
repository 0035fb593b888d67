/* htransformer1d.h - what the two halves of method "htransformer1d" share: the hierarchy of one head, and its tiles. */
#ifndef BASE_HTRANSFORMER1D_H
#define BASE_HTRANSFORMER1D_H

#include "kernels/attn.h"
#include "kernels/core/alloc.h"
#include "kernels/micro/micro.h"

enum { HT_LEVELS = 32 };

typedef struct ht_params {
  int64_t rank;
} ht_params;

/** One level: tokens that stand for 2^l positions each. `at` is the first of its rows among the rows of all levels. */
typedef struct ht_level {
  int64_t n, at;
  const float *q, *k, *v; /* means over the positions that count; level 0: the caller's, or a copy of v without masked rows */
  ptrdiff_t qs, ks, vs;
  float *count, *bias;    /* [n] positions that count; log2 of it, -inf for none */
  float *kt;              /* [d + 1, ld] K^T over bias */
  ptrdiff_t ld;
  float *o, *m, *sum;     /* [n, dv], [n], [n] online softmax over this level and those above; level 0 has no o */
  float *vt;              /* backward: [dv, ld] V^T */
  float *qmean, *kmean, *vmean; /* memory of what q, k, v point to; level 0: of v only */
} ht_level;

/** The hierarchy of one head. */
typedef struct ht_head {
  const attn_problem *pb;
  const attn_micro *mk;
  int64_t rank, rows; /* block, rows of all levels */
  int levels;
  int wild; /* 1: some value is NaN or infinite, so that 0 * v is not 0 */
  ht_level level[HT_LEVELS];
} ht_head;

/** Lays out the levels of n = pb->nk positions: what belongs to the keys, and what belongs to the queries (softmax states included,
 *  where `states`). The two calls may fill one head from two blocks of memory; the first sets sizes. */
void ht_place_keys(attn_layout *at, const attn_problem *, const attn_micro *, int64_t rank, int backward, ht_head *);
void ht_place_queries(attn_layout *at, int states, ht_head *);
/** Means and counts. Keys and values of masked positions (mask [n], NULL: none) are not read; nor are their queries. */
void ht_fill_keys(ht_head *, const uint8_t *mask, const float *k, ptrdiff_t ks, const float *v, ptrdiff_t vs);
void ht_fill_queries(ht_head *, const float *q, ptrdiff_t qs);
/** The child whose query stands for token i of a level above 0 in causal attention: its first that counts. */
static inline int64_t ht_first_child(const ht_level *below, int64_t i) {
  return 2 * i + (below->count[2 * i] == 0.0f && 2 * i + 1 < below->n);
}

/** A block of queries of one level against its blocks of keys. */
typedef struct ht_tile {
  int64_t i0, rows;       /* first query, how many */
  int parts;              /* stretches of keys, side by side in the tile */
  int64_t j0[2], cols[2]; /* their first keys, how many */
  int64_t width;          /* columns in all */
} ht_tile;
ht_tile ht_tile_of(const ht_head *, int level, int64_t block);
static inline int64_t ht_blocks(const ht_head *h, int level) { return (h->level[level].n + h->rank - 1) / h->rank; }

/** Memory of one thread for tiles; backward adds a second one. */
typedef struct ht_work {
  float *q, *s, *ds;      /* [rank, d + 1] scaled, and 1; [rank, ld] */
  float *o, *m, *l;       /* [rank, dv], [rank], [rank, 16] */
  float *lse2, *delta;    /* [rank] */
  int64_t ld;
} ht_work;
void ht_place_work(attn_layout *at, const attn_problem *, int64_t rank, int backward, ht_work *);
/** Queries into w->q, logits in base 2 into w->s; hidden pairs are -inf. */
void ht_score(const ht_head *, int level, const ht_tile *, ht_work *);

/** One call of forward: with dropout, and with lse2 [b, h, rows of all levels] in memory that stays (NULL: not wanted). */
typedef struct ht_call {
  attn_view q;
  attn_viewm out;
  float drop;
  uint64_t key;
  float *lse2;
} ht_call;
attn_status ht_run(const void *plan, const ht_call *, void *scratch, attn_stats *);
/** Rows of all levels of n positions. */
int64_t ht_rows(int64_t n, int64_t rank);

extern const attn_method attn_method_htransformer1d;
extern const attn_training attn_training_htransformer1d;

#endif
