/* network.h - the encoder's flat parameter vector seen as layers: what encoder_forward.c and train.c work with. */
#ifndef ICE_NETWORK_H
#define ICE_NETWORK_H

#include "models/encoder.h"
#include "models/layer.h"

/** Weights bound to a parameter vector, with every W^T packed for gemm. */
typedef struct network {
  const encoder_config *cfg;
  const float *tok, *pos; /* [vocab, width], [positions, width] */
  layer_weights layer[ENCODER_MAX_LAYERS];
  norm final;
  linear head1, head2;
  float *packed; /* owned */
} network;

/** Gradients bound to a vector of the same layout. */
typedef struct network_grad {
  float *tok, *pos;
  layer_grads layer[ENCODER_MAX_LAYERS];
  norm_grad final;
  linear_grad head1, head2;
} network_grad;

/** Binds to params (of m's layout), which must outlive the network, and packs. ICE_INTERNAL when out of memory. */
int network_create(network *net, const encoder *m, const float *params, ice_err *e);
/** Packs again after params changed. */
void network_pack(network *net);
void network_destroy(network *net);
/** Binds gradients to g (n_params floats of m's layout). */
void network_grad_bind(network_grad *out, const encoder *m, float *g);
/** Names, shapes and offsets of all tensors in layout order into out (NULL: only count); returns the number of floats.
 */
int64_t network_tensors(const encoder_config *cfg, encoder_tensor *out, int *count);
/** Most tensors an encoder can have. */
#define ENCODER_MAX_TENSORS (2 + (16 + ATTN_MAX_LEARNED) * ENCODER_MAX_LAYERS + 6)
/** Floats at the start of the vector that hold the position table (the only tensor of which a short sequence
 *  touches a part). */
int64_t network_position_floats(const encoder_config *cfg);

/** x [rows, width] = tok[ids] + pos of the positions that are not masked (id 0), in order; returns rows <= n. */
int64_t network_embed(const network *net, const int32_t *ids, int64_t n, float *x);
/** The same of all positions [cfg.positions, width], masked or not; those from n on have id 0. */
void network_embed_padded(const network *net, const int32_t *ids, int64_t n, float *x);
/** features = final norm of x [n, width], summed over rows, divided by the padded length. y, mean, rstd as of norm. */
void network_pool(const attn_micro *mk, const network *net, int64_t n, const float *x, float *y, float *mean,
                  float *rstd, float *pooled);
/** features [inputs == 2 ? 4*width : width] of the head from the pooled vectors of the inputs. */
void network_features(const network *net, const float *pooled, float *features);
/** hidden [head_hidden] after ReLU, logits [classes]. */
void network_head(const attn_micro *mk, const network *net, const float *features, float *hidden, float *logits);

#endif
