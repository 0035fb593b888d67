/* measure.h - the one place where methods are timed against each other.
 *
 * Entrants run interleaved, round by round, on the same inputs, so that drift of the machine (heat, neighbours, clock)
 * meets all of them alike; a speed-up is a ratio over paired rounds. Who comes first rotates, and every full turn walks
 * the circle the other way, so that neither the first place nor one predecessor is always the same entrant's.
 *
 * An entrant times itself (the clock belongs next to the work) and hands the nanoseconds over. It may have several
 * variants that share a part of its work, such as a built index: one column of samples each. */
#ifndef ICE_MEASURE_H
#define ICE_MEASURE_H

#include <signal.h>
#include <stdint.h>

#include "harness/stats.h"
#include "kernels/core/err.h"

typedef enum measure_phase {
  MEASURE_ATTENTION, /* build + query */
  MEASURE_BUILD,
  MEASURE_QUERY,
  MEASURE_MODEL, /* the whole forward pass */
  MEASURE_PHASES
} measure_phase;

/** Name of a phase in the database: "attention", "build", "query", "model". */
const char *measure_phase_name(measure_phase p);

typedef struct measure_times {
  int64_t ns[MEASURE_PHASES]; /* -1: not measured */
} measure_times;

typedef struct measure_entrant {
  int variants; /* >= 1 */
  /** One pass over the inputs for each variant, starting with variant `first`; out [variants]. A failure takes the
   *  entrant out of the measurement and leaves the others in. */
  int (*pass)(void *ctx, int first, measure_times *out, ice_err *e);
  void *ctx;
  int rc; /* out: ICE_OK, or why it left */
  ice_err err;
} measure_entrant;

/** Until when: `rounds` rounds, and with precision > 0 more, up to max_rounds or max_seconds, until every ratio of the first column
 *  to the `base` columns has a 95 % interval narrower than precision (relative to the ratio; of the time itself, where
 *  there is no base). One looks at 25 % more rounds each time, since every look is a chance to stop by luck. */
typedef struct measure_plan {
  int rounds, warmup;                /* warm-up passes of each entrant, not stored               */
  double precision;                  /* 0: stop after `rounds`                                   */
  int max_rounds;                    /* with precision; not below rounds                         */
  int base[2];                       /* columns; 0: none                                         */
  double slowdown;                   /* calibration: the first entrant is made to take this much longer (0.05: 5 %) */
  void (*around)(void *ctx, int begins); /* may be NULL; called around each round's pass of the first entrant */
  void *around_ctx;
  double max_seconds;                /* no round starts that would end later; the first always runs */
  uint64_t seed;                     /* of the order                                             */
  const volatile sig_atomic_t *stop; /* may be NULL; 1 ends the measurement after this round     */
  int64_t (*now)(void);              /* clock of the budget; NULL: attn_now_ns                   */
} measure_plan;

typedef struct measure_result {
  int columns, rounds; /* columns: variants of all entrants, in order; rounds completed */
  int max_rounds;
  measure_times *times; /* [columns, max_rounds], owned */
  uint8_t *ok;          /* [columns], owned: 0 where the entrant left */
} measure_result;

/** Runs warm-up and rounds. ICE_INTERNAL only when memory is out; entrants report for themselves. */
int measure_run(measure_entrant *entrant, int n, const measure_plan *plan, measure_result *out, ice_err *e);
/** The timed pass of the first entrant, under a name that callgrind can find (harness/twin.h). */
void measure_twin_pass(measure_entrant *en, int first, measure_times *out);
void measure_free(measure_result *r);
/** Place of entrant `i` among n in round `round` as measure_run orders them: which entrant runs i-th. */
int measure_order(int n, int round, uint64_t seed, int i);

static inline const measure_times *measure_sample(const measure_result *r, int column, int round) {
  return r->times + (int64_t)column * r->max_rounds + round;
}
/** Median over rounds with its interval; all NAN when not measured. */
stats_interval measure_median(const measure_result *r, int column, measure_phase p);
/** Attention time of column `base` divided by that of `column`, paired by rounds; exactly 1 for a column against
 *  itself, all NAN when either (or base < 0) was not measured. */
stats_interval measure_speedup(const measure_result *r, int base, int column, uint64_t seed);

#endif
