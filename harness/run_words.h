/* run_words.h - data and models of cells that are answered in words, for the list of cells (run_plan.c). */
#ifndef ICE_RUN_WORDS_H
#define ICE_RUN_WORDS_H

#include "harness/run.h"

/** The language model of a name, looked at once: models/checkpoints/NAME (a folder, or NAME.gguf), or a path. ICE_DATA when it is not there
 *  or cannot be read; the text says what to do. */
int run_words_model(run_plan *p, const char *name, const run_model **out, ice_err *e);
/** The prompts of a cell, looked at once for each task and length. Numbers of tokens are those of the longest prompt, and for the others a guess
 *  from it. ICE_USAGE when a prompt that may not be cut is too long for the model. */
int run_words_data(run_plan *p, const config_cell *cell, const run_model *m, const run_data **out, ice_err *e);

#endif
