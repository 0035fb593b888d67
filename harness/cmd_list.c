/* cmd_list.c - verb `list`: methods, tasks, models, configs; one line each. */
#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "datasets/task.h"
#include "harness/aims.h"
#include "harness/cli.h"
#include "harness/config.h"
#include "harness/llama_recipe.h"
#include "harness/recipe.h"
#include "harness/registry/registry.h"
#include "models/safetensors.h"

/* Each lister fills a JSON array of objects with "name" and "doc"; text output prints these two. */

static void list_methods(json_t *out) {
  for (const attn_method *const *m = registry_methods; *m; m++)
    (void)json_array_append_new(out,
                                json_pack("{s:s, s:s, s:s, s:s, s:b}", "name", (*m)->name, "doc", (*m)->doc, "version",
                                          (*m)->version, "source", (*m)->cite, "trainable", (*m)->training != NULL));
}

static void list_tasks(json_t *out) {
  for (const task *const *t = task_all; *t; t++)
    (void)json_array_append_new(out, json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:b, s:s}", "name", (*t)->name, "doc",
                                               (*t)->doc, "metric", (*t)->metric, "classes", (*t)->classes, "inputs",
                                               (*t)->inputs, "positions", (*t)->positions, "can_make",
                                               (*t)->make != NULL, "source", (*t)->source));
}

/* Calls visit for every file below folder whose name ends in `tail`, in order of names; depth is bounded. */
static void walk(const char *folder, const char *tail, int depth, void (*visit)(const char *path, json_t *out),
                 json_t *out) {
  struct dirent **entry = NULL;
  const int n = scandir(folder, &entry, NULL, alphasort);
  for (int i = 0; i < n; i++) {
    char path[PATH_MAX];
    struct stat st;
    const char *name = entry[i]->d_name;
    const int fits = snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path;
    if (fits && name[0] != '.' && stat(path, &st) == 0) {
      const size_t length = strlen(name), end = strlen(tail);
      if (S_ISDIR(st.st_mode) && depth > 0) walk(path, tail, depth - 1, visit, out);
      if (S_ISREG(st.st_mode) && length > end && !strcmp(name + length - end, tail)) visit(path, out);
    }
    free(entry[i]);
  }
  free((void *)entry);
}

/* The path as seen from the working folder, when it lies below. */
static const char *from_here(const char *path) {
  static char here[PATH_MAX];
  if (!getcwd(here, sizeof here)) return path;
  const size_t n = strlen(here);
  return !strncmp(path, here, n) && path[n] == '/' ? path + n + 1 : path;
}

static void visit_model(const char *path, json_t *out) {
  static const char *const keys[] = {"task", "attention", "seed", "step", "dev_accuracy", "commit"};
  const char *id = strstr(path, "models/checkpoints/") + strlen("models/checkpoints/");
  char name[PATH_MAX], doc[sizeof((ice_err *)0)->text];
  st_file f;
  ice_err e = {0};
  (void)snprintf(name, sizeof name, "%.*s", (int)(strlen(id) - strlen(".safetensors")), id);
  if (st_open(path, &f, &e) != ICE_OK) {
    (void)json_array_append_new(out,
                                json_pack("{s:s, s:s, s:s}", "name", name, "doc", e.text, "path", from_here(path)));
    return;
  }
  const char *accuracy = st_meta(&f, "dev_accuracy"), *step = st_meta(&f, "step"), *seed = st_meta(&f, "seed");
  (void)snprintf(doc, sizeof doc, "dev accuracy %s, step %s, seed %s", accuracy ? accuracy : "unknown",
                 step ? step : "unknown", seed ? seed : "unknown");
  json_t *row = json_pack("{s:s, s:s, s:s}", "name", name, "doc", doc, "path", from_here(path)), *meta = json_object();
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (st_meta(&f, keys[i])) (void)json_object_set_new(meta, keys[i], json_string(st_meta(&f, keys[i])));
  (void)json_object_set_new(row, "metadata", meta);
  (void)json_array_append_new(out, row);
  st_close(&f);
}

/* An experiment, a training, or a file with a fault, which stands where the description would. */
static void visit_config(const char *path, json_t *out) {
  const char *kind = "faulty";
  char doc[sizeof((ice_err *)0)->text];
  yaml_doc *doc_yaml = NULL;
  config_experiment x = {0};
  recipe r = {0};
  ice_err e = {0};
  int rc = yaml_read(path, &doc_yaml, &e);
  llama_recipe lr;
  if (rc == ICE_OK && llama_recipe_is_one(doc_yaml)) {
    rc = llama_recipe_read(doc_yaml, &lr, &e);
    if (rc == ICE_OK) {
      kind = "training";
      (void)snprintf(doc, sizeof doc, "training %s of a Llama model, %lld steps", lr.name, (long long)lr.steps);
    }
  } else if (rc == ICE_OK && recipe_is_one(doc_yaml)) {
    rc = recipe_read(doc_yaml, &r, &e);
    if (rc == ICE_OK) {
      kind = "training";
      (void)snprintf(doc, sizeof doc, "training %s, %lld steps", r.name, (long long)r.steps);
    }
    recipe_free(&r);
  } else if (rc == ICE_OK && aims_is_one(doc_yaml)) {
    aims a;
    rc = aims_read(&a, path, &e);
    if (rc == ICE_OK) {
      kind = "aims";
      (void)snprintf(doc, sizeof doc, "%d aims of icebench gate", a.n);
      aims_free(&a);
    }
  } else if (rc == ICE_OK) {
    rc = config_load(path, NULL, &x, &e);
    if (rc == ICE_OK) {
      kind = "experiment";
      (void)snprintf(doc, sizeof doc, "experiment %s, %d cells", x.name, x.n_cells);
    }
  }
  (void)json_array_append_new(
      out, json_pack("{s:s, s:s, s:s}", "name", from_here(path), "kind", kind, "doc", rc == ICE_OK ? doc : e.text));
  config_free(&x);
  yaml_close(doc_yaml);
}

static void walk_share(const char *folder, const char *tail, void (*visit)(const char *path, json_t *out),
                       json_t *out) {
  char path[PATH_MAX];
  if (snprintf(path, sizeof path, "%s/%s", cli_share_dir(), folder) < (int)sizeof path) walk(path, tail, 8, visit, out);
}

static void list_models(json_t *out) { walk_share("models/checkpoints", ".safetensors", visit_model, out); }
static void list_configs(json_t *out) { walk_share("configs", ".yaml", visit_config, out); }

static const struct {
  const char *what, *empty;
  void (*fill)(json_t *out);
} lists[] = {
    {"methods", "", list_methods},
    {"tasks", "", list_tasks},
    {"models", "no checkpoint yet; icebench train configs/train/lra-listops-softmax.yaml makes one", list_models},
    {"configs", "no file below configs/", list_configs}};
enum { LISTS = sizeof lists / sizeof *lists };

static void print_rows(const json_t *rows, const char *empty) {
  size_t i, width = 0;
  json_t *row;
  json_array_foreach(rows, i, row) {
    const size_t n = json_string_length(json_object_get(row, "name"));
    width = n > width ? n : width;
  }
  json_array_foreach(rows, i, row)(void)
      printf("%-*s  %s%s\n", (int)width, json_string_value(json_object_get(row, "name")),
             json_string_value(json_object_get(row, "doc")),
             json_is_true(json_object_get(row, "trainable")) ? " (can be trained)" : "");
  if (width == 0) (void)printf("%s\n", empty);
}

static int list_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  (void)common;
  const char *what = NULL, *format = "text", *names[LISTS];
  char near[64];
  int n = 0, json;
  const cli_option spec[] = {{.name = "format", .has_value = 1, .value = &format}, {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, &what, 1, &n, e));
  ICE_TRY(cli_format(format, &json, e));
  if (!what) return ice_fail(e, ICE_USAGE, "list: of what? allowed methods, tasks, models, configs");
  for (int i = 0; i < LISTS; i++) {
    names[i] = lists[i].what;
    if (strcmp(what, lists[i].what) != 0) continue;
    json_t *rows = json_array();
    lists[i].fill(rows);
    if (json) return cli_print_json(rows, e);
    print_rows(rows, lists[i].empty);
    json_decref(rows);
    return ICE_OK;
  }
  registry_suggest(what, names, LISTS, near, sizeof near);
  return ice_fail(e, ICE_USAGE, "list %s: allowed methods, tasks, models, configs%s%s%s", what,
                  *near ? "; did you mean " : "", near, *near ? "?" : "");
}

const cli_verb cli_verb_list = {
    .name = "list",
    .summary = "methods, tasks, models, configs; one line each",
    .help = "usage: icebench list methods|tasks|models|configs [--format text|json]\n"
            "\n"
            "  methods   attentions; icebench show METHOD tells more\n"
            "  tasks     what can be evaluated; icebench data list tells where the data lies\n"
            "  models    checkpoints below models/checkpoints, with what they say of themselves\n"
            "  configs   files below configs/: experiments (icebench run), trainings (icebench train)\n"
            "\n"
            "examples:\n"
            "  icebench list methods\n"
            "  icebench list models --format json\n",
    .main = list_main,
};
