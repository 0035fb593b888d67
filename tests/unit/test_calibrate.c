/* test_calibrate.c - floor and power on runs that are made up. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness/calibrate.h"
#include "kernels/core/rng.h"

enum { RUNS = 20, ROUNDS = 15 };
static double x[RUNS * ROUNDS];
static size_t size[RUNS];

/* Runs that differ by `between`, rounds by `within` (standard deviations, relative), all slowed by a factor. */
static stats_runs make(double *to, uint64_t seed, double between, double within, double factor) {
  attn_rng r;
  attn_rng_seed(&r, seed, 1);
  for (int i = 0; i < RUNS; i++) {
    const double run = factor * exp(between * attn_rng_normal(&r));
    size[i] = ROUNDS;
    for (int k = 0; k < ROUNDS; k++) to[i * ROUNDS + k] = 1e6 * run * exp(within * attn_rng_normal(&r));
  }
  return (stats_runs){to, size, RUNS};
}

static void test_floor__runs_that_agree__is_zero_and_everything_is_caught(void **state) {
  (void)state;
  static double slow[RUNS * ROUNDS];
  const stats_runs same = make(x, 1, 0, 0, 1), slowed = make(slow, 2, 0, 0, 1.01);
  assert_true(calibrate_floor(same, 0.05) < 1e-9);
  assert_true(calibrate_power(slowed, same, 0.0) == 1.0);
  assert_true(calibrate_power(slowed, same, 0.02) == 0.0);
  assert_true(calibrate_power(same, same, 0.0) == 0.0);
}

/* Two levels, 0 and 10 % higher, that rounds within a run do not show: every comparison across them exceeds any gate below 10 %. Of the
 * 190 pairs 100 are across, one of the two comparisons of each is beyond: 26 %. */
static void test_floor__two_levels__lies_between_them(void **state) {
  (void)state;
  stats_runs same = make(x, 1, 0, 0, 1);
  for (int i = 0; i < RUNS / 2 * ROUNDS; i++) x[i] *= 1.1;
  const double low = calibrate_floor(same, 0.05);
  assert_true(fabs(low - 0.1) < 1e-4);
  assert_true(calibrate_floor(same, 0.5) == low); /* quantile 0.75: beyond; 26 % do */
  assert_true(calibrate_floor(same, 0.54) < 1e-4); /* quantile 0.73 */
}

/* The floor that one set of runs gives holds for others of the same machine. */
static void test_floor__new_runs_of_the_same_kind__alarms_within_the_rate(void **state) {
  (void)state;
  static double later[RUNS * ROUNDS], slow[RUNS * ROUNDS];
  double alarms = 0, caught = 0;
  for (uint64_t s = 0; s < 5; s++) {
    const double floor = calibrate_floor(make(x, 10 + s, 0.004, 0.01, 1), 0.05);
    assert_true(floor > 0.0 && floor < 0.03);
    const stats_runs after = make(later, 100 + s, 0.004, 0.01, 1);
    alarms += calibrate_power(after, after, floor) / 5;
    caught += calibrate_power(make(slow, 200 + s, 0.004, 0.01, 1.05), after, floor) / 5;
  }
  assert_true(alarms <= 0.05);
  assert_true(caught >= 0.95);
}

static void test_floor__too_little__is_unknown(void **state) {
  (void)state;
  stats_runs same = make(x, 1, 0, 0.01, 1);
  same.runs = 1;
  assert_true(isnan(calibrate_floor(same, 0.05)));
  same.runs = 2;
  size[0] = size[1] = 5;
  assert_true(isnan(calibrate_floor(same, 0.05)) && isnan(calibrate_power(same, same, 0)));
  same.runs = 0;
  assert_true(isnan(calibrate_power(same, same, 0)));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_floor__runs_that_agree__is_zero_and_everything_is_caught),
      cmocka_unit_test(test_floor__two_levels__lies_between_them),
      cmocka_unit_test(test_floor__new_runs_of_the_same_kind__alarms_within_the_rate),
      cmocka_unit_test(test_floor__too_little__is_unknown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
