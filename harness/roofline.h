/* roofline.h - what this machine can do at most, and what share of it a method reached.
 *
 * Model   Williams, Waterman & Patterson 2009 (CACM 52(4)): work of F flops that moves B bytes takes at least
 *         max(F / peak, B / bandwidth).
 * Peak    multiply-adds in registers (attn_micro.peak), as fast as they go; beside it cblas_sgemm of 1024 x 1024 matrices,
 *         one per thread at a time: what a tuned library makes of that.
 * Bytes   per second of copying (2 x 4 bytes a float) and of y += a x (3 x 4 bytes, no hidden reads), over arrays beyond
 *         the last cache and over arrays that fill half of each thread's L2.
 * F, B    of an attention: 2 d flops for each q.k product it evaluated and 2 dv for each value it weighed, so exponentials,
 *         selection, routing and index building count as nothing; Q, K, V read once and the output written once. A share is
 *         thus a lower bound of how busy the machine was, and above 1 only if the limit was measured badly.
 * Limits are the best of several tries: they are to be what can be reached. */
#ifndef ICE_ROOFLINE_H
#define ICE_ROOFLINE_H

#include "harness/measure_tensors.h"

typedef struct roofline {
  int threads;
  double fma, sgemm;                     /* flops per second, all threads together */
  double copy, update;                   /* bytes per second, memory               */
  double l2_copy, l2_update;             /* the same within L2                     */
  int64_t memory_bytes, l2_bytes;        /* sizes of the arrays, all threads       */
} roofline;

/** Measures with `threads` threads; about a second. ICE_INTERNAL without memory. */
int roofline_measure(int threads, roofline *out, ice_err *e);

typedef struct roofline_share {
  double flops, bytes;          /* F and B                                         */
  double rate;                  /* flops per second reached                        */
  double limit;                 /* flops per second that the model allows          */
  int memory_bound;             /* 1: bytes set the limit                          */
  double share, share_of_sgemm; /* rate / limit, rate / sgemm                      */
} roofline_share;

/** Of `pairs` products on a set of problems in ns nanoseconds. */
roofline_share roofline_of(const roofline *r, const measure_set *set, uint64_t pairs, double ns);

#endif
