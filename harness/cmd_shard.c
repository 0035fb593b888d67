/* cmd_shard.c - verb `shard`: the cells of an experiment cut into lists, for several machines or a Slurm array. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli.h"
#include "harness/run.h"
#include "kernels/core/fileio.h"

typedef struct shards {
  const cli_common *common;
  const char *file, *out;
  const char *const *set; /* NULL-terminated, or NULL */
  const char *limit;
  int n, slurm;
  int *of;         /* [cells of the plan] shard of each, -1: is there */
  double *seconds; /* [n] */
} shards;

/* ---- The cut: longest first, each to the shard with least to do (Graham 1969: at most 4/3 of the best). Cells that run as one
 * group stay together, so that their index and references are made once; only where there are fewer groups than shards are the
 * longest halved. */

typedef struct piece { /* cells of a group that are to run, among cells [first, first + cells) of the plan */
  double seconds;
  int first, cells, todo;
} piece;

static int longest_first(const void *a, const void *b) {
  const piece *x = a, *y = b;
  if (x->seconds != y->seconds) return x->seconds > y->seconds ? -1 : 1;
  return x->first - y->first;
}

static piece piece_of(const run_plan *p, int first, int cells) {
  piece out = {.first = first, .cells = cells};
  for (int i = first; i < first + cells; i++)
    if (!p->cell[i].done) out.todo++, out.seconds += p->cell[i].seconds;
  return out;
}

/* The groups of a plan with something to do; returns how many, *todo: their cells. */
static int find_pieces(const run_plan *p, piece *out, int *todo) {
  int n = 0;
  *todo = 0;
  for (int i = 0, cells; i < p->n; i += cells) {
    for (cells = 1; i + cells < p->n && p->cell[i + cells].shares; cells++) {}
    out[n] = piece_of(p, i, cells);
    *todo += out[n].todo;
    n += out[n].todo > 0;
  }
  return n;
}

/* Halves the longest piece of several cells, which is there, and puts its second half at the end. */
static void halve_longest(const run_plan *p, piece *all, int n) {
  int at = -1;
  for (int i = 0; i < n; i++)
    if (all[i].todo > 1 && (at < 0 || longest_first(all + i, all + at) < 0)) at = i;
  const piece whole = all[at];
  int cells = 0;
  for (int half = 0; half < whole.todo / 2; cells++) half += !p->cell[whole.first + cells].done;
  all[at] = piece_of(p, whole.first, cells);
  all[n] = piece_of(p, whole.first + cells, whole.cells - cells);
}

static int cut(shards *s, const run_plan *p, ice_err *e) {
  piece *all = calloc((size_t)p->n + 1, sizeof *all);
  int todo;
  if (!all) return ice_fail(e, ICE_INTERNAL, "out of memory");
  int n = find_pieces(p, all, &todo);
  int rc = todo == 0     ? ice_fail(e, ICE_USAGE, "%s: nothing is left to run, %s has all %d cells", s->file, s->common->db, p->n)
           : s->n > todo ? ice_fail(e, ICE_USAGE, "-n = %d, allowed 1..%d, the cells that are to run", s->n, todo)
                         : ICE_OK;
  for (int i = 0; i < p->n; i++) s->of[i] = -1;
  for (; rc == ICE_OK && n < s->n; n++) halve_longest(p, all, n);
  qsort(all, (size_t)n, sizeof *all, longest_first);
  for (int i = 0; rc == ICE_OK && i < n; i++) {
    int least = 0;
    for (int k = 1; k < s->n; k++)
      if (s->seconds[k] < s->seconds[least]) least = k;
    for (int k = all[i].first; k < all[i].first + all[i].cells; k++)
      if (!p->cell[k].done) s->of[k] = least;
    s->seconds[least] += all[i].seconds;
  }
  free(all);
  return rc;
}

/* ---- Files. */

static int begin(file_out *f, const shards *s, const char *name, ice_err *e) {
  char path[FILE_PATH];
  ICE_TRY(file_join(path, s->out, name, e));
  return file_out_open(f, path, e);
}

static int write_cells(const shards *s, const run_plan *p, int k, ice_err *e) {
  char name[32];
  file_out f;
  (void)snprintf(name, sizeof name, "%d.cells", k + 1);
  ICE_TRY(begin(&f, s, name, e));
  for (int i = 0; i < p->n; i++) {
    if (s->of[i] != k) continue;
    char *json = config_cell_json(&p->x, p->cell[i].cell);
    if (!json) {
      file_out_abort(&f);
      return ice_fail(e, ICE_INTERNAL, "out of memory");
    }
    (void)fprintf(f.stream, "%s\n", json);
    free(json);
  }
  return file_out_commit(&f, e);
}

/* A word as sh reads it. */
static void quote(FILE *f, const char *text) {
  (void)fputc('\'', f);
  for (; *text; text++) (void)(*text == '\'' ? fputs("'\\''", f) : fputc(*text, f));
  (void)fputc('\'', f);
}

/* The options of `run` and `plan` that make these cells. */
static void print_options(const shards *s, const run_plan *p, FILE *f) {
  for (const char *const *v = s->set; v && *v; v++) {
    (void)fputs(" --set ", f);
    quote(f, *v);
  }
  if (s->limit) (void)fprintf(f, " --limit %s", s->limit);
  (void)fprintf(f, " --threads %d", p->x.threads); /* else each machine would take as many as it has */
}

static int absolute(const char *path, char *out, ice_err *e) {
  char here[PATH_MAX] = "";
  if (*path == '/') return file_join(out, "/", path + 1, e);
  if (!getcwd(here, sizeof here)) return ice_fail(e, ICE_INTERNAL, "the working folder is gone");
  return file_join(out, here, path, e);
}

/* sbatch knows no quotes in its comments, and takes % for its own. */
static int plain(const char *path) {
  return path[strspn(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+-")] == 0;
}

typedef struct places { /* absolute: a job starts anywhere */
  char self[FILE_PATH], here[FILE_PATH], file[FILE_PATH], out[FILE_PATH], db[FILE_PATH];
} places;

static int find_places(const shards *s, places *at, ice_err *e) {
  const ssize_t n = readlink("/proc/self/exe", at->self, sizeof at->self - 1);
  if (n <= 0) return ice_fail(e, ICE_INTERNAL, "cannot find this program: /proc is not there");
  at->self[n] = 0;
  if (!getcwd(at->here, sizeof at->here)) return ice_fail(e, ICE_INTERNAL, "the working folder is gone");
  ICE_TRY(absolute(s->file, at->file, e));
  ICE_TRY(absolute(s->out, at->out, e));
  ICE_TRY(absolute(s->common->db, at->db, e));
  if (!plain(at->out)) return ice_fail(e, ICE_USAGE, "--out = %s: sbatch takes only letters, digits and / . _ + - in names of files", s->out);
  return ICE_OK;
}

/* Three times what is expected, and a quarter of an hour. */
static int minutes_of(const shards *s) {
  double longest = 0.0;
  for (int k = 0; k < s->n; k++) longest = fmax(longest, s->seconds[k]);
  return 15 + (int)fmin(3.0 * longest / 60.0, 1e6);
}

static int write_job(const shards *s, const run_plan *p, const places *at, ice_err *e) {
  file_out f;
  ICE_TRY(begin(&f, s, "job.sh", e));
  (void)fprintf(f.stream,
                "#!/bin/sh\n# One task of the experiment %s for each shard, each with a database of its own.\n"
                "#SBATCH --job-name=icebench-%s\n#SBATCH --array=1-%d\n#SBATCH --ntasks=1\n#SBATCH --cpus-per-task=%d\n#SBATCH --mem=%.0fM\n"
                "#SBATCH --time=%d\n#SBATCH --output=%s/%%a.log\n"
                "#SBATCH --exclusive\n# (a node to itself: neighbours move times; where only accuracy counts the line may go)\n"
                "#SBATCH --signal=B:TERM@60\n# (so that it ends cleanly before its time is over; the same job again goes on there)\n",
                p->x.name, p->x.name, s->n, p->x.threads, ceil(p->x.limit_gib * 1024.0) + 512.0, minutes_of(s), at->out);
  (void)fputs("cd ", f.stream);
  quote(f.stream, at->here);
  (void)fputs(" || exit 1\nexec ", f.stream);
  quote(f.stream, at->self);
  (void)fputs(" run ", f.stream);
  quote(f.stream, at->file);
  (void)fprintf(f.stream, " --cells %s/\"$SLURM_ARRAY_TASK_ID\".cells --db %s/\"$SLURM_ARRAY_TASK_ID\".db", at->out, at->out);
  print_options(s, p, f.stream);
  (void)fputc('\n', f.stream);
  return file_out_commit(&f, e);
}

static int write_merge(const shards *s, const run_plan *p, const places *at, ice_err *e) {
  file_out f;
  ICE_TRY(begin(&f, s, "merge.sh", e));
  (void)fprintf(f.stream, "#!/bin/sh\n#SBATCH --job-name=icebench-%s-merge\n#SBATCH --ntasks=1\n#SBATCH --output=%s/merge.log\n", p->x.name, at->out);
  (void)fputs("exec ", f.stream);
  quote(f.stream, at->self);
  (void)fputs(" merge ", f.stream);
  quote(f.stream, at->db);
  (void)fprintf(f.stream, " %s/*.db\n", at->out);
  ICE_TRY(file_out_commit(&f, e));
  ICE_TRY(begin(&f, s, "submit.sh", e));
  (void)fprintf(f.stream,
                "#!/bin/sh\n# The tasks, then the merge, whatever became of them: cells that failed are rows too.\n"
                "job=$(sbatch --parsable %s/job.sh) && sbatch --dependency=afterany:\"$job\" %s/merge.sh\n",
                at->out, at->out);
  return file_out_commit(&f, e);
}

static int write_all(const shards *s, const run_plan *p, ice_err *e) {
  places at;
  char first[FILE_PATH];
  if (s->slurm) ICE_TRY(find_places(s, &at, e));
  ICE_TRY(file_make_dirs(s->out, e));
  ICE_TRY(file_join(first, s->out, "1.cells", e));
  if (access(first, F_OK) == 0) return ice_fail(e, ICE_USAGE, "--out %s: holds shards already; name another folder, or remove it", s->out);
  if (s->slurm) ICE_TRY(write_job(s, p, &at, e));
  if (s->slurm) ICE_TRY(write_merge(s, p, &at, e));
  for (int k = s->n - 1; k >= 0; k--) ICE_TRY(write_cells(s, p, k, e)); /* 1.cells last: then all is there */
  return ICE_OK;
}

static void tell(const shards *s, const run_plan *p) {
  double least = INFINITY, most = 0.0;
  for (int k = 0; k < s->n; k++) least = fmin(least, s->seconds[k]), most = fmax(most, s->seconds[k]);
  (void)printf("%s: %d cells in %d shards of about %.1f to %.1f min; %d were there\n", p->x.name, p->n - p->n_done, s->n, least / 60.0, most / 60.0, p->n_done);
  if (s->slurm) {
    (void)printf("sh %s/submit.sh\n", s->out);
    return;
  }
  (void)printf("icebench run %s --cells %s/1.cells --db %s/1.db", s->file, s->out, s->out);
  print_options(s, p, stdout);
  (void)printf("   # and so on to %d, on any machine\nicebench merge %s %s/*.db\n", s->n, s->common->db, s->out);
}

static int shard_file(shards *s, const run_options *o, ice_err *e) {
  run_plan p;
  store *db = NULL;
  char folder[256];
  ICE_TRY(run_plan_create(&p, s->file, o, e));
  int rc = access(s->common->db, F_OK) == 0 ? store_open(s->common->db, STORE_READ, &db, e) : ICE_OK;
  if (rc == ICE_OK && db) rc = run_plan_look_up(&p, db, o, e);
  if (rc == ICE_OK) run_plan_estimate(&p, db);
  (void)snprintf(folder, sizeof folder, "results/shards/%s", p.x.name);
  if (!s->out) s->out = folder;
  s->of = calloc((size_t)p.n + 1, sizeof *s->of);
  s->seconds = calloc((size_t)s->n, sizeof *s->seconds);
  if (rc == ICE_OK && (!s->of || !s->seconds)) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) rc = cut(s, &p, e);
  if (rc == ICE_OK) rc = write_all(s, &p, e);
  if (rc == ICE_OK && !s->common->quiet) tell(s, &p);
  free(s->of);
  free(s->seconds);
  store_close(db);
  run_plan_destroy(&p);
  return rc;
}

static int shard_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  run_options o = {0};
  shards s = {.common = common};
  const char *n = NULL, *slurm = NULL, *preset = NULL, *threads = NULL, **set = NULL;
  char *named = NULL;
  int files = 0;
  long long count = 0;
  const cli_option spec[] = {{.name = "n", .has_value = 1, .value = &n},
                             {.name = "slurm", .value = &slurm},
                             {.name = "out", .has_value = 1, .value = &s.out},
                             {.name = "filter", .has_value = 1, .value = &o.filter},
                             {.name = "limit", .has_value = 1, .value = &s.limit},
                             {.name = "preset", .has_value = 1, .value = &preset},
                             {.name = "set", .has_value = 1, .list = &set},
                             {.name = "threads", .has_value = 1, .value = &threads},
                             {.name = NULL}};
  int rc = cli_parse(argc, argv, spec, &s.file, 1, &files, e);
  if (rc == ICE_OK && (files != 1 || !n)) rc = ice_fail(e, ICE_USAGE, "shard: needs a file and a number, e.g. icebench shard configs/quickstart.yaml -n 4");
  if (rc == ICE_OK) rc = cli_int("n", n, 1, 10000, &count, e);
  if (rc == ICE_OK && s.out && !*s.out) rc = ice_fail(e, ICE_USAGE, "--out = '', a folder is needed");
  if (rc == ICE_OK) rc = run_read_numbers(s.limit, threads, &o, e);
  if (rc == ICE_OK) rc = cli_preset(preset, &set, &named, e);
  o.set = s.set = set;
  s.n = (int)count, s.slurm = slurm != NULL;
  if (rc == ICE_OK) rc = shard_file(&s, &o, e);
  free((void *)set);
  free(named);
  return rc;
}

const cli_verb cli_verb_shard = {
    .name = "shard",
    .summary = "split an experiment for several machines",
    .help = "usage: icebench shard FILE.yaml -n N [options]\n"
            "\n"
            "Cuts the cells that the database does not have into N lists of about equal time (times as `icebench plan` sees\n"
            "them) and writes DIR/1.cells to DIR/N.cells. Each list is run anywhere, with a database of its own; merged, these\n"
            "hold what one run would have stored, but for times. Program, data and models must be the same everywhere, and so\n"
            "must the number of threads and the instruction set, which are part of a cell. Cells that run as one group (marked + by\n"
            "`plan`) stay in one list, unless there are fewer groups than lists.\n"
            "\n"
            "  -n N            number of lists\n"
            "  --out DIR       (results/shards/NAME, NAME of the experiment)\n"
            "  --slurm         also writes DIR/job.sh, an array of N tasks for sbatch, DIR/merge.sh, and DIR/submit.sh, which\n"
            "                  submits both, the merge into --db as a job that waits for the tasks\n"
            "  --limit N, --filter KEY=VALUE,..., --set KEY=VALUE, --preset NAME, --threads T   as for `icebench run`\n"
            "\n"
            "With GNU parallel, on one machine (tasks side by side move each other's times: for accuracies only):\n"
            "  parallel icebench run FILE.yaml --threads 1 --cells {} --db {.}.db ::: DIR/*.cells\n"
            "  icebench merge results/icebench.db DIR/*.db\n"
            "or over machines that share the folder, one task at a time on each:\n"
            "  parallel -j 1 -S node1,node2 --wd . icebench run FILE.yaml --cells {} --db {.}.db ::: DIR/*.cells\n"
            "On network file systems databases have no write-ahead log: one writer each, as here, is what they can take.\n"
            "\n"
            "examples:\n"
            "  icebench shard configs/quickstart.yaml -n 4\n"
            "  icebench shard configs/experiments/listops-sweep-k.yaml -n 8 --slurm --threads 4 --db results/sweep.db\n",
    .main = shard_main,
};
