/* htransformer1d.c - attention that looks more coarsely the farther it looks: H-Transformer-1D.
 *
 * Idea    Blocks of `rank` positions attend to themselves and to both neighbours. Above, tokens stand for 2, 4, 8 ... positions: means
 *         of queries and keys, and blocks of `rank` such tokens attend to their neighbours, except where the level below has done
 *         so already. So every pair of positions is met exactly once, at a level that fits its distance. A coarse key weighs as
 *         many times as it has positions: log2 of the count is added to its logit, and its value is the mean.
 * Sums    From the top level down: a row starts with the softmax state (maximum, sum, weighted values) of its coarse row and
 *         goes on with its own level, so that each row has one running maximum over all levels.
 * Source  Zhu & Soricut 2021 (arXiv:2107.11906), levels and coverage as in google/flaxformer h_attention.py; there one maximum
 *         serves a whole head, and rows far below it come out as 0 / 1. Not the PyTorch port of lucidrains, in which levels are added without a
 *         common maximum, counts are missing, and the halves of a sequence never meet. No relative position bias.
 * Causal  Own block up to the diagonal and left neighbours only; a coarse query is the first of its positions.
 * Masks   Masked positions are left out of all means and counts; their own rows are zeros. n is any number: what lacks to a power of
 *         two is as if masked, so padding at the end changes nothing.
 * Cost    20 rank n d flops; memory about 2 n (3 d + 2 dv) floats a head.
 * Dropout Falls on the weights of tiles: a pair of coarse tokens is kept or dropped for all positions that the two stand for.
 * Limits  f32. Two blocks or less: exact attention. */
#include "baselines/htransformer1d.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/core/clock.h"
#include "kernels/core/finite.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"

enum { RUN = 16 /* blocks of a task */ };

/* --- the hierarchy ------------------------------------------------------------------------------------------------ */

/* Sizes of the levels: the last has two blocks, or is the first. */
static void set_levels(ht_head *h, int64_t n) {
  h->levels = 0, h->rows = 0;
  do {
    ht_level *l = &h->level[h->levels++];
    *l = (ht_level){.n = n, .at = h->rows, .ld = (n + 15) / 16 * 16 + 16}; /* rows of K^T shall not share cache sets */
    h->rows += n;
    n = (n + 1) / 2;
  } while (h->level[h->levels - 1].n > 2 * h->rank && h->levels < HT_LEVELS);
}

int64_t ht_rows(int64_t n, int64_t rank) {
  ht_head h = {.rank = rank};
  set_levels(&h, n);
  return h.rows;
}

void ht_place_keys(attn_layout *at, const attn_problem *pb, const attn_micro *mk, int64_t rank, int backward, ht_head *h) {
  h->pb = pb, h->mk = mk, h->rank = rank;
  set_levels(h, pb->nk);
  for (int i = 0; i < h->levels; i++) {
    ht_level *l = &h->level[i];
    l->count = attn_place_floats(at, l->n, 1);
    l->bias = attn_place_floats(at, l->n, 1);
    l->kt = attn_place_floats(at, pb->d + 1, l->ld);
    l->vmean = attn_place_floats(at, l->n, pb->dv);
    l->kmean = i ? attn_place_floats(at, l->n, pb->d) : NULL;
    l->vt = backward ? attn_place_floats(at, pb->dv, l->ld) : NULL;
  }
}

void ht_place_queries(attn_layout *at, int states, ht_head *h) {
  for (int i = 0; i < h->levels; i++) {
    ht_level *l = &h->level[i];
    l->qmean = i ? attn_place_floats(at, l->n, h->pb->d) : NULL;
    if (!states) continue;
    l->o = i ? attn_place_floats(at, l->n, h->pb->dv) : NULL;
    l->m = attn_place_floats(at, l->n, 1);
    l->sum = attn_place_floats(at, l->n, 1);
  }
}

/* Row i of a level as the mean of its children that count. */
static void mean_row(const ht_level *below, const float *x, ptrdiff_t xs, int64_t i, int64_t width, float *to) {
  const int64_t a = 2 * i, b = 2 * i + 1;
  const float ca = below->count[a], cb = b < below->n ? below->count[b] : 0.0f, all = ca + cb;
  const float wa = all > 0.0f ? ca / all : 0.0f, wb = all > 0.0f ? cb / all : 0.0f;
  for (int64_t t = 0; t < width; t++) to[t] = wa > 0.0f ? wa * x[a * xs + t] : 0.0f;
  for (int64_t t = 0; t < width && wb > 0.0f; t++) to[t] += wb * x[b * xs + t];
}

/* out [width, ld] = rows of x transposed, zeros for those that do not count. */
static void transpose(const ht_level *l, const float *x, ptrdiff_t xs, int64_t width, float *out) {
  for (int64_t j0 = 0; j0 < l->n; j0 += 16) {
    const int64_t cols = l->n - j0 < 16 ? l->n - j0 : 16;
    const float *row[16];

    int whole = cols == 16;
    for (int64_t j = 0; j < cols; j++) row[j] = l->count[j0 + j] > 0.0f ? x + (j0 + j) * xs : NULL, whole &= row[j] != NULL;
    for (int64_t t = 0; t < width; t++) {
      float *to = out + t * l->ld + j0;
      if (whole)
        for (int j = 0; j < 16; j++) to[j] = row[j][t];
      else
        for (int64_t j = 0; j < cols; j++) to[j] = row[j] ? row[j][t] : 0.0f;
    }
  }
}

void ht_fill_keys(ht_head *h, const uint8_t *mask, const float *k, ptrdiff_t ks, const float *v, ptrdiff_t vs) {
  const int64_t d = h->pb->d, dv = h->pb->dv;
  h->wild = 0;
  for (int i = 0; i < h->levels; i++) {
    ht_level *l = &h->level[i], *below = l - 1;
    for (int64_t j = 0; j < l->n; j++) {
      l->count[j] = i ? below->count[2 * j] + (2 * j + 1 < below->n ? below->count[2 * j + 1] : 0.0f) : !mask || mask[j] ? 1.0f : 0.0f;
      l->bias[j] = j && l->count[j] == l->count[j - 1] ? l->bias[j - 1] : log2f(l->count[j]);
      if (i) {
        mean_row(below, below->k, below->ks, j, d, l->kmean + j * d);
        mean_row(below, below->v, below->vs, j, dv, l->vmean + j * dv);
      } else if (l->count[j] > 0.0f) {
        h->wild |= !attn_all_finite(dv, v + j * vs);
        if (mask) memcpy(l->vmean + j * dv, v + j * vs, (size_t)dv * sizeof(float));
      } else memset(l->vmean + j * dv, 0, (size_t)dv * sizeof(float));
    }
    l->k = i ? l->kmean : k, l->ks = i ? d : ks;
    l->v = i || mask ? l->vmean : v, l->vs = i || mask ? dv : vs;
    transpose(l, l->k, l->ks, d, l->kt);
    memcpy(l->kt + d * l->ld, l->bias, (size_t)l->n * sizeof(float));
    if (l->vt) transpose(l, l->v, l->vs, dv, l->vt);
  }
}

void ht_fill_queries(ht_head *h, const float *q, ptrdiff_t qs) {
  const int64_t d = h->pb->d;
  h->level[0].q = q, h->level[0].qs = qs;
  for (int i = 1; i < h->levels; i++) {
    ht_level *l = &h->level[i], *below = l - 1;
    for (int64_t j = 0; j < l->n; j++)
      if (!h->pb->causal) mean_row(below, below->q, below->qs, j, d, l->qmean + j * d);
      else if (l->count[j] > 0.0f) memcpy(l->qmean + j * d, below->q + ht_first_child(below, j) * below->qs, (size_t)d * sizeof(float));
      else memset(l->qmean + j * d, 0, (size_t)d * sizeof(float));
    l->q = l->qmean, l->qs = d;
  }
}

/* --- tiles -------------------------------------------------------------------------------------------------------- */

ht_tile ht_tile_of(const ht_head *h, int level, int64_t block) {
  const int64_t n = h->level[level].n, r = h->rank, i0 = block * r, end = i0 + r < n ? i0 + r : n;
  const int64_t left = block ? i0 - r : 0, right = h->pb->causal ? end : end + r < n ? end + r : n;
  ht_tile t = {.i0 = i0, .rows = end - i0};
  if (level == 0) t.parts = 1, t.j0[0] = left, t.cols[0] = right - left;
  else {
    if (block) t.j0[t.parts] = left, t.cols[t.parts++] = r;
    if (right > end) t.j0[t.parts] = end, t.cols[t.parts++] = right - end;
  }
  for (int p = 0; p < t.parts; p++) t.width += t.cols[p];
  return t;
}

void ht_place_work(attn_layout *at, const attn_problem *pb, int64_t rank, int backward, ht_work *w) {
  w->ld = 3 * rank + 16;
  w->q = attn_place_floats(at, rank, pb->d + 1);
  w->s = attn_place_floats(at, rank, w->ld);
  w->lse2 = attn_place_floats(at, rank, 1);
  w->delta = attn_place_floats(at, rank, 1);
  if (backward) {
    w->ds = attn_place_floats(at, rank, w->ld);
    return;
  }
  w->o = attn_place_floats(at, rank, pb->dv);
  w->m = attn_place_floats(at, rank, 1);
  w->l = attn_place_floats(at, rank, 16);
}

static void hide(float *s, int64_t ld, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  for (int64_t i = i0; i < i1; i++)
    for (int64_t j = j0; j < j1; j++) s[i * ld + j] = -INFINITY;
}

void ht_score(const ht_head *h, int level, const ht_tile *t, ht_work *w) {
  const ht_level *l = &h->level[level];
  const int64_t d = h->pb->d, half = h->rank / 2;
  const float factor = (float)(h->pb->scale * LOG2E);
  for (int64_t i = 0; i < t->rows; i++) {
    const int counts = l->count[t->i0 + i] > 0.0f;
    const float *q = l->q + (t->i0 + i) * l->qs;
    float *to = w->q + i * (d + 1);
    for (int64_t x = 0; x < d; x++) to[x] = counts ? q[x] * factor : 0.0f;
    to[d] = 1.0f;
  }
  float *s = w->s;
  for (int p = 0; p < t->parts; s += t->cols[p++]) {
    const int64_t cols = t->cols[p];
    h->mk->gemm(t->rows, cols, d + 1, w->q, d + 1, 1, l->kt + t->j0[p], l->ld, h->mk->panel, s, w->ld, 0);
    if (level == 0) {
      for (int64_t i = 0; i < t->rows && h->pb->causal; i++) hide(s, w->ld, i, i + 1, t->i0 + i - t->j0[0] + 1, cols);
    } else if (t->j0[p] < t->i0) /* the level below has met rows of the first half with columns of the second */
      hide(s, w->ld, 0, t->rows < half ? t->rows : half, half, cols);
    else
      hide(s, w->ld, half, t->rows, 0, half < cols ? half : cols);
  }
}

/* Rows of a tile start with the state of their parents. */
static void load_states(const ht_head *h, int level, const ht_tile *t, const ht_work *w) {
  const int64_t dv = h->pb->dv;
  const ht_level *up = level + 1 < h->levels ? &h->level[level + 1] : NULL;
  memset(w->l, 0, (size_t)t->rows * 16 * sizeof(float));
  for (int64_t i = 0; i < t->rows; i++) {
    const int64_t parent = (t->i0 + i) / 2;
    w->m[i] = up ? up->m[parent] : -INFINITY;
    w->l[i * 16] = up ? up->sum[parent] : 0.0f;
    if (up) memcpy(w->o + i * dv, up->o + parent * dv, (size_t)dv * sizeof(float));
    else memset(w->o + i * dv, 0, (size_t)dv * sizeof(float));
  }
}

/* States of a tile into the level, or, of level 0, rows into out. */
static void store_states(const ht_head *h, int level, const ht_tile *t, const ht_work *w, float *out, ptrdiff_t os) {
  const int64_t dv = h->pb->dv;
  const ht_level *l = &h->level[level];
  for (int64_t i = 0; i < t->rows; i++) {
    const int64_t row = t->i0 + i;
    l->m[row] = w->m[i], l->sum[row] = attn_lane_sum(w->l + i * 16);
    if (level) memcpy(l->o + row * dv, w->o + i * dv, (size_t)dv * sizeof(float));
    else if (l->count[row] > 0.0f) attn_close_row(dv, w->o + i * dv, w->m[i], w->l + i * 16, out + row * os, NULL);
    else {
      memset(out + row * os, 0, (size_t)dv * sizeof(float));
      l->m[row] = -INFINITY, l->sum[row] = 0.0f;
    }
  }
}

/* Blocks [b0, b1) of a level whose parents are done. Returns the products evaluated. */
static uint64_t attend(const ht_head *h, int level, int64_t b0, int64_t b1, const attn_drop *dr, ht_work *w, float *out, ptrdiff_t os) {
  const attn_micro *mk = h->mk;
  const ht_level *l = &h->level[level];
  const int64_t dv = h->pb->dv;
  uint64_t pairs = 0;
  for (int64_t b = b0; b < b1; b++) {
    const ht_tile t = ht_tile_of(h, level, b);
    load_states(h, level, &t, w);
    int counts = 0;
    for (int64_t i = 0; i < t.rows; i++) counts |= l->count[t.i0 + i] > 0.0f;
    if (!counts) { /* nobody asks */
      store_states(h, level, &t, w, out, os);
      continue;
    }
    ht_score(h, level, &t, w);
    mk->softmax_block(t.rows, t.width, w->s, w->ld, NULL, w->m, w->l, w->o, dv, dv);
    mk->drop_block(t.rows, t.width, w->s, w->ld, dr, l->at + t.i0, 0);
    const float *s = w->s;
    for (int p = 0; p < t.parts; s += t.cols[p++]) {
      const float *v = l->v + t.j0[p] * l->vs;
      if (!h->wild) mk->gemm(t.rows, dv, t.cols[p], s, w->ld, 1, v, l->vs, mk->panel, w->o, dv, 1);
      else
        for (int64_t i = 0; i < t.rows; i++) /* in the order of gemm: same bits */
          for (int64_t j = 0; j < t.cols[p]; j++)
            if (s[i * w->ld + j] != 0.0f) mk->axpy(dv, s[i * w->ld + j], v + j * l->vs, w->o + i * dv);
    }
    store_states(h, level, &t, w, out, os);
    pairs += (uint64_t)(t.rows * t.width);
  }
  return pairs;
}

/* --- the method --------------------------------------------------------------------------------------------------- */

typedef struct ht_plan {
  attn_problem pb;
  ht_params p;
  int built;
  char *keys;        /* [b, h] blocks of key_bytes */
  size_t key_bytes;
  ht_head *head;     /* [b, h] */
} ht_plan;

static size_t key_bytes(const attn_problem *pb, const ht_params *p) {
  ht_head h;
  attn_layout at = {0};
  ht_place_keys(&at, pb, attn_micro_get(), p->rank, 0, &h);
  return at.used;
}
static size_t query_bytes(const attn_problem *pb, const ht_params *p) {
  ht_head h = {.pb = pb, .rank = p->rank};
  attn_layout at = {0};
  set_levels(&h, pb->nk);
  ht_place_queries(&at, 1, &h);
  return at.used;
}
static size_t work_bytes(const attn_problem *pb, const ht_params *p) {
  ht_work w;
  attn_layout at = {0};
  ht_place_work(&at, pb, p->rank, 0, &w);
  return at.used;
}

static attn_status ht_check(const attn_problem *pb, const void *params) {
  const ht_params *p = params;
  (void)pb;
  ATTN_FAIL_IF(p->rank % 2 != 0, ATTN_ERR_PARAM, "htransformer1d.rank = %lld, allowed even numbers", (long long)p->rank);
  return ATTN_OK;
}

static attn_status ht_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  const size_t heads = (size_t)(pb->b * pb->h);
  need->plan = attn_add(attn_round(sizeof(ht_plan)), attn_add(attn_round(attn_mul(heads, sizeof(ht_head))), attn_mul(heads, key_bytes(pb, params))));
  need->scratch = attn_add(attn_round(attn_mul(heads, sizeof(ht_head))),
                           attn_add(attn_mul(heads, query_bytes(pb, params)), attn_mul((size_t)pb->threads, work_bytes(pb, params))));
  return ATTN_OK;
}

static attn_status ht_prepare(void *plan, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "htransformer1d: plan is null or not 64-byte aligned");
  char *at = plan;
  ht_plan *pl = attn_carve(&at, sizeof *pl);
  *pl = (ht_plan){.pb = *pb, .p = *(const ht_params *)params, .key_bytes = key_bytes(pb, params)};
  pl->head = attn_carve(&at, (size_t)(pb->b * pb->h) * sizeof(ht_head));
  pl->keys = at;
  return ATTN_OK;
}

static attn_status ht_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  (void)scratch;
  ht_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "htransformer1d: build without plan");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv), ATTN_ERR_SHAPE,
               "htransformer1d: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
#pragma omp parallel for num_threads(pb->threads) schedule(dynamic)
  for (int64_t head = 0; head < pb->b * pb->h; head++) {
    attn_layout at = {.p = pl->keys + (size_t)head * pl->key_bytes};
    ht_place_keys(&at, pb, attn_micro_get(), pl->p.rank, 0, pl->head + head);
    ht_fill_keys(pl->head + head, kmask ? kmask + head / pb->h * pb->nk : NULL, attn_key_head(k, pb, head), k.sn,
                 attn_key_head(v, pb, head), v.sn);
  }
  pl->built = 1;
  return ATTN_OK;
}

attn_status ht_run(const void *plan, const ht_call *call, void *scratch, attn_stats *st) {
  const ht_plan *pl = plan;
  const attn_problem *pb = &pl->pb;
  const int64_t heads = pb->b * pb->h, rows = ht_rows(pb->nk, pl->p.rank);
  const size_t queries = query_bytes(pb, &pl->p), work = work_bytes(pb, &pl->p);
  char *at = scratch;
  ht_head *head = attn_carve(&at, (size_t)heads * sizeof *head); /* the plan's, with queries */
  uint64_t pairs = 0;
#pragma omp parallel num_threads(pb->threads) reduction(+ : pairs)
  {
    ht_work w;
    attn_layout own = {.p = at + (size_t)heads * queries + (size_t)omp_get_thread_num() * work};
    ht_place_work(&own, pb, pl->p.rank, 0, &w);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < heads; i++) {
      attn_layout lay = {.p = at + (size_t)i * queries};
      head[i] = pl->head[i];
      ht_place_queries(&lay, 1, head + i);
      ht_fill_queries(head + i, call->q.p + i / pb->h * call->q.sb + i % pb->h * call->q.sh, call->q.sn);
    }
    for (int level = pl->head[0].levels - 1; level >= 0; level--) {
      const int64_t blocks = ht_blocks(pl->head, level), runs = (blocks + RUN - 1) / RUN;
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < heads * runs; task++) {
        const int64_t i = task / runs, b0 = task % runs * RUN, ib = i / pb->h, ih = i % pb->h;
        const attn_drop dr = attn_drop_make(call->drop, attn_hash(call->key, (uint64_t)ib, (uint64_t)ih));
        pairs += attend(head + i, level, b0, b0 + RUN < blocks ? b0 + RUN : blocks, &dr, &w, call->out.p + ib * call->out.sb + ih * call->out.sh,
                        call->out.sn);
      }
    }
  }
  for (int64_t i = 0; i < heads && call->lse2; i++)
    for (int level = 0; level < head[i].levels; level++) {
      const ht_level *l = &head[i].level[level];
      for (int64_t j = 0; j < l->n; j++)
        call->lse2[i * rows + l->at + j] = l->sum[j] != 0.0f ? (float)((double)l->m[j] + log2((double)l->sum[j])) : -INFINITY;
    }
  if (!st) return ATTN_OK;
  for (int64_t i = 0; i < heads && st->lse; i++)
    for (int64_t j = 0; j < pb->nk; j++) st->lse[i * pb->nk + j] = attn_lse(head[i].level[0].m[j], head[i].level[0].sum[j]);
  st->pairs = pairs;
  return ATTN_OK;
}

static attn_status ht_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch, attn_stats *st) {
  (void)params;
  const ht_plan *pl = plan;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "htransformer1d: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "htransformer1d: scratch is null or not 64-byte aligned");
  ATTN_FAIL_IF(pl->pb.nq > 0 && (q.sn < pl->pb.d || out.sn < pl->pb.dv), ATTN_ERR_SHAPE,
               "htransformer1d: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn,
               (long long)pl->pb.d, (long long)pl->pb.dv);
  return ht_run(plan, &(ht_call){.q = q, .out = out}, scratch, st);
}

static void ht_release(void *plan) { (void)plan; }

static const attn_param ht_table[] = {
    {.key = "rank", .doc = "positions of a block, tokens of a coarse one; even", .type = ATTN_P_INT, .offset = offsetof(ht_params, rank), .dflt = 16, .min = 2, .max = 1024},
    {.key = NULL}};

const attn_method attn_method_htransformer1d = {
    .name = "htransformer1d",
    .version = "1",
    .cite = "arXiv:2107.11906",
    .doc = "near blocks exactly, far ones by means over 2, 4, 8 ... positions; for models trained with it",
    .caps = ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_NEEDS_TRAINING | ATTN_CAP_STOCHASTIC,
    .params_size = sizeof(ht_params),
    .params = ht_table,
    .check = ht_check,
    .sizes = ht_sizes,
    .prepare = ht_prepare,
    .build = ht_build,
    .forward = ht_forward,
    .release = ht_release,
    .training = &attn_training_htransformer1d,
};
