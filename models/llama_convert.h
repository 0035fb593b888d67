/* llama_convert.h - Llama models from one format to the other: Hugging Face folders and GGUF files. */
#ifndef ICE_LLAMA_CONVERT_H
#define ICE_LLAMA_CONVERT_H

#include "models/llama.h"
#include "models/matrix.h"
#include "models/tokenizer.h"

/** Writes the model as a GGUF file (a name that ends in .gguf), or else as a new folder with config.json, model.safetensors
 *  and, where there is a tokenizer (may be NULL), tokenizer.model and tokenizer_config.json. File and folder appear whole or
 *  not at all; ICE_USAGE when the folder exists.
 *
 *  type -1 keeps the storage of every matrix: nothing is lost either way, and a model that goes there and back is the same,
 *  byte for byte of its tensors. Two things follow the formats: vectors are F32 in GGUF and take the matrices' type again
 *  in a folder when that loses nothing; Q8_0 becomes F32 in a folder, which holds its values exactly. Otherwise matrices are
 *  stored as `type`, rounded to nearest; ICE_USAGE for Q8_0 in a folder or with rows that are no multiple of 32. */
int llama_write(llama *m, const tokenizer *t, int type, const char *path, ice_err *e);

/** The text of config.json for a configuration, whose matrices are stored as `type`; to free(), NULL when out of memory. */
char *llama_config_json(const llama_config *c, const tokenizer *t, matrix_type type);

#endif
