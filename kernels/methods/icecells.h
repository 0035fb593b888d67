/* icecells.h - what the two halves of icecells share: icecells.c builds and orders, icecells_group.c answers a group of
 * queries. */
#ifndef ATTN_ICECELLS_H
#define ATTN_ICECELLS_H

#include "kernels/attn.h"
#include "kernels/core/cells.h"
#include "kernels/micro/micro.h"

enum { ICECELLS_GROUP = 12 }; /* queries that visit the same cells; a multiple of every register tile */

typedef struct icecells_params {
  int64_t cell, lloyd, dense_below, visit, far, stop;
  double mass;
} icecells_params;

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

#endif
