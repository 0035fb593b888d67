/* cmd_list.c - verb `list`: methods, tasks, models, configs; one line each. */
#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "datasets/task.h"
#include "harness/cli.h"
#include "harness/config.h"
#include "harness/registry/registry.h"
#include "models/safetensors.h"

/* Each lister fills a JSON array of flat objects with "name" and "doc"; text output prints these two. */

static int list_methods(json_t *out, ice_err *e) {
  (void)e;
  for (int i = 0; registry_methods[i]; i++)
    (void)json_array_append_new(out, json_pack("{s:s, s:s, s:s, s:b}", "name", registry_methods[i]->name, "doc",
                                               registry_methods[i]->doc, "version", registry_methods[i]->version,
                                               "trainable", registry_methods[i]->training != NULL));
  return ICE_OK;
}

static int list_tasks(json_t *out, ice_err *e) {
  (void)e;
  for (int i = 0; task_all[i]; i++)
    (void)json_array_append_new(out, json_pack("{s:s, s:s, s:s, s:i, s:b}", "name", task_all[i]->name, "doc",
                                               task_all[i]->doc, "metric", task_all[i]->metric, "classes",
                                               task_all[i]->classes, "can_make", task_all[i]->make != NULL));
  return ICE_OK;
}

/* Calls visit for every file below folder whose name ends in `tail`, in order of names; depth is bounded. */
static int walk(const char *folder, const char *tail, int depth, int (*visit)(const char *path, json_t *out, ice_err *e),
                json_t *out, ice_err *e) {
  struct dirent **entry = NULL;
  const int n = scandir(folder, &entry, NULL, alphasort);
  int rc = ICE_OK;
  for (int i = 0; i < n; i++) {
    char path[PATH_MAX];
    struct stat st;
    const char *name = entry[i]->d_name;
    const int fits = snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path;
    if (rc == ICE_OK && fits && name[0] != '.' && stat(path, &st) == 0) {
      const size_t length = strlen(name), end = strlen(tail);
      if (S_ISDIR(st.st_mode) && depth > 0) rc = walk(path, tail, depth - 1, visit, out, e);
      else if (S_ISREG(st.st_mode) && length > end && !strcmp(name + length - end, tail)) rc = visit(path, out, e);
    }
    free(entry[i]);
  }
  free((void *)entry);
  return rc;
}

static int visit_model(const char *path, json_t *out, ice_err *e) {
  const char *id = strstr(path, "models/checkpoints/");
  char name[PATH_MAX], doc[512];
  st_file f;
  ice_err own = {0};
  (void)e;
  id = id ? id + strlen("models/checkpoints/") : path;
  (void)snprintf(name, sizeof name, "%.*s", (int)(strlen(id) - strlen(".safetensors")), id);
  if (st_open(path, &f, &own) != ICE_OK) {
    (void)json_array_append_new(out, json_pack("{s:s, s:s}", "name", name, "doc", own.text));
    return ICE_OK;
  }
  const char *accuracy = st_meta(&f, "dev_accuracy"), *seed = st_meta(&f, "seed"), *step = st_meta(&f, "step");
  (void)snprintf(doc, sizeof doc, "dev accuracy %s, step %s, seed %s", accuracy ? accuracy : "unknown", step ? step : "unknown",
                 seed ? seed : "unknown");
  (void)json_array_append_new(out, json_pack("{s:s, s:s, s:s}", "name", name, "doc", doc, "path", path));
  st_close(&f);
  return ICE_OK;
}

static int visit_config(const char *path, json_t *out, ice_err *e) {
  config_experiment x;
  ice_err own = {0};
  char doc[128];
  (void)e;
  if (config_load(path, NULL, &x, &own) != ICE_OK) return ICE_OK; /* trainings and the like */
  (void)snprintf(doc, sizeof doc, "experiment %s, %d cells", x.name, x.n_cells);
  (void)json_array_append_new(out, json_pack("{s:s, s:s}", "name", path, "doc", doc));
  config_free(&x);
  return ICE_OK;
}

static int list_models(json_t *out, ice_err *e) {
  char folder[PATH_MAX];
  if (snprintf(folder, sizeof folder, "%s/models/checkpoints", cli_share_dir()) >= PATH_MAX) return ICE_OK;
  return walk(folder, ".safetensors", 8, visit_model, out, e);
}

static int list_configs(json_t *out, ice_err *e) {
  char folder[PATH_MAX];
  if (snprintf(folder, sizeof folder, "%s/configs", cli_share_dir()) >= PATH_MAX) return ICE_OK;
  return walk(folder, ".yaml", 4, visit_config, out, e);
}

static const struct {
  const char *what, *empty;
  int (*fill)(json_t *out, ice_err *e);
} lists[] = {{"methods", "", list_methods},
             {"tasks", "", list_tasks},
             {"models", "no checkpoint yet; icebench train configs/train/lra-listops-softmax.yaml makes one", list_models},
             {"configs", "no experiment found", list_configs}};

static int list_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  (void)common;
  const char *what = NULL, *format = "text";
  int n = 0;
  const cli_option spec[] = {{.name = "format", .has_value = 1, .value = &format}, {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, &what, 1, &n, e));
  const int json = !strcmp(format, "json");
  if (!json && strcmp(format, "text")) return ice_fail(e, ICE_USAGE, "--format = %s, allowed text, json", format);
  for (size_t i = 0; what && i < sizeof lists / sizeof *lists; i++) {
    if (strcmp(what, lists[i].what)) continue;
    json_t *rows = json_array(), *row;
    size_t k;
    int rc = lists[i].fill(rows, e);
    char *text = json ? json_dumps(rows, JSON_INDENT(1)) : NULL;
    if (rc == ICE_OK && json) (void)printf("%s\n", text);
    if (rc == ICE_OK && !json && json_array_size(rows) == 0) (void)printf("%s\n", lists[i].empty);
    if (rc == ICE_OK && !json)
      json_array_foreach(rows, k, row)
          (void)printf("%-14s %s\n", json_string_value(json_object_get(row, "name")), json_string_value(json_object_get(row, "doc")));
    free(text);
    json_decref(rows);
    return rc;
  }
  return ice_fail(e, ICE_USAGE, "list %s: allowed methods, tasks, models, configs", what ? what : "WHAT");
}

const cli_verb cli_verb_list = {
    .name = "list",
    .summary = "methods, tasks, models, configs; one line each",
    .help = "usage: icebench list methods|tasks|models|configs [--format text|json]\n"
            "\n"
            "examples:\n"
            "  icebench list methods\n"
            "  icebench list models --format json\n",
    .main = list_main,
};
