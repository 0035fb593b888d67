/* pathfinder_draw.c - see pathfinder_draw.h
 *
 * Snakes  A snake is a chain of short strokes (paddles). The next paddle leaves a gap of twice the margin behind the head of the last
 *         one and turns by an angle drawn with weight cos^2; where other paddles are near, its weight is zero. Two target snakes
 *         grow side by side, then distractors wherever there is room. A target that gets stuck starts the picture anew.
 * Label   Two discs: on the tail of one target, and on the head of the same (1) or of the other (0).
 * Pixels  Strokes are drawn at twice the size and reduced by a Lanczos filter; layers combine by maximum.
 * Source  drewlinsley/pathfinder snakes2.py, snakes.py, with the parameters of google-research/long-range-arena
 *         lra_benchmarks/data/pathfinder.py. Written from the description; random numbers and intensities are ours. */
#include "datasets/pathfinder_draw.h"

#include <math.h>

enum { SIDE = PATHFINDER_SIDE, PIXELS = PATHFINDER_PIXELS, FINE = 2 * SIDE };
enum { PADDING = 1, SEED_DISTANCE = 7, MARGIN = 1, LENGTH = 2, DISTRACTOR_PADDLES = 20 };
enum { TRIES_PADDLE = 3, TRIES_SNAKE = 5 };
static const double THICKNESS = 0.5, MARKER_RADIUS = 1.5, CONTINUITY = 1.0, CONTRAST = 2.0 * 0.75;

typedef struct point {
  double y, x;
} point;
typedef struct mask { /* a bit for every pixel */
  uint32_t row[SIDE];
} mask;
typedef struct paddle {
  point head, tail, pivot; /* pivot: half a gap behind the tail */
  double angle;
  mask reach;              /* the pixels that it keeps free around itself */
} paddle;
typedef struct snake {
  paddle p[PATHFINDER_STROKES];
  int n;
} snake;

typedef struct heading { /* a direction: sine and cosine of its angle, taken once where many points use it */
  double sin, cos;
} heading;
static heading heading_of(double angle) { return (heading){sin(angle), cos(angle)}; }
static point ahead(point p, heading h, double by) { return (point){p.y + by * h.sin, p.x + by * h.cos}; }
static point along(point p, double angle, double by) { return ahead(p, heading_of(angle), by); }
static int inside(point p) { return p.y >= 0 && p.x >= 0 && p.y < SIDE && p.x < SIDE; }
static double random_angle(attn_rng *r) { return ((double)attn_rng_below(r, 360) - 180.0) * M_PI / 180.0; }

static double distance2(point p, point a, point b) { /* of p from the stroke a-b, squared */
  const double dy = b.y - a.y, dx = b.x - a.x, l = dy * dy + dx * dx;
  double t = l > 0.0 ? ((p.y - a.y) * dy + (p.x - a.x) * dx) / l : 0.0;
  t = t < 0.0 ? 0.0 : t > 1.0 ? 1.0 : t;
  const double oy = p.y - a.y - t * dy, ox = p.x - a.x - t * dx;
  return oy * oy + ox * ox;
}

/* --- room ----------------------------------------------------------------------------------------------------------- */

static int is_on(const mask *m, int y, int x) { return m->row[y] >> x & 1; }
static void merge(mask *into, const mask *m) {
  for (int y = 0; y < SIDE; y++) into->row[y] |= m->row[y];
}
static int overlap(const mask *a, const mask *b) {
  uint32_t any = 0;
  for (int y = 0; y < SIDE; y++) any |= a->row[y] & b->row[y];
  return any != 0;
}
static mask reach_of(const paddle *p) {
  const double reach = 0.5 + MARGIN;
  const int y0 = (int)fmax(0.0, floor(fmin(p->tail.y, p->head.y) - reach)), y1 = (int)fmin(SIDE - 1.0, ceil(fmax(p->tail.y, p->head.y) + reach));
  const int x0 = (int)fmax(0.0, floor(fmin(p->tail.x, p->head.x) - reach)), x1 = (int)fmin(SIDE - 1.0, ceil(fmax(p->tail.x, p->head.x) + reach));
  mask m = {{0}};
  for (int y = y0; y <= y1; y++)
    for (int x = x0; x <= x1; x++)
      if (distance2((point){y, x}, p->tail, p->head) <= reach * reach) m.row[y] |= 1u << x;
  return m;
}

/* The pixels where a stroke of that direction can start without touching anything. */
static int free_tails(const mask *taken, double angle, int frame, short tail[PIXELS]) {
  int n = 0;
  const heading h = heading_of(angle);
  for (int i = 0; i < PIXELS; i++) {
    const int y = i / SIDE, x = i % SIDE;
    if (y < frame || x < frame || y >= SIDE - frame || x >= SIDE - frame) continue;
    const point a = {y, x}, b = ahead(a, h, LENGTH);
    int room = inside(b);
    for (int k = 0; k <= 2 * LENGTH && room; k++) {
      const point q = ahead(a, h, 0.5 * k);
      room = q.y > -0.5 && q.x > -0.5 && q.y < SIDE - 0.5 && q.x < SIDE - 0.5 && !is_on(taken, (int)lround(q.y), (int)lround(q.x));
    }
    if (room) tail[n++] = (short)i;
  }
  return n;
}

/* --- growth --------------------------------------------------------------------------------------------------------- */

static paddle paddle_at(point tail, double angle) {
  paddle p = {.tail = tail, .head = along(tail, angle, LENGTH), .pivot = along(tail, angle, -MARGIN), .angle = angle};
  p.reach = reach_of(&p);
  return p;
}

/* First paddle of a snake where there is room, at least `frame` from the edge. */
static int start(const mask *taken, int frame, attn_rng *r, snake *s) {
  short tail[PIXELS];
  const double angle = random_angle(r);
  const int n = free_tails(taken, angle, frame, tail);
  if (!n) return 0;
  const int at = tail[attn_rng_below(r, (uint64_t)n)];
  s->p[0] = paddle_at((point){at / SIDE, at % SIDE}, angle);
  s->n = 1;
  return !overlap(&s->p[0].reach, taken);
}

typedef struct candidate {
  point head;
  double angle, weight;
} candidate;
enum { SAMPLES = 19 }; /* one for each pixel of the circle's length: 2 pi (LENGTH + MARGIN) */

/* Directions of the samples on the circle, the same for every paddle. */
static void circle(heading h[SAMPLES]) {
  for (int i = 0; i < SAMPLES; i++) h[i] = heading_of(2.0 * M_PI * i / SAMPLES);
}

/* Distinct free pixels on the circle that the next head lies on, weighted by their turning angles; returns their number. */
static int candidates(const paddle *last, point anchor, const heading round_about[SAMPLES], const mask *taken, candidate c[SAMPLES], double *sum) {
  int n = 0;
  *sum = 0.0;
  for (int i = 0; i < SAMPLES; i++) {
    const point at = ahead(anchor, round_about[i], LENGTH + MARGIN), p = {round(at.y), round(at.x)};
    if (!inside(p) || is_on(taken, (int)p.y, (int)p.x) || (n && c[n - 1].head.y == p.y && c[n - 1].head.x == p.x)) continue;
    const double angle = atan2(p.y - anchor.y, p.x - anchor.x), turn = fabs(remainder(angle - last->angle, 2.0 * M_PI)) * CONTINUITY;
    if (turn >= 0.5 * M_PI) continue;
    c[n++] = (candidate){p, angle, cos(turn) * cos(turn)};
    *sum += c[n - 1].weight;
  }
  return n;
}

/* One more paddle. The one before it becomes an obstacle only now: it may be near its successor, not near others. */
static int extend(snake *s, const heading round_about[SAMPLES], mask *taken, attn_rng *r) {
  const paddle *last = &s->p[s->n - 1];
  const point anchor = along(last->pivot, last->angle, LENGTH + 2 * MARGIN);
  candidate c[SAMPLES];
  double sum;
  const int n = candidates(last, anchor, round_about, taken, c, &sum);
  for (int attempt = 0; attempt < TRIES_PADDLE && n > 0; attempt++) {
    double left = attn_rng_uniform(r) * sum;
    int at = 0;
    while (at < n - 1 && (left -= c[at].weight) >= 0.0) at++;
    paddle next = {.head = c[at].head, .tail = along(c[at].head, c[at].angle, -LENGTH), .pivot = anchor, .angle = c[at].angle};
    next.reach = reach_of(&next);
    if (overlap(&next.reach, taken)) continue;
    merge(taken, &last->reach);
    s->p[s->n++] = next;
    return 1;
  }
  return 0;
}

static mask empty_field(void) {
  const uint32_t sides = ~0u << (SIDE - PADDING) | ((1u << PADDING) - 1);
  mask m;
  for (int y = 0; y < SIDE; y++) m.row[y] = y < PADDING || y >= SIDE - PADDING ? ~0u : sides;
  return m;
}

/* Both targets, alternating; 0 when one got stuck. */
static int grow_targets(int length, const heading round_about[SAMPLES], attn_rng *r, mask *taken, snake s[2]) {
  *taken = empty_field();
  if (!start(taken, 2 * SEED_DISTANCE, r, &s[0])) return 0;
  point tail;
  do tail = along(s[0].p[0].tail, random_angle(r), SEED_DISTANCE);
  while (!inside(tail));
  s[1].p[0] = paddle_at((point){round(tail.y), round(tail.x)}, random_angle(r));
  s[1].n = 1;
  if (overlap(&s[1].p[0].reach, taken) || overlap(&s[1].p[0].reach, &s[0].p[0].reach)) return 0;
  for (int k = 1; k < length; k++)
    for (int i = 0; i < 2; i++) { /* the other's last paddle is an obstacle, one's own is not yet */
      mask seen = *taken;
      merge(&seen, &s[1 - i].p[s[1 - i].n - 1].reach);
      if (!extend(&s[i], round_about, &seen, r)) return 0;
      merge(taken, &s[i].p[s[i].n - 2].reach);
    }
  for (int i = 0; i < 2; i++) merge(taken, &s[i].p[s[i].n - 1].reach);
  return 1;
}

/* A distractor; on failure the field is as before. */
static int grow_distractor(int length, const heading round_about[SAMPLES], attn_rng *r, mask *taken, snake *s) {
  for (int attempt = 0; attempt < TRIES_SNAKE; attempt++) {
    mask field = *taken;
    if (!start(&field, 0, r, s)) continue;
    while (s->n < length && extend(s, round_about, &field, r)) {}
    if (s->n < length) continue;
    merge(&field, &s->p[s->n - 1].reach);
    *taken = field;
    return 1;
  }
  return 0;
}

/* --- pixels --------------------------------------------------------------------------------------------------------- */

/* Adds a stroke or, with a = b, a disc to the fine picture. */
static void stroke(float *fine, point a, point b, double radius, double value) {
  const point p = {2 * a.y + 0.5, 2 * a.x + 0.5}, q = {2 * b.y + 0.5, 2 * b.x + 0.5};
  const double reach = 2.0 * radius + 0.5;
  const int y0 = (int)fmax(0.0, fmin(p.y, q.y) - reach), y1 = (int)fmin(FINE - 1.0, fmax(p.y, q.y) + reach + 1.0);
  const int x0 = (int)fmax(0.0, fmin(p.x, q.x) - reach), x1 = (int)fmin(FINE - 1.0, fmax(p.x, q.x) + reach + 1.0);
  for (int y = y0; y <= y1; y++)
    for (int x = x0; x <= x1; x++) {
      const float cover = (float)(value * fmax(0.0, fmin(1.0, reach - sqrt(distance2((point){y, x}, p, q)))));
      fine[y * FINE + x] = fmaxf(fine[y * FINE + x], cover);
    }
}

static double lanczos(double x) {
  const double a = M_PI * x;
  return fabs(x) >= 3.0 ? 0.0 : x == 0.0 ? 1.0 : 3.0 * sin(a) * sin(a / 3.0) / (a * a);
}

/* out [rows, n/2]: each row of in [rows, n] halved, then transposed to [n/2, rows]. */
enum { TAPS = 12 };
static void halve(const float *in, int rows, int n, float *out) {
  double w[TAPS], norm = 0.0; /* the same for every pixel */
  for (int t = 0; t < TAPS; t++) norm += w[t] = lanczos((t - 5.5) / 2.0);
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < n / 2; i++) {
      double sum = 0.0;
      for (int t = 0; t < TAPS; t++) {
        const int k = 2 * i - 5 + t;
        if (k >= 0 && k < n) sum += w[t] * (double)in[r * n + k];
      }
      out[i * rows + r] = (float)(sum / norm);
    }
}

static void render(const snake *s, int count, point marker[2], unsigned char *pixels) {
  float fine[FINE * FINE] = {0}, narrow[FINE * SIDE], small[PIXELS];
  for (int i = 0; i < count; i++)
    for (int k = 0; k < s[i].n; k++) stroke(fine, s[i].p[k].tail, s[i].p[k].head, 0.5 * THICKNESS, CONTRAST);
  for (int i = 0; i < 2; i++) stroke(fine, marker[i], marker[i], MARKER_RADIUS, 1.0);
  halve(fine, FINE, FINE, narrow);
  halve(narrow, SIDE, FINE, small);
  for (int i = 0; i < PIXELS; i++) pixels[i] = (unsigned char)lroundf(255.0f * fmaxf(0.0f, fminf(1.0f, small[i])));
}

static void describe(const snake *s, int count, const point marker[2], pathfinder_scene *out) {
  out->snakes = count;
  for (int i = 0; i < count; i++) {
    out->strokes[i] = s[i].n;
    for (int k = 0; k < s[i].n; k++) {
      out->tail[i][k][0] = s[i].p[k].tail.y, out->tail[i][k][1] = s[i].p[k].tail.x;
      out->head[i][k][0] = s[i].p[k].head.y, out->head[i][k][1] = s[i].p[k].head.x;
    }
  }
  for (int i = 0; i < 2; i++) out->disc[i][0] = marker[i].y, out->disc[i][1] = marker[i].x;
}

int pathfinder_draw(const pathfinder_level *level, attn_rng *rng, unsigned char *pixels, pathfinder_scene *scene) {
  snake s[PATHFINDER_SNAKES] = {{.n = 0}};
  heading round_about[SAMPLES];
  mask taken;
  int count = 2;
  const int label = (int)attn_rng_below(rng, 2), which = (int)attn_rng_below(rng, 2);
  circle(round_about);
  while (!grow_targets(level->contour, round_about, rng, &taken, s)) {}
  for (int i = 0; i < DISTRACTOR_PADDLES / level->distractor; i++) {
    int room = 0;
    for (int y = 0; y < SIDE; y++) room += SIDE - __builtin_popcount(taken.row[y]);
    if (100 * room < PIXELS) break;
    count += grow_distractor(level->distractor, round_about, rng, &taken, &s[count]);
  }
  const snake *last = &s[label ? which : 1 - which];
  point marker[2] = {s[which].p[0].tail, last->p[last->n - 1].head};
  render(s, count, marker, pixels);
  if (scene) describe(s, count, marker, scene);
  return label;
}
