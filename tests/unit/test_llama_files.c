/* test_llama_files.c - GGUF files and Hugging Face folders of Llama models: there and back without loss, the same answers from
 * both, every lie refused with one line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/registry/registry.h"
#include "kernels/core/fileio.h"
#include "models/llama_convert.h"
#include "models/llama_model.h"
#include "models/vocabulary.h"
#include "tests/support/scratch.h"

static const llama_config tiny = {.vocab = 40, .width = 64, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .mlp = 96, .context = 256,
                                  .norm_eps = 1e-5f, .rope_base = 10000.0f, .rope_scale = 4.0f, .rope_adjacent = 1};

static tokenizer *small_tokenizer(void) {
  static const char *const text[] = {"<unk>", "<s>", "</s>", "\xe2\x96\x81", "a", "b", "ab"};
  static const int type[] = {2, 3, 3, 1, 1, 1, 1};
  vocabulary v = vocabulary_empty();
  tokenizer *t;
  ice_err e = {0};
  for (int i = 0; i < 7; i++) assert_int_equal(vocabulary_add(&v, "x", text[i], strlen(text[i]), (float)-i * 0.1f, type[i], &e), ICE_OK);
  v.trim = 0;
  v.pad = 2;
  assert_int_equal(tokenizer_create(&t, &v, "x", &e), ICE_OK);
  return t;
}

static llama *random_model(const llama_config *c) {
  llama *m;
  ice_err e = {0};
  if (llama_random(&m, c, 11, &e) != ICE_OK) fail_msg("%s", e.text);
  return m;
}
static void write_model(llama *m, const tokenizer *t, int type, const char *path) {
  ice_err e = {0};
  if (llama_write(m, t, type, path, &e) != ICE_OK) fail_msg("%s", e.text);
}
static llama *open_model(const char *path) {
  llama *m;
  ice_err e = {0};
  if (llama_open(&m, path, &e) != ICE_OK) fail_msg("%s", e.text);
  return m;
}
/* From one file or folder to another. */
static void convert(const char *from, const char *to, int type) {
  llama *m = open_model(from);
  tokenizer *t = NULL;
  assert_int_equal(tokenizer_open(&t, from, NULL), ICE_OK);
  write_model(m, t, type, to);
  tokenizer_close(t);
  llama_close(m);
}
static void assert_same_file(const char *a, const char *b) {
  file_map x, y;
  assert_int_equal(file_open_map(a, 1 << 26, &x, NULL), ICE_OK);
  assert_int_equal(file_open_map(b, 1 << 26, &y, NULL), ICE_OK);
  if (x.n != y.n || memcmp(x.p, y.p, x.n) != 0) fail_msg("%s and %s differ", a, b);
  file_close_map(&x);
  file_close_map(&y);
}
static const char *in(const char *folder, const char *name) {
  char both[256];
  (void)snprintf(both, sizeof both, "%s/%s", folder, name);
  return scratch_path(both);
}

static void answer(const llama *m, float *logits) {
  const llama_slot slot = {.attention = {.method = registry_find("dense", NULL), .threads = 1}};
  const int32_t ids[] = {1, 5, 39, 0, 7, 7, 20, 31};
  llama_run *r;
  ice_err e = {0};
  if (llama_run_create(&r, m, &slot, 8, &e) != ICE_OK || llama_prefill(r, ids, 8, logits, NULL, NULL, NULL, &e) != ICE_OK) fail_msg("%s", e.text);
  llama_run_destroy(r);
}

/* --- there and back -------------------------------------------------------------------------------------------------- */

static void there_and_back(const llama_config *c, int type) {
  llama *m = random_model(c);
  tokenizer *t = small_tokenizer();
  write_model(m, t, type, scratch_path("a.gguf"));
  convert(scratch_path("a.gguf"), scratch_path("folder"), -1);
  convert(scratch_path("folder"), scratch_path("b.gguf"), -1);
  convert(scratch_path("b.gguf"), scratch_path("folder2"), -1);
  if (type != MATRIX_Q8_0) assert_same_file(scratch_path("a.gguf"), scratch_path("b.gguf"));
  static const char *const name[] = {"config.json", "tokenizer.model", "tokenizer_config.json", "model.safetensors"};
  for (int i = 0; i < 4; i++) assert_same_file(in("folder", name[i]), in("folder2", name[i]));
  llama *gguf = open_model(scratch_path("a.gguf")), *folder = open_model(scratch_path("folder"));
  assert_true(gguf->cfg.rope_adjacent && !folder->cfg.rope_adjacent);
  folder->cfg.rope_adjacent = 1;
  assert_memory_equal(&gguf->cfg, &folder->cfg, sizeof gguf->cfg);
  folder->cfg.rope_adjacent = 0;
  float a[40], b[40];
  answer(gguf, a);
  answer(folder, b);
  for (int i = 0; i < 40; i++) assert_true(a[i] - b[i] < 1e-5f && b[i] - a[i] < 1e-5f);
  if (type < 0) {
    answer(m, b);
    assert_memory_equal(a, b, sizeof a);
  }
  llama_close(gguf), llama_close(folder), llama_close(m);
  tokenizer_close(t);
  assert_int_equal(file_remove_tree(scratch_path("folder"), NULL), ICE_OK);
  assert_int_equal(file_remove_tree(scratch_path("folder2"), NULL), ICE_OK);
  assert_int_equal(unlink(scratch_path("a.gguf")) | unlink(scratch_path("b.gguf")), 0);
}

static void test_convert__every_type__there_and_back_the_same(void **state) {
  (void)state;
  llama_config c = tiny;
  there_and_back(&c, -1);
  there_and_back(&c, MATRIX_F32);
  there_and_back(&c, MATRIX_F16);
  there_and_back(&c, MATRIX_Q8_0);
  c.tied = 1, c.rope_scale = 1.0f, c.head_dim = 32, c.norm_eps = 3e-6f, c.rope_base = 5e5f; /* heads are not the width */
  there_and_back(&c, -1);
}

static void test_convert__order_of_rows__as_the_formats_say(void **state) {
  (void)state;
  const int64_t want[] = {0, 2, 4, 6, 1, 3, 5, 7}; /* of a head of 8: halves become neighbours */
  for (int64_t r = 0; r < 8; r++) assert_int_equal(llama_gguf_row(r + 16, 8), 16 + want[r]);
  llama *m = random_model(&tiny);
  write_model(m, NULL, -1, scratch_path("folder"));
  llama *folder = open_model(scratch_path("folder"));
  for (int64_t r = 0; r < 64; r++) /* row 16 h + 8 s + i of the folder is row 16 h + 2 i + s */
    assert_memory_equal(folder->layer[1].q.data + r * 128, m->layer[1].q.data + (r / 16 * 16 + 2 * (r % 8) + r / 8 % 2) * 128, 128);
  assert_memory_equal(folder->layer[1].v.data, m->layer[1].v.data, 32 * 128);
  llama_close(folder), llama_close(m);
}

/* Vectors go into a folder in the type of the matrices when that loses nothing, and as F32 otherwise. */
static void test_convert__vectors_of_f32__kept_as_they_are(void **state) {
  (void)state;
  llama *m = random_model(&tiny);
  float third[64], one[64], back[64];
  for (int i = 0; i < 64; i++) third[i] = 1.0f / 3.0f, one[i] = 1.0f;
  m->layer[0].attn_norm = (matrix){MATRIX_F32, 1, 64, (const uint8_t *)third};
  m->layer[1].attn_norm = (matrix){MATRIX_F32, 1, 64, (const uint8_t *)one};
  write_model(m, NULL, -1, scratch_path("vectors"));
  llama *folder = open_model(scratch_path("vectors"));
  assert_int_equal(folder->layer[0].attn_norm.type, MATRIX_F32);
  assert_int_equal(folder->layer[1].attn_norm.type, m->embed.type);
  matrix_expand(&folder->layer[0].attn_norm, 0, 1, back);
  assert_memory_equal(back, third, sizeof back);
  llama_close(folder), llama_close(m);
}

static void test_convert__where_it_cannot__refused_and_nothing_left(void **state) {
  (void)state;
  llama *m = random_model(&tiny);
  ice_err e = {0};
  struct stat st;
  assert_int_equal(llama_write(m, NULL, MATRIX_Q8_0, scratch_path("folder"), &e), ICE_USAGE);
  assert_int_not_equal(stat(scratch_path("folder"), &st), 0);
  assert_int_equal(mkdir(scratch_path("there"), 0777), 0);
  assert_int_equal(llama_write(m, NULL, -1, scratch_path("there"), &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "exists"));
  FILE *f = fopen(scratch_path("there.gguf"), "w");
  assert_true(f && fputs("mine", f) >= 0 && fclose(f) == 0);
  assert_int_equal(llama_write(m, NULL, -1, scratch_path("there.gguf"), &e), ICE_USAGE);
  assert_true(stat(scratch_path("there.gguf"), &st) == 0 && st.st_size == 4);
  assert_int_not_equal(llama_write(m, NULL, -1, scratch_path("no/such/x.gguf"), &e), ICE_OK);
  llama_config c = tiny;
  c.mlp = 100;
  llama *odd = random_model(&c);
  assert_int_equal(llama_write(odd, NULL, MATRIX_Q8_0, scratch_path("x.gguf"), &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "multiple of 32"));
  c = tiny, c.vocab = 6;
  llama *few = random_model(&c);
  tokenizer *t = small_tokenizer();
  assert_int_equal(llama_write(few, t, -1, scratch_path("x.gguf"), &e), ICE_DATA);
  assert_int_not_equal(stat(scratch_path("x.gguf"), &st), 0);
  tokenizer_close(t);
  llama_close(few), llama_close(odd), llama_close(m);
}

/* --- GGUF that lies -------------------------------------------------------------------------------------------------- */

static uint8_t *image;
static size_t image_size;
static void load_image(void) {
  llama *m = random_model(&tiny);
  tokenizer *t = small_tokenizer();
  file_map map;
  write_model(m, t, -1, scratch_path("x.gguf"));
  assert_int_equal(file_open_map(scratch_path("x.gguf"), 1 << 26, &map, NULL), ICE_OK);
  image = malloc(map.n);
  assert_non_null(image);
  memcpy(image, map.p, image_size = map.n);
  file_close_map(&map);
  tokenizer_close(t);
  llama_close(m);
}
static int open_bytes(const uint8_t *bytes, size_t n, ice_err *e) {
  gguf_file f;
  llama *m = NULL;
  uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees one byte too far */
  assert_non_null(exact);
  memcpy(exact, bytes, n);
  int rc = gguf_parse(exact, n, "x.gguf", &f, e);
  if (rc == ICE_OK) rc = llama_from_gguf(&m, &f, e);
  llama_close(m);
  free(exact);
  return rc;
}
/* Overwrites bytes that stand `shift` behind a text of the file. */
static void refused(const char *text, int shift, const void *bytes, size_t n, const char *word) {
  ice_err e = {0};
  uint8_t *at = memmem(image, image_size, text, strlen(text)), old[64];
  assert_non_null(at);
  at += (int)strlen(text) + shift;
  memcpy(old, at, n);
  memcpy(at, bytes, n);
  const int rc = open_bytes(image, image_size, &e);
  memcpy(at, old, n);
  if (rc != ICE_DATA) fail_msg("%s: '%s' was expected, got %d", text, word, rc);
  if (!strstr(e.text, word) || !strstr(e.text, "x.gguf")) fail_msg("'%s' does not say '%s'", e.text, word);
}
static void refused_number(const char *text, int shift, uint64_t v, size_t bytes, const char *word) { refused(text, shift, &v, bytes, word); }

static void test_gguf__lies__refused(void **state) {
  (void)state;
  load_image();
  ice_err e = {0};
  if (open_bytes(image, image_size, &e) != ICE_OK) fail_msg("%s", e.text);
  refused("GGUF", -4, "GGML", 4, "begin with GGUF");
  refused_number("GGUF", 0, 1, 4, "version 1");
  refused_number("GGUF", 0, 0x03000000, 4, "version");           /* big-endian */
  refused_number("GGUF", 4, 1ULL << 61, 8, "are announced");     /* tensors */
  refused_number("GGUF", 12, 1ULL << 61, 8, "are announced");    /* pairs */
  refused_number("llama.vocab_size", -24, 1ULL << 62, 8, "key of");
  refused_number("llama.block_count", 0, 13, 4, "type 13");
  refused_number("llama.block_count", 0, 6, 4, "no whole number"); /* f32 */
  refused_number("llama.block_count", 4, 0, 4, "block_count = 0");
  refused_number("llama.block_count", 4, 3, 4, "blk.2.attn_norm.weight is missing");
  refused_number("llama.block_count", 4, 1, 4, "blk.1.");          /* more than asked for */
  refused_number("llama.embedding_length", 4, 32, 4, "whole head width");
  refused_number("llama.feed_forward_length", 4, 64, 4, "expected");
  refused_number("llama.attention.head_count_kv", 4, 3, 4, "no multiple");
  refused_number("llama.rope.dimension_count", 4, 8, 4, "whole head width");
  refused("llama.rope.scaling.type", 12, "linaer", 6, "linaer");
  refused("general.architecture", 12, "lamma", 5, "lamma");
  refused("llama.block_count", -17, "llama.block_coumt", 17, "block_count is missing");
  refused("llama.block_count", -17, "llama.block_cou\0t", 17, "NUL");
  free(image);
}

static void test_gguf__tensors_that_lie__refused(void **state) {
  (void)state;
  load_image();
  const char *t = "blk.1.attn_k.weight"; /* rank u32, dims 2 x u64, type u32, offset u64 */
  refused_number(t, 0, 0, 4, "0 dimensions");
  refused_number(t, 0, 5, 4, "5 dimensions");
  refused_number(t, 4, 1ULL << 63, 8, "a dimension of");
  refused_number(t, 4, 128, 8, ""); /* other sizes: overlaps, or too long for the file */
  refused_number(t, 12, 1ULL << 59, 8, "");
  refused_number(t, 20, 2, 4, "type 2 is not supported");
  refused_number(t, 20, 0xffffffff, 4, "is not supported");
  refused_number(t, 24, 33, 8, "no multiple of the alignment");
  refused_number(t, 24, 1ULL << 62, 8, "at offset");
  refused_number(t, 24, 0, 8, "overlap");
  refused(t, -19, "blk.0.attn_k.weight", 19, "comes twice");
  refused(t, -19, "blk.1.attn_x.weight", 19, "blk.1.attn_k.weight is missing");
  free(image);
}

static void test_gguf__every_truncation__refused(void **state) {
  (void)state;
  load_image();
  ice_err e = {0};
  for (size_t n = 0; n < 6000; n += n < 1200 ? 1 : 97) assert_int_equal(open_bytes(image, n, &e), ICE_DATA);
  assert_int_equal(open_bytes(image, image_size - 33, &e), ICE_DATA);
  free(image);
}

/* --- folders that lie ------------------------------------------------------------------------------------------------ */

static void make_folder(void) {
  llama *m = random_model(&tiny);
  assert_int_equal(file_remove_tree(scratch_path("f"), NULL), ICE_OK);
  write_model(m, NULL, -1, scratch_path("f"));
  llama_close(m);
}
static void folder_refused(const char *word) {
  llama *m = NULL;
  ice_err e = {0};
  assert_int_equal(llama_open(&m, scratch_path("f"), &e), ICE_DATA);
  assert_null(m);
  if (!strstr(e.text, word)) fail_msg("'%s' does not say '%s'", e.text, word);
}
/* Replaces a text in config.json. */
static void config_refused(const char *old, const char *new, const char *word) {
  static char text[8192];
  file_map map;
  assert_int_equal(file_open_map(in("f", "config.json"), 8000, &map, NULL), ICE_OK);
  char *whole = strndup((const char *)map.p, map.n), *at = strstr(whole, old);
  file_close_map(&map);
  assert_non_null(at);
  const int n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - whole), whole, new, at + strlen(old));
  (void)scratch_write("f/config.json", text, (size_t)n);
  folder_refused(word);
  (void)scratch_write("f/config.json", whole, strlen(whole));
  free(whole);
}

static void test_folder__configurations_that_lie__refused(void **state) {
  (void)state;
  make_folder();
  config_refused("{", "", "line 2");
  config_refused("\"llama\"", "\"mistral\"", "only llama");
  config_refused("\"silu\"", "\"gelu\"", "only silu");
  config_refused("\"attention_bias\": false", "\"attention_bias\": true", "only false");
  config_refused("\"vocab_size\": 40", "\"vocab_size\": \"40\"", "whole number");
  config_refused("\"vocab_size\": 40", "\"vocab_size\": 41", "expected");
  config_refused("\"vocab_size\": 40,", "", "vocab_size is missing");
  config_refused("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "layers.2.");
  config_refused("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", "layers.1.");
  config_refused("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 99999999999", "1..1024");
  config_refused("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "no multiple");
  config_refused("\"linear\"", "\"yarn\"", "type yarn");
  config_refused("\"factor\": 4.0", "\"factor\": 0.0", "factor 0");
  config_refused("\"rms_norm_eps\": 1e-5", "\"rms_norm_eps\": -1e-5", "epsilon");
  config_refused("\"vocab_size\": 40", "\"vocab_size\": 40, \"vocab_size\": 40", "duplicate");
}

static void test_folder__weights_missing_or_elsewhere__refused(void **state) {
  (void)state;
  make_folder();
  assert_int_equal(rename(in("f", "model.safetensors"), in("f", "x.safetensors")), 0);
  folder_refused("neither model.safetensors nor");
  const struct {
    const char *index, *word;
  } bad[] = {{"{\"weight_map\": {}}", "missing or empty"},
             {"{\"weight_map\": {\"a\": \"gone.safetensors\"}}", "gone.safetensors"},
             {"{\"weight_map\": {\"a\": \"../f/x.safetensors\"}}", "a file of the same folder"},
             {"{\"weight_map\": {\"a\": 7}}", "a file of the same folder"},
             {"[]", "no JSON object"},
             {"{\"weight_map\": ", "line 1"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    (void)scratch_write("f/model.safetensors.index.json", bad[i].index, strlen(bad[i].index));
    folder_refused(bad[i].word);
  }
  assert_int_equal(file_remove_tree(scratch_path("f"), NULL), ICE_OK);
  folder_refused("cannot be opened");
}

/* Writes a shard with the tensors of `m` from a to b. */
static void write_shard(llama *m, const char *name, int a, int b) {
  const int n = llama_parts(m, NULL);
  llama_part *p = malloc((size_t)n * sizeof *p);
  st_out *t = calloc((size_t)n, sizeof *t);
  ice_err e = {0};
  assert_true(p && t);
  (void)llama_parts(m, p);
  for (int i = a; i < b; i++) {
    float *x = malloc((size_t)(p[i].rows * p[i].cols) * sizeof *x);
    assert_non_null(x);
    matrix_expand(p[i].at, 0, p[i].rows, x);
    t[i - a] = (st_out){.name = p[i].hf, .dtype = ST_BF16, .rank = p[i].rank, .data = x};
    t[i - a].shape[0] = p[i].rank == 1 ? p[i].cols : p[i].rows;
    t[i - a].shape[1] = p[i].cols;
  }
  if (st_write(in("f", name), t, b - a, NULL, &e) != ICE_OK) fail_msg("%s", e.text);
  for (int i = a; i < b; i++) free((void *)(uintptr_t)t[i - a].data);
  free(p);
  free(t);
}

static void test_folder__shards__as_one_file(void **state) {
  (void)state;
  make_folder();
  llama *whole = open_model(scratch_path("f"));
  float a[40], b[40];
  answer(whole, a);
  write_shard(whole, "model-00001-of-00002.safetensors", 0, 9);
  write_shard(whole, "model-00002-of-00002.safetensors", 9, 21);
  write_shard(whole, "model-00003.safetensors", 8, 9);
  llama_close(whole);
  assert_int_equal(remove(in("f", "model.safetensors")), 0);
  const char *index = "{\"metadata\": {}, \"weight_map\": {\"x\": \"model-00001-of-00002.safetensors\", \"y\": \"model-00002-of-00002.safetensors\", "
                      "\"z\": \"model-00001-of-00002.safetensors\"}}";
  (void)scratch_write("f/model.safetensors.index.json", index, strlen(index));
  llama *shards = open_model(scratch_path("f"));
  answer(shards, b);
  assert_memory_equal(a, b, sizeof a);
  llama_close(shards);
  index = "{\"weight_map\": {\"x\": \"model-00001-of-00002.safetensors\"}}";
  (void)scratch_write("f/model.safetensors.index.json", index, strlen(index));
  folder_refused("is missing");
  index = "{\"weight_map\": {\"x\": \"model-00001-of-00002.safetensors\", \"y\": \"model-00002-of-00002.safetensors\", \"z\": \"model-00003.safetensors\"}}";
  (void)scratch_write("f/model.safetensors.index.json", index, strlen(index));
  folder_refused("is in two shards");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_convert__every_type__there_and_back_the_same),
      TEST(test_convert__order_of_rows__as_the_formats_say),
      TEST(test_convert__vectors_of_f32__kept_as_they_are),
      TEST(test_convert__where_it_cannot__refused_and_nothing_left),
      TEST(test_gguf__lies__refused),
      TEST(test_gguf__tensors_that_lie__refused),
      TEST(test_gguf__every_truncation__refused),
      TEST(test_folder__configurations_that_lie__refused),
      TEST(test_folder__weights_missing_or_elsewhere__refused),
      TEST(test_folder__shards__as_one_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
