/* dispatch.c - picks the instruction set once per process, and packs matrices into the panels that gemm reads. */
#include "kernels/micro/micro.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const attn_micro attn_micro_scalar;
#if defined(__x86_64__)
extern const attn_micro attn_micro_avx2, attn_micro_avx512, attn_micro_avx512vnni;
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int has_avx512(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
static int has_vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#endif
static int always(void) { return 1; }

/* Best first. A name may stand for several sets, of which the first that the CPU can run is taken; "avx512-plain" is there
 * for tests. */
static const struct {
  const char *name;
  const attn_micro *set;
  int (*usable)(void);
} sets[] = {
#if defined(__x86_64__)
    {"avx512", &attn_micro_avx512vnni, has_vnni}, {"avx512", &attn_micro_avx512, has_avx512},
    {"avx2", &attn_micro_avx2, has_avx2},         {"avx512-plain", &attn_micro_avx512, has_avx512},
#endif
    {"scalar", &attn_micro_scalar, always},
};
enum { N_SETS = sizeof sets / sizeof *sets };

static const attn_micro *chosen;
static char error_text[160];
static pthread_once_t once = PTHREAD_ONCE_INIT;

const attn_micro *attn_micro_named(const char *name) {
  for (int i = 0; i < N_SETS; i++)
    if (!strcmp(sets[i].name, name) && sets[i].usable()) return sets[i].set;
  return NULL;
}

static void choose(void) {
  for (int i = 0; i < N_SETS && !chosen; i++)
    if (sets[i].usable()) chosen = sets[i].set;
  const char *asked = getenv("ATTN_ISA");
  if (!asked || !*asked) return;
  const attn_micro *named = attn_micro_named(asked);
  if (named)
    chosen = named;
  else
    (void)snprintf(error_text, sizeof error_text,
                   "ATTN_ISA=%.40s: unknown or absent on this CPU, allowed scalar, avx2, avx512; the best here is %s",
                   asked, chosen->name);
}

const attn_micro *attn_micro_get(void) {
  (void)pthread_once(&once, choose);
  return chosen;
}
const char *attn_micro_error(void) {
  (void)attn_micro_get();
  return error_text[0] ? error_text : NULL;
}
const char *attn_isa_name(void) { return attn_micro_get()->name; }

attn_drop attn_drop_make(float p, uint64_t key) {
  uint32_t threshold = (uint32_t)lrintf(p * 65536.0f);
  return (attn_drop){.key = key, .threshold = threshold, .scale = 65536.0f / (float)(65536u - threshold)};
}

float attn_drop_at(const attn_drop *dr, int64_t row, int64_t col) {
  uint64_t k = dr->key + (uint64_t)row * 0x9e3779b97f4a7c15u;
  k = (k ^ (k >> 30)) * 0xbf58476d1ce4e5b9u;
  k = (k ^ (k >> 27)) * 0x94d049bb133111ebu;
  uint32_t x = (uint32_t)((col / 32) * 16 + col % 16) * 0x9e3779b1u + (uint32_t)(k >> 32);
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  x ^= x >> 16;
  uint32_t draw = (col / 16) % 2 ? x >> 16 : x & 0xffffu;
  return dr->threshold == 0 ? 1.0f : draw >= dr->threshold ? dr->scale : 0.0f;
}

void attn_pack_transposed(const attn_micro *mk, int64_t n, int64_t d, const float *x, ptrdiff_t ld, const int32_t *idx,
                          float scale, float *out) {
  const int64_t w = mk->panel;
  for (int64_t j0 = 0; j0 < n; j0 += w, out += w * d) {
    int64_t cols = n - j0 < w ? n - j0 : w;
    for (int64_t c = 0; c < w; c++) {
      const float *row = c < cols ? x + (idx ? idx[j0 + c] : j0 + c) * ld : NULL;
      for (int64_t t = 0; t < d; t++) out[t * w + c] = row ? row[t] * scale : 0.0f;
    }
  }
}

void attn_rows_i8(const attn_micro *mk, int64_t n, int64_t d, const float *x, ptrdiff_t ld, const int32_t *idx,
                  uint8_t *out, float *scale) {
  const int64_t w = attn_width_i8(d);
  for (int64_t i = 0; i < n; i++, out += w) {
    scale[i] = mk->quantise(d, x + (idx ? idx[i] : i) * ld, (int8_t *)out);
    memset(out + d, 0, (size_t)(w - d));
    for (int64_t t = 0; t < w; t++) out[t] ^= 128; /* + 128 */
  }
}

int64_t attn_bytes_i8(const attn_micro *mk, int64_t n, int64_t d) { return attn_padded(mk, n) * (attn_width_i8(d) + 4); }

void attn_pack_i8(const attn_micro *mk, int64_t n, int64_t d, const float *x, ptrdiff_t ld, const int32_t *idx, int8_t *out,
                  float *scale, int8_t *tmp) {
  const int64_t w = attn_width_i8(d), cols = mk->panel, panel = cols * (w + 4);
  memset(out, 0, (size_t)attn_bytes_i8(mk, n, d));
  memset(tmp + d, 0, (size_t)(w - d));
  for (int64_t j = 0; j < n; j++) {
    int8_t *to = out + j / cols * panel + j % cols * 4;
    int32_t sum = 0;
    scale[j] = mk->quantise(d, x + (idx ? idx[j] : j) * ld, tmp);
    for (int64_t t = 0; t < d; t++) sum += tmp[t];
    sum *= -128;
    memcpy(to, &sum, 4);
    for (int64_t t = 0; t < w; t += 4) memcpy(to + (t + 4) * cols, tmp + t, 4);
  }
}

void attn_pack_panels(const attn_micro *mk, int64_t total, int64_t n, int64_t d, const float *x, ptrdiff_t ld,
                      const int32_t *idx, float *out) {
  const int64_t w = mk->panel;
  for (int64_t t0 = 0; t0 < d; t0 += w, out += w * total) {
    int64_t cols = d - t0 < w ? d - t0 : w;
    for (int64_t j = 0; j < n; j++) {
      const float *row = x + (idx ? idx[j] : j) * ld + t0;
      float *to = out + j * w;
      memcpy(to, row, (size_t)cols * sizeof(float));
      for (int64_t t = cols; t < w; t++) to[t] = 0.0f;
    }
  }
}
