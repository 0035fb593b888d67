/* lara.c - linear randomised attention: a few shared random projections instead of one for every query.
 *
 * Idea    With xi(x, w) = exp(scale (w.x - |x|^2 / 2)), softmax attention is the mean over w, drawn for every query from a
 *         mixture around q + k, of sum_j xi(k_j, w) v_j / sum_j xi(k_j, w). LARA draws one w_c around each of C landmarks
 *         mu_c = qbar_c + kbar_c (means of segments) and weighs what they say by multiple importance sampling:
 *             g_c = sum_j softmax_j(log xi(k_j, w_c)) v_j       LK_c = its log-sum-exp
 *             weight of c for query i ~ alpha_ci xi(q_i, w_c) exp(LK_c) / prop_c, normalised over c
 *         mis_opt: prop_c = xi(mu_c, w_c), alpha_ci = max(1e-8, bh_c + share (t_ci - mean_c t_ci)), bh_c the balance heuristic,
 *         t_ci = softmax over queries (not landmarks: so in the authors' code) of qbar_c.q_i. mis_bh: alpha = 1, prop_c the sum over all
 *         proposals; mis_biased: alpha_ci = exp(scale mu_c.q_i) beside it.
 *         Inference draws nothing: w_c = mu_c. Training adds noise.
 * Source  Zheng et al. 2022 (arXiv:2204.04667) and its code; pooling without parameters, which is all that its
 *         default has in one dimension ("adaptive-1d" would learn a map): nothing is learned.
 * Cost    14 n C d flops (the products with qbar twice, instead of n C floats of memory) and 4 n C exponentials per head; O(n).
 * Differs The noise of training is N(0, I / scale) by default, with which the estimator of the paper tends to softmax; the
 *         authors' code draws N(0, I) (noise=unit). A mask is resolved first: segments are cut over kept tokens, and a masked
 *         query takes no part in t (its own row has alpha = bh).
 * Limits  No causal form. C = n is not exact. xi is not a function of q.k alone, so scaling keys up and queries down changes
 *         results; norms of 10^19 overflow and are refused. */
#include "baselines/lara.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/core/finite.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"

/* --- the pieces of one head --------------------------------------------------------------------------------------- */

double lara_noise_size(const lara_params *p, float scale) {
  return p->noise == LARA_NOISE_NONE ? 0.0 : p->noise == LARA_NOISE_UNIT ? 1.0 : 1.0 / sqrt((double)scale);
}

void lara_noise(const attn_problem *pb, const lara_params *p, int64_t ib, int64_t ih, int64_t m, float *out) {
  const double size = lara_noise_size(p, pb->scale);
  for (int64_t c = 0; c < m; c++) {
    attn_rng r;
    attn_rng_seed(&r, attn_hash(pb->seed, (uint64_t)ib, (uint64_t)ih), (uint64_t)c);
    for (int64_t t = 0; t < pb->d; t++) out[c * pb->d + t] = size > 0.0 ? (float)(size * attn_rng_normal(&r)) : 0.0f;
  }
}

void lara_work_place(lara_work *w, attn_layout *at, const attn_problem *pb, const lara_params *p) {
  const attn_micro *mk = attn_micro_get();
  const int64_t m = lara_most(p, pb->nk), rows = m > LARA_QUERIES ? m : LARA_QUERIES, ld = lara_ld(mk, m);
  segment_work_place(&w->segment, at, pb->d, pb->dv > pb->d ? pb->dv : pb->d, 1);
  w->p = attn_place_floats(at, LARA_QUERIES, ld);
  w->t = attn_place_floats(at, LARA_QUERIES, ld);
  w->alpha = attn_place_floats(at, LARA_QUERIES, ld);
  w->ones = attn_place_floats(at, rows, 1);
  w->zeros = attn_place_floats(at, LARA_QUERIES, 1);
  w->top = attn_place_floats(at, rows, 1);
  w->l = attn_place_floats(at, rows, 16);
  if (!at->p) return;
  for (int64_t i = 0; i < rows; i++) w->ones[i] = 1.0f;
  memset(w->zeros, 0, LARA_QUERIES * sizeof(float));
}

void lara_augment(int64_t m, int64_t d, float factor, const float *x, float *out) {
  for (int64_t c = 0; c < m; c++) {
    for (int64_t t = 0; t < d; t++) out[c * (d + 1) + t] = factor * x[c * d + t];
    out[c * (d + 1) + d] = 1.0f;
  }
}

/* s [rows, m] (stride lds) = x [rows, d] times panels, plus a number for each column. */
static void logits(const attn_micro *mk, int64_t rows, int64_t m, int64_t d, const float *x, ptrdiff_t ld, const float *panels,
                   const float *column, float *s, ptrdiff_t lds) {
  static const float one = 1.0f;
  mk->gemm(rows, m, 1, &one, 0, 0, column, 0, mk->panel, s, lds, 0);
  mk->gemm(rows, m, d, x, ld, 1, panels, mk->panel, mk->panel * d, s, lds, 1);
}

static void softmax_rows(const attn_micro *mk, int64_t rows, int64_t m, float *s, ptrdiff_t lds, lara_work *w) {
  for (int64_t i = 0; i < rows; i++) w->top[i] = -INFINITY;
  memset(w->l, 0, (size_t)(rows * 16) * sizeof(float));
  mk->softmax_block(rows, m, s, lds, NULL, w->top, w->l, NULL, 0, 0);
}

void lara_proposals(const attn_micro *mk, int64_t m, int64_t d, float factor, int estimator, const float *omega,
                    const float *mu, float *mut, float *lm, float *prop, float *bh, lara_work *w) {
  attn_pack_transposed(mk, m, d, mu, d, NULL, factor, mut);
  for (int64_t c = 0; c < m; c++) bh[c] = -0.5f * factor * mk->dot(d, mu + c * d, mu + c * d);
  logits(mk, m, m, d, omega, d, mut, bh, lm, m);
  for (int64_t c = 0; c < m; c++) prop[c] = lm[c * m + c];
  softmax_rows(mk, m, m, lm, m, w);
  for (int64_t c = 0; c < m; c++) {
    const float sum = attn_lane_sum(w->l + c * 16), inverse = 1.0f / sum;
    for (int64_t other = 0; other < m; other++) lm[c * m + other] *= inverse;
    bh[c] = lm[c * m + c];
    if (estimator != LARA_OPT) prop[c] = w->top[c] + log2f(sum);
  }
}

void lara_shares(const attn_micro *mk, const lara_head *h, int64_t rows, const float *q, ptrdiff_t ld, const uint8_t *keep,
                 lara_work *w) {
  const int64_t lds = lara_ld(mk, h->m);
  logits(mk, rows, h->m, h->d, q, ld, h->qt, h->lse_t, w->t, lds);
  mk->exp2_block(rows, h->m, w->t, lds, NULL, w->zeros);
  for (int64_t i = 0; i < rows && keep; i++)
    if (!keep[i]) memset(w->t + i * lds, 0, (size_t)h->m * sizeof(float));
}

void lara_weights(const attn_micro *mk, const lara_head *h, int64_t rows, const float *q, ptrdiff_t ld, const uint8_t *keep,
                  float *lse2, lara_work *w) {
  const int64_t m = h->m, lds = lara_ld(mk, m);
  logits(mk, rows, m, h->d, q, ld, h->ft, h->constant, w->p, lds);
  softmax_rows(mk, rows, m, w->p, lds, w);
  if (h->estimator == LARA_OPT) lara_shares(mk, h, rows, q, ld, keep, w);
  for (int64_t i = 0; i < rows; i++) {
    float *p = w->p + i * lds, sum = attn_lane_sum(w->l + i * 16);
    if (h->estimator == LARA_OPT) {
      const float *t = w->t + i * lds, mean = mk->dot(m, t, w->ones) / (float)m;
      float *alpha = w->alpha + i * lds;
      for (int64_t c = 0; c < m; c++) {
        const float a = h->bh[c] + h->share * (t[c] - mean);
        alpha[c] = a > LARA_LEAST ? a : LARA_LEAST;
        p[c] *= alpha[c];
      }
      sum = mk->dot(m, p, w->ones);
    }
    const float inverse = 1.0f / sum;
    for (int64_t c = 0; c < m; c++) p[c] *= inverse;
    if (lse2) lse2[i] = w->top[i] + log2f(sum);
  }
}

/* --- inference ---------------------------------------------------------------------------------------------------- */

typedef struct lara_plan {
  attn_problem pb;
  lara_params par;
  const attn_micro *mk;
  int built;
  attn_view k, v;
  int64_t most;
  segment_tokens kept;
  float *kbar;    /* [b, h] of [most, d] */
} lara_plan;

static lara_plan *plan_place(attn_layout *at, const attn_problem *pb, const lara_params *p) {
  lara_plan here = {.pb = *pb, .par = *p, .mk = attn_micro_get(), .most = lara_most(p, pb->nk)};
  lara_plan *pl = attn_place(at, sizeof *pl);
  segment_tokens_place(&here.kept, at, pb->b, pb->nk);
  here.kbar = attn_place_floats(at, pb->b * pb->h, here.most * pb->d);
  if (pl) *pl = here;
  return pl;
}

/* What forward keeps of a head. */
typedef struct head_scratch {
  float *qbar, *qs, *mu, *omegas, *lm, *prop, *bh, *ft, *qt, *g, *constant, *lse_t, *keys, *queries;
} head_scratch;
static void head_place(head_scratch *s, attn_layout *at, const attn_problem *pb, const lara_params *p) {
  const attn_micro *mk = attn_micro_get();
  const int64_t m = lara_most(p, pb->nk), d = pb->d, chunks = segment_chunks(pb->nk);
  s->qbar = attn_place_floats(at, m, d);
  s->qs = attn_place_floats(at, m, d);
  s->mu = attn_place_floats(at, m, d);
  s->omegas = attn_place_floats(at, m, d + 1);
  s->lm = attn_place_floats(at, m, m);
  s->prop = attn_place_floats(at, attn_padded(mk, m), 1);
  s->bh = attn_place_floats(at, attn_padded(mk, m), 1);
  s->ft = attn_place_floats(at, attn_padded(mk, m), d);
  s->qt = attn_place_floats(at, attn_padded(mk, m), d);
  s->g = attn_place_floats(at, m, pb->dv);
  s->constant = attn_place_floats(at, attn_padded(mk, m), 1);
  s->lse_t = attn_place_floats(at, attn_padded(mk, m), 1);
  s->keys = attn_place_floats(at, chunks, segment_part_floats(m, pb->dv));
  s->queries = attn_place_floats(at, chunks, segment_part_floats(m, 0));
}
static size_t head_bytes(const attn_problem *pb, const lara_params *p) {
  attn_layout at = {0};
  head_scratch s;
  head_place(&s, &at, pb, p);
  return at.used;
}
static size_t work_bytes(const attn_problem *pb, const lara_params *p) {
  attn_layout at = {0};
  lara_work w;
  lara_work_place(&w, &at, pb, p);
  return at.used;
}

static attn_status lara_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  attn_layout plan = {0};
  (void)plan_place(&plan, pb, params);
  need->plan = plan.used;
  need->scratch = attn_add(attn_mul(attn_mul((size_t)pb->b, (size_t)pb->h), head_bytes(pb, params)),
                           attn_mul((size_t)pb->threads, work_bytes(pb, params)));
  return ATTN_OK;
}

static attn_status lara_prepare(void *plan, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "lara: plan is null or not 64-byte aligned");
  attn_layout at = {.p = plan};
  (void)plan_place(&at, pb, params);
  return ATTN_OK;
}

/* Rows of a tensor of head i of [b, h]; only the kept ones when the mask has holes. */
static segment_rows rows_of(const lara_plan *pl, attn_view x, int64_t i) {
  return segment_tokens_rows(&pl->kept, x, pl->pb.h, pl->pb.nk, i);
}

static attn_status lara_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  (void)scratch;
  lara_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "lara: build without plan");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv), ATTN_ERR_SHAPE,
               "lara: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  segment_tokens_read(&pl->kept, pb->b, pb->nk, kmask);
  pl->k = k, pl->v = v, pl->built = 0;
  enum { PARTS = 4 };
  int wild = 0;
#pragma omp parallel for num_threads(pb->threads) schedule(static) reduction(| : wild)
  for (int64_t task = 0; task < pb->b * pb->h * PARTS; task++) {
    const int64_t i = task / PARTS, part = task % PARTS, kept = pl->kept.count[i / pb->h], m = lara_landmarks(&pl->par, kept);
    const int64_t c0 = m * part / PARTS, c1 = m * (part + 1) / PARTS;
    float *kbar = pl->kbar + i * pl->most * pb->d;
    segment_means(pl->mk, rows_of(pl, k, i), pb->d, kept, m, c0, c1, kbar);
    wild |= !attn_all_finite((c1 - c0) * pb->d, kbar + c0 * pb->d);
  }
  ATTN_FAIL_IF(wild, ATTN_ERR_NUMERIC, "lara: a key is NaN or infinite, or the mean of some is");
  pl->built = 1;
  return ATTN_OK;
}

typedef struct lara_call {
  const lara_plan *pl;
  attn_view q;
  attn_viewm out;
  char *heads;
  attn_stats *st;
} lara_call;

static head_scratch scratch_of(const lara_call *c, int64_t i) {
  attn_layout at = {.p = c->heads + (size_t)i * head_bytes(&c->pl->pb, &c->pl->par)};
  head_scratch s;
  head_place(&s, &at, &c->pl->pb, &c->pl->par);
  return s;
}
static int64_t landmarks_of(const lara_plan *pl, int64_t i) { return lara_landmarks(&pl->par, pl->kept.count[i / pl->pb.h]); }
static float factor_of(const lara_plan *pl) { return (float)(pl->pb.scale * LOG2E); }

/* Landmarks [c0, c1) of the queries of head i. */
static void query_means(const lara_call *c, int64_t i, int64_t part, int64_t parts) {
  const lara_plan *pl = c->pl;
  const int64_t m = landmarks_of(pl, i), d = pl->pb.d, c0 = m * part / parts, c1 = m * (part + 1) / parts;
  const head_scratch s = scratch_of(c, i);
  segment_means(pl->mk, rows_of(pl, c->q, i), d, pl->kept.count[i / pl->pb.h], m, c0, c1, s.qbar);
  for (int64_t t = c0 * d; t < c1 * d; t++) {
    s.qs[t] = s.qbar[t] * factor_of(pl);
    s.mu[t] = s.qbar[t] + pl->kbar[i * pl->most * d + t];
  }
}

/* Proposals of head i, drawn at their means; 0 when they are not finite. */
static int propose(const lara_call *c, int64_t i, lara_work *w) {
  const lara_plan *pl = c->pl;
  const int64_t m = landmarks_of(pl, i);
  const head_scratch s = scratch_of(c, i);
  if (!m) return 1;
  lara_augment(m, pl->pb.d, factor_of(pl), s.mu, s.omegas);
  lara_proposals(pl->mk, m, pl->pb.d, factor_of(pl), (int)pl->par.estimator, s.mu, s.mu, s.ft, s.lm, s.prop, s.bh, w);
  return attn_all_finite(m * pl->pb.d, s.qbar) && attn_all_finite(m, s.prop) && attn_all_finite(m, s.bh);
}

static void summarise(const lara_call *c, int64_t i, int64_t chunk, int queries, lara_work *w) {
  const lara_plan *pl = c->pl;
  const int64_t m = landmarks_of(pl, i), kept = pl->kept.count[i / pl->pb.h], j0 = chunk * SEGMENT_CHUNK, d = pl->pb.d;
  const int64_t j1 = kept - j0 < SEGMENT_CHUNK ? kept : j0 + SEGMENT_CHUNK;
  const head_scratch s = scratch_of(c, i);
  if (j0 >= kept || (queries && pl->par.estimator != LARA_OPT)) return;
  if (queries)
    segment_summarise(pl->mk, m, d, 0, s.qs, rows_of(pl, c->q, i), (segment_rows){0}, 0.0f, j0, j1,
                      s.queries + chunk * segment_part_floats(m, 0), &w->segment);
  else
    segment_summarise(pl->mk, m, d, pl->pb.dv, s.omegas, rows_of(pl, pl->k, i), rows_of(pl, pl->v, i), factor_of(pl), j0, j1,
                      s.keys + chunk * segment_part_floats(m, pl->pb.dv), &w->segment);
}

static void combine(const lara_call *c, int64_t i) {
  const lara_plan *pl = c->pl;
  const int64_t m = landmarks_of(pl, i), d = pl->pb.d, chunks = segment_chunks(pl->kept.count[i / pl->pb.h]);
  const head_scratch s = scratch_of(c, i);
  if (!m) return;
  segment_merge(m, pl->pb.dv, chunks, s.keys, s.g, s.constant);
  for (int64_t l = 0; l < m; l++) s.constant[l] -= s.prop[l];
  attn_pack_transposed(pl->mk, m, d, s.mu, d, NULL, factor_of(pl) * (pl->par.estimator == LARA_BIASED ? 2.0f : 1.0f), s.ft);
  if (pl->par.estimator != LARA_OPT) return;
  segment_merge(m, 0, chunks, s.queries, NULL, s.lse_t);
  for (int64_t l = 0; l < m; l++) s.lse_t[l] = -s.lse_t[l];
  attn_pack_transposed(pl->mk, m, d, s.qbar, d, NULL, factor_of(pl), s.qt);
}

static void answer(const lara_call *c, int64_t i, int64_t i0, lara_work *w) {
  const lara_plan *pl = c->pl;
  const attn_problem *pb = &pl->pb;
  const int64_t ib = i / pb->h, m = landmarks_of(pl, i), rows = pb->nq - i0 < LARA_QUERIES ? pb->nq - i0 : LARA_QUERIES;
  const uint8_t *keep = segment_tokens_keep(&pl->kept, pb->nk, ib);
  const head_scratch s = scratch_of(c, i);
  const lara_head h = {m, pb->d, (int)pl->par.estimator, (float)pl->par.share, s.ft, s.qt, s.constant, s.lse_t, s.bh};
  const float *q = c->q.p + ib * c->q.sb + i % pb->h * c->q.sh + i0 * c->q.sn;
  float *out = c->out.p + ib * c->out.sb + i % pb->h * c->out.sh + i0 * c->out.sn, lse2[LARA_QUERIES];
  if (m) {
    lara_weights(pl->mk, &h, rows, q, c->q.sn, keep ? keep + i0 : NULL, lse2, w);
    pl->mk->gemm(rows, pb->dv, m, w->p, lara_ld(pl->mk, m), 1, s.g, pb->dv, pl->mk->panel, out, c->out.sn, 0);
  }
  for (int64_t r = 0; r < rows; r++) {
    if (!m) memset(out + r * c->out.sn, 0, (size_t)pb->dv * sizeof(float));
    if (!c->st || !c->st->lse) continue;
    const float *row = q + r * c->q.sn, own = 0.5f * factor_of(pl) * pl->mk->dot(pb->d, row, row); /* of xi(q, w) */
    c->st->lse[i * pb->nq + i0 + r] = m ? (float)(((double)lse2[r] - (double)own) * LN2) : -INFINITY;
  }
}

static attn_status lara_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                attn_stats *st) {
  (void)params;
  const lara_plan *pl = plan;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "lara: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "lara: scratch is null or not 64-byte aligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nq > 0 && (q.sn < pb->d || out.sn < pb->dv), ATTN_ERR_SHAPE,
               "lara: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn, (long long)pb->d,
               (long long)pb->dv);
  enum { PARTS = 4 };
  const lara_call c = {pl, q, out, scratch, st};
  const int64_t heads = pb->b * pb->h, chunks = segment_chunks(pb->nk), blocks = (pb->nq + LARA_QUERIES - 1) / LARA_QUERIES;
  char *own = (char *)scratch + (size_t)heads * head_bytes(pb, &pl->par);
  int wild = 0;
#pragma omp parallel num_threads(pb->threads)
  {
    attn_layout at = {.p = own + (size_t)omp_get_thread_num() * work_bytes(pb, &pl->par)};
    lara_work w;
    lara_work_place(&w, &at, pb, &pl->par);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < heads * PARTS; task++) query_means(&c, task / PARTS, task % PARTS, PARTS);
#pragma omp for schedule(static) reduction(| : wild)
    for (int64_t i = 0; i < heads; i++) wild |= !propose(&c, i, &w);
    if (!wild) {
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < heads * chunks * 2; task++)
        summarise(&c, task / (2 * chunks), task / 2 % chunks, (int)(task % 2), &w);
#pragma omp for schedule(static)
      for (int64_t i = 0; i < heads; i++) combine(&c, i);
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < heads * blocks; task++) answer(&c, task / blocks, task % blocks * LARA_QUERIES, &w);
    }
  }
  ATTN_FAIL_IF(wild, ATTN_ERR_NUMERIC, "lara: a query is NaN or infinite, or the square of a mean of queries and keys is");
  if (!st) return ATTN_OK;
  st->pairs = 0;
  for (int64_t i = 0; i < heads; i++) {
    const int64_t m = landmarks_of(pl, i), opt = pl->par.estimator == LARA_OPT, kept = pl->kept.count[i / pb->h];
    st->pairs += (uint64_t)(m * (kept * (1 + opt) + pb->nq * (1 + opt) + m)) * (uint64_t)(m > 0);
  }
  return ATTN_OK;
}

static void lara_release(void *plan) { (void)plan; }

static const char *const estimators[] = {"mis_opt", "mis_bh", "mis_biased", NULL}, *const noises[] = {"scaled", "unit", "none", NULL};
#define AT(field) .offset = offsetof(lara_params, field)
static const attn_param lara_table[] = {
    {.key = "landmarks", .doc = "means of consecutive tokens, each with one projection", .type = ATTN_P_INT, AT(landmarks), .dflt = 64, .min = 1, .max = 4096},
    {.key = "estimator", .doc = "weights of multiple importance sampling", .type = ATTN_P_CHOICE, AT(estimator), .choices = estimators},
    {.key = "share", .doc = "mis_opt: how far a query's own share moves its weights away from the balance heuristic", .type = ATTN_P_REAL, AT(share), .dflt = 1.0, .min = 0.0, .max = 16.0},
    {.key = "noise", .doc = "training only: variance 1 / scale, or 1 (the authors' code), or none", .type = ATTN_P_CHOICE, AT(noise), .choices = noises},
    {.key = NULL}};

const attn_method attn_method_lara = {
    .name = "lara",
    .version = "1",
    .cite = "arXiv:2204.04667",
    .doc = "linear randomised attention: one projection for each segment, weighed by importance sampling",
    .caps = ATTN_CAP_MASK | ATTN_CAP_NEEDS_TRAINING | ATTN_CAP_STOCHASTIC,
    .params_size = sizeof(lara_params),
    .params = lara_table,
    .sizes = lara_sizes,
    .prepare = lara_prepare,
    .build = lara_build,
    .forward = lara_forward,
    .release = lara_release,
    .training = &attn_training_lara,
};
