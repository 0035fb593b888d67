/* report_paper.c - see report_paper.h */
#include "harness/report_paper.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/label.h"
#include "harness/number.h"
#include "harness/registry/registry.h"
#include "kernels/core/fileio.h"

enum { FIELDS = 7 };
static const char header[] = "task,method,model,metric,value,error,source";
static const stats_interval unknown = {NAN, NAN, NAN};

/* --- reading -------------------------------------------------------------------------------------------------------- */

int report_paper_files(char **out, ice_err *e) {
  static const char *const name[] = {"claims", "latency", "accuracy", "memory"};
  size_t n = 0;
  FILE *f = open_memstream(out, &n);
  if (!f) return ice_fail(e, ICE_INTERNAL, "out of memory");
  int rc = ICE_OK;
  for (int i = 0; i < 4 && rc == ICE_OK; i++) {
    char path[PATH_MAX];
    file_map map;
    if (snprintf(path, sizeof path, "%s/results/paper/lra-%s.csv", cli_share_dir(), name[i]) >= PATH_MAX)
      rc = ice_fail(e, ICE_INTERNAL, "path of the published values is too long");
    if (rc == ICE_OK) rc = file_open_map(path, 1 << 20, &map, e);
    if (rc != ICE_OK) break;
    (void)fwrite(map.p, 1, map.n, f);
    (void)fputc('\n', f);
    file_close_map(&map);
  }
  if (fclose(f) != 0 && rc == ICE_OK) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  return rc;
}

static int out_of_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for the published values"); }

static int parse_value(const char *line, size_t n, paper_value *v) {
  static const char *const metrics[] = {"attention_s", "memory_gb", "accuracy", "speedup", "retention", NULL};
  char field[FIELDS][PAPER_FIELD] = {{0}};
  int k = 0, known = 0;
  for (size_t i = 0, at = 0; i < n; i++) {
    if (line[i] == ',') {
      if (++k == FIELDS) return 0;
      at = 0;
    } else if (at + 1 < PAPER_FIELD) field[k][at++] = line[i];
    else return 0;
  }
  memcpy(v->task, field[0], PAPER_FIELD);
  memcpy(v->method, field[1], PAPER_FIELD);
  memcpy(v->model, field[2], PAPER_FIELD);
  memcpy(v->metric, field[3], PAPER_FIELD);
  memcpy(v->source, field[6], PAPER_FIELD);
  for (int i = 0; metrics[i]; i++) known |= !strcmp(v->metric, metrics[i]);
  return k == FIELDS - 1 && known && *v->task && *v->method && *v->model && *v->source && number_real(field[4], 1e-12, 1e12, &v->value) &&
         number_real(field[5], 0, 1, &v->error);
}

static int count_lines(const char *text) {
  int n = 1;
  for (; *text; text++) n += *text == '\n';
  return n;
}

int report_paper_parse(const char *text, report_paper *p, ice_err *e) {
  const int most = count_lines(text);
  int line = 0, headed = 0;
  *p = (report_paper){.value = calloc((size_t)most, sizeof *p->value), .note = calloc((size_t)most, sizeof *p->note)};
  if (!p->value || !p->note) return out_of_memory(e);
  for (size_t n; *text; text += n + (text[n] == '\n')) {
    n = strcspn(text, "\n");
    const size_t bytes = n && text[n - 1] == '\r' ? n - 1 : n;
    line++;
    if (bytes == 0) continue;
    if (*text == '#') {
      const size_t skip = bytes > 1 && text[1] == ' ' ? 2 : 1;
      if (!(p->note[p->notes++] = strndup(text + skip, bytes - skip))) return out_of_memory(e);
    } else if (bytes == sizeof header - 1 && !memcmp(text, header, bytes)) headed = 1; /* of every file */
    else if (!headed) return ice_fail(e, ICE_DATA, "published values, line %d: not the header '%s'", line, header);
    else if (!parse_value(text, bytes, p->value + p->n++))
      return ice_fail(e, ICE_DATA, "published values, line %d: '%.*s', allowed %s with a positive value and an error of 0..1", line,
                      (int)(bytes < 200 ? bytes : 200), text, header);
  }
  return ICE_OK;
}

void report_paper_free(report_paper *p) {
  for (int i = 0; i < p->notes; i++) free(p->note[i]);
  free((void *)p->note);
  free(p->value);
  *p = (report_paper){0};
}

const char *paper_outcome_text(paper_outcome o) {
  return o == PAPER_REPRODUCED ? "reproduced" : o == PAPER_DIFFERS ? "differs" : "not runnable here";
}

/* The value of vanilla that another one of the source is set against: with the same model, else with the plain one. */
static const paper_value *base_of(const report_paper *p, const paper_value *v) {
  const paper_value *plain = NULL;
  for (const paper_value *b = p->value; b < p->value + p->n; b++) {
    if (strcmp(b->task, v->task) || strcmp(b->metric, v->metric) || strcmp(b->source, v->source) || strcmp(b->method, "vanilla")) continue;
    if (!strcmp(b->model, v->model)) return b;
    if (!strcmp(b->model, "softmax")) plain = b;
  }
  return plain;
}

/* --- our rows ------------------------------------------------------------------------------------------------------- */

/* Best first: finished, of the paper's experiment, whole, new. Rows that were not trained with their method stay out. */
static const char select_rows[] =
    "SELECT c.id, c.task, c.model, c.method, c.status, c.reason, c.partial, c.examples, c.seed, "
    "coalesce(c.label, '') LIKE '%" LABEL_PADDED "%' AS padded, m.accuracy, m.accuracy_lo, m.accuracy_hi, m.attention_ns, "
    "m.attention_ns_lo, m.attention_ns_hi, m.speedup_vanilla, m.speedup_vanilla_lo, m.speedup_vanilla_hi, m.speedup_dense, "
    "m.speedup_dense_lo, m.speedup_dense_hi, m.peak_bytes, s.value AS speedup_skip, s.lo AS speedup_skip_lo, s.hi AS speedup_skip_hi "
    "FROM cell c LEFT JOIN metrics m ON m.cell_id = c.id LEFT JOIN metric s ON s.cell_id = c.id AND s.name = 'speedup_skip' "
    "WHERE c.task LIKE 'lra/%' AND (?1 IS NULL OR c.experiment = ?1) AND coalesce(c.label, '') NOT LIKE '%" LABEL_NO_RETRAINING "%' "
    "ORDER BY c.status = 'ok' DESC, c.experiment = 'paper-lra' DESC, c.partial, c.id DESC";

static int text_is(const report_rows *r, int row, const char *column, const char *want) {
  const char *text = report_rows_text(r, row, column);
  return text && !strcmp(text, want);
}

/* The best row; model by the last part of its name; padded -1: whichever. -1: none. */
static int find_row(const report_rows *r, const char *task, const char *method, const char *model, int padded) {
  for (int i = 0; i < r->n; i++) {
    const char *name = report_rows_text(r, i, "model"), *slash = name ? strrchr(name, '/') : NULL;
    if (!name || strcmp(slash ? slash + 1 : name, model) || !text_is(r, i, "task", task) || !text_is(r, i, "method", method)) continue;
    if (padded < 0 || (report_rows_value(r, i, "padded") > 0) == padded) return i;
  }
  return -1;
}
static int good(const report_rows *r, int row) { return row >= 0 && text_is(r, row, "status", "ok"); }

static stats_interval interval_of(const report_rows *r, int row, const char *name) {
  char lo[64], hi[64];
  if (row < 0) return unknown;
  (void)snprintf(lo, sizeof lo, "%s_lo", name);
  (void)snprintf(hi, sizeof hi, "%s_hi", name);
  return (stats_interval){report_rows_value(r, row, name), report_rows_value(r, row, lo), report_rows_value(r, row, hi)};
}

/* Of factors that were measured apart; no narrower than theirs. */
static stats_interval product(stats_interval a, stats_interval b) {
  return (stats_interval){a.value * b.value, a.lo * b.lo, a.hi * b.hi};
}

/* The task whose rows stand in for one that cannot be had. */
static const char *stand_in(const char *task) { return !strcmp(task, "lra/retrieval") ? "lra/retrieval-imdb" : NULL; }

/* --- retention: predictions of two rows, example by example ----------------------------------------------------------- */

static int32_t hex_int(const char *at) { /* 8 digits, little-endian */
  uint32_t v = 0;
  for (int i = 0; i < 4; i++) {
    unsigned byte = 0;
    for (int k = 0; k < 2; k++) {
      const char c = at[2 * i + k];
      byte = byte * 16 + (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    v |= (uint32_t)byte << (8 * i);
  }
  return (int32_t)v;
}

static int read_predictions(store *s, const report_rows *r, int row, report_rows *out, ice_err *e) {
  const char *id = report_rows_text(r, row, "id");
  return report_rows_select(s, "SELECT hex(data) AS data FROM prediction WHERE cell_id = CAST(?1 AS INTEGER)", &id, 1, out, e);
}

static int retention_of(store *s, const report_rows *r, int row, int dense, stats_interval *out, ice_err *e) {
  report_rows a = {0}, b = {0};
  *out = unknown;
  if (!good(r, row) || !good(r, dense)) return ICE_OK;
  int rc = read_predictions(s, r, row, &a, e);
  if (rc == ICE_OK) rc = read_predictions(s, r, dense, &b, e);
  const char *x = a.n == 1 ? a.cell[0] : NULL, *y = b.n == 1 ? b.cell[0] : NULL;
  int64_t both = 0, only_a = 0, only_b = 0;
  int same = rc == ICE_OK && x && y && strlen(x) == strlen(y);
  for (size_t i = 0, n = same ? strlen(x) / 24 : 0; i < n && same; i++) {
    const int32_t expected = hex_int(x + 24 * i + 8);
    const int hit_a = hex_int(x + 24 * i + 16) == expected, hit_b = hex_int(y + 24 * i + 16) == expected;
    same = !memcmp(x + 24 * i, y + 24 * i, 16); /* the same example, with the same label */
    both += hit_a && hit_b, only_a += hit_a && !hit_b, only_b += hit_b && !hit_a;
  }
  if (same) *out = stats_paired_ratio(both, only_a, only_b);
  report_rows_free(&a);
  report_rows_free(&b);
  return rc;
}

/* --- verdicts ------------------------------------------------------------------------------------------------------- */

typedef struct judge {
  store *s;
  const report_paper *p;
  report_rows r;
} judge;

static void not_here(paper_verdict *v, const char *format, const char *what) {
  v->outcome = PAPER_NOT_HERE;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  (void)snprintf(v->why, sizeof v->why, format, what);
#pragma GCC diagnostic pop
}

/* Why there is no finished row: what a row says, or that there is none. */
static void say_why(const judge *j, const char *task, paper_verdict *v) {
  const int row = find_row(&j->r, task, v->of->method, v->of->model, -1);
  const char *reason = row >= 0 ? report_rows_text(&j->r, row, "reason") : NULL;
  if (reason) not_here(v, "%s", reason);
  else if (!registry_find(v->of->method, NULL)) not_here(v, "this program has no %s", v->of->method);
  else not_here(v, "%s", "no row yet: icebench run configs/paper/lra.yaml");
}

static void take_counts(const judge *j, int row, paper_verdict *v) {
  const double n = report_rows_value(&j->r, row, "examples");
  v->examples = isfinite(n) ? (int64_t)n : 0;
  v->partial = report_rows_value(&j->r, row, "partial") > 0;
}

static void set_ours(paper_verdict *v, stats_interval ours) {
  v->ours = ours.value, v->lo = ours.lo, v->hi = ours.hi;
  v->ratio = ours.value / v->published;
}
/* Ends of ours; the value itself where there is no interval. */
static double low(const paper_verdict *v) { return isfinite(v->lo) ? v->lo : v->ours; }
static double high(const paper_verdict *v) { return isfinite(v->hi) ? v->hi : v->ours; }

static void judge_speed(paper_verdict *v, double error) {
  const double factor = PAPER_SPEED_FACTOR * (1.0 + error);
  const int enough = high(v) * factor >= v->published, claim = !strcmp(v->of->method, "iceformer");
  v->outcome = enough && (claim || low(v) <= v->published * factor) ? PAPER_REPRODUCED : PAPER_DIFFERS;
}

/* The row that stands for a published value: as the source computed padding, else the other way, which is then said. */
static int row_as_published(const judge *j, const char *task, paper_verdict *v) {
  const int padded = strcmp(v->of->method, "iceformer") != 0;
  const int first = find_row(&j->r, task, v->of->method, v->of->model, padded);
  if (good(&j->r, first)) return first;
  const int other = find_row(&j->r, task, v->of->method, v->of->model, !padded);
  if (good(&j->r, other) && padded) (void)snprintf(v->why, sizeof v->why, "padding skipped, by vanilla too");
  return good(&j->r, other) && padded ? other : -1;
}

static void judge_seconds(const judge *j, paper_verdict *v) {
  const paper_value *base = base_of(j->p, v->of);
  const char *task = v->of->task;
  if (base == v->of) {
    not_here(v, "%s", "base of the ratios; hardware, threads and batch size are not published");
    return;
  }
  if (!base) {
    not_here(v, "the source has no %s to compare it with", "vanilla");
    return;
  }
  v->published = base->value / v->of->value;
  int row = row_as_published(j, task, v);
  if (row < 0 && stand_in(task)) {
    row = row_as_published(j, stand_in(task), v);
    if (row >= 0) {
      const size_t n = strlen(v->why);
      (void)snprintf(v->why + n, sizeof v->why - n, "%son %s, a stand-in of the same shape", n ? "; " : "", stand_in(task));
      task = stand_in(task);
    }
  }
  if (row < 0) {
    say_why(j, task, v);
    return;
  }
  stats_interval ours = interval_of(&j->r, row, "speedup_vanilla");
  if (!strcmp(v->of->method, "iceformer")) {
    const int vanilla = find_row(&j->r, task, "vanilla", v->of->model, 1);
    const stats_interval skip = good(&j->r, vanilla) ? interval_of(&j->r, vanilla, "speedup_skip") : unknown;
    if (isfinite(skip.value)) ours = product(ours, skip);
    else (void)snprintf(v->why, sizeof v->why, "padding skipped, by vanilla too: no row of vanilla with `padding: compute`");
  }
  set_ours(v, ours);
  take_counts(j, row, v);
  if (isfinite(v->ours)) judge_speed(v, v->of->error + base->error);
  else not_here(v, "%s", "the row has no speed-up against vanilla");
}

static void judge_accuracy(const judge *j, paper_verdict *v) {
  v->published = v->of->value;
  int row = find_row(&j->r, v->of->task, v->of->method, v->of->model, -1);
  if (!good(&j->r, row)) {
    say_why(j, v->of->task, v);
    const char *other = stand_in(v->of->task);
    row = other ? find_row(&j->r, other, v->of->method, v->of->model, -1) : -1;
    if (good(&j->r, row))
      (void)snprintf(v->why, sizeof v->why, "its data are not here; %s, a stand-in, reaches %.4f", other, report_rows_value(&j->r, row, "accuracy"));
    return;
  }
  set_ours(v, interval_of(&j->r, row, "accuracy"));
  take_counts(j, row, v);
  v->outcome = low(v) <= v->published + PAPER_ACCURACY && high(v) >= v->published - PAPER_ACCURACY ? PAPER_REPRODUCED : PAPER_DIFFERS;
}

/* Only the sign can be compared: theirs is a PyTorch process at an unknown batch size, ours one attention call. */
static void judge_memory(const judge *j, paper_verdict *v) {
  const paper_value *base = base_of(j->p, v->of);
  const char *task = v->of->task;
  if (!base || base == v->of) {
    not_here(v, "%s", "base of the differences; the batch size is not published");
    return;
  }
  v->published = v->of->value - base->value;
  int row = row_as_published(j, task, v);
  if (row < 0 && stand_in(task) && (row = row_as_published(j, stand_in(task), v)) >= 0) task = stand_in(task);
  const int vanilla = find_row(&j->r, task, "vanilla", base->model, v->why[0] == '\0');
  if (row < 0) {
    say_why(j, task, v);
    return;
  }
  if (good(&j->r, vanilla)) v->ours = (report_rows_value(&j->r, row, "peak_bytes") - report_rows_value(&j->r, vanilla, "peak_bytes")) / 0x1p20;
  if (!isfinite(v->ours)) {
    v->ours = NAN;
    not_here(v, "%s", "no row of vanilla to compare it with");
    return;
  }
  take_counts(j, row, v);
  v->outcome = (v->ours < 0) == (v->published < 0) ? PAPER_REPRODUCED : PAPER_DIFFERS;
  (void)snprintf(v->why, sizeof v->why, "MiB of one call%s%s; only the sign is compared", task == v->of->task ? "" : " on ", task == v->of->task ? "" : task);
}

/* The mean over the tasks. */
static void judge_claim(const paper_task task[PAPER_TASKS], paper_verdict *v) {
  const int speed = !strcmp(v->of->metric, "speedup");
  stats_interval sum = {0, 0, 0};
  int n = 0;
  for (int i = 0; i < PAPER_TASKS; i++) {
    const stats_interval x = speed ? task[i].together : task[i].retention;
    if (!isfinite(x.value)) continue;
    sum.value += x.value, sum.lo += x.lo, sum.hi += x.hi, n++;
  }
  v->published = v->of->value;
  if (n) set_ours(v, (stats_interval){sum.value / n, sum.lo / n, sum.hi / n});
  if (n < PAPER_TASKS) {
    v->outcome = PAPER_NOT_HERE;
    (void)snprintf(v->why, sizeof v->why, "a mean over %d tasks, of which %d are measured", PAPER_TASKS, n);
  } else if (speed) judge_speed(v, v->of->error);
  else v->outcome = high(v) >= v->published ? PAPER_REPRODUCED : PAPER_DIFFERS;
}

static int describe_task(const judge *j, paper_task *t, ice_err *e) {
  const report_rows *r = &j->r;
  int ice = find_row(r, t->task, "iceformer", "softmax", 0);
  t->on = t->task;
  const char *other = good(r, ice) ? NULL : stand_in(t->task);
  const int theirs = other ? find_row(r, other, "iceformer", "softmax", 0) : -1;
  if (good(r, theirs)) t->on = other, ice = theirs;
  const int padded = find_row(r, t->on, "vanilla", "softmax", 1), plain = find_row(r, t->on, "vanilla", "softmax", 0);
  t->vanilla_padded = good(r, padded) ? interval_of(r, padded, "attention_ns") : unknown;
  t->vanilla = good(r, plain) ? interval_of(r, plain, "attention_ns") : unknown;
  t->skip = good(r, padded) ? interval_of(r, padded, "speedup_skip") : unknown;
  t->vanilla_x = good(r, ice) ? interval_of(r, ice, "speedup_vanilla") : unknown;
  t->dense_x = good(r, ice) ? interval_of(r, ice, "speedup_dense") : unknown;
  t->accuracy = good(r, ice) ? interval_of(r, ice, "accuracy") : unknown;
  t->together = product(t->skip, t->vanilla_x);
  t->published = NAN;
  for (const paper_value *v = j->p->value; v < j->p->value + j->p->n; v++)
    if (!strcmp(v->task, t->task) && !strcmp(v->method, "iceformer") && !strcmp(v->model, "softmax") && !strcmp(v->metric, "attention_s") &&
        base_of(j->p, v))
      t->published = base_of(j->p, v)->value / v->value;
  return retention_of(j->s, r, ice, find_row(r, t->on, "dense", "softmax", 0), &t->retention, e);
}

int report_paper_judge(store *s, const report_paper *p, const char *experiment, paper_verdict *verdict, paper_task task[PAPER_TASKS],
                       ice_err *e) {
  static const char *const tasks[PAPER_TASKS] = {"lra/listops", "lra/text-1k", "lra/retrieval", "lra/image", "lra/pathfinder"};
  judge j = {.s = s, .p = p};
  int rc = report_rows_select(s, select_rows, &experiment, 1, &j.r, e);
  for (int i = 0; rc == ICE_OK && i < PAPER_TASKS; i++) {
    task[i] = (paper_task){.task = tasks[i]};
    rc = describe_task(&j, task + i, e);
  }
  for (int i = 0; rc == ICE_OK && i < p->n; i++) {
    paper_verdict *v = verdict + i;
    const char *metric = p->value[i].metric;
    *v = (paper_verdict){.of = p->value + i, .published = NAN, .ours = NAN, .lo = NAN, .hi = NAN, .ratio = NAN, .outcome = PAPER_NOT_HERE};
    if (!strcmp(metric, "attention_s")) judge_seconds(&j, v);
    else if (!strcmp(metric, "accuracy")) judge_accuracy(&j, v);
    else if (!strcmp(metric, "memory_gb")) judge_memory(&j, v);
    else judge_claim(task, v);
  }
  report_rows_free(&j.r);
  return rc;
}
