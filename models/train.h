/* train.h - trains the LRA encoder with any attention that has a training part.
 *
 * Recipe of the Nystromformer LRA code: AdamW (eps 1e-6, no decay), one-cycle linear schedule that also cycles beta1,
 * mean cross entropy, dropout at four places. The same seed gives the same bits, whatever the number of threads, and
 * whether or not the run was killed and resumed. */
#ifndef ICE_TRAIN_H
#define ICE_TRAIN_H

#include <signal.h>
#include <stdint.h>

#include "datasets/task.h"
#include "kernels/attn.h"
#include "models/encoder.h"

typedef struct train_config {
  encoder_config model;
  const attn_method *method; /* must have a training part */
  const void *params;
  uint64_t seed;
  const float *init;         /* weights to start from, of the model's layout; NULL: random ones by seed */
  int batch, threads;      /* 1..1024 sequences, 1..256 threads                   */
  int64_t steps, warmup;   /* warmup < steps                                       */
  double lr, dropout;      /* peak learning rate; probability of all dropouts      */
  int64_t eval_every;      /* steps between evaluations on the dev split           */
  int64_t save_every;      /* steps between saves of the state for resume          */
  const char *out;         /* checkpoint; state and log are named after it         */
  const char *description; /* canonical text of everything above: a state is resumed only by the same text */
  const char *const *meta; /* extra metadata of the checkpoint, key, value, ..., NULL */
} train_config;

typedef struct train_event {
  int64_t step, steps;
  double lr, loss;     /* mean loss since the previous event */
  double dev_accuracy; /* NAN unless this event is an evaluation */
  double best_accuracy;
  int64_t best_step;
  double sequences_per_second, eta_seconds;
} train_event;

/** What happens to the state of an earlier run, "<out>.state": it is a reason to refuse (ICE_USAGE), gone on from, or dropped. */
typedef enum train_start { TRAIN_NEW, TRAIN_RESUME, TRAIN_FORCE } train_start;

/** Trains until cfg->steps. Writes the best weights by dev accuracy to cfg->out and a log to "<out minus
 *  .safetensors>.log.csv". TRAIN_RESUME goes on from the state if it is there (ICE_USAGE when it belongs to another
 *  description, ICE_DATA when it is damaged) and does nothing when the training is complete already; the state is removed
 *  at the end. *stop (may be NULL) set to 1 by a signal handler saves the state and returns ICE_INTERNAL with *stopped =
 *  1. report (may be NULL) is called every 10 steps and at evaluations. ICE_DATA for examples that do not fit the model.
 */
int train_run(const train_config *cfg, const task_data *train, const task_data *dev, train_start start,
              const volatile sig_atomic_t *stop, int *stopped, void (*report)(void *ctx, const train_event *ev),
              void *ctx, ice_err *e);

/** Learning rate and beta1 of step t in [0, steps): PyTorch's OneCycleLR, linear, with its defaults. */
void train_schedule(int64_t t, int64_t steps, int64_t warmup, double peak, double *lr, double *beta1);
/** Index of the example at position `pos` of the endless stream: each pass is a new permutation of n examples. */
int64_t train_stream(uint64_t seed, int64_t n, int64_t pos, int64_t *permutation, int64_t *pass);

/** Loss and gradient of one example, for the gradient checks: g [n_params] is overwritten. drop_key keys the dropout.
 */
int train_gradient(const encoder *m, const attn_method *method, const void *params, const int32_t *const *ids,
                   const int64_t *n, int32_t label, double dropout, uint64_t drop_key, float *g, double *loss,
                   ice_err *e);

#endif
