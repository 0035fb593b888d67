/* report_rows.h - rows of the view `results` as text, in the order in which people read them. */
#ifndef ICE_REPORT_ROWS_H
#define ICE_REPORT_ROWS_H

#include <stddef.h>

#include "harness/store.h"

typedef struct report_rows {
  int columns, n, room;
  char **name; /* [columns] */
  char **cell; /* [n * columns], NULL = unknown */
} report_rows;

/** Reads the rows of an experiment (NULL: of all) and sorts them: experiment, task, model, threads, instruction set,
 *  machine; then methods as the registry lists them and parameters by value. *r is zeroed first; free it in any case. */
int report_rows_read(store *s, const char *experiment, report_rows *r, ice_err *e);
/** Reads the rows of any SELECT with bound texts, in its order. *r is zeroed first; free it in any case. */
int report_rows_select(store *s, const char *sql, const char *const *bind, int n_bind, report_rows *r, ice_err *e);
void report_rows_free(report_rows *r);

/** Text of a column, NULL when unknown (or no such column). */
const char *report_rows_text(const report_rows *r, int row, const char *column);
/** The same as a number; NAN when unknown. */
double report_rows_value(const report_rows *r, int row, const char *column);
/** Rows [from, this) belong into one table: same experiment, task, model, threads, instruction set, machine. */
int report_rows_group_end(const report_rows *r, int from);
/** Place of a method in the registry; methods that are not in it come last. */
int report_rows_rank(const char *method);
/** "k=16 levels=2": k, and what differs from the method's defaults; all of it for a method that is not in the registry. Owned by
 *  the caller; NULL when out of memory. */
char *report_rows_params(const report_rows *r, int row);
/** Number of different known texts of a column in rows [from, to), counted up to REPORT_DISTINCT. With out: "a, b", or
 *  "a, b, c, d, ..." where there are more. */
enum { REPORT_DISTINCT = 5 };
int report_rows_distinct(const report_rows *r, int from, int to, const char *column, char *out, size_t size);

/** A label is a list, "generated data, no retraining". Writes the parts of it that are (wanted) or are not in the other. */
void report_label_parts(const char *label, const char *other, int wanted, char *out, size_t size);
/** The parts that the labels of rows [from, to) have in common. */
void report_rows_shared_label(const report_rows *r, int from, int to, char *out, size_t size);

/** Adds columns without values. ICE_INTERNAL when out of memory. */
int report_rows_widen(report_rows *r, const char *const *names, int n_names, ice_err *e);
/** Sets a value of an added column; takes ownership of text. */
void report_rows_set(report_rows *r, int row, const char *column, char *text);

#endif
