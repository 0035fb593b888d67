/* cmd_data.c - verb `data`: where data sets are, making them, verifying them. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "datasets/source.h"
#include "datasets/sums.h"
#include "datasets/task.h"
#include "harness/cli.h"
#include "harness/data_prompts.h"
#include "harness/fetch.h"

enum { MAX_ROOTS = 64 };

typedef struct data_options {
  const char *seed, *out, *examples, *from, *lengths, *pool;
} data_options;

static volatile sig_atomic_t stop_signal;
static void on_signal(int number) { stop_signal = number; }
static void catch_signals(void) {
  const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}; /* a second one kills */
  (void)sigaction(SIGINT, &action, NULL);
  (void)sigaction(SIGTERM, &action, NULL);
}

/* --- list ---------------------------------------------------------------------------------------------------------- */

/* The tasks that a command is about: the named one or all. ICE_USAGE for an unknown name. */
static int choose(const char *name, const task *const **out, const task *one[2], ice_err *e) {
  *out = task_all;
  if (!name) return ICE_OK;
  one[0] = task_find(name, e);
  one[1] = NULL;
  *out = one;
  return one[0] ? ICE_OK : e->code;
}

static const char *kind_of(const task_data *d) {
  return d->official ? "official" : d->note ? d->note : "generated";
}

/* Closes the lines of a task of which something is absent. */
static void advise(const task *t, int missing) {
  char advice[512];
  task_advice(t, advice, sizeof advice);
  if (missing) (void)printf("  %s\n", advice);
}

static int list_tasks(const cli_common *common, const data_options *o, const char *name, ice_err *e) {
  (void)common, (void)o;
  const task *const *tasks, *one[2];
  ICE_TRY(choose(name, &tasks, one, e));
  for (; *tasks; tasks++) {
    int missing = 0;
    (void)printf("%s: %s\n", (*tasks)->name, (*tasks)->doc);
    if ((*tasks)->prompts) data_prompts_list(*tasks, &missing);
    for (int split = 0; !(*tasks)->prompts && split < TASK_SPLITS; split++) {
      task_data d;
      ice_err why = {0};
      int absent;
      if (task_search(*tasks, (task_split)split, &d, &absent, &why) == ICE_OK) {
        (void)printf("  %-5s %6lld  %s, %s\n", task_split_name((task_split)split), (long long)d.count, kind_of(&d), d.origin);
        task_data_free(&d);
      } else
        (void)printf("  %-5s %s\n", task_split_name((task_split)split), absent ? "absent" : why.text);
      missing |= absent;
    }
    advise(*tasks, missing);
  }
  return ICE_OK;
}

/* --- make ---------------------------------------------------------------------------------------------------------- */

static void tick(void *ctx, int64_t done, int64_t total) { cli_progress_tick(ctx, done, total, ""); }

/* Whether files may be made below a folder, which may be missing. Permission bits count even for root. */
static int is_writable(const char *path) {
  char part[4096];
  struct stat st;
  size_t n = strlen(path);
  if (n == 0 || n >= sizeof part) return 0;
  memcpy(part, path, n + 1);
  while (stat(part, &st) != 0) { /* the nearest folder that exists */
    char *slash = strrchr(part, '/');
    if (slash == part) part[1] = 0;
    else if (slash) *slash = 0;
    else strcpy(part, ".");
  }
  return S_ISDIR(st.st_mode) && (st.st_mode & 0222) && access(part, W_OK) == 0;
}

/* Where data goes when nobody says: the first root that can be written to; datasets/data is the last one. */
static const char *default_root(char *buf, size_t size) {
  const char *roots[MAX_ROOTS];
  const int count = task_roots(buf, size, roots, MAX_ROOTS);
  for (int i = 0; i < count; i++)
    if (is_writable(roots[i])) return roots[i];
  return "datasets/data";
}

enum { MAX_LENGTHS = 64 };

/* "200,300" as numbers, 0-terminated. */
static int read_lengths(const task *t, const char *text, int out[MAX_LENGTHS + 1], ice_err *e) {
  char copy[512], *at = copy;
  int n = 0;
  if (!t->prompts || !t->prompts->lengths) return ice_fail(e, ICE_USAGE, "--lengths: %s has one length", t->name);
  if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy) return ice_fail(e, ICE_USAGE, "--lengths: a list of %zu bytes is too long", strlen(text));
  for (char *one; (one = strsep(&at, ",")) != NULL; n++) {
    long long value;
    if (n == MAX_LENGTHS) return ice_fail(e, ICE_USAGE, "--lengths: more than %d", MAX_LENGTHS);
    ICE_TRY(cli_int("lengths", one, 1, 1000000, &value, e));
    out[n] = (int)value;
  }
  out[n] = 0;
  return ICE_OK;
}

static int make_task(const cli_common *common, const data_options *o, const char *name, ice_err *e) {
  const task *t = name ? task_find(name, e) : NULL;
  char buf[8192];
  long long seed = 1, examples = 0;
  int lengths[MAX_LENGTHS + 1];
  cli_progress progress;
  if (!name) return ice_fail(e, ICE_USAGE, "data make: needs a task, e.g. icebench data make lra/listops --seed 7");
  if (!t) return e->code;
  if (!t->make) return ice_fail(e, ICE_DATA, "%s cannot be generated; %s", t->name, t->source);
  if (o->seed) ICE_TRY(cli_int("seed", o->seed, 0, INT64_MAX, &seed, e));
  if (o->examples) ICE_TRY(cli_int("examples", o->examples, 1, 100000000, &examples, e));
  if (o->lengths) ICE_TRY(read_lengths(t, o->lengths, lengths, e));
  if (o->pool && !t->prompts) return ice_fail(e, ICE_USAGE, "--pool: belongs to longeval/topics");
  if (o->out && !*o->out) return ice_fail(e, ICE_USAGE, "--out is empty; a folder is needed");
  const task_make_options make = {.seed = (uint64_t)seed,
                                  .out = o->out ? o->out : default_root(buf, sizeof buf),
                                  .examples = examples,
                                  .lengths = o->lengths ? lengths : NULL,
                                  .pool = o->pool,
                                  .progress = tick,
                                  .ctx = &progress,
                                  .stop = &stop_signal};
  catch_signals();
  cli_progress_start(&progress, t->name, !common->quiet);
  const int rc = t->make(&make, e), number = (int)stop_signal;
  cli_progress_end(&progress);
  if (rc != ICE_OK && number)
    return ice_fail(e, 128 + number, "interrupted; %s below %s is incomplete and will not be read, run the same command again",
                    t->name, make.out);
  if (rc == ICE_OK && !common->quiet) (void)printf("%s: made below %s (seed %lld)\n", t->name, make.out, seed);
  return rc;
}

/* --- check --------------------------------------------------------------------------------------------------------- */

typedef struct seen {
  uint64_t hash; /* of the tokens of one example */
  int split;
} seen;

/* What a check has met so far. */
typedef struct census {
  seen *all;
  int64_t count, splits;
  int missing; /* a split is absent */
} census;

static int by_hash(const void *a, const void *b) {
  const seen *x = a, *y = b;
  return x->hash != y->hash ? (x->hash > y->hash) - (x->hash < y->hash) : x->split - y->split;
}

static int add_split(census *c, task_split split, const task_data *d, ice_err *e) {
  seen *grown = realloc(c->all, (size_t)(c->count + d->count) * sizeof *grown);
  if (!grown) return ice_fail(e, ICE_INTERNAL, "out of memory for %lld examples", (long long)(c->count + d->count));
  for (int64_t i = 0; i < d->count; i++) {
    const int64_t first = d->start[i * d->inputs], last = d->start[(i + 1) * d->inputs];
    grown[c->count++] =
        (seen){.hash = XXH3_64bits(d->tokens + first, (size_t)(last - first) * sizeof *d->tokens), .split = (int)split};
  }
  c->all = grown;
  c->splits++;
  return ICE_OK;
}

static void report_repeats(const census *c) {
  int64_t within = 0, across = 0;
  qsort(c->all, (size_t)c->count, sizeof *c->all, by_hash);
  for (int64_t i = 1; i < c->count; i++)
    if (c->all[i].hash == c->all[i - 1].hash) c->all[i].split == c->all[i - 1].split ? within++ : across++;
  (void)printf("  repeated examples: %lld within a split, %lld across splits\n", (long long)within, (long long)across);
}

static void describe_split(const task *t, task_split split, const task_data *d) {
  int64_t shortest = INT64_MAX, longest = 0, count[64] = {0};
  for (int64_t i = 0; i < d->count * d->inputs; i++) {
    const int64_t n = d->start[i + 1] - d->start[i];
    shortest = n < shortest ? n : shortest;
    longest = n > longest ? n : longest;
  }
  (void)printf("  %-5s %lld examples of %lld, %s\n", task_split_name(split), (long long)d->count,
               (long long)t->official_count[split], kind_of(d));
  (void)printf("        %s, xxh3 %016llx\n", d->origin, (unsigned long long)d->hash);
  if (d->empty) (void)printf("        %lld empty files passed over\n", (long long)d->empty);
  if (source_ignored(d->origin))
    (void)printf("        members of the archive passed over (links, names that lead out of it): %lld\n", (long long)source_ignored(d->origin));
  (void)printf("        %lld..%lld tokens, mean %.1f; labels", (long long)shortest, (long long)longest,
               (double)d->start[d->count * d->inputs] / (double)(d->count * d->inputs));
  for (int64_t i = 0; i < d->count; i++) count[d->label[i] & 63]++;
  for (int c = 0; c < t->classes && c < 64; c++) (void)printf(" %.1f%%", 100.0 * (double)count[c] / (double)d->count);
  (void)printf("\n");
}

/* Every label against the value computed from the tokens, where a task can do that. */
static int check_labels(const task *t, task_split split, const task_data *d, ice_err *e) {
  int64_t wrong = 0, first = 0;
  for (int64_t i = d->count - 1; t->value && i >= 0; i--)
    if (t->value(d, i) != d->label[i]) wrong++, first = i;
  if (!wrong) return ICE_OK;
  const int value = t->value(d, first);
  (void)printf("        %lld wrong labels\n", (long long)wrong);
  return ice_fail(e, ICE_DATA, "%s: example %lld of %s: label %d, %s %d; make or fetch the set again", d->origin,
                  (long long)first + 1, task_split_name(split), (int)d->label[first],
                  value < 0 ? "tokens without meaning, value" : "value", value);
}

/* A set that claims to be the release has its counts, its balance, and the checksums that lie beside it. */
static int check_against_release(const task *t, task_split split, const task_data *d, ice_err *e) {
  int found;
  const int rc = sums_check(d->origin, &found, e);
  if (found && rc == ICE_OK) (void)printf("        SHA-256 as in SHA256SUMS\n");
  if (rc != ICE_OK || d->standin || (!d->official && !d->note)) return rc;
  if (d->count > t->official_count[split] || d->count < t->official_count[split] - t->may_lack)
    return ice_fail(e, ICE_DATA, "%s: %lld examples in %s, the release has %lld; fetch the set again", d->origin, (long long)d->count,
                    task_split_name(split), (long long)t->official_count[split]);
  for (int c = 0; c < t->classes && t->balanced[split]; c++) {
    int64_t n = 0;
    for (int64_t i = 0; i < d->count; i++) n += d->label[i] == c;
    if (n * t->classes != d->count)
      return ice_fail(e, ICE_DATA, "%s: %lld examples of class %d in %s, the release has %lld; fetch the set again", d->origin, (long long)n, c,
                      task_split_name(split), (long long)d->count / t->classes);
  }
  return ICE_OK;
}

/* Returns the first fault and goes on behind it. */
static int check_one(const task *t, census *c, int must_exist, ice_err *e) {
  int rc = ICE_OK;
  (void)printf("%s\n", t->name);
  for (int split = 0; split < TASK_SPLITS; split++) {
    task_data d;
    ice_err why = {0};
    int absent, one = task_search(t, (task_split)split, &d, &absent, &why);
    if (one == ICE_OK) {
      describe_split(t, (task_split)split, &d);
      one = check_labels(t, (task_split)split, &d, &why);
      if (one == ICE_OK) one = check_against_release(t, (task_split)split, &d, &why);
      if (one == ICE_OK || one == ICE_DATA) {
        const int added = add_split(c, (task_split)split, &d, NULL);
        if (added != ICE_OK) one = ice_fail(&why, added, "%s", "out of memory for a list of examples");
      }
      task_data_free(&d);
    } else {
      (void)printf("  %-5s %s\n", task_split_name((task_split)split), absent ? "absent" : why.text);
      if (absent && !must_exist) one = ICE_OK;
      c->missing |= absent;
    }
    if (one != ICE_OK && rc == ICE_OK) rc = ice_fail(e, one, "%s", why.text);
  }
  return rc;
}

static int check_tasks(const cli_common *common, const data_options *o, const char *name, ice_err *e) {
  (void)common, (void)o;
  const task *const *tasks, *one[2];
  int rc = ICE_OK;
  int64_t splits = 0;
  ICE_TRY(choose(name, &tasks, one, e));
  for (; *tasks; tasks++) {
    census c = {0};
    ice_err why = {0};
    if ((*tasks)->prompts) (void)printf("%s\n", (*tasks)->name);
    int bad = (*tasks)->prompts ? data_prompts_check(*tasks, &c.splits, &c.missing, &why) : check_one(*tasks, &c, name != NULL, &why);
    if (bad == ICE_OK && name && (*tasks)->prompts && !c.splits) bad = ice_fail(&why, ICE_DATA, "%s: no data; see `icebench data list %s`", name, name);
    if (c.count) report_repeats(&c);
    advise(*tasks, c.missing);
    splits += c.splits;
    free(c.all);
    if (bad != ICE_OK && rc == ICE_OK) rc = ice_fail(e, bad, "%s", why.text);
  }
  if (rc == ICE_OK && !splits) return ice_fail(e, ICE_DATA, "no task has data; see `icebench data list`");
  return rc;
}

/* --- fetch --------------------------------------------------------------------------------------------------------- */

static void fetch_tick(void *ctx, const char *what, int64_t done, int64_t total) {
  cli_progress_tick(ctx, done, total, strcmp(what, "download") ? "files unpacked" : "MiB downloaded");
}

static int fetch_one(const cli_common *common, const data_options *o, const char *name, ice_err *e) {
  const task *t = name ? task_find(name, e) : NULL;
  char buf[8192];
  cli_progress progress;
  int fresh;
  if (!name) return ice_fail(e, ICE_USAGE, "data fetch: needs a task; see icebench list tasks");
  if (!t) return e->code;
  if (o->out && !*o->out) return ice_fail(e, ICE_USAGE, "--out is empty; a folder is needed");
  const fetch_options fetch = {.out = o->out ? o->out : default_root(buf, sizeof buf),
                               .from = o->from,
                               .progress = fetch_tick,
                               .ctx = &progress,
                               .stop = &stop_signal};
  catch_signals();
  cli_progress_start(&progress, t->name, !common->quiet);
  const int rc = fetch_task(t, &fetch, &fresh, e), number = (int)stop_signal;
  cli_progress_end(&progress);
  if (rc != ICE_OK && number) return ice_fail(e, 128 + number, "interrupted; run the same command again to go on");
  if (rc == ICE_OK && !common->quiet)
    (void)printf("%s: %s below %s\n", t->name, fresh ? "fetched, and its test split read," : "there already", fetch.out);
  return rc;
}

/* ------------------------------------------------------------------------------------------------------------------- */

static int data_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  static const struct {
    const char *name;
    int (*run)(const cli_common *common, const data_options *o, const char *task, ice_err *e);
    const char *takes; /* first letters of its options */
  } action[] = {{"list", list_tasks, ""}, {"make", make_task, "soelp"}, {"fetch", fetch_one, "of"}, {"check", check_tasks, ""}};
  data_options o = {0};
  const char *words[2] = {NULL, NULL};
  int n = 0;
  const cli_option spec[] = {{.name = "seed", .has_value = 1, .value = &o.seed},
                             {.name = "out", .has_value = 1, .value = &o.out},
                             {.name = "examples", .has_value = 1, .value = &o.examples},
                             {.name = "from", .has_value = 1, .value = &o.from},
                             {.name = "lengths", .has_value = 1, .value = &o.lengths},
                             {.name = "pool", .has_value = 1, .value = &o.pool},
                             {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, words, 2, &n, e));
  for (size_t i = 0; words[0] && i < sizeof action / sizeof *action; i++) {
    if (strcmp(words[0], action[i].name)) continue;
    for (const cli_option *x = spec; x->name; x++)
      if (*x->value && !strchr(action[i].takes, x->name[0]))
        return ice_fail(e, ICE_USAGE, "data %s takes no --%s; see icebench data --help", words[0], x->name);
    return action[i].run(common, &o, words[1], e);
  }
  return ice_fail(e, ICE_USAGE, "data %s: allowed list, make, fetch, check", words[0] ? words[0] : "WHAT");
}

const cli_verb cli_verb_data = {
    .name = "data",
    .summary = "data sets: where they are, making, fetching and checking them",
    .help = "usage: icebench data list [TASK]\n"
            "       icebench data make TASK [--seed S] [--out DIR] [--examples N] [--lengths N,N,...] [--pool FILE]\n"
            "       icebench data check [TASK]\n"
            "       icebench data fetch TASK [--out DIR] [--from URL]\n"
            "\n"
            "Data is looked for in the folders of $ICEBENCH_DATA_DIR (separated by ':'), then in datasets/data, in the\n"
            "official layout of each release; files and folders may be .gz, .zip, .tar, .tar.gz.\n"
            "list shows every split, its file, and what to do where one is absent.\n"
            "make generates a task in that layout, the same files for the same seed (default 1), below DIR (default: the\n"
            "first of these folders that can be written to); --examples keeps the first N of each split. longeval/lines and\n"
            "longeval/topics take --lengths, numbers of lines or topics; --pool names a conversations.jsonl to draw topics from.\n"
            "check reads every split: checksums (SHA256SUMS beside the data, generated.json), counts and balance of the release,\n"
            "lengths, labels against what the tokens say, repeated examples.\n"
            "fetch downloads the official archive below DIR, verifies and unpacks what the task needs; nothing else uses the\n"
            "network. Interrupted, it goes on where it stopped. --from names another address of the same archive\n"
            "(http, https, or file:///absolute/path).\n"
            "\n"
            "exit codes: 0 done, 2 usage, 7 data missing or not sane, 130/143 interrupted\n"
            "\n"
            "examples:\n"
            "  icebench data make lra/listops --seed 7\n"
            "  icebench data make lra/listops --seed 7 --out /data --examples 2000\n"
            "  icebench data make longeval/lines --seed 7 --lengths 20,50,200\n"
            "  icebench data fetch lra/text --out /data\n"
            "  icebench data fetch lra/listops --from file:///mnt/lra_release.gz\n"
            "  ICEBENCH_DATA_DIR=/data icebench data check lra/listops\n",
    .main = data_main,
};
