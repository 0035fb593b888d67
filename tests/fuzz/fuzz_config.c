/* fuzz_config.c - any bytes as an experiment and as a training: refused with one line, or read whole; the cells of an
 * experiment have distinct keys. Comment lines `#set KEY=VALUE` at the start are overrides as well. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "harness/config.h"
#include "harness/recipe.h"
#include "harness/yaml.h"

enum { MAX_SET = 8, MAX_KEYS = 64 };

static void expect(int fine) {
  if (!fine) abort();
}
static void expect_one_line(const ice_err *e) {
  expect((e->code == ICE_USAGE || e->code == ICE_INTERNAL) && e->text[0] && !strchr(e->text, '\n'));
}

/* Copies of the overrides into set (NULL-terminated). */
static void find_overrides(const char *bytes, size_t n, char **set) {
  int count = 0;
  while (count < MAX_SET && n > 5 && memcmp(bytes, "#set ", 5) == 0) {
    const char *end = memchr(bytes, '\n', n);
    if (!end) break;
    expect((set[count++] = strndup(bytes + 5, (size_t)(end - bytes) - 5)) != NULL);
    n -= (size_t)(end + 1 - bytes);
    bytes = end + 1;
  }
  set[count] = NULL;
}

static void check_keys(const config_experiment *x) {
  char *key[MAX_KEYS];
  int n = x->n_cells < MAX_KEYS ? x->n_cells : MAX_KEYS;
  expect(n >= 1);
  for (int i = 0; i < n; i++) {
    expect((key[i] = config_cell_json(x, &x->cell[i])) != NULL);
    expect(attn_check(
               x->cell[i].method,
               &(attn_problem){.b = 1, .h = 1, .hkv = 1, .nq = 2, .nk = 2, .d = 4, .dv = 4, .scale = 1, .threads = 1},
               x->cell[i].params) != ATTN_ERR_PARAM);
    for (int j = 0; j < i; j++) expect(strcmp(key[i], key[j]) != 0);
  }
  for (int i = 0; i < n; i++) free(key[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *bytes = (const char *)data;
  char *set[MAX_SET + 1];
  config_experiment x;
  yaml_doc *doc = NULL;
  recipe r;
  ice_err e = {0};
  find_overrides(bytes, size, set);
  if (config_parse(bytes, size, "input", (const char *const *)set, &x, &e) == ICE_OK) {
    check_keys(&x);
    config_free(&x);
  } else {
    expect_one_line(&e);
  }
  for (int i = 0; set[i]; i++) free(set[i]);
  if (yaml_parse(bytes, size, "input", &doc, &e) != ICE_OK) {
    expect_one_line(&e);
    return 0;
  }
  if (recipe_read(doc, &r, &e) != ICE_OK) expect_one_line(&e);
  recipe_free(&r);
  yaml_close(doc);
  return 0;
}
