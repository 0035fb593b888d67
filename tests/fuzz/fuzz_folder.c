/* fuzz_folder.c - any bytes as the config.json of a Hugging Face folder, and behind a NUL as its model.safetensors.index.json: refused with
 * one line, or a model that answers. The weights are those of tests/fixtures/tiny-llama, whole or as the only shard. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/methods/dense.h"
#include "models/llama_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[2][64]; /* of one file, of shards */

static const char *in(int which, const char *name) {
  static char path[160];
  (void)snprintf(path, sizeof path, "%s/%s", folder[which], name);
  return path;
}

static void put(const char *path, const uint8_t *data, size_t size) {
  FILE *f = fopen(path, "wb");
  if (!f || (size && fwrite(data, 1, size, f) != size) || fclose(f)) abort();
}

static void remove_folders(void) {
  static const char *const file[] = {"config.json", "model.safetensors", "w", "model.safetensors.index.json"};
  for (int i = 0; i < 2; i++) {
    for (size_t k = 0; k < sizeof file / sizeof *file; k++) (void)unlink(in(i, file[k]));
    (void)rmdir(folder[i]);
  }
}

static void make_folders(void) {
  static uint8_t weights[1 << 17];
  FILE *f = fopen("tests/fixtures/tiny-llama/model.safetensors", "rb");
  const size_t n = f ? fread(weights, 1, sizeof weights, f) : 0;
  if (!n || fclose(f)) abort();
  for (int i = 0; i < 2; i++) {
    strcpy(folder[i], "/tmp/icebench-fuzz-XXXXXX");
    if (!mkdtemp(folder[i])) abort();
    put(in(i, i ? "w" : "model.safetensors"), weights, n);
  }
  (void)atexit(remove_folders);
}

static void answer(llama *m) {
  const llama_config *c = llama_config_of(m);
  const llama_slot slot = {.attention = {.method = &attn_method_dense, .threads = 1}};
  const int64_t n = c->context < 3 ? c->context : 3;
  const int32_t ids[] = {0, 1, 2};
  ice_err e = {0};
  llama_run *r = NULL;
  int rc = llama_run_create(&r, m, &slot, n, &e);
  if (rc == ICE_OK) rc = llama_prefill(r, ids, n, NULL, NULL, NULL, NULL, &e);
  if (rc != ICE_OK && (!e.text[0] || strchr(e.text, '\n'))) abort();
  llama_run_destroy(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
  const int shards = nul != NULL;
  const size_t n = nul ? (size_t)(nul - data) : size;
  llama *m = NULL;
  ice_err e = {0};
  if (!*folder[0]) make_folders();
  put(in(shards, "config.json"), data, n);
  if (shards) put(in(1, "model.safetensors.index.json"), nul + 1, size - n - 1);
  const int rc = llama_open(&m, folder[shards], &e);
  if ((rc == ICE_OK) != (m != NULL)) abort();
  if (rc != ICE_OK && (rc != ICE_DATA || !e.text[0] || strchr(e.text, '\n'))) abort();
  if (rc == ICE_OK) answer(m);
  llama_close(m);
  return 0;
}
