/* test_report_html.c - the HTML report without a browser: hostile names stay text, the document is well formed, every row is in it twice (table and
 * data), nothing is fetched. What happens in a browser: tests/cli/test_html.sh. */
#include <ctype.h>
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
#include "tests/support/results.h"
#include "tests/support/scratch.h"

static store *s;
static char *page;

static int setup(void **state) {
  page = NULL;
  return results_setup(state, &s);
}
static int teardown(void **state) {
  free(page);
  return results_teardown(state, s);
}

static void put(const char *experiment, const char *method, const char *params) {
  results_put(s, &(results_row){.experiment = experiment, .method = method, .params = params, .accuracy = 0.4, .ms = 4, .vanilla = 2.5, .dense = 1, .error = 0.1,
                                .mass = NAN, .seed = 1, .examples = 500, .label = "generated data"});
}
static void write_page(void) {
  size_t n = 0;
  ice_err e = {0};
  free(page);
  FILE *f = open_memstream(&page, &n);
  if (report_write(s, &(report_options){.format = REPORT_HTML}, f, &e) != ICE_OK) fail_msg("%s", e.text);
  (void)fclose(f);
  assert_int_equal(strlen(page), n);
}
static int count(const char *text, const char *part) {
  int n = 0;
  for (const char *at = text; (at = strstr(at, part)); at += strlen(part)) n++;
  return n;
}
static void has(const char *part) {
  if (!strstr(page, part)) fail_msg("'%s' is missing", part);
}
static void lacks(const char *part) {
  if (strstr(page, part)) fail_msg("'%s' is there: %.80s", part, strstr(page, part));
}

/* --- well formed -------------------------------------------------------------------------------------------------------- */

enum { DEPTH = 32, NAME = 16 };

/* Passes over the attributes of a tag: each is a bare word or has its value between double quotes. Returns what follows '>'. */
static const char *pass_attributes(const char *at, const char *tag) {
  while (*at != '>') {
    at += strspn(at, " \n");
    if (*at == '>') break;
    const size_t name = strcspn(at, " \n=>\"'<");
    if (!name) fail_msg("an attribute of %s: %.40s", tag, at);
    at += name;
    if (*at != '=') continue;
    if (at[1] != '"' || !strchr(at + 2, '"')) fail_msg("a value without quotes in %s: %.40s", tag, at);
    at = strchr(at + 2, '"') + 1;
    if (!strchr(" \n>", *at)) fail_msg("text behind a value in %s: %.40s", tag, at);
  }
  return at + 1;
}

static int is_one_of(const char *name, const char *const *list) {
  for (; *list; list++)
    if (!strcmp(name, *list)) return 1;
  return 0;
}

/* Every tag is one that a report has, and is closed in its turn; scripts and style end where they should. */
static void check_form(void) {
  static const char *const known[] = {"html", "head", "meta", "title", "style", "script", "body", "a", "header", "h1", "h2", "main", "section", "p", "div",
                                      "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "b", "noscript", NULL};
  static const char *const raw[] = {"style", "script", NULL};
  char open[DEPTH][NAME] = {{0}};
  int depth = 0;
  if (strncmp(page, "<!DOCTYPE html>\n", 16)) fail_msg("no doctype");
  for (const char *at = page + 16; (at = strchr(at, '<'));) {
    const int closing = *++at == '/';
    char name[NAME] = "";
    at += closing;
    for (size_t i = 0; i + 1 < NAME && isalnum((unsigned char)*at); i++) name[i] = *at++;
    if (!is_one_of(name, known)) fail_msg("a tag '%s': %.40s", name, at);
    if (closing) {
      if (*at != '>' || depth == 0 || strcmp(open[--depth], name)) fail_msg("</%s> closes <%s>", name, open[depth]);
      continue;
    }
    at = pass_attributes(at, name);
    if (!strcmp(name, "meta")) continue;
    assert_true(depth < DEPTH);
    (void)snprintf(open[depth++], NAME, "%s", name);
    char end[NAME + 4];
    (void)snprintf(end, sizeof end, "</%s>", name);
    if (is_one_of(name, raw) && !(at = strstr(at, end))) fail_msg("<%s> does not end", name);
  }
  assert_int_equal(depth, 0);
}

/* The data as the page's script reads them. */
static json_t *data(void) {
  static const char start[] = "<script type=\"application/json\" id=\"data\">";
  const char *from = strstr(page, start), *to = from ? strstr(from, "</script>") : NULL;
  if (!to) fail_msg("no data");
  json_error_t why;
  json_t *d = json_loadb(from + sizeof start - 1, (size_t)(to - from) - sizeof start + 1, 0, &why);
  if (!d) fail_msg("data: %s", why.text);
  return d;
}

static void test_page__hostile_names__stay_text(void **state) {
  (void)state;
  static const char *const name[] = {"<script>alert(1)</script>", "</script><script>x()</script>", "\"><img src=x onerror=alert(1)>", "'\"&amp;<!--", "line\nbreak\t|,;", "bad\xff\x01utf", "]]></style>"};
  enum { NAMES = sizeof name / sizeof *name };
  for (int i = 0; i < NAMES; i++) put(name[i], name[i], "{\"k\":\"</script><i onclick=\\\"x\\\">\"}");
  write_page();
  check_form();
  assert_int_equal(count(page, "<script"), 3); /* data, tables, charts */
  assert_int_equal(count(page, "</script"), 3);
  lacks("<img");
  lacks("<i ");
  has("&lt;script&gt;alert(1)&lt;/script&gt;: lra/listops");
  json_t *d = data(), *rows = json_object_get(d, "rows");
  assert_int_equal(json_array_size(rows), NAMES);
  int found = 0;
  for (size_t i = 0; i < NAMES; i++)
    for (int k = 0; k < NAMES; k++) found += !strcmp(json_string_value(json_object_get(json_array_get(rows, i), "method")), name[k]);
  assert_int_equal(found, NAMES - 1); /* one is no UTF-8 */
  json_decref(d);
}

static void test_page__every_row__in_table_and_data(void **state) {
  (void)state;
  char params[32], want[64];
  for (int k = 1; k <= 40; k++) (void)snprintf(params, sizeof params, "{\"k\":%d}", k), put("e", k % 2 ? "topk" : "iceformer", params);
  results_put(s, &(results_row){.experiment = "e", .method = "dense", .status = "timeout", .reason = "600 s, the limit", .seed = 1});
  put("f", "dense", "{}");
  write_page();
  check_form();
  json_t *d = data(), *rows = json_object_get(d, "rows"), *groups = json_object_get(d, "groups");
  assert_int_equal(json_array_size(rows), 42);
  for (int i = 0; i < 42; i++) {
    (void)snprintf(want, sizeof want, "<tr data-row=\"%d\">", i);
    assert_int_equal(count(page, want), 1);
    assert_non_null(json_object_get(json_object_get(d, "build"), /* further facts, by the cell's number */
                                    (snprintf(want, sizeof want, "%lld", (long long)json_integer_value(json_object_get(json_array_get(rows, (size_t)i), "cell_id"))), want)));
  }
  assert_int_equal(json_array_size(groups), 2);
  assert_int_equal(json_integer_value(json_object_get(json_array_get(groups, 1), "from")), 41);
  assert_int_equal(count(page, "<section data-group="), 2);
  has("timeout: 600 s, the limit");
  has("<td data-v=\"2.5\">2.50 [2.38, 2.62]</td>"); /* sorts by the number itself */
  has("data-legend=\"how many times faster than `dense`");
  json_decref(d);
}

static void test_page__nothing__is_fetched(void **state) {
  (void)state;
  put("e", "dense", "{}");
  write_page();
  static const char *const fetching[] = {"http:", "https:", " src=", "url(", "@import", "fetch(", "XMLHttpRequest", "import(", "WebSocket", "sendBeacon", "<link", "<base"};
  for (size_t i = 0; i < sizeof fetching / sizeof *fetching; i++) lacks(fetching[i]);
  for (const char *at = page; (at = strstr(at, "href=\"")); at++)
    if (at[6] != '#') fail_msg("a link that leaves the page: %.60s", at);
  has("content=\"default-src 'none'; style-src 'sha256-");
}

static void test_page__measured_twice__has_a_history(void **state) {
  (void)state;
  ice_err e = {0};
  for (int i = 0; i < 2; i++) {
    const store_metric m[] = {{"attention_ns", 4e6 + i * 1e6, 3e6, 6e6}};
    const store_cell c = {.key = "{}", .experiment = "e", .task = "lra/listops", .model = "m", .method = "iceformer", .method_version = "1", .params = "{\"k\":16}",
                          .seed = 1, .threads = 1, .isa = "avx2", .status = "ok", .config = "{}", .started_utc_ms = 1700000000000 + i, .metric = m, .n_metrics = 1};
    if (store_put(s, &c, 1, &e) != ICE_OK) fail_msg("%s", e.text);
  }
  write_page();
  json_t *d = data(), *line = json_array_get(json_object_get(d, "history"), 0), *points = json_object_get(line, "points");
  assert_int_equal(json_array_size(points), 2);
  assert_string_equal(json_string_value(json_object_get(line, "params_text")), "k=16");
  assert_int_equal(json_real_value(json_object_get(json_array_get(points, 1), "value")), 5000000);
  assert_int_equal(json_real_value(json_object_get(json_array_get(points, 1), "hi")), 6000000);
  json_decref(d);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_page__hostile_names__stay_text),
      TEST(test_page__every_row__in_table_and_data),
      TEST(test_page__nothing__is_fetched),
      TEST(test_page__measured_twice__has_a_history),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
