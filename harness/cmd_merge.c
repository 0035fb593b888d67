/* cmd_merge.c - verb `merge`: databases of several machines, or shards, become one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/cli.h"
#include "harness/store_merge.h"

static int same_file(const char *a, const char *b) {
  struct stat x, y;
  return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int open_sources(const char **file, int n, store **in, ice_err *e) {
  for (int i = 0; i < n; i++) {
    if (same_file(file[0], file[1 + i])) return ice_fail(e, ICE_USAGE, "%s: given as target and as source", file[1 + i]);
    ICE_TRY(store_open(file[1 + i], STORE_READ, &in[i], e));
  }
  return ICE_OK;
}

/* Sources are looked at before the target is made. */
static int merge_files(const cli_common *common, const char **file, int n, store_keep keep, ice_err *e) {
  store *out = NULL, **in = calloc((size_t)n, sizeof *in);
  store_merged *done = calloc((size_t)n, sizeof *done);
  int rc = in && done ? open_sources(file, n, in, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) rc = store_open(file[0], STORE_WRITE, &out, e);
  if (rc == ICE_OK) rc = store_merge(out, in, n, keep, done, e);
  for (int i = 0; rc == ICE_OK && i < n && !common->quiet; i++)
    (void)printf("%s: %lld rows from %s, %lld were there; %lld older ones replaced\n", file[0], (long long)done[i].added, file[1 + i],
                 (long long)done[i].known, (long long)done[i].retired);
  store_close(out);
  for (int i = 0; in && i < n; i++) store_close(in[i]);
  free((void *)in);
  free(done);
  return rc;
}

static int merge_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char **file = calloc((size_t)argc, sizeof *file), *keep = NULL;
  int files = 0;
  const cli_option spec[] = {{.name = "keep", .has_value = 1, .value = &keep}, {.name = NULL}};
  int rc = file ? cli_parse(argc, argv, spec, file, argc, &files, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK && files < 2)
    rc = ice_fail(e, ICE_USAGE, "merge: needs the target and at least one source, e.g. icebench merge results/all.db a.db b.db");
  if (rc == ICE_OK && keep && strcmp(keep, "out") && strcmp(keep, "newest"))
    rc = ice_fail(e, ICE_USAGE, "--keep = %s, allowed out, newest", keep);
  if (rc == ICE_OK)
    rc = merge_files(common, file, files - 1, !keep ? STORE_KEEP_NEITHER : !strcmp(keep, "out") ? STORE_KEEP_OUT : STORE_KEEP_NEWEST, e);
  free((void *)file);
  return rc;
}

const cli_verb cli_verb_merge = {
    .name = "merge",
    .summary = "one database from several",
    .help = "usage: icebench merge OUT.db IN.db... [--keep out|newest]\n"
            "\n"
            "Adds what the sources have to OUT.db, which is made when absent. Sources are only read, and may be of an older\n"
            "schema. All of it is one transaction; merging again changes nothing.\n"
            "\n"
            "A cell is the same cell on every machine, and one row of it counts. Where both sides have one: the row that\n"
            "came later, when one side knows both; the finished one, when the other failed. Two finished rows with different\n"
            "results are a conflict: the command names both origins and merges nothing, unless told\n"
            "  --keep out       that the row in OUT.db (or in the source named first) counts\n"
            "  --keep newest    that the row which started last counts\n"
            "No row is lost: those that do not count are in the view `history`. A row that was edited after it was stored\n"
            "(its digest tells) is refused.\n"
            "\n"
            "examples:\n"
            "  icebench merge results/all.db node1.db node2.db\n"
            "  icebench merge results/all.db results/shards/*.db\n"
            "\n"
            "exit codes: 0 done, 2 usage or conflict, 8 a database is missing, locked, newer, damaged or edited\n",
    .main = merge_main,
};
