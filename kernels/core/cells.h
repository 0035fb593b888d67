/* cells.h - the keys of one head grouped into cells of near neighbours: flat slabs, no trees, no pointers. */
#ifndef ATTN_CELLS_H
#define ATTN_CELLS_H

#include "kernels/attn.h"
#include "kernels/micro/micro.h"

/** Cells of one head over `kept` keys. All arrays are carved from one block of attn_cells_bytes() bytes. */
typedef struct attn_cells {
  int64_t cells, d, dv, nk; /* number of cells, widths, room for keys                   */
  int64_t kept;             /* keys in the cells                                        */
  int32_t *start;           /* [cells + 1] cell c holds the keys order[start[c]..]        */
  int32_t *order;           /* [nk] position of each key in the sequence                  */
  int32_t *cell;            /* [nk] cell of the i-th kept key (working memory)            */
  int32_t *panel;           /* [cells + 1] first panel of cell c in kt                    */
  float *mean, *bias;       /* [cells, d], [cells] working memory of building             */
  int8_t *mean_q;           /* the means as columns of gemm_i8; directions while building */
  float *mean_scale;        /* [cells] scales of mean_q                                   */
  float *log2_count;        /* [cells] -inf for an empty cell                             */
  float *spread, *radius;   /* [cells] variance per dimension; no key is farther from the mean that mean_q tells */
  float longest;            /* no key is longer                                           */
  float *kt;                /* keys, cell by cell, as transposed panels                   */
  float *v;                 /* values of cell c from v + start[c] * padded dv: panels of columns, stride its count */
  float *v_mean;            /* [cells, dv] means of the values */
} attn_cells;

/** Bytes that cells of these sizes take. */
size_t attn_cells_bytes(const attn_micro *mk, int64_t cells, int64_t nk, int64_t d, int64_t dv);
/** Sets the sizes and points everything into p (64-byte aligned). */
void attn_cells_carve(attn_cells *c, const attn_micro *mk, void *p, int64_t cells, int64_t nk, int64_t d, int64_t dv);

/** The phases of building, for the caller's parallel loops. Keys are rows of stride ks; idx [kept] lists those kept; tmp
 *  holds attn_cells_work() bytes.
 *  1. seed: a stratified random key per cell becomes its mean; serial.
 *  2. aim: directions from the means; serial.
 *  3. assign: of every `every`-th kept key, keys [i0, i1), at most CELLS_BLOCK, go to the cell of the nearest direction.
 *  4. sort: order and start of those keys from cell; serial, counting sort, stable.
 *  5. means: of cells [c0, c1).    2-5 again is a step of Lloyd's algorithm.
 *  6. pack: slabs and statistics of cells [c0, c1). finish, serial, ends it. */
enum { CELLS_BLOCK = 96 };
size_t attn_cells_work(const attn_micro *mk, int64_t cells, int64_t d);
void attn_cells_seed(attn_cells *c, const float *k, ptrdiff_t ks, const int32_t *idx, int64_t kept, uint64_t seed);
void attn_cells_aim(attn_cells *c, const attn_micro *mk, void *tmp);
void attn_cells_assign(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, const int32_t *idx,
                       int64_t every, int64_t i0, int64_t i1, void *tmp);
void attn_cells_sort(attn_cells *c, const attn_micro *mk, const int32_t *idx, int64_t every);
void attn_cells_means(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, int64_t c0, int64_t c1);
void attn_cells_pack(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, const float *v, ptrdiff_t vs,
                     int64_t c0, int64_t c1, void *tmp);
void attn_cells_finish(attn_cells *c, const attn_micro *mk, void *tmp);

/** Scores of rows a (as made by attn_rows_i8, scales as) with all means, + bias[j]: out [rows, ld]. */
static inline void attn_cells_scores(const attn_cells *c, const attn_micro *mk, int64_t rows, const uint8_t *a,
                                     const float *as, const float *bias, float *out, int64_t ld) {
  const int64_t w = attn_width_i8(c->d);
  mk->gemm_i8(rows, c->cells, w, a, w, c->mean_q, as, c->mean_scale, bias, out, ld);
}

#endif
