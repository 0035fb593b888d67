/* test_plot.c - charts: what is selected and how it is named, files that appear, places of labels, hostile names, faults. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/plot.h"
#include "harness/plot_layout.h"
#include "tests/support/results.h"
#include "tests/support/scratch.h"

static store *s;

static int setup(void **state) { return results_setup(state, &s); }
static int teardown(void **state) { return results_teardown(state, s); }

static void put(const char *experiment, const char *method, const char *params, double accuracy, double ms, double vanilla, double dense, double error) {
  results_put(s, &(results_row){.experiment = experiment, .method = method, .params = params, .accuracy = accuracy, .ms = ms, .vanilla = vanilla,
                                .dense = dense, .error = error, .mass = 1 - error / 2, .seed = 1, .examples = 500});
}
static void fill(const char *experiment) {
  put(experiment, "iceformer", "{\"k\":32}", 0.36, 9, 1.2, 0.4, 0.1);
  put(experiment, "iceformer", "{\"k\":8}", 0.35, 5, 2.2, 0.8, 0.2);
  put(experiment, "topk", "{\"k\":8}", 0.36, 7, 1.5, 0.5, 0.15);
  put(experiment, "dense", "{}", 0.40, 4, 2.5, 1, 0);
  put(experiment, "vanilla", "{}", 0.40, 10, 1, 0.4, 1e-7);
}
static void draw(const plot_options *o) {
  ice_err e = {0};
  if (plot_draw(s, o, &e) != ICE_OK) fail_msg("%s", e.text);
}
static plot_options options(const char *experiment) {
  return (plot_options){.experiment = experiment, .out = scratch_path("out"), .terminal = "svg", .quiet = 1};
}

/* Text of a file of the output folder. */
static const char *file(const char *name) {
  static char text[65536];
  char inside[200];
  (void)snprintf(inside, sizeof inside, "out/%s", name);
  FILE *f = fopen(scratch_path(inside), "rb");
  if (!f) fail_msg("%s was not written", name);
  const size_t n = fread(text, 1, sizeof text - 1, f);
  (void)fclose(f);
  text[n] = 0;
  return text;
}
static int exists(const char *name) {
  char inside[200];
  (void)snprintf(inside, sizeof inside, "out/%s", name);
  return access(scratch_path(inside), F_OK) == 0;
}
static void has(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("'%s' is not in:\n%s", part, text);
}
static void lacks(const char *text, const char *part) {
  if (strstr(text, part)) fail_msg("'%s' is in:\n%s", part, text);
}

/* --- files ---------------------------------------------------------------------------------------------------------------- */

static void test_draw__figures__with_script_and_data(void **state) {
  (void)state;
  static const char *const figure[] = {"accuracy-time", "error-k", "error-time", "speedup-k"};
  char name[100];
  fill("e");
  const plot_options o = options("e");
  draw(&o);
  for (int i = 0; i < 4; i++) {
    (void)snprintf(name, sizeof name, "e-%s.dat", figure[i]);
    has(file(name), "s\tlabel_x\tlabel_y\tseries\tmethod\t");
    (void)snprintf(name, sizeof name, "e-%s.gp", figure[i]);
    has(file(name), "METHOD[1] = ");
    (void)snprintf(name, sizeof name, "e-%s.svg", figure[i]);
    has(file(name), "iceformer");
    has(file(name), "</svg>");
  }
}

/* A sweep over k, levels and beam: maps over two of them, and the settings that no other beats. */
static void test_draw__sweep__maps_and_what_is_not_beaten(void **state) {
  (void)state;
  char params[80];
  for (int k = 0; k < 3; k++)
    for (int levels = 2; levels < 4; levels++)
      for (int beam = 0; beam < 2; beam++) {
        (void)snprintf(params, sizeof params, "{\"k\":%d,\"levels\":%d,\"beam\":%d}", 8 << k, levels, 4 + 12 * beam);
        put("e", "iceformer", params, 0.39, 5 + k + beam, 2, 1.5 - 0.2 * k, 0.3 - 0.05 * k + 0.1 * levels - 0.01 * beam);
      }
  put("e", "dense", "{}", 0.40, 4, 2.5, 1, 0);
  draw(&(plot_options){.experiment = "e", .out = scratch_path("out"), .terminal = "svg", .quiet = 1});
  const char *map = file("e-heat-k-levels.dat");
  has(map, "series\tmethod\tacross\tup\tk\tlevels\tretention\terror\tdense\n");
  has(map, "\ticeformer\t1\t1\t8\t2\t97.5\t49.5\t1.5\n"); /* mean over the beams */
  has(map, "\ticeformer\t3\t2\t32\t3\t97.5\t49.5\t1.1\n");
  has(file("e-heat-k-beam.dat"), "\ticeformer\t3\t2\t32\t16\t97.5\t44.0\t1.1\n");
  has(file("e-heat-k-levels.svg"), "k and levels");
  has(file("e-heat-k-beam.svg"), "times faster than dense");
  const char *front = file("e-pareto.dat");
  has(front, "\ticeformer\t5.0\t50.0\t50.0\tk=8 beam=4 levels=2\n"); /* fastest */
  has(front, "\ticeformer\t8.0\t39.0\t39.0\tk=32 beam=16 levels=2\n"); /* nearest */
  lacks(front, "levels=3");                                               /* all of them are beaten */
  has(file("e-pareto.svg"), "k=32 beam=16 levels=2");
}

static void test_draw__script__draws_the_picture_again(void **state) {
  (void)state;
  fill("e");
  plot_options o = options("e");
  o.figure = "error-k";
  draw(&o);
  char *before = strdup(file("e-error-k.svg"));
  assert_int_equal(unlink(scratch_path("out/e-error-k.svg")), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    if (chdir(scratch_path("out")) == 0) (void)execlp("gnuplot", "gnuplot", "e-error-k.gp", (char *)NULL);
    _exit(127);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
  assert_string_equal(file("e-error-k.svg"), before);
  assert_false(exists("e-accuracy-time.svg")); /* only the figure that was asked for */
  free(before);
}

static void test_draw__png_and_pdf__have_their_form(void **state) {
  (void)state;
  fill("e");
  plot_options o = options("e");
  o.figure = "error-k", o.terminal = "png";
  draw(&o);
  assert_memory_equal(file("e-error-k.png"), "\x89PNG", 4);
  o.terminal = "pdf";
  draw(&o);
  assert_memory_equal(file("e-error-k.pdf"), "%PDF", 4);
}

static void test_draw__several_tasks__a_picture_each(void **state) {
  (void)state;
  fill("e");
  fill("f");
  results_put(s, &(results_row){.experiment = "e", .task = "lra/text", .method = "topk", .params = "{\"k\":8}", .accuracy = 0.6, .ms = 3, .vanilla = 2,
                                .dense = 1, .error = 0.1, .mass = 0.9, .seed = 1, .examples = 500});
  plot_options o = options(NULL);
  o.figure = "error-k";
  draw(&o);
  assert_true(exists("e-lra_listops-error-k.svg") && exists("e-lra_text-error-k.svg") && exists("f-error-k.svg"));
  lacks(file("e-lra_text-error-k.dat"), "iceformer");
}

/* Experiment x has a picture called x-lra_text; so has experiment x-lra_text, and x-lra_text.2 is taken as well. */
static void test_draw__names_that_meet__a_picture_each(void **state) {
  (void)state;
  static const char *const experiment[] = {"x", "x", "x-lra_text", "x-lra_text.2"}, *const task[] = {"lra/listops", "lra/text", "lra/image", "lra/image"};
  for (int i = 0; i < 4; i++)
    results_put(s, &(results_row){.experiment = experiment[i], .task = task[i], .method = "topk", .params = "{\"k\":8}", .accuracy = 0.6, .ms = 3, .vanilla = 2,
                                  .dense = 1, .error = 0.1, .mass = 0.9, .seed = 1, .examples = 500});
  plot_options o = options(NULL);
  o.figure = "error-k";
  draw(&o);
  has(file("x-lra_text-error-k.gp"), "x: lra/text");
  has(file("x-lra_text.2-error-k.gp"), "x-lra_text: lra/image");
  has(file("x-lra_text.2.2-error-k.gp"), "x-lra_text.2: lra/image");
}

static void put_tensors_as(const char *experiment, const char *method, const char *params, int64_t n, double ms, double dense) {
  results_put(s, &(results_row){.experiment = experiment, .task = "synth/clustered", .method = method, .params = params, .accuracy = NAN, .ms = ms,
                                .vanilla = NAN, .dense = dense, .error = 0.1, .mass = 0.9, .seed = 1, .examples = 1, .n = n, .recall = 0.75});
}

static void put_tensors(const char *experiment, const char *method, int64_t n, double ms, double dense) {
  put_tensors_as(experiment, method, "{}", n, ms, dense);
}

static void test_draw__several_budgets_over_length__a_line_each(void **state) {
  (void)state;
  put_tensors("g", "dense", 1024, 1, 1);
  put_tensors("g", "dense", 4096, 16, 1);
  for (int i = 0; i < 2; i++) {
    put_tensors_as("g", "iceformer", "{\"k\":20}", i ? 4096 : 1024, i ? 4 : 2, 2);
    put_tensors_as("g", "iceformer", "{\"k\":64}", i ? 4096 : 1024, i ? 8 : 6, 1.5);
    put_tensors_as("g", "topk", "{\"k\":20}", i ? 4096 : 1024, i ? 9 : 7, 1.2);
  }
  const plot_options o = options("g");
  draw(&o);
  has(file("g-time-n.dat"), "\ticeformer k=20\ticeformer\t1024\t2.0\t2.0\t");
  has(file("g-time-n.dat"), "\ticeformer k=64\ticeformer\t1024\t6.0\t6.0\t");
  has(file("g-time-n.dat"), "\ttopk\ttopk\t4096\t9.0\t9.0\t"); /* of one budget: the name will do */
}

static void test_draw__tensors_of_several_lengths__time_over_length_with_the_crossing(void **state) {
  (void)state;
  put_tensors("g", "dense", 1024, 1, 1);
  put_tensors("g", "dense", 4096, 16, 1);
  put_tensors("g", "icecells", 1024, 2, 0.5);
  put_tensors("g", "icecells", 4096, 8, 2); /* half way on the logarithmic axes: as fast at 2,048, in 4 ms */
  put_tensors("g", "iceformer", 1024, 0.5, 2);
  put_tensors("g", "iceformer", 4096, 4, 4); /* always faster: no crossing */
  const plot_options o = options("g");
  draw(&o);
  const char *t = file("g-time-n.dat");
  has(t, "\ticecells\ticecells\t2048.0\t4.0\tNaN\t4.0\t2,000\n");
  has(t, "\tdense\tdense\t4096\t16.0\t16.0\tNaN\tNaN\n");
  assert_null(strstr(strstr(t, "2,000") + 5, ",000")); /* one crossing */
  assert_true(exists("g-time-n.svg"));
  assert_false(exists("g-error-time.svg") || exists("g-recall-time.svg") || exists("g-speedup-k.svg")); /* these would mix lengths */
  has(file("g-time-n.gp"), "n = 1024 to 4096");
}

static void put_lines(const char *method, int64_t length, double accuracy, double ms) {
  results_put(s, &(results_row){.experiment = "g", .task = "longeval/lines", .method = method, .accuracy = accuracy, .ms = ms, .vanilla = 2, .dense = 1.5,
                                .error = 0.1, .mass = 0.9, .seed = 1, .examples = 50, .n = 24 * length, .length = length});
}

static void test_draw__prompts_of_several_lengths__published_values_as_marks(void **state) {
  (void)state;
  put_lines("dense", 200, 0.98, 4000), put_lines("dense", 680, 0.7, 40000);
  put_lines("iceformer", 200, 0.96, 2000), put_lines("iceformer", 680, 0.66, 15000);
  const plot_options o = options("g");
  draw(&o);
  const char *t = file("g-accuracy-length.dat");
  has(t, "\ticeformer\ticeformer\t680\t66.0\t");
  has(t, "\ticeformer, published\ticeformer\t500\tNaN\tNaN\tNaN\t90.0\n"); /* results/paper */
  assert_null(strstr(t, "\t25\t")); /* those are of topics */
  t = file("g-latency-length.dat");
  has(t, "\tdense\tdense\t680\t40.0\t20.0\tNaN\n"); /* of both layers, of one */
  has(t, "\tvanilla, published\tvanilla\t680\tNaN\tNaN\t20.15\n");
  assert_true(exists("g-latency-length.svg") && exists("g-accuracy-length.svg"));
  assert_false(exists("g-accuracy-time.svg")); /* it would mix lengths */
}

static void test_draw__tensors_of_one_length__frontiers(void **state) {
  (void)state;
  put_tensors("h", "dense", 1024, 1, 1);
  put_tensors("h", "icecells", 1024, 2, 0.5);
  const plot_options o = options("h");
  draw(&o);
  assert_true(exists("h-error-time.svg") && exists("h-recall-time.svg"));
  assert_false(exists("h-time-n.svg"));
  has(file("h-recall-time.dat"), "\ticecells\ticecells\t2.0\t75.0\t90.0\t");
}

/* --- rows ----------------------------------------------------------------------------------------------------------------- */

static void test_rows__methods__in_registry_order_k_ascending(void **state) {
  (void)state;
  fill("e");
  const plot_options o = options("e");
  draw(&o);
  const char *t = file("e-accuracy-time.dat"), *v = strstr(t, "\n1\t"), *d = strstr(t, "\n2\t"), *k = strstr(t, "\n3\t"), *i = strstr(t, "\n4\t");
  assert_true(v && d && k && i && strstr(v, "vanilla") < d && strstr(d, "dense") < k && strstr(k, "topk") < i);
  assert_true(strstr(i, "k=8") < strstr(i, "k=32"));
  has(t, "\t5.0\t35.0\t33.0\t37.0\tk=8"); /* ms, accuracy and its interval in % */
  const char *g = file("e-accuracy-time.gp");
  has(g, "METHOD[1] = \"vanilla\"; COLOR[1] = '#7f7f7f'");
  has(g, "METHOD[2] = \"dense\"; COLOR[2] = '#000000'");
}

static void test_rows__seeds__are_averaged(void **state) {
  (void)state;
  results_row row = {.experiment = "e", .method = "topk", .params = "{\"k\":8}", .accuracy = 0.3, .ms = 3, .vanilla = 2, .dense = 1, .error = 0.1, .mass = 0.9,
                     .seed = 1, .examples = 500};
  results_put(s, &row);
  row.seed = 2, row.error = 0.3;
  results_put(s, &row);
  const plot_options o = options("e");
  draw(&o);
  has(file("e-error-k.dat"), "topk\ttopk\t8\t0.2\t");
  has(file("e-error-k.gp"), "mean of 2 seeds");
}

static void test_rows__other_parameters_that_vary__name_the_series(void **state) {
  (void)state;
  put("e", "iceformer", "{\"k\":8,\"levels\":2,\"comp\":2}", 0.35, 5, 2.2, 0.8, 0.2);
  put("e", "iceformer", "{\"k\":8,\"levels\":3,\"comp\":2}", 0.35, 6, 2.2, 0.8, 0.1);
  put("e", "icecells", "{\"visit\":2,\"x\":1}", 0.35, 2, 2.2, 0.8, 0.1);
  put("e", "icecells", "{\"visit\":8,\"x\":1}", 0.35, 3, 2.2, 0.8, 0.05);
  put("e", "strange", "no JSON", 0.35, 3, 2.2, 0.8, 0.05);
  put("e", "search", "{\"k\":8,\"nprobe\":1}", 0.35, 5, 2.2, 0.8, 0.2);
  put("e", "search", "{\"k\":8,\"nprobe\":4}", 0.35, 7, 2.2, 0.8, 0.1);
  const plot_options o = options("e");
  draw(&o);
  const char *t = file("e-error-time.dat");
  has(t, "\tsearch\tsearch\t7.0\t0.1\tnprobe=4\n"); /* k stays, the search widens */
  has(t, "\ticeformer levels=2\ticeformer\t5.0\t0.2\tk=8\n");
  has(t, "\ticeformer levels=3\ticeformer\t6.0\t0.1\tk=8\n");
  has(t, "\ticecells\ticecells\t2.0\t0.1\tvisit=2\n"); /* its only varying parameter is its budget */
  has(t, "\tstrange\tstrange\t3.0\t0.05\tNaN\n");
  const char *g = file("e-error-k.gp");
  has(g, "NAME[1] = \"iceformer levels=2\"");
  lacks(g, "icecells");
}

static void test_rows__exact_attentions__have_no_error_to_show(void **state) {
  (void)state;
  fill("e");
  const plot_options o = options("e");
  draw(&o);
  has(file("e-error-time.dat"), "\tvanilla\tvanilla\t10.0\tNaN\t");
}

static void test_rows__partial_failed_unknown__stay_out(void **state) {
  (void)state;
  fill("e");
  results_put(s, &(results_row){.experiment = "e", .method = "topk", .params = "{\"k\":64}", .accuracy = 0.3, .ms = 3, .vanilla = 2, .dense = 1, .error = 0.1,
                                .mass = 0.9, .seed = 1, .examples = 20, .partial = 1});
  results_put(s, &(results_row){.experiment = "e", .method = "topk", .params = "{\"k\":128}", .status = "timeout", .seed = 1, .examples = 500});
  put("e", "topk", "{\"k\":256}", NAN, NAN, NAN, NAN, NAN);
  const plot_options o = options("e");
  draw(&o);
  const char *t = file("e-accuracy-time.dat");
  lacks(t, "k=64");
  lacks(t, "k=128");
  lacks(t, "k=256");
}

static void test_rows__labels__what_differs_is_in_the_legend(void **state) {
  (void)state;
  results_row row = {.experiment = "e", .method = "reformer", .accuracy = 0.2, .ms = 3, .vanilla = 2, .dense = 1, .error = 0.1, .mass = NAN, .seed = 1,
                     .examples = 500, .label = "generated data, no retraining"};
  results_put(s, &row);
  row.method = "dense", row.label = "generated data", row.error = 0;
  results_put(s, &row);
  const plot_options o = options("e");
  draw(&o);
  const char *g = file("e-accuracy-time.gp");
  has(g, "NAME[2] = \"reformer (no retraining)\"");
  has(g, "lra/listops, generated data");
}

/* --- axes and labels ------------------------------------------------------------------------------------------------------- */

static void test_axis__linear_and_log__there_and_back(void **state) {
  (void)state;
  for (int log = 0; log < 2; log++) {
    plot_axis a = plot_axis_start(log);
    static const double v[] = {NAN, 100, 1, INFINITY, 10, -5};
    for (int i = 0; i < (log ? 6 : 5); i++) plot_axis_add(&a, v[i]);
    assert_true(a.lo == 1 && a.hi == 100);
    assert_true(fabs(plot_axis_unit(&a, 10) - (log ? 0.5 : 1 / 11.0)) < 1e-12);
    plot_axis_pad(&a, 0.5, 0.25);
    assert_true(fabs(a.lo - (log ? 0.1 : -48.5)) < 1e-12 && fabs(a.hi - (log ? 316.22776601683796 : 124.75)) < 1e-9);
    for (double u = 0; u <= 1; u += 0.25) assert_true(fabs(plot_axis_unit(&a, plot_axis_value(&a, u)) - u) < 1e-12);
    assert_true(isnan(plot_axis_unit(&a, NAN)));
  }
}

static void test_axis__one_value_or_none__still_has_a_length(void **state) {
  (void)state;
  for (int log = 0; log < 2; log++)
    for (int count = 0; count < 2; count++) {
      plot_axis a = plot_axis_start(log);
      if (count) plot_axis_add(&a, 7);
      plot_axis_pad(&a, 0.1, 0.1);
      assert_true(isfinite(a.lo) && isfinite(a.hi) && a.lo < a.hi && (!log || a.lo > 0));
    }
}

/* No two labels touch, none lies on a point or outside; crowded points lose labels rather than that. */
static void test_labels__any_points__never_cover_anything(void **state) {
  (void)state;
  enum { N = 40 };
  static const char *const text[] = {"k=8", "k=1024", "visit=16"};
  uint64_t seed = 1;
  for (int crowd = 0; crowd < 20; crowd++) {
    plot_point p[N];
    const int n = 2 + 2 * crowd;
    int placed = 0;
    for (int i = 0; i < n; i++) {
      double u[2];
      for (int k = 0; k < 2; k++) u[k] = (double)((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 40) / (1 << 24);
      p[i] = (plot_point){.x = 0.1 + 0.8 * u[0], .y = i == 3 ? NAN : 0.1 + 0.8 * u[1], .series = crowd % 2 ? i : i / 4, .label = i % 7 == 6 ? NULL : text[i % 3]};
    }
    plot_place_labels(p, n);
    for (int i = 0; i < n; i++) {
      if (!isfinite(p[i].label_x)) continue;
      assert_true(p[i].label && isfinite(p[i].y));
      placed++;
      const double w = 6.6 * (double)strlen(p[i].label) / 653, h = 14.0 / 420;
      assert_true(p[i].label_x - w / 2 >= 0 && p[i].label_x + w / 2 <= 1 && p[i].label_y - h / 2 >= 0 && p[i].label_y + h / 2 <= 1);
      assert_true(fabs(p[i].label_x - p[i].x) < 0.15 && fabs(p[i].label_y - p[i].y) < 0.15); /* beside its point */
      for (int k = 0; k < n; k++) {
        if (isfinite(p[k].y) && fabs(p[k].x - p[i].label_x) < w / 2 && fabs(p[k].y - p[i].label_y) < h / 2) fail_msg("label %d lies on point %d of %d", i, k, n);
        if (k == i || !isfinite(p[k].label_x)) continue;
        const double wk = 6.6 * (double)strlen(p[k].label) / 653;
        if (fabs(p[k].label_x - p[i].label_x) < (w + wk) / 2 - 1e-9 && fabs(p[k].label_y - p[i].label_y) < h - 1e-9) fail_msg("labels %d and %d of %d touch", i, k, n);
      }
    }
    assert_true(placed >= n / 3);
  }
}

/* --- hostile names, faults ------------------------------------------------------------------------------------------------- */

static void test_draw__names__never_leave_the_folder(void **state) {
  (void)state;
  fill("../a b/.../c");
  fill("-rf");
  plot_options o = options(NULL);
  o.figure = "error-k";
  draw(&o);
  assert_true(exists("_._a_b_..._c-error-k.svg") && exists("-rf-error-k.svg"));
}

static void test_draw__hostile_names__are_text_not_commands(void **state) {
  (void)state;
  char name[700], method[400], command[300];
  (void)snprintf(command, sizeof command, "touch %s", scratch_path("pwned"));
  (void)snprintf(name, sizeof name, "'`%s`'\"`%s`\"\\@x$y\n", command, command);
  (void)snprintf(method, sizeof method, "'.system('%s').'", command);
  fill(name);
  put(name, method, "{\"k\":4,\"x\":\"`touch\\ty`\"}", 0.3, 3, 2, 1, 0.1);
  put(name, method, "{\"k\":4,\"x\":\"\\\";system('id')\"}", 0.3, 3, 2, 1, 0.1);
  put(name, "\xff\xfe", "{\"k\":4}", 0.3, 3, 2, 1, 0.1);
  const plot_options o = options(name);
  draw(&o);
  assert_int_not_equal(access(scratch_path("pwned"), F_OK), 0);
}

static void test_draw__faults__named(void **state) {
  (void)state;
  ice_err e = {0};
  plot_options o = options("none");
  assert_int_equal(plot_draw(s, &o, &e), ICE_NO_VERDICT);
  has(e.text, "icebench run");
  o.experiment = NULL;
  assert_int_equal(plot_draw(s, &o, &e), ICE_NO_VERDICT);
  o.terminal = "gif";
  assert_int_equal(plot_draw(s, &o, &e), ICE_USAGE);
  has(e.text, "svg, png, pdf");
  o.terminal = "svg", o.figure = "../../etc/passwd";
  assert_int_equal(plot_draw(s, &o, &e), ICE_USAGE);
  has(e.text, "accuracy-length, accuracy-time, error-k, error-time, heat-k-beam, heat-k-levels, latency-length, pareto, recall-time, speedup-k, time-n");
}

static void test_draw__without_gnuplot__says_what_to_install(void **state) {
  (void)state;
  ice_err e = {0};
  fill("e");
  const plot_options o = options("e");
  char *path = strdup(getenv("PATH"));
  (void)setenv("PATH", scratch_folder(), 1);
  const int rc = plot_draw(s, &o, &e);
  (void)setenv("PATH", path, 1);
  free(path);
  assert_int_equal(rc, ICE_INTERNAL);
  has(e.text, "apt-get install gnuplot-nox");
  assert_true(exists("e-accuracy-time.gp"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_draw__figures__with_script_and_data),
      TEST(test_draw__sweep__maps_and_what_is_not_beaten),
      TEST(test_draw__script__draws_the_picture_again),
      TEST(test_draw__png_and_pdf__have_their_form),
      TEST(test_draw__names_that_meet__a_picture_each),
      TEST(test_draw__several_tasks__a_picture_each),
      TEST(test_draw__several_budgets_over_length__a_line_each),
      TEST(test_draw__tensors_of_several_lengths__time_over_length_with_the_crossing),
      TEST(test_draw__prompts_of_several_lengths__published_values_as_marks),
      TEST(test_draw__tensors_of_one_length__frontiers),
      TEST(test_rows__methods__in_registry_order_k_ascending),
      TEST(test_rows__seeds__are_averaged),
      TEST(test_rows__other_parameters_that_vary__name_the_series),
      TEST(test_rows__exact_attentions__have_no_error_to_show),
      TEST(test_rows__partial_failed_unknown__stay_out),
      TEST(test_rows__labels__what_differs_is_in_the_legend),
      TEST(test_axis__linear_and_log__there_and_back),
      TEST(test_axis__one_value_or_none__still_has_a_length),
      TEST(test_labels__any_points__never_cover_anything),
      TEST(test_draw__names__never_leave_the_folder),
      TEST(test_draw__hostile_names__are_text_not_commands),
      TEST(test_draw__faults__named),
      TEST(test_draw__without_gnuplot__says_what_to_install),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
