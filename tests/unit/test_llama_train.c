/* test_llama_train.c - training of Llama models: it learns, any number of threads and a stop on the way give the same bits, batches
 * are drawn as told. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/methods/dense.h"
#include "models/llama_train.h"
#include "tests/support/scratch.h"

enum { N = 12, STEPS = 40 };
static const llama_config tiny = {.vocab = 12, .width = 16, .layers = 1, .heads = 2, .kv_heads = 1, .head_dim = 8, .mlp = 24, .context = N,
                                  .norm_eps = 1e-5f, .rope_base = 100.0f, .rope_scale = 1.0f};

/* Two sources: counting up in a circle, and questions whose answer is their first token. */
static llama_corpus make_corpus(void) {
  llama_corpus c = {0};
  assert_int_equal(llama_corpus_source(&c, NULL, NULL, NULL), ICE_OK);
  int32_t *ids = malloc(100 * sizeof *ids);
  for (int i = 0; i < 100; i++) ids[i] = i % 10;
  assert_int_equal(llama_corpus_add(&c, ids, 100, 0, NULL), ICE_OK);
  assert_int_equal(llama_corpus_source(&c, NULL, NULL, NULL), ICE_OK);
  for (int k = 0; k < 5; k++) {
    ids = malloc(6 * sizeof *ids);
    for (int i = 0; i < 6; i++) ids[i] = i % 4 ? 10 : k;
    assert_int_equal(llama_corpus_add(&c, ids, 6, 4, NULL), ICE_OK);
  }
  return c;
}

static llama_train_config config_of(const llama_corpus *c, const char *state, const char *log) {
  return (llama_train_config){.corpus = c, .seed = 3, .batch = 4, .length = N, .reach = N, .steps = STEPS, .warmup = 4, .save_every = 1000, .lr = 2e-2, .decay = 0.01,
                              .clip = 1.0, .prompt_weight = 0.25, .pad = 11, .state = state, .log = log, .description = "test"};
}
static llama_learner *learner(int threads) {
  llama_learner *l;
  ice_err e = {0};
  if (llama_learner_create(&l, &tiny, &attn_method_dense, NULL, 4, N, threads, &e) != ICE_OK) fail_msg("%s", e.text);
  llama_learner_init(l, 1);
  return l;
}

typedef struct seen {
  double first, last;
  volatile sig_atomic_t stop;
  int64_t stop_at;
} seen;
static void look(void *ctx, const train_event *ev) {
  seen *s = ctx;
  if (ev->step == 10) s->first = ev->loss;
  s->last = ev->loss;
  if (ev->step == s->stop_at) s->stop = 1;
}

static void test_train__learns__and_the_bits_are_those_of_any_way_there(void **state) {
  (void)state;
  llama_corpus c = make_corpus();
  float *weights = NULL;
  for (int way = 0; way < 3; way++) { /* one thread; three threads; stopped after 20 steps and resumed */
    llama_learner *l = learner(way == 1 ? 3 : 1);
    const llama_train_config cfg = config_of(&c, scratch_path("state"), scratch_path("log"));
    seen s = {.stop_at = way == 2 ? 20 : -1};
    int stopped;
    ice_err e = {0};
    int rc = llama_train(l, &cfg, TRAIN_FORCE, &s.stop, &stopped, look, &s, &e);
    if (way == 2) {
      assert_int_equal(rc, ICE_INTERNAL);
      assert_true(stopped);
      llama_learner_destroy(l);
      l = learner(2);
      s = (seen){.stop_at = -1};
      assert_int_equal(llama_train(l, &cfg, TRAIN_NEW, NULL, &stopped, NULL, NULL, &e), ICE_USAGE); /* a state is there */
      rc = llama_train(l, &cfg, TRAIN_RESUME, NULL, &stopped, look, &s, &e);
    }
    if (rc != ICE_OK) fail_msg("%s", e.text);
    assert_false(stopped);
    const size_t bytes = (size_t)llama_learner_count(l) * sizeof(float);
    if (way == 0) {
      assert_true(s.first > 1.5 * s.last && s.last < 1.2);
      weights = malloc(bytes);
      memcpy(weights, llama_learner_weights(l), bytes);
    } else
      assert_memory_equal(weights, llama_learner_weights(l), bytes);
    llama_learner_destroy(l);
  }
  free(weights);
  llama_corpus_free(&c);
}

static void test_train__state_of_another_training__refused(void **state) {
  (void)state;
  llama_corpus c = make_corpus(), none = {0};
  llama_train_config cfg = config_of(&c, scratch_path("state"), scratch_path("log"));
  llama_learner *l = learner(1);
  ice_err e = {0};
  int stopped;
  cfg.steps = 5;
  assert_int_equal(llama_train(l, &cfg, TRAIN_NEW, NULL, &stopped, NULL, NULL, &e), ICE_OK);
  assert_int_equal(access(scratch_path("state"), F_OK), 0);
  cfg.description = "other";
  assert_int_equal(llama_train(l, &cfg, TRAIN_RESUME, NULL, &stopped, NULL, NULL, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "another training"));
  cfg.corpus = &none;
  assert_int_equal(llama_train(l, &cfg, TRAIN_FORCE, NULL, &stopped, NULL, NULL, &e), ICE_DATA);
  llama_learner_destroy(l);
  llama_corpus_free(&c);
}

static void test_draw__windows_answers_and_padding(void **state) {
  (void)state;
  llama_corpus c = make_corpus();
  int32_t ids[N + 1];
  float w[N];
  int texts = 0, answers = 0;
  for (int row = 0; row < 200; row++) {
    assert_int_equal(llama_corpus_draw(&c, 1, 7, row, N, 0.25f, 11, ids, w, NULL), ICE_OK);
    if (ids[N] != 11) { /* a window of the text */
      texts++;
      for (int i = 0; i < N; i++) assert_true(ids[i + 1] == (ids[i] + 1) % 10 && w[i] == 1.0f);
      continue;
    }
    answers++;
    for (int i = 0; i <= N; i++) assert_int_equal(ids[i], i > 5 ? 11 : i % 4 ? 10 : ids[0]);
    for (int i = 0; i < N; i++) assert_true(w[i] == (i + 1 > 5 ? 0.0f : i + 1 >= 4 ? 1.0f : 0.25f));
  }
  int32_t later[N + 1];
  int differ = 0;
  for (int row = 0; row < 10; row++) { /* another step, another batch */
    assert_int_equal(llama_corpus_draw(&c, 1, 7, row, N, 0.25f, 11, ids, w, NULL), ICE_OK);
    assert_int_equal(llama_corpus_draw(&c, 1, 8, row, N, 0.25f, 11, later, w, NULL), ICE_OK);
    differ += memcmp(ids, later, sizeof ids) != 0;
  }
  assert_true(differ >= 5);
  assert_true(texts > 70 && answers > 70); /* sources share alike, however many documents they have */
  llama_corpus_free(&c);
}

/* Documents of one to four numbers 5, the last of which counts; 6 ends them. */
static int make_fives(void *ctx, attn_rng *r, int32_t **ids, float **weight, int64_t *n, ice_err *e) {
  (void)e;
  ++*(int *)ctx;
  *n = 2 + (int64_t)attn_rng_below(r, 4);
  *ids = malloc((size_t)*n * sizeof **ids);
  *weight = malloc((size_t)*n * sizeof **weight);
  for (int64_t i = 0; i < *n; i++) (*ids)[i] = i + 1 < *n ? 5 : 6, (*weight)[i] = i + 1 < *n ? 0.0f : 1.0f;
  return ICE_OK;
}
static int make_nothing(void *ctx, attn_rng *r, int32_t **ids, float **weight, int64_t *n, ice_err *e) {
  (void)ctx, (void)r, (void)n;
  *ids = NULL, *weight = NULL;
  return ice_fail(e, ICE_DATA, "no paper");
}

static void test_draw__made_documents__fill_the_sequence(void **state) {
  (void)state;
  llama_corpus c = {0};
  int32_t ids[N + 1], again[N + 1];
  float w[N];
  int made = 0;
  ice_err e = {0};
  assert_int_equal(llama_corpus_source(&c, make_fives, &made, NULL), ICE_OK);
  for (int row = 0; row < 50; row++) {
    made = 0;
    assert_int_equal(llama_corpus_draw(&c, 1, 7, row, N, 0.25f, 11, ids, w, NULL), ICE_OK);
    int ends = 0;
    for (int i = 0; i <= N; i++) {
      assert_true(ids[i] == 5 || ids[i] == 6);
      ends += ids[i] == 6;
      if (i == 0) continue;
      const float want = ids[i] == 6 ? 1.0f : ids[i - 1] == 6 ? 0.0f : 0.25f; /* the first token of a document cannot be known */
      assert_true(w[i - 1] == want);
    }
    assert_true(made == ends || made == ends + 1);
    assert_int_equal(llama_corpus_draw(&c, 1, 7, row, N, 0.25f, 11, again, w, NULL), ICE_OK);
    assert_memory_equal(ids, again, sizeof ids);
  }
  c.source->make = make_nothing;
  assert_int_equal(llama_corpus_draw(&c, 1, 7, 0, N, 0.25f, 11, ids, w, &e), ICE_DATA);
  assert_string_equal(e.text, "no paper");
  llama_corpus_free(&c);
}

static void test_positions__spread_over_the_reach_in_few_jumps(void **state) {
  (void)state;
  enum { REACH = 1000 };
  int32_t position[N], again[N];
  int far = 0, gaps_seen[16] = {0};
  llama_positions_draw(1, 7, 0, N, N, position);
  for (int i = 0; i < N; i++) assert_int_equal(position[i], i);
  for (int row = 0; row < 300; row++) {
    llama_positions_draw(1, 7, row, N, REACH, position);
    int gaps = position[0] > 0;
    for (int i = 1; i < N; i++) {
      assert_true(position[i] > position[i - 1]);
      gaps += position[i] != position[i - 1] + 1;
    }
    assert_true(position[0] >= 0 && position[N - 1] < REACH && gaps <= 8);
    gaps_seen[gaps]++;
    far += position[N - 1] >= REACH / 2;
    llama_positions_draw(1, 7, row, N, REACH, again);
    assert_memory_equal(position, again, sizeof position);
  }
  assert_true(far > 100 && gaps_seen[1] > 10 && gaps_seen[2] > 10 && gaps_seen[5] > 10); /* short and long, few pieces and many */
}

static void test_rate__rises_then_falls_to_a_tenth(void **state) {
  (void)state;
  assert_true(fabs(llama_train_rate(0, 100, 10, 1.0) - 0.1) < 1e-12);
  assert_true(fabs(llama_train_rate(9, 100, 10, 1.0) - 1.0) < 1e-12);
  assert_true(fabs(llama_train_rate(10, 100, 10, 1.0) - 1.0) < 1e-12);
  assert_true(fabs(llama_train_rate(55, 100, 10, 1.0) - 0.55) < 1e-12);
  assert_true(fabs(llama_train_rate(100, 100, 10, 1.0) - 0.1) < 1e-12);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_train__learns__and_the_bits_are_those_of_any_way_there),
      TEST(test_train__state_of_another_training__refused),
      TEST(test_draw__windows_answers_and_padding),
      TEST(test_draw__made_documents__fill_the_sequence),
      TEST(test_positions__spread_over_the_reach_in_few_jumps),
      TEST(test_rate__rises_then_falls_to_a_tenth),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
