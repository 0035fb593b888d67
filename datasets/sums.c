/* sums.c - see sums.h */
#include "datasets/sums.h"

#include <errno.h>
#include <sha256.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "datasets/source.h"

enum { HEX = SHA256_DIGEST_LENGTH * 2 };

/* The line "<hex>  name" or "<hex> *name" of a list: its sum, or NULL. */
static const char *find_sum(const file_map *m, const char *name) {
  const char *p = (const char *)m->p, *end = p + m->n;
  const size_t n = strlen(name);
  while (p < end) {
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    if (!stop) stop = end;
    const char *file = p + HEX + 2;
    if (stop - p > HEX + 2 && file + (file[0] == '.' && file[1] == '/' ? 2 : 0) + n <= stop) {
      if (file[0] == '.' && file[1] == '/') file += 2;
      if ((size_t)(stop - file) == n && !memcmp(file, name, n)) return p;
    }
    p = stop + 1;
  }
  return NULL;
}

static int compare(const char *file, const char *want, const char *list, ice_err *e) {
  char have[SHA256_DIGEST_STRING_LENGTH];
  if (!SHA256File(file, have)) return ice_fail(e, ICE_DATA, "%s: cannot be read: %s", file, strerror(errno));
  if (!strncasecmp(have, want, HEX)) return ICE_OK;
  return ice_fail(e, ICE_DATA, "%s: SHA-256 %s, %s says %.*s; fetch or copy the file again", file, have, list, HEX, want);
}

int sums_check(const char *path, int *found, ice_err *e) {
  char file[FILE_PATH], folder[FILE_PATH], list[FILE_PATH];
  file_map m;
  *found = 0;
  if (!source_file(path, file)) return ICE_OK;
  (void)strcpy(folder, file);
  for (char *slash; (slash = strrchr(folder, '/')) && slash > folder;) {
    *slash = '\0';
    if (file_join(list, folder, "SHA256SUMS", NULL) || !file_is_regular(list)) continue;
    ICE_TRY(file_open_map(list, 1 << 24, &m, e));
    const char *sum = find_sum(&m, file + strlen(folder) + 1);
    const int rc = sum ? compare(file, sum, list, e) : ICE_OK;
    file_close_map(&m);
    *found = sum != NULL;
    return rc;
  }
  return ICE_OK;
}
