/* llama_grad.c - see llama_grad.h.
 *
 * Forward keeps, for each layer, its input x, queries, keys and values (turned), attention output o, h = x + Wo o, gate and up
 * products, and the inverse norms of rows; normalised rows and silu(gate) * up are computed again on the way back. The head meets a
 * chunk of the rows that count at a time, forward and backward in one: logits of a whole batch never exist.
 *
 *     dWd = dy' act           dact = dy Wd           dgate = dact up silu'(gate)      dup = dact silu(gate)
 *     dc = dgate Wg + dup Wu  dh = dy + dRMS(dc)     do = dh Wo                       dq, dk, dv from the attention
 *     da = dq Wq + dk Wk + dv Wv                     dx = dh + dRMS(da)
 *
 * RMSNorm: y = x r g with r = 1 / sqrt(mean x^2 + eps); dx = r g dy - x r^3 / width * sum(g dy x); dg = sum over rows of dy x r. */
#include "models/llama_grad.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/blas.h"
#include "kernels/core/rng.h"
#include "kernels/micro/micro.h"
#include "models/llama_model.h"

enum { HEAD_ROWS = 512, BLOCK_X = 256, BLOCK_W = 64 };

typedef struct layer_saved { /* [rows, ...] of one layer */
  float *x, *q, *k, *v, *o, *h, *gate, *up;
  float *r1, *r2; /* [rows] inverse norms of x and h */
  void *attention;
} layer_saved;

struct llama_learner {
  llama *m; /* its matrices point into weights */
  llama_part *part;
  int n_parts, threads, batch;
  int64_t n, rows, count;
  const attn_method *method;
  const void *params;
  attn_mem need;
  float *weights, *memory;
  layer_saved *layer;
  float *cosine, *sine; /* [context, head_dim / 2] */
  int32_t *position;    /* [rows] */
  float *last, *r;      /* [rows, width] output of the last layer, [rows] its inverse norms */
  float *a, *dx, *da;   /* [rows, width] */
  float *dq, *dk, *dv, *d_o;
  float *act, *dact;    /* [rows, mlp] */
  float *head_in, *logits, *product; /* a chunk of rows at the head */
  double *row_loss;
  void *scratch;
};

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void place(llama_learner *l, attn_layout *at) {
  const llama_config *c = &l->m->cfg;
  const int64_t w = c->width, qw = c->heads * c->head_dim, kw = c->kv_heads * c->head_dim, rows = l->rows;
  const int64_t head = rows < HEAD_ROWS ? rows : HEAD_ROWS, widest = c->mlp > w ? c->mlp : w;
  for (int i = 0; i < (int)c->layers; i++) {
    layer_saved *s = l->layer + i;
    s->x = attn_place_floats(at, rows, w);
    s->q = attn_place_floats(at, rows, qw);
    s->k = attn_place_floats(at, rows, kw);
    s->v = attn_place_floats(at, rows, kw);
    s->o = attn_place_floats(at, rows, qw);
    s->h = attn_place_floats(at, rows, w);
    s->gate = attn_place_floats(at, rows, c->mlp);
    s->up = attn_place_floats(at, rows, c->mlp);
    s->r1 = attn_place_floats(at, rows, 1);
    s->r2 = attn_place_floats(at, rows, 1);
    s->attention = attn_place(at, l->need.plan);
  }
  l->cosine = attn_place_floats(at, c->context, c->head_dim / 2);
  l->sine = attn_place_floats(at, c->context, c->head_dim / 2);
  l->position = attn_place(at, (size_t)rows * sizeof *l->position);
  l->last = attn_place_floats(at, rows, w);
  l->r = attn_place_floats(at, rows, 1);
  l->a = attn_place_floats(at, rows, w);
  l->dx = attn_place_floats(at, rows, w);
  l->da = attn_place_floats(at, rows, w);
  l->dq = attn_place_floats(at, rows, qw);
  l->dk = attn_place_floats(at, rows, kw);
  l->dv = attn_place_floats(at, rows, kw);
  l->d_o = attn_place_floats(at, rows, qw);
  l->act = attn_place_floats(at, rows, c->mlp);
  l->dact = attn_place_floats(at, rows, c->mlp);
  l->head_in = attn_place_floats(at, head, w);
  l->logits = attn_place_floats(at, head, c->vocab);
  l->product = attn_place_floats(at, 1, matrix_scratch_floats(widest > qw ? widest : qw, l->threads));
  l->row_loss = attn_place(at, (size_t)head * sizeof *l->row_loss);
  l->scratch = attn_place(at, l->need.scratch);
}

static attn_problem problem_of(const llama_learner *l) {
  const llama_config *c = &l->m->cfg;
  return (attn_problem){.b = l->batch, .h = c->heads, .hkv = c->kv_heads, .nq = l->n, .nk = l->n, .d = c->head_dim, .dv = c->head_dim,
                        .scale = 1.0f / sqrtf((float)c->head_dim), .causal = 1, .threads = l->threads};
}

static int attention_needs(llama_learner *l, ice_err *e) {
  const attn_problem pb = problem_of(l);
  const attn_method *me = l->method;
  if (!me->training) return ice_fail(e, ICE_USAGE, "%s has no training part", me->name);
  attn_status st = attn_check(me, &pb, l->params);
  if (st == ATTN_OK) st = me->training->sizes(&pb, l->params, &l->need);
  return st == ATTN_OK ? ICE_OK : ice_fail(e, ICE_USAGE, "%s: %s", me->name, attn_last_error());
}

/* Points the model's matrices into the vector of weights; with NULL only counts. */
static void bind(llama_learner *l, float *at) {
  l->count = 0;
  for (int i = 0; i < l->n_parts; i++) {
    llama_part *p = l->part + i;
    if (at) *p->at = (matrix){MATRIX_F32, p->rows, p->cols, (const uint8_t *)(at + l->count)};
    l->count += p->rows * p->cols;
  }
  if (at && l->m->cfg.tied) l->m->head = l->m->embed;
}

static int allocate(llama_learner *l, ice_err *e) {
  attn_layout at = {0};
  l->n_parts = llama_parts(l->m, NULL);
  l->part = attn_alloc((size_t)l->n_parts * sizeof *l->part);
  l->layer = attn_calloc((size_t)l->m->cfg.layers * sizeof *l->layer);
  if (!l->part || !l->layer) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)llama_parts(l->m, l->part);
  bind(l, NULL);
  place(l, &at);
  l->weights = attn_alloc((size_t)l->count * sizeof *l->weights);
  l->memory = attn_alloc(at.used);
  if (!l->weights || !l->memory) return ice_fail(e, ICE_INTERNAL, "out of memory: %zu bytes of activations", at.used);
  at = (attn_layout){.p = (char *)l->memory};
  place(l, &at);
  bind(l, l->weights);
  return ICE_OK;
}

int llama_learner_create(llama_learner **out, const llama_config *cfg, const attn_method *method, const void *params, int batch, int64_t n,
                         int threads, ice_err *e) {
  *out = NULL;
  ICE_TRY(llama_check_config(cfg, "model", ICE_USAGE, e));
  if (batch < 1 || batch > 4096 || n < 1 || n > cfg->context || threads < 1 || threads > 4096)
    return ice_fail(e, ICE_USAGE, "batches of %d sequences of %lld tokens on %d threads; allowed 1..4096, 1..%lld, 1..4096", batch, (long long)n,
                    threads, (long long)cfg->context);
  llama_learner *l = attn_calloc(sizeof *l);
  if (!l) return ice_fail(e, ICE_INTERNAL, "out of memory");
  l->method = method;
  l->params = params;
  l->batch = batch;
  l->n = n;
  l->rows = batch * n;
  l->threads = threads;
  int rc = llama_create(&l->m, cfg, e);
  if (rc == ICE_OK) rc = attention_needs(l, e);
  if (rc == ICE_OK) rc = allocate(l, e);
  if (rc != ICE_OK) {
    llama_learner_destroy(l);
    return rc;
  }
  const int64_t half = cfg->head_dim / 2;
  for (int64_t pos = 0; pos < cfg->context; pos++)
    for (int64_t i = 0; i < half; i++) {
      const double angle = (double)pos / (double)cfg->rope_scale * pow((double)cfg->rope_base, -2.0 * (double)i / (double)cfg->head_dim);
      l->cosine[pos * half + i] = (float)cos(angle);
      l->sine[pos * half + i] = (float)sin(angle);
    }
  *out = l;
  return ICE_OK;
}

void llama_learner_destroy(llama_learner *l) {
  if (!l) return;
  llama_close(l->m);
  attn_free(l->part);
  attn_free(l->layer);
  attn_free(l->weights);
  attn_free(l->memory);
  attn_free(l);
}

int64_t llama_learner_count(const llama_learner *l) { return l->count; }
float *llama_learner_weights(llama_learner *l) { return l->weights; }
llama *llama_learner_model(llama_learner *l) { return l->m; }

void llama_learner_init(llama_learner *l, uint64_t seed) {
  float *at = l->weights;
  const llama_config *c = &l->m->cfg;
  for (int i = 0; i < l->n_parts; i++) {
    const llama_part *p = l->part + i;
    int into_residual = 0;
    for (int64_t k = 0; k < c->layers; k++) into_residual |= p->at == &l->m->layer[k].o || p->at == &l->m->layer[k].down;
    const double sd = (into_residual ? 0.5 / sqrt((double)c->width) : 1.0) / sqrt((double)p->cols);
    attn_rng r;
    attn_rng_seed(&r, seed, (uint64_t)i);
    for (int64_t k = 0; k < p->rows * p->cols; k++) *at++ = p->rank == 1 ? 1.0f : (float)(attn_rng_normal(&r) * sd);
  }
}

int llama_learner_take(llama_learner *l, const llama *from, ice_err *e) {
  llama copy = *from; /* llama_parts points into what it is given */
  const int n = llama_parts(&copy, NULL);
  llama_part *p = attn_alloc((size_t)n * sizeof *p);
  if (!p) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)llama_parts(&copy, p);
  int rc = n == l->n_parts ? ICE_OK : ice_fail(e, ICE_USAGE, "the models have %d and %d tensors", n, l->n_parts);
  for (int i = 0; rc == ICE_OK && i < n; i++)
    if (p[i].rows != l->part[i].rows || p[i].cols != l->part[i].cols) rc = ice_fail(e, ICE_USAGE, "%s differs in size", p[i].hf);
  float *at = l->weights;
  const int64_t d = l->m->cfg.head_dim;
  const int to_gguf = l->m->cfg.rope_adjacent && !from->cfg.rope_adjacent, to_hf = !l->m->cfg.rope_adjacent && from->cfg.rope_adjacent;
  for (int i = 0; rc == ICE_OK && i < n; at += p[i].rows * p[i].cols, i++)
    for (int64_t r = 0; r < p[i].rows; r++) { /* rows of q and k may change places */
      const int64_t other = p[i].rope_heads && (to_gguf || to_hf) ? llama_gguf_row(r, d) : r;
      matrix_expand(p[i].at, to_hf ? other : r, 1, at + (to_gguf ? other : r) * p[i].cols);
    }
  attn_free(p);
  return rc;
}

/* --- pieces ------------------------------------------------------------------------------------------------------- */

/* The gradient of a weight, in the vector g. */
static float *grad_of(const llama_learner *l, const matrix *w, float *g) { return g + ((const float *)(const void *)w->data - l->weights); }
static const float *weight_of(const matrix *w) { return (const float *)(const void *)w->data; }

static void multiply(const llama_learner *l, const matrix *w, const float *x, float *y, int add) {
  matrix_multiply(w, l->rows, x, w->cols, y, w->rows, add, l->threads, l->product);
}

/* dx [rows, in] (+)= dy [rows, out] W. */
static void back_through(const llama_learner *l, const matrix *w, int64_t rows, const float *dy, float *dx, int add) {
#pragma omp parallel for num_threads(l->threads) schedule(dynamic)
  for (int64_t i = 0; i < rows; i += BLOCK_X) {
    const int64_t m = rows - i < BLOCK_X ? rows - i : BLOCK_X;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)w->cols, (int)w->rows, 1.0f, dy + i * w->rows, (int)w->rows, weight_of(w),
                (int)w->cols, add ? 1.0f : 0.0f, dx + i * w->cols, (int)w->cols);
  }
}

/* dW += dy' x. */
static void into_weight(const llama_learner *l, const matrix *w, int64_t rows, const float *dy, const float *x, float *g) {
  float *dw = grad_of(l, w, g);
#pragma omp parallel for num_threads(l->threads) schedule(dynamic)
  for (int64_t i = 0; i < w->rows; i += BLOCK_W) {
    const int64_t m = w->rows - i < BLOCK_W ? w->rows - i : BLOCK_W;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)w->cols, (int)rows, 1.0f, dy + i, (int)w->rows, x, (int)w->cols, 1.0f,
                dw + i * w->cols, (int)w->cols);
  }
}

static void normalise(const llama_learner *l, const float *x, const matrix *gain, float *r, float *y) {
  const attn_micro *mk = attn_micro_get();
  const int64_t w = l->m->cfg.width;
  const float *g = weight_of(gain);
#pragma omp parallel for num_threads(l->threads) schedule(static)
  for (int64_t i = 0; i < l->rows; i++) {
    const float *from = x + i * w;
    r[i] = 1.0f / sqrtf(mk->dot(w, from, from) / (float)w + l->m->cfg.norm_eps);
    for (int64_t t = 0; t < w; t++) y[i * w + t] = from[t] * r[i] * g[t];
  }
}

/* dx += gradient of a normalisation; dg += sums over rows. dy is used up. */
static void back_through_norm(const llama_learner *l, const float *x, const matrix *gain, const float *r, float *dy, float *dx, float *g) {
  const attn_micro *mk = attn_micro_get();
  const int64_t w = l->m->cfg.width, rows = l->rows;
  const float *gn = weight_of(gain);
  float *dg = grad_of(l, gain, g);
#pragma omp parallel for num_threads(l->threads) schedule(static)
  for (int64_t t0 = 0; t0 < w; t0 += 64)
    for (int64_t i = 0; i < rows; i++)
      for (int64_t t = t0; t < w && t < t0 + 64; t++) dg[t] += dy[i * w + t] * x[i * w + t] * r[i];
#pragma omp parallel for num_threads(l->threads) schedule(static)
  for (int64_t i = 0; i < rows; i++) {
    float *d = dy + i * w;
    for (int64_t t = 0; t < w; t++) d[t] *= gn[t];
    const float sum = mk->dot(w, d, x + i * w) * r[i] * r[i] * r[i] / (float)w;
    for (int64_t t = 0; t < w; t++) dx[i * w + t] += r[i] * d[t] - sum * x[i * w + t];
  }
}

/* Turns the pairs of all heads by their positions' angles; backwards when `back`. */
static void turn(const llama_learner *l, int64_t heads, float *x, int back) {
  const int64_t d = l->m->cfg.head_dim, half = d / 2;
  const int adjacent = l->m->cfg.rope_adjacent;
#pragma omp parallel for num_threads(l->threads) schedule(static)
  for (int64_t i = 0; i < l->rows; i++) {
    const float *co = l->cosine + l->position[i] * half, *si = l->sine + l->position[i] * half;
    for (int64_t h = 0; h < heads; h++) {
      float *p = x + (i * heads + h) * d;
      for (int64_t t = 0; t < half; t++) {
        float *a = p + (adjacent ? 2 * t : t), *b = p + (adjacent ? 2 * t + 1 : t + half);
        const float u = *a, v = *b, s = back ? -si[t] : si[t];
        *a = u * co[t] - v * s;
        *b = v * co[t] + u * s;
      }
    }
  }
}

static void activate(const llama_learner *l, const layer_saved *s) {
  const int64_t mlp = l->m->cfg.mlp;
#pragma omp parallel for num_threads(l->threads) schedule(static)
  for (int64_t i = 0; i < l->rows; i++)
    for (int64_t t = i * mlp; t < (i + 1) * mlp; t++) l->act[t] = s->gate[t] / (1.0f + expf(-s->gate[t])) * s->up[t];
}

/* dact becomes dgate, act becomes dup. */
static void back_through_gate(const llama_learner *l, const layer_saved *s) {
  const int64_t mlp = l->m->cfg.mlp;
#pragma omp parallel for num_threads(l->threads) schedule(static)
  for (int64_t i = 0; i < l->rows; i++)
    for (int64_t t = i * mlp; t < (i + 1) * mlp; t++) {
      const float g = s->gate[t], sigma = 1.0f / (1.0f + expf(-g)), d = l->dact[t];
      l->dact[t] = d * s->up[t] * sigma * (1.0f + g * (1.0f - sigma));
      l->act[t] = d * g * sigma;
    }
}

/* --- forward and back --------------------------------------------------------------------------------------------- */

static attn_view view_of(const llama_learner *l, const float *p, int64_t heads) {
  const ptrdiff_t d = l->m->cfg.head_dim;
  return (attn_view){p, l->n * heads * d, d, heads * d};
}
static attn_viewm target(const llama_learner *l, float *p, int64_t heads) {
  const attn_view v = view_of(l, p, heads);
  return (attn_viewm){p, v.sb, v.sh, v.sn};
}

static int forward_layer(llama_learner *l, int layer, float *next, ice_err *e) {
  const llama_config *c = &l->m->cfg;
  const llama_layer *w = l->m->layer + layer;
  layer_saved *s = l->layer + layer;
  const attn_problem pb = problem_of(l);
  normalise(l, s->x, &w->attn_norm, s->r1, l->a);
  multiply(l, &w->q, l->a, s->q, 0);
  multiply(l, &w->k, l->a, s->k, 0);
  multiply(l, &w->v, l->a, s->v, 0);
  turn(l, c->heads, s->q, 0);
  turn(l, c->kv_heads, s->k, 0);
  const attn_status st = l->method->training->forward(&pb, l->params, view_of(l, s->q, c->heads), view_of(l, s->k, c->kv_heads), view_of(l, s->v, c->kv_heads),
                                                      NULL, 0.0f, 0, target(l, s->o, c->heads), s->attention, l->scratch);
  if (st != ATTN_OK) return ice_fail(e, ICE_INTERNAL, "%s: %s (%s)", l->method->name, attn_last_error(), attn_status_text(st));
  memcpy(s->h, s->x, (size_t)(l->rows * c->width) * sizeof *s->h);
  multiply(l, &w->o, s->o, s->h, 1);
  normalise(l, s->h, &w->mlp_norm, s->r2, l->a);
  multiply(l, &w->gate, l->a, s->gate, 0);
  multiply(l, &w->up, l->a, s->up, 0);
  activate(l, s);
  memcpy(next, s->h, (size_t)(l->rows * c->width) * sizeof *next);
  multiply(l, &w->down, l->act, next, 1);
  return ICE_OK;
}

static int backward_layer(llama_learner *l, int layer, float *g, ice_err *e) {
  const llama_config *c = &l->m->cfg;
  const llama_layer *w = l->m->layer + layer;
  layer_saved *s = l->layer + layer;
  const attn_problem pb = problem_of(l);
  activate(l, s);
  into_weight(l, &w->down, l->rows, l->dx, l->act, g);
  back_through(l, &w->down, l->rows, l->dx, l->dact, 0);
  back_through_gate(l, s);
  normalise(l, s->h, &w->mlp_norm, s->r2, l->a);
  into_weight(l, &w->gate, l->rows, l->dact, l->a, g);
  into_weight(l, &w->up, l->rows, l->act, l->a, g);
  back_through(l, &w->gate, l->rows, l->dact, l->da, 0);
  back_through(l, &w->up, l->rows, l->act, l->da, 1);
  back_through_norm(l, s->h, &w->mlp_norm, s->r2, l->da, l->dx, g);
  into_weight(l, &w->o, l->rows, l->dx, s->o, g);
  back_through(l, &w->o, l->rows, l->dx, l->d_o, 0);
  const attn_status st = l->method->training->backward(
      &pb, l->params, view_of(l, s->q, c->heads), view_of(l, s->k, c->kv_heads), view_of(l, s->v, c->kv_heads), NULL, 0.0f, 0, view_of(l, s->o, c->heads),
      view_of(l, l->d_o, c->heads), target(l, l->dq, c->heads), target(l, l->dk, c->kv_heads), target(l, l->dv, c->kv_heads), NULL, s->attention, l->scratch);
  if (st != ATTN_OK) return ice_fail(e, ICE_INTERNAL, "%s: %s (%s)", l->method->name, attn_last_error(), attn_status_text(st));
  turn(l, c->heads, l->dq, 1);
  turn(l, c->kv_heads, l->dk, 1);
  normalise(l, s->x, &w->attn_norm, s->r1, l->a);
  into_weight(l, &w->q, l->rows, l->dq, l->a, g);
  into_weight(l, &w->k, l->rows, l->dk, l->a, g);
  into_weight(l, &w->v, l->rows, l->dv, l->a, g);
  back_through(l, &w->q, l->rows, l->dq, l->da, 0);
  back_through(l, &w->k, l->rows, l->dk, l->da, 1);
  back_through(l, &w->v, l->rows, l->dv, l->da, 1);
  back_through_norm(l, s->x, &w->attn_norm, s->r1, l->da, l->dx, g);
  return ICE_OK;
}

/* Logits of one row become their gradient, times `weight`; returns the cross entropy. */
static double cross_entropy(int64_t vocab, float *z, int32_t target_id, float weight) {
  float most = z[0];
  double sum = 0.0;
  for (int64_t t = 1; t < vocab; t++) most = z[t] > most ? z[t] : most;
  const double right = (double)z[target_id] - (double)most;
  for (int64_t t = 0; t < vocab; t++) {
    z[t] = expf(z[t] - most);
    sum += (double)z[t];
  }
  const float unit = (float)((double)weight / sum);
  for (int64_t t = 0; t < vocab; t++) z[t] *= unit;
  z[target_id] -= weight;
  return log(sum) - right;
}

/* The next rows from *at on whose predictions count, at most HEAD_ROWS of them. */
static int64_t counted_rows(const llama_learner *l, const float *weight, int64_t *at, int64_t *row) {
  int64_t m = 0;
  for (; *at < l->rows && m < HEAD_ROWS; (*at)++)
    if (!weight || weight[*at] > 0.0f) row[m++] = *at;
  return m;
}

/* Loss from the normalised rows l->a that count, in chunks; with g also the gradients of the head and, into l->da, of the rows. */
static double head(llama_learner *l, const int32_t *ids, const float *weight, double total, float *g) {
  const llama_config *c = &l->m->cfg;
  const size_t bytes = (size_t)c->width * sizeof(float);
  int64_t row[HEAD_ROWS], m;
  double loss = 0.0;
  if (g) memset(l->da, 0, (size_t)l->rows * bytes);
  for (int64_t at = 0; (m = counted_rows(l, weight, &at, row)) > 0;) {
    for (int64_t i = 0; i < m; i++) memcpy(l->head_in + i * c->width, l->a + row[i] * c->width, bytes);
    matrix_multiply(&l->m->head, m, l->head_in, c->width, l->logits, c->vocab, 0, l->threads, l->product);
#pragma omp parallel for num_threads(l->threads) schedule(static)
    for (int64_t i = 0; i < m; i++) {
      const int32_t next = ids[row[i] / l->n * (l->n + 1) + row[i] % l->n + 1];
      const double share = (weight ? (double)weight[row[i]] : 1.0) / total;
      l->row_loss[i] = share * cross_entropy(c->vocab, l->logits + i * c->vocab, next, (float)share);
    }
    for (int64_t i = 0; i < m; i++) loss += l->row_loss[i];
    if (!g) continue;
    into_weight(l, &l->m->head, m, l->logits, l->head_in, g);
    back_through(l, &l->m->head, m, l->logits, l->head_in, 0);
    for (int64_t i = 0; i < m; i++) memcpy(l->da + row[i] * c->width, l->head_in + i * c->width, bytes);
  }
  return loss;
}

static int take_positions(llama_learner *l, const int32_t *position, ice_err *e) {
  for (int64_t i = 0; i < l->rows; i++) {
    l->position[i] = position ? position[i] : (int32_t)(i % l->n);
    if (l->position[i] < 0 || l->position[i] >= l->m->cfg.context)
      return ice_fail(e, ICE_DATA, "token %lld of the batch has position %d, allowed 0..%lld", (long long)i, l->position[i],
                      (long long)l->m->cfg.context - 1);
  }
  return ICE_OK;
}

static int check_batch(const llama_learner *l, const int32_t *ids, const float *weight, double *total, ice_err *e) {
  for (int64_t i = 0; i < l->batch * (l->n + 1); i++)
    if (ids[i] < 0 || ids[i] >= l->m->cfg.vocab)
      return ice_fail(e, ICE_DATA, "token %lld of the batch has id %d, allowed 0..%lld", (long long)i, ids[i], (long long)l->m->cfg.vocab - 1);
  *total = weight ? 0.0 : (double)l->rows;
  for (int64_t i = 0; weight && i < l->rows; i++) {
    if (!(weight[i] >= 0.0f && weight[i] < INFINITY)) return ice_fail(e, ICE_DATA, "weight %lld of the batch is %g, allowed from 0 on", (long long)i, (double)weight[i]);
    *total += (double)weight[i];
  }
  return *total > 0.0 ? ICE_OK : ice_fail(e, ICE_DATA, "all predictions of the batch have weight 0");
}

int llama_gradient(llama_learner *l, const int32_t *ids, const int32_t *position, const float *weight, float *g, double *loss, ice_err *e) {
  const llama_config *c = &l->m->cfg;
  const int64_t w = c->width;
  double total = 0.0;
  ICE_TRY(check_batch(l, ids, weight, &total, e));
  ICE_TRY(take_positions(l, position, e));
  attn_blas_serial();
  for (int64_t i = 0; i < l->rows; i++)
    memcpy(l->layer[0].x + i * w, weight_of(&l->m->embed) + ids[i / l->n * (l->n + 1) + i % l->n] * w, (size_t)w * sizeof(float));
  for (int k = 0; k < (int)c->layers; k++) ICE_TRY(forward_layer(l, k, k + 1 < (int)c->layers ? l->layer[k + 1].x : l->last, e));
  normalise(l, l->last, &l->m->norm, l->r, l->a);
  if (g) memset(g, 0, (size_t)l->count * sizeof *g);
  *loss = head(l, ids, weight, total, g);
  if (!isfinite(*loss)) return ice_fail(e, ICE_INTERNAL, "the loss is not a finite number");
  if (!g) return ICE_OK;
  memset(l->dx, 0, (size_t)(l->rows * w) * sizeof *l->dx);
  back_through_norm(l, l->last, &l->m->norm, l->r, l->da, l->dx, g);
  for (int k = (int)c->layers - 1; k >= 0; k--) ICE_TRY(backward_layer(l, k, g, e));
  float *table = grad_of(l, &l->m->embed, g);
  for (int64_t i = 0; i < l->rows; i++) {
    float *row = table + ids[i / l->n * (l->n + 1) + i % l->n] * w;
    for (int64_t t = 0; t < w; t++) row[t] += l->dx[i * w + t];
  }
  return ICE_OK;
}
