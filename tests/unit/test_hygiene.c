/* test_hygiene.c - what the machine was like, and when a row is not to be believed. */
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/hygiene.h"
#include "harness/report_rows.h"
#include "harness/twin.h"
#include "tests/support/scratch.h"

static void test_choose_cores__hyperthreads__one_of_each_core_first(void **state) {
  (void)state;
  const int core[] = {0, 1, 2, 3, 0, 1, 2, 3}; /* as on a processor of 4 cores with 2 threads each */
  int out[8];
  assert_int_equal(hygiene_choose_cores(core, 8, 3, out), 3);
  assert_int_equal(out[0], 7), assert_int_equal(out[1], 6), assert_int_equal(out[2], 5);
  assert_int_equal(hygiene_choose_cores(core, 8, 5, out), 5);
  assert_int_equal(out[3], 4); /* core 0 by its higher number */
  assert_int_equal(out[4], 3);
  assert_int_equal(hygiene_choose_cores(core, 8, 20, out), 8);
  assert_int_equal(hygiene_choose_cores(core, 0, 2, out), 0);
}

static void test_noise__sentinel_throttling_swap__each_says_so(void **state) {
  (void)state;
  char why[200];
  store_metric m[] = {{"sentinel_before_ns", 100000, NAN, NAN}, {"sentinel_after_ns", 104000, NAN, NAN}, {"throttles", 0, NAN, NAN}, {"swapped_pages", 0, NAN, NAN}};
  assert_int_equal(hygiene_noise(m, 4, 0.05, why, sizeof why), 0);
  assert_string_equal(why, "");
  assert_int_equal(hygiene_noise(m, 4, 0.03, why, sizeof why), 1);
  assert_string_equal(why, "the sentinel took 100 us before and 104 us after, allowed 3 % apart");
  m[0].value = 104000, m[1].value = 100000; /* slow before is as bad as slow after */
  assert_int_equal(hygiene_noise(m, 4, 0.03, why, sizeof why), 1);
  m[2].value = 3;
  assert_int_equal(hygiene_noise(m, 4, 0.05, why, sizeof why), 1);
  assert_string_equal(why, "the processor throttled 3 times");
  m[2].value = NAN, m[3].value = 12;
  assert_int_equal(hygiene_noise(m, 4, 0.05, why, sizeof why), 1);
  assert_non_null(strstr(why, "swapped 12 pages"));
  assert_int_equal(hygiene_noise(m, 0, 0.05, why, sizeof why), 0); /* nothing was read */
}

static double value_of(const store_metric *m, const char *name) {
  for (int i = 0; i < HYGIENE_METRICS; i++)
    if (!strcmp(m[i].name, name)) return m[i].value;
  fail_msg("no metric %s", name);
  return NAN;
}

static void test_readings__this_machine__are_sane_or_unknown(void **state) {
  (void)state;
  hygiene h;
  store_metric m[HYGIENE_METRICS];
  hygiene_begin(&h, 0);
  hygiene_around(&h, 1);
  (void)hygiene_sentinel();
  hygiene_around(&h, 0);
  hygiene_end(&h, m);
  assert_true(value_of(m, "sentinel_before_ns") > 100 && value_of(m, "sentinel_after_ns") > 100);
  assert_true(value_of(m, "load_before") >= 0);
  assert_true(value_of(m, "preemptions") >= 0);
  assert_true(value_of(m, "swapped_pages") >= 0);
  const double mhz = value_of(m, "mhz_before"), instructions = value_of(m, "instructions");
  assert_true(isnan(mhz) || (mhz > 50 && mhz < 20000));
  assert_true(isnan(instructions) || instructions > 96.0 * 96 * 96 / 16); /* at most 16 products an instruction */
}

/* In a child, since it pins the process. */
static void test_begin__affinity__leaves_as_many_cores_as_threads(void **state) {
  (void)state;
  const pid_t child = fork();
  if (child == 0) {
    hygiene h;
    store_metric m[HYGIENE_METRICS];
    cpu_set_t set;
    hygiene_begin(&h, 1);
    hygiene_end(&h, m);
    _exit(sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set) == 1 ? 0 : 2);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
}

static void test_twin__log_of_callgrind__count_or_unknown(void **state) {
  (void)state;
  assert_true(twin_read("==7== Events    : Ir\n==7== Collected : 6501065\n==7== \n") == 6501065);
  assert_true(isnan(twin_read("==7== Collected : 0\n"))); /* the function was never entered */
  assert_true(isnan(twin_read("==7== Collected : many")) && isnan(twin_read("")));
}

static void test_store__row_with_noise__is_shown_and_not_finished(void **state) {
  (void)state;
  store *s = NULL;
  ice_err e = {0};
  int finished = 1;
  report_rows r;
  const store_metric m[] = {{"peak_bytes", 7, NAN, NAN}};
  store_cell c = {.key = "{}", .experiment = "x", .task = "t", .model = "m", .method = "dense", .method_version = "1", .params = "{}", .isa = "avx2", .threads = 1,
                  .status = "ok", .noise = "the machine swapped 12 pages", .metric = m, .n_metrics = 1};
  assert_int_equal(store_open(scratch_path("n.db"), STORE_WRITE, &s, &e), ICE_OK);
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_int_equal(store_has(s, "{}", 0, &finished, &e), ICE_OK);
  assert_int_equal(finished, 0);
  finished = 1;
  assert_int_equal(store_has(s, "{}", 1, &finished, &e), ICE_OK);
  assert_int_equal(finished, 0);
  assert_int_equal(report_rows_read(s, NULL, &r, &e), ICE_OK);
  assert_string_equal(report_rows_text(&r, 0, "status"), "invalid-noise");
  assert_string_equal(report_rows_text(&r, 0, "reason"), "the machine swapped 12 pages");
  assert_true(report_rows_value(&r, 0, "peak_bytes") == 7); /* the numbers are kept */
  report_rows_free(&r);
  c.noise = NULL; /* measured anew */
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_int_equal(store_has(s, "{}", 0, &finished, &e), ICE_OK);
  assert_int_equal(finished, 1);
  store_close(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_choose_cores__hyperthreads__one_of_each_core_first),
      cmocka_unit_test(test_noise__sentinel_throttling_swap__each_says_so),
      cmocka_unit_test(test_readings__this_machine__are_sane_or_unknown),
      cmocka_unit_test(test_twin__log_of_callgrind__count_or_unknown),
      cmocka_unit_test(test_begin__affinity__leaves_as_many_cores_as_threads),
      cmocka_unit_test_setup_teardown(test_store__row_with_noise__is_shown_and_not_finished, scratch_setup, scratch_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
