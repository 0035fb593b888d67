/* test_calibrate.c - floor and power on measurements that are made up: no clock. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness/calibrate.h"
#include "kernels/core/rng.h"

enum { RUNS = 20, FEW = 10, ROUNDS = 15, MOST = 20 };

typedef struct made { /* measurements, each of some processes of ROUNDS rounds */
  double x[RUNS * MOST * ROUNDS];
  stats_runs run[RUNS];
} made;
static size_t size[MOST];
static made some, others, slow;

/* Processes that differ by `between`, rounds by `within` (standard deviations, relative), all slowed by a factor. Of the processes a
 * share `hindered` is slower by up to 40 % for all its life. */
static const stats_runs *make(made *to, int processes, uint64_t seed, double between, double within, double hindered, double factor) {
  attn_rng r;
  attn_rng_seed(&r, seed, 1);
  double *x = to->x;
  for (int i = 0; i < processes; i++) size[i] = ROUNDS;
  for (int i = 0; i < RUNS; i++) {
    to->run[i] = (stats_runs){x, size, (size_t)processes};
    for (int p = 0; p < processes; p++) {
      const double neighbour = attn_rng_uniform(&r) < hindered ? 1.0 + 0.4 * attn_rng_uniform(&r) : 1.0;
      const double process = factor * neighbour * exp(between * attn_rng_normal(&r));
      for (int k = 0; k < ROUNDS; k++) *x++ = 1e6 * process * exp(within * attn_rng_normal(&r));
    }
  }
  return to->run;
}

static void test_floor__runs_that_agree__is_zero_and_everything_is_caught(void **state) {
  (void)state;
  const stats_runs *same = make(&some, 1, 1, 0, 0, 0, 1), *slowed = make(&slow, 1, 2, 0, 0, 0, 1.01);
  assert_true(calibrate_floor(same, RUNS, 0.05) < 1e-9);
  assert_true(calibrate_power(slowed, RUNS, same, RUNS, 0.0) == 1.0);
  assert_true(calibrate_power(slowed, RUNS, same, RUNS, 0.02) == 0.0);
  assert_true(calibrate_power(same, RUNS, same, RUNS, 0.0) == 0.0);
}

/* Two levels, 0 and 10 % higher, that rounds within a run do not show: every comparison across them exceeds any gate below 10 %. Of the
 * 190 pairs 100 are across, one of the two comparisons of each is beyond: 26 %. */
static void test_floor__two_levels__lies_between_them(void **state) {
  (void)state;
  const stats_runs *same = make(&some, 1, 1, 0, 0, 0, 1);
  for (int i = 0; i < RUNS / 2 * ROUNDS; i++) some.x[i] *= 1.1;
  const double low = calibrate_floor(same, RUNS, 0.05);
  assert_true(fabs(low - 0.1) < 1e-4);
  assert_true(calibrate_floor(same, RUNS, 0.5) == low); /* quantile 0.75: beyond; 26 % do */
  assert_true(calibrate_floor(same, RUNS, 0.54) < 1e-4); /* quantile 0.73 */
}

/* The floor that one set of runs gives holds for others of the same machine. */
static void test_floor__new_runs_of_the_same_kind__alarms_within_the_rate(void **state) {
  (void)state;
  double alarms = 0, caught = 0;
  for (uint64_t s = 0; s < 2; s++) {
    const double floor = calibrate_floor(make(&some, 1, 10 + s, 0.004, 0.01, 0, 1), RUNS, 0.05);
    assert_true(floor > 0.0 && floor < 0.03);
    const stats_runs *after = make(&others, 1, 100 + s, 0.004, 0.01, 0, 1);
    alarms += calibrate_power(after, RUNS, after, RUNS, floor) / 2;
    caught += calibrate_power(make(&slow, 1, 200 + s, 0.004, 0.01, 0, 1.05), RUNS, after, RUNS, floor) / 2;
  }
  assert_true(alarms <= 0.05);
  assert_true(caught >= 0.95);
}

/* A third of the processes is slower for all its life. One process to a measurement: the floor is of the size of that, and 5 % are lost in
 * it. Twenty: alarms stay within the rate, and 5 % are seen. */
static void test_floor__hindered_processes__many_of_them_see_five_percent(void **state) {
  (void)state;
  const double alone = calibrate_floor(make(&some, 1, 7, 0.002, 0.005, 0.33, 1), FEW, 0.05);
  assert_true(alone > 0.2);
  assert_true(calibrate_power(make(&slow, 1, 8, 0.002, 0.005, 0.33, 1.05), FEW, some.run, FEW, alone) < 0.2);
  double alarms = 0, caught = 0;
  for (uint64_t s = 0; s < 3; s++) {
    const double floor = calibrate_floor(make(&some, MOST, 10 + s, 0.002, 0.005, 0.33, 1), FEW, 0.05);
    assert_true(floor < 0.01);
    const stats_runs *after = make(&others, MOST, 100 + s, 0.002, 0.005, 0.33, 1);
    alarms += calibrate_power(after, FEW, after, FEW, floor) / 3;
    caught += calibrate_power(make(&slow, MOST, 200 + s, 0.002, 0.005, 0.33, 1.05), FEW, after, FEW, floor) / 3;
  }
  assert_true(alarms <= 0.05);
  assert_true(caught >= 0.95);
}

static void test_floor__too_little__is_unknown(void **state) {
  (void)state;
  const stats_runs *same = make(&some, 1, 1, 0, 0.01, 0, 1);
  assert_true(isnan(calibrate_floor(same, 1, 0.05)));
  size[0] = 5;
  assert_true(isnan(calibrate_floor(same, 2, 0.05)) && isnan(calibrate_power(same, 2, same, 2, 0)));
  assert_true(isnan(calibrate_power(same, 0, same, 2, 0)));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_floor__runs_that_agree__is_zero_and_everything_is_caught),
      cmocka_unit_test(test_floor__two_levels__lies_between_them),
      cmocka_unit_test(test_floor__new_runs_of_the_same_kind__alarms_within_the_rate),
      cmocka_unit_test(test_floor__hindered_processes__many_of_them_see_five_percent),
      cmocka_unit_test(test_floor__too_little__is_unknown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
