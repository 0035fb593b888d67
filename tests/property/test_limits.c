/* test_limits.c - every attention of the table at the edges: tiny and degenerate inputs, extreme numbers, NaN and infinity,
 * parameters at and beyond their limits, calls out of order. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "tests/support/attn_case.h"
#include "tests/support/subject.h"

#define FOR_SUBJECTS(s) for (const subject *s = subjects(); s->m; s++)

/* Query counts differ from key counts where the method allows it. */
static attn_shape shape_for(const subject *s, int64_t nk, int64_t d) {
  const int cross = (s->m->caps & ATTN_CAP_CROSS) != 0;
  return (attn_shape){1, 2, 2, cross ? 5 : nk, nk, d, d + 2, 0, 0, 0};
}

static int64_t parameter_k(const subject *s) { /* 0: the method has none */
  for (const attn_param *p = s->m->params; p->key; p++)
    if (!strcmp(p->key, "k")) {
      int64_t k;
      memcpy(&k, (const char *)s->params + p->offset, sizeof k);
      return k;
    }
  return 0;
}

/* Runs and compares with the reference over the keys reported, or over all for exact methods; others must stay finite. */
static void run_and_compare(const subject *s, const attn_case *c, attn_result *r) {
  const int sets = (s->m->caps & ATTN_CAP_KEYSET) != 0;
  subject_run(s, NULL, c, sets ? ATTN_WANT_KEYS : 0, r);
  if (subject_reports_all(s) || (s->m->caps & ATTN_CAP_EXACT)) attn_assert_close(s->label, c, r, sets ? r->keys : NULL);
  for (int64_t x = 0; x < r->rows * c->pb.dv; x++)
    if (!isfinite(r->out[x])) fail_msg("%s: output %lld is %g", s->label, (long long)x, (double)r->out[x]);
}

static void assert_first_keys(const subject *s, const attn_case *c, const attn_result *r) {
  const int64_t k = parameter_k(s);
  for (int64_t row = 0; row < r->rows && k > 0 && r->keys; row++)
    for (int64_t j = 0; j < c->pb.nk; j++)
      if (r->keys[row * c->pb.nk + j] != (j < k))
        fail_msg("%s: all scores equal, row %lld has to use the first %lld keys", s->label, (long long)row, (long long)k);
}

/* --- sizes -------------------------------------------------------------------------------------------------------- */

static void test_sizes__tiny_odd_and_round__right(void **state) {
  (void)state;
  static const int64_t nk[] = {1, 2, 3, 10, 127, 128, 129}, d[] = {1, 3, 7, 8, 9, 31, 33, 128, 129};
  FOR_SUBJECTS(s) for (int i = 0; i < 7; i++) for (int j = 0; j < 9; j++) {
    attn_case c;
    attn_result r;
    attn_case_make(&c, shape_for(s, nk[i], d[j]), ATTN_GAUSS, (uint64_t)(i * 9 + j));
    run_and_compare(s, &c, &r);
    attn_result_free(&r), attn_case_free(&c);
  }
}

/* --- keys and queries of special kinds ---------------------------------------------------------------------------- */

typedef enum special {
  KEYS_EQUAL,
  KEYS_ZERO,
  ONE_KEY_ZERO,
  KEYS_IN_PAIRS,
  KEYS_ON_A_LINE, /* long runs of equal projections, +0 and -0 */
  EQUAL_NORMS,
  ONE_LONG_KEY,
  QUERIES_ZERO,
  QUERIES_SUBNORMAL,
  QUERIES_HUGE_KEYS_TINY,
  SCORES_OF_10000,
  SPECIALS
} special;

static void make_special(attn_case *c, attn_shape shape, special kind) {
  attn_case_make(c, shape, ATTN_GAUSS, 7);
  const attn_problem *pb = &c->pb;
  for (int64_t ih = 0; ih < pb->hkv; ih++)
    for (int64_t j = 0; j < pb->nk; j++) {
      float *k = attn_case_row(&c->k, 0, ih, j), norm = 0.0f;
      const float *first = attn_case_row(&c->k, 0, ih, 0);
      for (int64_t t = 0; t < pb->d; t++) norm += k[t] * k[t];
      if (kind == KEYS_IN_PAIRS && j % 2) {
        memcpy(k, attn_case_row(&c->k, 0, ih, j - 1), (size_t)pb->d * sizeof(float));
        memcpy(attn_case_row(&c->v, 0, ih, j), attn_case_row(&c->v, 0, ih, j - 1), (size_t)pb->dv * sizeof(float));
      }
      for (int64_t t = 0; t < pb->d; t++) switch (kind) {
        case KEYS_EQUAL: k[t] = first[t]; break;
        case KEYS_ZERO: k[t] = 0.0f; break;
        case ONE_KEY_ZERO: k[t] = j == pb->nk / 2 ? 0.0f : k[t]; break;
        case KEYS_ON_A_LINE: k[t] = t == 0 ? (float)(j % 3 - 1) : j % 2 ? 0.0f : -0.0f; break;
        case EQUAL_NORMS: k[t] = k[t] / sqrtf(norm); break;
        case ONE_LONG_KEY: k[t] = j == pb->nk / 2 ? k[t] * 1e4f : k[t]; break;
        case QUERIES_HUGE_KEYS_TINY: k[t] *= 1e-30f; break;
        case SCORES_OF_10000: k[t] *= 100.0f; break;
        default: break;
        }
    }
  for (int64_t ih = 0; ih < pb->h; ih++)
    for (int64_t i = 0; i < pb->nq; i++)
      for (int64_t t = 0; t < pb->d; t++) {
        float *q = attn_case_row(&c->q, 0, ih, i);
        if (kind == QUERIES_ZERO) q[t] = t % 2 ? 0.0f : -0.0f;
        if (kind == QUERIES_SUBNORMAL) q[t] *= 1e-42f;
        if (kind == QUERIES_HUGE_KEYS_TINY) q[t] *= 1e30f;
        if (kind == SCORES_OF_10000) q[t] *= 100.0f;
      }
}

static void test_special_inputs__every_kind__finite_and_right(void **state) {
  (void)state;
  FOR_SUBJECTS(s) for (special kind = 0; kind < SPECIALS; kind++) for (int causal = 0; causal < 2; causal++) {
    const attn_shape shape = {1, 2, 2, causal ? 290 : 30, 290, 8, 8, causal, 0, 0};
    if (!subject_can(s, shape) || (kind == QUERIES_HUGE_KEYS_TINY && (s->m->caps & ATTN_CAP_SHARED_QK))) continue; /* q.q overflows */
    attn_case c;
    attn_result r;
    make_special(&c, shape, kind);
    run_and_compare(s, &c, &r);
    if (subject_by_score(s) && !causal && (kind == KEYS_ZERO || kind == QUERIES_ZERO)) assert_first_keys(s, &c, &r);
    attn_result_free(&r), attn_case_free(&c);
  }
}

/* Between keys that all score 0 and several causal ranges the first visible ones count as well. */
static void test_special_inputs__causal_zero_queries_or_keys__first_visible_keys(void **state) {
  (void)state;
  const attn_shape shape = {1, 1, 1, 400, 400, 8, 8, 1, 0, 0};
  FOR_SUBJECTS(s) for (int keys = 0; keys < 2; keys++) {
    const int64_t k = parameter_k(s);
    if (!k || !subject_by_score(s) || !subject_can(s, shape)) continue;
    attn_case c;
    attn_result r;
    make_special(&c, shape, keys ? KEYS_ZERO : QUERIES_ZERO);
    subject_run(s, NULL, &c, ATTN_WANT_KEYS, &r);
    for (int64_t i = 0; i < 400; i++)
      for (int64_t j = 0; j < 400; j++) assert_int_equal(r.keys[i * 400 + j], j <= i && j < k);
    attn_result_free(&r), attn_case_free(&c);
  }
}

/* A key 10^4 times longer than the others is kept by every query that scores it above 0. */
static void test_special_inputs__one_long_key__found(void **state) {
  (void)state;
  FOR_SUBJECTS(s) {
    if (!subject_by_score(s) || !subject_reports_all(s) || strchr(s->label, '=')) continue; /* at the defaults */
    attn_case c;
    attn_result r;
    make_special(&c, (attn_shape){1, 1, 1, 2000, 2000, 16, 4, 0, 0, 0}, ONE_LONG_KEY);
    subject_run(s, NULL, &c, ATTN_WANT_KEYS, &r);
    for (int64_t row = 0; row < r.rows; row++)
      if (attn_ref_score(&c, row, 1000, NULL) > 0 && !r.keys[row * 2000 + 1000])
        fail_msg("%s: row %lld does not use the long key", s->label, (long long)row);
    attn_result_free(&r), attn_case_free(&c);
  }
}

/* Powers of two move no bit: keys longer, queries shorter by the same factor. Where weights are a function of q.k. */
static void test_scaling__keys_up_and_queries_down__same_bits(void **state) {
  (void)state;
  FOR_SUBJECTS(s) for (int causal = 0; causal < 2; causal++) {
    const attn_shape shape = {1, 2, 2, causal ? 300 : 60, 300, 9, 8, causal, 0, 0};
    if (!subject_can(s, shape) || (s->m->caps & ATTN_CAP_SHARED_QK) || !(s->m->caps & (ATTN_CAP_EXACT | ATTN_CAP_KEYSET))) continue;
    attn_case c;
    attn_result a, b;
    attn_case_make(&c, shape, ATTN_CLUSTERED, 7);
    subject_run(s, NULL, &c, 0, &a);
    for (int64_t ih = 0; ih < 2; ih++)
      for (int64_t j = 0; j < 300; j++)
        for (int64_t t = 0; t < 9; t++) {
          attn_case_row(&c.k, 0, ih, j)[t] *= 0x1p20f;
          if (j < c.pb.nq) attn_case_row(&c.q, 0, ih, j)[t] *= 0x1p-20f;
        }
    subject_run(s, NULL, &c, 0, &b);
    if (memcmp(a.out, b.out, (size_t)(a.rows * 8) * sizeof(float)) != 0) fail_msg("%s: scaling moves bits", s->label);
    attn_result_free(&a), attn_result_free(&b), attn_case_free(&c);
  }
}

static void test_scaling__one_query__same_keys(void **state) {
  (void)state;
  FOR_SUBJECTS(s) {
    const attn_shape shape = {1, 1, 1, 60, 300, 9, 8, 0, 0, 0};
    if (!subject_reports_all(s) || !subject_can(s, shape) || !parameter_k(s)) continue;
    attn_case c;
    attn_result a, b;
    attn_case_make(&c, shape, ATTN_CLUSTERED, 7);
    subject_run(s, NULL, &c, ATTN_WANT_KEYS, &a);
    for (int64_t i = 0; i < 60; i++)
      for (int64_t t = 0; t < 9; t++) attn_case_row(&c.q, 0, 0, i)[t] *= i % 2 ? 0x1p-90f : 0x1p30f;
    subject_run(s, NULL, &c, ATTN_WANT_KEYS, &b);
    assert_memory_equal(a.keys, b.keys, 60 * 300);
    attn_result_free(&a), attn_result_free(&b), attn_case_free(&c);
  }
}

/* --- numbers that are none ---------------------------------------------------------------------------------------- */

static const float wild[] = {NAN, INFINITY, -INFINITY};

/* A method either refuses, or keeps the damage to the row. */
static void test_wild_query__any_place__refused_or_kept_to_its_row(void **state) {
  (void)state;
  const attn_shape shape = {1, 1, 1, 60, 60, 9, 8, 0, 0, 0};
  FOR_SUBJECTS(s) for (int w = 0; w < 3; w++) for (int place = 0; place < 3; place++) {
    attn_case c;
    attn_result clean, r;
    attn_case_make(&c, shape, ATTN_GAUSS, 7);
    subject_run(s, NULL, &c, 0, &clean);
    const int64_t at = place == 0 ? 0 : place == 1 ? 31 : 59;
    attn_case_row(&c.q, 0, 0, at)[4] = wild[w];
    const attn_status st = attn_case_run(s->m, s->params, &c, 0, &r);
    if (st != ATTN_OK) {
      assert_int_equal(st, ATTN_ERR_NUMERIC);
      for (int64_t x = 0; x < r.rows * 8; x++) assert_true(isnan(r.out[x])); /* as it was */
    } else if (!(s->m->caps & ATTN_CAP_RANDOMISED) && !subject_shares_queries(s)) { /* queries may share work where a method groups them */
      for (int64_t row = 0; row < 60; row++)
        if (row != at) assert_memory_equal(r.out + row * 8, clean.out + row * 8, 8 * sizeof(float));
    }
    if (!strcmp(s->m->name, "iceformer")) assert_int_equal(st, ATTN_ERR_NUMERIC);
    attn_result_free(&clean), attn_result_free(&r), attn_case_free(&c);
  }
}

static void test_wild_key__masked_or_not__ignored_or_refused_or_seen(void **state) {
  (void)state;
  FOR_SUBJECTS(s) for (int w = 0; w < 3; w++) for (int place = 0; place < 3; place++) {
    attn_case c;
    attn_result r;
    attn_case_make(&c, (attn_shape){1, 1, 1, 60, 60, 9, 8, 0, 0, 0}, ATTN_GAUSS, 7);
    uint8_t mask[60];
    memset(mask, 1, sizeof mask);
    const int64_t at = place == 0 ? 0 : place == 1 ? 31 : 59;
    attn_case_row(&c.k, 0, 0, at)[4] = wild[w];
    const attn_status st = attn_case_run(s->m, s->params, &c, 0, &r);
    if (st != ATTN_OK) assert_int_equal(st, ATTN_ERR_NUMERIC);
    if (!strcmp(s->m->name, "iceformer")) assert_int_equal(st, ATTN_ERR_NUMERIC);
    attn_result_free(&r);
    if (s->m->caps & ATTN_CAP_MASK) {
      mask[at] = 0;
      c.mask = mask;
      run_and_compare(s, &c, &r);
      attn_result_free(&r);
      c.mask = NULL;
    }
    attn_case_free(&c);
  }
}

/* A value that is NaN reaches the rows that use its key, and no other; an infinite one likewise. */
static void test_wild_value__reaches_rows_that_use_it_only(void **state) {
  (void)state;
  FOR_SUBJECTS(s) for (int causal = 0; causal < 2; causal++) for (int w = 0; w < 3; w++) {
    const attn_shape shape = {1, 1, 1, 150, 150, 9, 8, causal, 0, 0};
    const int sets = subject_reports_all(s);
    if (!subject_can(s, shape) || (!sets && !(s->m->caps & ATTN_CAP_EXACT))) continue;
    attn_case c;
    attn_result clean, r;
    attn_case_make(&c, shape, ATTN_GAUSS, 7);
    subject_run(s, NULL, &c, 0, &clean);
    attn_case_row(&c.v, 0, 0, 77)[4] = wild[w];
    subject_run(s, NULL, &c, sets ? ATTN_WANT_KEYS : 0, &r);
    for (int64_t row = 0; row < 150; row++)
      for (int64_t t = 0; t < 8; t++) {
        const int used = sets ? r.keys[row * 150 + 77] : attn_case_sees(&c, 0, row, 77);
        const float got = r.out[row * 8 + t];
        if (t == 4 && used ? isfinite(got) : got != clean.out[row * 8 + t])
          fail_msg("%s: row %lld column %lld is %g, %g before one value became %g", s->label, (long long)row,
                   (long long)t, (double)got, (double)clean.out[row * 8 + t], (double)wild[w]);
      }
    attn_result_free(&clean), attn_result_free(&r), attn_case_free(&c);
  }
}

/* --- parameters --------------------------------------------------------------------------------------------------- */

static void set_param(const attn_param *p, void *params, double value) {
  char *at = (char *)params + p->offset;
  if (p->type == ATTN_P_REAL) memcpy(at, &value, sizeof value);
  else memcpy(at, &(int64_t){(int64_t)value}, sizeof(int64_t));
}
static double last_choice(const attn_param *p) {
  double n = 0;
  while (p->choices[(int)n + 1]) n++;
  return n;
}

static void test_params__at_their_limits__run(void **state) {
  (void)state;
  FOR_SUBJECTS(s) for (const attn_param *p = s->m->params; p->key; p++) for (int top = 0; top < 2; top++) {
    void *params = subject_params(s, "");
    attn_case c;
    attn_result r;
    attn_case_make(&c, (attn_shape){1, 1, 1, 40, 40, 5, 3, 0, 0, 0}, ATTN_CLUSTERED, 7);
    set_param(p, params, p->type == ATTN_P_CHOICE ? (top ? last_choice(p) : 0) : top ? p->max : p->min);
    subject_run(s, params, &c, 0, &r);
    for (int64_t x = 0; x < r.rows * 3; x++) assert_true(isfinite(r.out[x]));
    attn_result_free(&r), attn_case_free(&c), free(params);
  }
}

static void test_params__beyond_their_limits__refused(void **state) {
  (void)state;
  FOR_SUBJECTS(s) for (const attn_param *p = s->m->params; p->key; p++) for (int way = 0; way < 3; way++) {
    void *params = subject_params(s, "");
    attn_case c;
    attn_case_make(&c, (attn_shape){1, 1, 1, 4, 4, 4, 4, 0, 0, 0}, ATTN_GAUSS, 7);
    attn_case_learn(&c, s->m, params);
    assert_int_equal(attn_check(s->m, &c.pb, params), ATTN_OK);
    const double low = p->type == ATTN_P_CHOICE ? 0 : p->min, high = p->type == ATTN_P_CHOICE ? last_choice(p) : p->max;
    if (way == 2 && p->type != ATTN_P_REAL) way = 3;
    else {
      set_param(p, params, way == 0 ? low - 1 : way == 1 ? high + 1 : NAN);
      assert_int_equal(attn_check(s->m, &c.pb, params), ATTN_ERR_PARAM);
      assert_non_null(strstr(attn_last_error(), p->key));
    }
    attn_case_free(&c), free(params);
  }
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

static void test_calls__out_of_order_misaligned_or_narrow__refused_and_output_untouched(void **state) {
  (void)state;
  FOR_SUBJECTS(s) {
    attn_case c;
    attn_mem need;
    attn_case_make(&c, (attn_shape){1, 1, 1, 20, 20, 5, 3, 0, 0, 0}, ATTN_GAUSS, 7);
    attn_case_learn(&c, s->m, s->params);
    assert_int_equal(s->m->sizes(&c.pb, s->params, &need), ATTN_OK);
    char *plan = attn_alloc(need.plan + 64), *scratch = attn_alloc(need.scratch + 64);
    float out[60];
    for (int i = 0; i < 60; i++) out[i] = -7.0f;
    const attn_viewm o = {out, 60, 60, 3}, narrow_o = {out, 60, 60, 2};
    attn_view narrow_q = c.q, narrow_k = c.k, narrow_v = c.v;
    narrow_q.sn = 4, narrow_k.sn = 4, narrow_v.sn = 2;
    s->m->release(NULL);
    assert_int_equal(s->m->prepare(plan + 4, &c.pb, s->params), ATTN_ERR_ARG);
    assert_int_equal(s->m->prepare(plan, &c.pb, s->params), ATTN_OK);
    assert_int_equal(s->m->forward(plan, s->params, c.q, o, scratch, NULL), ATTN_ERR_ARG); /* not built */
    assert_int_equal(s->m->build(NULL, c.k, c.v, NULL, scratch), ATTN_ERR_ARG);
    assert_int_equal(s->m->build(plan, narrow_k, c.v, NULL, scratch), ATTN_ERR_SHAPE);
    assert_int_equal(s->m->build(plan, c.k, narrow_v, NULL, scratch), ATTN_ERR_SHAPE);
    assert_int_equal(s->m->forward(plan, s->params, c.q, o, scratch, NULL), ATTN_ERR_ARG);
    assert_int_equal(s->m->build(plan, c.k, c.v, NULL, scratch), ATTN_OK);
    assert_int_equal(s->m->forward(NULL, s->params, c.q, o, scratch, NULL), ATTN_ERR_ARG);
    assert_int_equal(s->m->forward(plan, s->params, c.q, o, NULL, NULL), ATTN_ERR_ARG);
    assert_int_equal(s->m->forward(plan, s->params, c.q, o, scratch + 4, NULL), ATTN_ERR_ARG);
    assert_int_equal(s->m->forward(plan, s->params, narrow_q, o, scratch, NULL), ATTN_ERR_SHAPE);
    assert_int_equal(s->m->forward(plan, s->params, c.q, narrow_o, scratch, NULL), ATTN_ERR_SHAPE);
    for (int i = 0; i < 60; i++) assert_true(out[i] == -7.0f);
    assert_int_equal(s->m->forward(plan, s->params, c.q, o, scratch, NULL), ATTN_OK);
    for (int i = 0; i < 60; i++) assert_true(out[i] != -7.0f);
    s->m->release(plan);
    attn_free(plan), attn_free(scratch), attn_case_free(&c);
  }
}

/* Bytes that a method needs for so many queries and keys; 0 when it refuses. */
static size_t bytes_for(const subject *s, int64_t n) {
  static const float learned; /* of which check looks at the size alone */
  attn_problem pb = {.b = 1 << 8, .h = 1 << 8, .hkv = 1 << 8, .nq = n, .nk = n, .d = 128, .dv = 128,
                     .scale = 1.0f, .threads = 4096, .weights = &learned, .positions = n};
  attn_mem need = {0};
  pb.weights_bytes = attn_learned_floats(s->m, &pb, s->params) * sizeof(float);
  if (attn_check(s->m, &pb, s->params) != ATTN_OK) return 0;
  assert_int_equal(s->m->sizes(&pb, s->params, &need), ATTN_OK);
  assert_true(need.plan > 0);
  return attn_add(need.plan, need.scratch); /* saturates */
}

/* Sizes that no machine has must come back as sizes, saturated, not as small numbers after a wrap: twice the tokens
 * never take less. */
static void test_sizes__enormous_problem__no_wrap(void **state) {
  (void)state;
  FOR_SUBJECTS(s) {
    size_t last = 0;
    for (int64_t n = 1; n < INT32_MAX; n *= 2) {
      const size_t now = bytes_for(s, n);
      if (!now) break; /* refused: fine as well */
      if (now < last) fail_msg("%s: %zu bytes for %lld tokens, %zu for half of them", s->label, now, (long long)n, last);
      last = now;
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sizes__tiny_odd_and_round__right),
      cmocka_unit_test(test_special_inputs__every_kind__finite_and_right),
      cmocka_unit_test(test_special_inputs__causal_zero_queries_or_keys__first_visible_keys),
      cmocka_unit_test(test_special_inputs__one_long_key__found),
      cmocka_unit_test(test_scaling__keys_up_and_queries_down__same_bits),
      cmocka_unit_test(test_scaling__one_query__same_keys),
      cmocka_unit_test(test_wild_query__any_place__refused_or_kept_to_its_row),
      cmocka_unit_test(test_wild_key__masked_or_not__ignored_or_refused_or_seen),
      cmocka_unit_test(test_wild_value__reaches_rows_that_use_it_only),
      cmocka_unit_test(test_params__at_their_limits__run),
      cmocka_unit_test(test_params__beyond_their_limits__refused),
      cmocka_unit_test(test_calls__out_of_order_misaligned_or_narrow__refused_and_output_untouched),
      cmocka_unit_test(test_sizes__enormous_problem__no_wrap),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
