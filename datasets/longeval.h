/* longeval.h - LongEval: find a number among hundreds of lines, or the first of many topics of a talk.
 *
 * Layout  longeval/evaluation/{lines,topics}/testcases/N_{lines,topics}.jsonl (as upstream), or longeval/{lines,topics}/; plain or .gz.
 * Source  DachengLi1/LongChat, longeval/{utils.py,eval.py}. */
#ifndef ICE_LONGEVAL_H
#define ICE_LONGEVAL_H

#include <inttypes.h>
#include <stdio.h>

#include "datasets/prompt.h"
#include "kernels/core/rng.h"

enum { LONGEVAL_NAME = 64, LONGEVAL_TOPIC = 128 };
#define LONGEVAL_LINE "line %s: REGISTER_CONTENT is <%" PRId64 ">" /* name, number */
#define LONGEVAL_QUESTION "Tell me what is the <REGISTER_CONTENT> in line %s? I need the number."

typedef struct longeval_line {
  char name[LONGEVAL_NAME];
  int64_t number;
} longeval_line;

/** Makers of prompts: text to free(), NULL when out of memory. */

/** A record of the lines [n], "line NAME: REGISTER_CONTENT is <NUMBER>" each, and the question for line[asked]. */
char *longeval_lines_text(int64_t n, const longeval_line *line, int64_t asked);
/** The same for n >= 1 lines whose names, adjective-noun, are all different; n is at most longeval_most_lines(). */
char *longeval_lines_prompt(attn_rng *r, int64_t n, int64_t *position, longeval_line *asked);
int64_t longeval_most_lines(void);
/** The name number `pair`, 0 .. longeval_most_lines() - 1; a number as the lines have them. */
void longeval_name(int64_t pair, char name[LONGEVAL_NAME]);
int64_t longeval_number(attn_rng *r);

typedef struct longeval_talk {
  char *topic, *conversation; /* owned; longeval_free_talk() */
} longeval_talk;
/** Somebody who writes a sentence of other words, with a space in front. */
typedef struct longeval_words {
  void (*sentence)(void *ctx, attn_rng *r, FILE *f);
  void *ctx;
} longeval_words;
/** A talk between USER and ASSISTANT of least to most questions (at most LONGEVAL_TURNS) and answers; other: NULL for set phrases alone.
 *  0 when out of memory (then, too, it is to be freed). */
int longeval_write_talk(attn_rng *r, const char *topic, const char *subject, int64_t least, int64_t most, const longeval_words *other, longeval_talk *out);
enum { LONGEVAL_TURNS = 7 };
/** A topic of our own and what it is about. */
void longeval_own_topic(attn_rng *r, char topic[LONGEVAL_TOPIC], const char **subject);
/** A talk of about 2,000 to 3,300 characters on a topic of our own; 0 when out of memory. */
int longeval_make_talk(attn_rng *r, longeval_talk *out);
void longeval_free_talk(longeval_talk *t);
/** A record of the talks [n] and the question for the first topic. */
char *longeval_topics_prompt(const longeval_talk *const *talk, int64_t n);

/** data make: what task.make does for the two tasks. */
int longeval_make_lines(const task_make_options *o, ice_err *e);
int longeval_make_topics(const task_make_options *o, ice_err *e);

#endif
