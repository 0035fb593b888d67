/* segments.h - a sequence cut into consecutive segments, each summarised by the mean of its rows: the landmarks of
 * Nystromformer and of LARA.
 *
 * n rows in m <= n segments: the first m - n % m have n / m rows, the others one more (the rule of T2T-ViT and LARA for
 * lengths that m does not divide). A padding mask is resolved before: rows are those of the kept tokens, in order. */
#ifndef BASELINES_SEGMENTS_H
#define BASELINES_SEGMENTS_H

#include "kernels/attn.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "kernels/micro/micro.h"

/** Rows of a matrix, row stride ld floats; row j is row idx[j], or j when idx is NULL. */
typedef struct segment_rows {
  const float *p;
  ptrdiff_t ld;
  const int32_t *idx;
} segment_rows;
static inline const float *segment_row(const segment_rows *x, int64_t j) { return x->p + (x->idx ? x->idx[j] : j) * x->ld; }

/** The tokens that a padding mask keeps, of all batch entries. */
typedef struct segment_tokens {
  int64_t *count; /* [b] kept tokens */
  int32_t *idx;   /* [b, n] their positions */
  uint8_t *keep;  /* [b, n] */
} segment_tokens;
void segment_tokens_place(segment_tokens *t, attn_layout *at, int64_t b, int64_t n);
/** Reads kmask [b, n]; NULL keeps all. */
void segment_tokens_read(segment_tokens *t, int64_t b, int64_t n, const uint8_t *kmask);
/** Rows of the kept tokens of head i, counted over the batch, of x [b, h, n, width]. */
segment_rows segment_tokens_rows(const segment_tokens *t, attn_view x, int64_t h, int64_t n, int64_t i);
/** keep [n] of batch entry ib; NULL when it keeps all. */
static inline const uint8_t *segment_tokens_keep(const segment_tokens *t, int64_t n, int64_t ib) {
  return t->count[ib] < n ? t->keep + ib * n : NULL;
}

/** One head of a call of training: the same facts, read for this head alone. */
typedef struct segment_head {
  int64_t ib, ih, kept;
  const uint8_t *keep;  /* [n]; NULL: all are kept */
  segment_rows q, k, v; /* of the kept tokens */
  attn_drop drop;
} segment_head;
/** Head i, counted over the batch. idx [n] is working memory that the rows go on using; drop and key as in attn_training. */
segment_head segment_head_of(const attn_problem *pb, int64_t i, attn_view q, attn_view k, attn_view v, const uint8_t *kmask,
                             float drop, uint64_t key, int32_t *idx);
/** Rows of masked tokens of the head, of x [b, h, n, width], become zero. */
void segment_head_zero_masked(const segment_head *s, int64_t n, attn_viewm x, int64_t width);

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

/** Packs rows [j0, j1) transposed (attn_pack_transposed). With norm > 0 a row x is packed as x, -norm |x|^2 / 2, by way of `rows`. */
void segment_pack_transposed(const attn_micro *mk, segment_rows x, int64_t width, float norm, int64_t j0, int64_t j1, float *rows,
                             float *kt);
/** Rows [j0, j1) as B of gemm: in place when they are consecutive, else packed into `packed`. *brs, *bps: its strides. */
const float *segment_pack_rows(const attn_micro *mk, segment_rows x, int64_t width, int64_t j0, int64_t j1, float *packed,
                               ptrdiff_t *brs, ptrdiff_t *bps);

enum {
  SEGMENT_CHUNK = 1024, /* keys whose summary is one task */
  SEGMENT_KEYS = 256    /* keys packed at a time */
};
static inline int64_t segment_chunks(int64_t n) { return (n + SEGMENT_CHUNK - 1) / SEGMENT_CHUNK; }
/** Floats of the summary of a chunk: maxima [m], lane sums [m, 16], weighted values [m, dv]. */
static inline int64_t segment_part_floats(int64_t m, int64_t dv) { return m * (dv + 17); }

/** Working memory of one thread for summaries; norm: whether one will be used. */
typedef struct segment_work {
  float *kt, *v, *s, *rows;
} segment_work;
void segment_work_place(segment_work *w, attn_layout *at, int64_t d, int64_t dv, int norm);

/** Online softmax, logits in base 2, of landmark queries qs [m, d] over keys [j0, j1), at most a chunk: part as above. With
 *  norm > 0 the logit of key k is qs.k - norm |k|^2 / 2, and qs is [m, d + 1] with 1 as last entry of each row. dv = 0: no values. */
void segment_summarise(const attn_micro *mk, int64_t m, int64_t d, int64_t dv, const float *qs, segment_rows k, segment_rows v,
                       float norm, int64_t j0, int64_t j1, float *part, segment_work *w);
/** Merges the summaries of `chunks` stretches, in order: out [m, dv] their weighted mean; lse2 [m] or NULL their log2-sum-exp2. */
void segment_merge(int64_t m, int64_t dv, int64_t chunks, const float *parts, float *out, float *lse2);

#endif
