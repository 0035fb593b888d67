/* bigbird.c - blocks next to each other, global blocks and random ones: BigBird.
 *
 * Idea    Of blocks of `block` positions the first and the last attend to all and are attended to by all; the others attend to
 *         themselves, both neighbours and `random` blocks drawn without replacement outside of these.
 * Source  Zaheer et al. 2020 (arXiv:2007.14062), google-research/bigbird core/attention.py. There the last two rows but one draw from all inner
 *         blocks, so that a random block can be a neighbour and count twice in the softmax: `duplicates` = counted. By default no row
 *         draws what it has.
 * Random  Blocks come from problem.seed by head and row. Training draws anew in every step.
 * Cost    4 n block (5 + random) d flops.
 * Dropout Falls on the weights, as in dense attention (blockset.c).
 * Limits  f32. Causal: the same blocks up to the diagonal (the LRA code is dense there). Four blocks or less: exact attention. */
#include "baselines/bigbird.h"

#include "baselines/blockset.h"
#include "kernels/core/rng.h"

static int neighbour(int64_t row, int64_t c) { return c >= row - 1 && c <= row + 1; }

int64_t bigbird_random(const bigbird_params *p, uint64_t seed, int64_t ih, int64_t row, int64_t blocks, int32_t *out) {
  const int careless = p->duplicates == BIGBIRD_COUNTED && row >= blocks - 3;
  int64_t choice = 0;
  attn_rng r;
  for (int64_t c = 1; c < blocks - 1; c++)
    if (careless || !neighbour(row, c)) out[choice++] = (int32_t)c;
  const int64_t take = p->random < choice ? p->random : choice;
  attn_rng_seed(&r, attn_hash(seed, (uint64_t)ih, (uint64_t)row), 0);
  for (int64_t i = 0; i < take; i++) {
    const int64_t other = i + (int64_t)attn_rng_below(&r, (uint64_t)(choice - i));
    const int32_t swap = out[i];
    out[i] = out[other], out[other] = swap;
  }
  return take;
}

static int64_t list_blocks(const block_pattern *bp, const attn_problem *pb, int64_t ih, int64_t row, int32_t *out) {
  const bigbird_params p = {.block = bp->block, .random = bp->random, .duplicates = bp->counted};
  const int64_t blocks = block_count(pb, bp);
  int64_t count = 0;
  for (int64_t c = 0; c < blocks; c++)
    if (row == 0 || row == blocks - 1 || c == 0 || c == blocks - 1 || neighbour(row, c)) out[count++] = (int32_t)c;
  return row == 0 || row == blocks - 1 ? count : count + bigbird_random(&p, pb->seed, ih, row, blocks, out + count);
}

static block_pattern pattern_of(const void *params) {
  const bigbird_params *p = params;
  return (block_pattern){.name = "bigbird", .block = p->block, .window = INT32_MAX, .random = p->random, .counted = (int)p->duplicates, .list = list_blocks};
}

#include "baselines/blockset.inc"

static const char *const duplicates_choices[] = {"removed", "counted", NULL};
static const attn_param bigbird_table[] = {
    {.key = "block", .doc = "positions of a block", .type = ATTN_P_INT, .offset = offsetof(bigbird_params, block), .dflt = 64, .min = 1, .max = 4096},
    {.key = "random", .doc = "random blocks that a block attends to", .type = ATTN_P_INT, .offset = offsetof(bigbird_params, random), .dflt = 3, .min = 0, .max = 4096},
    {.key = "duplicates", .doc = "random blocks of the last rows that are neighbours as well: not drawn, or counted twice as in the original", .type = ATTN_P_CHOICE, .offset = offsetof(bigbird_params, duplicates), .choices = duplicates_choices},
    {.key = NULL}};

const attn_method attn_method_bigbird = {
    .name = "bigbird",
    .version = "1",
    .cite = "arXiv:2007.14062",
    .doc = "neighbouring, global and random blocks; for models trained with it",
    .caps = ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_NEEDS_TRAINING | ATTN_CAP_RANDOMISED | ATTN_CAP_STOCHASTIC | ATTN_CAP_KEYSET,
    .params_size = sizeof(bigbird_params),
    .params = bigbird_table,
    .sizes = pattern_sizes,
    .prepare = pattern_prepare,
    .build = block_build,
    .forward = block_forward,
    .release = block_release,
    .training = &pattern_training,
};
