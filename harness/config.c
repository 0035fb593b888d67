/* config.c - see config.h.
 *
 * File and overrides (--set) are both YAML trees, so one set of readers with one set of ranges serves both: first the
 * file, then the overrides on top. What multiplies is kept as lists until everything is read; then cells are made. */
#include "harness/config.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/config_rule.h"
#include "harness/config_shape.h"
#include "harness/config_words.h"
#include "harness/number.h"
#include "harness/registry/registry.h"
#include "harness/schedule.h"
#include "harness/yaml.h"
#include "kernels/core/alloc.h"

enum {
  MAX_CELLS = 100000, /* of an experiment, before `exclude` */
  MAX_LIST = CONFIG_MAX_LIST,
  MAX_THREADS = 256
};

typedef struct entry { /* one line of `methods`: the product of its sweeps, where `when` agrees */
  const attn_method *method;
  const yaml_node *at;
  config_sweeps sweeps;
  char *schedule; /* of schedule.h, owned by the documents; NULL: none */
  config_rule when;
} entry;

typedef struct loader {
  config_experiment *x;
  yaml_node *tasks, *models, *seeds, *paddings, *lengths;
  entry *entry;
  int n_entries;
  config_rule *rule; /* `exclude` */
  int n_rules;
  yaml_node *presets;
  const task **task; /* resolved from tasks */
  config_shapes shapes;
  int tensors; /* the tasks are sources of tensors, and there are no models */
  int words;   /* the tasks are asked and answered in words */
} loader;

typedef struct documents { /* config_experiment.impl: models are texts in there */
  yaml_doc *file, *base, *set, *preset;
  yaml_node *presets; /* of the file, in one of the documents; NULL: none */
  char **text; /* [n_texts] schedules, sources and models of tensors; owned */
  int n_texts;
} documents;

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory"); }

/* ---- Scalars: one row says where a key stands, what it may be, and where it goes. */

typedef enum scalar_type { S_INT64, S_INT, S_REAL, S_BOOL, S_SPLIT, S_MISSING, S_PAIRS, S_TEMPLATE } scalar_type;
typedef struct scalar {
  const char *section, *key; /* section NULL: top level */
  scalar_type type;
  double min, max;
  size_t offset;
} scalar;

#define AT(member) offsetof(config_experiment, member)
static const scalar scalars[] = {
    {NULL, "examples", S_INT64, 1, 1e9, AT(examples)},
    {NULL, "split", S_SPLIT, 0, 0, AT(split)},
    {NULL, "threads", S_INT, 1, MAX_THREADS, AT(threads)},
    {NULL, "missing", S_MISSING, 0, 0, AT(skip_missing)},
    {NULL, "pairs", S_PAIRS, 0, 0, AT(own_pairs)},
    {NULL, "no_retraining", S_BOOL, 0, 0, AT(allow_untrained_swap)},
    {NULL, "shuffle", S_INT64, 0, 1e15, AT(shuffle)},
    {NULL, "template", S_TEMPLATE, 0, 0, AT(template)},
    {NULL, "answer_tokens", S_INT64, 1, 65536, AT(answer_tokens)},
    {NULL, "context", S_INT64, 16, 1 << 24, AT(context)},
    {"measure", "rounds", S_INT, 1, 1000, AT(rounds)},
    {"measure", "warmup", S_INT, 0, 100, AT(warmup)},
    {"measure", "processes", S_INT, 1, CONFIG_MAX_PROCESSES, AT(processes)},
    {"measure", "inputs", S_INT64, 1, 4096, AT(timed)},
    {"measure", "max_seconds", S_REAL, 0.1, 1e6, AT(max_seconds)},
    {"measure", "quality", S_BOOL, 0, 0, AT(quality)},
    {"measure", "precision", S_REAL, 0, 10, AT(precision)},
    {"measure", "max_rounds", S_INT, 1, 1000, AT(max_rounds)},
    {"measure", "slowdown", S_REAL, 0, 10, AT(slowdown)},
    {"measure", "affinity", S_BOOL, 0, 0, AT(affinity)},
    {"measure", "noise", S_REAL, 0, 10, AT(noise)},
    {"measure", "retries", S_INT, 0, 20, AT(retries)},
    {"limits", "seconds", S_REAL, 1, 1e7, AT(limit_seconds)},
    {"limits", "memory_gib", S_REAL, 0.01, 65536, AT(limit_gib)},
};
enum { SCALARS = sizeof scalars / sizeof *scalars };

static int read_scalar(const yaml_node *n, const scalar *s, config_experiment *x, ice_err *e) {
  static const char *const split_words[] = {"test", "dev", NULL};
  static const char *const missing_words[] = {"fail", "skip", NULL}, *const pairs_words[] = {"all", "trained", NULL};
  static const task_split split_of[] = {TASK_TEST, TASK_DEV};
  void *at = (char *)x + s->offset;
  int64_t whole;
  int word;
  switch (s->type) {
  case S_INT64: return yaml_int(n, (int64_t)s->min, (int64_t)s->max, at, e);
  case S_REAL: return yaml_real(n, s->min, s->max, at, e);
  case S_BOOL: return yaml_bool(n, at, e);
  case S_INT:
    ICE_TRY(yaml_int(n, (int64_t)s->min, (int64_t)s->max, &whole, e));
    *(int *)at = (int)whole;
    return ICE_OK;
  case S_TEMPLATE: return yaml_choice(n, prompt_template_names, at, e);
  case S_SPLIT:
    ICE_TRY(yaml_choice(n, split_words, &word, e));
    *(task_split *)at = split_of[word];
    return ICE_OK;
  case S_MISSING: return yaml_choice(n, missing_words, at, e);
  case S_PAIRS: return yaml_choice(n, pairs_words, at, e);
  }
  return ICE_INTERNAL;
}

static int same(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

/* All rows of one section, from its mapping. */
static int read_section(yaml_node *map, const char *section, config_experiment *x, ice_err *e) {
  for (const scalar *s = scalars; s < scalars + SCALARS; s++) {
    if (!same(s->section, section)) continue;
    const yaml_node *n = yaml_find(map, s->key);
    if (n) ICE_TRY(read_scalar(n, s, x, e));
  }
  return ICE_OK;
}

/* ---- Lists. */

/* Names become those of folders and files: nothing that leads out of one, or reads as an option. */
static int is_name(const char *text) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  return *text && *text != '.' && *text != '-' && strlen(text) <= 100 && !text[strspn(text, letters)];
}

static int read_name(const yaml_node *n, config_experiment *x, ice_err *e) {
  const char *name;
  ICE_TRY(yaml_string(n, &name, e));
  if (!is_name(name)) return yaml_fail(n, e, "allowed 1..100 letters, digits, '.', '_', '-', the first neither '.' nor '-'");
  if (!strcmp(name, "attn")) return yaml_fail(n, e, "allowed any other name: this one is that of rows which `icebench attn --save` stores");
  free(x->name);
  return (x->name = strdup(name)) ? ICE_OK : no_memory(e);
}

static int read_tasks(loader *l, yaml_node *n, ice_err *e) {
  ICE_TRY(config_list_check(n, e));
  const task **found = calloc((size_t)yaml_count(n), sizeof *found);
  const int before = l->task != NULL; /* --set names others of the same kind */
  if (!found) return no_memory(e);
  free((void *)l->task);
  l->task = found;
  l->tasks = n;
  for (int i = 0; i < yaml_count(n); i++) {
    ice_err own = {0};
    const char *name = yaml_text(yaml_item(n, i));
    if (!(found[i] = config_shape_task(name)) && !(found[i] = task_find(name, &own)))
      return yaml_fail_at(yaml_item(n, i), e, "%s; or tensors: synth/gauss, synth/clustered, synth/lowrank", own.text);
    const int tensors = config_shape_task(name) != NULL, words = found[i]->prompts != NULL;
    if ((before || i > 0) && (tensors != l->tensors || words != l->words))
      return yaml_fail_at(yaml_item(n, i), e, "tasks of classes, tasks of words and synthetic tensors need a file each");
    l->tensors = tensors, l->words = words;
  }
  return ICE_OK;
}

int config_model_is_path(const char *model) {
  const char *dot = strrchr(model, '.');
  return model[0] == '/' || model[0] == '.' || (dot && (!strcmp(dot, ".safetensors") || !strcmp(dot, ".gguf")));
}

static int read_models(loader *l, yaml_node *n, ice_err *e) {
  ICE_TRY(config_list_check(n, e));
  l->models = n;
  for (int i = 0; i < yaml_count(n); i++) {
    const yaml_node *item = yaml_item(n, i);
    const char *model;
    ICE_TRY(yaml_string(item, &model, e));
    if (!config_model_is_path(model) && strstr(model, ".."))
      return yaml_fail(item, e, "allowed an id such as lra/listops/softmax, or a path");
  }
  return ICE_OK;
}

static int read_seeds(loader *l, yaml_node *n, ice_err *e) {
  int64_t seed;
  ICE_TRY(config_list_check(n, e));
  l->seeds = n;
  for (int i = 0; i < yaml_count(n); i++) ICE_TRY(yaml_int(yaml_item(n, i), 0, INT64_MAX, &seed, e));
  return ICE_OK;
}

static int read_paddings(loader *l, yaml_node *n, ice_err *e) {
  int word;
  if (l->tensors || l->words) return yaml_fail_key(n, e, "%s have no padding", l->tensors ? "tensors" : "prompts");
  ICE_TRY(config_list_check(n, e));
  for (int i = 0; i < yaml_count(n); i++) ICE_TRY(yaml_choice(yaml_item(n, i), config_padding_words, &word, e));
  l->paddings = n;
  return ICE_OK;
}

/* ---- Methods and their parameters. */

/* Takes over a text that cells point to. */
static int keep_text(loader *l, char *text, ice_err *e) {
  documents *docs = l->x->impl;
  char **grown = text ? realloc(docs->text, (size_t)(docs->n_texts + 1) * sizeof *grown) : NULL;
  if (!grown) {
    free(text);
    return no_memory(e);
  }
  docs->text = grown;
  grown[docs->n_texts++] = text;
  return ICE_OK;
}

static int read_schedule(loader *l, yaml_node *n, entry *out, ice_err *e) {
  if (l->tensors || l->words) return yaml_fail_key(n, e, "schedule: only models of classes have one, not %s", l->tensors ? "tensors" : "prompts");
  ICE_TRY(schedule_read(n, out->method, &out->schedule, e));
  return keep_text(l, out->schedule, e);
}

/* A parameter stands in one place. */
static int check_entry(const entry *en, ice_err *e) {
  for (int i = 0; i < en->sweeps.n; i++)
    if (schedule_sets(en->schedule, en->sweeps.item[i].param->key))
      return yaml_fail_at(en->at, e, "%s.%s: the schedule sets it for every head; remove one of the two", en->method->name, en->sweeps.item[i].param->key);
  return ICE_OK;
}

/* `- dense`, or `- iceformer: {k: [8, 16], when: {task: lra/text}}` */
static int read_entry(loader *l, yaml_node *n, entry *out, ice_err *e) {
  int map = yaml_is_map(n);
  ice_err own = {0};
  if (yaml_is_list(n) || (map && yaml_count(n) != 1))
    return yaml_fail(n, e, "allowed a method, or one method with its parameters: `- iceformer: {k: [8, 16]}`");
  out->at = n;
  out->method = registry_find(map ? yaml_key(n, 0) : yaml_text(n), &own);
  if (!out->method) return yaml_fail_at(n, e, "%s", own.text);
  if (!map) return ICE_OK;
  yaml_node *params = yaml_value(n, 0);
  if (!yaml_is_map(params))
    return yaml_fail(params, e, "allowed the parameters of %s: {key: value, ...}", out->method->name);
  for (int i = 0; i < yaml_count(params); i++) {
    yaml_node *value = yaml_value(params, i);
    if (!strcmp(yaml_key(params, i), "schedule")) ICE_TRY(read_schedule(l, value, out, e));
    else if (!strcmp(yaml_key(params, i), "when")) ICE_TRY(config_rule_read(value, out->method, l->tensors, &out->when, e));
    else ICE_TRY(config_sweeps_add(&out->sweeps, out->method, yaml_key(params, i), value, e));
  }
  return ICE_OK;
}

/* `methods: all`: every method of the registry that needs no training, with its defaults. */
static int add_all_methods(loader *l, yaml_node *n, ice_err *e) {
  int count = 0;
  while (registry_methods[count]) count++;
  if (!(l->entry = calloc((size_t)count, sizeof *l->entry))) return no_memory(e);
  for (int i = 0; i < count; i++)
    if (!(registry_methods[i]->caps & ATTN_CAP_NEEDS_TRAINING))
      l->entry[l->n_entries++] = (entry){.method = registry_methods[i], .at = n};
  return ICE_OK;
}

static int read_methods(loader *l, yaml_node *n, ice_err *e) {
  int count = yaml_is_map(n) ? 0 : yaml_count(n);
  if (yaml_is_scalar(n) && !strcmp(yaml_text(n), "all")) return add_all_methods(l, n, e);
  if (count < 1 || count > MAX_LIST) return yaml_fail(n, e, "allowed a list of 1..%d methods", MAX_LIST);
  if (!(l->entry = calloc((size_t)count, sizeof *l->entry))) return no_memory(e);
  for (l->n_entries = 0; l->n_entries < count;) {
    entry *en = &l->entry[l->n_entries];
    ICE_TRY(read_entry(l, yaml_item(n, l->n_entries++), en, e));
  }
  return ICE_OK;
}

static int read_rules(loader *l, yaml_node *n, ice_err *e) {
  int count = yaml_is_list(n) ? yaml_count(n) : 0;
  if (count < 1 || count > MAX_LIST)
    return yaml_fail(n, e, "allowed a list of 1..%d mappings such as {method: iceformer, k: 32}", MAX_LIST);
  if (!(l->rule = calloc((size_t)count, sizeof *l->rule))) return no_memory(e);
  for (l->n_rules = 0; l->n_rules < count;) {
    config_rule *r = &l->rule[l->n_rules];
    ICE_TRY(config_rule_read(yaml_item(n, l->n_rules++), NULL, l->tensors, r, e));
  }
  return ICE_OK;
}

/* ---- Presets: overrides under a name. `smoke` and `full` are there in every file. */

/* What makes any experiment a matter of seconds; a file may add to it. `full` is the file as it stands. */
static const char *const smoke[] = {"examples=16", "measure.rounds=2", "measure.warmup=0", "measure.inputs=2", "measure.max_seconds=5", NULL};

/* Its keys are read when it is chosen; `icebench check` chooses each in turn. */
static int look_at_preset(const char *name, yaml_node *preset, ice_err *e) {
  if (!is_name(name)) return yaml_fail_key(preset, e, "preset %s: its name is part of that of its rows: allowed letters, digits, '.', '_', '-', the first neither '.' nor '-'", name);
  if (!yaml_is_map(preset)) return yaml_fail(preset, e, "allowed a mapping such as {examples: 100, measure.rounds: 3}");
  for (int i = 0; i < yaml_count(preset); i++) (void)yaml_value(preset, i);
  return ICE_OK;
}

static int override(loader *l, const char *key, yaml_node *n, ice_err *e);

static int override_all(loader *l, yaml_node *map, const char *but, ice_err *e) {
  for (int i = 0; i < yaml_count(map); i++)
    if (!but || strcmp(yaml_key(map, i), but)) ICE_TRY(override(l, yaml_key(map, i), yaml_value(map, i), e));
  return ICE_OK;
}

/* Rows of a preset carry its name, so that they never stand in for those of the experiment: listops-smoke. */
static int rename_for(loader *l, const yaml_node *n, const char *preset, ice_err *e) {
  char *name;
  if (!strcmp(preset, "full")) return ICE_OK;
  if (strlen(l->x->name) + strlen(preset) > 99) return yaml_fail(n, e, "with the name of the experiment it is longer than 100 characters");
  if (asprintf(&name, "%s-%s", l->x->name, preset) < 0) return no_memory(e);
  free(l->x->name);
  l->x->name = name;
  return ICE_OK;
}

static int unknown_preset(const loader *l, const yaml_node *n, const char *name, ice_err *e) {
  enum { NAMES = 64 };
  const char *names[NAMES] = {"smoke", "full"};
  char near[200];
  int known = 2;
  for (int i = 0; l->presets && i < yaml_count(l->presets) && known < NAMES; i++) names[known++] = yaml_key(l->presets, i);
  registry_suggest(name, names, known, near, sizeof near);
  return yaml_fail(n, e, "allowed smoke, full, or a name under `presets` of %s%s%s%s", l->x->file, *near ? "; did you mean " : "", near, *near ? "?" : "");
}

static int apply_preset(loader *l, const yaml_node *n, ice_err *e) {
  const char *name;
  documents *docs = l->x->impl;
  ICE_TRY(yaml_string(n, &name, e));
  yaml_node *own = l->presets ? yaml_find(l->presets, name) : NULL;
  const int builtin = !strcmp(name, "smoke") || !strcmp(name, "full");
  if (!own && !builtin) return unknown_preset(l, n, name, e);
  ICE_TRY(rename_for(l, n, name, e));
  if (!strcmp(name, "smoke")) {
    ICE_TRY(yaml_assign(smoke, "preset smoke:", &docs->preset, e));
    ICE_TRY(override_all(l, yaml_root(docs->preset), NULL, e));
  }
  if (own && yaml_find(own, "preset")) return yaml_fail_key(yaml_find(own, "preset"), e, "a preset takes no other preset");
  return own ? override_all(l, own, NULL, e) : ICE_OK;
}

/* ---- The file, then the overrides. */

static int read_shape(loader *l, yaml_node *n, ice_err *e) {
  if (!l->tensors) return yaml_fail_key(n, e, "only synthetic tensors have a shape, e.g. task: synth/clustered");
  return config_shapes_read(&l->shapes, n, e);
}

/* Keys that only tasks of words have. */
static int refuse_words(const loader *l, yaml_node *top, ice_err *e) {
  static const char *const keys[] = {"lengths", "template", "answer_tokens", "context"};
  for (size_t i = 0; !l->words && i < sizeof keys / sizeof *keys; i++) {
    const yaml_node *n = yaml_find(top, keys[i]);
    if (n) return yaml_fail_key(n, e, "%s: belongs to tasks that are answered in words, such as longeval/lines", keys[i]);
  }
  return ICE_OK;
}

static int read_file(loader *l, yaml_doc *doc, ice_err *e) {
  yaml_node *top = yaml_root(doc), *n;
  ICE_TRY(yaml_get(top, "name", 1, &n, e));
  ICE_TRY(read_name(n, l->x, e));
  ICE_TRY(yaml_get(top, "task", 1, &n, e));
  ICE_TRY(read_tasks(l, n, e));
  ICE_TRY(refuse_words(l, top, e));
  ICE_TRY(yaml_get(top, "lengths", 0, &l->lengths, e));
  config_lengths_accept(l->lengths);
  ICE_TRY(yaml_get_map(top, "shape", l->tensors, &n, e));
  if (n) ICE_TRY(read_shape(l, n, e));
  ICE_TRY(yaml_get(top, "model", !l->tensors, &n, e));
  if (n && l->tensors) return yaml_fail_key(n, e, "synthetic tensors have no model; their key is `shape`");
  if (n) ICE_TRY(read_models(l, n, e));
  ICE_TRY(yaml_get(top, "seeds", 0, &n, e));
  if (n) ICE_TRY(read_seeds(l, n, e));
  ICE_TRY(yaml_get(top, "padding", 0, &n, e));
  if (n) ICE_TRY(read_paddings(l, n, e));
  ICE_TRY(yaml_get(top, "methods", 1, &n, e));
  ICE_TRY(read_methods(l, n, e));
  ICE_TRY(read_section(top, NULL, l->x, e));
  static const char *const sections[] = {"measure", "limits"};
  for (int i = 0; i < 2; i++) {
    ICE_TRY(yaml_get_map(top, sections[i], 0, &n, e));
    if (n) ICE_TRY(read_section(n, sections[i], l->x, e));
  }
  ICE_TRY(yaml_get(top, "exclude", 0, &n, e));
  if (n) ICE_TRY(read_rules(l, n, e));
  ICE_TRY(yaml_get_map(top, "presets", 0, &l->presets, e));
  ((documents *)l->x->impl)->presets = l->presets;
  for (int i = 0; l->presets && i < yaml_count(l->presets); i++) ICE_TRY(look_at_preset(yaml_key(l->presets, i), yaml_value(l->presets, i), e));
  return yaml_finish(doc, e);
}

/* METHOD.PARAM, on every entry of that method. */
static int override_param(loader *l, const char *method, const char *key, yaml_node *n, ice_err *e) {
  ice_err own = {0};
  const attn_method *m = registry_find(method, &own);
  if (!m) return yaml_fail(n, e, "%s", own.text);
  int used = 0;
  for (int i = 0; i < l->n_entries; i++) {
    if (l->entry[i].method != m) continue;
    ICE_TRY(config_sweeps_add(&l->entry[i].sweeps, m, key, n, e));
    used = 1;
  }
  return used ? ICE_OK : yaml_fail(n, e, "%s is not among the methods of %s", m->name, l->x->file);
}

static int unknown_override(const loader *l, const char *key, const yaml_node *n, ice_err *e) {
  const char *names[SCALARS + 6] = {"name", "task", "seeds", "preset", l->tensors ? "shape.KEY" : "model", l->words ? "lengths" : "padding"};
  char text[SCALARS][40], near[200], all[700] = "";
  for (int i = 0; i < SCALARS; i++) {
    (void)snprintf(text[i], sizeof text[i], "%s%s%s", scalars[i].section ? scalars[i].section : "", scalars[i].section ? "." : "", scalars[i].key);
    names[6 + i] = text[i];
  }
  registry_suggest(key, names, SCALARS + 6, near, sizeof near);
  near[strcspn(near, ",")] = 0; /* the nearest: with their section, all keys of `measure` are alike */
  for (size_t i = 0, used = 0; i < SCALARS + 6u && used < sizeof all; i++)
    used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", names[i]);
  return yaml_fail_key(n, e, "%s: unknown key%s%s%s, allowed %s, METHOD.PARAMETER", key, *near ? ", did you mean " : "", near, *near ? "?" : "", all);
}

static int override(loader *l, const char *key, yaml_node *n, ice_err *e) {
  char section[YAML_MAX_KEY_BYTES + 1];
  const char *dot = strchr(key, '.');
  if (strcmp(key, "name") == 0) return read_name(n, l->x, e);
  if (strcmp(key, "task") == 0) return read_tasks(l, n, e);
  if (strcmp(key, "model") == 0 && !l->tensors) return read_models(l, n, e);
  if (strncmp(key, "shape.", 6) == 0 && l->tensors) return config_shapes_set(&l->shapes, key + 6, n, e);
  if (strcmp(key, "seeds") == 0) return read_seeds(l, n, e);
  if (strcmp(key, "padding") == 0) return read_paddings(l, n, e);
  if (strcmp(key, "lengths") == 0 && l->words) {
    l->lengths = n;
    return ICE_OK;
  }
  (void)snprintf(section, sizeof section, "%.*s", dot ? (int)(dot - key) : 0, key);
  for (const scalar *s = scalars; s < scalars + SCALARS; s++)
    if (same(s->section, dot ? section : NULL) && strcmp(s->key, dot ? dot + 1 : key) == 0)
      return read_scalar(n, s, l->x, e);
  if (dot && strcmp(section, "measure") != 0 && strcmp(section, "limits") != 0)
    return override_param(l, section, dot + 1, n, e);
  return unknown_override(l, key, n, e);
}

static int read_overrides(loader *l, yaml_doc *doc, ice_err *e) {
  yaml_node *top = yaml_root(doc), *preset = yaml_find(top, "preset");
  if (preset) ICE_TRY(apply_preset(l, preset, e)); /* whatever the order, single values override it */
  return override_all(l, top, "preset", e);
}

/* `base: FILE`, a path from the folder of this file: that experiment under a name of its own, with the other keys as overrides. */
static int read_with_base(loader *l, yaml_doc *doc, ice_err *e) {
  documents *docs = l->x->impl;
  yaml_node *top = yaml_root(doc), *n = yaml_find(top, "base"), *name;
  const char *file = l->x->file, *slash = strrchr(file, '/'), *base;
  char path[PATH_MAX];
  ice_err own = {0};
  if (!n) return read_file(l, doc, e);
  ICE_TRY(yaml_string(n, &base, e));
  ICE_TRY(yaml_get(top, "name", 1, &name, e));
  if (snprintf(path, sizeof path, "%.*s%s", *base == '/' || !slash ? 0 : (int)(slash - file + 1), file, base) >= PATH_MAX)
    return yaml_fail(n, e, "the path is too long");
  if (yaml_read(path, &docs->base, &own) != ICE_OK) return yaml_fail_at(n, e, "base: %s", own.text);
  if (yaml_find(yaml_root(docs->base), "base")) return yaml_fail(n, e, "allowed a file that has no base itself");
  ICE_TRY(read_file(l, docs->base, e));
  return override_all(l, top, "base", e);
}

/* ---- Cells. */

static void free_cell(config_cell *c) {
  attn_free(c->params);
  free(c->params_json);
}

/* The cell of *c's task, model and seed with the values picked from each sweep of the entry, when it is wanted. */
static int add_cell(loader *l, config_cell c, const entry *en, const int *pick, ice_err *e) {
  c.method = en->method;
  c.schedule = en->schedule;
  c.params_json = NULL;
  if (!(c.params = registry_defaults(c.method))) return no_memory(e);
  for (int i = 0; i < en->sweeps.n; i++)
    memcpy((char *)c.params + en->sweeps.item[i].param->offset, &en->sweeps.item[i].value[pick[i]], sizeof(uint64_t));
  int wanted = config_rule_matches(&en->when, &c);
  for (int i = 0; wanted && i < l->n_rules; i++) wanted = !config_rule_matches(&l->rule[i], &c);
  if (!wanted) {
    free_cell(&c);
    return ICE_OK;
  }
  if (!(c.params_json = schedule_params_json(c.method, c.params, c.schedule))) {
    free_cell(&c);
    return no_memory(e);
  }
  l->x->cell[l->x->n_cells++] = c;
  return ICE_OK;
}

/* The product of all lists of one entry, the last one turning fastest. */
static int add_product(loader *l, const config_cell *c, const entry *en, ice_err *e) {
  int *pick = calloc((size_t)en->sweeps.n + 1, sizeof *pick), at = 0, rc = pick ? ICE_OK : no_memory(e);
  while (rc == ICE_OK && at >= 0) {
    rc = add_cell(l, *c, en, pick, e);
    for (at = en->sweeps.n - 1; at >= 0; at--) {
      if (++pick[at] < en->sweeps.item[at].count) break;
      pick[at] = 0;
    }
  }
  free(pick);
  return rc;
}

/* `pairs: trained`: the last part of a model's name is the attention it was trained with; a path says nothing. */
static int own_pair(const char *model, const attn_method *m) {
  const char *slash = strrchr(model, '/'), *last = slash ? slash + 1 : model;
  if (config_model_is_path(model) || !strcmp(last, m->name)) return 1;
  return !(m->caps & ATTN_CAP_NEEDS_TRAINING) && !strncmp(last, "softmax", 7);
}

static int fits(const char *model, const task *t) {
  size_t n = strlen(t->name);
  if (t->prompts) return 1;
  return config_model_is_path(model) || (strncmp(model, t->name, n) == 0 && model[n] == '/');
}

/* Number of pairs of task and model that fit; every task and every model must have a partner. */
static int count_pairs(const loader *l, int64_t *pairs, ice_err *e) {
  int n_tasks = yaml_count(l->tasks), n_models = l->tensors ? 0 : yaml_count(l->models);
  *pairs = 0;
  if (l->tensors) {
    const double shapes = config_shapes_count(&l->shapes) * n_tasks;
    *pairs = shapes < MAX_CELLS ? (int64_t)shapes : MAX_CELLS + 1;
    return ICE_OK;
  }
  for (int j = 0; j < n_models; j++) {
    int64_t before = *pairs;
    for (int i = 0; i < n_tasks; i++)
      if (fits(yaml_text(yaml_item(l->models, j)), l->task[i])) *pairs += config_lengths_count(l->lengths, l->task[i]);
    if (*pairs == before)
      return yaml_fail(yaml_item(l->models, j), e,
                       "allowed a model of the task, such as %s/softmax, or the path of a checkpoint",
                       l->task[0]->name);
  }
  for (int i = 0; i < n_tasks; i++) {
    int found = 0;
    for (int j = 0; j < n_models; j++) found |= fits(yaml_text(yaml_item(l->models, j)), l->task[i]);
    if (!found) return yaml_fail(yaml_item(l->tasks, i), e, "no model of this file is one of %s/...", l->task[i]->name);
  }
  return ICE_OK;
}

/* Makes room for all cells before `exclude`, or says which list is too long. */
static int make_room(loader *l, ice_err *e) {
  int64_t pairs, seeds = l->seeds ? yaml_count(l->seeds) : 1, all = 0;
  ICE_TRY(count_pairs(l, &pairs, e));
  for (int i = 0; i < l->n_entries; i++) {
    const entry *en = &l->entry[i];
    int64_t product = pairs * seeds * (l->paddings ? yaml_count(l->paddings) : 1); /* at most 2e9 */
    for (int k = 0; k < en->sweeps.n && product <= MAX_CELLS; k++) product *= en->sweeps.item[k].count;
    all += product;
    if (all > MAX_CELLS)
      return yaml_fail_at(en->at, e, "%s: its lists bring the experiment to more than %d cells; shorten one",
                          en->method->name, MAX_CELLS);
  }
  l->x->cell = calloc((size_t)all, sizeof *l->x->cell);
  return l->x->cell ? ICE_OK : no_memory(e);
}

static int by_identity(const void *pa, const void *pb) {
  const config_cell *a = *(const config_cell *const *)pa, *b = *(const config_cell *const *)pb;
  int c = strcmp(a->method->name, b->method->name);
  if (c == 0) c = strcmp(a->params_json, b->params_json);
  if (c == 0) c = strcmp(a->task->name, b->task->name);
  if (c == 0) c = strcmp(a->model, b->model);
  if (c == 0 && a->source) c = strcmp(a->source, b->source);
  if (c == 0) c = (a->seed > b->seed) - (a->seed < b->seed);
  if (c == 0) c = a->padded - b->padded;
  if (c == 0) c = (a->length > b->length) - (a->length < b->length);
  return c;
}

/* Two entries may overlap, as `dense` twice, or k once by default and once in a list. */
static int refuse_twins(const config_experiment *x, ice_err *e) {
  const config_cell **sorted = calloc((size_t)x->n_cells, sizeof *sorted);
  if (!sorted) return no_memory(e);
  for (int i = 0; i < x->n_cells; i++) sorted[i] = &x->cell[i];
  qsort((void *)sorted, (size_t)x->n_cells, sizeof *sorted, by_identity);
  int rc = ICE_OK;
  for (int i = 1; i < x->n_cells && rc == ICE_OK; i++)
    if (by_identity(&sorted[i - 1], &sorted[i]) == 0)
      rc = ice_fail(e, ICE_USAGE, "%s: methods: %s %s stands twice; remove one", x->file, sorted[i]->method->name,
                    sorted[i]->params_json);
  free((void *)sorted);
  return rc;
}

static int expand_tensors(loader *l, ice_err *e) {
  const int n_seeds = l->seeds ? yaml_count(l->seeds) : 1;
  const int64_t shapes = (int64_t)config_shapes_count(&l->shapes);
  for (int t = 0; t < yaml_count(l->tasks); t++)
    for (int64_t i = 0; i < shapes; i++)
      for (int s = 0; s < n_seeds; s++) {
        config_cell c = {.task = l->task[t], .seed = 1};
        char *source, *model;
        if (l->seeds) (void)number_u64(yaml_text(yaml_item(l->seeds, s)), &c.seed);
        ICE_TRY(config_shapes_make(&l->shapes, i, c.task, c.seed, &source, &model, e));
        const int kept = keep_text(l, source, e);
        ICE_TRY(keep_text(l, model, e));
        ICE_TRY(kept);
        c.source = source;
        c.model = model;
        for (int k = 0; k < l->n_entries; k++) ICE_TRY(add_product(l, &c, &l->entry[k], e));
      }
  return ICE_OK;
}

static int expand_models(loader *l, ice_err *e) {
  const int n_seeds = l->seeds ? yaml_count(l->seeds) : 1, n_paddings = l->paddings ? yaml_count(l->paddings) : 1;
  for (int j = 0; j < yaml_count(l->models); j++)
    for (int i = 0; i < yaml_count(l->tasks); i++) {
      config_cell c = {.task = l->task[i], .model = yaml_text(yaml_item(l->models, j)), .seed = 1};
      if (!fits(c.model, c.task)) continue;
      for (int s = 0; s < n_seeds; s++) {
        if (l->seeds) (void)number_u64(yaml_text(yaml_item(l->seeds, s)), &c.seed);
        for (int p = 0; p < n_paddings; p++) {
          if (l->paddings) ICE_TRY(yaml_choice(yaml_item(l->paddings, p), config_padding_words, &c.padded, e));
          for (int n = 0; n < config_lengths_count(l->lengths, c.task); n++) {
            c.length = config_length(l->lengths, c.task, n);
            for (int k = 0; k < l->n_entries; k++)
              if (!l->x->own_pairs || c.task->prompts || own_pair(c.model, l->entry[k].method)) ICE_TRY(add_product(l, &c, &l->entry[k], e));
          }
        }
      }
    }
  return ICE_OK;
}

static int expand(loader *l, ice_err *e) {
  for (int i = 0; i < l->n_entries; i++) ICE_TRY(check_entry(l->entry + i, e));
  ICE_TRY(config_lengths_check(l->lengths, l->tasks, l->task, yaml_count(l->tasks), e));
  ICE_TRY(make_room(l, e));
  ICE_TRY(l->tensors ? expand_tensors(l, e) : expand_models(l, e));
  if (l->x->n_cells == 0)
    return ice_fail(e, ICE_USAGE, "%s: `exclude`, `when` or `pairs` leaves no cell", l->x->file);
  return refuse_twins(l->x, e);
}

/* ---- Public. */

static int default_threads(int *out, ice_err *e) {
  const char *text = getenv("ICEBENCH_THREADS");
  int64_t n = sysconf(_SC_NPROCESSORS_ONLN);
  if (text && *text && !number_int(text, 1, MAX_THREADS, &n))
    return ice_fail(e, ICE_USAGE, "ICEBENCH_THREADS = %.60s, allowed whole numbers 1..%d", text, MAX_THREADS);
  *out = n < 1 ? 1 : n > 128 ? 128 : (int)n;
  if (text && *text) *out = (int)n;
  return ICE_OK;
}

static void free_lists(loader *l) {
  for (int i = 0; i < l->n_entries; i++) {
    config_sweeps_free(&l->entry[i].sweeps);
    config_rule_free(&l->entry[i].when);
  }
  for (int i = 0; i < l->n_rules; i++) config_rule_free(&l->rule[i]);
  free(l->entry);
  free(l->rule);
  free((void *)l->task);
}

/* Takes over the document. */
static int load_doc(yaml_doc *doc, const char *file, const char *const *set, config_experiment *out, ice_err *e) {
  documents *docs = calloc(1, sizeof *docs);
  if (!docs) {
    yaml_close(doc);
    return no_memory(e);
  }
  docs->file = doc;
  *out = (config_experiment){.split = TASK_TEST,
                             .rounds = 9,
                             .warmup = 1,
                             .processes = 1,
                             .max_rounds = 200,
                             .retries = 2,
                             .timed = 16,
                             .max_seconds = 120,
                             .quality = 1,
                             .limit_seconds = 600,
                             .limit_gib = 8,
                             .shuffle = -1,
                             .impl = docs};
  loader l = {.x = out};
  int rc = (out->file = strdup(file)) ? default_threads(&out->threads, e) : no_memory(e);
  if (rc == ICE_OK) rc = read_with_base(&l, doc, e);
  if (rc == ICE_OK && set) rc = yaml_assign(set, "--set", &docs->set, e);
  if (rc == ICE_OK && set) rc = read_overrides(&l, docs->set, e);
  if (rc == ICE_OK) rc = expand(&l, e);
  free_lists(&l);
  if (rc != ICE_OK) config_free(out);
  return rc;
}

int config_load(const char *file, const char *const *set, config_experiment *out, ice_err *e) {
  yaml_doc *doc;
  *out = (config_experiment){0};
  ICE_TRY(yaml_read(file, &doc, e));
  return load_doc(doc, file, set, out, e);
}

int config_parse(const char *bytes, size_t n, const char *name, const char *const *set, config_experiment *out,
                 ice_err *e) {
  yaml_doc *doc;
  *out = (config_experiment){0};
  ICE_TRY(yaml_parse(bytes, n, name, &doc, e));
  return load_doc(doc, name, set, out, e);
}

const char *config_preset(const config_experiment *x, int i) {
  const yaml_node *presets = x->impl ? ((const documents *)x->impl)->presets : NULL;
  return presets && i < yaml_count(presets) ? yaml_key(presets, i) : NULL;
}

void config_free(config_experiment *x) {
  documents *docs = x->impl;
  for (int i = 0; i < x->n_cells; i++) free_cell(&x->cell[i]);
  free(x->cell);
  free(x->file);
  free(x->name);
  if (docs) {
    yaml_close(docs->file);
    yaml_close(docs->base);
    yaml_close(docs->set);
    yaml_close(docs->preset);
    for (int i = 0; i < docs->n_texts; i++) free(docs->text[i]);
    free(docs->text);
  }
  free(docs);
  *x = (config_experiment){0};
}

char *config_cell_json(const config_experiment *x, const config_cell *c) {
  json_t *params = json_loads(c->params_json, 0, NULL);
  json_t *o =
      json_pack("{s:s, s:s, s:s, s:s, s:o, s:I, s:s, s:I, s:i, s:i, s:I, s:b}", "experiment", x->name, "task",
                c->task->name, "model", c->model, "method", c->method->name, "params", params, "seed",
                (json_int_t)c->seed, "split", task_split_name(x->split), "examples", (json_int_t)x->examples, "rounds",
                x->rounds, "warmup", x->warmup, "inputs", (json_int_t)x->timed, "quality", x->quality);
  if (o && c->source) (void)json_object_set_new(o, "source", json_string(c->source));
  if (o && c->padded) (void)json_object_set_new(o, "padding", json_string("compute")); /* absent: as before there was the key */
  /* Keys that came later are named only where they are used: what was measured before keeps its identity. */
  if (o && x->precision > 0.0) (void)json_object_set_new(o, "precision", json_real(x->precision));
  if (o && x->processes > 1) (void)json_object_set_new(o, "processes", json_integer(x->processes));
  if (o && x->slowdown > 0.0) (void)json_object_set_new(o, "slowdown", json_real(x->slowdown));
  if (o && c->task->prompts) {
    json_t *words = json_pack("{s:I, s:s, s:I, s:I}", "length", (json_int_t)c->length, "template", prompt_template_names[x->template],
                              "answer_tokens", (json_int_t)x->answer_tokens, "context", (json_int_t)x->context);
    (void)json_object_update(o, words);
    json_decref(words);
  }
  char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
  json_decref(o);
  return text;
}
