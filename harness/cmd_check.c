/* cmd_check.c - verb `check`: is a file right, and what would it run? */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "harness/aims.h"
#include "harness/cli.h"
#include "harness/config.h"
#include "harness/llama_recipe.h"
#include "harness/recipe.h"

enum { SHOWN = 40 }; /* cells without -v */

static json_t *experiment_json(const config_experiment *x) {
  json_t *cells = json_array();
  for (int i = 0; i < x->n_cells; i++) {
    char *one = config_cell_json(x, &x->cell[i]);
    (void)json_array_append_new(cells, one ? json_loads(one, 0, NULL) : NULL);
    free(one);
  }
  return json_pack("{s:s, s:s, s:s, s:I, s:s, s:i, s:{s:i, s:i, s:I, s:f, s:b}, s:{s:f, s:f}, s:b, s:i, s:o}", "file",
                   x->file, "kind", "experiment", "name", x->name, "examples", (json_int_t)x->examples, "split",
                   task_split_name(x->split), "threads", x->threads, "measure", "rounds", x->rounds, "warmup",
                   x->warmup, "inputs", (json_int_t)x->timed, "max_seconds", x->max_seconds, "quality", x->quality,
                   "limits", "seconds", x->limit_seconds, "memory_gib", x->limit_gib, "no_retraining",
                   x->allow_untrained_swap, "n_cells", x->n_cells, "cells", cells);
}

static void experiment_text(const config_experiment *x, const cli_common *common) {
  char examples[32] = "all";
  if (x->examples) (void)snprintf(examples, sizeof examples, "%lld", (long long)x->examples);
  (void)printf("%s: ok, experiment %s, %d cell%s\n", x->file, x->name, x->n_cells, x->n_cells == 1 ? "" : "s");
  if (common->quiet) return;
  (void)printf("  %s examples of split %s, %d thread%s; %d rounds on %lld inputs, at most %g s; limits of a cell %g s, "
               "%g GiB\n",
               examples, task_split_name(x->split), x->threads, x->threads == 1 ? "" : "s", x->rounds,
               (long long)x->timed, x->max_seconds, x->limit_seconds, x->limit_gib);
  for (int i = 0; i < x->n_cells; i++) {
    const config_cell *c = &x->cell[i];
    if (!common->verbose && i == SHOWN && x->n_cells > SHOWN + 10) {
      (void)printf("  ... and %d more; -v shows all\n", x->n_cells - i);
      break;
    }
    (void)printf("  %s  %s  seed %llu  %s %s\n", c->task->name, c->source ? c->source : c->model, (unsigned long long)c->seed, c->method->name,
                 c->params_json);
  }
}

/* Each preset of the file, chosen beside the overrides: a fault in one is a fault of the file. */
static int check_presets(const config_experiment *x, const char *const *set, ice_err *e) {
  size_t n = 0;
  while (set && set[n]) n++;
  const char **with = calloc(n + 2, sizeof *with), *preset;
  int rc = with ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  for (size_t i = 0; with && i < n; i++) with[i] = set[i];
  for (int i = 0; rc == ICE_OK && (preset = config_preset(x, i)) != NULL; i++) {
    char choice[YAML_MAX_KEY_BYTES + 8];
    config_experiment chosen;
    (void)snprintf(choice, sizeof choice, "preset=%.*s", YAML_MAX_KEY_BYTES, preset);
    with[n] = choice;
    rc = config_load(x->file, with, &chosen, e);
    config_free(&chosen);
  }
  free((void *)with);
  return rc;
}

static int is_preset(const char *const *set) {
  while (set && *set && strncmp(*set, "preset=", 7)) set++;
  return set && *set;
}

static int check_experiment(const cli_common *common, const char *file, const char *const *set, int json, ice_err *e) {
  config_experiment x;
  int rc = config_load(file, set, &x, e);
  if (rc == ICE_OK && !is_preset(set)) rc = check_presets(&x, set, e);
  if (rc == ICE_OK && json)
    rc = cli_print_json(experiment_json(&x), e);
  else if (rc == ICE_OK)
    experiment_text(&x, common);
  config_free(&x);
  return rc;
}

static int check_training(const char *file, const recipe *r, const char *const *set, int json, ice_err *e) {
  if (set) return ice_fail(e, ICE_USAGE, "--set %s: %s is a training, which takes no overrides", set[0], file);
  if (json)
    return cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s?, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "file",
                                    file, "kind", "training", "name", r->name, "task", r->task->name, "method",
                                    r->method->name, "out", r->out, "init", r->init, "seed", (json_int_t)r->seed, "batch",
                                    (json_int_t)r->batch, "steps", (json_int_t)r->steps, "warmup", (json_int_t)r->warmup,
                                    "threads", (json_int_t)r->threads, "lr", r->lr, "dropout", r->dropout),
                          e);
  (void)printf("%s: ok, training %s on %s with %s: %lld steps of %lld sequences, writes %s\n", file, r->name,
               r->task->name, r->method->name, (long long)r->steps, (long long)r->batch, r->out);
  return ICE_OK;
}

static int check_llama(const char *file, yaml_doc *doc, const char *const *set, int json, ice_err *e) {
  llama_recipe r;
  if (set) return ice_fail(e, ICE_USAGE, "--set %s: %s is a training, which takes no overrides", set[0], file);
  ICE_TRY(llama_recipe_read(doc, &r, e));
  if (json)
    return cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:s?, s:I, s:I, s:I, s:I}", "file", file, "kind", "training", "name", r.name, "out",
                                    r.out, "tokenizer", r.tokenizer, "init", r.init, "layers", (json_int_t)r.model.layers, "length",
                                    (json_int_t)r.length, "batch", (json_int_t)r.batch, "steps", (json_int_t)r.steps),
                          e);
  (void)printf("%s: ok, training %s of a Llama model: %lld steps of %lld sequences of %lld tokens, writes %s\n", file, r.name, (long long)r.steps,
               (long long)r.batch, (long long)r.length, r.out);
  return ICE_OK;
}

static int read_training(const char *file, yaml_doc *doc, const char *const *set, int json, ice_err *e) {
  recipe r;
  if (llama_recipe_is_one(doc)) return check_llama(file, doc, set, json, e);
  int rc = recipe_read(doc, &r, e);
  if (rc == ICE_OK) rc = check_training(file, &r, set, json, e);
  recipe_free(&r);
  return rc;
}

static int check_aims(const char *file, const char *const *set, int json, ice_err *e) {
  aims a;
  if (set) return ice_fail(e, ICE_USAGE, "--set %s: %s is a table of aims, which takes no overrides", set[0], file);
  ICE_TRY(aims_read(&a, file, e));
  int rc = ICE_OK;
  if (json)
    rc = cli_print_json(json_pack("{s:s, s:s, s:i}", "file", file, "kind", "aims", "aims", a.n), e);
  else
    (void)printf("%s: ok, %d aims; icebench gate %s measures them\n", file, a.n, file);
  aims_free(&a);
  return rc;
}

static int check_file(const cli_common *common, const char *file, const char *const *set, int json, ice_err *e) {
  yaml_doc *doc;
  ICE_TRY(yaml_read(file, &doc, e));
  const int training = recipe_is_one(doc), table = aims_is_one(doc);
  int rc = training ? read_training(file, doc, set, json, e) : ICE_OK;
  yaml_close(doc);
  return training ? rc : table ? check_aims(file, set, json, e) : check_experiment(common, file, set, json, e);
}

/* Every file is looked at; the faults of all but the last one are printed here, that one by the caller. */
static int check_files(const cli_common *common, const char **file, int n, const char *const *set, int json,
                       ice_err *e) {
  int faults = 0, code = ICE_OK;
  for (int i = 0; i < n; i++) {
    ice_err own = {0};
    int rc = check_file(common, file[i], set, json, &own);
    if (rc == ICE_OK) continue;
    if (faults++) (void)fprintf(stderr, "icebench: %s\n", e->text);
    code = rc;
    *e = own;
  }
  return code;
}

static int check_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char **file = calloc((size_t)argc, sizeof *file), *format = "text", *preset = NULL, **set = NULL;
  char *named = NULL;
  int files = 0, json = 0;
  const cli_option spec[] = {{.name = "format", .has_value = 1, .value = &format},
                             {.name = "set", .has_value = 1, .list = &set},
                             {.name = "preset", .has_value = 1, .value = &preset},
                             {.name = NULL}};
  int rc = file ? cli_parse(argc, argv, spec, file, argc, &files, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) rc = cli_format(format, &json, e);
  if (rc == ICE_OK) rc = cli_preset(preset, &set, &named, e);
  if (rc == ICE_OK && files == 0)
    rc = ice_fail(e, ICE_USAGE, "check: needs a file, e.g. icebench check configs/quickstart.yaml");
  if (rc == ICE_OK && json && files > 1)
    rc = ice_fail(e, ICE_USAGE, "check: --format json takes one file, given %d", files);
  if (rc == ICE_OK) rc = check_files(common, file, files, set, json, e);
  free((void *)file);
  free((void *)set);
  free(named);
  return rc;
}

const cli_verb cli_verb_check = {
    .name = "check",
    .summary = "validate experiments and trainings",
    .help =
        "usage: icebench check FILE.yaml... [--set KEY=VALUE] [--preset NAME] [--format text|json]\n"
        "\n"
        "Reads each file, names its first fault with file, line, column, key, value and what is allowed (exit code "
        "2),\n"
        "and otherwise lists the cells it multiplies out to. Runs nothing. Files of trainings (they have a key `out`)\n"
        "are checked too; icebench train --help tells their keys. So are tables of aims (icebench gate --help).\n"
        "\n"
        "keys of an experiment (defaults):\n"
        "  name                 needed; rows carry it. Letters, digits, '.', '_', '-', the first neither '.' nor '-'\n"
        "  task, model          needed; a value or a list. A model is an id TASK/NAME (lra/listops/softmax) or the "
        "path of\n"
        "                       a checkpoint; an id goes with its own task, a path with every task\n"
        "  shape                instead of a model, for task: synth/gauss, synth/clustered, synth/lowrank:\n"
        "                       {h: 1, n: [1024, 4096], d: [32, 64], causal: [false, true]}; see icebench attn --help\n"
        "                       nk (n): keys, when there are more or fewer of them than the n queries\n"
        "  lengths              of longeval/lines and longeval/topics, needed there: [200, 300], numbers of lines or topics; for both\n"
        "                       tasks in one file {lines: [200, 300], topics: [5, 10]}. Tasks of words take any language model:\n"
        "                       an id (icelm), a Hugging Face folder, a .gguf file\n"
        "  template (vicuna)    of tasks of words: how a model is addressed; or plain, the message alone\n"
        "  answer_tokens (the task's), context (the model's)   of tasks of words: most new tokens; prompt and answer together\n"
        "  methods              needed; a list of `- dense` or `- iceformer: {k: [8, 16], comp: 2}`; lists multiply "
        "out\n"
        "                       (icebench show METHOD tells parameters, ranges, defaults); or the word all\n"
        "  schedule             among the parameters of a method: values by layer and head, {k: [[8, 64], 32]}: a list of layers, each a\n"
        "                       list of heads or one value for all of them; models of classes only (icebench explain writes some)\n"
        "  examples (all)       of the split, drawn by seed             split (test)   or dev\n"
        "  seeds (1)            a value or a list, 0 or more            threads (all cores, or $ICEBENCH_THREADS) "
        "1..256\n"
        "  measure.rounds (9)         1..1000, rounds of timing         measure.warmup (1)     0..100 before them\n"
        "  measure.inputs (16)        1..4096, examples timed           measure.quality (true) errors, mass, recall\n"
        "  measure.processes (1)      1..100, processes that time a cell one after the other, each of so many rounds; only the first\n"
        "                             judges. From 6 on `compare` tells small changes from what hinders a process for all its life\n"
        "  measure.max_seconds (120)  budget of the timed rounds\n"
        "  measure.precision (0)      go on, up to measure.max_rounds (200), until the intervals of the speed-ups are narrower than\n"
        "                             this share of them; a row that did not get there says so\n"
        "  measure.noise (0)          measure a cell anew, up to measure.retries (2) times, when a fixed kernel before and after it\n"
        "                             differs by more than this share, or the machine throttled or swapped; in vain: invalid-noise\n"
        "  measure.affinity (false)   pin a cell to as many cores as it has threads; not where cells run side by side\n"
        "  measure.slowdown (0)       slow the method by this share, to try the instrument; the rows say so\n"
        "  limits.seconds (600), limits.memory_gib (8)   of one cell; beyond: a row `timeout` or `oom`\n"
        "  padding (skip)       or compute, or both: [skip, compute]. compute fills sequences up to the model's length, as the\n"
        "                       PyTorch baselines do; baselines of the speed-ups do the same, and rows say so\n"
        "  exclude              a list of mappings such as {method: iceformer, k: [16, 32], levels: 2}: cells that "
        "agree\n"
        "                       with all of it are left out; keys method, its parameters, task, model, seed, length, padding; of tensors\n"
        "                       h, n, nk, d, causal too\n"
        "  when                 among the parameters of a method: - vanilla: {when: {n: [1024, 4096]}} has cells only "
        "where\n"
        "                       all of it agrees; keys as for exclude\n"
        "  shuffle              a seed: cells run in a random order\n"
        "  presets              {NAME: {examples: 50, measure.rounds: 3}}: overrides that --preset NAME chooses; rows are\n"
        "                       stored under the experiment name-NAME. smoke (16 examples, 2 rounds) and full (the file as "
        "it\n"
        "                       is) are always there; a file may add to them.\n"
            "                       Faults of a preset are found here, and when it is chosen\n"
        "  base                 another experiment's file, by its path from this one: all of it, under this file's name, with the other keys\n"
        "                       of this file as overrides (those that a preset may have): one table, and a file for each of its parts\n"
        "  pairs (all)          or trained: methods that need training run in the model named after them only (lra/listops/\n"
        "                       reformer), all others in models of exact attention only (.../softmax, .../softmax-sharedqk)\n"
        "  missing (fail)       or skip: cells without data or checkpoint become rows that say what to fetch or train\n"
        "  no_retraining (false)  true: methods that need training run in models trained with another; rows say so\n"
        "\n"
        "A list may hold ranges, or be one: {from: 8, to: 64, mult: 2} is [8, 16, 32, 64], {from: 1, to: 7, step: 3} is "
        "[1, 4, 7].\n"
        "--set overrides the file: top-level values, measure.KEY, limits.KEY, shape.KEY, METHOD.PARAMETER; a|b|c is a list.\n"
        "Limits: files of 1 MiB, lists of 1,000 values, 100,000 cells. No anchors, aliases, tags.\n"
        "\n"
        "examples:\n"
        "  icebench check configs/quickstart.yaml\n"
        "  icebench check configs/*/*.yaml -q\n"
        "  icebench check configs/quickstart.yaml --set 'iceformer.k=8|64' --set measure.rounds=3\n",
    .main = check_main,
};
