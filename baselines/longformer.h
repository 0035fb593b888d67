/* longformer.h - parameters of method "longformer". */
#ifndef BASE_LONGFORMER_H
#define BASE_LONGFORMER_H

#include "kernels/attn.h"

typedef struct longformer_params {
  int64_t window, global;
} longformer_params;

extern const attn_method attn_method_longformer;

#endif
