/* llama_train.c - see llama_train.h. Optimiser: Loshchilov & Hutter 2019 (AdamW), betas 0.9 and 0.95, as is usual for language models. */
#include "models/llama_train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/core/alloc.h"
#include "kernels/core/clock.h"
#include "models/llama_model.h"
#include "models/train_files.h"

enum { LOG_EVERY = 10, KEY_DRAW = 0x11a3, KEY_POSITIONS = 0x11a4, MOST_PIECES = 8 };
static const double BETA1 = 0.9, BETA2 = 0.95, EPS = 1e-8, PI = 3.14159265358979323846;

/* --- documents ---------------------------------------------------------------------------------------------------- */

int llama_corpus_source(llama_corpus *c, llama_maker make, void *ctx, ice_err *e) {
  llama_source *grown = realloc(c->source, (size_t)(c->sources + 1) * sizeof *grown);
  if (!grown) return ice_fail(e, ICE_INTERNAL, "out of memory");
  c->source = grown;
  grown[c->sources++] = (llama_source){.first = c->n, .end = c->n, .make = make, .ctx = ctx};
  return ICE_OK;
}

int llama_corpus_add(llama_corpus *c, int32_t *ids, int64_t n, int64_t answer, ice_err *e) {
  if (c->n == c->room) {
    const int64_t room = c->room ? 2 * c->room : 256;
    llama_document *doc = realloc(c->doc, (size_t)room * sizeof *doc);
    if (!doc) {
      free(ids);
      return ice_fail(e, ICE_INTERNAL, "out of memory");
    }
    c->doc = doc;
    c->room = room;
  }
  c->doc[c->n++] = (llama_document){ids, n, answer};
  c->source[c->sources - 1].end = c->n;
  return n >= 2 ? ICE_OK : ice_fail(e, ICE_DATA, "a document of %lld tokens; at least 2 are needed", (long long)n);
}

void llama_corpus_free(llama_corpus *c) {
  for (int64_t i = 0; i < c->n; i++) free(c->doc[i].ids);
  free(c->doc);
  free(c->source);
  *c = (llama_corpus){0};
}

/* Documents of a maker one after another, until the n + 1 ids are full. */
static int fill(const llama_source *from, attn_rng *r, int64_t n, float prompt_weight, int32_t *ids, float *weight, ice_err *e) {
  for (int64_t at = 0, count; at <= n; at += count) {
    int32_t *made = NULL;
    float *counts = NULL;
    int rc = from->make(from->ctx, r, &made, &counts, &count, e);
    if (rc == ICE_OK && count < 1) rc = ice_fail(e, ICE_INTERNAL, "an empty document was made");
    for (int64_t i = 0; rc == ICE_OK && i < count && at + i <= n; i++) {
      ids[at + i] = made[i];
      if (at + i > 0) weight[at + i - 1] = i == 0 ? 0.0f : prompt_weight + (1.0f - prompt_weight) * counts[i];
    }
    free(made);
    free(counts);
    if (rc != ICE_OK) return rc;
  }
  return ICE_OK;
}

int llama_corpus_draw(const llama_corpus *c, uint64_t seed, int64_t step, int row, int64_t n, float prompt_weight, int32_t pad, int32_t *ids,
                      float *weight, ice_err *e) {
  attn_rng r;
  attn_rng_seed(&r, attn_hash(seed, KEY_DRAW, (uint64_t)step), (uint64_t)row);
  const llama_source *from = c->source + attn_rng_below(&r, (uint64_t)c->sources);
  if (from->make) return fill(from, &r, n, prompt_weight, ids, weight, e);
  const llama_document *d = c->doc + from->first + (int64_t)attn_rng_below(&r, (uint64_t)(from->end - from->first));
  const int64_t at = !d->answer && d->n > n + 1 ? (int64_t)attn_rng_below(&r, (uint64_t)(d->n - n)) : 0;
  for (int64_t i = 0; i <= n; i++) ids[i] = at + i < d->n ? d->ids[at + i] : pad;
  for (int64_t i = 0; i < n; i++) weight[i] = at + i + 1 >= d->n ? 0.0f : at + i + 1 >= d->answer ? 1.0f : prompt_weight;
  return ICE_OK;
}

static int ascending(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

void llama_positions_draw(uint64_t seed, int64_t step, int row, int64_t n, int64_t reach, int32_t *position) {
  attn_rng r;
  int64_t cut[MOST_PIECES], jump[MOST_PIECES], k = 0; /* pieces begin at cut[i], which the positions reach by jump[i] more */
  attn_rng_seed(&r, attn_hash(seed, KEY_POSITIONS, (uint64_t)step), (uint64_t)row);
  const int pieces = 1 + (int)attn_rng_below(&r, MOST_PIECES);
  const int64_t slack = (int64_t)attn_rng_below(&r, (uint64_t)(reach - n + 1));
  for (int i = 0; i < pieces; i++) {
    cut[i] = (int64_t)attn_rng_below(&r, (uint64_t)n);
    jump[i] = i + 1 < pieces ? (int64_t)attn_rng_below(&r, (uint64_t)slack + 1) : slack;
  }
  qsort(cut, (size_t)pieces, sizeof *cut, ascending);
  qsort(jump, (size_t)pieces, sizeof *jump, ascending);
  for (int64_t i = 0; i < n; i++) {
    while (k < pieces && cut[k] <= i) k++;
    position[i] = (int32_t)(i + (k ? jump[k - 1] : 0));
  }
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

double llama_train_rate(int64_t t, int64_t steps, int64_t warmup, double peak) {
  if (t < warmup) return peak * (double)(t + 1) / (double)warmup;
  const double f = (double)(t - warmup) / (double)(steps - warmup);
  return peak * (0.1 + 0.45 * (1.0 + cos(PI * f)));
}

typedef struct trainer {
  llama_learner *l;
  const llama_train_config *cfg;
  train_state s; /* params point into the learner */
  float *g, *weight;
  int32_t *ids, *position;
  uint8_t *decays; /* [parts] */
  int64_t *end;    /* [parts] where each ends in the vector */
  int parts;
  FILE *log;
} trainer;

static int allocate(trainer *t, ice_err *e) {
  const int64_t rows = t->cfg->batch * t->cfg->length;
  t->s = (train_state){.n_params = llama_learner_count(t->l), .params = llama_learner_weights(t->l), .best_accuracy = -1.0};
  const size_t vector = (size_t)t->s.n_params * sizeof(float);
  t->s.m = attn_calloc(vector);
  t->s.v = attn_calloc(vector);
  t->g = attn_alloc(vector);
  t->weight = attn_alloc((size_t)rows * sizeof *t->weight);
  t->ids = attn_alloc((size_t)(rows + t->cfg->batch) * sizeof *t->ids);
  t->position = attn_alloc((size_t)rows * sizeof *t->position);
  t->parts = llama_parts(llama_learner_model(t->l), NULL);
  t->decays = attn_alloc((size_t)t->parts);
  t->end = attn_alloc((size_t)t->parts * sizeof *t->end);
  llama_part *p = attn_alloc((size_t)t->parts * sizeof *p);
  if (!t->s.m || !t->s.v || !t->g || !t->weight || !t->ids || !t->position || !t->decays || !t->end || !p) {
    attn_free(p);
    return ice_fail(e, ICE_INTERNAL, "out of memory: the optimiser of %lld weights", (long long)t->s.n_params);
  }
  (void)llama_parts(llama_learner_model(t->l), p);
  for (int i = 0; i < t->parts; i++) {
    t->decays[i] = p[i].rank == 2;
    t->end[i] = (i ? t->end[i - 1] : 0) + p[i].rows * p[i].cols;
  }
  attn_free(p);
  return ICE_OK;
}

static void destroy(trainer *t) {
  attn_free(t->s.m);
  attn_free(t->s.v);
  attn_free(t->g);
  attn_free(t->weight);
  attn_free(t->ids);
  attn_free(t->position);
  attn_free(t->decays);
  attn_free(t->end);
  if (t->log) (void)fclose(t->log);
}

static void update(trainer *t, double lr) {
  const llama_train_config *c = t->cfg;
  double sum = 0.0;
  for (int64_t i = 0; i < t->s.n_params; i++) sum += (double)t->g[i] * (double)t->g[i];
  const double norm = sqrt(sum), factor = norm > c->clip ? c->clip / norm : 1.0, step = (double)(t->s.step + 1);
  const double unit1 = 1.0 / (1.0 - pow(BETA1, step)), unit2 = 1.0 / (1.0 - pow(BETA2, step));
  for (int p = 0; p < t->parts; p++) {
    const double keep = 1.0 - lr * c->decay * t->decays[p];
    for (int64_t i = p ? t->end[p - 1] : 0; i < t->end[p]; i++) {
      const double g = (double)t->g[i] * factor, m = BETA1 * (double)t->s.m[i] + (1.0 - BETA1) * g;
      const double v = BETA2 * (double)t->s.v[i] + (1.0 - BETA2) * g * g;
      t->s.m[i] = (float)m;
      t->s.v[i] = (float)v;
      t->s.params[i] = (float)((double)t->s.params[i] * keep - lr * m * unit1 / (sqrt(v * unit2) + EPS));
    }
  }
}

static int one_step(trainer *t, double lr, ice_err *e) {
  const llama_train_config *c = t->cfg;
  double loss;
  for (int b = 0; b < c->batch; b++) {
    ICE_TRY(llama_corpus_draw(c->corpus, c->seed, t->s.step, b, c->length, (float)c->prompt_weight, c->pad, t->ids + b * (c->length + 1),
                              t->weight + b * c->length, e));
    llama_positions_draw(c->seed, t->s.step, b, c->length, c->reach, t->position + b * c->length);
  }
  ICE_TRY(llama_gradient(t->l, t->ids, t->position, t->weight, t->g, &loss, e));
  update(t, lr);
  t->s.step++;
  t->s.loss_sum += loss;
  t->s.loss_count++;
  return ICE_OK;
}

static int note(trainer *t, double lr, int64_t started, int64_t first, void (*report)(void *, const train_event *), void *ctx, ice_err *e) {
  train_state *s = &t->s;
  const llama_train_config *c = t->cfg;
  if (s->step % LOG_EVERY != 0 && s->step != c->steps) return ICE_OK;
  train_event ev = {.step = s->step, .steps = c->steps, .lr = lr, .loss = s->loss_sum / (double)s->loss_count, .dev_accuracy = NAN, .best_accuracy = NAN};
  s->loss_sum = 0.0, s->loss_count = 0;
  ICE_TRY(train_log_row(t->log, c->log, s->step, lr, ev.loss, NAN, e));
  const double seconds = 1e-9 * (double)(attn_now_ns() - started), done = (double)(s->step - first);
  ev.sequences_per_second = done * c->batch / seconds;
  ev.eta_seconds = (double)(c->steps - s->step) * seconds / done;
  if (report) report(ctx, &ev);
  return ICE_OK;
}

static int save(trainer *t, ice_err *e) {
  ICE_TRY(train_log_sync(t->log, t->cfg->log, e));
  return train_state_write(t->cfg->state, t->cfg->description, &t->s, e);
}

static int loop(trainer *t, const volatile sig_atomic_t *stop, int *stopped, void (*report)(void *, const train_event *), void *ctx, ice_err *e) {
  const llama_train_config *c = t->cfg;
  const int64_t started = attn_now_ns(), first = t->s.step;
  while (t->s.step < c->steps) {
    const double lr = llama_train_rate(t->s.step, c->steps, c->warmup, c->lr);
    ICE_TRY(one_step(t, lr, e));
    ICE_TRY(note(t, lr, started, first, report, ctx, e));
    const int interrupted = stop && *stop && t->s.step < c->steps;
    if (interrupted || t->s.step % c->save_every == 0 || t->s.step == c->steps) ICE_TRY(save(t, e));
    if (interrupted) {
      *stopped = 1;
      return ice_fail(e, ICE_INTERNAL, "stopped after step %lld; go on with --resume", (long long)t->s.step);
    }
  }
  return ICE_OK;
}

int llama_train(llama_learner *l, const llama_train_config *cfg, train_start start, const volatile sig_atomic_t *stop, int *stopped,
                void (*report)(void *ctx, const train_event *ev), void *ctx, ice_err *e) {
  trainer t = {.l = l, .cfg = cfg};
  int found = 0;
  *stopped = 0;
  for (int s = 0; s < cfg->corpus->sources; s++)
    if (!cfg->corpus->source[s].make && cfg->corpus->source[s].first == cfg->corpus->source[s].end) return ice_fail(e, ICE_DATA, "source %d of the training has no documents", s + 1);
  if (!cfg->corpus->sources) return ice_fail(e, ICE_DATA, "the training has no documents");
  if (start == TRAIN_NEW && access(cfg->state, F_OK) == 0)
    return ice_fail(e, ICE_USAGE, "%s: the state of an earlier run; --resume goes on from it, --force drops it", cfg->state);
  int rc = allocate(&t, e);
  if (rc == ICE_OK && start == TRAIN_RESUME) rc = train_state_read(cfg->state, cfg->description, &t.s, &found, e);
  if (rc == ICE_OK && start == TRAIN_FORCE) (void)unlink(cfg->state);
  if (rc == ICE_OK) rc = train_log_open(cfg->log, t.s.step, &t.log, e);
  if (rc == ICE_OK) rc = loop(&t, stop, stopped, report, ctx, e);
  destroy(&t);
  return rc;
}
