/* longeval.h - LongEval: find a number among hundreds of lines, or the first of many topics of a talk.
 *
 * Layout  longeval/evaluation/{lines,topics}/testcases/N_{lines,topics}.jsonl (as upstream), or longeval/{lines,topics}/; plain or .gz.
 * Source  DachengLi1/LongChat, longeval/{utils.py,eval.py}. */
#ifndef ICE_LONGEVAL_H
#define ICE_LONGEVAL_H

#include "datasets/prompt.h"
#include "kernels/core/rng.h"

/** Makers of prompts: text to free(), NULL when out of memory. */

/** A record of n >= 1 lines "line adjective-noun: REGISTER_CONTENT is <number>", all names different, and the question for one of them.
 *  *position, *number, name [64]: the line that is asked for. n is at most longeval_most_lines(). */
char *longeval_lines_prompt(attn_rng *r, int64_t n, int64_t *position, int64_t *number, char *name);
int64_t longeval_most_lines(void);

typedef struct longeval_talk {
  char *topic, *conversation; /* owned */
} longeval_talk;
/** A talk between USER and ASSISTANT of about 2,000 to 3,300 characters on a topic of our own; 0 when out of memory. */
int longeval_make_talk(attn_rng *r, longeval_talk *out);
/** A record of the talks [n] and the question for the first topic. */
char *longeval_topics_prompt(const longeval_talk *const *talk, int64_t n);

/** data make: what task.make does for the two tasks. */
int longeval_make_lines(const task_make_options *o, ice_err *e);
int longeval_make_topics(const task_make_options *o, ice_err *e);

#endif
