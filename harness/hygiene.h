/* hygiene.h - was the machine fit to be measured on while a cell ran?
 *
 * Sentinel     a kernel of fixed work, timed before and after the cell. If it moved, the machine did.
 * Readings     load, clock rate, throttling, swap, stolen time, preemptions: before and after, from /proc and /sys.
 * Counters     instructions, cycles, cache misses of the method's timed passes, through perf_event where the kernel allows it.
 * Affinity     one core for each thread, so that nobody wanders.
 *
 * What cannot be read is NAN, which is NULL in the database. The numbers are metrics of the row; harness/sql/ has them as
 * view `hygiene`. */
#ifndef ICE_HYGIENE_H
#define ICE_HYGIENE_H

#include <stddef.h>

#include "harness/store.h"

typedef struct hygiene_reading {
  double sentinel_ns;
  double load;          /* processes that ran or wanted to, mean of a minute             */
  double mhz;           /* mean of the cores                                             */
  double throttles;     /* events of all cores since the machine started                 */
  double swapped_pages; /* in and out, since then                                        */
  double stolen_ms;     /* by other guests of the host, since then                       */
  double preemptions;   /* times that this process was interrupted for another one       */
} hygiene_reading;

enum { HYGIENE_COUNTERS = 4, HYGIENE_METRICS = 14 };

typedef struct hygiene {
  hygiene_reading before, after;
  int counter[HYGIENE_COUNTERS]; /* file descriptors, -1: not allowed or not there */
  int passes;
} hygiene;

/** Takes the first reading and opens the counters. Call it before the process has other threads: theirs are counted only if
 *  they start later. affinity > 0: pins the process to so many cores first. */
void hygiene_begin(hygiene *h, int affinity);
/** measure_plan.around: counts what happens between begins = 1 and 0. */
void hygiene_around(void *h, int begins);
/** Takes the second reading; fills out [HYGIENE_METRICS] and closes the counters. Counts are means of a pass. */
void hygiene_end(hygiene *h, store_metric *out);

/** Why a cell with these metrics should not be believed, when a sentinel may move by the share `limit`: one line in out, which is ""
 *  when there is nothing to say. Returns 1 when there is. Metrics that are not there say nothing. */
int hygiene_noise(const store_metric *metric, int n, double limit, char *out, size_t size);

/** Nanoseconds of the fixed work: median of nine tries. */
double hygiene_sentinel(void);
/** Cores for `threads` threads out of those that `allowed` lists by core (equal ids share a physical core): one thread of each
 *  physical core first, from the highest number down, since interrupts like the lowest. Writes their places; returns how many. */
int hygiene_choose_cores(const int *core_id, int n, int threads, int *out);

#endif
