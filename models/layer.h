/* layer.h - one encoder layer, forward and backward, on the rows of a sequence. Shared by inference and training.
 *
 *   a = LN1(x)   q,k,v = Wq a, Wk a, Wv a   o = attention(q,k,v)   h = x + D(Wo o)
 *   c = LN2(h)   u = W1 c   g = D(gelu(u))  y = h + D(W2 g)              D = dropout, identity in inference
 *
 * Everything but the attention is local to a row, so inference cuts the rows among threads and training runs whole
 * sequences on one thread each, through the same functions. */
#ifndef ICE_LAYER_H
#define ICE_LAYER_H

#include <stdint.h>

#include "kernels/micro/micro.h"

/** y = W x + b with W [out, in] as in checkpoints. wt: W^T packed in panels (attn_pack_transposed). */
typedef struct linear {
  int64_t in, out;
  const float *w, *b, *wt;
} linear;

/** Where the gradients of a linear go (same shapes), summed into. */
typedef struct linear_grad {
  float *w, *b;
} linear_grad;

typedef struct norm {
  const float *g, *b;
} norm;
typedef struct norm_grad {
  float *g, *b;
} norm_grad;

/** y [rows, out] = x [rows, in] W^T + b. */
void linear_forward(const attn_micro *mk, const linear *l, int64_t rows, const float *x, float *y);
/** Adds to the weight gradients; dx [rows, in] is overwritten (add_dx = 0), summed into (1), or skipped (NULL). */
void linear_backward(const attn_micro *mk, const linear *l, int64_t rows, const float *x, const float *dy, float *dx,
                     int add_dx, linear_grad grad);

typedef struct layer_weights {
  norm norm1, norm2;
  linear q, k, v, o, up, down; /* k: nothing when queries and keys are shared */
  const float *learned;        /* of the attention; NULL: none */
  size_t learned_bytes;
} layer_weights;
typedef struct layer_grads {
  norm_grad norm1, norm2;
  linear_grad q, k, v, o, up, down;
  float *learned;
} layer_grads;

/** Activations of one layer, [n, width] unless said otherwise. Inference may let layers share one set. */
typedef struct layer_acts {
  float *x, *a, *q, *k, *v, *o, *h, *c, *y;
  float *u, *g;                         /* [n, mlp] */
  float *mean1, *rstd1, *mean2, *rstd2; /* [n] */
} layer_acts;

/** Floats that one set of activations takes for n rows, without x and y. */
int64_t layer_acts_floats(int64_t n, int64_t width, int64_t mlp);
/** Points everything but x and y into p. */
void layer_acts_carve(layer_acts *s, float *p, int64_t n, int64_t width, int64_t mlp);

/** Dropout of the three places D of a layer: probability and a key (0 probability: identity). */
typedef struct layer_drop {
  float p;
  uint64_t key;
} layer_drop;

/** Are the keys the queries? */
static inline int layer_shared_qk(const layer_weights *w) { return w->k.out == 0; }
/** x -> a, q, k, v for rows [r0, r1); k is not touched when it is q. */
void layer_before_attention(const attn_micro *mk, const layer_weights *w, const layer_acts *s, int64_t r0, int64_t r1);
/** x, o -> h, c, u, g, y for rows [r0, r1). */
void layer_after_attention(const attn_micro *mk, const layer_weights *w, const layer_acts *s, int64_t r0, int64_t r1,
                           layer_drop drop);
/** dy -> dx (partly: the residual and MLP path), do [n, width]. t1 [n, width] and t2 [n, mlp] are working memory;
 *  dy is consumed: on return it holds the gradient with respect to h, which is also the residual part of dx. */
void layer_after_backward(const attn_micro *mk, const layer_weights *w, const layer_acts *s, int64_t n, layer_drop drop,
                          float *dy, float *d_o, float *t1, float *t2, const layer_grads *grad);
/** dq (shared: sum of what comes from queries and keys), dk, dv -> adds to dx (which holds the residual part). t1 [n, width] is working memory. */
void layer_before_backward(const attn_micro *mk, const layer_weights *w, const layer_acts *s, int64_t n,
                           const float *dq, const float *dk, const float *dv, float *dx, float *t1,
                           const layer_grads *grad);

#endif
