/* machine.h - facts about machine and build that are stored with each result. */
#ifndef ICE_MACHINE_H
#define ICE_MACHINE_H

typedef struct machine_facts {
  char id[17];       /* hash of host-independent facts: cpu, cores, caches, memory */
  char cpu[128], os[128];
  char caches[96]; /* "L1d 32 KiB, L2 1 MiB, L3 32 MiB", of one core; "unknown" */
  int cores;
  long long memory_bytes;
  char blas[256];    /* OpenBLAS build string and the kernel in use */
  char isa[16];      /* vector kernels in use: scalar, avx2, avx512 */
  char compiler[128], cflags[512];
  char git_commit[64];
  int git_dirty;
  char git_diff[65]; /* SHA-256 of `git diff HEAD` when the program was built, "" for a clean tree */
  char version[32], variant[16];
  char environment[4096]; /* JSON object: the variables that may move numbers */
} machine_facts;

/** Filled on first call. */
const machine_facts *machine_get(void);

#endif
