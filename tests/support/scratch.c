/* scratch.c - see scratch.h */
#include "tests/support/scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where) {
  (void)st, (void)kind, (void)where;
  return remove(path);
}

int scratch_setup(void **state) {
  (void)state;
  strcpy(folder, "/tmp/icebench-test-XXXXXX");
  return mkdtemp(folder) ? 0 : 1;
}
int scratch_teardown(void **state) {
  (void)state;
  return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
const char *scratch_folder(void) { return folder; }

const char *scratch_path(const char *name) {
  static char path[8][256];
  static int next;
  char *p = path[next++ % 8];
  (void)snprintf(p, sizeof path[0], "%s/%s", folder, name);
  return p;
}

const char *scratch_write(const char *name, const void *bytes, size_t n) {
  const char *path = scratch_path(name);
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) {
    perror(path);
    exit(1);
  }
  return path;
}
