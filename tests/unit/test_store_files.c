/* test_store_files.c - databases that are damaged, older, newer, locked or none: every fault one line with exit code 8; migration, provenance,
 * digests. What goes in and comes out: test_store.c. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "harness/machine.h"
#include "harness/sql.h"
#include "harness/store_digest.h"
#include "tests/support/db_case.h"

/* --- bad databases: exit code 8, one line, the next step -------------------------------------------------------------- */

static void test_open__absent__says_how_to_make_one(void **state) {
  (void)state;
  db_refused(STORE_READ, "icebench run makes");
  db_make_sub();
}

static void test_open__no_database__refused(void **state) {
  (void)state;
  char text[2000];
  memset(text, 'x', sizeof text);
  for (int whole = 0; whole < 2; whole++) { /* long, and shorter than any database */
    db_write_file(text, whole ? sizeof text : 6);
    db_refused(STORE_READ, "no SQLite database");
    db_refused(STORE_WRITE, "no SQLite database");
  }
}

static void test_open__truncated__refused_not_emptied(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  store_cell c = db_cell("k1", "dense", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  store_close(s);
  assert_int_equal(truncate(db_path, 5000), 0);
  db_refused(STORE_READ, "damaged");
  db_refused(STORE_WRITE, "damaged");
  assert_int_equal(truncate(db_path, 50), 0);
  db_refused(STORE_WRITE, "cut short");
}

static void test_open__damaged_page__not_written_to(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  store_cell c = db_cell("k1", "dense", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  const long page = atol(db_ask(s, "SELECT rootpage FROM sqlite_schema WHERE name = 'attempt'"));
  store_close(s);
  FILE *f = fopen(db_path, "r+b");
  assert_non_null(f);
  assert_int_equal(fseek(f, (page - 1) * 4096, SEEK_SET), 0);
  for (int i = 0; i < 4096; i++) (void)fputc(0xff, f);
  assert_int_equal(fclose(f), 0);
  db_refused(STORE_WRITE, "damaged");
}

static void test_open__database_of_another_program__left_alone(void **state) {
  (void)state;
  db_make_sub();
  sqlite3 *db;
  for (int version = 0; version < 2; version++) {
    assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, version ? "PRAGMA user_version = 7" : "CREATE TABLE x (y)", NULL, NULL, NULL), SQLITE_OK);
    db_refused(STORE_READ, "no icebench results");
    db_refused(STORE_WRITE, "no icebench results");
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE attempt (y); DROP TABLE attempt", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
  }
}

static void test_open__locked__says_so(void **state) {
  (void)state;
  store_close(db_open(STORE_WRITE));
  sqlite3 *db;
  assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(store_patience_ms, 10000);
  store_patience_ms = 50;
  db_refused(STORE_READ, "another process holds it");
  db_refused(STORE_WRITE, "another process holds it");
  store_patience_ms = 10000;
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  store_close(db_open(STORE_WRITE));
}

static void test_put__locked__is_refused_and_can_be_tried_again(void **state) {
  (void)state;
  store_patience_ms = 50;
  store *s = db_open(STORE_WRITE);
  store_patience_ms = 10000;
  sqlite3 *db;
  ice_err e = {0};
  store_cell c = db_cell("k1", "dense", "ok");
  assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(store_put(s, &c, 0, &e), ICE_DB);
  assert_non_null(strstr(e.text, "another process holds it"));
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  store_close(s);
}

static void test_open__path_through_a_file__refused(void **state) {
  (void)state;
  char kept[sizeof db_path];
  db_write_file("", 0);
  memcpy(kept, db_path, sizeof kept);
  strcat(db_path, "/x.db");
  store *s = NULL;
  ice_err e = {0};
  assert_int_equal(store_open(db_path, STORE_READ, &s, &e), ICE_DB);
  assert_int_equal(store_open(db_path, STORE_WRITE, &s, &e), ICE_DB);
  assert_non_null(strstr(e.text, kept));
  assert_null(s);
  memcpy(db_path, kept, sizeof kept);
}

static void test_open__names_of_databases_in_memory__refused(void **state) {
  (void)state;
  static const char *const name[] = {"", ":memory:"};
  for (int i = 0; i < 2; i++) {
    store *s = NULL;
    ice_err e = {0};
    assert_int_equal(store_open(name[i], STORE_WRITE, &s, &e), ICE_USAGE);
    assert_null(s);
  }
}

/* As a user without rights: root writes everywhere. */
static void test_open__read_only_folder__read_but_not_written(void **state) {
  (void)state;
  char dir[300];
  store_close(db_open(STORE_WRITE));
  (void)snprintf(dir, sizeof dir, "%s/sub", db_folder);
  assert_int_equal(chmod(db_folder, 0755) | chmod(db_path, 0444) | chmod(dir, 0555), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    store *s = NULL;
    ice_err e = {0};
    if (geteuid() == 0 && setuid(65534) != 0) _exit(1);
    if (store_open(db_path, STORE_READ, &s, &e) != ICE_OK) _exit(2);
    store_close(s);
    if (store_open(db_path, STORE_WRITE, &s, &e) != ICE_DB || !strstr(e.text, "writable")) _exit(3);
    strcat(db_path, "2");
    if (store_open(db_path, STORE_WRITE, &s, &e) != ICE_DB || !strstr(e.text, "writable")) _exit(4);
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(chmod(dir, 0755), 0);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_open__newer_schema__refused(void **state) {
  (void)state;
  store_close(db_open(STORE_WRITE));
  sqlite3 *db;
  assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 999", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  db_refused(STORE_READ, "newer");
  db_refused(STORE_WRITE, "newer");
}

/* With our mark and our tables, but numbers that no program of ours ever wrote. */
static void test_open__impossible_schema__refused(void **state) {
  (void)state;
  static const char *const sql[] = {"PRAGMA user_version = -5", "PRAGMA user_version = 0", "PRAGMA user_version = -2147483648"};
  store_close(db_open(STORE_WRITE));
  for (size_t i = 0; i < sizeof sql / sizeof *sql; i++) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql[i], NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    db_refused(STORE_READ, "which there never was");
    db_refused(STORE_WRITE, "which there never was");
  }
}

/* --- older schemas, provenance, digests ------------------------------------------------------------------------------- */

/* A database as the first release left it, with one row. */
static void make_older(void) {
  sqlite3 *db;
  char *why = NULL;
  db_make_sub();
  assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
  const int rc = sqlite3_exec(db, store_migrations[0], NULL, NULL, &why) ||
                 sqlite3_exec(db,
                              "PRAGMA user_version = 1; PRAGMA journal_mode = WAL;"
                              "INSERT INTO machine VALUES ('m1', 'Test CPU', 'L1d 32 KiB', 2, 8589934592, 'Linux 6.1');"
                              "INSERT INTO build VALUES (7, '0.1.0', 'c0ffee', 1, 'release', 'gcc 12', '-O3', 'OpenBLAS');"
                              "INSERT INTO attempt VALUES (1, 'old', 1, NULL, 'e', 't', 'm', 'dense', '1', '{}', '1', 9, 1, 1, 1, 0, 1, 'avx2', 5, 0,"
                              " 'ok', NULL, NULL, NULL, 'd', 'h', 'm1', 7, 1700000000000, 5);"
                              "INSERT INTO metric VALUES (1, 'accuracy', 0.5, NULL, NULL);",
                              NULL, NULL, &why);
  if (rc) fail_msg("%s", why);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void test_open__older_schema__read_as_it_is_and_migrated_by_a_writer(void **state) {
  (void)state;
  static const char *const question = "SELECT accuracy, git_commit, machine FROM results";
  make_older();
  store *s = db_open(STORE_READ);
  assert_string_equal(db_ask(s, question), "0.5|c0ffee|Test CPU|");
  assert_string_equal(db_ask(s, "SELECT kernel, git_diff, digest FROM provenance"), "Linux 6.1||NULL|");
  store_close(s);
  sqlite3 *db; /* the file has not been touched */
  sqlite3_stmt *st;
  assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &st, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(st), SQLITE_ROW);
  assert_int_equal(sqlite3_column_int(st, 0), 1);
  assert_int_equal(sqlite3_finalize(st), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  s = db_open(STORE_WRITE);
  assert_string_equal(db_ask(s, question), "0.5|c0ffee|Test CPU|");
  assert_string_equal(db_ask(s, "PRAGMA foreign_key_check"), "");
  assert_string_equal(db_ask(s, "PRAGMA foreign_keys"), "1|"); /* on again */
  assert_string_equal(db_ask(s, "SELECT id FROM build"), "7|");
  store_close(s);
}

static void test_open__older_schema_with_orphans__refused_and_left_as_it_is(void **state) {
  (void)state;
  sqlite3 *db;
  make_older();
  assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "PRAGMA foreign_keys = OFF; DELETE FROM build", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  db_refused(STORE_WRITE, "without their machine, build or cell");
  db_refused(STORE_READ, "without their machine, build or cell");
}

static void test_put__a_cell__has_its_provenance(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  store_cell c = db_cell("k", "dense", "ok");
  c.config = "{\"examples\":5}";
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  char want[900];
  const machine_facts *m = machine_get();
  (void)snprintf(want, sizeof want, "%s|%s|%d|%s|%s|d|h|{\"examples\":5}|64|", m->os, m->git_commit, m->git_dirty, m->git_diff, m->cflags);
  assert_string_equal(db_ask(s, "SELECT kernel, git_commit, git_dirty, git_diff, cflags, data_hash, model_hash, config, length(digest) FROM provenance"), want);
  assert_int_equal(strlen(m->git_diff), m->git_dirty ? 64 : 0);
  assert_string_equal(db_ask(s, "SELECT json_extract(environment, '$.OMP_WAIT_POLICY') FROM provenance"), "passive|");
  assert_string_equal(db_ask(s, "SELECT json_extract(environment, '$.HOME') FROM provenance"), "NULL|"); /* nobody's business */
  store_close(s);
}

static void digest_of(int64_t id, char out[STORE_DIGEST]) {
  store *s = db_open(STORE_READ);
  ice_err e = {0};
  if (store_digest(s, id, out, &e) != ICE_OK) fail_msg("%s", e.text);
  store_close(s);
}

/* Whatever is edited, the digest shows it; where the row lies does not matter. */
static void test_digest__every_edit__shows(void **state) {
  (void)state;
  static const char *const edit[] = {
      "UPDATE attempt SET status = 'failed'", "UPDATE attempt SET key = 'x'", "UPDATE attempt SET reason = 'x'", "UPDATE attempt SET wall_ms = 1",
      "UPDATE metric SET value = value * 2 WHERE name = 'accuracy'", "UPDATE metric SET hi = NULL WHERE name = 'accuracy'",
      "DELETE FROM metric WHERE name = 'accuracy'", "UPDATE sample SET ns = ns + 1 WHERE round = 1", "DELETE FROM sample WHERE round = 1",
      "UPDATE prediction SET data = zeroblob(24)", "DELETE FROM prediction", "UPDATE machine SET cpu = 'better'", "UPDATE build SET git_dirty = 9",
      "INSERT INTO metric VALUES (1, 'recall', 1, NULL, NULL)"};
  static const char *const moved[] = {"UPDATE attempt SET attempt = 9", "UPDATE attempt SET replaced_utc_ms = 5", "UPDATE machine SET os = 'Linux 7'",
                                      "PRAGMA foreign_keys = OFF; UPDATE attempt SET id = 1, build_id = 77; UPDATE build SET id = 77"};
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  char stored[STORE_DIGEST], now[STORE_DIGEST];
  store_cell c = db_cell("k", "dense", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  (void)snprintf(stored, sizeof stored, "%.64s", db_ask(s, "SELECT digest FROM attempt"));
  store_close(s);
  digest_of(1, now);
  assert_string_equal(now, stored);
  for (size_t i = 0; i < sizeof edit / sizeof *edit + sizeof moved / sizeof *moved; i++) {
    const int same = i >= sizeof edit / sizeof *edit;
    const char *sql = same ? moved[i - sizeof edit / sizeof *edit] : edit[i];
    sqlite3 *db;
    char before[STORE_DIGEST];
    digest_of(1, before);
    assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    digest_of(1, now);
    if ((strcmp(before, now) == 0) != same) fail_msg("%s: digest %s", sql, same ? "moved" : "stayed");
  }
}

static int far_away(const char *name) {
  (void)name;
  return 1;
}

/* Shared memory, which the log needs, does not reach other machines. */
static void test_open__network_file_system__no_log(void **state) {
  (void)state;
  int (*local)(const char *) = store_is_remote;
  ice_err e = {0};
  char log[300];
  (void)snprintf(log, sizeof log, "%s-wal", db_path);
  store *s = db_open(STORE_WRITE);
  store_cell c = db_cell("k", "dense", "ok"), d = db_cell("l", "dense", "ok");
  assert_int_equal(store_put(s, &d, 0, &e), ICE_OK);
  assert_int_equal(access(log, F_OK), 0);
  store_close(s);
  sqlite3 *db; /* as a run that was killed leaves it */
  assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  store_is_remote = far_away;
  s = db_open(STORE_WRITE);
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_int_not_equal(access(log, F_OK), 0);
  store *reader = db_open(STORE_READ); /* the writer holds no lock between its transactions */
  assert_string_equal(db_ask(reader, "SELECT count(*) FROM cell"), "2|");
  store_close(reader);
  store_close(s);
  store_is_remote = local;
}

static void test_open__folder_that_cannot_be__refused_as_a_database(void **state) {
  (void)state;
  store *s = NULL;
  ice_err e = {0};
  db_make_sub();
  assert_int_equal(store_open("/proc/none/x.db", STORE_WRITE, &s, &e), ICE_DB);
  assert_non_null(strstr(e.text, "name another --db"));
  assert_null(s);
}

static void test_open__fifo_or_folder__refused_at_once(void **state) {
  (void)state;
  db_make_sub();
  assert_int_equal(mkfifo(db_path, 0600), 0);
  db_refused(STORE_READ, "not a regular file");
  db_refused(STORE_WRITE, "not a regular file");
  assert_int_equal(unlink(db_path) | mkdir(db_path, 0700), 0);
  db_refused(STORE_READ, "not a regular file");
  db_refused(STORE_WRITE, "not a regular file");
  assert_int_equal(rmdir(db_path), 0);
}

static void test_open__empty_file__becomes_a_database(void **state) {
  (void)state;
  db_write_file("", 0);
  db_refused(STORE_READ, "no icebench results");
  store *s = db_open(STORE_WRITE);
  assert_string_equal(db_ask(s, "SELECT count(*) FROM results"), "0|");
  assert_true(atoi(db_ask(s, "PRAGMA user_version")) >= 1);
  store_close(s);
}

static int no_row(void *ctx, int columns, char **names, char **values) {
  (void)ctx, (void)columns, (void)names, (void)values;
  return 1;
}
static void test_query__that_writes__refused(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  assert_int_equal(store_query(s, "DELETE FROM metric", NULL, 0, no_row, NULL, &e), ICE_USAGE);
  store_close(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      DB_TEST(test_open__absent__says_how_to_make_one),
      DB_TEST(test_open__no_database__refused),
      DB_TEST(test_open__truncated__refused_not_emptied),
      DB_TEST(test_open__damaged_page__not_written_to),
      DB_TEST(test_open__database_of_another_program__left_alone),
      DB_TEST(test_open__locked__says_so),
      DB_TEST(test_put__locked__is_refused_and_can_be_tried_again),
      DB_TEST(test_open__path_through_a_file__refused),
      DB_TEST(test_open__names_of_databases_in_memory__refused),
      DB_TEST(test_open__read_only_folder__read_but_not_written),
      DB_TEST(test_open__older_schema__read_as_it_is_and_migrated_by_a_writer),
      DB_TEST(test_open__older_schema_with_orphans__refused_and_left_as_it_is),
      DB_TEST(test_put__a_cell__has_its_provenance),
      DB_TEST(test_digest__every_edit__shows),
      DB_TEST(test_open__network_file_system__no_log),
      DB_TEST(test_open__newer_schema__refused),
      DB_TEST(test_open__impossible_schema__refused),
      DB_TEST(test_open__folder_that_cannot_be__refused_as_a_database),
      DB_TEST(test_open__fifo_or_folder__refused_at_once),
      DB_TEST(test_open__empty_file__becomes_a_database),
      DB_TEST(test_query__that_writes__refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
