/* report_pairs.c - see report_pairs.h */
#include "harness/report_pairs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/items.h"
#include "harness/registry/registry.h"
#include "harness/report_records.h"

enum { SEED = 1 }; /* of bootstrap and sign flips: the same database gives the same table */
static const double level = 0.05;

/* --- items of the rows ------------------------------------------------------------------------------------------------ */

static const char items_sql[] = "SELECT " ITEMS_COLUMNS("c.id") " FROM cell c WHERE c.id = CAST(?1 AS INTEGER) AND c.status = 'ok'";

int report_pairs_items(store *s, const report_rows *r, int row, items *out, ice_err *e) {
  const char *id = report_rows_text(r, row, "cell_id");
  report_rows found = {0};
  *out = (items){0};
  if (!id) return ICE_OK;
  int rc = report_rows_select(s, items_sql, &id, 1, &found, e);
  if (rc == ICE_OK && found.n) rc = items_read(report_rows_text(&found, 0, "predictions"), report_rows_text(&found, 0, "marks"), out, e);
  report_rows_free(&found);
  return rc;
}

/* --- pairs ------------------------------------------------------------------------------------------------------------ */

static int same(const report_rows *r, int a, int b, const char *column) {
  const char *x = report_rows_text(r, a, column), *y = report_rows_text(r, b, column);
  return !strcmp(x ? x : "", y ? y : "");
}
static int comparable(const report_rows *r, int a, int b) {
  return same(r, a, b, "seed") && same(r, a, b, "split") && same(r, a, b, "data_hash") && same(r, a, b, "model_hash");
}

typedef struct table_rows { /* rows [from, to) of the report with their items */
  const report_rows *r;
  int from, to;
  const items *of; /* [to - from] */
} table_rows;

/* What row `a` is compared with: `dense`, else `vanilla`, else the first row with items. *rows: how many rows are comparable with it. */
static int reference_of(const table_rows *t, int a, int *rows) {
  static const char *const wanted[] = {"dense", "vanilla"};
  int found[3] = {-1, -1, -1};
  *rows = 0;
  for (int i = t->from; i < t->to; i++) {
    if (!t->of[i - t->from].n || !comparable(t->r, a, i)) continue;
    ++*rows;
    if (found[2] < 0) found[2] = i;
    for (int w = 0; w < 2; w++)
      if (found[w] < 0 && !strcmp(report_rows_text(t->r, i, "method"), wanted[w])) found[w] = i;
  }
  return found[0] >= 0 ? found[0] : found[1] >= 0 ? found[1] : found[2];
}

static int add_pair(const table_rows *t, int a, int b, int to_reference, report_pairs *out, ice_err *e) {
  if (out->n == out->room) {
    report_pair *grown = realloc(out->pair, (size_t)(2 * out->room + 64) * sizeof *grown);
    if (!grown) return ice_fail(e, ICE_INTERNAL, "out of memory for pairs of rows");
    out->pair = grown, out->room = 2 * out->room + 64;
  }
  items_common c;
  ICE_TRY(items_match(t->of + a - t->from, t->of + b - t->from, &c, e));
  if (c.n)
    out->pair[out->n++] = (report_pair){.a = a, .b = b, .to_reference = to_reference, .hits = c.hits, .count = c.count,
                                        .difference = stats_difference_bootstrap(c.a, c.b, c.n, SEED),
                                        .p = c.hits ? stats_mcnemar(c.count) : stats_sign_flip(c.a, c.b, c.n, SEED),
                                        .detectable = c.hits ? stats_detectable_difference(c.count) : (double)NAN};
  items_common_free(&c);
  return ICE_OK;
}

static int is_exact(const report_rows *r, int row) {
  const attn_method *m = registry_methods[report_rows_rank(report_rows_text(r, row, "method"))];
  return m && (m->caps & ATTN_CAP_EXACT);
}

static int compare_rows(const table_rows *t, report_pairs *out, ice_err *e) {
  for (int a = t->from; a < t->to; a++) {
    int rows;
    if (!t->of[a - t->from].n) continue;
    const int reference = reference_of(t, a, &rows);
    if (a != reference) ICE_TRY(add_pair(t, a, reference, 1, out, e));
    if (rows > PAIRS_ALL || a == reference || is_exact(t->r, a)) continue;
    for (int b = t->from; b < a; b++)
      if (b != reference && t->of[b - t->from].n && !is_exact(t->r, b) && comparable(t->r, a, b)) ICE_TRY(add_pair(t, a, b, 0, out, e));
  }
  return ICE_OK;
}

static int adjust(report_pair *p, int n, ice_err *e) {
  double *all = malloc(((size_t)n + 1) * sizeof *all);
  if (!all) return ice_fail(e, ICE_INTERNAL, "out of memory for pairs of rows");
  for (int i = 0; i < n; i++) all[i] = p[i].p;
  stats_holm(all, (size_t)n);
  for (int i = 0; i < n; i++) p[i].adjusted = all[i];
  free(all);
  return ICE_OK;
}

static int compare_table(store *s, const report_rows *r, int from, int to, report_pairs *out, ice_err *e) {
  const int first = out->n;
  items *of = calloc((size_t)(to - from), sizeof *of);
  int rc = of ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for predictions");
  for (int i = from; rc == ICE_OK && i < to; i++) rc = report_pairs_items(s, r, i, of + i - from, e);
  if (rc == ICE_OK) rc = compare_rows(&(table_rows){r, from, to, of}, out, e);
  for (int i = from; of && i < to; i++) items_free(of + i - from);
  free(of);
  return rc == ICE_OK ? adjust(out->pair + first, out->n - first, e) : rc;
}

int report_pairs_read(store *s, const report_rows *r, report_pairs *out, ice_err *e) {
  *out = (report_pairs){0};
  for (int from = 0, to; from < r->n; from = to) {
    to = report_rows_group_end(r, from);
    ICE_TRY(compare_table(s, r, from, to, out, e));
  }
  return ICE_OK;
}

void report_pairs_free(report_pairs *p) {
  free(p->pair);
  *p = (report_pairs){0};
}

const char *report_pair_verdict(const report_pair *p) {
  if (p->count.only_a + p->count.only_b == 0) return "same marks";
  if (!(p->adjusted < level)) return "tie";
  return p->difference.value > 0 ? "better" : "worse";
}
static int is_tie(const report_pair *p) { return !(p->adjusted < level); }

/* --- for people ------------------------------------------------------------------------------------------------------- */

enum { METHOD, PARAMETERS, AGAINST, EXAMPLES, ONLY_A, ONLY_B, DIFFERENCE, P, ADJUSTED, DETECTABLE, VERDICT, COLUMNS };
_Static_assert((int)COLUMNS == (int)PAIRS_COLUMNS, "the legend has an entry for each column");
static const report_column column[COLUMNS] = {
    {"method", NULL, 'l', 0},
    {"parameters", NULL, 'l', 0},
    {"against", "the row it is compared with, on the examples that both were asked", 'l', 0},
    {"shared", "examples that both were asked", 'r', 0},
    {"only this", "examples on which this row is right and the other is not (has the higher mark)", 'r', 1},
    {"only other", "the other way round", 'r', 0},
    {"difference", "accuracy of this row minus that of the other, with the 95 % interval of a paired bootstrap", 'r', 0},
    {"p", "McNemar's exact test, two-sided; sign-flip test where marks are no hits", 'r', 0},
    {"p (Holm)", "p adjusted for the number of pairs in the table: of all that are called different, none is so by chance in 95 of 100 tables", 'r', 0},
    {"detectable", "difference that one such test would have shown with power 80 %", 'r', 0},
    {"verdict", "tie: p (Holm) is 5 % or more; better, worse: this row is; same marks: on every example", 'l', 0}};

/* "topk k=8"; owned by the caller. */
static char *name_of(const report_rows *r, int row) {
  char *params = report_rows_params(r, row), *out = NULL;
  if (!params || asprintf(&out, "%s%s%s", report_rows_text(r, row, "method"), *params ? " " : "", params) < 0) out = NULL;
  free(params);
  return out;
}

static void put_p(report_table *t, int row, int col, double p) {
  if (isfinite(p)) report_table_set(t, row, col, p < 1e-4 ? "%.0e" : "%.4f", p);
}

static void put_pair(report_table *t, int row, const report_rows *r, const report_pair *p) {
  char *params = report_rows_params(r, p->a), *other = name_of(r, p->b);
  t->failed |= !params || !other;
  t->row[row] = p->a, t->other[row] = p->b;
  report_table_set(t, row, METHOD, "%s", report_rows_text(r, p->a, "method"));
  if (params) report_table_set(t, row, PARAMETERS, "%s", params);
  if (other) report_table_set(t, row, AGAINST, "%s", other);
  report_table_set(t, row, EXAMPLES, "%lld", (long long)p->count.n);
  report_table_set(t, row, ONLY_A, "%lld", (long long)p->count.only_a);
  report_table_set(t, row, ONLY_B, "%lld", (long long)p->count.only_b);
  report_table_interval(t, row, DIFFERENCE, 4, '+', p->difference);
  put_p(t, row, P, p->p);
  put_p(t, row, ADJUSTED, p->adjusted);
  report_table_number(t, row, DETECTABLE, 4, p->detectable);
  report_table_set(t, row, VERDICT, "%s", report_pair_verdict(p));
  free(params);
  free(other);
}

/* Is the pair told by itself, or only counted? */
static int is_told(const report_pair *p, const report_options *o) { return o->format == REPORT_HTML || p->to_reference || !is_tie(p); }

static void print_above(const report_rows *r, const report_pair *p, int n, const report_options *o, FILE *f) {
  int ties = 0, untold = 0;
  char line[300];
  const char *experiment = report_rows_text(r, p->a, "experiment"), *task = report_rows_text(r, p->a, "task");
  (void)snprintf(line, sizeof line, "%.120s: %.100s, accuracy in pairs", experiment, task);
  report_heading(f, o->format, line);
  for (int i = 0; i < n; i++) ties += is_tie(p + i), untold += !is_told(p + i, o);
  (void)snprintf(line, sizeof line, "%d pair%s on the same examples: %d %s, %d tie%s.", n, n == 1 ? "" : "s", n - ties,
                 n - ties == 1 ? "differs" : "differ", ties, ties == 1 ? "" : "s");
  const size_t at = strlen(line);
  if (untold) (void)snprintf(line + at, sizeof line - at, " Not listed: %d tie%s of two rows neither of which is the reference (json and html have all).", untold, untold == 1 ? "" : "s");
  report_paragraph(f, o->format, line);
}

int report_pairs_print(const report_rows *r, const report_pairs *p, int from, int to, const report_options *o, int *used, FILE *f, ice_err *e) {
  int first = 0, last, told = 0;
  while (first < p->n && p->pair[first].a < from) first++;
  for (last = first; last < p->n && p->pair[last].a < to; last++) told += is_told(p->pair + last, o);
  if (first == last) return ICE_OK;
  report_table t;
  int rc = report_table_create(&t, column, COLUMNS, told, e);
  for (int i = first, row = 0; rc == ICE_OK && i < last; i++)
    if (is_told(p->pair + i, o)) put_pair(&t, row++, r, p->pair + i);
  if (rc == ICE_OK) print_above(r, p->pair + first, last - first, o, f);
  if (rc == ICE_OK) rc = report_table_print(&t, o->format, o->width, f, e);
  for (int c = 0; rc == ICE_OK && c < COLUMNS; c++) used[c] |= report_table_used(&t, c);
  report_table_free(&t);
  return rc;
}

void report_pairs_legend(const int used[PAIRS_COLUMNS], const report_options *o, FILE *f) {
  for (int c = AGAINST; c < COLUMNS; c++)
    if (used[c]) report_list_item(f, o->format, column[c].head, column[c].legend);
}

/* --- for programs ----------------------------------------------------------------------------------------------------- */

static json_t *pair_json(const report_rows *r, const report_pair *p) {
  const char *params = report_rows_text(r, p->b, "params");
  json_t *other = params ? json_loads(params, 0, NULL) : NULL;
  return json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:s}", "method", report_record_text(report_rows_text(r, p->b, "method")),
                   "params", other ? other : report_record_text(params ? params : ""), "cell_id",
                   json_integer((json_int_t)report_rows_value(r, p->b, "cell_id")), "examples", (json_int_t)p->count.n, "only_this",
                   (json_int_t)p->count.only_a, "only_other", (json_int_t)p->count.only_b, "difference", report_record_number(p->difference.value),
                   "difference_lo", report_record_number(p->difference.lo), "difference_hi", report_record_number(p->difference.hi), "test",
                   p->hits ? "mcnemar" : "sign-flip", "p", report_record_number(p->p), "p_holm", report_record_number(p->adjusted), "detectable",
                   report_record_number(p->detectable), "verdict", report_pair_verdict(p));
}

json_t *report_pairs_json(const report_rows *r, const report_pairs *p, int row) {
  json_t *all = json_array();
  for (int i = 0; i < p->n; i++)
    if (p->pair[i].a == row && json_array_append_new(all, pair_json(r, p->pair + i)) != 0) {
      json_decref(all);
      return NULL;
    }
  return all;
}
