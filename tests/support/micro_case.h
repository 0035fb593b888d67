/* micro_case.h - what the tests of vector kernels share: lengths {0, 1, N-1, N, N+1, 2N+3, 1000} (N lanes), buffers that start or end 0..3
 * floats from an unmapped page. Bounds come from the rounding of the sums, never from what the code happens to give: u = 2^-24, a
 * sum of n products in any order is off by at most about n u * sum |x y|. */
#ifndef TEST_MICRO_CASE_H
#define TEST_MICRO_CASE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/rng.h"
#include "tests/support/guard.h"
#include "tests/support/isa.h"

static const double U = 0x1p-24;
enum { MOST = 1000, PLACES = 8 };

static inline int64_t length(const attn_micro *mk, int i) {
  const int64_t n = mk->lanes, all[] = {0, 1, n - 1, n, n + 1, 2 * n + 3, MOST};
  return i < (int)(sizeof all / sizeof *all) ? all[i] : -1;
}
/* The i-th of PLACES ways to lay a buffer against an unmapped page. */
static inline float *place(guard *g, int64_t n, int i) { return guard_new(g, n, i % 4, i / 4); }

static inline void fill(float *x, int64_t n, uint64_t seed) {
  attn_rng r;
  attn_rng_seed(&r, seed, 1);
  for (int64_t i = 0; i < n; i++) x[i] = (float)attn_rng_normal(&r);
}

static inline void assert_close(double got, double want, double bound, const char *what, int64_t at) {
  if (isnan(want) ? isnan(got) : got == want || fabs(got - want) <= bound) return;
  fail_msg("%s[%lld] = %.9g, expected %.9g within %.3g", what, (long long)at, got, want, bound);
}
static inline void assert_bits(float got, float want, const char *what, int64_t at) {
  if (memcmp(&got, &want, sizeof got) != 0) fail_msg("%s[%lld] = %a, expected %a", what, (long long)at, got, want);
}
static inline void assert_guards(const guard *g, int count) {
  for (int i = 0; i < count; i++) assert_true(guard_intact(g + i));
}
static inline void free_guards(guard *g, int count) {
  for (int i = 0; i < count; i++) guard_free(g + i);
}

#endif
