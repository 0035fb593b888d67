/* cmd_history.c - verb `history`: each cell over all its measurements (history.h) as text, JSON and charts. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/history.h"
#include "harness/plot_script.h"
#include "harness/report_rows.h"
#include "harness/store.h"
#include "harness/store_digest.h"
#include "kernels/core/fileio.h"

/* ---- Text. */

static void print_text(const history *h, const char *metric) {
  for (int i = 0; i < h->n; i++) {
    const history_line *l = h->line + i;
    const int points = l->to - l->from;
    char name[200];
    history_name(h, l, name, sizeof name);
    (void)printf("%s on %.60s, %.60s: %s %.5g, %d measurement%s, %zu step%s\n", name, history_text(h, l->from, "task"), history_text(h, l->from, "model"), metric,
                 l->level[points - 1], points, points == 1 ? "" : "s", l->n_steps, l->n_steps == 1 ? "" : "s");
    for (size_t s = 0; s < l->n_steps; s++) {
      const int row = l->from + (int)l->step[s];
      const double before = l->level[l->step[s] - 1], after = l->level[l->step[s]];
      (void)printf("  %s  %.10s%s  %.5g -> %.5g  %+.1f %%\n", history_text(h, row, "created_utc"), history_text(h, row, "git_commit"),
                   strcmp(history_text(h, row, "git_dirty"), "0") ? "+" : "", before, after, 100.0 * (after / before - 1.0));
    }
  }
  (void)printf("a series without change shows a step in at most 5 of 100 cases; fewer than 6 measurements show none\n");
}

static int print_json(const history *h, const char *metric, ice_err *e) {
  json_t *list = json_array();
  for (int i = 0; i < h->n; i++) (void)json_array_append_new(list, history_line_json(h, h->line + i, metric));
  return cli_print_json(list, e);
}

/* ---- Chart: measurements as points, levels as lines, a vertical line where a new one begins. */

enum { SERIES = 6 }; /* lines of a chart; more make more charts */

static const char body[] = "eval heading(\"History: measurements in the order of time, and where the level changed\")\n"
                           "set xlabel 'measurement'\n"
                           "set ylabel METRIC noenhanced offset 1.5\n"
                           "if (LOGARITHMIC) set logscale y\n"
                           "plot for [i=1:N] DATA using (of(i, 'x')):(column('y')) with points pointtype SHAPE[i] linecolor rgb PALE[i] notitle, \\\n"
                           "     for [i=1:N] DATA using (of(i, 'x')):(column('level')) with histeps linewidth 2.5 linecolor rgb COLOR[i] title NAME[i], \\\n"
                           "     for [i=1:N] DATA using (of(i, 'step')):(Y_LO):(0):(Y_HI - Y_LO) with vectors nohead dashtype 3 linecolor rgb COLOR[i] notitle\n";

static int write_data(const history *h, int first, int n, const char *dir, const char *stem, plot_axis *x, plot_axis *y, ice_err *e) {
  char path[FILE_PATH], file[80];
  file_out out;
  (void)snprintf(file, sizeof file, "%s.dat", stem);
  ICE_TRY(file_join(path, dir, file, e));
  ICE_TRY(file_out_open(&out, path, e));
  (void)fprintf(out.stream, "s\tx\ty\tlevel\tstep\n");
  for (int i = 0; i < n; i++) {
    const history_line *l = h->line + first + i;
    size_t next = 0;
    for (int k = 0; k < l->to - l->from; k++) {
      const double v = report_rows_value(&h->rows, l->from + k, "value");
      const int is_step = next < l->n_steps && l->step[next] == (size_t)k;
      next += (size_t)is_step;
      (void)fprintf(out.stream, "%d\t%d\t%.9g\t%.9g\t%s", i + 1, k + 1, v, l->level[k], is_step ? "" : "NaN\n");
      if (is_step) (void)fprintf(out.stream, "%.1f\n", k + 0.5);
      plot_axis_add(x, k + 1);
      plot_axis_add(y, v);
    }
  }
  return file_out_commit(&out, e);
}

static int draw_chart(const history *h, int first, int n, const char *metric, const char *dir, const char *terminal, int quiet, ice_err *e) {
  char stem[64], text[sizeof body + 256], subject[200];
  plot_series series[SERIES];
  plot_axis x = plot_axis_start(0), y = plot_axis_start(0);
  (void)snprintf(stem, sizeof stem, "history-%d", first / SERIES + 1);
  const int row = h->line[first].from;
  (void)snprintf(subject, sizeof subject, "%.80s, %.80s", history_text(h, row, "task"), history_text(h, row, "model"));
  for (int i = 0; i < n; i++) {
    const int at = h->line[first + i].from;
    series[i] = (plot_series){.method = history_text(h, at, "method"), .color = PLOT_FIRST_COLOR + i, .shape = i};
    history_name(h, h->line + first + i, series[i].name, sizeof series[i].name);
  }
  ICE_TRY(write_data(h, first, n, dir, stem, &x, &y, e));
  y.log = h->logarithmic && y.hi > 10.0 * y.lo; /* within a decade a logarithmic axis has no marks */
  (void)snprintf(text, sizeof text, "METRIC = '%s'; LOGARITHMIC = %d\n%s", metric, y.log, body);
  plot_axis_pad(&x, 0.03, 0.03);
  plot_axis_pad(&y, 0.1, 0.1);
  const plot_script script = {.folder = dir, .stem = stem, .terminal = terminal, .subject = subject, .machine = history_text(h, row, "cpu"), .build = "", .body = text,
                              .series = series, .n = n, .x = x, .y = y};
  ICE_TRY(plot_script_write(&script, e));
  ICE_TRY(plot_script_run(&script, e));
  if (!quiet) (void)printf("%s/%s.%s\n", dir, stem, terminal);
  return ICE_OK;
}

static int draw(const history *h, const char *metric, const char *dir, const char *terminal, int quiet, ice_err *e) {
  ICE_TRY(file_make_dirs(dir, e));
  for (int first = 0; first < h->n; first += SERIES)
    ICE_TRY(draw_chart(h, first, h->n - first < SERIES ? h->n - first : SERIES, metric, dir, terminal, quiet, e));
  return ICE_OK;
}

/* ---- The verb. */

static int history_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char *experiment = NULL, *metric = "attention_ns", *format = "text", *out = NULL, *terminal = "svg";
  const cli_option spec[] = {{.name = "experiment", .has_value = 1, .value = &experiment}, {.name = "metric", .has_value = 1, .value = &metric},
                             {.name = "format", .has_value = 1, .value = &format},         {.name = "out", .has_value = 1, .value = &out},
                             {.name = "terminal", .has_value = 1, .value = &terminal},     {.name = NULL}};
  int n = 0, json = 0;
  store *s;
  history h = {0};
  ICE_TRY(cli_parse(argc, argv, spec, NULL, 0, &n, e));
  ICE_TRY(cli_format(format, &json, e));
  if (!plot_terminal_known(terminal)) return ice_fail(e, ICE_USAGE, "--terminal = %s, allowed svg, png, pdf", terminal);
  if (!*metric || metric[strspn(metric, "abcdefghijklmnopqrstuvwxyz0123456789_")])
    return ice_fail(e, ICE_USAGE, "--metric = %.60s, allowed the name of a metric, such as attention_ns, peak_bytes, rel_l2_error, accuracy", metric);
  ICE_TRY(store_open(common->db, STORE_READ, &s, e));
  int rc = store_verify(s, experiment, 1, e);
  if (rc == ICE_OK) rc = history_read(s, metric, experiment, &h, e);
  store_close(s);
  if (rc == ICE_OK && json) rc = print_json(&h, metric, e);
  else if (rc == ICE_OK && !common->quiet) print_text(&h, metric);
  if (rc == ICE_OK && out) rc = draw(&h, metric, out, terminal, common->quiet || json, e);
  history_free(&h);
  return rc;
}

const cli_verb cli_verb_history = {
    .name = "history",
    .summary = "each cell over all its measurements, and where its level changed",
    .help = "usage: icebench history [--experiment NAME] [--metric NAME] [--format text|json] [--out DIR] [--terminal svg|png|pdf]\n\n"
            "Every attempt at a cell that the database keeps, older ones included, in the order of time; per machine. Steps are found\n"
            "by E-divisive: a step is a change of level that shuffled measurements hardly ever show. Outliers are none. A step is\n"
            "named by the commit that was first measured on the new level (+: with uncommitted changes). Edited rows are refused.\n\n"
            "  --metric NAME   attention_ns (default), peak_bytes, twin_instructions, rel_l2_error, accuracy, ...\n"
            "  --out DIR       charts as well, with their gnuplot scripts and data\n\n"
            "examples:\n"
            "  icebench history --experiment ci-gate --db results/ci.db\n"
            "  icebench history --metric peak_bytes --out plots/out\n\n"
            "exit codes: 0 done, 2 usage, 6 no such rows, 8 database\n",
    .main = history_main};
