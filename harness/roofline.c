/* roofline.c - see roofline.h */
#include "harness/roofline.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>
#include <unistd.h>

#include "kernels/core/alloc.h"
#include "kernels/core/blas.h"
#include "kernels/core/clock.h"
#include "kernels/micro/micro.h"

enum {
  TRIES = 9,
  GEMM_N = 1024,
  FMA_ROUNDS = 2000000,      /* about 10 ms */
  L2_PASSES = 400,           /* over half a cache: a few milliseconds */
  DEFAULT_L2 = 512 << 10,    /* where the system does not tell */
  DEFAULT_L3 = 64 << 20,
  MOST_MEMORY = 1 << 29
};

typedef struct bench { /* memory of one thread */
  const attn_micro *mk;
  float *x, *y, *z;
  int64_t n;
  float sum;
} bench;

/* Kernels: one go each, returns the flops or bytes it stands for. */
static double go_fma(bench *b) {
  float sum;
  const double flops = b->mk->peak(FMA_ROUNDS, &sum);
  b->sum += sum;
  return flops;
}
static double go_sgemm(bench *b) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, GEMM_N, GEMM_N, GEMM_N, 1.0f, b->x, GEMM_N, b->y, GEMM_N, 0.0f,
              b->z, GEMM_N);
  return 2.0 * GEMM_N * GEMM_N * GEMM_N;
}
static double go_copy(bench *b) {
  memcpy(b->y, b->x, (size_t)b->n * sizeof *b->x);
  return 8.0 * (double)b->n;
}
static double go_update(bench *b) {
  b->mk->axpy(b->n, 1e-3f, b->x, b->y);
  return 12.0 * (double)b->n;
}
static double repeat(bench *b, double (*go)(bench *)) {
  double sum = 0.0;
  for (int i = 0; i < L2_PASSES; i++) sum += go(b);
  return sum;
}
static double go_l2_copy(bench *b) { return repeat(b, go_copy); }
static double go_l2_update(bench *b) { return repeat(b, go_update); }

/* Best rate of all threads together, n floats in each array of a thread; NAN without memory. */
static double best_rate(int threads, int64_t n, int arrays, double (*go)(bench *)) {
  const attn_micro *mk = attn_micro_get();
  double best = 0.0, work = 0.0;
  int64_t start = 0;
  int starved = 0;
#pragma omp parallel num_threads(threads) reduction(| : starved)
  {
    bench b = {.mk = mk, .n = n};
    float *all = attn_alloc((size_t)(n * arrays) * sizeof *all + 64);
    starved = all == NULL;
    for (int64_t i = 0; all && i < n * arrays; i++) all[i] = (float)(i % 7); /* touched where it will be used */
    b.x = all;
    b.y = all ? all + n : NULL;
    b.z = all ? all + 2 * n : NULL;
    for (int t = 0; t <= TRIES; t++) { /* the first one warms up */
#pragma omp barrier
#pragma omp single
      {
        work = 0.0;
        start = attn_now_ns();
      }
      const double mine = all ? go(&b) : 0.0;
#pragma omp atomic
      work += mine;
#pragma omp barrier
#pragma omp single
      {
        const double rate = work / (double)(attn_now_ns() - start) * 1e9;
        if (t && rate > best) best = rate;
      }
    }
    if (b.sum < 0.0f) starved = 1; /* never: the sum is used */
    attn_free(all);
  }
  return starved ? NAN : best;
}

static int64_t cache_bytes(int name, int64_t otherwise) {
  const long n = sysconf(name);
  return n > 0 ? n : otherwise;
}

int roofline_measure(int threads, roofline *out, ice_err *e) {
  const int64_t l2 = cache_bytes(_SC_LEVEL2_CACHE_SIZE, DEFAULT_L2), l3 = cache_bytes(_SC_LEVEL3_CACHE_SIZE, DEFAULT_L3);
  const int64_t memory = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
  int64_t big = 4 * l3;
  if (big > MOST_MEMORY) big = MOST_MEMORY;
  if (big > memory / 8) big = memory / 8;
  const int64_t far = big / 2 / (int64_t)sizeof(float) / threads, near = l2 / 4 / (int64_t)sizeof(float);
  attn_blas_serial();
  *out = (roofline){.threads = threads,
                    .memory_bytes = far * threads * 2 * (int64_t)sizeof(float),
                    .l2_bytes = near * threads * 2 * (int64_t)sizeof(float)};
  out->fma = best_rate(threads, 0, 0, go_fma);
  out->sgemm = best_rate(threads, (int64_t)GEMM_N * GEMM_N, 3, go_sgemm);
  out->copy = best_rate(threads, far, 2, go_copy);
  out->update = best_rate(threads, far, 2, go_update);
  out->l2_copy = best_rate(threads, near, 2, go_l2_copy);
  out->l2_update = best_rate(threads, near, 2, go_l2_update);
  if (isfinite(out->fma + out->sgemm + out->copy + out->update + out->l2_copy + out->l2_update)) return ICE_OK;
  return ice_fail(e, ICE_INTERNAL, "--roofline: out of memory for arrays of %lld bytes", (long long)big);
}

roofline_share roofline_of(const roofline *r, const measure_set *set, uint64_t pairs, double ns) {
  const attn_problem *first = &set->t->in.pb;
  roofline_share s = {.flops = 2.0 * (double)(first->d + first->dv) * (double)pairs};
  for (int i = 0; i < set->n; i++) {
    const attn_problem *pb = &set->t[i].in.pb;
    s.bytes += 4.0 * (double)pb->b * (double)(pb->d + pb->dv) *
               ((double)pb->h * (double)pb->nq + (double)pb->hkv * (double)pb->nk);
  }
  const double bandwidth = r->copy > r->update ? r->copy : r->update;
  const double compute_ns = s.flops / r->fma * 1e9, memory_ns = s.bytes / bandwidth * 1e9;
  s.memory_bound = memory_ns > compute_ns;
  s.rate = s.flops / ns * 1e9;
  s.limit = s.memory_bound ? s.flops / memory_ns * 1e9 : r->fma;
  s.share = s.limit > 0.0 ? s.rate / s.limit : 0.0;
  s.share_of_sgemm = s.rate / r->sgemm;
  return s;
}
