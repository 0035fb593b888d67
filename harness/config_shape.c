/* config_shape.c - see config_shape.h */
#include "harness/config_shape.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/synth.h"

enum { D, CAUSAL, H, NK, N };
static const char *const keys[CONFIG_SHAPE_KEYS] = {[D] = "d", [CAUSAL] = "causal", [H] = "h", [NK] = "nk", [N] = "n"};
static const int64_t most[CONFIG_SHAPE_KEYS] = {[D] = 1 << 16, [CAUSAL] = 1, [H] = 1 << 16, [NK] = 1 << 30, [N] = 1 << 30};
/* As synth.h. NK 0: as many keys as queries. */
static const int64_t otherwise[CONFIG_SHAPE_KEYS] = {[D] = 64, [CAUSAL] = 0, [H] = 1, [NK] = 0, [N] = 1024};

#define TENSORS(kind) {.name = "synth/" kind, .doc = "synthetic tensors", .metric = "none", .source = "nothing to fetch", .inputs = 1}
static const task tasks[] = {[SYNTH_GAUSS] = TENSORS("gauss"), [SYNTH_CLUSTERED] = TENSORS("clustered"), [SYNTH_LOWRANK] = TENSORS("lowrank")};
#undef TENSORS

const task *config_shape_task(const char *name) {
  for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
    if (!strcmp(tasks[i].name, name)) return tasks + i;
  return NULL;
}

static int read_value(const yaml_node *n, int key, int64_t *out, ice_err *e) {
  int yes;
  if (key != CAUSAL) return yaml_int(n, 1, most[key], out, e);
  ICE_TRY(yaml_bool(n, &yes, e));
  *out = yes;
  return ICE_OK;
}

int config_shapes_set(config_shapes *s, const char *key, yaml_node *n, ice_err *e) {
  int k = 0;
  while (k < CONFIG_SHAPE_KEYS && strcmp(keys[k], key)) k++;
  if (k == CONFIG_SHAPE_KEYS) return yaml_fail_key(n, e, "unknown key %s, allowed h, n, nk, d, causal", key);
  ICE_TRY(yaml_expand(n, 1000, e));
  const int count = yaml_count(n);
  int64_t value, other;
  if (count < 1 || count > 1000) return yaml_fail(n, e, "allowed a value or a list of 1..1000 values");
  for (int i = 0; i < count; i++) {
    ICE_TRY(read_value(yaml_item(n, i), k, &value, e));
    for (int j = 0; j < i; j++) {
      ICE_TRY(read_value(yaml_item(n, j), k, &other, e));
      if (value == other) return yaml_fail(yaml_item(n, i), e, "given twice in one list");
    }
  }
  s->list[k] = n;
  return ICE_OK;
}

int config_shapes_read(config_shapes *s, yaml_node *map, ice_err *e) {
  for (int i = 0; i < yaml_count(map); i++) ICE_TRY(config_shapes_set(s, yaml_key(map, i), yaml_value(map, i), e));
  return ICE_OK;
}

int config_shapes_match(const config_shapes *s, const char *source) {
  synth_source it;
  if (synth_parse(source, &it, NULL) != ICE_OK) return 0;
  const int64_t is[CONFIG_SHAPE_KEYS] = {[D] = it.d, [CAUSAL] = it.causal, [H] = it.h, [NK] = it.nk, [N] = it.nq};
  for (int k = 0; k < CONFIG_SHAPE_KEYS; k++) {
    int found = !s->list[k];
    for (int i = 0; !found && i < yaml_count(s->list[k]); i++) {
      int64_t value;
      found = read_value(yaml_item(s->list[k], i), k, &value, NULL) == ICE_OK && value == is[k];
    }
    if (!found) return 0;
  }
  return 1;
}

int config_shape_key(const char *key) {
  for (int k = 0; k < CONFIG_SHAPE_KEYS; k++)
    if (!strcmp(keys[k], key)) return 1;
  return 0;
}

static int count_of(const config_shapes *s, int key) { return s->list[key] ? yaml_count(s->list[key]) : 1; }

double config_shapes_count(const config_shapes *s) {
  double n = 1.0;
  for (int k = 0; k < CONFIG_SHAPE_KEYS; k++) n *= count_of(s, k);
  return n;
}

int config_shapes_make(const config_shapes *s, int64_t i, const task *t, uint64_t seed, char **source, char **model,
                       ice_err *e) {
  int64_t v[CONFIG_SHAPE_KEYS];
  synth_source parsed;
  for (int k = CONFIG_SHAPE_KEYS - 1; k >= 0; k--) {
    const int count = count_of(s, k);
    v[k] = otherwise[k];
    if (s->list[k]) ICE_TRY(read_value(yaml_item(s->list[k], (int)(i % count)), k, v + k, e));
    i /= count;
  }
  *source = *model = NULL;
  char keys_of_it[32] = "", queries[32] = "";
  if (v[NK]) {
    (void)snprintf(keys_of_it, sizeof keys_of_it, ",nk=%" PRId64, v[NK]);
    (void)snprintf(queries, sizeof queries, ",nq=%" PRId64, v[N]);
  }
  if (asprintf(source, "%s:h=%" PRId64 ",n=%" PRId64 "%s,d=%" PRId64 ",causal=%d,seed=%" PRIu64, strchr(t->name, '/') + 1,
               v[H], v[N], keys_of_it, v[D], (int)v[CAUSAL], seed) < 0 ||
      asprintf(model, "h=%" PRId64 ",d=%" PRId64 "%s%s", v[H], v[D], queries, v[CAUSAL] ? ",causal" : "") < 0) {
    free(*source);
    *source = NULL;
    return ice_fail(e, ICE_INTERNAL, "out of memory");
  }
  ice_err own = {0};
  if (synth_parse(*source, &parsed, &own) == ICE_OK) return ICE_OK;
  free(*source), free(*model);
  *source = *model = NULL;
  const int largest = s->list[NK] ? NK : s->list[N] ? N : D; /* the defaults alone are fine */
  return yaml_fail_at(s->list[largest] ? s->list[largest] : s->list[H], e, "shape: %s", own.text);
}
