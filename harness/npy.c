/* npy.c - see npy.h. A file is magic "\x93NUMPY", version, header length, a Python dictionary as text, then the values.
 * The dictionary is read by a parser of exactly the form that NumPy writes: three keys, strings, True/False, a tuple. */
#include "harness/npy.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/fileio.h"
#include "kernels/core/half.h"

#define FILE_MAX ((size_t)1 << 40)

typedef struct header {
  char descr[16];
  int fortran, rank;
  int64_t shape[NPY_MAX_RANK], count;
  size_t data; /* offset of the values */
} header;

/* --- the dictionary ------------------------------------------------------------------------------------------------ */

typedef struct cursor {
  const char *p, *end, *name;
} cursor;

static void skip_blanks(cursor *c) {
  while (c->p < c->end && (*c->p == ' ' || *c->p == '\n')) c->p++;
}
static int accept(cursor *c, char wanted) {
  skip_blanks(c);
  if (c->p == c->end || *c->p != wanted) return 0;
  c->p++;
  return 1;
}
static int accept_word(cursor *c, const char *word) {
  skip_blanks(c);
  const size_t n = strlen(word);
  if ((size_t)(c->end - c->p) < n || memcmp(c->p, word, n) != 0) return 0;
  c->p += n;
  return 1;
}
static int bad_header(const cursor *c, const char *what, ice_err *e) {
  return ice_fail(e, ICE_DATA, "%s: .npy header: %s", c->name, what);
}

static int read_string(cursor *c, char *out, size_t size, ice_err *e) {
  skip_blanks(c);
  const char quote = c->p < c->end ? *c->p : 0;
  if (quote != '\'' && quote != '"') return bad_header(c, "a quoted string is expected (structured dtypes are not read)", e);
  size_t n = 0;
  for (c->p++; c->p < c->end && *c->p != quote; c->p++) {
    if (n + 1 == size) return bad_header(c, "a string is too long", e);
    if (!*c->p) return bad_header(c, "a string holds a NUL byte", e);
    out[n++] = *c->p;
  }
  out[n] = 0;
  return accept(c, quote) ? ICE_OK : bad_header(c, "a string does not end", e);
}

static int read_size(cursor *c, int64_t *out, ice_err *e) {
  skip_blanks(c);
  int64_t v = 0;
  const char *first = c->p;
  if (c->p < c->end && *c->p == '-') return bad_header(c, "shape has a negative size", e);
  for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
    if (__builtin_mul_overflow(v, (int64_t)10, &v) || __builtin_add_overflow(v, (int64_t)(*c->p - '0'), &v))
      return bad_header(c, "shape has a size beyond 2^63", e);
  if (c->p == first) return bad_header(c, "shape must be a tuple of sizes", e);
  *out = v;
  return ICE_OK;
}

static int read_shape(cursor *c, header *h, ice_err *e) {
  if (!accept(c, '(')) return bad_header(c, "shape must be a tuple of sizes", e);
  h->rank = 0, h->count = 1;
  while (!accept(c, ')')) {
    if (h->rank == NPY_MAX_RANK) return bad_header(c, "more than 8 dimensions", e);
    ICE_TRY(read_size(c, &h->shape[h->rank], e));
    if (__builtin_mul_overflow(h->count, h->shape[h->rank], &h->count)) return bad_header(c, "shape has more than 2^63 elements", e);
    h->rank++;
    if (!accept(c, ',')) return accept(c, ')') ? ICE_OK : bad_header(c, "shape does not end", e);
  }
  return ICE_OK;
}

static int read_dictionary(cursor *c, header *h, ice_err *e) {
  int seen = 0;
  if (!accept(c, '{')) return bad_header(c, "a dictionary is expected", e);
  while (!accept(c, '}')) {
    char key[32];
    ICE_TRY(read_string(c, key, sizeof key, e));
    if (!accept(c, ':')) return bad_header(c, "a colon is missing", e);
    const int bit = !strcmp(key, "descr") ? 1 : !strcmp(key, "fortran_order") ? 2 : !strcmp(key, "shape") ? 4 : 0;
    if (!bit || seen & bit) return bad_header(c, "keys must be descr, fortran_order and shape, once each", e);
    seen |= bit;
    if (bit == 1) ICE_TRY(read_string(c, h->descr, sizeof h->descr, e));
    else if (bit == 4) ICE_TRY(read_shape(c, h, e));
    else if (accept_word(c, "True")) h->fortran = 1;
    else if (!accept_word(c, "False")) return bad_header(c, "fortran_order must be True or False", e);
    if (!accept(c, ',')) {
      if (!accept(c, '}')) return bad_header(c, "a comma is missing", e);
      break;
    }
  }
  skip_blanks(c);
  if (c->p != c->end) return bad_header(c, "text after the dictionary", e);
  return seen == 7 ? ICE_OK : bad_header(c, "descr, fortran_order or shape is missing", e);
}

static int read_header(const uint8_t *b, size_t n, const char *name, header *h, ice_err *e) {
  *h = (header){0};
  if (n < 10 || memcmp(b, "\x93NUMPY", 6) != 0) return ice_fail(e, ICE_DATA, "%s: no .npy file: it does not begin with \\x93NUMPY", name);
  if (b[6] < 1 || b[6] > 3 || b[7] != 0) return ice_fail(e, ICE_DATA, "%s: .npy version %d.%d, allowed 1.0, 2.0, 3.0", name, b[6], b[7]);
  const size_t first = b[6] == 1 ? 10 : 12;
  if (n < first) return ice_fail(e, ICE_DATA, "%s: cut short in the .npy header", name);
  size_t length = (size_t)b[8] | (size_t)b[9] << 8;
  if (b[6] > 1) length |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
  if (length > n - first) return ice_fail(e, ICE_DATA, "%s: .npy header of %zu bytes in a file of %zu", name, length, n);
  cursor c = {.p = (const char *)b + first, .end = (const char *)b + first + length, .name = name};
  ICE_TRY(read_dictionary(&c, h, e));
  h->data = first + length;
  if (h->fortran && h->rank > 1) return ice_fail(e, ICE_DATA, "%s: Fortran order; save it with numpy.ascontiguousarray", name);
  return ICE_OK;
}

/* Every byte of the values is there, and no more. */
static int check_length(const header *h, size_t width, size_t n, const char *name, ice_err *e) {
  const size_t have = n - h->data;
  if ((uint64_t)h->count > SIZE_MAX / width || (size_t)h->count * width != have)
    return ice_fail(e, ICE_DATA, "%s: %zu bytes of values, shape and dtype %s need %lld x %zu", name, have, h->descr,
                    (long long)h->count, width);
  return ICE_OK;
}

/* --- values -------------------------------------------------------------------------------------------------------- */

static void convert(const uint8_t *from, char kind, size_t width, int64_t n, float *to) {
  for (int64_t i = 0; i < n; i++) {
    uint16_t h;
    double d;
    if (width == 4) memcpy(to + i, from + 4 * i, 4);
    else if (width == 8) memcpy(&d, from + 8 * i, 8), to[i] = (float)d;
    else memcpy(&h, from + 2 * i, 2), to[i] = kind == 'f' ? attn_f32_of_f16(h) : attn_f32_of_bf16(h);
  }
}

static void take_shape(npy_array *out, const header *h) {
  *out = (npy_array){.rank = h->rank, .count = h->count};
  memcpy(out->shape, h->shape, sizeof out->shape);
}

int npy_parse_f32(const uint8_t *bytes, size_t n, const char *name, npy_array *out, ice_err *e) {
  static const struct {
    const char *descr;
    size_t width;
  } known[] = {{"<f4", 4}, {"<f8", 8}, {"<f2", 2}, {"<u2", 2}};
  header h;
  size_t width = 0;
  ICE_TRY(read_header(bytes, n, name, &h, e));
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(h.descr, known[i].descr)) width = known[i].width;
  if (!width) return ice_fail(e, ICE_DATA, "%s: dtype '%s', allowed <f4, <f8, <f2, and <u2 for bfloat16 (little-endian)", name, h.descr);
  ICE_TRY(check_length(&h, width, n, name, e));
  float *f = attn_alloc(attn_mul((size_t)h.count, sizeof *f));
  if (!f) return ice_fail(e, ICE_INTERNAL, "%s: out of memory for %lld values", name, (long long)h.count);
  convert(bytes + h.data, h.descr[1], width, h.count, f);
  take_shape(out, &h);
  out->f = f;
  return ICE_OK;
}

static int parse_mask(const uint8_t *bytes, size_t n, const char *name, npy_array *out, ice_err *e) {
  header h;
  ICE_TRY(read_header(bytes, n, name, &h, e));
  if (strcmp(h.descr, "|u1") && strcmp(h.descr, "|i1") && strcmp(h.descr, "|b1"))
    return ice_fail(e, ICE_DATA, "%s: dtype '%s', a mask must be |b1, |u1 or |i1", name, h.descr);
  ICE_TRY(check_length(&h, 1, n, name, e));
  for (int64_t i = 0; i < h.count; i++)
    if (bytes[h.data + (size_t)i] > 1)
      return ice_fail(e, ICE_DATA, "%s: mask value %lld is %d, allowed 0, 1", name, (long long)i, bytes[h.data + (size_t)i]);
  uint8_t *u = attn_alloc((size_t)h.count);
  if (!u) return ice_fail(e, ICE_INTERNAL, "%s: out of memory for %lld values", name, (long long)h.count);
  memcpy(u, bytes + h.data, (size_t)h.count);
  take_shape(out, &h);
  out->u = u;
  return ICE_OK;
}

static int read_file(const char *path, int (*parse)(const uint8_t *, size_t, const char *, npy_array *, ice_err *),
                     npy_array *out, ice_err *e) {
  file_map map;
  ICE_TRY(file_open_map(path, FILE_MAX, &map, e));
  const int rc = parse(map.p, map.n, path, out, e);
  file_close_map(&map);
  return rc;
}

int npy_read_f32(const char *path, npy_array *out, ice_err *e) { return read_file(path, npy_parse_f32, out, e); }
int npy_read_mask(const char *path, npy_array *out, ice_err *e) { return read_file(path, parse_mask, out, e); }

static int write_array(const char *path, const char *descr, size_t width, int rank, const int64_t *shape, const void *v,
                       ice_err *e) {
  char text[512];
  size_t n = (size_t)snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
  int64_t count = 1;
  for (int i = 0; i < rank; i++) {
    n += (size_t)snprintf(text + n, sizeof text - n, "%lld,%s", (long long)shape[i], i + 1 < rank ? " " : "");
    count *= shape[i];
  }
  n += (size_t)snprintf(text + n, sizeof text - n, "), }");
  while ((10 + n + 1) % 64) text[n++] = ' ';
  text[n++] = '\n';
  file_out out;
  ICE_TRY(file_out_open(&out, path, e));
  const uint8_t head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)(n & 255), (uint8_t)(n >> 8)};
  (void)fwrite(head, 1, sizeof head, out.stream);
  (void)fwrite(text, 1, n, out.stream);
  (void)fwrite(v, width, (size_t)count, out.stream);
  return file_out_commit(&out, e);
}

int npy_write_f32(const char *path, int rank, const int64_t *shape, const float *v, ice_err *e) {
  return write_array(path, "<f4", 4, rank, shape, v, e);
}
int npy_write_f16(const char *path, int rank, const int64_t *shape, const float *v, ice_err *e) {
  size_t count = 1;
  for (int i = 0; i < rank; i++) count *= (size_t)shape[i];
  uint16_t *half = attn_alloc(count * sizeof *half);
  if (!half) return ice_fail(e, ICE_INTERNAL, "%s: out of memory for %zu values", path, count);
  for (size_t i = 0; i < count; i++) half[i] = attn_f16_of_f32(v[i]);
  const int rc = write_array(path, "<f2", 2, rank, shape, half, e);
  attn_free(half);
  return rc;
}
int npy_write_i32(const char *path, int rank, const int64_t *shape, const int32_t *v, ice_err *e) {
  return write_array(path, "<i4", 4, rank, shape, v, e);
}

void npy_free(npy_array *a) {
  attn_free(a->f);
  attn_free(a->u);
  *a = (npy_array){0};
}
