/* cell.h - one cell of an experiment: a model with one method in its attention slot, on one task.
 *
 * A cell runs in a child process of its own (`icebench __cell`): the job comes in on standard input, the result leaves on
 * standard output, both as one JSON object. The parent (run.h) alone knows the database.
 *
 * Cells on tensors that differ in late parameters only may come as one job: what `build` makes, the references and the exact
 * answer are made once, and the results leave one a line. */
#ifndef ICE_CELL_H
#define ICE_CELL_H

#include <stdint.h>

#include "datasets/task.h"
#include "harness/hygiene.h"
#include "harness/measure.h"
#include "harness/measure_store.h"
#include "harness/store.h"
#include "kernels/core/err.h"
#include "models/encoder.h"

enum { CELL_GROUP = 64 }; /* cells of one job, at most */
enum { CELL_MAX_JOB = 60000, CELL_MAX_RESULT = 256 << 20 }; /* bytes of JSON */

/** How carefully a cell is timed; the keys measure.* of config.h. */
typedef struct cell_care {
  double precision, slowdown;
  int max_rounds, affinity;
  hygiene *hygiene; /* of the execution, set by cell_execute; NULL: nobody looks */
} cell_care;

typedef struct cell_job {
  const char *task, *model_path, *method, *params_json;
  task_split split;
  uint64_t seed;    /* of the examples drawn, of randomised methods, of the bootstrap */
  int64_t examples; /* 0: all */
  int64_t timed;    /* examples in the timed set */
  int threads, rounds, warmup, quality;
  int times_only;     /* 1: no accuracy, no errors; another process has judged the cell */
  int padded;         /* 1: padded positions are computed and masked */
  double max_seconds; /* of the timed rounds */
  cell_care care;
  double limit_gib;   /* 0: none */
  /* Of tasks of words: config_experiment has what they mean. */
  int64_t length, answer_tokens, context;
  int template;
  const char *const *also; /* [n_also]: parameters of the further cells of a group */
  int n_also;              /* less than CELL_GROUP */
  void *impl;         /* owned by cell_job_parse */
} cell_job;

typedef struct cell_result {
  const char *status;                           /* ok, unsupported, oom, failed */
  const char *reason;                           /* NULL, or one line */
  int64_t n, heads, head_dim, layers, examples; /* n: mean tokens of the timed sequences */
  int causal;
  int64_t resident_bytes; /* largest resident set of the process */
  store_metric *metric;
  store_sample *sample;
  store_prediction *prediction;
  store_answer *answer; /* its texts belong to impl */
  int n_metrics, n_samples, n_predictions, n_answers;
  char text[1024]; /* where a reason made here stands */
  void *impl;      /* owned */
} cell_result;

/** Job and result as JSON; strings to free(). NULL when memory is out. */
char *cell_job_print(const cell_job *job);
char *cell_result_print(const cell_result *r);
/** The way back. ICE_INTERNAL when the text is no such object; strings and arrays live until the _free. */
int cell_job_parse(const char *text, size_t n, cell_job *out, ice_err *e);
int cell_result_parse(const char *text, size_t n, cell_result *out, ice_err *e);
void cell_job_free(cell_job *job);
void cell_result_free(cell_result *r);

/** Adds the times of another process (1, 2, ...) to the result of process 0; `part` stays the caller's. cell_join_end() after the last makes the
 *  metrics of `method` that are made of times: medians, speed-ups, rounds; their intervals resample processes. See cell_join.c. */
int cell_join(cell_result *into, const cell_result *part, int process, ice_err *e);
int cell_join_end(cell_result *r, const char *method, uint64_t seed, ice_err *e);

/** Runs a job in this process; out [1 + n_also]. Everything that can go wrong with a cell is in the result's status. A group
 *  succeeds as a whole or has one result, the failure: then its cells are to run one by one, for each to say its own. */
void cell_execute(const cell_job *job, cell_result *out);

/** Purposes of the draws by a cell's seed: cell_draw(.., attn_hash(seed, PURPOSE, 0), ..). */
enum { CELL_DRAW_EXAMPLES = 1, CELL_DRAW_TIMED = 2 };
/** Can this model, read from `path`, do the task on sequences of up to `longest` tokens? ICE_DATA with both sides' sizes. */
int cell_check_model(const task *t, const encoder *model, int64_t longest, const char *path, ice_err *e);
/** Parameters of a method from their canonical JSON, over what params holds. */
int cell_read_params(const attn_method *m, const char *json, void *params, ice_err *e);
/** cell_execute() of cells on synthetic tensors: model_path is their source. See cell_tensors.c. */
void cell_execute_tensors(const cell_job *job, cell_result *out);
/** How a job is timed; the columns it is compared with are still to be named. */
measure_plan cell_plan(const cell_job *j);

/** Who is timed in a cell with a model: slot 0 is its method, 1 vanilla, 2 dense, and 3, where padding is computed, the method without it. */
enum { CELL_SLOTS = 4 };
typedef struct cell_slots {
  const attn_method *method[3]; /* of slots 0..2; slots of the same method as slot 0 are not opened, references may be NULL */
  int padded;
  /** Makes slot i ready to run; of one that could not be, close gives back what there is, and may be called once more. */
  int (*open)(void *ctx, int i, int padded, measure_entrant *out, ice_err *e);
  void (*close)(void *ctx, int i);
  void *ctx;
} cell_slots;
/** The rounds of a job over its slots, which stay open; *columns and *skip (slot 3) say which column is whose, -1: none. A reference that cannot be
 *  opened or fails (memory, say) costs its speed-up and leaves a reason in out, no more; fails as slot 0 fails. On success
 *  measure_free(result). */
int cell_time(const cell_job *j, const cell_slots *s, measure_result *result, measure_columns *columns, int *skip, cell_result *out, ice_err *e);
/** cell_execute() of a task that is answered in words. See cell_words.c. */
void cell_execute_words(const cell_job *job, cell_result *out);
/** What went wrong with a cell, as its result; support: what its method says of the problem. */
void cell_fail(cell_result *out, attn_status support, const ice_err *e);
/** Draws `count` of [0, n) by seed, ascending, into out [count]; all when count >= n. Returns how many. */
int64_t cell_draw(int64_t n, int64_t count, uint64_t seed, int64_t *out);

#endif
