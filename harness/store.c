/* store.c - see store.h. The connection and its faults: store_db.h.
 *
 * Timings  A build with assertions or sanitizers measures itself, so such builds store no times unless
 *          ICEBENCH_ALLOW_DEBUG=1; the row's label says what was left out. */
#include "harness/store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/machine.h"
#include "harness/store_db.h"
#include "harness/store_digest.h"
#include "kernels/core/clock.h"

/* --- reading ------------------------------------------------------------------------------------------------------- */

int store_has(store *s, const char *key, int any_status, int *finished, ice_err *e) {
  store_statement t;
  *finished = 0;
  ICE_TRY(store_prepare(s, &t, "SELECT 1 FROM cell WHERE key = ?1 AND noise IS NULL AND (?2 OR status IN ('ok', 'unsupported', 'skipped'))", e));
  store_bind_text(&t, key);
  store_bind_int(&t, any_status);
  const int got = sqlite3_step(t.st), rc = got == SQLITE_ROW || got == SQLITE_DONE ? ICE_OK : store_fail(s, "reading", e);
  *finished = got == SQLITE_ROW;
  store_finish(&t);
  return rc;
}

int store_query(store *s, const char *sql, const char *const *bind, int n_bind,
                int (*row)(void *ctx, int columns, char **names, char **values), void *ctx, ice_err *e) {
  enum { MOST = 128 };
  store_statement t;
  char *names[MOST], *values[MOST];
  ICE_TRY(store_prepare(s, &t, sql, e));
  const int columns = sqlite3_column_count(t.st);
  int rc = columns <= MOST && sqlite3_stmt_readonly(t.st) ? ICE_OK : ice_fail(e, ICE_USAGE, "a query must be a SELECT of at most %d columns", MOST);
  for (int i = 0; i < n_bind; i++) store_bind_text(&t, bind[i]);
  for (int i = 0; rc == ICE_OK && i < columns; i++) names[i] = (char *)(uintptr_t)sqlite3_column_name(t.st, i);
  while (rc == ICE_OK) {
    const int got = sqlite3_step(t.st);
    if (got == SQLITE_DONE) break;
    if (got != SQLITE_ROW) rc = store_fail(s, "reading", e);
    for (int i = 0; rc == ICE_OK && i < columns; i++) values[i] = (char *)(uintptr_t)sqlite3_column_text(t.st, i);
    if (rc == ICE_OK && row(ctx, columns, names, values)) break;
  }
  store_finish(&t);
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
  store_statement t;
  ICE_TRY(store_prepare(s, &t, "INSERT OR IGNORE INTO machine (id, cpu, caches, cores, memory_bytes, os) VALUES (?1, ?2, ?3, ?4, ?5, ?6)", e));
  store_bind_text(&t, m->id);
  store_bind_text(&t, m->cpu);
  store_bind_text(&t, m->caches);
  store_bind_int(&t, m->cores);
  store_bind_int(&t, m->memory_bytes);
  store_bind_text(&t, m->os);
  const int rc = store_step(&t, "storing the machine", e);
  store_finish(&t);
  return rc;
}

static void bind_build(store_statement *t, const machine_facts *m) {
  store_bind_text(t, m->version);
  store_bind_text(t, m->git_commit);
  store_bind_int(t, m->git_dirty);
  store_bind_text(t, m->git_diff);
  store_bind_text(t, m->variant);
  store_bind_text(t, m->compiler);
  store_bind_text(t, m->cflags);
  store_bind_text(t, m->blas);
}

static int put_build(store *s, const machine_facts *m, int64_t *id, ice_err *e) {
  store_statement t;
  ICE_TRY(store_prepare(s, &t,
                  "INSERT OR IGNORE INTO build (version, git_commit, git_dirty, git_diff, variant, compiler, cflags, blas) VALUES "
                        "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", e));
  bind_build(&t, m);
  int rc = store_step(&t, "storing the build", e);
  store_finish(&t);
  if (rc != ICE_OK) return rc;
  ICE_TRY(store_prepare(s, &t,
                  "SELECT id FROM build WHERE version = ?1 AND git_commit = ?2 AND git_dirty = ?3 AND git_diff = ?4 AND variant = ?5 AND "
                        "compiler = ?6 AND cflags = ?7 AND blas = ?8", e));
  bind_build(&t, m);
  if (sqlite3_step(t.st) == SQLITE_ROW) *id = sqlite3_column_int64(t.st, 0);
  else rc = store_fail(s, "storing the build", e);
  store_finish(&t);
  return rc;
}

/* Marks an older row of this key as replaced and tells the number of the new attempt. */
static int retire(store *s, const store_cell *c, int force, int64_t *attempt, ice_err *e) {
  store_statement t;
  int finished;
  ICE_TRY(store_has(s, c->key, 0, &finished, e));
  if (finished && !force) return ice_fail(e, ICE_INTERNAL, "%s: cell %s is already finished", s->path, c->key);
  ICE_TRY(store_prepare(s, &t, "SELECT coalesce(max(attempt), 0) + 1 FROM attempt WHERE key = ?1", e));
  store_bind_text(&t, c->key);
  int rc = sqlite3_step(t.st) == SQLITE_ROW ? ICE_OK : store_fail(s, "reading", e);
  *attempt = sqlite3_column_int64(t.st, 0);
  store_finish(&t);
  if (rc != ICE_OK) return rc;
  ICE_TRY(store_prepare(s, &t, "UPDATE attempt SET replaced_utc_ms = ?2 WHERE key = ?1 AND replaced_utc_ms IS NULL", e));
  store_bind_text(&t, c->key);
  store_bind_int(&t, attn_utc_ms());
  rc = store_step(&t, "replacing a row", e);
  store_finish(&t);
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
  store_statement t;
  char seed[32];
  (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)c->seed);
  ICE_TRY(store_prepare(s, &t,
                  "INSERT INTO attempt (key, attempt, experiment, task, model, method, method_version, params, seed, n, heads, head_dim, layers, "
                  "causal, threads, isa, examples, partial, status, reason, label, config, data_hash, model_hash, machine_id, build_id, "
                  "started_utc_ms, wall_ms, kernel, environment, noise) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,"
                  "?19,?20,?21,?22,?23,?24,?25,?26,?27,?28,?29,?30,?31)", e));
  char *label = label_of(c, m);
  store_bind_text(&t, c->key);
  store_bind_int(&t, attempt);
  const char *const names[] = {c->experiment, c->task, c->model, c->method, c->method_version, c->params, seed};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) store_bind_text(&t, names[i]);
  store_bind_known(&t, c->n);
  store_bind_known(&t, c->heads);
  store_bind_known(&t, c->head_dim);
  store_bind_known(&t, c->layers);
  store_bind_int(&t, c->causal);
  store_bind_int(&t, c->threads);
  store_bind_text(&t, c->isa);
  store_bind_known(&t, c->examples);
  store_bind_int(&t, c->partial);
  store_bind_text(&t, c->status);
  store_bind_text(&t, c->reason);
  t.bad |= label ? SQLITE_OK : SQLITE_NOMEM;
  store_bind_text(&t, label && *label ? label : NULL);
  sqlite3_free(label);
  store_bind_text(&t, c->config);
  store_bind_text(&t, c->data_hash);
  store_bind_text(&t, c->model_hash);
  store_bind_text(&t, m->id);
  store_bind_int(&t, build);
  store_bind_int(&t, c->started_utc_ms);
  store_bind_int(&t, c->wall_ms);
  store_bind_text(&t, m->os);
  store_bind_text(&t, m->environment);
  store_bind_text(&t, c->noise);
  const int rc = store_step(&t, "storing a cell", e);
  store_finish(&t);
  return rc;
}

static int put_metrics(store *s, const store_cell *c, int64_t id, int timed, ice_err *e) {
  store_statement t;
  int rc = ICE_OK;
  ICE_TRY(store_prepare(s, &t, "INSERT INTO metric VALUES (?1, ?2, ?3, ?4, ?5)", e));
  for (int i = 0; rc == ICE_OK && i < c->n_metrics; i++) {
    const store_metric *v = c->metric + i;
    if (!isfinite(v->value) || (!timed && is_time(v->name))) continue;
    store_bind_int(&t, id);
    store_bind_text(&t, v->name);
    store_bind_real(&t, v->value);
    store_bind_real(&t, v->lo);
    store_bind_real(&t, v->hi);
    rc = store_step(&t, "storing a metric", e);
  }
  store_finish(&t);
  return rc;
}

static int put_samples(store *s, const store_cell *c, int64_t id, ice_err *e) {
  store_statement t;
  int rc = ICE_OK;
  ICE_TRY(store_prepare(s, &t, "INSERT INTO sample VALUES (?1, ?2, ?3, ?4, ?5)", e));
  for (int i = 0; rc == ICE_OK && i < c->n_samples; i++) {
    const store_sample *v = c->sample + i;
    store_bind_int(&t, id);
    store_bind_text(&t, v->method);
    store_bind_text(&t, v->phase);
    store_bind_int(&t, v->round);
    store_bind_int(&t, v->ns);
    rc = store_step(&t, "storing a sample", e);
  }
  store_finish(&t);
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
  store_statement t;
  int rc = store_prepare(s, &t, "INSERT INTO prediction VALUES (?1, ?2, ?3)", e);
  if (rc == ICE_OK) {
    store_bind_int(&t, id);
    store_bind_int(&t, c->n_predictions);
    t.bad |= sqlite3_bind_blob64(t.st, t.next++, blob, bytes, SQLITE_STATIC);
    rc = store_step(&t, "storing predictions", e);
    store_finish(&t);
  }
  free(blob);
  return rc;
}

static int put_answers(store *s, const store_cell *c, int64_t id, ice_err *e) {
  store_statement t;
  int rc = ICE_OK;
  ICE_TRY(store_prepare(s, &t, "INSERT INTO answer (cell_id, item, id, text, expected, tokens, cut, mark) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", e));
  for (int i = 0; rc == ICE_OK && i < c->n_answers; i++) {
    const store_answer *a = c->answer + i;
    store_bind_int(&t, id);
    store_bind_int(&t, a->item);
    store_bind_text(&t, a->id);
    store_bind_text(&t, a->text);
    store_bind_text(&t, a->expected);
    store_bind_int(&t, a->tokens);
    store_bind_int(&t, a->cut);
    store_bind_real(&t, a->mark);
    rc = store_step(&t, "storing an answer", e);
  }
  store_finish(&t);
  return rc;
}

/* Last, when all that belongs to the row is there. */
static int put_digest(store *s, int64_t id, ice_err *e) {
  char digest[STORE_DIGEST];
  store_statement t;
  ICE_TRY(store_digest(s, id, digest, e));
  ICE_TRY(store_prepare(s, &t, "UPDATE attempt SET digest = ?1 WHERE id = ?2", e));
  store_bind_text(&t, digest);
  store_bind_int(&t, id);
  const int rc = store_step(&t, "storing a digest", e);
  store_finish(&t);
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
  ICE_TRY(put_predictions(s, c, id, e));
  ICE_TRY(put_answers(s, c, id, e));
  return put_digest(s, id, e);
}

int store_put(store *s, const store_cell *c, int force, ice_err *e) {
  ICE_TRY(store_execute(s, "BEGIN IMMEDIATE", "locking", e));
  int rc = put_all(s, c, force, e);
  if (rc == ICE_OK) rc = store_execute(s, "COMMIT", "storing a cell", e);
  if (rc != ICE_OK) (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
  return rc;
}

/* --- marks ---------------------------------------------------------------------------------------------------------- */

static int remark_metric(store *s, int64_t id, const store_metric *m, ice_err *e) {
  const store_cell one = {.metric = m, .n_metrics = 1};
  store_statement t;
  ICE_TRY(store_prepare(s, &t, "DELETE FROM metric WHERE cell_id = ?1 AND name = ?2", e));
  store_bind_int(&t, id);
  store_bind_text(&t, m->name);
  const int rc = store_step(&t, "replacing a metric", e);
  store_finish(&t);
  return rc == ICE_OK ? put_metrics(s, &one, id, 1, e) : rc;
}

static int remark_answers(store *s, int64_t id, const store_answer *answer, int n, ice_err *e) {
  store_statement t;
  int rc = ICE_OK;
  ICE_TRY(store_prepare(s, &t, "UPDATE answer SET mark = ?1 WHERE cell_id = ?2 AND item = ?3", e));
  for (int i = 0; rc == ICE_OK && i < n; i++) {
    store_bind_real(&t, answer[i].mark);
    store_bind_int(&t, id);
    store_bind_int(&t, answer[i].item);
    rc = store_step(&t, "marking an answer", e);
  }
  store_finish(&t);
  return rc;
}

int store_remark(store *s, int64_t id, const store_metric *metric, int n_metrics, const store_answer *answer, int n_answers, ice_err *e) {
  int rc = store_execute(s, "BEGIN IMMEDIATE", "locking", e);
  if (rc != ICE_OK) return rc;
  for (int i = 0; rc == ICE_OK && i < n_metrics; i++) rc = remark_metric(s, id, metric + i, e);
  if (rc == ICE_OK) rc = remark_answers(s, id, answer, n_answers, e);
  if (rc == ICE_OK) rc = put_digest(s, id, e);
  if (rc == ICE_OK) rc = store_execute(s, "COMMIT", "storing marks", e);
  if (rc != ICE_OK) (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
  return rc;
}

/* --- noise floors --------------------------------------------------------------------------------------------------- */

static int put_noise(store *s, const store_noise *n, ice_err *e) {
  const machine_facts *m = machine_get();
  store_statement t;
  int64_t build = 0;
  ICE_TRY(put_machine(s, m, e));
  ICE_TRY(put_build(s, m, &build, e));
  ICE_TRY(store_prepare(s, &t,
                        "INSERT INTO noise_floor (machine_id, build_id, created_utc_ms, task, model, method, params, threads, isa, rounds, runs, rate, "
                        "floor, power) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)", e));
  store_bind_text(&t, m->id);
  store_bind_int(&t, build);
  store_bind_int(&t, attn_utc_ms());
  const char *const names[] = {n->task, n->model, n->method, n->params};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) store_bind_text(&t, names[i]);
  store_bind_int(&t, n->threads);
  store_bind_text(&t, n->isa);
  store_bind_int(&t, n->rounds);
  store_bind_int(&t, n->runs);
  store_bind_real(&t, n->rate);
  store_bind_real(&t, n->floor);
  store_bind_text(&t, n->power);
  const int rc = store_step(&t, "storing a noise floor", e);
  store_finish(&t);
  return rc;
}

int store_put_noise(store *s, const store_noise *n, ice_err *e) {
  ICE_TRY(store_execute(s, "BEGIN IMMEDIATE", "locking", e));
  int rc = put_noise(s, n, e);
  if (rc == ICE_OK) rc = store_execute(s, "COMMIT", "storing a noise floor", e);
  if (rc != ICE_OK) (void)store_execute(s, "ROLLBACK", "undoing", NULL);
  return rc;
}
