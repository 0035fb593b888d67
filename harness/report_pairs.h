/* report_pairs.h - accuracy of the methods of a table, two at a time, on the examples that both were asked.
 *
 * Which    Rows of one table with the same seed, data and weights. Up to PAIRS_ALL such rows: every pair. More: each row against `dense`
 *          (`vanilla`, or the first row, where there is none), or what is asked in a sweep would drown in what is not.
 *          Exact attentions are compared with the reference only: their marks are its marks.
 * Test     McNemar's exact test where marks are hits, the sign-flip test where they are not (F1, ROUGE). p is Holm-adjusted over all
 *          pairs of the table. A tie is a pair whose adjusted p is 5 % or more; what would have been seen stands beside it.
 * Size     Difference of accuracies with the 95 % interval of a paired bootstrap; the interval is not widened for the number of pairs. */
#ifndef ICE_REPORT_PAIRS_H
#define ICE_REPORT_PAIRS_H

#include <jansson.h>
#include <stdio.h>

#include "harness/items.h"
#include "harness/report_rows.h"
#include "harness/report_table.h"
#include "harness/stats_tests.h"

enum { PAIRS_ALL = 10 };

typedef struct report_pair {
  int a, b;                  /* rows of the report; b is the reference, or the earlier row */
  int to_reference;          /* 1: b is the row that all are compared with */
  int hits;                  /* 1: marks are 0 or 1 */
  stats_pairs count;         /* shared examples, those on which a or b is better */
  stats_interval difference; /* accuracy of a - accuracy of b on them */
  double p, adjusted;        /* of the test; Holm-adjusted over the table */
  double detectable;         /* difference that one such test shows with power 80 %; NAN where marks are no hits */
} report_pair;

typedef struct report_pairs {
  report_pair *pair; /* [n] owned, table by table, in the order of their rows */
  int n, room;
} report_pairs;

/** How the examples of a row were marked; none for a row that is not finished. Free it in any case. */
int report_pairs_items(store *s, const report_rows *r, int row, items *out, ice_err *e);
/** Compares the rows of r (report_rows_read). Free it in any case. */
int report_pairs_read(store *s, const report_rows *r, report_pairs *out, ice_err *e);
void report_pairs_free(report_pairs *p);

/** "tie", "better" (a is), "worse", or "same predictions". */
const char *report_pair_verdict(const report_pair *p);
/** Prints the pairs of rows [from, to) under a heading; nothing where there are none. Not in HTML: a tie between two rows neither of which is
 *  the reference is only counted. used: marks columns whose legend is wanted. */
int report_pairs_print(const report_rows *r, const report_pairs *p, int from, int to, const report_options *o, int *used, FILE *f, ice_err *e);
/** The legend of the columns in use, as list items. */
enum { PAIRS_COLUMNS = 11 };
void report_pairs_legend(const int used[PAIRS_COLUMNS], const report_options *o, FILE *f);
/** Comparisons of this row with others as an array; never NULL unless memory is out. */
json_t *report_pairs_json(const report_rows *r, const report_pairs *p, int row);

#endif
