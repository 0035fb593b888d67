/* test_fetch.c - downloads against a server on this machine: complete, broken off, resumed, refused, hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sha256.h>

#include "datasets/extract.h"
#include "harness/fetch.h"
#include "kernels/core/fileio.h"
#include "kernels/core/rng.h"
#include "tests/support/httpd.h"
#include "tests/support/pack.h"
#include "tests/support/scratch.h"

#define SET "Source\tTarget\n( ( ( [MAX 2 ) 9 ) ] )\t9\n"
#define INNER "lra_release/lra_release/listops-1000/"

static httpd server;
static char *bytes; /* of the archive */
static size_t size;
static char sum[SHA256_DIGEST_STRING_LENGTH], url[8][128];
static const char *const inside[] = {"lra_release/lra_release/listops-1000", "lra_release/listops-1000", NULL};
static task_release release;
static task toy;

static const char *address(const char *way) {
  static int next;
  char *u = url[next++ % 8];
  (void)snprintf(u, sizeof url[0], "http://127.0.0.1:%d/%s/lra_release.gz", server.port, way);
  return u;
}
static const char *archive(void) { return scratch_path("root/lra/lra_release.gz"); }
static const char *part(void) { return scratch_path("root/lra/lra_release.gz.part"); }
static int there(const char *path) { return access(path, F_OK) == 0; }

static int group_setup(void **state) {
  static char noise[200000];
  attn_rng r;
  attn_rng_seed(&r, 1, 2);
  for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)attn_rng_u64(&r);
  const pack_member m[] = {{"lra_release/tsv_data/x.tsv", noise, sizeof noise, 0},
                           {"lra_release/listops-1000/basic_test.tsv", "outer", 5, 0},
                           {INNER "basic_train.tsv", SET, strlen(SET), 0},
                           {INNER "basic_val.tsv", SET, strlen(SET), 0},
                           {INNER "basic_test.tsv", SET, strlen(SET), 0},
                           {0}};
  if (scratch_setup(state)) return 1;
  pack_write(scratch_path("x"), "tar.gz", m);
  FILE *f = fopen(scratch_path("x"), "rb");
  bytes = malloc(1 << 20);
  if (!f || !bytes) return 1;
  size = fread(bytes, 1, 1 << 20, f);
  (void)fclose(f);
  (void)SHA256File(scratch_path("x"), sum);
  httpd_start(&server, bytes, size);
  return scratch_teardown(state);
}
static int group_teardown(void **state) {
  (void)state;
  httpd_stop(&server);
  free(bytes);
  return 0;
}
static int setup(void **state) {
  release = (task_release){.url = "http://127.0.0.1:1/", .file = "lra/lra_release.gz", .bytes = (int64_t)size, .sha256 = sum, .inside = inside, .into = "lra/listops-1000"};
  toy = *task_find("lra/listops", NULL);
  toy.release = &release;
  *server.requests = 0;
  return scratch_setup(state);
}

static int fetch(const char *from, ice_err *e) {
  const fetch_options o = {.out = scratch_path("root"), .from = from};
  int fresh;
  return fetch_task(&toy, &o, &fresh, e);
}
static void succeeds(const char *from, int requests) {
  ice_err e = {0};
  file_map m;
  if (fetch(from, &e) != ICE_OK) fail_msg("%s", e.text);
  if (requests) assert_int_equal(*server.requests, requests);
  assert_true(!there(part()) && !there(scratch_path("root/lra/.listops-1000.part")));
  assert_int_equal(file_open_map(archive(), 1 << 20, &m, &e), ICE_OK);
  assert_int_equal(m.n, size);
  assert_memory_equal(m.p, bytes, size);
  file_close_map(&m);
  assert_int_equal(file_open_map(scratch_path("root/lra/listops-1000/basic_test.tsv"), 1 << 20, &m, &e), ICE_OK);
  assert_int_equal(m.n, strlen(SET));
  file_close_map(&m);
  assert_false(there(scratch_path("root/lra/tsv_data")));
}
/* Fails with one line that holds a word and the address, and leaves neither archive nor folder. */
static void fails(const char *from, int code, const char *word) {
  ice_err e = {0};
  const int rc = fetch(from, &e);
  if (rc != code || !strstr(e.text, word) || strchr(e.text, '\n')) fail_msg("code %d, \"%s\", expected %d, \"%s\"", rc, e.text, code, word);
  assert_true(!there(archive()) && !there(scratch_path("root/lra/listops-1000")) && !there(scratch_path("root/lra/.listops-1000.part")));
}
static void put_part(size_t n, int flip) {
  ice_err e = {0};
  char *copy = calloc(n + 1, 1);
  assert_non_null(copy);
  memcpy(copy, bytes, n < size ? n : size);
  if (flip) copy[n / 2] ^= 1;
  if (file_make_dirs(scratch_path("root/lra"), &e) != ICE_OK) fail_msg("%s", e.text);
  (void)scratch_write("root/lra/lra_release.gz.part", copy, n);
  free(copy);
}

static void test_fetch__plain_and_redirected__complete(void **state) {
  (void)state;
  succeeds(address("ok"), 1);
  succeeds(address("404"), 1); /* nothing is asked for what is there */
}
static void test_fetch__redirected__followed(void **state) { (void)state, succeeds(address("to-ok"), 2); }
static void test_fetch__broken_off__taken_up_again(void **state) {
  (void)state;
  succeeds(address("cut"), (int)((size + HTTPD_CUT - 1) / HTTPD_CUT));
}
static void test_fetch__part_of_an_earlier_run__goes_on(void **state) {
  (void)state;
  put_part(size - 100, 0);
  succeeds(address("cut"), 1); /* a connection that gives no more than 50,000 bytes */
}
static void test_fetch__complete_part__nothing_asked(void **state) {
  (void)state;
  put_part(size, 0);
  succeeds(address("404"), 0);
  assert_int_equal(*server.requests, 0);
}
static void test_fetch__server_without_ranges__begins_again(void **state) {
  (void)state;
  put_part(1000, 1);
  succeeds(address("norange"), 2);
}
static void test_fetch__part_longer_than_the_file__begins_again(void **state) {
  (void)state;
  release.bytes = 0;
  put_part(size + 5, 0);
  succeeds(address("ok"), 2);
}
static void test_fetch__damaged_part__found_by_the_checksum_and_removed(void **state) {
  (void)state;
  put_part(1000, 1);
  fails(address("ok"), ICE_DATA, "SHA-256");
  assert_false(there(part()));
  succeeds(address("ok"), 0);
}
static void test_fetch__no_progress__gives_up_and_keeps_the_part(void **state) {
  (void)state;
  put_part(1000, 0);
  fails(address("mute"), ICE_DATA, "goes on after 1000 bytes");
  assert_true(there(part()));
}
static void test_fetch__refusals__say_what_to_do(void **state) {
  (void)state;
  fails(address("absent"), ICE_DATA, "404");
  fails(address("absent"), ICE_DATA, "--from");
  fails(address("absent"), ICE_DATA, archive()); /* where to put it by hand */
  fails("http://127.0.0.1:1/x", ICE_DATA, "http://127.0.0.1:1/x");
  fails("ftp://127.0.0.1/x", ICE_DATA, "rotocol");
  fails("file:///nowhere/x", ICE_DATA, "/nowhere/x");
  fails(NULL, ICE_DATA, release.url);
}
static void test_fetch__redirects_without_end_or_to_files__refused(void **state) {
  (void)state;
  fails(address("loop"), ICE_DATA, "redirect");
  assert_true(*server.requests <= 12);
  fails(address("to-file"), ICE_DATA, "rotocol");
}
static void test_fetch__wrong_size__refused(void **state) {
  (void)state;
  fails(address("half"), ICE_DATA, "the release has");
  fails(address("more"), ICE_DATA, "more than the");
  assert_false(there(part()));
}
/* Without size and checksum the archive itself must tell. */
static void test_fetch__unknown_checksum__damage_is_found_by_the_archive(void **state) {
  (void)state;
  release.bytes = 0, release.sha256 = NULL;
  fails(address("half"), ICE_DATA, "cut short");
  put_part(1000, 1);
  fails(address("ok"), ICE_DATA, "not usable");
  succeeds(address("ok"), 0);
}
static void test_fetch__another_fetch_at_work__refused(void **state) {
  (void)state;
  put_part(10, 0);
  const int fd = open(part(), O_RDWR);
  assert_int_equal(flock(fd, LOCK_EX), 0);
  fails(address("ok"), ICE_INTERNAL, "another fetch");
  (void)close(fd);
}
static void test_fetch__stopped__goes_on_later(void **state) {
  (void)state;
  const volatile sig_atomic_t stop = 1;
  const fetch_options o = {.out = scratch_path("root"), .from = address("ok"), .stop = &stop};
  ice_err e = {0};
  int fresh;
  assert_int_equal(fetch_task(&toy, &o, &fresh, &e), ICE_INTERNAL);
  assert_non_null(strstr(e.text, "stopped"));
  succeeds(address("ok"), 0);
}
static void test_fetch__other_files_in_the_way__kept(void **state) {
  (void)state;
  ice_err e = {0};
  assert_int_equal(file_make_dirs(scratch_path("root/lra/listops-1000"), &e), ICE_OK);
  assert_int_equal(fetch(address("ok"), &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "in the way"));
  assert_int_equal(*server.requests, 0);
}

/* --- unpacking ------------------------------------------------------------------------------------------------------ */

static const char *const top[] = {"set", NULL};
static const extract_options plain = {.limits = &archive_default_limits};

static void test_extract__hostile_members__stay_outside(void **state) {
  (void)state;
  const pack_member m[] = {{"set/good", "1", 1, 0},          {"set/../../escaped", "2", 1, 0}, {"../escaped", "3", 1, 0}, {"/tmp/icebench-escaped", "4", 1, 0},
                           {"set/link", "/tmp", 0, 's'},     {"set/link/through", "5", 1, 0},  {"set/hard", "set/good", 0, 'h'},
                           {"set/a/b/c", "6", 1, 0},         {"set/fifo", "", 0, 'p'},         {"other/x", "7", 1, 0},     {0}};
  const char *const how[] = {"tar", "tar.gz"};
  for (int i = 0; i < 2; i++) {
    ice_err e = {0};
    struct stat st;
    char target[64];
    (void)snprintf(target, sizeof target, "out/to%d", i);
    assert_int_equal(file_make_dirs(scratch_path("out"), &e), ICE_OK);
    pack_write(scratch_path("x"), how[i], m);
    if (extract_folder(scratch_path("x"), top, scratch_path(target), &plain, &e) != ICE_OK) fail_msg("%s", e.text);
    (void)snprintf(target, sizeof target, "out/to%d/good", i);
    assert_true(there(scratch_path(target)));
    (void)snprintf(target, sizeof target, "out/to%d/a/b/c", i);
    assert_true(there(scratch_path(target)));
    (void)snprintf(target, sizeof target, "out/to%d/link", i);
    assert_true(lstat(scratch_path(target), &st) == 0 && S_ISDIR(st.st_mode)); /* a folder of its own, no link */
    (void)snprintf(target, sizeof target, "out/to%d/hard", i);
    assert_false(there(scratch_path(target)));
    assert_true(!there(scratch_path("escaped")) && !there(scratch_path("out/escaped")) && !there("/tmp/icebench-escaped") && !there("/tmp/through"));
  }
}

static void test_extract__faults__leave_nothing(void **state) {
  (void)state;
  static const char zeros[1 << 16];
  const pack_member twice[] = {{"set/a", "1", 1, 0}, {"set/a", "2", 1, 0}, {0}};
  const pack_member clash[] = {{"set/a", "1", 1, 0}, {"set/a/b", "2", 1, 0}, {0}};
  const pack_member large[] = {{"set/a", zeros, sizeof zeros, 0}, {"set/b", zeros, sizeof zeros, 0}, {0}};
  const archive_limits limits = {.members = 10, .unpacked = sizeof zeros + 10};
  const extract_options small = {.limits = &limits};
  const struct {
    const pack_member *m;
    const extract_options *o;
    int code;
    const char *word;
  } t[] = {{twice, &plain, ICE_DATA, "twice"}, {clash, &plain, ICE_INTERNAL, "not a folder"}, {large, &small, ICE_DATA, "unpacks to more"}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    ice_err e = {0};
    pack_write(scratch_path("x"), "tar", t[i].m);
    assert_int_equal(extract_folder(scratch_path("x"), top, scratch_path("to"), t[i].o, &e), t[i].code);
    assert_non_null(strstr(e.text, t[i].word));
    assert_true(!there(scratch_path("to")) && !there(scratch_path(".to.part")));
  }
}

static void test_extract__left_by_a_kill__replaced_without_following_links(void **state) {
  (void)state;
  const pack_member m[] = {{"set/a", "1", 1, 0}, {0}};
  ice_err e = {0};
  pack_write(scratch_path("x"), "zip", m);
  assert_int_equal(file_make_dirs(scratch_path(".to.part/deep"), &e), ICE_OK);
  assert_int_equal(file_make_dirs(scratch_path("precious"), &e), ICE_OK);
  (void)scratch_write("precious/file", "1", 1);
  (void)scratch_write(".to.part/deep/old", "1", 1);
  assert_int_equal(symlink(scratch_path("precious"), scratch_path(".to.part/link")), 0);
  if (extract_folder(scratch_path("x"), top, scratch_path("to"), &plain, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_true(there(scratch_path("to/a")) && !there(scratch_path("to/deep")) && there(scratch_path("precious/file")));
  assert_int_equal(extract_folder(scratch_path("x"), top, scratch_path("to"), &plain, &e), ICE_USAGE);
  const char *const none[] = {"absent", NULL};
  assert_int_equal(extract_folder(scratch_path("x"), none, scratch_path("new"), &plain, &e), ICE_DATA);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_fetch__plain_and_redirected__complete),
      TEST(test_fetch__redirected__followed),
      TEST(test_fetch__broken_off__taken_up_again),
      TEST(test_fetch__part_of_an_earlier_run__goes_on),
      TEST(test_fetch__complete_part__nothing_asked),
      TEST(test_fetch__server_without_ranges__begins_again),
      TEST(test_fetch__part_longer_than_the_file__begins_again),
      TEST(test_fetch__damaged_part__found_by_the_checksum_and_removed),
      TEST(test_fetch__no_progress__gives_up_and_keeps_the_part),
      TEST(test_fetch__refusals__say_what_to_do),
      TEST(test_fetch__redirects_without_end_or_to_files__refused),
      TEST(test_fetch__wrong_size__refused),
      TEST(test_fetch__unknown_checksum__damage_is_found_by_the_archive),
      TEST(test_fetch__another_fetch_at_work__refused),
      TEST(test_fetch__stopped__goes_on_later),
      TEST(test_fetch__other_files_in_the_way__kept),
      TEST(test_extract__hostile_members__stay_outside),
      TEST(test_extract__faults__leave_nothing),
      TEST(test_extract__left_by_a_kill__replaced_without_following_links),
  };
  return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
