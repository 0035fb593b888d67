/* layer.c - see layer.h */
#include "models/layer.h"

#include <string.h>

#include "kernels/core/rng.h"

enum { DROP_ATTENTION = 1, DROP_HIDDEN, DROP_MLP }; /* places of a layer that drop */
static const float NORM_EPS = 1e-5f;

void linear_forward(const attn_micro *mk, const linear *l, int64_t rows, const float *x, float *y) {
  for (int64_t i = 0; i < rows; i++) memcpy(y + i * l->out, l->b, (size_t)l->out * sizeof(float));
  mk->gemm(rows, l->out, l->in, x, l->in, 1, l->wt, mk->panel, mk->panel * l->in, y, l->out, 1);
}

void linear_backward(const attn_micro *mk, const linear *l, int64_t rows, const float *x, const float *dy, float *dx,
                     int add_dx, linear_grad grad) {
  if (dx) mk->gemm(rows, l->in, l->out, dy, l->out, 1, l->w, l->in, mk->panel, dx, l->in, add_dx);
  mk->gemm(l->out, l->in, rows, dy, 1, l->out, x, l->in, mk->panel, grad.w, l->in, 1);
  for (int64_t i = 0; i < rows; i++) mk->axpy(l->out, 1.0f, dy + i * l->out, grad.b);
}

int64_t layer_acts_floats(int64_t n, int64_t width, int64_t mlp) { return n * (7 * width + 2 * mlp + 4); }

void layer_acts_carve(layer_acts *s, float *p, int64_t n, int64_t width, int64_t mlp) {
  float **wide[] = {&s->a, &s->q, &s->k, &s->v, &s->o, &s->h, &s->c};
  float **one[] = {&s->mean1, &s->rstd1, &s->mean2, &s->rstd2};
  for (size_t i = 0; i < sizeof wide / sizeof *wide; i++, p += n * width) *wide[i] = p;
  s->u = p, p += n * mlp;
  s->g = p, p += n * mlp;
  for (size_t i = 0; i < sizeof one / sizeof *one; i++, p += n) *one[i] = p;
}

/* x [rows from r0, width] *= dropout mask of one place. */
static void drop_rows(const attn_micro *mk, float *x, int64_t r0, int64_t rows, int64_t width, layer_drop drop,
                      int place) {
  if (drop.p == 0.0f) return;
  attn_drop dr = attn_drop_make(drop.p, attn_hash(drop.key, (uint64_t)place, 0));
  mk->drop_block(rows, width, x, width, &dr, r0, 0);
}

void layer_before_attention(const attn_micro *mk, const layer_weights *w, const layer_acts *s, int64_t r0, int64_t r1) {
  const int64_t d = w->q.in, rows = r1 - r0;
  mk->norm(rows, d, s->x + r0 * d, w->norm1.g, w->norm1.b, NORM_EPS, s->a + r0 * d, s->mean1 + r0, s->rstd1 + r0);
  linear_forward(mk, &w->q, rows, s->a + r0 * d, s->q + r0 * d);
  if (!layer_shared_qk(w)) linear_forward(mk, &w->k, rows, s->a + r0 * d, s->k + r0 * d);
  linear_forward(mk, &w->v, rows, s->a + r0 * d, s->v + r0 * d);
}

void layer_after_attention(const attn_micro *mk, const layer_weights *w, const layer_acts *s, int64_t r0, int64_t r1,
                           layer_drop drop) {
  const int64_t d = w->q.in, f = w->up.out, rows = r1 - r0;
  float *h = s->h + r0 * d, *y = s->y + r0 * d, *g = s->g + r0 * f;
  linear_forward(mk, &w->o, rows, s->o + r0 * d, h);
  drop_rows(mk, h, r0, rows, d, drop, DROP_ATTENTION);
  mk->axpy(rows * d, 1.0f, s->x + r0 * d, h);
  mk->norm(rows, d, h, w->norm2.g, w->norm2.b, NORM_EPS, s->c + r0 * d, s->mean2 + r0, s->rstd2 + r0);
  linear_forward(mk, &w->up, rows, s->c + r0 * d, s->u + r0 * f);
  mk->gelu(rows * f, s->u + r0 * f, g);
  drop_rows(mk, g, r0, rows, f, drop, DROP_HIDDEN);
  linear_forward(mk, &w->down, rows, g, y);
  drop_rows(mk, y, r0, rows, d, drop, DROP_MLP);
  mk->axpy(rows * d, 1.0f, h, y);
}

void layer_after_backward(const attn_micro *mk, const layer_weights *w, const layer_acts *s, int64_t n, layer_drop drop,
                          float *dy, float *d_o, float *t1, float *t2, const layer_grads *grad) {
  const int64_t d = w->q.in, f = w->up.out;
  memcpy(t1, dy, (size_t)(n * d) * sizeof(float)); /* dy itself goes on as the residual part of dh */
  drop_rows(mk, t1, 0, n, d, drop, DROP_MLP);
  linear_backward(mk, &w->down, n, s->g, t1, t2, 0, grad->down);
  drop_rows(mk, t2, 0, n, f, drop, DROP_HIDDEN);
  mk->gelu_grad(n * f, s->u, t2, t2);
  linear_backward(mk, &w->up, n, s->c, t2, t1, 0, grad->up);
  mk->norm_grad(n, d, s->h, w->norm2.g, s->mean2, s->rstd2, t1, dy, grad->norm2.g, grad->norm2.b);
  memcpy(t1, dy, (size_t)(n * d) * sizeof(float));
  drop_rows(mk, t1, 0, n, d, drop, DROP_ATTENTION);
  linear_backward(mk, &w->o, n, s->o, t1, d_o, 0, grad->o);
}

void layer_before_backward(const attn_micro *mk, const layer_weights *w, const layer_acts *s, int64_t n,
                           const float *dq, const float *dk, const float *dv, float *dx, float *t1,
                           const layer_grads *grad) {
  linear_backward(mk, &w->q, n, s->a, dq, t1, 0, grad->q);
  if (!layer_shared_qk(w)) linear_backward(mk, &w->k, n, s->a, dk, t1, 1, grad->k);
  linear_backward(mk, &w->v, n, s->a, dv, t1, 1, grad->v);
  mk->norm_grad(n, w->q.in, s->x, w->norm1.g, s->mean1, s->rstd1, t1, dx, grad->norm1.g, grad->norm1.b);
}
