/* cmd_report.c - verb `report`: tables from the database. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "harness/cli.h"
#include "harness/published.h"
#include "harness/report.h"
#include "harness/report_iso.h"
#include "harness/report_mixed.h"
#include "harness/report_verdicts.h"
#include "harness/store_digest.h"

/* Characters in a line of the terminal; 0 when the output goes elsewhere. */
static int terminal_width(void) {
  struct winsize w;
  return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 ? w.ws_col : 0;
}

static int report_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char *format = "md", *experiment = NULL, *against = NULL, *mixed = NULL, *bound = NULL, *by = "estimate";
  report_iso iso = {0};
  int n = 0, chosen = -1;
  const cli_option spec[] = {{.name = "format", .has_value = 1, .value = &format},
                             {.name = "experiment", .has_value = 1, .value = &experiment},
                             {.name = "against", .has_value = 1, .value = &against},
                             {.name = "allow-mixed", .value = &mixed},
                             {.name = "iso-accuracy", .has_value = 1, .value = &bound},
                             {.name = "iso-by", .has_value = 1, .value = &by},
                             {.name = "out", .has_value = 1, .value = &iso.out},
                             {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, NULL, 0, &n, e));
  for (int i = 0; report_formats[i]; i++)
    if (!strcmp(format, report_formats[i])) chosen = i;
  if (chosen < 0) return ice_fail(e, ICE_USAGE, "--format = %s, allowed md, csv, json, latex, html", format);
  if (against && strcmp(against, "paper")) return ice_fail(e, ICE_USAGE, "--against = %s, allowed paper", against);
  if (bound) ICE_TRY(cli_real("iso-accuracy", bound, 0.01, 2, &iso.bound, e));
  if (strcmp(by, "estimate") && strcmp(by, "lower")) return ice_fail(e, ICE_USAGE, "--iso-by = %s, allowed estimate, lower", by);
  if (bound && against) return ice_fail(e, ICE_USAGE, "--iso-accuracy and --against are two reports");
  if (iso.out && !(bound && experiment)) return ice_fail(e, ICE_USAGE, "--out %s: goes with --iso-accuracy and --experiment", iso.out);
  iso.lower = !strcmp(by, "lower");
  char *published = NULL;
  store *s;
  int rc = against ? report_paper_files(&published, e) : ICE_OK;
  if (rc == ICE_OK) rc = store_open(common->db, STORE_READ, &s, e);
  if (rc == ICE_OK) {
    const report_options o = {.experiment = experiment, .format = (report_format)chosen, .width = terminal_width()};
    rc = store_verify(s, experiment, o.format == REPORT_HTML, e);
    if (rc == ICE_OK && !mixed && !published) rc = report_refuse_mixed(s, experiment, e);
    int beside = 0; /* rows of tasks in words; an experiment of them has no verdicts on the Long Range Arena */
    if (rc == ICE_OK && published && o.format == REPORT_MD) rc = published_write(s, &o, stdout, &beside, e);
    if (rc == ICE_OK && bound) rc = report_iso_write(s, &o, &iso, stdout, e);
    else if (rc == ICE_OK && !(beside && experiment)) rc = published ? report_verdicts_write(s, &o, published, stdout, e) : report_write(s, &o, stdout, e);
    store_close(s);
  }
  free(published);
  return rc;
}

const cli_verb cli_verb_report = {
    .name = "report",
    .summary = "tables from the database",
    .help = "usage: icebench report [--db FILE] [--experiment NAME] [--format md|csv|json|latex|html] [--against paper]\n"
            "                       [--iso-accuracy BOUND [--iso-by estimate|lower] [--out FILE.yaml]] [--allow-mixed]\n"
            "\n"
            "One row per cell: accuracy, attention time, speed-up against both baselines, error, memory; a cell without a\n"
            "result says why. md, latex and html are for people and carry a legend; csv and json carry every column of the\n"
            "view `results`. Without --experiment all experiments are reported.\n"
            "html is one file that fetches nothing: tables that sort (numbers as numbers) and filter (words; x dense > 1), charts (quality\n"
            "against time with its Pareto front, speed-up by length with crossovers, heat maps over two parameters, history), and for\n"
            "every number, on hover or focus, where it comes from; arrow keys move in tables and charts; light, dark, print.\n"
            "Accuracies of a table are compared in pairs on the examples that both rows were asked: exact test of McNemar, p-values\n"
            "adjusted (Holm) for the number of pairs, ties named as ties, with the difference that would have been detected.\n"
            "A table whose finished rows come from several builds or machines, or of which some are partial (run --limit), is\n"
            "refused unless --allow-mixed is given: its numbers may differ for reasons that the columns do not show. So is, in any case, a row\n"
            "that was edited after it was stored (exit code 8).\n"
            "--against paper gives instead every published value (results/paper/) with ours, the ratio, and a verdict:\n"
            "reproduced, differs, or not runnable here and why. It takes the rows of configs/paper/lra.yaml, or the best there\n"
            "are; csv and json have one record a value.\n"
            "--iso-accuracy 0.99 tells how much faster each method is at 0.99 of the accuracy of dense or more: of its settings with\n"
            "rows of the dev split (run FILE --set split=dev) the fastest that keeps so much is chosen, by the estimate of accuracy /\n"
            "accuracy of dense, or with --iso-by lower by the lower end of its interval; then its rows of the test split are shown, with\n"
            "intervals. --out writes an experiment of the same name that runs the choices on the test split.\n"
            "\n"
            "examples:\n"
            "  icebench report --experiment quickstart\n"
            "  icebench report --experiment study-k --iso-accuracy 0.99 --out chosen.yaml && icebench run chosen.yaml\n"
            "  icebench report --db results/quickstart.db --format html > quickstart.html\n"
            "  icebench report --against paper --format md\n"
            "  icebench report --format csv | less -S\n"
            "  sqlite3 results/quickstart.db 'SELECT method, params, accuracy, speedup_dense FROM results'\n",
    .main = report_main,
};
