/* cmd_explain.c - verb `explain`: one row of the database, taken apart by layers and heads. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cell.h"
#include "harness/cli.h"
#include "harness/config_shape.h"
#include "harness/explain.h"
#include "harness/explain_print.h"
#include "harness/number.h"
#include "harness/registry/registry.h"
#include "harness/report_rows.h"
#include "harness/run.h"
#include "harness/store_digest.h"
#include "kernels/core/alloc.h"
#include "kernels/core/fileio.h"

typedef struct request {
  const char *experiment, *filter, *vary, *by, *out;
  long long look, prove, threads;
  int json, quiet;
} request;

/* ---- The row. */

enum { COLUMNS = 4 };
static const char *const columns[COLUMNS] = {"task", "model", "method", "seed"};

/* Has the row this key, a column or a parameter, with this value? */
static int has(const report_rows *r, int row, const char *key, const char *value) {
  char text[64];
  for (int i = 0; i < COLUMNS; i++)
    if (!strcmp(columns[i], key)) return !strcmp(report_rows_text(r, row, key), value);
  json_t *params = json_loads(report_rows_text(r, row, "params"), 0, NULL);
  const json_t *v = json_object_get(params, key);
  number_print(json_number_value(v), text, sizeof text);
  const int same = json_is_string(v) ? !strcmp(json_string_value(v), value) : json_is_number(v) && !strcmp(text, value);
  json_decref(params);
  return same;
}

/* ICE_USAGE when the key is neither a column nor a parameter of a method that has rows. */
static int check_key(const report_rows *r, const char *filter, const char *key, ice_err *e) {
  enum { NAMES = 256 };
  const char *names[NAMES];
  char near[200];
  int n = 0, known = 0;
  for (int i = 0; i < COLUMNS; i++) names[n++] = columns[i];
  for (int row = 0; row < r->n; row++) {
    const attn_method *m = registry_find(report_rows_text(r, row, "method"), NULL);
    const int again = row && !strcmp(report_rows_text(r, row, "method"), report_rows_text(r, row - 1, "method"));
    for (const attn_param *p = m && !again ? m->params : NULL; p && p->key && n < NAMES; p++) names[n++] = p->key;
  }
  for (int i = 0; i < n; i++) known |= !strcmp(names[i], key);
  if (known) return ICE_OK;
  registry_suggest(key, names, n, near, sizeof near);
  near[strcspn(near, ",")] = 0;
  return ice_fail(e, ICE_USAGE, "--filter %s: unknown key '%s'%s%s%s, allowed task, model, method, seed, or a parameter of a method that has rows", filter, key,
                  *near ? ", did you mean " : "", near, *near ? "?" : "");
}

/* Does the row agree with all of KEY=VALUE,...? */
static int chosen(const report_rows *r, int row, const char *filter, int *agrees, ice_err *e) {
  char *copy = strdup(filter ? filter : ""), *at = copy;
  int rc = copy ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  *agrees = 1;
  for (char *pair; filter && rc == ICE_OK && (pair = strsep(&at, ",")) != NULL;) {
    char *value = strchr(pair, '=');
    if (!value) {
      rc = ice_fail(e, ICE_USAGE, "--filter %s: '%s' is no KEY=VALUE, as in method=iceformer,k=20", filter, pair);
      break;
    }
    *value++ = '\0';
    rc = check_key(r, filter, pair, e);
    *agrees &= has(r, row, pair, value);
  }
  free(copy);
  return rc;
}

/* Can its method be taken apart? Approximate, of this program, without tensors of its own. */
static int approximate(const report_rows *r, int row) {
  const attn_method *m = registry_find(report_rows_text(r, row, "method"), NULL);
  return m && !(m->caps & ATTN_CAP_EXACT) && !m->learned;
}

/* The row that agrees and has the largest error; iceformer goes first when nobody asks for another. */
static int find_row(const report_rows *r, const request *q, int *found, ice_err *e) {
  double worst = -1.0;
  *found = -1;
  for (int i = 0; i < r->n; i++) {
    int agrees;
    ICE_TRY(chosen(r, i, q->filter, &agrees, e));
    if (!agrees || !approximate(r, i)) continue;
    const double error = report_rows_value(r, i, "rel_l2_error");
    const double rank = (isfinite(error) ? error : 0.0) + (!q->filter && !strcmp(report_rows_text(r, i, "method"), "iceformer") ? 1e6 : 0.0);
    if (rank > worst) worst = rank, *found = i;
  }
  if (*found >= 0) return ICE_OK;
  return r->n ? ice_fail(e, ICE_NO_VERDICT, "experiment '%s': no finished row%s%s has an approximate method", q->experiment, q->filter ? " with " : "",
                         q->filter ? q->filter : "")
              : ice_fail(e, ICE_NO_VERDICT, "no finished rows of experiment '%s' in the database; icebench run makes them", q->experiment);
}

static int read_rows(const char *db, const request *q, report_rows *r, ice_err *e) {
  store *s;
  *r = (report_rows){0};
  ICE_TRY(store_open(db, STORE_READ, &s, e));
  int rc = store_verify(s, q->experiment, 0, e);
  if (rc == ICE_OK)
    rc = report_rows_select(s,
                              "SELECT c.task, c.model, c.method, c.params, c.seed, c.config, c.threads, c.model_hash, m.rel_l2_error FROM cell c "
                              "LEFT JOIN metrics m ON m.cell_id = c.id WHERE c.status = 'ok' AND c.experiment = ?1 ORDER BY c.id",
                              &q->experiment, 1, r, e);
  store_close(s);
  return rc;
}

/* ---- What is to be explained. */

typedef struct subject { /* a row, brought back to life */
  explain_options o;
  explain_names names;
  encoder model;
  void *params;
  head_schedule schedule;
  json_t *config;
} subject;

static int open_model(subject *s, const report_rows *r, int row, ice_err *e) {
  run_model found;
  const char *name = report_rows_text(r, row, "model"), *hash = report_rows_text(r, row, "model_hash");
  ICE_TRY(run_model_open(&found, s->o.task, name, 0, e));
  if (hash && strcmp(hash, found.hash)) return ice_fail(e, ICE_DATA, "model %s has changed since the row was measured (%s, now %s)", name, hash, found.hash);
  return encoder_load(&s->model, found.path, e);
}

/* The parameter of the schedules. One schedule sets one parameter. */
static int choose_vary(subject *s, const request *q, ice_err *e) {
  json_t *params = json_loads(s->names.params, 0, NULL), *value;
  const json_t *schedule = json_object_get(params, "schedule");
  const char *key;
  int rc = ICE_OK;
  s->o.vary = registry_param(s->o.method, q->vary ? q->vary : "k", e);
  if (!s->o.vary || s->o.vary->type == ATTN_P_CHOICE)
    rc = ice_fail(e, ICE_USAGE, "--vary %s: %s has no such parameter that is a number; icebench show %s lists them", q->vary ? q->vary : "k",
                  s->o.method->name, s->o.method->name);
  json_object_foreach((json_t *)(uintptr_t)schedule, key, value)
    if (rc == ICE_OK && strcmp(key, s->o.vary->key))
      rc = ice_fail(e, ICE_USAGE, "--vary %s: the row has a schedule of %s, which would be lost", s->o.vary->key, key);
  json_decref(params);
  return rc;
}

static int open_subject(subject *s, const report_rows *r, int row, const request *q, ice_err *e) {
  const char *config = report_rows_text(r, row, "config"), *name = report_rows_text(r, row, "method");
  *s = (subject){.names = {.experiment = q->experiment, .model = report_rows_text(r, row, "model"), .params = report_rows_text(r, row, "params")}};
  explain_options *o = &s->o;
  const char *task_name = report_rows_text(r, row, "task");
  if (config_shape_task(task_name)) return ice_fail(e, ICE_USAGE, "explain: %s is tensors; only models of classes can be taken apart", task_name);
  o->task = task_find(task_name, e);
  if (!o->task) return ICE_USAGE;
  if (o->task->prompts) return ice_fail(e, ICE_USAGE, "explain: %s is answered in words; only models of classes can be taken apart", o->task->name);
  o->method = registry_find(name, e);
  s->config = json_loads(config ? config : "{}", 0, NULL);
  s->params = registry_defaults(o->method);
  if (!s->config || !s->params) return ice_fail(e, ICE_INTERNAL, "out of memory");
  s->names.config = s->config;
  o->params = s->params;
  ICE_TRY(choose_vary(s, q, e));
  ICE_TRY(cell_read_params(o->method, s->names.params, s->params, e));
  ICE_TRY(open_model(s, r, row, e));
  o->model = &s->model;
  ICE_TRY(schedule_open(&s->schedule, o->method, o->params, s->names.params, s->model.cfg.layers, s->model.cfg.heads, e));
  o->heads = s->schedule.head;
  s->names.threads = (int)report_rows_value(r, row, "threads");
  if (!number_u64(report_rows_text(r, row, "seed"), &o->seed)) return ice_fail(e, ICE_INTERNAL, "a row with a seed that is no number");
  o->threads = q->threads ? (int)q->threads : (int)report_rows_value(r, row, "threads");
  o->padded = json_object_get(s->config, "padding") != NULL;
  o->by_logits = !strcmp(q->by, "logits");
  o->look = q->look, o->prove = q->prove;
  return ICE_OK;
}

static void close_subject(subject *s) {
  schedule_close(&s->schedule);
  encoder_destroy(&s->model);
  attn_free(s->params);
  json_decref(s->config);
}

/* ---- Out. */

static int write_yaml(const subject *s, const explain_result *r, ice_err *e) {
  file_out out;
  ICE_TRY(file_out_open(&out, s->names.file, e));
  explain_print_yaml(&s->o, r, &s->names, out.stream);
  return file_out_commit(&out, e);
}

static void show_progress(void *ctx, int64_t done, int64_t total) { cli_progress_tick(ctx, done, total, "examples"); }

static int explain_row(const report_rows *rows, const request *q, ice_err *e) {
  int row;
  subject s = {0};
  explain_result r = {0};
  cli_progress progress;
  ICE_TRY(find_row(rows, q, &row, e));
  int rc = open_subject(&s, rows, row, q, e);
  s.names.file = q->out;
  cli_progress_start(&progress, "explain", !q->quiet);
  s.o.progress = show_progress, s.o.ctx = &progress;
  if (rc == ICE_OK) rc = explain_run(&s.o, &r, e);
  cli_progress_end(&progress);
  if (rc == ICE_OK && q->out) rc = write_yaml(&s, &r, e);
  if (rc == ICE_OK) rc = q->json ? cli_print_json(explain_json(&s.o, &r, &s.names), e) : explain_print_text(&s.o, &r, &s.names, stdout, e);
  explain_free(&r);
  close_subject(&s);
  return rc;
}

static int explain_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  request q = {.by = "error", .look = 32, .prove = 128, .quiet = common->quiet};
  const char *format = "text", *look = NULL, *prove = NULL, *threads = NULL;
  int n = 0;
  report_rows rows;
  const cli_option spec[] = {{.name = "filter", .has_value = 1, .value = &q.filter},   {.name = "vary", .has_value = 1, .value = &q.vary},
                             {.name = "examples", .has_value = 1, .value = &look},     {.name = "prove", .has_value = 1, .value = &prove},
                             {.name = "threads", .has_value = 1, .value = &threads},   {.name = "out", .has_value = 1, .value = &q.out},
                             {.name = "format", .has_value = 1, .value = &format},     {.name = "by", .has_value = 1, .value = &q.by},
                             {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, &q.experiment, 1, &n, e));
  if (n != 1) return ice_fail(e, ICE_USAGE, "explain: needs the name of an experiment in the database, e.g. icebench explain quickstart");
  if (look) ICE_TRY(cli_int("examples", look, 1, 100000, &q.look, e));
  if (prove) ICE_TRY(cli_int("prove", prove, 1, 100000, &q.prove, e));
  if (threads) ICE_TRY(cli_int("threads", threads, 1, 256, &q.threads, e));
  if (strcmp(q.by, "error") && strcmp(q.by, "logits")) return ice_fail(e, ICE_USAGE, "--by = %s, allowed error, logits", q.by);
  q.json = !strcmp(format, "json");
  if (!q.json && strcmp(format, "text") && strcmp(format, "md")) return ice_fail(e, ICE_USAGE, "--format = %s, allowed text, md, json", format);
  int rc = read_rows(common->db, &q, &rows, e);
  if (rc == ICE_OK) rc = explain_row(&rows, &q, e);
  report_rows_free(&rows);
  return rc;
}

const cli_verb cli_verb_explain = {
    .name = "explain",
    .summary = "which layers and heads cause an error; a schedule of k by head",
    .help = "usage: icebench explain EXPERIMENT [--db FILE] [--filter KEY=VALUE,...] [--vary PARAMETER] [--by error|logits]\n"
            "                        [--examples N] [--prove N] [--out FILE.yaml] [--threads T] [--format text|md|json]\n"
            "\n"
            "Takes one finished row of an experiment apart: --filter names it by task, model, method, seed or parameters; without it,\n"
            "that of iceformer (else of any approximate method) with the largest error. Its model runs again on --examples (32) of the\n"
            "dev split (of test, where there is no dev split) with exact attention, and each head's Q, K, V go through the method:\n"
            "  - error of each head, and the error that a perfect search with the same k would leave\n"
            "  - softmax mass each head loses, split into what k keys cannot hold and what the search missed\n"
            "  - change of logits and answers with the method in one head alone, and in the layers up to each\n"
            "Then each head is given its own value of --vary (k), an eighth to six times that of the row: once for the least squared\n"
            "error with no more products q.k and no more keys attended than before, once for the least work with no more error.\n"
            "With --by logits (error) the error of a head counts as much as it moved the logits, which a few examples may decide.\n"
            "Both are measured on --prove (128) other examples, of the test split. --out writes an experiment with them:\n"
            "  - iceformer: {schedule: {k: [[8, 64], 32]}}     a list of layers, each a list of heads or one value for all\n"
            "Nothing is timed here; icebench run does that with the file. Heads that share values of a layer side by side share a call.\n"
            "\n"
            "examples:\n"
            "  icebench explain quickstart --db results/quickstart.db\n"
            "  icebench explain quickstart --filter method=iceformer,k=20 --out explained.yaml\n"
            "  icebench explain quickstart --filter method=icecells --vary visit --format json\n"
            "\n"
            "exit codes: 0 done, 2 usage, 6 no such row, 7 data or model missing or changed, 8 the database\n",
    .main = explain_main,
};
