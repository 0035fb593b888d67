/* fuzz_config.c - any bytes as an experiment: refused with one line, or expanded into cells with distinct keys. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "harness/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  config_experiment x;
  ice_err e = {0};
  if (config_parse((const char *)data, size, "input", &x, &e) != ICE_OK) {
    if (!e.text[0] || strchr(e.text, '\n')) abort();
    return 0;
  }
  if (x.n_cells < 1) abort();
  for (int i = 0; i < x.n_cells && i < 100; i++) {
    char *key = config_cell_json(&x, &x.cell[i]);
    if (!key) abort();
    free(key);
  }
  config_free(&x);
  return 0;
}
