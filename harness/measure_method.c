/* measure_method.c - see measure_method.h */
#include "harness/measure_method.h"

#include "kernels/core/alloc.h"
#include "kernels/core/clock.h"
#include "kernels/core/status.h"

attn_status measure_method_open_all(measure_method *mm, const attn_method *m, const void *const *params, int variants,
                                    const measure_inputs *const *in, int n) {
  *mm = (measure_method){.method = m, .params = params, .variants = variants};
  for (int i = 0; i < n; i++)
    for (int v = 0; v < variants; v++) {
      attn_mem need = {0};
      ATTN_TRY(attn_check(m, &in[i]->pb, params[v]));
      ATTN_TRY(m->sizes(&in[i]->pb, params[v], &need));
      if (need.plan > mm->need.plan) mm->need.plan = need.plan;
      if (need.scratch > mm->need.scratch) mm->need.scratch = need.scratch;
    }
  mm->plan = attn_alloc(mm->need.plan);
  mm->scratch = attn_alloc(mm->need.scratch);
  if (mm->plan && mm->scratch) return ATTN_OK;
  size_t bytes = attn_add(mm->need.plan, mm->need.scratch);
  measure_method_close(mm);
  return attn_fail(ATTN_ERR_NOMEM, "%s needs %zu bytes", m->name, bytes);
}

attn_status measure_method_open(measure_method *mm, const attn_method *m, const void *const *params, int variants,
                                const measure_inputs *in) {
  return measure_method_open_all(mm, m, params, variants, &in, 1);
}

void measure_method_close(measure_method *mm) {
  attn_free(mm->plan);
  attn_free(mm->scratch);
  mm->plan = mm->scratch = NULL;
}

attn_status measure_method_pass(measure_method *mm, const measure_inputs *in, int first, attn_viewm out, attn_stats *st,
                                measure_cost *cost) {
  const attn_method *m = mm->method;
  ATTN_TRY(m->prepare(mm->plan, &in->pb, mm->params[0]));
  attn_alloc_reset_peak();
  size_t live = attn_alloc_counters().live_bytes;
  int64_t t0 = attn_now_ns();
  attn_status status = m->build(mm->plan, in->k, in->v, in->kmask, mm->scratch);
  int64_t build = attn_now_ns() - t0;
  size_t index = attn_alloc_counters().peak_bytes - live;
  for (int i = 0; i < mm->variants && status == ATTN_OK; i++) {
    int v = (first + i) % mm->variants;
    attn_stats plain = {0}, *s = st ? st + v : &plain;
    int64_t t1 = attn_now_ns();
    status = m->forward(mm->plan, mm->params[v], in->q, out, mm->scratch, s);
    int64_t query = attn_now_ns() - t1, late = (int64_t)s->build_ns;
    attn_mem need = {0}; /* of this variant alone: what others need is not its */
    if (cost) (void)m->sizes(&in->pb, mm->params[v], &need);
    if (cost)
      cost[v] = (measure_cost){.times = {{build + query, build + late, query - late, -1}},
                               .pairs = s->pairs,
                               .touched = s->bytes,
                               .bytes = need.plan + need.scratch + index,
                               .path = s->path};
  }
  if (m->release) m->release(mm->plan);
  return status;
}

attn_status measure_method_once(const attn_method *m, const void *params, const measure_inputs *in, attn_viewm out, attn_stats *st,
                                measure_cost *cost) {
  measure_method mm;
  ATTN_TRY(measure_method_open(&mm, m, &params, 1, in));
  const attn_status status = measure_method_pass(&mm, in, 0, out, st, cost);
  measure_method_close(&mm);
  return status;
}
