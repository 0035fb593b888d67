/* test_report.c - reports: order, both speed-ups, unknown values, hostile names, what fails.
 * The whole text of a report is held by tests/regression/test_report_golden.c. */
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

#include "harness/published.h"
#include "harness/report.h"
#include "tests/support/results.h"
#include "tests/support/scratch.h"

static store *s;

static int setup(void **state) { return results_setup(state, &s); }
static int teardown(void **state) { return results_teardown(state, s); }

static char *report_of(const report_options *o) {
  char *text = NULL;
  size_t n = 0;
  ice_err e = {0};
  FILE *f = open_memstream(&text, &n);
  if (report_write(s, o, f, &e) != ICE_OK) fail_msg("%s", e.text);
  (void)fclose(f);
  return text;
}
static char *report(report_format format) { return report_of(&(report_options){.format = format}); }
static void has(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("'%s' is not in:\n%s", part, text);
}
static void lacks(const char *text, const char *part) {
  if (strstr(text, part)) fail_msg("'%s' is in:\n%s", part, text);
}
static void put(const char *experiment, const char *method, const char *params) {
  results_put(s, &(results_row){.experiment = experiment, .method = method, .params = params, .accuracy = 0.4, .ms = 4, .vanilla = 2.5,
                                .dense = 1, .error = NAN, .mass = NAN, .seed = 1, .examples = 500});
}
static void in_order(const char *text, const char *const *part, int n) {
  const char *at = text;
  for (int i = 0; i < n; i++, at++)
    if (!(at = strstr(at, part[i]))) fail_msg("'%s' is missing or stands too early in:\n%s", part[i], text);
}

/* --- order and grouping ----------------------------------------------------------------------------------------------- */

static void test_rows__methods_as_registered_and_parameters_by_value(void **state) {
  (void)state;
  put("e", "zeta", "{}");
  put("e", "iceformer", "{\"k\":100}");
  put("e", "iceformer", "{\"k\":9}");
  put("e", "iceformer", "{\"k\":20}");
  put("e", "alpha", "{}");
  put("e", "dense", "{}");
  put("e", "vanilla", "{}");
  char *t = report(REPORT_MD);
  static const char *const order[] = {"| vanilla ", "| dense ", "| k=9 ", "| k=20 ", "| k=100 ", "| alpha ", "| zeta "};
  in_order(t, order, 7);
  free(t);
}

static void test_rows__parameters_that_are_not_defaults__are_named(void **state) {
  (void)state;
  put("e", "iceformer", "{\"k\":20,\"comp\":2,\"levels\":5,\"visit\":0.25,\"retrieve\":1,\"order\":\"l2\"}");
  put("e", "unknown", "{\"m\":\"a|b\",\"x\":1000000}");
  char *t = report(REPORT_MD);
  has(t, "| k=20 levels=5 visit=0.25 order=l2 |");
  has(t, "| m=a\\|b x=1000000");
  free(t);
}

static void test_groups__seeds_share_a_table_tasks_and_experiments_do_not(void **state) {
  (void)state;
  results_row row = {.experiment = "e", .method = "dense", .accuracy = 0.4, .ms = 4, .vanilla = 2, .dense = 1, .error = 0, .mass = NAN, .examples = 500};
  static const uint64_t seed[] = {10, 9, UINT64_MAX};
  for (int i = 0; i < 3; i++) row.seed = seed[i], results_put(s, &row);
  row.task = "lra/text";
  results_put(s, &row);
  row.experiment = "f";
  results_put(s, &row);
  char *t = report(REPORT_MD);
  has(t, "## e: lra/listops");
  static const char *const seeds[] = {" 9 |", " 10 |", " 18446744073709551615 |", "## e: lra/text", "## f: lra/text"};
  in_order(t, seeds, 5);
  free(t);
  t = report_of(&(report_options){.experiment = "f"});
  lacks(t, "## e");
  free(t);
}

static void test_md__columns__line_up_whatever_the_characters(void **state) {
  (void)state;
  put("e", "d\xc3\xa9nse|x", "{}");
  put("e", "bad\xff\x01utf", "{}");
  put("e", "<script>", "{}");
  char *t = report(REPORT_MD);
  has(t, "d\xc3\xa9nse\\|x");
  has(t, "bad??utf");
  has(t, "\\<script>");
  int width = 0, rows = 0;
  for (const char *p = strstr(t, "| method"); *p == '|'; p = strchr(p, '\n') + 1, rows++) {
    int n = 0;
    for (const char *c = p; *c != '\n'; c++) n += ((unsigned char)*c & 0xc0) != 0x80;
    if (rows && n != width) fail_msg("row %d is %d characters wide, the head %d:\n%s", rows, n, width, t);
    width = n;
  }
  assert_int_equal(rows, 5);
  free(t);
}

static void test_md__narrow_terminal__speed_ups_stay_together(void **state) {
  (void)state;
  put("e", "vanilla", "{}");
  put("e", "dense", "{}");
  for (int width = 20; width < 200; width += 7) {
    char *t = report_of(&(report_options){.width = width});
    int both = 0;
    for (const char *p = t; (p = strstr(p, "| method")); p++) {
      const char *end = strchr(p, '\n'), *v = strstr(p, "x vanilla"), *d = strstr(p, "x dense");
      const int has_v = v && v < end, has_d = d && d < end;
      assert_int_equal(has_v, has_d);
      both += has_v;
    }
    assert_int_equal(both, 1);
    free(t);
  }
}

/* --- cells ------------------------------------------------------------------------------------------------------------ */

static void test_row__without_result__tells_why(void **state) {
  (void)state;
  results_row row = {.experiment = "e", .method = "icecells", .status = "oom", .reason = "8 GiB, the limit", .seed = 1};
  results_put(s, &row);
  row.status = "unsupported", row.reason = NULL;
  results_put(s, &row);
  char *t = report(REPORT_MD);
  has(t, "| oom: 8 GiB, the limit |");
  has(t, "| unsupported ");
  lacks(t, "nan");
  free(t);
}

static void test_row__partial_and_labelled__says_so(void **state) {
  (void)state;
  results_row row = {.experiment = "e", .method = "iceformer", .accuracy = 0.3, .ms = 4, .vanilla = 1, .dense = 1, .error = 0, .mass = NAN,
                     .seed = 1, .examples = 40, .partial = 1, .label = "generated data, no retraining"};
  results_put(s, &row);
  row.method = "dense", row.partial = 0, row.examples = 500, row.label = "generated data";
  results_put(s, &row);
  char *t = report(REPORT_MD);
  has(t, "partial: 40 examples; no retraining");
  has(t, "All rows: generated data");
  free(t);
}

static void test_row__one_speed_up_unknown__the_other_is_not_shown_alone(void **state) {
  (void)state;
  results_row row = {.experiment = "e", .method = "dense", .accuracy = 0.3, .ms = 4, .vanilla = 2, .dense = NAN, .error = 0, .mass = NAN, .seed = 1};
  results_put(s, &row);
  char *t = report(REPORT_MD);
  has(t, "x vanilla | x dense");
  lacks(t, "mass"); /* a column without values, and its legend */
  free(t);
}

static void test_times__unit__fits_the_fastest(void **state) {
  (void)state;
  static const struct {
    double ms;
    const char *head, *text;
  } unit[] = {{3e-4, "attention ns", "300 [270, 330]"}, {0.0123, "attention us", "12.3 [11.1, 13.5]"}, {4, "attention ms", "4.00 [3.60, 4.40]"}, {12000, "attention s", "12.0 [10.8, 13.2]"}};
  for (int i = 0; i < 4; i++) {
    char name[16];
    (void)snprintf(name, sizeof name, "u%d", i);
    results_put(s, &(results_row){.experiment = name, .method = "dense", .accuracy = 0.3, .ms = unit[i].ms, .vanilla = 2, .dense = 1, .error = 0, .mass = NAN});
    char *t = report_of(&(report_options){.experiment = name});
    has(t, unit[i].head);
    has(t, unit[i].text);
    free(t);
  }
}

/* --- csv, json, html, latex --------------------------------------------------------------------------------------------- */

static int count_columns(void *ctx, int columns, char **names, char **values) {
  (void)names, (void)values;
  *(int *)ctx = columns;
  return 1;
}

static void test_json__every_column__null_for_unknown(void **state) {
  (void)state;
  put("\"quoted\"\n", "dense", "{\"k\":8}");
  put("bad\xff", "dense", "no JSON");
  int columns = 0;
  ice_err e = {0};
  assert_int_equal(store_query(s, "SELECT * FROM results", NULL, 0, count_columns, &columns, &e), ICE_OK);
  char *t = report(REPORT_JSON);
  json_t *rows = json_loads(t, 0, NULL);
  assert_int_equal(json_array_size(rows), 2);
  const json_t *a = json_array_get(rows, 0), *b = json_array_get(rows, 1);
  assert_int_equal(json_object_size(a), columns + 1); /* and the comparisons with others */
  assert_int_equal(json_object_size(b), columns + 1);
  assert_string_equal(json_string_value(json_object_get(a, "experiment")), "\"quoted\"\n");
  assert_string_equal(json_string_value(json_object_get(b, "experiment")), "bad?");
  assert_int_equal(json_integer_value(json_object_get(json_object_get(a, "params"), "k")), 8);
  assert_string_equal(json_string_value(json_object_get(b, "params")), "no JSON");
  assert_int_equal(json_integer_value(json_object_get(a, "attention_ns")), 4000000);
  assert_true(json_is_null(json_object_get(a, "mass")) && json_is_null(json_object_get(a, "reason")));
  assert_true(json_is_string(json_object_get(a, "seed")));
  json_decref(rows);
  free(t);
}

static void test_csv__quotes_commas_newlines__quoted(void **state) {
  (void)state;
  put("a,\"b\"\nc", "dense", "{\"k\":8,\"x\":1}");
  char *t = report(REPORT_CSV);
  has(t, "\n\"a,\"\"b\"\"\nc\",lra/listops,");
  has(t, ",\"{\"\"k\"\":8,\"\"x\"\":1}\",");
  free(t);
}

static void test_csv__formulas__get_an_apostrophe(void **state) {
  (void)state;
  static const char *const formula[] = {"=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1"};
  for (int i = 0; i < 6; i++) put(formula[i], "dense", "{}");
  put("-5", "dense", "{}");
  put("a=1", "dense", "{}");
  char *t = report(REPORT_CSV);
  has(t, "\n'=1+1,lra");
  has(t, "\n'+cmd|' /C calc'!A0,lra");
  has(t, "\n'-2+3,lra");
  has(t, "\n'@SUM(1),lra");
  has(t, "\n'\t=1,lra");
  has(t, "\n\"'\r=1\",lra");
  has(t, "\n-5,lra"); /* a number is no formula */
  has(t, "\na=1,lra");
  free(t);
}

static void test_latex__hostile_names__escaped(void **state) {
  (void)state;
  put("50%_$#{}~^\\<>|&", "dense", "{}");
  char *t = report(REPORT_LATEX);
  has(t, "50\\%\\_\\$\\#\\{\\}\\textasciitilde{}\\textasciicircum{}\\textbackslash{}\\textless{}\\textgreater{}\\textbar{}\\&");
  has(t, "\\toprule");
  free(t);
}

static void test_latex__characters_beyond_its_fonts__as_numbers(void **state) {
  (void)state;
  put("\xc3\xa9\xc3\x97\xce\xb1\xe6\x97\xa5\xf0\x9f\x98\x80", "dense", "{}");
  char *t = report(REPORT_LATEX);
  has(t, "\xc3\xa9\xc3\x97U+03B1U+65E5U+1F600");
  free(t);
}

static void test_latex__long_and_wide__goes_on_in_further_floats(void **state) {
  (void)state;
  char params[32];
  for (int k = 1; k <= 50; k++) (void)snprintf(params, sizeof params, "{\"k\":%d}", k), put("e", "topk", params);
  char *t = report(REPORT_LATEX);
  int begun = 0, ended = 0, longest = 0, rows = 0;
  for (const char *p = t, *end; *p; p = end + 1) {
    end = strchr(p, '\n');
    begun += !strncmp(p, "\\begin{table}", 13), ended += !strncmp(p, "\\end{table}", 11);
    rows = strncmp(p, "{}topk", 6) ? 0 : rows + 1;
    longest = rows > longest ? rows : longest;
  }
  assert_int_equal(begun, ended);
  assert_true(begun >= 4); /* two widths times two lengths */
  assert_true(longest <= 40);
  has(t, "(continued)");
  free(t);
}

/* --- published values of LongEval --------------------------------------------------------------------------------------- */

static void test_published__lengths__beside_rows_of_the_same_length(void **state) {
  (void)state;
  char *text = NULL;
  size_t size = 0;
  int n = 0;
  ice_err e = {0};
  for (int i = 0; i < 2; i++)
    results_put(s, &(results_row){.experiment = "e", .task = "longeval/lines", .method = "iceformer", .accuracy = 0.5, .ms = 9, .vanilla = 2, .dense = 1,
                                  .error = 0.1, .mass = 0.9, .seed = 1, .examples = 50, .n = i ? 4805 : 11767, .length = i ? 200 : 500});
  put("e", "dense", "{}");
  FILE *f = open_memstream(&text, &size);
  if (published_write(s, &(report_options){.experiment = "e"}, f, &n, &e) != ICE_OK) fail_msg("%s", e.text);
  (void)fclose(f);
  assert_int_equal(n, 2); /* not that of ListOps */
  has(text, "|    500 | iceformer |");
  has(text, " 0.5000 |     0.900 |");
  free(text);
}

static void test_published__malformed__names_the_line_of_longeval(void **state) {
  (void)state;
  static const char head[] = "task,method,model,length,metric,value,error,source\n";
  static const char *const bad[] = {"a,b\n", "t,m,x,200,speed,1,0,s\n", "t,m,x,-1,accuracy,1,0,s\n", "t,m,x,1,accuracy,0,0,s\n", "t,m,x,1,accuracy,1,2,s\n",
                                    "t,m,x,1,accuracy,1,0,s,more\n", ",m,x,1,accuracy,1,0,s\n"};
  char text[300], *json = NULL;
  ice_err e = {0};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    (void)snprintf(text, sizeof text, "# note\n%s%s", head, bad[i]);
    assert_int_equal(published_parse(text, &json, &e), ICE_DATA);
    has(e.text, "line 3");
    assert_null(json);
  }
  assert_int_equal(published_parse("task,method\n", &json, &e), ICE_DATA);
  if (published_read(&json, &e) != ICE_OK) fail_msg("%s", e.text);
  has(json, "vicuna-7b-v1.5-16k");
  free(json);
}

/* --- nothing ------------------------------------------------------------------------------------------------------------ */

static void test_report__nothing__no_verdict(void **state) {
  (void)state;
  ice_err e = {0};
  assert_int_equal(report_write(s, &(report_options){.experiment = "none"}, stdout, &e), ICE_NO_VERDICT);
  has(e.text, "'none'");
  has(e.text, "icebench run");
  assert_int_equal(report_write(s, &(report_options){.format = REPORT_CSV}, stdout, &e), ICE_NO_VERDICT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_rows__methods_as_registered_and_parameters_by_value),
      TEST(test_rows__parameters_that_are_not_defaults__are_named),
      TEST(test_groups__seeds_share_a_table_tasks_and_experiments_do_not),
      TEST(test_md__columns__line_up_whatever_the_characters),
      TEST(test_md__narrow_terminal__speed_ups_stay_together),
      TEST(test_row__without_result__tells_why),
      TEST(test_row__partial_and_labelled__says_so),
      TEST(test_row__one_speed_up_unknown__the_other_is_not_shown_alone),
      TEST(test_times__unit__fits_the_fastest),
      TEST(test_json__every_column__null_for_unknown),
      TEST(test_csv__quotes_commas_newlines__quoted),
      TEST(test_csv__formulas__get_an_apostrophe),
      TEST(test_latex__hostile_names__escaped),
      TEST(test_latex__characters_beyond_its_fonts__as_numbers),
      TEST(test_latex__long_and_wide__goes_on_in_further_floats),
      TEST(test_published__lengths__beside_rows_of_the_same_length),
      TEST(test_published__malformed__names_the_line_of_longeval),
      TEST(test_report__nothing__no_verdict),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
