/* plugin.c - an attention of your own beside ours: `icebench attn --plugin`.
 *
 *   gcc -O3 -march=native -fPIC -shared -I. docs/plugin.c -o window.so -lm
 *   icebench attn --synth clustered:n=4096,d=32 --plugin ./window.so --methods dense,my_window --set 'my_window.k=32|128'
 *
 * A method that can also take keys one by one, between calls of forward, fills in `append`; this one leaves it NULL.
 * The example is a sliding window: every query attends to the k nearest visible positions. It needs nothing but
 * kernels/attn.h; that file says what each function may and must do. */
#include "kernels/attn.h"

#include <math.h>
#include <string.h>

typedef struct window_params {
  int64_t k;
} window_params;

typedef struct window_plan { /* lives in memory that the caller owns */
  attn_problem pb;
  attn_view k, v;
  int built;
} window_plan;

static attn_status window_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  const window_params *p = params;
  need->plan = sizeof(window_plan);
  need->scratch = (size_t)(p->k < pb->nk ? p->k : pb->nk) * (sizeof(float) + sizeof(int32_t)) + 64;
  return ATTN_OK;
}

static int misaligned(const void *block) { return !block || (uintptr_t)block % 64 != 0; }

static attn_status window_prepare(void *plan, const attn_problem *pb, const void *params) {
  (void)params;
  if (misaligned(plan)) return ATTN_ERR_ARG;
  *(window_plan *)plan = (window_plan){.pb = *pb};
  return ATTN_OK;
}

static attn_status window_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  window_plan *pl = plan;
  (void)kmask; /* never given: ATTN_CAP_MASK is not declared */
  (void)scratch;
  if (!pl) return ATTN_ERR_ARG;
  if (pl->pb.nk > 1 && (k.sn < pl->pb.d || v.sn < pl->pb.dv)) return ATTN_ERR_SHAPE;
  pl->k = k;
  pl->v = v;
  pl->built = 1;
  return ATTN_OK;
}

/* One query: the window [first, last] of keys, their softmax, the sum of their values; *lse = log sum exp of the logits.
 * Returns the number of keys. */
static int64_t attend(const window_plan *pl, int64_t window, int64_t ib, int64_t ih, int64_t iq, attn_view q,
                      attn_viewm out, float *weight, int32_t *id, float *lse) {
  const attn_problem *pb = &pl->pb;
  const int64_t here = iq + pb->nk - pb->nq, end = pb->causal ? here + 1 : pb->nk;
  int64_t first = here - (pb->causal ? window - 1 : window / 2);
  if (first > end - window) first = end - window;
  if (first < 0) first = 0;
  const int64_t count = end - first < window ? end - first : window; /* <= 0: the query sees no key */
  const float *query = q.p + ib * q.sb + ih * q.sh + iq * q.sn;
  float *to = out.p + ib * out.sb + ih * out.sh + iq * out.sn, most = -INFINITY, sum = 0.0f;
  for (int64_t j = 0; j < count; j++) {
    const float *key = pl->k.p + ib * pl->k.sb + ih * pl->k.sh + (first + j) * pl->k.sn;
    float dot = 0.0f;
    for (int64_t t = 0; t < pb->d; t++) dot += query[t] * key[t];
    weight[j] = dot * pb->scale;
    if (weight[j] > most) most = weight[j];
    id[j] = (int32_t)(first + j);
  }
  for (int64_t j = 0; j < count; j++) sum += weight[j] = expf(weight[j] - most);
  *lse = count > 0 ? most + logf(sum) : -INFINITY;
  memset(to, 0, (size_t)pb->dv * sizeof *to);
  for (int64_t j = 0; j < count; j++) {
    const float *value = pl->v.p + ib * pl->v.sb + ih * pl->v.sh + (first + j) * pl->v.sn;
    for (int64_t t = 0; t < pb->dv; t++) to[t] += weight[j] / sum * value[t];
  }
  return count > 0 ? count : 0;
}

/* One thread, for brevity; a method worth timing runs one parallel loop of pb.threads threads here. */
static attn_status window_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                  attn_stats *st) {
  const window_plan *pl = plan;
  if (!pl || !pl->built || misaligned(scratch)) return ATTN_ERR_ARG;
  if (pl->pb.nq > 1 && (q.sn < pl->pb.d || out.sn < pl->pb.dv)) return ATTN_ERR_SHAPE;
  const int64_t window = ((const window_params *)params)->k, most = window < pl->pb.nk ? window : pl->pb.nk;
  float *weight = scratch;
  int32_t *id = (int32_t *)(void *)(weight + most);
  uint64_t pairs = 0;
  for (int64_t ib = 0; ib < pl->pb.b; ib++)
    for (int64_t ih = 0; ih < pl->pb.h; ih++)
      for (int64_t iq = 0; iq < pl->pb.nq; iq++) {
        float lse;
        int64_t count = attend(pl, most, ib, ih, iq, q, out, weight, id, &lse);
        pairs += (uint64_t)count;
        if (st && st->lse) st->lse[(ib * pl->pb.h + ih) * pl->pb.nq + iq] = lse;
        if (st && st->on_keys) st->on_keys(st->ctx, ib, ih, iq, id, count);
      }
  if (st) st->pairs = pairs;
  return ATTN_OK;
}

static void window_release(void *plan) { (void)plan; }

static const attn_param window_table[] = {{.key = "k",
                                           .doc = "keys in the window",
                                           .type = ATTN_P_INT,
                                           .late = 1,
                                           .offset = offsetof(window_params, k),
                                           .dflt = 64,
                                           .min = 1,
                                           .max = 1 << 20},
                                          {.key = NULL}};

static const attn_method window_method = {.name = "my_window",
                                          .version = "1",
                                          .cite = "example",
                                          .doc = "sliding window, one thread",
                                          .caps = ATTN_CAP_CAUSAL | ATTN_CAP_STOCHASTIC | ATTN_CAP_KEYSET,
                                          .params_size = sizeof(window_params),
                                          .params = window_table,
                                          .sizes = window_sizes,
                                          .prepare = window_prepare,
                                          .build = window_build,
                                          .forward = window_forward,
                                          .release = window_release};

const attn_method *icebench_plugin(uint32_t abi);
const attn_method *icebench_plugin(uint32_t abi) { return abi == ATTN_ABI ? &window_method : NULL; }
