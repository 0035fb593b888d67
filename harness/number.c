/* number.c - see number.h */
#include "harness/number.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS "0123456789"

/* [+-] digits [. digits] [e [+-] digits]; *whole: nothing after the first digits. */
static int is_number(const char *s, int *whole) {
  *whole = 1;
  if (*s == '+' || *s == '-') s++;
  size_t digits = strspn(s, DIGITS);
  s += digits;
  if (*s == '.') {
    *whole = 0;
    size_t more = strspn(++s, DIGITS);
    digits += more;
    s += more;
  }
  if (digits == 0) return 0;
  if (*s == 'e' || *s == 'E') {
    *whole = 0;
    s++;
    if (*s == '+' || *s == '-') s++;
    size_t exponent = strspn(s, DIGITS);
    if (exponent == 0) return 0;
    s += exponent;
  }
  return *s == 0;
}

int number_int(const char *text, int64_t min, int64_t max, int64_t *out) {
  int whole;
  if (!is_number(text, &whole) || !whole) return 0;
  errno = 0;
  long long value = strtoll(text, NULL, 10);
  if (errno != 0 || value < min || value > max) return 0;
  *out = value;
  return 1;
}

int number_u64(const char *text, uint64_t *out) {
  int whole;
  if (!is_number(text, &whole) || !whole || *text == '-') return 0;
  errno = 0;
  unsigned long long value = strtoull(text, NULL, 10);
  if (errno != 0) return 0;
  *out = value;
  return 1;
}

int number_real(const char *text, double min, double max, double *out) {
  int whole;
  if (!is_number(text, &whole)) return 0;
  double value = strtod(text, NULL);
  if (!isfinite(value) || value < min || value > max) return 0;
  *out = value;
  return 1;
}

void number_print(double value, char *out, size_t size) {
  for (int digits = 1; digits <= 17; digits++) {
    (void)snprintf(out, size, "%.*g", digits, value);
    if (strtod(out, NULL) == value) return;
  }
}
