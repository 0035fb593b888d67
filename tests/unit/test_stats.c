/* test_stats.c - statistics against values worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness/stats.h"

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
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
