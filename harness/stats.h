/* stats.h - the statistics of results: small, without allocation policy of its own, tested against hand-computed values.
 * An unknown value is NAN. */
#ifndef ICE_STATS_H
#define ICE_STATS_H

#include <stddef.h>
#include <stdint.h>

typedef struct stats_interval {
  double value, lo, hi;
} stats_interval;

/** Median of n values (mean of the middle two); NAN for n = 0. x is sorted in place. */
double stats_median(double *x, size_t n);
/** Quantile q in [0,1] by linear interpolation (type 7); NAN for n = 0. x must be sorted. */
double stats_quantile(const double *x, size_t n, double q);
enum { STATS_LEAST = 6 }; /* values that an interval of 95 % takes: of 5, not even the whole range covers the median so often */
/** Median with a distribution-free 95 % interval from order statistics; lo and hi are NAN for n < STATS_LEAST. x is sorted
 *  in place. */
stats_interval stats_median_interval(double *x, size_t n);
/** Wilson 95 % interval of hits/n; all NAN for n = 0. */
stats_interval stats_wilson(int64_t hits, int64_t n);
/** Ratio of medians a/b over paired rounds with a 95 % percentile bootstrap interval (2,000 resamples of rounds, seeded);
 *  lo and hi are NAN for n < STATS_LEAST: resamples of so few rounds know too little of the spread. */
stats_interval stats_ratio_bootstrap(const double *a, const double *b, size_t n, uint64_t seed);

#endif
