/* segments.c - see segments.h */
#include "baselines/segments.h"

#include <string.h>

/* A mean is a product with a row of 1 / length: one small gemm for each stretch of rows that lie side by side. */
void segment_means(const attn_micro *mk, segment_rows x, int64_t width, int64_t n, int64_t m, int64_t c0, int64_t c1,
                   float *out) {
  for (int64_t c = c0; c < c1; c++) {
    const int64_t from = segment_start(n, m, c), to = segment_start(n, m, c + 1);
    const float share = 1.0f / (float)(to - from);
    for (int64_t j = from, end; j < to; j = end) {
      end = x.idx ? j + 1 : to;
      while (end < to && x.idx[end] == x.idx[end - 1] + 1) end++;
      mk->gemm(1, width, end - j, &share, 0, 0, segment_row(&x, j), x.ld, mk->panel, out + c * width, width, j > from);
    }
  }
}

void segment_means_grad(const attn_micro *mk, const float *dmean, int64_t width, int64_t n, int64_t m, const int32_t *idx,
                        float *dx, ptrdiff_t ld) {
  for (int64_t c = 0; c < m; c++) {
    const int64_t from = segment_start(n, m, c), to = segment_start(n, m, c + 1);
    for (int64_t j = from; j < to; j++)
      mk->axpy(width, 1.0f / (float)(to - from), dmean + c * width, dx + (idx ? idx[j] : j) * ld);
  }
}

void segment_pack_transposed(const attn_micro *mk, segment_rows x, int64_t width, int64_t j0, int64_t j1, float *kt) {
  attn_pack_transposed(mk, j1 - j0, width, x.idx ? x.p : x.p + j0 * x.ld, x.ld, x.idx ? x.idx + j0 : NULL, 1.0f, kt);
}

const float *segment_pack_rows(const attn_micro *mk, segment_rows x, int64_t width, int64_t j0, int64_t j1, float *packed,
                               ptrdiff_t *brs, ptrdiff_t *bps) {
  *brs = x.ld, *bps = mk->panel;
  if (!x.idx) return x.p + j0 * x.ld;
  attn_pack_panels(mk, j1 - j0, j1 - j0, width, x.p, x.ld, x.idx + j0, packed);
  *brs = mk->panel, *bps = mk->panel * (j1 - j0);
  return packed;
}
