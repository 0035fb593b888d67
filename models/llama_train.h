/* llama_train.h - trains a Llama model on documents of tokens: AdamW, linear warm-up, cosine to a tenth, clipped gradients.
 *
 * The batch of a step is a function of (seed, step), and a state decides everything later: the same seed gives the same bits,
 * whatever the number of threads, killed and resumed or not. */
#ifndef ICE_LLAMA_TRAIN_H
#define ICE_LLAMA_TRAIN_H

#include <signal.h>

#include "kernels/core/rng.h"
#include "models/llama_grad.h"
#include "models/train.h"

typedef struct llama_document {
  int32_t *ids; /* owned by the corpus */
  int64_t n;
  int64_t answer; /* predictions of tokens from here on count fully, those before it by prompt_weight */
} llama_document;

/** Makes a document: *ids and *weight, to free(), hold *n entries; weight[i] tells how much it counts that ids[i] is predicted: a prompt 0,
 *  an answer 1 or what its drill says. A function of the state of r alone. */
typedef int (*llama_maker)(void *ctx, attn_rng *r, int32_t **ids, float **weight, int64_t *n, ice_err *e);

typedef struct llama_source {
  int64_t first, end; /* its documents ... */
  llama_maker make;   /* ... or who makes them; else NULL */
  void *ctx;
} llama_source;

/** Documents by source. A sequence draws a source, then one of its documents, then, of a long one without answer, a window; of a source
 *  that makes its documents, as many as it takes to fill the sequence, the last one cut. */
typedef struct llama_corpus {
  llama_document *doc;
  int64_t n, room;
  llama_source *source;
  int sources;
} llama_corpus;

/** Begins a source; documents that are added next belong to it. make: NULL, or who makes them (none is added then). */
int llama_corpus_source(llama_corpus *c, llama_maker make, void *ctx, ice_err *e);
/** Takes ids over. A document has at least 2 tokens; with answer > 0 it is used whole, from its beginning. */
int llama_corpus_add(llama_corpus *c, int32_t *ids, int64_t n, int64_t answer, ice_err *e);
void llama_corpus_free(llama_corpus *c);
/** The sequence number `row` of step `step`: ids [n + 1], weight [n]; what a document is too short for is `pad`, of weight 0. Fails only as
 *  makers fail. */
int llama_corpus_draw(const llama_corpus *c, uint64_t seed, int64_t step, int row, int64_t n, float prompt_weight, int32_t pad, int32_t *ids,
                      float *weight, ice_err *e);

/** Positions [n] of that sequence within 0 .. reach - 1, ascending: all but the first few of the n - 1 steps are 1, some are as large as the
 *  reach allows. A model that is trained on them meets distances it would else need sequences of `reach` tokens for. 0, 1, 2, ... when
 *  reach is n. Source: Zhu et al. 2023 (PoSE), with up to 8 pieces instead of 2. */
void llama_positions_draw(uint64_t seed, int64_t step, int row, int64_t n, int64_t reach, int32_t *position);

typedef struct llama_train_config {
  const llama_corpus *corpus;
  uint64_t seed;
  int batch;
  int64_t length; /* predictions of a sequence; as the learner's */
  int64_t reach;  /* positions are spread over this many; length: they are not spread */
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
