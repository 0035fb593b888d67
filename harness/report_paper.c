/* report_paper.c - see report_paper.h */
#include "harness/report_paper.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/number.h"

enum { FIELDS = 6 };
static const char header[] = "task,method,model,accuracy,seconds,retention";

/* --- reading -------------------------------------------------------------------------------------------------------- */

static int out_of_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for the published figures"); }

static int number(const char *text, double *out) {
  *out = NAN;
  return !*text || number_real(text, 0, 1e12, out);
}

static int parse_figure(const char *line, size_t n, report_figure *fig) {
  char field[FIELDS][PAPER_FIELD] = {{0}};
  int k = 0;
  for (size_t i = 0, at = 0; i < n; i++) {
    if (line[i] == ',') {
      if (++k == FIELDS) return 0;
      at = 0;
    } else if (at + 1 < PAPER_FIELD) field[k][at++] = line[i];
    else return 0;
  }
  memcpy(fig->task, field[0], PAPER_FIELD);
  memcpy(fig->method, field[1], PAPER_FIELD);
  memcpy(fig->model, field[2], PAPER_FIELD);
  return k == FIELDS - 1 && *fig->task && *fig->method && number(field[3], &fig->accuracy) && number(field[4], &fig->seconds) &&
         number(field[5], &fig->retention);
}

/* Seconds of vanilla on the same task: with the same model, else with the plain one. */
static double baseline(const report_paper *p, const report_figure *fig) {
  double plain = NAN;
  for (const report_figure *v = p->figure; v < p->figure + p->n; v++) {
    if (strcmp(v->task, fig->task) || strcmp(v->method, "vanilla")) continue;
    if (!strcmp(v->model, fig->model)) return v->seconds;
    if (!strcmp(v->model, "softmax")) plain = v->seconds;
  }
  return plain;
}

static int count_lines(const char *text) {
  int n = 1;
  for (; *text; text++) n += *text == '\n';
  return n;
}

int report_paper_parse(const char *text, report_paper *p, ice_err *e) {
  const int most = count_lines(text);
  int line = 0, headed = 0;
  *p = (report_paper){.figure = calloc((size_t)most, sizeof *p->figure), .note = calloc((size_t)most, sizeof *p->note)};
  if (!p->figure || !p->note) return out_of_memory(e);
  for (size_t n; *text; text += n + (text[n] == '\n')) {
    n = strcspn(text, "\n");
    const size_t bytes = n && text[n - 1] == '\r' ? n - 1 : n;
    line++;
    if (bytes == 0) continue;
    if (*text == '#') {
      const size_t skip = bytes > 1 && text[1] == ' ' ? 2 : 1;
      if (!(p->note[p->notes++] = strndup(text + skip, bytes - skip))) return out_of_memory(e);
    } else if (!headed) {
      headed = bytes == sizeof header - 1 && !memcmp(text, header, bytes);
      if (!headed) return ice_fail(e, ICE_DATA, "published figures, line %d: not the header '%s'", line, header);
    } else if (!parse_figure(text, bytes, p->figure + p->n++))
      return ice_fail(e, ICE_DATA, "published figures, line %d: '%.*s', allowed %s with empty or positive numbers", line, (int)(bytes < 200 ? bytes : 200),
                      text, header);
  }
  for (report_figure *fig = p->figure; fig < p->figure + p->n; fig++) fig->speedup = baseline(p, fig) / fig->seconds;
  return ICE_OK;
}

void report_paper_free(report_paper *p) {
  for (int i = 0; i < p->notes; i++) free(p->note[i]);
  free((void *)p->note);
  free(p->figure);
  *p = (report_paper){0};
}

/* --- joining -------------------------------------------------------------------------------------------------------- */

/* The figure that a row of ours is to be set against. */
static const report_figure *figure_of(const report_paper *p, const report_rows *r, int row) {
  const char *task = report_rows_text(r, row, "task"), *method = report_rows_text(r, row, "method"), *model = report_rows_text(r, row, "model");
  const char *slash = model ? strrchr(model, '/') : NULL, *last = slash ? slash + 1 : model;
  for (const report_figure *fig = p->figure; task && method && last && fig < p->figure + p->n; fig++)
    if (!strcmp(fig->task, task) && !strcmp(fig->method, method) && (!*fig->model || !strcmp(fig->model, last))) return fig;
  return NULL;
}

int report_paper_join(const report_paper *p, report_rows *r, ice_err *e) {
  static const char *const names[] = {"paper_accuracy", "paper_attention_s", "paper_speedup_vanilla", "paper_retention"};
  ICE_TRY(report_rows_widen(r, names, 4, e));
  for (int row = 0; row < r->n; row++) {
    const report_figure *fig = figure_of(p, r, row);
    const double value[4] = {fig ? fig->accuracy : NAN, fig ? fig->seconds : NAN, fig ? fig->speedup : NAN, fig ? fig->retention : NAN};
    for (int i = 0; i < 4; i++) {
      char *text = NULL;
      if (!isfinite(value[i])) continue;
      if (asprintf(&text, "%.4g", value[i]) < 0) return out_of_memory(e);
      report_rows_set(r, row, names[i], text);
    }
  }
  return ICE_OK;
}

/* --- printing ------------------------------------------------------------------------------------------------------- */

enum { METHOD, PARAMETERS, ACCURACY, PAPER_ACCURACY, SPEEDUP, PAPER_SPEEDUP, RETENTION, PAPER_RETENTION, PAPER_SECONDS, COLUMNS };
static const report_column column[COLUMNS] = {
    {.head = "method", .align = 'l'},
    {.head = "parameters", .align = 'l'},
    {.head = "accuracy", .align = 'r', .with_next = 1},
    {.head = "published", .align = 'r'},
    {.head = "x vanilla", .align = 'r', .with_next = 1},
    {.head = "published", .align = 'r'},
    {.head = "retention", .align = 'r', .with_next = 1},
    {.head = "published", .align = 'r'},
    {.head = "attention s, published", .align = 'r'}};

static void put_figure(report_table *t, int row, const report_figure *fig) {
  if (isfinite(fig->accuracy)) report_table_set(t, row, PAPER_ACCURACY, "%.4f", fig->accuracy);
  if (isfinite(fig->speedup)) report_table_set(t, row, PAPER_SPEEDUP, "%.1f", fig->speedup);
  if (isfinite(fig->retention)) report_table_set(t, row, PAPER_RETENTION, "%.3f", fig->retention);
  if (isfinite(fig->seconds)) report_table_set(t, row, PAPER_SECONDS, "%.3g", fig->seconds);
}

int report_paper_print(const report_paper *p, const report_rows *r, int from, int to, const report_table *ours,
                       const int pick[5], const report_options *o, FILE *f, ice_err *e) {
  static const int place[5] = {METHOD, PARAMETERS, ACCURACY, SPEEDUP, RETENTION};
  const char *task = report_rows_text(r, from, "task");
  report_table t;
  char *met = calloc((size_t)p->n + 1, 1), line[256];
  int rc = report_table_create(&t, column, COLUMNS, to - from + p->n, e), known = 0;
  if (rc == ICE_OK && !met) rc = out_of_memory(e);
  t.rows = 0; /* grows to those in use */
  for (int row = from; rc == ICE_OK && row < to; row++) {
    const char *status = report_rows_text(r, row, "status");
    if (!status || strcmp(status, "ok")) continue;
    t.rows++;
    for (int i = 0; i < 5; i++) {
      const char *text = ours->cell[(row - from) * ours->columns + pick[i]];
      if (text) report_table_set(&t, t.rows - 1, place[i], "%s", text);
    }
    const report_figure *fig = figure_of(p, r, row);
    if (!fig) continue;
    put_figure(&t, t.rows - 1, fig);
    met[fig - p->figure] = 1, known = 1;
  }
  for (int i = 0; rc == ICE_OK && i < p->n; i++) {
    if (met[i] || strcmp(p->figure[i].task, task)) continue;
    report_table_set(&t, t.rows, METHOD, "%s", p->figure[i].method);
    report_table_set(&t, t.rows, PARAMETERS, "(%s, published only)", *p->figure[i].model ? p->figure[i].model : "any model");
    put_figure(&t, t.rows++, p->figure + i);
    known = 1;
  }
  (void)snprintf(line, sizeof line, known ? "%s against published figures" : "Nothing is published for %s.", task);
  if (rc == ICE_OK && !known) report_paragraph(f, o->format, line);
  if (rc == ICE_OK && known) {
    report_heading(f, o->format, line);
    rc = report_table_print(&t, o->format, o->width, f, e);
  }
  t.rows = to - from + p->n;
  report_table_free(&t);
  free(met);
  return rc;
}
