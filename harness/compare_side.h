/* compare_side.h - one side of a comparison: the cells of a database, of a commit or of an experiment, ready to be matched. */
#ifndef ICE_COMPARE_SIDE_H
#define ICE_COMPARE_SIDE_H

#include <stdio.h>

#include "harness/items.h"
#include "harness/report_rows.h"
#include "harness/store.h"

typedef struct compare_cell {
  int row;               /* of the side's rows: the one that counts                        */
  char *identity;        /* text that both sides of a cell share; owned                     */
  size_t asked;          /* so many bytes of it say what was asked for, not what came of it */
  double *ns;            /* samples of the attention time, process after process; owned     */
  size_t *runs;          /* [n_runs] samples of each process, of all its rows; owned         */
  size_t n_runs, n_ns;
  items items;           /* how its examples were marked; owned                             */
} compare_cell;

typedef struct compare_side {
  char name[256];    /* as given */
  char commit[64];   /* of the rows; "" when they are of several */
  report_rows rows;  /* every row that may count */
  report_rows floor; /* noise floors in the database, newest first */
  compare_cell *cell;
  int n;
} compare_side;

/** Reads `spec`: FILE.db, or FILE.db#WHAT, or WHAT in the database `db`. WHAT is a commit (4 hexadecimal digits or more; its rows of all
 *  times), `HEAD`, `merge-base` or `merge-base:BRANCH` (the commit where the tree at hand left BRANCH, main if not said), or an experiment.
 *  ICE_DB: a database that cannot be read, or rows that contradict themselves (samples and median, a number that is none, a
 *  digest that does not fit). ICE_NO_VERDICT when WHAT names nothing. */
int compare_side_read(const char *spec, const char *db, compare_side *out, ice_err *e);
void compare_side_free(compare_side *s);

/** Value of a column of the row that counts, NAN or NULL when unknown. */
double compare_value(const compare_side *s, const compare_cell *c, const char *column);
const char *compare_text(const compare_side *s, const compare_cell *c, const char *column);

#endif
