/* dense_block.c - see dense_block.h. The algorithm is told in dense.c. */
#include "kernels/methods/dense_block.h"

#include <math.h>
#include <string.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/visible.h"

static int64_t lds(int64_t d) { return dense_block_k(d) + 16; }

static size_t lay_out(dense_block *b, const attn_problem *pb, const attn_micro *mk, int64_t rows, char *p) {
  attn_layout at = {.p = p};
  b->q = attn_place_floats(&at, rows, pb->d);
  b->o = attn_place_floats(&at, rows, attn_padded(mk, pb->dv));
  b->m = attn_place_floats(&at, rows, 1);
  b->l = attn_place_floats(&at, rows, 16);
  b->prefix = attn_place_floats(&at, rows, 1);
  b->s = attn_place_floats(&at, DENSE_MAX_ROWS, lds(pb->d));
  return at.used;
}
size_t dense_block_bytes(const attn_problem *pb, const attn_micro *mk, int64_t rows) {
  dense_block b;
  return lay_out(&b, pb, mk, rows, NULL);
}
dense_block dense_block_carve(void *p, const attn_problem *pb, const attn_micro *mk, int64_t rows) {
  dense_block b;
  (void)lay_out(&b, pb, mk, rows, p);
  return b;
}

dense_head dense_head_of(const dense_plan *pl, int64_t ib, int64_t ih, float drop, uint64_t key) {
  const int64_t kv = ib * pl->pb.hkv + ih / (pl->pb.h / pl->pb.hkv);
  return (dense_head){.kt = pl->kt + kv * pl->kt_stride,
                      .v = pl->v + kv * pl->v_stride,
                      .kept = pl->count[ib],
                      .wild = pl->wild[kv],
                      .drop = attn_drop_make(drop, attn_hash(key, (uint64_t)ib, (uint64_t)ih))};
}

void dense_block_load(const dense_plan *pl, int64_t ib, int64_t ih, int64_t i0, int64_t rows, attn_view q, dense_block *b) {
  const attn_problem *pb = &pl->pb;
  const float factor = (float)(pb->scale * LOG2E);
  for (int64_t i = 0; i < rows; i++) {
    const float *row = q.p + ib * q.sb + ih * q.sh + (i0 + i) * q.sn;
    for (int64_t t = 0; t < pb->d; t++) b->q[i * pb->d + t] = row[t] * factor;
    b->prefix[i] = (int32_t)attn_prefix(pb, pl->idx + ib * pb->nk, pl->count[ib], i0 + i);
    b->m[i] = -INFINITY;
  }
  memset(b->o, 0, (size_t)(rows * attn_padded(pl->mk, pb->dv)) * sizeof(float));
  memset(b->l, 0, (size_t)rows * 16 * sizeof(float));
}

/* One register tile of rows: `first` is its place in the block of queries, row0 in the head; row i sees the first
 * prefix[i] keys. */
typedef struct dense_tile {
  int64_t rows, first, row0;
  const int32_t *prefix;
} dense_tile;

/* The tile against keys [j0, j1), at most block_k. plain: every row sees them all, and they are whole panels. */
static void attend_keys(const dense_plan *pl, const dense_head *hd, const dense_tile *t, int64_t j0, int64_t j1, int plain,
                        const dense_block *b) {
  const attn_problem *pb = &pl->pb;
  const attn_micro *mk = pl->mk;
  const int64_t ld = lds(pb->d), wo = attn_padded(mk, pb->dv), cols = j1 - j0;
  const float *q = b->q + t->first * pb->d, *kt = hd->kt + j0 * pb->d, *v = hd->v + j0 * mk->panel;
  float *s = b->s, *m = b->m + t->first, *l = b->l + t->first * 16, *o = b->o + t->first * wo;
  int32_t n[DENSE_MAX_ROWS];
  if (plain)
    mk->weigh_block(t->rows, cols, pb->d, q, pb->d, kt, s, ld, m, l, o, wo, wo);
  else {
    for (int64_t i = 0; i < t->rows; i++) {
      const int64_t seen = t->prefix[i] - j0;
      n[i] = (int32_t)(seen < 0 ? 0 : seen < cols ? seen : cols);
    }
    mk->gemm(t->rows, cols, pb->d, q, pb->d, 1, kt, mk->panel, mk->panel * pb->d, s, ld, 0);
    mk->softmax_block(t->rows, cols, s, ld, n, m, l, o, wo, wo);
  }
  mk->drop_block(t->rows, cols, s, ld, &hd->drop, t->row0, j0);
  if (plain || !hd->wild)
    mk->gemm(t->rows, wo, cols, s, ld, 1, v, mk->panel, mk->panel * hd->kept, o, wo, 1);
  else
    for (int64_t i = 0; i < t->rows; i++)
      mk->gemm(1, wo, n[i], s + i * ld, ld, 1, v, mk->panel, mk->panel * hd->kept, o + i * wo, wo, 1);
}

void dense_block_attend(const dense_plan *pl, const dense_head *hd, int64_t first, int64_t rows, int64_t row0, int64_t j0,
                        int64_t j1, const dense_block *b) {
  const dense_tile t = {rows, first, row0, b->prefix + first};
  int64_t most = 0, least = hd->kept;
  for (int64_t i = 0; i < rows; i++) {
    if (t.prefix[i] > most) most = t.prefix[i];
    if (t.prefix[i] < least) least = t.prefix[i];
  }
  /* Whole panels that all rows see, then what is left. */
  const int64_t stop = most < j1 ? most : j1, seen = least < stop ? least : stop;
  const int64_t middle = seen > j0 ? j0 + (seen - j0) / DENSE_WHOLE * DENSE_WHOLE : j0;
  if (middle > j0) attend_keys(pl, hd, &t, j0, middle, 1, b);
  if (stop > middle) attend_keys(pl, hd, &t, middle, stop, 0, b);
}

void dense_block_attend_all(const dense_plan *pl, const dense_head *hd, int64_t i0, int64_t rows, const dense_block *b) {
  const int64_t step = dense_block_k(pl->pb.d), tile = pl->mk->rows;
  /* A block of keys meets all tiles of the query block while it sits in cache. */
  for (int64_t j0 = 0; j0 < b->prefix[rows - 1]; j0 += step)
    for (int64_t i = 0; i < rows; i += tile)
      dense_block_attend(pl, hd, i, rows - i < tile ? rows - i : tile, i0 + i, j0, j0 + step, b);
}

void dense_block_attend_some(const dense_plan *pl, const dense_head *hd, int64_t first, int64_t rows, int64_t row0,
                             int64_t j0, int64_t j1, const int32_t *prefix, const dense_block *b) {
  const dense_tile t = {rows, first, row0, prefix};
  const int64_t stop = hd->kept < j1 ? hd->kept : j1;
  if (stop > j0) attend_keys(pl, hd, &t, j0, stop, 0, b);
}

void dense_block_store(const dense_plan *pl, int64_t ib, int64_t ih, int64_t i0, int64_t rows, const dense_block *b,
                       attn_viewm out, float *lse) {
  const attn_problem *pb = &pl->pb;
  const int64_t wo = attn_padded(pl->mk, pb->dv);
  for (int64_t i = 0; i < rows; i++) {
    float *to = out.p + ib * out.sb + ih * out.sh + (i0 + i) * out.sn;
    attn_close_row(pb->dv, b->o + i * wo, b->m[i], b->l + i * 16, to, lse ? lse + (ib * pb->h + ih) * pb->nq + i0 + i : NULL);
  }
}
