/* test_llama.c - the published answers of a trained model; a plain double-precision model as oracle for random ones; methods
 * in the slot, in prompts and in decoding; refusals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "models/llama_model.h"
#include "models/llama_run.h"
#include "models/tokenizer.h"
#include "tests/support/real.h"

static const llama_config tiny = {.vocab = 50, .width = 32, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 8, .mlp = 48, .context = 256,
                                  .norm_eps = 1e-5f, .rope_base = 10000.0f, .rope_scale = 1.0f, .rope_adjacent = 1};

static llama_slot slot_of(const char *method, const void *params) {
  return (llama_slot){.attention = {.method = registry_find(method, NULL), .params = params, .seed = 1, .threads = 2}};
}
static void *params_of(const char *method, const char *key, const char *value) {
  const attn_method *m = registry_find(method, NULL);
  void *p = registry_defaults(m);
  assert_int_equal(registry_param_set(m, registry_param(m, key, NULL), value, p, NULL), ICE_OK);
  return p;
}
static llama *random_model(const llama_config *c) {
  llama *m;
  ice_err e = {0};
  if (llama_random(&m, c, 7, &e) != ICE_OK) fail_msg("%s", e.text);
  return m;
}
static llama_run *run_of(const llama *m, const llama_slot *slot, int64_t capacity) {
  llama_run *r;
  ice_err e = {0};
  if (llama_run_create(&r, m, slot, capacity, &e) != ICE_OK) fail_msg("%s", e.text);
  return r;
}
static void prefill(llama_run *r, const int32_t *ids, int64_t n, float *logits) {
  ice_err e = {0};
  if (llama_prefill(r, ids, n, logits, NULL, NULL, NULL, &e) != ICE_OK) fail_msg("%s", e.text);
}
static void step(llama_run *r, int32_t id, float *logits) {
  ice_err e = {0};
  if (llama_step(r, id, logits, NULL, &e) != ICE_OK) fail_msg("%s", e.text);
}
static void draw_ids(int32_t *ids, int64_t n, int64_t vocab) {
  attn_rng rng;
  attn_rng_seed(&rng, 3, 0);
  for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)attn_rng_below(&rng, (uint64_t)vocab);
}
static double distance(const float *a, const float *b, int64_t n) {
  double most = 0.0;
  for (int64_t i = 0; i < n; i++) most = fmax(most, fabs((double)a[i] - (double)b[i]));
  return most;
}

/* --- a trained model ------------------------------------------------------------------------------------------------- */

static llama *stories(void) {
  llama *m;
  ice_err e = {0};
  if (llama_open(&m, real_file("llama/stories260K.f32.gguf"), &e) != ICE_OK) fail_msg("%s", e.text);
  return m;
}

static void test_stories__greedy__published_ids_and_text(void **state) {
  (void)state;
  enum { N = 256 };
  llama *m = stories();
  json_t *golden = json_load_file(real_file("llama/stories260K.greedy.json"), 0, NULL);
  const json_t *want = json_object_get(golden, "greedy_ids");
  assert_int_equal(json_array_size(want), N);
  const llama_slot slot = slot_of("dense", NULL);
  llama_run *r = run_of(m, &slot, N);
  const int32_t bos = 1;
  int32_t ids[N];
  int64_t n;
  uint64_t layer_ns[5] = {0};
  llama_cost cost = {.layer_ns = layer_ns};
  ice_err e = {0};
  assert_int_equal(llama_generate(r, &bos, 1, N, -1, ids, &n, &cost, &e), ICE_OK);
  assert_int_equal(n, N);
  for (int i = 0; i < N; i++) assert_int_equal(ids[i], json_integer_value(json_array_get(want, (size_t)i)));
  tokenizer *t;
  char *text;
  size_t bytes;
  assert_int_equal(tokenizer_open(&t, real_file("llama/stories260K.f32.gguf"), &e), ICE_OK);
  assert_int_equal(tokenizer_decode(t, ids, n, &text, &bytes, &e), ICE_OK);
  assert_string_equal(text, json_string_value(json_object_get(golden, "text")) + 1); /* which keeps the space in front */
  assert_int_equal(cost.prompt_tokens, 1);
  assert_int_equal(cost.decode_tokens, N - 1);
  assert_true(cost.attention_ns > 0 && cost.attention_ns < cost.model_ns && cost.build_ns + cost.query_ns == cost.attention_ns);
  assert_true(cost.decode_attention_ns > 0 && cost.decode_attention_ns < cost.decode_ns && cost.peak_bytes > 0);
  uint64_t sum = 0;
  for (int l = 0; l < 5; l++) sum += layer_ns[l];
  assert_int_equal(sum, cost.attention_ns);
  free(text);
  tokenizer_close(t);
  json_decref(golden);
  llama_run_destroy(r);
  llama_close(m);
}

static void assert_logits(const json_t *golden, const char *position, const float *have) {
  const json_t *want = json_object_get(json_object_get(golden, "logits_after_position"), position);
  assert_int_equal(json_array_size(want), 512);
  for (size_t i = 0; i < 512; i++) {
    const double w = json_real_value(json_array_get(want, i));
    if (!(fabs(w - (double)have[i]) <= 1e-4)) fail_msg("position %s, logit %zu: %.6f, expected %.6f", position, i, (double)have[i], w);
  }
}

static void test_stories__logits__as_computed_in_double(void **state) {
  (void)state;
  llama *m = stories();
  json_t *golden = json_load_file(real_file("llama/stories260K.greedy.json"), 0, NULL);
  const llama_slot slot = slot_of("vanilla", NULL);
  llama_run *r = run_of(m, &slot, 200);
  int32_t ids[128] = {1};
  float logits[512];
  for (size_t i = 0; i < 127; i++) ids[i + 1] = (int32_t)json_integer_value(json_array_get(json_object_get(golden, "greedy_ids"), i));
  static const char *const position[] = {"0", "1", "31", "127"};
  int64_t held = 0;
  for (int p = 0; p < 4; p++) { /* as prompts, each a piece longer */
    const int64_t n = strtol(position[p], NULL, 10) + 1;
    prefill(r, ids + held, n - held, logits);
    held = n;
    assert_logits(golden, position[p], logits);
  }
  llama_run_reset(r);
  for (int64_t i = 0; i < 128; i++) { /* token by token */
    step(r, ids[i], logits);
    for (int p = 0; p < 4; p++)
      if (i == strtol(position[p], NULL, 10)) assert_logits(golden, position[p], logits);
  }
  llama_run_reset(r);
  prefill(r, ids, 128, logits); /* at once */
  assert_logits(golden, "127", logits);
  json_decref(golden);
  llama_run_destroy(r);
  llama_close(m);
}

/* --- the oracle ------------------------------------------------------------------------------------------------------ */

/* y [rows] = W x in double. */
static void times(const matrix *w, const double *x, double *y) {
  float *row = malloc((size_t)w->cols * sizeof *row);
  assert_non_null(row);
  for (int64_t i = 0; i < w->rows; i++) {
    matrix_expand(w, i, 1, row);
    y[i] = 0.0;
    for (int64_t t = 0; t < w->cols; t++) y[i] += (double)row[t] * x[t];
  }
  free(row);
}
static void rms(const llama_config *c, const matrix *g, const double *x, double *y) {
  float row[512];
  double sum = 0.0;
  matrix_expand(g, 0, 1, row);
  for (int64_t t = 0; t < c->width; t++) sum += x[t] * x[t];
  for (int64_t t = 0; t < c->width; t++) y[t] = x[t] / sqrt(sum / (double)c->width + (double)c->norm_eps) * (double)row[t];
}
static void rope(const llama_config *c, int64_t pos, int64_t heads, double *x) {
  for (int64_t h = 0; h < heads; h++)
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
      double *p = x + h * c->head_dim, angle = (double)pos / (double)c->rope_scale * pow((double)c->rope_base, -2.0 * (double)i / (double)c->head_dim);
      double *a = c->rope_adjacent ? p + 2 * i : p + i, *b = c->rope_adjacent ? p + 2 * i + 1 : p + i + c->head_dim / 2, u = *a;
      *a = u * cos(angle) - *b * sin(angle);
      *b = *b * cos(angle) + u * sin(angle);
    }
}
/* Logits behind the last of n ids: everything in double, nothing cached, no blocks. */
static void oracle(const llama *m, const int32_t *ids, int64_t n, double *logits) {
  const llama_config *c = &m->cfg;
  const int64_t w = c->width, d = c->head_dim, group = c->heads / c->kv_heads;
  double *x = calloc((size_t)(n * w), sizeof *x), *k = calloc((size_t)(n * c->kv_heads * d), sizeof *k), *v = calloc((size_t)(n * c->kv_heads * d), sizeof *v);
  double a[512], q[512], o[512], y[512], up[512], *s = calloc((size_t)n, sizeof *s);
  float row[512];
  assert_true(x && k && v && s);
  for (int64_t i = 0; i < n; i++) {
    matrix_expand(&m->embed, ids[i], 1, row);
    for (int64_t t = 0; t < w; t++) x[i * w + t] = (double)row[t];
  }
  for (int64_t l = 0; l < c->layers; l++) {
    const llama_layer *y_ = m->layer + l;
    for (int64_t i = 0; i < n; i++) {
      rms(c, &y_->attn_norm, x + i * w, a);
      times(&y_->k, a, k + i * c->kv_heads * d);
      times(&y_->v, a, v + i * c->kv_heads * d);
      rope(c, i, c->kv_heads, k + i * c->kv_heads * d);
    }
    for (int64_t i = 0; i < n; i++) {
      rms(c, &y_->attn_norm, x + i * w, a);
      times(&y_->q, a, q);
      rope(c, i, c->heads, q);
      for (int64_t h = 0; h < c->heads; h++) {
        double sum = 0.0;
        for (int64_t t = 0; t < d; t++) o[h * d + t] = 0.0;
        for (int64_t j = 0; j <= i; j++) {
          s[j] = 0.0;
          for (int64_t t = 0; t < d; t++) s[j] += q[h * d + t] * k[(j * c->kv_heads + h / group) * d + t];
          sum += s[j] = exp(s[j] / sqrt((double)d));
        }
        for (int64_t j = 0; j <= i; j++)
          for (int64_t t = 0; t < d; t++) o[h * d + t] += s[j] / sum * v[(j * c->kv_heads + h / group) * d + t];
      }
      times(&y_->o, o, y);
      for (int64_t t = 0; t < w; t++) x[i * w + t] += y[t];
      rms(c, &y_->mlp_norm, x + i * w, a);
      times(&y_->gate, a, y);
      times(&y_->up, a, up);
      for (int64_t t = 0; t < c->mlp; t++) up[t] *= y[t] / (1.0 + exp(-y[t]));
      times(&y_->down, up, y);
      for (int64_t t = 0; t < w; t++) x[i * w + t] += y[t];
    }
  }
  rms(c, &m->norm, x + (n - 1) * w, a);
  times(&m->head, a, logits);
  free(x), free(k), free(v), free(s);
}

static void compare_with_oracle(const llama_config *c) {
  enum { N = 70 };
  llama *m = random_model(c);
  const llama_slot slot = slot_of("dense", NULL);
  llama_run *r = run_of(m, &slot, N);
  int32_t ids[N];
  float logits[64], want_f[64];
  double want[64];
  draw_ids(ids, N, c->vocab);
  oracle(m, ids, N, want);
  for (int64_t i = 0; i < c->vocab; i++) want_f[i] = (float)want[i];
  prefill(r, ids, N, logits);
  assert_true(distance(logits, want_f, c->vocab) < 2e-5);
  llama_run_reset(r); /* a prompt in three pieces, then single tokens */
  prefill(r, ids, 40, logits);
  prefill(r, ids + 40, 1, logits);
  prefill(r, ids + 41, 22, logits);
  for (int i = 63; i < N; i++) step(r, ids[i], logits);
  assert_true(distance(logits, want_f, c->vocab) < 2e-5);
  llama_run_destroy(r);
  llama_close(m);
}

static void test_random__all_conventions__as_the_plain_model(void **state) {
  (void)state;
  compare_with_oracle(&tiny);
  llama_config c = tiny;
  c.rope_adjacent = 0, c.tied = 1, c.rope_scale = 4.0f, c.rope_base = 500.0f;
  compare_with_oracle(&c);
  c = tiny;
  c.head_dim = 12, c.heads = c.kv_heads = 3, c.width = 40, c.mlp = 20, c.layers = 1; /* heads are not the width; a narrow MLP */
  compare_with_oracle(&c);
}

static void test_random__long_prompt__chunks_of_rows_agree(void **state) {
  (void)state;
  enum { N = LLAMA_ROWS + 300 };
  llama_config c = tiny;
  c.context = N;
  llama *m = random_model(&c);
  const llama_slot slot = slot_of("dense", NULL);
  llama_run *r = run_of(m, &slot, N);
  int32_t *ids = malloc(N * sizeof *ids);
  float whole[50], parts[50];
  assert_non_null(ids);
  draw_ids(ids, N, c.vocab);
  prefill(r, ids, N, whole);
  llama_run_reset(r);
  for (int i = 0; i < N; i += 331) prefill(r, ids + i, N - i < 331 ? N - i : 331, parts);
  assert_true(distance(whole, parts, c.vocab) < 2e-5);
  free(ids);
  llama_run_destroy(r);
  llama_close(m);
}

static void test_random__threads__same_bits(void **state) {
  (void)state;
  llama *m = random_model(&tiny);
  int32_t ids[100];
  float logits[3][50];
  draw_ids(ids, 100, tiny.vocab);
  for (int t = 0; t < 3; t++) {
    llama_slot slot = slot_of("dense", NULL);
    slot.attention.threads = 2 * t + 1;
    llama_run *r = run_of(m, &slot, 128);
    prefill(r, ids, 99, logits[t]);
    step(r, ids[99], logits[t]);
    llama_run_destroy(r);
  }
  assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
  assert_memory_equal(logits[0], logits[2], sizeof logits[0]);
  llama_close(m);
}

/* --- methods in the slot --------------------------------------------------------------------------------------------- */

/* Logits behind a prompt of 100 tokens and 60 steps. */
static void answer(const llama *m, const llama_slot *slot, float *prompt, float *last) {
  int32_t ids[160];
  draw_ids(ids, 160, m->cfg.vocab);
  llama_run *r = run_of(m, slot, 200);
  prefill(r, ids, 100, prompt);
  for (int i = 100; i < 160; i++) step(r, ids[i], last);
  llama_run_destroy(r);
}

static void test_slot__full_budget__exact_in_prompt_and_decoding(void **state) {
  (void)state;
  llama *m = random_model(&tiny);
  float prompt[4][50], last[4][50];
  const llama_slot dense = slot_of("dense", NULL);
  answer(m, &dense, prompt[0], last[0]);
  void *k = params_of("topk", "k", "4096"), *ice = params_of("iceformer", "k", "4096");
  const llama_slot topk = slot_of("topk", k), iceformer = slot_of("iceformer", ice);
  answer(m, &topk, prompt[1], last[1]); /* has no append: decodes from the cache */
  answer(m, &iceformer, prompt[2], last[2]);
  for (int i = 1; i < 3; i++) assert_true(distance(prompt[0], prompt[i], 50) < 2e-5 && distance(last[0], last[i], 50) < 2e-5);
  attn_free(k), attn_free(ice);
  llama_close(m);
}

/* Steps between two parts of a prompt: the index of the first steps has yet to hear of the second part. */
static void test_slot__prompt_behind_steps__as_exact(void **state) {
  (void)state;
  llama *m = random_model(&tiny);
  void *ice = params_of("iceformer", "k", "4096");
  const llama_slot slot[] = {slot_of("dense", NULL), slot_of("iceformer", ice)};
  int32_t ids[90];
  float last[2][50];
  draw_ids(ids, 90, m->cfg.vocab);
  for (int s = 0; s < 2; s++) {
    llama_run *r = run_of(m, slot + s, 100);
    prefill(r, ids, 40, NULL);
    for (int i = 40; i < 50; i++) step(r, ids[i], NULL);
    prefill(r, ids + 50, 30, NULL);
    for (int i = 80; i < 90; i++) step(r, ids[i], last[s]);
    llama_run_destroy(r);
  }
  assert_true(distance(last[0], last[1], 50) < 2e-5);
  attn_free(ice);
  llama_close(m);
}

static void test_slot__small_budget__decodes_with_the_method_unless_told_otherwise(void **state) {
  (void)state;
  llama *m = random_model(&tiny);
  void *ice = params_of("iceformer", "k", "2");
  float prompt[3][50], last[3][50];
  const llama_slot dense = slot_of("dense", NULL);
  llama_slot slot = slot_of("iceformer", ice);
  answer(m, &dense, prompt[0], last[0]);
  answer(m, &slot, prompt[1], last[1]);
  slot.decode_dense = 1;
  answer(m, &slot, prompt[2], last[2]);
  assert_true(distance(prompt[0], prompt[1], 50) > 1e-3);
  assert_memory_equal(prompt[1], prompt[2], sizeof prompt[1]);
  assert_true(distance(last[1], last[2], 50) > 1e-4);
  attn_free(ice);
  llama_close(m);
}

typedef struct watch {
  int calls;
  int64_t n, layers;
} watch;
static void look(void *ctx, const encoder_call *call) {
  watch *w = ctx;
  w->calls++;
  w->n = call->problem.nk;
  assert_int_equal(call->layer, w->calls - 1);
  assert_true(call->problem.causal && call->problem.h == 4 && call->problem.hkv == 2);
  for (int64_t t = 0; t < call->problem.d; t++) assert_true(isfinite(call->q.p[t] + call->k.p[t] + call->v.p[t] + call->out.p[t]));
}

static void test_slot__dense_below_and_dense_layers__take_the_place_of_the_method(void **state) {
  (void)state;
  llama *m = random_model(&tiny);
  void *k = params_of("topk", "k", "1");
  float logits[5][50];
  int32_t ids[100];
  const uint8_t first[] = {1, 0}, both[] = {1, 1};
  draw_ids(ids, 100, tiny.vocab);
  llama_slot slot[5] = {slot_of("dense", NULL), slot_of("topk", k), slot_of("topk", k), slot_of("topk", k), slot_of("topk", k)};
  slot[2].dense_layer = first;
  slot[3].dense_layer = both;
  slot[4].dense_below = 101;
  for (int i = 0; i < 5; i++) {
    llama_run *r = run_of(m, slot + i, 128);
    watch w = {0};
    ice_err e = {0};
    llama_cost cost = {0};
    assert_int_equal(llama_prefill(r, ids, 100, logits[i], &cost, look, &w, &e), ICE_OK);
    assert_int_equal(w.calls, 2);
    assert_int_equal(w.n, 100);
    if (i == 0) assert_int_equal(cost.pairs, 2 * 4 * 100 * 101 / 2);
    llama_run_destroy(r);
  }
  assert_memory_equal(logits[0], logits[3], sizeof logits[0]);
  assert_memory_equal(logits[0], logits[4], sizeof logits[0]);
  assert_true(distance(logits[0], logits[1], 50) > 1e-3 && distance(logits[0], logits[2], 50) > 1e-3 && distance(logits[1], logits[2], 50) > 1e-3);
  slot[4].dense_below = 100; /* 100 tokens are not fewer */
  llama_run *r = run_of(m, slot + 4, 128);
  prefill(r, ids, 100, logits[0]);
  assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
  llama_run_destroy(r);
  attn_free(k);
  llama_close(m);
}

static void test_rope_scale__positions_divided__same_as_in_the_configuration(void **state) {
  (void)state;
  llama_config c = tiny;
  c.rope_scale = 4.0f;
  llama *scaled = random_model(&c), *set = random_model(&tiny);
  float a[50], b[50];
  int32_t ids[40];
  ice_err e = {0};
  draw_ids(ids, 40, c.vocab);
  assert_int_equal(llama_set_rope_scale(set, 0.5f, &e), ICE_USAGE);
  assert_int_equal(llama_set_rope_scale(set, 4.0f, &e), ICE_OK);
  assert_int_equal(llama_config_of(set)->context, 4 * tiny.context);
  const llama_slot slot = slot_of("dense", NULL);
  llama_run *r = run_of(scaled, &slot, 40), *s = run_of(set, &slot, 40);
  prefill(r, ids, 40, a);
  prefill(s, ids, 40, b);
  assert_memory_equal(a, b, sizeof a);
  llama_run_destroy(r);
  llama_run_destroy(s);
  llama_close(scaled);
  llama_close(set);
}

/* --- refusals -------------------------------------------------------------------------------------------------------- */

static void test_run__what_does_not_fit__refused(void **state) {
  (void)state;
  llama *m = random_model(&tiny);
  llama_run *r;
  ice_err e = {0};
  int32_t ids[300] = {0}, out[8];
  int64_t n;
  llama_slot slot = slot_of("dense", NULL);
  assert_int_equal(llama_run_create(&r, m, &slot, 257, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "1..256"));
  slot.attention.threads = 0;
  assert_int_equal(llama_run_create(&r, m, &slot, 10, &e), ICE_USAGE);
  slot = slot_of("nystromformer", NULL);
  void *params = registry_defaults(slot.attention.method);
  slot.attention.params = params;
  assert_int_equal(llama_run_create(&r, m, &slot, 10, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "nystromformer"));
  attn_free(params);
  slot = slot_of("dense", NULL);
  r = run_of(m, &slot, 10);
  assert_int_equal(llama_prefill(r, ids, 11, NULL, NULL, NULL, NULL, &e), ICE_DATA);
  assert_int_equal(llama_prefill(r, ids, 0, NULL, NULL, NULL, NULL, &e), ICE_DATA);
  ids[3] = 50;
  assert_int_equal(llama_prefill(r, ids, 5, NULL, NULL, NULL, NULL, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "id 50, allowed 0..49"));
  ids[3] = -1;
  assert_int_equal(llama_prefill(r, ids, 5, NULL, NULL, NULL, NULL, &e), ICE_DATA);
  ids[3] = 0;
  assert_int_equal(llama_generate(r, ids, 5, 7, -1, out, &n, NULL, &e), ICE_DATA);
  assert_int_equal(llama_generate(r, ids, 5, 6, -1, out, &n, NULL, &e), ICE_OK);
  assert_int_equal(n, 6);
  assert_int_equal(llama_step(r, 0, NULL, NULL, &e), ICE_DATA); /* full */
  const int32_t stop = out[0];
  assert_int_equal(llama_generate(r, ids, 5, 6, stop, out, &n, NULL, &e), ICE_OK);
  assert_int_equal(n, 1);
  llama_run_destroy(r);
  llama_close(m);
}

static void test_run__weights_that_are_no_numbers__data_error(void **state) {
  (void)state;
  llama *m = random_model(&tiny);
  const float nan[1024] = {[7] = NAN};
  const llama_slot slot = slot_of("dense", NULL);
  const int32_t id = 1;
  ice_err e = {0};
  assert_in_range(tiny.width, 8, 1024);
  m->norm = (matrix){MATRIX_F32, 1, tiny.width, (const uint8_t *)nan};
  llama_run *r = run_of(m, &slot, 4);
  assert_int_equal(llama_prefill(r, &id, 1, NULL, NULL, NULL, NULL, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "weights are damaged"));
  llama_run_destroy(r);
  llama_close(m);
}

static void test_random__impossible_sizes__refused(void **state) {
  (void)state;
  llama *m;
  ice_err e = {0};
  llama_config c = tiny;
  c.kv_heads = 3;
  assert_int_equal(llama_random(&m, &c, 1, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "4 heads are no multiple of 3"));
  c = tiny, c.head_dim = 7;
  assert_int_equal(llama_random(&m, &c, 1, &e), ICE_USAGE);
  c = tiny, c.layers = 0;
  assert_int_equal(llama_random(&m, &c, 1, &e), ICE_USAGE);
  c = tiny, c.rope_scale = 0.0f;
  assert_int_equal(llama_random(&m, &c, 1, &e), ICE_USAGE);
}

static void test_memory__every_failure__is_reported_and_nothing_leaks(void **state) {
  (void)state;
  llama *m = random_model(&tiny);
  void *ice = params_of("iceformer", "k", "4");
  const llama_slot slot = slot_of("iceformer", ice);
  const int32_t ids[20] = {0};
  const size_t live = attn_alloc_counters().live_bytes;
  int finished = 0;
  for (uint64_t at = 1; !finished && at < 2000; at++) {
    llama_run *r = NULL;
    ice_err e = {0};
    attn_alloc_fail_at(at);
    int rc = llama_run_create(&r, m, &slot, 32, &e);
    if (rc == ICE_OK) rc = llama_prefill(r, ids, 20, NULL, NULL, NULL, NULL, &e);
    if (rc == ICE_OK) rc = llama_step(r, 1, NULL, NULL, &e);
    if (rc == ICE_OK) rc = llama_step(r, 2, NULL, NULL, &e);
    finished = rc == ICE_OK;
    if (!finished) assert_int_equal(rc, ICE_INTERNAL);
    llama_run_destroy(r);
    attn_alloc_fail_at(0);
    assert_int_equal(attn_alloc_counters().live_bytes, live);
  }
  assert_true(finished);
  attn_free(ice);
  llama_close(m);
}

/* The proportions of a 7B model and 4,096 tokens, a 16th of both: what is not weights and cache has to stay below a tenth of them. */
static void test_memory__long_prompt__weights_cache_and_a_tenth(void **state) {
  (void)state;
  enum { N = 256 };
  llama_config c = tiny;
  c.vocab = 2000, c.layers = 32, c.width = 256, c.heads = c.kv_heads = 8, c.head_dim = 32, c.mlp = 688, c.context = N;
  int32_t ids[N];
  draw_ids(ids, N, c.vocab);
  const size_t before = attn_alloc_counters().live_bytes;
  llama *m = random_model(&c);
  const llama_slot slot = slot_of("dense", NULL);
  llama_run *r = run_of(m, &slot, N);
  prefill(r, ids, N - 1, NULL);
  const size_t held = attn_alloc_counters().live_bytes - before;
  step(r, ids[N - 1], NULL);
  const double cache = 2.0 * 4.0 * (double)(c.layers * c.kv_heads * c.head_dim) * N, least = cache + (double)llama_weight_bytes(m);
  assert_true((double)held >= least);
  if ((double)held > 1.1 * least) fail_msg("%zu bytes for %.0f of weights and cache", held, least);
  assert_true(fabs((double)llama_run_bytes(r) + (double)llama_weight_bytes(m) - (double)held) < 1e-3 * least); /* what is reported is what is held */
  assert_int_equal(attn_alloc_counters().live_bytes - before, held);  /* a token more needs nothing more */
  llama_run_destroy(r);
  llama_close(m);
  assert_int_equal(attn_alloc_counters().live_bytes, before);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_stories__greedy__published_ids_and_text),
      cmocka_unit_test(test_stories__logits__as_computed_in_double),
      cmocka_unit_test(test_random__all_conventions__as_the_plain_model),
      cmocka_unit_test(test_random__long_prompt__chunks_of_rows_agree),
      cmocka_unit_test(test_random__threads__same_bits),
      cmocka_unit_test(test_slot__full_budget__exact_in_prompt_and_decoding),
      cmocka_unit_test(test_slot__prompt_behind_steps__as_exact),
      cmocka_unit_test(test_slot__small_budget__decodes_with_the_method_unless_told_otherwise),
      cmocka_unit_test(test_slot__dense_below_and_dense_layers__take_the_place_of_the_method),
      cmocka_unit_test(test_rope_scale__positions_divided__same_as_in_the_configuration),
      cmocka_unit_test(test_run__what_does_not_fit__refused),
      cmocka_unit_test(test_run__weights_that_are_no_numbers__data_error),
      cmocka_unit_test(test_random__impossible_sizes__refused),
      cmocka_unit_test(test_memory__every_failure__is_reported_and_nothing_leaks),
      cmocka_unit_test(test_memory__long_prompt__weights_cache_and_a_tenth),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
