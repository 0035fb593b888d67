/* test_golden.c - what every attention computes on fixed problems, line by line against golden.csv.
 *
 * A line is method, settings, problem, q.k products, largest and root-mean-square difference to exact attention in double,
 * and the share of the exact 20 best keys among the keys used. Too good is as suspicious as too bad: a budget that is
 * ignored shows here. Runs on the scalar kernels, whose bits are the same on every machine; inputs are made without
 * library functions. Errors of vanilla are those of the BLAS at hand and left out.
 *
 * `make golden` writes the file anew (test_golden --write FILE); the difference is to be reviewed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/rng.h"
#include "tests/support/attn_case.h"
#include "tests/support/subject.h"

#define GOLDEN "tests/regression/golden.csv"
enum { BEST = 20 };

static const struct {
  const char *name;
  attn_shape shape;
  int64_t clusters; /* 0: no structure */
} problems[] = {
    {"gauss", {1, 2, 2, 64, 512, 32, 32, 0, 0, 0}, 0},
    {"clustered", {1, 2, 2, 64, 4096, 32, 32, 0, 0, 0}, 64},
    {"masked", {2, 1, 1, 50, 300, 16, 16, 0, 1, 0}, 20},
    {"causal", {1, 2, 1, 600, 600, 16, 16, 1, 0, 0}, 20},
};

enum { PROBLEMS = sizeof problems / sizeof *problems };

/* About normal, by sums and exactly representable steps. */
static double bell(attn_rng *r) {
  double sum = -6.0;
  for (int i = 0; i < 12; i++) sum += attn_rng_uniform(r);
  return sum;
}

/* Cluster centres of length about 1.3 sqrt(d), so that logits inside a cluster are about 8 at d = 32. */
static void fill(const attn_view *v, int64_t b, int64_t h, int64_t n, int64_t d, int64_t clusters, uint64_t stream) {
  attn_rng r;
  attn_rng_seed(&r, 11, stream);
  for (int64_t ib = 0; ib < b; ib++)
    for (int64_t ih = 0; ih < h; ih++)
      for (int64_t i = 0; i < n; i++) {
        attn_rng centre;
        attn_rng_seed(&centre, 12, clusters ? attn_rng_below(&r, (uint64_t)clusters) : 0);
        const double length = clusters ? 1.0 + 0.15 * bell(&r) : 1.0;
        for (int64_t t = 0; t < d; t++)
          attn_case_row(v, ib, ih, i)[t] = (float)(length * ((clusters ? 1.3 * bell(&centre) : 0.0) + (clusters ? 0.5 : 1.0) * bell(&r)));
      }
}

/* A problem with what is exact about it, made once for all methods. */
typedef struct exact {
  attn_case c;
  attn_truth truth;
  uint8_t *best; /* [rows, nk]: the BEST keys of a row */
} exact;
static exact exact_new(int i) {
  const attn_shape shape = problems[i].shape;
  exact x;
  attn_case_make(&x.c, shape, ATTN_GAUSS, 1);
  for (int64_t k = 0; k < shape.b * shape.nk && x.c.mask; k++) x.c.mask[k] = k % 7 != 3 && k % 11 != 5;
  fill(&x.c.q, shape.b, shape.h, shape.nq, shape.d, problems[i].clusters, 1);
  fill(&x.c.k, shape.b, shape.hkv, shape.nk, shape.d, problems[i].clusters, 2);
  fill(&x.c.v, shape.b, shape.hkv, shape.nk, shape.dv, 0, 3);
  x.truth = attn_ref(&x.c, NULL);
  x.best = calloc((size_t)(shape.b * shape.h * shape.nq * shape.nk), 1);
  assert_non_null(x.best);
  attn_ref_top(&x.c, BEST, x.best, NULL);
  return x;
}
static void exact_free(exact *x) { attn_truth_free(&x->truth), attn_case_free(&x->c), free(x->best); }

static void write_line(FILE *f, const subject *s, const char *problem, const exact *x) {
  const int sets = (s->m->caps & ATTN_CAP_KEYSET) != 0;
  const char *settings = strchr(s->label, ' ');
  const int64_t dv = x->c.pb.dv, nk = x->c.pb.nk;
  attn_result r;
  subject_run(s, NULL, &x->c, sets ? ATTN_WANT_KEYS : 0, &r);
  double most = 0, square = 0;
  for (int64_t i = 0; i < r.rows * dv; i++) {
    const double diff = fabs((double)r.out[i] - x->truth.out[i]);
    most = fmax(most, diff), square += diff * diff;
  }
  (void)fprintf(f, "%s,%s,%s,%llu,", s->m->name, settings ? settings + 1 : "", problem, (unsigned long long)r.pairs);
  if (!strcmp(s->m->name, "vanilla")) (void)fprintf(f, ",,");
  else (void)fprintf(f, "%.2e,%.2e,", most, sqrt(square / (double)(r.rows * dv)));
  if (sets) {
    int64_t hits = 0, all = 0;
    for (int64_t i = 0; i < r.rows * nk; i++) hits += x->best[i] && r.keys[i], all += x->best[i];
    (void)fprintf(f, "%.3f", (double)hits / (double)all);
  }
  (void)fputc('\n', f);
  attn_result_free(&r);
}

static char *table(void) {
  char *text = NULL;
  size_t size = 0;
  FILE *f = open_memstream(&text, &size);
  assert_non_null(f);
  (void)fprintf(f, "method,settings,problem,pairs,max_error,rms_error,recall\n");
  exact x[PROBLEMS];
  for (int i = 0; i < PROBLEMS; i++) x[i] = exact_new(i);
  for (const subject *s = subjects(); s->m; s++)
    for (int i = 0; i < PROBLEMS; i++)
      if (subject_can(s, problems[i].shape)) write_line(f, s, problems[i].name, x + i);
  for (int i = 0; i < PROBLEMS; i++) exact_free(x + i);
  assert_int_equal(fclose(f), 0);
  return text;
}

static void test_table__every_method_and_problem__as_in_golden_csv(void **state) {
  (void)state;
  char *text = table(), *rest = text, *got, line[256];
  FILE *f = fopen(GOLDEN, "r");
  if (!f) fail_msg("%s is missing: make golden", GOLDEN);
  int number = 0, wrong = 0;
  while ((got = strtok_r(rest, "\n", &rest)) != NULL) {
    number++;
    const char *want = fgets(line, sizeof line, f) ? line : "";
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(want, got) != 0 && wrong++ < 10) print_error("%s:%d: %s\n  expected %s\n", GOLDEN, number, got, want);
  }
  if (fgets(line, sizeof line, f)) print_error("%s has lines after %d\n", GOLDEN, number), wrong++;
  (void)fclose(f);
  free(text);
  if (wrong) fail_msg("%d lines differ; if that is meant: make golden, review the difference, bump versions", wrong);
}

static void write_golden(void **state) {
  char *text = table();
  FILE *f = fopen(*state, "w");
  if (!f) fail_msg("%s cannot be written", (const char *)*state);
  assert_true(fputs(text, f) >= 0);
  assert_int_equal(fclose(f), 0);
  free(text);
}

int main(int argc, char **argv) {
  (void)setenv("ATTN_ISA", "scalar", 1); /* before the first kernel is chosen */
  const struct CMUnitTest write[] = {cmocka_unit_test_prestate(write_golden, argc == 3 ? argv[2] : NULL)};
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_table__every_method_and_problem__as_in_golden_csv)};
  if (argc == 3 && !strcmp(argv[1], "--write")) return cmocka_run_group_tests(write, NULL, NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
