/* cmd_plot.c - verb `plot`: charts from the database. */
#include "harness/cli.h"
#include "harness/plot.h"

static int plot_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  plot_options o = {.out = "plots/out", .terminal = "svg", .quiet = common->quiet};
  int n = 0;
  const cli_option spec[] = {{.name = "experiment", .has_value = 1, .value = &o.experiment},
                             {.name = "out", .has_value = 1, .value = &o.out},
                             {.name = "terminal", .has_value = 1, .value = &o.terminal},
                             {.name = "figure", .has_value = 1, .value = &o.figure},
                             {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, NULL, 0, &n, e));
  if (!o.experiment) return ice_fail(e, ICE_USAGE, "plot: --experiment NAME is needed, e.g. --experiment quickstart");
  store *s;
  ICE_TRY(store_open(common->db, STORE_READ, &s, e));
  const int rc = plot_draw(s, &o, e);
  store_close(s);
  return rc;
}

const cli_verb cli_verb_plot = {
    .name = "plot",
    .summary = "charts from the database, by gnuplot",
    .help = "usage: icebench plot --experiment NAME [--out DIR] [--terminal svg|png|pdf] [--figure NAME] [--db FILE]\n"
            "\n"
            "Draws every figure of plots/ that has rows: accuracy-time, error-k, speedup-k. Script and data stay beside\n"
            "each picture, so that `gnuplot SCRIPT` draws it again. DIR defaults to plots/out.\n"
            "\n"
            "examples:\n"
            "  icebench plot --db results/quickstart.db --experiment quickstart\n"
            "  icebench plot --experiment quickstart --terminal png --figure accuracy-time --out /tmp/charts\n",
    .main = plot_main,
};
