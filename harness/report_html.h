/* report_html.h - what makes an HTML report move: style, scripts and the data that they read. All of it is in the one file; a policy in its head
 * forbids the browser to fetch anything and to run any script but ours. */
#ifndef ICE_REPORT_HTML_H
#define ICE_REPORT_HTML_H

#include <stdio.h>

#include "harness/report_rows.h"

/** Everything up to <main>: policy, style, title. */
void report_html_start(FILE *f);
/** The data of the rows for charts and provenance: one script element of type application/json, with nothing in it that could end it. Rows as in
 *  report_record with `params_text`; tables as groups [from, to); further facts of builds by cell_id; history (history.h) of attention_ns. */
int report_html_data(store *s, const report_rows *r, const char *experiment, FILE *f, ice_err *e);
/** The scripts and the end. */
void report_html_end(FILE *f);

#endif
