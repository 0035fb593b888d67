/* select.c - see select.h. Quickselect (Hoare 1961), pivot = median of three. Sorting by insertion for few, bytewise radix (skipping
 * bytes that do not vary) for many. */
#include "kernels/core/select.h"

#include <string.h>

static attn_hit median(attn_hit a, attn_hit b, attn_hit c) {
  if (attn_better(b, a)) {
    const attn_hit swap = a;
    a = b, b = swap;
  }
  return attn_better(b, c) ? b : attn_better(a, c) ? c : a;
}

void attn_select(attn_hit *hit, int64_t n, int64_t k) {
  int64_t lo = 0, hi = n - 1;
  while (lo < hi && k > 0 && k < n) { /* hit[0..lo) are all better than hit[lo..hi], those better than the rest */
    const attn_hit pivot = median(hit[lo], hit[lo + (hi - lo) / 2], hit[hi]);
    int64_t i = lo, j = hi;
    while (i <= j) {
      while (attn_better(hit[i], pivot)) i++;
      while (attn_better(pivot, hit[j])) j--;
      if (i > j) break;
      const attn_hit swap = hit[i];
      hit[i++] = hit[j], hit[j--] = swap;
    }
    if (k - 1 <= j) hi = j;
    else if (k - 1 >= i) lo = i;
    else return;
  }
}

void attn_sort_u64(uint64_t *a, int64_t n, uint64_t *spare) {
  if (n <= 96) {
    for (int64_t i = 1; i < n; i++) {
      const uint64_t v = a[i];
      int64_t j = i;
      for (; j > 0 && a[j - 1] > v; j--) a[j] = a[j - 1];
      a[j] = v;
    }
    return;
  }
  uint64_t any = 0, all = ~(uint64_t)0;
  for (int64_t i = 0; i < n; i++) any |= a[i], all &= a[i];
  uint64_t *from = a, *to = spare;
  for (int shift = 0; shift < 64; shift += 8) {
    if (!((any ^ all) >> shift & 255)) continue;
    int64_t count[257] = {0};
    for (int64_t i = 0; i < n; i++) count[(from[i] >> shift & 255) + 1]++;
    for (int i = 0; i < 256; i++) count[i + 1] += count[i];
    for (int64_t i = 0; i < n; i++) to[count[from[i] >> shift & 255]++] = from[i];
    uint64_t *swap = from;
    from = to, to = swap;
  }
  if (from != a) memcpy(a, from, (size_t)n * sizeof *a);
}
