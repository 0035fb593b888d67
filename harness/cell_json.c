/* cell_json.c - jobs and results as JSON. Unknown numbers are null; 64-bit seeds are text, since JSON integers end at 63. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/prompt.h"
#include "harness/cell.h"
#include "harness/number.h"

char *cell_job_print(const cell_job *j) {
  char seed[24];
  (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)j->seed);
  json_t *params = json_loads(j->params_json, 0, NULL);
  json_t *o =
      json_pack("{s:s, s:s, s:s, s:o, s:i, s:s, s:I, s:I, s:i, s:i, s:i, s:b, s:b, s:f, s:f}", "task", j->task, "model_path",
                j->model_path, "method", j->method, "params", params, "split", (int)j->split, "seed", seed, "examples",
                (json_int_t)j->examples, "timed", (json_int_t)j->timed, "threads", j->threads, "rounds", j->rounds,
                "warmup", j->warmup, "quality", j->quality, "padded", j->padded, "max_seconds", j->max_seconds, "limit_gib", j->limit_gib);
  json_t *care = json_pack("{s:f, s:f, s:i, s:b, s:b}", "precision", j->care.precision, "slowdown", j->care.slowdown, "max_rounds", j->care.max_rounds,
                           "affinity", j->care.affinity, "times_only", j->times_only);
  json_t *words = json_pack("[I, I, I, i]", (json_int_t)j->length, (json_int_t)j->answer_tokens, (json_int_t)j->context, j->template);
  json_t *also = json_array();
  int whole = o && json_object_set_new(o, "care", care) == 0 && json_object_set_new(o, "words", words) == 0;
  for (int i = 0; i < j->n_also; i++) whole &= json_array_append_new(also, json_loads(j->also[i], 0, NULL)) == 0;
  whole = whole && json_object_set_new(o, "also", also) == 0;
  char *text = whole ? json_dumps(o, JSON_COMPACT) : NULL;
  json_decref(o);
  return text;
}

static int parse_care(const json_t *root, cell_care *out, int *times_only) {
  return json_unpack(json_object_get(root, "care"), "{s:F, s:F, s:i, s:b, s:b}", "precision", &out->precision, "slowdown", &out->slowdown, "max_rounds",
                     &out->max_rounds, "affinity", &out->affinity, "times_only", times_only) == 0 &&
         out->precision >= 0.0 && out->slowdown >= 0.0 && out->slowdown <= 10.0 && out->max_rounds >= 0 && out->max_rounds <= 1000;
}

/* What tasks of words add; 0 when it is not there or out of range. */
static int read_words(const json_t *root, cell_job *out) {
  json_int_t length, tokens, context;
  if (json_unpack(json_object_get(root, "words"), "[I, I, I, i]", &length, &tokens, &context, &out->template) != 0) return 0;
  out->length = length, out->answer_tokens = tokens, out->context = context;
  return length >= 0 && tokens >= 0 && context >= 0 && out->template >= 0 && out->template < PROMPT_TEMPLATES;
}

typedef struct job_impl {
  json_t *root;
  char *params, *also[CELL_GROUP];
} job_impl;

/* Parameters of the further cells of a group; 0 when they are none. */
static int read_also(job_impl *impl, cell_job *out) {
  const json_t *also = json_object_get(impl->root, "also");
  const size_t n = json_array_size(also);
  if (!json_is_array(also) || n >= CELL_GROUP) return 0;
  out->also = (const char *const *)impl->also;
  for (; out->n_also < (int)n; out->n_also++) {
    const json_t *params = json_array_get(also, (size_t)out->n_also);
    if (!json_is_object(params) || !(impl->also[out->n_also] = json_dumps(params, JSON_COMPACT))) return 0;
  }
  return 1;
}

int cell_job_parse(const char *text, size_t n, cell_job *out, ice_err *e) {
  json_error_t bad;
  const char *seed;
  json_t *params;
  json_int_t examples, timed;
  int split;
  *out = (cell_job){0};
  job_impl *impl = calloc(1, sizeof *impl);
  out->impl = impl;
  if (!impl) return ice_fail(e, ICE_INTERNAL, "out of memory");
  impl->root = json_loadb(text, n, 0, &bad);
  if (!impl->root ||
      json_unpack_ex(impl->root, &bad, 0, "{s:s, s:s, s:s, s:o, s:i, s:s, s:I, s:I, s:i, s:i, s:i, s:b, s:b, s:F, s:F}",
                     "task", &out->task, "model_path", &out->model_path, "method", &out->method, "params", &params,
                     "split", &split, "seed", &seed, "examples", &examples, "timed", &timed, "threads", &out->threads,
                     "rounds", &out->rounds, "warmup", &out->warmup, "quality", &out->quality, "padded",
                     &out->padded, "max_seconds", &out->max_seconds, "limit_gib", &out->limit_gib) != 0)
    return ice_fail(e, ICE_INTERNAL, "cell: job: %s", bad.text);
  impl->params = json_dumps(params, JSON_COMPACT);
  out->params_json = impl->params;
  out->examples = examples;
  out->timed = timed;
  out->split = (task_split)split;
  if (!impl->params || !json_is_object(params) || !number_u64(seed, &out->seed) || split < 0 || split >= TASK_SPLITS ||
      !parse_care(impl->root, &out->care, &out->times_only) || !read_words(impl->root, out) || !read_also(impl, out) || examples < 0 || timed < 1 || out->threads < 1 || out->rounds < 1 || out->warmup < 0)
    return ice_fail(e, ICE_INTERNAL, "cell: job: a value is out of range");
  return ICE_OK;
}

void cell_job_free(cell_job *j) {
  job_impl *impl = j->impl;
  if (impl) {
    json_decref(impl->root);
    free(impl->params);
    for (int i = 0; i < CELL_GROUP; i++) free(impl->also[i]);
  }
  free(impl);
  *j = (cell_job){0};
}

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *arrays_of(const cell_result *r) {
  json_t *metrics = json_array(), *samples = json_array(), *predictions = json_array(), *answers = json_array();
  for (int i = 0; i < r->n_metrics; i++) {
    const store_metric *m = r->metric + i;
    (void)json_array_append_new(metrics,
                                json_pack("[s, o, o, o]", m->name, number(m->value), number(m->lo), number(m->hi)));
  }
  for (int i = 0; i < r->n_samples; i++) {
    const store_sample *s = r->sample + i;
    (void)json_array_append_new(samples, json_pack("[s, s, i, I]", s->method, s->phase, s->round, (json_int_t)s->ns));
  }
  for (int i = 0; i < r->n_predictions; i++) {
    const store_prediction *p = r->prediction + i;
    (void)json_array_append_new(predictions,
                                json_pack("[I, i, i]", (json_int_t)p->item, (int)p->expected, (int)p->predicted));
  }
  for (int i = 0; i < r->n_answers; i++) {
    const store_answer *a = r->answer + i;
    (void)json_array_append_new(answers, json_pack("[I, s, s, s, I, I, o]", (json_int_t)a->item, a->id, a->text, a->expected,
                                                   (json_int_t)a->tokens, (json_int_t)a->cut, number(a->mark)));
  }
  const int whole = json_array_size(answers) == (size_t)r->n_answers && json_array_size(metrics) == (size_t)r->n_metrics &&
                    json_array_size(samples) == (size_t)r->n_samples &&
                    json_array_size(predictions) == (size_t)r->n_predictions; /* not so when memory ran out */
  json_t *o = json_pack("{s:o, s:o, s:o, s:o}", "metrics", metrics, "samples", samples, "predictions", predictions, "answers", answers);
  if (whole) return o;
  json_decref(o);
  return NULL;
}

char *cell_result_print(const cell_result *r) {
  json_t *o = json_pack("{s:s, s:s?, s:I, s:I, s:I, s:I, s:I, s:b, s:I}", "status", r->status, "reason", r->reason, "n",
                        (json_int_t)r->n, "heads", (json_int_t)r->heads, "head_dim", (json_int_t)r->head_dim, "layers",
                        (json_int_t)r->layers, "examples", (json_int_t)r->examples, "causal", r->causal,
                        "resident_bytes", (json_int_t)r->resident_bytes);
  json_t *arrays = arrays_of(r);
  char *text = NULL;
  if (o && arrays && json_object_update(o, arrays) == 0) text = json_dumps(o, JSON_COMPACT);
  json_decref(arrays);
  json_decref(o);
  return text;
}

static double read_number(const json_t *x) { return json_is_number(x) ? json_number_value(x) : NAN; }

static int read_answers(const json_t *answers, cell_result *out) {
  size_t i;
  json_t *x, *mark;
  out->answer = calloc(json_array_size(answers) + 1, sizeof *out->answer);
  if (!out->answer) return 0;
  json_array_foreach(answers, i, x) {
    store_answer *a = out->answer + out->n_answers++;
    json_int_t item, tokens, cut;
    if (json_unpack(x, "[I, s, s, s, I, I, o]", &item, &a->id, &a->text, &a->expected, &tokens, &cut, &mark) != 0) return 0;
    a->item = item, a->tokens = tokens, a->cut = cut;
    a->mark = read_number(mark);
  }
  return 1;
}

/* The arrays of numbers; 0 when an element is not what it should be. */
static int read_arrays(json_t *metrics, json_t *samples, json_t *predictions, cell_result *out) {
  out->metric = calloc(json_array_size(metrics) + 1, sizeof *out->metric);
  out->sample = calloc(json_array_size(samples) + 1, sizeof *out->sample);
  out->prediction = calloc(json_array_size(predictions) + 1, sizeof *out->prediction);
  if (!out->metric || !out->sample || !out->prediction) return 0;
  size_t i;
  json_t *x;
  json_array_foreach(metrics, i, x) {
    store_metric *m = out->metric + out->n_metrics++;
    json_t *value, *lo, *hi;
    if (json_unpack(x, "[s, o, o, o]", &m->name, &value, &lo, &hi) != 0) return 0;
    m->value = read_number(value);
    m->lo = read_number(lo);
    m->hi = read_number(hi);
  }
  json_array_foreach(samples, i, x) {
    store_sample *s = out->sample + out->n_samples++;
    json_int_t ns;
    if (json_unpack(x, "[s, s, i, I]", &s->method, &s->phase, &s->round, &ns) != 0) return 0;
    s->ns = ns;
  }
  json_array_foreach(predictions, i, x) {
    store_prediction *p = out->prediction + out->n_predictions++;
    json_int_t item;
    int expected, predicted;
    if (json_unpack(x, "[I, i, i]", &item, &expected, &predicted) != 0) return 0;
    *p = (store_prediction){item, expected, predicted};
  }
  return 1;
}

static int is_status(const char *s) {
  return !strcmp(s, "ok") || !strcmp(s, "unsupported") || !strcmp(s, "oom") || !strcmp(s, "failed");
}

int cell_result_parse(const char *text, size_t n, cell_result *out, ice_err *e) {
  json_error_t bad = {.text = "empty"};
  json_int_t tokens, heads, head_dim, layers, examples, resident;
  json_t *reason, *metrics, *samples, *predictions, *answers;
  *out = (cell_result){0};
  json_t *root = json_loadb(text, n, 0, &bad);
  out->impl = root;
  if (!root ||
      json_unpack_ex(root, &bad, 0, "{s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:o, s:o, s:o, s:o}", "status",
                     &out->status, "reason", &reason, "n", &tokens, "heads", &heads, "head_dim", &head_dim, "layers",
                     &layers, "examples", &examples, "causal", &out->causal, "resident_bytes", &resident, "metrics",
                     &metrics, "samples", &samples, "predictions", &predictions, "answers", &answers) != 0 ||
      !is_status(out->status)) {
    cell_result_free(out);
    return ice_fail(e, ICE_INTERNAL, "the cell's result is no result: %s", bad.text);
  }
  out->reason = json_string_value(reason); /* NULL for null */
  out->n = tokens;
  out->heads = heads;
  out->head_dim = head_dim;
  out->layers = layers;
  out->examples = examples;
  out->resident_bytes = resident;
  if (!read_arrays(metrics, samples, predictions, out) || !read_answers(answers, out)) {
    cell_result_free(out);
    return ice_fail(e, ICE_INTERNAL, "the cell's result has a malformed metric, sample, prediction or answer");
  }
  return ICE_OK;
}

void cell_result_free(cell_result *r) {
  json_decref(r->impl);
  free(r->metric);
  free(r->sample);
  free(r->prediction);
  free(r->answer);
  *r = (cell_result){0};
}
