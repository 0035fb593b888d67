/* fuzz_archive.c - any bytes as an archive: one line of refusal, or members with names that stay where they are put. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/archive.h"

static int begin(void *ctx, const char *name, int64_t size, int *answer, ice_err *e) {
  (void)ctx, (void)size, (void)e;
  if (!*name || *name == '/' || name[strlen(name) - 1] == '/' || strstr(name, "//")) abort();
  for (const char *at = name; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
    if (!strncmp(at, "..", 2) && (at[2] == '/' || !at[2])) abort();
  *answer = ARCHIVE_READ;
  return ICE_OK;
}
static int data(void *ctx, const uint8_t *p, size_t n, ice_err *e) {
  uint8_t *sum = ctx;
  (void)e;
  for (size_t i = 0; i < n; i++) *sum = (uint8_t)(*sum + p[i]); /* reads every byte */
  return ICE_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  uint8_t sum = 0;
  int64_t ignored;
  ice_err e = {0};
  const archive_limits limits = {.members = 1000, .unpacked = 1 << 20};
  const archive_visitor v = {.ctx = &sum, .begin = begin, .data = data};
  const int rc = archive_walk(bytes, size, "input", &limits, &v, &ignored, &e);
  if (ignored < 0 || (rc != ICE_OK && (!e.text[0] || strchr(e.text, '\n')))) abort();
  return 0;
}
