/* blockset.h - attention over chosen blocks of positions: the body of "longformer" and "bigbird".
 *
 * Positions are cut into blocks. A block of queries meets a list of blocks of keys, and in them all keys or those of a window.
 * Keys are packed block by block; masked ones are left out of their block. */
#ifndef BASE_BLOCKSET_H
#define BASE_BLOCKSET_H

#include "baselines/keyset.h"

/** Which pairs meet. */
typedef struct block_pattern {
  const char *name;     /* of the method, for errors */
  int64_t block;        /* positions of a block */
  int64_t window;       /* a query sees keys up to so far away; INT32_MAX: all keys of the blocks that it meets */
  int64_t global;       /* so many first positions see everybody and are seen by everybody, whatever the window */
  int64_t random;       /* for list */
  int counted;          /* for list */
  /** Blocks of keys that block `row` of head ih meets, into out [blocks + random + 5], those behind a causal row among them
   *  or not; how many. A block may come twice: then its keys count twice. */
  int64_t (*list)(const struct block_pattern *, const attn_problem *, int64_t ih, int64_t row, int32_t *out);
} block_pattern;
static inline int64_t block_count(const attn_problem *pb, const block_pattern *bp) { return (pb->nk + bp->block - 1) / bp->block; }

/** The functions of a method and of its training part; blockset.inc adds the pattern of the parameters. */
attn_status block_sizes(const attn_problem *, const block_pattern *, attn_mem *need);
attn_status block_prepare(void *plan, const attn_problem *, const block_pattern *);
attn_status block_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch);
attn_status block_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch, attn_stats *);
void block_release(void *plan);
attn_status block_train_sizes(const attn_problem *, const block_pattern *, attn_mem *need);
attn_status block_train_forward(const attn_problem *, const block_pattern *, attn_view q, attn_view k, attn_view v, const uint8_t *kmask,
                                float drop, uint64_t key, attn_viewm out, void *saved, void *scratch);
attn_status block_train_backward(const attn_problem *, const block_pattern *, attn_view q, attn_view k, attn_view v,
                                 const uint8_t *kmask, float drop, uint64_t key, attn_view out, attn_view dout, attn_viewm dq,
                                 attn_viewm dk, attn_viewm dv, void *saved, void *scratch);

#endif
