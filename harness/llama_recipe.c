/* llama_recipe.c - see llama_recipe.h */
#include "harness/llama_recipe.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "datasets/prompt.h"
#include "datasets/source.h"
#include "kernels/methods/dense.h"
#include "models/llama_convert.h"
#include "models/llama_prime.h"
#include "models/tokenizer.h"

#define TEXT_MAX ((size_t)1 << 30)

/* --- the file ----------------------------------------------------------------------------------------------------- */

int llama_recipe_is_one(yaml_doc *doc) {
  yaml_node *top = yaml_root(doc);
  return (yaml_find(top, "text") || yaml_find(top, "drills")) && yaml_find(top, "out");
}

static int read_model(yaml_node *map, llama_config *c, ice_err *e) {
  double eps = 1e-5, base = 10000.0, scale = 1.0;
  *c = (llama_config){.width = 256, .layers = 6, .heads = 4, .mlp = 688, .context = 2048};
  if (map) {
    ICE_TRY(yaml_get_int(map, "width", 1, 65536, &c->width, e));
    ICE_TRY(yaml_get_int(map, "layers", 1, 1024, &c->layers, e));
    ICE_TRY(yaml_get_int(map, "heads", 1, 4096, &c->heads, e));
    c->kv_heads = c->heads;
    ICE_TRY(yaml_get_int(map, "kv_heads", 1, 4096, &c->kv_heads, e));
    c->head_dim = c->width / c->heads;
    ICE_TRY(yaml_get_int(map, "head_dim", 2, 4096, &c->head_dim, e));
    ICE_TRY(yaml_get_int(map, "mlp", 1, 1 << 20, &c->mlp, e));
    ICE_TRY(yaml_get_int(map, "context", 1, 1 << 24, &c->context, e));
    ICE_TRY(yaml_get_real(map, "norm_eps", 1e-12, 0.1, &eps, e));
    ICE_TRY(yaml_get_real(map, "rope_base", 1.0, 1e12, &base, e));
    ICE_TRY(yaml_get_real(map, "rope_scale", 1.0, 1e6, &scale, e));
    ICE_TRY(yaml_get_bool(map, "tied", &c->tied, e));
  } else {
    c->kv_heads = c->heads;
    c->head_dim = c->width / c->heads;
  }
  c->norm_eps = (float)eps;
  c->rope_base = (float)base;
  c->rope_scale = (float)scale;
  c->context = llround((double)c->context * scale); /* `context` is what is trained without stretching */
  return ICE_OK;
}

static int read_texts(yaml_node *top, llama_recipe *r, ice_err *e) {
  yaml_node *text = NULL;
  ICE_TRY(yaml_get(top, "text", 0, &text, e));
  if (!text) return ICE_OK;
  r->texts = yaml_is_map(text) ? 0 : yaml_count(text);
  if (r->texts < 1 || r->texts > LLAMA_RECIPE_TEXTS) return yaml_fail(text, e, "allowed 1..%d files", LLAMA_RECIPE_TEXTS);
  for (int i = 0; i < r->texts; i++) ICE_TRY(yaml_string(yaml_item(text, i), r->text + i, e));
  return ICE_OK;
}

static int read_drill(yaml_node *map, drill_plan *d, ice_err *e) {
  int kind = 0;
  yaml_node *name = NULL;
  int bare = 0;
  *d = (drill_plan){.turns = 1, .exchanges = 4, .weight = 1.0};
  ICE_TRY(yaml_get(map, "kind", 1, &name, e));
  ICE_TRY(yaml_choice(name, drill_kind_names, &kind, e));
  d->kind = (drill_kind)kind;
  ICE_TRY(yaml_get_int(map, "least", 1, 4000, &d->least, e));
  ICE_TRY(yaml_get_int(map, "most", 1, 4000, &d->most, e));
  ICE_TRY(yaml_get_int(map, "turns", 1, 4000, &d->turns, e));
  ICE_TRY(yaml_get_bool(map, "bare", &bare, e));
  d->bare = bare;
  ICE_TRY(yaml_get_real(map, "weight", 0.01, 100.0, &d->weight, e));
  ICE_TRY(yaml_get_int(map, "exchanges", 1, LONGEVAL_TURNS, &d->exchanges, e));
  return d->least >= 1 && d->least <= d->most ? ICE_OK : yaml_fail(map, e, "least %lld, most %lld: allowed 1 <= least <= most", (long long)d->least, (long long)d->most);
}

static int read_drills(yaml_node *top, llama_recipe *r, ice_err *e) {
  yaml_node *list = NULL;
  ICE_TRY(yaml_get_string(top, "words", 0, &r->words, e));
  ICE_TRY(yaml_get(top, "drills", 0, &list, e));
  r->drills = list && !yaml_is_map(list) ? yaml_count(list) : 0;
  if (list && (r->drills < 1 || r->drills > LLAMA_RECIPE_DRILLS)) return yaml_fail(list, e, "allowed a list of 1..%d drills", LLAMA_RECIPE_DRILLS);
  for (int i = 0; i < r->drills; i++) ICE_TRY(read_drill(yaml_item(list, i), r->drill + i, e));
  return r->texts + r->drills ? ICE_OK : ice_fail(e, ICE_USAGE, "nothing to learn: needs text or drills");
}

int llama_recipe_read(yaml_doc *doc, llama_recipe *r, ice_err *e) {
  yaml_node *top = yaml_root(doc), *model = NULL;
  *r = (llama_recipe){.length = 512, .batch = 8, .steps = 1000, .save_every = 100, .seed = 1, .lr = 1e-3, .decay = 0.1, .clip = 1.0, .prompt_weight = 1.0,
                      .threads = sysconf(_SC_NPROCESSORS_ONLN)};
  ICE_TRY(yaml_get_string(top, "name", 1, &r->name, e));
  ICE_TRY(yaml_get_string(top, "out", 1, &r->out, e));
  ICE_TRY(yaml_get_string(top, "tokenizer", 1, &r->tokenizer, e));
  ICE_TRY(yaml_get_string(top, "init", 0, &r->init, e));
  ICE_TRY(yaml_get_bool(top, "prime", &r->prime, e));
  if (r->init && r->prime) return ice_fail(e, ICE_USAGE, "prime: a model that goes on from %s has its weights; allowed without init", r->init);
  ICE_TRY(read_texts(top, r, e));
  ICE_TRY(read_drills(top, r, e));
  ICE_TRY(yaml_get_map(top, "model", 0, &model, e));
  ICE_TRY(read_model(model, &r->model, e));
  ICE_TRY(yaml_get_int(top, "length", 1, r->model.context, &r->length, e));
  r->reach = r->length;
  ICE_TRY(yaml_get_int(top, "reach", r->length, r->model.context, &r->reach, e));
  ICE_TRY(yaml_get_int(top, "batch", 1, 4096, &r->batch, e));
  ICE_TRY(yaml_get_int(top, "steps", 2, 100000000, &r->steps, e));
  r->warmup = r->steps < 20 ? 1 : r->steps / 20;
  ICE_TRY(yaml_get_int(top, "warmup", 1, r->steps - 1, &r->warmup, e));
  ICE_TRY(yaml_get_int(top, "save_every", 1, 100000000, &r->save_every, e));
  ICE_TRY(yaml_get_int(top, "seed", 0, INT64_MAX, &r->seed, e));
  ICE_TRY(yaml_get_int(top, "threads", 1, 256, &r->threads, e));
  ICE_TRY(yaml_get_real(top, "lr", 1e-9, 10.0, &r->lr, e));
  ICE_TRY(yaml_get_real(top, "decay", 0.0, 10.0, &r->decay, e));
  ICE_TRY(yaml_get_real(top, "clip", 1e-6, 1e6, &r->clip, e));
  ICE_TRY(yaml_get_real(top, "prompt_weight", 0.0, 1.0, &r->prompt_weight, e));
  return yaml_finish(doc, e);
}

/* --- documents ---------------------------------------------------------------------------------------------------- */

static int has_suffix(const char *text, const char *suffix) {
  const size_t n = strlen(text), k = strlen(suffix);
  return n >= k && !strcmp(text + n - k, suffix);
}

/* {"text": ...}, or {"prompt": ..., "answer": ...} (expected_number will do): a document, which ends in eos. */
static int add_row(const llama_recipe *r, const tokenizer *t, const char *file, int64_t line, const char *p, size_t n, llama_corpus *c, ice_err *e) {
  json_t *row = json_loadb(p, n, 0, NULL);
  const json_t *answer = json_object_get(row, "answer");
  const char *text = json_string_value(json_object_get(row, "text")), *asked = json_string_value(json_object_get(row, "prompt"));
  char number[32] = "";
  if (!answer) answer = json_object_get(row, "expected_number");
  if (json_is_integer(answer)) (void)snprintf(number, sizeof number, "%lld", (long long)json_integer_value(answer));
  const char *reply = json_is_integer(answer) ? number : json_string_value(answer);
  int32_t *a = NULL, *b = NULL;
  int64_t na = 0, nb = 0;
  int rc = ICE_OK;
  if (!text && !(asked && reply)) rc = ice_fail(e, ICE_DATA, "%s:%lld: needs a text, or a prompt and an answer", file, (long long)line);
  if (rc == ICE_OK) rc = tokenizer_encode(t, text ? text : asked, strlen(text ? text : asked), 1, &a, &na, e);
  if (rc == ICE_OK && !text) rc = tokenizer_encode(t, reply, strlen(reply), 0, &b, &nb, e);
  json_decref(row);
  int32_t *all = rc == ICE_OK ? realloc(a, (size_t)(na + nb + 1) * sizeof *all) : NULL;
  if (all) {
    if (nb) memcpy(all + na, b, (size_t)nb * sizeof *b);
    all[na + nb] = tokenizer_eos(t);
    a = NULL;
    if (!text && na + nb > r->length) {
      free(all);
      rc = ice_fail(e, ICE_DATA, "%s:%lld: %lld tokens, length allows %lld", file, (long long)line, (long long)(na + nb + 1), (long long)r->length + 1);
    } else
      rc = llama_corpus_add(c, all, na + nb + 1, text ? 0 : na, e);
  } else if (rc == ICE_OK)
    rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  free(a);
  free(b);
  return rc;
}

static int add_rows(const llama_recipe *r, const tokenizer *t, const char *file, const source *s, llama_corpus *c, ice_err *e) {
  const char *at = (const char *)s->p, *end = at + s->n;
  for (int64_t line = 1; at < end; line++) {
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    const size_t n = (size_t)((newline ? newline : end) - at);
    if (n) ICE_TRY(add_row(r, t, file, line, at, n, c, e));
    at += n + 1;
  }
  return ICE_OK;
}

static int add_file(const llama_recipe *r, const tokenizer *t, const char *file, llama_corpus *c, uint64_t *hash, ice_err *e) {
  source s;
  int32_t *ids;
  int64_t n;
  ICE_TRY(source_open(file, TEXT_MAX, &s, e));
  *hash = XXH3_64bits_withSeed(&s.hash, sizeof s.hash, *hash);
  int rc = llama_corpus_source(c, NULL, NULL, e);
  if (rc == ICE_OK && (has_suffix(file, ".jsonl") || has_suffix(file, ".jsonl.gz"))) rc = add_rows(r, t, file, &s, c, e);
  else if (rc == ICE_OK) {
    rc = tokenizer_encode(t, (const char *)s.p, s.n, 1, &ids, &n, e);
    if (rc == ICE_OK) rc = llama_corpus_add(c, ids, n, 0, e);
  }
  source_close(&s);
  return rc;
}

/* --- conversations that are made ---------------------------------------------------------------------------------- */

typedef struct maker { /* of one drill */
  const drill_plan *plan;
  const drill_words *words;
  const tokenizer *t;
} maker;

typedef struct document { /* being put together */
  int32_t *ids;
  float *weight;
  int64_t n, room;
} document;

/* Appends the ids of a text, each counting `weight`. */
static int append(document *d, const tokenizer *t, const char *text, int begin, float weight, ice_err *e) {
  int32_t *ids;
  int64_t n;
  ICE_TRY(tokenizer_encode(t, text, strlen(text), begin, &ids, &n, e));
  if (d->n + n + 1 > d->room) {
    d->room = 2 * (d->n + n + 1);
    int32_t *grown = realloc(d->ids, (size_t)d->room * sizeof *grown);
    if (grown) d->ids = grown;
    float *heavier = grown ? realloc(d->weight, (size_t)d->room * sizeof *heavier) : NULL;
    if (heavier) d->weight = heavier;
    else n = -1;
  }
  for (int64_t i = 0; i < n; i++) d->ids[d->n] = ids[i], d->weight[d->n++] = weight;
  free(ids);
  return n >= 0 ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for a conversation");
}

static int make_document(void *ctx, attn_rng *r, int32_t **ids, float **weight, int64_t *n, ice_err *e) {
  const maker *m = ctx;
  document d = {0};
  drill talk;
  int rc = drill_make(r, m->plan, m->words, &talk, e);
  for (int64_t k = 0; rc == ICE_OK && k < talk.turns; k++) {
    char *said = NULL;
    rc = prompt_say(talk.turn[k].message, k == 0 && !m->plan->bare, &said, e);
    if (rc == ICE_OK) rc = append(&d, m->t, said, k == 0, 0.0f, e);
    if (rc == ICE_OK) rc = append(&d, m->t, talk.turn[k].answer, 0, (float)m->plan->weight, e);
    if (rc == ICE_OK) d.ids[d.n] = tokenizer_eos(m->t), d.weight[d.n++] = (float)m->plan->weight; /* append left room for it */
    free(said);
  }
  drill_free(&talk);
  *ids = d.ids, *weight = d.weight, *n = d.n;
  return rc;
}

/* --- training ----------------------------------------------------------------------------------------------------- */

/* Everything that decides the weights, one line. */
static int describe(const llama_recipe *r, const llama_config *m, uint64_t hash, char *out, size_t size, ice_err *e) {
  const int n = snprintf(out, size,
                         "llama %lld/%lld x %lld, heads %lld/%lld x %lld, mlp %lld, context %lld, eps %.9g, rope %.9g/%.9g%s, data %016llx, length %lld, "
                         "reach %lld, seed %lld, batch %lld, steps %lld, warmup %lld, lr %.17g, decay %.17g, clip %.17g, prompt %.17g, init %s",
                         (long long)m->vocab, (long long)m->width, (long long)m->layers, (long long)m->heads, (long long)m->kv_heads,
                         (long long)m->head_dim, (long long)m->mlp, (long long)m->context, (double)m->norm_eps, (double)m->rope_base,
                         (double)m->rope_scale, m->tied ? ", tied" : "", (unsigned long long)hash, (long long)r->length, (long long)r->reach, (long long)r->seed,
                         (long long)r->batch, (long long)r->steps, (long long)r->warmup, r->lr, r->decay, r->clip, r->prompt_weight,
                         r->init ? r->init : r->prime ? "primed" : "random");
  return n > 0 && (size_t)n < size ? ICE_OK : ice_fail(e, ICE_USAGE, "the path of init is too long");
}

static int make_start(const llama_recipe *r, llama_learner *l, ice_err *e) {
  llama *from;
  if (!r->init) {
    llama_learner_init(l, (uint64_t)r->seed);
    return r->prime ? llama_learner_prime(l, e) : ICE_OK;
  }
  ICE_TRY(llama_open(&from, r->init, e));
  const int rc = llama_learner_take(l, from, e);
  llama_close(from);
  return rc;
}

typedef struct job { /* one training, and what it holds */
  tokenizer *t;
  llama_corpus corpus;
  drill_words words;
  maker maker[LLAMA_RECIPE_DRILLS];
  llama_learner *l;
  uint64_t hash;
  char state[FILE_PATH + 16], log[FILE_PATH + 16], text[FILE_PATH + 1024];
} job;

static int prepare(const llama_recipe *r, job *j, ice_err *e) {
  llama_config c = r->model;
  if (strlen(r->out) >= FILE_PATH) return ice_fail(e, ICE_USAGE, "out: path too long");
  (void)snprintf(j->state, sizeof j->state, "%s.state", r->out);
  (void)snprintf(j->log, sizeof j->log, "%s.log.csv", r->out);
  ICE_TRY(tokenizer_open(&j->t, r->tokenizer, e));
  if (tokenizer_eos(j->t) < 0) return ice_fail(e, ICE_DATA, "%s: has no end-of-text piece", r->tokenizer);
  c.vocab = tokenizer_vocab(j->t);
  for (int i = 0; i < r->texts; i++) ICE_TRY(add_file(r, j->t, r->text[i], &j->corpus, &j->hash, e));
  if (r->words) ICE_TRY(drill_words_read(&j->words, r->words, e));
  for (int i = 0; i < r->drills; i++) {
    j->maker[i] = (maker){.plan = r->drill + i, .words = &j->words, .t = j->t};
    ICE_TRY(llama_corpus_source(&j->corpus, make_document, j->maker + i, e));
    j->hash = XXH3_64bits_withSeed(r->drill + i, sizeof r->drill[i], j->hash ^ j->words.hash);
  }
  ICE_TRY(llama_learner_create(&j->l, &c, &attn_method_dense, NULL, (int)r->batch, r->length, (int)r->threads, e));
  ICE_TRY(make_start(r, j->l, e));
  return describe(r, &c, j->hash, j->text, sizeof j->text, e);
}

int llama_recipe_train(const cli_common *common, const llama_recipe *r, train_start start, const volatile sig_atomic_t *stop, int *stopped,
                       void (*report)(void *ctx, const train_event *ev), void *ctx, ice_err *e) {
  struct stat st;
  job j = {.hash = 0};
  *stopped = 0;
  if (lstat(r->out, &st) == 0) {
    if (start == TRAIN_RESUME && S_ISDIR(st.st_mode)) return ICE_OK; /* complete */
    return ice_fail(e, ICE_USAGE, "out: %s exists; name a new folder, or remove it", r->out);
  }
  int rc = prepare(r, &j, e);
  const llama_train_config cfg = {.corpus = &j.corpus, .seed = (uint64_t)r->seed, .batch = (int)r->batch, .length = r->length, .reach = r->reach, .steps = r->steps,
                                  .warmup = r->warmup, .save_every = r->save_every, .lr = r->lr, .decay = r->decay, .clip = r->clip,
                                  .prompt_weight = r->prompt_weight, .pad = j.t ? tokenizer_eos(j.t) : 0, .state = j.state, .log = j.log, .description = j.text};
  if (rc == ICE_OK) rc = llama_train(j.l, &cfg, start, stop, stopped, report, ctx, e);
  if (rc == ICE_OK) rc = llama_write(llama_learner_model(j.l), j.t, MATRIX_BF16, r->out, e);
  if (rc == ICE_OK) (void)unlink(j.state);
  if (rc == ICE_OK && !common->quiet)
    (void)printf("%s: %lld weights in bf16, log %s\n", r->out, (long long)llama_learner_count(j.l), j.log);
  llama_learner_destroy(j.l);
  llama_corpus_free(&j.corpus);
  drill_words_free(&j.words);
  tokenizer_close(j.t);
  return rc;
}
