/* cmd_score.c - verb `score`: marks from stored answers. */
#include <stdio.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/config.h"
#include "harness/score.h"
#include "harness/store_digest.h"

typedef struct score_options {
  const char *filter, *submission, *dry;
  int json;
} score_options;

static int score_stored(const cli_common *common, const char *experiment, const score_options *o, ice_err *e) {
  store *s;
  score m;
  int changed = 0, absent = 0;
  ICE_TRY(store_open(common->db, o->dry ? STORE_READ : STORE_WRITE, &s, e));
  int rc = score_read(s, experiment, o->filter, &m, e);
  if (rc == ICE_OK) {
    rc = store_verify(s, experiment, 0, e); /* new marks get a new digest, which must not cover up an edit */
    if (rc == ICE_OK && !o->dry) rc = score_write(s, &m, &changed, e);
    if (rc == ICE_OK && o->json) rc = score_print_json(&m, e);
    else if (rc == ICE_OK && !common->quiet) score_print(&m, stdout);
    if (rc == ICE_OK && o->submission) rc = score_submission(&m, o->submission, &absent, e);
    if (rc == ICE_OK && o->submission && !common->quiet)
      (void)fprintf(stderr, "%s: written%s\n", o->submission, absent ? "; the leaderboard takes all examples of all ten tasks, and this file has fewer" : "");
    if (rc == ICE_OK && changed && !common->quiet) (void)fprintf(stderr, "%d rows of %s have new marks\n", changed, common->db);
    score_free(&m);
  }
  store_close(s);
  return rc;
}

static int score_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char *file = NULL, *format = "text";
  int files = 0;
  score_options o = {0};
  config_experiment x;
  const cli_option spec[] = {{.name = "filter", .has_value = 1, .value = &o.filter},
                             {.name = "submission", .has_value = 1, .value = &o.submission},
                             {.name = "dry-run", .value = &o.dry},
                             {.name = "format", .has_value = 1, .value = &format},
                             {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, &file, 1, &files, e));
  if (files != 1) return ice_fail(e, ICE_USAGE, "score: needs one file, e.g. icebench score configs/paper/zeroscrolls.yaml");
  ICE_TRY(cli_format(format, &o.json, e));
  ICE_TRY(config_load(file, NULL, &x, e));
  const int rc = score_stored(common, x.name, &o, e);
  config_free(&x);
  return rc;
}

const cli_verb cli_verb_score = {
    .name = "score",
    .summary = "marks from stored answers, once more; the file for a leaderboard",
    .help = "usage: icebench score FILE.yaml [--db FILE] [--filter KEY=VALUE,...] [--submission FILE.csv] [--dry-run] [--format text|json]\n"
            "\n"
            "Computes the marks of all finished rows of an experiment again, from the answers (or predictions) that the database keeps;\n"
            "needs neither model nor data. Rows whose marks are others get the new ones; answers never change, and rows that were edited\n"
            "are refused. For ZeroSCROLLS the average of the tasks is told, too.\n"
            "\n"
            "  --filter KEY=VALUE,...   only rows with this task, model, method, seed\n"
            "  --submission FILE.csv    the predictions of one model and method for the ZeroSCROLLS leaderboard: Task,ID,Prediction\n"
            "  --dry-run                the database stays as it is\n"
            "  --format text|json       (text)\n"
            "\n"
            "exit codes: 0 done, 2 usage, 6 no such rows, 8 database\n"
            "\n"
            "examples:\n"
            "  icebench score configs/paper/zeroscrolls.yaml\n"
            "  icebench score configs/paper/zeroscrolls.yaml --filter method=dense --submission zero_scrolls_predictions.csv\n",
    .main = score_main,
};
