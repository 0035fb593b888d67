/* test_attn.c - what every attention of the table promises, tested by the capabilities it declares. Degenerate inputs and
 * refusals are in test_limits.c. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "tests/support/attn_case.h"
#include "tests/support/subject.h"

static const attn_shape shapes[] = {
    /* b  h  hkv nq   nk   d    dv  causal masked interleaved */
    {1, 1, 1, 1, 1, 1, 1, 0, 0, 0},        {1, 1, 1, 1, 2, 3, 1, 0, 0, 0},        {2, 2, 2, 7, 7, 7, 9, 1, 0, 0},
    {1, 2, 2, 31, 31, 8, 8, 0, 0, 1},      {2, 3, 3, 33, 33, 33, 31, 0, 1, 0},    {1, 4, 2, 97, 97, 16, 16, 1, 1, 1},
    {2, 2, 1, 128, 128, 32, 32, 1, 0, 0},  {1, 2, 2, 257, 257, 32, 32, 0, 2, 0},  {1, 2, 2, 300, 300, 32, 32, 1, 0, 0},
    {2, 1, 1, 5, 149, 9, 17, 0, 1, 1},     {1, 1, 1, 149, 5, 9, 17, 0, 0, 0},     {1, 2, 1, 20, 50, 24, 8, 1, 1, 0},
    {1, 1, 1, 50, 20, 24, 8, 1, 0, 0},     {1, 1, 1, 10, 10, 128, 129, 0, 0, 0},  {1, 1, 1, 127, 129, 2, 3, 0, 0, 0},
    {1, 1, 1, 130, 600, 32, 32, 1, 1, 0},  {1, 1, 1, 150, 600, 16, 16, 0, 0, 0},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };
/* One of each kind, for the properties that run a method many times. */
static const attn_shape few[] = {
    {2, 2, 2, 65, 65, 16, 16, 0, 1, 0}, {2, 4, 2, 61, 61, 9, 7, 0, 0, 1}, {1, 2, 2, 300, 300, 8, 8, 1, 0, 0},
    {1, 2, 1, 40, 290, 8, 8, 1, 1, 0},  {1, 1, 1, 99, 500, 8, 8, 0, 0, 0},
};
enum { N_FEW = sizeof few / sizeof *few };

#define FOR_SUBJECTS(s) for (const subject *s = subjects(); s->m; s++)
#define FOR_FEW(s, i)                                                                                                  \
  FOR_SUBJECTS(s) for (int i = 0; i < N_FEW; i++) if (subject_can(s, few[i]))

static int64_t key_head(const attn_case *c, int64_t row) {
  return row / c->pb.nq % c->pb.h / (c->pb.h / c->pb.hkv);
}
static int64_t batch(const attn_case *c, int64_t row) { return row / (c->pb.h * c->pb.nq); }
static int64_t sees(const attn_case *c, int64_t row) { return attn_case_visible(c, batch(c, row), row % c->pb.nq); }

static int same_row(const attn_result *a, int64_t ra, const attn_result *b, int64_t rb) {
  const int64_t dv = a->pb.dv;
  return memcmp(a->out + ra * dv, b->out + rb * dv, (size_t)dv * sizeof(float)) == 0 &&
         memcmp(a->lse + ra, b->lse + rb, sizeof(float)) == 0;
}
static void assert_same(const char *label, const char *what, const attn_result *a, const attn_result *b) {
  assert_int_equal(a->rows, b->rows);
  for (int64_t row = 0; row < a->rows; row++)
    if (!same_row(a, row, b, row)) fail_msg("%s: row %lld differs %s", label, (long long)row, what);
}

/* Neither exact nor a softmax over some keys: only compared with itself. */
static int approximate(const subject *s) { return !(s->m->caps & (ATTN_CAP_EXACT | ATTN_CAP_KEYSET)); }
/* Row ra of a equals row rb of b up to the rounding of sums in another order. */
static void assert_near(const char *label, const char *what, const attn_result *a, int64_t ra, const attn_result *b, int64_t rb) {
  const int64_t dv = a->pb.dv;
  for (int64_t t = 0; t < dv; t++) {
    const double x = (double)a->out[ra * dv + t], y = (double)b->out[rb * dv + t];
    if (!(fabs(x - y) <= 1e-5 * (1 + fabs(y)))) fail_msg("%s: row %lld is %.9g, %.9g %s", label, (long long)ra, x, y, what);
  }
}

/* Fresh numbers in one row of a tensor. */
static void redraw(const attn_view *v, int64_t ib, int64_t ih, int64_t i, int64_t width, float size, attn_rng *r) {
  float *row = attn_case_row(v, ib, ih, i);
  for (int64_t t = 0; t < width; t++) row[t] = size * (float)attn_rng_normal(r);
}

/* --- the table ---------------------------------------------------------------------------------------------------- */

static void test_table__every_row__passes_the_self_check(void **state) {
  (void)state;
  ice_err e = {0};
  if (registry_self_check(&e) != ICE_OK) fail_msg("%s", e.text);
}

static void test_caps__problem_beyond_them__refused(void **state) {
  (void)state;
  static const attn_shape kinds[] = {
      {1, 1, 1, 4, 4, 4, 4, 1, 0, 0}, {1, 1, 1, 4, 5, 4, 4, 0, 0, 0}, {1, 2, 1, 4, 4, 4, 4, 0, 0, 0}};
  FOR_SUBJECTS(s) for (int i = 0; i < 3; i++) {
    attn_case c;
    attn_case_make(&c, kinds[i], ATTN_GAUSS, 1);
    attn_case_learn(&c, s->m, s->params);
    assert_int_equal(attn_check(s->m, &c.pb, s->params), subject_can(s, kinds[i]) ? ATTN_OK : ATTN_ERR_UNSUPPORTED);
    attn_case_free(&c);
  }
}

/* --- values ------------------------------------------------------------------------------------------------------- */

static void test_exact__every_shape__equals_reference(void **state) {
  (void)state;
  FOR_SUBJECTS(s) for (int i = 0; i < N_SHAPES; i++) {
    if (!(s->m->caps & ATTN_CAP_EXACT) || !subject_can(s, shapes[i])) continue;
    attn_case c;
    attn_result r;
    attn_case_make(&c, shapes[i], ATTN_GAUSS, (uint64_t)i);
    subject_run(s, NULL, &c, i % 2 ? ATTN_AT_END : 0, &r);
    attn_assert_close(s->label, &c, &r, NULL);
    uint64_t pairs = 0;
    for (int64_t row = 0; row < r.rows; row++) pairs += (uint64_t)sees(&c, row);
    assert_int_equal(r.pairs, pairs);
    attn_result_free(&r), attn_case_free(&c);
  }
}

/* Distinct keys, all visible, and where a method reports all it uses: outputs are the softmax over them, and the distance
 * to full attention is at most what the missing mass allows (rest and kept part both lie among the values). */
static void check_key_sets(const subject *s, const attn_case *c, const attn_truth *full, const attn_result *r) {
  const attn_problem *pb = &c->pb;
  attn_truth kept = attn_ref(c, r->keys);
  double *length = calloc((size_t)(pb->b * pb->hkv * pb->nk) + 1, sizeof *length); /* of values */
  assert_non_null(length);
  for (int64_t i = 0; i < pb->b * pb->hkv * pb->nk; i++) {
    const float *v = attn_case_row(&c->v, i / (pb->hkv * pb->nk), i / pb->nk % pb->hkv, i % pb->nk);
    for (int64_t t = 0; t < pb->dv; t++) length[i] += (double)v[t] * (double)v[t];
    length[i] = sqrt(length[i]);
  }
  for (int64_t row = 0; row < r->rows; row++) {
    for (int64_t j = 0; j < pb->nk; j++)
      if (r->keys[row * pb->nk + j] > (attn_case_sees(c, batch(c, row), row % pb->nq, j) ? 1 : 0))
        fail_msg("%s: row %lld reports key %lld %d times", s->label, (long long)row, (long long)j, r->keys[row * pb->nk + j]);
    if (!subject_reports_all(s)) continue;
    double square = 0, longest = 0;
    for (int64_t t = 0; t < pb->dv; t++) {
      const double diff = (double)r->out[row * pb->dv + t] - full->out[row * pb->dv + t];
      square += diff * diff;
    }
    for (int64_t j = 0; j < pb->nk; j++)
      if (attn_case_sees(c, batch(c, row), row % pb->nq, j)) longest = fmax(longest, length[(batch(c, row) * pb->hkv + key_head(c, row)) * pb->nk + j]);
    const double mass = sees(c, row) ? exp(kept.lse[row] - full->lse[row]) : 1.0;
    const double most = 2 * fmax(0.0, 1 - mass) * longest + kept.bound[row] * sqrt((double)pb->dv) + 1e-12;
    if (!(sqrt(square) <= most))
      fail_msg("%s: row %lld is %.3g from full attention, allowed %.3g for a mass of %.6f", s->label, (long long)row,
               sqrt(square), most, mass);
  }
  attn_truth_free(&kept), free(length);
}

static void test_key_sets__every_shape__distinct_visible_and_what_the_output_is_made_of(void **state) {
  (void)state;
  for (int i = 0; i < N_SHAPES; i++) {
    attn_case c;
    attn_case_make(&c, shapes[i], i % 3 ? ATTN_CLUSTERED : ATTN_GAUSS, (uint64_t)i);
    attn_truth full = attn_ref(&c, NULL);
    FOR_SUBJECTS(s) {
      attn_result r, quiet;
      if (!(s->m->caps & ATTN_CAP_KEYSET) || !subject_can(s, shapes[i])) continue;
      subject_run(s, NULL, &c, ATTN_WANT_KEYS | (i % 2 ? ATTN_AT_END : 0), &r);
      check_key_sets(s, &c, &full, &r);
      if (subject_reports_all(s)) attn_assert_close(s->label, &c, &r, r.keys);
      subject_run(s, NULL, &c, 0, &quiet);
      assert_same(s->label, "when key sets are not asked for", &r, &quiet);
      attn_result_free(&r), attn_result_free(&quiet);
    }
    attn_truth_free(&full), attn_case_free(&c);
  }
}

/* Methods with a parameter k use min(k, visible) keys, neither more nor fewer. */
static void test_key_sets__parameter_k__is_their_size(void **state) {
  (void)state;
  FOR_FEW(s, i) {
    ice_err e;
    const attn_param *p = s->m->params && s->m->params->key ? registry_param(s->m, "k", &e) : NULL;
    if (!p || !(s->m->caps & ATTN_CAP_KEYSET)) continue;
    int64_t k;
    memcpy(&k, (const char *)s->params + p->offset, sizeof k);
    attn_case c;
    attn_result r;
    attn_case_make(&c, few[i], ATTN_CLUSTERED, 5);
    subject_run(s, NULL, &c, ATTN_WANT_KEYS, &r);
    for (int64_t row = 0; row < r.rows; row++) {
      int64_t used = 0, visible = sees(&c, row);
      for (int64_t j = 0; j < c.pb.nk; j++) used += r.keys[row * c.pb.nk + j];
      if (used != (k < visible ? k : visible))
        fail_msg("%s: row %lld uses %lld keys of %lld", s->label, (long long)row, (long long)used, (long long)visible);
    }
    attn_result_free(&r), attn_case_free(&c);
  }
}

static void test_topk__every_shape__keys_are_the_best(void **state) {
  (void)state;
  FOR_SUBJECTS(s) for (int i = 0; i < N_SHAPES; i++) {
    if (strcmp(s->m->name, "topk") != 0) continue;
    attn_case c;
    attn_result r;
    attn_case_make(&c, shapes[i], ATTN_CLUSTERED, (uint64_t)i);
    subject_run(s, NULL, &c, ATTN_WANT_KEYS, &r);
    for (int64_t row = 0; row < r.rows; row++) {
      double worst = INFINITY, best = -INFINITY, slack = 0;
      for (int64_t j = 0; j < c.pb.nk; j++) {
        if (!attn_case_sees(&c, batch(&c, row), row % c.pb.nq, j)) continue;
        double size;
        const double score = attn_ref_score(&c, row, j, &size);
        slack = fmax(slack, 2 * (double)(c.pb.d + 2) * (double)FLT_EPSILON * size); /* two rounded products */
        if (r.keys[row * c.pb.nk + j]) worst = fmin(worst, score);
        else best = fmax(best, score);
      }
      if (best > worst + slack) fail_msg("%s: row %lld leaves out %.9g, keeps %.9g", s->label, (long long)row, best, worst);
    }
    uint64_t pairs = 0;
    for (int64_t row = 0; row < r.rows; row++) pairs += (uint64_t)sees(&c, row);
    assert_int_equal(r.pairs, pairs);
    attn_result_free(&r), attn_case_free(&c);
  }
}

/* With its budget at the maximum a method is exact; on the way mean error falls: each step's mean difference over seeds is
 * below zero, or within three standard errors of it. */
static void test_converges__rising_budget__error_falls_to_rounding(void **state) {
  (void)state;
  enum { SEEDS = 20, STEPS = 4, MOST = 32 };
  static const int budget[STEPS] = {1, 3, 9, 1000000};
  static double error[MOST][STEPS][SEEDS]; /* of the converging subjects, in order */
  const attn_shape shape = {1, 1, 1, 40, 300, 16, 16, 0, 1, 0};
  for (int seed = 0; seed < SEEDS; seed++) {
    attn_case c;
    attn_case_make(&c, shape, ATTN_CLUSTERED, (uint64_t)seed);
    attn_truth full = attn_ref(&c, NULL);
    int n = 0;
    FOR_SUBJECTS(s) {
      if (!(s->m->caps & ATTN_CAP_CONVERGES)) continue;
      assert_true(n < MOST);
      for (int step = 0; step < STEPS; step++) {
        attn_result r;
        void *params = subject_budget(s, budget[step]);
        subject_run(s, params, &c, 0, &r);
        double square = 0;
        for (int64_t x = 0; x < r.rows * c.pb.dv; x++) square += pow((double)r.out[x] - full.out[x], 2);
        error[n][step][seed] = sqrt(square);
        if (step == STEPS - 1 && seed % 4 == 0) attn_assert_close(s->label, &c, &r, NULL);
        attn_result_free(&r), free(params);
      }
      n++;
    }
    attn_truth_free(&full), attn_case_free(&c);
  }
  int n = 0;
  FOR_SUBJECTS(s) {
    if (!(s->m->caps & ATTN_CAP_CONVERGES)) continue;
    for (int step = 1; step < STEPS; step++) {
      double mean = 0, square = 0;
      for (int i = 0; i < SEEDS; i++) mean += (error[n][step][i] - error[n][step - 1][i]) / SEEDS;
      for (int i = 0; i < SEEDS; i++) square += pow(error[n][step][i] - error[n][step - 1][i] - mean, 2);
      if (mean > 3 * sqrt(square / (SEEDS * (SEEDS - 1))))
        fail_msg("%s: error rises by %.3g from budget %d to %d", s->label, mean, budget[step - 1], budget[step]);
    }
    n++;
  }
}

/* The mass that a row leaves out, summed in double over the keys it did not report, is never more than the method says. */
static void test_missing__every_shape__bounds_the_mass_left_out(void **state) {
  (void)state;
  int bounded = 0;
  FOR_SUBJECTS(s) {
    for (int i = 0; i < 40; i++) {
      const attn_shape shape = {1 + i % 2, 2, 1 + i % 2, 30, 40 + i * 37 % 300, 3 + i % 20, 5, s->m->caps & ATTN_CAP_CAUSAL ? i / 2 % 2 : 0, i % 3, 0};
      if (!subject_can(s, shape)) continue;
      attn_case c;
      attn_result r;
      attn_case_make(&c, shape, i % 4 ? ATTN_CLUSTERED : ATTN_GAUSS, (uint64_t)i);
      subject_run(s, NULL, &c, ATTN_WANT_KEYS, &r);
      attn_truth full = attn_ref(&c, NULL);
      for (int64_t row = 0; row < r.rows; row++) {
        if (r.missing[row] == -1.0f) continue;
        double missing = 0, used = 0;
        for (int64_t j = 0; j < c.pb.nk; j++) {
          if (!attn_case_sees(&c, row / (c.pb.h * c.pb.nq), row % c.pb.nq, j)) continue;
          const double mass = exp(attn_ref_score(&c, row, j, NULL) * (double)c.pb.scale - full.lse[row]);
          *(r.keys[row * c.pb.nk + j] ? &used : &missing) += mass;
        }
        if (!(missing <= (double)r.missing[row] + 1e-12))
          fail_msg("%s: row %lld leaves out %.9g, said at most %.9g", s->label, (long long)row, missing, r.missing[row]);
        if (strstr(s->label, "stop=bound") && used > 0 && missing > 0.1)
          fail_msg("%s: row %lld leaves out %.9g, mass=0.9 allows 0.1", s->label, (long long)row, missing);
        bounded += r.missing[row] > 0.0f && r.missing[row] < 0.5f;
      }
      attn_truth_free(&full), attn_result_free(&r), attn_case_free(&c);
    }
  }
  assert_true(bounded > 100); /* bounds that say something */
}

/* A method that stops at a share of the mass does less for a smaller share. */
static void test_mass__smaller_share__fewer_keys_and_pairs(void **state) {
  (void)state;
  static const char *const share[] = {"mass=0.5", "mass=0.9", "mass=0.99", "mass=1"};
  enum { SHARES = 4 };
  int tried = 0;
  FOR_SUBJECTS(s) {
    const attn_shape shape = {1, 2, 2, 64, 1500, 16, 8, 0, 0, 0};
    if (!registry_param(s->m, "mass", NULL) || !strstr(s->label, "dense_below=0") || strstr(s->label, "visit=") || !subject_can(s, shape)) continue;
    uint64_t pairs[SHARES], used[SHARES] = {0};
    for (int i = 0; i < SHARES; i++) {
      attn_case c;
      attn_result r;
      void *params = subject_params(s, share[i]);
      attn_case_make(&c, shape, ATTN_CLUSTERED, 3);
      subject_run(s, params, &c, ATTN_WANT_KEYS, &r);
      pairs[i] = r.pairs;
      for (int64_t x = 0; x < r.rows * c.pb.nk; x++) used[i] += r.keys[x];
      attn_result_free(&r), attn_case_free(&c), free(params);
    }
    for (int i = 1; i < SHARES; i++)
      if (pairs[i] < pairs[i - 1] || used[i] < used[i - 1])
        fail_msg("%s: less work with %s (%llu pairs) than with %s (%llu)", s->label, share[i], (unsigned long long)pairs[i], share[i - 1],
                 (unsigned long long)pairs[i - 1]);
    if (!(used[0] < used[2] && pairs[0] < pairs[2])) fail_msg("%s: %s does as much as %s", s->label, share[0], share[2]);
    tried++;
  }
  assert_true(tried >= 2);
}

/* --- same bits ---------------------------------------------------------------------------------------------------- */

static void test_bits__1_2_7_threads_and_a_second_run__equal(void **state) {
  (void)state;
  FOR_FEW(s, i) {
    attn_case c;
    attn_result first, r;
    attn_case_make(&c, few[i], ATTN_CLUSTERED, 3);
    const int flags = s->m->caps & ATTN_CAP_KEYSET ? ATTN_WANT_KEYS : 0;
    subject_run(s, NULL, &c, flags, &first);
    static const int threads[] = {2, 1, 7};
    for (int t = 0; t < 3; t++) {
      c.pb.threads = threads[t];
      subject_run(s, NULL, &c, flags, &r);
      assert_same(s->label, "with another number of threads", &first, &r);
      assert_int_equal(first.pairs, r.pairs);
      assert_int_equal(first.bytes, r.bytes);
      if (flags) assert_memory_equal(first.keys, r.keys, (size_t)(r.rows * c.pb.nk));
      attn_result_free(&r);
    }
    attn_result_free(&first), attn_case_free(&c);
  }
}

static void test_bits__seed__matters_to_randomised_methods_only(void **state) {
  (void)state;
  FOR_SUBJECTS(s) {
    attn_case c;
    attn_result a, b;
    const int64_t nq = s->m->caps & ATTN_CAP_CROSS ? 50 : 400;
    attn_case_make(&c, (attn_shape){1, 1, 1, nq, 400, 16, 16, 0, 0, 0}, ATTN_GAUSS, 3);
    subject_run(s, NULL, &c, 0, &a);
    int differs = 0;
    for (uint64_t seed = 4; seed < 8; seed++) {
      c.pb.seed = seed;
      subject_run(s, NULL, &c, 0, &b);
      for (int64_t row = 0; row < a.rows; row++) differs |= !same_row(&a, row, &b, row);
      attn_result_free(&b);
    }
    if (differs && !(s->m->caps & ATTN_CAP_RANDOMISED)) fail_msg("%s depends on the seed and does not say so", s->label);
    attn_result_free(&a), attn_case_free(&c);
  }
}

/* One plan: built for other keys first, then for these; forward twice; between the calls nothing is forgotten. */
static void test_plan__built_again_and_used_twice__same_bits(void **state) {
  (void)state;
  FOR_FEW(s, i) {
    attn_case c, other;
    attn_result want, r;
    attn_case_make(&c, few[i], ATTN_GAUSS, 3);
    attn_case_make(&other, few[i], ATTN_GAUSS, 4);
    subject_run(s, NULL, &c, 0, &want);
    subject_run(s, NULL, &c, 0, &r);
    attn_mem need;
    attn_case_learn(&c, s->m, s->params);
    assert_int_equal(s->m->sizes(&c.pb, s->params, &need), ATTN_OK);
    void *plan = attn_alloc(need.plan), *scratch = attn_alloc(need.scratch);
    assert_true(plan && scratch);
    memset(plan, 0x7f, need.plan), memset(scratch, 0x7f, need.scratch);
    assert_int_equal(s->m->prepare(plan, &c.pb, s->params), ATTN_OK);
    assert_int_equal(s->m->build(plan, other.k, other.v, other.mask, scratch), ATTN_OK);
    assert_int_equal(s->m->build(plan, c.k, c.v, c.mask, scratch), ATTN_OK);
    const attn_viewm out = {r.out, c.pb.h * c.pb.nq * c.pb.dv, c.pb.nq * c.pb.dv, c.pb.dv};
    for (int call = 0; call < 2; call++) {
      memset(r.out, 0x7f, (size_t)(r.rows * c.pb.dv) * sizeof(float));
      assert_int_equal(s->m->forward(plan, s->params, call ? c.q : other.q, out, scratch, NULL), ATTN_OK);
    }
    assert_same(s->label, "in a plan built twice", &want, &r);
    s->m->release(plan);
    attn_free(plan), attn_free(scratch);
    attn_result_free(&want), attn_result_free(&r), attn_case_free(&c), attn_case_free(&other);
  }
}

static void test_out__strided__only_its_rows_are_written(void **state) {
  (void)state;
  FOR_FEW(s, i) {
    attn_case c;
    attn_result r;
    guard g;
    attn_case_make(&c, few[i], ATTN_GAUSS, 3);
    subject_run(s, NULL, &c, 0, &r);
    attn_mem need;
    attn_case_learn(&c, s->m, s->params);
    assert_int_equal(s->m->sizes(&c.pb, s->params, &need), ATTN_OK);
    void *plan = attn_alloc(need.plan), *scratch = attn_alloc(need.scratch);
    const int64_t sn = c.pb.h * (c.pb.dv + 1) + 2;
    const attn_viewm out = {guard_new(&g, c.pb.b * c.pb.nq * sn, 0, 0), c.pb.nq * sn, c.pb.dv + 1, sn};
    assert_int_equal(s->m->prepare(plan, &c.pb, s->params), ATTN_OK);
    assert_int_equal(s->m->build(plan, c.k, c.v, c.mask, scratch), ATTN_OK);
    assert_int_equal(s->m->forward(plan, s->params, c.q, out, scratch, NULL), ATTN_OK);
    for (int64_t row = 0; row < r.rows; row++) {
      float *at = out.p + batch(&c, row) * out.sb + row / c.pb.nq % c.pb.h * out.sh + row % c.pb.nq * out.sn;
      assert_memory_equal(at, r.out + row * c.pb.dv, (size_t)c.pb.dv * sizeof(float));
      for (int64_t t = 0; t < c.pb.dv; t++) at[t] = 1.0f;
    }
    int64_t untouched = 0;
    for (int64_t x = 0; x < g.n; x++) untouched += isnan(g.p[x]);
    assert_int_equal(untouched, g.n - r.rows * c.pb.dv);
    assert_true(guard_intact(&g));
    s->m->release(plan);
    attn_free(plan), attn_free(scratch), guard_free(&g), attn_result_free(&r), attn_case_free(&c);
  }
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void test_alloc__fails_at_any_call__out_of_memory_and_no_leak(void **state) {
  (void)state;
  FOR_FEW(s, i) for (uint64_t n = 1;; n++) {
    attn_case c;
    attn_result r;
    attn_case_make(&c, few[i], ATTN_GAUSS, 3);
    attn_alloc_fail_at(n);
    const uint64_t before = attn_alloc_counters().calls;
    const attn_status st = attn_case_run(s->m, s->params, &c, 0, &r); /* checks leaks, canaries, calls in forward */
    const int failed = attn_alloc_counters().calls - before >= n;
    attn_alloc_fail_at(0);
    assert_int_equal(st, failed ? ATTN_ERR_NOMEM : ATTN_OK);
    attn_result_free(&r), attn_case_free(&c);
    if (!failed) break;
  }
}

/* --- causality ---------------------------------------------------------------------------------------------------- */

static void test_causal__later_keys_and_values__do_not_move_earlier_rows(void **state) {
  (void)state;
  static const int64_t cuts[] = {0, 1, 62, 126, 127, 128, 200, 255, 256, 298};
  enum { RANDOM, ZERO, HUGE_NORM, WILD_VALUES, WAYS };
  FOR_FEW(s, i) {
    if (!few[i].causal) continue;
    attn_case c;
    attn_result want, r;
    attn_case_make(&c, few[i], ATTN_CLUSTERED, 3);
    subject_run(s, NULL, &c, 0, &want);
    for (int cut = 0; cut < (int)(sizeof cuts / sizeof *cuts); cut++) {
      const int way = cut % WAYS; /* cuts fall as keys are lost, so that each way meets the keys of the case */
      const int64_t last = cuts[sizeof cuts / sizeof *cuts - 1 - (size_t)cut];
      attn_rng g;
      attn_rng_seed(&g, (uint64_t)cut, 9);
      for (int64_t ih = 0; ih < c.pb.hkv; ih++)
        for (int64_t j = last + 1; j < c.pb.nk; j++) {
          if (c.mask && !c.mask[j]) continue;
          redraw(&c.k, 0, ih, j, c.pb.d, way == ZERO ? 0.0f : way == HUGE_NORM ? 1e12f : 1.0f, &g);
          redraw(&c.v, 0, ih, j, c.pb.dv, way == WILD_VALUES ? NAN : 1e3f, &g);
        }
      subject_run(s, NULL, &c, 0, &r);
      for (int64_t row = 0; row < r.rows; row++)
        if (row % c.pb.nq + c.pb.nk - c.pb.nq <= last && !same_row(&want, row, &r, row))
          fail_msg("%s: row %lld moved with keys after %lld (way %d)", s->label, (long long)row, (long long)last, way);
      attn_result_free(&r);
    }
    attn_result_free(&want), attn_case_free(&c);
  }
}

/* Row i of a long problem is the last row of a problem that ends there. */
static void test_causal__sequence_cut_after_a_row__same_row(void **state) {
  (void)state;
  static const int64_t ends[] = {0, 5, 127, 128, 200, 256, 300, 400, 511, 649};
  const attn_shape shape = {1, 2, 2, 650, 650, 8, 8, 1, 0, 0}, last_row = {1, 2, 2, 1, 650, 8, 8, 1, 0, 0};
  FOR_SUBJECTS(s) {
    if (!subject_can(s, shape) || !subject_can(s, last_row)) continue;
    attn_case c;
    attn_result full, r;
    attn_case_make(&c, shape, ATTN_CLUSTERED, 3);
    const int flags = s->m->caps & ATTN_CAP_KEYSET ? ATTN_WANT_KEYS : 0, itself = approximate(s) || !subject_reports_all(s);
    subject_run(s, NULL, &c, flags, &full);
    if (!approximate(s)) assert_memory_equal(full.out, attn_case_row(&c.v, 0, 0, 0), (size_t)c.pb.dv * sizeof(float));
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
      const int64_t nk = c.pb.nk, end = ends[i];
      attn_case cut = c;
      cut.pb.nk = end + 1;
      cut.pb.nq = 1;
      cut.q.p += end * c.q.sn;
      subject_run(s, NULL, &cut, flags, &r);
      for (int64_t ih = 0; ih < c.pb.h && itself; ih++) assert_near(s->label, "when the sequence ends there", &r, ih, &full, ih * nk + end);
      if (!itself) attn_assert_close(s->label, &cut, &r, flags ? r.keys : NULL);
      for (int64_t ih = 0; ih < c.pb.h && flags; ih++)
        if (memcmp(full.keys + (ih * nk + end) * nk, r.keys + ih * (end + 1), (size_t)end + 1) != 0)
          fail_msg("%s: keys of row %lld are others when the sequence ends there", s->label, (long long)end);
      attn_result_free(&r);
    }
    attn_result_free(&full), attn_case_free(&c);
  }
}

/* --- masks -------------------------------------------------------------------------------------------------------- */

/* A masked problem is the problem without the masked keys (but icecells counts its cells by all positions). */
static void test_mask__holes__equal_the_compacted_problem(void **state) {
  (void)state;
  FOR_SUBJECTS(s) {
    const attn_shape shape = {1, 2, 2, 30, 400, 8, 8, 0, 1, 0};
    if (!subject_can(s, shape) || !strcmp(s->m->name, "icecells")) continue;
    attn_case c;
    attn_result r, small;
    attn_case_make(&c, shape, ATTN_CLUSTERED, 3);
    const int flags = s->m->caps & ATTN_CAP_KEYSET ? ATTN_WANT_KEYS : 0;
    subject_run(s, NULL, &c, flags, &r);
    attn_case compact = c;
    int64_t at[400], kept = 0;
    for (int64_t j = 0; j < c.pb.nk; j++)
      if (c.mask[j]) at[kept++] = j;
    compact.mask = NULL;
    compact.pb.nk = kept;
    for (int64_t ih = 0; ih < 2; ih++)
      for (int64_t j = 0; j < kept; j++) {
        memmove(attn_case_row(&c.k, 0, ih, j), attn_case_row(&c.k, 0, ih, at[j]), (size_t)c.pb.d * sizeof(float));
        memmove(attn_case_row(&c.v, 0, ih, j), attn_case_row(&c.v, 0, ih, at[j]), (size_t)c.pb.dv * sizeof(float));
      }
    subject_run(s, NULL, &compact, flags, &small);
    for (int64_t row = 0; row < r.rows && approximate(s); row++) assert_near(s->label, "without the masked keys", &r, row, &small, row);
    if (!approximate(s) && (subject_reports_all(s) || !flags)) {
      attn_assert_close(s->label, &compact, &small, flags ? small.keys : NULL);
      attn_assert_close(s->label, &compact, &r, flags ? small.keys : NULL); /* of the masked run: same numbers expected */
    }
    for (int64_t row = 0; row < r.rows && flags; row++)
      for (int64_t j = 0; j < kept; j++) assert_int_equal(r.keys[row * c.pb.nk + at[j]], small.keys[row * kept + j]);
    attn_result_free(&r), attn_result_free(&small), attn_case_free(&c);
  }
}

static void test_mask__one_key_or_none_left__its_value_or_zeros(void **state) {
  (void)state;
  FOR_FEW(s, i) {
    if (!few[i].masked) continue;
    attn_case c;
    attn_result r;
    attn_case_make(&c, few[i], ATTN_GAUSS, 3);
    attn_case_learn(&c, s->m, s->params);
    const int learns = c.learned.n > 0; /* what a key is worth is learned: only zeros can be expected */
    const int64_t only = c.pb.nk / 3;
    attn_rng g;
    attn_rng_seed(&g, 1, 1);
    for (int64_t ib = 0; ib < c.pb.b; ib++)
      for (int64_t ih = 0; ih < c.pb.hkv; ih++) {
        redraw(&c.k, ib, ih, only, c.pb.d, 1.0f, &g);
        redraw(&c.v, ib, ih, only, c.pb.dv, 1.0f, &g);
      }
    memset(c.mask, 0, (size_t)(c.pb.b * c.pb.nk));
    for (int left = !learns; left >= 0; left--) {
      for (int64_t ib = 0; ib < c.pb.b; ib++) c.mask[ib * c.pb.nk + only] = (uint8_t)left;
      subject_run(s, NULL, &c, s->m->caps & ATTN_CAP_KEYSET ? ATTN_WANT_KEYS : 0, &r);
      for (int64_t row = 0; row < r.rows; row++)
        for (int64_t t = 0; t < c.pb.dv; t++) {
          const int used = subject_uses(s, &c, &r, row, only);
          const float want = used ? attn_case_row(&c.v, batch(&c, row), key_head(&c, row), only)[t] : 0.0f;
          const float slack = (approximate(s) ? 100 : 4) * FLT_EPSILON; /* a weight over itself, summed in two ways */
          if (!(fabsf(r.out[row * c.pb.dv + t] - want) <= slack * fabsf(want)))
            fail_msg("%s: row %lld is %.9g, expected %.9g", s->label, (long long)row, (double)r.out[row * c.pb.dv + t], (double)want);
          if (!used) assert_true(r.lse[row] == -INFINITY);
        }
      if (!left && strcmp(s->m->name, "icecells") != 0) assert_int_equal(r.pairs, 0); /* which scores its means anyway */
      attn_result_free(&r);
    }
    attn_case_free(&c);
  }
}

/* --- weights and symmetries --------------------------------------------------------------------------------------- */

static void test_stochastic__values_of_ones_and_any_values__ones_and_their_range(void **state) {
  (void)state;
  FOR_FEW(s, i) {
    if (!(s->m->caps & ATTN_CAP_STOCHASTIC)) continue;
    attn_case c;
    attn_result r;
    attn_case_make(&c, few[i], ATTN_CLUSTERED, 3);
    for (int ones = 0; ones < 2; ones++) {
      for (int64_t ib = 0; ib < c.pb.b && ones; ib++)
        for (int64_t ih = 0; ih < c.pb.hkv; ih++)
          for (int64_t j = 0; j < c.pb.nk; j++)
            for (int64_t t = 0; t < c.pb.dv; t++) attn_case_row(&c.v, ib, ih, j)[t] = 1.0f;
      subject_run(s, NULL, &c, 0, &r);
      for (int64_t row = 0; row < r.rows; row++) {
        float low[16], high[16];
        assert_true(c.pb.dv <= 16);
        for (int64_t t = 0; t < c.pb.dv; t++) low[t] = INFINITY, high[t] = -INFINITY;
        for (int64_t j = 0; j < c.pb.nk; j++) {
          if (!attn_case_sees(&c, batch(&c, row), row % c.pb.nq, j)) continue;
          const float *v = attn_case_row(&c.v, batch(&c, row), key_head(&c, row), j);
          for (int64_t t = 0; t < c.pb.dv; t++) low[t] = v[t] < low[t] ? v[t] : low[t], high[t] = v[t] > high[t] ? v[t] : high[t];
        }
        for (int64_t t = 0; t < c.pb.dv && r.lse[row] > -INFINITY; t++) {
          const float got = r.out[row * c.pb.dv + t];
          const float slack = (float)(c.pb.nk + 2) * FLT_EPSILON * fmaxf(fabsf(low[t]), fabsf(high[t]));
          if (!(got >= low[t] - slack && got <= high[t] + slack))
            fail_msg("%s: row %lld column %lld is %.9g, values lie in %.9g..%.9g", s->label, (long long)row, (long long)t,
                     (double)got, (double)low[t], (double)high[t]);
        }
      }
      attn_result_free(&r);
    }
    attn_case_free(&c);
  }
}

/* Weights do not depend on values: out(V1 + V2) = out(V1) + out(V2) up to the rounding of the sums. */
static void test_values__sum__outputs_add(void **state) {
  (void)state;
  FOR_FEW(s, i) {
    attn_case c;
    attn_result r[3];
    for (int part = 0; part < 3; part++) {
      attn_case_make(&c, few[i], ATTN_CLUSTERED, 3);
      for (int64_t ib = 0; ib < c.pb.b; ib++)
        for (int64_t ih = 0; ih < c.pb.hkv; ih++)
          for (int64_t j = 0; j < c.pb.nk; j++)
            for (int64_t t = 0; t < c.pb.dv; t++) { /* multiples of 1/64, so that the sum is exact */
              const float a = (float)((j * 37 + t * 11 + ih) % 129 - 64) / 64, b = (float)((j * 53 + t * 5 + ib) % 127 - 63) / 64;
              attn_case_row(&c.v, ib, ih, j)[t] = part == 0 ? a : part == 1 ? b : a + b;
            }
      subject_run(s, NULL, &c, 0, &r[part]);
      if (part < 2) attn_case_free(&c);
    }
    for (int64_t x = 0; x < r[0].rows * c.pb.dv; x++) {
      const double diff = (double)r[2].out[x] - (double)r[0].out[x] - (double)r[1].out[x];
      if (!(fabs(diff) <= 4 * (double)FLT_EPSILON * (double)(c.pb.nk + 8) * 4))
        fail_msg("%s: row %lld is not additive in the values, off by %.3g", s->label, (long long)(x / c.pb.dv), diff);
    }
    attn_case_free(&c);
    for (int part = 0; part < 3; part++) attn_result_free(&r[part]);
  }
}

static void test_order_free__permuted_keys__same_output(void **state) {
  (void)state;
  FOR_FEW(s, i) {
    if (!(s->m->caps & ATTN_CAP_ORDER_FREE) || few[i].causal) continue;
    attn_case c, permuted;
    attn_result a, b;
    attn_case_make(&c, few[i], ATTN_CLUSTERED, 3);
    attn_case_make(&permuted, few[i], ATTN_CLUSTERED, 3);
    for (int64_t ib = 0; ib < c.pb.b; ib++)
      for (int64_t j = 0; j < c.pb.nk; j++) {
        const int64_t to = (j * 7 + 3) % c.pb.nk; /* 7 divides no nk in use */
        for (int64_t ih = 0; ih < c.pb.hkv; ih++) {
          memcpy(attn_case_row(&permuted.k, ib, ih, to), attn_case_row(&c.k, ib, ih, j), (size_t)c.pb.d * sizeof(float));
          memcpy(attn_case_row(&permuted.v, ib, ih, to), attn_case_row(&c.v, ib, ih, j), (size_t)c.pb.dv * sizeof(float));
        }
        if (c.mask) permuted.mask[ib * c.pb.nk + to] = c.mask[ib * c.pb.nk + j];
      }
    const int flags = s->m->caps & ATTN_CAP_KEYSET ? ATTN_WANT_KEYS : 0;
    subject_run(s, NULL, &c, flags, &a);
    subject_run(s, NULL, &permuted, flags, &b);
    for (int64_t row = 0; row < a.rows && approximate(s); row++) assert_near(s->label, "before", &b, row, &a, row);
    if (!approximate(s)) attn_assert_close(s->label, &c, &b, a.keys); /* outputs are rows of queries, which did not move */
    attn_result_free(&a), attn_result_free(&b), attn_case_free(&c), attn_case_free(&permuted);
  }
}

static void test_heads_and_batch__one_poisoned__others_keep_their_bits(void **state) {
  (void)state;
  FOR_FEW(s, i) {
    if (few[i].b * few[i].hkv == 1) continue;
    attn_case c;
    attn_result want, r;
    attn_case_make(&c, few[i], ATTN_CLUSTERED, 3);
    subject_run(s, NULL, &c, 0, &want);
    attn_rng g;
    attn_rng_seed(&g, 1, 1);
    const int64_t ib = c.pb.b - 1, ih = 0, group = c.pb.h / c.pb.hkv;
    for (int64_t j = 0; j < c.pb.nk; j++) {
      redraw(&c.k, ib, ih, j, c.pb.d, 50.0f, &g);
      redraw(&c.v, ib, ih, j, c.pb.dv, j % 5 ? 1e6f : INFINITY, &g);
    }
    for (int64_t iq = 0; iq < c.pb.nq; iq++) redraw(&c.q, ib, ih, iq, c.pb.d, 50.0f, &g);
    subject_run(s, NULL, &c, 0, &r);
    int moved = 0;
    for (int64_t row = 0; row < r.rows; row++) {
      const int hit = batch(&c, row) == ib && row / c.pb.nq % c.pb.h / group == ih;
      if (!hit && !same_row(&want, row, &r, row)) fail_msg("%s: row %lld of another head moved", s->label, (long long)row);
      moved |= hit && !same_row(&want, row, &r, row);
    }
    assert_true(moved);
    attn_result_free(&want), attn_result_free(&r), attn_case_free(&c);
  }
}

/* --- identities of exact attention -------------------------------------------------------------------------------- */

static void test_exact__keys_split_in_two__merge_by_log_sum_exp(void **state) {
  (void)state;
  const attn_shape shape = {1, 1, 1, 20, 100, 16, 16, 0, 0, 0};
  FOR_SUBJECTS(s) {
    if (!(s->m->caps & ATTN_CAP_EXACT) || !subject_can(s, shape)) continue;
    attn_case c;
    attn_result r[2];
    attn_case_make(&c, shape, ATTN_GAUSS, 3);
    attn_truth full = attn_ref(&c, NULL);
    for (int part = 0; part < 2; part++) {
      attn_case half = c;
      half.pb.nk = part ? 63 : 37;
      half.k.p += part ? 37 * c.k.sn : 0;
      half.v.p += part ? 37 * c.v.sn : 0;
      subject_run(s, NULL, &half, 0, &r[part]);
    }
    for (int64_t row = 0; row < 20; row++) {
      const double top = fmax((double)r[0].lse[row], (double)r[1].lse[row]);
      const double a = exp((double)r[0].lse[row] - top), b = exp((double)r[1].lse[row] - top);
      for (int64_t t = 0; t < 16; t++) {
        const double got = (a * (double)r[0].out[row * 16 + t] + b * (double)r[1].out[row * 16 + t]) / (a + b);
        assert_true(fabs(got - full.out[row * 16 + t]) <= 2 * full.bound[row]);
      }
      assert_true(fabs(top + log(a + b) - full.lse[row]) <= 2 * full.lse_bound[row]);
    }
    attn_result_free(&r[0]), attn_result_free(&r[1]);
    attn_truth_free(&full), attn_case_free(&c);
  }
}

/* A column of ones in the queries and of 3s in the keys adds 3 scale to every logit: weights stay. */
static void test_exact__constant_added_to_all_logits__output_stays(void **state) {
  (void)state;
  const attn_shape shape = {1, 1, 1, 33, 70, 17, 16, 0, 0, 0};
  FOR_SUBJECTS(s) {
    if (!(s->m->caps & ATTN_CAP_EXACT) || !subject_can(s, shape)) continue;
    attn_case c;
    attn_result r;
    attn_case_make(&c, shape, ATTN_GAUSS, 3);
    for (int64_t j = 0; j < 70; j++) attn_case_row(&c.k, 0, 0, j)[16] = 0.0f;
    attn_truth want = attn_ref(&c, NULL);
    for (int64_t i = 0; i < 33; i++) attn_case_row(&c.q, 0, 0, i)[16] = 1.0f;
    for (int64_t j = 0; j < 70; j++) attn_case_row(&c.k, 0, 0, j)[16] = 3.0f;
    attn_truth shifted = attn_ref(&c, NULL);
    subject_run(s, NULL, &c, 0, &r);
    for (int64_t row = 0; row < 33; row++) {
      for (int64_t t = 0; t < 16; t++) assert_true(fabs((double)r.out[row * 16 + t] - want.out[row * 16 + t]) <= shifted.bound[row]);
      assert_true(fabs((double)r.lse[row] - want.lse[row] - 3 * (double)c.pb.scale) <= shifted.lse_bound[row]);
    }
    attn_truth_free(&want), attn_truth_free(&shifted);
    attn_result_free(&r), attn_case_free(&c);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_table__every_row__passes_the_self_check),
      cmocka_unit_test(test_caps__problem_beyond_them__refused),
      cmocka_unit_test(test_exact__every_shape__equals_reference),
      cmocka_unit_test(test_key_sets__every_shape__distinct_visible_and_what_the_output_is_made_of),
      cmocka_unit_test(test_key_sets__parameter_k__is_their_size),
      cmocka_unit_test(test_missing__every_shape__bounds_the_mass_left_out),
      cmocka_unit_test(test_topk__every_shape__keys_are_the_best),
      cmocka_unit_test(test_converges__rising_budget__error_falls_to_rounding),
      cmocka_unit_test(test_mass__smaller_share__fewer_keys_and_pairs),
      cmocka_unit_test(test_bits__1_2_7_threads_and_a_second_run__equal),
      cmocka_unit_test(test_bits__seed__matters_to_randomised_methods_only),
      cmocka_unit_test(test_plan__built_again_and_used_twice__same_bits),
      cmocka_unit_test(test_out__strided__only_its_rows_are_written),
      cmocka_unit_test(test_alloc__fails_at_any_call__out_of_memory_and_no_leak),
      cmocka_unit_test(test_causal__later_keys_and_values__do_not_move_earlier_rows),
      cmocka_unit_test(test_causal__sequence_cut_after_a_row__same_row),
      cmocka_unit_test(test_mask__holes__equal_the_compacted_problem),
      cmocka_unit_test(test_mask__one_key_or_none_left__its_value_or_zeros),
      cmocka_unit_test(test_stochastic__values_of_ones_and_any_values__ones_and_their_range),
      cmocka_unit_test(test_values__sum__outputs_add),
      cmocka_unit_test(test_order_free__permuted_keys__same_output),
      cmocka_unit_test(test_heads_and_batch__one_poisoned__others_keep_their_bits),
      cmocka_unit_test(test_exact__keys_split_in_two__merge_by_log_sum_exp),
      cmocka_unit_test(test_exact__constant_added_to_all_logits__output_stays),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
