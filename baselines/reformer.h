/* reformer.h - what the two halves of method "reformer" share: sorting positions by hash, chunks, the rule of pairs. */
#ifndef BASE_REFORMER_H
#define BASE_REFORMER_H

#include "baselines/keyset.h"

typedef struct reformer_params {
  int64_t rounds, chunk, buckets, logits, self, duplicates, leak;
} reformer_params;
enum { LOGITS_UNIT, LOGITS_SCALED, LOGITS_DOT };
enum { SELF_LAST, SELF_PLAIN };
enum { DUP_COUNTED, DUP_REMOVED };

/** How the kept positions of one batch entry are cut. */
typedef struct reformer_cut {
  int64_t kept, chunk, chunks, rounds; /* positions, keys of a chunk, chunks and sortings of them; one chunk: one round */
} reformer_cut;
reformer_cut reformer_cut_of(const reformer_params *p, int64_t kept);
/** First position of chunk c within its sorting, and how many it has. */
static inline int64_t reformer_first(const reformer_cut *c, int64_t chunk) { return chunk * c->chunk; }
static inline int64_t reformer_size(const reformer_cut *c, int64_t chunk) {
  const int64_t left = c->kept - chunk * c->chunk;
  return left < c->chunk ? left : c->chunk;
}

/** One head as both halves see it. order [rounds, n]: kept positions sorted by bucket, then position. place [rounds, n]: chunk
 *  of each position; filled only where duplicates are removed or key sets reported. */
typedef struct reformer_head {
  const attn_problem *pb;
  const reformer_params *p;
  reformer_cut cut;
  const int32_t *order;
  int32_t *place;
} reformer_head;
void reformer_fill_place(const reformer_head *);
/** Round and chunk that chunk c of round r looks back to. */
void reformer_back(const reformer_head *, int64_t r, int64_t c, int64_t *back_r, int64_t *back_c);
/** In how many windows of query i key j takes part, over all rounds, each time it stands there. */
int64_t reformer_times(const reformer_head *, int32_t i, int32_t j);
/** A block of queries of one chunk against a chunk of keys. */
typedef struct reformer_window {
  const reformer_head *head;
  enum { OWN_CHUNK, CHUNK_BEFORE, OTHER_ROUND } part; /* where the keys stand; the last may hold the queries once more */
  int64_t i0;                                         /* place of the block's first row in its chunk */
  const double *lse2;                                 /* backward: [n] of all rounds, else NULL */
} reformer_window;
/** The rule of its pairs; the window must stay. Backward, rows that see only themselves have 0 for logit instead of the constant, and
 *  a log-sum-exp that is less by it (reformer_lift), in which the number of its terms is not lost to rounding. */
set_rule reformer_rule(const reformer_window *);
float reformer_lift(double lse2);
/** Its dropout, for chunk c of round r: rows count through all sortings, columns anew in the chunk looked back to. */
set_drop reformer_drop(const reformer_window *, attn_drop mask, int64_t r, int64_t c);

/** Factor of the queries, log2(e) included; factors of the keys into unit [n] (rows of the kept positions), which is 1 for
 *  logits = dot. */
float reformer_factor(const attn_problem *, const reformer_params *);
void reformer_unit(const attn_problem *, const reformer_params *, const attn_micro *, const int32_t *idx, int64_t kept,
                   const float *x, ptrdiff_t xs, float *unit);
/** Epsilon that is added to |x|^2. */
double reformer_epsilon(int64_t d);

/** One call of forward: with dropout, and with order [b, h, rounds, n] and lse2 [b, h, n] in memory that stays
 *  (NULL: in scratch). */
typedef struct reformer_call {
  attn_view x, v;
  attn_viewm out;
  float drop;
  uint64_t key;
  int32_t *order;
  double *lse2;
} reformer_call;
attn_status reformer_run(const void *plan, const reformer_call *, void *scratch, attn_stats *);

extern const attn_method attn_method_reformer;
extern const attn_training attn_training_reformer;

#endif
