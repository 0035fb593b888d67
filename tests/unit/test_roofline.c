/* test_roofline.c - the register kernel does the work it counts, and shares are those of the model. Nothing here is timed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness/roofline.h"
#include "kernels/micro/micro.h"

static void test_peak__every_isa__does_what_it_counts(void **state) {
  (void)state;
  static const char *const isa[] = {"scalar", "avx2", "avx512"};
  for (int i = 0; i < 3; i++) {
    const attn_micro *mk = attn_micro_named(isa[i]);
    float sum;
    if (!mk) continue;
    assert_true(mk->peak(5, &sum) == 2.0 * 12 * mk->lanes * 5);
    double want = 0.0; /* x <- 0.75 x + 0.25 five times, from c / 8 in chain c */
    for (int c = 0; c < 12; c++) {
      double x = c * 0.125;
      for (int r = 0; r < 5; r++) x = 0.75 * x + 0.25;
      want += x * mk->lanes;
    }
    assert_float_equal(sum, want, 1e-3);
  }
}

/* h 2, hkv 1, 10 queries, 20 keys, d 8, dv 4: 24 flops a pair; (2 * 10 + 20) * 12 floats. */
static measure_tensors tensors = {.in = {.pb = {.b = 1, .h = 2, .hkv = 1, .nq = 10, .nk = 20, .d = 8, .dv = 4}}};
static const measure_set set = {.t = &tensors, .n = 1};

static void test_share__compute_bound__of_the_peak(void **state) {
  (void)state;
  const roofline r = {.fma = 1e9, .sgemm = 5e8, .copy = 1e9, .update = 2e9};
  const roofline_share s = roofline_of(&r, &set, 400, 19200.0); /* the peak would take 9,600 ns */
  assert_true(s.flops == 9600.0 && s.bytes == 1920.0 && !s.memory_bound);
  assert_float_equal(s.rate, 5e8, 1.0);
  assert_float_equal(s.limit, 1e9, 1.0);
  assert_float_equal(s.share, 0.5, 1e-9);
  assert_float_equal(s.share_of_sgemm, 1.0, 1e-9);
}

static void test_share__memory_bound__of_the_better_bandwidth(void **state) {
  (void)state;
  const roofline r = {.fma = 1e12, .sgemm = 1e12, .copy = 1e9, .update = 2e9};
  const roofline_share s = roofline_of(&r, &set, 400, 1920.0); /* 1,920 bytes take 960 ns */
  assert_true(s.memory_bound);
  assert_float_equal(s.limit, 9600.0 / 960e-9, 1e3);
  assert_float_equal(s.share, 0.5, 1e-9);
}

static void test_share__no_pairs__nothing_and_no_nan(void **state) {
  (void)state;
  const roofline r = {.fma = 1e9, .sgemm = 1e9, .copy = 1e9, .update = 1e9};
  const roofline_share s = roofline_of(&r, &set, 0, 100.0);
  assert_true(s.rate == 0.0 && s.limit == 0.0 && s.share == 0.0);
}

static void test_measure__two_threads__positive_rates(void **state) {
  (void)state;
  roofline r;
  ice_err e = {0};
  assert_int_equal(roofline_measure(2, &r, &e), ICE_OK);
  assert_true(r.threads == 2 && r.memory_bytes > 0 && r.l2_bytes > 0 && r.l2_bytes < r.memory_bytes);
  const double rate[] = {r.fma, r.sgemm, r.copy, r.update, r.l2_copy, r.l2_update};
  for (int i = 0; i < 6; i++) assert_true(isfinite(rate[i]) && rate[i] > 0.0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_peak__every_isa__does_what_it_counts),
      cmocka_unit_test(test_share__compute_bound__of_the_peak),
      cmocka_unit_test(test_share__memory_bound__of_the_better_bandwidth),
      cmocka_unit_test(test_share__no_pairs__nothing_and_no_nan),
      cmocka_unit_test(test_measure__two_threads__positive_rates),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
