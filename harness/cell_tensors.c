/* cell_tensors.c - a cell on synthetic tensors: one attention problem instead of a model.
 *
 * The method is timed with vanilla and dense, round by round, as ever. Both grow with n^2, so on long inputs they would use up
 * the time of cells that are about something else: each first answers a few queries, and one whose whole pass would not fit
 * into measure.max_seconds stays out of the cell (its own cell measures it, if limits.seconds allows). So do the errors,
 * which need dense, and the best keys. What was left out is NULL, and the reason says so; nothing is extrapolated. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cell.h"
#include "harness/measure_rows.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"

enum { PROBE_QUERIES = 128, PROBES = 4 };
static const double SURE_RATE = 5e9; /* flops per second that exact attention reaches anywhere: no probe below that */
static const double KEY_RATE = 2e9;  /* q.k products of the search for the best keys: flops per second and thread */

typedef struct tensor_cell {
  const cell_job *job;
  measure_set set;
  measure_rows rows;
  char note[512]; /* what was left out, and why */
} tensor_cell;

static void add_note(tensor_cell *c, const char *what, double seconds) {
  const size_t n = strlen(c->note);
  (void)snprintf(c->note + n, sizeof c->note - n, "%s%s: would take about %.3g s, measure.max_seconds is %g", n ? "; " : "", what,
                 seconds, c->job->max_seconds);
}

/* Seconds that a pass of an exact method will take; 0 when it will fail anyway. Short ones are not worth a question;
 * others answer the first queries on all keys, and the quickest of a few goes counts. */
static double foresee(const measure_inputs *in, const attn_method *m, const void *params) {
  const attn_problem *pb = &in->pb;
  const double sure = 2.0 * (double)(pb->b * pb->h * pb->nq) * (double)pb->nk * (double)(pb->d + pb->dv) / SURE_RATE;
  const int64_t rows = pb->nq < PROBE_QUERIES ? pb->nq : PROBE_QUERIES;
  const double share = (double)rows / (double)pb->nq * (pb->causal ? 2.0 : 1.0);
  measure_inputs few = *in;
  measure_method mm;
  double best = INFINITY;
  if (sure < 0.1) return sure;
  few.pb.nq = rows;
  few.pb.causal = 0;
  float *o = attn_alloc((size_t)(pb->b * pb->h * rows * pb->dv) * sizeof *o);
  attn_status status = o ? measure_method_open(&mm, m, &params, 1, &few) : ATTN_ERR_NOMEM;
  if (status == ATTN_OK) {
    for (int i = 0; i < PROBES && status == ATTN_OK; i++) {
      measure_cost cost;
      status = measure_method_pass(&mm, &few, 0, measure_dense_view(o, pb->h, rows, pb->dv), NULL, &cost);
      const double ns = (double)cost.times.ns[MEASURE_BUILD] + (double)cost.times.ns[MEASURE_QUERY] / share;
      if (status == ATTN_OK && ns < best) best = ns;
    }
    measure_method_close(&mm);
  }
  attn_free(o);
  return status != ATTN_OK ? 0.0 : best * 1e-9 < sure ? best * 1e-9 : sure;
}

/* Keeps vanilla and dense out where they do not fit. */
static void choose_references(tensor_cell *c) {
  for (int r = 0; r < c->rows.n; r++) {
    measure_row *row = c->rows.row + r;
    if (!row->reference) continue;
    const double seconds = foresee(&c->set.t->in, row->method, row->params) * (1 + c->job->warmup);
    if (seconds <= c->job->max_seconds) continue;
    char what[64];
    (void)snprintf(what, sizeof what, "no speed-up against %s", row->method->name);
    add_note(c, what, seconds);
    row->status = ATTN_ERR_UNSUPPORTED;
  }
}

static int judge(tensor_cell *c, ice_err *e) {
  const attn_problem *pb = &c->set.t->in.pb;
  const attn_method *dense = registry_find("dense", NULL);
  void *plain = dense ? registry_defaults(dense) : NULL;
  const double exact = plain ? foresee(&c->set.t->in, dense, plain) : 0.0;
  attn_free(plain);
  if (exact > c->job->max_seconds) {
    add_note(c, "no errors", exact);
    return ICE_OK;
  }
  const double keys = 2.0 * (double)(pb->b * pb->h * pb->nq) * (double)pb->nk * (double)pb->d / (KEY_RATE * pb->threads);
  c->rows.no_keys = (c->rows.row->method->caps & ATTN_CAP_KEYSET) && keys > c->job->max_seconds;
  if (c->rows.no_keys) add_note(c, "no mass and recall", keys);
  return measure_rows_judge(&c->rows, &c->set, NULL, e);
}

static int report(const tensor_cell *c, const measure_row *row, const measure_result *result, cell_result *out, ice_err *e) {
  const measure_columns columns = measure_rows_columns(&c->rows, row, 0);
  out->metric = calloc(MEASURE_METRICS + 1, sizeof *out->metric);
  out->sample = measure_samples(result, columns, row->method->name, &out->n_samples);
  if (!out->metric || !out->sample) return ice_fail(e, ICE_INTERNAL, "out of memory");
  measure_metrics(result, columns, c->job->seed, row->cost, row->quality, out->metric);
  out->metric[MEASURE_METRICS] = (store_metric){"timed_inputs", 1.0, NAN, NAN};
  out->n_metrics = MEASURE_METRICS + 1;
  if (*c->note) {
    (void)snprintf(out->text, sizeof out->text, "%s", c->note);
    out->reason = out->text;
  }
  return ICE_OK;
}

static int load(tensor_cell *c, ice_err *e) {
  measure_tensors t;
  ICE_TRY(measure_rows_create(&c->rows, c->job->method, NULL, NULL, NULL, e));
  ICE_TRY(measure_rows_repeat(&c->rows, c->job->n_also, e));
  for (int i = 0; i <= c->job->n_also; i++)
    ICE_TRY(cell_read_params(c->rows.row->method, i ? c->job->also[i - 1] : c->job->params_json, c->rows.row[i].params, e));
  ICE_TRY(measure_tensors_synth(&t, c->job->model_path, NULL, 0, e));
  ICE_TRY(measure_set_of_one(&c->set, &t, e));
  measure_set_prepare(&c->set, c->job->threads, c->job->seed);
  return ICE_OK;
}

static int measure(tensor_cell *c, cell_result *out, attn_status *support, ice_err *e) {
  const cell_job *j = c->job;
  const int cells = 1 + j->n_also;
  measure_plan plan = cell_plan(j);
  const measure_row *row = c->rows.row;
  measure_result result;
  measure_method mm; /* no word about the others if it cannot even start */
  const void *params = row->params;
  *support = measure_method_open(&mm, row->method, &params, 1, &c->set.t->in);
  if (*support != ATTN_OK)
    return ice_fail(e, ICE_USAGE, "%s (%s)", attn_last_error(), attn_status_text(*support));
  measure_method_close(&mm);
  choose_references(c);
  plan.max_seconds *= cells;
  ICE_TRY(measure_rows_time(&c->rows, &c->set, &plan, &result, e));
  measure_rows_explain(&c->rows, c->note, sizeof c->note); /* of those that tried and failed, for want of memory most likely */
  int rc = row->status == ATTN_OK && j->quality && !j->times_only ? judge(c, e) : ICE_OK;
  for (int i = 0; rc == ICE_OK && i < cells; i++)
    if (row[i].status != ATTN_OK) rc = ice_fail(e, ICE_INTERNAL, "%s (%s)", row[i].reason, attn_status_text(row[i].status));
  for (int i = 0; rc == ICE_OK && i < cells; i++) rc = report(c, row + i, &result, out + i, e);
  measure_free(&result);
  return rc;
}

void cell_execute_tensors(const cell_job *job, cell_result *out) {
  tensor_cell c = {.job = job};
  ice_err e = {0};
  attn_status support = ATTN_OK;
  *out = (cell_result){.status = "ok"};
  int rc = load(&c, &e);
  if (rc == ICE_OK) {
    const attn_problem *pb = &c.set.t->in.pb;
    for (int i = 0; i <= job->n_also; i++)
      out[i] = (cell_result){.status = "ok", .n = pb->nk, .heads = pb->h, .head_dim = pb->d, .layers = 1, .examples = 1, .causal = pb->causal};
    rc = measure(&c, out, &support, &e);
  }
  if (rc != ICE_OK) {
    for (int i = 1; i <= job->n_also; i++) cell_result_free(out + i);
    cell_fail(out, support, &e);
  }
  measure_set_free(&c.set);
  measure_rows_destroy(&c.rows);
}
