/* report_html.c - see report_html.h. Tables and texts around them are in report_table.c, the looks in html/report.css, what happens in the browser in
 * html/tables.js and html/charts.js. */
#include "harness/report_html.h"

#include <jansson.h>
#include <sha2.h>
#include <stdlib.h>
#include <string.h>

#include "harness/assets.h"
#include "harness/config_shape.h"
#include "harness/history.h"
#include "harness/report_records.h"

/* --- policy ----------------------------------------------------------------------------------------------------------- */

/* 'sha256-...' of a text, as a Content-Security-Policy names what may run. */
static void print_hash(FILE *f, const char *text) {
  static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint8_t sum[SHA256_DIGEST_LENGTH + 1] = {0}; /* 33 bytes: whole groups of three */
  SHA2_CTX c;
  SHA256Init(&c);
  SHA256Update(&c, (const uint8_t *)text, strlen(text));
  SHA256Final(sum, &c);
  (void)fputs("'sha256-", f);
  for (int i = 0; i < SHA256_DIGEST_LENGTH; i += 3) {
    const uint32_t group = (uint32_t)sum[i] << 16 | (uint32_t)sum[i + 1] << 8 | sum[i + 2];
    for (int k = 18; k >= 0; k -= 6) (void)fputc(i + 2 >= SHA256_DIGEST_LENGTH && k == 0 ? '=' : digit[group >> k & 63], f);
  }
  (void)fputc('\'', f);
}

void report_html_start(FILE *f) {
  (void)fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
              "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src ", f);
  print_hash(f, asset_report_css);
  (void)fputs("; script-src ", f);
  print_hash(f, asset_tables_js);
  (void)fputc(' ', f);
  print_hash(f, asset_charts_js);
  (void)fputs("\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>icebench report</title>\n<style>", f);
  (void)fputs(asset_report_css, f);
  (void)fputs("</style></head><body>\n<a class=\"skip\" href=\"#main\">To the results</a>\n<header><h1>icebench report</h1></header>\n<main id=\"main\">\n", f);
}

void report_html_end(FILE *f) {
  (void)fputs("</main>\n<noscript><p>Without JavaScript the tables are complete, but do not sort or filter, and there are no charts.</p></noscript>\n<script>", f);
  (void)fputs(asset_tables_js, f);
  (void)fputs("</script>\n<script>", f);
  (void)fputs(asset_charts_js, f);
  (void)fputs("</script>\n</body></html>\n", f);
}

/* --- data ------------------------------------------------------------------------------------------------------------- */

static json_t *rows_json(const report_rows *r) {
  json_t *all = json_array();
  for (int i = 0; i < r->n; i++) {
    json_t *row = report_record(r, i);
    char *params = report_rows_params(r, i);
    (void)json_object_set_new(row, "params_text", report_record_text(params ? params : ""));
    (void)json_array_append_new(all, row);
    free(params);
  }
  return all;
}

static json_t *groups_json(const report_rows *r) {
  json_t *all = json_array();
  for (int from = 0, to; from < r->n; from = to) {
    to = report_rows_group_end(r, from);
    (void)json_array_append_new(all, json_pack("{s:i, s:i, s:b}", "from", from, "to", to, "tensors", config_shape_task(report_rows_text(r, from, "task")) != NULL));
  }
  return all;
}

static int take_build(void *ctx, int columns, char **names, char **values) {
  json_t *build = json_object();
  for (int c = 1; c < columns; c++) (void)json_object_set_new(build, names[c], values[c] ? report_record_text(values[c]) : json_null());
  return json_object_set_new(ctx, values[0], build) != 0;
}

static int history_json(store *s, const char *experiment, json_t *all, ice_err *e) {
  history h;
  ice_err none;
  int rc = history_read(s, "attention_ns", experiment, &h, &none);
  if (rc != ICE_OK && rc != ICE_NO_VERDICT) *e = none;
  for (int i = 0; rc == ICE_OK && i < h.n; i++) (void)json_array_append_new(all, history_line_json(&h, h.line + i, "attention_ns"));
  history_free(&h);
  return rc == ICE_NO_VERDICT ? ICE_OK : rc;
}

/* JSON in which no "<" stands: nothing in it can end the element. */
static int put_safely(const char *text, size_t n, void *f) {
  for (size_t i = 0; i < n; i++)
    if (text[i] == '<') (void)fputs("\\u003c", f);
    else (void)fputc(text[i], f);
  return 0;
}

int report_html_data(store *s, const report_rows *r, const char *experiment, FILE *f, ice_err *e) {
  json_t *build = json_object(), *lines = json_array();
  int rc = store_query(s, "SELECT cell_id, version, git_diff, kernel, cflags, digest FROM provenance WHERE ?1 IS NULL OR experiment = ?1", &experiment, 1, take_build,
                       build, e);
  if (rc == ICE_OK) rc = history_json(s, experiment, lines, e);
  json_t *rows = rows_json(r);
  const int complete = json_array_size(rows) == (size_t)r->n;
  json_t *all = json_pack("{s:o, s:o, s:o, s:o}", "rows", rows, "groups", groups_json(r), "build", build, "history", lines);
  (void)fputs("<script type=\"application/json\" id=\"data\">", f);
  if (rc == ICE_OK && (!all || !complete || json_dump_callback(all, put_safely, f, JSON_COMPACT | JSON_REAL_PRECISION(15)) != 0))
    rc = ice_fail(e, ICE_INTERNAL, "the report could not be written");
  (void)fputs("</script>\n", f);
  json_decref(all);
  return rc;
}
