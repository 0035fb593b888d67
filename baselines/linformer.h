/* linformer.h - the projection of keys and values to `rank` rows, shared by inference (linformer.c) and training
 * (linformer_train.c). What follows it is method "dense", on a problem of `rank` keys. */
#ifndef BASELINES_LINFORMER_H
#define BASELINES_LINFORMER_H

#include "baselines/segments.h"
#include "kernels/attn.h"

extern const attn_training attn_training_linformer;

typedef struct linformer_params {
  int64_t rank, sharing, heads;
} linformer_params;
enum { LINFORMER_KV, LINFORMER_SEPARATE };     /* linformer_params.sharing */
enum { LINFORMER_EACH, LINFORMER_ONE };        /* linformer_params.heads */
typedef enum linformer_side { LINFORMER_KEYS, LINFORMER_VALUES, LINFORMER_SIDES } linformer_side;

/** The problem that is left to dense attention: rank keys of every query head, all visible. */
attn_problem linformer_inner(const attn_problem *pb, const linformer_params *p);
/** Where the tensor [positions, rank] of a side of head ih begins, in floats from the begin of all that is learned. */
int64_t linformer_tensor(const attn_problem *pb, const linformer_params *p, linformer_side side, int64_t ih);
/** How many of the kept tokens [j, end) stand side by side from token j on; idx as in segment_tokens. */
int64_t linformer_run(const int32_t *idx, int64_t j, int64_t end);

/** Keys and values after projection, or their gradients, of all heads. */
typedef struct linformer_rows {
  float *p[LINFORMER_SIDES]; /* [b, h, rank, d], [b, h, rank, dv] */
} linformer_rows;
void linformer_rows_place(linformer_rows *r, attn_layout *at, const attn_problem *pb, const linformer_params *p);
attn_view linformer_rows_view(const linformer_rows *r, const attn_problem *pb, const linformer_params *p, linformer_side side);
static inline int64_t linformer_width(const attn_problem *pb, int side) { return side == LINFORMER_KEYS ? pb->d : pb->dv; }

/** out = tensor^T x, for every head and both sides; zeros where no token is kept. */
void linformer_project(const attn_problem *pb, const linformer_params *p, const segment_tokens *kept, attn_view k, attn_view v,
                       linformer_rows *out);

#endif
