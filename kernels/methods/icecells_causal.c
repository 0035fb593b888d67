/* icecells_causal.c - a block of causal queries of icecells: the keys at hand exactly, then cells of what lies before them. See icecells.c.
 *
 * Rows share memory and matrix products, and nothing else: a row's choice, and the order of its sums, are its own. */
#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/softmax2.h"
#include "kernels/methods/dense_block.h"
#include "kernels/methods/icecells.h"

enum {
  ROWS = ICECELLS_BLOCK,
  WORDS = ROWS / 64, /* a bit for each row */
  RANGES = 48        /* no number of blocks has more digits */
};

typedef struct causal_work { /* of a thread */
  dense_block block;      /* the rows */
  float *length, *as;     /* [ROWS] of the scaled queries; their scales as 8-bit integers */
  uint8_t *a;             /* [ROWS, width] quantised queries */
  float *estimate;        /* [ROWS, before] log2 of the mass of each cell; -inf: visited, or empty */
  float *share;           /* [before] of the row that chooses */
  uint64_t (*chosen)[WORDS]; /* [before] rows that visit the cell */
  icecells_work tile;     /* rows that meet a cell */
} causal_work;

static size_t lay_out(causal_work *w, const attn_problem *pb, const attn_micro *mk, int64_t before, char *p) {
  attn_layout at = {.p = p};
  void *block = attn_place(&at, dense_block_bytes(pb, mk, ROWS)), *tile = attn_place(&at, icecells_work_bytes(pb, mk, 1));
  w->length = attn_place_floats(&at, ROWS, 1);
  w->as = attn_place_floats(&at, ROWS, 1);
  w->a = attn_place(&at, (size_t)(ROWS * attn_width_i8(pb->d)));
  w->estimate = attn_place_floats(&at, ROWS, before);
  w->share = attn_place_floats(&at, before, 1);
  w->chosen = attn_place(&at, (size_t)before * sizeof *w->chosen);
  if (p) {
    w->block = dense_block_carve(block, pb, mk, ROWS);
    icecells_work_carve(&w->tile, pb, mk, 1, tile);
  }
  return at.used;
}
size_t icecells_causal_bytes(const attn_problem *pb, const attn_micro *mk, int64_t before) {
  causal_work w;
  return lay_out(&w, pb, mk, before, NULL);
}

typedef struct band { /* rows [from, to) of the block: the same complete blocks lie before them */
  const icecells_call *call;
  const icecells_plan *pl;
  int64_t ib, ih, i0, from, to;
  int64_t full;                    /* keys of those blocks; 0: too few for cells */
  int ranges;
  const attn_cells *range[RANGES]; /* in order of positions */
  int64_t first[RANGES + 1];       /* number of the first cell of each; then of all cells */
} band;

static void find_ranges(band *b) {
  const attn_problem *pb = b->call->pb;
  const attn_cells *head = b->pl->head + (b->ib * pb->hkv + b->ih / (pb->h / pb->hkv)) * b->pl->ranges;
  attn_span range = {0, attn_range_widest(pb->nk, ICECELLS_BLOCK)};
  b->ranges = 0;
  b->first[0] = 0;
  for (; range.width >= ICECELLS_BLOCK; range.width /= 2) {
    if (!(b->full & range.width)) continue;
    const attn_cells *c = b->range[b->ranges] = head + attn_range_number(pb->nk, ICECELLS_BLOCK, range);
    b->first[b->ranges + 1] = b->first[b->ranges] + c->cells;
    b->ranges++;
    range.begin += range.width;
  }
}

/* --- the keys at hand ------------------------------------------------------------------------------------------------- */

static uint64_t attend_tail(const band *b, const dense_head *hd, causal_work *w) {
  const attn_problem *pb = b->call->pb;
  const dense_plan *exact = b->pl->exact;
  const attn_stats *st = b->call->st;
  const int64_t tile = b->call->mk->rows, step = dense_block_k(pb->d);
  uint64_t pairs = 0;
  for (int64_t i = b->from; i < b->to; i += tile) {
    const int64_t rows = b->to - i < tile ? b->to - i : tile;
    for (int64_t j = b->full; j < w->block.prefix[i + rows - 1]; j += step)
      dense_block_attend_some(exact, hd, i, rows, b->i0 + i, j, j + step, w->block.prefix + i, &w->block);
  }
  for (int64_t i = b->from; i < b->to; i++) {
    const int64_t count = w->block.prefix[i] - b->full;
    pairs += (uint64_t)count;
    if (st && st->on_keys && count) st->on_keys(st->ctx, b->ib, b->ih, b->i0 + i, exact->idx + b->ib * pb->nk + b->full, count);
  }
  return pairs;
}

/* --- choosing --------------------------------------------------------------------------------------------------------- */

static icecells_reach reach_of(const attn_cells *c, const causal_work *w, int64_t i) { return icecells_reach_of(c, w->length[i], w->as[i]); }

/* For stop=bound: share [cells] = log2 of the bounds; returns what the mass of all cells cannot exceed, relative to 2^top. */
static double bounds_of(const band *b, int64_t i, float top, const causal_work *w, int64_t before) {
  const float *estimate = w->estimate + i * before;
  double sum = 0.0;
  for (int r = 0; r < b->ranges; r++) {
    const icecells_reach reach = reach_of(b->range[r], w, i);
    for (int64_t j = b->first[r]; j < b->first[r + 1]; j++) {
      w->share[j] = icecells_most(b->range[r], j - b->first[r], &reach, estimate[j]);
      sum += exp2((double)w->share[j] - (double)top);
    }
  }
  return sum;
}

/* What a cell holds for certain, relative to 2^top. */
static double least_of(const band *b, int64_t i, int64_t cell, float top, const causal_work *w, int64_t before) {
  int r = 0;
  while (cell >= b->first[r + 1]) r++;
  const icecells_reach reach = reach_of(b->range[r], w, i);
  return exp2((double)icecells_least(b->range[r], cell - b->first[r], &reach, w->estimate[i * before + cell]) - (double)top);
}

/* Marks the cells that row i visits: those with the most mass, until `mass` of all is covered, the keys at hand included. */
static void choose(const band *b, int64_t i, causal_work *w, int64_t before) {
  const icecells_params *p = b->call->params;
  const attn_micro *mk = b->call->mk;
  const int64_t cells = b->first[b->ranges], most = p->visit < cells ? p->visit : cells;
  float *estimate = w->estimate + i * before, lanes[16], top = w->block.m[i], best;
  double total, covered, rest = 0.0;
  memcpy(lanes, w->block.l + i * 16, sizeof lanes);
  const float tail = attn_lane_sum(lanes), tail_top = top;
  memcpy(w->share, estimate, (size_t)cells * sizeof(float));
  mk->softmax_block(1, cells, w->share, cells, NULL, &top, lanes, NULL, 0, 0);
  total = (double)attn_lane_sum(lanes);
  covered = tail > 0.0f ? (double)tail * exp2((double)tail_top - (double)top) : 0.0;
  if (p->stop) rest = bounds_of(b, i, top, w, before);
  for (int64_t taken = 0; taken < most; taken++) {
    if (p->mass < 1.0 && (p->stop ? rest * p->mass <= (1.0 - p->mass) * covered : covered >= p->mass * total)) break;
    const int64_t j = mk->argmax(cells, w->share, NULL, &best);
    if (!(best > -INFINITY)) break;
    covered += p->stop ? least_of(b, i, j, top, w, before) : (double)w->share[j];
    rest -= p->stop ? exp2((double)best - (double)top) : 0.0;
    w->share[j] = estimate[j] = -INFINITY;
    w->chosen[j][i / 64] |= 1ull << i % 64;
  }
}

/* --- visiting --------------------------------------------------------------------------------------------------------- */

/* Rows between the block and the tile that meets a cell. */
static void gather(const band *b, int64_t n, const int32_t *row, const causal_work *w) {
  const int64_t d = b->call->pb->d, wo = attn_padded(b->call->mk, b->call->pb->dv);
  for (int64_t i = 0; i < n; i++) {
    memcpy(w->tile.q + i * d, w->block.q + row[i] * d, (size_t)d * sizeof(float));
    memcpy(w->tile.o + i * wo, w->block.o + row[i] * wo, (size_t)wo * sizeof(float));
    memcpy(w->tile.l + i * 16, w->block.l + row[i] * 16, 16 * sizeof(float));
    w->tile.m[i] = w->block.m[row[i]];
  }
}
static void scatter(const band *b, int64_t n, const int32_t *row, const causal_work *w) {
  const int64_t wo = attn_padded(b->call->mk, b->call->pb->dv);
  for (int64_t i = 0; i < n; i++) {
    memcpy(w->block.o + row[i] * wo, w->tile.o + i * wo, (size_t)wo * sizeof(float));
    memcpy(w->block.l + row[i] * 16, w->tile.l + i * 16, 16 * sizeof(float));
    w->block.m[row[i]] = w->tile.m[i];
  }
}

static uint64_t meet(const band *b, const attn_cells *c, int64_t cell, int64_t n, const int32_t *row, const causal_work *w) {
  const attn_stats *st = b->call->st;
  const int64_t count = c->start[cell + 1] - c->start[cell];
  gather(b, n, row, w);
  icecells_visit(b->call, c, n, cell, &w->tile);
  scatter(b, n, row, w);
  for (int64_t i = 0; st && st->on_keys && i < n; i++) st->on_keys(st->ctx, b->ib, b->ih, b->i0 + row[i], c->order + c->start[cell], count);
  return (uint64_t)(n * count);
}

static uint64_t visit_all(const band *b, const attn_cells *c, uint64_t (*chosen)[WORDS], const causal_work *w) {
  int32_t row[ICECELLS_GROUP];
  uint64_t pairs = 0;
  for (int64_t cell = 0; cell < c->cells; cell++) {
    int64_t n = 0;
    for (int k = 0; k < WORDS; k++)
      for (uint64_t bits = chosen[cell][k]; bits; bits &= bits - 1) {
        row[n++] = 64 * k + __builtin_ctzll(bits);
        if (n < ICECELLS_GROUP) continue;
        pairs += meet(b, c, cell, n, row, w);
        n = 0;
      }
    if (n) pairs += meet(b, c, cell, n, row, w);
  }
  return pairs;
}

/* --- the block -------------------------------------------------------------------------------------------------------- */

/* How much of the mass row i can miss. */
static float missing_of(const band *b, int64_t i, causal_work *w, int64_t before) {
  const float top = w->block.m[i];
  const double u = bounds_of(b, i, top, w, before);
  return icecells_missing((float)u, top, attn_lane_sum(w->block.l + i * 16), top);
}

static uint64_t attend_before(band *b, causal_work *w, int64_t before) {
  const icecells_call *call = b->call;
  const int64_t d = call->pb->d, rows = b->to - b->from, wo = attn_padded(call->mk, call->pb->dv);
  find_ranges(b);
  const int64_t cells = b->first[b->ranges];
  float *estimate = w->estimate + b->from * before;
  uint64_t pairs = (uint64_t)(rows * cells);
  for (int r = 0; r < b->ranges; r++)
    icecells_estimate(call, b->range[r], rows, w->a + b->from * attn_width_i8(d), w->as + b->from, w->length + b->from, estimate + b->first[r], before);
  memset(w->chosen, 0, (size_t)cells * sizeof *w->chosen);
  for (int64_t i = b->from; i < b->to; i++) choose(b, i, w, before);
  for (int r = 0; r < b->ranges; r++) pairs += visit_all(b, b->range[r], w->chosen + b->first[r], w);
  for (int64_t i = b->from; call->st && call->st->missing && i < b->to; i++)
    call->st->missing[(b->ib * call->pb->h + b->ih) * call->pb->nq + b->i0 + i] = missing_of(b, i, w, before);
  for (int r = 0; call->params->far && r < b->ranges; r++)
    icecells_far(call, b->range[r], rows, estimate + b->first[r], before, w->block.m + b->from, w->block.l + b->from * 16, w->block.o + b->from * wo);
  return pairs;
}

/* A row that sees fewer than dense_below keys gets exact attention, as all rows of so short a sequence do. */
static int64_t full_of(const icecells_plan *pl, int64_t prefix) {
  return prefix < pl->params.dense_below ? 0 : prefix / ICECELLS_BLOCK * ICECELLS_BLOCK;
}

uint64_t icecells_causal(const icecells_call *call, const icecells_plan *pl, int64_t ib, int64_t ih, int64_t i0, int64_t rows, void *memory) {
  const attn_problem *pb = call->pb;
  const dense_plan *exact = pl->exact;
  const dense_head hd = dense_head_of(exact, ib, ih, 0.0f, 0);
  const int64_t before = icecells_before(pl);
  causal_work w;
  uint64_t pairs = 0;
  (void)lay_out(&w, pb, call->mk, before, memory);
  dense_block_load(exact, ib, ih, i0, rows, call->q, &w.block);
  attn_rows_i8(call->mk, rows, pb->d, w.block.q, pb->d, NULL, w.a, w.as);
  for (int64_t i = 0; i < rows; i++) w.length[i] = icecells_length(call->mk, pb->d, w.block.q + i * pb->d);
  for (int64_t from = 0, to; from < rows; from = to) {
    const int64_t full = full_of(pl, w.block.prefix[from]);
    for (to = from; to < rows && full_of(pl, w.block.prefix[to]) == full;) to++;
    band b = {.call = call, .pl = pl, .ib = ib, .ih = ih, .i0 = i0, .from = from, .to = to, .full = full};
    pairs += attend_tail(&b, &hd, &w);
    if (full) pairs += attend_before(&b, &w, before);
    else if (call->st && call->st->missing)
      memset(call->st->missing + (ib * pb->h + ih) * pb->nq + i0 + from, 0, (size_t)(to - from) * sizeof(float));
  }
  dense_block_store(exact, ib, ih, i0, rows, &w.block, call->out, call->st ? call->st->lse : NULL);
  return pairs;
}
