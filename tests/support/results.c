/* results.c - see results.h */
#include "tests/support/results.h"

#include <math.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/scratch.h"

/* id, method, params, examples, partial, status, reason, label; then name, value, lo, hi. */
static const char fixture[] =
    "INSERT INTO machine (id, cpu, caches, cores, memory_bytes, os) VALUES ('m1', 'Test CPU', 'L1d 32 KiB, L2 1 MiB', 2, 8589934592, 'Linux 6.1');"
    "INSERT INTO build (id, version, git_commit, git_dirty, git_diff, variant, compiler, cflags, blas)"
    " VALUES (1, '0.1.0', 'c0ffee00c0ffee00', 0, '', 'release', 'gcc 12', '-O3', 'OpenBLAS 0.3.21, kernel Haswell');"
    "WITH row (id, method, params, examples, partial, status, reason, label) AS (VALUES"
    "  (1, 'iceformer', '{\"k\":64,\"comp\":2,\"simp\":4,\"levels\":2}', NULL, 0, 'timeout', '600 s, the limit', 'generated data'),"
    "  (2, 'topk', '{\"k\":20}', 500, 0, 'ok', NULL, 'generated data'),"
    "  (3, 'topk', '{\"k\":8}', 500, 0, 'ok', NULL, 'generated data'),"
    "  (4, 'dense', '{}', 500, 0, 'ok', NULL, 'generated data'),"
    "  (5, 'vanilla', '{}', 500, 0, 'ok', NULL, 'generated data'),"
    "  (6, 'iceformer', '{\"k\":8,\"comp\":2,\"simp\":4,\"levels\":3}', 100, 1, 'ok', NULL, 'generated data'),"
    "  (7, 'iceformer', '{\"k\":128,\"comp\":2,\"simp\":4,\"levels\":2}', NULL, 0, 'failed',"
    "   'the process ended with signal 11 (Segmentation fault) while it built | the index', 'generated data'),"
    "  (8, 'zeta', '{\"mode\":\"a\",\"r\":0.5}', 500, 0, 'ok', NULL, 'generated data, no retraining'))"
    "INSERT INTO attempt (id, key, attempt, replaced_utc_ms, experiment, task, model, method, method_version, params, seed, n, heads, head_dim,"
    "  layers, causal, threads, isa, examples, partial, status, reason, label, config, data_hash, model_hash, machine_id, build_id,"
    "  started_utc_ms, wall_ms) SELECT id, 'key ' || id, 1, NULL, 'demo', 'lra/listops', 'lra/listops/softmax', method, '1', params, '1', 1032, 2,"
    "  32, 2, 0, 2, 'avx2', examples, partial, status, reason, label, NULL, 'd1', 'h1', 'm1', 1, 1700000000000, 1000 FROM row;"
    "INSERT INTO metric VALUES (2, 'accuracy', 0.36, 0.319, 0.403), (3, 'accuracy', 0.35, 0.309, 0.393), (4, 'accuracy', 0.4, 0.358, 0.444),"
    "  (5, 'accuracy', 0.4, 0.358, 0.444), (6, 'accuracy', 0.3, 0.219, 0.396), (8, 'accuracy', 0.1, 0.077, 0.129),"
    "  (2, 'attention_ns', 7e6, 6.9e6, 7.2e6), (3, 'attention_ns', 6e6, 5.9e6, 6.25e6), (4, 'attention_ns', 4e6, 3.9e6, 4.1e6),"
    "  (5, 'attention_ns', 1.2e7, 1.18e7, 1.21e7), (6, 'attention_ns', 5e6, NULL, NULL), (8, 'attention_ns', 2e6, 1.9e6, 2.1e6),"
    "  (2, 'speedup_vanilla', 1.714, 1.65, 1.75), (3, 'speedup_vanilla', 2, 1.9, 2.1), (4, 'speedup_vanilla', 3, 2.9, 3.1),"
    "  (5, 'speedup_vanilla', 1, 0.99, 1.01), (6, 'speedup_vanilla', 2.4, 2.3, 2.5), (8, 'speedup_vanilla', 6, 5.8, 6.2),"
    "  (2, 'speedup_dense', 0.571, 0.55, 0.58), (3, 'speedup_dense', 0.667, 0.65, 0.68), (4, 'speedup_dense', 1, 0.99, 1.01),"
    "  (5, 'speedup_dense', 0.333, 0.32, 0.34), (6, 'speedup_dense', 0.8, 0.79, 0.82), (8, 'speedup_dense', 2, 1.9, 2.1),"
    "  (2, 'l2_error', 0.11, NULL, NULL), (3, 'l2_error', 0.22, NULL, NULL), (4, 'l2_error', 0, NULL, NULL), (5, 'l2_error', 1.5e-6, NULL, NULL),"
    "  (2, 'rel_l2_error', 0.055, NULL, NULL), (3, 'rel_l2_error', 0.11, NULL, NULL), (4, 'rel_l2_error', 0, NULL, NULL),"
    "  (5, 'rel_l2_error', 7e-7, NULL, NULL), (6, 'rel_l2_error', 0.3, NULL, NULL), (8, 'rel_l2_error', 1.25, NULL, NULL),"
    "  (2, 'mass', 0.97, NULL, NULL), (3, 'mass', 0.93, NULL, NULL), (6, 'mass', 0.85, NULL, NULL),"
    "  (2, 'recall', 1, NULL, NULL), (3, 'recall', 1, NULL, NULL), (6, 'recall', 0.91, NULL, NULL),"
    "  (2, 'timed_inputs', 16, NULL, NULL), (3, 'timed_inputs', 16, NULL, NULL), (4, 'timed_inputs', 16, NULL, NULL),"
    "  (4, 'peak_bytes', 888888, NULL, NULL), (5, 'peak_bytes', 34000000, NULL, NULL), (3, 'pairs', 123456789012, NULL, NULL);";

/* Predictions that fit the accuracies above: of the first n items those are right whose place in a fixed shuffle is below `hits`. */
static int put_predictions(sqlite3 *db) {
  static const struct {
    int cell, n, hits, shuffle;
  } of[] = {{2, 500, 180, 7}, {3, 500, 175, 7}, {4, 500, 200, 7}, {5, 500, 200, 7}, {6, 100, 30, 7}, {8, 500, 50, 11}};
  int32_t triple[3 * 500];
  sqlite3_stmt *st = NULL;
  int rc = sqlite3_prepare_v2(db, "INSERT INTO prediction VALUES (?1, ?2, ?3)", -1, &st, NULL);
  for (size_t i = 0; rc == SQLITE_OK && i < sizeof of / sizeof *of; i++) {
    for (int k = 0; k < of[i].n; k++) triple[3 * k] = k, triple[3 * k + 1] = 1, triple[3 * k + 2] = k * of[i].shuffle % of[i].n < of[i].hits;
    (void)sqlite3_bind_int(st, 1, of[i].cell);
    (void)sqlite3_bind_int(st, 2, of[i].n);
    (void)sqlite3_bind_blob(st, 3, triple, 12 * of[i].n, SQLITE_STATIC);
    if (sqlite3_step(st) != SQLITE_DONE) rc = SQLITE_ERROR;
    else rc = sqlite3_reset(st);
  }
  (void)sqlite3_finalize(st);
  return rc;
}

int results_make(const char *path) {
  store *s = NULL;
  ice_err e = {0};
  sqlite3 *db = NULL;
  char *why = NULL;
  if (store_open(path, STORE_WRITE, &s, &e) != ICE_OK) return (void)fprintf(stderr, "%s\n", e.text), 1;
  store_close(s); /* the schema is there; now rows that do not come from this machine */
  int rc = sqlite3_open(path, &db);
  if (rc == SQLITE_OK) rc = sqlite3_exec(db, fixture, NULL, NULL, &why);
  if (rc == SQLITE_OK) rc = put_predictions(db);
  if (rc != SQLITE_OK) (void)fprintf(stderr, "%s\n", why ? why : sqlite3_errmsg(db));
  sqlite3_free(why);
  return sqlite3_close(db) != SQLITE_OK || rc != SQLITE_OK;
}

void results_put(store *s, const results_row *row) {
  static int number;
  char key[64];
  ice_err e = {0};
  const int ok = !row->status || !strcmp(row->status, "ok");
  (void)snprintf(key, sizeof key, "{\"row\":%d}", number++);
  const store_metric m[] = {{"accuracy", row->accuracy, row->accuracy - 0.02, row->accuracy + 0.02},
                            {"attention_ns", row->ms * 1e6, row->ms * 0.9e6, row->ms * 1.1e6},
                            {"speedup_vanilla", row->vanilla, row->vanilla * 0.95, row->vanilla * 1.05},
                            {"speedup_dense", row->dense, row->dense * 0.95, row->dense * 1.05},
                            {"rel_l2_error", row->error, NAN, NAN},
                            {"mass", row->mass, NAN, NAN},
                            {"recall", row->recall > 0 ? row->recall : NAN, NAN, NAN},
                            {"peak_bytes", 1 << 20, NAN, NAN},
                            {"length", row->length ? (double)row->length : NAN, NAN, NAN},
                            {"timed_inputs", row->length ? 1 : NAN, NAN, NAN}};
  const store_cell c = {.key = key, .experiment = row->experiment, .task = row->task ? row->task : "lra/listops", .model = "lra/listops/softmax",
                        .method = row->method, .method_version = "1", .params = row->params ? row->params : "{}", .seed = row->seed,
                        .n = row->n ? row->n : 1032, .heads = 2, .head_dim = 32, .layers = 2, .threads = 2, .isa = "avx2", .examples = row->examples,
                        .partial = row->partial, .status = ok ? "ok" : row->status, .reason = row->reason, .label = row->label,
                        .started_utc_ms = 1700000000000, .metric = m, .n_metrics = ok ? 10 : 0, .config = row->config, .prediction = row->prediction, .n_predictions = row->n_predictions,
                        .answer = row->answer, .n_answers = row->n_answers};
  if (store_put(s, &c, 0, &e) != ICE_OK) fail_msg("%s", e.text);
}

int results_setup(void **state, store **s) {
  ice_err e = {0};
  (void)setenv("ICEBENCH_ALLOW_DEBUG", "1", 1);
  if (scratch_setup(state)) return 1;
  return store_open(scratch_path("r.db"), STORE_WRITE, s, &e);
}

int results_teardown(void **state, store *s) {
  store_close(s);
  return scratch_teardown(state);
}
