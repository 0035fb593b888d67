/* ht_ref.c - see ht_ref.h */
#include "tests/support/ht_ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double *must(int64_t n) {
  double *p = calloc((size_t)n + 1, sizeof *p);
  if (!p) abort();
  return p;
}

/* Mean over the positions [a, b) that count, into to; returns how many. */
static double mean(const attn_problem *pb, const uint8_t *mask, const double *x, ptrdiff_t xs, int64_t width, int64_t a, int64_t b, double *to) {
  double count = 0;
  for (int64_t t = 0; t < width; t++) to[t] = 0;
  for (int64_t j = a; j < b && j < pb->nk; j++) {
    if (mask && !mask[j]) continue;
    count++;
    for (int64_t t = 0; t < width; t++) to[t] += x[j * xs + t];
  }
  for (int64_t t = 0; t < width && count > 0; t++) to[t] /= count;
  return count;
}

/* Do tokens I and J of a level meet? Neighbours do (level 0: and oneself), less what the level below has met: the halves that touch. */
static int meet(int64_t rank, int level, int64_t I, int64_t J) {
  const int64_t bi = I / rank, bj = J / rank, half = rank / 2;
  if (bi - bj > 1 || bj - bi > 1) return 0;
  if (level == 0) return 1;
  if (bi == bj) return 0;
  return !(J < I ? I % rank < half && J % rank >= half : I % rank >= half && J % rank < half);
}

void ht_ref(const attn_problem *pb, int64_t rank, const uint8_t *mask, const double *q, ptrdiff_t qs, const double *k, ptrdiff_t ks,
            const double *v, ptrdiff_t vs, const attn_drop *dr, double *out, ptrdiff_t os, double *lse, int *covered) {
  const int64_t n = pb->nk, d = pb->d, dv = pb->dv;
  double *qm = must(d), *km = must(d), *vm = must(dv), *row = must(dv);
  for (int64_t i = 0; i < n; i++) {
    double top = -INFINITY, sum = 0;
    for (int64_t t = 0; t < dv; t++) out[i * os + t] = 0;
    if (lse) lse[i] = -INFINITY;
    if (mask && !mask[i]) continue;
    for (int pass = 0; pass < 2; pass++) { /* the maximum, then the sums */
      int64_t first_row = 0;
      for (int level = 0; level == 0 || (n + (rank << level) - 1) / (rank << level) > 1; level++) {
        const int64_t size = (int64_t)1 << level, I = i / size, tokens = (n + size - 1) / size;
        if (pb->causal) { /* the first that counts */
          int64_t first = I * size;
          while (mask && !mask[first]) first++;
          for (int64_t t = 0; t < d; t++) qm[t] = q[first * qs + t];
        } else mean(pb, mask, q, qs, d, I * size, (I + 1) * size, qm);
        int64_t slot = 0;
        for (int64_t J = 0; J < tokens; J++) {
          /* columns of a tile: the keys of the blocks that take part, in order */
          const int64_t bi = I / rank, bj = J / rank;
          if (bj < bi - 1 || bj > bi + 1 || (pb->causal && bj > bi) || (level > 0 && bi == bj)) continue;
          const int64_t column = slot++;
          const double count = mean(pb, mask, k, ks, d, J * size, (J + 1) * size, km);
          if (!meet(rank, level, I, J) || (pb->causal && J > I) || count == 0) continue;
          double z = log(count);
          for (int64_t t = 0; t < d; t++) z += (double)pb->scale * qm[t] * km[t];
          if (pass == 0) {
            top = fmax(top, z);
            continue;
          }
          const double w = exp(z - top), keep = (double)attn_drop_at(dr, first_row + I, column);
          mean(pb, mask, v, vs, dv, J * size, (J + 1) * size, vm);
          sum += w;
          for (int64_t t = 0; t < dv; t++) row[t] += w * keep * vm[t];
          for (int64_t j = J * size; j < (J + 1) * size && j < n && covered; j++) covered[i * n + j]++;
        }
        first_row += tokens;
      }
    }
    for (int64_t t = 0; t < dv; t++) out[i * os + t] = row[t] / sum, row[t] = 0;
    if (lse) lse[i] = top + log(sum);
  }
  free(qm), free(km), free(vm), free(row);
}
