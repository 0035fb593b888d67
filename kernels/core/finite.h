/* finite.h - are all numbers finite? By their bits, so that compilers make vectors of it. */
#ifndef ATTN_FINITE_H
#define ATTN_FINITE_H

#include <stdint.h>
#include <string.h>

/** 1 when none of n floats is NaN or infinite. */
static inline int attn_all_finite(int64_t n, const float *x) {
  uint32_t bad = 0;
  for (int64_t t = 0; t < n; t++) {
    uint32_t bits;
    memcpy(&bits, x + t, sizeof bits);
    bad |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return !bad;
}

#endif
