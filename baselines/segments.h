/* segments.h - a sequence cut into consecutive segments, each summarised by the mean of its rows: the landmarks of
 * Nystromformer and of LARA.
 *
 * n rows in m <= n segments: the first m - n % m have n / m rows, the others one more (the rule of T2T-ViT and LARA for
 * lengths that m does not divide). A padding mask is resolved before: rows are those of the kept tokens, in order. */
#ifndef BASELINES_SEGMENTS_H
#define BASELINES_SEGMENTS_H

#include "kernels/micro/micro.h"

/** Rows of a matrix, row stride ld floats; row j is row idx[j], or j when idx is NULL. */
typedef struct segment_rows {
  const float *p;
  ptrdiff_t ld;
  const int32_t *idx;
} segment_rows;
static inline const float *segment_row(const segment_rows *x, int64_t j) { return x->p + (x->idx ? x->idx[j] : j) * x->ld; }

/** First row of segment c of m; n for c = m. */
static inline int64_t segment_start(int64_t n, int64_t m, int64_t c) {
  const int64_t shorter = m - n % m;
  return c * (n / m) + (c > shorter ? c - shorter : 0);
}

/** out [m, width], rows [c0, c1): means of the segments. */
void segment_means(const attn_micro *mk, segment_rows x, int64_t width, int64_t n, int64_t m, int64_t c0, int64_t c1,
                   float *out);
/** Backward: row idx[j] of dx (stride ld; idx as above) += dmean [m, width] of its segment / rows of the segment. */
void segment_means_grad(const attn_micro *mk, const float *dmean, int64_t width, int64_t n, int64_t m, const int32_t *idx,
                        float *dx, ptrdiff_t ld);

/** Packs keys [j0, j1) transposed into kt (attn_pack_transposed: whole panels of width `width`). */
void segment_pack_transposed(const attn_micro *mk, segment_rows x, int64_t width, int64_t j0, int64_t j1, float *kt);
/** Rows [j0, j1) as B of gemm: in place when they are consecutive, else packed into `packed`. *brs, *bps: its strides. */
const float *segment_pack_rows(const attn_micro *mk, segment_rows x, int64_t width, int64_t j0, int64_t j1, float *packed,
                               ptrdiff_t *brs, ptrdiff_t *bps);

#endif
