/* stats.c - see stats.h */
#include "harness/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/rng.h"

static const stats_interval unknown = {NAN, NAN, NAN};

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int all_finite(const double *x, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!isfinite(x[i])) return 0;
  return 1;
}

double stats_quantile(const double *x, size_t n, double q) {
  if (n == 0) return NAN;
  const double at = q * (double)(n - 1), low = floor(at);
  const size_t i = (size_t)low;
  return i + 1 < n ? x[i] + (at - low) * (x[i + 1] - x[i]) : x[n - 1];
}

double stats_median(double *x, size_t n) {
  if (n > 1) qsort(x, n, sizeof *x, ascending);
  return stats_quantile(x, n, 0.5);
}

/* P(B <= k) of a binomial(n, 1/2). */
static double half_binomial(size_t n, size_t k) {
  double term = pow(0.5, (double)n), sum = term;
  for (size_t i = 0; i < k; i++) {
    term *= (double)(n - i) / (double)(i + 1);
    sum += term;
  }
  return sum;
}

/* Ranks j and n+1-j enclose the median with probability 1 - 2 P(B <= j-1); the largest j that leaves 95 %. */
static size_t median_rank(size_t n) {
  if (n > 1000) return (size_t)floor(0.5 * (double)n - 0.98 * sqrt((double)n)); /* normal approximation; 2^-n underflows */
  size_t j = 1;
  while (2.0 * half_binomial(n, j) <= 0.05) j++;
  return j;
}

stats_interval stats_median_interval(double *x, size_t n) {
  if (!all_finite(x, n)) return unknown;
  const stats_interval r = {.value = stats_median(x, n), .lo = NAN, .hi = NAN};
  if (n < STATS_LEAST) return r;
  const size_t j = median_rank(n);
  return (stats_interval){.value = r.value, .lo = x[j - 1], .hi = x[n - j]};
}

stats_interval stats_wilson(int64_t hits, int64_t n) {
  if (n <= 0) return (stats_interval){NAN, NAN, NAN};
  const double z = 1.959963984540054, count = (double)n, p = (double)hits / count, zz = z * z / count;
  const double centre = (p + 0.5 * zz) / (1.0 + zz);
  const double half = z / (1.0 + zz) * sqrt(p * (1.0 - p) / count + 0.25 * zz / count);
  const double lo = centre - half, hi = centre + half;
  return (stats_interval){.value = p, .lo = hits == 0 ? 0.0 : lo, .hi = hits == n ? 1.0 : hi};
}

/* ---- Bootstrap. */

enum { RESAMPLES = 2000 };

/* The interval around `value` from the resampled values, of which those that are NAN do not count. */
static stats_interval percentiles(double value, double *sampled) {
  size_t n = 0;
  for (size_t i = 0; i < RESAMPLES; i++)
    if (!isnan(sampled[i])) sampled[n++] = sampled[i];
  if (n > 1) qsort(sampled, n, sizeof *sampled, ascending);
  return (stats_interval){value, stats_quantile(sampled, n, 0.025), stats_quantile(sampled, n, 0.975)};
}

/* A statistic of n pairs; may reorder them. */
typedef double statistic(double *a, double *b, size_t n);

static double mean(const double *x, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i++) sum += x[i];
  return sum / (double)n;
}
static double ratio_of_medians(double *a, double *b, size_t n) { return stats_median(a, n) / stats_median(b, n); }
static double difference_of_means(double *a, double *b, size_t n) { return mean(a, n) - mean(b, n); }
static double ratio_of_means(double *a, double *b, size_t n) {
  const double below = mean(b, n);
  return below == 0.0 ? NAN : mean(a, n) / below;
}

static stats_interval bootstrap_pairs(const double *a, const double *b, size_t n, statistic *of, uint64_t seed) {
  if (n == 0 || !all_finite(a, n) || !all_finite(b, n)) return unknown;
  double *x = malloc((2 * n + RESAMPLES) * sizeof *x), *y = x ? x + n : NULL, *sampled = x ? x + 2 * n : NULL;
  if (!x) return unknown;
  memcpy(x, a, n * sizeof *x);
  memcpy(y, b, n * sizeof *y);
  stats_interval r = {of(x, y, n), NAN, NAN};
  attn_rng rng;
  attn_rng_seed(&rng, seed, n);
  for (int i = 0; n >= STATS_LEAST && i < RESAMPLES; i++) {
    for (size_t k = 0; k < n; k++) {
      const size_t pick = (size_t)attn_rng_below(&rng, n);
      x[k] = a[pick], y[k] = b[pick];
    }
    sampled[i] = of(x, y, n);
  }
  if (n >= STATS_LEAST) r = percentiles(r.value, sampled);
  free(x);
  return r;
}

stats_interval stats_ratio_bootstrap(const double *a, const double *b, size_t n, uint64_t seed) {
  return bootstrap_pairs(a, b, n, ratio_of_medians, seed);
}
stats_interval stats_difference_bootstrap(const double *a, const double *b, size_t n, uint64_t seed) {
  return bootstrap_pairs(a, b, n, difference_of_means, seed);
}
stats_interval stats_retention_bootstrap(const double *a, const double *b, size_t n, uint64_t seed) {
  return bootstrap_pairs(a, b, n, ratio_of_means, seed);
}

stats_interval stats_mean_bootstrap(const double *x, size_t n, uint64_t seed) {
  if (n == 0 || !all_finite(x, n)) return unknown;
  double *sampled = malloc(RESAMPLES * sizeof *sampled);
  if (!sampled) return unknown;
  stats_interval r = {mean(x, n), NAN, NAN};
  attn_rng rng;
  attn_rng_seed(&rng, seed, n);
  for (int i = 0; n >= STATS_LEAST && i < RESAMPLES; i++) {
    double sum = 0.0;
    for (size_t k = 0; k < n; k++) sum += x[attn_rng_below(&rng, n)];
    sampled[i] = sum / (double)n;
  }
  if (n >= STATS_LEAST) r = percentiles(r.value, sampled);
  free(sampled);
  return r;
}

static size_t count_all(stats_runs r) {
  size_t n = 0;
  for (size_t i = 0; i < r.runs; i++) n += r.size[i];
  return n;
}

/* Draws whole runs of r, and rounds within each: places in r.x into pick; returns how many (at most runs times the largest). */
static size_t draw_runs(stats_runs r, attn_rng *rng, size_t *pick) {
  size_t n = 0;
  for (size_t i = 0; i < r.runs; i++) {
    const size_t run = (size_t)attn_rng_below(rng, r.runs);
    size_t first = 0;
    for (size_t k = 0; k < run; k++) first += r.size[k];
    for (size_t k = 0; k < r.size[run]; k++) pick[n++] = first + (size_t)attn_rng_below(rng, r.size[run]);
  }
  return n;
}

static size_t most_drawn(stats_runs r) {
  size_t most = 0;
  for (size_t i = 0; i < r.runs; i++)
    if (r.size[i] > most) most = r.size[i];
  return most * r.runs;
}

/* The median of what was drawn, through `room`. */
static double median_drawn(const double *x, const size_t *pick, size_t n, double *room) {
  for (size_t i = 0; i < n; i++) room[i] = x[pick[i]];
  return stats_median(room, n);
}

typedef struct workspace { /* of resamples; one block */
  double *room, *sampled;  /* [most], [RESAMPLES] */
  size_t *pick;            /* [most] */
} workspace;

static int open_workspace(workspace *w, size_t most) {
  w->sampled = malloc((RESAMPLES + most) * sizeof *w->sampled + most * sizeof *w->pick);
  if (!w->sampled) return 0;
  w->room = w->sampled + RESAMPLES;
  w->pick = (size_t *)(w->room + most);
  return 1;
}

static double median_of_all(stats_runs r, workspace *w) {
  const size_t n = count_all(r);
  memcpy(w->room, r.x, n * sizeof *w->room);
  return stats_median(w->room, n);
}

stats_interval stats_ratio_of_runs(stats_runs a, stats_runs b, uint64_t seed) {
  const size_t na = count_all(a), nb = count_all(b), most_a = most_drawn(a), most_b = most_drawn(b);
  workspace w;
  if (na == 0 || nb == 0 || !all_finite(a.x, na) || !all_finite(b.x, nb) || !open_workspace(&w, most_a > most_b ? most_a : most_b)) return unknown;
  stats_interval r = {median_of_all(a, &w) / median_of_all(b, &w), NAN, NAN};
  const int enough = na >= STATS_LEAST && nb >= STATS_LEAST;
  attn_rng rng;
  attn_rng_seed(&rng, seed, na + nb);
  for (int i = 0; enough && i < RESAMPLES; i++) {
    const double above = median_drawn(a.x, w.pick, draw_runs(a, &rng, w.pick), w.room);
    w.sampled[i] = above / median_drawn(b.x, w.pick, draw_runs(b, &rng, w.pick), w.room);
  }
  if (enough) r = percentiles(r.value, w.sampled);
  free(w.sampled);
  return r;
}

stats_interval stats_ratio_of_paired_runs(const double *a, const double *b, const size_t *size, size_t runs, uint64_t seed) {
  const stats_runs above = {a, size, runs}, below = {b, size, runs};
  const size_t n = count_all(above);
  workspace w;
  if (n == 0 || !all_finite(a, n) || !all_finite(b, n) || !open_workspace(&w, most_drawn(above))) return unknown;
  stats_interval r = {median_of_all(above, &w) / median_of_all(below, &w), NAN, NAN};
  attn_rng rng;
  attn_rng_seed(&rng, seed, n);
  for (int i = 0; n >= STATS_LEAST && i < RESAMPLES; i++) {
    const size_t drawn = draw_runs(above, &rng, w.pick);
    w.sampled[i] = median_drawn(a, w.pick, drawn, w.room) / median_drawn(b, w.pick, drawn, w.room);
  }
  if (n >= STATS_LEAST) r = percentiles(r.value, w.sampled);
  free(w.sampled);
  return r;
}

stats_interval stats_median_of_runs(stats_runs r, uint64_t seed) {
  const size_t n = count_all(r);
  workspace w;
  if (n == 0 || !all_finite(r.x, n) || !open_workspace(&w, most_drawn(r))) return unknown;
  stats_interval m = {median_of_all(r, &w), NAN, NAN};
  attn_rng rng;
  attn_rng_seed(&rng, seed, n);
  for (int i = 0; n >= STATS_LEAST && i < RESAMPLES; i++) w.sampled[i] = median_drawn(r.x, w.pick, draw_runs(r, &rng, w.pick), w.room);
  if (n >= STATS_LEAST) m = percentiles(m.value, w.sampled);
  free(w.sampled);
  return m;
}

/* ---- Times that nothing hindered. */

static const double UNHINDERED = 0.1; /* quantile */

static double low_quantile(double *x, size_t n) {
  if (n > 1) qsort(x, n, sizeof *x, ascending);
  return stats_quantile(x, n, UNHINDERED);
}

/* The time of each run into out [runs]; 0 when memory is out, a run is empty or a sample not finite. */
static int times_of_runs(stats_runs r, double *out) {
  const size_t n = count_all(r);
  double *copy = n && all_finite(r.x, n) ? malloc(n * sizeof *copy) : NULL, *x = copy;
  int whole = copy != NULL;
  if (copy) memcpy(copy, r.x, n * sizeof *copy);
  for (size_t i = 0; copy && i < r.runs; x += r.size[i++]) {
    out[i] = low_quantile(x, r.size[i]);
    whole &= r.size[i] > 0;
  }
  free(copy);
  return whole;
}

/* low_quantile() of a resample of `sorted` [n], which need not be sorted: how often each was drawn, in `drawn` [n], says its ranks. */
static double resampled_time(const double *sorted, size_t n, attn_rng *rng, size_t *drawn) {
  const double at = UNHINDERED * (double)(n - 1), low = floor(at);
  const size_t rank = (size_t)low;
  memset(drawn, 0, n * sizeof *drawn);
  for (size_t i = 0; i < n; i++) drawn[attn_rng_below(rng, n)]++;
  size_t first = 0, below = drawn[0]; /* below: drawn up to first */
  while (below <= rank) below += drawn[++first];
  size_t next = first;
  if (n > 1 && below <= rank + 1)
    while (!drawn[++next]) {}
  return sorted[first] + (at - low) * (sorted[next] - sorted[first]);
}

stats_interval stats_unhindered_ratio(stats_runs a, stats_runs b, uint64_t seed) {
  const size_t most = a.runs > b.runs ? a.runs : b.runs;
  double *times = malloc((a.runs + b.runs + RESAMPLES) * sizeof *times + most * sizeof(size_t));
  double *below = times ? times + a.runs : NULL, *sampled = times ? below + b.runs : NULL;
  size_t *drawn = (size_t *)(times ? sampled + RESAMPLES : NULL);
  if (!times || !times_of_runs(a, times) || !times_of_runs(b, below)) {
    free(times);
    return unknown;
  }
  stats_interval r = {low_quantile(times, a.runs) / low_quantile(below, b.runs), NAN, NAN};
  const int enough = a.runs >= STATS_LEAST && b.runs >= STATS_LEAST;
  attn_rng rng;
  attn_rng_seed(&rng, seed, a.runs + b.runs);
  for (int i = 0; enough && i < RESAMPLES; i++) {
    const double above = resampled_time(times, a.runs, &rng, drawn);
    sampled[i] = above / resampled_time(below, b.runs, &rng, drawn);
  }
  if (enough) r = percentiles(r.value, sampled);
  free(times);
  return r;
}

stats_interval stats_ratio_of_times(stats_runs a, stats_runs b, uint64_t seed) {
  return a.runs >= STATS_LEAST && b.runs >= STATS_LEAST ? stats_unhindered_ratio(a, b, seed) : stats_ratio_of_runs(a, b, seed);
}

double stats_time_of_runs(stats_runs r, int many) {
  const size_t n = count_all(r);
  double *x = n ? malloc(n * sizeof *x) : NULL, t = NAN; /* runs are not more than samples, or a run is empty */
  if (x && many && r.runs <= n) t = times_of_runs(r, x) ? low_quantile(x, r.runs) : (double)NAN;
  else if (x && !many && all_finite(r.x, n)) t = stats_median(memcpy(x, r.x, n * sizeof *x), n);
  free(x);
  return t;
}

stats_interval stats_paired_ratio(int64_t both, int64_t only_a, int64_t only_b) {
  const double a = (double)(both + only_a), b = (double)(both + only_b);
  if (!(a > 0.0) || !(b > 0.0)) return (stats_interval){NAN, NAN, NAN};
  const double ratio = a / b, width = 1.959963984540054 * sqrt((double)(only_a + only_b) / (a * b));
  return (stats_interval){ratio, ratio * exp(-width), ratio * exp(width)};
}
