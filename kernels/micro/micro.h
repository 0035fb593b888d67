/* micro.h - the serial vector kernels everything else is built from, one set per instruction set.
 *
 * All are pure functions on caller memory: no allocation, no threads. A kernel never reads or writes outside the
 * elements its comment names. Sums run in an order fixed by the sizes and the instruction set. */
#ifndef ATTN_MICRO_H
#define ATTN_MICRO_H

#include <stddef.h>
#include <stdint.h>

/** Dropout of an element is decided by a hash of (row key, column), so that forward, backward and every instruction
 *  set see the same mask. threshold = round(p * 65536) of 65536; kept elements are multiplied by scale. */
typedef struct attn_drop {
  uint64_t key;       /* identifies the tensor (step, sequence, layer, ...) */
  uint32_t threshold; /* 0: no dropout */
  float scale;        /* 65536 / (65536 - threshold) */
} attn_drop;

/** A dropout of probability p in [0, 1), for tensor `key`. */
attn_drop attn_drop_make(float p, uint64_t key);
/** Multiplier (0 or scale) of element (row, col): the definition the vector kernels are tested against. */
float attn_drop_at(const attn_drop *dr, int64_t row, int64_t col);

typedef struct attn_micro {
  const char *name; /* scalar, avx2, avx512 */
  int lanes;        /* floats per vector */
  int panel;        /* columns of a packed panel = 2 * lanes */
  int rows;         /* rows of a register tile */

  /** C[m,n] (+)= A[m,k] B[k,n]. A(i,p) = a[i*ars + p*acs]. B is stored in panels of `panel` columns:
   *  B(p,j) = b[(j/panel)*bps + p*brs + j%panel]; a row-major matrix is the case bps = panel. Columns past n are
   *  neither read nor written. c row-major, stride ldc. add = 0 overwrites. k = 0 gives zeros (or leaves c). */
  void (*gemm)(int64_t m, int64_t n, int64_t k, const float *a, ptrdiff_t ars, ptrdiff_t acs, const float *b,
               ptrdiff_t brs, ptrdiff_t bps, float *c, ptrdiff_t ldc, int add);

  /** One key block of online softmax on `rows` rows of base-2 logits s (row stride lds): for the first n[i] columns
   *  (n = NULL: cols) updates the running maximum m[i] and the lane-wise sums l[i*16 ..], multiplies the width floats
   *  of o's row i by 2^(m_old - m_new) when m grew, replaces s by 2^(s - m), and zeroes columns n[i]..cols-1.
   *  Start with m = -inf, l = 0, o = 0. o may be NULL when width is 0. */
  void (*softmax_block)(int64_t rows, int64_t cols, float *s, ptrdiff_t lds, const int32_t *n, float *m, float *l,
                        float *o, ptrdiff_t ldo, int64_t width);

  /** gemm and softmax_block at once, scores never leaving the registers: s = 2^(q K - m) for `rows` queries (stride ldq)
   *  against `cols` keys, a multiple of panel, in transposed panels kt of width k. m may lag the true maximum by up to
   *  8 powers of two, so that rows are rescaled only when it matters; l, o as in softmax_block. */
  void (*weigh_block)(int64_t rows, int64_t cols, int64_t k, const float *q, ptrdiff_t ldq, const float *kt, float *s,
                      ptrdiff_t lds, float *m, float *l, float *o, ptrdiff_t ldo, int64_t width);

  /** In place, rows x cols: s = 2^(s - lse2[i]), zero from column n[i] on (n = NULL: cols). lse2 = -inf gives zeros. */
  void (*exp2_block)(int64_t rows, int64_t cols, float *s, ptrdiff_t lds, const int32_t *n, const float *lse2);

  /** x[rows, cols] *= dropout mask of rows row0.. and columns col0.. (col0 a multiple of 32). */
  void (*drop_block)(int64_t rows, int64_t cols, float *x, ptrdiff_t ldx, const attn_drop *dr, int64_t row0,
                     int64_t col0);

  /** dp = p * (dp*z - delta[i]); p = p*z, where z is the dropout mask (1 without dropout). Softmax backward. */
  void (*softmax_grad)(int64_t rows, int64_t cols, float *p, float *dp, ptrdiff_t ld, const float *delta,
                       const attn_drop *dr, int64_t row0, int64_t col0);

  float (*dot)(int64_t n, const float *x, const float *y);
  void (*axpy)(int64_t n, float a, const float *x, float *y); /* y += a*x */
  /** out[j] = x . row j of y, rows of `width` floats, stride ld. */
  void (*dots)(int64_t rows, int64_t width, const float *x, const float *y, ptrdiff_t ld, float *out);

  /** Index of the largest x[j] + bias[j] (bias NULL: x[j]), the lowest on ties; *best = that value. NaN never wins; 0
   *  and -inf when no entry exceeds -inf. */
  int64_t (*argmax)(int64_t n, const float *x, const float *bias, float *best);

  /** Products of 8-bit integers, exact until they are scaled:
   *  c[i*ldc + j] = (sum_p (a[i*lda + p] - 128) b(p,j)) * as[i] * bs[j] + bias[j] (bias NULL: 0). k is a multiple of 4,
   *  at most 32768; a and b as made by attn_rows_i8 and attn_pack_i8. Columns past n of bs, bias, c are left alone. */
  void (*gemm_i8)(int64_t m, int64_t n, int64_t k, const uint8_t *a, ptrdiff_t lda, const int8_t *b, const float *as,
                  const float *bs, const float *bias, float *c, ptrdiff_t ldc);
  /** out = round(x / scale) with scale = max |x| / 127, which is returned: 0 for zeros (or sizes below 2^-100); NaN, and
   *  zeros in out, when an entry is NaN or infinite. */
  float (*quantise)(int64_t n, const float *x, int8_t *out);

  /** x[j] += min(a y[j], b z[j]) */
  void (*add_least)(int64_t n, float a, const float *y, float b, const float *z, float *x);

  /** out[t] = largest of x[32 t .. 32 t + 31], n a multiple of 32; NaN is passed over, -inf when there is nothing else. */
  void (*max_blocks)(int64_t n, const float *x, float *out);

  /** Layer normalisation of rows of `width`: y = (x - mean) * rstd * g + b; saves mean and rstd per row. */
  void (*norm)(int64_t rows, int64_t width, const float *x, const float *g, const float *b, float eps, float *y,
               float *mean, float *rstd);
  /** dx += gradient of norm; dg, db += sums over rows in row order. */
  void (*norm_grad)(int64_t rows, int64_t width, const float *x, const float *g, const float *mean, const float *rstd,
                    const float *dy, float *dx, float *dg, float *db);

  /** y = x * Phi(x), the erf form of GELU; absolute error of erf below 5e-7. */
  void (*gelu)(int64_t n, const float *x, float *y);
  /** dx = dy * gelu'(x); dx may be dy. */
  void (*gelu_grad)(int64_t n, const float *x, const float *dy, float *dx);

  /* Search for nearest neighbours (knn.inc). "In whole vectors": up to lanes - 1 floats behind the last named element are
     read, or overwritten with anything. */

  /** c[i*ldc + j] = sum over t < d, in order of t, of a[row[i]*lda + t] * b[t*ldb + j], for i < m, j < n: rows of A
   *  against the columns of a cell. b is read and c written in whole vectors. */
  void (*scores)(int64_t m, int64_t n, int64_t d, const float *a, ptrdiff_t lda, const int32_t *row, const float *b,
                 ptrdiff_t ldb, float *c, ptrdiff_t ldc);
  /** Of the scores unit * s[j], j < n, copies those that are not below floor to score and, beside them, ids[j] (ids NULL:
   *  first + j) to id; in order. Returns how many. s is read, score and id are written in whole vectors. */
  int64_t (*sift)(int64_t n, const float *s, float unit, float floor, int32_t first, const int32_t *ids, float *score,
                  int32_t *id);
  /** How many of x[0..n) exceed bar. */
  int64_t (*above)(int64_t n, const float *x, float bar);
  /** Moves the k largest of n finite scores, and their ids, to the front; their order is kept. Ties: the lower id. Ids are
   *  distinct and >= 0. k >= n leaves all as it is. Places from k on hold anything afterwards; written in whole vectors.
   *  Returns a number that every kept score reaches and none of the others exceeds; -inf when all are kept. */
  float (*select_best)(int64_t n, int64_t k, float *score, int32_t *id);
  /** y[t] = sum of w[i] * x[row[i]*ld + t], t < width; the terms of even i, then those of odd i. y must not overlap x. */
  void (*weigh_rows)(int64_t n, const float *w, const int32_t *row, const float *x, ptrdiff_t ld, int64_t width, float *y);

  /** `rounds` of multiply-adds in registers; returns the flops. *sum must be used, lest they be optimised away. */
  double (*peak)(int64_t rounds, float *sum);
} attn_micro;

/** The set in use: the best the CPU has, or $ATTN_ISA. Decided once, thread-safe. */
const attn_micro *attn_micro_get(void);
/** A set by name for tests; NULL when unknown or when the CPU lacks it. */
const attn_micro *attn_micro_named(const char *name);
/** Why $ATTN_ISA cannot be honoured ("ATTN_ISA=avx512: ..."), or NULL when all is well. main() refuses to start on it.
 */
const char *attn_micro_error(void);
/** Name of the set in use. */
const char *attn_isa_name(void);

/** Packs rows [n, d] (row stride ld floats) as the transposed panels that gemm wants for B = X^T (k = d, n columns):
 *  out[(j/panel)*panel*d + t*panel + j%panel] = x[row j][t] * scale; columns past n in the last panel are zero.
 *  idx (NULL: 0..n-1) picks the rows. out holds attn_panels(n) * panel * d floats. */
void attn_pack_transposed(const attn_micro *mk, int64_t n, int64_t d, const float *x, ptrdiff_t ld, const int32_t *idx,
                          float scale, float *out);
/** Packs rows [n, d] as panels of columns of a matrix of `total` rows, whose rows from the first of these on begin at out:
 *  out[(t/panel)*panel*total + j*panel + t%panel] = x[row j][t], zero past d. */
void attn_pack_panels(const attn_micro *mk, int64_t total, int64_t n, int64_t d, const float *x, ptrdiff_t ld,
                      const int32_t *idx, float *out);
/** Width of quantised rows: n rounded up to a multiple of 4. */
static inline int64_t attn_width_i8(int64_t n) { return (n + 3) / 4 * 4; }
/** Quantises rows [n, d] (row stride ld) for gemm_i8 as its rows: out[i * attn_width_i8(d) + t] = 128 + x[row i][t] / scale[i],
 *  128 past d. idx (NULL: 0..n-1) picks the rows. */
void attn_rows_i8(const attn_micro *mk, int64_t n, int64_t d, const float *x, ptrdiff_t ld, const int32_t *idx,
                  uint8_t *out, float *scale);
/** Quantises rows [n, d] as columns of gemm_i8, panel by panel: -128 * (sum of the column) as int32 [panel], then
 *  [width / 4, panel, 4] bytes; zero past n. out holds attn_bytes_i8(n, d) bytes, 4-byte aligned,
 *  tmp attn_width_i8(d). */
void attn_pack_i8(const attn_micro *mk, int64_t n, int64_t d, const float *x, ptrdiff_t ld, const int32_t *idx, int8_t *out,
                  float *scale, int8_t *tmp);
int64_t attn_bytes_i8(const attn_micro *mk, int64_t n, int64_t d);
/** Panels that n columns take, and the columns of those panels. */
static inline int64_t attn_panels(const attn_micro *mk, int64_t n) { return (n + mk->panel - 1) / mk->panel; }
static inline int64_t attn_padded(const attn_micro *mk, int64_t n) { return attn_panels(mk, n) * mk->panel; }

#endif
