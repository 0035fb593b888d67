/* plot.h - charts from the database by gnuplot: plots/<figure>.sql + plots/<figure>.gp. */
#ifndef ICE_PLOT_H
#define ICE_PLOT_H

#include "harness/store.h"

typedef struct plot_options {
  const char *experiment; /* NULL: all */
  const char *out;        /* folder for picture, script and data */
  const char *terminal;   /* svg, png, pdf */
  const char *figure;     /* one figure, or NULL: all */
  int quiet;
} plot_options;

/** The paper's latency figure from our rows, with what was published as marks: see plot_paper.c. published: text of
 *  results/paper/lra-*.csv. ICE_NO_VERDICT when we have no row of it. */
int plot_paper_draw(store *s, const plot_options *o, const char *published, ice_err *e);

/** Draws the figures that have rows: one of each for every task, model, number of threads, instruction set and machine of
 *  an experiment. ICE_NO_VERDICT when none has, ICE_USAGE for an unknown figure or terminal, ICE_INTERNAL when gnuplot is
 *  missing or fails (its own message is passed on). */
int plot_draw(store *s, const plot_options *o, ice_err *e);

#endif
