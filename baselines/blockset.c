/* blockset.c - see blockset.h.
 *
 * Dropout of a pair is keyed by the position of the query, the place of the key's block in the list and the key's place in its block.
 * Cost    2 (d + dv) flops for each pair of a query and a key of the blocks it meets, hidden ones included; plan = packed copies of keys
 *         and values. */
#include "baselines/blockset.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"

typedef struct block_plan {
  attn_problem pb;
  block_pattern bp;
  set_dims sd;
  int built;
  int64_t *count;  /* [b] kept positions */
  int32_t *idx;    /* [b, n] them */
  set_keys *keys;  /* [b, h, blocks] */
  char *packed;    /* their memory, key_bytes each */
  size_t key_bytes;
} block_plan;

typedef struct block_thread { /* one thread's */
  set_rows rows;
  int32_t *list, *seen;  /* [blocks + random + 5], [n] */
  set_keys *keys;        /* backward: [blocks] */
  int32_t *idx;          /* backward: [n] */
} block_thread;

static set_dims dims_of(const attn_problem *pb) { return (set_dims){attn_micro_get(), pb->d, pb->dv}; }

static size_t key_bytes(const attn_problem *pb, const block_pattern *bp, int backward) {
  attn_layout at = {0};
  set_keys k;
  const set_dims sd = dims_of(pb);
  set_place_keys(&at, &sd, bp->block < pb->nk ? bp->block : pb->nk, backward, &k);
  return at.used;
}

static void place_thread(attn_layout *at, const attn_problem *pb, const block_pattern *bp, int backward, block_thread *t) {
  const set_dims sd = dims_of(pb);
  const int64_t blocks = block_count(pb, bp);
  *t = (block_thread){0};
  set_place_rows(at, &sd, backward, &t->rows);
  t->list = attn_place_floats(at, blocks + bp->random + 5, 1);
  t->seen = attn_place_floats(at, pb->nk, 1);
  if (!backward) return;
  t->idx = attn_place_floats(at, pb->nk, 1);
  t->keys = attn_place(at, attn_mul((size_t)blocks, sizeof(set_keys)));
}

attn_status block_sizes(const attn_problem *pb, const block_pattern *bp, attn_mem *need) {
  const size_t blocks = attn_mul((size_t)(pb->b * pb->h), (size_t)block_count(pb, bp));
  attn_layout thread = {0};
  block_thread t;
  place_thread(&thread, pb, bp, 0, &t);
  size_t plan = attn_round(sizeof(block_plan));
  plan = attn_add(plan, attn_round(attn_mul((size_t)pb->b, sizeof(int64_t))));
  plan = attn_add(plan, attn_round(attn_mul(attn_mul((size_t)pb->b, (size_t)pb->nk), sizeof(int32_t))));
  plan = attn_add(plan, attn_round(attn_mul(blocks, sizeof(set_keys))));
  need->plan = attn_add(plan, attn_mul(blocks, key_bytes(pb, bp, 0)));
  need->scratch = attn_mul((size_t)pb->threads, thread.used);
  return ATTN_OK;
}

attn_status block_prepare(void *plan, const attn_problem *pb, const block_pattern *bp) {
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "%s: plan is null or not 64-byte aligned", bp->name);
  char *at = plan;
  block_plan *pl = attn_carve(&at, sizeof *pl);
  *pl = (block_plan){.pb = *pb, .bp = *bp, .sd = dims_of(pb), .key_bytes = key_bytes(pb, bp, 0)};
  pl->count = attn_carve(&at, (size_t)pb->b * sizeof(int64_t));
  pl->idx = attn_carve(&at, (size_t)(pb->b * pb->nk) * sizeof(int32_t));
  pl->keys = attn_carve(&at, (size_t)(pb->b * pb->h * block_count(pb, bp)) * sizeof(set_keys));
  pl->packed = at;
  return ATTN_OK;
}

/* Kept positions below `end`. */
static int64_t kept_below(const int32_t *idx, int64_t count, int64_t end) {
  int64_t lo = 0, hi = count;
  while (lo < hi) {
    const int64_t mid = lo + (hi - lo) / 2;
    if (idx[mid] < end) lo = mid + 1;
    else hi = mid;
  }
  return lo;
}

/* Packs block c of a head. */
static void load_block(const set_dims *sd, const block_pattern *bp, const int32_t *idx, int64_t count, int64_t c, const float *k,
                       ptrdiff_t ks, const float *v, ptrdiff_t vs, set_keys *to) {
  const int64_t first = kept_below(idx, count, c * bp->block), end = kept_below(idx, count, (c + 1) * bp->block);
  set_load_keys(sd, to, end - first, idx + first, k, ks, NULL, v, vs);
}

attn_status block_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  (void)scratch;
  block_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "build without plan");
  const attn_problem *pb = &pl->pb;
  const int64_t blocks = block_count(pb, &pl->bp);
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv), ATTN_ERR_SHAPE,
               "%s: key stride %td or value stride %td below the widths %lld, %lld", pl->bp.name, k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  for (int64_t ib = 0; ib < pb->b; ib++)
    pl->count[ib] = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, pl->idx + ib * pb->nk);
#pragma omp parallel for num_threads(pb->threads) schedule(static)
  for (int64_t task = 0; task < pb->b * pb->h * blocks; task++) {
    const int64_t head = task / blocks, ib = head / pb->h;
    attn_layout at = {.p = pl->packed + (size_t)task * pl->key_bytes};
    set_place_keys(&at, &pl->sd, pl->bp.block < pb->nk ? pl->bp.block : pb->nk, 0, pl->keys + task);
    load_block(&pl->sd, &pl->bp, pl->idx + ib * pb->nk, pl->count[ib], task % blocks, attn_key_head(k, pb, head), k.sn,
               attn_key_head(v, pb, head), v.sn, pl->keys + task);
  }
  pl->built = 1;
  return ATTN_OK;
}

/* --- pairs -------------------------------------------------------------------------------------------------------- */

typedef struct block_rule {
  const block_pattern *bp;
  int causal;
} block_rule;

static int sees(const block_rule *r, int64_t i, int64_t j) {
  if (r->causal && j > i) return 0;
  return i < r->bp->global || j < r->bp->global || (j >= i - r->bp->window && j <= i + r->bp->window);
}

static void mark_pairs(const void *ctx, const set_rows *rows, const set_keys *keys, int64_t j0, int64_t cols, float *s) {
  const block_rule *r = ctx;
  const int32_t *id = keys->id + j0, first = id[0], last = id[cols - 1], global = (int32_t)r->bp->global;
  for (int64_t i = 0; i < rows->n; i++) {
    const int64_t here = rows->id[i], everybody = here < global;
    const int32_t low = everybody || here < r->bp->window ? 0 : (int32_t)(here - r->bp->window);
    const int32_t high = everybody || here + r->bp->window > INT32_MAX ? INT32_MAX : (int32_t)(here + r->bp->window);
    const int32_t limit = r->causal ? (int32_t)here : INT32_MAX;
    if ((first >= low || last < global) && (last <= high || last < global) && last <= limit) continue; /* all of them */
    for (int64_t j = 0; j < cols; j++)
      if (id[j] > limit || (id[j] >= global && (id[j] < low || id[j] > high))) s[i * SET_LD + j] = -INFINITY;
  }
}

static int hidden_block(const attn_problem *pb, int64_t row, int64_t block) { return pb->causal && block > row; }

static set_drop drop_of(const block_pattern *bp, attn_drop mask, int64_t i0, int64_t place) {
  return (set_drop){mask, i0, place * ((bp->block + SET_DROP - 1) / SET_DROP * SET_DROP)};
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* The keys of row iq, each once. */
static void report_row(const block_plan *pl, const block_rule *rule, int64_t head, int64_t iq, int64_t listed, block_thread *t,
                       const attn_stats *st) {
  const set_keys *keys = pl->keys + head * block_count(&pl->pb, &pl->bp);
  int64_t count = 0;
  for (int64_t e = 0; e < listed; e++) {
    int again = 0;
    for (int64_t f = 0; f < e; f++) again |= t->list[f] == t->list[e];
    const set_keys *k = keys + t->list[e];
    for (int64_t j = 0; j < k->n && !again; j++)
      if (sees(rule, iq, k->id[j])) t->seen[count++] = k->id[j];
  }
  if (count) st->on_keys(st->ctx, head / pl->pb.h, head % pl->pb.h, iq, t->seen, count);
}

/* Block `row` of queries of a head. Returns the products evaluated. */
static uint64_t attend_block(const block_plan *pl, int64_t head, int64_t row, attn_view q, attn_viewm out, attn_drop mask, double *lse2,
                             block_thread *t, const attn_stats *st) {
  const attn_problem *pb = &pl->pb;
  const block_pattern *bp = &pl->bp;
  const int64_t ib = head / pb->h, ih = head % pb->h, blocks = block_count(pb, bp), end = (row + 1) * bp->block < pb->nq ? (row + 1) * bp->block : pb->nq;
  const block_rule ctx = {bp, pb->causal};
  const set_rule rule = {.mark = mark_pairs, .ctx = &ctx};
  const set_keys *keys = pl->keys + head * blocks;
  float *to = out.p + ib * out.sb + ih * out.sh;
  const int64_t listed = bp->list(bp, pb, ih, row, t->list);
  uint64_t pairs = 0;
  for (int64_t i0 = row * bp->block; i0 < end; i0 += SET_ROWS) {
    int32_t id[SET_ROWS];
    const int64_t rows = end - i0 < SET_ROWS ? end - i0 : SET_ROWS;
    for (int64_t i = 0; i < rows; i++) id[i] = (int32_t)(i0 + i);
    set_load_rows(&pl->sd, &t->rows, rows, id, q.p + ib * q.sb + ih * q.sh, q.sn, (float)(pb->scale * LOG2E));
    for (int64_t e = 0; e < listed; e++) {
      if (hidden_block(pb, row, t->list[e])) continue;
      const set_drop dr = drop_of(bp, mask, i0, e);
      set_attend(&pl->sd, &t->rows, keys + t->list[e], &rule, &dr);
      pairs += (uint64_t)(rows * keys[t->list[e]].n);
    }
    for (int64_t i = 0; i < rows; i++) {
      double lse;
      set_merge_row(&pl->sd, &t->rows, i, 1, to + id[i] * out.sn, &lse);
      if (lse2) lse2[head * pb->nq + id[i]] = lse;
      if (st && st->lse) st->lse[head * pb->nq + id[i]] = (float)(lse * LN2);
      if (st && st->on_keys) report_row(pl, &ctx, head, id[i], listed, t, st);
    }
  }
  return pairs;
}

static uint64_t run(const block_plan *pl, attn_view q, attn_viewm out, float drop, uint64_t key, double *lse2, void *scratch, attn_stats *st) {
  const attn_problem *pb = &pl->pb;
  const int64_t blocks = block_count(pb, &pl->bp);
  uint64_t pairs = 0;
#pragma omp parallel num_threads(pb->threads) reduction(+ : pairs)
  {
    block_thread t;
    attn_layout own = {0};
    place_thread(&own, pb, &pl->bp, 0, &t);
    own = (attn_layout){.p = (char *)scratch + (size_t)omp_get_thread_num() * own.used};
    place_thread(&own, pb, &pl->bp, 0, &t);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < pb->b * pb->h * blocks; task++) {
      const int64_t head = task / blocks;
      const attn_drop mask = attn_drop_make(drop, attn_hash(key, (uint64_t)(head / pb->h), (uint64_t)(head % pb->h)));
      pairs += attend_block(pl, head, task % blocks, q, out, mask, lse2, &t, st);
    }
  }
  return pairs;
}

attn_status block_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch, attn_stats *st) {
  (void)params;
  const block_plan *pl = plan;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "%s: scratch is null or not 64-byte aligned", pl->bp.name);
  ATTN_FAIL_IF(pl->pb.nq > 0 && (q.sn < pl->pb.d || out.sn < pl->pb.dv), ATTN_ERR_SHAPE,
               "%s: query stride %td or output stride %td below the widths %lld, %lld", pl->bp.name, q.sn, out.sn,
               (long long)pl->pb.d, (long long)pl->pb.dv);
  const uint64_t pairs = run(pl, q, out, 0.0f, 0, NULL, scratch, st);
  if (st) st->pairs = pairs;
  return ATTN_OK;
}

/* --- training ----------------------------------------------------------------------------------------------------- */

static size_t grad_bytes(const attn_problem *pb, const block_pattern *bp) {
  attn_layout at = {0};
  block_thread t;
  place_thread(&at, pb, bp, 1, &t);
  return attn_add(at.used, attn_mul((size_t)block_count(pb, bp), key_bytes(pb, bp, 1)));
}

attn_status block_train_sizes(const attn_problem *pb, const block_pattern *bp, attn_mem *need) {
  attn_mem fwd;
  ATTN_TRY(block_sizes(pb, bp, &fwd));
  const size_t forward = attn_add(fwd.plan, fwd.scratch), backward = attn_mul((size_t)pb->threads, grad_bytes(pb, bp));
  need->plan = attn_round(attn_mul(attn_mul((size_t)(pb->b * pb->h), (size_t)pb->nq), sizeof(double)));
  need->scratch = forward > backward ? forward : backward;
  return ATTN_OK;
}

attn_status block_train_forward(const attn_problem *pb, const block_pattern *bp, attn_view q, attn_view k, attn_view v, const uint8_t *kmask,
                                float drop, uint64_t key, attn_viewm out, void *saved, void *scratch) {
  attn_mem need;
  ATTN_TRY(block_sizes(pb, bp, &need));
  ATTN_TRY(block_prepare(scratch, pb, bp));
  ATTN_TRY(block_build(scratch, k, v, kmask, NULL));
  (void)run(scratch, q, out, drop, key, saved, (char *)scratch + need.plan, NULL);
  return ATTN_OK;
}

static void zero_rows(attn_viewm x, int64_t ib, int64_t ih, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; i++) memset(x.p + ib * x.sb + ih * x.sh + i * x.sn, 0, (size_t)width * sizeof(float));
}

attn_status block_train_backward(const attn_problem *pb, const block_pattern *bp, attn_view q, attn_view k, attn_view v,
                                 const uint8_t *kmask, float drop, uint64_t key, attn_view out, attn_view dout, attn_viewm dq,
                                 attn_viewm dk, attn_viewm dv, void *saved, void *scratch) {
  const set_dims sd = dims_of(pb);
  const int64_t n = pb->nk, blocks = block_count(pb, bp);
  const size_t bytes = grad_bytes(pb, bp);
  const block_rule ctx = {bp, pb->causal};
  const set_rule rule = {.mark = mark_pairs, .ctx = &ctx};
#pragma omp parallel num_threads(pb->threads)
  {
    block_thread t;
    attn_layout own = {.p = (char *)scratch + (size_t)omp_get_thread_num() * bytes};
    place_thread(&own, pb, bp, 1, &t);
    for (int64_t c = 0; c < blocks; c++) set_place_keys(&own, &sd, bp->block < n ? bp->block : n, 1, t.keys + c);
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < pb->b * pb->h; head++) {
      const int64_t ib = head / pb->h, ih = head % pb->h, kept = attn_keep(kmask ? kmask + ib * n : NULL, n, t.idx);
      const attn_drop mask = attn_drop_make(drop, attn_hash(key, (uint64_t)ib, (uint64_t)ih));
      const double *lse2 = (const double *)saved + head * n;
      zero_rows(dk, ib, ih, n, pb->d), zero_rows(dv, ib, ih, n, pb->dv);
      for (int64_t c = 0; c < blocks; c++)
        load_block(&sd, bp, t.idx, kept, c, attn_key_head(k, pb, head), k.sn, attn_key_head(v, pb, head), v.sn, t.keys + c);
      for (int64_t i0 = 0, end; i0 < n; i0 = end) {
        const int64_t row = i0 / bp->block, listed = bp->list(bp, pb, ih, row, t.list);
        int32_t id[SET_ROWS];
        end = (row + 1) * bp->block < n ? (row + 1) * bp->block : n;
        if (end - i0 > SET_ROWS) end = i0 + SET_ROWS;
        for (int64_t i = i0; i < end; i++) id[i - i0] = (int32_t)i;
        set_load_rows(&sd, &t.rows, end - i0, id, q.p + ib * q.sb + ih * q.sh, q.sn, (float)(pb->scale * LOG2E));
        set_load_grad(&sd, &t.rows, dout.p + ib * dout.sb + ih * dout.sh, dout.sn, out.p + ib * out.sb + ih * out.sh, out.sn, lse2);
        for (int64_t e = 0; e < listed; e++) {
          const set_drop dr = drop_of(bp, mask, i0, e);
          if (!hidden_block(pb, row, t.list[e])) set_grad(&sd, &t.rows, t.keys + t.list[e], &rule, &dr);
        }
        for (int64_t i = 0; i < t.rows.n; i++)
          for (int64_t x = 0; x < pb->d; x++) dq.p[ib * dq.sb + ih * dq.sh + (i0 + i) * dq.sn + x] = t.rows.dq[i * pb->d + x] * pb->scale;
      }
      for (int64_t c = 0; c < blocks; c++)
        set_spread_keys(&sd, t.keys + c, (float)LN2, dk.p + ib * dk.sb + ih * dk.sh, dk.sn, dv.p + ib * dv.sb + ih * dv.sh, dv.sn);
    }
  }
  return ATTN_OK;
}

void block_release(void *plan) { (void)plan; }
