/* fileio.c - see fileio.h */
#include "kernels/core/fileio.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEMP_BASE = 200 }; /* bytes of a target's name in that of its temporary */

int file_join(char *out, const char *dir, const char *name, ice_err *e) {
  size_t a = strlen(dir), b = strlen(name);
  if (a + b + 2 > FILE_PATH)
    return ice_fail(e, ICE_USAGE, "path of %zu bytes (%.60s...); at most %d are allowed", a + b + 1, dir, FILE_PATH - 1);
  memcpy(out, dir, a);
  out[a] = '/';
  memcpy(out + a + 1, name, b + 1);
  return ICE_OK;
}

/* --- reading -------------------------------------------------------------------------------------------------- */

static const char *kind_of(mode_t mode) {
  return S_ISDIR(mode) ? "a folder" : S_ISFIFO(mode) ? "a FIFO" : S_ISSOCK(mode) ? "a socket" : "a device";
}

static int map_fd(int fd, const char *path, size_t max, file_map *out, ice_err *e) {
  struct stat st;
  if (fstat(fd, &st)) return ice_fail(e, ICE_DATA, "%s: cannot be examined: %s", path, strerror(errno));
  if (!S_ISREG(st.st_mode))
    return ice_fail(e, ICE_DATA, "%s: is %s; a regular file is needed", path, kind_of(st.st_mode));
  if ((uintmax_t)st.st_size > max)
    return ice_fail(e, ICE_DATA, "%s: %lld bytes; at most %zu are allowed", path, (long long)st.st_size, max);
  *out = (file_map){.p = (const uint8_t *)"", .n = (size_t)st.st_size};
  if (!out->n) return ICE_OK; /* an empty range cannot be mapped */
  void *p = mmap(NULL, out->n, PROT_READ, MAP_PRIVATE, fd, 0);
  if (p == MAP_FAILED) {
    int rc = ice_fail(e, ICE_DATA, "%s: cannot be mapped: %s", path, strerror(errno));
    *out = (file_map){0};
    return rc;
  }
  out->p = p;
  return ICE_OK;
}

int file_open_map(const char *path, size_t max, file_map *out, ice_err *e) {
  *out = (file_map){0};
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* non-blocking: a FIFO must not hang us */
  if (fd < 0) return ice_fail(e, ICE_DATA, "%s: cannot be opened: %s", path, strerror(errno));
  int rc = map_fd(fd, path, max, out, e);
  (void)close(fd);
  return rc;
}

void file_close_map(file_map *m) {
  if (m->n) (void)munmap((void *)(uintptr_t)m->p, m->n);
  *m = (file_map){0};
}

int file_is_regular(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* --- writing -------------------------------------------------------------------------------------------------- */

int file_make_dirs(const char *path, ice_err *e) {
  char part[FILE_PATH];
  size_t n = strlen(path);
  if (n == 0 || n >= sizeof part)
    return ice_fail(e, ICE_USAGE, "folder name of %zu bytes; 1..%zu are allowed", n, sizeof part - 1);
  for (size_t i = 1; i <= n; i++) {
    if (path[i] != '/' && path[i] != '\0') continue;
    memcpy(part, path, i);
    part[i] = '\0';
    struct stat st;
    if (mkdir(part, 0777) && errno != EEXIST)
      return ice_fail(e, ICE_INTERNAL, "%s: cannot be created: %s", part, strerror(errno));
    if (stat(part, &st) || !S_ISDIR(st.st_mode)) return ice_fail(e, ICE_INTERNAL, "%s: exists and is not a folder", part);
  }
  return ICE_OK;
}

int file_remove_tree(const char *path, ice_err *e) {
  char *const roots[] = {(char *)(uintptr_t)path, NULL};
  struct stat st;
  if (lstat(path, &st)) return ICE_OK;
  FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_NOSTAT, NULL);
  int bad = !fts;
  for (FTSENT *f; !bad && (f = fts_read(fts));)
    if (f->fts_info != FTS_D) bad = remove(f->fts_accpath) != 0;
  const int err = errno;
  if (fts) (void)fts_close(fts);
  return bad ? ice_fail(e, ICE_INTERNAL, "%s: cannot be removed: %s", path, strerror(err)) : ICE_OK;
}

/* The folder part of path, "." if there is none; returns its length. */
static size_t folder_of(const char *path, char *out, size_t size) {
  const char *slash = strrchr(path, '/');
  size_t n = slash ? (size_t)(slash - path) : 0;
  const char *from = n ? path : slash ? "/" : ".";
  if (!n) n = 1;
  if (n >= size) n = size - 1;
  memcpy(out, from, n);
  out[n] = '\0';
  return n;
}

/* Is `name` the temporary that file_out_open makes for `base`: "." base "." process "-" number? */
static int is_temporary(const char *name, const char *base) {
  int end = 0;
  const size_t n = strnlen(base, TEMP_BASE);
  if (name[0] != '.' || strncmp(name + 1, base, n) || name[n + 1] != '.') return 0;
  const char *rest = name + n + 2;
  return *rest >= '0' && *rest <= '9' && sscanf(rest, "%*[0-9]-%*[0-9]%n", &end) == 0 && end > 0 && !rest[end];
}

/* Removes temporaries of the same target that a killed process left. A live one's is locked until it is renamed. */
static void remove_stale(const char *folder, const char *base) {
  DIR *d = opendir(folder);
  for (struct dirent *f; d && (f = readdir(d));) {
    if (!is_temporary(f->d_name, base)) continue;
    const int fd = openat(dirfd(d), f->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) (void)unlinkat(dirfd(d), f->d_name, 0);
    (void)close(fd);
  }
  if (d) (void)closedir(d);
}

/* Creates and locks a temporary; -1 with errno. A file system without locks is no hindrance, it only keeps stale files. */
static int create_locked(const char *path) {
  const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
  struct stat st;
  if (fd < 0) return -1;
  (void)flock(fd, LOCK_EX);
  if (fstat(fd, &st) == 0 && st.st_nlink > 0) return fd;
  (void)close(fd); /* taken for stale before it was locked */
  errno = EEXIST;
  return -1;
}

int file_out_open(file_out *o, const char *path, ice_err *e) {
  *o = (file_out){0};
  struct stat st;
  if (strlen(path) + 48 > sizeof o->temp)
    return ice_fail(e, ICE_USAGE, "file name of %zu bytes; at most %zu are allowed", strlen(path), sizeof o->temp - 48);
  if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
    return ice_fail(e, ICE_USAGE, "%s: is %s; only a regular file can be replaced", path, kind_of(st.st_mode));
  const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
  if (!*base) return ice_fail(e, ICE_USAGE, "'%s' names no file", path);
  memcpy(o->path, path, strlen(path) + 1);
  size_t n = folder_of(path, o->temp, sizeof o->temp);
  remove_stale(o->temp, base);
  int fd = -1;
  for (unsigned i = 0; i < 1000 && (fd < 0 && (i == 0 || errno == EEXIST)); i++) {
    (void)snprintf(o->temp + n, sizeof o->temp - n, "/.%.*s.%ld-%u", TEMP_BASE, base, (long)getpid(), i);
    fd = create_locked(o->temp);
  }
  if (fd < 0 || !(o->stream = fdopen(fd, "wb"))) {
    int err = errno;
    if (fd >= 0) {
      (void)close(fd);
      (void)unlink(o->temp);
    }
    return ice_fail(e, ICE_INTERNAL, "%s: cannot be created: %s", path, strerror(err));
  }
  return ICE_OK;
}

int file_out_commit(file_out *o, ice_err *e) {
  FILE *f = o->stream;
  o->stream = NULL;
  errno = 0;
  int bad = ferror(f) | fflush(f), err = errno;
  if (!bad && fsync(fileno(f))) bad = 1, err = errno;
  if (!bad && rename(o->temp, o->path)) bad = 1, err = errno; /* before the lock goes */
  (void)fclose(f);                                            /* nothing is left in it to write */
  if (bad) {
    (void)unlink(o->temp);
    return ice_fail(e, ICE_INTERNAL, "%s: cannot be written: %s", o->path, err ? strerror(err) : "a write failed");
  }
  char folder[sizeof o->path];
  (void)folder_of(o->path, folder, sizeof folder);
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* makes the rename itself durable; best effort, */
  if (fd >= 0) {                                             /* since some file systems refuse it             */
    (void)fsync(fd);
    (void)close(fd);
  }
  return ICE_OK;
}

void file_out_abort(file_out *o) {
  if (!o->stream) return;
  (void)fclose(o->stream);
  (void)unlink(o->temp);
  o->stream = NULL;
}
