/* llama_folder.c - Llama models as Hugging Face folders: config.json, and model.safetensors or the shards that
 * model.safetensors.index.json names. Rows of q and k are in the order of half-rotated pairs. Source: transformers,
 * models/llama (names, configuration keys). */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/fileio.h"
#include "models/llama_model.h"

enum { JSON_MAX = 64 << 20, MAX_SHARDS = 4096 };

static int read_json(const char *path, json_t **out, ice_err *e) {
  file_map map;
  json_error_t why;
  ICE_TRY(file_open_map(path, JSON_MAX, &map, e));
  *out = json_loadb((const char *)map.p, map.n, JSON_REJECT_DUPLICATES, &why);
  file_close_map(&map);
  if (!*out) return ice_fail(e, ICE_DATA, "%s: line %d: %s", path, why.line, why.text);
  if (json_is_object(*out)) return ICE_OK;
  json_decref(*out);
  *out = NULL;
  return ice_fail(e, ICE_DATA, "%s: is no JSON object", path);
}

/* --- config.json -------------------------------------------------------------------------------------------------- */

/* A key that is null counts as absent; then *out stays, unless it is required. */
static int get_int(const char *file, const json_t *o, const char *key, int required, int64_t max, int64_t *out, ice_err *e) {
  const json_t *v = json_object_get(o, key);
  if (!v || json_is_null(v)) return required ? ice_fail(e, ICE_DATA, "%s: %s is missing", file, key) : ICE_OK;
  if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > max)
    return ice_fail(e, ICE_DATA, "%s: %s must be a whole number, 1..%lld", file, key, (long long)max);
  *out = json_integer_value(v);
  return ICE_OK;
}
static int get_real(const char *file, const json_t *o, const char *key, int required, float *out, ice_err *e) {
  const json_t *v = json_object_get(o, key);
  if (!v || json_is_null(v)) return required ? ice_fail(e, ICE_DATA, "%s: %s is missing", file, key) : ICE_OK;
  if (!json_is_number(v)) return ice_fail(e, ICE_DATA, "%s: %s must be a number", file, key);
  *out = (float)json_number_value(v);
  return ICE_OK;
}
/* A switch that must be off, or a choice that must be this one, when it is there. */
static int must_be(const char *file, const json_t *o, const char *key, const char *text, ice_err *e) {
  const json_t *v = json_object_get(o, key);
  if (!v || json_is_null(v) || (text ? json_is_string(v) && !strcmp(json_string_value(v), text) : json_is_false(v))) return ICE_OK;
  return ice_fail(e, ICE_DATA, "%s: %s: only %s is supported", file, key, text ? text : "false");
}

static int read_rope(const char *file, const json_t *o, llama_config *c, ice_err *e) {
  const json_t *scaling = json_object_get(o, "rope_scaling");
  const json_t *newer = json_object_get(o, "rope_parameters"); /* of transformers 5 */
  if (json_is_object(newer)) {
    scaling = newer;
    ICE_TRY(get_real(file, newer, "rope_theta", 0, &c->rope_base, e));
  }
  ICE_TRY(get_real(file, o, "rope_theta", 0, &c->rope_base, e));
  if (!scaling || json_is_null(scaling)) return ICE_OK;
  const char *kind = json_string_value(json_object_get(scaling, "rope_type"));
  if (!kind) kind = json_string_value(json_object_get(scaling, "type"));
  if (!kind || (strcmp(kind, "linear") && strcmp(kind, "default")))
    return ice_fail(e, ICE_DATA, "%s: rope_scaling: type %s; allowed: linear, default", file, kind ? kind : "(none)");
  return strcmp(kind, "linear") ? ICE_OK : get_real(file, scaling, "factor", 1, &c->rope_scale, e);
}

static int read_config(const char *file, const json_t *o, llama_config *c, ice_err *e) {
  *c = (llama_config){.rope_base = 10000.0f, .rope_scale = 1.0f, .tied = json_is_true(json_object_get(o, "tie_word_embeddings"))};
  if (!json_object_get(o, "model_type")) return ice_fail(e, ICE_DATA, "%s: model_type is missing", file);
  ICE_TRY(must_be(file, o, "model_type", "llama", e));
  ICE_TRY(must_be(file, o, "hidden_act", "silu", e));
  ICE_TRY(must_be(file, o, "attention_bias", NULL, e));
  ICE_TRY(must_be(file, o, "mlp_bias", NULL, e));
  ICE_TRY(get_int(file, o, "vocab_size", 1, 1 << 24, &c->vocab, e));
  ICE_TRY(get_int(file, o, "hidden_size", 1, 1 << 17, &c->width, e));
  ICE_TRY(get_int(file, o, "intermediate_size", 1, 1 << 20, &c->mlp, e));
  ICE_TRY(get_int(file, o, "num_hidden_layers", 1, LLAMA_MAX_LAYERS, &c->layers, e));
  ICE_TRY(get_int(file, o, "num_attention_heads", 1, 4096, &c->heads, e));
  c->kv_heads = c->heads;
  ICE_TRY(get_int(file, o, "num_key_value_heads", 0, 4096, &c->kv_heads, e));
  c->head_dim = c->width / c->heads;
  ICE_TRY(get_int(file, o, "head_dim", 0, 4096, &c->head_dim, e));
  ICE_TRY(get_int(file, o, "max_position_embeddings", 1, 1 << 28, &c->context, e));
  ICE_TRY(get_real(file, o, "rms_norm_eps", 1, &c->norm_eps, e));
  ICE_TRY(read_rope(file, o, c, e));
  if (!(c->rope_scale >= 1.0f && c->rope_scale <= 1e6f))
    return ice_fail(e, ICE_DATA, "%s: rope_scaling: factor %g, allowed 1..1e6", file, (double)c->rope_scale);
  c->context = llround((double)c->context * (double)c->rope_scale);
  return llama_check_config(c, file, ICE_DATA, e);
}

/* --- weights ------------------------------------------------------------------------------------------------------ */

static int add_shard(llama *m, const char *folder, const char *name, ice_err *e) {
  char path[FILE_PATH];
  if (m->shards == MAX_SHARDS) return ice_fail(e, ICE_DATA, "%s: more than %d shards", folder, MAX_SHARDS);
  ICE_TRY(file_join(path, folder, name, e));
  ICE_TRY(st_open(path, m->shard + m->shards, e));
  m->shards++;
  return ICE_OK;
}

/* The files that an index names, each once. */
static int open_shards(llama *m, const char *folder, const char *index, ice_err *e) {
  json_t *o = NULL, *map, *value;
  const char *key;
  ICE_TRY(read_json(index, &o, e));
  map = json_object_get(o, "weight_map");
  json_t *seen = json_object();
  int rc = !seen ? ice_fail(e, ICE_INTERNAL, "out of memory")
           : json_object_size(map) ? ICE_OK
                                   : ice_fail(e, ICE_DATA, "%s: weight_map, an object of names and files, is missing or empty", index);
  json_object_foreach(map, key, value) {
    const char *name = json_string_value(value);
    if (rc != ICE_OK) break;
    if (!name || !name[0] || name[0] == '.' || strchr(name, '/')) {
      rc = ice_fail(e, ICE_DATA, "%s: %s: a file of the same folder is needed", index, key);
    } else if (!json_object_get(seen, name)) {
      rc = add_shard(m, folder, name, e);
      if (json_object_set_new(seen, name, json_true())) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
    }
  }
  json_decref(seen);
  json_decref(o);
  return rc;
}

static int open_weights(llama *m, const char *folder, ice_err *e) {
  char path[FILE_PATH], index[FILE_PATH];
  m->shard = attn_calloc(MAX_SHARDS * sizeof *m->shard);
  if (!m->shard) return ice_fail(e, ICE_INTERNAL, "out of memory");
  ICE_TRY(file_join(path, folder, "model.safetensors", e));
  if (file_is_regular(path)) return add_shard(m, folder, "model.safetensors", e);
  ICE_TRY(file_join(index, folder, "model.safetensors.index.json", e));
  if (file_is_regular(index)) return open_shards(m, folder, index, e);
  return ice_fail(e, ICE_DATA, "%s: has neither model.safetensors nor model.safetensors.index.json; pytorch_model*.bin files are "
                  "not read: save them as safetensors with transformers, or take a GGUF file", folder);
}

/* A tensor in any of the shards; NULL when absent. *twice when it is in more than one. */
static const st_tensor *find(const llama *m, const char *name, int *twice) {
  const st_tensor *found = NULL;
  for (int i = 0; i < m->shards; i++) {
    const st_tensor *t = st_find(m->shard + i, name);
    *twice |= t && found;
    if (t) found = t;
  }
  return found;
}

static int bind_part(const llama *m, const char *folder, const llama_part *p, ice_err *e) {
  int twice = 0;
  const st_tensor *t = find(m, p->hf, &twice);
  if (!t) return ice_fail(e, ICE_DATA, "%s: tensor %s is missing", folder, p->hf);
  if (twice) return ice_fail(e, ICE_DATA, "%s: tensor %s is in two shards", folder, p->hf);
  const int64_t rows = t->rank == 1 ? 1 : t->rank == 2 ? t->shape[0] : -1, cols = t->rank ? t->shape[t->rank - 1] : -1;
  if (t->rank != p->rank || rows != p->rows || cols != p->cols)
    return ice_fail(e, ICE_DATA, "%s: tensor %s: %d dimensions, %lld rows of %lld; expected %d, %lld rows of %lld", folder, p->hf,
                    t->rank, (long long)rows, (long long)cols, p->rank, (long long)p->rows, (long long)p->cols);
  if (t->dtype != ST_F32 && t->dtype != ST_F16 && t->dtype != ST_BF16)
    return ice_fail(e, ICE_DATA, "%s: tensor %s: dtype must be F32, F16 or BF16", folder, p->hf);
  const matrix_type type = t->dtype == ST_F32 ? MATRIX_F32 : t->dtype == ST_F16 ? MATRIX_F16 : MATRIX_BF16;
  *p->at = (matrix){type, rows, cols, t->data};
  return ICE_OK;
}

static int has_suffix(const char *text, const char *suffix) {
  const size_t n = strlen(text), k = strlen(suffix);
  return n >= k && !strcmp(text + n - k, suffix);
}

/* Tensors that nobody asked for mean another model: only stored frequencies, and a tied head, are passed over. */
static int check_rest(const llama *m, const char *folder, const llama_part *p, int n, ice_err *e) {
  for (int s = 0; s < m->shards; s++)
    for (int64_t k = 0; k < m->shard[s].count; k++) {
      const char *name = m->shard[s].tensor[k].name;
      int known = has_suffix(name, ".rotary_emb.inv_freq") || (m->cfg.tied && !strcmp(name, "lm_head.weight"));
      for (int i = 0; i < n && !known; i++) known = !strcmp(name, p[i].hf);
      if (!known) return ice_fail(e, ICE_DATA, "%s: tensor %s is not supported", folder, name);
    }
  return ICE_OK;
}

int llama_open_folder(llama **out, const char *folder, ice_err *e) {
  char path[FILE_PATH];
  json_t *o = NULL;
  llama_config c;
  *out = NULL;
  ICE_TRY(file_join(path, folder, "config.json", e));
  ICE_TRY(read_json(path, &o, e));
  int rc = read_config(path, o, &c, e);
  json_decref(o);
  if (rc == ICE_OK) rc = llama_create(out, &c, e);
  if (rc != ICE_OK) return rc;
  llama *m = *out;
  const int n = llama_parts(m, NULL);
  llama_part *p = attn_alloc((size_t)n * sizeof *p);
  if (!p) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) rc = open_weights(m, folder, e);
  if (rc == ICE_OK) {
    (void)llama_parts(m, p);
    for (int i = 0; rc == ICE_OK && i < n; i++) rc = bind_part(m, folder, p + i, e);
    if (rc == ICE_OK) rc = check_rest(m, folder, p, n, e);
  }
  attn_free(p);
  if (rc == ICE_OK && c.tied) m->head = m->embed;
  if (rc != ICE_OK) {
    llama_close(m);
    *out = NULL;
  }
  return rc;
}
