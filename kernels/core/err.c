/* err.c - see err.h */
#include "kernels/core/err.h"

#include <stdio.h>

int ice_printable(const char *text) {
  const unsigned char *s = (const unsigned char *)text;
  if (s[0] < 0x80) return s[0] >= 0x20 && s[0] != 0x7f;
  const int n = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
  for (int i = 1; i < n; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  const int c1_control = s[0] == 0xc2 && s[1] < 0xa0, surrogate = s[0] == 0xed && s[1] >= 0xa0;
  const int overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
  const int beyond = s[0] == 0xf4 && s[1] >= 0x90; /* U+10FFFF is the last */
  return c1_control || surrogate || overlong || beyond ? 0 : n;
}

int ice_vfail(ice_err *e, int code, const char *fmt, va_list ap) {
  if (!e) return code;
  e->code = code;
  (void)vsnprintf(e->text, sizeof e->text, fmt, ap);
  for (char *c = e->text; *c;) {
    const int n = ice_printable(c);
    if (n == 0) *c = '?';
    c += n > 0 ? n : 1;
  }
  return code;
}

int ice_fail(ice_err *e, int code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  (void)ice_vfail(e, code, fmt, ap);
  va_end(ap);
  return code;
}
