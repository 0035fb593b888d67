/* reformer.c - attention among positions whose hashes fall together: Reformer, with shared queries and keys.
 *
 * Idea    Keys are the queries, made unit vectors. Each of `rounds` random hashes sorts the positions by bucket (ties: by
 *         position); the sorted list is cut into chunks, and a chunk attends to itself and to the one before it, cyclically.
 *         The outputs of the rounds are merged by their log-sum-exp, so that a row is a softmax in which a key counts as
 *         often as it was met.
 * Hash    argmax over [xG; -xG] for a Gaussian G of b/2 columns; beyond a limit b is the product of two such hashes. Rotations
 *         differ by head and round and come from problem.seed, column by column.
 * Source  Kitaev et al. 2020 (arXiv:2001.04451), in the form of trax efficient_attention.py and Hugging Face
 *         modeling_reformer.py: logit x_i . k_j without 1/sqrt(d), rule of the number of buckets, a position attends to itself
 *         only when it sees nothing else. As there, padding goes to the end of a sorting; here it is left out, so that a masked
 *         problem is the problem without the masked positions. Their rows are zeros.
 * Options `logits`: unit (above), scaled (times 1/sqrt(d), as lucidrains), dot (scale x_i . x_j: the plain softmax of a model with shared
 *         queries and keys). `self`: last, or plain like any key. `duplicates`: counted, or removed (a softmax over the
 *         union). `leak`: the first chunk of a round looks back into the last chunk of the round before, as both sources do, instead of
 *         into the last chunk of its own round.
 * Cost    4 (d + dv) chunk n flops a round, and 2 n d (sum of bucket factors)/2 for hashing; memory: a list of n a round,
 *         n floats, and per thread two packed chunks and a block.
 * Dropout Falls on the weights of each window before rounds are merged, independently each time a pair is met (as in HF).
 * Limits  f32. Not causal in the strict sense: which earlier positions share a chunk depends on the hashes of later ones
 *         (no later key or value is ever read). One chunk: plain attention with the same rule for oneself. */
#include "baselines/reformer.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/core/clock.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"

enum { RUN = 8 /* chunks of a task */ };
#define SELF_LOGIT (-144269.5f) /* in base 2: -1e5, as in Hugging Face */

typedef struct reformer_plan {
  attn_problem pb;
  reformer_params p;
  set_dims sd;
  int built;
  int64_t columns; /* of a rotation, at most */
  int64_t *count;  /* [b] kept positions */
  int32_t *idx;    /* [b, n] them */
  float *g;        /* [h, rounds, d, columns] rotations */
  attn_view v;
} reformer_plan;

/* --- buckets ------------------------------------------------------------------------------------------------------ */

/* Number of buckets as one or two factors, each even: 2^floor(log2(2 floor(n / chunk))), or as told. */
typedef struct reformer_buckets {
  int64_t factor[2];
} reformer_buckets;

static reformer_buckets split_buckets(int64_t chunk, int64_t chunks, int64_t power) {
  int64_t root = (int64_t)sqrt((double)chunks);
  const int64_t limit = 2 * (root > chunk ? root : chunk);
  if ((int64_t)1 << power <= limit || power < 2) return (reformer_buckets){{(int64_t)1 << power, 1}};
  return (reformer_buckets){{(int64_t)1 << power / 2, (int64_t)1 << (power - power / 2)}};
}
static reformer_buckets buckets_of(const reformer_params *p, int64_t n) {
  if (p->buckets) return (reformer_buckets){{p->buckets, 1}};
  const int64_t chunks = n / p->chunk;
  int64_t power = 1;
  while ((int64_t)2 << power <= 2 * chunks) power++;
  return split_buckets(p->chunk, chunks, power);
}
static int64_t columns_of(reformer_buckets b) { return b.factor[0] / 2 + (b.factor[1] > 1 ? b.factor[1] / 2 : 0); }

/* Columns for any number of positions up to n. */
static int64_t most_columns(const reformer_params *p, int64_t n) {
  int64_t most = columns_of(buckets_of(p, n));
  for (int64_t less = n / 2; less >= p->chunk && !p->buckets; less /= 2) {
    const int64_t c = columns_of(buckets_of(p, less));
    if (c > most) most = c;
  }
  return most;
}

/* --- chunks and the rule of pairs --------------------------------------------------------------------------------- */

reformer_cut reformer_cut_of(const reformer_params *p, int64_t kept) {
  reformer_cut c = {.kept = kept, .chunk = p->chunk, .chunks = (kept + p->chunk - 1) / p->chunk, .rounds = p->rounds};
  if (c.chunks <= 1) c.rounds = c.chunks;
  return c;
}

void reformer_back(const reformer_head *h, int64_t r, int64_t c, int64_t *back_r, int64_t *back_c) {
  *back_r = c || !h->p->leak ? r : (r + h->cut.rounds - 1) % h->cut.rounds;
  *back_c = c ? c - 1 : h->cut.chunks - 1;
}

void reformer_fill_place(const reformer_head *h) {
  for (int64_t r = 0; r < h->cut.rounds; r++)
    for (int64_t i = 0; i < h->cut.kept; i++)
      h->place[r * h->pb->nk + h->order[r * h->pb->nk + i]] = (int32_t)(i / h->cut.chunk);
}

int64_t reformer_times(const reformer_head *h, int32_t i, int32_t j) {
  const int64_t n = h->pb->nk;
  int64_t times = 0;
  for (int64_t r = 0; r < h->cut.rounds; r++) {
    const int64_t c = h->place[r * n + i];
    int64_t back_r, back_c;
    times += h->place[r * n + j] == c;
    if (h->cut.chunks == 1) continue;
    reformer_back(h, r, c, &back_r, &back_c);
    times += h->place[back_r * n + j] == back_c;
  }
  return times;
}

static int sees_itself_only(double lse2) { return lse2 < 0.5 * (double)SELF_LOGIT; }
float reformer_lift(double lse2) { return (float)(sees_itself_only(lse2) ? lse2 - (double)SELF_LOGIT : lse2); }

/* Overwrites what a tile has for positions with themselves, where that is a constant (self = last). */
static void set_self(const reformer_window *w, const set_rows *rows, const set_keys *keys, int64_t j0, int64_t cols, float *s,
                     float value) {
  if (w->head->p->self != SELF_LAST) return;
  for (int64_t i = 0; i < rows->n; i++) {
    const int64_t j = w->i0 + i - j0;
    const float here = w->lse2 && sees_itself_only(w->lse2[rows->id[i]]) ? 0.0f : value;
    if (w->part == OWN_CHUNK && j >= 0 && j < cols) s[i * SET_LD + j] = here;
    if (w->part != OTHER_ROUND) continue;
    for (int64_t c = 0; c < cols; c++) s[i * SET_LD + c] = keys->id[j0 + c] == rows->id[i] ? here : s[i * SET_LD + c];
  }
}

static void mark_pairs(const void *ctx, const set_rows *rows, const set_keys *keys, int64_t j0, int64_t cols, float *s) {
  const reformer_window *w = ctx;
  const reformer_params *p = w->head->p;
  const int32_t *id = keys->id + j0;
  for (int64_t i = 0; i < rows->n && p->duplicates == DUP_REMOVED; i++)
    for (int64_t j = 0; j < cols; j++) s[i * SET_LD + j] -= log2f((float)reformer_times(w->head, rows->id[i], id[j]));
  for (int64_t i = 0; i < rows->n && w->head->pb->causal; i++)
    for (int64_t j = 0; j < cols; j++) s[i * SET_LD + j] = id[j] > rows->id[i] ? -INFINITY : s[i * SET_LD + j];
  set_self(w, rows, keys, j0, cols, s, SELF_LOGIT);
}

static void still_self(const void *ctx, const set_rows *rows, const set_keys *keys, int64_t j0, int64_t cols, float *ds) {
  set_self(ctx, rows, keys, j0, cols, ds, 0.0f);
}

set_rule reformer_rule(const reformer_window *w) { return (set_rule){.mark = mark_pairs, .still = still_self, .ctx = w}; }

set_drop reformer_drop(const reformer_window *w, attn_drop mask, int64_t r, int64_t c) {
  const reformer_cut *cut = &w->head->cut;
  const int64_t after = (cut->chunk + SET_DROP - 1) / SET_DROP * SET_DROP;
  return (set_drop){mask, r * w->head->pb->nk + reformer_first(cut, c) + w->i0, w->part == OWN_CHUNK ? 0 : after};
}

float reformer_factor(const attn_problem *pb, const reformer_params *p) {
  return (float)((p->logits == LOGITS_UNIT ? 1.0 : (double)pb->scale) * LOG2E);
}

double reformer_epsilon(int64_t d) { return 1e-6 * (double)d; } /* 1e-6 is added to the mean square */

void reformer_unit(const attn_problem *pb, const reformer_params *p, const attn_micro *mk, const int32_t *idx, int64_t kept,
                   const float *x, ptrdiff_t xs, float *unit) {
  for (int64_t j = 0; j < kept; j++) {
    const float *row = x + idx[j] * xs;
    double square = (double)mk->dot(pb->d, row, row);
    if (!(square <= 1e30)) { /* its square is none in f32 */
      square = 0.0;
      for (int64_t t = 0; t < pb->d; t++) square += (double)row[t] * (double)row[t];
    }
    unit[idx[j]] = p->logits == LOGITS_DOT ? 1.0f : (float)(1.0 / sqrt(square + reformer_epsilon(pb->d)));
  }
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

typedef struct reformer_shared { /* of a call, before the parts of threads */
  int32_t *order, *place;        /* [b, h, rounds, n] */
  float *unit;                   /* [b, h, n] */
  double *lse2;                  /* [b, h, n] */
} reformer_shared;
typedef struct reformer_thread {
  set_rows rows;
  set_keys keys[2];
  float *y;                        /* [SET_ROWS, columns] products of a hash */
  int32_t *bucket, *first;         /* [n], [buckets + 1] */
  int32_t *stamp, *seen;           /* [n] each, to report key sets */
} reformer_thread;

static void place_shared(attn_layout *at, const attn_problem *pb, const reformer_params *p, reformer_shared *s) {
  const int64_t heads = pb->b * pb->h;
  const size_t list = attn_mul(attn_mul((size_t)heads, (size_t)p->rounds), attn_mul((size_t)pb->nk, sizeof(int32_t)));
  s->order = attn_place(at, list);
  s->place = attn_place(at, list);
  s->unit = attn_place_floats(at, heads, pb->nk);
  s->lse2 = attn_place(at, attn_mul(attn_mul((size_t)heads, (size_t)pb->nk), sizeof(double)));
}
static int64_t room_of(const attn_problem *pb, const reformer_params *p) { return pb->nk < p->chunk ? pb->nk : p->chunk; }

static int64_t most_buckets(const attn_problem *pb, const reformer_params *p) {
  const reformer_buckets b = buckets_of(p, pb->nk);
  return b.factor[0] * b.factor[1];
}
static void place_thread(attn_layout *at, const attn_problem *pb, const reformer_params *p, const set_dims *sd, reformer_thread *t) {
  set_place_rows(at, sd, 0, &t->rows);
  for (int i = 0; i < 2; i++) set_place_keys(at, sd, room_of(pb, p), 0, t->keys + i);
  t->y = attn_place_floats(at, SET_ROWS, most_columns(p, pb->nk));
  t->bucket = attn_place_floats(at, pb->nk, 1);
  t->first = attn_place_floats(at, most_buckets(pb, p) + 1, 1);
  t->stamp = attn_place_floats(at, pb->nk, 1);
  t->seen = attn_place_floats(at, pb->nk, 1);
}

static set_dims dims_of(const attn_problem *pb) { return (set_dims){attn_micro_get(), pb->d, pb->dv}; }

static void place_plan(attn_layout *at, const attn_problem *pb, const reformer_params *p, reformer_plan **out) {
  const int64_t columns = most_columns(p, pb->nk);
  reformer_plan own = {0}, *pl = attn_place(at, sizeof *pl);
  if (out) *out = pl;
  if (!pl) pl = &own;
  pl->columns = columns;
  pl->count = attn_place(at, attn_mul((size_t)pb->b, sizeof(int64_t)));
  pl->idx = attn_place_floats(at, pb->b, pb->nk);
  pl->g = attn_place(at, attn_mul(attn_mul((size_t)(pb->h * p->rounds), (size_t)(pb->d * columns)), sizeof(float)));
}

static attn_status reformer_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  const reformer_params *p = params;
  const set_dims sd = dims_of(pb);
  attn_layout plan = {0}, shared = {0}, thread = {0};
  place_plan(&plan, pb, p, NULL);
  place_shared(&shared, pb, p, &(reformer_shared){0});
  place_thread(&thread, pb, p, &sd, &(reformer_thread){0});
  need->plan = plan.used;
  need->scratch = attn_add(shared.used, attn_mul((size_t)pb->threads, thread.used));
  return ATTN_OK;
}

static attn_status reformer_check(const attn_problem *pb, const void *params) {
  const reformer_params *p = params;
  (void)pb;
  ATTN_FAIL_IF(p->buckets % 2 != 0, ATTN_ERR_PARAM, "reformer.buckets = %lld, allowed even numbers, or 0 for the rule",
               (long long)p->buckets);
  return ATTN_OK;
}

static attn_status reformer_prepare(void *plan, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "reformer: plan is null or not 64-byte aligned");
  reformer_plan *pl;
  attn_layout at = {.p = plan};
  memset(plan, 0, sizeof *pl);
  place_plan(&at, pb, params, &pl);
  pl->pb = *pb, pl->p = *(const reformer_params *)params, pl->sd = dims_of(pb);
  for (int64_t hr = 0; hr < pb->h * pl->p.rounds; hr++)
    for (int64_t c = 0; c < pl->columns; c++) {
      attn_rng r;
      attn_rng_seed(&r, attn_hash(pb->seed, (uint64_t)(hr / pl->p.rounds), (uint64_t)(hr % pl->p.rounds)), (uint64_t)c);
      for (int64_t t = 0; t < pb->d; t++) pl->g[(hr * pb->d + t) * pl->columns + c] = (float)attn_rng_normal(&r);
    }
  return ATTN_OK;
}

static attn_status reformer_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  (void)scratch;
  reformer_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "reformer: build without plan");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv), ATTN_ERR_SHAPE,
               "reformer: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  for (int64_t ib = 0; ib < pb->b; ib++)
    pl->count[ib] = attn_keep(kmask ? kmask + ib * pb->nk : NULL, pb->nk, pl->idx + ib * pb->nk);
  pl->v = v;
  pl->built = 1;
  return ATTN_OK;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

static const float *row_head(attn_view x, int64_t ib, int64_t ih) { return x.p + ib * x.sb + ih * x.sh; }

/* Bucket of each kept position of a head, into t->bucket by rank. */
static void hash_rows(const reformer_plan *pl, reformer_buckets b, const float *g, const int32_t *idx, int64_t kept,
                      const float *x, ptrdiff_t xs, reformer_thread *t) {
  const attn_micro *mk = pl->sd.mk;
  const int64_t d = pl->pb.d, columns = columns_of(b);
  for (int64_t i0 = 0; i0 < kept; i0 += SET_ROWS) {
    const int64_t rows = kept - i0 < SET_ROWS ? kept - i0 : SET_ROWS;
    for (int64_t i = 0; i < rows; i++) memcpy(t->rows.q + i * d, x + idx[i0 + i] * xs, (size_t)d * sizeof(float));
    mk->gemm(rows, columns, d, t->rows.q, d, 1, g, pl->columns, mk->panel, t->y, columns, 0);
    for (int64_t i = 0; i < rows; i++) {
      float *y = t->y + i * columns;
      int64_t bucket = 0, unit = 1;
      for (int f = 0; f < 2 && b.factor[f] > 1; y += b.factor[f++] / 2) {
        const int64_t half = b.factor[f] / 2;
        float most, least;
        int64_t at = mk->argmax(half, y, NULL, &most);
        for (int64_t c = 0; c < half; c++) y[c] = -y[c];
        const int64_t other = mk->argmax(half, y, NULL, &least);
        if (least > most) at = half + other;
        bucket += unit * at;
        unit *= b.factor[f];
      }
      t->bucket[i0 + i] = (int32_t)bucket;
    }
  }
}

/* Kept positions by bucket, then position. */
static void sort_rows(int64_t buckets, const int32_t *idx, int64_t kept, reformer_thread *t, int32_t *order) {
  memset(t->first, 0, (size_t)(buckets + 1) * sizeof *t->first);
  for (int64_t i = 0; i < kept; i++) t->first[t->bucket[i] + 1]++;
  for (int64_t c = 0; c < buckets; c++) t->first[c + 1] += t->first[c];
  for (int64_t i = 0; i < kept; i++) order[t->first[t->bucket[i]]++] = idx[i];
}

typedef struct reformer_work { /* what all threads of a call know */
  const reformer_plan *pl;
  const reformer_call *call;
  reformer_shared shared;
} reformer_work;

static reformer_head head_of(const reformer_work *w, int64_t head) {
  const reformer_plan *pl = w->pl;
  const int64_t list = head * pl->p.rounds * pl->pb.nk;
  return (reformer_head){.pb = &pl->pb,
                         .p = &pl->p,
                         .cut = reformer_cut_of(&pl->p, pl->count[head / pl->pb.h]),
                         .order = w->shared.order + list,
                         .place = w->shared.place + list};
}

/* Sorts one round of one head; the first round also measures the rows. */
static void sort_head(const reformer_work *w, int64_t head, int64_t r, reformer_thread *t) {
  const reformer_plan *pl = w->pl;
  const attn_problem *pb = &pl->pb;
  const int64_t ib = head / pb->h, ih = head % pb->h, kept = pl->count[ib];
  const int32_t *idx = pl->idx + ib * pb->nk;
  const float *x = row_head(w->call->x, ib, ih);
  int32_t *order = w->shared.order + (head * pl->p.rounds + r) * pb->nk;
  if (r == 0) reformer_unit(pb, &pl->p, pl->sd.mk, idx, kept, x, w->call->x.sn, w->shared.unit + head * pb->nk);
  if (reformer_cut_of(&pl->p, kept).chunks <= 1) {
    memcpy(order, idx, (size_t)kept * sizeof *order);
    return;
  }
  const reformer_buckets b = buckets_of(&pl->p, kept);
  hash_rows(pl, b, pl->g + (ih * pl->p.rounds + r) * pb->d * pl->columns, idx, kept, x, w->call->x.sn, t);
  sort_rows(b.factor[0] * b.factor[1], idx, kept, t, order);
}

/* Rows that are masked themselves. */
static void clear_masked(const reformer_work *w, int64_t head) {
  const reformer_plan *pl = w->pl;
  const attn_problem *pb = &pl->pb;
  const int64_t ib = head / pb->h;
  const int32_t *idx = pl->idx + ib * pb->nk;
  for (int64_t i = 0, at = 0; i < pb->nk && pl->count[ib] < pb->nk; i++) {
    if (at < pl->count[ib] && idx[at] == i) at++;
    else {
      memset(w->call->out.p + ib * w->call->out.sb + head % pb->h * w->call->out.sh + i * w->call->out.sn, 0, (size_t)pb->dv * sizeof(float));
      w->call->lse2[head * pb->nk + i] = -INFINITY;
    }
  }
}

/* Chunks [c0, c1) of a round. Returns the products evaluated. */
static uint64_t attend_run(const reformer_work *w, int64_t head, int64_t r, int64_t c0, int64_t c1, reformer_thread *t) {
  const reformer_plan *pl = w->pl;
  const attn_problem *pb = &pl->pb;
  const set_dims *sd = &pl->sd;
  const reformer_head h = head_of(w, head);
  const int64_t n = pb->nk, ib = head / pb->h, ih = head % pb->h;
  const attn_drop mask = attn_drop_make(w->call->drop, attn_hash(w->call->key, (uint64_t)ib, (uint64_t)ih));
  const attn_viewm o = w->call->out;
  const float *x = row_head(w->call->x, ib, ih), *v = row_head(w->call->v, ib, ih), *unit = w->shared.unit + head * n;
  float *to = o.p + ib * o.sb + ih * o.sh;
  double *lse2 = w->call->lse2 + head * n;
  set_keys *back = t->keys, *own = t->keys + 1;
  uint64_t pairs = 0;
  for (int64_t c = c0; c < c1; c++) {
    int64_t back_r, back_c;
    reformer_back(&h, r, c, &back_r, &back_c);
    if (c == c0 && h.cut.chunks > 1)
      set_load_keys(sd, back, reformer_size(&h.cut, back_c), h.order + back_r * n + reformer_first(&h.cut, back_c), x, w->call->x.sn,
                    unit, v, w->call->v.sn);
    const int32_t *id = h.order + r * n + reformer_first(&h.cut, c);
    set_load_keys(sd, own, reformer_size(&h.cut, c), id, x, w->call->x.sn, unit, v, w->call->v.sn);
    for (int64_t i0 = 0; i0 < own->n; i0 += SET_ROWS) {
      const int64_t rows = own->n - i0 < SET_ROWS ? own->n - i0 : SET_ROWS;
      set_load_rows(sd, &t->rows, rows, id + i0, x, w->call->x.sn, reformer_factor(pb, &pl->p));
      for (int part = h.cut.chunks > 1 ? 0 : 1; part < 2; part++) {
        const reformer_window win = {.head = &h, .part = part ? OWN_CHUNK : back_r == r ? CHUNK_BEFORE : OTHER_ROUND, .i0 = i0};
        const set_rule rule = reformer_rule(&win);
        const set_drop dr = reformer_drop(&win, mask, r, c);
        set_attend(sd, &t->rows, part ? own : back, &rule, &dr);
        pairs += (uint64_t)(rows * (part ? own : back)->n);
      }
      for (int64_t i = 0; i < rows; i++) set_merge_row(sd, &t->rows, i, r == 0, to + id[i0 + i] * o.sn, lse2 + id[i0 + i]);
    }
    set_keys *swap = back;
    back = own, own = swap;
  }
  return pairs;
}

/* Reports the keys of each row of a head: visible, each once; itself only where it stands alone. */
static void report_keys(const reformer_work *w, int64_t head, reformer_thread *t, const attn_stats *st) {
  const reformer_plan *pl = w->pl;
  const reformer_head h = head_of(w, head);
  const int64_t n = pl->pb.nk;
  for (int64_t i = 0; i < n; i++) t->stamp[i] = -1;
  for (int64_t at = 0; at < h.cut.kept; at++) {
    const int32_t iq = h.order[at];
    int64_t count = 0;
    for (int64_t r = 0; r < h.cut.rounds; r++) {
      const int64_t c = h.place[r * n + iq];
      int64_t back_r, back_c;
      reformer_back(&h, r, c, &back_r, &back_c);
      for (int part = 0; part < (h.cut.chunks > 1 ? 2 : 1); part++) {
        const int64_t kr = part ? back_r : r, kc = part ? back_c : c;
        const int32_t *id = h.order + kr * n + reformer_first(&h.cut, kc);
        for (int64_t j = 0; j < reformer_size(&h.cut, kc); j++) {
          if (t->stamp[id[j]] == iq || (pl->pb.causal && id[j] > iq) || (pl->p.self == SELF_LAST && id[j] == iq)) continue;
          t->stamp[id[j]] = iq;
          t->seen[count++] = id[j];
        }
      }
    }
    if (!count) t->seen[count++] = iq;
    st->on_keys(st->ctx, head / pl->pb.h, head % pl->pb.h, iq, t->seen, count);
  }
}

attn_status reformer_run(const void *plan, const reformer_call *asked, void *scratch, attn_stats *st) {
  const reformer_plan *pl = plan;
  const attn_problem *pb = &pl->pb;
  const int64_t heads = pb->b * pb->h, rounds = pl->p.rounds;
  reformer_call call = *asked;
  reformer_work w = {.pl = pl, .call = &call};
  attn_layout at = {.p = scratch};
  place_shared(&at, pb, &pl->p, &w.shared);
  if (call.order) w.shared.order = call.order;
  else call.order = w.shared.order;
  if (!call.lse2) call.lse2 = w.shared.lse2;
  int64_t most = 0;
  for (int64_t ib = 0; ib < pb->b; ib++) most = pl->count[ib] > most ? pl->count[ib] : most;
  const int64_t runs = (reformer_cut_of(&pl->p, most).chunks + RUN - 1) / RUN;
  uint64_t pairs = 0;
  const int64_t start = attn_now_ns();
  int64_t sorted = start;
#pragma omp parallel num_threads(pb->threads) reduction(+ : pairs)
  {
    reformer_thread t;
    attn_layout own = {0};
    place_thread(&own, pb, &pl->p, &pl->sd, &t);
    own = (attn_layout){.p = (char *)scratch + at.used + (size_t)omp_get_thread_num() * own.used};
    place_thread(&own, pb, &pl->p, &pl->sd, &t);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < heads * rounds; task++) sort_head(&w, task / rounds, task % rounds, &t);
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < heads; head++) {
      const reformer_head h = head_of(&w, head);
      if (pl->p.duplicates == DUP_REMOVED || (st && st->on_keys)) reformer_fill_place(&h);
      clear_masked(&w, head);
    }
#pragma omp master
    sorted = attn_now_ns();
    for (int64_t r = 0; r < rounds; r++) {
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < heads * runs; task++) {
        const reformer_cut cut = reformer_cut_of(&pl->p, pl->count[task / runs / pb->h]);
        const int64_t c0 = task % runs * RUN, c1 = c0 + RUN < cut.chunks ? c0 + RUN : cut.chunks;
        if (r < cut.rounds && c0 < c1) pairs += attend_run(&w, task / runs, r, c0, c1, &t);
      }
    }
    if (st && st->on_keys) {
#pragma omp for schedule(dynamic)
      for (int64_t head = 0; head < heads; head++) report_keys(&w, head, &t, st);
    }
  }
  if (!st) return ATTN_OK;
  st->pairs = pairs;
  st->build_ns = (uint64_t)(sorted - start);
  for (int64_t i = 0; i < heads * pb->nk && st->lse; i++) st->lse[i] = (float)(call.lse2[i] * LN2);
  return ATTN_OK;
}

static attn_status reformer_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                    attn_stats *st) {
  (void)params;
  const reformer_plan *pl = plan;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "reformer: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG, "reformer: scratch is null or not 64-byte aligned");
  ATTN_FAIL_IF(pl->pb.nq > 0 && (q.sn < pl->pb.d || out.sn < pl->pb.dv), ATTN_ERR_SHAPE,
               "reformer: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn, (long long)pl->pb.d,
               (long long)pl->pb.dv);
  return reformer_run(plan, &(reformer_call){.x = q, .v = pl->v, .out = out}, scratch, st);
}

static void reformer_release(void *plan) { (void)plan; }

static const char *const logits_choices[] = {"unit", "scaled", "dot", NULL}, *const self_choices[] = {"last", "plain", NULL},
                         *const duplicates_choices[] = {"counted", "removed", NULL}, *const leak_choices[] = {"no", "yes", NULL};
#define AT(field) offsetof(reformer_params, field)
static const attn_param reformer_table[] = {
    {.key = "rounds", .doc = "hashes, each with a sorting of its own", .type = ATTN_P_INT, .offset = AT(rounds), .dflt = 2, .min = 1, .max = 64},
    {.key = "chunk", .doc = "positions of a chunk; a chunk attends to itself and the one before", .type = ATTN_P_INT, .offset = AT(chunk), .dflt = 64, .min = 1, .max = 4096},
    {.key = "buckets", .doc = "buckets of a hash, even; 0: 2^floor(log2(2 n / chunk))", .type = ATTN_P_INT, .offset = AT(buckets), .dflt = 0, .min = 0, .max = 4096},
    {.key = "logits", .doc = "unit: q.k with unit keys; scaled: times scale; dot: scale q.q, the softmax of a shared-QK model", .type = ATTN_P_CHOICE, .offset = AT(logits), .choices = logits_choices},
    {.key = "self", .doc = "last: a position attends to itself only when it sees nothing else; plain: as to any other", .type = ATTN_P_CHOICE, .offset = AT(self), .choices = self_choices},
    {.key = "duplicates", .doc = "keys met in several rounds: counted as often, or removed", .type = ATTN_P_CHOICE, .offset = AT(duplicates), .choices = duplicates_choices},
    {.key = "leak", .doc = "yes: the first chunk looks back into the round before, as in trax and Hugging Face", .type = ATTN_P_CHOICE, .offset = AT(leak), .choices = leak_choices},
    {.key = NULL}};

const attn_method attn_method_reformer = {
    .name = "reformer",
    .version = "1",
    .cite = "arXiv:2001.04451",
    .doc = "attention among positions with equal hashes, shared queries and keys; for models trained with it",
    .caps = ATTN_CAP_CAUSAL | ATTN_CAP_MASK | ATTN_CAP_NEEDS_TRAINING | ATTN_CAP_RANDOMISED | ATTN_CAP_STOCHASTIC | ATTN_CAP_KEYSET |
            ATTN_CAP_SHARED_QK,
    .params_size = sizeof(reformer_params),
    .params = reformer_table,
    .check = reformer_check,
    .sizes = reformer_sizes,
    .prepare = reformer_prepare,
    .build = reformer_build,
    .forward = reformer_forward,
    .release = reformer_release,
    .training = &attn_training_reformer,
};
