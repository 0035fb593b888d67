/* nystromformer_head.c - see nystromformer.h */
#include <math.h>
#include <string.h>

#include "baselines/nystromformer.h"
#include "kernels/core/softmax2.h"

int64_t nystrom_landmarks(const nystrom_params *p, int64_t kept, int *exact) {
  const int few = kept <= p->landmarks;
  *exact = few && p->shorter == NYSTROM_SHORT_SOFTMAX;
  return few ? kept : p->landmarks;
}
int64_t nystrom_most(const nystrom_params *p, int64_t nk) { return nk < 1 ? 1 : nk < p->landmarks ? nk : p->landmarks; }

static int64_t score_ld(const attn_micro *mk, int64_t m) { return attn_padded(mk, m) + 16; }

void nystrom_work_place(nystrom_work *w, attn_layout *at, const attn_problem *pb, const nystrom_params *p) {
  const attn_micro *mk = attn_micro_get();
  const int64_t m = nystrom_most(p, pb->nk), rows = m > NYSTROM_QUERIES ? m : NYSTROM_QUERIES;
  segment_work_place(&w->segment, at, pb->d, pb->d > pb->dv ? pb->d : pb->dv, 0);
  w->s = attn_place_floats(at, NYSTROM_QUERIES, score_ld(mk, m));
  w->square = attn_place_floats(at, 4 * m, m);
  w->m = attn_place_floats(at, rows, 1);
  w->l = attn_place_floats(at, rows, 16);
  w->window = attn_place_floats(at, p->conv ? NYSTROM_QUERIES + p->conv : 0, pb->dv);
}

float nystrom_scores(const attn_micro *mk, int64_t m, int64_t d, const float *qbar, const float *kt, float *a,
                     nystrom_work *w, int64_t *column) {
  float *sums = w->square, most = -INFINITY;
  mk->gemm(m, m, d, qbar, d, 1, kt, mk->panel, mk->panel * d, a, m, 0);
  for (int64_t i = 0; i < m; i++) w->m[i] = -INFINITY;
  memset(w->l, 0, (size_t)(m * 16) * sizeof(float));
  memset(sums, 0, (size_t)m * sizeof(float));
  mk->softmax_block(m, m, a, m, NULL, w->m, w->l, NULL, 0, 0);
  for (int64_t i = 0; i < m; i++) {
    const float inverse = 1.0f / attn_lane_sum(w->l + i * 16);
    for (int64_t j = 0; j < m; j++) sums[j] += a[i * m + j] *= inverse;
  }
  for (int64_t j = 0; j < m; j++)
    if (sums[j] > most) most = sums[j], *column = j;
  return most;
}

/* c = diagonal I + factor x */
static void shifted(int64_t m, float diagonal, float factor, const float *x, float *c) {
  for (int64_t i = 0; i < m * m; i++) c[i] = factor * x[i];
  for (int64_t i = 0; i < m; i++) c[i * m + i] += diagonal;
}
static void product(const attn_micro *mk, int64_t m, const float *x, const float *y, float *c, int add) {
  mk->gemm(m, m, m, x, m, 1, y, m, mk->panel, c, m, add);
}

void nystrom_factors(const attn_micro *mk, int64_t m, const float *a, const float *z, float *n, float *p, float *r) {
  product(mk, m, a, z, n, 0);
  for (int64_t i = 0; i < m * m; i++) n[i] = -n[i];
  shifted(m, 15.0f, 7.0f, n, p);
  product(mk, m, n, n, p, 1);
  memset(r, 0, (size_t)(m * m) * sizeof(float));
  for (int64_t i = 0; i < m; i++) r[i * m + i] = 13.0f;
  product(mk, m, n, p, r, 1);
}

void nystrom_pinv(const attn_micro *mk, int64_t m, int64_t steps, const float *a, float kappa, float *z, int64_t apart,
                  nystrom_work *w) {
  const int64_t size = m * m;
  float *n = w->square, *p = n + size, *r = p + size, *old = r + size;
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < m; j++) z[i * m + j] = a[j * m + i] / kappa;
  for (int64_t s = 0; s < steps; s++) {
    const float *from = z + s * apart;
    float *to = z + (s + 1) * apart;
    if (!apart) from = memcpy(old, z, (size_t)size * sizeof(float));
    nystrom_factors(mk, m, a, from, n, p, r);
    product(mk, m, from, r, to, 0);
    for (int64_t i = 0; i < size; i++) to[i] *= 0.25f;
  }
}

void nystrom_answer(const attn_micro *mk, int64_t m, int64_t d, int64_t dv, int64_t rows, const float *q, ptrdiff_t qs,
                    const float *kt, const float *u, float *out, ptrdiff_t os, float *lse2, nystrom_work *w) {
  const int64_t ld = score_ld(mk, m);
  for (int64_t i = 0; i < rows; i++) w->m[i] = -INFINITY;
  memset(w->l, 0, (size_t)(rows * 16) * sizeof(float));
  mk->gemm(rows, m, d, q, qs, 1, kt, mk->panel, mk->panel * d, w->s, ld, 0);
  mk->softmax_block(rows, m, w->s, ld, NULL, w->m, w->l, NULL, 0, 0);
  mk->gemm(rows, dv, m, w->s, ld, 1, u, dv, mk->panel, out, os, 0);
  for (int64_t i = 0; i < rows; i++) {
    const float sum = attn_lane_sum(w->l + i * 16), inverse = sum != 0.0f ? 1.0f / sum : 0.0f;
    for (int64_t t = 0; t < dv; t++) out[i * os + t] *= inverse;
    lse2[i] = w->m[i] + log2f(sum);
  }
}

/* --- the convolution ---------------------------------------------------------------------------------------------- */

void nystrom_taps(const float *taps, int64_t conv, int reversed, float *out) {
  memset(out, 0, (size_t)(conv + 2 * NYSTROM_CONV_ROWS) * sizeof(float));
  for (int64_t t = 0; t < conv; t++) out[NYSTROM_CONV_ROWS + t] = taps[reversed ? conv - 1 - t : t];
}

const float *nystrom_window(int64_t conv, int64_t n, int64_t dv, const float *x, ptrdiff_t *ld, const uint8_t *keep, int64_t i0,
                            int64_t i1, int64_t *first, nystrom_work *w) {
  *first = 0;
  if (!keep) return x;
  const int64_t half = conv / 2, end = i1 + half < n ? i1 + half : n;
  *first = i0 > half ? i0 - half : 0;
  for (int64_t j = *first; j < end; j++) {
    if (keep[j]) memcpy(w->window + (j - *first) * dv, x + j * *ld, (size_t)dv * sizeof(float));
    else memset(w->window + (j - *first) * dv, 0, (size_t)dv * sizeof(float));
  }
  *ld = dv;
  return w->window;
}

/* A few rows at a time are a product with a band matrix, entry (r, p) = tap[p - r]: with row stride -1 it is the padded
 * list of taps itself. */
void nystrom_conv(const attn_micro *mk, const float *taps, int64_t conv, int64_t n, int64_t dv, const float *x, ptrdiff_t ld,
                  const uint8_t *keep, int64_t i0, int64_t i1, float *out, ptrdiff_t os, nystrom_work *w) {
  const int64_t half = conv / 2;
  int64_t first;
  x = nystrom_window(conv, n, dv, x, &ld, keep, i0, i1, &first, w);
  for (int64_t i = i0; i < i1; i += NYSTROM_CONV_ROWS) {
    const int64_t rows = i1 - i < NYSTROM_CONV_ROWS ? i1 - i : NYSTROM_CONV_ROWS;
    const int64_t from = i > half ? i - half : 0, to = i + rows + half < n ? i + rows + half : n;
    mk->gemm(rows, dv, to - from, taps + NYSTROM_CONV_ROWS + (from - i + half), -1, 1, x + (from - first) * ld, ld, mk->panel,
             out + i * os, os, 1);
  }
}
