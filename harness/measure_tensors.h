/* measure_tensors.h - an attention problem from .npy files or from a synthetic source, checked before anything runs. */
#ifndef ICE_MEASURE_TENSORS_H
#define ICE_MEASURE_TENSORS_H

#include "harness/measure_method.h"
#include "harness/npy.h"
#include "harness/synth.h"

typedef struct measure_tensors {
  measure_inputs in; /* views into what follows; pb.threads and pb.seed are the caller's to set */
  char task[64];     /* "tensors" or "synth/NAME" */
  char source[512];  /* path of Q, or the text of the source */
  char name[64];     /* of a call of a tape, "x17-l0": the folder of its outputs; "" */
  int layer;         /* of a tape; 0 */
  int64_t kept;      /* unmasked keys, all batch entries together */
  uint64_t hash;     /* XXH3 of shapes and contents */
  npy_array q, k, v, mask;
  uint8_t *kmask; /* [b, nk], owned */
} measure_tensors;

/** Reads arrays [n,d], [h,n,d] or [b,h,n,d], all of one rank; K and V may have fewer heads. mask: NULL, or a file of [nk] or
 *  [b,nk]. ICE_DATA names file, shape or place, what was found and what is allowed; NaN and infinity are refused where
 *  a query could see them. */
int measure_tensors_read(measure_tensors *t, const char *q, const char *k, const char *v, const char *mask, int causal,
                         ice_err *e);
/** Makes them from a source (synth.h); a mask file may be laid over it. */
int measure_tensors_synth(measure_tensors *t, const char *source, const char *mask, int causal, ice_err *e);
void measure_tensors_free(measure_tensors *t);

/** Problems that are measured as one: times are summed, errors pooled. One problem, or the calls of a tape (tape.h). */
typedef struct measure_set {
  measure_tensors *t; /* [n], owned */
  int n;
  int layers;                         /* 0: no layers to tell apart; otherwise those of t[].layer */
  char task[80], model[512], *origin; /* names of stored rows; what else a tape says of itself, as JSON, owned, or NULL */
  uint64_t hash;                      /* of all contents */
} measure_set;

/** A set of one problem, which the set takes over (*t is zeroed). On failure *t is freed. */
int measure_set_of_one(measure_set *set, measure_tensors *t, ice_err *e);
void measure_set_free(measure_set *set);
/** Threads and seed of every problem; problems of layer l have the seed that a model would give it. */
void measure_set_prepare(measure_set *set, int threads, uint64_t seed);

#endif
