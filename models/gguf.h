/* gguf.h - reader and writer of GGUF, the model files of llama.cpp: key-value pairs, tensor descriptions, aligned data.
 * Versions 2 and 3, little-endian. Source: ggml, docs/gguf.md. */
#ifndef ICE_GGUF_H
#define ICE_GGUF_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/core/err.h"
#include "models/matrix.h"

#define GGUF_MAX_RANK 4

typedef enum gguf_type {
  GGUF_U8 = 0,
  GGUF_I8 = 1,
  GGUF_U16 = 2,
  GGUF_I16 = 3,
  GGUF_U32 = 4,
  GGUF_I32 = 5,
  GGUF_F32 = 6,
  GGUF_BOOL = 7,
  GGUF_STRING = 8,
  GGUF_ARRAY = 9,
  GGUF_U64 = 10,
  GGUF_I64 = 11,
  GGUF_F64 = 12
} gguf_type;

typedef struct gguf_kv { /* checked: `count` elements of `type` lie at data */
  const char *key;       /* owned by the file */
  gguf_type type;        /* of the elements */
  int array;             /* 1: an array of count elements; otherwise count = 1 */
  uint64_t count;
  const uint8_t *data; /* little-endian, unaligned; a string is its length (u64) and its bytes */
} gguf_kv;

typedef struct gguf_tensor {
  const char *name; /* owned by the file */
  matrix_type type;
  int rank;
  int64_t shape[GGUF_MAX_RANK]; /* slowest first, [out, in], as in safetensors: the file has them the other way round */
  const uint8_t *data;          /* into the mapping */
  size_t bytes;
} gguf_tensor;

typedef struct gguf_file { /* opaque to callers but for these */
  int64_t n_kv, n_tensors;
  gguf_kv *kv;         /* in file order */
  gguf_tensor *tensor; /* sorted by name */
  void *impl;
} gguf_file;

/** Maps a file read-only and validates all of it: counts, strings, types, alignment, offsets within the file, no overlap,
 *  no name twice. ICE_DATA on any fault, and for tensor types other than F32, F16, BF16, Q8_0. */
int gguf_open(const char *path, gguf_file *out, ice_err *e);
/** The same on bytes in memory, which must outlive the file (the fuzz target). */
int gguf_parse(const uint8_t *bytes, size_t n, const char *name, gguf_file *out, ice_err *e);
void gguf_close(gguf_file *f);
/** 1 when the file begins like a GGUF file. */
int gguf_is(const char *path);

/** NULL when absent. */
const gguf_kv *gguf_find(const gguf_file *f, const char *key);
const gguf_tensor *gguf_find_tensor(const gguf_file *f, const char *name);
/** Value of a key into *out, which is left alone when the key is absent (unless `required`). Whole numbers may be stored in
 *  any width; ICE_DATA names file, key, value and the allowed range. */
int gguf_int(const gguf_file *f, const char *key, int required, int64_t min, int64_t max, int64_t *out, ice_err *e);
int gguf_real(const gguf_file *f, const char *key, int required, double min, double max, double *out, ice_err *e);
/** Text of a string key into out (size bytes, with NUL); ICE_DATA when it is longer or not text. */
int gguf_text(const gguf_file *f, const char *key, int required, char *out, size_t size, ice_err *e);
/** Walks an array of strings: start with *at = kv->data; *text is not terminated. */
void gguf_next_string(const uint8_t **at, const char **text, size_t *n);
/** File name, for messages. */
const char *gguf_name(const gguf_file *f);

/** One pair to write: a scalar has count = 1 and array = 0. data: the elements in the machine's (little-endian) layout;
 *  const char *const * for strings. */
typedef struct gguf_out_kv {
  const char *key;
  gguf_type type;
  int array;
  uint64_t count;
  const void *data;
} gguf_out_kv;
typedef struct gguf_out_tensor {
  const char *name;
  matrix_type type;
  int rank;
  int64_t shape[GGUF_MAX_RANK]; /* slowest first */
  /** Writes the bytes of the tensor (as many as type and shape say) to the stream. */
  void (*write)(const void *ctx, FILE *to);
  const void *ctx;
} gguf_out_tensor;
/** Writes a version 3 file, alignment 32; it appears whole or not at all. ICE_INTERNAL on I/O errors. */
int gguf_write(const char *path, const gguf_out_kv *kv, int64_t n_kv, const gguf_out_tensor *t, int64_t n_tensors,
               ice_err *e);

#endif
