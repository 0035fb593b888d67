/* stats_tests.c - see stats_tests.h */
#include "harness/stats_tests.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/core/rng.h"

static const double Z975 = 1.959963984540054, Z80 = 0.8416212335729143;

/* ---- Paired hits. */

static double log_choose(double n, double k) { return lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0); }

double stats_mcnemar(stats_pairs p) {
  if (p.only_a < 0 || p.only_b < 0) return NAN;
  const int64_t least = p.only_a < p.only_b ? p.only_a : p.only_b, n = p.only_a + p.only_b;
  double tail = 0.0;
  for (int64_t k = 0; k <= least; k++) tail += exp(log_choose((double)n, (double)k) - (double)n * M_LN2);
  return fmin(1.0, 2.0 * tail);
}

double stats_detectable_difference(stats_pairs p) {
  if (p.n < 1) return NAN;
  const double disagree = fmax(1.0, (double)(p.only_a + p.only_b)), n = (double)p.n;
  return (Z975 + Z80) * sqrt(disagree / n / n);
}

double stats_detectable_ratio(stats_interval ratio, double gate) {
  if (!(ratio.lo > 0.0 && ratio.hi >= ratio.lo)) return NAN;
  return (1.0 + gate) * exp((Z975 + Z80) * log(ratio.hi / ratio.lo) / (2.0 * Z975));
}

/* ---- Paired marks. */

/* The sum of differences with the sign of bit i of `signs` for x[i], 64 a word. */
static double flipped_sum(const double *x, size_t n, const uint64_t *signs) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i++) sum += signs[i / 64] >> (i % 64) & 1 ? -x[i] : x[i];
  return sum;
}

/* Share of assignments that are as extreme as `far`; x: the n differences that are not 0. */
static double flip(const double *x, size_t n, double far, uint64_t *signs, attn_rng *rng) {
  enum { RANDOM = 4999 };
  const int all = n <= STATS_FLIPS;
  const size_t tries = all ? (size_t)1 << n : RANDOM;
  size_t extreme = 0;
  for (size_t t = 0; t < tries; t++) {
    for (size_t w = 0; w <= n / 64; w++) signs[w] = all ? t : attn_rng_u64(rng);
    extreme += fabs(flipped_sum(x, n, signs)) >= far;
  }
  return all ? (double)extreme / (double)tries : (double)(extreme + 1) / (double)(tries + 1);
}

double stats_sign_flip(const double *a, const double *b, size_t n, uint64_t seed) {
  double *x = n ? malloc(n * sizeof *x) : NULL, sum = 0.0;
  uint64_t *signs = n ? malloc((n / 64 + 1) * sizeof *signs) : NULL;
  size_t m = 0;
  for (size_t i = 0; x && i < n; i++) {
    if (a[i] != b[i]) x[m++] = a[i] - b[i];
    sum += a[i] - b[i];
  }
  attn_rng rng;
  attn_rng_seed(&rng, seed, n);
  const double p = x && signs && isfinite(sum) ? flip(x, m, fabs(sum) * (1.0 - 1e-12), signs, &rng) : NAN;
  free(x);
  free(signs);
  return p;
}

/* ---- Mann-Whitney. */

typedef struct value {
  double x;
  int of_a;
} value;

static int by_value(const void *a, const void *b) {
  const double x = ((const value *)a)->x, y = ((const value *)b)->x;
  return (x > y) - (x < y);
}

/* U from ranks, ties sharing their mean; *ties receives the sum of t^3 - t over groups of t equal values. */
static double count_u(value *v, size_t na, size_t n, double *ties) {
  double rank_sum = 0.0;
  *ties = 0.0;
  qsort(v, n, sizeof *v, by_value);
  for (size_t i = 0, end; i < n; i = end) {
    for (end = i + 1; end < n && v[end].x == v[i].x;) end++;
    const double t = (double)(end - i), rank = 0.5 * (double)(i + 1 + end);
    for (size_t k = i; k < end; k++) rank_sum += v[k].of_a ? rank : 0.0;
    *ties += t * t * t - t;
  }
  return rank_sum - 0.5 * (double)na * (double)(na + 1);
}

/* P(U <= u) without ties. Of the ways to order m of a and n of b, the largest value is one of a, which then beats all n, or one of b:
 * ways(m, n, u) = ways(m - 1, n, u - n) + ways(m, n - 1, u). Row by row in m, in place over n. NAN when memory is out. */
static double exact_tail(size_t na, size_t nb, size_t u) {
  const size_t width = na * nb + 1;
  double *ways = calloc((nb + 1) * width, sizeof *ways), below = 0.0, all = 0.0;
  if (!ways) return NAN;
  for (size_t n = 0; n <= nb; n++) ways[n * width] = 1.0; /* none of a: U = 0 */
  for (size_t m = 1; m <= na; m++)
    for (size_t n = 1; n <= nb; n++)
      for (size_t k = width; k-- > 0;)
        ways[n * width + k] = (k >= n ? ways[n * width + k - n] : 0.0) + ways[(n - 1) * width + k];
  for (size_t k = 0; k < width; k++) {
    all += ways[nb * width + k];
    if (k <= u) below += ways[nb * width + k];
  }
  free(ways);
  return below / all;
}

static double normal_p(double u, double na, double nb, double ties) {
  const double n = na + nb, away = fabs(u - 0.5 * na * nb) - 0.5;
  const double variance = na * nb / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
  if (variance <= 0.0) return 1.0; /* all values are equal */
  return away <= 0.0 ? 1.0 : erfc(away / sqrt(2.0 * variance));
}

stats_rank_test stats_mann_whitney(const double *a, size_t na, const double *b, size_t nb) {
  stats_rank_test r = {NAN, NAN, NAN, 0};
  const size_t n = na + nb;
  value *v = na && nb ? malloc(n * sizeof *v) : NULL;
  for (size_t i = 0; v && i < n; i++) {
    v[i] = (value){i < na ? a[i] : b[i - na], i < na};
    if (isfinite(v[i].x)) continue;
    free(v);
    v = NULL;
  }
  if (!v) return r;
  double ties;
  r.u = count_u(v, na, n, &ties);
  r.effect = r.u / ((double)na * (double)nb);
  r.exact = ties == 0.0 && na <= STATS_EXACT && nb <= STATS_EXACT;
  if (r.exact) {
    const size_t u = (size_t)(r.u + 0.5), other = na * nb - u;
    r.p = fmin(1.0, 2.0 * exact_tail(na, nb, u < other ? u : other));
  } else
    r.p = normal_p(r.u, (double)na, (double)nb, ties);
  free(v);
  return r;
}

/* ---- Holm. */

static int by_p(const void *a, const void *b) {
  const double x = **(double *const *)a, y = **(double *const *)b;
  return (x > y) - (x < y);
}

void stats_holm(double *p, size_t m) {
  double **sorted = malloc((m + 1) * sizeof *sorted), least = 0.0;
  size_t n = 0;
  for (size_t i = 0; sorted && i < m; i++)
    if (!isnan(p[i])) sorted[n++] = p + i;
  if (sorted && n > 1) qsort(sorted, n, sizeof *sorted, by_p);
  for (size_t i = 0; sorted && i < n; i++) least = *sorted[i] = fmin(1.0, fmax(least, *sorted[i] * (double)(n - i)));
  for (size_t i = 0; !sorted && i < m; i++) p[i] = NAN; /* out of memory: claim nothing */
  free(sorted);
}
