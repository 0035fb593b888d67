/* llama_run.h - the state of a run of a Llama model: what llama_run.c, the rows, and llama_attend.c, the attention, share. */
#ifndef ICE_LLAMA_RUN_H
#define ICE_LLAMA_RUN_H

#include "models/llama_model.h"

enum { LLAMA_ROWS = 1024 }; /* rows of a chunk: what the expansion of a block of weights is shared by */

typedef struct llama_block { /* memory that only grows */
  void *p;
  size_t bytes;
} llama_block;

struct llama_run {
  const llama *m;
  llama_slot slot;
  int64_t capacity, n;   /* tokens that fit, tokens held */
  int exact;             /* the prompt was short: `dense` everywhere, in decoding, too */
  float *k, *v;          /* cache [layers, kv_heads, capacity, head_dim] */
  float *cosine, *sine;  /* [capacity, head_dim / 2] */
  float *logits;         /* [vocab] */
  llama_block rows, work, plan, scratch;
  float *x, *q, *o;      /* [rows of the prompt, width], [.., heads * head_dim] twice: in rows */
  float *a, *key, *gate, *up; /* [chunk, width], [chunk, kv_heads * head_dim], [chunk, mlp] twice: in work */
  float *product;             /* working memory of products, too */
  /* decoding */
  float *score;          /* [heads, capacity] */
  void **index;          /* [layers] plans of a method that appends; NULL: exact attention in this layer */
  size_t index_bytes;
  llama_block index_scratch;
  uint8_t *mask;         /* [capacity] the keys there are when the index is built */
};

/** Makes the block at least `bytes` long; what was in it is lost. */
int llama_grow(llama_block *b, size_t bytes, ice_err *e);

typedef struct llama_seen { /* who looks at the attention calls of a prompt, and the time that is not the model's */
  void (*observer)(void *ctx, const encoder_call *call);
  void *ctx;
  uint64_t outside_ns; /* memory, preparation, observers */
} llama_seen;

/** Attention of one layer for the last n tokens of the cache, whose queries are r->q; into r->o. Timed. */
int llama_attend(llama_run *r, int layer, int64_t n, llama_cost *cost, llama_seen *seen, ice_err *e);
/** The same for one token, r->q to r->o [heads * head_dim]. */
int llama_attend_one(llama_run *r, int layer, ice_err *e);
/** Checks that the method of the slot can do prompts of this model. */
int llama_check_slot(const llama_run *r, ice_err *e);
/** Frees the index of decoding. */
void llama_drop_index(llama_run *r);

#endif
