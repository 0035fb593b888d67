/* cmd_run.c - verb `run`: the missing cells of an experiment. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli.h"
#include "harness/run.h"

static run_stop stop;
static volatile sig_atomic_t stop_signal;

/* SIGINT lets the cell at work finish, the next one gives it up, one more kills. SIGTERM, sent by schedulers that do not
 * wait for long, gives it up at once. */
static void on_signal(int number) {
  static const char wait[] = "icebench: interrupted: finishing the cell at work; once more gives it up\n";
  const int errno_kept = errno;
  if (stop.now) (void)signal(number, SIG_DFL);
  if (number == SIGTERM || stop.after_cell) stop.now = 1;
  else (void)!write(STDERR_FILENO, wait, sizeof wait - 1);
  stop.after_cell = 1;
  stop_signal = number;
  errno = errno_kept;
}

static void catch_signals(void) {
  struct sigaction action = {.sa_handler = on_signal};
  (void)sigaction(SIGINT, &action, NULL);
  (void)sigaction(SIGTERM, &action, NULL);
}

static int finish(const cli_common *common, const run_plan *p, const run_summary *sum, ice_err *e) {
  if (!common->quiet)
    (void)printf("%s: %d cell%s, %d run (%d ok, %d failed, %d unsupported or skipped), %d there before (%d failed), %d left; %s\n",
                 p->x.name, p->n, p->n == 1 ? "" : "s", sum->ran, sum->ok, sum->failed, sum->other, sum->there, sum->there_failed, sum->left, common->db);
  if (sum->interrupted)
    return ice_fail(e, 128 + (int)stop_signal, "interrupted; %d cell%s stored, run the same command to go on",
                    sum->ran + sum->there, sum->ran + sum->there == 1 ? " is" : "s are");
  char before[80] = "";
  if (sum->there_failed)
    (void)snprintf(before, sizeof before, "%d of %d cell%s failed before; --retry-failed runs %s again", sum->there_failed, p->n, p->n == 1 ? "" : "s",
                   sum->there_failed == 1 ? "it" : "them");
  if (sum->failed)
    return ice_fail(e, ICE_CELLS_FAILED, "%d of %d cell%s failed, the first: %s%s%s", sum->failed, sum->ran, sum->ran == 1 ? "" : "s",
                    sum->first_failure, *before ? "; " : "", before);
  if (*before) return ice_fail(e, ICE_CELLS_FAILED, "%s", before);
  return ICE_OK;
}

static int run_file(const cli_common *common, const char *file, const run_options *o, ice_err *e) {
  run_plan p;
  run_summary sum;
  store *s;
  ICE_TRY(run_plan_create(&p, file, o, e));
  int rc = store_open(common->db, STORE_WRITE, &s, e);
  if (rc == ICE_OK) {
    catch_signals();
    rc = run_cells(&p, s, o, &stop, common->quiet ? 0 : 1 + common->verbose, &sum, e);
    store_close(s);
    if (rc == ICE_OK) rc = finish(common, &p, &sum, e);
  }
  run_plan_destroy(&p);
  return rc;
}

static int run_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  run_options o = {0};
  const char *file = NULL, *limit = NULL, *threads = NULL, *force = NULL, *twin = NULL, *retry = NULL, *hours = NULL, *preset = NULL,
             *on_error = "continue", **set = NULL;
  int files = 0;
  const cli_option spec[] = {{.name = "limit", .has_value = 1, .value = &limit},
                             {.name = "filter", .has_value = 1, .value = &o.filter},
                             {.name = "cells", .has_value = 1, .value = &o.cells},
                             {.name = "preset", .has_value = 1, .value = &preset},
                             {.name = "set", .has_value = 1, .list = &set},
                             {.name = "threads", .has_value = 1, .value = &threads},
                             {.name = "force", .value = &force},
                             {.name = "retry-failed", .value = &retry},
                             {.name = "max-hours", .has_value = 1, .value = &hours},
                             {.name = "on-error", .has_value = 1, .value = &on_error},
                             {.name = "twin", .value = &twin},
                             {.name = NULL}};
  int rc = cli_parse(argc, argv, spec, &file, 1, &files, e);
  if (rc == ICE_OK && files != 1)
    rc = ice_fail(e, ICE_USAGE, "run: needs one file, e.g. icebench run configs/quickstart.yaml");
  if (rc == ICE_OK) rc = run_read_numbers(limit, threads, &o, e);
  if (rc == ICE_OK && hours) rc = cli_real("max-hours", hours, 1e-6, 1e5, &o.max_hours, e);
  if (rc == ICE_OK && strcmp(on_error, "continue") && strcmp(on_error, "stop"))
    rc = ice_fail(e, ICE_USAGE, "--on-error = %s, allowed continue, stop", on_error);
  char *named = NULL;
  if (rc == ICE_OK) rc = cli_preset(preset, &set, &named, e);
  o.set = set;
  o.force = force != NULL;
  o.retry_failed = retry != NULL;
  o.twin = twin != NULL;
  o.stop_on_error = !strcmp(on_error, "stop");
  if (rc == ICE_OK) rc = run_file(common, file, &o, e);
  free((void *)set);
  free(named);
  return rc;
}

const cli_verb cli_verb_run = {
    .name = "run",
    .summary = "run the missing cells of an experiment",
    .help =
        "usage: icebench run FILE.yaml [options]\n\n"
        "Runs every cell of the experiment that the database does not have, each in a child process of its own: a\n"
        "crash, a time-out or running out of memory costs one cell and is a row with its reason. Killed at any "
        "moment,\n"
        "the same command goes on where it stopped. Cells on tensors that can be asked of one index run as a group in one\n"
        "child (`icebench plan` marks them), with the time limits of all of them.\n\n"
        "A cell is one task, model, method with parameters, and seed. It predicts the examples (accuracy), times the\n"
        "method with vanilla and dense round by round on the same inputs (speed-ups), and compares every attention\n"
        "call with exact attention (L2, mass, recall). Keys of FILE: see `icebench check --help`.\n\n"
        "  --limit N            at most N examples; such rows are marked partial\n"
        "  --filter 'KEY=V|W,..' only cells that match every pair: task, model, method, seed, length, padding, or a parameter\n"
        "  --cells FILE         only the cells listed in FILE, as `icebench shard` writes it\n"
        "  --preset NAME        smoke (seconds, to see that it runs), full (the file as it is), or one of the file\n"
        "  --set KEY=VALUE      overrides a key of FILE: examples=100, measure.rounds=3, 'topk.k=8|16'; repeatable\n"
        "  --threads T          1..256, instead of the file's\n"
        "  --force              run finished cells again\n"
        "  --retry-failed       run failed cells again\n"
        "  --max-hours H        start no cell after H hours\n"
        "  --twin               run each cell once more under valgrind and store the instructions of a pass on one thread\n"
        "                       (twin_instructions): a cost without noise, for compare; many times slower\n"
        "  --on-error WORD      continue (default) or stop at the first failed cell\n\n"
        "examples:\n"
        "  icebench run configs/quickstart.yaml --db results/quickstart.db\n"
        "  icebench run configs/quickstart.yaml --limit 100 --filter 'method=topk|iceformer,k=20'\n\n"
        "Ctrl-C (SIGINT) lets the cell at work finish; once more, or SIGTERM, gives it up. Either way what was finished is\n"
        "stored. Cells run in the order of the file; `shuffle: SEED` in it, or --set shuffle=SEED, makes that random.\n\n"
        "exit codes: 0 done, 2 usage, 3 some cells failed, 7 data or model missing, 8 database, 130/143 interrupted\n",
    .main = run_main,
};
