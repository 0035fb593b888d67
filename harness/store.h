/* store.h - results in SQLite. One writer; a cell with its samples, metrics and predictions enters in one transaction or
 * not at all. Schema: harness/sql/NNNN_*.sql, applied in order, recorded in PRAGMA user_version. */
#ifndef ICE_STORE_H
#define ICE_STORE_H

#include <stdint.h>

#include "kernels/core/err.h"

typedef struct store store;

/** A named number of a cell with its interval; NAN = unknown = NULL in the database. */
typedef struct store_metric {
  const char *name; /* names of contract section 4: accuracy, attention_ns, build_ns, query_ns, model_ns, speedup_vanilla,
                       speedup_dense, l2_error, rel_l2_error, mass, recall, pairs, peak_bytes, padded..., */
  double value, lo, hi;
} store_metric;

/** Rounds of a cell that several processes timed: round r of process p is stored as p * STORE_PROCESS + r. */
enum { STORE_PROCESS = 1000 };
typedef struct store_sample { /* one raw timing */
  const char *method;         /* "vanilla", "dense" or the cell's own method */
  const char *phase;          /* "attention", "build", "query", "model" */
  int round;
  int64_t ns;
} store_sample;

typedef struct store_prediction {
  int64_t item; /* index of the example in its split */
  int32_t expected, predicted;
} store_prediction;

typedef struct store_answer {
  int64_t item;         /* index of the example in its split */
  const char *id;       /* its name in the set */
  const char *text;     /* what the model said */
  const char *expected; /* JSON list of right answers */
  int64_t tokens, cut;  /* of the prompt; left out of its context */
  double mark;          /* 0..1; NAN without a right answer */
} store_answer;

typedef struct store_cell {
  const char *key; /* canonical JSON of the identity; unique in the database */
  const char *experiment, *task, *model, *method, *method_version, *params;
  uint64_t seed;
  int64_t n, heads, head_dim, layers; /* n: mean tokens per sequence; 0 = unknown */
  int causal, threads, partial;
  const char *isa;
  int64_t examples;
  const char *status, *reason; /* ok failed timeout oom unsupported skipped; reason may be NULL */
  const char *noise;           /* why the times are not to be believed (the view `results` says invalid-noise), or NULL */
  const char *label;           /* e.g. "no retraining", "stand-in data"; may be NULL */
  const char *config;          /* resolved experiment as canonical JSON */
  const char *data_hash, *model_hash;
  int64_t started_utc_ms, wall_ms;
  const store_metric *metric;
  int n_metrics;
  const store_sample *sample;
  int n_samples;
  const store_prediction *prediction;
  int n_predictions;
  const store_answer *answer;
  int n_answers;
} store_cell;

typedef enum store_mode { STORE_READ, STORE_WRITE } store_mode;

/** How long to wait for another process that holds the database: 10,000 ms. Tests shorten it before store_open. */
extern int store_patience_ms;

/** Opens (STORE_WRITE: creates folder and file, migrates older schemas). ICE_DB: locked for longer than 10 s, newer schema,
 *  corrupt, not a database, not readable or writable, disk full. Each message says what to do. */
int store_open(const char *path, store_mode mode, store **out, ice_err *e);
void store_close(store *s);
/** 1 in *finished when the key has a row with status ok, unsupported or skipped (or any row, if any_status), and no noise. */
int store_has(store *s, const char *key, int any_status, int *finished, ice_err *e);
/** Inserts a cell. A row of the same key is replaced: it stays in the view `history` with all that belongs to it, and the
 *  new one has the next attempt number. A finished one is replaced only when `force`. */
int store_put(store *s, const store_cell *c, int force, ice_err *e);
/** Puts other marks into the row with this id: metrics of these names are replaced, `mark` of its answers (items as they are) too, and
 *  the digest follows. Whole or not at all. */
int store_remark(store *s, int64_t id, const store_metric *metric, int n_metrics, const store_answer *answer, int n_answers, ice_err *e);
/** What `calibrate` found for a cell on this machine; a row of the table noise_floor. */
typedef struct store_noise {
  const char *task, *model, *method, *params, *isa, *power; /* power: JSON, slowdown -> share caught */
  int threads, rounds, runs;
  double rate, floor;
} store_noise;
int store_put_noise(store *s, const store_noise *n, ice_err *e);
/** Runs a SELECT with bound text parameters and hands each row over as text (NULL for NULL). The callback returns 0 to go on. */
int store_query(store *s, const char *sql, const char *const *bind, int n_bind,
                int (*row)(void *ctx, int columns, char **names, char **values), void *ctx, ice_err *e);
/** Median wall_ms of finished cells of this task, model and method in the database, NAN if none (for `plan`). */
double store_expected_ms(store *s, const char *task, const char *model, const char *method);

#endif
