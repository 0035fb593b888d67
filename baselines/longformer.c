/* longformer.c - a sliding window, and a few global positions: Longformer.
 *
 * Idea    Position i attends to j with |i - j| <= window and to the first `global` positions; those attend to all. One softmax over
 *         the union, in which no key counts twice.
 * Source  Beltagy et al. 2020 (arXiv:2004.05150); its code gives global positions projections of their own, here they are tied to
 *         the others, as a drop-in needs. The default is the window of that code, 256 on each side; the LRA code has no global
 *         position, hence 0.
 * Cost    Blocks of 64 queries meet whole blocks of 64 keys and hide what lies outside the window: 4 n (2 window + 128) d flops.
 * Dropout Falls on the weights, as in dense attention (blockset.c).
 * Limits  f32. Causal: the window to the left. A query sees no key where all of its window is masked: zeros. */
#include "baselines/blockset.h"
#include "baselines/longformer.h"

enum { BLOCK = 64 };

static int64_t list_blocks(const block_pattern *bp, const attn_problem *pb, int64_t ih, int64_t row, int32_t *out) {
  const int64_t blocks = block_count(pb, bp), first = row * BLOCK, last = first + BLOCK - 1;
  int64_t count = 0;
  (void)ih;
  for (int64_t c = 0; c < blocks; c++)
    if (first < bp->global || c * BLOCK < bp->global || (c * BLOCK <= last + bp->window && c * BLOCK + BLOCK - 1 >= first - bp->window))
      out[count++] = (int32_t)c;
  return count;
}

static block_pattern pattern_of(const void *params) {
  const longformer_params *p = params;
  return (block_pattern){.name = "longformer", .block = BLOCK, .window = p->window, .global = p->global, .list = list_blocks};
}

#include "baselines/blockset.inc"

static const attn_param longformer_table[] = {
    {.key = "window", .doc = "positions to each side that a query sees", .type = ATTN_P_INT, .offset = offsetof(longformer_params, window), .dflt = 256, .min = 0, .max = 1 << 20},
    {.key = "global", .doc = "first positions that see all and are seen by all", .type = ATTN_P_INT, .offset = offsetof(longformer_params, global), .dflt = 0, .min = 0, .max = 1 << 20},
    {.key = NULL}};

const attn_method attn_method_longformer = {
    .name = "longformer",
    .version = "1",
    .cite = "arXiv:2004.05150",
    .doc = "a sliding window and global positions; for models trained with it",
    .caps = ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_NEEDS_TRAINING | ATTN_CAP_STOCHASTIC | ATTN_CAP_KEYSET,
    .params_size = sizeof(longformer_params),
    .params = longformer_table,
    .sizes = pattern_sizes,
    .prepare = pattern_prepare,
    .build = block_build,
    .forward = block_forward,
    .release = block_release,
    .training = &pattern_training,
};
