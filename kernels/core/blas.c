/* blas.c - see blas.h. The pthread build has one global number of threads, and calls from several threads at once are
 * safe when it is 1. The OpenMP build is serial inside a parallel region anyway, but sets the caller's number of OpenMP
 * threads on the way, which is put back here. */
#include "kernels/core/blas.h"

#include <cblas.h>
#include <omp.h>
#include <pthread.h>

static void make_serial(void) {
  const int threads = omp_get_max_threads();
  openblas_set_num_threads(1);
  omp_set_num_threads(threads);
}

void attn_blas_serial(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  (void)pthread_once(&once, make_serial);
}

const char *attn_blas_config(void) {
  const char *text = openblas_get_config();
  return text ? text : "unknown";
}

const char *attn_blas_kernel(void) {
  const char *text = openblas_get_corename();
  return text ? text : "unknown";
}
