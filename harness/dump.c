/* dump.c - see dump.h: sources of examples for tapes, of classes and of words. */
#include "harness/dump.h"

#include <stdlib.h>

#include "harness/words.h"
#include "kernels/core/rng.h"

int dump_draw(dump_source *s, const dump_cell *c, int64_t *fit, int64_t n, const char *origin, ice_err *e) {
  int64_t *pick = malloc((size_t)(n + 1) * sizeof *pick);
  s->item = fit;
  if (!pick) return ice_fail(e, ICE_INTERNAL, "out of memory for %lld examples", (long long)n);
  s->n = cell_draw(n, c->examples, attn_hash(c->job->seed, CELL_DRAW_EXAMPLES, 0), pick);
  for (int64_t i = 0; i < s->n; i++) fit[i] = fit[pick[i]]; /* picks ascend */
  free(pick);
  return s->n ? ICE_OK : ice_fail(e, ICE_DATA, "%s: no example has %lld tokens or more", origin, (long long)c->min_tokens);
}

void dump_close(dump_source *s) {
  if (s->state) s->close(s->state);
  free(s->item);
  *s = (dump_source){0};
}

/* --- classes ---------------------------------------------------------------------------------------------------------- */

typedef struct classes {
  task_data data;
  encoder model;
  encoder_run *run;
  float *logits;
} classes;

static int pass_classes(void *state, int64_t i, void (*observer)(void *ctx, const encoder_call *call), void *ctx, ice_err *e) {
  classes *c = state;
  const int32_t *ids[TASK_MAX_INPUTS];
  int64_t length[TASK_MAX_INPUTS];
  task_example(&c->data, i, ids, length);
  return encoder_forward(c->run, ids, length, c->logits, NULL, observer, ctx, e);
}

static void close_classes(void *state) {
  classes *c = state;
  encoder_run_destroy(c->run);
  encoder_destroy(&c->model);
  task_data_free(&c->data);
  free(c->logits);
  free(c);
}

static int64_t shortest(const task_data *d, int64_t i) {
  int64_t n = INT64_MAX;
  for (int s = 0; s < d->inputs; s++) n = task_len(d, i, s) < n ? task_len(d, i, s) : n;
  return n;
}

int dump_open_classes(dump_source *s, const dump_cell *cell, ice_err *e) {
  const cell_job *j = cell->job;
  const encoder_slot slot = {.method = cell->method, .params = cell->params, .seed = j->seed, .threads = j->threads};
  classes *c = calloc(1, sizeof *c);
  int64_t n = 0, longest = 0;
  *s = (dump_source){.pass = pass_classes, .close = close_classes, .state = c};
  const task *t = task_find(j->task, e);
  if (!t) return ICE_USAGE;
  if (!c) return ice_fail(e, ICE_INTERNAL, "out of memory");
  ICE_TRY(task_load(t, j->split, &c->data, e));
  ICE_TRY(encoder_load(&c->model, j->model_path, e));
  int64_t *fit = malloc((size_t)(c->data.count + 1) * sizeof *fit);
  c->logits = malloc((size_t)c->model.cfg.classes * sizeof *c->logits);
  if (!fit || !c->logits) {
    free(fit);
    return ice_fail(e, ICE_INTERNAL, "out of memory for %lld examples", (long long)c->data.count);
  }
  for (int64_t i = 0; i < c->data.count; i++)
    if (shortest(&c->data, i) >= cell->min_tokens) fit[n++] = i;
  ICE_TRY(dump_draw(s, cell, fit, n, c->data.origin, e));
  for (int64_t i = 0; i < s->n; i++)
    for (int k = 0; k < c->data.inputs; k++)
      if (task_len(&c->data, s->item[i], k) > longest) longest = task_len(&c->data, s->item[i], k);
  s->layers = c->model.cfg.layers;
  ICE_TRY(cell_check_model(t, &c->model, longest, j->model_path, e));
  return encoder_run_create(&c->run, &c->model, &slot, longest, e);
}

/* --- words ------------------------------------------------------------------------------------------------------------ */

typedef struct words {
  words_source in;
  llama_run *run;
} words;

static int pass_words(void *state, int64_t i, void (*observer)(void *ctx, const encoder_call *call), void *ctx, ice_err *e) {
  words *w = state;
  words_ids ids = {0};
  ICE_TRY(words_read(&w->in, i, &ids, e));
  llama_run_reset(w->run);
  const int rc = llama_prefill(w->run, ids.id, ids.n, NULL, NULL, observer, ctx, e);
  free(ids.id);
  return rc;
}

static void close_words(void *state) {
  words *w = state;
  llama_run_destroy(w->run);
  words_close(&w->in);
  free(w);
}

/* Prompts that are long enough; the longest of all, for the cache. */
static int fit_words(const words *w, int64_t min_tokens, int64_t *fit, int64_t *n, int64_t *longest, ice_err *e) {
  *n = *longest = 0;
  for (int64_t i = 0; i < w->in.set.count; i++) {
    words_ids ids = {0};
    ICE_TRY(words_read(&w->in, i, &ids, e));
    free(ids.id);
    if (ids.n >= min_tokens) fit[(*n)++] = i;
    if (ids.n > *longest) *longest = ids.n;
  }
  return ICE_OK;
}

int dump_open_words(dump_source *s, const dump_cell *cell, ice_err *e) {
  const cell_job *j = cell->job;
  const llama_slot slot = {.attention = {.method = cell->method, .params = cell->params, .seed = j->seed, .threads = j->threads}};
  words *w = calloc(1, sizeof *w);
  int64_t n, longest;
  *s = (dump_source){.pass = pass_words, .close = close_words, .state = w};
  if (!w) return ice_fail(e, ICE_INTERNAL, "out of memory");
  ICE_TRY(words_open(&w->in, j, e));
  int64_t *fit = malloc((size_t)(w->in.set.count + 1) * sizeof *fit);
  if (!fit) return ice_fail(e, ICE_INTERNAL, "out of memory for %lld prompts", (long long)w->in.set.count);
  const int rc = fit_words(w, cell->min_tokens, fit, &n, &longest, e);
  if (rc != ICE_OK) {
    free(fit);
    return rc;
  }
  ICE_TRY(dump_draw(s, cell, fit, n, w->in.set.origin, e));
  s->layers = (int)llama_config_of(w->in.model)->layers;
  return llama_run_create(&w->run, w->in.model, &slot, longest, e);
}
