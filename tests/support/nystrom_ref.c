/* nystrom_ref.c - see nystrom_ref.h */
#include "tests/support/nystrom_ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/rng.h"
#include "kernels/micro/micro.h"

static double *doubles(int64_t n) {
  double *p = calloc((size_t)n + 1, sizeof *p);
  if (!p) {
    (void)fprintf(stderr, "nystrom_ref: out of memory\n");
    exit(1);
  }
  return p;
}

/* Lengths: every segment n / m, and what remains one each to the last ones. */
int64_t nystrom_ref_segment(int64_t n, int64_t m, int64_t c) {
  int64_t start = 0;
  for (int64_t s = 0; s < c; s++) start += n / m + (s >= m - n % m ? 1 : 0);
  return start;
}

/* c = softmax of scale x y^T, rows x cols; rows of x and y of width d. */
static void softmax_of(int64_t rows, int64_t cols, int64_t d, double scale, const double *x, const double *y, double *c) {
  for (int64_t i = 0; i < rows; i++) {
    double top = -INFINITY, sum = 0.0;
    for (int64_t j = 0; j < cols; j++) {
      double dot = 0.0;
      for (int64_t t = 0; t < d; t++) dot += x[i * d + t] * y[j * d + t];
      c[i * cols + j] = scale * dot;
      top = fmax(top, scale * dot);
    }
    for (int64_t j = 0; j < cols; j++) sum += c[i * cols + j] = exp(c[i * cols + j] - top);
    for (int64_t j = 0; j < cols; j++) c[i * cols + j] /= sum;
  }
}

static void multiply(int64_t rows, int64_t cols, int64_t inner, const double *x, const double *y, double *c) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) {
      double sum = 0.0;
      for (int64_t t = 0; t < inner; t++) sum += x[i * inner + t] * y[t * cols + j];
      c[i * cols + j] = sum;
    }
}

static void means(int64_t n, int64_t m, int64_t d, const double *x, double *out) {
  for (int64_t c = 0; c < m; c++) {
    const int64_t from = nystrom_ref_segment(n, m, c), to = nystrom_ref_segment(n, m, c + 1);
    for (int64_t t = 0; t < d; t++) {
      double sum = 0.0;
      for (int64_t j = from; j < to; j++) sum += x[j * d + t];
      out[c * d + t] = sum / (double)(to - from);
    }
  }
}

/* diagonal I - x */
static void minus(int64_t m, double diagonal, const double *x, double *c) {
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < m; j++) c[i * m + j] = (i == j ? diagonal : 0.0) - x[i * m + j];
}

static double residual(int64_t m, const double *a, const double *z, double *tmp) {
  double most = 0.0;
  multiply(m, m, m, a, z, tmp);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < m; j++) most = fmax(most, fabs((i == j ? 1.0 : 0.0) - tmp[i * m + j]));
  return most;
}

static void pinv(int64_t m, int64_t steps, const double *a, double kappa, double *z, double *residuals) {
  double *t = doubles(m * m), *x = doubles(m * m), *y = doubles(m * m);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < m; j++) z[i * m + j] = a[j * m + i] / kappa;
  for (int64_t s = 0;; s++) {
    if (residuals) residuals[s] = residual(m, a, z, x);
    if (s == steps) break;
    multiply(m, m, m, a, z, t);
    minus(m, 7.0, t, x);
    multiply(m, m, m, t, x, y);
    minus(m, 15.0, y, x);
    multiply(m, m, m, t, x, y);
    minus(m, 13.0, y, x);
    multiply(m, m, m, z, x, y);
    for (int64_t i = 0; i < m * m; i++) z[i] = y[i] / 4.0;
  }
  free(t), free(x), free(y);
}

typedef struct ref_head {
  int64_t kept, m, *at;
  double *q, *k, *v, *qbar, *kbar, *a; /* of the kept tokens; v with dropout */
  double kappa;
} ref_head;

static int64_t landmarks_of(const nystrom_ref_settings *s, int64_t kept) { return kept < s->landmarks ? kept : s->landmarks; }

static ref_head head_new(const train_case *x, const nystrom_ref_settings *s, int64_t ib, int64_t ih) {
  const attn_problem *pb = &x->pb;
  const ref_view q = train_case_ref(x, TRAIN_Q), k = train_case_ref(x, TRAIN_K), v = train_case_ref(x, TRAIN_V);
  const attn_drop dr = attn_drop_make(x->drop, attn_hash(x->key, (uint64_t)ib, (uint64_t)ih));
  ref_head h = {.at = calloc((size_t)pb->nk + 1, sizeof(int64_t)), .q = doubles(pb->nk * pb->d), .k = doubles(pb->nk * pb->d), .v = doubles(pb->nk * pb->dv)};
  for (int64_t j = 0; j < pb->nk; j++) {
    if (x->mask && !x->mask[ib * pb->nk + j]) continue;
    for (int64_t t = 0; t < pb->d; t++) {
      h.q[h.kept * pb->d + t] = q.p[ib * q.sb + ih * q.sh + j * q.sn + t];
      h.k[h.kept * pb->d + t] = k.p[ib * k.sb + ih * k.sh + j * k.sn + t];
    }
    for (int64_t t = 0; t < pb->dv; t++)
      h.v[h.kept * pb->dv + t] = v.p[ib * v.sb + ih * v.sh + j * v.sn + t] * (double)attn_drop_at(&dr, 0, h.kept);
    h.at[h.kept++] = j;
  }
  h.m = landmarks_of(s, h.kept);
  h.qbar = doubles(h.m * pb->d), h.kbar = doubles(h.m * pb->d), h.a = doubles(h.m * h.m);
  if (!h.m) return h;
  means(h.kept, h.m, pb->d, h.q, h.qbar);
  means(h.kept, h.m, pb->d, h.k, h.kbar);
  softmax_of(h.m, h.m, pb->d, (double)pb->scale, h.qbar, h.kbar, h.a);
  if (h.kept == h.m && !s->pinv_when_short) return h;
  for (int64_t j = 0; j < h.m; j++) {
    double sum = 0.0;
    for (int64_t i = 0; i < h.m; i++) sum += h.a[i * h.m + j];
    h.kappa = fmax(h.kappa, sum);
  }
  return h;
}
static void head_free(ref_head *h) { free(h->at), free(h->q), free(h->k), free(h->v), free(h->qbar), free(h->kbar), free(h->a); }

/* u [m, dv]: what a landmark is worth. */
static void worth(const train_case *x, const nystrom_ref_settings *s, const ref_head *h, double kappa, double *u) {
  const int64_t m = h->m, d = x->pb.d, dv = x->pb.dv;
  if (h->kept == m && !s->pinv_when_short) {
    memcpy(u, h->v, (size_t)(m * dv) * sizeof(double));
    return;
  }
  double *b = doubles(m * h->kept), *w = doubles(m * dv), *z = doubles(m * m);
  softmax_of(m, h->kept, d, (double)x->pb.scale, h->qbar, h->k, b);
  multiply(m, dv, h->kept, b, h->v, w);
  pinv(m, s->iterations, h->a, kappa, z, s->residual);
  multiply(m, dv, m, z, w, u);
  free(b), free(w), free(z);
}

void nystrom_ref(const train_case *x, const nystrom_ref_settings *s) {
  const attn_problem *pb = &x->pb;
  const ref_view q = train_case_ref(x, TRAIN_Q), v = train_case_ref(x, TRAIN_V), out = train_case_ref(x, TRAIN_OUT);
  double largest = 0.0;
  for (int64_t i = 0; i < pb->b * pb->h; i++) {
    ref_head h = head_new(x, s, i / pb->h, i % pb->h);
    largest = fmax(largest, h.kappa);
    head_free(&h);
  }
  for (int64_t i = 0; i < pb->b * pb->h; i++) {
    const int64_t ib = i / pb->h, ih = i % pb->h;
    ref_head h = head_new(x, s, ib, ih);
    double *u = doubles(h.m * pb->dv), *f = doubles(h.m);
    if (h.m) worth(x, s, &h, s->global_kappa ? largest : h.kappa, u);
    for (int64_t r = 0; r < pb->nq; r++) {
      double *o = out.p + ib * out.sb + ih * out.sh + r * out.sn;
      for (int64_t t = 0; t < pb->dv; t++) o[t] = 0.0;
      if (h.m) {
        softmax_of(1, h.m, pb->d, (double)pb->scale, q.p + ib * q.sb + ih * q.sh + r * q.sn, h.kbar, f);
        multiply(1, pb->dv, h.m, f, u, o);
      }
      for (int64_t c = 0; c < s->conv; c++) {
        const int64_t j = r + c - s->conv / 2;
        if (j < 0 || j >= pb->nk || (x->mask && !x->mask[ib * pb->nk + j])) continue;
        for (int64_t t = 0; t < pb->dv; t++) o[t] += x->ref[TRAIN_W][ih * s->conv + c] * v.p[ib * v.sb + ih * v.sh + j * v.sn + t];
      }
    }
    free(u), free(f);
    head_free(&h);
  }
}
