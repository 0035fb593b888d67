/* stats.h - estimates with their intervals: small, without allocation policy of its own, tested against hand-computed
 * values. Tests of hypotheses are in stats_tests.h, change points in stats_change.h.
 *
 * An unknown value is NAN; so is everything made of samples of which one is not finite. Intervals are of 95 %. Bootstrap
 * intervals are percentiles of 2,000 resamples, seeded (Efron & Tibshirani 1993, chapter 13). */
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
/** Ratio (both + only_a) / (both + only_b) of two shares of hits on the same examples, with the 95 % Wald interval of its
 *  logarithm for paired data, variance (only_a + only_b) / ((both + only_a)(both + only_b)) (Bonett & Price 2006, Statistics in
 *  Medicine 25); all NAN when either has no hit. */
stats_interval stats_paired_ratio(int64_t both, int64_t only_a, int64_t only_b);
/** Ratio of medians a/b over paired rounds; resamples are of rounds. lo and hi are NAN for n < STATS_LEAST: resamples of so
 *  few rounds know too little of the spread. */
stats_interval stats_ratio_bootstrap(const double *a, const double *b, size_t n, uint64_t seed);

/** Samples of one thing from one or more runs, run after run. */
typedef struct stats_runs {
  const double *x;    /* all samples */
  const size_t *size; /* [runs]: how many belong to each */
  size_t runs;
} stats_runs;
/** Ratio of medians a/b of samples that are not paired: made by different runs. Where a side has several runs, whole runs are
 *  resampled first and then rounds within them, so that what differs from run to run widens the interval. lo and hi are NAN
 *  when a side has fewer than STATS_LEAST samples. */
stats_interval stats_ratio_of_runs(stats_runs a, stats_runs b, uint64_t seed);

/** The same of paired rounds: a and b [sum of size] belong together sample by sample. Fewer than STATS_LEAST samples: no interval. */
stats_interval stats_ratio_of_paired_runs(const double *a, const double *b, const size_t *size, size_t runs, uint64_t seed);
/** Median of all samples of several runs; runs are resampled as wholes, then rounds within them. */
stats_interval stats_median_of_runs(stats_runs r, uint64_t seed);
/** Ratio a/b of the times that work takes when nothing hinders it. Neighbours of a machine only ever add time, and a whole run may fall
 *  among them: the time of a run is the lowest decile of its rounds, the time of a side the lowest decile of its runs' times. Runs are
 *  resampled, rounds are not: their spread is in what runs differ by (Davison & Hinkley 1997, 3.8). What slows less than nine rounds of
 *  ten goes unseen. lo and hi are NAN when a side has fewer than STATS_LEAST runs; all NAN when a run is empty. */
stats_interval stats_unhindered_ratio(stats_runs a, stats_runs b, uint64_t seed);
/** The ratio of choice for times: stats_unhindered_ratio() where both sides have STATS_LEAST runs, else stats_ratio_of_runs(). */
stats_interval stats_ratio_of_times(stats_runs a, stats_runs b, uint64_t seed);
/** The time of a side as that ratio takes it, where `many` (both sides have STATS_LEAST runs): unhindered, else the median of all. */
double stats_time_of_runs(stats_runs r, int many);

/** Mean of n values (F1, ROUGE: scores that are no hits), resampled by items. lo and hi are NAN for n < STATS_LEAST. */
stats_interval stats_mean_bootstrap(const double *x, size_t n, uint64_t seed);
/** Paired bootstrap of two methods on the same n items: mean(a) - mean(b). */
stats_interval stats_difference_bootstrap(const double *a, const double *b, size_t n, uint64_t seed);
/** The same of mean(a) / mean(b), the retention. All NAN when mean(b) = 0; resamples without a hit of b do not count. */
stats_interval stats_retention_bootstrap(const double *a, const double *b, size_t n, uint64_t seed);

/** Does the interval contain this value? A comparison whose interval contains "no difference" is a tie. 0 without interval. */
static inline int stats_contains(stats_interval i, double value) { return i.lo <= value && value <= i.hi; }

#endif
