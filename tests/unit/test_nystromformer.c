/* test_nystromformer.c - method "nystromformer" against its definition in double, forward and backward, and the identities
 * that it has to satisfy. Property tests hold it (with conv=0) to the rest. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "baselines/nystromformer.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "tests/support/nystrom_ref.h"

extern const attn_method attn_method_nystromformer;
static const attn_method *const method = &attn_method_nystromformer;

static nystrom_params settings; /* of the running test; the definition reads them */
static void define(train_case *x, int fresh) {
  (void)fresh;
  const nystrom_ref_settings s = {.landmarks = settings.landmarks, .iterations = settings.iterations, .conv = settings.conv,
                                  .global_kappa = settings.kappa == NYSTROM_KAPPA_GLOBAL,
                                  .pinv_when_short = settings.shorter == NYSTROM_SHORT_PINV};
  nystrom_ref(x, &s);
}
static void set(int64_t landmarks, int64_t conv) {
  attn_params_default(method, &settings);
  settings.landmarks = landmarks, settings.conv = conv;
}

static const struct shape {
  int64_t b, h, n, d, dv, landmarks, conv;
} shapes[] = {{1, 1, 1, 1, 1, 4, 3},     {2, 2, 5, 3, 5, 4, 35},    {1, 3, 37, 8, 8, 5, 7},      {2, 2, 61, 9, 7, 16, 0},
              {1, 2, 40, 16, 16, 64, 5}, {1, 2, 131, 32, 32, 20, 35}, {2, 1, 200, 20, 33, 33, 35}, {1, 1, 1100, 8, 8, 12, 3}, {1, 1, 300, 3, 5, 6, 3}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Every shape x {all keys, masked} x {no dropout, 0.2} x {kappa of the matrix, of all}. */
static void every_case(void (*check)(train_case *)) {
  for (int i = 0; i < SHAPES; i++)
    for (int form = 0; form < 8; form++) {
      const struct shape *s = shapes + i;
      set(s->landmarks, s->conv);
      settings.kappa = form >> 2;
      settings.shorter = form & 1 ? NYSTROM_SHORT_PINV : NYSTROM_SHORT_SOFTMAX;
      train_case x = train_case_new(method, &settings, train_case_problem(s->b, s->h, s->n, s->d, s->dv, 0), form & 2 ? 0.2f : 0.0f,
                                          (form ^ form >> 1 ^ form >> 2) & 1, 1.5f);
      x.reference = define;
      check(&x);
      train_case_free(&x);
    }
}

/* Six steps amplify rounding by up to 3.25^6 in directions that A hardly has; the typical error, 3e-6, is a hundredth of that. */
static void check_forward(train_case *x) { train_case_check_forward(x, 5e-5); }
static void test_forward__every_shape_mask_dropout_and_kappa__as_defined(void **state) {
  (void)state;
  every_case(check_forward);
}

static void check_backward(train_case *x) { train_case_check_backward(x, x->pb.nk > 500 ? 2 : x->pb.nk > 100 ? 4 : 12, 5e-5, 1e-5); }
static void test_backward__every_shape_mask_dropout_and_kappa__matches_slopes(void **state) {
  (void)state;
  every_case(check_backward);
}

static void check_same(train_case *x) {
  if (x->drop == 0.0f) train_case_check_method(x);
}
static void test_training_forward__without_dropout__bits_of_the_method(void **state) {
  (void)state;
  every_case(check_same);
}

static void test_iterations__every_number__as_defined(void **state) {
  (void)state;
  for (int64_t steps = 0; steps <= 8; steps += 2) {
    set(12, 0);
    settings.iterations = steps;
    train_case x = train_case_new(method, &settings, train_case_problem(1, 2, 50, 8, 8, 0), 0.0f, 0, 1.5f);
    x.reference = define;
    train_case_check_forward(&x, 5e-5);
    train_case_check_backward(&x, 10, steps > 6 ? 1e-3 : 5e-5, 1e-5);
    train_case_free(&x);
  }
}

/* --- identities --------------------------------------------------------------------------------------------------- */

static double relative(const train_case *x, const double *got, const double *want) {
  double diff = 0.0, all = 0.0;
  for (int64_t i = 0; i < x->size[TRAIN_OUT]; i++) diff += pow(got[i] - want[i], 2), all += pow(want[i], 2);
  return sqrt(diff / all);
}
static double *exact_of(train_case *x) {
  double *exact = calloc((size_t)x->size[TRAIN_OUT], sizeof *exact);
  ref_view out = train_case_ref(x, TRAIN_OUT);
  out.p = exact;
  attention_ref(&x->pb, train_case_ref(x, TRAIN_Q), train_case_ref(x, TRAIN_K), train_case_ref(x, TRAIN_V), x->mask, 0.0f, 0, out);
  return exact;
}
static double *as_doubles(const train_case *x) {
  double *p = calloc((size_t)x->size[TRAIN_OUT], sizeof *p);
  for (int64_t i = 0; i < x->size[TRAIN_OUT]; i++) p[i] = (double)x->t[TRAIN_OUT][i];
  return p;
}

/* N1: with a landmark for every token the pseudo-inverse path is softmax attention, as far as Z has converged. */
static void test_landmarks__one_per_token__tends_to_softmax(void **state) {
  (void)state;
  set(128, 0);
  settings.shorter = NYSTROM_SHORT_PINV;
  train_case x = train_case_new(method, &settings, train_case_problem(1, 1, 128, 32, 32, 0), 0.0f, 0, 1.0f);
  double *exact = exact_of(&x);
  settings.iterations = 25;
  define(&x, 1);
  assert_true(relative(&x, x.ref[TRAIN_OUT], exact) < 1e-5); /* the definition */
  const int64_t steps[] = {6, 20};
  const double bound[] = {0.15, 1e-3};
  double last = 1.0;
  train_case_free(&x);
  for (int i = 0; i < 2; i++) {
    settings.iterations = steps[i];
    x = train_case_new(method, &settings, train_case_problem(1, 1, 128, 32, 32, 0), 0.0f, 0, 1.0f);
    train_case_forward(&x);
    double *got = as_doubles(&x);
    const double off = relative(&x, got, exact);
    if (!(off < bound[i] && off < last)) fail_msg("%lld steps: relative error %.3g", (long long)steps[i], off);
    last = off;
    free(got);
    train_case_free(&x);
  }
  free(exact);
}

/* No more tokens than landmarks: softmax attention to rounding, said so. */
static void test_short_sequences__softmax(void **state) {
  (void)state;
  for (int masked = 0; masked < 2; masked++) {
    set(64, 0);
    train_case x = train_case_new(method, &settings, train_case_problem(1, 2, masked ? 78 : 64, 8, 8, 0), 0.0f, masked, 1.0f);
    int64_t kept = 0;
    for (int64_t j = 0; j < x.pb.nk; j++) kept += !x.mask || x.mask[j];
    assert_true(kept <= 64);
    double *exact = exact_of(&x);
    train_case_forward(&x);
    for (int64_t i = 0; i < x.size[TRAIN_OUT]; i++) assert_true(fabs((double)x.t[TRAIN_OUT][i] - exact[i]) < 1e-5);
    free(exact);
    train_case_free(&x);
  }
}

static void forward_of(train_case *x) { train_case_forward(x); }

/* N2: an entry of a batch does not see the others; with the authors' kappa it does. */
static void test_batch__one_entry_alone__same_bits_unless_kappa_is_global(void **state) {
  (void)state;
  for (int global = 0; global < 2; global++) {
    set(16, 5);
    settings.kappa = global;
    train_case all = train_case_new(method, &settings, train_case_problem(3, 2, 90, 8, 8, 0), 0.0f, 0, 2.0f);
    forward_of(&all);
    int moved = 0;
    for (int64_t ib = 0; ib < 3; ib++) {
      train_case one = train_case_new(method, &settings, train_case_problem(1, 2, 90, 8, 8, 0), 0.0f, 0, 2.0f);
      for (int i = TRAIN_Q; i <= TRAIN_V; i++) memcpy(one.t[i], all.t[i] + ib * one.size[i], (size_t)one.size[i] * sizeof(float));
      memcpy(one.t[TRAIN_W], all.t[TRAIN_W], (size_t)one.size[TRAIN_W] * sizeof(float));
      forward_of(&one);
      moved += memcmp(one.t[TRAIN_OUT], all.t[TRAIN_OUT] + ib * one.size[TRAIN_OUT], (size_t)one.size[TRAIN_OUT] * sizeof(float)) != 0;
      train_case_free(&one);
    }
    assert_int_equal(moved > 0, global);
    train_case_free(&all);
  }
}

/* N3: a kernel with a single 1 in its middle adds V. */
static void test_conv__delta__adds_the_values(void **state) {
  (void)state;
  set(16, 35);
  train_case x = train_case_new(method, &settings, train_case_problem(2, 2, 90, 8, 8, 0), 0.0f, 0, 1.0f);
  for (int64_t i = 0; i < x.size[TRAIN_W]; i++) x.t[TRAIN_W][i] = i % 35 == 17 ? 1.0f : 0.0f;
  forward_of(&x);
  double *with = as_doubles(&x);
  memset(x.t[TRAIN_W], 0, (size_t)x.size[TRAIN_W] * sizeof(float));
  forward_of(&x);
  for (int64_t i = 0; i < x.size[TRAIN_OUT]; i++) assert_true(fabs(with[i] - (double)x.t[TRAIN_OUT][i] - (double)x.t[TRAIN_V][i]) < 1e-6);
  free(with);
  train_case_free(&x);
}

/* |I - A Z| falls with every step until rounding is left, in the code's own steps and in the definition's. */
static void test_pinv__residual__falls_to_the_floor(void **state) {
  (void)state;
  enum { M = 40, D = 16, STEPS = 20 };
  set(M, 0);
  const attn_micro *mk = attn_micro_get();
  const attn_problem pb = train_case_problem(1, 1, 400, D, 4, 0);
  train_case x = train_case_new(method, &settings, pb, 0.0f, 0, 6.0f);
  double residuals[STEPS + 1];
  nystrom_ref_settings s = {.landmarks = M, .iterations = STEPS, .residual = residuals};
  nystrom_ref(&x, &s);
  for (int i = 1; i <= STEPS; i++) assert_true(residuals[i] <= residuals[i - 1] * (1 + 1e-9) || residuals[i] < 1e-8);
  assert_true(residuals[STEPS] < 1e-6 && residuals[0] > 0.1);

  attn_layout at = {0};
  nystrom_work w;
  nystrom_work_place(&w, &at, &pb, &settings);
  void *memory = attn_alloc(at.used);
  at = (attn_layout){.p = memory};
  nystrom_work_place(&w, &at, &pb, &settings);
  float qbar[M * D], kbar[M * D], a[M * M], *z = attn_alloc((STEPS + 1) * M * M * sizeof(float));
  float *kt = attn_alloc((size_t)(attn_padded(mk, M) * D) * sizeof(float));
  int64_t column;
  segment_means(mk, (segment_rows){x.t[TRAIN_Q], D, NULL}, D, 400, M, 0, M, qbar);
  segment_means(mk, (segment_rows){x.t[TRAIN_K], D, NULL}, D, 400, M, 0, M, kbar);
  attn_pack_transposed(mk, M, D, kbar, D, NULL, pb.scale * 1.442695f, kt);
  const float kappa = nystrom_scores(mk, M, D, qbar, kt, a, &w, &column);
  nystrom_pinv(mk, M, STEPS, a, kappa, z, M * M, &w);
  double before = INFINITY;
  for (int step = 0; step <= STEPS; step++) {
    double worst = 0.0;
    for (int i = 0; i < M; i++)
      for (int j = 0; j < M; j++) {
        double sum = i == j ? 1.0 : 0.0;
        for (int t = 0; t < M; t++) sum -= (double)a[i * M + t] * (double)z[step * M * M + t * M + j];
        worst = fmax(worst, fabs(sum));
      }
    if (!(worst <= before * 1.0001 || worst < 1e-4)) fail_msg("step %d: residual %.3g after %.3g", step, worst, before);
    before = worst;
  }
  assert_true(before < 1e-4);
  attn_free(memory), attn_free(z), attn_free(kt);
  train_case_free(&x);
}

/* Queries and keys constant on every segment: landmarks are the tokens, and attention is softmax once Z has converged. */
static void test_segments__constant_rows__softmax(void **state) {
  (void)state;
  enum { M = 12 };
  static const int64_t lengths[] = {96, 101};
  for (int uneven = 0; uneven < 2; uneven++) {
    const int64_t n = lengths[uneven];
    set(M, 0);
    settings.iterations = 20;
    train_case x = train_case_new(method, &settings, train_case_problem(1, 1, n, 8, 8, 0), 0.0f, 0, 3.0f);
    for (int64_t c = 0; c < M; c++)
      for (int64_t j = nystrom_ref_segment(n, M, c); j < nystrom_ref_segment(n, M, c + 1); j++)
        for (int i = TRAIN_Q; i <= TRAIN_K; i++)
          for (int64_t t = 0; t < 8; t++) {
            x.t[i][j * 8 + t] = x.t[i][nystrom_ref_segment(n, M, c) * 8 + t];
            x.ref[i][j * 8 + t] = (double)x.t[i][j * 8 + t];
          }
    double *exact = exact_of(&x);
    forward_of(&x);
    for (int64_t i = 0; i < x.size[TRAIN_OUT]; i++)
      if (!(fabs((double)x.t[TRAIN_OUT][i] - exact[i]) < 1e-3)) fail_msg("n %lld: %g, expected %g", (long long)n, (double)x.t[TRAIN_OUT][i], exact[i]);
    free(exact);
    train_case_free(&x);
  }
}

/* D2 for rows that sum to one only as far as Z has converged: constant values come back up to the residual. */
static void test_values__constant__come_back_up_to_the_residual(void **state) {
  (void)state;
  const int64_t steps[] = {6, 12, 20};
  double last = 1.0;
  for (int i = 0; i < 3; i++) {
    set(32, 0);
    settings.iterations = steps[i];
    train_case x = train_case_new(method, &settings, train_case_problem(1, 1, 300, 16, 3, 0), 0.0f, 0, 4.0f);
    for (int64_t j = 0; j < x.size[TRAIN_V]; j++) x.t[TRAIN_V][j] = 2.0f, x.ref[TRAIN_V][j] = 2.0;
    double residuals[21], worst = 0.0;
    const nystrom_ref_settings s = {.landmarks = 32, .iterations = steps[i], .residual = residuals};
    nystrom_ref(&x, &s);
    forward_of(&x);
    for (int64_t j = 0; j < x.size[TRAIN_OUT]; j++) worst = fmax(worst, fabs((double)x.t[TRAIN_OUT][j] - 2.0));
    /* F Z 1 - 1 = F (Z A - 1) 1, and entries of I - Z A are as large as those of I - A Z */
    if (!(worst <= 2 * 32 * residuals[steps[i]] + 1e-4 && worst < last)) fail_msg("%lld steps: off by %.3g, residual %.3g", (long long)steps[i], worst, residuals[steps[i]]);
    last = worst;
    train_case_free(&x);
  }
  assert_true(last < 1e-3);
}

/* --- masks -------------------------------------------------------------------------------------------------------- */

/* G1: padding behind the sequence, holding NaN, changes no bit of the rows before it. */
static void test_padding__masked_tail_of_nan__same_bits(void **state) {
  (void)state;
  set(16, 7);
  train_case_check_padding(method, &settings, 150, 1e-4);
}

static void test_mask__nothing_left__zeros(void **state) {
  (void)state;
  set(16, 7);
  train_case_check_nothing_left(method, &settings);
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

static void test_threads__one_or_three__same_bits_forward_and_backward(void **state) {
  (void)state;
  set(20, 35);
  train_case x = train_case_new(method, &settings, train_case_problem(2, 3, 1100, 8, 8, 0), 0.1f, 1, 1.0f);
  train_case y = train_case_new(method, &settings, x.pb, 0.1f, 1, 1.0f);
  x.pb.threads = 1;
  train_case_forward(&x), train_case_backward(&x), train_case_forward(&y), train_case_backward(&y);
  for (int i = TRAIN_OUT; i < TRAIN_TENSORS; i++) assert_memory_equal(x.t[i], y.t[i], (size_t)x.size[i] * sizeof(float));
  train_case_free(&x), train_case_free(&y);
}

static void test_check__even_conv_or_missing_tensors__refused(void **state) {
  (void)state;
  attn_problem pb = train_case_problem(1, 2, 8, 4, 4, 0);
  pb.positions = 8;
  set(4, 34);
  float w[2 * 35] = {0};
  pb.weights = w, pb.weights_bytes = 2 * 34 * sizeof(float);
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_ERR_PARAM);
  assert_non_null(strstr(attn_last_error(), "odd"));
  set(4, 35);
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_ERR_SHAPE);
  pb.weights_bytes = sizeof w;
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_OK);
  pb.weights = NULL;
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_ERR_ARG);
  set(4, 0);
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_OK);
}

static void test_sizes__growing_n__linear(void **state) {
  (void)state;
  set(64, 35);
  attn_mem own[3], training[3];
  for (int i = 0; i < 3; i++) {
    const attn_problem pb = train_case_problem(1, 2, 4096 << i, 32, 32, 0);
    assert_int_equal(method->sizes(&pb, &settings, &own[i]), ATTN_OK);
    assert_int_equal(method->training->sizes(&pb, &settings, &training[i]), ATTN_OK);
  }
  assert_int_equal(own[2].plan - own[1].plan, 2 * (own[1].plan - own[0].plan));
  assert_int_equal(own[2].scratch - own[1].scratch, 2 * (own[1].scratch - own[0].scratch));
  assert_int_equal(training[2].plan - training[1].plan, 2 * (training[1].plan - training[0].plan));
  assert_true(own[2].plan + own[2].scratch < 16384u * 32 * 2 * sizeof(float)); /* less than a copy of K */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward__every_shape_mask_dropout_and_kappa__as_defined),
      cmocka_unit_test(test_backward__every_shape_mask_dropout_and_kappa__matches_slopes),
      cmocka_unit_test(test_training_forward__without_dropout__bits_of_the_method),
      cmocka_unit_test(test_iterations__every_number__as_defined),
      cmocka_unit_test(test_landmarks__one_per_token__tends_to_softmax),
      cmocka_unit_test(test_short_sequences__softmax),
      cmocka_unit_test(test_batch__one_entry_alone__same_bits_unless_kappa_is_global),
      cmocka_unit_test(test_conv__delta__adds_the_values),
      cmocka_unit_test(test_pinv__residual__falls_to_the_floor),
      cmocka_unit_test(test_segments__constant_rows__softmax),
      cmocka_unit_test(test_values__constant__come_back_up_to_the_residual),
      cmocka_unit_test(test_padding__masked_tail_of_nan__same_bits),
      cmocka_unit_test(test_mask__nothing_left__zeros),
      cmocka_unit_test(test_threads__one_or_three__same_bits_forward_and_backward),
      cmocka_unit_test(test_check__even_conv_or_missing_tensors__refused),
      cmocka_unit_test(test_sizes__growing_n__linear),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
