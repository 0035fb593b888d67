/* results.h - a small database of results whose every fact is fixed, machine included. */
#ifndef TEST_RESULTS_H
#define TEST_RESULTS_H

#include "harness/store.h"

/** Makes the database at path: experiment "demo" with rows of every kind (exact, approximate, partial, late, broken, untrained),
 *  stored in no order. Returns 0, or 1 after printing why. */
int results_make(const char *path);
/** A new folder (scratch.h) with an empty database, open for writing, and the way back: for the setup and teardown of
 *  cmocka. Times are stored in every build variant. */
int results_setup(void **state, store **s);
int results_teardown(void **state, store *s);
/** Stores one more row; the machine is this one. Fails the test when it cannot. Times in milliseconds, NAN = unknown. */
typedef struct results_row {
  const char *experiment, *task, *method, *params, *status, *reason, *label;
  double accuracy, ms, vanilla, dense, error, mass;
  uint64_t seed;
  int64_t examples;
  int partial;
  int64_t n;     /* 0: 1,032 */
  double recall; /* 0: unknown */
  int64_t length; /* 0: none; otherwise one timed input too */
  const char *config; /* the cell as configured; NULL: unknown */
  const store_prediction *prediction;
  int n_predictions;
  const store_answer *answer;
  int n_answers;
} results_row;
void results_put(store *s, const results_row *row);

#endif
