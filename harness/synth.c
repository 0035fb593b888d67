/* synth.c - see synth.h. Every (batch, head, tensor) draws from a stream of its own, so heads can be made in parallel
 * and a head's bits do not depend on how many others there are. */
#include "harness/synth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/number.h"
#include "kernels/core/rng.h"

enum { RUN = 8, KEYS_PER_TOPIC = 16, RANK = 8, MAX_RANK = RANK };
static const double PEAK = 14.0, SPREAD = 0.5, LENGTHS = 0.1, SMOOTH = 1.5, NOISE = 0.01;

static const char *const names[] = {"gauss", "clustered", "lowrank"};
const char *synth_name(synth_kind k) { return names[k]; }

/* ---- Text of a source. */

typedef struct field {
  const char *key;
  int64_t *value, min, max;
} field;

static int read_field(const char *text, char *pair, synth_source *s, ice_err *e) {
  const field table[] = {{"b", &s->b, 1, 65536},    {"h", &s->h, 1, 65536},     {"hkv", &s->hkv, 1, 65536},
                         {"n", &s->nq, 1, 1 << 28}, {"nk", &s->nk, 1, 1 << 28}, {"d", &s->d, 1, 65536},
                         {"dv", &s->dv, 1, 65536}};
  char *value = strchr(pair, '=');
  if (!value) return ice_fail(e, ICE_USAGE, "--synth %s: '%s' is no KEY=VALUE", text, pair);
  *value++ = '\0';
  if (!strcmp(pair, "seed"))
    return number_u64(value, &s->seed)
               ? ICE_OK
               : ice_fail(e, ICE_USAGE, "--synth %s: seed = %s, allowed whole numbers 0..2^64-1", text, value);
  int64_t causal;
  if (!strcmp(pair, "causal")) {
    if (!number_int(value, 0, 1, &causal))
      return ice_fail(e, ICE_USAGE, "--synth %s: causal = %s, allowed 0, 1", text, value);
    s->causal = (int)causal;
    return ICE_OK;
  }
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    if (strcmp(pair, table[i].key)) continue;
    if (number_int(value, table[i].min, table[i].max, table[i].value)) return ICE_OK;
    return ice_fail(e, ICE_USAGE, "--synth %s: %s = %s, allowed whole numbers %lld..%lld", text, pair, value,
                    (long long)table[i].min, (long long)table[i].max);
  }
  return ice_fail(e, ICE_USAGE, "--synth %s: unknown key '%s', allowed b, h, hkv, n, nk, d, dv, seed, causal", text,
                  pair);
}

static int check_sizes(const char *text, const synth_source *s, ice_err *e) {
  if (s->h % s->hkv)
    return ice_fail(e, ICE_USAGE, "--synth %s: hkv = %lld, allowed divisors of h = %lld", text, (long long)s->hkv,
                    (long long)s->h);
  const int64_t widest = s->d > s->dv ? s->d : s->dv, longest = s->nq > s->nk ? s->nq : s->nk;
  const double elements = (double)s->b * (double)s->h * (double)longest * (double)widest;
  if (elements > 0x1p34)
    return ice_fail(e, ICE_USAGE, "--synth %s: a tensor of %.0f elements, allowed up to %.0f", text, elements, 0x1p34);
  return ICE_OK;
}

int synth_parse(const char *text, synth_source *out, ice_err *e) {
  synth_source s = {.b = 1, .h = 1, .hkv = 0, .nq = 1024, .nk = 0, .d = 64, .dv = 0, .seed = 1};
  char copy[512];
  const size_t n = strlen(text), name = strcspn(text, ":");
  if (n >= sizeof copy) return ice_fail(e, ICE_USAGE, "--synth: %zu characters, allowed up to %zu", n, sizeof copy - 1);
  memcpy(copy, text, n + 1);
  int kind = -1;
  for (int i = 0; i < 3; i++)
    if (strlen(names[i]) == name && !strncmp(text, names[i], name)) kind = i;
  if (kind < 0)
    return ice_fail(e, ICE_USAGE, "--synth %s: unknown source '%.*s', allowed gauss, clustered, lowrank", text,
                    (int)name, text);
  s.kind = (synth_kind)kind;
  for (char *at = copy[name] ? copy + name + 1 : NULL; at;) {
    char *comma = strchr(at, ',');
    if (comma) *comma++ = '\0';
    for (const char *other = comma; other; other = strchr(other, ',') ? strchr(other, ',') + 1 : NULL)
      if (strcspn(other, "=,") == strcspn(at, "=") && !strncmp(other, at, strcspn(at, "=")))
        return ice_fail(e, ICE_USAGE, "--synth %s: %.*s is given twice", text, (int)strcspn(at, "="), at);
    ICE_TRY(read_field(text, at, &s, e));
    at = comma;
  }
  if (!s.hkv) s.hkv = s.h;
  if (!s.nk) s.nk = s.nq;
  if (!s.dv) s.dv = s.d;
  ICE_TRY(check_sizes(text, &s, e));
  *out = s;
  return ICE_OK;
}

/* ---- Tensors. */

/* What a stream is for. */
enum { FOR_Q, FOR_K, FOR_V, FOR_TOPICS, FOR_BASIS };

static attn_rng stream(const synth_source *s, int what, int64_t ib, int64_t ih) {
  attn_rng r;
  attn_rng_seed(&r, s->seed, attn_hash((uint64_t)s->kind * 8 + (uint64_t)what, (uint64_t)ib, (uint64_t)ih));
  return r;
}

static void normals(attn_rng *r, int64_t n, double sd, float *x) {
  for (int64_t i = 0; i < n; i++) x[i] = (float)(sd * attn_rng_normal(r));
}

/* x += N(0, sd^2) */
static void add_noise(attn_rng *r, int64_t n, double sd, float *x) {
  for (int64_t i = 0; i < n; i++) x[i] += (float)(sd * attn_rng_normal(r));
}

static void scale_by(int64_t n, double a, float *x) {
  for (int64_t i = 0; i < n; i++) x[i] = (float)(a * (double)x[i]);
}

static double length(int64_t n, const float *x) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
  return sqrt(sum);
}

/* One key head of `clustered` and its topics. */
typedef struct topics {
  int64_t count;
  float *direction, *value; /* [count, d] unit, [count, dv] */
  double *upto;             /* [count] cumulative share */
  int32_t *of_key;          /* [nk] */
} topics;

static void topics_free(topics *t) {
  free(t->direction);
  free(t->value);
  free(t->upto);
  free(t->of_key);
}

static int topics_make(const synth_source *s, int64_t ib, int64_t kv, topics *t) {
  int64_t count = s->nk / KEYS_PER_TOPIC > 1 ? s->nk / KEYS_PER_TOPIC : 1;
  *t = (topics){.count = count};
  t->direction = malloc((size_t)(count * s->d) * sizeof(float));
  t->value = malloc((size_t)(count * s->dv) * sizeof(float));
  t->upto = malloc((size_t)count * sizeof(double));
  t->of_key = malloc((size_t)s->nk * sizeof(int32_t));
  if (!t->direction || !t->value || !t->upto || !t->of_key) {
    topics_free(t);
    return 0;
  }
  attn_rng r = stream(s, FOR_TOPICS, ib, kv);
  double sum = 0.0;
  for (int64_t i = 0; i < count; i++) {
    float *dir = t->direction + i * s->d;
    double len;
    do {
      normals(&r, s->d, 1.0, dir);
      len = length(s->d, dir);
    } while (len < 1e-6);
    scale_by(s->d, 1.0 / len, dir);
    normals(&r, s->dv, 1.0, t->value + i * s->dv);
    t->upto[i] = sum += 1.0 / sqrt((double)(i + 1));
  }
  return 1;
}

static int32_t draw_topic(const topics *t, attn_rng *r) {
  double u = attn_rng_uniform(r) * t->upto[t->count - 1];
  int64_t lo = 0, hi = t->count - 1;
  while (lo < hi) { /* first topic whose cumulative share exceeds u */
    int64_t mid = lo + (hi - lo) / 2;
    if (t->upto[mid] > u)
      hi = mid;
    else
      lo = mid + 1;
  }
  return (int32_t)lo;
}

static int starts_run(attn_rng *r, int64_t position) { return attn_rng_below(r, RUN) == 0 || position == 0; }

/* A vector near a topic's direction. */
static void near_topic(const synth_source *s, const topics *t, int32_t topic, attn_rng *r, double len, float *x) {
  memcpy(x, t->direction + topic * s->d, (size_t)s->d * sizeof *x);
  add_noise(r, s->d, SPREAD / sqrt((double)s->d), x);
  scale_by(s->d, len, x);
}

static void clustered_keys(const synth_source *s, topics *t, int64_t ib, int64_t kv, float *k, float *v) {
  attn_rng rk = stream(s, FOR_K, ib, kv), rv = stream(s, FOR_V, ib, kv);
  int32_t topic = 0;
  for (int64_t j = 0; j < s->nk; j++) {
    if (starts_run(&rk, j)) topic = draw_topic(t, &rk);
    t->of_key[j] = topic;
    near_topic(s, t, topic, &rk, exp(LENGTHS * attn_rng_normal(&rk)), k + j * s->d);
    memcpy(v + j * s->dv, t->value + topic * s->dv, (size_t)s->dv * sizeof *v);
    add_noise(&rv, s->dv, SPREAD, v + j * s->dv);
  }
}

static void clustered_queries(const synth_source *s, const topics *t, int64_t ib, int64_t ih, float *q) {
  attn_rng r = stream(s, FOR_Q, ib, ih);
  int32_t topic = 0;
  for (int64_t i = 0; i < s->nq; i++) {
    int64_t visible = s->causal ? i + 1 + s->nk - s->nq : s->nk;
    if (starts_run(&r, i) && visible > 0) topic = t->of_key[attn_rng_below(&r, (uint64_t)visible)];
    near_topic(s, t, topic, &r, PEAK * sqrt((double)s->d), q + i * s->d);
  }
}

/* Orthonormal rows [rank, width] by Gram-Schmidt. */
static void basis(attn_rng *r, int64_t rank, int64_t width, float *x) {
  for (int64_t i = 0; i < rank; i++) {
    float *row = x + i * width;
    double len;
    do {
      normals(r, width, 1.0, row);
      for (int64_t j = 0; j < i; j++) {
        double dot = 0.0;
        for (int64_t t = 0; t < width; t++) dot += (double)row[t] * (double)x[j * width + t];
        for (int64_t t = 0; t < width; t++) row[t] -= (float)(dot * (double)x[j * width + t]);
      }
      len = length(width, row);
    } while (len < 1e-3);
    scale_by(width, 1.0 / len, row);
  }
}

/* x [width] = a * sum of z_i * basis row i, plus noise of its own size. */
static void mix(attn_rng *r, int64_t rank, const double *z, const float *rows, int64_t width, double a, float *x) {
  for (int64_t t = 0; t < width; t++) {
    double sum = 0.0;
    for (int64_t i = 0; i < rank; i++) sum += z[i] * (double)rows[i * width + t];
    x[t] = (float)(a * sum);
  }
  add_noise(r, width, NOISE * a * sqrt((double)rank / (double)width), x);
}

static int64_t rank_of(int64_t width) { return width < RANK ? width : RANK; }

/* `rows`: the basis of queries and keys [rank_of(d), d], then that of the values [rank_of(dv), dv]. */
static void lowrank_keys(const synth_source *s, const float *rows, int64_t ib, int64_t kv, float *k, float *v) {
  attn_rng rk = stream(s, FOR_K, ib, kv), rv = stream(s, FOR_V, ib, kv);
  const int64_t rank = rank_of(s->d), vrank = rank_of(s->dv);
  const double a = sqrt(SMOOTH * sqrt((double)s->d / (double)rank)), av = sqrt((double)s->dv / (double)vrank);
  for (int64_t j = 0; j < s->nk; j++) {
    double z[MAX_RANK];
    for (int i = 0; i < MAX_RANK; i++) z[i] = attn_rng_normal(&rk); /* keys and values share what they are about */
    mix(&rk, rank, z, rows, s->d, a, k + j * s->d);
    mix(&rv, vrank, z, rows + rank * s->d, s->dv, av, v + j * s->dv);
  }
}

static void lowrank_queries(const synth_source *s, const float *rows, int64_t ib, int64_t ih, float *q) {
  attn_rng r = stream(s, FOR_Q, ib, ih);
  const int64_t rank = rank_of(s->d);
  const double a = sqrt(SMOOTH * sqrt((double)s->d / (double)rank));
  for (int64_t i = 0; i < s->nq; i++) {
    double z[MAX_RANK];
    for (int t = 0; t < MAX_RANK; t++) z[t] = attn_rng_normal(&r);
    mix(&r, rank, z, rows, s->d, a, q + i * s->d);
  }
}

/* One key head with the query heads that read it; 0 when memory is out. */
static int fill_group(const synth_source *s, int64_t ib, int64_t kv, float *q, float *k, float *v) {
  const int64_t group = s->h / s->hkv, first = kv * group;
  float *kh = k + (ib * s->hkv + kv) * s->nk * s->d, *vh = v + (ib * s->hkv + kv) * s->nk * s->dv;
  topics t = {0};
  float *rows = NULL;
  if (s->kind == SYNTH_CLUSTERED) {
    if (!topics_make(s, ib, kv, &t)) return 0;
    clustered_keys(s, &t, ib, kv, kh, vh);
  } else if (s->kind == SYNTH_LOWRANK) {
    rows = malloc((size_t)(RANK * (s->d + s->dv)) * sizeof *rows);
    if (!rows) return 0;
    attn_rng r = stream(s, FOR_BASIS, ib, kv);
    basis(&r, rank_of(s->d), s->d, rows);
    basis(&r, rank_of(s->dv), s->dv, rows + rank_of(s->d) * s->d);
    lowrank_keys(s, rows, ib, kv, kh, vh);
  } else {
    attn_rng rk = stream(s, FOR_K, ib, kv), rv = stream(s, FOR_V, ib, kv);
    normals(&rk, s->nk * s->d, 1.0, kh);
    normals(&rv, s->nk * s->dv, 1.0, vh);
  }
  for (int64_t ih = first; ih < first + group; ih++) {
    float *qh = q + (ib * s->h + ih) * s->nq * s->d;
    attn_rng r = stream(s, FOR_Q, ib, ih);
    if (s->kind == SYNTH_CLUSTERED)
      clustered_queries(s, &t, ib, ih, qh);
    else if (s->kind == SYNTH_LOWRANK)
      lowrank_queries(s, rows, ib, ih, qh);
    else
      normals(&r, s->nq * s->d, 1.0, qh);
  }
  topics_free(&t);
  free(rows);
  return 1;
}

int synth_fill(const synth_source *s, float *q, float *k, float *v, ice_err *e) {
  int starved = 0;
#pragma omp parallel for reduction(| : starved)
  for (int64_t i = 0; i < s->b * s->hkv; i++) starved |= !fill_group(s, i / s->hkv, i % s->hkv, q, k, v);
  return starved ? ice_fail(e, ICE_INTERNAL, "out of memory for synthetic tensors") : ICE_OK;
}
