/* cells.c - see cells.h.
 *
 * Spherical k-means: Lloyd's steps (Lloyd 1982) from stratified random keys, in which a key goes to the mean of the nearest
 * *direction* as seen from the centre mu of all means, argmax (k - mu).(m - mu) / |m - mu| (directions: Dhillon & Modha
 * 2001). With the Euclidean distance instead, keys far from every mean all prefer the shortest one, and few cells swallow
 * most keys. Attention does not feel mu: it moves all logits of a query alike.
 *
 * Scores are products of 8-bit integers: which of two nearly equal means a key goes to hardly matters, and they cost a
 * quarter. */
#include "kernels/core/cells.h"

#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

/* Panels of keys when every cell begins a new one. */
static int64_t most_panels(const attn_micro *mk, int64_t cells, int64_t nk) { return attn_panels(mk, nk) + cells; }

static size_t lay_out(attn_cells *c, const attn_micro *mk, void *p, int64_t cells, int64_t nk, int64_t d, int64_t dv) {
  attn_layout at = {.p = p};
  *c = (attn_cells){.cells = cells, .d = d, .dv = dv, .nk = nk};
  c->start = attn_place_floats(&at, cells + 1, 1);
  c->order = attn_place_floats(&at, nk, 1);
  c->cell = attn_place_floats(&at, nk, 1);
  c->panel = attn_place_floats(&at, cells + 1, 1);
  c->mean = attn_place_floats(&at, cells, d);
  c->bias = attn_place_floats(&at, cells, 1);
  c->mean_q = attn_place(&at, (size_t)attn_bytes_i8(mk, cells, d));
  c->mean_scale = attn_place_floats(&at, cells, 1);
  c->log2_count = attn_place_floats(&at, cells, 1);
  c->spread = attn_place_floats(&at, cells, 1);
  c->radius = attn_place_floats(&at, cells, 1);
  c->kt = attn_place_floats(&at, most_panels(mk, cells, nk) * mk->panel, d);
  c->v = attn_place_floats(&at, nk, attn_padded(mk, dv));
  c->v_mean = attn_place_floats(&at, cells, dv);
  return at.used;
}

size_t attn_cells_bytes(const attn_micro *mk, int64_t cells, int64_t nk, int64_t d, int64_t dv) {
  attn_cells c;
  return lay_out(&c, mk, NULL, cells, nk, d, dv);
}
void attn_cells_carve(attn_cells *c, const attn_micro *mk, void *p, int64_t cells, int64_t nk, int64_t d, int64_t dv) {
  (void)lay_out(c, mk, p, cells, nk, d, dv);
}

/* What the phases keep in tmp. */
typedef struct cells_work {
  float *row, *other; /* [d] each, and what of d is padded */
  uint8_t *a;         /* [CELLS_BLOCK, width] quantised keys */
  float *as, *score;  /* [CELLS_BLOCK], [CELLS_BLOCK, padded cells] */
} cells_work;
static size_t lay_out_work(cells_work *w, const attn_micro *mk, void *p, int64_t cells, int64_t d) {
  attn_layout at = {.p = p};
  w->row = attn_place_floats(&at, attn_width_i8(d), 1);
  w->other = attn_place_floats(&at, attn_width_i8(d), 1);
  w->a = attn_place(&at, (size_t)(CELLS_BLOCK * attn_width_i8(d)));
  w->as = attn_place_floats(&at, CELLS_BLOCK, 1);
  w->score = attn_place_floats(&at, CELLS_BLOCK, attn_padded(mk, cells));
  return at.used;
}
static cells_work work_in(const attn_cells *c, const attn_micro *mk, void *tmp) {
  cells_work w;
  (void)lay_out_work(&w, mk, tmp, c->cells, c->d);
  return w;
}
size_t attn_cells_work(const attn_micro *mk, int64_t cells, int64_t d) {
  cells_work w;
  return lay_out_work(&w, mk, NULL, cells, d);
}

void attn_cells_seed(attn_cells *c, const float *k, ptrdiff_t ks, const int32_t *idx, int64_t kept, uint64_t seed) {
  c->kept = kept;
  for (int64_t i = 0; i < c->cells; i++) {
    const int64_t lo = i * kept / c->cells, hi = (i + 1) * kept / c->cells, span = hi > lo ? hi - lo : 1;
    const int64_t pick = lo + (int64_t)(attn_hash(seed, (uint64_t)i, 0) % (uint64_t)span);
    if (pick < kept)
      memcpy(c->mean + i * c->d, k + idx[pick] * ks, (size_t)c->d * sizeof(float));
    else
      memset(c->mean + i * c->d, 0, (size_t)c->d * sizeof(float));
  }
}

void attn_cells_aim(attn_cells *c, const attn_micro *mk, void *tmp) {
  const cells_work w = work_in(c, mk, tmp);
  const int64_t d = c->d;
  float *centre = w.row;
  memset(centre, 0, (size_t)d * sizeof(float));
  for (int64_t i = 0; i < c->cells; i++) mk->axpy(d, 1.0f / (float)c->cells, c->mean + i * d, centre);
  for (int64_t i = 0; i < c->cells; i++) mk->axpy(d, -1.0f, centre, c->mean + i * d);
  attn_pack_i8(mk, c->cells, d, c->mean, d, NULL, c->mean_q, c->mean_scale, (int8_t *)w.other);
  for (int64_t i = 0; i < c->cells; i++) {
    const float *m = c->mean + i * d, square = mk->dot(d, m, m), inverse = square > 0.0f ? 1.0f / sqrtf(square) : 0.0f;
    c->mean_scale[i] *= inverse;
    c->bias[i] = -mk->dot(d, centre, m) * inverse;
  }
}

void attn_cells_assign(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, const int32_t *idx,
                       int64_t every, int64_t i0, int64_t i1, void *tmp) {
  const cells_work w = work_in(c, mk, tmp);
  const int64_t rows = i1 - i0, ld = attn_padded(mk, c->cells);
  int32_t pick[CELLS_BLOCK];
  float best;
  for (int64_t i = 0; i < rows; i++) pick[i] = idx[(i0 + i) * every];
  attn_rows_i8(mk, rows, c->d, k, ks, pick, w.a, w.as);
  attn_cells_scores(c, mk, rows, w.a, w.as, c->bias, w.score, ld);
  for (int64_t i = 0; i < rows; i++) c->cell[i0 + i] = (int32_t)mk->argmax(c->cells, w.score + i * ld, NULL, &best);
}

void attn_cells_sort(attn_cells *c, const attn_micro *mk, const int32_t *idx, int64_t every) {
  const int64_t keys = (c->kept + every - 1) / every;
  memset(c->start, 0, (size_t)(c->cells + 1) * sizeof *c->start);
  for (int64_t i = 0; i < keys; i++) c->start[c->cell[i] + 1]++;
  c->panel[0] = 0;
  for (int64_t i = 0; i < c->cells; i++) {
    c->panel[i + 1] = c->panel[i] + (int32_t)attn_panels(mk, c->start[i + 1]);
    c->start[i + 1] += c->start[i];
  }
  for (int64_t i = 0; i < keys; i++) c->order[c->start[c->cell[i]]++] = idx[i * every];
  for (int64_t i = c->cells; i > 0; i--) c->start[i] = c->start[i - 1]; /* each start had moved to its end */
  c->start[0] = 0;
}

void attn_cells_means(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, int64_t c0, int64_t c1) {
  for (int64_t i = c0; i < c1; i++) {
    const int64_t count = c->start[i + 1] - c->start[i];
    float *mean = c->mean + i * c->d;
    memset(mean, 0, (size_t)c->d * sizeof(float)); /* without keys: the centre of nothing */
    for (int64_t j = c->start[i]; j < c->start[i + 1]; j++) mk->axpy(c->d, 1.0f / (float)count, k + c->order[j] * ks, mean);
  }
}

void attn_cells_pack(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, const float *v, ptrdiff_t vs,
                     int64_t c0, int64_t c1, void *tmp) {
  const cells_work w = work_in(c, mk, tmp);
  const int64_t d = c->d, dv = c->dv, wo = attn_padded(mk, dv);
  for (int64_t i = c0; i < c1; i++) {
    const int64_t first = c->start[i], count = c->start[i + 1] - first;
    const int32_t *order = c->order + first;
    attn_pack_transposed(mk, count, d, k, ks, order, 1.0f, c->kt + (int64_t)c->panel[i] * mk->panel * d);
    attn_pack_panels(mk, count, count, dv, v, vs, order, c->v + first * wo);
    float sum = 0.0f, most = 0.0f, *v_mean = c->v_mean + i * dv;
    memset(v_mean, 0, (size_t)dv * sizeof(float));
    for (int64_t j = 0; j < count; j++) {
      memcpy(w.row, k + order[j] * ks, (size_t)d * sizeof(float));
      mk->axpy(d, -1.0f, c->mean + i * d, w.row);
      const float squared = mk->dot(d, w.row, w.row);
      sum += squared;
      if (squared > most) most = squared;
      mk->axpy(dv, 1.0f / (float)count, v + order[j] * vs, v_mean);
    }
    c->log2_count[i] = count ? log2f((float)count) : -INFINITY;
    c->spread[i] = count ? sum / (float)(count * d) : 0.0f;
    c->radius[i] = sqrtf(most);
  }
}

void attn_cells_finish(attn_cells *c, const attn_micro *mk, void *tmp) {
  const cells_work w = work_in(c, mk, tmp);
  attn_pack_i8(mk, c->cells, c->d, c->mean, c->d, NULL, c->mean_q, c->mean_scale, (int8_t *)w.other);
  c->longest = 0.0f;
  for (int64_t i = 0; i < c->cells; i++) {
    const float *mean = c->mean + i * c->d, most = sqrtf(mk->dot(c->d, mean, mean)) + c->radius[i];
    if (most > c->longest) c->longest = most;
    /* The bytes tell of another mean, off by half a step per dimension. */
    c->radius[i] += 0.51f * c->mean_scale[i] * sqrtf((float)c->d);
  }
}
