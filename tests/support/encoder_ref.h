/* encoder_ref.h - the LRA encoder and its loss in double precision, by plain loops from the definition of the model.
 *
 * Shares with the code under test only the names of the tensors, the hash that keys a dropout and the definition of a
 * mask's element (attn_drop_at). Everything is a smooth function of the parameters (but for the ReLU of the head), so
 * that central differences of the loss give gradients of eight digits. */
#ifndef TEST_ENCODER_REF_H
#define TEST_ENCODER_REF_H

#include <stdint.h>

#include "kernels/attn.h"
#include "models/encoder.h"

typedef struct ref_view { /* [b, h, n, width] in double; strides in elements, last axis dense */
  double *p;
  ptrdiff_t sb, sh, sn;
} ref_view;

/** out = softmax(scale q k^T, masked and causal as in attn.h) v, weights times the dropout mask of training: head
 *  (ib, ih) uses key attn_hash(key, ib, ih), row the query, column the rank of the key among the kept ones. */
void attention_ref(const attn_problem *pb, ref_view q, ref_view k, ref_view v, const uint8_t *kmask, float drop,
                   uint64_t key, ref_view out);

/** Initialises m, then moves every tensor away from its special start: gains off 1, biases off 0, tables of unit size,
 *  W_q and W_k large enough for peaked attention. A wrong factor or a forgotten term shows. */
void encoder_scramble(encoder *m, uint64_t seed);
/** n token ids in [1, vocab). */
void encoder_random_ids(int32_t *ids, int64_t n, int vocab, uint64_t seed);
/** Masks about two positions of five (id 0), the first one of an even seed; all of them for every = 1. */
void encoder_mask_ids(int32_t *ids, int64_t n, int every, uint64_t seed);

typedef struct encoder_ref {
  const encoder *m; /* layout and names; its float parameters are not read after creation */
  double *params;   /* [m->n_params], a copy that may be changed */
  double kink;      /* of the last loss: smallest |input| of the head's ReLU */
  /* The attention of layer l, one head after the other as in attention_ref, which it is when NULL. `learned`: the layer's learned
     tensors, one after the other, or NULL. */
  void (*attend)(void *ctx, int l, const attn_problem *pb, ref_view q, ref_view k, ref_view v, const double *learned, float drop, uint64_t key, ref_view out);
  void *ctx;
} encoder_ref;

/** Copies the parameters of m. Exits when memory is out. */
encoder_ref encoder_ref_new(const encoder *m);
void encoder_ref_free(encoder_ref *r);

/** Logits [classes] of one example; dropout 0 is inference. Arguments as of sequence_gradient. Returns the cross
 *  entropy against `label`. */
double encoder_ref_loss(encoder_ref *r, const int32_t *const *ids, const int64_t *n, int32_t label, float dropout,
                        uint64_t key, double *logits);

/** Central difference of the loss in parameter i. */
double encoder_ref_slope(encoder_ref *r, int64_t i, const int32_t *const *ids, const int64_t *n, int32_t label,
                         float dropout, uint64_t key);

#endif
