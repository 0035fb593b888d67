/* source.h - the bytes of one data file, plain or gzipped, below a data root. */
#ifndef ICE_SOURCE_H
#define ICE_SOURCE_H

#include "kernels/core/fileio.h"

typedef struct source {
  const uint8_t *p; /* contents, unpacked */
  size_t n;
  uint64_t hash;    /* XXH3 of the contents, so packed and plain files of one content agree */
  char path[FILE_PATH]; /* the file that was found */
  file_map map;
  uint8_t *heap;
} source;

/** Looks for dir/name, then dir/name.gz; returns 1 and the path [FILE_PATH] found, or 0. */
int source_find(const char *dir, const char *name, char *path);
/** Reads path; gzip is recognised by its first bytes. ICE_DATA when it cannot be read, is damaged, or unpacks to more
 *  than max bytes. */
int source_open(const char *path, size_t max, source *s, ice_err *e);
void source_close(source *s);

#endif
