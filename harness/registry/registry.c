/* registry.c - see registry.h */
#include "harness/registry/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/number.h"
#include "kernels/core/alloc.h"

#define ATTN_METHOD(id) extern const attn_method attn_method_##id;
#include "harness/registry/methods.def"
#undef ATTN_METHOD

#define ATTN_METHOD(id) &attn_method_##id,
const attn_method *const registry_methods[] = {
#include "harness/registry/methods.def"
    NULL};
#undef ATTN_METHOD

/* ---- Nearest names. */

enum { LONGEST_NAME = 64 }; /* longer ones have no neighbours */

static int least(int a, int b) { return a < b ? a : b; }

/* Optimal string alignment distance: insert, delete, replace, swap of neighbours. */
static int edit_distance(const char *a, const char *b) {
  int na = (int)strlen(a), nb = (int)strlen(b);
  int row[3][LONGEST_NAME + 1]; /* i-2, i-1, i */
  for (int j = 0; j <= nb; j++) row[1][j] = j;
  memset(row[0], 0, sizeof row[0]);
  for (int i = 1; i <= na; i++) {
    row[2][0] = i;
    for (int j = 1; j <= nb; j++) {
      int cost = a[i - 1] != b[j - 1];
      int d = least(least(row[1][j] + 1, row[2][j - 1] + 1), row[1][j - 1] + cost);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) d = least(d, row[0][j - 2] + 1);
      row[2][j] = d;
    }
    memcpy(row[0], row[1], sizeof row[0]);
    memcpy(row[1], row[2], sizeof row[1]);
  }
  return row[1][nb];
}

void registry_suggest(const char *given, const char *const *names, int n, char *out, size_t size) {
  out[0] = 0;
  size_t len = strlen(given), used = 0;
  if (len > LONGEST_NAME) return;
  int limit = len < 3 ? 1 : (int)(len + 2) / 3; /* a third of the letters may be wrong */
  for (int distance = 0; distance <= limit; distance++)
    for (int i = 0; i < n; i++) {
      size_t other = strlen(names[i]);
      int within = other >= 4 && len >= 3 && strncmp(names[i], given, len) == 0; /* the start of a name */
      int d = other > LONGEST_NAME ? limit + 1 : edit_distance(given, names[i]);
      if (within && d > limit) d = limit;
      if (d != distance || used + other + 3 > size) continue;
      used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", names[i]);
    }
}

/* "unknown <what> <given>, did you mean ..." or all names there are. */
static int unknown(const char *what, const char *given, const char *const *names, int n, ice_err *e) {
  char near[200], all[500] = "";
  registry_suggest(given, names, n, near, sizeof near);
  if (*near) return ice_fail(e, ICE_USAGE, "unknown %s %.60s, did you mean %s?", what, given, near);
  size_t used = 0;
  for (int i = 0; i < n && used < sizeof all; i++)
    used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", names[i]);
  return ice_fail(e, ICE_USAGE, "unknown %s %.60s, allowed %s", what, given, *all ? all : "none");
}

/* ---- Look-up. */

enum { MAX_NAMES = 256 };

const attn_method *registry_find(const char *name, ice_err *e) {
  const char *names[MAX_NAMES];
  int n = 0;
  for (const attn_method *const *m = registry_methods; *m && n < MAX_NAMES; m++) {
    if (strcmp((*m)->name, name) == 0) return *m;
    names[n++] = (*m)->name;
  }
  (void)unknown("method", name, names, n, e);
  return NULL;
}

const attn_param *registry_param(const attn_method *m, const char *key, ice_err *e) {
  const char *names[MAX_NAMES];
  int n = 0;
  for (const attn_param *p = m->params; p && p->key && n < MAX_NAMES; p++) {
    if (strcmp(p->key, key) == 0) return p;
    names[n++] = p->key;
  }
  char what[100];
  (void)snprintf(what, sizeof what, "parameter of %s", m->name);
  if (n == 0)
    (void)ice_fail(e, ICE_USAGE, "%s has no parameters, given %.60s", m->name, key);
  else
    (void)unknown(what, key, names, n, e);
  return NULL;
}

/* ---- Parameters as text. */

void registry_param_allowed(const attn_param *p, char *out, size_t size) {
  if (p->type == ATTN_P_CHOICE) {
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; p->choices[i] && used < size; i++)
      used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", p->choices[i]);
    return;
  }
  if (p->type == ATTN_P_INT) {
    (void)snprintf(out, size, "whole numbers %.0f..%.0f", p->min, p->max);
    return;
  }
  char min[32], max[32];
  number_print(p->min, min, sizeof min);
  number_print(p->max, max, sizeof max);
  (void)snprintf(out, size, "numbers %s..%s", min, max);
}

int registry_param_set(const attn_method *m, const attn_param *p, const char *text, void *params, ice_err *e) {
  char *at = (char *)params + p->offset;
  int64_t whole = 0;
  double real = 0;
  int ok = 0;
  switch (p->type) {
  case ATTN_P_INT: ok = number_int(text, (int64_t)p->min, (int64_t)p->max, &whole); break;
  case ATTN_P_REAL: ok = number_real(text, p->min, p->max, &real); break;
  case ATTN_P_CHOICE:
    for (whole = 0; !ok && p->choices[whole]; whole += !ok) ok = strcmp(p->choices[whole], text) == 0;
    break;
  }
  if (!ok) {
    char allowed[400];
    registry_param_allowed(p, allowed, sizeof allowed);
    return ice_fail(e, ICE_USAGE, "%s.%s = %.60s, allowed %s", m->name, p->key, text, allowed);
  }
  if (p->type == ATTN_P_REAL)
    memcpy(at, &real, sizeof real);
  else
    memcpy(at, &whole, sizeof whole);
  return ICE_OK;
}

void registry_param_print(const attn_param *p, const void *params, char *out, size_t size) {
  const char *at = (const char *)params + p->offset;
  int64_t whole;
  double real;
  if (p->type == ATTN_P_REAL) {
    memcpy(&real, at, sizeof real);
    number_print(real, out, size);
    return;
  }
  memcpy(&whole, at, sizeof whole);
  if (p->type == ATTN_P_CHOICE)
    (void)snprintf(out, size, "%s", p->choices[whole]);
  else
    (void)snprintf(out, size, "%lld", (long long)whole);
}

void *registry_defaults(const attn_method *m) {
  void *params = attn_calloc(m->params_size);
  if (params) attn_params_default(m, params);
  return params;
}

char *registry_params_json(const attn_method *m, const void *params) {
  char *text = NULL, value[64];
  size_t size = 0;
  FILE *f = open_memstream(&text, &size);
  if (!f) return NULL;
  (void)fputc('{', f);
  for (const attn_param *p = m->params; p && p->key; p++) {
    registry_param_print(p, params, value, sizeof value);
    const char *quote = p->type == ATTN_P_CHOICE ? "\"" : "";
    (void)fprintf(f, "%s\"%s\":%s%s%s", p == m->params ? "" : ",", p->key, quote, value, quote);
  }
  (void)fputc('}', f);
  if (fclose(f) != 0) {
    free(text);
    return NULL;
  }
  return text;
}

/* ---- Self-check. */

/* Ids and keys go into JSON, file names and SQL as they are. */
static int is_id(const char *s) {
  size_t n = s ? strlen(s) : 0;
  return n > 0 && n <= LONGEST_NAME && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

static int check_row(const attn_method *m, const attn_param *p, ice_err *e) {
  if (!is_id(p->key))
    return ice_fail(e, ICE_INTERNAL, "method %s: parameter name %s is no [a-z0-9_]+", m->name, p->key);
  for (const attn_param *q = m->params; q != p; q++)
    if (strcmp(q->key, p->key) == 0)
      return ice_fail(e, ICE_INTERNAL, "method %s: parameter %s stands twice in its table", m->name, p->key);
  if (!p->doc || !*p->doc) return ice_fail(e, ICE_INTERNAL, "method %s: parameter %s has no doc", m->name, p->key);
  if (p->offset + 8 > m->params_size)
    return ice_fail(e, ICE_INTERNAL, "method %s: parameter %s lies outside its struct", m->name, p->key);
  if (p->type == ATTN_P_CHOICE) {
    double n = 0;
    if (!p->choices) return ice_fail(e, ICE_INTERNAL, "method %s: parameter %s has no choices", m->name, p->key);
    for (int i = 0; p->choices[i]; i++, n++)
      if (!is_id(p->choices[i]))
        return ice_fail(e, ICE_INTERNAL, "method %s: choice %s of %s is no [a-z0-9_]+", m->name, p->choices[i], p->key);
    if (!(p->dflt >= 0 && p->dflt < n))
      return ice_fail(e, ICE_INTERNAL, "method %s: default of %s is no choice", m->name, p->key);
    return ICE_OK;
  }
  if (!(p->min <= p->dflt && p->dflt <= p->max))
    return ice_fail(e, ICE_INTERNAL, "method %s: %s = %g by default, allowed %g..%g", m->name, p->key, p->dflt, p->min,
                    p->max);
  if (p->type == ATTN_P_INT && !(p->min >= -0x1p53 && p->max <= 0x1p53 && p->dflt == (double)(int64_t)p->dflt))
    return ice_fail(e, ICE_INTERNAL, "method %s: %s is no whole number in +-2^53", m->name, p->key);
  return ICE_OK;
}

int registry_self_check_table(const attn_method *const *methods, ice_err *e) {
  for (const attn_method *const *it = methods; *it; it++) {
    const attn_method *m = *it;
    if (!is_id(m->name))
      return ice_fail(e, ICE_INTERNAL, "method name %s is no [a-z0-9_]+", m->name ? m->name : "NULL");
    for (const attn_method *const *other = methods; other != it; other++)
      if (strcmp((*other)->name, m->name) == 0) return ice_fail(e, ICE_INTERNAL, "method %s stands twice", m->name);
    if (!m->version || !*m->version || !m->doc || !*m->doc || !m->cite)
      return ice_fail(e, ICE_INTERNAL, "method %s: version, doc or cite is missing", m->name);
    if (!m->sizes || !m->prepare || !m->build || !m->forward || !m->release)
      return ice_fail(e, ICE_INTERNAL, "method %s: a function of its table is missing", m->name);
    if (m->training && (!m->training->sizes || !m->training->forward || !m->training->backward))
      return ice_fail(e, ICE_INTERNAL, "method %s: a function of its training part is missing", m->name);
    for (const attn_param *p = m->params; p && p->key; p++) ICE_TRY(check_row(m, p, e));
  }
  return ICE_OK;
}

int registry_self_check(ice_err *e) { return registry_self_check_table(registry_methods, e); }

int registry_same_build(const attn_method *m, const void *a, const void *b) {
  for (const attn_param *p = m->params; p && p->key; p++)
    if (!p->late && memcmp((const char *)a + p->offset, (const char *)b + p->offset, 8) != 0) return 0;
  return 1;
}
