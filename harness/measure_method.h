/* measure_method.h - one method on one attention problem, from memory to result, with the clock where the contract
 * wants it: build + forward are timed; memory and preparation that needs no data are not. */
#ifndef ICE_MEASURE_METHOD_H
#define ICE_MEASURE_METHOD_H

#include "harness/measure.h"
#include "kernels/attn.h"

/** Inputs of an attention problem. */
typedef struct measure_inputs {
  attn_problem pb;
  attn_view q, k, v;    /* [b, h, nq, d], [b, hkv, nk, d], [b, hkv, nk, dv] */
  const uint8_t *kmask; /* [b, nk] or NULL */
} measure_inputs;

/** A method with its memory. Variants differ in late parameters only, so they share plan and built index. */
typedef struct measure_method {
  const attn_method *method;
  const void *const *params; /* [variants], borrowed */
  int variants;
  void *plan, *scratch;
  attn_mem need;
} measure_method;

/** Checks every variant against the problem and allocates. The text of an error is attn_last_error()'s. */
attn_status measure_method_open(measure_method *mm, const attn_method *m, const void *const *params, int variants,
                                const measure_inputs *in);
/** The same with memory for any of several problems, one after the other. */
attn_status measure_method_open_all(measure_method *mm, const attn_method *m, const void *const *params, int variants,
                                    const measure_inputs *const *in, int n);
void measure_method_close(measure_method *mm);

/** What one pass left behind, per variant. */
typedef struct measure_cost {
  measure_times times;
  uint64_t pairs;
  uint64_t touched; /* bytes of keys, values and index read; 0: unknown            */
  uint64_t bytes;   /* plan + scratch + what build allocated                       */
  const char *path; /* "dense" when the method chose to be dense attention, or NULL */
} measure_cost;

/** Builds once, then forwards every variant, starting with `first`, into out ([b, h, nq, dv], one after the other in
 * the same place). st (NULL or [variants]) asks for key sets and log-sum-exps; cost [variants] may be NULL. */
attn_status measure_method_pass(measure_method *mm, const measure_inputs *in, int first, attn_viewm out, attn_stats *st,
                                measure_cost *cost);
/** One pass of one variant with memory of its own, from check to release: for what is not timed. st and cost may be NULL. */
attn_status measure_method_once(const attn_method *m, const void *params, const measure_inputs *in, attn_viewm out, attn_stats *st,
                                measure_cost *cost);
/** Dense view of [b, h, n, width]. */
static inline attn_viewm measure_dense_view(float *p, int64_t h, int64_t n, int64_t width) {
  return (attn_viewm){p, (ptrdiff_t)(h * n * width), (ptrdiff_t)(n * width), (ptrdiff_t)width};
}
static inline attn_view measure_const_view(attn_viewm v) { return (attn_view){v.p, v.sb, v.sh, v.sn}; }

#endif
