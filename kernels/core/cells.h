/* cells.h - the keys of one head grouped into cells of near neighbours: flat slabs, no trees, no pointers. */
#ifndef ATTN_CELLS_H
#define ATTN_CELLS_H

#include "kernels/attn.h"
#include "kernels/micro/micro.h"

/** Cells of one head over `kept` keys. All arrays are carved from one block of attn_cells_floats() floats. */
typedef struct attn_cells {
  int64_t cells, d, dv, nk; /* number of cells, widths, room for keys            */
  int64_t kept;             /* keys in the cells                                 */
  int32_t *start;           /* [cells + 1] cell c holds the keys order[start[c]..] */
  int32_t *order;           /* [nk] position of each key in the sequence           */
  int32_t *cell;            /* [nk] cell of the i-th kept key (working memory)     */
  int32_t *panel;           /* [cells + 1] first panel of cell c in kt             */
  float *mean;              /* [cells, d]                                          */
  float *mean_t;            /* the means as transposed panels, for scores by gemm  */
  float *half_norm;         /* [cells] -|mean|^2 / 2                               */
  float *log2_count;        /* [cells] -inf for an empty cell                      */
  float *spread, *radius;   /* [cells] variance per dimension; largest distance to the mean */
  float *kt;                /* keys, cell by cell, as transposed panels            */
  float *v;                 /* values of cell c from v + start[c] * padded dv: panels of columns, stride its count */
  float *v_mean;            /* [cells, dv] means of the values */
} attn_cells;

/** Floats (4 bytes each) that cells of these sizes take. */
size_t attn_cells_floats(const attn_micro *mk, int64_t cells, int64_t nk, int64_t d, int64_t dv);
/** Sets the sizes and points everything into p (64-byte aligned). */
void attn_cells_carve(attn_cells *c, const attn_micro *mk, float *p, int64_t cells, int64_t nk, int64_t d, int64_t dv);

/** The phases of building, for the caller's parallel loops. Keys are rows of stride ks; idx [kept] lists those kept.
 *  1. seeds: cells->kept = kept, a stratified random key per cell becomes its mean; serial.
 *  2. assign: kept keys [i0, i1) go to the cell of the nearest mean; tmp holds (i1-i0) * (d + padded cells) floats.
 *  3. sort: order and start from cell; serial, counting sort, stable.
 *  4. means: of cells [c0, c1).    2-4 again is a step of Lloyd's algorithm.
 *  5. pack: slabs and statistics of cells [c0, c1); tmp holds d floats. pack_means, serial, goes before 2 and after 4. */
void attn_cells_seed(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, const int32_t *idx,
                     int64_t kept, uint64_t seed);
void attn_cells_assign(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, const int32_t *idx,
                       int64_t i0, int64_t i1, float *tmp);
void attn_cells_sort(attn_cells *c, const attn_micro *mk, const int32_t *idx);
void attn_cells_means(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, int64_t c0, int64_t c1);
void attn_cells_pack_means(attn_cells *c, const attn_micro *mk);
void attn_cells_pack(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, const float *v, ptrdiff_t vs,
                     int64_t c0, int64_t c1, float *tmp);

#endif
