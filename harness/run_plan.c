/* run_plan.c - the cells of an experiment with data, model, key and label. See run.h */
#define XXH_INLINE_ALL
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "harness/cell.h"
#include "harness/cli.h"
#include "harness/label.h"
#include "harness/machine.h"
#include "harness/registry/registry.h"
#include "harness/run.h"
#include "harness/run_words.h"
#include "harness/schedule.h"
#include "harness/synth.h"
#include "kernels/core/alloc.h"
#include "kernels/core/fileio.h"
#include "kernels/core/rng.h"
#include "kernels/micro/micro.h"
#include "models/safetensors.h"

/* ---- Data and models. */

static int add_data(run_plan *p, const task *t, const run_data **out, ice_err *e) {
  for (int i = 0; i < p->n_data; i++)
    if (p->data[i].task == t) {
      *out = p->data + i;
      return ICE_OK;
    }
  task_data d;
  ice_err own = {0};
  int absent = 0, rc = task_search(t, p->x.split, &d, &absent, &own);
  if (rc != ICE_OK && !(rc == ICE_DATA && p->x.skip_missing)) {
    if (e) *e = own;
    return rc;
  }
  run_data *r = p->data + p->n_data++;
  *out = r;
  if (rc != ICE_OK) {
    char advice[400];
    task_advice(t, advice, sizeof advice);
    *r = (run_data){.task = t, .official = 1};
    (void)snprintf(r->missing, sizeof r->missing, "no data: %.480s", absent ? advice : own.text); /* none, or not whole */
    return ICE_OK;
  }
  *r = (run_data){.task = t, .count = d.count, .official = d.official, .note = d.note};
  (void)snprintf(r->hash, sizeof r->hash, "%016llx", (unsigned long long)d.hash);
  const int64_t sequences = d.count * d.inputs;
  for (int64_t i = 0; i < sequences; i++) {
    const int64_t length = d.start[i + 1] - d.start[i], n = task_live(&d, i / d.inputs, (int)(i % d.inputs));
    if (length > r->longest) r->longest = length;
    r->mean += (double)n / (double)sequences;
    r->mean_square += (double)n * (double)n / (double)sequences;
  }
  r->queries = r->longest;
  rc = d.count > 0 ? ICE_OK : ice_fail(e, ICE_DATA, "%s: no examples", d.origin);
  task_data_free(&d);
  return rc;
}

/* A source of tensors is its own data, and its shape is the model. */
static void add_tensors(run_plan *p, const config_cell *cell, const run_data **data, const run_model **model) {
  const char *source = cell->source;
  synth_source s;
  (void)synth_parse(source, &s, NULL); /* has been read before */
  run_data *d = p->data + p->n_data++;
  *d = (run_data){.task = cell->task,
                  .count = 1,
                  .longest = s.nk,
                  .queries = s.nq,
                  .official = 1,
                  .mean = (double)s.nk,
                  .mean_square = (double)s.nq * (double)s.nk};
  (void)snprintf(d->hash, sizeof d->hash, "%016llx", (unsigned long long)XXH3_64bits(source, strlen(source)));
  run_model *m = p->model + p->n_models++;
  *m = (run_model){.name = cell->model,
                   .shape = {.heads = (int)s.h, .width = (int)(s.h * s.d), .layers = 1, .inputs = 1}};
  (void)snprintf(m->path, sizeof m->path, "%s", source);
  *data = d;
  *model = m;
}

/* An id lies below models/checkpoints of the shared folder, or of the working folder; a path is itself. */
static int find_model(run_model *m, int skip_missing, ice_err *e) {
  const char *root[] = {cli_share_dir(), "."};
  const int path = config_model_is_path(m->name);
  for (int i = 0; i < (path ? 1 : 2); i++) {
    int n = path ? snprintf(m->path, sizeof m->path, "%s", m->name)
                 : snprintf(m->path, sizeof m->path, "%s/models/checkpoints/%s.safetensors", root[i], m->name);
    if (n < 0 || (size_t)n >= sizeof m->path)
      return ice_fail(e, ICE_USAGE, "model %.100s...: the name is too long", m->name);
    if (file_is_regular(m->path)) return ICE_OK;
  }
  if (path) return ice_fail(e, ICE_DATA, "model %s: no such file", m->name);
  char recipe[256];
  (void)snprintf(recipe, sizeof recipe, "%s", m->name);
  for (char *c = recipe; *c; c++)
    if (*c == '/') *c = '-';
  if (skip_missing) {
    (void)snprintf(m->missing, sizeof m->missing, "no checkpoint: icebench train configs/train/%s.yaml", recipe);
    return ICE_OK;
  }
  return ice_fail(e, ICE_DATA,
                  "model %s: no models/checkpoints/%s.safetensors below %s; train it with `icebench train "
                  "configs/train/%s.yaml`, or name a .safetensors file",
                  m->name, m->name, root[0], recipe);
}

/* Hash, shape and metadata; a damaged checkpoint is found here, before any cell. */
static int inspect_model(run_model *m, ice_err *e) {
  file_map map;
  st_file f;
  encoder net;
  ICE_TRY(encoder_load(&net, m->path, e));
  m->shape = net.cfg;
  if (*net.attention) memcpy(m->attention, net.attention, sizeof m->attention);
  memcpy(m->attention_params, net.attention_params, sizeof m->attention_params);
  encoder_destroy(&net);
  ICE_TRY(file_open_map(m->path, (size_t)1 << 40, &map, e));
  (void)snprintf(m->hash, sizeof m->hash, "%016llx", (unsigned long long)XXH3_64bits(map.p, map.n));
  int rc = st_parse(map.p, map.n, m->path, &f, e);
  if (rc == ICE_OK) {
    const char *trained = st_meta(&f, "trained");
    m->untrained = trained && !strcmp(trained, "0");
    st_close(&f);
  }
  file_close_map(&map);
  return rc;
}

/* lra/listops/reformer -> reformer, ./reformer.safetensors -> reformer; all that start with softmax were trained with exact
 * attention. */
static void attention_of_name(run_model *m) {
  const char *slash = strrchr(m->name, '/'), *last = slash ? slash + 1 : m->name;
  const size_t n = strcspn(last, ".");
  (void)snprintf(m->attention, sizeof m->attention, "%.*s", strncmp(last, "softmax", 7) ? (int)n : 7, last);
}

int run_model_open(run_model *m, const task *t, const char *name, int skip_missing, ice_err *e) {
  *m = (run_model){.name = name};
  ICE_TRY(find_model(m, skip_missing, e));
  attention_of_name(m);
  m->shape = encoder_lra_config(t->vocab, t->positions, t->classes, t->inputs);
  return *m->missing ? ICE_OK : inspect_model(m, e);
}

static int add_model(run_plan *p, const task *t, const char *name, const run_model **out, ice_err *e) {
  for (int i = 0; i < p->n_models; i++)
    if (!strcmp(p->model[i].name, name)) {
      *out = p->model + i;
      return ICE_OK;
    }
  *out = p->model + p->n_models;
  return run_model_open(p->model + p->n_models++, t, name, p->x.skip_missing, e);
}

/* ---- Filter. */

static int value_matches(const config_cell *c, const attn_param *p, const char *value) {
  char is[64], wanted[64];
  void *params = attn_calloc(c->method->params_size);
  int match = params && registry_param_set(c->method, p, value, params, NULL) == ICE_OK;
  if (match) {
    registry_param_print(p, params, wanted, sizeof wanted);
    registry_param_print(p, c->params, is, sizeof is);
    match = !strcmp(is, wanted);
  }
  attn_free(params);
  return match;
}

/* Does the cell have this key, and one of the values A|B? */
static int pair_matches(const config_cell *c, const char *key, const char *values, int *known) {
  char seed[24], length[24], one[256];
  (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)c->seed);
  (void)snprintf(length, sizeof length, "%lld", (long long)c->length);
  const char *text = !strcmp(key, "task")     ? c->task->name
                     : !strcmp(key, "model")  ? c->model
                     : !strcmp(key, "method") ? c->method->name
                     : !strcmp(key, "seed")   ? seed
                     : !strcmp(key, "length") ? length
                     : !strcmp(key, "padding") ? (c->padded ? "compute" : "skip")
                                               : NULL;
  const attn_param *p = text || schedule_sets(c->schedule, key) ? NULL : registry_param(c->method, key, NULL);
  if (!text && !p) return 0;
  *known = 1;
  for (const char *at = values; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL) {
    (void)snprintf(one, sizeof one, "%.*s", (int)strcspn(at, "|"), at);
    if (text ? !strcmp(text, one) : value_matches(c, p, one)) return 1;
  }
  return 0;
}

static int unknown_key(const config_experiment *x, const char *filter, const char *key, ice_err *e) {
  enum { NAMES = 128 };
  const char *names[NAMES] = {"task", "model", "method", "seed", "length", "padding"};
  const attn_method *seen = NULL;
  char near[200];
  int n = 6;
  for (int i = 0; i < x->n_cells; i++) {
    const attn_method *m = x->cell[i].method;
    for (const attn_param *p = m != seen ? m->params : NULL; p && p->key && n < NAMES; p++) {
      int known = 0;
      for (int k = 0; k < n; k++) known |= !strcmp(names[k], p->key);
      if (!known) names[n++] = p->key;
    }
    seen = m;
  }
  registry_suggest(key, names, n, near, sizeof near);
  return ice_fail(e, ICE_USAGE, "--filter %s: unknown key '%s'%s%s%s, allowed task, model, method, seed, length, padding, or a parameter of a method of %s", filter,
                  key, *near ? ", did you mean " : "", near, *near ? "?" : "", x->file);
}

/* Marks the cells [n] that match every pair of the filter. */
static int apply_filter(const config_experiment *x, const char *filter, char *keep, ice_err *e) {
  memset(keep, 1, (size_t)x->n_cells);
  if (!filter) return ICE_OK;
  char *copy = strdup(filter), *at = copy;
  int rc = copy ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory"), left = 0;
  for (char *pair; rc == ICE_OK && (pair = strsep(&at, ",")) != NULL;) {
    char *value = strchr(pair, '=');
    int known = 0;
    if (!value) {
      rc = ice_fail(e, ICE_USAGE, "--filter %s: '%s' is no KEY=VALUE, as in method=topk|iceformer,k=16", filter, pair);
      break;
    }
    *value++ = '\0';
    for (int i = 0; i < x->n_cells; i++)
      if (!pair_matches(x->cell + i, pair, value, &known)) keep[i] = 0;
    if (!known)
      rc = unknown_key(x, filter, pair, e);
  }
  free(copy);
  for (int i = 0; i < x->n_cells; i++) left += keep[i];
  if (rc == ICE_OK && !left) rc = ice_fail(e, ICE_USAGE, "--filter %s: no cell of %s matches", filter, x->file);
  return rc;
}

/* ---- Cells. */

static void add_label(char *label, size_t size, const char *text) {
  size_t n = strlen(label);
  (void)snprintf(label + n, size - n, "%s%s", n ? ", " : "", text);
}

/* Do the parameters agree with those of the training, as far as these are known? */
static int trained_alike(const run_model *m, const config_cell *cell) {
  json_t *then = json_loads(m->attention_params, 0, NULL), *now = json_loads(cell->params_json, 0, NULL), *value;
  const char *key;
  int alike = 1;
  json_object_foreach(then, key, value) {
    const json_t *mine = json_object_get(now, key);
    if (mine) alike &= json_is_number(value) && json_is_number(mine) ? json_number_value(value) == json_number_value(mine)
                                                                     : json_equal(value, mine);
  }
  json_decref(then);
  json_decref(now);
  return alike;
}

/* What the model was trained with, against what runs in it. */
static void judge_training(run_cell *c) {
  const attn_method *m = c->cell->method, *of = registry_find(c->model->attention, NULL);
  const int own = !strcmp(c->model->attention, m->name);
  char text[64];
  if (c->cell->source || c->missing) return;
  c->needs_training = (m->caps & ATTN_CAP_NEEDS_TRAINING && !own) || (m->caps & ATTN_CAP_SHARED_QK && !c->model->shape.shared_qk);
  if (c->needs_training) add_label(c->label, sizeof c->label, LABEL_NO_RETRAINING);
  else if (own && !trained_alike(c->model, c->cell)) add_label(c->label, sizeof c->label, "trained with other parameters");
  else if (!own && of && !(of->caps & ATTN_CAP_EXACT)) {
    (void)snprintf(text, sizeof text, "model trained with %s", of->name);
    add_label(c->label, sizeof c->label, text);
  }
}

/* Does the schedule of the cell, if there is one, have the shape of the model? */
static int check_schedule(const run_cell *c, ice_err *e) {
  head_schedule s;
  const encoder_config *m = &c->model->shape;
  int rc = c->missing ? ICE_OK : schedule_open(&s, c->cell->method, c->cell->params, c->cell->params_json, m->layers, m->heads, e);
  if (!c->missing) schedule_close(&s);
  return rc;
}

/* Rows of a build that may store no times (or none to be trusted) must not stand in for those of a release. */
static char *make_key(const run_plan *p, const run_cell *c) {
  const char *variant = machine_get()->variant;
  json_t *key = json_pack("{s:o, s:s, s:i, s:s, s:s, s:s, s:b}", "cell", json_loads(c->json, 0, NULL), "version",
                          c->cell->method->version, "threads", p->x.threads, "isa", attn_isa_name(), "data",
                          c->data->hash, "weights", c->model->hash, "partial", c->partial);
  if (key && strcmp(variant, "release")) (void)json_object_set_new(key, "build", json_string(variant));
  char *text = key ? json_dumps(key, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
  json_decref(key);
  return text;
}

static int add_cell(run_plan *p, const config_cell *cell, const run_options *o, ice_err *e) {
  run_cell *c = p->cell + p->n;
  const int64_t asked = p->x.examples;
  *c = (run_cell){.cell = cell};
  if (cell->source) {
    add_tensors(p, cell, &c->data, &c->model);
  } else if (cell->task->prompts) {
    ICE_TRY(run_words_model(p, cell->model, &c->model, e));
    ICE_TRY(run_words_data(p, cell, c->model, &c->data, e));
  } else {
    ICE_TRY(add_data(p, cell->task, &c->data, e));
    ICE_TRY(add_model(p, cell->task, cell->model, &c->model, e));
  }
  if (!cell->source) c->missing = *c->data->missing ? c->data->missing : *c->model->missing ? c->model->missing : NULL;
  const int64_t all = asked && asked < c->data->count ? asked : c->data->count;
  c->partial = o->limit > 0 && o->limit < all;
  c->limit = c->partial ? o->limit : 0;
  judge_training(c);
  if (c->cell->schedule) ICE_TRY(check_schedule(c, e));
  if (!c->data->official) add_label(c->label, sizeof c->label, c->data->note ? c->data->note : "generated data");
  if (cell->padded) add_label(c->label, sizeof c->label, LABEL_PADDED);
  if (c->model->untrained) add_label(c->label, sizeof c->label, "untrained");
  p->n++;
  if (c->partial) p->x.examples = o->limit; /* the identity says how many there were */
  c->json = config_cell_json(&p->x, cell);
  p->x.examples = asked;
  c->key = c->json ? make_key(p, c) : NULL;
  return c->key ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for the cells");
}

/* Neighbours in the file are alike: in a random order a machine that slows down does not hit one method alone. */
static void shuffle(run_plan *p) {
  attn_rng r;
  attn_rng_seed(&r, (uint64_t)p->x.shuffle, 0);
  for (int i = p->n - 1; i > 0; i--) {
    const int j = (int)attn_rng_below(&r, (uint64_t)i + 1);
    const run_cell c = p->cell[i];
    p->cell[i] = p->cell[j];
    p->cell[j] = c;
  }
}

/* Can both be asked of one index? Cells whose rounds are their own (measure.precision, measure.slowdown) run alone. */
static int share_build(const run_plan *p, const run_cell *x, const run_cell *y) {
  const config_cell *a = x->cell, *b = y->cell;
  return p->x.precision <= 0.0 && p->x.slowdown <= 0.0 && a->source && b->source && a->method == b->method && a->task == b->task &&
         a->seed == b->seed && !a->schedule && !b->schedule && !strcmp(a->source, b->source) && !strcmp(a->model, b->model) &&
         registry_same_build(a->method, a->params, b->params);
}

/* Moves the cells that share a build behind the first of them; groups and their members keep their order. */
static void gather(run_plan *p) {
  for (int i = 0, end; i < p->n; i = end) {
    end = i + 1;
    for (int k = end; k < p->n && end - i < CELL_GROUP; k++) {
      if (!share_build(p, p->cell + i, p->cell + k)) continue;
      const run_cell c = p->cell[k];
      memmove(p->cell + end + 1, p->cell + end, (size_t)(k - end) * sizeof c);
      p->cell[end] = c;
      p->cell[end++].shares = 1;
    }
  }
}

/* Marks the cells that stand, one a line, in a file of `shard`; every line must be one of them. */
static int apply_list(const config_experiment *x, const char *file, char *keep, ice_err *e) {
  file_map map;
  ice_err own = {0};
  if (file_open_map(file, (size_t)1 << 30, &map, &own) != ICE_OK) return ice_fail(e, own.code == ICE_DATA ? ICE_USAGE : own.code, "--cells %s", own.text);
  char *text = strndup((const char *)map.p, map.n), **json = calloc((size_t)x->n_cells + 1, sizeof *json), *at = text, *listed = calloc((size_t)x->n_cells + 1, 1);
  file_close_map(&map);
  int rc = text && json && listed ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory"), left = 0;
  for (int i = 0; rc == ICE_OK && i < x->n_cells; i++)
    if (!(json[i] = config_cell_json(x, x->cell + i))) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  int line = 0, next = 0; /* lists follow the order of the file, mostly */
  for (char *one; rc == ICE_OK && (one = strsep(&at, "\n")) != NULL;) {
    int found = -1;
    line++;
    for (int i = 0; *one && found < 0 && i < x->n_cells; i++)
      if (!strcmp(one, json[(next + i) % x->n_cells])) found = (next + i) % x->n_cells;
    next = found + 1;
    if (found >= 0) listed[found] = 1;
    else if (*one) rc = ice_fail(e, ICE_USAGE, "%s:%d: no cell of %s, which has changed since (or --set, --preset have); icebench shard makes the list anew", file, line, x->file);
  }
  for (int i = 0; rc == ICE_OK && i < x->n_cells; i++) left += keep[i] = (char)(keep[i] && listed[i]);
  if (rc == ICE_OK && !left) rc = ice_fail(e, ICE_USAGE, "--cells %s: names no cell that is to run", file);
  for (int i = 0; json && i < x->n_cells; i++) free(json[i]);
  free((void *)json);
  free(listed);
  free(text);
  return rc;
}

int run_read_numbers(const char *limit, const char *threads, run_options *o, ice_err *e) {
  long long n;
  if (limit) {
    ICE_TRY(cli_int("limit", limit, 1, 1000000000, &n, e));
    o->limit = n;
  }
  if (threads) {
    ICE_TRY(cli_int("threads", threads, 1, 256, &n, e));
    o->threads = (int)n;
  }
  return ICE_OK;
}

int run_plan_create(run_plan *p, const char *file, const run_options *o, ice_err *e) {
  *p = (run_plan){0};
  ICE_TRY(config_load(file, o->set, &p->x, e));
  if (o->threads) p->x.threads = o->threads;
  const size_t n = (size_t)p->x.n_cells + 1;
  char *keep = calloc(n, 1);
  p->cell = calloc(n, sizeof *p->cell);
  p->data = calloc(n, sizeof *p->data);
  p->model = calloc(n, sizeof *p->model);
  int rc =
      keep && p->cell && p->data && p->model ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for %zu cells", n);
  if (rc == ICE_OK) rc = apply_filter(&p->x, o->filter, keep, e);
  if (rc == ICE_OK && o->cells) rc = apply_list(&p->x, o->cells, keep, e);
  for (int i = 0; rc == ICE_OK && i < p->x.n_cells; i++)
    if (keep[i]) rc = add_cell(p, p->x.cell + i, o, e);
  free(keep);
  if (rc == ICE_OK && p->x.shuffle >= 0) shuffle(p);
  gather(p);
  if (rc != ICE_OK) run_plan_destroy(p);
  return rc;
}

void run_plan_destroy(run_plan *p) {
  for (int i = 0; i < p->n; i++) {
    free(p->cell[i].key);
    free(p->cell[i].json);
  }
  free(p->cell);
  free(p->data);
  free(p->model);
  config_free(&p->x);
  *p = (run_plan){0};
}

int run_is_done(store *s, const run_cell *c, const run_options *o, int *done, ice_err *e) {
  *done = 0;
  return o->force ? ICE_OK : store_has(s, c->key, !o->retry_failed, done, e);
}

int run_plan_look_up(run_plan *p, store *s, const run_options *o, ice_err *e) {
  p->n_done = 0;
  for (int i = 0; i < p->n; i++) {
    ICE_TRY(run_is_done(s, p->cell + i, o, &p->cell[i].done, e));
    p->n_done += p->cell[i].done;
  }
  return ICE_OK;
}
