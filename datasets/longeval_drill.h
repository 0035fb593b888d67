/* longeval_drill.h - conversations in which everything that is asked can be looked up above: what a model learns LongEval from.
 *
 * Nothing of the official test cases is in them: names are drawn from adjectives and nouns of our own, from a list of words, or are
 * made of syllables, so that what is learnt is to find a name, whatever its letters. */
#ifndef ICE_LONGEVAL_DRILL_H
#define ICE_LONGEVAL_DRILL_H

#include "datasets/longeval.h"

typedef enum drill_kind { DRILL_LINES, DRILL_TOPICS, DRILL_REPEAT, DRILL_WORDS, DRILL_KINDS } drill_kind;
extern const char *const drill_kind_names[DRILL_KINDS + 1]; /* NULL-terminated */

/** Words to draw from, owned: the lower-case words of 3 to 12 letters of a file that has one a line. */
typedef struct drill_words {
  char **word;
  int64_t count;
  uint64_t hash; /* of the file; 0 without one */
} drill_words;
/** ICE_DATA when the file has none. */
int drill_words_read(drill_words *w, const char *path, ice_err *e);
void drill_words_free(drill_words *w);

/** What kind of conversation.
 *  lines   records are lines, as in longeval/lines; each turn asks for one of them.
 *  topics  records are talks of 1 to `exchanges` questions, as in longeval/topics; one turn asks for the first topic.
 *  repeat  lines that are to be said again in another order: the shortest way to learn to look things up.
 *  words   words that are to be said again in the same order: the first lesson of all. */
typedef struct drill_plan {
  drill_kind kind;
  int64_t least, most; /* records: uniform in between */
  int64_t turns, exchanges;
  int64_t bare;   /* 1: the record stands alone, without the words around it; for first lessons */
  double weight;  /* what a token of an answer counts: kinds with short answers to long records need more */
} drill_plan;

typedef struct drill_turn {
  char *message, *answer;
} drill_turn;
typedef struct drill {
  drill_turn *turn; /* [turns], owned */
  int64_t turns;
} drill;

/** A conversation; drill_free() in any case. ICE_INTERNAL when out of memory. */
int drill_make(attn_rng *r, const drill_plan *plan, const drill_words *words, drill *out, ice_err *e);
void drill_free(drill *d);

#endif
