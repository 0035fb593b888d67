/* dci_search.c - a search of many probes at once; see dci.c for what is found.
 *
 * The probes go down the forest level by level, together: every probe lists the best nodes of the level it has just scored,
 * chooses the cells to open, and the (cell, probe) pairs are sorted by cell. So the keys of a cell are read once for all
 * its visitors, and their scores are one small matrix product. Each probe sees its cells in ascending order, whoever else
 * is there, and a score is one chain of additions: grouping changes no bit.
 *
 * A list of nodes is cut back to a limit, which holds `need` keys below it in all but rare cases; then the level is scored
 * again for that probe alone, with room for all. */
#include <math.h>
#include <string.h>

#include "kernels/core/dci.h"

enum { LD = DCI_COLS + DCI_SLACK };
enum { BEST = 1, LEVEL = 2, PARENT = 4, ALL = 8 }; /* where scores go; ALL: without looking at budgets */

typedef struct search {
  dci_work *w;
  const dci_tree *tree;
  int trees;
  int64_t off[DCI_TREES + 1]; /* of each tree, among the nodes of the level that were scored last and have children */
  const dci_budget *budget;
  int64_t k, need; /* want at the last level; keys that the opened cells must hold below them */
  int last;        /* the level at which keys find their parents; queries: none */
  dci_cost cost;
} search;

typedef struct visit { /* of a cell: slots [s0, s1), of probes who[0..m) */
  const dci *x;
  int64_t s0, s1, m;
  const int32_t *who;
  int64_t shift; /* number of a node in its level - its slot */
  int sinks;
  int64_t want;
} visit;

/* --- one cell ----------------------------------------------------------------------------------------------------- */

/* n scores of probe p. slot NULL: of keys s, s + 1, ...; else of those listed, whose positions and numbers are ids, nodes. */
static void deliver(search *sr, const visit *v, int64_t p, int64_t n, const float *score, float unit, int64_t s, const int32_t *slot,
                    const int32_t *ids, const int32_t *nodes) {
  dci_work *w = sr->w;
  if (v->sinks & BEST) dci_add(w->mk, &w->best[p], n, score, unit, 0, slot ? ids : v->x->id + s);
  if (v->sinks & LEVEL) dci_add(w->mk, &w->level[p], n, score, unit, (int32_t)(s + v->shift), nodes);
  if (v->sinks & PARENT) {
    attn_hit hit;
    const int64_t at = w->mk->argmax(n, score, NULL, &hit.score);
    hit.id = slot ? slot[at] : (int32_t)(s + at);
    if (w->parent[p].id < 0 || attn_better(hit, w->parent[p])) w->parent[p] = hit;
  }
}

/* All keys of the cell: tiles of a matrix product. */
static void visit_whole(search *sr, const visit *v) {
  dci_work *w = sr->w;
  const dci *x = v->x;
  const int64_t d = x->shape.d, count = v->s1 - v->s0, depth = sr->last >= 0 ? d + 1 : d;
  const float unit = sr->last >= 0 ? 1.0f : ldexpf(1.0f, x->exponent), *slab = x->slab + v->s0 * (d + 1);
  for (int64_t j = 0; j < count; j += DCI_COLS)
    for (int64_t i = 0; i < v->m; i += DCI_ROWS) {
      const int64_t n = count - j < DCI_COLS ? count - j : DCI_COLS, m = v->m - i < DCI_ROWS ? v->m - i : DCI_ROWS;
      w->mk->scores(m, n, depth, w->row, d + 1, v->who + i, slab + j, count, w->tile, LD);
      for (int64_t r = 0; r < m; r++) deliver(sr, v, v->who[i + r], n, w->tile + r * LD, unit, v->s0 + j, NULL, NULL, NULL);
    }
  sr->cost.pairs += (uint64_t)(v->m * count);
  sr->cost.bytes += (uint64_t)((v->m + DCI_ROWS - 1) / DCI_ROWS * count * depth) * sizeof(float);
}

/* Projections of a probe: of T_Q(q), or of T_K when it is a key. */
static void project(const search *sr, const dci *x, const float *row) {
  const int64_t d = x->shape.d;
  const int key = sr->last >= 0;
  const float scale = key ? x->inverse : (float)(1.0 / sqrt(dci_square(d, row)));
  for (int i = 0; i < x->shape.comp * x->shape.simp; i++)
    sr->w->projection[i] = x->mk->dot(key ? d + 1 : d, x->direction + i * (d + 1), row) * scale;
}

/* Those keys of the cell that the budgets admit, probe by probe; from the caller's rows. */
static void visit_part(search *sr, const visit *v) {
  dci_work *w = sr->w;
  const dci *x = v->x;
  const int64_t d = x->shape.d, count = v->s1 - v->s0;
  const int key = sr->last >= 0;
  const float *last = x->slab + v->s0 * (d + 1) + d * count - v->s0, down = ldexpf(1.0f, -x->exponent);
  for (int64_t i = 0; i < v->m; i++) {
    const float *row = w->row + v->who[i] * (d + 1);
    project(sr, x, row);
    const int64_t found = dci_cell(x, v->s0, v->s1, w->projection, v->want, sr->need, sr->budget->visit, sr->budget->retrieve, w, w->candidate);
    for (int64_t c = 0; c < found; c += DCI_COLS) {
      const int64_t n = found - c < DCI_COLS ? found - c : DCI_COLS;
      int32_t ids[DCI_COLS], nodes[DCI_COLS];
      for (int64_t j = 0; j < n; j++) {
        const int32_t s = w->candidate[c + j];
        ids[j] = x->id[s], nodes[j] = (int32_t)(s + v->shift);
        w->tile[j] = x->mk->dot(d, row, x->row + ids[j] * x->stride);
        if (key) w->tile[j] = w->tile[j] * down + row[d] * last[s];
      }
      deliver(sr, v, v->who[i], n, w->tile, 1.0f, 0, w->candidate + c, ids, nodes);
    }
    sr->cost.pairs += (uint64_t)found;
    sr->cost.bytes += (uint64_t)(found * d + x->shape.comp * x->shape.simp * (d + 1)) * sizeof(float);
  }
}

static void visit_cell(search *sr, const visit *v) {
  const int64_t count = v->s1 - v->s0;
  if (count == 0 || v->m == 0) return;
  if (v->sinks & ALL || dci_whole(count, v->want, sr->budget->visit, sr->budget->retrieve)) visit_whole(sr, v);
  else visit_part(sr, v);
}

/* --- levels ------------------------------------------------------------------------------------------------------- */

/* Where the scores of a level of a tree go. */
static int sinks_of(const search *sr, const dci *x, int level) {
  if (sr->last >= 0) return level == sr->last ? PARENT : LEVEL;
  return level + 1 < x->depths ? BEST | LEVEL : BEST;
}
static int64_t want_of(const search *sr, const dci *x, int level) {
  return level == (sr->last >= 0 ? sr->last : x->depths - 1) ? sr->k : sr->budget->beam;
}

/* Numbers the nodes of a level that have children, empties the lists for them, and sets how many a list keeps: twice as
 * many as hold `need` keys on average. Returns the number of nodes. */
static int64_t open_level(search *sr, int level, int64_t active) {
  dci_work *w = sr->w;
  int64_t keys = 0, nodes = 0;
  for (int r = 0; r < sr->trees; r++) {
    const dci *x = sr->tree[r].x;
    sr->off[r] = nodes;
    if (level + 1 >= x->depths || (sr->last >= 0 && level >= sr->last)) continue;
    nodes += x->level[level + 1] - x->level[level];
    keys += x->level[x->depths] - x->level[level];
  }
  sr->off[sr->trees] = nodes;
  const int64_t beam = sr->budget->beam, hold = keys ? (int64_t)(2.0 * (double)sr->need * (double)nodes / (double)keys) + 1 : 0;
  int64_t limit = hold > beam ? hold : beam;
  if (limit > w->opened) limit = w->opened;
  for (int64_t i = 0; i < active; i++) {
    dci_list *l = &w->level[w->who[i]];
    l->count = 0, l->limit = limit, l->floor = -INFINITY, l->cut = 0;
  }
  return nodes;
}

/* The tree of a node, and the node's slot. */
static const dci *tree_of(const search *sr, int level, int32_t node, int64_t *slot) {
  int r = 0;
  while (node >= sr->off[r + 1]) r++;
  *slot = sr->tree[r].x->level[level] + node - sr->off[r];
  return sr->tree[r].x;
}
static int64_t held_by(const search *sr, int level, int32_t node) {
  int64_t slot;
  const dci *x = tree_of(sr, level, node, &slot);
  return x->size[slot];
}

static void visit_roots(search *sr, int64_t active) {
  const int32_t *who = sr->w->who;
  for (int r = 0; r < sr->trees; r++) {
    const dci *x = sr->tree[r].x;
    int64_t i0 = 0, i1 = active;
    while (i0 < i1 && who[i0] < sr->tree[r].from) i0++;
    while (i1 > i0 && who[i1 - 1] >= sr->tree[r].to) i1--;
    visit v = {.x = x, .s1 = x->level[1], .m = i1 - i0, .who = who + i0, .shift = sr->off[r], .sinks = sinks_of(sr, x, 0), .want = want_of(sr, x, 0)};
    visit_cell(sr, &v);
    if (sr->last >= 0) continue;
    v.s0 = x->level[x->depths], v.s1 = x->n, v.sinks = BEST | ALL; /* the long keys */
    visit_cell(sr, &v);
  }
}

/* The cell below a node: its keys are of level `level + 1`; off is that of the next level, once open_level() was called. */
static visit cell_below(const search *sr, int r, int level, int64_t slot, int64_t m, const int32_t *who) {
  const dci *x = sr->tree[r].x;
  return (visit){.x = x, .s0 = x->child[slot], .s1 = x->child[slot + 1], .m = m, .who = who, .shift = sr->off[r] - x->level[level + 1],
                 .sinks = sinks_of(sr, x, level + 1), .want = want_of(sr, x, level + 1)};
}

/* --- the front ---------------------------------------------------------------------------------------------------- */

/* Scores the level once more, for probe p alone, into the list that holds all nodes. above: off of the level before. */
static dci_list *score_again(search *sr, int level, int32_t p, const int64_t *above) {
  dci_work *w = sr->w;
  const dci_list kept = w->level[p];
  w->wide.count = 0, w->wide.floor = -INFINITY;
  w->level[p] = w->wide;
  for (int64_t i = 0; i < (level > 0 ? w->fronts[p] : sr->trees); i++) {
    int r = (int)i;
    visit v;
    if (level > 0) {
      const int32_t node = w->front[p * w->opened + i];
      for (r = 0; node >= above[r + 1];) r++;
      v = cell_below(sr, r, level - 1, sr->tree[r].x->level[level - 1] + node - above[r], 1, &p);
    } else {
      const dci *x = sr->tree[r].x;
      v = (visit){.x = x, .s1 = x->level[1], .m = p >= sr->tree[r].from && p < sr->tree[r].to, .who = &p, .shift = sr->off[r], .want = want_of(sr, x, 0)};
    }
    v.sinks = sinks_of(sr, v.x, level) & LEVEL;
    if (v.sinks) visit_cell(sr, &v);
  }
  w->wide = w->level[p];
  w->level[p] = kept;
  return &w->wide;
}

/* Best first; equal scores: lower node first. */
static void sort_list(dci_work *w, dci_list *l) {
  for (int64_t i = 0; i < l->count; i++) {
    int32_t bits;
    memcpy(&bits, &l->score[i], sizeof bits);
    const uint32_t descending = bits < 0 ? (uint32_t)bits : 0x7fffffffu - (uint32_t)bits;
    w->order[i] = (uint64_t)descending << 32 | (uint32_t)l->id[i];
  }
  attn_sort_u64(w->order, l->count, w->spare);
  for (int64_t i = 0; i < l->count; i++) l->id[i] = (int32_t)(w->order[i] & 0xffffffffu);
}

/* Sets the front of probe p: the best nodes of its list, `beam` of them and as many as hold `need` keys. */
static void choose(search *sr, int level, int32_t p, const int64_t *above) {
  dci_work *w = sr->w;
  dci_list *l = &w->level[p];
  const int64_t beam = sr->budget->beam;
  int64_t count, held;
  dci_close(w->mk, l);
  for (;; l = score_again(sr, level, p, above)) {
    if (l->count > beam) sort_list(w, l);
    for (count = held = 0; count < l->count && (count < beam || held < sr->need); count++) held += held_by(sr, level, l->id[count]);
    if (held >= sr->need || !l->cut) break;
  }
  memcpy(w->front + p * w->opened, l->id, (size_t)count * sizeof *l->id);
  w->fronts[p] = (int32_t)count;
}

/* Pairs of the fronts, sorted by node: those of node c are pair[start[c]..start[c + 1]). */
static void sort_pairs(search *sr, int64_t nodes, int64_t active) {
  dci_work *w = sr->w;
  memset(w->start, 0, (size_t)(nodes + 2) * sizeof *w->start);
  int32_t *next = w->start + 1;
  for (int64_t i = 0; i < active; i++)
    for (int64_t j = 0, p = w->who[i]; j < w->fronts[p]; j++) next[w->front[p * w->opened + j] + 1]++;
  for (int64_t c = 0; c < nodes; c++) next[c + 1] += next[c];
  for (int64_t i = 0; i < active; i++)
    for (int64_t j = 0, p = w->who[i]; j < w->fronts[p]; j++) w->pair[next[w->front[p * w->opened + j]]++] = (int32_t)p;
}

static void descend(search *sr, int64_t active) {
  dci_work *w = sr->w;
  int64_t above[DCI_TREES + 1], nodes = open_level(sr, 0, active);
  memcpy(above, sr->off, sizeof above);
  visit_roots(sr, active);
  for (int level = 0; nodes > 0; level++) {
    for (int64_t i = 0; i < active; i++) choose(sr, level, w->who[i], above);
    sort_pairs(sr, nodes, active);
    memcpy(above, sr->off, sizeof above);
    nodes = open_level(sr, level + 1, active);
    for (int r = 0; r < sr->trees; r++) {
      const int64_t first = sr->tree[r].x->level[level] - above[r];
      for (int64_t c = above[r]; c < above[r + 1]; c++) {
        const visit v = cell_below(sr, r, level, first + c, w->start[c + 1] - w->start[c], w->pair + w->start[c]);
        visit_cell(sr, &v);
      }
    }
  }
}

void dci_search(dci_work *w, int64_t active, const dci_tree *tree, int trees, int64_t k, const dci_budget *budget, dci_cost *cost) {
  search sr = {.w = w, .tree = tree, .trees = trees, .budget = budget, .k = k, .need = k, .last = -1};
  descend(&sr, active);
  cost->pairs += sr.cost.pairs;
  cost->bytes += sr.cost.bytes;
}

void dci_parents(const dci *x, int depth, dci_work *w, int64_t active) {
  const dci_tree tree = {x, 0, w->probes};
  search sr = {.w = w, .tree = &tree, .trees = 1, .budget = &x->shape.build, .k = 1, .last = depth - 1};
  for (int64_t i = 0; i < active; i++) w->parent[w->who[i]] = (attn_hit){-INFINITY, -1};
  descend(&sr, active);
  for (int64_t i = 0; i < active; i++) { /* every cell of the beam was empty: look at the whole level */
    const int32_t p = w->who[i];
    for (int64_t s = x->level[depth > 1 ? depth - 2 : 0]; w->parent[p].id < 0 && s < x->level[depth - 1]; s++) {
      const visit v = {.x = x, .s0 = x->child[s], .s1 = x->child[s + 1], .m = 1, .who = &p, .sinks = PARENT | ALL};
      visit_cell(&sr, &v);
    }
  }
}
