/* store_merge.c - see store_merge.h.
 *
 * Rows are copied column by column under the names of the columns, whatever they are, and read back: the copy must have
 * the digest of the original. So a table or column that a later schema adds is copied without a line here. */
#include "harness/store_merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/store_digest.h"
#include "kernels/core/clock.h"

typedef struct row { /* an attempt */
  int64_t id, started;
  int counts, finished;
  char machine[17], digest[STORE_DIGEST];
} row;

typedef struct rows { /* the attempts of one cell, in their order */
  row *row;
  int n, room;
} rows;

typedef struct merger {
  store *out, *in;
  store_keep keep;
  store_merged *done;
  store_tables tables; /* whose rows belong to attempts */
  int64_t conflicts;
  char first[900];
} merger;

/* ---- Reading the attempts of a cell. */

static int take_row(store *s, sqlite3_stmt *st, rows *list, ice_err *e) {
  if (list->n == list->room) {
    const int room = list->room ? 2 * list->room : 8;
    row *grown = realloc(list->row, (size_t)room * sizeof *grown);
    if (!grown) return ice_fail(e, ICE_INTERNAL, "out of memory");
    list->row = grown, list->room = room;
  }
  row *r = &list->row[list->n++];
  const char *machine = (const char *)sqlite3_column_text(st, 4), *stored = (const char *)sqlite3_column_text(st, 5);
  *r = (row){.id = sqlite3_column_int64(st, 0), .counts = sqlite3_column_int(st, 1), .finished = sqlite3_column_int(st, 2),
             .started = sqlite3_column_int64(st, 3)};
  (void)snprintf(r->machine, sizeof r->machine, "%s", machine ? machine : "");
  char kept[STORE_DIGEST] = ""; /* computing one uses the connection */
  if (stored) (void)snprintf(kept, sizeof kept, "%s", stored);
  ICE_TRY(store_digest(s, r->id, r->digest, e));
  if (*kept && strcmp(kept, r->digest))
    return ice_fail(e, ICE_DB, "%s: row %lld (table attempt) was edited after it was stored; restore a copy, or delete the row and run its cell again",
                    s->path, (long long)r->id);
  return ICE_OK;
}

static int read_rows(store *s, const char *key, rows *list, ice_err *e) {
  store_statement t;
  int got, rc = ICE_OK;
  list->n = 0;
  ICE_TRY(store_prepare(s, &t,
                        "SELECT id, replaced_utc_ms IS NULL, status IN ('ok', 'unsupported', 'skipped') AND noise IS NULL, started_utc_ms, machine_id, digest "
                        "FROM attempt WHERE key = ?1 ORDER BY attempt", e));
  store_bind_text(&t, key);
  while (rc == ICE_OK && (got = sqlite3_step(t.st)) != SQLITE_DONE)
    rc = got == SQLITE_ROW ? take_row(s, t.st, list, e) : store_fail(s, "reading", e);
  store_finish(&t);
  return rc;
}

static const row *find(const rows *list, const char *digest) {
  for (int i = 0; i < list->n; i++)
    if (!strcmp(list->row[i].digest, digest)) return &list->row[i];
  return NULL;
}

static const row *that_counts(const rows *list) {
  for (int i = 0; i < list->n; i++)
    if (list->row[i].counts) return &list->row[i];
  return NULL;
}

/* ---- Copying. */

/* "?1, ?2, ..." for the columns of a list: "a", "b". */
static void places(const char *columns, int first, char *out, size_t size) {
  size_t n = 0;
  int i = first;
  for (const char *at = columns; at && n < size; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
    n += (size_t)snprintf(out + n, size - n, "%s?%d", n ? ", " : "", i++);
}

static void bind_row(store_statement *to, const store_statement *from) {
  for (int i = 0; i < sqlite3_column_count(from->st); i++) to->bad |= sqlite3_bind_value(to->st, to->next++, sqlite3_column_value(from->st, i));
}

/* Starts a SELECT of the columns of a table but some. */
static int select_row(store *s, store_statement *t, const char *table, const char *const *but, const char *where, int64_t id, char *columns,
                      size_t size, ice_err *e) {
  char sql[2700];
  ICE_TRY(store_columns(s, table, but, columns, size, e));
  (void)snprintf(sql, sizeof sql, "SELECT %s FROM \"%s\" WHERE %s", columns, table, where);
  ICE_TRY(store_prepare(s, t, sql, e));
  store_bind_int(t, id);
  return ICE_OK;
}

/* The id in `out` of the row that *from stands on, which is made when there is none like it. */
static int same_or_new(store *out, const char *table, const char *columns, const store_statement *from, int64_t *id, ice_err *e) {
  char list[2048], sql[5000];
  size_t n = (size_t)snprintf(sql, sizeof sql, "SELECT rowid FROM \"%s\" WHERE (%s) IS (", table, columns);
  store_statement t;
  places(columns, 1, list, sizeof list);
  (void)snprintf(sql + n, sizeof sql - n, "%s)", list);
  ICE_TRY(store_prepare(out, &t, sql, e));
  bind_row(&t, from);
  const int got = t.bad ? SQLITE_ERROR : sqlite3_step(t.st);
  if (got == SQLITE_ROW) *id = sqlite3_column_int64(t.st, 0);
  int rc = got == SQLITE_ROW || got == SQLITE_DONE ? ICE_OK : store_fail(out, "reading", e);
  store_finish(&t);
  if (rc != ICE_OK || got == SQLITE_ROW) return rc;
  (void)snprintf(sql, sizeof sql, "INSERT INTO \"%s\" (%s) VALUES (%s)", table, columns, list);
  ICE_TRY(store_prepare(out, &t, sql, e));
  bind_row(&t, from);
  rc = store_step(&t, "merging", e);
  store_finish(&t);
  *id = sqlite3_last_insert_rowid(out->db);
  return rc;
}

/* Of the row `from` of a table, as copy_machine. */
static int copy_build(merger *m, const char *table, int64_t from, int64_t *build, ice_err *e) {
  static const char *const but[] = {"id", NULL};
  char columns[2048], where[120];
  store_statement t;
  (void)snprintf(where, sizeof where, "id = (SELECT build_id FROM %s WHERE id = ?1)", table);
  ICE_TRY(select_row(m->in, &t, "build", but, where, from, columns, sizeof columns, e));
  int rc = sqlite3_step(t.st) == SQLITE_ROW ? same_or_new(m->out, "build", columns, &t, build, e) : store_fail(m->in, "reading", e);
  store_finish(&t);
  return rc;
}

/* A machine that is known stays as it was seen first. */
static int copy_machine(merger *m, const char *table, int64_t from, ice_err *e) {
  static const char *const but[] = {NULL};
  char columns[2048], list[512], sql[2800], where[120];
  store_statement t, put;
  (void)snprintf(where, sizeof where, "id = (SELECT machine_id FROM %s WHERE id = ?1)", table);
  ICE_TRY(select_row(m->in, &t, "machine", but, where, from, columns, sizeof columns, e));
  places(columns, 1, list, sizeof list);
  (void)snprintf(sql, sizeof sql, "INSERT OR IGNORE INTO machine (%s) VALUES (%s)", columns, list);
  int rc = sqlite3_step(t.st) == SQLITE_ROW ? store_prepare(m->out, &put, sql, e) : store_fail(m->in, "reading", e);
  if (rc == ICE_OK) {
    bind_row(&put, &t);
    rc = store_step(&put, "merging", e);
    store_finish(&put);
  }
  store_finish(&t);
  return rc;
}

/* The rows of a table that belong to the attempt. */
static int copy_belongings(merger *m, const char *table, int64_t from, int64_t to, ice_err *e) {
  static const char *const but[] = {"cell_id", NULL};
  char columns[2048], list[512], sql[2800];
  store_statement t, put;
  int got;
  ICE_TRY(select_row(m->in, &t, table, but, "cell_id = ?1", from, columns, sizeof columns, e));
  places(columns, 2, list, sizeof list);
  (void)snprintf(sql, sizeof sql, "INSERT INTO \"%s\" (cell_id, %s) VALUES (?1, %s)", table, columns, list);
  int rc = store_prepare(m->out, &put, sql, e);
  if (rc == ICE_OK) {
    while (rc == ICE_OK && (got = sqlite3_step(t.st)) != SQLITE_DONE) {
      if (got != SQLITE_ROW) rc = store_fail(m->in, "reading", e);
      store_bind_int(&put, to);
      bind_row(&put, &t);
      if (rc == ICE_OK) rc = store_step(&put, "merging", e);
    }
    store_finish(&put);
  }
  store_finish(&t);
  return rc;
}

static int copy_attempt(merger *m, const row *r, int64_t number, int counts, int64_t *id, ice_err *e) {
  static const char *const but[] = {"id", "attempt", "replaced_utc_ms", "build_id", NULL};
  char columns[2048], list[512], sql[2800];
  store_statement t, put;
  int64_t build = 0;
  ICE_TRY(copy_machine(m, "attempt", r->id, e));
  ICE_TRY(copy_build(m, "attempt", r->id, &build, e));
  ICE_TRY(select_row(m->in, &t, "attempt", but, "id = ?1", r->id, columns, sizeof columns, e));
  places(columns, 4, list, sizeof list);
  (void)snprintf(sql, sizeof sql, "INSERT INTO attempt (attempt, replaced_utc_ms, build_id, %s) VALUES (?1, ?2, ?3, %s)", columns, list);
  int rc = sqlite3_step(t.st) == SQLITE_ROW ? store_prepare(m->out, &put, sql, e) : store_fail(m->in, "reading", e);
  if (rc == ICE_OK) {
    store_bind_int(&put, number);
    store_bind_known(&put, counts ? 0 : attn_utc_ms());
    store_bind_int(&put, build);
    bind_row(&put, &t);
    rc = store_step(&put, "merging", e);
    store_finish(&put);
    *id = sqlite3_last_insert_rowid(m->out->db);
  }
  store_finish(&t);
  return rc;
}

static int copy(merger *m, const row *r, int64_t number, int counts, ice_err *e) {
  char digest[STORE_DIGEST];
  int64_t id;
  ICE_TRY(copy_attempt(m, r, number, counts, &id, e));
  for (int i = 0; i < m->tables.n; i++) ICE_TRY(copy_belongings(m, m->tables.name[i], r->id, id, e));
  ICE_TRY(store_digest(m->out, id, digest, e));
  if (strcmp(digest, r->digest))
    return ice_fail(e, ICE_DB, "%s: row %lld does not fit into %s: facts of machine %s differ there; one of the two was edited", m->in->path,
                    (long long)r->id, m->out->path, r->machine);
  store_statement t;
  ICE_TRY(store_prepare(m->out, &t, "INSERT INTO temp.origin VALUES (?1, ?2)", e));
  store_bind_int(&t, id);
  store_bind_text(&t, m->in->path);
  const int rc = store_step(&t, "merging", e);
  store_finish(&t);
  m->done->added++;
  return rc;
}

/* ---- Which row counts. */

/* "a.db (Xeon, 2026-11-24 16:00:01, commit 0123456789ab)" */
static int origin(store *s, const char *path, int64_t id, char *out, size_t size, ice_err *e) {
  store_statement t;
  char sql[400];
  (void)snprintf(sql, sizeof sql,
                 "SELECT %s, k.cpu, strftime('%%Y-%%m-%%d %%H:%%M:%%S', a.started_utc_ms / 1000, 'unixepoch'), substr(b.git_commit, 1, 12) "
                 "FROM attempt a JOIN machine k ON k.id = a.machine_id JOIN build b ON b.id = a.build_id WHERE a.id = ?1",
                 path ? "NULL" : "(SELECT o.path FROM temp.origin o WHERE o.id = a.id)");
  ICE_TRY(store_prepare(s, &t, sql, e));
  store_bind_int(&t, id);
  const int rc = sqlite3_step(t.st) == SQLITE_ROW ? ICE_OK : store_fail(s, "reading", e);
  const char *from = rc == ICE_OK && !path ? (const char *)sqlite3_column_text(t.st, 0) : path;
  if (rc == ICE_OK)
    (void)snprintf(out, size, "%.150s (%.60s, %s UTC, commit %s)", from ? from : s->path, sqlite3_column_text(t.st, 1),
                   sqlite3_column_text(t.st, 2), sqlite3_column_text(t.st, 3));
  store_finish(&t);
  return rc;
}

static int note_conflict(merger *m, const row *mine, const row *theirs, ice_err *e) {
  char here[300], there[300], what[200] = "";
  store_statement t;
  if (m->conflicts++) return ICE_OK;
  ICE_TRY(origin(m->out, NULL, mine->id, here, sizeof here, e));
  ICE_TRY(origin(m->in, m->in->path, theirs->id, there, sizeof there, e));
  ICE_TRY(store_prepare(m->in, &t, "SELECT experiment, method, params, seed FROM attempt WHERE id = ?1", e));
  store_bind_int(&t, theirs->id);
  const int rc = sqlite3_step(t.st) == SQLITE_ROW ? ICE_OK : store_fail(m->in, "reading", e);
  if (rc == ICE_OK)
    (void)snprintf(what, sizeof what, "%.60s: %.30s %.70s seed %.20s", sqlite3_column_text(t.st, 0), sqlite3_column_text(t.st, 1),
                   sqlite3_column_text(t.st, 2), sqlite3_column_text(t.st, 3));
  store_finish(&t);
  (void)snprintf(m->first, sizeof m->first, "%s is finished in %s and, with other results, in %s", what, here, there);
  return rc;
}

/* Does the source's row count from now on? */
static int choose(merger *m, const rows *ours, const rows *theirs, const row *mine, const row *its, int *change, ice_err *e) {
  *change = 0;
  if (!its || (mine && find(ours, its->digest))) return ICE_OK; /* nothing new, or we know better */
  *change = 1;
  if (!mine || find(theirs, mine->digest)) return ICE_OK; /* it knows ours, and better */
  if (mine->finished != its->finished) *change = its->finished;
  else if (!mine->finished || m->keep == STORE_KEEP_NEWEST) *change = its->started > mine->started;
  else if (m->keep == STORE_KEEP_OUT) *change = 0;
  else return note_conflict(m, mine, its, e);
  return ICE_OK;
}

/* One attempt cannot have happened in two ways. */
static int refuse_edited(const merger *m, const rows *ours, const rows *theirs, ice_err *e) {
  for (int i = 0; i < theirs->n; i++)
    for (int k = 0; k < ours->n; k++) {
      const row *a = &ours->row[k], *b = &theirs->row[i];
      if (a->started == b->started && !strcmp(a->machine, b->machine) && strcmp(a->digest, b->digest))
        return ice_fail(e, ICE_DB, "%s row %lld and %s row %lld are one attempt, of one machine and moment, with different contents: one of them was edited",
                        m->out->path, (long long)a->id, m->in->path, (long long)b->id);
    }
  return ICE_OK;
}

static int retire(merger *m, int64_t id, ice_err *e) {
  store_statement t;
  ICE_TRY(store_prepare(m->out, &t, "UPDATE attempt SET replaced_utc_ms = ?1 WHERE id = ?2", e));
  store_bind_int(&t, attn_utc_ms());
  store_bind_int(&t, id);
  const int rc = store_step(&t, "merging", e);
  store_finish(&t);
  m->done->retired++;
  return rc;
}

static int next_number(store *s, const char *key, int64_t *out, ice_err *e) {
  store_statement t;
  ICE_TRY(store_prepare(s, &t, "SELECT coalesce(max(attempt), 0) + 1 FROM attempt WHERE key = ?1", e));
  store_bind_text(&t, key);
  const int rc = sqlite3_step(t.st) == SQLITE_ROW ? ICE_OK : store_fail(s, "reading", e);
  if (rc == ICE_OK) *out = sqlite3_column_int64(t.st, 0);
  store_finish(&t);
  return rc;
}

static int merge_cell(merger *m, const char *key, rows *ours, rows *theirs, ice_err *e) {
  int change;
  int64_t number;
  ICE_TRY(read_rows(m->in, key, theirs, e));
  ICE_TRY(read_rows(m->out, key, ours, e));
  ICE_TRY(refuse_edited(m, ours, theirs, e));
  const row *mine = that_counts(ours), *its = that_counts(theirs);
  ICE_TRY(choose(m, ours, theirs, mine, its, &change, e));
  if (m->conflicts) return ICE_OK; /* nothing will be stored, but the others are counted */
  if (change && mine) ICE_TRY(retire(m, mine->id, e));
  ICE_TRY(next_number(m->out, key, &number, e));
  for (int i = 0; i < theirs->n; i++) {
    const row *r = &theirs->row[i];
    if (find(ours, r->digest)) m->done->known++;
    else ICE_TRY(copy(m, r, number++, change && r == its, e));
  }
  return ICE_OK;
}

/* ---- Whole databases. */

static int merge_cells(merger *m, ice_err *e) {
  store_statement t;
  rows ours = {0}, theirs = {0};
  int got, rc = ICE_OK;
  ICE_TRY(store_prepare(m->in, &t, "SELECT DISTINCT key FROM attempt ORDER BY key", e));
  while (rc == ICE_OK && (got = sqlite3_step(t.st)) != SQLITE_DONE)
    rc = got == SQLITE_ROW ? merge_cell(m, (const char *)sqlite3_column_text(t.st, 0), &ours, &theirs, e) : store_fail(m->in, "reading", e);
  store_finish(&t);
  free(ours.row);
  free(theirs.row);
  return rc;
}

/* A noise floor that is not there yet, with its machine and build. */
static int copy_floor(merger *m, int64_t from, ice_err *e) {
  static const char *const but[] = {"id", "build_id", NULL};
  char columns[2048], all[2100], sql[2700];
  store_statement t;
  int64_t build = 0, id;
  ICE_TRY(copy_machine(m, "noise_floor", from, e));
  ICE_TRY(copy_build(m, "noise_floor", from, &build, e));
  ICE_TRY(store_columns(m->in, "noise_floor", but, columns, sizeof columns, e));
  (void)snprintf(all, sizeof all, "build_id, %s", columns);
  (void)snprintf(sql, sizeof sql, "SELECT ?1, %s FROM noise_floor WHERE id = ?2", columns);
  ICE_TRY(store_prepare(m->in, &t, sql, e));
  store_bind_int(&t, build);
  store_bind_int(&t, from);
  int rc = sqlite3_step(t.st) == SQLITE_ROW ? same_or_new(m->out, "noise_floor", all, &t, &id, e) : store_fail(m->in, "reading", e);
  store_finish(&t);
  return rc;
}

/* What was learnt about the noise of the machines. */
static int merge_floors(merger *m, ice_err *e) {
  store_statement t;
  int got, rc = ICE_OK;
  ICE_TRY(store_prepare(m->in, &t, "SELECT id FROM noise_floor ORDER BY id", e));
  while (rc == ICE_OK && (got = sqlite3_step(t.st)) != SQLITE_DONE)
    rc = got == SQLITE_ROW ? copy_floor(m, sqlite3_column_int64(t.st, 0), e) : store_fail(m->in, "reading", e);
  store_finish(&t);
  return rc;
}

/* Of one moment: the source may be at work. */
static int merge_one(merger *m, ice_err *e) {
  ICE_TRY(store_execute(m->in, "BEGIN", "reading", e));
  int rc = merge_cells(m, e);
  if (rc == ICE_OK && !m->conflicts) rc = merge_floors(m, e);
  (void)sqlite3_exec(m->in->db, "ROLLBACK", NULL, NULL, NULL);
  return rc;
}

int store_merge(store *out, store *const *in, int n, store_keep keep, store_merged *done, ice_err *e) {
  merger m = {.out = out, .keep = keep};
  ICE_TRY(store_execute(out, "PRAGMA temp_store = MEMORY; CREATE TEMP TABLE IF NOT EXISTS origin (id INTEGER PRIMARY KEY, path TEXT)", "merging", e));
  ICE_TRY(store_execute(out, "BEGIN IMMEDIATE; DELETE FROM temp.origin", "locking", e));
  int rc = store_tables_of_attempts(out, &m.tables, e);
  for (int i = 0; rc == ICE_OK && i < n; i++) {
    m.in = in[i], m.done = &done[i];
    *m.done = (store_merged){0};
    rc = merge_one(&m, e);
  }
  if (rc == ICE_OK && m.conflicts) {
    char others[80] = "";
    if (m.conflicts > 1) (void)snprintf(others, sizeof others, " (and %lld more)", (long long)m.conflicts - 1);
    rc = ice_fail(e, ICE_USAGE, "%s%s; nothing was merged. --keep out or --keep newest says which counts, the other goes to the history", m.first, others);
  }
  if (rc == ICE_OK) rc = store_execute(out, "COMMIT", "merging", e);
  if (rc != ICE_OK) (void)sqlite3_exec(out->db, "ROLLBACK", NULL, NULL, NULL);
  return rc;
}
