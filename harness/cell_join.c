/* cell_join.c - one result from several processes that timed the same cell: samples side by side, then the numbers made of them.
 *
 * The first process has judged the cell and says everything but its times. A baseline that one of the processes could not run
 * has no rounds there; a speed-up pairs what was run in the same round of the same process. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cell.h"
#include "harness/measure_store.h"
#include "harness/stats.h"

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for the samples of a cell"); }

/* The text of `name` as r has it, which lives as long as r; NULL when no sample of r has it. */
static const char *own_method(const cell_result *r, const char *name) {
  for (int i = 0; i < r->n_samples; i++)
    if (!strcmp(r->sample[i].method, name)) return r->sample[i].method;
  return NULL;
}

static const char *own_phase(const char *name) {
  for (int p = 0; p < MEASURE_PHASES; p++)
    if (!strcmp(measure_phase_name((measure_phase)p), name)) return measure_phase_name((measure_phase)p);
  return NULL;
}

int cell_join(cell_result *into, const cell_result *part, int process, ice_err *e) {
  const int n = into->n_samples;
  store_sample *grown = realloc(into->sample, ((size_t)n + (size_t)part->n_samples + 1) * sizeof *grown);
  if (!grown) return no_memory(e);
  into->sample = grown;
  for (int i = 0; i < part->n_samples; i++) {
    store_sample s = part->sample[i];
    s.method = own_method(into, s.method);
    s.phase = own_phase(s.phase);
    s.round += process * STORE_PROCESS;
    if (s.method && s.phase && s.ns >= 0) grown[into->n_samples++] = s;
  }
  if (part->resident_bytes > into->resident_bytes) into->resident_bytes = part->resident_bytes;
  return ICE_OK;
}

/* ---- Columns of samples. */

typedef struct column { /* the rounds of a method and phase, process by process */
  double *x, *round;    /* [n] */
  size_t *size;         /* [processes] */
  size_t n, processes;
} column;

static void free_column(column *c) {
  free(c->x);
  free(c->round);
  free(c->size);
  *c = (column){0};
}

/* Adds a sample, of a new process when `begins`; the arrays have room. */
static void add(column *c, double round, double ns, int begins) {
  if (begins) c->size[c->processes++] = 0;
  c->size[c->processes - 1]++;
  c->round[c->n] = round;
  c->x[c->n++] = ns;
}

static int make_room(column *c, size_t n) {
  *c = (column){.x = malloc((n + 1) * sizeof *c->x), .round = malloc((n + 1) * sizeof *c->round), .size = malloc((n + 1) * sizeof *c->size)};
  if (c->x && c->round && c->size) return 1;
  free_column(c);
  return 0;
}

static int process_of(double round) { return (int)round / STORE_PROCESS; }

static int read_column(const cell_result *r, const char *method, measure_phase phase, column *out) {
  if (!make_room(out, (size_t)r->n_samples)) return 0;
  for (int i = 0; i < r->n_samples; i++) {
    const store_sample *s = r->sample + i;
    if (strcmp(s->method, method) || strcmp(s->phase, measure_phase_name(phase))) continue;
    add(out, s->round, (double)s->ns, !out->n || process_of(out->round[out->n - 1]) != s->round / STORE_PROCESS);
  }
  return 1;
}

/* Leaves in both what has a partner in the other; rounds ascend. */
static void pair_up(column *a, column *b) {
  const size_t na = a->n, nb = b->n;
  a->n = a->processes = b->n = b->processes = 0;
  for (size_t i = 0, k = 0; i < na && k < nb;) {
    const double round = a->round[i];
    if (round < b->round[k]) i++;
    else if (round > b->round[k]) k++;
    else {
      const int begins = !a->n || process_of(a->round[a->n - 1]) != process_of(round);
      add(a, round, a->x[i++], begins), add(b, round, b->x[k++], begins);
    }
  }
}

/* ---- Numbers. */

static void set_metric(cell_result *r, const char *name, stats_interval v) {
  for (int i = 0; i < r->n_metrics; i++)
    if (!strcmp(r->metric[i].name, name)) r->metric[i].value = v.value, r->metric[i].lo = v.lo, r->metric[i].hi = v.hi;
}

static int set_times(cell_result *r, const char *method, uint64_t seed) {
  static const char *const name[MEASURE_PHASES] = {"attention_ns", "build_ns", "query_ns", "model_ns"};
  for (int p = 0; p < MEASURE_PHASES; p++) {
    column c;
    if (!read_column(r, method, (measure_phase)p, &c)) return 0;
    if (c.n) set_metric(r, name[p], stats_median_of_runs((stats_runs){c.x, c.size, c.processes}, seed));
    if (p == MEASURE_ATTENTION) set_metric(r, "rounds", (stats_interval){(double)c.n, NAN, NAN});
    free_column(&c);
  }
  return 1;
}

/* A speed-up that is there: exactly 1 of a method over itself, as it is. */
static int set_speedup(cell_result *r, const char *method, const char *base, const char *name, uint64_t seed) {
  column own, other;
  if (!strcmp(method, base)) return 1;
  if (!read_column(r, method, MEASURE_ATTENTION, &own)) return 0;
  if (!read_column(r, base, MEASURE_ATTENTION, &other)) return free_column(&own), 0;
  pair_up(&other, &own);
  if (own.n) set_metric(r, name, stats_ratio_of_paired_runs(other.x, own.x, own.size, own.processes, seed));
  free_column(&own);
  free_column(&other);
  return 1;
}

int cell_join_end(cell_result *r, const char *method, uint64_t seed, ice_err *e) {
  const int whole = set_times(r, method, seed) && set_speedup(r, method, "vanilla", "speedup_vanilla", seed) && set_speedup(r, method, "dense", "speedup_dense", seed);
  return whole ? ICE_OK : no_memory(e);
}
