/* llama_train.h - trains a Llama model on documents of tokens: AdamW, linear warm-up, cosine to a tenth, clipped gradients.
 *
 * The batch of a step is a function of (seed, step), and a state decides everything later: the same seed gives the same bits,
 * whatever the number of threads, killed and resumed or not. */
#ifndef ICE_LLAMA_TRAIN_H
#define ICE_LLAMA_TRAIN_H

#include <signal.h>

#include "models/llama_grad.h"
#include "models/train.h"

typedef struct llama_document {
  int32_t *ids; /* owned by the corpus */
  int64_t n;
  int64_t answer; /* predictions of tokens from here on count fully, those before it by prompt_weight */
} llama_document;

/** Documents by source; a sequence draws a source, then one of its documents, then, of a long one without answer, a window. */
typedef struct llama_corpus {
  llama_document *doc;
  int64_t n, room;
  int64_t *first; /* [sources + 1] first document of each */
  int sources;
} llama_corpus;

/** Begins a source; documents that are added next belong to it. */
int llama_corpus_source(llama_corpus *c, ice_err *e);
/** Takes ids over. A document has at least 2 tokens; with answer > 0 it is used whole, from its beginning. */
int llama_corpus_add(llama_corpus *c, int32_t *ids, int64_t n, int64_t answer, ice_err *e);
void llama_corpus_free(llama_corpus *c);
/** The sequence of position `row` in step `step`: ids [n + 1], weight [n]; what a document is too short for is `pad`, of weight 0. */
void llama_corpus_draw(const llama_corpus *c, uint64_t seed, int64_t step, int row, int64_t n, float prompt_weight, int32_t pad, int32_t *ids,
                       float *weight);

typedef struct llama_train_config {
  const llama_corpus *corpus;
  uint64_t seed;
  int batch;
  int64_t length; /* predictions of a sequence; as the learner's */
  int64_t steps, warmup, save_every;
  double lr, decay, clip, prompt_weight; /* decay: of matrices only; clip: largest norm of a gradient */
  int32_t pad;
  const char *state, *log; /* files */
  const char *description; /* everything that decides the weights: a state is resumed only by the same text */
} llama_train_config;

/** Trains the learner's weights from where they are until cfg->steps; start, stop, stopped and report as in train_run(). The state
 *  stays until the caller has stored the weights and removes it. */
int llama_train(llama_learner *l, const llama_train_config *cfg, train_start start, const volatile sig_atomic_t *stop, int *stopped,
                void (*report)(void *ctx, const train_event *ev), void *ctx, ice_err *e);

/** Learning rate of step t in [0, steps). */
double llama_train_rate(int64_t t, int64_t steps, int64_t warmup, double peak);

#endif
