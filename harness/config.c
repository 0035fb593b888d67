/* config.c - see config.h.
 *
 * Reading and overriding share one table of scalars: a row says where a key stands, what it may be, and where it goes.
 * Methods keep their values as text until cells are made, since each list multiplies; every text is checked against the
 * method's own parameter row at the place where it was written. */
#include "harness/config.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/number.h"
#include "harness/registry/registry.h"
#include "harness/yaml.h"
#include "kernels/core/alloc.h"

enum { MAX_CELLS = 100000, MAX_LIST = 1000 };

/* --- scalars ------------------------------------------------------------------------------------------------------ */

typedef enum scalar_type { S_INT64, S_INT, S_REAL, S_BOOL, S_SPLIT } scalar_type;
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
    {NULL, "threads", S_INT, 1, 256, AT(threads)},
    {NULL, "no_retraining", S_BOOL, 0, 0, AT(allow_untrained_swap)},
    {"measure", "rounds", S_INT, 1, 1000, AT(rounds)},
    {"measure", "warmup", S_INT, 0, 100, AT(warmup)},
    {"measure", "inputs", S_INT64, 1, 4096, AT(timed)},
    {"measure", "max_seconds", S_REAL, 0.1, 1e6, AT(max_seconds)},
    {"measure", "quality", S_BOOL, 0, 0, AT(quality)},
    {"limits", "seconds", S_REAL, 1, 1e7, AT(limit_seconds)},
    {"limits", "memory_gib", S_REAL, 0.01, 65536, AT(limit_gib)},
};
enum { SCALARS = sizeof scalars / sizeof *scalars };
static const char *const split_words[] = {"test", "dev", NULL};
static const task_split split_of[] = {TASK_TEST, TASK_DEV};

static void *slot(config_experiment *x, const scalar *s) { return (char *)x + s->offset; }

static int read_scalar(const yaml_node *n, const scalar *s, config_experiment *x, ice_err *e) {
  int64_t i;
  int word;
  switch (s->type) {
  case S_INT64: return yaml_int(n, (int64_t)s->min, (int64_t)s->max, slot(x, s), e);
  case S_INT:
    ICE_TRY(yaml_int(n, (int64_t)s->min, (int64_t)s->max, &i, e));
    *(int *)slot(x, s) = (int)i;
    return ICE_OK;
  case S_REAL: return yaml_real(n, s->min, s->max, slot(x, s), e);
  case S_BOOL: return yaml_bool(n, slot(x, s), e);
  default:
    ICE_TRY(yaml_choice(n, split_words, &word, e));
    *(task_split *)slot(x, s) = split_of[word];
    return ICE_OK;
  }
}

/* An override: the same ranges, from the text of a command line. */
static int set_scalar(const char *assignment, const char *text, const scalar *s, config_experiment *x, ice_err *e) {
  int64_t i;
  switch (s->type) {
  case S_INT64:
  case S_INT:
    if (!number_int(text, (int64_t)s->min, (int64_t)s->max, &i))
      return ice_fail(e, ICE_USAGE, "--set %s, allowed %.0f..%.0f", assignment, s->min, s->max);
    if (s->type == S_INT) *(int *)slot(x, s) = (int)i;
    else *(int64_t *)slot(x, s) = i;
    return ICE_OK;
  case S_REAL:
    if (!number_real(text, s->min, s->max, slot(x, s)))
      return ice_fail(e, ICE_USAGE, "--set %s, allowed %g..%g", assignment, s->min, s->max);
    return ICE_OK;
  case S_BOOL:
    if (strcmp(text, "true") && strcmp(text, "false"))
      return ice_fail(e, ICE_USAGE, "--set %s, allowed true, false", assignment);
    *(int *)slot(x, s) = !strcmp(text, "true");
    return ICE_OK;
  default:
    for (int w = 0; split_words[w]; w++)
      if (!strcmp(text, split_words[w])) {
        *(task_split *)slot(x, s) = split_of[w];
        return ICE_OK;
      }
    return ice_fail(e, ICE_USAGE, "--set %s, allowed test, dev", assignment);
  }
}

/* --- what the file lists ------------------------------------------------------------------------------------------ */

typedef struct sweep { /* one parameter and its values */
  const attn_param *param;
  const char **text; /* [count], borrowed from the document or from `owned` */
  int count;
} sweep;

typedef struct entry { /* one line of `methods` */
  const attn_method *method;
  sweep *sweep;
  int n_sweeps;
} entry;

typedef struct loader {
  yaml_doc *doc;
  yaml_node *tasks, *models, *seeds, *methods, *exclude;
  entry *entry;
  int n_entries;
  char **owned; /* texts of overrides */
  int n_owned;
  config_experiment *x;
} loader;

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory"); }

/* Parses one value of a parameter into params, with the place of the file in the fault. */
static int check_value(const attn_method *m, const attn_param *p, const yaml_node *n, ice_err *e) {
  void *params = attn_calloc(m->params_size);
  ice_err own = {0};
  char allowed[256];
  if (!params) return no_memory(e);
  int rc = yaml_is_scalar(n) ? registry_param_set(m, p, yaml_text(n), params, &own) : ICE_USAGE;
  attn_free(params);
  if (rc == ICE_OK) return ICE_OK;
  registry_param_allowed(p, allowed, sizeof allowed);
  return yaml_fail(n, e, "allowed %s", allowed);
}

static int read_sweep(const attn_method *m, const char *key, yaml_node *value, sweep *out, ice_err *e) {
  ice_err own = {0};
  out->param = registry_param(m, key, &own);
  if (!out->param) return yaml_fail_at(value, e, "%s", own.text);
  const int n = yaml_count(value);
  if (n < 1 || n > MAX_LIST) return yaml_fail(value, e, "allowed 1..%d values", MAX_LIST);
  out->text = calloc((size_t)n, sizeof *out->text);
  if (!out->text) return no_memory(e);
  for (int i = 0; i < n; i++) {
    yaml_node *item = yaml_item(value, i);
    ICE_TRY(check_value(m, out->param, item, e));
    out->text[out->count++] = yaml_text(item);
  }
  return ICE_OK;
}

/* `- dense`, or `- iceformer: {k: [8, 16]}` */
static int read_entry(yaml_node *n, entry *out, ice_err *e) {
  ice_err own = {0};
  const int map = yaml_is_map(n);
  if (yaml_is_list(n) || (map && yaml_count(n) != 1))
    return yaml_fail(n, e, "allowed a method, or one method with its parameters: `- iceformer: {k: [8, 16]}`");
  out->method = registry_find(map ? yaml_key(n, 0) : yaml_text(n), &own);
  if (!out->method) return yaml_fail_at(n, e, "%s", own.text);
  if (!map) return ICE_OK;
  yaml_node *params = yaml_value(n, 0);
  if (!yaml_is_map(params)) return yaml_fail(params, e, "allowed the parameters of %s: {key: value, ...}", out->method->name);
  out->sweep = calloc((size_t)yaml_count(params) + 1, sizeof *out->sweep);
  if (!out->sweep) return no_memory(e);
  for (int i = 0; i < yaml_count(params); i++) {
    out->n_sweeps++;
    ICE_TRY(read_sweep(out->method, yaml_key(params, i), yaml_value(params, i), &out->sweep[i], e));
  }
  return ICE_OK;
}

static int read_list(yaml_node *top, const char *key, int needed, yaml_node **out, ice_err *e) {
  ICE_TRY(yaml_get(top, key, needed, out, e));
  if (!*out) return ICE_OK;
  const int n = yaml_count(*out);
  if (yaml_is_map(*out) || n < 1 || n > MAX_LIST) return yaml_fail(*out, e, "allowed a value or a list of 1..%d", MAX_LIST);
  return ICE_OK;
}

static int read_section(yaml_node *map, const char *section, config_experiment *x, ice_err *e) {
  for (int i = 0; i < SCALARS; i++) {
    if ((scalars[i].section != NULL) != (section != NULL) || (section && strcmp(section, scalars[i].section))) continue;
    const yaml_node *n = yaml_find(map, scalars[i].key);
    if (n) ICE_TRY(read_scalar(n, &scalars[i], x, e));
  }
  return ICE_OK;
}

static int read_rules(loader *l, ice_err *e) {
  static const char *const plain[] = {"method", "task", "model", "seed"};
  for (int i = 0; l->exclude && i < yaml_count(l->exclude); i++) {
    yaml_node *r = yaml_item(l->exclude, i);
    const char *method = NULL;
    if (!yaml_is_map(r)) return yaml_fail(r, e, "allowed a mapping such as {method: iceformer, k: 32}");
    ICE_TRY(yaml_get_string(r, "method", 1, &method, e));
    ice_err own = {0};
    const attn_method *m = registry_find(method, &own);
    if (!m) return yaml_fail_at(r, e, "%s", own.text);
    for (int k = 0; k < yaml_count(r); k++) {
      int known = 0;
      for (size_t p = 0; p < sizeof plain / sizeof *plain; p++) known |= !strcmp(yaml_key(r, k), plain[p]);
      yaml_node *value = yaml_value(r, k);
      if (known) continue;
      const attn_param *param = registry_param(m, yaml_key(r, k), &own);
      if (!param) return yaml_fail_at(value, e, "%s", own.text);
      ICE_TRY(check_value(m, param, value, e));
    }
  }
  return ICE_OK;
}

static int read_file(loader *l, ice_err *e) {
  config_experiment *x = l->x;
  yaml_node *top = yaml_root(l->doc), *section;
  const char *name = NULL;
  ICE_TRY(yaml_get_string(top, "name", 1, &name, e));
  if (strlen(name) > 100) return yaml_fail(yaml_find(top, "name"), e, "allowed 1..100 characters");
  if (!(x->name = strdup(name))) return no_memory(e);
  ICE_TRY(read_list(top, "task", 1, &l->tasks, e));
  ICE_TRY(read_list(top, "model", 1, &l->models, e));
  ICE_TRY(read_list(top, "seeds", 0, &l->seeds, e));
  ICE_TRY(read_list(top, "methods", 1, &l->methods, e));
  ICE_TRY(read_list(top, "exclude", 0, &l->exclude, e));
  ICE_TRY(read_section(top, NULL, x, e));
  static const char *const sections[] = {"measure", "limits"};
  for (int i = 0; i < 2; i++) {
    section = NULL;
    ICE_TRY(yaml_get_map(top, sections[i], 0, &section, e));
    if (section) ICE_TRY(read_section(section, sections[i], x, e));
  }
  l->entry = calloc((size_t)yaml_count(l->methods), sizeof *l->entry);
  if (!l->entry) return no_memory(e);
  for (int i = 0; i < yaml_count(l->methods); i++) {
    l->n_entries++;
    ICE_TRY(read_entry(yaml_item(l->methods, i), &l->entry[i], e));
  }
  ICE_TRY(read_rules(l, e));
  return yaml_finish(l->doc, e);
}

/* --- overrides ---------------------------------------------------------------------------------------------------- */

/* METHOD.PARAM=a|b|c on every entry of that method. */
static int set_param(loader *l, const char *assignment, const attn_method *m, const char *key, const char *values,
                     ice_err *e) {
  const attn_param *p = registry_param(m, key, e);
  if (!p) return e->code;
  char *copy = strdup(values), **grown = realloc(l->owned, (size_t)(l->n_owned + 1) * sizeof *grown);
  if (grown) l->owned = grown;
  if (!copy || !grown) {
    free(copy);
    return no_memory(e);
  }
  l->owned[l->n_owned++] = copy;
  sweep s = {.param = p};
  void *params = attn_calloc(m->params_size);
  s.text = calloc(strlen(values) + 2, sizeof *s.text);
  int rc = params && s.text ? ICE_OK : no_memory(e);
  char *save = NULL;
  for (char *v = rc == ICE_OK ? strtok_r(copy, "|", &save) : NULL; v && rc == ICE_OK; v = strtok_r(NULL, "|", &save)) {
    rc = registry_param_set(m, p, v, params, e);
    s.text[s.count++] = v;
  }
  if (rc == ICE_OK && s.count == 0) rc = ice_fail(e, ICE_USAGE, "--set %s: a value is needed", assignment);
  int used = 0;
  for (int i = 0; i < l->n_entries && rc == ICE_OK; i++) {
    entry *en = &l->entry[i];
    if (en->method != m) continue;
    int at = 0;
    while (at < en->n_sweeps && en->sweep[at].param != p) at++;
    if (at == en->n_sweeps) {
      sweep *more = realloc(en->sweep, (size_t)(at + 1) * sizeof *more);
      if (!more) rc = no_memory(e);
      else en->sweep = more, en->sweep[en->n_sweeps++] = (sweep){.param = p};
    }
    if (rc != ICE_OK) break;
    const char **text = malloc((size_t)s.count * sizeof *text);
    if (!text) rc = no_memory(e);
    else {
      memcpy(text, s.text, (size_t)s.count * sizeof *text);
      free(en->sweep[at].text);
      en->sweep[at].text = text, en->sweep[at].count = s.count;
    }
    used = 1;
  }
  if (rc == ICE_OK && !used) rc = ice_fail(e, ICE_USAGE, "--set %s: %s is not among the methods of %s", assignment, m->name, l->x->file);
  attn_free(params);
  free(s.text);
  return rc;
}

static int apply(loader *l, const char *assignment, ice_err *e) {
  char key[128];
  const char *equals = strchr(assignment, '=');
  const size_t length = equals ? (size_t)(equals - assignment) : 0;
  if (!equals || length == 0 || length >= sizeof key)
    return ice_fail(e, ICE_USAGE, "--set %s: KEY=VALUE is expected, e.g. measure.rounds=3 or iceformer.k=8|16", assignment);
  memcpy(key, assignment, length);
  key[length] = 0;
  char *dot = strchr(key, '.');
  if (dot) *dot = 0;
  for (int i = 0; i < SCALARS; i++) {
    const scalar *s = &scalars[i];
    if (dot ? s->section && !strcmp(s->section, key) && !strcmp(s->key, dot + 1) : !s->section && !strcmp(s->key, key))
      return set_scalar(assignment, equals + 1, s, l->x, e);
  }
  if (!dot || !strcmp(key, "measure") || !strcmp(key, "limits"))
    return ice_fail(e, ICE_USAGE,
                    "--set %s: unknown key; allowed examples, split, threads, no_retraining, measure.{rounds, warmup, "
                    "inputs, max_seconds, quality}, limits.{seconds, memory_gib}, METHOD.PARAMETER",
                    assignment);
  const attn_method *m = registry_find(key, e);
  return m ? set_param(l, assignment, m, dot + 1, equals + 1, e) : e->code;
}

/* --- cells -------------------------------------------------------------------------------------------------------- */

static int is_path(const char *model) { return strchr("./~", model[0]) || strstr(model, ".safetensors"); }
static int model_fits(const char *model, const task *t) {
  const size_t n = strlen(t->name);
  return is_path(model) || (strncmp(model, t->name, n) == 0 && model[n] == '/');
}

static int excluded(const loader *l, const config_cell *c, ice_err *e) {
  for (int i = 0; l->exclude && i < yaml_count(l->exclude); i++) {
    yaml_node *r = yaml_item(l->exclude, i);
    int match = 1;
    for (int k = 0; k < yaml_count(r) && match; k++) {
      const char *key = yaml_key(r, k), *text = yaml_text(yaml_value(r, k));
      char seed[32], is[64], wanted[64];
      (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)c->seed);
      if (!strcmp(key, "method")) match = !strcmp(text, c->method->name);
      else if (!strcmp(key, "task")) match = !strcmp(text, c->task->name);
      else if (!strcmp(key, "model")) match = !strcmp(text, c->model);
      else if (!strcmp(key, "seed")) match = !strcmp(text, seed);
      else {
        const attn_param *p = strcmp(yaml_text(yaml_find(r, "method")), c->method->name) ? NULL : registry_param(c->method, key, e);
        void *params = p ? attn_calloc(c->method->params_size) : NULL;
        match = params && registry_param_set(c->method, p, text, params, e) == ICE_OK;
        if (match) {
          registry_param_print(p, params, wanted, sizeof wanted);
          registry_param_print(p, c->params, is, sizeof is);
          match = !strcmp(wanted, is);
        }
        attn_free(params);
      }
    }
    if (match) return 1;
  }
  return 0;
}

static void free_cell(config_cell *c) {
  attn_free(c->params);
  free(c->params_json);
}

static int add_cell(loader *l, const task *t, const char *model, uint64_t seed, const entry *en, const int *pick,
                    ice_err *e) {
  config_experiment *x = l->x;
  if (x->n_cells == MAX_CELLS) return ice_fail(e, ICE_USAGE, "%s: more than %d cells; shorten a list", x->file, MAX_CELLS);
  if ((x->n_cells & (x->n_cells - 1)) == 0) { /* room doubles at powers of two */
    config_cell *grown = realloc(x->cell, (size_t)(x->n_cells ? 2 * x->n_cells : 1) * sizeof *grown);
    if (!grown) return no_memory(e);
    x->cell = grown;
  }
  config_cell c = {.task = t, .model = model, .method = en->method, .seed = seed, .params = attn_calloc(en->method->params_size)};
  int rc = c.params ? ICE_OK : no_memory(e);
  if (rc == ICE_OK) attn_params_default(c.method, c.params);
  for (int i = 0; i < en->n_sweeps && rc == ICE_OK; i++)
    rc = registry_param_set(c.method, en->sweep[i].param, en->sweep[i].text[pick[i]], c.params, e);
  if (rc == ICE_OK && !(c.params_json = registry_params_json(c.method, c.params))) rc = no_memory(e);
  if (rc != ICE_OK || excluded(l, &c, e)) {
    free_cell(&c);
    return rc;
  }
  x->cell[x->n_cells++] = c;
  return ICE_OK;
}

/* The product of all parameter lists of one entry, the last one turning fastest. */
static int add_product(loader *l, const task *t, const char *model, uint64_t seed, const entry *en, ice_err *e) {
  int *pick = calloc((size_t)en->n_sweeps + 1, sizeof *pick), at = 0, rc = pick ? ICE_OK : no_memory(e);
  while (rc == ICE_OK && at >= 0) {
    rc = add_cell(l, t, model, seed, en, pick, e);
    for (at = en->n_sweeps - 1; at >= 0; at--) {
      if (++pick[at] < en->sweep[at].count) break;
      pick[at] = 0;
    }
  }
  free(pick);
  return rc;
}

static int add_seed(loader *l, const task *t, const char *model, uint64_t seed, ice_err *e) {
  for (int i = 0; i < l->n_entries; i++) ICE_TRY(add_product(l, t, model, seed, &l->entry[i], e));
  return ICE_OK;
}

static int add_task_model(loader *l, const task *t, const char *model, ice_err *e) {
  if (!l->seeds) return add_seed(l, t, model, 1, e);
  for (int i = 0; i < yaml_count(l->seeds); i++) {
    int64_t seed;
    ICE_TRY(yaml_int(yaml_item(l->seeds, i), 0, INT64_MAX, &seed, e));
    ICE_TRY(add_seed(l, t, model, (uint64_t)seed, e));
  }
  return ICE_OK;
}

static int expand(loader *l, ice_err *e) {
  for (int j = 0; j < yaml_count(l->models); j++) {
    const char *model;
    int used = 0;
    ICE_TRY(yaml_string(yaml_item(l->models, j), &model, e));
    if (strstr(model, "..") && !is_path(model)) return yaml_fail(yaml_item(l->models, j), e, "allowed an id such as lra/listops/softmax, or a path");
    for (int i = 0; i < yaml_count(l->tasks); i++) {
      const char *name;
      ice_err own = {0};
      ICE_TRY(yaml_string(yaml_item(l->tasks, i), &name, e));
      const task *t = task_find(name, &own);
      if (!t) return yaml_fail_at(yaml_item(l->tasks, i), e, "%s", own.text);
      if (!model_fits(model, t)) continue;
      used = 1;
      ICE_TRY(add_task_model(l, t, model, e));
    }
    if (!used)
      return yaml_fail(yaml_item(l->models, j), e, "allowed a model of one of the tasks, TASK/NAME, or the path of a checkpoint");
  }
  if (l->x->n_cells == 0) return ice_fail(e, ICE_USAGE, "%s: `exclude` leaves no cell", l->x->file);
  return ICE_OK;
}

/* --- public ------------------------------------------------------------------------------------------------------- */

static int default_threads(void) {
  const char *text = getenv("ICEBENCH_THREADS");
  int64_t n;
  if (text && number_int(text, 1, 256, &n)) return (int)n;
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return cores < 1 ? 1 : cores > 128 ? 128 : (int)cores;
}

static void free_lists(loader *l) {
  for (int i = 0; i < l->n_entries; i++) {
    for (int j = 0; j < l->entry[i].n_sweeps; j++) free((void *)l->entry[i].sweep[j].text);
    free(l->entry[i].sweep);
  }
  free(l->entry);
  for (int i = 0; i < l->n_owned; i++) free(l->owned[i]);
  free(l->owned);
}

static int load_doc(yaml_doc *doc, const char *file, const char *const *set, config_experiment *out, ice_err *e) {
  *out = (config_experiment){.split = TASK_TEST, .rounds = 9, .warmup = 1, .timed = 16, .max_seconds = 120, .quality = 1,
                             .limit_seconds = 600, .limit_gib = 8, .impl = doc};
  out->threads = default_threads();
  loader l = {.doc = doc, .x = out};
  int rc = (out->file = strdup(file)) ? read_file(&l, e) : no_memory(e);
  for (; rc == ICE_OK && set && *set; set++) rc = apply(&l, *set, e);
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

int config_parse(const char *bytes, size_t n, const char *name, config_experiment *out, ice_err *e) {
  yaml_doc *doc;
  *out = (config_experiment){0};
  ICE_TRY(yaml_parse(bytes, n, name, &doc, e));
  return load_doc(doc, name, NULL, out, e);
}

void config_free(config_experiment *x) {
  for (int i = 0; i < x->n_cells; i++) free_cell(&x->cell[i]);
  free(x->cell);
  free(x->file);
  free(x->name);
  yaml_close(x->impl);
  *x = (config_experiment){0};
}

char *config_cell_json(const config_experiment *x, const config_cell *c) {
  json_t *params = json_loads(c->params_json, 0, NULL);
  json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:o, s:I, s:s, s:I, s:i, s:i, s:I, s:b}", "experiment", x->name, "task",
                        c->task->name, "model", c->model, "method", c->method->name, "params", params, "seed",
                        (json_int_t)c->seed, "split", task_split_name(x->split), "examples", (json_int_t)x->examples,
                        "rounds", x->rounds, "warmup", x->warmup, "inputs", (json_int_t)x->timed, "quality", x->quality);
  char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
  json_decref(o);
  return text;
}
