/* dci.h - Prioritized DCI: an index of keys in which the largest inner products with a query are found.
 *
 * Files: dci.c = maps, memory, candidates of one cell; dci_build.c = the tree; dci_search.c = many queries at once. */
#ifndef ATTN_DCI_H
#define ATTN_DCI_H

#include "kernels/attn.h"
#include "kernels/core/select.h"
#include "kernels/micro/micro.h"

enum {
  DCI_MAX_LEVELS = 8,
  DCI_MAX_COMP = 16,
  DCI_MAX_SIMP = 64,
  DCI_ROWS = 16,  /* queries and           */
  DCI_COLS = 64,  /* keys scored at once   */
  DCI_SLACK = 16, /* numbers behind an array that whole vectors may touch */
  DCI_TREES = 128 /* indices that one search may visit */
};

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
 *  from the top, children in the order of their parents, so that every cell is a contiguous slab: for slots [s0, s1) a
 *  matrix of d + 1 rows and s1 - s0 columns, a key each. Behind the tree, from slot level[depths] on, stands one more cell:
 *  the few keys that are much longer than the others, which every query scores. */
typedef struct dci {
  dci_shape shape;
  const attn_micro *mk;
  const float *direction;            /* [comp * simp, d + 1] unit vectors, shared by indices of a head */
  const float *row;                  /* the caller's keys, which must outlive searches: rows of this stride, */
  ptrdiff_t stride;
  const double *square;              /* |key|^2 by position: dci_square() of each */
  const int32_t *idx;                /* [n] of which these are indexed; "rank" counts along idx */
  int64_t n;                         /* keys */
  int depths;                        /* levels in use; 0 for an empty index */
  int64_t level[DCI_MAX_LEVELS + 1]; /* first slot of each level, from the top */
  float norm, inverse;               /* c = largest norm in the tree, and 1/c (0 when all are 0); of scaled keys */
  int exponent;                      /* keys are stored times 2^-exponent, so that c is about 1 */
  int32_t *id, *child, *size;        /* [n], [n + 1], [n]: position; first slot of its cell; keys in its subtree */
  float *slab;                       /* [n, d + 1] cell by cell: c T_K of key s at slab[s0*(d+1) + t*(s1-s0) + s-s0] */
  float *projection;                 /* [comp * simp, n] of T_K, by slot */
  int32_t *depth, *parent;           /* [n] for building: level, and slot of the parent, by rank */
} dci;

/** A list of the best scored keys; scores below floor cannot enter. */
typedef struct dci_list {
  float *score;
  int32_t *id;
  int64_t count, limit, room; /* more than `limit` may be held until dci_close() */
  float floor;
  int cut; /* some keys were dropped */
} dci_list;

/** Working memory of one thread, for indices of up to n keys. */
typedef struct dci_work {
  const attn_micro *mk;
  int64_t n, d;
  /* one cell */
  uint64_t *order, *spare; /* [simp * n] each */
  float *delta;            /* [simp * n] */
  uint32_t *when;          /* [n] */
  int32_t *candidate;      /* [n] */
  float *projection;       /* [comp * simp] of a query */
  /* a search of many probes: queries, or keys that look for their parents */
  float *tile;             /* [DCI_ROWS, DCI_COLS + DCI_SLACK] */
  int32_t *start;          /* [n + 2] first pair of each node of a level */
  dci_list wide;           /* room for all n */
  char *pool;              /* divided by dci_work_split() */
  size_t pool_bytes;
  int64_t probes, opened;  /* how many fit; most cells that one may open */
  float *row;              /* [probes, d + 1] the caller writes them; the last place counts for keys only */
  int32_t *who;            /* [probes] rows that take part, ascending; the caller writes them */
  dci_list *best, *level;  /* [probes] */
  int32_t *front, *fronts; /* [probes, opened] cells to open; [probes] their number */
  int32_t *pair;           /* [probes * opened] probes, cell by cell */
  attn_hit *parent;        /* [probes] ids are slots; -1 for none */
} dci_work;

/** An index in a search, for probes [from, to) only. */
typedef struct dci_tree {
  const dci *x;
  int64_t from, to;
} dci_tree;

/* --- memory --- */

size_t dci_bytes(const dci_shape *shape, int64_t n);
/** Points the arrays of an index of up to n keys into p (64-byte aligned). */
void dci_carve(dci *x, const dci_shape *shape, const attn_micro *mk, const float *direction, void *p, int64_t n);
/** Room for searches of one probe at least, whatever k and beam, and of up to `probes` when those are small. */
size_t dci_work_bytes(const dci_shape *shape, int64_t n, int64_t probes);
void dci_work_carve(dci_work *w, const dci_shape *shape, const attn_micro *mk, void *p, int64_t n, int64_t probes);
/** Divides the pool for searches of k keys with this beam: sets probes (at most `most`), empties the lists `best`. */
void dci_work_split(dci_work *w, int64_t k, int64_t beam, int64_t most);

/* --- building --- */

/** Fills direction [comp * simp, d + 1] with random unit vectors. */
void dci_directions(const dci_shape *shape, uint64_t seed, float *direction);
/** The phases, for the caller's parallel loops: begin; for depth 1 .. depths-1: assign all ranks, place, fill all parts;
 *  finish. row: keys of this stride, square: their squared norms; idx [n]: positions of the keys to index. seed draws the
 *  levels. */
void dci_begin(dci *x, const float *row, ptrdiff_t stride, const double *square, const int32_t *idx, int64_t n, uint64_t seed);
/** Finds the parents of keys of this depth among ranks [r0, r1). Reads only what phases of smaller depths wrote. */
void dci_assign(dci *x, int depth, int64_t r0, int64_t r1, dci_work *w);
void dci_place(dci *x, int depth);
/** Copies the keys of this depth whose parents belong to part `part` of `parts`. */
void dci_fill(dci *x, int depth, int64_t part, int64_t parts);
void dci_finish(dci *x);

/* --- searching --- */

/** 1 when the candidates of a cell of `count` keys are all of them, for any query. */
int dci_whole(int64_t count, int64_t want, double visit, double retrieve);
/** The candidates of one cell [s0, s1) for projections a [comp * simp] into out, in slot order when all of them; returns
 *  their number. want: at least so many; need: so many keys in their subtrees. See dci.c. */
int64_t dci_cell(const dci *x, int64_t s0, int64_t s1, const float *a, int64_t want, int64_t need, double visit,
                 double retrieve, dci_work *w, int32_t *out);
typedef struct dci_cost {
  uint64_t pairs, bytes; /* products q.k; bytes of keys, their norms and directions that were read */
} dci_cost;

/** Searches the forest for the queries w->row[w->who[0..active)], scaled to norms about 1: their lists w->best receive
 *  the keys scored, as positions, with q.k; those of the k best are among them. A query opens the `beam` best cells of each
 *  level of the whole forest. The lists of a query do not depend on which others take part. *cost grows by what it took. */
void dci_search(dci_work *w, int64_t active, const dci_tree *tree, int trees, int64_t k, const dci_budget *budget,
                dci_cost *cost);

/** Appends those of n <= DCI_COLS scores (whole vectors are read) that may be among the best; ids NULL: first + j. */
void dci_add(const attn_micro *mk, dci_list *l, int64_t n, const float *score, float unit, int32_t first, const int32_t *ids);
/** Cuts a list back to its `limit` best, in the order they came. */
void dci_close(const attn_micro *mk, dci_list *l);

/* --- shared by the files of the index --- */

/** |v|^2 in double: norms of 1e-30 and 1e30 are legal. */
double dci_square(int64_t d, const float *v);
/** Parents of the keys w->row[w->who[0..active)], all of this depth, into w->parent. */
void dci_parents(const dci *x, int depth, dci_work *w, int64_t active);

#endif
