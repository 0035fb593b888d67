/* measure_store.h - a measurement in the names of the database: metrics and samples of one method. */
#ifndef ICE_MEASURE_STORE_H
#define ICE_MEASURE_STORE_H

#include "harness/measure_method.h"
#include "harness/quality.h"
#include "harness/store.h"

enum { MEASURE_METRICS = 15 };

/** Columns of a measurement: the method's own and the two it is compared with (-1: not there). */
typedef struct measure_columns {
  int own, vanilla, dense;
} measure_columns;

/** Fills out [MEASURE_METRICS]: times, speed-ups, errors (q, may be NULL), pairs and bytes (cost, may be NULL), rounds. What is
 *  unknown is NAN. Names are static. */
void measure_metrics(const measure_result *r, measure_columns c, uint64_t seed, const measure_cost *cost,
                     const quality *q, store_metric *out);
/** All samples of the columns, to free(); *count may be 0. The dense and vanilla samples are there too, because the
 *  speed-ups are made of them. NULL when memory is out. */
store_sample *measure_samples(const measure_result *r, measure_columns c, const char *method, int *count);

/** The parameters worth a look, "k=20 levels=2": k, and what is not the default; with a schedule (schedule.h; NULL: none) in place of
 *  what it sets. */
void measure_brief(const attn_method *m, const void *params, const char *schedule, char *out, size_t size);
/** "12.3 ms": nanoseconds with a fitting unit. */
void measure_print_ns(double ns, char *out, size_t size);

#endif
