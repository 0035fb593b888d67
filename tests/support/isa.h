/* isa.h - runs the tests of vector kernels once per instruction set. */
#ifndef TEST_ISA_H
#define TEST_ISA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/micro/micro.h"

typedef struct isa_test {
  const char *name;
  CMUnitTestFunction run; /* its state is the name of a set: isa_of(state) */
} isa_test;
#define ISA_TEST(f) \
  { #f, f }

/** The set that a test is run with; skips the test with a line when this CPU lacks it. */
const attn_micro *isa_of(void **state);
/** Runs the `n_once` tests of `once`, then each of `per_isa` with every set; cmocka's result. */
int isa_run(const char *group, const struct CMUnitTest *once, int n_once, const isa_test *per_isa, int n);

#endif
