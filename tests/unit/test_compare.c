/* test_compare.c - verdicts on databases whose samples are made up: every exit code, false alarms, and what is caught. */
#include <math.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "harness/cli.h"
#include "harness/compare.h"
#include "kernels/core/rng.h"
#include "tests/support/scratch.h"

extern const cli_verb cli_verb_compare;

enum { ROUNDS = 12, ITEMS = 200 };

typedef struct side { /* one cell of a side */
  const char *experiment, *method, *status, *version;
  double ms, jitter, error, bytes; /* jitter: relative, of a round */
  uint64_t noise;                  /* stream of the jitter */
  int hits;                        /* of ITEMS; the first ones */
  int rounds;                      /* 0: ROUNDS */
} side;

static const side plain = {.experiment = "demo", .method = "iceformer", .status = "ok", .version = "1", .ms = 10, .jitter = 0.005, .error = 0.01, .bytes = 1 << 20, .noise = 1, .hits = 100};

/* Adds a cell to a database, which is made when it is not there. */
static void put(const char *file, side c) {
  store *s = NULL;
  ice_err e = {0};
  store_sample sample[64];
  store_prediction p[ITEMS];
  char key[128];
  double ns[64];
  const int rounds = c.rounds ? c.rounds : ROUNDS, ok = !strcmp(c.status, "ok");
  attn_rng r;
  attn_rng_seed(&r, c.noise, 9);
  for (int i = 0; i < rounds; i++) {
    sample[i] = (store_sample){c.method, "attention", i, (int64_t)(c.ms * 1e6 * exp(c.jitter * attn_rng_normal(&r)))};
    ns[i] = (double)sample[i].ns;
  }
  const stats_interval t = stats_median_interval(ns, (size_t)rounds), w = stats_wilson(c.hits, ITEMS);
  for (int i = 0; i < ITEMS; i++) p[i] = (store_prediction){i, 3, i < c.hits ? 3 : 4};
  const store_metric m[] = {{"attention_ns", t.value, t.lo, t.hi}, {"accuracy", w.value, w.lo, w.hi}, {"rel_l2_error", c.error, NAN, NAN}, {"peak_bytes", c.bytes, NAN, NAN}};
  (void)snprintf(key, sizeof key, "{\"m\":\"%s\",\"v\":\"%s\",\"e\":\"%s\"}", c.method, c.version, c.experiment);
  const store_cell cell = {.key = key, .experiment = c.experiment, .task = "lra/listops", .model = "lra/listops/softmax", .method = c.method, .method_version = c.version,
                           .params = "{\"k\":20}", .seed = 1, .n = 1000, .heads = 2, .head_dim = 32, .layers = 2, .threads = 2, .isa = "avx2", .examples = ITEMS, .status = c.status,
                           .reason = ok ? NULL : "a reason <b>|", .started_utc_ms = 1700000000000, .metric = m, .n_metrics = ok ? 4 : 0, .sample = sample,
                           .n_samples = ok ? rounds : 0, .prediction = p, .n_predictions = ok && c.hits ? ITEMS : 0};
  int rc = store_open(scratch_path(file), STORE_WRITE, &s, &e);
  if (rc == ICE_OK) rc = store_put(s, &cell, 1, &e);
  store_close(s);
  if (rc != ICE_OK) fail_msg("%s", e.text);
}

static void change(const char *file, const char *sql) {
  sqlite3 *db;
  char *why = NULL;
  assert_int_equal(sqlite3_open(scratch_path(file), &db), SQLITE_OK);
  if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK) fail_msg("%s", why);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* The verb itself, its output in scratch file "out". With options up to a NULL. Returns the exit code; text of the error in `said`. */
static char said[1024];
static int verb(const char *base, const char *now, ...) {
  char a[512], b[512], db[512], *argv[16] = {(char *)(uintptr_t)"compare", a, b};
  int argc = 3;
  va_list ap;
  va_start(ap, now);
  for (char *more; argc < 15 && (more = va_arg(ap, char *)) != NULL;) argv[argc++] = more;
  va_end(ap);
  (void)snprintf(a, sizeof a, "%s", strchr(base, '.') ? scratch_path(base) : base);
  (void)snprintf(b, sizeof b, "%s", strchr(now, '.') ? scratch_path(now) : now);
  (void)snprintf(db, sizeof db, "%s", scratch_path("base.db"));
  const cli_common common = {.db = db};
  ice_err e = {0};
  (void)fflush(stdout);
  const int keep = dup(STDOUT_FILENO);
  assert_non_null(freopen(scratch_path("out"), "w", stdout));
  const int code = cli_verb_compare.main(&common, argc, argv, &e);
  (void)fflush(stdout);
  (void)dup2(keep, STDOUT_FILENO);
  (void)close(keep);
  (void)snprintf(said, sizeof said, "%s", e.text);
  return code;
}

static char *output(void) {
  static char text[1 << 16];
  FILE *f = fopen(scratch_path("out"), "r");
  assert_non_null(f);
  text[fread(text, 1, sizeof text - 1, f)] = '\0';
  (void)fclose(f);
  return text;
}
static void shows(const char *text) {
  if (!strstr(output(), text)) fail_msg("no '%s' in: %s", text, output());
}

static int setup(void **state) {
  (void)setenv("ICEBENCH_ALLOW_DEBUG", "1", 1);
  return scratch_setup(state);
}

/* One cell on each side. */
static int pair(side base, side now) {
  put("base.db", base);
  put("new.db", now);
  return verb("base.db", "new.db", NULL);
}

static void test_compare__same_but_for_noise__0(void **state) {
  (void)state;
  side now = plain;
  now.noise = 2;
  assert_int_equal(pair(plain, now), ICE_OK);
  shows("nothing worse in 1 cells");
  shows("4 same");
}

static void test_compare__slower__4(void **state) {
  (void)state;
  side now = plain;
  now.ms = 10.5, now.noise = 2, now.version = "2"; /* a new version of the method is the same cell */
  assert_int_equal(pair(plain, now), ICE_SLOWER);
  shows("slower or bigger: 1 of 1 cells");
  shows("| worse ");
  assert_int_equal(verb("base.db", "new.db", "--threshold", "speed=0.10", NULL), ICE_OK);
  assert_int_equal(verb("base.db", "new.db", "--noise-floor", "0.08", NULL), ICE_OK); /* the floor outweighs the threshold */
  assert_int_equal(verb("new.db", "base.db", NULL), ICE_OK);                          /* faster */
  shows("| better");
}

static void test_compare__bigger__4(void **state) {
  (void)state;
  side now = plain;
  now.bytes *= 1.03;
  assert_int_equal(pair(plain, now), ICE_SLOWER);
  shows("memory");
  assert_int_equal(verb("base.db", "new.db", "--threshold", "memory=0.05", NULL), ICE_OK);
}

static void test_compare__less_accurate__5_even_when_slower_too(void **state) {
  (void)state;
  side now = plain;
  now.hits = 88, now.ms = 20;
  assert_int_equal(pair(plain, now), ICE_LESS_ACCURATE); /* 12 of 12 disagreements lost: p = 2/4096 */
  shows("0.0005");
  shows("less accurate: 1 of 1 cells; slower or bigger: 1");
  assert_int_equal(verb("new.db", "base.db", NULL), ICE_OK);
}

static void test_compare__fewer_hits_that_may_be_chance__6(void **state) {
  (void)state;
  side now = plain;
  now.hits = 98; /* one point, interval [-2.5, 0] */
  assert_int_equal(pair(plain, now), ICE_NO_VERDICT);
  shows("unsure");
  assert_int_equal(verb("base.db", "new.db", "--threshold", "accuracy=0.02", NULL), ICE_OK);
}

static void test_compare__larger_error__5_and_rounding_0(void **state) {
  (void)state;
  side now = plain, exact = plain;
  now.error = 0.011;
  assert_int_equal(pair(plain, now), ICE_LESS_ACCURATE);
  exact.error = 3e-7, exact.method = "dense", now = exact, now.error = 6e-7;
  put("a.db", exact), put("b.db", now);
  assert_int_equal(verb("a.db", "b.db", NULL), ICE_OK);
}

static void test_compare__noisy__6_and_says_what_to_do(void **state) {
  (void)state;
  side base = plain, now = plain;
  base.jitter = now.jitter = 0.6, now.noise = 3;
  assert_int_equal(pair(base, now), ICE_NO_VERDICT);
  assert_non_null(strstr(said, "--force"));
  now.rounds = 5, now.jitter = 0; /* and too few rounds for any interval */
  put("few.db", now);
  assert_int_equal(verb("base.db", "few.db", NULL), ICE_NO_VERDICT);
  shows("fewer than 6 rounds");
}

/* No estimate beyond the gate, but a slowdown would have gone unseen: that is no clean bill. */
static void test_compare__could_not_have_seen_a_slowdown__6(void **state) {
  (void)state;
  side wide = plain;
  wide.jitter = 0.4;
  assert_int_equal(pair(wide, wide), ICE_NO_VERDICT);
  shows("too noisy");
  assert_int_equal(verb("base.db", "new.db", "--detect", "100", NULL), ICE_OK);
}

/* The same loss in two cells: each p counts twice. */
static void test_compare__p_of_accuracy__is_adjusted_over_the_table(void **state) {
  (void)state;
  side now = plain;
  now.hits = 88;
  assert_int_equal(pair(plain, now), ICE_LESS_ACCURATE);
  side other = plain;
  other.method = "topk", now.method = "topk";
  put("base.db", other), put("new.db", now);
  assert_int_equal(verb("base.db", "new.db", "--format", "json", NULL), ICE_LESS_ACCURATE);
  json_t *o = json_loads(output(), 0, NULL), *cells = json_object_get(o, "cells");
  assert_int_equal(json_array_size(cells), 2);
  for (size_t i = 0; i < 2; i++)
    assert_true(fabs(json_number_value(json_object_get(json_object_get(json_array_get(cells, i), "accuracy"), "p_holm")) - 2 * 2.0 / 4096) < 1e-12);
  json_decref(o);
}

static void test_compare__nothing_in_common__6(void **state) {
  (void)state;
  side now = plain;
  now.method = "topk";
  assert_int_equal(pair(plain, now), ICE_NO_VERDICT);
  assert_non_null(strstr(said, "no common cell (1 only in BASE, 1 only in NEW)"));
  change("new.db", "UPDATE attempt SET replaced_utc_ms = 1");
  store *s = NULL;
  ice_err e = {0};
  assert_int_equal(store_open(scratch_path("empty.db"), STORE_WRITE, &s, &e), ICE_OK);
  store_close(s);
  assert_int_equal(verb("empty.db", "empty.db", NULL), ICE_NO_VERDICT);
  assert_int_equal(verb("base.db", "empty.db", NULL), ICE_NO_VERDICT);
}

static void test_compare__cell_that_breaks__4_or_5(void **state) {
  (void)state;
  side now = plain;
  now.status = "timeout";
  assert_int_equal(pair(plain, now), ICE_SLOWER);
  shows("was ok and is timeout: a reason \\<b>");
  now.status = "oom";
  put("big.db", now);
  assert_int_equal(verb("base.db", "big.db", NULL), ICE_SLOWER);
  now.status = "failed";
  put("failed.db", now);
  assert_int_equal(verb("base.db", "failed.db", "--format", "junit", NULL), ICE_LESS_ACCURATE);
  shows("failures=\"1\"");
  assert_int_equal(verb("failed.db", "base.db", NULL), ICE_NO_VERDICT); /* it works again: nothing to compare it with */
}

static void test_compare__damaged_newer_or_edited__8(void **state) {
  (void)state;
  assert_int_equal(pair(plain, plain), ICE_OK);
  assert_int_equal(verb("base.db", "none.db", NULL), ICE_DB);
  change("new.db", "UPDATE metric SET value = value + 1 WHERE name = 'peak_bytes'"); /* possible, but not what was stored */
  assert_int_equal(verb("base.db", "new.db", NULL), ICE_DB);
  assert_non_null(strstr(said, "digest"));
  change("new.db", "UPDATE metric SET value = value - 1 WHERE name = 'peak_bytes'");
  change("new.db", "UPDATE sample SET ns = ns * 9 / 10");
  assert_int_equal(verb("base.db", "new.db", NULL), ICE_DB);
  assert_non_null(strstr(said, "edited"));
    change("new.db", "UPDATE metric SET value = 9e999 WHERE name = 'accuracy'"); /* infinite; SQLite stores NaN as NULL, which the schema refuses */
  assert_int_equal(verb("base.db", "new.db", NULL), ICE_DB);
  assert_non_null(strstr(said, "accuracy"));
  change("new.db", "PRAGMA user_version = 999");
  assert_int_equal(verb("base.db", "new.db", NULL), ICE_DB);
  assert_non_null(strstr(said, "newer"));
  FILE *f = fopen(scratch_path("new.db"), "r+");
  assert_non_null(f);
  assert_int_equal(fseek(f, 0, SEEK_SET) | (fputs("garbage, garbage", f) < 0) | fclose(f), 0);
  assert_int_equal(verb("base.db", "new.db", NULL), ICE_DB);
}

/* Rows older than digests are held to what they say of themselves. */
static void test_compare__old_rows_that_contradict_themselves__8(void **state) {
  (void)state;
  assert_int_equal(pair(plain, plain), ICE_OK);
  change("new.db", "UPDATE attempt SET digest = NULL");
  assert_int_equal(verb("base.db", "new.db", NULL), ICE_OK);
  change("new.db", "UPDATE sample SET ns = ns / 2");
  assert_int_equal(verb("base.db", "new.db", NULL), ICE_DB);
  assert_non_null(strstr(said, "median"));
  change("new.db", "UPDATE sample SET ns = -1");
  assert_int_equal(verb("base.db", "new.db", NULL), ICE_DB);
}

static void test_compare__other_machine__6_unless_mixed_is_allowed(void **state) {
  (void)state;
  assert_int_equal(pair(plain, plain), ICE_OK);
  change("new.db", "PRAGMA foreign_keys = OFF; UPDATE attempt SET digest = NULL, machine_id = 'other'; UPDATE machine SET id = 'other'");
  assert_int_equal(verb("base.db", "new.db", NULL), ICE_NO_VERDICT);
  assert_non_null(strstr(said, "--allow-mixed"));
  assert_int_equal(verb("base.db", "new.db", "--allow-mixed", NULL), ICE_OK);
}

static void test_compare__commits_and_experiments_of_one_database(void **state) {
  (void)state;
  side slow = plain;
  slow.experiment = "slow", slow.ms = 12;
  put("base.db", plain), put("base.db", slow);
  assert_int_equal(verb("demo", "slow", NULL), ICE_SLOWER);
  assert_int_equal(verb("slow", "demo", NULL), ICE_OK);
  assert_int_equal(verb("demo", "nobody", NULL), ICE_NO_VERDICT);
  change("base.db", "UPDATE attempt SET digest = NULL; INSERT INTO build SELECT 2, version, 'c0ffee00', git_dirty, git_diff, variant, compiler, cflags, blas FROM build;"
                    "UPDATE attempt SET build_id = 2 WHERE experiment = 'slow'; UPDATE build SET git_commit = 'beef0000' WHERE id = 1");
  assert_int_equal(verb("beef", "c0ffee", NULL), ICE_SLOWER);
  assert_int_equal(verb("c0ffee", "beef0000", NULL), ICE_OK);
  assert_int_equal(verb("c0ffee", "abcdef", NULL), ICE_NO_VERDICT);
  assert_int_equal(verb("c0ffee", "merge-base:--help", NULL), ICE_USAGE);
}

static void test_compare__repetitions_by_one_build__are_pooled(void **state) {
  (void)state;
  side a = plain, b = plain;
  compare_side s;
  ice_err e = {0};
  b.noise = 2;
  put("base.db", a), put("base.db", b);
  assert_int_equal(compare_side_read(scratch_path("base.db"), "", &s, &e), ICE_OK);
  assert_int_equal(s.n, 1);
  assert_int_equal(s.cell[0].n_runs, 2);
  assert_int_equal(s.cell[0].n_ns, 2 * ROUNDS);
  compare_side_free(&s);
}

static void test_compare__formats__are_what_their_readers_expect(void **state) {
  (void)state;
  side now = plain;
  now.ms = 12;
  assert_int_equal(pair(plain, now), ICE_SLOWER);
  assert_int_equal(verb("base.db", "new.db", "--format", "json", NULL), ICE_SLOWER);
  json_error_t bad;
  json_t *o = json_loads(output(), 0, &bad), *cell = json_array_get(json_object_get(o, "cells"), 0);
  assert_int_equal(json_integer_value(json_object_get(o, "exit_code")), 4);
  assert_string_equal(json_string_value(json_object_get(json_object_get(cell, "speed"), "verdict")), "worse");
  assert_string_equal(json_string_value(json_object_get(json_object_get(cell, "instructions"), "verdict")), "not judged");
  assert_true(json_is_null(json_object_get(json_object_get(cell, "instructions"), "base")));
  json_decref(o);
  assert_int_equal(verb("base.db", "new.db", "--format", "gh-benchmark", NULL), ICE_SLOWER);
  o = json_loads(output(), 0, &bad);
  assert_int_equal(json_array_size(o), 3); /* time, memory, error */
  assert_string_equal(json_string_value(json_object_get(json_array_get(o, 0), "unit")), "ns");
  json_decref(o);
  assert_int_equal(verb("base.db", "new.db", "--format", "gh-benchmark-bigger", NULL), ICE_SLOWER);
  o = json_loads(output(), 0, &bad);
  assert_int_equal(json_array_size(o), 1); /* accuracy */
  json_decref(o);
  assert_int_equal(verb("base.db", "new.db", "--format", "gbench", NULL), ICE_SLOWER);
  o = json_loads(output(), 0, &bad);
  assert_int_equal(json_array_size(json_object_get(o, "benchmarks")), ROUNDS);
  json_decref(o);
  char out[512];
  (void)snprintf(out, sizeof out, "%s", scratch_path("ci"));
  assert_int_equal(verb("base.db", "new.db", "--out", out, NULL), ICE_SLOWER);
  static const char *const files[] = {"ci/compare.md", "ci/compare.json", "ci/benchmark-smaller.json", "ci/benchmark-bigger.json", "ci/gbench.json", "ci/junit.xml"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) assert_int_equal(access(scratch_path(files[i]), R_OK), 0);
  assert_int_equal(verb("base.db", "new.db", "--format", "xml", NULL), ICE_USAGE);
  assert_int_equal(verb("base.db", "new.db", "--threshold", "speed", NULL), ICE_USAGE);
  assert_int_equal(verb("base.db", "new.db", "--threshold", "sped=0.1", NULL), ICE_USAGE);
}

/* The promise of the gate: where nothing changed, at most 5 of 100 comparisons cry wolf, with jitter between runs that rounds within a run
 * do not show; 5 % is caught. Runs differ by 0.5 %, rounds by 1 %; the floor covers the runs, as calibrate would find it. */
static void test_judge__fifty_without_change__few_alarms_and_5_percent_is_caught(void **state) {
  (void)state;
  compare_options o;
  compare_defaults(&o);
  o.threshold[COMPARE_SPEED] = 0.0;
  o.noise_floor = 0.012;
  int alarms = 0, caught = 0;
  for (int i = 0; i < 50; i++)
    for (int slow = 0; slow < 2; slow++) {
      double ns[2][24];
      size_t runs = 24;
      attn_rng r;
      attn_rng_seed(&r, 77, (uint64_t)(2 * i + slow));
      for (int k = 0; k < 2; k++) {
        const double run = exp(0.005 * attn_rng_normal(&r)) * (k && slow ? 1.05 : 1.0);
        for (int j = 0; j < 24; j++) ns[k][j] = 1e6 * run * exp(0.01 * attn_rng_normal(&r));
      }
      const stats_interval ratio = stats_ratio_of_runs((stats_runs){ns[1], &runs, 1}, (stats_runs){ns[0], &runs, 1}, 1);
      if (slow) caught += ratio.lo > 1.0 + o.noise_floor;
      else alarms += ratio.lo > 1.0 + o.noise_floor;
    }
  assert_in_range(alarms, 0, 2);
  assert_in_range(caught, 48, 50);
}

/* Marks between 0 and 1, of answers in words: paired by item, without a test that is for hits only. */
static void test_compare__marks_of_answers__are_paired(void **state) {
  (void)state;
  side words = plain;
  words.hits = 0; /* no predictions */
  static const char *const files[] = {"base.db", "new.db"};
  for (int f = 0; f < 2; f++) {
    put(files[f], words);
    char sql[400];
    (void)snprintf(sql, sizeof sql,
                   "UPDATE attempt SET digest = NULL; WITH RECURSIVE i(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM i WHERE x < 29) "
                   "INSERT INTO answer (cell_id, item, id, text, expected, tokens, cut, mark) SELECT 1, x, x, '', '[]', 1, 0, (x %% 5) * 0.2 - %g * (x %% 5 > 0) FROM i;"
                   "UPDATE metric SET value = (SELECT avg(mark) FROM answer) WHERE name = 'accuracy'",
                   f * 0.1);
    change(files[f], sql);
  }
  assert_int_equal(verb("base.db", "new.db", "--format", "json", NULL), ICE_LESS_ACCURATE);
  json_t *o = json_loads(output(), 0, NULL), *found = json_object_get(json_array_get(json_object_get(o, "cells"), 0), "accuracy");
  assert_true(fabs(json_number_value(json_object_get(found, "change")) + 0.08) < 1e-9);
  assert_true(json_number_value(json_object_get(found, "change_hi")) < -0.05); /* unpaired, the spread of the marks would hide it */
  assert_true(json_is_null(json_object_get(found, "p_holm")));
  json_decref(o);
  assert_int_equal(verb("base.db", "base.db", NULL), ICE_OK);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      T(test_compare__same_but_for_noise__0),
      T(test_compare__slower__4),
      T(test_compare__bigger__4),
      T(test_compare__less_accurate__5_even_when_slower_too),
      T(test_compare__fewer_hits_that_may_be_chance__6),
      T(test_compare__larger_error__5_and_rounding_0),
      T(test_compare__noisy__6_and_says_what_to_do),
      T(test_compare__could_not_have_seen_a_slowdown__6),
      T(test_compare__p_of_accuracy__is_adjusted_over_the_table),
      T(test_compare__nothing_in_common__6),
      T(test_compare__cell_that_breaks__4_or_5),
      T(test_compare__damaged_newer_or_edited__8),
      T(test_compare__old_rows_that_contradict_themselves__8),
      T(test_compare__other_machine__6_unless_mixed_is_allowed),
      T(test_compare__commits_and_experiments_of_one_database),
      T(test_compare__repetitions_by_one_build__are_pooled),
      T(test_compare__formats__are_what_their_readers_expect),
      T(test_compare__marks_of_answers__are_paired),
      T(test_judge__fifty_without_change__few_alarms_and_5_percent_is_caught),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
