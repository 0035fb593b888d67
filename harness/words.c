/* words.c - see words.h */
#include "harness/words.h"

#include <stdlib.h>

static int encode(void *ctx, const char *text, size_t n, int begin, int32_t **out, int64_t *count, ice_err *e) {
  return tokenizer_encode(ctx, text, n, begin, out, count, e);
}

/* Tokens of a prompt and its answer. */
static int64_t context_of(const words_source *s) {
  const int64_t own = llama_config_of(s->model)->context, wanted = s->job->context;
  return wanted && wanted < own ? wanted : own;
}

int words_open(words_source *s, const cell_job *job, ice_err *e) {
  *s = (words_source){.job = job, .task = task_find(job->task, e)};
  if (!s->task) return ICE_USAGE;
  s->budget = job->answer_tokens ? job->answer_tokens : s->task->prompts->answer_tokens;
  ICE_TRY(prompt_load(s->task, job->split, job->length, &s->set, e));
  ICE_TRY(llama_open(&s->model, job->model_path, e));
  ICE_TRY(tokenizer_open(&s->words, job->model_path, e));
  if (s->budget < context_of(s)) return ICE_OK;
  return ice_fail(e, ICE_USAGE, "%lld new tokens do not fit into a context of %lld; set answer_tokens", (long long)s->budget,
                  (long long)context_of(s));
}

void words_close(words_source *s) {
  prompt_set_free(&s->set);
  tokenizer_close(s->words);
  llama_close(s->model);
  *s = (words_source){0};
}

int words_read(const words_source *s, int64_t item, words_ids *out, ice_err *e) {
  const prompt *p = s->set.item + item;
  prompt_wrapped w;
  ICE_TRY(prompt_wrap(p, s->task->prompts->brief, (prompt_template)s->job->template, &w, e));
  const int rc = prompt_ids(p, &w, context_of(s) - s->budget, encode, s->words, &out->id, &out->n, &out->cut, e);
  free(w.text);
  return rc;
}
