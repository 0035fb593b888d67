/* test_source.c - files of a data set in every wrapping: the same bytes and the same identity; hostile and damaged archives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "datasets/archive.h"
#include "datasets/source.h"
#include "datasets/task.h"
#include "tests/support/pack.h"
#include "tests/support/scratch.h"

#define HEAD "Source\tTarget\n"
#define ROW(x) "( ( ( [MAX " #x " ) 0 ) ] )\t" #x "\n"
static const char train[] = HEAD ROW(1), val[] = HEAD ROW(2), test[] = HEAD ROW(3) ROW(4);

static void folders(const char *name) {
  ice_err e = {0};
  if (file_make_dirs(scratch_path(name), &e) != ICE_OK) fail_msg("%s", e.text);
}
static const task *listops(void) { return task_find("lra/listops", NULL); }
static int load(const char *root, task_split split, task_data *d, ice_err *e) {
  int absent;
  *d = (task_data){0};
  return listops()->load(root, split, d, &absent, e);
}

/* The three files below a folder of an archive, and what must not disturb them. */
static void pack_set(const char *path, const char *how, const char *folder) {
  char name[4][256];
  const char *const file[] = {"basic_train.tsv", "basic_val.tsv", "basic_test.tsv", "README"};
  for (int i = 0; i < 4; i++) (void)snprintf(name[i], sizeof name[i], "%s%s", folder, file[i]);
  const pack_member m[] = {{"./other/basic_test.tsv.txt", "x", 1, 0},
                           {name[3], "text", 4, 0},
                           {name[0], train, sizeof train - 1, 0},
                           {name[1], val, sizeof val - 1, 0},
                           {name[2], test, sizeof test - 1, 0},
                           {0}};
  pack_write(scratch_path(path), how, m);
}

static void test_load__every_wrapping__same_bytes_and_hash(void **state) {
  (void)state;
  const struct {
    const char *root, *make, *archive, *how, *folder;
  } t[] = {{"a", "a/lra", "a/lra/listops-1000.zip", "zip", ""},
           {"b", "b/lra", "b/lra/listops-1000.tar", "tar", "listops-1000/"},
           {"c", "c", "c/lra.tar.gz", "tar.gz", "lra/listops-1000/"},
           {"d", "d/lra", "d/lra/lra_release.tar.gz", "tar.gz", "lra_release/listops-1000/"},
           {"e", "e/lra", "e/lra/lra_release.gz", "tar.gz", "./lra_release/lra_release/listops-1000/"},
           {"f", "f", "f/lra_release.tgz", "tar.gz", "lra_release/lra_release/listops-1000/"},
           {"g/set.tar", "g", "g/set.tar", "tar", "lra/listops-1000/"},
           {"h", "h", "h/listops-1000.zip", "zip", "listops-1000/"}};
  folders("plain/lra/listops-1000");
  (void)scratch_write("plain/lra/listops-1000/basic_train.tsv", train, sizeof train - 1);
  (void)scratch_write("plain/lra/listops-1000/basic_val.tsv", val, sizeof val - 1);
  (void)scratch_write("plain/lra/listops-1000/basic_test.tsv", test, sizeof test - 1);
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    folders(t[i].make);
    pack_set(t[i].archive, t[i].how, t[i].folder);
    for (int s = 0; s < TASK_SPLITS; s++) {
      task_data plain, d;
      ice_err e = {0};
      assert_int_equal(load(scratch_path("plain"), (task_split)s, &plain, &e), ICE_OK);
      if (load(scratch_path(t[i].root), (task_split)s, &d, &e) != ICE_OK) fail_msg("%s: %s", t[i].archive, e.text);
      assert_true(d.hash == plain.hash && d.count == plain.count && d.official);
      assert_memory_equal(d.tokens, plain.tokens, (size_t)plain.start[plain.count] * sizeof *d.tokens);
      assert_non_null(strstr(d.origin, scratch_path(t[i].archive)));
      task_data_free(&plain), task_data_free(&d);
    }
  }
}

/* A file may be alone in its archive, and gzipped inside of one. */
static void test_load__files_wrapped_one_by_one__found(void **state) {
  (void)state;
  const pack_member one[] = {{"basic_test.tsv", test, sizeof test - 1, 0}, {0}};
  task_data d;
  ice_err e = {0};
  folders("a/lra/listops-1000");
  (void)scratch_write("a/lra/listops-1000/basic_val.tsv", val, sizeof val - 1);
  pack_write(scratch_path("a/lra/listops-1000/basic_test.tsv.zip"), "zip", one);
  assert_int_equal(load(scratch_path("a"), TASK_TEST, &d, &e), ICE_OK);
  assert_int_equal(d.count, 2);
  task_data_free(&d);
  assert_int_equal(load(scratch_path("a"), TASK_TRAIN, &d, &e), ICE_DATA);

  folders("b");
  gzFile z = gzopen(scratch_path("x.gz"), "wb");
  (void)gzputs(z, test), (void)gzclose(z);
  source s;
  char raw[256];
  FILE *f = fopen(scratch_path("x.gz"), "rb");
  const size_t n = fread(raw, 1, sizeof raw, f);
  (void)fclose(f);
  const pack_member packed[] = {{"listops-1000/basic_test.tsv.gz", raw, n, 0}, {0}};
  pack_write(scratch_path("b/listops-1000.tar"), "tar", packed);
  assert_int_equal(load(scratch_path("b"), TASK_TEST, &d, &e), ICE_OK);
  assert_int_equal(d.count, 2);
  assert_int_equal(source_open(scratch_path("x.gz"), 1 << 20, &s, &e), ICE_OK);
  assert_true(s.hash == d.hash);
  source_close(&s);
  task_data_free(&d);
}

static void test_load__folder_beside_an_archive__folder_wins(void **state) {
  (void)state;
  task_data d;
  ice_err e = {0};
  folders("a/listops-1000"), folders("a/lra");
  pack_set("a/lra/listops-1000.zip", "zip", "");
  (void)scratch_write("a/listops-1000/basic_val.tsv", test, sizeof test - 1);
  assert_int_equal(load(scratch_path("a"), TASK_DEV, &d, &e), ICE_OK);
  assert_int_equal(d.count, 2);
  task_data_free(&d);
  assert_int_equal(load(scratch_path("a"), TASK_TRAIN, &d, &e), ICE_DATA); /* and sets do not mix */
}

static void test_load__generated_set_in_an_archive__not_official(void **state) {
  (void)state;
  static const char made[] = "{\"complete\": true}", cut[] = "{\"complete\": false}";
  task_data d;
  ice_err e = {0};
  folders("a"), folders("b");
  for (int i = 0; i < 2; i++) {
    const pack_member m[] = {{"listops-1000/basic_test.tsv", test, sizeof test - 1, 0},
                             {"listops-1000/generated.json", i ? cut : made, strlen(i ? cut : made), 0},
                             {0}};
    pack_write(scratch_path(i ? "b/listops-1000.zip" : "a/listops-1000.zip"), "zip", m);
  }
  assert_int_equal(load(scratch_path("a"), TASK_TEST, &d, &e), ICE_OK);
  assert_int_equal(d.official, 0);
  task_data_free(&d);
  assert_int_equal(load(scratch_path("b"), TASK_TEST, &d, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "interrupted"));
}

/* --- hostile archives ----------------------------------------------------------------------------------------------- */

static void test_archive__names_that_lead_out_and_links__passed_over_and_counted(void **state) {
  (void)state;
  const pack_member m[] = {{"/listops-1000/basic_test.tsv", val, sizeof val - 1, 0},
                           {"../listops-1000/basic_test.tsv", val, sizeof val - 1, 0},
                           {"x/../../listops-1000/basic_test.tsv", val, sizeof val - 1, 0},
                           {"..", val, sizeof val - 1, 0},
                           {"a/listops-1000/basic_test.tsv", "/etc/passwd", 0, 's'},
                           {"b/listops-1000/basic_test.tsv", "listops-1000/basic_test.tsv", 0, 'h'},
                           {"p/listops-1000/basic_test.tsv", "", 0, 'p'},
                           {"listops-1000", "", 0, 'd'},
                           {"listops-1000/..basic_test.tsv", val, sizeof val - 1, 0},
                           {"deep/listops-1000/basic_test.tsv", test, sizeof test - 1, 0},
                           {0}};
  task_data d;
  ice_err e = {0};
  folders("a");
  pack_write(scratch_path("a/listops-1000.tar"), "tar", m);
  if (load(scratch_path("a"), TASK_TEST, &d, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(d.count, 2);
  assert_string_equal(d.origin, scratch_path("a/listops-1000.tar/deep/listops-1000/basic_test.tsv"));
  assert_int_equal(source_ignored(d.origin), 7);
  task_data_free(&d);
}

/* Whatever is cut off or flipped: data of another hash is never taken for sane, and the fault names the archive. */
static void damage_everywhere(const char *how, int checksums) {
  char path[128], root[64];
  static uint8_t bytes[1 << 15];
  task_data d;
  ice_err e = {0};
  (void)snprintf(root, sizeof root, "%s", how), folders(root);
  (void)snprintf(path, sizeof path, "%s/listops-1000.%s", how, how);
  pack_set(path, how, "listops-1000/");
  assert_int_equal(load(scratch_path(root), TASK_TEST, &d, &e), ICE_OK);
  const uint64_t hash = d.hash;
  task_data_free(&d);
  FILE *f = fopen(scratch_path(path), "rb");
  const size_t n = fread(bytes, 1, sizeof bytes, f);
  (void)fclose(f);
  assert_true(n > 100 && n < sizeof bytes);
  const size_t step = n > 2000 ? 61 : 1;
  int refused = 0;
  for (size_t i = 0; i < 2 * n; i += step) {
    const size_t at = i % n;
    if (i >= n) bytes[at] ^= 0x10;
    (void)scratch_write(path, bytes, i < n ? at : n);
    if (load(scratch_path(root), TASK_TEST, &d, &e) == ICE_OK) {
      if (checksums && d.hash != hash) fail_msg("%s: byte %zu of %zu %s, and nothing was said", how, at, n, i < n ? "cut" : "flipped");
      task_data_free(&d);
    } else {
      assert_int_equal(e.code, ICE_DATA);
      assert_null(strchr(e.text, '\n'));
      refused++;
    }
    if (i >= n) bytes[at] ^= 0x10;
  }
  assert_true(refused > (int)(n / step / 4));
}
static void test_archive__damaged_zip__refused(void **state) { (void)state, damage_everywhere("zip", 1); }
static void test_archive__damaged_tar_gz__refused(void **state) { (void)state, damage_everywhere("tar.gz", 1); }
static void test_archive__damaged_tar__never_crashes(void **state) { (void)state, damage_everywhere("tar", 0); }

static void test_archive__damage__says_where(void **state) {
  (void)state;
  uint8_t bytes[8192];
  task_data d;
  ice_err e = {0};
  folders("a");
  pack_set("a/listops-1000.tar", "tar", "listops-1000/");
  FILE *f = fopen(scratch_path("a/listops-1000.tar"), "rb");
  (void)fread(bytes, 1, 4 * 1024 + 700, f);
  (void)fclose(f);
  (void)scratch_write("a/listops-1000.tar", bytes, 4 * 1024 + 700);
  assert_int_equal(load(scratch_path("a"), TASK_TEST, &d, &e), ICE_DATA);
  assert_non_null(strstr(e.text, scratch_path("a/listops-1000.tar")));
  assert_non_null(strstr(e.text, "near member listops-1000/basic_"));
  assert_non_null(strstr(e.text, "at byte "));
  (void)scratch_write("a/listops-1000.tar", "no archive at all, just text", 28);
  assert_int_equal(load(scratch_path("a"), TASK_TEST, &d, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "before the first member"));
}

/* The checksum of gzip stands at the very end, far behind the last member. */
static void test_archive__wrong_gzip_checksum_behind_the_members__refused(void **state) {
  (void)state;
  static uint8_t bytes[1 << 19];
  task_data d;
  ice_err e = {0};
  folders("a");
  pack_set("a/x.tar", "tar", "listops-1000/");
  FILE *f = fopen(scratch_path("a/x.tar"), "rb");
  (void)fread(bytes, 1, sizeof bytes, f);
  (void)fclose(f);
  gzFile z = gzopen(scratch_path("a/listops-1000.tar.gz"), "wb");
  assert_int_equal(gzwrite(z, bytes, sizeof bytes), sizeof bytes);
  (void)gzclose(z);
  assert_int_equal(load(scratch_path("a"), TASK_TEST, &d, &e), ICE_OK);
  task_data_free(&d);
  f = fopen(scratch_path("a/listops-1000.tar.gz"), "r+b");
  (void)fseek(f, -8, SEEK_END);
  const int c = getc(f);
  (void)fseek(f, -8, SEEK_END);
  (void)putc(c ^ 1, f);
  (void)fclose(f);
  assert_int_equal(load(scratch_path("a"), TASK_TEST, &d, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "gzip"));
}

typedef struct sum {
  size_t bytes;
  int members;
} sum;
static int take(void *ctx, const char *name, int64_t size, int *answer, ice_err *e) {
  (void)name, (void)size, (void)e;
  ((sum *)ctx)->members++;
  *answer = ARCHIVE_READ;
  return ICE_OK;
}
static int add(void *ctx, const uint8_t *p, size_t n, ice_err *e) {
  (void)p, (void)e;
  ((sum *)ctx)->bytes += n;
  return ICE_OK;
}

static void test_archive__limits__hold(void **state) {
  (void)state;
  static const char zeros[1 << 18];
  const char *const how[] = {"zip", "tar", "tar.gz"};
  const pack_member m[] = {{"x", zeros, sizeof zeros, 0}, {"y", zeros, sizeof zeros, 0}, {0}};
  for (int i = 0; i < 3; i++) {
    file_map map;
    sum got = {0};
    ice_err e = {0};
    const archive_visitor v = {.ctx = &got, .begin = take, .data = add};
    pack_write(scratch_path("bomb"), how[i], m);
    assert_int_equal(file_open_map(scratch_path("bomb"), 1 << 24, &map, &e), ICE_OK);
    const archive_limits enough = {.members = 2, .unpacked = 1 << 20}, few = {.members = 1, .unpacked = 1 << 20},
                         small = {.members = 9, .unpacked = 1 << 19};
    if (archive_walk(map.p, map.n, "bomb", &enough, &v, NULL, &e) != ICE_OK) fail_msg("%s: %s", how[i], e.text);
    assert_true(got.members == 2 && got.bytes == 2 * sizeof zeros);
    assert_int_equal(archive_walk(map.p, map.n, "bomb", &few, &v, NULL, &e), ICE_DATA);
    assert_non_null(strstr(e.text, "more than 1 members"));
    archive_limits less = small;
    less.unpacked -= 1;
    assert_int_equal(archive_walk(map.p, map.n, "bomb", &less, &v, NULL, &e), ICE_DATA);
    assert_non_null(strstr(e.text, "unpacks to more than"));
    file_close_map(&map);
  }
}

static void test_open__member_larger_than_allowed__refused(void **state) {
  (void)state;
  source s;
  ice_err e = {0};
  folders("a");
  pack_set("a/x.zip", "zip", "");
  assert_int_equal(source_open(scratch_path("a/x.zip/basic_test.tsv"), sizeof test - 1, &s, &e), ICE_OK);
  assert_int_equal(s.n, sizeof test - 1);
  source_close(&s);
  assert_int_equal(source_open(scratch_path("a/x.zip/basic_test.tsv"), sizeof test - 2, &s, &e), ICE_DATA);
  assert_int_equal(source_open(scratch_path("a/x.zip/absent"), 100, &s, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "no member absent"));
}

/* --- whole folders -------------------------------------------------------------------------------------------------- */

static int note(void *ctx, const char *name, const uint8_t *p, size_t n, ice_err *e) {
  uint64_t *sum_of = ctx; /* does not depend on the order */
  (void)e;
  uint64_t h = 1469598103934665603u;
  for (const char *c = name; *c; c++) h = (h ^ (uint8_t)*c) * 1099511628211u;
  for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 1099511628211u;
  *sum_of += h | 1;
  return n == 5 ? ice_fail(e, ICE_CELLS_FAILED, "five") : ICE_OK;
}

static void test_each__folder_and_archives__same_files(void **state) {
  (void)state;
  const char *const how[] = {"zip", "tar", "tar.gz"};
  const pack_member m[] = {{"top/set/imgs/0/a.png", "a", 1, 0},   {"top/set/imgs/1/b.png", "bb", 2, 0}, {"top/set/imgs/c.png", "", 0, 0},
                           {"top/set/metadata/1.npy", "m", 1, 0}, {"top/set/imgs2/d.png", "d", 1, 0},   {0}};
  uint64_t plain = 0;
  ice_err e = {0};
  folders("d/set/imgs/0"), folders("d/set/imgs/1"), folders("d/set/metadata"), folders("d/set/imgs2");
  for (int i = 0; m[i].name; i++) {
    char path[128];
    (void)snprintf(path, sizeof path, "d/%s", m[i].name + 4);
    (void)scratch_write(path, m[i].bytes, m[i].n);
  }
  assert_int_equal(symlink(scratch_path("d/set/imgs2/d.png"), scratch_path("d/set/imgs/link.png")), 0);
  if (source_each(scratch_path("d/set"), "imgs", 100, note, &plain, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_true(plain != 0);
  for (int i = 0; i < 3; i++) {
    char path[128];
    uint64_t packed = 0;
    (void)snprintf(path, sizeof path, "s.%s", how[i]);
    pack_write(scratch_path(path), how[i], m);
    (void)snprintf(path, sizeof path, "s.%s/set", how[i]);
    if (source_each(scratch_path(path), "imgs", 100, note, &packed, &e) != ICE_OK) fail_msg("%s", e.text);
    assert_true(packed == plain);
    assert_int_equal(source_each(scratch_path(path), "imgs", 1, note, &packed, &e), ICE_DATA);
    assert_int_equal(source_each(scratch_path(path), "absent", 1, note, &packed, &e), ICE_DATA);
  }
  assert_int_equal(source_each(scratch_path("d/set"), "imgs", 1, note, &plain, &e), ICE_DATA);
  assert_int_equal(source_each(scratch_path("d/set"), "absent", 100, note, &plain, &e), ICE_DATA);
  (void)scratch_write("d/set/imgs/five.png", "12345", 5);
  assert_int_equal(source_each(scratch_path("d/set"), "imgs", 100, note, &plain, &e), ICE_CELLS_FAILED);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_load__every_wrapping__same_bytes_and_hash),
      TEST(test_load__files_wrapped_one_by_one__found),
      TEST(test_load__folder_beside_an_archive__folder_wins),
      TEST(test_load__generated_set_in_an_archive__not_official),
      TEST(test_archive__names_that_lead_out_and_links__passed_over_and_counted),
      TEST(test_archive__damaged_zip__refused),
      TEST(test_archive__damaged_tar_gz__refused),
      TEST(test_archive__damaged_tar__never_crashes),
      TEST(test_archive__damage__says_where),
      TEST(test_archive__wrong_gzip_checksum_behind_the_members__refused),
      TEST(test_archive__limits__hold),
      TEST(test_open__member_larger_than_allowed__refused),
      TEST(test_each__folder_and_archives__same_files),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
