/* test_report_iso.c - the fastest setting at the accuracy of exact attention: chosen on dev, shown on test. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "harness/config.h"
#include "harness/report_iso.h"
#include "tests/support/results.h"
#include "tests/support/scratch.h"

static store *s;

static int setup(void **state) { return results_setup(state, &s); }
static int teardown(void **state) { return results_teardown(state, s); }

enum { ITEMS = 100, DENSE = 40 };

/* A row of experiment "x" that is right on the items [0, hits) and on [50, 50 + others), which dense (`hits` 40) misses. */
static void put(const char *split, uint64_t seed, const char *method, const char *params, int hits, int others, double dense) {
  static store_prediction p[ITEMS];
  char config[100];
  for (int i = 0; i < ITEMS; i++) p[i] = (store_prediction){i, 1, i < hits || (i >= 50 && i < 50 + others)};
  (void)snprintf(config, sizeof config, "{\"split\":\"%s\",\"examples\":100,\"rounds\":5,\"warmup\":1,\"inputs\":3}", split);
  const results_row row = {.experiment = "x", .method = method, .params = params, .accuracy = (hits + others) / 100.0, .ms = 10 / dense, .vanilla = 2 * dense,
                           .dense = dense, .seed = seed, .examples = ITEMS, .config = config, .prediction = p, .n_predictions = ITEMS};
  results_put(s, &row);
}

/* dev: topk keeps 0.95 at 2 x with k = 8, 1 at 1.5 x with 16 (two lost, two won), 1 at 1.2 x with 32. iceformer keeps 0.975 at most. */
static void put_dev(void) {
  put("val", 1, "vanilla", "{}", DENSE, 0, 0.5);
  put("val", 1, "dense", "{}", DENSE, 0, 1);
  put("val", 1, "topk", "{\"k\":32}", DENSE, 0, 1.2);
  put("val", 1, "topk", "{\"k\":8}", 38, 0, 2);
  put("val", 1, "topk", "{\"k\":16}", 38, 2, 1.5);
  put("val", 1, "iceformer", "{\"k\":8}", 36, 0, 3);
  put("val", 1, "iceformer", "{\"k\":16}", 39, 0, 2.5);
}

static json_t *ask(double bound, int lower, const char *out) {
  const report_iso iso = {.bound = bound, .lower = lower, .out = out};
  char *text = NULL;
  size_t n = 0;
  ice_err e = {0};
  FILE *f = open_memstream(&text, &n);
  if (report_iso_write(s, &(report_options){.experiment = "x", .format = REPORT_JSON}, &iso, f, &e) != ICE_OK) fail_msg("%s", e.text);
  (void)fclose(f);
  json_t *all = json_loads(text, 0, NULL);
  assert_non_null(all);
  free(text);
  return all;
}

static const json_t *of(const json_t *all, const char *method) {
  for (size_t i = 0; i < json_array_size(all); i++)
    if (!strcmp(json_string_value(json_object_get(json_array_get(all, i), "method")), method)) return json_array_get(all, i);
  fail_msg("no record of %s", method);
  return NULL;
}
static double value(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
static int k_of(const json_t *o) { return (int)json_integer_value(json_object_get(json_object_get(o, "params"), "k")); }
#define NEAR(a, b) assert_true(fabs((a) - (b)) < 1e-9)
#define VERDICT(o, word) assert_string_equal(json_string_value(json_object_get(o, "verdict")), word)

static void test_choice__fastest_that_keeps_enough__or_none(void **state) {
  (void)state;
  put_dev();
  json_t *all = ask(0.99, 0, NULL);
  assert_int_equal(json_array_size(all), 2); /* exact methods are nobody's choice */
  const json_t *topk = of(all, "topk"), *ice = of(all, "iceformer");
  assert_int_equal(k_of(topk), 16);
  NEAR(value(topk, "dev_retention"), 1.0);
  assert_true(value(topk, "dev_retention_lo") < 0.99);
  NEAR(value(topk, "dev_speedup_dense"), 1.5);
  NEAR(value(topk, "dev_speedup_dense_lo"), 1.5 * 0.95);
  assert_true(value(topk, "settings") == 3 && value(topk, "settings_kept") == 2);
  assert_true(json_is_null(json_object_get(topk, "test_retention")));
  VERDICT(topk, "not on test");
  assert_int_equal(k_of(ice), 16); /* keeps most, though not enough */
  NEAR(value(ice, "dev_retention"), 39.0 / 40.0);
  VERDICT(ice, "none");
  json_decref(all);
  all = ask(0.97, 0, NULL);
  assert_int_equal(k_of(of(all, "iceformer")), 16);
  VERDICT(of(all, "iceformer"), "not on test");
  json_decref(all);
}

static void test_choice__by_the_lower_end__wants_more(void **state) {
  (void)state;
  put_dev();
  json_t *all = ask(0.99, 1, NULL);
  assert_int_equal(k_of(of(all, "topk")), 32);
  json_decref(all);
}

static void test_proof__rows_of_test__decide_the_verdict(void **state) {
  (void)state;
  put_dev();
  put("test", 1, "dense", "{}", DENSE, 0, 1);
  put("test", 1, "topk", "{\"k\":16}", 39, 0, 1.4);
  json_t *all = ask(0.99, 0, NULL);
  NEAR(value(of(all, "topk"), "test_retention"), 39.0 / 40.0);
  NEAR(value(of(all, "topk"), "test_speedup_dense"), 1.4);
  NEAR(value(of(all, "topk"), "test_speedup_vanilla"), 2.8);
  assert_true(value(of(all, "topk"), "test_examples") == ITEMS);
  VERDICT(of(all, "topk"), "lost");
  json_decref(all);
  put("test", 1, "topk", "{\"k\":32}", DENSE, 0, 1.1);
  all = ask(0.99, 1, NULL); /* nothing differs there: the interval is a point */
  VERDICT(of(all, "topk"), "confirmed");
  json_decref(all);
  put("test", 1, "iceformer", "{\"k\":16}", 39, 1, 2);
  all = ask(0.97, 0, NULL);
  VERDICT(of(all, "iceformer"), "kept"); /* 1, with an interval that reaches below 0.97? */
  assert_true(value(of(all, "iceformer"), "test_retention_lo") < 0.97);
  json_decref(all);
}

static void test_seeds__are_pooled(void **state) {
  (void)state;
  put_dev();
  put("val", 2, "dense", "{}", 20, 0, 1);
  put("val", 2, "topk", "{\"k\":16}", 18, 0, 1.7);
  put("val", 3, "topk", "{\"k\":16}", 0, 0, 9); /* no dense of that seed: not judged */
  json_t *all = ask(0.9, 0, NULL);
  const json_t *topk = of(all, "topk");
  assert_int_equal(k_of(topk), 8); /* 0.95 at 2 x */
  json_decref(all);
  all = ask(0.96, 0, NULL);
  topk = of(all, "topk");
  assert_int_equal(k_of(topk), 16); /* (40 + 18) / (40 + 20) at (1.5 + 1.7) / 2 */
  NEAR(value(topk, "dev_retention"), 58.0 / 60.0);
  NEAR(value(topk, "dev_speedup_dense"), 1.6);
  NEAR(value(topk, "dev_speedup_dense_lo"), 1.5 * 0.95);
  NEAR(value(topk, "dev_speedup_dense_hi"), 1.7 * 1.05);
  json_decref(all);
}

static void test_file__runs_the_choices_on_test__under_the_same_name(void **state) {
  (void)state;
  put_dev();
  json_decref(ask(0.99, 0, scratch_path("chosen.yaml")));
  config_experiment x;
  ice_err e = {0};
  if (config_load(scratch_path("chosen.yaml"), NULL, &x, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_string_equal(x.name, "x");
  assert_true(x.split == TASK_TEST && x.examples == 100 && x.threads == 2 && x.rounds == 5 && x.timed == 3);
  assert_int_equal(x.n_cells, 3);
  assert_string_equal(x.cell[2].params_json, "{\"k\":16}");
  assert_int_equal(x.cell[2].seed, 1);
  config_free(&x);
}

static void test_report__formats_and_nothing_to_choose_from(void **state) {
  (void)state;
  const report_iso iso = {.bound = 0.99};
  ice_err e = {0};
  put("test", 1, "dense", "{}", DENSE, 0, 1);
  put("test", 1, "topk", "{\"k\":16}", 39, 0, 1.4);
  assert_int_equal(report_iso_write(s, &(report_options){.experiment = "x"}, &iso, stdout, &e), ICE_NO_VERDICT);
  assert_non_null(strstr(e.text, "--set split=dev"));
  put_dev();
  static const char *const words[] = {"| topk ", "\nx,lra/listops,lra/listops/softmax,topk,\"{\"\"k\"\":16}\",0.99,estimate,3,2,1.0,", NULL, "topk & k=16", ">topk<"};
  for (int format = REPORT_MD; format <= REPORT_HTML; format++) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_int_equal(report_iso_write(s, &(report_options){.experiment = "x", .format = (report_format)format}, &iso, f, &e), ICE_OK);
    (void)fclose(f);
    if (words[format] && !strstr(text, words[format])) fail_msg("no %s in %s", words[format], text);
    free(text);
  }
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(test_choice__fastest_that_keeps_enough__or_none), TEST(test_choice__by_the_lower_end__wants_more),
      TEST(test_proof__rows_of_test__decide_the_verdict),    TEST(test_seeds__are_pooled),
      TEST(test_file__runs_the_choices_on_test__under_the_same_name), TEST(test_report__formats_and_nothing_to_choose_from),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
