/* vec_portable.h - the vector words of micro.inc without any instruction set: 4 lanes of the compiler's generic vector
 * type, which every target lowers to what it has. Selected as ATTN_ISA=scalar. This file defines what the words mean.
 *
 *   vf, vi, vm          float, 32-bit integer and mask vectors          vm_first(n)      the first n lanes
 *   vf_load_m/store_m   touch memory of masked lanes only; load gives 0 elsewhere
 *   vf_fma(a, b, c)     a*b + c                                         vf_select(m,a,b) m ? a : b
 *   vf_sum, vf_hmax     over lanes, in a fixed order                    vf_exp2(x)       2^x, 0 below -126, NaN kept
 *   vf_gt, vf_lt        false for NaN                                   vi_ge            signed >=
 *   vf_pack, vi_pack    lanes whose bit is set, close together, to memory; may write all VEC_N places
 *   vi_four             the same four bytes in every lane
 *   vi_dot4(s, a, b)    each lane of s plus the sum over its four bytes of a (unsigned) times those of b (signed)
 *   vi_float            of signed lanes                                 vi_load          VEC_N lanes from any bytes
 *   vi_load_bits        reads the lanes whose bit is set, 0 elsewhere
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define VEC_N 4
#define VEC_ROWS 6

typedef float vf __attribute__((vector_size(16)));
typedef uint32_t vi __attribute__((vector_size(16)));
typedef int32_t vm __attribute__((vector_size(16)));

static inline vf vf_set1(float x) { return (vf){x, x, x, x}; }
static inline vf vf_load(const float *p) {
  vf x;
  memcpy(&x, p, sizeof x);
  return x;
}
static inline void vf_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
static inline vm vm_first(int n) { return (vm){-(n > 0), -(n > 1), -(n > 2), -(n > 3)}; }
static inline vf vf_load_m(const float *p, vm m) {
  vf x = {0, 0, 0, 0};
  for (int i = 0; i < VEC_N; i++)
    if (m[i]) x[i] = p[i];
  return x;
}
static inline void vf_store_m(float *p, vf x, vm m) {
  for (int i = 0; i < VEC_N; i++)
    if (m[i]) p[i] = x[i];
}
static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_div(vf a, vf b) { return a / b; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf vf_select(vm m, vf a, vf b) { return (vf)(((vm)a & m) | ((vm)b & ~m)); }
static inline vm vf_gt(vf a, vf b) { return (vm)(a > b); }
static inline vm vf_lt(vf a, vf b) { return (vm)(a < b); }
static inline vf vf_max(vf a, vf b) { return vf_select(vf_gt(a, b), a, b); }
static inline vf vf_min(vf a, vf b) { return vf_select(vf_lt(a, b), a, b); }
static inline vf vf_abs(vf a) { return (vf)((vm)a & (vm){INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX}); }
static inline float vf_sum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
static inline float vf_hmax(vf a) {
  float x = a[0] > a[2] ? a[0] : a[2], y = a[1] > a[3] ? a[1] : a[3];
  return x > y ? x : y;
}
static inline uint32_t vm_bits(vm m) { return (uint32_t)((m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8)); }

static inline vi vi_set1(uint32_t x) { return (vi){x, x, x, x}; }
static inline vi vi_lanes(void) { return (vi){0, 1, 2, 3}; }
static inline vi vi_add(vi a, vi b) { return a + b; }
static inline vi vi_mul(vi a, vi b) { return a * b; }
static inline vi vi_xor(vi a, vi b) { return a ^ b; }
static inline vi vi_and(vi a, vi b) { return a & b; }
#define vi_shr(a, n) ((a) >> (n))
static inline vm vi_ge(vi a, vi b) { return (vm)((vm)a >= (vm)b); }
static inline vi vi_load(const void *p) {
  vi x;
  memcpy(&x, p, sizeof x);
  return x;
}
static inline vf vi_float(vi a) { return __builtin_convertvector((vm)a, vf); }
static inline vi vi_four(const void *p) {
  uint32_t four;
  memcpy(&four, p, sizeof four);
  return vi_set1(four);
}
static inline vi vi_dot4(vi sum, vi a, vi b) {
  for (int byte = 0; byte < 4; byte++) sum += ((a >> (8 * byte)) & 255u) * (vi)((vm)(b << (24 - 8 * byte)) >> 24);
  return sum;
}

static inline void vf_pack(float *p, vf a, uint32_t bits) {
  for (int i = 0; i < VEC_N; i++)
    if (bits >> i & 1) *p++ = a[i];
}
static inline void vi_pack(int32_t *p, vi a, uint32_t bits) {
  for (int i = 0; i < VEC_N; i++)
    if (bits >> i & 1) *p++ = (int32_t)a[i];
}
static inline vi vi_load_bits(const int32_t *p, uint32_t bits) {
  vi x = {0, 0, 0, 0};
  for (int i = 0; i < VEC_N; i++)
    if (bits >> i & 1) x[i] = (uint32_t)p[i];
  return x;
}

static inline vf vf_exp2(vf x) {
  const vf magic = vf_set1(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
  vf y = vf_min(vf_set1(128.0f), vf_max(vf_set1(-126.0f), x));
  vf shifted = y + magic, n = shifted - magic;
  vf p = VEC_EXP2_POLY(y - n);
  vf r = (vf)((vi)p + ((vi)shifted << 23));
  r = vf_select((vm)(x >= vf_set1(128.0f)), vf_set1(INFINITY), r);
  r = vf_select((vm)(x != x), x, r);
  return vf_select(vf_lt(x, vf_set1(-126.0f)), vf_set1(0.0f), r);
}
