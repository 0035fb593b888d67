/* published.h - published values of LongEval and ZeroSCROLLS (results/paper/longeval.csv), for charts and for a table beside ours.
 *
 * Lines of `task,method,model,length,metric,value,error,source`: length in lines or topics, 0 where there is none; metric accuracy or
 * attention_s, seconds of attention for one prompt; error the relative error of reading the value. Lines with # say where they come from.
 * (The values of the Long Range Arena have verdicts of their own: report_paper.h.) */
#ifndef ICE_PUBLISHED_H
#define ICE_PUBLISHED_H

#include <stdio.h>

#include "harness/report.h"
#include "harness/store.h"

/** The values of a file's text as a JSON array of objects with the names of the header. To free(). ICE_DATA names the line at fault. */
int published_parse(const char *text, char **json, ice_err *e);
/** The same of the shipped file. */
int published_read(char **json, ice_err *e);
/** A table of the finished rows of an experiment (NULL: of all) beside what was published for their task, method and length; ratios against
 *  vanilla, since machines differ. *n: rows printed; nothing is printed when there are none. */
int published_write(store *s, const report_options *o, FILE *f, int *n, ice_err *e);

#endif
