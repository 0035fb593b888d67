/* test_store.c - results in SQLite: whole or not at all, nothing lost, every fault one line with exit code 8. */
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
#include "harness/sql.h"
#include "harness/store_digest.h"

static char folder[] = "/tmp/icebench-store-XXXXXX", path[256];

static int setup(void **state) {
  (void)state;
  strcpy(folder + strlen(folder) - 6, "XXXXXX");
  if (!mkdtemp(folder)) return 1;
  (void)snprintf(path, sizeof path, "%s/sub/results.db", folder);
  (void)setenv("ICEBENCH_ALLOW_DEBUG", "1", 1); /* these tests run in every build variant */
  (void)setenv("OMP_WAIT_POLICY", "passive", 1);
  return 0;
}
static int teardown(void **state) {
  (void)state;
  char name[300];
  static const char *const tail[] = {"", "-wal", "-shm", "-journal"};
  for (size_t i = 0; i < 4; i++) {
    (void)snprintf(name, sizeof name, "%s%s", path, tail[i]);
    (void)unlink(name);
  }
  (void)snprintf(name, sizeof name, "%s/sub", folder);
  (void)rmdir(name);
  return rmdir(folder);
}

static store *open_ok(store_mode mode) {
  store *s = NULL;
  ice_err e = {0};
  if (store_open(path, mode, &s, &e) != ICE_OK) fail_msg("%s", e.text);
  return s;
}

static const store_metric metrics[] = {{"accuracy", 0.375, 0.35, 0.4},
                                       {"attention_ns", 2000000, 1900000, 2100000},
                                       {"speedup_vanilla", 3.0, 2.9, 3.1},
                                       {"speedup_dense", 0.5, 0.4, 0.6},
                                       {"mass", NAN, NAN, NAN}};
static const store_sample samples[] = {{"dense", "attention", 0, 100}, {"dense", "attention", 1, 110}};
static const store_prediction predictions[] = {{5, 3, 3}, {9, 1, 2}};

static store_cell cell_of(const char *key, const char *method, const char *status) {
  return (store_cell){.key = key, .experiment = "e", .task = "t", .model = "m", .method = method, .method_version = "1",
                      .params = "{\"k\":8}", .seed = UINT64_MAX, .n = 1000, .heads = 2, .head_dim = 32, .layers = 2, .threads = 2,
                      .isa = "avx2", .examples = 100, .status = status, .data_hash = "d", .model_hash = "h",
                      .started_utc_ms = 1700000000000, .wall_ms = 1234, .metric = metrics, .n_metrics = 5, .sample = samples,
                      .n_samples = 2, .prediction = predictions, .n_predictions = 2};
}

static char got[4096];
static int take(void *ctx, int columns, char **names, char **values) {
  (void)ctx, (void)names;
  for (int i = 0; i < columns; i++) {
    const size_t n = strlen(got);
    (void)snprintf(got + n, sizeof got - n, "%s|", values[i] ? values[i] : "NULL");
  }
  return 0;
}
static const char *ask(store *s, const char *sql) {
  ice_err e = {0};
  got[0] = 0;
  if (store_query(s, sql, NULL, 0, take, NULL, &e) != ICE_OK) fail_msg("%s", e.text);
  return got;
}

/* --- what goes in comes out ----------------------------------------------------------------------------------------- */

static void test_put__a_cell__reads_back_in_the_view(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  store_cell c = cell_of("k1", "iceformer", "ok"), d = cell_of("k2", "dense", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  const store_metric half[] = {{"accuracy", 0.75, NAN, NAN}};
  d.metric = half, d.n_metrics = 1;
  assert_int_equal(store_put(s, &d, 0, &e), ICE_OK);
  assert_string_equal(ask(s, "SELECT accuracy, accuracy_lo, attention_ns, speedup_vanilla, mass, retention, seed, params, status, "
                             "created_utc, examples FROM results WHERE method = 'iceformer'"),
                      "0.375|0.35|2000000|3.0|NULL|0.5|18446744073709551615|{\"k\":8}|ok|2023-11-14T22:13:20Z|100|");
  assert_string_equal(ask(s, "SELECT count(*), sum(ns) FROM sample WHERE cell_id = 1"), "2|210|");
  assert_string_equal(ask(s, "SELECT count, hex(data) FROM prediction WHERE cell_id = 1"), "2|050000000300000003000000090000000100000002000000|");
  store_close(s);
  s = open_ok(STORE_READ);
  assert_string_equal(ask(s, "SELECT count(*) FROM results"), "2|");
  store_close(s);
}

static void test_view__retention__only_against_the_same_weights_data_and_examples(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  const store_metric one[] = {{"accuracy", 0.5, NAN, NAN}}, two[] = {{"accuracy", 0.4, NAN, NAN}}, none[] = {{"accuracy", 0, 0, 0}};
  store_cell dense = cell_of("d", "dense", "ok"), c = cell_of("c", "topk", "ok");
  dense.metric = one, dense.n_metrics = 1, c.metric = two, c.n_metrics = 1;
  static const char *const retention = "SELECT retention FROM results WHERE method = 'topk'";
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_string_equal(ask(s, retention), "NULL|");
  assert_int_equal(store_put(s, &dense, 0, &e), ICE_OK);
  assert_string_equal(ask(s, retention), "0.8|");
  const store_cell same = c;
#define DIFFERS(field, other)                                                                                          \
  c = same, c.field = (other);                                                                                         \
  assert_int_equal(store_put(s, &c, 1, &e), ICE_OK);                                                                   \
  if (strcmp(ask(s, retention), "NULL|")) fail_msg(#field " differs, yet retention is %s", got)
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
  assert_string_equal(ask(s, retention), "NULL|");
  dense.status = "failed", dense.metric = one;
  assert_int_equal(store_put(s, &dense, 1, &e), ICE_OK);
  assert_string_equal(ask(s, retention), "NULL|");
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
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  store_cell c = cell_of("k1", "iceformer", "ok");
  c.metric = all, c.n_metrics = 2 * EACH;
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  for (int i = 0; i < EACH; i++) {
    char sql[200], want[64];
    (void)snprintf(sql, sizeof sql, "SELECT CAST(%s AS INTEGER), CAST(%s_lo AS INTEGER), CAST(%s_hi AS INTEGER), CAST(%s AS INTEGER) FROM results",
                   timed[i], timed[i], timed[i], plain[i]);
    (void)snprintf(want, sizeof want, "%d|%d|%d|%d|", 100 * (i + 1), 100 * (i + 1) - 1, 100 * (i + 1) + 1, 1000 * (i + 1));
    assert_string_equal(ask(s, sql), want);
  }
  store_close(s);
}

static void test_put__unknown__is_null_never_0(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  const store_metric bad[] = {{"accuracy", 0.0, NAN, INFINITY}, {"mass", NAN, 0, 1}, {"recall", INFINITY, 0, 1}};
  store_cell c = {.key = "k", .experiment = "e", .task = "t", .model = "m", .method = "dense", .method_version = "1", .params = "{}",
                  .threads = 1, .isa = "scalar", .status = "failed", .metric = bad, .n_metrics = 3};
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_string_equal(ask(s, "SELECT n, heads, head_dim, layers, examples, reason, data_hash, model_hash, accuracy, accuracy_lo, "
                             "accuracy_hi, attention_ns, speedup_dense, l2_error, mass, recall, pairs, peak_bytes, retention FROM results"),
                      "NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|0.0|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|");
  store_close(s);
}

static void test_put__unknown_status__refused_whole(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  store_cell c = cell_of("k", "dense", "fine");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_DB);
  assert_string_equal(ask(s, "SELECT count(*) FROM attempt"), "0|");
  c.status = "ok";
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK); /* the failure left no transaction behind */
  store_close(s);
}

static void test_view__contract__has_every_column(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  (void)ask(s, "SELECT experiment, task, model, method, params, seed, n, heads, head_dim, layers, causal, threads, isa, examples, partial, "
               "accuracy, accuracy_lo, accuracy_hi, retention, attention_ns, build_ns, query_ns, model_ns, speedup_vanilla, "
               "speedup_dense, l2_error, rel_l2_error, mass, recall, pairs, peak_bytes, status, git_commit, git_dirty, machine, blas, "
               "created_utc, reason, label, data_hash, model_hash, timed_inputs, attention_ns_lo, attention_ns_hi, build_ns_lo, build_ns_hi, "
               "query_ns_lo, query_ns_hi, model_ns_lo, model_ns_hi, speedup_vanilla_lo, speedup_vanilla_hi, speedup_dense_lo, "
               "speedup_dense_hi FROM results");
  store_close(s);
}

static void test_put__hostile_text__stays_text(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  store_cell c = cell_of("'); DROP TABLE cell; --", "m\"'\\\n\xc3\xa9", "failed");
  c.reason = "line\n'quoted' \"twice\" <b>&";
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_string_equal(ask(s, "SELECT method, reason FROM results"), "m\"'\\\n\xc3\xa9|line\n'quoted' \"twice\" <b>&|");
  store_close(s);
}

/* --- replacing ------------------------------------------------------------------------------------------------------ */

static void test_put__same_key__failed_is_replaced_and_remembered(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  int finished;
  store_cell c = cell_of("k", "iceformer", "timeout");
  c.reason = "600 s";
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_int_equal(store_has(s, "k", 0, &finished, &e), ICE_OK);
  assert_int_equal(finished, 0);
  assert_int_equal(store_has(s, "k", 1, &finished, &e), ICE_OK);
  assert_int_equal(finished, 1);
  c.status = "ok", c.reason = NULL;
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_string_equal(ask(s, "SELECT status, attempt FROM results"), "ok|2|");
  assert_string_equal(ask(s, "SELECT key, attempt, status, reason, replaced_utc_ms > 1700000000000, "
                             "(SELECT value FROM metric WHERE cell_id = h.id AND name = 'accuracy'), "
                             "(SELECT count(*) FROM sample WHERE cell_id = h.id), "
                             "(SELECT count FROM prediction WHERE cell_id = h.id) FROM history h"),
                      "k|1|timeout|600 s|1|0.375|2|2|");
  store_close(s);
}

static void test_put__finished_key__only_by_force(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  store_cell c = cell_of("k", "iceformer", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_int_equal(store_put(s, &c, 0, &e), ICE_INTERNAL);
  assert_int_equal(store_put(s, &c, 1, &e), ICE_OK);
  assert_string_equal(ask(s, "SELECT attempt FROM results"), "2|");
  assert_string_equal(ask(s, "SELECT count(*) FROM history"), "1|");
  store_close(s);
}

static void test_expected_ms__median_of_finished(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  char key[16];
  const int64_t wall[] = {100, 900, 300};
  assert_true(isnan(store_expected_ms(s, "t", "m", "dense")));
  for (int i = 0; i < 3; i++) {
    (void)snprintf(key, sizeof key, "k%d", i);
    store_cell c = cell_of(key, "dense", "ok");
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
  if (store_open(path, STORE_WRITE, &s, &e) != ICE_OK) _exit(1);
  for (int i = 0;; i++) {
    char key[64];
    (void)snprintf(key, sizeof key, "round %d cell %d", round, i);
    store_cell c = cell_of(key, "dense", "ok");
    if (store_put(s, &c, 0, &e) != ICE_OK || write(progress, "", 1) != 1) _exit(2);
  }
}

static void test_kill__in_the_middle_of_writing__nothing_half(void **state) {
  (void)state;
  store_close(open_ok(STORE_WRITE));
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
    store *s = open_ok(round % 2 ? STORE_WRITE : STORE_READ);
    assert_string_equal(ask(s, "PRAGMA integrity_check"), "ok|");
    assert_string_equal(ask(s, "PRAGMA foreign_key_check"), "");
    assert_string_equal(ask(s, "SELECT count(*) FROM cell c WHERE (SELECT count(*) FROM metric WHERE cell_id = c.id) <> 4 OR "
                               "(SELECT count(*) FROM sample WHERE cell_id = c.id) <> 2 OR "
                               "(SELECT count(*) FROM prediction WHERE cell_id = c.id) <> 1"), "0|");
    const int stored = atoi(ask(s, "SELECT count(*) FROM cell"));
    assert_in_range(stored, told, told + round + 1); /* all that was reported, at most one more a kill */
    store_close(s);
  }
}

/* Every transaction is synced, and the file alone, without its log, soon has it. */
static void test_put__each_cell__is_durable_and_in_the_file(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  assert_string_equal(ask(s, "PRAGMA synchronous"), "2|"); /* FULL */
  store_cell a = cell_of("k1", "dense", "ok"), b = cell_of("k2", "dense", "ok");
  assert_int_equal(store_put(s, &a, 0, &e), ICE_OK);
  assert_int_equal(store_put(s, &b, 0, &e), ICE_OK);
  char copy[300];
  (void)snprintf(copy, sizeof copy, "%s/copy.db", folder);
  FILE *from = fopen(path, "rb"), *to = fopen(copy, "wb");
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
    (void)snprintf(copy, sizeof copy, "%s/copy.db%s", folder, tail[i]);
    (void)unlink(copy);
  }
  store_close(s);
}

static void test_reader__while_a_writer_writes__sees_whole_cells(void **state) {
  (void)state;
  store *w = open_ok(STORE_WRITE), *r = open_ok(STORE_READ);
  ice_err e = {0};
  store_cell c = cell_of("k1", "dense", "ok");
  assert_int_equal(store_put(w, &c, 0, &e), ICE_OK);
  assert_string_equal(ask(r, "SELECT count(*) FROM results"), "1|");
  sqlite3 *other = NULL; /* in the middle of a transaction */
  assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
  assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE; DELETE FROM metric", NULL, NULL, NULL), SQLITE_OK);
  assert_string_equal(ask(r, "SELECT count(*) FROM metric"), "4|");
  store *late = open_ok(STORE_READ);
  assert_string_equal(ask(late, "SELECT count(*) FROM metric"), "4|");
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
      if (store_open(path, STORE_WRITE, &s, &e) != ICE_OK) (void)fprintf(stderr, "%s\n", e.text), _exit(1);
      for (int i = 0; i < CELLS; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "%d %d", w, i);
        store_cell c = cell_of(key, "dense", "ok");
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
  store *s = open_ok(STORE_READ);
  assert_string_equal(ask(s, "SELECT count(*), count(DISTINCT key), count(DISTINCT build_id) FROM cell"), "20|20|1|");
  store_close(s);
}

static void test_close__last_writer__leaves_one_plain_file(void **state) {
  (void)state;
  store_close(open_ok(STORE_WRITE));
  char name[300];
  (void)snprintf(name, sizeof name, "%s-wal", path);
  assert_int_not_equal(access(name, F_OK), 0);
  FILE *f = fopen(path, "rb");
  uint8_t head[20];
  assert_non_null(f);
  assert_int_equal(fread(head, 1, sizeof head, f), sizeof head);
  (void)fclose(f);
  assert_int_equal(head[18], 1); /* the format's journal mode: 1 rollback, 2 write-ahead */
}

static void test_disk_full__cell_is_refused_whole(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  store_cell c = cell_of("k1", "dense", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  store_close(s);
  const pid_t pid = fork(); /* a limit on file sizes stands for a full disk */
  if (pid == 0) {
    struct stat st;
    (void)signal(SIGXFSZ, SIG_IGN);
    if (stat(path, &st) != 0 || store_open(path, STORE_WRITE, &s, &e) != ICE_OK) _exit(1);
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
  s = open_ok(STORE_WRITE);
  assert_string_equal(ask(s, "PRAGMA integrity_check"), "ok|");
  assert_string_equal(ask(s, "SELECT count(*) FROM cell"), "1|");
  store_close(s);
}

/* --- bad databases: exit code 8, one line, the next step -------------------------------------------------------------- */

static void refused(store_mode mode, const char *word) {
  store *s = NULL;
  ice_err e = {0};
  const int rc = store_open(path, mode, &s, &e);
  if (rc == ICE_OK) store_close(s);
  assert_int_equal(rc, ICE_DB);
  if (!strstr(e.text, word)) fail_msg("'%s' does not say '%s'", e.text, word);
  assert_null(strchr(e.text, '\n'));
}

static void make_sub(void) {
  char dir[300];
  (void)snprintf(dir, sizeof dir, "%s/sub", folder);
  (void)mkdir(dir, 0700);
}

static void write_file(const char *text, size_t n) {
  make_sub();
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}

static void test_open__absent__says_how_to_make_one(void **state) {
  (void)state;
  refused(STORE_READ, "icebench run makes");
  make_sub();
}

static void test_open__no_database__refused(void **state) {
  (void)state;
  char text[2000];
  memset(text, 'x', sizeof text);
  for (int whole = 0; whole < 2; whole++) { /* long, and shorter than any database */
    write_file(text, whole ? sizeof text : 6);
    refused(STORE_READ, "no SQLite database");
    refused(STORE_WRITE, "no SQLite database");
  }
}

static void test_open__truncated__refused_not_emptied(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  store_cell c = cell_of("k1", "dense", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  store_close(s);
  assert_int_equal(truncate(path, 5000), 0);
  refused(STORE_READ, "damaged");
  refused(STORE_WRITE, "damaged");
  assert_int_equal(truncate(path, 50), 0);
  refused(STORE_WRITE, "cut short");
}

static void test_open__damaged_page__not_written_to(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  store_cell c = cell_of("k1", "dense", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  const long page = atol(ask(s, "SELECT rootpage FROM sqlite_schema WHERE name = 'attempt'"));
  store_close(s);
  FILE *f = fopen(path, "r+b");
  assert_non_null(f);
  assert_int_equal(fseek(f, (page - 1) * 4096, SEEK_SET), 0);
  for (int i = 0; i < 4096; i++) (void)fputc(0xff, f);
  assert_int_equal(fclose(f), 0);
  refused(STORE_WRITE, "damaged");
}

static void test_open__database_of_another_program__left_alone(void **state) {
  (void)state;
  make_sub();
  sqlite3 *db;
  for (int version = 0; version < 2; version++) {
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, version ? "PRAGMA user_version = 7" : "CREATE TABLE x (y)", NULL, NULL, NULL), SQLITE_OK);
    refused(STORE_READ, "no icebench results");
    refused(STORE_WRITE, "no icebench results");
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE attempt (y); DROP TABLE attempt", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
  }
}

static void test_open__locked__says_so(void **state) {
  (void)state;
  store_close(open_ok(STORE_WRITE));
  sqlite3 *db;
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(store_patience_ms, 10000);
  store_patience_ms = 50;
  refused(STORE_READ, "another process holds it");
  refused(STORE_WRITE, "another process holds it");
  store_patience_ms = 10000;
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  store_close(open_ok(STORE_WRITE));
}

static void test_put__locked__is_refused_and_can_be_tried_again(void **state) {
  (void)state;
  store_patience_ms = 50;
  store *s = open_ok(STORE_WRITE);
  store_patience_ms = 10000;
  sqlite3 *db;
  ice_err e = {0};
  store_cell c = cell_of("k1", "dense", "ok");
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(store_put(s, &c, 0, &e), ICE_DB);
  assert_non_null(strstr(e.text, "another process holds it"));
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  store_close(s);
}

static void test_open__path_through_a_file__refused(void **state) {
  (void)state;
  char kept[sizeof path];
  write_file("", 0);
  memcpy(kept, path, sizeof kept);
  strcat(path, "/x.db");
  store *s = NULL;
  ice_err e = {0};
  assert_int_equal(store_open(path, STORE_READ, &s, &e), ICE_DB);
  assert_int_equal(store_open(path, STORE_WRITE, &s, &e), ICE_DB);
  assert_non_null(strstr(e.text, kept));
  assert_null(s);
  memcpy(path, kept, sizeof kept);
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
  store_close(open_ok(STORE_WRITE));
  (void)snprintf(dir, sizeof dir, "%s/sub", folder);
  assert_int_equal(chmod(folder, 0755) | chmod(path, 0444) | chmod(dir, 0555), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    store *s = NULL;
    ice_err e = {0};
    if (geteuid() == 0 && setuid(65534) != 0) _exit(1);
    if (store_open(path, STORE_READ, &s, &e) != ICE_OK) _exit(2);
    store_close(s);
    if (store_open(path, STORE_WRITE, &s, &e) != ICE_DB || !strstr(e.text, "writable")) _exit(3);
    strcat(path, "2");
    if (store_open(path, STORE_WRITE, &s, &e) != ICE_DB || !strstr(e.text, "writable")) _exit(4);
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
  store_close(open_ok(STORE_WRITE));
  sqlite3 *db;
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 999", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  refused(STORE_READ, "newer");
  refused(STORE_WRITE, "newer");
}

/* With our mark and our tables, but numbers that no program of ours ever wrote. */
static void test_open__impossible_schema__refused(void **state) {
  (void)state;
  static const char *const sql[] = {"PRAGMA user_version = -5", "PRAGMA user_version = 0", "PRAGMA user_version = -2147483648"};
  store_close(open_ok(STORE_WRITE));
  for (size_t i = 0; i < sizeof sql / sizeof *sql; i++) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql[i], NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    refused(STORE_READ, "which there never was");
    refused(STORE_WRITE, "which there never was");
  }
}

/* --- older schemas, provenance, digests ------------------------------------------------------------------------------- */

/* A database as the first release left it, with one row. */
static void make_older(void) {
  sqlite3 *db;
  char *why = NULL;
  make_sub();
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
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
  store *s = open_ok(STORE_READ);
  assert_string_equal(ask(s, question), "0.5|c0ffee|Test CPU|");
  assert_string_equal(ask(s, "SELECT kernel, git_diff, digest FROM provenance"), "Linux 6.1||NULL|");
  store_close(s);
  sqlite3 *db; /* the file has not been touched */
  sqlite3_stmt *st;
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &st, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(st), SQLITE_ROW);
  assert_int_equal(sqlite3_column_int(st, 0), 1);
  assert_int_equal(sqlite3_finalize(st), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  s = open_ok(STORE_WRITE);
  assert_string_equal(ask(s, question), "0.5|c0ffee|Test CPU|");
  assert_string_equal(ask(s, "PRAGMA foreign_key_check"), "");
  assert_string_equal(ask(s, "PRAGMA foreign_keys"), "1|"); /* on again */
  assert_string_equal(ask(s, "SELECT id FROM build"), "7|");
  store_close(s);
}

static void test_open__older_schema_with_orphans__refused_and_left_as_it_is(void **state) {
  (void)state;
  sqlite3 *db;
  make_older();
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "PRAGMA foreign_keys = OFF; DELETE FROM build", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  refused(STORE_WRITE, "without their machine, build or cell");
  refused(STORE_READ, "without their machine, build or cell");
}

static void test_put__a_cell__has_its_provenance(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  store_cell c = cell_of("k", "dense", "ok");
  c.config = "{\"examples\":5}";
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  char want[900];
  const machine_facts *m = machine_get();
  (void)snprintf(want, sizeof want, "%s|%s|%d|%s|%s|d|h|{\"examples\":5}|64|", m->os, m->git_commit, m->git_dirty, m->git_diff, m->cflags);
  assert_string_equal(ask(s, "SELECT kernel, git_commit, git_dirty, git_diff, cflags, data_hash, model_hash, config, length(digest) FROM provenance"), want);
  assert_int_equal(strlen(m->git_diff), m->git_dirty ? 64 : 0);
  assert_string_equal(ask(s, "SELECT json_extract(environment, '$.OMP_WAIT_POLICY') FROM provenance"), "passive|");
  assert_string_equal(ask(s, "SELECT json_extract(environment, '$.HOME') FROM provenance"), "NULL|"); /* nobody's business */
  store_close(s);
}

static void digest_of(int64_t id, char out[STORE_DIGEST]) {
  store *s = open_ok(STORE_READ);
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
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  char stored[STORE_DIGEST], now[STORE_DIGEST];
  store_cell c = cell_of("k", "dense", "ok");
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  (void)snprintf(stored, sizeof stored, "%.64s", ask(s, "SELECT digest FROM attempt"));
  store_close(s);
  digest_of(1, now);
  assert_string_equal(now, stored);
  for (size_t i = 0; i < sizeof edit / sizeof *edit + sizeof moved / sizeof *moved; i++) {
    const int same = i >= sizeof edit / sizeof *edit;
    const char *sql = same ? moved[i - sizeof edit / sizeof *edit] : edit[i];
    sqlite3 *db;
    char before[STORE_DIGEST];
    digest_of(1, before);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
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
  (void)snprintf(log, sizeof log, "%s-wal", path);
  store *s = open_ok(STORE_WRITE);
  store_cell c = cell_of("k", "dense", "ok"), d = cell_of("l", "dense", "ok");
  assert_int_equal(store_put(s, &d, 0, &e), ICE_OK);
  assert_int_equal(access(log, F_OK), 0);
  store_close(s);
  sqlite3 *db; /* as a run that was killed leaves it */
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  store_is_remote = far_away;
  s = open_ok(STORE_WRITE);
  assert_int_equal(store_put(s, &c, 0, &e), ICE_OK);
  assert_int_not_equal(access(log, F_OK), 0);
  store *reader = open_ok(STORE_READ); /* the writer holds no lock between its transactions */
  assert_string_equal(ask(reader, "SELECT count(*) FROM cell"), "2|");
  store_close(reader);
  store_close(s);
  store_is_remote = local;
}

static void test_open__folder_that_cannot_be__refused_as_a_database(void **state) {
  (void)state;
  store *s = NULL;
  ice_err e = {0};
  make_sub();
  assert_int_equal(store_open("/proc/none/x.db", STORE_WRITE, &s, &e), ICE_DB);
  assert_non_null(strstr(e.text, "name another --db"));
  assert_null(s);
}

static void test_open__fifo_or_folder__refused_at_once(void **state) {
  (void)state;
  make_sub();
  assert_int_equal(mkfifo(path, 0600), 0);
  refused(STORE_READ, "not a regular file");
  refused(STORE_WRITE, "not a regular file");
  assert_int_equal(unlink(path) | mkdir(path, 0700), 0);
  refused(STORE_READ, "not a regular file");
  refused(STORE_WRITE, "not a regular file");
  assert_int_equal(rmdir(path), 0);
}

static void test_open__empty_file__becomes_a_database(void **state) {
  (void)state;
  write_file("", 0);
  refused(STORE_READ, "no icebench results");
  store *s = open_ok(STORE_WRITE);
  assert_string_equal(ask(s, "SELECT count(*) FROM results"), "0|");
  assert_true(atoi(ask(s, "PRAGMA user_version")) >= 1);
  store_close(s);
}

static void test_query__that_writes__refused(void **state) {
  (void)state;
  store *s = open_ok(STORE_WRITE);
  ice_err e = {0};
  assert_int_equal(store_query(s, "DELETE FROM metric", NULL, 0, take, NULL, &e), ICE_USAGE);
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
  store *s = open_ok(STORE_WRITE);
  store_cell c = cell_of(key, "dense", "ok");
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
  store *s = open_ok(STORE_READ);
  const char *row = ask(s, sql);
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

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_put__a_cell__reads_back_in_the_view),
      TEST(test_view__retention__only_against_the_same_weights_data_and_examples),
      TEST(test_view__every_metric__in_its_own_column),
      TEST(test_put__unknown__is_null_never_0),
      TEST(test_put__unknown_status__refused_whole),
      TEST(test_view__contract__has_every_column),
      TEST(test_put__hostile_text__stays_text),
      TEST(test_put__same_key__failed_is_replaced_and_remembered),
      TEST(test_put__finished_key__only_by_force),
      TEST(test_expected_ms__median_of_finished),
      TEST(test_kill__in_the_middle_of_writing__nothing_half),
      TEST(test_put__each_cell__is_durable_and_in_the_file),
      TEST(test_reader__while_a_writer_writes__sees_whole_cells),
      TEST(test_writers__at_the_same_time__each_cell_is_there_once),
      TEST(test_close__last_writer__leaves_one_plain_file),
      TEST(test_disk_full__cell_is_refused_whole),
      TEST(test_open__absent__says_how_to_make_one),
      TEST(test_open__no_database__refused),
      TEST(test_open__truncated__refused_not_emptied),
      TEST(test_open__damaged_page__not_written_to),
      TEST(test_open__database_of_another_program__left_alone),
      TEST(test_open__locked__says_so),
      TEST(test_put__locked__is_refused_and_can_be_tried_again),
      TEST(test_open__path_through_a_file__refused),
      TEST(test_open__names_of_databases_in_memory__refused),
      TEST(test_open__read_only_folder__read_but_not_written),
      TEST(test_open__older_schema__read_as_it_is_and_migrated_by_a_writer),
      TEST(test_open__older_schema_with_orphans__refused_and_left_as_it_is),
      TEST(test_put__a_cell__has_its_provenance),
      TEST(test_digest__every_edit__shows),
      TEST(test_open__network_file_system__no_log),
      TEST(test_open__newer_schema__refused),
      TEST(test_open__impossible_schema__refused),
      TEST(test_open__folder_that_cannot_be__refused_as_a_database),
      TEST(test_open__fifo_or_folder__refused_at_once),
      TEST(test_open__empty_file__becomes_a_database),
      TEST(test_query__that_writes__refused),
      TEST(test_times__of_debug_builds__are_left_out_unless_allowed),
      TEST(test_label__long__kept_whole),
      TEST(test_machine__caches__those_of_the_kernel),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
