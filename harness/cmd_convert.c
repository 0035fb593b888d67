/* cmd_convert.c - verb `convert`: Llama models between Hugging Face folders and GGUF files. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/cli.h"
#include "kernels/core/fileio.h"
#include "models/gguf.h"
#include "models/llama_convert.h"

static int read_type(const char *text, int *type, ice_err *e) {
  static const struct {
    const char *name;
    int type;
  } known[] = {{"keep", -1}, {"f32", MATRIX_F32}, {"f16", MATRIX_F16}, {"bf16", MATRIX_BF16}, {"q8_0", MATRIX_Q8_0}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(text, known[i].name)) {
      *type = known[i].type;
      return ICE_OK;
    }
  return ice_fail(e, ICE_USAGE, "--dtype = %s, allowed keep, f32, f16, bf16, q8_0", text);
}

/* The tokenizer of a model, *t = NULL where there is none. */
static int open_tokenizer(const char *path, tokenizer **t, ice_err *e) {
  char inside[FILE_PATH];
  struct stat st;
  *t = NULL;
  if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
    ICE_TRY(file_join(inside, path, "tokenizer.model", e));
    return file_is_regular(inside) ? tokenizer_open(t, inside, e) : ICE_OK;
  }
  gguf_file f;
  ICE_TRY(gguf_open(path, &f, e));
  const int has = gguf_find(&f, "tokenizer.ggml.model") != NULL;
  gguf_close(&f);
  return has ? tokenizer_open(t, path, e) : ICE_OK;
}

static int convert_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char *paths[2] = {NULL}, *dtype = "keep";
  int n = 0, type = -1;
  llama *m = NULL;
  tokenizer *t = NULL;
  const cli_option spec[] = {{.name = "dtype", .has_value = 1, .value = &dtype}, {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, paths, 2, &n, e));
  if (n != 2) return ice_fail(e, ICE_USAGE, "convert: needs a model and a new name, e.g. icebench convert my-folder my.gguf");
  ICE_TRY(read_type(dtype, &type, e));
  int rc = llama_open(&m, paths[0], e);
  if (rc == ICE_OK) rc = open_tokenizer(paths[0], &t, e);
  if (rc == ICE_OK) rc = llama_write(m, t, type, paths[1], e);
  if (rc == ICE_OK && !common->quiet)
    (void)printf("%s: %lld layers of width %lld, %.1f MiB of weights%s%s\n", paths[1], (long long)llama_config_of(m)->layers,
                 (long long)llama_config_of(m)->width, (double)llama_weight_bytes(m) / 0x1p20, type < 0 ? "" : ", stored anew as ",
                 type < 0 ? (t ? "" : "; without a tokenizer, which there was none of") : dtype);
  tokenizer_close(t);
  llama_close(m);
  return rc;
}

const cli_verb cli_verb_convert = {
    .name = "convert",
    .summary = "a Llama model from a Hugging Face folder to GGUF, or back",
    .help =
        "usage: icebench convert MODEL NEW [--dtype keep|f32|f16|bf16|q8_0]\n\n"
        "MODEL is a GGUF file or a Hugging Face folder (config.json, safetensors, tokenizer.model) of the Llama\n"
        "architecture. NEW is a GGUF file when its name ends in .gguf, otherwise a new folder. Both appear whole or not\n"
        "at all. Tensors keep their type and value, so that there and back is the same model (vectors are F32 in GGUF;\n"
        "Q8_0 becomes F32 in a folder, which holds the same numbers). Rows of q and k change places, because the formats\n"
        "pair rotary dimensions differently. The files run in llama.cpp and transformers.\n\n"
        "  --dtype TYPE     store the matrices as this type, rounded to nearest (keep)\n\n"
        "examples:\n"
        "  icebench convert vicuna-7b-v1.5-16k vicuna.gguf --dtype q8_0\n"
        "  icebench convert stories260K.f32.gguf stories\n\n"
        "exit codes: 0 done, 2 usage, 7 the model is missing, damaged or not supported\n",
    .main = convert_main,
};
