/* explain_heads.h - the errors of single heads: one part of explain.h. */
#ifndef ICE_EXPLAIN_HEADS_H
#define ICE_EXPLAIN_HEADS_H

#include "harness/explain.h"
#include "harness/quality.h"

/** The values tried are those of the run times these: first the run's own. */
extern const double explain_factor[EXPLAIN_VALUES];

typedef struct explain_sums { /* of one head over all calls; start with zeros */
  quality_sums own, best; /* the method with its key sets; topk with the same k */
  struct {
    double diff2, pairs, keys; /* sums over rows; keys stays 0 for methods without key sets */
  } value[EXPLAIN_VALUES];
  double moved;    /* sum of ||change of logits||^2, this head alone */
  int64_t changed; /* answers */
} explain_sums;

typedef struct explain_heads {
  const explain_options *o;
  int layers, heads;
  char *params;       /* [layers, heads, EXPLAIN_VALUES] structs of the method, owned */
  void *topk_params;  /* owned; NULL: no perfect search to compare with */
  explain_sums *sums; /* [layers, heads], owned */
  int rc;             /* of the first call that failed; later ones are passed over */
  ice_err err;
} explain_heads;

/** Sets up parameters and sums. ICE_USAGE when the parameter is 0 in some head. To explain_heads_close() in any case. */
int explain_heads_open(explain_heads *h, const explain_options *o, ice_err *e);
void explain_heads_close(explain_heads *h);
/** Parameters of a head (by number, layer by layer) with value v; the value itself. */
const void *explain_heads_params(const explain_heads *h, int head, int v);
double explain_heads_value(const explain_heads *h, int head, int v);
/** An observer of calls: takes each head of the call through the method with every value. ctx is an explain_heads. */
void explain_heads_look(void *ctx, const encoder_call *call);

#endif
