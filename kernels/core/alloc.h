/* alloc.h - the one door to heap memory for kernels and models: aligned, counted, able to fail on demand. */
#ifndef ATTN_ALLOC_H
#define ATTN_ALLOC_H

#include <stddef.h>
#include <stdint.h>

#define ATTN_ALIGN 64

/** n bytes, 64-byte aligned, contents undefined; n = 0 yields a valid pointer. NULL when memory is out or a
 *  failure was ordered. Free with attn_free(). */
void *attn_alloc(size_t n);
/** The same, zeroed. */
void *attn_calloc(size_t n);
/** NULL is fine. */
void attn_free(void *p);

/** Rounds up to the alignment; saturates at SIZE_MAX. */
size_t attn_round(size_t n);
/** a*b and a+b that saturate at SIZE_MAX, so that an impossible size fails in attn_alloc() and not before. */
size_t attn_mul(size_t a, size_t b);
/** Elements of a tensor of sizes that were checked: the product does not overflow. */
static inline int64_t attn_elements(int rank, const int64_t *shape) {
  int64_t n = 1;
  for (int i = 0; i < rank; i++) n *= shape[i];
  return n;
}
size_t attn_add(size_t a, size_t b);
/** The next `bytes` of a block, rounded up; *p moves behind them. */
static inline void *attn_carve(char **p, size_t bytes) {
  void *at = *p;
  *p += attn_round(bytes);
  return at;
}

/** Lays arrays out in one block: hands out the next rounded bytes of `p`, or only counts them when p is NULL. So one list
 *  of arrays serves both for the size of a block and for pointing into it. */
typedef struct attn_layout {
  char *p;
  size_t used;
} attn_layout;
static inline void *attn_place(attn_layout *at, size_t bytes) {
  void *here = at->p ? at->p + at->used : NULL;
  at->used = attn_add(at->used, attn_round(bytes));
  return here;
}
/** The same for n rows of `width` floats (or other things of 4 bytes). */
static inline void *attn_place_floats(attn_layout *at, int64_t n, int64_t width) {
  return attn_place(at, attn_mul(attn_mul((size_t)n, (size_t)width), sizeof(float)));
}

typedef struct attn_alloc_count {
  uint64_t calls;                /* attn_alloc calls so far, whole process */
  size_t live_bytes, peak_bytes; /* requested bytes, without headers       */
} attn_alloc_count;

attn_alloc_count attn_alloc_counters(void);
/** Sets the peak to what is live now. */
void attn_alloc_reset_peak(void);
/** For tests: the n-th call from now fails (1 = the next), once; 0 cancels. */
void attn_alloc_fail_at(uint64_t n);

#endif
