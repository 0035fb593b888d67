/* test_fileio.c - files in and out: whole or not at all, regular files only; 16-bit floats. */
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/core/fileio.h"
#include "kernels/core/half.h"
#include "tests/support/scratch.h"

static int entries(void) {
  DIR *d = opendir(scratch_folder());
  int n = -2; /* . and .. */
  while (readdir(d)) n++;
  (void)closedir(d);
  return n;
}
static void holds(const char *path, const char *text) {
  file_map m;
  ice_err e = {0};
  if (file_open_map(path, 1000, &m, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(m.n, strlen(text));
  assert_memory_equal(m.p, text, m.n);
  file_close_map(&m);
}

static void test_commit__replaces_the_file(void **state) {
  (void)state;
  file_out o;
  ice_err e = {0};
  const char *path = scratch_write("a", "old", 3);
  assert_int_equal(file_out_open(&o, path, &e), ICE_OK);
  (void)fputs("new text", o.stream);
  (void)fflush(o.stream);
  holds(path, "old"); /* until the commit */
  assert_int_equal(file_out_commit(&o, &e), ICE_OK);
  holds(path, "new text");
  file_out_abort(&o); /* does nothing any more */
  assert_int_equal(entries(), 1);
}

/* Stands before the C library's: what was synced, in order, and what the target held at that time. */
static int synced_files, synced_folders;
static const char *sync_target;
static char at_sync[32];
static int64_t size_at_sync;
int fsync(int fd) {
  struct stat st;
  if (fstat(fd, &st)) return -1;
  if (S_ISDIR(st.st_mode)) return synced_folders++, 0;
  synced_files++;
  size_at_sync = st.st_size;
  FILE *f = sync_target ? fopen(sync_target, "r") : NULL;
  if (f) at_sync[fread(at_sync, 1, sizeof at_sync - 1, f)] = 0, (void)fclose(f);
  return 0;
}

/* Or a loss of power after the rename leaves an empty file where a whole one was. */
static void test_commit__bytes_are_on_the_disk_before_the_name_changes(void **state) {
  (void)state;
  file_out o;
  ice_err e = {0};
  sync_target = scratch_write("a", "old", 3);
  synced_files = synced_folders = 0, size_at_sync = 0;
  assert_int_equal(file_out_open(&o, sync_target, &e), ICE_OK);
  (void)fputs("new text", o.stream);
  assert_int_equal(file_out_commit(&o, &e), ICE_OK);
  assert_int_equal(synced_files, 1);
  assert_int_equal(size_at_sync, 8);     /* all of it, */
  assert_string_equal(at_sync, "old");   /* before the rename, */
  assert_int_equal(synced_folders, 1);   /* which is made durable afterwards */
  sync_target = NULL;
}

static void test_commit__new_file__follows_the_umask(void **state) {
  (void)state;
  file_out o;
  ice_err e = {0};
  struct stat st;
  const mode_t before = umask(027);
  assert_int_equal(file_out_open(&o, scratch_path("a"), &e), ICE_OK);
  assert_int_equal(file_out_commit(&o, &e), ICE_OK);
  (void)umask(before);
  assert_int_equal(stat(scratch_path("a"), &st), 0);
  assert_int_equal(st.st_mode & 0777, 0640);
}

static void test_abort__old_file_stays(void **state) {
  (void)state;
  file_out o;
  ice_err e = {0};
  const char *path = scratch_write("a", "old", 3);
  assert_int_equal(file_out_open(&o, path, &e), ICE_OK);
  (void)fputs("new text", o.stream);
  file_out_abort(&o);
  holds(path, "old");
  assert_int_equal(entries(), 1);
}

/* A limit on the size of files stands for a full disk. */
static void test_commit__write_fails__old_file_stays(void **state) {
  (void)state;
  file_out o;
  ice_err e = {0};
  struct rlimit before;
  const char *path = scratch_write("a", "old", 3);
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = 100000, .rlim_max = before.rlim_max}), 0);
  assert_int_equal(file_out_open(&o, path, &e), ICE_OK);
  for (int i = 0; i < 200000; i++) (void)fputc('x', o.stream);
  const int rc = file_out_commit(&o, &e);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
  (void)signal(SIGXFSZ, handler);
  assert_int_equal(rc, ICE_INTERNAL);
  assert_non_null(strstr(e.text, path));
  holds(path, "old");
  assert_int_equal(entries(), 1);
}

static void test_open__left_over_temporaries__no_obstacle(void **state) {
  (void)state;
  file_out o, p;
  ice_err e = {0};
  assert_int_equal(file_out_open(&o, scratch_path("a"), &e), ICE_OK);
  assert_int_equal(file_out_open(&p, scratch_path("a"), &e), ICE_OK); /* meets the temporary of the first */
  (void)fputs("second", p.stream);
  (void)fputs("first", o.stream);
  assert_int_equal(file_out_commit(&o, &e), ICE_OK);
  holds(scratch_path("a"), "first");
  assert_int_equal(file_out_commit(&p, &e), ICE_OK);
  holds(scratch_path("a"), "second");
}

/* What a killed writer left goes with the next one; a live writer's, another target's and anybody else's files stay. */
static void test_open__temporaries_of_dead_writers__removed(void **state) {
  (void)state;
  const char *const stays[] = {".b.1-0", ".a.tsv.1-0", ".a.x-1", ".a.1-", ".a.1-0.old", ".a", "a.1-0", ".a.1"};
  file_out live, o;
  ice_err e = {0};
  const pid_t killed = fork();
  if (killed == 0) {
    (void)file_out_open(&o, scratch_path("a"), &e);
    (void)raise(SIGKILL);
  }
  assert_int_equal(waitpid(killed, NULL, 0), killed);
  assert_int_equal(entries(), 1);
  (void)scratch_write(".a.99999999-3", "x", 1);
  for (size_t i = 0; i < sizeof stays / sizeof *stays; i++) (void)scratch_write(stays[i], "x", 1);
  assert_int_equal(file_out_open(&live, scratch_path("a"), &e), ICE_OK);
  assert_int_equal(entries(), 9);
  assert_int_equal(file_out_open(&o, scratch_path("a"), &e), ICE_OK);
  assert_int_equal(entries(), 10);
  (void)fputs("live", live.stream);
  assert_int_equal(file_out_commit(&live, &e), ICE_OK);
  file_out_abort(&o);
  assert_int_equal(entries(), 9);
  for (size_t i = 0; i < sizeof stays / sizeof *stays; i++) holds(scratch_path(stays[i]), "x");
  holds(scratch_path("a"), "live");
}

static void test_open__only_regular_files__replaced(void **state) {
  (void)state;
  file_out o;
  ice_err e = {0};
  char longer[5000];
  assert_int_equal(file_out_open(&o, scratch_folder(), &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "a folder"));
  assert_int_equal(file_out_open(&o, "/dev/null", &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "a device"));
  assert_int_equal(mkfifo(scratch_path("fifo"), 0600), 0);
  assert_int_equal(file_out_open(&o, scratch_path("fifo"), &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "a FIFO"));
  memset(longer, 'x', sizeof longer - 1), longer[sizeof longer - 1] = 0;
  assert_int_equal(file_out_open(&o, longer, &e), ICE_USAGE);
  assert_int_equal(file_out_open(&o, scratch_path("no/folder/a"), &e), ICE_INTERNAL);
  assert_int_equal(file_out_open(&o, "", &e), ICE_USAGE);
  assert_int_equal(file_out_open(&o, scratch_path("absent/"), &e), ICE_USAGE);
  file_out_abort(&o);
}

static void test_map__refusals_and_limits(void **state) {
  (void)state;
  file_map m;
  ice_err e = {0};
  const char *path = scratch_write("a", "12345", 5);
  assert_int_equal(file_open_map(path, 5, &m, &e), ICE_OK);
  file_close_map(&m);
  assert_int_equal(file_open_map(path, 4, &m, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "5 bytes; at most 4"));
  assert_int_equal(file_open_map(scratch_write("empty", "", 0), 4, &m, &e), ICE_OK);
  assert_true(m.p && m.n == 0);
  file_close_map(&m);
  assert_int_equal(mkfifo(scratch_path("fifo"), 0600), 0);
  assert_int_equal(file_open_map(scratch_path("fifo"), 4, &m, &e), ICE_DATA);
  assert_int_equal(file_open_map("/dev/zero", 4, &m, &e), ICE_DATA);
  assert_int_equal(file_open_map(scratch_folder(), SIZE_MAX, &m, &e), ICE_DATA);
  assert_int_equal(file_open_map(scratch_path("absent"), 4, &m, &e), ICE_DATA);
  assert_true(file_is_regular(path) && !file_is_regular(scratch_folder()) && !file_is_regular(scratch_path("absent")));
}

static void test_join__limit(void **state) {
  (void)state;
  char out[FILE_PATH], name[FILE_PATH];
  ice_err e = {0};
  assert_int_equal(file_join(out, "/a", "b/c", &e), ICE_OK);
  assert_string_equal(out, "/a/b/c");
  memset(name, 'x', sizeof name), name[FILE_PATH - 2] = 0;
  assert_int_equal(file_join(out, "d", name, &e), ICE_USAGE);
  name[FILE_PATH - 3] = 0; /* one less fits: d, /, name, end */
  assert_int_equal(file_join(out, "d", name, &e), ICE_OK);
  assert_int_equal(strlen(out), FILE_PATH - 1);
}

static void test_make_dirs__nested__and_a_file_in_the_way(void **state) {
  (void)state;
  ice_err e = {0};
  struct stat st;
  assert_int_equal(file_make_dirs(scratch_path("a/b//c/"), &e), ICE_OK);
  assert_int_equal(file_make_dirs(scratch_path("a/b/c"), &e), ICE_OK);
  assert_true(stat(scratch_path("a/b/c"), &st) == 0 && S_ISDIR(st.st_mode));
  (void)scratch_write("f", "x", 1);
  assert_int_equal(file_make_dirs(scratch_path("f/g"), &e), ICE_INTERNAL);
  assert_int_equal(file_make_dirs("", &e), ICE_USAGE);
}

/* All 65,536 patterns of both formats against their definitions. */
static void test_half__every_pattern(void **state) {
  (void)state;
  for (uint32_t i = 0; i < 65536; i++) {
    const uint16_t h = (uint16_t)i;
    const float sign = h & 0x8000 ? -1.0f : 1.0f, f = attn_f32_of_f16(h), b = attn_f32_of_bf16(h);
    const int x = h >> 10 & 31, m = h & 1023, bx = h >> 7 & 255, bm = h & 127;
    if (x == 31) assert_true(m ? isnan(f) : f == sign * INFINITY);
    else assert_true(f == sign * (x ? ldexpf((float)(m + 1024), x - 25) : ldexpf((float)m, -24)) && !!signbit(f) == (h >> 15));
    if (bx == 255) assert_true(bm ? isnan(b) : b == sign * INFINITY);
    else assert_true(b == sign * (bx ? ldexpf((float)(bm + 128), bx - 134) : ldexpf((float)bm, -133)));
    if (isnan(b)) assert_true(isnan(attn_f32_of_bf16(attn_bf16_of_f32(b))));
    else assert_int_equal(attn_bf16_of_f32(b), h);
    if (isnan(f)) {
      assert_true(isnan(attn_f32_of_f16(attn_f16_of_f32(f))));
      continue;
    }
    assert_int_equal(attn_f16_of_f32(f), h);
    if (x == 31) continue;
    /* Half way to the next pattern: the even one of the two; a hair off half way: the nearer one. 65536 stands for infinity. */
    const float next = (h & 0x7fff) == 0x7bff ? sign * 65536.0f : attn_f32_of_f16((uint16_t)(h + 1)), half = (f + next) / 2;
    assert_int_equal(attn_f16_of_f32(half), h & 1 ? h + 1 : h);
    assert_int_equal(attn_f16_of_f32(nextafterf(half, f)), h);
    assert_int_equal(attn_f16_of_f32(nextafterf(half, next)), h + 1);
  }
  assert_int_equal(attn_f16_of_f32(-3.4e38f), 0xfc00);
  assert_int_equal(attn_bf16_of_f32(1.00390625f), 0x3f80); /* a tie goes to the even neighbour ... */
  assert_int_equal(attn_bf16_of_f32(1.01171875f), 0x3f82); /* ... below or above */
  assert_int_equal(attn_bf16_of_f32(3.4e38f), 0x7f80);     /* beyond the largest: infinity */
  assert_true(isnan(attn_f32_of_bf16(attn_bf16_of_f32(attn_f32_of_bits(0x7f800001u))))); /* not infinity */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_commit__replaces_the_file),
      TEST(test_commit__bytes_are_on_the_disk_before_the_name_changes),
      TEST(test_commit__new_file__follows_the_umask),
      TEST(test_abort__old_file_stays),
      TEST(test_commit__write_fails__old_file_stays),
      TEST(test_open__left_over_temporaries__no_obstacle),
      TEST(test_open__temporaries_of_dead_writers__removed),
      TEST(test_open__only_regular_files__replaced),
      TEST(test_map__refusals_and_limits),
      TEST(test_join__limit),
      TEST(test_make_dirs__nested__and_a_file_in_the_way),
      cmocka_unit_test(test_half__every_pattern),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
