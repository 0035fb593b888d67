/* calibrate.h - how much do times differ on this machine where nothing changed, and what can be told from that?
 *
 * The same cell is run again and again, each time in a process of its own (A/A). Every two runs are compared as `compare` would
 * compare them. The noise floor is the gate that such comparisons exceed in at most the stated share of cases; the power of
 * a slowdown is the share of comparisons in which runs that were slowed by so much exceed it. */
#ifndef ICE_CALIBRATE_H
#define ICE_CALIBRATE_H

#include "harness/stats.h"

enum { CALIBRATE_SLOWDOWNS = 3 };
extern const double calibrate_slowdowns[CALIBRATE_SLOWDOWNS]; /* 1, 2, 5 % */

/** The floor for a rate of false alarms. Taken is the quantile at 1 - rate / 2: a few dozen runs know the tail of their own
 *  comparisons badly. NAN when there are fewer than two runs, or some of fewer than STATS_LEAST samples. */
double calibrate_floor(stats_runs same, double rate);
/** Share of the pairs (slowed run, run) that a gate at `floor` calls slower. NAN as above. */
double calibrate_power(stats_runs slowed, stats_runs same, double floor);

#endif
