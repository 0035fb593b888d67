/* cmd_dump.c - verb `dump`: Q, K and V of a model run as a tape. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/dump.h"
#include "harness/run.h"
#include "harness/tape.h"

static volatile sig_atomic_t stop_signal;

static void on_signal(int number) { stop_signal = number; }

typedef struct dump_options {
  const char *file, *out;
  long long examples, min_tokens;
  int half;
} dump_options;

typedef struct recorder { /* one example on its way through the model */
  tape_writer *w;
  int64_t example;
  int input; /* -1 before the first call; a new input begins at layer 0 */
  int rc;
  ice_err err;
} recorder;

static void record(void *ctx, const encoder_call *call) {
  recorder *d = ctx;
  d->input += call->layer == 0;
  if (d->rc == ICE_OK) d->rc = tape_add(d->w, d->example, d->input, call, &d->err);
}

static int write_examples(tape_writer *w, const dump_source *s, cli_progress *progress, ice_err *e) {
  int rc = ICE_OK;
  for (int64_t i = 0; rc == ICE_OK && i < s->n; i++) {
    recorder d = {.w = w, .example = s->item[i], .input = -1};
    cli_progress_tick(progress, i, s->n, NULL);
    rc = s->pass(s->state, s->item[i], record, &d, e);
    if (d.rc != ICE_OK) *e = d.err, rc = d.rc;
    if (rc == ICE_OK && stop_signal) rc = ice_fail(e, 128 + (int)stop_signal, "interrupted; no tape was written");
  }
  return rc;
}

static int dump(const run_cell *c, const cell_job *job, const dump_options *o, int quiet, ice_err *e) {
  const dump_cell cell = {
      .job = job, .method = c->cell->method, .params = c->cell->params, .examples = o->examples, .min_tokens = o->min_tokens};
  dump_source s;
  tape_writer w = {0};
  cli_progress progress;
  if (c->cell->schedule) return ice_fail(e, ICE_USAGE, "dump: %s has a schedule; a tape takes one call for all heads of a layer", c->cell->method->name);
  cli_progress_start(&progress, "dump", !quiet);
  int rc = (c->cell->task->prompts ? dump_open_words : dump_open_classes)(&s, &cell, e);
  const tape_facts facts = {.task = job->task,
                            .model = c->cell->model,
                            .method = job->method,
                            .model_hash = c->model->hash,
                            .data_hash = c->data->hash,
                            .length = job->length,
                            .seed = job->seed,
                            .layers = s.layers,
                            .half = o->half};
  if (rc == ICE_OK) rc = tape_begin(&w, o->out, &facts, e);
  if (rc == ICE_OK) rc = write_examples(&w, &s, &progress, e);
  if (rc == ICE_OK) rc = tape_commit(&w, e);
  tape_abort(&w);
  cli_progress_end(&progress);
  if (rc == ICE_OK && !quiet)
    (void)printf("%s: %lld examples of %s, %d layers, %s; icebench attn --tape %s\n", o->out, (long long)s.n, facts.task,
                 facts.layers, o->half ? "f2" : "f4", o->out);
  dump_close(&s);
  return rc;
}

static int dump_file(const cli_common *common, const dump_options *o, const run_options *ro, ice_err *e) {
  const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}; /* a second one kills */
  run_plan p;
  ICE_TRY(run_plan_create(&p, o->file, ro, e));
  const run_cell *c = NULL;
  for (int i = 0; i < p.n && !c; i++)
    if ((p.cell[i].cell->method->caps & ATTN_CAP_EXACT) && !p.cell[i].cell->padded && !p.cell[i].missing) c = p.cell + i;
  int rc = c ? ICE_OK : ice_fail(e, ICE_USAGE, "%s: no exact method without padding among its cells; add dense to `methods`, or --set padding=skip", o->file);
  (void)sigaction(SIGINT, &action, NULL);
  (void)sigaction(SIGTERM, &action, NULL);
  if (rc == ICE_OK) {
    const cell_job job = run_job(&p, c, ro);
    rc = dump(c, &job, o, common->quiet, e);
  }
  run_plan_destroy(&p);
  return rc;
}

static int dump_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  dump_options o = {.examples = 4};
  run_options ro = {0};
  const char *limit = NULL, *threads = NULL, *tokens = NULL, *dtype = "f4", **set = NULL;
  int files = 0;
  const cli_option spec[] = {{.name = "out", .has_value = 1, .value = &o.out},
                             {.name = "limit", .has_value = 1, .value = &limit},
                             {.name = "min-tokens", .has_value = 1, .value = &tokens},
                             {.name = "dtype", .has_value = 1, .value = &dtype},
                             {.name = "filter", .has_value = 1, .value = &ro.filter},
                             {.name = "set", .has_value = 1, .list = &set},
                             {.name = "threads", .has_value = 1, .value = &threads},
                             {.name = NULL}};
  int rc = cli_parse(argc, argv, spec, &o.file, 1, &files, e);
  if (rc == ICE_OK && (files != 1 || !o.out))
    rc = ice_fail(e, ICE_USAGE, "dump: needs one file and a folder, e.g. icebench dump configs/quickstart.yaml --out tape");
  if (rc == ICE_OK) rc = run_read_numbers(NULL, threads, &ro, e);
  if (rc == ICE_OK && limit) rc = cli_int("limit", limit, 1, TAPE_MAX_CALLS, &o.examples, e);
  if (rc == ICE_OK && tokens) rc = cli_int("min-tokens", tokens, 1, 1 << 30, &o.min_tokens, e);
  if (rc == ICE_OK && strcmp(dtype, "f4") && strcmp(dtype, "f2"))
    rc = ice_fail(e, ICE_USAGE, "--dtype = %s, allowed f4, f2", dtype);
  o.half = !strcmp(dtype, "f2");
  ro.set = set;
  if (rc == ICE_OK) rc = dump_file(common, &o, &ro, e);
  free((void *)set);
  return rc;
}

const cli_verb cli_verb_dump = {
    .name = "dump",
    .summary = "write Q, K, V of a model run, to be replayed by attn",
    .help =
        "usage: icebench dump FILE.yaml --out DIR [options]\n\n"
        "Runs the model of an experiment on a few examples, with its first exact method in the attention slot, and\n"
        "writes Q, K and V of every layer as .npy with a manifest.json: a tape. `icebench attn --tape DIR` replays it.\n"
        "Of a language model that is the pass over the prompt; keys and values keep their number of heads.\n"
        "The folder appears whole or not at all; an existing one is never touched.\n\n"
        "  --out DIR        the new folder\n"
        "  --limit N        examples, drawn by the seed of the cell (4)\n"
        "  --min-tokens N   draw from examples of at least N tokens only\n"
        "  --dtype f4|f2    as computed, or rounded to half the size (f4)\n"
        "  --filter KEY=V,..  --set KEY=VALUE  --threads T   as for `icebench run`\n\n"
        "examples:\n"
        "  icebench dump configs/quickstart.yaml --limit 2 --out /tmp/tape\n"
        "  icebench attn --tape /tmp/tape --methods dense,topk,icecells\n"
        "  icebench dump configs/paper/longeval.yaml --filter task=longeval/lines,length=200 --limit 1 --dtype f2 --out /tmp/lines\n\n"
        "exit codes: 0 done, 2 usage, 7 data or model missing, 130/143 interrupted (nothing is left behind)\n",
    .main = dump_main,
};
