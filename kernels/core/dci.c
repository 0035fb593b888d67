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
 *           reached visit * n' or candidates reached retrieve * n'), or when everything was visited.
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
#include "kernels/core/rng.h"

enum { EXPONENT_MIN = -150, EXPONENT_MAX = 140 }; /* of norms of finite keys of up to 65536 floats */

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void carve_index(dci *x, char **p, const dci_shape *s, int64_t n) {
  const size_t ints = (size_t)(n + 1) * sizeof(int32_t), floats = (size_t)n * sizeof(float);
  x->id = attn_carve(p, ints);
  x->child = attn_carve(p, ints);
  x->size = attn_carve(p, ints);
  x->depth = attn_carve(p, ints);
  x->parent = attn_carve(p, ints);
  x->rank = attn_carve(p, ints);
  x->slot = attn_carve(p, ints);
  x->last = attn_carve(p, floats);
  x->key = attn_carve(p, attn_mul(floats, (size_t)s->d));
  x->projection = attn_carve(p, attn_mul(floats, (size_t)(s->comp * s->simp)));
}

size_t dci_bytes(const dci_shape *s, int64_t n) {
  size_t ints = attn_mul(7, attn_round(attn_mul(attn_add((size_t)n, 1), sizeof(int32_t))));
  size_t floats = attn_mul((size_t)n, sizeof(float)), wide = attn_round(attn_mul(floats, (size_t)s->d));
  return attn_add(attn_add(ints, attn_round(floats)), attn_add(wide, attn_round(attn_mul(floats, (size_t)(s->comp * s->simp)))));
}

void dci_carve(dci *x, const dci_shape *shape, const attn_micro *mk, const float *direction, void *p, int64_t n) {
  char *at = p;
  *x = (dci){.shape = *shape, .mk = mk, .direction = direction};
  carve_index(x, &at, shape, n);
}

size_t dci_work_bytes(const dci_shape *s, int64_t n) {
  const size_t rows = (size_t)n, wide = attn_mul(rows, (size_t)s->simp);
  size_t sum = attn_mul(2, attn_round(attn_mul(wide, sizeof(uint64_t))));
  sum = attn_add(sum, attn_round(attn_mul(wide, sizeof(float))));
  sum = attn_add(sum, attn_mul(4, attn_round(attn_mul(rows, sizeof(float)))));
  sum = attn_add(sum, attn_round((size_t)(s->comp * s->simp) * sizeof(float)));
  sum = attn_add(sum, attn_round((size_t)s->d * sizeof(float)));
  return attn_add(sum, attn_round(attn_mul(rows, sizeof(attn_hit))));
}

void dci_work_carve(dci_work *w, const dci_shape *s, void *p, int64_t n) {
  char *at = p;
  const size_t rows = (size_t)n, wide = rows * (size_t)s->simp;
  w->order = attn_carve(&at, wide * sizeof(uint64_t));
  w->spare = attn_carve(&at, wide * sizeof(uint64_t));
  w->delta = attn_carve(&at, wide * sizeof(float));
  w->when = attn_carve(&at, rows * sizeof(uint32_t));
  w->candidate = attn_carve(&at, rows * sizeof(int32_t));
  w->front = attn_carve(&at, rows * sizeof(int32_t));
  w->score = attn_carve(&at, rows * sizeof(float));
  w->projection = attn_carve(&at, (size_t)(s->comp * s->simp) * sizeof(float));
  w->key = attn_carve(&at, (size_t)s->d * sizeof(float));
  w->hit = attn_carve(&at, rows * sizeof(attn_hit));
}

/* --- small tools -------------------------------------------------------------------------------------------------- */

/* Ascending. Insertion for few, bytewise radix (skipping bytes that do not vary) for many. */
static void sort_u64(uint64_t *a, int64_t n, uint64_t *spare) {
  if (n <= 48) {
    for (int64_t i = 1; i < n; i++) {
      const uint64_t v = a[i];
      int64_t j = i;
      for (; j > 0 && a[j - 1] > v; j--) a[j] = a[j - 1];
      a[j] = v;
    }
    return;
  }
  uint64_t any = 0, all = ~(uint64_t)0;
  for (int64_t i = 0; i < n; i++) any |= a[i], all &= a[i];
  uint64_t *from = a, *to = spare;
  for (int shift = 0; shift < 64; shift += 8) {
    if (!((any ^ all) >> shift & 255)) continue;
    int64_t count[257] = {0};
    for (int64_t i = 0; i < n; i++) count[(from[i] >> shift & 255) + 1]++;
    for (int i = 0; i < 256; i++) count[i + 1] += count[i];
    for (int64_t i = 0; i < n; i++) to[count[from[i] >> shift & 255]++] = from[i];
    uint64_t *swap = from;
    from = to, to = swap;
  }
  if (from != a) memcpy(a, from, (size_t)n * sizeof *a);
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
  const int simp = x->shape.simp;
  for (int64_t i = 0; i < count; i++) w->when[i] = UINT32_MAX;
  for (int c = 0; c < x->shape.comp; c++) {
    for (int j = 0; j < simp; j++) {
      const float *p = x->projection + (int64_t)(c * simp + j) * x->n + s0, at = a[c * simp + j];
      for (int64_t i = 0; i < count; i++) w->delta[j * count + i] = fabsf(p[i] - at);
    }
    if (!x->shape.l2) {
      for (int64_t i = 0; i < simp * count; i++) w->order[i] = float_bits(w->delta[i]);
      sort_u64(w->order, simp * count, w->spare);
    }
    for (int64_t i = 0; i < count; i++) {
      float most = 0.0f, square = 0.0f;
      for (int j = 0; j < simp; j++) {
        const float v = w->delta[j * count + i];
        most = v > most ? v : most;
        square += v * v;
      }
      const uint32_t when = x->shape.l2 ? float_bits(square) : rounds_until(w->order, simp * count, float_bits(most));
      if (when < w->when[i]) w->when[i] = when;
    }
  }
}

int64_t dci_cell(const dci *x, int64_t s0, int64_t s1, const float *a, int64_t want, int64_t need, double visit,
                 double retrieve, dci_work *w, int32_t *out) {
  const int64_t count = s1 - s0;
  const int64_t visits = share_of(visit, count), retrieves = share_of(retrieve, count);
  if (want >= count || (visits == count && retrieves == count)) {
    for (int64_t i = 0; i < count; i++) out[i] = (int32_t)(s0 + i);
    return count;
  }
  completion(x, s0, count, a, w);
  for (int64_t i = 0; i < count; i++) w->order[i] = (uint64_t)w->when[i] << 32 | (uint64_t)i;
  sort_u64(w->order, count, w->spare);
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

/* --- search ------------------------------------------------------------------------------------------------------- */

typedef struct probe { /* a query, or a key that looks for its parent */
  const float *v, *a;  /* [d]; projections */
  int is_key;
  float last; /* last coordinate of T_K, for keys */
} probe;

/* Scores candidate[0..count) and appends them to the hits. Queries: q.k. Keys: the inner product of the T_K. */
static int64_t score_cell(const dci *x, const probe *p, int64_t s0, int64_t count, int64_t cell, int64_t hits, dci_work *w) {
  const int64_t d = x->shape.d;
  if (count == cell) /* the whole cell: one slab */
    x->mk->dots(count, d, p->v, x->key + s0 * d, d, w->score);
  else
    for (int64_t i = 0; i < count; i++) w->score[i] = x->mk->dot(d, p->v, x->key + w->candidate[i] * d);
  for (int64_t i = 0; i < count; i++) {
    const int32_t s = count == cell ? (int32_t)(s0 + i) : w->candidate[i];
    const float score = p->is_key ? w->score[i] * x->inverse * x->inverse + p->last * x->last[s] : w->score[i];
    w->hit[hits++] = (attn_hit){score, s};
  }
  return hits;
}

/* The cells to open next: the best of hit[from, to), at least `beam` and as many as hold `need` keys. */
static int64_t choose_front(const dci *x, int64_t from, int64_t to, int64_t beam, int64_t need, dci_work *w) {
  attn_hit *hit = w->hit + from;
  const int64_t n = to - from;
  int64_t count = beam < n ? beam : n, held;
  for (;;) {
    attn_select(hit, n, count);
    held = 0;
    for (int64_t i = 0; i < count; i++) held += x->size[hit[i].id];
    if (held >= need || count == n) break;
    count = 2 * count < n ? 2 * count : n; /* rare: the best of the level have small subtrees */
  }
  for (int64_t i = 0; i < count; i++) w->order[i] = (uint64_t)hit[i].id;
  sort_u64(w->order, count, w->spare); /* in order of slots: memory runs forward */
  for (int64_t i = 0; i < count; i++) w->front[i] = (int32_t)w->order[i];
  return count;
}

/* Beam search down to `depth`; hits keep slots. *last = where the hits of that depth begin. Returns the number of hits. */
static int64_t descend(const dci *x, const probe *p, int depth, int64_t want, int64_t need, const dci_budget *b,
                       dci_work *w, int64_t *last) {
  int64_t hits = 0, from = 0, cells = 1;
  for (int t = 0; t <= depth; t++) {
    const int64_t begin = hits, wanted = t == depth ? want : b->beam;
    if (t > 0) cells = choose_front(x, from, hits, b->beam, need, w);
    for (int64_t i = 0; i < cells; i++) {
      const int64_t s0 = t == 0 ? 0 : x->child[w->front[i]], s1 = t == 0 ? x->level[1] : x->child[w->front[i] + 1];
      if (s0 == s1) continue;
      const int64_t count = dci_cell(x, s0, s1, p->a, wanted, need, b->visit, b->retrieve, w, w->candidate);
      hits = score_cell(x, p, s0, count, s1 - s0, hits, w);
    }
    from = begin;
  }
  *last = from;
  return hits;
}

int64_t dci_search(const dci *x, const float *q, double norm, int64_t k, const dci_budget *budget, dci_work *w,
                   uint64_t *pairs) {
  if (x->n == 0) return 0;
  const int64_t d = x->shape.d;
  const float inverse = (float)(1.0 / norm);
  for (int i = 0; i < x->shape.comp * x->shape.simp; i++)
    w->projection[i] = x->mk->dot(d, x->direction + i * (d + 1), q) * inverse;
  const probe p = {.v = q, .a = w->projection};
  int64_t last, hits = descend(x, &p, x->depths - 1, k, k, budget, w, &last);
  const int64_t tree = x->level[x->depths];
  hits = score_cell(x, &p, tree, x->n - tree, x->n - tree, hits, w); /* the long keys */
  const double unit = ldexp(1.0, x->exponent);
  for (int64_t i = 0; i < hits; i++)
    w->hit[i] = (attn_hit){(float)((double)w->hit[i].score * unit), x->id[w->hit[i].id]};
  *pairs += (uint64_t)hits;
  return hits;
}

/* --- build -------------------------------------------------------------------------------------------------------- */

void dci_directions(const dci_shape *s, uint64_t seed, float *direction) {
  attn_rng r;
  attn_rng_seed(&r, seed, 0);
  for (int i = 0; i < s->comp * s->simp; i++) {
    float *u = direction + i * (s->d + 1);
    double square = 0.0;
    for (int64_t t = 0; t <= s->d; t++) {
      u[t] = (float)attn_rng_normal(&r);
      square += (double)u[t] * (double)u[t];
    }
    for (int64_t t = 0; t <= s->d; t++) u[t] = (float)((double)u[t] / sqrt(square));
  }
}

static double square_norm(int64_t d, const float *v) { /* in double: 1e-30 and 1e30 are legal */
  double sum = 0.0;
  for (int64_t t = 0; t < d; t++) sum += (double)v[t] * (double)v[t];
  return sum;
}

/* A key in the scale of the index. */
static void scale_key(const dci *x, const float *v, float *out) {
  const double unit = ldexp(1.0, -x->exponent);
  for (int64_t t = 0; t < x->shape.d; t++) out[t] = (float)((double)v[t] * unit);
}

static float last_coordinate(const dci *x, const float *v) {
  const double c = (double)x->norm, n = sqrt(square_norm(x->shape.d, v));
  const double rest = c > 0.0 ? (c - n) * (c + n) / (c * c) : 0.0;
  return rest > 0.0 ? (float)sqrt(rest) : 0.0f;
}

/* Projections of T_K(v). */
static void project_key(const dci *x, const float *v, float last, float *a) {
  const int64_t d = x->shape.d;
  for (int i = 0; i < x->shape.comp * x->shape.simp; i++) {
    const float *u = x->direction + i * (d + 1);
    a[i] = x->mk->dot(d, u, v) * x->inverse + u[d] * last;
  }
}

enum { ASIDE = -1 }; /* depth of a long key */

static int exponent_of(double square) { /* of a norm, binary; that of zero is EXPONENT_MIN, which no other has */
  int e = EXPONENT_MIN;
  if (square > 0.0) (void)frexp(sqrt(square), &e);
  return e;
}

/* Sets depth = ASIDE for the longest keys and 0 for the others, and c; returns how many stay in the tree. */
static int64_t set_aside(dci *x, const float *keys, ptrdiff_t ks, const int32_t *idx) {
  enum { MOST = 32, FACTOR = 3 /* 2^3 */ };
  int64_t count[EXPONENT_MAX - EXPONENT_MIN + 1] = {0}, below = 0, above = 0;
  const int64_t d = x->shape.d;
  for (int64_t r = 0; r < x->n; r++) count[exponent_of(square_norm(d, keys + idx[r] * ks)) - EXPONENT_MIN]++;
  int median = EXPONENT_MIN, limit = EXPONENT_MAX;
  const int64_t nonzero = x->n - count[0];
  count[0] = 0;
  while ((below += count[median - EXPONENT_MIN]) * 2 < nonzero) median++;
  for (; limit > median + FACTOR && above + count[limit - EXPONENT_MIN] <= MOST; limit--) above += count[limit - EXPONENT_MIN];
  double most = 0.0;
  for (int64_t r = 0; r < x->n; r++) {
    const double square = square_norm(d, keys + idx[r] * ks);
    x->depth[r] = exponent_of(square) > limit ? ASIDE : 0;
    if (x->depth[r] != ASIDE && square > most) most = square;
  }
  x->norm = (float)frexp(sqrt(most), &x->exponent);
  x->inverse = x->norm > 0.0f ? 1.0f / x->norm : 0.0f;
  return x->n - above;
}

/* Depth of every key of the tree, so that no level is empty; fewer levels when the draw keeps failing. */
static void draw_levels(dci *x, int64_t keys, uint64_t seed) {
  enum { ATTEMPTS = 64 };
  int64_t count[DCI_MAX_LEVELS];
  int levels = x->shape.levels < keys ? x->shape.levels : (int)keys;
  for (int attempt = 0;; attempt++) {
    if (attempt == ATTEMPTS) attempt = 0, levels--;
    const double climb = pow((double)keys, -1.0 / levels);
    memset(count, 0, sizeof count);
    for (int64_t r = 0; r < x->n; r++) {
      if (x->depth[r] == ASIDE) continue;
      int up = 0;
      while (up < levels - 1 &&
             (double)(attn_hash(attn_hash(seed, (uint64_t)attempt, (uint64_t)levels), (uint64_t)r, (uint64_t)up) >> 11) * 0x1p-53 < climb)
        up++;
      x->depth[r] = levels - 1 - up;
      count[x->depth[r]]++;
    }
    int empty = 0;
    for (int t = 0; t < levels; t++) empty |= count[t] == 0;
    if (!empty) break;
  }
  x->depths = levels;
  x->level[0] = 0;
  for (int t = 0; t < levels; t++) x->level[t + 1] = x->level[t] + count[t];
}

static void fill_slot(dci *x, int64_t slot, int64_t rank, const float *keys, ptrdiff_t ks, const int32_t *idx) {
  const int64_t d = x->shape.d;
  float a[DCI_MAX_COMP * DCI_MAX_SIMP], *key = x->key + slot * d;
  scale_key(x, keys + idx[rank] * ks, key);
  x->id[slot] = idx[rank];
  x->rank[slot] = (int32_t)rank;
  x->last[slot] = last_coordinate(x, key);
  project_key(x, key, x->last[slot], a);
  for (int i = 0; i < x->shape.comp * x->shape.simp; i++) x->projection[i * x->n + slot] = a[i];
}

void dci_begin(dci *x, const float *keys, ptrdiff_t ks, const int32_t *idx, int64_t n, uint64_t seed) {
  x->n = n;
  x->depths = 0;
  x->norm = x->inverse = 0.0f;
  memset(x->level, 0, sizeof x->level);
  if (n == 0) return;
  draw_levels(x, set_aside(x, keys, ks, idx), seed);
  for (int64_t s = 0; s < n; s++) x->size[s] = 1;
  dci_place(x, 0, keys, ks, idx);
  int64_t slot = x->level[x->depths];
  for (int64_t r = 0; r < n; r++)
    if (x->depth[r] == ASIDE) fill_slot(x, slot++, r, keys, ks, idx);
}

void dci_assign(dci *x, int depth, const float *keys, ptrdiff_t ks, const int32_t *idx, int64_t r0, int64_t r1,
                dci_work *w) {
  for (int64_t r = r0; r < r1; r++) {
    if (x->depth[r] != depth) continue;
    scale_key(x, keys + idx[r] * ks, w->key);
    probe p = {.v = w->key, .a = w->projection, .is_key = 1};
    p.last = last_coordinate(x, p.v);
    project_key(x, p.v, p.last, w->projection);
    int64_t last, hits = descend(x, &p, depth - 1, 1, 0, &x->shape.build, w, &last);
    if (hits == last) /* every cell of the beam was empty: look at the whole level */
      hits = score_cell(x, &p, x->level[depth - 1], x->level[depth] - x->level[depth - 1],
                        x->level[depth] - x->level[depth - 1], last, w);
    attn_hit best = w->hit[last];
    for (int64_t i = last + 1; i < hits; i++)
      if (attn_better(w->hit[i], best)) best = w->hit[i];
    x->parent[r] = best.id;
  }
}

void dci_place(dci *x, int depth, const float *keys, ptrdiff_t ks, const int32_t *idx) {
  const int64_t first = x->level[depth];
  int64_t next = first;
  if (depth > 0) { /* counting sort by parent: child[s + 1] first counts, then points behind the cell of s */
    for (int64_t s = x->level[depth - 1]; s < first; s++) x->slot[s] = 0;
    for (int64_t r = 0; r < x->n; r++)
      if (x->depth[r] == depth) x->slot[x->parent[r]]++;
    for (int64_t s = x->level[depth - 1]; s < first; s++) {
      const int32_t count = x->slot[s];
      x->child[s] = x->slot[s] = (int32_t)next;
      next += count;
    }
  }
  for (int64_t r = 0; r < x->n; r++)
    if (x->depth[r] == depth) fill_slot(x, depth > 0 ? x->slot[x->parent[r]]++ : next++, r, keys, ks, idx);
  /* Cells of this level are empty until the next one is placed. */
  for (int64_t s = first; s <= x->level[depth + 1]; s++) x->child[s] = (int32_t)x->level[depth + 1];
}

void dci_finish(dci *x) {
  for (int64_t s = x->level[x->depths] - 1; s >= 0; s--) {
    int64_t sum = 1;
    for (int64_t i = x->child[s]; i < x->child[s + 1]; i++) sum += x->size[i];
    x->size[s] = (int32_t)sum;
  }
}
