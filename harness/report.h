/* report.h - tables from the view `results`. */
#ifndef ICE_REPORT_H
#define ICE_REPORT_H

#include <stdio.h>

#include "harness/store.h"

typedef enum report_format { REPORT_MD, REPORT_CSV, REPORT_JSON, REPORT_LATEX, REPORT_HTML } report_format;

/** Names of the formats in their order, NULL-terminated: md csv json latex html. */
extern const char *const report_formats[];

typedef struct report_options {
  const char *experiment; /* NULL: all */
  report_format format;
  int width;              /* characters in a line of the terminal: wider Markdown tables are cut; 0: no limit */
} report_options;

/** Writes the rows to f: csv and json carry every column of `results`, the others the table for people with a legend.
 *  ICE_NO_VERDICT when there is nothing to report. */
int report_write(store *s, const report_options *o, FILE *f, ice_err *e);

#endif
