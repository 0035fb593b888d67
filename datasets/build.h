/* build.h - what loaders share: examples of unknown number gathered one by one, rules of the LRA pipelines. */
#ifndef ICE_BUILD_H
#define ICE_BUILD_H

#include "datasets/task.h"

/** Gathers examples into a task_data. Zeroed but for d, inputs of *d set: empty. On any failure task_data_free(d). */
typedef struct task_builder {
  task_data *d;
  int64_t token_room, row_room;
  int64_t sequences; /* closed so far */
} task_builder;

/** Room for a sequence of up to `most` ids at *ids. ICE_INTERNAL when out of memory. */
int task_build_room(task_builder *b, int64_t most, int32_t **ids, ice_err *e);
/** Closes it: n ids were written. */
void task_build_close(task_builder *b, int64_t n);
/** Ends an example, whose d->inputs sequences are closed. */
void task_build_example(task_builder *b, int32_t label);
/** Gives back the slack. ICE_DATA, with the name of the source, when there is no example. */
int task_build_finish(task_builder *b, const char *name, ice_err *e);

/** A text as bytes: id = byte + 1, at most `most` of them. An empty text is one masked position. */
int task_build_text(task_builder *b, const uint8_t *p, size_t n, int64_t most, ice_err *e);
/** An image as pixels: id = gray value, black = masked; masked ones at the end are not stored, but for one of an all-black image. */
int task_build_pixels(task_builder *b, const uint8_t *p, int64_t n, ice_err *e);
/** Without white space (of ASCII) at both ends. */
void task_strip(const uint8_t **p, size_t *n);

/** permutation [n] of 0..n-1 by a fixed seed: what the LRA code splits at random, without saying how, is split by this. */
void task_permute(uint64_t seed, int64_t n, int64_t *permutation);
/** "%.*s" of the path into d->origin. */
void task_set_origin(task_data *d, const char *path);

#endif
