/* clock.h - the two clocks of the program. */
#ifndef ATTN_CLOCK_H
#define ATTN_CLOCK_H

#include <stdint.h>
#include <time.h>

/** CLOCK_MONOTONIC in nanoseconds: every duration is a difference of these. */
static inline int64_t attn_now_ns(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
/** Milliseconds since 1970, UTC: when something happened. */
static inline int64_t attn_utc_ms(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_REALTIME, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

#endif
