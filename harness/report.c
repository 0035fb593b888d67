/* report.c - see report.h. One pass reads the view into cells of text; each format is then a way to print a table. */
#include "harness/report.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/number.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"

const char *const report_formats[] = {"md", "csv", "json", "latex", "html", NULL};

/* --- rows of the view --------------------------------------------------------------------------------------------- */

typedef struct rows {
  int columns, n, room;
  char **name; /* [columns] */
  char **cell; /* [n * columns], NULL = unknown */
} rows;

static char *copy(const char *text) { return text ? strdup(text) : NULL; }

static int take_row(void *ctx, int columns, char **names, char **values) {
  rows *r = ctx;
  if (!r->name) {
    r->columns = columns;
    r->name = calloc((size_t)columns, sizeof *r->name);
    for (int i = 0; r->name && i < columns; i++) r->name[i] = copy(names[i]);
  }
  if (r->n == r->room) {
    const int room = r->room ? 2 * r->room : 64;
    char **grown = realloc(r->cell, (size_t)room * (size_t)columns * sizeof *grown);
    if (!grown) return 1;
    r->cell = grown, r->room = room;
  }
  if (!r->name) return 1;
  for (int i = 0; i < columns; i++) r->cell[r->n * columns + i] = copy(values[i]);
  r->n++;
  return 0;
}

static void free_rows(rows *r) {
  for (int i = 0; r->name && i < r->columns; i++) free(r->name[i]);
  for (int i = 0; i < r->n * r->columns; i++) free(r->cell[i]);
  free(r->name);
  free(r->cell);
}

static const char *text_of(const rows *r, int row, const char *column) {
  for (int i = 0; i < r->columns; i++)
    if (!strcmp(r->name[i], column)) return r->cell[row * r->columns + i];
  return NULL;
}
static double value_of(const rows *r, int row, const char *column) {
  const char *text = text_of(r, row, column);
  return text ? strtod(text, NULL) : NAN;
}
static int same(const rows *r, int a, int b, const char *column) {
  const char *x = text_of(r, a, column), *y = text_of(r, b, column);
  return x && y ? !strcmp(x, y) : x == y;
}

/* --- order: as the registry lists methods, parameters by value ----------------------------------------------------- */

static int method_rank(const char *name) {
  int i = 0;
  while (registry_methods[i] && strcmp(registry_methods[i]->name, name)) i++;
  return i;
}

static int compare_params(const char *a, const char *b) {
  json_t *x = json_loads(a ? a : "{}", 0, NULL), *y = json_loads(b ? b : "{}", 0, NULL), *value;
  const char *key;
  int order = 0;
  json_object_foreach(x, key, value) {
    const double v = json_number_value(value), w = json_number_value(json_object_get(y, key));
    if (!order) order = (v > w) - (v < w);
  }
  json_decref(x);
  json_decref(y);
  return order ? order : strcmp(a ? a : "", b ? b : "");
}


static int before(const rows *r, int a, int b) {
  static const char *const group[] = {"experiment", "task", "model", "threads", "seed", "machine"};
  for (size_t i = 0; i < sizeof group / sizeof *group; i++) {
    const char *x = text_of(r, a, group[i]), *y = text_of(r, b, group[i]);
    const int c = strcmp(x ? x : "", y ? y : "");
    if (c) return c < 0;
  }
  const int m = method_rank(text_of(r, a, "method")) - method_rank(text_of(r, b, "method"));
  if (m) return m < 0;
  return compare_params(text_of(r, a, "params"), text_of(r, b, "params")) < 0;
}

static void sort_rows(const rows *r, int *order) { /* few rows: insertion */
  for (int i = 0; i < r->n; i++) {
    int j = i;
    for (; j > 0 && before(r, i, order[j - 1]); j--) order[j] = order[j - 1];
    order[j] = i;
  }
}

/* --- the table for people ------------------------------------------------------------------------------------------ */

enum { COLUMNS = 12, CELL = 160 };
static const char *const heads[COLUMNS] = {"method",        "parameters", "accuracy",    "retention", "attention ms", "x vanilla",
                                           "x dense",       "rel. L2",    "mass",        "recall",    "MiB",          "note"};
static const char *const legend[COLUMNS] = {
    "the attention in the model's slot; the weights are the same in all rows",
    "those that differ from the defaults (`icebench show METHOD`)",
    "share of examples classified rightly, with its 95 % interval",
    "accuracy / accuracy of `dense` with the same weights and examples",
    "time inside attention for one pass over the timed inputs, all layers and heads, index building included; median of the rounds",
    "how many times faster than `vanilla`, the paper's baseline (scores materialised by OpenBLAS); 95 % interval",
    "how many times faster than `dense`, the strongest exact attention here; 95 % interval",
    "relative error of the attention output against exact attention, ||O - O_dense|| / ||O_dense||",
    "share of the exact softmax mass on the keys the method used",
    "share of the exact top k among the keys the method used",
    "plan + scratch + index of one attention call",
    "what to know about the row"};

static void put(char *out, const char *fmt, double v) {
  if (isnan(v)) (void)snprintf(out, CELL, "-");
  else (void)snprintf(out, CELL, fmt, v);
}
static void put_interval(char *out, const char *one, const char *with, double v, double lo, double hi) {
  if (isnan(v) || isnan(lo) || isnan(hi)) put(out, one, v);
  else (void)snprintf(out, CELL, with, v, lo, hi);
}

/* "k=16 levels=2": what differs from the defaults. */
static void put_params(char *out, const char *method, const char *params) {
  const attn_method *m = NULL;
  for (int i = 0; registry_methods[i]; i++)
    if (!strcmp(registry_methods[i]->name, method)) m = registry_methods[i];
  void *dflt = m ? attn_calloc(m->params_size) : NULL;
  if (dflt) attn_params_default(m, dflt);
  char *text = dflt ? registry_params_json(m, dflt) : NULL;
  json_t *mine = json_loads(params ? params : "{}", 0, NULL), *theirs = json_loads(text ? text : "{}", 0, NULL), *value;
  const char *key;
  size_t n = 0;
  out[0] = 0;
  json_object_foreach(mine, key, value) {
    if (json_equal(value, json_object_get(theirs, key)) && strcmp(key, "k")) continue;
    char *one = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    if (one && n < CELL) n += (size_t)snprintf(out + n, CELL - n, "%s%s=%s", n ? " " : "", key, one);
    free(one);
  }
  json_decref(mine);
  json_decref(theirs);
  free(text);
  attn_free(dflt);
}

static void put_note(char *out, const rows *r, int row) {
  const char *status = text_of(r, row, "status"), *reason = text_of(r, row, "reason"), *label = text_of(r, row, "label");
  size_t n = 0;
  out[0] = 0;
  if (status && strcmp(status, "ok"))
    n += (size_t)snprintf(out, CELL, "%s%s%s", status, reason ? ": " : "", reason ? reason : "");
  if (value_of(r, row, "partial") > 0 && n < CELL)
    n += (size_t)snprintf(out + n, CELL - n, "%spartial: %s examples", n ? "; " : "", text_of(r, row, "examples"));
  if (label && *label && n < CELL) (void)snprintf(out + n, CELL - n, "%s%s", n ? "; " : "", label);
}

static void fill(const rows *r, int row, char out[COLUMNS][CELL]) {
#define V(column) value_of(r, row, column)
  (void)snprintf(out[0], CELL, "%s", text_of(r, row, "method"));
  put_params(out[1], text_of(r, row, "method"), text_of(r, row, "params"));
  put_interval(out[2], "%.4f", "%.4f [%.4f, %.4f]", V("accuracy"), V("accuracy_lo"), V("accuracy_hi"));
  put(out[3], "%.4f", V("retention"));
  put_interval(out[4], "%.3f", "%.3f [%.3f, %.3f]", V("attention_ns") * 1e-6, V("attention_ns_lo") * 1e-6, V("attention_ns_hi") * 1e-6);
  put_interval(out[5], "%.2f", "%.2f [%.2f, %.2f]", V("speedup_vanilla"), V("speedup_vanilla_lo"), V("speedup_vanilla_hi"));
  put_interval(out[6], "%.2f", "%.2f [%.2f, %.2f]", V("speedup_dense"), V("speedup_dense_lo"), V("speedup_dense_hi"));
  put(out[7], "%.2e", V("rel_l2_error"));
  put(out[8], "%.3f", V("mass"));
  put(out[9], "%.3f", V("recall"));
  put(out[10], "%.2f", V("peak_bytes") / 1048576.0);
  put_note(out[11], r, row);
#undef V
}

/* What a group of rows has in common, as one line. */
static void describe_group(const rows *r, int row, char *out, size_t size) {
  const char *blas = text_of(r, row, "blas"), *commit = text_of(r, row, "git_commit");
  (void)snprintf(out, size, "%s: %s, model %s, %s examples, seed %s, mean length %.0f, %s layers, %s heads of %s; %s threads, %s, machine %s, BLAS %s; commit %.12s%s",
                 text_of(r, row, "experiment"), text_of(r, row, "task"), text_of(r, row, "model"),
                 text_of(r, row, "examples"), text_of(r, row, "seed"), value_of(r, row, "n"), text_of(r, row, "layers"),
                 text_of(r, row, "heads"), text_of(r, row, "head_dim"), text_of(r, row, "threads"),
                 text_of(r, row, "isa"), text_of(r, row, "machine"), blas ? blas : "unknown", commit ? commit : "unknown",
                 value_of(r, row, "git_dirty") > 0 ? " with local changes" : "");
}
static int same_group(const rows *r, int a, int b) {
  static const char *const keys[] = {"experiment", "task", "model", "seed", "threads", "isa", "machine", "examples"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (!same(r, a, b, keys[i])) return 0;
  return 1;
}

/* --- formats ------------------------------------------------------------------------------------------------------ */

static void print_escaped(FILE *f, report_format format, const char *text) {
  for (const char *c = text; *c; c++) {
    if (format == REPORT_HTML) {
      const char *entity = *c == '<' ? "&lt;" : *c == '>' ? "&gt;" : *c == '&' ? "&amp;" : *c == '"' ? "&quot;" : NULL;
      if (entity) (void)fputs(entity, f);
      else (void)fputc(*c, f);
    } else if (format == REPORT_LATEX) {
      if (*c == '\\') (void)fputs("\\textbackslash{}", f);
      else if (*c == '~' || *c == '^') (void)fprintf(f, "\\%c{}", *c);
      else if (strchr("_%&#{}$", *c)) (void)fprintf(f, "\\%c", *c);
      else (void)fputc(*c, f);
    } else {
      if (*c == '|') (void)fputc('\\', f);
      (void)fputc(*c == '\n' ? ' ' : *c, f);
    }
  }
}

static int display_width(const char *text) { /* characters, not bytes */
  int n = 0;
  for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
  return n;
}

typedef char line[COLUMNS][CELL];

static void print_md(FILE *f, const line *lines, int n, const int *used) {
  int width[COLUMNS];
  for (int c = 0; c < COLUMNS; c++) {
    width[c] = display_width(heads[c]);
    for (int i = 0; i < n; i++)
      if (display_width(lines[i][c]) > width[c]) width[c] = display_width(lines[i][c]);
  }
  for (int i = -2; i < n; i++) {
    for (int c = 0; c < COLUMNS; c++) {
      if (!used[c]) continue;
      const char *text = i == -2 ? heads[c] : i == -1 ? "" : lines[i][c];
      const int left = c < 2 || c == COLUMNS - 1;
      (void)fputs("| ", f);
      const int gap = width[c] - display_width(text);
      if (i == -1) {
        for (int k = 0; k < width[c]; k++) (void)fputc(!left && k == width[c] - 1 ? ':' : '-', f);
        (void)fputc(' ', f);
        continue;
      }
      if (!left) (void)fprintf(f, "%*s", gap, "");
      print_escaped(f, REPORT_MD, text);
      (void)fprintf(f, "%*s ", left ? gap : 0, "");
    }
    (void)fputs("|\n", f);
  }
}

static void print_latex(FILE *f, const line *lines, int n, const int *used) {
  (void)fputs("\\begin{tabular}{ll", f);
  for (int c = 2; c < COLUMNS; c++)
    if (used[c]) (void)fputc(c == COLUMNS - 1 ? 'l' : 'r', f);
  (void)fputs("}\n\\toprule\n", f);
  for (int i = -1; i < n; i++) {
    for (int c = 0, first = 1; c < COLUMNS; c++) {
      if (!used[c]) continue;
      if (!first) (void)fputs(" & ", f);
      print_escaped(f, REPORT_LATEX, i < 0 ? heads[c] : lines[i][c]);
      first = 0;
    }
    (void)fputs(i < 0 ? " \\\\\n\\midrule\n" : " \\\\\n", f);
  }
  (void)fputs("\\bottomrule\n\\end{tabular}\n", f);
}

static void print_html(FILE *f, const line *lines, int n, const int *used) {
  (void)fputs("<table>\n", f);
  for (int i = -1; i < n; i++) {
    (void)fputs("<tr>", f);
    for (int c = 0; c < COLUMNS; c++) {
      if (!used[c]) continue;
      (void)fputs(i < 0 ? "<th>" : c < 2 || c == COLUMNS - 1 ? "<td class=\"l\">" : "<td>", f);
      print_escaped(f, REPORT_HTML, i < 0 ? heads[c] : lines[i][c]);
      (void)fputs(i < 0 ? "</th>" : "</td>", f);
    }
    (void)fputs("</tr>\n", f);
  }
  (void)fputs("</table>\n", f);
}

static void print_legend(FILE *f, report_format format, const int *used) {
  if (format == REPORT_HTML) (void)fputs("<ul>\n", f);
  for (int c = 0; c < COLUMNS && format != REPORT_LATEX; c++) {
    if (!used[c]) continue;
    (void)fputs(format == REPORT_HTML ? "<li><b>" : "- **", f);
    print_escaped(f, format, heads[c]);
    (void)fputs(format == REPORT_HTML ? "</b>: " : "**: ", f);
    print_escaped(f, format, legend[c]);
    (void)fputs(format == REPORT_HTML ? "</li>\n" : "\n", f);
  }
  if (format == REPORT_HTML) (void)fputs("</ul>\n", f);
}

/* --- beside published figures ------------------------------------------------------------------------------------- */

static int next_field(const char **p, char *out, size_t size) {
  size_t n = strcspn(*p, ",\n\r");
  (void)snprintf(out, size, "%.*s", (int)n, *p);
  *p += n;
  if (**p == ',') return (*p)++, 1;
  return 0;
}

/* One line per published row of this task, with our best matching row beside it. */
static void print_published(FILE *f, report_format format, const rows *r, const int *order, int from, int to,
                            const char *published) {
  if (format == REPORT_HTML) (void)fputs("<pre>", f);
  (void)fputs(format == REPORT_LATEX ? "\\begin{verbatim}\n" : "\n", f);
  (void)fputs("Against the published figures (other machine, other batch: compare ratios, not seconds):\n\n", f);
  for (const char *p = published; *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : p + strlen(p)) {
    char field[6][64] = {{0}};
    const char *q = p;
    for (int i = 0; i < 6 && next_field(&q, field[i], sizeof field[i]); i++) continue;
    if (*p == '#' || !strcmp(field[0], "task") || strcmp(field[0], text_of(r, order[from], "task"))) continue;
    (void)fprintf(f, "  %-10s published: accuracy %s, attention %s s, x vanilla %s, retention %s\n", field[1],
                  *field[2] ? field[2] : "-", *field[3] ? field[3] : "-", *field[4] ? field[4] : "-", *field[5] ? field[5] : "-");
    for (int i = from; i < to; i++) {
      if (strcmp(text_of(r, order[i], "method"), field[1])) continue;
      line l;
      fill(r, order[i], l);
      (void)fprintf(f, "  %-10s ours:      accuracy %s, x vanilla %s, x dense %s, retention %s  %s\n", "", l[2], l[5], l[6], l[3], l[1]);
    }
  }
  if (format == REPORT_LATEX) (void)fputs("\\end{verbatim}\n", f);
  if (format == REPORT_HTML) (void)fputs("</pre>\n", f);
}

/* --- whole reports ------------------------------------------------------------------------------------------------- */

static int print_groups(const rows *r, const int *order, report_format format, const char *published, FILE *f, ice_err *e) {
  line *lines = malloc((size_t)r->n * sizeof *lines);
  int used[COLUMNS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0};
  if (!lines) return ice_fail(e, ICE_INTERNAL, "out of memory");
  if (format == REPORT_HTML)
    (void)fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>icebench</title>\n"
                "<style>body{font:15px/1.5 sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}"
                "th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #ccc}.l{text-align:left}</style></head><body>\n",
                f);
  for (int i = 0; i < r->n; i++) {
    fill(r, order[i], lines[i]);
    if (lines[i][COLUMNS - 1][0]) used[COLUMNS - 1] = 1;
  }
  for (int from = 0, to; from < r->n; from = to) {
    char text[1024];
    for (to = from + 1; to < r->n && same_group(r, order[from], order[to]);) to++;
    describe_group(r, order[from], text, sizeof text);
    (void)fputs(format == REPORT_HTML ? "<p>" : format == REPORT_LATEX ? "% " : from ? "\n" : "", f);
    print_escaped(f, format == REPORT_LATEX ? REPORT_MD : format, text);
    (void)fputs(format == REPORT_HTML ? "</p>\n" : format == REPORT_LATEX ? "\n" : "\n\n", f);
    if (format == REPORT_MD) print_md(f, (const line *)lines + from, to - from, used);
    else if (format == REPORT_LATEX) print_latex(f, (const line *)lines + from, to - from, used);
    else print_html(f, (const line *)lines + from, to - from, used);
    if (published) print_published(f, format, r, order, from, to, published);
  }
  if (format == REPORT_MD) (void)fputc('\n', f);
  print_legend(f, format, used);
  if (format == REPORT_HTML) (void)fputs("</body></html>\n", f);
  free(lines);
  return ICE_OK;
}

static void print_csv(const rows *r, const int *order, FILE *f) {
  for (int i = -1; i < r->n; i++)
    for (int c = 0; c < r->columns; c++) {
      const char *text = i < 0 ? r->name[c] : r->cell[order[i] * r->columns + c];
      const int quote = text && strpbrk(text, ",\"\n\r");
      if (quote) (void)fputc('"', f);
      for (const char *p = text ? text : ""; *p; p++) {
        if (*p == '"') (void)fputc('"', f);
        (void)fputc(*p, f);
      }
      if (quote) (void)fputc('"', f);
      (void)fputc(c + 1 < r->columns ? ',' : '\n', f);
    }
}

/* Columns that are text even when they look like numbers. */
static int is_text(const char *column) {
  static const char *const names[] = {"experiment", "task", "model", "method", "params", "isa", "status", "reason", "label", "git_commit",
                                      "machine", "blas", "created_utc", "data_hash", "model_hash", "seed", NULL};
  for (int i = 0; names[i]; i++)
    if (!strcmp(names[i], column)) return 1;
  return 0;
}

static int print_json(const rows *r, const int *order, FILE *f, ice_err *e) {
  json_t *all = json_array();
  for (int i = 0; i < r->n; i++) {
    json_t *o = json_object();
    for (int c = 0; c < r->columns; c++) {
      const char *text = r->cell[order[i] * r->columns + c];
      int64_t whole;
      double real;
      json_t *v = json_null();
      if (text && !strcmp(r->name[c], "params")) v = json_loads(text, 0, NULL);
      else if (text && !is_text(r->name[c]) && number_int(text, INT64_MIN, INT64_MAX, &whole)) v = json_integer(whole);
      else if (text && !is_text(r->name[c]) && number_real(text, -1e300, 1e300, &real)) v = json_real(real);
      else if (text) v = json_string(text);
      (void)json_object_set_new(o, r->name[c], v);
    }
    (void)json_array_append_new(all, o);
  }
  char *text = json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
  json_decref(all);
  if (!text) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)fprintf(f, "%s\n", text);
  free(text);
  return ICE_OK;
}

int report_write(store *s, const char *experiment, report_format format, const char *published, FILE *f, ice_err *e) {
  rows r = {0};
  int rc = experiment ? store_query(s, "SELECT * FROM results WHERE experiment = ?1", &experiment, 1, take_row, &r, e)
                      : store_query(s, "SELECT * FROM results", NULL, 0, take_row, &r, e);
  if (rc == ICE_OK && r.n == 0)
    rc = ice_fail(e, ICE_NO_VERDICT, experiment ? "no results of experiment '%s' in the database; icebench run makes them%s" : "no results in the database; icebench run makes them%s",
                  experiment ? experiment : "", "");
  int *order = rc == ICE_OK ? calloc((size_t)r.n, sizeof *order) : NULL;
  if (rc == ICE_OK && !order) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) {
    sort_rows(&r, order);
    if (format == REPORT_CSV) print_csv(&r, order, f);
    else if (format == REPORT_JSON) rc = print_json(&r, order, f, e);
    else rc = print_groups(&r, order, format, published, f, e);
  }
  free(order);
  free_rows(&r);
  return rc;
}
