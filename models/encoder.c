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

int encoder_config_attention(encoder_config *c, const attn_method *m, const void *params, ice_err *e) {
  attn_tensor t[ATTN_MAX_LEARNED];
  const int64_t d = c->width / c->heads;
  const attn_problem pb = {.b = 1, .h = c->heads, .hkv = c->heads, .d = d, .dv = d, .positions = c->positions};
  if (m->caps & ATTN_CAP_SHARED_QK) c->shared_qk = 1;
  c->n_learned = m->learned ? m->learned(&pb, params, t) : 0;
  for (int i = 0; i < c->n_learned; i++) {
    encoder_learned *l = c->learned + i;
    *l = (encoder_learned){.rank = t[i].rank, .mean = t[i].mean, .sd = t[i].sd};
    const int n = snprintf(l->name, sizeof l->name, "%s", t[i].name);
    if (n < 1 || n >= (int)sizeof l->name)
      return ice_fail(e, ICE_INTERNAL, "%s: name of learned tensor %d, allowed 1..%zu characters", m->name, i,
                      sizeof l->name - 1);
    memcpy(l->shape, t[i].shape, (size_t)t[i].rank * sizeof *l->shape);
  }
  return ICE_OK;
}

int encoder_same_shape(const encoder_config *a, const encoder_config *b) {
  encoder_tensor s[ENCODER_MAX_TENSORS], t[ENCODER_MAX_TENSORS];
  int n, m;
  if (a->heads != b->heads || a->layers > ENCODER_MAX_LAYERS || b->layers > ENCODER_MAX_LAYERS) return 0;
  (void)network_tensors(a, s, &n);
  (void)network_tensors(b, t, &m);
  for (int i = 0; i < n && n == m; i++)
    if (strcmp(s[i].name, t[i].name) || s[i].rank != t[i].rank || memcmp(s[i].shape, t[i].shape, sizeof s[i].shape)) return 0;
  return n == m;
}

int64_t encoder_tensor_size(const encoder_tensor *t) { return attn_elements(t->rank, t->shape); }

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
  if (c->n_learned < 0 || c->n_learned > ATTN_MAX_LEARNED)
    return ice_fail(e, ICE_USAGE, "encoder: %d learned tensors a layer, allowed 0..%d", c->n_learned, ATTN_MAX_LEARNED);
  for (int i = 0; i < c->n_learned; i++)
    for (int axis = 0; axis < 3; axis++)
      if (c->learned[i].rank < 1 || c->learned[i].rank > 3 ||
          (axis < c->learned[i].rank && (c->learned[i].shape[axis] < 1 || c->learned[i].shape[axis] > 1 << 20)))
        return ice_fail(e, ICE_USAGE, "encoder: learned tensor %s has a size outside 1..%d", c->learned[i].name, 1 << 20);
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

/* The learned tensor of this name, or NULL: "model.transformer_1.mha.attn.<name>". */
static const encoder_learned *learned_of(const encoder_config *c, const char *tensor) {
  const char *tail = strstr(tensor, ".mha.attn.");
  for (int i = 0; tail && i < c->n_learned; i++)
    if (!strcmp(c->learned[i].name, tail + strlen(".mha.attn."))) return c->learned + i;
  return NULL;
}

void encoder_init(encoder *m, uint64_t seed) {
  double bound = 0.0; /* of the linear being filled: its bias follows its weight */
  for (int i = 0; i < m->n_tensors; i++) {
    const encoder_tensor *t = m->tensor + i;
    float *p = m->params + t->offset;
    int64_t n = encoder_tensor_size(t);
    const encoder_learned *learned = learned_of(&m->cfg, t->name);
    int table = strstr(t->name, "embeddings") != NULL, is_norm = strstr(t->name, "norm") != NULL;
    int bias = strstr(t->name, ".bias") != NULL;
    attn_rng r;
    attn_rng_seed(&r, seed, (uint64_t)i);
    if (t->rank == 2) bound = 1.0 / sqrt((double)t->shape[1]);
    for (int64_t j = 0; j < n; j++)
      p[j] = learned   ? (float)(learned->mean + learned->sd * attn_rng_normal(&r))
             : table   ? (float)(0.02 * attn_rng_normal(&r))
             : is_norm ? (bias ? 0.0f : 1.0f)
                       : (float)(bound * (2.0 * attn_rng_uniform(&r) - 1.0));
  }
}

int encoder_take(encoder *m, const encoder *from) {
  int taken = 0;
  for (int i = 0; i < m->n_tensors; i++)
    for (int k = 0; k < from->n_tensors; k++) {
      const encoder_tensor *to = m->tensor + i, *t = from->tensor + k;
      if (strcmp(to->name, t->name) || to->rank != t->rank || memcmp(to->shape, t->shape, sizeof to->shape)) continue;
      memcpy(m->params + to->offset, from->params + t->offset, (size_t)encoder_tensor_size(t) * sizeof(float));
      taken++;
    }
  return taken;
}

int encoder_save(const encoder *m, const float *params, const char *path, const char *const *meta, ice_err *e) {
  size_t n_meta = 0;
  while (meta && meta[n_meta]) n_meta++;
  st_out *t = calloc((size_t)m->n_tensors, sizeof *t);
  const char **all = calloc(n_meta + 7, sizeof *all);
  char heads[16], learned[ATTN_MAX_LEARNED * sizeof m->cfg.learned[0].name + 1] = "";
  (void)snprintf(heads, sizeof heads, "%d", m->cfg.heads); /* sizes and order that no shape tells */
  for (int i = 0; i < m->cfg.n_learned; i++) {
    const size_t n = strlen(learned);
    (void)snprintf(learned + n, sizeof learned - n, "%s%s", n ? " " : "", m->cfg.learned[i].name);
  }
  int rc = t && all ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) {
    size_t n = 0;
    all[n++] = "heads", all[n++] = heads;
    if (m->cfg.shared_qk) all[n++] = "shared_qk", all[n++] = "1";
    if (*learned) all[n++] = "learned", all[n++] = learned;
    if (n_meta) memcpy(all + n, meta, n_meta * sizeof *meta);
  }
  for (int i = 0; rc == ICE_OK && i < m->n_tensors; i++)
    t[i] = (st_out){.name = m->tensor[i].name,
                    .dtype = ST_F32,
                    .rank = m->tensor[i].rank,
                    .shape = {m->tensor[i].shape[0], m->tensor[i].shape[1], m->tensor[i].shape[2]},
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

/* What the attention of layer 0 has learned, and whether it has keys of its own. */
static int infer_attention(const st_file *f, const char *path, encoder_config *c, ice_err *e) {
  const char *head = "model.transformer_0.mha.attn.";
  c->shared_qk = st_meta(f, "shared_qk") != NULL;
  const char *order = st_meta(f, "learned"); /* names in the method's order, ' ' between */
  char names[ATTN_MAX_LEARNED * sizeof c->learned[0].name + 1] = "", *rest = names;
  if (order && snprintf(names, sizeof names, "%s", order) >= (int)sizeof names)
    return ice_fail(e, ICE_DATA, "%s: metadata learned has %zu characters, allowed %zu", path, strlen(order), sizeof names - 1);
  for (char *name; (name = strtok_r(rest, " ", &rest)) != NULL;) {
    encoder_learned *l = c->learned + c->n_learned;
    if (c->n_learned == ATTN_MAX_LEARNED || strlen(name) >= sizeof l->name)
      return ice_fail(e, ICE_DATA, "%s: metadata learned = %s, allowed %d names of at most %zu characters", path, order,
                      ATTN_MAX_LEARNED, sizeof l->name - 1);
    char full[64];
    (void)snprintf(full, sizeof full, "%s%s", head, name);
    const st_tensor *t = st_find(f, full);
    if (!t || t->rank < 1 || t->rank > 3)
      return ice_fail(e, ICE_DATA, "%s: learned tensor %s is %s", path, full, t ? "of no rank 1..3" : "missing");
    (void)snprintf(l->name, sizeof l->name, "%s", name);
    l->rank = t->rank;
    memcpy(l->shape, t->shape, (size_t)t->rank * sizeof *l->shape);
    c->n_learned++;
  }
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
  ICE_TRY(infer_attention(f, path, c, e));
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
  encoder_tensor want[ENCODER_MAX_TENSORS];
  int count;
  (void)network_tensors(c, want, &count);
  for (int i = 0; i < count; i++) {
    const encoder_tensor *w = want + i;
    const st_tensor *t = st_find(f, w->name);
    if (!t || t->count != encoder_tensor_size(w)) /* fails, and says why */
      return st_copy_f32(f, w->name, w->rank, w->shape, NULL, e);
  }
  if (f->count == count) return ICE_OK;
  return ice_fail(e, ICE_DATA, "%s: %lld tensors, an encoder of this shape has %d", path, (long long)f->count, count);
}

static int check_finite(const encoder *m, const encoder_tensor *t, const char *path, ice_err *e) {
  const float *p = m->params + t->offset;
  for (int64_t i = 0; i < encoder_tensor_size(t); i++)
    if (!isfinite(p[i])) return ice_fail(e, ICE_DATA, "%s: %s[%lld] = %g, allowed finite numbers", path, t->name, (long long)i, (double)p[i]);
  return ICE_OK;
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
  for (int i = 0; rc == ICE_OK && i < m->n_tensors; i++) rc = check_finite(m, m->tensor + i, path, e);
  const char *attention = st_meta(&f, "attention"), *params = st_meta(&f, "attention_params");
  if (attention) (void)snprintf(m->attention, sizeof m->attention, "%s", attention);
  if (params) (void)snprintf(m->attention_params, sizeof m->attention_params, "%s", params);
  st_close(&f);
  if (rc != ICE_OK) encoder_destroy(m);
  return rc;
}
