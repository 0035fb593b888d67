/* test_report_mixed.c - rows that do not belong into one table are told apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "harness/report_mixed.h"
#include "tests/support/results.h"
#include "tests/support/scratch.h"

/* What is said of the fixture (experiment demo) after a change to it; NULL when it is fine. */
static const char *after(const char *sql, const char *experiment) {
  static ice_err e;
  sqlite3 *db;
  store *s;
  char name[64];
  static int number;
  (void)snprintf(name, sizeof name, "r%d.db", number++);
  const char *path = scratch_path(name);
  assert_int_equal(results_make(path), 0);
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
  if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) fail_msg("%s: %s", sql, sqlite3_errmsg(db));
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  e = (ice_err){0};
  if (store_open(path, STORE_READ, &s, &e) != ICE_OK) fail_msg("%s", e.text);
  const int rc = report_refuse_mixed(s, experiment, &e);
  store_close(s);
  if (rc == ICE_OK) return NULL;
  assert_int_equal(rc, ICE_USAGE);
  return e.text;
}
static void says(const char *text, const char *word) {
  assert_non_null(text);
  if (!strstr(text, word)) fail_msg("'%s' does not say '%s'", text, word);
}

#define WHOLE "DELETE FROM attempt WHERE partial; "
#define BUILD "INSERT INTO build SELECT 2, version, 'deadbeefdeadbeef', 1, 'abcdef0123', variant, compiler, cflags, blas FROM build; "

static void test_mixed__partial_beside_full__refused(void **state) {
  (void)state;
  says(after("", NULL), "demo: lra/listops lra/listops/softmax: one table would mix rows of 2 numbers of examples, some partial");
  says(after("", NULL), "--allow-mixed");
  assert_null(after(WHOLE, NULL));
  assert_null(after("DELETE FROM attempt WHERE NOT partial", NULL)); /* all alike: their label is enough */
  assert_null(after("UPDATE attempt SET model = 'other' WHERE partial", NULL)); /* a table of its own */
}

static void test_mixed__builds__refused(void **state) {
  (void)state;
  const char *text = after(WHOLE BUILD "UPDATE attempt SET build_id = 2 WHERE method = 'dense'", "demo");
  says(text, "2 builds (");
  says(text, "deadbeefdead+abcdef");
  says(text, "c0ffee00c0ff");
  assert_null(after(WHOLE BUILD "UPDATE attempt SET build_id = 2", NULL));
  assert_null(after(WHOLE BUILD "UPDATE attempt SET build_id = 2 WHERE status <> 'ok'", NULL)); /* no numbers */
  assert_null(after(WHOLE BUILD "UPDATE attempt SET build_id = 2, experiment = 'x' WHERE method = 'dense'", NULL));
  assert_null(after(WHOLE BUILD "UPDATE attempt SET build_id = 2 WHERE method = 'dense'", "another"));
}

static void test_mixed__machines__refused(void **state) {
  (void)state;
  says(after(WHOLE "INSERT INTO machine SELECT 'm2', 'Faster CPU', caches, cores, memory_bytes, os FROM machine;"
                   "UPDATE attempt SET machine_id = 'm2' WHERE method = 'dense'", NULL),
       "2 machines (");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)
  const struct CMUnitTest tests[] = {TEST(test_mixed__partial_beside_full__refused), TEST(test_mixed__builds__refused),
                                     TEST(test_mixed__machines__refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
