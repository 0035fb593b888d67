/* dump.h - what verb `dump` runs: some examples of a cell, one after the other, through its model with its method. */
#ifndef ICE_DUMP_H
#define ICE_DUMP_H

#include "harness/cell.h"

typedef struct dump_cell { /* one cell, and which of its examples */
  const cell_job *job;
  const attn_method *method;
  const void *params;
  int64_t examples, min_tokens;
} dump_cell;

typedef struct dump_source { /* zeroed: closed */
  int64_t *item, n; /* [n] items of the split, ascending; owned */
  int layers;
  /** Runs item i through the model. */
  int (*pass)(void *state, int64_t i, void (*observer)(void *ctx, const encoder_call *call), void *ctx, ice_err *e);
  void (*close)(void *state);
  void *state;
} dump_source;

/** Opens the cell's data and model, and draws from its examples of at least min_tokens tokens. ICE_DATA when there is none, or when
 *  model and data do not fit. dump_close() it in any case. */
int dump_open_classes(dump_source *s, const dump_cell *c, ice_err *e);
int dump_open_words(dump_source *s, const dump_cell *c, ice_err *e);
void dump_close(dump_source *s);

/** Draws the cell's number of examples from fit [n], in place, by its seed; what is left are the source's items. `origin` tells what has
 *  none that fit. */
int dump_draw(dump_source *s, const dump_cell *c, int64_t *fit, int64_t n, const char *origin, ice_err *e);

#endif
