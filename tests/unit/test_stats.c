/* test_stats.c - statistics against values worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness/stats.h"
#include "harness/stats_change.h"
#include "harness/stats_tests.h"
#include "kernels/core/rng.h"

static void near(double a, double b, double tolerance) {
  if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g is not %.17g within %g", a, b, tolerance);
}

static void test_median__small_samples__by_hand(void **state) {
  (void)state;
  double one[] = {7}, two[] = {9, 1}, odd[] = {5, 1, 3}, even[] = {4, 1, 3, 2};
  assert_true(isnan(stats_median(NULL, 0)));
  near(stats_median(one, 1), 7, 0);
  near(stats_median(two, 2), 5, 0);
  near(stats_median(odd, 3), 3, 0);
  near(stats_median(even, 4), 2.5, 0);
}

static void test_quantile__type_7__by_hand(void **state) {
  (void)state;
  const double x[] = {10, 20, 30, 40};
  near(stats_quantile(x, 4, 0.0), 10, 0);
  near(stats_quantile(x, 4, 1.0), 40, 0);
  near(stats_quantile(x, 4, 0.25), 17.5, 1e-12); /* place 0.75 of 3 gaps */
  near(stats_quantile(x, 4, 0.5), 25, 1e-12);
  near(stats_quantile(x, 1, 0.9), 10, 0);
  assert_true(isnan(stats_quantile(x, 0, 0.5)));
}

static void test_median_interval__ranks__of_the_binomial(void **state) {
  (void)state;
  double five[] = {3, 1, 2, 5, 4}, six[] = {6, 5, 4, 3, 2, 1}, nine[] = {9, 8, 7, 6, 5, 4, 3, 2, 1}, many[25];
  stats_interval r = stats_median_interval(five, 5); /* their whole range: 1 - 2/32 = 93.8 % */
  near(r.value, 3, 0);
  assert_true(isnan(r.lo) && isnan(r.hi));
  r = stats_median_interval(six, 6); /* ranks 1 and 6: 1 - 2/64 = 96.9 % */
  near(r.value, 3.5, 0), near(r.lo, 1, 0), near(r.hi, 6, 0);
  r = stats_median_interval(nine, 9); /* ranks 2 and 8: 1 - 2*10/512 = 96.1 % */
  near(r.value, 5, 0), near(r.lo, 2, 0), near(r.hi, 8, 0);
  for (int i = 0; i < 14; i++) many[i] = i + 1;
  r = stats_median_interval(many, 14); /* ranks 4 and 11 would cover 94.3 % only: ranks 3 and 12, 98.7 % */
  near(r.value, 7.5, 0), near(r.lo, 3, 0), near(r.hi, 12, 0);
  for (int i = 0; i < 25; i++) many[i] = 25 - i;
  r = stats_median_interval(many, 25); /* tabulated: ranks 8 and 18 */
  near(r.value, 13, 0), near(r.lo, 8, 0), near(r.hi, 18, 0);
  assert_true(isnan(stats_median_interval(NULL, 0).value));
}

static void test_median_interval__thousands__near_the_normal_ranks(void **state) {
  (void)state;
  static double x[2000];
  for (int i = 0; i < 2000; i++) x[i] = i + 1;
  stats_interval r = stats_median_interval(x, 2000);
  near(r.value, 1000.5, 0), near(r.lo, 956, 2), near(r.hi, 1045, 2); /* 1000 -+ 0.98 * sqrt(2000) */
}

static void test_wilson__known_values__agree(void **state) {
  (void)state;
  stats_interval r = stats_wilson(5, 10); /* Wilson 1927: 0.2366, 0.7634 */
  near(r.value, 0.5, 0), near(r.lo, 0.23659, 5e-5), near(r.hi, 0.76341, 5e-5);
  r = stats_wilson(0, 10);
  near(r.lo, 0, 0), near(r.hi, 0.27753, 5e-5);
  r = stats_wilson(10, 10);
  near(r.lo, 0.72247, 5e-5), near(r.hi, 1, 0);
  r = stats_wilson(1, 1);
  near(r.value, 1, 0), near(r.lo, 0.20654, 5e-5);
  assert_true(isnan(stats_wilson(0, 0).value));
}

static void test_bootstrap__constant_ratio__interval_is_a_point(void **state) {
  (void)state;
  const double a[] = {4, 8, 6, 10, 2, 12}, b[] = {2, 4, 3, 5, 1, 6};
  stats_interval r = stats_ratio_bootstrap(a, b, 6, 1);
  near(r.value, 2, 1e-12), near(r.lo, 2, 1e-12), near(r.hi, 2, 1e-12);
}

static void test_bootstrap__few_rounds__ratio_without_interval(void **state) {
  (void)state;
  const double a[] = {4, 8, 6, 10, 2}, b[] = {2, 4, 3, 5, 1};
  for (size_t n = 1; n <= 5; n++) {
    const stats_interval r = stats_ratio_bootstrap(a, b, n, 1);
    near(r.value, 2, 1e-12);
    assert_true(isnan(r.lo) && isnan(r.hi));
  }
}

/* The level: of the interval of 95 %, the ends are the 2.5 % and 97.5 % quantiles of the resampled ratios. With b constant
 * and a = 1..n these are quantiles of the median of n draws from 1..n, whose distribution is known: median <= m when at
 * least 5 of 9 draws are. */
static void test_bootstrap__level__is_95_percent(void **state) {
  (void)state;
  double a[9], b[9];
  for (int i = 0; i < 9; i++) a[i] = i + 1, b[i] = 1;
  double expected[2] = {0, 0};
  for (int m = 1; m <= 9; m++) { /* P(median <= m), by the binomial */
    const double p = m / 9.0;
    double at_most = 0;
    for (int k = 5; k <= 9; k++) at_most += exp(lgamma(10) - lgamma(k + 1.0) - lgamma(10.0 - k)) * pow(p, k) * pow(1 - p, 9 - k);
    if (expected[0] == 0 && at_most > 0.025) expected[0] = m;
    if (expected[1] == 0 && at_most > 0.975) expected[1] = m;
  }
  const stats_interval r = stats_ratio_bootstrap(a, b, 9, 3);
  near(r.lo, expected[0], 0), near(r.hi, expected[1], 0);
}

static void test_bootstrap__noise__covers_the_ratio_and_repeats(void **state) {
  (void)state;
  const double a[] = {30, 31, 29, 35, 30, 30, 28, 33, 30}, b[] = {10, 10, 11, 10, 9, 10, 10, 12, 10};
  stats_interval r = stats_ratio_bootstrap(a, b, 9, 7), again = stats_ratio_bootstrap(a, b, 9, 7);
  near(r.value, 3, 1e-12);
  assert_true(r.lo <= 3 && 3 <= r.hi && r.lo < r.hi && r.lo > 2.5 && r.hi < 3.6);
  near(again.lo, r.lo, 0), near(again.hi, r.hi, 0);
  assert_true(isnan(stats_ratio_bootstrap(a, b, 0, 7).value));
}

/* ---- Bootstraps of unpaired runs, of means, of pairs of items. */

static void test_ratio_of_runs__constant__interval_is_a_point(void **state) {
  (void)state;
  const double a[] = {6, 6, 6, 6, 6, 6}, b[] = {2, 2, 2, 2, 2, 2, 2, 2};
  const size_t na[] = {6}, nb[] = {3, 5};
  const stats_interval r = stats_ratio_of_runs((stats_runs){a, na, 1}, (stats_runs){b, nb, 2}, 1);
  near(r.value, 3, 0), near(r.lo, 3, 0), near(r.hi, 3, 0);
}

/* Two runs at 10 and 12: rounds agree within a run, runs do not. A bootstrap of rounds alone would take the median for
 * certain; with probability 1/4 each, both drawn runs are the first, or both the second. */
static void test_ratio_of_runs__runs_differ__interval_covers_them(void **state) {
  (void)state;
  const double a[] = {10, 10, 10, 10, 12, 12, 12, 12}, b[] = {1, 1, 1, 1, 1, 1};
  const size_t na[] = {4, 4}, nb[] = {6};
  const stats_interval r = stats_ratio_of_runs((stats_runs){a, na, 2}, (stats_runs){b, nb, 1}, 5);
  near(r.value, 11, 0), near(r.lo, 10, 0), near(r.hi, 12, 0);
}

static void test_ratio_of_runs__few_samples__no_interval(void **state) {
  (void)state;
  const double a[] = {4, 4, 4, 4, 4}, b[] = {2, 2, 2, 2, 2, 2};
  const size_t five[] = {5}, six[] = {6};
  const stats_interval r = stats_ratio_of_runs((stats_runs){a, five, 1}, (stats_runs){b, six, 1}, 1);
  near(r.value, 2, 0);
  assert_true(isnan(r.lo) && isnan(r.hi));
  assert_true(isnan(stats_ratio_of_runs((stats_runs){a, five, 0}, (stats_runs){b, six, 1}, 1).value));
}

/* Uneven runs are drawn with replacement: a drawn set may be larger than the samples there are (both draws are the long run). */
static void test_ratio_of_runs__uneven_runs__stay_inside_the_range(void **state) {
  (void)state;
  const double a[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 5}, b[] = {1, 1, 1, 1, 1, 1};
  const size_t na[] = {1, 9}, nb[] = {6};
  const stats_interval r = stats_ratio_of_runs((stats_runs){a, na, 2}, (stats_runs){b, nb, 1}, 2);
  assert_true(r.lo >= 1 && r.lo < 5 && r.hi > 5 && r.hi <= 9);
}

/* Six runs of two rounds: their lowest deciles are the lower round + 0.1 of the way to the other: 10.1, 20.1, ..., 60.1. The lowest decile
 * of those six lies half way from the first to the second: 15.1. */
static void test_unhindered_ratio__six_runs__by_hand(void **state) {
  (void)state;
  const double a[] = {11, 10, 20, 21, 31, 30, 40, 41, 50, 51, 61, 60}, b[] = {2, 2, 2, 2, 2, 2};
  const size_t two[] = {2, 2, 2, 2, 2, 2}, one[] = {1, 1, 1, 1, 1, 1};
  const stats_runs above = {a, two, 6}, below = {b, one, 6};
  const stats_interval r = stats_unhindered_ratio(above, below, 1);
  near(r.value, 15.1 / 2, 1e-12);
  /* P(all six drawn are of the upper five, four, three): 0.33, 0.088, 0.016. So the 97.5 % quantile has its lowest draw at the third run. */
  assert_true(r.lo >= 10.1 / 2 - 1e-9 && r.lo < 15.1 / 2 && r.hi > 30 / 2.0 && r.hi <= 40.1 / 2 + 1e-9);
  near(stats_time_of_runs(above, 1), 15.1, 1e-12);
  near(stats_time_of_runs(above, 0), 35.5, 1e-12);
  near(stats_ratio_of_times(above, below, 1).value, r.value, 0);
}

/* Five runs on a side are too few for it: the ratio of medians. */
static void test_ratio_of_times__few_runs__is_that_of_medians(void **state) {
  (void)state;
  const double a[] = {10, 11, 20, 21, 30, 31, 40, 41, 50, 51}, b[] = {2, 2, 2, 2, 2, 2};
  const size_t two[] = {2, 2, 2, 2, 2}, one[] = {1, 1, 1, 1, 1, 1};
  const stats_runs above = {a, two, 5}, below = {b, one, 6};
  near(stats_ratio_of_times(above, below, 1).value, 30.5 / 2, 0);
  const stats_interval few = stats_unhindered_ratio(above, below, 1);
  assert_true(isfinite(few.value) && isnan(few.lo) && isnan(few.hi));
}

/* Ten runs, of which five are slower by 10 to 50 % on one side only: nothing has changed. A median would say 5 %. */
static void test_unhindered_ratio__half_of_the_runs_hindered__does_not_move(void **state) {
  (void)state;
  double a[60], b[60];
  size_t size[10];
  for (int i = 0; i < 60; i++) a[i] = b[i] = 100 + (i * 7) % 6 * 0.1;
  for (int i = 0; i < 10; i++) size[i] = 6;
  for (int i = 0; i < 30; i++) a[i] *= 1.1 + 0.1 * (i / 6);
  const stats_interval r = stats_unhindered_ratio((stats_runs){a, size, 10}, (stats_runs){b, size, 10}, 3);
  near(r.value, 1, 1e-3);
  near(r.lo, 1, 1e-3);
  assert_true(stats_ratio_of_runs((stats_runs){a, size, 10}, (stats_runs){b, size, 10}, 3).value > 1.04);
}

static void test_unhindered_ratio__empty_run_or_nan__is_unknown(void **state) {
  (void)state;
  double a[] = {1, 1, 1, 1, 1, 1};
  const size_t one[] = {1, 1, 1, 1, 1, 1}, hole[] = {2, 0, 1, 1, 1, 1};
  assert_true(isnan(stats_unhindered_ratio((stats_runs){a, hole, 6}, (stats_runs){a, one, 6}, 1).value));
  assert_true(isnan(stats_unhindered_ratio((stats_runs){a, one, 0}, (stats_runs){a, one, 6}, 1).value));
  assert_true(isnan(stats_time_of_runs((stats_runs){a, one, 0}, 1)) && isnan(stats_time_of_runs((stats_runs){a, hole, 6}, 1)));
  a[2] = NAN;
  assert_true(isnan(stats_unhindered_ratio((stats_runs){a, one, 6}, (stats_runs){a, one, 6}, 1).value));
}

/* Pairs whose ratio is 2 in every round, while runs differ by a factor of 10: the ratio is certain, the median is not. */
static void test_paired_runs__runs_differ_alike__ratio_is_a_point(void **state) {
  (void)state;
  const double a[] = {20, 20, 20, 20, 200, 200, 200, 200}, b[] = {10, 10, 10, 10, 100, 100, 100, 100};
  const size_t size[] = {4, 4};
  const stats_interval ratio = stats_ratio_of_paired_runs(a, b, size, 2, 1), median = stats_median_of_runs((stats_runs){b, size, 2}, 1);
  near(ratio.value, 2, 0), near(ratio.lo, 2, 0), near(ratio.hi, 2, 0);
  near(median.value, 55, 0), near(median.lo, 10, 0), near(median.hi, 100, 0);
  assert_true(isnan(stats_median_of_runs((stats_runs){b, size, 1}, 1).lo) && isnan(stats_ratio_of_paired_runs(a, b, size, 0, 1).value));
}

/* The mean of n draws of 0 or 1 is a binomial: its 2.5 % and 97.5 % quantiles are known. n = 20, p = 1/2: 6 and 14. */
static void test_mean_bootstrap__hits__quantiles_of_the_binomial(void **state) {
  (void)state;
  double x[20];
  for (int i = 0; i < 20; i++) x[i] = i % 2;
  const stats_interval r = stats_mean_bootstrap(x, 20, 11);
  near(r.value, 0.5, 1e-15), near(r.lo, 6 / 20.0, 1e-12), near(r.hi, 14 / 20.0, 1e-12);
  assert_true(isnan(stats_mean_bootstrap(x, 5, 1).lo) && isnan(stats_mean_bootstrap(x, 0, 1).value));
}

/* Of 20 items a and b disagree on 10, all won by a: the difference is (number of those drawn) / 20, the binomial again. What they
 * agree on adds nothing: pairs are kept. */
static void test_difference_bootstrap__paired__only_disagreement_counts(void **state) {
  (void)state;
  double a[20], b[20];
  for (int i = 0; i < 20; i++) a[i] = i < 15, b[i] = i >= 10 && i < 15; /* 0-9 a alone, 10-14 both, 15-19 none */
  const stats_interval r = stats_difference_bootstrap(a, b, 20, 13);
  near(r.value, 0.5, 1e-15), near(r.lo, 6 / 20.0, 1e-12), near(r.hi, 14 / 20.0, 1e-12);
  const stats_interval same = stats_difference_bootstrap(a, a, 20, 13);
  near(same.value, 0, 0), near(same.lo, 0, 0), near(same.hi, 0, 0);
}

static void test_retention_bootstrap__same_items__is_one_and_zero_base_unknown(void **state) {
  (void)state;
  double a[8] = {1, 0, 1, 0, 1, 1, 0, 0}, half[8] = {1, 0, 1, 0, 0, 0, 0, 0}, none[8] = {0};
  const stats_interval one = stats_retention_bootstrap(a, a, 8, 1);
  near(one.value, 1, 0), near(one.lo, 1, 0), near(one.hi, 1, 0);
  const stats_interval r = stats_retention_bootstrap(half, a, 8, 1);
  near(r.value, 0.5, 0);
  assert_true(r.lo >= 0 && r.lo < 0.5 && r.hi > 0.5 && r.hi <= 1);
  assert_true(isnan(stats_retention_bootstrap(a, none, 8, 1).value));
}

static void test_paired_ratio__counts__by_hand(void **state) {
  (void)state;
  const stats_interval r = stats_paired_ratio(80, 10, 5), swapped = stats_paired_ratio(80, 5, 10); /* 90 and 85 hits */
  near(r.value, 90.0 / 85, 1e-15);
  near(r.lo, 0.97080442, 1e-8); /* 90 / 85 exp(-1.959964 sqrt(15 / (90 85))) */
  near(r.hi, 1.15482299, 1e-8);
  near(swapped.lo, 1 / r.hi, 1e-15);
  near(swapped.hi, 1 / r.lo, 1e-15);
  near(stats_paired_ratio(7, 0, 0).hi, 1, 0);
  assert_true(isnan(stats_paired_ratio(0, 0, 5).value) && isnan(stats_paired_ratio(0, 5, 0).lo));
}

static void test_all__a_nan_among_samples__is_unknown_not_a_number(void **state) {
  (void)state;
  double x[] = {1, 2, NAN, 4, 5, 6, 7}, y[] = {1, 2, 3, 4, 5, 6, INFINITY};
  const double good[] = {1, 2, 3, 4, 5, 6, 7};
  const size_t n[] = {7};
  assert_true(isnan(stats_median_interval(x, 7).value) && isnan(stats_median_interval(y, 7).hi));
  assert_true(isnan(stats_ratio_bootstrap(x, good, 7, 1).value) && isnan(stats_ratio_bootstrap(good, y, 7, 1).value));
  assert_true(isnan(stats_mean_bootstrap(x, 7, 1).value) && isnan(stats_difference_bootstrap(good, x, 7, 1).value));
  assert_true(isnan(stats_ratio_of_runs((stats_runs){good, n, 1}, (stats_runs){y, n, 1}, 1).value));
  assert_true(isnan(stats_mann_whitney(x, 7, good, 7).p) && isnan(stats_mann_whitney(good, 7, y, 7).effect));
  size_t at[7];
  assert_int_equal(stats_change_points(y, 7, 1, at), 0);
}

/* ---- Tests of hypotheses. */

static void test_mcnemar__counts__by_hand(void **state) {
  (void)state;
  near(stats_mcnemar((stats_pairs){100, 0, 0}), 1, 0);
  near(stats_mcnemar((stats_pairs){100, 5, 5}), 1, 0);
  near(stats_mcnemar((stats_pairs){100, 0, 6}), 2.0 / 64, 1e-15);
  near(stats_mcnemar((stats_pairs){100, 6, 0}), 2.0 / 64, 1e-15);
  near(stats_mcnemar((stats_pairs){100, 2, 8}), 2.0 * (1 + 10 + 45) / 1024, 1e-13); /* R: binom.test(2, 10): 0.1094 */
  near(stats_mcnemar((stats_pairs){1000, 10, 25}), 286454524 / 0x1p34, 1e-13); /* sum of choose(35, 0..10) over 2^34 */
  const double large = stats_mcnemar((stats_pairs){100000, 2000, 2200}); /* 2^-4200 underflows; by exact fractions */
  near(large, 0.0021323557, 1e-9);
  assert_true(isnan(stats_mcnemar((stats_pairs){10, -1, 2})));
}

static void test_sign_flip__marks__by_hand(void **state) {
  (void)state;
  const double zero[40] = {0}, a[3] = {0.5, 0.25, 0.125}, b[4] = {0.3, -0.3, 0.3, 0.3}, c[4] = {4, 1, 1, -1};
  near(stats_sign_flip(a, zero, 3, 1), 2.0 / 8, 0);  /* all of one sign: +++ and --- of 8 */
  near(stats_sign_flip(zero, a, 3, 1), 2.0 / 8, 0);
  near(stats_sign_flip(b, zero, 4, 1), 10.0 / 16, 0); /* +-0.6: 4 + 4 of 16, +-1.2: 1 + 1 */
  near(stats_sign_flip(c, zero, 4, 1), 8.0 / 16, 0); /* +-7: 2 of 16, +-5: 6 */
  near(stats_sign_flip(zero, zero, 40, 1), 1, 0);
  assert_true(isnan(stats_sign_flip(a, zero, 0, 1)));
  const double bad[2] = {NAN, 1};
  assert_true(isnan(stats_sign_flip(bad, zero, 2, 1)));
}

/* On marks that are hits the test is McNemar's but for the randomness of its flips. */
static void test_sign_flip__hits__as_mcnemar(void **state) {
  (void)state;
  double a[60] = {0}, b[60] = {0};
  for (int i = 0; i < 18; i++) a[i] = 1;
  for (int i = 18; i < 26; i++) b[i] = 1;
  const double exact = stats_mcnemar((stats_pairs){60, 18, 8}); /* 0.0755 */
  near(stats_sign_flip(a, b, 60, 1), exact, 4 * sqrt(exact * (1 - exact) / 4999));
  near(stats_sign_flip(a, b, 60, 1), stats_sign_flip(b, a, 60, 1), 0);
  double ones[60];
  const double none[60] = {0};
  for (int i = 0; i < 60; i++) ones[i] = 1;
  near(stats_sign_flip(ones, none, 60, 1), 1.0 / 5000, 0); /* no random assignment is as extreme: what was seen counts as one, p is never 0 */
}

static void test_detectable__difference_and_ratio__by_hand(void **state) {
  (void)state;
  near(stats_detectable_difference((stats_pairs){2000, 15, 25}), 2.8015852 * sqrt(0.02 / 2000), 1e-8); /* 0.886 points */
  near(stats_detectable_difference((stats_pairs){2000, 0, 0}), 2.8015852 / 2000, 1e-9);
  assert_true(isnan(stats_detectable_difference((stats_pairs){0, 0, 0})));
  near(stats_detectable_ratio((stats_interval){1, 1, 1}, 0.02), 1.02, 1e-12);
  near(stats_detectable_ratio((stats_interval){1, exp(-0.0392), exp(0.0392)}, 0), exp(2.8015852 * 0.02), 1e-5);
  assert_true(isnan(stats_detectable_ratio((stats_interval){1, NAN, NAN}, 0.02)));
}

static void test_mann_whitney__small_samples__by_hand(void **state) {
  (void)state;
  const double low[] = {1.1, 2.2, 3.3, 4.4}, high[] = {5.5, 6.6, 7.7}, mixed[] = {2, 3, 5};
  stats_rank_test r = stats_mann_whitney(low, 4, high, 3); /* one of choose(7, 3) = 35 orders, both sides */
  near(r.u, 0, 0), near(r.effect, 0, 0), near(r.p, 2.0 / 35, 1e-14);
  assert_true(r.exact);
  r = stats_mann_whitney(high, 3, low, 4);
  near(r.u, 12, 0), near(r.effect, 1, 0), near(r.p, 2.0 / 35, 1e-14);
  r = stats_mann_whitney(mixed, 3, low, 4); /* 2 > 1.1; 3 > 1.1, 2.2; 5 > all: U = 7; P(U <= 5) = (1+1+2+3+4+4)/35, doubled */
  near(r.u, 7, 0), near(r.effect, 7.0 / 12, 1e-15), near(r.p, 30.0 / 35, 1e-14);
  const double one[] = {1}, two[] = {2};
  near(stats_mann_whitney(one, 1, two, 1).p, 1, 0);
  assert_true(isnan(stats_mann_whitney(one, 0, two, 1).p));
}

/* Ties: ranks 1, 2.5, 2.5 | 4, 5.5, 5.5 of a = {1, 2, 4}, b = {2, 3, 4}: U = 9 - 6 = 3 (1 < all; 2 ties 2; 4 > 2, 3, ties 4).
 * Variance 9/12 (7 - (6 + 6)/30) = 4.95; |3 - 4.5| - 0.5 = 1; p = erfc(1 / sqrt(9.9)). */
static void test_mann_whitney__ties__normal_with_correction(void **state) {
  (void)state;
  const double a[] = {1, 2, 4}, b[] = {2, 3, 4}, same[] = {7, 7, 7, 7, 7, 7};
  stats_rank_test r = stats_mann_whitney(a, 3, b, 3);
  near(r.u, 3, 0), near(r.effect, 1.0 / 3, 1e-15), near(r.p, erfc(1.0 / sqrt(9.9)), 1e-14);
  assert_false(r.exact);
  r = stats_mann_whitney(same, 3, same, 3);
  near(r.effect, 0.5, 0), near(r.p, 1, 0);
}

static void test_mann_whitney__fifty_each__exact_agrees_with_normal(void **state) {
  (void)state;
  double a[50], b[50];
  for (int i = 0; i < 50; i++) a[i] = i * 2.0, b[i] = i * 2.0 - 12.5;
  const stats_rank_test r = stats_mann_whitney(a, 50, b, 50);
  const double z = (fabs(r.u - 1250) - 0.5) / sqrt(2500.0 * 101 / 12);
  assert_true(r.exact);
  near(r.p, erfc(z / sqrt(2)), 1e-3);
}

static void test_holm__table__by_hand(void **state) {
  (void)state;
  double p[] = {0.01, NAN, 0.04, 0.03, 0.005}; /* sorted .005 .01 .03 .04: times 4, 3, 2, 1, never falling */
  stats_holm(p, 5);
  near(p[4], 0.02, 1e-15), near(p[0], 0.03, 1e-15), near(p[3], 0.06, 1e-15), near(p[2], 0.06, 1e-15);
  assert_true(isnan(p[1]));
  double large[] = {0.5, 0.9};
  stats_holm(large, 2);
  near(large[0], 1, 0), near(large[1], 1, 0);
  stats_holm(NULL, 0);
}

/* ---- Change points. */

/* Noise without change, in [-1/2, 1/2]. */
static void noise(double *x, int n, uint64_t seed) {
  for (int i = 0; i < n; i++) x[i] = (double)(attn_hash(seed, (uint64_t)i, 0) >> 11) * 0x1p-53 - 0.5;
}

static void test_change_points__planted_steps__found_where_they_are(void **state) {
  (void)state;
  double x[60];
  size_t at[60];
  noise(x, 60, 1);
  for (int i = 0; i < 60; i++) x[i] += i < 20 ? 0 : i < 35 ? 3 : 1.5;
  assert_int_equal(stats_change_points(x, 60, 7, at), 2);
  assert_int_equal(at[0], 20);
  assert_int_equal(at[1], 35);
}

/* Near an end of the series, too: distances within the parts must count, or every cut is drawn to the middle. */
static void test_change_points__early_step__found_where_it_is(void **state) {
  (void)state;
  double x[40];
  size_t at[40];
  int found = 0;
  for (uint64_t s = 0; s < 20; s++) {
    noise(x, 40, 2000 + s);
    for (int i = 0; i < 6; i++) x[i] += 1.1;
    found += stats_change_points(x, 40, 7, at) == 1 && at[0] == 6;
  }
  assert_in_range(found, 15, 20);
}
static void test_change_points__outliers__are_no_steps(void **state) {
  (void)state;
  double x[40];
  size_t at[40];
  noise(x, 40, 3);
  x[9] = 8, x[30] = 12;
  assert_int_equal(stats_change_points(x, 40, 7, at), 0);
}

static void test_change_points__no_change__false_alarms_at_the_stated_rate(void **state) {
  (void)state;
  int alarms = 0;
  for (uint64_t s = 0; s < 200; s++) {
    double x[24];
    size_t at[24];
    noise(x, 24, 1000 + s);
    alarms += stats_change_points(x, 24, s, at) > 0;
  }
  assert_in_range(alarms, 2, 18); /* 10 expected; P(> 18) of a binomial(200, 5 %) is 0.6 % */
}

static void test_change_points__short_or_constant__none(void **state) {
  (void)state;
  const double x[] = {1, 1, 9, 9, 9}, flat[] = {4, 4, 4, 4, 4, 4, 4, 4};
  size_t at[8];
  assert_int_equal(stats_change_points(x, 5, 1, at), 0);
  assert_int_equal(stats_change_points(flat, 8, 1, at), 0);
  assert_int_equal(stats_change_points(flat, 0, 1, at), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_median__small_samples__by_hand),
      cmocka_unit_test(test_quantile__type_7__by_hand),
      cmocka_unit_test(test_median_interval__ranks__of_the_binomial),
      cmocka_unit_test(test_median_interval__thousands__near_the_normal_ranks),
      cmocka_unit_test(test_wilson__known_values__agree),
      cmocka_unit_test(test_bootstrap__constant_ratio__interval_is_a_point),
      cmocka_unit_test(test_bootstrap__few_rounds__ratio_without_interval),
      cmocka_unit_test(test_bootstrap__level__is_95_percent),
      cmocka_unit_test(test_bootstrap__noise__covers_the_ratio_and_repeats),
      cmocka_unit_test(test_ratio_of_runs__constant__interval_is_a_point),
      cmocka_unit_test(test_ratio_of_runs__runs_differ__interval_covers_them),
      cmocka_unit_test(test_ratio_of_runs__few_samples__no_interval),
      cmocka_unit_test(test_ratio_of_runs__uneven_runs__stay_inside_the_range),
      cmocka_unit_test(test_unhindered_ratio__six_runs__by_hand),
      cmocka_unit_test(test_ratio_of_times__few_runs__is_that_of_medians),
      cmocka_unit_test(test_unhindered_ratio__half_of_the_runs_hindered__does_not_move),
      cmocka_unit_test(test_unhindered_ratio__empty_run_or_nan__is_unknown),
      cmocka_unit_test(test_paired_runs__runs_differ_alike__ratio_is_a_point),
      cmocka_unit_test(test_mean_bootstrap__hits__quantiles_of_the_binomial),
      cmocka_unit_test(test_difference_bootstrap__paired__only_disagreement_counts),
      cmocka_unit_test(test_retention_bootstrap__same_items__is_one_and_zero_base_unknown),
      cmocka_unit_test(test_paired_ratio__counts__by_hand),
      cmocka_unit_test(test_all__a_nan_among_samples__is_unknown_not_a_number),
      cmocka_unit_test(test_mcnemar__counts__by_hand),
      cmocka_unit_test(test_sign_flip__marks__by_hand),
      cmocka_unit_test(test_sign_flip__hits__as_mcnemar),
      cmocka_unit_test(test_detectable__difference_and_ratio__by_hand),
      cmocka_unit_test(test_mann_whitney__small_samples__by_hand),
      cmocka_unit_test(test_mann_whitney__ties__normal_with_correction),
      cmocka_unit_test(test_mann_whitney__fifty_each__exact_agrees_with_normal),
      cmocka_unit_test(test_holm__table__by_hand),
      cmocka_unit_test(test_change_points__planted_steps__found_where_they_are),
      cmocka_unit_test(test_change_points__early_step__found_where_it_is),
      cmocka_unit_test(test_change_points__outliers__are_no_steps),
      cmocka_unit_test(test_change_points__no_change__false_alarms_at_the_stated_rate),
      cmocka_unit_test(test_change_points__short_or_constant__none),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
