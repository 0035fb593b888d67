/* test_npy.c - NumPy arrays: what is written reads back, what NumPy writes is read, everything else is refused. */
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

#include "harness/npy.h"
#include "tests/support/scratch.h"

static uint8_t image[2048];
/* version, dictionary, values */
static size_t build(int version, const char *dictionary, const void *values, size_t bytes) {
  const size_t n = strlen(dictionary), first = version == 1 ? 10 : 12;
  memcpy(image, "\x93NUMPY", 6);
  image[6] = (uint8_t)version, image[7] = 0;
  for (size_t i = 8; i < first; i++) image[i] = (uint8_t)(n >> (8 * (i - 8)));
  memcpy(image + first, dictionary, n);
  memcpy(image + first + n, values, bytes);
  return first + n + bytes;
}
static int parse(size_t n, npy_array *a, ice_err *e) {
  uint8_t *exact = malloc(n ? n : 1);
  memcpy(exact, image, n);
  const int rc = npy_parse_f32(exact, n, "x.npy", a, e);
  free(exact);
  return rc;
}
static void refused_bytes(size_t n, const char *word) {
  npy_array a = {0};
  ice_err e = {0};
  const int rc = parse(n, &a, &e);
  npy_free(&a);
  assert_int_equal(rc, ICE_DATA);
  if (!strstr(e.text, word) || !strstr(e.text, "x.npy")) fail_msg("'%s' does not say '%s'", e.text, word);
}
static const float four[4] = {1, 2, 3, NAN};
static void refused(const char *dictionary, const char *word) { refused_bytes(build(1, dictionary, four, 16), word); }
#define D(descr, order, shape) "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }\n"

static void test_write__f32_and_i32__reads_back(void **state) {
  (void)state;
  float v[24];
  const int64_t shape[3] = {2, 3, 4};
  npy_array a;
  ice_err e = {0};
  for (int i = 0; i < 24; i++) v[i] = (float)i - 3.5f;
  assert_int_equal(npy_write_f32(scratch_path("a.npy"), 3, shape, v, &e), ICE_OK);
  if (npy_read_f32(scratch_path("a.npy"), &a, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(a.rank, 3);
  assert_int_equal(a.count, 24);
  assert_memory_equal(a.shape, shape, sizeof shape);
  assert_memory_equal(a.f, v, sizeof v);
  npy_free(&a);
  v[5] = 1.0f + 0x1p-12f; /* rounds to 1 */
  assert_int_equal(npy_write_f16(scratch_path("h.npy"), 3, shape, v, &e), ICE_OK);
  if (npy_read_f32(scratch_path("h.npy"), &a, &e) != ICE_OK) fail_msg("%s", e.text);
  v[5] = 1.0f;
  assert_memory_equal(a.shape, shape, sizeof shape);
  assert_memory_equal(a.f, v, sizeof v);
  npy_free(&a);
  const int32_t idx[3] = {-1, 0, 7};
  assert_int_equal(npy_write_i32(scratch_path("i.npy"), 1, (int64_t[]){3}, idx, &e), ICE_OK);
  FILE *f = fopen(scratch_path("i.npy"), "rb");
  uint8_t raw[128 + 13];
  assert_int_equal(fread(raw, 1, sizeof raw, f), 128 + 12); /* header padded to 64, as NumPy does */
  fclose(f);
  assert_non_null(memmem(raw, 128, "'descr': '<i4'", 14));
  assert_memory_equal(raw + 128, idx, sizeof idx);
}

static void test_read__versions_and_dtypes__converted(void **state) {
  (void)state;
  npy_array a;
  ice_err e = {0};
  const uint16_t half[2] = {0x3c00, 0xc100}, brain[2] = {0x3f80, 0xc020}; /* 1, -2.5 */
  const double wide[2] = {1, -2.5};
  const struct {
    const char *dictionary;
    const void *values;
    size_t bytes;
  } form[] = {{D("'<f2'", "False", "(2,)"), half, 4}, {D("'<u2'", "False", "(2,)"), brain, 4}, {D("'<f8'", "False", "(2,)"), wide, 16},
              {"{\"shape\": (2,), \"fortran_order\": True, \"descr\": '<f8'}", wide, 16}}; /* one dimension has no order */
  for (size_t i = 0; i < 4; i++)
    for (int version = 1; version <= 3; version++) {
      if (parse(build(version, form[i].dictionary, form[i].values, form[i].bytes), &a, &e) != ICE_OK) fail_msg("%s", e.text);
      assert_true(a.rank == 1 && a.count == 2 && a.f[0] == 1.0f && a.f[1] == -2.5f);
      npy_free(&a);
    }
}

static void test_read__scalar_and_empty__legal(void **state) {
  (void)state;
  npy_array a;
  ice_err e = {0};
  assert_int_equal(parse(build(1, D("'<f4'", "False", "()"), four, 4), &a, &e), ICE_OK);
  assert_true(a.rank == 0 && a.count == 1 && a.f[0] == 1.0f);
  npy_free(&a);
  assert_int_equal(parse(build(1, D("'<f4'", "False", "(0, 5)"), four, 0), &a, &e), ICE_OK);
  assert_int_equal(a.count, 0);
  npy_free(&a);
}

static void test_read__nan__legal(void **state) {
  (void)state;
  npy_array a;
  ice_err e = {0};
  assert_int_equal(parse(build(1, D("'<f4'", "False", "(4,)"), four, 16), &a, &e), ICE_OK);
  assert_true(isnan(a.f[3]));
  npy_free(&a);
}

static void test_read__every_truncation__refused(void **state) {
  (void)state;
  const size_t n = build(1, D("'<f4'", "False", "(4,)"), four, 16);
  for (size_t cut = 0; cut < n; cut++) refused_bytes(cut, "x.npy");
  image[n] = 0;
  refused_bytes(n + 1, "bytes of values");
}

static void test_read__what_is_not_read__named(void **state) {
  (void)state;
  refused(D("'>f4'", "False", "(4,)"), "dtype '>f4'");
  refused(D("'|O'", "False", "(4,)"), "dtype '|O'");
  refused(D("'<i4'", "False", "(4,)"), "dtype '<i4'");
  refused(D("'<f4'", "True", "(2, 2)"), "Fortran order");
  refused(D("[('a', '<f4')]", "False", "(4,)"), "structured");
  refused(D("'<f4'", "False", "(-4,)"), "negative");
  refused(D("'<f4'", "False", "(4611686018427387904, 4)"), "2^63");
  refused(D("'<f4'", "False", "(99999999999999999999,)"), "2^63");
  refused(D("'<f4'", "False", "(4611686018427387905,)"), "bytes of values");
  refused(D("'<f4'", "False", "(1,1,1,1,1,1,1,1,4)"), "8 dimensions");
  refused(D("'<f4'", "False", "(3,)"), "16 bytes of values");
  refused(D("'<f4'", "False", "4"), "tuple");
  refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4;", "shape does not end");
  refused(D("'<f4'", "None", "(4,)"), "True or False");
  refused("{'descr': '<f4', 'shape': (4,)}", "missing");
  refused("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", "once each");
  refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'more': 1}", "keys must be");
  refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)} x", "after the dictionary");
  refused("", "dictionary");
  build(1, D("'<f4'", "False", "(4,)"), four, 16);
  image[6] = 4;
  refused_bytes(200, "version 4.0");
  image[0] = 'x';
  refused_bytes(200, "does not begin");
}

static void test_read__nul_in_a_string__refused(void **state) {
  (void)state;
  const size_t n = build(1, D("'<f4.'", "False", "(4,)"), four, 16);
  uint8_t *dot = memchr(image, '.', n);
  assert_non_null(dot);
  *dot = 0;
  refused_bytes(n, "NUL");
}

static void test_mask__zeros_and_ones_only(void **state) {
  (void)state;
  npy_array a;
  ice_err e = {0};
  const uint8_t good[3] = {1, 0, 1}, bad[3] = {1, 2, 0};
  size_t n = build(1, D("'|b1'", "False", "(3,)"), good, 3);
  assert_int_equal(npy_read_mask(scratch_write("m.npy", image, n), &a, &e), ICE_OK);
  assert_memory_equal(a.u, good, 3);
  npy_free(&a);
  n = build(1, D("'|u1'", "False", "(3,)"), bad, 3);
  assert_int_equal(npy_read_mask(scratch_write("m.npy", image, n), &a, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "mask value 1 is 2"));
  n = build(1, D("'<f4'", "False", "(4,)"), four, 16);
  assert_int_equal(npy_read_mask(scratch_write("m.npy", image, n), &a, &e), ICE_DATA);
}

static void test_read__not_a_regular_file__refused_at_once(void **state) {
  (void)state;
  npy_array a;
  ice_err e = {0};
  assert_int_equal(npy_read_f32(scratch_folder(), &a, &e), ICE_DATA);
  assert_int_equal(mkfifo(scratch_path("fifo"), 0600), 0);
  assert_int_equal(npy_read_f32(scratch_path("fifo"), &a, &e), ICE_DATA);
  assert_int_equal(npy_read_f32("/dev/zero", &a, &e), ICE_DATA);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_write__f32_and_i32__reads_back),   TEST(test_read__versions_and_dtypes__converted),
      TEST(test_read__scalar_and_empty__legal),    TEST(test_read__nan__legal),
      TEST(test_read__every_truncation__refused),  TEST(test_read__what_is_not_read__named),
      TEST(test_read__nul_in_a_string__refused),
      TEST(test_mask__zeros_and_ones_only),        TEST(test_read__not_a_regular_file__refused_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
