/* test_matrix.c - storage types against their definitions, products against plain loops in double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/half.h"
#include "kernels/core/rng.h"
#include "models/matrix.h"

static void test_expand__every_f16_and_bf16__as_defined(void **state) {
  (void)state;
  enum { ALL = 1 << 16 };
  static uint8_t bytes[2 * ALL + 1];
  static float out[ALL];
  for (int i = 0; i < ALL; i++) memcpy(bytes + 1 + 2 * i, &(uint16_t){(uint16_t)i}, 2); /* at an odd address */
  for (int bf = 0; bf < 2; bf++) {
    const matrix w = {bf ? MATRIX_BF16 : MATRIX_F16, 1, ALL, bytes + 1};
    matrix_expand(&w, 0, 1, out);
    for (int i = 0; i < ALL; i++) {
      const float want = bf ? attn_f32_of_bf16((uint16_t)i) : attn_f32_of_f16((uint16_t)i);
      if (attn_bits_of_f32(out[i]) != attn_bits_of_f32(want)) fail_msg("%s %04x: %a, expected %a", bf ? "bf16" : "f16", (unsigned)i, (double)out[i], (double)want);
    }
  }
}

static void test_q8__reference_quantiser__scale_and_rounding(void **state) {
  (void)state;
  float x[64] = {0}, back[64];
  uint8_t q[68];
  x[0] = 12.7f, x[1] = -12.7f, x[2] = 0.05f, x[3] = -0.05f, x[4] = 0.0499f, x[5] = 6.31f; /* d = 0.1: halves go away from zero */
  matrix_pack(MATRIX_Q8_0, 64, x, q);
  uint16_t h;
  memcpy(&h, q, 2);
  assert_int_equal(h, attn_f16_of_f32(0.1f));
  const int8_t want[] = {127, -127, 1, -1, 0, 63};
  for (int i = 0; i < 6; i++) assert_int_equal((int8_t)q[2 + i], want[i]);
  for (int i = 34; i < 68; i++) assert_int_equal(q[i], 0); /* a block of zeros */
  const matrix w = {MATRIX_Q8_0, 1, 64, q};
  matrix_expand(&w, 0, 1, back);
  for (int i = 0; i < 64; i++) assert_true(back[i] == (float)(i < 6 ? want[i] : 0) * attn_f32_of_f16(h));
}

static void test_row_bytes__types_and_bad_rows(void **state) {
  (void)state;
  size_t n = 0;
  assert_true(matrix_row_bytes(MATRIX_F32, 3, &n) && n == 12);
  assert_true(matrix_row_bytes(MATRIX_F16, 3, &n) && n == 6);
  assert_true(matrix_row_bytes(MATRIX_BF16, 3, &n) && n == 6);
  assert_true(matrix_row_bytes(MATRIX_Q8_0, 64, &n) && n == 68);
  assert_false(matrix_row_bytes(MATRIX_Q8_0, 33, &n));
  assert_false(matrix_row_bytes(2, 32, &n));
  assert_false(matrix_row_bytes(MATRIX_F32, INT64_MAX / 2, &n));
  assert_string_equal(matrix_type_name(8), "Q8_0");
  assert_null(matrix_type_name(12));
}

static void compare(matrix_type type, int64_t rows, int64_t cols, int64_t n, int add, int shift) {
  const ptrdiff_t ldx = cols + 3, ldy = rows + 5;
  size_t row = 0;
  assert_true(matrix_row_bytes(type, cols, &row));
  uint8_t *bytes = malloc((size_t)rows * row + 8), *data = bytes + shift;
  float *w = malloc((size_t)(rows * cols) * 4), *x = malloc((size_t)(n * ldx) * 4), *scratch[2];
  float *y[2];
  attn_rng rng;
  attn_rng_seed(&rng, 5, (uint64_t)(rows * 1000 + cols));
  assert_true(bytes && w && x);
  for (int64_t i = 0; i < rows * cols; i++) w[i] = (float)attn_rng_normal(&rng);
  for (int64_t i = 0; i < n * ldx; i++) x[i] = (float)attn_rng_normal(&rng);
  for (int64_t i = 0; i < rows; i++) matrix_pack(type, cols, w + i * cols, data + (size_t)i * row);
  const matrix m = {type, rows, cols, data};
  matrix_expand(&m, 0, rows, w); /* what is stored */
  for (int t = 0; t < 2; t++) {
    const int threads = t ? 3 : 1;
    scratch[t] = malloc((size_t)matrix_scratch_floats(cols, threads) * 4);
    y[t] = malloc((size_t)(n * ldy) * 4);
    assert_true(scratch[t] && y[t]);
    for (int64_t i = 0; i < n * ldy; i++) y[t][i] = 1.0f;
    matrix_multiply(&m, n, x, ldx, y[t], ldy, add, threads, scratch[t]);
  }
  assert_memory_equal(y[0], y[1], (size_t)(n * ldy) * 4); /* the bits do not depend on threads */
  for (int64_t i = 0; i < n; i++)
    for (int64_t r = 0; r < ldy; r++) {
      double want = add || r >= rows ? 1.0 : 0.0, size = 1.0;
      for (int64_t t = 0; t < cols && r < rows; t++) {
        want += (double)x[i * ldx + t] * (double)w[r * cols + t];
        size += fabs((double)x[i * ldx + t] * (double)w[r * cols + t]);
      }
      if (!(fabs((double)y[0][i * ldy + r] - want) <= 1e-6 * size))
        fail_msg("type %d, %lld x %lld, row %lld, %lld: %g, expected %g", (int)type, (long long)rows, (long long)cols, (long long)i, (long long)r, (double)y[0][i * ldy + r], want);
    }
  free(bytes), free(w), free(x);
  for (int t = 0; t < 2; t++) free(scratch[t]), free(y[t]);
}

static void test_multiply__all_types_and_shapes__as_plain_loops(void **state) {
  (void)state;
  static const matrix_type type[] = {MATRIX_F32, MATRIX_F16, MATRIX_BF16, MATRIX_Q8_0};
  static const int64_t rows[] = {1, 127, 128, 300}, n[] = {1, 4, 5, 40};
  for (int t = 0; t < 4; t++)
    for (int i = 0; i < 4; i++) {
      compare(type[t], rows[i], 96, n[3 - i], 0, 0);
      compare(type[t], rows[i], type[t] == MATRIX_Q8_0 ? 32 : 67, n[i], 1, 1); /* unaligned */
    }
  compare(MATRIX_BF16, 200, 64, 1100, 0, 0); /* several blocks of rows of x */
}

static void test_multiply__not_a_number__stays_in_its_row(void **state) {
  (void)state;
  float w[2 * 32], x[6 * 32], y[12], scratch[3 * 128 * 32];
  for (int i = 0; i < 64; i++) w[i] = 1.0f;
  for (int n = 1; n <= 6; n += 5) {
    for (int i = 0; i < 6 * 32; i++) x[i] = 1.0f;
    x[(n - 1) * 32 + 7] = NAN;
    const matrix m = {MATRIX_F32, 2, 32, (const uint8_t *)w};
    matrix_multiply(&m, n, x, 32, y, 2, 0, 1, scratch);
    for (int i = 0; i < 2 * n; i++) assert_true(i / 2 == n - 1 ? isnan(y[i]) : y[i] == 32.0f);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_expand__every_f16_and_bf16__as_defined),
      cmocka_unit_test(test_q8__reference_quantiser__scale_and_rounding),
      cmocka_unit_test(test_row_bytes__types_and_bad_rows),
      cmocka_unit_test(test_multiply__all_types_and_shapes__as_plain_loops),
      cmocka_unit_test(test_multiply__not_a_number__stays_in_its_row),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
