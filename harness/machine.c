/* machine.c - see machine.h */
#include "harness/machine.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "kernels/core/blas.h"
#include "kernels/core/rng.h"
#include "kernels/micro/micro.h"
#include "version.h"

static void copy(char *out, size_t size, const char *text) { (void)snprintf(out, size, "%.*s", (int)size - 1, text); }

/* Value of the first line "key : value" of a file of /proc. */
static void proc_value(const char *path, const char *key, char *out, size_t size) {
  char line[512];
  FILE *f = fopen(path, "r");
  copy(out, size, "unknown");
  while (f && fgets(line, sizeof line, f)) {
    char *colon = strchr(line, ':');
    if (!colon || strncmp(line, key, strlen(key)) != 0) continue;
    colon += 1 + strspn(colon + 1, " \t");
    colon[strcspn(colon, "\n")] = 0;
    copy(out, size, colon);
    break;
  }
  if (f) (void)fclose(f);
}

/* One line of a file of the kernel about the caches of the first core; 0 when there is none. */
static int cache_fact(int index, const char *name, char *out, size_t size) {
  char path[96];
  (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, name);
  FILE *f = fopen(path, "r");
  const int got = f && fgets(out, (int)size, f) != NULL;
  if (got) out[strcspn(out, "\n")] = 0;
  if (f) (void)fclose(f);
  return got;
}

/* Data caches as the kernel knows them. (sysconf of glibc 2.36 multiplies the L3 of some AMD processors.) */
static void read_caches(char *out, size_t size) {
  char level[16], type[32], bytes[32];
  size_t n = 0;
  copy(out, size, "unknown");
  for (int i = 0; i < 16 && n < size; i++) {
    if (!cache_fact(i, "level", level, sizeof level) || !cache_fact(i, "type", type, sizeof type) || !cache_fact(i, "size", bytes, sizeof bytes)) break;
    const long kib = strtol(bytes, NULL, 10);
    if (!strcmp(type, "Instruction") || kib <= 0) continue;
    const int mib = kib % 1024 == 0;
    n += (size_t)snprintf(out + n, size - n, "%sL%s%s %ld %s", n ? ", " : "", level, strcmp(type, "Data") ? "" : "d", mib ? kib / 1024 : kib,
                          mib ? "MiB" : "KiB");
  }
}

/* Variables by which libraries choose threads, kernels and memory. Folders and files do not matter: what was read is
 * told by hashes. */
static void read_environment(char *out, size_t size) {
  static const char *const prefix[] = {"OMP_", "GOMP_", "KMP_", "OPENBLAS_", "GOTO_", "MALLOC_", "ATTN_", NULL};
  static const char *const name[] = {"GLIBC_TUNABLES", "LD_PRELOAD", "ICEBENCH_THREADS", "ICEBENCH_ALLOW_DEBUG", "SLURM_CPUS_PER_TASK", NULL};
  json_t *all = json_object();
  for (char **v = environ; v && *v; v++) {
    const size_t n = strcspn(*v, "=");
    char key[128];
    int wanted = 0;
    if (n >= sizeof key) continue;
    (void)snprintf(key, sizeof key, "%.*s", (int)n, *v);
    for (int i = 0; prefix[i]; i++) wanted |= !strncmp(key, prefix[i], strlen(prefix[i]));
    for (int i = 0; name[i]; i++) wanted |= !strcmp(key, name[i]);
    json_t *value = wanted && (*v)[n] ? json_string(*v + n + 1) : NULL; /* NULL: no UTF-8 either */
    if (wanted) (void)json_object_set_new(all, key, value ? value : json_null());
  }
  char *text = all ? json_dumps(all, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
  copy(out, size, text && strlen(text) < size ? text : "{\"too_long\":true}");
  free(text);
  json_decref(all);
}

static void read_facts(machine_facts *m) {
  struct utsname u;
  proc_value("/proc/cpuinfo", "model name", m->cpu, sizeof m->cpu);
  if (uname(&u) == 0) (void)snprintf(m->os, sizeof m->os, "%.40s %.60s", u.sysname, u.release);
  else copy(m->os, sizeof m->os, "unknown");
  m->cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
  m->memory_bytes = (long long)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
  (void)snprintf(m->blas, sizeof m->blas, "%s, kernel %s", attn_blas_config(), attn_blas_kernel());
  copy(m->isa, sizeof m->isa, attn_isa_name());
  copy(m->compiler, sizeof m->compiler, ICE_COMPILER);
  copy(m->cflags, sizeof m->cflags, ICE_CFLAGS);
  copy(m->git_commit, sizeof m->git_commit, ICE_GIT_COMMIT);
  m->git_dirty = ICE_GIT_DIRTY;
  copy(m->git_diff, sizeof m->git_diff, ICE_GIT_DIFF);
  copy(m->version, sizeof m->version, ICE_VERSION);
  copy(m->variant, sizeof m->variant, ICE_VARIANT);
  read_environment(m->environment, sizeof m->environment);
  uint64_t hash = attn_hash((uint64_t)m->cores, (uint64_t)(m->memory_bytes >> 28), 0);
  read_caches(m->caches, sizeof m->caches);
  for (const char *c = m->caches; *c; c++) hash = attn_hash(hash, (uint64_t)(unsigned char)*c, 1);
  for (const char *c = m->cpu; *c; c++) hash = attn_hash(hash, (uint64_t)(unsigned char)*c, 0);
  (void)snprintf(m->id, sizeof m->id, "%016llx", (unsigned long long)hash);
}

const machine_facts *machine_get(void) {
  static machine_facts facts;
  static int known;
#pragma omp critical(machine_facts)
  if (!known) {
    read_facts(&facts);
    known = 1;
  }
  return &facts;
}
