/* isa_avx2.c - micro.inc compiled with the words of vec_avx2.h. */
#include "kernels/micro/exp2_poly.h"
#include "kernels/micro/vec_avx2.h"
#define MICRO_TABLE attn_micro_avx2
#define MICRO_NAME "avx2"
#include "kernels/micro/micro.inc"
