/* cli.h - the program's verbs. One file harness/cmd_<verb>.c ending in `const cli_verb cli_verb_<verb>`, one line in
 * registry/verbs.def. */
#ifndef ICE_CLI_H
#define ICE_CLI_H

#include <stdio.h>

#include "kernels/core/err.h"

/** Options that every verb takes; cli_main strips them from argv before the verb sees it. */
typedef struct cli_common {
  const char *db; /* --db, $ICEBENCH_DB, results/icebench.db */
  int quiet, verbose;
  int color; /* 1 when stdout is a terminal and neither --no-color nor $NO_COLOR is set */
} cli_common;

typedef struct cli_verb {
  const char *name, *summary; /* "run", "run the missing cells of an experiment" */
  const char *help;           /* whole text of `icebench VERB --help`, with examples, ends in a newline */
  /** argv[0] is the verb. Returns an exit code of err.h; with a failure, e->text holds the one line to print. */
  int (*main)(const cli_common *common, int argc, char **argv, ice_err *e);
} cli_verb;

extern const cli_verb *const cli_verbs[]; /* NULL-terminated, in the order of verbs.def */
int cli_main(int argc, char **argv);

/** Option scanner for verbs: long options with values, `--name value` or `--name=value`, flags, positionals.
 *  The spec ends with name == NULL. Unknown options and missing values are ICE_USAGE with the nearest names. */
typedef struct cli_option {
  const char *name; /* without dashes; a single letter is also taken as -x */
  int has_value;
  const char **value; /* last value given; for flags set to "1" */
  const char ***list; /* or: all values given, NULL-terminated, freed by the caller; may be NULL */
} cli_option;
int cli_parse(int argc, char **argv, const cli_option *spec, const char **positional, int max_positional,
              int *n_positional, ice_err *e);
/** Whole-string numbers with bounds; ICE_USAGE names option, value and allowed range. */
int cli_int(const char *option, const char *text, long long min, long long max, long long *out, ice_err *e);
int cli_real(const char *option, const char *text, double min, double max, double *out, ice_err *e);

/** Value of --format for verbs that know text and json: *json = 1 for json. ICE_USAGE otherwise. */
int cli_format(const char *text, int *json, ice_err *e);
/** Prints a JSON value on stdout, indented, keys as inserted; takes the reference. NULL (out of memory while it was
 *  built) is ICE_INTERNAL. */
struct json_t;
int cli_print_json(struct json_t *value, ice_err *e);

/** Puts preset=NAME of an option --preset (NULL: not given) into a list of --set; *text holds it until the list is gone. */
int cli_preset(const char *name, const char ***set, char **text, ice_err *e);

/** A progress line: rewritten in place on a terminal, otherwise a plain line every few seconds; ETA from the pace so far. */
typedef struct cli_progress {
  const char *what;
  double started, printed;
  int enabled, tty;
} cli_progress;
void cli_progress_start(cli_progress *p, const char *what, int enabled);
void cli_progress_tick(cli_progress *p, long long done, long long total, const char *note);
void cli_progress_end(cli_progress *p);

/** Folder with configs, models, plots: beside the source tree of a built program, $PREFIX/share/icebench of an
 *  installed one; "." otherwise. Never NULL. */
const char *cli_share_dir(void);

#endif
