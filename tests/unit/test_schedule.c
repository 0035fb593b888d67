/* test_schedule.c - parameters by layer and head: what a file may say, what a model makes of it, and the choice of values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/allot.h"
#include "harness/config.h"
#include "harness/registry/registry.h"
#include "harness/schedule.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "tests/support/encoder_ref.h"

#define TOP "name: x\ntask: lra/listops\nmodel: lra/listops/softmax\nmethods:\n"

/* --- files ----------------------------------------------------------------------------------------------------------- */

static void test_file__schedule__stands_in_the_canonical_parameters(void **state) {
  (void)state;
  static const char text[] = TOP "  - topk: {k: 32}\n  - topk: {schedule: {k: [[8, 64], 32]}}\n  - iceformer: {comp: [1, 2], schedule: {visit: [1, [.5, 0.5]], k: [1, 2]}}\n";
  config_experiment x;
  ice_err e = {0};
  if (config_parse(text, strlen(text), "x.yaml", NULL, &x, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(x.n_cells, 4);
  assert_string_equal(x.cell[0].params_json, "{\"k\":32}");
  assert_null(x.cell[0].schedule);
  assert_string_equal(x.cell[1].params_json, "{\"schedule\":{\"k\":[[8,64],32]}}");
  assert_non_null(strstr(x.cell[2].params_json, "\"schedule\":{\"k\":[1,2],\"visit\":[1,[0.5,0.5]]}"));
  assert_null(strstr(x.cell[2].params_json, "\"k\":32"));
  assert_non_null(strstr(x.cell[3].params_json, "\"comp\":2,"));
  config_free(&x);
}

static void test_file__what_a_schedule_may_not_be__is_refused(void **state) {
  (void)state;
  static const struct {
    const char *entry, *word;
  } bad[] = {{"topk: {schedule: 8}", "by layer and head"},
             {"topk: {schedule: {}}", "by layer and head"},
             {"topk: {schedule: {q: [8]}}", "unknown parameter of topk q"},
             {"topk: {schedule: {k: 8}}", "list of 1..8 layers"},
             {"topk: {schedule: {k: []}}", "list of 1..8 layers"},
             {"topk: {schedule: {k: [1, 2, 3, 4, 5, 6, 7, 8, 9]}}", "list of 1..8 layers"},
             {"topk: {schedule: {k: [8, []]}}", "1..256 heads"},
             {"topk: {schedule: {k: [8, [0, 8]]}}", "x.yaml:5:31: methods.topk.schedule.k = 0, allowed whole numbers"},
             {"topk: {schedule: {k: [8, [[8], 8]]}}", "a list, allowed whole numbers"},
             {"topk: {k: 8, schedule: {k: [8, 8]}}", "topk.k: the schedule sets it for every head"},
             {"nystromformer: {schedule: {landmarks: [8, 8]}}", "learns tensors for all heads together"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char text[400];
    config_experiment x;
    ice_err e = {0};
    (void)snprintf(text, sizeof text, TOP "  - %s\n", bad[i].entry);
    assert_int_equal(config_parse(text, strlen(text), "x.yaml", NULL, &x, &e), ICE_USAGE);
    if (!strstr(e.text, bad[i].word)) fail_msg("%s: '%s' does not say '%s'", bad[i].entry, e.text, bad[i].word);
  }
  static const char tensors[] = "name: x\ntask: synth/gauss\nshape: {n: 64}\nmethods:\n  - topk: {schedule: {k: [8]}}\n";
  config_experiment x;
  ice_err e = {0};
  assert_int_equal(config_parse(tensors, strlen(tensors), "x.yaml", NULL, &x, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "not tensors"));
}

static void test_file__exclude_by_a_scheduled_parameter__matches_no_cell_of_it(void **state) {
  (void)state;
  static const char text[] = TOP "  - topk: {k: 32}\n  - topk: {schedule: {k: [8, 16]}}\nexclude: [{method: topk, k: 32}]\n";
  config_experiment x;
  assert_int_equal(config_parse(text, strlen(text), "x.yaml", NULL, &x, NULL), ICE_OK);
  assert_int_equal(x.n_cells, 1);
  assert_non_null(x.cell[0].schedule);
  config_free(&x);
}

/* --- models ---------------------------------------------------------------------------------------------------------- */

static void test_open__sizes_of_another_model__are_refused(void **state) {
  (void)state;
  const attn_method *topk = registry_find("topk", NULL);
  void *base = registry_defaults(topk);
  static const struct {
    const char *params, *word;
  } bad[] = {{"{\"schedule\":{\"k\":[8]}}", "1 layers, the model has 2"},
             {"{\"schedule\":{\"k\":[8,[1,2]]}}", "2 heads in layer 1, the model has 3"},
             {"{\"schedule\":{\"k\":[8,[1,2,0]]}}", "topk.k = 0"},
             {"{\"schedule\":{\"k\":[8,[1,2,{}]]}}", "topk.k = ,"},
             {"{\"schedule\":{\"q\":[8,8]}}", "unknown parameter of topk q"},
             {"{\"schedule\":[8]}", "by layer and head"}};
  head_schedule s;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ice_err e = {0};
    assert_int_equal(schedule_open(&s, topk, base, bad[i].params, 2, 3, &e), ICE_USAGE);
    if (!strstr(e.text, bad[i].word)) fail_msg("%s: '%s' does not say '%s'", bad[i].params, e.text, bad[i].word);
    schedule_close(&s);
  }
  assert_int_equal(schedule_open(&s, topk, base, "{\"k\":8}", 2, 3, NULL), ICE_OK);
  assert_null(s.head);
  schedule_close(&s);
  attn_free(base);
}

static void test_open__equal_neighbours__share_their_parameters(void **state) {
  (void)state;
  const attn_method *topk = registry_find("topk", NULL);
  void *base = registry_defaults(topk);
  head_schedule s;
  assert_int_equal(schedule_open(&s, topk, base, "{\"schedule\":{\"k\":[7,[7,9,9]]}}", 2, 3, NULL), ICE_OK);
  static const int64_t k[] = {7, 7, 7, 7, 9, 9};
  for (int i = 0; i < 6; i++) {
    char text[16];
    registry_param_print(topk->params, s.head[i].params, text, sizeof text);
    assert_int_equal(atoi(text), k[i]);
    if (i % 3) assert_int_equal(s.head[i].params == s.head[i - 1].params, k[i] == k[i - 1]);
  }
  assert_ptr_not_equal(s.head[3].params, s.head[2].params); /* another layer, another call */
  schedule_close(&s);
  attn_free(base);
}

typedef struct seen { /* outputs of all calls of a pass, by layer and head */
  float out[2][4][50 * 8];
  int calls, heads[8];
} seen;

static void observe(void *ctx, const encoder_call *c) {
  seen *s = ctx;
  for (int h = 0; h < c->problem.h; h++)
    for (int64_t i = 0; i < 50; i++) memcpy(s->out[c->layer][c->head + h] + i * 8, c->out.p + h * c->out.sh + i * c->out.sn, 8 * sizeof(float));
  s->heads[s->calls++] = (int)c->problem.h;
}

/* A model of 2 layers and 4 heads of 8, and one pass of it with a slot. */
static void pass(const encoder_slot *slot, float logits[10], encoder_cost *cost, seen *s) {
  encoder_config c = encoder_lra_config(32, 64, 10, 1);
  int32_t ids[50];
  const int32_t *in = ids;
  const int64_t n = 50;
  encoder m;
  encoder_run *r;
  ice_err e = {0};
  c.width = 32, c.heads = 4;
  assert_int_equal(encoder_create(&m, &c, NULL), ICE_OK);
  encoder_scramble(&m, 5);
  encoder_random_ids(ids, 50, 32, 2);
  if (encoder_run_create(&r, &m, slot, 50, &e) != ICE_OK) fail_msg("%s", e.text);
  if (encoder_forward(r, &in, &n, logits, cost, s ? observe : NULL, s, &e) != ICE_OK) fail_msg("%s: %s", slot->method->name, e.text);
  encoder_run_destroy(r);
  encoder_destroy(&m);
}

static void test_forward__all_heads_alike__same_bits_as_without_a_schedule(void **state) {
  (void)state;
  for (int i = 0; registry_methods[i]; i++) {
    const attn_method *m = registry_methods[i];
    if (m->learned || m->caps & ATTN_CAP_NEEDS_TRAINING) continue;
    void *params = registry_defaults(m);
    encoder_head head[8];
    float a[10], b[10];
    encoder_cost plain = {0}, cost = {0};
    encoder_slot slot = {.method = m, .params = params, .seed = 3, .threads = 2};
    for (int h = 0; h < 8; h++) head[h] = (encoder_head){m, params};
    pass(&slot, a, &plain, NULL);
    slot.heads = head;
    pass(&slot, b, &cost, NULL);
    assert_memory_equal(a, b, sizeof a);
    assert_true(cost.pairs == plain.pairs && cost.peak_bytes == plain.peak_bytes);
    attn_free(params);
  }
}

static void test_forward__mixed_heads__each_gets_its_own(void **state) {
  (void)state;
  const attn_method *dense = registry_find("dense", NULL), *topk = registry_find("topk", NULL);
  int64_t few = 3, more = 9;
  const encoder_head head[8] = {{dense, NULL}, {topk, &few}, {topk, &few}, {topk, &more}, {dense, NULL}, {dense, NULL}, {dense, NULL}, {dense, NULL}};
  encoder_slot slot = {.method = dense, .seed = 3, .threads = 2};
  static seen exact, three, nine, mixed;
  float logits[10];
  encoder_cost cost = {0};
  assert_int_equal(topk->params_size, sizeof few);
  pass(&slot, logits, NULL, &exact);
  slot.method = topk, slot.params = &few;
  pass(&slot, logits, NULL, &three);
  slot.params = &more;
  pass(&slot, logits, NULL, &nine);
  slot.heads = head;
  pass(&slot, logits, &cost, &mixed);
  assert_int_equal(mixed.calls, 4);
  static const int heads[] = {1, 2, 1, 4};
  assert_memory_equal(mixed.heads, heads, sizeof heads);
  assert_memory_equal(mixed.out[0][0], exact.out[0][0], sizeof exact.out[0][0]); /* layer 0: all saw the same input */
  assert_memory_equal(mixed.out[0][1], three.out[0][1], 2 * sizeof exact.out[0][0]);
  assert_memory_equal(mixed.out[0][3], nine.out[0][3], sizeof exact.out[0][0]);
  assert_memory_not_equal(mixed.out[0][3], three.out[0][3], sizeof exact.out[0][0]);
  assert_int_equal(cost.pairs, 8 * 50 * 50);
  assert_true(cost.layer_ns[0] > 0 && cost.attention_ns == cost.layer_ns[0] + cost.layer_ns[1]);
}

static void test_run__heads_of_a_method_that_learns__are_refused(void **state) {
  (void)state;
  const attn_method *learner = registry_find("nystromformer", NULL);
  const encoder_config c = encoder_lra_config(32, 64, 10, 1);
  encoder_head head[4];
  encoder m;
  encoder_run *r;
  ice_err e = {0};
  void *params = registry_defaults(learner);
  for (int h = 0; h < 4; h++) head[h] = (encoder_head){learner, params};
  assert_int_equal(encoder_create(&m, &c, NULL), ICE_OK);
  encoder_scramble(&m, 1);
  const encoder_slot slot = {.method = learner, .params = params, .heads = head, .threads = 1};
  assert_int_equal(encoder_run_create(&r, &m, &slot, 50, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "learns tensors for all heads together"));
  attn_free(params);
  encoder_destroy(&m);
}

/* --- the choice of values -------------------------------------------------------------------------------------------- */

enum { TAKERS = 4, OPTIONS = 5 };

/* The best of all OPTIONS^TAKERS choices within the bounds. */
static double exhaustive(const allot_table *t, const double *weight, const double *bound) {
  double best = INFINITY;
  for (int code = 0; code < 625; code++) {
    int pick[TAKERS], rest = code, fits = 1;
    double value = 0.0;
    for (int i = 0; i < TAKERS; i++, rest /= OPTIONS) pick[i] = rest % OPTIONS;
    for (int c = 0; c < ALLOT_SUMS; c++) {
      fits &= allot_sum(t, pick, c) <= bound[c];
      value += weight[c] * allot_sum(t, pick, c);
    }
    if (fits && value < best) best = value;
  }
  return best;
}

static void test_improve__random_tables__within_bounds_never_worse_near_the_best(void **state) {
  (void)state;
  attn_rng r;
  attn_rng_seed(&r, 7, 0);
  double found_sum = 0.0, best_sum = 0.0;
  for (int round = 0; round < 200; round++) {
    double cost[TAKERS * OPTIONS * ALLOT_SUMS];
    for (int i = 0; i < TAKERS; i++)
      for (int v = 0; v < OPTIONS; v++) {
        double *at = cost + (i * OPTIONS + v) * ALLOT_SUMS;
        const double k = 1 << v;
        at[ALLOT_EFFECT] = (double)(1 + attn_rng_below(&r, 20)) / k;
        at[ALLOT_PAIRS] = k * (double)(1 + attn_rng_below(&r, 3));
        at[ALLOT_KEYS] = k;
      }
    const allot_table t = {TAKERS, OPTIONS, cost};
    int pick[TAKERS] = {2, 2, 2, 2};
    const double weight[ALLOT_SUMS] = {1.0, 0.0, 0.0}, bound[ALLOT_SUMS] = {INFINITY, allot_sum(&t, pick, ALLOT_PAIRS), allot_sum(&t, pick, ALLOT_KEYS)};
    const double before = allot_sum(&t, pick, ALLOT_EFFECT);
    allot_improve(&t, weight, bound, pick);
    const double found = allot_sum(&t, pick, ALLOT_EFFECT), best = exhaustive(&t, weight, bound);
    assert_true(found <= before && found >= best);
    assert_true(allot_sum(&t, pick, ALLOT_PAIRS) <= bound[ALLOT_PAIRS] && allot_sum(&t, pick, ALLOT_KEYS) <= bound[ALLOT_KEYS]);
    found_sum += found, best_sum += best;
  }
  assert_true(found_sum < 1.05 * best_sum);
}

static void test_improve__one_taker_pays_for_another__by_hand(void **state) {
  (void)state;
  /* Effects 8 and 1 at one key, 2 and 0.5 at two, 1 and 0.25 at three. From two keys each, three and one are the best: no single
   * step leads there within four keys. */
  static const double cost[] = {8, 0, 1, 2, 0, 2, 1, 0, 3, 1, 0, 1, 0.5, 0, 2, 0.25, 0, 3};
  const allot_table t = {2, 3, cost};
  const double less_effect[ALLOT_SUMS] = {1, 0, 0}, less_work[ALLOT_SUMS] = {0, 0, 1};
  int pick[2] = {1, 1};
  allot_improve(&t, less_effect, (const double[ALLOT_SUMS]){INFINITY, 0, 4}, pick);
  assert_true(pick[0] == 2 && pick[1] == 0);
  pick[0] = pick[1] = 2; /* 1.25 with six keys; with at most 2.5, four are enough */
  allot_improve(&t, less_work, (const double[ALLOT_SUMS]){2.5, 0, INFINITY}, pick);
  assert_true(allot_sum(&t, pick, ALLOT_KEYS) == 4.0 && allot_sum(&t, pick, ALLOT_EFFECT) <= 2.5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_file__schedule__stands_in_the_canonical_parameters),
      cmocka_unit_test(test_file__what_a_schedule_may_not_be__is_refused),
      cmocka_unit_test(test_file__exclude_by_a_scheduled_parameter__matches_no_cell_of_it),
      cmocka_unit_test(test_open__sizes_of_another_model__are_refused),
      cmocka_unit_test(test_open__equal_neighbours__share_their_parameters),
      cmocka_unit_test(test_forward__all_heads_alike__same_bits_as_without_a_schedule),
      cmocka_unit_test(test_forward__mixed_heads__each_gets_its_own),
      cmocka_unit_test(test_run__heads_of_a_method_that_learns__are_refused),
      cmocka_unit_test(test_improve__random_tables__within_bounds_never_worse_near_the_best),
      cmocka_unit_test(test_improve__one_taker_pays_for_another__by_hand),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
