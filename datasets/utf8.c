/* utf8.c - see utf8.h. Classes come from the C library's own C.UTF-8, whatever the user's locale is. */
#include "datasets/utf8.h"

#include <locale.h>
#include <pthread.h>
#include <wctype.h>

uint32_t utf8_next(const char **s) {
  static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
  const unsigned char *p = (const unsigned char *)*s;
  const int n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
  if (!p[0]) return 0;
  uint32_t c = n == 1 ? p[0] : n ? p[0] & (0xffu >> (n + 1)) : 0;
  for (int i = 1; i < n; i++) {
    if ((p[i] & 0xc0) != 0x80) return ++*s, 0xfffd;
    c = c << 6 | (p[i] & 0x3f);
  }
  if (!n || c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return ++*s, 0xfffd;
  *s += n;
  return c;
}

int utf8_put(uint32_t c, char *out) {
  const int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
  for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
  out[0] = (char)(lead[n] | c);
  return n;
}

int64_t utf8_offset(const char *s, int64_t points) {
  const char *at = s;
  for (; points > 0; points--)
    if (!utf8_next(&at)) return -1;
  return points < 0 ? -1 : at - s;
}

static locale_t classes;
static void open_classes(void) { classes = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0); }
/* Built into glibc; should it be missing, ASCII is what is left. */
static locale_t locale(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  (void)pthread_once(&once, open_classes);
  return classes;
}

uint32_t utf8_lower(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  return locale() ? (uint32_t)towlower_l((wint_t)c, locale()) : c;
}
int utf8_is_word(uint32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  return locale() && iswalnum_l((wint_t)c, locale());
}
int utf8_is_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}
