/* capability.h - names of the capability bits of attn.h, for people. */
#ifndef ICE_CAPABILITY_H
#define ICE_CAPABILITY_H

#include <stdint.h>

#include "kernels/attn.h"

static const struct {
  uint32_t bit;
  const char *name;
} capabilities[] = {{ATTN_CAP_EXACT, "exact"},
                    {ATTN_CAP_CAUSAL, "causal"},
                    {ATTN_CAP_MASK, "mask"},
                    {ATTN_CAP_CROSS, "cross"},
                    {ATTN_CAP_GQA, "grouped-query"},
                    {ATTN_CAP_NEEDS_TRAINING, "needs-training"},
                    {ATTN_CAP_RANDOMISED, "randomised"},
                    {ATTN_CAP_STOCHASTIC, "stochastic"},
                    {ATTN_CAP_ORDER_FREE, "order-free"},
                    {ATTN_CAP_CONVERGES, "converges"},
                    {ATTN_CAP_SHARED_QK, "shared-qk"},
                    {ATTN_CAP_KEYSET, "key-sets"},
                    {0, NULL}};

#endif
