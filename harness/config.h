/* config.h - experiment files: YAML in, a list of concrete cells out.
 *
 * One file = one experiment (the keys: `icebench check --help`, examples in configs/). Lists multiply out into cells.
 * Every key has a type, range and default; a fault is one line
 * `file:line:column: key = value, allowed ...`. */
#ifndef ICE_CONFIG_H
#define ICE_CONFIG_H

#include <stdint.h>

#include "datasets/prompt.h"
#include "kernels/attn.h"
#include "kernels/core/err.h"

/** One concrete cell: everything that identifies a result, apart from machine and build. */
typedef struct config_cell {
  const task *task;
  const char *model; /* id "lra/listops/softmax", or a path; of tensors "h=1,d=64"; owned by the experiment */
  const char *source; /* of tensors: text of synth.h; owned by the experiment. NULL: the cell runs a model */
  const attn_method *method;
  void *params;      /* method->params_size bytes, owned */
  const char *schedule; /* values of parameters by layer and head, schedule.h; NULL: none; owned by the experiment */
  char *params_json; /* canonical, schedule included; owned */
  uint64_t seed;
  int padded; /* key `padding`: 1 = compute, 0 = skip (default); see encoder_slot.padded */
  int64_t length; /* of tasks of words that come in lengths; 0: the task does not */
} config_cell;

enum { CONFIG_MAX_PROCESSES = 100 };

typedef struct config_experiment {
  char *file, *name;
  int64_t examples;     /* 0: all of the split                                     */
  task_split split;     /* key `split`: test (default) or dev                      */
  int threads;          /* default: cores of this machine, at most 2 x 64          */
  int rounds, warmup;   /* measure.rounds 1..1000 (9), measure.warmup 0..100 (1)   */
  int processes;        /* measure.processes 1..CONFIG_MAX_PROCESSES (1): so many, one after the other, each of so many rounds */
  int64_t timed;        /* measure.inputs: examples in the timed set, 1..4096 (16) */
  double max_seconds;   /* measure.max_seconds: budget of the timed rounds (120)   */
  double precision;     /* measure.precision: go on until speed-ups have intervals narrower than this; 0: off (0)        */
  int max_rounds;       /* measure.max_rounds 1..1000 (200), with precision        */
  double slowdown;      /* measure.slowdown: the method is slowed by this share, to test the instrument (0); rows say so */
  int affinity;         /* measure.affinity: pins the cell to as many cores as it has threads (false) */
  double noise;         /* measure.noise: a cell whose sentinel moved by more is measured anew; 0: off (0) */
  int retries;          /* measure.retries 0..20 (2): how often                    */
  int quality;          /* measure.quality: true                                   */
  double limit_seconds; /* limits.seconds per cell (600), limits.memory_gib (8)    */
  double limit_gib;
  int skip_missing;         /* key `missing`: skip makes cells without data or checkpoint rows with the reason; fail (default) */
  int own_pairs;            /* key `pairs`: trained puts a method that needs training into the model named after it only, and
                               the others into models of exact attention (softmax...) only; all (default) */
  int allow_untrained_swap; /* key `no_retraining`: true lets NEEDS_TRAINING methods into foreign models; rows are labelled */
  int64_t shuffle;      /* key `shuffle`: seed of the order in which cells run; -1: as the file says */
  int template;          /* of tasks of words: prompt_template (vicuna)                      */
  int64_t answer_tokens; /* of such: most new tokens; 0: the task's own number                */
  int64_t context;       /* of such: prompt and answer together; 0: the model's own           */
  config_cell *cell;
  int n_cells;
  void *impl;
} config_experiment;

/** Loads, validates and expands a file. `set` is a NULL-terminated list of "key=value" overrides (may be NULL): top-level
 *  scalar keys, measure.KEY, limits.KEY, METHOD.PARAM (value may be a list a|b|c), or preset=NAME, which is applied first.
 *  ICE_USAGE on any fault. */
int config_load(const char *file, const char *const *set, config_experiment *out, ice_err *e);
/** The same from memory (for fuzzing); `name` stands in the messages. */
int config_parse(const char *bytes, size_t n, const char *name, const char *const *set, config_experiment *out,
                 ice_err *e);
/** A model is a path when it begins with / or . or ends in .safetensors or .gguf, otherwise an id below models/checkpoints: TASK/NAME,
 *  and for tasks of words any name of a folder or a .gguf file. */
int config_model_is_path(const char *model);
/** Name of the i-th preset that the file defines; NULL: there are no more. */
const char *config_preset(const config_experiment *x, int i);
void config_free(config_experiment *x);
/** Canonical JSON of everything of the cell that identifies its result (method version, threads, isa, data hash and model
 *  hash are added by the runner). To free(). */
char *config_cell_json(const config_experiment *x, const config_cell *c);

#endif
