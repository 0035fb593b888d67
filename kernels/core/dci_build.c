/* dci_build.c - the tree of an index, in phases that the caller runs in parallel loops; see dci.c for what is built. */
#include <math.h>
#include <string.h>

#include "kernels/core/dci.h"
#include "kernels/core/rng.h"

enum { EXPONENT_MIN = -150, EXPONENT_MAX = 140 }; /* of norms of finite keys of up to 65536 floats */
enum { ASIDE = -1 };                              /* depth of a long key */

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

/* --- maps --------------------------------------------------------------------------------------------------------- */

/* c T_K = [key; sqrt(c^2 - |key|^2)] in the scale of the index; here its last coordinate, of the key at this position. */
static float last_of(const dci *x, int32_t id) {
  const double c = (double)x->norm, n = ldexp(sqrt(x->square[id]), -x->exponent), rest = (c - n) * (c + n);
  return rest > 0.0 ? (float)sqrt(rest) : 0.0f;
}
static void map_key(const dci *x, int32_t id, float *out) {
  const float *v = x->row + id * x->stride, unit = ldexpf(1.0f, -x->exponent);
  for (int64_t t = 0; t < x->shape.d; t++) out[t] = v[t] * unit;
  out[x->shape.d] = last_of(x, id);
}

/* The same for the keys of a cell, a column each. Eight rows are read at once, so that their cache misses overlap. */
static void map_cell(const dci *x, const int32_t *id, int64_t count, float *slab) {
  enum { AT_ONCE = 8 };
  const int64_t d = x->shape.d;
  const float unit = ldexpf(1.0f, -x->exponent);
  int64_t j = 0;
  for (; j + AT_ONCE <= count; j += AT_ONCE) {
    const float *v[AT_ONCE];
    for (int i = 0; i < AT_ONCE; i++) v[i] = x->row + id[j + i] * x->stride;
    for (int64_t t = 0; t < d; t++)
      for (int i = 0; i < AT_ONCE; i++) slab[t * count + j + i] = v[i][t] * unit;
  }
  for (; j < count; j++)
    for (int64_t t = 0; t < d; t++) slab[t * count + j] = x->row[id[j] * x->stride + t] * unit;
  for (j = 0; j < count; j++) slab[d * count + j] = last_of(x, id[j]);
}

static int exponent_of(double square) { /* of a norm, binary; that of zero is EXPONENT_MIN, which no other has */
  int e = EXPONENT_MIN;
  if (square > 0.0) (void)frexp(sqrt(square), &e);
  return e;
}

/* Sets depth = ASIDE for the longest keys and 0 for the others, and c; returns how many stay in the tree. */
static int64_t set_aside(dci *x) {
  enum { MOST = 32, FACTOR = 3 /* 2^3 */, KINDS = EXPONENT_MAX - EXPONENT_MIN + 1, SAFE = 126 /* 2^+-126 are floats */ };
  int64_t count[KINDS] = {0}, below = 0, above = 0;
  double most[KINDS] = {0.0}, square = 0.0;
  for (int64_t r = 0; r < x->n; r++) {
    const double s = x->square[x->idx[r]];
    const int e = exponent_of(s) - EXPONENT_MIN;
    x->depth[r] = e;
    count[e]++;
    most[e] = s > most[e] ? s : most[e];
  }
  int median = 0, limit = KINDS - 1;
  const int64_t nonzero = x->n - count[0];
  count[0] = 0;
  while ((below += count[median]) * 2 < nonzero) median++;
  for (; limit > median + FACTOR && above + count[limit] <= MOST; limit--) above += count[limit];
  for (int64_t r = 0; r < x->n; r++) x->depth[r] = x->depth[r] > limit ? ASIDE : 0;
  for (int e = 0; e <= limit; e++) square = most[e] > square ? most[e] : square;
  (void)frexp(sqrt(square), &x->exponent);
  x->exponent = x->exponent > SAFE ? SAFE : x->exponent < -SAFE ? -SAFE : x->exponent;
  x->norm = (float)ldexp(sqrt(square), -x->exponent);
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
    const uint64_t draw = attn_hash(seed, (uint64_t)attempt, (uint64_t)levels);
    memset(count, 0, sizeof count);
    for (int64_t r = 0; r < x->n; r++) {
      if (x->depth[r] == ASIDE) continue;
      int up = 0;
      while (up < levels - 1 && (double)(attn_hash(draw, (uint64_t)r, (uint64_t)up) >> 11) * 0x1p-53 < climb) up++;
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

/* --- slabs -------------------------------------------------------------------------------------------------------- */

/* Copies the keys of one cell, and projects them. */
static void fill_cell(dci *x, int64_t s0, int64_t s1) {
  const int64_t d = x->shape.d, count = s1 - s0, lists = x->shape.comp * x->shape.simp;
  float *slab = x->slab + s0 * (d + 1), *projection = x->projection + s0;
  map_cell(x, x->id + s0, count, slab);
  x->mk->gemm(lists, count, d + 1, x->direction, d + 1, 1, slab, count, x->mk->panel, projection, x->n, 0);
  for (int64_t i = 0; i < lists; i++)
    for (int64_t j = 0; j < count; j++) projection[i * x->n + j] *= x->inverse;
}

void dci_begin(dci *x, const float *row, ptrdiff_t stride, const double *square, const int32_t *idx, int64_t n, uint64_t seed) {
  x->row = row, x->stride = stride, x->square = square, x->idx = idx, x->n = n;
  x->depths = x->exponent = 0;
  x->norm = x->inverse = 0.0f;
  memset(x->level, 0, sizeof x->level);
  memset(x->slab + n * (x->shape.d + 1), 0, DCI_SLACK * sizeof *x->slab);
  if (n == 0) return;
  draw_levels(x, set_aside(x), seed);
  for (int64_t s = 0; s < n; s++) x->size[s] = 1;
  dci_place(x, 0);
  fill_cell(x, 0, x->level[1]);
  int64_t slot = x->level[x->depths];
  for (int64_t r = 0; r < n; r++)
    if (x->depth[r] == ASIDE) x->id[slot++] = idx[r];
  fill_cell(x, x->level[x->depths], n);
}

void dci_assign(dci *x, int depth, int64_t r0, int64_t r1, dci_work *w) {
  const int64_t most = r1 - r0 > 1 ? r1 - r0 : 1;
  int32_t rank[512];
  dci_work_split(w, 1, x->shape.build.beam, most < 512 ? most : 512);
  while (r0 < r1) {
    int64_t found = 0;
    for (; r0 < r1 && found < w->probes; r0++) {
      if (x->depth[r0] != depth) continue;
      map_key(x, x->idx[r0], w->row + found * (x->shape.d + 1));
      w->who[found] = (int32_t)found;
      rank[found++] = (int32_t)r0;
    }
    dci_parents(x, depth, w, found);
    for (int64_t i = 0; i < found; i++) x->parent[rank[i]] = w->parent[i].id;
  }
}

void dci_place(dci *x, int depth) {
  const int64_t first = x->level[depth];
  int64_t next = first;
  if (depth > 0) { /* counting sort by parent: child[s] first counts, then points behind what was put into the cell */
    for (int64_t s = x->level[depth - 1]; s < first; s++) x->child[s] = 0;
    for (int64_t r = 0; r < x->n; r++)
      if (x->depth[r] == depth) x->child[x->parent[r]]++;
    for (int64_t s = x->level[depth - 1]; s < first; s++) {
      const int32_t count = x->child[s];
      x->child[s] = (int32_t)next;
      next += count;
    }
    next = first;
  }
  for (int64_t r = 0; r < x->n; r++) {
    if (x->depth[r] != depth) continue;
    const int64_t s = depth > 0 ? x->child[x->parent[r]]++ : next++;
    x->id[s] = x->idx[r];
  }
  if (depth > 0) { /* back from ends to beginnings */
    for (int64_t s = first - 1; s > x->level[depth - 1]; s--) x->child[s] = x->child[s - 1];
    x->child[x->level[depth - 1]] = (int32_t)first;
  }
  /* Cells of this level are empty until the next one is placed. */
  for (int64_t s = first; s <= x->level[depth + 1]; s++) x->child[s] = (int32_t)x->level[depth + 1];
}

void dci_fill(dci *x, int depth, int64_t part, int64_t parts) {
  const int64_t first = x->level[depth - 1], nodes = x->level[depth] - first;
  for (int64_t s = first + nodes * part / parts; s < first + nodes * (part + 1) / parts; s++)
    if (x->child[s] < x->child[s + 1]) fill_cell(x, x->child[s], x->child[s + 1]);
}

void dci_finish(dci *x) {
  for (int64_t s = x->level[x->depths] - 1; s >= 0; s--) {
    int64_t sum = 1;
    for (int64_t i = x->child[s]; i < x->child[s + 1]; i++) sum += x->size[i];
    x->size[s] = (int32_t)sum;
  }
}
