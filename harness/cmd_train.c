/* cmd_train.c - verb `train`: one YAML file, one model. The recipe's keys are those of train.h. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/task.h"
#include "harness/cli.h"
#include "harness/llama_recipe.h"
#include "harness/recipe.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"
#include "models/train.h"
#include "version.h"

static volatile sig_atomic_t stop_requested, stop_signal;

static void on_signal(int signal_number) {
  stop_requested = 1;
  stop_signal = signal_number;
}

static void catch_signals(void) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}; /* a second one kills */
  (void)sigaction(SIGINT, &action, NULL);
  (void)sigaction(SIGTERM, &action, NULL);
}

typedef struct report_state {
  cli_progress progress;
  const cli_common *common;
} report_state;

static void report(void *ctx, const train_event *ev) {
  report_state *s = ctx;
  char note[160];
  int n = snprintf(note, sizeof note, "loss %.4f, %.1f sequences/s", ev->loss, ev->sequences_per_second);
  if (!isnan(ev->best_accuracy))
    (void)snprintf(note + n, sizeof note - (size_t)n, ", best dev accuracy %.4f at step %lld", ev->best_accuracy,
                   (long long)ev->best_step);
  cli_progress_tick(&s->progress, ev->step, ev->steps, note);
  if (!isnan(ev->dev_accuracy) && s->common->verbose)
    (void)fprintf(stderr, "step %lld: dev accuracy %.4f\n", (long long)ev->step, ev->dev_accuracy);
}

/* Everything that decides the weights, one line: a state is resumed only under the same text. */
static int describe(const recipe *r, const char *params, const task_data *train,
                    const task_data *dev, char *out, size_t size, ice_err *e) {
  char dev_part[96] = "";
  if (r->hold_out) (void)snprintf(dev_part, sizeof dev_part, " on %lld held out", (long long)r->hold_out);
  if (r->dev_examples) {
    const size_t n = strlen(dev_part);
    (void)snprintf(dev_part + n, sizeof dev_part - n, " on %lld", (long long)r->dev_examples);
  }
  int n = snprintf(out, size,
                   "task %s, train %016llx, dev %016llx, method %s %s %s%s, seed %lld, batch %lld, steps %lld, warmup %lld, "
                   "lr %.17g, dropout %.17g, eval every %lld%s, init %s",
                   r->task->name, (unsigned long long)train->hash, (unsigned long long)dev->hash, r->method->name,
                   r->method->version, params, r->shared_qk ? " shared-qk" : "", (long long)r->seed, (long long)r->batch, (long long)r->steps,
                   (long long)r->warmup, r->lr, r->dropout, (long long)r->eval_every, dev_part,
                   r->init ? r->init : "random");
  return n > 0 && (size_t)n < size ? ICE_OK : ice_fail(e, ICE_USAGE, "task and method names are too long");
}

static int train_loaded(const cli_common *common, const recipe *r, train_start start, const encoder *init, const task_data *train, const task_data *dev, ice_err *e) {
  const task *t = r->task;
  const attn_method *method = r->method;
  char text[2048], seed[32], *json = registry_params_json(method, r->params);
  int rc = json ? describe(r, json, train, dev, text, sizeof text, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) {
    (void)snprintf(seed, sizeof seed, "%lld", (long long)r->seed);
    const char *meta[] = {"name", r->name, "task", t->name, "attention", method->caps & ATTN_CAP_EXACT ? "softmax" : method->name, "attention_params", json, "seed", seed, "commit", ICE_GIT_COMMIT, NULL};
    const train_config cfg = {.model = init->cfg,
                              .method = method,
                              .params = r->params,
                              .seed = (uint64_t)r->seed,
                              .init = init->params,
                              .batch = (int)r->batch,
                              .threads = (int)r->threads,
                              .steps = r->steps,
                              .warmup = r->warmup,
                              .lr = r->lr,
                              .dropout = r->dropout,
                              .eval_every = r->eval_every,
                              .save_every = r->save_every,
                              .out = r->out,
                              .description = text,
                              .meta = meta};
    report_state state = {.common = common};
    int stopped;
    catch_signals();
    cli_progress_start(&state.progress, r->name, !common->quiet);
    rc = train_run(&cfg, train, dev, start, &stop_requested, &stopped, report, &state, e);
    cli_progress_end(&state.progress);
    if (stopped) rc = 128 + (int)stop_signal;
    if (rc == ICE_OK && !common->quiet) (void)printf("%s: best weights by dev accuracy, log beside it\n", r->out);
  }
  free(json);
  return rc;
}

/* Random weights by seed, and over them whatever tensors of r->init have the same name and shape. */
static int make_start(const recipe *r, encoder *start, ice_err *e) {
  const task *t = r->task;
  encoder_config cfg = encoder_lra_config(t->vocab, t->positions, t->classes, t->inputs);
  encoder from;
  cfg.shared_qk = r->shared_qk;
  ICE_TRY(encoder_config_attention(&cfg, r->method, r->params, e));
  if (r->init) ICE_TRY(encoder_load(&from, r->init, e));
  int rc = encoder_create(start, &cfg, e);
  if (rc == ICE_OK) encoder_init(start, (uint64_t)r->seed);
  if (rc == ICE_OK && r->init && encoder_take(start, &from) == 0)
    rc = ice_fail(e, ICE_USAGE, "init: no tensor of %s has name and shape of one in the model of %s", r->init, t->name);
  if (r->init) encoder_destroy(&from);
  return rc;
}

static int train_recipe(const cli_common *common, const recipe *r, train_start start, ice_err *e) {
  task_data train, dev;
  ICE_TRY(task_load(r->task, TASK_TRAIN, &train, e));
  int rc = r->hold_out ? task_hold_out(&train, r->hold_out, &dev, e) : task_load(r->task, TASK_DEV, &dev, e);
  if (rc == ICE_OK && r->dev_examples) {
    rc = task_draw(&dev, r->dev_examples, e);
    if (rc != ICE_OK) task_data_free(&dev);
  }
  if (rc == ICE_OK) {
    encoder init = {0};
    rc = make_start(r, &init, e);
    if (rc == ICE_OK) rc = train_loaded(common, r, start, &init, &train, &dev, e);
    encoder_destroy(&init);
    task_data_free(&dev);
  }
  task_data_free(&train);
  return rc;
}

static int train_llama(const cli_common *common, yaml_doc *doc, train_start start, ice_err *e) {
  llama_recipe r;
  report_state state = {.common = common};
  int stopped;
  ICE_TRY(llama_recipe_read(doc, &r, e));
  catch_signals();
  cli_progress_start(&state.progress, r.name, !common->quiet);
  int rc = llama_recipe_train(common, &r, start, &stop_requested, &stopped, report, &state, e);
  cli_progress_end(&state.progress);
  return stopped ? 128 + (int)stop_signal : rc;
}

static int train_file(const cli_common *common, yaml_doc *doc, train_start start, ice_err *e) {
  recipe r;
  int rc = recipe_read(doc, &r, e);
  if (rc == ICE_OK) rc = train_recipe(common, &r, start, e);
  recipe_free(&r);
  return rc;
}

static int train_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char *resume = NULL, *force = NULL, *file = NULL;
  int files = 0;
  const cli_option spec[] = {{.name = "resume", .value = &resume}, {.name = "force", .value = &force}, {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, &file, 1, &files, e));
  if (files != 1) return ice_fail(e, ICE_USAGE, "train: needs one file, e.g. icebench train configs/train/lra-listops-softmax.yaml");
  if (resume && force) return ice_fail(e, ICE_USAGE, "train: --resume goes on from a state, --force drops it; choose one");
  const train_start start = resume ? TRAIN_RESUME : force ? TRAIN_FORCE : TRAIN_NEW;
  yaml_doc *doc;
  ICE_TRY(yaml_read(file, &doc, e));
  const int rc = llama_recipe_is_one(doc) ? train_llama(common, doc, start, e) : train_file(common, doc, start, e);
  yaml_close(doc);
  return rc;
}

const cli_verb cli_verb_train = {
    .name = "train",
    .summary = "train a model",
    .help = "usage: icebench train FILE.yaml [--resume | --force]\n"
            "\n"
            "Trains the LRA encoder with the recipe in FILE and writes the best weights by dev accuracy (safetensors),\n"
            "a log (CSV) beside them, and every few steps a state (FILE.safetensors.state) to go on from.\n"
            "The same file and data give the same bits, on any number of threads, killed and resumed or not.\n"
            "\n"
            "  --resume   go on from the state, if there is one\n"
            "  --force    start anew although there is a state\n"
            "\n"
            "keys of FILE (defaults):\n"
            "  name, task, out            needed: a name, a task of `icebench list tasks`, the checkpoint to write\n"
            "  method (dense)             an attention that can be trained; with parameters: {performer: {features: 128}}\n"
            "  shared_qk (false)          true: keys are the queries, the model has no W_k\n"
            "  init                       a checkpoint to start from: tensors of the same name and shape are taken, others are random\n"
            "  seed (1)  batch (32)  steps (5000)  warmup (a fifth of steps)  lr (1e-4, the peak)  dropout (0.1)\n"
            "  eval_every, save_every (100)   steps between evaluations on the dev split, and between states\n"
            "  dev_examples (all)         how many of the dev split an evaluation takes, always the same\n"
            "  hold_out                   so many training examples serve as dev split: for tasks whose dev split is the test split\n"
            "  threads (all cores)\n"
            "\n"
            "A file with `text` or `drills` trains a Llama model on token streams and writes a Hugging Face folder in bf16. Its keys:\n"
            "  name, out, tokenizer       needed: a name, the new folder, a tokenizer.model (or a model that has one)\n"
            "  text                       a file or a list of them, drawn from evenly: plain text, or .jsonl with `text`, or with\n"
            "                             `prompt` and `answer` (expected_number)\n"
            "  drills                     conversations made while training, each a source of its own, as a list of\n"
            "                             {kind: lines | topics | repeat | words, least, most, turns, exchanges, bare, weight}: least to\n"
            "                             most lines, talks or words; turns: questions on the lines; exchanges: longest talk; bare: nothing\n"
            "                             around them; weight (1): what the tokens of its answers count\n"
            "  words                      a file of words, one a line, for their names and topics (Debian: /usr/share/dict/words)\n"
            "  model                      {width: 256, layers: 6, heads: 4, kv_heads, head_dim, mlp: 688, context: 2048, norm_eps, rope_base,\n"
            "                             rope_scale, tied}; context is stretched by rope_scale\n"
            "  init                       a folder or GGUF file of the same sizes to start from\n"
            "  prime (false)              true: heads begin by looking back and looking up, for models that are to find things in their context\n"
            "  reach (length)             positions of a sequence are spread over so many, by gaps (PoSE)\n"
            "  length (512)  batch (8)  steps (1000)  warmup (a twentieth)  lr (1e-3)  decay (0.1)  clip (1)\n"
            "  prompt_weight (1)          how much predictions inside prompts count\n"
            "  seed (1)  save_every (100)  threads (all cores)\n"
            "\n"
            "Ctrl-C saves the state and exits 130.\n"
            "\n"
            "examples:\n"
            "  icebench data make lra/listops --seed 1\n"
            "  icebench train configs/train/lra-listops-softmax.yaml\n"
            "  icebench train configs/train/lra-listops-softmax.yaml --resume\n",
    .main = train_main,
};
