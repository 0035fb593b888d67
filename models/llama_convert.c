/* llama_convert.c - see llama_convert.h. Rows stream from the mapped source to the file; q and k change the order of their
 * rows on the way, because the formats pair rotary dimensions differently. */
#include "models/llama_convert.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/core/alloc.h"
#include "kernels/core/fileio.h"
#include "models/llama_model.h"
#include "models/vocabulary.h"

typedef struct part_out { /* a weight on its way into a file */
  const matrix *from;
  matrix_type type;
  int64_t head_dim; /* rows of a head whose order changes; 0: none */
  int to_adjacent;
  float *row; /* [cols] shared working memory, and as bytes of any type */
  uint8_t *packed;
} part_out;

typedef struct conversion {
  llama *m;
  const tokenizer *t;
  llama_part *part;
  part_out *out;
  int n;
  matrix_type type; /* of matrices where there is a choice; of the embedding otherwise */
  float *row;
  uint8_t *packed;
} conversion;

/* --- weights ------------------------------------------------------------------------------------------------------ */

static int64_t source_row(const part_out *p, int64_t row) {
  if (!p->head_dim) return row;
  if (!p->to_adjacent) return llama_gguf_row(row, p->head_dim);
  const int64_t head = row / p->head_dim * p->head_dim, in = row % p->head_dim;
  return head + in % 2 * (p->head_dim / 2) + in / 2;
}

static void write_part(const void *ctx, FILE *to) {
  const part_out *p = ctx;
  size_t from = 0, bytes = 0;
  (void)matrix_row_bytes(p->from->type, p->from->cols, &from);
  (void)matrix_row_bytes(p->type, p->from->cols, &bytes);
  for (int64_t i = 0; i < p->from->rows; i++) {
    const int64_t r = source_row(p, i);
    const uint8_t *row = p->from->data + (size_t)r * from;
    if (p->type != p->from->type) {
      matrix_expand(p->from, r, 1, p->row);
      matrix_pack(p->type, p->from->cols, p->row, p->packed);
      row = p->packed;
    }
    (void)fwrite(row, 1, bytes, to);
  }
}

/* 1 when every number of a vector is one of the 16-bit type. */
static int survives(const conversion *c, const matrix *v, matrix_type type) {
  const matrix back = {type, 1, v->cols, c->packed};
  float *again = c->row + v->cols;
  matrix_expand(v, 0, 1, c->row);
  matrix_pack(type, v->cols, c->row, c->packed);
  matrix_expand(&back, 0, 1, again);
  return !memcmp(c->row, again, (size_t)v->cols * sizeof *again);
}

static matrix_type type_of(const conversion *c, const llama_part *p, int type, int gguf) {
  const matrix *from = p->at;
  if (p->rank == 1 && gguf) return MATRIX_F32;
  if (type >= 0) return (matrix_type)type;
  if (p->rank == 1 && from->type == MATRIX_F32 && survives(c, from, c->type)) return c->type;
  return from->type == MATRIX_Q8_0 && !gguf ? MATRIX_F32 : from->type;
}

static int choose_types(conversion *c, int type, int gguf, ice_err *e) {
  c->type = type >= 0 ? (matrix_type)type : !gguf && c->m->embed.type == MATRIX_Q8_0 ? MATRIX_F32 : c->m->embed.type;
  if (type == MATRIX_Q8_0 && !gguf) return ice_fail(e, ICE_USAGE, "--dtype q8_0: only GGUF files hold it; give a name that ends in .gguf");
  for (int i = 0; i < c->n; i++) {
    const llama_part *p = c->part + i;
    const matrix *from = p->at;
    part_out *o = c->out + i;
    size_t row;
    *o = (part_out){.from = from, .type = type_of(c, p, type, gguf), .row = c->row, .packed = c->packed, .to_adjacent = gguf};
    if (p->rope_heads && gguf != c->m->cfg.rope_adjacent) o->head_dim = c->m->cfg.head_dim;
    if (!matrix_row_bytes(o->type, from->cols, &row))
      return ice_fail(e, ICE_USAGE, "--dtype q8_0: %s has rows of %lld numbers; a multiple of %d is needed", p->hf, (long long)from->cols, Q8_BLOCK);
  }
  return ICE_OK;
}

/* --- GGUF --------------------------------------------------------------------------------------------------------- */

enum { MAX_PAIRS = 40 };
typedef struct pairs {
  gguf_out_kv kv[MAX_PAIRS];
  uint32_t number[MAX_PAIRS];
  float real[MAX_PAIRS];
  const char *text[MAX_PAIRS];
  uint8_t flag[MAX_PAIRS];
  int n;
} pairs;

static void add_number(pairs *p, const char *key, int64_t v) {
  p->number[p->n] = (uint32_t)v;
  p->kv[p->n] = (gguf_out_kv){key, GGUF_U32, 0, 1, p->number + p->n};
  p->n++;
}
static void add_id(pairs *p, const char *key, int32_t id) {
  if (id >= 0) add_number(p, key, id);
}
static void add_real(pairs *p, const char *key, float v) {
  p->real[p->n] = v;
  p->kv[p->n] = (gguf_out_kv){key, GGUF_F32, 0, 1, p->real + p->n};
  p->n++;
}
static void add_text(pairs *p, const char *key, const char *v) {
  p->text[p->n] = v;
  p->kv[p->n] = (gguf_out_kv){key, GGUF_STRING, 0, 1, (const void *)(p->text + p->n)};
  p->n++;
}
static void add_flag(pairs *p, const char *key, int v) {
  p->flag[p->n] = (uint8_t)v;
  p->kv[p->n] = (gguf_out_kv){key, GGUF_BOOL, 0, 1, p->flag + p->n};
  p->n++;
}

static int64_t trained_context(const llama_config *c) { return llround((double)c->context / (double)c->rope_scale); }

static void add_config(pairs *p, const llama_config *c, matrix_type type) {
  add_text(p, "general.architecture", "llama");
  add_number(p, "general.file_type", type == MATRIX_F32 ? 0 : type == MATRIX_F16 ? 1 : type == MATRIX_Q8_0 ? 7 : 32);
  add_number(p, "llama.vocab_size", c->vocab);
  add_number(p, "llama.context_length", trained_context(c));
  add_number(p, "llama.embedding_length", c->width);
  add_number(p, "llama.block_count", c->layers);
  add_number(p, "llama.feed_forward_length", c->mlp);
  add_number(p, "llama.attention.head_count", c->heads);
  add_number(p, "llama.attention.head_count_kv", c->kv_heads);
  if (c->heads * c->head_dim != c->width) {
    add_number(p, "llama.attention.key_length", c->head_dim);
    add_number(p, "llama.attention.value_length", c->head_dim);
  }
  add_real(p, "llama.attention.layer_norm_rms_epsilon", c->norm_eps);
  add_number(p, "llama.rope.dimension_count", c->head_dim);
  add_real(p, "llama.rope.freq_base", c->rope_base);
  if (c->rope_scale != 1.0f) {
    add_text(p, "llama.rope.scaling.type", "linear");
    add_real(p, "llama.rope.scaling.factor", c->rope_scale);
  }
}

static void add_tokenizer(pairs *p, const vocabulary *v, const char **text, float *score, int32_t *type) {
  for (int32_t i = 0; i < v->n; i++) text[i] = v->piece[i].text, score[i] = v->piece[i].score, type[i] = v->piece[i].type;
  add_text(p, "tokenizer.ggml.model", "llama");
  p->kv[p->n++] = (gguf_out_kv){"tokenizer.ggml.tokens", GGUF_STRING, 1, (uint64_t)v->n, (const void *)text};
  p->kv[p->n++] = (gguf_out_kv){"tokenizer.ggml.scores", GGUF_F32, 1, (uint64_t)v->n, score};
  p->kv[p->n++] = (gguf_out_kv){"tokenizer.ggml.token_type", GGUF_I32, 1, (uint64_t)v->n, type};
  add_id(p, "tokenizer.ggml.unknown_token_id", v->unk);
  add_id(p, "tokenizer.ggml.bos_token_id", v->bos);
  add_id(p, "tokenizer.ggml.eos_token_id", v->eos);
  add_id(p, "tokenizer.ggml.padding_token_id", v->pad);
  add_flag(p, "tokenizer.ggml.add_bos_token", 1);
  add_flag(p, "tokenizer.ggml.add_eos_token", 0);
  add_flag(p, "tokenizer.ggml.add_space_prefix", v->dummy_prefix);
  if (v->trim) add_flag(p, "tokenizer.ggml.remove_extra_whitespaces", 1);
}

static int write_gguf(const conversion *c, const char *path, ice_err *e) {
  const vocabulary *v = c->t ? tokenizer_vocabulary(c->t) : NULL;
  const size_t n = v ? (size_t)v->n : 0;
  pairs p = {.n = 0};
  gguf_out_tensor *t = attn_calloc((size_t)c->n * sizeof *t);
  const char **text = attn_alloc(n * sizeof *text);
  float *score = attn_alloc(n * sizeof *score);
  int32_t *type = attn_alloc(n * sizeof *type);
  int rc = t && text && score && type ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK && v && !v->escape) rc = ice_fail(e, ICE_DATA, "the tokenizer does not write spaces as U+2581, which GGUF cannot tell");
  if (rc == ICE_OK) {
    add_config(&p, &c->m->cfg, c->type);
    if (v) add_tokenizer(&p, v, text, score, type);
    for (int i = 0; i < c->n; i++) {
      const llama_part *w = c->part + i;
      t[i] = (gguf_out_tensor){.name = w->gguf, .type = c->out[i].type, .rank = w->rank, .write = write_part, .ctx = c->out + i};
      t[i].shape[0] = w->rank == 1 ? w->cols : w->rows;
      t[i].shape[1] = w->cols;
    }
    rc = gguf_write(path, p.kv, p.n, t, c->n, e);
  }
  attn_free(t);
  attn_free((void *)text);
  attn_free(score);
  attn_free(type);
  return rc;
}

/* --- folders ------------------------------------------------------------------------------------------------------ */

/* The double that prints with the fewest digits of those that read back as f. */
static json_t *json_float(float f) {
  char text[32];
  for (int digits = 1; digits <= 9; digits++) {
    (void)snprintf(text, sizeof text, "%.*g", digits, (double)f);
    if (strtof(text, NULL) == f) break;
  }
  return json_real(strtod(text, NULL));
}

char *llama_config_json(const llama_config *c, const tokenizer *t, matrix_type type) {
  const char *dtype = type == MATRIX_F32 ? "float32" : type == MATRIX_F16 ? "float16" : "bfloat16";
  json_t *scaling = c->rope_scale == 1.0f ? json_null() : json_pack("{s:s, s:o}", "type", "linear", "factor", json_float(c->rope_scale));
  json_t *o = json_pack("{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "architectures", "LlamaForCausalLM", "model_type",
                        "llama", "hidden_act", "silu", "vocab_size", (json_int_t)c->vocab, "hidden_size", (json_int_t)c->width,
                        "intermediate_size", (json_int_t)c->mlp, "num_hidden_layers", (json_int_t)c->layers, "num_attention_heads",
                        (json_int_t)c->heads, "num_key_value_heads", (json_int_t)c->kv_heads, "head_dim", (json_int_t)c->head_dim,
                        "max_position_embeddings", (json_int_t)trained_context(c));
  int bad = json_object_set_new(o, "rms_norm_eps", json_float(c->norm_eps));
  bad |= json_object_set_new(o, "rope_theta", json_float(c->rope_base));
  bad |= json_object_set_new(o, "rope_scaling", scaling);
  bad |= json_object_set_new(o, "tie_word_embeddings", json_boolean(c->tied));
  bad |= json_object_set_new(o, "attention_bias", json_false()) | json_object_set_new(o, "mlp_bias", json_false());
  bad |= json_object_set_new(o, "torch_dtype", json_string(dtype));
  if (t && tokenizer_bos(t) >= 0) bad |= json_object_set_new(o, "bos_token_id", json_integer(tokenizer_bos(t)));
  if (t && tokenizer_eos(t) >= 0) bad |= json_object_set_new(o, "eos_token_id", json_integer(tokenizer_eos(t)));
  char *text = bad ? NULL : json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
  json_decref(o);
  return text;
}

static char *tokenizer_json(const tokenizer *t) {
  const vocabulary *v = tokenizer_vocabulary(t);
  json_t *o = json_pack("{s:s, s:b, s:b, s:b, s:b}", "tokenizer_class", "LlamaTokenizer", "legacy", 1, "add_bos_token", 1, "add_eos_token", 0,
                        "clean_up_tokenization_spaces", 0);
  const struct {
    const char *key;
    int32_t id;
  } special[] = {{"unk_token", v->unk}, {"bos_token", v->bos}, {"eos_token", v->eos}, {"pad_token", v->pad}};
  int bad = 0;
  for (size_t i = 0; i < sizeof special / sizeof *special; i++)
    if (special[i].id >= 0 && special[i].id < v->n) bad |= json_object_set_new(o, special[i].key, json_string(v->piece[special[i].id].text));
  char *text = bad ? NULL : json_dumps(o, JSON_INDENT(2));
  json_decref(o);
  return text;
}

/* Takes the text over. */
static int write_text(const char *folder, const char *name, char *text, ice_err *e) {
  char path[FILE_PATH];
  file_out out;
  int rc = text ? file_join(path, folder, name, e) : ice_fail(e, ICE_INTERNAL, "%s: out of memory", name);
  if (rc == ICE_OK) rc = file_out_open(&out, path, e);
  if (rc == ICE_OK) {
    (void)fprintf(out.stream, "%s\n", text);
    rc = file_out_commit(&out, e);
  }
  free(text);
  return rc;
}

static void write_nth(const void *ctx, int i, FILE *to) { write_part(((const conversion *)ctx)->out + i, to); }

static int write_weights(const conversion *c, const char *folder, ice_err *e) {
  static const char *const meta[] = {"format", "pt", NULL}; /* which transformers asks for */
  char path[FILE_PATH];
  ICE_TRY(file_join(path, folder, "model.safetensors", e));
  st_out *t = attn_calloc((size_t)c->n * sizeof *t);
  if (!t) return ice_fail(e, ICE_INTERNAL, "out of memory");
  for (int i = 0; i < c->n; i++) {
    const llama_part *w = c->part + i;
    const matrix_type type = c->out[i].type;
    t[i] = (st_out){.name = w->hf, .dtype = type == MATRIX_F32 ? ST_F32 : type == MATRIX_F16 ? ST_F16 : ST_BF16, .rank = w->rank};
    t[i].shape[0] = w->rank == 1 ? w->cols : w->rows;
    t[i].shape[1] = w->cols;
  }
  const int rc = st_write_with(path, t, c->n, meta, write_nth, c, e);
  attn_free(t);
  return rc;
}

static int fill_folder(const conversion *c, const char *folder, ice_err *e) {
  char path[FILE_PATH];
  ICE_TRY(file_make_dirs(folder, e));
  ICE_TRY(write_text(folder, "config.json", llama_config_json(&c->m->cfg, c->t, c->type), e));
  if (c->t) {
    ICE_TRY(file_join(path, folder, "tokenizer.model", e));
    ICE_TRY(vocabulary_write_model(tokenizer_vocabulary(c->t), path, e));
    ICE_TRY(write_text(folder, "tokenizer_config.json", tokenizer_json(c->t), e));
  }
  return write_weights(c, folder, e);
}

/* Nothing is written over: the target may be a model that is needed, the very source among them. */
static int check_new(const char *path, ice_err *e) {
  struct stat st;
  return lstat(path, &st) ? ICE_OK : ice_fail(e, ICE_USAGE, "%s: exists; name a new folder, or a new file that ends in .gguf", path);
}

/* Fills a folder beside the target, which then takes its name. */
static int write_folder(const conversion *c, const char *path, ice_err *e) {
  char clean[FILE_PATH], temp[FILE_PATH + 8];
  size_t n = strlen(path);
  if (n >= sizeof clean) return ice_fail(e, ICE_USAGE, "path of %zu bytes; at most %d are allowed", n, FILE_PATH - 1);
  memcpy(clean, path, n + 1);
  while (n > 1 && clean[n - 1] == '/') clean[--n] = '\0';
  ICE_TRY(check_new(clean, e));
  (void)snprintf(temp, sizeof temp, "%s.part", clean);
  ICE_TRY(file_remove_tree(temp, e));
  int rc = fill_folder(c, temp, e);
  if (rc == ICE_OK && rename(temp, clean)) rc = ice_fail(e, ICE_INTERNAL, "%s: cannot be renamed to %s: %s", temp, clean, strerror(errno));
  if (rc != ICE_OK) (void)file_remove_tree(temp, NULL);
  return rc;
}

int llama_write(llama *m, const tokenizer *t, int type, const char *path, ice_err *e) {
  const size_t length = strlen(path);
  const int gguf = length > 5 && !strcmp(path + length - 5, ".gguf");
  const llama_config *cfg = &m->cfg;
  int64_t widest = cfg->mlp > cfg->width ? cfg->mlp : cfg->width;
  if (cfg->heads * cfg->head_dim > widest) widest = cfg->heads * cfg->head_dim;
  if (t && tokenizer_vocab(t) > cfg->vocab)
    return ice_fail(e, ICE_DATA, "the tokenizer has %d pieces, the model %lld rows for them", tokenizer_vocab(t), (long long)cfg->vocab);
  conversion c = {.m = m, .t = t, .n = llama_parts(m, NULL)};
  c.part = attn_calloc((size_t)c.n * sizeof *c.part);
  c.out = attn_calloc((size_t)c.n * sizeof *c.out);
  c.row = attn_alloc((size_t)widest * 2 * sizeof *c.row);
  c.packed = attn_alloc((size_t)widest * sizeof(float));
  int rc = c.part && c.out && c.row && c.packed ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) {
    (void)llama_parts(m, c.part);
    rc = choose_types(&c, type, gguf, e);
  }
  if (rc == ICE_OK && gguf) rc = check_new(path, e);
  if (rc == ICE_OK) rc = gguf ? write_gguf(&c, path, e) : write_folder(&c, path, e);
  attn_free(c.part);
  attn_free(c.out);
  attn_free(c.row);
  attn_free(c.packed);
  return rc;
}
