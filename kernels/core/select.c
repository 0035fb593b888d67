/* select.c - see select.h. Quickselect (Hoare 1961), pivot = median of three. */
#include "kernels/core/select.h"

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
