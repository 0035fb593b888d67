/* cmd_cell.c - the child's side of a cell: a job from standard input, its result on standard output. Not for people: `run`
 * starts it, and it is no part of the interface. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "harness/cell.h"
#include "harness/cli.h"

/* Everything up to the end of the input. */
static int read_all(char *text, size_t size, size_t *n, ice_err *e) {
  for (*n = 0; *n < size;) {
    ssize_t got = read(STDIN_FILENO, text + *n, size - *n);
    if (got == 0) return ICE_OK;
    if (got < 0 && errno != EINTR) return ice_fail(e, ICE_INTERNAL, "cell: cannot read the job: %s", strerror(errno));
    if (got > 0) *n += (size_t)got;
  }
  return ice_fail(e, ICE_USAGE, "cell: a job of more than %zu bytes", size - 1);
}

static int write_all(int fd, const char *text, ice_err *e) {
  for (size_t n = strlen(text); n > 0;) {
    ssize_t put = write(fd, text, n);
    if (put < 0 && errno != EINTR)
      return ice_fail(e, ICE_INTERNAL, "cell: cannot write the result: %s", strerror(errno));
    if (put > 0) text += put, n -= (size_t)put;
  }
  return ICE_OK;
}

/* The parent watches the resident set, which is what the limit means. One allocation far beyond it should fail here and
 * become a reason rather than fill the machine between two looks; the slack is for stacks and what BLAS reserves.
 * Sanitizers reserve terabytes of address space, so there only the parent watches. No core files: a crash is a row. */
static void set_limits(const cell_job *job) {
  const struct rlimit none = {0, 0};
  (void)setrlimit(RLIMIT_CORE, &none);
#ifndef ICE_SANITIZED
  if (job->limit_gib > 0.0) {
    const rlim_t bytes =
        (rlim_t)(job->limit_gib * 0x1p30) + ((rlim_t)256 << 20) + (rlim_t)job->threads * ((rlim_t)48 << 20);
    const struct rlimit data = {bytes, bytes};
    (void)setrlimit(RLIMIT_DATA, &data);
  }
#else
  (void)job;
#endif
}

/* Largest resident set so far. (getrusage would count what this process was before exec.) */
static int64_t resident_peak(void) {
  char line[128];
  long long kib = 0;
  FILE *f = fopen("/proc/self/status", "re");
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "VmHWM: %lld", &kib) == 1) break;
  if (f) (void)fclose(f);
  return kib * 1024;
}

/* One result, on a line of its own. */
static int write_result(int fd, cell_result *r, ice_err *e) {
  r->resident_bytes = resident_peak();
  char *json = cell_result_print(r);
  int rc = json ? write_all(fd, json, e) : ice_fail(e, ICE_INTERNAL, "cell: out of memory for the result");
  if (rc == ICE_OK) rc = write_all(fd, "\n", e);
  free(json);
  return rc;
}

static int cell_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  static char text[CELL_MAX_JOB + 1];
  size_t n;
  cell_job job;
  cell_result result[CELL_GROUP];
  (void)common, (void)argv;
  if (argc != 1) return ice_fail(e, ICE_USAGE, "__cell takes no arguments");
  /* The result has the output for itself: whatever a library prints goes to the error stream. */
  const int out = dup(STDOUT_FILENO);
  if (out < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) return ice_fail(e, ICE_INTERNAL, "cell: %s", strerror(errno));
  ICE_TRY(read_all(text, sizeof text, &n, e));
  int rc = cell_job_parse(text, n, &job, e);
  if (rc == ICE_OK) {
    set_limits(&job);
    cell_execute(&job, result);
    for (int i = 0; i <= job.n_also; i++) {
      if (rc == ICE_OK && result[i].status) rc = write_result(out, result + i, e);
      cell_result_free(result + i);
    }
  }
  cell_job_free(&job);
  (void)close(out);
  return rc;
}

const cli_verb cli_verb_cell = {.name = "__cell",
                                .summary = "one cell, for `run`",
                                .help =
                                    "usage: icebench __cell < JOB.json > RESULT.json\n\n"
                                    "One cell of an experiment in a process of its own. `icebench run` starts it; its\n"
                                    "input and output may change with every version.\n",
                                .main = cell_main};
