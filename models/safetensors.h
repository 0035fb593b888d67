/* safetensors.h - reader and writer of the safetensors format: 8-byte little-endian header length N, N bytes of
 * JSON, packed little-endian data. Source: huggingface/safetensors README and safetensors/src/tensor.rs. */
#ifndef ICE_SAFETENSORS_H
#define ICE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/core/err.h"

#define ST_MAX_RANK 8

typedef enum st_dtype {
  ST_F32,
  ST_F16,
  ST_BF16,
  ST_F64,
  ST_I64,
  ST_I32,
  ST_I16,
  ST_I8,
  ST_U8,
  ST_BOOL,
  ST_OTHER
} st_dtype;

typedef struct st_tensor {
  const char *name; /* owned by the file */
  st_dtype dtype;
  int rank;
  int64_t shape[ST_MAX_RANK];
  int64_t count;
  const uint8_t *data; /* into the mapping; may be unaligned */
  size_t bytes;
} st_tensor;

typedef struct st_file { /* opaque to callers but for these */
  int64_t count;
  st_tensor *tensor; /* sorted by name */
  void *impl;
} st_file;

/** Maps a file read-only and validates it fully: header length, JSON, dtypes, shapes, offsets packed without hole or
 *  overlap, file length, no duplicate names. ICE_DATA on any fault. */
int st_open(const char *path, st_file *out, ice_err *e);
/** The same on bytes in memory, which must outlive the file (the fuzz target). */
int st_parse(const uint8_t *bytes, size_t n, const char *name, st_file *out, ice_err *e);
void st_close(st_file *f);
/** NULL when absent. */
const st_tensor *st_find(const st_file *f, const char *name);
/** Copies a tensor of exactly this shape into f32 (from F32, F16, BF16, F64). ICE_DATA names file, tensor, found and
 * expected. */
int st_copy_f32(const st_file *f, const char *name, int rank, const int64_t *shape, float *out, ice_err *e);
/** Value of a __metadata__ key, or NULL. */
const char *st_meta(const st_file *f, const char *key);

typedef struct st_out { /* one tensor to write */
  const char *name;
  st_dtype dtype; /* ST_F32, ST_BF16 (rounded to nearest even), ST_I64 */
  int rank;
  int64_t shape[ST_MAX_RANK];
  const void *data; /* float for ST_F32 and ST_BF16, int64_t for ST_I64 */
} st_out;
/** Writes tensors in the given order; meta is a NULL-terminated list key, value, key, value. The file appears whole or
 *  not at all (temporary name, fsync, rename). ICE_INTERNAL on I/O errors. */
int st_write(const char *path, const st_out *t, int count, const char *const *meta, ice_err *e);
/** The same with the data from somewhere else: `write` is called for every tensor in turn and writes its bytes, of any dtype
 *  but ST_OTHER; t[i].data is not read. */
int st_write_with(const char *path, const st_out *t, int count, const char *const *meta,
                  void (*write)(const void *ctx, int i, FILE *to), const void *ctx, ice_err *e);

#endif
