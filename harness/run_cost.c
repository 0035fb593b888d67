/* run_cost.c - what cells will take: time learnt from the database, else guessed; memory, disk. See run.h */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/machine.h"
#include "harness/registry/registry.h"
#include "harness/run.h"
#include "kernels/core/alloc.h"

enum { MOST = 256 }; /* numbers a median is taken of */

typedef struct numbers {
  double v[MOST];
  int n;
} numbers;

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
static double median(numbers *x) {
  if (!x->n) return NAN;
  qsort(x->v, (size_t)x->n, sizeof *x->v, compare);
  return x->v[(x->n - 1) / 2];
}

static int64_t examples_of(const run_plan *p, const run_cell *c) {
  const int64_t asked = c->limit ? c->limit : p->x.examples;
  return asked && asked < c->data->count ? asked : c->data->count;
}

/* ---- Guesses. The rates are those of one core of a server of 2023; a plan says that they are guesses. */

static const double DENSE_RATE = 2e10, VANILLA_RATE = 5e9,
                    OTHER_RATE = 1e10; /* of the 4 n^2 d flops of exact attention */

static const double START = 0.5, START_AGAIN = 0.1; /* a child, and each further process of a cell */

/* Does a cell that is to run share the child, the index and the references of one before it? (Of one that is there: did it?) */
static int rides(const run_plan *p, const run_cell *c) {
  if (!c->shares || c->done) return c->shares;
  for (const run_cell *before = c - 1; before >= p->cell; before--) {
    if (!before->done) return 1;
    if (!before->shares) return 0;
  }
  return 0;
}

static double guess_seconds(const run_plan *p, const run_cell *c) {
  if (c->missing) return 0.0;
  const encoder_config *m = &c->model->shape;
  const double flops = (double)(m->inputs * m->layers * m->width) * 4.0 * c->data->mean_square;
  const char *name = c->cell->method->name;
  const double own = flops / (!strcmp(name, "dense")     ? DENSE_RATE
                              : !strcmp(name, "vanilla") ? VANILLA_RATE
                                                         : OTHER_RATE);
  const double timed = c->cell->source ? 1.0 : (double)p->x.timed; /* tensors are one input */
  const int shared = rides(p, c), processes = p->x.processes;
  const double dense = shared ? 0.0 : flops / DENSE_RATE, vanilla = shared ? 0.0 : flops / VANILLA_RATE, threads = p->x.threads;
  double rounds = (double)(p->x.rounds + p->x.warmup) * (double)processes * timed * (own + dense + vanilla) / threads;
  if (rounds > p->x.max_seconds) rounds = p->x.max_seconds;
  const double judged = p->x.quality ? timed * (2.0 * own + 4.0 * dense) / threads : 0.0;
  const double start = shared ? 0.0 : START + START_AGAIN * (processes - 1);
  const double all = start + (double)examples_of(p, c) * own / threads + rounds + judged;
  return all < p->x.limit_seconds ? all : p->x.limit_seconds;
}

double run_guess_bytes(const run_plan *p, const run_cell *c) {
  const attn_method *method[] = {c->cell->method, registry_find("vanilla", NULL), registry_find("dense", NULL)};
  const encoder_config *m = &c->model->shape;
  double most = 0.0;
  for (int i = 0; i < 3; i++) {
    if (!method[i]) continue;
    void *plain = registry_defaults(method[i]);
    const void *params = i == 0 ? c->cell->params : plain;
    const attn_problem pb = {.b = 1,
                             .h = m->heads,
                             .hkv = m->heads,
                             .nq = c->data->queries,
                             .nk = c->data->longest,
                             .d = m->width / m->heads,
                             .dv = m->width / m->heads,
                             .scale = 1.0f,
                             .threads = p->x.threads};
    attn_mem need = {0};
    if (plain && attn_check(method[i], &pb, params) == ATTN_OK && method[i]->sizes(&pb, params, &need) == ATTN_OK)
      most += (double)need.plan + (double)need.scratch;
    attn_free(plain);
  }
  return most + (double)c->data->count * c->data->mean * (double)c->data->task->inputs * sizeof(int32_t) + 0x1p26;
}

/* ---- Earlier rows. */

static int take(void *ctx, int columns, char **names, char **values) {
  (void)columns, (void)names;
  numbers *x = ctx;
  if (values[0] && x->n < MOST) x->v[x->n++] = strtod(values[0], NULL) * 1e-3;
  return x->n == MOST;
}

/* Median wall time of finished rows like this cell, seeds aside: on this machine, else on any; NAN when there is none. */
static double earlier_seconds(const run_plan *p, const run_cell *c, store *s) {
  char threads[16], examples[24] = "", n[24] = "";
  (void)snprintf(threads, sizeof threads, "%d", p->x.threads);
  if (!c->cell->source) (void)snprintf(examples, sizeof examples, "%lld", (long long)examples_of(p, c));
  else (void)snprintf(n, sizeof n, "%lld", (long long)c->data->longest);
  const char *const machine[] = {machine_get()->id, ""};
  for (int i = 0; i < 2; i++) {
    const char *bind[] = {c->cell->task->name, c->cell->model, c->cell->method->name, c->cell->params_json, threads, examples, n, machine[i]};
    numbers x = {.n = 0};
    ice_err ignored = {0};
    (void)store_query(s,
                      "SELECT wall_ms FROM cell WHERE status = 'ok' AND task = ?1 AND model = ?2 AND method = ?3 AND params = ?4 AND "
                      "threads = CAST(?5 AS INTEGER) AND (?6 = '' OR examples = CAST(?6 AS INTEGER)) AND (?7 = '' OR n = CAST(?7 AS INTEGER)) "
                      "AND (?8 = '' OR machine_id = ?8) ORDER BY id DESC",
                      bind, 8, take, &x, &ignored);
    if (x.n) return median(&x);
  }
  return NAN;
}

/* How much longer than guessed the known cells took: those of one method, or all (NULL). */
static double slowness(const run_plan *p, const attn_method *method) {
  numbers x = {.n = 0};
  for (int i = 0; i < p->n && x.n < MOST; i++) {
    const run_cell *c = p->cell + i;
    if (c->known && !c->missing && (!method || c->cell->method == method)) x.v[x.n++] = c->seconds / guess_seconds(p, c);
  }
  return median(&x);
}

void run_plan_estimate(run_plan *p, store *s) {
  for (int i = 0; i < p->n; i++) {
    run_cell *c = p->cell + i;
    c->seconds = c->missing ? 0.0 : s ? earlier_seconds(p, c, s) : (double)NAN;
    c->known = isfinite(c->seconds);
  }
  const double all = slowness(p, NULL);
  for (int i = 0; i < p->n; i++) {
    run_cell *c = p->cell + i;
    if (c->known) continue;
    const double own = slowness(p, c->cell->method), ms = s && !c->cell->source ? store_expected_ms(s, c->cell->task->name, c->cell->model, c->cell->method->name) : (double)NAN;
    c->scaled = 1;
    if (isfinite(own)) c->seconds = own * guess_seconds(p, c);
    else if (isfinite(ms)) c->seconds = ms * 1e-3;
    else if (isfinite(all)) c->seconds = all * guess_seconds(p, c);
    else c->seconds = guess_seconds(p, c), c->scaled = 0;
    if (c->seconds > p->x.limit_seconds) c->seconds = p->x.limit_seconds;
  }
}
