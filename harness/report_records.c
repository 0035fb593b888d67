/* report_records.c - see report_records.h */
#include "harness/report_records.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/number.h"
#include "harness/report_table.h"

/* --- CSV -------------------------------------------------------------------------------------------------------------- */

void report_records_csv_field(FILE *f, const char *text) {
  if (!text) return;
  double number;
  const int formula = *text && strchr("=+-@\t\r", *text) && !number_real(text, -1e300, 1e300, &number);
  const int quote = strpbrk(text, ",\"\n\r") != NULL;
  if (quote) (void)fputc('"', f);
  if (formula) (void)fputc('\'', f);
  for (; *text; text++) {
    if (*text == '"') (void)fputc('"', f);
    (void)fputc(*text, f);
  }
  if (quote) (void)fputc('"', f);
}

void report_records_csv(const report_rows *r, FILE *f) {
  for (int i = -1; i < r->n; i++)
    for (int c = 0; c < r->columns; c++) {
      report_records_csv_field(f, i < 0 ? r->name[c] : r->cell[(size_t)i * (size_t)r->columns + (size_t)c]);
      (void)fputc(c + 1 < r->columns ? ',' : '\n', f);
    }
}

/* --- JSON ------------------------------------------------------------------------------------------------------------- */

/* Columns that stay text even when they look like numbers. */
static int is_text(const char *column) {
  static const char *const names[] = {"experiment", "task", "model", "method", "seed", "isa", "status", "reason", "label",
                                      "git_commit", "machine", "blas", "created_utc", "method_version", "data_hash", "model_hash",
                                      "machine_id", "caches", "os", "compiler", "variant", NULL};
  for (int i = 0; names[i]; i++)
    if (!strcmp(names[i], column)) return 1;
  return 0;
}

json_t *report_record_text(const char *v) {
  json_t *s = json_string(v);
  if (s) return s;
  char *out = NULL; /* no UTF-8 */
  size_t n = 0;
  FILE *f = open_memstream(&out, &n);
  if (f) {
    report_text(f, REPORT_JSON, v);
    (void)fclose(f);
    s = out ? json_string(out) : NULL;
  }
  free(out);
  return s;
}

static json_t *json_value(const char *column, const char *v) {
  int64_t whole;
  double real;
  json_t *params;
  if (!v) return json_null();
  if (!strcmp(column, "params") && (params = json_loads(v, 0, NULL))) return params;
  if (!is_text(column) && number_int(v, INT64_MIN, INT64_MAX, &whole)) return json_integer(whole);
  if (!is_text(column) && number_real(v, -1e300, 1e300, &real)) return json_real(real);
  return report_record_text(v);
}

json_t *report_record_number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

json_t *report_record(const report_rows *r, int row) {
  json_t *o = json_object();
  int failed = !o;
  for (int c = 0; c < r->columns && !failed; c++)
    failed = json_object_set_new(o, r->name[c], json_value(r->name[c], r->cell[(size_t)row * (size_t)r->columns + (size_t)c])) != 0;
  if (!failed) return o;
  json_decref(o);
  return NULL;
}

int report_records_json(const report_rows *r, const report_pairs *pairs, FILE *f, ice_err *e) {
  json_t *all = json_array();
  int failed = !all;
  for (int i = 0; i < r->n && !failed; i++) {
    json_t *row = report_record(r, i);
    failed = json_object_set_new(row, "compared", report_pairs_json(r, pairs, i)) != 0;
    failed |= json_array_append_new(all, row) != 0;
  }
  if (!failed) failed = json_dumpf(all, f, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) != 0;
  (void)fputc('\n', f);
  json_decref(all);
  return failed ? ice_fail(e, ICE_INTERNAL, "the report could not be written") : ICE_OK;
}
