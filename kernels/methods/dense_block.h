/* dense_block.h - exact attention of a block of queries over stretches of keys: what "dense" walks over all keys with, and
 * others over those they choose. */
#ifndef ATTN_DENSE_BLOCK_H
#define ATTN_DENSE_BLOCK_H

#include "kernels/attn.h"
#include "kernels/micro/micro.h"

/** A built plan of method "dense". */
typedef struct dense_plan {
  attn_problem pb;
  const attn_micro *mk;
  int built;
  int64_t kt_stride, v_stride; /* floats per (batch, key head) */
  int64_t *count;              /* [b] kept keys */
  int32_t *idx;                /* [b, nk] their positions */
  uint8_t *wild;               /* [b, hkv] 1: a kept value is NaN or infinite, so that 0 * v is not 0 */
  float *kt, *v;               /* packed panels */
} dense_plan;

enum {
  DENSE_WHOLE = 32,   /* stretches of keys begin at multiples of it: panels of every instruction set, groups of dropout */
  DENSE_MAX_ROWS = 16 /* no register tile has more rows */
};

/** Most keys of a stretch: scores, keys and values of one stay in the first-level cache for narrow heads. */
static inline int64_t dense_block_k(int64_t d) { return d <= 128 ? 256 : 128; }

/** State of a block of queries. */
typedef struct dense_block {
  float *q, *o, *m, *l; /* [rows, d] scaled, [rows, padded dv], [rows], [rows, 16] */
  int32_t *prefix;      /* [rows] keys that each may see */
  float *s;             /* logits, then weights, of one register tile */
} dense_block;

/** Memory for blocks of up to `rows` queries; carve points a block into it. */
size_t dense_block_bytes(const attn_problem *pb, const attn_micro *mk, int64_t rows);
dense_block dense_block_carve(void *p, const attn_problem *pb, const attn_micro *mk, int64_t rows);

/** What a register tile needs to know about its head. */
typedef struct dense_head {
  const float *kt, *v; /* panels of its key head */
  int64_t kept;
  int wild;
  attn_drop drop;
} dense_head;

/** The head that query head ih of batch entry ib attends to, with dropout as in attn_dense_run. */
dense_head dense_head_of(const dense_plan *pl, int64_t ib, int64_t ih, float drop, uint64_t key);

/** Queries [i0, i0 + rows) of a head, before any key. */
void dense_block_load(const dense_plan *pl, int64_t ib, int64_t ih, int64_t i0, int64_t rows, attn_view q, dense_block *b);
/** Rows [first, first + rows) of the block, at most mk->rows, against keys [j0, j1): j0 a multiple of DENSE_WHOLE, at most
 *  dense_block_k keys; keys beyond a row's prefix are left out. row0: the first row's place in the head. */
void dense_block_attend(const dense_plan *pl, const dense_head *hd, int64_t first, int64_t rows, int64_t row0, int64_t j0,
                        int64_t j1, const dense_block *b);
/** All `rows` of the block, the first of them row i0 of the head, against every key they see. */
void dense_block_attend_all(const dense_plan *pl, const dense_head *hd, int64_t i0, int64_t rows, const dense_block *b);
/** As dense_block_attend, for rows that see the first prefix[i] keys instead, by the same instructions whatever the prefixes are: the
 *  bits of a row do not depend on what its neighbours see. */
void dense_block_attend_some(const dense_plan *pl, const dense_head *hd, int64_t first, int64_t rows, int64_t row0,
                             int64_t j0, int64_t j1, const int32_t *prefix, const dense_block *b);
/** Writes out (and lse, which may be NULL) of the rows loaded. */
void dense_block_store(const dense_plan *pl, int64_t ib, int64_t ih, int64_t i0, int64_t rows, const dense_block *b,
                       attn_viewm out, float *lse);

#endif
