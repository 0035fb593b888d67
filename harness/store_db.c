/* store_db.c - see store_db.h.
 *
 * Journal  Write-ahead log while open for writing: a reader (report) never waits for the writer (run), and a kill at any
 *          moment leaves the last transaction whole or absent. synchronous = FULL and a checkpoint after every transaction,
 *          since a cell costs minutes and a sync milliseconds: even after a kill the file alone holds all but the last cell.
 *          The last writer to close turns the file back into a plain one, readable in read-only folders. On file systems
 *          of other machines there is no write-ahead log. */
#include "harness/store_db.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#include "harness/sql.h"
#include "kernels/core/clock.h"
#include "kernels/core/fileio.h"

int store_patience_ms = 10000;

/* --- errors ------------------------------------------------------------------------------------------------------- */

int store_fail(const store *s, const char *doing, ice_err *e) {
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

int store_execute(store *s, const char *sql, const char *doing, ice_err *e) {
  return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? ICE_OK : store_fail(s, doing, e);
}

/* --- statements: prepare, bind in order, step ------------------------------------------------------------------------ */

int store_prepare(store *s, store_statement *t, const char *sql, ice_err *e) {
  *t = (store_statement){.s = s, .next = 1};
  return sqlite3_prepare_v2(s->db, sql, -1, &t->st, NULL) == SQLITE_OK ? ICE_OK : store_fail(s, "reading", e);
}
void store_bind_text(store_statement *t, const char *v) { /* NULL is NULL */
  t->bad |= v ? sqlite3_bind_text(t->st, t->next, v, -1, SQLITE_TRANSIENT) : sqlite3_bind_null(t->st, t->next);
  t->next++;
}
void store_bind_int(store_statement *t, int64_t v) { t->bad |= sqlite3_bind_int64(t->st, t->next++, v); }
void store_bind_known(store_statement *t, int64_t v) { /* 0 is unknown */
  t->bad |= v ? sqlite3_bind_int64(t->st, t->next, v) : sqlite3_bind_null(t->st, t->next);
  t->next++;
}
void store_bind_real(store_statement *t, double v) {
  t->bad |= isfinite(v) ? sqlite3_bind_double(t->st, t->next, v) : sqlite3_bind_null(t->st, t->next);
  t->next++;
}
/* Runs a statement without rows and makes it ready for the next values. */
int store_step(store_statement *t, const char *doing, ice_err *e) {
  const int rc = t->bad ? SQLITE_ERROR : sqlite3_step(t->st);
  const int bad = rc != SQLITE_DONE && rc != SQLITE_ROW ? store_fail(t->s, doing, e) : ICE_OK;
  (void)sqlite3_reset(t->st);
  t->next = 1;
  return bad;
}
void store_finish(store_statement *t) { (void)sqlite3_finalize(t->st); }

/* --- open and migrate ---------------------------------------------------------------------------------------------- */

static int note_damage(void *ctx, int columns, char **values, char **names) {
  (void)columns, (void)names;
  if (strcmp(values[0], "ok")) (void)snprintf(ctx, 128, "%s", values[0]);
  return 0;
}
static int check_intact(store *s, ice_err *e) {
  char damage[128] = "";
  if (sqlite3_exec(s->db, "PRAGMA quick_check(1)", note_damage, damage, NULL) != SQLITE_OK) return store_fail(s, "checking", e);
  if (!*damage) return ICE_OK;
  return ice_fail(e, ICE_DB, "%s: it is damaged: %s (restore a copy, or salvage it with sqlite3 FILE .recover)", s->path, damage);
}

/* First number of the first row. */
int store_number(store *s, const char *sql, int64_t *out, ice_err *e) {
  store_statement t;
  ICE_TRY(store_prepare(s, &t, sql, e));
  const int rc = sqlite3_step(t.st) == SQLITE_ROW ? ICE_OK : store_fail(s, "reading", e);
  if (rc == ICE_OK) *out = sqlite3_column_int64(t.st, 0);
  store_finish(&t);
  return rc;
}

static int newest_schema(void) {
  int n = 0;
  while (store_migrations[n]) n++;
  return n;
}

static int broken_references(void *ctx, int columns, char **values, char **names) {
  (void)columns, (void)values, (void)names;
  *(int *)ctx = 1;
  return 0;
}

static int migrate_all(store *s, ice_err *e) {
  int64_t have = 0;
  int broken = 0;
  ICE_TRY(store_number(s, "PRAGMA user_version", &have, e));
  for (int v = (int)have; v < newest_schema(); v++) {
    char pragma[64];
    (void)snprintf(pragma, sizeof pragma, "PRAGMA user_version = %d", v + 1);
    ICE_TRY(store_execute(s, store_migrations[v], "migrating", e));
    ICE_TRY(store_execute(s, pragma, "migrating", e));
  }
  if (sqlite3_exec(s->db, "PRAGMA foreign_key_check", broken_references, &broken, NULL) != SQLITE_OK) return store_fail(s, "migrating", e);
  return broken ? ice_fail(e, ICE_DB, "%s: it is damaged: rows without their machine, build or cell; restore a copy", s->path) : ICE_OK;
}

/* All steps in one transaction. References are checked at its end: a step may have to make a table anew. */
static int migrate(store *s, ice_err *e) {
  ICE_TRY(store_execute(s, "PRAGMA foreign_keys = OFF", "migrating", e));
  int rc = store_execute(s, "BEGIN IMMEDIATE", "locking", e); /* two writers that start together migrate one after the other */
  if (rc == ICE_OK) {
    rc = migrate_all(s, e);
    if (rc == ICE_OK) rc = store_execute(s, "COMMIT", "migrating", e);
    if (rc != ICE_OK) (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
  }
  (void)sqlite3_exec(s->db, "PRAGMA foreign_keys = ON", NULL, NULL, NULL);
  return rc;
}

/* A database of an older schema that is only read: a copy in memory is brought up to date, the file stays as it is. */
static int read_older(store *s, ice_err *e) {
  sqlite3 *copy = NULL, *file = s->db;
  int rc = sqlite3_open(":memory:", &copy) == SQLITE_OK ? ICE_OK : ice_fail(e, ICE_INTERNAL, "%s: out of memory", s->path);
  sqlite3_backup *b = rc == ICE_OK ? sqlite3_backup_init(copy, "main", file, "main") : NULL;
  if (rc == ICE_OK && (!b || sqlite3_backup_step(b, -1) != SQLITE_DONE)) rc = store_fail(s, "reading", e);
  if (b) (void)sqlite3_backup_finish(b);
  if (rc != ICE_OK) {
    (void)sqlite3_close(copy);
    return rc;
  }
  s->db = copy;
  (void)sqlite3_close(file);
  return migrate(s, e);
}

typedef struct header { /* what a database says of itself */
  int64_t application, have, objects;
} header;

/* All of one moment: a writer that starts now may be about to create the tables. */
static int read_header(store *s, header *h, ice_err *e) {
  ICE_TRY(store_execute(s, "BEGIN", "reading", e));
  int rc = store_number(s, "PRAGMA application_id", &h->application, e);
  if (rc == ICE_OK) rc = store_number(s, "PRAGMA user_version", &h->have, e);
  if (rc == ICE_OK) rc = store_number(s, "SELECT count(*) FROM sqlite_schema", &h->objects, e);
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
  return have < newest_schema() ? read_older(s, e) : ICE_OK;
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

/* File systems of other machines, by statfs(2) and linux/magic.h. FUSE is among them: sshfs and its like cannot be told apart. */
static int is_remote(const char *path) {
  static const uint32_t remote[] = {0x6969 /* NFS */,       0x517b /* SMB */,        0xff534d42 /* CIFS */, 0xfe534d42 /* SMB 2 */,
                                    0x5346414f /* AFS */,   0x73757245 /* Coda */,   0x00c36400 /* Ceph */, 0x0bd00bd0 /* Lustre */,
                                    0x47504653 /* GPFS */,  0x19830326 /* BeeGFS */, 0x01021997 /* 9P */,   0x65735546 /* FUSE */,
                                    0x01161970 /* GFS 2 */, 0x7461636f /* OCFS 2 */, 0xaad7aaea /* PanFS */};
  struct statfs fs;
  if (statfs(path, &fs) != 0) return 0;
  for (size_t i = 0; i < sizeof remote / sizeof *remote; i++)
    if ((uint32_t)fs.f_type == remote[i]) return 1;
  return 0;
}

int (*store_is_remote)(const char *path) = is_remote;

/* Sets a journal mode. Here SQLite does not always wait for others by itself. */
static int set_journal(store *s, const char *pragma, ice_err *e) {
  const struct timespec pause = {.tv_nsec = 20000000};
  for (const int64_t until = attn_now_ns() + (int64_t)store_patience_ms * 1000000;;) {
    const int rc = sqlite3_exec(s->db, pragma, NULL, NULL, NULL) & 0xff;
    if (rc == SQLITE_OK) return ICE_OK;
    if ((rc != SQLITE_BUSY && rc != SQLITE_LOCKED) || attn_now_ns() >= until) return store_fail(s, "opening", e);
    (void)nanosleep(&pause, NULL);
  }
}

/* The write-ahead log keeps its index in memory that processes share, which those of two machines cannot
 * (https://sqlite.org/wal.html): there a rollback journal has to do, and readers wait for writers. A log that a local run
 * left behind is taken in under an exclusive lock, which needs no shared memory. */
static int begin_log(store *s, ice_err *e) {
  if (store_is_remote(s->path)) {
    ICE_TRY(store_execute(s, "PRAGMA locking_mode = EXCLUSIVE", "opening", e));
    ICE_TRY(set_journal(s, "PRAGMA journal_mode = DELETE", e));
    return store_execute(s, "PRAGMA locking_mode = NORMAL; SELECT count(*) FROM sqlite_schema", "opening", e);
  }
  ICE_TRY(set_journal(s, "PRAGMA journal_mode = WAL", e));
  return store_execute(s, "PRAGMA wal_autocheckpoint = 1", "opening", e);
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
  if (sqlite3_open_v2(s->path, &s->db, flags | SQLITE_OPEN_EXRESCODE, NULL) != SQLITE_OK) return store_fail(s, "opening", e);
  (void)sqlite3_busy_timeout(s->db, store_patience_ms);
  (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
  ICE_TRY(store_execute(s, "PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL", "opening", e));
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
