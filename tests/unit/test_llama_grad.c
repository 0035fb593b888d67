/* test_llama_grad.c - gradients of the Llama model against differences of its loss; its loss against the engine's logits; threads;
 * refusals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/rng.h"
#include "kernels/methods/dense.h"
#include "models/llama_grad.h"
#include "models/llama_model.h"

enum { BATCH = 2, N = 9 };
static const llama_config tiny = {.vocab = 20, .width = 16, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 6, .mlp = 24, .context = 64,
                                  .norm_eps = 1e-5f, .rope_base = 100.0f, .rope_scale = 2.0f};

static llama_learner *learner(const llama_config *c, int threads) {
  llama_learner *l;
  ice_err e = {0};
  if (llama_learner_create(&l, c, &attn_method_dense, NULL, BATCH, N, threads, &e) != ICE_OK) fail_msg("%s", e.text);
  llama_learner_init(l, 5);
  float *w = llama_learner_weights(l);
  attn_rng r;
  attn_rng_seed(&r, 5, 1);
  for (int64_t i = 0; i < llama_learner_count(l); i++) /* far from linear */
    w[i] = w[i] == 1.0f ? 0.8f + 0.01f * (float)(i % 37) : 0.24f * (float)attn_rng_normal(&r);
  return l;
}
static void draw(int32_t *ids, float *weight) {
  attn_rng r;
  attn_rng_seed(&r, 9, 0);
  for (int i = 0; i < BATCH * (N + 1); i++) ids[i] = (int32_t)attn_rng_below(&r, 20);
  for (int i = 0; i < BATCH * N; i++) weight[i] = i % 3 ? (float)(i % 5) : 0.0f;
}
static double loss_at(llama_learner *l, const int32_t *ids, const int32_t *position, const float *weight) {
  double loss;
  ice_err e = {0};
  if (llama_gradient(l, ids, position, weight, NULL, &loss, &e) != ICE_OK) fail_msg("%s", e.text);
  return loss;
}
static double loss_of(llama_learner *l, const int32_t *ids, const float *weight) { return loss_at(l, ids, NULL, weight); }

static void check_gradient(const llama_config *c) {
  llama_learner *l = learner(c, 2);
  int32_t ids[BATCH * (N + 1)];
  float weight[BATCH * N], *w = llama_learner_weights(l);
  draw(ids, weight);
  const int64_t count = llama_learner_count(l);
  float *g = malloc((size_t)count * sizeof *g);
  double loss;
  ice_err e = {0};
  assert_non_null(g);
  assert_int_equal(llama_gradient(l, ids, NULL, weight, g, &loss, &e), ICE_OK);
  assert_true(fabs(loss - loss_of(l, ids, weight)) < 1e-6);
  /* each tensor: along its own gradient the loss rises by |g|^2 h; some numbers one by one */
  const int n = llama_parts(llama_learner_model(l), NULL);
  llama_part *p = malloc((size_t)n * sizeof *p);
  assert_non_null(p);
  (void)llama_parts(llama_learner_model(l), p);
  int64_t at = 0;
  for (int i = 0; i < n; at += p[i].rows * p[i].cols, i++) {
    const int64_t size = p[i].rows * p[i].cols;
    double norm = 0.0;
    for (int64_t k = at; k < at + size; k++) norm += (double)g[k] * (double)g[k];
    norm = sqrt(norm);
    assert_true(norm > 1e-5); /* every tensor matters */
    float *old = malloc((size_t)size * sizeof *old);
    assert_non_null(old);
    memcpy(old, w + at, (size_t)size * sizeof *old);
    const double h = 3e-3;
    double side[2];
    for (int s = 0; s < 2; s++) {
      for (int64_t k = 0; k < size; k++) w[at + k] = old[k] + (float)((s ? -h : h) * (double)g[at + k] / norm);
      side[s] = loss_of(l, ids, weight);
    }
    memcpy(w + at, old, (size_t)size * sizeof *old);
    const double have = (side[0] - side[1]) / (2.0 * h);
    if (!(fabs(have - norm) < 0.01 * norm + 2e-4)) fail_msg("%s: %g along the gradient, expected %g", p[i].hf, have, norm);
    for (int64_t k = at; k < at + size; k += size / 3 + 1) {
      const float keep = w[k];
      w[k] = keep + 1e-2f;
      const double up = loss_of(l, ids, weight);
      w[k] = keep - 1e-2f;
      const double down = loss_of(l, ids, weight), slope = (up - down) / 2e-2;
      w[k] = keep;
      if (!(fabs(slope - (double)g[k]) < 0.03 * fabs(slope) + 2e-3)) fail_msg("%s, number %lld: slope %g, gradient %g", p[i].hf, (long long)(k - at), slope, (double)g[k]);
    }
    free(old);
  }
  assert_int_equal(at, count);
  free(p);
  free(g);
  llama_learner_destroy(l);
}

static void test_gradient__all_tensors__as_differences_of_the_loss(void **state) {
  (void)state;
  llama_config c = tiny;
  check_gradient(&c);
  c.tied = 1, c.rope_adjacent = 1, c.kv_heads = 4, c.rope_scale = 1.0f;
  check_gradient(&c);
}

static void test_loss__weighted_cross_entropy__of_the_engine_s_logits(void **state) {
  (void)state;
  llama_learner *l = learner(&tiny, 1);
  int32_t ids[BATCH * (N + 1)];
  float weight[BATCH * N], logits[20];
  draw(ids, weight);
  const llama_slot slot = {.attention = {.method = &attn_method_dense, .threads = 1}};
  llama_run *r;
  ice_err e = {0};
  double want = 0.0, total = 0.0;
  if (llama_run_create(&r, llama_learner_model(l), &slot, N, &e) != ICE_OK) fail_msg("%s", e.text);
  for (int b = 0; b < BATCH; b++) {
    llama_run_reset(r);
    for (int i = 0; i < N; i++) {
      double sum = 0.0;
      assert_int_equal(llama_step(r, ids[b * (N + 1) + i], logits, NULL, &e), ICE_OK);
      for (int t = 0; t < 20; t++) sum += exp((double)logits[t]);
      want += (double)weight[b * N + i] * (log(sum) - (double)logits[ids[b * (N + 1) + i + 1]]);
      total += (double)weight[b * N + i];
    }
  }
  assert_true(fabs(loss_of(l, ids, weight) - want / total) < 1e-5);
  llama_run_destroy(r);
  llama_learner_destroy(l);
}

/* Rotary embeddings know distances alone: the same loss wherever a sequence lies, another when it has gaps. */
static void test_loss__positions__only_distances_count(void **state) {
  (void)state;
  llama_learner *l = learner(&tiny, 2);
  int32_t ids[BATCH * (N + 1)], position[BATCH * N];
  float weight[BATCH * N];
  ice_err e = {0};
  double loss;
  draw(ids, weight);
  const double want = loss_of(l, ids, weight);
  for (int i = 0; i < BATCH * N; i++) position[i] = i % N;
  assert_true(loss_at(l, ids, position, weight) == want);
  for (int i = 0; i < BATCH * N; i++) position[i] = i % N + 11;
  assert_true(fabs(loss_at(l, ids, position, weight) - want) < 1e-5);
  for (int i = 0; i < BATCH * N; i++) position[i] = i % N + (i % N > 2 ? 9 : 0);
  assert_true(fabs(loss_at(l, ids, position, weight) - want) > 1e-3);
  position[1] = (int32_t)tiny.context;
  assert_int_equal(llama_gradient(l, ids, position, weight, NULL, &loss, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "token 1 of the batch has position 64, allowed 0..63"));
  llama_learner_destroy(l);
}

static void test_gradient__threads__same_bits(void **state) {
  (void)state;
  int32_t ids[BATCH * (N + 1)];
  float weight[BATCH * N], *g[2];
  double loss[2];
  ice_err e = {0};
  draw(ids, weight);
  for (int t = 0; t < 2; t++) {
    llama_learner *l = learner(&tiny, t ? 3 : 1);
    g[t] = malloc((size_t)llama_learner_count(l) * sizeof *g[t]);
    assert_non_null(g[t]);
    assert_int_equal(llama_gradient(l, ids, NULL, NULL, g[t], loss + t, &e), ICE_OK);
    if (t) assert_memory_equal(g[0], g[1], (size_t)llama_learner_count(l) * sizeof *g[0]);
    llama_learner_destroy(l);
  }
  assert_memory_equal(loss, loss + 1, sizeof *loss);
  free(g[0]);
  free(g[1]);
}

static void test_take__other_order_of_rows__same_loss(void **state) {
  (void)state;
  llama_config c = tiny;
  llama_learner *hf = learner(&tiny, 1), *gguf, *back = learner(&tiny, 1);
  c.rope_adjacent = 1;
  gguf = learner(&c, 1);
  int32_t ids[BATCH * (N + 1)];
  float weight[BATCH * N];
  ice_err e = {0};
  draw(ids, weight);
  const double want = loss_of(hf, ids, weight);
  assert_true(fabs(want - loss_of(gguf, ids, weight)) > 1e-3); /* the same numbers in another order: another model */
  assert_int_equal(llama_learner_take(gguf, llama_learner_model(hf), &e), ICE_OK);
  assert_true(fabs(want - loss_of(gguf, ids, weight)) < 1e-6);
  assert_int_equal(llama_learner_take(back, llama_learner_model(gguf), &e), ICE_OK);
  assert_memory_equal(llama_learner_weights(hf), llama_learner_weights(back), (size_t)llama_learner_count(hf) * sizeof(float));
  c.mlp = 32;
  llama_learner *other = learner(&c, 1);
  assert_int_equal(llama_learner_take(other, llama_learner_model(hf), &e), ICE_USAGE);
  llama_learner_destroy(hf), llama_learner_destroy(gguf), llama_learner_destroy(back), llama_learner_destroy(other);
}

static void test_gradient__bad_batches__refused(void **state) {
  (void)state;
  llama_learner *l = learner(&tiny, 1), *none;
  int32_t ids[BATCH * (N + 1)];
  float weight[BATCH * N], zero[BATCH * N] = {0};
  double loss;
  ice_err e = {0};
  draw(ids, weight);
  ids[3] = 20;
  assert_int_equal(llama_gradient(l, ids, NULL, weight, NULL, &loss, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "id 20, allowed 0..19"));
  ids[3] = 0;
  assert_int_equal(llama_gradient(l, ids, NULL, zero, NULL, &loss, &e), ICE_DATA);
  weight[2] = -1.0f;
  assert_int_equal(llama_gradient(l, ids, NULL, weight, NULL, &loss, &e), ICE_DATA);
  assert_int_equal(llama_learner_create(&none, &tiny, &attn_method_dense, NULL, 1, 65, 1, &e), ICE_USAGE);
  llama_learner_destroy(l);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gradient__all_tensors__as_differences_of_the_loss),
      cmocka_unit_test(test_loss__weighted_cross_entropy__of_the_engine_s_logits),
      cmocka_unit_test(test_loss__positions__only_distances_count),
      cmocka_unit_test(test_gradient__threads__same_bits),
      cmocka_unit_test(test_take__other_order_of_rows__same_loss),
      cmocka_unit_test(test_gradient__bad_batches__refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
