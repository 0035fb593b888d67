/* test_lara.c - method "lara" against its definition in double, forward and backward, and the identities that it has to
 * satisfy. Property tests hold it to the rest. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/rng.h"
#include "tests/support/lara_ref.h"

extern const attn_method attn_method_lara;
static const attn_method *const method = &attn_method_lara;

static lara_params settings; /* of the running test; the definition reads them */
static void define(train_case *x, int fresh) { (void)fresh, lara_ref(x, &settings, 1); }
static void set(int64_t landmarks, int estimator, int noise) {
  attn_params_default(method, &settings);
  settings.landmarks = landmarks, settings.estimator = estimator, settings.noise = noise;
}

static const struct shape {
  int64_t b, h, n, d, dv, landmarks;
} shapes[] = {{1, 1, 1, 1, 1, 4},    {2, 2, 5, 3, 5, 4},       {1, 3, 37, 8, 8, 5},    {2, 2, 61, 9, 7, 16},
              {1, 2, 131, 32, 32, 20}, {1, 1, 1100, 8, 8, 12}, {1, 1, 300, 3, 5, 33}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Every shape x {all keys, masked} x {no dropout, 0.2} x every estimator, with each kind of noise. */
static void every_case(void (*check)(train_case *)) {
  for (int i = 0; i < SHAPES; i++)
    for (int form = 0; form < 12; form++) {
      const struct shape *s = shapes + i;
      set(s->landmarks, form / 4, (form + i) % 3);
      settings.share = form & 1 ? 2.0 : 1.0;
      attn_problem pb = train_case_problem(s->b, s->h, s->n, s->d, s->dv, 0);
      pb.seed = (uint64_t)form;
      train_case x = train_case_new(method, &settings, pb, form & 2 ? 0.2f : 0.0f, form & 1, 0.8f);
      x.reference = define;
      check(&x);
      train_case_free(&x);
    }
}

static void check_forward(train_case *x) { train_case_check_forward(x, 5e-5); }
static void test_forward__every_shape_mask_dropout_estimator_and_noise__as_defined(void **state) {
  (void)state;
  every_case(check_forward);
}
static void check_backward(train_case *x) { train_case_check_backward(x, x->pb.nk > 500 ? 2 : x->pb.nk > 100 ? 4 : 12, 5e-5, 1e-5); }
static void test_backward__every_shape_mask_dropout_estimator_and_noise__matches_slopes(void **state) {
  (void)state;
  every_case(check_backward);
}

/* Inference is training without noise and dropout, bit by bit. */
static void test_training_forward__no_noise_no_dropout__bits_of_the_method(void **state) {
  (void)state;
  for (int i = 0; i < SHAPES; i++)
    for (int form = 0; form < 6; form++) {
      const struct shape *s = shapes + i;
      set(s->landmarks, form / 2, LARA_NOISE_NONE);
      train_case x = train_case_new(method, &settings, train_case_problem(s->b, s->h, s->n, s->d, s->dv, 0), 0.0f, form & 1, 0.8f);
      train_case_check_method(&x);
      train_case_free(&x);
    }
}

/* The seed of the step changes what training computes, and only through noise. */
static void test_noise__other_seed__other_outputs_unless_off(void **state) {
  (void)state;
  for (int noise = LARA_NOISE_SCALED; noise <= LARA_NOISE_NONE; noise++) {
    set(8, LARA_OPT, noise);
    train_case x = train_case_new(method, &settings, train_case_problem(1, 2, 60, 8, 8, 0), 0.0f, 0, 0.8f), y = train_case_new(method, &settings, x.pb, 0.0f, 0, 0.8f);
    y.pb.seed = 7;
    train_case_forward(&x), train_case_forward(&y);
    assert_int_equal(memcmp(x.t[TRAIN_OUT], y.t[TRAIN_OUT], (size_t)x.size[TRAIN_OUT] * sizeof(float)) != 0, noise != LARA_NOISE_NONE);
    train_case_free(&x), train_case_free(&y);
  }
}

/* --- identities --------------------------------------------------------------------------------------------------- */

/* D2 and the convex hull, in training too: noise moves weights, not their sum. */
static void test_values__any__outputs_stay_in_their_range(void **state) {
  (void)state;
  for (int estimator = LARA_OPT; estimator <= LARA_BIASED; estimator++)
    for (int constant = 0; constant < 2; constant++) {
      set(16, estimator, LARA_NOISE_SCALED);
      train_case x = train_case_new(method, &settings, train_case_problem(1, 2, 200, 8, 3, 0), 0.0f, 0, 2.0f);
      float low = INFINITY, high = -INFINITY;
      for (int64_t i = 0; i < x.size[TRAIN_V]; i++) {
        if (constant) x.t[TRAIN_V][i] = 3.0f;
        low = fminf(low, x.t[TRAIN_V][i]), high = fmaxf(high, x.t[TRAIN_V][i]);
      }
      train_case_forward(&x);
      for (int64_t i = 0; i < x.size[TRAIN_OUT]; i++) assert_true(x.t[TRAIN_OUT][i] >= low - 1e-5f && x.t[TRAIN_OUT][i] <= high + 1e-5f);
      train_case_free(&x);
    }
}

/* L1: one landmark answers every query with the same vector. */
static void test_landmarks__one__one_vector(void **state) {
  (void)state;
  set(1, LARA_OPT, LARA_NOISE_NONE);
  train_case x = train_case_new(method, &settings, train_case_problem(1, 1, 90, 8, 8, 0), 0.0f, 0, 1.0f);
  train_case_forward(&x);
  for (int64_t i = 0; i < x.size[TRAIN_OUT]; i++) assert_true(fabsf(x.t[TRAIN_OUT][i] - x.t[TRAIN_OUT][i % 8]) <= 1e-5f);
  train_case_free(&x);
}

/* L1: the order of keys inside a segment does not matter; across segments it does. */
static void test_order__keys_inside_a_segment__same_output(void **state) {
  (void)state;
  enum { N = 90, M = 9, D = 8 };
  for (int across = 0; across < 2; across++) {
    set(M, LARA_OPT, LARA_NOISE_NONE);
    train_case x = train_case_new(method, &settings, train_case_problem(1, 1, N, D, D, 0), 0.0f, 0, 1.0f), y = train_case_new(method, &settings, x.pb, 0.0f, 0, 1.0f);
    for (int64_t j = 0; j < N; j++) {
      const int64_t to = across ? (j * 7) % N : j / 10 * 10 + 9 - j % 10;
      for (int i = TRAIN_K; i <= TRAIN_V; i++) memcpy(y.t[i] + to * D, x.t[i] + j * D, D * sizeof(float));
    }
    train_case_forward(&x), train_case_forward(&y);
    double off = 0.0;
    for (int64_t i = 0; i < x.size[TRAIN_OUT]; i++) off = fmax(off, fabs((double)x.t[TRAIN_OUT][i] - (double)y.t[TRAIN_OUT][i]));
    assert_int_equal(off > 1e-5, across);
    train_case_free(&x), train_case_free(&y);
  }
}

/* L2: what LARA approximates. Averaged over draws around q_i + k_j, j by its softmax weight, sum_j xi(k_j, w) v_j / sum_j xi(k_j, w) is
 * softmax attention - with noise of the default size, and not with that of the authors' code. */
static double monte_carlo_error(int noise) {
  enum { N = 24, D = 16, DRAWS = 4000, QUERIES = 12 };
  set(8, LARA_OPT, noise);
  train_case x = train_case_new(method, &settings, train_case_problem(1, 1, N, D, D, 0), 0.0f, 0, 1.0f);
  const double *q = x.ref[TRAIN_Q], *k = x.ref[TRAIN_K], *v = x.ref[TRAIN_V], scale = (double)x.pb.scale;
  const double size = lara_noise_size(&settings, x.pb.scale);
  attention_ref(&x.pb, train_case_ref(&x, TRAIN_Q), train_case_ref(&x, TRAIN_K), train_case_ref(&x, TRAIN_V), NULL, 0.0f, 0, train_case_ref(&x, TRAIN_OUT));
  double diff = 0.0, all = 0.0;
  attn_rng r;
  attn_rng_seed(&r, 3, 3);
  for (int64_t i = 0; i < QUERIES; i++) {
    double weight[N], mean[D] = {0}, sum = 0.0;
    for (int64_t j = 0; j < N; j++) {
      double dot = 0.0;
      for (int64_t t = 0; t < D; t++) dot += q[i * D + t] * k[j * D + t];
      sum += weight[j] = exp(scale * dot);
    }
    for (int draw = 0; draw < DRAWS; draw++) {
      double u = attn_rng_uniform(&r) * sum, omega[D], xi[N], total = 0.0;
      int64_t j = 0;
      while (j < N - 1 && u >= weight[j]) u -= weight[j++];
      for (int64_t t = 0; t < D; t++) omega[t] = q[i * D + t] + k[j * D + t] + size * attn_rng_normal(&r);
      for (j = 0; j < N; j++) total += xi[j] = exp(lara_ref_log_xi(scale, D, k + j * D, omega));
      for (j = 0; j < N; j++)
        for (int64_t t = 0; t < D; t++) mean[t] += xi[j] / total * v[j * D + t] / DRAWS;
    }
    for (int64_t t = 0; t < D; t++) diff += pow(mean[t] - x.ref[TRAIN_OUT][i * D + t], 2), all += pow(x.ref[TRAIN_OUT][i * D + t], 2);
  }
  train_case_free(&x);
  return sqrt(diff / all);
}
static void test_randomised_attention__many_draws__softmax_with_scaled_noise_only(void **state) {
  (void)state;
  const double scaled = monte_carlo_error(LARA_NOISE_SCALED), unit = monte_carlo_error(LARA_NOISE_UNIT);
  if (!(scaled < 0.05 && unit > 2 * scaled)) fail_msg("relative error %.3g with scaled noise, %.3g with unit noise", scaled, unit);
}

/* The draws: standard deviation as asked for, apart by head and by landmark, the same again. */
static void test_noise__size_and_keys(void **state) {
  (void)state;
  enum { M = 64, D = 64 };
  static float a[M * D], b[M * D], c[M * D];
  attn_problem pb = train_case_problem(1, 2, 8, D, D, 0);
  pb.seed = 5;
  for (int noise = LARA_NOISE_SCALED; noise <= LARA_NOISE_UNIT; noise++) {
    set(8, LARA_OPT, noise);
    lara_noise(&pb, &settings, 0, 0, M, a), lara_noise(&pb, &settings, 0, 1, M, b), lara_noise(&pb, &settings, 0, 0, M, c);
    assert_memory_equal(a, c, sizeof a);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a, a + D, D * sizeof(float));
    double square = 0.0;
    for (int i = 0; i < M * D; i++) square += (double)a[i] * (double)a[i] / (M * D);
    assert_true(fabs(square / (noise == LARA_NOISE_UNIT ? 1.0 : 8.0) - 1.0) < 0.1); /* 1 / scale = sqrt(64) */
  }
}

/* --- masks and threads -------------------------------------------------------------------------------------------- */

/* G1: padding behind the sequence, holding NaN, changes no bit of the rows before it. */
static void test_padding__masked_tail_of_nan__same_bits(void **state) {
  (void)state;
  set(16, LARA_OPT, LARA_NOISE_SCALED);
  train_case_check_padding(method, &settings, 150, 1e-5);
}

static void test_mask__nothing_left__zeros(void **state) {
  (void)state;
  set(16, LARA_OPT, LARA_NOISE_SCALED);
  train_case_check_nothing_left(method, &settings);
}

static void test_threads__one_or_two__same_bits_forward_and_backward(void **state) {
  (void)state;
  set(20, LARA_OPT, LARA_NOISE_SCALED);
  train_case x = train_case_new(method, &settings, train_case_problem(2, 3, 1100, 8, 8, 0), 0.1f, 1, 1.0f), y = train_case_new(method, &settings, x.pb, 0.1f, 1, 1.0f);
  x.pb.threads = 1;
  train_case_forward(&x), train_case_backward(&x), train_case_forward(&y), train_case_backward(&y);
  for (int i = TRAIN_OUT; i <= TRAIN_DV; i++) assert_memory_equal(x.t[i], y.t[i], (size_t)x.size[i] * sizeof(float));
  train_case_free(&x), train_case_free(&y);
}

static void test_huge_queries__refused_not_nan(void **state) {
  (void)state;
  set(8, LARA_OPT, LARA_NOISE_NONE);
  train_case x = train_case_new(method, &settings, train_case_problem(1, 1, 40, 8, 8, 0), 0.0f, 0, 1e25f);
  attn_mem need;
  assert_int_equal(method->sizes(&x.pb, &settings, &need), ATTN_OK);
  void *plan = attn_alloc(need.plan), *scratch = attn_alloc(need.scratch);
  float out[320];
  const attn_viewm o = {out, 320, 8, 8};
  out[0] = -7.0f;
  assert_int_equal(method->prepare(plan, &x.pb, &settings), ATTN_OK);
  assert_int_equal(method->build(plan, train_case_view(&x, TRAIN_K), train_case_view(&x, TRAIN_V), NULL, scratch), ATTN_OK);
  assert_int_equal(method->forward(plan, &settings, train_case_view(&x, TRAIN_Q), o, scratch, NULL), ATTN_ERR_NUMERIC);
  assert_true(out[0] == -7.0f);
  attn_free(plan), attn_free(scratch);
  train_case_free(&x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward__every_shape_mask_dropout_estimator_and_noise__as_defined),
      cmocka_unit_test(test_backward__every_shape_mask_dropout_estimator_and_noise__matches_slopes),
      cmocka_unit_test(test_training_forward__no_noise_no_dropout__bits_of_the_method),
      cmocka_unit_test(test_noise__other_seed__other_outputs_unless_off),
      cmocka_unit_test(test_values__any__outputs_stay_in_their_range),
      cmocka_unit_test(test_landmarks__one__one_vector),
      cmocka_unit_test(test_order__keys_inside_a_segment__same_output),
      cmocka_unit_test(test_randomised_attention__many_draws__softmax_with_scaled_noise_only),
      cmocka_unit_test(test_noise__size_and_keys),
      cmocka_unit_test(test_padding__masked_tail_of_nan__same_bits),
      cmocka_unit_test(test_mask__nothing_left__zeros),
      cmocka_unit_test(test_threads__one_or_two__same_bits_forward_and_backward),
      cmocka_unit_test(test_huge_queries__refused_not_nan),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
