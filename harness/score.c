/* score.c - see score.h */
#include "harness/score.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/prompt.h"
#include "harness/cli.h"
#include "harness/number.h"
#include "harness/stats.h"
#include "kernels/core/fileio.h"

enum { LEADERBOARD = 10 };
static const char *const leaderboard[LEADERBOARD] = {"gov_report", "summ_screen_fd", "qmsum",   "squality",     "qasper",
                                                     "narrative_qa", "quality",      "musique", "space_digest", "book_sum_sort"};

/* Place of a task among the ten; -1: none of them. */
static int place_of(const char *name) {
  for (int i = 0; i < LEADERBOARD; i++)
    if (!strncmp(name, "zeroscrolls/", 12) && !strcmp(name + 12, leaderboard[i])) return i;
  return -1;
}

/* ---- Reading. */

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for marks"); }
static double real(const char *text) { return text ? strtod(text, NULL) : NAN; }
static int64_t whole(const char *text) { return text ? strtoll(text, NULL, 10) : 0; }
static char *copy(const char *text, int *failed) {
  char *out = text ? strdup(text) : NULL;
  *failed |= text && !out;
  return out;
}

void score_free(score *m) {
  for (score_row *r = m->row; m->row && r < m->row + m->n; r++) {
    for (int i = 0; i < r->n_answers; i++) free((char *)(uintptr_t)r->answer[i].id), free((char *)(uintptr_t)r->answer[i].text), free((char *)(uintptr_t)r->answer[i].expected);
    free(r->answer), free(r->task), free(r->model), free(r->method), free(r->params), free(r->label);
  }
  free(m->row);
  *m = (score){0};
}

typedef struct reader {
  score *m;
  score_row *row;
  const char *filter;
  int failed;
  int64_t hits, predictions;
} reader;

/* Does a row match KEY=VALUE,...? The keys were checked before. */
static int matches(const char *filter, const score_row *r) {
  char seed[24], want[512];
  (void)snprintf(seed, sizeof seed, "%" PRIu64, r->seed);
  for (const char *at = filter; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
    const size_t key = strcspn(at, "=");
    (void)snprintf(want, sizeof want, "%.*s", (int)strcspn(at + key + 1, ","), at + key + 1);
    const char *is = !strncmp(at, "task", key) ? r->task : !strncmp(at, "model", key) ? r->model : !strncmp(at, "method", key) ? r->method : seed;
    if (strcmp(is, want)) return 0;
  }
  return 1;
}

static int check_filter(const char *filter, ice_err *e) {
  static const char *const known[] = {"task", "model", "method", "seed"};
  for (const char *at = filter; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
    const size_t key = strcspn(at, "=,");
    int found = 0;
    for (int i = 0; i < 4; i++) found |= strlen(known[i]) == key && !strncmp(at, known[i], key);
    if (!found || at[key] != '=') return ice_fail(e, ICE_USAGE, "--filter %s: allowed KEY=VALUE,... with the keys task, model, method, seed", filter);
  }
  return ICE_OK;
}

static int take_cell(void *ctx, int columns, char **names, char **v) {
  reader *in = ctx;
  score *m = in->m;
  (void)columns, (void)names;
  in->failed = 1;
  if (m->n == m->room) {
    score_row *grown = realloc(m->row, (size_t)(m->room + 64) * sizeof *grown);
    if (!grown) return 1;
    m->row = grown, m->room += 64;
  }
  score_row *r = m->row + m->n++;
  int failed = 0;
  *r = (score_row){.id = whole(v[0]), .seed = v[5] ? strtoull(v[5], NULL, 10) : 0, .length = whole(v[6]), .examples = whole(v[10]), .partial = whole(v[12]),
                   .stored = {"accuracy", real(v[7]), real(v[8]), real(v[9])}};
  r->task = copy(v[1], &failed), r->model = copy(v[2], &failed), r->method = copy(v[3], &failed), r->params = copy(v[4], &failed);
  r->label = copy(v[11], &failed);
  if (!failed && !matches(in->filter, r)) {
    const score one = {.row = r, .n = 1};
    free(one.row->task), free(one.row->model), free(one.row->method), free(one.row->params), free(one.row->label);
    m->n--;
  }
  in->failed = failed;
  return failed;
}

static int take_answer(void *ctx, int columns, char **names, char **v) {
  reader *in = ctx;
  score_row *r = in->row;
  (void)columns, (void)names;
  store_answer *grown = r->n_answers % 64 ? r->answer : realloc(r->answer, (size_t)(r->n_answers + 64) * sizeof *grown);
  in->failed = !grown;
  if (!grown) return 1;
  r->answer = grown;
  grown[r->n_answers++] = (store_answer){.item = whole(v[0]), .id = copy(v[1], &in->failed), .text = copy(v[2], &in->failed), .expected = copy(v[3], &in->failed),
                                         .tokens = whole(v[4]), .cut = whole(v[5]), .mark = real(v[6])};
  return in->failed;
}

/* Triples of 24 hexadecimal digits: item, expected, predicted, little-endian. */
static int take_predictions(void *ctx, int columns, char **names, char **v) {
  reader *in = ctx;
  (void)columns, (void)names;
  for (const char *at = v[0]; at && strlen(at) >= 24; at += 24, in->predictions++) in->hits += !memcmp(at + 8, at + 16, 8);
  return 1;
}

/* Numbers come out of the database as text of 15 digits. */
static int same(double a, double b) { return (!isfinite(a) && !isfinite(b)) || fabs(a - b) < 1e-9; }

static int mark_answers(score_row *r, answer_mark mark, ice_err *e) {
  marks m = {.mark = mark};
  int rc = ICE_OK;
  for (int i = 0; rc == ICE_OK && i < r->n_answers; i++) {
    double total;
    rc = marks_add_json(&m, r->answer[i].text, r->answer[i].expected, &total, e);
    r->differs |= !same(total, r->answer[i].mark);
    r->answer[i].mark = total;
  }
  if (rc == ICE_OK) r->n_metrics = marks_metrics(&m, r->seed, r->metric);
  r->answers = m.n;
  marks_free(&m);
  return rc;
}

/* Marks a row: from its answers, or of tasks of classes from its predictions. */
static int mark_row(store *s, score_row *r, ice_err *e) {
  char id[24];
  const char *bind[] = {id};
  reader in = {.row = r};
  const task *t = task_find(r->task, NULL);
  (void)snprintf(id, sizeof id, "%" PRId64, r->id);
  ICE_TRY(store_query(s, "SELECT item, id, text, expected, tokens, cut, mark FROM answer WHERE cell_id = CAST(?1 AS INTEGER) ORDER BY item", bind, 1, take_answer, &in, e));
  if (in.failed) return no_memory(e);
  if (r->n_answers && t && t->prompts) ICE_TRY(mark_answers(r, t->prompts->mark, e));
  if (!r->n_answers) {
    ICE_TRY(store_query(s, "SELECT hex(data) FROM prediction WHERE cell_id = CAST(?1 AS INTEGER)", bind, 1, take_predictions, &in, e));
    const stats_interval w = stats_wilson(in.hits, in.predictions);
    if (in.predictions) r->metric[r->n_metrics++] = (store_metric){"accuracy", w.value, w.lo, w.hi};
    r->answers = in.predictions;
  }
  const store_metric *now = r->metric, *was = &r->stored;
  if (r->n_metrics) r->differs |= !same(now->value, was->value) || !same(now->lo, was->lo) || !same(now->hi, was->hi);
  return ICE_OK;
}

int score_read(store *s, const char *experiment, const char *filter, score *out, ice_err *e) {
  const char *bind[] = {experiment};
  reader in = {.m = out, .filter = filter};
  *out = (score){0};
  ICE_TRY(check_filter(filter, e));
  int rc = store_query(s,
                       "SELECT c.id, c.task, c.model, c.method, c.params, c.seed, l.value, a.value, a.lo, a.hi, c.examples, c.label, c.partial FROM cell c "
                       "LEFT JOIN metric a ON a.cell_id = c.id AND a.name = 'accuracy' LEFT JOIN metric l ON l.cell_id = c.id AND l.name = 'length' "
                       "WHERE c.experiment = ?1 AND c.status = 'ok' AND (EXISTS (SELECT 1 FROM answer x WHERE x.cell_id = c.id) OR "
                       "EXISTS (SELECT 1 FROM prediction p WHERE p.cell_id = c.id)) ORDER BY c.model, c.method, c.params, c.seed, c.task, l.value, c.id",
                       bind, 1, take_cell, &in, e);
  if (rc == ICE_OK && in.failed) rc = no_memory(e);
  for (int i = 0; rc == ICE_OK && i < out->n; i++) rc = mark_row(s, out->row + i, e);
  if (rc == ICE_OK && !out->n)
    rc = ice_fail(e, ICE_NO_VERDICT, "experiment '%s' has no finished rows with answers%s%s; icebench run makes them", experiment, filter ? " that match " : "",
                  filter ? filter : "");
  if (rc != ICE_OK) score_free(out);
  return rc;
}

int score_write(store *s, const score *m, int *changed, ice_err *e) {
  *changed = 0;
  for (const score_row *r = m->row; r < m->row + m->n; r++) {
    if (!r->differs) continue;
    ICE_TRY(store_remark(s, r->id, r->metric, r->n_metrics, r->answer, r->n_answers, e));
    ++*changed;
  }
  return ICE_OK;
}

/* ---- Groups: rows of one model, method, parameters and seed are neighbours. */

static int same_group(const score_row *a, const score_row *b) {
  return !strcmp(a->model, b->model) && !strcmp(a->method, b->method) && !strcmp(a->params, b->params) && a->seed == b->seed;
}
static int group_end(const score *m, int from) {
  int to = from;
  while (to < m->n && same_group(m->row + from, m->row + to)) to++;
  return to;
}

/* Mean score of the tasks of ZeroSCROLLS in rows [from, to), in per cent; *n of the ten have one. */
static double average(const score *m, int from, int to, int *n) {
  double sum = 0;
  int seen[LEADERBOARD] = {0};
  *n = 0;
  for (int i = from; i < to; i++) {
    const int place = place_of(m->row[i].task);
    if (place < 0 || seen[place] || !m->row[i].n_metrics) continue;
    seen[place] = 1;
    sum += 100 * m->row[i].metric[0].value;
    ++*n;
  }
  return *n ? sum / *n : NAN;
}

/* ---- Printing. */

static void print_row(const score_row *r, FILE *f) {
  char size[48] = "", interval[64] = "";
  const task *t = task_find(r->task, NULL);
  if (r->length) (void)snprintf(size, sizeof size, " %" PRId64 " %s", r->length, t && t->prompts && t->prompts->length_of ? t->prompts->length_of : "");
  if (!r->n_metrics) {
    (void)fprintf(f, "%s%s: no marks: %d answers, no right ones known%s%s\n", r->task, size, r->n_answers, r->label ? "; " : "", r->label ? r->label : "");
    return;
  }
  const store_metric *a = r->metric;
  if (isfinite(a->lo)) (void)snprintf(interval, sizeof interval, " [%.4f, %.4f]", a->lo, a->hi);
  (void)fprintf(f, "%s%s: %s %.4f%s of %" PRId64, r->task, size, t ? t->metric : "accuracy", a->value, interval, r->answers);
  for (int i = 1; i < r->n_metrics; i++) (void)fprintf(f, ", %s %.4f", r->metric[i].name, r->metric[i].value);
  if (r->differs && isfinite(r->stored.value)) (void)fprintf(f, "; the database has %.4f", r->stored.value);
  (void)fprintf(f, "%s%s\n", r->label ? "; " : "", r->label ? r->label : "");
}

void score_print(const score *m, FILE *f) {
  for (int from = 0, to; from < m->n; from = to) {
    int n;
    to = group_end(m, from);
    (void)fprintf(f, "%s, %s %s, seed %" PRIu64 "\n", m->row[from].model, m->row[from].method, m->row[from].params, m->row[from].seed);
    for (int i = from; i < to; i++) {
      (void)fputs("  ", f);
      print_row(m->row + i, f);
    }
    const double mean = average(m, from, to, &n);
    if (n) (void)fprintf(f, "  ZeroSCROLLS average %.2f, of %d of the %d tasks\n", mean, n, LEADERBOARD);
  }
}

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *row_json(const score_row *r) {
  json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:b, s:o}", "task", r->task, "model", r->model, "method", r->method, "params",
                        json_loads(r->params, 0, NULL), "length", r->length ? json_integer(r->length) : json_null(), "answers", (json_int_t)r->n_answers, "marked",
                        (json_int_t)r->answers, "differs", r->differs, "stored", number(r->stored.value));
  for (int i = 0; o && i < r->n_metrics; i++) (void)json_object_set_new(o, r->metric[i].name, number(r->metric[i].value));
  if (o) (void)json_object_set_new(o, "accuracy_lo", number(r->n_metrics ? r->metric[0].lo : NAN));
  if (o) (void)json_object_set_new(o, "accuracy_hi", number(r->n_metrics ? r->metric[0].hi : NAN));
  return o;
}

int score_print_json(const score *m, ice_err *e) {
  json_t *rows = json_array(), *averages = json_array();
  for (int i = 0; i < m->n; i++) (void)json_array_append_new(rows, row_json(m->row + i));
  for (int from = 0, to, n; from < m->n; from = to) {
    to = group_end(m, from);
    const double mean = average(m, from, to, &n);
    if (n) (void)json_array_append_new(averages, json_pack("{s:s, s:s, s:f, s:i}", "model", m->row[from].model, "method", m->row[from].method, "zeroscrolls", mean, "tasks", n));
  }
  const int complete = json_array_size(rows) == (size_t)m->n;
  json_t *o = json_pack("{s:o, s:o}", "rows", rows, "averages", averages);
  if (complete) return cli_print_json(o, e);
  json_decref(o);
  return no_memory(e);
}

/* ---- For the leaderboard. */

/* A field of CSV; always in quotes, so that empty answers survive. */
static void put_field(const char *text, FILE *f) {
  (void)fputc('"', f);
  for (; *text; text++) {
    if (*text == '"') (void)fputc('"', f);
    (void)fputc(*text, f);
  }
  (void)fputc('"', f);
}

int score_submission(const score *m, const char *path, int *absent, ice_err *e) {
  const score_row *first = NULL, *of[LEADERBOARD] = {NULL};
  file_out o;
  *absent = LEADERBOARD;
  for (const score_row *r = m->row; r < m->row + m->n; r++) {
    const int place = place_of(r->task);
    if (place < 0) continue;
    if (first && !same_group(first, r))
      return ice_fail(e, ICE_USAGE, "--submission: rows of %s, %s and of %s, %s; choose one with --filter method=...,model=...,seed=...", first->model, first->method,
                      r->model, r->method);
    if (!first) first = r;
    if (of[place] && of[place]->n_answers >= r->n_answers) continue;
    of[place] = r;
  }
  if (!first) return ice_fail(e, ICE_NO_VERDICT, "--submission: none of the tasks of ZeroSCROLLS among the rows");
  ICE_TRY(file_out_open(&o, path, e));
  (void)fputs("Task,ID,Prediction\n", o.stream);
  for (int i = 0; i < LEADERBOARD; i++) {
    for (int k = 0; of[i] && k < of[i]->n_answers; k++) {
      (void)fprintf(o.stream, "%s,", leaderboard[i]);
      put_field(of[i]->answer[k].id, o.stream);
      (void)fputc(',', o.stream);
      put_field(of[i]->answer[k].text, o.stream);
      (void)fputc('\n', o.stream);
    }
    *absent -= of[i] && !of[i]->partial;
  }
  return file_out_commit(&o, e);
}
