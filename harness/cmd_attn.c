/* cmd_attn.c - verb `attn`: times and checks methods on tensors, no model needed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/attn_report.h"
#include "harness/cli.h"
#include "harness/number.h"
#include "harness/registry/registry.h"
#include "harness/tape.h"
#include "kernels/core/clock.h"
#include "kernels/core/fileio.h"

typedef struct attn_options {
  const char *q, *k, *v, *mask, *synth, *tape, *methods, *out, *format;
  const char **set, **plugin;
  int causal, save, roofline;
  long long rounds, threads;
  double max_seconds, limit_seconds;
  uint64_t seed;
} attn_options;

/* ---- Options. */

static int read_numbers(attn_options *o, const char *rounds, const char *threads, const char *seconds, const char *limit,
                        const char *seed, ice_err *e) {
  const char *env = getenv("ICEBENCH_THREADS");
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  o->rounds = 9;
  o->threads = cores < 1 ? 1 : cores > 128 ? 128 : cores;
  o->max_seconds = 120.0;
  o->limit_seconds = 600.0;
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
  if (limit) ICE_TRY(cli_real("limit-seconds", limit, 0.1, 1e6, &o->limit_seconds, e));
  if (seed && !number_u64(seed, &o->seed)) return ice_fail(e, ICE_USAGE, "--seed = %s, allowed 0..2^64-1", seed);
  return ICE_OK;
}

static int check_options(const attn_options *o, ice_err *e) {
  const int files = (o->q != NULL) + (o->k != NULL) + (o->v != NULL);
  if (o->synth && files) return ice_fail(e, ICE_USAGE, "attn: --synth makes Q, K and V; leave --q, --k, --v away");
  if (o->tape && (o->synth || files || o->mask || o->causal))
    return ice_fail(e, ICE_USAGE,
                    "attn: --tape has Q, K, V, mask and order; leave --q, --k, --v, --mask, --causal, --synth away");
  if (!o->synth && !o->tape && files != 3)
    return ice_fail(e, ICE_USAGE,
                    "attn: needs --q, --k and --v, or --synth, e.g. --synth clustered:h=2,n=4096,d=32,seed=1, or --tape");
  if (strcmp(o->format, "text") && strcmp(o->format, "json"))
    return ice_fail(e, ICE_USAGE, "--format = %s, allowed text, json", o->format);
  return ICE_OK;
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

static int load(const attn_options *o, measure_set *set, ice_err *e) {
  measure_tensors t;
  if (o->tape) return tape_read(set, o->tape, e);
  ICE_TRY(o->synth ? measure_tensors_synth(&t, o->synth, o->mask, o->causal, e)
                   : measure_tensors_read(&t, o->q, o->k, o->v, o->mask, o->causal, e));
  return measure_set_of_one(set, &t, e);
}

/* Can folder and database take what comes? Asked before a measurement that may last for hours. */
static int check_targets(const cli_common *common, const attn_options *o, ice_err *e) {
  ice_err why = {0};
  store *db;
  if (o->out && file_make_dirs(o->out, &why) != ICE_OK) return ice_fail(e, ICE_USAGE, "--out %s: %s", o->out, why.text);
  if (o->out && access(o->out, W_OK | X_OK)) return ice_fail(e, ICE_USAGE, "--out %s: %s", o->out, strerror(errno));
  if (!o->save) return ICE_OK;
  ICE_TRY(store_open(common->db, STORE_WRITE, &db, e));
  store_close(db);
  return ICE_OK;
}

/* Prints before it stores: should storing fail, the numbers are seen all the same. */
static int report(const cli_common *common, const attn_options *o, const attn_report *r, int64_t started_ms, ice_err *e) {
  ICE_TRY(!strcmp(o->format, "json") ? attn_report_json(r, e) : attn_report_text(r, e));
  (void)fflush(stdout);
  if (o->save) {
    store *db;
    ICE_TRY(store_open(common->db, STORE_WRITE, &db, e));
    int rc = attn_report_save(r, db, started_ms, e);
    store_close(db);
    if (rc != ICE_OK) return rc;
  }
  return verdict(r->rows, e);
}

static int run(const cli_common *common, const attn_options *o, ice_err *e) {
  measure_rows rows;
  measure_set set;
  measure_result result;
  roofline roof[2];
  const int64_t started_ms = attn_utc_ms();
  const attn_report r = {.roof = o->roofline ? roof : NULL, .set = &set, .rows = &rows, .result = &result, .threads = (int)o->threads, .rounds = (int)o->rounds, .seed = o->seed};
  ICE_TRY(measure_rows_create(&rows, o->methods, o->set, o->plugin, watch_current(), e));
  int rc = load(o, &set, e);
  if (rc == ICE_OK) {
    rc = check_targets(common, o, e);
    const measure_plan plan = {.rounds = (int)o->rounds, .warmup = 1, .max_seconds = o->max_seconds, .seed = o->seed};
    measure_set_prepare(&set, (int)o->threads, o->seed);
    for (int i = 0; o->roofline && rc == ICE_OK && i < 2; i++) rc = roofline_measure(i ? (int)o->threads : 1, roof + i, e);
    if (rc == ICE_OK) rc = measure_rows_time(&rows, &set, &plan, &result, e);
    if (rc == ICE_OK) {
      rc = measure_rows_judge(&rows, &set, o->out, e);
      if (rc == ICE_OK) rc = report(common, o, &r, started_ms, e);
      measure_free(&result);
    }
    measure_set_free(&set);
  }
  measure_rows_destroy(&rows);
  return rc;
}

static int attn_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  attn_options o = {.format = "text"};
  const char *causal = NULL, *save_it = NULL, *roof = NULL, *rounds = NULL, *threads = NULL, *seconds = NULL, *limit = NULL,
             *seed = NULL;
  int positionals = 0;
  const cli_option spec[] = {{.name = "q", .has_value = 1, .value = &o.q},
                             {.name = "k", .has_value = 1, .value = &o.k},
                             {.name = "v", .has_value = 1, .value = &o.v},
                             {.name = "mask", .has_value = 1, .value = &o.mask},
                             {.name = "causal", .value = &causal},
                             {.name = "synth", .has_value = 1, .value = &o.synth},
                             {.name = "tape", .has_value = 1, .value = &o.tape},
                             {.name = "methods", .has_value = 1, .value = &o.methods},
                             {.name = "set", .has_value = 1, .list = &o.set},
                             {.name = "rounds", .has_value = 1, .value = &rounds},
                             {.name = "max-seconds", .has_value = 1, .value = &seconds},
                             {.name = "limit-seconds", .has_value = 1, .value = &limit},
                             {.name = "threads", .has_value = 1, .value = &threads},
                             {.name = "seed", .has_value = 1, .value = &seed},
                             {.name = "out", .has_value = 1, .value = &o.out},
                             {.name = "plugin", .has_value = 1, .list = &o.plugin},
                             {.name = "format", .has_value = 1, .value = &o.format},
                             {.name = "save", .value = &save_it},
                             {.name = "roofline", .value = &roof},
                             {.name = NULL}};
  int rc = cli_parse(argc, argv, spec, NULL, 0, &positionals, e);
  o.causal = causal != NULL;
  o.save = save_it != NULL;
  o.roofline = roof != NULL;
  if (rc == ICE_OK) rc = check_options(&o, e);
  if (rc == ICE_OK) rc = read_numbers(&o, rounds, threads, seconds, limit, seed, e);
  /* All code that may be somebody else's runs in a child: what crashes there costs one method. */
  if (rc == ICE_OK && watch_current())
    rc = watch_done(watch_current(), run(common, &o, e), e);
  else if (rc == ICE_OK)
    rc = watch_run(common, argc, argv, 0, o.limit_seconds, e);
  free((void *)o.set);
  free((void *)o.plugin);
  return rc;
}

const cli_verb cli_verb_attn = {
    .name = "attn",
    .summary = "time and check methods on tensors, no model needed",
    .help =
        "usage: icebench attn --q Q.npy --k K.npy --v V.npy [--mask M.npy] [--causal] [options]\n"
        "       icebench attn --synth SOURCE [options]\n"
        "       icebench attn --tape DIR [options]\n\n"
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
        "      lowrank         smooth: Q, K, V in a random subspace of 8 dimensions, logits of deviation 1.5\n"
        "  --tape DIR          Q, K, V of a model run, as `icebench dump` writes them: all calls are one measurement, "
        "times\n"
        "                      summed, errors pooled; JSON has the layers too. models/tapes/lra-listops is one\n\n"
        "methods:\n"
        "  --methods A,B,...   see `icebench list methods`; default: all that need no training\n"
        "  --set M.P=X|Y,...   parameters (`icebench show METHOD`); several values make a sweep. Late parameters "
        "reuse\n"
        "                      the built index\n"
        "  --plugin FILE.so    adds a method that exports `const attn_method *icebench_plugin(uint32_t abi)`;\n"
        "                      docs/plugin.c is an example. All methods run in a child process: one that crashes, does\n"
        "                      not end or writes NaN is a failed row, and the others are measured without it\n\n"
        "measurement:\n"
        "  --rounds N          1..1000 (9)       --max-seconds S  stop starting rounds after S seconds (120)\n"
        "  --limit-seconds S   a method whose single pass takes longer has failed (600)\n"
        "  --threads T         1..256 ($ICEBENCH_THREADS, else all cores)\n"
        "  --seed S            seed of randomised methods (1)\n"
        "  --roofline          also measures what this machine can do (multiply-adds in registers, sgemm, memory, L2; one\n"
        "                      thread and all) and says how close each method came. The work of a method is 2 d + 2 dv "
        "flops\n"
        "                      for each q.k product it evaluated; it must touch Q, K, V and its output once; it can take "
        "no\n"
        "                      less than max(flops / peak, bytes / bandwidth). Softmax, search and building count as "
        "nothing,\n"
        "                      so a share says how much of the machine went into the products\n\n"
        "output:\n"
        "  --format text|json  table, or one object with problem, machine, methods (text)\n"
        "  --out DIR           <method>.o.npy, and <method>.idx.npy (int32 [b,h,n,k], -1 = none) of methods with key "
        "sets;\n"
        "                      rows of a sweep carry their values: topk@k=8.o.npy\n"
        "  --save              stores the rows in the database as experiment attn\n\n"
        "examples:\n"
        "  icebench attn --synth clustered:h=2,n=4096,d=32,seed=1 --methods vanilla,dense,topk,iceformer\n"
        "  icebench attn --q q.npy --k k.npy --v v.npy --causal --methods iceformer --set 'iceformer.k=8|16|32'\n"
        "  icebench attn --tape models/tapes/lra-listops --methods dense,topk,icecells --roofline\n"
        "  icebench attn --synth gauss:n=8192 --plugin ./my_method.so --methods my_method --format json\n\n"
        "exit codes: 0 done, 2 usage, 3 a method failed, 7 tensors missing or not sane, 8 database (--save)\n",
    .main = attn_main,
};
