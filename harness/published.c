/* published.c - see published.h */
#include "harness/published.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/number.h"
#include "harness/report_rows.h"
#include "harness/report_table.h"
#include "kernels/core/fileio.h"

enum { FIELDS = 8, FIELD_BYTES = 80 };
static const char header[] = "task,method,model,length,metric,value,error,source";

/* ---- Reading. */

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for the published values"); }

/* A row as an object; NULL when it is none. */
static json_t *parse_row(const char *line, size_t n) {
  char field[FIELDS][FIELD_BYTES] = {{0}};
  int k = 0;
  int64_t length;
  double value, error;
  for (size_t i = 0, at = 0; i < n; i++) {
    if (line[i] == ',') {
      if (++k == FIELDS) return NULL;
      at = 0;
    } else if (at + 1 < FIELD_BYTES) field[k][at++] = line[i];
    else return NULL;
  }
  const int metric = !strcmp(field[4], "accuracy") || !strcmp(field[4], "attention_s");
  if (k != FIELDS - 1 || !metric || !*field[0] || !*field[1] || !*field[7] || !number_int(field[3], 0, 1000000, &length) ||
      !number_real(field[5], 1e-12, 1e12, &value) || !number_real(field[6], 0, 1, &error))
    return NULL;
  return json_pack("{s:s, s:s, s:s, s:I, s:s, s:f, s:f, s:s}", "task", field[0], "method", field[1], "model", field[2], "length", (json_int_t)length, "metric",
                   field[4], "value", value, "error", error, "source", field[7]);
}

static int parse_all(const char *text, json_t *all, ice_err *e) {
  int line = 0, headed = 0;
  for (size_t n; *text; text += n + (text[n] == '\n')) {
    n = strcspn(text, "\n");
    const size_t bytes = n && text[n - 1] == '\r' ? n - 1 : n;
    line++;
    if (!bytes || *text == '#') continue;
    if (!headed) {
      headed = bytes == sizeof header - 1 && !memcmp(text, header, bytes);
      if (!headed) return ice_fail(e, ICE_DATA, "published values, line %d: not the header '%s'", line, header);
      continue;
    }
    json_t *row = parse_row(text, bytes);
    if (!row) return ice_fail(e, ICE_DATA, "published values, line %d: '%.*s', allowed %s with a positive value and an error of 0..1", line, (int)(bytes < 200 ? bytes : 200), text, header);
    if (json_array_append_new(all, row)) return no_memory(e);
  }
  return ICE_OK;
}

int published_parse(const char *text, char **json, ice_err *e) {
  json_t *all = json_array();
  *json = NULL;
  int rc = all ? parse_all(text, all, e) : no_memory(e);
  if (rc == ICE_OK && !(*json = json_dumps(all, JSON_COMPACT))) rc = no_memory(e);
  json_decref(all);
  return rc;
}

int published_read(char **json, ice_err *e) {
  char path[FILE_PATH];
  file_map map;
  ICE_TRY(file_join(path, cli_share_dir(), "results/paper/longeval.csv", e));
  ICE_TRY(file_open_map(path, 1 << 20, &map, e));
  char *text = strndup((const char *)map.p, map.n);
  file_close_map(&map);
  const int rc = text ? published_parse(text, json, e) : no_memory(e);
  free(text);
  return rc;
}

/* ---- Beside ours. */

enum { TASK, LENGTH, METHOD, PARAMETERS, ACCURACY, PAPER_ACCURACY, SPEEDUP, PAPER_SPEEDUP, SECONDS, PAPER_SECONDS, NOTE, COLUMNS };
static const report_column columns[COLUMNS] = {
    {.head = "task", .align = 'l'},      {.head = "length", .align = 'r'},    {.head = "method", .align = 'l'},    {.head = "parameters", .align = 'l'},
    {.head = "accuracy", .align = 'r'},  {.head = "published", .align = 'r'}, {.head = "x vanilla", .align = 'r'}, {.head = "published", .align = 'r'},
    {.head = "attention s", .align = 'r'}, {.head = "published", .align = 'r'}, {.head = "note", .align = 'l'}};

/* ?1: experiment or NULL; ?2: the values as JSON. Columns as above, numbers unformatted. */
static const char beside[] =
    "WITH v AS MATERIALIZED (SELECT json_extract(value, '$.task') AS task, json_extract(value, '$.method') AS method, json_extract(value, '$.length') AS length, "
    "json_extract(value, '$.metric') AS metric, json_extract(value, '$.value') AS value FROM json_each(?2)) "
    "SELECT r.task, r.length, r.method, iif(json_extract(r.params, '$.k') IS NULL, '', 'k=' || json_extract(r.params, '$.k')) AS params, r.accuracy, a.value, "
    "r.speedup_vanilla, b.value / t.value, r.attention_ns / 1e9 / r.timed_inputs, t.value, r.label "
    "FROM results r LEFT JOIN v a ON a.task = r.task AND a.method = r.method AND a.length = coalesce(r.length, 0) AND a.metric = 'accuracy' "
    "LEFT JOIN v t ON t.task = r.task AND t.method = r.method AND t.length = coalesce(r.length, 0) AND t.metric = 'attention_s' "
    "LEFT JOIN v b ON b.task = r.task AND b.method = 'vanilla' AND b.length = coalesce(r.length, 0) AND b.metric = 'attention_s' "
    "WHERE r.status = 'ok' AND (?1 IS NULL OR r.experiment = ?1) AND EXISTS (SELECT 1 FROM v WHERE v.task = r.task) "
    "ORDER BY r.experiment, r.task, r.model, r.length, r.method, params";

static void put(report_table *t, const report_rows *r, int row, int column, const char *format) {
  const char *text = r->cell[row * r->columns + column];
  if (text) report_table_set(t, row, column, format, strtod(text, NULL));
}

static void fill(report_table *t, const report_rows *r) {
  static const int texts[] = {TASK, LENGTH, METHOD, PARAMETERS, NOTE};
  for (int row = 0; row < r->n; row++) {
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
      if (r->cell[row * r->columns + texts[i]]) report_table_set(t, row, texts[i], "%s", r->cell[row * r->columns + texts[i]]);
    put(t, r, row, ACCURACY, "%.4f"), put(t, r, row, PAPER_ACCURACY, "%.3f");
    put(t, r, row, SPEEDUP, "%.2f"), put(t, r, row, PAPER_SPEEDUP, "%.1f");
    put(t, r, row, SECONDS, "%.4g"), put(t, r, row, PAPER_SECONDS, "%.4g");
  }
}

int published_write(store *s, const report_options *o, FILE *f, int *n, ice_err *e) {
  char *json = NULL;
  report_rows rows = {0};
  report_table t;
  ICE_TRY(published_read(&json, e));
  const char *bind[] = {o->experiment, json};
  int rc = report_rows_select(s, beside, bind, 2, &rows, e);
  *n = rows.n;
  if (rc == ICE_OK && rows.n) {
    rc = report_table_create(&t, columns, COLUMNS, rows.n, e);
    if (rc == ICE_OK) {
      fill(&t, &rows);
      report_heading(f, o->format, "LongEval and ZeroSCROLLS beside published values (vicuna-7b-v1.5-16k; another machine: compare ratios)");
      rc = report_table_print(&t, o->format, o->width, f, e);
    }
    report_table_free(&t);
  }
  report_rows_free(&rows);
  free(json);
  return rc;
}
