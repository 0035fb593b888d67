/* imdb.c - see imdb.h */
#include "datasets/imdb.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "datasets/build.h"
#include "datasets/source.h"

enum { MOST_REVIEW_BYTES = 1 << 20 };
#define MOST_FILE_BYTES ((size_t)1 << 30)

const task_release imdb_release = {.url = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                                   .file = "lra/aclImdb_v1.tar.gz",
                                   .bytes = 84125825,
                                   .sha256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"};

void imdb_free(imdb *m) {
  free(m->review);
  free(m->memory);
  *m = (imdb){0};
}

static int add(imdb *m, int64_t *room, imdb_review r, ice_err *e) {
  if (m->count == *room) {
    const int64_t grown = 2 * *room + 1024;
    imdb_review *p = realloc(m->review, (size_t)grown * sizeof *p);
    if (!p) return ice_fail(e, ICE_INTERNAL, "out of memory for %" PRId64 " reviews", grown);
    m->review = p, *room = grown;
  }
  m->review[m->count++] = r;
  return ICE_OK;
}

/* --- the table ------------------------------------------------------------------------------------------------------ */

static int parse_rows(const uint8_t *p, const uint8_t *end, const char *name, imdb *out, ice_err *e) {
  int64_t room = 0;
  for (int line = 1; p < end; line++) {
    const uint8_t *stop = memchr(p, '\n', (size_t)(end - p));
    if (!stop) stop = end;
    if (stop - p < 2 || (*p != '0' && *p != '1') || p[1] != '\t')
      return ice_fail(e, ICE_DATA, "%s:%d: begins with '%.*s'; expected 0 or 1, a tab, and a review", name, line,
                      (int)(stop - p > 12 ? 12 : stop - p), (const char *)p);
    imdb_review r = {.p = p + 2, .n = (size_t)(stop - p) - 2, .label = *p - '0', .number = (line - 1) / 2};
    if (r.n && r.p[r.n - 1] == '\r') r.n--;
    if (!r.n) return ice_fail(e, ICE_DATA, "%s:%d: no review behind the label", name, line);
    if (r.n > MOST_REVIEW_BYTES) return ice_fail(e, ICE_DATA, "%s:%d: review of %zu bytes, at most %d are allowed", name, line, r.n, MOST_REVIEW_BYTES);
    ICE_TRY(add(out, &room, r, e));
    p = stop + (stop < end);
  }
  return out->count ? ICE_OK : ice_fail(e, ICE_DATA, "%s: holds no reviews; fetch it again", name);
}

int imdb_parse(const uint8_t *p, size_t n, const char *name, imdb *out, ice_err *e) {
  *out = (imdb){0};
  const int rc = parse_rows(p, p + n, name, out, e);
  if (rc != ICE_OK) imdb_free(out);
  return rc;
}

static int load_table(const char *path, imdb *out, ice_err *e) {
  source s;
  ICE_TRY(source_open(path, MOST_FILE_BYTES, &s, e));
  uint8_t *copy = malloc(s.n + 1);
  int rc = copy ? ICE_OK : ice_fail(e, ICE_INTERNAL, "%s: out of memory", path);
  if (rc == ICE_OK) {
    memcpy(copy, s.p, s.n);
    rc = imdb_parse(copy, s.n, path, out, e);
  }
  if (rc == ICE_OK) out->memory = copy, out->hash = s.hash;
  else free(copy);
  source_close(&s);
  return rc;
}

/* --- the folders ---------------------------------------------------------------------------------------------------- */

/* Texts come in any order and are packed one after the other; offsets, since the memory moves while it grows. */
typedef struct gathering {
  imdb *m;
  int label;
  const char *dir;
  size_t used, space;
  int64_t room;
} gathering;

static int take_file(void *ctx, const char *name, const uint8_t *p, size_t n, ice_err *e) {
  gathering *g = ctx;
  int number, rating, end = 0;
  if (strlen(name) < 4 || strcmp(name + strlen(name) - 4, ".txt")) return ICE_OK; /* not part of the set */
  const char *kind = g->label ? "pos" : "neg";
  if (sscanf(name, "%6d_%2d.txt%n", &number, &rating, &end) != 2 || !end || name[end] || number < 0)
    return ice_fail(e, ICE_DATA, "%s/%s/%s: expected a name such as 123_%d.txt", g->dir, kind, name, g->label ? 9 : 2);
  if (g->label ? rating < 7 || rating > 10 : rating < 1 || rating > 4)
    return ice_fail(e, ICE_DATA, "%s/%s/%s: rating %d, allowed %s", g->dir, kind, name, rating, g->label ? "7..10" : "1..4");
  task_strip(&p, &n);
  if (!n) return ice_fail(e, ICE_DATA, "%s/%s/%s: empty; fetch the set again", g->dir, kind, name);
  if (g->used + n > g->space) {
    const size_t grown = 2 * g->space + n + (1 << 20);
    void *q = realloc(g->m->memory, grown);
    if (!q) return ice_fail(e, ICE_INTERNAL, "%s: out of memory", g->dir);
    g->m->memory = q, g->space = grown;
  }
  memcpy((uint8_t *)g->m->memory + g->used, p, n);
  ICE_TRY(add(g->m, &g->room, (imdb_review){.p = (const uint8_t *)(uintptr_t)g->used, .n = n, .label = g->label, .number = number}, e));
  g->used += n;
  return ICE_OK;
}

static int by_number(const void *a, const void *b) {
  const imdb_review *x = a, *y = b;
  return x->number != y->number ? (x->number > y->number) - (x->number < y->number) : x->label - y->label;
}

static int load_folders(const char *dir, const char *split, imdb *out, ice_err *e) {
  char below[32];
  gathering g = {.m = out, .dir = dir};
  for (g.label = 0; g.label < 2; g.label++) {
    (void)snprintf(below, sizeof below, "%s/%s", split, g.label ? "pos" : "neg");
    ICE_TRY(source_each(dir, below, MOST_REVIEW_BYTES, take_file, &g, e));
  }
  if (!out->count) return ice_fail(e, ICE_DATA, "%s/%s: holds no reviews; fetch the set again", dir, split);
  qsort(out->review, (size_t)out->count, sizeof *out->review, by_number);
  XXH3_state_t *hash = XXH3_createState(); /* of the texts in order, whatever wrapped them */
  if (!hash) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)XXH3_64bits_reset(hash);
  for (int64_t i = 0; i < out->count; i++) {
    imdb_review *r = out->review + i;
    const uint8_t head[2] = {(uint8_t)('0' + r->label), '\t'};
    r->p = (const uint8_t *)out->memory + (uintptr_t)r->p;
    (void)XXH3_64bits_update(hash, head, 2);
    (void)XXH3_64bits_update(hash, r->p, r->n);
    (void)XXH3_64bits_update(hash, "\n", 1);
  }
  out->hash = XXH3_64bits_digest(hash);
  (void)XXH3_freeState(hash);
  out->official = 1;
  return ICE_OK;
}

int imdb_load(const char *root, int test, imdb *out, int *absent, ice_err *e) {
  static const char *const places[] = {"lra/aclImdb", "lra/aclImdb_v1", "lra/text/aclImdb", "lra/text/aclImdb_v1", "aclImdb", "aclImdb_v1", NULL};
  static const char *const folders[] = {"train/pos/", "test/pos/", NULL};
  static const char *const table_places[] = {"lra/text", NULL}, *const tables[] = {"train.tsv", "test.tsv", NULL};
  const char *split = test ? "test" : "train";
  char dir[FILE_PATH], path[FILE_PATH], name[16];
  int found, rc;
  *out = (imdb){0}, *absent = 0;
  ICE_TRY(source_locate(root, places, folders, dir, &found, e));
  if (found) {
    rc = load_folders(dir, split, out, e);
    if (rc == ICE_OK) (void)snprintf(out->origin, sizeof out->origin, "%.400s/%s", dir, split);
  } else {
    ICE_TRY(source_locate(root, table_places, tables, dir, &found, e));
    *absent = !found;
    if (!found) return ice_fail(e, ICE_DATA, "%s: holds no aclImdb", root);
    (void)snprintf(name, sizeof name, "%s.tsv", split);
    ICE_TRY(source_find(dir, name, path, &found, e));
    rc = found ? load_table(path, out, e) : ice_fail(e, ICE_DATA, "%s/%s: missing beside the other split; fetch the set again", dir, name);
    if (rc == ICE_OK) (void)snprintf(out->origin, sizeof out->origin, "%.500s", path);
  }
  if (rc != ICE_OK) imdb_free(out);
  return rc;
}
