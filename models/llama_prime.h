/* llama_prime.h - a start for small models that are to look things up: some heads begin with the attention they would need long to find.
 *
 * A model of a few million weights finds out by itself that a token it has seen before was followed by one that may follow again, but only
 * after many thousand batches ("induction heads", Olsson et al. 2022). Primed, it begins there. Which numbers the other weights hold, and
 * what the primed heads become, is the training's. Related: Trockman & Kolter 2023 (mimetic initialisation). */
#ifndef ICE_LLAMA_PRIME_H
#define ICE_LLAMA_PRIME_H

#include "models/llama_grad.h"

/** Changes weights that llama_learner_init() has set. ICE_USAGE for a model of less than 3 layers or 4 heads, or of grouped queries. */
int llama_learner_prime(llama_learner *l, ice_err *e);

#endif
