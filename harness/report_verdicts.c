/* report_verdicts.c - see report_verdicts.h */
#include "harness/report_verdicts.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report_records.h"
#include "harness/report_table.h"

/* --- for people ------------------------------------------------------------------------------------------------------- */

static void put_times(report_table *t, int row, int column, stats_interval x) {
  report_table_interval(t, row, column, x.value < 10 ? 2 : 1, 0, x);
}
static void put_ms(report_table *t, int row, int column, stats_interval ns) {
  report_table_interval(t, row, column, 1, 0, (stats_interval){ns.value / 1e6, ns.lo / 1e6, ns.hi / 1e6});
}

enum { TASK, VANILLA_PADDED, VANILLA, SKIP, X_VANILLA, X_DENSE, TOGETHER, PUBLISHED_X, RETENTION, SHARE_COLUMNS };
static const report_column share_column[SHARE_COLUMNS] = {
    {"task", "the paper's; (in brackets the task of our rows, a stand-in)", 'l', 0},
    {"vanilla, padding computed, ms", "attention of the timed inputs, with padding up to the model's length as the PyTorch baselines have it", 'r', 0},
    {"skipped, ms", "the same without padding", 'r', 0},
    {"x by skipping", "how many times faster vanilla becomes by skipping padding alone, both timed round by round", 'r', 0},
    {"iceformer x vanilla", "both without padding", 'r', 1},
    {"x dense", "the same against the strongest exact attention here", 'r', 0},
    {"together", "x by skipping times x vanilla: the speed-up as it was published", 'r', 1},
    {"published", "Transformer / IceFormer, from the bars of the project page", 'r', 0},
    {"retention", "accuracy / accuracy of dense on the same examples, 95 % interval of paired proportions (Bonett & Price 2006); published: 0.986 on average", 'r', 0}};

static int print_shares(const paper_task task[PAPER_TASKS], const report_options *o, FILE *f, ice_err *e) {
  report_table t;
  int rc = report_table_create(&t, share_column, SHARE_COLUMNS, PAPER_TASKS, e);
  for (int i = 0; rc == ICE_OK && i < PAPER_TASKS; i++) {
    const paper_task *p = task + i;
    if (p->on == p->task) report_table_set(&t, i, TASK, "%s", p->task);
    else report_table_set(&t, i, TASK, "%s (%s)", p->task, p->on);
    put_ms(&t, i, VANILLA_PADDED, p->vanilla_padded);
    put_ms(&t, i, VANILLA, p->vanilla);
    put_times(&t, i, SKIP, p->skip);
    put_times(&t, i, X_VANILLA, p->vanilla_x);
    put_times(&t, i, X_DENSE, p->dense_x);
    put_times(&t, i, TOGETHER, p->together);
    report_table_number(&t, i, PUBLISHED_X, 1, p->published);
    report_table_interval(&t, i, RETENTION, 3, 0, p->retention);
  }
  if (rc == ICE_OK) {
    report_heading(f, o->format, "IceFormer's speed-up, and what it is made of");
    rc = report_table_print(&t, o->format, o->width, f, e);
  }
  report_table_free(&t);
  return rc;
}

/* What is compared, for people and in records. */
static const char *measure_of(const paper_value *v) {
  static const char *const name[][2] = {{"attention_s", "x vanilla"}, {"memory_gb", "memory"}, {"speedup", "mean x vanilla"}, {"retention", "mean retention"}};
  for (int i = 0; i < 4; i++)
    if (!strcmp(v->metric, name[i][0])) return name[i][1];
  return v->metric;
}

enum { METHOD, MODEL, MEASURE, SOURCE, PUBLISHED, OURS, RATIO, VERDICT, NOTE, COLUMNS };
static const report_column column[COLUMNS] = {
    {"method", "the attention; `vanilla` is the paper's Transformer", 'l', 0},
    {"model", "what the model was trained with: softmax, softmax with shared queries and keys, or the method itself", 'l', 0},
    {"compared", "x vanilla: times faster than vanilla; memory: more than vanilla, GB of a process (published), MiB of one call (ours)", 'l', 0},
    {"source", "where the value was published, see below", 'l', 0},
    {"published", "as compared: a ratio of published seconds, an accuracy, a difference of gigabytes", 'r', 0},
    {"ours", "with its 95 % interval", 'r', 0},
    {"ratio", "ours / published", 'r', 0},
    {"verdict", "reproduced: our interval reaches published x/÷ 1.25 (speed-ups; more is fine for iceformer), published +- 0.02 (accuracy), the "
                "sign (memory), the value itself (mean retention). differs: it does not. not runnable here: for the reason in the note", 'l', 0},
    {"note", "why not, and what to know of the row", 'l', 0}};

static void put_verdict(const paper_verdict *v, report_table *t, int row) {
  const int memory = !strcmp(v->of->metric, "memory_gb"), accuracy = !strcmp(v->of->metric, "accuracy") || !strcmp(v->of->metric, "retention");
  const int decimals = accuracy ? 4 : 2;
  report_table_set(t, row, METHOD, "%s", v->of->method);
  report_table_set(t, row, MODEL, "%s", v->of->model);
  report_table_set(t, row, MEASURE, "%s", measure_of(v->of));
  report_table_set(t, row, SOURCE, "%s", v->of->source);
  if (memory && isfinite(v->published)) report_table_set(t, row, PUBLISHED, "%+.2f GB", v->published);
  else report_table_number(t, row, PUBLISHED, decimals, v->published);
  if (memory && isfinite(v->ours)) report_table_set(t, row, OURS, "%+.1f MiB", v->ours);
  else report_table_interval(t, row, OURS, decimals, 0, (stats_interval){v->ours, v->lo, v->hi});
  report_table_number(t, row, RATIO, 2, v->ratio);
  report_table_set(t, row, VERDICT, "%s", paper_outcome_text(v->outcome));
  if (v->partial) report_table_set(t, row, NOTE, "partial: %lld examples%s%s", (long long)v->examples, *v->why ? "; " : "", v->why);
  else if (*v->why) report_table_set(t, row, NOTE, "%s", v->why);
}

/* The verdicts of one task, or those over all. */
static int print_task(const paper_verdict *v, int n, const char *task, const report_options *o, FILE *f, ice_err *e) {
  report_table t;
  char line[128];
  int rc = report_table_create(&t, column, COLUMNS, n, e);
  t.rows = 0;
  for (int i = 0; rc == ICE_OK && i < n; i++)
    if (!strcmp(v[i].of->task, task)) put_verdict(v + i, &t, t.rows++);
  (void)snprintf(line, sizeof line, "%s against published values", task);
  if (rc == ICE_OK) report_heading(f, o->format, line);
  if (rc == ICE_OK) rc = report_table_print(&t, o->format, o->width, f, e);
  t.rows = n;
  report_table_free(&t);
  return rc;
}

static void print_counts(const paper_verdict *v, int n, const report_options *o, FILE *f) {
  int count[3] = {0};
  char line[256];
  for (int i = 0; i < n; i++) count[v[i].outcome]++;
  (void)snprintf(line, sizeof line, "%d published values: %d reproduced, %d differ, %d not runnable here.", n, count[PAPER_REPRODUCED],
                 count[PAPER_DIFFERS], count[PAPER_NOT_HERE]);
  report_paragraph(f, o->format, line);
}

static int print_for_people(const report_paper *p, const paper_verdict *v, const paper_task task[PAPER_TASKS], const report_options *o, FILE *f,
                            ice_err *e) {
  report_document_start(f, o->format);
  print_counts(v, p->n, o, f);
  ICE_TRY(print_shares(task, o, f, e));
  for (int i = 0; i < p->n; i++) {
    int told = 0;
    for (int k = 0; k < i && !told; k++) told = !strcmp(v[k].of->task, v[i].of->task);
    if (!told) ICE_TRY(print_task(v, p->n, v[i].of->task, o, f, e));
  }
  report_list_start(f, o->format);
  for (int c = 0; c < SHARE_COLUMNS; c++) report_list_item(f, o->format, share_column[c].head, share_column[c].legend);
  for (int c = 0; c < COLUMNS; c++) report_list_item(f, o->format, column[c].head, column[c].legend);
  for (int i = 0; i < p->notes; i++) report_list_item(f, o->format, i ? NULL : "sources", p->note[i]);
  report_list_end(f, o->format);
  report_document_end(f, o->format);
  return ICE_OK;
}

/* --- records ---------------------------------------------------------------------------------------------------------- */

static json_t *record(const paper_verdict *v) {
  return json_pack("{s:s, s:s, s:s, s:s, s:o, s:f, s:o, s:o, s:o, s:o, s:s, s:s, s:I, s:b, s:s}", "task", v->of->task, "method", v->of->method,
                   "model", v->of->model, "compared", measure_of(v->of), "published", report_record_number(v->published), "reading_error", v->of->error,
                   "ours", report_record_number(v->ours), "ours_lo", report_record_number(v->lo), "ours_hi", report_record_number(v->hi), "ratio", report_record_number(v->ratio), "verdict",
                   paper_outcome_text(v->outcome), "note", v->why, "examples", (json_int_t)v->examples, "partial", v->partial, "source",
                   v->of->source);
}

static void print_field(FILE *f, const json_t *v) {
  if (json_is_integer(v)) (void)fprintf(f, "%lld", (long long)json_integer_value(v));
  if (json_is_real(v)) (void)fprintf(f, "%.6g", json_real_value(v));
  if (json_is_boolean(v)) (void)fputs(json_is_true(v) ? "1" : "0", f);
  report_records_csv_field(f, json_string_value(v));
}

/* Objects that all have the same keys, in the same order. */
static void print_csv(const json_t *all, FILE *f) {
  for (size_t i = 0; i <= json_array_size(all); i++) {
    json_t *row = json_array_get(all, i ? i - 1 : 0), *value;
    const char *key, *between = "";
    json_object_foreach(row, key, value) {
      (void)fputs(between, f);
      if (i == 0) (void)fputs(key, f);
      else print_field(f, value);
      between = ",";
    }
    (void)fputc('\n', f);
  }
}

static int print_records(const report_paper *p, const paper_verdict *v, const report_options *o, FILE *f, ice_err *e) {
  json_t *all = json_array();
  int failed = !all;
  for (int i = 0; i < p->n && !failed; i++) failed = json_array_append_new(all, record(v + i)) != 0;
  if (!failed && o->format == REPORT_CSV) print_csv(all, f);
  if (!failed && o->format == REPORT_JSON) failed = json_dumpf(all, f, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) != 0 || fputc('\n', f) == EOF;
  json_decref(all);
  return failed ? ice_fail(e, ICE_INTERNAL, "the report could not be written") : ICE_OK;
}

/* --- all of it -------------------------------------------------------------------------------------------------------- */

static int check_experiment(store *s, const char *name, ice_err *e) {
  report_rows r;
  int rc = name ? report_rows_select(s, "SELECT 1 AS there FROM cell WHERE experiment = ?1 LIMIT 1", &name, 1, &r, e) : ICE_OK;
  if (!name) return ICE_OK;
  if (rc == ICE_OK && r.n == 0) rc = ice_fail(e, ICE_NO_VERDICT, "no results of experiment '%s' in the database; icebench run makes them", name);
  report_rows_free(&r);
  return rc;
}

int report_verdicts_write(store *s, const report_options *o, const char *published, FILE *f, ice_err *e) {
  report_paper p;
  paper_task task[PAPER_TASKS];
  paper_verdict *v = NULL;
  int rc = report_paper_parse(published, &p, e);
  if (rc == ICE_OK && !(v = calloc((size_t)p.n + 1, sizeof *v))) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) rc = check_experiment(s, o->experiment, e);
  if (rc == ICE_OK) rc = report_paper_judge(s, &p, o->experiment, v, task, e);
  if (rc == ICE_OK)
    rc = o->format == REPORT_CSV || o->format == REPORT_JSON ? print_records(&p, v, o, f, e) : print_for_people(&p, v, task, o, f, e);
  free(v);
  report_paper_free(&p);
  return rc;
}
