/* plot_layout.c - see plot_layout.h. Greedy: the ends of the series choose first, then the points between; each label takes
 * the cheapest of sixteen places round its point, or none if all of them cover something. */
#include "harness/plot_layout.h"

#include <math.h>
#include <string.h>

/* --- axes ----------------------------------------------------------------------------------------------------------- */

plot_axis plot_axis_start(int log) { return (plot_axis){.log = log, .lo = INFINITY, .hi = -INFINITY}; }

static int shows(const plot_axis *a, double v) { return isfinite(v) && (!a->log || v > 0); }

void plot_axis_add(plot_axis *a, double v) {
  if (!shows(a, v)) return;
  a->lo = fmin(a->lo, v);
  a->hi = fmax(a->hi, v);
}

void plot_axis_pad(plot_axis *a, double below, double above) {
  if (!(a->lo <= a->hi)) a->lo = a->hi = 1;
  if (a->log) {
    if (a->hi < 1.2 * a->lo) a->lo /= 1.5, a->hi *= 1.5;
    const double length = log(a->hi / a->lo);
    a->lo *= exp(-below * length);
    a->hi *= exp(above * length);
  } else {
    if (a->hi - a->lo <= 1e-9 * fabs(a->hi)) a->lo -= 1, a->hi += 1;
    const double length = a->hi - a->lo;
    a->lo -= below * length;
    a->hi += above * length;
  }
}

double plot_axis_unit(const plot_axis *a, double v) {
  if (!shows(a, v)) return NAN;
  return a->log ? log(v / a->lo) / log(a->hi / a->lo) : (v - a->lo) / (a->hi - a->lo);
}
double plot_axis_value(const plot_axis *a, double u) {
  return a->log ? a->lo * exp(u * log(a->hi / a->lo)) : a->lo + u * (a->hi - a->lo);
}

/* --- labels --------------------------------------------------------------------------------------------------------- */

/* Sizes in the units of an SVG, whose plot area is 653 x 420; the other terminals have the same proportions. */
static const double area_w = 653, area_h = 420, letter_w = 6.6, letter_h = 14, point_size = 9;
static const double forbidden = 1000; /* a place that costs this is none */

typedef struct box {
  double x, y, w, h; /* middle and size */
} box;

static double overlap(const box *a, const box *b) {
  const double w = fmin(a->x + a->w / 2, b->x + b->w / 2) - fmax(a->x - a->w / 2, b->x - b->w / 2);
  const double h = fmin(a->y + a->h / 2, b->y + b->h / 2) - fmax(a->y - a->h / 2, b->y - b->h / 2);
  return w > 0 && h > 0 ? w * h : 0;
}

static box point_box(const plot_point *p) { return (box){p->x * area_w, p->y * area_h, point_size, point_size}; }
static box label_box(const plot_point *p) {
  return (box){p->label_x * area_w, p->label_y * area_h, letter_w * (double)strlen(p->label), letter_h};
}

/* How much of the line between two points lies under the label. */
static double crossing(const box *label, const plot_point *a, const plot_point *b) {
  enum { STEPS = 64 };
  int under = 0;
  for (int i = 0; i <= STEPS; i++) {
    const double t = (double)i / STEPS, x = (a->x + t * (b->x - a->x)) * area_w, y = (a->y + t * (b->y - a->y)) * area_h;
    under += fabs(x - label->x) < label->w / 2 && fabs(y - label->y) < label->h / 2;
  }
  return (double)under / STEPS * hypot((a->x - b->x) * area_w, (a->y - b->y) * area_h);
}

static int drawn(const plot_point *p) { return isfinite(p->x) && isfinite(p->y); }

static double cost(const box *label, const plot_point *p, int n) {
  double sum = 0;
  if (label->x - label->w / 2 < 0 || label->x + label->w / 2 > area_w || label->y - label->h / 2 < 0 || label->y + label->h / 2 > 0.92 * area_h)
    return forbidden; /* the names of the exact attentions stand at the upper end */
  for (int i = 0; i < n && sum < forbidden; i++) {
    if (!drawn(p + i)) continue;
    const box point = point_box(p + i);
    if (overlap(label, &point) > 0) return forbidden;
    if (isfinite(p[i].label_x)) {
      const box other = label_box(p + i);
      if (overlap(label, &other) > 0) return forbidden;
    }
    if (i + 1 < n && drawn(p + i + 1) && p[i].series == p[i + 1].series) sum += crossing(label, p + i, p + i + 1);
  }
  return sum;
}

static void place(plot_point *p, int n, int which) {
  static const double direction[8][2] = {{1, 0.6}, {1, -0.6}, {-1, 0.6}, {-1, -0.6}, {0, 1}, {0, -1}, {1, 0}, {-1, 0}};
  plot_point *mine = p + which;
  const double w = letter_w * (double)strlen(mine->label);
  double best = forbidden, best_x = NAN, best_y = NAN;
  for (int i = 0; i < 16; i++) {
    const double *to = direction[i % 8], far = i < 8 ? 1 : 2;
    const double dx = to[0] * (w / 2 + 8 * far), dy = to[1] * 15 * far;
    const box b = {mine->x * area_w + dx, mine->y * area_h + dy, w, letter_h};
    const double c = cost(&b, p, n) + 0.5 * i;
    if (c < best) best = c, best_x = b.x / area_w, best_y = b.y / area_h;
  }
  mine->label_x = best_x, mine->label_y = best_y;
}

static int ends_series(const plot_point *p, int n, int i) {
  return i == 0 || i == n - 1 || p[i - 1].series != p[i].series || p[i + 1].series != p[i].series;
}

void plot_place_labels(plot_point *p, int n) {
  for (int i = 0; i < n; i++) p[i].label_x = p[i].label_y = NAN;
  for (int between = 0; between < 2; between++)
    for (int i = 0; i < n; i++)
      if (p[i].label && drawn(p + i) && ends_series(p, n, i) == !between) place(p, n, i);
}
