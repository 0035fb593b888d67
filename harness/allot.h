/* allot.h - one option for each of several takers, such as a number of keys for each head: least of one sum within bounds of the
 * others.
 *
 * What an option costs a taker is a row of three numbers; sums over takers are what counts. The search starts from a choice
 * within the bounds and changes one or two takers at a time, the best change first, as long as there is one: the result is never worse
 * than the start, depends on nothing but the numbers, and two changes at once let one taker pay for another. */
#ifndef ICE_ALLOT_H
#define ICE_ALLOT_H

enum { ALLOT_EFFECT, ALLOT_PAIRS, ALLOT_KEYS, ALLOT_SUMS };

typedef struct allot_table {
  int takers, options;
  const double *cost; /* [takers, options, ALLOT_SUMS], all >= 0 */
} allot_table;

/** Sum of one column over the takers with these picks [takers]. */
double allot_sum(const allot_table *t, const int *pick, int column);
/** Lowers sum_c weight[c] * (sum of column c); sums stay at most `bound` (INFINITY: free). pick: in a choice within the bounds, out the
 *  improved one. */
void allot_improve(const allot_table *t, const double weight[ALLOT_SUMS], const double bound[ALLOT_SUMS], int *pick);

#endif
