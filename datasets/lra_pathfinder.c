/* lra_pathfinder.c - Pathfinder of the Long Range Arena: does a dashed curve join the two discs? 32 x 32 pixels, 2 classes.
 *
 * Files   pathfinder32/<level>/metadata/<k>.npy: text, a line an image: folder, file, index, label, and the generator's parameters;
 *         pathfinder32/<level>/imgs/<k>/sample_<n>.png. Levels curv_baseline (easy), curv_contour_length_9, curv_contour_length_14
 *         (hard: what the paper's table means). Empty PNG files, which the release has, are passed over and counted.
 * Ids     gray values; black is masked, as in the Nystromformer pipeline.
 * Splits  80 : 10 : 10 by a fixed permutation of the listed rows; the original shuffles without a seed.
 * Make    pathfinder_draw.c, picture i from the stream (seed, level, i), so any number of threads gives the same files.
 * Source  google-research/long-range-arena lra_benchmarks/data/pathfinder.py; mlpen/Nystromformer LRA/datasets/pathfinder.py. */
#include "datasets/lra_pathfinder.h"

#include <inttypes.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "datasets/build.h"
#include "datasets/manifest.h"
#include "datasets/source.h"

enum { BATCH = 1000, MOST_PNG = 1 << 16, MOST_LIST = 1 << 26, SEED = 0x70617468 }; /* "path" */
#define GENERATOR "icebench lra/pathfinder 1" /* counted up whenever a seed gives other pictures */

/* A level: its task, where it lies, what is drawn for it. */
typedef struct level {
  const char *name;
  const char *places[8]; /* of the folder below a root; the first is where it is made */
  pathfinder_level draw;
} level;

/* --- the list ------------------------------------------------------------------------------------------------------- */

static int parse_row(const char *p, size_t n, const char *name, int line, pathfinder_row *r, ice_err *e) {
  char folder[32], file[32], label[4], text[512];
  if (n >= sizeof text || memchr(p, '\0', n))
    return ice_fail(e, ICE_DATA, "%s:%d: a line of %zu bytes, or a zero byte in it; fetch the set again", name, line, n);
  memcpy(text, p, n);
  text[n] = '\0';
  if (sscanf(text, "%31s %31s %*s %3s", folder, file, label) != 3)
    return ice_fail(e, ICE_DATA, "%s:%d: '%.40s'; expected folder, file, index, label, ... with spaces between", name, line, text);
  if (strncmp(folder, "imgs/", 5) || !folder[5])
    return ice_fail(e, ICE_DATA, "%s:%d: folder '%s', expected imgs/<number>", name, line, folder);
  if (strcmp(label, "0") && strcmp(label, "1")) return ice_fail(e, ICE_DATA, "%s:%d: label '%s', allowed 0 and 1", name, line, label);
  r->label = label[0] - '0';
  (void)snprintf(r->name, sizeof r->name, "%s/%s", folder + 5, file);
  return ICE_OK;
}

int pathfinder_parse(const uint8_t *p, size_t n, const char *name, int file, pathfinder_list *list, ice_err *e) {
  const char *at = (const char *)p, *end = at + n;
  for (int line = 1; at < end; line++) {
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    if (!stop) stop = end;
    if (list->count == list->room) {
      const int64_t room = 2 * list->room + BATCH;
      pathfinder_row *grown = realloc(list->row, (size_t)room * sizeof *grown);
      if (!grown) return ice_fail(e, ICE_INTERNAL, "out of memory for %" PRId64 " images", room);
      list->row = grown, list->room = room;
    }
    pathfinder_row *r = list->row + list->count;
    ICE_TRY(parse_row(at, (size_t)(stop - at), name, line, r, e));
    r->file = file, r->line = line;
    list->count++;
    at = stop + (stop < end);
  }
  return ICE_OK;
}

typedef struct reading { /* of the lists, then of the pictures */
  const char *dir;
  pathfinder_list list; /* by file and line; later by name */
  const uint8_t *wanted;
  uint8_t *pixels, *state; /* [count, 1024], [count]: 1 = there, 2 = empty */
  int64_t *slot;           /* [count]: where a wanted row's pixels go */
  int64_t *by_name;        /* [count]: rows in order of their names */
} reading;

static int take_list(void *ctx, const char *name, const uint8_t *p, size_t n, ice_err *e) {
  reading *r = ctx;
  char full[FILE_PATH];
  int number, end = 0;
  if (sscanf(name, "%9d.npy%n", &number, &end) != 1 || !end || name[end]) return ICE_OK; /* something else */
  (void)snprintf(full, sizeof full, "%.3000s/metadata/%.200s", r->dir, name);
  return pathfinder_parse(p, n, full, number, &r->list, e);
}

static int by_place(const void *a, const void *b) {
  const pathfinder_row *x = a, *y = b;
  return x->file != y->file ? (x->file > y->file) - (x->file < y->file) : (x->line > y->line) - (x->line < y->line);
}
static int by_name(const void *a, const void *b, void *rows) {
  const pathfinder_row *r = rows;
  return strcmp(r[*(const int64_t *)a].name, r[*(const int64_t *)b].name);
}

/* --- the pictures --------------------------------------------------------------------------------------------------- */

int pathfinder_png(const uint8_t *p, size_t n, const char *name, uint8_t *pixels, ice_err *e) {
  png_image image = {.version = PNG_IMAGE_VERSION};
  int rc = ICE_OK;
  if (!png_image_begin_read_from_memory(&image, p, n)) rc = ice_fail(e, ICE_DATA, "%s: no PNG: %s; fetch the set again", name, image.message);
  else if (image.width != PATHFINDER_SIDE || image.height != PATHFINDER_SIDE || image.format & ~(png_uint_32)PNG_FORMAT_FLAG_COLORMAP)
    rc = ice_fail(e, ICE_DATA, "%s: %u x %u pixels of format %u; 32 x 32 of 8-bit gray is expected", name, image.width, image.height, image.format);
  if (rc == ICE_OK) {
    image.format = PNG_FORMAT_GRAY;
    if (!png_image_finish_read(&image, NULL, pixels, 0, NULL) || PNG_IMAGE_FAILED(image))
      rc = ice_fail(e, ICE_DATA, "%s: damaged PNG: %s; fetch the set again", name, image.message);
    else if (!memmem(p, n, "IEND\xae\x42\x60\x82", 8)) /* libpng does not look behind the pixels */
      rc = ice_fail(e, ICE_DATA, "%s: damaged PNG: cut short after %zu bytes; fetch the set again", name, n);
  }
  png_image_free(&image);
  return rc;
}

/* The row of an image, -1 when no list names it. */
static int64_t find_row(const reading *r, const char *name) {
  int64_t lo = 0, hi = r->list.count;
  while (lo < hi) {
    const int64_t mid = (lo + hi) / 2;
    const int c = strcmp(r->list.row[r->by_name[mid]].name, name);
    if (!c) return r->by_name[mid];
    if (c < 0) lo = mid + 1;
    else hi = mid;
  }
  return -1;
}

static int take_image(void *ctx, const char *name, const uint8_t *p, size_t n, ice_err *e) {
  reading *r = ctx;
  char full[FILE_PATH];
  const int64_t i = find_row(r, name);
  if (i < 0 || !r->wanted[i]) return ICE_OK;
  r->state[i] = n ? 1 : 2;
  if (!n) return ICE_OK;
  (void)snprintf(full, sizeof full, "%.3000s/imgs/%.200s", r->dir, name);
  return pathfinder_png(p, n, full, r->pixels + PATHFINDER_PIXELS * r->slot[i], e);
}

/* wanted [count] = 1 for the rows of a split; returns their number. */
static int64_t choose(int64_t count, task_split split, int64_t *order, uint8_t *wanted, int64_t *slot) {
  const int64_t first = count * 8 / 10, second = count * 9 / 10;
  int64_t n = 0;
  task_permute(SEED, count, order);
  for (int64_t i = 0; i < count; i++) wanted[order[i]] = (i < first ? TASK_TRAIN : i < second ? TASK_DEV : TASK_TEST) == split;
  for (int64_t i = 0; i < count; i++)
    if (wanted[i]) slot[i] = n++;
  return n;
}

static int build(const reading *r, const uint8_t *wanted, task_data *out, ice_err *e) {
  task_builder b = {.d = out};
  XXH3_state_t *hash = XXH3_createState();
  if (!hash) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)XXH3_64bits_reset(hash);
  int rc = ICE_OK;
  for (int64_t i = 0; i < r->list.count && rc == ICE_OK; i++) {
    if (!wanted[i]) continue;
    if (r->state[i] == 2) {
      out->empty++;
      continue;
    }
    const pathfinder_row *row = r->list.row + i;
    const uint8_t label = (uint8_t)row->label, *pixels = r->pixels + PATHFINDER_PIXELS * r->slot[i];
    if (!r->state[i]) rc = ice_fail(e, ICE_DATA, "%s/imgs/%s: missing, metadata/%d.npy:%d names it; fetch the set again", r->dir, row->name, row->file, row->line);
    else rc = task_build_pixels(&b, pixels, PATHFINDER_PIXELS, e);
    if (rc != ICE_OK) break;
    task_build_example(&b, label);
    (void)XXH3_64bits_update(hash, &label, 1);
    (void)XXH3_64bits_update(hash, pixels, PATHFINDER_PIXELS);
  }
  out->hash = XXH3_64bits_digest(hash);
  (void)XXH3_freeState(hash);
  return rc == ICE_OK ? task_build_finish(&b, r->dir, e) : rc;
}

static int read_pictures(reading *r, task_split split, task_data *out, ice_err *e) {
  const size_t count = (size_t)r->list.count;
  int rc = ICE_OK;
  int64_t *order = malloc(count * sizeof *order + 1);
  uint8_t *wanted = malloc(count + 1);
  r->slot = malloc(count * sizeof *r->slot + 1);
  r->by_name = malloc(count * sizeof *r->by_name + 1);
  r->state = calloc(count + 1, 1);
  if (!order || !wanted || !r->slot || !r->by_name || !r->state) rc = ice_fail(e, ICE_INTERNAL, "out of memory for %zu images", count);
  if (rc == ICE_OK) {
    const int64_t n = choose(r->list.count, split, order, wanted, r->slot);
    r->pixels = malloc((size_t)n * PATHFINDER_PIXELS + 1);
    if (!r->pixels) rc = ice_fail(e, ICE_INTERNAL, "out of memory for %" PRId64 " images", n);
    for (int64_t i = 0; i < r->list.count; i++) r->by_name[i] = i;
    qsort_r(r->by_name, count, sizeof *r->by_name, by_name, r->list.row);
    for (size_t i = 1; i < count && rc == ICE_OK; i++)
      if (!strcmp(r->list.row[r->by_name[i]].name, r->list.row[r->by_name[i - 1]].name))
        rc = ice_fail(e, ICE_DATA, "%s/metadata: names imgs/%s twice; fetch the set again", r->dir, r->list.row[r->by_name[i]].name);
    r->wanted = wanted;
  }
  if (rc == ICE_OK) rc = source_each(r->dir, "imgs", MOST_PNG, take_image, r, e);
  if (rc == ICE_OK) rc = build(r, wanted, out, e);
  free(order), free(wanted), free(r->slot), free(r->by_name), free(r->state), free(r->pixels);
  return rc;
}

/* A split of the set in dir, whatever its record says. */
static int read_split(const char *dir, task_split split, task_data *out, ice_err *e) {
  reading r = {.dir = dir};
  *out = (task_data){.inputs = 1};
  int rc = source_each(dir, "metadata", MOST_LIST, take_list, &r, e);
  if (rc == ICE_OK && !r.list.count) rc = ice_fail(e, ICE_DATA, "%s/metadata: lists no images; make or fetch the set again", dir);
  if (rc == ICE_OK) {
    qsort(r.list.row, (size_t)r.list.count, sizeof *r.list.row, by_place);
    rc = read_pictures(&r, split, out, e);
  }
  free(r.list.row);
  task_set_origin(out, dir);
  if (rc != ICE_OK) task_data_free(out);
  return rc;
}

static int find_set(const level *l, const char *root, char *dir, int *found, ice_err *e) {
  static const char *const names[] = {"metadata/", MANIFEST_FILE, NULL};
  return source_locate(root, l->places, names, dir, found, e);
}

static int load(const level *l, const char *root, task_split split, task_data *out, int *absent, ice_err *e) {
  char dir[FILE_PATH];
  json_t *made = NULL;
  int found;
  ICE_TRY(find_set(l, root, dir, &found, e));
  *absent = !found;
  if (!found) return ice_fail(e, ICE_DATA, "%s: holds no %s", root, l->places[0]);
  ICE_TRY(manifest_read(dir, l->name, &made, e));
  int rc = read_split(dir, split, out, e);
  if (rc == ICE_OK) {
    out->official = !made;
    rc = manifest_check(made, split, out, e);
    if (rc != ICE_OK) task_data_free(out);
  }
  json_decref(made);
  return rc;
}

/* --- making --------------------------------------------------------------------------------------------------------- */

static int write_png(const char *path, const uint8_t *pixels, ice_err *e) {
  png_image image = {.version = PNG_IMAGE_VERSION, .width = PATHFINDER_SIDE, .height = PATHFINDER_SIDE, .format = PNG_FORMAT_GRAY};
  const int bad = !png_image_write_to_file(&image, path, 0, pixels, 0, NULL);
  return bad ? ice_fail(e, ICE_INTERNAL, "%s: cannot be written: %s", path, image.message) : ICE_OK;
}

/* Pictures [first, first + n) into imgs/<k>, their list into metadata/<k>.npy. */
static int make_batch(const level *l, const task_make_options *o, const char *dir, int64_t k, int n, uint8_t *pixels, int *label, ice_err *e) {
  char folder[FILE_PATH], path[FILE_PATH], name[64];
  file_out list;
  const int64_t first = k * BATCH;
#pragma omp parallel for schedule(dynamic, 8)
  for (int i = 0; i < n; i++) {
    attn_rng r;
    attn_rng_seed(&r, attn_hash(o->seed, SEED, (uint64_t)l->draw.contour), (uint64_t)(first + i));
    if (!o->stop || !*o->stop) label[i] = pathfinder_draw(&l->draw, &r, pixels + i * PATHFINDER_PIXELS, NULL);
  }
  if (o->stop && *o->stop) return ice_fail(e, ICE_INTERNAL, "%s: stopped after %" PRId64 " images", dir, first);
  (void)snprintf(name, sizeof name, "imgs/%" PRId64, k);
  ICE_TRY(file_join(folder, dir, name, e));
  ICE_TRY(file_make_dirs(folder, e));
  (void)snprintf(name, sizeof name, "metadata/%" PRId64 ".npy", k);
  ICE_TRY(file_join(path, dir, name, e));
  ICE_TRY(file_out_open(&list, path, e));
  int rc = ICE_OK;
  for (int i = 0; i < n && rc == ICE_OK; i++) {
    (void)snprintf(name, sizeof name, "sample_%d.png", i);
    rc = file_join(path, folder, name, e);
    if (rc == ICE_OK) rc = write_png(path, pixels + i * PATHFINDER_PIXELS, e);
    (void)fprintf(list.stream, "imgs/%" PRId64 " %s %d %d 1.0 %d %d 2 0.5 1 1\n", k, name, i, label[i], l->draw.contour, l->draw.distractor);
  }
  if (rc == ICE_OK) return file_out_commit(&list, e);
  file_out_abort(&list);
  return rc;
}

static int make_pictures(const level *l, const task_make_options *o, const char *dir, int64_t total, ice_err *e) {
  uint8_t *pixels = malloc((size_t)BATCH * PATHFINDER_PIXELS);
  int label[BATCH] = {0}, rc = pixels ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  for (int64_t done = 0; done < total && rc == ICE_OK; done += BATCH) {
    const int n = total - done < BATCH ? (int)(total - done) : BATCH;
    rc = make_batch(l, o, dir, done / BATCH, n, pixels, label, e);
    if (o->progress) o->progress(o->ctx, done + n, total);
  }
  free(pixels);
  sync(); /* pictures are written plainly: the record must not be ahead of them */
  return rc;
}

/* Reads back what was made and completes the record. */
static int record_splits(const char *dir, json_t *made, ice_err *e) {
  for (int s = 0; s < TASK_SPLITS; s++) {
    task_data d;
    ICE_TRY(read_split(dir, (task_split)s, &d, e));
    const int rc = manifest_add(made, (task_split)s, d.count, d.hash, e);
    task_data_free(&d);
    ICE_TRY(rc);
  }
  return manifest_write(made, dir, 1, e);
}

static int make(const level *l, const task_make_options *o, ice_err *e) {
  char dir[FILE_PATH], path[FILE_PATH];
  int found, record = 0;
  const int64_t total = o->examples && o->examples < 160000 ? (o->examples * 10 + 7) / 8 : 200000;
  if (o->examples < 0) return ice_fail(e, ICE_USAGE, "%" PRId64 " examples; allowed are 0 (official sizes) and up", o->examples);
  ICE_TRY(find_set(l, o->out, dir, &found, e));
  if (found) ICE_TRY(source_find(dir, MANIFEST_FILE, path, &record, e));
  if (found && !record) return ice_fail(e, ICE_USAGE, "%s: holds files that were not generated; choose another folder with --out", dir);
  ICE_TRY(file_join(dir, o->out, l->places[0], e));
  ICE_TRY(file_make_dirs(dir, e));
  json_t *made = manifest_new(GENERATOR, o->seed);
  int rc = made ? manifest_write(made, dir, 0, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  static const char *const part[] = {"metadata", "imgs"}; /* of an earlier making */
  for (int i = 0; i < 2 && rc == ICE_OK; i++) {
    rc = file_join(path, dir, part[i], e);
    if (rc == ICE_OK) rc = file_remove_tree(path, e);
    if (rc == ICE_OK) rc = file_make_dirs(path, e);
  }
  if (rc == ICE_OK) rc = make_pictures(l, o, dir, total > 10 ? total : 10, e);
  if (rc == ICE_OK) rc = record_splits(dir, made, e);
  json_decref(made);
  return rc;
}

/* --- the three tasks ------------------------------------------------------------------------------------------------ */

#define SOURCE(folder)                                                                                                       \
  "fetch pathfinder32/" folder " of " LRA_RELEASE_URL " (a tar, 7.7 GB) into lra/pathfinder32/ below a folder of $ICEBENCH_DATA_DIR"

#define LEVEL(id, task_name, directory, how, paddles, distractor_paddles)                                                    \
  static const level level_##id = {.name = task_name,                                                                        \
                                   .places = {"lra/pathfinder32/" directory, "lra/lra_release/lra_release/pathfinder32/" directory, \
                                              "lra/lra_release/pathfinder32/" directory, "lra_release/lra_release/pathfinder32/" directory, \
                                              "lra_release/pathfinder32/" directory, "pathfinder32/" directory, NULL},       \
                                   .draw = {paddles, distractor_paddles}};                                                   \
  static int load_##id(const char *root, task_split split, task_data *out, int *absent, ice_err *e) {                        \
    return load(&level_##id, root, split, out, absent, e);                                                                   \
  }                                                                                                                          \
  static int make_##id(const task_make_options *o, ice_err *e) { return make(&level_##id, o, e); }                           \
  static const char *const inside_##id[] = {"lra_release/lra_release/pathfinder32/" directory,                               \
                                            "lra_release/pathfinder32/" directory, "pathfinder32/" directory, NULL};         \
  static const task_release release_##id = {                                                                                 \
      .url = LRA_RELEASE_URL, .file = LRA_RELEASE_FILE, .inside = inside_##id, .into = "lra/pathfinder32/" directory};       \
  const task task_##id = {.name = task_name,                                                                                 \
                          .doc = "are two discs joined by a dashed curve? 1,024 pixels, " how "; 2 classes",                 \
                          .metric = "accuracy",                                                                              \
                          .source = SOURCE(directory),                                                                       \
                          .release = &release_##id,                                                                          \
                          .vocab = 512,                                                                                      \
                          .positions = PATHFINDER_PIXELS,                                                                    \
                          .classes = 2,                                                                                      \
                          .inputs = 1,                                                                                       \
                          .official_count = {160000, 20000, 20000},                                                          \
                          .may_lack = 1000,                                                                                  \
                          .load = load_##id,                                                                                 \
                          .make = make_##id};

extern const task task_lra_pathfinder, task_lra_pathfinder_medium, task_lra_pathfinder_easy;
LEVEL(lra_pathfinder, "lra/pathfinder", "curv_contour_length_14", "curves of 14 strokes (hard, the one of the benchmark)", 14, 4)
LEVEL(lra_pathfinder_medium, "lra/pathfinder-medium", "curv_contour_length_9", "curves of 9 strokes", 9, 3)
LEVEL(lra_pathfinder_easy, "lra/pathfinder-easy", "curv_baseline", "curves of 6 strokes", 6, 2)
