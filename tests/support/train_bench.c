/* train_bench.c - see train_bench.h */
#include "tests/support/train_bench.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

static int64_t width_of(const train_bench *x, int i) {
  return i == TB_Q || i == TB_K || i == TB_DQ || i == TB_DK ? x->pb.d : x->pb.dv;
}
static attn_viewm viewm(const train_bench *x, int i) {
  const int64_t w = width_of(x, i);
  return (attn_viewm){x->t[i], x->pb.nq * x->pb.h * w, w, x->pb.h * w};
}
static attn_view view(const train_bench *x, int i) {
  const attn_viewm m = viewm(x, i);
  return (attn_view){m.p, m.sb, m.sh, m.sn};
}
int64_t train_bench_at(const train_bench *x, int tensor, int64_t ib, int64_t ih, int64_t i) {
  const attn_viewm m = viewm(x, tensor);
  return ib * m.sb + ih * m.sh + i * m.sn;
}

static void *claim(size_t bytes) {
  void *p = attn_alloc(bytes);
  assert_non_null(p);
  memset(p, 0xff, bytes); /* NaN: nothing may count on zeros */
  return p;
}

void train_bench_new(train_bench *x, const attn_method *m, const void *params, attn_problem pb, float drop, int masked) {
  *x = (train_bench){.m = m, .params = params, .pb = pb, .drop = drop, .key = 42};
  attn_rng r;
  attn_rng_seed(&r, (uint64_t)(pb.nq * 1000 + pb.d), 5);
  if (masked) {
    x->mask = claim((size_t)(pb.b * pb.nk));
    for (int64_t j = 0; j < pb.b * pb.nk; j++) x->mask[j] = attn_rng_below(&r, 4) != 0;
  }
  for (int i = 0; i < TB_TENSORS; i++) {
    const int64_t row = pb.h * width_of(x, i);
    x->size[i] = pb.b * pb.nq * row;
    x->t[i] = claim((size_t)x->size[i] * sizeof(float));
    for (int64_t j = 0; j < x->size[i] && (i <= TB_V || i == TB_DOUT); j++) x->t[i][j] = (float)attn_rng_normal(&r);
    if (i >= TB_DOUT) continue;
    x->ref[i] = claim((size_t)x->size[i] * sizeof(double));
    for (int64_t j = 0; j < x->size[i]; j++) {
      const int hidden = x->mask && !x->mask[j / row] && (i == TB_V || i == TB_K || (i == TB_Q && (m->caps & ATTN_CAP_SHARED_QK)));
      if (hidden) x->t[i][j] = NAN;
      x->ref[i][j] = hidden ? 0.0 : (double)x->t[i][j];
    }
  }
  attn_mem need;
  assert_int_equal(attn_check(m, &pb, params), ATTN_OK);
  assert_int_equal(m->training->sizes(&pb, params, &need), ATTN_OK);
  x->saved = claim(need.plan), x->scratch = claim(need.scratch);
}

void train_bench_free(train_bench *x) {
  for (int i = 0; i < TB_TENSORS; i++) attn_free(x->t[i]);
  for (int i = 0; i < TB_DOUT; i++) attn_free(x->ref[i]);
  attn_free(x->mask), attn_free(x->saved), attn_free(x->scratch);
}

void train_bench_forward(train_bench *x) {
  assert_int_equal(x->m->training->forward(&x->pb, x->params, view(x, TB_Q), view(x, TB_K), view(x, TB_V), x->mask, x->drop, x->key,
                                           viewm(x, TB_OUT), x->saved, x->scratch),
                   ATTN_OK);
}
void train_bench_backward(train_bench *x) {
  assert_int_equal(x->m->training->backward(&x->pb, x->params, view(x, TB_Q), view(x, TB_K), view(x, TB_V), x->mask, x->drop, x->key,
                                            view(x, TB_OUT), view(x, TB_DOUT), viewm(x, TB_DQ), viewm(x, TB_DK), viewm(x, TB_DV),
                                            NULL, x->saved, x->scratch),
                   ATTN_OK);
}

static void fail_here(const train_bench *x, const char *what, int64_t at, double got, double want, double bound) {
  fail_msg("%s n %lld d %lld dv %lld causal %d masked %d drop %g: %s[%lld] = %.9g, expected %.9g within %.3g", x->m->name,
           (long long)x->pb.nq, (long long)x->pb.d, (long long)x->pb.dv, x->pb.causal, x->mask != NULL, (double)x->drop, what,
           (long long)at, got, want, bound);
}

void train_bench_check_forward(train_bench *x, train_reference reference, void *ctx, double bound) {
  train_bench_forward(x);
  reference(x, ctx);
  for (int64_t i = 0; i < x->size[TB_OUT]; i++)
    if (!(fabs((double)x->t[TB_OUT][i] - x->ref[TB_OUT][i]) <= bound))
      fail_here(x, "out", i, (double)x->t[TB_OUT][i], x->ref[TB_OUT][i], bound);
}

/* The loss whose gradient with respect to out is dout. */
static double loss(train_bench *x, train_reference reference, void *ctx) {
  double sum = 0.0;
  reference(x, ctx);
  for (int64_t i = 0; i < x->size[TB_OUT]; i++) sum += x->ref[TB_OUT][i] * (double)x->t[TB_DOUT][i];
  return sum;
}

void train_bench_check_gradients(train_bench *x, train_reference reference, void *ctx, int64_t samples, double bound) {
  static const char *const name[] = {"dq", "dk", "dv"};
  train_bench_forward(x);
  train_bench_backward(x);
  for (int i = TB_Q; i <= TB_V; i++) {
    const float *grad = x->t[TB_DQ + i];
    double most = 0.0;
    for (int64_t j = 0; j < x->size[i]; j++) {
      if (!isfinite(grad[j])) fail_here(x, name[i], j, (double)grad[j], 0.0, 0.0);
      most = fmax(most, fabs((double)grad[j]));
    }
    for (int64_t s = 0; s < samples && s < x->size[i]; s++) {
      const int64_t at = x->size[i] <= samples ? s : (s * 7919 + 13) % x->size[i];
      const double h = 1e-4, old = x->ref[i][at];
      if (isnan(x->t[i][at])) { /* masked: no gradient */
        if (grad[at] != 0.0f) fail_here(x, name[i], at, (double)grad[at], 0.0, 0.0);
        continue;
      }
      x->ref[i][at] = old + h;
      const double up = loss(x, reference, ctx);
      x->ref[i][at] = old - h;
      const double slope = (up - loss(x, reference, ctx)) / (2 * h);
      x->ref[i][at] = old;
      if (!(fabs((double)grad[at] - slope) <= bound * (most + 0.05))) fail_here(x, name[i], at, (double)grad[at], slope, bound * (most + 0.05));
    }
  }
}

void train_bench_check_bits(const attn_method *m, const void *params, attn_problem pb) {
  train_bench x, y;
  pb.threads = 2;
  train_bench_new(&x, m, params, pb, 0.1f, (m->caps & ATTN_CAP_MASK) != 0);
  train_bench_new(&y, m, params, pb, 0.1f, (m->caps & ATTN_CAP_MASK) != 0);
  x.pb.threads = 1; /* both have memory for 2 */
  train_bench_forward(&x), train_bench_forward(&y), train_bench_backward(&x), train_bench_backward(&y);
  for (int i = TB_OUT; i < TB_TENSORS; i++)
    if (memcmp(x.t[i], y.t[i], (size_t)x.size[i] * sizeof(float)) != 0) fail_msg("%s: tensor %d has other bits with 2 threads", m->name, i);
  x.key++;
  train_bench_forward(&x);
  assert_memory_not_equal(x.t[TB_OUT], y.t[TB_OUT], (size_t)x.size[TB_OUT] * sizeof(float)); /* another mask */
  x.drop = 0.0f;
  train_bench_forward(&x);
  attn_mem need;
  assert_int_equal(m->sizes(&x.pb, params, &need), ATTN_OK);
  void *plan = claim(need.plan), *scratch = claim(need.scratch);
  assert_int_equal(m->prepare(plan, &x.pb, params), ATTN_OK);
  assert_int_equal(m->build(plan, view(&x, TB_K), view(&x, TB_V), x.mask, scratch), ATTN_OK);
  assert_int_equal(m->forward(plan, params, view(&x, TB_Q), viewm(&y, TB_OUT), scratch, NULL), ATTN_OK);
  assert_memory_equal(x.t[TB_OUT], y.t[TB_OUT], (size_t)x.size[TB_OUT] * sizeof(float));
  m->release(plan);
  attn_free(plan), attn_free(scratch);
  train_bench_free(&x), train_bench_free(&y);
}
