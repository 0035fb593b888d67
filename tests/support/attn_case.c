/* attn_case.c - see attn_case.h */
#include "tests/support/attn_case.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

static void *must(void *p) {
  if (!p) {
    perror("out of memory");
    exit(1);
  }
  return p;
}

/* --- cases ------------------------------------------------------------------------------------------------------- */

/* Strides of [b, h, n, width]: dense, or rows of all heads side by side with three floats between rows. */
static int64_t lay_out(attn_view *v, int64_t b, int64_t h, int64_t n, int64_t width, int interleaved) {
  v->sn = interleaved ? h * (width + 3) : width;
  v->sh = interleaved ? width + 3 : n * width;
  v->sb = interleaved ? n * v->sn : h * v->sh;
  return b == 0 || n == 0 ? 0 : (b - 1) * v->sb + (h - 1) * v->sh + (n - 1) * v->sn + width;
}

float *attn_case_row(const attn_view *v, int64_t ib, int64_t ih, int64_t i) {
  return (float *)(uintptr_t)v->p + ib * v->sb + ih * v->sh + i * v->sn;
}

/* A point near one of `centres` random ones, or anywhere. */
static void draw_row(float *row, int64_t d, attn_source source, int64_t centres, uint64_t seed, attn_rng *r) {
  const double length = source == ATTN_CLUSTERED ? 1.0 + 0.15 * attn_rng_normal(r) : 1.0;
  const double spread = source == ATTN_CLUSTERED ? 0.4 : 1.0;
  attn_rng centre;
  attn_rng_seed(&centre, seed, 1000 + attn_rng_below(r, (uint64_t)centres));
  for (int64_t t = 0; t < d; t++) {
    const double at = source == ATTN_CLUSTERED ? 1.5 * attn_rng_normal(&centre) : 0.0;
    row[t] = (float)(length * (at + spread * attn_rng_normal(r)));
  }
}

void attn_case_make(attn_case *c, attn_shape s, attn_source source, uint64_t seed) {
  *c = (attn_case){.pb = {.b = s.b, .h = s.h, .hkv = s.hkv, .nq = s.nq, .nk = s.nk, .d = s.d, .dv = s.dv}};
  c->pb.causal = s.causal;
  c->pb.scale = (float)(1.0 / sqrt((double)s.d));
  c->pb.threads = 2;
  c->pb.seed = seed;
  attn_rng r;
  attn_rng_seed(&r, seed, 1);
  /* Keys end where memory ends, queries begin where it begins. */
  c->q.p = guard_new(&c->gq, lay_out(&c->q, s.b, s.h, s.nq, s.d, s.interleaved), 1, 0);
  c->k.p = guard_new(&c->gk, lay_out(&c->k, s.b, s.hkv, s.nk, s.d, s.interleaved), 0, 1);
  c->v.p = guard_new(&c->gv, lay_out(&c->v, s.b, s.hkv, s.nk, s.dv, s.interleaved), 0, 1);
  const int64_t centres = s.nk / 16 + 1;
  for (int64_t ib = 0; ib < s.b; ib++) {
    for (int64_t ih = 0; ih < s.h; ih++)
      for (int64_t i = 0; i < s.nq; i++)
        draw_row(attn_case_row(&c->q, ib, ih, i), s.d, source, centres, attn_hash(seed, (uint64_t)ib, (uint64_t)(ih / (s.h / s.hkv))), &r);
    for (int64_t ih = 0; ih < s.hkv; ih++)
      for (int64_t j = 0; j < s.nk; j++) {
        draw_row(attn_case_row(&c->k, ib, ih, j), s.d, source, centres, attn_hash(seed, (uint64_t)ib, (uint64_t)ih), &r);
        for (int64_t t = 0; t < s.dv; t++) attn_case_row(&c->v, ib, ih, j)[t] = (float)attn_rng_normal(&r);
      }
  }
  if (!s.masked || s.nk == 0) return;
  c->mask = must(malloc((size_t)(s.b * s.nk)));
  for (int64_t ib = 0; ib < s.b; ib++) {
    const int64_t end = s.nk - (int64_t)attn_rng_below(&r, (uint64_t)(s.nk / 2 + 1));
    for (int64_t j = 0; j < s.nk; j++) {
      const int keep = s.masked == 2 ? j < end : attn_rng_uniform(&r) < 0.7;
      c->mask[ib * s.nk + j] = (uint8_t)keep;
      for (int64_t ih = 0; ih < s.hkv && !keep; ih++) {
        for (int64_t t = 0; t < s.d; t++) attn_case_row(&c->k, ib, ih, j)[t] = t % 2 ? NAN : INFINITY;
        for (int64_t t = 0; t < s.dv; t++) attn_case_row(&c->v, ib, ih, j)[t] = NAN;
      }
    }
  }
}

void attn_case_learn(attn_case *c, const attn_method *m, const void *params) {
  enum { POSITIONS = 700 };
  attn_problem longest = c->pb;
  attn_rng r;
  longest.positions = c->pb.nk > POSITIONS ? c->pb.nk : POSITIONS;
  const int64_t floats = (int64_t)attn_learned_floats(m, &longest, params);
  if (!floats) return;
  float *w = guard_new(&c->learned, floats, 0, 1);
  attn_rng_seed(&r, 4, 4);
  for (int64_t i = 0; i < floats; i++) w[i] = (float)(0.35 * (attn_rng_uniform(&r) - 0.5));
  longest.weights = w, longest.weights_bytes = (size_t)floats * sizeof(float);
  c->pb = longest;
}

void attn_case_free(attn_case *c) {
  free(c->mask);
  if (c->learned.base) guard_free(&c->learned);
  guard_free(&c->gq);
  guard_free(&c->gk);
  guard_free(&c->gv);
  *c = (attn_case){0};
}

int attn_case_sees(const attn_case *c, int64_t ib, int64_t iq, int64_t j) {
  if (c->mask && !c->mask[ib * c->pb.nk + j]) return 0;
  return !c->pb.causal || j <= iq + c->pb.nk - c->pb.nq;
}

int64_t attn_case_visible(const attn_case *c, int64_t ib, int64_t iq) {
  int64_t count = 0;
  for (int64_t j = 0; j < c->pb.nk; j++) count += attn_case_sees(c, ib, iq, j);
  return count;
}

/* --- running ----------------------------------------------------------------------------------------------------- */

static void count_key(void *ctx, int64_t ib, int64_t ih, int64_t iq, const int32_t *keys, int64_t count) {
  attn_result *r = ctx;
  uint8_t *row = r->keys + ((ib * r->pb.h + ih) * r->pb.nq + iq) * r->pb.nk;
  for (int64_t i = 0; i < count; i++) {
    if (keys[i] < 0 || keys[i] >= r->pb.nk) { /* not in the thread that may fail the test */
      print_error("key %d reported, allowed 0..%lld\n", keys[i], (long long)(r->pb.nk - 1));
      abort();
    }
    row[keys[i]]++;
  }
}

static attn_status run(const attn_method *m, const void *params, const attn_case *c, int flags, attn_result *r) {
  const attn_problem *pb = &c->pb;
  attn_status st = attn_check(m, pb, params);
  if (st != ATTN_OK) return st;
  attn_mem need = {0};
  if ((st = m->sizes(pb, params, &need)) != ATTN_OK) return st;
  const int end = flags & ATTN_AT_END ? 1 : 0;
  const size_t live = attn_alloc_counters().live_bytes;
  guard plan, scratch;
  /* At the end of memory the start is aligned only if the size is. */
  void *pl = guard_new(&plan, (int64_t)((end ? attn_round(need.plan) : need.plan) + 3) / 4, 0, end);
  void *sc = guard_new(&scratch, (int64_t)((end ? attn_round(need.scratch) : need.scratch) + 3) / 4, 0, end);
  r->out = guard_new(&r->gout, r->rows * pb->dv, 1, 0);
  r->lse = guard_new(&r->glse, r->rows, 0, 1);
  r->missing = guard_new(&r->gmissing, r->rows, 0, 1);
  for (int64_t i = 0; i < r->rows; i++) r->missing[i] = -1.0f;
  if (flags & ATTN_WANT_KEYS) r->keys = must(calloc((size_t)(r->rows * pb->nk + 1), 1));
  attn_stats stats = {.lse = r->lse, .missing = r->missing, .ctx = r, .on_keys = flags & ATTN_WANT_KEYS ? count_key : NULL};
  const attn_viewm out = {r->out, pb->h * pb->nq * pb->dv, pb->nq * pb->dv, pb->dv};
  int prepared = 0;
  if ((st = m->prepare(pl, pb, params)) == ATTN_OK) {
    prepared = 1;
    st = m->build(pl, c->k, c->v, c->mask, sc);
  }
  if (st == ATTN_OK) {
    const uint64_t calls = attn_alloc_counters().calls;
    st = m->forward(pl, params, c->q, out, sc, &stats);
    assert_int_equal(attn_alloc_counters().calls, calls);
  }
  r->pairs = stats.pairs, r->bytes = stats.bytes, r->path = stats.path;
  if (prepared) m->release(pl);
  if (!guard_intact(&plan) || !guard_intact(&scratch) || !guard_intact(&r->gout) || !guard_intact(&r->glse) || !guard_intact(&r->gmissing) ||
      !guard_intact(&c->gq) || !guard_intact(&c->gk) || !guard_intact(&c->gv))
    fail_msg("%s wrote beside its memory", m->name);
  guard_free(&plan);
  guard_free(&scratch);
  if (attn_alloc_counters().live_bytes != live) fail_msg("%s leaked memory", m->name);
  return st;
}

attn_status attn_case_run(const attn_method *m, const void *params, const attn_case *c, int flags, attn_result *r) {
  attn_case own = *c;
  *r = (attn_result){.pb = c->pb, .rows = c->pb.b * c->pb.h * c->pb.nq};
  if (!c->pb.weights) attn_case_learn(&own, m, params);
  const attn_status st = run(m, params, &own, flags, r);
  if (own.learned.base && !guard_intact(&own.learned)) fail_msg("%s wrote beside what it has learned", m->name);
  if (!c->pb.weights && own.learned.base) guard_free(&own.learned);
  return st;
}

void attn_result_free(attn_result *r) {
  free(r->keys);
  if (r->gout.base) guard_free(&r->gout);
  if (r->glse.base) guard_free(&r->glse);
  if (r->gmissing.base) guard_free(&r->gmissing);
  *r = (attn_result){0};
}

/* --- reference --------------------------------------------------------------------------------------------------- */

typedef struct place {
  int64_t ib, ih, iq, kv;
} place;
static place place_of(const attn_case *c, int64_t row) {
  const attn_problem *pb = &c->pb;
  place p = {row / (pb->h * pb->nq), row / pb->nq % pb->h, row % pb->nq, 0};
  p.kv = p.ih / (pb->h / pb->hkv);
  return p;
}

double attn_ref_score(const attn_case *c, int64_t row, int64_t j, double *magnitude) {
  const place at = place_of(c, row);
  const float *q = attn_case_row(&c->q, at.ib, at.ih, at.iq), *k = attn_case_row(&c->k, at.ib, at.kv, j);
  double sum = 0, size = 0;
  for (int64_t t = 0; t < c->pb.d; t++) {
    sum += (double)q[t] * (double)k[t];
    size += fabs((double)q[t] * (double)k[t]);
  }
  if (magnitude) *magnitude = size;
  return sum;
}

static double *doubles(int64_t n) { return must(calloc((size_t)n + 1, sizeof(double))); }

static void ref_row(const attn_case *c, const uint8_t *keys, int64_t row, double *w, attn_truth *t) {
  const attn_problem *pb = &c->pb;
  const place at = place_of(c, row);
  double top = -INFINITY, sum = 0, widest = 0, largest = 0, *out = t->out + row * pb->dv;
  int64_t count = 0;
  for (int64_t j = 0; j < pb->nk; j++) {
    double magnitude;
    w[j] = -INFINITY;
    if (keys ? !keys[row * pb->nk + j] : !attn_case_sees(c, at.ib, at.iq, j)) continue;
    w[j] = (double)pb->scale * attn_ref_score(c, row, j, &magnitude);
    top = fmax(top, w[j]);
    widest = fmax(widest, magnitude);
    count++;
  }
  for (int64_t j = 0; j < pb->nk; j++) {
    if (w[j] == -INFINITY) continue;
    const float *v = attn_case_row(&c->v, at.ib, at.kv, j);
    const double weight = exp(w[j] - top);
    sum += weight;
    for (int64_t i = 0; i < pb->dv; i++) {
      out[i] += weight * (double)v[i];
      largest = fmax(largest, fabs((double)v[i]));
    }
  }
  for (int64_t i = 0; i < pb->dv && count > 0; i++) out[i] /= sum;
  const double unit = 4 * (double)FLT_EPSILON * ((double)pb->scale * (double)pb->d * widest + (double)count + 8);
  t->lse[row] = count > 0 ? top + log(sum) : -INFINITY;
  t->lse_bound[row] = unit + (double)FLT_EPSILON * fabs(t->lse[row]);
  t->bound[row] = unit * largest;
}

attn_truth attn_ref(const attn_case *c, const uint8_t *keys) {
  const attn_problem *pb = &c->pb;
  const int64_t rows = pb->b * pb->h * pb->nq;
  attn_truth t = {doubles(rows * pb->dv), doubles(rows), doubles(rows), doubles(rows)};
  double *w = doubles(pb->nk);
  for (int64_t row = 0; row < rows; row++) ref_row(c, keys, row, w, &t);
  free(w);
  return t;
}

void attn_truth_free(attn_truth *t) { free(t->out), free(t->lse), free(t->bound), free(t->lse_bound); }

typedef struct ranked {
  double score;
  int64_t key;
} ranked;
static int by_rank(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  return (x->key > y->key) - (x->key < y->key);
}

void attn_ref_top(const attn_case *c, int64_t k, uint8_t *keys, double *gap) {
  const attn_problem *pb = &c->pb;
  ranked *r = must(malloc((size_t)(pb->nk + 1) * sizeof *r));
  for (int64_t row = 0; row < pb->b * pb->h * pb->nq; row++) {
    const place at = place_of(c, row);
    int64_t n = 0;
    for (int64_t j = 0; j < pb->nk; j++)
      if (attn_case_sees(c, at.ib, at.iq, j)) r[n++] = (ranked){attn_ref_score(c, row, j, NULL), j};
    qsort(r, (size_t)n, sizeof *r, by_rank);
    memset(keys + row * pb->nk, 0, (size_t)pb->nk);
    for (int64_t i = 0; i < n && i < k; i++) keys[row * pb->nk + r[i].key] = 1;
    if (gap) gap[row] = k < n ? r[k - 1].score - r[k].score : INFINITY;
  }
  free(r);
}

void attn_assert_close(const char *what, const attn_case *c, const attn_result *r, const uint8_t *keys) {
  attn_truth t = attn_ref(c, keys);
  const int64_t dv = c->pb.dv;
  for (int64_t row = 0; row < r->rows; row++) {
    for (int64_t i = row * dv; i < (row + 1) * dv; i++)
      if (!(fabs((double)r->out[i] - t.out[i]) <= t.bound[row]))
        fail_msg("%s: row %lld column %lld is %.9g, expected %.9g within %.3g", what, (long long)row,
                 (long long)(i - row * dv), (double)r->out[i], t.out[i], t.bound[row]);
    const double got = (double)r->lse[row], want = t.lse[row];
    if (want == -INFINITY ? got != want : !(fabs(got - want) <= t.lse_bound[row]))
      fail_msg("%s: log-sum-exp of row %lld is %.9g, expected %.9g within %.3g", what, (long long)row, got, want,
               t.lse_bound[row]);
  }
  attn_truth_free(&t);
}
