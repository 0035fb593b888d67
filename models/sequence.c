/* sequence.c - see sequence.h. Keeps every layer's activations of the forward pass; the attention keeps what its own
 * training part asks for. Dropout masks are never stored: backward hashes the same keys again. */
#include "models/sequence.h"

#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"

enum { PLACE_EMBEDDING = 100, PLACE_ATTENTION };

typedef struct input_state { /* one input's forward pass */
  layer_acts acts[ENCODER_MAX_LAYERS];
  void *saved[ENCODER_MAX_LAYERS];
  float *x[ENCODER_MAX_LAYERS + 1]; /* layer inputs; the last is the output of the last layer */
  float *y, *mean, *rstd;           /* final norm */
  int64_t n;                        /* rows: positions that are not masked */
} input_state;

struct sequence {
  const encoder_config *cfg;
  const attn_method *method;
  const void *params;
  const attn_micro *mk;
  int64_t n_max;
  float *memory;
  char *attention; /* saved parts, then scratch */
  void *scratch;
  input_state in[2];
  float *dx, *d_o, *dq, *dk, *dv, *t1, *t2; /* [n, width]; t2 [n, mlp] */
  float *pooled, *features, *hidden, *logits, *d_features, *d_hidden, *d_pooled;
};

/* The attention problem of a layer on n rows; draw: seed of the step. */
static attn_problem problem_of(const network *net, int layer, int64_t n, uint64_t draw) {
  const encoder_config *c = net->cfg;
  const layer_weights *lw = &net->layer[layer];
  const int64_t hd = c->width / c->heads;
  return (attn_problem){.b = 1,
                        .h = c->heads,
                        .hkv = c->heads,
                        .nq = n,
                        .nk = n,
                        .d = hd,
                        .dv = hd,
                        .scale = 1.0f / sqrtf((float)hd),
                        .threads = 1,
                        .seed = attn_hash(draw, (uint64_t)layer, 0),
                        .weights = lw->learned,
                        .weights_bytes = lw->learned_bytes,
                        .positions = lw->learned ? c->positions : 0};
}

int sequence_create(sequence **out, const network *net, const attn_method *method, const void *params, int64_t n_max,
                    ice_err *e) {
  *out = NULL;
  const encoder_config *c = net->cfg;
  const int64_t w = c->width, acts = layer_acts_floats(n_max, w, c->mlp), feat = c->inputs == 2 ? 4 * w : w;
  const attn_problem pb = problem_of(net, 0, n_max, 0);
  attn_mem need;
  if (!method->training) return ice_fail(e, ICE_USAGE, "%s has no training part", method->name);
  if (attn_check(method, &pb, params) != ATTN_OK || method->training->sizes(&pb, params, &need) != ATTN_OK)
    return ice_fail(e, ICE_USAGE, "%s: %s", method->name, attn_last_error());
  const int64_t per_input = c->layers * acts + (c->layers + 1) * n_max * w + n_max * (w + 2);
  const int64_t shared = n_max * (6 * w + c->mlp) + 4 * w + 2 * feat + 2 * c->head_hidden + c->classes;
  sequence *s = attn_calloc(sizeof *s);
  if (s) {
    s->memory = attn_alloc((size_t)(c->inputs * per_input + shared) * sizeof(float));
    s->attention = attn_alloc(attn_add(attn_mul((size_t)(c->inputs * c->layers), attn_round(need.plan)), need.scratch));
  }
  if (!s || !s->memory || !s->attention) {
    sequence_destroy(s);
    return ice_fail(e, ICE_INTERNAL, "out of memory for training on %lld tokens", (long long)n_max);
  }
  s->cfg = c, s->method = method, s->params = params, s->mk = attn_micro_get(), s->n_max = n_max;
  float *p = s->memory;
  char *a = s->attention;
  for (int i = 0; i < c->inputs; i++) {
    input_state *in = s->in + i;
    for (int l = 0; l < c->layers; l++, p += acts, a += attn_round(need.plan)) {
      layer_acts_carve(&in->acts[l], p, n_max, w, c->mlp);
      in->saved[l] = a;
    }
    for (int l = 0; l <= c->layers; l++, p += n_max * w) in->x[l] = p;
    for (int l = 0; l < c->layers; l++) in->acts[l].x = in->x[l], in->acts[l].y = in->x[l + 1];
    in->y = p, p += n_max * w;
    in->mean = p, p += n_max;
    in->rstd = p, p += n_max;
  }
  s->scratch = a;
  float **wide[] = {&s->dx, &s->d_o, &s->dq, &s->dk, &s->dv, &s->t1};
  for (size_t i = 0; i < sizeof wide / sizeof *wide; i++, p += n_max * w) *wide[i] = p;
  s->t2 = p, p += n_max * c->mlp;
  s->pooled = p, p += 2 * w;
  s->d_pooled = p, p += 2 * w;
  s->features = p, p += feat;
  s->d_features = p, p += feat;
  s->hidden = p, p += c->head_hidden;
  s->d_hidden = p, p += c->head_hidden;
  s->logits = p;
  *out = s;
  return ICE_OK;
}

void sequence_destroy(sequence *s) {
  if (!s) return;
  attn_free(s->memory);
  attn_free(s->attention);
  attn_free(s);
}

static attn_view view_of(const float *p, const encoder_config *c, int64_t n) {
  return (attn_view){p, n * c->width, c->width / c->heads, c->width};
}
static attn_viewm viewm_of(float *p, const encoder_config *c, int64_t n) {
  return (attn_viewm){p, n * c->width, c->width / c->heads, c->width};
}

static void drop_embedding(const sequence *s, float *x, int64_t n, float dropout, uint64_t key) {
  if (dropout == 0.0f) return;
  attn_drop dr = attn_drop_make(dropout, attn_hash(key, PLACE_EMBEDDING, 0));
  s->mk->drop_block(n, s->cfg->width, x, s->cfg->width, &dr, 0, 0);
}

static attn_status forward_input(sequence *s, const network *net, int i, const int32_t *ids, int64_t length, float dropout,
                                 uint64_t key, uint64_t draw) {
  const encoder_config *c = s->cfg;
  input_state *in = s->in + i;
  const int64_t n = in->n = network_embed(net, ids, length, in->x[0]);
  drop_embedding(s, in->x[0], n, dropout, key);
  for (int l = 0; l < c->layers && n > 0; l++) {
    const layer_acts *a = &in->acts[l];
    const attn_problem pb = problem_of(net, l, n, draw);
    const float *k = layer_shared_qk(&net->layer[l]) ? a->q : a->k;
    layer_drop drop = {dropout, attn_hash(key, (uint64_t)l, 1)};
    layer_before_attention(s->mk, &net->layer[l], a, 0, n);
    attn_status st = s->method->training->forward(
        &pb, s->params, view_of(a->q, c, n), view_of(k, c, n), view_of(a->v, c, n), NULL, dropout,
        attn_hash(drop.key, PLACE_ATTENTION, 0), viewm_of(a->o, c, n), in->saved[l], s->scratch);
    if (st != ATTN_OK) return st;
    layer_after_attention(s->mk, &net->layer[l], a, 0, n, drop);
  }
  network_pool(s->mk, net, n, in->x[c->layers], in->y, in->mean, in->rstd, s->pooled + i * c->width);
  return ATTN_OK;
}

static attn_status backward_input(sequence *s, const network *net, int i, const int32_t *ids, int64_t length, float dropout,
                                  uint64_t key, uint64_t draw, const network_grad *g) {
  const encoder_config *c = s->cfg;
  const int64_t w = c->width;
  input_state *in = s->in + i;
  const int64_t n = in->n;
  if (!n) return ATTN_OK;
  for (int64_t r = 0; r < n; r++)
    for (int64_t t = 0; t < w; t++) s->t1[r * w + t] = s->d_pooled[i * w + t] / (float)c->positions;
  memset(s->dx, 0, (size_t)(n * w) * sizeof(float));
  s->mk->norm_grad(n, w, in->x[c->layers], net->final.g, in->mean, in->rstd, s->t1, s->dx, g->final.g, g->final.b);
  for (int l = c->layers - 1; l >= 0; l--) {
    const layer_acts *a = &in->acts[l];
    const attn_problem pb = problem_of(net, l, n, draw);
    const int shared = layer_shared_qk(&net->layer[l]);
    const float *k = shared ? a->q : a->k;
    layer_drop drop = {dropout, attn_hash(key, (uint64_t)l, 1)};
    layer_after_backward(s->mk, &net->layer[l], a, n, drop, s->dx, s->d_o, s->t1, s->t2, &g->layer[l]);
    attn_status st = s->method->training->backward(
        &pb, s->params, view_of(a->q, c, n), view_of(k, c, n), view_of(a->v, c, n), NULL, dropout,
        attn_hash(drop.key, PLACE_ATTENTION, 0), view_of(a->o, c, n), view_of(s->d_o, c, n), viewm_of(s->dq, c, n),
        viewm_of(s->dk, c, n), viewm_of(s->dv, c, n), g->layer[l].learned, in->saved[l], s->scratch);
    if (st != ATTN_OK) return st;
    if (shared) s->mk->axpy(n * w, 1.0f, s->dk, s->dq);
    layer_before_backward(s->mk, &net->layer[l], a, n, s->dq, s->dk, s->dv, s->dx, s->t1, &g->layer[l]);
  }
  drop_embedding(s, s->dx, n, dropout, key);
  const float *row = s->dx;
  for (int64_t p = 0; p < length; p++) {
    if (!ids[p]) continue;
    s->mk->axpy(w, 1.0f, row, g->tok + ids[p] * w);
    s->mk->axpy(w, 1.0f, row, g->pos + p * w);
    row += w;
  }
  return ATTN_OK;
}

/* Cross entropy of logits; leaves weight * (softmax - onehot) in logits. */
static double cross_entropy(float *logits, int classes, int32_t label, float weight, int *correct) {
  int best = 0;
  double sum = 0.0;
  for (int c = 1; c < classes; c++)
    if (logits[c] > logits[best]) best = c;
  for (int c = 0; c < classes; c++) sum += exp((double)logits[c] - (double)logits[best]);
  const double lse = (double)logits[best] + log(sum), loss = lse - (double)logits[label];
  for (int c = 0; c < classes; c++) logits[c] = (float)((exp((double)logits[c] - lse) - (c == label)) * (double)weight);
  *correct = best == label;
  return loss;
}

static void backward_head(sequence *s, const network *net, const network_grad *g) {
  const int64_t w = s->cfg->width;
  linear_backward(s->mk, &net->head2, 1, s->hidden, s->logits, s->d_hidden, 0, g->head2);
  for (int64_t t = 0; t < net->head1.out; t++)
    if (!(s->hidden[t] > 0.0f)) s->d_hidden[t] = 0.0f;
  linear_backward(s->mk, &net->head1, 1, s->features, s->d_hidden, s->d_features, 0, g->head1);
  memcpy(s->d_pooled, s->d_features, (size_t)(w * s->cfg->inputs) * sizeof(float));
  if (s->cfg->inputs != 2) return;
  const float *product = s->d_features + 2 * w, *difference = s->d_features + 3 * w;
  for (int64_t t = 0; t < w; t++) {
    s->d_pooled[t] += product[t] * s->pooled[w + t] + difference[t];
    s->d_pooled[w + t] += product[t] * s->pooled[t] - difference[t];
  }
}

attn_status sequence_gradient(sequence *s, const network *net, const int32_t *const *ids, const int64_t *n,
                              int32_t label, float weight, float dropout, uint64_t key, uint64_t draw, const network_grad *g,
                              double *loss, int *correct) {
  for (int i = 0; i < s->cfg->inputs; i++) {
    attn_status st = forward_input(s, net, i, ids[i], n[i], dropout, attn_hash(key, (uint64_t)i, 2), draw);
    if (st != ATTN_OK) return st;
  }
  network_features(net, s->pooled, s->features);
  network_head(s->mk, net, s->features, s->hidden, s->logits);
  *loss = cross_entropy(s->logits, s->cfg->classes, label, weight, correct);
  backward_head(s, net, g);
  for (int i = 0; i < s->cfg->inputs; i++) {
    attn_status st = backward_input(s, net, i, ids[i], n[i], dropout, attn_hash(key, (uint64_t)i, 2), draw, g);
    if (st != ATTN_OK) return st;
  }
  return ATTN_OK;
}
