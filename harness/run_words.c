/* run_words.c - see run_words.h */
#define XXH_INLINE_ALL
#include "harness/run_words.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "datasets/prompt.h"
#include "harness/cli.h"
#include "kernels/core/fileio.h"
#include "models/llama.h"
#include "models/tokenizer.h"

/* ---- Models. */

static int is_model(const char *path) {
  struct stat st;
  char config[FILE_PATH];
  if (file_is_regular(path)) return 1;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && file_join(config, path, "config.json", NULL) == ICE_OK && file_is_regular(config);
}

static int find_model(run_model *m, int skip_missing, ice_err *e) {
  const char *const root[] = {cli_share_dir(), "."}, *const suffix[] = {"", ".gguf"};
  const int path = config_model_is_path(m->name);
  for (int i = 0; i < (path ? 1 : 4); i++) {
    const int n = path ? snprintf(m->path, sizeof m->path, "%s", m->name)
                       : snprintf(m->path, sizeof m->path, "%s/models/checkpoints/%s%s", root[i / 2], m->name, suffix[i % 2]);
    if (n < 0 || (size_t)n >= sizeof m->path) return ice_fail(e, ICE_USAGE, "model %.100s...: the name is too long", m->name);
    if (is_model(m->path)) return ICE_OK;
  }
  if (skip_missing) {
    (void)snprintf(m->missing, sizeof m->missing, "no model %.400s", m->name);
    return ICE_OK;
  }
  if (path) return ice_fail(e, ICE_DATA, "model %s: neither a .gguf file nor a folder with a config.json", m->name);
  return ice_fail(e, ICE_DATA, "model %s: no models/checkpoints/%s below %s; name a Hugging Face folder or a .gguf file by its path (./%s)", m->name,
                  m->name, root[0], m->name);
}

/* Files of gigabytes are known by their size and a megabyte of every 64. */
enum { HASH_WHOLE = 1 << 30, HASH_STEP = 1 << 26, HASH_PIECE = 1 << 20 };

static int hash_file(XXH3_state_t *h, const char *path, ice_err *e) {
  file_map map;
  ICE_TRY(file_open_map(path, (size_t)1 << 44, &map, e));
  (void)XXH3_64bits_update(h, &map.n, sizeof map.n);
  if (map.n <= HASH_WHOLE) (void)XXH3_64bits_update(h, map.p, map.n);
  for (size_t at = 0; map.n > HASH_WHOLE && at < map.n; at += HASH_STEP)
    (void)XXH3_64bits_update(h, map.p + at, map.n - at < HASH_PIECE ? map.n - at : HASH_PIECE);
  file_close_map(&map);
  return ICE_OK;
}

static int belongs(const struct dirent *d) {
  const size_t n = strlen(d->d_name);
  return !strcmp(d->d_name, "config.json") || !strcmp(d->d_name, "tokenizer.model") || (n > 12 && !strcmp(d->d_name + n - 12, ".safetensors"));
}

/* What numbers depend on in a folder: configuration, weights, tokenizer, in the order of their names. */
static int hash_folder(XXH3_state_t *h, const char *folder, ice_err *e) {
  struct dirent **entry = NULL;
  char path[FILE_PATH];
  const int n = scandir(folder, &entry, belongs, alphasort);
  int rc = n >= 0 ? ICE_OK : ice_fail(e, ICE_DATA, "%s: cannot be read", folder);
  for (int i = 0; i < n; i++) {
    if (rc == ICE_OK) rc = file_join(path, folder, entry[i]->d_name, e);
    if (rc == ICE_OK) rc = hash_file(h, path, e);
    free(entry[i]);
  }
  free((void *)entry);
  return rc;
}

static int hash_model(run_model *m, ice_err *e) {
  XXH3_state_t *h = XXH3_createState();
  if (!h) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)XXH3_64bits_reset(h);
  const int rc = file_is_regular(m->path) ? hash_file(h, m->path, e) : hash_folder(h, m->path, e);
  (void)snprintf(m->hash, sizeof m->hash, "%016llx", (unsigned long long)XXH3_64bits_digest(h));
  (void)XXH3_freeState(h);
  return rc;
}

int run_words_model(run_plan *p, const char *name, const run_model **out, ice_err *e) {
  for (int i = 0; i < p->n_models; i++)
    if (!strcmp(p->model[i].name, name)) {
      *out = p->model + i;
      return ICE_OK;
    }
  run_model *m = p->model + p->n_models++;
  llama *net = NULL;
  *m = (run_model){.name = name, .attention = "softmax", .shape = {.heads = 1, .width = 1, .layers = 1, .inputs = 1}};
  *out = m;
  ICE_TRY(find_model(m, p->x.skip_missing, e));
  if (*m->missing) return ICE_OK;
  ICE_TRY(llama_open(&net, m->path, e));
  const llama_config *c = llama_config_of(net);
  m->shape = (encoder_config){.heads = (int)c->heads, .width = (int)(c->heads * c->head_dim), .layers = (int)c->layers, .inputs = 1};
  m->positions = c->context;
  llama_close(net);
  return hash_model(m, e);
}

/* ---- Data. */

/* Tokens of a wrapped prompt, whatever its length. */
static int count_tokens(const run_plan *p, const task *t, const prompt *item, const run_model *m, int64_t *out, ice_err *e) {
  tokenizer *words = NULL;
  prompt_wrapped w;
  int32_t *ids = NULL;
  ICE_TRY(prompt_wrap(item, t->prompts->brief, (prompt_template)p->x.template, &w, e));
  int rc = tokenizer_open(&words, m->path, e);
  if (rc == ICE_OK) rc = tokenizer_encode(words, w.text, strlen(w.text), 1, &ids, out, e);
  tokenizer_close(words);
  free(ids), free(w.text);
  return rc;
}

static int describe(const run_plan *p, run_data *r, const prompt_set *s, const run_model *m, ice_err *e) {
  const prompt *longest = s->item;
  const int64_t budget = p->x.answer_tokens ? p->x.answer_tokens : r->task->prompts->answer_tokens,
                context = p->x.context && p->x.context < m->positions ? p->x.context : m->positions;
  double bytes = 0, square = 0;
  for (const prompt *i = s->item; i < s->item + s->count; i++) {
    const double n = (double)strlen(i->text);
    if (n > (double)strlen(longest->text)) longest = i;
    bytes += n / (double)s->count, square += n * n / (double)s->count;
  }
  ICE_TRY(count_tokens(p, r->task, longest, m, &r->longest, e));
  const double each = (double)r->longest / (double)(strlen(longest->text) + 1);
  if (budget >= context)
    return ice_fail(e, ICE_USAGE, "%s: %lld new tokens do not fit into the context of %s, %lld; set answer_tokens", r->task->name, (long long)budget, m->name,
                    (long long)context);
  if (r->longest > context - budget && !longest->separator)
    return ice_fail(e, ICE_USAGE, "%s: %lld %s: a prompt of %lld tokens and %lld to answer, the context of %s has %lld; leave out such lengths, or take "
                    "a model with a longer context", r->task->name, (long long)r->length, r->task->prompts->length_of, (long long)r->longest,
                    (long long)budget, m->name, (long long)context);
  const double most = (double)(context - budget);
  if ((double)r->longest > most) r->longest = (int64_t)most;
  r->queries = r->longest;
  r->mean = fmin(bytes * each, most);
  r->mean_square = fmin(square * each * each, most * most);
  return ICE_OK;
}

int run_words_data(run_plan *p, const config_cell *cell, const run_model *m, const run_data **out, ice_err *e) {
  prompt_set s;
  int absent;
  for (int i = 0; i < p->n_data; i++)
    if (p->data[i].task == cell->task && p->data[i].length == cell->length && p->data[i].model == m) {
      *out = p->data + i;
      return ICE_OK;
    }
  int rc = prompt_search(cell->task, p->x.split, cell->length, &s, &absent, e);
  if (rc != ICE_OK && !(absent && p->x.skip_missing)) return rc;
  run_data *r = p->data + p->n_data++;
  *out = r;
  *r = (run_data){.task = cell->task, .length = cell->length, .model = m, .count = s.count, .official = s.official, .note = s.note};
  if (rc != ICE_OK) {
    char advice[512];
    task_advice(cell->task, advice, sizeof advice);
    (void)snprintf(r->missing, sizeof r->missing, "no data: %.480s", advice);
    r->official = 1;
    return ICE_OK;
  }
  (void)snprintf(r->hash, sizeof r->hash, "%016llx", (unsigned long long)s.hash);
  rc = *m->missing ? ICE_OK : describe(p, r, &s, m, e);
  prompt_set_free(&s);
  return rc;
}
