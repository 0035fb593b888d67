/* cmd_data.c - verb `data`: where data sets are, making them, verifying them. */
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "datasets/task.h"
#include "harness/cli.h"

enum { MAX_ROOTS = 64 };

typedef struct data_options {
  const char *seed, *out, *examples;
} data_options;

/* --- list ---------------------------------------------------------------------------------------------------------- */

static int list_tasks(const cli_common *common, const data_options *o, const char *name, ice_err *e) {
  (void)common, (void)o, (void)e;
  for (int i = 0; task_all[i]; i++) {
    const task *t = task_all[i];
    task_data d;
    ice_err why = {0};
    if (name && strcmp(name, t->name)) continue;
    if (task_load(t, TASK_TEST, &d, &why) == ICE_OK) {
      (void)printf("%-14s %s, test split of %lld: %s\n", t->name, d.official ? "official" : "generated or stand-in", (long long)d.count, d.origin);
      task_data_free(&d);
    } else
      (void)printf("%-14s absent: %s\n", t->name, why.text);
  }
  return ICE_OK;
}

/* --- make ---------------------------------------------------------------------------------------------------------- */

static void tick(void *ctx, int64_t done, int64_t total) { cli_progress_tick(ctx, done, total, ""); }

/* Where data goes when nobody says: the first folder of $ICEBENCH_DATA_DIR, else datasets/data. */
static const char *default_root(char *buf, size_t size) {
  const char *roots[MAX_ROOTS];
  return task_roots(buf, size, roots, MAX_ROOTS) > 0 ? roots[0] : "datasets/data";
}

static int make_task(const cli_common *common, const data_options *o, const char *name, ice_err *e) {
  const task *t = name ? task_find(name, e) : NULL;
  char buf[8192];
  long long seed = 1, examples = 0;
  cli_progress progress;
  if (!name) return ice_fail(e, ICE_USAGE, "data make: needs a task, e.g. icebench data make lra/listops --seed 7");
  if (!t) return e->code;
  if (!t->make) return ice_fail(e, ICE_DATA, "%s cannot be generated; %s", t->name, t->source);
  if (o->seed) ICE_TRY(cli_int("seed", o->seed, 0, INT64_MAX, &seed, e));
  if (o->examples) ICE_TRY(cli_int("examples", o->examples, 1, 100000000, &examples, e));
  const task_make_options make = {.seed = (uint64_t)seed,
                                  .out = o->out ? o->out : default_root(buf, sizeof buf),
                                  .examples = examples,
                                  .progress = tick,
                                  .ctx = &progress};
  cli_progress_start(&progress, t->name, !common->quiet);
  const int rc = t->make(&make, e);
  cli_progress_end(&progress);
  if (rc == ICE_OK && !common->quiet) (void)printf("%s: made below %s (seed %lld)\n", t->name, make.out, seed);
  return rc;
}

/* --- check --------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* Appends one hash per example. */
static uint64_t *add_hashes(uint64_t *all, int64_t have, const task_data *d) {
  uint64_t *grown = realloc(all, (size_t)(have + d->count) * sizeof *grown);
  for (int64_t i = 0; grown && i < d->count; i++) {
    const int64_t first = d->start[i * d->inputs], last = d->start[(i + 1) * d->inputs];
    grown[have + i] = XXH3_64bits(d->tokens + first, (size_t)(last - first) * sizeof *d->tokens);
  }
  if (!grown) free(all);
  return grown;
}

static void describe_split(const task *t, task_split split, const task_data *d) {
  int64_t shortest = INT64_MAX, longest = 0, count[64] = {0};
  for (int64_t i = 0; i < d->count * d->inputs; i++) {
    const int64_t n = d->start[i + 1] - d->start[i];
    shortest = n < shortest ? n : shortest;
    longest = n > longest ? n : longest;
  }
  (void)printf("  %-5s %lld examples (official: %lld), %lld..%lld tokens, mean %.1f; labels", task_split_name(split),
               (long long)d->count, (long long)t->official_count[split], (long long)shortest, (long long)longest,
               (double)d->start[d->count * d->inputs] / (double)(d->count * d->inputs));
  for (int64_t i = 0; i < d->count; i++) count[d->label[i] & 63]++;
  for (int c = 0; c < t->classes && c < 64; c++) (void)printf(" %.1f%%", 100.0 * (double)count[c] / (double)d->count);
  (void)printf("\n        %s\n", d->origin);
}

static int check_one(const task *t, ice_err *e) {
  uint64_t *hash = NULL;
  int64_t total = 0, twice = 0;
  int rc = ICE_OK;
  (void)printf("%s\n", t->name);
  for (int split = 0; split < TASK_SPLITS; split++) {
    task_data d;
    ice_err why = {0};
    if (task_load(t, (task_split)split, &d, &why) != ICE_OK) {
      (void)printf("  %-5s %s\n", task_split_name((task_split)split), why.text);
      if (rc == ICE_OK) rc = ice_fail(e, why.code, "%s", why.text);
      continue;
    }
    describe_split(t, (task_split)split, &d);
    hash = add_hashes(hash, total, &d);
    total = hash ? total + d.count : 0;
    task_data_free(&d);
  }
  if (total) qsort(hash, (size_t)total, sizeof *hash, by_value);
  for (int64_t i = 1; i < total; i++) twice += hash[i] == hash[i - 1];
  free(hash);
  if (total) (void)printf("  %lld examples occur more than once\n", (long long)twice);
  return rc;
}

static int check_tasks(const cli_common *common, const data_options *o, const char *name, ice_err *e) {
  (void)common, (void)o;
  if (name) {
    const task *t = task_find(name, e);
    return t ? check_one(t, e) : e->code;
  }
  int rc = ICE_OK;
  for (int i = 0; task_all[i]; i++) {
    const int one = check_one(task_all[i], e);
    rc = rc == ICE_OK ? one : rc;
  }
  return rc;
}

/* --- fetch --------------------------------------------------------------------------------------------------------- */

static int fetch_task(const cli_common *common, const data_options *o, const char *name, ice_err *e) {
  (void)common, (void)o;
  const task *t = name ? task_find(name, e) : NULL;
  if (!name) return ice_fail(e, ICE_USAGE, "data fetch: needs a task; see icebench list tasks");
  if (!t) return e->code;
  return ice_fail(e, ICE_DATA, "%s is not downloaded by this version; by hand: %s", t->name, t->source);
}

/* ------------------------------------------------------------------------------------------------------------------- */

static int data_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  static const struct {
    const char *name;
    int (*run)(const cli_common *common, const data_options *o, const char *task, ice_err *e);
  } action[] = {{"list", list_tasks}, {"make", make_task}, {"fetch", fetch_task}, {"check", check_tasks}};
  data_options o = {0};
  const char *words[2] = {NULL, NULL};
  int n = 0;
  const cli_option spec[] = {{.name = "seed", .has_value = 1, .value = &o.seed},
                             {.name = "out", .has_value = 1, .value = &o.out},
                             {.name = "examples", .has_value = 1, .value = &o.examples},
                             {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, words, 2, &n, e));
  for (size_t i = 0; words[0] && i < sizeof action / sizeof *action; i++)
    if (!strcmp(words[0], action[i].name)) return action[i].run(common, &o, words[1], e);
  return ice_fail(e, ICE_USAGE, "data %s: allowed list, make, fetch, check", words[0] ? words[0] : "WHAT");
}

const cli_verb cli_verb_data = {
    .name = "data",
    .summary = "data sets: where they are, making and checking them",
    .help = "usage: icebench data list [TASK]\n"
            "       icebench data make TASK [--seed S] [--out DIR] [--examples N]\n"
            "       icebench data check [TASK]\n"
            "       icebench data fetch TASK\n"
            "\n"
            "Data is looked for in the folders of $ICEBENCH_DATA_DIR (separated by ':'), then in datasets/data, in the\n"
            "official layout of each release; files may be plain or gzipped.\n"
            "make generates a task in that layout, the same files for the same seed; --examples keeps the first N of each\n"
            "split. check loads every split and reports counts, lengths, labels and repeated examples. fetch says what to\n"
            "download from where: nothing is downloaded yet.\n"
            "\n"
            "examples:\n"
            "  icebench data make lra/listops --seed 7\n"
            "  icebench data make lra/listops --seed 7 --out /data --examples 2000\n"
            "  ICEBENCH_DATA_DIR=/data icebench data check lra/listops\n",
    .main = data_main,
};
