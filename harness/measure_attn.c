/* measure_attn.c - rows on tensors: timed together, then judged one by one. See measure_rows.h */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/measure_rows.h"
#include "harness/npy.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"
#include "kernels/core/fileio.h"
#include "kernels/core/status.h"

static void set_status(measure_row *row, attn_status status, const char *reason) {
  row->status = status;
  row->column = -1;
  (void)snprintf(row->reason, sizeof row->reason, "%s", reason);
}

/* ---- Timing. */

/* Neighbouring rows that share a build; an entrant of the measurement. Its variants are, row by row, the whole set and
 * then each layer, so that a layer has samples like any other column. */
typedef struct group {
  const measure_set *set;
  watch *watch;
  int first, count, parts; /* parts: 1 + layers */
  measure_method mm;
  attn_viewm out; /* for the problem at hand; strides are set per problem */
  measure_cost *cost; /* [count * parts]: of the last pass; [count]: of the last problem, behind them */
  attn_status status;
} group;

static int same_build(const measure_row *a, const measure_row *b) {
  return a->method == b->method && registry_same_build(a->method, a->params, b->params);
}

static attn_status check_all(const measure_row *row, const measure_set *set) {
  for (int i = 0; i < set->n; i++) ATTN_TRY(attn_check(row->method, &set->t[i].in.pb, row->params));
  return ATTN_OK;
}

/* Cuts the rows into groups. A row that its method refuses gets its status now and stays out. */
static int make_groups(measure_rows *rows, const measure_set *set, group *g) {
  int n = 0;
  for (int r = 0; r < rows->n; r++) {
    measure_row *row = rows->row + r;
    if (row->status != ATTN_OK) continue; /* a plug-in that did not load, or was blamed */
    watch_begin(rows->watch, row->method->name, "check");
    attn_status status = check_all(row, set);
    watch_end(rows->watch);
    if (status != ATTN_OK)
      set_status(row, status, attn_last_error());
    else if (n && g[n - 1].first + g[n - 1].count == r && same_build(row - 1, row))
      g[n - 1].count++;
    else
      g[n++] = (group){.first = r, .count = 1};
  }
  return n;
}

/* Gets a group ready to run; 0 when it cannot, which its rows then say. */
static int open_group(measure_rows *rows, const measure_set *set, const measure_inputs *const *in, float *out,
                      group *g) {
  measure_row *row = rows->row + g->first;
  g->set = set;
  g->watch = rows->watch;
  g->parts = 1 + set->layers;
  g->out.p = out;
  watch_begin(rows->watch, row->method->name, "sizes");
  g->status = measure_method_open_all(&g->mm, row->method, rows->params + g->first, g->count, in, set->n);
  watch_end(rows->watch);
  g->cost = calloc((size_t)(g->count * (g->parts + 1)), sizeof *g->cost);
  if (g->status == ATTN_OK && !g->cost)
    g->status = attn_fail(ATTN_ERR_NOMEM, "%s: no memory for timings", row->method->name);
  for (int i = 0; g->status != ATTN_OK && i < g->count; i++) set_status(row + i, g->status, attn_last_error());
  return g->status == ATTN_OK;
}

static void add_cost(measure_cost *sum, const measure_cost *one) {
  for (int p = 0; p < MEASURE_PHASES; p++) sum->times.ns[p] = one->times.ns[p] < 0 ? -1 : sum->times.ns[p] + one->times.ns[p];
  sum->pairs += one->pairs;
  sum->touched += one->touched;
  if (one->bytes > sum->bytes) sum->bytes = one->bytes;
  if (one->path) sum->path = one->path; /* of a tape: in some call at least */
}

/* measure_entrant.pass: every problem of the set once. */
static int pass(void *ctx, int first, measure_times *out, ice_err *e) {
  group *g = ctx;
  measure_cost *one = g->cost + g->count * g->parts;
  memset(g->cost, 0, (size_t)(g->count * g->parts) * sizeof *g->cost);
  for (int i = 0; i < g->set->n; i++) {
    const measure_tensors *t = g->set->t + i;
    const attn_viewm view = measure_dense_view(g->out.p, t->in.pb.h, t->in.pb.nq, t->in.pb.dv);
    watch_begin(g->watch, g->mm.method->name, "build and forward");
    g->status = measure_method_pass(&g->mm, &t->in, first % g->count, view, NULL, one);
    watch_end(g->watch);
    if (g->status != ATTN_OK)
      return ice_fail(e, ICE_INTERNAL, "%s: %s (%s)", g->mm.method->name, attn_last_error(), attn_status_text(g->status));
    for (int v = 0; v < g->count; v++) {
      measure_cost *sum = g->cost + v * g->parts;
      add_cost(sum, one + v);
      if (g->parts > 1) add_cost(sum + 1 + t->layer, one + v);
    }
  }
  for (int c = 0; c < g->count * g->parts; c++) out[c] = g->cost[c].times;
  return ICE_OK;
}

static int finish_group(measure_rows *rows, const group *g, const measure_entrant *en, ice_err *e) {
  for (int v = 0; v < g->count; v++) {
    measure_row *row = rows->row + g->first + v;
    if (en->rc != ICE_OK) {
      set_status(row, g->status, en->err.text);
      continue;
    }
    row->cost = malloc((size_t)g->parts * sizeof *row->cost);
    if (!row->cost) return ice_fail(e, ICE_INTERNAL, "out of memory");
    memcpy(row->cost, g->cost + v * g->parts, (size_t)g->parts * sizeof *row->cost);
  }
  return ICE_OK;
}

/* Floats that the largest output takes. */
static size_t output_floats(const measure_set *set) {
  size_t most = 0;
  for (int i = 0; i < set->n; i++) {
    const attn_problem *pb = &set->t[i].in.pb;
    const size_t n = (size_t)(pb->b * pb->h * pb->nq * pb->dv);
    if (n > most) most = n;
  }
  return most;
}

static int column_of(const measure_rows *rows, const char *name) {
  for (int r = 0; r < rows->n; r++)
    if (!strcmp(rows->row[r].method->name, name) && rows->row[r].column >= 0) return rows->row[r].column;
  return -1;
}

int measure_rows_time(measure_rows *rows, const measure_set *set, const measure_plan *plan, measure_result *out,
                      ice_err *e) {
  group *g = calloc((size_t)rows->n, sizeof *g);
  measure_entrant *entrant = calloc((size_t)rows->n, sizeof *entrant);
  group **of = calloc((size_t)rows->n, sizeof *of); /* the group of an entrant */
  const measure_inputs **in = calloc((size_t)set->n, sizeof *in);
  float *o = attn_alloc(output_floats(set) * sizeof *o);
  int rc = g && entrant && of && in && o ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for outputs"), live = 0,
      columns = 0;
  for (int i = 0; in && i < set->n; i++) in[i] = &set->t[i].in;
  int n = rc == ICE_OK ? make_groups(rows, set, g) : 0;
  for (int i = 0; i < n; i++) {
    if (!open_group(rows, set, in, o, g + i)) continue;
    for (int v = 0; v < g[i].count; v++) rows->row[g[i].first + v].column = columns + v * g[i].parts;
    columns += g[i].count * g[i].parts;
    of[live] = g + i;
    entrant[live++] = (measure_entrant){.variants = g[i].count * g[i].parts, .pass = pass, .ctx = g + i};
  }
  measure_plan against = *plan;
  against.base[0] = column_of(rows, "vanilla"), against.base[1] = column_of(rows, "dense");
  if (rc == ICE_OK) rc = measure_run(entrant, live, &against, out, e);
  for (int i = 0; rc == ICE_OK && i < live; i++) rc = finish_group(rows, of[i], entrant + i, e);
  for (int i = 0; i < n; i++) {
    measure_method_close(&g[i].mm);
    free(g[i].cost);
  }
  free(g);
  free(entrant);
  free(of);
  free((void *)in);
  attn_free(o);
  return rc;
}

static int shift(int column, int part) { return column < 0 ? -1 : column + part; }

measure_columns measure_rows_columns(const measure_rows *rows, const measure_row *row, int part) {
  return (measure_columns){shift(row->column, part), shift(column_of(rows, "vanilla"), part),
                           shift(column_of(rows, "dense"), part)};
}

void measure_rows_explain(const measure_rows *rows, char *text, size_t size) {
  for (int r = 0; r < rows->n; r++) {
    const measure_row *row = rows->row + r;
    const size_t n = strlen(text);
    if (row->reference && row->status != ATTN_OK && *row->reason)
      (void)snprintf(text + n, size - n, "%sno speed-up against %s: %.150s", n ? "; " : "", row->method->name, row->reason);
  }
}

/* ---- Judging. */

static int file_name(const measure_row *row, const char *dir, const char *what, char *out, size_t size, ice_err *e) {
  int n = snprintf(out, size, "%s/%s%s%s.%s.npy", dir, row->method->name, *row->swept ? "@" : "", row->swept, what);
  return n > 0 && (size_t)n < size ? ICE_OK : ice_fail(e, ICE_USAGE, "--out %s: the name is too long", dir);
}

/* Key sets as [b, h, nq, k], -1 = none; k is the parameter, or the largest set of a method without one. */
static int write_keys(const char *path, const attn_problem *pb, const quality_keys *keys, int64_t k, ice_err *e) {
  const int64_t rows = pb->b * pb->h * pb->nq;
  int64_t width = k < pb->nk ? k : pb->nk;
  for (int64_t i = 0; i < rows; i++)
    if (keys->count[i] > width) width = keys->count[i];
  int32_t *all = attn_alloc((size_t)(rows * width) * sizeof *all);
  if (!all) return ice_fail(e, ICE_INTERNAL, "out of memory for %s", path);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < width; j++) all[i * width + j] = j < keys->count[i] ? keys->row[i][j] : -1;
  int rc = npy_write_i32(path, 4, (int64_t[]){pb->b, pb->h, pb->nq, width}, all, e);
  attn_free(all);
  return rc;
}

static int write_row(const measure_row *row, const attn_problem *pb, const char *dir, const float *o,
                     const quality_keys *keys, ice_err *e) {
  char path[4096];
  ICE_TRY(file_name(row, dir, "o", path, sizeof path, e));
  ICE_TRY(npy_write_f32(path, 4, (int64_t[]){pb->b, pb->h, pb->nq, pb->dv}, o, e));
  if (!keys) return ICE_OK;
  ICE_TRY(file_name(row, dir, "idx", path, sizeof path, e));
  return write_keys(path, pb, keys, quality_k(row->method, row->params), e);
}

typedef struct judge { /* one row on its way through the set */
  measure_row *row;
  watch *watch;
  quality_sums *sums; /* [1 + layers] */
  int layers;
  int no_keys;
  const char *out_dir;
  float *o;
} judge;

/* One pass of a row outside the clock: its output against exact attention, its keys against the best. */
static int judge_problem(judge *j, const measure_tensors *t, const quality_ref *ref, ice_err *e) {
  measure_row *row = j->row;
  const attn_problem *pb = &t->in.pb;
  const attn_viewm view = measure_dense_view(j->o, pb->h, pb->nq, pb->dv);
  const void *params = row->params;
  const int set = (row->method->caps & ATTN_CAP_KEYSET) != 0 && !j->no_keys;
  const int64_t k = quality_k(row->method, row->params);
  quality_keys keys;
  measure_method mm;
  ICE_TRY(quality_keys_create(&keys, pb, e));
  attn_stats st = {.on_keys = set ? quality_on_keys : NULL, .ctx = &keys, .missing = keys.missing};
  watch_begin(j->watch, row->method->name, "build and forward");
  attn_status status = measure_method_open(&mm, row->method, &params, 1, &t->in);
  if (status == ATTN_OK) {
    status = measure_method_pass(&mm, &t->in, 0, view, &st, NULL);
    measure_method_close(&mm);
  }
  watch_end(j->watch);
  if (status != ATTN_OK) set_status(row, status, attn_last_error());
  int rc = ICE_OK;
  if (status == ATTN_OK) {
    ice_err wrong = {0};
    quality_sums one = {0};
    rc = quality_add(&one, ref, measure_const_view(view), set ? &keys : NULL, k, &wrong);
    if (rc != ICE_OK) set_status(row, ATTN_ERR_NUMERIC, wrong.text);
    quality_merge(j->sums, &one);
    if (j->layers) quality_merge(j->sums + 1 + t->layer, &one);
  }
  if (row->status == ATTN_OK && j->out_dir) {
    char dir[FILE_PATH];
    rc = file_join(dir, j->out_dir, t->name, e);
    if (rc == ICE_OK && *t->name) rc = file_make_dirs(dir, e);
    if (rc == ICE_OK) rc = write_row(row, pb, *t->name ? dir : j->out_dir, j->o, set ? &keys : NULL, e);
  } else
    rc = ICE_OK; /* a wrong answer is the row's affair */
  quality_keys_destroy(&keys);
  return rc;
}

/* Every row on one problem, whose exact answer is computed once. */
static int judge_rows(measure_rows *rows, judge *j, const measure_tensors *t, ice_err *e) {
  quality_ref ref;
  ICE_TRY(quality_ref_create(&ref, &t->in, e));
  int rc = ICE_OK;
  for (int r = 0; rc == ICE_OK && r < rows->n; r++)
    if (rows->row[r].status == ATTN_OK && !rows->row[r].reference) rc = judge_problem(j + r, t, &ref, e);
  quality_ref_destroy(&ref);
  return rc;
}

int measure_rows_judge(measure_rows *rows, const measure_set *set, const char *out_dir, ice_err *e) {
  const int parts = 1 + set->layers;
  if (out_dir) ICE_TRY(file_make_dirs(out_dir, e));
  judge *j = calloc((size_t)rows->n, sizeof *j);
  quality_sums *sums = calloc((size_t)(rows->n * parts), sizeof *sums);
  float *o = attn_alloc(output_floats(set) * sizeof *o);
  int rc = j && sums && o ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for outputs");
  for (int r = 0; rc == ICE_OK && r < rows->n; r++)
    j[r] = (judge){.row = rows->row + r, .watch = rows->watch, .no_keys = rows->no_keys, .sums = sums + r * parts, .layers = set->layers, .out_dir = out_dir, .o = o};
  for (int i = 0; rc == ICE_OK && i < set->n; i++) rc = judge_rows(rows, j, set->t + i, e);
  for (int r = 0; rc == ICE_OK && r < rows->n; r++) {
    if (rows->row[r].status != ATTN_OK || rows->row[r].reference) continue;
    quality *q = rows->row[r].quality = malloc((size_t)parts * sizeof *q);
    if (!q) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
    for (int part = 0; q && part < parts; part++) q[part] = quality_of(sums + r * parts + part);
  }
  attn_free(o);
  free(sums);
  free(j);
  return rc;
}
