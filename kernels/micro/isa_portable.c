/* isa_portable.c - micro.inc compiled with the words of vec_portable.h. */
#include "kernels/micro/exp2_poly.h"
#include "kernels/micro/vec_portable.h"
#define MICRO_TABLE attn_micro_scalar
#define MICRO_NAME "scalar"
#include "kernels/micro/micro.inc"
