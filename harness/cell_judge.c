/* cell_judge.c - see cell_judge.h */
#include "harness/cell_judge.h"

#include "harness/measure_method.h"
#include "kernels/core/alloc.h"

/* The same call once more, listening to the keys. */
static int watch_keys(const encoder_call *call, const measure_inputs *in, quality_keys *keys, ice_err *e) {
  const attn_problem *pb = &in->pb;
  attn_stats st = {.on_keys = quality_on_keys, .ctx = keys, .missing = keys->missing};
  float *o = attn_alloc((size_t)(pb->b * pb->h * pb->nq * pb->dv) * sizeof *o);
  if (!o) return ice_fail(e, ICE_INTERNAL, "out of memory for outputs");
  const attn_status status = measure_method_once(call->method, call->params, in, measure_dense_view(o, pb->h, pb->nq, pb->dv), &st, NULL);
  attn_free(o);
  if (status == ATTN_OK) return ICE_OK;
  return ice_fail(e, ICE_INTERNAL, "%s: %s (%s)", call->method->name, attn_last_error(), attn_status_text(status));
}

void cell_judge_call(void *ctx, const encoder_call *call) {
  cell_judge *j = ctx;
  const measure_inputs in = {.pb = call->problem, .q = call->q, .k = call->k, .v = call->v, .kmask = call->kmask};
  const int set = (call->method->caps & ATTN_CAP_KEYSET) != 0;
  quality_ref ref;
  quality_keys keys = {0};
  if (j->rc != ICE_OK) return;
  j->rc = quality_ref_create(&ref, &in, &j->err);
  if (j->rc != ICE_OK) return;
  if (set) j->rc = quality_keys_create(&keys, &in.pb, &j->err);
  if (j->rc == ICE_OK && set) j->rc = watch_keys(call, &in, &keys, &j->err);
  if (j->rc == ICE_OK)
    j->rc = quality_add(&j->sums, &ref, call->out, set ? &keys : NULL, quality_k(call->method, call->params), &j->err);
  quality_keys_destroy(&keys);
  quality_ref_destroy(&ref);
}
