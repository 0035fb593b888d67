/* network.c - see network.h */
#include "models/network.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/alloc.h"

static int64_t features_of(const encoder_config *c) { return c->inputs == 2 ? 4 * (int64_t)c->width : c->width; }

int64_t network_position_floats(const encoder_config *cfg) { return (int64_t)cfg->positions * cfg->width; }

/* The layout of the parameter vector: one visitor that meets every tensor in order. Binding weights, binding gradients
 * and naming tensors are three uses of this one list. */
typedef struct visitor {
  void (*linear)(void *ctx, const char *name, int layer, int64_t out, int64_t in, int slot);
  void (*norm)(void *ctx, const char *name, int layer, int64_t width, int slot);
  void (*table)(void *ctx, const char *name, int64_t rows, int64_t width, int slot);
  void (*learned)(void *ctx, const encoder_learned *t, int layer); /* one after the other */
} visitor;

/* Slots: which member a tensor belongs to. */
enum { TABLE_POS, TABLE_TOK };
enum { NORM_1, NORM_2, NORM_FINAL };
enum { LIN_Q, LIN_K, LIN_V, LIN_O, LIN_UP, LIN_DOWN, LIN_HEAD1, LIN_HEAD2 };

static void visit(const encoder_config *c, const visitor *vi, void *ctx) {
  const int64_t w = c->width;
  vi->table(ctx, "model.embeddings.position_embeddings", c->positions, w, TABLE_POS);
  vi->table(ctx, "model.embeddings.word_embeddings", c->vocab, w, TABLE_TOK);
  for (int l = 0; l < c->layers; l++) {
    vi->norm(ctx, "norm1", l, w, NORM_1);
    vi->linear(ctx, "mha.W_q", l, w, w, LIN_Q);
    if (!c->shared_qk) vi->linear(ctx, "mha.W_k", l, w, w, LIN_K);
    vi->linear(ctx, "mha.W_v", l, w, w, LIN_V);
    vi->linear(ctx, "mha.ff", l, w, w, LIN_O);
    for (int i = 0; i < c->n_learned; i++) vi->learned(ctx, &c->learned[i], l);
    vi->norm(ctx, "norm2", l, w, NORM_2);
    vi->linear(ctx, "mlpblock.0", l, c->mlp, w, LIN_UP);
    vi->linear(ctx, "mlpblock.3", l, w, c->mlp, LIN_DOWN);
  }
  vi->norm(ctx, "model.norm", -1, w, NORM_FINAL);
  vi->linear(ctx, "seq_classifer.mlpblock.0", -1, c->head_hidden, features_of(c), LIN_HEAD1);
  vi->linear(ctx, "seq_classifer.mlpblock.2", -1, c->classes, c->head_hidden, LIN_HEAD2);
}

/* --- names and shapes ----------------------------------------------------------------------------------------- */

typedef struct namer {
  encoder_tensor *t; /* NULL: only count */
  int count;
  int64_t offset;
} namer;

static void name_one(namer *nm, const char *name, int layer, const char *suffix, int rank, int64_t rows, int64_t cols,
                     int64_t deep) {
  if (nm->t) {
    encoder_tensor *t = nm->t + nm->count;
    *t = (encoder_tensor){.rank = rank, .shape = {rows, cols, deep}, .offset = nm->offset};
    if (layer < 0)
      (void)snprintf(t->name, sizeof t->name, "%s.%s", name, suffix);
    else
      (void)snprintf(t->name, sizeof t->name, "model.transformer_%d.%s.%s", layer, name, suffix);
  }
  nm->count++;
  nm->offset += attn_elements(rank, (const int64_t[]){rows, cols, deep});
}
static void name_linear(void *ctx, const char *name, int layer, int64_t out, int64_t in, int slot) {
  (void)slot;
  name_one(ctx, name, layer, "weight", 2, out, in, 0);
  name_one(ctx, name, layer, "bias", 1, out, 0, 0);
}
static void name_norm(void *ctx, const char *name, int layer, int64_t width, int slot) {
  (void)slot;
  name_one(ctx, name, layer, "weight", 1, width, 0, 0);
  name_one(ctx, name, layer, "bias", 1, width, 0, 0);
}
static void name_table(void *ctx, const char *name, int64_t rows, int64_t width, int slot) {
  (void)slot;
  name_one(ctx, name, -1, "weight", 2, rows, width, 0);
}

static void name_learned(void *ctx, const encoder_learned *t, int layer) {
  name_one(ctx, "mha.attn", layer, t->name, t->rank, t->shape[0], t->shape[1], t->shape[2]);
}

int64_t network_tensors(const encoder_config *c, encoder_tensor *out, int *count) {
  namer nm = {.t = out};
  visit(c, &(visitor){.linear = name_linear, .norm = name_norm, .table = name_table, .learned = name_learned}, &nm);
  *count = nm.count;
  return nm.offset;
}

/* --- weights -------------------------------------------------------------------------------------------------- */

typedef struct binder {
  network *net;
  const float *p;
  int64_t packed; /* floats of packed memory used so far */
  const attn_micro *mk;
} binder;

static linear *linear_slot(network *n, int layer, int slot) {
  layer_weights *w = layer >= 0 ? &n->layer[layer] : NULL;
  switch (slot) {
  case LIN_Q: return &w->q;
  case LIN_K: return &w->k;
  case LIN_V: return &w->v;
  case LIN_O: return &w->o;
  case LIN_UP: return &w->up;
  case LIN_DOWN: return &w->down;
  case LIN_HEAD1: return &n->head1;
  default: return &n->head2;
  }
}
static norm *norm_slot(network *n, int layer, int slot) {
  return slot == NORM_1 ? &n->layer[layer].norm1 : slot == NORM_2 ? &n->layer[layer].norm2 : &n->final;
}

static void bind_linear(void *ctx, const char *name, int layer, int64_t out, int64_t in, int slot) {
  (void)name;
  binder *b = ctx;
  const float *wt = b->net->packed ? b->net->packed + b->packed : NULL;
  *linear_slot(b->net, layer, slot) = (linear){.in = in, .out = out, .w = b->p, .b = b->p + out * in, .wt = wt};
  b->p += out * in + out;
  b->packed += attn_padded(b->mk, out) * in;
}
static void bind_norm(void *ctx, const char *name, int layer, int64_t width, int slot) {
  (void)name;
  binder *b = ctx;
  *norm_slot(b->net, layer, slot) = (norm){.g = b->p, .b = b->p + width};
  b->p += 2 * width;
}
static void bind_table(void *ctx, const char *name, int64_t rows, int64_t width, int slot) {
  (void)name;
  binder *b = ctx;
  if (slot == TABLE_POS)
    b->net->pos = b->p;
  else
    b->net->tok = b->p;
  b->p += rows * width;
}
static void bind_learned(void *ctx, const encoder_learned *t, int layer) {
  binder *b = ctx;
  layer_weights *w = &b->net->layer[layer];
  if (!w->learned) w->learned = b->p;
  w->learned_bytes += (size_t)attn_elements(t->rank, t->shape) * sizeof(float);
  b->p += attn_elements(t->rank, t->shape);
}
static const visitor bind_all = {.linear = bind_linear, .norm = bind_norm, .table = bind_table, .learned = bind_learned};

static void pack_linear(void *ctx, const char *name, int layer, int64_t out, int64_t in, int slot) {
  (void)name;
  binder *b = ctx;
  attn_pack_transposed(b->mk, out, in, linear_slot(b->net, layer, slot)->w, in, NULL, 1.0f, b->net->packed + b->packed);
  b->packed += attn_padded(b->mk, out) * in;
}
static void pack_norm(void *ctx, const char *name, int layer, int64_t width, int slot) {
  (void)ctx, (void)name, (void)layer, (void)width, (void)slot;
}
static void pack_table(void *ctx, const char *name, int64_t rows, int64_t width, int slot) {
  (void)ctx, (void)name, (void)rows, (void)width, (void)slot;
}

static void pack_learned(void *ctx, const encoder_learned *t, int layer) { (void)ctx, (void)t, (void)layer; }

int network_create(network *net, const encoder *m, const float *params, ice_err *e) {
  *net = (network){.cfg = &m->cfg};
  binder b = {.net = net, .p = params, .mk = attn_micro_get()};
  visit(&m->cfg, &bind_all, &b); /* first pass: how much to pack */
  net->packed = attn_alloc((size_t)b.packed * sizeof(float));
  if (!net->packed) return ice_fail(e, ICE_INTERNAL, "out of memory for %lld packed weights", (long long)b.packed);
  memset(net->layer, 0, sizeof net->layer);
  b = (binder){.net = net, .p = params, .mk = attn_micro_get()};
  visit(&m->cfg, &bind_all, &b);
  network_pack(net);
  return ICE_OK;
}

void network_pack(network *net) {
  binder b = {.net = net, .mk = attn_micro_get()};
  visit(net->cfg, &(visitor){.linear = pack_linear, .norm = pack_norm, .table = pack_table, .learned = pack_learned}, &b);
}

void network_destroy(network *net) {
  attn_free(net->packed);
  net->packed = NULL;
}

/* --- gradients ------------------------------------------------------------------------------------------------ */

typedef struct grad_binder {
  network_grad *g;
  float *p;
} grad_binder;

static void grad_linear(void *ctx, const char *name, int layer, int64_t out, int64_t in, int slot) {
  (void)name;
  grad_binder *b = ctx;
  linear_grad v = {.w = b->p, .b = b->p + out * in};
  layer_grads *w = layer >= 0 ? &b->g->layer[layer] : NULL;
  switch (slot) {
  case LIN_Q: w->q = v; break;
  case LIN_K: w->k = v; break;
  case LIN_V: w->v = v; break;
  case LIN_O: w->o = v; break;
  case LIN_UP: w->up = v; break;
  case LIN_DOWN: w->down = v; break;
  case LIN_HEAD1: b->g->head1 = v; break;
  default: b->g->head2 = v; break;
  }
  b->p += out * in + out;
}
static void grad_norm(void *ctx, const char *name, int layer, int64_t width, int slot) {
  (void)name;
  grad_binder *b = ctx;
  norm_grad v = {.g = b->p, .b = b->p + width};
  if (slot == NORM_1)
    b->g->layer[layer].norm1 = v;
  else if (slot == NORM_2)
    b->g->layer[layer].norm2 = v;
  else
    b->g->final = v;
  b->p += 2 * width;
}
static void grad_table(void *ctx, const char *name, int64_t rows, int64_t width, int slot) {
  (void)name;
  grad_binder *b = ctx;
  if (slot == TABLE_POS)
    b->g->pos = b->p;
  else
    b->g->tok = b->p;
  b->p += rows * width;
}
static void grad_learned(void *ctx, const encoder_learned *t, int layer) {
  grad_binder *b = ctx;
  if (!b->g->layer[layer].learned) b->g->layer[layer].learned = b->p;
  b->p += attn_elements(t->rank, t->shape);
}
void network_grad_bind(network_grad *out, const encoder *m, float *g) {
  grad_binder b = {.g = out, .p = g};
  for (int l = 0; l < ENCODER_MAX_LAYERS; l++) out->layer[l].learned = NULL;
  visit(&m->cfg, &(visitor){.linear = grad_linear, .norm = grad_norm, .table = grad_table, .learned = grad_learned}, &b);
}

/* --- the parts outside the layers ------------------------------------------------------------------------------ */

int64_t network_embed(const network *net, const int32_t *ids, int64_t n, float *x) {
  const int64_t w = net->cfg->width;
  int64_t rows = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!ids[i]) continue;
    for (int64_t t = 0; t < w; t++) x[rows * w + t] = net->tok[ids[i] * w + t] + net->pos[i * w + t];
    rows++;
  }
  return rows;
}

void network_embed_padded(const network *net, const int32_t *ids, int64_t n, float *x) {
  const int64_t w = net->cfg->width;
  for (int64_t i = 0; i < net->cfg->positions; i++) {
    const float *tok = net->tok + (i < n ? ids[i] : 0) * w;
    for (int64_t t = 0; t < w; t++) x[i * w + t] = tok[t] + net->pos[i * w + t];
  }
}

void network_pool(const attn_micro *mk, const network *net, int64_t n, const float *x, float *y, float *mean,
                  float *rstd, float *pooled) {
  const int64_t w = net->cfg->width;
  mk->norm(n, w, x, net->final.g, net->final.b, 1e-5f, y, mean, rstd);
  memset(pooled, 0, (size_t)w * sizeof(float));
  for (int64_t i = 0; i < n; i++) mk->axpy(w, 1.0f, y + i * w, pooled);
  for (int64_t t = 0; t < w; t++) pooled[t] /= (float)net->cfg->positions;
}

void network_features(const network *net, const float *pooled, float *features) {
  const int64_t w = net->cfg->width;
  memcpy(features, pooled, (size_t)(w * net->cfg->inputs) * sizeof(float));
  if (net->cfg->inputs != 2) return;
  for (int64_t t = 0; t < w; t++) {
    features[2 * w + t] = pooled[t] * pooled[w + t];
    features[3 * w + t] = pooled[t] - pooled[w + t];
  }
}

void network_head(const attn_micro *mk, const network *net, const float *features, float *hidden, float *logits) {
  linear_forward(mk, &net->head1, 1, features, hidden);
  for (int64_t t = 0; t < net->head1.out; t++) hidden[t] = hidden[t] < 0.0f ? 0.0f : hidden[t]; /* NaN stays */
  linear_forward(mk, &net->head2, 1, hidden, logits);
}
