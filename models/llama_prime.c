/* llama_prime.c - see llama_prime.h.
 *
 * Look back. Every embedding gets the same number in its first dimension: with it a head can attend by position alone. Rotary embeddings turn
 * pair f of a query at i and of a key at j by i t_f and j t_f; a query A (cos(o t_f), -sin(o t_f)) and a key A (1, 0) score
 *     sum over f of A^2 cos((i - j - o) t_f)
 * which is largest for the key o tokens back: all embeddings are of one length, and the first layers leave that dimension alone, so that keys are, too. Layer 0 looks
 * 1, 2, 3 and 4 back, layer 1 looks 1, 4 and 8 back, and so every token of layer 2 knows the twelve tokens before it. The peak is soft: where
 * attention is certain it has no gradient.
 *
 * Look up. What layer 1 brings from one token back is O V a(j - 1), with its value and output matrices. In head 0 of the later layers, queries
 * V a(i) and keys O' x(j) score like V a(i) . V a(j - 1): the head finds the token that followed a place like this one. Only pairs that turn
 * slowly take part, so that it finds it at any distance.
 *
 * Copy. In the later layers O starts near a multiple of V', so that O V is near a multiple of 1: what is found is added as it is, and with tied
 * embeddings its logit rises. Without this part the others are of no use: each of the thousands of tokens would have to be learnt for itself. */
#include "models/llama_prime.h"

#include <math.h>
#include <string.h>

#include "models/llama_model.h"

enum { LOOK_UP_LAYER = 2, BACK_LAYER = 1, HEADS = 4, FAST_PAIRS = 8 };
static const int BACK[LOOK_UP_LAYER][HEADS] = {{1, 2, 3, 4}, {1, 4, 8, 0}}; /* 0: left as it is */
static const float CONSTANT = 8.0f, /* times 1 / sqrt(width), what the other dimensions of an embedding have as deviation */
    STEP = 4.0f,                    /* what a step to either side of the right key costs in the exponent */
    REST = 0.1f,                    /* what is left of the random weights of a head that looks back */
    CONTEXT = 1.0f,                 /* what layer 0 brings of the four tokens before stands out by so much, */
    LOUD = 4.0f,                    /* what layer 1 brings from one token back by so much ... */
    QUERY = 2.0f, KEY = 5.0f,       /* ... and a match is worth about 8 in the exponent */
    COPY = 3.4f;                    /* times 1 / sqrt(width): what is found weighs more than an embedding */

static float *row_of(const matrix *m, int64_t row) { return (float *)(uintptr_t)m->data + row * m->cols; }

/* Rows of pair f of a head. */
static void pair_rows(const llama_config *c, int64_t head, int64_t f, int64_t *first, int64_t *second) {
  const int64_t base = head * c->head_dim;
  *first = base + (c->rope_adjacent ? 2 * f : f);
  *second = c->rope_adjacent ? *first + 1 : *first + c->head_dim / 2;
}

static double speed(const llama_config *c, int64_t f) {
  return pow((double)c->rope_base, -2.0 * (double)f / (double)c->head_dim) / (double)c->rope_scale;
}

/* A, divided by what the first dimension is after normalisation: slower turns need more. */
static float back_amplitude(const llama_config *c) {
  double turned = 0.0;
  for (int64_t f = 0; f < FAST_PAIRS && f < c->head_dim / 2; f++) turned += 1.0 - cos(speed(c, f));
  const double constant = (double)CONSTANT / sqrt(1.0 + (double)(CONSTANT * CONSTANT) / (double)c->width);
  return (float)(sqrt((double)STEP * sqrt((double)c->head_dim) / turned) / constant);
}

static void look_back(const llama *m, int layer, int64_t head, int offset) {
  const llama_config *c = &m->cfg;
  const llama_layer *w = m->layer + layer;
  const float amplitude = back_amplitude(c);
  for (int64_t i = 0; i < c->head_dim * c->width; i++) {
    row_of(&w->q, head * c->head_dim)[i] *= REST;
    row_of(&w->k, head * c->head_dim)[i] *= REST;
  }
  for (int64_t f = 0; f < FAST_PAIRS && f < c->head_dim / 2; f++) {
    int64_t a, b;
    pair_rows(c, head, f, &a, &b);
    for (int64_t t = 0; t < c->width; t++) row_of(&w->q, a)[t] = row_of(&w->q, b)[t] = row_of(&w->k, a)[t] = row_of(&w->k, b)[t] = 0.0f;
    row_of(&w->q, a)[0] = amplitude * (float)cos(offset * speed(c, f));
    row_of(&w->q, b)[0] = -amplitude * (float)sin(offset * speed(c, f));
    row_of(&w->k, a)[0] = amplitude;
    row_of(&w->k, b)[0] = 0.0f;
  }
}

static void look_up(const llama *m, int layer) {
  const llama_config *c = &m->cfg;
  const llama_layer *w = m->layer + layer, *back = m->layer + BACK_LAYER;
  const int64_t half = c->head_dim / 2;
  for (int64_t f = 0; f < half; f++) {
    int64_t row[2], source[2];
    const float share = f < half / 2 ? 0.1f : 1.0f;
    pair_rows(c, 0, f, row, row + 1);
    pair_rows(c, 0, f, source, source + 1); /* head 0 of layer 1 looks 1 back */
    for (int s = 0; s < 2; s++)
      for (int64_t t = 0; t < c->width; t++) {
        row_of(&w->q, row[s])[t] = QUERY * share * row_of(&back->v, source[s])[t];
        row_of(&w->k, row[s])[t] = KEY * share * row_of(&back->o, t)[source[s]];
      }
  }
}

static void copy(const llama *m, int layer) {
  const llama_config *c = &m->cfg;
  const llama_layer *w = m->layer + layer;
  const float share = COPY / sqrtf((float)c->width);
  for (int64_t t = 0; t < c->width; t++)
    for (int64_t k = 0; k < w->o.cols; k++) row_of(&w->o, t)[k] += share * row_of(&w->v, k)[t];
}

/* All embeddings of one length, of which the first dimension has the same share: keys of one length score by their place alone. */
static void level_embeddings(const llama *m) {
  const int64_t width = m->cfg.width;
  const float constant = CONSTANT / sqrtf((float)width);
  for (int64_t i = 0; i < m->cfg.vocab; i++) {
    float *x = row_of(&m->embed, i);
    double square = 0.0;
    for (int64_t t = 1; t < width; t++) square += (double)x[t] * (double)x[t];
    for (int64_t t = 1; t < width; t++) x[t] *= (float)(1.0 / sqrt(square));
    x[0] = constant;
  }
}

static void keep_constant(const llama *m, int layer) {
  const llama_layer *w = m->layer + layer;
  memset(row_of(&w->o, 0), 0, (size_t)w->o.cols * sizeof(float));
  memset(row_of(&w->down, 0), 0, (size_t)w->down.cols * sizeof(float));
}

int llama_learner_prime(llama_learner *l, ice_err *e) {
  const llama *m = llama_learner_model(l);
  const llama_config *c = &m->cfg;
  if (c->layers <= LOOK_UP_LAYER || c->heads < HEADS || c->kv_heads != c->heads)
    return ice_fail(e, ICE_USAGE, "prime: %lld layers, %lld heads for %lld of keys; allowed from %d layers and %d heads on, as many of keys",
                    (long long)c->layers, (long long)c->heads, (long long)c->kv_heads, LOOK_UP_LAYER + 1, HEADS);
  level_embeddings(m);
  for (int layer = 0; layer < LOOK_UP_LAYER; layer++) {
    keep_constant(m, layer);
    for (int64_t head = 0; head < HEADS; head++)
      if (BACK[layer][head]) look_back(m, layer, head, BACK[layer][head]);
  }
  for (int64_t t = 0; t < c->width; t++) {
    for (int64_t k = 0; k < m->layer[0].o.cols; k++) row_of(&m->layer[0].o, t)[k] *= CONTEXT;
    for (int64_t k = 0; k < c->head_dim; k++) row_of(&m->layer[BACK_LAYER].o, t)[k] *= LOUD;
  }
  for (int layer = LOOK_UP_LAYER; layer < (int)c->layers; layer++) {
    look_up(m, layer);
    copy(m, layer);
  }
  return ICE_OK;
}
