/* test_htransformer1d.c - method "htransformer1d" against its definition in double: which pairs meet at which level, means, counts and
 * masks; the cases in which it is exact attention; gradients against central differences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "baselines/htransformer1d.h"
#include "kernels/core/rng.h"
#include "tests/support/attn_case.h"
#include "tests/support/ht_ref.h"
#include "tests/support/train_case.h"

static double *doubles_of(const attn_view *v, int64_t ib, int64_t ih, int64_t n, int64_t width, const uint8_t *mask) {
  double *x = calloc((size_t)(n * width) + 1, sizeof *x);
  assert_non_null(x);
  for (int64_t i = 0; i < n; i++)
    for (int64_t t = 0; t < width && (!mask || mask[i]); t++) x[i * width + t] = (double)attn_case_row(v, ib, ih, i)[t];
  return x;
}

static void run(const attn_case *c, int64_t rank, attn_result *r) {
  const ht_params p = {.rank = rank};
  if (attn_case_run(&attn_method_htransformer1d, &p, c, 0, r) != ATTN_OK) fail_msg("%s", attn_last_error());
}

/* Every head against the definition; every pair has to be met once. */
static void check_case(const attn_case *c, int64_t rank) {
  const attn_problem *pb = &c->pb;
  const int64_t n = pb->nk, dv = pb->dv;
  const attn_drop none = attn_drop_make(0, 0);
  attn_result r;
  run(c, rank, &r);
  double *out = calloc((size_t)(n * dv) + 1, sizeof *out), *lse = calloc((size_t)n + 1, sizeof *lse);
  assert_true(out && lse);
  for (int64_t head = 0; head < pb->b * pb->h; head++) {
    const int64_t ib = head / pb->h, ih = head % pb->h;
    const uint8_t *mask = c->mask ? c->mask + ib * n : NULL;
    double *q = doubles_of(&c->q, ib, ih, n, pb->d, NULL), *k = doubles_of(&c->k, ib, ih, n, pb->d, mask), *v = doubles_of(&c->v, ib, ih, n, dv, mask);
    int *covered = calloc((size_t)(n * n) + 1, sizeof *covered);
    assert_non_null(covered);
    ht_ref(pb, rank, mask, q, pb->d, k, pb->d, v, dv, &none, out, dv, lse, covered);
    for (int64_t i = 0; i < n; i++) {
      const double got = (double)r.lse[head * n + i];
      if (lse[i] == -INFINITY ? got != lse[i] : !(fabs(got - lse[i]) <= 1e-5)) fail_msg("n %lld rank %lld: log-sum-exp of row %lld is %.9g, expected %.9g", (long long)n, (long long)rank, (long long)i, got, lse[i]);
      for (int64_t t = 0; t < dv; t++)
        if (!(fabs((double)r.out[(head * n + i) * dv + t] - out[i * dv + t]) <= 1e-5))
          fail_msg("n %lld rank %lld: row %lld is %.9g, expected %.9g", (long long)n, (long long)rank, (long long)i, (double)r.out[(head * n + i) * dv + t], out[i * dv + t]);
      for (int64_t j = 0; j < n && !c->mask; j++)
        if (covered[i * n + j] != (!pb->causal || j <= i))
          fail_msg("n %lld rank %lld: pair %lld, %lld is met %d times", (long long)n, (long long)rank, (long long)i, (long long)j, covered[i * n + j]);
    }
    free(q), free(k), free(v), free(covered);
  }
  free(out), free(lse), attn_result_free(&r);
}

static void test_forward__every_shape__definition_and_every_pair_once(void **state) { /* H2 */
  (void)state;
  static const int64_t n[] = {1, 2, 3, 7, 16, 33, 48, 64, 100, 129}, ranks[] = {2, 4, 6, 16};
  for (int i = 0; i < 10; i++)
    for (int rank = 0; rank < 4; rank++)
      for (int form = 0; form < 4; form++) {
        if (n[i] > 70 && (rank + form + i) % 3) continue; /* of the long ones a third */
        attn_case c;
        attn_case_make(&c, (attn_shape){1 + i % 2, 2, 2, n[i], n[i], 5 + i, 3 + rank, form & 1, form & 2 ? 1 + i % 2 : 0, i & 1}, i % 3 ? ATTN_CLUSTERED : ATTN_GAUSS, (uint64_t)i);
        check_case(&c, ranks[rank]);
        attn_case_free(&c);
      }
}

static void check_exact(const attn_case *c, int64_t rank) {
  attn_result r;
  run(c, rank, &r);
  attn_assert_close("htransformer1d", c, &r, NULL);
  attn_result_free(&r);
}
static void test_dense__two_blocks_or_less__exact(void **state) { /* H1 */
  (void)state;
  for (int causal = 0; causal < 2; causal++)
    for (int64_t n = 20; n <= 64; n += 11) {
      attn_case c;
      attn_case_make(&c, (attn_shape){1, 2, 2, n, n, 16, 8, causal, 0, 0}, ATTN_GAUSS, 3);
      check_exact(&c, 32);
      check_exact(&c, 64);
      attn_case_free(&c);
    }
}
static void test_dense__queries_and_keys_constant_on_runs__exact(void **state) { /* H3 */
  (void)state;
  attn_case c;
  attn_case_make(&c, (attn_shape){1, 1, 1, 128, 128, 8, 8, 0, 0, 0}, ATTN_GAUSS, 3);
  for (int64_t i = 0; i < 128; i++) { /* 8 blocks of 16: levels up to tokens of 4 */
    memcpy(attn_case_row(&c.q, 0, 0, i), attn_case_row(&c.q, 0, 0, i / 4 * 4), 8 * sizeof(float));
    memcpy(attn_case_row(&c.k, 0, 0, i), attn_case_row(&c.k, 0, 0, i / 4 * 4), 8 * sizeof(float));
  }
  check_exact(&c, 16);
  attn_case_free(&c);
}
static void test_dense__queries_of_zero__mean_of_all_values(void **state) {
  (void)state;
  attn_case c;
  attn_case_make(&c, (attn_shape){1, 1, 1, 333, 333, 8, 8, 0, 1, 0}, ATTN_GAUSS, 3);
  memset(c.gq.p, 0, (size_t)c.gq.n * sizeof(float));
  attn_result r;
  run(&c, 16, &r);
  attn_truth t = attn_ref(&c, NULL);
  for (int64_t i = 0; i < 333; i++)
    for (int64_t x = 0; x < 8; x++)
      if (!(fabs((double)r.out[i * 8 + x] - (c.mask[i] ? t.out[i * 8 + x] : 0)) <= 1e-5)) fail_msg("row %lld", (long long)i);
  attn_truth_free(&t), attn_result_free(&r), attn_case_free(&c);
}

/* On smooth data larger blocks err less. */
static void test_rank__doubled__error_does_not_grow(void **state) {
  (void)state;
  attn_case c;
  attn_case_make(&c, (attn_shape){1, 1, 1, 256, 256, 8, 8, 0, 0, 0}, ATTN_GAUSS, 3);
  for (int64_t i = 0; i < 256; i++)
    for (int64_t t = 0; t < 8; t++) {
      attn_case_row(&c.q, 0, 0, i)[t] = 2.0f * sinf((float)(i * (t + 1)) / 90.0f);
      attn_case_row(&c.k, 0, 0, i)[t] = 2.0f * cosf((float)(i * (t + 1)) / 70.0f);
    }
  attn_truth full = attn_ref(&c, NULL);
  double last = INFINITY;
  for (int64_t rank = 4; rank <= 128; rank *= 2) {
    attn_result r;
    double square = 0;
    run(&c, rank, &r);
    for (int64_t x = 0; x < 256 * 8; x++) square += pow((double)r.out[x] - full.out[x], 2);
    if (!(square <= last * 1.0001)) fail_msg("rank %lld: error %.3g, %.3g with half of it", (long long)rank, sqrt(square), sqrt(last));
    last = square;
    attn_result_free(&r);
  }
  assert_true(last < 1e-8);
  attn_truth_free(&full), attn_case_free(&c);
}

static void test_halves__second_changed__first_moves(void **state) {
  (void)state;
  attn_case c;
  attn_result a, b;
  attn_case_make(&c, (attn_shape){1, 1, 1, 256, 256, 8, 8, 0, 0, 0}, ATTN_GAUSS, 3);
  run(&c, 16, &a);
  for (int64_t i = 200; i < 256; i++)
    for (int64_t t = 0; t < 8; t++) attn_case_row(&c.v, 0, 0, i)[t] += 1.0f;
  run(&c, 16, &b);
  for (int64_t i = 0; i < 128; i++) assert_true(fabsf(a.out[i * 8] - b.out[i * 8]) > 1e-4f);
  attn_result_free(&a), attn_result_free(&b), attn_case_free(&c);
}

/* G1: padding appended and masked changes nothing, whatever the power of two. */
static void test_mask__padding_appended__same_rows(void **state) {
  (void)state;
  attn_case c, s;
  attn_result a, b;
  attn_case_make(&c, (attn_shape){1, 2, 2, 700, 700, 8, 8, 0, 2, 0}, ATTN_CLUSTERED, 5);
  attn_case_make(&s, (attn_shape){1, 2, 2, 700, 700, 8, 8, 0, 0, 0}, ATTN_CLUSTERED, 5);
  run(&c, 8, &a);
  int64_t kept = 0;
  while (kept < 700 && c.mask[kept]) kept++;
  assert_true(kept < 690);
  s.pb.nq = s.pb.nk = kept;
  run(&s, 8, &b);
  for (int64_t ih = 0; ih < 2; ih++)
    for (int64_t x = 0; x < kept * 8; x++) assert_true(fabsf(a.out[ih * 700 * 8 + x] - b.out[ih * kept * 8 + x]) <= 1e-5f);
  for (int64_t i = kept; i < 700; i++) assert_true(a.out[i * 8] == 0.0f && a.lse[i] == -INFINITY);
  attn_result_free(&a), attn_result_free(&b), attn_case_free(&c), attn_case_free(&s);
}

static void test_check__odd_rank__refused(void **state) {
  (void)state;
  const attn_problem pb = {.b = 1, .h = 1, .hkv = 1, .nq = 4, .nk = 4, .d = 4, .dv = 4, .scale = 0.5f, .threads = 1};
  const ht_params p = {.rank = 15};
  assert_int_equal(attn_check(&attn_method_htransformer1d, &pb, &p), ATTN_ERR_PARAM);
  assert_non_null(strstr(attn_last_error(), "rank = 15"));
}

/* --- training ----------------------------------------------------------------------------------------------------- */

static void reference(train_case *x, int fresh) {
  const attn_problem *pb = &x->pb;
  (void)fresh;
  for (int64_t head = 0; head < pb->b * pb->h; head++) {
    const int64_t ib = head / pb->h, ih = head % pb->h, sd = pb->h * pb->d, sv = pb->h * pb->dv;
    const attn_drop dr = attn_drop_make(x->drop, attn_hash(x->key, (uint64_t)ib, (uint64_t)ih));
    ht_ref(pb, ((const ht_params *)x->params)->rank, x->mask ? x->mask + ib * pb->nk : NULL, train_case_row(x, TRAIN_Q, ib, ih, 0), sd,
           train_case_row(x, TRAIN_K, ib, ih, 0), sd, train_case_row(x, TRAIN_V, ib, ih, 0), sv, &dr,
           train_case_row(x, TRAIN_OUT, ib, ih, 0), sv, NULL, NULL);
  }
}

static void test_training__every_form__matches_double_and_its_slopes(void **state) {
  (void)state;
  static const int64_t ranks[] = {2, 4, 10};
  static const struct { int64_t b, h, n, d, dv; } sizes[] = {{1, 1, 1, 3, 2}, {2, 2, 19, 5, 3}, {1, 2, 45, 8, 9}, {1, 1, 64, 32, 32}};
  for (int rank = 0; rank < 3; rank++)
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (int way = 0; way < 4; way++) {
        const ht_params p = {.rank = ranks[rank]};
        train_case x = train_case_new(&attn_method_htransformer1d, &p, train_case_problem(sizes[s].b, sizes[s].h, sizes[s].n, sizes[s].d, sizes[s].dv, way & 1),
                        way >= 2 ? 0.3f : 0.0f, (rank + (int)s + way / 2) % 2, 1.0);
        x.reference = reference;
        train_case_check_forward(&x, 2e-5);
        train_case_check_backward(&x, 6, 3e-5, 1e-4);
        train_case_free(&x);
      }
}

static void test_training__threads_keys_and_the_method__bits(void **state) {
  (void)state;
  train_case_check_bits(&attn_method_htransformer1d, &(ht_params){.rank = 16}, train_case_problem(2, 2, 131, 16, 16, 0));
  train_case_check_bits(&attn_method_htransformer1d, &(ht_params){.rank = 4}, train_case_problem(1, 3, 90, 9, 7, 1));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward__every_shape__definition_and_every_pair_once),
      cmocka_unit_test(test_dense__two_blocks_or_less__exact),
      cmocka_unit_test(test_dense__queries_and_keys_constant_on_runs__exact),
      cmocka_unit_test(test_dense__queries_of_zero__mean_of_all_values),
      cmocka_unit_test(test_rank__doubled__error_does_not_grow),
      cmocka_unit_test(test_halves__second_changed__first_moves),
      cmocka_unit_test(test_mask__padding_appended__same_rows),
      cmocka_unit_test(test_check__odd_rank__refused),
      cmocka_unit_test(test_training__every_form__matches_double_and_its_slopes),
      cmocka_unit_test(test_training__threads_keys_and_the_method__bits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
