/* fuzz_safetensors.c - any bytes as a checkpoint: refused with one line, or every byte of every tensor may be read. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "models/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  st_file f;
  ice_err e = {0};
  if (st_parse(data, size, "input", &f, &e) != ICE_OK) {
    if (!e.text[0] || strchr(e.text, '\n')) abort();
    return 0;
  }
  volatile unsigned sum = 0;
  for (int64_t i = 0; i < f.count; i++) {
    const st_tensor *t = &f.tensor[i];
    if (t->data < data || t->data + t->bytes > data + size) abort();
    for (size_t k = 0; k < t->bytes; k++) sum += t->data[k];
    if (st_find(&f, t->name) != t) abort();
  }
  (void)sum;
  (void)st_meta(&f, "heads");
  st_close(&f);
  return 0;
}
