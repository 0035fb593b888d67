/* test_causal_cells.c - the causal form of icecells over several ranges of blocks: each row is a softmax over the keys it reports, and knows
 * of nothing that comes after it, neither keys nor queries; bits do not depend on who shares a task. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/rng.h"
#include "kernels/methods/icecells.h"
#include "tests/support/attn_case.h"
#include "tests/support/subject.h"

/* Three blocks of keys, in ranges of two and one, and a part of the next; without masks, with holes, with earlier keys. */
enum { N = 3 * ICECELLS_BLOCK + 77 };
static const attn_shape whole = {1, 2, 1, N, N, 16, 12, 1, 0, 0}, holes = {2, 2, 1, N, N, 9, 7, 1, 1, 1}, later = {1, 2, 2, 300, N, 16, 16, 1, 0, 0};

#define FOR_CELLS(s) \
  for (const subject *s = subjects(); s->m; s++) \
    if (!strcmp(s->m->name, "icecells"))

static void test_rows__every_kind_of_problem__are_made_of_the_keys_they_report(void **state) {
  (void)state;
  const attn_shape shapes[] = {whole, holes, later};
  int tried = 0;
  FOR_CELLS(s) for (int i = 0; i < 3; i++) {
    attn_case c;
    attn_result r;
    void *params = subject_params(s, "far=none");
    attn_case_make(&c, shapes[i], i == 1 ? ATTN_GAUSS : ATTN_CLUSTERED, 3);
    subject_run(s, params, &c, ATTN_WANT_KEYS | (i == 2 ? ATTN_AT_END : 0), &r);
    int64_t used = 0, seen = 0;
    for (int64_t row = 0; row < r.rows; row++)
      for (int64_t j = 0; j < c.pb.nk; j++) {
        const int sees = attn_case_sees(&c, row / c.pb.nq / c.pb.h, row % c.pb.nq, j);
        used += r.keys[row * c.pb.nk + j], seen += sees;
        if (r.keys[row * c.pb.nk + j] > sees) fail_msg("%s: row %lld reports key %lld", s->label, (long long)row, (long long)j);
      }
    attn_assert_close(s->label, &c, &r, r.keys);
    tried += used < seen / 2;
    attn_result_free(&r), attn_case_free(&c), free(params);
  }
  assert_true(tried >= 6); /* most of them leave most keys out */
}

static void test_rows__all_cells__exact_and_means_help_when_there_are_fewer(void **state) {
  (void)state;
  static const char *const setting[] = {"visit=1000000 mass=1 stop=estimate", "visit=2 mass=1 stop=estimate far=none", "visit=2 mass=1 stop=estimate far=mean"};
  attn_case c;
  attn_case_make(&c, whole, ATTN_CLUSTERED, 5);
  attn_truth want = attn_ref(&c, NULL);
  FOR_CELLS(s) {
    double square[3] = {0};
    if (!strstr(s->label, "dense_below=0")) continue;
    for (int i = 0; i < 3; i++) {
      attn_result r;
      void *params = subject_params(s, setting[i]);
      subject_run(s, params, &c, 0, &r);
      if (i == 0) attn_assert_close(s->label, &c, &r, NULL);
      for (int64_t x = 0; x < r.rows * c.pb.dv; x++) square[i] += pow((double)r.out[x] - want.out[x], 2);
      attn_result_free(&r), free(params);
    }
    if (!(square[2] < 0.9 * square[1])) fail_msg("%s: means change the squared error from %g to %g", s->label, square[1], square[2]);
  }
  attn_truth_free(&want), attn_case_free(&c);
}

/* The rows up to `last` of two runs. */
static void assert_rows(const subject *s, const attn_result *a, const attn_result *b, int64_t last, const char *what) {
  for (int64_t row = 0; row < a->rows; row++)
    if (row % a->pb.nq + a->pb.nk - a->pb.nq <= last &&
        (memcmp(a->out + row * a->pb.dv, b->out + row * a->pb.dv, (size_t)a->pb.dv * sizeof(float)) || memcmp(a->lse + row, b->lse + row, sizeof(float))))
      fail_msg("%s: row %lld is another %s", s->label, (long long)row, what);
}

static void test_rows__later_keys_values_and_queries__do_not_move_them(void **state) {
  (void)state;
  static const int64_t cuts[] = {N - 2, 2 * ICECELLS_BLOCK + 3, 2 * ICECELLS_BLOCK - 1, 400, ICECELLS_BLOCK, 100};
  FOR_CELLS(s) for (int holed = 0; holed < 2; holed++) {
    attn_case c;
    attn_result want, r;
    attn_case_make(&c, holed ? holes : whole, ATTN_CLUSTERED, 7);
    subject_run(s, NULL, &c, 0, &want);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
      attn_rng g;
      attn_rng_seed(&g, i, 1);
      for (int64_t ib = 0; ib < c.pb.b; ib++)
        for (int64_t ih = 0; ih < c.pb.h; ih++)
          for (int64_t j = cuts[i] + 1; j < N; j++) {
            if (c.mask && !c.mask[ib * N + j]) continue;
            for (int64_t t = 0; t < c.pb.d; t++) {
              attn_case_row(&c.q, ib, ih, j)[t] = 3.0f * (float)attn_rng_normal(&g);
              if (ih < c.pb.hkv) attn_case_row(&c.k, ib, ih, j)[t] = 10.0f * (float)attn_rng_normal(&g);
            }
            for (int64_t t = 0; t < c.pb.dv && ih < c.pb.hkv; t++) attn_case_row(&c.v, ib, ih, j)[t] = i % 2 ? NAN : 1e3f;
          }
      subject_run(s, NULL, &c, 0, &r);
      assert_rows(s, &want, &r, cuts[i], "when later positions change");
      attn_result_free(&r);
    }
    attn_result_free(&want), attn_case_free(&c);
  }
}

static void test_rows__threads_and_company__same_bits(void **state) {
  (void)state;
  FOR_CELLS(s) {
    attn_case c;
    attn_result want, r;
    attn_case_make(&c, whole, ATTN_CLUSTERED, 9);
    subject_run(s, NULL, &c, 0, &want);
    for (int threads = 1; threads < 8; threads += 6) {
      c.pb.threads = threads;
      subject_run(s, NULL, &c, 0, &r);
      assert_rows(s, &want, &r, N, "with other threads");
      attn_result_free(&r);
    }
    for (int64_t nq = 1; nq < 400; nq *= 7) { /* the last rows alone, from another place in their task on */
      attn_case some = c;
      some.pb.nq = nq;
      some.q.p += (N - nq) * c.q.sn;
      subject_run(s, NULL, &some, 0, &r);
      for (int64_t ih = 0; ih < c.pb.h; ih++)
        if (memcmp(r.out + ih * nq * c.pb.dv, want.out + ((ih + 1) * N - nq) * c.pb.dv, (size_t)(nq * c.pb.dv) * sizeof(float)))
          fail_msg("%s: the last %lld rows are others when they are alone", s->label, (long long)nq);
      attn_result_free(&r);
    }
    attn_result_free(&want), attn_case_free(&c);
  }
}

static void test_missing__several_ranges__bounds_the_mass_left_out(void **state) {
  (void)state;
  FOR_CELLS(s) {
    attn_case c;
    attn_result r;
    attn_case_make(&c, whole, ATTN_CLUSTERED, 11);
    subject_run(s, NULL, &c, ATTN_WANT_KEYS, &r);
    attn_truth full = attn_ref(&c, NULL), kept = attn_ref(&c, r.keys);
    for (int64_t row = 0; row < r.rows; row++) {
      const double missing = 1 - exp(kept.lse[row] - full.lse[row]);
      if (!(missing <= (double)r.missing[row] + 1e-9)) fail_msg("%s: row %lld misses %g, bound %g", s->label, (long long)row, missing, (double)r.missing[row]);
      if (strstr(s->label, "stop=bound") && r.missing[row] > 0.1001f) fail_msg("%s: row %lld may miss %g", s->label, (long long)row, (double)r.missing[row]);
    }
    attn_truth_free(&full), attn_truth_free(&kept);
    attn_result_free(&r), attn_case_free(&c);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rows__every_kind_of_problem__are_made_of_the_keys_they_report),
      cmocka_unit_test(test_rows__all_cells__exact_and_means_help_when_there_are_fewer),
      cmocka_unit_test(test_rows__later_keys_values_and_queries__do_not_move_them),
      cmocka_unit_test(test_rows__threads_and_company__same_bits),
      cmocka_unit_test(test_missing__several_ranges__bounds_the_mass_left_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
