/* archive.h - what is inside .gz, .tar, .tar.gz and .zip files, read from memory as a stream; nothing goes to disk here.
 *
 * An archive comes from anywhere. Members with an absolute name, a ".." in it, or that are links or devices are passed
 * over and counted, so a name handed out is always a path that stays below where it is put. */
#ifndef ICE_ARCHIVE_H
#define ICE_ARCHIVE_H

#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#include "kernels/core/err.h"

/** Inflates all gzip members of a text in memory, piece by piece; checks every length and CRC. */
typedef struct gz_reader {
  z_stream z;
  const char *name; /* for messages, borrowed */
  const uint8_t *next;
  size_t left;
  uint64_t unpacked;
  int done;
} gz_reader;

/** 1 when the bytes begin like gzip. */
int gz_is(const uint8_t *p, size_t n);
int gz_open(gz_reader *r, const uint8_t *p, size_t n, const char *name, ice_err *e);
/** Fills out with up to size bytes; *got = 0 at the end. ICE_DATA when the data is damaged or cut short. */
int gz_read(gz_reader *r, uint8_t *out, size_t size, size_t *got, ice_err *e);
void gz_close(gz_reader *r);

enum { ARCHIVE_NEXT, ARCHIVE_READ, ARCHIVE_STOP }; /* answers of begin */

/** Who looks into an archive. Any function may fail, which ends the walk with its code. */
typedef struct archive_visitor {
  void *ctx;
  /** A regular member: *answer = ARCHIVE_READ to get its bytes, ARCHIVE_NEXT to pass it over, ARCHIVE_STOP to end.
   *  size is what the archive says, -1 when it does not. */
  int (*begin)(void *ctx, const char *name, int64_t size, int *answer, ice_err *e);
  int (*data)(void *ctx, const uint8_t *p, size_t n, ice_err *e); /* a piece of the member; called any number of times */
  int (*end)(void *ctx, ice_err *e);                              /* the member is complete; may be NULL */
} archive_visitor;

typedef struct archive_limits {
  int64_t members;        /* of all kinds */
  uint64_t unpacked;      /* bytes of the whole stream */
} archive_limits;
extern const archive_limits archive_default_limits;

/** Walks the members of the .tar, .tar.gz or .zip of n bytes at p, in the order of the archive. *ignored (may be NULL)
 *  counts members passed over for their name or kind. ICE_DATA, with name, place and the last member seen, when it is
 *  damaged or larger than the limits. */
int archive_walk(const uint8_t *p, size_t n, const char *name, const archive_limits *limits, const archive_visitor *v,
                 int64_t *ignored, ice_err *e);

#endif
