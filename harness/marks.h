/* marks.h - the marks of many answers as metrics of the database.
 *
 *   accuracy         the task's own score as a fraction: the mean mark; of ROUGE the geometric mean of the means of R1, R2, RL, as
 *                    the published script has it. 95 % interval: Wilson for shares, otherwise bootstrap over the answers.
 *   rouge1, ...      the three means
 *   rouge_instance   the mean of the geometric means of single answers, which the paper's wording may mean */
#ifndef ICE_MARKS_H
#define ICE_MARKS_H

#include "datasets/answer.h"
#include "harness/store.h"

enum { MARKS_METRICS = 5 };

typedef struct marks {
  answer_mark mark;
  double (*part)[ANSWER_PARTS]; /* [room] parts of each answer, owned */
  int n, room;
} marks;

/** Marks an answer and keeps its parts; *total is its mark, NAN without references (it then does not count). 0 when out of memory. */
int marks_add(marks *m, const char *text, const char *const *reference, int references, double *total);
/** The same with the references as a JSON list of texts; ICE_DB when it is none. */
int marks_add_json(marks *m, const char *text, const char *expected, double *total, ice_err *e);
/** Fills out [MARKS_METRICS] and returns how many there are; none without marked answers. */
int marks_metrics(const marks *m, uint64_t seed, store_metric *out);
void marks_free(marks *m);

#endif
