/* isa_avx512.c - micro.inc compiled with the words of vec_avx512.h. */
#include "kernels/micro/exp2_poly.h"
#include "kernels/micro/vec_avx512.h"
#define MICRO_TABLE attn_micro_avx512
#define MICRO_NAME "avx512"
#include "kernels/micro/micro.inc"
