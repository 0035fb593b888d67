/* pack.h - archives for tests, hostile ones too. */
#ifndef TEST_PACK_H
#define TEST_PACK_H

#include <stddef.h>

typedef struct pack_member {
  const char *name;
  const void *bytes;
  size_t n;
  char kind; /* 0 or 'f': file, 'd': folder, 's': symbolic link to bytes, 'h': hard link to bytes, 'p': FIFO */
} pack_member;

/** Writes members (closed by name == NULL) into an archive; how = "zip", "tar", "tar.gz". Ends the program when it cannot. */
void pack_write(const char *path, const char *how, const pack_member *m);

#endif
