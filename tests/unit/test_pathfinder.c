/* test_pathfinder.c - Pathfinder: what is drawn means its label; sets are made, read in every wrapping, and refused when damaged. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <omp.h>
#include <png.h>

#include "datasets/lra_pathfinder.h"
#include "kernels/core/fileio.h"
#include "tests/support/pack.h"
#include "tests/support/scratch.h"

enum { SIDE = PATHFINDER_SIDE, PIXELS = PATHFINDER_PIXELS };

/* --- pictures ------------------------------------------------------------------------------------------------------- */

static double apart(const double a[2], const double b[2]) { return hypot(a[0] - b[0], a[1] - b[1]); }

/* Points of a stroke, from tail (0) to head (4). */
static void along(const pathfinder_scene *sc, int snake, int k, int step, double out[2]) {
  for (int c = 0; c < 2; c++) out[c] = sc->tail[snake][k][c] + 0.25 * step * (sc->head[snake][k][c] - sc->tail[snake][k][c]);
}

/* The rules of the task, from the strokes: gaps, turns, room between curves, and the discs. */
static void check_scene(const pathfinder_scene *sc, const pathfinder_level *level, int label) {
  assert_true(sc->snakes >= 2 && sc->snakes <= 2 + 20 / level->distractor);
  for (int i = 0; i < sc->snakes; i++) {
    assert_int_equal(sc->strokes[i], i < 2 ? level->contour : level->distractor);
    for (int k = 0; k < sc->strokes[i]; k++) {
      assert_true(fabs(apart(sc->tail[i][k], sc->head[i][k]) - 2.0) < 1e-9);
      if (!k) continue;
      const double gap = apart(sc->head[i][k - 1], sc->tail[i][k]); /* 2, and heads are rounded to pixels: up to 0.71 on both sides */
      assert_true(gap > 0.2 && gap < 2.0 + 2 * 0.7072);
      double turn = 0.0;
      for (int c = 0; c < 2; c++) turn += (sc->head[i][k][c] - sc->tail[i][k][c]) * (sc->head[i][k - 1][c] - sc->tail[i][k - 1][c]);
      assert_true(turn > -1e-9); /* at most 90 degrees */
    }
  }
  for (int i = 0; i < sc->snakes; i++) /* strokes of two curves keep 1.5 around themselves, rasterised */
    for (int j = 0; j < i; j++)
      for (int k = 0; k < sc->strokes[i]; k++)
        for (int l = 0; l < sc->strokes[j]; l++)
          for (int s = 0; s <= 4; s++)
            for (int t = 0; t <= 4; t++) {
              double a[2], b[2];
              along(sc, i, k, s, a), along(sc, j, l, t, b);
              assert_true(apart(a, b) > 1.5);
            }
  int on[2] = {0, 0};
  for (int i = 0; i < 2; i++)
    for (int d = 0; d < 2; d++)
      if (apart(sc->disc[d], d ? sc->head[i][level->contour - 1] : sc->tail[i][0]) < 1e-9) on[d] |= 1 << i;
  assert_true((on[0] == 1 || on[0] == 2) && (on[1] == 1 || on[1] == 2));
  assert_int_equal(on[0] == on[1], label);
}

static double at(const uint8_t *px, const double p[2]) { return px[(int)lround(p[0]) * SIDE + (int)lround(p[1])]; }

static void test_draw__rules_of_the_task__kept_in_every_picture(void **state) {
  (void)state;
  const pathfinder_level level[] = {{6, 2}, {9, 3}, {14, 4}};
  for (int l = 0; l < 3; l++) {
    const int count = l == 2 ? 30 : 100;
    int ones = 0;
    for (int i = 0; i < count; i++) {
      uint8_t px[PIXELS];
      pathfinder_scene sc;
      attn_rng r;
      attn_rng_seed(&r, 5, (uint64_t)i);
      const int label = pathfinder_draw(&level[l], &r, px, &sc);
      check_scene(&sc, &level[l], label);
      int black = 0;
      for (int k = 0; k < PIXELS; k++) black += px[k] == 0;
      assert_true(black > PIXELS / 3);
      for (int d = 0; d < 2; d++) assert_true(at(px, sc.disc[d]) >= 250.0);
      for (int s = 0; s < sc.snakes; s++)
        for (int k = 0; k < sc.strokes[s]; k++) {
          double middle[2];
          along(&sc, s, k, 2, middle);
          assert_true(at(px, middle) > 40.0);
        }
      ones += label;
    }
    assert_true(ones > count / 4 && ones < 3 * count / 4);
  }
}

static void test_draw__levels__differ_in_their_curves(void **state) {
  (void)state;
  const pathfinder_level easy = {6, 2}, hard = {14, 4};
  uint8_t a[PIXELS], b[PIXELS], c[PIXELS];
  attn_rng r;
  attn_rng_seed(&r, 1, 1), (void)pathfinder_draw(&easy, &r, a, NULL);
  attn_rng_seed(&r, 1, 1), (void)pathfinder_draw(&easy, &r, b, NULL);
  assert_memory_equal(a, b, PIXELS);
  attn_rng_seed(&r, 1, 1), (void)pathfinder_draw(&hard, &r, b, NULL);
  attn_rng_seed(&r, 1, 2), (void)pathfinder_draw(&easy, &r, c, NULL);
  assert_memory_not_equal(a, b, PIXELS);
  assert_memory_not_equal(a, c, PIXELS);
}

/* --- sets ----------------------------------------------------------------------------------------------------------- */

#define EASY "lra/pathfinder32/curv_baseline"

static const task *easy(void) { return task_find("lra/pathfinder-easy", NULL); }
static int make(const char *root, uint64_t seed, int64_t examples, ice_err *e) {
  const task_make_options o = {.seed = seed, .out = scratch_path(root), .examples = examples};
  return easy()->make(&o, e);
}
static void make_ok(const char *root, uint64_t seed, int64_t examples) {
  ice_err e = {0};
  if (make(root, seed, examples, &e) != ICE_OK) fail_msg("%s", e.text);
}
static int load(const char *root, task_split split, task_data *d, ice_err *e) {
  int absent;
  *d = (task_data){0};
  return easy()->load(scratch_path(root), split, d, &absent, e);
}
static void load_ok(const char *root, task_split split, task_data *d) {
  ice_err e = {0};
  if (load(root, split, d, &e) != ICE_OK) fail_msg("%s: %s", root, e.text);
}
static void refused(const char *root, task_split split, const char *word) {
  task_data d;
  ice_err e = {0};
  if (load(root, split, &d, &e) != ICE_DATA) fail_msg("%s was accepted, or another code: %s", word, e.text);
  if (!strstr(e.text, word) || strchr(e.text, '\n')) fail_msg("\"%s\" does not say \"%s\"", e.text, word);
  assert_null(d.tokens);
}
static void same(const task_data *a, const task_data *b) {
  assert_true(a->count == b->count && a->hash == b->hash);
  assert_memory_equal(a->start, b->start, (size_t)(a->count + 1) * sizeof *a->start);
  assert_memory_equal(a->tokens, b->tokens, (size_t)a->start[a->count] * sizeof *a->tokens);
  assert_memory_equal(a->label, b->label, (size_t)a->count * sizeof *a->label);
}

static void test_make__splits_and_repeats__same_bits_for_any_threads(void **state) {
  (void)state;
  task_data d[TASK_SPLITS], again, other;
  make_ok("a", 3, 40);
  const int64_t want[] = {40, 5, 5};
  for (int s = 0; s < TASK_SPLITS; s++) {
    load_ok("a", (task_split)s, &d[s]);
    assert_int_equal(d[s].count, want[s]);
    assert_true(!d[s].official && d[s].inputs == 1 && !d[s].empty);
  }
  const int threads = omp_get_max_threads();
  omp_set_num_threads(threads == 1 ? 3 : 1);
  make_ok("b", 3, 40);
  omp_set_num_threads(threads);
  load_ok("b", TASK_TRAIN, &again);
  same(&d[TASK_TRAIN], &again);
  make_ok("b", 4, 8); /* over the older, larger set: nothing of it stays */
  load_ok("b", TASK_TRAIN, &other);
  assert_int_equal(other.count, 8);
  assert_true(other.hash != again.hash);
  for (int s = 0; s < TASK_SPLITS; s++) task_data_free(&d[s]);
  task_data_free(&again), task_data_free(&other);
}

static void test_make__stopped__not_read_and_mended(void **state) {
  (void)state;
  const volatile sig_atomic_t stop = 1;
  const task_make_options o = {.seed = 1, .out = scratch_path("a"), .examples = 8, .stop = &stop};
  ice_err e = {0};
  task_data d;
  assert_int_equal(easy()->make(&o, &e), ICE_INTERNAL);
  assert_non_null(strstr(e.text, "stopped"));
  refused("a", TASK_TEST, "interrupted");
  make_ok("a", 1, 8);
  load_ok("a", TASK_TEST, &d);
  task_data_free(&d);
}

static void test_make__official_files_there__left_alone(void **state) {
  (void)state;
  ice_err e = {0};
  make_ok("a", 1, 8);
  assert_int_equal(unlink(scratch_path("a/" EASY "/generated.json")), 0);
  assert_int_equal(make("a", 2, 8, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "--out"));
}

/* --- files of the release ------------------------------------------------------------------------------------------- */

static uint8_t *slurp(const char *path, size_t *n) {
  FILE *f = fopen(scratch_path(path), "rb");
  uint8_t *p = malloc(1 << 16);
  if (!f || !p) fail_msg("%s", path);
  *n = fread(p, 1, 1 << 16, f);
  (void)fclose(f);
  return p;
}

static void test_load__archives__same_bytes_and_hash(void **state) {
  (void)state;
  task_data plain, packed;
  pack_member m[12] = {{0}};
  char name[12][256];
  make_ok("a", 1, 8);
  assert_int_equal(unlink(scratch_path("a/" EASY "/generated.json")), 0);
  for (int i = 0; i < 11; i++) {
    char path[64];
    const char *part = "metadata/0.npy";
    if (i < 10) (void)snprintf(path, sizeof path, "imgs/0/sample_%d.png", i), part = path;
    (void)snprintf(name[i], sizeof name[i], "a/" EASY "/%s", part);
    m[i].bytes = slurp(name[i], &m[i].n);
    (void)snprintf(name[i], sizeof name[i], "lra_release/lra_release/pathfinder32/curv_baseline/%s", part);
    m[i].name = name[i];
  }
  ice_err e = {0};
  assert_int_equal(file_make_dirs(scratch_path("b/lra"), &e), ICE_OK);
  pack_write(scratch_path("b/lra/lra_release.gz"), "tar.gz", m);
  for (int s = 0; s < TASK_SPLITS; s++) {
    load_ok("a", (task_split)s, &plain), load_ok("b", (task_split)s, &packed);
    assert_true(plain.official && packed.official);
    same(&plain, &packed);
    task_data_free(&plain), task_data_free(&packed);
  }
  for (int i = 0; i < 11; i++) free((void *)(uintptr_t)m[i].bytes);
}

static void test_load__empty_images__passed_over_and_counted(void **state) {
  (void)state;
  int64_t count = 0, empty = 0;
  make_ok("a", 1, 8);
  (void)scratch_write("a/" EASY "/imgs/0/sample_3.png", "", 0);
  (void)scratch_write("a/" EASY "/imgs/0/sample_7.png", "", 0);
  assert_int_equal(unlink(scratch_path("a/" EASY "/generated.json")), 0);
  for (int s = 0; s < TASK_SPLITS; s++) {
    task_data d;
    ice_err e = {0};
    if (load("a", (task_split)s, &d, &e) != ICE_OK) continue; /* a split of one image, and that is empty */
    count += d.count, empty += d.empty;
    task_data_free(&d);
  }
  assert_true(count == 8 && empty >= 1 && empty <= 2);
}

static void put_png(const char *path, png_uint_32 w, png_uint_32 h, png_uint_32 format) {
  static uint8_t pixels[64 * 64 * 4];
  png_image image = {.version = PNG_IMAGE_VERSION, .width = w, .height = h, .format = format};
  assert_true(png_image_write_to_file(&image, scratch_path(path), 0, pixels, 0, NULL));
}

/* The first row of the train split's images, which is found by trying. */
static void test_load__damage__names_file_and_reason(void **state) {
  (void)state;
  const char *const image = "a/" EASY "/imgs/0/sample_0.png";
  size_t n;
  int where = -1;
  make_ok("a", 1, 8);
  uint8_t *good = slurp(image, &n);
  (void)scratch_write(image, "no picture", 10);
  for (int s = 0; s < TASK_SPLITS && where < 0; s++) {
    task_data d;
    ice_err e = {0};
    if (load("a", (task_split)s, &d, &e) != ICE_OK) where = s;
    task_data_free(&d);
  }
  assert_true(where >= 0);
  const task_split split = (task_split)where;
  refused("a", split, "imgs/0/sample_0.png: no PNG");
  for (size_t cut = 8; cut < n; cut += 7) {
    (void)scratch_write(image, good, cut);
    refused("a", split, "imgs/0/sample_0.png");
  }
  good[n / 2] ^= 4; /* in the compressed pixels */
  (void)scratch_write(image, good, n);
  refused("a", split, "");
  good[n / 2] ^= 4;
  put_png(image, 16, 32, PNG_FORMAT_GRAY), refused("a", split, "16 x 32 pixels");
  put_png(image, 32, 32, PNG_FORMAT_RGB), refused("a", split, "8-bit gray is expected");
  put_png(image, 32, 32, PNG_FORMAT_GA), refused("a", split, "8-bit gray is expected");
  put_png(image, 32, 32, PNG_FORMAT_GRAY), refused("a", split, "checksum"); /* black, and the record knows better */
  assert_int_equal(unlink(scratch_path(image)), 0);
  refused("a", split, "imgs/0/sample_0.png: missing, metadata/0.npy:1 names it");
  free(good);
}

static void test_parse__faults__named_with_their_line(void **state) {
  (void)state;
  const struct {
    const char *text, *word;
  } t[] = {{"imgs/0 sample_0.png 0 2 1.0\n", "x.npy:1: label '2'"},       {"imgs/0 a.png 0 1\n\n", "x.npy:2"},
           {"imgs/0 a.png 0\n", "x.npy:1"},                              {"imgs a.png 0 1\n", "folder 'imgs'"},
           {"../x a.png 0 1\n", "folder '../x'"},                        {"\x93NUMPY\x01", "x.npy:1"},
           {"imgs/0 a.png 0 1\nimgs/0 b.png 1 -1\n", "x.npy:2: label '-1'"}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    pathfinder_list list = {0};
    ice_err e = {0};
    assert_int_equal(pathfinder_parse((const uint8_t *)t[i].text, strlen(t[i].text), "x.npy", 0, &list, &e), ICE_DATA);
    if (!strstr(e.text, t[i].word)) fail_msg("\"%s\" does not say \"%s\"", e.text, t[i].word);
    free(list.row);
  }
  pathfinder_list list = {0};
  ice_err e = {0};
  static const char zero[] = "imgs/0 a.png 0 1\0 1.0\n";
  assert_int_equal(pathfinder_parse((const uint8_t *)zero, sizeof zero - 1, "x.npy", 0, &list, &e), ICE_DATA);
  free(list.row);
  make_ok("a", 1, 8);
  static const char twice[] = "imgs/0 sample_0.png 0 1\nimgs/0 sample_1.png 0 1\nimgs/0 sample_0.png 0 0\n";
  (void)scratch_write("a/" EASY "/metadata/0.npy", twice, sizeof twice - 1);
  refused("a", TASK_TRAIN, "imgs/0/sample_0.png twice");
  (void)scratch_write("a/" EASY "/metadata/0.npy", "", 0);
  refused("a", TASK_TRAIN, "lists no images");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_draw__rules_of_the_task__kept_in_every_picture),
      TEST(test_draw__levels__differ_in_their_curves),
      TEST(test_make__splits_and_repeats__same_bits_for_any_threads),
      TEST(test_make__stopped__not_read_and_mended),
      TEST(test_make__official_files_there__left_alone),
      TEST(test_load__archives__same_bytes_and_hash),
      TEST(test_load__empty_images__passed_over_and_counted),
      TEST(test_load__damage__names_file_and_reason),
      TEST(test_parse__faults__named_with_their_line),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
