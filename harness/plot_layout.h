/* plot_layout.h - axes and places of labels, so that no label of a chart covers another, a point or the frame. */
#ifndef ICE_PLOT_LAYOUT_H
#define ICE_PLOT_LAYOUT_H

typedef struct plot_axis {
  int log;
  double lo, hi; /* of what was added; lo > hi: nothing yet */
} plot_axis;

/** An axis without values. */
plot_axis plot_axis_start(int log);
/** Widens it to hold a value; NAN, and what a logarithmic axis cannot show, is left out. */
void plot_axis_add(plot_axis *a, double value);
/** Adds room at both ends, as shares of its length; an axis of a single value becomes one around it. */
void plot_axis_pad(plot_axis *a, double below, double above);
/** Place of a value, 0 at lo and 1 at hi (NAN if it has none), and back. */
double plot_axis_unit(const plot_axis *a, double value);
double plot_axis_value(const plot_axis *a, double unit);

/** A point of a chart; x, y in 0..1 (NAN: not drawn). Consecutive points of one series are joined by a line. */
typedef struct plot_point {
  double x, y;
  int series;
  const char *label;       /* NULL: none */
  double label_x, label_y; /* out: middle of the label in 0..1, NAN where there is no room for it */
} plot_point;

/** Chooses a place beside its point for each label. Deterministic. */
void plot_place_labels(plot_point *p, int n);

#endif
