/* explain.h - error anatomy: where the error of an approximate attention arises in a model, what it does to the answers, and how a
 * budget is better spent.
 *
 * Anatomy   The model runs with exact attention; each head's Q, K, V go through the method alone. So errors are those of one call, not
 *           errors that have grown through layers. The mass that a head loses splits in two: what the k best keys do not hold (a
 *           perfect search loses it too), and what the search missed of theirs.
 * Answers   The method in one head, exact attention in all others; then in the layers up to each; then everywhere.
 * Schedule  The squared error of every head is measured with its parameter at several values. allot.h finds the values with the least
 *           sum of errors at the same work (products q.k, and keys attended), and those with the least work at the same sum. On
 *           request a head's error weighs as much as it moved the logits per unit of error.
 * Proof     All that is measured on one set of examples (of the dev split where there is one). Then the model runs on others, which had
 *           no part in the choice, with the method as it was and with both schedules. */
#ifndef ICE_EXPLAIN_H
#define ICE_EXPLAIN_H

#include "datasets/task.h"
#include "harness/schedule.h"
#include "harness/stats.h"
#include "models/encoder.h"

enum { EXPLAIN_VALUES = 13, EXPLAIN_VARIANTS = 3, EXPLAIN_MAX_HEADS = 64 /* of a layer, as models have */ };

typedef struct explain_options {
  const task *task;
  const encoder *model;
  const attn_method *method;
  const void *params;       /* of all heads, but for */
  const encoder_head *heads; /* [layers, heads] when they differ already; NULL: they do not */
  const attn_param *vary;   /* the parameter of the schedules: a number above 0 */
  int by_logits;            /* 1: errors weigh as much as they move the logits */
  uint64_t seed;            /* of randomised methods and of the choice of examples */
  int threads, padded;
  int64_t look, prove;      /* examples to look at and to prove on */
  void (*progress)(void *ctx, int64_t done, int64_t total); /* may be NULL */
  void *ctx;
} explain_options;

typedef struct explain_head { /* NAN: the method has no key sets, or no parameter k to compare with a perfect search */
  double value;                /* of the parameter */
  double l2_error, rel_l2_error;
  double mass, few, missed;    /* mass + few + missed = 1: kept, lost because of k, lost by the search */
  double best_rel_l2_error;    /* of topk with the same k: what k alone costs */
  double keys;                 /* attended per query */
  double logits;               /* this head alone: sqrt(sum ||change of logits||^2 / sum ||logits - their mean||^2) */
  double changed;              /* this head alone: share of answers that are not those of exact attention */
} explain_head;

typedef struct explain_layer { /* the layers up to this one */
  double logits, changed;
} explain_layer;

typedef struct explain_variant { /* on the examples that had no part in the choice */
  const char *name;
  double value[ENCODER_MAX_LAYERS * EXPLAIN_MAX_HEADS]; /* [layers, heads] of the parameter */
  double pairs, keys;          /* per query and head: products q.k, keys attended (NAN: unknown) */
  double rel_l2_error, logits, changed, accuracy;
  stats_interval error_ratio, logits_ratio; /* to the first variant: of the squared errors, paired by examples */
} explain_variant;

typedef struct explain_result {
  int layers, heads;
  int64_t look, prove;          /* examples there were */
  task_split look_split, prove_split;
  int official;                 /* the data is */
  double accuracy;              /* of exact attention, on the examples of the proof */
  explain_head *head;           /* [layers, heads], owned */
  explain_layer layer[ENCODER_MAX_LAYERS];
  explain_variant variant[EXPLAIN_VARIANTS]; /* as it was, same work, same error */
} explain_result;

/** ICE_DATA when data is missing or does not fit the model, ICE_USAGE when the method cannot run there, ICE_INTERNAL otherwise. *out
 *  to explain_free() in any case. */
int explain_run(const explain_options *o, explain_result *out, ice_err *e);
void explain_free(explain_result *r);



#endif
