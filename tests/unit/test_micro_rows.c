/* test_micro_rows.c - vector kernels of every instruction set this machine has, against plain loops in double: exponentials, softmax, dropout, norms,
 * GELU. Products are in test_micro.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/micro_case.h"

/* --- exponentials and softmax --------------------------------------------------------------------------------- */

/* Largest error in ulps over n values x (n a multiple of nothing in particular). */
static double exp2_error(const attn_micro *mk, int64_t n, const float *x) {
  float y[MOST];
  const float zero = 0.0f;
  double worst = 0.0;
  memcpy(y, x, (size_t)n * sizeof(float));
  mk->exp2_block(1, n, y, n, NULL, &zero);
  for (int64_t i = 0; i < n; i++) {
    const double want = exp2((double)x[i]);
    int e;
    (void)frexp(want, &e);
    const double ulps = fabs((double)y[i] - want) / ldexp(1.0, e - 24);
    if (!(ulps <= worst)) worst = ulps;
  }
  return worst;
}

static void test_exp2__whole_domain__below_two_ulp(void **state) {
  const attn_micro *mk = isa_of(state);
  float x[MOST];
  double worst = 0.0;
  int64_t n = 0;
  /* [-126, 128) at steps of 2^-12 with a random shift, then bit patterns of all magnitudes at a prime stride. */
  attn_rng r;
  attn_rng_seed(&r, 1, 2);
  for (int64_t i = -126 * 4096; i < 128 * 4096; i++) {
    x[n++] = (float)(((double)i + 0.999 * attn_rng_uniform(&r)) / 4096.0);
    if (n == MOST) worst = fmax(worst, exp2_error(mk, n, x)), n = 0;
  }
  for (uint32_t bits = 0; bits < 0x43000000u; bits += 1511) {
    for (uint32_t sign = 0; sign < 2; sign++) {
      const uint32_t pattern = bits | sign << 31;
      memcpy(x + n, &pattern, sizeof pattern);
      if (x[n] >= -126.0f && x[n] < 128.0f) n++;
    }
    if (n >= MOST - 1) worst = fmax(worst, exp2_error(mk, n, x)), n = 0;
  }
  /* Both sides of every half integer, where the exponent changes. */
  for (int i = -251; i < 256; i++) {
    const float edge = (float)i / 2;
    x[n++] = nextafterf(edge, -INFINITY), x[n++] = edge, x[n++] = nextafterf(edge, INFINITY);
    if (i == 255) n--; /* beyond 128 - 1/2 there is nothing to round to but 128 itself, tested below */
    if (n >= MOST - 3) worst = fmax(worst, exp2_error(mk, n, x)), n = 0;
  }
  worst = fmax(worst, exp2_error(mk, n, x));
  if (!(worst < 2.0)) fail_msg("worst error %.3f ulp", worst);
}

static void test_exp2__special_values__exact(void **state) {
  const attn_micro *mk = isa_of(state);
  const float under = nextafterf(-126.0f, -INFINITY), over = nextafterf(128.0f, 0.0f);
  const float in[] = {-INFINITY, -1e30f, -127, under, -126, 0.0f, -0.0f, 0x1p-140f, 128, 1e30f, INFINITY, NAN, over};
  const float out[] = {0, 0, 0, 0, 0x1p-126f, 1, 1, 1, INFINITY, INFINITY, INFINITY, NAN, 0};
  enum { N = sizeof in / sizeof *in };
  for (int64_t pad = 0; pad < 17; pad++) { /* each value in each lane */
    float x[N + 17] = {0};
    memcpy(x + pad, in, sizeof in);
    mk->exp2_block(1, N + pad, x, N + pad, NULL, &(float){0});
    for (int64_t i = 0; i + 1 < N; i++) assert_close(x[pad + i], out[i], 0.0, "exp2", i);
    assert_true(isfinite(x[pad + N - 1]) && x[pad + N - 1] > 0x1.fffp127f);
  }
  for (int i = -126; i < 128; i++) {
    float x = (float)i;
    mk->exp2_block(1, 1, &x, 1, NULL, &(float){0});
    assert_bits(x, ldexpf(1.0f, i), "power of two", i);
  }
}

static void test_exp2_block__ragged_rows__zero_past_their_end(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 0; length(mk, i) >= 0; i++)
    for (int at = 0; at < PLACES; at++) {
      const int64_t cols = length(mk, i), ld = cols + 2, rows = 5;
      const int32_t n[] = {(int32_t)cols, 0, (int32_t)(cols / 2), (int32_t)cols, (int32_t)cols};
      const float lse[] = {1.5f, 0.0f, -2.0f, -INFINITY, 40.0f};
      guard g[2];
      float *s = place(&g[0], (rows - 1) * ld + cols, at), *old = place(&g[1], (rows - 1) * ld + cols, 0);
      for (int64_t r = 0; r < rows; r++) fill(s + r * ld, cols, (uint64_t)r);
      memcpy(old, s, (size_t)((rows - 1) * ld + cols) * sizeof(float));
      mk->exp2_block(rows, cols, s, ld, n, lse);
      for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < ld && r * ld + j < (rows - 1) * ld + cols; j++) {
          if (j >= cols)
            assert_bits(s[r * ld + j], old[r * ld + j], "gap", j);
          else if (j >= n[r] || lse[r] == -INFINITY)
            assert_bits(s[r * ld + j], 0.0f, "past the end", j);
          else { /* the subtraction rounds once, exp2 adds 2 ulp */
            const double x = (double)old[r * ld + j] - lse[r], want = exp2(x);
            assert_close(s[r * ld + j], want, want * (fabs(x) * U * M_LN2 + 4 * U), "exp2_block", j);
          }
        }
      assert_guards(g, 2);
      free_guards(g, 2);
    }
}

/* Online softmax of one row of `total` logits in blocks of `step`, with an output of two columns, against the sums in
 * double. What the logits hold is the caller's. */
static void check_softmax(const attn_micro *mk, int64_t total, int64_t step, const float *logits, int ragged) {
  guard g[3];
  float *s = place(&g[0], step, 4), *l = place(&g[1], 16, 4), *o = place(&g[2], 2, 5), m = -INFINITY;
  memset(l, 0, 16 * sizeof(float));
  o[0] = o[1] = 0.0f;
  for (int64_t j0 = 0; j0 < total; j0 += step) {
    const int32_t n = (int32_t)(total - j0 < step ? total - j0 : step);
    const int64_t cols = ragged ? step : n;
    memcpy(s, logits + j0, (size_t)n * sizeof(float));
    mk->softmax_block(1, cols, s, cols, ragged ? &n : NULL, &m, l, o, 2, 2);
    for (int64_t j = n; j < cols; j++) assert_bits(s[j], 0.0f, "past the end", j);
    for (int64_t j = 0; j < n; j++) o[0] += s[j], o[1] += s[j] * (float)((j0 + j) % 7);
  }
  double top = -INFINITY, sum = 0.0, first = 0.0, lanes = 0.0;
  for (int64_t j = 0; j < total; j++) top = fmax(top, (double)logits[j]);
  for (int64_t j = 0; j < total && top > -INFINITY; j++) {
    const double e = exp2((double)logits[j] - top);
    sum += e, first += e * (double)(j % 7);
  }
  for (int i = 0; i < 16; i++) lanes += (double)l[i];
  assert_close(m, top, 0.0, "maximum", total);
  /* A weight carries the rounding of s - m (at most 30 here: below that it is negligible), 2 ulp of exp2, and one
   * rounding per rescaling and per addition. */
  const double bound = (30 * M_LN2 + 6 + 2.0 * (double)(total / step + 1) + (double)total) * U;
  assert_close(lanes, sum, bound * sum, "sum", total);
  assert_close(o[0], sum, bound * sum, "o", 0);
  assert_close(o[1], first, bound * 7 * sum, "o", 1);
  assert_guards(g, 3);
  free_guards(g, 3);
}

static void test_softmax_block__blocks_of_a_row__sum_to_softmax(void **state) {
  const attn_micro *mk = isa_of(state);
  float x[MOST];
  for (int kind = 0; kind < 4; kind++) { /* gaussian, rising, falling, with -inf */
    fill(x, MOST, 11);
    for (int64_t j = 0; j < MOST; j++) {
      if (kind == 1) x[j] = (float)j * 0.125f;
      if (kind == 2) x[j] = (float)j * -0.25f;
      if (kind == 3 && (j < 300 || j % 3 == 0)) x[j] = -INFINITY;
    }
    for (int i = 1; length(mk, i) >= 0; i++)
      for (int64_t step = 1; step <= 257; step = step == 1 ? mk->lanes + 1 : step == mk->lanes + 1 ? 128 : step + 129)
        for (int ragged = 0; ragged < 2; ragged++) check_softmax(mk, length(mk, i), step, x, ragged);
  }
}

static void test_softmax_block__only_minus_infinity__stays_empty(void **state) {
  const attn_micro *mk = isa_of(state);
  float s[2 * 40], m[2] = {-INFINITY, -INFINITY}, l[32] = {0}, o[2] = {0};
  const int32_t n[] = {40, 0};
  for (int j = 0; j < 80; j++) s[j] = -INFINITY;
  mk->softmax_block(2, 40, s, 40, n, m, l, o, 1, 1);
  for (int j = 0; j < 80; j++) assert_bits(s[j], 0.0f, "weight", j);
  for (int j = 0; j < 32; j++) assert_bits(l[j], 0.0f, "sum", j);
  assert_true(m[0] == -INFINITY && m[1] == -INFINITY && o[0] == 0.0f);
}

static void test_softmax_block__nan_or_overflow__shows_in_its_own_row(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int64_t at = 0; at < 40; at++) {
    float s[3 * 40], m[3] = {-INFINITY, -INFINITY, -INFINITY}, l[48] = {0}, o[3] = {0}, sum[3] = {0};
    fill(s, 120, 12);
    s[at] = NAN, s[40 + at] = INFINITY;
    mk->softmax_block(3, 40, s, 40, NULL, m, l, o, 1, 1);
    for (int r = 0; r < 3; r++)
      for (int i = 0; i < 16; i++) sum[r] += l[r * 16 + i];
    assert_true(isnan(sum[0]) && isnan(s[at]));
    assert_true(isnan(sum[1]));
    assert_true(isfinite(sum[2]) && sum[2] >= 1.0f && isfinite(m[0]) && isfinite(m[2]));
  }
}

/* --- weigh_block ----------------------------------------------------------------------------------------------- */

enum { WEIGH_KEYS = 512, WEIGH_STEP = 128, WEIGH_MOST = 30 };

typedef struct weighed { /* of up to WEIGH_MOST rows: state of the softmax, and an output of two columns */
  float m[WEIGH_MOST], l[WEIGH_MOST * 16], o[WEIGH_MOST * 2];
} weighed;

/* Rows of logits q[i] * x[j] (width 1, so products are exact up to one rounding) through weigh_block, step by step. */
static void weigh(const attn_micro *mk, int64_t rows, const float *q, const float *x, weighed *w) {
  const int64_t ld = WEIGH_STEP + 3;
  guard g[2];
  float *s = place(&g[0], (rows - 1) * ld + WEIGH_STEP, 5), *kt = place(&g[1], WEIGH_STEP, 4);
  for (int64_t i = 0; i < rows; i++) w->m[i] = -INFINITY;
  memset(w->l, 0, sizeof w->l), memset(w->o, 0, sizeof w->o);
  for (int64_t j0 = 0; j0 < WEIGH_KEYS; j0 += WEIGH_STEP) {
    memcpy(kt, x + j0, WEIGH_STEP * sizeof(float)); /* of width 1, panels are the keys in order */
    mk->weigh_block(rows, WEIGH_STEP, 1, q, 1, kt, s, ld, w->m, w->l, w->o, 2, 2);
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < WEIGH_STEP; j++) {
        w->o[2 * i] += s[i * ld + j];
        w->o[2 * i + 1] += s[i * ld + j] * (float)((j0 + j) % 7);
      }
  }
  assert_guards(g, 2);
  free_guards(g, 2);
}

/* What the keys hold: gaussian; rising by less than the slack per panel; by more; falling; jumps and -inf. */
static void weigh_keys(int kind, float *x) {
  fill(x, WEIGH_KEYS, 21);
  for (int64_t j = 0; j < WEIGH_KEYS; j++) {
    if (kind == 1) x[j] = (float)j * 0.125f;
    if (kind == 2) x[j] = (float)j * 1.5f;
    if (kind == 3) x[j] = (float)j * -0.25f;
    if (kind == 4) x[j] = j < 40 || j % 3 == 0 ? -INFINITY : j % 97 == 0 ? (float)j * 0.5f : x[j];
  }
}

static void test_weigh_block__rows__sum_to_softmax_near_their_maximum(void **state) {
  const attn_micro *mk = isa_of(state);
  static const float factor[] = {1.0f, 0.5f, 2.0f, 0.25f, 1.5f};
  for (int kind = 0; kind < 5; kind++)
    for (int64_t rows = 1; rows <= WEIGH_MOST; rows += rows < mk->rows + 6 ? 1 : 7) {
      float x[WEIGH_KEYS], q[WEIGH_MOST];
      weighed w;
      weigh_keys(kind, x);
      for (int64_t i = 0; i < rows; i++) q[i] = factor[i % 5];
      weigh(mk, rows, q, x, &w);
      for (int64_t i = 0; i < rows; i++) {
        double top = -INFINITY, sum = 0.0, first = 0.0, lanes = 0.0;
        for (int64_t j = 0; j < WEIGH_KEYS; j++) top = fmax(top, (double)(q[i] * x[j]));
        assert_true((double)w.m[i] <= top && (double)w.m[i] >= top - 8.0);
        for (int64_t j = 0; j < WEIGH_KEYS; j++) {
          const double e = exp2((double)(q[i] * x[j]) - (double)w.m[i]);
          sum += e, first += e * (double)(j % 7);
        }
        for (int lane = 0; lane < 16; lane++) lanes += (double)w.l[16 * i + lane];
        /* As for softmax_block; a row is rescaled at most once per panel. */
        const double bound = (30 * M_LN2 + 6 + 2.0 * (WEIGH_KEYS / (double)mk->panel) + WEIGH_KEYS) * U;
        assert_close(lanes, sum, bound * sum, "sum", i);
        assert_close(w.o[2 * i], sum, bound * sum, "o", i);
        assert_close(w.o[2 * i + 1], first, bound * 7 * sum, "o weighted", i);
      }
    }
}

static void test_weigh_block__a_row__has_the_bits_it_has_alone(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int kind = 0; kind < 5; kind++) {
    float x[WEIGH_KEYS], q[WEIGH_MOST];
    weighed all, one;
    weigh_keys(kind, x);
    for (int64_t i = 0; i < WEIGH_MOST; i++) q[i] = i == 3 ? NAN : (float)(i % 6) - 2.0f; /* some rise, some fall */
    weigh(mk, WEIGH_MOST, q, x, &all);
    for (int64_t i = 0; i < WEIGH_MOST; i++) {
      weigh(mk, 1, q + i, x, &one);
      assert_memory_equal(&one.m[0], &all.m[i], sizeof(float));
      for (int lane = 0; lane < 16; lane++) assert_close(all.l[16 * i + lane], one.l[lane], 0.0, "sum", i);
      for (int c = 0; c < 2; c++) assert_close(all.o[2 * i + c], one.o[c], 0.0, "o", i);
      assert_true(i == 3 || kind == 4 || isfinite(all.o[2 * i]));
    }
    assert_true(isnan(all.o[6]) && isnan(all.l[48]));
  }
}

static void test_weigh_block__only_minus_infinity__stays_empty(void **state) {
  const attn_micro *mk = isa_of(state);
  float x[WEIGH_KEYS], q[] = {1.0f, 2.0f};
  weighed w;
  for (int64_t j = 0; j < WEIGH_KEYS; j++) x[j] = -INFINITY;
  weigh(mk, 2, q, x, &w);
  for (int i = 0; i < 2; i++) assert_true(w.m[i] == -INFINITY && w.o[2 * i] == 0.0f && w.l[16 * i] == 0.0f);
}

/* --- dropout -------------------------------------------------------------------------------------------------- */

static void test_drop_block__any_block__is_the_defined_mask(void **state) {
  const attn_micro *mk = isa_of(state);
  const float rates[] = {0.0f, 0.1f, 0.5f, 0.99f, 0x1.fffffep-1f};
  const int64_t starts[][2] = {{0, 0}, {5, 32}, {1 << 20, 96}, {(int64_t)1 << 40, 1 << 20}};
  for (int k = 0; k < 5; k++)
    for (int b = 0; b < 4; b++)
      for (int i = 0; length(mk, i) >= 0; i++) {
        const int64_t cols = length(mk, i), ld = cols + 1, rows = 3, size = (rows - 1) * ld + cols;
        const attn_drop dr = attn_drop_make(rates[k], 77);
        guard g[2];
        float *x = place(&g[0], size, b), *old = place(&g[1], size, 0);
        fill(x, size, 13);
        memcpy(old, x, (size_t)size * sizeof(float));
        mk->drop_block(rows, cols, x, ld, &dr, starts[b][0], starts[b][1]);
        for (int64_t r = 0; r < rows; r++)
          for (int64_t j = 0; j < ld && r * ld + j < size; j++) {
            const float z = j < cols ? attn_drop_at(&dr, starts[b][0] + r, starts[b][1] + j) : 1.0f;
            assert_close(x[r * ld + j], old[r * ld + j] * z, 0.0, "drop_block", j);
          }
        assert_guards(g, 2);
        free_guards(g, 2);
      }
}

static void test_softmax_grad__with_and_without_dropout__matches_formula(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 0; length(mk, i) >= 0; i++)
    for (int dropped = 0; dropped < 2; dropped++) {
      const int64_t cols = length(mk, i), ld = cols + 3, rows = 3, size = (rows - 1) * ld + cols;
      const attn_drop dr = attn_drop_make(dropped ? 0.25f : 0.0f, 5);
      const float delta[] = {0.5f, -1.25f, 0.0f};
      guard g[4];
      float *p = place(&g[0], size, 4), *dp = place(&g[1], size, 6), *p0 = place(&g[2], size, 0);
      float *dp0 = place(&g[3], size, 0);
      fill(p, size, 14), fill(dp, size, 15);
      memcpy(p0, p, (size_t)size * sizeof(float)), memcpy(dp0, dp, (size_t)size * sizeof(float));
      mk->softmax_grad(rows, cols, p, dp, ld, delta, &dr, 9, 64);
      for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < ld && r * ld + j < size; j++) {
          const int64_t at = r * ld + j;
          if (j >= cols) {
            assert_bits(p[at], p0[at], "gap of p", j), assert_bits(dp[at], dp0[at], "gap of dp", j);
            continue;
          }
          const double z = attn_drop_at(&dr, 9 + r, 64 + j), t = dp0[at] * z;
          assert_close(p[at], p0[at] * z, U * fabs(p0[at] * z), "p", at);
          assert_close(dp[at], p0[at] * (t - delta[r]),
                       3 * U * fabs((double)p0[at]) * (fabs(t) + fabs((double)delta[r])), "dp", at);
        }
      assert_guards(g, 4);
      free_guards(g, 4);
    }
}

static void test_drop_at__many_elements__keeps_the_share_asked_for(void **state) {
  (void)state;
  const float rates[] = {0.1f, 0.5f};
  enum { N = 512 };
  for (int k = 0; k < 2; k++) {
    const attn_drop a = attn_drop_make(rates[k], 1), b = attn_drop_make(rates[k], 2);
    int64_t kept = 0, both = 0, with_next_row = 0, with_next_col = 0;
    for (int64_t r = 0; r < N; r++)
      for (int64_t c = 0; c < N; c++) {
        const int x = attn_drop_at(&a, r, c) > 0.0f;
        kept += x;
        both += x && attn_drop_at(&b, r, c) > 0.0f;
        with_next_row += x && attn_drop_at(&a, r + 1, c) > 0.0f;
        with_next_col += x && attn_drop_at(&a, r, c + 1) > 0.0f;
        assert_true(!x || fabsf(attn_drop_at(&a, r, c) - 1.0f / (1.0f - rates[k])) < 1e-4f);
      }
    const double q = 1.0 - (double)rates[k], n = (double)N * N;
    assert_close((double)kept, n * q, 5 * sqrt(n * q * (1 - q)), "kept", k);
    const int64_t pairs[] = {both, with_next_row, with_next_col}; /* independent keys, rows, columns */
    for (int i = 0; i < 3; i++)
      assert_close((double)pairs[i], n * q * q, 6 * sqrt(n * q * q * (1 - q * q)), "pairs", i);
  }
}

/* --- normalisation and GELU ----------------------------------------------------------------------------------- */

static void check_norm(const attn_micro *mk, int64_t width, float shift, int at) {
  const int64_t rows = 3, size = rows * width;
  guard g[6];
  float *x = place(&g[0], size, at), *gain = place(&g[1], width, at), *bias = place(&g[2], width, 7 - at);
  float *y = place(&g[3], size, at), *mean = place(&g[4], rows, at), *rstd = place(&g[5], rows, at);
  fill(x, size, 16), fill(gain, width, 17), fill(bias, width, 18);
  for (int64_t i = 0; i < size; i++) x[i] += shift;
  mk->norm(rows, width, x, gain, bias, 1e-5f, y, mean, rstd);
  for (int64_t r = 0; r < rows; r++) {
    double mu = 0.0, var = 0.0, most = 0.0;
    for (int64_t j = 0; j < width; j++) mu += x[r * width + j], most = fmax(most, fabs((double)x[r * width + j]));
    mu /= (double)width;
    for (int64_t j = 0; j < width; j++) var += (x[r * width + j] - mu) * (x[r * width + j] - mu);
    var /= (double)width;
    const double rs = 1.0 / sqrt(var + 1e-5);
    /* The mean is off by n u max|x| / lanes at most; the deviation by that and one rounding of max|x|; the variance
     * moves by the square of the former (deviations sum to zero) and its own rounding. */
    const double steps = (double)(width / mk->lanes + mk->lanes + 3), dm = steps * U * most;
    const double dr = rs * (steps * U + 0.5 * rs * rs * (dm * dm + 4 * U * most * sqrt(var)) + 2 * U);
    assert_close(mean[r], mu, dm, "mean", r);
    assert_close(rstd[r], rs, dr, "rstd", r);
    for (int64_t j = 0; j < width; j++) {
      const double c = x[r * width + j] - mu, want = c * rs * gain[j] + bias[j];
      const double off = fabs((double)gain[j]) * ((dm + 2 * U * most) * rs + fabs(c) * (dr + 3 * U * rs));
      assert_close(y[r * width + j], want, off + 2 * U * (fabs(want) + fabs((double)bias[j])), "norm", j);
    }
  }
  assert_guards(g, 6);
  free_guards(g, 6);
}

static void test_norm__any_width_and_offset__within_rounding(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 1; length(mk, i) >= 0; i++)
    for (int at = 0; at < PLACES; at++) {
      check_norm(mk, length(mk, i), 0.0f, at);
      check_norm(mk, length(mk, i), 100.0f, at);
    }
}

static void test_norm__constant_row__gives_the_bias(void **state) {
  const attn_micro *mk = isa_of(state);
  float x[33], g[33], b[33], y[33], mean, rstd;
  for (int i = 0; i < 33; i++) x[i] = 2.0f, g[i] = 3.0f, b[i] = (float)i;
  mk->norm(1, 33, x, g, b, 1e-5f, y, &mean, &rstd);
  assert_close(mean, 2.0, 0.0, "mean", 0); /* multiples of 2 sum without rounding; 66/33 needs 1/33 */
  for (int i = 0; i < 33; i++) assert_close(y[i], i, 3 * 4 * U / sqrt(1e-5), "norm", i);
}

static void test_norm_grad__any_width__matches_formula_and_sums(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 1; length(mk, i) >= 0; i++)
    for (int at = 0; at < PLACES; at += 3) {
      const int64_t width = length(mk, i), rows = 4, size = rows * width;
      guard g[8];
      float *x = place(&g[0], size, at), *gain = place(&g[1], width, at), *dy = place(&g[2], size, at);
      float *dx = place(&g[3], size, at), *dg = place(&g[4], width, at), *db = place(&g[5], width, 7 - at);
      float *mean = place(&g[6], rows, at), *rstd = place(&g[7], rows, at), dx0[4 * MOST], dg0[MOST], db0[MOST];
      fill(x, size, 20), fill(gain, width, 21), fill(dy, size, 22), fill(dx, size, 23);
      fill(dg, width, 24), fill(db, width, 25), fill(mean, rows, 26);
      for (int64_t r = 0; r < rows; r++) rstd[r] = 0.5f + (float)r; /* the formula holds for any mean and rstd */
      memcpy(dx0, dx, (size_t)size * sizeof(float));
      memcpy(dg0, dg, (size_t)width * sizeof(float)), memcpy(db0, db, (size_t)width * sizeof(float));
      mk->norm_grad(rows, width, x, gain, mean, rstd, dy, dx, dg, db);
      for (int64_t r = 0; r < rows; r++) {
        double me = 0.0, meh = 0.0, ae = 0.0, aeh = 0.0;
        for (int64_t j = 0; j < width; j++) {
          const double e = (double)dy[r * width + j] * gain[j], h = ((double)x[r * width + j] - mean[r]) * rstd[r];
          me += e / (double)width, meh += e * h / (double)width;
          ae += fabs(e) / (double)width, aeh += fabs(e * h) / (double)width;
        }
        const double steps = (double)(width / mk->lanes + mk->lanes + 6);
        for (int64_t j = 0; j < width; j++) {
          const int64_t k = r * width + j;
          const double e = (double)dy[k] * gain[j], h = ((double)x[k] - mean[r]) * rstd[r];
          const double want = dx0[k] + rstd[r] * (e - me - h * meh),
                       size_h = (fabs((double)x[k]) + fabs((double)mean[r])) * rstd[r];
          const double parts = fabs(e) + ae + size_h * aeh;
          assert_close(dx[k], want,
                       U * (fabs((double)dx0[k]) + rstd[r] * (6 * parts + steps * (ae + size_h * aeh) + 6 * aeh)), "dx",
                       k);
        }
      }
      for (int64_t j = 0; j < width; j++) {
        double wg = dg0[j], wb = db0[j], ag = fabs(wg), ab = fabs(wb);
        for (int64_t r = 0; r < rows; r++) {
          const double d = dy[r * width + j],
                       size_h = (fabs((double)x[r * width + j]) + fabs((double)mean[r])) * rstd[r];
          wg += d * ((double)x[r * width + j] - mean[r]) * rstd[r], wb += d;
          ag += fabs(d) * size_h, ab += fabs(d);
        }
        assert_close(dg[j], wg, 8 * U * ag, "dg", j);
        assert_close(db[j], wb, 5 * U * ab, "db", j);
      }
      assert_guards(g, 8);
      free_guards(g, 8);
    }
}

static double phi_cdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
static double phi_density(double x) { return exp(-0.5 * x * x) * 0.39894228040143267794; }

static void test_gelu__sweep__erf_error_below_promise(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int64_t i = -12 * 4096; i < 12 * 4096; i += MOST) {
    float x[MOST], y[MOST], dy[MOST], dx[MOST];
    for (int64_t j = 0; j < MOST; j++) x[j] = (float)(i + j) / 4096.0f + 1e-5f, dy[j] = 1.0f;
    mk->gelu(MOST, x, y);
    mk->gelu_grad(MOST, x, dy, dx);
    for (int64_t j = 0; j < MOST; j++) {
      /* y = x (1 + erf) / 2 rounds once more; the derivative Phi + x phi shares Phi's error, phi's is relative. */
      const double v = x[j], xd = v * phi_density(v);
      assert_close(y[j], v * phi_cdf(v), fabs(v) * 2.5e-7 + U * fabs((double)y[j]), "gelu", i + j);
      assert_close(dx[j], phi_cdf(v) + xd, 2.5e-7 + (12 + 2 * v * v) * U * fabs(xd) + 2 * U, "gelu'", i + j);
    }
  }
}

static void test_gelu__any_length_and_place__stays_inside(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int i = 0; length(mk, i) >= 0; i++)
    for (int at = 0; at < PLACES; at++) {
      const int64_t n = length(mk, i);
      guard g[3];
      float *x = place(&g[0], n, at), *y = place(&g[1], n, 7 - at), *dy = place(&g[2], n, at), dx[MOST];
      fill(x, n, 30), fill(dy, n, 31);
      mk->gelu(n, x, y);
      for (int64_t j = 0; j < n; j++)
        assert_close(y[j], x[j] * phi_cdf(x[j]), fabs((double)x[j]) * 2.5e-7 + U, "gelu", j);
      mk->gelu_grad(n, x, dy, dx);
      mk->gelu_grad(n, x, dy, dy); /* dx may be dy */
      for (int64_t j = 0; j < n; j++) assert_bits(dy[j], dx[j], "in place", j);
      assert_guards(g, 3);
      free_guards(g, 3);
    }
}

static void test_gelu__special_values__limits_and_nan(void **state) {
  const attn_micro *mk = isa_of(state);
  for (int64_t pad = 0; pad < 16; pad++) {
    float x[24] = {0}, y[24], dy[24], dx[24];
    const float in[] = {NAN, INFINITY, -200.0f, 200.0f, 0.0f, -0.0f}, out[] = {NAN, INFINITY, 0, 200, 0, 0};
    const float slope[] = {NAN, NAN, 0, 1, 0.5f, 0.5f};
    memcpy(x + pad, in, sizeof in);
    for (int j = 0; j < 24; j++) dy[j] = 1.0f;
    mk->gelu(pad + 6, x, y);
    mk->gelu_grad(pad + 6, x, dy, dx);
    for (int j = 0; j < 6; j++) {
      assert_close(y[pad + j], out[j], 0.0, "gelu", j);
      if (j != 1) assert_close(dx[pad + j], slope[j], 2.5e-7, "gelu'", j); /* inf * phi(inf) is not defined */
    }
  }
}

static const isa_test per_isa[] = {
    ISA_TEST(test_exp2__whole_domain__below_two_ulp),
    ISA_TEST(test_exp2__special_values__exact),
    ISA_TEST(test_exp2_block__ragged_rows__zero_past_their_end),
    ISA_TEST(test_softmax_block__blocks_of_a_row__sum_to_softmax),
    ISA_TEST(test_softmax_block__only_minus_infinity__stays_empty),
    ISA_TEST(test_softmax_block__nan_or_overflow__shows_in_its_own_row),
    ISA_TEST(test_weigh_block__rows__sum_to_softmax_near_their_maximum),
    ISA_TEST(test_weigh_block__a_row__has_the_bits_it_has_alone),
    ISA_TEST(test_weigh_block__only_minus_infinity__stays_empty),
    ISA_TEST(test_drop_block__any_block__is_the_defined_mask),
    ISA_TEST(test_softmax_grad__with_and_without_dropout__matches_formula),
    ISA_TEST(test_norm__any_width_and_offset__within_rounding),
    ISA_TEST(test_norm__constant_row__gives_the_bias),
    ISA_TEST(test_norm_grad__any_width__matches_formula_and_sums),
    ISA_TEST(test_gelu__sweep__erf_error_below_promise),
    ISA_TEST(test_gelu__any_length_and_place__stays_inside),
    ISA_TEST(test_gelu__special_values__limits_and_nan),
};
enum { PER_ISA = sizeof per_isa / sizeof *per_isa };

int main(void) {
  static const struct CMUnitTest once[] = {
      cmocka_unit_test(test_drop_at__many_elements__keeps_the_share_asked_for),
  };
  return isa_run("micro_rows", once, sizeof once / sizeof *once, per_isa, PER_ISA);
}
