/* schedule.h - values of a method's parameters by layer and head.
 *
 * In an experiment, among the parameters of a method:
 *
 *     - iceformer: {comp: 2, schedule: {k: [[8, 64], 32]}}
 *
 * A parameter has a list of layers; a layer is a list of heads, or one value for all of them. Everything else is the same for
 * all heads. In canonical parameters (and so in the key of a result) the schedule stands at the end, in place of the
 * parameters that it sets: {"comp":2,"schedule":{"k":[[8,64],32]}}. Sizes are compared with the model's where it is known. */
#ifndef ICE_SCHEDULE_H
#define ICE_SCHEDULE_H

#include "harness/yaml.h"
#include "kernels/attn.h"
#include "models/encoder.h"

/** The mapping under `schedule` as canonical JSON, to free(). ICE_USAGE when a parameter is unknown, a value not allowed, the
 *  shape none, or the method learns tensors for all heads together. */
int schedule_read(yaml_node *n, const attn_method *m, char **json, ice_err *e);
/** Canonical parameters with the schedule (NULL: none) in them, to free(); NULL when out of memory. */
char *schedule_params_json(const attn_method *m, const void *params, const char *schedule);
/** Does a schedule (NULL: none) set this parameter? */
int schedule_sets(const char *schedule, const char *key);

typedef struct head_schedule { /* what each head of a model gets */
  encoder_head *head; /* [layers, heads], for encoder_slot.heads; NULL: there is no schedule */
  char *params;       /* where they point: heads of a layer with equal values share */
} head_schedule;

/** Reads the schedule in canonical parameters for a model of so many layers and heads; `base` has the other parameters. ICE_USAGE
 *  when the sizes differ, or a value is not allowed. To schedule_close() in any case. */
int schedule_open(head_schedule *s, const attn_method *m, const void *base, const char *params_json, int layers, int heads, ice_err *e);
void schedule_close(head_schedule *s);

#endif
