/* vec_avx2.h - the vector words of micro.inc on AVX2 with FMA: 8 lanes. See vec_portable.h for what each word means. */
#include <immintrin.h>
#include <stdint.h>

#define VEC_N 8
#define VEC_ROWS 6 /* 6 x 2 accumulators of 16 registers */

typedef __m256 vf;
typedef __m256i vi;
typedef __m256i vm;

static inline vf vf_set1(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline vm vm_first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf vf_load_m(const float *p, vm m) { return _mm256_maskload_ps(p, m); }
static inline void vf_store_m(float *p, vf x, vm m) { _mm256_maskstore_ps(p, m, x); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline float vf_sum(vf a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf_hmax(vf a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline vf vf_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(m)); }
static inline vm vf_gt(vf a, vf b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
static inline vm vf_lt(vf a, vf b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
static inline uint32_t vm_bits(vm m) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m)); }

static inline vi vi_set1(uint32_t x) { return _mm256_set1_epi32((int)x); }
static inline vi vi_lanes(void) { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_mul(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
static inline vi vi_xor(vi a, vi b) { return _mm256_xor_si256(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
#define vi_shr(a, n) _mm256_srli_epi32((a), (n))
static inline vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
static inline vf vi_float(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vi vi_four(const void *p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm256_set1_epi32(four);
}
/* Even and odd bytes apart, as 16-bit pairs: nothing saturates. */
static inline vi vi_dot4(vi sum, vi a, vi b) {
  const vi even = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8), odd = _mm256_srai_epi16(b, 8);
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(255)), even));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_srli_epi16(a, 8), odd));
}
static inline vm vi_ge(vi a, vi b) { return _mm256_xor_si256(_mm256_cmpgt_epi32(b, a), _mm256_set1_epi32(-1)); }

static inline void vf_pack(float *p, vf a, uint32_t bits) {
  float lane[VEC_N];
  _mm256_storeu_ps(lane, a);
  for (; bits; bits &= bits - 1) *p++ = lane[__builtin_ctz(bits)];
}
static inline void vi_pack(int32_t *p, vi a, uint32_t bits) {
  int32_t lane[VEC_N];
  _mm256_storeu_si256((__m256i *)(void *)lane, a);
  for (; bits; bits &= bits - 1) *p++ = lane[__builtin_ctz(bits)];
}
static inline vi vi_load_bits(const int32_t *p, uint32_t bits) {
  const vi lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_maskload_epi32(p, _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), lanes), lanes));
}

static inline vf vf_exp2(vf x) {
  vf low = _mm256_set1_ps(-126.0f), high = _mm256_set1_ps(128.0f);
  vf out = _mm256_cmp_ps(x, low, _CMP_LT_OQ), over = _mm256_cmp_ps(x, high, _CMP_GE_OQ);
  vf y = _mm256_min_ps(high, _mm256_max_ps(low, x)); /* NaN comes through: it is the second operand */
  vf n = _mm256_round_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  vf p = VEC_EXP2_POLY(_mm256_sub_ps(y, n));
  __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  vf r = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
  r = _mm256_blendv_ps(r, _mm256_set1_ps(__builtin_inff()), over);
  r = _mm256_blendv_ps(r, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_andnot_ps(out, r);
}
