/* icecells_group.c - one group of queries of icecells: estimate, visit cells, let the rest stand in. See icecells.c. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/softmax2.h"
#include "kernels/methods/icecells.h"

enum {
  GROUP = ICECELLS_GROUP,
  SLAB = 256,     /* keys of a cell scored at once */
  LD = SLAB + 16, /* row stride of their scores */
  ROUND = 4       /* cells visited between two looks at the bound */
};

/* --- memory --------------------------------------------------------------------------------------------------------- */

static size_t lay_out(icecells_work *w, const attn_problem *pb, const attn_micro *mk, int64_t cells, char *p) {
  const int64_t ld = attn_padded(mk, cells);
  attn_layout at = {.p = p};
  w->estimate = attn_place_floats(&at, GROUP, ld);
  w->share = attn_place_floats(&at, GROUP, ld);
  w->bound = attn_place_floats(&at, GROUP, ld);
  w->priority = attn_place_floats(&at, ld, 1);
  w->s = attn_place_floats(&at, GROUP, LD);
  w->o = attn_place_floats(&at, GROUP, attn_padded(mk, pb->dv));
  w->l = attn_place_floats(&at, GROUP, 16);
  w->q = attn_place_floats(&at, GROUP, pb->d);
  w->m = attn_place_floats(&at, GROUP, 1);
  w->a = attn_place(&at, (size_t)(GROUP * attn_width_i8(pb->d)));
  return at.used;
}
size_t icecells_work_bytes(const attn_problem *pb, const attn_micro *mk, int64_t cells) {
  icecells_work w;
  return lay_out(&w, pb, mk, cells, NULL);
}
void icecells_work_carve(icecells_work *w, const attn_problem *pb, const attn_micro *mk, int64_t cells, void *p) {
  (void)lay_out(w, pb, mk, cells, p);
}

/* --- estimates ------------------------------------------------------------------------------------------------------ */

typedef struct group { /* the queries being answered */
  const icecells_call *call;
  const attn_cells *c;
  int64_t rows, ld;
  float length[GROUP]; /* of the scaled queries */
  float as[GROUP];     /* their scales as 8-bit integers */
} group;

/* By the score of the mean, the log of the count, and the spread of the keys (log-normal mean of 2^score), of which the last is never
 * more than the radius allows: q.k <= q.mean + |q| radius. */
void icecells_estimate(const icecells_call *call, const attn_cells *c, int64_t rows, const uint8_t *a, const float *as, const float *length,
                       float *out, int64_t ld) {
  attn_cells_scores(c, call->mk, rows, a, as, c->log2_count, out, ld);
  for (int64_t i = 0; i < rows; i++) {
    const float half = (float)(0.5 * LN2) * length[i] * length[i];
    call->mk->add_least(c->cells, half, c->spread, length[i], c->radius, out + i * ld);
  }
}

/* Scores are off by what rounding and the 8 bits of the query can do. */
icecells_reach icecells_reach_of(const attn_cells *c, float length, float scale) {
  const float ulps = 0x1p-22f * (float)c->d * c->longest, step = 0.51f * sqrtf((float)c->d) * c->longest;
  return (icecells_reach){length, (float)(0.5 * LN2) * length * length, length * ulps + scale * step};
}

static void bound(const group *g, const icecells_work *w) {
  for (int64_t i = 0; i < g->rows; i++) {
    const icecells_reach r = icecells_reach_of(g->c, g->length[i], g->as[i]);
    for (int64_t j = 0; j < g->c->cells; j++) w->bound[i * g->ld + j] = icecells_most(g->c, j, &r, w->estimate[i * g->ld + j]);
  }
}

/* priority = share of every cell in the mass, summed over the rows, by the log2 masses in `mass`; -inf for empty cells.
 * Returns the number of rows that count: NaN or infinity stays in its row. */
static float prioritise(const group *g, const float *mass, const icecells_work *w) {
  const attn_micro *mk = g->call->mk;
  const attn_cells *c = g->c;
  float inverse[GROUP], total = 0.0f;
  memcpy(w->share, mass, (size_t)(g->rows * g->ld) * sizeof(float));
  for (int64_t i = 0; i < g->rows; i++) w->m[i] = -INFINITY;
  memset(w->l, 0, (size_t)g->rows * 16 * sizeof(float));
  mk->softmax_block(g->rows, c->cells, w->share, g->ld, NULL, w->m, w->l, w->o, 0, 0);
  for (int64_t i = 0; i < g->rows; i++) {
    const float sum = attn_lane_sum(w->l + i * 16);
    const int sane = sum > 0.0f && sum < INFINITY;
    if (!sane) memset(w->share + i * g->ld, 0, (size_t)c->cells * sizeof(float));
    inverse[i] = sane ? 1.0f / sum : 0.0f;
    total += sane ? 1.0f : 0.0f;
  }
  mk->gemm(1, c->cells, g->rows, inverse, g->rows, 1, w->share, g->ld, mk->panel, w->priority, g->ld, 0);
  for (int64_t j = 0; j < c->cells; j++)
    if (c->log2_count[j] == -INFINITY) w->priority[j] = -INFINITY;
  return total;
}

/* --- near and far --------------------------------------------------------------------------------------------------- */

void icecells_visit(const icecells_call *call, const attn_cells *c, int64_t rows, int64_t cell, const icecells_work *w) {
  const attn_micro *mk = call->mk;
  const int64_t d = c->d, wo = attn_padded(mk, c->dv), count = c->start[cell + 1] - c->start[cell];
  const float *kt = c->kt + (int64_t)c->panel[cell] * mk->panel * d, *v = c->v + c->start[cell] * wo;
  for (int64_t j0 = 0; j0 < count; j0 += SLAB) {
    const int64_t cols = count - j0 < SLAB ? count - j0 : SLAB;
    mk->gemm(rows, cols, d, w->q, d, 1, kt + j0 * d, mk->panel, mk->panel * d, w->s, LD, 0);
    mk->softmax_block(rows, cols, w->s, LD, NULL, w->m, w->l, w->o, wo, wo);
    mk->gemm(rows, wo, cols, w->s, LD, 1, v + j0 * mk->panel, mk->panel, mk->panel * count, w->o, wo, 1);
  }
}

/* Visits a cell; it takes no further part. */
static void visit(const group *g, int64_t cell, const icecells_work *w) {
  icecells_visit(g->call, g->c, g->rows, cell, w);
  w->priority[cell] = -INFINITY;
  for (int64_t i = 0; i < g->rows; i++) w->estimate[i * g->ld + cell] = w->bound[i * g->ld + cell] = -INFINITY;
}

float icecells_missing(float u, float u_ref, float l, float l_ref) {
  if (u == 0.0f) return 0.0f;
  const double ratio = (double)l / (double)u * exp2((double)l_ref - (double)u_ref);
  return (float)fmin(1.0, 1.0 / (1.0 + ratio) * (1.0 + 1e-5)); /* of sums of floats */
}

/* missing[i] for every row, from bound; returns the largest, NaN left out. */
static float missing_mass(const group *g, const icecells_work *w, float *missing) {
  float m[GROUP], l[GROUP * 16] = {0}, worst = 0.0f;
  memcpy(w->share, w->bound, (size_t)(g->rows * g->ld) * sizeof(float));
  for (int64_t i = 0; i < g->rows; i++) m[i] = -INFINITY;
  g->call->mk->softmax_block(g->rows, g->c->cells, w->share, g->ld, NULL, m, l, w->o, 0, 0);
  for (int64_t i = 0; i < g->rows; i++) {
    missing[i] = icecells_missing(attn_lane_sum(l + i * 16), m[i], attn_lane_sum(w->l + i * 16), w->m[i]);
    if (missing[i] > worst) worst = missing[i];
  }
  return worst;
}

void icecells_far(const icecells_call *call, const attn_cells *c, int64_t rows, float *estimate, int64_t ld, float *m, float *l, float *o) {
  const attn_micro *mk = call->mk;
  const int64_t wo = attn_padded(mk, c->dv);
  mk->softmax_block(rows, c->cells, estimate, ld, NULL, m, l, o, wo, wo);
  mk->gemm(rows, c->dv, c->cells, estimate, ld, 1, c->v_mean, c->dv, mk->panel, o, wo, 1);
}

float icecells_length(const attn_micro *mk, int64_t d, const float *q) {
  return sqrtf(fminf(mk->dot(d, q, q), FLT_MAX)) * (1.0f + 0x1p-20f);
}

/* --- the group ------------------------------------------------------------------------------------------------------ */

static void load(group *g, int64_t ib, int64_t ih, const int32_t *query, const icecells_work *w) {
  const icecells_call *call = g->call;
  const int64_t d = g->c->d;
  const float factor = (float)(call->pb->scale * LOG2E);
  for (int64_t i = 0; i < g->rows; i++) {
    const float *row = call->q.p + ib * call->q.sb + ih * call->q.sh + query[i] * call->q.sn;
    for (int64_t t = 0; t < d; t++) w->q[i * d + t] = row[t] * factor;
    attn_rows_i8(call->mk, 1, d, w->q + i * d, d, NULL, w->a + i * attn_width_i8(d), g->as + i);
    g->length[i] = icecells_length(call->mk, d, w->q + i * d);
  }
}

static void store(const group *g, int64_t ib, int64_t ih, const int32_t *query, const icecells_work *w) {
  const icecells_call *call = g->call;
  const int64_t dv = g->c->dv, wo = attn_padded(call->mk, dv);
  for (int64_t i = 0; i < g->rows; i++) {
    float *to = call->out.p + ib * call->out.sb + ih * call->out.sh + query[i] * call->out.sn;
    float *lse = call->st ? call->st->lse : NULL;
    attn_close_row(dv, w->o + i * wo, w->m[i], w->l + i * 16, to, lse ? lse + (ib * call->pb->h + ih) * call->pb->nq + query[i] : NULL);
  }
}

uint64_t icecells_group(const icecells_call *call, const attn_cells *c, int64_t ib, int64_t ih, int64_t rows,
                        const int32_t *query, icecells_work *w) {
  const icecells_params *p = call->params;
  const attn_stats *st = call->st;
  const int wanted = st && st->missing; /* the bound, for the caller */
  group g = {.call = call, .c = c, .rows = rows, .ld = attn_padded(call->mk, c->cells)};
  load(&g, ib, ih, query, w);
  icecells_estimate(call, c, rows, w->a, g.as, g.length, w->estimate, g.ld);
  if (p->stop || wanted) bound(&g, w);
  const float total = prioritise(&g, p->stop ? w->bound : w->estimate, w);
  for (int64_t i = 0; i < rows; i++) w->m[i] = -INFINITY;
  memset(w->l, 0, (size_t)rows * 16 * sizeof(float));
  memset(w->o, 0, (size_t)(rows * attn_padded(call->mk, c->dv)) * sizeof(float));
  uint64_t pairs = (uint64_t)(rows * c->cells);
  float covered = 0.0f, best, missing[GROUP];
  for (int64_t near = 0; near < p->visit; near++) {
    if (near > 0 && p->mass < 1.0) {
      if (!p->stop && covered >= (float)p->mass * total) break;
      if (p->stop && near % ROUND == 0 && missing_mass(&g, w, missing) <= 1.0f - (float)p->mass) break;
    }
    const int64_t cell = call->mk->argmax(c->cells, w->priority, NULL, &best), count = c->start[cell + 1] - c->start[cell];
    if (!(best > -INFINITY)) break;
    covered += best;
    visit(&g, cell, w);
    pairs += (uint64_t)(rows * count);
    if (st && st->on_keys)
      for (int64_t i = 0; i < rows; i++) st->on_keys(st->ctx, ib, ih, query[i], c->order + c->start[cell], count);
  }
  if (wanted) {
    (void)missing_mass(&g, w, missing);
    for (int64_t i = 0; i < rows; i++) st->missing[(ib * call->pb->h + ih) * call->pb->nq + query[i]] = missing[i];
  }
  if (p->far) icecells_far(call, c, rows, w->estimate, g.ld, w->m, w->l, w->o);
  store(&g, ib, ih, query, w);
  return pairs;
}
