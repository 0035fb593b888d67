/* err.c - see err.h */
#include "kernels/core/err.h"

#include <stdio.h>

int ice_vfail(ice_err *e, int code, const char *fmt, va_list ap) {
  if (!e) return code;
  e->code = code;
  (void)vsnprintf(e->text, sizeof e->text, fmt, ap);
  for (char *c = e->text; *c; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
  return code;
}

int ice_fail(ice_err *e, int code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  (void)ice_vfail(e, code, fmt, ap);
  va_end(ap);
  return code;
}
