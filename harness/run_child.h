/* run_child.h - one job in a child process: fed, watched, limited, and always collected. */
#ifndef ICE_RUN_CHILD_H
#define ICE_RUN_CHILD_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/core/err.h"

typedef enum run_end {
  RUN_RESULT,     /* it left with exit code 0 and wrote something       */
  RUN_EXIT,       /* it left otherwise                                  */
  RUN_SIGNAL,     /* a signal ended it                                  */
  RUN_TIMEOUT,    /* we killed it: time                                 */
  RUN_OOM,        /* we killed it, or the kernel did: memory            */
  RUN_INTERRUPTED /* we killed it: *stop                                */
} run_end;

typedef struct run_limits {
  double seconds, gib; /* wall clock, resident set; 0: none */
  size_t result_bytes; /* more output than this is a failure */
} run_limits;

typedef struct run_outcome {
  run_end end;
  char *output; /* standard output, to free(); NUL-terminated */
  size_t output_bytes;
  char why[1024]; /* one line, unless RUN_RESULT */
  int64_t wall_ms;
  double peak_gib; /* largest resident set */
} run_outcome;

/** Starts argv (argv[0] an absolute path) in a process group of its own, writes `input` to its standard input, and waits.
 *  The child dies with this process, whatever ends it. ICE_INTERNAL only when no child could be started; everything that
 *  happens to a child is an outcome. forward_errors: its error stream goes to ours as well. */
int run_child(const char *const *argv, const char *input, const run_limits *limits, const volatile sig_atomic_t *stop,
              int forward_errors, run_outcome *out, ice_err *e);

#endif
