/* performer.c - FAVOR+: softmax weights as products of random features, so that the cost is linear in n.
 *
 * Idea    With x = c q or c k (c^2 = scale) and random rows w_r, phi(x)_r = exp(w_r.x - |x|^2/2) has E[phi(q).phi(k)] = exp(scale q.k).
 *         So  out_i = phi(q_i) Z / phi(q_i).D  with the sums  Z = sum_j phi(k_j) v_j^T [m, dv],  D = sum_j phi(k_j) [m].
 *         As every implementation does, exponents are taken relative to a maximum - of w.x over the features of a query, over the
 *         features of all keys of a head - and eps is added:  phi = exp(w.x - |x|^2/2 - max) + eps. Where norms are large all features
 *         sink below eps, and attention becomes uniform.
 *         kernel=relu: phi = relu(w.x) + eps, which approximates another attention than softmax.
 * Form    A tile of rows is projected, and exponentiated relative to its own maxima: E in (0, 1], the rest of the exponent one
 *         number a row. That number scales values (Z) or outputs, so the features are touched no more; eps is carried beside E, in
 *         the sums of E and of values. Keys are summed in chunks that are merged in order.
 *         Causal: the prefix sums at the head of each chunk, then tile by tile: the sums so far, and the tile's own triangle of
 *         products. The maximum is the one over the keys that a query sees, where the references let later keys leak into it.
 * Source  Choromanski et al. 2020 (arXiv:2009.14794); google-research performer/fast_attention, lucidrains/performer-pytorch.
 * Cost    8 n m d flops and 2 n m exponentials per head (causal: 1.6 times that); memory m (dv + 1) per chunk.
 * Traps   of the references, as parameters: scaling=twice is the LRA port's second division by d^(1/4) (logits q.k/d); padding=leak
 *         zeroes padded keys instead of dropping them, so that each adds exp(0) to D, as there and in masked lucidrains models;
 *         kernel=relu_plain, with d features and no projection, is the official LRA model; redraw=never keeps one draw for good, as the LRA port does.
 *         Not here: the maximum over heads and batch, under which sequences see each other.
 * Limits  Training: not causal. There is no dropout of weights, because there are none: `drop` is ignored, as in the references;
 *         the layer's other dropouts stay. */
#include "baselines/performer.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/finite.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/micro/micro.h"

enum {
  TILE = 48,        /* rows whose features are alive at once; a multiple of every register tile */
  BLOCK = 4 * TILE, /* queries of a task */
  CHUNK = 20 * TILE,
  MOST_PARTS = 16
};
enum { EXP, RELU, RELU_PLAIN };
enum { ORTHOGONAL, IID };

typedef struct performer_params {
  int64_t features, kernel, projection, scaling, padding, redraw;
  double eps;
} performer_params;

/* Sums over keys, relative to 2^top; before eps is added: over E = phi - eps. */
typedef struct sums {
  float *z, *d; /* [m, dv], [m] */
  float *v;     /* [dv] values alone */
  float *top;   /* [1] base-2 maximum of w.x; -inf without keys */
} sums;

/* What one thread works on. */
typedef struct work {
  float *e, *x, *v, *o;                /* tile: features [TILE, ld], gathered keys [TILE, d] and values [TILE, dv], outputs */
  float *top, *norm, *lk, *f, *den, *l; /* per row: maximum, |x|^2/2 in base 2, top - norm, 2^(what E lacks), denominator; [TILE, 16] */
  /* Causal: features of a tile of keys, transposed, their sums, the maximum up to each; the triangle and its factors; so_far.z summed. */
  float *ek, *ekt, *sum_ek, *run, *p, *t, *sum_z;
  sums so_far;
} work;

typedef struct plan {
  attn_problem pb;
  performer_params par;
  const attn_micro *mk;
  int built;
  attn_view k, v;       /* causal: read again by forward */
  int64_t m, ld, parts; /* features; floats between rows of E; most chunks */
  float half;           /* half * |x|^2: base-2 exponent that a row loses; 0: relu */
  int64_t *count;       /* [b] kept keys */
  int32_t *idx;         /* [b, nk] their positions */
  float *w, *wt;        /* projection [m, d], the same as panels in base 2 */
  float *ones;
  float *part;          /* sums of chunks [b, hkv, parts]; causal: of all chunks before */
  float *total;         /* [b, hkv] sums of all keys with eps in them; not causal */
  float *zp, *zs;       /* [b, hkv] panels of total.z; [dv + 1] its sum over features, and total.d's */
} plan;

/* --- sizes and layout --------------------------------------------------------------------------------------------- */

int64_t performer_features(const attn_problem *pb, const void *params) {
  const performer_params *par = params;
  return par->kernel == RELU_PLAIN ? pb->d : par->features;
}

static int64_t sums_floats(const plan *pl) { return (pl->m * (pl->pb.dv + 1) + pl->pb.dv + 1 + 15) / 16 * 16; }
static sums sums_at(const plan *pl, float *p) {
  const int64_t m = pl->m, dv = pl->pb.dv;
  return (sums){p, p + m * dv, p + m * (dv + 1), p + m * (dv + 1) + dv};
}
static sums part_of(const plan *pl, int64_t head, int64_t part) {
  return sums_at(pl, pl->part + (head * pl->parts + part) * sums_floats(pl));
}
static sums total_of(const plan *pl, int64_t head) { return sums_at(pl, pl->total + head * sums_floats(pl)); }
static int64_t panel_floats(const plan *pl) { return attn_padded(pl->mk, pl->pb.dv) * pl->m; }

/* The fixed numbers of a plan, and its arrays in `at`. */
static void lay_out(plan *pl, const attn_problem *pb, const void *params, attn_layout *at) {
  const attn_micro *mk = attn_micro_get();
  *pl = (plan){.pb = *pb, .par = *(const performer_params *)params, .mk = mk, .m = performer_features(pb, params)};
  const int64_t chunks = (pb->nk + CHUNK - 1) / CHUNK, heads = pb->b * pb->hkv;
  pl->ld = attn_padded(mk, pl->m) + 16;
  pl->parts = chunks < 1 ? 1 : chunks < MOST_PARTS ? chunks : MOST_PARTS;
  pl->count = attn_place(at, attn_mul((size_t)pb->b, sizeof(int64_t)));
  pl->idx = attn_place_floats(at, pb->b, pb->nk);
  pl->w = attn_place_floats(at, pl->m, pb->d);
  pl->wt = attn_place_floats(at, attn_padded(mk, pl->m), pb->d);
  pl->ones = attn_place_floats(at, 1, pl->m);
  pl->part = attn_place(at, attn_mul(attn_mul((size_t)heads, (size_t)pl->parts), (size_t)sums_floats(pl) * sizeof(float)));
  if (pb->causal) return;
  pl->total = attn_place_floats(at, heads, sums_floats(pl));
  pl->zp = attn_place_floats(at, heads, panel_floats(pl));
  pl->zs = attn_place_floats(at, heads, pb->dv + 1);
}

static work work_at(const plan *pl, attn_layout *at) {
  const int64_t d = pl->pb.d, dv = pl->pb.dv;
  work w = {0};
  w.e = attn_place_floats(at, TILE, pl->ld);
  w.x = attn_place_floats(at, TILE, d);
  w.v = attn_place_floats(at, TILE, dv);
  w.o = attn_place_floats(at, TILE, dv);
  float **row[] = {&w.top, &w.norm, &w.lk, &w.f, &w.den};
  for (size_t i = 0; i < sizeof row / sizeof *row; i++) *row[i] = attn_place_floats(at, 1, TILE);
  w.l = attn_place_floats(at, TILE, 16);
  if (!pl->pb.causal) return w;
  w.ek = attn_place_floats(at, TILE, pl->ld);
  w.ekt = attn_place_floats(at, attn_padded(pl->mk, TILE), pl->m);
  w.sum_ek = attn_place_floats(at, 1, TILE);
  w.run = attn_place_floats(at, 1, TILE);
  w.p = attn_place_floats(at, TILE, TILE);
  w.t = attn_place_floats(at, TILE, TILE);
  w.sum_z = attn_place_floats(at, 1, dv);
  w.so_far = sums_at(pl, attn_place_floats(at, 1, sums_floats(pl)));
  return w;
}
static size_t work_bytes(const plan *pl) {
  attn_layout at = {0};
  (void)work_at(pl, &at);
  return at.used;
}
static work work_of(const plan *pl, void *scratch) {
  attn_layout at = {.p = (char *)scratch + (size_t)omp_get_thread_num() * work_bytes(pl)};
  return work_at(pl, &at);
}

static attn_status performer_check(const attn_problem *pb, const void *params) {
  const performer_params *par = params;
  ATTN_FAIL_IF(par->padding && pb->causal, ATTN_ERR_UNSUPPORTED, "performer.padding = leak has no causal form");
  return ATTN_OK;
}

static attn_status performer_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  plan pl;
  attn_layout at = {.used = attn_round(sizeof pl)};
  lay_out(&pl, pb, params, &at);
  need->plan = at.used;
  need->scratch = attn_mul((size_t)pb->threads, work_bytes(&pl));
  return ATTN_OK;
}

/* --- the projection ----------------------------------------------------------------------------------------------- */

/* Standard normal numbers, two at a time (Box-Muller). */
static void normals(attn_rng *r, int64_t n, float *x) {
  for (int64_t i = 0; i < n; i += 2) {
    const double radius = sqrt(-2.0 * log(1.0 - attn_rng_uniform(r)));
    double s, c;
    sincos(6.283185307179586476925 * attn_rng_uniform(r), &s, &c);
    x[i] = (float)(radius * c);
    if (i + 1 < n) x[i + 1] = (float)(radius * s);
  }
}

/* Makes the `rows` <= d rows orthogonal, each with the length it came with. A Gaussian row's length is independent of the
 * direction that is left of it, so rows are as if directions were drawn uniformly and lengths apart. */
static void orthogonalise(const attn_micro *mk, int64_t rows, int64_t d, float *w, float *length) {
  for (int64_t i = 0; i < rows; i++) {
    float *row = w + i * d;
    length[i] = sqrtf(mk->dot(d, row, row));
    float left = length[i];
    for (int pass = 0; pass < 2; pass++) { /* again when little is left: rounding of what was taken away shows */
      const float before = left;
      for (int64_t j = 0; j < i; j++) mk->axpy(d, -mk->dot(d, row, w + j * d), w + j * d, row);
      left = sqrtf(mk->dot(d, row, row));
      if (left > 0.1f * before) break;
    }
    for (int64_t t = 0; t < d; t++) row[t] = left > 0.0f ? row[t] / left : 0.0f;
  }
  for (int64_t i = 0; i < rows; i++)
    for (int64_t t = 0; t < d; t++) w[i * d + t] *= length[i];
}

/* spare: performer_features floats. */
static void draw(const attn_problem *pb, const performer_params *par, int64_t m, float *w, float *spare) {
  const int64_t d = pb->d;
  if (par->kernel == RELU_PLAIN) {
    memset(w, 0, (size_t)(m * d) * sizeof(float));
    for (int64_t i = 0; i < m; i++) w[i * d + i] = 1.0f;
    return;
  }
  attn_rng r;
  attn_rng_seed(&r, par->redraw ? 0 : pb->seed, 0x466176);
  normals(&r, m * d, w);
  for (int64_t i = 0; i < m && par->projection == ORTHOGONAL; i += d)
    orthogonalise(attn_micro_get(), m - i < d ? m - i : d, d, w + i * d, spare);
  const float c = par->scaling ? pb->scale : sqrtf(pb->scale);
  for (int64_t i = 0; i < m * d; i++) w[i] *= c;
}

void performer_projection(const attn_problem *pb, const void *params, float *w) {
  const int64_t m = performer_features(pb, params);
  float *spare = attn_alloc((size_t)m * sizeof(float));
  if (spare) draw(pb, params, m, w, spare);
  attn_free(spare);
}

static attn_status performer_prepare(void *memory, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!memory || (uintptr_t)memory % ATTN_ALIGN, ATTN_ERR_ARG, "performer: plan is null or not 64-byte aligned");
  plan *pl = memory;
  attn_layout at = {.p = memory, .used = attn_round(sizeof *pl)};
  lay_out(pl, pb, params, &at);
  const performer_params *par = &pl->par;
  const double c = par->scaling ? (double)pb->scale : sqrt((double)pb->scale);
  pl->half = par->kernel == EXP ? (float)(c * c * LOG2E / 2) : 0.0f;
  draw(pb, par, pl->m, pl->w, pl->wt);
  attn_pack_transposed(pl->mk, pl->m, pb->d, pl->w, pb->d, NULL, par->kernel == EXP ? (float)LOG2E : 1.0f, pl->wt);
  for (int64_t i = 0; i < pl->m; i++) pl->ones[i] = 1.0f;
  return ATTN_OK;
}

/* --- features ----------------------------------------------------------------------------------------------------- */

/* e [rows, m] = 2^(w.x - top); phi - eps is e 2^(top - norm) before the maximum is subtracted. With relu, e is phi - eps. */
static void features(const plan *pl, int64_t rows, const float *x, ptrdiff_t stride, float *e, const work *w) {
  const attn_micro *mk = pl->mk;
  const int64_t d = pl->pb.d, m = pl->m, ld = pl->ld;
  mk->gemm(rows, m, d, x, stride, 1, pl->wt, mk->panel, mk->panel * d, e, ld, 0);
  for (int64_t i = 0; i < rows; i++) {
    w->top[i] = pl->par.kernel == EXP ? -INFINITY : 0.0f;
    w->norm[i] = pl->half != 0.0f ? pl->half * mk->dot(d, x + i * stride, x + i * stride) : 0.0f;
  }
  if (pl->par.kernel != EXP) {
    for (int64_t i = 0; i < rows; i++)
      for (int64_t r = 0; r < m; r++) e[i * ld + r] = e[i * ld + r] > 0.0f ? e[i * ld + r] : 0.0f;
    return;
  }
  memset(w->l, 0, (size_t)rows * 16 * sizeof(float));
  mk->softmax_block(rows, m, e, ld, NULL, w->top, w->l, NULL, 0, 0);
}

/* Rows idx[0..rows) of x, or x itself where they are neighbours. */
static const float *gather(const float *x, ptrdiff_t *stride, const int32_t *idx, int64_t rows, int64_t width, float *to) {
  if (idx[rows - 1] - idx[0] == rows - 1) return x + idx[0] * *stride;
  for (int64_t i = 0; i < rows; i++) memcpy(to + i * width, x + idx[i] * *stride, (size_t)width * sizeof(float));
  *stride = width;
  return to;
}

/* Moves the reference of sums up to `top`. */
static void raise_top(const plan *pl, sums *s, float top) {
  if (!(top > *s->top)) return;
  const float shrink = *s->top == -INFINITY ? 0.0f : exp2f(*s->top - top);
  for (int64_t i = 0; i < pl->m * (pl->pb.dv + 1); i++) s->z[i] *= shrink; /* d stands behind z */
  *s->top = top;
}

/* After features of keys: w->lk = base-2 logarithm of what each row of e lacks; returns the largest maximum. */
static float key_exponents(work *w, int64_t rows) {
  float top = -INFINITY;
  for (int64_t i = 0; i < rows; i++) {
    top = w->top[i] > top ? w->top[i] : top;
    w->lk[i] = w->top[i] - w->norm[i];
  }
  return top;
}

/* Adds keys with features e, exponents w->lk and maxima up to `top` to s; v [rows, dv] their values. */
static void add_keys(const plan *pl, work *w, const float *e, int64_t rows, float top, const float *v, ptrdiff_t stride, sums *s) {
  const attn_micro *mk = pl->mk;
  const int64_t dv = pl->pb.dv;
  raise_top(pl, s, top);
  for (int64_t i = 0; i < rows; i++) {
    w->f[i] = exp2f(w->lk[i] - *s->top);
    mk->axpy(dv, 1.0f, v + i * stride, s->v);
    for (int64_t t = 0; t < dv; t++) w->o[i * dv + t] = v[i * stride + t] * w->f[i];
  }
  mk->gemm(pl->m, dv, rows, e, 1, pl->ld, w->o, dv, mk->panel, s->z, dv, 1);
  mk->gemm(1, pl->m, rows, w->f, rows, 1, e, pl->ld, mk->panel, s->d, pl->m, 1);
}

static void clear(const plan *pl, sums *s) {
  memset(s->z, 0, (size_t)sums_floats(pl) * sizeof(float));
  *s->top = -INFINITY;
}

/* Keys of a chunk, of `kept`; whole tiles. */
static int64_t chunk_of(int64_t kept) {
  const int64_t least = (kept + MOST_PARTS - 1) / MOST_PARTS, whole = (least + TILE - 1) / TILE * TILE;
  return whole < CHUNK ? CHUNK : whole;
}

/* One chunk of one key head. */
static void sum_chunk(const plan *pl, work *w, int64_t head, int64_t part, attn_view k, attn_view v) {
  const attn_problem *pb = &pl->pb;
  const int64_t kept = pl->count[head / pb->hkv], chunk = chunk_of(kept);
  const int64_t end = (part + 1) * chunk < kept ? (part + 1) * chunk : kept;
  const int32_t *idx = pl->idx + head / pb->hkv * pb->nk;
  sums s = part_of(pl, head, part);
  clear(pl, &s);
  for (int64_t j = part * chunk; j < end; j += TILE) {
    const int64_t rows = end - j < TILE ? end - j : TILE;
    ptrdiff_t ks = k.sn, vs = v.sn;
    const float *x = gather(attn_key_head(k, pb, head), &ks, idx + j, rows, pb->d, w->x);
    features(pl, rows, x, ks, w->e, w);
    const float top = key_exponents(w, rows), *y = gather(attn_key_head(v, pb, head), &vs, idx + j, rows, pb->dv, w->v);
    add_keys(pl, w, w->e, rows, top, y, vs, &s);
  }
}

/* to = sum of the first `parts` chunks. */
static void merge(const plan *pl, int64_t head, int64_t parts, sums to) {
  clear(pl, &to);
  for (int64_t p = 0; p < parts; p++) {
    const sums s = part_of(pl, head, p);
    *to.top = *s.top > *to.top ? *s.top : *to.top;
  }
  for (int64_t p = 0; p < parts; p++) {
    const sums s = part_of(pl, head, p);
    if (*s.top == -INFINITY) continue;
    pl->mk->axpy(pl->m * (pl->pb.dv + 1), exp2f(*s.top - *to.top), s.z, to.z);
    pl->mk->axpy(pl->pb.dv, 1.0f, s.v, to.v);
  }
}

/* What queries read: all chunks, with eps, and under padding=leak the padded keys, which are zeros there. */
static void close_head(const plan *pl, int64_t head) {
  const int64_t m = pl->m, dv = pl->pb.dv, kept = pl->count[head / pl->pb.hkv];
  const int64_t leaked = pl->par.padding ? pl->pb.nk - kept : 0;
  const float eps = (float)pl->par.eps;
  sums s = total_of(pl, head);
  merge(pl, head, pl->parts, s);
  if (leaked > 0) raise_top(pl, &s, 0.0f);
  const float zero_key = leaked > 0 && pl->par.kernel == EXP ? (float)leaked * exp2f(-*s.top) : 0.0f;
  float *zs = pl->zs + head * (dv + 1);
  memset(zs, 0, (size_t)(dv + 1) * sizeof(float));
  for (int64_t r = 0; r < m; r++) {
    pl->mk->axpy(dv, eps, s.v, s.z + r * dv);
    pl->mk->axpy(dv, 1.0f, s.z + r * dv, zs);
    s.d[r] += eps * (float)(kept + leaked) + zero_key;
    zs[dv] += s.d[r];
  }
  attn_pack_panels(pl->mk, m, m, dv, s.z, dv, NULL, pl->zp + head * panel_floats(pl));
}

static attn_status performer_build(void *memory, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  plan *pl = memory;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "performer: build without plan");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "performer: scratch is null or not 64-byte aligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv), ATTN_ERR_SHAPE,
               "performer: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  for (int64_t ib = 0; ib < pb->b; ib++)
    pl->count[ib] = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, pl->idx + ib * pb->nk);
  const int64_t heads = pb->b * pb->hkv;
#pragma omp parallel num_threads(pb->threads)
  {
    work w = work_of(pl, scratch);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * pl->parts; task++) sum_chunk(pl, &w, task / pl->parts, task % pl->parts, k, v);
#pragma omp for schedule(static)
    for (int64_t head = 0; head < heads; head++) {
      if (!pb->causal) close_head(pl, head);
      else /* from the last on: each reads those before it, which are still sums of chunks */
        for (int64_t p = pl->parts - 1; p >= 0; p--) merge(pl, head, p, part_of(pl, head, p));
    }
  }
  pl->k = k, pl->v = v;
  pl->built = 1;
  return ATTN_OK;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* Natural log of the sum of estimated exp(scale q.k): what the maxima took away and the mean over features put back. */
static float lse_of(const plan *pl, float den, float q_top, float k_top) {
  return (float)(log((double)den / (double)pl->m) + ((double)q_top + (double)k_top) * LN2);
}

/* Features of queries, and den = phi(q).D. */
static void read_queries(const plan *pl, work *w, int64_t rows, const float *q, ptrdiff_t stride, int64_t head) {
  const float eps_sum = (float)pl->par.eps * pl->zs[head * (pl->pb.dv + 1) + pl->pb.dv];
  features(pl, rows, q, stride, w->e, w);
  pl->mk->dots(rows, pl->m, total_of(pl, head).d, w->e, pl->ld, w->den);
  for (int64_t i = 0; i < rows; i++) {
    w->f[i] = exp2f(-w->norm[i]);
    w->den[i] = w->f[i] * w->den[i] + eps_sum;
  }
}

/* Queries [i0, i0 + rows) of one head over all keys. */
static void attend(const plan *pl, work *w, int64_t ib, int64_t ih, int64_t i0, int64_t rows, attn_view q, attn_viewm out,
                   float *lse) {
  const attn_problem *pb = &pl->pb;
  const attn_micro *mk = pl->mk;
  const int64_t m = pl->m, dv = pb->dv, head = ib * pb->hkv + ih / (pb->h / pb->hkv);
  const float *zs = pl->zs + head * (dv + 1), eps = (float)pl->par.eps;
  float *o = out.p + ib * out.sb + ih * out.sh + i0 * out.sn;
  if (lse) lse += (ib * pb->h + ih) * pb->nq + i0;
  if (!pl->count[ib]) {
    for (int64_t i = 0; i < rows; i++) {
      memset(o + i * out.sn, 0, (size_t)dv * sizeof(float));
      if (lse) lse[i] = -INFINITY;
    }
    return;
  }
  read_queries(pl, w, rows, q.p + ib * q.sb + ih * q.sh + i0 * q.sn, q.sn, head);
  mk->gemm(rows, dv, m, w->e, pl->ld, 1, pl->zp + head * panel_floats(pl), mk->panel, mk->panel * m, w->o, dv, 0);
  for (int64_t i = 0; i < rows; i++) {
    const float scale = w->f[i] / w->den[i], rest = eps / w->den[i];
    for (int64_t t = 0; t < dv; t++) o[i * out.sn + t] = scale * w->o[i * dv + t] + rest * zs[t];
    if (lse) lse[i] = lse_of(pl, w->den[i], w->top[i], *total_of(pl, head).top);
  }
}

/* Causal: queries [i0, i0 + rows) of one head, each of which sees the keys in w->so_far and 1..cols of this tile of keys:
 * features w->ek, exponents w->lk, run[j] the maximum up to key j; v its values; j0 keys are in so_far. */
static void attend_tile(const plan *pl, work *w, int64_t ib, int64_t ih, int64_t i0, int64_t rows, int64_t j0, int64_t cols,
                        const float *v, ptrdiff_t vs, int wild, attn_view q, attn_viewm out, float *lse) {
  const attn_problem *pb = &pl->pb;
  const attn_micro *mk = pl->mk;
  const int64_t m = pl->m, dv = pb->dv;
  const int32_t *idx = pl->idx + ib * pb->nk;
  const float eps = (float)pl->par.eps;
  const sums *s = &w->so_far;
  float *o = out.p + ib * out.sb + ih * out.sh + i0 * out.sn, top[TILE], sum_e[TILE];
  int32_t n[TILE];
  features(pl, rows, q.p + ib * q.sb + ih * q.sh + i0 * q.sn, q.sn, w->e, w);
  mk->gemm(rows, dv, m, w->e, pl->ld, 1, s->z, dv, mk->panel, w->o, dv, 0);
  mk->gemm(rows, cols, m, w->e, pl->ld, 1, w->ekt, mk->panel, mk->panel * m, w->p, TILE, 0);
  mk->dots(rows, m, s->d, w->e, pl->ld, w->den);
  mk->dots(rows, m, pl->ones, w->e, pl->ld, sum_e);
  const float sum_d = mk->dot(m, pl->ones, s->d);
  for (int64_t i = 0; i < rows; i++) {
    n[i] = (int32_t)(attn_prefix(pb, idx, j0 + cols, i0 + i) - j0);
    top[i] = w->run[n[i] - 1];
    memcpy(w->t + i * TILE, w->lk, (size_t)cols * sizeof(float));
  }
  mk->exp2_block(rows, cols, w->t, TILE, n, top);
  for (int64_t i = 0; i < rows; i++) {
    float *p = w->p + i * TILE, *t = w->t + i * TILE, *oi = w->o + i * dv;
    const float f = exp2f(-w->norm[i]), old = *s->top == -INFINITY ? 0.0f : exp2f(*s->top - top[i]);
    const float flat = eps * f * sum_e[i] + eps * eps * (float)m; /* what eps gives every key, whatever it is */
    float den = old * (f * w->den[i] + eps * sum_d) + flat * (float)j0;
    for (int64_t j = 0; j < n[i]; j++) {
      p[j] = t[j] * (f * p[j] + eps * w->sum_ek[j]) + flat;
      den += p[j];
    }
    for (int64_t j = n[i]; j < cols; j++) p[j] = 0.0f;
    for (int64_t c = 0; c < dv; c++) oi[c] = old * (f * oi[c] + eps * w->sum_z[c]) + flat * s->v[c];
    if (wild) mk->gemm(1, dv, n[i], p, TILE, 1, v, vs, mk->panel, oi, dv, 1);
    w->den[i] = den;
  }
  if (!wild) mk->gemm(rows, dv, cols, w->p, TILE, 1, v, vs, mk->panel, w->o, dv, 1);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t c = 0; c < dv; c++) o[i * out.sn + c] = w->o[i * dv + c] / w->den[i];
    if (lse) lse[(ib * pb->h + ih) * pb->nq + i0 + i] = lse_of(pl, w->den[i], w->top[i], top[i]);
  }
}

/* First query that sees kept key j: nq when none does. */
static int64_t first_query(const attn_problem *pb, const int32_t *idx, int64_t kept, int64_t j) {
  const int64_t i = j < kept ? idx[j] - (pb->nk - pb->nq) : pb->nq;
  return i < 0 ? 0 : i > pb->nq ? pb->nq : i;
}

/* Causal: one chunk of keys, and the queries whose last key lies in it. */
static void attend_chunk(const plan *pl, work *w, int64_t head, int64_t part, attn_view q, attn_viewm out, float *lse) {
  const attn_problem *pb = &pl->pb;
  const attn_micro *mk = pl->mk;
  const int64_t ib = head / pb->hkv, group = pb->h / pb->hkv, kept = pl->count[ib], chunk = chunk_of(kept), dv = pb->dv;
  const int64_t end = (part + 1) * chunk < kept ? (part + 1) * chunk : kept, first = head % pb->hkv * group;
  const int32_t *idx = pl->idx + ib * pb->nk;
  memcpy(w->so_far.z, part_of(pl, head, part).z, (size_t)sums_floats(pl) * sizeof(float));
  for (int64_t ih = first; ih < first + group && part == 0; ih++)
    for (int64_t i = first_query(pb, idx, kept, 0) - 1; i >= 0; i--) { /* sees no key */
      memset(out.p + ib * out.sb + ih * out.sh + i * out.sn, 0, (size_t)dv * sizeof(float));
      if (lse) lse[(ib * pb->h + ih) * pb->nq + i] = -INFINITY;
    }
  for (int64_t j = part * chunk; j < end; j += TILE) {
    const int64_t cols = end - j < TILE ? end - j : TILE;
    const int64_t i0 = first_query(pb, idx, kept, j), i1 = first_query(pb, idx, kept, j + cols);
    ptrdiff_t ks = pl->k.sn, vs = pl->v.sn;
    const float *x = gather(attn_key_head(pl->k, pb, head), &ks, idx + j, cols, pb->d, w->x);
    const float *v = gather(attn_key_head(pl->v, pb, head), &vs, idx + j, cols, dv, w->v);
    int wild = 0;
    features(pl, cols, x, ks, w->ek, w);
    (void)key_exponents(w, cols);
    attn_pack_transposed(mk, cols, pl->m, w->ek, pl->ld, NULL, 1.0f, w->ekt);
    mk->dots(cols, pl->m, pl->ones, w->ek, pl->ld, w->sum_ek);
    mk->gemm(1, dv, pl->m, pl->ones, pl->m, 1, w->so_far.z, dv, mk->panel, w->sum_z, dv, 0);
    for (int64_t c = 0; c < cols; c++) {
      const float before = c ? w->run[c - 1] : *w->so_far.top;
      w->run[c] = w->top[c] > before ? w->top[c] : before;
      wild |= !attn_all_finite(dv, v + c * vs);
    }
    for (int64_t ih = first; ih < first + group; ih++)
      for (int64_t i = i0; i < i1; i += TILE)
        attend_tile(pl, w, ib, ih, i, i1 - i < TILE ? i1 - i : TILE, j, cols, v, vs, wild, q, out, lse);
    add_keys(pl, w, w->ek, cols, w->run[cols - 1], v, vs, &w->so_far);
  }
}

static attn_status ready(const plan *pl, attn_view q, attn_viewm out, const void *scratch) {
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "performer: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "performer: scratch is null or not 64-byte aligned");
  ATTN_FAIL_IF(pl->pb.nq > 0 && (q.sn < pl->pb.d || out.sn < pl->pb.dv), ATTN_ERR_SHAPE,
               "performer: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn,
               (long long)pl->pb.d, (long long)pl->pb.dv);
  return ATTN_OK;
}

static attn_status performer_forward(const void *memory, const void *params, attn_view q, attn_viewm out, void *scratch,
                                     attn_stats *st) {
  (void)params;
  const plan *pl = memory;
  ATTN_TRY(ready(pl, q, out, scratch));
  const attn_problem *pb = &pl->pb;
  float *lse = st ? st->lse : NULL;
  const int64_t blocks = (pb->nq + BLOCK - 1) / BLOCK, tasks = pb->causal ? pb->b * pb->hkv * pl->parts : pb->b * pb->h * blocks;
#pragma omp parallel num_threads(pb->threads)
  {
    work w = work_of(pl, scratch);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tasks; task++) {
      if (pb->causal) {
        attend_chunk(pl, &w, task / pl->parts, task % pl->parts, q, out, lse);
        continue;
      }
      const int64_t head = task / blocks, i0 = task % blocks * BLOCK, end = i0 + BLOCK < pb->nq ? i0 + BLOCK : pb->nq;
      for (int64_t i = i0; i < end; i += TILE)
        attend(pl, &w, head / pb->h, head % pb->h, i, end - i < TILE ? end - i : TILE, q, out, lse);
    }
  }
  if (st) st->pairs = 0; /* features take the place of products of queries and keys */
  return ATTN_OK;
}

static void performer_release(void *memory) { (void)memory; }

/* --- training ----------------------------------------------------------------------------------------------------- */

/* What backward needs beside a work. With g_i = dout_i / den_i and e_i = -dout_i.out_i / den_i:
 *   dphi(q_i) = Z g_i + D e_i,  dZ = sum_i phi(q_i) g_i^T,  dD = sum_i phi(q_i) e_i,
 *   dphi(k_j) = dZ v_j + dD,    dv_j = dZ^T phi(k_j).
 * [Z D] and [dZ dD] stand side by side, so that a product of dv + 1 terms gives dphi. With E, f from phi - eps = E f, the gradient
 * of an exponent is E (f dphi), and that of x is its product with w less its sum times x. Maxima count as constant. */
typedef struct grads {
  work w;
  float *zd, *zdt;  /* [m, dv + 1], and as transposed panels */
  float *g, *du, *dx; /* [TILE, dv + 1] f (g, e) or f (v, 1); [TILE, ld] gradients of exponents; [TILE, d] */
  float *sum, *sum_g; /* [TILE]; [dv + 1] (g, e) over all queries, then dZ over all features */
  float *none;        /* [TILE] zeros */
} grads;

static grads grads_at(const plan *pl, attn_layout *at) {
  const int64_t m = pl->m, side = pl->pb.dv + 1;
  grads g = {.w = work_at(pl, at)};
  g.zd = attn_place_floats(at, m, side);
  g.zdt = attn_place_floats(at, attn_padded(pl->mk, m), side);
  g.g = attn_place_floats(at, TILE, side);
  g.du = attn_place_floats(at, TILE, pl->ld);
  g.dx = attn_place_floats(at, TILE, pl->pb.d);
  g.sum = attn_place_floats(at, 1, TILE);
  g.sum_g = attn_place_floats(at, 1, side);
  g.none = attn_place_floats(at, 1, TILE);
  return g;
}
static size_t grads_bytes(const plan *pl) {
  attn_layout at = {0};
  (void)grads_at(pl, &at);
  return at.used;
}

/* saved is a built plan: features are computed again. */
static attn_status train_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  ATTN_FAIL_IF(pb->causal, ATTN_ERR_UNSUPPORTED, "performer: training has no causal form");
  plan pl;
  attn_layout at = {0};
  lay_out(&pl, pb, params, &at);
  ATTN_TRY(performer_sizes(pb, params, need));
  need->scratch = attn_mul((size_t)pb->threads, grads_bytes(&pl)); /* holds a work */
  return ATTN_OK;
}

static attn_status train_forward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                 const uint8_t *kmask, float drop, uint64_t key, attn_viewm out, void *saved, void *scratch) {
  (void)drop, (void)key;
  ATTN_FAIL_IF(pb->causal, ATTN_ERR_UNSUPPORTED, "performer: training has no causal form");
  ATTN_TRY(performer_prepare(saved, pb, params));
  ATTN_TRY(performer_build(saved, k, v, kmask, scratch));
  return performer_forward(saved, params, q, out, scratch, NULL);
}

/* Gradient of `rows` inputs x with features w.e from g->g: into g->dx. */
static void input_grad(const plan *pl, grads *g, int64_t rows, const float *x, ptrdiff_t stride) {
  static const attn_drop no_drop = {0};
  const attn_micro *mk = pl->mk;
  const int64_t m = pl->m, d = pl->pb.d, side = pl->pb.dv + 1, ld = pl->ld;
  float *e = g->w.e;
  mk->gemm(rows, m, side, g->g, side, 1, g->zdt, mk->panel, mk->panel * side, g->du, ld, 0);
  if (pl->par.kernel != EXP)
    for (int64_t i = 0; i < rows; i++)
      for (int64_t r = 0; r < m; r++) e[i * ld + r] = e[i * ld + r] > 0.0f ? 1.0f : 0.0f;
  mk->softmax_grad(rows, m, e, g->du, ld, g->none, &no_drop, 0, 0); /* du = e du */
  mk->gemm(rows, d, m, g->du, ld, 1, pl->w, d, mk->panel, g->dx, d, 0);
  if (pl->half == 0.0f) return;
  mk->dots(rows, m, pl->ones, g->du, ld, g->sum);
  const float c2 = (float)(2.0 * (double)pl->half * LN2);
  for (int64_t i = 0; i < rows; i++) mk->axpy(d, -c2 * g->sum[i], x + i * stride, g->dx + i * d);
}

/* Queries of one head: dq, and their share of [dZ dD], which takes the place of so far unused rows in dzd. */
static void query_grad(const plan *pl, grads *g, int64_t ib, int64_t ih, attn_view q, attn_view out, attn_view dout,
                       attn_viewm dq, float *dz, float *dd) {
  const attn_problem *pb = &pl->pb;
  const attn_micro *mk = pl->mk;
  const int64_t m = pl->m, d = pb->d, dv = pb->dv, side = dv + 1, head = ib * pb->hkv + ih / (pb->h / pb->hkv);
  for (int64_t i0 = 0; i0 < pb->nq; i0 += TILE) {
    const int64_t rows = pb->nq - i0 < TILE ? pb->nq - i0 : TILE;
    const float *x = q.p + ib * q.sb + ih * q.sh + i0 * q.sn;
    read_queries(pl, &g->w, rows, x, q.sn, head);
    for (int64_t i = 0; i < rows; i++) {
      const float *o = out.p + ib * out.sb + ih * out.sh + (i0 + i) * out.sn;
      const float *to = dout.p + ib * dout.sb + ih * dout.sh + (i0 + i) * dout.sn, inverse = 1.0f / g->w.den[i];
      float *gi = g->g + i * side;
      for (int64_t t = 0; t < dv; t++) gi[t] = to[t] * inverse;
      gi[dv] = -mk->dot(dv, to, o) * inverse;
      mk->axpy(side, 1.0f, gi, g->sum_g);
      for (int64_t t = 0; t < side; t++) gi[t] *= g->w.f[i];
    }
    mk->gemm(m, dv, rows, g->w.e, 1, pl->ld, g->g, side, mk->panel, dz, dv, 1);
    mk->gemm(1, m, rows, g->g + dv, 1, side, g->w.e, pl->ld, mk->panel, dd, m, 1);
    input_grad(pl, g, rows, x, q.sn);
    for (int64_t i = 0; i < rows; i++)
      memcpy(dq.p + ib * dq.sb + ih * dq.sh + (i0 + i) * dq.sn, g->dx + i * d, (size_t)d * sizeof(float));
  }
}

/* Keys and values of one key head, from [dZ dD]. */
static void key_grad(const plan *pl, grads *g, int64_t head, attn_view k, attn_view v, attn_viewm dk, attn_viewm dv, const float *dz) {
  const attn_problem *pb = &pl->pb;
  const attn_micro *mk = pl->mk;
  const int64_t ib = head / pb->hkv, ik = head % pb->hkv, kept = pl->count[ib], width = pb->dv, side = width + 1;
  const int32_t *idx = pl->idx + ib * pb->nk;
  const float top = *total_of(pl, head).top, eps = (float)pl->par.eps;
  float *to_k = dk.p + ib * dk.sb + ik * dk.sh, *to_v = dv.p + ib * dv.sb + ik * dv.sh;
  memset(g->sum_g, 0, (size_t)side * sizeof(float));
  for (int64_t r = 0; r < pl->m; r++) mk->axpy(width, 1.0f, dz + r * width, g->sum_g);
  for (int64_t j = 0; j < pb->nk && kept < pb->nk; j++) {
    memset(to_k + j * dk.sn, 0, (size_t)pb->d * sizeof(float));
    memset(to_v + j * dv.sn, 0, (size_t)width * sizeof(float));
  }
  for (int64_t j = 0; j < kept; j += TILE) {
    const int64_t rows = kept - j < TILE ? kept - j : TILE;
    ptrdiff_t ks = k.sn, vs = v.sn;
    const float *x = gather(attn_key_head(k, pb, head), &ks, idx + j, rows, pb->d, g->w.x);
    const float *y = gather(attn_key_head(v, pb, head), &vs, idx + j, rows, width, g->w.v);
    features(pl, rows, x, ks, g->w.e, &g->w);
    (void)key_exponents(&g->w, rows);
    mk->gemm(rows, width, pl->m, g->w.e, pl->ld, 1, dz, width, mk->panel, g->w.o, width, 0);
    for (int64_t i = 0; i < rows; i++) {
      const float f = exp2f(g->w.lk[i] - top);
      float *gi = g->g + i * side, *vi = to_v + idx[j + i] * dv.sn;
      for (int64_t t = 0; t < width; t++) gi[t] = f * y[i * vs + t];
      gi[width] = f;
      for (int64_t t = 0; t < width; t++) vi[t] = f * g->w.o[i * width + t] + eps * g->sum_g[t];
    }
    input_grad(pl, g, rows, x, ks);
    for (int64_t i = 0; i < rows; i++) memcpy(to_k + idx[j + i] * dk.sn, g->dx + i * pb->d, (size_t)pb->d * sizeof(float));
  }
}

/* Puts [z d] side by side and packs it. */
static void pack_sides(const plan *pl, grads *g, const float *z, const float *d) {
  const int64_t dv = pl->pb.dv, side = dv + 1;
  for (int64_t r = 0; r < pl->m; r++) {
    memcpy(g->zd + r * side, z + r * dv, (size_t)dv * sizeof(float));
    g->zd[r * side + dv] = d[r];
  }
  attn_pack_transposed(pl->mk, pl->m, side, g->zd, side, NULL, 1.0f, g->zdt);
}

static attn_status train_backward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                  const uint8_t *kmask, float drop, uint64_t key, attn_view out, attn_view dout, attn_viewm dq,
                                  attn_viewm dk, attn_viewm dv, float *dweights, void *saved, void *scratch) {
  (void)params, (void)kmask, (void)drop, (void)key, (void)dweights;
  const plan *pl = saved;
  const int64_t m = pl->m, side = pb->dv + 1, group = pb->h / pb->hkv;
  const float eps = (float)pl->par.eps;
#pragma omp parallel num_threads(pb->threads)
  {
    attn_layout at = {.p = (char *)scratch + (size_t)omp_get_thread_num() * grads_bytes(pl)};
    grads g = grads_at(pl, &at);
    memset(g.none, 0, TILE * sizeof(float));
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < pb->b * pb->hkv; head++) {
      const int64_t ib = head / pb->hkv, first = head % pb->hkv * group;
      const sums s = total_of(pl, head), gs = part_of(pl, head, 0); /* whose chunks are summed up, so it serves as [dZ, dD] */
      memset(gs.z, 0, (size_t)(m * side) * sizeof(float));
      memset(g.sum_g, 0, (size_t)side * sizeof(float));
      pack_sides(pl, &g, s.z, s.d);
      for (int64_t ih = first; ih < first + group; ih++) {
        if (pl->count[ib]) query_grad(pl, &g, ib, ih, q, out, dout, dq, gs.z, gs.d);
        for (int64_t i = 0; i < pb->nq && !pl->count[ib]; i++)
          memset(dq.p + ib * dq.sb + ih * dq.sh + i * dq.sn, 0, (size_t)pb->d * sizeof(float));
      }
      for (int64_t r = 0; r < m; r++) {
        pl->mk->axpy(pb->dv, eps, g.sum_g, gs.z + r * pb->dv);
        gs.d[r] += eps * g.sum_g[pb->dv];
      }
      pack_sides(pl, &g, gs.z, gs.d);
      key_grad(pl, &g, head, k, v, dk, dv, gs.z);
    }
  }
  return ATTN_OK;
}

static const attn_training performer_training = {.sizes = train_sizes, .forward = train_forward, .backward = train_backward};

/* --- the method --------------------------------------------------------------------------------------------------- */

static const char *const kernels[] = {"exp", "relu", "relu_plain", NULL}, *const projections[] = {"orthogonal", "iid", NULL};
static const char *const scalings[] = {"once", "twice", NULL}, *const paddings[] = {"skip", "leak", NULL};
static const char *const redraws[] = {"seed", "never", NULL};
static const attn_param performer_table[] = {
    {.key = "features", .doc = "random features", .type = ATTN_P_INT, .offset = offsetof(performer_params, features), .dflt = 256, .min = 1, .max = 16384},
    {.key = "kernel", .doc = "exp: softmax features; relu: the generalised kernel; relu_plain: relu of q and k as they are", .type = ATTN_P_CHOICE, .offset = offsetof(performer_params, kernel), .choices = kernels},
    {.key = "eps", .doc = "added to every feature; references: 1e-4, 1e-6 (exp), 1e-3 (relu)", .type = ATTN_P_REAL, .offset = offsetof(performer_params, eps), .dflt = 1e-4, .min = 1e-12, .max = 1},
    {.key = "projection", .doc = "directions: orthogonal in blocks of d, or independent", .type = ATTN_P_CHOICE, .offset = offsetof(performer_params, projection), .choices = projections},
    {.key = "scaling", .doc = "twice: logits q.k/d instead of q.k/sqrt(d), as in the LRA port", .type = ATTN_P_CHOICE, .offset = offsetof(performer_params, scaling), .choices = scalings},
    {.key = "padding", .doc = "leak: padded keys count as zeros in the denominator, as in the LRA port", .type = ATTN_P_CHOICE, .offset = offsetof(performer_params, padding), .choices = paddings},
    {.key = "redraw", .doc = "projection by the seed, in training anew every step; never: the same for good", .type = ATTN_P_CHOICE, .offset = offsetof(performer_params, redraw), .choices = redraws},
    {.key = NULL}};

const attn_method attn_method_performer = {
    .name = "performer",
    .version = "1",
    .cite = "arXiv:2009.14794",
    .doc = "FAVOR+: softmax kernel by positive random features, linear in n; trained anew",
    .caps = ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_CROSS | ATTN_CAP_GQA | ATTN_CAP_NEEDS_TRAINING | ATTN_CAP_RANDOMISED |
            ATTN_CAP_STOCHASTIC | ATTN_CAP_ORDER_FREE,
    .params_size = sizeof(performer_params),
    .params = performer_table,
    .check = performer_check,
    .sizes = performer_sizes,
    .prepare = performer_prepare,
    .build = performer_build,
    .forward = performer_forward,
    .release = performer_release,
    .training = &performer_training,
};
