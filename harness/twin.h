/* twin.h - the deterministic twin of a cell: the instructions of one pass, counted by valgrind's callgrind.
 *
 * Clocks jitter, counts do not: on a noisy machine (CI) a count shows a change of half a per cent. It says nothing about caches,
 * vector width or threads: the twin runs on one thread, with the widest instruction set that valgrind knows (AVX2). */
#ifndef ICE_TWIN_H
#define ICE_TWIN_H

#include "harness/cell.h"
#include "harness/run_child.h"

/** Instructions of one timed pass of the job's method (its timed set, once). `self` is this program. NAN with a reason in *e when
 *  valgrind is not there, or the cell does not end under it. */
double twin_count(const char *self, const cell_job *job, const run_limits *limits, const volatile sig_atomic_t *stop, ice_err *e);

/** The count in the text that callgrind leaves ("==7== Collected : 123"), NAN when there is none. */
double twin_read(const char *log);

#endif
