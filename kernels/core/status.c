/* status.c - error texts, and the gate every problem passes before a method sees it. */
#include "kernels/core/status.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/alloc.h"

static _Thread_local char last_error[512] = "";

const char *attn_last_error(void) { return last_error; }

attn_status attn_fail(attn_status st, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(last_error, sizeof last_error, fmt, ap);
  va_end(ap);
  return st;
}

const char *attn_status_text(attn_status st) {
  static const char *const text[] = {
      [ATTN_OK] = "ok",
      [ATTN_ERR_ARG] = "bad argument",
      [ATTN_ERR_SHAPE] = "bad shape",
      [ATTN_ERR_PARAM] = "parameter out of range",
      [ATTN_ERR_UNSUPPORTED] = "unsupported",
      [ATTN_ERR_NOMEM] = "out of memory",
      [ATTN_ERR_NUMERIC] = "not a finite number",
  };
  return (unsigned)st < sizeof text / sizeof *text ? text[st] : "unknown status";
}

void attn_params_default(const attn_method *m, void *params) {
  memset(params, 0, m->params_size);
  for (const attn_param *p = m->params; p && p->key; p++) {
    char *at = (char *)params + p->offset;
    if (p->type == ATTN_P_REAL)
      memcpy(at, &p->dflt, sizeof p->dflt);
    else
      memcpy(at, &(int64_t){(int64_t)p->dflt}, sizeof(int64_t));
  }
}

static attn_status check_param(const attn_method *m, const attn_param *p, const void *params) {
  const char *at = (const char *)params + p->offset;
  int64_t whole;
  double real;
  switch (p->type) {
  case ATTN_P_REAL:
    memcpy(&real, at, sizeof real);
    ATTN_FAIL_IF(!(real >= p->min && real <= p->max), ATTN_ERR_PARAM, "%s.%s = %g, allowed %g..%g", m->name, p->key,
                 real, p->min, p->max);
    break;
  case ATTN_P_INT:
    memcpy(&whole, at, sizeof whole);
    ATTN_FAIL_IF((double)whole < p->min || (double)whole > p->max, ATTN_ERR_PARAM, "%s.%s = %lld, allowed %.0f..%.0f",
                 m->name, p->key, (long long)whole, p->min, p->max);
    break;
  case ATTN_P_CHOICE: {
    memcpy(&whole, at, sizeof whole);
    int64_t n = 0;
    while (p->choices[n]) n++;
    ATTN_FAIL_IF(whole < 0 || whole >= n, ATTN_ERR_PARAM, "%s.%s = choice %lld, allowed 0..%lld", m->name, p->key,
                 (long long)whole, (long long)(n - 1));
    break;
  }
  }
  return ATTN_OK;
}

/* The largest element count any tensor of the problem may have: offsets stay inside ptrdiff_t bytes. */
static int fits(int64_t b, int64_t h, int64_t n, int64_t d) {
  const int64_t most = PTRDIFF_MAX / 64;
  int64_t size = b;
  const int64_t factor[] = {h, n, d};
  for (int i = 0; i < 3; i++) {
    if (factor[i] != 0 && size > most / factor[i]) return 0;
    size *= factor[i];
  }
  return 1;
}

size_t attn_learned_floats(const attn_method *m, const attn_problem *pb, const void *params) {
  attn_tensor t[ATTN_MAX_LEARNED];
  size_t floats = 0;
  for (int i = m->learned ? m->learned(pb, params, t) - 1 : -1; i >= 0; i--) floats += (size_t)attn_elements(t[i].rank, t[i].shape);
  return floats;
}

/* The learned tensors: all there, of this shape, and long enough. */
static attn_status check_learned(const attn_method *m, const attn_problem *pb, const void *params) {
  if (!m->learned) return ATTN_OK;
  ATTN_FAIL_IF(pb->positions < 0 || pb->positions > INT32_MAX, ATTN_ERR_SHAPE, "positions=%lld, allowed 0..2147483647",
               (long long)pb->positions);
  const size_t bytes = attn_learned_floats(m, pb, params) * sizeof(float);
  if (!bytes) return ATTN_OK;
  ATTN_FAIL_IF(!pb->weights, ATTN_ERR_ARG, "%s needs the tensors it has learned; train a model with it", m->name);
  ATTN_FAIL_IF(pb->weights_bytes != bytes, ATTN_ERR_SHAPE, "%s: %zu bytes of learned tensors, expected %zu", m->name,
               pb->weights_bytes, bytes);
  ATTN_FAIL_IF(pb->nk > pb->positions, ATTN_ERR_SHAPE, "%s: nk=%lld, but its tensors were learned for %lld positions",
               m->name, (long long)pb->nk, (long long)pb->positions);
  return ATTN_OK;
}

attn_status attn_check(const attn_method *m, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!m || !pb || (!params && m->params_size), ATTN_ERR_ARG, "null method, problem or parameters");
  ATTN_FAIL_IF(pb->b < 1 || pb->h < 1 || pb->hkv < 1 || pb->d < 1 || pb->dv < 1 || pb->nq < 0 || pb->nk < 0,
               ATTN_ERR_SHAPE, "b=%lld h=%lld hkv=%lld nq=%lld nk=%lld d=%lld dv=%lld, expected >= 1 (nq, nk >= 0)",
               (long long)pb->b, (long long)pb->h, (long long)pb->hkv, (long long)pb->nq, (long long)pb->nk,
               (long long)pb->d, (long long)pb->dv);
  ATTN_FAIL_IF(pb->h % pb->hkv != 0, ATTN_ERR_SHAPE, "h=%lld is no multiple of hkv=%lld", (long long)pb->h,
               (long long)pb->hkv);
  ATTN_FAIL_IF(pb->nk > INT32_MAX || pb->nq > INT32_MAX || pb->d > 65536 || pb->dv > 65536, ATTN_ERR_SHAPE,
               "nq=%lld nk=%lld d=%lld dv=%lld, allowed n <= 2147483647, d <= 65536", (long long)pb->nq,
               (long long)pb->nk, (long long)pb->d, (long long)pb->dv);
  ATTN_FAIL_IF(!fits(pb->b, pb->h, pb->nq, pb->d) || !fits(pb->b, pb->h, pb->nq, pb->dv) ||
                   !fits(pb->b, pb->h, pb->nk, pb->d) || !fits(pb->b, pb->h, pb->nk, pb->dv),
               ATTN_ERR_SHAPE, "b*h*n*d exceeds the address space");
  ATTN_FAIL_IF(!(pb->scale > 0) || isinf(pb->scale), ATTN_ERR_ARG, "scale = %g, allowed finite and > 0",
               (double)pb->scale);
  ATTN_FAIL_IF(pb->threads < 1 || pb->threads > 4096, ATTN_ERR_ARG, "threads = %d, allowed 1..4096", pb->threads);
  ATTN_FAIL_IF(pb->causal && !(m->caps & ATTN_CAP_CAUSAL), ATTN_ERR_UNSUPPORTED, "%s has no causal form", m->name);
  ATTN_FAIL_IF(pb->nq != pb->nk && !(m->caps & ATTN_CAP_CROSS), ATTN_ERR_UNSUPPORTED,
               "%s needs nq = nk, got nq=%lld nk=%lld", m->name, (long long)pb->nq, (long long)pb->nk);
  ATTN_FAIL_IF(pb->hkv != pb->h && !(m->caps & ATTN_CAP_GQA), ATTN_ERR_UNSUPPORTED,
               "%s has no grouped-query form, got h=%lld hkv=%lld", m->name, (long long)pb->h, (long long)pb->hkv);
  for (const attn_param *p = m->params; p && p->key; p++) ATTN_TRY(check_param(m, p, params));
  ATTN_TRY(check_learned(m, pb, params));
  return m->check ? m->check(pb, params) : ATTN_OK;
}
