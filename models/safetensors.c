/* safetensors.c - see safetensors.h. The whole header is checked before any tensor is handed out: what passes st_parse
 * can be read without further thought about bounds. */
#include "models/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/fileio.h"
#include "kernels/core/half.h"

enum { HEADER_MAX = 100 << 20 }; /* as the reference implementation */
#define FILE_MAX ((size_t)1 << 46)

static const struct {
  const char *name;
  size_t bytes;
} dtype_of[] = {[ST_F32] = {"F32", 4}, [ST_F16] = {"F16", 2}, [ST_BF16] = {"BF16", 2}, [ST_F64] = {"F64", 8},
                [ST_I64] = {"I64", 8}, [ST_I32] = {"I32", 4}, [ST_I16] = {"I16", 2},   [ST_I8] = {"I8", 1},
                [ST_U8] = {"U8", 1},   [ST_BOOL] = {"BOOL", 1}};
/* Known to the format, of no use here; their bytes are still checked. */
static const struct {
  const char *name;
  size_t bytes;
} other[] = {{"U16", 2}, {"U32", 4}, {"U64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

typedef struct st_impl {
  json_t *header;
  file_map map;
  char *name; /* of the file, for messages */
} st_impl;

static size_t find_dtype(const char *text, st_dtype *out) {
  for (size_t i = 0; i < sizeof dtype_of / sizeof *dtype_of; i++)
    if (!strcmp(text, dtype_of[i].name)) {
      *out = (st_dtype)i;
      return dtype_of[i].bytes;
    }
  *out = ST_OTHER;
  for (size_t i = 0; i < sizeof other / sizeof *other; i++)
    if (!strcmp(text, other[i].name)) return other[i].bytes;
  return 0;
}

static int read_shape(const char *file, const json_t *shape, st_tensor *t, ice_err *e) {
  const size_t rank = json_array_size(shape);
  if (!json_is_array(shape) || rank > ST_MAX_RANK)
    return ice_fail(e, ICE_DATA, "%s: tensor %s: shape must be a list of at most %d sizes", file, t->name, ST_MAX_RANK);
  t->rank = (int)rank;
  t->count = 1;
  for (size_t i = 0; i < rank; i++) {
    const json_t *size = json_array_get(shape, i);
    const json_int_t v = json_integer_value(size);
    if (!json_is_integer(size) || v < 0)
      return ice_fail(e, ICE_DATA, "%s: tensor %s: size %zu of the shape is no count", file, t->name, i);
    t->shape[i] = v;
    if (__builtin_mul_overflow(t->count, (int64_t)v, &t->count))
      return ice_fail(e, ICE_DATA, "%s: tensor %s: the shape has more than 2^63 elements", file, t->name);
  }
  return ICE_OK;
}

/* One entry of the header. data, size: the bytes after the header. */
static int read_tensor(const char *file, const char *name, const json_t *entry, const uint8_t *data, size_t size,
                       st_tensor *t, ice_err *e) {
  const char *key;
  const json_t *value, *offsets = json_object_get(entry, "data_offsets");
  const char *dtype = json_string_value(json_object_get(entry, "dtype"));
  *t = (st_tensor){.name = name};
  if (!json_is_object(entry) || !dtype)
    return ice_fail(e, ICE_DATA, "%s: tensor %s: needs dtype, shape and data_offsets", file, name);
  json_object_foreach((json_t *)(uintptr_t)entry, key, value) if (strcmp(key, "dtype") && strcmp(key, "shape") &&
                                                                  strcmp(key, "data_offsets")) return ice_fail(e, ICE_DATA, "%s: tensor %s: unknown field %s", file, name, key);
  const size_t width = find_dtype(dtype, &t->dtype);
  if (!width) return ice_fail(e, ICE_DATA, "%s: tensor %s: unknown dtype %s", file, name, dtype);
  ICE_TRY(read_shape(file, json_object_get(entry, "shape"), t, e));
  const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
  const json_int_t begin = json_integer_value(first), end = json_integer_value(last);
  if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last) || begin < 0 || end < begin ||
      (uint64_t)end > size)
    return ice_fail(e, ICE_DATA, "%s: tensor %s: data_offsets must be [begin, end] within the %zu bytes of data", file,
                    name, size);
  if ((uint64_t)t->count > (uint64_t)INT64_MAX / width || (uint64_t)t->count * width != (uint64_t)(end - begin))
    return ice_fail(e, ICE_DATA, "%s: tensor %s: %lld bytes of data for %lld elements of %s", file, name,
                    (long long)(end - begin), (long long)t->count, dtype);
  t->data = data + begin;
  t->bytes = (size_t)(end - begin);
  return ICE_OK;
}

static int by_place(const void *a, const void *b) {
  const st_tensor *x = a, *y = b;
  if (x->data != y->data) return x->data < y->data ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}
static int by_name(const void *a, const void *b) { return strcmp(((const st_tensor *)a)->name, ((const st_tensor *)b)->name); }

/* Tensors must cover the data without hole or overlap. */
static int check_packing(const char *file, st_file *f, const uint8_t *data, size_t size, ice_err *e) {
  qsort(f->tensor, (size_t)f->count, sizeof *f->tensor, by_place);
  const uint8_t *at = data;
  for (int64_t i = 0; i < f->count; at += f->tensor[i++].bytes)
    if (f->tensor[i].data != at)
      return ice_fail(e, ICE_DATA, "%s: tensor %s begins at byte %td of the data, the one before ends at %td", file,
                      f->tensor[i].name, f->tensor[i].data - data, at - data);
  if ((size_t)(at - data) != size)
    return ice_fail(e, ICE_DATA, "%s: %zu bytes after the last tensor", file, size - (size_t)(at - data));
  qsort(f->tensor, (size_t)f->count, sizeof *f->tensor, by_name);
  return ICE_OK;
}

static int read_header(const char *file, const uint8_t *data, size_t size, st_file *f, ice_err *e) {
  json_t *header = ((st_impl *)f->impl)->header, *meta = json_object_get(header, "__metadata__"), *value;
  const char *key;
  if (!json_is_object(header)) return ice_fail(e, ICE_DATA, "%s: the header is no JSON object", file);
  if (meta && !json_is_object(meta)) return ice_fail(e, ICE_DATA, "%s: __metadata__ is no object", file);
  json_object_foreach(meta, key, value) if (!json_is_string(value)) return ice_fail(e, ICE_DATA, "%s: metadata %s is no text", file, key);
  f->tensor = calloc(json_object_size(header) + 1, sizeof *f->tensor);
  if (!f->tensor) return ice_fail(e, ICE_INTERNAL, "out of memory");
  json_object_foreach(header, key, value) {
    if (!strcmp(key, "__metadata__")) continue;
    ICE_TRY(read_tensor(file, key, value, data, size, &f->tensor[f->count], e));
    f->count++;
  }
  return check_packing(file, f, data, size, e);
}

int st_parse(const uint8_t *bytes, size_t n, const char *name, st_file *out, ice_err *e) {
  *out = (st_file){0};
  if (n < 8) return ice_fail(e, ICE_DATA, "%s: %zu bytes, a safetensors file has at least 8", name, n);
  uint64_t length = 0;
  for (int i = 7; i >= 0; i--) length = length << 8 | bytes[i];
  if (length > n - 8 || length > HEADER_MAX)
    return ice_fail(e, ICE_DATA, "%s: header of %llu bytes, allowed up to %zu", name, (unsigned long long)length,
                    n - 8 < HEADER_MAX ? n - 8 : (size_t)HEADER_MAX);
  st_impl *impl = calloc(1, sizeof *impl);
  if (!impl) return ice_fail(e, ICE_INTERNAL, "out of memory");
  out->impl = impl;
  json_error_t why;
  impl->header = json_loadb((const char *)bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &why);
  int rc = impl->header ? read_header(name, bytes + 8 + length, n - 8 - (size_t)length, out, e)
                        : ice_fail(e, ICE_DATA, "%s: header, byte %d: %s", name, 8 + why.position, why.text);
  if (rc != ICE_OK) st_close(out);
  else if (!(impl->name = strdup(name))) {
    st_close(out);
    rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  }
  return rc;
}

int st_open(const char *path, st_file *out, ice_err *e) {
  file_map map;
  *out = (st_file){0};
  ICE_TRY(file_open_map(path, FILE_MAX, &map, e));
  int rc = st_parse(map.p, map.n, path, out, e);
  if (rc == ICE_OK)
    ((st_impl *)out->impl)->map = map;
  else
    file_close_map(&map);
  return rc;
}

void st_close(st_file *f) {
  st_impl *impl = f->impl;
  if (impl) {
    json_decref(impl->header);
    if (impl->map.p) file_close_map(&impl->map);
    free(impl->name);
    free(impl);
  }
  free(f->tensor);
  *f = (st_file){0};
}

const st_tensor *st_find(const st_file *f, const char *name) {
  const st_tensor key = {.name = name};
  return f->count ? bsearch(&key, f->tensor, (size_t)f->count, sizeof *f->tensor, by_name) : NULL;
}

const char *st_meta(const st_file *f, const char *key) {
  const st_impl *impl = f->impl;
  return json_string_value(json_object_get(json_object_get(impl->header, "__metadata__"), key));
}

static void shape_text(char *out, size_t size, int rank, const int64_t *shape) {
  size_t n = (size_t)snprintf(out, size, "[");
  for (int i = 0; i < rank && n < size; i++)
    n += (size_t)snprintf(out + n, size - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
  if (n < size) (void)snprintf(out + n, size - n, "]");
}

int st_copy_f32(const st_file *f, const char *name, int rank, const int64_t *shape, float *out, ice_err *e) {
  const char *file = ((const st_impl *)f->impl)->name;
  const st_tensor *t = st_find(f, name);
  if (!t) return ice_fail(e, ICE_DATA, "%s: tensor %s is missing", file, name);
  if (t->rank != rank || memcmp(t->shape, shape, (size_t)rank * sizeof *shape) != 0) {
    char found[128], wanted[128];
    shape_text(found, sizeof found, t->rank, t->shape);
    shape_text(wanted, sizeof wanted, rank, shape);
    return ice_fail(e, ICE_DATA, "%s: tensor %s has shape %s, expected %s", file, name, found, wanted);
  }
  for (int64_t i = 0; i < t->count; i++) {
    uint16_t h;
    double d;
    switch (t->dtype) {
    case ST_F32: memcpy(out + i, t->data + 4 * i, 4); break;
    case ST_F16: memcpy(&h, t->data + 2 * i, 2), out[i] = attn_f32_of_f16(h); break;
    case ST_BF16: memcpy(&h, t->data + 2 * i, 2), out[i] = attn_f32_of_bf16(h); break;
    case ST_F64: memcpy(&d, t->data + 8 * i, 8), out[i] = (float)d; break;
    default: return ice_fail(e, ICE_DATA, "%s: tensor %s: dtype must be F32, F16, BF16 or F64", file, name);
    }
  }
  return ICE_OK;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

/* NULL when memory is out, a text is not UTF-8, or a name comes twice. */
static json_t *header_of(const st_out *t, int count, const char *const *meta) {
  json_t *header = json_object(), *text = json_object();
  size_t at = 0;
  int bad = 0;
  for (const char *const *m = meta; m && *m; m += 2) bad |= json_object_set_new(text, m[0], json_string(m[1]));
  bad |= json_object_set_new(header, "__metadata__", text);
  for (int i = 0; i < count; i++) {
    json_t *shape = json_array();
    const size_t bytes = (size_t)attn_elements(t[i].rank, t[i].shape) * dtype_of[t[i].dtype].bytes;
    for (int j = 0; j < t[i].rank; j++) bad |= json_array_append_new(shape, json_integer(t[i].shape[j]));
    bad |= json_object_get(header, t[i].name) != NULL;
    bad |= json_object_set_new(header, t[i].name,
                               json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_of[t[i].dtype].name, "shape", shape,
                                         "data_offsets", (json_int_t)at, (json_int_t)(at + bytes)));
    at += bytes;
  }
  if (!bad) return header;
  json_decref(header);
  return NULL;
}

static void write_bf16(FILE *f, const float *v, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const uint16_t h = attn_bf16_of_f32(v[i]);
    (void)fwrite(&h, 2, 1, f);
  }
}

static void write_data(const void *ctx, int i, FILE *to) {
  const st_out *t = (const st_out *)ctx + i;
  if (t->dtype == ST_BF16)
    write_bf16(to, t->data, attn_elements(t->rank, t->shape));
  else
    (void)fwrite(t->data, dtype_of[t->dtype].bytes, (size_t)attn_elements(t->rank, t->shape), to);
}

int st_write(const char *path, const st_out *t, int count, const char *const *meta, ice_err *e) {
  return st_write_with(path, t, count, meta, write_data, t, e);
}

int st_write_with(const char *path, const st_out *t, int count, const char *const *meta,
                  void (*write)(const void *ctx, int i, FILE *to), const void *ctx, ice_err *e) {
  json_t *header = header_of(t, count, meta);
  char *text = header ? json_dumps(header, JSON_COMPACT) : NULL;
  json_decref(header);
  if (!text) return ice_fail(e, ICE_INTERNAL, "%s: out of memory, a text that is not UTF-8, or a name given twice", path);
  const size_t n = strlen(text), padded = (n + 7) / 8 * 8;
  file_out out;
  int rc = file_out_open(&out, path, e);
  if (rc == ICE_OK) {
    for (int i = 0; i < 8; i++) (void)fputc((int)((uint64_t)padded >> (8 * i) & 255), out.stream);
    (void)fprintf(out.stream, "%-*s", (int)padded, text);
    for (int i = 0; i < count; i++) write(ctx, i, out.stream);
    rc = file_out_commit(&out, e);
  }
  free(text);
  return rc;
}
