/* quality.c - see quality.h. Rows are independent: they are cut among threads, and their numbers are summed in row
 * order afterwards, so that the last digit does not depend on the threads either. */
#include "harness/quality.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"
#include "kernels/core/finite.h"
#include "kernels/core/status.h"
#include "kernels/core/visible.h"
#include "kernels/micro/micro.h"

static void find_kept(quality_ref *r) {
  const measure_inputs *in = r->in;
  const attn_problem *pb = &in->pb;
  for (int64_t ib = 0; ib < pb->b; ib++) {
    const int32_t *keep = r->keep + ib * pb->nk;
    r->kept[ib] = (int32_t)attn_keep(in->kmask ? in->kmask + ib * pb->nk : NULL, pb->nk, r->keep + ib * pb->nk);
    for (int64_t ih = 0; ih < pb->hkv; ih++) {
      double most = 0.0;
      for (int32_t j = 0; j < r->kept[ib]; j++) {
        const float *key = in->k.p + ib * in->k.sb + ih * in->k.sh + keep[j] * in->k.sn;
        double sum = 0.0;
        for (int64_t t = 0; t < pb->d; t++) sum += (double)key[t] * (double)key[t];
        if (sum > most) most = sum;
      }
      r->longest[ib * pb->hkv + ih] = sqrt(most);
    }
  }
}

static int run_dense(quality_ref *r, ice_err *e) {
  const attn_problem *pb = &r->in->pb;
  const attn_method *dense = registry_find("dense", e);
  if (!dense) return e ? e->code : ICE_INTERNAL;
  attn_stats st = {.lse = r->lse};
  const attn_status status = measure_method_once(dense, NULL, r->in, measure_dense_view(r->out, pb->h, pb->nq, pb->dv), &st, NULL);
  if (status == ATTN_OK) return ICE_OK;
  return ice_fail(e, ICE_INTERNAL, "reference: dense: %s (%s)", attn_last_error(), attn_status_text(status));
}

int quality_ref_create(quality_ref *r, const measure_inputs *in, ice_err *e) {
  const attn_problem *pb = &in->pb;
  const size_t rows = (size_t)(pb->b * pb->h * pb->nq), keys = (size_t)(pb->b * pb->nk);
  *r = (quality_ref){.in = in};
  r->out = attn_alloc(rows * (size_t)pb->dv * sizeof(float));
  r->lse = attn_alloc(rows * sizeof(float));
  r->keep = attn_alloc(keys * sizeof(int32_t));
  r->kept = attn_alloc((size_t)pb->b * sizeof(int32_t));
  r->longest = attn_alloc((size_t)(pb->b * pb->hkv) * sizeof(double));
  int rc = r->out && r->lse && r->keep && r->kept && r->longest
               ? run_dense(r, e)
               : ice_fail(e, ICE_INTERNAL, "out of memory for the exact outputs of %zu rows", rows);
  if (rc == ICE_OK)
    find_kept(r);
  else
    quality_ref_destroy(r);
  return rc;
}

void quality_ref_destroy(quality_ref *r) {
  attn_free(r->out);
  attn_free(r->lse);
  attn_free(r->keep);
  attn_free(r->kept);
  attn_free(r->longest);
  *r = (quality_ref){0};
}

attn_view quality_ref_out(const quality_ref *r) {
  const attn_problem *pb = &r->in->pb;
  return measure_const_view(measure_dense_view(r->out, pb->h, pb->nq, pb->dv));
}

int quality_keys_create(quality_keys *s, const attn_problem *pb, ice_err *e) {
  const size_t rows = (size_t)(pb->b * pb->h * pb->nq);
  *s = (quality_keys){.b = pb->b, .h = pb->h, .nq = pb->nq};
  s->row = calloc(rows + 1, sizeof *s->row);
  s->count = calloc(rows + 1, sizeof *s->count);
  s->missing = malloc((rows + 1) * sizeof *s->missing);
  for (size_t i = 0; s->missing && i < rows; i++) s->missing[i] = -1.0f;
  if (s->row && s->count && s->missing) return ICE_OK;
  quality_keys_destroy(s);
  return ice_fail(e, ICE_INTERNAL, "out of memory for the key sets of %zu rows", rows);
}

void quality_keys_destroy(quality_keys *s) {
  for (int64_t i = 0; s->row && i < s->b * s->h * s->nq; i++) free(s->row[i]);
  free(s->row);
  free(s->count);
  free(s->missing);
  s->missing = NULL;
  s->row = NULL;
  s->count = NULL;
}

void quality_on_keys(void *ctx, int64_t ib, int64_t ih, int64_t iq, const int32_t *keys, int64_t count) {
  quality_keys *s = ctx;
  if (ib < 0 || ib >= s->b || ih < 0 || ih >= s->h || iq < 0 || iq >= s->nq || count < 0 || count > INT32_MAX) {
    s->bad = 1;
    return;
  }
  if (!count) return;
  int64_t i = (ib * s->h + ih) * s->nq + iq, had = s->count[i];
  int32_t *row = had + count <= INT32_MAX ? realloc(s->row[i], (size_t)(had + count) * sizeof *row) : NULL;
  if (!row) {
    s->bad = 1;
    return;
  }
  memcpy(row + had, keys, (size_t)count * sizeof *row);
  s->row[i] = row;
  s->count[i] = (int32_t)(had + count);
}

/* The k-th largest of n values, 1 <= k <= n; x is reordered, the k largest come first. Three-way quickselect: equal values cost nothing. */
static float kth_largest(float *x, int64_t n, int64_t k) {
  int64_t lo = 0, hi = n; /* the answer is in x[lo, hi) */
  for (;;) {
    float a = x[lo], b = x[lo + (hi - lo) / 2], c = x[hi - 1];
    float pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
    int64_t more = lo, less = hi, i = lo; /* [lo, more) > pivot, [more, i) = pivot, [less, hi) < pivot */
    while (i < less) {
      float v = x[i];
      if (v > pivot) {
        x[i++] = x[more];
        x[more++] = v;
      } else if (v < pivot) {
        x[i] = x[--less];
        x[less] = v;
      } else
        i++;
    }
    if (k <= more)
      hi = more;
    else if (k > less)
      lo = less;
    else
      return pivot;
  }
}

static int by_id(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

/* One row of the comparison. */
typedef struct row_result {
  double diff2, ref2, mass, recall, best;
  int visible; /* 1: it sees a key */
  int broken;  /* 1: it leaves out more mass than was said */
} row_result;

/* Mass and recall of one row's keys; returns 0 when the set is impossible. scores [nk] is working memory. */
static int judge_row(const quality_ref *r, int64_t ib, int64_t ih, int64_t iq, int32_t *keys, int64_t count, int64_t k,
                     float *scores, row_result *out) {
  const attn_micro *mk = attn_micro_get();
  const measure_inputs *in = r->in;
  const attn_problem *pb = &in->pb;
  const int64_t kv = ih / (pb->h / pb->hkv);
  const int32_t *keep = r->keep + ib * pb->nk;
  const int64_t visible = attn_prefix(pb, keep, r->kept[ib], iq);
  const float *q = in->q.p + ib * in->q.sb + ih * in->q.sh + iq * in->q.sn;
  const float *key0 = in->k.p + ib * in->k.sb + kv * in->k.sh;
  const float lse = r->lse[(ib * pb->h + ih) * pb->nq + iq];
  out->visible = visible > 0;
  if (!visible) return count == 0;
  const int32_t last = keep[visible - 1]; /* visible = kept and not after this one */
  if (count > 1) qsort(keys, (size_t)count, sizeof *keys, by_id);
  for (int64_t i = 0; i < count; i++)
    if (keys[i] < 0 || keys[i] > last || (i > 0 && keys[i] == keys[i - 1]) ||
        (in->kmask && !in->kmask[ib * pb->nk + keys[i]]))
      return 0;
  int64_t best = k ? k : count;
  if (best > visible) best = visible;
  double q2 = 0.0;
  for (int64_t t = 0; t < pb->d; t++) q2 += (double)q[t] * (double)q[t];
  const double rounding = (double)pb->d * (double)FLT_EPSILON * sqrt(q2) * r->longest[ib * pb->hkv + kv];
  double least = -INFINITY;
  if (best > 0 && best < visible) {
    for (int64_t j = 0; j < visible; j++) scores[j] = mk->dot(pb->d, q, key0 + keep[j] * in->k.sn);
    least = (double)kth_largest(scores, visible, best) - rounding;
    for (int64_t i = 0; i < best; i++) out->best += exp((double)pb->scale * (double)scores[i] - (double)lse); /* now the largest ones */
  }
  if (best == visible || out->best > 1.0) out->best = 1.0;
  double mass = 0.0;
  int64_t hits = 0;
  for (int64_t i = 0; i < count; i++) {
    double score = (double)mk->dot(pb->d, q, key0 + keys[i] * in->k.sn);
    mass += exp((double)pb->scale * score - (double)lse);
    hits += score >= least;
  }
  out->mass = mass < 1.0 ? mass : 1.0;
  out->recall = best > 0 ? (double)(hits < best ? hits : best) / (double)best : 0.0;
  return 1;
}

static void compare_row(const quality_ref *r, attn_view out, int64_t ib, int64_t ih, int64_t iq, row_result *res) {
  const attn_problem *pb = &r->in->pb;
  const float *exact = r->out + ((ib * pb->h + ih) * pb->nq + iq) * pb->dv;
  const float *mine = out.p + ib * out.sb + ih * out.sh + iq * out.sn;
  for (int64_t t = 0; t < pb->dv; t++) {
    double d = (double)mine[t] - (double)exact[t];
    res->diff2 += d * d;
    res->ref2 += (double)exact[t] * (double)exact[t];
  }
}

/* NaN or infinity: the place of the first. */
static int check_finite(const attn_problem *pb, attn_view o, const char *whose, ice_err *e) {
  for (int64_t i = 0; i < pb->b * pb->h * pb->nq; i++) {
    const int64_t iq = i % pb->nq, ih = i / pb->nq % pb->h, ib = i / pb->nq / pb->h;
    if (!attn_all_finite(pb->dv, o.p + ib * o.sb + ih * o.sh + iq * o.sn))
      return ice_fail(e, ICE_INTERNAL, "%s output is not finite at batch %lld, head %lld, row %lld (%s)", whose, (long long)ib,
                      (long long)ih, (long long)iq, attn_status_text(ATTN_ERR_NUMERIC));
  }
  return ICE_OK;
}

int quality_add(quality_sums *s, const quality_ref *ref, attn_view out, quality_keys *keys, int64_t k, ice_err *e) {
  const attn_problem *pb = &ref->in->pb;
  ICE_TRY(check_finite(pb, out, "its", e));
  ICE_TRY(check_finite(pb, quality_ref_out(ref), "nothing to compare with: the exact", e));
  const int64_t rows = pb->b * pb->h * pb->nq;
  row_result *res = calloc((size_t)rows + 1, sizeof *res);
  int bad = keys ? keys->bad : 0, starved = !res;
#pragma omp parallel num_threads(pb->threads) reduction(| : bad, starved) if (!starved)
  {
    float *scores = malloc((size_t)(pb->nk + 1) * sizeof *scores);
    if (!scores) starved = 1;
#pragma omp for schedule(dynamic, 64)
    for (int64_t i = 0; i < rows; i++) {
      int64_t iq = i % pb->nq, ih = i / pb->nq % pb->h, ib = i / pb->nq / pb->h;
      if (!res || !scores) continue;
      compare_row(ref, out, ib, ih, iq, res + i);
      if (keys && !judge_row(ref, ib, ih, iq, keys->row[i], keys->count[i], k, scores, res + i)) bad = 1;
      /* 1e-4: what the rounding of scores and of their log-sum-exp does to a mass. */
      if (keys && keys->missing[i] >= 0.0f && res[i].visible)
        res[i].broken = 1.0 - res[i].mass > (double)keys->missing[i] + 1e-4;
    }
    free(scores);
  }
  if (starved || bad) {
    free(res);
    return starved ? ice_fail(e, ICE_INTERNAL, "out of memory for the comparison of %lld rows", (long long)rows)
                   : ice_fail(e, ICE_INTERNAL,
                              "the method reported a key that is out of range, not visible, or reported "
                              "twice for one row");
  }
  for (int64_t i = 0; i < rows; i++)
    if (res[i].broken) {
      const double left = 1.0 - res[i].mass, said = (double)keys->missing[i];
      free(res);
      return ice_fail(e, ICE_INTERNAL, "row %lld leaves out %.6g of the mass, the method said at most %.6g", (long long)i, left, said);
    }
  for (int64_t i = 0; i < rows; i++) {
    s->l2 += sqrt(res[i].diff2);
    s->diff2 += res[i].diff2;
    s->ref2 += res[i].ref2;
    if (!keys || !res[i].visible) continue;
    s->mass += res[i].mass;
    s->recall += res[i].recall;
    s->best += res[i].best;
    s->keys += keys->count[i];
    s->set_rows++;
    if (keys->missing[i] < 0.0f) continue;
    s->bound += 1.0 - (double)keys->missing[i];
    s->bound_rows++;
  }
  s->rows += rows;
  free(res);
  return ICE_OK;
}

void quality_merge(quality_sums *to, const quality_sums *from) {
  to->l2 += from->l2;
  to->diff2 += from->diff2;
  to->ref2 += from->ref2;
  to->mass += from->mass;
  to->recall += from->recall;
  to->best += from->best;
  to->keys += from->keys;
  to->rows += from->rows;
  to->set_rows += from->set_rows;
  to->bound += from->bound;
  to->bound_rows += from->bound_rows;
}

quality quality_of(const quality_sums *s) {
  quality q = {NAN, NAN, NAN, NAN, NAN};
  if (s->rows) q.l2_error = s->l2 / (double)s->rows;
  if (s->ref2 > 0.0) q.rel_l2_error = sqrt(s->diff2 / s->ref2);
  if (s->set_rows) {
    q.mass = s->mass / (double)s->set_rows;
    q.recall = s->recall / (double)s->set_rows;
  }
  if (s->bound_rows) q.mass_bound = s->bound / (double)s->bound_rows;
  return q;
}

int64_t quality_k(const attn_method *m, const void *params) {
  for (const attn_param *p = m->params; p && p->key; p++)
    if (!strcmp(p->key, "k") && p->type == ATTN_P_INT) {
      int64_t k;
      memcpy(&k, (const char *)params + p->offset, sizeof k);
      return k > 0 ? k : 0;
    }
  return 0;
}
