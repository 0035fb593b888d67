/* report.c - see report.h. The rows of the view come sorted (report_rows.h); csv and json print them as they are. For
 * people each group of rows becomes a table (report_table.h): what all rows share stands above it, what a row needs to be
 * judged stands in its note, what a column means in one legend at the end. */
#include "harness/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/config_shape.h"
#include "harness/report_html.h"
#include "harness/report_pairs.h"
#include "harness/report_records.h"
#include "harness/report_rows.h"
#include "harness/report_table.h"

const char *const report_formats[] = {"md", "csv", "json", "latex", "html", NULL};

/* --- columns -------------------------------------------------------------------------------------------------------- */

enum { METHOD, PARAMETERS, VERSION, TOKENS, LENGTH, SPLIT, SEED, EXAMPLES, ACCURACY, RETENTION, ATTENTION, X_VANILLA, X_DENSE, L2, REL_L2, MASS, RECALL, MEMORY, NOTE, COLUMNS };
static const report_column columns[COLUMNS] = {
    {"method", "the attention in the model's slot; the weights are the same in all rows of a table", 'l', 0},
    {"parameters", "k, and those that differ from the defaults (`icebench show METHOD`)", 'l', 0},
    {"version", "version of the method: numbers of different versions may differ", 'l', 0},
    {"tokens", "queries and keys of the tensors; tokens of a prompt, on average", 'r', 0},
    {"length", "lines or topics of a prompt", 'r', 0},
    {"split", "of the data that the examples are from", 'l', 0},
    {"seed", "of the choice of examples and of randomised methods", 'r', 0},
    {"examples", "examples behind the accuracy", 'r', 0},
    {"accuracy", "share of examples classified rightly, with its 95 % interval (Wilson)", 'r', 0},
    {"retention", "accuracy / accuracy of `dense` with the same weights and examples", 'r', 0},
    {"attention", "time inside attention for one pass over the timed inputs, all layers and heads, index building included; "
                  "median of the rounds with its 95 % interval, which takes at least 6 of them", 'r', 0},
    {"x vanilla", "how many times faster than `vanilla`, the paper's baseline (all scores in memory, OpenBLAS), timed round by round "
                  "beside it; 95 % interval", 'r', 1},
    {"x dense", "how many times faster than `dense`, the strongest exact attention here; below 1 it is slower; 95 % interval", 'r', 0},
    {"L2 error", "mean over rows of ||o - o_dense||, outputs of the attention for the same Q, K, V", 'r', 0},
    {"rel. L2", "||O - O_dense|| / ||O_dense||, the whole output", 'r', 0},
    {"mass", "share of the exact softmax mass on the keys the method used", 'r', 0},
    {"recall", "share of the exact top k among the keys the method used", 'r', 0},
    {"MiB", "memory of one attention call: plan, scratch, index", 'r', 0},
    {"note", "why there is no result, or what to know about the row", 'l', 0}};

/* --- cells ---------------------------------------------------------------------------------------------------------- */

typedef struct place { /* a row of the report and its row in the table */
  const report_rows *r;
  int row;
  report_table *t;
  int at;
} place;

static double value(const place *p, const char *column) { return report_rows_value(p->r, p->row, column); }
static const char *text(const place *p, const char *column) {
  const char *v = report_rows_text(p->r, p->row, column);
  return v ? v : "";
}

static void put(const place *p, int column, int decimals, double v) { report_table_number(p->t, p->at, column, decimals, v); }
/* A metric with its interval, counted in `unit`. */
static void put_metric(const place *p, int column, int decimals, const char *name, double unit) {
  char lo[64], hi[64];
  (void)snprintf(lo, sizeof lo, "%s_lo", name);
  (void)snprintf(hi, sizeof hi, "%s_hi", name);
  report_table_interval(p->t, p->at, column, decimals, 0, (stats_interval){value(p, name) / unit, value(p, lo) / unit, value(p, hi) / unit});
}
/* Errors: three digits whatever their size. */
static void put_error(const place *p, int column, double v) {
  if (v == 0) report_table_set(p->t, p->at, column, "0");
  else if (isfinite(v)) report_table_set(p->t, p->at, column, fabs(v) < 1e-3 ? "%.2e" : "%#.3g", v);
  p->t->number[p->at * COLUMNS + column] = v;
}
static int decimals_of(double v) { return v < 10 ? 2 : v < 100 ? 1 : 0; }

static void put_params(const place *p) {
  char *params = report_rows_params(p->r, p->row);
  if (params) report_table_set(p->t, p->at, PARAMETERS, "%s", params);
  else p->t->failed = 1;
  free(params);
}

/* --- groups --------------------------------------------------------------------------------------------------------- */

typedef struct group { /* rows [from, to) that share a table */
  const report_rows *r;
  int from, to;
  double unit;           /* nanoseconds in a unit of time */
  const char *unit_name;
  int time_decimals;
  char label[256];       /* the parts that are on every row: told once, above the table */
} group;

static void choose_unit(group *g) {
  static const struct {
    double ns;
    const char *name;
  } units[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}, {1, "ns"}};
  double least = INFINITY;
  for (int i = g->from; i < g->to; i++) least = fmin(least, report_rows_value(g->r, i, "attention_ns"));
  int u = 0;
  while (u < 3 && least < units[u].ns) u++;
  g->unit = units[u].ns, g->unit_name = units[u].name;
  g->time_decimals = isfinite(least) ? decimals_of(least / g->unit) : 0;
}

static int varies(const group *g, const char *column) { return report_rows_distinct(g->r, g->from, g->to, column, NULL, 0) > 1; }

/* A version is worth a column only where rows of one method have different ones. */
static int versions_vary(const group *g) {
  for (int i = g->from, k; i < g->to; i = k) {
    for (k = i + 1; k < g->to && !strcmp(report_rows_text(g->r, i, "method"), report_rows_text(g->r, k, "method"));) k++;
    if (report_rows_distinct(g->r, i, k, "method_version", NULL, 0) > 1) return 1;
  }
  return 0;
}

/* Status, shortage, label. A reason that is too long for the table is listed below it under a number. */
enum { LONGEST_REASON = 48 };
static int has_long_reason(const report_rows *r, int row) {
  const char *reason = report_rows_text(r, row, "reason");
  return reason && strlen(reason) > LONGEST_REASON;
}
static void put_note(const group *g, const place *p, int *reasons) {
  const char *reason = text(p, "reason");
  char label[256];
  const int ok = !strcmp(text(p, "status"), "ok"), partial = value(p, "partial") > 0;
  char why[LONGEST_REASON + 40] = "", shortage[64] = "";
  if (has_long_reason(p->r, p->row)) (void)snprintf(why, sizeof why, ": see (%d) below", ++*reasons);
  else if (*reason) (void)snprintf(why, sizeof why, ": %s", reason);
  if (partial) (void)snprintf(shortage, sizeof shortage, "partial%s%.20s%s", *text(p, "examples") ? ": " : "", text(p, "examples"),
                              *text(p, "examples") ? " examples" : "");
  report_label_parts(text(p, "label"), g->label, 0, label, sizeof label);
  if (ok && !*why && !partial && !*label) return;
  report_table_set(p->t, p->at, NOTE, "%s%s%s%s%s%s", ok ? "" : text(p, "status"), ok && *why ? why + 2 : why,
                   partial && (!ok || *why) ? "; " : "", shortage, *label && (!ok || *why || partial) ? "; " : "", label);
}

static void fill(const group *g, report_table *t) {
  const int length = varies(g, "length"), tokens = length || (config_shape_task(report_rows_text(g->r, g->from, "task")) && varies(g, "n"));
  const int splits = varies(g, "split"), seeds = varies(g, "seed"), examples = varies(g, "examples"), versions = versions_vary(g);
  int reasons = 0;
  for (int row = g->from; row < g->to; row++) {
    const place p = {.r = g->r, .row = row, .t = t, .at = row - g->from};
    t->row[p.at] = row;
    report_table_set(t, p.at, METHOD, "%s", text(&p, "method"));
    put_params(&p);
    if (versions) report_table_set(t, p.at, VERSION, "%s", text(&p, "method_version"));
    if (tokens) report_table_set(t, p.at, TOKENS, "%s", text(&p, "n"));
    if (length) report_table_set(t, p.at, LENGTH, "%s", text(&p, "length"));
    if (splits) report_table_set(t, p.at, SPLIT, "%s", text(&p, "split"));
    if (seeds) report_table_set(t, p.at, SEED, "%s", text(&p, "seed"));
    if (examples && *text(&p, "examples")) report_table_set(t, p.at, EXAMPLES, "%s", text(&p, "examples"));
    put_metric(&p, ACCURACY, 4, "accuracy", 1);
    put(&p, RETENTION, 4, value(&p, "retention"));
    put_metric(&p, ATTENTION, g->time_decimals, "attention_ns", g->unit);
    put_metric(&p, X_VANILLA, decimals_of(value(&p, "speedup_vanilla")), "speedup_vanilla", 1);
    put_metric(&p, X_DENSE, decimals_of(value(&p, "speedup_dense")), "speedup_dense", 1);
    put_error(&p, L2, value(&p, "l2_error"));
    put_error(&p, REL_L2, value(&p, "rel_l2_error"));
    put(&p, MASS, 4, value(&p, "mass"));
    put(&p, RECALL, 4, value(&p, "recall"));
    put(&p, MEMORY, decimals_of(value(&p, "peak_bytes") / 1048576.0), value(&p, "peak_bytes") / 1048576.0);
    put_note(g, &p, &reasons);
  }
}

/* "512 examples, 16 timed inputs, ..." of the rows of a group: what is known of it. */
static void add_fact(const group *g, FILE *f, const char *before, const char *column, const char *after) {
  char list[256];
  if (report_rows_distinct(g->r, g->from, g->to, column, list, sizeof list) > 0)
    (void)fprintf(f, "%s%s%s%s", ftell(f) ? ", " : "", before, list, after);
}

static int print_above(const group *g, const report_options *o, FILE *out, ice_err *e) {
  char *line = NULL;
  size_t n = 0;
  FILE *f = open_memstream(&line, &n);
  if (!f) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)fprintf(f, "%s: %s", report_rows_text(g->r, g->from, "experiment"), report_rows_text(g->r, g->from, "task"));
  (void)fclose(f);
  if (line) report_heading(out, o->format, line);
  free(line);
  line = NULL;
  if (!(f = open_memstream(&line, &n))) return ice_fail(e, ICE_INTERNAL, "out of memory");
  const int tensors = config_shape_task(report_rows_text(g->r, g->from, "task")) != NULL;
  add_fact(g, f, tensors ? "Tensors " : "Model ", "model", "");
  if (!tensors && !varies(g, "examples")) add_fact(g, f, "", "examples", " examples");
  if (!varies(g, "seed")) add_fact(g, f, "seed ", "seed", "");
  if (!tensors) add_fact(g, f, "", "timed_inputs", " timed inputs");
  if (!tensors && !varies(g, "length")) add_fact(g, f, "", "n", " tokens on average");
  else if (!varies(g, "n")) add_fact(g, f, "", "n", " tokens");
  add_fact(g, f, "", "layers", " layers");
  add_fact(g, f, "", "heads", " heads");
  add_fact(g, f, "head width ", "head_dim", "");
  add_fact(g, f, "", "threads", report_rows_value(g->r, g->from, "threads") > 1 ? " threads" : " thread");
  add_fact(g, f, "", "isa", "");
  if (*g->label) (void)fprintf(f, ". All rows: %s", g->label);
  (void)fputc('.', f);
  (void)fclose(f);
  if (line) report_paragraph(out, o->format, line);
  free(line);
  return ICE_OK;
}

static void print_reasons(const group *g, const report_table *t, const report_options *o, FILE *f) {
  int number = 0;
  for (int row = g->from; row < g->to; row++) {
    if (!has_long_reason(g->r, row)) continue;
    char name[256];
    if (number++ == 0) report_list_start(f, o->format);
    (void)snprintf(name, sizeof name, "(%d) %s %s", number, report_rows_text(g->r, row, "method"), t->cell[(row - g->from) * COLUMNS + PARAMETERS]);
    report_list_item(f, o->format, name, report_rows_text(g->r, row, "reason"));
  }
  if (number) report_list_end(f, o->format);
}

/* Prints one group and marks the columns it used. */
static int print_group(group *g, const report_options *o, int *used, FILE *f, ice_err *e) {
  report_table t;
  report_column named[COLUMNS];
  char head[32];
  choose_unit(g);
  report_rows_shared_label(g->r, g->from, g->to, g->label, sizeof g->label);
  memcpy(named, columns, sizeof named);
  (void)snprintf(head, sizeof head, "attention %s", g->unit_name);
  named[ATTENTION].head = head;
  int rc = report_table_create(&t, named, COLUMNS, g->to - g->from, e);
  if (rc == ICE_OK) fill(g, &t);
  if (rc == ICE_OK) rc = print_above(g, o, f, e);
  if (rc == ICE_OK) rc = report_table_print(&t, o->format, o->width, f, e);
  if (rc == ICE_OK) print_reasons(g, &t, o, f);
  for (int c = 0; rc == ICE_OK && c < COLUMNS; c++) used[c] |= report_table_used(&t, c);
  report_table_free(&t);
  return rc;
}

/* --- what the columns mean, where it was measured ------------------------------------------------------------------- */

/* Rows of the same machine and build. */
static int same_setting(const report_rows *r, int a, int b) {
  static const char *const keys[] = {"machine_id", "blas", "git_commit", "git_dirty", "compiler", "variant"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const char *x = report_rows_text(r, a, keys[i]), *y = report_rows_text(r, b, keys[i]);
    if (strcmp(x ? x : "", y ? y : "")) return 0;
  }
  return 1;
}

static void print_settings(const report_rows *r, const report_options *o, FILE *f) {
  for (int row = 0; row < r->n; row++) {
    int told = 0;
    for (int i = 0; i < row && !told; i++) told = same_setting(r, i, row);
    if (told) continue;
    const place p = {.r = r, .row = row};
    char line[1024];
    (void)snprintf(line, sizeof line, "%s, %s cores, %s, %.1f GiB, %s. BLAS: %s. Commit %.12s%s, %s build, %s", text(&p, "machine"), text(&p, "cores"),
                   text(&p, "caches"), value(&p, "memory_bytes") / 1073741824.0, text(&p, "os"), text(&p, "blas"), text(&p, "git_commit"),
                   value(&p, "git_dirty") > 0 ? " with local changes" : "", text(&p, "variant"), text(&p, "compiler"));
    report_list_item(f, o->format, "measured on", line);
  }
}

static int print_for_people(store *s, const report_rows *r, const report_pairs *pairs, const report_options *o, FILE *f, ice_err *e) {
  int used[COLUMNS] = {0}, used_of_pairs[PAIRS_COLUMNS] = {0};
  report_document_start(f, o->format);
  for (int from = 0, to, number = 0; from < r->n; from = to) {
    to = report_rows_group_end(r, from);
    group g = {.r = r, .from = from, .to = to};
    report_section_start(f, o->format, number++);
    ICE_TRY(print_group(&g, o, used, f, e));
    ICE_TRY(report_pairs_print(r, pairs, from, to, o, used_of_pairs, f, e));
    report_section_end(f, o->format);
  }
  report_list_start(f, o->format);
  for (int c = 0; c < COLUMNS; c++)
    if (used[c]) report_list_item(f, o->format, columns[c].head, columns[c].legend);
  report_pairs_legend(used_of_pairs, o, f);
  print_settings(r, o, f);
  report_list_end(f, o->format);
  if (o->format == REPORT_HTML) ICE_TRY(report_html_data(s, r, o->experiment, f, e));
  report_document_end(f, o->format);
  return ICE_OK;
}

/* --- all of it ------------------------------------------------------------------------------------------------------ */

static int print(store *s, const report_rows *r, const report_options *o, FILE *f, ice_err *e) {
  report_pairs pairs;
  if (o->format == REPORT_CSV) return report_records_csv(r, f), ICE_OK;
  int rc = report_pairs_read(s, r, &pairs, e);
  if (rc == ICE_OK) rc = o->format == REPORT_JSON ? report_records_json(r, &pairs, f, e) : print_for_people(s, r, &pairs, o, f, e);
  report_pairs_free(&pairs);
  return rc;
}

int report_write(store *s, const report_options *o, FILE *f, ice_err *e) {
  report_rows r;
  int rc = report_rows_read(s, o->experiment, &r, e);
  if (rc == ICE_OK && r.n == 0 && o->experiment)
    rc = ice_fail(e, ICE_NO_VERDICT, "no results of experiment '%s' in the database; icebench run makes them", o->experiment);
  else if (rc == ICE_OK && r.n == 0) rc = ice_fail(e, ICE_NO_VERDICT, "no results in the database; icebench run makes them");
  if (rc == ICE_OK) rc = print(s, &r, o, f, e);
  report_rows_free(&r);
  return rc;
}
