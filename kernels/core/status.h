/* status.h - how kernel code reports an error: a status and one line of text, kept per thread. */
#ifndef ATTN_STATUS_H
#define ATTN_STATUS_H

#include "kernels/attn.h"

/** Stores the text (for attn_last_error) and returns st. */
attn_status attn_fail(attn_status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Leaves the function with a status and a text when cond holds. */
#define ATTN_FAIL_IF(cond, st, ...)                                                                                    \
  do {                                                                                                                 \
    if (cond) return attn_fail((st), __VA_ARGS__);                                                                     \
  } while (0)

/** Forwards a status other than ATTN_OK. */
#define ATTN_TRY(expr)                                                                                                 \
  do {                                                                                                                 \
    attn_status attn_try_st = (expr);                                                                                  \
    if (attn_try_st != ATTN_OK) return attn_try_st;                                                                    \
  } while (0)

#endif
