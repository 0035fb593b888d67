/* report_verdicts.h - `report --against paper`: every published value with ours and a verdict. */
#ifndef ICE_REPORT_VERDICTS_H
#define ICE_REPORT_VERDICTS_H

#include <stdio.h>

#include "harness/report.h"
#include "harness/report_paper.h"

/** Writes the comparison with published (text of results/paper/lra-*.csv) to f: csv and json one record a published value, the
 *  others tables by task, what iceformer's speed-up is made of, sources and legend. ICE_NO_VERDICT when an experiment is named
 *  that has no rows, ICE_DATA when the published values are malformed. */
int report_verdicts_write(store *s, const report_options *o, const char *published, FILE *f, ice_err *e);

#endif
