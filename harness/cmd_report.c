/* cmd_report.c - verb `report`: tables from the database. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/report.h"
#include "kernels/core/fileio.h"

/* Text of the published figures, zero-terminated, to free. */
static int read_published(char **out, ice_err *e) {
  char path[PATH_MAX];
  file_map map;
  if (snprintf(path, sizeof path, "%s/results/published/iceformer-lra.csv", cli_share_dir()) >= PATH_MAX)
    return ice_fail(e, ICE_INTERNAL, "path of the published figures is too long");
  ICE_TRY(file_open_map(path, 1 << 20, &map, e));
  *out = strndup((const char *)map.p, map.n);
  file_close_map(&map);
  return *out ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

static int report_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char *format = "md", *experiment = NULL, *against = NULL;
  int n = 0, chosen = -1;
  const cli_option spec[] = {{.name = "format", .has_value = 1, .value = &format},
                             {.name = "experiment", .has_value = 1, .value = &experiment},
                             {.name = "against", .has_value = 1, .value = &against},
                             {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, NULL, 0, &n, e));
  for (int i = 0; report_formats[i]; i++)
    if (!strcmp(format, report_formats[i])) chosen = i;
  if (chosen < 0) return ice_fail(e, ICE_USAGE, "--format = %s, allowed md, csv, json, latex, html", format);
  if (against && strcmp(against, "paper")) return ice_fail(e, ICE_USAGE, "--against = %s, allowed paper", against);
  char *published = NULL;
  if (against) ICE_TRY(read_published(&published, e));
  store *s;
  int rc = store_open(common->db, STORE_READ, &s, e);
  if (rc == ICE_OK) {
    rc = report_write(s, experiment, (report_format)chosen, published, stdout, e);
    store_close(s);
  }
  free(published);
  return rc;
}

const cli_verb cli_verb_report = {
    .name = "report",
    .summary = "tables from the database",
    .help = "usage: icebench report [--db FILE] [--experiment NAME] [--format md|csv|json|latex|html] [--against paper]\n"
            "\n"
            "One row per finished cell: accuracy, attention time, speed-up against both baselines, error, memory.\n"
            "md, latex and html are for people and carry a legend; csv and json carry every column of the view `results`.\n"
            "--against paper puts the published figures beside ours.\n"
            "\n"
            "examples:\n"
            "  icebench report --experiment quickstart\n"
            "  icebench report --db results/quickstart.db --format html > quickstart.html\n"
            "  icebench report --against paper\n"
            "  sqlite3 results/quickstart.db 'SELECT method, params, accuracy, speedup_dense FROM results'\n",
    .main = report_main,
};
