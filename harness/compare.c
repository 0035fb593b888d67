/* compare.c - matching and judging. See compare.h */
#include "harness/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEED = 1 }; /* of the bootstraps: the same databases give the same verdict */

const char *compare_axis_name(compare_axis a) {
  static const char *const name[COMPARE_AXES] = {"speed", "memory", "instructions", "accuracy", "error"};
  return name[a];
}

const char *compare_verdict_name(compare_verdict v) {
  static const char *const name[] = {"", "same", "better", "worse", "unsure"};
  return name[v];
}

void compare_defaults(compare_options *o) {
  *o = (compare_options){.threshold = {[COMPARE_SPEED] = 0.03, [COMPARE_MEMORY] = 0.02, [COMPARE_INSTRUCTIONS] = 0.005, [COMPARE_ACCURACY] = 0.005, [COMPARE_ERROR] = 0.05},
                         .noise_floor = NAN,
                         .detect = 0.25};
}

static const compare_finding nothing = {.base = NAN, .now = NAN, .change = {NAN, NAN, NAN}, .gate = NAN, .floor = NAN, .detectable = NAN, .p = NAN, .effect = NAN};

static compare_finding not_judged(double base, double now, const char *why) {
  compare_finding f = nothing;
  f.base = base, f.now = now, f.why = why;
  return f;
}

/* `change` counts up when things get worse; worse beyond `bad`, better below `good`. */
static compare_verdict judge(stats_interval change, double good, double bad) {
  if (!isfinite(change.lo)) return COMPARE_UNSURE;
  if (change.lo > bad) return COMPARE_WORSE;
  if (change.hi < good) return COMPARE_BETTER;
  return change.value > bad ? COMPARE_UNSURE : COMPARE_SAME;
}

/* ---- What does not jitter: bytes, instructions, errors. */

static compare_finding judge_exact(double base, double now, double gate, double negligible) {
  if (!isfinite(base) || !isfinite(now)) return not_judged(base, now, NULL);
  compare_finding f = nothing;
  const double ratio = now == base ? 1.0 : now / base;
  f.base = base, f.now = now, f.gate = gate;
  f.change = (stats_interval){ratio, ratio, ratio};
  f.verdict = now > base * (1.0 + gate) + negligible     ? COMPARE_WORSE
              : now < base / (1.0 + gate) - negligible ? COMPARE_BETTER
                                                       : COMPARE_SAME;
  return f;
}

/* ---- Times. */

static int is_row_of(const compare_side *s, const compare_cell *c, const report_rows *floors, int row) {
  static const char *const same[] = {"task", "model", "method", "params"};
  for (int i = 0; i < 4; i++) {
    const char *a = compare_text(s, c, same[i]), *b = report_rows_text(floors, row, same[i]);
    if (!a || !b || strcmp(a, b)) return 0;
  }
  return 1;
}

/* The noise floor of a cell on its machine: its own, else the highest that was found there. NAN when none is known. */
static double floor_of(const compare_side *s, const compare_cell *c, const report_rows *floors) {
  const char *machine = compare_text(s, c, "machine_id");
  double most = NAN;
  for (int row = 0; row < floors->n; row++) {
    const char *where = report_rows_text(floors, row, "machine_id");
    if (!machine || !where || strcmp(machine, where) || compare_value(s, c, "threads") != report_rows_value(floors, row, "threads")) continue;
    const double floor = report_rows_value(floors, row, "floor");
    if (is_row_of(s, c, floors, row)) return floor; /* newest first */
    most = fmax(most, floor);
  }
  return most;
}

static int same_machine(const compare_side *a, const compare_cell *x, const compare_side *b, const compare_cell *y) {
  const char *m = compare_text(a, x, "machine_id"), *n = compare_text(b, y, "machine_id");
  return m && n && !strcmp(m, n);
}

static compare_finding judge_times(const compare_side *base, const compare_cell *b, const compare_side *now, const compare_cell *n,
                                   const compare_options *o, int *mixed) {
  const double before = compare_value(base, b, "attention_ns"), after = compare_value(now, n, "attention_ns");
  if (!isfinite(before) && !isfinite(after)) return nothing;
  if (!b->n_ns || !n->n_ns) return not_judged(before, after, "no samples");
  if (!same_machine(base, b, now, n) && !o->allow_mixed) {
    *mixed = 1;
    return not_judged(before, after, "other machine");
  }
  const stats_runs x = {n->ns, n->runs, n->n_runs}, y = {b->ns, b->runs, b->n_runs};
  const int many = x.runs >= STATS_LEAST && y.runs >= STATS_LEAST;
  const stats_rank_test test = stats_mann_whitney(n->ns, n->n_ns, b->ns, b->n_ns);
  compare_finding f = {.base = many ? stats_time_of_runs(y, 1) : before, .now = many ? stats_time_of_runs(x, 1) : after, .change = stats_ratio_of_times(x, y, SEED), .p = test.p, .effect = test.effect};
  f.floor = isfinite(o->noise_floor) ? o->noise_floor : floor_of(now, n, &now->floor);
  if (!isfinite(f.floor)) f.floor = floor_of(base, b, &base->floor);
  f.gate = fmax(o->threshold[COMPARE_SPEED], f.floor); /* fmax passes over NAN */
  f.detectable = stats_detectable_ratio(f.change, f.gate) - 1.0;
  f.verdict = judge(f.change, 1.0 / (1.0 + f.gate), 1.0 + f.gate);
  if (!isfinite(f.change.lo)) f.why = "fewer than 6 rounds";
  else if (f.verdict == COMPARE_SAME && f.detectable > o->detect) f.verdict = COMPARE_UNSURE, f.why = "too noisy";
  return f;
}

/* ---- Accuracy. */

/* Difference of two accuracies whose items are not known to be the same, from their own intervals (Newcombe 1998, method 10). */
static stats_interval unpaired(stats_interval now, stats_interval base) {
  const double d = now.value - base.value;
  return (stats_interval){d, d - hypot(now.value - now.lo, base.hi - base.value), d + hypot(now.hi - now.value, base.value - base.lo)};
}

static stats_interval accuracy_of(const compare_side *s, const compare_cell *c) {
  return (stats_interval){compare_value(s, c, "accuracy"), compare_value(s, c, "accuracy_lo"), compare_value(s, c, "accuracy_hi")};
}

static int judge_accuracy(const compare_side *base, const compare_cell *b, const compare_side *now, const compare_cell *n, double gate,
                          compare_finding *f, ice_err *e) {
  const stats_interval before = accuracy_of(base, b), after = accuracy_of(now, n);
  *f = not_judged(before.value, after.value, NULL);
  if (!isfinite(before.value) || !isfinite(after.value)) return ICE_OK;
  items_common common;
  ICE_TRY(items_match(&n->items, &b->items, &common, e));
  f->gate = gate;
  if (common.n && common.whole) {
    f->change = stats_difference_bootstrap(common.a, common.b, common.n, SEED);
    f->p = common.hits ? stats_mcnemar(common.count) : (double)NAN;
    f->detectable = common.hits ? stats_detectable_difference(common.count) : (double)NAN;
  } else
    f->change = unpaired(after, before);
  items_common_free(&common);
  const stats_interval drop = {-f->change.value, -f->change.hi, -f->change.lo};
  f->verdict = judge(drop, -gate, gate);
  if (!isfinite(f->change.lo)) f->why = "fewer than 6 examples";
  return ICE_OK;
}

/* ---- One cell, and all. */

static double error_of(const compare_side *s, const compare_cell *c, int relative) { return compare_value(s, c, relative ? "rel_l2_error" : "l2_error"); }

static const char *ended_badly(const compare_side *s, const compare_cell *c) {
  static const char *const bad[] = {"failed", "timeout", "oom", "unsupported"};
  const char *status = compare_text(s, c, "status");
  for (int i = 0; i < 4; i++)
    if (status && !strcmp(status, bad[i])) return bad[i];
  return NULL;
}

static int is_ok(const compare_side *s, const compare_cell *c) {
  const char *status = compare_text(s, c, "status");
  return status && !strcmp(status, "ok");
}

static int judge_pair(const compare_side *base, const compare_side *now, const compare_options *o, compare_pair *p, int *mixed, ice_err *e) {
  for (int a = 0; a < COMPARE_AXES; a++) p->finding[a] = nothing;
  if (!is_ok(base, p->base)) return ICE_OK;
  if (!is_ok(now, p->now)) {
    p->broken = ended_badly(now, p->now);
    return ICE_OK;
  }
  const int relative = isfinite(error_of(base, p->base, 1)) && isfinite(error_of(now, p->now, 1));
  const double *t = o->threshold;
  p->finding[COMPARE_SPEED] = judge_times(base, p->base, now, p->now, o, mixed);
  p->finding[COMPARE_MEMORY] = judge_exact(compare_value(base, p->base, "peak_bytes"), compare_value(now, p->now, "peak_bytes"), t[COMPARE_MEMORY], 0.0);
  p->finding[COMPARE_INSTRUCTIONS] = judge_exact(compare_value(base, p->base, "twin_instructions"), compare_value(now, p->now, "twin_instructions"), t[COMPARE_INSTRUCTIONS], 0.0);
  p->finding[COMPARE_ERROR] = judge_exact(error_of(base, p->base, relative), error_of(now, p->now, relative), t[COMPARE_ERROR], 1e-6); /* rounding of f32 */
  return judge_accuracy(base, p->base, now, p->now, t[COMPARE_ACCURACY], p->finding + COMPARE_ACCURACY, e);
}

/* Cells in the order of their identities, which is that of both sides. */
static int by_identity(const void *a, const void *b) {
  return strcmp((*(const compare_cell *const *)a)->identity, (*(const compare_cell *const *)b)->identity);
}

/* A cell that failed does not know its n or its examples: what was asked for tells that it is the other side's. */
static int failed_counterpart(const compare_side *base, const compare_cell *b, const compare_side *now, const compare_cell *n) {
  return b->asked == n->asked && !memcmp(b->identity, n->identity, b->asked) && (!is_ok(base, b) || !is_ok(now, n));
}

static const compare_cell **sorted_cells(const compare_side *s) {
  const compare_cell **list = malloc(((size_t)s->n + 1) * sizeof *list);
  for (int i = 0; list && i < s->n; i++) list[i] = s->cell + i;
  if (list && s->n > 1) qsort((void *)list, (size_t)s->n, sizeof *list, by_identity);
  return list;
}

static void adjust_p(compare_result *r, compare_axis axis) {
  double *p = malloc(((size_t)r->n + 1) * sizeof *p);
  for (int i = 0; p && i < r->n; i++) p[i] = r->pair[i].finding[axis].p;
  if (p) stats_holm(p, (size_t)r->n);
  for (int i = 0; i < r->n; i++) r->pair[i].finding[axis].p = p ? p[i] : NAN;
  free(p);
}

static int verdict_of(const compare_result *r) {
  int worse[COMPARE_AXES] = {0}, slower = 0, wrong = 0;
  for (int i = 0; i < r->n; i++) {
    const char *broken = r->pair[i].broken;
    if (broken && (!strcmp(broken, "timeout") || !strcmp(broken, "oom"))) slower++;
    else if (broken) wrong++;
    for (int a = 0; a < COMPARE_AXES; a++) worse[a] += r->pair[i].finding[a].verdict == COMPARE_WORSE;
  }
  const int judged = r->count[COMPARE_SAME] + r->count[COMPARE_BETTER] + r->count[COMPARE_WORSE] + r->count[COMPARE_UNSURE];
  if (worse[COMPARE_ACCURACY] + worse[COMPARE_ERROR] + wrong) return ICE_LESS_ACCURATE;
  if (worse[COMPARE_SPEED] + worse[COMPARE_MEMORY] + worse[COMPARE_INSTRUCTIONS] + slower) return ICE_SLOWER;
  return judged == 0 || r->count[COMPARE_UNSURE] || r->mixed ? ICE_NO_VERDICT : ICE_OK;
}

int compare_judge(const compare_side *base, const compare_side *now, const compare_options *o, compare_result *out, ice_err *e) {
  const compare_cell **b = sorted_cells(base), **n = sorted_cells(now);
  *out = (compare_result){.pair = calloc((size_t)(base->n < now->n ? base->n : now->n) + 1, sizeof *out->pair)};
  int rc = b && n && out->pair ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for a comparison"), i = 0, k = 0;
  while (rc == ICE_OK && i < base->n && k < now->n) {
    const int order = failed_counterpart(base, b[i], now, n[k]) ? 0 : strcmp(b[i]->identity, n[k]->identity);
    if (order < 0) i++, out->only_base++;
    else if (order > 0) k++, out->only_now++;
    else {
      compare_pair *p = out->pair + out->n++;
      *p = (compare_pair){.base = b[i++], .now = n[k++]};
      rc = judge_pair(base, now, o, p, &out->mixed, e);
      for (int a = 0; a < COMPARE_AXES; a++) out->count[p->finding[a].verdict]++;
    }
  }
  out->only_base += base->n - i;
  out->only_now += now->n - k;
  free((void *)b);
  free((void *)n);
  if (rc != ICE_OK) {
    compare_free(out);
    return rc;
  }
  adjust_p(out, COMPARE_SPEED);
  adjust_p(out, COMPARE_ACCURACY);
  out->code = verdict_of(out);
  return ICE_OK;
}

void compare_free(compare_result *r) {
  free(r->pair);
  *r = (compare_result){0};
}

static int cells_with(const compare_result *r, compare_verdict v, int quality) {
  int n = 0;
  for (int i = 0; i < r->n; i++) {
    int hit = 0;
    for (int a = 0; a < COMPARE_AXES; a++) hit |= (a >= COMPARE_ACCURACY) == quality && r->pair[i].finding[a].verdict == v;
    if (v == COMPARE_WORSE && r->pair[i].broken)
      hit |= (strcmp(r->pair[i].broken, "timeout") && strcmp(r->pair[i].broken, "oom")) == quality;
    n += hit;
  }
  return n;
}

void compare_summary(const compare_result *r, char *out, size_t size) {
  const int slower = cells_with(r, COMPARE_WORSE, 0), wrong = cells_with(r, COMPARE_WORSE, 1);
  const int unsure = cells_with(r, COMPARE_UNSURE, 0) + cells_with(r, COMPARE_UNSURE, 1);
  if (r->n == 0)
    (void)snprintf(out, size, "no verdict: no common cell (%d only in BASE, %d only in NEW)", r->only_base, r->only_now);
  else if (wrong && slower)
    (void)snprintf(out, size, "less accurate: %d of %d cells; slower or bigger: %d", wrong, r->n, slower);
  else if (wrong || slower)
    (void)snprintf(out, size, "%s: %d of %d cells", wrong ? "less accurate" : "slower or bigger", wrong ? wrong : slower, r->n);
  else if (r->mixed)
    (void)snprintf(out, size, "no verdict: times of different machines were not compared (--allow-mixed compares them)");
  else if (unsure)
    (void)snprintf(out, size, "no verdict: %d of %d cells are unsure; repeat both sides (icebench run --force), or raise --detect", unsure, r->n);
  else if (r->code == ICE_NO_VERDICT)
    (void)snprintf(out, size, "no verdict: the %d common cells have nothing to compare", r->n);
  else
    (void)snprintf(out, size, "nothing worse in %d cells", r->n);
}
