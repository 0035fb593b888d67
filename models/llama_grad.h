/* llama_grad.h - loss and gradient of a Llama model on batches of token sequences: the base of its training.
 *
 * Weights are one flat f32 vector, in the order of llama_parts(); a batch of sequences of equal length goes through at once, the
 * products over all its rows. Threads share rows and blocks of weights, and every sum has a fixed order: the bits do not depend on
 * their number. */
#ifndef ICE_LLAMA_GRAD_H
#define ICE_LLAMA_GRAD_H

#include "models/llama.h"

typedef struct llama_learner llama_learner;

/** Weights (uninitialised) and memory for batches of `batch` sequences of n tokens. method must have a training part and be
 *  causal; params are its parameters. ICE_USAGE when sizes contradict, ICE_INTERNAL when out of memory. */
int llama_learner_create(llama_learner **l, const llama_config *cfg, const attn_method *method, const void *params, int batch, int64_t n,
                         int threads, ice_err *e);
void llama_learner_destroy(llama_learner *l);
/** Number of weights, and the vector itself, owned by the learner: change it between calls as you like. */
int64_t llama_learner_count(const llama_learner *l);
float *llama_learner_weights(llama_learner *l);
/** The same weights as a model that can run and be written; valid as long as the learner, not to be closed. */
llama *llama_learner_model(llama_learner *l);
/** Norms 1, matrices N(0, 1 / inputs): an embedding has length 1, and the logit of a row that points to it can reach sqrt(width), also in
 *  narrow models. The two matrices that add to the residual are smaller, so that what they add is about half of an embedding. */
void llama_learner_init(llama_learner *l, uint64_t seed);
/** Takes the weights of a model of the same sizes (whatever its storage and rope order). ICE_USAGE when sizes differ. */
int llama_learner_take(llama_learner *l, const llama *from, ice_err *e);

/** ids [batch, n + 1]: each token but the last predicts the next. position [batch, n] of the tokens, 0 .. context - 1 (NULL: 0 .. n - 1);
 *  weight [batch, n] >= 0 of the predictions (NULL: all 1).
 *  *loss = weighted mean of the cross entropy; g [count] (NULL: only the loss) = its gradient, overwritten. ICE_DATA for ids or positions out of
 *  range or weights that sum to nothing, ICE_INTERNAL with the method's text. */
int llama_gradient(llama_learner *l, const int32_t *ids, const int32_t *position, const float *weight, float *g, double *loss, ice_err *e);

#endif
