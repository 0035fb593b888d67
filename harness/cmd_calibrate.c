/* cmd_calibrate.c - verb `calibrate`: A/A runs, the noise floor of this machine, and what can be detected above it. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/calibrate.h"
#include "harness/cell.h"
#include "harness/cli.h"
#include "harness/measure_store.h"
#include "harness/run.h"
#include "kernels/core/fileio.h"
#include "kernels/micro/micro.h"

static volatile sig_atomic_t stop_signal;
static run_stop stop;
static void on_signal(int number) {
  stop_signal = number;
  stop.now = stop.after_cell = 1;
}

enum { KINDS = 1 + CALIBRATE_SLOWDOWNS }; /* as it is, and slowed */

typedef struct pile { /* samples of the runs of one kind */
  double *x;
  size_t *size, runs, n;
} pile;

typedef struct subject { /* a cell and its runs */
  const run_cell *cell;
  pile pile[KINDS];
} subject;

typedef struct settings {
  int runs;    /* of each slowdown; twice as many as it is */
  double rate; /* of false alarms, at most */
  const run_options *options;
} settings;

static stats_runs runs_of(const pile *p) { return (stats_runs){p->x, p->size, p->runs}; }

static double slowdown_of(int kind) { return kind ? calibrate_slowdowns[kind - 1] : 0.0; }

/* ---- Runs. */

static int keep(pile *p, const run_cell *c, const cell_result *res, ice_err *e) {
  double *x = realloc(p->x, (p->n + (size_t)res->n_samples + 1) * sizeof *x);
  if (x) p->x = x;
  size_t *size = x ? realloc(p->size, (p->runs + 1) * sizeof *size) : NULL, n = 0;
  if (!size) return ice_fail(e, ICE_INTERNAL, "out of memory for the runs");
  p->size = size;
  for (int i = 0; i < res->n_samples; i++) {
    const store_sample *s = res->sample + i;
    if (!strcmp(s->method, c->cell->method->name) && !strcmp(s->phase, "attention")) p->x[p->n + n++] = (double)s->ns;
  }
  p->size[p->runs++] = n;
  p->n += n;
  return n >= STATS_LEAST ? ICE_OK
                          : ice_fail(e, ICE_USAGE, "%s: %zu rounds; intervals take %d: raise measure.rounds or measure.max_seconds", c->cell->method->name, n, STATS_LEAST);
}

static int run_kind(run_plan *p, subject *s, int kind, const settings *set, ice_err *e) {
  cell_result res;
  ICE_TRY(run_measure(p, s->cell, set->options, slowdown_of(kind), &stop, &res, e));
  int rc = ICE_OK;
  if (!stop_signal && strcmp(res.status, "ok"))
    rc = ice_fail(e, ICE_CELLS_FAILED, "%s: %s: %.700s", s->cell->cell->method->name, res.status, res.reason ? res.reason : "");
  if (!stop_signal && rc == ICE_OK) rc = keep(s->pile + kind, s->cell, &res, e);
  cell_result_free(&res);
  return rc;
}

/* One turn: every cell as it is, slowed in each way, and as it is again; every other turn the other way round (ABBA), so that a
 * drift of the machine favours no kind. */
static int run_turn(run_plan *p, subject *s, int turn, const settings *set, cli_progress *progress, ice_err *e) {
  const int per_turn = p->n * (KINDS + 1);
  for (int i = 0; i < p->n; i++)
    for (int k = 0; k <= KINDS && !stop_signal; k++) {
      const int kind = k == KINDS ? 0 : k;
      cli_progress_tick(progress, turn * per_turn + i * (KINDS + 1) + k, set->runs * per_turn, s[i].cell->cell->method->name);
      ICE_TRY(run_kind(p, s + i, turn % 2 && kind ? KINDS - kind : kind, set, e));
    }
  return ICE_OK;
}

/* ---- What they say. */

static int store_floor(store *db, const run_plan *p, const subject *s, const settings *set, double floor, const double *power, ice_err *e) {
  json_t *o = json_object();
  for (int i = 0; i < CALIBRATE_SLOWDOWNS; i++) {
    char key[16];
    (void)snprintf(key, sizeof key, "%g", calibrate_slowdowns[i]);
    (void)json_object_set_new(o, key, json_real(power[i]));
  }
  char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(4));
  const config_cell *c = s->cell->cell;
  const store_noise row = {.task = c->task->name, .model = c->model, .method = c->method->name, .params = c->params_json, .threads = p->x.threads,
                           .isa = attn_isa_name(), .rounds = (int)s->pile[0].size[0], .runs = (int)s->pile[0].runs, .rate = set->rate, .floor = floor, .power = text};
  const int rc = text ? store_put_noise(db, &row, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  free(text);
  json_decref(o);
  return rc;
}

static int conclude(store *db, const run_plan *p, const subject *s, const settings *set, int quiet, ice_err *e) {
  if (!quiet) (void)printf("%-40s %11s %9s   power: %g %% %7g %% %7g %%\n", "cell", "noise floor", "time", 1.0, 2.0, 5.0);
  for (int i = 0; i < p->n; i++) {
    double power[CALIBRATE_SLOWDOWNS];
    const stats_runs same = runs_of(s[i].pile);
    const double floor = calibrate_floor(same, set->rate);
    if (!isfinite(floor)) return ice_fail(e, ICE_INTERNAL, "out of memory for the comparisons");
    for (int k = 0; k < CALIBRATE_SLOWDOWNS; k++) power[k] = calibrate_power(runs_of(s[i].pile + 1 + k), same, floor);
    ICE_TRY(store_floor(db, p, s + i, set, floor, power, e));
    if (quiet) continue;
    char brief[200], name[300], time[32];
    const config_cell *c = s[i].cell->cell;
    measure_brief(c->method, c->params, c->schedule, brief, sizeof brief);
    (void)snprintf(name, sizeof name, "%s%s%s, %s", c->method->name, *brief ? " " : "", brief, c->task->name);
    measure_print_ns(stats_median(s[i].pile[0].x, s[i].pile[0].n), time, sizeof time);
    (void)printf("%-40.40s %9.2f %% %9s          %3.0f %% %7.0f %% %7.0f %%\n", name, 100.0 * floor, time, 100.0 * power[0], 100.0 * power[1], 100.0 * power[2]);
  }
  if (!quiet)
    (void)printf("at this floor at most %g %% of A/A comparisons of %d rounds raise an alarm; power: share of slowdowns that are caught\n", 100.0 * set->rate,
                 (int)s->pile[0].size[0]);
  return ICE_OK;
}

static int calibrate(const cli_common *common, run_plan *p, const settings *set, ice_err *e) {
  subject *s = calloc((size_t)p->n + 1, sizeof *s);
  store *db = NULL;
  cli_progress progress;
  int rc = s ? store_open(common->db, STORE_WRITE, &db, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  cli_progress_start(&progress, "calibrate", !common->quiet);
  for (int i = 0; s && i < p->n; i++) s[i].cell = p->cell + i;
  for (int turn = 0; rc == ICE_OK && turn < set->runs && !stop_signal; turn++) rc = run_turn(p, s, turn, set, &progress, e);
  cli_progress_end(&progress);
  if (rc == ICE_OK && stop_signal) rc = ice_fail(e, 128 + (int)stop_signal, "interrupted; nothing was stored");
  if (rc == ICE_OK) rc = conclude(db, p, s, set, common->quiet, e);
  store_close(db);
  for (int i = 0; s && i < p->n; i++)
    for (int k = 0; k < KINDS; k++) free(s[i].pile[k].x), free(s[i].pile[k].size);
  free(s);
  return rc;
}

static int calibrate_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
  const char *file = NULL, *runs = NULL, *rate = NULL, *threads = NULL, **set = NULL;
  char built_in[FILE_PATH];
  run_options o = {0};
  settings wanted = {.runs = 10, .rate = 0.05, .options = &o};
  run_plan p;
  long long n = 10;
  int files = 0;
  const cli_option spec[] = {{.name = "runs", .has_value = 1, .value = &runs},       {.name = "rate", .has_value = 1, .value = &rate},
                             {.name = "threads", .has_value = 1, .value = &threads}, {.name = "filter", .has_value = 1, .value = &o.filter},
                             {.name = "set", .has_value = 1, .list = &set},          {.name = NULL}};
  int rc = cli_parse(argc, argv, spec, &file, 1, &files, e);
  if (rc == ICE_OK && runs) rc = cli_int("runs", runs, 3, 200, &n, e);
  if (rc == ICE_OK && rate) rc = cli_real("rate", rate, 0.001, 0.5, &wanted.rate, e);
  if (rc == ICE_OK) rc = run_read_numbers(NULL, threads, &o, e);
  if (rc == ICE_OK && !files) rc = file_join(built_in, cli_share_dir(), "configs/calibrate.yaml", e);
  wanted.runs = (int)n;
  o.set = set;
  if (rc == ICE_OK) rc = run_plan_create(&p, files ? file : built_in, &o, e);
  if (rc == ICE_OK) {
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    rc = calibrate(common, &p, &wanted, e);
    run_plan_destroy(&p);
  }
  free((void *)set);
  return rc;
}

const cli_verb cli_verb_calibrate = {
    .name = "calibrate",
    .summary = "the noise floor of this machine, for compare",
    .help =
        "usage: icebench calibrate [FILE.yaml] [--runs N] [--rate R] [--threads T] [--filter KEY=V,...] [--set KEY=VALUE]\n\n"
        "Runs every cell of FILE (without: a short one on synthetic tensors) 2N times as it is and N times slowed by each of 1, 2\n"
        "and 5 %, every run in a process of its own, in turns that go to and fro. Stores the noise floor: the gate that at most R\n"
        "of the comparisons of two runs of the same program exceed. `compare` never gates times below it. Prints how many\n"
        "of the slowdowns are caught above it. The slowed runs burn time inside the clock; nothing of the runs is stored.\n\n"
        "A cell that compare judges is given its own floor when FILE has it, else the highest known for the machine and as many\n"
        "threads. Calibrate with the rounds that you compare with, and again when the machine changes.\n\n"
        "  --runs N     3..200 (10)\n"
        "  --rate R     false alarms at most, 0.001..0.5 (0.05)\n\n"
        "examples:\n"
        "  icebench calibrate\n"
        "  icebench calibrate configs/ci/gate.yaml --runs 20 --db results/ci.db\n\n"
        "exit codes: 0 stored, 2 usage, 3 a cell does not run, 7 data or model missing, 8 database, 130/143 interrupted\n",
    .main = calibrate_main};
