/* test_micro.c - vector kernels of every instruction set this machine has, against plain loops in double: products, packing, and which set is
 * chosen. Those of rows (softmax, dropout, norms) are in test_micro_rows.c. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/micro_case.h"

/* --- products ------------------------------------------------------------------------------------------------- */

static void test_dot__any_length_and_place__within_rounding(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 0; length(mk, i) >= 0; i++)
    for (int at = 0; at < PLACES; at++) {
      const int64_t n = length(mk, i);
      guard g[2];
      float *x = place(&g[0], n, at), *y = place(&g[1], n, PLACES - 1 - at);
      fill(x, n, (uint64_t)n), fill(y, n, 99);
      double want = 0.0, size = 0.0;
      for (int64_t j = 0; j < n; j++) want += (double)x[j] * y[j], size += fabs((double)x[j] * y[j]);
      /* Terms that one product passes through: its lane's sum, and the sum over lanes and accumulators. */
      const double steps = (double)(n / (2 * mk->lanes) + 3 + mk->lanes);
      assert_close(mk->dot(n, x, y), want, steps * U * size, "dot", n);
      assert_guards(g, 2);
      free_guards(g, 2);
    }
}

static void test_dot__special_values__follow_ieee(void **state) {
  const attn_micro *mk = isa_of(state);
  float x[37], y[37];
  for (int64_t at = 0; at < 37; at++) { /* every lane, body and tail */
    const float rows[][3] = {{NAN, 1, NAN},      {INFINITY, 1, INFINITY},   {INFINITY, -2, -INFINITY},
                             {INFINITY, 0, NAN}, {0x1p-140f, 1, 0x1p-140f}, {0x1p100f, 0x1p100f, INFINITY},
                             {-0.0f, 5, 0}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
      for (int j = 0; j < 37; j++) x[j] = 0.0f, y[j] = 1.0f;
      x[at] = rows[k][0], y[at] = rows[k][1];
      assert_close(mk->dot(37, x, y), rows[k][2], 0.0, "dot", at);
    }
  }
}

static void test_dots__rows__are_scaled_dots(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 0; length(mk, i) >= 0; i++) {
    const int64_t width = length(mk, i), ld = width + 5, rows = 7;
    guard g[3];
    float *x = place(&g[0], width, 4), *y = place(&g[1], rows == 0 ? 0 : (rows - 1) * ld + width, 4);
    float *out = place(&g[2], rows, 5);
    fill(x, width, 1), fill(y, (rows - 1) * ld + width, 2);
    mk->dots(rows, width, x, y, ld, out);
    for (int64_t r = 0; r < rows; r++) assert_bits(out[r], mk->dot(width, x, y + r * ld), "dots", r);
    mk->dots(0, width, x, y, ld, out);
    assert_guards(g, 3);
    free_guards(g, 3);
  }
}

static void test_add_least__any_length_and_place__adds_the_smaller(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 0; length(mk, i) >= 0; i++)
    for (int at = 0; at < PLACES; at++) {
      const int64_t n = length(mk, i);
      guard g[3];
      float *x = place(&g[0], n, at), *y = place(&g[1], n, (at + 1) % PLACES), *z = place(&g[2], n, (at + 3) % PLACES), old[MOST];
      fill(x, n, 41), fill(y, n, 42), fill(z, n, 43);
      memcpy(old, x, (size_t)n * sizeof(float));
      mk->add_least(n, 0.5f, y, 3.0f, z, x);
      for (int64_t j = 0; j < n; j++) assert_bits(x[j], old[j] + fminf(0.5f * y[j], 3.0f * z[j]), "add_least", j);
      assert_guards(g, 3);
      free_guards(g, 3);
    }
}

static void test_max_blocks__nan_and_infinity__largest_of_32(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int at = 0; at < PLACES; at++) {
    guard g[2];
    float *x = place(&g[0], 128, at), *out = place(&g[1], 4, 5);
    fill(x, 128, 44);
    for (int j = 32; j < 64; j++) x[j] = -INFINITY;
    for (int j = 64; j < 96; j++) x[j] = NAN;
    for (int where = 96; where < 128; where++) {
      const float old = x[where];
      x[where] = 100.0f, x[(where + 5) % 32 + 96] = NAN;
      mk->max_blocks(128, x, out);
      assert_bits(out[3], 100.0f, "max_blocks", where);
      x[where] = old, x[(where + 5) % 32 + 96] = 0.0f;
    }
    float top = -INFINITY;
    for (int j = 0; j < 32; j++) top = fmaxf(top, x[j]);
    assert_bits(out[0], top, "max_blocks", 0);
    assert_true(out[1] == -INFINITY && out[2] == -INFINITY);
    assert_guards(g, 2);
    free_guards(g, 2);
  }
}

static void test_axpy__any_length_and_place__two_roundings(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 0; length(mk, i) >= 0; i++)
    for (int at = 0; at < PLACES; at++) {
      const int64_t n = length(mk, i);
      guard g[2];
      float *x = place(&g[0], n, at), *y = place(&g[1], n, PLACES - 1 - at), old[MOST];
      fill(x, n, 3), fill(y, n, 4);
      if (n > 2) x[n - 1] = NAN, x[0] = INFINITY;
      memcpy(old, y, (size_t)n * sizeof(float));
      mk->axpy(n, -1.75f, x, y);
      for (int64_t j = 0; j < n; j++)
        assert_close(y[j], -1.75 * x[j] + old[j], U * (2 * fabs(1.75 * x[j]) + fabs((double)old[j])), "axpy", j);
      assert_guards(g, 2);
      free_guards(g, 2);
    }
}

static void test_argmax__any_length_and_place__lowest_of_the_largest(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 0; length(mk, i) >= 0; i++)
    for (int at = 0; at < PLACES; at++)
      for (int form = 0; form < 4; form++) { /* with bias or without; few values, so that there are ties */
        const int64_t n = length(mk, i);
        guard g[2];
        float *x = place(&g[0], n, at), *bias = place(&g[1], n, PLACES - 1 - at), best, top = -INFINITY;
        fill(x, n, (uint64_t)n), fill(bias, n, 9);
        for (int64_t j = 0; j < n && form > 1; j++) x[j] = roundf(x[j]), bias[j] = j % 11 ? 0.0f : NAN;
        int64_t want = 0;
        for (int64_t j = 0; j < n; j++) {
          const float v = form % 2 ? x[j] + bias[j] : x[j];
          if (v > top) top = v, want = j;
        }
        assert_int_equal(mk->argmax(n, x, form % 2 ? bias : NULL, &best), want);
        assert_true(best == top);
        assert_guards(g, 2);
        free_guards(g, 2);
      }
}

static void test_argmax__special_values__nan_never_wins(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int64_t at = 0; at < 37; at++) {
    const float value[] = {INFINITY, FLT_MAX, -FLT_MAX, 0.0f, -0.0f, 0x1p-149f};
    for (int k = 0; k < 6; k++) {
      float x[37], best;
      for (int j = 0; j < 37; j++) x[j] = j % 2 ? NAN : -INFINITY;
      x[at] = value[k];
      assert_int_equal(mk->argmax(37, x, NULL, &best), at);
      assert_true(best == value[k]);
      x[at] = NAN;
      assert_int_equal(mk->argmax(37, x, NULL, &best), 0);
      assert_true(best == -INFINITY);
    }
  }
}

/* One gemm of given sizes; layout 0: A by rows, 1: A by columns, 2: A with a gap between elements. */
static void check_gemm(const attn_micro *mk, int64_t m, int64_t n, int64_t k, int layout, int packed, int add) {
  const int64_t w = mk->panel, ldc = n + 3, ldb = n + 1;
  const ptrdiff_t ars = layout == 0   ? k + 2
                        : layout == 1 ? 1
                                      : 2 * k + 1,
                  acs = layout == 0   ? 1
                        : layout == 1 ? m + 1
                                      : 2;
  const ptrdiff_t brs = packed ? w : ldb, bps = packed ? w * k : w;
  const int64_t a_size = m && k ? (m - 1) * ars + (k - 1) * acs + 1 : 0, last = (n - 1) % w;
  const int64_t b_size = !n || !k ? 0 : packed ? (n - 1) / w * bps + (k - 1) * w + last + 1 : (k - 1) * ldb + n;
  const int64_t c_size = m && n ? (m - 1) * ldc + n : 0;
  guard g[4];
  float *a = place(&g[0], a_size, 4), *b = place(&g[1], b_size, 4), *c = place(&g[2], c_size, 4);
  float *old = place(&g[3], c_size, 0);
  fill(a, a_size, 5);
  for (int64_t p = 0; p < k; p++) /* what lies between columns of panels and between rows stays NaN */
    for (int64_t j = 0; j < n; j++) fill(b + j / w * bps + p * brs + j % w, 1, (uint64_t)(p * 1000 + j));
  for (int64_t i = 0; i < m; i++) fill(c + i * ldc, n, (uint64_t)i);
  memcpy(old, c, (size_t)c_size * sizeof(float));
  if (!add && k && n)
    for (int64_t i = 0; i < m; i++) c[i * ldc] = NAN; /* is overwritten, not multiplied by 0 */
  mk->gemm(m, n, k, a, ars, acs, b, brs, bps, c, ldc, add);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double want = add ? old[i * ldc + j] : 0.0, size = fabs(want);
      for (int64_t p = 0; p < k; p++) {
        const double t = (double)a[i * ars + p * acs] * b[j / w * bps + p * brs + j % w];
        want += t, size += fabs(t);
      }
      assert_close(c[i * ldc + j], want, 2 * (double)(k + 1) * U * size, "gemm", i * 1000 + j);
    }
  for (int64_t i = 0; i + 1 < m; i++) /* between the rows of C */
    for (int64_t j = n; j < ldc && n; j++) assert_bits(c[i * ldc + j], old[i * ldc + j], "gap of C", j);
  assert_guards(g, 4);
  free_guards(g, 4);
}

static void test_gemm__all_shapes_and_layouts__within_rounding(void **state) {
  const attn_micro *mk = isa_of(state);
  const int64_t rows = mk->rows, w = mk->panel, lanes = mk->lanes;
  const int64_t ms[] = {0, 1, 3, 4, rows - 1, rows, rows + 1, 2 * rows + 5};
  const int64_t ns[] = {0, 1, lanes - 1, lanes, lanes + 1, w - 1, w, w + 1, 2 * w + 3}, ks[] = {0, 1, 2, 33};
  for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
    for (size_t j = 0; j < sizeof ns / sizeof *ns; j++)
      for (size_t p = 0; p < sizeof ks / sizeof *ks; p++)
        for (int layout = 0; layout < 3; layout++)
          for (int form = 0; form < 4; form++) check_gemm(mk, ms[i], ns[j], ks[p], layout, form & 1, form >> 1);
}

static void test_gemm__rows__do_not_depend_on_their_tile(void **state) {
  const attn_micro *mk = isa_of(state);
  enum { M = 31, N = 37, K = 29 };
  float a[M * K], b[K * N], c[M * N], one[N];
  fill(a, M * K, 6), fill(b, K * N, 7);
  mk->gemm(M, N, K, a, K, 1, b, N, mk->panel, c, N, 0);
  for (int64_t i = 0; i < M; i++) {
    mk->gemm(1, N, K, a + i * K, K, 1, b, N, mk->panel, one, N, 0);
    for (int64_t j = 0; j < N; j++) assert_bits(c[i * N + j], one[j], "row alone", j);
  }
}

static void test_gemm__nan__stays_in_its_row_and_column(void **state) {
  const attn_micro *mk = isa_of(state);
  enum { M = 14, N = 37, K = 9 };
  float a[M * K], b[K * N], c[M * N];
  fill(a, M * K, 6), fill(b, K * N, 7);
  a[5 * K + 3] = NAN, b[2 * N + 35] = INFINITY;
  mk->gemm(M, N, K, a, K, 1, b, N, mk->panel, c, N, 0);
  for (int64_t i = 0; i < M; i++)
    for (int64_t j = 0; j < N; j++) assert_int_equal(isfinite(c[i * N + j]), i != 5 && j != 35);
}

/* --- 8-bit products -------------------------------------------------------------------------------------------- */

static void test_quantise__any_length__nearest_step_of_127(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 0; length(mk, i) >= 0; i++)
    for (int at = 0; at < PLACES; at++) {
      const int64_t n = length(mk, i);
      guard g;
      float *x = place(&g, n, at), most = 0.0f;
      int8_t out[MOST];
      fill(x, n, 31);
      for (int64_t j = 0; j < n; j++) most = fmaxf(most, fabsf(x[j]));
      const float scale = mk->quantise(n, x, out);
      assert_close(scale, most / 127.0, 2 * U * most / 127.0, "scale", n);
      for (int64_t j = 0; j < n; j++) {
        assert_close(out[j] * (double)scale, x[j], 0.5001 * (double)scale, "quantise", j);
        if (fabsf(x[j]) == most) assert_int_equal(out[j], x[j] < 0.0f ? -127 : 127);
      }
      assert_guards(&g, 1);
      free_guards(&g, 1);
    }
}

static void test_quantise__special_values__zero_or_nan(void **state) {
  const attn_micro *mk = isa_of(state);
  float x[40] = {0};
  int8_t out[40];
  memset(out, 1, sizeof out);
  assert_true(mk->quantise(40, x, out) == 0.0f && out[0] == 0 && out[39] == 0);
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (int k = 0; k < 3; k++)
    for (int at = 0; at < 40; at++) {
      for (int j = 0; j < 40; j++) x[j] = j == at ? bad[k] : 1.0f;
      memset(out, 1, sizeof out);
      assert_true(isnan(mk->quantise(40, x, out)) && out[0] == 0 && out[39] == 0);
    }
  x[0] = 0x1p-120f;
  for (int j = 1; j < 40; j++) x[j] = 0.0f;
  assert_true(mk->quantise(40, x, out) == 0.0f && out[0] == 0);
}

/* Rows and columns go through the packing, and the sum is that of the packed integers, exactly. */
static void test_gemm_i8__all_shapes__exact_sums_of_integers(void **state) {
  const attn_micro *mk = isa_of(state);
  const int64_t widths[] = {1, 3, 4, 31, 128};
  for (int w = 0; w < 5; w++)
    for (int64_t m = 1; m <= 2 * mk->rows + 1; m += mk->rows / 2)
      for (int64_t n = 1; n <= 2 * mk->panel + 1; n += n == 1 ? mk->panel - 2 : 1 + n % 2 * (mk->panel - 3)) {
        enum { WIDE = 128, TALL = 33, LONG = 65 };
        const int64_t k = widths[w], kw = attn_width_i8(k), ld = n + 2;
        guard g[4];
        float *x = place(&g[0], TALL * WIDE, 4), *y = place(&g[1], LONG * WIDE, 4), *c = place(&g[2], (m - 1) * ld + n, 5);
        float *bias = place(&g[3], n, 5), as[TALL], bs[96];
        uint8_t a[TALL * WIDE];
        static _Alignas(64) int8_t b[96 * (WIDE + 4)];
        int8_t tmp[WIDE], row[WIDE], column[WIDE];
        fill(x, m * k, 32), fill(y, n * k, 33), fill(bias, n, 34);
        attn_rows_i8(mk, m, k, x, k, NULL, a, as);
        attn_pack_i8(mk, n, k, y, k, NULL, b, bs, tmp);
        assert_true(attn_bytes_i8(mk, n, k) <= (int64_t)sizeof b);
        for (int biased = 0; biased < 2; biased++) {
          mk->gemm_i8(m, n, kw, a, kw, b, as, bs, biased ? bias : NULL, c, ld);
          for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
              int32_t sum = 0;
              (void)mk->quantise(k, x + i * k, row), (void)mk->quantise(k, y + j * k, column);
              for (int64_t t = 0; t < k; t++) sum += row[t] * column[t];
              const float product = (float)sum * as[i] * bs[j];
              assert_bits(c[i * ld + j], product + (biased ? bias[j] : 0.0f), "gemm_i8", i * 1000 + j);
            }
        }
        assert_guards(g, 4);
        free_guards(g, 4);
      }
}

static void test_gemm_i8__largest_sum__does_not_overflow(void **state) {
  const attn_micro *mk = isa_of(state);
  enum { WIDE = 32768 };
  float *x = malloc(WIDE * sizeof *x), as, bs, c;
  uint8_t *a = malloc(WIDE);
  int8_t *tmp = malloc(WIDE), *b = malloc((size_t)attn_bytes_i8(mk, 1, WIDE));
  for (int sign = -1; sign <= 1; sign += 2) {
    for (int64_t t = 0; t < WIDE; t++) x[t] = 1.0f;
    attn_rows_i8(mk, 1, WIDE, x, WIDE, NULL, a, &as);
    for (int64_t t = 0; t < WIDE; t++) x[t] = (float)sign;
    attn_pack_i8(mk, 1, WIDE, x, WIDE, NULL, b, &bs, tmp);
    mk->gemm_i8(1, 1, WIDE, a, WIDE, b, &as, &bs, NULL, &c, 1);
    assert_close(c, sign * (double)WIDE, 1.0, "product", 0);
  }
  free(x), free(a), free(b), free(tmp);
}

/* --- packing and dispatch ------------------------------------------------------------------------------------- */

static void test_pack__any_shape__follows_definition(void **state) {
  const attn_micro *mk = isa_of(state);
  const int64_t w = mk->panel, sizes[] = {0, 1, w - 1, w, w + 1, 2 * w + 3};
  for (int a = 0; a < 6; a++)
    for (int b = 1; b < 6; b++)
      for (int pick = 0; pick < 2; pick++) {
        const int64_t n = sizes[a], d = sizes[b], ld = d + 1, source = 2 * n + 1;
        guard g[3];
        float *x = place(&g[0], (source - 1) * ld + d, 4), *t = place(&g[1], attn_panels(mk, n) * w * d, 4);
        float *p = place(&g[2], attn_panels(mk, d) * w * n, 4);
        int32_t idx[200];
        fill(x, (source - 1) * ld + d, 40);
        for (int64_t j = 0; j < n; j++) idx[j] = (int32_t)(2 * j + 1);
        attn_pack_transposed(mk, n, d, x, ld, pick ? idx : NULL, 0.5f, t);
        const int64_t half = n / 2; /* in two parts */
        attn_pack_panels(mk, n, half, d, x, ld, pick ? idx : NULL, p);
        attn_pack_panels(mk, n, n - half, d, pick ? x : x + half * ld, ld, pick ? idx + half : NULL, p + half * mk->panel);
        for (int64_t j = 0; j < attn_panels(mk, n) * w; j++)
          for (int64_t c = 0; c < d; c++) {
            const float want = j < n ? x[(pick ? idx[j] : j) * ld + c] * 0.5f : 0.0f;
            assert_bits(t[j / w * w * d + c * w + j % w], want, "transposed", j);
          }
        for (int64_t j = 0; j < n; j++)
          for (int64_t c = 0; c < attn_panels(mk, d) * w; c++) {
            const float want = c < d ? x[(pick ? idx[j] : j) * ld + c] : 0.0f;
            assert_bits(p[c / w * w * n + j * w + c % w], want, "panels", j);
          }
        assert_guards(g, 3);
        free_guards(g, 3);
      }
}

static void test_set__constants__fit_the_callers(void **state) {
  const attn_micro *mk = isa_of(state);
  assert_true(strncmp(mk->name, *state, strlen(mk->name)) == 0);
  assert_int_equal(mk->panel, 2 * mk->lanes);
  assert_true(mk->lanes >= 1 && 16 % mk->lanes == 0); /* softmax_block's sums, drop_block's groups */
  assert_true(mk->rows >= 1 && 96 % mk->rows == 0 && mk->rows <= 16);
}

static void test_drop_make__rates__round_to_16_bits(void **state) {
  (void)state;
  assert_int_equal(attn_drop_make(0.0f, 1).threshold, 0);
  assert_int_equal(attn_drop_make(0.5f, 1).threshold, 32768);
  assert_int_equal(attn_drop_make(0.1f, 1).threshold, 6554);
  assert_true(attn_drop_make(0.5f, 1).scale == 2.0f && attn_drop_make(0.0f, 1).scale == 1.0f);
  const attn_drop none = attn_drop_make(0.0f, 1), all = attn_drop_make(0x1.fffffep-1f, 1);
  for (int64_t j = 0; j < 100; j++) assert_true(attn_drop_at(&none, j, j) == 1.0f && attn_drop_at(&all, j, j) == 0.0f);
}

/* What a fresh process chooses under ATTN_ISA = asked (NULL: unset): "name|error" in line. */
static void choice(const char *asked, char *line, int size) {
  char command[4096], self[3000];
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  assert_true(n > 0);
  self[n] = 0;
  if (asked)
    (void)setenv("ATTN_ISA", asked, 1);
  else
    (void)unsetenv("ATTN_ISA");
  (void)snprintf(command, sizeof command, "'%s' --choice", self);
  FILE *f = popen(command, "r");
  assert_non_null(f);
  assert_non_null(fgets(line, size, f));
  assert_int_equal(pclose(f), 0);
  (void)unsetenv("ATTN_ISA");
}

static void test_dispatch__environment__decides_or_complains(void **state) {
  (void)state;
  char line[512], best[512], want[64];
  choice(NULL, best, sizeof best);
  const char *const names[] = {"scalar", "avx2", "avx512"};
  for (int i = 0; i < 3; i++) {
    choice(names[i], line, sizeof line);
    if (attn_micro_named(names[i])) {
      (void)snprintf(want, sizeof want, "%s|\n", names[i]);
      assert_string_equal(line, want);
    } else {
      assert_non_null(strstr(line, "absent on this CPU"));
    }
  }
  choice("", line, sizeof line);
  assert_string_equal(line, best);
  choice("sse9", line, sizeof line);
  assert_non_null(strstr(line, "ATTN_ISA=sse9"));
  assert_non_null(strstr(line, "scalar, avx2, avx512"));
  assert_null(attn_micro_named("sse9"));
}

static const isa_test per_isa[] = {
    ISA_TEST(test_set__constants__fit_the_callers),
    ISA_TEST(test_dot__any_length_and_place__within_rounding),
    ISA_TEST(test_dot__special_values__follow_ieee),
    ISA_TEST(test_dots__rows__are_scaled_dots),
    ISA_TEST(test_argmax__any_length_and_place__lowest_of_the_largest),
    ISA_TEST(test_argmax__special_values__nan_never_wins),
    ISA_TEST(test_add_least__any_length_and_place__adds_the_smaller),
    ISA_TEST(test_max_blocks__nan_and_infinity__largest_of_32),
    ISA_TEST(test_axpy__any_length_and_place__two_roundings),
    ISA_TEST(test_gemm__all_shapes_and_layouts__within_rounding),
    ISA_TEST(test_gemm__rows__do_not_depend_on_their_tile),
    ISA_TEST(test_gemm__nan__stays_in_its_row_and_column),
    ISA_TEST(test_quantise__any_length__nearest_step_of_127),
    ISA_TEST(test_quantise__special_values__zero_or_nan),
    ISA_TEST(test_gemm_i8__all_shapes__exact_sums_of_integers),
    ISA_TEST(test_gemm_i8__largest_sum__does_not_overflow),
    ISA_TEST(test_pack__any_shape__follows_definition),
};
enum { PER_ISA = sizeof per_isa / sizeof *per_isa };

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "--choice") == 0) {
    printf("%s|%s\n", attn_isa_name(), attn_micro_error() ? attn_micro_error() : "");
    return 0;
  }
  static const struct CMUnitTest once[] = {
      cmocka_unit_test(test_drop_make__rates__round_to_16_bits),
      cmocka_unit_test(test_dispatch__environment__decides_or_complains),
  };
  return isa_run("micro", once, sizeof once / sizeof *once, per_isa, PER_ISA);
}
