/* compare_side.c - see compare_side.h */
#include "harness/compare_side.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/store_digest.h"

/* ---- What is meant. */

typedef struct selection {
  char db[4096];
  char commit[65], experiment[256]; /* "": not asked for */
} selection;

static int is_commit(const char *s) {
  const size_t n = strlen(s);
  return n >= 4 && n <= 64 && strspn(s, "0123456789abcdef") == n;
}

/* The commit of HEAD, or where it left a branch (`git merge-base HEAD BRANCH`): no shell, and no option that a name could
 * become. */
static int ask_git(const char *branch, char *out, size_t size, ice_err *e) {
  int pipes[2], status = -1;
  size_t n = 0;
  if (branch && *branch == '-') return ice_fail(e, ICE_USAGE, "merge-base:%s: not the name of a branch", branch);
  if (pipe(pipes)) return ice_fail(e, ICE_INTERNAL, "git: %s", strerror(errno));
  (void)fflush(NULL);
  const pid_t child = fork();
  if (child == 0) {
    const int null = open("/dev/null", O_WRONLY | O_CLOEXEC); /* what git has to say is in the line below */
    (void)dup2(pipes[1], STDOUT_FILENO);
    if (null >= 0) (void)dup2(null, STDERR_FILENO);
    (void)close(pipes[0]);
    if (branch) (void)execlp("git", "git", "merge-base", "HEAD", branch, (char *)NULL);
    else (void)execlp("git", "git", "rev-parse", "HEAD", (char *)NULL);
    _exit(127);
  }
  (void)close(pipes[1]);
  for (ssize_t got; n + 1 < size && (got = read(pipes[0], out + n, size - 1 - n)) > 0;) n += (size_t)got;
  (void)close(pipes[0]);
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  out[n] = '\0';
  out[strcspn(out, "\n")] = '\0';
  if (status == 0 && is_commit(out)) return ICE_OK;
  if (!branch) return ice_fail(e, ICE_NO_VERDICT, "HEAD: this folder is in no git repository with a commit");
  return ice_fail(e, ICE_NO_VERDICT, "merge-base:%s: git knows no common commit of HEAD and %s (a shallow clone? fetch its history)", branch, branch);
}

static int choose_what(const char *what, selection *s, ice_err *e) {
  static const char word[] = "merge-base";
  if (!strcmp(what, "HEAD")) return ask_git(NULL, s->commit, sizeof s->commit, e);
  if (!strncmp(what, word, sizeof word - 1) && (what[sizeof word - 1] == '\0' || what[sizeof word - 1] == ':'))
    return ask_git(what[sizeof word - 1] ? what + sizeof word : "main", s->commit, sizeof s->commit, e);
  const int written = is_commit(what) ? snprintf(s->commit, sizeof s->commit, "%s", what) : snprintf(s->experiment, sizeof s->experiment, "%s", what);
  if (!*what || written >= (int)sizeof s->experiment) return ice_fail(e, ICE_USAGE, "'%.200s': expected a database, a commit or an experiment", what);
  return ICE_OK;
}

static int choose(const char *spec, const char *db, selection *s, ice_err *e) {
  struct stat st;
  const char *hash = strrchr(spec, '#');
  const int is_file = stat(spec, &st) == 0 || (!hash && (strchr(spec, '/') || (strlen(spec) > 3 && !strcmp(spec + strlen(spec) - 3, ".db"))));
  *s = (selection){0};
  if (strlen(spec) >= sizeof s->db || strlen(db) >= sizeof s->db) return ice_fail(e, ICE_USAGE, "a name of more than %zu bytes", sizeof s->db);
  (void)snprintf(s->db, sizeof s->db, "%s", is_file ? spec : db);
  if (is_file) return ICE_OK;
  if (hash && hash > spec) (void)snprintf(s->db, sizeof s->db, "%.*s", (int)(hash - spec), spec);
  return choose_what(hash ? hash + 1 : spec, s, e);
}

/* ---- Rows. */

static const char rows_sql[] =
    "SELECT a.id, a.task, a.model, a.method, a.params, a.seed, a.n, a.heads, a.head_dim, a.layers, a.causal, a.threads, a.isa, a.examples,"
    " a.partial, a.data_hash, a.model_hash, m.timed_inputs,"
    " CASE WHEN json_valid(a.config) THEN json_extract(a.config, '$.padding') END AS padding,"
    " a.experiment, CASE WHEN a.noise IS NULL OR a.status <> 'ok' THEN a.status ELSE 'invalid-noise' END AS status, coalesce(a.noise, a.reason) AS reason, a.label, a.method_version, a.digest, a.machine_id, a.build_id, k.cpu, b.git_commit, b.git_dirty,"
    " strftime('%Y-%m-%dT%H:%M:%SZ', a.started_utc_ms / 1000, 'unixepoch') AS created_utc,"
    " m.accuracy, m.accuracy_lo, m.accuracy_hi, m.attention_ns, m.attention_ns_lo, m.attention_ns_hi, m.l2_error, m.rel_l2_error, m.mass,"
    " m.recall, m.pairs, m.peak_bytes, m.speedup_vanilla, m.speedup_dense,"
    " (SELECT value FROM metric t WHERE t.cell_id = a.id AND t.name = 'twin_instructions') AS twin_instructions,"
    " (SELECT group_concat(ns, ' ') FROM (SELECT ns FROM sample s WHERE s.cell_id = a.id AND s.method = a.method AND s.phase = 'attention'"
    "   ORDER BY round)) AS samples,"
    " (SELECT group_concat(n, ' ') FROM (SELECT count(*) AS n FROM sample s WHERE s.cell_id = a.id AND s.method = a.method AND s.phase = 'attention'"
    "   GROUP BY round / 1000 ORDER BY round / 1000)) AS processes," /* STORE_PROCESS */
    " " ITEMS_COLUMNS("a.id") " "
    "FROM attempt a JOIN build b ON b.id = a.build_id JOIN machine k ON k.id = a.machine_id LEFT JOIN metrics m ON m.cell_id = a.id "
    "WHERE (?1 = '' OR substr(b.git_commit, 1, length(?1)) = ?1) AND (?2 = '' OR a.experiment = ?2) "
    "AND a.experiment <> 'bench-gate' " /* its rows are ratios of two sides already */
    "ORDER BY a.task, a.model, a.method, a.params, a.seed, a.n, a.heads, a.head_dim, a.layers, a.causal, a.threads, a.isa, a.examples,"
    " a.partial, a.data_hash, a.model_hash, m.timed_inputs, padding, (a.replaced_utc_ms IS NULL OR ?1 <> ''), a.id";
_Static_assert(STORE_PROCESS == 1000, "rows_sql has the number");
/* What was asked for; then what only a cell that came to its end knows. */
static const char *const identity[] = {"task",    "model",     "method",     "params",  "seed", "heads",  "head_dim", "layers",      "threads", "isa",
                                       "partial", "data_hash", "model_hash", "padding", "n",    "causal", "examples", "timed_inputs"};
enum { IDENTITY = sizeof identity / sizeof *identity, ASKED = IDENTITY - 4 };

double compare_value(const compare_side *s, const compare_cell *c, const char *column) { return report_rows_value(&s->rows, c->row, column); }
const char *compare_text(const compare_side *s, const compare_cell *c, const char *column) { return report_rows_text(&s->rows, c->row, column); }

static const char *text_or(const report_rows *r, int row, const char *column, const char *otherwise) {
  const char *t = report_rows_text(r, row, column);
  return t ? t : otherwise;
}

static int same_text(const report_rows *r, int a, int b, const char *column) {
  return !strcmp(text_or(r, a, column, "\x01"), text_or(r, b, column, "\x01"));
}

static int same_cell(const report_rows *r, int a, int b) {
  for (int i = 0; i < IDENTITY; i++)
    if (!same_text(r, a, b, identity[i])) return 0;
  return 1;
}

/* "task|model|...": columns between bars; a bar inside a name cannot make two cells one, since lengths stand before it. */
static int identify(const report_rows *r, int row, compare_cell *c) {
  size_t size = 1, at = 0;
  for (int i = 0; i < IDENTITY; i++) size += strlen(text_or(r, row, identity[i], "?")) + 24;
  c->identity = malloc(size);
  for (int i = 0; c->identity && i < IDENTITY; i++) {
    const char *t = text_or(r, row, identity[i], "?");
    at += (size_t)snprintf(c->identity + at, size - at, "%zu:%s|", strlen(t), t);
    if (i + 1 == ASKED) c->asked = at;
  }
  return c->identity != NULL;
}

/* ---- Rows that contradict themselves. */

static int contradiction(const compare_side *s, int row, ice_err *e, const char *what) {
  return ice_fail(e, ICE_DB, "%s: row %s (%s on %s) was edited or is damaged: %s; measure it anew with icebench run --force", s->name,
                  text_or(&s->rows, row, "id", "?"), text_or(&s->rows, row, "method", "?"), text_or(&s->rows, row, "task", "?"), what);
}

static int check_numbers(const compare_side *s, int row, ice_err *e) {
  static const struct {
    const char *column;
    double least, most;
  } range[] = {{"accuracy", 0, 1},     {"accuracy_lo", 0, 1}, {"accuracy_hi", 0, 1},       {"attention_ns", 0, 1e18}, {"l2_error", 0, 1e30},
               {"rel_l2_error", 0, 1e30}, {"peak_bytes", 0, 1e18}, {"twin_instructions", 1, 1e18}, {"timed_inputs", 1, 1e9}};
  for (size_t i = 0; i < sizeof range / sizeof *range; i++) {
    const char *text = report_rows_text(&s->rows, row, range[i].column);
    const double v = report_rows_value(&s->rows, row, range[i].column);
    char what[160];
    (void)snprintf(what, sizeof what, "%s = %.40s, possible %g..%g", range[i].column, text ? text : "", range[i].least, range[i].most);
    if (text && !(v >= range[i].least && v <= range[i].most)) return contradiction(s, row, e, what);
  }
  return ICE_OK;
}

static int check_digest(const compare_side *s, store *db, int row, ice_err *e) {
  const char *stored = report_rows_text(&s->rows, row, "digest");
  char now[STORE_DIGEST];
  if (!stored) return ICE_OK; /* older than digests */
  ICE_TRY(store_digest(db, strtoll(text_or(&s->rows, row, "id", "0"), NULL, 10), now, e));
  return strcmp(stored, now) ? contradiction(s, row, e, "it does not fit its digest") : ICE_OK;
}

/* ---- Samples. */

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for the cells of a comparison"); }

/* Appends how many samples each process of a row has, n in all. */
static int add_processes(compare_cell *c, const char *text, size_t n, ice_err *e) {
  size_t *runs = realloc(c->runs, (c->n_runs + strlen(text) / 2 + 1) * sizeof *runs);
  if (!runs) return no_memory(e);
  c->runs = runs;
  for (char *end; *text && n > 0; text = *end ? end + 1 : end) {
    const size_t size = (size_t)strtoll(text, &end, 10);
    runs[c->n_runs++] = size < n ? size : n;
    n -= runs[c->n_runs - 1];
  }
  return ICE_OK;
}

/* Appends the samples of a row. They must be positive and have the median that the row claims. */
static int add_samples(const compare_side *s, compare_cell *c, int row, ice_err *e) {
  const char *text = report_rows_text(&s->rows, row, "samples");
  if (!text) return ICE_OK;
  const size_t most = strlen(text) / 2 + 1;
  double *grown = realloc(c->ns, (c->n_ns + most) * sizeof *grown);
  if (!grown) return no_memory(e);
  c->ns = grown;
  double *sorted = malloc(most * sizeof *sorted);
  if (!sorted) return no_memory(e);
  size_t n = 0;
  int rc = ICE_OK;
  for (char *end; *text && n < most; text = *end ? end + 1 : end, n++) {
    sorted[n] = c->ns[c->n_ns + n] = (double)strtoll(text, &end, 10);
    if (sorted[n] <= 0) rc = contradiction(s, row, e, "a sample of no time");
  }
  const double claimed = report_rows_value(&s->rows, row, "attention_ns"), median = stats_median(sorted, n);
  if (rc == ICE_OK && !(fabs(claimed - median) <= 1.0 + 1e-9 * median)) rc = contradiction(s, row, e, "attention_ns is not the median of its samples");
  free(sorted);
  if (rc == ICE_OK) rc = add_processes(c, text_or(&s->rows, row, "processes", ""), n, e);
  c->n_ns += n;
  return rc;
}

/* Rows [from, to) are of one cell, the last of them counts. */
static int read_cell(compare_side *s, store *db, int from, int to, ice_err *e) {
  compare_cell *c = s->cell + s->n++;
  const report_rows *r = &s->rows;
  *c = (compare_cell){.row = to - 1};
  if (!identify(r, to - 1, c)) return no_memory(e);
  for (int row = from; row < to; row++) {
    const int repetition = same_text(r, row, c->row, "build_id") && same_text(r, row, c->row, "machine_id") && same_text(r, row, c->row, "label") &&
                           !strcmp(text_or(r, row, "status", ""), "ok");
    if (row != c->row && !repetition) continue;
    ICE_TRY(check_numbers(s, row, e));
    ICE_TRY(check_digest(s, db, row, e));
    if (repetition) ICE_TRY(add_samples(s, c, row, e));
  }
  return items_read(report_rows_text(r, c->row, "predictions"), report_rows_text(r, c->row, "marks"), &c->items, e);
}

static int read_cells(compare_side *s, store *db, ice_err *e) {
  s->cell = calloc((size_t)s->rows.n + 1, sizeof *s->cell);
  if (!s->cell) return no_memory(e);
  for (int from = 0, to; from < s->rows.n; from = to) {
    for (to = from + 1; to < s->rows.n && same_cell(&s->rows, from, to);) to++;
    ICE_TRY(read_cell(s, db, from, to, e));
  }
  char text[256];
  if (report_rows_distinct(&s->rows, 0, s->rows.n, "git_commit", text, sizeof text) == 1) (void)snprintf(s->commit, sizeof s->commit, "%.63s", text);
  return ICE_OK;
}

int compare_side_read(const char *spec, const char *db, compare_side *out, ice_err *e) {
  selection what;
  store *s;
  *out = (compare_side){0};
  (void)snprintf(out->name, sizeof out->name, "%s", spec);
  ICE_TRY(choose(spec, db, &what, e));
  ICE_TRY(store_open(what.db, STORE_READ, &s, e));
  const char *const bind[] = {what.commit, what.experiment};
  int rc = report_rows_select(s, rows_sql, bind, 2, &out->rows, e);
  if (rc == ICE_OK) rc = report_rows_select(s, "SELECT * FROM noise_floor ORDER BY created_utc_ms DESC, id DESC", NULL, 0, &out->floor, e);
  if (rc == ICE_OK) rc = read_cells(out, s, e);
  if (rc == ICE_OK && !out->n && (*what.commit || *what.experiment))
    rc = ice_fail(e, ICE_NO_VERDICT, "%s: no row of %s %s in %s; icebench report --db %.200s shows what there is", spec,
                  *what.commit ? "commit" : "experiment", *what.commit ? what.commit : what.experiment, what.db, what.db);
  store_close(s);
  if (rc != ICE_OK) compare_side_free(out);
  return rc;
}

void compare_side_free(compare_side *s) {
  for (int i = 0; i < s->n; i++) {
    free(s->cell[i].identity);
    free(s->cell[i].ns);
    free(s->cell[i].runs);
    items_free(&s->cell[i].items);
  }
  free(s->cell);
  report_rows_free(&s->rows);
  report_rows_free(&s->floor);
  *s = (compare_side){0};
}
