/* sequence.h - one example through the encoder and back: the unit of work of the trainer. */
#ifndef ICE_SEQUENCE_H
#define ICE_SEQUENCE_H

#include "models/network.h"

/** Working memory of one thread for examples of up to n_max tokens per input. */
typedef struct sequence sequence;
int sequence_create(sequence **s, const network *net, const attn_method *method, const void *params, int64_t n_max,
                    ice_err *e);
void sequence_destroy(sequence *s);

/** Forward and backward of one example. ids[i], n[i] as in encoder_forward (not checked again). Gradients of
 *  weight * cross entropy go to g (bound to memory whose position rows [0, max n) and whole rest are zero). Returns an
 *  attn_status; *loss is the cross entropy, *correct whether argmax equals the label. key: of the dropout
 *  masks; draw: seed of what a randomised attention draws, the same for all examples of a step. */
attn_status sequence_gradient(sequence *s, const network *net, const int32_t *const *ids, const int64_t *n,
                              int32_t label, float weight, float dropout, uint64_t key, uint64_t draw, const network_grad *g,
                              double *loss, int *correct);

#endif
