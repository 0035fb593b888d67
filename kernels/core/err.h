/* err.h - errors outside the kernels: one exit code of the program, one line of text. */
#ifndef ICE_ERR_H
#define ICE_ERR_H

#include <stdarg.h>

/** Exit codes of the program; functions that can fail return one of these (0 = fine). */
enum {
  ICE_OK = 0,
  ICE_INTERNAL = 1,      /* internal or system error                              */
  ICE_USAGE = 2,         /* usage or configuration error; nothing was run         */
  ICE_CELLS_FAILED = 3,  /* some cells failed, the rest is stored                 */
  ICE_SLOWER = 4,        /* slower or bigger than the gate allows                 */
  ICE_LESS_ACCURATE = 5, /* less accurate than the gate allows                    */
  ICE_NO_VERDICT = 6,    /* too noisy, or nothing to compare                      */
  ICE_DATA = 7,          /* data missing, wrong checksum, not sane                */
  ICE_DB = 8             /* database locked, newer or corrupt                     */
};

typedef struct ice_err {
  int code;
  char text[1024]; /* one line, no newline: place, value, what is allowed */
} ice_err;

/** Fills *e (may be NULL) and returns code, so that `return ice_fail(e, ICE_DATA, ...)` reads as one step.
 *  Control characters and bytes that are no UTF-8 become '?', so that hostile names stay on one printable line. */
int ice_fail(ice_err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int ice_vfail(ice_err *e, int code, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));

/** Bytes of the printable UTF-8 character at s (1..4); 0 when it is a control character, no UTF-8, or the end. */
int ice_printable(const char *s);

/** Forwards a failure: `ICE_TRY(npy_read(path, &t, e));` */
#define ICE_TRY(expr)                                                                                                  \
  do {                                                                                                                 \
    int ice_try_rc = (expr);                                                                                           \
    if (ice_try_rc != ICE_OK) return ice_try_rc;                                                                       \
  } while (0)

#endif
