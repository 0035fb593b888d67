/* attn_case.h - attention problems with tensors in guarded memory, a runner that watches a method, and the reference in
 * double precision. */
#ifndef TEST_ATTN_CASE_H
#define TEST_ATTN_CASE_H

#include "kernels/attn.h"
#include "tests/support/guard.h"

typedef struct attn_shape {
  int64_t b, h, hkv, nq, nk, d, dv;
  int causal, masked; /* masked: random holes, different per batch entry; 2: trailing padding only */
  int interleaved;    /* rows [b, n, h, d] with gaps instead of dense [b, h, n, d] */
} attn_shape;

typedef enum attn_source { /* where queries and keys come from; values are normal throughout */
  ATTN_GAUSS,              /* independent normal numbers: no structure  */
  ATTN_CLUSTERED           /* about 16 keys per cluster, unequal norms  */
} attn_source;

typedef struct attn_case {
  attn_problem pb; /* scale 1/sqrt(d), threads 2, the seed given */
  attn_view q, k, v;
  uint8_t *mask; /* [b, nk] or NULL */
  guard gq, gk, gv, learned;
} attn_case;

/** Fills a case; masked keys and values and the gaps between rows hold NaN. */
void attn_case_make(attn_case *c, attn_shape s, attn_source source, uint64_t seed);
/** Draws what a method learns, evenly from -0.175 to 0.175, into pb.weights, for sequences of up to 700 tokens, or of nk if that is more: the same numbers for
 *  all shorter ones. Nothing to learn: the case stays as it is. */
void attn_case_learn(attn_case *c, const attn_method *m, const void *params);
void attn_case_free(attn_case *c);
/** Row of a tensor of the case, writable. */
float *attn_case_row(const attn_view *v, int64_t ib, int64_t ih, int64_t i);
/** The keys that query iq of batch entry ib may see: mask and causal limit. */
int attn_case_sees(const attn_case *c, int64_t ib, int64_t iq, int64_t j);
int64_t attn_case_visible(const attn_case *c, int64_t ib, int64_t iq);

typedef struct attn_result { /* rows in the order [b, h, nq] */
  attn_problem pb;
  int64_t rows;
  float *out, *lse; /* [rows, dv], [rows] */
  float *missing;   /* [rows] bound of the mass left out; -1 where the method has none */
  const char *path; /* what the method chose to be, or NULL */
  uint8_t *keys;    /* [rows, nk] how often each key was reported; NULL when not wanted */
  uint64_t pairs, bytes;
  guard gout, glse, gmissing;
} attn_result;

enum { ATTN_WANT_KEYS = 1, ATTN_AT_END = 2 /* plan and scratch end, instead of begin, beside an unmapped page */ };

/** Walks the method through check, sizes, prepare, build, forward, release in memory of exactly the size it asked for. What it
 *  learns is drawn, unless the case has it.
 *  Returns the first status other than ATTN_OK. Reports canaries touched, memory leaked, or memory taken in forward as
 *  failures of the running test. On any status the result is to be freed. */
attn_status attn_case_run(const attn_method *m, const void *params, const attn_case *c, int flags, attn_result *r);
void attn_result_free(attn_result *r);

typedef struct attn_truth { /* in double; free with attn_truth_free */
  double *out, *lse;          /* [rows, dv], [rows] */
  double *bound, *lse_bound;  /* [rows] how far a float evaluation over the same keys may be off */
} attn_truth;

/** Softmax attention over the keys with keys[row * nk + j] != 0 (NULL: all that are visible). The bound is
 *  4 eps (scale d max_j sum_t |q_t k_jt| + keys + 8) max|v|: score errors move weights, then rounding of the sums. */
attn_truth attn_ref(const attn_case *c, const uint8_t *keys);
void attn_truth_free(attn_truth *t);
/** The k best visible keys of every row by q.k in double, lower position first on ties: keys [rows, nk] of 0 and 1.
 *  gap [rows] or NULL: least score taken minus largest score left out (infinite when none is left out). */
void attn_ref_top(const attn_case *c, int64_t k, uint8_t *keys, double *gap);
/** q.k of a row with key j, in double; *magnitude (or NULL) = sum of |q_t k_t|. */
double attn_ref_score(const attn_case *c, int64_t row, int64_t j, double *magnitude);

/** Fails the running test with a line when a result is further from the reference over `keys` than the bound. */
void attn_assert_close(const char *what, const attn_case *c, const attn_result *r, const uint8_t *keys);

#endif
