/* train_files.h - what a training leaves on disk while it runs: a state to resume from, and a log. */
#ifndef ICE_TRAIN_FILES_H
#define ICE_TRAIN_FILES_H

#include <stdint.h>
#include <stdio.h>

#include "kernels/core/err.h"

/** Everything that decides how a training goes on. The vectors are the caller's, n_params floats each. */
typedef struct train_state {
  int64_t step; /* steps done */
  int64_t best_step;
  double best_accuracy; /* on the dev split, -1 before the first evaluation */
  double loss_sum;      /* since the last row of the log, over loss_count sequences */
  int64_t loss_count;
  int64_t n_params;
  float *params, *m, *v; /* weights, first and second moments of Adam */
} train_state;

/** Writes the state whole or not at all (safetensors; numbers in the metadata, exact). */
int train_state_write(const char *path, const char *description, const train_state *s, ice_err *e);
/** Reads a state written for the same description; *found = 0 when there is no such file. ICE_USAGE when it belongs to
 *  another description, ICE_DATA when it is damaged or has no hash. */
int train_state_read(const char *path, const char *description, train_state *s, int *found, ice_err *e);

/** 1 when the training of this description is complete: its checkpoint stands at path and its log holds a row of the
 *  last step. */
int train_finished(const char *path, const char *log_path, const char *description, int64_t steps);

/** Opens the log for appending after dropping rows of steps past `step` (0: a new log). */
int train_log_open(const char *path, int64_t step, FILE **out, ice_err *e);
/** One row; dev_accuracy NAN: none at this step. */
int train_log_row(FILE *f, const char *path, int64_t step, double lr, double loss, double dev_accuracy, ice_err *e);
/** Puts the rows on disk: before a state is written, so that no state is ahead of its log. */
int train_log_sync(FILE *f, const char *path, ice_err *e);

#endif
