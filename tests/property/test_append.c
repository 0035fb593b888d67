/* test_append.c - decoding: keys that join an index after build, for every method that can append. What forward gives then
 * depends on the keys alone; with full budgets it is exact; what is refused changes nothing. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "tests/support/attn_case.h"
#include "tests/support/subject.h"

/* A plan over a case whose mask says which keys are there at build. */
typedef struct decoder {
  const attn_method *m;
  void *params, *plan, *scratch;
  attn_case *c;
} decoder;

static void start(decoder *d, const char *settings, attn_case *c) {
  const subject *s = subjects();
  while (s->m && strcmp(s->label, "iceformer") != 0) s++;
  assert_non_null(s->m);
  *d = (decoder){.m = s->m, .params = subject_params(s, settings), .c = c};
  attn_mem need;
  assert_int_equal(attn_check(d->m, &c->pb, d->params), ATTN_OK);
  assert_int_equal(d->m->sizes(&c->pb, d->params, &need), ATTN_OK);
  d->plan = attn_alloc(need.plan), d->scratch = attn_alloc(need.scratch);
  assert_true(d->plan && d->scratch);
  memset(d->scratch, 0x7f, need.scratch);
  assert_int_equal(d->m->prepare(d->plan, &c->pb, d->params), ATTN_OK);
}
static void build(decoder *d) { assert_int_equal(d->m->build(d->plan, d->c->k, d->c->v, d->c->mask, d->scratch), ATTN_OK); }
static void append(decoder *d, int64_t n) {
  if (d->m->append(d->plan, n, d->scratch) != ATTN_OK) fail_msg("append up to %lld: %s", (long long)n, attn_last_error());
}
static void stop(decoder *d) {
  d->m->release(d->plan);
  attn_free(d->plan), attn_free(d->scratch), free(d->params);
}

typedef struct answer {
  float *out;    /* [rows, dv] */
  uint8_t *keys; /* [rows, nk] */
  int64_t rows, dv, nk, h, nq;
  uint64_t pairs;
} answer;

static void note(void *ctx, int64_t ib, int64_t ih, int64_t iq, const int32_t *keys, int64_t count) {
  answer *a = ctx;
  for (int64_t i = 0; i < count; i++) a->keys[((ib * a->h + ih) * a->nq + iq) * a->nk + keys[i]]++;
}
static answer ask(const decoder *d) {
  const attn_problem *pb = &d->c->pb;
  answer a = {.rows = pb->b * pb->h * pb->nq, .dv = pb->dv, .nk = pb->nk, .h = pb->h, .nq = pb->nq};
  a.out = calloc((size_t)(a.rows * a.dv), sizeof *a.out), a.keys = calloc((size_t)(a.rows * a.nk), 1);
  const attn_viewm out = {a.out, pb->h * pb->nq * pb->dv, pb->nq * pb->dv, pb->dv};
  attn_stats st = {.on_keys = note, .ctx = &a};
  assert_int_equal(d->m->forward(d->plan, d->params, d->c->q, out, d->scratch, &st), ATTN_OK);
  a.pairs = st.pairs;
  return a;
}
static void forget(answer *a) { free(a->out), free(a->keys); }
static void assert_same(const char *what, const answer *a, const answer *b) {
  if (memcmp(a->keys, b->keys, (size_t)(a->rows * a->nk)) != 0) fail_msg("%s: other keys", what);
  if (memcmp(a->out, b->out, (size_t)(a->rows * a->dv) * sizeof(float)) != 0) fail_msg("%s: same keys, other bits", what);
}

/* A case of capacity nk whose keys [0, n) are there; one in seven of the first `holes` is masked. */
static void make(attn_case *c, int64_t nq, int64_t nk, int64_t n, int64_t holes, uint64_t seed) {
  attn_case_make(c, (attn_shape){2, 4, 2, nq, nk, 9, 5, 0, 1, 0}, ATTN_CLUSTERED, seed);
  attn_case twin; /* the maker fills masked keys with NaN; take their values from one without mask */
  attn_case_make(&twin, (attn_shape){2, 4, 2, nq, nk, 9, 5, 0, 0, 0}, ATTN_CLUSTERED, seed);
  for (int64_t ib = 0; ib < 2; ib++)
    for (int64_t ih = 0; ih < 2; ih++)
      for (int64_t i = 0; i < nk; i++) {
        memcpy(attn_case_row(&c->k, ib, ih, i), attn_case_row(&twin.k, ib, ih, i), 9 * sizeof(float));
        memcpy(attn_case_row(&c->v, ib, ih, i), attn_case_row(&twin.v, ib, ih, i), 5 * sizeof(float));
      }
  for (int64_t x = 0; x < 2 * nk; x++) c->mask[x] = x % nk < n && !(x % nk < holes && (x % nk + x / nk) % 7 == 2);
  attn_case_free(&twin);
}
/* Lays NaN over the rows from n on, and gives them back. */
static void hide(attn_case *c, const attn_case *whole, int64_t from, int64_t n) {
  for (int64_t ib = 0; ib < 2; ib++)
    for (int64_t ih = 0; ih < 2; ih++)
      for (int64_t i = from; i < c->pb.nk; i++)
        for (int64_t t = 0; t < 9; t++) {
          attn_case_row(&c->k, ib, ih, i)[t] = i < n ? attn_case_row(&whole->k, ib, ih, i)[t] : NAN;
          if (t < 5) attn_case_row(&c->v, ib, ih, i)[t] = i < n ? attn_case_row(&whole->v, ib, ih, i)[t] : NAN;
        }
}

static void test_append__one_by_one__bits_of_any_other_cut(void **state) {
  (void)state;
  enum { NK = 700 };
  static const int64_t starts[] = {0, 1, 130};
  for (int i = 0; i < 3; i++) {
    const int64_t n0 = starts[i];
    attn_case c, whole;
    decoder single, jumps;
    make(&c, 3, NK, n0, n0, 1), make(&whole, 3, NK, n0, n0, 1);
    hide(&c, &whole, n0, n0); /* keys to come are not there yet */
    start(&single, "k=7 beam=3", &c), start(&jumps, "k=7 beam=3", &c);
    build(&single), build(&jumps);
    for (int64_t n = n0 + 1; n <= NK; n++) {
      hide(&c, &whole, n - 1, n);
      append(&single, n);
      const int64_t added = n - n0; /* from 130 to 400 the index of 128 keys moves from the first to the third block */
      if (added != 1 && added != 127 && added != 130 && added != 400 && n != NK) continue;
      append(&jumps, n);
      append(&jumps, n); /* nothing new */
      answer a = ask(&single), b = ask(&jumps);
      assert_same("cut into calls", &a, &b);
      assert_int_equal(a.pairs, b.pairs);
      forget(&a), forget(&b);
    }
    stop(&single), stop(&jumps), attn_case_free(&c), attn_case_free(&whole);
  }
}

static void test_append__later_keys__move_nothing(void **state) {
  (void)state;
  enum { NK = 900, N = 600 };
  attn_case c, other;
  decoder d, e;
  make(&c, 5, NK, 100, 100, 2), make(&other, 5, NK, 100, 100, 2);
  for (int64_t ib = 0; ib < 2; ib++)
    for (int64_t ih = 0; ih < 2; ih++)
      for (int64_t i = N; i < NK; i++)
        for (int64_t t = 0; t < 9; t++) attn_case_row(&other.k, ib, ih, i)[t] *= 1e6f;
  start(&d, "k=7 beam=3 levels=3", &c), start(&e, "k=7 beam=3 levels=3", &other);
  build(&d), build(&e), append(&d, N), append(&e, N);
  answer a = ask(&d), b = ask(&e);
  assert_same("later keys", &a, &b);
  forget(&a), forget(&b);
  append(&d, NK), append(&e, NK); /* and they do count once they are there */
  a = ask(&d), b = ask(&e);
  assert_true(memcmp(a.out, b.out, (size_t)(a.rows * a.dv) * sizeof(float)) != 0);
  forget(&a), forget(&b), stop(&d), stop(&e), attn_case_free(&c), attn_case_free(&other);
}

/* Full budgets: the k best of all keys so far; k at least as large as they are many: dense attention over them. */
static void test_append__full_budgets__the_best_keys(void **state) {
  (void)state;
  enum { NK = 600, K = 20 };
  static const char *const settings[] = {"k=20 beam=4096", "k=20 beam=4096 levels=3", "k=20 levels=1 comp=2 simp=3", "k=600 beam=1 retrieve=0.1"};
  static const int64_t ends[] = {160, 161, 287, 288, 416, 600};
  for (int i = 0; i < 4; i++) {
    attn_case c;
    decoder d;
    make(&c, 6, NK, 160, 100, 3);
    start(&d, settings[i], &c);
    build(&d);
    for (int e = 0; e < 6; e++) {
      append(&d, ends[e]);
      for (int64_t x = 0; x < 2 * NK; x++)
        if (x % NK >= 160) c.mask[x] = x % NK < ends[e]; /* for the reference */
      answer a = ask(&d);
      uint8_t *best = calloc((size_t)(a.rows * NK), 1);
      double *gaps = calloc((size_t)a.rows, sizeof *gaps);
      attn_ref_top(&c, i < 3 ? K : NK, best, gaps);
      for (int64_t row = 0; row < a.rows; row++)
        if ((i == 3 || gaps[row] > 1e-4) && memcmp(best + row * NK, a.keys + row * NK, NK) != 0) fail_msg("%s, %lld keys: row %lld does not use the best", settings[i], (long long)ends[e], (long long)row);
      free(best), free(gaps), forget(&a);
    }
    stop(&d), attn_case_free(&c);
  }
}

static double recall_of(attn_case *c, const char *settings, int64_t from, uint64_t *pairs) {
  decoder d;
  const int64_t nk = c->pb.nk;
  for (int64_t x = 0; x < 2 * nk; x++) c->mask[x] = x % nk < from;
  start(&d, settings, c), build(&d);
  if (from < nk) append(&d, nk);
  memset(c->mask, 1, (size_t)(2 * nk));
  answer a = ask(&d);
  uint8_t *best = calloc((size_t)(a.rows * nk), 1);
  attn_ref_top(c, 10, best, NULL);
  int64_t hits = 0;
  for (int64_t x = 0; x < a.rows * nk; x++) hits += best[x] && a.keys[x];
  const double recall = (double)hits / (double)(a.rows * 10);
  *pairs += a.pairs;
  free(best), forget(&a), stop(&d);
  return recall;
}

/* Keys in an index that grew are found as well as in one built at once; it is three indices here, so for more products. */
static void test_append__grown_index__recall_of_a_built_one(void **state) {
  (void)state;
  enum { SEEDS = 12, NK = 1024 };
  double mean = 0, square = 0, difference[SEEDS], level = 0;
  uint64_t grown = 0, built = 0;
  for (int seed = 0; seed < SEEDS; seed++) {
    attn_case c;
    make(&c, 8, NK, NK, 0, (uint64_t)seed);
    const double whole = recall_of(&c, "k=10 beam=6", NK, &built);
    difference[seed] = recall_of(&c, "k=10 beam=6", 200, &grown) - whole;
    mean += difference[seed] / SEEDS, level += whole / SEEDS;
    attn_case_free(&c);
  }
  for (int seed = 0; seed < SEEDS; seed++) square += pow(difference[seed] - mean, 2);
  const double error = sqrt(square / (SEEDS * (SEEDS - 1)));
  assert_true(grown > built && grown < 3 * built);
  if (mean < -3 * error || level < 0.5) fail_msg("recall %.3f built, %+.3f grown (standard error %.3f)", level, mean, error);
}

static void test_append__what_is_refused__changes_nothing(void **state) {
  (void)state;
  enum { NK = 400 };
  attn_case c;
  decoder d;
  make(&c, 4, NK, 100, 100, 4);
  start(&d, "k=7 beam=3", &c);
  assert_int_equal(d.m->append(d.plan, 200, d.scratch), ATTN_ERR_ARG); /* before build */
  build(&d);
  append(&d, 240);
  answer before = ask(&d);
  assert_int_equal(d.m->append(d.plan, NK + 1, d.scratch), ATTN_ERR_SHAPE);
  assert_non_null(strstr(attn_last_error(), "allowed 240"));
  assert_int_equal(d.m->append(d.plan, 239, d.scratch), ATTN_ERR_SHAPE);
  assert_int_equal(d.m->append(d.plan, 300, (char *)d.scratch + 4), ATTN_ERR_ARG);
  assert_int_equal(d.m->append(NULL, 300, d.scratch), ATTN_ERR_ARG);
  float *key = attn_case_row(&c.k, 1, 1, 399), good = key[8];
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 3; i++) {
    key[8] = bad[i];
    assert_int_equal(d.m->append(d.plan, NK, d.scratch), ATTN_ERR_NUMERIC);
    assert_non_null(strstr(attn_last_error(), "key 399 of head 1"));
  }
  key[8] = good;
  answer after = ask(&d);
  assert_same("refused", &before, &after);
  forget(&after), forget(&before);
  append(&d, NK);
  decoder fresh;
  start(&fresh, "k=7 beam=3", &c), build(&fresh), append(&fresh, NK);
  before = ask(&d), after = ask(&fresh);
  assert_same("after refusals", &before, &after);
  forget(&after), forget(&before), stop(&d), stop(&fresh), attn_case_free(&c);
  attn_case_make(&c, (attn_shape){1, 1, 1, 200, 200, 4, 4, 1, 0, 0}, ATTN_GAUSS, 1);
  start(&d, "", &c), build(&d);
  assert_int_equal(d.m->append(d.plan, 200, d.scratch), ATTN_ERR_UNSUPPORTED);
  stop(&d), attn_case_free(&c);
}

static void test_append__no_memory__says_so_and_goes_on(void **state) {
  (void)state;
  enum { NK = 700 };
  attn_case c;
  decoder d;
  make(&c, 4, NK, 100, 100, 5);
  start(&d, "k=7 beam=3", &c), build(&d), append(&d, 150);
  answer before = ask(&d);
  const size_t live = attn_alloc_counters().live_bytes;
  int refused = 0;
  for (uint64_t nth = 1;; nth++) {
    attn_alloc_fail_at(nth);
    const attn_status s = d.m->append(d.plan, NK, d.scratch);
    attn_alloc_fail_at(0);
    if (s == ATTN_OK) break;
    assert_int_equal(s, ATTN_ERR_NOMEM);
    answer after = ask(&d);
    assert_same("without memory", &before, &after);
    forget(&after);
    assert_true(++refused < 20);
  }
  assert_true(refused >= 1 && attn_alloc_counters().live_bytes > live);
  decoder fresh;
  start(&fresh, "k=7 beam=3", &c), build(&fresh), append(&fresh, NK);
  answer a = ask(&d), b = ask(&fresh);
  assert_same("after failures", &a, &b);
  forget(&a), forget(&b), forget(&before);
  build(&d); /* starts over */
  a = ask(&d);
  decoder anew;
  start(&anew, "k=7 beam=3", &c), build(&anew);
  b = ask(&anew);
  assert_same("built anew", &a, &b);
  forget(&a), forget(&b), stop(&d), stop(&fresh), stop(&anew), attn_case_free(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_append__one_by_one__bits_of_any_other_cut),
      cmocka_unit_test(test_append__later_keys__move_nothing),
      cmocka_unit_test(test_append__full_budgets__the_best_keys),
      cmocka_unit_test(test_append__grown_index__recall_of_a_built_one),
      cmocka_unit_test(test_append__what_is_refused__changes_nothing),
      cmocka_unit_test(test_append__no_memory__says_so_and_goes_on),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
