/* synth.h - synthetic Q, K, V from a seed, for `icebench attn --synth` and for tests.
 *
 * A source is text: NAME:KEY=VALUE,...
 *
 *   gauss      Hostile. All elements of Q, K, V are independent N(0,1): logits are N(0,1), the softmax spreads over
 * about n/e keys, and nothing can be found faster than by looking at every key. clustered  Friendly, shaped like heads
 * that look things up. A head has max(1, n/16) topics: random directions. A topic's share of the keys falls off like
 * 1/sqrt(rank); positions keep their topic for about 8 tokens, as text does. A key is its topic's direction plus N(0,
 * 0.25 / d) per element, its length log-normal (10 %). A query is made like a key, of a topic drawn anew per run of
 * positions from those keys that it can see, and scaled so that a perfect match has a logit of 14. The softmax then
 * holds most of its mass on one or two topics. A value is its topic's N(0,1) vector plus N(0, 0.25) noise. lowrank
 * Smooth. Q, K and V lie in a random subspace of 8 dimensions (or d), with logits of standard deviation 1.5, plus 1 %
 * noise: the attention matrix has low rank, as methods with features or landmarks assume.
 *
 * Keys: h heads (1), n tokens (1024), d width (64), seed (1), b batch (1), hkv key heads (h), nk keys (n), dv value
 * width (d), causal 0|1 (0). Bits depend on the source text's values alone. */
#ifndef ICE_SYNTH_H
#define ICE_SYNTH_H

#include <stdint.h>

#include "kernels/core/err.h"

typedef enum synth_kind { SYNTH_GAUSS, SYNTH_CLUSTERED, SYNTH_LOWRANK } synth_kind;

typedef struct synth_source {
  synth_kind kind;
  int64_t b, h, hkv, nq, nk, d, dv;
  uint64_t seed;
  int causal;
} synth_source;

/** Reads a source. ICE_USAGE with the place, the value and what is allowed. */
int synth_parse(const char *text, synth_source *out, ice_err *e);
/** Name of a kind. */
const char *synth_name(synth_kind k);
/** Fills q [b,h,nq,d], k [b,hkv,nk,d], v [b,hkv,nk,dv], dense, for a scale of 1/sqrt(d). ICE_INTERNAL without memory.
 */
int synth_fill(const synth_source *s, float *q, float *k, float *v, ice_err *e);

#endif
