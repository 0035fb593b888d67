/* replay.c - runs a fuzz target over saved inputs, without a fuzzer: `fuzz_npy.replay tests/fuzz/corpus/fuzz_npy/x ...`.
 * Speaks cmocka's language for tests/run.sh. A target that finds a fault aborts, and the exit code tells. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv) {
  int bad = 0;
  for (int i = 1; i < argc; i++) {
    FILE *f = fopen(argv[i], "rb");
    uint8_t *bytes = malloc(1 << 20);
    const size_t n = f && bytes ? fread(bytes, 1, 1 << 20, f) : 0;
    uint8_t *exact = malloc(n ? n : 1);
    const char *slash = strrchr(argv[i], '/');
    if (!f || !bytes || !exact) {
      (void)printf("[  FAILED  ] unreadable\n");
      bad = 1;
    } else {
      memcpy(exact, bytes, n);
      (void)LLVMFuzzerTestOneInput(exact, n);
      (void)printf("[       OK ] %s\n", slash ? slash + 1 : argv[i]);
    }
    if (f) (void)fclose(f);
    free(bytes);
    free(exact);
  }
  return bad;
}
