/* report.h - tables from the view `results`. */
#ifndef ICE_REPORT_H
#define ICE_REPORT_H

#include <stdio.h>

#include "harness/store.h"

typedef enum report_format { REPORT_MD, REPORT_CSV, REPORT_JSON, REPORT_LATEX, REPORT_HTML } report_format;

/** Names of the formats in their order, NULL-terminated: md csv json latex html. */
extern const char *const report_formats[];

/** Writes the rows of an experiment (NULL: of all) to f. csv and json carry every column of `results`; the others the
 *  table for people, with a legend. published: text of a file of results/published/, or NULL. ICE_NO_VERDICT when there
 *  is nothing to report. */
int report_write(store *s, const char *experiment, report_format format, const char *published, FILE *f, ice_err *e);

#endif
