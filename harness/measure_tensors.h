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

#endif
