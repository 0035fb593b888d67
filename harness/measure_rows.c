/* measure_rows.c - rows from the command line: methods, settings, plug-ins. See measure_rows.h */
#include "harness/measure_rows.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"

enum { MAX_SETTINGS = 64 };

/* ---- Methods and plug-ins. */

/* The method of a shared object, or NULL and why not. */
static const attn_method *open_plugin(const char *full, char *why) {
  void *lib = dlopen(full, RTLD_NOW | RTLD_LOCAL);
  if (!lib) {
    (void)snprintf(why, MEASURE_REASON, "cannot be loaded: %s", dlerror());
    return NULL;
  }
  const attn_method *(*entry)(uint32_t);
  *(void **)&entry = dlsym(lib, "icebench_plugin");
  if (!entry) {
    (void)snprintf(why, MEASURE_REASON, "no function `const attn_method *icebench_plugin(uint32_t abi)`");
    return NULL;
  }
  const attn_method *m = entry(ATTN_ABI);
  ice_err bad = {0};
  if (!m)
    (void)snprintf(why, MEASURE_REASON, "refuses version %u of the interface; build it against this attn.h", ATTN_ABI);
  else if (registry_self_check_table((const attn_method *const[]){m, NULL}, &bad) != ICE_OK)
    (void)snprintf(why, MEASURE_REASON, "%s", bad.text);
  return *why ? NULL : m;
}

/* "window" of ./lib/window.so; to free(). */
static char *name_of_file(const char *path) {
  const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
  return strndup(base, strcspn(base, "."));
}

static int load_plugin(measure_rows *rows, const char *path, ice_err *e) {
  char full[PATH_MAX];
  if (rows->n_plugins == MEASURE_MAX_METHODS)
    return ice_fail(e, ICE_USAGE, "--plugin: given more than %d times", MEASURE_MAX_METHODS);
  if (!realpath(path, full)) return ice_fail(e, ICE_USAGE, "--plugin %s: no such file", path);
  attn_method *broken = rows->broken + rows->n_plugins;
  char *why = rows->why[rows->n_plugins];
  const char *blamed = watch_reason(rows->watch, full);
  if (blamed) (void)snprintf(why, MEASURE_REASON, "%s", blamed);
  watch_begin(rows->watch, full, "loading");
  const attn_method *m = blamed ? NULL : open_plugin(full, why);
  watch_end(rows->watch);
  if (!m) {
    char text[MEASURE_REASON];
    (void)snprintf(text, sizeof text, "--plugin %.300s: %.700s", path, why);
    memcpy(why, text, sizeof text);
    *broken = (attn_method){.name = name_of_file(path), .version = "-", .doc = "a plug-in that did not load"};
    m = broken;
    if (!broken->name) return ice_fail(e, ICE_INTERNAL, "out of memory");
  } else {
    int taken = registry_find(m->name, NULL) != NULL;
    for (int i = 0; i < rows->n_plugins; i++) taken |= !strcmp(rows->plugin[i]->name, m->name);
    if (taken) return ice_fail(e, ICE_USAGE, "--plugin %s: there is a method %s already", path, m->name);
  }
  rows->plugin[rows->n_plugins++] = m;
  return ICE_OK;
}

/* Why a method is no method: it stands in for a plug-in that did not load. NULL when it is one. */
static const char *broken_reason(const measure_rows *rows, const attn_method *m) {
  for (int i = 0; i < rows->n_plugins; i++)
    if (m == rows->broken + i) return rows->why[i];
  return NULL;
}

static const attn_method *find_method(const measure_rows *rows, const char *name, ice_err *e) {
  for (int i = 0; i < rows->n_plugins; i++)
    if (!strcmp(rows->plugin[i]->name, name)) return rows->plugin[i];
  return registry_find(name, e);
}

static int has_method(const measure_rows *rows, const attn_method *m) {
  for (int i = 0; i < rows->n_methods; i++)
    if (rows->method[i] == m) return 1;
  return 0;
}

static int add_method(measure_rows *rows, const attn_method *m, ice_err *e) {
  if (has_method(rows, m)) return ice_fail(e, ICE_USAGE, "--methods: %s stands twice", m->name);
  if (rows->n_methods == MEASURE_MAX_METHODS)
    return ice_fail(e, ICE_USAGE, "--methods: more than %d", MEASURE_MAX_METHODS);
  rows->method[rows->n_methods++] = m;
  return ICE_OK;
}

/* A name that nobody has is that of the first plug-in which did not load and has no name yet. */
static const attn_method *adopt(measure_rows *rows, const char *name) {
  for (int i = 0; i < rows->n_plugins; i++) {
    attn_method *m = rows->broken + i;
    if (rows->plugin[i] != m || has_method(rows, m)) continue;
    char *copy = strdup(name);
    if (!copy) return NULL;
    free((char *)(uintptr_t)m->name);
    m->name = copy;
    return m;
  }
  return NULL;
}

/* Plug-ins that did not load have their row, wanted by name or not. */
static int add_broken(measure_rows *rows, ice_err *e) {
  for (int i = 0; i < rows->n_plugins; i++)
    if (rows->plugin[i] == rows->broken + i && !has_method(rows, rows->plugin[i]))
      ICE_TRY(add_method(rows, rows->plugin[i], e));
  return ICE_OK;
}

static int choose_methods(measure_rows *rows, const char *list, ice_err *e) {
  if (!list) {
    for (const attn_method *const *m = registry_methods; *m; m++)
      if (!((*m)->caps & ATTN_CAP_NEEDS_TRAINING)) ICE_TRY(add_method(rows, *m, e));
    for (int i = 0; i < rows->n_plugins; i++) ICE_TRY(add_method(rows, rows->plugin[i], e));
    return ICE_OK;
  }
  char *copy = strdup(list), *at = copy;
  int rc = copy ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  for (char *name; rc == ICE_OK && (name = strsep(&at, ",")) != NULL;) {
    const attn_method *m = find_method(rows, name, e);
    if (!m) m = adopt(rows, name);
    rc = m ? add_method(rows, m, e) : ICE_USAGE;
  }
  free(copy);
  return rc == ICE_OK ? add_broken(rows, e) : rc;
}

/* ---- Settings. */

typedef struct setting { /* one parameter of one method with its values */
  const attn_method *method;
  const attn_param *param;
  const char **value; /* [n], owned; the text is the list's */
  int n;
} setting;

typedef struct settings {
  setting list[MAX_SETTINGS];
  int n;
  char *text; /* owned copy of all options, cut into pieces */
} settings;

/* "A|B|C", cut in place. */
static int read_values(setting *s, char *text, ice_err *e) {
  s->value = calloc(MEASURE_MAX_ROWS, sizeof *s->value);
  if (!s->value) return ice_fail(e, ICE_INTERNAL, "out of memory");
  while (text) {
    if (s->n == MEASURE_MAX_ROWS)
      return ice_fail(e, ICE_USAGE, "--set %s.%s: more than %d values", s->method->name, s->param->key,
                      MEASURE_MAX_ROWS);
    s->value[s->n++] = strsep(&text, "|");
  }
  return ICE_OK;
}

static int add_setting(const measure_rows *rows, settings *all, char *pair, ice_err *e) {
  char *equals = strchr(pair, '='), *dot = strchr(pair, '.');
  if (!equals || !dot || dot > equals)
    return ice_fail(e, ICE_USAGE, "--set %s: expected METHOD.PARAMETER=VALUE, as in topk.k=8|16|32", pair);
  *equals = *dot = '\0';
  const attn_method *m = find_method(rows, pair, e);
  if (m && broken_reason(rows, m)) return ICE_OK; /* whatever its parameters are */
  const attn_param *p = m ? registry_param(m, dot + 1, e) : NULL;
  if (!p) return ICE_USAGE;
  if (!has_method(rows, m))
    return ice_fail(e, ICE_USAGE, "--set %s.%s: %s is not among --methods", pair, dot + 1, pair);
  for (int i = 0; i < all->n; i++)
    if (all->list[i].method == m && all->list[i].param == p)
      return ice_fail(e, ICE_USAGE, "--set %s.%s: set twice; a sweep is %s.%s=A|B", pair, p->key, pair, p->key);
  if (all->n == MAX_SETTINGS) return ice_fail(e, ICE_USAGE, "--set: more than %d parameters", MAX_SETTINGS);
  setting *s = all->list + all->n++;
  *s = (setting){.method = m, .param = p};
  return read_values(s, equals + 1, e);
}

static int read_settings(const measure_rows *rows, const char *const *given, settings *all, ice_err *e) {
  size_t size = 1;
  for (int i = 0; given && given[i]; i++) size += strlen(given[i]) + 1;
  all->text = malloc(size);
  if (!all->text) return ice_fail(e, ICE_INTERNAL, "out of memory");
  char *at = all->text;
  for (int i = 0; given && given[i]; i++) {
    char *list = strcpy(at, given[i]);
    at += strlen(given[i]) + 1;
    for (char *pair; (pair = strsep(&list, ",")) != NULL;) ICE_TRY(add_setting(rows, all, pair, e));
  }
  return ICE_OK;
}

static void free_settings(settings *all) {
  for (int i = 0; i < all->n; i++) free(all->list[i].value);
  free(all->text);
  free(all);
}

/* ---- Rows. */

/* One row: value at[i] of setting pick[i]. */
static int add_row(measure_rows *rows, const attn_method *m, const setting *const *pick, const int *at, int n,
                   ice_err *e) {
  if (rows->n == MEASURE_MAX_ROWS)
    return ice_fail(e, ICE_USAGE, "--set: more than %d combinations", MEASURE_MAX_ROWS - 2);
  measure_row *row = rows->row + rows->n;
  *row = (measure_row){.method = m, .column = -1, .params = registry_defaults(m)};
  rows->params[rows->n++] = row->params;
  if (!row->params) return ice_fail(e, ICE_INTERNAL, "out of memory");
  char swept[1024] = "", value[64];
  for (int i = 0; i < n; i++) {
    const attn_param *p = pick[i]->param;
    ICE_TRY(registry_param_set(m, p, pick[i]->value[at[i]], row->params, e));
    registry_param_print(p, row->params, value, sizeof value);
    size_t used = strlen(swept);
    if (pick[i]->n > 1) (void)snprintf(swept + used, sizeof swept - used, "%s%s=%s", used ? "," : "", p->key, value);
  }
  row->json = registry_params_json(m, row->params);
  row->swept = strdup(swept);
  const char *why = broken_reason(rows, m);
  if (!why) why = watch_reason(rows->watch, m->name);
  if (why) {
    row->status = ATTN_ERR_ARG;
    (void)snprintf(row->reason, sizeof row->reason, "%s", why);
  }
  return row->json && row->swept ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

/* All combinations of a method's settings. Late parameters turn fastest: rows that can share a build are neighbours. */
static int add_rows(measure_rows *rows, const attn_method *m, const settings *all, ice_err *e) {
  const setting *pick[MAX_SETTINGS];
  int n = 0, at[MAX_SETTINGS] = {0};
  for (int late = 0; late <= 1; late++)
    for (int i = 0; i < all->n; i++)
      if (all->list[i].method == m && (all->list[i].param->late != 0) == late) pick[n++] = all->list + i;
  for (;;) {
    ICE_TRY(add_row(rows, m, pick, at, n, e));
    int i = n - 1;
    while (i >= 0 && ++at[i] == pick[i]->n) at[i--] = 0;
    if (i < 0) return ICE_OK;
  }
}

static int choose_rows(measure_rows *rows, const char *const *set, ice_err *e) {
  static const char *const reference[] = {"vanilla", "dense"};
  settings *all = calloc(1, sizeof *all);
  if (!all) return ice_fail(e, ICE_INTERNAL, "out of memory");
  int rc = read_settings(rows, set, all, e);
  for (int i = 0; rc == ICE_OK && i < rows->n_methods; i++) rc = add_rows(rows, rows->method[i], all, e);
  for (int i = 0; rc == ICE_OK && i < 2; i++) {
    const attn_method *m = registry_find(reference[i], e);
    if (!m)
      rc = ICE_INTERNAL;
    else if (!has_method(rows, m)) {
      rc = add_rows(rows, m, all, e);
      rows->row[rows->n - 1].reference = 1;
    }
  }
  free_settings(all);
  return rc;
}

int measure_rows_create(measure_rows *rows, const char *methods, const char *const *set, const char *const *plugin,
                        watch *w, ice_err *e) {
  *rows = (measure_rows){.watch = w};
  rows->row = calloc(MEASURE_MAX_ROWS, sizeof *rows->row);
  rows->params = calloc(MEASURE_MAX_ROWS, sizeof *rows->params);
  rows->broken = calloc(MEASURE_MAX_METHODS, sizeof *rows->broken);
  rows->why = calloc(MEASURE_MAX_METHODS, sizeof *rows->why);
  int rc = rows->row && rows->params && rows->broken && rows->why ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  for (int i = 0; rc == ICE_OK && plugin && plugin[i]; i++) rc = load_plugin(rows, plugin[i], e);
  if (rc == ICE_OK) rc = choose_methods(rows, methods, e);
  if (rc == ICE_OK) rc = choose_rows(rows, set, e);
  if (rc != ICE_OK) measure_rows_destroy(rows);
  return rc;
}

int measure_rows_repeat(measure_rows *rows, int more, ice_err *e) {
  if (more > MEASURE_MAX_ROWS - rows->n) return ice_fail(e, ICE_USAGE, "more than %d rows", MEASURE_MAX_ROWS);
  memmove(rows->row + 1 + more, rows->row + 1, (size_t)(rows->n - 1) * sizeof *rows->row);
  rows->n += more;
  int rc = ICE_OK;
  for (int i = 1; i <= more; i++) {
    rows->row[i] = (measure_row){.method = rows->row->method, .column = -1, .params = registry_defaults(rows->row->method)};
    if (!rows->row[i].params) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  }
  for (int i = 0; i < rows->n; i++) rows->params[i] = rows->row[i].params;
  return rc;
}

void measure_rows_destroy(measure_rows *rows) {
  for (int i = 0; i < rows->n; i++) {
    attn_free(rows->row[i].params);
    free(rows->row[i].json);
    free(rows->row[i].swept);
    free(rows->row[i].cost);
    free(rows->row[i].quality);
  }
  for (int i = 0; rows->broken && i < MEASURE_MAX_METHODS; i++) free((char *)(uintptr_t)rows->broken[i].name);
  free(rows->row);
  free((void *)rows->params);
  free(rows->broken);
  free(rows->why);
  *rows = (measure_rows){0};
}
