/* test_report_pairs.c - methods on the same examples: which rows are compared, numbers by hand, Holm over the table, ties. */
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

#include "harness/report.h"
#include "harness/report_pairs.h"
#include "tests/support/results.h"
#include "tests/support/scratch.h"

static store *s;
static report_rows rows;
static report_pairs pairs;

static int setup(void **state) {
  rows = (report_rows){0}, pairs = (report_pairs){0};
  return results_setup(state, &s);
}
static int teardown(void **state) {
  report_pairs_free(&pairs);
  report_rows_free(&rows);
  return results_teardown(state, s);
}

static void near(double got, double want, double tolerance) {
  if (!(fabs(got - want) <= tolerance)) fail_msg("%.17g, expected %.17g", got, want);
}

enum { ITEMS = 20 };
/* A row of a split whose predictions are right where `right` has a 1. */
static void put_of(const char *config, const char *method, const char *params, uint64_t seed, const char *right) {
  store_prediction p[64];
  int n = 0;
  for (; right[n]; n++) p[n] = (store_prediction){.item = 3 * n, .expected = 2, .predicted = right[n] == '1' ? 2 : 5};
  results_put(s, &(results_row){.experiment = "e", .method = method, .params = params, .accuracy = 0.4, .ms = 4, .vanilla = 2, .dense = 1, .error = NAN,
                                .mass = NAN, .seed = seed, .examples = n, .config = config, .prediction = p, .n_predictions = n});
}
static void put(const char *method, const char *params, uint64_t seed, const char *right) { put_of(NULL, method, params, seed, right); }

static void compare(void) {
  ice_err e = {0};
  if (report_rows_read(s, NULL, &rows, &e) != ICE_OK || report_pairs_read(s, &rows, &pairs, &e) != ICE_OK) fail_msg("%s", e.text);
}
static const report_pair *pair_of(const char *a, const char *b) {
  for (int i = 0; i < pairs.n; i++)
    if (!strcmp(report_rows_text(&rows, pairs.pair[i].a, "method"), a) && !strcmp(report_rows_text(&rows, pairs.pair[i].b, "method"), b)) return pairs.pair + i;
  fail_msg("%s and %s are not compared", a, b);
  return NULL;
}

static char *report(report_format format) {
  char *text = NULL;
  size_t n = 0;
  ice_err e = {0};
  FILE *f = open_memstream(&text, &n);
  if (report_write(s, &(report_options){.format = format}, f, &e) != ICE_OK) fail_msg("%s", e.text);
  (void)fclose(f);
  return text;
}
static void has(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("'%s' is not in:\n%s", part, text);
}

static void test_pair__counts_and_test__by_hand(void **state) {
  (void)state;
  put("dense", "{}", 1, "11111111110000000000");
  put("iceformer", "{\"k\":8}", 1, "00000011110000000000"); /* loses six, wins none */
  compare();
  assert_int_equal(pairs.n, 1);
  const report_pair *p = pair_of("iceformer", "dense");
  assert_true(p->to_reference && p->hits);
  assert_int_equal(p->count.n, ITEMS);
  assert_int_equal(p->count.only_a, 0);
  assert_int_equal(p->count.only_b, 6);
  near(p->p, 2.0 / 64, 1e-12);
  near(p->adjusted, 2.0 / 64, 1e-12); /* one pair: nothing to adjust for */
  near(p->difference.value, -0.3, 1e-12);
  assert_true(p->difference.lo < -0.3 && p->difference.hi < 0 && p->difference.hi > -0.3);
  near(p->detectable, 2.8015852 * sqrt(6.0) / ITEMS, 1e-6);
  assert_string_equal(report_pair_verdict(p), "worse");
  char *t = report(REPORT_MD);
  has(t, "## e: lra/listops, accuracy in pairs");
  has(t, "1 pair on the same examples: 1 differs, 0 ties.");
  has(t, "| iceformer | k=8        | dense   |     20 |         0 |          6 | -0.3000 [-0.5");
  has(t, "|     0.3431 | worse   |");
  has(t, "- **p (Holm)**: ");
  free(t);
}

/* Three pairs with p = 1/32, 1/32, 1: Holm makes 3/32 of the smallest, and nothing is called different any more. */
static void test_table__more_pairs__are_paid_for(void **state) {
  (void)state;
  put("dense", "{}", 1, "11111111110000000000");
  put("topk", "{\"k\":8}", 1, "11111111110000000000");
  put("iceformer", "{\"k\":8}", 1, "00000011110000000000");
  compare();
  assert_int_equal(pairs.n, 3);
  near(pair_of("iceformer", "dense")->adjusted, 3.0 / 32, 1e-12);
  near(pair_of("iceformer", "topk")->adjusted, 3.0 / 32, 1e-12);
  assert_string_equal(report_pair_verdict(pair_of("iceformer", "dense")), "tie");
  assert_string_equal(report_pair_verdict(pair_of("topk", "dense")), "same marks");
  char *t = report(REPORT_MD);
  has(t, "3 pairs on the same examples: 0 differ, 3 ties. Not listed: 1 tie of two rows");
  if (strstr(t, "| topk k=8 |")) fail_msg("a tie of two approximations is listed:\n%s", t);
  free(t);
  t = report(REPORT_HTML);
  has(t, ">topk k=8<");
  free(t);
}

/* Both exact attentions mark alike; what is compared with one need not be compared with the other, too. */
static void test_table__exact_attentions__only_against_the_reference(void **state) {
  (void)state;
  put("vanilla", "{}", 1, "1100");
  put("dense", "{}", 1, "1100");
  put("topk", "{\"k\":8}", 1, "1010");
  put("iceformer", "{\"k\":8}", 1, "1010");
  compare();
  assert_int_equal(pairs.n, 4);
  assert_int_equal(pair_of("vanilla", "dense")->count.n, 4);
  assert_int_equal(pair_of("iceformer", "topk")->count.n, 4);
}

static void test_rows__of_other_seeds_or_items__are_not_compared(void **state) {
  (void)state;
  put("dense", "{}", 1, "1100");
  put("dense", "{}", 2, "1010");
  put("iceformer", "{\"k\":8}", 2, "10101010"); /* four of its eight items are those of dense */
  results_put(s, &(results_row){.experiment = "e", .method = "topk", .accuracy = 0.4, .ms = 4, .vanilla = 2, .dense = 1, .error = NAN, .mass = NAN, .seed = 2});
  compare();
  assert_int_equal(pairs.n, 1);
  assert_int_equal(pairs.pair[0].count.n, 4);
  assert_string_equal(report_rows_text(&rows, pairs.pair[0].b, "seed"), "2");
}

/* Items are places in a split: the third of dev is not the third of test. */
static void test_rows__of_other_splits__are_not_compared(void **state) {
  (void)state;
  put_of("{\"split\":\"val\"}", "dense", "{}", 1, "1100");
  put_of("{\"split\":\"test\"}", "dense", "{}", 1, "1010");
  put_of("{\"split\":\"test\"}", "topk", "{\"k\":8}", 1, "1010");
  compare();
  assert_int_equal(pairs.n, 1);
  assert_string_equal(report_rows_text(&rows, pairs.pair[0].b, "split"), "test");
}

static void test_table__many_rows__only_against_the_reference(void **state) {
  (void)state;
  char params[32];
  for (int k = 0; k < PAIRS_ALL; k++) {
    (void)snprintf(params, sizeof params, "{\"k\":%d}", k + 1);
    put("topk", params, 1, "1100");
  }
  compare();
  assert_int_equal(pairs.n, PAIRS_ALL * (PAIRS_ALL - 1) / 2); /* without dense, the first row is the reference */
  assert_int_equal(pairs.pair[0].b, 0);
  report_pairs_free(&pairs), report_rows_free(&rows);
  put("dense", "{}", 1, "1010");
  compare();
  assert_int_equal(pairs.n, PAIRS_ALL);
  for (int i = 0; i < pairs.n; i++) assert_string_equal(report_rows_text(&rows, pairs.pair[i].b, "method"), "dense");
}

static void put_words(const char *method, const double *mark, int n) {
  store_answer a[32];
  for (int i = 0; i < n; i++) a[i] = (store_answer){.item = i, .id = "x", .text = "y", .expected = "[\"y\"]", .mark = mark[i]};
  results_put(s, &(results_row){.experiment = "w", .task = "zeroscrolls/qmsum", .method = method, .accuracy = 0.4, .ms = 4, .vanilla = 2, .dense = 1, .error = NAN,
                                .mass = NAN, .seed = 1, .examples = n, .answer = a, .n_answers = n});
}

static void test_pair__marks_that_are_no_hits__sign_flip(void **state) {
  (void)state;
  static const double dense[8] = {0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5}, other[8] = {0.25, 0.4, 0.3, 0.45, 0.35, 0.2, 0.5, 0.5};
  put_words("dense", dense, 8);
  put_words("iceformer", other, 8);
  compare();
  const report_pair *p = pair_of("iceformer", "dense");
  assert_false(p->hits);
  assert_int_equal(p->count.only_b, 6);
  near(p->p, 2.0 / 64, 1e-12);
  assert_true(isnan(p->detectable));
}

static void test_json__row__has_its_comparisons(void **state) {
  (void)state;
  put("dense", "{}", 1, "11111111110000000000");
  put("iceformer", "{\"k\":8}", 1, "00000011110000000000");
  char *t = report(REPORT_JSON);
  json_t *all = json_loads(t, 0, NULL);
  assert_int_equal(json_array_size(json_object_get(json_array_get(all, 0), "compared")), 0);
  const json_t *c = json_array_get(json_object_get(json_array_get(all, 1), "compared"), 0);
  assert_string_equal(json_string_value(json_object_get(c, "method")), "dense");
  assert_string_equal(json_string_value(json_object_get(c, "test")), "mcnemar");
  assert_string_equal(json_string_value(json_object_get(c, "verdict")), "worse");
  near(json_real_value(json_object_get(c, "p_holm")), 2.0 / 64, 1e-12);
  assert_int_equal(json_integer_value(json_object_get(c, "only_other")), 6);
  json_decref(all);
  free(t);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_pair__counts_and_test__by_hand),
      TEST(test_table__more_pairs__are_paid_for),
      TEST(test_table__exact_attentions__only_against_the_reference),
      TEST(test_rows__of_other_seeds_or_items__are_not_compared),
      TEST(test_rows__of_other_splits__are_not_compared),
      TEST(test_table__many_rows__only_against_the_reference),
      TEST(test_pair__marks_that_are_no_hits__sign_flip),
      TEST(test_json__row__has_its_comparisons),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
