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

typedef struct sampled { /* the rounds of a measurement, process after process */
  double *x;
  size_t n, size[CONFIG_MAX_PROCESSES], processes;
} sampled;

enum { SLOTS = KINDS + 1 }; /* measurements of a turn: each kind once, as it is once more */

typedef struct subject { /* a cell and its measurements: those of turn t from t * SLOTS on */
  const run_cell *cell;
  sampled *slot;
} subject;

typedef struct settings {
  int runs;    /* turns: measurements of each slowdown; twice as many as it is */
  double rate; /* of false alarms, at most */
  const run_options *options;
} settings;

/* Which kind a slot of a turn is: as it is first and last. */
static int kind_of(int slot) { return slot == KINDS ? 0 : slot; }
static double slowdown_of(int kind) { return kind ? calibrate_slowdowns[kind - 1] : 0.0; }

/* ---- Measurements. */

static int keep(sampled *m, int processes, const run_cell *c, const cell_result *res, ice_err *e) {
  double *x = realloc(m->x, (m->n + (size_t)res->n_samples + 1) * sizeof *x);
  size_t n = 0;
  if (!x) return ice_fail(e, ICE_INTERNAL, "out of memory for the rounds");
  m->x = x;
  for (int i = 0; i < res->n_samples; i++) {
    const store_sample *s = res->sample + i;
    if (!strcmp(s->method, c->cell->method->name) && !strcmp(s->phase, "attention")) x[m->n + n++] = (double)s->ns;
  }
  m->size[m->processes++] = n;
  m->n += n;
  if (m->n >= STATS_LEAST || m->processes < (size_t)processes) return ICE_OK;
  return ice_fail(e, ICE_USAGE, "%s: %zu rounds; intervals take %d: raise measure.rounds or measure.max_seconds", c->cell->method->name, m->n, STATS_LEAST);
}

static int run_process(run_plan *p, const subject *s, sampled *to, int kind, const settings *set, ice_err *e) {
  cell_result res;
  ICE_TRY(run_measure(p, s->cell, set->options, slowdown_of(kind), &stop, &res, e));
  int rc = ICE_OK;
  if (!stop_signal && strcmp(res.status, "ok"))
    rc = ice_fail(e, ICE_CELLS_FAILED, "%s: %s: %.700s", s->cell->cell->method->name, res.status, res.reason ? res.reason : "");
  if (!stop_signal && rc == ICE_OK) rc = keep(to, p->x.processes, s->cell, &res, e);
  cell_result_free(&res);
  return rc;
}

/* One turn: of every cell the measurements of all kinds, a process of each at a time, and every other time the other way round (ABBA),
 * so that a drift of the machine favours no kind. */
static int run_turn(run_plan *p, const subject *s, int turn, const settings *set, cli_progress *progress, ice_err *e) {
  const int processes = p->x.processes, per_turn = p->n * processes * SLOTS;
  for (int i = 0; i < p->n; i++)
    for (int k = 0; k < processes * SLOTS && !stop_signal; k++) {
      const int process = k / SLOTS, slot = (turn + process) % 2 ? SLOTS - 1 - k % SLOTS : k % SLOTS;
      cli_progress_tick(progress, turn * per_turn + i * processes * SLOTS + k, set->runs * per_turn, s[i].cell->cell->method->name);
      ICE_TRY(run_process(p, s + i, s[i].slot + turn * SLOTS + slot, kind_of(slot), set, e));
    }
  return ICE_OK;
}

/* The measurements of a kind, in views [2 * turns]; returns how many. */
static size_t views_of(const subject *s, int turns, int kind, stats_runs *views) {
  size_t n = 0;
  for (int i = 0; i < turns * SLOTS; i++)
    if (kind_of(i % SLOTS) == kind) views[n++] = (stats_runs){s->slot[i].x, s->slot[i].size, s->slot[i].processes};
  return n;
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
                           .isa = attn_isa_name(), .rounds = (int)s->slot->n, .runs = 2 * set->runs, .rate = set->rate, .floor = floor, .power = text};
  const int rc = text ? store_put_noise(db, &row, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  free(text);
  json_decref(o);
  return rc;
}

/* The floor of a cell, and the power of each slowdown above it; views [4 * turns]. */
static int judge(const subject *s, const settings *set, stats_runs *views, double *floor, double power[CALIBRATE_SLOWDOWNS], ice_err *e) {
  const size_t n = views_of(s, set->runs, 0, views);
  *floor = calibrate_floor(views, n, set->rate);
  if (!isfinite(*floor)) return ice_fail(e, ICE_INTERNAL, "out of memory for the comparisons");
  for (int k = 0; k < CALIBRATE_SLOWDOWNS; k++) power[k] = calibrate_power(views + n, views_of(s, set->runs, 1 + k, views + n), views, n, *floor);
  return ICE_OK;
}

static void print_line(const subject *s, double floor, const double *power) {
  char brief[200], name[300], time[32];
  const config_cell *c = s->cell->cell;
  measure_brief(c->method, c->params, c->schedule, brief, sizeof brief);
  (void)snprintf(name, sizeof name, "%s%s%s, %s", c->method->name, *brief ? " " : "", brief, c->task->name);
  measure_print_ns(stats_time_of_runs((stats_runs){s->slot->x, s->slot->size, s->slot->processes}, 0), time, sizeof time);
  (void)printf("%-40.40s %9.2f %% %9s          %3.0f %% %7.0f %% %7.0f %%\n", name, 100.0 * floor, time, 100.0 * power[0], 100.0 * power[1], 100.0 * power[2]);
}

static int conclude(store *db, const run_plan *p, const subject *s, const settings *set, int quiet, ice_err *e) {
  stats_runs *views = malloc(4 * (size_t)set->runs * sizeof *views);
  int rc = views ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for the comparisons");
  if (!quiet) (void)printf("%-40s %11s %9s   power: %g %% %7g %% %7g %%\n", "cell", "noise floor", "time", 1.0, 2.0, 5.0);
  for (int i = 0; rc == ICE_OK && i < p->n; i++) {
    double power[CALIBRATE_SLOWDOWNS], floor;
    rc = judge(s + i, set, views, &floor, power, e);
    if (rc == ICE_OK) rc = store_floor(db, p, s + i, set, floor, power, e);
    if (rc == ICE_OK && !quiet) print_line(s + i, floor, power);
  }
  free(views);
  if (rc == ICE_OK && !quiet)
    (void)printf("at this floor at most %g %% of A/A comparisons of %zu x %zu rounds raise an alarm; power: share of slowdowns that are caught\n", 100.0 * set->rate,
                 s->slot->processes, s->slot->size[0]);
  return rc;
}

static int reserve(subject *s, const run_plan *p, int turns, ice_err *e) {
  for (int i = 0; s && i < p->n; i++) {
    s[i] = (subject){.cell = p->cell + i, .slot = calloc((size_t)turns * SLOTS, sizeof *s->slot)};
    if (!s[i].slot) return ice_fail(e, ICE_INTERNAL, "out of memory");
  }
  return s ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

static void release(subject *s, const run_plan *p, int turns) {
  for (int i = 0; s && i < p->n; i++) {
    for (int k = 0; s[i].slot && k < turns * SLOTS; k++) free(s[i].slot[k].x);
    free(s[i].slot);
  }
  free(s);
}

static int calibrate(const cli_common *common, run_plan *p, const settings *set, ice_err *e) {
  subject *s = calloc((size_t)p->n + 1, sizeof *s);
  store *db = NULL;
  cli_progress progress;
  int rc = reserve(s, p, set->runs, e);
  if (rc == ICE_OK) rc = store_open(common->db, STORE_WRITE, &db, e);
  cli_progress_start(&progress, "calibrate", !common->quiet);
  for (int turn = 0; rc == ICE_OK && turn < set->runs && !stop_signal; turn++) rc = run_turn(p, s, turn, set, &progress, e);
  cli_progress_end(&progress);
  if (rc == ICE_OK && stop_signal) rc = ice_fail(e, 128 + (int)stop_signal, "interrupted; nothing was stored");
  if (rc == ICE_OK) rc = conclude(db, p, s, set, common->quiet, e);
  store_close(db);
  release(s, p, set->runs);
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
        "Measures every cell of FILE (without: a short one on synthetic tensors) 2N times as it is and N times slowed by each of 1, 2\n"
        "and 5 %, each time in as many processes as measure.processes says, in turns that go to and fro. Stores the noise floor: the\n"
        "gate that at most R of the comparisons of two measurements of the same program exceed. `compare` never gates times below it. Prints how many\n"
        "of the slowdowns are caught above it. The slowed runs burn time inside the clock; nothing of the runs is stored.\n\n"
        "A cell that compare judges is given its own floor when FILE has it, else the highest known for the machine and as many\n"
        "threads. Calibrate with the rounds and processes that you compare with, and again when the machine changes. Neighbours of\n"
        "a machine slow it for tenths of a second: with one process (the default of a file) floors of 10 % are usual, with 20 one can\n"
        "tell 5 %.\n\n"
        "  --runs N     3..200 (10)\n"
        "  --rate R     false alarms at most, 0.001..0.5 (0.05)\n\n"
        "examples:\n"
        "  icebench calibrate\n"
        "  icebench calibrate configs/ci/gate.yaml --runs 20 --db results/ci.db\n\n"
        "exit codes: 0 stored, 2 usage, 3 a cell does not run, 7 data or model missing, 8 database, 130/143 interrupted\n",
    .main = calibrate_main};
