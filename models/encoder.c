/* encoder.c - the encoder's parameters: layout, initialisation, checkpoints. Forward pass: encoder_forward.c. */
#include "models/encoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "models/network.h"
#include "models/safetensors.h"

encoder_config encoder_lra_config(int vocab, int positions, int classes, int inputs) {
  return (encoder_config){.vocab = vocab,
                          .positions = positions,
                          .width = 64,
                          .layers = 2,
                          .heads = 2,
                          .mlp = 128,
                          .head_hidden = 128,
                          .classes = classes,
                          .inputs = inputs};
}

static int check_config(const encoder_config *c, ice_err *e) {
  const struct {
    const char *name;
    int value, most;
  } rule[] = {{"vocab", c->vocab, 1 << 20},
              {"positions", c->positions, 1 << 20},
              {"width", c->width, 4096},
              {"layers", c->layers, ENCODER_MAX_LAYERS},
              {"heads", c->heads, 64},
              {"mlp", c->mlp, 16384},
              {"head_hidden", c->head_hidden, 16384},
              {"classes", c->classes, 65536},
              {"inputs", c->inputs, 2}};
  for (size_t i = 0; i < sizeof rule / sizeof *rule; i++)
    if (rule[i].value < 1 || rule[i].value > rule[i].most)
      return ice_fail(e, ICE_USAGE, "encoder: %s = %d, allowed 1..%d", rule[i].name, rule[i].value, rule[i].most);
  if (c->width % c->heads)
    return ice_fail(e, ICE_USAGE, "encoder: width = %d is no multiple of heads = %d", c->width, c->heads);
  return ICE_OK;
}

int encoder_create(encoder *m, const encoder_config *cfg, ice_err *e) {
  *m = (encoder){.cfg = *cfg};
  ICE_TRY(check_config(cfg, e));
  m->n_params = network_tensors(cfg, NULL, &m->n_tensors);
  m->tensor = attn_calloc((size_t)m->n_tensors * sizeof *m->tensor);
  m->params = attn_calloc((size_t)m->n_params * sizeof *m->params);
  if (!m->tensor || !m->params) {
    const long long n = m->n_params;
    encoder_destroy(m);
    return ice_fail(e, ICE_INTERNAL, "out of memory for %lld parameters", n);
  }
  (void)network_tensors(cfg, m->tensor, &m->n_tensors);
  return ICE_OK;
}

void encoder_destroy(encoder *m) {
  attn_free(m->tensor);
  attn_free(m->params);
  *m = (encoder){0};
}

void encoder_init(encoder *m, uint64_t seed) {
  double bound = 0.0; /* of the linear being filled: its bias follows its weight */
  for (int i = 0; i < m->n_tensors; i++) {
    const encoder_tensor *t = m->tensor + i;
    float *p = m->params + t->offset;
    int64_t n = t->rank == 2 ? t->shape[0] * t->shape[1] : t->shape[0];
    int table = strstr(t->name, "embeddings") != NULL, is_norm = strstr(t->name, "norm") != NULL;
    int bias = strstr(t->name, ".bias") != NULL;
    attn_rng r;
    attn_rng_seed(&r, seed, (uint64_t)i);
    if (t->rank == 2) bound = 1.0 / sqrt((double)t->shape[1]);
    for (int64_t j = 0; j < n; j++)
      p[j] = table     ? (float)(0.02 * attn_rng_normal(&r))
             : is_norm ? (bias ? 0.0f : 1.0f)
                       : (float)(bound * (2.0 * attn_rng_uniform(&r) - 1.0));
  }
}

int encoder_save(const encoder *m, const float *params, const char *path, const char *const *meta, ice_err *e) {
  size_t n_meta = 0;
  while (meta && meta[n_meta]) n_meta++;
  st_out *t = calloc((size_t)m->n_tensors, sizeof *t);
  const char **all = calloc(n_meta + 3, sizeof *all);
  char heads[16];
  (void)snprintf(heads, sizeof heads, "%d", m->cfg.heads); /* the one size that no shape tells */
  int rc = t && all ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) {
    all[0] = "heads", all[1] = heads;
    if (n_meta) memcpy(all + 2, meta, n_meta * sizeof *meta);
  }
  for (int i = 0; rc == ICE_OK && i < m->n_tensors; i++)
    t[i] = (st_out){.name = m->tensor[i].name,
                    .dtype = ST_F32,
                    .rank = m->tensor[i].rank,
                    .shape = {m->tensor[i].shape[0], m->tensor[i].shape[1]},
                    .data = params + m->tensor[i].offset};
  if (rc == ICE_OK) rc = st_write(path, t, m->n_tensors, all, e);
  free(t), free(all);
  return rc;
}

/* Rows (axis 0) or columns of a tensor that decides a size of the configuration. */
static int read_size(const st_file *f, const char *path, const char *name, int axis, int *out, ice_err *e) {
  const st_tensor *t = st_find(f, name);
  if (!t) return ice_fail(e, ICE_DATA, "%s: no LRA encoder: tensor %s is missing", path, name);
  if (t->rank != 2 || t->shape[axis] < 1 || t->shape[axis] > INT32_MAX)
    return ice_fail(e, ICE_DATA,
                    "%s: no LRA encoder: tensor %s of rank %d, expected a matrix of 1 row and column or more", path,
                    name, t->rank);
  *out = (int)t->shape[axis];
  return ICE_OK;
}

/* The configuration that a checkpoint's shapes imply. The number of heads is in its metadata. */
static int infer_config(const st_file *f, const char *path, encoder_config *c, ice_err *e) {
  int features = 0;
  *c = (encoder_config){0};
  ICE_TRY(read_size(f, path, "model.embeddings.word_embeddings.weight", 0, &c->vocab, e));
  ICE_TRY(read_size(f, path, "model.embeddings.word_embeddings.weight", 1, &c->width, e));
  ICE_TRY(read_size(f, path, "model.embeddings.position_embeddings.weight", 0, &c->positions, e));
  ICE_TRY(read_size(f, path, "model.transformer_0.mlpblock.0.weight", 0, &c->mlp, e));
  ICE_TRY(read_size(f, path, "seq_classifer.mlpblock.0.weight", 0, &c->head_hidden, e));
  ICE_TRY(read_size(f, path, "seq_classifer.mlpblock.0.weight", 1, &features, e));
  ICE_TRY(read_size(f, path, "seq_classifer.mlpblock.2.weight", 0, &c->classes, e));
  c->inputs = features == 4 * (int64_t)c->width ? 2 : 1;
  char name[64];
  do (void)snprintf(name, sizeof name, "model.transformer_%d.mha.W_q.weight", ++c->layers);
  while (c->layers <= ENCODER_MAX_LAYERS && st_find(f, name));
  const char *heads = st_meta(f, "heads");
  char *end = NULL;
  const long h = heads ? strtol(heads, &end, 10) : 2;
  if (heads && (end == heads || *end || h < 1 || h > 64))
    return ice_fail(e, ICE_DATA, "%s: metadata heads = %s, allowed 1..64", path, heads);
  c->heads = (int)h;
  ice_err bad = {0};
  if (check_config(c, &bad) != ICE_OK) return ice_fail(e, ICE_DATA, "%s: %s", path, bad.text);
  return ICE_OK;
}

/* Finds what is absent or of another size before memory is taken for it. */
static int check_sizes(const st_file *f, const char *path, const encoder_config *c, ice_err *e) {
  encoder_tensor want[2 + 16 * ENCODER_MAX_LAYERS + 6];
  int count;
  (void)network_tensors(c, want, &count);
  for (int i = 0; i < count; i++) {
    const encoder_tensor *w = want + i;
    const st_tensor *t = st_find(f, w->name);
    if (!t || t->count != w->shape[0] * (w->rank == 2 ? w->shape[1] : 1)) /* fails, and says why */
      return st_copy_f32(f, w->name, w->rank, w->shape, NULL, e);
  }
  if (f->count == count) return ICE_OK;
  return ice_fail(e, ICE_DATA, "%s: %lld tensors, an encoder of this shape has %d", path, (long long)f->count, count);
}

int encoder_load(encoder *m, const char *path, ice_err *e) {
  st_file f;
  *m = (encoder){0};
  ICE_TRY(st_open(path, &f, e));
  encoder_config c;
  int rc = infer_config(&f, path, &c, e);
  if (rc == ICE_OK) rc = check_sizes(&f, path, &c, e);
  if (rc == ICE_OK) rc = encoder_create(m, &c, e);
  for (int i = 0; rc == ICE_OK && i < m->n_tensors; i++)
    rc = st_copy_f32(&f, m->tensor[i].name, m->tensor[i].rank, m->tensor[i].shape, m->params + m->tensor[i].offset, e);
  for (int64_t i = 0; rc == ICE_OK && i < m->n_params; i++)
    if (!isfinite(m->params[i])) rc = ice_fail(e, ICE_DATA, "%s: parameter %lld is not finite", path, (long long)i);
  st_close(&f);
  if (rc != ICE_OK) encoder_destroy(m);
  return rc;
}
