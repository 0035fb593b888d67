/* compare.h - is NEW worse than BASE? Two sets of results, matched cell by cell, judged on four axes.
 *
 * Match    Cells are the same when task, model, method, parameters, seed, shape, threads, instruction set, examples, data and
 *          weights are; the experiment, the version of the method and the commit may differ. Of several rows for one cell on
 *          a side the newest counts, together with repetitions of it by the same build (`run --force`): more runs, more certainty.
 * Judge    A change has an estimate with a 95 % interval and a gate. Worse: the whole interval lies beyond the gate. Better:
 *          the whole interval lies beyond it on the good side. Unsure: the estimate lies beyond the gate but not the whole
 *          interval, or the interval is so wide that a change of `detect` would most likely have been missed. Same: everything else.
 * Times    Neighbours of a machine only ever add time, for a tenth of a second or longer: a process may be slow for all its life. So where both
 *          sides have six processes or more (`measure.processes`, repetitions), the times that nothing hindered are compared: the
 *          lowest decile over processes of the lowest decile of their rounds (stats_unhindered_ratio). With fewer: medians.
 * Gate     max(threshold, noise floor of the machine) for times, see calibrate.h; the threshold alone for what does not jitter.
 * Verdict  less accurate (5) before slower or bigger (4) before no verdict (6) before fine (0). No common cell is no verdict. */
#ifndef ICE_COMPARE_H
#define ICE_COMPARE_H

#include "harness/compare_side.h"
#include "harness/stats.h"

typedef enum compare_axis {
  COMPARE_SPEED,        /* attention_ns: ratio new / base                                     */
  COMPARE_MEMORY,       /* peak_bytes: ratio                                                  */
  COMPARE_INSTRUCTIONS, /* twin_instructions, where both sides counted them: ratio            */
  COMPARE_ACCURACY,     /* difference new - base over the same examples                       */
  COMPARE_ERROR,        /* rel_l2_error, or l2_error where that is all there is: ratio        */
  COMPARE_AXES
} compare_axis;
const char *compare_axis_name(compare_axis a); /* speed memory instructions accuracy error */

typedef enum compare_verdict { COMPARE_NOT_JUDGED, COMPARE_SAME, COMPARE_BETTER, COMPARE_WORSE, COMPARE_UNSURE } compare_verdict;
const char *compare_verdict_name(compare_verdict v); /* "", same better worse unsure */

typedef struct compare_finding {
  compare_verdict verdict;
  double base, now;      /* the metric on both sides; of times of many processes, what nothing hindered             */
  stats_interval change; /* ratio or difference; lo = hi = value for what does not jitter                         */
  double gate;           /* ratio: worse beyond 1 + gate; difference: worse below -gate                           */
  double floor;          /* of times: the noise floor in use, NAN when none is known                              */
  double detectable;     /* smallest change that this comparison shows with power 80 %, as the change is counted   */
  double p, effect;      /* times: Mann-Whitney, P(new > base); accuracy: McNemar. p is Holm-adjusted over the table */
  const char *why;       /* of what was not judged, or unsure; NULL                                                 */
} compare_finding;

typedef struct compare_pair { /* a common cell */
  const compare_cell *base, *now;
  compare_finding finding[COMPARE_AXES];
  const char *broken; /* NULL, or the status of NEW where BASE was ok */
} compare_pair;

typedef struct compare_options {
  double threshold[COMPARE_AXES];
  double noise_floor; /* NAN: from the databases */
  double detect;      /* a slowdown that must not go unseen */
  int allow_mixed;    /* compare times of different machines */
} compare_options;

typedef struct compare_result {
  compare_pair *pair; /* owned */
  int n, only_base, only_now;
  int count[COMPARE_UNSURE + 1]; /* findings by verdict */
  int mixed;                     /* 1: times were not judged, machines differ */
  int code;                      /* ICE_OK, ICE_SLOWER, ICE_LESS_ACCURATE or ICE_NO_VERDICT */
} compare_result;

/** Thresholds 3 % speed, 2 % memory, 0.5 % instructions, half a point of accuracy, 5 % error; 25 % detect. */
void compare_defaults(compare_options *o);
/** Judges. Both sides must outlive the result. ICE_INTERNAL when memory is out. */
int compare_judge(const compare_side *base, const compare_side *now, const compare_options *o, compare_result *out, ice_err *e);
void compare_free(compare_result *r);
/** One line that says it all: "slower or bigger: 2 of 14 cells". */
void compare_summary(const compare_result *r, char *out, size_t size);

typedef enum compare_format { COMPARE_MD, COMPARE_JSON, COMPARE_GH, COMPARE_GH_BIGGER, COMPARE_GBENCH, COMPARE_JUNIT } compare_format;
/** md: for a pull request. json: everything. gh-benchmark: NEW as github-action-benchmark's customSmallerIsBetter, with COMPARE_GH_BIGGER
 *  its customBiggerIsBetter. gbench: NEW as google-benchmark's JSON. junit: a test case for each cell and axis. */
int compare_print(const compare_side *base, const compare_side *now, const compare_options *o, const compare_result *r, compare_format format,
                  FILE *f, ice_err *e);

#endif
