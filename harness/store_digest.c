/* store_digest.c - see store_digest.h.
 *
 * Text that is hashed: a line `table` for every row, then `column=type:value` for each value that is known; tables,
 * columns and rows in a fixed order. Lengths stand before texts, so that no two rows can give the same bytes. */
#include "harness/store_digest.h"

#include <sha256.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int store_tables_of_attempts(store *s, store_tables *out, ice_err *e) {
  store_statement t;
  int rc = ICE_OK, got;
  out->n = 0;
  ICE_TRY(store_prepare(s, &t,
                        "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND "
                        "c.name = 'cell_id' ORDER BY m.name", e));
  while ((got = sqlite3_step(t.st)) == SQLITE_ROW && rc == ICE_OK) {
    const char *name = (const char *)sqlite3_column_text(t.st, 0);
    if (!name || strlen(name) >= sizeof out->name[0] || out->n == 16 || strchr(name, '"'))
      rc = ice_fail(e, ICE_DB, "%s: tables that no icebench made; restore a copy", s->path);
    else
      (void)strcpy(out->name[out->n++], name);
  }
  if (rc == ICE_OK && got != SQLITE_DONE) rc = store_fail(s, "reading", e);
  store_finish(&t);
  return rc;
}

static int among(const char *name, const char *const *list) {
  for (; *list; list++)
    if (!strcmp(name, *list)) return 1;
  return 0;
}

int store_columns(store *s, const char *table, const char *const *but, char *out, size_t size, ice_err *e) {
  store_statement t;
  size_t n = 0;
  int got, fits = 1;
  out[0] = 0;
  ICE_TRY(store_prepare(s, &t, "SELECT name FROM pragma_table_info(?1) ORDER BY name", e));
  store_bind_text(&t, table);
  while ((got = sqlite3_step(t.st)) == SQLITE_ROW && fits) {
    const char *name = (const char *)sqlite3_column_text(t.st, 0);
    if (!name || among(name, but)) continue;
    n += (size_t)snprintf(out + n, size - n, "%s\"%s\"", n ? ", " : "", name);
    fits = n < size && !strchr(name, '"');
  }
  const int rc = !fits               ? ice_fail(e, ICE_DB, "%s: columns of %s that no icebench made; restore a copy", s->path, table)
                 : got != SQLITE_DONE ? store_fail(s, "reading", e)
                                      : ICE_OK;
  store_finish(&t);
  return rc;
}

static void add(SHA256_CTX *h, const void *bytes, size_t n) { SHA256Update(h, bytes, n); }
static void add_text(SHA256_CTX *h, const char *text) { add(h, text, strlen(text)); }

static void add_value(SHA256_CTX *h, const char *column, sqlite3_stmt *st, int i) {
  char head[160];
  const double real = sqlite3_column_double(st, i);
  const void *bytes = NULL;
  int n = 0;
  switch (sqlite3_column_type(st, i)) {
  case SQLITE_NULL: return;
  case SQLITE_INTEGER: (void)snprintf(head, sizeof head, "%s=i:%lld\n", column, (long long)sqlite3_column_int64(st, i)); break;
  case SQLITE_FLOAT: (void)snprintf(head, sizeof head, "%s=r:%a\n", column, real); break;
  default: /* text, blob */
    bytes = sqlite3_column_blob(st, i);
    n = sqlite3_column_bytes(st, i);
    (void)snprintf(head, sizeof head, "%s=%c%d:", column, sqlite3_column_type(st, i) == SQLITE_TEXT ? 't' : 'b', n);
  }
  add_text(h, head);
  if (n) add(h, bytes, (size_t)n);
  if (sqlite3_column_type(st, i) == SQLITE_TEXT || sqlite3_column_type(st, i) == SQLITE_BLOB) add_text(h, "\n");
}

/* Every row of a query with the one value id; how many there were in *rows. */
static int add_rows(store *s, SHA256_CTX *h, const char *table, const char *sql, int64_t id, int *rows, ice_err *e) {
  store_statement t;
  int got;
  *rows = 0;
  ICE_TRY(store_prepare(s, &t, sql, e));
  store_bind_int(&t, id);
  while ((got = sqlite3_step(t.st)) == SQLITE_ROW) {
    add_text(h, table);
    add_text(h, "\n");
    for (int i = 0; i < sqlite3_column_count(t.st); i++) add_value(h, sqlite3_column_name(t.st, i), t.st, i);
    ++*rows;
  }
  const int rc = got == SQLITE_DONE ? ICE_OK : store_fail(s, "reading", e);
  store_finish(&t);
  return rc;
}

/* The one row behind `where`. */
static int add_one(store *s, SHA256_CTX *h, const char *table, const char *const *but, const char *where, int64_t id, ice_err *e) {
  char columns[2048], sql[2600];
  int rows;
  ICE_TRY(store_columns(s, table, but, columns, sizeof columns, e));
  (void)snprintf(sql, sizeof sql, "SELECT %s FROM \"%s\" WHERE %s", columns, table, where);
  ICE_TRY(add_rows(s, h, table, sql, id, &rows, e));
  return rows == 1 ? ICE_OK : ice_fail(e, ICE_DB, "%s: row %lld has no %s; restore a copy", s->path, (long long)id, table);
}

int store_digest(store *s, int64_t id, char out[STORE_DIGEST], ice_err *e) {
  /* A machine is known by its first row, whose kernel need not be that of this attempt. */
  static const char *const place[] = {"id", "attempt", "replaced_utc_ms", "digest", "machine_id", "build_id", NULL},
                    *const of_machine[] = {"os", NULL}, *const of_build[] = {"id", NULL}, *const of_cell[] = {"cell_id", NULL};
  SHA256_CTX h;
  store_tables tables;
  char columns[2048], sql[4800];
  int rows;
  SHA256Init(&h);
  ICE_TRY(store_tables_of_attempts(s, &tables, e));
  ICE_TRY(add_one(s, &h, "attempt", place, "id = ?1", id, e));
  ICE_TRY(add_one(s, &h, "machine", of_machine, "id = (SELECT machine_id FROM attempt WHERE id = ?1)", id, e));
  ICE_TRY(add_one(s, &h, "build", of_build, "id = (SELECT build_id FROM attempt WHERE id = ?1)", id, e));
  for (int i = 0; i < tables.n; i++) {
    ICE_TRY(store_columns(s, tables.name[i], of_cell, columns, sizeof columns, e));
    (void)snprintf(sql, sizeof sql, "SELECT %s FROM \"%s\" WHERE cell_id = ?1 ORDER BY %s", columns, tables.name[i], columns);
    ICE_TRY(add_rows(s, &h, tables.name[i], sql, id, &rows, e));
  }
  (void)SHA256End(&h, out);
  return ICE_OK;
}

int store_verify(store *s, const char *experiment, int older, ice_err *e) {
  store_statement t;
  char now[STORE_DIGEST];
  int rc = ICE_OK, got = SQLITE_DONE;
  ICE_TRY(store_prepare(s, &t, "SELECT id, digest, method, task FROM attempt WHERE digest IS NOT NULL AND (?1 IS NULL OR experiment = ?1) "
                           "AND (?2 OR replaced_utc_ms IS NULL) ORDER BY replaced_utc_ms IS NOT NULL, id", e));
  store_bind_text(&t, experiment);
  store_bind_int(&t, older);
  while (rc == ICE_OK && (got = sqlite3_step(t.st)) == SQLITE_ROW) {
    const int64_t id = sqlite3_column_int64(t.st, 0);
    rc = store_digest(s, id, now, e);
    if (rc == ICE_OK && strcmp(now, (const char *)sqlite3_column_text(t.st, 1)))
      rc = ice_fail(e, ICE_DB, "%s: row %lld (%.60s on %.60s) was edited or is damaged: it does not fit its digest; restore a copy, or delete it and measure anew with icebench run",
                    s->path, (long long)id, sqlite3_column_text(t.st, 2), sqlite3_column_text(t.st, 3));
  }
  if (rc == ICE_OK && got != SQLITE_DONE) rc = store_fail(s, "reading", e);
  store_finish(&t);
  return rc;
}
