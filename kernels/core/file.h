/* file.h - files in and out: reading is bounded and takes regular files only, writing is all or nothing. */
#ifndef ICE_FILE_H
#define ICE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/core/err.h"

typedef struct file_map { /* a file's bytes, read-only */
  const uint8_t *bytes;
  size_t size;
} file_map;

/** Maps a regular file of at most `most` bytes; an empty one gives size 0. Anything else (folder, device, FIFO, absent,
 *  too big) fails with `code` and names the path; never blocks. */
int file_map_open(const char *path, size_t most, file_map *out, int code, ice_err *e);
void file_map_close(file_map *m);

/** A file being written beside its final place. */
typedef struct file_out {
  FILE *f;
  char path[4096], temporary[4160];
} file_out;

/** Creates the folder if need be and opens a temporary file there. ICE_INTERNAL with the system's reason. */
int file_out_open(const char *path, file_out *out, ice_err *e);
/** Flushes to disk and renames to the final path; on any error nothing is left behind and the old file stands. */
int file_out_commit(file_out *out, ice_err *e);
/** Drops what was written. Harmless after commit. */
void file_out_abort(file_out *out);

/** mkdir -p for the folder part of path. */
int file_make_folder(const char *path, ice_err *e);

#endif
