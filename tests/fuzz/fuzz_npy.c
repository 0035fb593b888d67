/* fuzz_npy.c - any bytes as an array: refused with one line, or read, with as many values as the shape says. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "harness/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  npy_array a = {0};
  ice_err e = {0};
  const int rc = npy_parse_f32(data, size, "input", &a, &e);
  if (rc != ICE_OK) {
    if (!e.text[0] || strchr(e.text, '\n')) abort();
    return 0;
  }
  int64_t count = 1;
  for (int i = 0; i < a.rank; i++) count *= a.shape[i];
  if (count != a.count || !a.f) abort();
  volatile float sum = 0; /* every value may be touched */
  for (int64_t i = 0; i < count; i++) sum += a.f[i];
  (void)sum;
  npy_free(&a);
  return 0;
}
