/* cmd_check.c - verb `check`: is an experiment file right, and what would it run? */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "harness/cli.h"
#include "harness/config.h"

static int print_json(const config_experiment *x, ice_err *e) {
  json_t *cells = json_array();
  for (int i = 0; i < x->n_cells; i++) {
    char *one = config_cell_json(x, &x->cell[i]);
    (void)json_array_append_new(cells, one ? json_loads(one, 0, NULL) : NULL);
    free(one);
  }
  json_t *o = json_pack("{s:s, s:s, s:i, s:o}", "file", x->file, "name", x->name, "threads", x->threads, "cells", cells);
  char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
  json_decref(o);
  if (!text) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)printf("%s\n", text);
  free(text);
  return ICE_OK;
}

static void print_text(const config_experiment *x, int verbose) {
  (void)printf("%s: ok, experiment %s, %d cells\n", x->file, x->name, x->n_cells);
  for (int i = 0; i < x->n_cells; i++) {
    const config_cell *c = &x->cell[i];
    if (!verbose && i == 40 && x->n_cells > 50) {
      (void)printf("  ... and %d more; -v shows all\n", x->n_cells - i);
      break;
    }
    (void)printf("  %s  %s  seed %llu  %s %s\n", c->task->name, c->model, (unsigned long long)c->seed, c->method->name,
                 c->params_json);
  }
}

static int check_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char *file = NULL, *format = "text", **set = NULL;
  int files = 0;
  const cli_option spec[] = {{.name = "format", .has_value = 1, .value = &format},
                             {.name = "set", .has_value = 1, .list = &set},
                             {.name = NULL}};
  config_experiment x = {0};
  int rc = cli_parse(argc, argv, spec, &file, 1, &files, e);
  if (rc == ICE_OK && files != 1) rc = ice_fail(e, ICE_USAGE, "check: needs one file, e.g. icebench check configs/quickstart.yaml");
  if (rc == ICE_OK && strcmp(format, "text") && strcmp(format, "json"))
    rc = ice_fail(e, ICE_USAGE, "--format = %s, allowed text, json", format);
  if (rc == ICE_OK) rc = config_load(file, set, &x, e);
  if (rc == ICE_OK && !strcmp(format, "json")) rc = print_json(&x, e);
  else if (rc == ICE_OK && !common->quiet) print_text(&x, common->verbose);
  config_free(&x);
  free((void *)set);
  return rc;
}

const cli_verb cli_verb_check = {
    .name = "check",
    .summary = "validate an experiment file",
    .help = "usage: icebench check FILE.yaml [--set KEY=VALUE] [--format text|json]\n"
            "\n"
            "Reads an experiment, names the first fault with file, line, column, key, value and what is allowed,\n"
            "and otherwise lists the cells it multiplies out to. Runs nothing.\n"
            "\n"
            "keys of FILE (defaults):\n"
            "  name                 needed; rows carry it\n"
            "  task, model          needed; a name or a list. A model is an id (lra/listops/softmax) or a path\n"
            "  methods              needed; a list of `- dense` or `- iceformer: {k: [8, 16], comp: 2}`; lists multiply out\n"
            "  examples (all)       of the split, drawn by seed             split (test)   or dev\n"
            "  seeds ([1])          threads (all cores, or $ICEBENCH_THREADS)\n"
            "  measure:             {rounds: 9, warmup: 1, inputs: 16, max_seconds: 120, quality: true}\n"
            "  limits:              {seconds: 600, memory_gib: 8}   of one cell\n"
            "  exclude              a list of mappings such as {method: iceformer, k: 32}: cells that match are left out\n"
            "  no_retraining (false)  true: methods that need training run in models trained with another; rows say so\n"
            "\n"
            "examples:\n"
            "  icebench check configs/quickstart.yaml\n"
            "  icebench check configs/quickstart.yaml --set 'iceformer.k=8|64' --set measure.rounds=3\n",
    .main = check_main,
};
