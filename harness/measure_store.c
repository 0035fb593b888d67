/* measure_store.c - see measure_store.h */
#include "harness/measure_store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/registry/registry.h"
#include "harness/schedule.h"
#include "kernels/core/alloc.h"

static store_metric metric(const char *name, stats_interval v) {
  return (store_metric){.name = name, .value = v.value, .lo = v.lo, .hi = v.hi};
}
static store_metric plain(const char *name, double value) {
  return (store_metric){.name = name, .value = value, .lo = NAN, .hi = NAN};
}

void measure_metrics(const measure_result *r, measure_columns c, uint64_t seed, const measure_cost *cost,
                     const quality *q, store_metric *out) {
  const quality none = {NAN, NAN, NAN, NAN, NAN};
  if (!q) q = &none;
  int i = 0;
  out[i++] = metric("attention_ns", measure_median(r, c.own, MEASURE_ATTENTION));
  out[i++] = metric("build_ns", measure_median(r, c.own, MEASURE_BUILD));
  out[i++] = metric("query_ns", measure_median(r, c.own, MEASURE_QUERY));
  out[i++] = metric("model_ns", measure_median(r, c.own, MEASURE_MODEL));
  out[i++] = metric("speedup_vanilla", measure_speedup(r, c.vanilla, c.own, seed));
  out[i++] = metric("speedup_dense", measure_speedup(r, c.dense, c.own, seed));
  out[i++] = plain("l2_error", q->l2_error);
  out[i++] = plain("rel_l2_error", q->rel_l2_error);
  out[i++] = plain("mass", q->mass);
  out[i++] = plain("recall", q->recall);
  out[i++] = plain("mass_bound", q->mass_bound);
  out[i++] = plain("pairs", cost ? (double)cost->pairs : NAN);
  out[i++] = plain("peak_bytes", cost ? (double)cost->bytes : NAN);
  out[i++] = plain("bytes_touched", cost && cost->touched ? (double)cost->touched : NAN);
  out[i++] = plain("rounds", c.own >= 0 ? (double)r->rounds : NAN);
}

store_sample *measure_samples(const measure_result *r, measure_columns c, const char *method, int *count) {
  const struct {
    int column;
    const char *name;
  } part[] = {{c.own, method}, {c.vanilla, "vanilla"}, {c.dense, "dense"}};
  store_sample *s = calloc((size_t)r->rounds * 3 * MEASURE_PHASES + 1, sizeof *s);
  *count = 0;
  for (int i = 0; s && i < 3; i++) {
    if (part[i].column < 0 || !r->ok[part[i].column] || (i > 0 && part[i].column == c.own)) continue;
    for (int round = 0; round < r->rounds; round++)
      for (int p = 0; p < MEASURE_PHASES; p++) {
        int64_t ns = measure_sample(r, part[i].column, round)->ns[p];
        if (ns >= 0)
          s[(*count)++] = (store_sample){
              .method = part[i].name, .phase = measure_phase_name((measure_phase)p), .round = round, .ns = ns};
      }
  }
  return s;
}

void measure_brief(const attn_method *m, const void *params, const char *schedule, char *out, size_t size) {
  char *plain = registry_defaults(m), value[64];
  size_t n = 0;
  out[0] = '\0';
  if (schedule) n = (size_t)snprintf(out, size, "schedule=%s", schedule);
  for (const attn_param *p = m->params; plain && p && p->key && n < size; p++) {
    if (schedule_sets(schedule, p->key)) continue;
    if (strcmp(p->key, "k") && !memcmp(plain + p->offset, (const char *)params + p->offset, 8)) continue;
    registry_param_print(p, params, value, sizeof value);
    n += (size_t)snprintf(out + n, size - n, "%s%s=%s", n ? " " : "", p->key, value);
  }
  attn_free(plain);
}

void measure_print_ns(double ns, char *out, size_t size) {
  if (ns < 1e3)
    (void)snprintf(out, size, "%.0f ns", ns);
  else if (ns < 1e6)
    (void)snprintf(out, size, "%.3g us", ns * 1e-3);
  else if (ns < 1e9)
    (void)snprintf(out, size, "%.*f ms", ns < 1e7 ? 3 : ns < 1e8 ? 2 : 1, ns * 1e-6);
  else
    (void)snprintf(out, size, "%.3f s", ns * 1e-9);
}
