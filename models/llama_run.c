/* llama_run.c - see llama.h. Rows of a prompt go through a layer in chunks of LLAMA_ROWS: memory of the wide MLP does not
 * grow with the prompt, and each chunk is long enough to pay for expanding the weights. */
#include "models/llama_run.h"

#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/clock.h"
#include "kernels/core/finite.h"
#include "kernels/methods/dense.h"
#include "kernels/micro/micro.h"

/* --- memory ------------------------------------------------------------------------------------------------------- */

int llama_grow(llama_block *b, size_t bytes, ice_err *e) {
  if (bytes <= b->bytes) return ICE_OK;
  attn_free(b->p);
  b->bytes = 0;
  b->p = attn_alloc(bytes);
  if (!b->p) return ice_fail(e, ICE_INTERNAL, "out of memory: %zu bytes are needed", bytes);
  b->bytes = bytes;
  return ICE_OK;
}

static int64_t widest(const llama_config *c) {
  const int64_t keys = c->heads * c->head_dim, wide = keys > c->width ? keys : c->width;
  return wide > c->mlp ? wide : c->mlp;
}

/* Working memory for prompts of n tokens. */
static int make_room(llama_run *r, int64_t n, ice_err *e) {
  const llama_config *c = &r->m->cfg;
  const int64_t keys = c->heads * c->head_dim, chunk = n < LLAMA_ROWS ? n : LLAMA_ROWS;
  for (int pass = 0; pass < 2; pass++) { /* sizes, then places */
    attn_layout rows = {.p = pass ? r->rows.p : NULL}, work = {.p = pass ? r->work.p : NULL};
    r->x = attn_place_floats(&rows, n, c->width);
    r->q = attn_place_floats(&rows, n, keys);
    r->o = attn_place_floats(&rows, n, keys);
    r->a = attn_place_floats(&work, chunk, c->width);
    r->key = attn_place_floats(&work, chunk, c->kv_heads * c->head_dim);
    r->gate = attn_place_floats(&work, chunk, c->mlp);
    r->up = attn_place_floats(&work, chunk, c->mlp);
    r->product = attn_place_floats(&work, 1, matrix_scratch_floats(widest(c), r->slot.attention.threads));
    if (pass) break;
    ICE_TRY(llama_grow(&r->rows, rows.used, e));
    ICE_TRY(llama_grow(&r->work, work.used, e));
  }
  return ICE_OK;
}

static void fill_rope(llama_run *r) {
  const llama_config *c = &r->m->cfg;
  const int64_t half = c->head_dim / 2;
#pragma omp parallel for num_threads(r->slot.attention.threads)
  for (int64_t pos = 0; pos < r->capacity; pos++)
    for (int64_t i = 0; i < half; i++) {
      const double angle = (double)pos / (double)c->rope_scale * pow((double)c->rope_base, -2.0 * (double)i / (double)c->head_dim);
      r->cosine[pos * half + i] = (float)cos(angle);
      r->sine[pos * half + i] = (float)sin(angle);
    }
}

static int allocate(llama_run *r, ice_err *e) {
  const llama_config *c = &r->m->cfg;
  const size_t f = sizeof(float), table = attn_mul((size_t)r->capacity * f, (size_t)c->head_dim / 2);
  const size_t cache = attn_mul(attn_mul((size_t)(c->layers * c->kv_heads), (size_t)r->capacity), (size_t)c->head_dim * f);
  r->k = attn_alloc(cache);
  r->v = attn_alloc(cache);
  r->cosine = attn_alloc(table);
  r->sine = attn_alloc(table);
  r->logits = attn_alloc((size_t)c->vocab * f);
  r->score = attn_alloc(attn_mul((size_t)c->heads * f, (size_t)r->capacity));
  r->index = attn_calloc((size_t)c->layers * sizeof *r->index);
  r->mask = attn_alloc((size_t)r->capacity);
  if (r->k && r->v && r->cosine && r->sine && r->logits && r->score && r->index && r->mask) return ICE_OK;
  return ice_fail(e, ICE_INTERNAL, "out of memory: the cache of %lld tokens needs %zu bytes", (long long)r->capacity, attn_mul(2, cache));
}

int llama_run_create(llama_run **out, const llama *m, const llama_slot *slot, int64_t capacity, ice_err *e) {
  *out = NULL;
  if (slot->attention.threads < 1 || slot->attention.threads > 4096)
    return ice_fail(e, ICE_USAGE, "threads = %d, allowed 1..4096", slot->attention.threads);
  if (capacity < 1 || capacity > m->cfg.context)
    return ice_fail(e, ICE_USAGE, "prompt and answer of %lld tokens; the context of the model allows 1..%lld", (long long)capacity, (long long)m->cfg.context);
  llama_run *r = attn_calloc(sizeof *r);
  if (!r) return ice_fail(e, ICE_INTERNAL, "out of memory");
  r->m = m;
  r->slot = *slot;
  r->capacity = capacity;
  int rc = slot->dense_below > capacity ? ICE_OK : llama_check_slot(r, e);
  if (rc == ICE_OK) rc = allocate(r, e);
  if (rc != ICE_OK) {
    llama_run_destroy(r);
    return rc;
  }
  fill_rope(r);
  *out = r;
  return ICE_OK;
}

void llama_run_destroy(llama_run *r) {
  if (!r) return;
  llama_drop_index(r);
  void *const all[] = {r->k, r->v, r->cosine, r->sine, r->logits, r->score, r->index, r->mask,
                       r->rows.p, r->work.p, r->plan.p, r->scratch.p, r->index_scratch.p, r};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) attn_free(all[i]);
}

void llama_run_reset(llama_run *r) {
  llama_drop_index(r);
  r->n = 0;
}

uint64_t llama_run_bytes(const llama_run *r) {
  const llama_config *c = &r->m->cfg;
  const uint64_t cap = (uint64_t)r->capacity, d = (uint64_t)c->head_dim;
  return 4 * (2 * (uint64_t)(c->layers * c->kv_heads) * cap * d + cap * d + (uint64_t)c->heads * cap + (uint64_t)c->vocab) + cap +
         r->rows.bytes + r->work.bytes + r->plan.bytes + r->scratch.bytes + r->index_scratch.bytes + r->index_bytes;
}

/* --- rows --------------------------------------------------------------------------------------------------------- */

/* Threads for n rows: few rows are done before threads have met. */
static int team(const llama_run *r, int64_t n) { return n < 8 ? 1 : r->slot.attention.threads; }

static void normalise_rows(const llama_run *r, int64_t n, const float *x, const matrix *weight, float *y) {
  const attn_micro *mk = attn_micro_get();
  const int64_t width = r->m->cfg.width;
#pragma omp parallel for num_threads(team(r, n)) schedule(static)
  for (int64_t i = 0; i < n; i++) {
    const float *from = x + i * width, unit = 1.0f / sqrtf(mk->dot(width, from, from) / (float)width + r->m->cfg.norm_eps);
    float *to = y + i * width, g[256];
    for (int64_t t0 = 0; t0 < width; t0 += 256) { /* the vector may be in a 16-bit type */
      const int64_t part = width - t0 < 256 ? width - t0 : 256;
      size_t at = 0;
      (void)matrix_row_bytes(weight->type, t0, &at);
      const matrix piece = {weight->type, 1, part, weight->data + at};
      matrix_expand(&piece, 0, 1, g);
      for (int64_t t = 0; t < part; t++) to[t0 + t] = from[t0 + t] * unit * g[t];
    }
  }
}

/* Turns a head's pairs by the angles of position pos. */
static void turn(const llama_run *r, int64_t pos, float *x) {
  const int64_t half = r->m->cfg.head_dim / 2;
  const int adjacent = r->m->cfg.rope_adjacent;
  const float *co = r->cosine + pos * half, *si = r->sine + pos * half;
  for (int64_t i = 0; i < half; i++) {
    float *a = x + (adjacent ? 2 * i : i), *b = x + (adjacent ? 2 * i + 1 : i + half);
    const float u = *a, w = *b;
    *a = u * co[i] - w * si[i];
    *b = w * co[i] + u * si[i];
  }
}

/* Rows [n, kv_heads * head_dim] into a layer's cache from position pos on, turned when they are keys. */
static void store(const llama_run *r, int layer, int64_t pos, int64_t n, const float *rows, float *cache, int keys) {
  const llama_config *c = &r->m->cfg;
  const int64_t d = c->head_dim;
#pragma omp parallel for num_threads(team(r, n)) schedule(static)
  for (int64_t i = 0; i < n; i++)
    for (int64_t h = 0; h < c->kv_heads; h++) {
      float *to = cache + ((layer * c->kv_heads + h) * r->capacity + pos + i) * d;
      memcpy(to, rows + (i * c->kv_heads + h) * d, (size_t)d * sizeof *to);
      if (keys) turn(r, pos + i, to);
    }
}

static void multiply(const llama_run *r, const matrix *w, int64_t n, const float *x, float *y, int add) {
  matrix_multiply(w, n, x, w->cols, y, w->rows, add, r->slot.attention.threads, r->product);
}

/* x -> queries, and keys and values into the cache, for rows [i0, i0 + n) of the prompt. */
static void before_attention(llama_run *r, int layer, int64_t i0, int64_t n) {
  const llama_config *c = &r->m->cfg;
  const llama_layer *y = r->m->layer + layer;
  float *q = r->q + i0 * c->heads * c->head_dim;
  normalise_rows(r, n, r->x + i0 * c->width, &y->attn_norm, r->a);
  multiply(r, &y->q, n, r->a, q, 0);
#pragma omp parallel for num_threads(team(r, n)) schedule(static)
  for (int64_t i = 0; i < n; i++)
    for (int64_t h = 0; h < c->heads; h++) turn(r, r->n + i0 + i, q + (i * c->heads + h) * c->head_dim);
  multiply(r, &y->k, n, r->a, r->key, 0);
  store(r, layer, r->n + i0, n, r->key, r->k, 1);
  multiply(r, &y->v, n, r->a, r->key, 0);
  store(r, layer, r->n + i0, n, r->key, r->v, 0);
}

static void after_attention(llama_run *r, int layer, int64_t i0, int64_t n) {
  const llama_config *c = &r->m->cfg;
  const llama_layer *y = r->m->layer + layer;
  float *x = r->x + i0 * c->width, *gate = r->gate, *up = r->up;
  multiply(r, &y->o, n, r->o + i0 * c->heads * c->head_dim, x, 1);
  normalise_rows(r, n, x, &y->mlp_norm, r->a);
  multiply(r, &y->gate, n, r->a, gate, 0);
  multiply(r, &y->up, n, r->a, up, 0);
#pragma omp parallel for num_threads(team(r, n)) schedule(static)
  for (int64_t i = 0; i < n; i++)
    for (int64_t t = i * c->mlp; t < (i + 1) * c->mlp; t++) gate[t] = gate[t] / (1.0f + expf(-gate[t])) * up[t];
  multiply(r, &y->down, n, gate, x, 1);
}

/* Logits of one row of x. */
static int read_out(llama_run *r, const float *x, float *logits, ice_err *e) {
  normalise_rows(r, 1, x, &r->m->norm, r->a);
  multiply(r, &r->m->head, 1, r->a, r->logits, 0);
  if (!attn_all_finite(r->m->cfg.vocab, r->logits))
    return r->exact || r->slot.attention.method == &attn_method_dense
               ? ice_fail(e, ICE_DATA, "with exact attention a logit is not a finite number: the weights are damaged, or of another type than the file says")
               : ice_fail(e, ICE_INTERNAL, "%s: a logit is not a finite number", r->slot.attention.method->name);
  if (logits) memcpy(logits, r->logits, (size_t)r->m->cfg.vocab * sizeof *logits);
  return ICE_OK;
}

static int check_ids(const llama_run *r, const int32_t *ids, int64_t n, ice_err *e) {
  if (n < 1 || n > r->capacity - r->n)
    return ice_fail(e, ICE_DATA, "%lld tokens behind %lld; there is room for %lld", (long long)n, (long long)r->n, (long long)r->capacity);
  for (int64_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= r->m->cfg.vocab)
      return ice_fail(e, ICE_DATA, "token %lld has id %d, allowed 0..%lld", (long long)i, ids[i], (long long)r->m->cfg.vocab - 1);
  return ICE_OK;
}

static void embed(llama_run *r, const int32_t *ids, int64_t n) {
#pragma omp parallel for num_threads(team(r, n)) schedule(static)
  for (int64_t i = 0; i < n; i++) matrix_expand(&r->m->embed, ids[i], 1, r->x + i * r->m->cfg.width);
}

/* --- passes ------------------------------------------------------------------------------------------------------- */

int llama_prefill(llama_run *r, const int32_t *ids, int64_t n, float *logits, llama_cost *cost,
                  void (*observer)(void *ctx, const encoder_call *call), void *ctx, ice_err *e) {
  llama_cost unread = {0};
  llama_seen seen = {.observer = observer, .ctx = ctx};
  if (!cost) cost = &unread;
  ICE_TRY(check_ids(r, ids, n, e));
  ICE_TRY(make_room(r, n, e));
  llama_drop_index(r);
  r->exact = r->n + n < r->slot.dense_below;
  const int64_t start = attn_now_ns();
  embed(r, ids, n);
  for (int l = 0; l < (int)r->m->cfg.layers; l++) {
    for (int64_t i = 0; i < n; i += LLAMA_ROWS) before_attention(r, l, i, n - i < LLAMA_ROWS ? n - i : LLAMA_ROWS);
    ICE_TRY(llama_attend(r, l, n, cost, &seen, e));
    for (int64_t i = 0; i < n; i += LLAMA_ROWS) after_attention(r, l, i, n - i < LLAMA_ROWS ? n - i : LLAMA_ROWS);
  }
  ICE_TRY(read_out(r, r->x + (n - 1) * r->m->cfg.width, logits, e));
  cost->model_ns += (uint64_t)(attn_now_ns() - start) - seen.outside_ns;
  cost->prompt_tokens += (uint64_t)n;
  r->n += n;
  return ICE_OK;
}

int llama_step(llama_run *r, int32_t id, float *logits, llama_cost *cost, ice_err *e) {
  ICE_TRY(check_ids(r, &id, 1, e));
  ICE_TRY(make_room(r, 1, e));
  const int64_t start = attn_now_ns();
  int64_t attention = 0;
  embed(r, &id, 1);
  for (int l = 0; l < (int)r->m->cfg.layers; l++) {
    before_attention(r, l, 0, 1);
    const int64_t t0 = attn_now_ns();
    ICE_TRY(llama_attend_one(r, l, e));
    attention += attn_now_ns() - t0;
    after_attention(r, l, 0, 1);
  }
  ICE_TRY(read_out(r, r->x, logits, e));
  r->n++;
  if (!cost) return ICE_OK;
  cost->decode_ns += (uint64_t)(attn_now_ns() - start);
  cost->decode_attention_ns += (uint64_t)attention;
  cost->decode_tokens++;
  return ICE_OK;
}

int llama_generate(llama_run *r, const int32_t *prompt, int64_t n, int64_t max_new, int32_t stop, int32_t *out,
                   int64_t *n_out, llama_cost *cost, ice_err *e) {
  const attn_micro *mk = attn_micro_get();
  float best;
  *n_out = 0;
  llama_run_reset(r);
  if (max_new < 1 || n < 1 || n > r->capacity || max_new - 1 > r->capacity - n)
    return ice_fail(e, ICE_DATA, "a prompt of %lld tokens and %lld more; there is room for %lld", (long long)n, (long long)max_new,
                    (long long)r->capacity);
  ICE_TRY(llama_prefill(r, prompt, n, NULL, cost, NULL, NULL, e));
  for (;;) {
    const int32_t id = (int32_t)mk->argmax(r->m->cfg.vocab, r->logits, NULL, &best);
    out[(*n_out)++] = id;
    if (id == stop || *n_out == max_new) return ICE_OK;
    ICE_TRY(llama_step(r, id, NULL, cost, e));
  }
}
