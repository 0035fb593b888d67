/* test_dense_train.c - the training half of method "dense": forward with dropout against plain loops in double, the
 * gradients of q, k and v against central differences of those loops. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "kernels/methods/dense.h"
#include "tests/support/train_case.h"

static void reference(train_case *x, int fresh) {
  (void)fresh;
  attention_ref(&x->pb, train_case_ref(x, TRAIN_Q), train_case_ref(x, TRAIN_K), train_case_ref(x, TRAIN_V), x->mask, x->drop, x->key,
                train_case_ref(x, TRAIN_OUT));
}
static attn_problem problem(int64_t b, int64_t h, int64_t hkv, int64_t nq, int64_t nk, int64_t d, int64_t dv, int causal) {
  attn_problem pb = train_case_problem(b, h, nk, d, dv, causal);
  pb.hkv = hkv, pb.nq = nq;
  return pb;
}
static train_case case_new(attn_problem pb, float drop, int masked) {
  train_case x = train_case_new(&attn_method_dense, NULL, pb, drop, masked, 1.0);
  x.reference = reference;
  return x;
}

/* Small and odd shapes, then some that cross every block: 48 and 96 rows, 128 and 256 keys. */
static const struct shape {
  int64_t b, h, hkv, nq, nk, d, dv;
} shapes[] = {{1, 1, 1, 1, 1, 1, 1},     {2, 2, 1, 5, 7, 3, 5},       {1, 4, 2, 13, 13, 8, 8},
              {1, 2, 2, 17, 3, 16, 20},  {1, 1, 1, 100, 300, 32, 32}, {2, 2, 2, 131, 131, 32, 32},
              {1, 2, 1, 50, 261, 64, 33}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Calls check for every shape x {all keys, causal, masked, both} x {no dropout, 0.1, 0.5}. */
static void every_case(void (*check)(train_case *)) {
  for (int i = 0; i < SHAPES; i++)
    for (int form = 0; form < 12; form++) {
      const struct shape *s = shapes + i;
      const float drops[] = {0.0f, 0.1f, 0.5f};
      train_case x = case_new(problem(s->b, s->h, s->hkv, s->nq, s->nk, s->d, s->dv, form & 1), drops[form / 4], form >> 1 & 1);
      check(&x);
      train_case_free(&x);
    }
}

/* A logit is a product of d terms: off by (d + 4) u |q| |k| scale at most, at most 30 d u here, in practice a tenth of
 * it; a weight by twice that and the rounding of nk terms, of which sqrt(nk) is typical. */
static double tolerance(const train_case *x) {
  return 0x1p-24 * (3.0 * (double)x->pb.d + 2.0 * sqrt((double)x->pb.nk) + 20.0);
}

/* Values are of unit size. */
static void check_forward(train_case *x) { train_case_check_forward(x, tolerance(x) / (1.0 - (double)x->drop)); }
static void test_forward__every_shape_mask_and_dropout__matches_double(void **state) {
  (void)state;
  every_case(check_forward);
}

static void check_method(train_case *x) {
  if (x->drop == 0.0f) train_case_check_method(x);
}
static void test_forward__without_dropout__bits_of_the_method(void **state) {
  (void)state;
  every_case(check_method);
}

/* f32 rounding is relative to the terms of a sum, so the bound is relative to the largest entry of the tensor; sums cancel by less than
 * a factor of ten here. */
static void check_backward(train_case *x) { train_case_check_backward(x, x->pb.nk > 40 ? 2 : 40, 4 * tolerance(x), 1e-4); }
static void test_backward__every_shape_mask_and_dropout__matches_slopes(void **state) {
  (void)state;
  every_case(check_backward);
}

static void test_bits__threads_and_the_method_itself__equal_other_key_not(void **state) {
  (void)state;
  train_case_check_bits(&attn_method_dense, NULL, problem(2, 4, 2, 131, 131, 32, 32, 0));
}

static void test_padding__masked_tail_of_nan__same_bits(void **state) {
  (void)state;
  train_case_check_padding(&attn_method_dense, NULL, 140, 1e-5);
}

static void test_backward__queries_without_keys__zero_gradients(void **state) {
  (void)state;
  train_case x = case_new(problem(1, 1, 1, 60, 20, 4, 4, 1), 0.0f, 0); /* the first 40 queries see nothing */
  check_backward(&x);
  for (int64_t j = 0; j < 40 * 4; j++) assert_true(x.t[TRAIN_OUT][j] == 0.0f && x.t[TRAIN_DQ][j] == 0.0f);
  train_case_free(&x);
  train_case_check_nothing_left(&attn_method_dense, NULL);
}

static void test_sizes__growing_n__linear(void **state) {
  (void)state;
  for (int threads = 1; threads <= 2; threads++) {
    attn_mem need[3];
    for (int i = 0; i < 3; i++) {
      attn_problem pb = problem(1, 2, 2, 4096 << i, 4096 << i, 32, 32, 0);
      pb.threads = threads;
      assert_int_equal(attn_training_dense.sizes(&pb, NULL, &need[i]), ATTN_OK);
    }
    assert_int_equal(need[2].plan - need[1].plan, 2 * (need[1].plan - need[0].plan));
    assert_int_equal(need[2].scratch - need[1].scratch, 2 * (need[1].scratch - need[0].scratch));
    /* Per token: an lse for each head; copies of K, K^T, V^T, dK, dV of one head for each thread. */
    assert_true(need[2].plan <= 16384 * 2 * sizeof(float) + ATTN_ALIGN);
    assert_true(need[2].scratch <= (size_t)threads * (16384 * (5 * 32 + 2) * sizeof(float) + (1 << 18)));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward__every_shape_mask_and_dropout__matches_double),
      cmocka_unit_test(test_forward__without_dropout__bits_of_the_method),
      cmocka_unit_test(test_backward__every_shape_mask_and_dropout__matches_slopes),
      cmocka_unit_test(test_bits__threads_and_the_method_itself__equal_other_key_not),
      cmocka_unit_test(test_padding__masked_tail_of_nan__same_bits),
      cmocka_unit_test(test_backward__queries_without_keys__zero_gradients),
      cmocka_unit_test(test_sizes__growing_n__linear),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
