/* report_rows.c - see report_rows.h */
#include "harness/report_rows.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/number.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"

static int out_of_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for the rows of the report"); }

/* --- reading -------------------------------------------------------------------------------------------------------- */

typedef struct reader {
  report_rows *r;
  int failed;
} reader;

static int copy_texts(char **to, char **from, int n) {
  for (int i = 0; i < n; i++)
    if (from[i] && !(to[i] = strdup(from[i]))) return 0;
  return 1;
}

static int take_row(void *ctx, int columns, char **names, char **values) {
  reader *in = ctx;
  report_rows *r = in->r;
  in->failed = 1;
  if (!r->name) {
    r->columns = columns;
    if (!(r->name = calloc((size_t)columns, sizeof *r->name)) || !copy_texts(r->name, names, columns)) return 1;
  }
  if (r->n == r->room) {
    const int room = r->room ? 2 * r->room : 64;
    char **grown = realloc(r->cell, (size_t)room * (size_t)columns * sizeof *grown);
    if (!grown) return 1;
    r->cell = grown, r->room = room;
  }
  char **row = r->cell + (size_t)r->n * (size_t)columns;
  memset(row, 0, (size_t)columns * sizeof *row);
  r->n++;
  if (!copy_texts(row, values, columns)) return 1;
  in->failed = 0;
  return 0;
}

void report_rows_free(report_rows *r) {
  for (int i = 0; r->name && i < r->columns; i++) free(r->name[i]);
  for (size_t i = 0; i < (size_t)r->n * (size_t)r->columns; i++) free(r->cell[i]);
  free(r->name);
  free(r->cell);
  *r = (report_rows){0};
}

int report_rows_select(store *s, const char *sql, const char *const *bind, int n_bind, report_rows *r, ice_err *e) {
  *r = (report_rows){0};
  reader in = {.r = r};
  ICE_TRY(store_query(s, sql, bind, n_bind, take_row, &in, e));
  return in.failed ? out_of_memory(e) : ICE_OK;
}

/* --- values --------------------------------------------------------------------------------------------------------- */

static int find(const report_rows *r, const char *column) {
  int i = 0;
  while (i < r->columns && strcmp(r->name[i], column)) i++;
  return i < r->columns ? i : -1;
}

const char *report_rows_text(const report_rows *r, int row, const char *column) {
  const int c = find(r, column);
  return c < 0 ? NULL : r->cell[(size_t)row * (size_t)r->columns + (size_t)c];
}

double report_rows_value(const report_rows *r, int row, const char *column) {
  const char *text = report_rows_text(r, row, column);
  return text ? strtod(text, NULL) : (double)NAN;
}

int report_rows_distinct(const report_rows *r, int from, int to, const char *column, char *out, size_t size) {
  const char *seen[REPORT_DISTINCT];
  int n = 0;
  for (int i = from; i < to && n < REPORT_DISTINCT; i++) {
    const char *text = report_rows_text(r, i, column);
    int known = !text;
    for (int k = 0; k < n && !known; k++) known = !strcmp(seen[k], text);
    if (!known) seen[n++] = text;
  }
  size_t at = 0;
  if (out) out[0] = 0;
  for (int i = 0; out && i < n && at < size; i++)
    at += (size_t)snprintf(out + at, size - at, "%s%s", i ? ", " : "", i + 1 < REPORT_DISTINCT ? seen[i] : "...");
  return n;
}

/* --- parameters ----------------------------------------------------------------------------------------------------- */

static int same_value(const json_t *a, const json_t *b) {
  return json_is_number(a) && json_is_number(b) ? json_number_value(a) == json_number_value(b) : json_equal(a, b);
}
static void print_value(FILE *f, const json_t *v) {
  char real[40];
  if (json_is_object(v)) { /* a schedule */
    (void)json_dumpf(v, f, JSON_COMPACT);
    return;
  }
  number_print(json_number_value(v), real, sizeof real);
  if (json_is_integer(v)) (void)fprintf(f, "%lld", (long long)json_integer_value(v));
  else (void)fputs(json_is_string(v) ? json_string_value(v) : real, f);
}

char *report_rows_params(const report_rows *r, int row) {
  const char *method = report_rows_text(r, row, "method"), *params = report_rows_text(r, row, "params");
  const attn_method *m = registry_methods[report_rows_rank(method ? method : "")];
  void *plain = m ? registry_defaults(m) : NULL;
  char *defaults = plain ? registry_params_json(m, plain) : NULL, *out = NULL;
  size_t n = 0;
  FILE *f = open_memstream(&out, &n);
  json_t *ours = json_loads(params ? params : "", 0, NULL), *theirs = json_loads(defaults ? defaults : "{}", 0, NULL), *v;
  const char *key, *between = "";
  if (f) {
    json_object_foreach(ours, key, v) {
      if (same_value(v, json_object_get(theirs, key)) && strcmp(key, "k")) continue;
      (void)fprintf(f, "%s%s=", between, key);
      print_value(f, v);
      between = " ";
    }
    (void)fclose(f);
  }
  json_decref(ours);
  json_decref(theirs);
  free(defaults);
  attn_free(plain);
  return out;
}

/* --- order ---------------------------------------------------------------------------------------------------------- */

static const char *const group[] = {"experiment", "task", "model", "threads", "isa", "machine_id"};

/* Numbers by value, other text by bytes, unknown last. */
static int compare_text(const char *a, const char *b) {
  if (!a || !b) return (b != NULL) - (a != NULL);
  char *end_a, *end_b;
  const double x = strtod(a, &end_a), y = strtod(b, &end_b);
  if (*a && *b && !*end_a && !*end_b && x != y) return x < y ? -1 : 1;
  return strcmp(a, b);
}

static int compare_column(const report_rows *r, int a, int b, const char *column) {
  return compare_text(report_rows_text(r, a, column), report_rows_text(r, b, column));
}

static int same_group(const report_rows *r, int a, int b) {
  for (size_t i = 0; i < sizeof group / sizeof *group; i++)
    if (compare_column(r, a, b, group[i])) return 0;
  return 1;
}

int report_rows_group_end(const report_rows *r, int from) {
  int to = from + 1;
  while (to < r->n && same_group(r, from, to)) to++;
  return to;
}

int report_rows_rank(const char *name) {
  int i = 0;
  while (registry_methods[i] && strcmp(registry_methods[i]->name, name)) i++;
  return i;
}

static int compare_params(json_t *x, json_t *y) { /* in the order of the keys, which is that of the method's table */
  const char *key;
  json_t *v;
  json_object_foreach(x, key, v) {
    json_t *w = json_object_get(y, key);
    if (json_is_number(v) && json_is_number(w)) {
      const double a = json_number_value(v), b = json_number_value(w);
      if (a != b) return a < b ? -1 : 1;
    } else if (json_is_string(v) && json_is_string(w)) {
      const int c = strcmp(json_string_value(v), json_string_value(w));
      if (c) return c;
    }
  }
  return 0;
}

typedef struct order {
  const report_rows *r;
  json_t **params; /* [n] */
} order;

static int compare_rows(const void *pa, const void *pb, void *ctx) {
  const order *o = ctx;
  const int a = *(const int *)pa, b = *(const int *)pb;
  int c = 0;
  for (size_t i = 0; !c && i < sizeof group / sizeof *group; i++) c = compare_column(o->r, a, b, group[i]);
  if (!c) c = report_rows_rank(report_rows_text(o->r, a, "method")) - report_rows_rank(report_rows_text(o->r, b, "method"));
  if (!c) c = compare_column(o->r, a, b, "method");
  if (!c) c = compare_params(o->params[a], o->params[b]);
  static const char *const rest[] = {"params", "examples", "seed", "method_version", "created_utc"};
  for (size_t i = 0; !c && i < sizeof rest / sizeof *rest; i++) c = compare_column(o->r, a, b, rest[i]);
  return c ? c : a - b;
}

static int sort_rows(report_rows *r, ice_err *e) {
  const size_t n = (size_t)r->n, columns = (size_t)r->columns;
  int *place = malloc(n * sizeof *place + 1);
  char **sorted = malloc(n * columns * sizeof *sorted + 1);
  order o = {.r = r, .params = calloc(n + 1, sizeof *o.params)};
  const int fine = place && sorted && o.params;
  for (int i = 0; fine && i < r->n; i++) {
    const char *params = report_rows_text(r, i, "params");
    o.params[i] = params ? json_loads(params, 0, NULL) : NULL; /* NULL: no JSON, compared as text */
    place[i] = i;
  }
  if (fine) {
    qsort_r(place, n, sizeof *place, compare_rows, &o);
    for (size_t i = 0; i < n; i++) memcpy(sorted + i * columns, r->cell + (size_t)place[i] * columns, columns * sizeof *sorted);
    memcpy(r->cell, sorted, n * columns * sizeof *sorted);
  }
  for (size_t i = 0; o.params && i < n; i++) json_decref(o.params[i]);
  free((void *)o.params);
  free((void *)sorted);
  free(place);
  return fine ? ICE_OK : out_of_memory(e);
}

/* A row skipped for want of data or checkpoint is out of date once there is one with both. */
#define OUT_OF_DATE                                                                                                              \
  "r.status = 'skipped' AND (r.data_hash IS NULL OR r.model_hash IS NULL) AND EXISTS (SELECT 1 FROM results o WHERE "              \
  "o.experiment = r.experiment AND o.task = r.task AND o.model = r.model AND o.method = r.method AND o.params = r.params AND "    \
  "o.seed = r.seed AND o.threads = r.threads AND o.data_hash NOT NULL AND o.model_hash NOT NULL)"

int report_rows_read(store *s, const char *experiment, report_rows *r, ice_err *e) {
  ICE_TRY(report_rows_select(s, experiment ? "SELECT * FROM results r WHERE experiment = ?1 AND NOT (" OUT_OF_DATE ")"
                                           : "SELECT * FROM results r WHERE NOT (" OUT_OF_DATE ")", &experiment,
                             experiment ? 1 : 0, r, e));
  return r->n ? sort_rows(r, e) : ICE_OK;
}

/* --- labels ---------------------------------------------------------------------------------------------------------- */

static int label_has(const char *label, const char *part, size_t n) {
  for (const char *at = label, *comma; at; at = comma ? comma + 2 : NULL) {
    comma = strstr(at, ", ");
    if (!strncmp(at, part, n) && (at[n] == 0 || at + n == comma)) return 1;
  }
  return 0;
}

void report_label_parts(const char *label, const char *other, int wanted, char *out, size_t size) {
  size_t at = 0;
  out[0] = 0;
  for (const char *part = label, *end; *part && at < size; part = *end ? end + 2 : end) {
    end = strstr(part, ", ");
    if (!end) end = part + strlen(part);
    const size_t n = (size_t)(end - part);
    if (label_has(other, part, n) == wanted) at += (size_t)snprintf(out + at, size - at, "%s%.*s", at ? ", " : "", (int)n, part);
  }
}

void report_rows_shared_label(const report_rows *r, int from, int to, char *out, size_t size) {
  out[0] = 0;
  for (int i = from; i < to; i++) {
    const char *label = report_rows_text(r, i, "label");
    char before[512];
    (void)snprintf(before, sizeof before, "%s", i == from && label ? label : out);
    report_label_parts(before, label ? label : "", 1, out, size);
  }
}

/* --- more columns --------------------------------------------------------------------------------------------------- */

int report_rows_widen(report_rows *r, const char *const *names, int n_names, ice_err *e) {
  const size_t old = (size_t)r->columns, wide = old + (size_t)n_names, n = (size_t)r->n;
  char **name = realloc(r->name, wide * sizeof *name);
  if (name) {
    r->name = name;
    memset(name + old, 0, (size_t)n_names * sizeof *name);
  }
  char **cell = name ? calloc(n * wide + 1, sizeof *cell) : NULL;
  if (!cell) return out_of_memory(e);
  for (size_t i = 0; i < n; i++) memcpy(cell + i * wide, r->cell + i * old, old * sizeof *cell);
  free(r->cell);
  r->cell = cell, r->columns = (int)wide, r->room = r->n;
  for (int i = 0; i < n_names; i++)
    if (!(r->name[old + (size_t)i] = strdup(names[i]))) return out_of_memory(e);
  return ICE_OK;
}

void report_rows_set(report_rows *r, int row, const char *column, char *text) {
  char **cell = r->cell + (size_t)row * (size_t)r->columns + (size_t)find(r, column);
  free(*cell);
  *cell = text;
}
