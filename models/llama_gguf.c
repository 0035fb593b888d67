/* llama_gguf.c - Llama models in GGUF files: configuration from the keys, weights from the tensors. Key names: ggml,
 * docs/gguf.md. Rows of q and k are in the order of adjacent rotary pairs. */
#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "models/llama_model.h"

static int read_rope(const gguf_file *f, llama_config *c, ice_err *e) {
  double base = 10000.0, scale = 1.0;
  int64_t dims = c->head_dim, original = 0;
  char kind[32] = "";
  ICE_TRY(gguf_int(f, "llama.rope.dimension_count", 0, 1, 4096, &dims, e));
  if (dims != c->head_dim)
    return ice_fail(e, ICE_DATA, "%s: llama.rope.dimension_count = %lld; only the whole head width %lld is supported", gguf_name(f),
                    (long long)dims, (long long)c->head_dim);
  ICE_TRY(gguf_real(f, "llama.rope.freq_base", 0, 1.0, 1e30, &base, e));
  ICE_TRY(gguf_real(f, "llama.rope.scale_linear", 0, 1.0, 1e6, &scale, e)); /* of old files */
  ICE_TRY(gguf_text(f, "llama.rope.scaling.type", 0, kind, sizeof kind, e));
  if (kind[0] && strcmp(kind, "none") && strcmp(kind, "linear"))
    return ice_fail(e, ICE_DATA, "%s: llama.rope.scaling.type = %s; allowed: none, linear", gguf_name(f), kind);
  if (!strcmp(kind, "linear")) ICE_TRY(gguf_real(f, "llama.rope.scaling.factor", 1, 1.0, 1e6, &scale, e));
  ICE_TRY(gguf_int(f, "llama.rope.scaling.original_context_length", 0, 1, 1 << 28, &original, e));
  c->rope_base = (float)base;
  c->rope_scale = (float)scale;
  c->context = llround((double)(original ? original : c->context) * scale);
  return ICE_OK;
}

static int read_config(const gguf_file *f, llama_config *c, ice_err *e) {
  char architecture[64] = "";
  double eps = 0.0;
  ICE_TRY(gguf_text(f, "general.architecture", 1, architecture, sizeof architecture, e));
  if (strcmp(architecture, "llama"))
    return ice_fail(e, ICE_DATA, "%s: general.architecture = %s; only llama is supported", gguf_name(f), architecture);
  const gguf_tensor *embed = gguf_find_tensor(f, "token_embd.weight");
  if (!embed) return ice_fail(e, ICE_DATA, "%s: tensor token_embd.weight is missing (a file of a vocabulary alone?)", gguf_name(f));
  *c = (llama_config){.rope_adjacent = 1, .tied = !gguf_find_tensor(f, "output.weight")};
  c->vocab = embed->rank == 2 ? embed->shape[0] : 0;
  ICE_TRY(gguf_int(f, "llama.context_length", 1, 1, 1 << 28, &c->context, e));
  ICE_TRY(gguf_int(f, "llama.embedding_length", 1, 1, 1 << 17, &c->width, e));
  ICE_TRY(gguf_int(f, "llama.block_count", 1, 1, LLAMA_MAX_LAYERS, &c->layers, e));
  ICE_TRY(gguf_int(f, "llama.feed_forward_length", 1, 1, 1 << 20, &c->mlp, e));
  ICE_TRY(gguf_int(f, "llama.attention.head_count", 1, 1, 4096, &c->heads, e));
  c->kv_heads = c->heads;
  ICE_TRY(gguf_int(f, "llama.attention.head_count_kv", 0, 1, 4096, &c->kv_heads, e));
  c->head_dim = c->width / c->heads;
  ICE_TRY(gguf_int(f, "llama.attention.key_length", 0, 1, 4096, &c->head_dim, e));
  ICE_TRY(gguf_real(f, "llama.attention.layer_norm_rms_epsilon", 1, 1e-30, 1.0, &eps, e));
  c->norm_eps = (float)eps;
  ICE_TRY(read_rope(f, c, e));
  return llama_check_config(c, gguf_name(f), ICE_DATA, e);
}

static int bind(llama *m, const llama_part *p, int n, ice_err *e) {
  const gguf_file *f = &m->gguf;
  for (int i = 0; i < n; i++) {
    const gguf_tensor *t = gguf_find_tensor(f, p[i].gguf);
    if (!t) return ice_fail(e, ICE_DATA, "%s: tensor %s is missing", gguf_name(f), p[i].gguf);
    const int64_t rows = t->rank == 1 ? 1 : t->shape[0], cols = t->shape[t->rank - 1];
    if (t->rank != p[i].rank || rows != p[i].rows || cols != p[i].cols)
      return ice_fail(e, ICE_DATA, "%s: tensor %s: %d dimensions, %lld rows of %lld; expected %d, %lld rows of %lld", gguf_name(f),
                      p[i].gguf, t->rank, (long long)rows, (long long)cols, p[i].rank, (long long)p[i].rows, (long long)p[i].cols);
    *p[i].at = (matrix){t->type, rows, cols, t->data};
  }
  if (f->n_tensors == n) return ICE_OK;
  for (int64_t k = 0; k < f->n_tensors; k++) { /* a bias, or factors of another scaling: not to be passed over */
    int known = 0;
    for (int i = 0; i < n && !known; i++) known = !strcmp(f->tensor[k].name, p[i].gguf);
    if (!known) return ice_fail(e, ICE_DATA, "%s: tensor %s is not supported", gguf_name(f), f->tensor[k].name);
  }
  return ICE_OK;
}

int llama_from_gguf(llama **out, gguf_file *f, ice_err *e) {
  llama_config c;
  *out = NULL;
  int rc = read_config(f, &c, e);
  if (rc == ICE_OK) rc = llama_create(out, &c, e);
  if (rc != ICE_OK) {
    gguf_close(f);
    return rc;
  }
  llama *m = *out;
  m->gguf = *f;
  *f = (gguf_file){0};
  const int n = llama_parts(m, NULL);
  llama_part *p = attn_alloc((size_t)n * sizeof *p);
  if (!p) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) {
    (void)llama_parts(m, p);
    rc = bind(m, p, n, e);
  }
  attn_free(p);
  if (rc == ICE_OK && c.tied) m->head = m->embed;
  if (rc != ICE_OK) {
    llama_close(m);
    *out = NULL;
  }
  return rc;
}

int llama_open_gguf(llama **out, const char *path, ice_err *e) {
  gguf_file f;
  *out = NULL;
  ICE_TRY(gguf_open(path, &f, e));
  return llama_from_gguf(out, &f, e);
}
