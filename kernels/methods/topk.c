/* topk.c - attention over the k best keys of each query, found exactly: the oracle of every k-nearest-neighbour method.
 *
 * Idea    All scores are computed, the k largest kept (ties: lower position), the softmax is taken over those alone. Scores
 *         come block by block from a small GEMM, as in dense.c. Each row collects the scores that pass its bar in a short
 *         list; when the list is full it is cut back to its k best and the bar rises to the worst of them. After the first
 *         blocks few scores pass, so that selection costs about one comparison per score.
 * Source  The definition; sets as in Gupta et al. 2021 (arXiv:2106.06899), cutting by quickselect (Hoare 1961).
 * Cost    2 nq nk d flops for scores, 2 nq k dv for values; scratch per thread = one list of up to nk keys per row of a
 *         register tile. No method that scores every key can be more than twice as fast as dense.
 * Limits  f32: keys whose scores differ by rounding only may swap. A NaN score counts as best, so it reaches its row. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/attn.h"
#include "kernels/core/alloc.h"
#include "kernels/core/select.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/micro/micro.h"

enum {
  BLOCK_Q = 96,      /* query rows of a task; a multiple of every register tile */
  MAX_ROWS = 16,     /* no register tile has more rows                          */
  BLOCK_K = 256,     /* keys scored at once                                     */
  LD = BLOCK_K + 16, /* row stride of their scores                              */
  GROUP = 16         /* scores compared with the bar at once                    */
};

typedef struct topk_params {
  int64_t k;
} topk_params;

typedef struct topk_plan {
  attn_problem pb;
  const attn_micro *mk;
  int built;
  int64_t kt_stride; /* floats per (batch, key head)         */
  int64_t *count;    /* [b] kept keys                        */
  int32_t *idx;      /* [b, nk] their positions              */
  float *kt;         /* [b, hkv] kept keys, transposed panels */
  attn_view v;
} topk_plan;

/* --- memory ------------------------------------------------------------------------------------------------------- */

typedef struct topk_scratch { /* one thread's */
  float *q, *s, *o;           /* [BLOCK_Q, d], [MAX_ROWS, LD], [dv] */
  attn_hit *hit;              /* [MAX_ROWS, list] */
  float *weight;              /* [list] */
  int32_t *key;               /* [list] */
} topk_scratch;

/* Room of a row's list: all keys, and a block that arrives before it is cut. k is not known when memory is sized. */
static int64_t list_room(const attn_problem *pb) { return (pb->nk + BLOCK_K + 15) / 16 * 16; }

static size_t thread_bytes(const attn_problem *pb) {
  const size_t room = (size_t)list_room(pb);
  const size_t fixed = ((size_t)BLOCK_Q * (size_t)pb->d + (size_t)MAX_ROWS * LD + (size_t)pb->dv) * sizeof(float);
  return attn_add(attn_round(fixed), attn_mul(room, MAX_ROWS * sizeof(attn_hit) + sizeof(float) + sizeof(int32_t)));
}

static topk_scratch scratch_of(void *scratch, const attn_problem *pb, int thread) {
  char *at = (char *)scratch + (size_t)thread * attn_round(thread_bytes(pb));
  const int64_t room = list_room(pb);
  topk_scratch s;
  s.hit = (attn_hit *)(void *)at, at += (size_t)(MAX_ROWS * room) * sizeof(attn_hit);
  s.weight = (float *)(void *)at, at += (size_t)room * sizeof(float);
  s.key = (int32_t *)(void *)at, at += (size_t)room * sizeof(int32_t);
  s.s = (float *)(void *)at;
  s.q = s.s + MAX_ROWS * LD;
  s.o = s.q + BLOCK_Q * pb->d;
  return s;
}

static attn_status topk_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  (void)params;
  const attn_micro *mk = attn_micro_get();
  const size_t heads = attn_mul((size_t)pb->b, (size_t)pb->hkv);
  const size_t kt = attn_mul((size_t)attn_padded(mk, pb->nk), (size_t)pb->d);
  size_t plan = attn_round(sizeof(topk_plan));
  plan = attn_add(plan, attn_round(attn_mul((size_t)pb->b, sizeof(int64_t))));
  plan = attn_add(plan, attn_round(attn_mul(attn_mul((size_t)pb->b, (size_t)pb->nk), sizeof(int32_t))));
  need->plan = attn_add(plan, attn_mul(attn_mul(heads, kt), sizeof(float)));
  need->scratch = attn_mul((size_t)pb->threads, attn_round(thread_bytes(pb)));
  return ATTN_OK;
}

static attn_status topk_prepare(void *plan, const attn_problem *pb, const void *params) {
  (void)params;
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "topk: plan is null or not 64-byte aligned");
  topk_plan *pl = plan;
  *pl = (topk_plan){.pb = *pb, .mk = attn_micro_get()};
  pl->kt_stride = attn_padded(pl->mk, pb->nk) * pb->d;
  char *at = (char *)plan + attn_round(sizeof *pl);
  pl->count = attn_carve(&at, (size_t)pb->b * sizeof(int64_t));
  pl->idx = attn_carve(&at, (size_t)(pb->b * pb->nk) * sizeof(int32_t));
  pl->kt = (float *)(void *)at;
  return ATTN_OK;
}

static attn_status topk_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  (void)scratch;
  topk_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "topk: build without plan");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv), ATTN_ERR_SHAPE,
               "topk: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  for (int64_t ib = 0; ib < pb->b; ib++)
    pl->count[ib] = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, pl->idx + ib * pb->nk);
#pragma omp parallel for num_threads(pb->threads) schedule(static)
  for (int64_t task = 0; task < pb->b * pb->hkv; task++) {
    const int64_t ib = task / pb->hkv, ih = task % pb->hkv;
    attn_pack_transposed(pl->mk, pl->count[ib], pb->d, k.p + ib * k.sb + ih * k.sh, k.sn, pl->idx + ib * pb->nk, 1.0f,
                         pl->kt + task * pl->kt_stride);
  }
  pl->v = v;
  pl->built = 1;
  return ATTN_OK;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

typedef struct topk_call { /* arguments of one forward */
  const topk_plan *pl;
  int64_t k;
  attn_view q;
  attn_viewm out;
  const attn_stats *st;
} topk_call;

typedef struct topk_list { /* the best keys of a row so far */
  attn_hit *hit;
  int64_t count;
  float bar; /* with k or more in the list: a score up to it is not among the k best */
} topk_list;

static void cut(topk_list *l, int64_t k) {
  if (l->count <= k) return;
  attn_select(l->hit, l->count, k);
  l->count = k;
  l->bar = l->hit[0].score;
  for (int64_t i = 1; i < k; i++) l->bar = l->hit[i].score < l->bar ? l->hit[i].score : l->bar;
}

static int any_passes(const float s[GROUP], float bar) { /* a fixed number, so that the compiler vectorises it */
  int any = 0;
  for (int j = 0; j < GROUP; j++) any |= !(s[j] <= bar);
  return any;
}

/* Adds the scores of keys idx[0..n), which follow those already seen; room for one more block is kept. */
static void collect(topk_list *l, int64_t k, int64_t room, const float *s, const int32_t *idx, int64_t n) {
  int64_t count = l->count;
  for (int64_t j = 0; j < n;) {
    if (count >= k && j + GROUP <= n && !any_passes(s + j, l->bar)) {
      j += GROUP;
      continue;
    }
    for (const int64_t end = n - j < GROUP ? n : j + GROUP; j < end; j++)
      if (count < k || !(s[j] <= l->bar)) l->hit[count++] = (attn_hit){isnan(s[j]) ? INFINITY : s[j], idx[j]};
  }
  l->count = count;
  if (count >= k + k / 2 + GROUP || count + BLOCK_K > room) cut(l, k);
}

/* Softmax over a row's list, values, and what the caller wants to know. */
static void attend(const topk_call *c, int64_t ib, int64_t ih, int64_t iq, const topk_list *l, const topk_scratch *sc) {
  const topk_plan *pl = c->pl;
  const attn_problem *pb = &pl->pb;
  const attn_micro *mk = pl->mk;
  const float *v = pl->v.p + ib * pl->v.sb + ih / (pb->h / pb->hkv) * pl->v.sh;
  float top = -INFINITY, lanes[16] = {0}, *to = c->out.p + ib * c->out.sb + ih * c->out.sh + iq * c->out.sn;
  for (int64_t i = 0; i < l->count; i++) sc->weight[i] = l->hit[i].score, sc->key[i] = l->hit[i].id;
  mk->softmax_block(1, l->count, sc->weight, l->count, NULL, &top, lanes, sc->o, 0, 0);
  const float sum = attn_lane_sum(lanes);
  memset(sc->o, 0, (size_t)pb->dv * sizeof(float));
  for (int64_t i = 0; i < l->count; i++) mk->axpy(pb->dv, sc->weight[i], v + sc->key[i] * pl->v.sn, sc->o);
  const float inv = 1.0f / sum; /* no visible key, or only scores of -inf: zeros */
  for (int64_t t = 0; t < pb->dv; t++) to[t] = sum != 0.0f ? sc->o[t] * inv : 0.0f;
  if (c->st && c->st->on_keys && l->count) c->st->on_keys(c->st->ctx, ib, ih, iq, sc->key, l->count);
  if (c->st && c->st->lse) c->st->lse[(ib * pb->h + ih) * pb->nq + iq] = attn_lse(top, sum);
}

/* Up to a register tile of rows from i0 on, their scaled queries at q. Returns the products evaluated. */
static uint64_t attend_tile(const topk_call *c, int64_t ib, int64_t ih, int64_t i0, int64_t rows, const float *q,
                            const topk_scratch *sc) {
  const topk_plan *pl = c->pl;
  const attn_problem *pb = &pl->pb;
  const attn_micro *mk = pl->mk;
  const int64_t room = list_room(pb), d = pb->d;
  const int32_t *idx = pl->idx + ib * pb->nk;
  const float *kt = pl->kt + (ib * pb->hkv + ih / (pb->h / pb->hkv)) * pl->kt_stride;
  topk_list list[MAX_ROWS];
  int64_t prefix[MAX_ROWS] = {0};
  uint64_t pairs = 0;
  for (int64_t i = 0; i < rows; i++) {
    prefix[i] = attn_prefix(pb, idx, pl->count[ib], i0 + i);
    pairs += (uint64_t)prefix[i];
    list[i] = (topk_list){.hit = sc->hit + i * room, .bar = -INFINITY};
  }
  for (int64_t j0 = 0; j0 < prefix[rows - 1]; j0 += BLOCK_K) { /* of causal prefixes the last is the longest */
    const int64_t left = prefix[rows - 1] - j0, cols = left < BLOCK_K ? left : BLOCK_K;
    mk->gemm(rows, cols, d, q, d, 1, kt + j0 * d, mk->panel, mk->panel * d, sc->s, LD, 0);
    for (int64_t i = 0; i < rows; i++) {
      const int64_t n = prefix[i] - j0;
      collect(&list[i], c->k, room, sc->s + i * LD, idx + j0, n < cols ? n : cols);
    }
  }
  for (int64_t i = 0; i < rows; i++) {
    cut(&list[i], c->k);
    attend(c, ib, ih, i0 + i, &list[i], sc);
  }
  return pairs;
}

/* Bytes read: tiles of queries stream the keys, and each query the values of its own. Tiles do not go beyond a task. */
static uint64_t bytes_read(const topk_plan *pl, int64_t k) {
  const attn_problem *pb = &pl->pb;
  uint64_t keys = 0, values = 0;
  for (int64_t ib = 0; ib < pb->b; ib++)
    for (int64_t i = 0; i < pb->nq; i++) {
      const int64_t sees = attn_prefix(pb, pl->idx + ib * pb->nk, pl->count[ib], i), last = i % BLOCK_Q + 1;
      if (last % pl->mk->rows == 0 || last == BLOCK_Q || i + 1 == pb->nq) keys += (uint64_t)sees;
      values += (uint64_t)(sees < k ? sees : k);
    }
  return (keys * (uint64_t)pb->d + values * (uint64_t)pb->dv) * (uint64_t)pb->h * sizeof(float);
}

static attn_status topk_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                attn_stats *st) {
  const topk_plan *pl = plan;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "topk: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "topk: scratch is null or not 64-byte aligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nq > 0 && (q.sn < pb->d || out.sn < pb->dv), ATTN_ERR_SHAPE,
               "topk: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn, (long long)pb->d,
               (long long)pb->dv);
  const topk_call call = {.pl = pl, .k = ((const topk_params *)params)->k, .q = q, .out = out, .st = st};
  const float factor = (float)(pb->scale * LOG2E);
  const int64_t blocks = (pb->nq + BLOCK_Q - 1) / BLOCK_Q, heads = pb->b * pb->h;
  uint64_t pairs = 0;
#pragma omp parallel num_threads(pb->threads) reduction(+ : pairs)
  {
    const topk_scratch sc = scratch_of(scratch, pb, omp_get_thread_num());
    /* Last blocks first: with a causal mask they are the long ones. */
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * blocks; task++) {
      const int64_t ib = task % heads / pb->h, ih = task % heads % pb->h, i0 = (blocks - 1 - task / heads) * BLOCK_Q;
      const int64_t rows = pb->nq - i0 < BLOCK_Q ? pb->nq - i0 : BLOCK_Q, tile = pl->mk->rows;
      for (int64_t i = 0; i < rows; i++)
        for (int64_t t = 0; t < pb->d; t++)
          sc.q[i * pb->d + t] = q.p[ib * q.sb + ih * q.sh + (i0 + i) * q.sn + t] * factor;
      for (int64_t i = 0; i < rows; i += tile)
        pairs += attend_tile(&call, ib, ih, i0 + i, rows - i < tile ? rows - i : tile, sc.q + i * pb->d, &sc);
    }
  }
  if (st) st->pairs = pairs, st->bytes = bytes_read(pl, call.k);
  return ATTN_OK;
}

static void topk_release(void *plan) { (void)plan; }

static const attn_param topk_table[] = {
    {.key = "k", .doc = "keys that a query attends to", .type = ATTN_P_INT, .late = 1, .offset = offsetof(topk_params, k), .dflt = 20, .min = 1, .max = 1 << 20},
    {.key = NULL}};

const attn_method attn_method_topk = {
    .name = "topk",
    .version = "1",
    .cite = "arXiv:2106.06899",
    .doc = "softmax over the k largest scores, found exactly; the oracle of k-nearest-neighbour attention",
    .caps = ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_CROSS | ATTN_CAP_GQA | ATTN_CAP_STOCHASTIC |
            ATTN_CAP_ORDER_FREE | ATTN_CAP_CONVERGES | ATTN_CAP_KEYSET,
    .params_size = sizeof(topk_params),
    .params = topk_table,
    .sizes = topk_sizes,
    .prepare = topk_prepare,
    .build = topk_build,
    .forward = topk_forward,
    .release = topk_release,
};
