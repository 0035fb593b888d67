/* rng.h - reproducible random numbers.
 *
 * Two forms. A *stream* is a xoshiro256** generator seeded by splitmix64 from (seed, stream id): sequential,
 * for generators and initialisation. A *hash* maps a few integers to 64 random bits without state: for work
 * that is cut among threads, keyed by (seed, batch, head, row), so that the bits do not depend on who runs it.
 * Sources: Blackman & Vigna 2018 (xoshiro256**), Steele et al. 2014 (splitmix64). */
#ifndef ATTN_RNG_H
#define ATTN_RNG_H

#include <math.h>
#include <stdint.h>

typedef struct attn_rng {
  uint64_t s[4];
} attn_rng;

/** One round of splitmix64's finaliser: a bijection of 64 bits. */
static inline uint64_t attn_mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
/** Random bits keyed by three integers. Chain calls for more. */
static inline uint64_t attn_hash(uint64_t a, uint64_t b, uint64_t c) {
  return attn_mix64(attn_mix64(attn_mix64(a) ^ b) ^ c);
}

static inline void attn_rng_seed(attn_rng *r, uint64_t seed, uint64_t stream) {
  uint64_t x = attn_hash(seed, stream, 0);
  for (int i = 0; i < 4; i++) r->s[i] = x = attn_mix64(x);
}
static inline uint64_t attn_rng_u64(attn_rng *r) {
  uint64_t *s = r->s, m = s[1] * 5, out = ((m << 7) | (m >> 57)) * 9, t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = (s[3] << 45) | (s[3] >> 19);
  return out;
}
/** Uniform in [0, 1), 53 bits. */
static inline double attn_rng_uniform(attn_rng *r) { return (double)(attn_rng_u64(r) >> 11) * 0x1p-53; }
/** Uniform integer in [0, n), n >= 1, without bias (rejection on the top multiple of n). */
static inline uint64_t attn_rng_below(attn_rng *r, uint64_t n) {
  uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
  do x = attn_rng_u64(r);
  while (x >= limit);
  return x % n;
}
/** Standard normal (Box-Muller, one value per call). */
static inline double attn_rng_normal(attn_rng *r) {
  double u = 1.0 - attn_rng_uniform(r), v = attn_rng_uniform(r);
  return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

#endif
