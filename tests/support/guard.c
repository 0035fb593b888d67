/* guard.c - see guard.h */
#include "tests/support/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const uint32_t CANARY = 0x7fc0ca5eu; /* a quiet NaN that no arithmetic produces */

float *guard_new(guard *g, int64_t n, int offset, int end) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), want = ((size_t)n + (size_t)offset) * sizeof(float);
  const size_t inner = want == 0 ? page : (want + page - 1) / page * page;
  char *map = mmap(NULL, inner + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED || mprotect(map, page, PROT_NONE) != 0 || mprotect(map + page + inner, page, PROT_NONE) != 0) {
    perror("guard_new");
    exit(1);
  }
  g->base = (float *)(void *)(map + page);
  g->slack = inner / sizeof(float);
  g->bytes = inner + 2 * page;
  g->n = n;
  g->p = end ? g->base + g->slack - (size_t)n - (size_t)offset : g->base + offset;
  for (size_t i = 0; i < g->slack; i++) memcpy(g->base + i, &CANARY, sizeof CANARY);
  return g->p;
}

int guard_intact(const guard *g) {
  for (size_t i = 0; i < g->slack; i++) {
    const float *at = g->base + i;
    if ((at < g->p || at >= g->p + g->n) && memcmp(at, &CANARY, sizeof CANARY) != 0) return 0;
  }
  return 1;
}

void guard_free(guard *g) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  (void)munmap((char *)g->base - page, g->bytes);
  *g = (guard){0};
}
