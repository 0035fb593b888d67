/* extract.h - puts a folder of an archive on disk: whole or not at all, nothing outside of where it was told to. */
#ifndef ICE_EXTRACT_H
#define ICE_EXTRACT_H

#include <signal.h>

#include "datasets/archive.h"

typedef struct extract_options {
  const archive_limits *limits;
  void (*progress)(void *ctx, int64_t done, int64_t total); /* members; may be NULL */
  void *ctx;
  const volatile sig_atomic_t *stop; /* may be NULL */
} extract_options;

/** Unpacks the first of the folders (NULL-terminated) that the archive has, so that its members lie below target, which must
 *  not exist. Only regular files are written, at names that archive_walk has judged; they go to ".<target>.part" first, which
 *  is renamed in the end and never left behind but by a kill. ICE_DATA when the archive is damaged, has none of the folders or a
 *  member twice; ICE_INTERNAL when it cannot be written, or *stop became nonzero. */
int extract_folder(const char *archive, const char *const *folders, const char *target, const extract_options *o, ice_err *e);

#endif
