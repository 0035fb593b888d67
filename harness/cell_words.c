/* cell_words.c - a cell of a task that is answered in words: a language model with one method in its attention slots.
 *
 * Three passes, as for tasks of classes: answers to all prompts drawn (greedy, marked, kept as text); prefills of the timed ones, round by
 * round beside vanilla and dense; errors of every attention call on the timed ones. What is timed is the prompt alone: the time of a new token
 * is a metric of its own (token_ns, mean over all answers). */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cell.h"
#include "harness/cell_judge.h"
#include "harness/marks.h"
#include "harness/measure_store.h"
#include "harness/registry/registry.h"
#include "harness/words.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

typedef struct words_cell {
  const cell_job *job;
  words_source in;
  const attn_method *method, *vanilla, *dense;
  void *params;
  int64_t *pick, *timed; /* prompts of the set: all that are answered; places in `pick` of those that are timed */
  int64_t n_pick, n_timed, longest;
  words_ids *ids;            /* [n_pick] */
  measure_cost cost;
  llama_cost decoding;
} words_cell;

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory"); }

/* ---- Loading. */

static int choose(words_cell *c, ice_err *e) {
  const cell_job *j = c->job;
  const int64_t n = c->in.set.count, want = j->examples && j->examples < n ? j->examples : n;
  c->pick = malloc((size_t)want * sizeof *c->pick);
  c->timed = malloc((size_t)want * sizeof *c->timed);
  c->ids = calloc((size_t)want, sizeof *c->ids);
  if (!c->pick || !c->timed || !c->ids) return no_memory(e);
  c->n_pick = cell_draw(n, want, attn_hash(j->seed, CELL_DRAW_EXAMPLES, 0), c->pick);
  c->n_timed = cell_draw(c->n_pick, j->timed < want ? j->timed : want, attn_hash(j->seed, CELL_DRAW_TIMED, 0), c->timed);
  return ICE_OK;
}

static int tokenize(words_cell *c, ice_err *e) {
  for (int64_t i = 0; i < c->n_pick; i++) {
    ICE_TRY(words_read(&c->in, c->pick[i], c->ids + i, e));
    if (c->ids[i].n > c->longest) c->longest = c->ids[i].n;
  }
  return ICE_OK;
}

static int load(words_cell *c, ice_err *e) {
  const cell_job *j = c->job;
  c->method = registry_find(j->method, e);
  if (!c->method) return ICE_USAGE;
  c->vanilla = registry_find("vanilla", NULL);
  c->dense = registry_find("dense", NULL);
  c->params = registry_defaults(c->method);
  ICE_TRY(cell_read_params(c->method, j->params_json, c->params, e));
  ICE_TRY(words_open(&c->in, j, e));
  ICE_TRY(choose(c, e));
  return tokenize(c, e);
}

static void unload(words_cell *c) {
  for (int64_t i = 0; c->ids && i < c->n_pick; i++) free(c->ids[i].id);
  free(c->ids), free(c->pick), free(c->timed);
  words_close(&c->in);
  attn_free(c->params);
}

static void describe(const words_cell *c, cell_result *out) {
  const llama_config *m = llama_config_of(c->in.model);
  int64_t tokens = 0;
  for (int64_t i = 0; i < c->n_timed; i++) tokens += c->ids[c->timed[i]].n;
  out->n = c->n_timed ? (tokens + c->n_timed / 2) / c->n_timed : 0;
  out->heads = m->heads;
  out->head_dim = m->head_dim;
  out->layers = m->layers;
  out->examples = c->n_pick;
  out->causal = 1;
}

static int open_run(const words_cell *c, const attn_method *m, const void *params, int64_t capacity, llama_run **r, ice_err *e) {
  const llama_slot slot = {.attention = {.method = m, .params = params, .seed = c->job->seed, .threads = c->job->threads}};
  return llama_run_create(r, c->in.model, &slot, capacity, e);
}

/* ---- Answers. */

/* The right answers of a prompt as a JSON list. */
static json_t *expected_of(const prompt *p) {
  json_t *list = json_array();
  for (int i = 0; i < p->references; i++) (void)json_array_append_new(list, json_string(p->reference[i]));
  char *text = json_array_size(list) == (size_t)p->references ? json_dumps(list, JSON_COMPACT) : NULL;
  json_decref(list);
  json_t *s = text ? json_string(text) : NULL;
  free(text);
  return s;
}

/* Keeps an answer in the result, whose texts live in its impl, a list. */
static int keep(const words_cell *c, int64_t i, const char *text, double mark, cell_result *out, ice_err *e) {
  const prompt *p = c->in.set.item + c->pick[i];
  json_t *t = json_string(text), *x = expected_of(p), *id = json_string(p->id);
  const int fine = t && x && id;
  if (fine)
    out->answer[out->n_answers++] = (store_answer){.item = c->pick[i],
                                                   .id = json_string_value(id),
                                                   .text = json_string_value(t),
                                                   .expected = json_string_value(x),
                                                   .tokens = c->ids[i].n,
                                                   .cut = c->ids[i].cut,
                                                   .mark = mark};
  (void)json_array_append_new(out->impl, t), (void)json_array_append_new(out->impl, x), (void)json_array_append_new(out->impl, id);
  return fine ? ICE_OK : no_memory(e);
}

static int answer_one(words_cell *c, llama_run *run, int64_t i, int32_t *token, marks *m, cell_result *out, ice_err *e) {
  const prompt *p = c->in.set.item + c->pick[i];
  char *text = NULL;
  size_t bytes;
  int64_t n;
  double mark = NAN;
  ICE_TRY(llama_generate(run, c->ids[i].id, c->ids[i].n, c->in.budget, tokenizer_eos(c->in.words), token, &n, &c->decoding, e));
  ICE_TRY(tokenizer_decode(c->in.words, token, n, &text, &bytes, e));
  if (strlen(text) != bytes) text[strlen(text)] = '\0'; /* behind a NUL there is no text */
  prompt_tidy(p, text);
  int rc = marks_add(m, text, (const char *const *)p->reference, p->references, &mark) ? ICE_OK : no_memory(e);
  if (rc == ICE_OK) rc = keep(c, i, text, mark, out, e);
  free(text);
  return rc;
}

/* Shares of hits are predictions, too: what was to be expected is 1. */
static int keep_hits(const words_cell *c, cell_result *out, ice_err *e) {
  if (!answer_is_share(c->in.task->prompts->mark)) return ICE_OK;
  if (!(out->prediction = calloc((size_t)c->n_pick, sizeof *out->prediction))) return no_memory(e);
  for (int i = 0; i < out->n_answers; i++)
    if (isfinite(out->answer[i].mark))
      out->prediction[out->n_predictions++] = (store_prediction){out->answer[i].item, 1, out->answer[i].mark > 0.5};
  return ICE_OK;
}

static int answer_all(words_cell *c, marks *m, cell_result *out, ice_err *e) {
  llama_run *run = NULL;
  int32_t *token = malloc((size_t)c->in.budget * sizeof *token);
  out->impl = json_array();
  out->answer = calloc((size_t)c->n_pick, sizeof *out->answer);
  int rc = token && out->impl && out->answer ? open_run(c, c->method, c->params, c->longest + c->in.budget, &run, e) : no_memory(e);
  for (int64_t i = 0; rc == ICE_OK && i < c->n_pick; i++) rc = answer_one(c, run, i, token, m, out, e);
  if (rc == ICE_OK) rc = keep_hits(c, out, e);
  llama_run_destroy(run);
  free(token);
  return rc;
}

/* ---- Times. */

typedef struct bench { /* one method in the slots */
  const words_cell *c;
  void *plain;
  llama_run *run;
  measure_cost cost;
} bench;

static int bench_pass(void *ctx, int first, measure_times *out, ice_err *e) {
  bench *b = ctx;
  llama_cost sum = {0};
  (void)first;
  for (int64_t i = 0; i < b->c->n_timed; i++) {
    const words_ids *p = b->c->ids + b->c->timed[i];
    llama_run_reset(b->run);
    ICE_TRY(llama_prefill(b->run, p->id, p->n, NULL, &sum, NULL, NULL, e));
  }
  *out = (measure_times){{[MEASURE_ATTENTION] = (int64_t)sum.attention_ns,
                          [MEASURE_BUILD] = (int64_t)sum.build_ns,
                          [MEASURE_QUERY] = (int64_t)sum.query_ns,
                          [MEASURE_MODEL] = (int64_t)sum.model_ns}};
  b->cost = (measure_cost){.times = *out, .pairs = sum.pairs, .touched = sum.touched, .bytes = sum.peak_bytes};
  return ICE_OK;
}

static int64_t longest_timed(const words_cell *c) {
  int64_t n = 1;
  for (int64_t i = 0; i < c->n_timed; i++) n = c->ids[c->timed[i]].n > n ? c->ids[c->timed[i]].n : n;
  return n;
}

static int bench_open(bench *b, const words_cell *c, const attn_method *m, ice_err *e) {
  *b = (bench){.c = c, .plain = registry_defaults(m)};
  if (!b->plain) return no_memory(e);
  return open_run(c, m, m == c->method ? c->params : b->plain, longest_timed(c), &b->run, e);
}
static void bench_close(bench *b) {
  llama_run_destroy(b->run);
  attn_free(b->plain);
  *b = (bench){0};
}

typedef struct benches {
  const words_cell *c;
  bench slot[CELL_SLOTS];
} benches;
static int open_slot(void *ctx, int i, int padded, measure_entrant *out, ice_err *e) {
  benches *b = ctx;
  const words_cell *c = b->c;
  (void)padded;
  *out = (measure_entrant){.variants = 1, .pass = bench_pass, .ctx = b->slot + i};
  return bench_open(b->slot + i, c, i == 1 ? c->vanilla : i == 2 ? c->dense : c->method, e);
}
static void close_slot(void *ctx, int i) { bench_close(((benches *)ctx)->slot + i); }

static int time_rounds(words_cell *c, measure_result *result, measure_columns *columns, cell_result *out, ice_err *e) {
  benches b = {.c = c};
  const cell_slots slots = {{c->method, c->vanilla, c->dense}, 0, open_slot, close_slot, &b};
  int none;
  const int rc = cell_time(c->job, &slots, result, columns, &none, out, e);
  c->cost = b.slot[0].cost;
  for (int i = 0; i < CELL_SLOTS; i++) close_slot(&b, i);
  return rc;
}

static int judge_timed(const words_cell *c, quality *out, ice_err *e) {
  cell_judge j = {0};
  bench b;
  int rc = bench_open(&b, c, c->method, e);
  for (int64_t i = 0; rc == ICE_OK && i < c->n_timed; i++) {
    const words_ids *p = c->ids + c->timed[i];
    llama_run_reset(b.run);
    rc = llama_prefill(b.run, p->id, p->n, NULL, NULL, cell_judge_call, &j, e);
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

static int add_metrics(const words_cell *c, const measure_result *result, measure_columns columns, const quality *q, const marks *m,
                       cell_result *out, ice_err *e) {
  double cut = 0;
  out->metric = calloc(MEASURE_METRICS + MARKS_METRICS + 4, sizeof *out->metric);
  out->sample = measure_samples(result, columns, c->method->name, &out->n_samples);
  if (!out->metric || !out->sample) return no_memory(e);
  for (int64_t i = 0; i < c->n_pick; i++) cut += (double)c->ids[i].cut / (double)c->n_pick;
  measure_metrics(result, columns, c->job->seed, &c->cost, q, out->metric);
  int n = MEASURE_METRICS;
  n += marks_metrics(m, c->job->seed, out->metric + n);
  out->metric[n++] = (store_metric){"timed_inputs", (double)c->n_timed, NAN, NAN};
  out->metric[n++] = (store_metric){"cut_tokens", cut, NAN, NAN};
  if (c->job->length) out->metric[n++] = (store_metric){"length", (double)c->job->length, NAN, NAN};
  if (c->decoding.decode_tokens)
    out->metric[n++] = (store_metric){"token_ns", (double)c->decoding.decode_ns / (double)c->decoding.decode_tokens, NAN, NAN};
  out->n_metrics = n;
  return ICE_OK;
}

static int measure(words_cell *c, cell_result *out, ice_err *e) {
  quality q = {NAN, NAN, NAN, NAN, NAN};
  marks m = {.mark = c->in.task->prompts->mark};
  measure_result result;
  measure_columns columns;
  int rc = c->job->times_only ? ICE_OK : answer_all(c, &m, out, e);
  if (rc == ICE_OK && (rc = time_rounds(c, &result, &columns, out, e)) == ICE_OK) {
    rc = c->job->quality && !c->job->times_only ? judge_timed(c, &q, e) : ICE_OK;
    if (rc == ICE_OK) rc = add_metrics(c, &result, columns, &q, &m, out, e);
    measure_free(&result);
  }
  marks_free(&m);
  return rc;
}

/* Does the method take the attention of the longest prompt at all? */
static attn_status check_support(const words_cell *c) {
  const llama_config *m = llama_config_of(c->in.model);
  const attn_problem pb = {.b = 1,
                           .h = m->heads,
                           .hkv = m->kv_heads,
                           .nq = c->longest,
                           .nk = c->longest,
                           .d = m->head_dim,
                           .dv = m->head_dim,
                           .causal = 1,
                           .scale = (float)(1.0 / sqrt((double)m->head_dim)),
                           .threads = c->job->threads,
                           .seed = c->job->seed};
  return attn_check(c->method, &pb, c->params);
}

void cell_execute_words(const cell_job *job, cell_result *out) {
  words_cell c = {.job = job};
  ice_err e = {0};
  attn_status support = ATTN_OK;
  *out = (cell_result){.status = "ok"};
  int rc = load(&c, &e);
  if (rc == ICE_OK) {
    describe(&c, out);
    support = check_support(&c);
    rc = support == ATTN_OK ? measure(&c, out, &e) : ice_fail(&e, ICE_USAGE, "%s", attn_last_error());
  }
  if (rc != ICE_OK) cell_fail(out, support, &e);
  unload(&c);
}
