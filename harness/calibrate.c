/* calibrate.c - see calibrate.h */
#include "harness/calibrate.h"

#include <math.h>
#include <stdlib.h>

const double calibrate_slowdowns[CALIBRATE_SLOWDOWNS] = {0.01, 0.02, 0.05};

enum { SEED = 1 };

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double calibrate_floor(const stats_runs *same, size_t n, double rate) {
  if (n < 2) return NAN;
  double *beyond = malloc(n * (n - 1) * sizeof *beyond), floor;
  size_t all = 0;
  int known = beyond != NULL;
  for (size_t i = 0; known && i < n; i++)
    for (size_t k = 0; known && k < i; k++) { /* a pair is two comparisons: either run may be the new one */
      const stats_interval ratio = stats_ratio_of_times(same[i], same[k], SEED);
      known = isfinite(ratio.lo);
      beyond[all++] = fmax(0.0, ratio.lo - 1.0);
      beyond[all++] = fmax(0.0, 1.0 / ratio.hi - 1.0);
    }
  if (known) qsort(beyond, all, sizeof *beyond, by_value);
  floor = known ? stats_quantile(beyond, all, 1.0 - 0.5 * rate) : (double)NAN;
  free(beyond);
  return floor;
}

double calibrate_power(const stats_runs *slowed, size_t n_slowed, const stats_runs *same, size_t n_same, double floor) {
  size_t caught = 0;
  for (size_t i = 0; i < n_slowed; i++)
    for (size_t k = 0; k < n_same; k++) {
      const stats_interval ratio = stats_ratio_of_times(slowed[i], same[k], SEED);
      if (!isfinite(ratio.lo)) return NAN;
      caught += ratio.lo > 1.0 + floor;
    }
  const size_t all = n_slowed * n_same;
  return all ? (double)caught / (double)all : (double)NAN;
}
