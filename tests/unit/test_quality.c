/* test_quality.c - errors, mass and recall against slow sums in double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/quality.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

enum { B = 2, H = 4, HKV = 2, NQ = 13, NK = 37, D = 7, DV = 5, ROWS = B * H * NQ };

typedef struct fixture {
  float q[B * H * NQ * D], k[B * HKV * NK * D], v[B * HKV * NK * DV];
  uint8_t mask[B * NK];
  measure_inputs in;
} fixture;

static fixture *fixture_make(int causal, int masked) {
  fixture *f = calloc(1, sizeof *f);
  attn_rng r;
  attn_rng_seed(&r, 11, 0);
  for (size_t i = 0; i < sizeof f->q / sizeof *f->q; i++) f->q[i] = (float)attn_rng_normal(&r);
  for (size_t i = 0; i < sizeof f->k / sizeof *f->k; i++) f->k[i] = (float)attn_rng_normal(&r);
  for (size_t i = 0; i < sizeof f->v / sizeof *f->v; i++) f->v[i] = (float)attn_rng_normal(&r);
  for (size_t i = 0; i < sizeof f->mask; i++) f->mask[i] = attn_rng_below(&r, 4) != 0;
  f->in = (measure_inputs){.pb = {.b = B,
                                  .h = H,
                                  .hkv = HKV,
                                  .nq = NQ,
                                  .nk = NK,
                                  .d = D,
                                  .dv = DV,
                                  .scale = 0.6f,
                                  .causal = causal,
                                  .threads = 2},
                           .q = {f->q, H * NQ * D, NQ * D, D},
                           .k = {f->k, HKV * NK * D, NK * D, D},
                           .v = {f->v, HKV * NK * DV, NK * DV, DV},
                           .kmask = masked ? f->mask : NULL};
  return f;
}

static int sees(const fixture *f, int64_t ib, int64_t iq, int64_t j) {
  return (!f->in.kmask || f->mask[ib * NK + j]) && (!f->in.pb.causal || j <= iq + NK - NQ);
}
static double logit(const fixture *f, int64_t ib, int64_t ih, int64_t iq, int64_t j) {
  double z = 0.0;
  for (int t = 0; t < D; t++)
    z += (double)f->q[((ib * H + ih) * NQ + iq) * D + t] * (double)f->k[((ib * HKV + ih / (H / HKV)) * NK + j) * D + t];
  return 0.6f * z;
}
/* Rank of key j among the visible ones (0 = best). */
static int rank_of(const fixture *f, int64_t ib, int64_t ih, int64_t iq, int64_t j) {
  int rank = 0;
  for (int64_t i = 0; i < NK; i++) rank += sees(f, ib, iq, i) && logit(f, ib, ih, iq, i) > logit(f, ib, ih, iq, j);
  return rank;
}

/* Reports for every row the visible keys of rank < k whose position is accepted by `keep`, in several parts. */
static void report(const fixture *f, quality_keys *keys, int k, int (*keep)(int64_t j)) {
  for (int64_t i = 0; i < ROWS; i++) {
    int64_t iq = i % NQ, ih = i / NQ % H, ib = i / NQ / H;
    for (int32_t j = NK - 1; j >= 0; j--)
      if (sees(f, ib, iq, j) && rank_of(f, ib, ih, iq, j) < k && keep(j)) quality_on_keys(keys, ib, ih, iq, &j, 1);
  }
}
static int keep_all(int64_t j) { return (void)j, 1; }
static int keep_even(int64_t j) { return j % 2 == 0; }

/* The same means, slowly. */
static quality slow(const fixture *f, int k, int (*keep)(int64_t j), int set_size) {
  quality out = {0};
  int64_t rows = 0;
  for (int64_t i = 0; i < ROWS; i++) {
    int64_t iq = i % NQ, ih = i / NQ % H, ib = i / NQ / H;
    double all = 0.0, used = 0.0;
    int visible = 0, hits = 0, count = 0;
    for (int64_t j = 0; j < NK; j++) visible += sees(f, ib, iq, j);
    if (!visible) continue;
    for (int64_t j = 0; j < NK; j++)
      if (sees(f, ib, iq, j)) {
        double p = exp(logit(f, ib, ih, iq, j));
        all += p;
        if (rank_of(f, ib, ih, iq, j) < set_size && keep(j)) used += p, count++;
      }
    int best = k ? (k < visible ? k : visible) : count;
    for (int64_t j = 0; j < NK; j++)
      if (sees(f, ib, iq, j)) {
        int rank = rank_of(f, ib, ih, iq, j);
        hits += rank < set_size && keep(j) && rank < best;
      }
    out.mass += used / all;
    out.recall += best ? (double)hits / best : 0.0;
    rows++;
  }
  out.mass /= (double)rows;
  out.recall /= (double)rows;
  return out;
}

static quality judge(const fixture *f, int64_t k, int set_size, int (*keep)(int64_t)) {
  quality_ref ref;
  quality_keys keys;
  quality_sums sums = {0};
  assert_int_equal(quality_ref_create(&ref, &f->in, NULL), ICE_OK);
  assert_int_equal(quality_keys_create(&keys, &f->in.pb, NULL), ICE_OK);
  report(f, &keys, set_size, keep);
  ice_err e = {0};
  if (quality_add(&sums, &ref, quality_ref_out(&ref), &keys, k, &e) != ICE_OK) fail_msg("%s", e.text);
  quality_keys_destroy(&keys);
  quality_ref_destroy(&ref);
  return quality_of(&sums);
}

static void test_mass_and_recall__all_masks__equal_slow_sums(void **state) {
  (void)state;
  for (int causal = 0; causal < 2; causal++)
    for (int masked = 0; masked < 2; masked++) {
      fixture *f = fixture_make(causal, masked);
      if (masked) memset(f->mask, 0, NK); /* a batch entry without any key */
      const struct {
        int k, set;
        int (*keep)(int64_t);
      } c[] = {{5, 5, keep_all},  {5, 5, keep_even},    {8, 3, keep_all},
               {0, 6, keep_even}, {100, 100, keep_all}, {4, 9, keep_all}};
      for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        quality mine = judge(f, c[i].k, c[i].set, c[i].keep), want = slow(f, c[i].k, c[i].keep, c[i].set);
        assert_true(fabs(mine.mass - want.mass) < 1e-5);
        assert_true(fabs(mine.recall - want.recall) < 1e-12);
        assert_true(mine.l2_error == 0.0 && mine.rel_l2_error == 0.0);
      }
      quality top = judge(f, 5, 5, keep_all), all = judge(f, 100, 100, keep_all);
      assert_true(top.recall == 1.0 && all.recall == 1.0 && top.mass < 0.95 && fabs(all.mass - 1.0) < 1e-6);
      free(f);
    }
}

static void test_errors__known_shift__equals_hand_computed_norms(void **state) {
  (void)state;
  fixture *f = fixture_make(0, 0);
  quality_ref ref;
  quality_sums sums = {0};
  assert_int_equal(quality_ref_create(&ref, &f->in, NULL), ICE_OK);
  /* rows are shifted by (3, 4, 0, 0, 0) times their index parity: norms 5 and 0 */
  static float out[ROWS * DV];
  memcpy(out, ref.out, sizeof out);
  double norm = 0.0;
  for (int i = 0; i < ROWS; i++) {
    for (int t = 0; t < DV; t++) norm += (double)out[i * DV + t] * (double)out[i * DV + t];
    if (i % 2 == 0) out[i * DV] += 3.0f, out[i * DV + 1] += 4.0f;
  }
  attn_view view = {out, H * NQ * DV, NQ * DV, DV};
  assert_int_equal(quality_add(&sums, &ref, view, NULL, 0, NULL), ICE_OK);
  quality q = quality_of(&sums);
  assert_true(fabs(q.l2_error - 2.5) < 1e-5);
  assert_true(fabs(q.rel_l2_error - sqrt(25.0 * ROWS / 2 / norm)) < 1e-5);
  assert_true(isnan(q.mass) && isnan(q.recall));
  /* sums over two inputs are weighted by rows */
  assert_int_equal(quality_add(&sums, &ref, quality_ref_out(&ref), NULL, 0, NULL), ICE_OK);
  assert_true(fabs(quality_of(&sums).l2_error - 1.25) < 1e-5);
  quality_ref_destroy(&ref);
  free(f);
}

static void test_add__output_not_finite__is_refused_with_its_place(void **state) {
  (void)state;
  fixture *f = fixture_make(0, 0);
  quality_ref ref;
  assert_int_equal(quality_ref_create(&ref, &f->in, NULL), ICE_OK);
  static float out[ROWS * DV];
  const float bad[] = {NAN, INFINITY, -INFINITY};
  const attn_view view = {out, H * NQ * DV, NQ * DV, DV};
  for (int exact = 0; exact < 2; exact++)
    for (int i = 0; i < 3; i++) {
      quality_sums sums = {0};
      ice_err e = {0};
      memcpy(out, ref.out, sizeof out);
      float *x = (exact ? ref.out : out) + ((1 * H + 2) * NQ + 12) * DV + DV - 1, kept = *x;
      *x = bad[i];
      assert_int_equal(quality_add(&sums, &ref, view, NULL, 0, &e), ICE_INTERNAL);
      if (!strstr(e.text, "not finite at batch 1, head 2, row 12")) fail_msg("%s", e.text);
      assert_int_equal(strstr(e.text, "the exact output") != NULL, exact);
      assert_int_equal(sums.rows, 0);
      *x = kept;
    }
  quality_ref_destroy(&ref);
  free(f);
}

static void test_recall__equal_scores__count_as_ties(void **state) {
  (void)state;
  fixture *f = fixture_make(0, 0);
  /* all keys alike but for one bit of one element in every second: less than the rounding of a dot product */
  for (int64_t j = 1; j < B * HKV * NK; j++) memcpy(f->k + j * D, f->k, D * sizeof(float));
  for (int64_t j = 1; j < B * HKV * NK; j += 2) f->k[j * D] = nextafterf(f->k[j * D], 10.0f);
  quality_ref ref;
  quality_keys keys;
  quality_sums sums = {0};
  assert_int_equal(quality_ref_create(&ref, &f->in, NULL), ICE_OK);
  assert_int_equal(quality_keys_create(&keys, &f->in.pb, NULL), ICE_OK);
  for (int64_t i = 0; i < ROWS; i++) quality_on_keys(&keys, i / NQ / H, i / NQ % H, i % NQ, (int32_t[]){36, 3, 10}, 3);
  assert_int_equal(quality_add(&sums, &ref, quality_ref_out(&ref), &keys, 3, NULL), ICE_OK);
  assert_true(quality_of(&sums).recall == 1.0);
  assert_true(fabs(quality_of(&sums).mass - 3.0 / NK) < 1e-6);
  quality_keys_destroy(&keys);
  quality_ref_destroy(&ref);
  free(f);
}

static void test_keys__impossible_sets__are_refused(void **state) {
  (void)state;
  fixture *f = fixture_make(1, 1);
  f->mask[3] = 0;
  f->mask[4] = f->mask[5] = 1;
  quality_ref ref;
  assert_int_equal(quality_ref_create(&ref, &f->in, NULL), ICE_OK);
  const struct {
    int64_t ib, ih, iq;
    int32_t keys[2];
    int64_t count;
    int rc;
  } c[] = {{0, 0, 0, {4, 5}, 2, ICE_OK},        {0, 0, 0, {4, 4}, 2, ICE_INTERNAL},
           {0, 0, 0, {3, 4}, 2, ICE_INTERNAL},  {0, 0, 0, {-1, 4}, 2, ICE_INTERNAL},
           {0, 0, 0, {4, NK}, 2, ICE_INTERNAL}, {0, 0, 0, {4, NK - NQ + 1}, 2, ICE_INTERNAL},
           {B, 0, 0, {4, 5}, 2, ICE_INTERNAL},  {0, H, 0, {4, 5}, 2, ICE_INTERNAL},
           {0, 0, -1, {4, 5}, 2, ICE_INTERNAL}, {0, 0, 0, {4, 5}, -1, ICE_INTERNAL},
           {0, 0, 0, {4, 5}, 0, ICE_OK}};
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    quality_keys keys;
    quality_sums sums = {0};
    assert_int_equal(quality_keys_create(&keys, &f->in.pb, NULL), ICE_OK);
    quality_on_keys(&keys, c[i].ib, c[i].ih, c[i].iq, c[i].keys, c[i].count);
    assert_int_equal(quality_add(&sums, &ref, quality_ref_out(&ref), &keys, 0, NULL), c[i].rc);
    quality_keys_destroy(&keys);
  }
  quality_ref_destroy(&ref);
  free(f);
}

/* A bound of the mass left out counts where it is given, and must hold in every row. */
static void test_missing__bounds__are_averaged_and_checked(void **state) {
  (void)state;
  fixture *f = fixture_make(0, 0);
  for (int64_t j = 1; j < B * HKV * NK; j++) memcpy(f->k + j * D, f->k, D * sizeof(float)); /* every key has mass 1/NK */
  quality_ref ref;
  assert_int_equal(quality_ref_create(&ref, &f->in, NULL), ICE_OK);
  for (int broken = 0; broken < 2; broken++) {
    quality_keys keys;
    quality_sums sums = {0}, twice = {0};
    ice_err e = {0};
    assert_int_equal(quality_keys_create(&keys, &f->in.pb, NULL), ICE_OK);
    for (int64_t i = 0; i < ROWS; i++) quality_on_keys(&keys, i / NQ / H, i / NQ % H, i % NQ, (int32_t[]){1, 2}, 2);
    keys.missing[0] = 1.0f;
    keys.missing[5] = (float)(NK - 2) / NK - (broken ? 0.01f : 0.0f);
    assert_int_equal(quality_add(&sums, &ref, quality_ref_out(&ref), &keys, 0, &e), broken ? ICE_INTERNAL : ICE_OK);
    if (broken)
      assert_non_null(strstr(e.text, "row 5 leaves out"));
    else {
      quality_merge(&twice, &sums), quality_merge(&twice, &sums);
      assert_true(fabs(quality_of(&twice).mass_bound - (0.0 + 2.0 / NK) / 2) < 1e-6);
    }
    quality_keys_destroy(&keys);
  }
  assert_true(isnan(quality_of(&(quality_sums){.rows = 1, .set_rows = 1}).mass_bound));
  quality_ref_destroy(&ref);
  free(f);
}

static void test_ref__out_of_memory__fails_cleanly(void **state) {
  (void)state;
  fixture *f = fixture_make(0, 1);
  size_t live = attn_alloc_counters().live_bytes;
  for (uint64_t n = 1; n <= 7; n++) {
    quality_ref ref;
    ice_err e = {0};
    attn_alloc_fail_at(n);
    assert_int_equal(quality_ref_create(&ref, &f->in, &e), ICE_INTERNAL);
    assert_true(e.text[0]);
    assert_int_equal(attn_alloc_counters().live_bytes, live);
  }
  attn_alloc_fail_at(0);
  free(f);
}

static void test_of__nothing_added__is_undefined(void **state) {
  (void)state;
  quality q = quality_of(&(quality_sums){0});
  assert_true(isnan(q.l2_error) && isnan(q.rel_l2_error) && isnan(q.mass) && isnan(q.recall));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_mass_and_recall__all_masks__equal_slow_sums),
      cmocka_unit_test(test_errors__known_shift__equals_hand_computed_norms),
      cmocka_unit_test(test_add__output_not_finite__is_refused_with_its_place),
      cmocka_unit_test(test_recall__equal_scores__count_as_ties),
      cmocka_unit_test(test_keys__impossible_sets__are_refused),
      cmocka_unit_test(test_missing__bounds__are_averaged_and_checked),
      cmocka_unit_test(test_ref__out_of_memory__fails_cleanly),
      cmocka_unit_test(test_of__nothing_added__is_undefined),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
