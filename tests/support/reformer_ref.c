/* reformer_ref.c - see reformer_ref.h */
#include "tests/support/reformer_ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/rng.h"

static void *must(size_t n, size_t size) {
  void *p = calloc(n + 1, size);
  if (!p) abort();
  return p;
}

/* argmax over [y; -y], y = x G, the columns of G from `first` on; g [columns, d]. */
static int64_t bucket_of(const double *g, int64_t d, int64_t first, int64_t half, const double *x) {
  double best = -INFINITY;
  int64_t at = 0;
  for (int sign = 1; sign >= -1; sign -= 2)
    for (int64_t c = 0; c < half; c++) {
      double y = 0;
      for (int64_t t = 0; t < d; t++) y += x[t] * g[(first + c) * d + t];
      if (sign * y > best) best = sign * y, at = sign > 0 ? c : half + c;
    }
  return at;
}

/* 2^floor(log2(2 floor(n / C))), in two factors when that exceeds 2 max(C, sqrt(n / C)). */
static void bucket_counts(const reformer_params *p, int64_t n, int64_t f[2]) {
  f[0] = p->buckets, f[1] = 1;
  if (p->buckets) return;
  const int64_t chunks = n / p->chunk, bits = (int64_t)floor(log2((double)(2 * chunks > 2 ? 2 * chunks : 2)));
  const int64_t limit = 2 * (int64_t)fmax(floor(sqrt((double)chunks)), (double)p->chunk);
  f[0] = (int64_t)1 << bits;
  if (f[0] > limit && bits >= 2) f[0] = (int64_t)1 << (bits / 2), f[1] = (int64_t)1 << (bits - bits / 2);
}

typedef struct place {
  int64_t bucket;
  int32_t id;
} place;
static int by_bucket(const void *a, const void *b) {
  const place *x = a, *y = b;
  if (x->bucket != y->bucket) return x->bucket < y->bucket ? -1 : 1;
  return x->id < y->id ? -1 : 1;
}

/* The window of rank `at` in a round: slot s of it (own chunk first, then the chunk before), as position; -1 behind its end. */
static int64_t slot(const reformer_ref *r, int64_t round, int64_t at, int64_t s) {
  const int64_t C = r->p->chunk, c = at / C, own = s < C;
  int64_t from = own || c || !r->p->leak ? round : (round + r->rounds - 1) % r->rounds;
  int64_t chunk = own ? c : (c + r->chunks - 1) % r->chunks, rank = chunk * C + (own ? s : s - C);
  if ((!own && r->chunks == 1) || s >= 2 * C || rank >= r->kept) return -1;
  return r->order[from * r->pb->nk + rank];
}

void reformer_ref_new(reformer_ref *r, const attn_problem *pb, const reformer_params *p, int64_t ih, const uint8_t *mask,
                      const double *x, ptrdiff_t xs) {
  const int64_t n = pb->nk;
  *r = (reformer_ref){.pb = pb, .p = p, .order = must((size_t)(p->rounds * n), sizeof(int32_t)), .times = must((size_t)(n * n), sizeof(int32_t))};
  for (int64_t i = 0; i < n; i++) r->kept += !mask || mask[i];
  r->chunks = (r->kept + p->chunk - 1) / p->chunk;
  r->rounds = r->chunks > 1 ? p->rounds : 1;
  place *list = must((size_t)n, sizeof *list);
  for (int64_t round = 0; round < r->rounds; round++) {
    int64_t f[2], m = 0;
    bucket_counts(p, r->kept, f);
    const int64_t columns = f[0] / 2 + (f[1] > 1 ? f[1] / 2 : 0);
    double *g = must((size_t)(columns * pb->d), sizeof *g);
    for (int64_t c = 0; c < columns; c++) {
      attn_rng draw;
      attn_rng_seed(&draw, attn_hash(pb->seed, (uint64_t)ih, (uint64_t)round), (uint64_t)c);
      for (int64_t t = 0; t < pb->d; t++) g[c * pb->d + t] = (double)(float)attn_rng_normal(&draw);
    }
    for (int64_t i = 0; i < n; i++) {
      if (mask && !mask[i]) continue;
      int64_t bucket = r->chunks > 1 ? bucket_of(g, pb->d, 0, f[0] / 2, x + i * xs) : 0;
      if (r->chunks > 1 && f[1] > 1) bucket += f[0] * bucket_of(g, pb->d, f[0] / 2, f[1] / 2, x + i * xs);
      list[m++] = (place){bucket, (int32_t)i};
    }
    qsort(list, (size_t)m, sizeof *list, by_bucket);
    for (int64_t i = 0; i < m; i++) r->order[round * n + i] = list[i].id;
    free(g);
  }
  free(list);
  for (int64_t round = 0; round < r->rounds; round++)
    for (int64_t at = 0; at < r->kept; at++)
      for (int64_t s = 0; s < 2 * p->chunk; s++) {
        const int64_t j = slot(r, round, at, s);
        if (j >= 0) r->times[r->order[round * n + at] * n + j]++;
      }
}
void reformer_ref_free(reformer_ref *r) { free(r->order), free(r->times); }

int64_t reformer_ref_times(const reformer_ref *r, int64_t i, int64_t j) { return r->times[i * r->pb->nk + j]; }

double reformer_ref_logit(const reformer_ref *r, const double *x, ptrdiff_t xs, int64_t i, int64_t j) {
  double dot = 0, square = 0;
  if (i == j && r->p->self == SELF_LAST) return -1e5;
  for (int64_t t = 0; t < r->pb->d; t++) dot += x[i * xs + t] * x[j * xs + t], square += x[j * xs + t] * x[j * xs + t];
  if (r->p->logits == LOGITS_DOT) return (double)r->pb->scale * dot;
  const double unit = dot / sqrt(square + 1e-6 * (double)r->pb->d);
  return r->p->logits == LOGITS_UNIT ? unit : (double)r->pb->scale * unit;
}

void reformer_ref_run(const reformer_ref *r, const double *x, ptrdiff_t xs, const double *v, ptrdiff_t vs, const attn_drop *dr,
                      double *out, ptrdiff_t os, double *lse) {
  const int64_t n = r->pb->nk, dv = r->pb->dv, C = r->p->chunk, back = (C + 31) / 32 * 32;
  double *o = must((size_t)(r->rounds * n * dv), sizeof(double)), *l = must((size_t)(r->rounds * n), sizeof(double));
  double *z = must((size_t)(2 * C), sizeof(double));
  for (int64_t round = 0; round < r->rounds; round++)
    for (int64_t at = 0; at < r->kept; at++) {
      const int64_t i = r->order[round * n + at];
      double top = -INFINITY, sum = 0, *row = o + (round * n + i) * dv;
      for (int64_t s = 0; s < 2 * C; s++) {
        const int64_t j = slot(r, round, at, s);
        z[s] = j < 0 || (r->pb->causal && j > i) ? -INFINITY : reformer_ref_logit(r, x, xs, i, j);
        if (r->p->duplicates == DUP_REMOVED && z[s] > -INFINITY && (i != j || r->p->self == SELF_PLAIN)) z[s] -= log((double)reformer_ref_times(r, i, j));
        top = fmax(top, z[s]);
      }
      for (int64_t s = 0; s < 2 * C; s++) {
        if (z[s] == -INFINITY) continue;
        const int64_t j = slot(r, round, at, s);
        const double w = exp(z[s] - top), keep = (double)attn_drop_at(dr, round * n + at, s < C ? s : back + s - C);
        sum += w;
        for (int64_t t = 0; t < dv; t++) row[t] += w * keep * v[j * vs + t];
      }
      for (int64_t t = 0; t < dv; t++) row[t] /= sum;
      l[round * n + i] = top + log(sum);
    }
  for (int64_t i = 0; i < n; i++) {
    double top = -INFINITY, sum = 0;
    int here = 0;
    for (int64_t at = 0; at < r->kept; at++) here |= r->order[at] == i;
    for (int64_t t = 0; t < dv; t++) out[i * os + t] = 0;
    if (lse) lse[i] = -INFINITY;
    if (!here) continue;
    for (int64_t round = 0; round < r->rounds; round++) top = fmax(top, l[round * n + i]);
    for (int64_t round = 0; round < r->rounds; round++) sum += exp(l[round * n + i] - top);
    for (int64_t round = 0; round < r->rounds; round++)
      for (int64_t t = 0; t < dv; t++) out[i * os + t] += exp(l[round * n + i] - top) / sum * o[(round * n + i) * dv + t];
    if (lse) lse[i] = top + log(sum);
  }
  free(o), free(l), free(z);
}

void reformer_ref_closed(const reformer_ref *r, const double *x, ptrdiff_t xs, const double *v, ptrdiff_t vs, double *out,
                         ptrdiff_t os, double *lse) {
  const int64_t n = r->pb->nk, dv = r->pb->dv;
  for (int64_t i = 0; i < n; i++) {
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++)
      if (r->times[i * n + j] && !(r->pb->causal && j > i)) top = fmax(top, reformer_ref_logit(r, x, xs, i, j));
    for (int64_t t = 0; t < dv; t++) out[i * os + t] = 0;
    for (int64_t j = 0; j < n; j++) {
      if (!r->times[i * n + j] || (r->pb->causal && j > i)) continue;
      const double w = (r->p->duplicates == DUP_REMOVED ? 1.0 : (double)r->times[i * n + j]) * exp(reformer_ref_logit(r, x, xs, i, j) - top);
      sum += w;
      for (int64_t t = 0; t < dv; t++) out[i * os + t] += w * v[j * vs + t];
    }
    for (int64_t t = 0; t < dv && sum > 0; t++) out[i * os + t] /= sum;
    if (lse) lse[i] = sum > 0 ? top + log(sum) : -INFINITY;
  }
}
