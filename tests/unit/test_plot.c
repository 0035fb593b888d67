/* test_plot.c - charts: files that appear, hostile names, faults. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/plot.h"
#include "tests/support/results.h"
#include "tests/support/scratch.h"

static store *s;

static int setup(void **state) {
  ice_err e = {0};
  (void)setenv("ICEBENCH_ALLOW_DEBUG", "1", 1);
  if (scratch_setup(state)) return 1;
  return store_open(scratch_path("r.db"), STORE_WRITE, &s, &e);
}
static int teardown(void **state) {
  store_close(s);
  return scratch_teardown(state);
}
static void put(const char *experiment, const char *method, const char *params, double accuracy, double ms, double vanilla, double dense, double error) {
  results_put(s, &(results_row){.experiment = experiment, .method = method, .params = params, .accuracy = accuracy, .ms = ms, .vanilla = vanilla,
                                .dense = dense, .error = error, .mass = 1 - error / 2, .seed = 1, .examples = 500});
}
static void fill(const char *experiment) {
  put(experiment, "iceformer", "{\"k\":32}", 0.36, 9, 1.2, 0.4, 0.1);
  put(experiment, "iceformer", "{\"k\":8}", 0.35, 5, 2.2, 0.8, 0.2);
  put(experiment, "topk", "{\"k\":8}", 0.36, 7, 1.5, 0.5, 0.15);
  put(experiment, "dense", "{}", 0.40, 4, 2.5, 1, 0);
  put(experiment, "vanilla", "{}", 0.40, 10, 1, 0.4, 1e-7);
}

static void test_plot__figures__drawn_with_script_and_data(void **state) {
  (void)state;
  static const char *const figure[] = {"accuracy-time", "error-k", "speedup-k"}, *const tail[] = {"svg", "gp", "dat"};
  ice_err e = {0};
  char name[128];
  struct stat st;
  fill("a b/../c");
  const plot_options o = {.experiment = "a b/../c", .out = scratch_path("out"), .terminal = "svg", .quiet = 1};
  if (plot_draw(s, &o, &e) != ICE_OK) fail_msg("%s", e.text);
  for (int i = 0; i < 3; i++)
    for (int k = 0; k < 3; k++) {
      (void)snprintf(name, sizeof name, "out/a_b_.._c-%s.%s", figure[i], tail[k]); /* no way out of the folder */
      if (stat(scratch_path(name), &st) != 0 || st.st_size == 0) fail_msg("%s was not written", name);
    }
}

static void test_plot__hostile_names__are_text_not_commands(void **state) {
  (void)state;
  char name[400], method[400], command[300];
  ice_err e = {0};
  (void)snprintf(command, sizeof command, "touch %s", scratch_path("pwned"));
  (void)snprintf(name, sizeof name, "'`%s`'\"`%s`\"\\", command, command);
  (void)snprintf(method, sizeof method, "'.system('%s').'", command);
  fill(name);
  put(name, method, "{\"k\":4}", 0.3, 3, 2, 1, 0.1);
  const plot_options o = {.experiment = name, .out = scratch_path("out"), .terminal = "svg", .quiet = 1};
  if (plot_draw(s, &o, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_not_equal(access(scratch_path("pwned"), F_OK), 0);
}

static void test_plot__faults__named(void **state) {
  (void)state;
  ice_err e = {0};
  plot_options o = {.experiment = "none", .out = scratch_path("out"), .terminal = "svg", .quiet = 1};
  assert_int_equal(plot_draw(s, &o, &e), ICE_NO_VERDICT);
  o.terminal = "gif";
  assert_int_equal(plot_draw(s, &o, &e), ICE_USAGE);
  o.terminal = "svg", o.figure = "../../etc/passwd";
  assert_int_equal(plot_draw(s, &o, &e), ICE_USAGE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_plot__figures__drawn_with_script_and_data),
      TEST(test_plot__hostile_names__are_text_not_commands),
      TEST(test_plot__faults__named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
