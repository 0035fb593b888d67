/* test_aims.c - the table of aims: read with its defaults, refused with place and allowed values, judged as it says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "harness/aims.h"
#include "tests/support/scratch.h"

static int load(const char *text, aims *a, ice_err *e) { return aims_read(a, scratch_write("a.yaml", text, strlen(text)), e); }

static void refused(const char *text, const char *word) {
  aims a;
  ice_err e = {0};
  const int rc = load(text, &a, &e);
  if (rc == ICE_OK) {
    aims_free(&a);
    fail_msg("accepted, though it should say '%s':\n%s", word, text);
  }
  assert_int_equal(rc, ICE_USAGE);
  if (!strstr(e.text, word)) fail_msg("'%s' does not say '%s'", e.text, word);
}

#define OF "of: {method: dense, n: 64, d: 8}"
#define OVER "over: {method: vanilla, n: 32, d: 8}"
#define AIM "id: x, aim: text, "
#define ONE(rest) "aims:\n  - {" AIM rest "}\n"

static void test_read__defaults__are_those_of_the_head(void **state) {
  (void)state;
  aims a;
  ice_err e = {0};
  if (load("rounds: 3\nmax_seconds: 2\n" ONE("kind: speedup, at_least: 2, need: {recall: 0.9}, " OF ", " OVER), &a, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_true(a.n == 1 && a.rounds == 3 && a.warmup == 1 && a.max_seconds == 2.0 && a.limit_seconds == 300.0);
  const aim *x = a.list;
  assert_true(x->kind == AIM_SPEEDUP && x->has_over && x->least == 2.0 && isnan(x->most) && x->need_recall == 0.9 && isnan(x->need_error));
  assert_true(x->of.h == 1 && x->of.n == 64 && x->of.d == 8 && x->of.threads == 2 && x->of.seed == 1 && !x->of.causal && !x->of.params);
  assert_string_equal(x->of.synth, "clustered");
  assert_string_equal(x->over.method, "vanilla");
  aims_free(&a);
}

static void test_read__faults__are_named(void **state) {
  (void)state;
  refused("aims: []\n", "allowed a list of 1..1000 aims");
  refused("rounds: 0\n" ONE("kind: cpu_us, at_most: 1, " OF), "rounds = 0, allowed");
  refused("aims:\n  - dense\n", "allowed a mapping");
  refused("aims:\n  - {id: 'A b', aim: t, kind: cpu_us, at_most: 1, " OF "}\n", "allowed 1..60 of a-z");
  refused(ONE("kind: best, at_most: 1, " OF), "kind = best, allowed");
  refused(ONE("kind: cpu_us, " OF), "x: needs at_least or at_most");
  refused(ONE("kind: cpu_us, at_least: 1, at_most: 2, " OF), "x: needs at_least or at_most");
  refused(ONE("kind: speedup, at_least: 1, " OF), "over");
  refused(ONE("kind: rate, at_least: 1, " OF ", " OVER), "kind rate has no other side");
  refused(ONE("kind: exponent, at_most: 1, " OVER ", of: {method: dense, n: 32, d: 8}"), "n must be greater");
  refused(ONE("kind: cpu_us, at_most: 1, of: {method: dense}"), "n");
  refused(ONE("kind: cpu_us, at_most: 1, of: {method: dense, n: 64, threads: 0}"), "threads = 0, allowed");
  refused(ONE("kind: cpu_us, at_most: 1, of: {method: dense, n: 64, width: 3}"), "width");
  refused(ONE("kind: cpu_us, at_most: 1, need: {speed: 1}, " OF), "speed");
  refused("aims:\n  - {" AIM "kind: cpu_us, at_most: 1, " OF "}\n  - {" AIM "kind: cpu_us, at_most: 1, " OF "}\n", "id x is given twice");
}

static void test_reached__bounds_and_needs__all_must_hold(void **state) {
  (void)state;
  const aim least = {.least = 2, .most = NAN, .need_recall = NAN, .need_error = NAN};
  assert_true(aim_reached(&least, 2.0, NAN, NAN) && !aim_reached(&least, 1.99, NAN, NAN) && !aim_reached(&least, NAN, NAN, NAN));
  const aim most = {.least = NAN, .most = 0.5, .need_recall = 0.98, .need_error = NAN};
  assert_true(aim_reached(&most, 0.5, 0.98, NAN) && !aim_reached(&most, 0.51, 1, NAN) && !aim_reached(&most, 0.1, 0.97, NAN) &&
              !aim_reached(&most, 0.1, NAN, NAN) && !aim_reached(&most, NAN, 1, NAN));
  const aim error = {.least = 1, .most = NAN, .need_recall = NAN, .need_error = 0.1};
  assert_true(aim_reached(&error, 1, NAN, 0.1) && !aim_reached(&error, 1, NAN, 0.11) && !aim_reached(&error, 1, NAN, NAN));
}

/* Each kind once, on tiny tensors: a number where there should be one, and no judgement of its size. */
static void test_measure__every_kind__gives_numbers(void **state) {
  (void)state;
  aims a;
  ice_err e = {0};
  const char *text = "rounds: 6\nwarmup: 0\naims:\n" /* fewer have no interval */
                     "  - {id: a, aim: t, kind: rate, at_least: 0, " OF "}\n"
                     "  - {id: b, aim: t, kind: speedup, at_least: 0, " OF ", " OVER "}\n"
                     "  - {id: c, aim: t, kind: share, at_least: 0, need: {rel_l2_error: 0.5}, " OF ", " OVER "}\n"
                     "  - {id: d, aim: t, kind: cpu_us, at_most: 1000000, need: {recall: 1, rel_l2_error: 0.001}, of: {method: topk, n: 64, d: 8, params: {k: 64}}}\n"
                     "  - {id: e, aim: t, kind: exponent, at_most: 1000, " OF ", " OVER "}\n"
                     "  - {id: f, aim: t, kind: cpu_us, at_most: 1, of: {method: nonsense, n: 64}}\n"
                     "  - {id: g, aim: t, kind: cpu_us, at_most: 1, of: {method: topk, n: 64, params: {kk: 3}}}\n";
  if (load(text, &a, &e) != ICE_OK) fail_msg("%s", e.text);
  aim_result r[7];
  for (int i = 0; i < 7; i++) aim_measure(&a, a.list + i, r + i);
  for (int i = 0; i < 5; i++) {
    assert_string_equal(r[i].status, "ok");
    assert_true(isfinite(r[i].measured.value) && r[i].measured.lo <= r[i].measured.value && r[i].measured.value <= r[i].measured.hi);
    assert_true(r[i].ns.value > 0.0);
  }
  assert_true(r[0].measured.value > 0.0 && r[0].reached && isnan(r[0].recall) && isnan(r[0].rel_l2_error));
  assert_true(r[2].rel_l2_error == 0.0 && r[2].reached);
  assert_true(r[3].recall == 1.0 && r[3].rel_l2_error < 1e-5 && r[3].reached);
  assert_string_equal(r[5].status, "unsupported");
  assert_non_null(strstr(r[5].reason, "unknown method nonsense"));
  assert_string_equal(r[6].status, "failed");
  assert_non_null(strstr(r[6].reason, "kk"));
  assert_true(!r[5].reached && !r[6].reached && isnan(r[5].measured.value));
  aims_free(&a);
}

static void test_aims__of_this_tree__load(void **state) {
  (void)state;
  aims a;
  ice_err e = {0};
  if (aims_read(&a, "configs/bench/aims.yaml", &e) != ICE_OK) fail_msg("%s", e.text);
  assert_true(a.n >= 14);
  aims_free(&a);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_read__defaults__are_those_of_the_head), TEST(test_read__faults__are_named),
      TEST(test_reached__bounds_and_needs__all_must_hold), TEST(test_measure__every_kind__gives_numbers),
      TEST(test_aims__of_this_tree__load),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
