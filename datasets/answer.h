/* answer.h - the marks of answers in words: how LongEval and ZeroSCROLLS compare a prediction with its references.
 *
 * Every mark of a prediction is the best over its references, in [0, 1]. ROUGE has three parts, R1, R2 and RL; the others one.
 * Sources: ZeroSCROLLS' and SCROLLS' metrics on the Hugging Face hub (rouge, f1, accuracy, exp_similarity, concordance_index),
 * google-research's rouge_scorer, LongChat's longeval/utils.py. */
#ifndef ICE_ANSWER_H
#define ICE_ANSWER_H

#include <stddef.h>

typedef enum answer_mark {
  ANSWER_ROUGE,   /* F of n-grams of 1, of 2, of the longest common subsequence; no stemming              */
  ANSWER_F1,      /* F of the words, as a multiset, without case, punctuation, articles and accents       */
  ANSWER_CHOICE,  /* the first lone capital A, B, C or D is the same                                      */
  ANSWER_PERCENT, /* exponential similarity 0.5^(|p - q| / 10) of the first percentages                   */
  ANSWER_ORDER,   /* concordance index: share of pairs in the same order; 0 unless the ids are the same    */
  ANSWER_NUMBER,  /* the last whole number is the same (LongEval lines)                                   */
  ANSWER_TOPIC,   /* the words of the reference stand in the prediction, one after the other (LongEval topics; ours) */
  ANSWER_MARKS
} answer_mark;

enum { ANSWER_PARTS = 3 };

/** "rouge", "f1", "accuracy", ... */
const char *answer_mark_name(answer_mark m);
/** Parts of a mark: 3 for ROUGE, otherwise 1. */
int answer_parts(answer_mark m);
/** 1 when every mark is 0 or 1, so that the mean is a share of hits. */
int answer_is_share(answer_mark m);
/** Marks a prediction against n >= 1 references, all UTF-8: part [ANSWER_PARTS], unused ones 0. 0 when out of memory, otherwise 1. */
int answer_score(answer_mark m, const char *prediction, const char *const *reference, int n, double *part);
/** The mark of one answer as one number: the geometric mean of the parts. */
double answer_total(answer_mark m, const double *part);

#endif
