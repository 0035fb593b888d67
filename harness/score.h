/* score.h - marks once more: of the answers and predictions that the database keeps, by the rules of this program.
 *
 * Answers never change; marks are computed from them and may be put into a row anew (store_remark), for when a rule was wrong. */
#ifndef ICE_SCORE_H
#define ICE_SCORE_H

#include <stdio.h>

#include "harness/marks.h"
#include "harness/store.h"

typedef struct score_row {
  int64_t id; /* of the cell */
  char *task, *model, *method, *params, *label; /* owned; label may be NULL */
  uint64_t seed;
  int64_t length, answers, examples, partial;
  store_metric stored;                 /* accuracy as it is in the database; NAN: none */
  store_metric metric[MARKS_METRICS];  /* as computed; [0] is the accuracy */
  int n_metrics, differs;              /* differs: something in the row is not as computed */
  store_answer *answer;                /* [n_answers], owned with their texts; marks as computed */
  int n_answers;
} score_row;

typedef struct score {
  score_row *row;
  int n, room;
} score;

/** Reads and marks the finished rows of an experiment that match the filter KEY=VALUE,... (task, model, method, seed; may be NULL).
 *  ICE_NO_VERDICT when there are none. */
int score_read(store *s, const char *experiment, const char *filter, score *out, ice_err *e);
/** Puts computed marks into the rows that differ; how many in *changed. */
int score_write(store *s, const score *m, int *changed, ice_err *e);
void score_free(score *m);

/** Lines of text, a row each, and the average of the tasks of ZeroSCROLLS for every model and method that has some of them. */
void score_print(const score *m, FILE *f);
/** The same as JSON. */
int score_print_json(const score *m, ice_err *e);
/** Writes the predictions for the leaderboard of ZeroSCROLLS: Task,ID,Prediction. The rows must be of one model and method; *absent: tasks of
 *  the ten that are not among them or have not all examples. ICE_USAGE when there are several, ICE_NO_VERDICT when there is none. */
int score_submission(const score *m, const char *path, int *absent, ice_err *e);

#endif
