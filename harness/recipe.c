/* recipe.c - see recipe.h */
#include "harness/recipe.h"

#include <unistd.h>

#include "harness/registry/registry.h"

static int read_names(yaml_node *top, recipe *r, ice_err *e) {
  const char *task_name = NULL, *method_name = "dense";
  ice_err own = {0};
  ICE_TRY(yaml_get_string(top, "name", 1, &r->name, e));
  ICE_TRY(yaml_get_string(top, "task", 1, &task_name, e));
  ICE_TRY(yaml_get_string(top, "out", 1, &r->out, e));
  ICE_TRY(yaml_get_string(top, "method", 0, &method_name, e));
  ICE_TRY(yaml_get_string(top, "init", 0, &r->init, e));
  r->task = task_find(task_name, &own);
  if (!r->task) return yaml_fail_at(yaml_find(top, "task"), e, "%s", own.text);
  r->method = registry_find(method_name, &own);
  if (!r->method) return yaml_fail_at(yaml_find(top, "method"), e, "%s", own.text);
  if (!r->method->training)
    return yaml_fail_at(yaml_find(top, "method"), e,
                        "%s has no training part; icebench list methods marks those that do", r->method->name);
  return ICE_OK;
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
  ICE_TRY(yaml_get_int(top, "seed", 0, INT64_MAX, &r->seed, e));
  ICE_TRY(yaml_get_int(top, "batch", 1, 1024, &r->batch, e));
  ICE_TRY(yaml_get_int(top, "steps", 2, 100000000, &r->steps, e));
  r->warmup = r->steps < 10 ? 1 : r->steps / 5;
  ICE_TRY(yaml_get_int(top, "warmup", 1, r->steps - 1, &r->warmup, e));
  ICE_TRY(yaml_get_int(top, "eval_every", 1, 100000000, &r->eval_every, e));
  ICE_TRY(yaml_get_int(top, "dev_examples", 1, 100000000, &r->dev_examples, e));
  ICE_TRY(yaml_get_int(top, "save_every", 1, 100000000, &r->save_every, e));
  ICE_TRY(yaml_get_int(top, "threads", 1, 256, &r->threads, e));
  ICE_TRY(yaml_get_real(top, "lr", 1e-9, 10.0, &r->lr, e));
  ICE_TRY(yaml_get_real(top, "dropout", 0.0, 0.9, &r->dropout, e));
  return yaml_finish(doc, e);
}
