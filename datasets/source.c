/* source.c - see source.h */
#include "datasets/source.h"

#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "datasets/archive.h"

static const char *const archive_suffix[] = {".zip", ".tar", ".tar.gz", ".tgz", ".gz", NULL}; /* lra_release.gz is a tar */
#define MAX_ARCHIVE_BYTES ((size_t)1 << 40) /* mapped, not read */

/* --- lists of members ----------------------------------------------------------------------------------------------- */

typedef struct listing {
  char path[FILE_PATH];
  struct timespec changed;
  off_t size;
  int64_t count, ignored;
  char **name;
  struct listing *next;
} listing;

static listing *listings; /* of every archive met so far: reading one again may take minutes */

static int add_name(void *ctx, const char *name, int64_t size, int *answer, ice_err *e) {
  listing *l = ctx;
  (void)size;
  *answer = ARCHIVE_NEXT;
  if ((l->count & (l->count - 1)) == 0) { /* full at each power of two */
    char **grown = realloc(l->name, (size_t)(l->count ? 2 * l->count : 1) * sizeof *grown);
    if (!grown) return ice_fail(e, ICE_INTERNAL, "%s: out of memory for the list of members", l->path);
    l->name = grown;
  }
  if (!(l->name[l->count] = strdup(name))) return ice_fail(e, ICE_INTERNAL, "%s: out of memory for the list of members", l->path);
  l->count++;
  return ICE_OK;
}

static void free_listing(listing *l) {
  for (int64_t i = 0; i < l->count; i++) free(l->name[i]);
  free(l->name);
  free(l);
}

static int read_listing(listing *l, ice_err *e) {
  file_map map;
  const archive_visitor v = {.ctx = l, .begin = add_name};
  ICE_TRY(file_open_map(l->path, MAX_ARCHIVE_BYTES, &map, e));
  const int rc = archive_walk(map.p, map.n, l->path, &archive_default_limits, &v, &l->ignored, e);
  file_close_map(&map);
  return rc;
}

static int list_members(const char *path, const listing **out, ice_err *e) {
  struct stat st;
  if (stat(path, &st)) return ice_fail(e, ICE_DATA, "%s: cannot be examined: %s", path, strerror(errno));
  for (listing **at = &listings; *at; at = &(*at)->next) {
    listing *l = *at;
    if (strcmp(l->path, path)) continue;
    if (l->size == st.st_size && l->changed.tv_sec == st.st_mtim.tv_sec && l->changed.tv_nsec == st.st_mtim.tv_nsec) {
      *out = l;
      return ICE_OK;
    }
    *at = l->next; /* another file by now */
    free_listing(l);
    break;
  }
  listing *l = calloc(1, sizeof *l);
  if (!l) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)snprintf(l->path, sizeof l->path, "%s", path);
  l->changed = st.st_mtim, l->size = st.st_size;
  const int rc = read_listing(l, e);
  if (rc != ICE_OK) {
    free_listing(l);
    return rc;
  }
  l->next = listings;
  *out = listings = l;
  return ICE_OK;
}

static int named_as_archive(const char *path, size_t n) {
  for (int i = 0; archive_suffix[i]; i++) {
    const size_t m = strlen(archive_suffix[i]);
    if (n > m && !memcmp(path + n - m, archive_suffix[i], m)) return 1;
  }
  return 0;
}

/* Cuts a path that leads into an archive (or is one): the archive's own path, and what follows it ("" for the archive
 * itself). 0 when no part of the path followed by more, or (whole = 1) the path itself, is a file named like an archive. */
static int cut_at_archive(const char *path, int whole, char archive[FILE_PATH], const char **inside) {
  const size_t n = strlen(path);
  if (n >= FILE_PATH) return 0;
  for (size_t i = 1; i <= n; i++) {
    if ((path[i] != '/' && (path[i] || !whole)) || !named_as_archive(path, i)) continue;
    memcpy(archive, path, i);
    archive[i] = '\0';
    if (!file_is_regular(archive)) continue;
    *inside = path + i + (path[i] == '/');
    return 1;
  }
  return 0;
}

/* Does the member lie at `want`, counted from the archive's top or from a folder in it? */
static int lies_at(const char *member, const char *want) {
  const size_t m = strlen(member), w = strlen(want);
  return m >= w && !strcmp(member + m - w, want) && (m == w || member[m - w - 1] == '/');
}

/* The member of the shortest name at inside/name, or inside/name.gz: the path of it. */
static int find_member(const char *archive, const char *inside, const char *name, char *path, int *found, ice_err *e) {
  const listing *l;
  char want[FILE_PATH];
  *found = 0;
  ICE_TRY(list_members(archive, &l, e));
  for (int packed = 0; packed < 2 && !*found; packed++) {
    const char *best = NULL;
    if (snprintf(want, sizeof want, "%s%s%s%s", inside, *inside ? "/" : "", name, packed ? ".gz" : "") >= (int)sizeof want) break;
    for (int64_t i = 0; i < l->count; i++)
      if (lies_at(l->name[i], want) && (!best || strlen(l->name[i]) < strlen(best))) best = l->name[i];
    *found = best && !file_join(path, archive, best, NULL);
  }
  return ICE_OK;
}

int source_file(const char *path, char *file) {
  const char *inside;
  if (cut_at_archive(path, 1, file, &inside)) return 1;
  return file_is_regular(path) && snprintf(file, FILE_PATH, "%s", path) < FILE_PATH;
}

int64_t source_ignored(const char *path) {
  char archive[FILE_PATH];
  const char *inside;
  const listing *l;
  return cut_at_archive(path, 0, archive, &inside) && list_members(archive, &l, NULL) == ICE_OK ? l->ignored : 0;
}

/* --- finding -------------------------------------------------------------------------------------------------------- */

int source_find(const char *dir, const char *name, char *path, int *found, ice_err *e) {
  char archive[FILE_PATH];
  const char *inside;
  *found = 0;
  if (cut_at_archive(dir, 1, archive, &inside)) return find_member(archive, inside, name, path, found, e);
  if (file_join(path, dir, name, NULL)) return ICE_OK;
  *found = file_is_regular(path);
  const size_t n = strlen(path);
  if (*found || n + 8 > FILE_PATH) return ICE_OK;
  memcpy(path + n, ".gz", 4);
  *found = file_is_regular(path);
  for (int i = 0; archive_suffix[i] && !*found; i++) {
    memcpy(archive, path, n);
    (void)strcpy(archive + n, archive_suffix[i]);
    const char *slash = strrchr(name, '/');
    if (file_is_regular(archive)) ICE_TRY(find_member(archive, "", slash ? slash + 1 : name, path, found, e));
  }
  return ICE_OK;
}

/* The folder of the shortest name that lies at `want` in an archive and holds a member: [FILE_PATH], "" for the top. */
static int find_folder_inside(const listing *l, const char *want, char *folder) {
  const size_t n = strlen(want);
  size_t best = FILE_PATH;
  folder[0] = '\0';
  if (!n) return l->count > 0;
  for (int64_t i = 0; i < l->count; i++)
    for (const char *at = l->name[i]; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL) {
      const size_t end = (size_t)(at - l->name[i]) + n;
      if (strncmp(at, want, n) || at[n] != '/' || end >= best) continue;
      best = end;
      memcpy(folder, l->name[i], end);
      folder[end] = '\0';
    }
  return best < FILE_PATH;
}

int source_folder(const char *archive, const char *want, char *folder, int64_t *members, ice_err *e) {
  const listing *l;
  *members = 0;
  ICE_TRY(list_members(archive, &l, e));
  if (!find_folder_inside(l, want, folder)) return ICE_OK;
  const size_t n = strlen(folder);
  for (int64_t i = 0; i < l->count; i++) *members += !n || (!strncmp(l->name[i], folder, n) && l->name[i][n] == '/');
  return ICE_OK;
}

/* Whether a folder is there, plain or in an archive. */
static int is_folder(const char *dir, int *found, ice_err *e) {
  char archive[FILE_PATH], folder[FILE_PATH];
  const char *inside;
  struct stat st;
  const listing *l;
  if (!cut_at_archive(dir, 1, archive, &inside)) {
    *found = stat(dir, &st) == 0 && S_ISDIR(st.st_mode);
    return ICE_OK;
  }
  ICE_TRY(list_members(archive, &l, e));
  *found = find_folder_inside(l, inside, folder);
  return ICE_OK;
}

/* Whether any of the names, files or (with a slash at the end) folders, is in a folder. */
static int holds_any(const char *dir, const char *const *names, int *found, ice_err *e) {
  char path[FILE_PATH];
  *found = 0;
  for (; *names && !*found; names++) {
    const size_t n = strlen(*names);
    if ((*names)[n - 1] != '/') ICE_TRY(source_find(dir, *names, path, found, e));
    else if (snprintf(path, sizeof path, "%s/%.*s", dir, (int)n - 1, *names) < (int)sizeof path) ICE_TRY(is_folder(path, found, e));
  }
  return ICE_OK;
}

/* The place with the archive that stands for its first `part` bytes: dir = root/ + place[0, part) + suffix + the rest. */
static int behind_archive(const char *root, const char *place, size_t part, const char *suffix, char *dir) {
  char archive[FILE_PATH];
  if (snprintf(archive, sizeof archive, "%s/%.*s%s", root, (int)part, place, suffix) >= (int)sizeof archive) return 0;
  return file_is_regular(archive) && snprintf(dir, FILE_PATH, "%s%s", archive, place + part) < FILE_PATH;
}

int source_locate(const char *root, const char *const *places, const char *const *names, char *dir, int *found, ice_err *e) {
  *found = 0;
  for (int i = 0; places[i] && !*found; i++)
    if (!file_join(dir, root, places[i], NULL)) ICE_TRY(holds_any(dir, names, found, e));
  for (int i = 0; places[i] && !*found; i++)
    for (size_t part = strlen(places[i]); part > 0 && !*found; part--)
      for (int k = 0; archive_suffix[k] && !*found && (places[i][part] == '/' || !places[i][part]); k++)
        if (behind_archive(root, places[i], part, archive_suffix[k], dir)) ICE_TRY(holds_any(dir, names, found, e));
  return ICE_OK;
}

/* --- reading -------------------------------------------------------------------------------------------------------- */

/* Bytes that grow up to a limit, and the member that they are taken from. */
typedef struct pile {
  uint8_t *p;
  size_t n, room, max;
  const char *path; /* for messages */
  const char *member;
  int taken;
} pile;

static int pile_add(void *ctx, const uint8_t *p, size_t n, ice_err *e) {
  pile *b = ctx;
  if (n > b->max - b->n) return ice_fail(e, ICE_DATA, "%s: unpacks to more than %zu bytes", b->path, b->max);
  if (b->n + n > b->room || !b->p) {
    size_t grown = 2 * b->room + n + 1;
    uint8_t *q = realloc(b->p, grown);
    if (!q) return ice_fail(e, ICE_INTERNAL, "%s: out of memory for %zu unpacked bytes", b->path, grown);
    b->p = q, b->room = grown;
  }
  if (n) memcpy(b->p + b->n, p, n);
  b->n += n;
  return ICE_OK;
}

static int inflate_all(pile *b, const uint8_t *p, size_t n, ice_err *e) {
  gz_reader gz;
  uint8_t piece[1 << 14];
  size_t got;
  int rc;
  ICE_TRY(gz_open(&gz, p, n, b->path, e));
  do {
    rc = gz_read(&gz, piece, sizeof piece, &got, e);
    if (rc == ICE_OK) rc = pile_add(b, piece, got, e);
  } while (rc == ICE_OK && got);
  gz_close(&gz);
  return rc;
}

static int begin_member(void *ctx, const char *name, int64_t size, int *answer, ice_err *e) {
  pile *b = ctx;
  (void)e, (void)size;
  *answer = b->taken ? ARCHIVE_STOP : strcmp(name, b->member) ? ARCHIVE_NEXT : ARCHIVE_READ;
  b->taken |= *answer == ARCHIVE_READ;
  return ICE_OK;
}

static int read_member(const char *archive, pile *b, ice_err *e) {
  file_map map;
  const archive_visitor v = {.ctx = b, .begin = begin_member, .data = pile_add};
  ICE_TRY(file_open_map(archive, MAX_ARCHIVE_BYTES, &map, e));
  int rc = pile_add(b, NULL, 0, e); /* an empty member is no missing one */
  if (rc == ICE_OK) rc = archive_walk(map.p, map.n, archive, &archive_default_limits, &v, NULL, e);
  file_close_map(&map);
  if (rc == ICE_OK && !b->taken) rc = ice_fail(e, ICE_DATA, "%s: has no member %s", archive, b->member);
  return rc;
}

static int open_bytes(const char *path, size_t max, source *s, ice_err *e) {
  char archive[FILE_PATH];
  pile raw = {.max = max, .path = path}, flat = {.max = max, .path = path};
  if (cut_at_archive(path, 0, archive, &raw.member)) {
    const int rc = read_member(archive, &raw, e);
    s->heap = raw.p, s->p = raw.p, s->n = raw.n;
    if (rc != ICE_OK) return rc;
  } else {
    ICE_TRY(file_open_map(path, max, &s->map, e));
    s->p = s->map.p, s->n = s->map.n;
  }
  if (!gz_is(s->p, s->n)) return ICE_OK;
  const int rc = inflate_all(&flat, s->p, s->n, e);
  free(s->heap);
  s->heap = flat.p, s->p = flat.p, s->n = flat.n;
  return rc;
}

int source_open(const char *path, size_t max, source *s, ice_err *e) {
  *s = (source){0};
  (void)snprintf(s->path, sizeof s->path, "%s", path);
  const int rc = open_bytes(path, max, s, e);
  if (rc == ICE_OK) s->hash = XXH3_64bits(s->p, s->n);
  else source_close(s);
  return rc;
}

void source_close(source *s) {
  file_close_map(&s->map);
  free(s->heap);
  s->heap = NULL;
  s->p = NULL;
}

/* --- whole folders -------------------------------------------------------------------------------------------------- */

typedef struct tour {
  source_visit visit;
  void *ctx;
  const char *folder; /* below it in the archive */
  const char *name;   /* of the member at hand, counted from there */
  pile bytes;
} tour;

static int begin_visit(void *ctx, const char *name, int64_t size, int *answer, ice_err *e) {
  tour *t = ctx;
  const size_t n = strlen(t->folder);
  (void)size, (void)e;
  *answer = ARCHIVE_NEXT;
  if (strncmp(name, t->folder, n) || (n && name[n] != '/')) return ICE_OK;
  *answer = ARCHIVE_READ;
  t->name = name + n + (n > 0);
  t->bytes.n = 0;
  return pile_add(&t->bytes, NULL, 0, e);
}
static int data_visit(void *ctx, const uint8_t *p, size_t n, ice_err *e) { return pile_add(&((tour *)ctx)->bytes, p, n, e); }
static int end_visit(void *ctx, ice_err *e) {
  tour *t = ctx;
  return t->visit(t->ctx, t->name, t->bytes.p, t->bytes.n, e);
}

static int each_member(const char *archive, tour *t, ice_err *e) {
  file_map map;
  const archive_visitor v = {.ctx = t, .begin = begin_visit, .data = data_visit, .end = end_visit};
  ICE_TRY(file_open_map(archive, MAX_ARCHIVE_BYTES, &map, e));
  const int rc = archive_walk(map.p, map.n, archive, &archive_default_limits, &v, NULL, e);
  file_close_map(&map);
  free(t->bytes.p);
  return rc;
}

static int visit_file(const char *path, const char *name, size_t max, const tour *t, ice_err *e) {
  file_map map;
  ICE_TRY(file_open_map(path, max, &map, e));
  const int rc = t->visit(t->ctx, name, map.p, map.n, e);
  file_close_map(&map);
  return rc;
}

static int each_file(char *folder, size_t max, const tour *t, ice_err *e) {
  char *const roots[] = {folder, NULL};
  FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
  int rc = fts ? ICE_OK : ice_fail(e, ICE_DATA, "%s: cannot be opened: %s", folder, strerror(errno));
  const size_t n = strlen(folder) + 1;
  for (FTSENT *f; rc == ICE_OK && (f = fts_read(fts));) {
    if (f->fts_info == FTS_ERR || f->fts_info == FTS_DNR || f->fts_info == FTS_NS)
      rc = ice_fail(e, ICE_DATA, "%s: cannot be read: %s", f->fts_path, strerror(f->fts_errno));
    else if (f->fts_info == FTS_F) rc = visit_file(f->fts_path, f->fts_path + n, max, t, e);
  }
  if (fts) (void)fts_close(fts);
  return rc;
}

int source_each(const char *dir, const char *below, size_t max, source_visit visit, void *ctx, ice_err *e) {
  char full[FILE_PATH], archive[FILE_PATH], folder[FILE_PATH];
  const char *inside;
  const listing *l;
  tour t = {.visit = visit, .ctx = ctx, .folder = folder, .bytes = {.max = max, .path = full}};
  ICE_TRY(file_join(full, dir, below, e));
  if (!cut_at_archive(full, 1, archive, &inside)) return each_file(full, max, &t, e);
  ICE_TRY(list_members(archive, &l, e));
  if (!find_folder_inside(l, inside, folder)) return ice_fail(e, ICE_DATA, "%s: has no folder %s", archive, inside);
  return each_member(archive, &t, e);
}
