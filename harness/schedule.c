/* schedule.c - see schedule.h */
#include "harness/schedule.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/number.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"

enum { MOST_HEADS = 256 }; /* of a layer */

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for a schedule"); }

/* ---- Values. */

/* A scalar of a document as canonical JSON; `room` is a parameter struct to try it in. */
static int read_value(const yaml_node *n, const attn_method *m, const attn_param *p, void *room, json_t **out, ice_err *e) {
  char text[64], allowed[256];
  if (!yaml_is_scalar(n) || registry_param_set(m, p, yaml_text(n), room, NULL) != ICE_OK) {
    registry_param_allowed(p, allowed, sizeof allowed);
    return yaml_fail(n, e, "allowed %s", allowed);
  }
  registry_param_print(p, room, text, sizeof text);
  *out = p->type == ATTN_P_CHOICE ? json_string(text) : json_loads(text, JSON_DECODE_ANY, NULL);
  return *out ? ICE_OK : no_memory(e);
}

/* The text of a JSON value, as registry_param_set() reads it; "" for what is no value. */
static void value_text(const json_t *v, char *out, size_t size) {
  out[0] = '\0';
  if (json_is_string(v)) (void)snprintf(out, size, "%s", json_string_value(v));
  else if (json_is_integer(v)) (void)snprintf(out, size, "%lld", (long long)json_integer_value(v));
  else if (json_is_real(v)) number_print(json_real_value(v), out, size);
}

/* ---- From a document. */

static int read_layer(yaml_node *n, const attn_method *m, const attn_param *p, void *room, json_t *layers, ice_err *e) {
  json_t *value, *heads;
  if (!yaml_is_list(n)) {
    ICE_TRY(read_value(n, m, p, room, &value, e));
    return json_array_append_new(layers, value) == 0 ? ICE_OK : no_memory(e);
  }
  if (yaml_count(n) < 1 || yaml_count(n) > MOST_HEADS) return yaml_fail(n, e, "allowed a value, or a list of one for each of 1..%d heads", MOST_HEADS);
  if (!(heads = json_array()) || json_array_append_new(layers, heads) != 0) return no_memory(e);
  for (int i = 0; i < yaml_count(n); i++) {
    ICE_TRY(read_value(yaml_item(n, i), m, p, room, &value, e));
    if (json_array_append_new(heads, value) != 0) return no_memory(e);
  }
  return ICE_OK;
}

static int read_parameter(const char *key, yaml_node *n, const attn_method *m, void *room, json_t *all, ice_err *e) {
  ice_err own = {0};
  const attn_param *p = registry_param(m, key, &own);
  json_t *layers;
  if (!p) return yaml_fail_key(n, e, "%s", own.text);
  if (!yaml_is_list(n) || yaml_count(n) < 1 || yaml_count(n) > ENCODER_MAX_LAYERS)
    return yaml_fail(n, e, "allowed a list of 1..%d layers, each a value or a list of heads: [[8, 64], 32]", ENCODER_MAX_LAYERS);
  if (!(layers = json_array()) || json_object_set_new(all, key, layers) != 0) return no_memory(e);
  for (int i = 0; i < yaml_count(n); i++) ICE_TRY(read_layer(yaml_item(n, i), m, p, room, layers, e));
  return ICE_OK;
}

int schedule_read(yaml_node *n, const attn_method *m, char **json, ice_err *e) {
  if (!yaml_is_map(n) || yaml_count(n) < 1) return yaml_fail(n, e, "allowed parameters by layer and head: {k: [[8, 64], 32]}");
  if (m->learned) return yaml_fail_key(n, e, "%s learns tensors for all heads together: they cannot differ", m->name);
  void *room = registry_defaults(m);
  json_t *all = json_object();
  int rc = room && all ? ICE_OK : no_memory(e);
  for (int i = 0; rc == ICE_OK && i < yaml_count(n); i++) rc = read_parameter(yaml_key(n, i), yaml_value(n, i), m, room, all, e);
  *json = rc == ICE_OK ? json_dumps(all, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
  if (rc == ICE_OK && !*json) rc = no_memory(e);
  json_decref(all);
  attn_free(room);
  return rc;
}

/* ---- Canonical parameters. */

int schedule_sets(const char *schedule, const char *key) {
  json_t *all = schedule ? json_loads(schedule, 0, NULL) : NULL;
  const int found = json_object_get(all, key) != NULL;
  json_decref(all);
  return found;
}

char *schedule_params_json(const attn_method *m, const void *params, const char *schedule) {
  char *plain = registry_params_json(m, params), *text = NULL;
  if (!schedule) return plain;
  json_t *all = plain ? json_loads(plain, 0, NULL) : NULL, *heads = json_loads(schedule, 0, NULL), *layers;
  const char *key;
  if (all && heads) {
    json_object_foreach(heads, key, layers) (void)json_object_del(all, key);
    if (json_object_set(all, "schedule", heads) == 0) text = json_dumps(all, JSON_COMPACT);
  }
  json_decref(heads);
  json_decref(all);
  free(plain);
  return text;
}

/* ---- For a model. */

/* Sets one parameter of every head of the model in params [layers * heads], structs of m->params_size bytes. */
static int apply(const attn_method *m, const attn_param *p, const json_t *layers, int n_layers, int n_heads, char *params, ice_err *e) {
  char text[64];
  if ((int)json_array_size(layers) != n_layers)
    return ice_fail(e, ICE_USAGE, "schedule of %s.%s: %d layers, the model has %d", m->name, p->key, (int)json_array_size(layers), n_layers);
  for (int i = 0; i < n_layers * n_heads; i++) {
    const json_t *layer = json_array_get(layers, (size_t)(i / n_heads)), *value = layer;
    if (json_is_array(layer) && (int)json_array_size(layer) != n_heads)
      return ice_fail(e, ICE_USAGE, "schedule of %s.%s: %d heads in layer %d, the model has %d", m->name, p->key, (int)json_array_size(layer),
                      i / n_heads, n_heads);
    if (json_is_array(layer)) value = json_array_get(layer, (size_t)(i % n_heads));
    value_text(value, text, sizeof text);
    ICE_TRY(registry_param_set(m, p, text, params + (size_t)i * m->params_size, e));
  }
  return ICE_OK;
}

static int open_heads(head_schedule *s, const attn_method *m, const void *base, json_t *all, int layers, int heads, ice_err *e) {
  const size_t n = (size_t)layers * (size_t)heads, size = m->params_size;
  json_t *values;
  const char *key;
  if (!json_is_object(all)) return ice_fail(e, ICE_USAGE, "schedule of %s: allowed parameters by layer and head", m->name);
  s->head = attn_calloc(n * sizeof *s->head);
  s->params = attn_calloc(n * size);
  if (!s->head || !s->params) return no_memory(e);
  for (size_t i = 0; i < n; i++) memcpy(s->params + i * size, base, size);
  json_object_foreach(all, key, values) {
    const attn_param *p = registry_param(m, key, e);
    if (!p) return ICE_USAGE;
    ICE_TRY(apply(m, p, values, layers, heads, s->params, e));
  }
  for (size_t i = 0; i < n; i++) {
    const char *own = s->params + i * size;
    const int alike = i % (size_t)heads && !memcmp(own, own - size, size);
    s->head[i] = (encoder_head){m, alike ? s->head[i - 1].params : own};
  }
  return ICE_OK;
}

int schedule_open(head_schedule *s, const attn_method *m, const void *base, const char *params_json, int layers, int heads, ice_err *e) {
  *s = (head_schedule){0};
  json_t *params = json_loads(params_json, 0, NULL), *all = json_object_get(params, "schedule");
  int rc = !params ? no_memory(e) : all ? open_heads(s, m, base, all, layers, heads, e) : ICE_OK;
  json_decref(params);
  return rc;
}

void schedule_close(head_schedule *s) {
  attn_free(s->head);
  attn_free(s->params);
  *s = (head_schedule){0};
}
