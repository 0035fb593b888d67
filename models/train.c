/* train.c - see train.h.
 *
 * Step     A batch's sequences are spread over the threads, longest first; each leaves its gradient in a slot of its
 *          own. Slots are summed in the order of the batch, parameter by parameter, and Adam moves that parameter at
 *          once: one pass over memory, and bits that do not depend on the threads.
 * Memory   batch * n_params floats of gradients + one sequence's activations per thread. Nothing is allocated after
 *          the start. Of the position table a slot uses (clears, sums) only the rows its sequence has.
 * Resume   The state after step t decides everything later: the order of examples and every dropout mask are functions
 *          of (seed, position). The log loses the rows past the state's step, so it too comes out the same. */
#include "models/train.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/core/alloc.h"
#include "kernels/core/clock.h"
#include "kernels/core/fileio.h"
#include "kernels/core/rng.h"
#include "models/network.h"
#include "models/sequence.h"
#include "models/train_files.h"

enum { LOG_EVERY = 10, CHUNK = 1024 };
enum { KEY_PERMUTATION = 0x5eed, KEY_DROPOUT = 0xd201, KEY_DRAW = 0xd2a3 };
static const double BETA2 = 0.999, EPS = 1e-6;

typedef struct trainer {
  const train_config *cfg;
  const task_data *train, *dev;
  encoder model;
  train_state state; /* params point into model */
  network net;
  sequence **seq;       /* [threads] */
  encoder_run **run;    /* [threads], for evaluations */
  float *slots;         /* [batch, n_params] */
  network_grad *grad;   /* [batch], bound to slots */
  int64_t *permutation; /* [examples] */
  int64_t pass;
  int64_t *item, *order; /* [batch]: example of each slot; slots by falling cost */
  int64_t *rows;         /* [batch]: longest input */
  double *loss;          /* [batch] */
  char state_path[4096], log_path[4096];
  FILE *log;
} trainer;

/* --- schedule and order of examples --------------------------------------------------------------------------- */

void train_schedule(int64_t t, int64_t steps, int64_t warmup, double peak, double *lr, double *beta1) {
  const double start = peak / 25.0, end = start / 1e4, top = (double)(warmup - 1), last = (double)(steps - 1);
  const double at = (double)t;
  if (at <= top) {
    const double f = top > 0.0 ? at / top : 1.0;
    *lr = start + f * (peak - start);
    *beta1 = 0.95 + f * (0.85 - 0.95);
  } else {
    const double f = (at - top) / (last - top);
    *lr = peak + f * (end - peak);
    *beta1 = 0.85 + f * (0.95 - 0.85);
  }
}

int64_t train_stream(uint64_t seed, int64_t n, int64_t pos, int64_t *permutation, int64_t *pass) {
  if (*pass != pos / n) {
    *pass = pos / n;
    attn_rng r;
    attn_rng_seed(&r, attn_hash(seed, KEY_PERMUTATION, 0), (uint64_t)*pass);
    for (int64_t i = 0; i < n; i++) permutation[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
      const int64_t j = (int64_t)attn_rng_below(&r, (uint64_t)i + 1), x = permutation[i];
      permutation[i] = permutation[j];
      permutation[j] = x;
    }
  }
  return permutation[pos % n];
}

/* --- one batch ------------------------------------------------------------------------------------------------ */

static int64_t longest(const task_data *d, int64_t example) {
  int64_t n = task_len(d, example, 0);
  if (d->inputs == 2 && task_len(d, example, 1) > n) n = task_len(d, example, 1);
  return n;
}

static double cost_of(const task_data *d, int64_t example) { /* time grows about as n^2 + 300 n */
  double cost = 0.0;
  for (int i = 0; i < d->inputs; i++) {
    const double n = (double)task_live(d, example, i);
    cost += n * (n + 300.0);
  }
  return cost;
}

/* Draws the batch of step `step` and orders its slots by falling cost, so that the threads end together. */
static void draw_batch(trainer *t, int64_t step) {
  const int batch = t->cfg->batch;
  for (int i = 0; i < batch; i++) {
    t->item[i] = train_stream(t->cfg->seed, t->train->count, step * batch + i, t->permutation, &t->pass);
    t->rows[i] = longest(t->train, t->item[i]);
    int at = i;
    const double cost = cost_of(t->train, t->item[i]);
    for (; at > 0 && cost_of(t->train, t->item[t->order[at - 1]]) < cost; at--) t->order[at] = t->order[at - 1];
    t->order[at] = i;
  }
}

static void clear_slot(const trainer *t, float *slot, int64_t rows) {
  const int64_t table = network_position_floats(&t->model.cfg);
  memset(slot, 0, (size_t)(rows * t->model.cfg.width) * sizeof(float));
  memset(slot + table, 0, (size_t)(t->model.n_params - table) * sizeof(float));
}

static int gradients(trainer *t, int64_t step, ice_err *e) {
  const train_config *c = t->cfg;
  const uint64_t step_key = attn_hash(c->seed, KEY_DROPOUT, (uint64_t)step);
  const uint64_t draw = attn_hash(c->seed, KEY_DRAW, (uint64_t)step);
  int rc = ICE_OK;
#pragma omp parallel for num_threads(c->threads) schedule(dynamic, 1)
  for (int k = 0; k < c->batch; k++) {
    const int64_t i = t->order[k], item = t->item[i];
    const int32_t *ids[TASK_MAX_INPUTS];
    int64_t n[TASK_MAX_INPUTS];
    int correct;
    task_example(t->train, item, ids, n);
    clear_slot(t, t->slots + i * t->model.n_params, t->rows[i]);
    attn_status st =
        sequence_gradient(t->seq[omp_get_thread_num()], &t->net, ids, n, t->train->label[item], 1.0f / (float)c->batch,
                          (float)c->dropout, attn_hash(step_key, (uint64_t)i, 0), draw, &t->grad[i], &t->loss[i], &correct);
    if (st != ATTN_OK) {
#pragma omp critical
      rc = ice_fail(e, ICE_INTERNAL, "step %lld, training example %lld: %s", (long long)step, (long long)item,
                    attn_last_error());
    }
  }
  return rc;
}

/* Sums the slots over parameters [p0, p1) in batch order and takes one step of Adam there. Source: Kingma & Ba 2015,
 * bias correction as in PyTorch, whose beta1 is the current one even while it is cycled. */
static void adam_chunk(trainer *t, int64_t p0, int64_t p1, double lr, double beta1) {
  const int64_t table = network_position_floats(&t->model.cfg), np = t->model.n_params, w = t->model.cfg.width;
  const double done = (double)(t->state.step + 1);
  const float b1 = (float)beta1, b2 = (float)BETA2;
  const float rate = (float)(lr / (1.0 - pow(beta1, done))), root = (float)(1.0 / sqrt(1.0 - pow(BETA2, done)));
  float g[CHUNK] = {0};
  for (int i = 0; i < t->cfg->batch; i++) {
    const int64_t used = p0 < table ? t->rows[i] * w : np, end = p1 < used ? p1 : used;
    const float *slot = t->slots + i * np;
    for (int64_t p = p0; p < end; p++) g[p - p0] += slot[p];
  }
  float *params = t->state.params, *m = t->state.m, *v = t->state.v;
  for (int64_t p = p0; p < p1; p++) {
    const float gp = g[p - p0];
    m[p] = b1 * m[p] + (1.0f - b1) * gp;
    v[p] = b2 * v[p] + (1.0f - b2) * gp * gp;
    params[p] -= rate * m[p] / (sqrtf(v[p]) * root + (float)EPS);
  }
}

static void update(trainer *t, double lr, double beta1) {
  const int64_t table = network_position_floats(&t->model.cfg), np = t->model.n_params;
  const int64_t first = (table + CHUNK - 1) / CHUNK, rest = (np - table + CHUNK - 1) / CHUNK;
#pragma omp parallel for num_threads(t->cfg->threads) schedule(static)
  for (int64_t k = 0; k < first + rest; k++) { /* no chunk straddles the end of the position table */
    const int64_t p0 = k < first ? k * CHUNK : table + (k - first) * CHUNK, limit = k < first ? table : np;
    adam_chunk(t, p0, p0 + CHUNK < limit ? p0 + CHUNK : limit, lr, beta1);
  }
  network_pack(&t->net);
}

/* --- evaluation ----------------------------------------------------------------------------------------------- */

static int evaluate(trainer *t, double *accuracy, ice_err *e) {
  const task_data *d = t->dev;
  int64_t hits = 0;
  int rc = ICE_OK;
  for (int i = 0; i < t->cfg->threads; i++) encoder_run_refresh(t->run[i]);
#pragma omp parallel for num_threads(t->cfg->threads) schedule(dynamic, 4) reduction(+ : hits)
  for (int64_t item = 0; item < d->count; item++) {
    float logits[65536];
    const int32_t *ids[TASK_MAX_INPUTS];
    int64_t n[TASK_MAX_INPUTS];
    ice_err own = {0};
    task_example(d, item, ids, n);
    if (encoder_forward(t->run[omp_get_thread_num()], ids, n, logits, NULL, NULL, NULL, &own) != ICE_OK) {
#pragma omp critical
      rc = ice_fail(e, own.code, "dev example %lld: %s", (long long)item, own.text);
      continue;
    }
    int best = 0;
    for (int k = 1; k < t->model.cfg.classes; k++)
      if (logits[k] > logits[best]) best = k;
    hits += best == d->label[item];
  }
  *accuracy = (double)hits / (double)d->count;
  return rc;
}

static int save_best(trainer *t, ice_err *e) {
  char step[32], accuracy[32];
  (void)snprintf(step, sizeof step, "%lld", (long long)t->state.best_step);
  (void)snprintf(accuracy, sizeof accuracy, "%.6f", t->state.best_accuracy);
  const char *meta[64] = {"step", step, "dev_accuracy", accuracy, "description", t->cfg->description};
  int n = 6;
  for (const char *const *more = t->cfg->meta; more && *more && n < 62; more += 2)
    meta[n++] = more[0], meta[n++] = more[1];
  return encoder_save(&t->model, t->state.params, t->cfg->out, meta, e);
}

/* --- set-up --------------------------------------------------------------------------------------------------- */

static int check_run(const train_config *c, const task_data *train, const task_data *dev, ice_err *e) {
  if (c->batch < 1 || c->batch > 1024) return ice_fail(e, ICE_USAGE, "batch = %d, allowed 1..1024", c->batch);
  if (c->threads < 1 || c->threads > 256) return ice_fail(e, ICE_USAGE, "threads = %d, allowed 1..256", c->threads);
  if (c->steps < 2) return ice_fail(e, ICE_USAGE, "steps = %lld, allowed 2 and more", (long long)c->steps);
  if (c->warmup < 1 || c->warmup >= c->steps)
    return ice_fail(e, ICE_USAGE, "warmup = %lld, allowed 1..%lld", (long long)c->warmup, (long long)c->steps - 1);
  if (!(c->dropout >= 0.0 && c->dropout < 1.0))
    return ice_fail(e, ICE_USAGE, "dropout = %g, allowed [0, 1)", c->dropout);
  if (!(c->lr > 0.0 && isfinite(c->lr))) return ice_fail(e, ICE_USAGE, "lr = %g, allowed finite and > 0", c->lr);
  if (c->eval_every < 1 || c->save_every < 1) return ice_fail(e, ICE_USAGE, "eval_every and save_every start at 1");
  if (train->count < 1 || dev->count < 1) return ice_fail(e, ICE_DATA, "a training needs train and dev examples");
  if (train->inputs != c->model.inputs || dev->inputs != c->model.inputs)
    return ice_fail(e, ICE_USAGE, "the model takes %d inputs, the task has %d", c->model.inputs, train->inputs);
  return ICE_OK;
}

/* Every id, length and label must fit the model: the gradient code does not look again. */
static int check_data(const task_data *d, const char *split, const encoder_config *m, ice_err *e) {
  for (int64_t item = 0; item < d->count; item++) {
    if (d->label[item] < 0 || d->label[item] >= m->classes)
      return ice_fail(e, ICE_DATA, "%s: %s example %lld has label %d, allowed 0..%d", d->origin, split, (long long)item,
                      d->label[item], m->classes - 1);
    for (int i = 0; i < d->inputs; i++) {
      const int64_t n = task_len(d, item, i);
      const int32_t *ids = task_ids(d, item, i);
      if (n < 1 || n > m->positions)
        return ice_fail(e, ICE_DATA, "%s: %s example %lld has %lld tokens, allowed 1..%d", d->origin, split,
                        (long long)item, (long long)n, m->positions);
      for (int64_t j = 0; j < n; j++)
        if (ids[j] < 0 || ids[j] >= m->vocab)
          return ice_fail(e, ICE_DATA, "%s: %s example %lld, token %lld has id %d, allowed 0..%d", d->origin, split,
                          (long long)item, (long long)j, ids[j], m->vocab - 1);
    }
  }
  return ICE_OK;
}

static int64_t longest_of(const task_data *d) {
  int64_t n = 1;
  for (int64_t i = 0; i < d->count; i++)
    if (longest(d, i) > n) n = longest(d, i);
  return n;
}

static int name_files(trainer *t, ice_err *e) {
  const char *out = t->cfg->out, *tail = ".safetensors";
  size_t stem = strlen(out);
  if (stem > strlen(tail) && strcmp(out + stem - strlen(tail), tail) == 0) stem -= strlen(tail);
  int a = snprintf(t->state_path, sizeof t->state_path, "%s.state", out);
  int b = snprintf(t->log_path, sizeof t->log_path, "%.*s.log.csv", (int)stem, out);
  if (a >= (int)sizeof t->state_path || b >= (int)sizeof t->log_path)
    return ice_fail(e, ICE_USAGE, "out: a path of %zu characters is too long", strlen(out));
  return ICE_OK;
}

/* The folder of the three files, once nothing else stands in the way of training. */
static int make_folder(const char *out, ice_err *e) {
  const char *slash = strrchr(out, '/');
  char folder[4096]; /* name_files has seen that out is shorter */
  if (!slash || slash == out) return ICE_OK;
  (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - out), out);
  return file_make_dirs(folder, e);
}

static int allocate(trainer *t, ice_err *e) {
  const train_config *c = t->cfg;
  const size_t np = (size_t)t->model.n_params, batch = (size_t)c->batch, threads = (size_t)c->threads;
  t->state.n_params = t->model.n_params;
  t->state.params = t->model.params;
  t->state.m = attn_calloc(np * sizeof(float));
  t->state.v = attn_calloc(np * sizeof(float));
  t->slots = attn_alloc(attn_mul(batch, np * sizeof(float)));
  t->grad = attn_calloc(batch * sizeof *t->grad);
  t->item = attn_calloc(3 * batch * sizeof *t->item);
  t->loss = attn_calloc(batch * sizeof *t->loss);
  t->permutation = attn_alloc((size_t)t->train->count * sizeof *t->permutation);
  t->seq = attn_calloc(threads * sizeof *t->seq);
  t->run = attn_calloc(threads * sizeof *t->run);
  if (!t->state.m || !t->state.v || !t->slots || !t->grad || !t->item || !t->loss || !t->permutation || !t->seq ||
      !t->run)
    return ice_fail(e, ICE_INTERNAL, "out of memory for %d gradients of %zu parameters", c->batch, np);
  t->order = t->item + batch;
  t->rows = t->item + 2 * batch;
  t->pass = -1;
  for (size_t i = 0; i < batch; i++) network_grad_bind(&t->grad[i], &t->model, t->slots + i * np);
  ICE_TRY(network_create(&t->net, &t->model, t->state.params, e));
  const int64_t n_train = longest_of(t->train), n_dev = longest_of(t->dev);
  const encoder_slot slot = {.method = c->method, .params = c->params, .seed = c->seed, .threads = 1};
  for (size_t i = 0; i < threads; i++) {
    ICE_TRY(sequence_create(&t->seq[i], &t->net, c->method, c->params, n_train, e));
    ICE_TRY(encoder_run_create(&t->run[i], &t->model, &slot, n_dev, e));
  }
  return ICE_OK;
}

static void destroy(trainer *t) {
  for (int i = 0; i < t->cfg->threads; i++) {
    if (t->seq) sequence_destroy(t->seq[i]);
    if (t->run) encoder_run_destroy(t->run[i]);
  }
  void *owned[] = {t->seq, t->run, t->permutation, t->loss, t->item, t->grad, t->slots, t->state.m, t->state.v};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) attn_free(owned[i]);
  network_destroy(&t->net);
  encoder_destroy(&t->model);
  if (t->log) (void)fclose(t->log);
}

static int begin(trainer *t, train_start start, ice_err *e) {
  ICE_TRY(name_files(t, e));
  if (start == TRAIN_NEW && access(t->state_path, F_OK) == 0)
    return ice_fail(e, ICE_USAGE, "%s: is there already; go on from it with --resume, or start anew with --force", t->state_path);
  ICE_TRY(encoder_create(&t->model, &t->cfg->model, e));
  ICE_TRY(allocate(t, e));
  if (t->cfg->init)
    memcpy(t->model.params, t->cfg->init, (size_t)t->model.n_params * sizeof(float));
  else
    encoder_init(&t->model, t->cfg->seed);
  t->state.best_accuracy = -1.0;
  int found = 0;
  if (start == TRAIN_RESUME) ICE_TRY(train_state_read(t->state_path, t->cfg->description, &t->state, &found, e));
  if (start == TRAIN_RESUME && !found && train_finished(t->cfg->out, t->log_path, t->cfg->description, t->cfg->steps))
    t->state.step = t->cfg->steps;
  if (t->state.step > t->cfg->steps)
    return ice_fail(e, ICE_DATA, "%s: step %lld of %lld", t->state_path, (long long)t->state.step,
                    (long long)t->cfg->steps);
  network_pack(&t->net);
  ICE_TRY(make_folder(t->cfg->out, e));
  if (start == TRAIN_FORCE) (void)unlink(t->state_path);
  return train_log_open(t->log_path, t->state.step, &t->log, e);
}

/* --- the loop ------------------------------------------------------------------------------------------------- */

/* Logs and reports after a step, evaluating when it is time. */
static int after_step(trainer *t, double lr, int64_t started, int64_t first, void (*report)(void *, const train_event *),
                      void *ctx, ice_err *e) {
  const train_config *c = t->cfg;
  train_state *s = &t->state;
  const int last = s->step == c->steps, eval = s->step % c->eval_every == 0 || last;
  if (!eval && s->step % LOG_EVERY != 0) return ICE_OK;
  train_event ev = {.step = s->step, .steps = c->steps, .lr = lr, .dev_accuracy = NAN};
  ev.loss = s->loss_sum / (double)s->loss_count;
  s->loss_sum = 0.0, s->loss_count = 0;
  if (eval) {
    ICE_TRY(evaluate(t, &ev.dev_accuracy, e));
    if (ev.dev_accuracy > s->best_accuracy) {
      s->best_accuracy = ev.dev_accuracy, s->best_step = s->step;
      ICE_TRY(save_best(t, e));
    }
  }
  ICE_TRY(train_log_row(t->log, t->log_path, s->step, lr, ev.loss, ev.dev_accuracy, e));
  const double seconds = 1e-9 * (double)(attn_now_ns() - started), steps = (double)(s->step - first);
  ev.best_accuracy = s->best_accuracy < 0.0 ? NAN : s->best_accuracy;
  ev.best_step = s->best_step;
  ev.sequences_per_second = steps * c->batch / seconds;
  ev.eta_seconds = (double)(c->steps - s->step) * seconds / steps;
  if (report) report(ctx, &ev);
  return ICE_OK;
}

static int loop(trainer *t, const volatile sig_atomic_t *stop, int *stopped,
                void (*report)(void *, const train_event *), void *ctx, ice_err *e) {
  const train_config *c = t->cfg;
  train_state *s = &t->state;
  const int64_t started = attn_now_ns();
  const int64_t first = s->step;
  while (s->step < c->steps) {
    double lr, beta1;
    train_schedule(s->step, c->steps, c->warmup, c->lr, &lr, &beta1);
    draw_batch(t, s->step);
    ICE_TRY(gradients(t, s->step, e));
    for (int i = 0; i < c->batch; i++) s->loss_sum += t->loss[i];
    s->loss_count += c->batch;
    if (!isfinite(s->loss_sum))
      return ice_fail(e, ICE_INTERNAL, "step %lld: the loss is not finite; a smaller lr than %g may help",
                      (long long)s->step, c->lr);
    update(t, lr, beta1);
    s->step++;
    ICE_TRY(after_step(t, lr, started, first, report, ctx, e));
    const int interrupted = stop && *stop;
    if (interrupted || (s->step % c->save_every == 0 && s->step < c->steps)) {
      ICE_TRY(train_log_sync(t->log, t->log_path, e));
      ICE_TRY(train_state_write(t->state_path, c->description, s, e));
    }
    if (interrupted && s->step < c->steps) {
      *stopped = 1;
      return ice_fail(e, ICE_INTERNAL, "stopped after step %lld; go on with --resume", (long long)s->step);
    }
  }
  (void)unlink(t->state_path);
  return ICE_OK;
}

int train_run(const train_config *cfg, const task_data *train, const task_data *dev, train_start start,
              const volatile sig_atomic_t *stop, int *stopped, void (*report)(void *ctx, const train_event *ev),
              void *ctx, ice_err *e) {
  *stopped = 0;
  ICE_TRY(check_run(cfg, train, dev, e));
  ICE_TRY(check_data(train, "train", &cfg->model, e));
  ICE_TRY(check_data(dev, "dev", &cfg->model, e));
  trainer t = {.cfg = cfg, .train = train, .dev = dev};
  int rc = begin(&t, start, e);
  if (rc == ICE_OK) rc = loop(&t, stop, stopped, report, ctx, e);
  destroy(&t);
  return rc;
}

int train_gradient(const encoder *m, const attn_method *method, const void *params, const int32_t *const *ids,
                   const int64_t *n, int32_t label, double dropout, uint64_t drop_key, float *g, double *loss,
                   ice_err *e) {
  sequence *s = NULL;
  network net = {0};
  network_grad grad;
  int correct;
  const int64_t n_max = m->cfg.inputs == 2 && n[1] > n[0] ? n[1] : n[0];
  memset(g, 0, (size_t)m->n_params * sizeof(float));
  network_grad_bind(&grad, m, g);
  int rc = network_create(&net, m, m->params, e);
  if (rc == ICE_OK) rc = sequence_create(&s, &net, method, params, n_max, e);
  if (rc == ICE_OK &&
      sequence_gradient(s, &net, ids, n, label, 1.0f, (float)dropout, drop_key, attn_hash(drop_key, KEY_DRAW, 0), &grad, loss, &correct) != ATTN_OK)
    rc = ice_fail(e, ICE_INTERNAL, "%s: %s", method->name, attn_last_error());
  network_destroy(&net);
  sequence_destroy(s);
  return rc;
}
