/* linformer.c - attention to `rank` learned mixtures of the keys instead of the keys.
 *
 * Idea    K' = E^T K, V' = F^T V with E, F [positions, rank] learned; out = softmax(scale Q K'^T) V'. Row j of E belongs to the
 *         sequence's j-th token, so a shorter sequence uses the first rows, and order matters.
 * Form    A projection, then method "dense" on a problem of rank keys. The projection is one product per head and side, cut by
 *         columns of E and taken over stretches of tokens, whose partial sums are added in order.
 * Source  Wang et al. 2020 (arXiv:2006.04768); defaults of the LRA PyTorch code: rank 256, E = F, one per head, N(0, 0.02^2).
 * Cost    2 n rank (d + dv) flops for the projection and as many for attention, n rank exponentials per head; h positions rank
 *         learned numbers a layer, for each of E and F.
 * Differs - a layer has tensors of its own; the LRA code shares one E among all layers.
 *         - a mask is resolved first: row j of E belongs to the j-th kept token, so that it does not matter whether masked tokens
 *           are left out before. There, masked keys and values are zeroed and keep their rows: the same for padding at the end.
 * Limits  No causal form: a mixture holds later keys. Weights of keys are sums of products with entries of E and F, of any sign:
 *         rows sum to 1 over mixtures, not over keys. */
#include "baselines/linformer.h"

#include <math.h>
#include <string.h>

#include "kernels/core/finite.h"
#include "kernels/core/status.h"
#include "kernels/methods/dense.h"

enum {
  BLOCK = 48,   /* rows of K' or V' of a task */
  STRETCH = 512 /* tokens added at a time, so that they stay in the cache */
};

/* --- the projection ----------------------------------------------------------------------------------------------- */

attn_problem linformer_inner(const attn_problem *pb, const linformer_params *p) {
  attn_problem inner = *pb;
  inner.nk = p->rank, inner.weights = NULL, inner.weights_bytes = 0, inner.positions = 0;
  return inner;
}

int64_t linformer_tensor(const attn_problem *pb, const linformer_params *p, linformer_side side, int64_t ih) {
  const int64_t size = pb->positions * p->rank, heads = p->heads == LINFORMER_EACH ? pb->h : 1;
  return size * ((side == LINFORMER_VALUES && p->sharing == LINFORMER_SEPARATE ? heads : 0) + (p->heads == LINFORMER_EACH ? ih : 0));
}

int64_t linformer_run(const int32_t *idx, int64_t j, int64_t end) {
  int64_t n = 1;
  while (j + n < end && idx[j + n] == idx[j] + n) n++;
  return n;
}

void linformer_rows_place(linformer_rows *r, attn_layout *at, const attn_problem *pb, const linformer_params *p) {
  for (int side = 0; side < LINFORMER_SIDES; side++)
    r->p[side] = attn_place(at, attn_mul(attn_mul((size_t)(pb->b * pb->h), (size_t)p->rank), (size_t)linformer_width(pb, side) * sizeof(float)));
}

attn_view linformer_rows_view(const linformer_rows *r, const attn_problem *pb, const linformer_params *p, linformer_side side) {
  const int64_t width = linformer_width(pb, side);
  return (attn_view){r->p[side], pb->h * p->rank * width, p->rank * width, width};
}

void linformer_project(const attn_problem *pb, const linformer_params *p, const segment_tokens *kept, attn_view k, attn_view v,
                       linformer_rows *out) {
  const attn_micro *mk = attn_micro_get();
  const int64_t blocks = (p->rank + BLOCK - 1) / BLOCK, heads = pb->b * pb->h;
#pragma omp parallel for num_threads(pb->threads) schedule(static)
  for (int64_t task = 0; task < heads * LINFORMER_SIDES * blocks; task++) {
    const int side = (int)(task / blocks % LINFORMER_SIDES);
    const int64_t i = task / blocks / LINFORMER_SIDES, ib = i / pb->h, ih = i % pb->h, n = kept->count[ib];
    const int64_t r0 = task % blocks * BLOCK, rows = p->rank - r0 < BLOCK ? p->rank - r0 : BLOCK, width = linformer_width(pb, side);
    const float *e = pb->weights + linformer_tensor(pb, p, (linformer_side)side, ih) + r0;
    const segment_rows x = segment_tokens_rows(kept, side == LINFORMER_KEYS ? k : v, pb->h, pb->nk, i);
    float *to = out->p[side] + (i * p->rank + r0) * width;
    if (!n) memset(to, 0, (size_t)(rows * width) * sizeof(float));
    for (int64_t j = 0, run; j < n; j += run) {
      run = linformer_run(kept->idx + ib * pb->nk, j, n - j < STRETCH ? n : j + STRETCH);
      mk->gemm(rows, width, run, e + j * p->rank, 1, p->rank, segment_row(&x, j), x.ld, mk->panel, to, width, j > 0);
    }
  }
}

/* --- inference ---------------------------------------------------------------------------------------------------- */

typedef struct plan {
  attn_problem pb, inner;
  linformer_params par;
  int built;
  segment_tokens kept;
  linformer_rows rows;
  void *dense; /* a plan of method "dense" for `inner` */
} plan;

static plan *plan_place(attn_layout *at, const attn_problem *pb, const linformer_params *p, size_t dense) {
  plan here = {.pb = *pb, .inner = linformer_inner(pb, p), .par = *p};
  plan *pl = attn_place(at, sizeof *pl);
  segment_tokens_place(&here.kept, at, pb->b, pb->nk);
  linformer_rows_place(&here.rows, at, pb, p);
  here.dense = attn_place(at, dense);
  if (pl) *pl = here;
  return pl;
}

static attn_status linformer_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  attn_layout at = {0};
  const attn_problem inner = linformer_inner(pb, params);
  ATTN_TRY(attn_method_dense.sizes(&inner, NULL, need));
  (void)plan_place(&at, pb, params, need->plan);
  need->plan = at.used;
  return ATTN_OK;
}

static attn_status linformer_prepare(void *memory, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!memory || (uintptr_t)memory % ATTN_ALIGN, ATTN_ERR_ARG, "linformer: plan is null or not 64-byte aligned");
  attn_layout at = {.p = memory};
  plan *pl = plan_place(&at, pb, params, 0); /* last, so that its size does not matter here */
  return attn_method_dense.prepare(pl->dense, &pl->inner, NULL);
}

static attn_status linformer_build(void *memory, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  plan *pl = memory;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "linformer: build without plan");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv), ATTN_ERR_SHAPE,
               "linformer: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  pl->built = 0;
  segment_tokens_read(&pl->kept, pb->b, pb->nk, kmask);
  linformer_project(pb, &pl->par, &pl->kept, k, v, &pl->rows);
  ATTN_FAIL_IF(!attn_all_finite(pb->b * pb->h * pl->par.rank * pb->d, pl->rows.p[LINFORMER_KEYS]), ATTN_ERR_NUMERIC,
               "linformer: a key is NaN or infinite, or the mixture of some is");
  ATTN_TRY(attn_method_dense.build(pl->dense, linformer_rows_view(&pl->rows, pb, &pl->par, LINFORMER_KEYS),
                                   linformer_rows_view(&pl->rows, pb, &pl->par, LINFORMER_VALUES), NULL, scratch));
  pl->built = 1;
  return ATTN_OK;
}

static attn_status linformer_forward(const void *memory, const void *params, attn_view q, attn_viewm out, void *scratch,
                                     attn_stats *st) {
  const plan *pl = memory;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "linformer: forward before build");
  ATTN_TRY(attn_method_dense.forward(pl->dense, params, q, out, scratch, st));
  const attn_problem *pb = &pl->pb;
  for (int64_t ib = 0; ib < pb->b && st; ib++) { /* without keys, mixtures are zeros, and so are outputs */
    if (pl->kept.count[ib]) continue;
    st->pairs -= (uint64_t)(pb->h * pb->nq * pl->par.rank);
    for (int64_t row = ib * pb->h * pb->nq; row < (ib + 1) * pb->h * pb->nq && st->lse; row++) st->lse[row] = -INFINITY;
  }
  return ATTN_OK;
}

static void linformer_release(void *memory) { (void)memory; }

static int linformer_learned(const attn_problem *pb, const void *params, attn_tensor out[ATTN_MAX_LEARNED]) {
  const linformer_params *p = params;
  const attn_tensor e = {.name = "e", .rank = 3, .shape = {p->heads == LINFORMER_EACH ? pb->h : 1, pb->positions, p->rank}, .sd = 0.02f};
  out[0] = e, out[1] = e;
  out[1].name = "f";
  return p->sharing == LINFORMER_SEPARATE ? 2 : 1;
}

static const char *const sharings[] = {"kv", "separate", NULL}, *const heads_of[] = {"each", "one", NULL};
#define AT(field) .offset = offsetof(linformer_params, field)
static const attn_param linformer_table[] = {
    {.key = "rank", .doc = "learned mixtures of keys and of values; the LRA JAX code has 16", .type = ATTN_P_INT, AT(rank), .dflt = 256, .min = 1, .max = 4096},
    {.key = "sharing", .doc = "kv: one tensor E for keys and values; separate: E and F", .type = ATTN_P_CHOICE, AT(sharing), .choices = sharings},
    {.key = "heads", .doc = "tensors of each head, or one for all", .type = ATTN_P_CHOICE, AT(heads), .choices = heads_of},
    {.key = NULL}};

const attn_method attn_method_linformer = {
    .name = "linformer",
    .version = "1",
    .cite = "arXiv:2006.04768",
    .doc = "softmax attention to learned mixtures of the keys, linear in n; trained anew, for one length",
    .caps = ATTN_CAP_MASK | ATTN_CAP_CROSS | ATTN_CAP_NEEDS_TRAINING,
    .params_size = sizeof(linformer_params),
    .params = linformer_table,
    .sizes = linformer_sizes,
    .prepare = linformer_prepare,
    .build = linformer_build,
    .forward = linformer_forward,
    .release = linformer_release,
    .training = &attn_training_linformer,
    .learned = linformer_learned,
};
