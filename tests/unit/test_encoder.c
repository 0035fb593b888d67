/* test_encoder.c - the LRA encoder in inference: sizes, names, initialisation, agreement with the definition in double,
 * refusals, checkpoints. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "kernels/core/status.h"
#include "harness/registry/registry.h"
#include "kernels/methods/dense.h"
#include "tests/support/encoder_ref.h"

static encoder make(encoder_config c, uint64_t seed) {
  encoder m;
  ice_err e = {0};
  if (encoder_create(&m, &c, &e) != ICE_OK) fail_msg("%s", e.text);
  encoder_scramble(&m, seed);
  return m;
}
/* A slot with the method's default parameters, which live until the next call. */
static encoder_slot slot_of(const attn_method *method, int threads) {
  static int64_t params[64];
  assert_true(method->params_size <= sizeof params);
  attn_params_default(method, params);
  return (encoder_slot){.method = method, .params = params, .seed = 3, .threads = threads};
}

/* --- sizes, names, initialisation ----------------------------------------------------------------------------- */

static void test_create__every_lra_task__has_the_published_size(void **state) {
  (void)state;
  const struct {
    const char *task;
    int vocab, positions, classes, inputs;
    int64_t params;
  } row[] = {{"listops", 32, 2048, 10, 1, 209802},
             {"text", 512, 4096, 2, 1, 370562},
             {"retrieval", 512, 4096, 2, 2, 395138},
             {"image", 512, 1024, 10, 1, 174986},
             {"pathfinder", 512, 1024, 2, 1, 173954}};
  for (int i = 0; i < 5; i++) {
    const encoder_config c = encoder_lra_config(row[i].vocab, row[i].positions, row[i].classes, row[i].inputs);
    encoder m;
    assert_int_equal(encoder_create(&m, &c, NULL), ICE_OK);
    assert_int_equal(m.n_params, row[i].params);
    int64_t sum = 0;
    for (int t = 0; t < m.n_tensors; t++) {
      assert_int_equal(m.tensor[t].offset, sum); /* back to back */
      sum += m.tensor[t].shape[0] * (m.tensor[t].rank == 2 ? m.tensor[t].shape[1] : 1);
    }
    assert_int_equal(sum, m.n_params);
    encoder_destroy(&m);
  }
}

static void expect_tensor(const encoder *m, const char *name, int rank, int64_t rows, int64_t cols) {
  for (int i = 0; i < m->n_tensors; i++)
    if (strcmp(m->tensor[i].name, name) == 0) {
      assert_int_equal(m->tensor[i].rank, rank);
      assert_int_equal(m->tensor[i].shape[0], rows);
      if (rank == 2) assert_int_equal(m->tensor[i].shape[1], cols);
      return;
    }
  fail_msg("no tensor %s", name);
}
static void expect_pair(const encoder *m, const char *stem, int64_t out, int64_t in) {
  char name[128];
  (void)snprintf(name, sizeof name, "%s.weight", stem);
  expect_tensor(m, name, in ? 2 : 1, out, in);
  (void)snprintf(name, sizeof name, "%s.bias", stem);
  expect_tensor(m, name, 1, out, 0);
}

static void test_create__tensors__carry_the_checkpoint_names(void **state) {
  (void)state;
  encoder m = make(encoder_lra_config(512, 4096, 2, 2), 1);
  expect_tensor(&m, "model.embeddings.word_embeddings.weight", 2, 512, 64);
  expect_tensor(&m, "model.embeddings.position_embeddings.weight", 2, 4096, 64);
  for (int l = 0; l < 2; l++) {
    const struct {
      const char *stem;
      int64_t out, in;
    } row[] = {{"norm1", 64, 0},    {"norm2", 64, 0},   {"mha.W_q", 64, 64},     {"mha.W_k", 64, 64},
               {"mha.W_v", 64, 64}, {"mha.ff", 64, 64}, {"mlpblock.0", 128, 64}, {"mlpblock.3", 64, 128}};
    for (int i = 0; i < 8; i++) {
      char stem[96];
      (void)snprintf(stem, sizeof stem, "model.transformer_%d.%s", l, row[i].stem);
      expect_pair(&m, stem, row[i].out, row[i].in);
    }
  }
  expect_pair(&m, "model.norm", 64, 0);
  expect_pair(&m, "seq_classifer.mlpblock.0", 128, 256);
  expect_pair(&m, "seq_classifer.mlpblock.2", 2, 128);
  assert_int_equal(m.n_tensors, 2 + 2 * 16 + 2 + 4);
  encoder_destroy(&m);
}

static void test_create__contradictory_sizes__refused_with_value(void **state) {
  (void)state;
  const encoder_config fine = encoder_lra_config(32, 64, 10, 1);
  encoder_config bad[11];
  for (int i = 0; i < 11; i++) bad[i] = fine;
  bad[0].vocab = 0, bad[1].positions = -1, bad[2].width = 0, bad[3].layers = 9, bad[4].heads = 3, bad[5].mlp = 0;
  bad[6].head_hidden = 1 << 20, bad[7].classes = 0, bad[8].inputs = 3, bad[9].layers = 0, bad[10].inputs = 0;
  const char *const word[] = {"vocab = 0",       "positions = -1", "width = 0",  "layers = 9", "heads = 3", "mlp = 0",
                              "head_hidden = 1", "classes = 0",    "inputs = 3", "layers = 0", "inputs = 0"};
  for (int i = 0; i < 11; i++) {
    encoder m;
    ice_err e = {0};
    assert_int_equal(encoder_create(&m, &bad[i], &e), ICE_USAGE);
    if (!strstr(e.text, word[i])) fail_msg("\"%s\" lacks \"%s\"", e.text, word[i]);
    assert_null(m.params);
    encoder_destroy(&m); /* harmless */
  }
}

static void test_init__tensors__have_pytorch_distributions(void **state) {
  (void)state;
  encoder m;
  const encoder_config c = encoder_lra_config(512, 4096, 2, 2);
  assert_int_equal(encoder_create(&m, &c, NULL), ICE_OK);
  encoder_init(&m, 7);
  int64_t fan_in = 0;
  for (int i = 0; i < m.n_tensors; i++) {
    const encoder_tensor *t = m.tensor + i;
    const int64_t n = t->shape[0] * (t->rank == 2 ? t->shape[1] : 1);
    const float *p = m.params + t->offset;
    double sum = 0.0, square = 0.0, most = 0.0;
    for (int64_t j = 0; j < n; j++) sum += p[j], square += (double)p[j] * p[j], most = fmax(most, fabs((double)p[j]));
    const double mean = sum / (double)n, rms = sqrt(square / (double)n), off = 6.0 / sqrt((double)n);
    if (t->rank == 2) fan_in = t->shape[1];
    if (strstr(t->name, "embeddings")) {
      assert_true(fabs(mean) < 0.02 * off && fabs(rms / 0.02 - 1.0) < off);
    } else if (strstr(t->name, "norm")) {
      const float want = strstr(t->name, "bias") ? 0.0f : 1.0f;
      for (int64_t j = 0; j < n; j++) assert_true(p[j] == want);
    } else { /* uniform within 1/sqrt(fan in of the weight), biases too */
      const double bound = 1.0 / sqrt((double)fan_in);
      assert_true(most <= bound && most > bound * (1.0 - 8.0 / (double)(n + 8)));
      assert_true(fabs(mean) < bound * off && fabs(rms / bound - sqrt(1.0 / 3)) < off);
    }
  }
  encoder twin;
  assert_int_equal(encoder_create(&twin, &c, NULL), ICE_OK);
  encoder_init(&twin, 7);
  assert_memory_equal(twin.params, m.params, (size_t)m.n_params * sizeof(float));
  encoder_init(&twin, 8);
  assert_memory_not_equal(twin.params, m.params, (size_t)m.n_params * sizeof(float));
  encoder_destroy(&twin), encoder_destroy(&m);
}

/* --- forward -------------------------------------------------------------------------------------------------- */

/* An activation of unit size collects, per layer, the rounding of two normalisations, products of 64 and 128 terms, an
 * attention and a GELU (1.5e-7): about a hundred roundings of u = 2^-24, random in sign, so some ten u a layer; the
 * pooled mean and the head average them again. 100 u is far beyond that and far below any wrong term. */
static const double FORWARD_BOUND = 100 * 0x1p-24;

/* One example through every method of the table that promises exactness, against the definition. */
enum { UNTRAINED = 1, MASKED = 2, ALL_MASKED = 4 };
static void check_forward(const encoder_config *c, const int64_t *n, int how) {
  encoder m = make(*c, 11);
  if (how & UNTRAINED) encoder_init(&m, 11); /* small rows, where the eps of a normalisation counts */
  encoder_ref ref = encoder_ref_new(&m);
  int32_t memory[2][512];
  const int32_t *ids[2] = {memory[0], memory[1]};
  for (int i = 0; i < c->inputs; i++) {
    encoder_random_ids(memory[i], n[i], c->vocab, (uint64_t)(n[i] + i));
    if (how & (MASKED | ALL_MASKED)) encoder_mask_ids(memory[i], n[i], (how & ALL_MASKED) && i == 0, (uint64_t)n[i]);
  }
  double want[16], size = 1.0;
  (void)encoder_ref_loss(&ref, ids, n, 0, 0.0f, 0, want);
  for (int k = 0; k < c->classes; k++) size = fmax(size, fabs(want[k]));
  int methods = 0;
  for (const attn_method *const *method = registry_methods; *method; method++) {
    if (!((*method)->caps & ATTN_CAP_EXACT)) continue;
    for (int padded = 0; padded < 2; padded++) {
      encoder_slot slot = slot_of(*method, 2);
      slot.padded = padded;
      encoder_run *r;
      ice_err e = {0};
      float logits[16];
      assert_int_equal(encoder_run_create(&r, &m, &slot, n[0] > n[1] ? n[0] : n[1], &e), ICE_OK);
      if (encoder_forward(r, ids, n, logits, NULL, NULL, NULL, &e) != ICE_OK) fail_msg("%s", e.text);
      for (int k = 0; k < c->classes; k++)
        if (!(fabs((double)logits[k] - want[k]) <= FORWARD_BOUND * size))
          fail_msg("%s n=%lld,%lld%s: logit %d = %.9g, expected %.9g", (*method)->name, (long long)n[0], (long long)n[1],
                   padded ? " padded" : "", k, (double)logits[k], want[k]);
      encoder_run_destroy(r);
    }
    methods++;
  }
  assert_true(methods > 0);
  encoder_ref_free(&ref), encoder_destroy(&m);
}

static void test_forward__one_input__exact_methods_match_the_definition(void **state) {
  (void)state;
  const int64_t lengths[][2] = {{1, 0}, {2, 0}, {31, 0}, {500, 0}};
  const encoder_config lra = encoder_lra_config(32, 512, 10, 1);
  for (int i = 0; i < 4; i++) check_forward(&lra, lengths[i], 0);
}
static void test_forward__two_inputs__exact_methods_match_the_definition(void **state) {
  (void)state;
  const int64_t lengths[][2] = {{1, 1}, {2, 31}, {31, 2}, {500, 40}};
  const encoder_config lra = encoder_lra_config(300, 512, 2, 2);
  for (int i = 0; i < 4; i++) check_forward(&lra, lengths[i], 0);
}
/* Black pixels: not computed, and the others keep their positions. */
static void test_forward__masked_positions__match_the_definition(void **state) {
  (void)state;
  const int64_t lengths[][2] = {{2, 0}, {31, 0}, {500, 0}}, pairs[][2] = {{30, 61}, {400, 7}};
  const encoder_config image = encoder_lra_config(512, 512, 10, 1), dual = encoder_lra_config(300, 512, 2, 2);
  for (int i = 0; i < 3; i++) check_forward(&image, lengths[i], MASKED);
  for (int i = 0; i < 2; i++) check_forward(&dual, pairs[i], MASKED);
  check_forward(&image, lengths[1], ALL_MASKED); /* the head applied to zero */
  check_forward(&dual, pairs[0], ALL_MASKED);
}
static void test_forward__untrained_weights__match_the_definition(void **state) {
  (void)state;
  const int64_t n[2] = {60, 33};
  const encoder_config one = encoder_lra_config(32, 64, 10, 1), two = encoder_lra_config(32, 64, 2, 2);
  encoder_config flat = one;
  flat.layers = 1, flat.mlp = 1; /* little is added to the rows before the final normalisation */
  check_forward(&one, n, UNTRAINED);
  check_forward(&two, n, UNTRAINED);
  check_forward(&flat, n, UNTRAINED);
}
static void test_forward__odd_sizes__match_the_definition(void **state) {
  (void)state;
  const int64_t n[2] = {45, 7};
  const encoder_config odd[] = {{.vocab = 5,
                                 .positions = 64,
                                 .width = 10,
                                 .layers = 3,
                                 .heads = 5,
                                 .mlp = 7,
                                 .head_hidden = 3,
                                 .classes = 4,
                                 .inputs = 1},
                                {.vocab = 9,
                                 .positions = 45,
                                 .width = 21,
                                 .layers = 1,
                                 .heads = 1,
                                 .mlp = 50,
                                 .head_hidden = 17,
                                 .classes = 1,
                                 .inputs = 2}};
  for (int i = 0; i < 2; i++) check_forward(&odd[i], n, 0);
}

/* All logits of `count` examples of falling and rising lengths through one run. */
static void forward_many(const encoder *m, int threads, int fresh, float *logits) {
  const encoder_slot slot = slot_of(&attn_method_dense, threads);
  const int64_t lengths[] = {300, 5, 97, 96, 512, 1};
  encoder_run *r = NULL;
  int32_t ids[512];
  const int32_t *in = ids;
  for (int i = 0; i < 6; i++) {
    if (!r) assert_int_equal(encoder_run_create(&r, m, &slot, 512, NULL), ICE_OK);
    encoder_random_ids(ids, lengths[i], m->cfg.vocab, (uint64_t)i);
    assert_int_equal(encoder_forward(r, &in, &lengths[i], logits + i * 10, NULL, NULL, NULL, NULL), ICE_OK);
    if (fresh) encoder_run_destroy(r), r = NULL;
  }
  encoder_run_destroy(r);
}

static void test_forward__threads_and_reuse__do_not_change_bits(void **state) {
  (void)state;
  encoder m = make(encoder_lra_config(32, 512, 10, 1), 4);
  float one[60], other[60];
  forward_many(&m, 1, 1, one);
  for (int threads = 1; threads <= 3; threads++)
    for (int fresh = 0; fresh < 2; fresh++) {
      forward_many(&m, threads, fresh, other);
      assert_memory_equal(one, other, sizeof one);
    }
  encoder_destroy(&m);
}

static void test_refresh__changed_parameters__are_seen(void **state) {
  (void)state;
  encoder m = make(encoder_lra_config(32, 64, 10, 1), 4), other = make(m.cfg, 5);
  const encoder_slot slot = slot_of(&attn_method_dense, 1);
  const int32_t ids[] = {3, 1, 4, 1, 5}, *in = ids;
  const int64_t n = 5;
  float a[10], b[10];
  encoder_run *r, *s;
  assert_int_equal(encoder_run_create(&r, &m, &slot, n, NULL), ICE_OK);
  assert_int_equal(encoder_run_create(&s, &other, &slot, n, NULL), ICE_OK);
  memcpy(m.params, other.params, (size_t)m.n_params * sizeof(float));
  encoder_run_refresh(r);
  assert_int_equal(encoder_forward(r, &in, &n, a, NULL, NULL, NULL, NULL), ICE_OK);
  assert_int_equal(encoder_forward(s, &in, &n, b, NULL, NULL, NULL, NULL), ICE_OK);
  assert_memory_equal(a, b, sizeof a);
  encoder_run_destroy(r), encoder_run_destroy(s);
  encoder_destroy(&m), encoder_destroy(&other);
}

/* What an observer saw: outputs must be the attention of the q, k, v it was shown. */
typedef struct seen {
  int calls, next_layer, layers;
  int64_t n;
} seen;
static void observe(void *ctx, const encoder_call *c) {
  seen *s = ctx;
  const attn_problem *pb = &c->problem;
  assert_int_equal(c->layer, s->next_layer);
  s->next_layer = (s->next_layer + 1) % s->layers;
  s->calls++;
  assert_true(pb->b == 1 && pb->h == 2 && pb->hkv == 2 && pb->nq == s->n && pb->nk == s->n && pb->d == 32 &&
              pb->dv == 32);
  assert_true(pb->scale == 1.0f / sqrtf(32.0f) && !pb->causal);
  const attn_view in[] = {c->q, c->k, c->v, c->out};
  double *t[4], *out = calloc((size_t)s->n * 64, sizeof *out);
  ref_view v[4];
  for (int i = 0; i < 4; i++) {
    t[i] = calloc((size_t)s->n * 64, sizeof *t[i]);
    v[i] = (ref_view){t[i], 0, s->n * 32, 32};
    for (int64_t h = 0; h < 2; h++)
      for (int64_t j = 0; j < s->n * 32; j++)
        t[i][h * s->n * 32 + j] = in[i].p[h * in[i].sh + j / 32 * in[i].sn + j % 32];
  }
  attention_ref(pb, v[0], v[1], v[2], NULL, 0.0f, 0, (ref_view){out, 0, s->n * 32, 32});
  for (int64_t j = 0; j < s->n * 64; j++) assert_true(fabs(out[j] - t[3][j]) < 1e-5);
  for (int i = 0; i < 4; i++) free(t[i]);
  free(out);
}

static void test_forward__observer_and_cost__account_for_every_call(void **state) {
  (void)state;
  encoder m = make(encoder_lra_config(32, 64, 2, 2), 4);
  const encoder_slot slot = slot_of(&attn_method_dense, 2);
  int32_t ids[40];
  const int32_t *in[2] = {ids, ids};
  const int64_t n[2] = {40, 40};
  float quiet[2], logits[2];
  encoder_cost cost = {0};
  seen s = {.n = 40, .layers = 2};
  encoder_run *r;
  encoder_random_ids(ids, 40, 32, 1);
  assert_int_equal(encoder_run_create(&r, &m, &slot, 64, NULL), ICE_OK);
  assert_int_equal(encoder_forward(r, in, n, quiet, NULL, NULL, NULL, NULL), ICE_OK);
  assert_int_equal(encoder_forward(r, in, n, logits, &cost, observe, &s, NULL), ICE_OK);
  assert_memory_equal(quiet, logits, sizeof quiet);
  assert_int_equal(s.calls, 4); /* layers x inputs */
  assert_int_equal(cost.pairs, 40 * 40 * 2 * 4);
  assert_int_equal(cost.attention_ns, cost.build_ns + cost.query_ns);
  assert_int_equal(cost.attention_ns, cost.layer_ns[0] + cost.layer_ns[1]);
  assert_true(cost.attention_ns > 0 && cost.model_ns >= cost.attention_ns);
  attn_mem need;
  const attn_problem pb = {.b = 1, .h = 2, .hkv = 2, .nq = 40, .nk = 40, .d = 32, .dv = 32, .scale = 1, .threads = 2};
  assert_int_equal(attn_method_dense.sizes(&pb, NULL, &need), ATTN_OK);
  assert_int_equal(cost.peak_bytes, need.plan + need.scratch); /* dense builds nothing outside its plan */
  const uint64_t pairs = cost.pairs;
  assert_int_equal(encoder_forward(r, in, n, logits, &cost, NULL, NULL, NULL), ICE_OK);
  assert_int_equal(cost.pairs, 2 * pairs); /* costs add up */
  encoder_run_destroy(r), encoder_destroy(&m);
}

/* A padded run shows the attention every position, and which of them count. */
typedef struct seen_mask {
  int calls;
  int64_t kept[4]; /* [calls] */
} seen_mask;
static void observe_mask(void *ctx, const encoder_call *c) {
  seen_mask *s = ctx;
  assert_non_null(c->kmask);
  assert_int_equal(c->problem.nk, 64);
  assert_int_equal(c->problem.nq, 64);
  for (int64_t i = 0; i < 64; i++) s->kept[s->calls] += c->kmask[i];
  s->calls++;
}
static void test_forward__padded__computes_all_positions_and_masks_the_rest(void **state) {
  (void)state;
  encoder m = make(encoder_lra_config(32, 64, 2, 2), 4);
  encoder_slot slot = slot_of(&attn_method_dense, 2);
  const int32_t a[] = {5, 0, 7, 9, 0, 3}, b[] = {1, 2, 3}, *in[2] = {a, b};
  const int64_t n[2] = {6, 3};
  float logits[2];
  encoder_cost cost = {0};
  seen_mask s = {0};
  encoder_run *r;
  slot.padded = 1;
  assert_int_equal(encoder_run_create(&r, &m, &slot, 6, NULL), ICE_OK);
  assert_int_equal(encoder_forward(r, in, n, logits, &cost, observe_mask, &s, NULL), ICE_OK);
  assert_int_equal(s.calls, 4);
  for (int i = 0; i < 4; i++) assert_int_equal(s.kept[i], i < 2 ? 4 : 3);
  assert_int_equal(cost.pairs, 2 * 64 * (2 * 4 + 2 * 3)); /* heads x queries x kept keys, layers of both inputs */
  encoder_run_destroy(r), encoder_destroy(&m);
}

/* --- refusals ------------------------------------------------------------------------------------------------- */

static void test_forward__bad_ids_and_lengths__refused_with_place_and_range(void **state) {
  (void)state;
  encoder m = make(encoder_lra_config(32, 64, 2, 2), 4);
  const encoder_slot slot = slot_of(&attn_method_dense, 1);
  encoder_run *r;
  assert_int_equal(encoder_run_create(&r, &m, &slot, 20, NULL), ICE_OK);
  int32_t fine[64], bad[64];
  encoder_random_ids(fine, 64, 32, 1);
  const struct {
    int64_t n, at;
    int32_t id;
    const char *word;
  } row[] = {{0, 0, 1, "0 tokens, allowed 1..20"},
             {-1, 0, 1, "-1 tokens"},
             {21, 0, 1, "21 tokens, allowed 1..20"},
             {INT64_MAX, 0, 1, "allowed 1..20"},
             {20, 19, 32, "token 19 has id 32, allowed 0..31"},
             {20, 0, -1, "token 0 has id -1"},
             {5, 4, -7, "id -7"},
             {5, 2, INT32_MIN, "id -2147483648"}};
  for (int i = 0; i < 8; i++)
    for (int which = 0; which < 2; which++) {
      memcpy(bad, fine, sizeof bad);
      bad[row[i].at] = row[i].id;
      const int32_t *in[2] = {which ? fine : bad, which ? bad : fine};
      const int64_t n[2] = {which ? 20 : row[i].n, which ? row[i].n : 20};
      float logits[2];
      ice_err e = {0};
      assert_int_equal(encoder_forward(r, in, n, logits, NULL, NULL, NULL, &e), ICE_DATA);
      if (!strstr(e.text, row[i].word)) fail_msg("\"%s\" lacks \"%s\"", e.text, row[i].word);
    }
  const int32_t *in[2] = {fine, fine};
  float logits[2];
  assert_int_equal(encoder_forward(r, in, (int64_t[]){20, 1}, logits, NULL, NULL, NULL, NULL), ICE_OK);
  encoder_run_destroy(r);
  const int64_t sizes[] = {0, -1, 65, INT64_MAX};
  for (int i = 0; i < 4; i++) assert_int_equal(encoder_run_create(&r, &m, &slot, sizes[i], NULL), ICE_USAGE);
  for (int i = 0; i < 2; i++) {
    const encoder_slot odd = slot_of(&attn_method_dense, i ? 5000 : 0);
    assert_int_equal(encoder_run_create(&r, &m, &odd, 5, NULL), ICE_USAGE);
    assert_null(r);
  }
  attn_method maskless = attn_method_dense;
  maskless.caps &= ~(uint32_t)ATTN_CAP_MASK;
  encoder_slot padded = slot_of(&maskless, 1);
  padded.padded = 1;
  ice_err e = {0};
  assert_int_equal(encoder_run_create(&r, &m, &padded, 5, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "takes no mask"));
  encoder_destroy(&m);
}

/* A method that fails where `fail_in` says: 1 check, 2 sizes, 3 prepare, 4 build, 5 forward. */
static int fail_in, released;
static attn_status stage(int which) {
  return fail_in == which ? attn_fail(ATTN_ERR_NUMERIC, "stage %d is out of order", which) : ATTN_OK;
}
static attn_status broken_check(const attn_problem *pb, const void *p) { return (void)pb, (void)p, stage(1); }
static attn_status broken_sizes(const attn_problem *pb, const void *p, attn_mem *need) {
  (void)pb, (void)p;
  *need = (attn_mem){64, 64};
  return stage(2);
}
static attn_status broken_prepare(void *plan, const attn_problem *pb, const void *p) {
  return (void)plan, (void)pb, (void)p, stage(3);
}
static attn_status broken_build(void *plan, attn_view k, attn_view v, const uint8_t *mask, void *scratch) {
  return (void)plan, (void)k, (void)v, (void)mask, (void)scratch, stage(4);
}
static attn_status broken_forward(const void *plan, const void *p, attn_view q, attn_viewm out, void *scratch,
                                  attn_stats *st) {
  return (void)plan, (void)p, (void)q, (void)out, (void)scratch, (void)st, stage(5);
}
static void broken_release(void *plan) { (void)plan, released++; }
static const attn_method broken = {.name = "broken",
                                   .check = broken_check,
                                   .sizes = broken_sizes,
                                   .prepare = broken_prepare,
                                   .build = broken_build,
                                   .forward = broken_forward,
                                   .release = broken_release};

static void test_forward__failing_method__passes_on_its_text(void **state) {
  (void)state;
  encoder m = make(encoder_lra_config(32, 64, 10, 1), 4);
  const encoder_slot slot = slot_of(&broken, 1);
  const int32_t ids[] = {1, 2}, *in = ids;
  const int64_t n = 2;
  float logits[10];
  encoder_run *r;
  assert_int_equal(encoder_run_create(&r, &m, &slot, 2, NULL), ICE_OK);
  for (fail_in = 1; fail_in <= 5; fail_in++) {
    char word[64];
    ice_err e = {0};
    released = 0;
    (void)snprintf(word, sizeof word, "broken: stage %d is out of order", fail_in);
    assert_int_equal(encoder_forward(r, &in, &n, logits, NULL, NULL, NULL, &e), ICE_INTERNAL);
    assert_non_null(strstr(e.text, word));
    assert_non_null(strstr(e.text, attn_status_text(ATTN_ERR_NUMERIC)));
    assert_int_equal(released, fail_in >= 4);
  }
  encoder_run_destroy(r), encoder_destroy(&m);
}

/* Attention that yields NaN in one place: it must not end as a confident answer. */
static attn_status nan_forward(const void *plan, const void *p, attn_view q, attn_viewm out, void *scratch,
                               attn_stats *st) {
  (void)plan, (void)p, (void)q, (void)scratch, (void)st;
  for (int64_t h = 0; h < 2; h++)
    for (int64_t t = 0; t < 64; t++) out.p[h * out.sh + t / 32 * out.sn + t % 32] = t == 5 ? NAN : 0.0f;
  return ATTN_OK;
}
static void test_forward__nan_from_the_method__is_an_error(void **state) {
  (void)state;
  encoder m = make(encoder_lra_config(32, 64, 10, 1), 4);
  attn_method wild = broken;
  wild.forward = nan_forward, fail_in = 0;
  const encoder_slot slot = slot_of(&wild, 1);
  const int32_t ids[] = {1, 2}, *in = ids;
  const int64_t n = 2;
  float logits[10];
  ice_err e = {0};
  encoder_run *r;
  assert_int_equal(encoder_run_create(&r, &m, &slot, 2, NULL), ICE_OK);
  assert_int_equal(encoder_forward(r, &in, &n, logits, NULL, NULL, NULL, &e), ICE_INTERNAL);
  assert_non_null(strstr(e.text, "broken: logit 0 is not a finite number"));
  encoder_run_destroy(r), encoder_destroy(&m);
}

static void test_memory__every_allocation_fails_once__reported_and_returned(void **state) {
  (void)state;
  const size_t live = attn_alloc_counters().live_bytes;
  const encoder_config c = encoder_lra_config(32, 64, 10, 1);
  const encoder_slot slot = slot_of(&attn_method_dense, 1);
  const int32_t ids[] = {1, 2}, *in = ids;
  const int64_t n = 2;
  float logits[10];
  int done = 0;
  for (uint64_t fail = 1; !done; fail++) {
    encoder m = {0};
    encoder_run *r = NULL;
    ice_err e = {0};
    attn_alloc_fail_at(fail);
    int rc = encoder_create(&m, &c, &e);
    if (rc == ICE_OK) rc = encoder_run_create(&r, &m, &slot, 2, &e);
    if (rc == ICE_OK) rc = encoder_forward(r, &in, &n, logits, NULL, NULL, NULL, &e);
    attn_alloc_fail_at(0);
    done = rc == ICE_OK;
    if (!done) {
      assert_int_equal(rc, ICE_INTERNAL);
      assert_non_null(strstr(e.text, "out of memory"));
      assert_null(strstr(e.text, "for 0"));
      if (r) assert_int_equal(encoder_forward(r, &in, &n, logits, NULL, NULL, NULL, &e), ICE_OK); /* still usable */
    }
    assert_true(fail < 50);
    encoder_run_destroy(r), encoder_destroy(&m);
    assert_int_equal(attn_alloc_counters().live_bytes, live);
  }
}

static void test_memory__growing_run_out_of_memory__goes_on_afterwards(void **state) {
  (void)state;
  encoder m = make(encoder_lra_config(32, 512, 10, 1), 4);
  const encoder_slot slot = slot_of(&attn_method_dense, 1);
  int32_t ids[512];
  const int32_t *in = ids;
  const int64_t few = 3, many = 512;
  float want[10], logits[10];
  encoder_random_ids(ids, 512, 32, 1);
  for (uint64_t fail = 0; fail <= 2; fail++) { /* plan and scratch of the attention grow */
    encoder_run *r;
    ice_err e = {0};
    assert_int_equal(encoder_run_create(&r, &m, &slot, 512, NULL), ICE_OK);
    assert_int_equal(encoder_forward(r, &in, &few, logits, NULL, NULL, NULL, NULL), ICE_OK);
    attn_alloc_fail_at(fail);
    const int rc = encoder_forward(r, &in, &many, fail ? logits : want, NULL, NULL, NULL, &e);
    attn_alloc_fail_at(0);
    assert_true(rc == (fail == 1 ? ICE_INTERNAL : ICE_OK)); /* dense's scratch does not depend on n */
    assert_int_equal(encoder_forward(r, &in, &few, logits, NULL, NULL, NULL, NULL), ICE_OK);
    assert_int_equal(encoder_forward(r, &in, &many, logits, NULL, NULL, NULL, NULL), ICE_OK);
    assert_memory_equal(want, logits, sizeof want);
    encoder_run_destroy(r);
  }
  encoder_destroy(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_create__every_lra_task__has_the_published_size),
      cmocka_unit_test(test_create__tensors__carry_the_checkpoint_names),
      cmocka_unit_test(test_create__contradictory_sizes__refused_with_value),
      cmocka_unit_test(test_init__tensors__have_pytorch_distributions),
      cmocka_unit_test(test_forward__one_input__exact_methods_match_the_definition),
      cmocka_unit_test(test_forward__two_inputs__exact_methods_match_the_definition),
      cmocka_unit_test(test_forward__untrained_weights__match_the_definition),
      cmocka_unit_test(test_forward__masked_positions__match_the_definition),
      cmocka_unit_test(test_forward__odd_sizes__match_the_definition),
      cmocka_unit_test(test_forward__threads_and_reuse__do_not_change_bits),
      cmocka_unit_test(test_refresh__changed_parameters__are_seen),
      cmocka_unit_test(test_forward__observer_and_cost__account_for_every_call),
      cmocka_unit_test(test_forward__padded__computes_all_positions_and_masks_the_rest),
      cmocka_unit_test(test_forward__bad_ids_and_lengths__refused_with_place_and_range),
      cmocka_unit_test(test_forward__failing_method__passes_on_its_text),
      cmocka_unit_test(test_forward__nan_from_the_method__is_an_error),
      cmocka_unit_test(test_memory__every_allocation_fails_once__reported_and_returned),
      cmocka_unit_test(test_memory__growing_run_out_of_memory__goes_on_afterwards),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
