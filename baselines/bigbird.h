/* bigbird.h - parameters of method "bigbird", and its random blocks. */
#ifndef BASE_BIGBIRD_H
#define BASE_BIGBIRD_H

#include "kernels/attn.h"

typedef struct bigbird_params {
  int64_t block, random, duplicates;
} bigbird_params;
enum { BIGBIRD_REMOVED, BIGBIRD_COUNTED };

/** The random blocks of block `row`, 0 < row < blocks - 1, of head ih, into out, which has room for all `blocks`; how many. */
int64_t bigbird_random(const bigbird_params *, uint64_t seed, int64_t ih, int64_t row, int64_t blocks, int32_t *out);

extern const attn_method attn_method_bigbird;

#endif
