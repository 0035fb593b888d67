/* gradient_case.c - see gradient_case.h */
#include "tests/support/gradient_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

static int of_values(int i) { return i == GRAD_V || i == GRAD_OUT || i == GRAD_DOUT || i == GRAD_DV; }
static attn_viewm viewm(const gradient_case *x, int i) {
  const int64_t w = of_values(i) ? x->pb.dv : x->pb.d, h = x->pb.h;
  return (attn_viewm){x->t[i], x->pb.nk * h * w, w, h * w};
}
attn_view gradient_view(const gradient_case *x, int i) {
  const attn_viewm m = viewm(x, i);
  return (attn_view){m.p, m.sb, m.sh, m.sn};
}
ref_view gradient_ref_view(const gradient_case *x, int i) {
  const attn_viewm m = viewm(x, i);
  return (ref_view){x->ref[i], m.sb, m.sh, m.sn};
}

static void *claim(size_t bytes) {
  void *p = attn_alloc(bytes);
  assert_non_null(p);
  memset(p, 0xff, bytes); /* NaN: nothing may count on zeros */
  return p;
}

attn_problem gradient_problem(int64_t b, int64_t h, int64_t n, int64_t d, int64_t dv) {
  return (attn_problem){.b = b, .h = h, .hkv = h, .nq = n, .nk = n, .d = d, .dv = dv, .scale = (float)(1.0 / sqrt((double)d)), .threads = 2};
}

gradient_case gradient_case_new(const attn_method *m, const void *params, attn_problem pb, float drop, int masked, float size) {
  gradient_case x = {.m = m, .params = params, .pb = pb, .drop = drop, .key = 42};
  attn_rng r;
  attn_rng_seed(&r, (uint64_t)(pb.nk * 1000 + pb.d), 5);
  x.pb.positions = pb.nk;
  for (int i = 0; i < GRAD_TENSORS; i++) {
    x.size[i] = i == GRAD_W || i == GRAD_DW ? (int64_t)attn_learned_floats(m, &x.pb, params)
                                            : pb.b * pb.h * pb.nk * (of_values(i) ? pb.dv : pb.d);
    x.t[i] = claim((size_t)x.size[i] * sizeof(float));
    const int scaled = i == GRAD_Q || i == GRAD_K;
    if (i <= GRAD_W || i == GRAD_DOUT)
      for (int64_t j = 0; j < x.size[i]; j++) x.t[i][j] = (scaled ? size : i == GRAD_W ? 0.3f : 1.0f) * (float)attn_rng_normal(&r);
    if (i > GRAD_OUT) continue;
    x.ref[i] = claim((size_t)x.size[i] * sizeof(double));
    for (int64_t j = 0; j < x.size[i]; j++) x.ref[i][j] = (double)x.t[i][j];
  }
  x.pb.weights = x.size[GRAD_W] ? x.t[GRAD_W] : NULL;
  x.pb.weights_bytes = (size_t)x.size[GRAD_W] * sizeof(float);
  if (masked) {
    x.mask = claim((size_t)(pb.b * pb.nk));
    for (int64_t j = 0; j < pb.b * pb.nk; j++) x.mask[j] = attn_rng_below(&r, 4) != 0;
  }
  attn_mem need;
  if (attn_check(m, &x.pb, params) != ATTN_OK || m->training->sizes(&x.pb, params, &need) != ATTN_OK) fail_msg("%s", attn_last_error());
  x.saved = claim(need.plan), x.scratch = claim(need.scratch);
  return x;
}

void gradient_case_free(gradient_case *x) {
  for (int i = 0; i < GRAD_TENSORS; i++) attn_free(x->t[i]);
  for (int i = 0; i <= GRAD_OUT; i++) attn_free(x->ref[i]);
  attn_free(x->mask), attn_free(x->saved), attn_free(x->scratch);
  *x = (gradient_case){0};
}

void gradient_forward(gradient_case *x) {
  if (x->m->training->forward(&x->pb, x->params, gradient_view(x, GRAD_Q), gradient_view(x, GRAD_K), gradient_view(x, GRAD_V), x->mask,
                              x->drop, x->key, viewm(x, GRAD_OUT), x->saved, x->scratch) != ATTN_OK)
    fail_msg("%s: %s", x->m->name, attn_last_error());
}

void gradient_backward(gradient_case *x) {
  memset(x->t[GRAD_DW], 0, (size_t)x->size[GRAD_DW] * sizeof(float));
  if (x->m->training->backward(&x->pb, x->params, gradient_view(x, GRAD_Q), gradient_view(x, GRAD_K), gradient_view(x, GRAD_V), x->mask,
                               x->drop, x->key, gradient_view(x, GRAD_OUT), gradient_view(x, GRAD_DOUT), viewm(x, GRAD_DQ),
                               viewm(x, GRAD_DK), viewm(x, GRAD_DV), x->size[GRAD_DW] ? x->t[GRAD_DW] : NULL, x->saved,
                               x->scratch) != ATTN_OK)
    fail_msg("%s: %s", x->m->name, attn_last_error());
}

static void describe(const gradient_case *x, char *text, size_t size) {
  (void)snprintf(text, size, "%s b %lld h %lld n %lld d %lld dv %lld drop %g%s", x->m->name, (long long)x->pb.b, (long long)x->pb.h,
                 (long long)x->pb.nk, (long long)x->pb.d, (long long)x->pb.dv, (double)x->drop, x->mask ? " masked" : "");
}

void gradient_check_forward(gradient_case *x, gradient_definition f, double bound) {
  char text[160];
  describe(x, text, sizeof text);
  gradient_forward(x);
  f(x);
  double worst = 0.0;
  for (int64_t i = 0; i < x->size[GRAD_OUT]; i++) {
    const double off = fabs((double)x->t[GRAD_OUT][i] - x->ref[GRAD_OUT][i]);
    if (!(off <= bound)) fail_msg("%s: out[%lld] = %g, expected %g within %g", text, (long long)i, (double)x->t[GRAD_OUT][i], x->ref[GRAD_OUT][i], bound);
    worst = fmax(worst, off);
  }
  if (getenv("GRADIENT_SHOW")) (void)fprintf(stderr, "%s: forward off by %.2g of %.2g\n", text, worst, bound);
}

/* The loss whose gradient with respect to out is DOUT. */
static double loss(const gradient_case *x, gradient_definition f) {
  double sum = 0.0;
  f(x);
  for (int64_t i = 0; i < x->size[GRAD_OUT]; i++) sum += x->ref[GRAD_OUT][i] * (double)x->t[GRAD_DOUT][i];
  return sum;
}

void gradient_check_backward(gradient_case *x, gradient_definition f, double bound, int64_t samples) {
  char text[160];
  describe(x, text, sizeof text);
  gradient_forward(x);
  gradient_backward(x);
  for (int i = GRAD_Q; i <= GRAD_W; i++) {
    const float *grad = x->t[GRAD_DQ + i];
    double most = 0.0, worst = 0.0;
    for (int64_t j = 0; j < x->size[i]; j++) {
      assert_true(isfinite(grad[j]));
      most = fmax(most, fabs((double)grad[j]));
    }
    const int64_t count = x->size[i] < samples ? x->size[i] : samples;
    for (int64_t s = 0; s < count; s++) {
      const int64_t at = count == x->size[i] ? s : (s * 7919 + 13) % x->size[i];
      const double h = 1e-5, old = x->ref[i][at];
      x->ref[i][at] = old + h;
      const double up = loss(x, f);
      x->ref[i][at] = old - h;
      const double slope = (up - loss(x, f)) / (2 * h), off = fabs((double)grad[at] - slope);
      x->ref[i][at] = old;
      worst = fmax(worst, off / (most + 1e-30));
      if (!(off <= bound * most + 1e-6))
        fail_msg("%s: d%c[%lld] = %.9g, slope %.9g, largest %.3g", text, "qkvw"[i], (long long)at, (double)grad[at], slope, most);
    }
    if (getenv("GRADIENT_SHOW")) (void)fprintf(stderr, "%s: d%c off by %.2g of the largest\n", text, "qkvw"[i], worst);
  }
  for (int i = GRAD_K; i <= GRAD_V; i++) {
    const attn_viewm g = viewm(x, GRAD_DQ + i);
    for (int64_t row = 0; x->mask && row < x->pb.b * x->pb.nk * x->pb.h; row++) {
      const int64_t ib = row / (x->pb.nk * x->pb.h), j = row / x->pb.h % x->pb.nk;
      for (int64_t t = 0; t < g.sh && !x->mask[ib * x->pb.nk + j]; t++)
        assert_true(g.p[ib * g.sb + row % x->pb.h * g.sh + j * g.sn + t] == 0.0f);
    }
  }
}

void gradient_check_same_as_method(gradient_case *x) {
  attn_mem need;
  assert_true(x->drop == 0.0f);
  assert_int_equal(x->m->sizes(&x->pb, x->params, &need), ATTN_OK);
  void *plan = claim(need.plan), *scratch = claim(need.scratch);
  float *out = claim((size_t)x->size[GRAD_OUT] * sizeof(float));
  attn_viewm plain = viewm(x, GRAD_OUT);
  plain.p = out;
  gradient_forward(x);
  assert_int_equal(x->m->prepare(plan, &x->pb, x->params), ATTN_OK);
  assert_int_equal(x->m->build(plan, gradient_view(x, GRAD_K), gradient_view(x, GRAD_V), x->mask, scratch), ATTN_OK);
  assert_int_equal(x->m->forward(plan, x->params, gradient_view(x, GRAD_Q), plain, scratch, NULL), ATTN_OK);
  assert_memory_equal(out, x->t[GRAD_OUT], (size_t)x->size[GRAD_OUT] * sizeof(float));
  x->m->release(plan);
  attn_free(plan), attn_free(scratch), attn_free(out);
}
