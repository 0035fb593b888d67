/* test_gradients.c - backpropagation through the whole encoder: loss and gradient of one example in f32 against loss
 * and central differences in double, tensor by tensor.
 *
 * Small encoders are checked in every parameter, the LRA encoder in samples of every tensor; with one and two inputs,
 * with and without dropout. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/rng.h"
#include "kernels/methods/dense.h"
#include "models/train.h"
#include "tests/support/encoder_ref.h"

enum { MOST_TOKENS = 64, KEY = 99 };

/* The gradient of a parameter is a sum over rows, each term carrying the rounding of everything behind it and GELU's
 * 1.5e-7: relative to the size of the terms, for which the largest entry of the tensor stands, some tens of roundings
 * of u = 2^-24. 100 u leaves room for them and none for a wrong term. A tensor whose entries cancel (the key bias:
 * softmax does not see it) is measured by a hundredth of the largest entry of all. */
static const double BOUND = 100 * 0x1p-24;

typedef enum masking { NOTHING, SOME, FIRST_ALL /* all of the first input */ } masking;

typedef struct example {
  encoder m;
  encoder_ref ref;
  int32_t memory[2][MOST_TOKENS];
  int64_t n[2];
  int32_t label;
  float *g;
  double loss;
} example; /* ref points to m: not to be copied */

static void example_new(example *out, const encoder_config *c, int64_t n0, int64_t n1, double dropout, masking masked) {
  *out = (example){.n = {n0, n1}, .label = c->classes - 1};
  ice_err e = {0};
  assert_int_equal(encoder_create(&out->m, c, &e), ICE_OK);
  encoder_scramble(&out->m, 21);
  out->ref = encoder_ref_new(&out->m);
  for (int i = 0; i < 2; i++) {
    encoder_random_ids(out->memory[i], MOST_TOKENS, c->vocab, (uint64_t)(30 + i));
    if (masked) encoder_mask_ids(out->memory[i], MOST_TOKENS, masked == FIRST_ALL && i == 0, (uint64_t)(30 + i));
  }
  out->g = malloc((size_t)out->m.n_params * sizeof *out->g);
  assert_non_null(out->g);
  memset(out->g, 0xff, (size_t)out->m.n_params * sizeof *out->g);
  const int32_t *ids[2] = {out->memory[0], out->memory[1]};
  if (train_gradient(&out->m, &attn_method_dense, NULL, ids, out->n, out->label, dropout, KEY, out->g, &out->loss,
                     &e) != ICE_OK)
    fail_msg("%s", e.text);
}
static void example_free(example *x) {
  free(x->g);
  encoder_ref_free(&x->ref), encoder_destroy(&x->m);
}
static double slope(example *x, int64_t i, double dropout) {
  const int32_t *ids[2] = {x->memory[0], x->memory[1]};
  return encoder_ref_slope(&x->ref, i, ids, x->n, x->label, (float)dropout, KEY);
}

/* Compares `samples` elements of every tensor (all when it has no more). */
static void check(const encoder_config *c, int64_t n0, int64_t n1, double dropout, int64_t samples, masking masked) {
  example x;
  example_new(&x, c, n0, n1, dropout, masked);
  const int32_t *ids[2] = {x.memory[0], x.memory[1]};
  double *logits = malloc((size_t)c->classes * sizeof *logits);
  assert_non_null(logits);
  const double loss = encoder_ref_loss(&x.ref, ids, x.n, x.label, (float)dropout, KEY, logits);
  if (!(fabs(loss - x.loss) <= BOUND * (1.0 + fabs(loss)))) fail_msg("loss %.9g, expected %.9g", x.loss, loss);
  assert_true(x.ref.kink > 1e-4); /* no ReLU turns within the differences */
  double scale = 0.0;
  for (int64_t i = 0; i < x.m.n_params; i++) {
    assert_true(isfinite(x.g[i]));
    scale = fmax(scale, fabs((double)x.g[i]));
  }
  for (int t = 0; t < x.m.n_tensors; t++) {
    const encoder_tensor *e = x.m.tensor + t;
    const int64_t size = encoder_tensor_size(e);
    double most = 0.0;
    for (int64_t i = 0; i < size; i++) most = fmax(most, fabs((double)x.g[e->offset + i]));
    for (int64_t s = 0; s < size && s < samples; s++) {
      int64_t i = size <= samples ? s : (s * 104729 + 17) % size;
      if (size > samples && strstr(e->name, "embeddings")) /* mostly rows that the example has */
        i = (s % 8 ? strstr(e->name, "word") ? x.memory[0][s % n0] : s % n0 : s % e->shape[0]) * e->shape[1] +
            s % e->shape[1];
      const double want = slope(&x, e->offset + i, dropout), bound = BOUND * fmax(most, 1e-2 * scale) + 1e-9;
      if (!(fabs((double)x.g[e->offset + i] - want) <= bound))
        fail_msg("%s[%lld] = %.9g, slope %.9g, bound %.3g (inputs %d, dropout %g)", e->name, (long long)i,
                 (double)x.g[e->offset + i], want, bound, c->inputs, dropout);
    }
  }
  free(logits);
  example_free(&x);
}

static const encoder_config small = {.vocab = 7,
                                     .positions = 16,
                                     .width = 8,
                                     .layers = 1,
                                     .heads = 2,
                                     .mlp = 12,
                                     .head_hidden = 5,
                                     .classes = 3,
                                     .inputs = 1};
static const encoder_config two_layers = {.vocab = 9,
                                          .positions = 20,
                                          .width = 15,
                                          .layers = 2,
                                          .heads = 3,
                                          .mlp = 11,
                                          .head_hidden = 9,
                                          .classes = 4,
                                          .inputs = 1};

static void test_gradient__small_encoders__every_parameter_matches_its_slope(void **state) {
  (void)state;
  check(&small, 13, 0, 0.0, INT64_MAX, NOTHING);
  check(&small, 1, 0, 0.0, INT64_MAX, NOTHING);
  check(&two_layers, 20, 0, 0.0, INT64_MAX, NOTHING);
}
static void test_gradient__dropout__every_parameter_matches_its_slope(void **state) {
  (void)state;
  check(&small, 13, 0, 0.1, INT64_MAX, NOTHING);
  check(&small, 15, 0, 0.5, INT64_MAX, NOTHING);
  check(&two_layers, 18, 0, 0.3, INT64_MAX, NOTHING);
}
static void test_gradient__two_inputs__every_parameter_matches_its_slope(void **state) {
  (void)state;
  encoder_config dual = small, dual_two = two_layers;
  dual.inputs = dual_two.inputs = 2;
  check(&dual, 13, 5, 0.0, INT64_MAX, NOTHING);
  check(&dual, 5, 13, 0.2, INT64_MAX, NOTHING);
  check(&dual_two, 9, 20, 0.1, INT64_MAX, NOTHING);
}
static void test_gradient__lra_encoder__samples_of_every_tensor_match(void **state) {
  (void)state;
  const encoder_config single = encoder_lra_config(32, 2048, 10, 1), dual = encoder_lra_config(512, 64, 2, 2);
  check(&single, 30, 0, 0.1, 3, NOTHING);
  check(&dual, 20, 10, 0.0, 3, NOTHING);
}

static void test_gradient__shared_queries_and_keys__every_parameter_matches_its_slope(void **state) {
  (void)state;
  encoder_config shared = two_layers;
  shared.shared_qk = 1;
  check(&shared, 18, 0, 0.2, INT64_MAX, NOTHING);
}

static void test_gradient__masked_positions__every_parameter_matches_its_slope(void **state) {
  (void)state;
  encoder_config dual = small;
  dual.inputs = 2;
  check(&two_layers, 20, 0, 0.0, INT64_MAX, SOME);
  check(&small, 13, 0, 0.3, INT64_MAX, SOME);
  check(&dual, 13, 9, 0.2, INT64_MAX, SOME);
  check(&dual, 5, 13, 0.0, INT64_MAX, FIRST_ALL);
}

static void test_gradient__absent_ids_and_positions__zero(void **state) {
  (void)state;
  example x;
  example_new(&x, &two_layers, 6, 0, 0.1, NOTHING);
  const int64_t w = two_layers.width;
  for (int t = 0; t < x.m.n_tensors; t++) {
    const encoder_tensor *e = x.m.tensor + t;
    if (!strstr(e->name, "embeddings")) continue;
    for (int64_t row = 0; row < e->shape[0]; row++) {
      int used = strstr(e->name, "position") && row < 6;
      for (int i = 0; i < 6 && strstr(e->name, "word"); i++) used |= x.memory[0][i] == row;
      for (int64_t i = 0; i < w && !used; i++) assert_true(x.g[e->offset + row * w + i] == 0.0f);
    }
  }
  example_free(&x);
}

static void test_gradient__same_key__same_bits_and_other_key_other_loss(void **state) {
  (void)state;
  example x, y;
  example_new(&x, &two_layers, 17, 0, 0.3, NOTHING), example_new(&y, &two_layers, 17, 0, 0.3, NOTHING);
  assert_memory_equal(x.g, y.g, (size_t)x.m.n_params * sizeof *x.g);
  const int32_t *ids[2] = {x.memory[0], NULL};
  double loss;
  assert_int_equal(train_gradient(&x.m, &attn_method_dense, NULL, ids, x.n, x.label, 0.3, KEY + 1, y.g, &loss, NULL),
                   ICE_OK);
  assert_true(loss != x.loss);
  example_free(&x), example_free(&y);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gradient__small_encoders__every_parameter_matches_its_slope),
      cmocka_unit_test(test_gradient__dropout__every_parameter_matches_its_slope),
      cmocka_unit_test(test_gradient__two_inputs__every_parameter_matches_its_slope),
      cmocka_unit_test(test_gradient__lra_encoder__samples_of_every_tensor_match),
      cmocka_unit_test(test_gradient__shared_queries_and_keys__every_parameter_matches_its_slope),
      cmocka_unit_test(test_gradient__masked_positions__every_parameter_matches_its_slope),
      cmocka_unit_test(test_gradient__absent_ids_and_positions__zero),
      cmocka_unit_test(test_gradient__same_key__same_bits_and_other_key_other_loss),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
