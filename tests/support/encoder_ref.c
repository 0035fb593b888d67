/* encoder_ref.c - see encoder_ref.h */
#include "tests/support/encoder_ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/rng.h"
#include "kernels/micro/micro.h"

/* Keys of the dropouts: where in the network (sequence.c, layer.c). */
enum { INPUT = 2, LAYER = 1, AFTER_ATTENTION = 1, AFTER_GELU = 2, AFTER_MLP = 3, EMBEDDING = 100, WEIGHTS = 101 };

static double *doubles(int64_t n) {
  double *p = calloc((size_t)n + 1, sizeof *p);
  if (!p) {
    fprintf(stderr, "encoder_ref: out of memory\n");
    exit(1);
  }
  return p;
}

static double dot_ref(const double *x, const double *y, int64_t n) {
  double s = 0.0;
  for (int64_t t = 0; t < n; t++) s += x[t] * y[t];
  return s;
}

void attention_ref(const attn_problem *pb, ref_view q, ref_view k, ref_view v, const uint8_t *kmask, float drop,
                   uint64_t key, ref_view out) {
  double *w = doubles(pb->nk);
  for (int64_t ib = 0; ib < pb->b; ib++)
    for (int64_t ih = 0; ih < pb->h; ih++) {
      const attn_drop dr = attn_drop_make(drop, attn_hash(key, (uint64_t)ib, (uint64_t)ih));
      const int64_t ik = ih / (pb->h / pb->hkv);
      for (int64_t i = 0; i < pb->nq; i++) {
        const double *qi = q.p + ib * q.sb + ih * q.sh + i * q.sn;
        double *o = out.p + ib * out.sb + ih * out.sh + i * out.sn, top = -INFINITY, sum = 0.0;
        for (int64_t j = 0; j < pb->nk; j++) {
          const int seen = (!kmask || kmask[ib * pb->nk + j]) && (!pb->causal || j <= i + pb->nk - pb->nq);
          w[j] = seen ? dot_ref(qi, k.p + ib * k.sb + ik * k.sh + j * k.sn, pb->d) * (double)pb->scale : -INFINITY;
          top = fmax(top, w[j]);
        }
        for (int64_t t = 0; t < pb->dv; t++) o[t] = 0.0;
        if (top == -INFINITY) continue; /* sees no key */
        for (int64_t j = 0; j < pb->nk; j++) sum += w[j] = exp(w[j] - top);
        int64_t rank = 0;
        for (int64_t j = 0; j < pb->nk; j++) {
          if (kmask && !kmask[ib * pb->nk + j]) continue;
          const double a = w[j] / sum * (double)attn_drop_at(&dr, i, rank++);
          const double *vj = v.p + ib * v.sb + ik * v.sh + j * v.sn;
          for (int64_t t = 0; t < pb->dv && a != 0.0; t++) o[t] += a * vj[t];
        }
      }
    }
  free(w);
}

void encoder_scramble(encoder *m, uint64_t seed) {
  attn_rng r;
  attn_rng_seed(&r, seed, 0);
  encoder_init(m, seed);
  for (int i = 0; i < m->n_tensors; i++) {
    const encoder_tensor *t = m->tensor + i;
    const int64_t n = encoder_tensor_size(t);
    const int norm = strstr(t->name, "norm") != NULL, table = strstr(t->name, "embeddings") != NULL;
    const int score = strstr(t->name, "W_q.weight") || strstr(t->name, "W_k.weight");
    for (int64_t j = 0; j < n; j++) {
      float *p = m->params + t->offset + j;
      *p = norm ? *p + 0.3f * (float)attn_rng_normal(&r) : *p * (table ? 30.0f : score ? 2.0f : 1.0f);
    }
  }
}

void encoder_random_ids(int32_t *ids, int64_t n, int vocab, uint64_t seed) {
  attn_rng r;
  attn_rng_seed(&r, seed, 1);
  for (int64_t i = 0; i < n; i++) ids[i] = 1 + (int32_t)attn_rng_below(&r, (uint64_t)vocab - 1);
}

void encoder_mask_ids(int32_t *ids, int64_t n, int every, uint64_t seed) {
  for (int64_t i = 0; i < n; i++)
    if (every || attn_hash(seed, (uint64_t)i, 7) % 5 < 2 || (i == 0 && seed % 2 == 0)) ids[i] = 0;
}

encoder_ref encoder_ref_new(const encoder *m) {
  encoder_ref r = {.m = m, .params = doubles(m->n_params)};
  for (int64_t i = 0; i < m->n_params; i++) r.params[i] = (double)m->params[i];
  return r;
}

void encoder_ref_free(encoder_ref *r) {
  free(r->params);
  *r = (encoder_ref){0};
}

/* Parameters by checkpoint name; layer >= 0 puts "model.transformer_<layer>." in front. */
static const double *tensor(const encoder_ref *r, int layer, const char *name) {
  char full[128];
  if (layer < 0)
    (void)snprintf(full, sizeof full, "%s", name);
  else
    (void)snprintf(full, sizeof full, "model.transformer_%d.%s", layer, name);
  for (int i = 0; i < r->m->n_tensors; i++)
    if (strcmp(r->m->tensor[i].name, full) == 0) return r->params + r->m->tensor[i].offset;
  fprintf(stderr, "encoder_ref: no tensor %s\n", full);
  exit(1);
}

/* y [rows, out] = x [rows, in] W^T + b, both parameters called <name>.weight and .bias. */
static void linear_ref(const encoder_ref *r, int layer, const char *name, int64_t rows, int64_t in, int64_t out,
                       const double *x, double *y) {
  char full[64];
  (void)snprintf(full, sizeof full, "%s.weight", name);
  const double *w = tensor(r, layer, full);
  (void)snprintf(full, sizeof full, "%s.bias", name);
  const double *b = tensor(r, layer, full);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t c = 0; c < out; c++) y[i * out + c] = b[c] + dot_ref(w + c * in, x + i * in, in);
}

static void norm_ref(const encoder_ref *r, int layer, const char *name, int64_t rows, int64_t width, const double *x,
                     double *y) {
  char full[64];
  (void)snprintf(full, sizeof full, "%s.weight", name);
  const double *g = tensor(r, layer, full);
  (void)snprintf(full, sizeof full, "%s.bias", name);
  const double *b = tensor(r, layer, full);
  for (int64_t i = 0; i < rows; i++, x += width, y += width) {
    double mean = 0.0, variance = 0.0;
    for (int64_t t = 0; t < width; t++) mean += x[t] / (double)width;
    for (int64_t t = 0; t < width; t++) variance += (x[t] - mean) * (x[t] - mean) / (double)width;
    for (int64_t t = 0; t < width; t++) y[t] = (x[t] - mean) / sqrt(variance + 1e-5) * g[t] + b[t];
  }
}

static void drop_ref(double *x, int64_t rows, int64_t width, float p, uint64_t key) {
  const attn_drop dr = attn_drop_make(p, key);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t t = 0; t < width; t++) x[i * width + t] *= (double)attn_drop_at(&dr, i, t);
}

/* What the attention of layer l has learned; NULL: nothing. */
static const double *learned_ref(const encoder_ref *r, int l) {
  char name[64];
  if (!r->m->cfg.n_learned) return NULL;
  (void)snprintf(name, sizeof name, "mha.attn.%s", r->m->cfg.learned[0].name);
  return tensor(r, l, name);
}

/* x [n, width] through one layer, in place. */
static void layer_ref(const encoder_ref *r, int l, int64_t n, double *x, float dropout, uint64_t key) {
  const encoder_config *c = &r->m->cfg;
  const int64_t w = c->width, hd = w / c->heads, nw = n * w;
  double *memory = doubles(6 * nw + n * c->mlp), *a = memory, *q = a + nw, *k = q + nw, *v = k + nw, *o = v + nw;
  double *h = o + nw, *u = h + nw;
  const attn_problem pb = {.b = 1,
                           .h = c->heads,
                           .hkv = c->heads,
                           .nq = n,
                           .nk = n,
                           .d = hd,
                           .dv = hd,
                           .scale = (float)(1.0 / sqrt((double)hd)),
                           .positions = c->n_learned ? c->positions : 0};
  norm_ref(r, l, "norm1", n, w, x, a);
  linear_ref(r, l, "mha.W_q", n, w, w, a, q);
  if (c->shared_qk)
    memcpy(k, q, (size_t)(n * w) * sizeof *k);
  else
    linear_ref(r, l, "mha.W_k", n, w, w, a, k);
  linear_ref(r, l, "mha.W_v", n, w, w, a, v);
  const ref_view qs = {q, 0, hd, w}, ks = {k, 0, hd, w}, vs = {v, 0, hd, w}, os = {o, 0, hd, w};
  if (r->attend) r->attend(r->ctx, l, &pb, qs, ks, vs, learned_ref(r, l), dropout, attn_hash(key, WEIGHTS, 0), os);
  else attention_ref(&pb, qs, ks, vs, NULL, dropout, attn_hash(key, WEIGHTS, 0), os);
  linear_ref(r, l, "mha.ff", n, w, w, o, h);
  drop_ref(h, n, w, dropout, attn_hash(key, AFTER_ATTENTION, 0));
  for (int64_t i = 0; i < nw; i++) x[i] += h[i];
  norm_ref(r, l, "norm2", n, w, x, a);
  linear_ref(r, l, "mlpblock.0", n, w, c->mlp, a, u);
  for (int64_t i = 0; i < n * c->mlp; i++) u[i] *= 0.5 * erfc(-u[i] * M_SQRT1_2);
  drop_ref(u, n, c->mlp, dropout, attn_hash(key, AFTER_GELU, 0));
  linear_ref(r, l, "mlpblock.3", n, c->mlp, w, u, h);
  drop_ref(h, n, w, dropout, attn_hash(key, AFTER_MLP, 0));
  for (int64_t i = 0; i < nw; i++) x[i] += h[i];
  free(memory);
}

/* One input to its pooled vector: mean over all positions, absent ones being zero. */
static void encode_ref(const encoder_ref *r, const int32_t *ids, int64_t n, float dropout, uint64_t key,
                       double *pooled) {
  const encoder_config *c = &r->m->cfg;
  const int64_t w = c->width;
  const double *tok = tensor(r, -1, "model.embeddings.word_embeddings.weight");
  const double *pos = tensor(r, -1, "model.embeddings.position_embeddings.weight");
  double *x = doubles(n * w);
  int64_t kept = 0;
  for (int64_t i = 0; i < n; i++)
    if (ids[i] != 0) { /* a masked position is as if it were not there, but the others keep their places */
      for (int64_t t = 0; t < w; t++) x[kept * w + t] = tok[ids[i] * w + t] + pos[i * w + t];
      kept++;
    }
  n = kept;
  drop_ref(x, n, w, dropout, attn_hash(key, EMBEDDING, 0));
  for (int l = 0; l < c->layers; l++) layer_ref(r, l, n, x, dropout, attn_hash(key, (uint64_t)l, LAYER));
  norm_ref(r, -1, "model.norm", n, w, x, x);
  for (int64_t t = 0; t < w; t++) pooled[t] = 0.0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t t = 0; t < w; t++) pooled[t] += x[i * w + t] / (double)c->positions;
  free(x);
}

double encoder_ref_loss(encoder_ref *r, const int32_t *const *ids, const int64_t *n, int32_t label, float dropout,
                        uint64_t key, double *logits) {
  const encoder_config *c = &r->m->cfg;
  const int64_t w = c->width, features = c->inputs == 2 ? 4 * w : w;
  double *f = doubles(features + c->head_hidden), *hidden = f + features;
  for (int i = 0; i < c->inputs; i++)
    encode_ref(r, ids[i], n[i], dropout, attn_hash(key, (uint64_t)i, INPUT), f + i * w);
  for (int64_t t = 0; t < w && c->inputs == 2; t++) {
    f[2 * w + t] = f[t] * f[w + t];
    f[3 * w + t] = f[t] - f[w + t];
  }
  linear_ref(r, -1, "seq_classifer.mlpblock.0", 1, features, c->head_hidden, f, hidden);
  r->kink = INFINITY;
  for (int64_t t = 0; t < c->head_hidden; t++) {
    r->kink = fmin(r->kink, fabs(hidden[t]));
    hidden[t] = fmax(hidden[t], 0.0);
  }
  linear_ref(r, -1, "seq_classifer.mlpblock.2", 1, c->head_hidden, c->classes, hidden, logits);
  free(f);
  double top = -INFINITY, sum = 0.0;
  for (int i = 0; i < c->classes; i++) top = fmax(top, logits[i]);
  for (int i = 0; i < c->classes; i++) sum += exp(logits[i] - top);
  return top + log(sum) - logits[label];
}

double encoder_ref_slope(encoder_ref *r, int64_t i, const int32_t *const *ids, const int64_t *n, int32_t label,
                         float dropout, uint64_t key) {
  const double h = 1e-5, old = r->params[i]; /* h^2 against 2e-16 / h: about 1e-10 either way */
  double *logits = doubles(r->m->cfg.classes);
  r->params[i] = old + h;
  const double up = encoder_ref_loss(r, ids, n, label, dropout, key, logits);
  r->params[i] = old - h;
  const double down = encoder_ref_loss(r, ids, n, label, dropout, key, logits);
  r->params[i] = old;
  free(logits);
  return (up - down) / (2.0 * h);
}
