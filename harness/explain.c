/* explain.c - see explain.h */
#include "harness/explain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/allot.h"
#include "harness/cell.h"
#include "harness/cell_judge.h"
#include "harness/explain_heads.h"
#include "harness/registry/registry.h"
#include "kernels/core/rng.h"

typedef struct examples { /* of one split */
  const task_data *data;
  int64_t *item, n; /* owned */
} examples;

typedef struct explainer {
  const explain_options *o;
  explain_result *r;
  int n;              /* heads of all layers */
  task_data data[2];  /* of dev and test; the first stays empty where there is no dev split */
  examples look, prove;
  int64_t longest, done;
  encoder_head exact, *mix; /* mix: [n] what stands in each head of `run` */
  encoder_run *run;         /* that reads mix */
  float *logits, *other;    /* [classes] of exact attention and of what it is compared with */
  double spread;            /* sum over the examples of ||logits - their mean||^2 */
  explain_heads heads;
} explainer;

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory to explain"); }

/* ---- Examples. */

static int draw(examples *x, const task_data *d, int64_t count, uint64_t seed, ice_err *e) {
  const int64_t n = count < d->count ? count : d->count;
  x->data = d;
  x->item = malloc((size_t)(n + 1) * sizeof *x->item);
  if (!x->item) return no_memory(e);
  x->n = cell_draw(d->count, n, seed, x->item);
  return x->n > 0 ? ICE_OK : ice_fail(e, ICE_DATA, "%s: no examples", d->origin);
}

/* Without a dev split, one draw of the test split is dealt out: the first of every so many is looked at. */
static int deal(explainer *x, uint64_t seed, ice_err *e) {
  const explain_options *o = x->o;
  const int64_t every = (o->look + o->prove) / o->look;
  examples all = {0};
  int64_t looked = 0, proven = 0;
  ICE_TRY(draw(&all, x->data + 1, o->look + o->prove, seed, e));
  x->look = (examples){all.data, malloc((size_t)all.n * sizeof *all.item), 0};
  x->prove = (examples){all.data, malloc((size_t)all.n * sizeof *all.item), 0};
  for (int64_t i = 0; x->look.item && x->prove.item && i < all.n; i++)
    if (i % every == 0) x->look.item[looked++] = all.item[i];
    else x->prove.item[proven++] = all.item[i];
  x->look.n = looked, x->prove.n = proven;
  free(all.item);
  if (!x->look.item || !x->prove.item) return no_memory(e);
  return proven ? ICE_OK : ice_fail(e, ICE_DATA, "%s: too few examples to look at some and prove on others", x->data[1].origin);
}

static void measure_longest(explainer *x, const examples *some) {
  for (int64_t i = 0; i < some->n; i++)
    for (int s = 0; s < some->data->inputs; s++)
      if (task_len(some->data, some->item[i], s) > x->longest) x->longest = task_len(some->data, some->item[i], s);
}

static int load(explainer *x, ice_err *e) {
  const explain_options *o = x->o;
  const uint64_t seed = attn_hash(o->seed, CELL_DRAW_EXAMPLES, 0);
  ICE_TRY(task_load(o->task, TASK_TEST, x->data + 1, e));
  const int dev = task_load(o->task, TASK_DEV, x->data, NULL) == ICE_OK;
  if (dev) {
    ICE_TRY(draw(&x->look, x->data, o->look, seed, e));
    ICE_TRY(draw(&x->prove, x->data + 1, o->prove, seed, e));
  } else
    ICE_TRY(deal(x, seed, e));
  measure_longest(x, &x->look);
  measure_longest(x, &x->prove);
  explain_result *r = x->r;
  r->look = x->look.n, r->prove = x->prove.n;
  r->look_split = dev ? TASK_DEV : TASK_TEST, r->prove_split = TASK_TEST;
  r->official = x->data[1].official && (!dev || x->data[0].official);
  return cell_check_model(o->task, o->model, x->longest, "the model", e);
}

/* ---- One example. */

static int open_run(const explainer *x, const encoder_head *heads, encoder_run **run, ice_err *e) {
  const explain_options *o = x->o;
  const encoder_slot slot = {.method = o->method, .heads = heads, .seed = o->seed, .threads = o->threads, .padded = o->padded};
  return encoder_run_create(run, o->model, &slot, x->longest, e);
}

static int forward(encoder_run *run, const examples *some, int64_t i, float *logits, encoder_cost *cost,
                   void (*observer)(void *, const encoder_call *), void *ctx, ice_err *e) {
  const int32_t *ids[TASK_MAX_INPUTS];
  int64_t n[TASK_MAX_INPUTS];
  task_example(some->data, some->item[i], ids, n);
  return encoder_forward(run, ids, n, logits, cost, observer, ctx, e);
}

static int answer(const explainer *x, const float *logits) {
  int best = 0;
  for (int c = 1; c < x->o->model->cfg.classes; c++)
    if (logits[c] > logits[best]) best = c;
  return best;
}

/* Only differences between the logits of an example matter: ||a - b||^2 after taking out the mean of each; b NULL: zeros. */
static double distance(const explainer *x, const float *a, const float *b) {
  const int n = x->o->model->cfg.classes;
  double mean = 0.0, sum = 0.0;
  for (int c = 0; c < n; c++) mean += ((double)a[c] - (b ? (double)b[c] : 0.0)) / n;
  for (int c = 0; c < n; c++) {
    const double d = (double)a[c] - (b ? (double)b[c] : 0.0) - mean;
    sum += d * d;
  }
  return sum;
}

static void tick(explainer *x) {
  x->done++;
  if (x->o->progress) x->o->progress(x->o->ctx, x->done, x->look.n + x->prove.n);
}

/* ---- Looking. */

/* How far the example moves with the method where `mix` has it. */
static int mixed(explainer *x, int64_t i, double *moved, int *changed, ice_err *e) {
  ICE_TRY(forward(x->run, &x->look, i, x->other, NULL, NULL, NULL, e));
  *moved = distance(x, x->other, x->logits);
  *changed = answer(x, x->other) != answer(x, x->logits);
  return ICE_OK;
}

static void fill_mix(explainer *x, int from, int to) { /* the method in heads [from, to) */
  for (int h = 0; h < x->n; h++)
    x->mix[h] = h >= from && h < to ? (encoder_head){x->o->method, explain_heads_params(&x->heads, h, 0)} : x->exact;
}

static int look_at_example(explainer *x, int64_t i, ice_err *e) {
  const int heads = x->r->heads;
  double moved;
  int changed;
  fill_mix(x, 0, 0);
  ICE_TRY(forward(x->run, &x->look, i, x->logits, NULL, explain_heads_look, &x->heads, e));
  if (x->heads.rc != ICE_OK) {
    *e = x->heads.err;
    return x->heads.rc;
  }
  x->spread += distance(x, x->logits, NULL);
  for (int h = 0; h < x->n; h++) {
    fill_mix(x, h, h + 1);
    ICE_TRY(mixed(x, i, &moved, &changed, e));
    x->heads.sums[h].moved += moved;
    x->heads.sums[h].changed += changed;
  }
  for (int l = 0; l < x->r->layers; l++) {
    fill_mix(x, 0, (l + 1) * heads);
    ICE_TRY(mixed(x, i, &moved, &changed, e));
    x->r->layer[l].logits += moved;
    x->r->layer[l].changed += changed / (double)x->look.n;
  }
  return ICE_OK;
}

static double or_nan(double sum, int64_t n) { return n ? sum / (double)n : (double)NAN; }

static void describe_head(const explainer *x, int h, explain_head *out) {
  const explain_sums *s = x->heads.sums + h;
  const quality own = quality_of(&s->own), best = quality_of(&s->best);
  const double most = or_nan(s->own.best, s->own.set_rows);
  *out = (explain_head){.value = explain_heads_value(&x->heads, h, 0),
                        .l2_error = own.l2_error,
                        .rel_l2_error = own.rel_l2_error,
                        .mass = own.mass,
                        .few = fmax(1.0 - most, 0.0),
                        .missed = most - own.mass,
                        .best_rel_l2_error = best.rel_l2_error,
                        .keys = or_nan((double)s->own.keys, s->own.set_rows),
                        .logits = sqrt(s->moved / x->spread),
                        .changed = (double)s->changed / (double)x->look.n};
}

static int look(explainer *x, ice_err *e) {
  ICE_TRY(open_run(x, x->mix, &x->run, e));
  for (int64_t i = 0; i < x->look.n; i++) {
    ICE_TRY(look_at_example(x, i, e));
    tick(x);
  }
  for (int h = 0; h < x->n; h++) describe_head(x, h, x->r->head + h);
  for (int l = 0; l < x->r->layers; l++) x->r->layer[l].logits = sqrt(x->r->layer[l].logits / x->spread);
  return ICE_OK;
}

/* ---- Choosing. */

/* pick[0]: as it was; pick[1]: the same work, less error; pick[2]: the same error, less work. */
static int choose(const explainer *x, int *pick[EXPLAIN_VARIANTS], ice_err *e) {
  double *cost = calloc((size_t)x->n * EXPLAIN_VALUES * ALLOT_SUMS, sizeof *cost);
  if (!cost) return no_memory(e);
  for (int h = 0; h < x->n; h++) {
    const explain_sums *s = x->heads.sums + h;
    const double weight = !x->o->by_logits ? 1.0 : s->value[0].diff2 > 0.0 ? s->moved / s->value[0].diff2 : 0.0;
    for (int v = 0; v < EXPLAIN_VALUES; v++) {
      double *at = cost + (h * EXPLAIN_VALUES + v) * ALLOT_SUMS;
      at[ALLOT_EFFECT] = weight * s->value[v].diff2;
      at[ALLOT_PAIRS] = s->value[v].pairs;
      at[ALLOT_KEYS] = s->value[v].keys;
    }
  }
  const allot_table t = {x->n, EXPLAIN_VALUES, cost};
  double now[ALLOT_SUMS], share[ALLOT_SUMS];
  for (int c = 0; c < ALLOT_SUMS; c++) {
    now[c] = allot_sum(&t, pick[0], c);
    share[c] = now[c] > 0.0 ? 1.0 / now[c] : 0.0;
  }
  const double less_error[ALLOT_SUMS] = {[ALLOT_EFFECT] = share[ALLOT_EFFECT]};
  const double less_work[ALLOT_SUMS] = {[ALLOT_PAIRS] = share[ALLOT_PAIRS], [ALLOT_KEYS] = share[ALLOT_KEYS]};
  const double same_work[ALLOT_SUMS] = {[ALLOT_EFFECT] = INFINITY, [ALLOT_PAIRS] = now[ALLOT_PAIRS], [ALLOT_KEYS] = now[ALLOT_KEYS]};
  allot_improve(&t, less_error, same_work, pick[1]);
  allot_improve(&t, less_work, now, pick[2]); /* neither sum of the work may grow */
  free(cost);
  return ICE_OK;
}

/* ---- Proving. */

typedef struct proof { /* one variant on its way through the examples */
  encoder_head *head; /* [n], owned */
  encoder_run *run;
  cell_judge judge;
  encoder_cost cost;
  double *error, *moved; /* [examples], owned */
  int64_t hits, changed;
} proof;

static int proof_open(proof *p, const explainer *x, const int *pick, ice_err *e) {
  p->head = calloc((size_t)x->n, sizeof *p->head);
  p->error = calloc((size_t)x->prove.n, sizeof *p->error);
  p->moved = calloc((size_t)x->prove.n, sizeof *p->moved);
  if (!p->head || !p->error || !p->moved) return no_memory(e);
  for (int h = 0; h < x->n; h++) {
    const void *own = explain_heads_params(&x->heads, h, pick[h]);
    const int alike = h % x->r->heads && !memcmp(own, p->head[h - 1].params, x->o->method->params_size);
    p->head[h] = (encoder_head){x->o->method, alike ? p->head[h - 1].params : own};
  }
  return open_run(x, p->head, &p->run, e);
}

static void proof_close(proof *p) {
  encoder_run_destroy(p->run);
  free(p->head);
  free(p->error);
  free(p->moved);
}

static int prove_example(const explainer *x, proof *p, int64_t i, ice_err *e) {
  const double before = p->judge.sums.diff2;
  ICE_TRY(forward(p->run, &x->prove, i, x->other, &p->cost, cell_judge_call, &p->judge, e));
  if (p->judge.rc != ICE_OK) {
    *e = p->judge.err;
    return p->judge.rc;
  }
  p->error[i] = p->judge.sums.diff2 - before;
  p->moved[i] = distance(x, x->other, x->logits);
  p->changed += answer(x, x->other) != answer(x, x->logits);
  p->hits += answer(x, x->other) == x->prove.data->label[x->prove.item[i]];
  return ICE_OK;
}

static void describe_variant(const explainer *x, const proof *p, const proof *first, double spread, explain_variant *out) {
  const double n = (double)x->prove.n, rows = (double)p->judge.sums.rows;
  double moved = 0.0;
  for (int64_t i = 0; i < x->prove.n; i++) moved += p->moved[i];
  out->pairs = (double)p->cost.pairs / rows;
  out->keys = or_nan((double)p->judge.sums.keys, p->judge.sums.set_rows);
  out->rel_l2_error = quality_of(&p->judge.sums).rel_l2_error;
  out->logits = sqrt(moved / spread);
  out->changed = (double)p->changed / n;
  out->accuracy = (double)p->hits / n;
  out->error_ratio = stats_retention_bootstrap(p->error, first->error, (size_t)x->prove.n, x->o->seed);
  out->logits_ratio = stats_retention_bootstrap(p->moved, first->moved, (size_t)x->prove.n, x->o->seed);
}

static int prove(explainer *x, int *pick[EXPLAIN_VARIANTS], ice_err *e) {
  static const char *const names[EXPLAIN_VARIANTS] = {"as it was", "same work", "same error"};
  proof p[EXPLAIN_VARIANTS] = {0};
  int64_t hits = 0;
  double spread = 0.0;
  int rc = ICE_OK;
  fill_mix(x, 0, 0);
  for (int v = 0; v < EXPLAIN_VARIANTS && rc == ICE_OK; v++) rc = proof_open(p + v, x, pick[v], e);
  for (int64_t i = 0; i < x->prove.n && rc == ICE_OK; i++) {
    rc = forward(x->run, &x->prove, i, x->logits, NULL, NULL, NULL, e);
    spread += distance(x, x->logits, NULL);
    hits += answer(x, x->logits) == x->prove.data->label[x->prove.item[i]];
    for (int v = 0; v < EXPLAIN_VARIANTS && rc == ICE_OK; v++) rc = prove_example(x, p + v, i, e);
    tick(x);
  }
  x->r->accuracy = (double)hits / (double)x->prove.n;
  for (int v = 0; v < EXPLAIN_VARIANTS; v++) {
    explain_variant *out = x->r->variant + v;
    out->name = names[v];
    for (int h = 0; h < x->n; h++) out->value[h] = explain_heads_value(&x->heads, h, pick[v][h]);
    if (rc == ICE_OK) describe_variant(x, p + v, p, spread, out);
  }
  for (int v = 0; v < EXPLAIN_VARIANTS; v++) proof_close(p + v);
  return rc;
}

/* ---- All of it. */

static int explain(explainer *x, ice_err *e) {
  const explain_options *o = x->o;
  const size_t n = (size_t)x->n, classes = (size_t)o->model->cfg.classes;
  int *pick[EXPLAIN_VARIANTS];
  x->exact = (encoder_head){registry_find("dense", NULL), NULL};
  x->mix = calloc(n, sizeof *x->mix);
  x->logits = calloc(classes, sizeof *x->logits);
  x->other = calloc(classes, sizeof *x->other);
  x->r->head = calloc(n, sizeof *x->r->head);
  int *picks = calloc(n * EXPLAIN_VARIANTS, sizeof *picks);
  int rc = x->mix && x->logits && x->other && x->r->head && picks ? load(x, e) : no_memory(e);
  for (int v = 0; v < EXPLAIN_VARIANTS; v++) pick[v] = picks ? picks + (size_t)v * n : NULL;
  if (rc == ICE_OK) rc = explain_heads_open(&x->heads, o, e);
  if (rc == ICE_OK) fill_mix(x, 0, 0);
  if (rc == ICE_OK) rc = look(x, e);
  if (rc == ICE_OK) rc = choose(x, pick, e);
  if (rc == ICE_OK) rc = prove(x, pick, e);
  free(picks);
  return rc;
}

int explain_run(const explain_options *o, explain_result *out, ice_err *e) {
  const encoder_config *m = &o->model->cfg;
  explainer x = {.o = o, .r = out, .n = m->layers * m->heads};
  *out = (explain_result){.layers = m->layers, .heads = m->heads};
  int rc = explain(&x, e);
  encoder_run_destroy(x.run);
  explain_heads_close(&x.heads);
  for (int i = 0; i < 2; i++) task_data_free(x.data + i);
  free(x.look.item);
  free(x.prove.item);
  free(x.mix);
  free(x.logits);
  free(x.other);
  return rc;
}

void explain_free(explain_result *r) {
  free(r->head);
  r->head = NULL;
}
