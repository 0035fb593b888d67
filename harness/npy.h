/* npy.h - NumPy arrays in and out: versions 1, 2, 3, little-endian, C order.
 * Format: numpy.lib.format documentation. Read: f4, f2, f8, u2 taken as bfloat16, u1/b1 for masks. */
#ifndef ICE_NPY_H
#define ICE_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/core/err.h"

#define NPY_MAX_RANK 8

typedef struct npy_array {
  int rank;
  int64_t shape[NPY_MAX_RANK];
  int64_t count; /* product of shape */
  float *f;      /* values as f32, or NULL for a mask; owned, attn_alloc */
  uint8_t *u;    /* mask bytes, or NULL; owned, attn_alloc */
} npy_array;

/** Reads floats. Every header field and the file length are checked; NaN is legal here. ICE_DATA on any fault
 *  (place, what was found, what is allowed); *out is then untouched. */
int npy_read_f32(const char *path, npy_array *out, ice_err *e);
/** Reads a mask: dtypes u1, i1, b1; values 0 or 1 (anything else is a fault). */
int npy_read_mask(const char *path, npy_array *out, ice_err *e);
/** Parses an image of a file in memory (the fuzz target). */
int npy_parse_f32(const uint8_t *bytes, size_t n, const char *name, npy_array *out, ice_err *e);
/** Writes version 1, '<f4', '<f2' (rounded to nearest) or '<i4', C order; the file appears whole or not at all (temporary name,
 *  fsync, rename). */
int npy_write_f32(const char *path, int rank, const int64_t *shape, const float *v, ice_err *e);
int npy_write_f16(const char *path, int rank, const int64_t *shape, const float *v, ice_err *e);
int npy_write_i32(const char *path, int rank, const int64_t *shape, const int32_t *v, ice_err *e);
void npy_free(npy_array *a);

#endif
