/* config_rule.c - see config_rule.h */
#include "harness/config_rule.h"

#include <stdlib.h>
#include <string.h>

#include "harness/number.h"
#include "harness/registry/registry.h"
#include "harness/schedule.h"
#include "kernels/core/alloc.h"

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory"); }

const char *const config_padding_words[] = {"skip", "compute", NULL};

/* ---- Values. */

int config_list_check(yaml_node *n, ice_err *e) {
  ICE_TRY(yaml_expand(n, CONFIG_MAX_LIST, e));
  const int count = yaml_count(n);
  if (count < 1 || count > CONFIG_MAX_LIST) return yaml_fail(n, e, "allowed a value or a list of 1..%d values", CONFIG_MAX_LIST);
  for (int i = 0; i < count; i++) {
    const yaml_node *item = yaml_item(n, i);
    if (!yaml_is_scalar(item)) return yaml_fail(item, e, "allowed a value or a list of values");
    for (int j = 0; j < i; j++)
      if (strcmp(yaml_text(item), yaml_text(yaml_item(n, j))) == 0)
        return yaml_fail(item, e, "given twice in one list");
  }
  return ICE_OK;
}

static int read_sweep(const attn_method *m, const char *key, yaml_node *n, config_sweep *out, ice_err *e) {
  ice_err own = {0};
  const attn_param *p = registry_param(m, key, &own);
  if (!p) return yaml_fail_key(n, e, "%s", own.text);
  ICE_TRY(config_list_check(n, e));
  int count = yaml_count(n);
  void *params = attn_calloc(m->params_size);
  uint64_t *value = calloc((size_t)count, sizeof *value);
  int rc = params && value ? ICE_OK : no_memory(e);
  for (int i = 0; i < count && rc == ICE_OK; i++) {
    const yaml_node *item = yaml_item(n, i);
    if (registry_param_set(m, p, yaml_text(item), params, &own) != ICE_OK) {
      char allowed[256];
      registry_param_allowed(p, allowed, sizeof allowed);
      rc = yaml_fail(item, e, "allowed %s", allowed);
    } else {
      memcpy(&value[i], (char *)params + p->offset, sizeof *value);
    }
    for (int j = 0; j < i && rc == ICE_OK; j++)
      if (value[i] == value[j]) rc = yaml_fail(item, e, "given twice in one list");
  }
  attn_free(params);
  if (rc != ICE_OK) {
    free(value);
    return rc;
  }
  free(out->value);
  *out = (config_sweep){.param = p, .value = value, .count = count};
  return ICE_OK;
}

/* The sweep of a key, a new one when there is none yet. NULL when memory is out. */
static config_sweep *sweep_of(config_sweeps *s, const char *key) {
  for (int i = 0; i < s->n; i++)
    if (strcmp(s->item[i].param->key, key) == 0) return &s->item[i];
  config_sweep *grown = realloc(s->item, (size_t)(s->n + 1) * sizeof *grown);
  if (!grown) return NULL;
  s->item = grown;
  grown[s->n] = (config_sweep){0};
  return &grown[s->n];
}

int config_sweeps_add(config_sweeps *s, const attn_method *m, const char *key, yaml_node *n, ice_err *e) {
  config_sweep *one = sweep_of(s, key);
  if (!one) return no_memory(e);
  const int fresh = one->param == NULL;
  ICE_TRY(read_sweep(m, key, n, one, e));
  s->n += fresh;
  return ICE_OK;
}

void config_sweeps_free(config_sweeps *s) {
  for (int i = 0; i < s->n; i++) free(s->item[i].value);
  free(s->item);
}

/* ---- Rules. */

/* The place of a key that every cell has, NULL for others. */
static yaml_node **plain_key(config_rule *r, const char *key) {
  return strcmp(key, "task") == 0      ? &r->task
         : strcmp(key, "model") == 0   ? &r->model
         : strcmp(key, "seed") == 0    ? &r->seed
         : strcmp(key, "length") == 0  ? &r->length
         : strcmp(key, "padding") == 0 ? &r->padding
                                       : NULL;
}

static int read_plain(yaml_node *value, const char *key, yaml_node **out, ice_err *e) {
  ice_err own = {0};
  int64_t seed;
  ICE_TRY(config_list_check(value, e));
  *out = value;
  for (int k = 0; k < yaml_count(value); k++) {
    const yaml_node *item = yaml_item(value, k);
    if (strcmp(key, "seed") == 0 || strcmp(key, "length") == 0) ICE_TRY(yaml_int(item, 0, INT64_MAX, &seed, e));
    if (strcmp(key, "padding") == 0) ICE_TRY(yaml_choice(item, config_padding_words, &(int){0}, e));
    if (strcmp(key, "task") == 0 && !config_shape_task(yaml_text(item)) && !task_find(yaml_text(item), &own))
      return yaml_fail_at(item, e, "%s", own.text);
  }
  return ICE_OK;
}

int config_rule_read(yaml_node *n, const attn_method *method, int tensors, config_rule *out, ice_err *e) {
  ice_err own = {0};
  const char *name = NULL;
  if (!yaml_is_map(n) || yaml_count(n) == 0)
    return yaml_fail(n, e, method ? "allowed a mapping such as {seed: 1, k: 32}" : "allowed a mapping such as {method: iceformer, k: 32}");
  if (!method) ICE_TRY(yaml_get_string(n, "method", 0, &name, e));
  if (name && !(method = registry_find(name, &own))) return yaml_fail_at(yaml_find(n, "method"), e, "%s", own.text);
  out->method = method;
  for (int i = 0; i < yaml_count(n); i++) {
    const char *key = yaml_key(n, i);
    yaml_node *value = yaml_value(n, i), **plain = plain_key(out, key);
    if (name && strcmp(key, "method") == 0) continue;
    if (plain) ICE_TRY(read_plain(value, key, plain, e));
    else if (tensors && config_shape_key(key)) ICE_TRY(config_shapes_set(&out->shape, key, value, e));
    else if (method) ICE_TRY(config_sweeps_add(&out->sweeps, method, key, value, e));
    else return yaml_fail_key(value, e, "unknown key %s, allowed method, task, model, seed, length, padding%s, and with a method its parameters", key,
                              tensors ? ", h, n, nk, d, causal" : "");
  }
  return ICE_OK;
}

static int listed(yaml_node *list, const char *text) {
  for (int i = 0; i < yaml_count(list); i++)
    if (strcmp(yaml_text(yaml_item(list, i)), text) == 0) return 1;
  return 0;
}

static int listed_seed(yaml_node *list, uint64_t seed) {
  uint64_t value;
  for (int i = 0; i < yaml_count(list); i++)
    if (number_u64(yaml_text(yaml_item(list, i)), &value) && value == seed) return 1;
  return 0;
}

static int swept(const config_sweep *s, const void *params) {
  uint64_t value;
  memcpy(&value, (const char *)params + s->param->offset, sizeof value);
  for (int i = 0; i < s->count; i++)
    if (s->value[i] == value) return 1;
  return 0;
}

int config_rule_matches(const config_rule *r, const config_cell *c) {
  if (r->method && r->method != c->method) return 0;
  if (r->task && !listed(r->task, c->task->name)) return 0;
  if (r->model && !listed(r->model, c->model)) return 0;
  if (r->seed && !listed_seed(r->seed, c->seed)) return 0;
  if (r->length && !listed_seed(r->length, (uint64_t)c->length)) return 0;
  if (r->padding && !listed(r->padding, config_padding_words[c->padded])) return 0;
  if (c->source && !config_shapes_match(&r->shape, c->source)) return 0;
  for (int i = 0; i < r->sweeps.n; i++)
    if (schedule_sets(c->schedule, r->sweeps.item[i].param->key) || !swept(&r->sweeps.item[i], c->params)) return 0;
  return 1;
}

void config_rule_free(config_rule *r) { config_sweeps_free(&r->sweeps); }
