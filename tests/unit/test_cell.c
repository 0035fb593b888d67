/* test_cell.c - who is timed in a cell, jobs and results as JSON, the draw of examples, and children with every kind of end. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/cell.h"
#include "harness/registry/registry.h"
#include "harness/run_child.h"

/* ---- Who is timed. */

enum { FAILS_TO_OPEN = 1, FAILS_TO_RUN = 2 };
typedef struct slots {
  int fate[CELL_SLOTS], opened[CELL_SLOTS], closed[CELL_SLOTS], padded[CELL_SLOTS];
} slots;
static int slot_pass(void *ctx, int first, measure_times *out, ice_err *e) {
  const int *fate = ctx;
  (void)first;
  *out = (measure_times){{[MEASURE_ATTENTION] = 1000}};
  return *fate == FAILS_TO_RUN ? ice_fail(e, ICE_INTERNAL, "does not run") : ICE_OK;
}
static int slot_open(void *ctx, int i, int padded, measure_entrant *out, ice_err *e) {
  slots *s = ctx;
  s->opened[i]++, s->padded[i] = padded;
  *out = (measure_entrant){.variants = 1, .pass = slot_pass, .ctx = s->fate + i};
  return s->fate[i] == FAILS_TO_OPEN ? ice_fail(e, ICE_INTERNAL, "no room for slot %d", i) : ICE_OK;
}
static void slot_close(void *ctx, int i) { ((slots *)ctx)->closed[i]++; }

/* A reference that cannot be opened, or fails, costs its own speed-up; the others keep theirs. */
static void test_time__reference_fails__costs_its_speedup_alone(void **state) {
  (void)state;
  static const struct {
    int fate[CELL_SLOTS];
    const char *reason;
    int vanilla, dense, skip;
  } way[] = {{{0, 0, 0, 0}, NULL, 1, 1, 1},
             {{0, FAILS_TO_OPEN, 0, 0}, "no speed-up: no room for slot 1", 0, 1, 1},
             {{0, 0, FAILS_TO_OPEN, FAILS_TO_RUN}, "no speed-up: no room for slot 2; no speed-up: does not run", 1, 0, 0},
             {{0, FAILS_TO_RUN, FAILS_TO_OPEN, 0}, "no speed-up: no room for slot 2; no speed-up: does not run", 0, 0, 1},
             {{0, FAILS_TO_OPEN, FAILS_TO_OPEN, FAILS_TO_OPEN}, "no speed-up: no room for slot 1; no speed-up: no room for slot 2; no speed-up: no room for slot 3", 0, 0, 0}};
  const cell_job j = {.rounds = 2, .max_seconds = 10};
  for (size_t w = 0; w < sizeof way / sizeof *way; w++) {
    slots s = {0};
    memcpy(s.fate, way[w].fate, sizeof s.fate);
    const cell_slots all = {{registry_find("topk", NULL), registry_find("vanilla", NULL), registry_find("dense", NULL)}, 1, slot_open, slot_close, &s};
    cell_result out = {.status = "ok"};
    measure_result result;
    measure_columns c;
    int skip;
    ice_err e = {0};
    assert_int_equal(cell_time(&j, &all, &result, &c, &skip, &out, &e), ICE_OK);
    assert_int_equal(c.own, 0);
    assert_int_equal(isfinite(measure_speedup(&result, c.vanilla, 0, 1).value), way[w].vanilla);
    assert_int_equal(isfinite(measure_speedup(&result, c.dense, 0, 1).value), way[w].dense);
    assert_int_equal(isfinite(measure_speedup(&result, skip, 0, 1).value), way[w].skip);
    if (way[w].reason) assert_string_equal(out.reason, way[w].reason);
    else assert_null(out.reason);
    for (int i = 0; i < CELL_SLOTS; i++) assert_true(s.opened[i] == 1 && s.closed[i] == (s.fate[i] == FAILS_TO_OPEN) && s.padded[i] == (i < 3));
    measure_free(&result);
  }
}

static void test_time__own_slot_fails__is_the_failure(void **state) {
  (void)state;
  const cell_job j = {.rounds = 2, .max_seconds = 10};
  for (int fate = FAILS_TO_OPEN; fate <= FAILS_TO_RUN; fate++) {
    slots s = {.fate = {fate}};
    const cell_slots all = {{registry_find("dense", NULL), registry_find("vanilla", NULL), registry_find("dense", NULL)}, 0, slot_open, slot_close, &s};
    cell_result out = {.status = "ok"};
    measure_result result;
    measure_columns c;
    int skip;
    ice_err e = {0};
    assert_int_equal(cell_time(&j, &all, &result, &c, &skip, &out, &e), ICE_INTERNAL);
    assert_string_equal(e.text, fate == FAILS_TO_OPEN ? "no room for slot 0" : "does not run");
    assert_true(s.opened[2] == 0 && s.opened[3] == 0 && (fate == FAILS_TO_OPEN || c.dense == 0)); /* dense is the method itself */
  }
}

/* ---- JSON. */

static const cell_job job = {.task = "lra/listops",
                             .model_path = "/a \"b\"\\c/\xc3\xa9.safetensors",
                             .method = "topk",
                             .params_json = "{\"k\":20}",
                             .split = TASK_DEV,
                             .seed = UINT64_MAX,
                             .examples = 1234567890123,
                             .timed = 16,
                             .threads = 2,
                             .rounds = 9,
                             .warmup = 1,
                             .quality = 1,
                             .times_only = 1,
                             .max_seconds = 0.1,
                             .limit_gib = 8};

static void test_job__round_trip__keeps_everything(void **state) {
  (void)state;
  char *text = cell_job_print(&job);
  cell_job back;
  assert_non_null(text);
  assert_int_equal(cell_job_parse(text, strlen(text), &back, NULL), ICE_OK);
  assert_string_equal(back.task, job.task);
  assert_string_equal(back.model_path, job.model_path);
  assert_string_equal(back.method, job.method);
  assert_string_equal(back.params_json, job.params_json);
  assert_true(back.seed == job.seed && back.examples == job.examples && back.timed == job.timed);
  assert_true(back.split == job.split && back.threads == 2 && back.rounds == 9 && back.warmup == 1 &&
              back.quality == 1 && back.times_only == 1);
  assert_true(back.max_seconds == 0.1 && back.limit_gib == 8.0);
  cell_job_free(&back);
  free(text);
}

static void test_job__group__keeps_the_parameters_of_each(void **state) {
  (void)state;
  const char *const also[] = {"{\"k\":21}", "{\"k\":22}"};
  cell_job group = job, back;
  group.also = also, group.n_also = 2;
  char *text = cell_job_print(&group);
  assert_int_equal(cell_job_parse(text, strlen(text), &back, NULL), ICE_OK);
  assert_int_equal(back.n_also, 2);
  for (int i = 0; i < 2; i++) assert_string_equal(back.also[i], also[i]);
  cell_job_free(&back);
  memcpy(strstr(text, "{\"k\":22}"), "[\"k\",22]", 8);
  assert_int_equal(cell_job_parse(text, strlen(text), &back, NULL), ICE_INTERNAL);
  cell_job_free(&back);
  free(text);
  const char *many[CELL_GROUP];
  for (int i = 0; i < CELL_GROUP; i++) many[i] = "{}";
  group.also = many, group.n_also = CELL_GROUP;
  text = cell_job_print(&group);
  assert_int_equal(cell_job_parse(text, strlen(text), &back, NULL), ICE_INTERNAL);
  cell_job_free(&back);
  free(text);
}

static void test_job__damaged__is_refused_at_every_byte(void **state) {
  (void)state;
  char *text = cell_job_print(&job);
  const size_t n = strlen(text);
  cell_job back;
  for (size_t cut = 0; cut < n; cut++) {
    assert_int_equal(cell_job_parse(text, cut, &back, NULL), ICE_INTERNAL);
    cell_job_free(&back);
  }
  static const char *const swap[][2] = {
      {"\"threads\":2", "\"threads\":0"},     {"\"split\":1", "\"split\":3"}, {"\"timed\":16", "\"timed\":-1"},
      {"\"18446744073709551615\"", "\"x\""},  {"{\"k\":20}", "[20]"},         {"\"rounds\":9", "\"rounds\":\"9\""},
      {"\"method\":\"topk\"", "\"method\":7"}};
  for (size_t i = 0; i < sizeof swap / sizeof *swap; i++) {
    char other[2048], *at = strstr(text, swap[i][0]);
    assert_non_null(at);
    (void)snprintf(other, sizeof other, "%.*s%s%s", (int)(at - text), text, swap[i][1], at + strlen(swap[i][0]));
    ice_err e = {0};
    assert_int_equal(cell_job_parse(other, strlen(other), &back, &e), ICE_INTERNAL);
    assert_true(e.text[0]);
    cell_job_free(&back);
  }
  free(text);
}

/* ---- Several processes. */

/* A result with two rounds of topk at ns and ns + 2, of dense at 3 ns (`dense` rounds of it), on the heap as a parsed one is. */
static cell_result process_of(int64_t ns, int dense) {
  cell_result r = {.status = "ok", .resident_bytes = ns, .metric = calloc(4, sizeof *r.metric), .n_metrics = 4, .sample = calloc(8, sizeof *r.sample)};
  const char *const name[] = {"attention_ns", "speedup_dense", "rounds", "mass"};
  for (int i = 0; i < 4; i++) r.metric[i] = (store_metric){name[i], i == 3 ? 0.5 : -1, NAN, NAN};
  for (int i = 0; i < 2; i++) r.sample[r.n_samples++] = (store_sample){"topk", "attention", i, ns + 2 * i};
  for (int i = 0; i < dense; i++) r.sample[r.n_samples++] = (store_sample){"dense", "attention", i, 3 * ns};
  return r;
}

static void test_join__three_processes__medians_and_pairs_of_all(void **state) {
  (void)state;
  cell_result all = process_of(10, 2), second = process_of(100, 1), third = process_of(20, 2);
  assert_int_equal(cell_join(&all, &second, 1, NULL), ICE_OK);
  assert_int_equal(cell_join(&all, &third, 2, NULL), ICE_OK);
  assert_int_equal(cell_join_end(&all, "topk", 1, NULL), ICE_OK);
  assert_int_equal(all.n_samples, 11);
  assert_true(all.sample[4].round == STORE_PROCESS && all.sample[10].round == 2 * STORE_PROCESS + 1 && all.resident_bytes == 100);
  /* topk 10 12 100 102 20 22: the middle two are 20 and 22; with 1/27 each, three drawn processes are all the first, or the second. Pairs without round 1 of process 1: dense 30 30 300 60 60 over 10 12 100 20 22. */
  assert_true(all.metric[0].value == 21 && all.metric[0].lo >= 10 && all.metric[0].lo <= 12 && all.metric[0].hi >= 100 && all.metric[0].hi <= 102);
  assert_true(all.metric[1].value == 3 && all.metric[2].value == 6 && all.metric[3].value == 0.5);
  cell_result_free(&all), cell_result_free(&second), cell_result_free(&third);
}

/* A baseline that the first process had not is in none; one that another had not is paired where it was. */
static void test_join__baseline_missing_somewhere__pairs_what_there_is(void **state) {
  (void)state;
  cell_result all = process_of(10, 0), second = process_of(20, 2), third = process_of(30, 2), fourth = process_of(40, 0);
  assert_int_equal(cell_join(&all, &second, 1, NULL) + cell_join_end(&all, "topk", 1, NULL), ICE_OK);
  assert_true(all.n_samples == 4 && all.metric[0].value == 16 && all.metric[1].value == -1);
  assert_int_equal(cell_join(&third, &fourth, 1, NULL) + cell_join_end(&third, "topk", 1, NULL), ICE_OK);
  assert_true(third.n_samples == 6 && third.metric[0].value == 36 && fabs(third.metric[1].value - 90 / 31.0) < 1e-12);
  cell_result_free(&all), cell_result_free(&second), cell_result_free(&third), cell_result_free(&fourth);
}

/* ---- Results as JSON. */

static void test_result__round_trip__keeps_unknown_numbers_unknown(void **state) {
  (void)state;
  store_metric metric[] = {{"accuracy", 0.25, 0.1, 0.4}, {"mass", NAN, NAN, NAN}};
  store_sample sample[] = {{"dense", "attention", 3, 1234567890123}};
  store_prediction prediction[] = {{7, 9, 0}, {1 << 20, 0, 5}};
  const cell_result r = {.status = "ok",
                         .n = 1000,
                         .heads = 2,
                         .head_dim = 32,
                         .layers = 2,
                         .examples = 2,
                         .resident_bytes = 1 << 30,
                         .metric = metric,
                         .sample = sample,
                         .prediction = prediction,
                         .n_metrics = 2,
                         .n_samples = 1,
                         .n_predictions = 2};
  char *text = cell_result_print(&r);
  cell_result back;
  assert_non_null(text);
  assert_int_equal(cell_result_parse(text, strlen(text), &back, NULL), ICE_OK);
  assert_string_equal(back.status, "ok");
  assert_null(back.reason);
  assert_true(back.n == 1000 && back.heads == 2 && back.head_dim == 32 && back.layers == 2 && back.examples == 2);
  assert_true(back.resident_bytes == 1 << 30 && back.n_metrics == 2 && back.n_samples == 1 && back.n_predictions == 2);
  assert_true(back.metric[0].value == 0.25 && back.metric[0].lo == 0.1 && back.metric[0].hi == 0.4);
  assert_true(isnan(back.metric[1].value) && isnan(back.metric[1].hi));
  assert_true(back.sample[0].round == 3 && back.sample[0].ns == 1234567890123);
  assert_true(back.prediction[1].item == 1 << 20 && back.prediction[1].predicted == 5);
  cell_result_free(&back);
  const size_t n = strlen(text);
  for (size_t cut = 0; cut < n; cut++) assert_int_equal(cell_result_parse(text, cut, &back, NULL), ICE_INTERNAL);
  char *status = strstr(text, "\"ok\"");
  memcpy(status, "\"?k\"", 4);
  assert_int_equal(cell_result_parse(text, n, &back, NULL), ICE_INTERNAL);
  free(text);
}

static void test_result__failure__carries_its_reason(void **state) {
  (void)state;
  const cell_result r = {.status = "unsupported", .reason = "topk: \"no\""};
  char *text = cell_result_print(&r);
  cell_result back;
  assert_int_equal(cell_result_parse(text, strlen(text), &back, NULL), ICE_OK);
  assert_string_equal(back.reason, "topk: \"no\"");
  assert_true(back.n_metrics == 0 && back.n_samples == 0 && back.n_predictions == 0);
  cell_result_free(&back);
  free(text);
}

static void test_execute__nothing_is_there__is_a_failure_with_a_reason(void **state) {
  (void)state;
  const char *const field[][2] = {{"nope/nope", "topk"}, {"lra/listops", "nope"}};
  for (int i = 0; i < 2; i++) {
    cell_job bad = job;
    cell_result r;
    bad.task = field[i][0];
    bad.method = field[i][1];
    cell_execute(&bad, &r);
    assert_string_equal(r.status, "failed");
    assert_non_null(strstr(r.reason, "nope"));
    cell_result_free(&r);
  }
}

/* ---- Examples. */

static void test_draw__any_count__is_ascending_distinct_and_fair(void **state) {
  (void)state;
  int64_t out[50], hits[50] = {0};
  for (uint64_t seed = 0; seed < 4000; seed++) {
    assert_int_equal(cell_draw(50, 10, seed, out), 10);
    for (int i = 0; i < 10; i++) {
      assert_in_range(out[i], i ? (uint64_t)out[i - 1] + 1 : 0, 49);
      hits[out[i]]++;
    }
  }
  for (int i = 0; i < 50; i++) assert_in_range(hits[i], 680, 920); /* 800 expected, deviation 25 */
  assert_int_equal(cell_draw(50, 50, 1, out), 50);
  assert_int_equal(cell_draw(50, 99, 1, out), 50);
  for (int i = 0; i < 50; i++) assert_int_equal(out[i], i);
  assert_int_equal(cell_draw(50, 0, 1, out), 0);
}

/* ---- Children. */

static run_outcome child(const char *script, const char *input, double seconds, size_t bytes,
                         const volatile sig_atomic_t *stop) {
  const char *const argv[] = {"/bin/sh", "-c", script, NULL};
  const run_limits limits = {.seconds = seconds, .result_bytes = bytes};
  run_outcome out;
  ice_err e = {0};
  if (run_child(argv, input, &limits, stop, 0, &out, &e) != ICE_OK) fail_msg("%s", e.text);
  return out;
}

static void test_child__echo__gets_input_and_gives_output(void **state) {
  (void)state;
  run_outcome o = child("cat; echo noise >&2", "job text", 0, 1 << 20, NULL);
  assert_int_equal(o.end, RUN_RESULT);
  assert_string_equal(o.output, "job text");
  assert_int_equal(o.output_bytes, 8);
  free(o.output);
  o = child("head -c 3000000 /dev/zero | tr '\\0' x", "", 0, 4 << 20, NULL);
  assert_int_equal(o.end, RUN_RESULT);
  assert_int_equal(o.output_bytes, 3000000);
  assert_true(o.output[2999999] == 'x' && o.output[3000000] == '\0');
  free(o.output);
}

static void test_child__every_end__is_told_apart(void **state) {
  (void)state;
  volatile sig_atomic_t stop = 1;
  const struct {
    const char *script, *why;
    double seconds;
    size_t bytes;
    run_end end;
  } c[] = {
      {"echo first >&2; echo 'icebench: last words' >&2; exit 7", "exit code 7: last words", 0, 99, RUN_EXIT},
      {"exit 0", "exit code 0", 0, 99, RUN_EXIT}, /* no result */
      {"kill -SEGV $$", "killed by SIGSEGV", 0, 99, RUN_SIGNAL},
      {"echo oh >&2; kill -ABRT $$", "killed by SIGABRT: oh", 0, 99, RUN_SIGNAL},
      {"echo done; sleep 1000", "killed after 0.2 s, the limit (limits.seconds)", 0.2, 99, RUN_TIMEOUT},
      {"exec >&- 2>&-; sleep 1000", "killed after 0.2 s, the limit (limits.seconds)", 0.2, 99, RUN_TIMEOUT},
      {"trap '' TERM INT; sleep 1000 & wait", "killed after 0.2 s, the limit (limits.seconds)", 0.2, 99, RUN_TIMEOUT},
      {"yes", "a result of more than 100000 bytes", 0, 100000, RUN_EXIT}};
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    run_outcome o = child(c[i].script, "", c[i].seconds, c[i].bytes, NULL);
    assert_string_equal(o.why, c[i].why);
    assert_int_equal(o.end, c[i].end);
    free(o.output);
  }
  run_outcome o = child("sleep 1000", "", 0, 99, &stop);
  assert_int_equal(o.end, RUN_INTERRUPTED);
  free(o.output);
}

static void test_child__resident_set_above_the_limit__is_oom(void **state) {
  (void)state;
  const char *const argv[] = {"/bin/sh", "-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' x); sleep 1000; echo $x",
                              NULL};
  const run_limits limits = {.gib = 0.03, .result_bytes = 99};
  run_outcome o;
  assert_int_equal(run_child(argv, "", &limits, NULL, 0, &o, NULL), ICE_OK);
  assert_int_equal(o.end, RUN_OOM);
  assert_non_null(strstr(o.why, "the limit is 0.03 GiB (limits.memory_gib)"));
  assert_true(o.peak_gib > 0.03);
  free(o.output);
}

static void test_child__no_such_program__is_an_end_too(void **state) {
  (void)state;
  const char *const argv[] = {"/nonexistent/program", NULL};
  run_outcome o;
  assert_int_equal(run_child(argv, "text", &(run_limits){.result_bytes = 99}, NULL, 0, &o, NULL), ICE_OK);
  assert_int_equal(o.end, RUN_EXIT);
  assert_string_equal(o.why, "exit code 127");
  free(o.output);
}

static void test_child__long_error_stream__keeps_the_last_line(void **state) {
  (void)state;
  run_outcome o = child("i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i + 1)); done; exit 1", "", 0, 99, NULL);
  assert_string_equal(o.why, "exit code 1: line 2999");
  free(o.output);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_time__reference_fails__costs_its_speedup_alone),
      cmocka_unit_test(test_time__own_slot_fails__is_the_failure),
      cmocka_unit_test(test_job__round_trip__keeps_everything),
      cmocka_unit_test(test_join__three_processes__medians_and_pairs_of_all),
      cmocka_unit_test(test_join__baseline_missing_somewhere__pairs_what_there_is),
      cmocka_unit_test(test_job__group__keeps_the_parameters_of_each),
      cmocka_unit_test(test_job__damaged__is_refused_at_every_byte),
      cmocka_unit_test(test_result__round_trip__keeps_unknown_numbers_unknown),
      cmocka_unit_test(test_result__failure__carries_its_reason),
      cmocka_unit_test(test_execute__nothing_is_there__is_a_failure_with_a_reason),
      cmocka_unit_test(test_draw__any_count__is_ascending_distinct_and_fair),
      cmocka_unit_test(test_child__echo__gets_input_and_gives_output),
      cmocka_unit_test(test_child__every_end__is_told_apart),
      cmocka_unit_test(test_child__resident_set_above_the_limit__is_oom),
      cmocka_unit_test(test_child__no_such_program__is_an_end_too),
      cmocka_unit_test(test_child__long_error_stream__keeps_the_last_line),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
