/* test_report_golden.c - reports of a fixed database, byte for byte as in report.{md,csv,json,tex,html} beside this file.
 * `make golden` writes them anew (test_report_golden --write FOLDER); the difference is to be reviewed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/report.h"
#include "tests/support/results.h"
#include "tests/support/scratch.h"

static const struct {
  const char *file;
  report_options o;
} golden[] = {{"report.md", {.format = REPORT_MD}},
              {"report-narrow.md", {.format = REPORT_MD, .width = 100}},
              {"report.csv", {.format = REPORT_CSV}},
              {"report.json", {.format = REPORT_JSON}},
              {"report.tex", {.format = REPORT_LATEX}},
              {"report.html", {.format = REPORT_HTML}}};
enum { GOLDEN = sizeof golden / sizeof *golden };
static const char *folder = "tests/regression";
static int writing;

static char *report(const report_options *o, size_t *n) {
  store *s = NULL;
  ice_err e = {0};
  char *text = NULL;
  const char *path = scratch_path("demo.db");
  assert_int_equal(results_make(path), 0);
  if (store_open(path, STORE_READ, &s, &e) != ICE_OK) fail_msg("%s", e.text);
  FILE *f = open_memstream(&text, n);
  if (report_write(s, o, f, &e) != ICE_OK) fail_msg("%s", e.text);
  (void)fclose(f);
  store_close(s);
  (void)remove(path);
  return text;
}

/* Cuts what stands between `from` and `to`, wherever that is: style, scripts, their hashes and data have tests of their own. */
static void cut(char *text, size_t *n, const char *from, const char *to) {
  for (char *at = text; (at = strstr(at, from)); at += strlen(from)) {
    char *inside = at + strlen(from), *end = strstr(inside, to);
    assert_non_null(end);
    memmove(inside, end, strlen(end) + 1);
    *n -= (size_t)(end - inside);
  }
}

static void compare(const char *name, const char *path, const char *text, size_t n) {
  FILE *f = fopen(path, "rb");
  if (!f) fail_msg("%s is missing: make golden", path);
  char *want = malloc(n + 2);
  const size_t got = fread(want, 1, n + 2, f);
  (void)fclose(f);
  size_t at = 0, line = 1;
  while (at < n && at < got && text[at] == want[at]) line += text[at++] == '\n';
  if (at < n || got != n)
    fail_msg("%s differs from line %zu on: '%.*s'; if that is meant: make golden, review the difference", name, line, (int)strcspn(text + at, "\n"), text + at);
  free(want);
}

static void test_report__fixed_results__as_in_the_files(void **state) {
  (void)state;
  for (int i = 0; i < GOLDEN; i++) {
    char path[300];
    size_t n = 0;
    char *text = report(&golden[i].o, &n);
    if (golden[i].o.format == REPORT_HTML) {
      cut(text, &n, "<style>", "</style>");
      cut(text, &n, "<script>", "</script>");
      cut(text, &n, "id=\"data\">", "</script>");
      cut(text, &n, "'sha256-", "'");
    }
    (void)snprintf(path, sizeof path, "%s/%s", folder, golden[i].file);
    if (writing) {
      FILE *f = fopen(path, "wb");
      assert_non_null(f);
      assert_int_equal(fwrite(text, 1, n, f), n);
      assert_int_equal(fclose(f), 0);
    } else compare(golden[i].file, path, text, n);
    free(text);
  }
}

int main(int argc, char **argv) {
  writing = argc == 3 && !strcmp(argv[1], "--write");
  if (writing) folder = argv[2];
  const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_report__fixed_results__as_in_the_files, scratch_setup, scratch_teardown)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
