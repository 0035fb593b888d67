/* plot_script.h - the gnuplot side of a chart: the script that draws it, and running gnuplot on it. */
#ifndef ICE_PLOT_SCRIPT_H
#define ICE_PLOT_SCRIPT_H

#include "harness/plot_layout.h"
#include "kernels/core/err.h"

/** One line of the legend. */
typedef struct plot_series {
  char name[200];      /* "iceformer levels=2 (no retraining)" */
  const char *method;
  int color, shape;    /* places in the palette and in the list of point shapes */
} plot_series;

/** Everything a script needs. */
typedef struct plot_script {
  const char *folder, *stem;    /* folder/stem.gp draws folder/stem.dat into folder/stem.<terminal> */
  const char *terminal;         /* svg, png, pdf: see plot_terminal_known */
  const char *subject;          /* what the chart is about, one line */
  const char *machine, *build;  /* two lines at the foot */
  const char *body;             /* text of plots/<figure>.gp */
  const plot_series *series;    /* [n] in the order of the legend */
  int n;
  plot_axis x, y;               /* what the axes must hold */
} plot_script;

enum { PLOT_GREY, PLOT_BLACK, PLOT_FIRST_COLOR, PLOT_COLORS = 8 };

/** 1 when there is such a terminal. */
int plot_terminal_known(const char *name);
/** Writes the script: whole or not at all. */
int plot_script_write(const plot_script *p, ice_err *e);
/** Runs gnuplot on it, without a shell. ICE_INTERNAL says what to install, or what gnuplot said. */
int plot_script_run(const plot_script *p, ice_err *e);

#endif
