/* run.c - the loop over the cells: job out, result in, row stored. See run.h
 *
 * The database is written by this process alone, one transaction per cell. Killed at any moment, a run has lost at most the
 * cell at work: the next one finds the rest by their keys. */
#include "harness/run.h"
#include "kernels/core/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness/cell.h"
#include "harness/cli.h"
#include "harness/measure.h"
#include "harness/measure_store.h"
#include "harness/run_child.h"
#include "harness/twin.h"
#include "kernels/micro/micro.h"

typedef struct run_state {
  run_plan *p;
  store *s;
  const run_options *o;
  const run_stop *stop;
  int verbose;
  char self[4096]; /* this program */
  cli_progress progress;
  int seen; /* place of the cell at work in the plan, from 1 */
  run_summary *sum;
} run_state;

/* ---- One cell in a child. */

cell_job run_job(const run_plan *p, const run_cell *c, const run_options *o) {
  const config_experiment *x = &p->x;
  return (cell_job){.task = c->cell->task->name,
                        .model_path = c->model->path,
                        .method = c->cell->method->name,
                        .params_json = c->cell->params_json,
                        .split = x->split,
                        .seed = c->cell->seed,
                        .examples = c->partial ? o->limit : x->examples,
                        .timed = x->timed,
                        .threads = x->threads,
                        .rounds = x->rounds,
                        .warmup = x->warmup,
                        .quality = x->quality,
                        .padded = c->cell->padded,
                        .max_seconds = x->max_seconds / x->processes,
                        .limit_gib = x->limit_gib,
                        .care = {.precision = x->precision, .slowdown = x->slowdown, .max_rounds = x->max_rounds, .affinity = x->affinity},
                        .length = c->cell->length,
                        .answer_tokens = x->answer_tokens,
                        .context = x->context,
                        .template = x->template};
}

/* Cells c [n] in one child, of which another has judged them where times_only. A group of n may take n times as long as one. */
static int ask(const run_state *r, const run_cell *const *c, int n, int times_only, run_outcome *out, ice_err *e) {
  const config_experiment *x = &r->p->x;
  const char *also[CELL_GROUP];
  cell_job job = run_job(r->p, c[0], r->o);
  job.also = also;
  job.times_only = times_only;
  for (int i = 1; i < n; i++) also[job.n_also++] = c[i]->cell->params_json;
  const run_limits limits = {.seconds = n * x->limit_seconds, .gib = x->limit_gib, .result_bytes = CELL_MAX_RESULT};
  const char *const argv[] = {r->self, "__cell", NULL};
  char *text = cell_job_print(&job);
  int rc = !text                         ? ice_fail(e, ICE_INTERNAL, "out of memory for a job")
           : strlen(text) > CELL_MAX_JOB ? ice_fail(e, ICE_INTERNAL, "a job of more than %d bytes", CELL_MAX_JOB)
                                         : run_child(argv, text, &limits, &r->stop->now, r->verbose > 1, out, e);
  free(text);
  return rc;
}

/* A result of a child, from a line of its output, or what its end says. A peak between two looks of the watch is found here. */
static void read_result(const run_outcome *o, const char *line, size_t length, double limit_gib, cell_result *res) {
  ice_err bad = {0};
  const int whole = o->end == RUN_RESULT && cell_result_parse(line, length, res, &bad) == ICE_OK;
  const double gib = whole ? (double)res->resident_bytes / 0x1p30 : 0.0;
  if (whole && (limit_gib <= 0.0 || gib <= limit_gib)) return;
  if (whole) cell_result_free(res);
  *res = (cell_result){.status = whole || o->end == RUN_OOM ? "oom" : o->end == RUN_TIMEOUT ? "timeout" : "failed"};
  if (whole)
    (void)snprintf(res->text, sizeof res->text, "took %.2f GiB, the limit is %g GiB (limits.memory_gib)", gib,
                   limit_gib);
  else
    (void)snprintf(res->text, sizeof res->text, "%s", o->end == RUN_RESULT ? bad.text : o->why);
  res->reason = res->text;
}

/* The results of n cells, a line each; of a missing line, a failure. Returns whether all are ok. */
static int read_results(const run_outcome *o, double limit_gib, int n, cell_result *res) {
  const char *line = o->output ? o->output : "";
  int ok = 1;
  for (int i = 0; i < n; i++) {
    const size_t length = strcspn(line, "\n");
    read_result(o, line, length, limit_gib, res + i);
    ok &= !strcmp(res[i].status, "ok");
    line += length + (line[length] == '\n');
  }
  return ok;
}

static double value_of(const cell_result *res, const char *name) {
  for (int i = 0; i < res->n_metrics; i++)
    if (!strcmp(res->metric[i].name, name)) return res->metric[i].value;
  return NAN;
}

/* Relative width of the widest interval of a speed-up (of the time itself, where there is none); NAN when unknown. */
static double widest(const cell_result *res) {
  double speedups = NAN, own = NAN;
  for (int i = 0; i < res->n_metrics; i++) {
    const store_metric *m = res->metric + i;
    const double width = (m->hi - m->lo) / m->value;
    if (!strncmp(m->name, "speedup_", 8) && m->hi > m->lo) speedups = fmax(speedups, width);
    if (!strcmp(m->name, "attention_ns")) own = width;
  }
  return isfinite(speedups) ? speedups : own;
}

/* What a reader of the row must know: the cell's label, and that measure.max_seconds ended the rounds early. */
static void make_label(const run_state *r, const run_cell *c, const cell_result *res, char *out, size_t size) {
  const double rounds = value_of(res, "rounds");
  const int asked = r->p->x.rounds * r->p->x.processes, cut = rounds < asked; /* NAN: nothing was timed */
  size_t n = (size_t)snprintf(out, size, "%s", c->label);
  if (cut) n += (size_t)snprintf(out + n, size - n, "%s%.0f of %d rounds", n ? ", " : "", rounds, asked);
  if (n < size && r->p->x.slowdown > 0.0) n += (size_t)snprintf(out + n, size - n, "%sslowed by %g %%", n ? ", " : "", 100.0 * r->p->x.slowdown);
  const double width = widest(res);
  if (n < size && r->p->x.precision > 0.0 && !(width <= r->p->x.precision))
    (void)snprintf(out + n, size - n, "%sinterval %.3g %% wide, %g %% asked", n ? ", " : "", 100.0 * width, 100.0 * r->p->x.precision);
}

static int put(const run_state *r, const run_cell *c, const cell_result *res, const char *noise, int64_t started, int64_t wall_ms,
               ice_err *e) {
  char label[sizeof c->label + 160];
  make_label(r, c, res, label, sizeof label);
  const store_cell row = {.key = c->key,
                          .experiment = r->p->x.name,
                          .task = c->cell->task->name,
                          .model = c->cell->model,
                          .method = c->cell->method->name,
                          .method_version = c->cell->method->version,
                          .params = c->cell->params_json,
                          .seed = c->cell->seed,
                          .n = res->n,
                          .heads = c->model->shape.heads,
                          .head_dim = c->model->shape.width / c->model->shape.heads,
                          .layers = c->model->shape.layers,
                          .causal = res->causal,
                          .threads = r->p->x.threads,
                          .partial = c->partial,
                          .isa = attn_isa_name(),
                          .examples = res->examples,
                          .status = res->status,
                          .reason = res->reason,
                          .noise = *noise ? noise : NULL,
                          .label = *label ? label : NULL,
                          .config = c->json,
                          .data_hash = *c->data->hash ? c->data->hash : NULL,
                          .model_hash = *c->model->hash ? c->model->hash : NULL,
                          .started_utc_ms = started,
                          .wall_ms = wall_ms,
                          .metric = res->metric,
                          .n_metrics = res->n_metrics,
                          .sample = res->sample,
                          .n_samples = res->n_samples,
                          .prediction = res->prediction,
                          .n_predictions = res->n_predictions,
                          .answer = res->answer,
                          .n_answers = res->n_answers};
  int rc = store_put(r->s, &row, r->o->force, e), there = 0;
  if (rc == ICE_OK || r->o->force) return rc;
  ice_err other; /* refused because another run has stored this very cell meanwhile? Then all is well */
  return store_has(r->s, c->key, 0, &there, &other) == ICE_OK && there ? ICE_OK : rc;
}

/* ---- What the user sees. */

/* What was left out of a cell is not shown. */
static void print_known(const cell_result *res, const char *label, const char *name) {
  const double v = value_of(res, name);
  if (isfinite(v)) (void)printf(", %s %.3g", label, v);
}

static void report(run_state *r, const run_cell *c, const cell_result *res, const char *noise, int64_t wall_ms) {
  char brief[256], name[384], time_text[32];
  measure_brief(c->cell->method, c->cell->params, c->cell->schedule, brief, sizeof brief);
  char length[48] = "";
  if (c->cell->length) (void)snprintf(length, sizeof length, ", %lld %s", (long long)c->cell->length, c->cell->task->prompts->length_of);
  (void)snprintf(name, sizeof name, "%s%s%s%s%.80s%s", c->cell->method->name, *brief ? " " : "", brief,
                 c->cell->source ? " on " : "", c->cell->source ? c->cell->source : "", length);
  const char *status = *noise ? "invalid-noise" : res->status, *reason = *noise ? noise : res->reason;
  const int ok = !strcmp(status, "ok");
  if (!ok && strcmp(status, "unsupported") && strcmp(status, "skipped")) {
    r->sum->failed++;
    if (!*r->sum->first_failure)
      (void)snprintf(r->sum->first_failure, sizeof r->sum->first_failure, "%s: %s: %.700s", name, status,
                     reason ? reason : "");
  } else if (ok)
    r->sum->ok++;
  else
    r->sum->other++;
  if (!r->verbose) return;
  cli_progress_end(&r->progress);
  (void)printf("[%d/%d] %s: ", r->seen, r->p->n, name);
  if (!ok)
    (void)printf("%s: %s", status, reason ? reason : "");
  else {
    measure_print_ns(value_of(res, "attention_ns"), time_text, sizeof time_text);
    if (isfinite(value_of(res, "accuracy"))) (void)printf("accuracy %.4f, ", value_of(res, "accuracy"));
    (void)printf("attention %s", time_text);
    print_known(res, "x vanilla", "speedup_vanilla");
    print_known(res, "x dense", "speedup_dense");
    print_known(res, "relative L2", "rel_l2_error");
  }
  (void)printf(" (%.1f s)\n", (double)wall_ms * 1e-3);
  (void)fflush(stdout);
}

/* ---- The loop. */

static void free_results(cell_result *res, int n) {
  for (int i = 0; i < n; i++) cell_result_free(res + i);
}

/* Cells in a child; again, as often as the experiment allows, while the machine was not fit to be measured on. The last try
 * counts; `noise` says what was wrong with it. An interruption leaves no result. */
static int measure_once(run_state *r, const run_cell *const *c, int n, int times_only, run_outcome *o, cell_result *res, char *noise, size_t size, ice_err *e) {
  const config_experiment *x = &r->p->x;
  for (int left = x->retries;; left--) {
    ICE_TRY(ask(r, c, n, times_only, o, e));
    if (o->end == RUN_INTERRUPTED) return ICE_OK;
    noise[0] = '\0';
    if (!read_results(o, x->limit_gib, n, res) || x->noise <= 0.0 || !hygiene_noise(res->metric, res->n_metrics, x->noise, noise, size) || left == 0) return ICE_OK;
    if (r->verbose) {
      cli_progress_end(&r->progress);
      (void)printf("%s: noise, once more: %s\n", c[0]->cell->method->name, noise);
    }
    free_results(res, n);
    free(o->output);
    *o = (run_outcome){0};
  }
}

static int all_ok(const cell_result *res, int n) {
  for (int i = 0; i < n; i++)
    if (strcmp(res[i].status, "ok")) return 0;
  return 1;
}

/* `part` in place of `res`, both [n]. */
static void replace(cell_result *res, cell_result *part, int n) {
  free_results(res, n);
  for (int i = 0; i < n; i++) {
    res[i] = part[i];
    if (part[i].reason == part[i].text) res[i].reason = res[i].text;
    part[i] = (cell_result){0};
  }
}

/* One more process for cells [n] that are ok; one that fails is their result. */
static int measure_again(run_state *r, const run_cell *const *c, int n, int process, run_outcome *o, cell_result *res, char *noise, size_t size, ice_err *e) {
  cell_result part[CELL_GROUP] = {0};
  run_outcome own = {0};
  int rc = measure_once(r, c, n, 1, &own, part, noise, size, e);
  o->wall_ms += own.wall_ms;
  o->end = own.end;
  if (rc == ICE_OK && own.end != RUN_INTERRUPTED && !all_ok(part, n)) replace(res, part, n);
  else
    for (int i = 0; rc == ICE_OK && own.end != RUN_INTERRUPTED && i < n; i++) rc = cell_join(res + i, part + i, process, e);
  free_results(part, n);
  free(own.output);
  return rc;
}

/* Cells in as many processes as the experiment asks for. They have noise when more than half of the processes had: then neighbours
 * leave too few that were not hindered. */
static int measure(run_state *r, const run_cell *const *c, int n, run_outcome *o, cell_result *res, char *noise, size_t size, ice_err *e) {
  const int processes = r->p->x.processes;
  char last[200] = "";
  ICE_TRY(measure_once(r, c, n, 0, o, res, noise, size, e));
  if (processes == 1 || o->end == RUN_INTERRUPTED || !all_ok(res, n)) return ICE_OK;
  int noisy = *noise != '\0', p = 1;
  (void)snprintf(last, sizeof last, "%s", noise);
  for (; p < processes && all_ok(res, n); p++) {
    ICE_TRY(measure_again(r, c, n, p, o, res, noise, size, e));
    if (o->end == RUN_INTERRUPTED) return ICE_OK;
    noisy += *noise != '\0';
    if (*noise) (void)snprintf(last, sizeof last, "%s", noise);
  }
  noise[0] = '\0';
  if (2 * noisy > processes) (void)snprintf(noise, size, "%d of %d processes: %.150s", noisy, processes, last);
  for (int i = 0; all_ok(res, n) && i < n; i++) ICE_TRY(cell_join_end(res + i, c[i]->cell->method->name, c[i]->cell->seed, e));
  return ICE_OK;
}

/* Adds the count of the cell's twin to its metrics. A machine without valgrind, or a cell too slow for it, goes without: NULL. */
static void add_twin(const run_state *r, const run_cell *c, cell_result *res) {
  const config_experiment *x = &r->p->x;
  cell_job job = run_job(r->p, c, r->o);
  const run_limits limits = {.seconds = x->limit_seconds, .result_bytes = CELL_MAX_RESULT};
  ice_err why = {0};
  const double n = twin_count(r->self, &job, &limits, &r->stop->now, &why);
  if (!isfinite(n)) {
    if (r->verbose) (void)printf("%s: no twin: %s\n", c->cell->method->name, why.text);
    return;
  }
  store_metric *grown = realloc(res->metric, ((size_t)res->n_metrics + 1) * sizeof *grown);
  if (!grown) return;
  res->metric = grown;
  grown[res->n_metrics++] = (store_metric){"twin_instructions", n, NAN, NAN};
}

/* What became of a cell, stored and shown. */
static int keep(run_state *r, const run_cell *c, cell_result *res, const char *noise, int64_t started, int64_t wall_ms, ice_err *e) {
  if (r->o->twin && !strcmp(res->status, "ok")) add_twin(r, c, res);
  ICE_TRY(put(r, c, res, noise, started, wall_ms, e));
  r->sum->ran++;
  r->seen = (int)(c - r->p->cell) + 1;
  report(r, c, res, noise, wall_ms);
  return ICE_OK;
}

/* Runs cells that share a build, or one. A group with a cell that is not ok leaves nothing (*apart = 1): each runs alone then, so
 * that one is not blamed for another. Rows of a group share its time equally. */
static int run_group(run_state *r, const run_cell *const *c, int n, int *apart, ice_err *e) {
  const int64_t started = attn_utc_ms();
  cell_result res[CELL_GROUP] = {0};
  run_outcome o = {0};
  char noise[200] = "";
  int rc = ICE_OK;
  *apart = 0;
  if (c[0]->missing) {
    res[0].status = "skipped";
    res[0].reason = c[0]->missing;
  } else if (c[0]->needs_training && !r->p->x.allow_untrained_swap) {
    res[0].status = "skipped";
    res[0].reason = "needs a model trained with it; `no_retraining: true` runs it in this one all the same";
  } else {
    rc = measure(r, c, n, &o, res, noise, sizeof noise, e);
  }
  const int none = rc != ICE_OK || o.end == RUN_INTERRUPTED;
  *apart = !none && n > 1 && !all_ok(res, n);
  for (int i = 0; !none && !*apart && rc == ICE_OK && i < n; i++) rc = keep(r, c[i], res + i, noise, started, o.wall_ms / n, e);
  free_results(res, n);
  free(o.output);
  return rc;
}

static int should_stop(const run_state *r, int64_t started) {
  return r->stop->after_cell || r->stop->now || (r->o->stop_on_error && r->sum->failed) ||
         (r->o->max_hours > 0.0 && (double)(attn_now_ns() - started) > r->o->max_hours * 3600e9);
}

static int find_self(run_state *r, ice_err *e) {
  if (readlink("/proc/self/exe", r->self, sizeof r->self - 1) > 0) return ICE_OK;
  return ice_fail(e, ICE_INTERNAL, "cannot find this program: /proc is not there");
}

int run_measure(run_plan *p, const run_cell *c, const run_options *o, double slowdown, const run_stop *stop, cell_result *out, ice_err *e) {
  run_state r = {.p = p, .o = o, .stop = stop};
  run_outcome outcome = {0};
  const double before = p->x.slowdown;
  *out = (cell_result){.status = "failed", .reason = c->missing};
  if (c->missing) return ICE_OK;
  ICE_TRY(find_self(&r, e));
  p->x.slowdown = slowdown;
  const int rc = ask(&r, &c, 1, 1, &outcome, e);
  p->x.slowdown = before;
  if (rc == ICE_OK) (void)read_results(&outcome, p->x.limit_gib, 1, out);
  free(outcome.output);
  return rc;
}

/* Adds a cell to those to run, unless the database has it: another run may have been here since the list was made. */
static int look(run_state *r, const run_cell *c, const run_cell **todo, int *n, ice_err *e) {
  int done = 0, finished = 1;
  ICE_TRY(run_is_done(r->s, c, r->o, &done, e));
  if (done) ICE_TRY(store_has(r->s, c->key, 0, &finished, e));
  r->sum->there += done;
  r->sum->there_failed += !finished;
  if (!done) todo[(*n)++] = c;
  return ICE_OK;
}

int run_cells(run_plan *p, store *s, const run_options *o, const run_stop *stop, int verbose,
              run_summary *out, ice_err *e) {
  run_state r = {.p = p, .s = s, .o = o, .stop = stop, .verbose = verbose, .sum = out};
  const int64_t started = attn_now_ns();
  *out = (run_summary){0};
  ICE_TRY(find_self(&r, e));
  cli_progress_start(&r.progress, p->x.name, verbose > 0);
  int rc = ICE_OK;
  for (int i = 0; i < p->n && rc == ICE_OK && !should_stop(&r, started);) {
    const run_cell *todo[CELL_GROUP];
    int n = 0, apart = 0;
    cli_progress_tick(&r.progress, i, p->n, p->cell[i].cell->method->name);
    do {
      rc = look(&r, p->cell + i, todo, &n, e);
    } while (++i < p->n && p->cell[i].shares && rc == ICE_OK);
    if (rc == ICE_OK && n) rc = run_group(&r, todo, n, &apart, e);
    for (int k = 0, alone; apart && k < n && rc == ICE_OK && !should_stop(&r, started); k++) rc = run_group(&r, todo + k, 1, &alone, e);
  }
  cli_progress_end(&r.progress);
  out->interrupted = stop->after_cell || stop->now;
  out->left = p->n - out->there - out->ran;
  return rc;
}
