/* keyset.c - see keyset.h.
 *
 * Source  Online softmax: Milakov & Gimelshein 2018 (arXiv:1805.02867); backward: Dao et al. 2022 (arXiv:2205.14135), appendix B.
 * Cost    2 (d + dv) flops and an exponential per pair forward, five products of that kind backward. */
#include "baselines/keyset.h"

#include <math.h>
#include <string.h>

#include "kernels/core/finite.h"
#include "kernels/core/softmax2.h"

void set_place_keys(attn_layout *at, const set_dims *sd, int64_t room, int backward, set_keys *k) {
  const int64_t padded = attn_padded(sd->mk, room);
  *k = (set_keys){.ldv = sd->dv};
  k->kt = attn_place_floats(at, padded, sd->d);
  k->rows = attn_place_floats(at, room, sd->dv);
  if (!backward) return;
  k->k = attn_place_floats(at, room, sd->d);
  k->vt = attn_place_floats(at, padded, sd->dv);
  k->dk = attn_place_floats(at, room, sd->d);
  k->dvalue = attn_place_floats(at, room, sd->dv);
}

void set_place_rows(attn_layout *at, const set_dims *sd, int backward, set_rows *r) {
  *r = (set_rows){0};
  r->q = attn_place_floats(at, SET_ROWS, sd->d);
  r->s = attn_place_floats(at, SET_ROWS, SET_LD);
  if (backward) {
    r->g = attn_place_floats(at, SET_ROWS, sd->dv);
    r->dq = attn_place_floats(at, SET_ROWS, sd->d);
    r->lse2 = attn_place_floats(at, SET_ROWS, 1);
    r->delta = attn_place_floats(at, SET_ROWS, 1);
    r->ds = attn_place_floats(at, SET_ROWS, SET_LD);
  } else {
    r->o = attn_place_floats(at, SET_ROWS, sd->dv);
    r->m = attn_place_floats(at, SET_ROWS, 1);
    r->l = attn_place_floats(at, SET_ROWS, 16);
  }
}

void set_load_keys(const set_dims *sd, set_keys *keys, int64_t n, const int32_t *id, const float *k, ptrdiff_t ks,
                   const float *unit, const float *v, ptrdiff_t vs) {
  const int64_t w = sd->mk->panel, d = sd->d, dv = sd->dv;
  keys->n = n, keys->id = id, keys->v = keys->rows, keys->ldv = dv, keys->wild = 0;
  attn_pack_transposed(sd->mk, n, d, k, ks, id, 1.0f, keys->kt);
  for (int64_t j0 = 0; j0 < n && unit; j0 += w) {
    float factor[64], *panel = keys->kt + j0 * d;
    for (int64_t c = 0; c < w; c++) factor[c] = j0 + c < n ? unit[id[j0 + c]] : 0.0f;
    for (int64_t t = 0; t < d; t++)
      for (int64_t c = 0; c < w; c++) panel[t * w + c] *= factor[c];
  }
  for (int64_t j = 0; j < n; j++) {
    memcpy(keys->rows + j * dv, v + id[j] * vs, (size_t)dv * sizeof(float));
    keys->wild |= !attn_all_finite(dv, keys->rows + j * dv);
  }
  if (!keys->k) return;
  for (int64_t j = 0; j < n; j++)
    for (int64_t t = 0; t < d; t++) keys->k[j * d + t] = k[id[j] * ks + t] * (unit ? unit[id[j]] : 1.0f);
  attn_pack_transposed(sd->mk, n, dv, keys->rows, dv, NULL, 1.0f, keys->vt);
  memset(keys->dk, 0, (size_t)(n * d) * sizeof(float));
  memset(keys->dvalue, 0, (size_t)(n * dv) * sizeof(float));
}

void set_load_rows(const set_dims *sd, set_rows *r, int64_t n, const int32_t *id, const float *q, ptrdiff_t qs, float factor) {
  r->n = n;
  for (int64_t i = 0; i < n; i++) {
    const float *row = q + id[i] * qs;
    r->id[i] = id[i];
    for (int64_t t = 0; t < sd->d; t++) r->q[i * sd->d + t] = row[t] * factor;
  }
  if (!r->o) return;
  for (int64_t i = 0; i < n; i++) r->m[i] = -INFINITY;
  memset(r->l, 0, (size_t)n * 16 * sizeof(float));
  memset(r->o, 0, (size_t)(n * sd->dv) * sizeof(float));
}

void set_load_grad(const set_dims *sd, set_rows *r, const float *dout, ptrdiff_t gs, const float *out, ptrdiff_t os,
                   const double *lse2) {
  for (int64_t i = 0; i < r->n; i++) {
    const float *g = dout + r->id[i] * gs;
    memcpy(r->g + i * sd->dv, g, (size_t)sd->dv * sizeof(float));
    r->delta[i] = sd->mk->dot(sd->dv, g, out + r->id[i] * os);
    r->lse2[i] = (float)lse2[r->id[i]];
  }
  memset(r->dq, 0, (size_t)(r->n * sd->d) * sizeof(float));
}

/* Logits of a tile. */
static void score(const set_dims *sd, const set_rows *r, const set_keys *k, const set_rule *rule, int64_t j0, int64_t cols) {
  const int64_t w = sd->mk->panel;
  sd->mk->gemm(r->n, cols, sd->d, r->q, sd->d, 1, k->kt + j0 * sd->d, w, w * sd->d, r->s, SET_LD, 0);
  if (rule->mark) rule->mark(rule->ctx, r, k, j0, cols, r->s);
}

void set_attend(const set_dims *sd, const set_rows *r, const set_keys *k, const set_rule *rule, const set_drop *dr) {
  const attn_micro *mk = sd->mk;
  const int64_t dv = sd->dv;
  for (int64_t j0 = 0; j0 < k->n; j0 += SET_COLS) {
    const int64_t cols = k->n - j0 < SET_COLS ? k->n - j0 : SET_COLS;
    const float *v = k->v + j0 * k->ldv;
    score(sd, r, k, rule, j0, cols);
    mk->softmax_block(r->n, cols, r->s, SET_LD, NULL, r->m, r->l, r->o, dv, dv);
    mk->drop_block(r->n, cols, r->s, SET_LD, &dr->mask, dr->row, dr->col + j0);
    if (!k->wild) {
      mk->gemm(r->n, dv, cols, r->s, SET_LD, 1, v, k->ldv, mk->panel, r->o, dv, 1);
      continue;
    }
    for (int64_t i = 0; i < r->n; i++) /* in the order of gemm: same bits */
      for (int64_t j = 0; j < cols; j++)
        if (r->s[i * SET_LD + j] != 0.0f) mk->axpy(dv, r->s[i * SET_LD + j], v + j * k->ldv, r->o + i * dv);
  }
}

void set_grad(const set_dims *sd, const set_rows *r, const set_keys *k, const set_rule *rule, const set_drop *dr) {
  const attn_micro *mk = sd->mk;
  const int64_t d = sd->d, dv = sd->dv, w = mk->panel;
  for (int64_t j0 = 0; j0 < k->n; j0 += SET_COLS) {
    const int64_t cols = k->n - j0 < SET_COLS ? k->n - j0 : SET_COLS;
    score(sd, r, k, rule, j0, cols);
    mk->exp2_block(r->n, cols, r->s, SET_LD, NULL, r->lse2);
    mk->gemm(r->n, cols, dv, r->g, dv, 1, k->vt + j0 * dv, w, w * dv, r->ds, SET_LD, 0);
    mk->softmax_grad(r->n, cols, r->s, r->ds, SET_LD, r->delta, &dr->mask, dr->row, dr->col + j0);
    if (rule->still) rule->still(rule->ctx, r, k, j0, cols, r->ds);
    mk->gemm(cols, dv, r->n, r->s, 1, SET_LD, r->g, dv, w, k->dvalue + j0 * dv, dv, 1);
    mk->gemm(r->n, d, cols, r->ds, SET_LD, 1, k->k + j0 * d, d, w, r->dq, d, 1);
    mk->gemm(cols, d, r->n, r->ds, 1, SET_LD, r->q, d, w, k->dk + j0 * d, d, 1);
  }
}

void set_spread_keys(const set_dims *sd, const set_keys *k, float factor, float *dk, ptrdiff_t ks, float *dv, ptrdiff_t vs) {
  for (int64_t j = 0; j < k->n; j++) {
    sd->mk->axpy(sd->d, factor, k->dk + j * sd->d, dk + k->id[j] * ks);
    sd->mk->axpy(sd->dv, 1.0f, k->dvalue + j * sd->dv, dv + k->id[j] * vs);
  }
}

void set_merge_row(const set_dims *sd, const set_rows *r, int64_t i, int first, float *to, double *lse2) {
  const float *o = r->o + i * sd->dv, sum = attn_lane_sum(r->l + i * 16);
  const double here = sum != 0.0f ? (double)r->m[i] + log2((double)sum) : -INFINITY;
  const float inverse = sum != 0.0f ? 1.0f / sum : 0.0f;
  if (first || *lse2 == -INFINITY) {
    for (int64_t t = 0; t < sd->dv; t++) to[t] = o[t] * inverse;
    *lse2 = here;
    return;
  }
  if (here == -INFINITY) return;
  const double before = *lse2, top = here > before ? here : before;
  const double a = exp2(before - top), b = exp2(here - top), all = a + b;
  const float keep = (float)(a / all), add = (float)(b / all) * inverse;
  for (int64_t t = 0; t < sd->dv; t++) to[t] = to[t] * keep + o[t] * add;
  *lse2 = top + log2(all);
}
