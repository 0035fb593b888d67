/* blas.h - OpenBLAS as a serial library: our own loops bring the threads. */
#ifndef ATTN_BLAS_H
#define ATTN_BLAS_H

/** From the first call on every BLAS routine runs on the thread that calls it, whatever build of OpenBLAS is installed
 *  (pthread, OpenMP, serial). Cheap to repeat, safe from any thread. */
void attn_blas_serial(void);
/** Build string of the library in use ("OpenBLAS 0.3.21 ..."); never NULL. */
const char *attn_blas_config(void);
/** Name of its kernel set for this CPU ("SkylakeX"); never NULL. */
const char *attn_blas_kernel(void);

#endif
