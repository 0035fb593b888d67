/* test_performer.c - random features against their definition in double: forward, causal form, gradients; and what FAVOR+ promises:
 * unbiased kernels with the variance of theory, errors that fall with the root of the features. The projection is shared, the
 * rest is written anew. What holds for every attention is tested in tests/property. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "baselines/performer.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "tests/support/attn_case.h"
#include "tests/support/subject.h"
#include "tests/support/train_case.h"

typedef struct reference {
  double eps, c2; /* c^2: of |x|^2, x = c q */
  int relu, leak;
  int64_t m;
  float *w;               /* [m, d] */
  double *top_q, *top_k;  /* [b, h, nq], [b, hkv, nk] maxima of w.x over features */
} reference;

static const subject *performer(void) {
  const subject *s = subjects();
  while (s->m && strcmp(s->label, "performer") != 0) s++;
  assert_non_null(s->m);
  return s;
}

static double *doubles(int64_t n) {
  double *p = calloc((size_t)n + 1, sizeof *p);
  assert_non_null(p);
  return p;
}

static reference reference_new(const attn_problem *pb, const char *settings, const void *params) {
  reference r = {.relu = strstr(settings, "relu") != NULL, .leak = strstr(settings, "leak") != NULL, .m = performer_features(pb, params)};
  const char *eps = strstr(settings, "eps=");
  r.eps = eps ? strtod(eps + 4, NULL) : 1e-4;
  r.c2 = strstr(settings, "twice") ? (double)pb->scale * (double)pb->scale : (double)pb->scale;
  r.w = calloc((size_t)(r.m * pb->d), sizeof *r.w);
  assert_non_null(r.w);
  performer_projection(pb, params, r.w);
  r.top_q = doubles(pb->b * pb->h * pb->nq), r.top_k = doubles(pb->b * pb->hkv * pb->nk);
  return r;
}
static void reference_free(reference *r) { free(r->w), free(r->top_q), free(r->top_k); }

/* u [m] = exponents (relu: features less eps) of x; *top = largest w.x, unless it is given. */
static void exponents(const reference *r, const double *x, int64_t d, double *u, double *top, int fresh) {
  double square = 0.0, most = -INFINITY;
  for (int64_t t = 0; t < d; t++) square += x[t] * x[t];
  for (int64_t i = 0; i < r->m; i++) {
    u[i] = 0.0;
    for (int64_t t = 0; t < d; t++) u[i] += (double)r->w[i * d + t] * x[t];
    most = fmax(most, u[i]);
  }
  if (fresh) *top = r->relu ? 0.0 : most;
  for (int64_t i = 0; i < r->m; i++) u[i] = r->relu ? fmax(u[i], 0.0) : u[i] - r->c2 * square / 2;
}
static double feature(const reference *r, double u, double top) { return (r->relu ? u : exp(u - top)) + r->eps; }

static void attend(const reference *r, const attn_problem *pb, ref_view q, ref_view k, ref_view v, const uint8_t *mask, int fresh, ref_view out) {
  double *uk = doubles(pb->nk * r->m), *uq = doubles(r->m), *phi = doubles(pb->nk * r->m);
  for (int64_t ib = 0; ib < pb->b; ib++)
    for (int64_t ih = 0; ih < pb->h; ih++) {
      const int64_t ik = ih / (pb->h / pb->hkv);
      double *top_k = r->top_k + (ib * pb->hkv + ik) * pb->nk, done = NAN;
      for (int64_t j = 0; j < pb->nk; j++)
        exponents(r, k.p + ib * k.sb + ik * k.sh + j * k.sn, pb->d, uk + j * r->m, top_k + j, fresh);
      for (int64_t i = 0; i < pb->nq; i++) {
        double *o = out.p + ib * out.sb + ih * out.sh + i * out.sn, den = 0.0, most = -INFINITY;
        double *top_q = r->top_q + (ib * pb->h + ih) * pb->nq + i;
        int64_t seen = 0;
        exponents(r, q.p + ib * q.sb + ih * q.sh + i * q.sn, pb->d, uq, top_q, fresh);
        for (int64_t t = 0; t < pb->dv; t++) o[t] = 0.0;
        for (int64_t j = 0; j < pb->nk; j++) {
          const int kept = !mask || mask[ib * pb->nk + j];
          if (pb->causal && j > i + pb->nk - pb->nq) break;
          seen += kept;
          if (kept || r->leak) most = fmax(most, kept ? top_k[j] : 0.0);
        }
        if (!seen) continue;
        for (int64_t x = 0; x < pb->nk * r->m && most != done; x++) phi[x] = feature(r, uk[x], most);
        done = most;
        for (int64_t j = 0; j < pb->nk; j++) {
          const int kept = !mask || mask[ib * pb->nk + j];
          double weight = 0.0;
          if ((!kept && !r->leak) || (pb->causal && j > i + pb->nk - pb->nq)) continue;
          for (int64_t x = 0; x < r->m; x++)
            weight += feature(r, uq[x], *top_q) * (kept ? phi[j * r->m + x] : feature(r, 0.0, most));
          den += weight;
          for (int64_t t = 0; t < pb->dv && kept; t++) o[t] += weight * v.p[ib * v.sb + ik * v.sh + j * v.sn + t];
        }
        for (int64_t t = 0; t < pb->dv; t++) o[t] /= den;
      }
    }
  free(uk), free(uq), free(phi);
}
static void reference_of_case(train_case *x, int fresh) {
  attend(x->ctx, &x->pb, train_case_ref(x, TRAIN_Q), train_case_ref(x, TRAIN_K), train_case_ref(x, TRAIN_V), x->mask, fresh,
         train_case_ref(x, TRAIN_OUT));
}

static attn_problem problem(int64_t b, int64_t h, int64_t hkv, int64_t nq, int64_t nk, int64_t d, int64_t dv) {
  return (attn_problem){.b = b, .h = h, .hkv = hkv, .nq = nq, .nk = nk, .d = d, .dv = dv, .scale = (float)(1.0 / sqrt((double)d)), .threads = 2, .seed = 3};
}

/* Relative error of a weight: exponents are sums of d terms of size up to about 10; then sums over features and keys. */
static double rounding(const attn_problem *pb, int64_t m) {
  return 0x1p-24 * (6.0 * (double)pb->d + 2.0 * sqrt((double)pb->nk) + 4.0 * sqrt((double)m) + 40.0);
}

static const char *const settings[] = {
    "features=37", "features=16 projection=iid eps=0.01", "features=70 eps=0.000000000001", "features=33 kernel=relu eps=0.001",
    "kernel=relu_plain eps=0.001", "features=50 scaling=twice padding=leak redraw=never", "features=2 padding=leak", "features=20 kernel=relu padding=leak",
};
enum { SETTINGS = sizeof settings / sizeof *settings };
static const struct shape {
  int64_t b, h, hkv, nq, nk, d, dv;
} shapes[] = {{1, 1, 1, 1, 1, 1, 1}, {2, 2, 1, 5, 7, 3, 5}, {1, 4, 2, 13, 13, 8, 8}, {1, 2, 2, 17, 3, 16, 20}, {2, 2, 2, 131, 131, 32, 32}, {1, 2, 1, 50, 261, 9, 33}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void every_case(void (*check)(train_case *, const reference *)) {
  for (int i = 0; i < SHAPES; i++)
    for (int j = 0; j < SETTINGS; j++)
      for (int masked = 0; masked < 2; masked++) {
        const struct shape *s = shapes + i;
        void *params = subject_params(performer(), settings[j]);
        train_case x = train_case_new(&attn_method_performer, params, problem(s->b, s->h, s->hkv, s->nq, s->nk, s->d, s->dv), 0.1f, masked, 1.0);
        reference r = reference_new(&x.pb, settings[j], params);
        x.reference = reference_of_case, x.ctx = &r;
        check(&x, &r);
        reference_free(&r), train_case_free(&x), free(params);
      }
}

static void check_forward(train_case *x, const reference *r) { train_case_check_forward(x, 3 * rounding(&x->pb, r->m)); }
static void test_forward__every_setting_shape_and_mask__matches_double(void **state) {
  (void)state;
  every_case(check_forward);
}

/* relu turns at 0: differences are small, so that hardly a feature turns within one. */
static void check_backward(train_case *x, const reference *r) {
  train_case_check_backward(x, x->pb.nk > 40 ? 1 : 8, 20 * rounding(&x->pb, r->m), r->relu ? 1e-7 : 1e-5);
}
static void test_backward__every_setting_shape_and_mask__matches_slopes(void **state) {
  (void)state;
  every_case(check_backward);
}

static void check_threads(train_case *x, const reference *r) {
  (void)r;
  train_case_check_threads(x);
}
static void test_backward__threads__do_not_change_bits(void **state) {
  (void)state;
  every_case(check_threads);
}

static void test_backward__no_key_left__zero_gradients(void **state) {
  (void)state;
  train_case x = train_case_new(&attn_method_performer, performer()->params, problem(1, 2, 2, 60, 60, 8, 8), 0.0f, 1, 1.0);
  memset(x.mask, 0, 60);
  train_case_forward(&x), train_case_backward(&x);
  for (int i = TRAIN_OUT; i < TRAIN_TENSORS; i++)
    for (int64_t j = 0; j < x.size[i] && i != TRAIN_DOUT; j++) assert_true(x.t[i][j] == 0.0f);
  train_case_free(&x);
}

static void test_training__causal__refused(void **state) {
  (void)state;
  attn_problem pb = problem(1, 1, 1, 8, 8, 4, 4);
  attn_mem need;
  pb.causal = 1;
  assert_int_equal(attn_method_performer.training->sizes(&pb, performer()->params, &need), ATTN_ERR_UNSUPPORTED);
}

/* Small eps: then maxima cancel, and the encoder may be differentiated as a whole. */
static void attend_layer(void *ctx, int l, const attn_problem *pb, ref_view q, ref_view k, ref_view v, const double *learned, float drop,
                         uint64_t key, ref_view out) {
  (void)l, (void)learned, (void)drop, (void)key;
  reference r = reference_new(pb, "eps=0.000000000001", ctx);
  attend(&r, pb, q, k, v, NULL, 1, out);
  reference_free(&r);
}
static void test_encoder__every_parameter__matches_its_slope(void **state) {
  (void)state;
  const encoder_config c = {.vocab = 7, .positions = 16, .width = 8, .layers = 2, .heads = 2, .mlp = 9, .head_hidden = 5, .classes = 3, .inputs = 1};
  void *params = subject_params(performer(), "features=12 eps=0.000000000001 redraw=never");
  train_case_check_encoder(&c, &attn_method_performer, params, 15, 0.2, attend_layer, params);
  free(params);
}

/* --- the causal form ------------------------------------------------------------------------------------------------ */

/* Long enough for several chunks, of several tiles each. */
static void test_causal__blocks_and_chunks__equal_the_prefix_loop(void **state) {
  (void)state;
  static const attn_shape cases[] = {
      {1, 2, 1, 70, 70, 8, 8, 1, 0, 1}, {2, 1, 1, 49, 130, 5, 7, 1, 1, 0}, {1, 1, 1, 130, 49, 5, 33, 1, 0, 0}, {1, 1, 1, 1990, 1990, 4, 4, 1, 1, 0}};
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < SETTINGS; j++) {
      if (strstr(settings[j], "leak") || (i == 3 && j > 1)) continue;
      void *params = subject_params(performer(), settings[j]);
      attn_case c;
      attn_result r;
      attn_case_make(&c, cases[i], ATTN_GAUSS, 5);
      assert_int_equal(attn_case_run(&attn_method_performer, params, &c, i % 2 ? ATTN_AT_END : 0, &r), ATTN_OK);
      reference ref = reference_new(&c.pb, settings[j], params);
      const attn_view views[3] = {c.q, c.k, c.v};
      const int64_t width[3] = {c.pb.d, c.pb.d, c.pb.dv}, rows[3] = {c.pb.nq, c.pb.nk, c.pb.nk}, heads[3] = {c.pb.h, c.pb.hkv, c.pb.hkv};
      ref_view t[4];
      for (int x = 0; x < 3; x++) {
        t[x] = (ref_view){doubles(c.pb.b * heads[x] * rows[x] * width[x]), heads[x] * rows[x] * width[x], rows[x] * width[x], width[x]};
        for (int64_t ib = 0; ib < c.pb.b; ib++)
          for (int64_t ih = 0; ih < heads[x]; ih++)
            for (int64_t y = 0; y < rows[x]; y++)
              for (int64_t z = 0; z < width[x]; z++) {
                const double value = (double)attn_case_row(&views[x], ib, ih, y)[z];
                t[x].p[ib * t[x].sb + ih * t[x].sh + y * t[x].sn + z] = x > 0 && c.mask && !c.mask[ib * c.pb.nk + y] ? 0.0 : value;
              }
      }
      t[3] = (ref_view){doubles(r.rows * c.pb.dv), c.pb.h * c.pb.nq * c.pb.dv, c.pb.nq * c.pb.dv, c.pb.dv};
      attend(&ref, &c.pb, t[0], t[1], t[2], c.mask, 1, t[3]);
      const double bound = 3 * rounding(&c.pb, ref.m);
      for (int64_t x = 0; x < r.rows * c.pb.dv; x++)
        if (!(fabs((double)r.out[x] - t[3].p[x]) <= bound))
          fail_msg("%s, shape %d: row %lld is %.9g, expected %.9g within %.3g", settings[j], i, (long long)(x / c.pb.dv), (double)r.out[x], t[3].p[x], bound);
      for (int x = 0; x < 4; x++) free(t[x].p);
      reference_free(&ref), attn_result_free(&r), attn_case_free(&c), free(params);
    }
}

static void test_causal__one_token_changed__rows_before_keep_their_bits(void **state) {
  (void)state;
  attn_case c;
  attn_result a, b;
  attn_case_make(&c, (attn_shape){1, 1, 1, 2000, 2000, 8, 8, 1, 0, 0}, ATTN_GAUSS, 5);
  assert_int_equal(attn_case_run(&attn_method_performer, performer()->params, &c, 0, &a), ATTN_OK);
  for (int64_t t = 0; t < 8; t++) attn_case_row(&c.k, 0, 0, 1000)[t] *= 5.0f, attn_case_row(&c.v, 0, 0, 1000)[t] = 9.0f;
  assert_int_equal(attn_case_run(&attn_method_performer, performer()->params, &c, 0, &b), ATTN_OK);
  assert_memory_equal(a.out, b.out, 1000 * 8 * sizeof(float));
  for (int64_t i = 1000; i < 2000; i++) assert_memory_not_equal(a.out + i * 8, b.out + i * 8, 8 * sizeof(float));
  attn_result_free(&a), attn_result_free(&b), attn_case_free(&c);
}

/* --- what is promised ----------------------------------------------------------------------------------------------- */

static void test_projection__blocks__orthogonal_with_lengths_of_gaussian_rows(void **state) {
  (void)state;
  enum { D = 16, M = 40, SEEDS = 200 };
  void *params = subject_params(performer(), "features=40");
  float w[M * D];
  double mean = 0, square = 0;
  attn_problem pb = problem(1, 1, 1, 1, 1, D, D);
  for (int seed = 0; seed < SEEDS; seed++) {
    pb.seed = (uint64_t)seed;
    performer_projection(&pb, params, w);
    for (int i = 0; i < M; i++)
      for (int j = 0; j <= i; j++) {
        double dot = 0, length = 0;
        for (int t = 0; t < D; t++) dot += (double)w[i * D + t] * (double)w[j * D + t], length += (double)w[i * D + t] * (double)w[i * D + t];
        length /= (double)pb.scale;
        if (j == i) mean += length / (SEEDS * M), square += length * length / (SEEDS * M);
        else if (j / D == i / D) assert_true(fabs(dot) <= 1e-4 * length);
      }
  }
  assert_true(fabs(mean - D) < 0.3);                             /* chi^2 with D degrees: standard error 0.063 */
  assert_true(fabs(square - mean * mean - 2 * D) < 0.15 * 2 * D); /* variance 2 D: 2.5 % */
  free(params);
}

/* One key, one feature: exp(lse) is one draw of the kernel. */
static void test_kernel__400000_draws__mean_and_variance_of_theory(void **state) {
  (void)state;
  enum { D = 4, DRAWS = 400000 };
  void *params = subject_params(performer(), "features=1 projection=iid eps=0.000000000001");
  attn_problem pb = problem(1, 1, 1, 1, 1, D, 1);
  pb.threads = 1;
  float q[D] = {0.5f, -0.3f, 0.2f, 0.4f}, k[D] = {0.3f, 0.2f, -0.3f, 0.5f}, v = 1.0f, out, lse;
  attn_mem need;
  assert_int_equal(attn_method_performer.sizes(&pb, params, &need), ATTN_OK);
  void *plan = attn_alloc(need.plan), *scratch = attn_alloc(need.scratch);
  double mean = 0, square = 0, both = 0, product = 0;
  for (int seed = 0; seed < DRAWS; seed++) {
    attn_stats st = {.lse = &lse};
    pb.seed = (uint64_t)seed;
    assert_int_equal(attn_method_performer.prepare(plan, &pb, params), ATTN_OK);
    assert_int_equal(attn_method_performer.build(plan, (attn_view){k, D, D, D}, (attn_view){&v, 1, 1, 1}, NULL, scratch), ATTN_OK);
    assert_int_equal(attn_method_performer.forward(plan, params, (attn_view){q, D, D, D}, (attn_viewm){&out, 1, 1, 1}, scratch, &st), ATTN_OK);
    const double estimate = exp((double)lse);
    mean += estimate / DRAWS, square += estimate * estimate / DRAWS;
  }
  for (int t = 0; t < D; t++) {
    product += (double)q[t] * (double)k[t] * (double)pb.scale;
    both += pow((double)q[t] + (double)k[t], 2) * (double)pb.scale;
  }
  const double want = exp(product), variance = want * want * (exp(both) - 1), got = square - mean * mean;
  if (!(fabs(mean - want) <= 3 * sqrt(variance / DRAWS))) fail_msg("mean %.6g, expected %.6g", mean, want);
  if (!(fabs(got / variance - 1) <= 0.05)) fail_msg("variance %.6g, expected %.6g", got, variance);
  attn_free(plan), attn_free(scratch), free(params);
}

/* Relative error against softmax attention with logits scale * q.k, over a few seeds. */
static double error_of(const char *text, double spread, double scale) {
  double diff = 0, size = 0;
  void *params = subject_params(performer(), text);
  for (uint64_t seed = 0; seed < 6; seed++) {
    attn_case c;
    attn_result r;
    attn_case_make(&c, (attn_shape){1, 1, 1, 200, 200, 16, 16, 0, 0, 0}, ATTN_GAUSS, seed);
    for (int64_t i = 0; i < 200; i++)
      for (int64_t t = 0; t < 16; t++) attn_case_row(&c.q, 0, 0, i)[t] *= (float)spread, attn_case_row(&c.k, 0, 0, i)[t] *= (float)spread;
    assert_int_equal(attn_case_run(&attn_method_performer, params, &c, 0, &r), ATTN_OK);
    c.pb.scale = (float)scale;
    attn_truth t = attn_ref(&c, NULL);
    for (int64_t x = 0; x < 200 * 16; x++) diff += pow((double)r.out[x] - t.out[x], 2), size += pow(t.out[x], 2);
    attn_truth_free(&t), attn_result_free(&r), attn_case_free(&c);
  }
  free(params);
  return sqrt(diff / size);
}

static void test_error__four_times_the_features__half(void **state) {
  (void)state;
  const double few = error_of("features=64 eps=0.000000000001", 0.4, 0.25), more = error_of("features=256 eps=0.000000000001", 0.4, 0.25),
               most = error_of("features=1024 eps=0.000000000001", 0.4, 0.25);
  if (!(fabs(more / few - 0.5) <= 0.1 && fabs(most / more - 0.5) <= 0.1)) fail_msg("errors %.3g, %.3g, %.3g", few, more, most);
}

static void test_scaling__twice__softmax_of_products_over_d(void **state) {
  (void)state;
  const char *text = "features=2048 scaling=twice eps=0.000001";
  const double over_d = error_of(text, 1.2, 1.0 / 16), over_root = error_of(text, 1.2, 0.25);
  if (!(over_d < 0.15 && over_root > 0.5)) fail_msg("errors %.3g, %.3g", over_d, over_root);
}

/* Padding appended: no change; under padding=leak outputs shrink. */
static void test_padding__appended__same_or_leaking(void **state) {
  (void)state;
  double norm[2] = {0, 0};
  for (int leak = 0; leak < 2; leak++) {
    void *params = subject_params(performer(), leak ? "padding=leak" : "");
    attn_case c;
    attn_result padded, r;
    attn_case_make(&c, (attn_shape){1, 2, 2, 200, 400, 8, 8, 0, 2, 0}, ATTN_GAUSS, 5);
    memset(c.mask, 1, 200), memset(c.mask + 200, 0, 200);
    assert_int_equal(attn_case_run(&attn_method_performer, params, &c, 0, &padded), ATTN_OK);
    for (int64_t ih = 0; ih < 2; ih++) /* what the case masked at random holds NaN */
      for (int64_t j = 0; j < 200; j++) assert_true(isfinite(attn_case_row(&c.k, 0, ih, j)[0]));
    attn_case whole = c;
    whole.pb.nk = 200, whole.mask = NULL;
    assert_int_equal(attn_case_run(&attn_method_performer, params, &whole, 0, &r), ATTN_OK);
    double full = 0;
    for (int64_t x = 0; x < r.rows * 8; x++) norm[leak] += pow((double)padded.out[x], 2), full += pow((double)r.out[x], 2);
    norm[leak] = sqrt(norm[leak] / full);
    if (!leak) assert_memory_equal(r.out, padded.out, (size_t)(r.rows * 8) * sizeof(float));
    attn_result_free(&padded), attn_result_free(&r), attn_case_free(&c), free(params);
  }
  assert_true(norm[1] < 0.95);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward__every_setting_shape_and_mask__matches_double),
      cmocka_unit_test(test_backward__every_setting_shape_and_mask__matches_slopes),
      cmocka_unit_test(test_backward__threads__do_not_change_bits),
      cmocka_unit_test(test_backward__no_key_left__zero_gradients),
      cmocka_unit_test(test_training__causal__refused),
      cmocka_unit_test(test_encoder__every_parameter__matches_its_slope),
      cmocka_unit_test(test_causal__blocks_and_chunks__equal_the_prefix_loop),
      cmocka_unit_test(test_causal__one_token_changed__rows_before_keep_their_bits),
      cmocka_unit_test(test_projection__blocks__orthogonal_with_lengths_of_gaussian_rows),
      cmocka_unit_test(test_kernel__400000_draws__mean_and_variance_of_theory),
      cmocka_unit_test(test_error__four_times_the_features__half),
      cmocka_unit_test(test_scaling__twice__softmax_of_products_over_d),
      cmocka_unit_test(test_padding__appended__same_or_leaking),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
