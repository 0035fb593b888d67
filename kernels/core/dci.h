/* dci.h - Prioritized DCI: an index of keys in which the largest inner products with a query are found. */
#ifndef ATTN_DCI_H
#define ATTN_DCI_H

#include "kernels/attn.h"
#include "kernels/core/select.h"
#include "kernels/micro/micro.h"

enum { DCI_MAX_LEVELS = 8, DCI_MAX_COMP = 16, DCI_MAX_SIMP = 64 };

typedef struct dci_budget { /* of the search in one cell */
  int64_t beam;             /* cells opened per level                  */
  double visit, retrieve;   /* shares of a cell that may be popped and scored, (0, 1] */
} dci_budget;

typedef struct dci_shape { /* what an index is made with */
  int64_t d;
  int comp, simp, levels;
  int l2;          /* candidates in order of Euclidean distance of projections instead of DCI's largest difference */
  dci_budget build;
} dci_shape;

/** A tree of keys. Every key is a node; its children are the *cell* below it. Nodes are numbered by slot, level by level
 *  from the top, children in the order of their parents, so that every cell is a contiguous slab. Behind the tree, from
 *  slot level[depths] on, stand the few keys that are much longer than the others: every query scores them. */
typedef struct dci {
  dci_shape shape;
  const attn_micro *mk;
  const float *direction;                /* [comp * simp, d + 1] unit vectors, shared by indices of a head */
  int64_t n;                             /* keys */
  int depths;                            /* levels in use; 0 for an empty index */
  int64_t level[DCI_MAX_LEVELS + 1];     /* first slot of each level, from the top */
  float norm, inverse;                   /* c = largest norm in the tree, and 1/c (0 when all are 0); of scaled keys */
  int exponent;                          /* keys are stored times 2^-exponent, so that c is in [1/2, 1) */
  int32_t *id, *child, *size;            /* [n], [n + 1], [n]: position; first slot of its cell; keys in its subtree */
  float *key, *last, *projection;        /* [n, d], [n], [comp * simp, n]: in the order of slots; last coordinate of T_K */
  int32_t *depth, *parent, *rank, *slot; /* [n] working memory of building, by rank in the list of keys, but rank by slot */
} dci;

/** Working memory of one thread for indices of up to n keys. */
typedef struct dci_work {
  uint64_t *order, *spare; /* [simp * n] each */
  float *delta;            /* [simp * n] */
  uint32_t *when;          /* [n] */
  int32_t *candidate;      /* [n] */
  int32_t *front;          /* [n] */
  float *score;            /* [n] */
  float *projection;       /* [comp * simp] of the query */
  float *key;              /* [d] a scaled key looking for its parent */
  attn_hit *hit;           /* [n] ids are slots while searching */
} dci_work;

size_t dci_bytes(const dci_shape *shape, int64_t n);
/** Points the arrays of an index of up to n keys into p (64-byte aligned). */
void dci_carve(dci *x, const dci_shape *shape, const attn_micro *mk, const float *direction, void *p, int64_t n);
size_t dci_work_bytes(const dci_shape *shape, int64_t n);
void dci_work_carve(dci_work *w, const dci_shape *shape, void *p, int64_t n);
/** Fills direction [comp * simp, d + 1] with random unit vectors. */
void dci_directions(const dci_shape *shape, uint64_t seed, float *direction);

/** Building, in phases for the caller's parallel loops: begin; for depth 1 .. depths-1: assign all ranks, then place;
 *  finish. keys: rows of stride ks; idx [n]: positions of the keys to index. seed draws the levels. */
void dci_begin(dci *x, const float *keys, ptrdiff_t ks, const int32_t *idx, int64_t n, uint64_t seed);
/** Finds the parents of keys of this depth among ranks [r0, r1). Reads only what place() of smaller depths wrote. */
void dci_assign(dci *x, int depth, const float *keys, ptrdiff_t ks, const int32_t *idx, int64_t r0, int64_t r1,
                dci_work *w);
void dci_place(dci *x, int depth, const float *keys, ptrdiff_t ks, const int32_t *idx);
void dci_finish(dci *x);

/** The candidates of one cell [s0, s1) for projections a [comp * simp] into out, in slot order when all of them; returns
 *  their number. want: at least so many; need: so many keys in their subtrees. See dci.c. */
int64_t dci_cell(const dci *x, int64_t s0, int64_t s1, const float *a, int64_t want, int64_t need, double visit,
                 double retrieve, dci_work *w, int32_t *out);
/** Best keys for q [d], |q| = norm > 0: leaves scored keys in w->hit (positions), of which those wanted, at least the k
 *  best found, are not ordered; returns their number. *pairs += products evaluated. */
int64_t dci_search(const dci *x, const float *q, double norm, int64_t k, const dci_budget *budget, dci_work *w,
                   uint64_t *pairs);

#endif
