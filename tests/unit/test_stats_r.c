/* test_stats_r.c - the statistics against R, which computes the same from the same numbers (optional: Debian r-base-core).
 *
 * What is exact by definition must agree to rounding. A bootstrap interval is made of random resamples, so it is held against
 * all n^n resamples instead, which R lists: its ends must lie where 2,000 draws put a quantile. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "harness/stats.h"
#include "harness/stats_tests.h"

/* Numbers that C and R share are written once: A in an array, TEXT(A) in an expression. */
#define TEXT(...) TEXT_OF(__VA_ARGS__)
#define TEXT_OF(...) #__VA_ARGS__
#define LENGTH(x) (sizeof(x) / sizeof *(x))

/* Values of an R expression (without single quotes), which must be n numbers. */
static void r_values(const char *expression, double *out, size_t n) {
  char command[4096];
  const int length = snprintf(command, sizeof command,
                              "Rscript --vanilla -e 'cat(sprintf(\"%%.17g\\n\", {%s}), sep = \"\")'", expression);
  assert_in_range(length, 1, sizeof command - 1);
  FILE *r = popen(command, "r");
  assert_non_null(r);
  size_t got = 0;
  for (double value; fscanf(r, "%lf", &value) == 1; got++)
    if (got < n) out[got] = value;
  assert_int_equal(pclose(r), 0);
  assert_int_equal(got, n);
}

static void near(double ours, double r, double tolerance, const char *what, int at) {
  if (!(fabs(ours - r) <= tolerance)) fail_msg("%s %d: %.17g, R has %.17g", what, at, ours, r);
}

static int r_is_here(void **state) {
  *state = system("command -v Rscript >/dev/null") == 0 ? (void *)"R" : NULL; /* NOLINT: a fixed text */
  if (!*state) print_message("SKIP Rscript is not installed (apt-get install r-base-core)\n");
  return 0;
}

static void needs_r(void **state) {
  if (!*state) skip();
}

static void test_median_interval__every_size__ranks_of_qbinom(void **state) {
  needs_r(state);
  enum { FIRST = STATS_LEAST, LAST = 1000 };
  static double x[LAST], rank[LAST - FIRST + 1];
  r_values("qbinom(0.025, 6:1000, 0.5)", rank, LENGTH(rank));
  for (int i = 0; i < LAST; i++) x[i] = i + 1;
  for (int n = FIRST; n <= LAST; n++) {
    const stats_interval ours = stats_median_interval(x, (size_t)n);
    near(ours.lo, rank[n - FIRST], 0, "lower rank of", n);
    near(ours.hi, n + 1 - rank[n - FIRST], 0, "upper rank of", n);
  }
}

static void test_median_and_quantile__r_type_7__agree(void **state) {
  needs_r(state);
#define X 0.31, 1.7, 2.25, 2.25, 4.1, 9.75, 20.5
  const double x[] = {X};
  double sorted[] = {X}, r[22];
  r_values("x <- c(" TEXT(X) "); c(median(x), quantile(x, 0:20 / 20, type = 7))", r, LENGTH(r));
  near(stats_median(sorted, LENGTH(sorted)), r[0], 0, "median", 0);
  for (int i = 0; i <= 20; i++) near(stats_quantile(x, LENGTH(x), i / 20.0), r[i + 1], 1e-12, "quantile of 20:", i);
#undef X
}

static void test_wilson__prop_test__agrees(void **state) {
  needs_r(state);
  enum { N = 40 };
  double r[2 * (N + 1)], large[2];
  const char *score = "score <- function(x, n) suppressWarnings(prop.test(x, n, correct = FALSE)$conf.int); ";
  char expression[256];
  snprintf(expression, sizeof expression, "%s sapply(0:%d, score, n = %d)", score, N, N);
  r_values(expression, r, LENGTH(r));
  for (int hits = 0; hits <= N; hits++) {
    const stats_interval ours = stats_wilson(hits, N);
    near(ours.lo, r[2 * hits], 1e-12, "lower bound of hits", hits);
    near(ours.hi, r[2 * hits + 1], 1e-12, "upper bound of hits", hits);
  }
  snprintf(expression, sizeof expression, "%s score(7193, 10000)", score);
  r_values(expression, large, 2);
  near(stats_wilson(7193, 10000).lo, large[0], 1e-12, "lower bound of hits", 7193);
  near(stats_wilson(7193, 10000).hi, large[1], 1e-12, "upper bound of hits", 7193);
}

static void test_mcnemar__binom_test__agrees(void **state) {
  needs_r(state);
  enum { SIDE = 16 };
  double r[SIDE * SIDE + 1];
  r_values("exact <- function(a, b) if (a + b == 0) 1 else binom.test(a, a + b)$p.value; "
           "c(sapply(0:255, function(i) exact(i %/% 16, i %% 16)), exact(1840, 1991))",
           r, LENGTH(r));
  for (int i = 0; i < SIDE * SIDE; i++)
    near(stats_mcnemar((stats_pairs){.n = 100, .only_a = i / SIDE, .only_b = i % SIDE}), r[i], 1e-12, "16 a + b =", i);
  near(stats_mcnemar((stats_pairs){.n = 5000, .only_a = 1840, .only_b = 1991}), r[SIDE * SIDE], 1e-9, "a =", 1840);
}

static void test_sign_flip__all_assignments__agrees(void **state) {
  needs_r(state);
#define A 0.5, 0.75, 0.25, 1, 0.875, 0.625, 0.5, 1, 0.375
#define B 0.25, 0.5, 0.5, 0.5, 0.75, 0.625, 0.125, 0.875, 0.5
  const double a[] = {A}, b[] = {B};
  double r;
  r_values("d <- c(" TEXT(A) ") - c(" TEXT(B) "); flips <- as.matrix(expand.grid(rep(list(c(-1, 1)), length(d)))); "
                                              "mean(abs(flips %*% d) >= abs(sum(d)))",
           &r, 1);
  near(stats_sign_flip(a, b, LENGTH(a), 1), r, 1e-12, "p", 0);
#undef A
#undef B
}

/* Calls wilcox.test and counts pairs for the effect size. */
#define RANK_TEST                                                                                                      \
  "x <- wilcox.test(a, b, exact = exact, correct = TRUE); "                                                            \
  "c(x$statistic, mean(outer(a, b, \">\") + outer(a, b, \"==\") / 2), x$p.value)"

static void rank_test_agrees(stats_rank_test ours, const double *r, int exact) {
  near(ours.u, r[0], 0, "U, exact", exact);
  near(ours.effect, r[1], 1e-12, "effect, exact", exact);
  near(ours.p, r[2], 1e-10, "p, exact", exact);
  assert_int_equal(ours.exact, exact);
}

static void test_mann_whitney__without_ties__exact_p(void **state) {
  needs_r(state);
#define A 10.1, 12.4, 11.3, 15.2, 13.9, 14.6, 12.9
#define B 9.8, 10.7, 11.9, 10.2, 12.1, 9.1, 11.1, 13.1, 8.4
  const double a[] = {A}, b[] = {B};
  double r[3];
  r_values("exact <- TRUE; a <- c(" TEXT(A) "); b <- c(" TEXT(B) "); " RANK_TEST, r, 3);
  rank_test_agrees(stats_mann_whitney(a, LENGTH(a), b, LENGTH(b)), r, 1);
#undef A
#undef B
}

static void test_mann_whitney__ties_or_many__normal_p(void **state) {
  needs_r(state);
#define A 3, 5, 5, 7, 8, 8, 8, 9
#define B 2, 3, 4, 5, 5, 6, 8
  const double a[] = {A}, b[] = {B};
  double r[3], many_a[STATS_EXACT + 1], many_b[STATS_EXACT];
  r_values("exact <- FALSE; a <- c(" TEXT(A) "); b <- c(" TEXT(B) "); " RANK_TEST, r, 3);
  rank_test_agrees(stats_mann_whitney(a, LENGTH(a), b, LENGTH(b)), r, 0);
#undef A
#undef B
  for (int i = 0; i <= STATS_EXACT; i++) many_a[i] = i * 37 % 101 + 12.5;
  for (int i = 0; i < STATS_EXACT; i++) many_b[i] = i * 53 % 97;
  r_values("exact <- FALSE; a <- (0:50 * 37) %% 101 + 12.5; b <- (0:49 * 53) %% 97; " RANK_TEST, r, 3);
  rank_test_agrees(stats_mann_whitney(many_a, LENGTH(many_a), many_b, LENGTH(many_b)), r, 0);
}

static void test_holm__p_adjust__agrees(void **state) {
  needs_r(state);
#define P 0.04, 0.001, 0.011, 0.03, 0.0012, 0.7, 0.011, 0.24
  double ours[] = {P, NAN}, r[LENGTH(ours) - 1];
  r_values("p.adjust(c(" TEXT(P) ", NA), \"holm\")[1:8]", r, LENGTH(r));
  stats_holm(ours, LENGTH(ours));
  for (size_t i = 0; i < LENGTH(r); i++) near(ours[i], r[i], 1e-15, "p", (int)i);
  assert_true(isnan(ours[LENGTH(r)]));
#undef P
}

/* The quantile at 2.5 % of 2,000 draws lies between those at 1.3 % and 3.7 % of the whole distribution but for one seed of
 * 2,000 (3.4 standard deviations of 0.35 %). */
static void within(stats_interval ours, const double *r, const char *what) {
  if (!(r[0] <= ours.lo && ours.lo <= r[1]))
    fail_msg("%s: lower end %.9g, R has [%.9g, %.9g]", what, ours.lo, r[0], r[1]);
  if (!(r[2] <= ours.hi && ours.hi <= r[3]))
    fail_msg("%s: upper end %.9g, R has [%.9g, %.9g]", what, ours.hi, r[2], r[3]);
}

static void test_bootstrap__all_resamples__ends_at_their_quantiles(void **state) {
  needs_r(state);
#define A 30.2, 31.7, 29.1, 35.4, 27.3, 33.8
#define B 10.3, 9.1, 11.6, 10.9, 12.2, 9.7
  const double a[] = {A}, b[] = {B};
  enum { N = LENGTH(a), SEED = 11 };
  double r[16];
  r_values("a <- c(" TEXT(A) "); b <- c(" TEXT(
               B) "); pick <- as.matrix(expand.grid(rep(list(1:6), 6))); "
                  "drawn <- function(x) matrix(x[pick], ncol = 6); "
                  "medians <- function(m) { s <- matrix(m[order(row(m), m)], nrow = 6); (s[3, ] + s[4, ]) / 2 }; "
                  "ma <- rowMeans(drawn(a)); mb <- rowMeans(drawn(b)); "
                  "sapply(list(medians(drawn(a)) / medians(drawn(b)), ma, ma - mb, ma / mb), quantile, c(0.013, 0.037, "
                  "0.963, 0.987))",
           r, LENGTH(r));
  within(stats_ratio_bootstrap(a, b, N, SEED), r, "ratio of medians");
  within(stats_mean_bootstrap(a, N, SEED), r + 4, "mean");
  within(stats_difference_bootstrap(a, b, N, SEED), r + 8, "difference of means");
  within(stats_retention_bootstrap(a, b, N, SEED), r + 12, "ratio of means");
#undef A
#undef B
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_median_interval__every_size__ranks_of_qbinom),
      cmocka_unit_test(test_median_and_quantile__r_type_7__agree),
      cmocka_unit_test(test_wilson__prop_test__agrees),
      cmocka_unit_test(test_mcnemar__binom_test__agrees),
      cmocka_unit_test(test_sign_flip__all_assignments__agrees),
      cmocka_unit_test(test_mann_whitney__without_ties__exact_p),
      cmocka_unit_test(test_mann_whitney__ties_or_many__normal_p),
      cmocka_unit_test(test_holm__p_adjust__agrees),
      cmocka_unit_test(test_bootstrap__all_resamples__ends_at_their_quantiles),
  };
  return cmocka_run_group_tests(tests, r_is_here, NULL);
}
