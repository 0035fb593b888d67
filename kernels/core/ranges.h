/* ranges.h - the complete blocks of keys before a query as few ranges: those of the binary digits of their number.
 *
 * A range is 1, 2, 4, ... blocks wide; those that some query uses begin at multiples of twice their width. Each has an index of its own,
 * made of its own keys: so later keys cannot move what an earlier query finds. Positions are ranks among the kept keys. */
#ifndef ATTN_RANGES_H
#define ATTN_RANGES_H

#include <stdint.h>

typedef struct attn_span { /* of keys */
  int64_t begin, width;
} attn_span;

/** Ranges of one width that fit into n keys. */
static inline int64_t attn_ranges_of_width(int64_t n, int64_t width) { return n < width ? 0 : (n - width) / (2 * width) + 1; }

/** All of them, of blocks of `block` keys; their numbers count narrow ones first. */
static inline int64_t attn_ranges(int64_t n, int64_t block) {
  int64_t count = 0;
  for (int64_t width = block; width <= n; width *= 2) count += attn_ranges_of_width(n, width);
  return count;
}
static inline attn_span attn_range_at(int64_t n, int64_t block, int64_t number) {
  int64_t width = block;
  for (; number >= attn_ranges_of_width(n, width); width *= 2) number -= attn_ranges_of_width(n, width);
  return (attn_span){2 * width * number, width};
}
static inline int64_t attn_range_number(int64_t n, int64_t block, attn_span range) {
  int64_t number = range.begin / (2 * range.width);
  for (int64_t width = block; width < range.width; width *= 2) number += attn_ranges_of_width(n, width);
  return number;
}
/** The widest; 0 when there is none. */
static inline int64_t attn_range_widest(int64_t n, int64_t block) {
  int64_t width = block;
  while (2 * width <= n) width *= 2;
  return width <= n ? width : 0;
}

#endif
