/* test_report.c - tables and charts from a small database with hostile names, unknown values and failed rows. */
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
#include <jansson.h>

#include "harness/plot.h"
#include "harness/report.h"
#include "tests/support/scratch.h"

static store *s;

static void put(const char *experiment, const char *method, const char *params, const char *status, double accuracy, double ms,
                double vanilla, double dense, double error, int partial) {
  static int number;
  char key[64];
  ice_err e = {0};
  (void)snprintf(key, sizeof key, "{\"n\":%d}", number++);
  const store_metric m[] = {{"accuracy", accuracy, accuracy - 0.02, accuracy + 0.02},
                            {"attention_ns", ms * 1e6, ms * 0.9e6, ms * 1.1e6},
                            {"speedup_vanilla", vanilla, vanilla * 0.95, vanilla * 1.05},
                            {"speedup_dense", dense, dense * 0.95, dense * 1.05},
                            {"rel_l2_error", error, NAN, NAN},
                            {"mass", error > 0 ? 1 - error / 2 : NAN, NAN, NAN},
                            {"peak_bytes", 1 << 20, NAN, NAN}};
  const store_cell c = {.key = key, .experiment = experiment, .task = "lra/listops", .model = "m", .method = method, .method_version = "1",
                        .params = params, .seed = 1, .n = 1032, .heads = 2, .head_dim = 32, .layers = 2, .threads = 2, .isa = "avx2",
                        .examples = 500, .partial = partial, .status = status, .reason = strcmp(status, "ok") ? "600 s, the limit" : NULL,
                        .started_utc_ms = 1700000000000, .metric = m, .n_metrics = strcmp(status, "ok") ? 0 : 7};
  if (store_put(s, &c, 0, &e) != ICE_OK) fail_msg("%s", e.text);
}

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
static void fill(const char *experiment) {
  put(experiment, "iceformer", "{\"k\":32}", "ok", 0.36, 9, 1.2, 0.4, 0.1, 0);
  put(experiment, "iceformer", "{\"k\":8}", "ok", 0.35, 5, 2.2, 0.8, 0.2, 1);
  put(experiment, "topk", "{\"k\":8}", "ok", 0.36, 7, 1.5, 0.5, 0.15, 0);
  put(experiment, "dense", "{}", "ok", 0.40, 4, 2.5, 1, 0, 0);
  put(experiment, "vanilla", "{}", "ok", 0.40, 10, 1, 0.4, 1e-7, 0);
  put(experiment, "icecells", "{}", "timeout", NAN, NAN, NAN, NAN, NAN, 0);
}

static char *report(const char *experiment, report_format format, const char *published) {
  char *text = NULL;
  size_t n = 0;
  ice_err e = {0};
  FILE *f = open_memstream(&text, &n);
  if (report_write(s, &(report_options){.experiment = experiment, .format = format, .published = published}, f, &e) != ICE_OK) fail_msg("%s", e.text);
  (void)fclose(f);
  return text;
}
static void has(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("'%s' is not in:\n%s", part, text);
}

static void test_md__rows__in_order_with_both_speedups(void **state) {
  (void)state;
  fill("e");
  char *t = report("e", REPORT_MD, NULL);
  const char *v = strstr(t, "| vanilla"), *d = strstr(t, "| dense"), *k8 = strstr(t, "k=8 "), *i8 = strstr(t, "| iceformer"), *i32 = strstr(t, "k=32");
  assert_true(v && d && k8 && i8 && i32 && v < d && d < k8 && k8 < i8 && i8 < i32); /* registry order, k by value */
  has(t, "0.3500 [0.3300, 0.3700]");
  has(t, "0.8750"); /* retention 0.35 / 0.40 */
  has(t, "2.20 [2.09, 2.31]");
  has(t, "0.80 [0.76, 0.84]");
  has(t, "timeout: 600 s, the limit");
  has(t, "partial: 500 examples");
  has(t, "x dense**: how many times faster");
  has(t, "2 threads, avx2");
  const char *line = strchr(strstr(t, "| method"), '\n'); /* columns line up */
  size_t width = 0;
  for (const char *p = strstr(t, "| method"); p && *p == '|'; p = strchr(p, '\n') + 1) {
    const size_t n = (size_t)(strchr(p, '\n') - p);
    assert_true(width == 0 || n == width);
    width = n;
  }
  assert_non_null(line);
  free(t);
}

static void test_json_and_csv__every_column__null_for_unknown(void **state) {
  (void)state;
  fill("e");
  char *t = report("e", REPORT_JSON, NULL);
  json_t *rows = json_loads(t, 0, NULL);
  assert_int_equal(json_array_size(rows), 6);
  const json_t *dense = json_array_get(rows, 1), *late = json_array_get(rows, 5);
  assert_string_equal(json_string_value(json_object_get(dense, "method")), "dense");
  assert_true(json_is_object(json_object_get(dense, "params")) && json_is_null(json_object_get(dense, "recall")));
  assert_true(json_integer_value(json_object_get(dense, "attention_ns")) == 4000000);
  assert_true(json_is_null(json_object_get(late, "accuracy")) && !strcmp(json_string_value(json_object_get(late, "status")), "timeout"));
  json_decref(rows);
  free(t);
  t = report("e", REPORT_CSV, NULL);
  has(t, "experiment,task,model,method,params");
  has(t, "\"{\"\"k\"\":8}\"");
  int lines = 0;
  for (const char *p = t; (p = strchr(p, '\n')); p++) lines++;
  assert_int_equal(lines, 7);
  free(t);
}

static void test_html_and_latex__hostile_names__escaped(void **state) {
  (void)state;
  put("<b>&\"x_1%", "dense", "{}", "ok", 0.4, 4, 2, 1, 0, 0);
  char *t = report(NULL, REPORT_HTML, NULL);
  has(t, "&lt;b&gt;&amp;&quot;x_1%");
  assert_null(strstr(t, "<b>&"));
  free(t);
  t = report(NULL, REPORT_LATEX, NULL);
  has(t, "\\toprule");
  has(t, "x dense");
  free(t);
}

static void test_against__published__beside_ours(void **state) {
  (void)state;
  fill("e");
  char *t = report("e", REPORT_MD, "# c\ntask,method,accuracy,seconds,speedup_vanilla,retention\nlra/listops,iceformer,,0.380,7.7,0.986\nlra/text,dense,1,2,3,4\n");
  has(t, "published: accuracy -, attention 0.380 s, x vanilla 7.7, retention 0.986");
  has(t, "ours:      accuracy 0.3500");
  assert_null(strstr(t, "lra/text"));
  free(t);
}

static void test_report__nothing__no_verdict(void **state) {
  (void)state;
  ice_err e = {0};
  assert_int_equal(report_write(s, &(report_options){.experiment = "none"}, stdout, &e), ICE_NO_VERDICT);
  assert_non_null(strstr(e.text, "icebench run"));
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
  put(name, method, "{\"k\":4}", "ok", 0.3, 3, 2, 1, 0.1, 0);
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
      TEST(test_md__rows__in_order_with_both_speedups), TEST(test_json_and_csv__every_column__null_for_unknown),
      TEST(test_html_and_latex__hostile_names__escaped), TEST(test_against__published__beside_ours),
      TEST(test_report__nothing__no_verdict),           TEST(test_plot__figures__drawn_with_script_and_data),
      TEST(test_plot__hostile_names__are_text_not_commands), TEST(test_plot__faults__named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
