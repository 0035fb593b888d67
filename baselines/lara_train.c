/* lara_train.c - linear randomised attention for training: forward with noise in the proposals, and the gradients of
 * queries, keys and values. Names as in lara.c; d before a name is the gradient of the loss.
 *
 * Idea    Per row: p_ci = weights, e_ci = p_ci (dp_ci - sum_c p dp) is the gradient of their logarithms. It goes
 *         to alpha (e / alpha where alpha is not at its floor), to scale f_c.q_i and to LK_c - prop_c. Through t, a softmax over
 *         queries, every row gets another share that needs a sum over all rows first: a second, shorter pass.
 *         Keys: g_c and LK_c share one softmax over keys, whose gradient takes dLK_c into its row constant.
 *         Pooled means hand their gradient to the tokens of their segment in equal parts. Noise is constant.
 * Dropout On the weights p of a query over landmarks, which sum to one as those of softmax do: row the query, column the
 *         landmark of the mask keyed (key, batch, head).
 * Threads One task per (batch, head). */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "baselines/lara.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"

enum { GRAD_KEYS = 128, GRAD_LD = GRAD_KEYS + 16 };

typedef struct saved_head {
  float *qbar, *mu, *omega, *lm, *prop, *bh, *g, *lse_k, *lse_t, *tq; /* tq [m, d] = sum over queries of t_ci q_i */
} saved_head;

typedef struct thread_work {
  lara_work w;
  int32_t *idx;
  float *ft, *qt, *gt, *f, *constant, *minus_t, *queries, *parts;
  float *dp, *dg, *df, *dqbar, *dmu, *domega, *dlm, *dbh, *dconstant, *dshare; /* dshare [m]: sum over queries of t dt */
  float *p, *dk, *rows, *delta, *column;
} thread_work;

static void saved_place(saved_head *s, attn_layout *at, const attn_problem *pb, const lara_params *p) {
  const int64_t m = lara_most(p, pb->nk), wide = attn_padded(attn_micro_get(), m);
  float **wides[] = {&s->qbar, &s->mu, &s->omega, &s->tq}, **narrow[] = {&s->prop, &s->bh, &s->lse_k, &s->lse_t};
  for (int i = 0; i < 4; i++) *wides[i] = attn_place_floats(at, m, pb->d);
  for (int i = 0; i < 4; i++) *narrow[i] = attn_place_floats(at, wide, 1);
  s->lm = attn_place_floats(at, m, m);
  s->g = attn_place_floats(at, m, pb->dv);
}

static void work_place(thread_work *t, attn_layout *at, const attn_problem *pb, const lara_params *p) {
  const attn_micro *mk = attn_micro_get();
  const int64_t m = lara_most(p, pb->nk), d = pb->d, dv = pb->dv, wide = attn_padded(mk, m), width = d > dv ? d : dv;
  lara_work_place(&t->w, at, pb, p);
  t->idx = attn_place_floats(at, pb->nk, 1);
  float **panels[] = {&t->ft, &t->qt};
  float **rows[] = {&t->f, &t->df, &t->dqbar, &t->dmu, &t->domega};
  float **narrow[] = {&t->constant, &t->minus_t, &t->dbh, &t->dconstant, &t->dshare, &t->delta};
  for (int i = 0; i < 2; i++) *panels[i] = attn_place_floats(at, wide, d);
  for (int i = 0; i < 5; i++) *rows[i] = attn_place_floats(at, m, d);
  for (int i = 0; i < 6; i++) *narrow[i] = attn_place_floats(at, wide > LARA_QUERIES ? wide : LARA_QUERIES, 1);
  t->queries = attn_place_floats(at, m, d + 1);
  t->parts = attn_place_floats(at, segment_chunks(pb->nk), segment_part_floats(m, width));
  t->gt = attn_place_floats(at, wide, dv);
  t->dg = attn_place_floats(at, m, dv);
  t->dlm = attn_place_floats(at, m, m);
  t->dp = attn_place_floats(at, LARA_QUERIES, lara_ld(mk, m));
  t->p = attn_place_floats(at, m, GRAD_LD);
  t->dk = attn_place_floats(at, m, GRAD_LD);
  t->rows = attn_place_floats(at, GRAD_KEYS, width);
  t->column = attn_place_floats(at, GRAD_KEYS, 1);
}

static size_t saved_bytes(const attn_problem *pb, const lara_params *p) {
  attn_layout at = {0};
  saved_head s;
  saved_place(&s, &at, pb, p);
  return at.used;
}
static size_t work_bytes(const attn_problem *pb, const lara_params *p) {
  attn_layout at = {0};
  thread_work t;
  work_place(&t, &at, pb, p);
  return at.used;
}

static attn_status train_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  need->plan = attn_mul(attn_mul((size_t)pb->b, (size_t)pb->h), saved_bytes(pb, params));
  need->scratch = attn_mul((size_t)pb->threads, work_bytes(pb, params));
  return ATTN_OK;
}

/* One head of one call. */
typedef struct head {
  const attn_problem *pb;
  const lara_params *par;
  const attn_micro *mk;
  int64_t m;
  float factor;
  segment_head in;
  saved_head s;
} head;

static thread_work work_of(const attn_problem *pb, const lara_params *p, void *scratch) {
  attn_layout at = {.p = (char *)scratch + (size_t)omp_get_thread_num() * work_bytes(pb, p)};
  thread_work t;
  work_place(&t, &at, pb, p);
  return t;
}

static head head_of(const attn_problem *pb, const lara_params *p, int64_t i, attn_view q, attn_view k, attn_view v,
                    const uint8_t *kmask, float drop, uint64_t key, void *saved, thread_work *t) {
  head hd = {.pb = pb, .par = p, .mk = attn_micro_get(), 
             .in = segment_head_of(pb, i, q, k, v, kmask, drop, key, t->idx), .factor = (float)(pb->scale * LOG2E)};
  attn_layout at = {.p = (char *)saved + (size_t)i * saved_bytes(pb, p)};
  hd.m = lara_landmarks(p, hd.in.kept);
  saved_place(&hd.s, &at, pb, p);
  return hd;
}

/* Panels and constants that rows meet, from what is saved. */
static lara_head meet(const head *hd, thread_work *t) {
  const int64_t m = hd->m, d = hd->pb->d;
  for (int64_t x = 0; x < m * d; x++) t->f[x] = hd->s.omega[x] + (hd->par->estimator == LARA_BIASED ? hd->s.mu[x] : 0.0f);
  for (int64_t c = 0; c < m; c++) t->constant[c] = hd->s.lse_k[c] - hd->s.prop[c];
  attn_pack_transposed(hd->mk, m, d, t->f, d, NULL, hd->factor, t->ft);
  if (hd->par->estimator == LARA_OPT) {
    for (int64_t c = 0; c < m; c++) t->minus_t[c] = -hd->s.lse_t[c];
    attn_pack_transposed(hd->mk, m, d, hd->s.qbar, d, NULL, hd->factor, t->qt);
  }
  return (lara_head){m, d, (int)hd->par->estimator, (float)hd->par->share, t->ft, t->qt, t->constant, t->minus_t, hd->s.bh};
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

static void summarise_all(const head *hd, int64_t dv, const float *queries, segment_rows x, segment_rows v, float norm, float *out,
                          float *lse2, thread_work *t) {
  int64_t chunks = 0;
  for (int64_t j = 0; j < hd->in.kept; j += SEGMENT_CHUNK, chunks++)
    segment_summarise(hd->mk, hd->m, hd->pb->d, dv, queries, x, v, norm, j, hd->in.kept - j < SEGMENT_CHUNK ? hd->in.kept : j + SEGMENT_CHUNK,
                      t->parts + chunks * segment_part_floats(hd->m, dv), &t->w.segment);
  segment_merge(hd->m, dv, chunks, t->parts, out, lse2);
}

static void forward_head(const head *hd, attn_viewm out, thread_work *t) {
  const attn_problem *pb = hd->pb;
  const int64_t m = hd->m, d = pb->d;
  float *o = out.p + hd->in.ib * out.sb + hd->in.ih * out.sh;
  for (int64_t i = 0; i < pb->nq && !m; i++) memset(o + i * out.sn, 0, (size_t)pb->dv * sizeof(float));
  if (!m) return;
  segment_means(hd->mk, hd->in.q, d, hd->in.kept, m, 0, m, hd->s.qbar);
  segment_means(hd->mk, hd->in.k, d, hd->in.kept, m, 0, m, hd->s.mu);
  lara_noise(pb, hd->par, hd->in.ib, hd->in.ih, m, hd->s.omega);
  for (int64_t x = 0; x < m * d; x++) {
    hd->s.mu[x] = hd->s.qbar[x] + hd->s.mu[x];
    hd->s.omega[x] += hd->s.mu[x];
  }
  lara_proposals(hd->mk, m, d, hd->factor, (int)hd->par->estimator, hd->s.omega, hd->s.mu, t->ft, hd->s.lm, hd->s.prop, hd->s.bh, &t->w);
  lara_augment(m, d, hd->factor, hd->s.omega, t->queries);
  summarise_all(hd, pb->dv, t->queries, hd->in.k, hd->in.v, hd->factor, hd->s.g, hd->s.lse_k, t);
  if (hd->par->estimator == LARA_OPT) {
    for (int64_t x = 0; x < m * d; x++) t->queries[x] = hd->s.qbar[x] * hd->factor;
    summarise_all(hd, d, t->queries, hd->in.q, hd->in.q, 0.0f, hd->s.tq, hd->s.lse_t, t);
  }
  const lara_head h = meet(hd, t);
  const int64_t ld = lara_ld(hd->mk, m);
  for (int64_t i = 0; i < pb->nq; i += LARA_QUERIES) {
    const int64_t rows = pb->nq - i < LARA_QUERIES ? pb->nq - i : LARA_QUERIES;
    lara_weights(hd->mk, &h, rows, hd->in.q.p + i * hd->in.q.ld, hd->in.q.ld, hd->in.keep ? hd->in.keep + i : NULL, NULL, &t->w);
    hd->mk->drop_block(rows, m, t->w.p, ld, &hd->in.drop, i, 0);
    hd->mk->gemm(rows, pb->dv, m, t->w.p, ld, 1, hd->s.g, pb->dv, hd->mk->panel, o + i * out.sn, out.sn, 0);
  }
}

static attn_status train_forward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                 const uint8_t *kmask, float drop, uint64_t key, attn_viewm out, void *saved,
                                 void *scratch) {
#pragma omp parallel num_threads(pb->threads)
  {
    thread_work t = work_of(pb, params, scratch);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < pb->b * pb->h; i++) {
      const head hd = head_of(pb, params, i, q, k, v, kmask, drop, key, saved, &t);
      forward_head(&hd, out, &t);
    }
  }
  return ATTN_OK;
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

static const float one = 1.0f;

/* out [cols] += sum over rows of x (stride ld) */
static void add_rows(const attn_micro *mk, int64_t rows, int64_t cols, const float *x, ptrdiff_t ld, float *out) {
  mk->gemm(1, cols, rows, &one, 0, 0, x, ld, mk->panel, out, cols, 1);
}
static void scale_all(int64_t n, float factor, float *x) {
  for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

/* mis_opt: from e in t->dp and t, alpha in t->w, the gradients of bh, and t dt into t->dp. */
static void backward_alpha(const head *hd, int64_t rows, const uint8_t *keep, thread_work *t) {
  const attn_micro *mk = hd->mk;
  const int64_t m = hd->m, ld = lara_ld(mk, m);
  const float share = (float)hd->par->share;
  for (int64_t i = 0; i < rows; i++) {
    float *e = t->dp + i * ld, *alpha = t->w.alpha + i * ld;
    const float *shares = t->w.t + i * ld;
    for (int64_t c = 0; c < m; c++) alpha[c] = alpha[c] > LARA_LEAST ? e[c] / alpha[c] : 0.0f;
    const float mean = mk->dot(m, alpha, t->w.ones) / (float)m, own = keep && !keep[i] ? 0.0f : share;
    for (int64_t c = 0; c < m; c++) e[c] = own * shares[c] * (alpha[c] - mean);
  }
  add_rows(mk, rows, m, t->w.alpha, ld, t->dbh);
}

/* Rows: dq (unscaled), dg, and what landmarks get from them, unscaled. */
static void backward_rows(const head *hd, const lara_head *h, attn_view out, attn_view dout, attn_viewm dq, thread_work *t) {
  const attn_problem *pb = hd->pb;
  const attn_micro *mk = hd->mk;
  const int64_t m = hd->m, d = pb->d, dv = pb->dv, w = mk->panel, ld = lara_ld(mk, m);
  attn_pack_transposed(mk, m, dv, hd->s.g, dv, NULL, 1.0f, t->gt);
  for (int64_t i = 0; i < pb->nq; i += LARA_QUERIES) {
    const int64_t rows = pb->nq - i < LARA_QUERIES ? pb->nq - i : LARA_QUERIES;
    const float *q = hd->in.q.p + i * hd->in.q.ld, *g = dout.p + hd->in.ib * dout.sb + hd->in.ih * dout.sh + i * dout.sn;
    const float *o = out.p + hd->in.ib * out.sb + hd->in.ih * out.sh + i * out.sn;
    const uint8_t *keep = hd->in.keep ? hd->in.keep + i : NULL;
    float *to = dq.p + hd->in.ib * dq.sb + hd->in.ih * dq.sh + i * dq.sn;
    lara_weights(mk, h, rows, q, hd->in.q.ld, keep, NULL, &t->w);
    mk->gemm(rows, m, dv, g, dout.sn, 1, t->gt, w, w * dv, t->dp, ld, 0);
    for (int64_t r = 0; r < rows; r++) t->delta[r] = mk->dot(dv, o + r * out.sn, g + r * dout.sn);
    mk->softmax_grad(rows, m, t->w.p, t->dp, ld, t->delta, &hd->in.drop, i, 0);
    mk->gemm(m, dv, rows, t->w.p, 1, ld, g, dout.sn, w, t->dg, dv, 1);
    add_rows(mk, rows, m, t->dp, ld, t->dconstant);
    mk->gemm(m, d, rows, t->dp, 1, ld, q, hd->in.q.ld, w, t->df, d, 1);
    mk->gemm(rows, d, m, t->dp, ld, 1, t->f, d, w, to, dq.sn, 0);
    if (hd->par->estimator != LARA_OPT) continue;
    backward_alpha(hd, rows, keep, t);
    add_rows(mk, rows, m, t->dp, ld, t->dshare);
    mk->gemm(m, d, rows, t->dp, 1, ld, q, hd->in.q.ld, w, t->dqbar, d, 1);
    mk->gemm(rows, d, m, t->dp, ld, 1, hd->s.qbar, d, w, to, dq.sn, 1);
  }
}

/* mis_opt: the share of every query in the sums over queries. t->f becomes -dshare qbar. */
static void backward_shares(const head *hd, const lara_head *h, attn_viewm dq, thread_work *t) {
  const attn_micro *mk = hd->mk;
  const int64_t m = hd->m, d = hd->pb->d;
  for (int64_t c = 0; c < m; c++)
    for (int64_t x = c * d; x < (c + 1) * d; x++) {
      t->f[x] = -t->dshare[c] * hd->s.qbar[x];
      t->dqbar[x] -= t->dshare[c] * hd->s.tq[x];
    }
  for (int64_t i = 0; i < hd->pb->nq; i += LARA_QUERIES) {
    const int64_t rows = hd->pb->nq - i < LARA_QUERIES ? hd->pb->nq - i : LARA_QUERIES;
    lara_shares(mk, h, rows, hd->in.q.p + i * hd->in.q.ld, hd->in.q.ld, hd->in.keep ? hd->in.keep + i : NULL, &t->w);
    mk->gemm(rows, d, m, t->w.t, lara_ld(mk, m), 1, t->f, d, mk->panel, dq.p + hd->in.ib * dq.sb + hd->in.ih * dq.sh + i * dq.sn, dq.sn, 1);
  }
}

/* Proposals: dmu, domega (all unscaled) from df, dbh and dconstant, which is minus the gradient of prop. */
static void backward_proposals(const head *hd, thread_work *t) {
  const attn_micro *mk = hd->mk;
  const int64_t m = hd->m, d = hd->pb->d;
  memset(t->dlm, 0, (size_t)(m * m) * sizeof(float));
  for (int64_t c = 0; c < m; c++) {
    const float *lm = hd->s.lm + c * m;
    float *dlm = t->dlm + c * m, spread = -t->dconstant[c];
    if (hd->par->estimator == LARA_OPT) {
      dlm[c] = t->dbh[c] * hd->s.bh[c] - t->dconstant[c];
      spread = -t->dbh[c] * hd->s.bh[c];
    }
    for (int64_t other = 0; other < m; other++) dlm[other] += spread * lm[other];
  }
  memcpy(t->domega, t->df, (size_t)(m * d) * sizeof(float));
  mk->gemm(m, d, m, t->dlm, m, 1, hd->s.mu, d, mk->panel, t->domega, d, 1);
  mk->gemm(m, d, m, t->dlm, 1, m, hd->s.omega, d, mk->panel, t->dmu, d, 0);
  memset(t->delta, 0, (size_t)m * sizeof(float));
  add_rows(mk, m, m, t->dlm, m, t->delta);
  for (int64_t c = 0; c < m; c++) {
    mk->axpy(d, -t->delta[c], hd->s.mu + c * d, t->dmu + c * d);
    if (hd->par->estimator == LARA_BIASED) mk->axpy(d, 1.0f, t->df + c * d, t->dmu + c * d);
  }
}

static float *grad_row(const head *hd, attn_viewm x, int64_t j) {
  return x.p + hd->in.ib * x.sb + hd->in.ih * x.sh + (hd->in.k.idx ? hd->in.k.idx[j] : j) * x.sn;
}

/* Keys and values, written; domega added to, unscaled. */
static void backward_keys(const head *hd, attn_viewm dk, attn_viewm dv, thread_work *t) {
  const attn_problem *pb = hd->pb;
  const attn_micro *mk = hd->mk;
  const int64_t m = hd->m, d = pb->d, w = mk->panel;
  const attn_drop none = attn_drop_make(0.0f, 0);
  segment_work *sw = &t->w.segment;
  lara_augment(m, d, hd->factor, hd->s.omega, t->queries);
  for (int64_t c = 0; c < m; c++) t->delta[c] = mk->dot(pb->dv, t->dg + c * pb->dv, hd->s.g + c * pb->dv) - t->dconstant[c];
  for (int64_t j = 0; j < hd->in.kept; j += GRAD_KEYS) {
    const int64_t end = hd->in.kept - j < GRAD_KEYS ? hd->in.kept : j + GRAD_KEYS, cols = end - j;
    ptrdiff_t brs, bps;
    segment_pack_transposed(mk, hd->in.k, d, hd->factor, j, end, sw->rows, sw->kt);
    mk->gemm(m, cols, d + 1, t->queries, d + 1, 1, sw->kt, w, w * (d + 1), t->p, GRAD_LD, 0);
    mk->exp2_block(m, cols, t->p, GRAD_LD, NULL, hd->s.lse_k);
    segment_pack_transposed(mk, hd->in.v, pb->dv, 0.0f, j, end, NULL, sw->v);
    mk->gemm(m, cols, pb->dv, t->dg, pb->dv, 1, sw->v, w, w * pb->dv, t->dk, GRAD_LD, 0);
    mk->gemm(cols, pb->dv, m, t->p, 1, GRAD_LD, t->dg, pb->dv, w, t->rows, pb->dv, 0);
    for (int64_t r = 0; r < cols; r++) memcpy(grad_row(hd, dv, j + r), t->rows + r * pb->dv, (size_t)pb->dv * sizeof(float));
    mk->softmax_grad(m, cols, t->p, t->dk, GRAD_LD, t->delta, &none, 0, 0);
    memset(t->column, 0, (size_t)cols * sizeof(float));
    add_rows(mk, m, cols, t->dk, GRAD_LD, t->column);
    mk->gemm(cols, d, m, t->dk, 1, GRAD_LD, hd->s.omega, d, w, t->rows, d, 0);
    for (int64_t r = 0; r < cols; r++) {
      const float *key = segment_row(&hd->in.k, j + r);
      float *to = grad_row(hd, dk, j + r);
      for (int64_t x = 0; x < d; x++) to[x] = pb->scale * (t->rows[r * d + x] - t->column[r] * key[x]);
    }
    const float *keys = segment_pack_rows(mk, hd->in.k, d, j, end, sw->v, &brs, &bps);
    mk->gemm(m, d, cols, t->dk, GRAD_LD, 1, keys, brs, bps, t->domega, d, 1);
  }
}

static void backward_head(const head *hd, attn_view out, attn_view dout, attn_viewm dq, attn_viewm dk, attn_viewm dv,
                          thread_work *t) {
  const attn_problem *pb = hd->pb;
  const int64_t m = hd->m, d = pb->d;
  float *dq0 = dq.p + hd->in.ib * dq.sb + hd->in.ih * dq.sh, *dk0 = dk.p + hd->in.ib * dk.sb + hd->in.ih * dk.sh;
  segment_head_zero_masked(&hd->in, pb->nk, dk, d);
  segment_head_zero_masked(&hd->in, pb->nk, dv, pb->dv);
  for (int64_t i = 0; i < pb->nq && !m; i++) memset(dq0 + i * dq.sn, 0, (size_t)d * sizeof(float));
  if (!m) return;
  const lara_head h = meet(hd, t);
  memset(t->dg, 0, (size_t)(m * pb->dv) * sizeof(float));
  memset(t->df, 0, (size_t)(m * d) * sizeof(float));
  memset(t->dqbar, 0, (size_t)(m * d) * sizeof(float));
  float *const sums[] = {t->dbh, t->dconstant, t->dshare};
  for (int i = 0; i < 3; i++) memset(sums[i], 0, (size_t)m * sizeof(float));
  backward_rows(hd, &h, out, dout, dq, t);
  if (hd->par->estimator == LARA_OPT) backward_shares(hd, &h, dq, t);
  for (int64_t i = 0; i < pb->nq; i++) scale_all(d, pb->scale, dq0 + i * dq.sn);
  backward_proposals(hd, t);
  backward_keys(hd, dk, dv, t);
  for (int64_t x = 0; x < m * d; x++) { /* omega = mu + noise, mu = qbar + kbar */
    t->dmu[x] = pb->scale * (t->dmu[x] + t->domega[x]);
    t->dqbar[x] = pb->scale * t->dqbar[x] + t->dmu[x];
  }
  segment_means_grad(hd->mk, t->dqbar, d, hd->in.kept, m, hd->in.q.idx, dq0, dq.sn);
  segment_means_grad(hd->mk, t->dmu, d, hd->in.kept, m, hd->in.k.idx, dk0, dk.sn);
}

static attn_status train_backward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                  const uint8_t *kmask, float drop, uint64_t key, attn_view out, attn_view dout, attn_viewm dq,
                                  attn_viewm dk, attn_viewm dv, float *dweights, void *saved, void *scratch) {
  (void)dweights;
#pragma omp parallel num_threads(pb->threads)
  {
    thread_work t = work_of(pb, params, scratch);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < pb->b * pb->h; i++) {
      const head hd = head_of(pb, params, i, q, k, v, kmask, drop, key, saved, &t);
      backward_head(&hd, out, dout, dq, dk, dv, &t);
    }
  }
  return ATTN_OK;
}

const attn_training attn_training_lara = {.sizes = train_sizes, .forward = train_forward, .backward = train_backward};
