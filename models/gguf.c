/* gguf.c - see gguf.h. One pass with a cursor that never leaves the file; what passes gguf_parse can be read without
 * further thought about bounds. */
#include "models/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/fileio.h"

#define FILE_MAX ((size_t)1 << 46)
enum {
  MAX_NAME = 64,          /* bytes of a tensor's name, as the format says */
  MAX_KEY = 1024,
  LEAST_KV = 8 + 4 + 1,   /* bytes that a pair takes at least */
  LEAST_TENSOR = 8 + 4 + 8 + 4 + 8,
  ALIGNMENT = 32,         /* unless the file says otherwise */
  MAX_ALIGNMENT = 1 << 20
};

typedef struct gguf_impl {
  file_map map;
  char *name;
} gguf_impl;

typedef struct cursor {
  const char *file;
  const uint8_t *p;
  size_t at, n;
  ice_err *e;
} cursor;

static const uint8_t element_bytes[] = {[GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2,
                                        [GGUF_U32] = 4, [GGUF_I32] = 4,  [GGUF_F32] = 4, [GGUF_BOOL] = 1,
                                        [GGUF_U64] = 8, [GGUF_I64] = 8,  [GGUF_F64] = 8};

static uint64_t little(const uint8_t *p, int bytes) {
  uint64_t v = 0;
  for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[i];
  return v;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* The next n bytes. */
static int take(cursor *c, uint64_t n, const uint8_t **out) {
  if (n > c->n - c->at)
    return ice_fail(c->e, ICE_DATA, "%s: byte %zu: %llu bytes are announced, the file has %zu more", c->file, c->at,
                    (unsigned long long)n, c->n - c->at);
  *out = c->p + c->at;
  c->at += (size_t)n;
  return ICE_OK;
}
static int take_int(cursor *c, int bytes, uint64_t *out) {
  const uint8_t *p = NULL;
  ICE_TRY(take(c, (uint64_t)bytes, &p));
  *out = little(p, bytes);
  return ICE_OK;
}
static int skip_string(cursor *c) {
  uint64_t n = 0;
  const uint8_t *p = NULL;
  ICE_TRY(take_int(c, 8, &n));
  return take(c, n, &p);
}
/* A name of 1..max bytes without NUL; *out is to be freed. */
static int take_name(cursor *c, const char *what, uint64_t max, const char **out) {
  uint64_t n = 0;
  const uint8_t *p = NULL;
  const size_t at = c->at;
  ICE_TRY(take_int(c, 8, &n));
  if (n < 1 || n > max)
    return ice_fail(c->e, ICE_DATA, "%s: byte %zu: %s of %llu bytes, allowed 1..%llu", c->file, at, what,
                    (unsigned long long)n, (unsigned long long)max);
  ICE_TRY(take(c, n, &p));
  if (memchr(p, 0, (size_t)n)) return ice_fail(c->e, ICE_DATA, "%s: byte %zu: %s holds a NUL", c->file, at, what);
  *out = strndup((const char *)p, (size_t)n);
  return *out ? ICE_OK : ice_fail(c->e, ICE_INTERNAL, "out of memory");
}

static int read_elements(cursor *c, gguf_kv *kv) {
  kv->data = c->p + c->at;
  if (kv->type == GGUF_STRING) {
    for (uint64_t i = 0; i < kv->count; i++) ICE_TRY(skip_string(c)); /* each takes 8 bytes, so this ends */
    return ICE_OK;
  }
  const uint64_t bytes = element_bytes[kv->type];
  const uint8_t *p = NULL;
  return take(c, kv->count > UINT64_MAX / bytes ? UINT64_MAX : kv->count * bytes, &p);
}

static int read_kv(cursor *c, gguf_kv *kv) {
  uint64_t type = 0;
  ICE_TRY(take_name(c, "key", MAX_KEY, &kv->key));
  ICE_TRY(take_int(c, 4, &type));
  kv->count = 1;
  if (type == GGUF_ARRAY) {
    kv->array = 1;
    ICE_TRY(take_int(c, 4, &type));
    ICE_TRY(take_int(c, 8, &kv->count));
  }
  if (type > GGUF_F64 || type == GGUF_ARRAY)
    return ice_fail(c->e, ICE_DATA, "%s: key %s: type %llu%s; allowed 0..12%s", c->file, kv->key,
                    (unsigned long long)type, kv->array ? " of array elements" : "", kv->array ? " but 9" : "");
  kv->type = (gguf_type)type;
  return read_elements(c, kv);
}

/* A description; *offset is relative to the data section. */
static int read_tensor(cursor *c, gguf_tensor *t, uint64_t *offset) {
  uint64_t rank = 0, type = 0, size = 0, rows = 1;
  ICE_TRY(take_name(c, "tensor name", MAX_NAME, &t->name));
  ICE_TRY(take_int(c, 4, &rank));
  if (rank < 1 || rank > GGUF_MAX_RANK)
    return ice_fail(c->e, ICE_DATA, "%s: tensor %s: %llu dimensions, allowed 1..%d", c->file, t->name,
                    (unsigned long long)rank, GGUF_MAX_RANK);
  t->rank = (int)rank;
  for (int i = t->rank - 1; i >= 0; i--) {
    ICE_TRY(take_int(c, 8, &size));
    if (size > INT64_MAX / 8) return ice_fail(c->e, ICE_DATA, "%s: tensor %s: a dimension of %llu", c->file, t->name, (unsigned long long)size);
    t->shape[i] = (int64_t)size;
    if (i < t->rank - 1 && __builtin_mul_overflow(rows, size, &rows))
      return ice_fail(c->e, ICE_DATA, "%s: tensor %s: more than 2^64 elements", c->file, t->name);
  }
  ICE_TRY(take_int(c, 4, &type));
  ICE_TRY(take_int(c, 8, offset));
  const char *known = matrix_type_name((unsigned)type);
  if (!known)
    return ice_fail(c->e, ICE_DATA, "%s: tensor %s: type %llu is not supported; allowed 0 (F32), 1 (F16), 8 (Q8_0), 30 (BF16)",
                    c->file, t->name, (unsigned long long)type);
  t->type = (matrix_type)type;
  size_t row = 0;
  if (!matrix_row_bytes((unsigned)type, t->shape[t->rank - 1], &row))
    return ice_fail(c->e, ICE_DATA, "%s: tensor %s: rows of %lld numbers in %s; a multiple of %d is needed", c->file, t->name,
                    (long long)t->shape[t->rank - 1], known, Q8_BLOCK);
  if (__builtin_mul_overflow((size_t)rows, row, &t->bytes))
    return ice_fail(c->e, ICE_DATA, "%s: tensor %s: more than 2^64 bytes", c->file, t->name);
  return ICE_OK;
}

static int by_name(const void *a, const void *b) { return strcmp(((const gguf_tensor *)a)->name, ((const gguf_tensor *)b)->name); }
static int by_place(const void *a, const void *b) {
  const gguf_tensor *x = a, *y = b;
  if (x->data != y->data) return x->data < y->data ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}
static int by_key(const void *a, const void *b) {
  return strcmp((*(const gguf_kv *const *)a)->key, (*(const gguf_kv *const *)b)->key);
}

static int check_keys(const cursor *c, const gguf_file *f) {
  const gguf_kv **order = malloc((size_t)(f->n_kv + 1) * sizeof *order);
  int rc = ICE_OK;
  if (!order) return ice_fail(c->e, ICE_INTERNAL, "out of memory");
  for (int64_t i = 0; i < f->n_kv; i++) order[i] = f->kv + i;
  qsort((void *)order, (size_t)f->n_kv, sizeof *order, by_key);
  for (int64_t i = 1; rc == ICE_OK && i < f->n_kv; i++)
    if (!strcmp(order[i - 1]->key, order[i]->key)) rc = ice_fail(c->e, ICE_DATA, "%s: key %s comes twice", c->file, order[i]->key);
  free((void *)order);
  return rc;
}

/* Tensors, whose data pointers are set, may neither overlap nor share a name. */
static int check_tensors(const cursor *c, gguf_file *f) {
  qsort(f->tensor, (size_t)f->n_tensors, sizeof *f->tensor, by_place);
  for (int64_t i = 1; i < f->n_tensors; i++)
    if (f->tensor[i - 1].data + f->tensor[i - 1].bytes > f->tensor[i].data)
      return ice_fail(c->e, ICE_DATA, "%s: tensors %s and %s overlap", c->file, f->tensor[i - 1].name, f->tensor[i].name);
  qsort(f->tensor, (size_t)f->n_tensors, sizeof *f->tensor, by_name);
  for (int64_t i = 1; i < f->n_tensors; i++)
    if (!strcmp(f->tensor[i - 1].name, f->tensor[i].name))
      return ice_fail(c->e, ICE_DATA, "%s: tensor %s comes twice", c->file, f->tensor[i].name);
  return ICE_OK;
}

/* Tensor descriptions, then their data from the next multiple of the alignment on. */
static int read_tensors(cursor *c, gguf_file *f) {
  int64_t alignment = ALIGNMENT;
  ICE_TRY(gguf_int(f, "general.alignment", 0, 8, MAX_ALIGNMENT, &alignment, c->e));
  if (alignment % 8)
    return ice_fail(c->e, ICE_DATA, "%s: general.alignment = %lld; a multiple of 8 is needed", c->file, (long long)alignment);
  uint64_t *offset = calloc((size_t)f->n_tensors + 1, sizeof *offset);
  if (!offset) return ice_fail(c->e, ICE_INTERNAL, "out of memory");
  int rc = ICE_OK;
  for (int64_t i = 0; rc == ICE_OK && i < f->n_tensors; i++) rc = read_tensor(c, f->tensor + i, offset + i);
  const size_t unit = (size_t)alignment, pad = (unit - c->at % unit) % unit;
  const size_t start = pad < c->n - c->at ? c->at + pad : c->n;
  for (int64_t i = 0; rc == ICE_OK && i < f->n_tensors; i++) {
    gguf_tensor *t = f->tensor + i;
    if (offset[i] % unit)
      rc = ice_fail(c->e, ICE_DATA, "%s: tensor %s: offset %llu is no multiple of the alignment %zu", c->file, t->name,
                    (unsigned long long)offset[i], unit);
    else if (offset[i] > c->n - start || t->bytes > c->n - start - offset[i])
      rc = ice_fail(c->e, ICE_DATA, "%s: tensor %s: %zu bytes at offset %llu, the file has %zu bytes of data", c->file,
                    t->name, t->bytes, (unsigned long long)offset[i], c->n - start);
    else
      t->data = c->p + start + offset[i];
  }
  free(offset);
  return rc == ICE_OK ? check_tensors(c, f) : rc;
}

static int read_all(cursor *c, gguf_file *f) {
  uint64_t magic = 0, version = 0, tensors = 0, pairs = 0;
  ICE_TRY(take_int(c, 4, &magic));
  if (magic != 0x46554747u) return ice_fail(c->e, ICE_DATA, "%s: is no GGUF file: it does not begin with GGUF", c->file);
  ICE_TRY(take_int(c, 4, &version));
  if (version != 2 && version != 3)
    return ice_fail(c->e, ICE_DATA, "%s: GGUF version %llu, allowed 2, 3 (little-endian)", c->file, (unsigned long long)version);
  ICE_TRY(take_int(c, 8, &tensors));
  ICE_TRY(take_int(c, 8, &pairs));
  const size_t left = c->n - c->at;
  if (tensors > left / LEAST_TENSOR || pairs > left / LEAST_KV)
    return ice_fail(c->e, ICE_DATA, "%s: %llu tensors and %llu pairs are announced, more than fit into %zu bytes", c->file,
                    (unsigned long long)tensors, (unsigned long long)pairs, left);
  f->kv = calloc((size_t)pairs + 1, sizeof *f->kv);
  f->tensor = calloc((size_t)tensors + 1, sizeof *f->tensor);
  if (!f->kv || !f->tensor) return ice_fail(c->e, ICE_INTERNAL, "%s: out of memory", c->file);
  for (uint64_t i = 0; i < pairs; i++) ICE_TRY(read_kv(c, f->kv + f->n_kv++));
  ICE_TRY(check_keys(c, f));
  f->n_tensors = (int64_t)tensors;
  return read_tensors(c, f);
}

int gguf_parse(const uint8_t *bytes, size_t n, const char *name, gguf_file *out, ice_err *e) {
  cursor c = {.file = name, .p = bytes, .n = n, .e = e};
  *out = (gguf_file){0};
  gguf_impl *impl = out->impl = calloc(1, sizeof *impl);
  if (!impl || !(impl->name = strdup(name))) {
    gguf_close(out);
    return ice_fail(e, ICE_INTERNAL, "out of memory");
  }
  const int rc = read_all(&c, out);
  if (rc != ICE_OK) gguf_close(out);
  return rc;
}

int gguf_open(const char *path, gguf_file *out, ice_err *e) {
  file_map map;
  *out = (gguf_file){0};
  ICE_TRY(file_open_map(path, FILE_MAX, &map, e));
  const int rc = gguf_parse(map.p, map.n, path, out, e);
  if (rc == ICE_OK)
    ((gguf_impl *)out->impl)->map = map;
  else
    file_close_map(&map);
  return rc;
}

void gguf_close(gguf_file *f) {
  gguf_impl *impl = f->impl;
  if (impl) {
    if (impl->map.p) file_close_map(&impl->map);
    free(impl->name);
    free(impl);
  }
  for (int64_t i = 0; i < f->n_kv; i++) free((void *)(uintptr_t)f->kv[i].key);
  for (int64_t i = 0; i < f->n_tensors; i++) free((void *)(uintptr_t)f->tensor[i].name);
  free(f->kv);
  free(f->tensor);
  *f = (gguf_file){0};
}

int gguf_is(const char *path) {
  file_map map;
  if (file_open_map(path, FILE_MAX, &map, NULL) != ICE_OK) return 0;
  const int yes = map.n >= 4 && !memcmp(map.p, "GGUF", 4);
  file_close_map(&map);
  return yes;
}

/* --- look-up ------------------------------------------------------------------------------------------------------ */

const char *gguf_name(const gguf_file *f) { return ((const gguf_impl *)f->impl)->name; }

const gguf_kv *gguf_find(const gguf_file *f, const char *key) {
  for (int64_t i = 0; i < f->n_kv; i++)
    if (!strcmp(f->kv[i].key, key)) return f->kv + i;
  return NULL;
}

const gguf_tensor *gguf_find_tensor(const gguf_file *f, const char *name) {
  const gguf_tensor key = {.name = name};
  return f->n_tensors ? bsearch(&key, f->tensor, (size_t)f->n_tensors, sizeof *f->tensor, by_name) : NULL;
}

/* *kv = the scalar of that key; NULL when it is absent and need not be there. */
static int scalar(const gguf_file *f, const char *key, int required, const gguf_kv **kv, ice_err *e) {
  *kv = gguf_find(f, key);
  if (!*kv && required) return ice_fail(e, ICE_DATA, "%s: key %s is missing", gguf_name(f), key);
  if (*kv && (*kv)->array) return ice_fail(e, ICE_DATA, "%s: key %s is an array, one value is needed", gguf_name(f), key);
  return ICE_OK;
}

int gguf_int(const gguf_file *f, const char *key, int required, int64_t min, int64_t max, int64_t *out, ice_err *e) {
  const gguf_kv *kv;
  int64_t v = 0;
  ICE_TRY(scalar(f, key, required, &kv, e));
  if (!kv) return ICE_OK;
  const uint64_t u = kv->type == GGUF_STRING ? 0 : little(kv->data, element_bytes[kv->type]);
  int fine = 1;
  switch (kv->type) {
  case GGUF_I8: v = (int8_t)u; break;
  case GGUF_I16: v = (int16_t)u; break;
  case GGUF_I32: v = (int32_t)u; break;
  case GGUF_U8:
  case GGUF_U16:
  case GGUF_U32:
  case GGUF_BOOL:
  case GGUF_I64: v = (int64_t)u; break;
  case GGUF_U64: v = u > INT64_MAX ? INT64_MAX : (int64_t)u; break;
  default: fine = 0;
  }
  if (!fine) return ice_fail(e, ICE_DATA, "%s: key %s is no whole number", gguf_name(f), key);
  if (v < min || v > max)
    return ice_fail(e, ICE_DATA, "%s: %s = %lld, allowed %lld..%lld", gguf_name(f), key, (long long)v, (long long)min,
                    (long long)max);
  *out = v;
  return ICE_OK;
}

int gguf_real(const gguf_file *f, const char *key, int required, double min, double max, double *out, ice_err *e) {
  const gguf_kv *kv;
  double v;
  float s;
  ICE_TRY(scalar(f, key, required, &kv, e));
  if (!kv) return ICE_OK;
  if (kv->type == GGUF_F32) memcpy(&s, kv->data, sizeof s), v = (double)s;
  else if (kv->type == GGUF_F64) memcpy(&v, kv->data, sizeof v);
  else return ice_fail(e, ICE_DATA, "%s: key %s is no real number", gguf_name(f), key);
  if (!(v >= min && v <= max))
    return ice_fail(e, ICE_DATA, "%s: %s = %g, allowed %g..%g", gguf_name(f), key, v, min, max);
  *out = v;
  return ICE_OK;
}

int gguf_text(const gguf_file *f, const char *key, int required, char *out, size_t size, ice_err *e) {
  const gguf_kv *kv;
  const char *text;
  size_t n;
  ICE_TRY(scalar(f, key, required, &kv, e));
  if (!kv) return ICE_OK;
  if (kv->type != GGUF_STRING) return ice_fail(e, ICE_DATA, "%s: key %s is no text", gguf_name(f), key);
  const uint8_t *at = kv->data;
  gguf_next_string(&at, &text, &n);
  if (n >= size || memchr(text, 0, n))
    return ice_fail(e, ICE_DATA, "%s: key %s: text of %zu bytes, allowed up to %zu without NUL", gguf_name(f), key, n, size - 1);
  memcpy(out, text, n);
  out[n] = '\0';
  return ICE_OK;
}

void gguf_next_string(const uint8_t **at, const char **text, size_t *n) {
  *n = (size_t)little(*at, 8);
  *text = (const char *)*at + 8;
  *at += 8 + *n;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void put_int(FILE *to, uint64_t v, int bytes) {
  for (int i = 0; i < bytes; i++) (void)fputc((int)(v >> (8 * i) & 255), to);
}
static void put_text(FILE *to, const char *text) {
  put_int(to, strlen(text), 8);
  (void)fputs(text, to);
}
static void put_kv(FILE *to, const gguf_out_kv *kv) {
  put_text(to, kv->key);
  put_int(to, kv->array ? GGUF_ARRAY : kv->type, 4);
  if (kv->array) {
    put_int(to, kv->type, 4);
    put_int(to, kv->count, 8);
  }
  if (kv->type == GGUF_STRING)
    for (uint64_t i = 0; i < kv->count; i++) put_text(to, ((const char *const *)kv->data)[i]);
  else
    (void)fwrite(kv->data, element_bytes[kv->type], (size_t)kv->count, to);
}
static size_t tensor_bytes(const gguf_out_tensor *t) {
  size_t bytes = 0;
  (void)matrix_row_bytes(t->type, t->shape[t->rank - 1], &bytes);
  for (int i = 0; i < t->rank - 1; i++) bytes *= (size_t)t->shape[i];
  return bytes;
}
static size_t aligned(size_t n) { return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }
static void put_padding(FILE *to, size_t n) {
  for (size_t i = n; i < aligned(n); i++) (void)fputc(0, to);
}

int gguf_write(const char *path, const gguf_out_kv *kv, int64_t n_kv, const gguf_out_tensor *t, int64_t n_tensors,
               ice_err *e) {
  file_out out;
  size_t offset = 0;
  ICE_TRY(file_out_open(&out, path, e));
  FILE *to = out.stream;
  (void)fputs("GGUF", to);
  put_int(to, 3, 4);
  put_int(to, (uint64_t)n_tensors, 8);
  put_int(to, (uint64_t)n_kv, 8);
  for (int64_t i = 0; i < n_kv; i++) put_kv(to, kv + i);
  for (int64_t i = 0; i < n_tensors; i++) {
    put_text(to, t[i].name);
    put_int(to, (uint64_t)t[i].rank, 4);
    for (int d = t[i].rank - 1; d >= 0; d--) put_int(to, (uint64_t)t[i].shape[d], 8);
    put_int(to, t[i].type, 4);
    put_int(to, offset, 8);
    offset += aligned(tensor_bytes(t + i));
  }
  put_padding(to, (size_t)ftell(to));
  for (int64_t i = 0; i < n_tensors; i++) {
    t[i].write(t[i].ctx, to);
    put_padding(to, tensor_bytes(t + i));
  }
  return file_out_commit(&out, e);
}
