/* db_case.c - see db_case.h */
#include "tests/support/db_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

char db_folder[] = "/tmp/icebench-store-XXXXXX", db_path[256];

int db_setup(void **state) {
  (void)state;
  strcpy(db_folder + strlen(db_folder) - 6, "XXXXXX");
  if (!mkdtemp(db_folder)) return 1;
  (void)snprintf(db_path, sizeof db_path, "%s/sub/results.db", db_folder);
  (void)setenv("ICEBENCH_ALLOW_DEBUG", "1", 1); /* these tests run in every build variant */
  (void)setenv("OMP_WAIT_POLICY", "passive", 1);
  return 0;
}
int db_teardown(void **state) {
  (void)state;
  char name[300];
  static const char *const tail[] = {"", "-wal", "-shm", "-journal"};
  for (size_t i = 0; i < 4; i++) {
    (void)snprintf(name, sizeof name, "%s%s", db_path, tail[i]);
    (void)unlink(name);
  }
  (void)snprintf(name, sizeof name, "%s/sub", db_folder);
  (void)rmdir(name);
  return rmdir(db_folder);
}

store *db_open(store_mode mode) {
  store *s = NULL;
  ice_err e = {0};
  if (store_open(db_path, mode, &s, &e) != ICE_OK) fail_msg("%s", e.text);
  return s;
}

static const store_metric metrics[] = {{"accuracy", 0.375, 0.35, 0.4},
                                       {"attention_ns", 2000000, 1900000, 2100000},
                                       {"speedup_vanilla", 3.0, 2.9, 3.1},
                                       {"speedup_dense", 0.5, 0.4, 0.6},
                                       {"mass", NAN, NAN, NAN}};
static const store_sample samples[] = {{"dense", "attention", 0, 100}, {"dense", "attention", 1, 110}};
static const store_prediction predictions[] = {{5, 3, 3}, {9, 1, 2}};

store_cell db_cell(const char *key, const char *method, const char *status) {
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
const char *db_ask(store *s, const char *sql) {
  ice_err e = {0};
  got[0] = 0;
  if (store_query(s, sql, NULL, 0, take, NULL, &e) != ICE_OK) fail_msg("%s", e.text);
  return got;
}

void db_refused(store_mode mode, const char *word) {
  store *s = NULL;
  ice_err e = {0};
  const int rc = store_open(db_path, mode, &s, &e);
  if (rc == ICE_OK) store_close(s);
  assert_int_equal(rc, ICE_DB);
  if (!strstr(e.text, word)) fail_msg("'%s' does not say '%s'", e.text, word);
  assert_null(strchr(e.text, '\n'));
}

void db_make_sub(void) {
  char dir[300];
  (void)snprintf(dir, sizeof dir, "%s/sub", db_folder);
  (void)mkdir(dir, 0700);
}

void db_write_file(const char *text, size_t n) {
  db_make_sub();
  FILE *f = fopen(db_path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}
