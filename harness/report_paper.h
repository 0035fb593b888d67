/* report_paper.h - published values beside ours, with a verdict on every one of them.
 *
 * Files: results/paper/lra-*.csv, one after the other: lines of `task,method,model,metric,value,error,source` after that header;
 * model is the last part of a model's name (who was trained), error the relative error of reading the value off a figure.
 * Metrics: attention_s (seconds; compared as the ratio to `vanilla` of the same source), memory_gb (as the sign of the difference
 * from it), accuracy, and over all tasks (task `lra`) speedup and retention. Lines that start with # say where values come from.
 *
 * Speed-ups are taken as they were published: the PyTorch baselines computed padding, IceFormer did not. So those of baselines are
 * rows of ours with `padding: compute`; that of iceformer is its speed-up without padding times what skipping padding gives to
 * `vanilla` (speedup_skip), each of the two measured within one process. Both factors are shown (paper_task). */
#ifndef ICE_REPORT_PAPER_H
#define ICE_REPORT_PAPER_H

#include "harness/report_rows.h"
#include "harness/stats.h"

enum { PAPER_FIELD = 64 };
typedef struct paper_value {
  char task[PAPER_FIELD], method[PAPER_FIELD], model[PAPER_FIELD], metric[PAPER_FIELD], source[PAPER_FIELD];
  double value, error;
} paper_value;

typedef struct report_paper {
  paper_value *value;
  int n, notes;
  char **note; /* [notes] where the values come from */
} report_paper;

/** Text of the files as they are shipped, to free(). */
int report_paper_files(char **out, ice_err *e);
/** Reads the files. *p is zeroed first; free it in any case. ICE_DATA names the line at fault. */
int report_paper_parse(const char *text, report_paper *p, ice_err *e);
void report_paper_free(report_paper *p);

typedef enum paper_outcome { PAPER_REPRODUCED, PAPER_DIFFERS, PAPER_NOT_HERE } paper_outcome;
/** "reproduced", "differs", "not runnable here" */
const char *paper_outcome_text(paper_outcome o);

/** How far ours may be from what was published. A speed-up of iceformer is a claim of "at least"; all others hold both ways. */
#define PAPER_SPEED_FACTOR 1.25 /* other machine, threads, batch */
#define PAPER_ACCURACY 0.02     /* other seed, other draw of the test set */

typedef struct paper_verdict {
  const paper_value *of;
  double published, ours, lo, hi; /* as compared; NAN = unknown. memory: GB and MiB more than vanilla */
  double ratio;                   /* ours / published; NAN for memory */
  paper_outcome outcome;
  int64_t examples; /* behind ours; 0 = unknown */
  int partial;
  char why[512]; /* why it is not runnable here, or what to know; or "" */
} paper_verdict;

/** One task: the speed-up of iceformer and what it is made of. */
typedef struct paper_task {
  const char *task, *on; /* on: the task of our rows, where that is a stand-in */
  stats_interval vanilla_padded, vanilla; /* attention_ns of vanilla, padding computed and skipped, in one process each */
  stats_interval skip, vanilla_x, dense_x, together; /* x by skipping padding; iceformer x vanilla, x dense; skip * vanilla_x */
  stats_interval accuracy, retention;                /* of iceformer; retention paired by example */
  double published;
} paper_task;
enum { PAPER_TASKS = 5 };

/** Judges every value by the rows of the experiment (NULL: by the best row of any, those of `paper-lra` first). verdict [p->n]. */
int report_paper_judge(store *s, const report_paper *p, const char *experiment, paper_verdict *verdict,
                       paper_task task[PAPER_TASKS], ice_err *e);

#endif
