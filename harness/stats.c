/* stats.c - see stats.h */
#include "harness/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/rng.h"

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double stats_quantile(const double *x, size_t n, double q) {
  if (n == 0) return NAN;
  const double at = q * (double)(n - 1), low = floor(at);
  const size_t i = (size_t)low;
  return i + 1 < n ? x[i] + (at - low) * (x[i + 1] - x[i]) : x[n - 1];
}

double stats_median(double *x, size_t n) {
  if (n > 1) qsort(x, n, sizeof *x, ascending);
  return stats_quantile(x, n, 0.5);
}

/* P(B <= k) of a binomial(n, 1/2). */
static double half_binomial(size_t n, size_t k) {
  double term = pow(0.5, (double)n), sum = term;
  for (size_t i = 0; i < k; i++) {
    term *= (double)(n - i) / (double)(i + 1);
    sum += term;
  }
  return sum;
}

/* Ranks j and n+1-j enclose the median with probability 1 - 2 P(B <= j-1); the largest j that leaves 95 %. */
static size_t median_rank(size_t n) {
  if (n > 1000) return (size_t)floor(0.5 * (double)n - 0.98 * sqrt((double)n)); /* normal approximation; 2^-n underflows */
  size_t j = 1;
  while (2.0 * half_binomial(n, j) <= 0.05) j++;
  return j;
}

stats_interval stats_median_interval(double *x, size_t n) {
  const stats_interval r = {.value = stats_median(x, n), .lo = NAN, .hi = NAN};
  if (n < STATS_LEAST) return r;
  const size_t j = median_rank(n);
  return (stats_interval){.value = r.value, .lo = x[j - 1], .hi = x[n - j]};
}

stats_interval stats_wilson(int64_t hits, int64_t n) {
  if (n <= 0) return (stats_interval){NAN, NAN, NAN};
  const double z = 1.959963984540054, count = (double)n, p = (double)hits / count, zz = z * z / count;
  const double centre = (p + 0.5 * zz) / (1.0 + zz);
  const double half = z / (1.0 + zz) * sqrt(p * (1.0 - p) / count + 0.25 * zz / count);
  const double lo = centre - half, hi = centre + half;
  return (stats_interval){.value = p, .lo = hits == 0 ? 0.0 : lo, .hi = hits == n ? 1.0 : hi};
}

stats_interval stats_ratio_bootstrap(const double *a, const double *b, size_t n, uint64_t seed) {
  enum { RESAMPLES = 2000 };
  if (n == 0) return (stats_interval){NAN, NAN, NAN};
  double *x = malloc((2 * n + RESAMPLES) * sizeof *x), *y = x ? x + n : NULL, *ratio = x ? x + 2 * n : NULL;
  if (!x) return (stats_interval){NAN, NAN, NAN};
  const int enough = n >= STATS_LEAST;
  attn_rng r;
  attn_rng_seed(&r, seed, n);
  for (int i = 0; enough && i < RESAMPLES; i++) {
    for (size_t k = 0; k < n; k++) {
      const size_t pick = (size_t)attn_rng_below(&r, n);
      x[k] = a[pick], y[k] = b[pick];
    }
    ratio[i] = stats_median(x, n) / stats_median(y, n);
  }
  if (enough) qsort(ratio, RESAMPLES, sizeof *ratio, ascending);
  memcpy(x, a, n * sizeof *x);
  memcpy(y, b, n * sizeof *y);
  const stats_interval s = {.value = stats_median(x, n) / stats_median(y, n),
                            .lo = stats_quantile(ratio, enough ? RESAMPLES : 0, 0.025),
                            .hi = stats_quantile(ratio, enough ? RESAMPLES : 0, 0.975)};
  free(x);
  return s;
}
