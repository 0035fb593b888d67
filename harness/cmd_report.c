/* cmd_report.c - verb `report`: tables from the database. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "harness/cli.h"
#include "harness/published.h"
#include "harness/report.h"
#include "harness/report_mixed.h"
#include "harness/report_verdicts.h"

/* Characters in a line of the terminal; 0 when the output goes elsewhere. */
static int terminal_width(void) {
  struct winsize w;
  return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 ? w.ws_col : 0;
}

static int report_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char *format = "md", *experiment = NULL, *against = NULL, *mixed = NULL;
  int n = 0, chosen = -1;
  const cli_option spec[] = {{.name = "format", .has_value = 1, .value = &format},
                             {.name = "experiment", .has_value = 1, .value = &experiment},
                             {.name = "against", .has_value = 1, .value = &against},
                             {.name = "allow-mixed", .value = &mixed},
                             {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, NULL, 0, &n, e));
  for (int i = 0; report_formats[i]; i++)
    if (!strcmp(format, report_formats[i])) chosen = i;
  if (chosen < 0) return ice_fail(e, ICE_USAGE, "--format = %s, allowed md, csv, json, latex, html", format);
  if (against && strcmp(against, "paper")) return ice_fail(e, ICE_USAGE, "--against = %s, allowed paper", against);
  char *published = NULL;
  store *s;
  int rc = against ? report_paper_files(&published, e) : ICE_OK;
  if (rc == ICE_OK) rc = store_open(common->db, STORE_READ, &s, e);
  if (rc == ICE_OK) {
    const report_options o = {.experiment = experiment, .format = (report_format)chosen, .width = terminal_width()};
    if (!mixed && !published) rc = report_refuse_mixed(s, experiment, e);
    int beside = 0; /* rows of tasks in words; an experiment of them has no verdicts on the Long Range Arena */
    if (rc == ICE_OK && published && o.format == REPORT_MD) rc = published_write(s, &o, stdout, &beside, e);
    if (rc == ICE_OK && !(beside && experiment)) rc = published ? report_verdicts_write(s, &o, published, stdout, e) : report_write(s, &o, stdout, e);
    store_close(s);
  }
  free(published);
  return rc;
}

const cli_verb cli_verb_report = {
    .name = "report",
    .summary = "tables from the database",
    .help = "usage: icebench report [--db FILE] [--experiment NAME] [--format md|csv|json|latex|html] [--against paper]\n"
            "                       [--allow-mixed]\n"
            "\n"
            "One row per cell: accuracy, attention time, speed-up against both baselines, error, memory; a cell without a\n"
            "result says why. md, latex and html are for people and carry a legend; csv and json carry every column of the\n"
            "view `results`. Without --experiment all experiments are reported.\n"
            "Accuracies of a table are compared in pairs on the examples that both rows were asked: exact test of McNemar, p-values\n"
            "adjusted (Holm) for the number of pairs, ties named as ties, with the difference that would have been detected.\n"
            "A table whose finished rows come from several builds or machines, or of which some are partial (run --limit), is\n"
            "refused unless --allow-mixed is given: its numbers may differ for reasons that the columns do not show.\n"
            "--against paper gives instead every published value (results/paper/) with ours, the ratio, and a verdict:\n"
            "reproduced, differs, or not runnable here and why. It takes the rows of configs/paper/lra.yaml, or the best there\n"
            "are; csv and json have one record a value.\n"
            "\n"
            "examples:\n"
            "  icebench report --experiment quickstart\n"
            "  icebench report --db results/quickstart.db --format html > quickstart.html\n"
            "  icebench report --against paper --format md\n"
            "  icebench report --format csv | less -S\n"
            "  sqlite3 results/quickstart.db 'SELECT method, params, accuracy, speedup_dense FROM results'\n",
    .main = report_main,
};
