/* test_merge.c - the union of databases: nothing lost, nothing twice, conflicts and edits refused with their origins. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "harness/machine.h"
#include "harness/sql.h"
#include "harness/store_digest.h"
#include "harness/store_merge.h"
#include "tests/support/scratch.h"

/* The machine that stores from now on. */
static void on_machine(const char *id) {
  machine_facts *m = (machine_facts *)(uintptr_t)machine_get();
  (void)snprintf(m->id, sizeof m->id, "%s", id);
  (void)snprintf(m->cpu, sizeof m->cpu, "CPU of %s", id);
}

static int setup(void **state) {
  (void)setenv("ICEBENCH_ALLOW_DEBUG", "1", 1);
  on_machine("m0");
  return scratch_setup(state);
}

static store *open_ok(const char *name, store_mode mode) {
  store *s = NULL;
  ice_err e = {0};
  if (store_open(scratch_path(name), mode, &s, &e) != ICE_OK) fail_msg("%s", e.text);
  return s;
}

/* One more attempt at a cell. */
static void put_at(const char *name, const char *key, const char *status, double accuracy, int64_t started) {
  const store_metric metric[] = {{"accuracy", accuracy, accuracy - 0.1, accuracy + 0.1}, {"attention_ns", 1e6 * accuracy, NAN, NAN}};
  const store_sample sample[] = {{"dense", "attention", 0, 100}, {"dense", "attention", 1, (int64_t)(1000 * accuracy)}};
  const store_prediction prediction[] = {{5, 3, 3}, {9, 1, 2}};
  const store_cell c = {.key = key, .experiment = "e", .task = "t", .model = "m", .method = "topk", .method_version = "1", .params = "{\"k\":8}",
                        .seed = 1, .n = 9, .heads = 1, .head_dim = 1, .layers = 1, .threads = 1, .isa = "avx2", .examples = 2, .status = status,
                        .data_hash = "d", .model_hash = "h", .started_utc_ms = started, .wall_ms = 7, .metric = metric, .n_metrics = 2,
                        .sample = sample, .n_samples = 2, .prediction = prediction, .n_predictions = 2};
  store *s = open_ok(name, STORE_WRITE);
  ice_err e = {0};
  if (store_put(s, &c, 1, &e) != ICE_OK) fail_msg("%s", e.text);
  store_close(s);
}
static void put(const char *name, const char *key, const char *status, double accuracy) {
  static int64_t clock = 1700000000000;
  put_at(name, key, status, accuracy, clock += 60000);
}

static char got[16384];
static int take(void *ctx, int columns, char **names, char **values) {
  (void)ctx, (void)names;
  for (int i = 0; i < columns; i++) {
    const size_t n = strlen(got);
    (void)snprintf(got + n, sizeof got - n, "%s|", values[i] ? values[i] : "NULL");
  }
  return 0;
}
static const char *ask(const char *name, const char *sql) {
  store *s = open_ok(name, STORE_READ);
  ice_err e = {0};
  got[0] = 0;
  if (store_query(s, sql, NULL, 0, take, NULL, &e) != ICE_OK) fail_msg("%s", e.text);
  store_close(s);
  return got;
}
static void alter(const char *name, const char *sql) {
  sqlite3 *db;
  assert_int_equal(sqlite3_open(scratch_path(name), &db), SQLITE_OK);
  if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) fail_msg("%s", sqlite3_errmsg(db));
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static store_merged done[2];
static ice_err fault;
/* Merges one source, or two. */
static int merge(const char *out, const char *a, const char *b, store_keep keep) {
  store *o = open_ok(out, STORE_WRITE), *in[2] = {open_ok(a, STORE_READ), b ? open_ok(b, STORE_READ) : NULL};
  fault = (ice_err){0};
  const int rc = store_merge(o, in, b ? 2 : 1, keep, done, &fault);
  store_close(o);
  store_close(in[0]);
  store_close(in[1]);
  return rc;
}
static void merge_ok(const char *out, const char *a, const char *b) {
  if (merge(out, a, b, STORE_KEEP_NEITHER) != ICE_OK) fail_msg("%s", fault.text);
}
static void refused(int code, const char *const *words) {
  assert_int_equal(fault.code, code);
  for (; *words; words++)
    if (!strstr(fault.text, *words)) fail_msg("'%s' does not say '%s'", fault.text, *words);
}
#define SAYS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Everything a database says, but for ids and the moments of merging. */
static const char everything[] =
    "SELECT a.key, a.attempt, a.replaced_utc_ms IS NULL, a.status, a.started_utc_ms, a.digest, k.cpu, b.git_commit, "
    "(SELECT group_concat(name || value || coalesce(lo, 'NULL')) FROM metric WHERE cell_id = a.id), "
    "(SELECT group_concat(round || method || phase || ns) FROM sample WHERE cell_id = a.id), (SELECT hex(data) FROM prediction WHERE cell_id = a.id) "
    "FROM attempt a JOIN machine k ON k.id = a.machine_id JOIN build b ON b.id = a.build_id ORDER BY a.key, a.digest";
static const char values[] = "SELECT c.key, c.status, (SELECT value FROM metric WHERE cell_id = c.id AND name = 'accuracy') FROM cell c ORDER BY key";

static void test_merge__two_machines__union_with_all_that_belongs_to_it(void **state) {
  (void)state;
  put("a.db", "k1", "ok", 0.25);
  put("a.db", "k2", "timeout", 0.5);
  on_machine("m1");
  put("b.db", "k3", "ok", 0.75);
  merge_ok("out.db", "a.db", "b.db");
  assert_int_equal(done[0].added, 2);
  assert_int_equal(done[1].added, 1);
  assert_string_equal(ask("out.db", values), "k1|ok|0.25|k2|timeout|0.5|k3|ok|0.75|");
  assert_string_equal(ask("out.db", "SELECT count(*), sum(ns) FROM sample"), "6|1800|");
  assert_string_equal(ask("out.db", "SELECT machine FROM results ORDER BY created_utc"), "CPU of m0|CPU of m0|CPU of m1|");
  assert_string_equal(ask("out.db", "SELECT count(*) FROM build"), "1|"); /* the same build is one */
  assert_string_equal(ask("out.db", "PRAGMA foreign_key_check"), "");
  /* each row as it was */
  char was[sizeof got];
  (void)snprintf(was, sizeof was, "%s", ask("b.db", everything));
  assert_non_null(strstr(ask("out.db", everything), was));
}

static void test_merge__again__changes_nothing(void **state) {
  (void)state;
  put("a.db", "k1", "failed", 0.25);
  put("a.db", "k1", "ok", 0.5);
  put("b.db", "k2", "ok", 0.75);
  merge_ok("out.db", "a.db", "b.db");
  char before[sizeof got];
  (void)snprintf(before, sizeof before, "%s", ask("out.db", everything));
  assert_string_equal(ask("out.db", values), "k1|ok|0.5|k2|ok|0.75|");
  merge_ok("out.db", "b.db", "a.db");
  assert_int_equal(done[0].added + done[1].added + done[0].retired + done[1].retired, 0);
  assert_int_equal(done[0].known + done[1].known, 3);
  assert_string_equal(ask("out.db", everything), before);
  merge_ok("two.db", "out.db", NULL); /* and a merged one is a source like any other */
  assert_string_equal(ask("two.db", everything), before);
}

static void test_merge__order_of_sources__same_rows_count(void **state) {
  (void)state;
  put("a.db", "k1", "ok", 0.25);
  put("a.db", "k2", "failed", 0.1);
  on_machine("m1");
  put("b.db", "k2", "ok", 0.5);
  put("b.db", "k1", "failed", 0.2);
  merge_ok("ab.db", "a.db", "b.db");
  merge_ok("ba.db", "b.db", "a.db");
  assert_string_equal(ask("ab.db", values), "k1|ok|0.25|k2|ok|0.5|");
  assert_string_equal(ask("ba.db", values), "k1|ok|0.25|k2|ok|0.5|");
  assert_string_equal(ask("ab.db", "SELECT count(*) FROM history"), "2|");
  assert_string_equal(ask("ba.db", "SELECT count(*) FROM history"), "2|");
}

/* The source went on from what the target has, or the target from what the source has. */
static void test_merge__one_knows_the_other__the_later_counts(void **state) {
  (void)state;
  put("a.db", "k", "ok", 0.25);
  merge_ok("out.db", "a.db", NULL);
  put("a.db", "k", "ok", 0.5); /* --force */
  merge_ok("out.db", "a.db", NULL);
  assert_int_equal(done[0].added, 1);
  assert_int_equal(done[0].retired, 1);
  assert_string_equal(ask("out.db", values), "k|ok|0.5|");
  merge_ok("old.db", "out.db", NULL);
  put("out.db", "k", "failed", 0.75); /* --force again */
  merge_ok("out.db", "old.db", NULL);
  assert_string_equal(ask("out.db", values), "k|failed|0.75|");
  assert_string_equal(ask("out.db", "SELECT group_concat(attempt) FROM attempt"), "1,2,3|");
}

static void test_merge__both_failed__the_later_start_counts(void **state) {
  (void)state;
  put("a.db", "k", "failed", 0.25);
  put("b.db", "k", "oom", 0.5);
  merge_ok("ab.db", "a.db", "b.db");
  merge_ok("ba.db", "b.db", "a.db");
  assert_string_equal(ask("ab.db", values), "k|oom|0.5|");
  assert_string_equal(ask("ba.db", values), "k|oom|0.5|");
}

static void test_merge__conflict__both_origins_named_and_nothing_merged(void **state) {
  (void)state;
  put("out.db", "k1", "ok", 0.25);
  on_machine("m1");
  put("a.db", "k0", "ok", 0.5);
  put("a.db", "k1", "ok", 0.5);
  char before[sizeof got];
  (void)snprintf(before, sizeof before, "%s", ask("out.db", everything));
  assert_int_equal(merge("out.db", "a.db", NULL, STORE_KEEP_NEITHER), ICE_USAGE);
  refused(ICE_USAGE, SAYS("topk {\"k\":8} seed 1", "out.db (CPU of m0, 2023-11-14", "a.db (CPU of m1, 2023-11-14", "--keep"));
  assert_string_equal(ask("out.db", everything), before);
  /* two sources: their files are named, not the target */
  put("b.db", "k0", "ok", 0.75);
  assert_int_equal(merge("new.db", "a.db", "b.db", STORE_KEEP_NEITHER), ICE_USAGE);
  refused(ICE_USAGE, SAYS("a.db (", "b.db ("));
  assert_null(strstr(fault.text, "new.db"));
  assert_string_equal(ask("new.db", "SELECT count(*) FROM attempt"), "0|");
}

static void test_merge__conflict_decided__the_other_is_history(void **state) {
  (void)state;
  put("b.db", "k", "ok", 0.5);
  put("a.db", "k", "ok", 0.25);
  assert_int_equal(merge("out.db", "b.db", "a.db", STORE_KEEP_OUT), ICE_OK);
  assert_string_equal(ask("out.db", values), "k|ok|0.5|");
  assert_int_equal(merge("new.db", "b.db", "a.db", STORE_KEEP_NEWEST), ICE_OK);
  assert_string_equal(ask("new.db", values), "k|ok|0.25|");
  assert_int_equal(merge("wen.db", "a.db", "b.db", STORE_KEEP_NEWEST), ICE_OK);
  assert_string_equal(ask("wen.db", values), "k|ok|0.25|");
  assert_string_equal(ask("new.db", "SELECT count(*) FROM history"), "1|");
  merge_ok("out.db", "a.db", "b.db"); /* decided once, it is no conflict any more */
  assert_string_equal(ask("out.db", values), "k|ok|0.5|");
}

static void test_merge__edited_row__refused(void **state) {
  (void)state;
  put("a.db", "k1", "ok", 0.25);
  alter("a.db", "UPDATE metric SET value = 0.99 WHERE name = 'accuracy'");
  assert_int_equal(merge("out.db", "a.db", NULL, STORE_KEEP_NEWEST), ICE_DB);
  refused(ICE_DB, SAYS("a.db: row 1 ", "was edited"));
  assert_string_equal(ask("out.db", "SELECT count(*) FROM attempt"), "0|");
  /* in the target, where the cell meets one */
  put("t.db", "k1", "ok", 0.25);
  merge_ok("s.db", "t.db", NULL);
  alter("t.db", "UPDATE sample SET ns = 1");
  assert_int_equal(merge("t.db", "s.db", NULL, STORE_KEEP_NEWEST), ICE_DB);
  refused(ICE_DB, SAYS("t.db: row 1 ", "was edited"));
}

/* An edit that hides its digest is still the same attempt twice. */
static void test_merge__edited_row_without_digest__refused(void **state) {
  (void)state;
  put("a.db", "k1", "failed", 0.25);
  merge_ok("out.db", "a.db", NULL);
  alter("a.db", "UPDATE attempt SET status = 'ok', digest = NULL");
  assert_int_equal(merge("out.db", "a.db", NULL, STORE_KEEP_NEWEST), ICE_DB);
  refused(ICE_DB, SAYS("out.db row 1", "a.db row 1", "one of them was edited"));
}

static void test_merge__machine_with_other_facts__refused(void **state) {
  (void)state;
  put("a.db", "k1", "ok", 0.25);
  put("b.db", "k2", "ok", 0.5);
  alter("b.db", "UPDATE machine SET cpu = 'faster'; UPDATE attempt SET digest = NULL");
  assert_int_equal(merge("out.db", "a.db", "b.db", STORE_KEEP_NEITHER), ICE_DB);
  refused(ICE_DB, SAYS("b.db: row 1 ", "machine m0"));
}

static void test_merge__source_of_an_older_schema__is_read(void **state) {
  (void)state;
  alter("old.db", store_migrations[0]);
  alter("old.db", "PRAGMA user_version = 1; INSERT INTO machine VALUES ('m9', 'Old CPU', 'none', 2, 8, 'Linux 5');"
                  "INSERT INTO build VALUES (7, '0.1.0', 'c0ffee', 1, 'release', 'gcc 12', '-O3', 'OpenBLAS');"
                  "INSERT INTO attempt VALUES (1, 'old', 1, NULL, 'e', 't', 'm', 'dense', '1', '{}', '1', 9, 1, 1, 1, 0, 1, 'avx2', 5, 0,"
                  " 'ok', NULL, NULL, NULL, 'd', 'h', 'm9', 7, 1600000000000, 5); INSERT INTO metric VALUES (1, 'accuracy', 0.5, NULL, NULL);");
  put("out.db", "k1", "ok", 0.25);
  merge_ok("out.db", "old.db", NULL);
  assert_string_equal(ask("out.db", values), "k1|ok|0.25|old|ok|0.5|");
  assert_string_equal(ask("out.db", "SELECT git_commit FROM provenance WHERE cpu = 'Old CPU'"), "c0ffee|");
  merge_ok("out.db", "old.db", NULL);
  assert_int_equal(done[0].known, 1);
  assert_string_equal(ask("old.db", "PRAGMA integrity_check"), "ok|");
}

/* Calibrations are no cells: those that are not there yet are added, with the machine and build they are of. */
static void test_merge__noise_floors__come_along_once(void **state) {
  (void)state;
  put("out.db", "k1", "ok", 0.25);
  alter("out.db", "UPDATE build SET variant = 'other'; UPDATE attempt SET digest = NULL"); /* so that builds have other ids */
  on_machine("m1");
  put("a.db", "k2", "ok", 0.5);
  alter("a.db", "INSERT INTO noise_floor VALUES (5, 'm1', 1, 1700000000000, 't', 'm', 'dense', '{}', 1, 'avx2', 9, 20, 0.05, 0.02, '{}')");
  merge_ok("out.db", "a.db", NULL);
  merge_ok("out.db", "a.db", NULL);
  assert_string_equal(ask("out.db", "SELECT k.cpu, b.variant = 'other', f.floor FROM noise_floor f JOIN machine k ON k.id = f.machine_id "
                                    "JOIN build b ON b.id = f.build_id"), "CPU of m1|0|0.02|");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, scratch_teardown)
  const struct CMUnitTest tests[] = {
      TEST(test_merge__two_machines__union_with_all_that_belongs_to_it),
      TEST(test_merge__again__changes_nothing),
      TEST(test_merge__order_of_sources__same_rows_count),
      TEST(test_merge__one_knows_the_other__the_later_counts),
      TEST(test_merge__both_failed__the_later_start_counts),
      TEST(test_merge__conflict__both_origins_named_and_nothing_merged),
      TEST(test_merge__conflict_decided__the_other_is_history),
      TEST(test_merge__edited_row__refused),
      TEST(test_merge__edited_row_without_digest__refused),
      TEST(test_merge__machine_with_other_facts__refused),
      TEST(test_merge__source_of_an_older_schema__is_read),
      TEST(test_merge__noise_floors__come_along_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
