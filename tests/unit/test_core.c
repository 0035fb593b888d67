/* test_core.c - memory, random numbers, errors, the gate in front of every method, and which keys a query sees. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "kernels/core/err.h"
#include "kernels/core/rng.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"

/* --- memory --------------------------------------------------------------------------------------------------- */

static void test_alloc__any_size__aligned_and_counted(void **state) {
  (void)state;
  const attn_alloc_count before = attn_alloc_counters();
  const size_t sizes[] = {0, 1, 63, 64, 65, 4097, 1 << 20};
  void *p[7];
  size_t sum = 0;
  for (int i = 0; i < 7; i++) {
    p[i] = attn_alloc(sizes[i]);
    assert_non_null(p[i]);
    assert_int_equal((uintptr_t)p[i] % ATTN_ALIGN, 0);
    memset(p[i], 0x5a, sizes[i]);
    sum += sizes[i];
  }
  assert_int_equal(attn_alloc_counters().calls - before.calls, 7);
  assert_int_equal(attn_alloc_counters().live_bytes - before.live_bytes, sum);
  for (int i = 0; i < 7; i++) attn_free(p[i]);
  attn_free(NULL);
  assert_int_equal(attn_alloc_counters().live_bytes, before.live_bytes);
}

static void test_alloc__peak__remembers_the_most(void **state) {
  (void)state;
  attn_alloc_reset_peak();
  const size_t live = attn_alloc_counters().live_bytes;
  void *a = attn_alloc(1000), *b = attn_alloc(500);
  attn_free(a);
  void *c = attn_alloc(100);
  assert_int_equal(attn_alloc_counters().peak_bytes, live + 1500);
  assert_int_equal(attn_alloc_counters().live_bytes, live + 600);
  attn_alloc_reset_peak();
  assert_int_equal(attn_alloc_counters().peak_bytes, live + 600);
  attn_free(b), attn_free(c);
}

static void test_calloc__dirty_heap__zeroed(void **state) {
  (void)state;
  for (int round = 0; round < 4; round++) {
    unsigned char *p = attn_calloc(777);
    assert_non_null(p);
    for (int i = 0; i < 777; i++) assert_int_equal(p[i], 0);
    memset(p, 0xff, 777);
    attn_free(p);
  }
}

static void test_alloc__ordered_failure__fails_once_at_that_call(void **state) {
  (void)state;
  const size_t live = attn_alloc_counters().live_bytes;
  attn_alloc_fail_at(3);
  void *p[4];
  for (int i = 0; i < 4; i++) p[i] = i % 2 ? attn_alloc(8) : attn_calloc(8);
  assert_true(p[0] && p[1] && !p[2] && p[3]);
  for (int i = 0; i < 4; i++) attn_free(p[i]);
  attn_alloc_fail_at(1);
  attn_alloc_fail_at(0); /* cancelled */
  p[0] = attn_alloc(8);
  assert_non_null(p[0]);
  attn_free(p[0]);
  assert_int_equal(attn_alloc_counters().live_bytes, live);
}

static void test_alloc__impossible_size__null_and_not_counted(void **state) {
  (void)state;
  const size_t live = attn_alloc_counters().live_bytes;
  const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 64, SIZE_MAX / 2 + 1};
  for (int i = 0; i < 4; i++) assert_null(attn_alloc(sizes[i]));
  assert_null(attn_calloc(SIZE_MAX - 63));
  assert_int_equal(attn_alloc_counters().live_bytes, live);
}

static void test_sizes__overflow__saturates(void **state) {
  (void)state;
  assert_int_equal(attn_round(0), 0);
  assert_int_equal(attn_round(1), 64);
  assert_int_equal(attn_round(64), 64);
  assert_int_equal(attn_round(65), 128);
  assert_int_equal(attn_round(SIZE_MAX), SIZE_MAX);
  assert_int_equal(attn_round(SIZE_MAX - 63), SIZE_MAX - 63);
  assert_int_equal(attn_round(SIZE_MAX - 62), SIZE_MAX);
  assert_int_equal(attn_mul(0, SIZE_MAX), 0);
  assert_int_equal(attn_mul(SIZE_MAX, 0), 0);
  assert_int_equal(attn_mul(3, 5), 15);
  assert_int_equal(attn_mul((size_t)1 << 32, (size_t)1 << 32), SIZE_MAX);
  assert_int_equal(attn_mul(SIZE_MAX / 2, 2), SIZE_MAX - 1);
  assert_int_equal(attn_mul(SIZE_MAX / 2 + 1, 2), SIZE_MAX);
  assert_int_equal(attn_add(2, 3), 5);
  assert_int_equal(attn_add(SIZE_MAX, 1), SIZE_MAX);
  assert_int_equal(attn_add(SIZE_MAX - 1, 1), SIZE_MAX);
}

/* --- random numbers ------------------------------------------------------------------------------------------- */

static void test_rng__published_vectors__reproduced(void **state) {
  (void)state;
  /* Outputs of the authors' C programs: xoshiro256** from state 1, 2, 3, 4; splitmix64 from state 1234567. */
  attn_rng r = {{1, 2, 3, 4}};
  const uint64_t xoshiro[] = {11520u,
                              0u,
                              1509978240u,
                              1215971899390074240u,
                              1216172134540287360u,
                              607988272756665600u,
                              16172922978634559625u,
                              8476171486693032832u,
                              10595114339597558777u,
                              2904607092377533576u};
  for (int i = 0; i < 10; i++) assert_true(attn_rng_u64(&r) == xoshiro[i]);
  const uint64_t splitmix[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u, 4593380528125082431u,
                               16408922859458223821u};
  for (uint64_t i = 0; i < 5; i++) assert_true(attn_mix64(1234567u + i * 0x9e3779b97f4a7c15u) == splitmix[i]);
}

static void test_rng__streams_of_one_seed__differ_and_repeat(void **state) {
  (void)state;
  attn_rng a, b, c, d;
  attn_rng_seed(&a, 1, 0), attn_rng_seed(&b, 1, 1), attn_rng_seed(&c, 2, 0), attn_rng_seed(&d, 1, 0);
  int same_b = 0, same_c = 0;
  for (int i = 0; i < 1000; i++) {
    const uint64_t x = attn_rng_u64(&a);
    same_b += x == attn_rng_u64(&b), same_c += x == attn_rng_u64(&c);
    assert_true(x == attn_rng_u64(&d));
  }
  assert_true(same_b == 0 && same_c == 0);
  assert_true(attn_hash(1, 2, 3) != attn_hash(2, 1, 3) && attn_hash(1, 2, 3) != attn_hash(1, 3, 2));
}

static void test_rng__distributions__moments_within_five_sigma(void **state) {
  (void)state;
  enum { N = 200000, CELLS = 7 };
  attn_rng r;
  attn_rng_seed(&r, 3, 0);
  double sum = 0.0, square = 0.0, normal = 0.0, normal2 = 0.0, normal4 = 0.0;
  int64_t cell[CELLS] = {0};
  for (int i = 0; i < N; i++) {
    const double u = attn_rng_uniform(&r), z = attn_rng_normal(&r);
    assert_true(u >= 0.0 && u < 1.0 && isfinite(z));
    sum += u, square += u * u, normal += z, normal2 += z * z, normal4 += z * z * z * z;
    const uint64_t k = attn_rng_below(&r, CELLS);
    assert_true(k < CELLS);
    cell[k]++;
  }
  const double five = 5.0 / sqrt((double)N);
  assert_true(fabs(sum / N - 0.5) < five * sqrt(1.0 / 12));
  assert_true(fabs(square / N - 1.0 / 3) < five * sqrt(4.0 / 45));
  assert_true(fabs(normal / N) < five && fabs(normal2 / N - 1.0) < five * sqrt(2.0));
  assert_true(fabs(normal4 / N - 3.0) < five * sqrt(96.0));
  double chi2 = 0.0;
  for (int k = 0; k < CELLS; k++) {
    const double off = (double)cell[k] - (double)N / CELLS;
    chi2 += off * off / ((double)N / CELLS);
  }
  assert_true(chi2 < 30.0); /* 6 degrees of freedom: beyond 30 once in 25,000 */
}

static void test_rng_below__edges__in_range(void **state) {
  (void)state;
  attn_rng r;
  attn_rng_seed(&r, 4, 0);
  for (int i = 0; i < 1000; i++) {
    assert_int_equal(attn_rng_below(&r, 1), 0);
    assert_true(attn_rng_below(&r, ((uint64_t)1 << 63) + 1) <= (uint64_t)1 << 63);
    (void)attn_rng_below(&r, UINT64_MAX);
  }
}

/* --- errors --------------------------------------------------------------------------------------------------- */

static void assert_text(const char *given, const char *kept) {
  ice_err e = {0};
  assert_int_equal(ice_fail(&e, ICE_DATA, "%s", given), ICE_DATA);
  assert_int_equal(e.code, ICE_DATA);
  assert_string_equal(e.text, kept);
}

static void test_fail__hostile_text__one_printable_line(void **state) {
  (void)state;
  assert_text("plain", "plain");
  assert_text("a\nb\rc\td\x1b[31m\x7f", "a?b?c?d?[31m?");
  assert_text("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\xa7\x8a", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\xa7\x8a");
  assert_text("\xff\xfe", "??");                                    /* no UTF-8 at all */
  assert_text("\xc3", "?");                                         /* cut short */
  assert_text("\xe2\x82", "??");                                    /* likewise */
  assert_text("\xc3(", "?(");                                       /* second byte missing */
  assert_text("\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf", "?????????"); /* overlong */
  assert_text("\xed\xa0\x80", "???");                               /* surrogate */
  assert_text("\xf4\x90\x80\x80\xf5\x80\x80\x80", "????????");      /* beyond U+10FFFF */
  assert_text("\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80", "\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80");
  assert_text("\xc2\x85\xc2\x9b\xc2\xa0", "????\xc2\xa0"); /* C1 controls, no-break space */
  assert_text("\x80\xbf", "??");
}

static void test_fail__long_text__cut_inside_the_buffer(void **state) {
  (void)state;
  ice_err e;
  char long_text[5000];
  memset(long_text, 'x', sizeof long_text - 1);
  long_text[sizeof long_text - 1] = 0;
  long_text[1022] = '\xc3', long_text[1023] = '\xa9'; /* the cut falls inside this character */
  (void)ice_fail(&e, ICE_USAGE, "%s", long_text);
  assert_int_equal(strlen(e.text), sizeof e.text - 1);
  assert_int_equal(e.text[1022], '?');
  assert_int_equal(ice_fail(NULL, ICE_DB, "%d", 1), ICE_DB);
}

static void test_status__every_status__has_a_name(void **state) {
  (void)state;
  for (int i = 0; i <= ATTN_ERR_NUMERIC; i++) {
    assert_true(strlen(attn_status_text((attn_status)i)) > 1);
    for (int j = 0; j < i; j++)
      assert_string_not_equal(attn_status_text((attn_status)i), attn_status_text((attn_status)j));
  }
  assert_string_equal(attn_status_text((attn_status)99), "unknown status");
  assert_string_equal(attn_status_text((attn_status)-1), "unknown status");
  assert_int_equal(attn_fail(ATTN_ERR_SHAPE, "n = %d", 3), ATTN_ERR_SHAPE);
  assert_string_equal(attn_last_error(), "n = 3");
}

/* --- the gate ------------------------------------------------------------------------------------------------- */

typedef struct fake_params {
  int64_t k;
  double share;
  int64_t kind;
} fake_params;

static int checked;
static attn_status fake_check(const attn_problem *pb, const void *params) {
  (void)pb, (void)params;
  checked++;
  return ATTN_OK;
}
static const char *const kinds[] = {"one", "two", NULL};
static const attn_param rows[] = {
    {.key = "k", .type = ATTN_P_INT, .offset = offsetof(fake_params, k), .dflt = 20, .min = 1, .max = 4096},
    {.key = "share", .type = ATTN_P_REAL, .offset = offsetof(fake_params, share), .dflt = 0.5, .min = 0, .max = 1},
    {.key = "kind", .type = ATTN_P_CHOICE, .offset = offsetof(fake_params, kind), .dflt = 1, .choices = kinds},
    {.key = NULL}};
static const attn_method fake = {
    .name = "fake", .params_size = sizeof(fake_params), .params = rows, .check = fake_check, .caps = 0};

static attn_problem fine(void) {
  return (attn_problem){.b = 1, .h = 2, .hkv = 2, .nq = 8, .nk = 8, .d = 4, .dv = 4, .scale = 0.5f, .threads = 1};
}

static void test_params_default__table__fills_each_type(void **state) {
  (void)state;
  fake_params p;
  memset(&p, 0xff, sizeof p);
  attn_params_default(&fake, &p);
  assert_true(p.k == 20 && p.share == 0.5 && p.kind == 1);
}

static void test_check__fine_problem__reaches_the_method(void **state) {
  (void)state;
  fake_params p;
  attn_params_default(&fake, &p);
  attn_problem pb = fine();
  checked = 0;
  assert_int_equal(attn_check(&fake, &pb, &p), ATTN_OK);
  assert_int_equal(checked, 1);
  pb.nq = pb.nk = 0;
  assert_int_equal(attn_check(&fake, &pb, &p), ATTN_OK);
}

static void refuse(attn_problem pb, uint32_t caps, attn_status want, const char *word) {
  fake_params p;
  attn_params_default(&fake, &p);
  attn_method m = fake;
  m.caps = caps;
  checked = 0;
  assert_int_equal(attn_check(&m, &pb, &p), want);
  if (!strstr(attn_last_error(), word)) fail_msg("\"%s\" lacks \"%s\"", attn_last_error(), word);
  assert_null(strchr(attn_last_error(), '\n'));
  assert_int_equal(checked, 0);
}

#define REFUSE(caps, want, word, ...)                                                                                  \
  do {                                                                                                                 \
    attn_problem pb = fine();                                                                                          \
    __VA_ARGS__;                                                                                                       \
    refuse(pb, caps, want, word);                                                                                      \
  } while (0)

static void test_check__contradictory_problem__refused_with_value(void **state) {
  (void)state;
  REFUSE(0, ATTN_ERR_SHAPE, "b=0", pb.b = 0);
  REFUSE(0, ATTN_ERR_SHAPE, "h=-1", pb.h = -1);
  REFUSE(0, ATTN_ERR_SHAPE, "hkv=0", pb.hkv = 0);
  REFUSE(0, ATTN_ERR_SHAPE, "d=0", pb.d = 0);
  REFUSE(0, ATTN_ERR_SHAPE, "dv=0", pb.dv = 0);
  REFUSE(0, ATTN_ERR_SHAPE, "nq=-1", pb.nq = -1);
  REFUSE(0, ATTN_ERR_SHAPE, "nk=-5", pb.nk = -5);
  REFUSE(ATTN_CAP_GQA, ATTN_ERR_SHAPE, "multiple", pb.h = 4; pb.hkv = 3);
  REFUSE(ATTN_CAP_GQA, ATTN_ERR_SHAPE, "multiple", pb.h = 2; pb.hkv = 4);
  REFUSE(ATTN_CAP_CROSS, ATTN_ERR_SHAPE, "2147483648", pb.nk = (int64_t)INT32_MAX + 1);
  REFUSE(0, ATTN_ERR_SHAPE, "65537", pb.d = 65537);
  REFUSE(0, ATTN_ERR_SHAPE, "address space", pb.b = INT64_MAX);
  REFUSE(0, ATTN_ERR_SHAPE, "address space", pb.b = pb.h = pb.hkv = (int64_t)1 << 40);
  REFUSE(0, ATTN_ERR_ARG, "scale", pb.scale = 0.0f);
  REFUSE(0, ATTN_ERR_ARG, "scale", pb.scale = -1.0f);
  REFUSE(0, ATTN_ERR_ARG, "scale", pb.scale = NAN);
  REFUSE(0, ATTN_ERR_ARG, "scale", pb.scale = INFINITY);
  REFUSE(0, ATTN_ERR_ARG, "threads = 0", pb.threads = 0);
  REFUSE(0, ATTN_ERR_ARG, "threads = 5000", pb.threads = 5000);
}

static void test_check__undeclared_capability__unsupported(void **state) {
  (void)state;
  REFUSE(0, ATTN_ERR_UNSUPPORTED, "causal", pb.causal = 1);
  REFUSE(0, ATTN_ERR_UNSUPPORTED, "nq=4", pb.nq = 4);
  REFUSE(0, ATTN_ERR_UNSUPPORTED, "hkv=1", pb.hkv = 1);
  attn_problem pb = fine();
  pb.causal = 1, pb.nq = 4, pb.hkv = 1;
  attn_method m = fake;
  m.caps = ATTN_CAP_CAUSAL | ATTN_CAP_CROSS | ATTN_CAP_GQA;
  fake_params p;
  attn_params_default(&fake, &p);
  assert_int_equal(attn_check(&m, &pb, &p), ATTN_OK);
}

static int learns_two(const attn_problem *pb, const void *params, attn_tensor out[ATTN_MAX_LEARNED]) {
  (void)params;
  out[0] = (attn_tensor){.name = "e", .rank = 3, .shape = {pb->h, 5, pb->positions}, .sd = 1.0f};
  out[1] = (attn_tensor){.name = "c", .rank = 1, .shape = {7}};
  return 2;
}

static void test_check__learned_tensors__present_of_their_size_and_long_enough(void **state) {
  (void)state;
  static const float weights[2 * 5 * 8 + 7];
  attn_method m = fake;
  fake_params p;
  m.learned = learns_two;
  attn_params_default(&m, &p);
  const attn_problem good = {.b = 1, .h = 2, .hkv = 2, .nq = 8, .nk = 8, .d = 4, .dv = 4, .scale = 0.5f, .threads = 1,
                             .weights = weights, .weights_bytes = sizeof weights, .positions = 8};
  attn_problem bad[4] = {good, good, good, good};
  assert_int_equal(attn_learned_floats(&m, &good, &p), 87);
  assert_int_equal(attn_learned_floats(&fake, &good, &p), 0);
  assert_int_equal(attn_check(&m, &good, &p), ATTN_OK);
  bad[0].weights = NULL;
  bad[1].weights_bytes -= 4;
  bad[2].nk = bad[2].nq = 9;
  bad[3].positions = -1;
  const attn_status want[4] = {ATTN_ERR_ARG, ATTN_ERR_SHAPE, ATTN_ERR_SHAPE, ATTN_ERR_SHAPE};
  for (int i = 0; i < 4; i++) assert_int_equal(attn_check(&m, bad + i, &p), want[i]);
}

static void test_check__parameter_out_of_range__names_key_and_range(void **state) {
  (void)state;
  const attn_problem pb = fine();
  const fake_params bad[] = {{0, 0.5, 0}, {4097, 0.5, 0}, {1, -0.1, 0}, {1, 1.5, 0},
                             {1, NAN, 0}, {1, 1, -1},     {1, 1, 2}};
  const char *const words[] = {"fake.k = 0", "fake.k = 4097", "fake.share = -0.1", "fake.share = 1.5", "fake.share",
                               "fake.kind",  "0..1"};
  for (int i = 0; i < 7; i++) {
    assert_int_equal(attn_check(&fake, &pb, bad + i), ATTN_ERR_PARAM);
    assert_non_null(strstr(attn_last_error(), words[i]));
    assert_non_null(strstr(attn_last_error(), "allowed"));
  }
  const fake_params edge[] = {{1, 0, 0}, {4096, 1, 1}};
  for (int i = 0; i < 2; i++) assert_int_equal(attn_check(&fake, &pb, edge + i), ATTN_OK);
  assert_int_equal(attn_check(NULL, &pb, edge), ATTN_ERR_ARG);
  assert_int_equal(attn_check(&fake, NULL, edge), ATTN_ERR_ARG);
  assert_int_equal(attn_check(&fake, &pb, NULL), ATTN_ERR_ARG);
}

/* --- visible keys --------------------------------------------------------------------------------------------- */

static void test_visible__masks_and_causal__match_the_definition(void **state) {
  (void)state;
  attn_rng r;
  attn_rng_seed(&r, 8, 0);
  for (int round = 0; round < 300; round++) {
    attn_problem pb = fine();
    pb.nq = (int64_t)attn_rng_below(&r, 20), pb.nk = (int64_t)attn_rng_below(&r, 20);
    pb.causal = (int)attn_rng_below(&r, 2);
    uint8_t mask[20];
    for (int j = 0; j < 20; j++) mask[j] = attn_rng_below(&r, 3) ? (uint8_t)(1 + attn_rng_below(&r, 255)) : 0;
    const uint8_t *given = round % 4 ? mask : NULL;
    int32_t idx[20];
    const int64_t kept = attn_keep(given, pb.nk, idx);
    for (int64_t i = 0; i < pb.nq; i++) {
      const int64_t prefix = attn_prefix(&pb, idx, kept, i);
      int64_t seen = 0;
      for (int64_t j = 0; j < pb.nk; j++)
        if ((!given || mask[j]) && (!pb.causal || j <= i + pb.nk - pb.nq)) {
          assert_true(seen < prefix);
          assert_int_equal(idx[seen++], j);
        }
      assert_int_equal(prefix, seen);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_alloc__any_size__aligned_and_counted),
      cmocka_unit_test(test_alloc__peak__remembers_the_most),
      cmocka_unit_test(test_calloc__dirty_heap__zeroed),
      cmocka_unit_test(test_alloc__ordered_failure__fails_once_at_that_call),
      cmocka_unit_test(test_alloc__impossible_size__null_and_not_counted),
      cmocka_unit_test(test_sizes__overflow__saturates),
      cmocka_unit_test(test_rng__published_vectors__reproduced),
      cmocka_unit_test(test_rng__streams_of_one_seed__differ_and_repeat),
      cmocka_unit_test(test_rng__distributions__moments_within_five_sigma),
      cmocka_unit_test(test_rng_below__edges__in_range),
      cmocka_unit_test(test_fail__hostile_text__one_printable_line),
      cmocka_unit_test(test_fail__long_text__cut_inside_the_buffer),
      cmocka_unit_test(test_status__every_status__has_a_name),
      cmocka_unit_test(test_params_default__table__fills_each_type),
      cmocka_unit_test(test_check__fine_problem__reaches_the_method),
      cmocka_unit_test(test_check__contradictory_problem__refused_with_value),
      cmocka_unit_test(test_check__undeclared_capability__unsupported),
      cmocka_unit_test(test_check__learned_tensors__present_of_their_size_and_long_enough),
      cmocka_unit_test(test_check__parameter_out_of_range__names_key_and_range),
      cmocka_unit_test(test_visible__masks_and_causal__match_the_definition),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
