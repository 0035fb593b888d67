/* train_case.c - see train_case.h */
#include "tests/support/train_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "models/train.h"

static int of_keys(int i) { return i == TRAIN_K || i == TRAIN_V || i == TRAIN_DK || i == TRAIN_DV; }
static int learned(int i) { return i == TRAIN_W || i == TRAIN_DW; }
static int64_t heads_of(const train_case *x, int i) { return of_keys(i) ? x->pb.hkv : x->pb.h; }
static int64_t rows_of(const train_case *x, int i) { return of_keys(i) ? x->pb.nk : x->pb.nq; }
static int64_t width_of(const train_case *x, int i) {
  return i == TRAIN_Q || i == TRAIN_K || i == TRAIN_DQ || i == TRAIN_DK ? x->pb.d : x->pb.dv;
}
static attn_viewm viewm(const train_case *x, int i) {
  const int64_t w = width_of(x, i), h = heads_of(x, i);
  return (attn_viewm){x->t[i], rows_of(x, i) * h * w, w, h * w};
}
attn_view train_case_view(const train_case *x, int i) {
  const attn_viewm m = viewm(x, i);
  return (attn_view){m.p, m.sb, m.sh, m.sn};
}
ref_view train_case_ref(const train_case *x, int i) {
  const attn_viewm m = viewm(x, i);
  return (ref_view){x->ref[i], m.sb, m.sh, m.sn};
}
double *train_case_row(const train_case *x, int tensor, int64_t ib, int64_t ih, int64_t i) {
  const ref_view r = train_case_ref(x, tensor);
  return r.p + ib * r.sb + ih * r.sh + i * r.sn;
}

attn_problem train_case_problem(int64_t b, int64_t h, int64_t n, int64_t d, int64_t dv, int causal) {
  return (attn_problem){.b = b, .h = h, .hkv = h, .nq = n, .nk = n, .d = d, .dv = dv, .scale = (float)(1.0 / sqrt((double)d)),
                        .causal = causal, .threads = 2, .seed = 77};
}

static void *claim(size_t bytes) {
  void *p = attn_alloc(bytes);
  assert_non_null(p);
  memset(p, 0xff, bytes); /* NaN: nothing may count on zeros */
  return p;
}
/* Is element j of tensor i (q, k, v) part of a masked key? */
static int masked(const train_case *x, int i, int64_t j) {
  const int keys = of_keys(i) || (i == TRAIN_Q && (x->m->caps & ATTN_CAP_SHARED_QK));
  const int64_t row = heads_of(x, i) * width_of(x, i);
  return keys && x->mask && !x->mask[j / (rows_of(x, i) * row) * x->pb.nk + j / row % rows_of(x, i)];
}

static void draw(train_case *x, attn_rng *r, double spread) {
  for (int i = 0; i < TRAIN_TENSORS; i++) {
    x->size[i] = learned(i) ? (int64_t)attn_learned_floats(x->m, &x->pb, x->params) : x->pb.b * heads_of(x, i) * rows_of(x, i) * width_of(x, i);
    x->t[i] = claim((size_t)x->size[i] * sizeof(float));
    const double sd = i <= TRAIN_K ? spread : i == TRAIN_W ? 0.3 : 1.0;
    for (int64_t j = 0; j < x->size[i] && (i <= TRAIN_W || i == TRAIN_DOUT); j++) x->t[i][j] = (float)(sd * attn_rng_normal(r));
    if (i <= TRAIN_OUT) x->ref[i] = claim((size_t)x->size[i] * sizeof(double));
  }
}

train_case train_case_new(const attn_method *m, const void *params, attn_problem pb, float drop, int mask, double spread) {
  train_case x = {.m = m, .params = params, .pb = pb, .drop = drop, .key = 42};
  attn_rng r;
  attn_rng_seed(&r, (uint64_t)(pb.nk * 1000 + pb.d), 5);
  if (!x.pb.positions) x.pb.positions = pb.nk;
  draw(&x, &r, spread);
  x.pb.weights = x.size[TRAIN_W] ? x.t[TRAIN_W] : NULL;
  x.pb.weights_bytes = (size_t)x.size[TRAIN_W] * sizeof(float);
  if (mask) {
    x.mask = claim((size_t)(pb.b * pb.nk));
    for (int64_t j = 0; j < pb.b * pb.nk; j++) x.mask[j] = attn_rng_below(&r, 4) != 0;
  }
  for (int i = TRAIN_Q; i <= TRAIN_W; i++)
    for (int64_t j = 0; j < x.size[i]; j++) {
      const int hidden = !learned(i) && masked(&x, i, j);
      x.ref[i][j] = hidden ? 0.0 : (double)x.t[i][j];
      if (hidden) x.t[i][j] = NAN;
    }
  attn_mem need = {0};
  if (attn_check(m, &x.pb, params) != ATTN_OK || m->training->sizes(&x.pb, params, &need) != ATTN_OK)
    fail_msg("%s: %s", m->name, attn_last_error());
  x.saved = claim(need.plan), x.scratch = claim(need.scratch);
  return x;
}

void train_case_free(train_case *x) {
  for (int i = 0; i < TRAIN_TENSORS; i++) attn_free(x->t[i]);
  for (int i = 0; i <= TRAIN_OUT; i++) attn_free(x->ref[i]);
  attn_free(x->mask), attn_free(x->saved), attn_free(x->scratch);
  *x = (train_case){0};
}

void train_case_forward(train_case *x) {
  const attn_status st = x->m->training->forward(&x->pb, x->params, train_case_view(x, TRAIN_Q), train_case_view(x, TRAIN_K),
                                                 train_case_view(x, TRAIN_V), x->mask, x->drop, x->key, viewm(x, TRAIN_OUT),
                                                 x->saved, x->scratch);
  if (st != ATTN_OK) fail_msg("%s: %s", x->m->name, attn_last_error());
}
void train_case_backward(train_case *x) {
  for (int64_t j = 0; j < x->size[TRAIN_DW]; j++) x->t[TRAIN_DW][j] = TRAIN_DW_START;
  const attn_status st = x->m->training->backward(
      &x->pb, x->params, train_case_view(x, TRAIN_Q), train_case_view(x, TRAIN_K), train_case_view(x, TRAIN_V), x->mask,
      x->drop, x->key, train_case_view(x, TRAIN_OUT), train_case_view(x, TRAIN_DOUT), viewm(x, TRAIN_DQ), viewm(x, TRAIN_DK),
      viewm(x, TRAIN_DV), x->size[TRAIN_DW] ? x->t[TRAIN_DW] : NULL, x->saved, x->scratch);
  if (st != ATTN_OK) fail_msg("%s: %s", x->m->name, attn_last_error());
}

static void fail_here(const train_case *x, const char *what, int64_t at, double got, double want, double bound) {
  fail_msg("%s b %lld h %lld n %lldx%lld d %lld dv %lld causal %d masked %d drop %g: %s[%lld] = %.9g, expected %.9g within %.3g",
           x->m->name, (long long)x->pb.b, (long long)x->pb.h, (long long)x->pb.nq, (long long)x->pb.nk, (long long)x->pb.d,
           (long long)x->pb.dv, x->pb.causal, x->mask != NULL, (double)x->drop, what, (long long)at, got, want, bound);
}

void train_case_check_forward(train_case *x, double bound) {
  train_case_forward(x);
  x->reference(x, 1);
  for (int64_t i = 0; i < x->size[TRAIN_OUT]; i++)
    if (!(fabs((double)x->t[TRAIN_OUT][i] - x->ref[TRAIN_OUT][i]) <= bound))
      fail_here(x, "out", i, (double)x->t[TRAIN_OUT][i], x->ref[TRAIN_OUT][i], bound);
}

/* The loss whose gradient with respect to out is dout. */
static double loss(train_case *x) {
  double sum = 0.0;
  x->reference(x, 0);
  for (int64_t i = 0; i < x->size[TRAIN_OUT]; i++) sum += x->ref[TRAIN_OUT][i] * (double)x->t[TRAIN_DOUT][i];
  return sum;
}
static double slope(train_case *x, double *at, double step) {
  const double old = *at;
  *at = old + step;
  const double up = loss(x);
  *at = old - step;
  const double down = loss(x);
  *at = old;
  return (up - down) / (2 * step);
}

/* The gradient of tensor i. Entries that cancel (a softmax of one key) are as rough as terms of a hundredth. */
static void check_gradient(train_case *x, int i, int64_t samples, double bound, double step) {
  static const char *const name[] = {"dq", "dk", "dv", "dweights"};
  const float *grad = x->t[TRAIN_DQ + i];
  const double from = learned(i) ? (double)TRAIN_DW_START : 0.0;
  const int64_t size = x->size[i], count = size < samples ? size : samples;
  double most = 0.0;
  for (int64_t j = 0; j < size; j++) {
    const int hidden = !learned(i) && masked(x, i, j);
    if (!isfinite(grad[j]) || (hidden && grad[j] != 0.0f)) fail_here(x, name[i], j, (double)grad[j], 0.0, hidden ? 0.0 : INFINITY);
    most = fmax(most, fabs((double)grad[j] - from));
  }
  for (int64_t s = 0; s < count; s++) {
    const int64_t at = count == size ? s : (s * 7919 + 13) % size;
    const double want = slope(x, x->ref[i] + at, step), got = (double)grad[at] - from;
    const double most_off = bound * fmax(most, 0.01) + 1e-8 + from * 0x1p-23;
    if (!(fabs(got - want) <= most_off)) fail_here(x, name[i], at, got, want, most_off);
  }
}

void train_case_check_backward(train_case *x, int64_t samples, double bound, double step) {
  train_case_forward(x);
  train_case_backward(x);
  x->reference(x, 1);
  for (int i = TRAIN_Q; i <= TRAIN_W; i++) check_gradient(x, i, samples, bound, step);
}

void train_case_check_threads(train_case *x) {
  float *want[TRAIN_TENSORS] = {0};
  const int threads = x->pb.threads;
  for (int pass = 0; pass < 2; pass++) {
    x->pb.threads = pass ? 1 : threads;
    train_case_forward(x), train_case_backward(x);
    for (int i = TRAIN_OUT; i < TRAIN_TENSORS; i++) {
      const size_t bytes = (size_t)x->size[i] * sizeof(float);
      if (pass && bytes) assert_memory_equal(x->t[i], want[i], bytes);
      if (pass) attn_free(want[i]);
      else want[i] = memcpy(claim(bytes), x->t[i], bytes);
    }
  }
  x->pb.threads = threads;
}

void train_case_check_method(train_case *x) {
  attn_mem need;
  assert_true(x->drop == 0.0f);
  assert_int_equal(x->m->sizes(&x->pb, x->params, &need), ATTN_OK);
  void *plan = claim(need.plan), *scratch = claim(need.scratch);
  attn_viewm plain = viewm(x, TRAIN_OUT);
  plain.p = claim((size_t)x->size[TRAIN_OUT] * sizeof(float));
  train_case_forward(x);
  assert_int_equal(x->m->prepare(plan, &x->pb, x->params), ATTN_OK);
  assert_int_equal(x->m->build(plan, train_case_view(x, TRAIN_K), train_case_view(x, TRAIN_V), x->mask, scratch), ATTN_OK);
  assert_int_equal(x->m->forward(plan, x->params, train_case_view(x, TRAIN_Q), plain, scratch, NULL), ATTN_OK);
  assert_memory_equal(plain.p, x->t[TRAIN_OUT], (size_t)x->size[TRAIN_OUT] * sizeof(float));
  x->m->release(plan);
  attn_free(plan), attn_free(scratch), attn_free(plain.p);
}

void train_case_check_bits(const attn_method *m, const void *params, attn_problem pb) {
  train_case x = train_case_new(m, params, pb, 0.1f, (m->caps & ATTN_CAP_MASK) != 0, 1.0);
  const size_t bytes = (size_t)x.size[TRAIN_OUT] * sizeof(float);
  train_case_check_threads(&x);
  float *out = memcpy(claim(bytes), x.t[TRAIN_OUT], bytes);
  x.key++;
  train_case_forward(&x);
  assert_memory_not_equal(x.t[TRAIN_OUT], out, bytes); /* another mask of dropout */
  x.drop = 0.0f;
  train_case_check_method(&x);
  attn_free(out), train_case_free(&x);
}

void train_case_check_padding(const attn_method *m, const void *params, int64_t n, double bound) {
  attn_problem pb = train_case_problem(1, 2, n, 8, 8, 0), longer = train_case_problem(1, 2, n + n / 3 + 1, 8, 8, 0);
  pb.positions = longer.nk;
  train_case x = train_case_new(m, params, pb, 0.2f, 0, 1.0), y = train_case_new(m, params, longer, 0.2f, 1, 1.0);
  for (int i = 0; i < TRAIN_TENSORS; i++) {
    if (i > TRAIN_W && i != TRAIN_DOUT) continue;
    for (int64_t j = 0; j < y.size[i]; j++) y.t[i][j] = j < x.size[i] ? x.t[i][j] : i == TRAIN_DOUT ? 0.0f : i == TRAIN_Q ? 1.0f : NAN;
  }
  for (int64_t j = 0; j < longer.nk; j++) y.mask[j] = j < n;
  train_case_forward(&x), train_case_backward(&x), train_case_forward(&y), train_case_backward(&y);
  assert_memory_equal(x.t[TRAIN_OUT], y.t[TRAIN_OUT], (size_t)x.size[TRAIN_OUT] * sizeof(float));
  for (int i = TRAIN_DQ; i <= TRAIN_DW; i++)
    for (int64_t j = 0; j < y.size[i]; j++) {
      const double want = j < x.size[i] ? (double)x.t[i][j] : 0.0, got = (double)y.t[i][j];
      if (!(fabs(got - want) <= 1e-5 * fabs(want) + bound)) fail_here(&y, "padding moves gradient", j, got, want, bound);
    }
  train_case_free(&x), train_case_free(&y);
}

void train_case_check_nothing_left(const attn_method *m, const void *params) {
  train_case x = train_case_new(m, params, train_case_problem(2, 2, 40, 8, 8, 0), 0.2f, 1, 1.0);
  memset(x.mask, 0, 80);
  train_case_forward(&x), train_case_backward(&x);
  for (int i = TRAIN_OUT; i < TRAIN_TENSORS; i++)
    for (int64_t j = 0; j < x.size[i] && i != TRAIN_DOUT; j++) assert_true(x.t[i][j] == (i == TRAIN_DW ? TRAIN_DW_START : 0.0f));
  train_case_free(&x);
}

void train_case_check_encoder(const encoder_config *base, const attn_method *m, const void *params, int64_t n, double dropout,
                              void (*attend)(void *ctx, int l, const attn_problem *pb, ref_view q, ref_view k, ref_view v,
                                             const double *learned, float drop, uint64_t key, ref_view out),
                              void *ctx) {
  enum { KEY = 99 };
  ice_err e = {0};
  encoder_config c = *base;
  encoder model;
  int32_t memory[64];
  const int32_t *ids[2] = {memory, NULL};
  const int64_t length[2] = {n, 0};
  double loss, logits[16];
  assert_true(n <= 64 && c.classes <= 16 && c.inputs == 1);
  if (encoder_config_attention(&c, m, params, &e) != ICE_OK || encoder_create(&model, &c, &e) != ICE_OK) fail_msg("%s", e.text);
  encoder_scramble(&model, 21);
  encoder_ref ref = encoder_ref_new(&model);
  ref.attend = attend, ref.ctx = ctx;
  encoder_random_ids(memory, n, c.vocab, 30);
  encoder_mask_ids(memory, n, 0, 31);
  float *g = claim((size_t)model.n_params * sizeof(float));
  if (train_gradient(&model, m, params, ids, length, c.classes - 1, dropout, KEY, g, &loss, &e) != ICE_OK) fail_msg("%s", e.text);
  const double want = encoder_ref_loss(&ref, ids, length, c.classes - 1, (float)dropout, KEY, logits);
  if (!(fabs(want - loss) <= 1e-5 * (1 + fabs(want)))) fail_msg("%s: loss %.9g, expected %.9g", m->name, loss, want);
  double scale = 0.0;
  for (int64_t i = 0; i < model.n_params; i++) scale = fmax(scale, fabs((double)g[i]));
  for (int t = 0; t < model.n_tensors; t++) {
    const encoder_tensor *at = model.tensor + t;
    double most = 0.0;
    for (int64_t i = 0; i < encoder_tensor_size(at); i++) most = fmax(most, fabs((double)g[at->offset + i]));
    for (int64_t i = 0; i < encoder_tensor_size(at); i++) {
      const double got = (double)g[at->offset + i], bound = 400 * 0x1p-24 * fmax(most, 1e-2 * scale) + 1e-9;
      const double expected = encoder_ref_slope(&ref, at->offset + i, ids, length, c.classes - 1, (float)dropout, KEY);
      if (!(fabs(got - expected) <= bound))
        fail_msg("%s: %s[%lld] = %.9g, slope %.9g, bound %.3g", m->name, at->name, (long long)i, got, expected, bound);
    }
  }
  attn_free(g);
  encoder_ref_free(&ref), encoder_destroy(&model);
}
