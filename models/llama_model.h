/* llama_model.h - a Llama model's weights and where they come from: what the engine, the converter and the readers share. */
#ifndef ICE_LLAMA_MODEL_H
#define ICE_LLAMA_MODEL_H

#include "models/gguf.h"
#include "models/llama.h"
#include "models/matrix.h"
#include "models/safetensors.h"

#define LLAMA_MAX_LAYERS 1024

typedef struct llama_layer {
  matrix attn_norm, q, k, v, o; /* q [heads * head_dim, width], k and v [kv_heads * head_dim, width], o [width, heads * head_dim] */
  matrix mlp_norm, gate, up, down; /* gate and up [mlp, width], down [width, mlp] */
} llama_layer;

struct llama {
  llama_config cfg;
  float file_scale; /* rope_scale of the file; context / file_scale positions were trained */
  matrix embed, norm, head; /* head = embed when tied */
  llama_layer *layer;       /* [layers] */
  gguf_file gguf;           /* one of these three holds the data */
  st_file *shard;
  int shards;
  uint8_t *memory;
};

/** A weight under its names in both formats. */
typedef struct llama_part {
  char gguf[80], hf[96];
  matrix *at;
  int64_t rows, cols;
  int rank;           /* 1: a vector [cols] */
  int64_t rope_heads; /* rows of q or k: heads whose rows the formats order differently; 0 otherwise */
} llama_part;

/** Weights of m (configuration and layers set), in file order; the head is absent when tied. out may be NULL: only count. */
int llama_parts(llama *m, llama_part *out);
/** Checks the sizes of cfg; `name` begins the message, `code` is the failure (ICE_DATA of files, ICE_USAGE of callers). */
int llama_check_config(const llama_config *cfg, const char *name, int code, ice_err *e);
/** Allocates the layers. */
int llama_create(llama **m, const llama_config *cfg, ice_err *e);

int llama_open_gguf(llama **m, const char *path, ice_err *e);
/** The model in an open file, which is taken over (also when it fails). */
int llama_from_gguf(llama **m, gguf_file *f, ice_err *e);
int llama_open_folder(llama **m, const char *path, ice_err *e);

/** Row of GGUF's order that holds row r of Hugging Face's order, for heads of head_dim rows: half s, pair i of a head is row
 *  s * head_dim/2 + i there and 2 i + s here. Source: llama.cpp's converter (permute). */
static inline int64_t llama_gguf_row(int64_t r, int64_t head_dim) {
  const int64_t half = head_dim / 2, head = r / head_dim * head_dim, in = r % head_dim;
  return head + 2 * (in % half) + in / half;
}

#endif
