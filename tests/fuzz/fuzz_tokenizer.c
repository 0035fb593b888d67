/* fuzz_tokenizer.c - any bytes as a tokenizer.model: refused with one line, or it encodes any text, and what it decodes is
 * UTF-8. The text is the second half of the input, so that both meet. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "models/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  tokenizer *t;
  ice_err e = {0};
  int32_t *ids;
  int64_t n;
  char *text;
  size_t bytes;
  if (tokenizer_parse(&t, data, size, "input", &e) != ICE_OK) {
    if (!e.text[0] || strchr(e.text, '\n')) abort();
    return 0;
  }
  if (tokenizer_encode(t, (const char *)data + size / 2, size - size / 2, 1, &ids, &n, &e) != ICE_OK) abort();
  for (int64_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= tokenizer_vocab(t)) abort();
  if (tokenizer_decode(t, ids, n, &text, &bytes, &e) != ICE_OK || strlen(text) > bytes) abort();
  int32_t *again;
  int64_t m;
  if (tokenizer_encode(t, text, bytes, 0, &again, &m, &e) != ICE_OK) abort();
  free(again);
  free(text);
  free(ids);
  tokenizer_close(t);
  return 0;
}
