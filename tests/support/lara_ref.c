/* lara_ref.c - see lara_ref.h */
#include "tests/support/lara_ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/core/rng.h"
#include "kernels/micro/micro.h"
#include "tests/support/nystrom_ref.h"

static double *doubles(int64_t n) {
  double *p = calloc((size_t)n + 1, sizeof *p);
  if (!p) {
    (void)fprintf(stderr, "lara_ref: out of memory\n");
    exit(1);
  }
  return p;
}
static double dot_of(int64_t d, const double *x, const double *y) {
  double sum = 0.0;
  for (int64_t t = 0; t < d; t++) sum += x[t] * y[t];
  return sum;
}
double lara_ref_log_xi(double scale, int64_t d, const double *x, const double *omega) {
  return scale * (dot_of(d, omega, x) - dot_of(d, x, x) / 2);
}
static double log_sum_exp(int64_t n, const double *x, int64_t stride) {
  double top = -INFINITY, sum = 0.0;
  for (int64_t i = 0; i < n; i++) top = fmax(top, x[i * stride]);
  for (int64_t i = 0; i < n; i++) sum += exp(x[i * stride] - top);
  return top + log(sum);
}

typedef struct ref_head {
  int64_t kept, m, *at;
  double *q, *k, *v;                     /* kept tokens */
  double *qbar, *mu, *omega;             /* [m, d] */
  double *g, *lk, *prop, *bh, *t;        /* [m, dv], [m] three times, t [m, n]: 0 at masked queries */
} ref_head;

static ref_head head_new(const train_case *x, const lara_params *p, int64_t ib, int64_t ih, int noise) {
  const attn_problem *pb = &x->pb;
  const int64_t n = pb->nk, d = pb->d, dv = pb->dv;
  const double scale = (double)pb->scale;
  const ref_view q = train_case_ref(x, TRAIN_Q), k = train_case_ref(x, TRAIN_K), v = train_case_ref(x, TRAIN_V);
  ref_head h = {.at = calloc((size_t)n + 1, sizeof(int64_t)), .q = doubles(n * d), .k = doubles(n * d), .v = doubles(n * dv)};
  for (int64_t j = 0; j < n; j++) {
    if (x->mask && !x->mask[ib * n + j]) continue;
    for (int64_t t = 0; t < d; t++) {
      h.q[h.kept * d + t] = q.p[ib * q.sb + ih * q.sh + j * q.sn + t];
      h.k[h.kept * d + t] = k.p[ib * k.sb + ih * k.sh + j * k.sn + t];
    }
    for (int64_t t = 0; t < dv; t++) h.v[h.kept * dv + t] = v.p[ib * v.sb + ih * v.sh + j * v.sn + t];
    h.at[h.kept++] = j;
  }
  const int64_t m = h.m = h.kept < p->landmarks ? h.kept : p->landmarks;
  h.qbar = doubles(m * d), h.mu = doubles(m * d), h.omega = doubles(m * d), h.g = doubles(m * dv);
  h.lk = doubles(m), h.prop = doubles(m), h.bh = doubles(m), h.t = doubles(m * n);
  float *draws = calloc((size_t)(m * d) + 1, sizeof(float));
  if (m && noise) lara_noise(pb, p, ib, ih, m, draws);
  double *row = doubles(n > m ? n : m);
  for (int64_t c = 0; c < m; c++) {
    const int64_t from = nystrom_ref_segment(h.kept, m, c), to = nystrom_ref_segment(h.kept, m, c + 1);
    for (int64_t t = 0; t < d; t++) {
      double kbar = 0.0;
      for (int64_t j = from; j < to; j++) h.qbar[c * d + t] += h.q[j * d + t] / (double)(to - from), kbar += h.k[j * d + t] / (double)(to - from);
      h.mu[c * d + t] = h.qbar[c * d + t] + kbar;
      h.omega[c * d + t] = h.mu[c * d + t] + (double)draws[c * d + t];
    }
  }
  for (int64_t c = 0; c < m; c++) {
    const double *omega = h.omega + c * d;
    for (int64_t j = 0; j < h.kept; j++) row[j] = lara_ref_log_xi(scale, d, h.k + j * d, omega);
    h.lk[c] = log_sum_exp(h.kept, row, 1);
    for (int64_t j = 0; j < h.kept; j++)
      for (int64_t t = 0; t < dv; t++) h.g[c * dv + t] += exp(row[j] - h.lk[c]) * h.v[j * dv + t];
    for (int64_t other = 0; other < m; other++) row[other] = lara_ref_log_xi(scale, d, h.mu + other * d, omega);
    const double all = log_sum_exp(m, row, 1);
    h.bh[c] = exp(row[c] - all);
    h.prop[c] = p->estimator == LARA_OPT ? row[c] : all;
    for (int64_t j = 0; j < h.kept; j++) row[j] = scale * dot_of(d, h.qbar + c * d, h.q + j * d);
    const double queries = log_sum_exp(h.kept, row, 1);
    for (int64_t j = 0; j < h.kept; j++) h.t[c * n + h.at[j]] = exp(row[j] - queries);
  }
  free(draws), free(row);
  return h;
}
static void head_free(ref_head *h) {
  double *all[] = {h->q, h->k, h->v, h->qbar, h->mu, h->omega, h->g, h->lk, h->prop, h->bh, h->t};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  free(h->at);
}

void lara_ref(const train_case *x, const lara_params *p, int noise) {
  const attn_problem *pb = &x->pb;
  const int64_t d = pb->d, dv = pb->dv, n = pb->nk;
  const double scale = (double)pb->scale;
  const ref_view q = train_case_ref(x, TRAIN_Q), out = train_case_ref(x, TRAIN_OUT);
  for (int64_t i = 0; i < pb->b * pb->h; i++) {
    const int64_t ib = i / pb->h, ih = i % pb->h;
    const attn_drop dr = attn_drop_make(x->drop, attn_hash(x->key, (uint64_t)ib, (uint64_t)ih));
    ref_head h = head_new(x, p, ib, ih, noise);
    double *w = doubles(h.m);
    for (int64_t r = 0; r < n; r++) {
      const double *qr = q.p + ib * q.sb + ih * q.sh + r * q.sn;
      const int masked = x->mask && !x->mask[ib * n + r];
      double *o = out.p + ib * out.sb + ih * out.sh + r * out.sn, mean = 0.0;
      for (int64_t t = 0; t < dv; t++) o[t] = 0.0;
      for (int64_t c = 0; c < h.m; c++) mean += h.t[c * n + r] / (double)h.m;
      for (int64_t c = 0; c < h.m; c++) {
        double log_alpha = 0.0;
        if (p->estimator == LARA_OPT) log_alpha = log(fmax(1e-8, h.bh[c] + (masked ? 0.0 : p->share * (h.t[c * n + r] - mean))));
        if (p->estimator == LARA_BIASED) log_alpha = scale * dot_of(d, h.mu + c * d, qr);
        w[c] = log_alpha + lara_ref_log_xi(scale, d, qr, h.omega + c * d) + h.lk[c] - h.prop[c];
      }
      const double all = h.m ? log_sum_exp(h.m, w, 1) : 0.0;
      for (int64_t c = 0; c < h.m; c++)
        for (int64_t t = 0; t < dv; t++) o[t] += exp(w[c] - all) * (double)attn_drop_at(&dr, r, c) * h.g[c * dv + t];
    }
    free(w);
    head_free(&h);
  }
}
