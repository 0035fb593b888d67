/* archive.c - see archive.h. libarchive takes tar and zip apart. The gzip layer is our own few lines over zlib, since
 * libarchive does not look at gzip's checksum. */
#include "datasets/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/core/fileio.h"

/* Room for Path-X with all its images, and for the 18.6 GB of the LRA release. */
const archive_limits archive_default_limits = {.members = 4000000, .unpacked = (uint64_t)64 << 30};

/* --- gzip ----------------------------------------------------------------------------------------------------------- */

int gz_is(const uint8_t *p, size_t n) { return n >= 2 && p[0] == 0x1f && p[1] == 0x8b; }

int gz_open(gz_reader *r, const uint8_t *p, size_t n, const char *name, ice_err *e) {
  *r = (gz_reader){.name = name, .next = p, .left = n};
  if (inflateInit2(&r->z, 15 + 16) != Z_OK) return ice_fail(e, ICE_INTERNAL, "%s: zlib cannot start", name);
  return ICE_OK;
}

int gz_read(gz_reader *r, uint8_t *out, size_t size, size_t *got, ice_err *e) {
  for (*got = 0; *got < size && !r->done;) {
    const uInt in = r->left > UINT_MAX ? UINT_MAX : (uInt)r->left;
    const uInt room = size - *got > UINT_MAX ? UINT_MAX : (uInt)(size - *got);
    r->z.next_in = (z_const Bytef *)(uintptr_t)r->next, r->z.avail_in = in;
    r->z.next_out = out + *got, r->z.avail_out = room;
    int st = inflate(&r->z, Z_NO_FLUSH);
    r->next += in - r->z.avail_in, r->left -= in - r->z.avail_in;
    *got += room - r->z.avail_out, r->unpacked += room - r->z.avail_out;
    if (st == Z_STREAM_END) {
      r->done = r->left == 0;
      st = r->done ? Z_OK : inflateReset(&r->z); /* the next member */
    }
    if (st != Z_OK) /* Z_BUF_ERROR: the input ended early */
      return ice_fail(e, ICE_DATA, "%s: damaged gzip data (%s) after %llu unpacked bytes; fetch or make the file again", r->name,
                      r->z.msg ? r->z.msg : st == Z_BUF_ERROR ? "cut short" : zError(st), (unsigned long long)r->unpacked);
  }
  return ICE_OK;
}

void gz_close(gz_reader *r) { (void)inflateEnd(&r->z); }

/* --- tar and zip ---------------------------------------------------------------------------------------------------- */

typedef struct walk {
  const char *name;
  const archive_limits *limits;
  gz_reader gz;
  uint8_t piece[1 << 16];
  uint64_t unpacked;
  int64_t members, ignored;
  char member[FILE_PATH]; /* the one at hand, or the last one */
  ice_err own;            /* what the gzip layer found */
} walk;

static int too_large(const walk *w, ice_err *e) {
  return ice_fail(e, ICE_DATA, "%s: unpacks to more than %llu bytes", w->name, (unsigned long long)w->limits->unpacked);
}

/* libarchive asks for the next piece of the unpacked stream. */
static la_ssize_t next_piece(struct archive *a, void *ctx, const void **out) {
  walk *w = ctx;
  size_t got;
  int rc = gz_read(&w->gz, w->piece, sizeof w->piece, &got, &w->own);
  if (rc == ICE_OK && w->gz.unpacked > w->limits->unpacked) rc = too_large(w, &w->own);
  if (rc != ICE_OK) {
    archive_set_error(a, EIO, "%s", w->own.text);
    return -1;
  }
  *out = w->piece;
  return (la_ssize_t)got;
}

static int damaged(const walk *w, struct archive *a, ice_err *e) {
  if (w->own.code) return ice_fail(e, w->own.code, "%s", w->own.text);
  const char *what = archive_error_string(a);
  return ice_fail(e, ICE_DATA, "%s: damaged archive (%s) at byte %lld, %s %s; fetch or make it again", w->name,
                  what ? what : "unreadable", (long long)archive_filter_bytes(a, -1), w->member[0] ? "near member" : "before",
                  w->member[0] ? w->member : "the first member");
}

/* The name a member may have on disk, without "./" and doubled slashes; 0 when it may have none. */
static int clean_name(const char *raw, char *out, size_t size) {
  size_t n = 0;
  if (!raw || raw[0] == '/' || strchr(raw, '\\') || (raw[0] && raw[1] == ':')) return 0;
  while (*raw) {
    const size_t part = strcspn(raw, "/");
    if (part == 2 && raw[0] == '.' && raw[1] == '.') return 0;
    if (part && !(part == 1 && raw[0] == '.')) {
      if (n + part + 2 > size) return 0;
      if (n) out[n++] = '/';
      memcpy(out + n, raw, part);
      n += part;
    }
    raw += part + (raw[part] == '/');
  }
  out[n] = '\0';
  return n > 0;
}

static int take_member(walk *w, struct archive *a, const archive_visitor *v, ice_err *e) {
  for (la_int64_t at = 0;;) {
    const void *p;
    size_t n;
    la_int64_t offset;
    const int st = archive_read_data_block(a, &p, &n, &offset);
    if (st == ARCHIVE_EOF) return v->end ? v->end(v->ctx, e) : ICE_OK;
    if (st != ARCHIVE_OK) return damaged(w, a, e); /* a warning here is a wrong checksum */
    if (offset != at) return ice_fail(e, ICE_DATA, "%s: member %s is sparse; pack it anew without holes", w->name, w->member);
    at += (la_int64_t)n;
    w->unpacked += n;
    if (w->unpacked > w->limits->unpacked) return too_large(w, e);
    if (n) ICE_TRY(v->data(v->ctx, p, n, e));
  }
}

static int walk_members(walk *w, struct archive *a, const archive_visitor *v, ice_err *e) {
  struct archive_entry *entry;
  for (;;) {
    const int st = archive_read_next_header(a, &entry);
    if (st == ARCHIVE_EOF) break;
    if (st != ARCHIVE_OK && st != ARCHIVE_WARN) return damaged(w, a, e);
    if (++w->members > w->limits->members)
      return ice_fail(e, ICE_DATA, "%s: more than %lld members", w->name, (long long)w->limits->members);
    const char *raw = archive_entry_pathname(entry);
    if (!raw) raw = archive_entry_pathname_utf8(entry);
    const mode_t kind = archive_entry_filetype(entry);
    const int link = archive_entry_hardlink(entry) != NULL || archive_entry_symlink(entry) != NULL;
    if (kind == S_IFDIR && !link) continue;
    if (link || kind != S_IFREG || !clean_name(raw, w->member, sizeof w->member)) {
      w->ignored++;
      continue;
    }
    int answer = ARCHIVE_NEXT;
    ICE_TRY(v->begin(v->ctx, w->member, archive_entry_size_is_set(entry) ? archive_entry_size(entry) : -1, &answer, e));
    if (answer == ARCHIVE_STOP) return ICE_OK;
    if (answer == ARCHIVE_READ) ICE_TRY(take_member(w, a, v, e));
  }
  for (size_t got = 1; w->gz.next && got;) { /* to the end of the stream, where its checksum is */
    ICE_TRY(gz_read(&w->gz, w->piece, sizeof w->piece, &got, e));
    if (w->gz.unpacked > w->limits->unpacked) return too_large(w, e);
  }
  return ICE_OK;
}

static int open_archive(walk *w, struct archive *a, const uint8_t *p, size_t n, ice_err *e) {
  if (archive_read_support_format_tar(a) != ARCHIVE_OK || archive_read_support_format_gnutar(a) != ARCHIVE_OK ||
      archive_read_support_format_zip(a) != ARCHIVE_OK)
    return ice_fail(e, ICE_INTERNAL, "%s: libarchive reads no tar or zip: %s", w->name, archive_error_string(a));
  if (gz_is(p, n)) {
    ICE_TRY(gz_open(&w->gz, p, n, w->name, e));
    return archive_read_open(a, w, NULL, next_piece, NULL) == ARCHIVE_OK ? ICE_OK : damaged(w, a, e);
  }
  return archive_read_open_memory(a, p, n) == ARCHIVE_OK ? ICE_OK : damaged(w, a, e);
}

int archive_walk(const uint8_t *p, size_t n, const char *name, const archive_limits *limits, const archive_visitor *v,
                 int64_t *ignored, ice_err *e) {
  walk *w = calloc(1, sizeof *w);
  struct archive *a = archive_read_new();
  int rc = w && a ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) {
    w->name = name, w->limits = limits;
    rc = open_archive(w, a, p, n, e);
  }
  if (rc == ICE_OK) rc = walk_members(w, a, v, e);
  if (ignored) *ignored = w ? w->ignored : 0;
  if (a) (void)archive_read_free(a);
  if (w && w->gz.name) gz_close(&w->gz);
  free(w);
  return rc;
}
