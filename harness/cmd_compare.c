/* cmd_compare.c - verb `compare`: is NEW worse than BASE? */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli.h"
#include "harness/compare.h"
#include "kernels/core/fileio.h"

static const struct {
  const char *name, *file; /* of --format, and under --out */
} formats[] = {[COMPARE_MD] = {"md", "compare.md"},
               [COMPARE_JSON] = {"json", "compare.json"},
               [COMPARE_GH] = {"gh-benchmark", "benchmark-smaller.json"},
               [COMPARE_GH_BIGGER] = {"gh-benchmark-bigger", "benchmark-bigger.json"},
               [COMPARE_GBENCH] = {"gbench", "gbench.json"},
               [COMPARE_JUNIT] = {"junit", "junit.xml"}};
enum { FORMATS = sizeof formats / sizeof *formats };

/* "speed=0.05,accuracy=0.01" */
static int read_thresholds(const char *text, compare_options *o, ice_err *e) {
  char *copy = strdup(text), *at = copy;
  int rc = copy ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  for (char *pair; rc == ICE_OK && (pair = strsep(&at, ",")) != NULL;) {
    char *value = strchr(pair, '=');
    int axis = 0;
    if (value) *value++ = '\0';
    while (axis < COMPARE_AXES && strcmp(pair, compare_axis_name((compare_axis)axis))) axis++;
    if (!value || axis == COMPARE_AXES)
      rc = ice_fail(e, ICE_USAGE, "--threshold %s: expected AXIS=VALUE, axes speed, memory, instructions, accuracy, error", text);
    else rc = cli_real("threshold", value, 0.0, 10.0, &o->threshold[axis], e);
  }
  free(copy);
  return rc;
}

static int write_file(const char *dir, const compare_side *base, const compare_side *now, const compare_options *o, const compare_result *r, int format,
                      ice_err *e) {
  char path[FILE_PATH], part[FILE_PATH];
  ICE_TRY(file_join(path, dir, formats[format].file, e));
  if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part) return ice_fail(e, ICE_USAGE, "--out %s: too long", dir);
  FILE *f = fopen(part, "we");
  if (!f) return ice_fail(e, ICE_INTERNAL, "%s: %s", part, strerror(errno));
  int rc = compare_print(base, now, o, r, (compare_format)format, f, e);
  const int bad = ferror(f) | fclose(f);
  if (bad || (rc == ICE_OK && rename(part, path))) rc = ice_fail(e, ICE_INTERNAL, "%s: %s", path, strerror(errno));
  if (rc != ICE_OK) (void)unlink(part);
  return rc;
}

static int compare_sides(const cli_common *common, const char *const *spec, const compare_options *o, int format, const char *out, ice_err *e) {
  compare_side side[2] = {{.n = 0}, {.n = 0}};
  compare_result r = {0};
  int rc = compare_side_read(spec[0], common->db, side, e);
  if (rc == ICE_OK) rc = compare_side_read(spec[1], common->db, side + 1, e);
  if (rc == ICE_OK) rc = compare_judge(side, side + 1, o, &r, e);
  if (rc == ICE_OK && !common->quiet) rc = compare_print(side, side + 1, o, &r, (compare_format)format, stdout, e);
  if (rc == ICE_OK && out) rc = file_make_dirs(out, e);
  for (int i = 0; rc == ICE_OK && out && i < FORMATS; i++) rc = write_file(out, side, side + 1, o, &r, i, e);
  if (rc == ICE_OK && r.code != ICE_OK) {
    char text[512];
    compare_summary(&r, text, sizeof text);
    rc = ice_fail(e, r.code, "%s", text);
  }
  compare_free(&r);
  compare_side_free(side);
  compare_side_free(side + 1);
  return rc;
}

static int compare_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  const char *spec[2], *format = "md", *threshold = NULL, *floor = NULL, *detect = NULL, *mixed = NULL, *out = NULL;
  const cli_option options[] = {{.name = "format", .has_value = 1, .value = &format},
                                {.name = "threshold", .has_value = 1, .value = &threshold},
                                {.name = "noise-floor", .has_value = 1, .value = &floor},
                                {.name = "detect", .has_value = 1, .value = &detect},
                                {.name = "allow-mixed", .value = &mixed},
                                {.name = "out", .has_value = 1, .value = &out},
                                {.name = NULL}};
  compare_options o;
  int n = 0, chosen = 0;
  compare_defaults(&o);
  ICE_TRY(cli_parse(argc, argv, options, spec, 2, &n, e));
  if (n != 2) return ice_fail(e, ICE_USAGE, "compare: needs two sides, e.g. icebench compare base.db new.db");
  while (chosen < FORMATS && strcmp(format, formats[chosen].name)) chosen++;
  if (chosen == FORMATS) return ice_fail(e, ICE_USAGE, "--format = %s, allowed md, json, gh-benchmark, gh-benchmark-bigger, gbench, junit", format);
  if (threshold) ICE_TRY(read_thresholds(threshold, &o, e));
  if (floor) ICE_TRY(cli_real("noise-floor", floor, 0.0, 10.0, &o.noise_floor, e));
  if (detect) ICE_TRY(cli_real("detect", detect, 0.001, 100.0, &o.detect, e));
  o.allow_mixed = mixed != NULL;
  return compare_sides(common, spec, &o, chosen, out, e);
}

const cli_verb cli_verb_compare = {
    .name = "compare",
    .summary = "is NEW worse than BASE? For people, and for CI",
    .help =
        "usage: icebench compare BASE NEW [--threshold AXIS=X,...] [--noise-floor X] [--detect X] [--allow-mixed]\n"
        "                        [--format md|json|gh-benchmark|gh-benchmark-bigger|gbench|junit] [--out DIR]\n\n"
        "A side is FILE.db, FILE.db#WHAT, or WHAT in --db. WHAT is a commit (4 digits or more), HEAD, merge-base or\n"
        "merge-base:BRANCH (where HEAD left main, or BRANCH), or an experiment. Cells are matched by task, model, method, parameters, seed, shape,\n"
        "threads, instruction set, data and weights. Runs of a cell by the same build (run --force) are pooled: they narrow the interval.\n\n"
        "Judged are speed (attention time), memory, instructions (run --twin), accuracy (same examples: paired) and error. A change\n"
        "is worse when its whole 95 % interval lies beyond the gate, which is the larger of the threshold and, for times, the noise\n"
        "floor of the machine (icebench calibrate). It is unsure when only the estimate lies there, or when a slowdown of\n"
        "--detect would have gone unseen.\n\n"
        "Times are compared by medians. Where both sides have 6 processes of a cell or more (measure.processes, run --force), by what\n"
        "nothing hindered: the lowest decile over the processes of the lowest decile of their rounds. Neighbours of a machine only\n"
        "ever add time, for tenths of a second, which is all the life of a process; what slows less than nine rounds of ten goes\n"
        "unseen. For changes of 5 % and less: 20 processes a side, both sides measured to and fro (configs/ci/gate.sh).\n\n"
        "  --threshold AXIS=X    speed=0.03, memory=0.02, instructions=0.005, error=0.05: relative; accuracy=0.005: half a point\n"
        "  --noise-floor X       instead of the stored one\n"
        "  --detect X            the slowdown that must not go unseen (0.25)\n"
        "  --allow-mixed         compare times of different machines\n"
        "  --format              Markdown for a pull request; JSON; NEW for github-action-benchmark (customSmallerIsBetter, -bigger:\n"
        "                        customBiggerIsBetter) or as google-benchmark's JSON; JUnit (md)\n"
        "  --out DIR             writes all formats there\n\n"
        "examples:\n"
        "  icebench compare results/main.db results/branch.db\n"
        "  icebench compare merge-base HEAD --threshold speed=0.05 --format json\n"
        "  icebench compare base.db#quickstart new.db#quickstart --out ci\n\n"
        "exit codes: 0 nothing worse, 4 slower or bigger (or a cell now runs out of time or memory), 5 less accurate (or a cell now\n"
        "fails), 6 no verdict (unsure, or no common cell), 8 a database that is locked, newer, damaged or edited. 5 before 4 before 6.\n",
    .main = compare_main};
