/* source.h - the files of a data set below a data root, however they are wrapped.
 *
 * A file may be plain, gzipped (NAME.gz), or the only content of an archive (NAME.zip, NAME.tar, ...). Any folder of a layout,
 * or the root itself, may be an archive: lra_release.tar.gz stands for the folder lra_release. A path that leads into an
 * archive is written as if the archive were a folder, "lra_release.tar.gz/lra_release/listops-1000/basic_test.tsv", and every
 * function here takes such paths. The list of an archive's members is kept for the life of the program. */
#ifndef ICE_SOURCE_H
#define ICE_SOURCE_H

#include "kernels/core/fileio.h"

typedef struct source {
  const uint8_t *p; /* contents, unpacked */
  size_t n;
  uint64_t hash;    /* XXH3 of the contents: plain, gzipped and archived files of one content agree */
  char path[FILE_PATH]; /* the file that was found */
  file_map map;
  uint8_t *heap;
} source;

/** Finds the folder dir [FILE_PATH] that stands at one of the places (NULL-terminated, relative to root) and holds any of
 *  the names (NULL-terminated): files, or folders where a name ends in "/". Folders go before archives, places in their order.
 *  Returns ICE_OK and *found; ICE_DATA for an archive on the way that is damaged. */
int source_locate(const char *root, const char *const *places, const char *const *names, char *dir, int *found, ice_err *e);
/** Looks for a file of such a folder: dir/name, dir/name.gz, dir/name.zip, ...; *found and its path [FILE_PATH]. */
int source_find(const char *dir, const char *name, char *path, int *found, ice_err *e);
/** Reads a file by the path found; gzip is recognised by its first bytes. ICE_DATA when it cannot be read, is damaged, or
 *  unpacks to more than max bytes. */
int source_open(const char *path, size_t max, source *s, ice_err *e);
void source_close(source *s);

/** Sees one file: its name below the folder of the tour, and its bytes. A failure ends the tour. */
typedef int (*source_visit)(void *ctx, const char *name, const uint8_t *p, size_t n, ice_err *e);
/** Visits every regular file below dir/below, in any order. A file of more than max bytes is ICE_DATA; links are passed over. */
int source_each(const char *dir, const char *below, size_t max, source_visit visit, void *ctx, ice_err *e);
/** The folder [FILE_PATH] of an archive that lies at `want`, counted from the top or from a folder in it; *members below it, 0 when
 *  there is none. */
int source_folder(const char *archive, const char *want, char *folder, int64_t *members, ice_err *e);
/** The regular file behind a path: itself, or the archive that it leads into, into file [FILE_PATH]; 0 for a folder or nothing. */
int source_file(const char *path, char *file);
/** Members that were passed over for their name or kind in the archive that path leads into; 0 for plain files. */
int64_t source_ignored(const char *path);

#endif
