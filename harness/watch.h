/* watch.h - work in a child process that says at every step whose code it runs, so that a crash or an endless loop can be
 * laid at somebody's door, and the work be done again without him.
 *
 * The child is this program again, with the same arguments; the two share one page of memory. In the child
 * watch_current() is that page, elsewhere NULL, and every function here takes NULL for "nobody watches". */
#ifndef ICE_WATCH_H
#define ICE_WATCH_H

#include <stdatomic.h>
#include <stdint.h>

#include "harness/cli.h"
#include "kernels/core/err.h"

enum { WATCH_MAX_BLAMED = 64, WATCH_SUBJECT = 256, WATCH_REASON = 512 };

typedef struct watch_blame {
  char subject[WATCH_SUBJECT], reason[WATCH_REASON];
} watch_blame;

typedef struct watch {
  uint64_t magic;
  char subject[WATCH_SUBJECT], step[64]; /* whose code runs, doing what; "" when it is ours */
  _Atomic int64_t since_ns;              /* when the step began; 0: no step */
  _Atomic int done;                      /* the work came to its end; rc and err tell how */
  int rc, job;                           /* job: which part of the work, the parent's choice */
  ice_err err;
  int n_blamed;
  watch_blame blamed[WATCH_MAX_BLAMED];
} watch;

/** The page of this process when it is a watched child, or NULL. */
watch *watch_current(void);
/** A step of somebody's code begins, or ends. */
void watch_begin(watch *w, const char *subject, const char *step);
void watch_end(watch *w);
/** Reason why a subject must not run again, or NULL. */
const char *watch_reason(const watch *w, const char *subject);
/** The child's last word, when its output is written: returns the code for main, which has nothing more to say. */
int watch_done(watch *w, int rc, ice_err *err);

/** Runs a verb's argv in a watched child until it comes to its end: a subject whose step crashes, or takes longer than `seconds`, is
 *  blamed, and the child starts anew. Returns the child's code and error; ICE_INTERNAL when a child cannot be started, or ends
 *  outside of any step. */
int watch_run(const cli_common *common, int argc, char **argv, int job, double seconds, ice_err *e);

#endif
