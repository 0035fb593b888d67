/* marks.c - see marks.h */
#include "harness/marks.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "harness/stats.h"
#include "kernels/core/rng.h"

enum { RESAMPLES = 2000 };

void marks_free(marks *m) {
  free(m->part);
  *m = (marks){0};
}

int marks_add(marks *m, const char *text, const char *const *reference, int references, double *total) {
  *total = NAN;
  if (!references) return 1;
  if (m->n == m->room) {
    const int room = 2 * m->room + 64;
    double(*grown)[ANSWER_PARTS] = realloc(m->part, (size_t)room * sizeof *grown);
    if (!grown) return 0;
    m->part = grown, m->room = room;
  }
  if (!answer_score(m->mark, text, reference, references, m->part[m->n])) return 0;
  *total = answer_total(m->mark, m->part[m->n++]);
  return 1;
}

int marks_add_json(marks *m, const char *text, const char *expected, double *total, ice_err *e) {
  json_t *list = json_loads(expected, 0, NULL), *one;
  const size_t n = json_array_size(list);
  const char **reference = calloc(n + 1, sizeof *reference);
  size_t i;
  int rc = !reference ? ice_fail(e, ICE_INTERNAL, "out of memory") : json_is_array(list) ? ICE_OK : ice_fail(e, ICE_DB, "an answer's right answers are no list: %.60s", expected);
  json_array_foreach(list, i, one)
    if (rc == ICE_OK && !(reference[i] = json_string_value(one))) rc = ice_fail(e, ICE_DB, "an answer's right answers are no texts: %.60s", expected);
  if (rc == ICE_OK && !marks_add(m, text, reference, (int)n, total)) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  free((void *)reference);
  json_decref(list);
  return rc;
}

/* The task's score over the answers at `pick` (NULL: all). */
static double score_of(const marks *m, const int *pick, double mean[ANSWER_PARTS]) {
  for (int p = 0; p < ANSWER_PARTS; p++) {
    mean[p] = 0;
    for (int i = 0; i < m->n; i++) mean[p] += m->part[pick ? pick[i] : i][p];
    mean[p] /= m->n;
  }
  return answer_total(m->mark, mean);
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Percentile bootstrap over answers; no interval for very few, or without memory. */
static stats_interval bootstrap(const marks *m, uint64_t seed) {
  double mean[ANSWER_PARTS];
  stats_interval s = {score_of(m, NULL, mean), NAN, NAN};
  int *pick = malloc((size_t)m->n * sizeof *pick);
  double *x = malloc(RESAMPLES * sizeof *x);
  attn_rng r;
  attn_rng_seed(&r, seed, 0);
  if (pick && x && m->n >= STATS_LEAST) {
    for (int k = 0; k < RESAMPLES; k++) {
      for (int i = 0; i < m->n; i++) pick[i] = (int)attn_rng_below(&r, (uint64_t)m->n);
      x[k] = score_of(m, pick, mean);
    }
    qsort(x, RESAMPLES, sizeof *x, ascending);
    s.lo = stats_quantile(x, RESAMPLES, 0.025);
    s.hi = stats_quantile(x, RESAMPLES, 0.975);
  }
  free(pick), free(x);
  return s;
}

static stats_interval share(const marks *m) {
  int64_t hits = 0;
  for (int i = 0; i < m->n; i++) hits += m->part[i][0] > 0.5;
  return stats_wilson(hits, m->n);
}

int marks_metrics(const marks *m, uint64_t seed, store_metric *out) {
  static const char *const names[ANSWER_PARTS] = {"rouge1", "rouge2", "rougel"};
  double mean[ANSWER_PARTS], instance = 0;
  int n = 0;
  if (!m->n) return 0;
  const stats_interval s = answer_is_share(m->mark) ? share(m) : bootstrap(m, seed);
  out[n++] = (store_metric){"accuracy", s.value, s.lo, s.hi};
  if (answer_parts(m->mark) == 1) return n;
  (void)score_of(m, NULL, mean);
  for (int p = 0; p < ANSWER_PARTS; p++) out[n++] = (store_metric){names[p], mean[p], NAN, NAN};
  for (int i = 0; i < m->n; i++) instance += answer_total(m->mark, m->part[i]) / m->n;
  out[n++] = (store_metric){"rouge_instance", instance, NAN, NAN};
  return n;
}
