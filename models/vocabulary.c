/* vocabulary.c - see vocabulary.h. The protocol buffer of SentencePiece (sentencepiece_model.proto) needs four wire types
 * and three messages; the reader skips the fields it does not know. */
#include "models/vocabulary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/err.h"
#include "kernels/core/fileio.h"

vocabulary vocabulary_empty(void) {
  return (vocabulary){.unk = 0, .bos = 1, .eos = 2, .pad = -1, .dummy_prefix = 1, .trim = 1, .escape = 1};
}

void vocabulary_free(vocabulary *v) {
  for (int32_t i = 0; i < v->n; i++) free(v->piece[i].text);
  free(v->piece);
  *v = (vocabulary){0};
}

int vocabulary_add(vocabulary *v, const char *file, const char *text, size_t n, float score, int64_t type, ice_err *e) {
  if (v->n >= VOCABULARY_MAX) return ice_fail(e, ICE_DATA, "%s: more than %d pieces", file, VOCABULARY_MAX);
  if (n < 1 || n > VOCABULARY_PIECE_MAX || memchr(text, 0, n))
    return ice_fail(e, ICE_DATA, "%s: piece %d has %zu bytes; allowed 1..%d without NUL", file, v->n, n, VOCABULARY_PIECE_MAX);
  if (type < TOKENIZER_NORMAL || type > TOKENIZER_BYTE)
    return ice_fail(e, ICE_DATA, "%s: piece %d has type %lld; allowed 1..6", file, v->n, (long long)type);
  if (isnan(score)) return ice_fail(e, ICE_DATA, "%s: the score of piece %d is not a number", file, v->n);
  if (v->n == v->room) {
    const int32_t room = v->room ? 2 * v->room : 1024;
    vocabulary_piece *p = realloc(v->piece, (size_t)room * sizeof *p);
    if (!p) return ice_fail(e, ICE_INTERNAL, "%s: out of memory", file);
    v->piece = p;
    v->room = room;
  }
  char *copy = strndup(text, n);
  if (!copy) return ice_fail(e, ICE_INTERNAL, "%s: out of memory", file);
  v->piece[v->n++] = (vocabulary_piece){copy, score, (int)type};
  return ICE_OK;
}

/* --- tokenizer.model ---------------------------------------------------------------------------------------------- */

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

typedef struct message { /* what is left of one */
  const char *file;
  const uint8_t *p, *end;
  ice_err *e;
} message;

typedef struct field {
  uint64_t number, value; /* value: of varints and fixed numbers */
  int wire;
  const uint8_t *p; /* WIRE_BYTES */
  size_t n;
} field;

static int broken(const message *m) { return ice_fail(m->e, ICE_DATA, "%s: is no tokenizer.model of SentencePiece, or a damaged one", m->file); }

static int take_varint(message *m, uint64_t *out) {
  *out = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    if (m->p == m->end) return broken(m);
    const uint8_t byte = *m->p++;
    if (shift == 63 && byte > 1) return broken(m);
    *out |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return ICE_OK;
  }
  return broken(m);
}

static int take_field(message *m, field *f) {
  uint64_t key = 0, n = 0;
  ICE_TRY(take_varint(m, &key));
  *f = (field){.number = key >> 3, .wire = (int)(key & 7)};
  switch (f->wire) {
  case WIRE_VARINT: return take_varint(m, &f->value);
  case WIRE_64: n = 8; break;
  case WIRE_32: n = 4; break;
  case WIRE_BYTES: ICE_TRY(take_varint(m, &n)); break;
  default: return broken(m);
  }
  if (f->number == 0 || n > (uint64_t)(m->end - m->p)) return broken(m);
  f->p = m->p;
  f->n = (size_t)n;
  if (f->wire == WIRE_32)
    for (int i = 3; i >= 0; i--) f->value = f->value << 8 | m->p[i];
  m->p += n;
  return ICE_OK;
}

static message inside(const message *m, const field *f) { return (message){m->file, f->p, f->p + f->n, m->e}; }
static int is(const field *f, uint64_t number, int wire) { return f->number == number && f->wire == wire; }

static int read_piece(message m, vocabulary *v) {
  field f, text = {0};
  float score = 0.0f;
  int64_t type = TOKENIZER_NORMAL;
  while (m.p < m.end) {
    ICE_TRY(take_field(&m, &f));
    if (is(&f, 1, WIRE_BYTES)) text = f;
    if (is(&f, 2, WIRE_32)) memcpy(&score, f.p, sizeof score);
    if (is(&f, 3, WIRE_VARINT)) type = f.value > 6 ? 7 : (int64_t)f.value;
  }
  return vocabulary_add(v, m.file, (const char *)text.p, text.n, score, type, m.e);
}

static int read_trainer(message m, vocabulary *v) {
  field f;
  uint64_t model = 1;
  int suffix = 0;
  while (m.p < m.end) {
    ICE_TRY(take_field(&m, &f));
    if (f.wire != WIRE_VARINT) continue;
    const int32_t id = f.value > INT32_MAX ? -1 : (int32_t)f.value; /* negative numbers are long varints */
    switch (f.number) {
    case 3: model = f.value; break;
    case 24: suffix = f.value != 0; break;
    case 35: v->byte_fallback = f.value != 0; break;
    case 40: v->unk = id; break;
    case 41: v->bos = id; break;
    case 42: v->eos = id; break;
    case 43: v->pad = id; break;
    default: break;
    }
  }
  if (model != 2)
    return ice_fail(m.e, ICE_DATA, "%s: model type %llu; only 2, BPE, is supported (spm_train --model_type=bpe)", m.file,
                    (unsigned long long)model);
  if (suffix) return ice_fail(m.e, ICE_DATA, "%s: treat_whitespace_as_suffix is not supported", m.file);
  return ICE_OK;
}

static int read_normalizer(message m, vocabulary *v) {
  field f;
  while (m.p < m.end) {
    ICE_TRY(take_field(&m, &f));
    if (is(&f, 2, WIRE_BYTES) && f.n)
      return ice_fail(m.e, ICE_DATA, "%s: normalises characters, which is not supported (spm_train --normalization_rule_name=identity)", m.file);
    if (is(&f, 3, WIRE_VARINT)) v->dummy_prefix = f.value != 0;
    if (is(&f, 4, WIRE_VARINT)) v->trim = f.value != 0;
    if (is(&f, 5, WIRE_VARINT)) v->escape = f.value != 0;
  }
  return ICE_OK;
}

int vocabulary_read_model(vocabulary *v, const uint8_t *bytes, size_t n, const char *file, ice_err *e) {
  message m = {file, bytes, bytes + n, e};
  field f;
  int trained = 0;
  *v = vocabulary_empty();
  while (m.p < m.end) {
    ICE_TRY(take_field(&m, &f));
    if (is(&f, 1, WIRE_BYTES)) ICE_TRY(read_piece(inside(&m, &f), v));
    if (is(&f, 2, WIRE_BYTES)) ICE_TRY(read_trainer(inside(&m, &f), v));
    if (is(&f, 3, WIRE_BYTES)) ICE_TRY(read_normalizer(inside(&m, &f), v));
    trained |= is(&f, 2, WIRE_BYTES);
  }
  return trained ? ICE_OK : ice_fail(e, ICE_DATA, "%s: does not say what kind of tokenizer it is (trainer_spec is missing)", file);
}

static size_t put_varint(uint8_t *out, uint64_t v) {
  size_t n = 0;
  for (; v > 127; v >>= 7) out[n++] = (uint8_t)(v | 128);
  out[n++] = (uint8_t)v;
  return n;
}
static size_t put_number(uint8_t *out, unsigned field_number, int64_t v) {
  const size_t n = put_varint(out, field_number << 3 | WIRE_VARINT);
  return n + put_varint(out + n, (uint64_t)v);
}
static void put_message(FILE *to, unsigned number, const uint8_t *p, size_t n) {
  uint8_t head[20];
  const size_t a = put_varint(head, number << 3 | WIRE_BYTES), b = put_varint(head + a, n);
  (void)fwrite(head, 1, a + b, to);
  (void)fwrite(p, 1, n, to);
}

int vocabulary_write_model(const vocabulary *v, const char *path, ice_err *e) {
  file_out out;
  uint8_t m[VOCABULARY_PIECE_MAX + 64];
  ICE_TRY(file_out_open(&out, path, e));
  for (int32_t i = 0; i < v->n; i++) {
    const vocabulary_piece *p = v->piece + i;
    const size_t length = strlen(p->text);
    size_t n = put_varint(m, 1 << 3 | WIRE_BYTES);
    n += put_varint(m + n, length);
    memcpy(m + n, p->text, length);
    n += length;
    n += put_varint(m + n, 2 << 3 | WIRE_32);
    memcpy(m + n, &p->score, sizeof p->score);
    n += sizeof p->score;
    if (p->type != TOKENIZER_NORMAL) n += put_number(m + n, 3, p->type);
    put_message(out.stream, 1, m, n);
  }
  size_t n = put_number(m, 3, 2);
  n += put_number(m + n, 35, v->byte_fallback);
  n += put_number(m + n, 40, v->unk);
  n += put_number(m + n, 41, v->bos);
  n += put_number(m + n, 42, v->eos);
  n += put_number(m + n, 43, v->pad);
  put_message(out.stream, 2, m, n);
  static const char name[] = "identity";
  n = put_varint(m, 1 << 3 | WIRE_BYTES);
  n += put_varint(m + n, sizeof name - 1);
  memcpy(m + n, name, sizeof name - 1);
  n += sizeof name - 1;
  n += put_number(m + n, 3, v->dummy_prefix);
  n += put_number(m + n, 4, v->trim);
  n += put_number(m + n, 5, v->escape);
  put_message(out.stream, 3, m, n);
  return file_out_commit(&out, e);
}

/* --- GGUF --------------------------------------------------------------------------------------------------------- */

static int read_id(const gguf_file *f, const char *key, int32_t *id, ice_err *e) {
  int64_t v = *id;
  ICE_TRY(gguf_int(f, key, 0, -1, UINT32_MAX, &v, e));
  *id = v > INT32_MAX ? -1 : (int32_t)v;
  return ICE_OK;
}
static int read_flag(const gguf_file *f, const char *key, int *flag, ice_err *e) {
  int64_t v = *flag;
  ICE_TRY(gguf_int(f, key, 0, 0, 1, &v, e));
  *flag = (int)v;
  return ICE_OK;
}

int vocabulary_read_gguf(vocabulary *v, const gguf_file *f, ice_err *e) {
  const char *file = gguf_name(f);
  char model[64] = "";
  *v = vocabulary_empty();
  v->trim = 0;
  ICE_TRY(gguf_text(f, "tokenizer.ggml.model", 1, model, sizeof model, e));
  if (strcmp(model, "llama"))
    return ice_fail(e, ICE_DATA, "%s: tokenizer.ggml.model = %s; only llama, SentencePiece BPE, is supported", file, model);
  const gguf_kv *tokens = gguf_find(f, "tokenizer.ggml.tokens"), *scores = gguf_find(f, "tokenizer.ggml.scores"),
                *types = gguf_find(f, "tokenizer.ggml.token_type"), *map = gguf_find(f, "tokenizer.ggml.precompiled_charsmap");
  if (!tokens || !tokens->array || tokens->type != GGUF_STRING)
    return ice_fail(e, ICE_DATA, "%s: tokenizer.ggml.tokens, an array of texts, is missing", file);
  if (!scores || !scores->array || scores->type != GGUF_F32 || scores->count != tokens->count)
    return ice_fail(e, ICE_DATA, "%s: tokenizer.ggml.scores must hold %llu numbers of type f32", file, (unsigned long long)tokens->count);
  if (!types || !types->array || (types->type != GGUF_I32 && types->type != GGUF_U32) || types->count != tokens->count)
    return ice_fail(e, ICE_DATA, "%s: tokenizer.ggml.token_type must hold %llu numbers of type i32", file, (unsigned long long)tokens->count);
  if (map && map->count)
    return ice_fail(e, ICE_DATA, "%s: the tokenizer normalises characters (precompiled_charsmap), which is not supported", file);
  const uint8_t *at = tokens->data;
  for (uint64_t i = 0; i < tokens->count; i++) {
    const char *text;
    size_t n;
    float score;
    int32_t type;
    gguf_next_string(&at, &text, &n);
    memcpy(&score, scores->data + 4 * i, sizeof score);
    memcpy(&type, types->data + 4 * i, sizeof type);
    ICE_TRY(vocabulary_add(v, file, text, n, score, type, e));
    v->byte_fallback |= type == TOKENIZER_BYTE;
  }
  ICE_TRY(read_id(f, "tokenizer.ggml.unknown_token_id", &v->unk, e));
  ICE_TRY(read_id(f, "tokenizer.ggml.bos_token_id", &v->bos, e));
  ICE_TRY(read_id(f, "tokenizer.ggml.eos_token_id", &v->eos, e));
  ICE_TRY(read_id(f, "tokenizer.ggml.padding_token_id", &v->pad, e));
  ICE_TRY(read_flag(f, "tokenizer.ggml.add_space_prefix", &v->dummy_prefix, e));
  return read_flag(f, "tokenizer.ggml.remove_extra_whitespaces", &v->trim, e);
}
