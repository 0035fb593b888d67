/* store_merge.h - the union of databases, so that work spread over machines comes together.
 *
 * A cell is the same cell wherever it ran: its key leaves the machine out. So a database has one row that counts for each
 * cell, and merging follows what a run would have done:
 *   - an attempt that is there already (by its digest) is not added again: merging twice changes nothing;
 *   - of two rows of which one knows the other as its predecessor, the later one counts;
 *   - a finished row (ok, unsupported, skipped; not in noise) counts against one that failed, and among failed ones the later start;
 *   - two finished rows that say different things are a conflict: which of them is the truth is the user's to say.
 * No attempt is ever lost: the row that does not count goes to the view `history`. */
#ifndef ICE_STORE_MERGE_H
#define ICE_STORE_MERGE_H

#include "harness/store.h"

typedef enum store_keep { /* what counts in a conflict */
  STORE_KEEP_NEITHER,     /* refuse */
  STORE_KEEP_OUT,         /* what is in the target, or in an earlier source */
  STORE_KEEP_NEWEST       /* what started last */
} store_keep;

typedef struct store_merged {
  int64_t added, known; /* attempts of the source */
  int64_t retired;      /* rows of the target that no longer count */
} store_merged;

/** Adds every attempt, and every noise floor, of the sources in[n] (open for reading) to `out` (open for writing), in one transaction: all of it or
 *  nothing. done[n] tells what came from each. ICE_USAGE for a conflict, with both origins; ICE_DB for a row that was
 *  edited after it was stored, and for every fault of a file. */
int store_merge(store *out, store *const *in, int n, store_keep keep, store_merged *done, ice_err *e);

#endif
