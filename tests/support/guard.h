/* guard.h - float buffers whose neighbourhood is watched: an unmapped page on both sides turns a wild access into a
 * crash, and the slack between buffer and page holds canaries that show a wild write (and, being NaN, a wild read). */
#ifndef TEST_GUARD_H
#define TEST_GUARD_H

#include <stddef.h>
#include <stdint.h>

typedef struct guard {
  float *p;  /* n floats, all NaN at first */
  int64_t n; /* floats that may be touched */
  float *base;
  size_t slack, bytes; /* mapped floats before and after the buffer included; whole mapping */
} guard;

/** Floats that start `offset` floats after an unmapped page (end = 0), or end that many floats before one (end = 1).
 *  Exits with a message when there is no memory: a test cannot go on. Returns g->p. */
float *guard_new(guard *g, int64_t n, int offset, int end);
/** 1 when no float outside the buffer has changed. */
int guard_intact(const guard *g);
void guard_free(guard *g);

#endif
