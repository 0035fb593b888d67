/* alloc.c - see alloc.h. Each block carries a 64-byte header with its size, so that bytes are counted exactly. */
#include "kernels/core/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_uint_fast64_t n_calls, fail_countdown;
static atomic_size_t live, peak;

size_t attn_add(size_t a, size_t b) { return a > SIZE_MAX - b ? SIZE_MAX : a + b; }
size_t attn_mul(size_t a, size_t b) { return b != 0 && a > SIZE_MAX / b ? SIZE_MAX : a * b; }
size_t attn_round(size_t n) {
  return n > SIZE_MAX - (ATTN_ALIGN - 1) ? SIZE_MAX : (n + ATTN_ALIGN - 1) & ~(size_t)(ATTN_ALIGN - 1);
}

static int ordered_to_fail(void) {
  uint_fast64_t left = atomic_load(&fail_countdown);
  while (left != 0)
    if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1)) return left == 1;
  return 0;
}

/* Large blocks ask for huge pages, so that gathering rows does not wait for address translation. Only a hint. */
static void ask_for_huge_pages(void *block, size_t n) {
  enum { PAGE = 1 << 12, HUGE_PAGE = 1 << 21 };
  const uintptr_t at = ((uintptr_t)block + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
  if (n >= 2 * HUGE_PAGE) (void)madvise((void *)at, n - PAGE, MADV_HUGEPAGE);
}

void *attn_alloc(size_t n) {
  atomic_fetch_add(&n_calls, 1);
  if (ordered_to_fail()) return NULL;
  /* Not rounded up: AddressSanitizer sees an access one byte past the end. */
  void *block;
  if (n > SIZE_MAX / 2 || posix_memalign(&block, ATTN_ALIGN, n + ATTN_ALIGN) != 0) return NULL;
  ask_for_huge_pages(block, n);
  memcpy(block, &n, sizeof n);
  size_t now = atomic_fetch_add(&live, n) + n;
  size_t seen = atomic_load(&peak);
  while (now > seen && !atomic_compare_exchange_weak(&peak, &seen, now)) {}
  return (unsigned char *)block + ATTN_ALIGN;
}

void *attn_calloc(size_t n) {
  void *p = attn_alloc(n);
  if (p) memset(p, 0, n);
  return p;
}

void attn_free(void *p) {
  if (!p) return;
  unsigned char *block = (unsigned char *)p - ATTN_ALIGN;
  size_t n;
  memcpy(&n, block, sizeof n);
  atomic_fetch_sub(&live, n);
  free(block);
}

attn_alloc_count attn_alloc_counters(void) {
  return (attn_alloc_count){
      .calls = atomic_load(&n_calls), .live_bytes = atomic_load(&live), .peak_bytes = atomic_load(&peak)};
}
void attn_alloc_reset_peak(void) { atomic_store(&peak, atomic_load(&live)); }
void attn_alloc_fail_at(uint64_t n) { atomic_store(&fail_countdown, n); }
