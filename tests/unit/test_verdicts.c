/* test_verdicts.c - published values against ours: what is compared with what, verdicts, reasons, what is malformed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/label.h"
#include "harness/plot.h"
#include "harness/report_verdicts.h"
#include "tests/support/results.h"
#include "tests/support/scratch.h"

static store *s;
static int setup(void **state) { return results_setup(state, &s); }
static int teardown(void **state) { return results_teardown(state, s); }

enum { ITEMS = 20 };
typedef struct row {
  const char *task, *model, *method, *label, *status, *reason;
  double x_vanilla, skip, accuracy, bytes;
  int hits; /* of ITEMS predictions, the first ones; -1: none */
  const char *experiment;
  int partial;
} row;

static void put(row r) {
  static int number;
  char key[64];
  ice_err e = {0};
  store_prediction p[ITEMS];
  for (int i = 0; i < ITEMS; i++) p[i] = (store_prediction){i, 3, i < r.hits ? 3 : -4};
  (void)snprintf(key, sizeof key, "{\"row\":%d}", number++);
  const int ok = !r.status;
  const store_metric m[] = {{"accuracy", r.accuracy, r.accuracy - 0.01, r.accuracy + 0.01},
                            {"attention_ns", 5e6, 4.9e6, 5.1e6},
                            {"speedup_vanilla", r.x_vanilla, r.x_vanilla * 0.95, r.x_vanilla * 1.05},
                            {"speedup_dense", r.x_vanilla / 2, NAN, NAN},
                            {"speedup_skip", r.skip > 0 ? r.skip : NAN, r.skip > 0 ? r.skip * 0.9 : NAN, r.skip > 0 ? r.skip * 1.1 : NAN},
                            {"peak_bytes", r.bytes > 0 ? r.bytes : NAN, NAN, NAN}};
  const store_cell c = {.key = key, .experiment = r.experiment ? r.experiment : "paper-lra", .task = r.task ? r.task : "lra/listops",
                        .model = r.model, .method = r.method, .method_version = "1", .params = "{}", .seed = 1, .n = 100, .heads = 2,
                        .head_dim = 32, .layers = 2, .threads = 2, .isa = "avx2", .examples = ok ? ITEMS : 0, .partial = r.partial,
                        .status = ok ? "ok" : r.status, .reason = r.reason, .label = r.label, .started_utc_ms = 1700000000000, .metric = m,
                        .n_metrics = ok ? 6 : 0, .prediction = p, .n_predictions = ok && r.hits >= 0 ? ITEMS : 0};
  if (store_put(s, &c, 0, &e) != ICE_OK) fail_msg("%s", e.text);
}

static const char published[] = "# Where from.\n"
                                "task,method,model,metric,value,error,source\n"
                                "lra/listops,vanilla,softmax,attention_s,3.0,0.02,page\n"
                                "lra/listops,iceformer,softmax,attention_s,0.4,0.02,page\n"
                                "lra/listops,performer,performer,attention_s,1.5,0.02,page\n"
                                "lra/listops,vanilla,softmax,accuracy,0.37,0,code\n"
                                "lra/listops,vanilla,softmax,memory_gb,3.7,0.02,page\n"
                                "lra/listops,iceformer,softmax,memory_gb,3.4,0.02,page\n"
                                "lra/retrieval,vanilla,softmax,accuracy,0.79,0,code\n"
                                "lra,iceformer,softmax,retention,0.986,0,abstract\n";
enum { BASE, ICE, PERFORMER, ACCURACY, MEMORY_BASE, MEMORY, RETRIEVAL, RETENTION, VALUES };

typedef struct judged {
  report_paper p;
  paper_verdict v[VALUES];
  paper_task task[PAPER_TASKS];
} judged;
static judged judge(void) {
  judged j;
  ice_err e = {0};
  if (report_paper_parse(published, &j.p, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(j.p.n, VALUES);
  if (report_paper_judge(s, &j.p, NULL, j.v, j.task, &e) != ICE_OK) fail_msg("%s", e.text);
  return j;
}
static void near(double is, double want) {
  if (!(fabs(is - want) < 1e-9)) fail_msg("%.12g, expected %.12g", is, want);
}
static void says(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("\"%s\" lacks \"%s\"", text, part);
}

/* Ours is taken as it was published: the baseline computed padding, iceformer did not. */
static void test_speed__as_published__skipping_times_speed_up(void **state) {
  (void)state;
  put((row){.model = "lra/listops/softmax", .method = "vanilla", .x_vanilla = 1, .accuracy = 0.3});
  put((row){.model = "lra/listops/softmax", .method = "vanilla", .label = LABEL_PADDED, .x_vanilla = 1, .skip = 2, .accuracy = 0.3});
  put((row){.model = "lra/listops/softmax", .method = "iceformer", .x_vanilla = 2, .accuracy = 0.3});
  put((row){.model = "lra/listops/softmax", .method = "iceformer", .x_vanilla = 100, .accuracy = 0.3, .experiment = "other"});
  put((row){.model = "lra/listops/performer", .method = "performer", .x_vanilla = 9, .accuracy = 0.3});
  put((row){.model = "lra/listops/performer", .method = "performer", .label = LABEL_PADDED, .x_vanilla = 4, .skip = 2, .accuracy = 0.3});
  put((row){.model = "lra/listops/performer", .method = "performer", .label = "no retraining", .x_vanilla = 2, .skip = 2, .accuracy = 0.3});
  judged j = judge();
  assert_int_equal(j.v[BASE].outcome, PAPER_NOT_HERE);
  near(j.v[ICE].published, 7.5);
  near(j.v[ICE].ours, 4.0);
  near(j.v[ICE].lo, 2 * 0.95 * 2 * 0.9);
  near(j.v[ICE].ratio, 4.0 / 7.5);
  assert_int_equal(j.v[ICE].outcome, PAPER_DIFFERS); /* 4.62 x 1.25 x 1.04 = 6.0 */
  near(j.v[PERFORMER].published, 2.0);
  near(j.v[PERFORMER].ours, 4.0); /* the row with padding, trained with itself */
  assert_int_equal(j.v[PERFORMER].outcome, PAPER_DIFFERS); /* more than published is no success of a baseline */
  near(j.task[0].together.value, 4.0);
  near(j.task[0].dense_x.value, 1.0);
  report_paper_free(&j.p);
}

static void test_speed__more_than_claimed__reproduced(void **state) {
  (void)state;
  put((row){.model = "lra/listops/softmax", .method = "vanilla", .label = LABEL_PADDED, .x_vanilla = 1, .skip = 3, .accuracy = 0.3});
  put((row){.model = "lra/listops/softmax", .method = "iceformer", .x_vanilla = 9, .accuracy = 0.3, .partial = 1});
  judged j = judge();
  near(j.v[ICE].ours, 27.0);
  assert_int_equal(j.v[ICE].outcome, PAPER_REPRODUCED);
  assert_int_equal(j.v[ICE].partial, 1);
  assert_int_equal(j.v[ICE].examples, ITEMS);
  report_paper_free(&j.p);
}

static void test_accuracy__interval_against_published__both_ways(void **state) {
  (void)state;
  const struct {
    double ours;
    paper_outcome want;
  } c[] = {{0.37, PAPER_REPRODUCED}, {0.395, PAPER_REPRODUCED}, {0.341, PAPER_REPRODUCED}, {0.405, PAPER_DIFFERS}, {0.33, PAPER_DIFFERS}};
  for (int i = 0; i < 5; i++) {
    put((row){.model = "lra/listops/softmax", .method = "vanilla", .x_vanilla = 1, .accuracy = c[i].ours}); /* the newest counts */
    judged j = judge();
    near(j.v[ACCURACY].ours, c[i].ours);
    assert_int_equal(j.v[ACCURACY].outcome, c[i].want);
    report_paper_free(&j.p);
  }
}

static void test_memory__sign_of_the_difference(void **state) {
  (void)state;
  put((row){.model = "lra/listops/softmax", .method = "vanilla", .label = LABEL_PADDED, .x_vanilla = 1, .accuracy = 0.3, .bytes = 10 << 20});
  put((row){.model = "lra/listops/softmax", .method = "iceformer", .x_vanilla = 2, .accuracy = 0.3, .bytes = 4 << 20});
  judged j = judge();
  near(j.v[MEMORY].ours, -6.0);
  near(j.v[MEMORY].published, -0.3);
  assert_int_equal(j.v[MEMORY].outcome, PAPER_REPRODUCED);
  assert_int_equal(j.v[MEMORY_BASE].outcome, PAPER_NOT_HERE);
  report_paper_free(&j.p);
  put((row){.model = "lra/listops/softmax", .method = "iceformer", .x_vanilla = 2, .accuracy = 0.3, .bytes = 40 << 20});
  j = judge();
  assert_int_equal(j.v[MEMORY].outcome, PAPER_DIFFERS);
  report_paper_free(&j.p);
}

static void test_reasons__what_the_row_says_or_what_to_run(void **state) {
  (void)state;
  put((row){.model = "lra/listops/performer", .method = "performer", .status = "skipped", .reason = "no checkpoint: icebench train x.yaml"});
  put((row){.task = "lra/retrieval-imdb", .model = "lra/retrieval-imdb/softmax", .method = "vanilla", .x_vanilla = 1, .accuracy = 0.61});
  judged j = judge();
  says(j.v[PERFORMER].why, "no checkpoint: icebench train x.yaml");
  says(j.v[ICE].why, "configs/paper/lra.yaml");
  assert_int_equal(j.v[RETRIEVAL].outcome, PAPER_NOT_HERE); /* other data are no reproduction */
  says(j.v[RETRIEVAL].why, "a stand-in, reaches 0.6100");
  says(j.v[RETENTION].why, "0 are measured");
  report_paper_free(&j.p);
}

/* Retention compares example by example. */
static void test_retention__paired_by_example(void **state) {
  (void)state;
  put((row){.model = "lra/listops/softmax", .method = "dense", .x_vanilla = 1, .accuracy = 0.5, .hits = 16});
  put((row){.model = "lra/listops/softmax", .method = "iceformer", .x_vanilla = 2, .accuracy = 0.5, .hits = 12});
  judged j = judge();
  near(j.task[0].retention.value, 12.0 / 16.0);
  near(j.task[0].retention.lo, 0.75 * exp(-1.959963984540054 * sqrt(4.0 / (12.0 * 16.0))));
  near(j.v[RETENTION].ours, 0.75);
  assert_int_equal(j.v[RETENTION].outcome, PAPER_NOT_HERE); /* one of five tasks */
  report_paper_free(&j.p);
}

static char *written(report_format format, const char *experiment, int want) {
  char *text = NULL;
  size_t n = 0;
  ice_err e = {0};
  FILE *f = open_memstream(&text, &n);
  const report_options o = {.format = format, .experiment = experiment};
  const int rc = report_verdicts_write(s, &o, published, f, &e);
  (void)fclose(f);
  if (rc != want) fail_msg("%d instead of %d: %s", rc, want, e.text);
  return text;
}

static void test_write__every_format__every_value(void **state) {
  (void)state;
  put((row){.model = "lra/listops/softmax", .method = "iceformer", .x_vanilla = 2, .accuracy = 0.3, .partial = 1});
  static const char *const word[] = {"x vanilla", "memory", "accuracy", "mean retention"};
  for (int format = REPORT_MD; format <= REPORT_HTML; format++) {
    char *t = written((report_format)format, NULL, ICE_OK);
    for (int i = 0; i < 4; i++) says(t, word[i]);
    says(t, "differs");
    says(t, "not runnable here");
    free(t);
  }
  char *csv = written(REPORT_CSV, NULL, ICE_OK);
  int lines = 0;
  for (const char *c = csv; *c; c++) lines += *c == '\n';
  assert_int_equal(lines, VALUES + 1);
  says(csv, "task,method,model,compared,published,reading_error,ours,ours_lo,ours_hi,ratio,verdict,note,examples,partial,source\n");
  free(csv);
  char *md = written(REPORT_MD, NULL, ICE_OK);
  says(md, "8 published values: 0 reproduced, 1 differ, 7 not runnable here.");
  says(md, "partial: 20 examples");
  says(md, "Where from.");
  free(md);
  free(written(REPORT_MD, "no such", ICE_NO_VERDICT));
}

/* The data of the figure: eight bars for each of five tasks, ours where there are rows, published ones always. */
static void test_figure__bars_of_ours_beside_published(void **state) {
  (void)state;
  char *text = NULL, line[256];
  ice_err e = {0};
  const plot_options o = {.out = scratch_path("charts"), .terminal = "svg", .quiet = 1};
  if (report_paper_files(&text, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(plot_paper_draw(s, &o, text, &e), ICE_NO_VERDICT);
  put((row){.model = "lra/listops/softmax", .method = "vanilla", .label = LABEL_PADDED, .x_vanilla = 1, .skip = 2, .accuracy = 0.3});
  put((row){.model = "lra/listops/softmax", .method = "vanilla", .x_vanilla = 1, .accuracy = 0.3});
  put((row){.model = "lra/listops/softmax", .method = "iceformer", .x_vanilla = 2, .accuracy = 0.3});
  const int rc = plot_paper_draw(s, &o, text, &e);
  free(text);
  if (rc != ICE_OK && !strstr(e.text, "gnuplot is not installed")) fail_msg("%s", e.text);
  FILE *f = fopen(scratch_path("charts/paper-latency.dat"), "r");
  assert_non_null(f);
  int rows = -1, ours = 0, published_ones = 0;
  for (; fgets(line, sizeof line, f); rows++) {
    double mine, theirs;
    if (rows < 0 || sscanf(line, "%*d %*s %*d %lf %*f %*f %lf", &mine, &theirs) < 1) continue;
    ours += isfinite(mine);
    if (strstr(line, "7\tlistops\t6\t")) near(mine, 0.25);
    char *last = strrchr(line, '\t');
    published_ones += last && isfinite(strtod(last, NULL));
  }
  (void)fclose(f);
  assert_int_equal(rows, 8 * PAPER_TASKS);
  assert_int_equal(ours, 2); /* vanilla, iceformer on ListOps */
  assert_int_equal(published_ones, 37);
}

static void test_parse__malformed__names_the_line(void **state) {
  (void)state;
  static const char *const bad[] = {"a,b\n",
                                    "lra/listops,dense,x,accuracy,x,0,s\n",
                                    "lra/listops,dense,x,accuracy,0.5,2,s\n",
                                    "lra/listops,dense,x,accuracy,-1,0,s\n",
                                    "lra/listops,dense,x,beauty,1,0,s\n",
                                    "lra/listops,dense,x,accuracy,1,0,s,t\n",
                                    ",dense,x,accuracy,1,0,s\n"};
  for (int i = 0; i < 7; i++) {
    char text[256];
    ice_err e = {0};
    report_paper p;
    (void)snprintf(text, sizeof text, "task,method,model,metric,value,error,source\n%s", bad[i]);
    assert_int_equal(report_paper_parse(text, &p, &e), ICE_DATA);
    says(e.text, "line 2");
    report_paper_free(&p);
  }
  report_paper p;
  ice_err e = {0};
  assert_int_equal(report_paper_parse("task,method\n", &p, &e), ICE_DATA);
  report_paper_free(&p);
}

/* The shipped files read, and the mean of the bars is the paper's 7.63 but for reading errors. */
static void test_shipped_files__read__and_agree_with_the_abstract(void **state) {
  (void)state;
  static const char *const name[] = {"claims", "latency", "accuracy", "memory"};
  char path[64], *text = NULL;
  size_t n = 0;
  FILE *all = open_memstream(&text, &n);
  for (int i = 0; i < 4; i++) {
    (void)snprintf(path, sizeof path, "results/paper/lra-%s.csv", name[i]);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    for (int c; (c = fgetc(f)) != EOF;) (void)fputc(c, all);
    (void)fclose(f);
  }
  (void)fclose(all);
  report_paper p;
  ice_err e = {0};
  if (report_paper_parse(text, &p, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(p.n, 2 + 37 + 87 + 37);
  paper_verdict *v = calloc((size_t)p.n, sizeof *v);
  paper_task task[PAPER_TASKS];
  assert_int_equal(report_paper_judge(s, &p, NULL, v, task, &e), ICE_OK);
  double sum = 0;
  for (int i = 0; i < PAPER_TASKS; i++) sum += task[i].published;
  assert_true(fabs(sum / PAPER_TASKS - 7.63) < 0.3);
  for (int i = 0; i < p.n; i++) assert_true(*v[i].why); /* without rows every value has its reason */
  free(v), free(text);
  report_paper_free(&p);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_speed__as_published__skipping_times_speed_up), TEST(test_speed__more_than_claimed__reproduced),
      TEST(test_accuracy__interval_against_published__both_ways), TEST(test_memory__sign_of_the_difference),
      TEST(test_reasons__what_the_row_says_or_what_to_run), TEST(test_retention__paired_by_example),
      TEST(test_write__every_format__every_value), TEST(test_figure__bars_of_ours_beside_published), TEST(test_parse__malformed__names_the_line),
      TEST(test_shipped_files__read__and_agree_with_the_abstract)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
