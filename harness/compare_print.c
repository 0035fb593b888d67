/* compare_print.c - a comparison for people (Markdown), for machines (JSON) and for the tools of others.
 *
 * Formats of others: github-action-benchmark's customSmallerIsBetter and customBiggerIsBetter are arrays of {name, unit, value,
 * range, extra}; google-benchmark's JSON is {context, benchmarks}; JUnit is the subset of XML that GitLab and Jenkins read. */
#include "harness/compare.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/measure_store.h"
#include "harness/report_table.h"

/* ---- Names and numbers. */

/* "iceformer {"k":20} on lra/listops, lra/listops/softmax, n=1032, seed 1". Length-limited, since names are anybody's. */
static void cell_name(const compare_side *s, const compare_cell *c, char *out, size_t size) {
  const char *params = compare_text(s, c, "params"), *model = compare_text(s, c, "model"), *n = compare_text(s, c, "n");
  (void)snprintf(out, size, "%.60s%s%.160s on %.60s, %.100s%s%.20s, seed %.20s", compare_text(s, c, "method"), strcmp(params, "{}") ? " " : "",
                 strcmp(params, "{}") ? params : "", compare_text(s, c, "task"), model, n ? ", n=" : "", n ? n : "", compare_text(s, c, "seed"));
}

/* Signed per cent of a ratio, "+5.2 %". */
static void percent(double ratio, char *out, size_t size) {
  const double change = 100.0 * (ratio - 1.0);
  if (!isfinite(ratio)) (void)snprintf(out, size, "new");
  else if (fabs(change) < 0.005) (void)snprintf(out, size, "0 %%");
  else (void)snprintf(out, size, fabs(change) < 0.1 ? "%+.2f %%" : "%+.1f %%", change);
}

/* "+5.2 % [+4.1 %, +6.3 %]"; of accuracies, in points. */
static void print_change(compare_axis axis, const compare_finding *f, char *out, size_t size) {
  char value[32], lo[32], hi[32];
  const stats_interval c = f->change;
  const int exact = c.lo == c.value && c.hi == c.value;
  if (axis == COMPARE_ACCURACY && exact) (void)snprintf(out, size, c.value == 0.0 ? "0" : "%+.2f pt", 100.0 * c.value);
  else if (axis == COMPARE_ACCURACY) (void)snprintf(out, size, "%+.2f pt [%+.2f, %+.2f]", 100.0 * c.value, 100.0 * c.lo, 100.0 * c.hi);
  else {
    percent(c.value, value, sizeof value), percent(c.lo, lo, sizeof lo), percent(c.hi, hi, sizeof hi);
    if (exact || !isfinite(c.lo)) (void)snprintf(out, size, "%s", value);
    else (void)snprintf(out, size, "%s [%s, %s]", value, lo, hi);
  }
}

static void print_value(compare_axis axis, double v, char *out, size_t size) {
  if (!isfinite(v)) (void)snprintf(out, size, "-");
  else if (axis == COMPARE_SPEED) measure_print_ns(v, out, size);
  else if (axis == COMPARE_MEMORY) (void)snprintf(out, size, "%.3g MiB", v / 0x1p20);
  else if (axis == COMPARE_ACCURACY) (void)snprintf(out, size, "%.4f", v);
  else (void)snprintf(out, size, "%.4g", v);
}

static void print_gate(compare_axis axis, const compare_finding *f, char *out, size_t size) {
  if (axis == COMPARE_ACCURACY) (void)snprintf(out, size, "%.2f pt", 100.0 * f->gate);
  else (void)snprintf(out, size, "%.1f %%%s", 100.0 * f->gate, isfinite(f->floor) && f->floor >= f->gate ? " (noise floor)" : "");
}

static void print_detectable(compare_axis axis, const compare_finding *f, char *out, size_t size) {
  if (!isfinite(f->detectable)) (void)snprintf(out, size, "-");
  else (void)snprintf(out, size, axis == COMPARE_ACCURACY ? "%.2f pt" : "%.1f %%", 100.0 * f->detectable);
}

/* ---- Markdown. */

/* Worse first, then unsure, better; what stayed the same last. */
static int importance(compare_verdict v) {
  static const int rank[] = {4, 3, 2, 0, 1};
  return rank[v];
}

static const report_column columns[] = {{"verdict", "", 'l', 0}, {"axis", "", 'l', 0}, {"cell", "", 'l', 0}, {"base", "", 'r', 0},
                                        {"new", "", 'r', 0},     {"change", "", 'r', 0}, {"gate", "", 'r', 0}, {"detectable", "", 'r', 0},
                                        {"p", "", 'r', 0},       {"P(new > base)", "", 'r', 0}};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void fill_row(report_table *t, int row, const compare_side *now, const compare_pair *p, compare_axis axis) {
  const compare_finding *f = p->finding + axis;
  char text[512];
  cell_name(now, p->now, text, sizeof text);
  report_table_set(t, row, 0, "%s%s%s%s", compare_verdict_name(f->verdict), f->why ? " (" : "", f->why ? f->why : "", f->why ? ")" : "");
  report_table_set(t, row, 1, "%s", compare_axis_name(axis));
  report_table_set(t, row, 2, "%s", text);
  print_value(axis, f->base, text, sizeof text), report_table_set(t, row, 3, "%s", text);
  print_value(axis, f->now, text, sizeof text), report_table_set(t, row, 4, "%s", text);
  print_change(axis, f, text, sizeof text), report_table_set(t, row, 5, "%s", text);
  print_gate(axis, f, text, sizeof text), report_table_set(t, row, 6, "%s", text);
  print_detectable(axis, f, text, sizeof text), report_table_set(t, row, 7, "%s", text);
  if (isfinite(f->p)) report_table_set(t, row, 8, f->p < 0.0001 ? "%.0e" : "%.4f", f->p);
  if (isfinite(f->effect)) report_table_set(t, row, 9, "%.2f", f->effect);
}

static int is_shown(const compare_finding *f) { return f->verdict != COMPARE_NOT_JUDGED && f->verdict != COMPARE_SAME; }

static int print_table(const compare_side *now, const compare_result *r, FILE *f, ice_err *e) {
  report_table t;
  int shown = 0, row = 0;
  for (int i = 0; i < r->n; i++)
    for (int a = 0; a < COMPARE_AXES; a++) shown += is_shown(r->pair[i].finding + a);
  if (!shown) return ICE_OK;
  int rc = report_table_create(&t, columns, COLUMNS, shown, e);
  for (int rank = 0; rc == ICE_OK && rank < 3; rank++)
    for (int a = 0; a < COMPARE_AXES; a++)
      for (int i = 0; i < r->n; i++) {
        const compare_finding *found = r->pair[i].finding + a;
        if (is_shown(found) && importance(found->verdict) == rank) fill_row(&t, row++, now, r->pair + i, (compare_axis)a);
      }
  if (rc == ICE_OK) rc = report_table_print(&t, REPORT_MD, 0, f, e);
  report_table_free(&t);
  return rc;
}

static double highest_floor(const compare_result *r) {
  double floor = NAN;
  for (int i = 0; i < r->n; i++) floor = fmax(floor, r->pair[i].finding[COMPARE_SPEED].floor);
  return floor;
}

static void print_notes(const compare_side *base, const compare_side *now, const compare_result *r, FILE *f) {
  char text[1024];
  const double floor = highest_floor(r);
  (void)fprintf(f, "\n");
  for (int i = 0; i < r->n; i++) {
    const compare_pair *p = r->pair + i;
    if (!p->broken) continue;
    const char *reason = compare_text(now, p->now, "reason");
    cell_name(now, p->now, text, sizeof text);
    (void)fprintf(f, "- worse: ");
    report_text(f, REPORT_MD, text);
    (void)fprintf(f, " was ok and is %s: ", p->broken);
    report_text(f, REPORT_MD, reason ? reason : "no reason given");
    (void)fprintf(f, "\n");
  }
  (void)fprintf(f, "- %d worse, %d unsure, %d better, %d same (ties are not shown)\n", r->count[COMPARE_WORSE], r->count[COMPARE_UNSURE],
                r->count[COMPARE_BETTER], r->count[COMPARE_SAME]);
  if (r->only_base || r->only_now) (void)fprintf(f, "- %d cells only in BASE, %d only in NEW: not compared\n", r->only_base, r->only_now);
  if (isfinite(floor)) (void)fprintf(f, "- noise floor of this machine: %.1f %%\n", 100.0 * floor);
  else (void)fprintf(f, "- no noise floor is known for this machine; `icebench calibrate` measures it\n");
  (void)fprintf(f, "- changes with 95 %% intervals (times: medians; of 6 processes or more on both sides, what nothing hindered); p is Holm-adjusted over the table (times: Mann-Whitney, accuracies: McNemar); detectable: with power 80 %%\n");
  (void)snprintf(text, sizeof text, "BASE %s%s%.12s, NEW %s%s%.12s", base->name, *base->commit ? " at " : "", base->commit, now->name, *now->commit ? " at " : "", now->commit);
  (void)fprintf(f, "- ");
  report_text(f, REPORT_MD, text);
  (void)fprintf(f, "\n");
}

static int print_md(const compare_side *base, const compare_side *now, const compare_result *r, FILE *f, ice_err *e) {
  char text[512];
  compare_summary(r, text, sizeof text);
  report_heading(f, REPORT_MD, text);
  ICE_TRY(print_table(now, r, f, e));
  print_notes(base, now, r, f);
  return ICE_OK;
}

/* ---- JSON. */

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

/* Names may hold any bytes; JSON may not. */
static json_t *text_json(const char *text) {
  if (!text) return json_null();
  json_t *o = json_string(text);
  return o ? o : json_string("(a name that is no UTF-8)");
}

static json_t *finding_json(const compare_finding *f) {
  return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s?}", "verdict",
                   f->verdict == COMPARE_NOT_JUDGED ? "not judged" : compare_verdict_name(f->verdict), "base", number(f->base), "new", number(f->now), "change",
                   number(f->change.value), "change_lo", number(f->change.lo), "change_hi", number(f->change.hi), "gate", number(f->gate), "noise_floor",
                   number(f->floor), "detectable", number(f->detectable), "p_holm", number(f->p), "effect", number(f->effect), "why", f->why);
}

static json_t *cell_json(const compare_side *now, const compare_pair *p) {
  static const char *const names[] = {"experiment", "task", "model", "method", "params", "seed", "n", "threads", "isa", "examples", "method_version"};
  json_t *o = json_object();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) (void)json_object_set_new(o, names[i], text_json(compare_text(now, p->now, names[i])));
  (void)json_object_set_new(o, "status", text_json(compare_text(now, p->now, "status")));
  (void)json_object_set_new(o, "runs_base", json_integer((json_int_t)p->base->n_runs));
  (void)json_object_set_new(o, "runs_new", json_integer((json_int_t)p->now->n_runs));
  for (int a = 0; a < COMPARE_AXES; a++) (void)json_object_set_new(o, compare_axis_name((compare_axis)a), finding_json(p->finding + a));
  return o;
}

static json_t *all_json(const compare_side *base, const compare_side *now, const compare_options *options, const compare_result *r) {
  char summary[512];
  json_t *cells = json_array(), *thresholds = json_object();
  compare_summary(r, summary, sizeof summary);
  for (int i = 0; i < r->n; i++) (void)json_array_append_new(cells, cell_json(now, r->pair + i));
  for (int a = 0; a < COMPARE_AXES; a++) (void)json_object_set_new(thresholds, compare_axis_name((compare_axis)a), json_real(options->threshold[a]));
  return json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:f, s:i, s:i, s:i, s:i, s:i, s:i, s:o}", "exit_code", r->code, "summary", summary, "base",
                   text_json(base->name), "base_commit", text_json(base->commit), "new", text_json(now->name), "new_commit", text_json(now->commit),
                   "thresholds", thresholds, "detect", options->detect, "worse", r->count[COMPARE_WORSE], "unsure", r->count[COMPARE_UNSURE], "better",
                   r->count[COMPARE_BETTER], "same", r->count[COMPARE_SAME], "only_base", r->only_base, "only_new", r->only_now, "cells", cells);
}

/* ---- github-action-benchmark, google-benchmark: of NEW, whose history their users keep. */

static void add_entry(json_t *list, const char *name, const char *metric, const char *unit, double v, double lo, double hi) {
  char text[640], range[64];
  if (!isfinite(v)) return;
  (void)snprintf(text, sizeof text, "%s: %s", name, metric);
  json_t *o = json_pack("{s:o, s:s, s:f}", "name", text_json(text), "unit", unit, "value", v);
  (void)snprintf(range, sizeof range, "%.4g .. %.4g", lo, hi);
  if (isfinite(lo) && isfinite(hi)) (void)json_object_set_new(o, "range", json_string(range));
  (void)json_array_append_new(list, o);
}

static json_t *gh_json(const compare_side *s, int bigger) {
  json_t *list = json_array();
  for (int i = 0; i < s->n; i++) {
    const compare_cell *c = s->cell + i;
    char name[512];
    if (strcmp(compare_text(s, c, "status"), "ok")) continue;
    cell_name(s, c, name, sizeof name);
    if (bigger) {
      add_entry(list, name, "accuracy", "fraction", compare_value(s, c, "accuracy"), compare_value(s, c, "accuracy_lo"), compare_value(s, c, "accuracy_hi"));
      add_entry(list, name, "speed-up over vanilla", "x", compare_value(s, c, "speedup_vanilla"), NAN, NAN);
      add_entry(list, name, "speed-up over dense", "x", compare_value(s, c, "speedup_dense"), NAN, NAN);
    } else {
      add_entry(list, name, "attention time", "ns", compare_value(s, c, "attention_ns"), compare_value(s, c, "attention_ns_lo"), compare_value(s, c, "attention_ns_hi"));
      add_entry(list, name, "memory", "bytes", compare_value(s, c, "peak_bytes"), NAN, NAN);
      add_entry(list, name, "relative L2 error", "ratio", compare_value(s, c, "rel_l2_error"), NAN, NAN);
      add_entry(list, name, "instructions", "count", compare_value(s, c, "twin_instructions"), NAN, NAN);
    }
  }
  return list;
}

static json_t *gbench_json(const compare_side *s) {
  json_t *list = json_array();
  for (int i = 0; i < s->n; i++) {
    const compare_cell *c = s->cell + i;
    char name[512];
    cell_name(s, c, name, sizeof name);
    for (size_t k = 0; k < c->n_ns; k++) /* a repetition is a round; nobody measures CPU time here, and its readers insist */
      (void)json_array_append_new(list, json_pack("{s:o, s:o, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:s}", "name", text_json(name), "run_name", text_json(name),
                                                  "run_type", "iteration", "repetitions", (int)c->n_ns, "repetition_index", (int)k, "threads",
                                                  (int)compare_value(s, c, "threads"), "iterations", 1, "real_time", c->ns[k], "cpu_time", c->ns[k], "time_unit", "ns"));
  }
  const char *cpu = s->rows.n ? report_rows_text(&s->rows, 0, "cpu") : NULL, *date = s->rows.n ? report_rows_text(&s->rows, s->rows.n - 1, "created_utc") : NULL;
  return json_pack("{s:{s:o, s:o, s:s, s:s, s:s}, s:o}", "context", "date", text_json(date), "host_name", text_json(cpu), "executable", "icebench",
                   "library_build_type", "release", "note", "cpu_time repeats real_time: it is not measured", "benchmarks", list);
}

static int print_json(json_t *o, FILE *f, ice_err *e) {
  if (!o) return ice_fail(e, ICE_INTERNAL, "out of memory for the comparison");
  errno = 0;
  const int bad = json_dumpf(o, f, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) != 0 || fputc('\n', f) == EOF;
  const char *why = errno ? strerror(errno) : "out of memory";
  json_decref(o);
  return bad ? ice_fail(e, ICE_INTERNAL, "the comparison cannot be written: %s", why) : ICE_OK;
}

/* ---- JUnit. */

static void print_case(const compare_side *now, const compare_pair *p, compare_axis axis, FILE *f) {
  const compare_finding *found = p->finding + axis;
  char name[512], change[128], gate[64], before[64], after[64], text[512];
  cell_name(now, p->now, name, sizeof name);
  (void)fprintf(f, "  <testcase classname=\"icebench.%s\" name=\"", compare_axis_name(axis));
  report_text(f, REPORT_HTML, name);
  (void)fprintf(f, "\"");
  if (found->verdict == COMPARE_SAME || found->verdict == COMPARE_BETTER) {
    (void)fprintf(f, "/>\n");
    return;
  }
  print_change(axis, found, change, sizeof change), print_gate(axis, found, gate, sizeof gate);
  print_value(axis, found->base, before, sizeof before), print_value(axis, found->now, after, sizeof after);
  (void)snprintf(text, sizeof text, "%s: %s -> %s, %s, gate %s", compare_verdict_name(found->verdict), before, after, change, gate);
  (void)fprintf(f, ">\n    <%s message=\"", found->verdict == COMPARE_WORSE ? "failure" : "skipped");
  report_text(f, REPORT_HTML, text);
  (void)fprintf(f, "\"/>\n  </testcase>\n");
}

static void print_junit(const compare_side *now, const compare_result *r, FILE *f) {
  int broken = 0, judged = 0;
  for (int i = 0; i < r->n; i++) broken += r->pair[i].broken != NULL;
  for (int v = COMPARE_SAME; v <= COMPARE_UNSURE; v++) judged += r->count[v];
  const int empty = judged + broken == 0;
  (void)fprintf(f, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"icebench compare\" tests=\"%d\" failures=\"%d\" errors=\"%d\" skipped=\"%d\">\n",
                judged + broken + empty, r->count[COMPARE_WORSE] + broken, empty, r->count[COMPARE_UNSURE]);
  if (empty) (void)fprintf(f, "  <testcase classname=\"icebench\" name=\"common cells\"><error message=\"nothing to compare\"/></testcase>\n");
  for (int i = 0; i < r->n; i++) {
    const compare_pair *p = r->pair + i;
    for (int a = 0; a < COMPARE_AXES; a++)
      if (p->finding[a].verdict != COMPARE_NOT_JUDGED) print_case(now, p, (compare_axis)a, f);
    if (!p->broken) continue;
    char name[512];
    cell_name(now, p->now, name, sizeof name);
    (void)fprintf(f, "  <testcase classname=\"icebench.status\" name=\"");
    report_text(f, REPORT_HTML, name);
    (void)fprintf(f, "\"><failure message=\"was ok and is %s\"/></testcase>\n", p->broken);
  }
  (void)fprintf(f, "</testsuite>\n");
}

int compare_print(const compare_side *base, const compare_side *now, const compare_options *o, const compare_result *r, compare_format format, FILE *f,
                  ice_err *e) {
  switch (format) {
  case COMPARE_MD: return print_md(base, now, r, f, e);
  case COMPARE_JSON: return print_json(all_json(base, now, o, r), f, e);
  case COMPARE_GH: return print_json(gh_json(now, 0), f, e);
  case COMPARE_GH_BIGGER: return print_json(gh_json(now, 1), f, e);
  case COMPARE_GBENCH: return print_json(gbench_json(now), f, e);
  case COMPARE_JUNIT: print_junit(now, r, f); return ICE_OK;
  }
  return ICE_OK;
}
