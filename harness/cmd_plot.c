/* cmd_plot.c - verb `plot`: charts from the database. */
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/plot.h"
#include "harness/report_paper.h"
#include "harness/store_digest.h"

static int plot_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  plot_options o = {.out = "plots/out", .terminal = "svg", .quiet = common->quiet};
  const char *against = NULL;
  char *published = NULL;
  int n = 0;
  const cli_option spec[] = {{.name = "experiment", .has_value = 1, .value = &o.experiment},
                             {.name = "out", .has_value = 1, .value = &o.out},
                             {.name = "terminal", .has_value = 1, .value = &o.terminal},
                             {.name = "against", .has_value = 1, .value = &against},
                             {.name = "figure", .has_value = 1, .value = &o.figure},
                             {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, NULL, 0, &n, e));
  if (against && strcmp(against, "paper")) return ice_fail(e, ICE_USAGE, "--against = %s, allowed paper", against);
  store *s;
  int rc = against ? report_paper_files(&published, e) : ICE_OK;
  if (rc == ICE_OK) rc = store_open(common->db, STORE_READ, &s, e);
  if (rc == ICE_OK) {
    rc = store_verify(s, o.experiment, 0, e);
    if (rc == ICE_OK) rc = published ? plot_paper_draw(s, &o, published, e) : plot_draw(s, &o, e);
    store_close(s);
  }
  free(published);
  return rc;
}

const cli_verb cli_verb_plot = {
    .name = "plot",
    .summary = "charts from the database, by gnuplot",
    .help = "usage: icebench plot [--experiment NAME] [--out DIR] [--terminal svg|png|pdf] [--figure NAME] [--against paper] [--db FILE]\n"
            "\n"
            "Draws every figure of plots/ that has rows: accuracy-time, error-k, error-time, speedup-k, of sweeps maps (heat-k-levels,\n"
            "heat-k-beam) and the settings that no other beats (pareto), and more (plots/README.md); one of each for every\n"
            "task, model, number of threads, instruction set and machine of an experiment, for all experiments if none is\n"
            "named. Script and data stay beside each picture: `gnuplot FILE.gp` in DIR (plots/out) draws it again.\n"
            "--against paper draws the latency figure of the paper instead: bars are ours, marks what was published.\n"
            "\n"
            "examples:\n"
            "  icebench plot --db results/quickstart.db --experiment quickstart\n"
            "  icebench plot --experiment quickstart --terminal png --figure accuracy-time --out /tmp/charts\n",
    .main = plot_main,
};
