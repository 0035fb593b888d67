/* test_store.c - results in SQLite: whole or not at all, nothing lost. What is no database, or an older one: test_store_files.c. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "harness/machine.h"
#include "tests/support/db_case.h"

/* --- what goes in comes out ----------------------------------------------------------------------------------------- */

static void test_put__a_cell__reads_back_in_the_view(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  store_cell c = db_cell("k1", "iceformer", "ok"), d = db_cell("k2", "dense", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  const store_metric half[] = {{"accuracy", 0.75, NAN, NAN}};
  d.metric = half, d.n_metrics = 1;
  assert_int_equal(store_put(s, &d, 0, &e), ICE_OK);
  assert_string_equal(db_ask(s, "SELECT accuracy, accuracy_lo, attention_ns, speedup_vanilla, mass, retention, seed, params, status, "
                             "created_utc, examples FROM results WHERE method = 'iceformer'"),
                      "0.375|0.35|2000000|3.0|NULL|0.5|18446744073709551615|{\"k\":8}|ok|2023-11-14T22:13:20Z|100|");
  assert_string_equal(db_ask(s, "SELECT count(*), sum(ns) FROM sample WHERE cell_id = 1"), "2|210|");
  assert_string_equal(db_ask(s, "SELECT count, hex(data) FROM prediction WHERE cell_id = 1"), "2|050000000300000003000000090000000100000002000000|");
  store_close(s);
  s = db_open(STORE_READ);
  assert_string_equal(db_ask(s, "SELECT count(*) FROM results"), "2|");
  store_close(s);
}

static void test_view__retention__only_against_the_same_weights_data_and_examples(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  const store_metric one[] = {{"accuracy", 0.5, NAN, NAN}}, two[] = {{"accuracy", 0.4, NAN, NAN}}, none[] = {{"accuracy", 0, 0, 0}};
  store_cell dense = db_cell("d", "dense", "ok"), c = db_cell("c", "topk", "ok");
  dense.metric = one, dense.n_metrics = 1, c.metric = two, c.n_metrics = 1;
  static const char *const retention = "SELECT retention FROM results WHERE method = 'topk'";
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_string_equal(db_ask(s, retention), "NULL|");
  assert_int_equal(store_put(s, &dense, 0, &e), ICE_OK);
  assert_string_equal(db_ask(s, retention), "0.8|");
  const store_cell same = c;
#define DIFFERS(field, other)                                                                                          \
  c = same, c.field = (other);                                                                                         \
  assert_int_equal(store_put(s, &c, 1, &e), ICE_OK);                                                                   \
  if (strcmp(db_ask(s, retention), "NULL|")) fail_msg("retention is known although " #field " differs")
  DIFFERS(experiment, "x");
  DIFFERS(task, "x");
  DIFFERS(model, "x");
  DIFFERS(seed, 1);
  DIFFERS(threads, 1);
  DIFFERS(isa, "x");
  DIFFERS(examples, 99);
  DIFFERS(data_hash, "x");
  DIFFERS(model_hash, NULL);
  assert_int_equal(store_put(s, &same, 1, &e), ICE_OK);
  dense.metric = none;
  assert_int_equal(store_put(s, &dense, 1, &e), ICE_OK); /* nothing right: no ratio, and the replaced row does not count */
  assert_string_equal(db_ask(s, retention), "NULL|");
  dense.status = "failed", dense.metric = one;
  assert_int_equal(store_put(s, &dense, 1, &e), ICE_OK);
  assert_string_equal(db_ask(s, retention), "NULL|");
  store_close(s);
}

/* Each metric in the column of its name, value and interval. */
static void test_view__every_metric__in_its_own_column(void **state) {
  (void)state;
  static const char *const timed[] = {"attention_ns", "build_ns", "query_ns", "model_ns", "speedup_vanilla", "speedup_dense", "accuracy"},
                    *const plain[] = {"l2_error", "rel_l2_error", "mass", "recall", "pairs", "peak_bytes", "timed_inputs"};
  enum { EACH = sizeof timed / sizeof *timed };
  assert_int_equal(sizeof plain / sizeof *plain, EACH);
  store_metric all[2 * EACH];
  for (int i = 0; i < EACH; i++) {
    all[i] = (store_metric){timed[i], 100 * (i + 1), 100 * (i + 1) - 1, 100 * (i + 1) + 1};
    all[EACH + i] = (store_metric){plain[i], 1000 * (i + 1), NAN, NAN};
  }
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  store_cell c = db_cell("k1", "iceformer", "ok");
  c.metric = all, c.n_metrics = 2 * EACH;
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  for (int i = 0; i < EACH; i++) {
    char sql[200], want[64];
    (void)snprintf(sql, sizeof sql, "SELECT CAST(%s AS INTEGER), CAST(%s_lo AS INTEGER), CAST(%s_hi AS INTEGER), CAST(%s AS INTEGER) FROM results",
                   timed[i], timed[i], timed[i], plain[i]);
    (void)snprintf(want, sizeof want, "%d|%d|%d|%d|", 100 * (i + 1), 100 * (i + 1) - 1, 100 * (i + 1) + 1, 1000 * (i + 1));
    assert_string_equal(db_ask(s, sql), want);
  }
  store_close(s);
}

static void test_put__unknown__is_null_never_0(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  const store_metric bad[] = {{"accuracy", 0.0, NAN, INFINITY}, {"mass", NAN, 0, 1}, {"recall", INFINITY, 0, 1}};
  store_cell c = {.key = "k", .experiment = "e", .task = "t", .model = "m", .method = "dense", .method_version = "1", .params = "{}",
                  .threads = 1, .isa = "scalar", .status = "failed", .metric = bad, .n_metrics = 3};
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_string_equal(db_ask(s, "SELECT n, heads, head_dim, layers, examples, reason, data_hash, model_hash, accuracy, accuracy_lo, "
                             "accuracy_hi, attention_ns, speedup_dense, l2_error, mass, recall, pairs, peak_bytes, retention FROM results"),
                      "NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|0.0|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|");
  store_close(s);
}

static void test_put__unknown_status__refused_whole(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  store_cell c = db_cell("k", "dense", "fine");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_DB);
  assert_string_equal(db_ask(s, "SELECT count(*) FROM attempt"), "0|");
  c.status = "ok";
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK); /* the failure left no transaction behind */
  store_close(s);
}

static void test_view__contract__has_every_column(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  (void)db_ask(s, "SELECT experiment, task, model, method, params, seed, n, heads, head_dim, layers, causal, threads, isa, examples, partial, "
               "accuracy, accuracy_lo, accuracy_hi, retention, attention_ns, build_ns, query_ns, model_ns, speedup_vanilla, "
               "speedup_dense, l2_error, rel_l2_error, mass, recall, pairs, peak_bytes, status, git_commit, git_dirty, machine, blas, "
               "created_utc, reason, label, data_hash, model_hash, timed_inputs, attention_ns_lo, attention_ns_hi, build_ns_lo, build_ns_hi, "
               "query_ns_lo, query_ns_hi, model_ns_lo, model_ns_hi, speedup_vanilla_lo, speedup_vanilla_hi, speedup_dense_lo, "
               "speedup_dense_hi FROM results");
  store_close(s);
}

static void test_put__hostile_text__stays_text(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  store_cell c = db_cell("'); DROP TABLE cell; --", "m\"'\\\n\xc3\xa9", "failed");
  c.reason = "line\n'quoted' \"twice\" <b>&";
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_string_equal(db_ask(s, "SELECT method, reason FROM results"), "m\"'\\\n\xc3\xa9|line\n'quoted' \"twice\" <b>&|");
  store_close(s);
}

/* --- replacing ------------------------------------------------------------------------------------------------------ */

static void test_put__same_key__failed_is_replaced_and_remembered(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  int finished;
  store_cell c = db_cell("k", "iceformer", "timeout");
  c.reason = "600 s";
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_int_equal(store_has(s, "k", 0, &finished, &e), ICE_OK);
  assert_int_equal(finished, 0);
  assert_int_equal(store_has(s, "k", 1, &finished, &e), ICE_OK);
  assert_int_equal(finished, 1);
  c.status = "ok", c.reason = NULL;
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_string_equal(db_ask(s, "SELECT status, attempt FROM results"), "ok|2|");
  assert_string_equal(db_ask(s, "SELECT key, attempt, status, reason, replaced_utc_ms > 1700000000000, "
                             "(SELECT value FROM metric WHERE cell_id = h.id AND name = 'accuracy'), "
                             "(SELECT count(*) FROM sample WHERE cell_id = h.id), "
                             "(SELECT count FROM prediction WHERE cell_id = h.id) FROM history h"),
                      "k|1|timeout|600 s|1|0.375|2|2|");
  store_close(s);
}

static void test_put__finished_key__only_by_force(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  store_cell c = db_cell("k", "iceformer", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_int_equal(store_put(s, &c, 0, &e), ICE_INTERNAL);
  assert_int_equal(store_put(s, &c, 1, &e), ICE_OK);
  assert_string_equal(db_ask(s, "SELECT attempt FROM results"), "2|");
  assert_string_equal(db_ask(s, "SELECT count(*) FROM history"), "1|");
  store_close(s);
}

static void test_expected_ms__median_of_finished(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  char key[16];
  const int64_t wall[] = {100, 900, 300};
  assert_true(isnan(store_expected_ms(s, "t", "m", "dense")));
  for (int i = 0; i < 3; i++) {
    (void)snprintf(key, sizeof key, "k%d", i);
    store_cell c = db_cell(key, "dense", "ok");
    c.wall_ms = wall[i];
    assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  }
  assert_true(store_expected_ms(s, "t", "m", "dense") == 300.0);
  store_close(s);
}

/* --- kills, readers, limits ------------------------------------------------------------------------------------------ */

/* Puts cells until it is killed; a byte in the pipe after each. */
static void write_for_ever(int round, int progress) {
  store *s = NULL;
  ice_err e = {0};
  if (store_open(db_path, STORE_WRITE, &s, &e) != ICE_OK) _exit(1);
  for (int i = 0;; i++) {
    char key[64];
    (void)snprintf(key, sizeof key, "round %d cell %d", round, i);
    store_cell c = db_cell(key, "dense", "ok");
    if (store_put(s, &c, 0, &e) != ICE_OK || write(progress, "", 1) != 1) _exit(2);
  }
}

static void test_kill__in_the_middle_of_writing__nothing_half(void **state) {
  (void)state;
  store_close(db_open(STORE_WRITE));
  int told = 0;
  for (int round = 0; round < 8; round++) {
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    const pid_t pid = fork();
    if (pid == 0) write_for_ever(round, fd[1]);
    (void)close(fd[1]);
    char byte;
    for (int i = 0; i <= round % 3; i++, told++) assert_int_equal(read(fd[0], &byte, 1), 1);
    const struct timespec pause = {.tv_nsec = 700000L * round};
    (void)nanosleep(&pause, NULL); /* so that the kill meets different places of a transaction */
    (void)kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status)); /* it had not failed before */
    while (read(fd[0], &byte, 1) == 1) told++;
    (void)close(fd[0]);
    store *s = db_open(round % 2 ? STORE_WRITE : STORE_READ);
    assert_string_equal(db_ask(s, "PRAGMA integrity_check"), "ok|");
    assert_string_equal(db_ask(s, "PRAGMA foreign_key_check"), "");
    assert_string_equal(db_ask(s, "SELECT count(*) FROM cell c WHERE (SELECT count(*) FROM metric WHERE cell_id = c.id) <> 4 OR "
                               "(SELECT count(*) FROM sample WHERE cell_id = c.id) <> 2 OR "
                               "(SELECT count(*) FROM prediction WHERE cell_id = c.id) <> 1"), "0|");
    const int stored = atoi(db_ask(s, "SELECT count(*) FROM cell"));
    assert_in_range(stored, told, told + round + 1); /* all that was reported, at most one more a kill */
    store_close(s);
  }
}

/* Every transaction is synced, and the file alone, without its log, soon has it. */
static void test_put__each_cell__is_durable_and_in_the_file(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  assert_string_equal(db_ask(s, "PRAGMA synchronous"), "2|"); /* FULL */
  store_cell a = db_cell("k1", "dense", "ok"), b = db_cell("k2", "dense", "ok");
  assert_int_equal(store_put(s, &a, 0, &e), ICE_OK);
  assert_int_equal(store_put(s, &b, 0, &e), ICE_OK);
  char copy[300];
  (void)snprintf(copy, sizeof copy, "%s/copy.db", db_folder);
  FILE *from = fopen(db_path, "rb"), *to = fopen(copy, "wb");
  assert_true(from && to);
  for (int byte; (byte = fgetc(from)) != EOF;) (void)fputc(byte, to);
  assert_int_equal(fclose(from) | fclose(to), 0);
  sqlite3 *db;
  sqlite3_stmt *st;
  assert_int_equal(sqlite3_open(copy, &db), SQLITE_OK);
  assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM cell", -1, &st, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(st), SQLITE_ROW);
  assert_true(sqlite3_column_int(st, 0) >= 1);
  (void)sqlite3_finalize(st);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  static const char *const tail[] = {"", "-wal", "-shm"};
  for (int i = 0; i < 3; i++) {
    (void)snprintf(copy, sizeof copy, "%s/copy.db%s", db_folder, tail[i]);
    (void)unlink(copy);
  }
  store_close(s);
}

static void test_reader__while_a_writer_writes__sees_whole_cells(void **state) {
  (void)state;
  store *w = db_open(STORE_WRITE), *r = db_open(STORE_READ);
  ice_err e = {0};
  store_cell c = db_cell("k1", "dense", "ok");
  assert_int_equal(store_put(w, &c, 0, &e), ICE_OK);
  assert_string_equal(db_ask(r, "SELECT count(*) FROM results"), "1|");
  sqlite3 *other = NULL; /* in the middle of a transaction */
  assert_int_equal(sqlite3_open(db_path, &other), SQLITE_OK);
  assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE; DELETE FROM metric", NULL, NULL, NULL), SQLITE_OK);
  assert_string_equal(db_ask(r, "SELECT count(*) FROM metric"), "4|");
  store *late = db_open(STORE_READ);
  assert_string_equal(db_ask(late, "SELECT count(*) FROM metric"), "4|");
  store_close(late);
  assert_int_equal(sqlite3_close(other), SQLITE_OK);
  store_close(r);
  store_close(w);
}

static void test_writers__at_the_same_time__each_cell_is_there_once(void **state) {
  (void)state;
  enum { WRITERS = 4, CELLS = 5 };
  pid_t pid[WRITERS];
  for (int w = 0; w < WRITERS; w++)
    if ((pid[w] = fork()) == 0) { /* all of them make the schema */
      store *s = NULL;
      ice_err e = {0};
      if (store_open(db_path, STORE_WRITE, &s, &e) != ICE_OK) (void)fprintf(stderr, "%s\n", e.text), _exit(1);
      for (int i = 0; i < CELLS; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "%d %d", w, i);
        store_cell c = db_cell(key, "dense", "ok");
        if (store_put(s, &c, 0, &e) != ICE_OK) (void)fprintf(stderr, "%s\n", e.text), _exit(2);
      }
      store_close(s);
      _exit(0);
    }
  for (int w = 0; w < WRITERS; w++) {
    int status;
    assert_int_equal(waitpid(pid[w], &status, 0), pid[w]);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
  }
  store *s = db_open(STORE_READ);
  assert_string_equal(db_ask(s, "SELECT count(*), count(DISTINCT key), count(DISTINCT build_id) FROM cell"), "20|20|1|");
  store_close(s);
}

static void test_close__last_writer__leaves_one_plain_file(void **state) {
  (void)state;
  store_close(db_open(STORE_WRITE));
  char name[300];
  (void)snprintf(name, sizeof name, "%s-wal", db_path);
  assert_int_not_equal(access(name, F_OK), 0);
  FILE *f = fopen(db_path, "rb");
  uint8_t head[20];
  assert_non_null(f);
  assert_int_equal(fread(head, 1, sizeof head, f), sizeof head);
  (void)fclose(f);
  assert_int_equal(head[18], 1); /* the format's journal mode: 1 rollback, 2 write-ahead */
}

static void test_disk_full__cell_is_refused_whole(void **state) {
  (void)state;
  store *s = db_open(STORE_WRITE);
  ice_err e = {0};
  store_cell c = db_cell("k1", "dense", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  store_close(s);
  const pid_t pid = fork(); /* a limit on file sizes stands for a full disk */
  if (pid == 0) {
    struct stat st;
    (void)signal(SIGXFSZ, SIG_IGN);
    if (stat(db_path, &st) != 0 || store_open(db_path, STORE_WRITE, &s, &e) != ICE_OK) _exit(1);
    const struct rlimit limit = {.rlim_cur = 64 << 10, .rlim_max = 64 << 10};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
    static store_prediction many[100000];
    c.key = "k2", c.prediction = many, c.n_predictions = 100000;
    const int rc = store_put(s, &c, 0, &e);
    _exit(rc == ICE_DB && strstr(e.text, "disk full") ? 42 : 3);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(WEXITSTATUS(status), 42);
  s = db_open(STORE_WRITE);
  assert_string_equal(db_ask(s, "PRAGMA integrity_check"), "ok|");
  assert_string_equal(db_ask(s, "SELECT count(*) FROM cell"), "1|");
  store_close(s);
}

/* --- debug builds ---------------------------------------------------------------------------------------------------- */

/* The variant of this build is made to differ, so that every build tests both sides. */
static void store_as(const char *variant, const char *allow, const char *key, const char *label) {
  ice_err e = {0};
  char *mine = (char *)(uintptr_t)machine_get()->variant, kept[16];
  (void)strcpy(kept, mine);
  (void)strcpy(mine, variant);
  (void)(allow ? setenv("ICEBENCH_ALLOW_DEBUG", allow, 1) : unsetenv("ICEBENCH_ALLOW_DEBUG"));
  store *s = db_open(STORE_WRITE);
  store_cell c = db_cell(key, "dense", "ok");
  c.label = label;
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  store_close(s);
  (void)strcpy(mine, kept);
}
static const char *ask_times(const char *key) {
  char sql[400];
  (void)snprintf(sql, sizeof sql,
                 "SELECT (SELECT count(*) FROM metric m WHERE m.cell_id = c.id AND name IN ('attention_ns', 'speedup_dense', 'speedup_vanilla')), "
                 "(SELECT count(*) FROM sample p WHERE p.cell_id = c.id), (SELECT value FROM metric m WHERE m.cell_id = c.id AND name = 'accuracy'), "
                 "label FROM cell c WHERE key = '%s'", key);
  store *s = db_open(STORE_READ);
  const char *row = db_ask(s, sql);
  store_close(s);
  return row;
}

static void test_times__of_debug_builds__are_left_out_unless_allowed(void **state) {
  (void)state;
  store_as("release", NULL, "a", NULL);
  assert_string_equal(ask_times("a"), "3|2|0.375|NULL|");
  store_as("asan", NULL, "b", NULL);
  assert_string_equal(ask_times("b"), "0|0|0.375|asan build: no times|");
  store_as("debug", "0", "c", "stand-in data");
  assert_string_equal(ask_times("c"), "0|0|0.375|stand-in data, debug build: no times|");
  store_as("debug", "1", "d", NULL);
  assert_string_equal(ask_times("d"), "3|2|0.375|debug build|");
}

static void test_label__long__kept_whole(void **state) {
  (void)state;
  char label[1001], want[1100];
  memset(label, 'x', sizeof label - 1);
  label[sizeof label - 1] = 0;
  (void)snprintf(want, sizeof want, "0|0|0.375|%s, debug build: no times|", label);
  store_as("debug", NULL, "a", label);
  assert_string_equal(ask_times("a"), want);
}

static void test_machine__caches__those_of_the_kernel(void **state) {
  (void)state;
  char first[32] = "", want[64];
  FILE *f = fopen("/sys/devices/system/cpu/cpu0/cache/index0/size", "r"); /* the data cache of level 1, "32K" */
  if (f && fgets(first, sizeof first, f)) (void)snprintf(want, sizeof want, "L1d %ld KiB", strtol(first, NULL, 10));
  else (void)snprintf(want, sizeof want, "unknown");
  if (f) (void)fclose(f);
  assert_memory_equal(machine_get()->caches, want, strlen(want));
  assert_int_equal(strlen(machine_get()->id), 16);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      DB_TEST(test_put__a_cell__reads_back_in_the_view),
      DB_TEST(test_view__retention__only_against_the_same_weights_data_and_examples),
      DB_TEST(test_view__every_metric__in_its_own_column),
      DB_TEST(test_put__unknown__is_null_never_0),
      DB_TEST(test_put__unknown_status__refused_whole),
      DB_TEST(test_view__contract__has_every_column),
      DB_TEST(test_put__hostile_text__stays_text),
      DB_TEST(test_put__same_key__failed_is_replaced_and_remembered),
      DB_TEST(test_put__finished_key__only_by_force),
      DB_TEST(test_expected_ms__median_of_finished),
      DB_TEST(test_kill__in_the_middle_of_writing__nothing_half),
      DB_TEST(test_put__each_cell__is_durable_and_in_the_file),
      DB_TEST(test_reader__while_a_writer_writes__sees_whole_cells),
      DB_TEST(test_writers__at_the_same_time__each_cell_is_there_once),
      DB_TEST(test_close__last_writer__leaves_one_plain_file),
      DB_TEST(test_disk_full__cell_is_refused_whole),
      DB_TEST(test_times__of_debug_builds__are_left_out_unless_allowed),
      DB_TEST(test_label__long__kept_whole),
      DB_TEST(test_machine__caches__those_of_the_kernel),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
