/* items.h - how each example of a cell was marked, and two cells beside each other, example by example. */
#ifndef ICE_ITEMS_H
#define ICE_ITEMS_H

#include <stddef.h>
#include <stdint.h>

#include "harness/stats_tests.h"
#include "kernels/core/err.h"

typedef struct items_mark { /* 1 or 0, or something between */
  int64_t item;
  double mark;
} items_mark;

typedef struct items { /* of one cell, in the order of the items */
  items_mark *mark;    /* [n], owned */
  size_t n;
} items;

/** Two columns, `predictions` and `marks`, of a SELECT whose rows have the id of their attempt in the expression `id`. */
#define ITEMS_COLUMNS(id)                                                                                \
  "(SELECT hex(data) FROM prediction ip WHERE ip.cell_id = " id ") AS predictions,"                      \
  " (SELECT group_concat(item || ' ' || mark, ' ') FROM answer ia WHERE ia.cell_id = " id " AND mark IS NOT NULL) AS marks"

/** Reads those columns: predictions (classes: hit or miss) where there are any, else marks (words); either may be NULL, and then there
 *  are no items. ICE_INTERNAL when out of memory; free it in any case. */
int items_read(const char *predictions, const char *marks, items *out, ice_err *e);
void items_free(items *it);

typedef struct items_common { /* the items that two cells share */
  double *a, *b;       /* [n] marks, owned (b lies behind a) */
  size_t n;
  stats_pairs count;   /* of the shared items, on how many each has the higher mark */
  int whole;           /* 1: neither cell has other items */
  int hits;            /* 1: all marks are 0 or 1 */
} items_common;

/** ICE_INTERNAL when out of memory; free it in any case. */
int items_match(const items *a, const items *b, items_common *out, ice_err *e);
void items_common_free(items_common *c);

#endif
