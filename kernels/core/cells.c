/* cells.c - see cells.h. Cells are those of k-means: Lloyd's steps (Lloyd 1982) from stratified random keys, with every
 * distance taken by gemm: argmin |k - mean|^2 = argmax k.mean - |mean|^2 / 2. */
#include "kernels/core/cells.h"

#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

/* Panels of keys when every cell begins a new one. */
static int64_t most_panels(const attn_micro *mk, int64_t cells, int64_t nk) { return attn_panels(mk, nk) + cells; }

/* Both walk the same list: floats of each array, in order. */
enum { ARRAYS = 13 };
static void floats_of(const attn_micro *mk, int64_t cells, int64_t nk, int64_t d, int64_t dv, int64_t size[ARRAYS]) {
  const int64_t list[ARRAYS] = {cells + 1, nk,    nk,    cells + 1, cells * d, attn_padded(mk, cells) * d, cells,
                                cells,     cells, cells, most_panels(mk, cells, nk) * mk->panel * d,
                                nk * attn_padded(mk, dv), cells * dv};
  memcpy(size, list, sizeof list);
}

size_t attn_cells_floats(const attn_micro *mk, int64_t cells, int64_t nk, int64_t d, int64_t dv) {
  int64_t size[ARRAYS];
  size_t total = 0;
  floats_of(mk, cells, nk, d, dv, size);
  for (int i = 0; i < ARRAYS; i++) total += attn_round((size_t)size[i] * sizeof(float));
  return total / sizeof(float);
}

void attn_cells_carve(attn_cells *c, const attn_micro *mk, float *p, int64_t cells, int64_t nk, int64_t d, int64_t dv) {
  int64_t size[ARRAYS];
  void *at[ARRAYS];
  floats_of(mk, cells, nk, d, dv, size);
  for (int i = 0; i < ARRAYS; i++) {
    at[i] = p;
    p += attn_round((size_t)size[i] * sizeof(float)) / sizeof(float);
  }
  *c = (attn_cells){.cells = cells, .nk = nk, .d = d, .dv = dv};
  c->start = at[0], c->order = at[1], c->cell = at[2], c->panel = at[3];
  c->mean = at[4], c->mean_t = at[5], c->half_norm = at[6], c->log2_count = at[7], c->spread = at[8], c->radius = at[9];
  c->kt = at[10], c->v = at[11], c->v_mean = at[12];
}

void attn_cells_seed(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, const int32_t *idx,
                     int64_t kept, uint64_t seed) {
  c->kept = kept;
  for (int64_t i = 0; i < c->cells; i++) {
    const int64_t lo = i * kept / c->cells, hi = (i + 1) * kept / c->cells, span = hi > lo ? hi - lo : 1;
    const int64_t pick = lo + (int64_t)(attn_hash(seed, (uint64_t)i, 0) % (uint64_t)span);
    if (pick < kept)
      memcpy(c->mean + i * c->d, k + idx[pick] * ks, (size_t)c->d * sizeof(float));
    else
      memset(c->mean + i * c->d, 0, (size_t)c->d * sizeof(float));
  }
  attn_cells_pack_means(c, mk);
}

void attn_cells_pack_means(attn_cells *c, const attn_micro *mk) {
  attn_pack_transposed(mk, c->cells, c->d, c->mean, c->d, NULL, 1.0f, c->mean_t);
  for (int64_t i = 0; i < c->cells; i++)
    c->half_norm[i] = -0.5f * mk->dot(c->d, c->mean + i * c->d, c->mean + i * c->d);
}

void attn_cells_assign(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, const int32_t *idx,
                       int64_t i0, int64_t i1, float *tmp) {
  const int64_t rows = i1 - i0, ld = attn_padded(mk, c->cells);
  float *keys = tmp, *score = tmp + rows * c->d, best;
  for (int64_t i = 0; i < rows; i++) memcpy(keys + i * c->d, k + idx[i0 + i] * ks, (size_t)c->d * sizeof(float));
  mk->gemm(rows, c->cells, c->d, keys, c->d, 1, c->mean_t, mk->panel, mk->panel * c->d, score, ld, 0);
  for (int64_t i = 0; i < rows; i++) c->cell[i0 + i] = (int32_t)mk->argmax(c->cells, score + i * ld, c->half_norm, &best);
}

void attn_cells_sort(attn_cells *c, const attn_micro *mk, const int32_t *idx) {
  memset(c->start, 0, (size_t)(c->cells + 1) * sizeof *c->start);
  for (int64_t i = 0; i < c->kept; i++) c->start[c->cell[i] + 1]++;
  c->panel[0] = 0;
  for (int64_t i = 0; i < c->cells; i++) {
    c->panel[i + 1] = c->panel[i] + (int32_t)attn_panels(mk, c->start[i + 1]);
    c->start[i + 1] += c->start[i];
  }
  for (int64_t i = 0; i < c->kept; i++) c->order[c->start[c->cell[i]]++] = idx[i];
  for (int64_t i = c->cells; i > 0; i--) c->start[i] = c->start[i - 1]; /* each start had moved to its end */
  c->start[0] = 0;
}

void attn_cells_means(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, int64_t c0, int64_t c1) {
  for (int64_t i = c0; i < c1; i++) {
    const int64_t count = c->start[i + 1] - c->start[i];
    float *mean = c->mean + i * c->d;
    if (count == 0) continue; /* keeps its seed */
    memset(mean, 0, (size_t)c->d * sizeof(float));
    for (int64_t j = c->start[i]; j < c->start[i + 1]; j++) mk->axpy(c->d, 1.0f / (float)count, k + c->order[j] * ks, mean);
  }
}

void attn_cells_pack(attn_cells *c, const attn_micro *mk, const float *k, ptrdiff_t ks, const float *v, ptrdiff_t vs,
                     int64_t c0, int64_t c1, float *tmp) {
  const int64_t d = c->d, dv = c->dv, wo = attn_padded(mk, dv);
  for (int64_t i = c0; i < c1; i++) {
    const int64_t first = c->start[i], count = c->start[i + 1] - first;
    const int32_t *order = c->order + first;
    attn_pack_transposed(mk, count, d, k, ks, order, 1.0f, c->kt + (int64_t)c->panel[i] * mk->panel * d);
    attn_pack_panels(mk, count, dv, v, vs, order, c->v + first * wo);
    float sum = 0.0f, most = 0.0f, *v_mean = c->v_mean + i * dv;
    memset(v_mean, 0, (size_t)dv * sizeof(float));
    for (int64_t j = 0; j < count; j++) {
      memcpy(tmp, k + order[j] * ks, (size_t)d * sizeof(float));
      mk->axpy(d, -1.0f, c->mean + i * d, tmp);
      const float squared = mk->dot(d, tmp, tmp);
      sum += squared;
      if (squared > most) most = squared;
      mk->axpy(dv, 1.0f / (float)count, v + order[j] * vs, v_mean);
    }
    c->log2_count[i] = count ? log2f((float)count) : -INFINITY;
    c->spread[i] = count ? sum / (float)(count * d) : 0.0f;
    c->radius[i] = sqrtf(most) * (1.0f + 1e-5f);
  }
}
