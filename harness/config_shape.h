/* config_shape.h - experiments on synthetic tensors: `task: synth/clustered` with `shape: {h: 1, n: [1024, 4096], d: 64}` instead
 * of a model. A cell's tensors are a source of synth.h, its seed the seed of the cell; its model is the shape without n,
 * "h=1,d=64", so that rows of one model differ in their length. With `nk` there are n queries on nk keys; the length of a row is
 * nk and its model "h=1,d=64,nq=1000". */
#ifndef ICE_CONFIG_SHAPE_H
#define ICE_CONFIG_SHAPE_H

#include "datasets/task.h"
#include "harness/yaml.h"

enum { CONFIG_SHAPE_KEYS = 5 };

typedef struct config_shapes {
  yaml_node *list[CONFIG_SHAPE_KEYS]; /* d, causal, h, nk, n: values or lists; NULL: the default of synth.h. n turns fastest */
} config_shapes;

/** The task of a name such as "synth/clustered" of which there is a source of tensors; NULL otherwise. It has no examples. */
const task *config_shape_task(const char *name);
/** Reads the mapping, or one key of it. ICE_USAGE on any fault. */
int config_shapes_read(config_shapes *s, yaml_node *map, ice_err *e);
int config_shapes_set(config_shapes *s, const char *key, yaml_node *n, ice_err *e);
/** Does a source (text of synth.h) have one of the values given for every key? A key without values matches all. */
int config_shapes_match(const config_shapes *s, const char *source);
/** Is this the name of a key of shapes? */
int config_shape_key(const char *key);
/** Combinations, at most a few million times millions: as a double. */
double config_shapes_count(const config_shapes *s);
/** Combination i as source and as model; both to free(). ICE_USAGE when the source is none (synth.h has the limits). */
int config_shapes_make(const config_shapes *s, int64_t i, const task *t, uint64_t seed, char **source, char **model,
                       ice_err *e);

#endif
