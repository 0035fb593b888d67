/* subject.h - what the property tests run on: every method of the table at its defaults, and at settings under which
 * small problems reach all of its paths; and the example of docs/plugin.c. */
#ifndef TEST_SUBJECT_H
#define TEST_SUBJECT_H

#include "kernels/attn.h"
#include "tests/support/attn_case.h"

typedef struct subject {
  const attn_method *m;
  char label[96]; /* "iceformer k=3 levels=1" */
  void *params;
} subject;

/** All subjects, ended by m == NULL; built on first use, kept for the life of the program. The defaults
 *  of methods with learned tensors are left out: they add what is no attention, or are large. */
const subject *subjects(void);
/** A copy of the parameters of a subject with "key=value key=value" applied; free() it. A wrong text fails the test. */
void *subject_params(const subject *s, const char *settings);
/** 1 when the method can take such a problem by its capabilities. */
int subject_can(const subject *s, attn_shape shape);
/** 1 when each row is the softmax over exactly the keys that the method reports, and keys are those of the case. */
int subject_reports_all(const subject *s);
/** 1 when the method chooses keys by their scores, and the first ones where scores are equal. */
int subject_by_score(const subject *s);
/** 1 when means of queries stand for several rows; those of masked positions are then no queries. */
int subject_shares_queries(const subject *s);
/** 1 when a row has to use key j, the only one that is not masked: those that see it, or, of methods with windows or buckets, those that
 *  report it, and that of position j in any case. */
int subject_uses(const subject *s, const attn_case *c, const attn_result *r, int64_t row, int64_t j);
/** Parameters of an ATTN_CAP_CONVERGES method with this budget; free() them. A method without an entry fails the test. */
void *subject_budget(const subject *s, int budget);

/** Runs a case that the method must accept; with other parameters than the subject's if params is not NULL. */
void subject_run(const subject *s, const void *params, const attn_case *c, int flags, attn_result *r);

#endif
