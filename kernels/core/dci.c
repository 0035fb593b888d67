/* dci.c - Prioritized DCI.
 *
 * Reduce    T_K(k) = [k/c; sqrt(1 - |k|^2/c^2)] and T_Q(q) = [q/|q|; 0] are unit vectors with
 *           |T_Q(q) - T_K(k)|^2 = 2 - 2 q.k / (c |q|): near in that space is large in inner product.
 * Cell      A composite index is `simp` random directions. Prioritized DCI walks the sorted projections outward from the
 *           query's, nearest first, and calls a key a candidate once it was met in all directions. Keys are met in order of
 *           |difference of projections|, so a key becomes a candidate when its largest difference is popped: after R pops
 *           the candidates are the keys whose largest difference is among the R smallest differences of that composite.
 *           Hence no sorted lists, cursors or queues here: differences of the whole cell, the round in which each key
 *           completes (the rank of its largest difference), and a cut. `comp` composites advance in step.
 * Stop      after the first round in which (candidates >= want, and their subtrees hold >= need keys) and (pops per list
 *           reached visit * n' or candidates reached retrieve * n'), or when everything was visited. Where that means all
 *           keys of a cell whatever the query, no projection is looked at.
 * Tree      Keys climb to level l with probability n^(-l/levels). Every key below the top has a parent one level up: the
 *           nearest found by the same beam search, key to key, under the build budgets. A query opens the `beam` best cells
 *           of each level, and every key scored on the way may be returned.
 * Long keys One key of many times the usual norm makes c so large that all others look alike. Up to 32 keys of more than 8
 *           times the median (nonzero) norm therefore stay outside the tree and are scored by every query.
 * Source    Li & Malik 2017 (arXiv:1703.00440); levels and maps as in IceFormer (arXiv:2405.02842).
 * Differs   Long keys; closed form instead of lists (same candidates); keys and queries projected at one scale; levels, directions and
 *           so all bits are functions of the seed. */
#include "kernels/core/dci.h"

#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"

/* --- memory ------------------------------------------------------------------------------------------------------- */

static size_t padded(size_t count, size_t width, size_t of) { /* bytes of count * width numbers and slack */
  return attn_round(attn_mul(attn_add(attn_mul(count, width), DCI_SLACK), of));
}

size_t dci_bytes(const dci_shape *s, int64_t n) {
  const size_t keys = (size_t)n, wide = padded(keys, (size_t)s->d + 1, sizeof(float));
  return attn_add(attn_mul(5, padded(keys, 1, sizeof(int32_t))), attn_add(wide, padded(keys, (size_t)(s->comp * s->simp), sizeof(float))));
}

void dci_carve(dci *x, const dci_shape *shape, const attn_micro *mk, const float *direction, void *p, int64_t n) {
  char *at = p;
  const size_t keys = (size_t)n, ints = padded(keys, 1, sizeof(int32_t));
  *x = (dci){.shape = *shape, .mk = mk, .direction = direction};
  x->id = attn_carve(&at, ints);
  x->child = attn_carve(&at, ints);
  x->size = attn_carve(&at, ints);
  x->depth = attn_carve(&at, ints);
  x->parent = attn_carve(&at, ints);
  x->slab = attn_carve(&at, padded(keys, (size_t)shape->d + 1, sizeof(float)));
  x->projection = attn_carve(&at, padded(keys, (size_t)(shape->comp * shape->simp), sizeof(float)));
}

/* A list that keeps `limit` of n keys takes in as many again, or a tile, before the next tile makes it cut. */
static int64_t list_room(int64_t limit, int64_t n) {
  const int64_t more = (limit > DCI_COLS ? limit : DCI_COLS) + DCI_COLS;
  return n - limit < more ? n : limit + more;
}
static size_t list_bytes(int64_t room) { return attn_mul(2, padded((size_t)room, 1, sizeof(float))); }

/* Memory of one probe that keeps k keys and opens `opened` cells a level. */
static size_t probe_bytes(int64_t n, int64_t d, int64_t k, int64_t opened) {
  size_t sum = attn_add(list_bytes(list_room(k, n)), list_bytes(list_room(opened, n)));
  sum = attn_add(sum, attn_mul(2 * sizeof(int32_t), (size_t)opened));
  return attn_add(sum, (size_t)(d + 1) * sizeof(float) + 2 * sizeof(dci_list) + sizeof(attn_hit) + 2 * sizeof(int32_t));
}
/* The pool: one probe at its worst, or `probes` ordinary ones. */
static size_t pool_bytes(int64_t n, int64_t d, int64_t probes) {
  enum { K = 64, OPENED = 128, SEAMS = 8 * ATTN_ALIGN };
  const size_t one = probe_bytes(n, d, n, n), many = attn_mul((size_t)probes, probe_bytes(n, d, n < K ? n : K, n < OPENED ? n : OPENED));
  return attn_round(attn_add(one > many ? one : many, SEAMS));
}

size_t dci_work_bytes(const dci_shape *s, int64_t n, int64_t probes) {
  const size_t rows = (size_t)n, wide = padded(rows, (size_t)s->simp, sizeof(float));
  size_t sum = attn_add(attn_mul(2, padded(rows, (size_t)s->simp, sizeof(uint64_t))), wide);
  sum = attn_add(sum, attn_mul(3, padded(rows, 1, sizeof(int32_t))));
  sum = attn_add(sum, padded((size_t)(s->comp * s->simp), 1, sizeof(float)));
  sum = attn_add(sum, padded(DCI_ROWS, DCI_COLS + DCI_SLACK, sizeof(float)));
  return attn_add(attn_add(sum, list_bytes(n)), pool_bytes(n, s->d, probes));
}

static dci_list list_at(char **at, int64_t limit, int64_t n) {
  dci_list l = {.limit = limit, .room = list_room(limit, n), .floor = -INFINITY};
  l.score = attn_carve(at, padded((size_t)l.room, 1, sizeof(float)));
  l.id = attn_carve(at, padded((size_t)l.room, 1, sizeof(int32_t)));
  return l;
}

void dci_work_carve(dci_work *w, const dci_shape *s, const attn_micro *mk, void *p, int64_t n, int64_t probes) {
  char *at = p;
  const size_t rows = (size_t)n, simp = (size_t)s->simp;
  *w = (dci_work){.mk = mk, .n = n, .d = s->d, .pool_bytes = pool_bytes(n, s->d, probes)};
  w->order = attn_carve(&at, padded(rows, simp, sizeof(uint64_t)));
  w->spare = attn_carve(&at, padded(rows, simp, sizeof(uint64_t)));
  w->delta = attn_carve(&at, padded(rows, simp, sizeof(float)));
  w->when = attn_carve(&at, padded(rows, 1, sizeof(uint32_t)));
  w->candidate = attn_carve(&at, padded(rows, 1, sizeof(int32_t)));
  w->start = attn_carve(&at, padded(rows, 1, sizeof(int32_t)));
  w->projection = attn_carve(&at, padded((size_t)(s->comp * s->simp), 1, sizeof(float)));
  w->tile = attn_carve(&at, padded(DCI_ROWS, DCI_COLS + DCI_SLACK, sizeof(float)));
  w->wide = list_at(&at, n, n);
  w->pool = at;
}

void dci_work_split(dci_work *w, int64_t k, int64_t beam, int64_t most) {
  k = k < w->n ? k : w->n;
  /* Twice k cells hold k keys even where cells are empty half of the time; what that misses is looked up again. */
  w->opened = beam > 2 * k ? beam : 2 * k;
  w->opened = w->opened < w->n ? w->opened : w->n;
  const int64_t fit = (int64_t)(w->pool_bytes / probe_bytes(w->n, w->d, k, w->opened));
  w->probes = fit < 1 ? 1 : fit < most ? fit : most;
  const size_t probes = (size_t)w->probes;
  char *at = w->pool;
  w->best = attn_carve(&at, probes * sizeof *w->best);
  w->level = attn_carve(&at, probes * sizeof *w->level);
  w->parent = attn_carve(&at, probes * sizeof *w->parent);
  w->who = attn_carve(&at, probes * sizeof *w->who);
  w->fronts = attn_carve(&at, probes * sizeof *w->fronts);
  w->row = attn_carve(&at, probes * (size_t)(w->d + 1) * sizeof *w->row);
  w->front = attn_carve(&at, probes * (size_t)w->opened * sizeof *w->front);
  w->pair = attn_carve(&at, probes * (size_t)w->opened * sizeof *w->pair);
  for (int64_t p = 0; p < w->probes; p++) w->best[p] = list_at(&at, k, w->n), w->level[p] = list_at(&at, w->opened, w->n);
}

/* --- small tools -------------------------------------------------------------------------------------------------- */

double dci_square(int64_t d, const float *v) {
  enum { LANES = 8 };
  double lane[LANES] = {0.0}, sum = 0.0;
  int64_t t = 0;
  for (; t + LANES <= d; t += LANES)
    for (int i = 0; i < LANES; i++) lane[i] += (double)v[t + i] * (double)v[t + i];
  for (; t < d; t++) sum += (double)v[t] * (double)v[t];
  for (int i = 0; i < LANES; i++) sum += lane[i];
  return sum;
}

void dci_close(const attn_micro *mk, dci_list *l) {
  if (l->count <= l->limit) return;
  l->floor = mk->select_best(l->count, l->limit, l->score, l->id);
  l->count = l->limit, l->cut = 1;
}

void dci_add(const attn_micro *mk, dci_list *l, int64_t n, const float *score, float unit, int32_t first, const int32_t *ids) {
  if (l->count + n > l->room) dci_close(mk, l);
  l->count += mk->sift(n, score, unit, l->floor, first, ids, l->score + l->count, l->id + l->count);
}

static uint32_t float_bits(float x) { /* order of non-negative floats */
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffffffu;
}

/* --- one cell ----------------------------------------------------------------------------------------------------- */

static int64_t share_of(double share, int64_t n) {
  const int64_t count = (int64_t)ceil(share * (double)n);
  return count < 1 ? 1 : count > n ? n : count;
}

int dci_whole(int64_t count, int64_t want, double visit, double retrieve) {
  return want >= count || (share_of(visit, count) == count && share_of(retrieve, count) == count);
}

/* Rank among sorted differences: how many are <= x. */
static uint32_t rounds_until(const uint64_t *sorted, int64_t n, uint32_t x) {
  int64_t lo = 0, hi = n;
  while (lo < hi) {
    const int64_t mid = lo + (hi - lo) / 2;
    if (sorted[mid] <= x) lo = mid + 1;
    else hi = mid;
  }
  return (uint32_t)lo;
}

/* when[i]: for "dci" the round in which key s0 + i completes in its first composite; for "l2" an ascending image of its
 * smallest Euclidean distance of projections. */
static void completion(const dci *x, int64_t s0, int64_t count, const float *a, dci_work *w) {
  enum { SORT_FROM = 256 }; /* keys: fewer are counted faster than sorted */
  const int simp = x->shape.simp, sorted = !x->shape.l2 && count >= SORT_FROM;
  for (int64_t i = 0; i < count; i++) w->when[i] = UINT32_MAX;
  for (int c = 0; c < x->shape.comp; c++) {
    for (int j = 0; j < simp; j++) {
      const float *p = x->projection + (int64_t)(c * simp + j) * x->n + s0, at = a[c * simp + j];
      for (int64_t i = 0; i < count; i++) w->delta[j * count + i] = fabsf(p[i] - at);
    }
    if (sorted) {
      for (int64_t i = 0; i < simp * count; i++) w->order[i] = float_bits(w->delta[i]);
      attn_sort_u64(w->order, simp * count, w->spare);
    }
    for (int64_t i = 0; i < count; i++) {
      float most = 0.0f, square = 0.0f;
      for (int j = 0; j < simp; j++) {
        const float v = w->delta[j * count + i];
        most = v > most ? v : most;
        square += v * v;
      }
      const uint32_t when = x->shape.l2 ? float_bits(square)
                            : sorted    ? rounds_until(w->order, simp * count, float_bits(most))
                                        : (uint32_t)(simp * count - x->mk->above(simp * count, w->delta, most));
      if (when < w->when[i]) w->when[i] = when;
    }
  }
}

int64_t dci_cell(const dci *x, int64_t s0, int64_t s1, const float *a, int64_t want, int64_t need, double visit,
                 double retrieve, dci_work *w, int32_t *out) {
  const int64_t count = s1 - s0;
  const int64_t visits = share_of(visit, count), retrieves = share_of(retrieve, count);
  if (dci_whole(count, want, visit, retrieve)) {
    for (int64_t i = 0; i < count; i++) out[i] = (int32_t)(s0 + i);
    return count;
  }
  completion(x, s0, count, a, w);
  for (int64_t i = 0; i < count; i++) w->order[i] = (uint64_t)w->when[i] << 32 | (uint64_t)i;
  attn_sort_u64(w->order, count, w->spare);
  int64_t enough = 0, subtree = 0; /* the first place where want and need are met */
  for (; enough < count; enough++) {
    subtree += x->size[s0 + (int64_t)(w->order[enough] & 0xffffffffu)];
    if (enough + 1 >= want && subtree >= need) break;
  }
  if (enough == count) enough = count - 1;
  const uint32_t wanted = (uint32_t)(w->order[enough] >> 32);
  uint32_t budget = (uint32_t)(w->order[retrieves - 1] >> 32);
  const uint32_t pops = x->shape.l2 ? (uint32_t)(w->order[visits - 1] >> 32) : (uint32_t)(visits * x->shape.simp);
  if (pops < budget) budget = pops;
  const uint32_t last = wanted > budget ? wanted : budget;
  int64_t found = 0;
  while (found < count && (uint32_t)(w->order[found] >> 32) <= last) {
    out[found] = (int32_t)(s0 + (int64_t)(w->order[found] & 0xffffffffu));
    found++;
  }
  return found;
}
