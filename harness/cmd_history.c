/* cmd_history.c - verb `history`: each cell over all its measurements, and where its level changed.
 *
 * A database keeps every attempt; merged ones keep those of other checkouts. Per cell and machine the attempts are put in the
 * order of time and searched for change points (stats_change.h), times and sizes as logarithms, so that equal steps are equal
 * factors. A step is named by the first commit of the new level: the cause lies there or after the commit before. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/plot_script.h"
#include "harness/report_rows.h"
#include "harness/stats.h"
#include "harness/stats_change.h"
#include "harness/store.h"
#include "kernels/core/fileio.h"

static const char rows_sql[] =
    "SELECT a.method || iif(a.params = '{}', '', ' ' || a.params) AS name, a.method, a.task, a.model, k.cpu, b.git_commit, b.git_dirty,"
    " strftime('%Y-%m-%dT%H:%M:%SZ', a.started_utc_ms / 1000, 'unixepoch') AS created_utc, m.value,"
    " json_array(a.task, a.model, a.method, a.params, a.seed, a.n, a.heads, a.head_dim, a.causal, a.threads, a.isa, a.examples, a.partial,"
    "   a.data_hash, a.model_hash, (SELECT value FROM metric t WHERE t.cell_id = a.id AND t.name = 'timed_inputs'), a.machine_id) AS cell "
    "FROM attempt a JOIN build b ON b.id = a.build_id JOIN machine k ON k.id = a.machine_id JOIN metric m ON m.cell_id = a.id AND m.name = ?1 "
    "WHERE a.status = 'ok' AND a.noise IS NULL AND (?2 IS NULL OR a.experiment = ?2) "
    "ORDER BY a.task, a.model, a.method, cell, a.started_utc_ms, a.id";

typedef struct line { /* one cell on one machine: rows [from, to) */
  int from, to;
  size_t *step, n_steps; /* owned; places in the line where a new level begins */
  double *level;         /* [to - from], owned: median of the level that a row is on */
} line;

typedef struct history {
  report_rows rows;
  line *line;
  int n;
  int logarithmic;
} history;

static const char *text_of(const history *h, int row, const char *column) {
  const char *t = report_rows_text(&h->rows, row, column);
  return t ? t : "";
}

/* Levels of a line: medians between its steps. */
static int find_levels(const history *h, line *l, ice_err *e) {
  const size_t n = (size_t)(l->to - l->from);
  double *x = malloc(2 * n * sizeof *x), *copy = x ? x + n : NULL;
  l->step = malloc(n * sizeof *l->step);
  l->level = malloc(n * sizeof *l->level);
  if (!x || !l->step || !l->level) {
    free(x);
    return ice_fail(e, ICE_INTERNAL, "out of memory for the history");
  }
  for (size_t i = 0; i < n; i++) {
    const double v = report_rows_value(&h->rows, l->from + (int)i, "value");
    x[i] = h->logarithmic ? log(v) : v;
  }
  l->n_steps = stats_change_points(x, n, 1, l->step);
  for (size_t s = 0, from = 0; s <= l->n_steps; s++) {
    const size_t to = s < l->n_steps ? l->step[s] : n;
    memcpy(copy, x + from, (to - from) * sizeof *x);
    const double median = stats_median(copy, to - from);
    for (size_t i = from; i < to; i++) l->level[i] = h->logarithmic ? exp(median) : median;
    from = to;
  }
  free(x);
  return ICE_OK;
}

static int read_history(store *s, const char *metric, const char *experiment, history *h, ice_err *e) {
  const char *const bind[] = {metric, experiment};
  ICE_TRY(report_rows_select(s, rows_sql, bind, 2, &h->rows, e));
  if (!h->rows.n)
    return ice_fail(e, ICE_NO_VERDICT, "no finished row%s%.200s has %.60s", experiment ? " of experiment " : "", experiment ? experiment : "", metric);
  h->line = calloc((size_t)h->rows.n, sizeof *h->line);
  if (!h->line) return ice_fail(e, ICE_INTERNAL, "out of memory for the history");
  h->logarithmic = 1;
  for (int i = 0; i < h->rows.n; i++) h->logarithmic &= report_rows_value(&h->rows, i, "value") > 0.0;
  for (int from = 0, to; from < h->rows.n; from = to) {
    for (to = from + 1; to < h->rows.n && !strcmp(text_of(h, from, "cell"), text_of(h, to, "cell"));) to++;
    line *l = h->line + h->n++;
    *l = (line){.from = from, .to = to};
    ICE_TRY(find_levels(h, l, e));
  }
  return ICE_OK;
}

static void free_history(history *h) {
  for (int i = 0; i < h->n; i++) {
    free(h->line[i].step);
    free(h->line[i].level);
  }
  free(h->line);
  report_rows_free(&h->rows);
}

/* ---- Text. */

static void print_text(const history *h, const char *metric) {
  for (int i = 0; i < h->n; i++) {
    const line *l = h->line + i;
    (void)printf("%.100s on %.60s, %.60s: %s %.5g, %d measurements, %zu steps\n", text_of(h, l->from, "name"), text_of(h, l->from, "task"), text_of(h, l->from, "model"),
                 metric, l->level[l->to - l->from - 1], l->to - l->from, l->n_steps);
    for (size_t s = 0; s < l->n_steps; s++) {
      const int row = l->from + (int)l->step[s];
      const double before = l->level[l->step[s] - 1], after = l->level[l->step[s]];
      (void)printf("  %s  %.10s%s  %.5g -> %.5g  %+.1f %%\n", text_of(h, row, "created_utc"), text_of(h, row, "git_commit"),
                   strcmp(text_of(h, row, "git_dirty"), "0") ? "+" : "", before, after, 100.0 * (after / before - 1.0));
    }
  }
  (void)printf("a series without change shows a step in at most 5 of 100 cases; fewer than 6 measurements show none\n");
}

static json_t *text_json(const char *t) {
  json_t *o = json_string(t);
  return o ? o : json_string("(no UTF-8)");
}

static json_t *line_json(const history *h, const line *l, const char *metric) {
  json_t *points = json_array(), *steps = json_array();
  for (int row = l->from; row < l->to; row++)
    (void)json_array_append_new(points, json_pack("{s:o, s:o, s:f, s:f}", "created_utc", text_json(text_of(h, row, "created_utc")), "git_commit",
                                                  text_json(text_of(h, row, "git_commit")), "value", report_rows_value(&h->rows, row, "value"), "level",
                                                  l->level[row - l->from]));
  for (size_t s = 0; s < l->n_steps; s++)
    (void)json_array_append_new(steps, json_pack("{s:I, s:o, s:f, s:f}", "point", (json_int_t)l->step[s], "git_commit",
                                                 text_json(text_of(h, l->from + (int)l->step[s], "git_commit")), "before", l->level[l->step[s] - 1], "after",
                                                 l->level[l->step[s]]));
  return json_pack("{s:o, s:o, s:o, s:s, s:o, s:o}", "name", text_json(text_of(h, l->from, "name")), "task", text_json(text_of(h, l->from, "task")), "model",
                   text_json(text_of(h, l->from, "model")), "metric", metric, "points", points, "steps", steps);
}

static int print_json(const history *h, const char *metric, ice_err *e) {
  json_t *list = json_array();
  for (int i = 0; i < h->n; i++) (void)json_array_append_new(list, line_json(h, h->line + i, metric));
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
    const line *l = h->line + first + i;
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
  (void)snprintf(subject, sizeof subject, "%.80s, %.80s", text_of(h, row, "task"), text_of(h, row, "model"));
  for (int i = 0; i < n; i++) {
    const int at = h->line[first + i].from;
    series[i] = (plot_series){.method = text_of(h, at, "method"), .color = PLOT_FIRST_COLOR + i, .shape = i};
    (void)snprintf(series[i].name, sizeof series[i].name, "%.34s", text_of(h, at, "name"));
  }
  ICE_TRY(write_data(h, first, n, dir, stem, &x, &y, e));
  y.log = h->logarithmic && y.hi > 10.0 * y.lo; /* within a decade a logarithmic axis has no marks */
  (void)snprintf(text, sizeof text, "METRIC = '%s'; LOGARITHMIC = %d\n%s", metric, y.log, body);
  plot_axis_pad(&x, 0.03, 0.03);
  plot_axis_pad(&y, 0.1, 0.1);
  const plot_script script = {.folder = dir, .stem = stem, .terminal = terminal, .subject = subject, .machine = text_of(h, row, "cpu"), .build = "", .body = text,
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
  history h = {.n = 0};
  ICE_TRY(cli_parse(argc, argv, spec, NULL, 0, &n, e));
  ICE_TRY(cli_format(format, &json, e));
  if (!plot_terminal_known(terminal)) return ice_fail(e, ICE_USAGE, "--terminal = %s, allowed svg, png, pdf", terminal);
  if (!*metric || metric[strspn(metric, "abcdefghijklmnopqrstuvwxyz0123456789_")])
    return ice_fail(e, ICE_USAGE, "--metric = %.60s, allowed the name of a metric, such as attention_ns, peak_bytes, rel_l2_error, accuracy", metric);
  ICE_TRY(store_open(common->db, STORE_READ, &s, e));
  int rc = read_history(s, metric, experiment, &h, e);
  store_close(s);
  if (rc == ICE_OK && json) rc = print_json(&h, metric, e);
  else if (rc == ICE_OK && !common->quiet) print_text(&h, metric);
  if (rc == ICE_OK && out) rc = draw(&h, metric, out, terminal, common->quiet || json, e);
  free_history(&h);
  return rc;
}

const cli_verb cli_verb_history = {
    .name = "history",
    .summary = "each cell over all its measurements, and where its level changed",
    .help = "usage: icebench history [--experiment NAME] [--metric NAME] [--format text|json] [--out DIR] [--terminal svg|png|pdf]\n\n"
            "Every attempt at a cell that the database keeps, older ones included, in the order of time; per machine. Steps are found\n"
            "by E-divisive: a step is a change of level that shuffled measurements hardly ever show. Outliers are none. A step is\n"
            "named by the commit that was first measured on the new level (+: with uncommitted changes).\n\n"
            "  --metric NAME   attention_ns (default), peak_bytes, twin_instructions, rel_l2_error, accuracy, ...\n"
            "  --out DIR       charts as well, with their gnuplot scripts and data\n\n"
            "examples:\n"
            "  icebench history --experiment ci-gate --db results/ci.db\n"
            "  icebench history --metric peak_bytes --out plots/out\n\n"
            "exit codes: 0 done, 2 usage, 6 no such rows, 8 database\n",
    .main = history_main};
