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

#include "harness/config.h"
#include "harness/registry/registry.h"
#include "harness/yaml.h"
#include "tests/support/scratch.h"

#define MINIMAL "name: x\ntask: lra/listops\nmodel: lra/listops/softmax\n"

static int load(const char *text, config_experiment *x, ice_err *e) {
  const size_t n = strlen(text);
  char *exact = malloc(n ? n : 1);
  memcpy(exact, text, n);
  const int rc = config_parse(exact, n, "x.yaml", x, e);
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
  if (load(MINIMAL "seeds: [1, 2]\nthreads: 3\nmeasure: {rounds: 5, quality: false}\nlimits: {seconds: 7}\nmethods:\n  - dense\n"
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

static void test_set__overrides__replace_the_file(void **state) {
  (void)state;
  config_experiment x;
  ice_err e = {0};
  const char *text = MINIMAL "examples: 10\nmethods:\n  - dense\n  - iceformer: {k: 8}\n";
  const char *path = scratch_write("x.yaml", text, strlen(text));
  const char *const set[] = {"examples=99", "measure.rounds=3", "limits.memory_gib=0.5", "split=dev", "iceformer.k=4|5|6", "iceformer.levels=2", NULL};
  if (config_load(path, set, &x, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(x.n_cells, 4);
  assert_true(x.examples == 99 && x.rounds == 3 && x.limit_gib == 0.5 && x.split == TASK_DEV);
  assert_non_null(strstr(x.cell[3].params_json, "\"k\":6"));
  assert_non_null(strstr(x.cell[3].params_json, "\"levels\":2"));
  config_free(&x);
  const char *const bad[] = {"examples", "=5", "foo=1", "measure.foo=1", "measure.rounds=0", "measure.rounds=3x", "iceformer.kk=3", "iceformer.k=0",
                             "iceformer.k=", "topk.k=5", "nothing.k=5", "limits.seconds=nan", "split=train", "measure.quality=maybe"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *const one[] = {bad[i], NULL};
    const int rc = config_load(path, one, &x, &e);
    if (rc == ICE_OK) config_free(&x);
    if (rc != ICE_USAGE) fail_msg("--set %s was accepted", bad[i]);
  }
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
  refused(MINIMAL "methods:\n  - iceformer: {kk: 3}\n", "x.yaml:5:");
  refused(MINIMAL "methods:\n  - iceformer: {k: [8, 0]}\n", "k = 0");
  refused(MINIMAL "methods:\n  - iceformer: {k: many}\n", "k = many");
  refused(MINIMAL "methods:\n  - iceformer: {retrieve: 1.5}\n", "retrieve = 1.5");
  refused(MINIMAL "methods:\n  - iceformer: {order: best}\n", "dci, l2");
  refused(MINIMAL "methods:\n  - iceformer: {k: []}\n", "allowed");
  refused(MINIMAL "methods:\n  - dense: {k: 3}\n", "x.yaml:5:");
  refused(MINIMAL "methods:\n  - {dense: {}, iceformer: {}}\n", "one method");
  refused(MINIMAL "methods: [dense]\nexclude: [dense]\n", "mapping");
  refused(MINIMAL "methods: [dense]\nexclude: [{k: 3}]\n", "method is missing");
  refused(MINIMAL "methods: [dense]\nexclude: [{method: dense}]\n", "leaves no cell");
  refused("name: x\ntask: lra/listop\nmodel: lra/listops/softmax\nmethods: [dense]\n", "lra/listop");
  refused("name: x\ntask: lra/listops\nmodel: lra/text/softmax\nmethods: [dense]\n", "allowed a model of one of the tasks");
  refused("name: x\ntask: lra/listops\nmodel: lra/listops/../../../etc/passwd\nmethods: [dense]\n", "allowed an id");
  refused("- a\n- b\n", "x.yaml:1:1");
  refused("just text\n", "x.yaml:1:1");
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
  assert_int_equal(config_parse(text, sizeof text - 1, "x.yaml", &x, &e), ICE_USAGE);
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
  refused(text, "more than 100000 cells");
  free(text);
}

/* --- registry -------------------------------------------------------------------------------------------------------- */

static void test_registry__table__is_sane(void **state) {
  (void)state;
  ice_err e = {0};
  if (registry_self_check(&e) != ICE_OK) fail_msg("%s", e.text);
  assert_null(registry_find("icefromer", &e));
  assert_non_null(strstr(e.text, "iceformer"));
}

static void test_registry__broken_tables__are_caught(void **state) {
  (void)state;
  ice_err e = {0};
  attn_method a = *registry_methods[0], b = a;
  const attn_method *twice[] = {&a, &b, NULL}, *one[] = {&b, NULL};
  assert_int_not_equal(registry_self_check_table(twice, &e), ICE_OK);
  b.name = "Upper";
  assert_int_not_equal(registry_self_check_table(one, &e), ICE_OK);
  b = a, b.forward = NULL;
  assert_int_not_equal(registry_self_check_table(one, &e), ICE_OK);
  const attn_param rows[] = {{.key = "k", .doc = "x", .type = ATTN_P_INT, .dflt = 9, .min = 1, .max = 8}, {.key = NULL}};
  b = a, b.params = rows, b.params_size = 8;
  assert_int_not_equal(registry_self_check_table(one, &e), ICE_OK);
}

static void test_registry__every_default__parses_back(void **state) {
  (void)state;
  for (int i = 0; registry_methods[i]; i++) {
    const attn_method *m = registry_methods[i];
    char *params = calloc(1, m->params_size + 1), *other = calloc(1, m->params_size + 1), text[64];
    ice_err e = {0};
    attn_params_default(m, params);
    for (const attn_param *p = m->params; p->key; p++) {
      registry_param_print(p, params, text, sizeof text);
      if (registry_param_set(m, p, text, other, &e) != ICE_OK) fail_msg("%s", e.text);
    }
    char *x = registry_params_json(m, params), *y = registry_params_json(m, other);
    assert_string_equal(x, y);
    free(x), free(y), free(params), free(other);
  }
}

/* --- every experiment that ships -------------------------------------------------------------------------------------- */

static void test_configs__of_this_tree__load(void **state) {
  (void)state;
  static const char *const file[] = {"configs/quickstart.yaml", "configs/experiments/listops-paper.yaml", "configs/experiments/listops-sweep-k.yaml"};
  for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
    config_experiment x;
    ice_err e = {0};
    if (config_load(file[i], NULL, &x, &e) != ICE_OK) fail_msg("%s", e.text);
    assert_true(x.n_cells > 0);
    config_free(&x);
  }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_load__lists__multiply_out_in_order),
      TEST(test_cell_json__differs__exactly_when_the_cell_does),
      TEST(test_set__overrides__replace_the_file),
      TEST(test_load__faults__named_with_line_and_column),
      TEST(test_load__yaml_that_bites__refused),
      TEST(test_parse__nul_byte__refused),
      TEST(test_read__huge_or_no_file__refused_at_once),
      TEST(test_load__more_cells_than_allowed__refused),
      TEST(test_registry__table__is_sane),
      TEST(test_registry__broken_tables__are_caught),
      TEST(test_registry__every_default__parses_back),
      TEST(test_configs__of_this_tree__load),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
