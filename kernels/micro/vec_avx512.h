/* vec_avx512.h - the vector words of micro.inc on AVX-512 (F, DQ, BW, VL): 16 lanes. See vec_portable.h for what each
 * word means. */
#include <immintrin.h>
#include <stdint.h>

#define VEC_N 16
#define VEC_ROWS 12 /* rows of a register tile: 12 x 2 accumulators of 32 registers */

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vm vm_first(int n) { return (vm)(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u); }
static inline vf vf_load_m(const float *p, vm m) { return _mm512_maskz_loadu_ps(m, p); }
static inline void vf_store_m(float *p, vf x, vm m) { _mm512_mask_storeu_ps(p, m, x); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_abs(vf a) { return _mm512_abs_ps(a); }
static inline float vf_sum(vf a) { return _mm512_reduce_add_ps(a); }
static inline float vf_hmax(vf a) { return _mm512_reduce_max_ps(a); }
static inline vf vf_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
static inline vm vf_gt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline uint32_t vm_bits(vm m) { return (uint32_t)m; }

static inline vi vi_set1(uint32_t x) { return _mm512_set1_epi32((int)x); }
static inline vi vi_lanes(void) { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
static inline vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
#define vi_shr(a, n) _mm512_srli_epi32((a), (n))
static inline vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
static inline vf vi_float(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vi vi_four(const void *p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm512_set1_epi32(four);
}
#ifdef __AVX512VNNI__
/* As an instruction, because gcc 12 keeps the sums of its intrinsic in memory. */
static inline vi vi_dot4(vi sum, vi a, vi b) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}
#else /* even and odd bytes apart, as 16-bit pairs: nothing saturates */
static inline vi vi_dot4(vi sum, vi a, vi b) {
  const vi even = _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8), odd = _mm512_srai_epi16(b, 8);
  sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_and_si512(a, _mm512_set1_epi16(255)), even));
  return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_srli_epi16(a, 8), odd));
}
#endif
/* lanes with a >= b, both below 2^31 */
static inline vm vi_ge(vi a, vi b) { return _mm512_cmpge_epi32_mask(a, b); }
/* Packing goes through a register: compressing stores are slow on some CPUs. */
static inline void vf_pack(float *p, vf a, uint32_t bits) { _mm512_storeu_ps(p, _mm512_maskz_compress_ps((vm)bits, a)); }
static inline void vi_pack(int32_t *p, vi a, uint32_t bits) {
  _mm512_storeu_si512(p, _mm512_maskz_compress_epi32((vm)bits, a));
}
static inline vi vi_load_bits(const int32_t *p, uint32_t bits) { return _mm512_maskz_loadu_epi32((vm)bits, p); }

/* 2^x, relative error below 2 ulp for x in [-126, 128); 0 below, +inf above; NaN stays NaN. */
static inline vf vf_exp2(vf x) {
  vm in = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  vf n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  vf r = _mm512_sub_ps(x, n);
  vf p = VEC_EXP2_POLY(r);
  return _mm512_maskz_scalef_ps(in, p, n);
}
