/* icecells.h - what the parts of icecells share: icecells.c builds and orders, icecells_group.c answers a group of queries,
 * icecells_causal.c a block of queries that see what is before them. */
#ifndef ATTN_ICECELLS_H
#define ATTN_ICECELLS_H

#include "kernels/attn.h"
#include "kernels/core/cells.h"
#include "kernels/core/ranges.h"
#include "kernels/micro/micro.h"

enum {
  ICECELLS_GROUP = 12, /* queries that visit the same cells; a multiple of every register tile */
  ICECELLS_BLOCK = 256 /* keys of a causal block, and queries of a causal task */
};

typedef struct icecells_params {
  int64_t cell, lloyd, dense_below, visit, far, stop;
  double mass;
} icecells_params;

typedef struct icecells_plan {
  attn_problem pb;
  icecells_params params;
  const attn_micro *mk;
  int built, dense; /* dense: `exact` is all there is */
  int64_t ranges;   /* indices of a key head: one, or all causal ranges */
  int64_t cells;    /* of the widest index */
  int32_t *idx;     /* [b, nk] kept positions */
  int64_t *kept;    /* [b] */
  attn_cells *head; /* [b * hkv, ranges] */
  void *exact;      /* plan of "dense": for the keys of a causal query that no range has */
} icecells_plan;

/** One forward, as a thread sees it. */
typedef struct icecells_call {
  const attn_problem *pb;
  const icecells_params *params;
  const attn_micro *mk;
  attn_view q;
  attn_viewm out;
  const attn_stats *st; /* may be NULL */
} icecells_call;

/** Working memory of a thread for groups. */
typedef struct icecells_work {
  float *q, *o, *m, *l;            /* [GROUP, d], [GROUP, padded dv], [GROUP], [GROUP, 16] */
  float *estimate, *share, *bound; /* [GROUP, padded cells] log2 of the mass; its softmax; log2 of its upper bound */
  float *priority;                 /* [padded cells] */
  float *s;                        /* scores of a slab */
  uint8_t *a;                      /* [GROUP, width] quantised queries */
} icecells_work;

size_t icecells_work_bytes(const attn_problem *pb, const attn_micro *mk, int64_t cells);
void icecells_work_carve(icecells_work *w, const attn_problem *pb, const attn_micro *mk, int64_t cells, void *p);

/** Rows query[0..rows), at most ICECELLS_GROUP, of head (ib, ih) against its cells. Returns the products evaluated. */
uint64_t icecells_group(const icecells_call *call, const attn_cells *c, int64_t ib, int64_t ih, int64_t rows,
                        const int32_t *query, icecells_work *w);

/* --- steps of both forms: `rows` scaled queries, their bytes a with scales as, their lengths -------------------------- */

/** The length of a scaled query, rounded up. */
float icecells_length(const attn_micro *mk, int64_t d, const float *q);
/** log2 of the mass of every cell for every row, into out [rows, ld]. */
void icecells_estimate(const icecells_call *call, const attn_cells *c, int64_t rows, const uint8_t *a, const float *as, const float *length,
                       float *out, int64_t ld);
/** Scores, softmax and values of the keys of one cell for the rows in w->q, w->m, w->l, w->o. */
void icecells_visit(const icecells_call *call, const attn_cells *c, int64_t rows, int64_t cell, const icecells_work *w);
/** Each cell takes part as one pseudo-key: its estimated mass [rows, ld], which becomes weights, the mean of its values. */
void icecells_far(const icecells_call *call, const attn_cells *c, int64_t rows, float *estimate, int64_t ld, float *m, float *l, float *o);
/** Upper bound of the mass not visited, as a share of all: u of the bounds against l of what was visited, both as sums and references. */
float icecells_missing(float u, float u_ref, float l, float l_ref);

/** What bounds of a row's masses need to know of it: |q|, half its square (as log2), how far rounding can put a score off. */
typedef struct icecells_reach {
  float length, half, off;
} icecells_reach;
icecells_reach icecells_reach_of(const attn_cells *c, float length, float scale);
/** log2 of what the mass of a cell cannot exceed, by its estimate: all keys at its radius. */
static inline float icecells_most(const attn_cells *c, int64_t cell, const icecells_reach *r, float estimate) {
  const float more = r->length * c->radius[cell] - r->half * c->spread[cell];
  return estimate + r->off + (more > 0.0f ? more : 0.0f);
}
/** log2 of what it cannot fall below: all keys at its mean (a mean of powers is at least the power of the mean). */
static inline float icecells_least(const attn_cells *c, int64_t cell, const icecells_reach *r, float estimate) {
  const float far = r->length * c->radius[cell], wide = r->half * c->spread[cell];
  return estimate - r->off - (far < wide ? far : wide);
}

/* --- causal ------------------------------------------------------------------------------------------------------------ */

/** Most cells that a causal query can have before it. */
int64_t icecells_before(const icecells_plan *pl);
size_t icecells_causal_bytes(const attn_problem *pb, const attn_micro *mk, int64_t before);
/** Queries [i0, i0 + rows) of head (ib, ih), at most ICECELLS_BLOCK, with icecells_causal_bytes() of memory. Returns the products. */
uint64_t icecells_causal(const icecells_call *call, const icecells_plan *pl, int64_t ib, int64_t ih, int64_t i0, int64_t rows, void *memory);

#endif
