/* calibrate.h - how much do times differ on this machine where nothing changed, and what can be told from that?
 *
 * The same cell is measured again and again (A/A), each time in as many processes as `measure.processes` says. Every two measurements
 * are compared as `compare` would compare them. The noise floor is the gate that such comparisons exceed in at most the stated share
 * of cases; the power of a slowdown is the share of comparisons in which measurements that were slowed by so much exceed it. */
#ifndef ICE_CALIBRATE_H
#define ICE_CALIBRATE_H

#include "harness/stats.h"

enum { CALIBRATE_SLOWDOWNS = 3 };
extern const double calibrate_slowdowns[CALIBRATE_SLOWDOWNS]; /* 1, 2, 5 % */

/** The floor for a rate of false alarms, from n measurements, each the rounds of one or more processes. Taken is the quantile at
 *  1 - rate / 2: a few dozen measurements know the tail of their own comparisons badly. NAN when there are fewer than two, or
 *  some of fewer than STATS_LEAST samples. */
double calibrate_floor(const stats_runs *same, size_t n, double rate);
/** Share of the pairs (slowed, same) that a gate at `floor` calls slower. NAN as above. */
double calibrate_power(const stats_runs *slowed, size_t n_slowed, const stats_runs *same, size_t n_same, double floor);

#endif
