/* test_reformer.c - method "reformer" against its definition in double: hashes and sortings, the multiset of keys that a row meets, the
 * merge of rounds, the cases in which it is plain attention; gradients against central differences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/rng.h"
#include "tests/support/attn_case.h"
#include "tests/support/reformer_ref.h"
#include "tests/support/train_case.h"

static const reformer_params plain = {.rounds = 2, .chunk = 16};
#define WITH(...) ((reformer_params){__VA_ARGS__})

static double *doubles_of(const attn_view *v, int64_t ib, int64_t ih, int64_t n, int64_t width, const uint8_t *mask) {
  double *x = calloc((size_t)(n * width) + 1, sizeof *x);
  assert_non_null(x);
  for (int64_t i = 0; i < n; i++)
    for (int64_t t = 0; t < width && (!mask || mask[i]); t++) x[i * width + t] = (double)attn_case_row(v, ib, ih, i)[t];
  return x;
}

static void assert_near(const char *what, int64_t i, double got, double want, double bound) {
  if (want == -INFINITY ? got != want : !(fabs(got - want) <= bound))
    fail_msg("%s %lld is %.9g, expected %.9g within %.3g", what, (long long)i, got, want, bound);
}

/* Runs the method on a case and compares every head with stored rounds and with the closed form. */
static void check_case(reformer_params p, attn_shape shape, attn_source source, uint64_t seed) {
  attn_case c;
  attn_result r;
  attn_case_make(&c, shape, source, seed);
  const attn_problem *pb = &c.pb;
  const int64_t n = pb->nk, dv = pb->dv;
  double *out = calloc((size_t)(2 * n * dv) + 1, sizeof *out), *lse = calloc((size_t)(2 * n) + 1, sizeof *lse);
  assert_true(out && lse);
  if (attn_case_run(&attn_method_reformer, &p, &c, ATTN_WANT_KEYS, &r) != ATTN_OK) fail_msg("%s", attn_last_error());
  for (int64_t head = 0; head < pb->b * pb->h; head++) {
    const int64_t ib = head / pb->h, ih = head % pb->h;
    const uint8_t *mask = c.mask ? c.mask + ib * n : NULL;
    double *x = doubles_of(&c.q, ib, ih, n, pb->d, mask), *v = doubles_of(&c.v, ib, ih, n, dv, mask);
    const attn_drop none = attn_drop_make(0, 0);
    reformer_ref ref;
    reformer_ref_new(&ref, pb, &p, ih, mask, x, pb->d);
    reformer_ref_run(&ref, x, pb->d, v, dv, &none, out, dv, lse);
    reformer_ref_closed(&ref, x, pb->d, v, dv, out + n * dv, dv, lse + n);
    for (int64_t i = 0; i < n; i++) {
      const float *got = r.out + (head * n + i) * dv;
      int alone = 1;
      for (int64_t j = 0; j < n; j++) alone &= i == j || (pb->causal && j > i) || !reformer_ref_times(&ref, i, j);
      assert_near("stored rounds against closed form: log-sum-exp", i, lse[i], lse[n + i], alone ? 2 : 1e-9);
      for (int64_t t = 0; t < dv; t++) {
        assert_near("stored rounds against closed form", i, out[i * dv + t], out[(n + i) * dv + t], 1e-11);
        assert_near("row", i, (double)got[t], out[i * dv + t], 1e-5);
      }
      assert_near("log-sum-exp", i, (double)r.lse[head * n + i], lse[i], alone ? 2 : 2e-5);
      for (int64_t j = 0; j < n; j++) {
        const int64_t times = reformer_ref_times(&ref, i, j);
        const int used = times > 0 && !(pb->causal && j > i) && (i != j || p.self == SELF_PLAIN || alone);
        if (r.keys[(head * n + i) * n + j] != used) fail_msg("row %lld reports key %lld %d times", (long long)i, (long long)j, r.keys[(head * n + i) * n + j]);
      }
    }
    reformer_ref_free(&ref), free(x), free(v);
  }
  free(out), free(lse);
  attn_result_free(&r), attn_case_free(&c);
}

static const attn_shape shapes[] = {{1, 1, 1, 1, 1, 3, 2, 0, 0, 0},     {1, 2, 2, 16, 16, 8, 8, 1, 0, 0},  {2, 2, 2, 33, 33, 7, 9, 0, 1, 1},
                                    {1, 1, 1, 63, 63, 16, 5, 1, 0, 0},  {1, 2, 2, 64, 64, 8, 8, 0, 2, 0},  {1, 1, 1, 97, 97, 32, 33, 1, 1, 0},
                                    {1, 1, 1, 150, 150, 16, 16, 0, 0, 0}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void every_shape(reformer_params p) {
  for (int i = 0; i < SHAPES; i++) check_case(p, shapes[i], i % 2 ? ATTN_CLUSTERED : ATTN_GAUSS, (uint64_t)(i + 1));
}

static void test_forward__rounds_counted__closed_form(void **state) { /* R2, R4 */
  (void)state;
  every_shape(plain);
  every_shape(WITH(.rounds = 1, .chunk = 8));
  every_shape(WITH(.rounds = 4, .chunk = 5, .buckets = 6));
  every_shape(WITH(.rounds = 3, .chunk = 1));
}
static void test_forward__duplicates_removed__softmax_over_the_union(void **state) { /* R3 */
  (void)state;
  every_shape(WITH(.rounds = 3, .chunk = 16, .duplicates = DUP_REMOVED));
  every_shape(WITH(.rounds = 2, .chunk = 12, .duplicates = DUP_REMOVED, .leak = 1, .self = SELF_PLAIN));
}
static void test_forward__leak__counts_what_other_rounds_bring(void **state) {
  (void)state;
  every_shape(WITH(.rounds = 2, .chunk = 16, .leak = 1));
  every_shape(WITH(.rounds = 3, .chunk = 20, .leak = 1, .self = SELF_PLAIN));
}
static void test_forward__other_logits__closed_form(void **state) {
  (void)state;
  every_shape(WITH(.rounds = 2, .chunk = 16, .logits = LOGITS_SCALED));
  every_shape(WITH(.rounds = 2, .chunk = 16, .logits = LOGITS_DOT, .self = SELF_PLAIN));
}
static void test_forward__chunks_beyond_a_tile__closed_form(void **state) {
  (void)state;
  const attn_shape large = {1, 1, 1, 430, 430, 8, 8, 0, 0, 0};
  check_case(WITH(.rounds = 1, .chunk = 200), large, ATTN_GAUSS, 5);
}
/* 2^7 buckets at chunks of 2 are more than twice the larger of 2 and sqrt(40): hashed in two factors. */
static void test_forward__many_buckets__two_factors(void **state) {
  (void)state;
  check_case(WITH(.rounds = 2, .chunk = 2), (attn_shape){1, 2, 2, 161, 161, 8, 8, 0, 0, 0}, ATTN_GAUSS, 6);
  check_case(WITH(.rounds = 1, .chunk = 1), (attn_shape){1, 1, 1, 130, 130, 8, 8, 1, 1, 0}, ATTN_GAUSS, 6);
}

/* Plain loops: every visible pair once, oneself only when alone. */
static void dense_shared(const attn_case *c, int self_last, int unit, double *out) {
  const attn_problem *pb = &c->pb;
  double *x = doubles_of(&c->q, 0, 0, pb->nk, pb->d, NULL);
  reformer_params p = {.logits = unit ? LOGITS_UNIT : LOGITS_DOT, .self = self_last ? SELF_LAST : SELF_PLAIN};
  const reformer_ref ref = {.pb = pb, .p = &p};
  for (int64_t i = 0; i < pb->nk; i++) {
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < pb->nk; j++)
      if (!pb->causal || j <= i) top = fmax(top, reformer_ref_logit(&ref, x, pb->d, i, j));
    for (int64_t t = 0; t < pb->dv; t++) out[i * pb->dv + t] = 0;
    for (int64_t j = 0; j < pb->nk; j++) {
      if (pb->causal && j > i) continue;
      const double w = exp(reformer_ref_logit(&ref, x, pb->d, i, j) - top);
      sum += w;
      for (int64_t t = 0; t < pb->dv; t++) out[i * pb->dv + t] += w * (double)attn_case_row(&c->v, 0, 0, j)[t];
    }
    for (int64_t t = 0; t < pb->dv; t++) out[i * pb->dv + t] /= sum;
  }
  free(x);
}

static void check_dense(reformer_params p, int64_t n, int causal) {
  attn_case c;
  attn_result r;
  attn_case_make(&c, (attn_shape){1, 1, 1, n, n, 16, 8, causal, 0, 0}, ATTN_GAUSS, 3);
  double *out = calloc((size_t)(n * 8), sizeof *out);
  assert_non_null(out);
  dense_shared(&c, p.self == SELF_LAST, p.logits == LOGITS_UNIT, out);
  assert_int_equal(attn_case_run(&attn_method_reformer, &p, &c, 0, &r), ATTN_OK);
  for (int64_t i = 0; i < n * 8; i++) assert_near("element", i, (double)r.out[i], out[i], 1e-5);
  if (causal) assert_memory_equal(r.out, attn_case_row(&c.v, 0, 0, 0), 8 * sizeof(float));
  free(out);
  attn_result_free(&r), attn_case_free(&c);
}

static void test_dense__one_round_of_two_chunks__every_pair_once(void **state) { /* R1 */
  (void)state;
  for (int causal = 0; causal < 2; causal++)
    for (int leak = 0; leak < 2; leak++) {
      check_dense(WITH(.rounds = 1, .chunk = 40, .leak = leak), 80, causal);
      check_dense(WITH(.rounds = 1, .chunk = 50, .leak = leak, .logits = LOGITS_DOT, .self = SELF_PLAIN), 99, causal);
    }
}
static void test_dense__one_chunk__plain_shared_attention(void **state) {
  (void)state;
  for (int causal = 0; causal < 2; causal++) {
    check_dense(WITH(.rounds = 4, .chunk = 100), 100, causal);
    check_dense(WITH(.rounds = 8, .chunk = 4096, .logits = LOGITS_DOT, .self = SELF_PLAIN), 300, causal);
  }
}
/* With a leak and two chunks a pair is met two to six times: not dense. */
static void test_dense__leak_and_two_rounds__is_not(void **state) {
  (void)state;
  attn_case c;
  attn_result r;
  double out[80 * 8], off = 0;
  const reformer_params p = {.rounds = 2, .chunk = 40, .leak = 1};
  attn_case_make(&c, (attn_shape){1, 1, 1, 80, 80, 16, 8, 0, 0, 0}, ATTN_GAUSS, 3);
  dense_shared(&c, 1, 1, out);
  assert_int_equal(attn_case_run(&attn_method_reformer, &p, &c, 0, &r), ATTN_OK);
  for (int i = 0; i < 80 * 8; i++) off = fmax(off, fabs((double)r.out[i] - out[i]));
  assert_true(off > 1e-3);
  attn_result_free(&r), attn_case_free(&c);
}

/* G1: padding that is masked changes nothing, whether the number of buckets is fixed or follows the rule. */
static void test_mask__padding_appended__same_rows(void **state) {
  (void)state;
  for (int64_t buckets = 0; buckets <= 8; buckets += 8) {
    const reformer_params p = {.rounds = 2, .chunk = 16, .buckets = buckets};
    attn_case c, s;
    attn_result a, b;
    attn_case_make(&c, (attn_shape){1, 2, 2, 200, 200, 8, 8, 0, 2, 0}, ATTN_CLUSTERED, 3);
    attn_case_make(&s, (attn_shape){1, 2, 2, 200, 200, 8, 8, 0, 0, 0}, ATTN_CLUSTERED, 3);
    assert_int_equal(attn_case_run(&attn_method_reformer, &p, &c, 0, &a), ATTN_OK);
    int64_t kept = 0;
    while (kept < 200 && c.mask[kept]) kept++;
    assert_true(kept < 195);
    s.pb.nq = s.pb.nk = kept;
    s.q = c.q, s.v = c.v;
    assert_int_equal(attn_case_run(&attn_method_reformer, &p, &s, 0, &b), ATTN_OK);
    for (int64_t ih = 0; ih < 2; ih++)
      assert_memory_equal(a.out + ih * 200 * 8, b.out + ih * kept * 8, (size_t)(kept * 8) * sizeof(float));
    for (int64_t i = kept; i < 200; i++) assert_true(a.out[i * 8] == 0.0f && a.lse[i] == -INFINITY);
    attn_result_free(&a), attn_result_free(&b), attn_case_free(&c), attn_case_free(&s);
  }
}

/* Of what a softmax over everybody else would weigh, rounds find more and more (N(0, 9), n = 512, chunks of 32). */
static void test_rounds__more__more_of_the_mass(void **state) {
  (void)state;
  static const double expected[] = {0.14, 0.26, 0.45, 0.69, 0.89};
  attn_case c;
  attn_case_make(&c, (attn_shape){1, 1, 1, 512, 512, 32, 4, 0, 0, 0}, ATTN_GAUSS, 3);
  for (int64_t i = 0; i < 512 * 32; i++) c.gq.p[i] *= 3.0f;
  double *x = doubles_of(&c.q, 0, 0, 512, 32, NULL);
  for (int step = 0; step < 5; step++) {
    const reformer_params p = {.rounds = 1 << step, .chunk = 32, .logits = LOGITS_SCALED};
    const reformer_ref ref = {.pb = &c.pb, .p = &p};
    attn_result r;
    double mass = 0;
    assert_int_equal(attn_case_run(&attn_method_reformer, &p, &c, ATTN_WANT_KEYS, &r), ATTN_OK);
    for (int64_t i = 0; i < 512; i++) {
      double used = 0, all = 0;
      for (int64_t j = 0; j < 512; j++) {
        if (i == j) continue;
        const double w = exp(reformer_ref_logit(&ref, x, 32, i, j));
        all += w, used += r.keys[i * 512 + j] ? w : 0;
      }
      mass += used / all / 512;
    }
    if (!(fabs(mass - expected[step]) < 0.08)) fail_msg("%d rounds catch %.3f of the mass, expected about %.2f", 1 << step, mass, expected[step]);
    attn_result_free(&r);
  }
  free(x), attn_case_free(&c);
}

/* Keys are not read: memory that faults when touched stands in for them. */
static void test_keys__never_read(void **state) {
  (void)state;
  attn_case c;
  attn_result a, b;
  attn_case_make(&c, (attn_shape){1, 2, 2, 70, 70, 8, 8, 0, 0, 0}, ATTN_GAUSS, 3);
  assert_int_equal(attn_case_run(&attn_method_reformer, &plain, &c, 0, &a), ATTN_OK);
  c.k.p = NULL;
  assert_int_equal(attn_case_run(&attn_method_reformer, &plain, &c, 0, &b), ATTN_OK);
  assert_memory_equal(a.out, b.out, (size_t)(a.rows * 8) * sizeof(float));
  attn_result_free(&a), attn_result_free(&b), attn_case_free(&c);
}

static void test_check__odd_number_of_buckets__refused(void **state) {
  (void)state;
  const attn_problem pb = {.b = 1, .h = 1, .hkv = 1, .nq = 4, .nk = 4, .d = 4, .dv = 4, .scale = 0.5f, .threads = 1};
  const reformer_params p = {.rounds = 2, .chunk = 64, .buckets = 7};
  assert_int_equal(attn_check(&attn_method_reformer, &pb, &p), ATTN_ERR_PARAM);
  assert_non_null(strstr(attn_last_error(), "buckets = 7"));
}

/* --- training ----------------------------------------------------------------------------------------------------- */

typedef struct windows { /* of every head, chosen once */
  reformer_ref head[8];
} windows;
static void windows_new(windows *w, const train_case *x) {
  for (int64_t head = 0; head < x->pb.b * x->pb.h; head++)
    reformer_ref_new(w->head + head, &x->pb, x->params, head % x->pb.h, x->mask ? x->mask + head / x->pb.h * x->pb.nk : NULL,
                     train_case_row(x, TRAIN_Q, head / x->pb.h, head % x->pb.h, 0), x->pb.h * x->pb.d);
}
static void windows_free(windows *w, const train_case *x) {
  for (int64_t head = 0; head < x->pb.b * x->pb.h; head++) reformer_ref_free(w->head + head);
}
static void reference(train_case *x, int fresh) {
  const windows *w = x->ctx;
  (void)fresh;
  for (int64_t head = 0; head < x->pb.b * x->pb.h; head++) {
    const int64_t ib = head / x->pb.h, ih = head % x->pb.h, sn = x->pb.h * x->pb.dv;
    const attn_drop dr = attn_drop_make(x->drop, attn_hash(x->key, (uint64_t)ib, (uint64_t)ih));
    reformer_ref_run(w->head + head, train_case_row(x, TRAIN_Q, ib, ih, 0), x->pb.h * x->pb.d,
                     train_case_row(x, TRAIN_V, ib, ih, 0), sn, &dr, train_case_row(x, TRAIN_OUT, ib, ih, 0),
                     sn, NULL);
  }
}

static void test_training__every_form__matches_double_and_its_slopes(void **state) {
  (void)state;
  static const reformer_params forms[] = {{.rounds = 2, .chunk = 16},
                                          {.rounds = 1, .chunk = 8, .logits = LOGITS_SCALED},
                                          {.rounds = 2, .chunk = 12, .logits = LOGITS_DOT, .self = SELF_PLAIN},
                                          {.rounds = 2, .chunk = 16, .leak = 1},
                                          {.rounds = 3, .chunk = 7, .leak = 1, .duplicates = DUP_REMOVED},
                                          {.rounds = 2, .chunk = 64}};
  static const struct { int64_t b, h, n, d, dv; } sizes[] = {{1, 1, 1, 3, 2}, {2, 2, 19, 5, 3}, {1, 2, 61, 8, 9}, {1, 1, 50, 32, 32}};
  for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (int way = 0; way < 4; way++) {
        windows w;
        const float drop = way >= 2 ? 0.3f : 0.0f;
        train_case x = train_case_new(&attn_method_reformer, &forms[f], train_case_problem(sizes[s].b, sizes[s].h, sizes[s].n, sizes[s].d, sizes[s].dv, way & 1),
                        drop, (int)(f + s) % 2, 1.0);
        x.reference = reference, x.ctx = &w;
        windows_new(&w, &x);
        train_case_check_forward(&x, 2e-5);
        train_case_check_backward(&x, 6, 3e-5, 1e-4);
        for (int64_t i = 0; i < x.size[TRAIN_DK]; i++) assert_true(x.t[TRAIN_DK][i] == 0.0f);
        windows_free(&w, &x), train_case_free(&x);
      }
}

static void test_training__chunks_beyond_a_tile__matches_slopes(void **state) {
  (void)state;
  const reformer_params p = {.rounds = 1, .chunk = 150};
  windows w;
  train_case x = train_case_new(&attn_method_reformer, &p, train_case_problem(1, 1, 310, 8, 8, 0), 0.1f, 0, 1.0);
  x.reference = reference, x.ctx = &w;
  windows_new(&w, &x);
  train_case_check_backward(&x, 6, 3e-5, 1e-4);
  windows_free(&w, &x), train_case_free(&x);
}

static void test_training__threads_keys_and_the_method__bits(void **state) {
  (void)state;
  train_case_check_bits(&attn_method_reformer, &plain, train_case_problem(2, 2, 131, 16, 16, 0));
  train_case_check_bits(&attn_method_reformer, &WITH(.rounds = 3, .chunk = 20, .leak = 1, .duplicates = DUP_REMOVED), train_case_problem(1, 3, 90, 9, 7, 1));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward__rounds_counted__closed_form),
      cmocka_unit_test(test_forward__duplicates_removed__softmax_over_the_union),
      cmocka_unit_test(test_forward__leak__counts_what_other_rounds_bring),
      cmocka_unit_test(test_forward__other_logits__closed_form),
      cmocka_unit_test(test_forward__chunks_beyond_a_tile__closed_form),
      cmocka_unit_test(test_forward__many_buckets__two_factors),
      cmocka_unit_test(test_dense__one_round_of_two_chunks__every_pair_once),
      cmocka_unit_test(test_dense__one_chunk__plain_shared_attention),
      cmocka_unit_test(test_dense__leak_and_two_rounds__is_not),
      cmocka_unit_test(test_mask__padding_appended__same_rows),
      cmocka_unit_test(test_rounds__more__more_of_the_mass),
      cmocka_unit_test(test_keys__never_read),
      cmocka_unit_test(test_check__odd_number_of_buckets__refused),
      cmocka_unit_test(test_training__every_form__matches_double_and_its_slopes),
      cmocka_unit_test(test_training__chunks_beyond_a_tile__matches_slopes),
      cmocka_unit_test(test_training__threads_keys_and_the_method__bits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
