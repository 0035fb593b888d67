/* history.h - each cell over all its measurements, and where its level changed.
 *
 * A database keeps every attempt; merged ones keep those of other checkouts. Per cell and machine the attempts are put in the
 * order of time and searched for change points (stats_change.h), times and sizes as logarithms, so that equal steps are equal
 * factors. A step is named by the first commit of the new level: the cause lies there or after the commit before. */
#ifndef ICE_HISTORY_H
#define ICE_HISTORY_H

#include <jansson.h>

#include "harness/report_rows.h"

typedef struct history_line { /* one cell on one machine: rows [from, to) */
  int from, to;
  size_t *step, n_steps; /* owned; places in the line where a new level begins */
  double *level;         /* [to - from], owned: median of the level that a row is on */
} history_line;

typedef struct history {
  report_rows rows; /* columns name, method, params, n, seed, threads, task, model, cpu, git_commit, git_dirty, created_utc, value, lo, hi, cell */
  history_line *line; /* [n] owned */
  int n;
  int logarithmic; /* 1: all values are positive */
} history;

/** Reads a metric of finished attempts without noise (of an experiment; NULL: of all). ICE_NO_VERDICT when there is none. Free it in any
 *  case. */
int history_read(store *s, const char *metric, const char *experiment, history *h, ice_err *e);
void history_free(history *h);
/** What tells a line from the others, for people: method, parameters that are no defaults, n; seed, threads and machine where they differ. Cut to size. */
void history_name(const history *h, const history_line *l, char *out, size_t size);
/** Text of a row, "" when unknown. */
const char *history_text(const history *h, int row, const char *column);
/** A line with its points and steps; NULL when out of memory. */
json_t *history_line_json(const history *h, const history_line *l, const char *metric);

#endif
