/* report_iso.h - `report --iso-accuracy 0.99`: how much faster at (nearly) the accuracy of exact attention?
 *
 * Choice    Of every approximate method in a model, among its settings with rows of the dev split: the fastest against `dense` that keeps
 *           at least the bound of the accuracy of `dense`, by its point estimate or, on request, by the lower end of its interval.
 * Proof     The same setting on the test split, which had no part in the choice: retention and both speed-ups, with intervals.
 * Retention accuracy / accuracy of `dense` on the same examples, seeds pooled; 95 % interval of paired shares (stats.h). Speed-ups of several
 *           seeds are their mean, within the hull of their intervals.
 * Rows of both splits have one experiment: `run FILE --set split=dev`, then `run` of the file that is written here. */
#ifndef ICE_REPORT_ISO_H
#define ICE_REPORT_ISO_H

#include <stdio.h>

#include "harness/report.h"

typedef struct report_iso {
  double bound;     /* of the retention, above 0 */
  int lower;        /* 1: the lower end of the interval must reach it */
  const char *out;  /* NULL, or a file: an experiment with what was chosen, on the test split; takes report_options.experiment */
} report_iso;

/** Writes the choices to f: csv and json one record for each method in each model, else tables. ICE_NO_VERDICT when no row is of the
 *  dev split. */
int report_iso_write(store *s, const report_options *o, const report_iso *iso, FILE *f, ice_err *e);

#endif
