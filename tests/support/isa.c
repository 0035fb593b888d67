/* isa.c - see isa.h */
#include "tests/support/isa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ISAS = 4, NAME = 128 };
static char isas[ISAS][16] = {"scalar", "avx2", "avx512", "avx512-plain"};

const attn_micro *isa_of(void **state) {
  const attn_micro *mk = attn_micro_named(*state);
  if (!mk) {
    printf("SKIP %s: this CPU lacks it\n", (const char *)*state);
    skip();
  }
  return mk;
}

int isa_run(const char *group, const struct CMUnitTest *once, int n_once, const isa_test *per_isa, int n) {
  const size_t count = (size_t)(n_once + ISAS * n);
  struct CMUnitTest *tests = calloc(count, sizeof *tests);
  char(*name)[NAME] = calloc(count, sizeof *name);
  if (!tests || !name) abort();
  if (n_once) memcpy(tests, once, (size_t)n_once * sizeof *tests);
  for (int i = 0; i < ISAS; i++)
    for (int t = 0; t < n; t++) {
      const int at = n_once + i * n + t;
      (void)snprintf(name[at], NAME, "%s__%s", per_isa[t].name, isas[i]);
      tests[at] = (struct CMUnitTest){name[at], per_isa[t].run, NULL, NULL, isas[i]};
    }
  const int rc = _cmocka_run_group_tests(group, tests, count, NULL, NULL);
  free(tests);
  free(name);
  return rc;
}
