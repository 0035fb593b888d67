/* fileio.h - files in and out: bounded mapping of regular files, and writing that leaves whole files only.
 *
 * A writer fills a temporary file in the folder of its target and renames it over the target after fsync, so that a
 * reader, a crash or a full disk never meets half a file. What a killed writer left is removed by the next one of the same
 * target. FIFOs, devices and folders are refused on both sides. */
#ifndef ICE_FILEIO_H
#define ICE_FILEIO_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/core/err.h"

#define FILE_PATH 4096 /* bytes of the buffers that hold a path */

/** out [FILE_PATH] = dir/name. ICE_USAGE when that is too long. */
int file_join(char *out, const char *dir, const char *name, ice_err *e);

typedef struct file_map {
  const uint8_t *p; /* never NULL after file_open_map, even for an empty file */
  size_t n;
} file_map;

/** Maps a regular file of at most max bytes read-only. ICE_DATA when it is missing, not a regular file, unreadable or
 *  too long. The mapping reflects later changes of the file: copy what must stay. */
int file_open_map(const char *path, size_t max, file_map *out, ice_err *e);
void file_close_map(file_map *m);
/** 1 when path names a regular file (after following links). */
int file_is_regular(const char *path);
/** Creates a folder and its missing parents (mode 0777 less umask). ICE_INTERNAL on failure; an existing folder is fine. */
int file_make_dirs(const char *path, ice_err *e);

/** Removes a file or a folder with all that is in it; links are removed, not followed. Nothing there is fine. */
int file_remove_tree(const char *path, ice_err *e);

/** A file being written. stream is buffered and may be used with fprintf, fwrite, ...; errors are found by commit. */
typedef struct file_out {
  FILE *stream;
  char path[FILE_PATH], temp[FILE_PATH];
} file_out;

/** Starts a file that will replace path. ICE_USAGE when path exists and is not a regular file, is too long, or ends in no
 *  name; ICE_INTERNAL on system errors. */
int file_out_open(file_out *o, const char *path, ice_err *e);
/** Flushes, syncs, renames, syncs the folder. On failure (ICE_INTERNAL) the old file is untouched, the temporary gone. */
int file_out_commit(file_out *o, ice_err *e);
/** Drops what was written. Does nothing after a commit, or on a zeroed struct. */
void file_out_abort(file_out *o);

#endif
