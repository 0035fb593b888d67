/* test_knn.c - the search kernels of every instruction set this machine has (micro/knn.inc), against plain loops: scores of a
 * cell, sifting by a floor, the k best, weighted sums of rows. Buffers end where the comment of the kernel says they may. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/rng.h"
#include "kernels/core/select.h"
#include "tests/support/guard.h"
#include "tests/support/isa.h"

static const double U = 0x1p-24;

static float *numbers(guard *g, int64_t n, uint64_t seed) { /* ends at an unmapped page */
  attn_rng r;
  attn_rng_seed(&r, seed, 1);
  float *x = guard_new(g, n, 0, 1);
  for (int64_t i = 0; i < n; i++) x[i] = (float)attn_rng_normal(&r);
  return x;
}
static int32_t *places(guard *g, int64_t n, int64_t below, uint64_t seed) {
  attn_rng r;
  attn_rng_seed(&r, seed, 2);
  int32_t *x = (int32_t *)(void *)guard_new(g, n, 0, 1);
  for (int64_t i = 0; i < n; i++) x[i] = (int32_t)attn_rng_below(&r, (uint64_t)below);
  return x;
}
static void drop(guard *g, int count) {
  for (int i = 0; i < count; i++) assert_true(guard_intact(g + i)), guard_free(g + i);
}

static void test_scores__any_shape__chain_of_products_in_order(void **state) {
  const attn_micro *mk = isa_of(state);
  static const int64_t rows[] = {0, 1, 2, 3, 5, 8, 13, 29}, columns[] = {1, 3, 4, 5, 8, 15, 16, 17, 31, 33, 64}, depths[] = {1, 7, 32, 129};
  enum { ROWS = 20, BEHIND = 15 };
  for (int i = 0; i < 8; i++)
    for (int j = 0; j < 11; j++)
      for (int p = 0; p < 4; p++) {
        const int64_t m = rows[i], n = columns[j], d = depths[p], lda = d + 2, ldb = n + j % 2, ldc = (n + BEHIND) / 16 * 16 + 16;
        guard g[4];
        float *a = numbers(&g[0], ROWS * lda, 1), *b = numbers(&g[1], (d - 1) * ldb + n + mk->lanes - 1, 2), *c = guard_new(&g[2], m * ldc, 0, 1);
        int32_t *row = places(&g[3], m, ROWS, 3);
        mk->scores(m, n, d, a, lda, row, b, ldb, c, ldc);
        for (int64_t x = 0; x < m; x++)
          for (int64_t y = 0; y < n; y++) {
            double want = 0.0, size = 0.0;
            float chain = 0.0f;
            for (int64_t t = 0; t < d; t++) {
              const float u = a[row[x] * lda + t], v = b[t * ldb + y];
              want += (double)u * v, size += fabs((double)u * v);
              chain = mk->lanes == 4 ? chain + u * v : fmaf(u, v, chain);
            }
            if (c[x * ldc + y] != chain || fabs((double)c[x * ldc + y] - want) > (double)(d + 1) * U * size)
              fail_msg("m=%d n=%d d=%d: score (%d,%d) = %.9g, expected %.9g", (int)m, (int)n, (int)d, (int)x, (int)y, (double)c[x * ldc + y], (double)chain);
          }
        drop(g, 4);
      }
}

static void test_sift__any_floor__survivors_in_order(void **state) {
  const attn_micro *mk = isa_of(state);
  static const float floors[] = {-INFINITY, -0.5f, 0.0f, 1.0f, INFINITY};
  for (int64_t n = 0; n <= 70; n++)
    for (int f = 0; f < 5; f++)
      for (int listed = 0; listed < 2; listed++) {
        guard g[4];
        float *s = numbers(&g[0], n + mk->lanes - 1, (uint64_t)n), *score = guard_new(&g[1], n + mk->lanes - 1, 0, 1);
        int32_t *ids = places(&g[2], n, 1000, 5), *id = (int32_t *)(void *)guard_new(&g[3], n + mk->lanes - 1, 0, 1);
        if (n > 3) s[n / 2] = floors[f] / 2; /* one that just stays */
        const int64_t count = mk->sift(n, s, 2.0f, floors[f], 40, listed ? ids : NULL, score, id);
        int64_t want = 0;
        for (int64_t j = 0; j < n; j++) {
          if (2.0f * s[j] < floors[f]) continue;
          assert_true(want < count && score[want] == 2.0f * s[j]);
          assert_int_equal(id[want++], listed ? ids[j] : 40 + j);
        }
        assert_int_equal(count, want);
        drop(g, 4);
      }
}

static void test_above__any_length__counts(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int64_t n = 0; n <= 70; n++) {
    guard g;
    float *x = numbers(&g, n, (uint64_t)n);
    if (n > 2) x[n / 2] = 0.25f; /* equal is not above */
    int64_t want = 0;
    for (int64_t j = 0; j < n; j++) want += x[j] > 0.25f;
    assert_int_equal(mk->above(n, x, 0.25f), want);
    assert_int_equal(mk->above(n, x, -INFINITY), n);
    drop(&g, 1);
  }
}

/* Against a full sort; values from few to many equal ones, both zeros, both signs, all magnitudes. */
static void test_select_best__any_data__the_k_best_in_their_order(void **state) {
  const attn_micro *mk = isa_of(state);
  attn_rng r;
  attn_rng_seed(&r, 9, 1);
  for (int trial = 0; trial < 3000; trial++) {
    enum { MOST = 90 };
    const int64_t n = 1 + (int64_t)attn_rng_below(&r, MOST), k = (int64_t)attn_rng_below(&r, (uint64_t)n + 2);
    const int kind = trial % 6;
    guard g[2];
    float *score = guard_new(&g[0], n + mk->lanes - 1, 0, 1), before[MOST];
    int32_t *id = (int32_t *)(void *)guard_new(&g[1], n + mk->lanes - 1, 0, 1), old[MOST];
    attn_hit hit[MOST];
    for (int64_t i = 0; i < n; i++) {
      const double x = attn_rng_normal(&r);
      const uint64_t few = attn_rng_below(&r, 4);
      score[i] = kind == 0   ? (float)x
                 : kind == 1 ? (float)(few % 2)
                 : kind == 2 ? 3.5f
                 : kind == 3 ? (float)(x * pow(10.0, 60.0 * (attn_rng_uniform(&r) - 0.5)))
                 : kind == 4 ? (few < 2 ? 0.0f : few == 2 ? -0.0f : (float)x)
                             : (few == 0 ? 3e38f : few == 1 ? -3e38f : (float)x * 1e-44f);
      id[i] = (int32_t)((i * 37 + 11) % 97);
      before[i] = score[i], old[i] = id[i], hit[i] = (attn_hit){score[i], id[i]};
    }
    attn_select(hit, n, k);
    const float bar = mk->select_best(n, k, score, id);
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
      int chosen = k >= n || k == 0;
      for (int64_t j = 0; j < k && j < n; j++) chosen |= hit[j].id == old[i];
      if (!(chosen ? before[i] >= bar : before[i] <= bar)) fail_msg("trial %d: bar %g, score %g", trial, (double)bar, (double)before[i]);
      if (!chosen) continue;
      if (memcmp(&score[at], &before[i], sizeof(float)) != 0 || id[at] != old[i])
        fail_msg("trial %d: n=%d k=%d: place %d holds %g of %d, expected %g of %d", trial, (int)n, (int)k, (int)at, (double)score[at], id[at], (double)before[i], old[i]);
      at++;
    }
    assert_int_equal(at, k == 0 || k > n ? n : k);
    drop(g, 2);
  }
}

static void test_weigh_rows__any_width__sums_within_rounding(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int64_t width = 1; width <= 140; width += width < 40 ? 1 : 17)
    for (int64_t n = 0; n < 6; n++) {
      enum { ROWS = 9 };
      const int64_t ld = width + 3;
      guard g[4];
      float *x = numbers(&g[0], (ROWS - 1) * ld + width, 1), *w = numbers(&g[1], n, 2), *y = guard_new(&g[2], width, 0, 1);
      int32_t *row = places(&g[3], n, ROWS, (uint64_t)width);
      mk->weigh_rows(n, w, row, x, ld, width, y);
      for (int64_t t = 0; t < width; t++) {
        double want = 0.0, size = 0.0;
        for (int64_t i = 0; i < n; i++) want += (double)w[i] * x[row[i] * ld + t], size += fabs((double)w[i] * x[row[i] * ld + t]);
        assert_true(fabs((double)y[t] - want) <= (double)(n + 1) * U * size);
      }
      drop(g, 4);
    }
}

static void test_weigh_rows__nan__reaches_its_column_only(void **state) {
  const attn_micro *mk = isa_of(state);
  enum { WIDTH = 37 };
  float x[3 * WIDTH], y[WIDTH];
  const float w[2] = {1.0f, 2.0f};
  const int32_t row[2] = {0, 2};
  for (int i = 0; i < 3 * WIDTH; i++) x[i] = i / WIDTH == 1 ? NAN : 1.0f;
  x[2 * WIDTH + 5] = NAN;
  mk->weigh_rows(2, w, row, x, WIDTH, WIDTH, y);
  for (int t = 0; t < WIDTH; t++) assert_true(t == 5 ? isnan(y[t]) : y[t] == 3.0f);
}

static const isa_test per_isa[] = {
    ISA_TEST(test_scores__any_shape__chain_of_products_in_order),
    ISA_TEST(test_sift__any_floor__survivors_in_order),
    ISA_TEST(test_above__any_length__counts),
    ISA_TEST(test_select_best__any_data__the_k_best_in_their_order),
    ISA_TEST(test_weigh_rows__any_width__sums_within_rounding),
    ISA_TEST(test_weigh_rows__nan__reaches_its_column_only),
};
enum { PER_ISA = sizeof per_isa / sizeof *per_isa };

int main(void) { return isa_run("knn", NULL, 0, per_isa, PER_ISA); }
