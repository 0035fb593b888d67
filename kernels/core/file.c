/* file.c - see file.h */
#include "kernels/core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int file_map_open(const char *path, size_t most, file_map *out, int code, ice_err *e) {
  *out = (file_map){0};
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return ice_fail(e, code, "%s: %s", path, strerror(errno));
  struct stat st;
  int rc = ICE_OK;
  if (fstat(fd, &st) != 0)
    rc = ice_fail(e, code, "%s: %s", path, strerror(errno));
  else if (!S_ISREG(st.st_mode))
    rc = ice_fail(e, code, "%s: not a regular file", path);
  else if ((uintmax_t)st.st_size > most)
    rc = ice_fail(e, code, "%s: %jd bytes, at most %zu are allowed", path, (intmax_t)st.st_size, most);
  else if (st.st_size > 0) {
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
      rc = ice_fail(e, code, "%s: %s", path, strerror(errno));
    else
      *out = (file_map){.bytes = p, .size = (size_t)st.st_size};
  }
  (void)close(fd);
  return rc;
}

void file_map_close(file_map *m) {
  if (m->size) (void)munmap((void *)(uintptr_t)m->bytes, m->size);
  *m = (file_map){0};
}

int file_make_folder(const char *path, ice_err *e) {
  char part[4096];
  const size_t n = strlen(path);
  if (n >= sizeof part) return ice_fail(e, ICE_USAGE, "a path of %zu characters is too long", n);
  memcpy(part, path, n + 1);
  for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    if (mkdir(part, 0777) != 0 && errno != EEXIST) return ice_fail(e, ICE_INTERNAL, "%s: %s", part, strerror(errno));
    *slash = '/';
  }
  return ICE_OK;
}

int file_out_open(const char *path, file_out *out, ice_err *e) {
  *out = (file_out){0};
  if (strlen(path) >= sizeof out->path || !*path)
    return ice_fail(e, ICE_USAGE, "a path of %zu characters, allowed 1..%zu", strlen(path), sizeof out->path - 1);
  ICE_TRY(file_make_folder(path, e));
  memcpy(out->path, path, strlen(path) + 1);
  (void)snprintf(out->temporary, sizeof out->temporary, "%s.%ld.part", path, (long)getpid());
  out->f = fopen(out->temporary, "wb");
  if (!out->f) return ice_fail(e, ICE_INTERNAL, "%s: %s", out->temporary, strerror(errno));
  return ICE_OK;
}

/* The rename itself must reach the disk, too. */
static void sync_folder(const char *path) {
  char folder[4096];
  const char *slash = strrchr(path, '/');
  const size_t n = slash ? (size_t)(slash - path) : 0;
  memcpy(folder, n ? path : slash ? "/" : ".", n ? n : 1);
  folder[n ? n : 1] = 0;
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  (void)fsync(fd);
  (void)close(fd);
}

int file_out_commit(file_out *out, ice_err *e) {
  int bad = fflush(out->f) != 0 || ferror(out->f) || fsync(fileno(out->f)) != 0;
  int why = errno;
  if (fclose(out->f) != 0 && !bad) bad = 1, why = errno;
  out->f = NULL;
  if (!bad && rename(out->temporary, out->path) != 0) bad = 1, why = errno;
  if (bad) {
    (void)unlink(out->temporary);
    return ice_fail(e, ICE_INTERNAL, "%s: %s", out->path, strerror(why));
  }
  sync_folder(out->path);
  return ICE_OK;
}

void file_out_abort(file_out *out) {
  if (!out->f) return;
  (void)fclose(out->f);
  out->f = NULL;
  (void)unlink(out->temporary);
}
