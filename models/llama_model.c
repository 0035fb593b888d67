/* llama_model.c - see llama_model.h: configuration, names of weights, models without a file. */
#include "models/llama_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/core/alloc.h"
#include "kernels/core/half.h"
#include "kernels/core/rng.h"

int llama_check_config(const llama_config *c, const char *name, int code, ice_err *e) {
  const struct {
    const char *what;
    int64_t value, max;
  } size[] = {{"vocabulary", c->vocab, 1 << 24}, {"width", c->width, 1 << 17},       {"layers", c->layers, LLAMA_MAX_LAYERS},
              {"heads", c->heads, 4096},         {"key heads", c->kv_heads, 4096},   {"head width", c->head_dim, 4096},
              {"MLP width", c->mlp, 1 << 20},    {"context", c->context, 1LL << 28}};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++)
    if (size[i].value < 1 || size[i].value > size[i].max)
      return ice_fail(e, code, "%s: %s = %lld, allowed 1..%lld", name, size[i].what, (long long)size[i].value, (long long)size[i].max);
  if (c->heads % c->kv_heads)
    return ice_fail(e, code, "%s: %lld heads are no multiple of %lld key heads", name, (long long)c->heads, (long long)c->kv_heads);
  if (c->head_dim % 2) return ice_fail(e, code, "%s: head width %lld is odd, rotary positions need pairs", name, (long long)c->head_dim);
  if (!(c->norm_eps > 0.0f && c->norm_eps < 1.0f)) return ice_fail(e, code, "%s: norm epsilon %g, allowed: above 0, below 1", name, (double)c->norm_eps);
  if (!(c->rope_base >= 1.0f && c->rope_base < INFINITY)) return ice_fail(e, code, "%s: rope base %g, allowed from 1 on", name, (double)c->rope_base);
  if (!(c->rope_scale >= 1.0f && c->rope_scale <= 1e6f)) return ice_fail(e, code, "%s: rope scaling factor %g, allowed 1..1e6", name, (double)c->rope_scale);
  return ICE_OK;
}

int llama_create(llama **out, const llama_config *cfg, ice_err *e) {
  *out = NULL;
  llama *m = attn_calloc(sizeof *m);
  if (m) m->layer = attn_calloc((size_t)cfg->layers * sizeof *m->layer);
  if (!m || !m->layer) {
    llama_close(m);
    return ice_fail(e, ICE_INTERNAL, "out of memory");
  }
  m->cfg = *cfg;
  m->file_scale = cfg->rope_scale;
  *out = m;
  return ICE_OK;
}

int llama_open(llama **m, const char *path, ice_err *e) {
  struct stat st;
  *m = NULL;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? llama_open_folder(m, path, e) : llama_open_gguf(m, path, e);
}

void llama_close(llama *m) {
  if (!m) return;
  if (m->gguf.impl) gguf_close(&m->gguf);
  for (int i = 0; i < m->shards; i++) st_close(m->shard + i);
  attn_free(m->shard);
  attn_free(m->memory);
  attn_free(m->layer);
  attn_free(m);
}

const llama_config *llama_config_of(const llama *m) { return &m->cfg; }

static llama_part *part(llama_part *p, matrix *at, int rank, int64_t rows, int64_t cols, int64_t rope_heads) {
  *p = (llama_part){.at = at, .rank = rank, .rows = rows, .cols = cols, .rope_heads = rope_heads};
  return p;
}
static void name_part(llama_part *p, const char *gguf, const char *hf) {
  (void)snprintf(p->gguf, sizeof p->gguf, "%s.weight", gguf);
  (void)snprintf(p->hf, sizeof p->hf, "%s.weight", hf);
}

static void layer_parts(llama *m, int l, llama_part *p) {
  static const char *const gguf[] = {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"};
  static const char *const hf[] = {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                   "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};
  const llama_config *c = &m->cfg;
  const int64_t w = c->width, q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
  llama_layer *y = m->layer + l;
  part(p + 0, &y->attn_norm, 1, 1, w, 0);
  part(p + 1, &y->q, 2, q, w, c->heads);
  part(p + 2, &y->k, 2, kv, w, c->kv_heads);
  part(p + 3, &y->v, 2, kv, w, 0);
  part(p + 4, &y->o, 2, w, q, 0);
  part(p + 5, &y->mlp_norm, 1, 1, w, 0);
  part(p + 6, &y->gate, 2, c->mlp, w, 0);
  part(p + 7, &y->up, 2, c->mlp, w, 0);
  part(p + 8, &y->down, 2, w, c->mlp, 0);
  for (int i = 0; i < 9; i++) {
    char a[64], b[80];
    (void)snprintf(a, sizeof a, "blk.%d.%s", l, gguf[i]);
    (void)snprintf(b, sizeof b, "model.layers.%d.%s", l, hf[i]);
    name_part(p + i, a, b);
  }
}

int llama_parts(llama *m, llama_part *out) {
  const llama_config *c = &m->cfg;
  const int count = (int)c->layers * 9 + (c->tied ? 2 : 3);
  if (!out) return count;
  name_part(part(out, &m->embed, 2, c->vocab, c->width, 0), "token_embd", "model.embed_tokens");
  for (int l = 0; l < (int)c->layers; l++) layer_parts(m, l, out + 1 + 9 * l);
  name_part(part(out + 1 + 9 * c->layers, &m->norm, 1, 1, c->width, 0), "output_norm", "model.norm");
  if (!c->tied) name_part(part(out + 2 + 9 * c->layers, &m->head, 2, c->vocab, c->width, 0), "output", "lm_head");
  return count;
}

uint64_t llama_weight_bytes(const llama *m) {
  llama copy = *m; /* llama_parts points into what it is given */
  uint64_t sum = 0;
  const int n = llama_parts(&copy, NULL);
  llama_part *p = attn_alloc((size_t)n * sizeof *p);
  if (!p) return 0;
  (void)llama_parts(&copy, p);
  for (int i = 0; i < n; i++) {
    size_t row = 0;
    (void)matrix_row_bytes(p[i].at->type, p[i].cols, &row);
    sum += row * (uint64_t)p[i].rows;
  }
  attn_free(p);
  return sum;
}

int llama_set_rope_scale(llama *m, float factor, ice_err *e) {
  llama_config c = m->cfg;
  c.context = llround((double)c.context / (double)c.rope_scale * (double)factor);
  c.rope_scale = factor;
  ICE_TRY(llama_check_config(&c, "rope scale", ICE_USAGE, e));
  m->cfg = c;
  return ICE_OK;
}

int llama_random(llama **out, const llama_config *cfg, uint64_t seed, ice_err *e) {
  ICE_TRY(llama_check_config(cfg, "model", ICE_USAGE, e));
  ICE_TRY(llama_create(out, cfg, e));
  llama *m = *out;
  const int n = llama_parts(m, NULL);
  llama_part *p = attn_alloc((size_t)n * sizeof *p);
  size_t bytes = 0;
  int rc = p ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) {
    (void)llama_parts(m, p);
    for (int i = 0; i < n; i++) bytes = attn_add(bytes, attn_mul((size_t)p[i].rows, (size_t)p[i].cols * 2));
    m->memory = attn_alloc(bytes);
    if (!m->memory) rc = ice_fail(e, ICE_INTERNAL, "out of memory: weights of %zu bytes", bytes);
  }
  uint8_t *at = m->memory;
  for (int i = 0; rc == ICE_OK && i < n; i++) {
    /* uniform of variance 1 / cols, and ones for norms: activations keep their size through any number of layers */
    const double reach = sqrt(3.0 / (double)p[i].cols);
    *p[i].at = (matrix){MATRIX_BF16, p[i].rows, p[i].cols, at};
    for (int64_t k = 0; k < p[i].rows * p[i].cols; k++, at += 2) {
      const double u = (double)(attn_hash(seed, (uint64_t)i, (uint64_t)k) >> 40) * 0x1p-23 - 1.0;
      const uint16_t h = attn_bf16_of_f32(p[i].rank == 1 ? 1.0f : (float)(u * reach));
      memcpy(at, &h, sizeof h);
    }
  }
  if (rc == ICE_OK && cfg->tied) m->head = m->embed;
  attn_free(p);
  if (rc != ICE_OK) {
    llama_close(m);
    *out = NULL;
  }
  return rc;
}
