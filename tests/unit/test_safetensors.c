/* test_safetensors.c - what is written reads back; every malformed file is refused with one line that names the fault. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "models/safetensors.h"
#include "tests/support/scratch.h"

/* A file image: header text + data bytes 0, 1, 2, ... */
static uint8_t image[4096];
static size_t build(const char *header, size_t data) {
  const size_t n = strlen(header);
  for (int i = 0; i < 8; i++) image[i] = (uint8_t)((uint64_t)n >> (8 * i));
  memcpy(image + 8, header, n);
  for (size_t i = 0; i < data; i++) image[8 + n + i] = (uint8_t)i;
  return 8 + n + data;
}

static void refused_bytes(size_t n, const char *word) {
  st_file f;
  ice_err e = {0};
  uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees one byte too far */
  memcpy(exact, image, n);
  const int rc = st_parse(exact, n, "x.safetensors", &f, &e);
  if (rc == ICE_OK) st_close(&f);
  free(exact);
  assert_int_equal(rc, ICE_DATA);
  if (!strstr(e.text, word) || !strstr(e.text, "x.safetensors")) fail_msg("'%s' does not say '%s'", e.text, word);
}
static void refused(const char *header, size_t data, const char *word) { refused_bytes(build(header, data), word); }

static void test_write__f32_bf16_i64__reads_back(void **state) {
  (void)state;
  const float a[6] = {1, -2.5f, 3e-20f, 4, 5, 6}, b[4] = {1.0f, 1.00390625f, 1.01171875f, -INFINITY};
  const int64_t c[2] = {-1, INT64_MAX};
  const st_out t[] = {{"b", ST_BF16, 1, {4}, b}, {"a", ST_F32, 2, {2, 3}, a}, {"c", ST_I64, 1, {2}, c}, {"none", ST_F32, 2, {0, 5}, a}};
  const char *const meta[] = {"who", "\"quoted\" \\ \xc3\xa9", "n", "1", NULL};
  const char *path = scratch_path("a.safetensors");
  st_file f;
  ice_err e = {0};
  float got[6];
  assert_int_equal(st_write(path, t, 4, meta, &e), ICE_OK);
  if (st_open(path, &f, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(f.count, 4);
  assert_string_equal(f.tensor[0].name, "a");
  assert_string_equal(st_meta(&f, "who"), "\"quoted\" \\ \xc3\xa9");
  assert_null(st_meta(&f, "absent"));
  assert_int_equal(st_copy_f32(&f, "a", 2, (int64_t[]){2, 3}, got, &e), ICE_OK);
  assert_memory_equal(got, a, sizeof a);
  assert_int_equal(st_copy_f32(&f, "b", 1, (int64_t[]){4}, got, &e), ICE_OK);
  const float rounded[4] = {1.0f, 1.0f, 1.015625f, -INFINITY}; /* 8 bits: ties to even */
  assert_memory_equal(got, rounded, sizeof rounded);
  assert_memory_equal(st_find(&f, "c")->data, c, sizeof c);
  assert_null(st_find(&f, "d"));
  st_close(&f);
}

static void test_copy__f16_and_f64__converted(void **state) {
  (void)state;
  st_file f;
  ice_err e = {0};
  float got[4];
  size_t n = build("{\"h\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]},\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[8,16]}}", 16);
  const uint16_t h[4] = {0x3c00, 0xc100, 0x0001, 0x7c00}; /* 1, -2.5, 2^-24, inf */
  const double d = 0.1;
  memcpy(image + n - 16, h, 8);
  memcpy(image + n - 8, &d, 8);
  assert_int_equal(st_parse(image, n, "x", &f, &e), ICE_OK);
  assert_int_equal(st_copy_f32(&f, "h", 1, (int64_t[]){4}, got, &e), ICE_OK);
  assert_true(got[0] == 1.0f && got[1] == -2.5f && got[2] == 0x1p-24f && isinf(got[3]));
  assert_int_equal(st_copy_f32(&f, "d", 1, (int64_t[]){1}, got, &e), ICE_OK);
  assert_true(got[0] == 0.1f);
  st_close(&f);
}

static void test_copy__wrong_requests__named(void **state) {
  (void)state;
  st_file f;
  ice_err e = {0};
  float got[4];
  size_t n = build("{\"i\":{\"dtype\":\"I32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16);
  assert_int_equal(st_parse(image, n, "x", &f, &e), ICE_OK);
  assert_int_equal(st_copy_f32(&f, "gone", 1, (int64_t[]){4}, got, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "gone is missing"));
  assert_int_equal(st_copy_f32(&f, "i", 1, (int64_t[]){4}, got, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "[2, 2], expected [4]"));
  assert_int_equal(st_copy_f32(&f, "i", 2, (int64_t[]){2, 2}, got, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "dtype"));
  st_close(&f);
}

static void test_parse__header_longer_than_the_file__refused(void **state) {
  (void)state;
  size_t n = build("{}", 0);
  image[0] = 3;
  refused_bytes(n, "header of 3 bytes");
  memset(image, 0xff, 8);
  refused_bytes(n, "header of 18446744073709551615 bytes");
  for (n = 0; n < 8; n++) refused_bytes(n, "at least 8");
}

static void test_parse__every_truncation__refused(void **state) {
  (void)state;
  const size_t n = build("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
  for (size_t cut = 0; cut < n; cut++) refused_bytes(cut, "x.safetensors");
}

static void test_parse__bad_headers__refused(void **state) {
  (void)state;
#define T(dtype, shape, offsets) "{\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
  refused("[]", 0, "no JSON object");
  refused("{", 0, "header, byte");
  refused("{\"a\":1,\"a\":2}", 0, "header, byte");
  refused("\xff{}", 0, "header, byte");
  refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "duplicate");
  refused("{\"a\":5}", 0, "needs dtype");
  refused(T("F31", "[1]", "[0,4]"), 4, "unknown dtype F31");
  refused(T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "at most 8");
  refused(T("F32", "[-1]", "[0,4]"), 4, "no count");
  refused(T("F32", "[1.5]", "[0,4]"), 4, "no count");
  refused(T("F32", "7", "[0,4]"), 4, "list");
  refused(T("F32", "[4294967296,4294967296]", "[0,4]"), 4, "2^63");
  refused(T("F32", "[4611686018427387905]", "[0,4]"), 4, "bytes of data");
  refused(T("F32", "[2]", "[0,4]"), 4, "4 bytes of data for 2 elements");
  refused(T("F32", "[1]", "[0,8]"), 4, "within the 4 bytes");
  refused(T("F32", "[1]", "[4,0]"), 4, "data_offsets");
  refused(T("F32", "[1]", "[-4,0]"), 4, "data_offsets");
  refused(T("F32", "[1]", "[0]"), 4, "data_offsets");
  refused(T("F32", "[1]", "[0,4,8]"), 8, "data_offsets");
  refused(T("F32", "[1]", "[4,8]"), 8, "begins at byte 4");
  refused(T("F32", "[1]", "[0,4]"), 5, "1 bytes after the last");
  refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"extra\":1}}", 4, "unknown field extra");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}", 4, "begins at byte 2");
  refused("{\"__metadata__\":{\"k\":1}}", 0, "metadata k");
  refused("{\"__metadata__\":[]}", 0, "__metadata__");
#undef T
}

static void test_open__not_a_regular_file__refused_at_once(void **state) {
  (void)state;
  st_file f;
  ice_err e = {0};
  assert_int_equal(st_open(scratch_folder(), &f, &e), ICE_DATA);
  assert_int_equal(st_open(scratch_path("absent"), &f, &e), ICE_DATA);
  assert_int_equal(mkfifo(scratch_path("fifo"), 0600), 0);
  assert_int_equal(st_open(scratch_path("fifo"), &f, &e), ICE_DATA);
}

/* A checkpoint must not lose a name or a record without a word. */
static void test_write__what_json_cannot_hold__refused(void **state) {
  (void)state;
  const float a[2] = {1, 2};
  const st_out good = {"a", ST_F32, 1, {1}, a}, not_utf8 = {"\xff", ST_F32, 1, {1}, a}, taken = {"__metadata__", ST_F32, 1, {1}, a};
  const st_out twice[2] = {good, good}, bad[2] = {good, not_utf8}, reserved[2] = {good, taken};
  const char *const meta[] = {"who", "\xff", NULL}, *const no_meta[] = {NULL};
  struct stat st;
  ice_err e = {0};
  assert_int_equal(st_write(scratch_path("x"), &good, 1, meta, &e), ICE_INTERNAL);
  assert_int_equal(st_write(scratch_path("x"), twice, 2, no_meta, &e), ICE_INTERNAL);
  assert_int_equal(st_write(scratch_path("x"), bad, 2, no_meta, &e), ICE_INTERNAL);
  assert_int_equal(st_write(scratch_path("x"), reserved, 2, no_meta, &e), ICE_INTERNAL);
  assert_int_not_equal(stat(scratch_path("x"), &st), 0);
  assert_int_equal(st_write(scratch_path("x"), &good, 1, NULL, &e), ICE_OK);
}

static void test_write__into_a_missing_folder__leaves_nothing(void **state) {
  (void)state;
  const float a = 1;
  const st_out t = {"a", ST_F32, 1, {1}, &a};
  const char *const meta[] = {NULL};
  ice_err e = {0};
  assert_int_not_equal(st_write(scratch_path("no/such/folder/x.safetensors"), &t, 1, meta, &e), ICE_OK);
  struct stat st;
  assert_int_not_equal(stat(scratch_path("no"), &st), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_write__f32_bf16_i64__reads_back),
      TEST(test_copy__f16_and_f64__converted),
      TEST(test_copy__wrong_requests__named),
      TEST(test_parse__header_longer_than_the_file__refused),
      TEST(test_parse__every_truncation__refused),
      TEST(test_parse__bad_headers__refused),
      TEST(test_open__not_a_regular_file__refused_at_once),
      TEST(test_write__what_json_cannot_hold__refused),
      TEST(test_write__into_a_missing_folder__leaves_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
