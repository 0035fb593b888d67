/* test_measure.c - interleaving, order, budget and ratios, with entrants that make up their own time. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/measure.h"
#include "harness/measure_method.h"
#include "harness/measure_rows.h"
#include "harness/measure_store.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

static int64_t fake_clock;
static int64_t fake_now(void) { return fake_clock; }

typedef struct fake {
  char id;
  int variants, passes, fails_at; /* 1-based pass that fails; 0: none */
  int64_t cost;
} fake;
static char trace[4096];

static int fake_pass(void *ctx, int first, measure_times *out, ice_err *e) {
  fake *f = ctx;
  size_t n = strlen(trace);
  trace[n] = f->id;
  trace[n + 1] = '\0';
  fake_clock += f->cost;
  f->passes++;
  if (f->passes == f->fails_at) return ice_fail(e, ICE_INTERNAL, "%c failed", f->id);
  for (int i = 0; i < f->variants; i++) {
    int v = (first + i) % f->variants;
    int64_t t = f->cost * (v + 1) + f->passes;
    out[v] = (measure_times){{t, t / 4, t - t / 4, -1}};
  }
  return ICE_OK;
}

static measure_entrant entrant_of(fake *f) {
  return (measure_entrant){.variants = f->variants, .pass = fake_pass, .ctx = f};
}

static int setup(void **state) {
  (void)state;
  fake_clock = 0;
  trace[0] = '\0';
  return 0;
}

static void test_order__each_round__is_a_permutation_and_first_place_rotates(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 20; seed++)
    for (int n = 1; n <= 7; n++) {
      int firsts[7] = {0}, after_zero[7] = {0};
      for (int round = 0; round < 2 * n; round++) {
        int seen[7] = {0};
        for (int i = 0; i < n; i++) {
          int at = measure_order(n, round, seed, i);
          assert_in_range(at, 0, n - 1);
          seen[at]++;
          if (i > 0 && measure_order(n, round, seed, i - 1) == 0) after_zero[at]++;
        }
        for (int i = 0; i < n; i++) assert_int_equal(seen[i], 1);
        firsts[measure_order(n, round, seed, 0)]++;
      }
      for (int i = 0; i < n; i++) assert_int_equal(firsts[i], 2);
      if (n > 2) assert_true(after_zero[1] > 0 && after_zero[n - 1] > 0); /* both directions occur */
    }
}

static void test_run__three_entrants__are_interleaved_and_every_sample_is_kept(void **state) {
  (void)state;
  fake f[3] = {{.id = 'a', .variants = 1, .cost = 100},
               {.id = 'b', .variants = 2, .cost = 200},
               {.id = 'c', .variants = 1, .cost = 400}};
  measure_entrant en[3] = {entrant_of(f), entrant_of(f + 1), entrant_of(f + 2)};
  measure_result r;
  ice_err e;
  assert_int_equal(
      measure_run(en, 3, &(measure_plan){.rounds = 6, .warmup = 2, .max_seconds = 1e9, .seed = 3, .now = fake_now}, &r,
                  &e),
      ICE_OK);
  assert_int_equal(r.columns, 4);
  assert_int_equal(r.rounds, 6);
  assert_int_equal(strlen(trace), 3 * 8);
  assert_memory_equal(trace, "abcabc", 6); /* warm-up */
  for (int round = 0; round < 6; round++) {
    const char *at = trace + 6 + 3 * round;
    for (const char *id = "abc"; *id; id++) assert_non_null(memchr(at, *id, 3));
    assert_int_equal(at[0], "abc"[measure_order(3, round, 3, 0)]);
    /* passes count warm-ups, so the k-th round carries k + 3 */
    assert_int_equal(measure_sample(&r, 0, round)->ns[MEASURE_ATTENTION], 100 + round + 3);
    assert_int_equal(measure_sample(&r, 1, round)->ns[MEASURE_ATTENTION], 200 + round + 3);
    assert_int_equal(measure_sample(&r, 2, round)->ns[MEASURE_ATTENTION], 400 + round + 3);
    assert_int_equal(measure_sample(&r, 3, round)->ns[MEASURE_ATTENTION], 400 + round + 3);
  }
  assert_true(fabs(measure_median(&r, 0, MEASURE_ATTENTION).value - 105.5) < 1e-9);
  assert_true(isnan(measure_median(&r, 0, MEASURE_MODEL).value));
  stats_interval own = measure_speedup(&r, 2, 2, 1), twice = measure_speedup(&r, 3, 1, 1);
  assert_true(own.value == 1.0 && own.lo == 1.0 && own.hi == 1.0);
  assert_true(fabs(twice.value - 405.5 / 205.5) < 1e-9);
  assert_true(twice.lo <= twice.value && twice.value <= twice.hi);
  assert_true(isnan(measure_speedup(&r, -1, 1, 1).value));
  measure_free(&r);
}

static void test_run__budget_of_seconds__stops_before_the_round_that_would_exceed_it(void **state) {
  (void)state;
  fake f = {.id = 'a', .variants = 1, .cost = 1000000000};
  measure_entrant en = entrant_of(&f);
  measure_result r;
  assert_int_equal(measure_run(&en, 1, &(measure_plan){.rounds = 9, .max_seconds = 3.5, .now = fake_now}, &r, NULL),
                   ICE_OK);
  assert_int_equal(r.rounds, 3);
  measure_free(&r);
  assert_int_equal(measure_run(&en, 1, &(measure_plan){.rounds = 9, .max_seconds = 0.0, .now = fake_now}, &r, NULL),
                   ICE_OK);
  assert_int_equal(r.rounds, 1); /* the first always runs */
  measure_free(&r);
}

static void test_run__one_entrant_fails__the_others_go_on(void **state) {
  (void)state;
  for (int when = 1; when <= 4; when++) {
    fake f[2] = {{.id = 'a', .variants = 2, .cost = 10, .fails_at = when}, {.id = 'b', .variants = 1, .cost = 20}};
    measure_entrant en[2] = {entrant_of(f), entrant_of(f + 1)};
    measure_result r;
    assert_int_equal(
        measure_run(en, 2, &(measure_plan){.rounds = 5, .warmup = 1, .max_seconds = 1e9, .now = fake_now}, &r, NULL),
        ICE_OK);
    assert_int_equal(en[0].rc, ICE_INTERNAL);
    assert_string_equal(en[0].err.text, "a failed");
    assert_int_equal(en[1].rc, ICE_OK);
    assert_int_equal(r.rounds, 5);
    assert_int_equal(f[0].passes, when);
    assert_true(isnan(measure_median(&r, 0, MEASURE_ATTENTION).value));
    assert_true(isnan(measure_speedup(&r, 1, 0, 1).value) && isnan(measure_speedup(&r, 0, 2, 1).value));
    assert_true(!isnan(measure_median(&r, 2, MEASURE_ATTENTION).value));
    measure_free(&r);
  }
}

static void test_run__all_entrants_fail__stops_at_once(void **state) {
  (void)state;
  fake f = {.id = 'a', .variants = 1, .cost = 10, .fails_at = 1};
  measure_entrant en = entrant_of(&f);
  measure_result r;
  assert_int_equal(measure_run(&en, 1, &(measure_plan){.rounds = 1000, .max_seconds = 1e9, .now = fake_now}, &r, NULL),
                   ICE_OK);
  assert_true(r.rounds <= 1);
  assert_int_equal(f.passes, 1);
  measure_free(&r);
}

static void test_run__stop_flag__ends_between_rounds(void **state) {
  (void)state;
  volatile sig_atomic_t stop = 1;
  fake f = {.id = 'a', .variants = 1, .cost = 10};
  measure_entrant en = entrant_of(&f);
  measure_result r;
  assert_int_equal(
      measure_run(&en, 1, &(measure_plan){.rounds = 9, .max_seconds = 1e9, .stop = &stop, .now = fake_now}, &r, NULL),
      ICE_OK);
  assert_int_equal(r.rounds, 0);
  assert_true(isnan(measure_median(&r, 0, MEASURE_ATTENTION).value));
  measure_free(&r);
}

/* ---- In the names of the database. */

static const store_metric *metric_named(const store_metric *m, const char *name) {
  for (int i = 0; i < MEASURE_METRICS; i++)
    if (!strcmp(m[i].name, name)) return m + i;
  fail_msg("no metric %s", name);
  return NULL;
}

/* Own 100 = 30 + 70 of 500, vanilla 400, dense 50: 4 times faster than the one, half as fast as the other. */
static void test_metrics__three_columns__under_their_own_names(void **state) {
  (void)state;
  enum { ROUNDS = 7 };
  measure_times times[3][ROUNDS];
  uint8_t ok[3] = {1, 1, 1};
  for (int i = 0; i < ROUNDS; i++) {
    times[0][i] = (measure_times){{[MEASURE_ATTENTION] = 100, [MEASURE_BUILD] = 30, [MEASURE_QUERY] = 70, [MEASURE_MODEL] = 500}};
    times[1][i] = (measure_times){{400, 1, 399, 800}};
    times[2][i] = (measure_times){{50, 2, 48, 450}};
  }
  const measure_result r = {.columns = 3, .rounds = ROUNDS, .max_rounds = ROUNDS, .times = times[0], .ok = ok};
  const measure_columns columns = {.own = 0, .vanilla = 1, .dense = 2};
  const measure_cost cost = {.pairs = 11, .touched = 18, .bytes = 12};
  const quality q = {.l2_error = 13, .rel_l2_error = 14, .mass = 15, .recall = 16, .mass_bound = 17};
  store_metric m[MEASURE_METRICS];
  measure_metrics(&r, columns, 1, &cost, &q, m);
  static const struct {
    const char *name;
    double value;
    int interval;
  } want[] = {{"attention_ns", 100, 1}, {"build_ns", 30, 1}, {"query_ns", 70, 1}, {"model_ns", 500, 1}, {"speedup_vanilla", 4, 1},
              {"speedup_dense", 0.5, 1}, {"l2_error", 13, 0}, {"rel_l2_error", 14, 0}, {"mass", 15, 0}, {"recall", 16, 0}, {"mass_bound", 17, 0},
              {"pairs", 11, 0}, {"peak_bytes", 12, 0}, {"bytes_touched", 18, 0}, {"rounds", ROUNDS, 0}};
  assert_int_equal(sizeof want / sizeof *want, MEASURE_METRICS);
  for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
    const store_metric *got = metric_named(m, want[i].name);
    if (got->value != want[i].value) fail_msg("%s is %g, not %g", want[i].name, got->value, want[i].value);
    assert_int_equal(got->lo == want[i].value && got->hi == want[i].value, want[i].interval);
  }
  int count = 0;
  store_sample *s = measure_samples(&r, columns, "mine", &count);
  assert_int_equal(count, 3 * ROUNDS * MEASURE_PHASES);
  for (int i = 0; i < count; i++) {
    const int c = !strcmp(s[i].method, "mine") ? 0 : !strcmp(s[i].method, "vanilla") ? 1 : 2;
    int phase = 0;
    while (strcmp(measure_phase_name((measure_phase)phase), s[i].phase)) phase++;
    assert_int_equal(s[i].ns, times[c][s[i].round].ns[phase]);
  }
  free(s);
}

/* ---- A method that shows how it is called. */

typedef struct probe_params {
  int64_t k, levels;
} probe_params;
static struct {
  int prepared, built, forwarded, released, fail_build;
  int64_t last_k[8];
} probe;

static attn_status probe_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  (void)pb;
  *need = (attn_mem){64, (size_t)((const probe_params *)params)->k * 64};
  return ATTN_OK;
}
static attn_status probe_prepare(void *plan, const attn_problem *pb, const void *params) {
  (void)plan, (void)pb, (void)params;
  probe.prepared++;
  return ATTN_OK;
}
static void *probe_index;
static attn_status probe_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  (void)plan, (void)k, (void)v, (void)kmask, (void)scratch;
  probe.built++;
  if (probe.fail_build) return ATTN_ERR_NUMERIC;
  probe_index = attn_alloc(1000);
  return ATTN_OK;
}
static attn_status probe_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                 attn_stats *st) {
  (void)plan, (void)q;
  const probe_params *p = params;
  memset(scratch, 0, (size_t)p->k * 64); /* sizes of the largest variant must be there */
  out.p[0] = (float)p->k;
  probe.last_k[probe.forwarded++ % 8] = p->k;
  st->pairs = (uint64_t)p->k;
  st->build_ns = 0;
  return ATTN_OK;
}
static void probe_release(void *plan) {
  (void)plan;
  probe.released++;
  attn_free(probe_index);
  probe_index = NULL;
}
static const attn_param probe_table[] = {{.key = "k",
                                          .doc = "",
                                          .type = ATTN_P_INT,
                                          .late = 1,
                                          .offset = offsetof(probe_params, k),
                                          .dflt = 4,
                                          .min = 1,
                                          .max = 64},
                                         {.key = "levels",
                                          .doc = "",
                                          .type = ATTN_P_INT,
                                          .offset = offsetof(probe_params, levels),
                                          .dflt = 1,
                                          .min = 1,
                                          .max = 8},
                                         {.key = NULL}};
static const attn_method probe_method = {.name = "probe",
                                         .version = "1",
                                         .caps = ATTN_CAP_CROSS,
                                         .params_size = sizeof(probe_params),
                                         .params = probe_table,
                                         .sizes = probe_sizes,
                                         .prepare = probe_prepare,
                                         .build = probe_build,
                                         .forward = probe_forward,
                                         .release = probe_release};

static void test_method__late_variants__share_one_build(void **state) {
  (void)state;
  float q[8] = {0}, out[8];
  measure_inputs in = {.pb = {.b = 1, .h = 1, .hkv = 1, .nq = 2, .nk = 2, .d = 4, .dv = 4, .scale = 0.5f, .threads = 1},
                       .q = {q, 8, 8, 4},
                       .k = {q, 8, 8, 4},
                       .v = {q, 8, 8, 4}};
  const probe_params p[3] = {{8, 1}, {16, 1}, {32, 1}};
  const void *params[3] = {p, p + 1, p + 2};
  measure_method mm;
  measure_cost cost[3];
  memset(&probe, 0, sizeof probe);
  size_t live = attn_alloc_counters().live_bytes;
  assert_int_equal(measure_method_open(&mm, &probe_method, params, 3, &in), ATTN_OK);
  assert_int_equal(measure_method_pass(&mm, &in, 1, measure_dense_view(out, 1, 2, 4), NULL, cost), ATTN_OK);
  assert_int_equal(probe.prepared, 1);
  assert_int_equal(probe.built, 1);
  assert_int_equal(probe.released, 1);
  assert_int_equal(probe.forwarded, 3);
  assert_int_equal(probe.last_k[0], 16); /* starts with variant 1 */
  assert_int_equal(probe.last_k[2], 8);
  for (int v = 0; v < 3; v++) {
    assert_int_equal(cost[v].pairs, p[v].k);
    assert_int_equal(cost[v].bytes, 64 + p[v].k * 64 + 1000); /* its own, whoever is beside it */
    assert_int_equal(cost[v].times.ns[MEASURE_BUILD], cost[0].times.ns[MEASURE_BUILD]);
    assert_int_equal(cost[v].times.ns[MEASURE_ATTENTION],
                     cost[v].times.ns[MEASURE_BUILD] + cost[v].times.ns[MEASURE_QUERY]);
    assert_int_equal(cost[v].times.ns[MEASURE_MODEL], -1);
  }
  probe.fail_build = 1;
  assert_int_equal(measure_method_pass(&mm, &in, 0, measure_dense_view(out, 1, 2, 4), NULL, cost), ATTN_ERR_NUMERIC);
  assert_int_equal(probe.forwarded, 3);
  measure_method_close(&mm);
  assert_int_equal(attn_alloc_counters().live_bytes, live);
}

static void test_method__bad_parameter_or_no_memory__is_refused(void **state) {
  (void)state;
  float q[8] = {0};
  measure_inputs in = {.pb = {.b = 1, .h = 1, .hkv = 1, .nq = 2, .nk = 2, .d = 4, .dv = 4, .scale = 0.5f, .threads = 1},
                       .q = {q, 8, 8, 4},
                       .k = {q, 8, 8, 4},
                       .v = {q, 8, 8, 4}};
  const probe_params good = {8, 1}, bad = {65, 1};
  const void *params[2] = {&good, &bad};
  measure_method mm;
  size_t live = attn_alloc_counters().live_bytes;
  assert_int_equal(measure_method_open(&mm, &probe_method, params, 2, &in), ATTN_ERR_PARAM);
  in.pb.causal = 1;
  assert_int_equal(measure_method_open(&mm, &probe_method, params, 1, &in), ATTN_ERR_UNSUPPORTED);
  in.pb.causal = 0;
  for (uint64_t n = 1; n <= 2; n++) {
    attn_alloc_fail_at(n);
    assert_int_equal(measure_method_open(&mm, &probe_method, params, 1, &in), ATTN_ERR_NOMEM);
  }
  attn_alloc_fail_at(0);
  assert_int_equal(attn_alloc_counters().live_bytes, live);
}

/* ---- Until when. */

typedef struct jumpy { /* passes of 1,000 ns, of which a share takes 1,000 + spread */
  int passes;
  int64_t spread;
} jumpy;

static int jumpy_pass(void *ctx, int first, measure_times *out, ice_err *e) {
  jumpy *j = ctx;
  (void)first, (void)e;
  const int64_t t = 1000 + (int64_t)(attn_hash(5, (uint64_t)j->passes++, (uint64_t)j->spread) % (uint64_t)(j->spread + 1));
  *out = (measure_times){{t, 10, t - 10, -1}};
  return ICE_OK;
}

static int rounds_of(int64_t spread, double precision, stats_interval *ratio) {
  jumpy own = {.spread = spread}, base = {.spread = spread};
  measure_entrant en[2] = {{.variants = 1, .pass = jumpy_pass, .ctx = &own}, {.variants = 1, .pass = jumpy_pass, .ctx = &base}};
  const measure_plan plan = {.rounds = 8, .precision = precision, .max_rounds = 200, .base = {1, 0}, .max_seconds = 1e9, .seed = 3};
  measure_result r;
  ice_err e;
  base.passes = 1000;
  assert_int_equal(measure_run(en, 2, &plan, &r, &e), ICE_OK);
  const int rounds = r.rounds;
  *ratio = measure_speedup(&r, 1, 0, 3);
  measure_free(&r);
  return rounds;
}

static void test_run__precision__goes_on_until_the_ratio_is_narrow_enough(void **state) {
  (void)state;
  stats_interval ratio;
  assert_int_equal(rounds_of(0, 0.01, &ratio), 8); /* no spread: the least */
  assert_int_equal(rounds_of(400, 0, &ratio), 8);  /* not asked for */
  assert_true(ratio.hi - ratio.lo > 0.10);
  const int some = rounds_of(400, 0.10, &ratio), most = rounds_of(400, 0.0001, &ratio);
  assert_in_range(some, 9, 150);
  assert_int_equal(most, 200);
  (void)rounds_of(400, 0.10, &ratio);
  assert_true(ratio.hi - ratio.lo <= 0.10 * ratio.value);
}

static int around_calls[2];
static void note_around(void *ctx, int begins) { ((int *)ctx)[begins]++; }

static void test_run__slowdown__is_of_the_first_entrant_and_counted(void **state) {
  (void)state;
  jumpy own = {.spread = 0}, base = {.spread = 0};
  measure_entrant en[2] = {{.variants = 1, .pass = jumpy_pass, .ctx = &own}, {.variants = 1, .pass = jumpy_pass, .ctx = &base}};
  const measure_plan plan = {.rounds = 6, .warmup = 2, .max_seconds = 1e9, .slowdown = 2.0, .around = note_around, .around_ctx = around_calls};
  measure_result r;
  ice_err e;
  assert_int_equal(measure_run(en, 2, &plan, &r, &e), ICE_OK);
  for (int i = 0; i < 6; i++) {
    const int64_t *own_ns = measure_sample(&r, 0, i)->ns, *base_ns = measure_sample(&r, 1, i)->ns;
    assert_true(own_ns[MEASURE_ATTENTION] >= 3000);
    assert_int_equal(own_ns[MEASURE_ATTENTION], own_ns[MEASURE_BUILD] + own_ns[MEASURE_QUERY]);
    assert_int_equal(own_ns[MEASURE_MODEL], -1);
    assert_int_equal(base_ns[MEASURE_ATTENTION], 1000);
  }
  assert_int_equal(around_calls[0], 6); /* not the warm-up, not the other */
  assert_int_equal(around_calls[1], 6);
  measure_free(&r);
}

/* --- rows of tensors ---------------------------------------------------------------------------------------------- */

/* Who asked for topk alone is told why there is no speed-up; a failed row that was asked for speaks for itself. */
static void test_rows__references_that_fail__are_explained(void **state) {
  (void)state;
  measure_rows rows;
  char text[MEASURE_REASON] = "before";
  assert_int_equal(measure_rows_create(&rows, "topk", NULL, NULL, NULL, NULL), ICE_OK);
  measure_rows_explain(&rows, text, sizeof text);
  assert_string_equal(text, "before");
  for (int r = 0; r < rows.n; r++) {
    rows.row[r].status = ATTN_ERR_NOMEM;
    (void)snprintf(rows.row[r].reason, sizeof rows.row[r].reason, "%s needs 9 bytes", rows.row[r].method->name);
  }
  measure_rows_explain(&rows, text, sizeof text);
  assert_string_equal(text, "before; no speed-up against vanilla: vanilla needs 9 bytes; no speed-up against dense: dense needs 9 bytes");
  measure_rows_destroy(&rows);
}

/* ---- Bytes. */

static uint64_t bytes_of(const char *name, int64_t k, const measure_inputs *in, float *out) {
  const attn_method *m = registry_find(name, NULL);
  void *params = registry_defaults(m);
  measure_cost cost = {.touched = 1};
  char text[24];
  (void)snprintf(text, sizeof text, "%lld", (long long)k);
  if (k) assert_int_equal(registry_param_set(m, registry_param(m, "k", NULL), text, params, NULL), ICE_OK);
  assert_int_equal(measure_method_once(m, params, in, measure_dense_view(out, in->pb.h, in->pb.nq, in->pb.dv), NULL, &cost), ATTN_OK);
  attn_free(params);
  return cost.touched;
}

/* 2 heads, 3 queries, 3 keys of width 4, values of 5, of which one tile of queries sees all. */
static void test_once__bytes_touched__by_hand(void **state) {
  (void)state;
  float x[2 * 3 * 5] = {1, 2, 3, 4, 5, 6, 7}, out[2 * 3 * 5];
  measure_inputs in = {.pb = {.b = 1, .h = 2, .hkv = 2, .nq = 3, .nk = 3, .d = 4, .dv = 5, .scale = 1, .threads = 2},
                       .q = {x, 24, 12, 4}, .k = {x, 24, 12, 4}, .v = {x, 30, 15, 5}};
  assert_int_equal(bytes_of("dense", 0, &in, out), 4 * 2 * 3 * (4 + 5));
  assert_int_equal(bytes_of("vanilla", 0, &in, out), 4 * 2 * 3 * (4 + 5));
  assert_int_equal(bytes_of("topk", 2, &in, out), 4 * 2 * (3 * 4 + 3 * 2 * 5));
  assert_int_equal(bytes_of("longformer", 0, &in, out), 0); /* does not say */
  const uint64_t few = bytes_of("iceformer", 1, &in, out), more = bytes_of("iceformer", 3, &in, out);
  assert_true(few >= 4 * 2 * 3 * 5 && more >= few + 4 * 2 * 3 * 2 * 5); /* two more values of every query, at least */
  in.pb.causal = 1;
  assert_int_equal(bytes_of("dense", 0, &in, out), 4 * 2 * 3 * (4 + 5)); /* the last query of the block sees all */
  assert_int_equal(bytes_of("topk", 2, &in, out), 4 * 2 * (3 * 4 + (1 + 2 + 2) * 5));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(test_order__each_round__is_a_permutation_and_first_place_rotates, setup),
      cmocka_unit_test(test_rows__references_that_fail__are_explained),
      cmocka_unit_test_setup(test_run__three_entrants__are_interleaved_and_every_sample_is_kept, setup),
      cmocka_unit_test_setup(test_run__budget_of_seconds__stops_before_the_round_that_would_exceed_it, setup),
      cmocka_unit_test_setup(test_run__one_entrant_fails__the_others_go_on, setup),
      cmocka_unit_test_setup(test_run__all_entrants_fail__stops_at_once, setup),
      cmocka_unit_test_setup(test_run__stop_flag__ends_between_rounds, setup),
      cmocka_unit_test_setup(test_metrics__three_columns__under_their_own_names, setup),
      cmocka_unit_test_setup(test_run__precision__goes_on_until_the_ratio_is_narrow_enough, setup),
      cmocka_unit_test_setup(test_run__slowdown__is_of_the_first_entrant_and_counted, setup),
      cmocka_unit_test_setup(test_method__late_variants__share_one_build, setup),
      cmocka_unit_test(test_once__bytes_touched__by_hand),
      cmocka_unit_test_setup(test_method__bad_parameter_or_no_memory__is_refused, setup),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
