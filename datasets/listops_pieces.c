/* listops_pieces.c - short ListOps: one subexpression of each lra/listops example, for the first stage of a training.
 *
 * In a full expression the operator that matters most is one token of a thousand, and a model needs long to notice it. In a
 * piece it is one of a hundred. Every subexpression is an expression with a value of its own, so nothing needs to be made:
 * of each example the largest one of at most 200 tokens is taken, with its own value as label. Splits stay apart. */
#include <stdlib.h>
#include <string.h>

#include "datasets/lra_listops.h"
#include "datasets/task.h"

enum { SHORTEST = 20, LONGEST = 200 };

extern const task task_lra_listops;

/* The largest subexpression of [0, n) with at most LONGEST tokens: its start and length, 0 when there is none. */
static int64_t largest_piece(const int32_t *id, int64_t n, int64_t *start) {
  int64_t open[LISTOPS_MAX_DEPTH + 2], depth = 0, best = 0;
  for (int64_t i = 0; i < n; i++) {
    if (id[i] >= LISTOPS_MIN && id[i] <= LISTOPS_SM) {
      if (depth == LISTOPS_MAX_DEPTH + 2) return 0; /* deeper than the generator goes */
      open[depth++] = i;
    } else if (id[i] == LISTOPS_CLOSE && depth > 0) {
      const int64_t length = i + 1 - open[--depth];
      if (length <= LONGEST && length > best) best = length, *start = open[depth];
    }
  }
  return best >= SHORTEST ? best : 0;
}

/* Replaces the examples of d by their pieces, in place: a piece is never longer than what came before it. */
static void cut(task_data *d) {
  int64_t count = 0, at = 0;
  for (int64_t i = 0; i < d->count; i++) {
    const int32_t *ids = task_ids(d, i, 0);
    int64_t start = 0;
    const int64_t length = largest_piece(ids, task_len(d, i, 0), &start);
    const int value = length ? listops_value(ids + start, length) : -1;
    if (value < 0) continue; /* no piece, or the example was not well formed */
    memmove(d->tokens + at, ids + start, (size_t)length * sizeof *d->tokens);
    d->start[count] = at;
    d->label[count++] = value;
    at += length;
  }
  d->start[count] = at;
  d->count = count;
}

static int load(const char *root, task_split split, task_data *out, int *absent, ice_err *e) {
  ICE_TRY(task_lra_listops.load(root, split, out, absent, e));
  cut(out);
  if (out->count > 0) return ICE_OK;
  task_data_free(out);
  return ice_fail(e, ICE_DATA, "%s: no expression of %d..%d tokens in any example", root, SHORTEST, LONGEST);
}

static int value_of(const task_data *d, int64_t e) { return listops_value(task_ids(d, e, 0), task_len(d, e, 0)); }

const task task_listops_pieces = {
    .name = "synth/listops-pieces",
    .doc = "subexpressions of 20 to 200 tokens of lra/listops; first stage of its training",
    .metric = "accuracy",
    .source = "it is cut from lra/listops: icebench data make lra/listops --seed 1",
    .vocab = 32,
    .positions = 2048,
    .classes = 10,
    .inputs = 1,
    .official_count = {96000, 2000, 2000},
    .load = load,
    .value = value_of,
};
