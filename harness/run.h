/* run.h - an experiment at work: its cells with their identity, what the database has of them, and the loop over the rest.
 *
 * A cell's identity (its key) is a canonical JSON of what its numbers depend on: the cell as configured, the version of the
 * method, threads, instruction set, the hashes of data and model, and the kind of build unless it is a release. Commit and machine are facts beside a result, not
 * part of the key: a rebuild does not repeat what a version bump would have announced. */
#ifndef ICE_RUN_H
#define ICE_RUN_H

#include <signal.h>
#include <stdint.h>

#include "harness/config.h"
#include "harness/store.h"
#include "kernels/core/err.h"
#include "models/encoder.h"

typedef struct run_options {
  const char *const *set;  /* overrides of the file, NULL-terminated, or NULL          */
  const char *filter;      /* KEY=VALUE|VALUE,...: only cells that match; or NULL      */
  const char *cells;       /* file that lists the cells to run, as `shard` writes it; or NULL */
  int64_t limit;           /* at most so many examples, rows marked partial; 0: no     */
  int threads;             /* 0: as the file says                                      */
  int force, retry_failed; /* run finished cells again; run failed cells again         */
  int stop_on_error;
  int twin; /* count instructions as well, see twin.h */
  double max_hours; /* start no cell after that; 0: no limit                    */
} run_options;

typedef struct run_model { /* a checkpoint; of a language model `shape` has heads, width, layers and inputs alone */
  const char *name;        /* as the experiment says */
  char path[4096], hash[17];
  encoder_config shape;
  int64_t positions;       /* of language models: tokens that they have positions for */
  int untrained;
  char attention[32];         /* what it was trained with: metadata, or else the last part of its name; "softmax": exact attention */
  char attention_params[512]; /* canonical JSON, or "" */
  char missing[512];          /* as of run_data */
} run_model;

typedef struct run_data { /* what is known of a task's split */
  const task *task;
  int64_t length;         /* of tasks that come in several */
  const run_model *model; /* whose tokens are counted; NULL: they are the task's own */
  int64_t count, longest, queries; /* queries: longest, but for tensors with a number of their own */
  double mean, mean_square; /* tokens per sequence */
  int official;
  const char *note; /* of task_data */
  char hash[17];     /* "" when missing */
  char missing[512]; /* why there is none (key `missing: skip`), or "" */
} run_data;

typedef struct run_cell {
  const config_cell *cell;
  const run_data *data;
  const run_model *model;
  char *key, *json;   /* identity, and the cell as configured; owned */
  char label[128];    /* "generated data, untrained", or "" */
  int needs_training; /* 1: the method has to be trained, and this model was trained with another */
  const char *missing; /* why there is nothing to run, or NULL */
  int shares;         /* 1: differs from the cell before it in late parameters only, and runs with it as one group */
  int partial, done;  /* done: the database has it */
  int64_t limit;      /* examples of a partial cell, else 0 */
  double seconds;     /* expected wall time, by run_plan_estimate */
  int known, scaled;  /* from rows like it; from rows of its like, by a guess of the proportion */
} run_cell;

typedef struct run_plan {
  config_experiment x;
  run_cell *cell;
  int n, n_done;
  run_data *data;
  run_model *model;
  int n_data, n_models;
} run_plan;

/** Values of --limit and --threads, as text or NULL. */
int run_read_numbers(const char *limit, const char *threads, run_options *o, ice_err *e);
/** Finds a checkpoint by name and looks at it: path, hash, shape, training. ICE_DATA when it is missing (skip_missing: m->missing says
 *  so) or damaged. `name` is borrowed. */
int run_model_open(run_model *m, const task *t, const char *name, int skip_missing, ice_err *e);
/** Loads the experiment, its data and models, and lists the cells that the options choose. ICE_USAGE for a bad file or
 *  option, ICE_DATA when data or a model is missing or not sane; the text says what to do. */
int run_plan_create(run_plan *p, const char *file, const run_options *o, ice_err *e);
void run_plan_destroy(run_plan *p);
/** Looks each cell up in the database. */
int run_plan_look_up(run_plan *p, store *s, const run_options *o, ice_err *e);
/** Is this cell in the database, as far as the options care? */
int run_is_done(store *s, const run_cell *c, const run_options *o, int *done, ice_err *e);

/** Fills seconds, known and scaled of every cell. Rows of the same task, model, method, parameters, size and threads, of
 *  this machine if there are any, tell the time; for the rest of the cells a guess is scaled by how far the guesses for known
 *  cells were off. s may be NULL: guesses alone. */
void run_plan_estimate(run_plan *p, store *s);
/** Plan and scratch of the cell's method and its baselines on the longest sequence, and the data: bytes. */
double run_guess_bytes(const run_plan *p, const run_cell *c);

typedef struct run_summary {
  int there;                  /* cells that were in the database before */
  int there_failed;           /* those of them that failed, and were not to be run again */
  int ran, ok, failed, other; /* other: unsupported, skipped */
  int left;                   /* cells not run: time, stop on error, interruption */
  int interrupted;
  char first_failure[1200];
} run_summary;

typedef struct run_stop { /* set by signal handlers */
  volatile sig_atomic_t after_cell; /* finish the cell at work, start no other */
  volatile sig_atomic_t now;        /* give the cell at work up */
} run_stop;

struct cell_job;
struct cell_result;
/** What a child is told of a cell. Its texts are those of plan and cell. */
struct cell_job run_job(const run_plan *p, const run_cell *c, const run_options *o);
/** Times one cell in one child, without any database and without judging it, the method slowed by a share. What becomes of it is in *out, to free with
 *  cell_result_free(); after an interruption that says failed. */
int run_measure(run_plan *p, const run_cell *c, const run_options *o, double slowdown, const run_stop *stop, struct cell_result *out,
                ice_err *e);

/** Runs every cell that is not done, each in a child or a group of them in one (run_cell.shares), and stores it. *stop ends it cleanly: everything before is stored. Failures of cells are in the summary; ICE_DB or ICE_INTERNAL when the loop
 *  itself cannot go on. verbose: 0 silent, 1 a line per cell and progress, 2 also what children say. */
int run_cells(run_plan *p, store *s, const run_options *o, const run_stop *stop, int verbose,
              run_summary *out, ice_err *e);

#endif
