/* fuzz_gguf.c - any bytes as a GGUF file: refused with one line, or every value may be read; then as a tokenizer and as a
 * model, which answers. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/methods/dense.h"
#include "models/llama_model.h"
#include "models/vocabulary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void said(int rc, const ice_err *e) {
  if (rc != ICE_OK && (!e->text[0] || strchr(e->text, '\n'))) abort();
}

static void try_tokenizer(const gguf_file *f) {
  vocabulary v;
  tokenizer *t = NULL;
  ice_err e = {0};
  int rc = vocabulary_read_gguf(&v, f, &e);
  if (rc == ICE_OK) rc = tokenizer_create(&t, &v, "input", &e);
  else vocabulary_free(&v);
  said(rc, &e);
  tokenizer_close(t);
}

static void try_model(gguf_file *f) {
  llama *m;
  llama_run *r = NULL;
  ice_err e = {0};
  int rc = llama_from_gguf(&m, f, &e);
  if (rc == ICE_OK && (m->cfg.width > 512 || m->cfg.mlp > 512 || m->cfg.vocab > 512 || m->cfg.heads * m->cfg.head_dim > 512)) {
    llama_close(m); /* legal, but slow */
    return;
  }
  const llama_slot slot = {.attention = {.method = &attn_method_dense, .threads = 1}};
  const int32_t ids[] = {0, 0, 0};
  if (rc == ICE_OK) rc = llama_run_create(&r, m, &slot, m->cfg.context < 3 ? m->cfg.context : 3, &e);
  if (rc == ICE_OK) rc = llama_prefill(r, ids, m->cfg.context < 3 ? m->cfg.context : 3, NULL, NULL, NULL, NULL, &e);
  said(rc, &e);
  llama_run_destroy(r);
  llama_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  gguf_file f;
  ice_err e = {0};
  const int rc = gguf_parse(data, size, "input", &f, &e);
  said(rc, &e);
  if (rc != ICE_OK) return 0;
  volatile unsigned sum = 0;
  for (int64_t i = 0; i < f.n_tensors; i++) {
    const gguf_tensor *t = f.tensor + i;
    if (t->data < data || t->data + t->bytes > data + size) abort();
    for (size_t k = 0; k < t->bytes; k++) sum += t->data[k];
    if (gguf_find_tensor(&f, t->name) != t) abort();
  }
  (void)sum;
  try_tokenizer(&f);
  try_model(&f);
  return 0;
}
