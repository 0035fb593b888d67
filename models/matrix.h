/* matrix.h - weight matrices as files store them, and their products with rows of activations.
 *
 * A matrix stays in its file's type and place; a product expands a block of rows to f32 at a time, in cache, and hands it
 * to OpenBLAS. The blocks are cut by the sizes alone, so the bits do not depend on the number of threads. */
#ifndef ICE_MATRIX_H
#define ICE_MATRIX_H

#include <stddef.h>
#include <stdint.h>

/** Storage of the numbers; numbered as in GGUF. */
typedef enum matrix_type { MATRIX_F32 = 0, MATRIX_F16 = 1, MATRIX_Q8_0 = 8, MATRIX_BF16 = 30 } matrix_type;

enum { Q8_BLOCK = 32, Q8_BYTES = 34 }; /* Q8_0: an f16 scale and 32 int8 for 32 numbers of a row */

typedef struct matrix { /* [rows, cols], row after row; a vector has one row */
  matrix_type type;
  int64_t rows, cols;
  const uint8_t *data; /* need not be aligned */
} matrix;

/** 1 and the bytes of a row of `cols` numbers; 0 when the type is unknown or cannot hold such a row. */
int matrix_row_bytes(unsigned type, int64_t cols, size_t *bytes);
/** "F32", "F16", "BF16", "Q8_0"; NULL for others. */
const char *matrix_type_name(unsigned type);
/** Rows [r0, r0 + n) as f32 into out [n, cols]. */
void matrix_expand(const matrix *w, int64_t r0, int64_t n, float *out);
/** n numbers to a storage type, to nearest, ties to even (Q8_0: as the reference quantiser, n a multiple of 32). out holds
 *  the bytes of a row of n. */
void matrix_pack(matrix_type type, int64_t n, const float *x, uint8_t *out);

/** Floats of working memory that a product with matrices of up to `cols` columns takes. */
int64_t matrix_scratch_floats(int64_t cols, int threads);
/** y [n, rows] (+)= x [n, cols] W^T; row strides ldx, ldy in floats. add = 0 overwrites. A NaN or infinity stays in its row. */
void matrix_multiply(const matrix *w, int64_t n, const float *x, ptrdiff_t ldx, float *y, ptrdiff_t ldy, int add,
                     int threads, float *scratch);

#endif
