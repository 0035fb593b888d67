/* linformer_train.c - Linformer for training: the projection, then the training part of method "dense".
 *
 * Idea    K' = E^T K and V' = F^T V are kept; dense backward gives their gradients, and with them
 *             dK = E dK',  dE += K dK'^T,  dV = F dV',  dF += V dV'^T
 *         of the kept tokens. With E = F both products are added to one gradient.
 * Dropout Of the weights of queries over mixtures, as in the LRA code.
 * Threads dK and dV by blocks of tokens. dE and dF by blocks of their rows, which take batch entries, heads and sides that
 *         share them one after the other: sums have a fixed order. */
#include <string.h>

#include "baselines/linformer.h"
#include "kernels/core/status.h"
#include "kernels/methods/dense.h"

enum { TOKENS = 96 }; /* of a task */

typedef struct saved { /* of forward */
  segment_tokens kept;
  linformer_rows rows;
  void *dense; /* what the training part of "dense" saved */
} saved;

typedef struct grads { /* of backward */
  linformer_rows d;
  float *panels[LINFORMER_SIDES]; /* of d, transposed: [b, h] */
  void *dense;
} grads;

static int64_t panel_floats(const attn_problem *pb, const linformer_params *p, int side) {
  return attn_padded(attn_micro_get(), p->rank) * linformer_width(pb, side);
}

static saved saved_place(attn_layout *at, const attn_problem *pb, const linformer_params *p, size_t dense) {
  saved s;
  segment_tokens_place(&s.kept, at, pb->b, pb->nk);
  linformer_rows_place(&s.rows, at, pb, p);
  s.dense = attn_place(at, dense);
  return s;
}
static grads grads_place(attn_layout *at, const attn_problem *pb, const linformer_params *p, size_t dense) {
  grads g;
  linformer_rows_place(&g.d, at, pb, p);
  for (int side = 0; side < LINFORMER_SIDES; side++) g.panels[side] = attn_place_floats(at, pb->b * pb->h, panel_floats(pb, p, side));
  g.dense = attn_place(at, dense);
  return g;
}

static attn_status train_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  const attn_problem inner = linformer_inner(pb, params);
  attn_layout keep = {0}, work = {0};
  ATTN_TRY(attn_training_dense.sizes(&inner, NULL, need));
  (void)saved_place(&keep, pb, params, need->plan);
  (void)grads_place(&work, pb, params, need->scratch);
  *need = (attn_mem){.plan = keep.used, .scratch = work.used};
  return ATTN_OK;
}

static attn_status train_forward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                 const uint8_t *kmask, float drop, uint64_t key, attn_viewm out, void *memory, void *scratch) {
  const linformer_params *p = params;
  const attn_problem inner = linformer_inner(pb, p);
  attn_layout at = {.p = memory};
  saved s = saved_place(&at, pb, p, 0);
  segment_tokens_read(&s.kept, pb->b, pb->nk, kmask);
  linformer_project(pb, p, &s.kept, k, v, &s.rows);
  return attn_training_dense.forward(&inner, NULL, q, linformer_rows_view(&s.rows, pb, p, LINFORMER_KEYS),
                                     linformer_rows_view(&s.rows, pb, p, LINFORMER_VALUES), NULL, drop, key, out, s.dense, scratch);
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

/* One call of backward: what its loops share. */
typedef struct call {
  const attn_problem *pb;
  const linformer_params *par;
  const attn_micro *mk;
  saved s;
  grads g;
  attn_view x[LINFORMER_SIDES];   /* k, v */
  attn_viewm dx[LINFORMER_SIDES]; /* dk, dv */
  float *dweights;
} call;

/* dx of kept tokens [j0, j1) of head i; zeros of masked tokens are written beside. */
static void token_grad(const call *c, int64_t i, int side, int64_t j0, int64_t j1) {
  const attn_problem *pb = c->pb;
  const int64_t rank = c->par->rank, width = linformer_width(pb, side), ib = i / pb->h, ih = i % pb->h;
  const int32_t *idx = c->s.kept.idx + ib * pb->nk;
  const float *e = pb->weights + linformer_tensor(pb, c->par, (linformer_side)side, ih), *d = c->g.d.p[side] + i * rank * width;
  const attn_viewm to = c->dx[side];
  float *first = to.p + ib * to.sb + ih * to.sh;
  for (int64_t j = j0, run; j < j1; j += run) {
    run = linformer_run(idx, j, j1);
    c->mk->gemm(run, width, rank, e + j * rank, rank, 1, d, width, c->mk->panel, first + idx[j] * to.sn, to.sn, 0);
  }
}

static void zero_masked(const call *c, int64_t i, int side) {
  const attn_problem *pb = c->pb;
  const uint8_t *keep = segment_tokens_keep(&c->s.kept, pb->nk, i / pb->h);
  const attn_viewm to = c->dx[side];
  float *first = to.p + i / pb->h * to.sb + i % pb->h * to.sh;
  for (int64_t j = 0; j < pb->nk && keep; j++)
    if (!keep[j]) memset(first + j * to.sn, 0, (size_t)linformer_width(pb, side) * sizeof(float));
}

/* Rows [j0, j0 + TOKENS) of the gradients of the tensors of head `from`, which heads [from, end) share. */
static void tensor_grad(const call *c, int64_t from, int64_t end, int64_t j0) {
  const attn_problem *pb = c->pb;
  const int64_t rank = c->par->rank, w = c->mk->panel;
  for (int64_t i = 0; i < pb->b * (end - from) * LINFORMER_SIDES; i++) {
    const int side = (int)(i % LINFORMER_SIDES);
    const int64_t ih = from + i / LINFORMER_SIDES % (end - from), ib = i / LINFORMER_SIDES / (end - from);
    const int64_t width = linformer_width(pb, side), kept = c->s.kept.count[ib], j1 = kept - j0 < TOKENS ? kept : j0 + TOKENS;
    const int32_t *idx = c->s.kept.idx + ib * pb->nk;
    const attn_view x = c->x[side];
    float *to = c->dweights + linformer_tensor(pb, c->par, (linformer_side)side, ih);
    for (int64_t j = j0, run; j < j1; j += run) {
      run = linformer_run(idx, j, j1);
      c->mk->gemm(run, rank, width, x.p + ib * x.sb + ih * x.sh + idx[j] * x.sn, x.sn, 1,
                  c->g.panels[side] + (ib * pb->h + ih) * panel_floats(pb, c->par, side), w, w * width, to + j * rank, rank, 1);
    }
  }
}

/* From the gradients of mixtures to those of tokens and tensors. */
static void spread(const call *c) {
  const attn_problem *pb = c->pb;
  const int64_t heads = pb->b * pb->h, blocks = (pb->nk + TOKENS - 1) / TOKENS, rank = c->par->rank;
  const int64_t owners = c->par->heads == LINFORMER_EACH ? pb->h : 1, share = pb->h / owners;
#pragma omp parallel num_threads(pb->threads)
  {
#pragma omp for schedule(static)
    for (int64_t task = 0; task < heads * LINFORMER_SIDES; task++) {
      const int side = (int)(task % LINFORMER_SIDES);
      const int64_t i = task / LINFORMER_SIDES, width = linformer_width(pb, side);
      attn_pack_transposed(c->mk, rank, width, c->g.d.p[side] + i * rank * width, width, NULL, 1.0f,
                           c->g.panels[side] + i * panel_floats(pb, c->par, side));
      zero_masked(c, i, side);
    }
#pragma omp for schedule(static)
    for (int64_t task = 0; task < heads * LINFORMER_SIDES * blocks; task++) {
      const int64_t i = task / blocks / LINFORMER_SIDES, j0 = task % blocks * TOKENS, kept = c->s.kept.count[i / pb->h];
      token_grad(c, i, (int)(task / blocks % LINFORMER_SIDES), j0, kept - j0 < TOKENS ? kept : j0 + TOKENS);
    }
#pragma omp for schedule(static)
    for (int64_t task = 0; task < owners * blocks; task++)
      tensor_grad(c, task / blocks * share, (task / blocks + 1) * share, task % blocks * TOKENS);
  }
}

static attn_viewm writable(attn_view x, float *p) { return (attn_viewm){p, x.sb, x.sh, x.sn}; }

static attn_status train_backward(const attn_problem *pb, const void *params, attn_view q, attn_view k, attn_view v,
                                  const uint8_t *kmask, float drop, uint64_t key, attn_view out, attn_view dout, attn_viewm dq,
                                  attn_viewm dk, attn_viewm dv, float *dweights, void *memory, void *scratch) {
  (void)kmask; /* forward has read it */
  const linformer_params *p = params;
  const attn_problem inner = linformer_inner(pb, p);
  attn_layout keep = {.p = memory}, work = {.p = scratch};
  const call c = {.pb = pb, .par = p, .mk = attn_micro_get(), .s = saved_place(&keep, pb, p, 0), .g = grads_place(&work, pb, p, 0),
                  .x = {k, v}, .dx = {dk, dv}, .dweights = dweights};
  const attn_view kr = linformer_rows_view(&c.s.rows, pb, p, LINFORMER_KEYS), vr = linformer_rows_view(&c.s.rows, pb, p, LINFORMER_VALUES);
  ATTN_TRY(attn_training_dense.backward(&inner, NULL, q, kr, vr, NULL, drop, key, out, dout, dq, writable(kr, c.g.d.p[LINFORMER_KEYS]),
                                        writable(vr, c.g.d.p[LINFORMER_VALUES]), NULL, c.s.dense, c.g.dense));
  spread(&c);
  return ATTN_OK;
}

const attn_training attn_training_linformer = {.sizes = train_sizes, .forward = train_forward, .backward = train_backward};
