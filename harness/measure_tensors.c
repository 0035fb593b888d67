/* measure_tensors.c - see measure_tensors.h */
#define XXH_INLINE_ALL
#include "harness/measure_tensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

/* Sizes of an array as [b, h, n, d]. */
typedef struct shape4 {
  int64_t at[4];
} shape4;

static shape4 shape_of(const npy_array *a) {
  shape4 s = {{1, 1, 1, 1}};
  for (int i = 0; i < a->rank; i++) s.at[4 - a->rank + i] = a->shape[i];
  return s;
}

static const char *shape_text(const npy_array *a, char *out, size_t size) {
  size_t n = 0;
  (void)snprintf(out, size, "[");
  n = 1;
  for (int i = 0; i < a->rank && n < size; i++)
    n += (size_t)snprintf(out + n, size - n, "%s%lld", i ? "," : "", (long long)a->shape[i]);
  if (n < size) (void)snprintf(out + n, size - n, "]");
  return out;
}

static attn_view view_of(const npy_array *a) {
  shape4 s = shape_of(a);
  return measure_const_view(measure_dense_view(a->f, s.at[1], s.at[2], s.at[3]));
}

/* Problem and views from the three arrays. */
static int fit(measure_tensors *t, const char *const name[3], int causal, ice_err *e) {
  const npy_array *array[3] = {&t->q, &t->k, &t->v};
  char found[128], other[128];
  for (int i = 0; i < 3; i++) {
    const npy_array *a = array[i];
    (void)shape_text(a, found, sizeof found);
    if (a->rank < 2 || a->rank > 4)
      return ice_fail(e, ICE_DATA, "%s: shape %s, allowed [n,d], [h,n,d], [b,h,n,d]", name[i], found);
    if (a->rank != t->q.rank)
      return ice_fail(e, ICE_DATA, "%s: shape %s has rank %d, %s has rank %d; all three need the same", name[i], found,
                      a->rank, name[0], t->q.rank);
    for (int j = 0; j < a->rank; j++)
      if (a->shape[j] < 1) return ice_fail(e, ICE_DATA, "%s: shape %s, allowed sizes >= 1", name[i], found);
  }
  const shape4 q = shape_of(&t->q), k = shape_of(&t->k), v = shape_of(&t->v);
  (void)shape_text(&t->k, found, sizeof found);
  if (k.at[0] != q.at[0] || k.at[3] != q.at[3] || q.at[1] % k.at[1])
    return ice_fail(e, ICE_DATA,
                    "%s: shape %s does not go with queries %s: same batch and width, and a divisor of its heads",
                    name[1], found, shape_text(&t->q, other, sizeof other));
  if (v.at[0] != k.at[0] || v.at[1] != k.at[1] || v.at[2] != k.at[2])
    return ice_fail(e, ICE_DATA, "%s: shape %s does not go with keys %s: all but the width must agree", name[2],
                    shape_text(&t->v, other, sizeof other), found);
  if (q.at[2] > INT32_MAX || k.at[2] > INT32_MAX)
    return ice_fail(e, ICE_DATA, "%s: %lld queries, %lld keys, allowed up to 2147483647", name[0], (long long)q.at[2],
                    (long long)k.at[2]);
  t->in.pb = (attn_problem){.b = q.at[0],
                            .h = q.at[1],
                            .hkv = k.at[1],
                            .nq = q.at[2],
                            .nk = k.at[2],
                            .d = q.at[3],
                            .dv = v.at[3],
                            .scale = (float)(1.0 / sqrt((double)q.at[3])),
                            .causal = causal,
                            .threads = 1,
                            .seed = 1};
  t->in.q = view_of(&t->q);
  t->in.k = view_of(&t->k);
  t->in.v = view_of(&t->v);
  return ICE_OK;
}

static int read_mask(measure_tensors *t, const char *path, ice_err *e) {
  const attn_problem *pb = &t->in.pb;
  t->kept = pb->b * pb->nk;
  if (!path) return ICE_OK;
  ICE_TRY(npy_read_mask(path, &t->mask, e));
  const npy_array *m = &t->mask;
  char found[128];
  int one = m->rank == 1 && m->shape[0] == pb->nk;
  if (!one && !(m->rank == 2 && m->shape[0] == pb->b && m->shape[1] == pb->nk))
    return ice_fail(e, ICE_DATA, "%s: shape %s, allowed [%lld] or [%lld,%lld] (keys, or batch and keys)", path,
                    shape_text(m, found, sizeof found), (long long)pb->nk, (long long)pb->b, (long long)pb->nk);
  t->kmask = malloc((size_t)(pb->b * pb->nk));
  if (!t->kmask) return ice_fail(e, ICE_INTERNAL, "out of memory for the mask");
  for (int64_t ib = 0; ib < pb->b; ib++) memcpy(t->kmask + ib * pb->nk, m->u + (one ? 0 : ib * pb->nk), (size_t)pb->nk);
  t->kept = 0;
  for (int64_t i = 0; i < pb->b * pb->nk; i++) t->kept += t->kmask[i];
  t->in.kmask = t->kmask;
  return ICE_OK;
}

/* Every number a query can see must be finite: an error against exact attention means nothing otherwise. */
static int check_finite(const measure_tensors *t, const char *const name[3], ice_err *e) {
  const npy_array *array[3] = {&t->q, &t->k, &t->v};
  for (int i = 0; i < 3; i++) {
    const shape4 s = shape_of(array[i]);
    for (int64_t x = 0; x < array[i]->count; x++) {
      if (isfinite(array[i]->f[x])) continue;
      int64_t c = x % s.at[3], n = x / s.at[3] % s.at[2], h = x / s.at[3] / s.at[2] % s.at[1],
              b = x / s.at[3] / s.at[2] / s.at[1];
      if (i > 0 && t->kmask && !t->kmask[b * s.at[2] + n]) continue;
      return ice_fail(e, ICE_DATA, "%s: %g at batch %lld, head %lld, row %lld, column %lld; allowed finite numbers%s",
                      name[i], (double)array[i]->f[x], (long long)b, (long long)h, (long long)n, (long long)c,
                      i > 0 ? " (mask the key otherwise)" : "");
    }
  }
  return ICE_OK;
}

static void hash_inputs(measure_tensors *t) {
  const attn_problem *pb = &t->in.pb;
  const int64_t sizes[] = {pb->b, pb->h, pb->hkv, pb->nq, pb->nk, pb->d, pb->dv, pb->causal, t->kmask != NULL};
  const npy_array *array[3] = {&t->q, &t->k, &t->v};
  uint64_t h = XXH3_64bits(sizes, sizeof sizes);
  for (int i = 0; i < 3; i++) h = XXH3_64bits_withSeed(array[i]->f, (size_t)array[i]->count * sizeof(float), h);
  if (t->kmask) h = XXH3_64bits_withSeed(t->kmask, (size_t)(pb->b * pb->nk), h);
  t->hash = h;
}

static int finish(measure_tensors *t, const char *const name[3], const char *mask, int causal, ice_err *e) {
  ICE_TRY(fit(t, name, causal, e));
  ICE_TRY(read_mask(t, mask, e));
  ICE_TRY(check_finite(t, name, e));
  hash_inputs(t);
  return ICE_OK;
}

int measure_tensors_read(measure_tensors *t, const char *q, const char *k, const char *v, const char *mask, int causal,
                         ice_err *e) {
  const char *const name[3] = {q, k, v};
  npy_array *array[3] = {&t->q, &t->k, &t->v};
  *t = (measure_tensors){.task = "tensors"};
  (void)snprintf(t->source, sizeof t->source, "%s", q);
  int rc = ICE_OK;
  for (int i = 0; i < 3 && rc == ICE_OK; i++) rc = npy_read_f32(name[i], array[i], e);
  if (rc == ICE_OK) rc = finish(t, name, mask, causal, e);
  if (rc != ICE_OK) measure_tensors_free(t);
  return rc;
}

static int reserve(npy_array *a, int64_t b, int64_t h, int64_t n, int64_t d, ice_err *e) {
  *a = (npy_array){.rank = 4, .shape = {b, h, n, d}, .count = b * h * n * d};
  a->f = attn_alloc((size_t)a->count * sizeof(float));
  return a->f ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for a tensor of %lld floats", (long long)a->count);
}

/* Refuses what cannot fit before the machine starts to swap. */
static int check_memory(const char *source, const synth_source *s, ice_err *e) {
  const double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
  const double heads = (double)s->b * (double)s->h, kv = (double)s->b * (double)s->hkv;
  const double need =
      4.0 * (heads * (double)s->nq * (double)(s->d + 2 * s->dv) + kv * (double)s->nk * (double)(s->d + s->dv));
  if (have > 0 && need > have)
    return ice_fail(e, ICE_USAGE, "--synth %s: tensors and outputs need %.1f GiB, this machine has %.1f GiB", source,
                    need / 0x1p30, have / 0x1p30);
  return ICE_OK;
}

int measure_tensors_synth(measure_tensors *t, const char *source, const char *mask, int causal, ice_err *e) {
  const char *const name[3] = {source, source, source};
  synth_source s;
  *t = (measure_tensors){0};
  ICE_TRY(synth_parse(source, &s, e));
  ICE_TRY(check_memory(source, &s, e));
  (void)snprintf(t->task, sizeof t->task, "synth/%s", synth_name(s.kind));
  (void)snprintf(t->source, sizeof t->source, "%s", source);
  if (causal) s.causal = 1;
  int rc = reserve(&t->q, s.b, s.h, s.nq, s.d, e);
  if (rc == ICE_OK) rc = reserve(&t->k, s.b, s.hkv, s.nk, s.d, e);
  if (rc == ICE_OK) rc = reserve(&t->v, s.b, s.hkv, s.nk, s.dv, e);
  if (rc == ICE_OK) rc = synth_fill(&s, t->q.f, t->k.f, t->v.f, e);
  if (rc == ICE_OK) rc = finish(t, name, mask, s.causal, e);
  if (rc != ICE_OK) measure_tensors_free(t);
  return rc;
}

void measure_tensors_free(measure_tensors *t) {
  npy_free(&t->q);
  npy_free(&t->k);
  npy_free(&t->v);
  npy_free(&t->mask);
  free(t->kmask);
  t->kmask = NULL;
}

int measure_set_of_one(measure_set *set, measure_tensors *t, ice_err *e) {
  *set = (measure_set){.n = 1, .hash = t->hash, .t = malloc(sizeof *t)};
  if (!set->t) {
    measure_tensors_free(t);
    return ice_fail(e, ICE_INTERNAL, "out of memory");
  }
  (void)snprintf(set->task, sizeof set->task, "%s", t->task);
  (void)snprintf(set->model, sizeof set->model, "%s", t->source);
  *set->t = *t; /* the views point to memory of their own */
  *t = (measure_tensors){0};
  return ICE_OK;
}

void measure_set_free(measure_set *set) {
  for (int i = 0; i < set->n; i++) measure_tensors_free(set->t + i);
  free(set->t);
  free(set->origin);
  *set = (measure_set){0};
}

void measure_set_prepare(measure_set *set, int threads, uint64_t seed) {
  for (int i = 0; i < set->n; i++) {
    attn_problem *pb = &set->t[i].in.pb;
    pb->threads = threads;
    pb->seed = set->layers ? attn_hash(seed, (uint64_t)set->t[i].layer, 0) : seed;
  }
}
