/* keyset.h - softmax over chosen keys: blocks of queries against packed stretches of keys, forward and backward. What the
 * baselines share that attend to a subset: buckets of a hash, windows, random blocks.
 *
 * A stretch is any list of keys, packed for products (set_keys). A block of up to SET_ROWS queries (set_rows) meets one stretch
 * after the other by online softmax; a rule of the method looks at the logits of each tile before they become weights: hides
 * pairs (-inf), replaces or shifts logits. Backward walks the same stretches with the log-sum-exp of the rows.
 * Logits are in base 2: the factor of the queries includes log2(e). */
#ifndef BASE_KEYSET_H
#define BASE_KEYSET_H

#include "kernels/attn.h"
#include "kernels/core/alloc.h"
#include "kernels/micro/micro.h"

enum {
  SET_ROWS = 96,          /* queries of a block; a multiple of every register tile */
  SET_COLS = 128,         /* keys of a tile */
  SET_LD = SET_COLS + 16, /* row stride of a tile */
  SET_DROP = 32           /* columns of a dropout mask begin at multiples of it */
};

/** Widths of a problem, and the kernels. */
typedef struct set_dims {
  const attn_micro *mk;
  int64_t d, dv;
} set_dims;

/** A stretch of keys. May point into memory that many share. */
typedef struct set_keys {
  int64_t n;            /* keys */
  const int32_t *id;    /* [n] their positions */
  float *kt;            /* [panels of n] K^T */
  const float *v;       /* [n, dv], row stride ldv */
  ptrdiff_t ldv;
  int wild;             /* 1: some value is NaN or infinite, so that 0 * v is not 0 */
  float *rows;          /* [room, dv] memory for gathered values */
  float *k, *vt;        /* backward: [n, d], [panels of n] V^T */
  float *dk, *dvalue;   /* backward: [n, d], [n, dv] sums; dk lacks the factor ln 2 */
} set_keys;

/** A block of queries. */
typedef struct set_rows {
  int64_t n;
  int32_t id[SET_ROWS];  /* positions */
  float *q;              /* [SET_ROWS, d] times the factor */
  float *o, *m, *l;      /* forward: [SET_ROWS, dv], [SET_ROWS], [SET_ROWS, 16], as in softmax_block */
  float *g, *dq;         /* backward: [SET_ROWS, dv] gradient of out, [SET_ROWS, d] sum, without the factor */
  float *lse2, *delta;   /* backward: [SET_ROWS] log-sum-exp in base 2, dout . out */
  float *s, *ds;         /* tiles [SET_ROWS, SET_LD] */
} set_rows;

/** What a method knows about pairs. A tile is rows [0, rows->n) against keys [j0, j0 + cols) of the stretch; i of a tile is row i
 *  of the block. Either function may be NULL. */
typedef struct set_rule {
  /** Changes logits: -inf hides a pair. */
  void (*mark)(const void *ctx, const set_rows *, const set_keys *, int64_t j0, int64_t cols, float *s);
  /** Zeroes the gradients of logits that are constants. */
  void (*still)(const void *ctx, const set_rows *, const set_keys *, int64_t j0, int64_t cols, float *ds);
  const void *ctx;
} set_rule;

/** The element of the dropout mask of row i and key j of a stretch is (row + i, col + j); col a multiple of SET_DROP. */
typedef struct set_drop {
  attn_drop mask;
  int64_t row, col;
} set_drop;

/** Lays out a stretch of up to `room` keys, or a block; with the parts of backward when asked. */
void set_place_keys(attn_layout *at, const set_dims *, int64_t room, int backward, set_keys *);
void set_place_rows(attn_layout *at, const set_dims *, int backward, set_rows *);

/** Fills a stretch with the rows id[0..n) of k and v (row strides ks, vs), key j times unit[id[j]] (NULL: 1). The ids must stay.
 *  Values are gathered. With the parts of backward, the sums are zeroed. */
void set_load_keys(const set_dims *, set_keys *, int64_t n, const int32_t *id, const float *k, ptrdiff_t ks, const float *unit,
                   const float *v, ptrdiff_t vs);
/** Fills a block with the rows id[0..n) of q, times factor, before any key. */
void set_load_rows(const set_dims *, set_rows *, int64_t n, const int32_t *id, const float *q, ptrdiff_t qs, float factor);
/** The same for backward: also dout and out (strides gs, os), lse2 by position. */
void set_load_grad(const set_dims *, set_rows *, const float *dout, ptrdiff_t gs, const float *out, ptrdiff_t os,
                   const double *lse2);

/** The block meets a stretch: forward; backward adds to rows->dq, keys->dk, keys->dvalue. */
void set_attend(const set_dims *, const set_rows *, const set_keys *, const set_rule *, const set_drop *);
void set_grad(const set_dims *, const set_rows *, const set_keys *, const set_rule *, const set_drop *);

/** Adds the sums of a stretch to rows of dk and dv by position, dk times factor. */
void set_spread_keys(const set_dims *, const set_keys *, float factor, float *dk, ptrdiff_t ks, float *dv, ptrdiff_t vs);

/** Row i of a block into to [dv] and *lse2: alone (first), or merged with what is there by log-sum-exp. A row that has met no
 *  key is (0, -inf). The log-sum-exp is a double, lest constants of a rule swallow the number of its keys. */
void set_merge_row(const set_dims *, const set_rows *, int64_t i, int first, float *to, double *lse2);

#endif
