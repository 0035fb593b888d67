/* cmd_plan.c - verb `plan`: what `run` would do, and what it would take. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli.h"
#include "harness/measure_store.h"
#include "harness/run.h"

/* Bytes a row takes in the database: samples of three methods, predictions, text. */
static double row_bytes(const run_plan *p, const run_cell *c) {
  const int64_t asked = p->x.examples && p->x.examples < c->data->count ? p->x.examples : c->data->count;
  return 4096.0 + 12.0 * 40.0 * p->x.rounds + 16.0 * (double)asked;
}

static void print_time(double seconds, char *out, size_t size) {
  if (seconds < 90.0)
    (void)snprintf(out, size, "%.0f s", seconds);
  else if (seconds < 5400.0)
    (void)snprintf(out, size, "%.0f min", seconds / 60.0);
  else
    (void)snprintf(out, size, "%.1f h", seconds / 3600.0);
}

static void print_text(const cli_common *common, const run_plan *p) {
  double seconds = 0.0, memory = 0.0, disk = 0.0;
  int guessed = 0, scaled = 0, shown = 0;
  char text[32], brief[256];
  for (int i = 0; i < p->n; i++) {
    const run_cell *c = p->cell + i;
    const double bytes = run_guess_bytes(p, c);
    if (bytes > memory) memory = bytes;
    if (!c->done) {
      seconds += c->seconds;
      disk += row_bytes(p, c);
      guessed += !c->known && !c->scaled;
      scaled += c->scaled;
    }
    if (common->quiet || (!common->verbose && shown == 40 && p->n > 50)) continue;
    shown++;
    measure_brief(c->cell->method, c->cell->params, c->cell->schedule, brief, sizeof brief);
    print_time(c->seconds, text, sizeof text);
    (void)printf("  %s%-5s %s %s seed %llu  %s %s  %s%s%s%s%s%s\n", c->shares ? "+ " : "", c->done ? "there" : "todo", c->cell->task->name,
                 c->cell->source ? c->cell->source : c->cell->model, (unsigned long long)c->cell->seed, c->cell->method->name, brief, c->done ? "" : "~",
                 c->done ? "" : text, *c->label ? "  " : "", c->label,
                 c->missing ? "  skipped: " : "", c->missing ? c->missing : "");
  }
  if (shown < p->n && !common->quiet) (void)printf("  ... and %d more; -v shows all\n", p->n - shown);
  print_time(seconds, text, sizeof text);
  (void)printf(
      "%s: %d cell%s, %d there, %d to run; about %s (%s), %.0f MiB of memory per cell (limit %g GiB), %.1f MiB of "
      "disk; %s\n",
      p->x.name, p->n, p->n == 1 ? "" : "s", p->n_done, p->n - p->n_done, text, guessed ? "some of it a guess" : scaled ? "by the pace of earlier rows" : "from earlier rows",
      memory / 0x1p20, p->x.limit_gib, disk / 0x1p20, common->db);
}

static int print_json(const cli_common *common, const run_plan *p, ice_err *e) {
  json_t *cells = json_array();
  double seconds = 0.0;
  for (int i = 0; i < p->n; i++) {
    const run_cell *c = p->cell + i;
    if (!c->done) seconds += c->seconds;
    (void)json_array_append_new(cells,
                                json_pack("{s:o, s:b, s:f, s:b, s:f, s:s, s:b, s:b}", "cell", json_loads(c->json, 0, NULL),
                                          "done", c->done, "seconds", c->seconds, "known", c->known || c->scaled, "bytes",
                                          run_guess_bytes(p, c), "label", c->label, "partial", c->partial, "shares", c->shares));
  }
  const int whole = json_array_size(cells) == (size_t)p->n;
  json_t *o = json_pack("{s:s, s:s, s:i, s:i, s:f, s:o}", "experiment", p->x.name, "db", common->db, "cells_total",
                        p->n, "cells_done", p->n_done, "seconds", seconds, "cells", cells);
  char *text = o && whole ? json_dumps(o, JSON_INDENT(1)) : NULL;
  json_decref(o);
  if (!text) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)printf("%s\n", text);
  free(text);
  return ICE_OK;
}

static int plan_file(const cli_common *common, const char *file, const run_options *o, int json, ice_err *e) {
  run_plan p;
  store *s = NULL;
  ICE_TRY(run_plan_create(&p, file, o, e));
  int rc = ICE_OK;
  if (access(common->db, F_OK) == 0) { /* no database yet: nothing is there */
    rc = store_open(common->db, STORE_READ, &s, e);
    if (rc == ICE_OK) rc = run_plan_look_up(&p, s, o, e);
  }
  if (rc == ICE_OK) run_plan_estimate(&p, s);
  if (rc == ICE_OK && json)
    rc = print_json(common, &p, e);
  else if (rc == ICE_OK)
    print_text(common, &p);
  if (s) store_close(s);
  run_plan_destroy(&p);
  return rc;
}

static int plan_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  run_options o = {0};
  const char *file = NULL, *limit = NULL, *threads = NULL, *retry = NULL, *preset = NULL, *format = "text", **set = NULL;
  int files = 0;
  const cli_option spec[] = {{.name = "limit", .has_value = 1, .value = &limit},
                             {.name = "filter", .has_value = 1, .value = &o.filter},
                             {.name = "cells", .has_value = 1, .value = &o.cells},
                             {.name = "preset", .has_value = 1, .value = &preset},
                             {.name = "set", .has_value = 1, .list = &set},
                             {.name = "threads", .has_value = 1, .value = &threads},
                             {.name = "retry-failed", .value = &retry},
                             {.name = "format", .has_value = 1, .value = &format},
                             {.name = NULL}};
  int rc = cli_parse(argc, argv, spec, &file, 1, &files, e);
  if (rc == ICE_OK && files != 1)
    rc = ice_fail(e, ICE_USAGE, "plan: needs one file, e.g. icebench plan configs/quickstart.yaml");
  if (rc == ICE_OK) rc = run_read_numbers(limit, threads, &o, e);
  if (rc == ICE_OK && strcmp(format, "text") && strcmp(format, "json"))
    rc = ice_fail(e, ICE_USAGE, "--format = %s, allowed text, json", format);
  char *named = NULL;
  if (rc == ICE_OK) rc = cli_preset(preset, &set, &named, e);
  o.set = set;
  o.retry_failed = retry != NULL;
  if (rc == ICE_OK) rc = plan_file(common, file, &o, !strcmp(format, "json"), e);
  free((void *)set);
  free(named);
  return rc;
}

const cli_verb cli_verb_plan = {
    .name = "plan",
    .summary = "what `run` would do: cells, time, memory, disk",
    .help =
        "usage: icebench plan FILE.yaml [options]\n\n"
        "Lists the cells of the experiment, which of them the database has, and what the rest will take. Times come\n"
        "from earlier rows like it, first of this machine; a cell without such rows is guessed and scaled by how long other\n"
        "cells took; without any rows they are rough guesses. A cell marked + runs with the one above it on one index.\n"
        "Runs nothing.\n\n"
        "  --limit N, --filter KEY=VALUE,..., --set KEY=VALUE, --preset NAME, --cells FILE, --threads T,\n"
        "  --retry-failed       as for `icebench run`\n"
        "  --format text|json   (text)\n\n"
        "examples:\n"
        "  icebench plan configs/quickstart.yaml\n"
        "  icebench plan configs/quickstart.yaml --filter method=iceformer --format json\n",
    .main = plan_main,
};
