/* words.h - what a task of words asks of a language model: its prompts, as the ids that the model gets. */
#ifndef ICE_WORDS_H
#define ICE_WORDS_H

#include "datasets/prompt.h"
#include "harness/cell.h"
#include "models/llama.h"
#include "models/tokenizer.h"

typedef struct words_source {
  const cell_job *job;
  const task *task;
  prompt_set set;
  llama *model;
  tokenizer *words;
  int64_t budget; /* most new tokens */
} words_source;

typedef struct words_ids { /* a prompt as the model gets it */
  int32_t *id;    /* [n], to free() */
  int64_t n, cut; /* cut: ids left out of it */
} words_ids;

/** Loads prompts, model and tokenizer of a job, which must outlive the source. ICE_DATA for what is missing or damaged, ICE_USAGE when
 *  the answers leave no room for a prompt. words_close() it in any case; zeroed is closed. */
int words_open(words_source *s, const cell_job *job, ice_err *e);
void words_close(words_source *s);
/** The ids of a prompt of the set: wrapped, and cut to the context where its task allows it. */
int words_read(const words_source *s, int64_t item, words_ids *out, ice_err *e);

#endif
