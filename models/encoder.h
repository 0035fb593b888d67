/* encoder.h - the LRA encoder: a small pre-norm Transformer classifier with any registered attention in its slot.
 *
 *   x = tok[id] + pos[i]
 *   per layer:  h = x + Attn(LN1(x));  x = h + MLP(LN2(h)),  MLP = W2 gelu(W1 . + b1) + b2
 *   final LN; sum over the valid positions divided by the padded length L; head: W2 relu(W1 p + b1) + b2
 *
 * Sizes of the Nystromformer LRA code: width 64, 2 layers, 2 heads of 32, MLP 128. Source: mlpen/Nystromformer
 * LRA/code/model.py. Padded positions are never computed, nor are those inside a sequence that have id 0 (black pixels): the
 * others keep their own positions. On request (encoder_slot.padded) they are computed and masked, as that code does. */
#ifndef ICE_ENCODER_H
#define ICE_ENCODER_H

#include <stdint.h>

#include "kernels/attn.h"
#include "kernels/core/err.h"

#define ENCODER_MAX_LAYERS 8

/** A tensor that the attention learned; see attn_method.learned. */
typedef struct encoder_learned {
  char name[16]; /* "mha.attn." + name in the checkpoint */
  int rank;
  int64_t shape[3];
  float mean, sd; /* of its start; 0 in a loaded model */
} encoder_learned;

typedef struct encoder_config {
  int vocab, positions; /* table rows; positions is also the padded length L of the pooling */
  int width, layers, heads, mlp, head_hidden, classes;
  int inputs;    /* 1, or 2: dual head on [p0; p1; p0*p1; p0-p1] */
  int shared_qk; /* 1: no W_k, the keys are the queries */
  int n_learned; /* tensors of the attention in every layer, in this order */
  encoder_learned learned[ATTN_MAX_LEARNED];
} encoder_config;

/** A parameter tensor inside the flat parameter vector. */
typedef struct encoder_tensor {
  char name[64]; /* checkpoint name, as in the Nystromformer code: "model.transformer_0.mha.W_q.weight" */
  int rank;
  int64_t shape[3];
  int64_t offset; /* floats from the start of the vector */
} encoder_tensor;

typedef struct encoder {
  encoder_config cfg;
  int64_t n_params;
  float *params; /* flat, owned */
  encoder_tensor *tensor;
  int n_tensors;
  char attention[32];         /* metadata of a loaded checkpoint: the method it was trained with ("softmax": exact ones) ... */
  char attention_params[512]; /* ... and its parameters, canonical JSON; "" when the file does not say */
} encoder;

/** The configuration of a task with the given vocabulary, positions, classes, inputs. */
encoder_config encoder_lra_config(int vocab, int positions, int classes, int inputs);
/** Gives the model the tensors that a method learns, and shared queries and keys where it needs them. ICE_USAGE with the
 *  method's text when it cannot stand in this model. */
int encoder_config_attention(encoder_config *c, const attn_method *m, const void *params, ice_err *e);
/** Do two configurations describe the same tensors? */
int encoder_same_shape(const encoder_config *a, const encoder_config *b);
/** Elements of a tensor. */
int64_t encoder_tensor_size(const encoder_tensor *t);
/** Allocates parameters (uninitialised). ICE_INTERNAL when out of memory, ICE_USAGE when sizes contradict. */
int encoder_create(encoder *m, const encoder_config *cfg, ice_err *e);
/** PyTorch's default initialisation: N(0, 0.02) tables, U(+-1/sqrt(fan_in)) linears, 1/0 norms; learned tensors as their method says. */
void encoder_init(encoder *m, uint64_t seed);
/** Takes over every tensor of `from` that has name and shape of one of m's; returns their number. */
int encoder_take(encoder *m, const encoder *from);
void encoder_destroy(encoder *m);
/** Loads a checkpoint; the configuration comes from the shapes, the number of heads from the metadata ("heads", 2 when
 *  absent). ICE_DATA, with file and tensor, for anything missing, superfluous, of another shape or not finite. */
int encoder_load(encoder *m, const char *path, ice_err *e);
/** Writes params (of m's layout) as safetensors with "heads" and further metadata (key, value, ..., NULL; may be NULL).
 *  The file appears whole or not at all. */
int encoder_save(const encoder *m, const float *params, const char *path, const char *const *meta, ice_err *e);

/** What one head of one layer gets. */
typedef struct encoder_head {
  const attn_method *method;
  const void *params;
} encoder_head;

/** What stands in the attention slot of every layer, and what is asked of it. */
typedef struct encoder_slot {
  const attn_method *method;
  const void *params;
  const encoder_head *heads; /* [layers, heads]: instead of method and params, by head; borrowed, may change between passes. NULL: all
                                heads alike. Neighbours with the same pointers share a call, seeded by the first. No learned tensors. */
  uint64_t seed; /* layer l uses attn_hash(seed, l, 0) */
  int threads; /* 1..4096 */
  int padded;  /* 1: every sequence is filled up to the model's positions with id 0; the attention gets all rows and a mask */
} encoder_slot;

/** One attention call, as seen by the observer below. */
typedef struct encoder_call {
  int layer, head; /* head: the first of problem.h; 0 when all heads are alike */
  const attn_method *method;
  const void *params;
  attn_problem problem;
  attn_view q, k, v;
  const uint8_t *kmask; /* [1, n] of a padded run, else NULL */
  attn_view out; /* [1, h, n, d]: what the slot computed */
} encoder_call;

/** Sums over the attention calls of one forward pass. */
typedef struct encoder_cost {
  uint64_t attention_ns, build_ns, query_ns, model_ns;
  uint64_t pairs, touched;               /* touched: bytes read, attn_stats.bytes; 0: unknown */
  uint64_t peak_bytes;                   /* largest plan + scratch + index of one call */
  uint64_t layer_ns[ENCODER_MAX_LAYERS]; /* attention time by layer */
} encoder_cost;

/** Working memory for forward passes up to n_max tokens (1..positions). Reused from call to call; one per thread of
 *  control. ICE_USAGE for n_max or threads out of range and for a padded slot whose method takes no mask, ICE_INTERNAL when
 *  out of memory. */
typedef struct encoder_run encoder_run;
int encoder_run_create(encoder_run **r, const encoder *m, const encoder_slot *slot, int64_t n_max, ice_err *e);
void encoder_run_destroy(encoder_run *r);
/** To be called after m->params changed. */
void encoder_run_refresh(encoder_run *r);
/** Forward pass of one example: ids[i] has n[i] tokens (1..positions, ids in 0..vocab-1, 0 = masked, i < inputs; attention
 *  sees the others, and is not called when there are none). logits [classes].
 *  cost may be NULL; observer (may be NULL) sees every attention call after it ran, outside the clock.
 *  ICE_INTERNAL with the method's own text when it refuses or fails, or when a logit is not finite; ICE_DATA for ids or
 *  lengths out of range. */
int encoder_forward(encoder_run *r, const int32_t *const *ids, const int64_t *n, float *logits, encoder_cost *cost,
                    void (*observer)(void *ctx, const encoder_call *call), void *ctx, ice_err *e);

#endif
