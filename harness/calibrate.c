/* calibrate.c - see calibrate.h */
#include "harness/calibrate.h"

#include <math.h>
#include <stdlib.h>

const double calibrate_slowdowns[CALIBRATE_SLOWDOWNS] = {0.01, 0.02, 0.05};

enum { SEED = 1 };

static stats_runs one(stats_runs r, size_t i) {
  for (size_t k = 0; k < i; k++) r.x += r.size[k];
  return (stats_runs){r.x, r.size + i, 1};
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double calibrate_floor(stats_runs same, double rate) {
  if (same.runs < 2) return NAN;
  double *beyond = malloc(same.runs * (same.runs - 1) * sizeof *beyond), floor;
  size_t n = 0;
  int known = beyond != NULL;
  for (size_t i = 0; known && i < same.runs; i++)
    for (size_t k = 0; known && k < i; k++) { /* a pair is two comparisons: either run may be the new one */
      const stats_interval ratio = stats_ratio_of_runs(one(same, i), one(same, k), SEED);
      known = isfinite(ratio.lo);
      beyond[n++] = fmax(0.0, ratio.lo - 1.0);
      beyond[n++] = fmax(0.0, 1.0 / ratio.hi - 1.0);
    }
  if (known) qsort(beyond, n, sizeof *beyond, by_value);
  floor = known ? stats_quantile(beyond, n, 1.0 - 0.5 * rate) : (double)NAN;
  free(beyond);
  return floor;
}

double calibrate_power(stats_runs slowed, stats_runs same, double floor) {
  size_t caught = 0;
  for (size_t i = 0; i < slowed.runs; i++)
    for (size_t k = 0; k < same.runs; k++) {
      const stats_interval ratio = stats_ratio_of_runs(one(slowed, i), one(same, k), SEED);
      if (!isfinite(ratio.lo)) return NAN;
      caught += ratio.lo > 1.0 + floor;
    }
  const size_t all = slowed.runs * same.runs;
  return all ? (double)caught / (double)all : (double)NAN;
}
