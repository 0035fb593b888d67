/* aims.c - see aims.h */
#include "harness/aims.h"

#include <cblas.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/measure.h"
#include "harness/measure_tensors.h"
#include "harness/quality.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"
#include "kernels/core/blas.h"
#include "kernels/core/clock.h"

enum { MAX_AIMS = 1000, GEMM_N = 1024 };
static const char *const kind_words[AIM_KINDS + 1] = {"rate", "speedup", "share", "exponent", "cpu_us", NULL};
const char *aim_kind_name(aim_kind k) { return kind_words[k]; }

/* ---- The table. */

static int read_side(yaml_node *map, aim_side *s, ice_err *e) {
  static const char *const sources[] = {"gauss", "clustered", "lowrank", NULL};
  yaml_node *n;
  int64_t threads = 2;
  int kind = 1;
  *s = (aim_side){.h = 1, .d = 64, .seed = 1};
  ICE_TRY(yaml_get_string(map, "method", 1, &s->method, e));
  ICE_TRY(yaml_get(map, "synth", 0, &n, e));
  if (n) ICE_TRY(yaml_choice(n, sources, &kind, e));
  s->synth = sources[kind];
  ICE_TRY(yaml_get(map, "n", 1, &n, e));
  ICE_TRY(yaml_int(n, 1, 1 << 28, &s->n, e));
  ICE_TRY(yaml_get_int(map, "h", 1, 1 << 16, &s->h, e));
  ICE_TRY(yaml_get_int(map, "d", 1, 1 << 16, &s->d, e));
  ICE_TRY(yaml_get_int(map, "seed", 0, INT64_MAX, &s->seed, e));
  ICE_TRY(yaml_get_int(map, "threads", 1, 256, &threads, e));
  ICE_TRY(yaml_get_bool(map, "causal", &s->causal, e));
  s->threads = (int)threads;
  ICE_TRY(yaml_get_map(map, "params", 0, &s->params, e));
  for (int i = 0; s->params && i < yaml_count(s->params); i++) (void)yaml_value(s->params, i); /* read when measured */
  return ICE_OK;
}

static int read_aim(yaml_node *map, aim *a, ice_err *e) {
  yaml_node *n;
  int kind;
  *a = (aim){.least = NAN, .most = NAN, .need_recall = NAN, .need_error = NAN};
  if (!yaml_is_map(map)) return yaml_fail(map, e, "allowed a mapping such as {id: ..., aim: ..., kind: speedup, of: {...}, over: {...}}");
  ICE_TRY(yaml_get_string(map, "id", 1, &a->id, e));
  if (strspn(a->id, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(a->id) || strlen(a->id) > 60)
    return yaml_fail(yaml_find(map, "id"), e, "allowed 1..60 of a-z, 0-9, -");
  ICE_TRY(yaml_get_string(map, "aim", 1, &a->text, e));
  ICE_TRY(yaml_get(map, "kind", 1, &n, e));
  ICE_TRY(yaml_choice(n, kind_words, &kind, e));
  a->kind = (aim_kind)kind;
  ICE_TRY(yaml_get_map(map, "of", 1, &n, e));
  ICE_TRY(read_side(n, &a->of, e));
  a->has_over = kind == AIM_SPEEDUP || kind == AIM_SHARE || kind == AIM_EXPONENT;
  ICE_TRY(yaml_get_map(map, "over", a->has_over, &n, e));
  if (n && !a->has_over) return yaml_fail_key(n, e, "kind %s has no other side", kind_words[kind]);
  if (n) ICE_TRY(read_side(n, &a->over, e));
  if (kind == AIM_EXPONENT && a->of.n <= a->over.n)
    return yaml_fail(yaml_find(map, "of"), e, "n must be greater than that of `over`");
  ICE_TRY(yaml_get_real(map, "at_least", 0, 1e9, &a->least, e));
  ICE_TRY(yaml_get_real(map, "at_most", 0, 1e9, &a->most, e));
  if (isnan(a->least) == isnan(a->most)) return yaml_fail_at(map, e, "%s: needs at_least or at_most, one of them", a->id);
  ICE_TRY(yaml_get_map(map, "need", 0, &n, e));
  if (!n) return ICE_OK;
  ICE_TRY(yaml_get_real(n, "recall", 0, 1, &a->need_recall, e));
  return yaml_get_real(n, "rel_l2_error", 0, 1e3, &a->need_error, e);
}

static int read_list(aims *a, yaml_node *list, ice_err *e) {
  const int n = yaml_is_list(list) ? yaml_count(list) : 0;
  if (n < 1 || n > MAX_AIMS) return yaml_fail(list, e, "allowed a list of 1..%d aims", MAX_AIMS);
  a->list = calloc((size_t)n, sizeof *a->list);
  if (!a->list) return ice_fail(e, ICE_INTERNAL, "out of memory");
  for (int i = 0; i < n; i++) {
    ICE_TRY(read_aim(yaml_item(list, i), a->list + i, e));
    for (int j = 0; j < i; j++)
      if (!strcmp(a->list[j].id, a->list[i].id)) return yaml_fail_at(yaml_item(list, i), e, "id %s is given twice", a->list[i].id);
    a->n++;
  }
  return ICE_OK;
}

static int read_table(aims *a, ice_err *e) {
  yaml_node *top = yaml_root(a->doc), *n;
  int64_t rounds = 9, warmup = 1;
  ICE_TRY(yaml_get_int(top, "rounds", 1, 1000, &rounds, e));
  ICE_TRY(yaml_get_int(top, "warmup", 0, 100, &warmup, e));
  ICE_TRY(yaml_get_real(top, "max_seconds", 0.1, 1e6, &a->max_seconds, e));
  ICE_TRY(yaml_get_real(top, "limit_seconds", 1, 1e7, &a->limit_seconds, e));
  ICE_TRY(yaml_get_real(top, "limit_gib", 0.01, 65536, &a->limit_gib, e));
  a->rounds = (int)rounds;
  a->warmup = (int)warmup;
  ICE_TRY(yaml_get(top, "aims", 1, &n, e));
  ICE_TRY(read_list(a, n, e));
  return yaml_finish(a->doc, e);
}

int aims_is_one(yaml_doc *doc) { return yaml_find(yaml_root(doc), "aims") != NULL; }

int aims_read(aims *a, const char *path, ice_err *e) {
  *a = (aims){.max_seconds = 20, .limit_seconds = 300, .limit_gib = 8};
  ICE_TRY(yaml_read(path, &a->doc, e));
  int rc = read_table(a, e);
  if (rc != ICE_OK) aims_free(a);
  return rc;
}

void aims_free(aims *a) {
  free(a->list);
  yaml_close(a->doc);
  *a = (aims){0};
}

/* ---- Work. */

typedef struct work { /* a side, ready to run; method NULL: sgemm */
  const attn_method *method;
  measure_tensors t;
  void *params;
  measure_method mm;
  float *out;
  int threads;
  attn_status status;
} work;

static int read_params(work *w, yaml_node *map, ice_err *e) {
  if (!(w->params = registry_defaults(w->method))) return ice_fail(e, ICE_INTERNAL, "out of memory");
  for (int i = 0; map && i < yaml_count(map); i++) {
    const attn_param *p = registry_param(w->method, yaml_key(map, i), e);
    if (!p) return ICE_USAGE;
    ICE_TRY(registry_param_set(w->method, p, yaml_text(yaml_value(map, i)), w->params, e));
  }
  return ICE_OK;
}

static int open_method(work *w, const aim_side *s, ice_err *e) {
  char source[256];
  w->threads = s->threads;
  if (!(w->method = registry_find(s->method, e))) {
    w->status = ATTN_ERR_UNSUPPORTED;
    return ICE_USAGE;
  }
  ICE_TRY(read_params(w, s->params, e));
  (void)snprintf(source, sizeof source, "%s:h=%" PRId64 ",n=%" PRId64 ",d=%" PRId64 ",causal=%d,seed=%" PRId64, s->synth, s->h,
                 s->n, s->d, s->causal, s->seed);
  ICE_TRY(measure_tensors_synth(&w->t, source, NULL, 0, e));
  const attn_problem *pb = &w->t.in.pb;
  w->t.in.pb.threads = s->threads;
  w->t.in.pb.seed = (uint64_t)s->seed;
  w->out = attn_alloc((size_t)(pb->b * pb->h * pb->nq * pb->dv) * sizeof *w->out);
  if (!w->out) return ice_fail(e, ICE_INTERNAL, "out of memory for outputs");
  const void *params = w->params;
  w->status = measure_method_open(&w->mm, w->method, &params, 1, &w->t.in);
  w->mm.params = NULL; /* that was this call's */
  return w->status == ATTN_OK ? ICE_OK : ice_fail(e, ICE_INTERNAL, "%s", attn_last_error());
}

/* Matrices of every thread, one behind the other. */
static int open_sgemm(work *w, int threads, ice_err *e) {
  const size_t n = (size_t)threads * 3 * GEMM_N * GEMM_N;
  w->threads = threads;
  w->out = attn_alloc(n * sizeof *w->out);
  if (!w->out) return ice_fail(e, ICE_INTERNAL, "out of memory for matrices");
  for (size_t i = 0; i < n; i++) w->out[i] = (float)(i % 7) * 0.25f;
  attn_blas_serial();
  return ICE_OK;
}

static void close_work(work *w) {
  if (w->method) {
    measure_method_close(&w->mm);
    measure_tensors_free(&w->t);
    attn_free(w->params);
  }
  attn_free(w->out);
}

static attn_viewm output(const work *w) {
  const attn_problem *pb = &w->t.in.pb;
  return measure_dense_view(w->out, pb->h, pb->nq, pb->dv);
}

static void run_sgemm(work *w) {
#pragma omp parallel for num_threads(w->threads) schedule(static, 1)
  for (int i = 0; i < w->threads; i++) {
    float *a = w->out + (size_t)i * 3 * GEMM_N * GEMM_N, *b = a + GEMM_N * GEMM_N, *c = b + GEMM_N * GEMM_N;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, GEMM_N, GEMM_N, GEMM_N, 1.0f, a, GEMM_N, b, GEMM_N, 0.0f, c, GEMM_N);
  }
}

static int pass(void *ctx, int first, measure_times *out, ice_err *e) {
  work *w = ctx;
  const int64_t start = attn_now_ns();
  (void)first;
  if (!w->method) {
    run_sgemm(w);
    *out = (measure_times){{attn_now_ns() - start, -1, -1, -1}};
    return ICE_OK;
  }
  const void *params = w->params;
  measure_cost cost;
  w->mm.params = &params;
  w->status = measure_method_pass(&w->mm, &w->t.in, 0, output(w), NULL, &cost);
  if (w->status != ATTN_OK) return ice_fail(e, ICE_INTERNAL, "%s: %s", w->method->name, attn_last_error());
  *out = cost.times;
  return ICE_OK;
}

/* ---- Numbers. */

static double *column(const measure_result *r, int c) {
  double *x = malloc((size_t)r->rounds * sizeof *x);
  for (int i = 0; x && i < r->rounds; i++) x[i] = (double)measure_sample(r, c, i)->ns[MEASURE_ATTENTION];
  return x;
}

static stats_interval scaled(stats_interval v, double factor) {
  return (stats_interval){v.value * factor, v.lo * factor, v.hi * factor};
}

/* The aim's number from the samples of both sides; x, y [n] may be reordered. */
static stats_interval number_of(const aim *a, double *of, double *over, size_t n) {
  const aim_side *s = &a->of;
  const double hn = (double)s->h * (double)s->n;
  if (a->kind == AIM_CPU_US) return scaled(stats_median_interval(of, n), 1e-3 * s->threads / hn);
  if (a->kind == AIM_SPEEDUP) return stats_ratio_bootstrap(over, of, n, 1);
  if (a->kind == AIM_SHARE) return stats_ratio_bootstrap(of, over, n, 1);
  if (a->kind == AIM_RATE) {
    const double gemm = 2.0 * GEMM_N * GEMM_N * GEMM_N * s->threads;
    return scaled(stats_ratio_bootstrap(over, of, n, 1), 4.0 * hn * (double)s->n * (double)s->d / gemm);
  }
  const stats_interval r = stats_ratio_bootstrap(of, over, n, 1);
  const double ln = log((double)s->n / (double)a->over.n);
  return (stats_interval){log(r.value) / ln, log(r.lo) / ln, log(r.hi) / ln};
}

int aim_reached(const aim *a, double measured, double recall, double rel_l2_error) {
  if (!isnan(a->need_recall) && !(recall >= a->need_recall)) return 0;
  if (!isnan(a->need_error) && !(rel_l2_error <= a->need_error)) return 0;
  return isnan(a->least) ? measured <= a->most : measured >= a->least;
}

/* What the aim needs to know of the quality of `of`, and no more: the best keys of long inputs take their time. */
static int judge(const aim *a, work *w, aim_result *out, ice_err *e) {
  const int set = !isnan(a->need_recall) && (w->method->caps & ATTN_CAP_KEYSET);
  const void *params = w->params;
  quality_ref ref;
  quality_keys keys = {0};
  quality_sums sums = {0};
  if (isnan(a->need_recall) && isnan(a->need_error)) return ICE_OK;
  ICE_TRY(quality_ref_create(&ref, &w->t.in, e));
  int rc = set ? quality_keys_create(&keys, &w->t.in.pb, e) : ICE_OK;
  if (rc == ICE_OK) {
    attn_stats st = {.on_keys = set ? quality_on_keys : NULL, .ctx = &keys};
    w->mm.params = &params;
    w->status = measure_method_pass(&w->mm, &w->t.in, 0, output(w), &st, NULL);
    if (w->status != ATTN_OK) rc = ice_fail(e, ICE_INTERNAL, "%s: %s", w->method->name, attn_last_error());
  }
  if (rc == ICE_OK)
    rc = quality_add(&sums, &ref, measure_const_view(output(w)), set ? &keys : NULL, quality_k(w->method, w->params), e);
  const quality q = quality_of(&sums);
  out->recall = q.recall;
  out->rel_l2_error = q.rel_l2_error;
  quality_keys_destroy(&keys);
  quality_ref_destroy(&ref);
  return rc;
}

static int measure(const aims *table, const aim *a, work *w, aim_result *out, ice_err *e) {
  const int sides = a->kind == AIM_CPU_US ? 1 : 2;
  measure_entrant entrant[2];
  measure_result r;
  const measure_plan plan = {.rounds = table->rounds, .warmup = table->warmup, .max_seconds = table->max_seconds, .seed = 1};
  ICE_TRY(open_method(w, &a->of, e));
  if (a->has_over) ICE_TRY(open_method(w + 1, &a->over, e));
  if (a->kind == AIM_RATE) ICE_TRY(open_sgemm(w + 1, a->of.threads, e));
  for (int i = 0; i < sides; i++) entrant[i] = (measure_entrant){.variants = 1, .pass = pass, .ctx = w + i};
  ICE_TRY(measure_run(entrant, sides, &plan, &r, e));
  int rc = ICE_OK;
  for (int i = 0; i < sides && rc == ICE_OK; i++)
    if (entrant[i].rc != ICE_OK) *e = entrant[i].err, rc = entrant[i].rc;
  if (rc == ICE_OK) {
    double *of = column(&r, 0), *over = sides > 1 ? column(&r, 1) : NULL;
    out->ns = measure_median(&r, 0, MEASURE_ATTENTION);
    if (of && (over || sides == 1)) out->measured = number_of(a, of, over, (size_t)r.rounds);
    else rc = ice_fail(e, ICE_INTERNAL, "out of memory");
    free(of);
    free(over);
  }
  measure_free(&r);
  return rc == ICE_OK ? judge(a, w, out, e) : rc;
}

void aim_measure(const aims *table, const aim *a, aim_result *out) {
  const stats_interval none = {NAN, NAN, NAN};
  work w[2] = {0};
  ice_err e = {0};
  *out = (aim_result){.status = "ok", .measured = none, .ns = none, .recall = NAN, .rel_l2_error = NAN};
  if (measure(table, a, w, out, &e) == ICE_OK) {
    out->reached = aim_reached(a, out->measured.value, out->recall, out->rel_l2_error);
  } else {
    const int refused = w[0].status == ATTN_ERR_UNSUPPORTED || w[1].status == ATTN_ERR_UNSUPPORTED;
    out->status = refused ? "unsupported" : "failed";
    (void)snprintf(out->reason, sizeof out->reason, "%s", e.text);
    out->measured = out->ns = none;
  }
  close_work(w);
  close_work(w + 1);
}
