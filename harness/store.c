/* store.c - see store.h.
 *
 * Journal  Write-ahead log while open for writing: a reader (report) never waits for the writer (run), and a kill at any
 *          moment leaves the last transaction whole or absent. synchronous = FULL and a checkpoint after every transaction,
 *          since a cell costs minutes and a sync milliseconds: even after a kill the file alone holds all but the last cell.
 *          The last writer to close turns the file back into a plain one, readable in read-only folders.
 * Timings  A build with assertions or sanitizers measures itself, so such builds store no times unless
 *          ICEBENCH_ALLOW_DEBUG=1; the row's label says what was left out. */
#include "harness/store.h"

#include <errno.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "harness/machine.h"
#include "harness/sql.h"
#include "kernels/core/clock.h"
#include "kernels/core/fileio.h"

int store_patience_ms = 10000;

struct store {
  sqlite3 *db;
  char *path;
  int writes;
};

/* --- errors ------------------------------------------------------------------------------------------------------- */

static int db_fail(const store *s, const char *doing, ice_err *e) {
  const int code = sqlite3_errcode(s->db) & 0xff;
  const char *why = sqlite3_errmsg(s->db), *next;
  switch (code) {
  case SQLITE_BUSY:
  case SQLITE_LOCKED: next = "another process holds it; wait for it to finish, or name another --db"; break;
  case SQLITE_CORRUPT: next = "it is damaged; restore a copy, or salvage it with sqlite3 FILE .recover"; break;
  case SQLITE_NOTADB: next = "it is no SQLite database; name another --db"; break;
  case SQLITE_FULL:
  case SQLITE_IOERR: next = "is the disk full? what was stored before is safe; make room and try again"; break;
  case SQLITE_READONLY:
  case SQLITE_CANTOPEN:
  case SQLITE_PERM: next = "check that file and folder are readable and writable"; break;
  case SQLITE_NOMEM: return ice_fail(e, ICE_INTERNAL, "%s: out of memory", s->path);
  default: return ice_fail(e, ICE_DB, "%s: %s: %s", s->path, doing, why);
  }
  return ice_fail(e, ICE_DB, "%s: %s: %s (%s)", s->path, doing, why, next);
}

static int execute(store *s, const char *sql, const char *doing, ice_err *e) {
  return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? ICE_OK : db_fail(s, doing, e);
}

/* --- statements: prepare, bind in order, step ------------------------------------------------------------------------ */

typedef struct statement {
  store *s;
  sqlite3_stmt *st;
  int next, bad;
} statement;

static int prepare(store *s, statement *t, const char *sql, ice_err *e) {
  *t = (statement){.s = s, .next = 1};
  return sqlite3_prepare_v2(s->db, sql, -1, &t->st, NULL) == SQLITE_OK ? ICE_OK : db_fail(s, "reading", e);
}
static void bind_text(statement *t, const char *v) { /* NULL is NULL */
  t->bad |= v ? sqlite3_bind_text(t->st, t->next, v, -1, SQLITE_TRANSIENT) : sqlite3_bind_null(t->st, t->next);
  t->next++;
}
static void bind_int(statement *t, int64_t v) { t->bad |= sqlite3_bind_int64(t->st, t->next++, v); }
static void bind_known(statement *t, int64_t v) { /* 0 is unknown */
  t->bad |= v ? sqlite3_bind_int64(t->st, t->next, v) : sqlite3_bind_null(t->st, t->next);
  t->next++;
}
static void bind_real(statement *t, double v) {
  t->bad |= isfinite(v) ? sqlite3_bind_double(t->st, t->next, v) : sqlite3_bind_null(t->st, t->next);
  t->next++;
}
/* Runs a statement without rows and makes it ready for the next values. */
static int step_done(statement *t, const char *doing, ice_err *e) {
  const int rc = t->bad ? SQLITE_ERROR : sqlite3_step(t->st);
  const int bad = rc != SQLITE_DONE && rc != SQLITE_ROW ? db_fail(t->s, doing, e) : ICE_OK;
  (void)sqlite3_reset(t->st);
  t->next = 1;
  return bad;
}
static void finish(statement *t) { (void)sqlite3_finalize(t->st); }

/* --- open and migrate ---------------------------------------------------------------------------------------------- */

static int note_damage(void *ctx, int columns, char **values, char **names) {
  (void)columns, (void)names;
  if (strcmp(values[0], "ok")) (void)snprintf(ctx, 128, "%s", values[0]);
  return 0;
}
static int check_intact(store *s, ice_err *e) {
  char damage[128] = "";
  if (sqlite3_exec(s->db, "PRAGMA quick_check(1)", note_damage, damage, NULL) != SQLITE_OK) return db_fail(s, "checking", e);
  if (!*damage) return ICE_OK;
  return ice_fail(e, ICE_DB, "%s: it is damaged: %s (restore a copy, or salvage it with sqlite3 FILE .recover)", s->path, damage);
}

/* First number of the first row. */
static int ask_number(store *s, const char *sql, int64_t *out, ice_err *e) {
  statement t;
  ICE_TRY(prepare(s, &t, sql, e));
  const int rc = sqlite3_step(t.st) == SQLITE_ROW ? ICE_OK : db_fail(s, "reading", e);
  if (rc == ICE_OK) *out = sqlite3_column_int64(t.st, 0);
  finish(&t);
  return rc;
}

static int newest_schema(void) {
  int n = 0;
  while (store_migrations[n]) n++;
  return n;
}

static int migrate(store *s, ice_err *e) {
  int64_t have = 0;
  ICE_TRY(execute(s, "BEGIN IMMEDIATE", "locking", e)); /* two writers that start together migrate one after the other */
  int rc = ask_number(s, "PRAGMA user_version", &have, e);
  for (int v = (int)have; rc == ICE_OK && v < newest_schema(); v++) {
    char pragma[64];
    (void)snprintf(pragma, sizeof pragma, "PRAGMA user_version = %d", v + 1);
    rc = execute(s, store_migrations[v], "migrating", e);
    if (rc == ICE_OK) rc = execute(s, pragma, "migrating", e);
  }
  if (rc == ICE_OK) return execute(s, "COMMIT", "migrating", e);
  (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
  return rc;
}

typedef struct header { /* what a database says of itself */
  int64_t application, have, objects;
} header;

/* All of one moment: a writer that starts now may be about to create the tables. */
static int read_header(store *s, header *h, ice_err *e) {
  ICE_TRY(execute(s, "BEGIN", "reading", e));
  int rc = ask_number(s, "PRAGMA application_id", &h->application, e);
  if (rc == ICE_OK) rc = ask_number(s, "PRAGMA user_version", &h->have, e);
  if (rc == ICE_OK) rc = ask_number(s, "SELECT count(*) FROM sqlite_schema", &h->objects, e);
  (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
  return rc;
}

/* Is it ours, of a schema we know, and (before we add to it) intact? An empty file may become ours. */
static int check_schema(store *s, store_mode mode, ice_err *e) {
  enum { APPLICATION = 0x49434542 }; /* "ICEB", as 0001_init.sql sets it */
  header h = {0};
  ICE_TRY(read_header(s, &h, e));
  const int64_t application = h.application, have = h.have, objects = h.objects;
  if (application != APPLICATION && (mode == STORE_READ || objects > 0))
    return ice_fail(e, ICE_DB, "%s: holds no icebench results; name another --db, icebench run makes one", s->path);
  if (have < 0 || (have == 0 && objects > 0))
    return ice_fail(e, ICE_DB, "%s: it is damaged: tables of schema %lld, which there never was; restore a copy", s->path, (long long)have);
  if (have > newest_schema())
    return ice_fail(e, ICE_DB, "%s: schema %lld is newer than this program knows (%d); use a newer icebench", s->path,
                    (long long)have, newest_schema());
  if (mode == STORE_WRITE) {
    ICE_TRY(check_intact(s, e));
    return have < newest_schema() ? migrate(s, e) : ICE_OK;
  }
  if (have < newest_schema())
    return ice_fail(e, ICE_DB, "%s: schema %lld is older than this program's (%d); icebench run brings it up to date", s->path,
                    (long long)have, newest_schema());
  return ICE_OK;
}

static int make_folder_of(const char *path, ice_err *e) {
  char folder[4096];
  const char *slash = strrchr(path, '/');
  if (!slash || slash == path) return ICE_OK;
  if ((size_t)(slash - path) >= sizeof folder) return ice_fail(e, ICE_USAGE, "--db: a path of %zu characters is too long", strlen(path));
  (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
  ice_err why = {0};
  if (file_make_dirs(folder, &why) == ICE_OK) return ICE_OK;
  return ice_fail(e, ICE_DB, "%s: %.900s; name another --db", path, why.text);
}

/* Does a file of less than a page of SQLite begin like one? */
static int begins_like_database(const char *path, size_t bytes) {
  static const char magic[16] = "SQLite format 3"; /* https://sqlite.org/fileformat.html, 1.3 */
  char head[sizeof magic];
  const size_t n = bytes < sizeof head ? bytes : sizeof head;
  FILE *f = fopen(path, "rb");
  const int same = f && fread(head, 1, n, f) == n && !memcmp(head, magic, n);
  if (f) (void)fclose(f);
  return same;
}

/* Turns the write-ahead log on. Here SQLite does not always wait for others by itself. */
static int begin_log(store *s, ice_err *e) {
  const struct timespec pause = {.tv_nsec = 20000000};
  for (const int64_t until = attn_utc_ms() + store_patience_ms;;) {
    const int rc = sqlite3_exec(s->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL) & 0xff;
    if (rc == SQLITE_OK) break;
    if ((rc != SQLITE_BUSY && rc != SQLITE_LOCKED) || attn_utc_ms() >= until) return db_fail(s, "opening", e);
    (void)nanosleep(&pause, NULL);
  }
  return execute(s, "PRAGMA wal_autocheckpoint = 1", "opening", e);
}

/* Opens the connection. An existing file must be a regular one: opening a FIFO would wait for ever. */
static int connect_to(store *s, store_mode mode, ice_err *e) {
  struct stat st;
  const int there = stat(s->path, &st) == 0;
  if (there && !S_ISREG(st.st_mode)) return ice_fail(e, ICE_DB, "%s: not a regular file; name another --db", s->path);
  if (!there && mode == STORE_READ)
    return ice_fail(e, ICE_DB, "%s: %s; icebench run makes a database, --db names another", s->path, strerror(errno));
  if (there && st.st_size > 0 && st.st_size < 512) /* which SQLite would take for an empty database */
    return begins_like_database(s->path, (size_t)st.st_size)
               ? ice_fail(e, ICE_DB, "%s: cut short at %lld bytes; restore a copy", s->path, (long long)st.st_size)
               : ice_fail(e, ICE_DB, "%s: it is no SQLite database; name another --db", s->path);
  const int flags = mode == STORE_READ ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  if (sqlite3_open_v2(s->path, &s->db, flags | SQLITE_OPEN_EXRESCODE, NULL) != SQLITE_OK) return db_fail(s, "opening", e);
  (void)sqlite3_busy_timeout(s->db, store_patience_ms);
  (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
  ICE_TRY(execute(s, "PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL", "opening", e));
  return mode == STORE_WRITE ? begin_log(s, e) : ICE_OK;
}

int store_open(const char *path, store_mode mode, store **out, ice_err *e) {
  *out = NULL;
  if (!*path || *path == ':') /* names that SQLite takes for a database in memory, gone at the end */
    return ice_fail(e, ICE_USAGE, "--db = '%s': not the name of a file", path);
  if (mode == STORE_WRITE) ICE_TRY(make_folder_of(path, e));
  store *s = calloc(1, sizeof *s);
  if (!s || !(s->path = strdup(path))) {
    free(s);
    return ice_fail(e, ICE_INTERNAL, "out of memory");
  }
  int rc = connect_to(s, mode, e);
  if (rc == ICE_OK) rc = check_schema(s, mode, e);
  s->writes = rc == ICE_OK && mode == STORE_WRITE;
  if (rc == ICE_OK) *out = s;
  else store_close(s);
  return rc;
}

void store_close(store *s) {
  if (!s) return;
  if (s->writes) { /* fails, harmlessly, while others have it open */
    (void)sqlite3_busy_timeout(s->db, 0);
    (void)sqlite3_exec(s->db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
  }
  (void)sqlite3_close(s->db);
  free(s->path);
  free(s);
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

int store_has(store *s, const char *key, int any_status, int *finished, ice_err *e) {
  statement t;
  *finished = 0;
  ICE_TRY(prepare(s, &t, "SELECT 1 FROM cell WHERE key = ?1 AND (?2 OR status IN ('ok', 'unsupported', 'skipped'))", e));
  bind_text(&t, key);
  bind_int(&t, any_status);
  const int got = sqlite3_step(t.st), rc = got == SQLITE_ROW || got == SQLITE_DONE ? ICE_OK : db_fail(s, "reading", e);
  *finished = got == SQLITE_ROW;
  finish(&t);
  return rc;
}

int store_query(store *s, const char *sql, const char *const *bind, int n_bind,
                int (*row)(void *ctx, int columns, char **names, char **values), void *ctx, ice_err *e) {
  enum { MOST = 128 };
  statement t;
  char *names[MOST], *values[MOST];
  ICE_TRY(prepare(s, &t, sql, e));
  const int columns = sqlite3_column_count(t.st);
  int rc = columns <= MOST && sqlite3_stmt_readonly(t.st) ? ICE_OK : ice_fail(e, ICE_USAGE, "a query must be a SELECT of at most %d columns", MOST);
  for (int i = 0; i < n_bind; i++) bind_text(&t, bind[i]);
  for (int i = 0; rc == ICE_OK && i < columns; i++) names[i] = (char *)(uintptr_t)sqlite3_column_name(t.st, i);
  while (rc == ICE_OK) {
    const int got = sqlite3_step(t.st);
    if (got == SQLITE_DONE) break;
    if (got != SQLITE_ROW) rc = db_fail(s, "reading", e);
    for (int i = 0; rc == ICE_OK && i < columns; i++) values[i] = (char *)(uintptr_t)sqlite3_column_text(t.st, i);
    if (rc == ICE_OK && row(ctx, columns, names, values)) break;
  }
  finish(&t);
  return rc;
}

static int take_double(void *ctx, int columns, char **names, char **values) {
  (void)columns, (void)names;
  if (values[0]) *(double *)ctx = strtod(values[0], NULL);
  return 1;
}

double store_expected_ms(store *s, const char *task, const char *model, const char *method) {
  const char *bind[] = {task, model, method};
  double ms = NAN;
  ice_err ignored = {0};
  (void)store_query(s,
                    "SELECT wall_ms FROM cell WHERE task = ?1 AND model = ?2 AND method = ?3 AND status = 'ok' ORDER BY wall_ms "
                    "LIMIT 1 OFFSET (SELECT (count(*) - 1) / 2 FROM cell WHERE task = ?1 AND model = ?2 AND method = ?3 AND status = 'ok')",
                    bind, 3, take_double, &ms, &ignored);
  return ms;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

static int put_machine(store *s, const machine_facts *m, ice_err *e) {
  statement t;
  ICE_TRY(prepare(s, &t, "INSERT OR IGNORE INTO machine VALUES (?1, ?2, ?3, ?4, ?5, ?6)", e));
  bind_text(&t, m->id);
  bind_text(&t, m->cpu);
  bind_text(&t, m->caches);
  bind_int(&t, m->cores);
  bind_int(&t, m->memory_bytes);
  bind_text(&t, m->os);
  const int rc = step_done(&t, "storing the machine", e);
  finish(&t);
  return rc;
}

static void bind_build(statement *t, const machine_facts *m) {
  bind_text(t, m->version);
  bind_text(t, m->git_commit);
  bind_int(t, m->git_dirty);
  bind_text(t, m->variant);
  bind_text(t, m->compiler);
  bind_text(t, m->cflags);
  bind_text(t, m->blas);
}

static int put_build(store *s, const machine_facts *m, int64_t *id, ice_err *e) {
  statement t;
  ICE_TRY(prepare(s, &t,
                  "INSERT OR IGNORE INTO build (version, git_commit, git_dirty, variant, compiler, cflags, blas) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", e));
  bind_build(&t, m);
  int rc = step_done(&t, "storing the build", e);
  finish(&t);
  if (rc != ICE_OK) return rc;
  ICE_TRY(prepare(s, &t,
                  "SELECT id FROM build WHERE version = ?1 AND git_commit = ?2 AND git_dirty = ?3 AND variant = ?4 AND compiler = ?5 AND "
                  "cflags = ?6 AND blas = ?7", e));
  bind_build(&t, m);
  if (sqlite3_step(t.st) == SQLITE_ROW) *id = sqlite3_column_int64(t.st, 0);
  else rc = db_fail(s, "storing the build", e);
  finish(&t);
  return rc;
}

/* Marks an older row of this key as replaced and tells the number of the new attempt. */
static int retire(store *s, const store_cell *c, int force, int64_t *attempt, ice_err *e) {
  statement t;
  int finished;
  ICE_TRY(store_has(s, c->key, 0, &finished, e));
  if (finished && !force) return ice_fail(e, ICE_INTERNAL, "%s: cell %s is already finished", s->path, c->key);
  ICE_TRY(prepare(s, &t, "SELECT coalesce(max(attempt), 0) + 1 FROM attempt WHERE key = ?1", e));
  bind_text(&t, c->key);
  int rc = sqlite3_step(t.st) == SQLITE_ROW ? ICE_OK : db_fail(s, "reading", e);
  *attempt = sqlite3_column_int64(t.st, 0);
  finish(&t);
  if (rc != ICE_OK) return rc;
  ICE_TRY(prepare(s, &t, "UPDATE attempt SET replaced_utc_ms = ?2 WHERE key = ?1 AND replaced_utc_ms IS NULL", e));
  bind_text(&t, c->key);
  bind_int(&t, attn_utc_ms());
  rc = step_done(&t, "replacing a row", e);
  finish(&t);
  return rc;
}

/* 1 when this build may store times. */
static int may_time(const machine_facts *m) {
  const char *allow = getenv("ICEBENCH_ALLOW_DEBUG");
  return !strcmp(m->variant, "release") || (allow && !strcmp(allow, "1"));
}
static int is_time(const char *metric) {
  const size_t n = strlen(metric);
  return (n > 3 && !strcmp(metric + n - 3, "_ns")) || !strncmp(metric, "speedup_", 8);
}

/* What the caller says, then what this build does to the times; to sqlite3_free(). */
static char *label_of(const store_cell *c, const machine_facts *m) {
  const char *given = c->label ? c->label : "";
  if (!strcmp(m->variant, "release")) return sqlite3_mprintf("%s", given);
  return sqlite3_mprintf("%s%s%s build%s", given, *given ? ", " : "", m->variant, may_time(m) ? "" : ": no times");
}

static int put_row(store *s, const store_cell *c, int64_t attempt, const machine_facts *m, int64_t build, ice_err *e) {
  statement t;
  char seed[32];
  (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)c->seed);
  ICE_TRY(prepare(s, &t,
                  "INSERT INTO attempt (key, attempt, experiment, task, model, method, method_version, params, seed, n, heads, head_dim, layers, "
                  "causal, threads, isa, examples, partial, status, reason, label, config, data_hash, model_hash, machine_id, build_id, "
                  "started_utc_ms, wall_ms) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,"
                  "?25,?26,?27,?28)", e));
  char *label = label_of(c, m);
  bind_text(&t, c->key);
  bind_int(&t, attempt);
  const char *const names[] = {c->experiment, c->task, c->model, c->method, c->method_version, c->params, seed};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) bind_text(&t, names[i]);
  bind_known(&t, c->n);
  bind_known(&t, c->heads);
  bind_known(&t, c->head_dim);
  bind_known(&t, c->layers);
  bind_int(&t, c->causal);
  bind_int(&t, c->threads);
  bind_text(&t, c->isa);
  bind_known(&t, c->examples);
  bind_int(&t, c->partial);
  bind_text(&t, c->status);
  bind_text(&t, c->reason);
  t.bad |= label ? SQLITE_OK : SQLITE_NOMEM;
  bind_text(&t, label && *label ? label : NULL);
  sqlite3_free(label);
  bind_text(&t, c->config);
  bind_text(&t, c->data_hash);
  bind_text(&t, c->model_hash);
  bind_text(&t, m->id);
  bind_int(&t, build);
  bind_int(&t, c->started_utc_ms);
  bind_int(&t, c->wall_ms);
  const int rc = step_done(&t, "storing a cell", e);
  finish(&t);
  return rc;
}

static int put_metrics(store *s, const store_cell *c, int64_t id, int timed, ice_err *e) {
  statement t;
  int rc = ICE_OK;
  ICE_TRY(prepare(s, &t, "INSERT INTO metric VALUES (?1, ?2, ?3, ?4, ?5)", e));
  for (int i = 0; rc == ICE_OK && i < c->n_metrics; i++) {
    const store_metric *v = c->metric + i;
    if (!isfinite(v->value) || (!timed && is_time(v->name))) continue;
    bind_int(&t, id);
    bind_text(&t, v->name);
    bind_real(&t, v->value);
    bind_real(&t, v->lo);
    bind_real(&t, v->hi);
    rc = step_done(&t, "storing a metric", e);
  }
  finish(&t);
  return rc;
}

static int put_samples(store *s, const store_cell *c, int64_t id, ice_err *e) {
  statement t;
  int rc = ICE_OK;
  ICE_TRY(prepare(s, &t, "INSERT INTO sample VALUES (?1, ?2, ?3, ?4, ?5)", e));
  for (int i = 0; rc == ICE_OK && i < c->n_samples; i++) {
    const store_sample *v = c->sample + i;
    bind_int(&t, id);
    bind_text(&t, v->method);
    bind_text(&t, v->phase);
    bind_int(&t, v->round);
    bind_int(&t, v->ns);
    rc = step_done(&t, "storing a sample", e);
  }
  finish(&t);
  return rc;
}

static int put_predictions(store *s, const store_cell *c, int64_t id, ice_err *e) {
  if (c->n_predictions == 0) return ICE_OK;
  const size_t bytes = (size_t)c->n_predictions * 12;
  uint8_t *blob = malloc(bytes), *at = blob;
  if (!blob) return ice_fail(e, ICE_INTERNAL, "out of memory");
  for (int i = 0; i < c->n_predictions; i++) {
    const uint32_t triple[3] = {(uint32_t)c->prediction[i].item, (uint32_t)c->prediction[i].expected, (uint32_t)c->prediction[i].predicted};
    for (int k = 0; k < 3; k++)
      for (int shift = 0; shift < 32; shift += 8) *at++ = (uint8_t)(triple[k] >> shift);
  }
  statement t;
  int rc = prepare(s, &t, "INSERT INTO prediction VALUES (?1, ?2, ?3)", e);
  if (rc == ICE_OK) {
    bind_int(&t, id);
    bind_int(&t, c->n_predictions);
    t.bad |= sqlite3_bind_blob64(t.st, t.next++, blob, bytes, SQLITE_STATIC);
    rc = step_done(&t, "storing predictions", e);
    finish(&t);
  }
  free(blob);
  return rc;
}

static int put_all(store *s, const store_cell *c, int force, ice_err *e) {
  const machine_facts *m = machine_get();
  int64_t build = 0, attempt = 1;
  ICE_TRY(put_machine(s, m, e));
  ICE_TRY(put_build(s, m, &build, e));
  ICE_TRY(retire(s, c, force, &attempt, e));
  ICE_TRY(put_row(s, c, attempt, m, build, e));
  const int64_t id = sqlite3_last_insert_rowid(s->db);
  ICE_TRY(put_metrics(s, c, id, may_time(m), e));
  if (may_time(m)) ICE_TRY(put_samples(s, c, id, e));
  return put_predictions(s, c, id, e);
}

int store_put(store *s, const store_cell *c, int force, ice_err *e) {
  ICE_TRY(execute(s, "BEGIN IMMEDIATE", "locking", e));
  int rc = put_all(s, c, force, e);
  if (rc == ICE_OK) rc = execute(s, "COMMIT", "storing a cell", e);
  if (rc != ICE_OK) (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
  return rc;
}
