/* cmd_attn.c - verb `attn`: times and checks methods on tensors, no model needed. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness/cli.h"
#include "harness/machine.h"
#include "harness/measure_rows.h"
#include "harness/number.h"
#include "harness/registry/registry.h"
#include "harness/store.h"
#include "kernels/micro/micro.h"

typedef struct attn_options {
  const char *q, *k, *v, *mask, *synth, *methods, *out, *format;
  const char **set, **plugin;
  int causal, save;
  long long rounds, threads;
  double max_seconds;
  uint64_t seed;
} attn_options;

typedef struct attn_report {
  const attn_options *opt;
  const measure_tensors *t;
  measure_rows rows;
  measure_result result;
} attn_report;

/* ---- Options. */

static int read_numbers(attn_options *o, const char *rounds, const char *threads, const char *seconds, const char *seed,
                        ice_err *e) {
  const char *env = getenv("ICEBENCH_THREADS");
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  o->rounds = 9;
  o->threads = cores < 1 ? 1 : cores > 128 ? 128 : cores;
  o->max_seconds = 120.0;
  o->seed = 1;
  if (rounds) ICE_TRY(cli_int("rounds", rounds, 1, 1000, &o->rounds, e));
  if (threads)
    ICE_TRY(cli_int("threads", threads, 1, 256, &o->threads, e));
  else if (env && *env) {
    int64_t n;
    if (!number_int(env, 1, 256, &n)) return ice_fail(e, ICE_USAGE, "$ICEBENCH_THREADS = %s, allowed 1..256", env);
    o->threads = n;
  }
  if (seconds) ICE_TRY(cli_real("max-seconds", seconds, 0.0, 1e6, &o->max_seconds, e));
  if (seed && !number_u64(seed, &o->seed)) return ice_fail(e, ICE_USAGE, "--seed = %s, allowed 0..2^64-1", seed);
  return ICE_OK;
}

static int check_options(const attn_options *o, ice_err *e) {
  const int files = (o->q != NULL) + (o->k != NULL) + (o->v != NULL);
  if (o->synth && files) return ice_fail(e, ICE_USAGE, "attn: --synth makes Q, K and V; leave --q, --k, --v away");
  if (!o->synth && files != 3)
    return ice_fail(e, ICE_USAGE,
                    "attn: needs --q, --k and --v, or --synth, e.g. --synth clustered:h=2,n=4096,d=32,seed=1");
  if (strcmp(o->format, "text") && strcmp(o->format, "json"))
    return ice_fail(e, ICE_USAGE, "--format = %s, allowed text, json", o->format);
  return ICE_OK;
}

/* ---- A row in numbers. */

static const char *status_of(const measure_row *row) {
  return row->status == ATTN_OK                ? "ok"
         : row->status == ATTN_ERR_UNSUPPORTED ? "unsupported"
         : row->status == ATTN_ERR_NOMEM       ? "oom"
                                               : "failed";
}

static void metrics_of(const attn_report *r, const measure_row *row, store_metric *out) {
  const int ok = row->status == ATTN_OK;
  measure_metrics(&r->result, measure_rows_columns(&r->rows, row), r->opt->seed, ok ? &row->cost : NULL,
                  ok ? &row->quality : NULL, out);
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
  for (int i = 0; row->column >= 0 && i < r->result.rounds; i++)
    (void)json_array_append_new(list, json_integer(measure_sample(&r->result, row->column, i)->ns[MEASURE_ATTENTION]));
  return list;
}

static json_t *json_row(const attn_report *r, const measure_row *row) {
  json_t *o = json_object();
  store_metric metric[MEASURE_METRICS];
  char name[64];
  metrics_of(r, row, metric);
  (void)json_object_set_new(o, "method", json_string(row->method->name));
  (void)json_object_set_new(o, "version", json_string(row->method->version));
  (void)json_object_set_new(o, "params", json_loads(row->json, 0, NULL));
  (void)json_object_set_new(o, "status", json_string(status_of(row)));
  (void)json_object_set_new(o, "reason", row->status == ATTN_OK ? json_null() : json_string(row->reason));
  for (const store_metric *m = metric; m < metric + MEASURE_METRICS; m++) {
    const int exact = !strcmp(m->name, "pairs") || !strcmp(m->name, "peak_bytes");
    (void)json_object_set_new(o, m->name, exact ? whole(m->value) : number(m->value));
    if (!in_ns(m->name) && strncmp(m->name, "speedup", 7)) continue;
    (void)snprintf(name, sizeof name, "%s_lo", m->name);
    (void)json_object_set_new(o, name, number(m->lo));
    (void)snprintf(name, sizeof name, "%s_hi", m->name);
    (void)json_object_set_new(o, name, number(m->hi));
  }
  (void)json_object_set_new(o, "accuracy", json_null());
  (void)json_object_set_new(o, "samples_ns", json_samples(r, row));
  return o;
}

static json_t *json_problem(const attn_report *r) {
  const attn_problem *pb = &r->t->in.pb;
  char hash[17], seed[24];
  (void)snprintf(hash, sizeof hash, "%016llx", (unsigned long long)r->t->hash);
  (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)pb->seed);
  return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:b, s:I, s:i, s:s, s:i, s:i}", "source",
                   r->t->source, "hash", hash, "b", (json_int_t)pb->b, "h", (json_int_t)pb->h, "hkv",
                   (json_int_t)pb->hkv, "nq", (json_int_t)pb->nq, "nk", (json_int_t)pb->nk, "d", (json_int_t)pb->d,
                   "dv", (json_int_t)pb->dv, "scale", (double)pb->scale, "causal", pb->causal, "kept_keys",
                   (json_int_t)r->t->kept, "threads", pb->threads, "seed", seed, "rounds", r->result.rounds,
                   "rounds_asked", (int)r->opt->rounds);
}

static json_t *json_machine(void) {
  const machine_facts *m = machine_get();
  return json_pack("{s:s, s:s, s:s, s:i, s:I, s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:s}", "id", m->id, "cpu", m->cpu,
                   "os", m->os, "cores", m->cores, "memory_bytes", (json_int_t)m->memory_bytes, "blas", m->blas, "isa",
                   m->isa, "compiler", m->compiler, "cflags", m->cflags, "git_commit", m->git_commit, "git_dirty",
                   m->git_dirty, "version", m->version, "variant", m->variant);
}

static int print_json(const attn_report *r, ice_err *e) {
  json_t *top = json_object(), *methods = json_array();
  (void)json_object_set_new(top, "problem", json_problem(r));
  (void)json_object_set_new(top, "machine", json_machine());
  for (int i = 0; i < r->rows.n; i++)
    if (!r->rows.row[i].reference) (void)json_array_append_new(methods, json_row(r, r->rows.row + i));
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
  metrics_of(r, row, metric);
  for (int i = 0; i < TEXT_COLUMNS; i++) (void)strcpy(c[i], "-");
  (void)snprintf(c[0], TEXT_WIDTH, "%s", row->method->name);
  measure_brief(row->method, row->params, c[1], TEXT_WIDTH);
  if (row->status != ATTN_OK) return;
  const store_metric *t = find(metric, "attention_ns");
  measure_print_ns(t->value, mid, sizeof mid);
  measure_print_ns(t->lo, lo, sizeof lo);
  measure_print_ns(t->hi, hi, sizeof hi);
  (void)snprintf(c[2], TEXT_WIDTH, "%s [%s, %s]", mid, lo, hi);
  static const char *const speedup[] = {"speedup_vanilla", "speedup_dense"};
  for (int i = 0; i < 2; i++) {
    const store_metric *s = find(metric, speedup[i]);
    if (isfinite(s->value)) (void)snprintf(c[3 + i], TEXT_WIDTH, "%.2f [%.2f, %.2f]", s->value, s->lo, s->hi);
  }
  print_real(find(metric, "l2_error")->value, 0, c[5], TEXT_WIDTH);
  print_real(find(metric, "rel_l2_error")->value, 0, c[6], TEXT_WIDTH);
  print_real(find(metric, "mass")->value, 1, c[7], TEXT_WIDTH);
  print_real(find(metric, "recall")->value, 1, c[8], TEXT_WIDTH);
  print_bytes(find(metric, "peak_bytes")->value, c[9], TEXT_WIDTH);
}

static int print_text(const attn_report *r, ice_err *e) {
  static const char *const head[TEXT_COLUMNS] = {"method", "parameters",  "attention", "x vanilla", "x dense",
                                                 "L2",     "relative L2", "mass",      "recall",    "memory"};
  const attn_problem *pb = &r->t->in.pb;
  int width[TEXT_COLUMNS];
  text_cell(*cell)[TEXT_COLUMNS] = calloc((size_t)r->rows.n, sizeof *cell);
  if (!cell) return ice_fail(e, ICE_INTERNAL, "out of memory");
  for (int c = 0; c < TEXT_COLUMNS; c++) width[c] = (int)strlen(head[c]);
  for (int i = 0; i < r->rows.n; i++) {
    fill_text(r, r->rows.row + i, cell[i]);
    for (int c = 0; c < TEXT_COLUMNS && !r->rows.row[i].reference; c++)
      if ((int)strlen(cell[i][c]) > width[c]) width[c] = (int)strlen(cell[i][c]);
  }
  (void)printf("%s: b=%lld h=%lld hkv=%lld nq=%lld nk=%lld d=%lld dv=%lld%s, %d threads, %s, %d of %lld rounds\n\n",
               r->t->source, (long long)pb->b, (long long)pb->h, (long long)pb->hkv, (long long)pb->nq,
               (long long)pb->nk, (long long)pb->d, (long long)pb->dv, pb->causal ? " causal" : "", pb->threads,
               attn_isa_name(), r->result.rounds, r->opt->rounds);
  for (int c = 0; c < TEXT_COLUMNS; c++)
    (void)printf(c < 2 ? "%-*s  " : c + 1 < TEXT_COLUMNS ? "%*s  " : "%*s\n", width[c], head[c]);
  for (int i = 0; i < r->rows.n; i++) {
    const measure_row *row = r->rows.row + i;
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
      "\nattention: build + query, median over rounds with 95 %% interval; x vanilla, x dense: speed-ups, > 1 is "
      "faster;\nL2, mass, recall: against exact attention on the same tensors\n");
  free(cell);
  return ICE_OK;
}

/* ---- Store. */

static char *json_key(const attn_report *r, const measure_row *row) {
  json_t *key =
      json_pack("{s:o, s:o, s:s, s:s, s:s}", "problem", json_problem(r), "params", json_loads(row->json, 0, NULL),
                "method", row->method->name, "version", row->method->version, "isa", attn_isa_name());
  if (key) { /* what a repetition may change is no part of the identity */
    (void)json_object_del(json_object_get(key, "problem"), "rounds");
    (void)json_object_del(json_object_get(key, "problem"), "rounds_asked");
  }
  char *text = key ? json_dumps(key, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
  json_decref(key);
  return text;
}

static int save_row(store *db, const attn_report *r, const measure_row *row, int64_t started_ms, ice_err *e) {
  const attn_problem *pb = &r->t->in.pb;
  store_metric metric[MEASURE_METRICS];
  char hash[17];
  int n_samples = 0;
  metrics_of(r, row, metric);
  (void)snprintf(hash, sizeof hash, "%016llx", (unsigned long long)r->t->hash);
  char *key = json_key(r, row);
  store_sample *sample =
      measure_samples(&r->result, measure_rows_columns(&r->rows, row), row->method->name, &n_samples);
  int rc = key && sample ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  const store_cell cell = {.key = key,
                           .experiment = "attn",
                           .task = r->t->task,
                           .model = r->t->source,
                           .method = row->method->name,
                           .method_version = row->method->version,
                           .params = row->json,
                           .seed = pb->seed,
                           .n = pb->nk,
                           .heads = pb->h,
                           .head_dim = pb->d,
                           .layers = 1,
                           .causal = pb->causal,
                           .threads = pb->threads,
                           .isa = attn_isa_name(),
                           .examples = pb->b,
                           .status = status_of(row),
                           .reason = row->status == ATTN_OK ? NULL : row->reason,
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

static int save(const cli_common *common, const attn_report *r, int64_t started_ms, ice_err *e) {
  store *db;
  ICE_TRY(store_open(common->db, STORE_WRITE, &db, e));
  int rc = ICE_OK;
  for (int i = 0; rc == ICE_OK && i < r->rows.n; i++)
    if (!r->rows.row[i].reference) rc = save_row(db, r, r->rows.row + i, started_ms, e);
  store_close(db);
  return rc;
}

/* ---- The verb. */

/* Rows that broke are exit code 3; a row that its method does not support is an answer, unless there is no other. */
static int verdict(const measure_rows *rows, ice_err *e) {
  int asked = 0, good = 0, broken = 0;
  const measure_row *why = NULL;
  for (int i = 0; i < rows->n; i++) {
    const measure_row *row = rows->row + i;
    if (row->reference) continue;
    asked++;
    good += row->status == ATTN_OK;
    broken += row->status != ATTN_OK && row->status != ATTN_ERR_UNSUPPORTED;
    if (row->status != ATTN_OK && !why) why = row;
  }
  if (!broken && good) return ICE_OK;
  return ice_fail(e, ICE_CELLS_FAILED, "attn: %d of %d rows failed, the first: %s: %s", asked - good, asked,
                  why ? why->method->name : "-", why ? why->reason : "-");
}

static int run(const cli_common *common, const attn_options *o, ice_err *e) {
  measure_tensors t;
  attn_report r = {.opt = o, .t = &t};
  const int64_t started_ms = (int64_t)time(NULL) * 1000;
  ICE_TRY(measure_rows_create(&r.rows, o->methods, o->set, o->plugin, e));
  int rc = o->synth ? measure_tensors_synth(&t, o->synth, o->mask, o->causal, e)
                    : measure_tensors_read(&t, o->q, o->k, o->v, o->mask, o->causal, e);
  if (rc == ICE_OK) {
    const measure_plan plan = {.rounds = (int)o->rounds, .warmup = 1, .max_seconds = o->max_seconds, .seed = o->seed};
    t.in.pb.threads = (int)o->threads;
    t.in.pb.seed = o->seed;
    rc = measure_rows_time(&r.rows, &t, &plan, &r.result, e);
    if (rc == ICE_OK) rc = measure_rows_judge(&r.rows, &t, o->out, e);
    if (rc == ICE_OK && o->save) rc = save(common, &r, started_ms, e);
    if (rc == ICE_OK) rc = !strcmp(o->format, "json") ? print_json(&r, e) : print_text(&r, e);
    if (rc == ICE_OK) rc = verdict(&r.rows, e);
    measure_free(&r.result);
    measure_tensors_free(&t);
  }
  measure_rows_destroy(&r.rows);
  return rc;
}

static int attn_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  attn_options o = {.format = "text"};
  const char *causal = NULL, *save_it = NULL, *rounds = NULL, *threads = NULL, *seconds = NULL, *seed = NULL;
  int positionals = 0;
  const cli_option spec[] = {{.name = "q", .has_value = 1, .value = &o.q},
                             {.name = "k", .has_value = 1, .value = &o.k},
                             {.name = "v", .has_value = 1, .value = &o.v},
                             {.name = "mask", .has_value = 1, .value = &o.mask},
                             {.name = "causal", .value = &causal},
                             {.name = "synth", .has_value = 1, .value = &o.synth},
                             {.name = "methods", .has_value = 1, .value = &o.methods},
                             {.name = "set", .has_value = 1, .list = &o.set},
                             {.name = "rounds", .has_value = 1, .value = &rounds},
                             {.name = "max-seconds", .has_value = 1, .value = &seconds},
                             {.name = "threads", .has_value = 1, .value = &threads},
                             {.name = "seed", .has_value = 1, .value = &seed},
                             {.name = "out", .has_value = 1, .value = &o.out},
                             {.name = "plugin", .has_value = 1, .list = &o.plugin},
                             {.name = "format", .has_value = 1, .value = &o.format},
                             {.name = "save", .value = &save_it},
                             {.name = NULL}};
  int rc = cli_parse(argc, argv, spec, NULL, 0, &positionals, e);
  o.causal = causal != NULL;
  o.save = save_it != NULL;
  if (rc == ICE_OK) rc = check_options(&o, e);
  if (rc == ICE_OK) rc = read_numbers(&o, rounds, threads, seconds, seed, e);
  if (rc == ICE_OK) rc = run(common, &o, e);
  free((void *)o.set);
  free((void *)o.plugin);
  return rc;
}

const cli_verb cli_verb_attn = {
    .name = "attn",
    .summary = "time and check methods on tensors, no model needed",
    .help =
        "usage: icebench attn --q Q.npy --k K.npy --v V.npy [--mask M.npy] [--causal] [options]\n"
        "       icebench attn --synth SOURCE [options]\n\n"
        "Times attention methods on the same tensors, interleaved round by round, and compares their outputs and key\n"
        "sets with exact attention. vanilla and dense are always timed too: a speed-up needs both.\n\n"
        "tensors:\n"
        "  --q, --k, --v FILE  NumPy arrays [n,d], [h,n,d] or [b,h,n,d]; f4, f2, f8, or u2 as bfloat16. K and V may "
        "have\n"
        "                      fewer heads (grouped query). The scale is 1/sqrt(d)\n"
        "  --mask FILE         keys to keep: [n] or [b,n], 1 = keep, 0 = ignore (then NaN is allowed)\n"
        "  --causal            query i sees keys j <= i + (nk - nq)\n"
        "  --synth SOURCE      NAME:KEY=VALUE,... made from a seed. Keys: h heads (1), n tokens (1024), d width (64),\n"
        "                      seed (1), b batch (1), hkv key heads (h), nk keys (n), dv value width (d), causal 0|1.\n"
        "      gauss           hostile: independent N(0,1), no structure to find\n"
        "      clustered       friendly: keys and queries gather around n/16 topics of unequal size that persist over\n"
        "                      runs of positions; a softmax row holds most of its mass on one or two topics\n"
        "      lowrank         smooth: Q, K, V in a random subspace of 8 dimensions, logits of deviation 1.5\n\n"
        "methods:\n"
        "  --methods A,B,...   see `icebench list methods`; default: all that need no training\n"
        "  --set M.P=X|Y,...   parameters (`icebench show METHOD`); several values make a sweep. Late parameters "
        "reuse\n"
        "                      the built index\n"
        "  --plugin FILE.so    adds a method that exports `const attn_method *icebench_plugin(uint32_t abi)`;\n"
        "                      docs/plugin.c is an example\n\n"
        "measurement:\n"
        "  --rounds N          1..1000 (9)       --max-seconds S  stop starting rounds after S seconds (120)\n"
        "  --threads T         1..256 ($ICEBENCH_THREADS, else all cores)\n"
        "  --seed S            seed of randomised methods (1)\n\n"
        "output:\n"
        "  --format text|json  table, or one object with problem, machine, methods (text)\n"
        "  --out DIR           <method>.o.npy, and <method>.idx.npy (int32 [b,h,n,k], -1 = none) of methods with key "
        "sets;\n"
        "                      rows of a sweep carry their values: topk@k=8.o.npy\n"
        "  --save              stores the rows in the database as experiment attn\n\n"
        "examples:\n"
        "  icebench attn --synth clustered:h=2,n=4096,d=32,seed=1 --methods vanilla,dense,topk,iceformer\n"
        "  icebench attn --q q.npy --k k.npy --v v.npy --causal --methods iceformer --set 'iceformer.k=8|16|32'\n"
        "  icebench attn --synth gauss:n=8192 --plugin ./my_method.so --methods my_method --format json\n\n"
        "exit codes: 0 done, 2 usage, 3 a method failed, 7 tensors missing or not sane, 8 database (--save)\n",
    .main = attn_main,
};
