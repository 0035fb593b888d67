/* llama.h - models of the Llama architecture with any registered causal attention inside: prompt in, greedy tokens out.
 *
 *   x = embedding[id];   per layer:  x += Wo attention(rope(Wq a), rope(Wk a), Wv a),   a = RMSNorm(x)
 *                                    x += Wdown (silu(Wgate c) * Wup c),                c = RMSNorm(x)
 *   logits = Whead RMSNorm(x)
 *
 * Weights stay where they are, in the mapped file, in F32, F16, BF16 or Q8_0; products expand a block of rows at a time.
 * A prompt goes through layer by layer: what is local to a row in chunks of rows, attention over the whole prompt, so that
 * a method builds its index once a layer. Keys and values stay in the cache, from which decoding goes on. */
#ifndef ICE_LLAMA_H
#define ICE_LLAMA_H

#include <stdint.h>

#include "kernels/attn.h"
#include "kernels/core/err.h"
#include "models/encoder.h"

typedef struct llama_config {
  int64_t vocab, width, layers, heads, kv_heads, head_dim, mlp;
  int64_t context;   /* positions the model was made for, stretched by rope_scale; longer prompts are refused */
  float norm_eps;
  float rope_base;   /* 10000 */
  float rope_scale;  /* positions are divided by it: 4 for vicuna-7b-v1.5-16k */
  int rope_adjacent; /* pairs (2i, 2i+1), as in GGUF; otherwise (i, i + head_dim/2), as in Hugging Face folders */
  int tied;          /* the embedding is the head, too */
} llama_config;

typedef struct llama llama;

/** Opens a GGUF file, or a Hugging Face folder (config.json and model.safetensors, or its shards). ICE_DATA names file,
 *  key or tensor when something is missing, contradicts the rest, or is not supported. The tokenizer of the same path is
 *  opened by tokenizer_open(). */
int llama_open(llama **m, const char *path, ice_err *e);
/** A model without a file: random BF16 weights (for benchmarks of a shape). ICE_USAGE when sizes contradict. */
int llama_random(llama **m, const llama_config *cfg, uint64_t seed, ice_err *e);
/** NULL is fine. Runs must be destroyed before. */
void llama_close(llama *m);
const llama_config *llama_config_of(const llama *m);
/** Bytes of all weights as they are stored. */
uint64_t llama_weight_bytes(const llama *m);
/** Stretches the context: positions are divided by `factor` (>= 1), whatever the file says; context = context of the file
 *  times factor / its own factor. For files that lost their scaling. Before runs are created. */
int llama_set_rope_scale(llama *m, float factor, ice_err *e);

/** What stands in the attention slots. `encoder_slot`: method, parameters, seed, threads (of the whole model). */
typedef struct llama_slot {
  encoder_slot attention;
  int64_t dense_below;        /* prompts of fewer tokens get `dense` in every layer               */
  const uint8_t *dense_layer; /* [layers] 1: `dense` in this layer; NULL: the method everywhere   */
  int decode_dense;           /* 1: decode with exact attention even where the method can append  */
} llama_slot;

/** Sums over the calls it is handed to; zero it first. */
typedef struct llama_cost {
  uint64_t attention_ns;        /* of prompts: build + query, all layers                         */
  uint64_t build_ns, query_ns;  /* its two parts                                                 */
  uint64_t model_ns;            /* of prompts: the whole forward pass                            */
  uint64_t decode_attention_ns, decode_ns; /* of tokens generated one by one                     */
  uint64_t prompt_tokens, decode_tokens;
  uint64_t pairs;               /* q.k products of prompts                                       */
  uint64_t touched;             /* bytes read by them, attn_stats.bytes; 0: unknown              */
  uint64_t peak_bytes;          /* largest plan + scratch + index of one attention call          */
  uint64_t *layer_ns;           /* [layers] attention of prompts by layer; NULL: not wanted       */
} llama_cost;

/** State of one sequence: cache of keys and values for `capacity` tokens, and working memory. The slot's parameters must
 *  outlive it. ICE_USAGE when capacity exceeds the context or the method cannot do this model (its own text),
 *  ICE_INTERNAL when out of memory. */
typedef struct llama_run llama_run;
int llama_run_create(llama_run **r, const llama *m, const llama_slot *slot, int64_t capacity, ice_err *e);
void llama_run_destroy(llama_run *r);
/** Forgets the sequence; memory stays. */
void llama_run_reset(llama_run *r);
/** Bytes that the run holds: cache, working memory, plans. */
uint64_t llama_run_bytes(const llama_run *r);

/** Takes n >= 1 tokens behind what the run holds already. logits [vocab] of the last one (NULL: not wanted). cost may be
 *  NULL. The observer (may be NULL) sees every attention call after it ran, outside the clock.
 *  ICE_DATA: ids out of range, or more tokens than the capacity; the run is unchanged. ICE_INTERNAL, with the method's own
 *  text, when it refuses or fails, or when a logit is not finite. A run that failed must be reset. */
int llama_prefill(llama_run *r, const int32_t *ids, int64_t n, float *logits, llama_cost *cost,
                  void (*observer)(void *ctx, const encoder_call *call), void *ctx, ice_err *e);
/** One token more: decoding. Exact attention, or the method's with its index kept up to date (attn_method.append). */
int llama_step(llama_run *r, int32_t id, float *logits, llama_cost *cost, ice_err *e);

/** Resets, takes the prompt, then appends the most likely token (the lowest id on ties) up to max_new times. Stops behind
 *  the token `stop` (-1: never), which is part of the output. out [max_new], *n_out tokens. The prompt and max_new - 1
 *  tokens must fit into the capacity. */
int llama_generate(llama_run *r, const int32_t *prompt, int64_t n, int64_t max_new, int32_t stop, int32_t *out,
                   int64_t *n_out, llama_cost *cost, ice_err *e);

#endif
