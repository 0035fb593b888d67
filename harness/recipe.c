/* recipe.c - see recipe.h */
#include "harness/recipe.h"

#include <unistd.h>

#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"

/* `method: performer`, or with parameters `method: {performer: {features: 128}}`. */
static int read_method(yaml_node *top, recipe *r, ice_err *e) {
  yaml_node *n = yaml_find(top, "method");
  const int map = n && yaml_is_map(n);
  ice_err own = {0};
  if (n && !map && !yaml_is_scalar(n)) return yaml_fail(n, e, "allowed a method, or {method: {parameter: value, ...}}");
  if (map && yaml_count(n) != 1) return yaml_fail(n, e, "allowed one method with its parameters");
  r->method = registry_find(!n ? "dense" : map ? yaml_key(n, 0) : yaml_text(n), &own);
  if (!r->method) return yaml_fail_at(n, e, "%s", own.text);
  if (!r->method->training)
    return yaml_fail_at(n, e, "%s has no training part; icebench list methods marks those that do", r->method->name);
  r->params = registry_defaults(r->method);
  if (!r->params) return ice_fail(e, ICE_INTERNAL, "out of memory");
  if (!map) return ICE_OK;
  yaml_node *list = yaml_value(n, 0);
  if (!yaml_is_map(list)) return yaml_fail(list, e, "allowed the parameters of %s: {key: value, ...}", r->method->name);
  for (int i = 0; i < yaml_count(list); i++) {
    const attn_param *p = registry_param(r->method, yaml_key(list, i), &own);
    if (!p) return yaml_fail_key(yaml_value(list, i), e, "%s", own.text);
    if (!yaml_is_scalar(yaml_value(list, i))) return yaml_fail(yaml_value(list, i), e, "allowed one value");
    if (registry_param_set(r->method, p, yaml_text(yaml_value(list, i)), r->params, &own) != ICE_OK)
      return yaml_fail_at(yaml_value(list, i), e, "%s", own.text);
  }
  return ICE_OK;
}

static int read_names(yaml_node *top, recipe *r, ice_err *e) {
  const char *task_name = NULL;
  ice_err own = {0};
  ICE_TRY(yaml_get_string(top, "name", 1, &r->name, e));
  ICE_TRY(yaml_get_string(top, "task", 1, &task_name, e));
  ICE_TRY(yaml_get_string(top, "out", 1, &r->out, e));
  ICE_TRY(yaml_get_string(top, "init", 0, &r->init, e));
  r->task = task_find(task_name, &own);
  if (!r->task) return yaml_fail_at(yaml_find(top, "task"), e, "%s", own.text);
  return read_method(top, r, e);
}

int recipe_is_one(yaml_doc *doc) { return yaml_find(yaml_root(doc), "out") != NULL; }

int recipe_read(yaml_doc *doc, recipe *r, ice_err *e) {
  yaml_node *top = yaml_root(doc);
  *r = (recipe){.seed = 1,
                .batch = 32,
                .steps = 5000,
                .eval_every = 100,
                .save_every = 100,
                .lr = 1e-4,
                .dropout = 0.1,
                .threads = sysconf(_SC_NPROCESSORS_ONLN)};
  ICE_TRY(read_names(top, r, e));
  ICE_TRY(yaml_get_bool(top, "shared_qk", &r->shared_qk, e));
  ICE_TRY(yaml_get_int(top, "seed", 0, INT64_MAX, &r->seed, e));
  ICE_TRY(yaml_get_int(top, "batch", 1, 1024, &r->batch, e));
  ICE_TRY(yaml_get_int(top, "steps", 2, 100000000, &r->steps, e));
  r->warmup = r->steps < 10 ? 1 : r->steps / 5;
  ICE_TRY(yaml_get_int(top, "warmup", 1, r->steps - 1, &r->warmup, e));
  ICE_TRY(yaml_get_int(top, "eval_every", 1, 100000000, &r->eval_every, e));
  ICE_TRY(yaml_get_int(top, "dev_examples", 1, 100000000, &r->dev_examples, e));
  ICE_TRY(yaml_get_int(top, "hold_out", 1, 100000000, &r->hold_out, e));
  ICE_TRY(yaml_get_int(top, "save_every", 1, 100000000, &r->save_every, e));
  ICE_TRY(yaml_get_int(top, "threads", 1, 256, &r->threads, e));
  ICE_TRY(yaml_get_real(top, "lr", 1e-9, 10.0, &r->lr, e));
  ICE_TRY(yaml_get_real(top, "dropout", 0.0, 0.9, &r->dropout, e));
  return yaml_finish(doc, e);
}

void recipe_free(recipe *r) {
  attn_free(r->params);
  r->params = NULL;
}
