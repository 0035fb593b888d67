/* jsonl.c - see jsonl.h */
#include "datasets/jsonl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 1 << 26 }; /* the longest book in ZeroSCROLLS has less than 2 MB */

void jsonl_open(jsonl *j, const uint8_t *p, size_t n, const char *name) {
  *j = (jsonl){.name = name, .p = p, .end = p + n};
  if (n >= 3 && !memcmp(p, "\xef\xbb\xbf", 3)) j->p += 3; /* byte order mark */
}

void jsonl_close(jsonl *j) {
  json_decref(j->row);
  j->row = NULL;
}

int jsonl_fail(const jsonl *j, ice_err *e, const char *fmt, ...) {
  char what[700];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(what, sizeof what, fmt, ap);
  va_end(ap);
  return ice_fail(e, ICE_DATA, "%s:%" PRId64 ": %s", j->name, j->line, what);
}

static int is_blank(const uint8_t *p, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r') return 0;
  return 1;
}

int jsonl_next(jsonl *j, int *more, ice_err *e) {
  json_error_t bad;
  jsonl_close(j);
  *more = 0;
  while (j->p < j->end) {
    const uint8_t *line = j->p, *stop = memchr(line, '\n', (size_t)(j->end - line));
    const size_t n = (size_t)((stop ? stop : j->end) - line);
    j->p = stop ? stop + 1 : j->end;
    j->line++;
    if (is_blank(line, n)) continue;
    if (n > MAX_LINE) return jsonl_fail(j, e, "%zu bytes in one line, allowed are %d", n, MAX_LINE);
    j->row = json_loadb((const char *)line, n, JSON_REJECT_DUPLICATES, &bad);
    if (!j->row) return jsonl_fail(j, e, "byte %d: %s", bad.position, bad.text);
    if (!json_is_object(j->row)) return jsonl_fail(j, e, "not a JSON object");
    *more = 1;
    return ICE_OK;
  }
  return ICE_OK;
}

static int wrong(const jsonl *j, const char *field, const json_t *v, const char *allowed, ice_err *e) {
  char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
  const int rc = !v ? jsonl_fail(j, e, "field '%s' is missing, allowed %s", field, allowed)
                    : jsonl_fail(j, e, "field '%s' = %.60s, allowed %s", field, text ? text : "?", allowed);
  free(text);
  return rc;
}

int jsonl_string(const jsonl *j, const char *field, int null, const char **out, ice_err *e) {
  const json_t *v = json_object_get(j->row, field);
  *out = json_string_value(v);
  if (*out || (null && (!v || json_is_null(v)))) return ICE_OK;
  return wrong(j, field, v, null ? "a string or null" : "a string", e);
}

int jsonl_int(const jsonl *j, const char *field, int64_t min, int64_t max, int64_t *out, ice_err *e) {
  char allowed[80];
  const json_t *v = json_object_get(j->row, field);
  *out = json_integer_value(v);
  if (json_is_integer(v) && *out >= min && *out <= max) return ICE_OK;
  (void)snprintf(allowed, sizeof allowed, "whole numbers %" PRId64 "..%" PRId64, min, max);
  return wrong(j, field, v, allowed, e);
}

int jsonl_strings(const jsonl *j, const char *field, size_t least, json_t **out, ice_err *e) {
  char allowed[80];
  size_t i;
  json_t *v = json_object_get(j->row, field), *item;
  (void)snprintf(allowed, sizeof allowed, "a list of %s strings", least ? "one or more" : "zero or more");
  *out = v;
  if (!json_is_array(v) || json_array_size(v) < least) return wrong(j, field, v, allowed, e);
  json_array_foreach(v, i, item)
    if (!json_is_string(item)) return wrong(j, field, v, allowed, e);
  return ICE_OK;
}
