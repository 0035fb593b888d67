/* test_run_plan.c - the identity of a cell, and which examples a cell times: a tiny ListOps set and an untrained model. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "datasets/task.h"
#include "harness/cell.h"
#include "harness/label.h"
#include "harness/machine.h"
#include "harness/registry/registry.h"
#include "harness/run.h"
#include "kernels/core/fileio.h"
#include "models/encoder.h"
#include "tests/support/scratch.h"

enum { EXAMPLES = 12 };

/* Every split: EXAMPLES sums of 3, 5, 7, ... digits; `digit` makes sets of the same lengths differ. */
static void write_data(int digit) {
  static const char *const split[] = {"train", "val", "test"};
  ice_err e = {0};
  char name[64], text[8192];
  assert_int_equal(file_make_dirs(scratch_path("data/lra/listops-1000"), &e), ICE_OK);
  (void)scratch_write("data/lra/listops-1000/generated.json", "{\"complete\": true}", 18);
  for (int s = 0; s < 3; s++) {
    size_t at = (size_t)snprintf(text, sizeof text, "Source\tTarget\n");
    for (int i = 0; i < EXAMPLES; i++) {
      const int n = 3 + 2 * i;
      for (int k = 0; k <= n; k++) at += (size_t)snprintf(text + at, sizeof text - at, "( ");
      at += (size_t)snprintf(text + at, sizeof text - at, "[SM");
      for (int k = 0; k < n; k++) at += (size_t)snprintf(text + at, sizeof text - at, " %d )", digit);
      at += (size_t)snprintf(text + at, sizeof text - at, " ] )\t%d\n", n * digit % 10);
    }
    (void)snprintf(name, sizeof name, "data/lra/listops-1000/basic_%s.tsv", split[s]);
    (void)scratch_write(name, text, at);
  }
  (void)setenv("ICEBENCH_DATA_DIR", scratch_path("data"), 1);
}

/* meta: what it was trained with, or NULL */
static void write_trained(uint64_t seed, const char *const *meta) {
  encoder m;
  ice_err e = {0};
  const task *t = task_find("lra/listops", &e);
  assert_non_null(t);
  const encoder_config cfg = encoder_lra_config(t->vocab, 64, t->classes, t->inputs);
  assert_int_equal(encoder_create(&m, &cfg, &e), ICE_OK);
  encoder_init(&m, seed);
  assert_int_equal(encoder_save(&m, m.params, scratch_path("m.safetensors"), meta, &e), ICE_OK);
  encoder_destroy(&m);
}
static void write_model(uint64_t seed) { write_trained(seed, NULL); }

static int setup(void **state) {
  if (scratch_setup(state)) return 1;
  write_data(1);
  write_model(1);
  char text[512];
  const int n = snprintf(text, sizeof text, "name: x\ntask: lra/listops\nmodel: %s\nthreads: 1\nmethods: [topk]\n", scratch_path("m.safetensors"));
  (void)scratch_write("x.yaml", text, (size_t)n);
  return 0;
}

/* Key of the experiment's only cell, which must name version, data and weights; to free(). */
static char *key_now(const run_options *o) {
  run_plan p;
  ice_err e = {0};
  if (run_plan_create(&p, scratch_path("x.yaml"), o, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(p.n, 1);
  char *key = strdup(p.cell->key), want[128];
  const char *const fact[][2] = {{"version", p.cell->cell->method->version}, {"data", p.cell->data->hash}, {"weights", p.cell->model->hash}};
  for (int i = 0; i < 3; i++) {
    assert_true(*fact[i][1]);
    (void)snprintf(want, sizeof want, "\"%s\":\"%s\"", fact[i][0], fact[i][1]);
    if (!strstr(key, want)) fail_msg("%s is not in %s", want, key);
  }
  run_plan_destroy(&p);
  return key;
}

static void test_key__same_inputs__same_key(void **state) {
  (void)state;
  const run_options o = {0};
  char *a = key_now(&o), *b = key_now(&o);
  assert_string_equal(a, b);
  free(a), free(b);
}

static void test_key__other_data_or_weights__other_key(void **state) {
  (void)state;
  const run_options o = {0};
  char *first = key_now(&o);
  write_data(2);
  char *data = key_now(&o);
  write_model(2);
  char *weights = key_now(&o);
  assert_string_not_equal(first, data);
  assert_string_not_equal(data, weights);
  write_data(1), write_model(1);
  char *back = key_now(&o);
  assert_string_equal(first, back);
  free(first), free(data), free(weights), free(back);
}

static void test_key__options_that_change_numbers__other_key(void **state) {
  (void)state;
  const char *const k[] = {"topk.k=7", NULL}, *const rounds[] = {"measure.rounds=8", NULL}, *const seconds[] = {"measure.max_seconds=7", NULL};
  const run_options plain = {0}, other[] = {{.set = k}, {.set = rounds}, {.limit = 5}, {.threads = 2}}, budget = {.set = seconds};
  char *first = key_now(&plain);
  for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
    char *key = key_now(other + i);
    assert_string_not_equal(first, key);
    free(key);
  }
  char *same = key_now(&budget); /* a budget is no part of it: rows that it cut short say so in their label */
  assert_string_equal(first, same);
  free(first), free(same);
}

/* Cells by padding: the key of skip is what it was before there was the key `padding`; compute has its own, and says so. */
static void test_padding__both__own_identity_and_label(void **state) {
  (void)state;
  const char *const both[] = {"padding=skip|compute", NULL};
  const run_options plain = {0}, o = {.set = both}, computed = {.set = both, .filter = "padding=compute"};
  run_plan p;
  ice_err e = {0};
  char *before = key_now(&plain);
  if (run_plan_create(&p, scratch_path("x.yaml"), &o, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(p.n, 2);
  assert_string_equal(p.cell[0].key, before);
  assert_null(strstr(p.cell[0].label, LABEL_PADDED));
  assert_string_not_equal(p.cell[1].key, before);
  assert_non_null(strstr(p.cell[1].label, LABEL_PADDED));
  run_plan_destroy(&p);
  if (run_plan_create(&p, scratch_path("x.yaml"), &computed, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(p.n, 1);
  assert_int_equal(p.cell[0].cell->padded, 1);
  run_plan_destroy(&p);
  free(before);
}

static double metric_of(const cell_result *r, const char *name) {
  for (int i = 0; i < r->n_metrics; i++)
    if (!strcmp(r->metric[i].name, name)) return r->metric[i].value;
  return -1.0;
}

/* Padding that is computed changes the work, not the answers. */
static void test_execute__padding_computed__same_predictions_more_pairs(void **state) {
  (void)state;
  static const char *const method[] = {"dense", "vanilla", "topk"};
  static const char *const params[] = {"{}", "{}", "{\"k\":64}"};
  for (int i = 0; i < 3; i++) {
    cell_result r[2];
    for (int padded = 0; padded < 2; padded++) {
      const cell_job job = {.task = "lra/listops", .model_path = scratch_path("m.safetensors"), .method = method[i], .params_json = params[i],
                            .split = TASK_TEST, .seed = 1, .timed = 3, .threads = 2, .rounds = 1, .quality = 1, .padded = padded, .max_seconds = 10};
      cell_execute(&job, &r[padded]);
      if (strcmp(r[padded].status, "ok")) fail_msg("%s", r[padded].reason);
    }
    assert_int_equal(r[0].n_predictions, EXAMPLES);
    assert_int_equal(r[1].n_predictions, EXAMPLES);
    for (int k = 0; k < EXAMPLES; k++) assert_int_equal(r[0].prediction[k].predicted, r[1].prediction[k].predicted);
    assert_true(r[0].n < 64);
    assert_int_equal(r[1].n, 64); /* the model's positions */
    assert_true(metric_of(&r[1], "pairs") > metric_of(&r[0], "pairs"));
    assert_true(metric_of(&r[1], "rel_l2_error") >= 0 && metric_of(&r[1], "rel_l2_error") < 1e-5); /* judged with the mask */
    assert_true(metric_of(&r[0], "speedup_skip") == -1.0);
    assert_true(metric_of(&r[1], "speedup_skip") > 0.0);
    cell_result_free(&r[0]), cell_result_free(&r[1]);
  }
}

/* The plan of x.yaml with overrides ("KEY=VALUE", NULL at the end). */
static run_plan plan_of(const char *const *set) {
  run_plan p;
  ice_err e = {0};
  const run_options o = {.set = set};
  if (run_plan_create(&p, scratch_path("x.yaml"), &o, &e) != ICE_OK) fail_msg("%s", e.text);
  return p;
}

/* What a checkpoint says of its training counts, not its name. */
static void test_training__in_the_metadata__decides_labels_and_refusals(void **state) {
  (void)state;
  const char *const by_topk[] = {"attention", "topk", "attention_params", "{\"k\":64}", NULL}, *const k64[] = {"topk.k=64", NULL},
                    *const k8[] = {"topk.k=8", NULL}, *const exact[] = {"attention", "softmax", NULL},
                    *const by_iceformer[] = {"attention", "iceformer", NULL};
  const struct {
    const char *const *meta, *const *set;
    const char *label;
  } row[] = {{exact, k8, NULL}, {by_topk, k64, NULL}, {by_topk, k8, "trained with other parameters"}, {by_iceformer, k8, "model trained with iceformer"}};
  for (int i = 0; i < 4; i++) {
    write_trained(1, row[i].meta);
    run_plan p = plan_of(row[i].set);
    assert_int_equal(p.cell->needs_training, 0);
    if (row[i].label) assert_non_null(strstr(p.cell->label, row[i].label));
    else assert_null(strstr(p.cell->label, "trained with"));
    run_plan_destroy(&p);
  }
  int others = 0;
  for (const attn_method *const *m = registry_methods; *m; m++) {
    if (!((*m)->caps & (ATTN_CAP_NEEDS_TRAINING | ATTN_CAP_SHARED_QK))) continue;
    char text[512];
    const char *const own[] = {"attention", (*m)->name, NULL};
    const int n = snprintf(text, sizeof text, "name: x\ntask: lra/listops\nmodel: %s\nthreads: 1\nmethods: [%s]\n", scratch_path("m.safetensors"), (*m)->name);
    (void)scratch_write("x.yaml", text, (size_t)n);
    write_trained(1, exact);
    run_plan p = plan_of(NULL);
    assert_int_equal(p.cell->needs_training, 1);
    assert_non_null(strstr(p.cell->label, "no retraining"));
    run_plan_destroy(&p);
    write_trained(1, own);
    p = plan_of(NULL); /* its own, but keys of queries it has not: this file has W_k */
    assert_int_equal(p.cell->needs_training, ((*m)->caps & ATTN_CAP_SHARED_QK) != 0);
    run_plan_destroy(&p);
    others++;
  }
  if (!others) print_message("SKIP no method of the registry needs training\n");
}

/* Without checkpoint or data: a fault that says what to do, or with `missing: skip` a cell that does. */
static void test_missing__skip__is_a_cell_with_its_reason(void **state) {
  (void)state;
  const char *const fail[] = {"model=lra/listops/no-such", NULL}, *const skip[] = {"model=lra/listops/no-such", "missing=skip", NULL};
  const run_options o = {.set = fail};
  run_plan p;
  ice_err e = {0};
  assert_int_equal(run_plan_create(&p, scratch_path("x.yaml"), &o, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "configs/train/lra-listops-no-such.yaml"));
  p = plan_of(skip);
  assert_int_equal(p.n, 1);
  assert_string_equal(p.cell->missing, "no checkpoint: icebench train configs/train/lra-listops-no-such.yaml");
  run_plan_destroy(&p);
  /* Away from the tree, whose datasets/data may hold the very set (make quickstart). */
  char tree[PATH_MAX];
  assert_non_null(getcwd(tree, sizeof tree));
  assert_int_equal(chdir(scratch_path("")), 0);
  (void)setenv("ICEBENCH_DATA_DIR", scratch_path("nowhere"), 1);
  const char *const here[] = {"missing=skip", NULL}, *const not[] = {NULL};
  const run_options none = {.set = not};
  p = plan_of(here);
  assert_non_null(p.cell->missing);
  assert_non_null(strstr(p.cell->missing, "icebench data make lra/listops"));
  run_plan_destroy(&p);
  assert_int_equal(run_plan_create(&p, scratch_path("x.yaml"), &none, &e), ICE_DATA);
  (void)scratch_write("data/lra/listops-1000/basic_test.tsv", "what is this\n", 13); /* data that are not whole are missing too */
  (void)setenv("ICEBENCH_DATA_DIR", scratch_path("data"), 1);
  p = plan_of(here);
  assert_non_null(strstr(p.cell->missing, "basic_test.tsv"));
  run_plan_destroy(&p);
  (void)scratch_write("m.safetensors", "{}", 2); /* a damaged checkpoint is not missing */
  write_data(1);
  const run_options damaged = {.set = here};
  assert_int_equal(run_plan_create(&p, scratch_path("x.yaml"), &damaged, &e), ICE_DATA);
  assert_int_equal(chdir(tree), 0);
}

/* `pairs: trained` keeps every method to the models it belongs into. */
static void test_pairs__trained__by_the_models_names(void **state) {
  (void)state;
  static const char *const set[] = {"model=lra/listops/softmax|lra/listops/softmax-sharedqk|lra/listops/topk", "missing=skip", "pairs=trained", NULL};
  char text[256];
  const int n = snprintf(text, sizeof text, "name: x\ntask: lra/listops\nmodel: m.safetensors\nthreads: 1\nmethods: [dense, topk]\n");
  (void)scratch_write("x.yaml", text, (size_t)n);
  run_plan p = plan_of(set);
  assert_int_equal(p.n, 5); /* dense in two, topk in three */
  for (int i = 0; i < p.n; i++) assert_false(!strcmp(p.cell[i].cell->method->name, "dense") && strstr(p.cell[i].cell->model, "/topk"));
  run_plan_destroy(&p);
}

/* A row of a debug or sanitizer build has no times; it must not count as the release's. */
static void test_key__other_kind_of_build__other_key(void **state) {
  (void)state;
  char *mine = (char *)(uintptr_t)machine_get()->variant, kept[16];
  const run_options o = {0};
  (void)strcpy(kept, mine);
  (void)strcpy(mine, "release");
  char *release = key_now(&o);
  (void)strcpy(mine, "asan");
  char *asan = key_now(&o);
  (void)strcpy(mine, "tsan");
  char *tsan = key_now(&o);
  (void)strcpy(mine, kept);
  assert_null(strstr(release, "build"));
  assert_string_not_equal(release, asan);
  assert_string_not_equal(asan, tsan);
  free(release), free(asan), free(tsan);
}

/* The timed examples are some of those that are judged, not the first ones of the split. */
static void test_execute__timed_examples__are_among_the_judged(void **state) {
  (void)state;
  ice_err e = {0};
  task_data d;
  const task *t = task_find("lra/listops", &e);
  if (task_load(t, TASK_TEST, &d, &e) != ICE_OK) fail_msg("%s", e.text);
  int moved = 0;
  for (uint64_t seed = 1; seed <= 4; seed++) {
    const cell_job job = {.task = "lra/listops", .model_path = scratch_path("m.safetensors"), .method = "dense", .params_json = "{}",
                          .split = TASK_TEST, .seed = seed, .examples = 3, .timed = 3, .threads = 1, .rounds = 1, .max_seconds = 10};
    cell_result r;
    cell_execute(&job, &r);
    if (strcmp(r.status, "ok")) fail_msg("%s", r.reason);
    assert_int_equal(r.n_predictions, 3);
    int64_t tokens = 0;
    for (int i = 0; i < 3; i++) {
      tokens += task_len(&d, r.prediction[i].item, 0);
      moved += r.prediction[i].item != i;
    }
    assert_int_equal(r.n, (tokens + 1) / 3); /* mean of the timed ones, rounded */
    cell_result_free(&r);
  }
  assert_true(moved > 4); /* or the test could not tell */
  task_data_free(&d);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_key__same_inputs__same_key),
      TEST(test_key__other_data_or_weights__other_key),
      TEST(test_key__options_that_change_numbers__other_key),
      TEST(test_key__other_kind_of_build__other_key),
      TEST(test_training__in_the_metadata__decides_labels_and_refusals),
      TEST(test_missing__skip__is_a_cell_with_its_reason),
      TEST(test_pairs__trained__by_the_models_names),
      TEST(test_padding__both__own_identity_and_label),
      TEST(test_execute__padding_computed__same_predictions_more_pairs),
      TEST(test_execute__timed_examples__are_among_the_judged),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
