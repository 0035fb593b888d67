/* report_paper.h - published figures beside ours.
 *
 * File: lines of `task,method,model,accuracy,seconds,retention` after that header; unknown fields are empty; model is the
 * last part of a model's name (who was trained), empty for any. Lines that start with # say where the figures come from. */
#ifndef ICE_REPORT_PAPER_H
#define ICE_REPORT_PAPER_H

#include "harness/report_rows.h"
#include "harness/report_table.h"

enum { PAPER_FIELD = 64 };
typedef struct report_figure {
  char task[PAPER_FIELD], method[PAPER_FIELD], model[PAPER_FIELD];
  double accuracy, seconds, retention, speedup; /* NAN = unknown; speedup: seconds of vanilla / seconds */
} report_figure;

typedef struct report_paper {
  report_figure *figure;
  int n, notes;
  char **note; /* [notes] where the figures come from */
} report_paper;

/** Reads the file. *p is zeroed first; free it in any case. ICE_DATA names the line at fault. */
int report_paper_parse(const char *text, report_paper *p, ice_err *e);
void report_paper_free(report_paper *p);
/** Adds the columns paper_accuracy, paper_attention_s, paper_speedup_vanilla, paper_retention to the rows. */
int report_paper_join(const report_paper *p, report_rows *r, ice_err *e);
/** A table of rows [from, to) against the figures of their task, then the figures without a row. ours holds the cells of
 *  these rows; pick names the columns in it: method, parameters, accuracy, speed-up, retention. */
int report_paper_print(const report_paper *p, const report_rows *r, int from, int to, const report_table *ours,
                       const int pick[5], const report_options *o, FILE *f, ice_err *e);

#endif
