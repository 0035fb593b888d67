/* softmax2.h - softmax in base 2, as attn_micro.softmax_block computes it: what stands before and after the blocks. Logits
 * carry the factor scale * log2(e); a row leaves its maximum m and 16 lane-wise sums l. */
#ifndef ATTN_SOFTMAX2_H
#define ATTN_SOFTMAX2_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define LOG2E 1.44269504088896340736
#define LN2 0.69314718055994530942

/** Sum of 2^(s - m) over the row; 0 for a row without keys, or with scores of -inf only. */
static inline float attn_lane_sum(const float l[16]) {
  float sum = 0.0f;
  for (int lane = 0; lane < 16; lane++) sum += l[lane];
  return sum;
}
/** Natural log-sum-exp of the row; -inf where the sum is 0. */
static inline float attn_lse(float m, float sum) {
  return sum != 0.0f ? (float)(((double)m + log2((double)sum)) * LN2) : -INFINITY;
}
/** What a row leaves: to [dv] = o / sum, zeros where it saw no key or only scores of -inf; *lse, unless it is NULL. */
static inline void attn_close_row(int64_t dv, const float *o, float m, const float l[16], float *to, float *lse) {
  const float sum = attn_lane_sum(l), inverse = sum != 0.0f ? 1.0f / sum : 0.0f;
  for (int64_t t = 0; t < dv; t++) to[t] = o[t] * inverse;
  if (lse) *lse = attn_lse(m, sum);
}

#endif
