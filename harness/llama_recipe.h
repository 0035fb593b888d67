/* llama_recipe.h - trainings of Llama models: YAML in, a Hugging Face folder out. */
#ifndef ICE_LLAMA_RECIPE_H
#define ICE_LLAMA_RECIPE_H

#include "datasets/longeval_drill.h"
#include "harness/cli.h"
#include "harness/yaml.h"
#include "models/llama_train.h"

enum { LLAMA_RECIPE_TEXTS = 16, LLAMA_RECIPE_DRILLS = 8 };

typedef struct llama_recipe {
  const char *name, *out, *tokenizer, *init; /* init: NULL for random weights; texts live in the document */
  int prime; /* 1: random weights begin primed */
  const char *text[LLAMA_RECIPE_TEXTS];
  int texts;
  drill_plan drill[LLAMA_RECIPE_DRILLS]; /* conversations that are made while training */
  int drills;
  const char *words; /* NULL: none; a file of words for them */
  llama_config model; /* vocab 0: the tokenizer's */
  int64_t length, reach, batch, steps, warmup, save_every, seed, threads;
  double lr, decay, clip, prompt_weight;
} llama_recipe;

/** Is this the training of a Llama model? It names texts to learn. */
int llama_recipe_is_one(yaml_doc *doc);
/** Reads all of it, with defaults. ICE_USAGE with place, value and what is allowed. */
int llama_recipe_read(yaml_doc *doc, llama_recipe *out, ice_err *e);
/** Trains and writes out. stop as in train_run(), *stopped likewise. */
int llama_recipe_train(const cli_common *common, const llama_recipe *r, train_start start, const volatile sig_atomic_t *stop, int *stopped,
                       void (*report)(void *ctx, const train_event *ev), void *ctx, ice_err *e);

#endif
