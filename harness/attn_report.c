/* attn_report.c - see attn_report.h */
#include "harness/attn_report.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness/machine.h"
#include "kernels/micro/micro.h"

/* ---- A row in numbers; part 0: all of it, 1 + l: layer l of a tape. */

static const char *status_of(const measure_row *row) {
  return row->status == ATTN_OK                ? "ok"
         : row->status == ATTN_ERR_UNSUPPORTED ? "unsupported"
         : row->status == ATTN_ERR_NOMEM       ? "oom"
                                               : "failed";
}

static void metrics_of(const attn_report *r, const measure_row *row, int part, store_metric *out) {
  const int ok = row->status == ATTN_OK;
  measure_metrics(r->result, measure_rows_columns(r->rows, row, part), r->seed, ok ? row->cost + part : NULL,
                  ok && row->quality ? row->quality + part : NULL, out);
}

static const store_metric *find(const store_metric *m, const char *name) {
  while (strcmp(m->name, name)) m++;
  return m;
}

/* ---- JSON. */

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *whole(double x) { return isfinite(x) ? json_integer((json_int_t)llround(x)) : json_null(); }

static int in_ns(const char *name) {
  size_t n = strlen(name);
  return n > 3 && !strcmp(name + n - 3, "_ns");
}

static json_t *json_samples(const attn_report *r, const measure_row *row) {
  json_t *list = json_array();
  for (int i = 0; row->column >= 0 && i < r->result->rounds; i++)
    (void)json_array_append_new(list, json_integer(measure_sample(r->result, row->column, i)->ns[MEASURE_ATTENTION]));
  return list;
}

/* Numbers of a row into an object, under the names of the database. */
static void add_metrics(const attn_report *r, const measure_row *row, int part, json_t *o) {
  store_metric metric[MEASURE_METRICS];
  char name[64];
  metrics_of(r, row, part, metric);
  for (const store_metric *m = metric; m < metric + MEASURE_METRICS; m++) {
    const int exact = !strcmp(m->name, "pairs") || !strcmp(m->name, "peak_bytes") || !strcmp(m->name, "bytes_touched") || !strcmp(m->name, "rounds");
    (void)json_object_set_new(o, m->name, exact ? whole(m->value) : number(m->value));
    if (!in_ns(m->name) && strncmp(m->name, "speedup", 7)) continue;
    (void)snprintf(name, sizeof name, "%s_lo", m->name);
    (void)json_object_set_new(o, name, number(m->lo));
    (void)snprintf(name, sizeof name, "%s_hi", m->name);
    (void)json_object_set_new(o, name, number(m->hi));
  }
}

static json_t *json_layers(const attn_report *r, const measure_row *row) {
  json_t *list = json_array();
  for (int l = 0; l < r->set->layers; l++) {
    json_t *o = json_pack("{s:i}", "layer", l);
    add_metrics(r, row, 1 + l, o);
    (void)json_array_append_new(list, o);
  }
  return list;
}

/* ---- Limits of the machine. */

static roofline_share share_of(const attn_report *r, const measure_row *row) {
  store_metric metric[MEASURE_METRICS];
  metrics_of(r, row, 0, metric);
  return roofline_of(r->roof + 1, r->set, row->cost->pairs, find(metric, "attention_ns")->value);
}

static json_t *json_share(const attn_report *r, const measure_row *row) {
  if (row->status != ATTN_OK) return json_null();
  const roofline_share s = share_of(r, row);
  return json_pack("{s:o, s:o, s:o, s:o, s:s, s:o, s:o}", "flops", number(s.flops), "bytes_at_least", number(s.bytes),
                   "gflops", number(s.rate * 1e-9), "limit_gflops", number(s.limit * 1e-9), "bound",
                   s.memory_bound ? "memory" : "compute", "share", number(s.share), "share_of_sgemm",
                   number(s.share_of_sgemm));
}

static json_t *json_roof(const roofline *f) {
  return json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I}", "threads", f->threads, "fma_gflops",
                   number(f->fma * 1e-9), "sgemm_gflops", number(f->sgemm * 1e-9), "copy_gbytes", number(f->copy * 1e-9),
                   "update_gbytes", number(f->update * 1e-9), "l2_copy_gbytes", number(f->l2_copy * 1e-9),
                   "l2_update_gbytes", number(f->l2_update * 1e-9), "memory_bytes", (json_int_t)f->memory_bytes,
                   "l2_bytes", (json_int_t)f->l2_bytes);
}

static void print_shares(const attn_report *r) {
  (void)printf("\n%-9s%12s%12s%14s%14s%14s%14s\n", "threads", "FMA", "sgemm", "memory copy", "y += a x", "L2 copy",
               "L2 y += a x");
  for (int i = 0; i < 2; i++)
    (void)printf("%-9d%8.0f GF/s%7.0f GF/s%9.1f GB/s%9.1f GB/s%9.1f GB/s%9.1f GB/s\n", r->roof[i].threads,
                 r->roof[i].fma * 1e-9, r->roof[i].sgemm * 1e-9, r->roof[i].copy * 1e-9, r->roof[i].update * 1e-9,
                 r->roof[i].l2_copy * 1e-9, r->roof[i].l2_update * 1e-9);
  (void)printf("\n%-14s%-28s%10s%12s%12s%12s%9s%8s%10s\n", "method", "parameters", "GFLOP", "MB at least", "GFLOP/s",
               "limit", "bound", "share", "of sgemm");
  for (int i = 0; i < r->rows->n; i++) {
    const measure_row *row = r->rows->row + i;
    char brief[256];
    if (row->reference || row->status != ATTN_OK) continue;
    const roofline_share s = share_of(r, row);
    measure_brief(row->method, row->params, NULL, brief, sizeof brief);
    (void)printf("%-14s%-28.27s%10.3f%12.2f%12.1f%12.1f%9s%8.3f%10.3f\n", row->method->name, brief, s.flops * 1e-9,
                 s.bytes * 1e-6, s.rate * 1e-9, s.limit * 1e-9, s.memory_bound ? "memory" : "compute", s.share,
                 s.share_of_sgemm);
  }
  (void)printf("\nGFLOP: 2 d + 2 dv for each q.k product evaluated, nothing for softmax, search and building; share: of "
               "max(flops / FMA, bytes / memory)\n");
}

/* Why a row failed; of a good one, why it has no speed-up. NULL: nothing to say. `text` is room for it. */
static const char *reason_of(const attn_report *r, const measure_row *row, char text[MEASURE_REASON]) {
  if (row->status != ATTN_OK) return row->reason;
  *text = '\0';
  measure_rows_explain(r->rows, text, MEASURE_REASON);
  return *text ? text : NULL;
}

static json_t *json_row(const attn_report *r, const measure_row *row) {
  char text[MEASURE_REASON];
  const char *reason = reason_of(r, row, text);
  json_t *o = json_object();
  (void)json_object_set_new(o, "method", json_string(row->method->name));
  (void)json_object_set_new(o, "version", json_string(row->method->version));
  (void)json_object_set_new(o, "params", json_loads(row->json, 0, NULL));
  (void)json_object_set_new(o, "status", json_string(status_of(row)));
  (void)json_object_set_new(o, "reason", reason ? json_string(reason) : json_null());
  (void)json_object_set_new(o, "path", row->cost && row->cost->path ? json_string(row->cost->path) : json_null());
  add_metrics(r, row, 0, o);
  (void)json_object_set_new(o, "accuracy", json_null()); /* of a model only */
  (void)json_object_set_new(o, "retention", json_null());
  (void)json_object_set_new(o, "samples_ns", json_samples(r, row));
  if (r->set->layers) (void)json_object_set_new(o, "layers", json_layers(r, row));
  if (r->roof) (void)json_object_set_new(o, "roofline", json_share(r, row));
  return o;
}

static json_t *json_sizes(const attn_problem *pb) {
  return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:b}", "b", (json_int_t)pb->b, "h", (json_int_t)pb->h,
                   "hkv", (json_int_t)pb->hkv, "nq", (json_int_t)pb->nq, "nk", (json_int_t)pb->nk, "d",
                   (json_int_t)pb->d, "dv", (json_int_t)pb->dv, "scale", (double)pb->scale, "causal", pb->causal);
}

/* Mean number of keys of the problems, rounded. */
static int64_t mean_keys(const measure_set *set) {
  int64_t sum = 0;
  for (int i = 0; i < set->n; i++) sum += set->t[i].in.pb.nk;
  return (sum + set->n / 2) / set->n;
}

/* What was measured. Sizes of a tape are those of its first call, n the mean; `calls` has them all. */
static json_t *json_problem(const attn_report *r) {
  const measure_set *set = r->set;
  char hash[17], seed[24];
  int64_t kept = 0;
  json_t *o = json_sizes(&set->t->in.pb), *calls = json_array();
  for (int i = 0; i < set->n; i++) {
    json_t *call = json_sizes(&set->t[i].in.pb);
    kept += set->t[i].kept;
    (void)json_object_set_new(call, "name", json_string(set->t[i].name));
    (void)json_object_set_new(call, "layer", json_integer(set->t[i].layer));
    (void)json_array_append_new(calls, call);
  }
  (void)snprintf(hash, sizeof hash, "%016llx", (unsigned long long)set->hash);
  (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)r->seed);
  (void)json_object_set_new(o, "source", json_string(set->model));
  (void)json_object_set_new(o, "task", json_string(set->task));
  (void)json_object_set_new(o, "hash", json_string(hash));
  (void)json_object_set_new(o, "kept_keys", json_integer((json_int_t)kept));
  (void)json_object_set_new(o, "threads", json_integer(r->threads));
  (void)json_object_set_new(o, "seed", json_string(seed));
  if (set->layers) {
    (void)json_object_set_new(o, "nq", json_integer((json_int_t)mean_keys(set)));
    (void)json_object_set_new(o, "nk", json_integer((json_int_t)mean_keys(set)));
    (void)json_object_set_new(o, "tape", json_loads(set->origin, 0, NULL));
    (void)json_object_set_new(o, "calls", calls);
  } else
    json_decref(calls);
  return o;
}

static json_t *json_machine(void) {
  const machine_facts *m = machine_get();
  return json_pack("{s:s, s:s, s:s, s:i, s:I, s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:s}", "id", m->id, "cpu", m->cpu,
                   "os", m->os, "cores", m->cores, "memory_bytes", (json_int_t)m->memory_bytes, "blas", m->blas, "isa",
                   m->isa, "compiler", m->compiler, "cflags", m->cflags, "git_commit", m->git_commit, "git_dirty",
                   m->git_dirty, "version", m->version, "variant", m->variant);
}

int attn_report_json(const attn_report *r, ice_err *e) {
  json_t *top = json_object(), *methods = json_array(), *problem = json_problem(r);
  (void)json_object_set_new(problem, "rounds", json_integer(r->result->rounds));
  (void)json_object_set_new(problem, "rounds_asked", json_integer(r->rounds));
  (void)json_object_set_new(top, "problem", problem);
  (void)json_object_set_new(top, "machine", json_machine());
  if (r->roof) (void)json_object_set_new(top, "roofline", json_pack("[o, o]", json_roof(r->roof), json_roof(r->roof + 1)));
  for (int i = 0; i < r->rows->n; i++)
    if (!r->rows->row[i].reference) (void)json_array_append_new(methods, json_row(r, r->rows->row + i));
  (void)json_object_set_new(top, "methods", methods);
  int bad = !json_object_get(top, "problem") || !json_object_get(top, "machine") ||
            json_dumpf(top, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER) != 0;
  (void)putchar('\n');
  json_decref(top);
  return bad ? ice_fail(e, ICE_INTERNAL, "attn: cannot write JSON") : ICE_OK;
}

/* ---- Text. */

enum { TEXT_COLUMNS = 10, TEXT_WIDTH = 512 };
typedef char text_cell[TEXT_WIDTH];

static void print_bytes(double bytes, char *out, size_t size) {
  static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int u = 0;
  for (; bytes >= 1024.0 && u < 4; u++) bytes /= 1024.0;
  (void)snprintf(out, size, u ? "%.1f %s" : "%.0f %s", bytes, unit[u]);
}

/* Three significant digits, or (fixed) four decimals; "-" for what is undefined. */
static void print_real(double x, int fixed, char *out, size_t size) {
  if (isfinite(x))
    (void)snprintf(out, size, fixed ? "%.4f" : "%.3g", x);
  else
    (void)snprintf(out, size, "-");
}

static void fill_text(const attn_report *r, const measure_row *row, text_cell *c) {
  store_metric metric[MEASURE_METRICS];
  char lo[64], hi[64], mid[64];
  metrics_of(r, row, 0, metric);
  for (int i = 0; i < TEXT_COLUMNS; i++) (void)strcpy(c[i], "-");
  (void)snprintf(c[0], TEXT_WIDTH, "%s", row->method->name);
  measure_brief(row->method, row->params, NULL, c[1], TEXT_WIDTH);
  if (row->status != ATTN_OK) return;
  const size_t used = strlen(c[1]);
  if (row->cost->path) (void)snprintf(c[1] + used, TEXT_WIDTH - used, "%s(as %s)", used ? " " : "", row->cost->path);
  const store_metric *t = find(metric, "attention_ns");
  measure_print_ns(t->value, mid, sizeof mid);
  measure_print_ns(t->lo, lo, sizeof lo);
  measure_print_ns(t->hi, hi, sizeof hi);
  if (isfinite(t->lo))
    (void)snprintf(c[2], TEXT_WIDTH, "%s [%s, %s]", mid, lo, hi);
  else
    (void)snprintf(c[2], TEXT_WIDTH, "%s", mid);
  static const char *const speedup[] = {"speedup_vanilla", "speedup_dense"};
  for (int i = 0; i < 2; i++) {
    const store_metric *s = find(metric, speedup[i]);
    if (isfinite(s->lo))
      (void)snprintf(c[3 + i], TEXT_WIDTH, "%.2f [%.2f, %.2f]", s->value, s->lo, s->hi);
    else if (isfinite(s->value))
      (void)snprintf(c[3 + i], TEXT_WIDTH, "%.2f", s->value);
  }
  print_real(find(metric, "l2_error")->value, 0, c[5], TEXT_WIDTH);
  print_real(find(metric, "rel_l2_error")->value, 0, c[6], TEXT_WIDTH);
  print_real(find(metric, "mass")->value, 1, c[7], TEXT_WIDTH);
  print_real(find(metric, "recall")->value, 1, c[8], TEXT_WIDTH);
  print_bytes(find(metric, "peak_bytes")->value, c[9], TEXT_WIDTH);
}

static void print_heading(const attn_report *r) {
  const attn_problem *pb = &r->set->t->in.pb;
  (void)printf("%s: ", r->set->model);
  if (r->set->layers)
    (void)printf("%s, %d calls of %d layers, h=%lld n=%lld d=%lld", r->set->task, r->set->n, r->set->layers,
                 (long long)pb->h, (long long)mean_keys(r->set), (long long)pb->d);
  else
    (void)printf("b=%lld h=%lld hkv=%lld nq=%lld nk=%lld d=%lld dv=%lld", (long long)pb->b, (long long)pb->h,
                 (long long)pb->hkv, (long long)pb->nq, (long long)pb->nk, (long long)pb->d, (long long)pb->dv);
  (void)printf("%s, %d threads, %s, %d of %d rounds\n\n", pb->causal ? " causal" : "", r->threads, attn_isa_name(),
               r->result->rounds, r->rounds);
}

int attn_report_text(const attn_report *r, ice_err *e) {
  static const char *const head[TEXT_COLUMNS] = {"method", "parameters",  "attention", "x vanilla", "x dense",
                                                 "L2",     "relative L2", "mass",      "recall",    "memory"};
  int width[TEXT_COLUMNS];
  text_cell(*cell)[TEXT_COLUMNS] = calloc((size_t)r->rows->n, sizeof *cell);
  if (!cell) return ice_fail(e, ICE_INTERNAL, "out of memory");
  for (int c = 0; c < TEXT_COLUMNS; c++) width[c] = (int)strlen(head[c]);
  for (int i = 0; i < r->rows->n; i++) {
    fill_text(r, r->rows->row + i, cell[i]);
    for (int c = 0; c < TEXT_COLUMNS && !r->rows->row[i].reference; c++)
      if ((int)strlen(cell[i][c]) > width[c]) width[c] = (int)strlen(cell[i][c]);
  }
  print_heading(r);
  for (int c = 0; c < TEXT_COLUMNS; c++)
    (void)printf(c < 2 ? "%-*s  " : c + 1 < TEXT_COLUMNS ? "%*s  " : "%*s\n", width[c], head[c]);
  for (int i = 0; i < r->rows->n; i++) {
    const measure_row *row = r->rows->row + i;
    if (row->reference) continue;
    for (int c = 0; c < TEXT_COLUMNS; c++) {
      if (c == 2 && row->status != ATTN_OK) {
        (void)printf("%s: %s\n", status_of(row), row->reason);
        break;
      }
      (void)printf(c < 2 ? "%-*s  " : c + 1 < TEXT_COLUMNS ? "%*s  " : "%*s\n", width[c], cell[i][c]);
    }
  }
  (void)printf(
      "\nattention: build + query, median over rounds; x vanilla, x dense: speed-ups, > 1 is faster; in brackets: 95 %% "
      "intervals,\nfrom %d rounds on; L2, mass, recall: against exact attention on the same tensors\n", STATS_LEAST);
  char missing[MEASURE_REASON] = "";
  measure_rows_explain(r->rows, missing, sizeof missing);
  if (*missing) (void)printf("%s\n", missing);
  free(cell);
  if (r->roof) print_shares(r);
  return ICE_OK;
}

/* ---- Store. */

/* What a repetition may change, such as rounds, is no part of the identity. */
static char *json_key(const attn_report *r, const measure_row *row) {
  const char *variant = machine_get()->variant; /* what a debug build stores does not replace a release's row */
  json_t *key =
      json_pack("{s:o, s:o, s:s, s:s, s:s}", "problem", json_problem(r), "params", json_loads(row->json, 0, NULL),
                "method", row->method->name, "version", row->method->version, "isa", attn_isa_name());
  if (key && strcmp(variant, "release")) (void)json_object_set_new(key, "build", json_string(variant));
  char *text = key ? json_dumps(key, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
  json_decref(key);
  return text;
}

static int save_row(store *db, const attn_report *r, const measure_row *row, int64_t started_ms, ice_err *e) {
  const measure_set *set = r->set;
  const attn_problem *pb = &set->t->in.pb;
  store_metric metric[MEASURE_METRICS];
  char hash[17], label[64], text[MEASURE_REASON];
  int n_samples = 0;
  (void)snprintf(label, sizeof label, "%d of %d rounds", r->result->rounds, r->rounds);
  metrics_of(r, row, 0, metric);
  (void)snprintf(hash, sizeof hash, "%016llx", (unsigned long long)set->hash);
  char *key = json_key(r, row);
  store_sample *sample =
      measure_samples(r->result, measure_rows_columns(r->rows, row, 0), row->method->name, &n_samples);
  int rc = key && sample ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  const store_cell cell = {.key = key,
                           .experiment = "attn",
                           .task = set->task,
                           .model = set->model,
                           .method = row->method->name,
                           .method_version = row->method->version,
                           .params = row->json,
                           .seed = r->seed,
                           .n = mean_keys(set),
                           .heads = pb->h,
                           .head_dim = pb->d,
                           .layers = set->layers ? set->layers : 1,
                           .causal = pb->causal,
                           .threads = r->threads,
                           .isa = attn_isa_name(),
                           .examples = set->layers ? set->n / set->layers : pb->b,
                           .status = status_of(row),
                           .reason = reason_of(r, row, text),
                           .label = r->result->rounds < r->rounds ? label : NULL,
                           .config = key,
                           .data_hash = hash,
                           .started_utc_ms = started_ms,
                           .wall_ms = (int64_t)time(NULL) * 1000 - started_ms,
                           .metric = metric,
                           .n_metrics = MEASURE_METRICS,
                           .sample = sample,
                           .n_samples = n_samples};
  if (rc == ICE_OK) rc = store_put(db, &cell, 1, e);
  free(key);
  free(sample);
  return rc;
}

int attn_report_save(const attn_report *r, store *db, int64_t started_ms, ice_err *e) {
  for (int i = 0; i < r->rows->n; i++)
    if (!r->rows->row[i].reference) ICE_TRY(save_row(db, r, r->rows->row + i, started_ms, e));
  return ICE_OK;
}
