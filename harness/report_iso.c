/* report_iso.c - see report_iso.h */
#include "harness/report_iso.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/items.h"
#include "harness/registry/registry.h"
#include "harness/report_pairs.h"
#include "harness/report_records.h"
#include "harness/report_rows.h"
#include "harness/report_table.h"
#include "harness/yaml.h"
#include "kernels/core/fileio.h"

static const char dev[] = "dev", test[] = "test";

typedef struct setting { /* a method with parameters on one split: its rows, one for each seed */
  int row;               /* the first; -1: there is none */
  int rows;
  int64_t examples;      /* judged, seeds together */
  stats_interval retention, vanilla, dense;
} setting;

typedef struct choice { /* of one method in one model */
  int row;              /* any of its rows on dev */
  int tried, kept;      /* settings, and those that keep enough */
  setting best;         /* the fastest of those; where there is none, the one that keeps most */
  setting proof;        /* it on the test split */
} choice;

typedef struct choices {
  choice *item;
  int n;
} choices;

/* ---- One setting. */

static const char *text(const report_rows *r, int row, const char *column) {
  const char *v = report_rows_text(r, row, column);
  return v ? v : "";
}
static int same(const report_rows *r, int a, int b, const char *column) { return !strcmp(text(r, a, column), text(r, b, column)); }
static int is_of(const report_rows *r, int row, const char *split) {
  return !strcmp(text(r, row, "split"), split) && !strcmp(text(r, row, "status"), "ok");
}

/* The row of exact attention that a row is judged by; -1: there is none. */
static int dense_of(const report_rows *r, int from, int to, int row) {
  for (int i = from; i < to; i++)
    if (!strcmp(text(r, i, "method"), "dense") && is_of(r, i, text(r, row, "split")) && same(r, i, row, "seed") && same(r, i, row, "data_hash") &&
        same(r, i, row, "model_hash") && same(r, i, row, "examples") && same(r, i, row, "length"))
      return i;
  return -1;
}

/* Marks of a setting and of dense on the same examples, pooled over seeds. */
typedef struct pool {
  double *a, *b;
  size_t n;
  int hits;
  int64_t both, only_a, only_b;
} pool;

static int pool_row(pool *p, store *s, const report_rows *r, int row, int dense, ice_err *e) {
  items own = {0}, exact = {0};
  items_common c = {0};
  int rc = report_pairs_items(s, r, row, &own, e);
  if (rc == ICE_OK) rc = report_pairs_items(s, r, dense, &exact, e);
  if (rc == ICE_OK) rc = items_match(&own, &exact, &c, e);
  double *a = rc == ICE_OK ? realloc(p->a, (p->n + c.n + 1) * sizeof *a) : NULL, *b = a ? realloc(p->b, (p->n + c.n + 1) * sizeof *b) : NULL;
  if (a) p->a = a;
  if (b) p->b = b;
  if (rc == ICE_OK && !b) rc = ice_fail(e, ICE_INTERNAL, "out of memory for %zu examples", c.n);
  for (size_t i = 0; rc == ICE_OK && i < c.n; i++) {
    p->a[p->n] = c.a[i], p->b[p->n++] = c.b[i];
    p->both += c.a[i] == 1.0 && c.b[i] == 1.0;
  }
  p->hits &= c.hits;
  p->only_a += c.count.only_a, p->only_b += c.count.only_b;
  items_common_free(&c);
  items_free(&own);
  items_free(&exact);
  return rc;
}

static void add_speed(stats_interval *sum, const report_rows *r, int row, const char *name, int rows) {
  char lo[40], hi[40];
  (void)snprintf(lo, sizeof lo, "%s_lo", name);
  (void)snprintf(hi, sizeof hi, "%s_hi", name);
  const stats_interval one = {report_rows_value(r, row, name), report_rows_value(r, row, lo), report_rows_value(r, row, hi)};
  if (!rows) *sum = one;
  else *sum = (stats_interval){(sum->value * rows + one.value) / (rows + 1), fmin(sum->lo, one.lo), fmax(sum->hi, one.hi)};
}

/* All rows of the table that have method and parameters of `row`, on this split. */
static int read_setting(store *s, const report_rows *r, int from, int to, int row, const char *split, setting *out, ice_err *e) {
  pool p = {.hits = 1};
  int rc = ICE_OK;
  *out = (setting){.row = -1, .retention = {NAN, NAN, NAN}};
  for (int i = from; rc == ICE_OK && i < to; i++) {
    if (!is_of(r, i, split) || !same(r, i, row, "method") || !same(r, i, row, "params")) continue;
    const int dense = dense_of(r, from, to, i);
    if (dense < 0) continue;
    if (out->row < 0) out->row = i;
    add_speed(&out->vanilla, r, i, "speedup_vanilla", out->rows);
    add_speed(&out->dense, r, i, "speedup_dense", out->rows);
    out->rows++;
    rc = pool_row(&p, s, r, i, dense, e);
  }
  out->examples = (int64_t)p.n;
  if (rc == ICE_OK && p.n) out->retention = p.hits ? stats_paired_ratio(p.both, p.only_a, p.only_b) : stats_retention_bootstrap(p.a, p.b, p.n, 1);
  free(p.a);
  free(p.b);
  return rc;
}

/* ---- The choice. */

static int approximate(const report_rows *r, int row) {
  const attn_method *m = registry_methods[report_rows_rank(text(r, row, "method"))];
  return !m || !(m->caps & ATTN_CAP_EXACT);
}

static double kept(const setting *x, const report_iso *iso) { return iso->lower ? x->retention.lo : x->retention.value; }

/* Is this setting a better choice? NANs never are. */
static int beats(const setting *x, const choice *c, const report_iso *iso) {
  const int keeps = kept(x, iso) >= iso->bound;
  if (c->best.row < 0) return 1;
  if (keeps != (c->kept > 0)) return keeps;
  return keeps ? x->dense.value > c->best.dense.value : kept(x, iso) > kept(&c->best, iso);
}

static int seen(const report_rows *r, int from, int row, const char *column) { /* a row before it on dev with the same method and column */
  for (int i = from; i < row; i++)
    if (is_of(r, i, dev) && same(r, i, row, "method") && same(r, i, row, column)) return 1;
  return 0;
}

static int choose(store *s, const report_rows *r, int from, int to, int row, const report_iso *iso, choice *out, ice_err *e) {
  setting one;
  *out = (choice){.row = row, .best = {.row = -1}, .proof = {.row = -1}};
  for (int i = row; i < to; i++) {
    if (!is_of(r, i, dev) || !same(r, i, row, "method") || seen(r, from, i, "params")) continue;
    ICE_TRY(read_setting(s, r, from, to, i, dev, &one, e));
    if (one.row < 0 || !isfinite(kept(&one, iso)) || !isfinite(one.dense.value)) continue;
    out->tried++;
    if (beats(&one, out, iso)) out->best = one;
    out->kept += kept(&one, iso) >= iso->bound;
  }
  return out->kept ? read_setting(s, r, from, to, out->best.row, test, &out->proof, e) : ICE_OK;
}

static int choose_all(store *s, const report_rows *r, const report_iso *iso, choices *out, ice_err *e) {
  out->item = calloc((size_t)r->n + 1, sizeof *out->item);
  if (!out->item) return ice_fail(e, ICE_INTERNAL, "out of memory for %d rows", r->n);
  for (int from = 0, to; from < r->n; from = to) {
    to = report_rows_group_end(r, from);
    for (int i = from; i < to; i++) {
      if (!is_of(r, i, dev) || !approximate(r, i) || seen(r, from, i, "method")) continue;
      ICE_TRY(choose(s, r, from, to, i, iso, out->item + out->n, e));
      out->n += out->item[out->n].tried > 0;
    }
  }
  return out->n ? ICE_OK
                : ice_fail(e, ICE_NO_VERDICT, "no rows of an approximate method on the dev split, with a row of dense to compare: icebench run FILE.yaml --set split=dev");
}

/* "confirmed": the whole interval of the test split keeps the bound; "kept": its estimate does. */
static const char *verdict(const choice *c, const report_iso *iso) {
  if (!c->kept) return "none";
  if (c->proof.row < 0 || !isfinite(c->proof.retention.value)) return "not on test";
  if (c->proof.retention.lo >= iso->bound) return "confirmed";
  return c->proof.retention.value >= iso->bound ? "kept" : "lost";
}

/* ---- For people. */

enum { METHOD, PARAMETERS, SETTINGS, D_RETENTION, D_DENSE, T_EXAMPLES, T_RETENTION, T_VANILLA, T_DENSE, VERDICT, COLUMNS };
static const report_column columns[COLUMNS] = {
    {"method", NULL, 'l', 0},
    {"parameters", "of the fastest setting that keeps enough on dev, those that differ from the defaults; where none does, of the one that keeps most", 'l', 0},
    {"settings", "that keep enough on dev, of those that were tried", 'r', 0},
    {"dev retention", "accuracy / accuracy of `dense` on the same examples of the dev split, on which the setting was chosen; 95 % interval", 'r', 0},
    {"dev x dense", "how many times faster than `dense` there", 'r', 0},
    {"examples", "of the test split, seeds together", 'r', 0},
    {"test retention", "the same on the test split, which had no part in the choice", 'r', 0},
    {"x vanilla", "how many times faster than `vanilla`, the paper's baseline, on the test split; 95 % interval", 'r', 1},
    {"x dense", "how many times faster than `dense`, the strongest exact attention here, on the test split; 95 % interval", 'r', 0},
    {"verdict", "confirmed: the whole interval on test keeps the bound; kept: its estimate does; lost: it does not; none: no setting kept it on dev", 'l', 0}};

static void fill(const report_rows *r, const choice *c, const report_iso *iso, report_table *t, int at) {
  char *params = report_rows_params(r, c->best.row);
  report_table_set(t, at, METHOD, "%s", text(r, c->row, "method"));
  report_table_set(t, at, PARAMETERS, "%s", params ? params : "");
  report_table_set(t, at, SETTINGS, "%d of %d", c->kept, c->tried);
  report_table_interval(t, at, D_RETENTION, 4, 0, c->best.retention);
  report_table_interval(t, at, D_DENSE, 2, 0, c->best.dense);
  if (c->proof.row >= 0) {
    report_table_set(t, at, T_EXAMPLES, "%lld", (long long)c->proof.examples);
    report_table_interval(t, at, T_RETENTION, 4, 0, c->proof.retention);
    report_table_interval(t, at, T_VANILLA, 2, 0, c->proof.vanilla);
    report_table_interval(t, at, T_DENSE, 2, 0, c->proof.dense);
  }
  report_table_set(t, at, VERDICT, "%s", verdict(c, iso));
  free(params);
}

static int in_one_table(const report_rows *r, const choice *a, const choice *b) { return report_rows_group_end(r, a->row) > b->row; }

static int print_tables(const report_rows *r, const choices *all, const report_options *o, const report_iso *iso, FILE *f, ice_err *e) {
  int used[COLUMNS] = {0}, rc = ICE_OK;
  report_document_start(f, o->format);
  for (int from = 0, to; rc == ICE_OK && from < all->n; from = to) {
    char line[400];
    report_table t;
    const int row = all->item[from].row;
    for (to = from + 1; to < all->n && in_one_table(r, all->item + from, all->item + to);) to++;
    (void)snprintf(line, sizeof line, "%.100s: %.200s, at least %g of the accuracy of dense", text(r, row, "experiment"), text(r, row, "model"), iso->bound);
    report_heading(f, o->format, line);
    rc = report_table_create(&t, columns, COLUMNS, to - from, e);
    for (int i = from; rc == ICE_OK && i < to; i++) fill(r, all->item + i, iso, &t, i - from);
    if (rc == ICE_OK) rc = report_table_print(&t, o->format, o->width, f, e);
    for (int c = 0; rc == ICE_OK && c < COLUMNS; c++) used[c] |= report_table_used(&t, c);
    report_table_free(&t);
  }
  if (rc != ICE_OK) return rc;
  report_list_start(f, o->format);
  for (int c = 0; c < COLUMNS; c++)
    if (used[c] && columns[c].legend) report_list_item(f, o->format, columns[c].head, columns[c].legend);
  report_list_item(f, o->format, "chosen by", iso->lower ? "the lower end of the interval of the dev retention" : "the estimate of the dev retention");
  report_list_end(f, o->format);
  report_document_end(f, o->format);
  return ICE_OK;
}

static void print_next_step(const report_rows *r, const choices *all, const report_options *o, const report_iso *iso, FILE *f) {
  int left = 0;
  char line[600];
  for (int i = 0; i < all->n; i++) left += !strcmp(verdict(all->item + i, iso), "not on test");
  if (!left) return;
  if (iso->out) (void)snprintf(line, sizeof line, "Not yet on test: icebench run %.400s", iso->out);
  else
    (void)snprintf(line, sizeof line, "Not yet on test: icebench report --experiment %.100s --iso-accuracy %g --out chosen.yaml, then icebench run chosen.yaml",
                   text(r, all->item[0].row, "experiment"), iso->bound);
  report_paragraph(f, o->format, line);
}

/* ---- For programs. */

static void put_interval(json_t *o, const char *name, stats_interval x) {
  char key[64];
  (void)json_object_set_new(o, name, report_record_number(x.value));
  (void)snprintf(key, sizeof key, "%s_lo", name);
  (void)json_object_set_new(o, key, report_record_number(x.lo));
  (void)snprintf(key, sizeof key, "%s_hi", name);
  (void)json_object_set_new(o, key, report_record_number(x.hi));
}

static json_t *record(const report_rows *r, const choice *c, const report_iso *iso) {
  static const setting none = {.row = -1, .retention = {NAN, NAN, NAN}, .vanilla = {NAN, NAN, NAN}, .dense = {NAN, NAN, NAN}};
  const setting *proof = c->proof.row >= 0 ? &c->proof : &none;
  json_t *o = json_object();
  static const char *const texts[] = {"experiment", "task", "model", "method"};
  for (int i = 0; i < 4; i++) (void)json_object_set_new(o, texts[i], report_record_text(text(r, c->row, texts[i])));
  (void)json_object_set_new(o, "params", json_loads(text(r, c->best.row, "params"), 0, NULL));
  (void)json_object_set_new(o, "bound", json_real(iso->bound));
  (void)json_object_set_new(o, "chosen_by", json_string(iso->lower ? "lower" : "estimate"));
  (void)json_object_set_new(o, "settings", json_integer(c->tried));
  (void)json_object_set_new(o, "settings_kept", json_integer(c->kept));
  put_interval(o, "dev_retention", c->best.retention);
  put_interval(o, "dev_speedup_vanilla", c->best.vanilla);
  put_interval(o, "dev_speedup_dense", c->best.dense);
  (void)json_object_set_new(o, "test_examples", proof->row >= 0 ? json_integer(proof->examples) : json_null());
  put_interval(o, "test_retention", proof->retention);
  put_interval(o, "test_speedup_vanilla", proof->vanilla);
  put_interval(o, "test_speedup_dense", proof->dense);
  (void)json_object_set_new(o, "verdict", json_string(verdict(c, iso)));
  return o;
}

static void print_csv(const json_t *all, FILE *f) {
  json_t *v;
  const char *key;
  for (size_t i = 0; i <= json_array_size(all); i++) { /* the head, then the records */
    const char *between = "";
    json_object_foreach(json_array_get(all, i ? i - 1 : 0), key, v) {
      char *plain = json_is_null(v) || json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
      (void)fputs(between, f);
      report_records_csv_field(f, !i ? key : json_is_string(v) ? json_string_value(v) : plain);
      between = ",";
      free(plain);
    }
    (void)fputc('\n', f);
  }
}

/* ---- The chosen settings as an experiment. */

/* A list of the distinct texts of a column over the choices that kept enough. */
static json_t *distinct(const report_rows *r, const choices *all, const char *column) {
  json_t *list = json_array();
  for (int i = 0; i < all->n; i++) {
    const char *v = text(r, all->item[i].row, column);
    size_t k = 0;
    while (k < json_array_size(list) && strcmp(json_string_value(json_array_get(list, k)), v)) k++;
    if (all->item[i].kept && k == json_array_size(list)) (void)json_array_append_new(list, json_string(v));
  }
  return list;
}

static void print_list(FILE *f, const char *key, json_t *list) {
  (void)fprintf(f, "%s: ", key);
  yaml_print(f, list);
  (void)fputc('\n', f);
  json_decref(list);
}

static int same_choice(const report_rows *r, const choice *a, const choice *b) {
  return same(r, a->row, b->row, "method") && same(r, a->row, b->row, "task") && same(r, a->row, b->row, "model") && same(r, a->best.row, b->best.row, "params");
}

static json_int_t configured(const json_t *config, const char *key, json_int_t otherwise) {
  const json_t *v = json_object_get(config, key);
  return json_is_integer(v) ? json_integer_value(v) : otherwise;
}

static void print_methods(const report_rows *r, const choices *all, FILE *f) {
  (void)fputs("methods:\n  - vanilla\n  - dense\n", f);
  for (int i = 0; i < all->n; i++) {
    const choice *c = all->item + i;
    int again = !c->kept;
    for (int k = 0; k < i && !again; k++) again = all->item[k].kept && same_choice(r, all->item + k, c);
    json_t *params = json_loads(text(r, c->best.row, "params"), 0, NULL);
    if (again || !params) {
      json_decref(params);
      continue;
    }
    (void)json_object_set_new(params, "when", json_pack("{s:s, s:s}", "task", text(r, c->row, "task"), "model", text(r, c->row, "model")));
    (void)fprintf(f, "  - %s: ", text(r, c->row, "method"));
    yaml_print(f, params);
    (void)fputc('\n', f);
    json_decref(params);
  }
}

/* The configuration of a row, as it is stored beside it. */
static int read_config(store *s, const report_rows *r, int row, json_t **config, ice_err *e) {
  report_rows found;
  const char *id = text(r, row, "cell_id");
  int rc = report_rows_select(s, "SELECT config FROM cell WHERE id = CAST(?1 AS INTEGER)", &id, 1, &found, e);
  *config = rc == ICE_OK && found.n ? json_loads(text(&found, 0, "config"), 0, NULL) : NULL;
  report_rows_free(&found);
  return rc;
}

static int write_file(store *s, const report_rows *r, const choices *all, const report_iso *iso, ice_err *e) {
  file_out out;
  json_t *config, *seeds = json_array();
  const int row = all->item[0].row;
  ICE_TRY(read_config(s, r, row, &config, e));
  ICE_TRY(file_out_open(&out, iso->out, e));
  FILE *f = out.stream;
  (void)fprintf(f, "# Written by icebench report --iso-accuracy %g: what was chosen on the dev split, to be confirmed on test.\n", iso->bound);
  (void)fprintf(f, "name: %s\nsplit: test\n", text(r, row, "experiment"));
  print_list(f, "task", distinct(r, all, "task"));
  print_list(f, "model", distinct(r, all, "model"));
  for (int i = 0; i < r->n; i++) { /* seeds are numbers, which texts in a list would not be */
    int again = !is_of(r, i, dev);
    for (int k = 0; k < i && !again; k++) again = is_of(r, k, dev) && same(r, i, k, "seed");
    if (!again) (void)json_array_append_new(seeds, json_integer((json_int_t)report_rows_value(r, i, "seed")));
  }
  print_list(f, "seeds", seeds);
  if (configured(config, "examples", 0) > 0) (void)fprintf(f, "examples: %lld\n", (long long)configured(config, "examples", 0));
  (void)fprintf(f, "threads: %s\n", text(r, row, "threads"));
  print_methods(r, all, f);
  (void)fprintf(f, "measure: {rounds: %lld, warmup: %lld, inputs: %lld}\n", (long long)configured(config, "rounds", 9),
                (long long)configured(config, "warmup", 1), (long long)configured(config, "inputs", 16));
  json_decref(config);
  return file_out_commit(&out, e);
}

/* ---- All of it. */

static int print(const report_rows *r, const choices *all, const report_options *o, const report_iso *iso, FILE *f, ice_err *e) {
  if (o->format != REPORT_CSV && o->format != REPORT_JSON) {
    ICE_TRY(print_tables(r, all, o, iso, f, e));
    print_next_step(r, all, o, iso, f);
    return ICE_OK;
  }
  json_t *list = json_array();
  for (int i = 0; i < all->n; i++) (void)json_array_append_new(list, record(r, all->item + i, iso));
  int rc = json_array_size(list) == (size_t)all->n ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for the report");
  if (rc == ICE_OK && o->format == REPORT_CSV) print_csv(list, f);
  else if (rc == ICE_OK) {
    (void)json_dumpf(list, f, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
    (void)fputc('\n', f);
  }
  json_decref(list);
  return rc;
}

int report_iso_write(store *s, const report_options *o, const report_iso *iso, FILE *f, ice_err *e) {
  report_rows r;
  choices all = {0};
  int kept_any = 0;
  int rc = report_rows_read(s, o->experiment, &r, e);
  if (rc == ICE_OK) rc = choose_all(s, &r, iso, &all, e);
  for (int i = 0; rc == ICE_OK && i < all.n; i++) kept_any |= all.item[i].kept > 0;
  if (rc == ICE_OK && iso->out && kept_any) rc = write_file(s, &r, &all, iso, e);
  if (rc == ICE_OK) rc = print(&r, &all, o, iso, f, e);
  free(all.item);
  report_rows_free(&r);
  return rc;
}
