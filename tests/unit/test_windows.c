/* test_windows.c - methods "longformer" and "bigbird": which keys a row uses, the cases in which they are exact, what counts twice;
 * forward and gradients of training against loops in double. That rows are the softmax over the keys they report is held by the tests of
 * every method. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "baselines/bigbird.h"
#include "baselines/longformer.h"
#include "kernels/core/rng.h"
#include "kernels/micro/micro.h"
#include "tests/support/attn_case.h"
#include "tests/support/train_case.h"

/* How often row i of head ih meets key j, and where: the blocks of keys that its block lists before that of j. */
typedef struct meeting {
  int times;
  int64_t place[2];
} meeting;

static meeting meet_longformer(const longformer_params *p, const attn_problem *pb, int64_t i, int64_t j) {
  const int64_t first = i / 64 * 64, last = first + 63;
  meeting m = {0};
  if ((pb->causal && j > i) || !(i < p->global || j < p->global || llabs(i - j) <= p->window)) return m;
  m.times = 1;
  for (int64_t c = 0; c < j / 64; c++) {
    int near = 0;
    for (int64_t a = first; a <= last; a++)
      for (int64_t b = c * 64; b < c * 64 + 64; b++) near |= llabs(a - b) <= p->window;
    m.place[0] += near || c * 64 < p->global || first < p->global;
  }
  return m;
}

static meeting meet_bigbird(const bigbird_params *p, const attn_problem *pb, int64_t ih, int64_t i, int64_t j) {
  const int64_t blocks = (pb->nk + p->block - 1) / p->block, row = i / p->block, at = j / p->block;
  const int all = row == 0 || row == blocks - 1;
  int32_t random[512];
  meeting m = {0};
  int64_t listed = 0;
  if (pb->causal && j > i) return m;
  for (int64_t c = 0; c < blocks; c++) {
    if (!(all || c == 0 || c == blocks - 1 || llabs(c - row) <= 1)) continue;
    if (c == at) m.place[m.times++] = listed;
    listed++;
  }
  const int64_t drawn = all ? 0 : bigbird_random(p, pb->seed, ih, row, blocks, random);
  for (int64_t r = 0; r < drawn; r++)
    if (random[r] == at) m.place[m.times++] = listed + r;
  return m;
}

static meeting meet(const attn_method *m, const void *params, const attn_problem *pb, int64_t ih, int64_t i, int64_t j) {
  return m == &attn_method_longformer ? meet_longformer(params, pb, i, j) : meet_bigbird(params, pb, ih, i, j);
}

static void run(const attn_method *m, const void *params, const attn_case *c, attn_result *r) {
  if (attn_case_run(m, params, c, ATTN_WANT_KEYS, r) != ATTN_OK) fail_msg("%s", attn_last_error());
}

/* Rows report the keys they meet. */
static void check_keys(const attn_method *m, const void *params, attn_shape shape) {
  attn_case c;
  attn_result r;
  attn_case_make(&c, shape, ATTN_GAUSS, 9);
  run(m, params, &c, &r);
  for (int64_t row = 0; row < r.rows; row++)
    for (int64_t j = 0; j < c.pb.nk; j++) {
      const int64_t ib = row / (c.pb.h * c.pb.nq), ih = row / c.pb.nq % c.pb.h, i = row % c.pb.nq;
      const int want = attn_case_sees(&c, ib, i, j) && meet(m, params, &c.pb, ih, i, j).times > 0;
      if (r.keys[row * c.pb.nk + j] != want) fail_msg("%s: row %lld reports key %lld %d times", m->name, (long long)row, (long long)j, r.keys[row * c.pb.nk + j]);
    }
  attn_result_free(&r), attn_case_free(&c);
}

static const longformer_params windows[] = {{0, 0}, {1, 0}, {20, 0}, {64, 3}, {130, 70}, {5, 400}};
static const bigbird_params birds[] = {{16, 3, 0}, {16, 0, 0}, {7, 2, 0}, {20, 3, 1}, {130, 1, 0}, {1, 5, 0}};
enum { FORMS = 6 };

static void test_keys__every_form__those_of_the_definition(void **state) {
  (void)state;
  for (int form = 0; form < FORMS; form++)
    for (int way = 0; way < 4; way++) {
      const attn_shape shape = {1, 2, 2, 150 + 37 * way, 150 + 37 * way, 8, 8, way & 1, way & 2, 0};
      check_keys(&attn_method_longformer, windows + form, shape);
      check_keys(&attn_method_bigbird, birds + form, shape);
    }
}

static void check_dense(const attn_method *m, const void *params, int64_t n) {
  for (int way = 0; way < 4; way++) {
    attn_case c;
    attn_result r;
    attn_case_make(&c, (attn_shape){1, 2, 2, n, n, 16, 8, way & 1, way & 2, 0}, ATTN_GAUSS, 3);
    run(m, params, &c, &r);
    attn_assert_close(m->name, &c, &r, NULL);
    attn_result_free(&r), attn_case_free(&c);
  }
}
static void test_dense__window_or_globals_reach_everybody__exact(void **state) { /* LF1 */
  (void)state;
  check_dense(&attn_method_longformer, &(longformer_params){.window = 199}, 200);
  check_dense(&attn_method_longformer, &(longformer_params){.window = 1 << 20}, 300);
  check_dense(&attn_method_longformer, &(longformer_params){.global = 200}, 200);
  check_dense(&attn_method_longformer, &(longformer_params){.window = 5, .global = 1 << 20}, 70);
}
static void test_dense__blocks_cover_everybody__exact(void **state) { /* BB1 */
  (void)state;
  check_dense(&attn_method_bigbird, &(bigbird_params){.block = 50}, 200); /* four blocks: 1 meets 0, 1, 2, and 3, the last */
  check_dense(&attn_method_bigbird, &(bigbird_params){.block = 64}, 60);
  check_dense(&attn_method_bigbird, &(bigbird_params){.block = 16, .random = 4096}, 300);
}
static void test_window__of_zero__values_themselves(void **state) {
  (void)state;
  const longformer_params p = {0};
  attn_case c;
  attn_result r;
  attn_case_make(&c, (attn_shape){1, 2, 2, 100, 100, 8, 8, 0, 0, 0}, ATTN_GAUSS, 3);
  run(&attn_method_longformer, &p, &c, &r);
  for (int64_t row = 0; row < 200; row++) assert_memory_equal(r.out + row * 8, attn_case_row(&c.v, 0, row / 100, row % 100), 8 * sizeof(float));
  attn_result_free(&r), attn_case_free(&c);
}
static void test_window__shifted_sequence__shifted_rows(void **state) {
  (void)state;
  const longformer_params p = {.window = 30};
  attn_case c;
  attn_result a, b;
  attn_case_make(&c, (attn_shape){1, 1, 1, 300, 300, 8, 8, 0, 0, 0}, ATTN_GAUSS, 3);
  run(&attn_method_longformer, &p, &c, &a);
  attn_case later = c;
  later.q.p += 17 * 8, later.k.p += 17 * 8, later.v.p += 17 * 8, later.pb.nq = later.pb.nk = 283;
  run(&attn_method_longformer, &p, &later, &b);
  for (int64_t i = 30; i < 283; i++)
    for (int64_t t = 0; t < 8; t++) assert_true(fabsf(b.out[i * 8 + t] - a.out[(i + 17) * 8 + t]) <= 1e-5f);
  attn_result_free(&a), attn_result_free(&b), attn_case_free(&c);
}

/* --- training ----------------------------------------------------------------------------------------------------- */

/* Weights as often as keys are met, each time with the dropout of its place. */
static void reference(train_case *x, int fresh) {
  const attn_problem *pb = &x->pb;
  const int64_t n = pb->nk, h = pb->h, block = x->m == &attn_method_longformer ? 64 : ((const bigbird_params *)x->params)->block;
  double *z = calloc((size_t)n, sizeof *z);
  assert_non_null(z);
  (void)fresh;
  for (int64_t row = 0; row < pb->b * h * n; row++) {
    const int64_t ib = row / (h * n), ih = row / n % h, i = row % n;
    const attn_drop dr = attn_drop_make(x->drop, attn_hash(x->key, (uint64_t)ib, (uint64_t)ih));
    const double *q = train_case_row(x, TRAIN_Q, ib, ih, i);
    double *out = train_case_row(x, TRAIN_OUT, ib, ih, i), top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
      const double *k = train_case_row(x, TRAIN_K, ib, ih, j);
      z[j] = 0;
      for (int64_t t = 0; t < pb->d; t++) z[j] += (double)pb->scale * q[t] * k[t];
      if ((x->mask && !x->mask[ib * n + j]) || !meet(x->m, x->params, pb, ih, i, j).times) z[j] = -INFINITY;
      top = fmax(top, z[j]);
    }
    for (int64_t t = 0; t < pb->dv; t++) out[t] = 0;
    for (int64_t j = 0, in_block = 0; j < n; j++) {
      if (j % block == 0) in_block = 0;
      const int64_t rank = in_block;
      in_block += !x->mask || x->mask[ib * n + j];
      if (z[j] == -INFINITY) continue;
      const meeting m = meet(x->m, x->params, pb, ih, i, j);
      const double *v = train_case_row(x, TRAIN_V, ib, ih, j);
      for (int e = 0; e < m.times; e++) {
        const double w = exp(z[j] - top);
        sum += w;
        for (int64_t t = 0; t < pb->dv; t++) out[t] += w * (double)attn_drop_at(&dr, i, m.place[e] * ((block + 31) / 32 * 32) + rank) * v[t];
      }
    }
    for (int64_t t = 0; t < pb->dv && sum > 0; t++) out[t] /= sum;
  }
  free(z);
}

static void check_training(const attn_method *m, const void *params, attn_problem pb, int way) {
  train_case x = train_case_new(m, params, pb, way & 1 ? 0.3f : 0.0f, way >> 1 & 1, 1.0);
  x.reference = reference;
  train_case_check_forward(&x, 2e-5);
  train_case_check_backward(&x, 2, 3e-5, 1e-4);
  train_case_free(&x);
}
static void test_training__every_form__matches_double_and_its_slopes(void **state) {
  (void)state;
  for (int form = 0; form < FORMS; form++) {
    check_training(&attn_method_longformer, windows + form, train_case_problem(1, 1, 90, 9, 7, form & 1), form);
    check_training(&attn_method_bigbird, birds + form, train_case_problem(1, 2, 97, 8, 8, form / 2 & 1), form);
    check_training(&attn_method_bigbird, birds + form, train_case_problem(2, 1, 33, 5, 3, 0), form + 1);
  }
}
static void test_training__threads_keys_and_the_method__bits(void **state) {
  (void)state;
  train_case_check_bits(&attn_method_longformer, &(longformer_params){.window = 20, .global = 2}, train_case_problem(2, 2, 131, 16, 16, 0));
  train_case_check_bits(&attn_method_bigbird, &(bigbird_params){.block = 12, .random = 2, .duplicates = 1}, train_case_problem(1, 3, 131, 9, 7, 0));
}

/* The last rows draw their neighbours in the form of the original, and then count them twice; that the reference above agrees is only
 * telling if it happens. */
static void test_duplicates__counted__happen(void **state) {
  (void)state;
  const attn_problem pb = train_case_problem(1, 2, 97, 8, 8, 0);
  int twice = 0, otherwise = 0;
  for (int64_t i = 0; i < 97; i++)
    for (int64_t j = 0; j < 97; j++) {
      twice += meet_bigbird(birds + 3, &pb, 1, i, j).times == 2;
      otherwise += meet_bigbird(&(bigbird_params){20, 3, 0}, &pb, 1, i, j).times == 2;
    }
  assert_true(twice > 0 && otherwise == 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_keys__every_form__those_of_the_definition),
      cmocka_unit_test(test_dense__window_or_globals_reach_everybody__exact),
      cmocka_unit_test(test_dense__blocks_cover_everybody__exact),
      cmocka_unit_test(test_window__of_zero__values_themselves),
      cmocka_unit_test(test_window__shifted_sequence__shifted_rows),
      cmocka_unit_test(test_training__every_form__matches_double_and_its_slopes),
      cmocka_unit_test(test_training__threads_keys_and_the_method__bits),
      cmocka_unit_test(test_duplicates__counted__happen),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
