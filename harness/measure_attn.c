/* measure_attn.c - rows on tensors: timed together, then judged one by one. See measure_rows.h */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/measure_rows.h"
#include "harness/npy.h"
#include "kernels/core/alloc.h"
#include "kernels/core/fileio.h"
#include "kernels/core/status.h"

static void set_status(measure_row *row, attn_status status, const char *reason) {
  row->status = status;
  row->column = -1;
  (void)snprintf(row->reason, sizeof row->reason, "%s", reason);
}

/* ---- Timing. */

typedef struct group { /* neighbouring rows that share a build */
  int first, count;
  measure_method mm;
  measure_bench bench;
} group;

static int same_build(const measure_row *a, const measure_row *b) {
  if (a->method != b->method) return 0;
  for (const attn_param *p = a->method->params; p && p->key; p++)
    if (!p->late && memcmp((char *)a->params + p->offset, (char *)b->params + p->offset, 8) != 0) return 0;
  return 1;
}

/* Cuts the rows into groups. A row that its method refuses gets its status now and stays out. */
static int make_groups(measure_rows *rows, const measure_inputs *in, group *g) {
  int n = 0;
  for (int r = 0; r < rows->n; r++) {
    measure_row *row = rows->row + r;
    attn_status status = attn_check(row->method, &in->pb, row->params);
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
static int open_group(measure_rows *rows, const measure_inputs *in, attn_viewm out, group *g) {
  measure_row *row = rows->row + g->first;
  attn_status status = measure_method_open(&g->mm, row->method, rows->params + g->first, g->count, in);
  measure_cost *cost = calloc((size_t)g->count, sizeof *cost);
  if (status == ATTN_OK && !cost) status = attn_fail(ATTN_ERR_NOMEM, "%s: no memory for timings", row->method->name);
  for (int i = 0; status != ATTN_OK && i < g->count; i++) set_status(row + i, status, attn_last_error());
  g->bench = (measure_bench){.mm = &g->mm, .in = in, .out = out, .cost = cost};
  return status == ATTN_OK;
}

static void finish_group(measure_rows *rows, const group *g, const measure_entrant *en) {
  for (int v = 0; v < g->count; v++) {
    measure_row *row = rows->row + g->first + v;
    if (en->rc == ICE_OK)
      row->cost = g->bench.cost[v];
    else
      set_status(row, g->bench.status, en->err.text);
  }
}

int measure_rows_time(measure_rows *rows, const measure_tensors *t, const measure_plan *plan, measure_result *out,
                      ice_err *e) {
  const attn_problem *pb = &t->in.pb;
  group *g = calloc((size_t)rows->n, sizeof *g);
  measure_entrant *entrant = calloc((size_t)rows->n, sizeof *entrant);
  group **of = calloc((size_t)rows->n, sizeof *of); /* the group of an entrant */
  float *o = attn_alloc((size_t)(pb->b * pb->h * pb->nq * pb->dv) * sizeof *o);
  int rc = g && entrant && of && o ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for outputs"), live = 0,
      columns = 0;
  int n = rc == ICE_OK ? make_groups(rows, &t->in, g) : 0;
  for (int i = 0; i < n; i++) {
    if (!open_group(rows, &t->in, measure_dense_view(o, pb->h, pb->nq, pb->dv), g + i)) continue;
    for (int v = 0; v < g[i].count; v++) rows->row[g[i].first + v].column = columns++;
    of[live] = g + i;
    entrant[live++] = (measure_entrant){.variants = g[i].count, .pass = measure_bench_pass, .ctx = &g[i].bench};
  }
  if (rc == ICE_OK) rc = measure_run(entrant, live, plan, out, e);
  for (int i = 0; rc == ICE_OK && i < live; i++) finish_group(rows, of[i], entrant + i);
  for (int i = 0; i < n; i++) {
    measure_method_close(&g[i].mm);
    free(g[i].bench.cost);
  }
  free(g);
  free(entrant);
  free(of);
  attn_free(o);
  return rc;
}

static int column_of(const measure_rows *rows, const char *name) {
  for (int r = 0; r < rows->n; r++)
    if (!strcmp(rows->row[r].method->name, name) && rows->row[r].column >= 0) return rows->row[r].column;
  return -1;
}

measure_columns measure_rows_columns(const measure_rows *rows, const measure_row *row) {
  return (measure_columns){row->column, column_of(rows, "vanilla"), column_of(rows, "dense")};
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

/* One pass of a row outside the clock: its output against exact attention, its keys against the best. */
static int judge_row(measure_row *row, const measure_tensors *t, const quality_ref *ref, float *o, const char *out_dir,
                     ice_err *e) {
  const attn_problem *pb = &t->in.pb;
  const attn_viewm view = measure_dense_view(o, pb->h, pb->nq, pb->dv);
  const void *params = row->params;
  const int set = (row->method->caps & ATTN_CAP_KEYSET) != 0;
  quality_keys keys;
  quality_sums sums = {0};
  measure_method mm;
  ICE_TRY(quality_keys_create(&keys, pb, e));
  attn_stats st = {.on_keys = set ? quality_on_keys : NULL, .ctx = &keys};
  attn_status status = measure_method_open(&mm, row->method, &params, 1, &t->in);
  if (status == ATTN_OK) {
    status = measure_method_pass(&mm, &t->in, 0, view, &st, NULL);
    measure_method_close(&mm);
  }
  if (status != ATTN_OK) set_status(row, status, attn_last_error());
  int rc = ICE_OK;
  ice_err wrong = {0};
  if (status == ATTN_OK) {
    rc = quality_add(&sums, ref, measure_const_view(view), set ? &keys : NULL, quality_k(row->method, row->params),
                     &wrong);
    row->quality = quality_of(&sums);
    if (rc != ICE_OK) set_status(row, ATTN_ERR_NUMERIC, wrong.text);
    rc = rc == ICE_OK && out_dir ? write_row(row, pb, out_dir, o, set ? &keys : NULL, e) : ICE_OK;
  }
  quality_keys_destroy(&keys);
  return rc;
}

int measure_rows_judge(measure_rows *rows, const measure_tensors *t, const char *out_dir, ice_err *e) {
  const attn_problem *pb = &t->in.pb;
  quality_ref ref;
  if (out_dir) ICE_TRY(file_make_dirs(out_dir, e));
  ICE_TRY(quality_ref_create(&ref, &t->in, e));
  float *o = attn_alloc((size_t)(pb->b * pb->h * pb->nq * pb->dv) * sizeof *o);
  int rc = o ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for outputs");
  for (int r = 0; rc == ICE_OK && r < rows->n; r++)
    if (rows->row[r].status == ATTN_OK && !rows->row[r].reference)
      rc = judge_row(rows->row + r, t, &ref, o, out_dir, e);
  attn_free(o);
  quality_ref_destroy(&ref);
  return rc;
}
