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

static void write_line(FILE *f, const subject *s, int i) {
  const attn_shape shape = problems[i].shape;
  const int sets = (s->m->caps & ATTN_CAP_KEYSET) != 0;
  const char *settings = strchr(s->label, ' ');
  attn_case c;
  attn_result r;
  attn_case_make(&c, shape, ATTN_GAUSS, 1);
  for (int64_t x = 0; x < shape.b * shape.nk && c.mask; x++) c.mask[x] = x % 7 != 3 && x % 11 != 5;
  fill(&c.q, shape.b, shape.h, shape.nq, shape.d, problems[i].clusters, 1);
  fill(&c.k, shape.b, shape.hkv, shape.nk, shape.d, problems[i].clusters, 2);
  fill(&c.v, shape.b, shape.hkv, shape.nk, shape.dv, 0, 3);
  subject_run(s, NULL, &c, sets ? ATTN_WANT_KEYS : 0, &r);
  attn_truth t = attn_ref(&c, NULL);
  double most = 0, square = 0;
  for (int64_t x = 0; x < r.rows * shape.dv; x++) {
    const double diff = fabs((double)r.out[x] - t.out[x]);
    most = fmax(most, diff), square += diff * diff;
  }
  (void)fprintf(f, "%s,%s,%s,%llu,", s->m->name, settings ? settings + 1 : "", problems[i].name, (unsigned long long)r.pairs);
  if (!strcmp(s->m->name, "vanilla")) (void)fprintf(f, ",,");
  else (void)fprintf(f, "%.2e,%.2e,", most, sqrt(square / (double)(r.rows * shape.dv)));
  if (sets) {
    uint8_t *best = calloc((size_t)(r.rows * shape.nk), 1);
    int64_t hits = 0, all = 0;
    attn_ref_top(&c, BEST, best, NULL);
    for (int64_t x = 0; x < r.rows * shape.nk; x++) hits += best[x] && r.keys[x], all += best[x];
    (void)fprintf(f, "%.3f", (double)hits / (double)all);
    free(best);
  }
  (void)fputc('\n', f);
  attn_truth_free(&t), attn_result_free(&r), attn_case_free(&c);
}

static char *table(void) {
  char *text = NULL;
  size_t size = 0;
  FILE *f = open_memstream(&text, &size);
  assert_non_null(f);
  (void)fprintf(f, "method,settings,problem,pairs,max_error,rms_error,recall\n");
  for (const subject *s = subjects(); s->m; s++)
    for (int i = 0; i < (int)(sizeof problems / sizeof *problems); i++)
      if (subject_can(s, problems[i].shape)) write_line(f, s, i);
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
