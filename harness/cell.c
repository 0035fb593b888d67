/* cell.c - runs one cell: accuracy on the examples, then times on a few of them, then errors on the same few.
 *
 * Accuracy  every example goes through the model once, examples in parallel, one thread each. A method's bits do not
 *           depend on its threads, so neither do the predictions.
 * Times     the timed set goes through the model with the method, with vanilla and with dense in the slot, round by
 *           round (measure.h), each attention call with all threads of the cell. A sample is the sum over the set.
 *           `padding: compute` fills every sequence up to the model's positions, for the baselines too; the method without
 *           padding is then timed beside them (metric speedup_skip).
 * Errors    the timed set once more, unclocked; every attention call is repeated with dense on the same Q, K, V. */
#include "harness/cell.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cell_judge.h"
#include "harness/config_shape.h"
#include "harness/measure_store.h"
#include "harness/number.h"
#include "harness/quality.h"
#include "harness/registry/registry.h"
#include "harness/schedule.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "kernels/core/status.h"
#include "models/encoder.h"

typedef struct cell {
  const cell_job *job;
  const task *task;
  task_data data;
  encoder model;
  const attn_method *method, *vanilla, *dense;
  void *params;
  head_schedule schedule; /* of the method's heads, if it has one */
  int64_t *pick, *timed; /* items of the split: all that are judged, and those that are timed */
  int64_t n_pick, n_timed, longest;
  measure_cost cost;
} cell;

/* ---- Choosing. */

int64_t cell_draw(int64_t n, int64_t count, uint64_t seed, int64_t *out) {
  if (count >= n) {
    for (int64_t i = 0; i < n; i++) out[i] = i;
    return n;
  }
  /* Selection sampling (Knuth, TAOCP 2, algorithm S): item i is taken with probability needed / left. */
  attn_rng r;
  attn_rng_seed(&r, seed, 0);
  int64_t taken = 0;
  for (int64_t i = 0; taken < count; i++)
    if (attn_rng_below(&r, (uint64_t)(n - i)) < (uint64_t)(count - taken)) out[taken++] = i;
  return taken;
}

static int choose(cell *c, ice_err *e) {
  const cell_job *j = c->job;
  const int64_t n = c->data.count, want = j->examples && j->examples < n ? j->examples : n;
  if (n < 1) return ice_fail(e, ICE_DATA, "%s: no examples", c->data.origin);
  c->pick = malloc((size_t)want * sizeof *c->pick);
  c->timed = malloc((size_t)want * sizeof *c->timed);
  if (!c->pick || !c->timed) return ice_fail(e, ICE_INTERNAL, "out of memory for %lld examples", (long long)want);
  c->n_pick = cell_draw(n, want, attn_hash(j->seed, CELL_DRAW_EXAMPLES, 0), c->pick);
  c->n_timed = cell_draw(c->n_pick, j->timed < want ? j->timed : want, attn_hash(j->seed, CELL_DRAW_TIMED, 0), c->timed);
  for (int64_t i = 0; i < c->n_timed; i++) c->timed[i] = c->pick[c->timed[i]];
  for (int64_t i = 0; i < c->n_pick; i++)
    for (int s = 0; s < c->data.inputs; s++)
      if (task_len(&c->data, c->pick[i], s) > c->longest) c->longest = task_len(&c->data, c->pick[i], s);
  return ICE_OK;
}

/* ---- Loading. */

/* The canonical JSON of parameters back into the method's struct, through the same door as any other text. */
int cell_read_params(const attn_method *m, const char *json, void *params, ice_err *e) {
  json_t *all = json_loads(json, 0, NULL), *value;
  const char *key;
  int rc = all && params ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for parameters");
  json_object_foreach(all, key, value) {
    if (rc != ICE_OK) break;
    if (!strcmp(key, "schedule")) continue; /* schedule_open() reads it */
    const attn_param *p = registry_param(m, key, e);
    char text[64] = "";
    if (!p) {
      rc = ICE_USAGE;
      break;
    }
    if (json_is_string(value))
      (void)snprintf(text, sizeof text, "%s", json_string_value(value));
    else if (json_is_integer(value))
      (void)snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    else
      number_print(json_number_value(value), text, sizeof text);
    rc = registry_param_set(m, p, text, params, e);
  }
  json_decref(all);
  return rc;
}

int cell_check_model(const task *t, const encoder *model, int64_t longest, const char *path, ice_err *e) {
  const encoder_config *m = &model->cfg;
  if (m->vocab < t->vocab || m->classes != t->classes || m->inputs != t->inputs || m->positions < longest)
    return ice_fail(
        e, ICE_DATA,
        "%s: %d token ids, %d classes, %d inputs, %d positions; %s needs %d ids, %d classes, %d inputs, %lld "
        "positions",
        path, m->vocab, m->classes, m->inputs, m->positions, t->name, t->vocab, t->classes, t->inputs,
        (long long)longest);
  return ICE_OK;
}

static int load(cell *c, ice_err *e) {
  c->task = task_find(c->job->task, e);
  c->method = c->task ? registry_find(c->job->method, e) : NULL;
  if (!c->method) return ICE_USAGE;
  c->vanilla = registry_find("vanilla", NULL);
  c->dense = registry_find("dense", NULL);
  c->params = registry_defaults(c->method);
  ICE_TRY(cell_read_params(c->method, c->job->params_json, c->params, e));
  ICE_TRY(task_load(c->task, c->job->split, &c->data, e));
  ICE_TRY(choose(c, e));
  ICE_TRY(encoder_load(&c->model, c->job->model_path, e));
  ICE_TRY(schedule_open(&c->schedule, c->method, c->params, c->job->params_json, c->model.cfg.layers, c->model.cfg.heads, e));
  return cell_check_model(c->task, &c->model, c->longest, c->job->model_path, e);
}

static void unload(cell *c) {
  task_data_free(&c->data);
  encoder_destroy(&c->model);
  schedule_close(&c->schedule);
  attn_free(c->params);
  free(c->pick);
  free(c->timed);
}

/* Has the model the tensors that the method learns? */
static attn_status check_learned(const cell *c) {
  const encoder_config *m = &c->model.cfg;
  encoder_config own = *m;
  ice_err e = {0};
  own.n_learned = 0;
  if (encoder_config_attention(&own, c->method, c->params, &e) != ICE_OK)
    return attn_fail(ATTN_ERR_UNSUPPORTED, "%s", e.text);
  int same = own.n_learned == 0 || own.n_learned == m->n_learned;
  for (int i = 0; i < own.n_learned && same; i++) {
    const encoder_learned *a = own.learned + i, *b = m->learned + i;
    same = !strcmp(a->name, b->name) && a->rank == b->rank && !memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
  }
  if (same) return ATTN_OK;
  return attn_fail(ATTN_ERR_UNSUPPORTED, "%s: %s lacks tensors that it learns (%s, ...), or has them in another size",
                   c->method->name, c->job->model_path, own.learned[0].name);
}

/* The attention problem of the longest sequence: does the method take it at all, in this model? */
static attn_status check_support(const cell *c) {
  const encoder_config *m = &c->model.cfg;
  const int64_t d = m->width / m->heads, n = c->job->padded ? m->positions : c->longest;
  attn_problem pb = {.b = 1,
                     .h = m->heads,
                     .hkv = m->heads,
                     .nq = n,
                     .nk = n,
                     .d = d,
                     .dv = d,
                     .scale = (float)(1.0 / sqrt((double)d)),
                     .threads = c->job->threads,
                     .seed = c->job->seed,
                     .positions = m->positions};
  ATTN_TRY(check_learned(c));
  pb.weights = c->model.params; /* their sizes have just been seen to fit; only that is looked at */
  pb.weights_bytes = attn_learned_floats(c->method, &pb, c->params) * sizeof(float);
  if (c->job->padded && !(c->method->caps & ATTN_CAP_MASK))
    return attn_fail(ATTN_ERR_UNSUPPORTED, "%s takes no mask, which `padding: compute` needs", c->method->name);
  for (int i = 0; c->schedule.head && i < m->layers * m->heads; i++) ATTN_TRY(attn_check(c->method, &pb, c->schedule.head[i].params));
  return attn_check(c->method, &pb, c->params);
}

/* One example through a run. */
static int forward(const cell *c, encoder_run *run, int64_t item, float *logits, encoder_cost *cost,
                   void (*observer)(void *, const encoder_call *), void *ctx, ice_err *e) {
  const int32_t *ids[TASK_MAX_INPUTS];
  int64_t n[TASK_MAX_INPUTS];
  task_example(&c->data, item, ids, n);
  return encoder_forward(run, ids, n, logits, cost, observer, ctx, e);
}

/* ---- Accuracy. */

static int best_class(const float *logits, int classes, int32_t *out) {
  *out = 0;
  for (int i = 0; i < classes; i++) {
    if (!isfinite(logits[i])) return 0;
    if (logits[i] > logits[*out]) *out = i;
  }
  return 1;
}

static int predict(const cell *c, cell_result *out, ice_err *e) {
  const int classes = c->model.cfg.classes;
  const encoder_slot slot = {.method = c->method,
                             .params = c->params,
                             .heads = c->schedule.head,
                             .seed = c->job->seed,
                             .threads = 1,
                             .padded = c->job->padded};
  store_prediction *p = calloc((size_t)c->n_pick, sizeof *p);
  if (!p) return ice_fail(e, ICE_INTERNAL, "out of memory for %lld predictions", (long long)c->n_pick);
  out->prediction = p;
  int failed = 0;
#pragma omp parallel num_threads(c->job->threads)
  {
    encoder_run *run = NULL;
    ice_err own = {0};
    float *logits = malloc((size_t)classes * sizeof *logits);
    int rc = logits ? encoder_run_create(&run, &c->model, &slot, c->longest, &own)
                    : ice_fail(&own, ICE_INTERNAL, "out of memory");
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < c->n_pick; i++) {
      int stop;
#pragma omp atomic read
      stop = failed;
      if (stop) continue;
      const int64_t item = c->pick[i];
      p[i] = (store_prediction){.item = item, .expected = c->data.label[item]};
      if (rc == ICE_OK) rc = forward(c, run, item, logits, NULL, NULL, NULL, &own);
      if (rc == ICE_OK && !best_class(logits, classes, &p[i].predicted))
        rc = ice_fail(&own, ICE_INTERNAL, "example %lld: the logits are not finite", (long long)item);
      if (rc == ICE_OK) continue;
#pragma omp critical
      if (!failed) *e = own;
#pragma omp atomic write
      failed = 1;
    }
    encoder_run_destroy(run);
    free(logits);
  }
  if (failed) return e->code ? e->code : ICE_INTERNAL;
  out->n_predictions = (int)c->n_pick;
  return ICE_OK;
}

static store_metric accuracy_of(const cell_result *r) {
  int64_t hits = 0;
  for (int i = 0; i < r->n_predictions; i++) hits += r->prediction[i].predicted == r->prediction[i].expected;
  stats_interval w = stats_wilson(hits, r->n_predictions);
  return (store_metric){.name = "accuracy", .value = w.value, .lo = w.lo, .hi = w.hi};
}

/* ---- Times. */

typedef struct bench { /* one method in the slot */
  const cell *c;
  void *params; /* its defaults, when it is not the cell's own */
  encoder_run *run;
  float *logits;
  measure_cost cost;
} bench;

static int bench_pass(void *ctx, int first, measure_times *out, ice_err *e) {
  bench *b = ctx;
  encoder_cost sum = {0};
  (void)first;
  for (int64_t i = 0; i < b->c->n_timed; i++)
    ICE_TRY(forward(b->c, b->run, b->c->timed[i], b->logits, &sum, NULL, NULL, e));
  *out = (measure_times){{[MEASURE_ATTENTION] = (int64_t)sum.attention_ns,
                          [MEASURE_BUILD] = (int64_t)sum.build_ns,
                          [MEASURE_QUERY] = (int64_t)sum.query_ns,
                          [MEASURE_MODEL] = (int64_t)sum.model_ns}};
  b->cost = (measure_cost){.times = *out, .pairs = sum.pairs, .touched = sum.touched, .bytes = sum.peak_bytes};
  return ICE_OK;
}

static int bench_open(bench *b, const cell *c, const attn_method *m, int padded, ice_err *e) {
  *b = (bench){.c = c, .logits = malloc((size_t)c->model.cfg.classes * sizeof *b->logits)};
  b->params = registry_defaults(m);
  if (!b->logits || !b->params) return ice_fail(e, ICE_INTERNAL, "out of memory");
  const encoder_slot slot = {.method = m,
                             .params = m == c->method ? c->params : b->params,
                             .heads = m == c->method ? c->schedule.head : NULL,
                             .seed = c->job->seed,
                             .threads = c->job->threads,
                             .padded = padded};
  return encoder_run_create(&b->run, &c->model, &slot, c->longest, e);
}

static void bench_close(bench *b) {
  encoder_run_destroy(b->run);
  attn_free(b->params);
  free(b->logits);
  *b = (bench){0};
}

measure_plan cell_plan(const cell_job *j) {
  return (measure_plan){.rounds = j->rounds, .warmup = j->warmup, .max_seconds = j->max_seconds, .seed = j->seed,
                        .precision = j->care.precision, .max_rounds = j->care.max_rounds, .slowdown = j->care.slowdown,
                        .around = j->care.hygiene ? hygiene_around : NULL, .around_ctx = j->care.hygiene};
}

static void no_speedup(cell_result *out, const ice_err *why) {
  const size_t n = strlen(out->text);
  (void)snprintf(out->text + n, sizeof out->text - n, "%sno speed-up: %.400s", n ? "; " : "", why->text);
  out->reason = out->text;
}

/* The rounds; fails as entrant 0 fails, the others report for themselves. */
static int rounds(const cell_job *j, measure_entrant *entrant, int n, const measure_columns *columns, measure_result *result, ice_err *e) {
  measure_plan plan = cell_plan(j);
  plan.base[0] = columns->vanilla, plan.base[1] = columns->dense;
  ICE_TRY(measure_run(entrant, n, &plan, result, e));
  if (entrant[0].rc == ICE_OK) return ICE_OK;
  measure_free(result);
  *e = entrant[0].err;
  return entrant[0].rc;
}

int cell_time(const cell_job *j, const cell_slots *s, measure_result *result, measure_columns *columns, int *skip, cell_result *out, ice_err *e) {
  int *const column[CELL_SLOTS] = {&columns->own, &columns->vanilla, &columns->dense, skip};
  measure_entrant entrant[CELL_SLOTS];
  int n = 0;
  *columns = (measure_columns){-1, -1, -1};
  *skip = -1;
  for (int i = 0; i < 3 + s->padded; i++) {
    ice_err why = {0};
    if (i < 3 && !s->method[i]) continue;
    if (i > 0 && i < 3 && s->method[i] == s->method[0]) {
      *column[i] = 0;
      continue;
    }
    const int rc = s->open(s->ctx, i, s->padded && i < 3, entrant + n, &why);
    if (rc == ICE_OK) {
      *column[i] = n++;
      continue;
    }
    s->close(s->ctx, i);
    if (i == 0) {
      *e = why;
      return rc;
    }
    no_speedup(out, &why);
  }
  ICE_TRY(rounds(j, entrant, n, columns, result, e));
  for (int i = 1; i < n; i++)
    if (entrant[i].rc != ICE_OK) no_speedup(out, &entrant[i].err);
  return ICE_OK;
}

typedef struct benches {
  const cell *c;
  bench slot[CELL_SLOTS];
} benches;
static int open_slot(void *ctx, int i, int padded, measure_entrant *out, ice_err *e) {
  benches *b = ctx;
  const cell *c = b->c;
  *out = (measure_entrant){.variants = 1, .pass = bench_pass, .ctx = b->slot + i};
  return bench_open(b->slot + i, c, i == 1 ? c->vanilla : i == 2 ? c->dense : c->method, padded, e);
}
static void close_slot(void *ctx, int i) { bench_close(((benches *)ctx)->slot + i); }

static int time_rounds(cell *c, measure_result *result, measure_columns *columns, int *skip, cell_result *out, ice_err *e) {
  benches b = {.c = c};
  const cell_slots slots = {{c->method, c->vanilla, c->dense}, c->job->padded, open_slot, close_slot, &b};
  const int rc = cell_time(c->job, &slots, result, columns, skip, out, e);
  c->cost = b.slot[0].cost;
  for (int i = 0; i < CELL_SLOTS; i++) close_slot(&b, i);
  return rc;
}

/* ---- Errors. */

static int judge_timed(const cell *c, quality *out, ice_err *e) {
  cell_judge j = {0};
  bench b;
  int rc = bench_open(&b, c, c->method, c->job->padded, e);
  for (int64_t i = 0; rc == ICE_OK && i < c->n_timed; i++) {
    rc = forward(c, b.run, c->timed[i], b.logits, NULL, cell_judge_call, &j, e);
    if (rc == ICE_OK && j.rc != ICE_OK) {
      *e = j.err;
      rc = j.rc;
    }
  }
  bench_close(&b);
  *out = quality_of(&j.sums);
  return rc;
}

/* ---- All of it. */

static void describe(const cell *c, cell_result *out) {
  int64_t tokens = 0;
  for (int64_t i = 0; i < c->n_timed; i++)
    for (int s = 0; s < c->data.inputs; s++) tokens += task_live(&c->data, c->timed[i], s);
  if (c->job->padded) tokens = c->n_timed * c->data.inputs * c->model.cfg.positions;
  out->n = c->n_timed ? (tokens + c->n_timed * c->data.inputs / 2) / (c->n_timed * c->data.inputs) : 0;
  out->heads = c->model.cfg.heads;
  out->head_dim = c->model.cfg.width / c->model.cfg.heads;
  out->layers = c->model.cfg.layers;
  out->examples = c->n_pick;
}

static int measure(cell *c, cell_result *out, ice_err *e) {
  quality q = {NAN, NAN, NAN, NAN, NAN};
  measure_result result;
  measure_columns columns;
  int skip;
  if (!c->job->times_only) ICE_TRY(predict(c, out, e));
  ICE_TRY(time_rounds(c, &result, &columns, &skip, out, e));
  int rc = c->job->quality && !c->job->times_only ? judge_timed(c, &q, e) : ICE_OK;
  out->metric = calloc(MEASURE_METRICS + 3, sizeof *out->metric);
  out->sample = measure_samples(&result, columns, c->method->name, &out->n_samples);
  if (rc == ICE_OK && (!out->metric || !out->sample)) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) {
    measure_metrics(&result, columns, c->job->seed, &c->cost, &q, out->metric);
    out->metric[MEASURE_METRICS] = accuracy_of(out);
    out->metric[MEASURE_METRICS + 1] = (store_metric){"timed_inputs", (double)c->n_timed, NAN, NAN};
    out->n_metrics = MEASURE_METRICS + 2;
    if (skip >= 0) { /* how much of the time the padding takes */
      const stats_interval x = measure_speedup(&result, columns.own, skip, c->job->seed);
      out->metric[out->n_metrics++] = (store_metric){"speedup_skip", x.value, x.lo, x.hi};
    }
  }
  measure_free(&result);
  return rc;
}

void cell_fail(cell_result *out, attn_status support, const ice_err *e) {
  const int starved = strstr(e->text, attn_status_text(ATTN_ERR_NOMEM)) != NULL; /* every layer says it in these words */
  out->status = support == ATTN_ERR_UNSUPPORTED ? "unsupported" : starved ? "oom" : "failed";
  (void)snprintf(out->text, sizeof out->text, "%s", e->text);
  out->reason = out->text;
  out->n_metrics = out->n_samples = out->n_predictions = out->n_answers = 0;
}

static void execute(const cell_job *job, cell_result *out) {
  const task *t = task_find(job->task, NULL);
  if (config_shape_task(job->task)) {
    cell_execute_tensors(job, out);
    return;
  }
  if (t && t->prompts) {
    cell_execute_words(job, out);
    return;
  }
  cell c = {.job = job};
  ice_err e = {0};
  *out = (cell_result){.status = "ok"};
  int rc = load(&c, &e);
  if (rc == ICE_OK) describe(&c, out);
  attn_status support = rc == ICE_OK ? check_support(&c) : ATTN_OK;
  if (support != ATTN_OK) {
    rc = ice_fail(&e, ICE_USAGE, "%s", attn_last_error());
  } else if (rc == ICE_OK)
    rc = measure(&c, out, &e);
  if (rc != ICE_OK) cell_fail(out, support, &e);
  unload(&c);
}

/* Adds what the machine was like. A result without memory for it goes without. */
static void add_hygiene(const store_metric *reading, cell_result *out) {
  store_metric *grown = realloc(out->metric, ((size_t)out->n_metrics + HYGIENE_METRICS) * sizeof *grown);
  if (!grown) return;
  out->metric = grown;
  memcpy(grown + out->n_metrics, reading, HYGIENE_METRICS * sizeof *reading);
  out->n_metrics += HYGIENE_METRICS;
}

void cell_execute(const cell_job *job, cell_result *out) {
  hygiene h;
  cell_job watched = *job;
  memset(out, 0, (size_t)(1 + job->n_also) * sizeof *out);
  watched.care.hygiene = &h;
  hygiene_begin(&h, job->care.affinity ? job->threads : 0);
  execute(&watched, out);
  store_metric reading[HYGIENE_METRICS];
  hygiene_end(&h, reading);
  for (int i = 0; i <= job->n_also; i++)
    if (out[i].status) add_hygiene(reading, out + i);
}
