/* measure.c - see measure.h */
#include "harness/measure.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/core/clock.h"
#include "kernels/core/rng.h"

const char *measure_phase_name(measure_phase p) {
  static const char *const name[MEASURE_PHASES] = {"attention", "build", "query", "model"};
  return name[p];
}

int measure_order(int n, int round, uint64_t seed, int i) {
  int first = (int)((attn_hash(seed, (uint64_t)n, 0) + (uint64_t)round) % (uint64_t)n);
  int backwards = (round / n) % 2;
  return (first + (backwards ? n - i : i)) % n;
}

/* One pass of an entrant; `out` [variants] may be discarded. */
static void pass(measure_entrant *en, int first, measure_times *out) {
  if (en->rc == ICE_OK) en->rc = en->pass(en->ctx, first % en->variants, out, &en->err);
}

/* A slowdown of known size: burns a share of the time that the pass took, and counts it where the work is counted. */
static void slow_down(const measure_entrant *en, double share, measure_times *t) {
  static const measure_phase where[] = {MEASURE_ATTENTION, MEASURE_QUERY, MEASURE_MODEL};
  for (int v = 0; v < en->variants; v++) {
    const int64_t start = attn_now_ns(), burn = (int64_t)(share * (double)t[v].ns[MEASURE_ATTENTION]);
    int64_t burnt;
    while ((burnt = attn_now_ns() - start) < burn) {}
    for (int i = 0; i < 3; i++)
      if (t[v].ns[where[i]] >= 0) t[v].ns[where[i]] += burnt;
  }
}

#if defined(__GNUC__) && !defined(__clang__)
__attribute__((noipa))
#else
__attribute__((noinline))
#endif
void measure_twin_pass(measure_entrant *en, int first, measure_times *out) { pass(en, first, out); }

/* A pass that counts. */
static void timed_pass(measure_entrant *en, int is_first, int round, const measure_plan *plan, measure_times *out) {
  if (is_first && plan->around) plan->around(plan->around_ctx, 1);
  if (is_first) measure_twin_pass(en, round, out);
  else pass(en, round, out);
  if (is_first && plan->around) plan->around(plan->around_ctx, 0);
  if (is_first && plan->slowdown > 0.0 && en->rc == ICE_OK) slow_down(en, plan->slowdown, out);
}

static int any_left(const measure_entrant *entrant, int n) {
  for (int i = 0; i < n; i++)
    if (entrant[i].rc == ICE_OK) return 1;
  return 0;
}

static int is_wide(stats_interval i, double precision) { return !(i.hi - i.lo <= precision * i.value); }

/* Are the ratios as precise as asked? */
static int is_precise(const measure_result *r, const measure_plan *plan) {
  int bases = 0;
  for (int i = 0; i < 2; i++) {
    if (plan->base[i] <= 0 || !r->ok[plan->base[i]]) continue;
    bases++;
    if (is_wide(measure_speedup(r, plan->base[i], 0, plan->seed), plan->precision)) return 0;
  }
  return bases || !is_wide(measure_median(r, 0, MEASURE_ATTENTION), plan->precision);
}

/* Was this the last round? *look: rounds at which to look next. */
static int is_enough(const measure_result *r, const measure_plan *plan, int *look) {
  if (r->rounds < plan->rounds) return 0;
  if (plan->precision <= 0.0 || r->rounds >= r->max_rounds || !r->ok[0]) return 1;
  if (r->rounds < *look) return 0;
  *look = r->rounds + (r->rounds + 3) / 4;
  return is_precise(r, plan);
}

static void note_left(const measure_entrant *entrant, int n, const int *column, measure_result *r) {
  for (int i = 0; i < n; i++)
    for (int v = 0; v < entrant[i].variants; v++) r->ok[column[i] + v] = entrant[i].rc == ICE_OK;
}

static void run_rounds(measure_entrant *entrant, int n, const measure_plan *plan, const int *column,
                       measure_times *spare, measure_result *r) {
  int64_t (*now)(void) = plan->now ? plan->now : attn_now_ns;
  for (int w = 0; w < plan->warmup; w++)
    for (int i = 0; i < n; i++) pass(entrant + i, w, spare);
  int64_t start = now(), last = 0, elapsed = 0;
  int look = 0;
  note_left(entrant, n, column, r);
  for (int round = 0; !is_enough(r, plan, &look) && any_left(entrant, n); round++) {
    if (round > 0 && (double)(elapsed + last) > plan->max_seconds * 1e9) break;
    if (plan->stop && *plan->stop) break;
    for (int i = 0; i < n; i++) {
      measure_entrant *en = entrant + measure_order(n, round, plan->seed, i);
      timed_pass(en, en == entrant, round, plan, spare);
      for (int v = 0; v < en->variants; v++)
        r->times[(int64_t)(column[en - entrant] + v) * r->max_rounds + round] = spare[v];
    }
    last = now() - start - elapsed;
    elapsed += last;
    r->rounds = round + 1;
    note_left(entrant, n, column, r);
  }
}

int measure_run(measure_entrant *entrant, int n, const measure_plan *plan, measure_result *out, ice_err *e) {
  int columns = 0, most = 1;
  for (int i = 0; i < n; i++) {
    entrant[i].rc = ICE_OK;
    columns += entrant[i].variants;
    if (entrant[i].variants > most) most = entrant[i].variants;
  }
  const int most_rounds = plan->precision > 0.0 && plan->max_rounds > plan->rounds ? plan->max_rounds : plan->rounds;
  *out = (measure_result){.columns = columns, .max_rounds = most_rounds};
  out->times = calloc((size_t)columns * (size_t)most_rounds + 1, sizeof *out->times);
  out->ok = calloc((size_t)columns + 1, 1);
  measure_times *spare = calloc((size_t)most, sizeof *spare);
  int *column = calloc((size_t)n + 1, sizeof *column);
  int rc = out->times && out->ok && spare && column ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for timings");
  if (rc == ICE_OK) {
    for (int i = 1; i < n; i++) column[i] = column[i - 1] + entrant[i - 1].variants;
    run_rounds(entrant, n, plan, column, spare, out);
  }
  free(column);
  free(spare);
  if (rc != ICE_OK) measure_free(out);
  return rc;
}

void measure_free(measure_result *r) {
  free(r->times);
  free(r->ok);
  *r = (measure_result){0};
}

/* The samples of a phase as doubles, to free(); NULL when it was not measured in every round. */
static double *samples(const measure_result *r, int column, measure_phase p) {
  if (column < 0 || !r->rounds || !r->ok[column]) return NULL;
  double *x = malloc((size_t)r->rounds * sizeof *x);
  for (int i = 0; x && i < r->rounds; i++) {
    int64_t ns = measure_sample(r, column, i)->ns[p];
    if (ns < 0) {
      free(x);
      return NULL;
    }
    x[i] = (double)ns;
  }
  return x;
}

stats_interval measure_median(const measure_result *r, int column, measure_phase p) {
  double *x = samples(r, column, p);
  if (!x) return (stats_interval){NAN, NAN, NAN};
  stats_interval m = stats_median_interval(x, (size_t)r->rounds);
  free(x);
  return m;
}

stats_interval measure_speedup(const measure_result *r, int base, int column, uint64_t seed) {
  double *a = samples(r, base, MEASURE_ATTENTION), *b = samples(r, column, MEASURE_ATTENTION);
  stats_interval s = {NAN, NAN, NAN};
  if (a && b)
    s = base == column ? (stats_interval){1.0, 1.0, 1.0} : stats_ratio_bootstrap(a, b, (size_t)r->rounds, seed);
  free(a);
  free(b);
  return s;
}
