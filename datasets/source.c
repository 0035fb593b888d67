/* source.c - see source.h */
#include "datasets/source.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

int source_find(const char *dir, const char *name, char *path) {
  if (file_join(path, dir, name, NULL)) return 0;
  if (file_is_regular(path)) return 1;
  size_t n = strlen(path);
  if (n + 4 > FILE_PATH) return 0;
  memcpy(path + n, ".gz", 4);
  return file_is_regular(path);
}

/* Inflates all members of a gzip file into memory that grows by doubling. */
static int inflate_all(source *s, size_t max, ice_err *e) {
  z_stream z = {.next_in = (z_const Bytef *)(uintptr_t)s->map.p};
  if (inflateInit2(&z, 15 + 16) != Z_OK) return ice_fail(e, ICE_INTERNAL, "%s: zlib cannot start", s->path);
  size_t left = s->map.n, have = 0, room = 0;
  int rc = ICE_OK, st = Z_OK;
  for (;;) {
    if (have == room) {
      size_t grown = room ? room * 2 : s->map.n * 4 + 4096;
      if (grown > max) grown = max + 1; /* one more than allowed, to see that it is too much */
      uint8_t *p = have > max ? NULL : realloc(s->heap, grown);
      if (have > max) rc = ice_fail(e, ICE_DATA, "%s: unpacks to more than %zu bytes", s->path, max);
      else if (!p) rc = ice_fail(e, ICE_INTERNAL, "%s: out of memory for %zu unpacked bytes", s->path, grown);
      if (rc) break;
      s->heap = p, room = grown;
    }
    uInt in = left > UINT_MAX ? UINT_MAX : (uInt)left, out = room - have > UINT_MAX ? UINT_MAX : (uInt)(room - have);
    z.avail_in = in, z.avail_out = out, z.next_out = s->heap + have;
    st = inflate(&z, Z_NO_FLUSH);
    left -= in - z.avail_in;
    have += out - z.avail_out;
    if (st == Z_STREAM_END) {
      if (!left) break;
      st = inflateReset(&z); /* the next member */
    }
    if (st != Z_OK) { /* Z_BUF_ERROR: the input ended early */
      rc = ice_fail(e, ICE_DATA, "%s: damaged gzip data (%s) after %zu unpacked bytes; fetch or make the file again", s->path,
                    z.msg ? z.msg : st == Z_BUF_ERROR ? "cut short" : zError(st), have);
      break;
    }
  }
  (void)inflateEnd(&z);
  if (!rc && have > max) rc = ice_fail(e, ICE_DATA, "%s: unpacks to more than %zu bytes", s->path, max);
  s->p = s->heap;
  s->n = have;
  return rc;
}

int source_open(const char *path, size_t max, source *s, ice_err *e) {
  *s = (source){0};
  (void)snprintf(s->path, sizeof s->path, "%s", path);
  ICE_TRY(file_open_map(path, max, &s->map, e));
  s->p = s->map.p;
  s->n = s->map.n;
  if (s->n >= 2 && s->p[0] == 0x1f && s->p[1] == 0x8b) {
    int rc = inflate_all(s, max, e);
    if (rc) {
      source_close(s);
      return rc;
    }
  }
  s->hash = XXH3_64bits(s->p, s->n);
  return ICE_OK;
}

void source_close(source *s) {
  file_close_map(&s->map);
  free(s->heap);
  s->heap = NULL;
  s->p = NULL;
}
