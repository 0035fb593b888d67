/* recipe.h - training files: YAML in, one checked recipe out. Read by the verbs train, check, list. */
#ifndef ICE_RECIPE_H
#define ICE_RECIPE_H

#include <stdint.h>

#include "datasets/task.h"
#include "harness/yaml.h"
#include "kernels/attn.h"

typedef struct recipe {
  const char *name, *out, *init; /* init: NULL for random weights; texts live in the document */
  const task *task;
  const attn_method *method; /* has a training part */
  void *params;              /* of the method; owned */
  int shared_qk;             /* 1: the model has no W_k */
  int64_t seed, batch, steps, warmup, eval_every, save_every, threads, dev_examples; /* dev_examples: 0 = all */
  int64_t hold_out; /* training examples that serve as dev split; 0: the task's own */
  double lr, dropout;
} recipe;

/** Is this a training, and no experiment? It names the checkpoint to write. */
int recipe_is_one(yaml_doc *doc);
/** Reads all of it, with defaults. ICE_USAGE with place, value and what is allowed. */
int recipe_read(yaml_doc *doc, recipe *out, ice_err *e);
/** Frees what recipe_read took, also after a failure. */
void recipe_free(recipe *r);

#endif
