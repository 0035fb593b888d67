/* test_attn.c - what every attention of the table promises, tested by the capabilities it declares. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "tests/support/attn_case.h"

/* --- cases and methods ------------------------------------------------------------------------------------------- */

static const attn_shape shapes[] = {
    /* b  h  hkv nq   nk   d   dv  causal masked interleaved */
    {1, 1, 1, 1, 1, 1, 1, 0, 0, 0},        {1, 1, 1, 1, 2, 3, 1, 0, 0, 0},        {2, 2, 2, 7, 7, 7, 9, 1, 0, 0},
    {1, 2, 2, 31, 31, 8, 8, 0, 0, 1},      {2, 3, 3, 33, 33, 33, 31, 0, 1, 0},    {1, 4, 2, 97, 97, 16, 16, 1, 1, 1},
    {2, 2, 1, 128, 128, 32, 32, 1, 0, 0},  {1, 2, 2, 257, 257, 32, 32, 0, 2, 0},  {1, 2, 2, 300, 300, 32, 32, 1, 0, 0},
    {2, 1, 1, 5, 149, 9, 17, 0, 1, 1},     {1, 1, 1, 149, 5, 9, 17, 0, 0, 0},     {1, 2, 1, 20, 50, 24, 8, 1, 1, 0},
    {1, 1, 1, 50, 20, 24, 8, 1, 0, 0},     {1, 1, 1, 10, 10, 128, 129, 0, 0, 0},  {1, 1, 1, 3, 0, 4, 4, 0, 0, 0},
    {1, 1, 1, 0, 3, 4, 4, 0, 0, 0},        {1, 1, 1, 130, 600, 32, 32, 1, 2, 0},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static uint32_t needed(attn_shape s) {
  return (s.causal ? ATTN_CAP_CAUSAL : 0u) | (s.masked ? ATTN_CAP_MASK : 0u) | (s.nq != s.nk ? ATTN_CAP_CROSS : 0u) |
         (s.h != s.hkv ? ATTN_CAP_GQA : 0u);
}
/* Methods that work on any network; the others are tested where their weights are. */
static int drops_in(const attn_method *m) { return !(m->caps & ATTN_CAP_NEEDS_TRAINING); }
static int can(const attn_method *m, attn_shape s) { return drops_in(m) && (m->caps & needed(s)) == needed(s); }

static void *params_of(const attn_method *m) {
  void *p = malloc(m->params_size + 1);
  assert_non_null(p);
  attn_params_default(m, p);
  return p;
}

#define FOR_METHODS(m) for (const attn_method *const *m##_at = registry_methods, *m; (m = *m##_at) != NULL; m##_at++)

/* Runs a method that must accept the case. */
static void run_ok(const attn_method *m, const void *params, const attn_case *c, int flags, attn_result *r) {
  if (attn_case_run(m, params, c, flags, r) != ATTN_OK)
    fail_msg("%s refused b=%lld h=%lld nq=%lld nk=%lld d=%lld: %s", m->name, (long long)c->pb.b, (long long)c->pb.h,
             (long long)c->pb.nq, (long long)c->pb.nk, (long long)c->pb.d, attn_last_error());
}

/* --- exact methods ----------------------------------------------------------------------------------------------- */

static void test_exact__every_shape__equals_reference(void **state) {
  (void)state;
  FOR_METHODS(m) for (int i = 0; i < N_SHAPES; i++) {
    if (!(m->caps & ATTN_CAP_EXACT) || !can(m, shapes[i])) continue;
    void *params = params_of(m);
    attn_case c;
    attn_result r;
    attn_case_make(&c, shapes[i], ATTN_GAUSS, (uint64_t)i);
    run_ok(m, params, &c, i % 2 ? ATTN_AT_END : 0, &r);
    attn_assert_close(m->name, &c, &r, NULL);
    uint64_t pairs = 0;
    for (int64_t row = 0; row < r.rows; row++) pairs += (uint64_t)attn_case_visible(&c, row / (c.pb.h * c.pb.nq), row % c.pb.nq);
    assert_int_equal(r.pairs, pairs);
    attn_result_free(&r), attn_case_free(&c), free(params);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_exact__every_shape__equals_reference),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
