/* matrix.c - see matrix.h */
#include "models/matrix.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/core/blas.h"
#include "kernels/core/half.h"
#include "kernels/micro/micro.h"

enum {
  BLOCK_W = 128,   /* rows of W expanded at a time: with x they stay in the second cache for one panel of sgemm */
  BLOCK_X = 512,   /* rows of x of a task: what the expansion is shared by */
  SMALL = 1 << 17, /* multiplications that one thread does alone */
  FEW = 4          /* up to so many rows of x a product reads memory, not cache: row by row */
};

int matrix_row_bytes(unsigned type, int64_t cols, size_t *bytes) {
  if (cols < 0 || cols > INT64_MAX / 8) return 0;
  switch (type) {
  case MATRIX_F32: *bytes = (size_t)cols * 4; return 1;
  case MATRIX_F16:
  case MATRIX_BF16: *bytes = (size_t)cols * 2; return 1;
  case MATRIX_Q8_0: *bytes = (size_t)(cols / Q8_BLOCK) * Q8_BYTES; return cols % Q8_BLOCK == 0;
  default: return 0;
  }
}

const char *matrix_type_name(unsigned type) {
  return type == MATRIX_F32    ? "F32"
         : type == MATRIX_F16  ? "F16"
         : type == MATRIX_BF16 ? "BF16"
         : type == MATRIX_Q8_0 ? "Q8_0"
                               : NULL;
}

/* --- storage ------------------------------------------------------------------------------------------------------ */

/* As attn_f32_of_f16, without branches: the compiler makes vectors of it. 2^112 moves the exponent; subnormals follow by
 * themselves, infinity and NaN are put right. */
static void expand_f16(int64_t n, const uint8_t *p, float *out) {
  for (int64_t i = 0; i < n; i++) {
    uint16_t h;
    memcpy(&h, p + 2 * i, sizeof h);
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    const uint32_t finite = attn_bits_of_f32(attn_f32_of_bits(rest) * 0x1p112f);
    out[i] = attn_f32_of_bits(sign | (rest >= 0x0f800000u ? rest | 0x7f800000u : finite));
  }
}
static void expand_bf16(int64_t n, const uint8_t *p, float *out) {
  for (int64_t i = 0; i < n; i++) {
    uint16_t h;
    memcpy(&h, p + 2 * i, sizeof h);
    out[i] = attn_f32_of_bf16(h);
  }
}
static void expand_q8(int64_t n, const uint8_t *p, float *out) {
  for (int64_t i = 0; i < n; i += Q8_BLOCK, p += Q8_BYTES) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    const float d = attn_f32_of_f16(h);
    for (int t = 0; t < Q8_BLOCK; t++) out[i + t] = (float)(int8_t)p[2 + t] * d;
  }
}

static void expand_row(const matrix *w, int64_t row, float *out) {
  size_t bytes = 0;
  (void)matrix_row_bytes(w->type, w->cols, &bytes);
  const uint8_t *p = w->data + (size_t)row * bytes;
  switch (w->type) {
  case MATRIX_F32: memcpy(out, p, bytes); break;
  case MATRIX_F16: expand_f16(w->cols, p, out); break;
  case MATRIX_BF16: expand_bf16(w->cols, p, out); break;
  case MATRIX_Q8_0: expand_q8(w->cols, p, out); break;
  }
}

void matrix_expand(const matrix *w, int64_t r0, int64_t n, float *out) {
  for (int64_t i = 0; i < n; i++) expand_row(w, r0 + i, out + i * w->cols);
}

static void pack_q8(int64_t n, const float *x, uint8_t *out) {
  for (int64_t i = 0; i < n; i += Q8_BLOCK, out += Q8_BYTES) {
    float most = 0.0f;
    for (int t = 0; t < Q8_BLOCK; t++) most = fmaxf(most, fabsf(x[i + t]));
    const float d = most / 127.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
    const uint16_t h = attn_f16_of_f32(d);
    memcpy(out, &h, sizeof h);
    for (int t = 0; t < Q8_BLOCK; t++) out[2 + t] = (uint8_t)(int8_t)roundf(x[i + t] * inverse);
  }
}

void matrix_pack(matrix_type type, int64_t n, const float *x, uint8_t *out) {
  if (type == MATRIX_F32) memcpy(out, x, (size_t)n * sizeof *x);
  if (type == MATRIX_Q8_0) pack_q8(n, x, out);
  if (type == MATRIX_F16 || type == MATRIX_BF16)
    for (int64_t i = 0; i < n; i++) {
      const uint16_t h = type == MATRIX_F16 ? attn_f16_of_f32(x[i]) : attn_bf16_of_f32(x[i]);
      memcpy(out + 2 * i, &h, sizeof h);
    }
}

/* --- products ----------------------------------------------------------------------------------------------------- */

int64_t matrix_scratch_floats(int64_t cols, int threads) { return (int64_t)threads * BLOCK_W * cols; }

/* Rows [r0, r0 + n) as f32: where they are when they are that already, otherwise in `block`. */
static const float *rows_of(const matrix *w, int64_t r0, int64_t n, float *block) {
  const uint8_t *at = w->data + (size_t)(r0 * w->cols) * sizeof(float);
  if (w->type == MATRIX_F32 && (uintptr_t)at % sizeof(float) == 0) return (const float *)(const void *)at;
  matrix_expand(w, r0, n, block);
  return block;
}

static void multiply_few(const attn_micro *mk, const matrix *w, int64_t r0, int64_t rows, int64_t n, const float *x,
                         ptrdiff_t ldx, float *y, ptrdiff_t ldy, int add, float *block) {
  for (int64_t r = r0; r < r0 + rows; r++) {
    const float *row = rows_of(w, r, 1, block);
    for (int64_t i = 0; i < n; i++) y[i * ldy + r] = mk->dot(w->cols, row, x + i * ldx) + (add ? y[i * ldy + r] : 0.0f);
  }
}

void matrix_multiply(const matrix *w, int64_t n, const float *x, ptrdiff_t ldx, float *y, ptrdiff_t ldy, int add,
                     int threads, float *scratch) {
  const attn_micro *mk = attn_micro_get();
  const int64_t parts = (n + BLOCK_X - 1) / BLOCK_X, tasks = (w->rows + BLOCK_W - 1) / BLOCK_W * parts;
  const int team = n * w->rows * w->cols < SMALL ? 1 : threads; /* threads cost more than small products */
  attn_blas_serial();
#pragma omp parallel for num_threads(team) schedule(dynamic)
  for (int64_t task = 0; task < tasks; task++) {
    const int64_t r0 = task / parts * BLOCK_W, i0 = task % parts * BLOCK_X;
    const int64_t rows = w->rows - r0 < BLOCK_W ? w->rows - r0 : BLOCK_W, m = n - i0 < BLOCK_X ? n - i0 : BLOCK_X;
    float *block = scratch + omp_get_thread_num() * BLOCK_W * w->cols;
    if (n <= FEW)
      multiply_few(mk, w, r0, rows, n, x, ldx, y, ldy, add, block);
    else
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)rows, (int)w->cols, 1.0f, x + i0 * ldx, (int)ldx,
                  rows_of(w, r0, rows, block), (int)w->cols, add ? 1.0f : 0.0f, y + i0 * ldy + r0, (int)ldy);
  }
}
