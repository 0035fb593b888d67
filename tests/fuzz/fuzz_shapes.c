/* fuzz_shapes.c - any bytes as a method, a shape, parameters and a few numbers of the tensors: refused with one line, or run
 * twice with the same bits; exact methods and those that report all keys they use are compared with the reference. Memory is
 * guarded, of exactly the size asked for, and counted. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/registry/registry.h"
#include "tests/support/attn_case.h"
#include "tests/support/subject.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* clang's OpenMP library never gives back what it keeps per thread. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libomp"; }

typedef struct bytes {
  const uint8_t *p;
  size_t left;
} bytes;
static uint32_t take(bytes *b, int n) { /* big-endian; zeros when the input has ended */
  uint32_t v = 0;
  for (int i = 0; i < n; i++) {
    v = v << 8 | (b->left ? *b->p : 0u);
    if (b->left) b->p++, b->left--;
  }
  return v;
}
static int64_t below(bytes *b, int64_t n) { return (int64_t)take(b, 1) % n; }

static void require(int cond, const char *what, const attn_method *m) {
  if (cond) return;
  (void)fprintf(stderr, "%s: %s (%s)\n", m->name, what, attn_last_error());
  abort();
}

/* Each parameter: default, lowest, highest, somewhere between on a logarithmic scale, or two raw bytes. */
static void draw_params(bytes *b, const attn_method *m, char *params) {
  attn_params_default(m, params);
  for (const attn_param *p = m->params; p->key; p++) {
    const int way = (int)below(b, 6);
    const double low = p->type == ATTN_P_CHOICE ? 0 : p->min, high = p->type == ATTN_P_CHOICE ? 3 : p->max;
    double value = way == 1 ? low : way == 2 ? high : way == 3 ? (double)take(b, 2) - 2 : p->dflt;
    if (way == 4) value = low + (high - low) * pow(2.0, -(double)below(b, 24));
    if (p->type == ATTN_P_REAL && way == 5) value = NAN;
    if (p->type == ATTN_P_REAL) memcpy(params + p->offset, &value, sizeof value);
    else memcpy(params + p->offset, &(int64_t){(int64_t)value}, sizeof(int64_t));
  }
}

/* Overwrites some numbers of the tensors with any bits at all. Returns how many. */
static int64_t spoil(bytes *b, attn_case *c) {
  const int64_t count = below(b, 8);
  for (int64_t i = 0; i < count; i++) {
    const guard *g = (const guard *[]){&c->gq, &c->gk, &c->gv}[below(b, 3)];
    const uint32_t at = take(b, 2), bits = take(b, 4);
    if (g->n) memcpy(g->p + (int64_t)at % g->n, &bits, sizeof bits);
  }
  return count;
}

static void check_keys(const attn_method *m, const attn_case *c, const attn_result *r) {
  for (int64_t row = 0; row < r->rows; row++)
    for (int64_t j = 0; j < c->pb.nk; j++)
      require(r->keys[row * c->pb.nk + j] <= attn_case_sees(c, row / (c->pb.h * c->pb.nq), row % c->pb.nq, j), "key set", m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes b = {data, size};
  int64_t methods = 0;
  while (registry_methods[methods]) methods++;
  const attn_method *m = registry_methods[below(&b, methods)];
  if (m->caps & ATTN_CAP_NEEDS_TRAINING) return 0;
  subject s = {.m = m, .params = calloc(1, m->params_size + 1)};
  require(s.params != NULL, "memory", m);
  draw_params(&b, m, s.params);
  attn_shape shape = {.b = 1 + below(&b, 2), .hkv = 1 + below(&b, 2), .d = 1 + below(&b, 36), .dv = 1 + below(&b, 36)};
  shape.h = shape.hkv * (1 + below(&b, 2));
  shape.nk = below(&b, 4) ? below(&b, 140) : 120 + below(&b, 160);
  shape.nq = below(&b, 3) ? shape.nk : below(&b, 140);
  shape.causal = (int)below(&b, 2), shape.masked = (int)below(&b, 3), shape.interleaved = (int)below(&b, 2);
  attn_case c;
  attn_case_make(&c, shape, below(&b, 2) ? ATTN_GAUSS : ATTN_CLUSTERED, take(&b, 1));
  const int spoiled = spoil(&b, &c) > 0, sets = (m->caps & ATTN_CAP_KEYSET) != 0;
  attn_result r, again;
  const attn_status st = attn_case_run(m, s.params, &c, (sets ? ATTN_WANT_KEYS : 0) | (below(&b, 2) ? ATTN_AT_END : 0), &r);
  c.pb.threads = 1 + (int)below(&b, 5);
  require(attn_case_run(m, s.params, &c, 0, &again) == st, "another status with other threads", m);
  if (st != ATTN_OK) {
    require(attn_last_error()[0] != '\0' && !strchr(attn_last_error(), '\n'), "no line of text", m);
    require(st != ATTN_ERR_NUMERIC || spoiled, "refused finite numbers", m);
  } else {
    require(memcmp(r.out, again.out, (size_t)(r.rows * shape.dv) * sizeof(float)) == 0, "other bits with other threads", m);
    require(memcmp(r.lse, again.lse, (size_t)r.rows * sizeof(float)) == 0 && r.pairs == again.pairs, "other statistics", m);
    if (sets) check_keys(m, &c, &r);
    if (!spoiled && ((m->caps & ATTN_CAP_EXACT) || subject_reports_all(&s))) attn_assert_close(m->name, &c, &r, sets ? r.keys : NULL);
  }
  attn_result_free(&r), attn_result_free(&again), attn_case_free(&c);
  free(s.params);
  return 0;
}
