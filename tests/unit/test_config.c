/* test_config.c - YAML and experiments: what is allowed multiplies out, what is not is named with its place. */
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
#include <ftw.h>

#include "harness/aims.h"
#include "harness/config.h"
#include "harness/llama_recipe.h"
#include "harness/recipe.h"
#include "harness/registry/registry.h"
#include "harness/yaml.h"
#include "tests/support/scratch.h"

#define MINIMAL "name: x\ntask: lra/listops\nmodel: lra/listops/softmax\n"

static int load(const char *text, config_experiment *x, ice_err *e) {
  const size_t n = strlen(text);
  char *exact = malloc(n ? n : 1);
  memcpy(exact, text, n);
  const int rc = config_parse(exact, n, "x.yaml", NULL, x, e);
  free(exact);
  return rc;
}
static void refused(const char *text, const char *word) {
  config_experiment x;
  ice_err e = {0};
  const int rc = load(text, &x, &e);
  if (rc == ICE_OK) {
    config_free(&x);
    fail_msg("accepted, though it should say '%s':\n%s", word, text);
  }
  assert_int_equal(rc, ICE_USAGE);
  if (!strstr(e.text, word) || !strstr(e.text, "x.yaml")) fail_msg("'%s' does not say '%s'", e.text, word);
  assert_null(strchr(e.text, '\n'));
}

/* --- what is allowed ------------------------------------------------------------------------------------------------- */

static void test_load__lists__multiply_out_in_order(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  if (load(
          MINIMAL
          "seeds: [1, 2]\nthreads: 3\nmeasure: {rounds: 5, quality: false}\nlimits: {seconds: 7}\nmethods:\n  - dense\n"
          "  - iceformer: {k: [8, 16], levels: [2, 3]}\nexclude:\n  - {method: iceformer, k: 16, levels: 2}\n",
          &x, &e) != ICE_OK)
    fail_msg("%s", e.text);
  assert_int_equal(x.n_cells, 2 * (1 + 3));
  assert_int_equal(x.threads, 3);
  assert_int_equal(x.rounds, 5);
  assert_int_equal(x.quality, 0);
  assert_true(x.limit_seconds == 7.0 && x.limit_gib == 8.0 && x.warmup == 1 && x.timed == 16);
  assert_string_equal(x.cell[0].method->name, "dense");
  assert_non_null(strstr(x.cell[1].params_json, "\"k\":8"));
  assert_non_null(strstr(x.cell[1].params_json, "\"levels\":2"));
  assert_non_null(strstr(x.cell[2].params_json, "\"levels\":3"));
  assert_non_null(strstr(x.cell[3].params_json, "\"k\":16"));
  assert_non_null(strstr(x.cell[3].params_json, "\"levels\":3"));
  assert_int_equal(x.cell[4].seed, 2);
  config_free(&x);
}

static void test_cell_json__differs__exactly_when_the_cell_does(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  assert_int_equal(load(MINIMAL "seeds: [1, 2]\nmethods: [dense, {iceformer: {k: [8, 16]}}]\n", &x, &e), ICE_OK);
  char *key[6];
  assert_int_equal(x.n_cells, 6);
  for (int i = 0; i < 6; i++) key[i] = config_cell_json(&x, &x.cell[i]);
  for (int i = 0; i < 6; i++)
    for (int j = i + 1; j < 6; j++) assert_string_not_equal(key[i], key[j]);
  char *again = config_cell_json(&x, &x.cell[3]);
  assert_string_equal(key[3], again);
  free(again);
  for (int i = 0; i < 6; i++) free(key[i]);
  config_free(&x);
}

#define TENSORS "name: x\ntask: synth/clustered\n"
static void test_shape__lists__multiply_out_with_n_fastest(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  if (load(TENSORS "shape: {h: 2, n: [64, 128], d: [8, 16], causal: [false, true]}\nseeds: [1, 7]\nmethods: [dense, topk]\n", &x, &e) != ICE_OK)
    fail_msg("%s", e.text);
  assert_int_equal(x.n_cells, 2 * 2 * 2 * 2 * 2);
  assert_string_equal(x.cell[0].source, "clustered:h=2,n=64,d=8,causal=0,seed=1");
  assert_string_equal(x.cell[1].source, x.cell[0].source); /* the other method */
  assert_string_equal(x.cell[2].source, "clustered:h=2,n=64,d=8,causal=0,seed=7");
  assert_string_equal(x.cell[4].source, "clustered:h=2,n=128,d=8,causal=0,seed=1");
  assert_string_equal(x.cell[4].model, "h=2,d=8");
  assert_string_equal(x.cell[31].source, "clustered:h=2,n=128,d=16,causal=1,seed=7");
  assert_string_equal(x.cell[31].model, "h=2,d=16,causal");
  assert_string_equal(x.cell[31].task->name, "synth/clustered");
  char *a = config_cell_json(&x, &x.cell[0]), *b = config_cell_json(&x, &x.cell[4]);
  assert_string_not_equal(a, b);
  free(a), free(b);
  config_free(&x);
  if (load(TENSORS "shape: {}\nmethods: all\nexclude: [{method: topk}]\n", &x, &e) != ICE_OK) fail_msg("%s", e.text);
  int drop_in = 0;
  for (int i = 0; registry_methods[i]; i++)
    drop_in += !(registry_methods[i]->caps & ATTN_CAP_NEEDS_TRAINING) && strcmp(registry_methods[i]->name, "topk");
  assert_int_equal(x.n_cells, drop_in);
  assert_string_equal(x.cell[0].source, "clustered:h=1,n=1024,d=64,causal=0,seed=1");
  config_free(&x);
  if (load(TENSORS "shape: {n: 4, nk: [8, 16], d: 2}\nmethods: [dense]\n", &x, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(x.n_cells, 2);
  assert_string_equal(x.cell[1].source, "clustered:h=1,n=4,nk=16,d=2,causal=0,seed=1");
  assert_string_equal(x.cell[1].model, "h=1,d=2,nq=4");
  config_free(&x);
  const char *file = TENSORS "shape: {n: 64}\nmethods: [dense]\n", *path = scratch_write("t.yaml", file, strlen(file));
  const char *const set[] = {"shape.n=8|16", "task=synth/gauss", NULL};
  if (config_load(path, set, &x, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(x.n_cells, 2);
  assert_string_equal(x.cell[1].source, "gauss:h=1,n=16,d=64,causal=0,seed=1");
  config_free(&x);
}

/* --- sweeps ------------------------------------------------------------------------------------------------------------ */

static void loaded(const char *text, const char *const *set, config_experiment *x) {
  ice_err e = {0};
  const char *path = scratch_write("s.yaml", text, strlen(text));
  if (config_load(path, set, x, &e) != ICE_OK) fail_msg("%s", e.text);
}
/* "8 16 32": the values of a parameter over the cells. */
static const char *swept(const config_experiment *x, const char *key) {
  static char out[512];
  char word[64];
  out[0] = 0;
  for (int i = 0; i < x->n_cells; i++) {
    const attn_param *p = registry_param(x->cell[i].method, key, NULL);
    registry_param_print(p, x->cell[i].params, word, sizeof word);
    (void)snprintf(out + strlen(out), sizeof out - strlen(out), "%s%s", i ? " " : "", word);
  }
  return out;
}

static void test_range__steps_and_factors__written_out(void **state) {
  (void)state;
  static const struct {
    const char *yaml, *values;
  } range[] = {{"{from: 8, to: 64, mult: 2}", "8 16 32 64"},  {"{from: 8, to: 63, mult: 2}", "8 16 32"},   {"{from: 3, to: 11, step: 4}", "3 7 11"},
               {"{from: 5, to: 5, step: 1}", "5"},            {"[1, {from: 4, to: 6, step: 1}, 9]", "1 4 5 6 9"},
               {"[{from: 1, to: 2, step: 1}, {from: 4, to: 8, mult: 2}]", "1 2 4 8"}};
  config_experiment x;
  char text[256];
  for (size_t i = 0; i < sizeof range / sizeof *range; i++) {
    (void)snprintf(text, sizeof text, MINIMAL "methods: [{topk: {k: %s}}]\n", range[i].yaml);
    loaded(text, NULL, &x);
    assert_string_equal(swept(&x, "k"), range[i].values);
    config_free(&x);
  }
  loaded(MINIMAL "methods: [{iceformer: {retrieve: {from: 0.1, to: 0.3, step: 0.1}}}]\n", NULL, &x); /* 0.1 + 2 * 0.1 > 0.3 in binary */
  assert_int_equal(x.n_cells, 3);
  config_free(&x);
  loaded(TENSORS "shape: {n: {from: 64, to: 256, mult: 2}}\nseeds: {from: 1, to: 3, step: 2}\nmethods: [dense]\n", NULL, &x);
  assert_int_equal(x.n_cells, 6);
  assert_string_equal(x.cell[5].source, "clustered:h=1,n=256,d=64,causal=0,seed=3");
  config_free(&x);
}

static void test_range__faults__named(void **state) {
  (void)state;
#define K(range) MINIMAL "methods: [{topk: {k: " range "}}]\n"
  static const char ways[] = "or a range: {from: 8, to: 64, mult: 2}";
  refused(K("{from: 8, to: 64}"), ways);
  refused(K("{from: 8, to: 64, step: 1, mult: 2}"), ways);
  refused(K("{from: 8, step: 1}"), ways);
  refused(K("{from: 8, to: 64, mult: 2, by: 1}"), ways);
  refused(K("[{}]"), ways);
  refused(K("{from: 8, to: 4, step: 1}"), "goes up");
  refused(K("{from: 0, to: 4, mult: 2}"), "more than 0");
  refused(K("{from: 1, to: 4, mult: 1}"), "mult = 1, allowed");
  refused(K("{from: 1, to: 4, step: 0}"), "step = 0, allowed");
  refused(K("{from: 1, to: 4, step: -1}"), "step = -1, allowed");
  refused(K("{from: 1, to: 1e9, step: 1}"), "more than 1000 values");
  refused(K("{from: a, to: 4, step: 1}"), "from = a");
  refused(K("{from: 1, to: 2, step: 0.5}"), "k = 1.5, allowed");
  refused(K("[8, {from: 4, to: 16, mult: 2}]"), "given twice");
  refused(K("{from: [1], to: 4, step: 1}"), "from = a list");
#undef K
}

/* Cells of an entry exist only where its `when` agrees; `exclude` knows shapes too. */
static void test_when__task_seed_parameters_shape__decide(void **state) {
  (void)state;
  config_experiment x;
  loaded(MINIMAL "seeds: [1, 2]\nmethods:\n  - topk: {k: [8, 16], when: {seed: 2}}\n  - topk: {k: 4}\n", NULL, &x);
  assert_string_equal(swept(&x, "k"), "4 8 16 4");
  assert_true(x.cell[0].seed == 1 && x.cell[1].seed == 2);
  config_free(&x);
  loaded(MINIMAL "methods:\n  - iceformer: {k: [8, 16], levels: [2, 3], when: {levels: 3, k: {from: 16, to: 64, mult: 2}}}\n", NULL, &x);
  assert_int_equal(x.n_cells, 1);
  assert_string_equal(swept(&x, "levels"), "3");
  config_free(&x);
  loaded(TENSORS "shape: {n: [64, 128, 256], h: [1, 2]}\nmethods:\n  - vanilla: {when: {n: [64, 128], h: 1}}\n  - dense\n"
         "exclude:\n  - {n: 256}\n  - {method: dense, h: 2, n: 64}\n", NULL, &x);
  assert_int_equal(x.n_cells, 2 + 3);
  for (int i = 0; i < x.n_cells; i++) assert_null(strstr(x.cell[i].source, "n=256"));
  config_free(&x);
  refused(MINIMAL "methods: [{topk: {when: {}}}]\n", "when = an empty mapping, allowed");
  refused(MINIMAL "methods: [{topk: {when: 3}}]\n", "when = 3, allowed");
  refused(MINIMAL "methods: [{topk: {when: {n: 3}}}]\n", "topk"); /* shapes are of tensors only */
  refused(MINIMAL "methods: [{topk: {when: {method: dense}}}]\n", "method");
  refused(MINIMAL "methods: [{topk: {when: {seed: x}}}]\n", "seed = x");
  refused(MINIMAL "methods: [{topk: {when: {seed: 7}}}]\n", "leaves no cell");
}

static void test_preset__overrides_and_name(void **state) {
  (void)state;
  config_experiment x;
  const char *const smoke[] = {"measure.rounds=5", "preset=smoke", NULL}, *const own[] = {"preset=long", NULL}, *const full[] = {"preset=full", NULL},
                    *const none[] = {"preset=lang", NULL};
  const char *text = MINIMAL "examples: 99\nmethods: [dense, topk]\npresets:\n  smoke: {examples: 3}\n  long: {measure.rounds: 31, topk.k: [4, 8], name: y}\n";
  loaded(text, smoke, &x);
  assert_string_equal(x.name, "x-smoke");
  assert_true(x.examples == 3 && x.rounds == 5 && x.timed == 2 && x.warmup == 0); /* the file's, the option's, the preset's own */
  config_free(&x);
  loaded(text, own, &x);
  assert_string_equal(x.name, "y");
  assert_true(x.examples == 99 && x.rounds == 31 && x.n_cells == 3);
  config_free(&x);
  loaded(text, full, &x);
  assert_string_equal(x.name, "x");
  assert_true(x.examples == 99 && x.rounds == 9);
  config_free(&x);
  ice_err e = {0};
  assert_int_equal(config_load(scratch_write("s.yaml", text, strlen(text)), none, &x, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "preset = lang, allowed smoke, full"));
  assert_non_null(strstr(e.text, "; did you mean long?"));
  refused(MINIMAL "methods: [dense]\npresets: {smoke: 3}\n", "smoke = 3, allowed a mapping");
  refused(MINIMAL "methods: [dense]\npresets: 3\n", "presets = 3");
}

static void test_shape__faults__named(void **state) {
  (void)state;
  refused(TENSORS "methods: [dense]\n", "shape");
  refused(TENSORS "shape: 7\nmethods: [dense]\n", "shape");
  refused(TENSORS "shape: {m: 7}\nmethods: [dense]\n", "unknown key m, allowed h, n, nk, d, causal");
  refused(TENSORS "shape: {n: 0}\nmethods: [dense]\n", "n = 0, allowed");
  refused(TENSORS "shape: {nk: 0}\nmethods: [dense]\n", "nk = 0, allowed");
  refused(TENSORS "shape: {n: [8, 8]}\nmethods: [dense]\n", "given twice");
  refused(TENSORS "shape: {n: []}\nmethods: [dense]\n", "allowed a value or a list");
  refused(TENSORS "shape: {n: [[8]]}\nmethods: [dense]\n", "n = ");
  refused(TENSORS "shape: {n: 1073741824, d: 65536}\nmethods: [dense]\n", "x.yaml");
  refused(TENSORS "shape: {causal: maybe}\nmethods: [dense]\n", "causal = maybe");
  refused(TENSORS "model: lra/listops/softmax\nshape: {n: 8}\nmethods: [dense]\n", "synthetic tensors have no model");
  refused(MINIMAL "shape: {n: 8}\nmethods: [dense]\n", "only synthetic tensors have a shape");
  refused("name: x\ntask: [synth/gauss, lra/listops]\nmodel: lra/listops/softmax\nmethods: [dense]\n", "need a file each");
  refused("name: x\ntask: synth/nonsense\nmethods: [dense]\n", "synth/clustered");
  const char *file = MINIMAL "methods: [dense]\n", *path = scratch_write("m.yaml", file, strlen(file));
  const char *const set[][2] = {{"task=synth/gauss", NULL}, {"shape.n=8", NULL}};
  for (int i = 0; i < 2; i++) {
    config_experiment x;
    ice_err e = {0};
    assert_int_equal(config_load(path, set[i], &x, &e), ICE_USAGE);
  }
}

/* `base`: another file's experiment with a few things changed; --set comes on top. */
static void test_base__overrides__replace_the_other_file(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  const char *base = MINIMAL "examples: 10\nseeds: [1, 2]\nmethods:\n  - dense\n  - iceformer: {k: [8, 16]}\n";
  const char *own = "base: big.yaml\nname: part\nseeds: 3\niceformer.k: 4\nmeasure.rounds: 5\n";
  const char *const set[] = {"examples=7", NULL};
  (void)scratch_write("big.yaml", base, strlen(base));
  const char *path = scratch_write("part.yaml", own, strlen(own));
  if (config_load(path, set, &x, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_string_equal(x.name, "part");
  assert_string_equal(x.file, path);
  assert_int_equal(x.n_cells, 2);
  assert_true(x.cell[1].seed == 3 && x.examples == 7 && x.rounds == 5);
  assert_non_null(strstr(x.cell[1].params_json, "\"k\":4"));
  config_free(&x);
  static const struct {
    const char *text, *fault;
  } bad[] = {{"base: big.yaml\nseeds: 3\n", "key name is missing"},
             {"base: none.yaml\nname: x\n", "none.yaml"},
             {"base: part.yaml\nname: x\n", "allowed a file that has no base itself"},
             {"base: big.yaml\nname: x\nmethods: [dense]\n", "methods: unknown key"},
             {"base: [big.yaml]\nname: x\n", "base = a list"},
             {"base: big.yaml\nname: x\nseeds: -1\n", "seeds = -1"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *file = scratch_write("bad.yaml", bad[i].text, strlen(bad[i].text));
    assert_int_equal(config_load(file, NULL, &x, &e), ICE_USAGE);
    if (!strstr(e.text, bad[i].fault)) fail_msg("'%s' lacks '%s'", e.text, bad[i].fault);
  }
}

static void test_set__overrides__replace_the_file(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  const char *text = MINIMAL "examples: 10\nmethods:\n  - dense\n  - iceformer: {k: 8}\n";
  const char *path = scratch_write("x.yaml", text, strlen(text));
  const char *const set[] = {"name=other",  "seeds=7",           "examples=98",
                             "examples=99", "measure.rounds=3",  "limits.memory_gib=0.5",
                             "split=dev",   "iceformer.k=4|5|6", "iceformer.levels=2",
                             NULL};
  if (config_load(path, set, &x, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(x.n_cells, 4);
  assert_string_equal(x.name, "other");
  assert_true(x.cell[0].seed == 7 && x.cell[3].seed == 7);
  assert_true(x.examples == 99 && x.rounds == 3 && x.limit_gib == 0.5 && x.split == TASK_DEV);
  assert_non_null(strstr(x.cell[3].params_json, "\"k\":6"));
  assert_non_null(strstr(x.cell[3].params_json, "\"levels\":2"));
  config_free(&x);
  const char *const bad[] = {"examples",
                             "=5",
                             "foo=1",
                             "measure.foo=1",
                             "measure.rounds=0",
                             "measure.rounds=3x",
                             "iceformer.kk=3",
                             "iceformer.k=0",
                             "iceformer.k=",
                             "topk.k=5",
                             "nothing.k=5",
                             "limits.seconds=nan",
                             "split=train",
                             "measure.quality=maybe"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *const one[] = {bad[i], NULL};
    const int rc = config_load(path, one, &x, &e);
    if (rc == ICE_OK) config_free(&x);
    if (rc != ICE_USAGE) fail_msg("--set %s was accepted", bad[i]);
    if (strncmp(e.text, "--set ", 6) != 0) fail_msg("--set %s: '%s' does not begin with the option", bad[i], e.text);
  }
  const char *const rounds[] = {"measure.rounds=0", NULL}, *const k[] = {"iceformer.k=8|0", NULL};
  assert_int_equal(config_load(path, rounds, &x, &e), ICE_USAGE);
  assert_string_equal(e.text, "--set measure.rounds = 0, allowed whole numbers 1..1000");
  assert_int_equal(config_load(path, k, &x, &e), ICE_USAGE);
  assert_string_equal(e.text, "--set iceformer.k = 0, allowed whole numbers 1..1048576");
}

static void test_exclude__lists_and_plain_keys__leave_cells_out(void **state) {
  (void)state;
  static const struct {
    const char *rules;
    int cells;
  } c[] = {
      {"{method: iceformer}", 2},
      {"{method: iceformer, k: [8, 16]}", 2 + 2 * 2},
      {"{method: iceformer, k: 8, levels: 2}", 2 + 2 * 5},
      {"{seed: 2}", 1 + 6},
      {"{seed: [1, 2], method: iceformer, levels: 3}", 2 + 2 * 3},
      {"{task: lra/listops, model: lra/listops/softmax, method: dense}", 12},
      {"{model: elsewhere}", 14},
      {"{method: iceformer, k: 8}, {method: iceformer, levels: 2}", 2 + 2 * 2},
      {"{method: topk, k: 8}", 14},
      {"{method: iceformer, retrieve: 1.0}", 2}, /* the default, written otherwise */
  };
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    char text[500];
    config_experiment x;
    ice_err e = {0};
    (void)snprintf(text, sizeof text,
                   MINIMAL
                   "seeds: [1, 2]\nmethods: [dense, {iceformer: {k: [8, 16, 32], levels: [2, 3]}}]\nexclude: [%s]\n",
                   c[i].rules);
    if (load(text, &x, &e) != ICE_OK) fail_msg("%s", e.text);
    assert_int_equal(x.n_cells, c[i].cells);
    config_free(&x);
  }
}

static void test_load__tasks_and_models__pair_by_their_names(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  if (load("name: x\ntask: [lra/listops, synth/listops-pieces]\n"
           "model: [lra/listops/softmax, ./any.safetensors, synth/listops-pieces/softmax]\nmethods: [dense]\n",
           &x, &e) != ICE_OK)
    fail_msg("%s", e.text);
  assert_int_equal(x.n_cells, 4); /* a path goes with every task */
  for (int i = 0; i < x.n_cells; i++)
    assert_true(x.cell[i].model[0] == '.' ||
                strncmp(x.cell[i].model, x.cell[i].task->name, strlen(x.cell[i].task->name)) == 0);
  config_free(&x);
}

static void test_load__same_cell_twice__refused(void **state) {
  (void)state;
  refused(MINIMAL "methods: [dense, dense]\n", "dense {} stands twice");
  refused(MINIMAL "methods: [topk, {topk: {k: 20}}]\n", "topk {\"k\":20} stands twice"); /* once by default */
  refused(MINIMAL "methods: [{topk: {k: [8, 16, 8]}}]\n", "methods.topk.k = 8, given twice");
  refused(MINIMAL "methods: [{topk: {k: [8, +8]}}]\n", "methods.topk.k = +8, given twice");
  refused(MINIMAL "methods: [dense]\nseeds: [3, 3]\n", "seeds = 3, given twice");
  refused(MINIMAL "methods: [dense]\nseeds: [3, 03]\n", "dense {} stands twice");
}

static void test_threads__from_the_environment__checked(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  assert_int_equal(setenv("ICEBENCH_THREADS", "5", 1), 0);
  assert_int_equal(load(MINIMAL "methods: [dense]\n", &x, &e), ICE_OK);
  assert_int_equal(x.threads, 5);
  config_free(&x);
  static const char *const bad[] = {"0", "257", "two", "1e1", " 3"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(setenv("ICEBENCH_THREADS", bad[i], 1), 0);
    assert_int_equal(load(MINIMAL "methods: [dense]\n", &x, &e), ICE_USAGE);
    assert_non_null(strstr(e.text, "ICEBENCH_THREADS = "));
  }
  assert_int_equal(unsetenv("ICEBENCH_THREADS"), 0);
}

/* --- what is not ----------------------------------------------------------------------------------------------------- */

static void test_load__faults__named_with_line_and_column(void **state) {
  (void)state;
  refused("", "x.yaml");
  refused("name: x\n", "task is missing");
  refused(MINIMAL, "methods is missing");
  refused(MINIMAL "methods: [dense]\nrouds: 3\n", "x.yaml:5:1: ");
  refused(MINIMAL "methods: [dense]\nmeasure: {roundz: 3}\n", "rounds");
  refused(MINIMAL "methods: [dense]\nmeasure: {rounds: 0}\n", "allowed whole numbers 1..1000");
  refused(MINIMAL "methods: [dense]\nmeasure: {rounds: 1e3}\n", "rounds = 1e3");
  refused(MINIMAL "methods: [dense]\nmeasure: 5\n", "measure");
  refused(MINIMAL "methods: [dense]\nthreads: two\n", "threads = two");
  refused(MINIMAL "methods: [dense]\nexamples: -1\n", "examples = -1");
  refused(MINIMAL "methods: [dense]\nexamples: 99999999999999999999\n", "examples");
  refused(MINIMAL "methods: [dense]\nseeds: [1, x]\n", "= x");
  refused(MINIMAL "methods: [dense]\nseeds: []\n", "allowed");
  refused(MINIMAL "methods: [dens]\n", "dense");
  refused(MINIMAL "methods:\n  - iceformer: {kk: 3}\n",
          "x.yaml:5:17: unknown parameter of iceformer kk, did you mean k?");
  refused(MINIMAL "methods:\n  - iceformer: {k: [8, 0x8]}\n",
          "x.yaml:5:24: methods.iceformer.k = 0x8, allowed whole numbers");
  refused(MINIMAL "methods:\n  - iceformer: {retrieve: 1e400}\n", "retrieve = 1e400, allowed numbers");
  refused(MINIMAL "methods:\n  - iceformer: {retrieve: .nan}\n", "retrieve = .nan, allowed numbers");
  refused(MINIMAL "methods:\n  - iceformer: {k: 9223372036854775808}\n", "allowed whole numbers");
  refused(MINIMAL "methods:\n  - iceformer: {k: [[8]]}\n", "a value or a list of values");
  refused(MINIMAL "methods:\n  - iceformer: {k: {a: 8}}\n", "a value or a list");
  refused(MINIMAL "methods:\n  - iceformer:\n", "(nothing), allowed the parameters of iceformer");
  refused(MINIMAL "methods: {iceformer: {k: 8}}\n", "allowed a list of 1..1000 methods");
  refused(MINIMAL "methods:\n  - iceformer: {k: [8, 0]}\n", "k = 0");
  refused(MINIMAL "methods:\n  - iceformer: {k: many}\n", "k = many");
  refused(MINIMAL "methods:\n  - iceformer: {retrieve: 1.5}\n", "retrieve = 1.5");
  refused(MINIMAL "methods:\n  - iceformer: {order: best}\n", "dci, l2");
  refused(MINIMAL "methods:\n  - iceformer: {k: []}\n", "allowed");
  refused(MINIMAL "methods:\n  - dense: {k: 3}\n", "x.yaml:5:");
  refused(MINIMAL "methods:\n  - {dense: {}, iceformer: {}}\n", "one method");
  refused(MINIMAL "methods: [dense]\nexclude: [dense]\n", "mapping");
  refused(MINIMAL "methods: [dense]\nexclude: [{k: 3}]\n", "x.yaml:5:12: unknown key k, allowed method, task");
  refused(MINIMAL "methods: [dense]\nexclude: {method: dense}\n", "a list of 1..1000 mappings");
  refused(MINIMAL "methods: [dense]\nexclude: [{}]\n", "mapping such as");
  refused(MINIMAL "methods: [dense]\nexclude: [{seed: one}]\n", "exclude.seed = one, allowed whole numbers");
  refused(MINIMAL "methods: [dense]\nexclude: [{task: lra/listop}]\n", "lra/listops");
  refused(MINIMAL "methods: [dense]\nexclude: [{method: topk, kk: 3}]\n",
          "x.yaml:5:26: unknown parameter of topk kk, did you mean k?");
  refused(MINIMAL "methods: [dense]\nexclude: [{method: topk, k: 0}]\n", "exclude.k = 0, allowed whole numbers");
  refused(MINIMAL "methods: [dense]\nexclude: [{method: dense}]\n", "leaves no cell");
  refused("name: x\ntask: lra/listop\nmodel: lra/listops/softmax\nmethods: [dense]\n", "lra/listop");
  refused("name: x\ntask: lra/listops\nmodel: lra/text/softmax\nmethods: [dense]\n",
          "x.yaml:3:8: model = lra/text/softmax, allowed a model of the task, such as lra/listops/softmax");
  refused("name: x\ntask: lra/listops\nmodel: lra/listops/../../../etc/passwd\nmethods: [dense]\n", "allowed an id");
  refused("name: x\ntask: [lra/listops, synth/listops-pieces]\nmodel: lra/listops/softmax\nmethods: [dense]\n",
          "x.yaml:2:21: task = synth/listops-pieces, no model of this file");
  refused("name: a/b\ntask: lra/listops\nmodel: m.safetensors\nmethods: [dense]\n", "name = a/b, allowed");
  refused("name: \"a\\nb\"\ntask: lra/listops\nmodel: m.safetensors\nmethods: [dense]\n", "allowed 1..100 letters");
  refused("name: x\ntask: lra/listops\nlengths: [200]\n", "x.yaml:3:1: lengths: belongs to tasks that are answered in words");
  refused("name: x\ntask: lra/listops\ntemplate: plain\n", "x.yaml:3:1: template: belongs to tasks that are answered in words");
#define WORDS(task, lengths) "name: x\ntask: " task "\nmodel: m.gguf\nmethods: [dense]\n" lengths
  refused(WORDS("longeval/lines", ""), "x.yaml:2:7: task = longeval/lines, needs lengths, numbers of lines: `lengths: [200, 300]`");
  refused(WORDS("longeval/lines", "lengths: [200, 200]\n"), "x.yaml:5:16: lengths = 200, given twice");
  refused(WORDS("longeval/lines", "lengths: [0]\n"), "allowed whole numbers 1..1000000");
  refused(WORDS("longeval/lines", "lengths: {topics: [5]}\n"), "no task of this file comes in lengths of topics");
  refused(WORDS("longeval/lines", "lengths: {lines: [5], linse: [5]}\n"), "lengths of linse");
  refused(WORDS("[longeval/lines, longeval/topics]", "lengths: [5]\n"), "for both {lines: [200, 300], topics: [5, 10]}");
  refused(WORDS("[longeval/lines, longeval/topics]", "lengths: {lines: [5]}\n"), "x.yaml:2:24: task = longeval/topics, needs lengths");
  refused(WORDS("zeroscrolls/qasper", "lengths: [5]\n"), "allowed for longeval/lines or longeval/topics");
  refused(WORDS("[zeroscrolls/qasper, lra/listops]", ""), "need a file each");
  refused(WORDS("zeroscrolls/qasper", "template: alpaca\n"), "template = alpaca, allowed vicuna, plain");
  refused(WORDS("zeroscrolls/qasper", "answer_tokens: 0\n"), "answer_tokens = 0, allowed");
  refused("- a\n- b\n", "x.yaml:1:1");
  refused("just text\n", "x.yaml:1:1");
}

static void test_load__lengths__multiply_out_for_each_task(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  static const char text[] = "name: x\ntask: [longeval/lines, longeval/topics, zeroscrolls/qasper]\nmodel: [a.gguf, icelm]\nmethods: [dense, vanilla]\n"
                             "lengths: {lines: [200, 300], topics: 5}\nexclude: [{method: vanilla, length: 300}]\ncontext: 4096\n";
  if (config_parse(text, sizeof text - 1, "x.yaml", NULL, &x, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(x.n_cells, 2 * (2 * 4 - 1)); /* two models: lines 200, 300, topics 5, qasper; two methods; one is left out */
  assert_true(x.context == 4096 && x.template == PROMPT_VICUNA && x.answer_tokens == 0);
  int of_length[3] = {0};
  for (int i = 0; i < x.n_cells; i++) of_length[x.cell[i].length == 200 ? 0 : x.cell[i].length == 300 ? 1 : 2]++;
  assert_true(of_length[0] == 4 && of_length[1] == 2 && of_length[2] == 8);
  char *json = config_cell_json(&x, &x.cell[0]);
  assert_non_null(strstr(json, "\"length\":200,\"template\":\"vicuna\""));
  free(json);
  config_free(&x);
  static const char *const set[] = {"lengths=7|9", NULL};
  static const char lines[] = "name: x\ntask: longeval/lines\nmodel: a.gguf\nmethods: [dense]\nlengths: 200\n";
  if (config_parse(lines, sizeof lines - 1, "x.yaml", set, &x, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_true(x.n_cells == 2 && x.cell[0].length == 7 && x.cell[1].length == 9);
  config_free(&x);
}

static void test_load__yaml_that_bites__refused(void **state) {
  (void)state;
  refused("a: &x [1, 2]\nb: *x\n", "anchor");
  refused("a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b, *b]\n", "anchor");
  refused("name: x\nname: y\n", "name");
  refused("--- \nname: x\n---\nname: y\n", "x.yaml:");
  refused("name: !!python/object x\n", "tag");
  refused("name: [x\n", "x.yaml:");
  refused("name: \"x\n", "x.yaml:");
  refused("\tname: x\n", "x.yaml:");
  refused("name: \xff\xfe\n", "UTF-8");
  refused("name: \xc0\xaf\n", "UTF-8");
  refused("name: \xed\xa0\x80\n", "UTF-8");
  char deep[400] = "a: ";
  memset(deep + 3, '[', 300);
  refused(deep, "x.yaml:");
}

static void test_parse__nul_byte__refused(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  static const char text[] = "name: x\0y\ntask: lra/listops\n";
  assert_int_equal(config_parse(text, sizeof text - 1, "x.yaml", NULL, &x, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "NUL"));
}

static void test_read__huge_or_no_file__refused_at_once(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  const char *path = scratch_write("big.yaml", "name: x\n", 8);
  assert_int_equal(truncate(path, 100 << 20), 0);
  assert_int_equal(config_load(path, NULL, &x, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "big.yaml"));
  assert_int_equal(mkfifo(scratch_path("fifo"), 0600), 0);
  assert_int_equal(config_load(scratch_path("fifo"), NULL, &x, &e), ICE_USAGE);
  assert_int_equal(config_load(scratch_folder(), NULL, &x, &e), ICE_USAGE);
  assert_int_equal(config_load("/dev/zero", NULL, &x, &e), ICE_USAGE);
  assert_int_equal(config_load(scratch_path("absent.yaml"), NULL, &x, &e), ICE_USAGE);
}

static void test_load__more_cells_than_allowed__refused(void **state) {
  (void)state;
  char *text = malloc(1 << 16);
  int n = sprintf(text, MINIMAL "methods:\n  - iceformer: {k: [1");
  for (int i = 2; i <= 400; i++) n += sprintf(text + n, ", %d", i);
  n += sprintf(text + n, "], build_beam: [1");
  for (int i = 2; i <= 400; i++) n += sprintf(text + n, ", %d", i);
  (void)sprintf(text + n, "]}\n");
  refused(text, "x.yaml:5:5: iceformer: its lists bring the experiment to more than 100000 cells");
  (void)strcat(text, "exclude: [{method: iceformer}]\n"); /* counted before, or it would take for ever */
  refused(text, "more than 100000 cells");
  free(text);
}

/* --- every file that ships ------------------------------------------------------------------------------------------- */

static int yaml_files; /* seen by visit */

static int visit(const char *path, const struct stat *st, int type, struct FTW *where) {
  (void)st, (void)where;
  const char *dot = strrchr(path, '.');
  yaml_doc *doc = NULL;
  config_experiment x = {0};
  recipe r = {0};
  llama_recipe words;
  ice_err e = {0};
  if (type != FTW_F || !dot || strcmp(dot, ".yaml") != 0) return 0;
  int rc = yaml_read(path, &doc, &e);
  if (rc == ICE_OK && aims_is_one(doc)) {
    aims table;
    rc = aims_read(&table, path, &e);
    if (rc == ICE_OK) aims_free(&table);
  } else if (rc == ICE_OK) rc = llama_recipe_is_one(doc) ? llama_recipe_read(doc, &words, &e) : recipe_is_one(doc) ? recipe_read(doc, &r, &e) : config_load(path, NULL, &x, &e);
  recipe_free(&r);
  config_free(&x);
  yaml_close(doc);
  if (rc != ICE_OK) fail_msg("%s", e.text);
  yaml_files++;
  return 0;
}

static void test_configs__of_this_tree__load(void **state) {
  (void)state;
  yaml_files = 0;
  assert_int_equal(nftw("configs", visit, 8, FTW_PHYS), 0);
  assert_int_equal(nftw("models/checkpoints", visit, 8, FTW_PHYS), 0);
  assert_true(yaml_files >= 10);
}

/* Does some cell of m hold the default of p? */
static int holds_default(const config_experiment *x, const attn_method *m, const attn_param *p) {
  char params[1024], dflt[64], text[64];
  assert_true(m->params_size <= sizeof params);
  attn_params_default(m, params);
  registry_param_print(p, params, dflt, sizeof dflt);
  for (int i = 0; i < x->n_cells; i++) {
    if (x->cell[i].method != m) continue;
    registry_param_print(p, x->cell[i].params, text, sizeof text);
    if (strcmp(text, dflt) == 0) return 1;
  }
  return 0;
}

/* configs/methods/NAME.yaml documents its method: every parameter is written out, its default among the values. */
static void test_method_files__every_parameter__with_its_default(void **state) {
  (void)state;
  for (int i = 0; registry_methods[i]; i++) {
    const attn_method *m = registry_methods[i];
    config_experiment x;
    ice_err e = {0};
    char path[200], key[100];
    (void)snprintf(path, sizeof path, "configs/methods/%s.yaml", m->name);
    if (config_load(path, NULL, &x, &e) != ICE_OK) fail_msg("%s", e.text);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    char text[8192];
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    assert_int_equal(fclose(f), 0);
    for (const attn_param *p = m->params; p && p->key; p++) {
      (void)snprintf(key, sizeof key, " %s: ", p->key);
      if (!strstr(text, key)) fail_msg("%s does not mention %s", path, p->key);
      if (!holds_default(&x, m, p)) fail_msg("%s: the default of %s is not among its values", path, p->key);
    }
    config_free(&x);
  }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_load__lists__multiply_out_in_order),
      TEST(test_cell_json__differs__exactly_when_the_cell_does),
      TEST(test_shape__lists__multiply_out_with_n_fastest),
      TEST(test_shape__faults__named),
      TEST(test_range__steps_and_factors__written_out),
      TEST(test_range__faults__named),
      TEST(test_when__task_seed_parameters_shape__decide),
      TEST(test_preset__overrides_and_name),
      TEST(test_base__overrides__replace_the_other_file),
      TEST(test_set__overrides__replace_the_file),
      TEST(test_exclude__lists_and_plain_keys__leave_cells_out),
      TEST(test_load__tasks_and_models__pair_by_their_names),
      TEST(test_load__same_cell_twice__refused),
      TEST(test_threads__from_the_environment__checked),
      TEST(test_load__faults__named_with_line_and_column),
      TEST(test_load__lengths__multiply_out_for_each_task),
      TEST(test_load__yaml_that_bites__refused),
      TEST(test_parse__nul_byte__refused),
      TEST(test_read__huge_or_no_file__refused_at_once),
      TEST(test_load__more_cells_than_allowed__refused),
      TEST(test_configs__of_this_tree__load),
      TEST(test_method_files__every_parameter__with_its_default),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
