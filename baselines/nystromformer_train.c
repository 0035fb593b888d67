/* nystromformer_train.c - Nystromformer for training: forward that keeps the small matrices, and their exact gradients.
 *
 * Idea    Names as in nystromformer.c: F [n, m], A [m, m], B [m, n], Z ~ A^+, W = B V, U = Z W, out = F U + convolution.
 *         Forward saves log-sum-exps of the rows of F and B, A, every iterate of Z, W and U. Backward goes through F by
 *         blocks of rows, through the iteration step by step (not through the formula of a pseudo-inverse, which Z is not
 *         yet), kappa included, and through B by blocks of keys.
 *         The steps keep all gradients transposed, so that each is a plain product: with N = -A Z, P = 15 I + 7 N + N N,
 *         R = 13 I + N P, Z' = Z R / 4
 *             dR' = dZ'' Z / 4,  dP' = dR' N,  dN' = P dR' + 7 dP' + N dP' + dP' N,  dZ' = R dZ'' / 4 - dN' A,  dA' -= Z dN'
 *         where ' after d is the transpose and dZ'' the transposed gradient of the next iterate.
 * Dropout A weight F Z B of query and key exists as a product only, and a factor cannot lose entries: Z cancels large numbers
 *         against each other. So keys are dropped, each for all queries of a head: key j of the kept ones is worth
 *         attn_drop_at(row 0, column j) of the mask keyed (key, batch, head). The convolution is not dropped. (The authors'
 *         code has no dropout here.)
 * Threads One task per (batch, head). Gradients of the taps are kept per task and added in order. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "baselines/nystromformer.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"

enum { GRAD_KEYS = 128, GRAD_LD = GRAD_KEYS + 16 };

typedef struct saved_head {
  float *lse_f, *qbar, *kbar, *lse_b, *w, *a, *z, *u, *kappa;
  int64_t *column; /* of A that kappa is the sum of */
} saved_head;

typedef struct shared_head { /* gradients on their way from the first loop of backward to the second */
  float *da, *dw, *dkbar, *dtaps, *dkappa;
} shared_head;

typedef struct thread_work {
  nystrom_work w;
  int32_t *idx;
  float *v, *kt, *ut, *qs, *parts, *taps;               /* values times dropout [kept, dv]; panels of Kbar, of U; scaled Qbar; stretches */
  float *du, *dqbar, *p, *dp, *square, *rows, *delta;   /* square: 7 of [m, m] */
} thread_work;

static void saved_place(saved_head *s, attn_layout *at, const attn_problem *pb, const nystrom_params *p) {
  const int64_t m = nystrom_most(p, pb->nk);
  s->lse_f = attn_place_floats(at, pb->nq, 1);
  s->qbar = attn_place_floats(at, m, pb->d);
  s->kbar = attn_place_floats(at, m, pb->d);
  s->lse_b = attn_place_floats(at, m, 1);
  s->w = attn_place_floats(at, m, pb->dv);
  s->a = attn_place_floats(at, m, m);
  s->z = attn_place_floats(at, (p->iterations + 1) * m, m);
  s->u = attn_place_floats(at, m, pb->dv);
  s->kappa = attn_place_floats(at, 1, 1);
  s->column = attn_place(at, sizeof(int64_t));
}

static void shared_place(shared_head *s, attn_layout *at, const attn_problem *pb, const nystrom_params *p) {
  const int64_t m = nystrom_most(p, pb->nk);
  s->da = attn_place_floats(at, m, m);
  s->dw = attn_place_floats(at, m, pb->dv);
  s->dkbar = attn_place_floats(at, m, pb->d);
  s->dtaps = attn_place_floats(at, p->conv, 1);
  s->dkappa = attn_place_floats(at, 1, 1);
}

static void work_place(thread_work *t, attn_layout *at, const attn_problem *pb, const nystrom_params *p) {
  const attn_micro *mk = attn_micro_get();
  const int64_t m = nystrom_most(p, pb->nk), width = pb->d > pb->dv ? pb->d : pb->dv, ld = attn_padded(mk, m) + 16;
  const int64_t rows = NYSTROM_QUERIES * ld, keys = m * GRAD_LD, tile = rows > keys ? rows : keys;
  const int64_t chunks = segment_chunks(pb->nk);
  nystrom_work_place(&t->w, at, pb, p);
  t->idx = attn_place_floats(at, pb->nk, 1);
  t->v = attn_place_floats(at, pb->nk, pb->dv);
  t->kt = attn_place_floats(at, attn_padded(mk, m), pb->d);
  t->ut = attn_place_floats(at, attn_padded(mk, m), pb->dv);
  t->qs = attn_place_floats(at, m, pb->d);
  t->parts = attn_place_floats(at, chunks, segment_part_floats(m, pb->dv));
  t->taps = attn_place_floats(at, p->conv + 2 * NYSTROM_CONV_ROWS, 1);
  t->du = attn_place_floats(at, m, pb->dv);
  t->dqbar = attn_place_floats(at, m, pb->d);
  t->p = attn_place_floats(at, tile, 1);
  t->dp = attn_place_floats(at, tile, 1);
  t->square = attn_place_floats(at, 7 * m, m);
  t->rows = attn_place_floats(at, GRAD_KEYS, width);
  t->delta = attn_place_floats(at, m > NYSTROM_QUERIES ? m : NYSTROM_QUERIES, 1);
}

static size_t saved_bytes(const attn_problem *pb, const nystrom_params *p) {
  attn_layout at = {0};
  saved_head s;
  saved_place(&s, &at, pb, p);
  return at.used;
}
static size_t shared_bytes(const attn_problem *pb, const nystrom_params *p) {
  attn_layout at = {0};
  shared_head s;
  shared_place(&s, &at, pb, p);
  return at.used;
}
static size_t work_bytes(const attn_problem *pb, const nystrom_params *p) {
  attn_layout at = {0};
  thread_work t;
  work_place(&t, &at, pb, p);
  return at.used;
}

static attn_status train_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  const size_t heads = attn_mul((size_t)pb->b, (size_t)pb->h);
  need->plan = attn_mul(heads, saved_bytes(pb, params));
  need->scratch = attn_add(attn_mul(heads, shared_bytes(pb, params)), attn_mul((size_t)pb->threads, work_bytes(pb, params)));
  return ATTN_OK;
}

static saved_head saved_of(const attn_problem *pb, const nystrom_params *p, void *saved, int64_t i) {
  attn_layout at = {.p = (char *)saved + (size_t)i * saved_bytes(pb, p)};
  saved_head s;
  saved_place(&s, &at, pb, p);
  return s;
}
static shared_head shared_of(const attn_problem *pb, const nystrom_params *p, void *scratch, int64_t i) {
  attn_layout at = {.p = (char *)scratch + (size_t)i * shared_bytes(pb, p)};
  shared_head s;
  shared_place(&s, &at, pb, p);
  return s;
}
static thread_work work_of(const attn_problem *pb, const nystrom_params *p, void *scratch) {
  attn_layout at = {.p = (char *)scratch + (size_t)(pb->b * pb->h) * shared_bytes(pb, p) +
                         (size_t)omp_get_thread_num() * work_bytes(pb, p)};
  thread_work t;
  work_place(&t, &at, pb, p);
  return t;
}

/* One head of one call. */
typedef struct head {
  const attn_problem *pb;
  const nystrom_params *par;
  const attn_micro *mk;
  int64_t m;
  int exact;
  segment_head in;
  saved_head s;
} head;

static head head_of(const attn_problem *pb, const nystrom_params *p, int64_t i, attn_view q, attn_view k, attn_view v,
                    const uint8_t *kmask, float drop, uint64_t key, void *saved, thread_work *t) {
  head hd = {.pb = pb, .par = p, .mk = attn_micro_get(), .in = segment_head_of(pb, i, q, k, v, kmask, drop, key, t->idx)};
  hd.m = nystrom_landmarks(p, hd.in.kept, &hd.exact);
  hd.s = saved_of(pb, p, saved, i);
  return hd;
}

/* The values with dropout, and what every later step reads again: panels of Kbar and scaled Qbar. */
static void drop_values(const head *hd, thread_work *t) {
  for (int64_t j = 0; j < hd->in.kept; j++) {
    const float z = attn_drop_at(&hd->in.drop, 0, j), *v = segment_row(&hd->in.v, j);
    for (int64_t c = 0; c < hd->pb->dv; c++) t->v[j * hd->pb->dv + c] = z * v[c];
  }
}
static void landmark_panels(const head *hd, thread_work *t) {
  const float factor = (float)(hd->pb->scale * LOG2E);
  attn_pack_transposed(hd->mk, hd->m, hd->pb->d, hd->s.kbar, hd->pb->d, NULL, factor, t->kt);
  for (int64_t x = 0; x < hd->m * hd->pb->d && !hd->exact; x++) t->qs[x] = hd->s.qbar[x] * factor;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

static void forward_landmarks(const head *hd, thread_work *t) {
  const int64_t d = hd->pb->d;
  *hd->s.kappa = 0.0f, *hd->s.column = 0;
  segment_means(hd->mk, hd->in.k, d, hd->in.kept, hd->m, 0, hd->m, hd->s.kbar);
  if (hd->exact || !hd->m) return;
  segment_means(hd->mk, hd->in.q, d, hd->in.kept, hd->m, 0, hd->m, hd->s.qbar);
  landmark_panels(hd, t);
  *hd->s.kappa = nystrom_scores(hd->mk, hd->m, d, hd->s.qbar, t->kt, hd->s.a, &t->w, hd->s.column);
}

static void forward_head(const head *hd, float kappa, attn_viewm out, thread_work *t) {
  const attn_problem *pb = hd->pb;
  const attn_micro *mk = hd->mk;
  const int64_t m = hd->m, dv = pb->dv, size = m * m, part = segment_part_floats(m, dv);
  const segment_rows values = {t->v, dv, NULL};
  float *o = out.p + hd->in.ib * out.sb + hd->in.ih * out.sh;
  drop_values(hd, t);
  landmark_panels(hd, t);
  if (hd->exact) memcpy(hd->s.u, t->v, (size_t)(m * dv) * sizeof(float));
  else if (m) {
    int64_t chunks = 0;
    nystrom_pinv(mk, m, hd->par->iterations, hd->s.a, kappa, hd->s.z, size, &t->w);
    for (int64_t j = 0; j < hd->in.kept; j += SEGMENT_CHUNK, chunks++) {
      segment_summarise(mk, m, pb->d, dv, t->qs, hd->in.k, values, 0.0f, j, hd->in.kept - j < SEGMENT_CHUNK ? hd->in.kept : j + SEGMENT_CHUNK,
                        t->parts + chunks * part, &t->w.segment);
    }
    segment_merge(m, dv, chunks, t->parts, hd->s.w, hd->s.lse_b);
    mk->gemm(m, dv, m, hd->s.z + hd->par->iterations * size, m, 1, hd->s.w, dv, mk->panel, hd->s.u, dv, 0);
  }
  if (hd->par->conv) nystrom_taps(pb->weights + hd->in.ih * hd->par->conv, hd->par->conv, 0, t->taps);
  for (int64_t i = 0; i < pb->nq; i += NYSTROM_QUERIES) {
    const int64_t end = pb->nq - i < NYSTROM_QUERIES ? pb->nq : i + NYSTROM_QUERIES;
    for (int64_t r = i; r < end && !m; r++) memset(o + r * out.sn, 0, (size_t)dv * sizeof(float));
    if (m)
      nystrom_answer(mk, m, pb->d, dv, end - i, hd->in.q.p + i * hd->in.q.ld, hd->in.q.ld, t->kt, hd->s.u, o + i * out.sn, out.sn,
                     hd->s.lse_f + i, &t->w);
    if (hd->par->conv)
      nystrom_conv(mk, t->taps, hd->par->conv, pb->nk, dv, hd->in.v.p, hd->in.v.ld, hd->in.keep, i, end, o, out.sn, &t->w);
  }
}

/* The heads' largest kappa is everybody's with kappa = global; *owner: whose. */
static float global_kappa(const attn_problem *pb, const nystrom_params *p, void *saved, int64_t *owner) {
  float most = 0.0f;
  *owner = 0;
  for (int64_t i = 0; i < pb->b * pb->h; i++) {
    const float kappa = *saved_of(pb, p, saved, i).kappa;
    if (kappa > most) most = kappa, *owner = i;
  }
  return most;
}

static attn_status train_forward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                 const uint8_t *kmask, float drop, uint64_t key, attn_viewm out, void *saved,
                                 void *scratch) {
  const nystrom_params *p = params;
  const int64_t heads = pb->b * pb->h;
  float most = 0.0f;
#pragma omp parallel num_threads(pb->threads)
  {
    thread_work t = work_of(pb, p, scratch);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < heads; i++) {
      const head hd = head_of(pb, p, i, q, k, v, kmask, drop, key, saved, &t);
      forward_landmarks(&hd, &t);
    }
#pragma omp single
    {
      int64_t owner;
      most = global_kappa(pb, p, saved, &owner);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < heads; i++) {
      const head hd = head_of(pb, p, i, q, k, v, kmask, drop, key, saved, &t);
      forward_head(&hd, p->kappa == NYSTROM_KAPPA_GLOBAL ? most : *hd.s.kappa, out, &t);
    }
  }
  return ATTN_OK;
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

static void scale_all(int64_t n, float factor, float *x) {
  for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

/* out = F U: dq (overwritten), dU, and Kbar's share of the keys, not yet scaled. */
static void backward_answers(const head *hd, attn_view dout, attn_viewm dq, float *dkbar, thread_work *t) {
  const attn_problem *pb = hd->pb;
  const attn_micro *mk = hd->mk;
  const int64_t m = hd->m, d = pb->d, dv = pb->dv, w = mk->panel, ld = attn_padded(mk, m) + 16;
  const attn_drop none = attn_drop_make(0.0f, 0);
  attn_pack_transposed(mk, m, dv, hd->s.u, dv, NULL, 1.0f, t->ut);
  for (int64_t i = 0; i < pb->nq; i += NYSTROM_QUERIES) {
    const int64_t rows = pb->nq - i < NYSTROM_QUERIES ? pb->nq - i : NYSTROM_QUERIES;
    const float *q = hd->in.q.p + i * hd->in.q.ld, *g = dout.p + hd->in.ib * dout.sb + hd->in.ih * dout.sh + i * dout.sn;
    float *to = dq.p + hd->in.ib * dq.sb + hd->in.ih * dq.sh + i * dq.sn;
    mk->gemm(rows, m, d, q, hd->in.q.ld, 1, t->kt, w, w * d, t->p, ld, 0);
    mk->exp2_block(rows, m, t->p, ld, NULL, hd->s.lse_f + i);
    mk->gemm(rows, m, dv, g, dout.sn, 1, t->ut, w, w * dv, t->dp, ld, 0);
    for (int64_t r = 0; r < rows; r++) t->delta[r] = mk->dot(m, t->p + r * ld, t->dp + r * ld);
    mk->gemm(m, dv, rows, t->p, 1, ld, g, dout.sn, w, t->du, dv, 1);
    mk->softmax_grad(rows, m, t->p, t->dp, ld, t->delta, &none, 0, 0);
    mk->gemm(rows, d, m, t->dp, ld, 1, hd->s.kbar, d, w, to, dq.sn, 0);
    mk->gemm(m, d, rows, t->dp, 1, ld, q, hd->in.q.ld, w, dkbar, d, 1);
    for (int64_t r = 0; r < rows; r++) scale_all(d, pb->scale, to + r * dq.sn);
  }
}

static void product(const head *hd, const float *x, const float *y, float *c, int add) {
  hd->mk->gemm(hd->m, hd->m, hd->m, x, hd->m, 1, y, hd->m, hd->mk->panel, c, hd->m, add);
}

/* U = Z W and the iteration: dW, dA but for the share that comes through kappa, and the gradient of kappa. */
static void backward_pinv(const head *hd, float kappa, const shared_head *sh, thread_work *t) {
  const attn_micro *mk = hd->mk;
  const int64_t m = hd->m, dv = hd->pb->dv, size = m * m;
  float *n = t->square, *p = n + size, *r = p + size, *dz = r + size, *dr = dz + size, *dn = dr + size, *dp = dn + size;
  memset(sh->da, 0, (size_t)size * sizeof(float)); /* transposed for now, as dz, dr, dn, dp are throughout */
  attn_pack_transposed(mk, m, dv, t->du, dv, NULL, 1.0f, t->ut);
  mk->gemm(m, m, dv, hd->s.w, dv, 1, t->ut, mk->panel, mk->panel * dv, dz, m, 0);
  mk->gemm(m, dv, m, hd->s.z + hd->par->iterations * size, 1, m, t->du, dv, mk->panel, sh->dw, dv, 0);
  for (int64_t step = hd->par->iterations - 1; step >= 0; step--) {
    const float *z = hd->s.z + step * size;
    nystrom_factors(mk, m, hd->s.a, z, n, p, r);
    product(hd, dz, z, dr, 0);
    scale_all(size, 0.25f, dr);
    product(hd, dr, n, dp, 0);
    for (int64_t x = 0; x < size; x++) dn[x] = 7.0f * dp[x];
    product(hd, p, dr, dn, 1);
    product(hd, n, dp, dn, 1);
    product(hd, dp, n, dn, 1);
    scale_all(size, -1.0f, dn);
    product(hd, z, dn, sh->da, 1);
    product(hd, r, dz, dp, 0);
    for (int64_t x = 0; x < size; x++) dz[x] = 0.25f * dp[x];
    product(hd, dn, hd->s.a, dz, 1);
  }
  double through = 0.0; /* z0 = a^T / kappa */
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < m; j++) n[i * m + j] = sh->da[j * m + i] + dz[i * m + j] / kappa;
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < m; j++) through += (double)hd->s.z[i * m + j] * (double)dz[j * m + i];
  memcpy(sh->da, n, (size_t)size * sizeof(float));
  *sh->dkappa = (float)(-through / (double)kappa);
}

/* Row j of the kept ones of a gradient. */
static float *grad_row(const head *hd, attn_viewm x, int64_t j) {
  return x.p + hd->in.ib * x.sb + hd->in.ih * x.sh + (hd->in.k.idx ? hd->in.k.idx[j] : j) * x.sn;
}
static void scatter_values(const head *hd, int64_t j0, int64_t n, const float *from, attn_viewm dv) {
  for (int64_t j = j0; j < j0 + n; j++) {
    const float z = attn_drop_at(&hd->in.drop, 0, j), *row = from + (j - j0) * hd->pb->dv;
    float *to = grad_row(hd, dv, j);
    for (int64_t c = 0; c < hd->pb->dv; c++) to[c] = z * row[c];
  }
}
static void scatter_keys(const head *hd, int64_t j0, int64_t n, const float *from, attn_viewm dk) {
  for (int64_t j = j0; j < j0 + n; j++) {
    float *to = grad_row(hd, dk, j);
    for (int64_t c = 0; c < hd->pb->d; c++) to[c] = hd->pb->scale * from[(j - j0) * hd->pb->d + c];
  }
}

/* A = softmax(Qbar Kbar^T): adds to the gradients of both, not yet scaled. da is consumed. */
static void backward_scores(const head *hd, const shared_head *sh, thread_work *t) {
  const attn_micro *mk = hd->mk;
  const int64_t m = hd->m, d = hd->pb->d, w = mk->panel;
  for (int64_t i = 0; i < m; i++) {
    const float delta = mk->dot(m, hd->s.a + i * m, sh->da + i * m);
    for (int64_t j = 0; j < m; j++) sh->da[i * m + j] = hd->s.a[i * m + j] * (sh->da[i * m + j] - delta);
  }
  mk->gemm(m, d, m, sh->da, m, 1, hd->s.kbar, d, w, t->dqbar, d, 0);
  mk->gemm(m, d, m, sh->da, 1, m, hd->s.qbar, d, w, sh->dkbar, d, 1);
}

/* W = B V: gradients of the values and keys, written; Qbar's added to. */
static void backward_summaries(const head *hd, const shared_head *sh, attn_viewm dk, attn_viewm dv, thread_work *t) {
  const attn_problem *pb = hd->pb;
  const attn_micro *mk = hd->mk;
  const int64_t m = hd->m, d = pb->d, w = mk->panel;
  const attn_drop none = attn_drop_make(0.0f, 0);
  const segment_rows values = {t->v, pb->dv, NULL};
  for (int64_t i = 0; i < m; i++) t->delta[i] = mk->dot(pb->dv, sh->dw + i * pb->dv, hd->s.w + i * pb->dv);
  for (int64_t j = 0; j < hd->in.kept; j += GRAD_KEYS) {
    const int64_t cols = hd->in.kept - j < GRAD_KEYS ? hd->in.kept - j : GRAD_KEYS;
    ptrdiff_t brs, bps;
    segment_pack_transposed(mk, hd->in.k, d, 0.0f, j, j + cols, NULL, t->w.segment.kt);
    mk->gemm(m, cols, d, t->qs, d, 1, t->w.segment.kt, w, w * d, t->p, GRAD_LD, 0);
    mk->exp2_block(m, cols, t->p, GRAD_LD, NULL, hd->s.lse_b);
    segment_pack_transposed(mk, values, pb->dv, 0.0f, j, j + cols, NULL, t->w.segment.v);
    mk->gemm(m, cols, pb->dv, sh->dw, pb->dv, 1, t->w.segment.v, w, w * pb->dv, t->dp, GRAD_LD, 0);
    mk->gemm(cols, pb->dv, m, t->p, 1, GRAD_LD, sh->dw, pb->dv, w, t->rows, pb->dv, 0);
    scatter_values(hd, j, cols, t->rows, dv);
    mk->softmax_grad(m, cols, t->p, t->dp, GRAD_LD, t->delta, &none, 0, 0);
    mk->gemm(cols, d, m, t->dp, 1, GRAD_LD, hd->s.qbar, d, w, t->rows, d, 0);
    scatter_keys(hd, j, cols, t->rows, dk);
    const float *keys = segment_pack_rows(mk, hd->in.k, d, j, j + cols, t->w.segment.v, &brs, &bps);
    mk->gemm(m, d, cols, t->dp, GRAD_LD, 1, keys, brs, bps, t->dqbar, d, 1);
  }
}

/* The convolution: values get the outputs' gradient convolved with the reversed taps, each tap the sum of products. */
static void backward_conv(const head *hd, attn_view dout, attn_viewm dv, float *dtaps, thread_work *t) {
  const attn_problem *pb = hd->pb;
  const int64_t conv = hd->par->conv, half = conv / 2, n = pb->nk;
  const float *g = dout.p + hd->in.ib * dout.sb + hd->in.ih * dout.sh;
  float *to = dv.p + hd->in.ib * dv.sb + hd->in.ih * dv.sh, *products = t->p;
  nystrom_taps(pb->weights + hd->in.ih * conv, conv, 1, t->taps);
  nystrom_conv(hd->mk, t->taps, conv, n, pb->dv, g, dout.sn, NULL, 0, n, to, dv.sn, &t->w);
  memset(dtaps, 0, (size_t)conv * sizeof(float));
  for (int64_t i = 0; i < n; i += NYSTROM_QUERIES) {
    const int64_t end = n - i < NYSTROM_QUERIES ? n : i + NYSTROM_QUERIES;
    int64_t first;
    ptrdiff_t ld = hd->in.v.ld;
    const float *x = nystrom_window(conv, n, pb->dv, hd->in.v.p, &ld, hd->in.keep, i, end, &first, &t->w);
    for (int64_t r = i; r < end; r++) {
      const int64_t from = r > half ? r - half : 0, to_row = r + half + 1 < n ? r + half + 1 : n;
      hd->mk->dots(to_row - from, pb->dv, g + r * dout.sn, x + (from - first) * ld, ld, products);
      hd->mk->axpy(to_row - from, 1.0f, products, dtaps + (from - r + half));
    }
  }
}

static void backward_first(const head *hd, float kappa, attn_view dout, attn_viewm dq, const shared_head *sh, thread_work *t) {
  *sh->dkappa = 0.0f;
  if (!hd->m) {
    for (int64_t j = 0; j < hd->pb->nq; j++)
      memset(dq.p + hd->in.ib * dq.sb + hd->in.ih * dq.sh + j * dq.sn, 0, (size_t)hd->pb->d * sizeof(float));
    return;
  }
  landmark_panels(hd, t);
  memset(t->du, 0, (size_t)(hd->m * hd->pb->dv) * sizeof(float));
  memset(sh->dkbar, 0, (size_t)(hd->m * hd->pb->d) * sizeof(float));
  backward_answers(hd, dout, dq, sh->dkbar, t);
  if (hd->exact) memcpy(sh->dw, t->du, (size_t)(hd->m * hd->pb->dv) * sizeof(float));
  else backward_pinv(hd, kappa, sh, t);
}

static void backward_second(const head *hd, attn_view dout, attn_viewm dq, attn_viewm dk, attn_viewm dv, const shared_head *sh,
                            thread_work *t) {
  const attn_problem *pb = hd->pb;
  if (hd->exact) {
    scatter_values(hd, 0, hd->m, sh->dw, dv);
    scatter_keys(hd, 0, hd->m, sh->dkbar, dk);
  } else if (hd->m) {
    drop_values(hd, t);
    landmark_panels(hd, t);
    backward_scores(hd, sh, t);
    backward_summaries(hd, sh, dk, dv, t);
    scale_all(hd->m * pb->d, pb->scale, t->dqbar);
    scale_all(hd->m * pb->d, pb->scale, sh->dkbar);
    segment_means_grad(hd->mk, t->dqbar, pb->d, hd->in.kept, hd->m, hd->in.q.idx, dq.p + hd->in.ib * dq.sb + hd->in.ih * dq.sh, dq.sn);
    segment_means_grad(hd->mk, sh->dkbar, pb->d, hd->in.kept, hd->m, hd->in.k.idx, dk.p + hd->in.ib * dk.sb + hd->in.ih * dk.sh, dk.sn);
  }
  segment_head_zero_masked(&hd->in, pb->nk, dk, pb->d);
  segment_head_zero_masked(&hd->in, pb->nk, dv, pb->dv);
  if (!hd->par->conv) return;
  backward_conv(hd, dout, dv, sh->dtaps, t);
  segment_head_zero_masked(&hd->in, pb->nk, dv, pb->dv);
}

static attn_status train_backward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                  const uint8_t *kmask, float drop, uint64_t key, attn_view out, attn_view dout, attn_viewm dq,
                                  attn_viewm dk, attn_viewm dv, float *dweights, void *saved, void *scratch) {
  (void)out;
  const nystrom_params *p = params;
  const int64_t heads = pb->b * pb->h;
  const int global = p->kappa == NYSTROM_KAPPA_GLOBAL;
  int64_t owner;
  const float most = global_kappa(pb, p, saved, &owner);
#pragma omp parallel num_threads(pb->threads)
  {
    thread_work t = work_of(pb, p, scratch);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < heads; i++) {
      const head hd = head_of(pb, p, i, q, k, v, kmask, drop, key, saved, &t);
      const shared_head sh = shared_of(pb, p, scratch, i);
      backward_first(&hd, global ? most : *hd.s.kappa, dout, dq, &sh, &t);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < heads; i++) {
      const head hd = head_of(pb, p, i, q, k, v, kmask, drop, key, saved, &t);
      const shared_head sh = shared_of(pb, p, scratch, i);
      float dkappa = *sh.dkappa;
      if (global) {
        dkappa = 0.0f;
        for (int64_t other = 0; other < heads && i == owner; other++) dkappa += *shared_of(pb, p, scratch, other).dkappa;
      }
      for (int64_t r = 0; r < hd.m && !hd.exact; r++) sh.da[r * hd.m + *hd.s.column] += dkappa;
      backward_second(&hd, dout, dq, dk, dv, &sh, &t);
    }
  }
  for (int64_t i = 0; i < heads && p->conv; i++)
    for (int64_t c = 0; c < p->conv; c++) dweights[i % pb->h * p->conv + c] += shared_of(pb, p, scratch, i).dtaps[c];
  return ATTN_OK;
}

const attn_training attn_training_nystromformer = {.sizes = train_sizes, .forward = train_forward, .backward = train_backward};
