/* extract.c - see extract.h */
#include "datasets/extract.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/source.h"

typedef struct extraction {
  const char *archive, *folder; /* "" = all of it */
  const extract_options *o;
  char part[FILE_PATH];   /* the folder that is filled */
  char path[FILE_PATH];   /* of the file at hand */
  char parent[FILE_PATH]; /* the last folder made */
  FILE *f;
  int64_t done, total;
} extraction;

static int cannot_write(const extraction *x, ice_err *e) {
  return ice_fail(e, ICE_INTERNAL, "%s: cannot be written: %s", x->path, strerror(errno));
}

static int begin(void *ctx, const char *name, int64_t size, int *answer, ice_err *e) {
  extraction *x = ctx;
  const size_t n = strlen(x->folder);
  (void)size;
  *answer = ARCHIVE_NEXT;
  if (x->o->stop && *x->o->stop) return ice_fail(e, ICE_INTERNAL, "%s: stopped after %" PRId64 " files", x->archive, x->done);
  if (strncmp(name, x->folder, n) || (n && name[n] != '/')) return ICE_OK;
  ICE_TRY(file_join(x->path, x->part, name + n + (n > 0), e));
  char *slash = strrchr(x->path, '/');
  *slash = '\0';
  if (strcmp(x->parent, x->path)) ICE_TRY(file_make_dirs(x->path, e));
  (void)snprintf(x->parent, sizeof x->parent, "%s", x->path);
  *slash = '/';
  const int fd = open(x->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd < 0 && errno == EEXIST) return ice_fail(e, ICE_DATA, "%s: member %s is there twice; fetch it again", x->archive, name);
  if (fd < 0 || !(x->f = fdopen(fd, "wb"))) return cannot_write(x, e);
  *answer = ARCHIVE_READ;
  return ICE_OK;
}

static int data(void *ctx, const uint8_t *p, size_t n, ice_err *e) {
  extraction *x = ctx;
  return fwrite(p, 1, n, x->f) == n ? ICE_OK : cannot_write(x, e);
}

static int end(void *ctx, ice_err *e) {
  extraction *x = ctx;
  const int bad = fclose(x->f) != 0;
  x->f = NULL;
  if (bad) return cannot_write(x, e);
  if (x->o->progress && ++x->done % 64 == 0) x->o->progress(x->o->ctx, x->done, x->total);
  return ICE_OK;
}

static int fill(extraction *x, ice_err *e) {
  file_map map;
  const archive_visitor v = {.ctx = x, .begin = begin, .data = data, .end = end};
  ICE_TRY(file_make_dirs(x->part, e));
  ICE_TRY(file_open_map(x->archive, SIZE_MAX / 2, &map, e));
  const int rc = archive_walk(map.p, map.n, x->archive, x->o->limits, &v, NULL, e);
  if (x->f) (void)fclose(x->f);
  file_close_map(&map);
  return rc;
}

/* Everything on disk, then the name. */
static int publish(const extraction *x, const char *target, ice_err *e) {
  const int fd = open(x->part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int bad = fd < 0 || syncfs(fd) != 0 || rename(x->part, target) != 0;
  const int err = errno;
  if (fd >= 0) (void)close(fd);
  return bad ? ice_fail(e, ICE_INTERNAL, "%s: cannot be put in place: %s", target, strerror(err)) : ICE_OK;
}

int extract_folder(const char *archive, const char *const *folders, const char *target, const extract_options *o, ice_err *e) {
  char folder[FILE_PATH];
  struct stat st;
  extraction x = {.archive = archive, .folder = folder, .o = o};
  for (int i = 0; folders[i] && !x.total; i++) ICE_TRY(source_folder(archive, folders[i], folder, &x.total, e));
  if (!x.total) return ice_fail(e, ICE_DATA, "%s: has no folder %s", archive, folders[0]);
  const char *slash = strrchr(target, '/'), *base = slash ? slash + 1 : target;
  if (snprintf(x.part, sizeof x.part, "%.*s.%s.part", (int)(base - target), target, base) >= (int)sizeof x.part)
    return ice_fail(e, ICE_USAGE, "%s: the path is too long", target);
  if (lstat(target, &st) == 0) return ice_fail(e, ICE_USAGE, "%s: is there already; remove it, or choose another folder", target);
  ICE_TRY(file_remove_tree(x.part, e));
  int rc = fill(&x, e);
  if (rc == ICE_OK) rc = publish(&x, target, e);
  if (rc != ICE_OK) (void)file_remove_tree(x.part, NULL);
  return rc;
}
