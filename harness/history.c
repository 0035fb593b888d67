/* history.c - see history.h */
#include "harness/history.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/registry/registry.h"
#include "harness/report_records.h"
#include "harness/stats.h"
#include "harness/stats_change.h"

static const char rows_sql[] =
    "SELECT a.method || iif(a.params = '{}', '', ' ' || a.params) AS name, a.method, a.params, a.n, a.seed, a.threads, a.task, a.model, k.cpu, b.git_commit, b.git_dirty,"
    " strftime('%Y-%m-%dT%H:%M:%SZ', a.started_utc_ms / 1000, 'unixepoch') AS created_utc, m.value, m.lo, m.hi,"
    " json_array(a.task, a.model, a.method, a.params, a.seed, a.n, a.heads, a.head_dim, a.causal, a.threads, a.isa, a.examples, a.partial,"
    "   a.data_hash, a.model_hash, (SELECT value FROM metric t WHERE t.cell_id = a.id AND t.name = 'timed_inputs'), a.machine_id) AS cell "
    "FROM attempt a JOIN build b ON b.id = a.build_id JOIN machine k ON k.id = a.machine_id JOIN metric m ON m.cell_id = a.id AND m.name = ?1 "
    "WHERE a.status = 'ok' AND a.noise IS NULL AND (?2 IS NULL OR a.experiment = ?2) "
    "ORDER BY a.task, a.model, a.method, cell, a.started_utc_ms, a.id";

const char *history_text(const history *h, int row, const char *column) {
  const char *t = report_rows_text(&h->rows, row, column);
  return t ? t : "";
}

/* Levels of a line: medians between its steps. */
static int find_levels(const history *h, history_line *l, ice_err *e) {
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

static int nothing_there(store *s, const char *metric, const char *experiment, ice_err *e) {
  report_rows known;
  char near[200] = "";
  int rc = report_rows_select(s, "SELECT DISTINCT name FROM metric ORDER BY name", NULL, 0, &known, e);
  const char **name = rc == ICE_OK ? calloc((size_t)known.n + 1, sizeof *name) : NULL;
  for (int i = 0; name && i < known.n; i++) name[i] = report_rows_text(&known, i, "name");
  for (int i = 0; name && i < known.n; i++)
    if (!strcmp(name[i], metric)) known.n = 0; /* it is a metric, and others have it */
  if (name) registry_suggest(metric, name, known.n, near, sizeof near);
  free((void *)name);
  report_rows_free(&known);
  return rc != ICE_OK ? rc
                      : ice_fail(e, ICE_NO_VERDICT, "no finished row%s%.200s has %.60s%s%s%s", experiment ? " of experiment " : "", experiment ? experiment : "",
                                 metric, *near ? "; did you mean " : "", near, *near ? "?" : "");
}

int history_read(store *s, const char *metric, const char *experiment, history *h, ice_err *e) {
  *h = (history){0};
  const char *const bind[] = {metric, experiment};
  ICE_TRY(report_rows_select(s, rows_sql, bind, 2, &h->rows, e));
  if (!h->rows.n) return nothing_there(s, metric, experiment, e);
  h->line = calloc((size_t)h->rows.n, sizeof *h->line);
  if (!h->line) return ice_fail(e, ICE_INTERNAL, "out of memory for the history");
  h->logarithmic = 1;
  for (int i = 0; i < h->rows.n; i++) h->logarithmic &= report_rows_value(&h->rows, i, "value") > 0.0;
  for (int from = 0, to; from < h->rows.n; from = to) {
    for (to = from + 1; to < h->rows.n && !strcmp(history_text(h, from, "cell"), history_text(h, to, "cell"));) to++;
    history_line *l = h->line + h->n++;
    *l = (history_line){.from = from, .to = to};
    ICE_TRY(find_levels(h, l, e));
  }
  return ICE_OK;
}

void history_name(const history *h, const history_line *l, char *out, size_t size) {
  char *params = report_rows_params(&h->rows, l->from);
  const double n = report_rows_value(&h->rows, l->from, "n");
  const int machines = report_rows_distinct(&h->rows, 0, h->rows.n, "cpu", NULL, 0), seeds = report_rows_distinct(&h->rows, 0, h->rows.n, "seed", NULL, 0),
            threads = report_rows_distinct(&h->rows, 0, h->rows.n, "threads", NULL, 0);
  FILE *f = fmemopen(out, size, "w");
  if (f) {
    (void)fprintf(f, "%s%s%s", history_text(h, l->from, "method"), params && *params ? " " : "", params ? params : "");
    if (isfinite(n)) (void)fprintf(f, ", n=%.0f", n);
    if (seeds > 1) (void)fprintf(f, ", seed %s", history_text(h, l->from, "seed"));
    if (threads > 1) (void)fprintf(f, ", threads %s", history_text(h, l->from, "threads"));
    if (machines > 1) (void)fprintf(f, ", %s", history_text(h, l->from, "cpu"));
    (void)fclose(f);
  }
  out[f ? size - 1 : 0] = 0;
  free(params);
}

void history_free(history *h) {
  for (int i = 0; i < h->n; i++) {
    free(h->line[i].step);
    free(h->line[i].level);
  }
  free(h->line);
  report_rows_free(&h->rows);
}

static json_t *point_json(const history *h, int row, double level) {
  return json_pack("{s:o, s:o, s:b, s:f, s:o, s:o, s:f}", "created_utc", report_record_text(history_text(h, row, "created_utc")), "git_commit",
                   report_record_text(history_text(h, row, "git_commit")), "git_dirty", strcmp(history_text(h, row, "git_dirty"), "0") != 0, "value",
                   report_rows_value(&h->rows, row, "value"), "lo", report_record_number(report_rows_value(&h->rows, row, "lo")), "hi",
                   report_record_number(report_rows_value(&h->rows, row, "hi")), "level", level);
}

json_t *history_line_json(const history *h, const history_line *l, const char *metric) {
  json_t *points = json_array(), *steps = json_array();
  for (int row = l->from; row < l->to; row++)
    (void)json_array_append_new(points, point_json(h, row, l->level[row - l->from]));
  for (size_t s = 0; s < l->n_steps; s++)
    (void)json_array_append_new(steps, json_pack("{s:I, s:o, s:f, s:f}", "point", (json_int_t)l->step[s], "git_commit",
                                                 report_record_text(history_text(h, l->from + (int)l->step[s], "git_commit")), "before", l->level[l->step[s] - 1], "after",
                                                 l->level[l->step[s]]));
  char *params = report_rows_params(&h->rows, l->from);
  json_t *params_text = report_record_text(params ? params : "");
  free(params);
  return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o}", "name", report_record_text(history_text(h, l->from, "name")), "method",
                   report_record_text(history_text(h, l->from, "method")), "params_text", params_text, "n", report_record_number(report_rows_value(&h->rows, l->from, "n")), "task", report_record_text(history_text(h, l->from, "task")), "model",
                   report_record_text(history_text(h, l->from, "model")), "machine", report_record_text(history_text(h, l->from, "cpu")), "metric", metric, "points", points, "steps", steps);
}

