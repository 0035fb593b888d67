/* real.c - see real.h */
#include "tests/support/real.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

const char *real_file(const char *name) {
  static char path[4096];
  const char *root = getenv("ICEBENCH_DATA_DIR");
  (void)snprintf(path, sizeof path, "%s/%s", root ? root : "", name);
  if (!root || access(path, R_OK)) {
    print_message("SKIP ICEBENCH_DATA_DIR is not set, or has no %s\n", name);
    skip();
  }
  return path;
}
