/* fuzz_listops.c - any bytes as a ListOps table: refused with one line, or sane examples. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/lra_listops.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  for (int layout = 0; layout < 2; layout++) {
    task_data d;
    ice_err e = {0};
    if (listops_parse(data, size, "input", (listops_layout)layout, &d, &e) != ICE_OK) {
      if (!e.text[0] || strchr(e.text, '\n')) abort();
      continue;
    }
    if (d.start[0] != 0) abort();
    for (int64_t i = 0; i < d.count; i++) {
      if (d.start[i + 1] <= d.start[i] || d.label[i] < 0 || d.label[i] > 9) abort();
      for (int64_t k = d.start[i]; k < d.start[i + 1]; k++)
        if (d.tokens[k] < 1 || d.tokens[k] > 15) abort();
      (void)listops_value(task_ids(&d, i, 0), task_len(&d, i, 0));
    }
    task_data_free(&d);
  }
  return 0;
}
