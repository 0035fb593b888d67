/* task.h - the one interface behind which every evaluation task lives.
 *
 * A task knows where its files lie below a data root, how an example becomes token ids, and (if it can) how
 * to generate itself in the official file layout. A new task is one file datasets/<task>.c that ends in
 * `const task task_<id> = {...}` and one line in tasks.def. */
#ifndef ICE_TASK_H
#define ICE_TASK_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/core/err.h"

typedef enum task_split { TASK_TRAIN, TASK_DEV, TASK_TEST, TASK_SPLITS } task_split;

enum { TASK_MAX_INPUTS = 2 };

/** Examples of one split, as token ids. Owned by the caller of task_load(); free with task_data_free(). */
typedef struct task_data {
  int64_t count;    /* examples                                                             */
  int inputs;       /* sequences per example: 1, or 2 for two-document tasks                */
  int32_t *tokens;  /* all ids, one after the other; 0 is a masked position, counted but never computed */
  int64_t *start;   /* [count*inputs + 1]: sequence i of example e is tokens[start[e*inputs+i]] .. */
  int32_t *label;   /* [count], 0 <= label < task->classes                                  */
  int64_t empty;    /* examples that the set lists but has empty files for, passed over */
  uint64_t hash;    /* XXH3 of the unpacked file the split was read from                    */
  char origin[512]; /* path of the file it was read from                                    */
  int official;     /* 1: official release, 0: generated or stand-in (named so in reports)  */
  int standin;      /* 1: other examples of the task's kind                                 */
  const char *note; /* how it differs from the official release, for reports ("stand-in data"); NULL: not, or generated */
} task_data;

/** Options of `data make`. */
typedef struct task_make_options {
  uint64_t seed;
  const char *out;   /* data root; the task writes its official layout below it                          */
  const int *lengths; /* tasks of several lengths: those to make, 0-terminated; NULL: the official ones */
  const char *pool;   /* longeval/topics: a conversations.jsonl to draw from; NULL: conversations of our own */
  int64_t examples;  /* 0: official sizes; N: at most N train examples, dev and test at most N each      */
  void (*progress)(void *ctx, int64_t done, int64_t total); /* may be NULL */
  void *ctx;
  const volatile sig_atomic_t *stop; /* may be NULL; make gives up with ICE_INTERNAL soon after it became nonzero */
} task_make_options;

/** The release of the Long Range Arena: a tar in spite of its suffix, 8.23 GB, 18.6 GB unpacked; upstream publishes no checksum. */
#define LRA_RELEASE_URL "https://storage.googleapis.com/long-range-arena/lra_release.gz"
#define LRA_RELEASE_FILE "lra/lra_release.gz"

/** The upstream archive that holds a task, for `data fetch`. */
typedef struct task_release {
  const char *url;
  const char *file;          /* where it is put below the data root: "lra/cifar-10-binary.tar.gz" */
  int64_t bytes;             /* its size; 0 when nobody publishes it */
  const char *sha256;        /* NULL likewise                        */
  const char *const *inside; /* the folder in it that is unpacked: its possible places, NULL-terminated; NULL: the archive stays packed */
  const char *into;          /* ... and where it goes below the data root */
} task_release;

struct prompt_task; /* prompt.h */

typedef struct task {
  const char *name;   /* "lra/listops" */
  const char *doc;    /* one line */
  const char *metric; /* "accuracy" */
  const char *source; /* what to fetch, from where, and where to put it, in one line: "fetch ..." */
  const task_release *release; /* NULL: nothing to download */
  int vocab;          /* embedding rows of the model (ids are smaller)     */
  int positions;      /* longest sequence the model has positions for = padded length L of the recipe */
  int classes, inputs;
  int64_t official_count[TASK_SPLITS];
  int64_t may_lack;          /* examples that an official split may have fewer, as upstream has empty files */
  int balanced[TASK_SPLITS]; /* 1: the official split has equally many examples of every class */
  /** Loads a split found below one data root. ICE_DATA when the files are absent or not sane; *absent (not
   *  NULL) is set to 1 only when nothing of the task lies below this root. */
  int (*load)(const char *root, task_split split, task_data *out, int *absent, ice_err *e);
  /** The same for files that stand in for the task (other examples of its kind); asked only when no root has the task
   *  itself, so that two sources never mix. NULL: there are none. */
  int (*load_standin)(const char *root, task_split split, task_data *out, int *absent, ice_err *e);
  /** Generates the task below opt->out; NULL: cannot be generated. Files appear whole or not at all. */
  int (*make)(const task_make_options *opt, ice_err *e);
  /** The label of example e as computed from its tokens, -1 when they mean nothing; NULL where only people can tell. */
  int (*value)(const task_data *d, int64_t e);
  const struct prompt_task *prompts; /* a task that is asked and answered in words has this instead of classes and load; else NULL */
} task;

/** All tasks, NULL-terminated, in the order of tasks.def. */
extern const task *const task_all[];
/** Task by name; NULL and *e (ICE_USAGE, with the nearest names) when unknown. */
const task *task_find(const char *name, ice_err *e);
/** Loads a split of a task of classes from the first data root that has it (prompt.h loads the others). Roots: $ICEBENCH_DATA_DIR (a ':' list), then
 *  datasets/data. When no root has it: ICE_DATA with the line that says what to make or fetch. */
int task_load(const task *t, task_split split, task_data *out, ice_err *e);
/** The same; *absent tells whether the failure is that no root has the task. */
int task_search(const task *t, task_split split, task_data *out, int *absent, ice_err *e);
/** How to get the task's data, in one line: "make it with ..., or fetch ...". */
void task_advice(const task *t, char *out, size_t size);
/** Fills roots[] (borrowed pointers into buf) with the search path; returns their number (<= max). */
int task_roots(char *buf, size_t size, const char **roots, int max);
/** Keeps n examples, drawn by a fixed permutation, in their order (all when there are no more). ICE_INTERNAL: out of memory. */
int task_draw(task_data *d, int64_t n, ice_err *e);
/** Moves n examples, drawn by a fixed permutation, out of *train into *dev, both in their order. ICE_USAGE unless 0 < n < count. */
int task_hold_out(task_data *train, int64_t n, task_data *dev, ice_err *e);
void task_data_free(task_data *d);
/** Length of sequence i of example e. */
static inline int64_t task_len(const task_data *d, int64_t e, int i) {
  return d->start[e * d->inputs + i + 1] - d->start[e * d->inputs + i];
}
static inline const int32_t *task_ids(const task_data *d, int64_t e, int i) {
  return d->tokens + d->start[e * d->inputs + i];
}
/** Positions of it that are computed: those that are not masked. */
static inline int64_t task_live(const task_data *d, int64_t e, int i) {
  const int32_t *ids = task_ids(d, e, i);
  int64_t n = 0;
  for (int64_t k = task_len(d, e, i) - 1; k >= 0; k--) n += ids[k] != 0;
  return n;
}
/** All sequences of example e: ids and n hold d->inputs entries, of which there are at most TASK_MAX_INPUTS. */
static inline void task_example(const task_data *d, int64_t e, const int32_t **ids, int64_t *n) {
  for (int i = 0; i < d->inputs; i++) {
    ids[i] = task_ids(d, e, i);
    n[i] = task_len(d, e, i);
  }
}
static inline const char *task_split_name(task_split s) {
  return s == TASK_TRAIN ? "train" : s == TASK_DEV ? "val" : "test";
}

#endif
