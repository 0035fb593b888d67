/* stats_change.c - see stats_change.h */
#include "harness/stats_change.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/rng.h"

enum { SHUFFLES = 199 };
static const double LEVEL = 0.05;

/* Sum of the distances of v to x [n]. */
static double distances(const double *x, size_t n, double v) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i++) sum += fabs(x[i] - v);
  return sum;
}

/* The best cut of x [n], which is where the right part begins, and its energy statistic
 * n m / (n + m) (2 mean |left - right| - mean |left - left| - mean |right - right|). The three sums move with the cut. */
static double best_cut(const double *x, size_t n, size_t *cut) {
  double left = 0.0, right = 0.0, across = 0.0, best = -1.0;
  for (size_t i = 0; i < n; i++) right += distances(x, i, x[i]);
  for (size_t k = 0; k + 1 < n; k++) { /* x[k] goes from the right to the left part */
    const double to_left = distances(x, k, x[k]), to_right = distances(x + k + 1, n - k - 1, x[k]);
    right -= to_right;
    left += to_left;
    across += to_right - to_left;
    const size_t a = k + 1, b = n - a;
    if (a < STATS_CHANGE_STRETCH || b < STATS_CHANGE_STRETCH) continue;
    const double p = (double)a, q = (double)b;
    const double between = 2.0 * across / (p * q), within = 2.0 * left / (p * (p - 1.0)) + 2.0 * right / (q * (q - 1.0));
    const double energy = p * q / (p + q) * (between - within);
    if (energy > best) {
      best = energy;
      *cut = a;
    }
  }
  return best;
}

/* Would values in no particular order be separated as well? 1 when hardly ever. */
static int is_change(double *shuffled, size_t n, double energy, attn_rng *r) {
  int as_well = 0;
  for (int i = 0; i < SHUFFLES; i++) {
    for (size_t k = n - 1; k > 0; k--) { /* Fisher-Yates */
      const size_t pick = (size_t)attn_rng_below(r, k + 1);
      const double v = shuffled[k];
      shuffled[k] = shuffled[pick];
      shuffled[pick] = v;
    }
    size_t cut;
    as_well += best_cut(shuffled, n, &cut) >= energy * (1.0 - 1e-12);
  }
  return (double)(1 + as_well) <= LEVEL * (SHUFFLES + 1);
}

/* Change points of x [from, to) into `at`, in order. spare has room for the stretch. */
static size_t search(const double *x, size_t from, size_t to, double *spare, attn_rng *r, size_t *at) {
  const size_t n = to - from;
  size_t cut = 0;
  if (n < 2 * STATS_CHANGE_STRETCH) return 0;
  const double energy = best_cut(x + from, n, &cut);
  if (!(energy > 0.0)) return 0;
  memcpy(spare, x + from, n * sizeof *spare);
  if (!is_change(spare, n, energy, r)) return 0;
  size_t found = search(x, from, from + cut, spare, r, at);
  at[found++] = from + cut;
  return found + search(x, from + cut, to, spare, r, at + found);
}

size_t stats_change_points(const double *x, size_t n, uint64_t seed, size_t *at) {
  for (size_t i = 0; i < n; i++)
    if (!isfinite(x[i])) return 0;
  double *spare = malloc((n + 1) * sizeof *spare);
  attn_rng r;
  attn_rng_seed(&r, seed, n);
  const size_t found = spare ? search(x, 0, n, spare, &r, at) : 0;
  free(spare);
  return found;
}
