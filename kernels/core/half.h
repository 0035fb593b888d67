/* half.h - the two 16-bit floating-point formats of weight and array files, and f32. */
#ifndef ATTN_HALF_H
#define ATTN_HALF_H

#include <stdint.h>
#include <string.h>

static inline float attn_f32_of_bits(uint32_t w) {
  float f;
  memcpy(&f, &w, sizeof f);
  return f;
}
static inline uint32_t attn_bits_of_f32(float f) {
  uint32_t w;
  memcpy(&w, &f, sizeof w);
  return w;
}

/** IEEE 754 binary16 to f32, exactly: subnormals, infinities and NaN payloads included. */
static inline float attn_f32_of_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 1023u;
  if (exponent == 31) return attn_f32_of_bits(sign | 0x7f800000u | mantissa << 13);
  if (exponent) return attn_f32_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
  const float f = (float)mantissa * 0x1p-24f;
  return sign ? -f : f;
}

/** f32 to IEEE 754 binary16, to nearest, ties to even; beyond the largest it becomes infinity, NaN stays NaN. */
static inline uint16_t attn_f16_of_f32(float f) {
  const uint32_t w = attn_bits_of_f32(f), sign = w >> 16 & 0x8000u, a = w & 0x7fffffffu;
  if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (a >> 13 & 1023u));
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* from 65520 on */
  if (a < 0x38800000u) /* below 2^-14: the unit is 2^-24, which is that of the numbers from 0.5 to 1 */
    return (uint16_t)(sign | (attn_bits_of_f32(attn_f32_of_bits(a) + 0.5f) - 0x3f000000u));
  const uint32_t u = a - (112u << 23);
  return (uint16_t)(sign | (u + 0xfffu + (u >> 13 & 1u)) >> 13);
}

/** bfloat16 to f32: its bits are the upper half. */
static inline float attn_f32_of_bf16(uint16_t h) { return attn_f32_of_bits((uint32_t)h << 16); }

/** f32 to bfloat16, to nearest, ties to even; NaN stays NaN. */
static inline uint16_t attn_bf16_of_f32(float f) {
  const uint32_t w = attn_bits_of_f32(f);
  if ((w & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(w >> 16 | 0x40u);
  return (uint16_t)((w + 0x7fffu + (w >> 16 & 1u)) >> 16);
}

#endif
