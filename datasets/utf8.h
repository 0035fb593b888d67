/* utf8.h - text as code points: positions, and the few classes of characters that metrics ask for. */
#ifndef ICE_UTF8_H
#define ICE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/** The code point at *s, which moves behind it; 0 at the closing NUL, where it stays. A byte that begins no valid sequence
 *  counts as one U+FFFD. */
uint32_t utf8_next(const char **s);
/** Writes a code point to out [4]; returns its bytes. */
int utf8_put(uint32_t c, char *out);
/** Bytes of the first `points` code points of s; -1 when it has fewer. */
int64_t utf8_offset(const char *s, int64_t points);

/** Lower case of one code point, as towlower in C.UTF-8. */
uint32_t utf8_lower(uint32_t c);
/** Letter, digit or underscore: \w of Python's regular expressions. */
int utf8_is_word(uint32_t c);
/** White space: \s of Python's regular expressions. */
int utf8_is_space(uint32_t c);

#endif
