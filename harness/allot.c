/* allot.c - see allot.h */
#include "harness/allot.h"

static const double *cost_of(const allot_table *t, int taker, int option) { return t->cost + (taker * t->options + option) * ALLOT_SUMS; }

double allot_sum(const allot_table *t, const int *pick, int column) {
  double sum = 0.0;
  for (int i = 0; i < t->takers; i++) sum += cost_of(t, i, pick[i])[column];
  return sum;
}

typedef struct change { /* of at most two takers; b < 0: of one */
  int a, to_a, b, to_b;
  double gain;
} change;

typedef struct search {
  const allot_table *t;
  const double *weight, *bound;
  const int *pick;
  double sum[ALLOT_SUMS];
  change best;
} search;

/* Takes note of a change when it stays within the bounds and beats the best so far. */
static void look_at(search *s, change c) {
  c.gain = 0.0;
  for (int k = 0; k < ALLOT_SUMS; k++) {
    double delta = cost_of(s->t, c.a, c.to_a)[k] - cost_of(s->t, c.a, s->pick[c.a])[k];
    if (c.b >= 0) delta += cost_of(s->t, c.b, c.to_b)[k] - cost_of(s->t, c.b, s->pick[c.b])[k];
    /* What a sum is already beyond its bound by rounding is no reason to refuse a change that leaves it alone. */
    if (s->sum[k] + delta > s->bound[k] && delta > 0.0) return;
    c.gain -= s->weight[k] * delta;
  }
  if (c.gain > s->best.gain) s->best = c;
}

static void look_around(search *s) {
  const allot_table *t = s->t;
  for (int a = 0; a < t->takers; a++)
    for (int i = 0; i < t->options; i++) {
      look_at(s, (change){.a = a, .to_a = i, .b = -1});
      for (int b = a + 1; b < t->takers; b++)
        for (int j = 0; j < t->options; j++) look_at(s, (change){.a = a, .to_a = i, .b = b, .to_b = j});
    }
}

void allot_improve(const allot_table *t, const double weight[ALLOT_SUMS], const double bound[ALLOT_SUMS], int *pick) {
  for (;;) {
    search s = {.t = t, .weight = weight, .bound = bound, .pick = pick};
    double now = 0.0;
    for (int k = 0; k < ALLOT_SUMS; k++) {
      s.sum[k] = allot_sum(t, pick, k);
      now += weight[k] * s.sum[k];
    }
    look_around(&s);
    if (s.best.gain <= 1e-12 * now) return; /* less is rounding, which could go on for ever */
    pick[s.best.a] = s.best.to_a;
    if (s.best.b >= 0) pick[s.best.b] = s.best.to_b;
  }
}
