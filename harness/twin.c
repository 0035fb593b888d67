/* twin.c - see twin.h */
#include "harness/twin.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *find_valgrind(void) {
  static const char *const places[] = {"/usr/bin/valgrind", "/usr/local/bin/valgrind"};
  for (int i = 0; i < 2; i++)
    if (access(places[i], X_OK) == 0) return places[i];
  return NULL;
}

double twin_read(const char *log) {
  const char *at = strstr(log, "Collected : ");
  char *end;
  if (!at) return NAN;
  at += strlen("Collected : ");
  const double n = strtod(at, &end);
  return end > at && n > 0.0 ? n : (double)NAN;
}

static double read_log(const char *path) {
  static char text[1 << 16];
  FILE *f = fopen(path, "re");
  const size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
  if (f) (void)fclose(f);
  text[n] = '\0';
  return twin_read(text);
}

double twin_count(const char *self, const cell_job *job, const run_limits *limits, const volatile sig_atomic_t *stop, ice_err *e) {
  const char *valgrind = find_valgrind();
  char log[] = "/tmp/icebench-twin-XXXXXX", log_option[sizeof log + 16];
  double n = NAN;
  if (!valgrind) return (void)ice_fail(e, ICE_INTERNAL, "valgrind is not installed: apt-get install valgrind"), n;
  cell_job twin = *job;
  twin.threads = twin.rounds = 1;
  twin.warmup = twin.quality = 0;
  twin.limit_gib = 0.0;
  twin.examples = job->timed; /* their accuracy is not kept */
  twin.care = (cell_care){.precision = 0.0};
  char *text = cell_job_print(&twin);
  const int fd = mkstemp(log);
  if (!text || fd < 0) {
    free(text);
    return (void)ice_fail(e, ICE_INTERNAL, "the twin cannot be started: %s", strerror(errno)), n;
  }
  (void)close(fd);
  (void)snprintf(log_option, sizeof log_option, "--log-file=%s", log);
  const char *const argv[] = {valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=measure_twin_pass*", log_option, self, "__cell", NULL};
  run_outcome o = {0};
  if (run_child(argv, text, limits, stop, 0, &o, e) == ICE_OK) {
    n = o.end == RUN_RESULT ? read_log(log) : (double)NAN;
    if (!isfinite(n)) (void)ice_fail(e, ICE_INTERNAL, "%s", o.end == RUN_RESULT ? "callgrind counted nothing" : o.why);
  }
  free(o.output);
  free(text);
  (void)unlink(log);
  return n;
}
