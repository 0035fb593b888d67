/* segments.c - see segments.h */
#include "baselines/segments.h"

#include <math.h>
#include <string.h>

#include "kernels/core/softmax2.h"
#include "kernels/core/visible.h"

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

void segment_pack_transposed(const attn_micro *mk, segment_rows x, int64_t width, float norm, int64_t j0, int64_t j1, float *rows,
                             float *kt) {
  if (norm > 0.0f) {
    for (int64_t j = j0; j < j1; j++) {
      const float *from = segment_row(&x, j);
      float *to = rows + (j - j0) * (width + 1);
      memcpy(to, from, (size_t)width * sizeof(float));
      to[width] = -0.5f * norm * mk->dot(width, from, from);
    }
    attn_pack_transposed(mk, j1 - j0, width + 1, rows, width + 1, NULL, 1.0f, kt);
  } else
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

void segment_work_place(segment_work *w, attn_layout *at, int64_t d, int64_t dv, int norm) {
  const attn_micro *mk = attn_micro_get();
  w->kt = attn_place_floats(at, SEGMENT_KEYS, d + (norm != 0));
  w->v = attn_place_floats(at, SEGMENT_KEYS, attn_padded(mk, dv));
  w->s = attn_place_floats(at, mk->rows, SEGMENT_KEYS + 16);
  w->rows = attn_place_floats(at, norm ? SEGMENT_KEYS : 0, d + 1);
}

void segment_summarise(const attn_micro *mk, int64_t m, int64_t d, int64_t dv, const float *qs, segment_rows k, segment_rows v,
                       float norm, int64_t j0, int64_t j1, float *part, segment_work *w) {
  const int64_t ld = SEGMENT_KEYS + 16, wide = d + (norm > 0.0f);
  float *top = part, *l = top + m, *o = l + m * 16;
  for (int64_t i = 0; i < m; i++) top[i] = -INFINITY;
  memset(l, 0, (size_t)(m * (16 + dv)) * sizeof(float));
  for (int64_t j = j0; j < j1; j += SEGMENT_KEYS) {
    const int64_t end = j1 - j < SEGMENT_KEYS ? j1 : j + SEGMENT_KEYS, cols = end - j;
    ptrdiff_t brs = 0, bps = 0;
    segment_pack_transposed(mk, k, d, norm, j, end, w->rows, w->kt);
    const float *values = dv ? segment_pack_rows(mk, v, dv, j, end, w->v, &brs, &bps) : NULL;
    for (int64_t i = 0; i < m; i += mk->rows) {
      const int64_t rows = m - i < mk->rows ? m - i : mk->rows;
      float *oi = o + i * dv;
      if (cols % mk->panel == 0)
        mk->weigh_block(rows, cols, wide, qs + i * wide, wide, w->kt, w->s, ld, top + i, l + i * 16, oi, dv, dv);
      else {
        mk->gemm(rows, cols, wide, qs + i * wide, wide, 1, w->kt, mk->panel, mk->panel * wide, w->s, ld, 0);
        mk->softmax_block(rows, cols, w->s, ld, NULL, top + i, l + i * 16, oi, dv, dv);
      }
      if (dv) mk->gemm(rows, dv, cols, w->s, ld, 1, values, brs, bps, oi, dv, 1);
    }
  }
}

void segment_merge(int64_t m, int64_t dv, int64_t chunks, const float *parts, float *out, float *lse2) {
  const int64_t apart = segment_part_floats(m, dv);
  for (int64_t i = 0; i < m; i++) {
    float top = -INFINITY, sum = 0.0f, *o = dv ? out + i * dv : NULL;
    for (int64_t c = 0; c < chunks; c++) top = fmaxf(top, parts[c * apart + i]);
    for (int64_t t = 0; t < dv; t++) o[t] = 0.0f;
    for (int64_t c = 0; c < chunks; c++) {
      const float *part = parts + c * apart, *from = part + m * 17 + i * dv;
      const float weight = top == -INFINITY ? 0.0f : exp2f(part[i] - top);
      sum += weight * attn_lane_sum(part + m + i * 16);
      for (int64_t t = 0; t < dv; t++) o[t] += weight * from[t];
    }
    const float inverse = sum != 0.0f ? 1.0f / sum : 0.0f;
    for (int64_t t = 0; t < dv; t++) o[t] *= inverse;
    if (lse2) lse2[i] = top + log2f(sum);
  }
}

/* --- tokens that are kept ------------------------------------------------------------------------------------------ */

void segment_tokens_place(segment_tokens *t, attn_layout *at, int64_t b, int64_t n) {
  t->count = attn_place(at, attn_mul((size_t)b, sizeof *t->count));
  t->idx = attn_place(at, attn_mul(attn_mul((size_t)b, (size_t)n), sizeof *t->idx));
  t->keep = attn_place(at, attn_mul((size_t)b, (size_t)n));
}

void segment_tokens_read(segment_tokens *t, int64_t b, int64_t n, const uint8_t *kmask) {
  for (int64_t ib = 0; ib < b; ib++) {
    t->count[ib] = attn_keep(kmask ? kmask + ib * n : NULL, n, t->idx + ib * n);
    for (int64_t j = 0; j < n; j++) t->keep[ib * n + j] = !kmask || kmask[ib * n + j];
  }
}

static segment_rows rows_of(attn_view x, int64_t ib, int64_t ih, const int32_t *idx) {
  return (segment_rows){x.p + ib * x.sb + ih * x.sh, x.sn, idx};
}

segment_rows segment_tokens_rows(const segment_tokens *t, attn_view x, int64_t h, int64_t n, int64_t i) {
  return rows_of(x, i / h, i % h, t->count[i / h] < n ? t->idx + i / h * n : NULL);
}

segment_head segment_head_of(const attn_problem *pb, int64_t i, attn_view q, attn_view k, attn_view v, const uint8_t *kmask,
                             float drop, uint64_t key, int32_t *idx) {
  segment_head s = {.ib = i / pb->h, .ih = i % pb->h};
  const uint8_t *mask = kmask ? kmask + s.ib * pb->nk : NULL;
  s.kept = attn_keep(mask, pb->nk, idx);
  const int32_t *rows = s.kept < pb->nk ? idx : NULL;
  s.keep = rows ? mask : NULL;
  s.q = rows_of(q, s.ib, s.ih, rows);
  s.k = rows_of(k, s.ib, s.ih, rows);
  s.v = rows_of(v, s.ib, s.ih, rows);
  s.drop = attn_drop_make(drop, attn_hash(key, (uint64_t)s.ib, (uint64_t)s.ih));
  return s;
}

void segment_head_zero_masked(const segment_head *s, int64_t n, attn_viewm x, int64_t width) {
  for (int64_t j = 0; j < n && s->keep; j++)
    if (!s->keep[j]) memset(x.p + s->ib * x.sb + s->ih * x.sh + j * x.sn, 0, (size_t)width * sizeof(float));
}
