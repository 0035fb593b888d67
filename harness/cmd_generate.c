/* cmd_generate.c - verb `generate`: a prompt through a Llama model with any attention in its slots; answer, times, memory. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli.h"
#include "harness/number.h"
#include "harness/registry/registry.h"
#include "harness/roofline.h"
#include "kernels/core/alloc.h"
#include "kernels/core/fileio.h"
#include "kernels/core/rng.h"
#include "models/llama.h"
#include "models/tokenizer.h"

#define PROMPT_MAX ((size_t)1 << 28)

typedef struct generate_options {
  const char *model, *prompt, *file, *method, **set, *dense_layers;
  long long tokens, threads, seed, dense_below, random_tokens;
  double rope_scale;
  int decode_dense, json, sgemm;
} generate_options;

typedef struct session { /* everything a generation holds */
  llama *model;
  tokenizer *t;
  llama_slot slot;
  void *params;
  uint8_t *dense_layer;
  llama_run *run;
  int32_t *ids, *out;
  int64_t n, n_out;
  uint64_t *layer_ns;
  llama_cost cost;
  roofline roof;
} session;

/* --- what is asked for -------------------------------------------------------------------------------------------- */

/* "random:7b,layers=2": a shape with random weights. */
static int random_shape(const char *text, llama_config *c, ice_err *e) {
  char copy[256];
  *c = (llama_config){.vocab = 32000, .width = 4096, .layers = 32, .heads = 32, .kv_heads = 32, .head_dim = 128, .mlp = 11008,
                      .context = 1 << 20, .norm_eps = 1e-5f, .rope_base = 10000.0f, .rope_scale = 1.0f};
  const struct {
    const char *key;
    int64_t *value;
  } field[] = {{"vocab", &c->vocab},       {"width", &c->width},       {"layers", &c->layers}, {"heads", &c->heads},
               {"kv_heads", &c->kv_heads}, {"head_dim", &c->head_dim}, {"mlp", &c->mlp}};
  if (strlen(text) >= sizeof copy) return ice_fail(e, ICE_USAGE, "%s: at most %zu characters", text, sizeof copy - 1);
  (void)strcpy(copy, text);
  char *save = NULL, *word = strtok_r(copy, ",", &save);
  if (!word || strcmp(word, "7b")) return ice_fail(e, ICE_USAGE, "random:%s: begins with 7b, e.g. random:7b,layers=2", text);
  while ((word = strtok_r(NULL, ",", &save)) != NULL) {
    char *value = strchr(word, '=');
    size_t i = 0;
    if (value) *value++ = '\0';
    while (i < sizeof field / sizeof *field && strcmp(word, field[i].key) != 0) i++;
    if (!value || i == sizeof field / sizeof *field || !number_int(value, 1, 1 << 24, field[i].value))
      return ice_fail(e, ICE_USAGE, "random:%s: %s; allowed vocab, width, layers, heads, kv_heads, head_dim, mlp = whole numbers", text, word);
  }
  return ICE_OK;
}

static int open_model(const generate_options *o, session *s, ice_err *e) {
  llama_config c;
  if (strncmp(o->model, "random:", 7) != 0) {
    ICE_TRY(llama_open(&s->model, o->model, e));
    ICE_TRY(tokenizer_open(&s->t, o->model, e));
  } else {
    if (!o->random_tokens) return ice_fail(e, ICE_USAGE, "generate: a random model has no tokenizer; give --random-tokens N");
    ICE_TRY(random_shape(o->model + 7, &c, e));
    ICE_TRY(llama_random(&s->model, &c, (uint64_t)o->seed, e));
  }
  return o->rope_scale > 0.0 ? llama_set_rope_scale(s->model, (float)o->rope_scale, e) : ICE_OK;
}

static int read_prompt(const generate_options *o, session *s, ice_err *e) {
  file_map map = {0};
  if (o->random_tokens) {
    attn_rng rng;
    attn_rng_seed(&rng, (uint64_t)o->seed, 0);
    s->n = o->random_tokens;
    s->ids = malloc((size_t)s->n * sizeof *s->ids);
    if (!s->ids) return ice_fail(e, ICE_INTERNAL, "out of memory");
    for (int64_t i = 0; i < s->n; i++) s->ids[i] = (int32_t)attn_rng_below(&rng, (uint64_t)llama_config_of(s->model)->vocab);
    return ICE_OK;
  }
  if (o->prompt) return tokenizer_encode(s->t, o->prompt, strlen(o->prompt), 1, &s->ids, &s->n, e);
  ICE_TRY(file_open_map(o->file, PROMPT_MAX, &map, e));
  const int rc = tokenizer_encode(s->t, (const char *)map.p, map.n, 1, &s->ids, &s->n, e);
  file_close_map(&map);
  return rc;
}

static int read_layers(const generate_options *o, session *s, ice_err *e) {
  const int64_t layers = llama_config_of(s->model)->layers;
  if (!o->dense_layers) return ICE_OK;
  s->dense_layer = attn_calloc((size_t)layers);
  if (!s->dense_layer) return ice_fail(e, ICE_INTERNAL, "out of memory");
  char *copy = strdup(o->dense_layers), *save = NULL;
  int rc = copy ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  for (char *word = copy ? strtok_r(copy, ",", &save) : NULL; rc == ICE_OK && word; word = strtok_r(NULL, ",", &save)) {
    int64_t l;
    if (number_int(word, 0, layers - 1, &l)) s->dense_layer[l] = 1;
    else rc = ice_fail(e, ICE_USAGE, "--dense-layers: %s, allowed whole numbers 0..%lld", word, (long long)layers - 1);
  }
  free(copy);
  s->slot.dense_layer = s->dense_layer;
  return rc;
}

static int read_slot(const generate_options *o, session *s, ice_err *e) {
  const attn_method *m = registry_find(o->method, e);
  if (!m) return e->code;
  s->params = registry_defaults(m);
  if (!s->params) return ice_fail(e, ICE_INTERNAL, "out of memory");
  for (const char **set = o->set; set && *set; set++) {
    char key[64];
    const char *value = strchr(*set, '=');
    if (!value || value == *set || (size_t)(value - *set) >= sizeof key) return ice_fail(e, ICE_USAGE, "--set %s: KEY=VALUE is needed", *set);
    memcpy(key, *set, (size_t)(value - *set));
    key[value - *set] = '\0';
    const attn_param *p = registry_param(m, key, e);
    if (!p) return e->code;
    ICE_TRY(registry_param_set(m, p, value + 1, s->params, e));
  }
  s->slot = (llama_slot){.attention = {.method = m, .params = s->params, .seed = (uint64_t)o->seed, .threads = (int)o->threads},
                         .dense_below = o->dense_below,
                         .decode_dense = o->decode_dense};
  return read_layers(o, s, e);
}

/* --- what is told ------------------------------------------------------------------------------------------------- */

/* Flops of the products of a prompt: all matrices but the embedding, the head for one token. */
static double product_flops(const llama_config *c, int64_t n) {
  const double w = (double)c->width, keys = (double)(c->heads * c->head_dim), kv = (double)(c->kv_heads * c->head_dim);
  return 2.0 * (double)n * (double)c->layers * w * (2.0 * keys + 2.0 * kv + 3.0 * (double)c->mlp) + 2.0 * w * (double)c->vocab;
}

static json_t *numbers(const uint64_t *v, int64_t n) {
  json_t *a = json_array();
  for (int64_t i = 0; i < n; i++) (void)json_array_append_new(a, json_integer((json_int_t)v[i]));
  return a;
}

static int tell_json(const generate_options *o, const session *s, const char *text, ice_err *e) {
  const llama_config *c = llama_config_of(s->model);
  const llama_cost *k = &s->cost;
  const double rate = product_flops(c, s->n) / (double)(k->model_ns - k->attention_ns) * 1e9;
  json_t *ids = json_array();
  for (int64_t i = 0; i < s->n_out; i++) (void)json_array_append_new(ids, json_integer(s->out[i]));
  json_t *out = json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "model", o->model, "method",
                          s->slot.attention.method->name, "ids", ids, "prompt_tokens", (json_int_t)k->prompt_tokens, "attention_ns",
                          (json_int_t)k->attention_ns, "build_ns", (json_int_t)k->build_ns, "query_ns", (json_int_t)k->query_ns, "model_ns",
                          (json_int_t)k->model_ns, "pairs", (json_int_t)k->pairs, "layer_ns", numbers(k->layer_ns, c->layers), "decode_tokens",
                          (json_int_t)k->decode_tokens, "decode_ns", (json_int_t)k->decode_ns, "decode_attention_ns",
                          (json_int_t)k->decode_attention_ns, "peak_bytes", (json_int_t)k->peak_bytes, "weight_bytes",
                          (json_int_t)llama_weight_bytes(s->model), "run_bytes", (json_int_t)llama_run_bytes(s->run), "product_flops_per_s", rate);
  if (out && text) (void)json_object_set_new(out, "text", json_string(text));
  if (out && o->sgemm) {
    (void)json_object_set_new(out, "sgemm_flops_per_s", json_real(s->roof.sgemm));
    (void)json_object_set_new(out, "share_of_sgemm", json_real(rate / s->roof.sgemm));
  }
  return cli_print_json(out, e);
}

static void tell_text(const generate_options *o, const session *s, const char *text) {
  const llama_cost *k = &s->cost;
  const double rate = product_flops(llama_config_of(s->model), s->n) / (double)(k->model_ns - k->attention_ns);
  if (text) (void)printf("%s\n", text);
  (void)fflush(stdout);
  (void)fprintf(stderr, "prompt: %lld tokens in %.1f ms, of which attention (%s) %.1f ms; products %.1f GFLOP/s", (long long)s->n,
                (double)k->model_ns / 1e6, s->slot.attention.method->name, (double)k->attention_ns / 1e6, rate);
  if (o->sgemm) (void)fprintf(stderr, ", %.0f %% of sgemm", rate / s->roof.sgemm * 1e11);
  (void)fprintf(stderr, "\nanswer: %lld tokens, %.2f ms each\nmemory: weights %.1f MiB, run %.1f MiB\n", (long long)s->n_out,
                k->decode_tokens ? (double)k->decode_ns / (double)k->decode_tokens / 1e6 : 0.0, (double)llama_weight_bytes(s->model) / 0x1p20,
                (double)llama_run_bytes(s->run) / 0x1p20);
}

static int generate(const cli_common *common, const generate_options *o, session *s, ice_err *e) {
  char *text = NULL;
  size_t bytes;
  ICE_TRY(open_model(o, s, e));
  ICE_TRY(read_slot(o, s, e));
  ICE_TRY(read_prompt(o, s, e));
  if (s->n < 1) return ice_fail(e, ICE_USAGE, "generate: the prompt is empty");
  s->out = malloc((size_t)o->tokens * sizeof *s->out);
  s->layer_ns = calloc((size_t)llama_config_of(s->model)->layers, sizeof *s->layer_ns);
  if (!s->out || !s->layer_ns) return ice_fail(e, ICE_INTERNAL, "out of memory");
  s->cost.layer_ns = s->layer_ns;
  ICE_TRY(llama_run_create(&s->run, s->model, &s->slot, s->n + o->tokens - 1, e));
  ICE_TRY(llama_generate(s->run, s->ids, s->n, o->tokens, s->t ? tokenizer_eos(s->t) : -1, s->out, &s->n_out, &s->cost, e));
  if (o->sgemm) ICE_TRY(roofline_measure((int)o->threads, &s->roof, e));
  if (s->t) ICE_TRY(tokenizer_decode(s->t, s->out, s->n_out, &text, &bytes, e));
  int rc = ICE_OK;
  if (o->json) rc = tell_json(o, s, text, e);
  else if (common->quiet) (void)printf("%s\n", text ? text : "");
  else tell_text(o, s, text);
  free(text);
  return rc;
}

static void end_session(session *s) {
  llama_run_destroy(s->run);
  tokenizer_close(s->t);
  llama_close(s->model);
  attn_free(s->params);
  attn_free(s->dense_layer);
  free(s->ids);
  free(s->out);
  free(s->layer_ns);
}

static int generate_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  generate_options o = {.method = "dense", .tokens = 100, .threads = cpus > 0 ? cpus : 1, .seed = 1};
  const char *tokens = NULL, *threads = getenv("ICEBENCH_THREADS"), *seed = NULL, *below = NULL, *random_tokens = NULL, *scale = NULL, *dense = NULL, *format = "text",
             *sgemm = NULL;
  int models = 0;
  const cli_option spec[] = {{.name = "prompt", .has_value = 1, .value = &o.prompt},
                             {.name = "file", .has_value = 1, .value = &o.file},
                             {.name = "random-tokens", .has_value = 1, .value = &random_tokens},
                             {.name = "tokens", .has_value = 1, .value = &tokens},
                             {.name = "method", .has_value = 1, .value = &o.method},
                             {.name = "set", .has_value = 1, .list = &o.set},
                             {.name = "dense-below", .has_value = 1, .value = &below},
                             {.name = "dense-layers", .has_value = 1, .value = &o.dense_layers},
                             {.name = "decode-dense", .value = &dense},
                             {.name = "rope-scale", .has_value = 1, .value = &scale},
                             {.name = "threads", .has_value = 1, .value = &threads},
                             {.name = "seed", .has_value = 1, .value = &seed},
                             {.name = "sgemm", .value = &sgemm},
                             {.name = "format", .has_value = 1, .value = &format},
                             {.name = NULL}};
  session s = {0};
  int rc = cli_parse(argc, argv, spec, &o.model, 1, &models, e);
  if (rc == ICE_OK && (models != 1 || (o.prompt != NULL) + (o.file != NULL) + (random_tokens != NULL) != 1))
    rc = ice_fail(e, ICE_USAGE, "generate: needs a model and one of --prompt, --file, --random-tokens");
  if (rc == ICE_OK && tokens) rc = cli_int("tokens", tokens, 1, 1 << 24, &o.tokens, e);
  if (rc == ICE_OK && threads) rc = cli_int("threads", threads, 1, 4096, &o.threads, e);
  if (rc == ICE_OK && seed) rc = cli_int("seed", seed, 0, INT64_MAX, &o.seed, e);
  if (rc == ICE_OK && below) rc = cli_int("dense-below", below, 0, 1LL << 30, &o.dense_below, e);
  if (rc == ICE_OK && random_tokens) rc = cli_int("random-tokens", random_tokens, 1, 1 << 24, &o.random_tokens, e);
  if (rc == ICE_OK && scale) rc = cli_real("rope-scale", scale, 1.0, 1e6, &o.rope_scale, e);
  if (rc == ICE_OK) rc = cli_format(format, &o.json, e);
  o.decode_dense = dense != NULL;
  o.sgemm = sgemm != NULL;
  if (rc == ICE_OK) rc = generate(common, &o, &s, e);
  end_session(&s);
  free((void *)o.set);
  return rc;
}

const cli_verb cli_verb_generate = {
    .name = "generate",
    .summary = "answer a prompt with a Llama model, any attention inside",
    .help =
        "usage: icebench generate MODEL --prompt TEXT | --file FILE | --random-tokens N [options]\n\n"
        "Greedy decoding with a GGUF file or a Hugging Face folder. The answer goes to stdout; times and memory to stderr,\n"
        "or, with --format json, into one object with the names that experiments use. MODEL may be random:7b or, say,\n"
        "random:7b,layers=2: that shape with random bf16 weights, for timing; its keys are vocab, width, layers, heads,\n"
        "kv_heads, head_dim, mlp.\n\n"
        "  --tokens N          at most N new tokens; ends early at the end-of-text token (100)\n"
        "  --method ID         attention of the prompt, and of decoding where the method can append keys (dense)\n"
        "  --set KEY=VALUE     a parameter of the method\n"
        "  --dense-below N     exact attention for prompts of fewer than N tokens\n"
        "  --dense-layers L,.. exact attention in these layers, counted from 0\n"
        "  --decode-dense      decode with exact attention even where the method can append\n"
        "  --rope-scale F      divide positions by F, for files that lost their linear scaling\n"
        "  --random-tokens N   a prompt of N tokens drawn by seed\n"
        "  --sgemm             also measure what sgemm reaches here, and compare\n"
        "  --threads T, --seed S, --format text|json\n\n"
        "examples:\n"
        "  icebench generate stories260K.f32.gguf --prompt 'Once upon a time' --tokens 60\n"
        "  icebench generate vicuna-7b --file case.txt --method iceformer --set k=20 --dense-layers 0,1\n"
        "  icebench generate random:7b,layers=1 --random-tokens 2048 --tokens 1 --sgemm\n\n"
        "exit codes: 0 done, 2 usage, 7 the model is missing, damaged or not supported\n",
    .main = generate_main,
};
