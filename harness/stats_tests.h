/* stats_tests.h - is there a difference at all, how large is it, and how small a one could have been seen?
 *
 * Paired hits    McNemar's exact test: of the items on which two methods disagree, do both win alike?
 * Paired marks   (F1, ROUGE: no hits) A sign-flip test: were both methods alike, each difference could as well have had the other sign.
 * Times          Mann-Whitney: do samples of a tend to be larger than those of b? Its effect size is P(a > b).
 * Many at once   Holm's correction: a table of m comparisons at 5 % each would cry wolf in every second table of 14.
 * No difference  says nothing by itself; with it stands what would have been detected.
 *
 * Sources: McNemar 1947; Mann & Whitney 1947; Vargha & Delaney 2000 (effect size A); Holm 1979; Good 2005 (sign
 * flips). */
#ifndef ICE_STATS_TESTS_H
#define ICE_STATS_TESTS_H

#include <stddef.h>
#include <stdint.h>

#include "harness/stats.h"

/** Items on which two methods, judged on the same items, agree and disagree. */
typedef struct stats_pairs {
  int64_t n, only_a, only_b; /* items; hit by a and not by b; by b and not by a */
} stats_pairs;

/** Two-sided exact p of McNemar's test: 2 P(B <= min) for B binomial(only_a + only_b, 1/2), at most 1. 1 when they never
 *  disagree; NAN for counts that are negative. */
double stats_mcnemar(stats_pairs p);
/** Difference of accuracies a - b that a comparison of n items with this share of disagreement shows with power 80 % at the
 *  5 % level: (1.960 + 0.842) sqrt(share / n) (Connor 1987, leading term). A share of less than 1/n counts as 1/n. NAN for n < 1. */
double stats_detectable_difference(stats_pairs p);

/** Two-sided p of the sign-flip test of mean(a) - mean(b) over the same n items: the share of assignments of signs whose mean is as
 *  far from 0 as the one at hand. All assignments for at most STATS_FLIPS differences that are not 0, else 4,999 random ones and
 *  the one at hand. 1 when they never differ; NAN for n = 0 and marks that are not finite. */
enum { STATS_FLIPS = 12 };
double stats_sign_flip(const double *a, const double *b, size_t n, uint64_t seed);

typedef struct stats_rank_test {
  double u;      /* pairs (a, b) with a > b, ties half */
  double effect; /* P(a > b) + P(a = b) / 2: 0.5 is no difference, 1 all of a above all of b */
  double p;      /* two-sided */
  int exact;     /* 1: from the distribution of U; 0: normal approximation with ties and continuity corrected */
} stats_rank_test;
/** Mann-Whitney test of two samples. Exact without ties up to STATS_EXACT values each. All NAN for an empty side or a value
 *  that is not finite. */
enum { STATS_EXACT = 50 };
stats_rank_test stats_mann_whitney(const double *a, size_t na, const double *b, size_t nb);

/** Turns m p-values into Holm's adjusted ones, in place: rejecting those below 5 % errs in at most 5 % of tables. NANs stay
 *  and do not count. */
void stats_holm(double *p, size_t m);

/** The factor 1 + x by which something must have grown for a gate at 1 + gate to catch it with power 80 %, judged by the
 *  interval of the ratio at hand: (1 + gate) exp((1.960 + 0.842) s) with s = log(hi / lo) / 3.920. NAN without interval. */
double stats_detectable_ratio(stats_interval ratio, double gate);

#endif
