/* tiny_llama.c - see tiny_llama.h */
#include "tests/support/tiny_llama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/fileio.h"
#include "kernels/core/rng.h"
#include "models/safetensors.h"
#include "models/tokenizer.h"
#include "models/vocabulary.h"

enum { WIDTH = 16, HEADS = 2, LAYERS = 2, MLP = 24 };

static void need(int rc, const ice_err *e) {
  if (rc == ICE_OK) return;
  (void)fprintf(stderr, "tiny_llama: %s\n", e->text);
  exit(1);
}

static void add(vocabulary *v, const char *text, float score, int type) {
  ice_err e = {0};
  need(vocabulary_add(v, "tiny", text, strlen(text), score, type, &e), &e);
}

static int write_words(const char *path) {
  static const char *const merge[] = {"in", "er", "th", "\xe2\x96\x81t", "on", "\xe2\x96\x81th", "li", "ne", "line", "\xe2\x96\x81line", "re", "\xe2\x96\x81" "a"};
  vocabulary v = vocabulary_empty();
  ice_err e = {0};
  char text[8];
  v.unk = 0, v.bos = 1, v.eos = 2, v.pad = -1;
  v.byte_fallback = v.dummy_prefix = v.escape = 1, v.trim = 0;
  add(&v, "<unk>", 0, TOKENIZER_UNKNOWN), add(&v, "<s>", 0, TOKENIZER_CONTROL), add(&v, "</s>", 0, TOKENIZER_CONTROL);
  for (int i = 0; i < 256; i++) {
    (void)snprintf(text, sizeof text, "<0x%02X>", i);
    add(&v, text, 0, TOKENIZER_BYTE);
  }
  for (int i = 0; i < (int)(sizeof merge / sizeof *merge); i++) add(&v, merge[i], (float)-i, TOKENIZER_NORMAL);
  add(&v, "\xe2\x96\x81", -100, TOKENIZER_NORMAL);
  for (int c = '!'; c < 0x7f; c++) {
    text[0] = (char)c, text[1] = '\0';
    add(&v, text, (float)(-100 - c), TOKENIZER_NORMAL);
  }
  const int n = v.n;
  need(vocabulary_write_model(&v, path, &e), &e);
  vocabulary_free(&v);
  return n;
}

typedef struct weights {
  st_out t[16 * LAYERS];
  char name[16 * LAYERS][64];
  int n;
  attn_rng r;
} weights;

/* rows x columns random values, or `rows` ones where columns is 0. */
static void put(weights *w, const char *name, int rows, int columns) {
  const int all = rows * (columns ? columns : 1);
  float *x = malloc((size_t)all * sizeof *x);
  if (!x) exit(1);
  for (int i = 0; i < all; i++) x[i] = columns ? (float)(0.4 * attn_rng_normal(&w->r)) : 1.0f;
  (void)snprintf(w->name[w->n], sizeof w->name[0], "%s", name);
  w->t[w->n] = (st_out){.name = w->name[w->n], .dtype = ST_F32, .rank = columns ? 2 : 1, .shape = {rows, columns}, .data = x};
  w->n++;
}

void tiny_llama_write(const char *folder, int context) {
  static const struct {
    const char *name;
    int rows, columns;
  } part[] = {{"input_layernorm", WIDTH, 0},         {"self_attn.q_proj", WIDTH, WIDTH}, {"self_attn.k_proj", WIDTH, WIDTH},
              {"self_attn.v_proj", WIDTH, WIDTH},    {"self_attn.o_proj", WIDTH, WIDTH}, {"post_attention_layernorm", WIDTH, 0},
              {"mlp.gate_proj", MLP, WIDTH},         {"mlp.up_proj", MLP, WIDTH},        {"mlp.down_proj", WIDTH, MLP}};
  char path[4096], name[64];
  ice_err e = {0};
  weights w = {0};
  attn_rng_seed(&w.r, 1, 0);
  need(file_make_dirs(folder, &e), &e);
  (void)snprintf(path, sizeof path, "%s/tokenizer.model", folder);
  const int vocab = write_words(path);
  put(&w, "model.embed_tokens.weight", vocab, WIDTH);
  for (int l = 0; l < LAYERS; l++)
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
      (void)snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, part[i].name);
      put(&w, name, part[i].rows, part[i].columns);
    }
  put(&w, "model.norm.weight", WIDTH, 0);
  put(&w, "lm_head.weight", vocab, WIDTH);
  (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
  need(st_write(path, w.t, w.n, NULL, &e), &e);
  for (int i = 0; i < w.n; i++) free((void *)(uintptr_t)w.t[i].data);
  (void)snprintf(path, sizeof path, "%s/config.json", folder);
  FILE *f = fopen(path, "w");
  if (!f) exit(1);
  (void)fprintf(f,
                "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": %d, \"intermediate_size\": %d, "
                "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"vocab_size\": %d, \"rms_norm_eps\": 1e-5, "
                "\"hidden_act\": \"silu\", \"max_position_embeddings\": %d, \"tie_word_embeddings\": false, \"bos_token_id\": 1, \"eos_token_id\": 2}\n",
                WIDTH, MLP, LAYERS, HEADS, HEADS, vocab, context);
  if (fclose(f)) exit(1);
}
