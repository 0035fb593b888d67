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
#include "kernels/core/rng.h"
#include "kernels/methods/dense.h"
#include "tests/support/encoder_ref.h"

enum { Q, K, V, OUT, DOUT, DQ, DK, DV, TENSORS };

/* One problem with all its tensors, [b, n, heads, width] in memory as in the encoder, so that heads are strided. */
typedef struct bench {
  attn_problem pb;
  float drop;
  uint64_t key;
  uint8_t *mask; /* NULL: all keys */
  float *t[TENSORS];
  double *ref[DOUT]; /* q, k, v, out in double */
  int64_t size[TENSORS];
  void *saved, *scratch;
} bench;

static int64_t heads_of(const bench *x, int i) { return i == K || i == V || i == DK || i == DV ? x->pb.hkv : x->pb.h; }
static int64_t rows_of(const bench *x, int i) { return i == K || i == V || i == DK || i == DV ? x->pb.nk : x->pb.nq; }
static int64_t width_of(const bench *x, int i) { return i == Q || i == K || i == DQ || i == DK ? x->pb.d : x->pb.dv; }
static attn_viewm viewm(const bench *x, int i) {
  const int64_t w = width_of(x, i), h = heads_of(x, i);
  return (attn_viewm){x->t[i], rows_of(x, i) * h * w, w, h * w};
}
static attn_view view(const bench *x, int i) {
  const attn_viewm m = viewm(x, i);
  return (attn_view){m.p, m.sb, m.sh, m.sn};
}
static ref_view view_ref(const bench *x, int i) {
  const attn_viewm m = viewm(x, i);
  return (ref_view){x->ref[i], m.sb, m.sh, m.sn};
}

static void *claim(size_t bytes) {
  void *p = attn_alloc(bytes);
  assert_non_null(p);
  memset(p, 0xff, bytes); /* NaN: nothing may count on zeros */
  return p;
}

static bench bench_new(attn_problem pb, float drop, int masked) {
  bench x = {.pb = pb, .drop = drop, .key = 42};
  attn_rng r;
  attn_rng_seed(&r, (uint64_t)(pb.nq * 1000 + pb.nk), 5);
  for (int i = 0; i < TENSORS; i++) {
    x.size[i] = pb.b * heads_of(&x, i) * rows_of(&x, i) * width_of(&x, i);
    x.t[i] = claim((size_t)x.size[i] * sizeof(float));
    if (i <= V || i == DOUT)
      for (int64_t j = 0; j < x.size[i]; j++) x.t[i][j] = (float)attn_rng_normal(&r);
    if (i >= DOUT) continue;
    x.ref[i] = claim((size_t)x.size[i] * sizeof(double));
    for (int64_t j = 0; j < x.size[i]; j++) x.ref[i][j] = (double)x.t[i][j];
  }
  if (masked) {
    x.mask = claim((size_t)(pb.b * pb.nk));
    for (int64_t j = 0; j < pb.b * pb.nk; j++) x.mask[j] = attn_rng_below(&r, 4) != 0;
  }
  attn_mem need;
  assert_int_equal(attn_check(&attn_method_dense, &pb, NULL), ATTN_OK);
  assert_int_equal(attn_training_dense.sizes(&pb, NULL, &need), ATTN_OK);
  x.saved = claim(need.plan), x.scratch = claim(need.scratch);
  return x;
}

static void bench_free(bench *x) {
  for (int i = 0; i < TENSORS; i++) attn_free(x->t[i]);
  for (int i = 0; i < DOUT; i++) attn_free(x->ref[i]);
  attn_free(x->mask), attn_free(x->saved), attn_free(x->scratch);
}

static void forward(bench *x) {
  const attn_status st = attn_training_dense.forward(&x->pb, NULL, view(x, Q), view(x, K), view(x, V), x->mask, x->drop,
                                                     x->key, viewm(x, OUT), x->saved, x->scratch);
  assert_int_equal(st, ATTN_OK);
}
static void backward(bench *x) {
  const attn_status st = attn_training_dense.backward(&x->pb, NULL, view(x, Q), view(x, K), view(x, V), x->mask,
                                                      x->drop, x->key, view(x, OUT), view(x, DOUT), viewm(x, DQ),
                                                      viewm(x, DK), viewm(x, DV), NULL, x->saved, x->scratch);
  assert_int_equal(st, ATTN_OK);
}
static void reference(bench *x) {
  attention_ref(&x->pb, view_ref(x, Q), view_ref(x, K), view_ref(x, V), x->mask, x->drop, x->key, view_ref(x, OUT));
}

/* The loss whose gradient with respect to out is DOUT. */
static double loss(bench *x) {
  double sum = 0.0;
  reference(x);
  for (int64_t i = 0; i < x->size[OUT]; i++) sum += x->ref[OUT][i] * (double)x->t[DOUT][i];
  return sum;
}

static attn_problem problem(int64_t b, int64_t h, int64_t hkv, int64_t nq, int64_t nk, int64_t d, int64_t dv,
                            int causal) {
  return (attn_problem){.b = b,
                        .h = h,
                        .hkv = hkv,
                        .nq = nq,
                        .nk = nk,
                        .d = d,
                        .dv = dv,
                        .scale = (float)(1.0 / sqrt((double)d)),
                        .causal = causal,
                        .threads = 2};
}

/* Small and odd shapes, then some that cross every block: 48 and 96 rows, 128 and 256 keys. */
static const struct shape {
  int64_t b, h, hkv, nq, nk, d, dv;
} shapes[] = {{1, 1, 1, 1, 1, 1, 1},     {2, 2, 1, 5, 7, 3, 5},       {1, 4, 2, 13, 13, 8, 8},
              {1, 2, 2, 17, 3, 16, 20},  {1, 1, 1, 100, 300, 32, 32}, {2, 2, 2, 131, 131, 32, 32},
              {1, 2, 1, 50, 261, 64, 33}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Calls check for every shape x {all keys, causal, masked, both} x {no dropout, 0.1, 0.5}. */
static void every_bench(void (*check)(bench *)) {
  for (int i = 0; i < SHAPES; i++)
    for (int form = 0; form < 12; form++) {
      const struct shape *s = shapes + i;
      const float drops[] = {0.0f, 0.1f, 0.5f};
      bench x =
          bench_new(problem(s->b, s->h, s->hkv, s->nq, s->nk, s->d, s->dv, form & 1), drops[form / 4], form >> 1 & 1);
      check(&x);
      bench_free(&x);
    }
}

/* A logit is a product of d terms: off by (d + 4) u |q| |k| scale at most, at most 30 d u here, in practice a tenth of
 * it; a weight by twice that and the rounding of nk terms, of which sqrt(nk) is typical. */
static double tolerance(const bench *x) {
  return 0x1p-24 * (3.0 * (double)x->pb.d + 2.0 * sqrt((double)x->pb.nk) + 20.0);
}

static void check_forward(bench *x) {
  forward(x);
  reference(x);
  const double bound = tolerance(x) / (1.0 - (double)x->drop); /* values are of unit size */
  for (int64_t i = 0; i < x->size[OUT]; i++)
    if (!(fabs((double)x->t[OUT][i] - x->ref[OUT][i]) <= bound))
      fail_msg("out[%lld] = %g, expected %g within %g", (long long)i, (double)x->t[OUT][i], x->ref[OUT][i], bound);
}
static void test_forward__every_shape_mask_and_dropout__matches_double(void **state) {
  (void)state;
  every_bench(check_forward);
}

static void check_same_as_method(bench *x) {
  if (x->drop != 0.0f) return;
  attn_mem need;
  assert_int_equal(attn_method_dense.sizes(&x->pb, NULL, &need), ATTN_OK);
  void *plan = claim(need.plan), *scratch = claim(need.scratch);
  float *out = claim((size_t)x->size[OUT] * sizeof(float));
  const attn_viewm trained = viewm(x, OUT), plain = {out, trained.sb, trained.sh, trained.sn};
  forward(x);
  assert_int_equal(attn_method_dense.prepare(plan, &x->pb, NULL), ATTN_OK);
  assert_int_equal(attn_method_dense.build(plan, view(x, K), view(x, V), x->mask, scratch), ATTN_OK);
  assert_int_equal(attn_method_dense.forward(plan, NULL, view(x, Q), plain, scratch, NULL), ATTN_OK);
  assert_memory_equal(out, x->t[OUT], (size_t)x->size[OUT] * sizeof(float));
  attn_free(plan), attn_free(scratch), attn_free(out);
}
static void test_forward__without_dropout__bits_of_the_method(void **state) {
  (void)state;
  every_bench(check_same_as_method);
}

/* Some elements of each gradient against the slope of the loss. f32 rounding is relative to the terms of a sum, so
 * the bound is relative to the largest entry of the tensor; sums cancel by less than a factor of ten here. */
static void check_gradients(bench *x) {
  forward(x);
  backward(x);
  for (int i = Q; i <= V; i++) {
    const float *grad = x->t[DQ + i];
    double most = 0.0;
    for (int64_t j = 0; j < x->size[i]; j++) {
      assert_true(isfinite(grad[j]));
      most = fmax(most, fabs((double)grad[j]));
    }
    const int64_t samples = x->size[i] < 40 ? x->size[i] : x->pb.nk > 40 ? 2 : 40;
    for (int64_t s = 0; s < samples; s++) {
      const int64_t at = samples == x->size[i] ? s : (s * 7919 + 13) % x->size[i];
      const double h = 1e-4, old = x->ref[i][at];
      x->ref[i][at] = old + h;
      const double up = loss(x);
      x->ref[i][at] = old - h;
      const double slope = (up - loss(x)) / (2 * h), bound = 4 * tolerance(x) * most + 1e-7;
      x->ref[i][at] = old;
      if (!(fabs((double)grad[at] - slope) <= bound))
        fail_msg("n %lldx%lld d %lld drop %g: d%c[%lld] = %.9g, slope %.9g, bound %.3g", (long long)x->pb.nq,
                 (long long)x->pb.nk, (long long)x->pb.d, (double)x->drop, "qkv"[i], (long long)at, (double)grad[at],
                 slope, bound);
    }
  }
}
static void test_backward__every_shape_mask_and_dropout__matches_slopes(void **state) {
  (void)state;
  every_bench(check_gradients);
}

static void test_backward__threads__do_not_change_bits(void **state) {
  (void)state;
  bench x = bench_new(problem(2, 4, 2, 131, 131, 32, 32, 0), 0.1f, 1), y = bench_new(x.pb, 0.1f, 1);
  x.pb.threads = 1; /* y keeps 2; both have memory for 2 */
  forward(&x), forward(&y), backward(&x), backward(&y);
  for (int i = OUT; i < TENSORS; i++) assert_memory_equal(x.t[i], y.t[i], (size_t)x.size[i] * sizeof(float));
  bench_free(&x), bench_free(&y);
}

static void test_backward__masked_keys_hold_nan__stays_clean(void **state) {
  (void)state;
  bench x = bench_new(problem(1, 2, 2, 70, 140, 8, 8, 0), 0.1f, 1);
  for (int64_t j = 0; j < x.pb.nk; j++)
    for (int64_t t = 0; t < 16 && !x.mask[j]; t++) x.t[K][j * 16 + t] = x.t[V][j * 16 + t] = NAN;
  forward(&x), backward(&x);
  for (int i = OUT; i < TENSORS; i++)
    for (int64_t j = 0; j < x.size[i]; j++) assert_true(isfinite(x.t[i][j]));
  for (int64_t j = 0; j < x.pb.nk; j++)
    for (int64_t t = 0; t < 16 && !x.mask[j]; t++)
      assert_true(x.t[DK][j * 16 + t] == 0.0f && x.t[DV][j * 16 + t] == 0.0f);
  bench_free(&x);
}

static void test_backward__queries_without_keys__zero_gradients(void **state) {
  (void)state;
  bench x = bench_new(problem(1, 1, 1, 60, 20, 4, 4, 1), 0.0f, 0); /* the first 40 queries see nothing */
  forward(&x), backward(&x);
  for (int64_t j = 0; j < 40 * 4; j++) assert_true(x.t[OUT][j] == 0.0f && x.t[DQ][j] == 0.0f);
  check_gradients(&x);
  bench_free(&x);
  x = bench_new(problem(1, 1, 1, 9, 30, 4, 4, 0), 0.5f, 1); /* no key at all */
  memset(x.mask, 0, 30);
  forward(&x), backward(&x);
  for (int i = OUT; i < TENSORS; i++)
    for (int64_t j = 0; j < x.size[i] && i != DOUT; j++) assert_true(x.t[i][j] == 0.0f);
  bench_free(&x);
}

static void test_backward__other_key__other_mask(void **state) {
  (void)state;
  bench x = bench_new(problem(1, 1, 1, 40, 40, 8, 8, 0), 0.5f, 0), y = bench_new(x.pb, 0.5f, 0);
  y.key++;
  forward(&x), forward(&y);
  assert_memory_not_equal(x.t[OUT], y.t[OUT], (size_t)x.size[OUT] * sizeof(float));
  bench_free(&x), bench_free(&y);
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
      cmocka_unit_test(test_backward__threads__do_not_change_bits),
      cmocka_unit_test(test_backward__masked_keys_hold_nan__stays_clean),
      cmocka_unit_test(test_backward__queries_without_keys__zero_gradients),
      cmocka_unit_test(test_backward__other_key__other_mask),
      cmocka_unit_test(test_sizes__growing_n__linear),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
