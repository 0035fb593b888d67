/* isa_avx512vnni.c - micro.inc compiled with the words of vec_avx512.h for CPUs with VNNI: 8-bit products in one
 * instruction. Everything else, and every bit, is that of isa_avx512.c. */
#include "kernels/micro/exp2_poly.h"
#include "kernels/micro/vec_avx512.h"
#define MICRO_TABLE attn_micro_avx512vnni
#define MICRO_NAME "avx512"
#include "kernels/micro/micro.inc"
