/* hygiene.c - see hygiene.h */
#include "harness/hygiene.h"

#include <linux/perf_event.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness/stats.h"
#include "kernels/core/clock.h"

/* ---- Sentinel. */

enum { SIDE = 96, TRIES = 9, REPEATS = 2 };

/* A small matrix product, plain C: the same work in every build of the program, whatever kernels it has. */
static float work(const float *a, const float *b, float *c) {
  memset(c, 0, SIDE * SIDE * sizeof *c);
  for (int r = 0; r < REPEATS; r++)
    for (int i = 0; i < SIDE; i++)
      for (int k = 0; k < SIDE; k++)
        for (int j = 0; j < SIDE; j++) c[i * SIDE + j] += a[i * SIDE + k] * b[k * SIDE + j];
  return c[SIDE + 1];
}

double hygiene_sentinel(void) {
  static float a[SIDE * SIDE], b[SIDE * SIDE], c[SIDE * SIDE];
  static volatile float sink;
  double ns[TRIES];
  for (int i = 0; i < SIDE * SIDE; i++) a[i] = (float)(i % 7), b[i] = (float)(i % 5);
  sink = work(a, b, c);
  for (int t = 0; t < TRIES; t++) {
    const int64_t start = attn_now_ns();
    sink = work(a, b, c);
    ns[t] = (double)(attn_now_ns() - start);
  }
  (void)sink;
  return stats_median(ns, TRIES);
}

/* ---- Readings. */

/* First number in a file; NAN when there is none. */
static double number_in(const char *path) {
  double x = NAN;
  FILE *f = fopen(path, "re");
  if (f && fscanf(f, "%lf", &x) != 1) x = NAN;
  if (f) (void)fclose(f);
  return x;
}

/* Sum (and count) of the numbers behind a name at the beginning of the lines of a file; column: which of them. */
static double sum_of_lines(const char *path, const char *name, int column, int *count) {
  char line[512];
  double sum = NAN;
  FILE *f = fopen(path, "re");
  while (f && fgets(line, sizeof line, f)) {
    if (strncmp(line, name, strlen(name))) continue;
    char *at = line + strlen(name), *end = at;
    double x = NAN;
    at += strspn(at, " \t:");
    for (int c = 0; c <= column; c++, at = end) x = strtod(at, &end);
    if (end == at && !isfinite(x)) continue;
    sum = isfinite(sum) ? sum + x : x;
    if (count) ++*count;
  }
  if (f) (void)fclose(f);
  return sum;
}

/* Sum over cores of a number below /sys/devices/system/cpu/cpuN/. */
static double sum_of_cores(const char *file, int *count) {
  double sum = NAN;
  const long cores = sysconf(_SC_NPROCESSORS_CONF);
  for (long i = 0; i < cores && i < 4096; i++) {
    char path[160];
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%ld/%s", i, file);
    const double x = number_in(path);
    if (!isfinite(x)) continue;
    sum = isfinite(sum) ? sum + x : x;
    if (count) ++*count;
  }
  return sum;
}

static double clock_rate(void) {
  int cores = 0;
  const double khz = sum_of_cores("cpufreq/scaling_cur_freq", &cores);
  if (cores) return khz / cores / 1e3;
  const double mhz = sum_of_lines("/proc/cpuinfo", "cpu MHz", 0, &cores);
  return cores ? mhz / cores : (double)NAN;
}

static void read_machine(hygiene_reading *r) {
  struct rusage u;
  *r = (hygiene_reading){.sentinel_ns = hygiene_sentinel(),
                         .load = number_in("/proc/loadavg"),
                         .mhz = clock_rate(),
                         .throttles = sum_of_cores("thermal_throttle/core_throttle_count", NULL),
                         .stolen_ms = sum_of_lines("/proc/stat", "cpu ", 7, NULL) * 1e3 / (double)sysconf(_SC_CLK_TCK),
                         .preemptions = getrusage(RUSAGE_SELF, &u) == 0 ? (double)u.ru_nivcsw : (double)NAN};
  r->swapped_pages = sum_of_lines("/proc/vmstat", "pswpin", 0, NULL) + sum_of_lines("/proc/vmstat", "pswpout", 0, NULL);
}

/* ---- Counters. */

static const struct {
  const char *name;
  uint64_t config;
} counters[HYGIENE_COUNTERS] = {{"instructions", PERF_COUNT_HW_INSTRUCTIONS},
                                {"cycles", PERF_COUNT_HW_CPU_CYCLES},
                                {"cache_misses", PERF_COUNT_HW_CACHE_MISSES},
                                {"branch_misses", PERF_COUNT_HW_BRANCH_MISSES}};

static int open_counter(uint64_t config) {
  struct perf_event_attr a = {.type = PERF_TYPE_HARDWARE,
                              .size = sizeof a,
                              .config = config,
                              .disabled = 1,
                              .inherit = 1, /* threads that start later */
                              .exclude_kernel = 1,
                              .exclude_hv = 1,
                              .read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING};
  return (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

/* Count so far, scaled up where the counter had to be shared. */
static double read_counter(int fd) {
  uint64_t v[3]; /* count, time enabled, time running */
  if (fd < 0 || read(fd, v, sizeof v) != (ssize_t)sizeof v || v[2] == 0) return NAN;
  return (double)v[0] * ((double)v[1] / (double)v[2]);
}

void hygiene_around(void *ctx, int begins) {
  hygiene *h = ctx;
  for (int i = 0; i < HYGIENE_COUNTERS; i++)
    if (h->counter[i] >= 0) (void)ioctl(h->counter[i], begins ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_DISABLE, 0);
  h->passes += !begins;
}

/* ---- Affinity. */

int hygiene_choose_cores(const int *core_id, int n, int threads, int *out) {
  char taken[CPU_SETSIZE] = {0};
  int chosen = 0;
  for (int second = 0; second < 2; second++) /* first one of each physical core, then what is left */
    for (int i = n - 1; i >= 0 && chosen < threads; i--) {
      int used = taken[i];
      for (int k = 0; k < chosen && !second; k++) used |= core_id[out[k]] == core_id[i];
      if (used) continue;
      taken[i] = 1;
      out[chosen++] = i;
    }
  return chosen;
}

static void pin(int threads) {
  cpu_set_t allowed, wanted;
  int place[CPU_SETSIZE], core[CPU_SETSIZE], chosen[CPU_SETSIZE], n = 0;
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
  for (int i = 0; i < CPU_SETSIZE; i++) {
    if (!CPU_ISSET((size_t)i, &allowed)) continue;
    char path[120];
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/core_id", i);
    const double id = number_in(path);
    place[n] = i;
    core[n++] = isfinite(id) ? (int)id : -1 - i; /* unknown: a core of its own */
  }
  CPU_ZERO(&wanted);
  const int count = hygiene_choose_cores(core, n, threads, chosen);
  for (int i = 0; i < count; i++) CPU_SET((size_t)place[chosen[i]], &wanted);
  if (count) (void)sched_setaffinity(0, sizeof wanted, &wanted);
}

/* ---- All of it. */

void hygiene_begin(hygiene *h, int affinity) {
  *h = (hygiene){.passes = 0};
  if (affinity > 0) pin(affinity);
  for (int i = 0; i < HYGIENE_COUNTERS; i++) h->counter[i] = open_counter(counters[i].config);
  read_machine(&h->before);
}

void hygiene_end(hygiene *h, store_metric *out) {
  int i = 0;
  const hygiene_reading *b = &h->before, *a = &h->after;
  read_machine(&h->after);
  const struct {
    const char *name;
    double value;
  } reading[HYGIENE_METRICS - HYGIENE_COUNTERS] = {{"sentinel_before_ns", b->sentinel_ns}, {"sentinel_after_ns", a->sentinel_ns},
                                                   {"load_before", b->load},               {"load_after", a->load},
                                                   {"mhz_before", b->mhz},                 {"mhz_after", a->mhz},
                                                   {"throttles", a->throttles - b->throttles}, {"swapped_pages", a->swapped_pages - b->swapped_pages},
                                                   {"stolen_ms", a->stolen_ms - b->stolen_ms}, {"preemptions", a->preemptions - b->preemptions}};
  for (; i < HYGIENE_METRICS - HYGIENE_COUNTERS; i++) out[i] = (store_metric){reading[i].name, reading[i].value, NAN, NAN};
  for (int k = 0; k < HYGIENE_COUNTERS; k++, i++) {
    out[i] = (store_metric){counters[k].name, h->passes ? read_counter(h->counter[k]) / h->passes : (double)NAN, NAN, NAN};
    if (h->counter[k] >= 0) (void)close(h->counter[k]);
  }
}

static double value_of(const store_metric *metric, int n, const char *name) {
  for (int i = 0; i < n; i++)
    if (!strcmp(metric[i].name, name)) return metric[i].value;
  return NAN;
}

int hygiene_noise(const store_metric *metric, int n, double limit, char *out, size_t size) {
  const double before = value_of(metric, n, "sentinel_before_ns"), after = value_of(metric, n, "sentinel_after_ns");
  const double throttles = value_of(metric, n, "throttles"), swapped = value_of(metric, n, "swapped_pages");
  out[0] = '\0';
  if (fmax(before / after, after / before) > 1.0 + limit)
    (void)snprintf(out, size, "the sentinel took %.3g us before and %.3g us after, allowed %g %% apart", before * 1e-3, after * 1e-3, 100.0 * limit);
  else if (throttles > 0.0) (void)snprintf(out, size, "the processor throttled %.0f times", throttles);
  else if (swapped > 0.0) (void)snprintf(out, size, "the machine swapped %.0f pages", swapped);
  return out[0] != '\0';
}
