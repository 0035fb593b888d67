/* test_llama_prime.c - what primed heads attend to before any training: so many tokens back, and what followed a token last time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/rng.h"
#include "kernels/methods/dense.h"
#include "models/llama_model.h"
#include "models/llama_prime.h"

enum { N = 160, PERIOD = 80, LAYERS = 3, HEADS = 4, D = 64 };
static const llama_config sizes = {.vocab = 500, .width = 256, .layers = LAYERS, .heads = HEADS, .kv_heads = HEADS, .head_dim = D, .mlp = 64, .context = 2048,
                                   .norm_eps = 1e-5f, .rope_base = 10000.0f, .rope_scale = 1.0f, .tied = 1};

static int layer;
static int favourite[LAYERS][HEADS][N]; /* the key each query scores highest, among those before it */
static double better[N];                /* share of the keys that head 0 of layer 2 scores below the one that is to be found */

static double score(attn_view q, attn_view k, int h, int i, int j) {
  double s = 0.0;
  for (int t = 0; t < D; t++) s += (double)q.p[h * q.sh + i * q.sn + t] * (double)k.p[h * k.sh + j * k.sn + t];
  return s;
}

static attn_status look(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v, const uint8_t *mask, float dropout,
                        uint64_t seed, attn_viewm o, void *saved, void *scratch) {
  for (int h = 0; h < HEADS; h++)
    for (int i = 1; i < N; i++) {
      double best = -1e30;
      for (int j = 0; j < i; j++) {
        const double s = score(q, k, h, i, j);
        if (s > best) best = s, favourite[layer][h][i] = j;
      }
    }
  for (int i = PERIOD; layer == LAYERS - 1 && i < N; i++) {
    const double right = score(q, k, 0, i, i - PERIOD + 1);
    int below = 0;
    for (int j = 0; j < i; j++) below += score(q, k, 0, i, j) < right;
    better[i] = (double)below / (double)i;
  }
  layer++;
  return attn_method_dense.training->forward(pb, params, q, k, v, mask, dropout, seed, o, saved, scratch);
}

static void run(const llama_config *c) {
  attn_method method = attn_method_dense;
  attn_training training = *attn_method_dense.training;
  llama_learner *l;
  ice_err e = {0};
  int32_t ids[N + 1];
  double loss;
  attn_rng r;
  training.forward = look;
  method.training = &training;
  if (llama_learner_create(&l, c, &method, NULL, 1, N, 1, &e) != ICE_OK) fail_msg("%s", e.text);
  llama_learner_init(l, 1);
  assert_int_equal(llama_learner_prime(l, &e), ICE_OK);
  attn_rng_seed(&r, 3, 0);
  for (int i = 0; i <= N; i++) ids[i] = i < PERIOD ? (int32_t)attn_rng_below(&r, 500) : ids[i - PERIOD];
  layer = 0;
  assert_int_equal(llama_gradient(l, ids, NULL, NULL, NULL, &loss, &e), ICE_OK);
  llama_learner_destroy(l);
}

static void check(const llama_config *c) {
  static const int back[2][HEADS] = {{1, 2, 3, 4}, {1, 4, 8, 0}};
  double mean = 0.0;
  run(c);
  for (int k = 0; k < 2; k++)
    for (int h = 0; h < HEADS; h++) {
      int hits = 0;
      for (int i = 8; i < N; i++) hits += i - favourite[k][h][i] == back[k][h];
      /* embeddings are of one length, what layer 1 sees only nearly so */
      if (back[k][h] && hits < (k == 0 ? N - 8 : (N - 8) * 2 / 3)) fail_msg("layer %d, head %d: %d of %d queries look %d back", k, h, hits, N - 8, back[k][h]);
    }
  for (int i = PERIOD; i < N; i++) mean += better[i] / (N - PERIOD);
  if (!(mean > 0.8)) fail_msg("what followed last time scores above %.2f of the keys", mean); /* 0.5 by chance */
}

static void test_prime__heads_look_back_and_up(void **state) {
  (void)state;
  llama_config c = sizes;
  check(&c);
  c.rope_adjacent = 1, c.rope_scale = 2.0f;
  check(&c);
  llama_learner *l;
  ice_err e = {0};
  c = sizes, c.layers = 2;
  assert_int_equal(llama_learner_create(&l, &c, &attn_method_dense, NULL, 1, N, 1, &e), ICE_OK);
  assert_int_equal(llama_learner_prime(l, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "allowed from 3 layers and 4 heads on"));
  llama_learner_destroy(l);
}

/* Sum of the diagonal of O V: what a layer adds of a row to that row's own dimensions. */
static double copied(llama_learner *l, int at) {
  const llama_layer *w = llama_learner_model(l)->layer + at;
  const float *o = (const float *)(const void *)w->o.data, *v = (const float *)(const void *)w->v.data;
  double sum = 0.0;
  for (int64_t t = 0; t < w->o.rows; t++)
    for (int64_t k = 0; k < w->o.cols; k++) sum += (double)o[t * w->o.cols + k] * (double)v[k * w->v.cols + t];
  return sum;
}

static void test_prime__later_layers_copy_what_they_find(void **state) {
  (void)state;
  llama_learner *l;
  ice_err e = {0};
  assert_int_equal(llama_learner_create(&l, &sizes, &attn_method_dense, NULL, 1, N, 1, &e), ICE_OK);
  llama_learner_init(l, 1);
  for (int at = 0; at < LAYERS; at++) assert_in_range((int64_t)(100 + copied(l, at)), 85, 115); /* nothing but chance */
  assert_int_equal(llama_learner_prime(l, &e), ICE_OK);
  for (int at = 0; at < LAYERS - 1; at++) assert_in_range((int64_t)(100 + copied(l, at)), 60, 140);
  assert_true(copied(l, LAYERS - 1) > 0.15 * (double)sizes.width);
  llama_learner_destroy(l);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_prime__heads_look_back_and_up), cmocka_unit_test(test_prime__later_layers_copy_what_they_find)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
