/* stats_change.h - where does a series of measurements change its level?
 *
 * E-divisive (Matteson & James 2014): the place that separates two stretches best, by the energy distance between them, is a
 * change point when shuffled values are hardly ever separated as well. Then each side is searched again. No distribution is
 * assumed, so single outliers, of which histories of timings are full, do not count as steps. Two things are simpler than in the
 * paper: a stretch is searched up to its end, and shuffled as a whole, alone. */
#ifndef ICE_STATS_CHANGE_H
#define ICE_STATS_CHANGE_H

#include <stddef.h>
#include <stdint.h>

enum { STATS_CHANGE_STRETCH = 3 }; /* values that a level needs at least */

/** Finds the change points of x [n], ascending: at[i] is the first index of a new level; at has room for n. A series without
 *  change yields one all the same in at most 5 of 100 cases. Values that are not finite are an error: 0 points. Times belong
 *  in here as logarithms, so that equal steps are equal factors. Time grows with n^2. Returns how many. */
size_t stats_change_points(const double *x, size_t n, uint64_t seed, size_t *at);

#endif
