/* cmd_gate.c - verb `gate`: each aim of a table in a child process of its own; measured, judged, printed, stored. */
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/aims.h"
#include "harness/cli.h"
#include "harness/registry/registry.h"
#include "harness/run_child.h"
#include "harness/store.h"
#include "kernels/core/alloc.h"
#include "kernels/core/clock.h"
#include "kernels/micro/micro.h"

enum { RESULT_BYTES = 1 << 20 };
static volatile sig_atomic_t stop_signal;

static void on_signal(int number) { stop_signal = number; }

/* ---- A result as JSON, and back. */

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }
static double read_number(const json_t *o, const char *key) {
  const json_t *x = json_object_get(o, key);
  return json_is_number(x) ? json_number_value(x) : NAN;
}

static json_t *result_json(const aim *a, const aim_result *r) {
  const int ok = !strcmp(r->status, "ok");
  return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:s, s:o, s:b, s:o, s:o, s:o, s:o, s:o}", "id", a->id, "aim", a->text, "kind",
                   aim_kind_name(a->kind), "method", a->of.method, "measured", number(r->measured.value), "measured_lo",
                   number(r->measured.lo), "measured_hi", number(r->measured.hi), "bound",
                   isnan(a->least) ? "at_most" : "at_least", "bound_value", number(isnan(a->least) ? a->most : a->least),
                   "reached", r->reached, "attention_ns", number(r->ns.value), "recall", number(r->recall),
                   "rel_l2_error", number(r->rel_l2_error), "status", json_string(r->status), "reason",
                   ok ? json_null() : json_string(r->reason));
}

/* What a child wrote. The numbers are judged anew: nobody is believed. */
static int read_result(const char *text, const aim *a, aim_result *r) {
  static const char *const statuses[] = {"ok", "unsupported", "failed"};
  json_t *o = json_loads(text, 0, NULL);
  const char *status = json_string_value(json_object_get(o, "status")), *reason = json_string_value(json_object_get(o, "reason"));
  *r = (aim_result){.measured = {read_number(o, "measured"), read_number(o, "measured_lo"), read_number(o, "measured_hi")},
                    .ns = {read_number(o, "attention_ns"), NAN, NAN},
                    .recall = read_number(o, "recall"),
                    .rel_l2_error = read_number(o, "rel_l2_error")};
  for (int i = 0; status && i < 3; i++)
    if (!strcmp(status, statuses[i])) r->status = statuses[i];
  (void)snprintf(r->reason, sizeof r->reason, "%s", reason ? reason : "");
  if (r->status && !strcmp(r->status, "ok")) r->reached = aim_reached(a, r->measured.value, r->recall, r->rel_l2_error);
  json_decref(o);
  return r->status != NULL;
}

/* ---- One aim. */

static int ask_child(const aims *table, const aim *a, const char *self, const char *file, aim_result *r, ice_err *e) {
  const char *const argv[] = {self, "gate", file, "--only", a->id, "--format", "json", NULL};
  const run_limits limits = {.seconds = table->limit_seconds, .gib = table->limit_gib, .result_bytes = RESULT_BYTES};
  const stats_interval none = {NAN, NAN, NAN};
  run_outcome o = {0};
  ICE_TRY(run_child(argv, "", &limits, &stop_signal, 0, &o, e));
  if (o.end != RUN_RESULT || !read_result(o.output, a, r)) {
    *r = (aim_result){.status = o.end == RUN_TIMEOUT ? "timeout" : o.end == RUN_OOM ? "oom" : "failed",
                      .measured = none, .ns = none, .recall = NAN, .rel_l2_error = NAN};
    (void)snprintf(r->reason, sizeof r->reason, "%.900s", o.end == RUN_RESULT ? "its result is no result" : o.why);
  }
  free(o.output);
  return ICE_OK;
}

static void print_line(const aim *a, const aim_result *r) {
  char measured[96] = "-", need[96] = "";
  if (isfinite(r->measured.lo))
    (void)snprintf(measured, sizeof measured, "%.3g [%.3g, %.3g]", r->measured.value, r->measured.lo, r->measured.hi);
  else if (isfinite(r->measured.value)) /* of fewer than six rounds */
    (void)snprintf(measured, sizeof measured, "%.3g", r->measured.value);
  if (isfinite(r->rel_l2_error) && !isnan(a->need_error)) (void)snprintf(need, sizeof need, "  error %.3g", r->rel_l2_error);
  if (isfinite(r->recall) && !isnan(a->need_recall)) (void)snprintf(need, sizeof need, "  recall %.4f", r->recall);
  (void)printf("%-74s %22s  %s %-5.4g ", a->text, measured, isnan(a->least) ? "<=" : ">=", isnan(a->least) ? a->most : a->least);
  if (strcmp(r->status, "ok"))
    (void)printf("%s: %s\n", r->status, r->reason);
  else
    (void)printf("%s%s\n", r->reached ? "reached" : "not reached", need);
  (void)fflush(stdout);
}

/* ---- Stored. */

/* Text of the parameters as a method prints them; "{}" for one that is not here. To free(). */
static char *params_json(const aim *a) {
  const attn_method *m = registry_find(a->of.method, NULL);
  void *params = m ? registry_defaults(m) : NULL;
  for (int i = 0; params && a->of.params && i < yaml_count(a->of.params); i++) {
    const attn_param *p = registry_param(m, yaml_key(a->of.params, i), NULL);
    if (p) (void)registry_param_set(m, p, yaml_text(yaml_value(a->of.params, i)), params, NULL);
  }
  char *text = params ? registry_params_json(m, params) : strdup("{}");
  attn_free(params);
  return text;
}

static int save(store *db, const aim *a, const aim_result *r, int64_t started_ms, ice_err *e) {
  const attn_method *m = registry_find(a->of.method, NULL);
  const double bound = isnan(a->least) ? a->most : a->least;
  char task[80], model[64], *params = params_json(a), *key = NULL;
  (void)snprintf(task, sizeof task, "aim/%s", a->id);
  (void)snprintf(model, sizeof model, "h=%lld,d=%lld%s", (long long)a->of.h, (long long)a->of.d, a->of.causal ? ",causal" : "");
  json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:f, s:s, s:s, s:I, s:i, s:s}", "aim", a->id, "text", a->text, "kind",
                        aim_kind_name(a->kind), "bound", isnan(a->least) ? "at_most" : "at_least", "value", bound, "params",
                        params ? params : "", "version", m ? m->version : "-", "n", (json_int_t)a->of.n, "threads",
                        a->of.threads, "isa", attn_isa_name());
  key = o ? json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
  const store_metric metric[] = {{"aim_measured", r->measured.value, r->measured.lo, r->measured.hi},
                                 {isnan(a->least) ? "aim_at_most" : "aim_at_least", bound, NAN, NAN},
                                 {"aim_reached", strcmp(r->status, "ok") ? NAN : (double)r->reached, NAN, NAN},
                                 {"attention_ns", r->ns.value, r->ns.lo, r->ns.hi},
                                 {"recall", r->recall, NAN, NAN},
                                 {"rel_l2_error", r->rel_l2_error, NAN, NAN}};
  const store_cell cell = {.key = key,
                           .experiment = "bench-gate",
                           .task = task,
                           .model = model,
                           .method = a->of.method,
                           .method_version = m ? m->version : "-",
                           .params = params,
                           .seed = (uint64_t)a->of.seed,
                           .n = a->of.n,
                           .heads = a->of.h,
                           .head_dim = a->of.d,
                           .layers = 1,
                           .causal = a->of.causal,
                           .threads = a->of.threads,
                           .isa = attn_isa_name(),
                           .examples = 1,
                           .status = r->status,
                           .reason = strcmp(r->status, "ok") ? r->reason : NULL,
                           .label = a->text,
                           .config = key,
                           .started_utc_ms = started_ms,
                           .wall_ms = attn_utc_ms() - started_ms,
                           .metric = metric,
                           .n_metrics = sizeof metric / sizeof *metric};
  int rc = key && params ? store_put(db, &cell, 1, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  json_decref(o);
  free(key);
  free(params);
  return rc;
}

/* ---- The verb. */

static int run_all(const cli_common *common, const aims *table, const char *file, json_t *list, ice_err *e) {
  char self[4096] = "";
  store *db;
  int reached = 0, measured = 0;
  if (readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return ice_fail(e, ICE_INTERNAL, "cannot find this program: /proc is not there");
  ICE_TRY(store_open(common->db, STORE_WRITE, &db, e));
  int rc = ICE_OK;
  for (int i = 0; rc == ICE_OK && i < table->n && !stop_signal; i++) {
    const int64_t started = attn_utc_ms();
    const aim *a = table->list + i;
    aim_result r;
    rc = ask_child(table, a, self, file, &r, e);
    if (rc != ICE_OK || stop_signal) break;
    rc = save(db, a, &r, started, e);
    measured += !strcmp(r.status, "ok");
    reached += r.reached;
    if (list) (void)json_array_append_new(list, result_json(a, &r));
    else print_line(a, &r);
  }
  store_close(db);
  if (rc == ICE_OK && stop_signal) return ice_fail(e, 128 + (int)stop_signal, "interrupted; what was printed is stored");
  if (rc == ICE_OK && !list) (void)printf("%d of %d aims reached, %d measured; %s, experiment bench-gate\n", reached, table->n, measured, common->db);
  return rc;
}

/* In this process, nothing stored. */
static int run_one(const aims *table, const char *id, int json, ice_err *e) {
  char known[600] = "";
  for (int i = 0; i < table->n; i++) {
    const size_t n = strlen(known);
    if (!strcmp(table->list[i].id, id)) {
      aim_result r;
      aim_measure(table, table->list + i, &r);
      if (json) return cli_print_json(result_json(table->list + i, &r), e);
      print_line(table->list + i, &r);
      return ICE_OK;
    }
    (void)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", table->list[i].id);
  }
  return ice_fail(e, ICE_USAGE, "--only = %s, allowed %s", id, known);
}

static int gate_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}; /* a second one kills */
  const char *file = NULL, *only = NULL, *format = "text";
  const cli_option spec[] = {
      {.name = "only", .has_value = 1, .value = &only}, {.name = "format", .has_value = 1, .value = &format}, {.name = NULL}};
  aims table;
  int files = 0, json = 0;
  ICE_TRY(cli_parse(argc, argv, spec, &file, 1, &files, e));
  ICE_TRY(cli_format(format, &json, e));
  if (files != 1) return ice_fail(e, ICE_USAGE, "gate: needs one file, e.g. icebench gate configs/bench/aims.yaml");
  ICE_TRY(aims_read(&table, file, e));
  int rc;
  if (only) {
    rc = run_one(&table, only, json, e);
  } else {
    json_t *list = json ? json_array() : NULL;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    rc = run_all(common, &table, file, list, e);
    if (rc == ICE_OK && json) rc = cli_print_json(list, e);
    else json_decref(list);
  }
  aims_free(&table);
  return rc;
}

const cli_verb cli_verb_gate = {
    .name = "gate",
    .summary = "measure what the kernels are meant to reach",
    .help =
        "usage: icebench gate FILE.yaml [--only ID] [--format text|json]\n\n"
        "Measures every aim of a table: two pieces of work timed round by round beside each other, in a child process per\n"
        "aim; prints what was measured with its 95 % interval, the aim, and whether it was reached, and stores that as\n"
        "experiment bench-gate (metrics aim_measured, aim_at_least or aim_at_most, aim_reached). A benchmark, not a test:\n"
        "the exit code is 0 whenever it ran. An aim whose method is not there, crashes or takes too long is a line that\n"
        "says so. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE should not be set; `make bench-gate` sees to that.\n\n"
        "  --only ID            one aim, in this process; nothing is stored\n"
        "  --format text|json   lines as they come, or one list at the end (text)\n\n"
        "kinds: rate (flops of `of` over those of sgemm), speedup (time of `over` / of `of`), share (its inverse), exponent\n"
        "(growth of time from n of `over` to n of `of`), cpu_us (CPU microseconds per query). Keys: see the example.\n\n"
        "examples:\n"
        "  icebench gate configs/bench/aims.yaml --db results/bench.db\n"
        "  icebench gate configs/bench/aims.yaml --only dense-threads\n\n"
        "exit codes: 0 it ran, 2 bad file, 8 database, 130/143 interrupted\n",
    .main = gate_main,
};
