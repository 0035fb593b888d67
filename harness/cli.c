/* cli.c - the program around the verbs: choosing one, options, progress. */
#include "harness/cli.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/number.h"
#include "harness/registry/registry.h"
#include "kernels/core/clock.h"
#include "kernels/micro/micro.h"
#include "version.h"

#define CLI_VERB(id) extern const cli_verb cli_verb_##id;
#include "harness/registry/verbs.def"
#undef CLI_VERB
#define CLI_VERB(id) &cli_verb_##id,
const cli_verb *const cli_verbs[] = {
#include "harness/registry/verbs.def"
    NULL};
#undef CLI_VERB

enum { MAX_NAMES = 128 };

/* --- options ------------------------------------------------------------------------------------------------------ */

static const cli_option *find_option(const cli_option *spec, const char *name, size_t length) {
  for (; spec->name; spec++)
    if (strlen(spec->name) == length && strncmp(spec->name, name, length) == 0) return spec;
  return NULL;
}

static int unknown_option(const char *verb, const char *given, const cli_option *spec, ice_err *e) {
  const char *names[MAX_NAMES] = {0};
  char near[256], all[512] = "";
  int n = 0;
  for (; spec[n].name && n < MAX_NAMES; n++) {
    names[n] = spec[n].name;
    const size_t used = strlen(all);
    (void)snprintf(all + used, sizeof all - used, "--%s, ", spec[n].name);
  }
  registry_suggest(given, names, n, near, sizeof near);
  if (*near) return ice_fail(e, ICE_USAGE, "%s: unknown option --%s; did you mean --%s?", verb, given, near);
  return ice_fail(e, ICE_USAGE, "%s: unknown option --%s; known: %s--help", verb, given, all);
}

static int push(const char ***list, const char *value, ice_err *e) {
  size_t n = 0;
  while (*list && (*list)[n]) n++;
  const char **grown = realloc((void *)*list, (n + 2) * sizeof *grown);
  if (!grown) return ice_fail(e, ICE_INTERNAL, "out of memory");
  grown[n] = value;
  grown[n + 1] = NULL;
  *list = grown;
  return ICE_OK;
}

int cli_parse(int argc, char **argv, const cli_option *spec, const char **positional, int max_positional,
              int *n_positional, ice_err *e) {
  int n = 0, only_positional = 0;
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i];
    if (only_positional || a[0] != '-' || !a[1]) {
      if (n == max_positional)
        return ice_fail(e, ICE_USAGE, "%s: unexpected argument '%s'; see icebench %s --help", argv[0], a, argv[0]);
      positional[n++] = a;
      continue;
    }
    if (!strcmp(a, "--")) {
      only_positional = 1;
      continue;
    }
    const char *name = a + (a[1] == '-' ? 2 : 1), *equals = strchr(name, '=');
    const size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const cli_option *o = a[1] == '-' || length == 1 ? find_option(spec, name, length) : NULL;
    if (!o) {
      char given[64];
      (void)snprintf(given, sizeof given, "%.*s", (int)(length < 60 ? length : 60), name);
      return unknown_option(argv[0], given, spec, e);
    }
    const char *value = "1";
    if (o->has_value) {
      if (!equals && i + 1 == argc) return ice_fail(e, ICE_USAGE, "%s: --%s needs a value", argv[0], o->name);
      value = equals ? equals + 1 : argv[++i];
    } else if (equals)
      return ice_fail(e, ICE_USAGE, "%s: --%s takes no value", argv[0], o->name);
    if (o->value) *o->value = value;
    if (o->list) ICE_TRY(push(o->list, value, e));
  }
  *n_positional = n;
  return ICE_OK;
}

int cli_int(const char *option, const char *text, long long min, long long max, long long *out, ice_err *e) {
  int64_t v;
  if (!number_int(text, min, max, &v))
    return ice_fail(e, ICE_USAGE, "--%s = %s, allowed %lld..%lld", option, text, min, max);
  *out = v;
  return ICE_OK;
}

int cli_real(const char *option, const char *text, double min, double max, double *out, ice_err *e) {
  if (!number_real(text, min, max, out))
    return ice_fail(e, ICE_USAGE, "--%s = %s, allowed %g..%g", option, text, min, max);
  return ICE_OK;
}

int cli_format(const char *text, int *json, ice_err *e) {
  *json = strcmp(text, "json") == 0;
  if (!*json && strcmp(text, "text") != 0) return ice_fail(e, ICE_USAGE, "--format = %s, allowed text, json", text);
  return ICE_OK;
}

int cli_preset(const char *name, const char ***set, char **text, ice_err *e) {
  *text = NULL;
  if (!name) return ICE_OK;
  if (asprintf(text, "preset=%s", name) < 0) {
    *text = NULL;
    return ice_fail(e, ICE_INTERNAL, "out of memory");
  }
  return push(set, *text, e);
}

int cli_print_json(struct json_t *value, ice_err *e) {
  char *text = value ? json_dumps(value, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) : NULL;
  json_decref(value);
  if (!text) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)printf("%s\n", text);
  free(text);
  return ICE_OK;
}

/* --- progress ----------------------------------------------------------------------------------------------------- */

static double now(void) { return 1e-9 * (double)attn_now_ns(); }

void cli_progress_start(cli_progress *p, const char *what, int enabled) {
  *p = (cli_progress){.what = what, .started = now(), .enabled = enabled, .tty = isatty(STDERR_FILENO)};
}

void cli_progress_tick(cli_progress *p, long long done, long long total, const char *note) {
  const double t = now(), since = t - p->printed, spent = t - p->started;
  if (!p->enabled || (since < (p->tty ? 0.2 : 5.0) && done < total)) return;
  p->printed = t;
  char eta[32] = "";
  if (done > 0 && done < total && spent > 1.0) {
    const long long left = (long long)(spent / (double)done * (double)(total - done) + 0.5);
    (void)snprintf(eta, sizeof eta, ", %lld:%02lld left", left / 60, left % 60);
  }
  (void)fprintf(stderr, "%s%s: %lld of %lld%s%s%s%s", p->tty ? "\r\033[K" : "", p->what, done, total, eta,
                note && *note ? ", " : "", note ? note : "", p->tty ? "" : "\n");
  (void)fflush(stderr);
}

void cli_progress_end(cli_progress *p) {
  if (p->enabled && p->tty && p->printed > 0.0) (void)fputs("\r\033[K", stderr);
}

/* --- where things are --------------------------------------------------------------------------------------------- */

const char *cli_share_dir(void) {
  static char folder[PATH_MAX];
  char self[PATH_MAX];
  if (*folder) return folder;
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  self[n > 0 ? n : 0] = 0;
  /* Installed: PREFIX/bin/icebench. Built: TREE/build/VARIANT/icebench. */
  static const char *const place[] = {"/share/icebench", ""};
  for (int up = 2; n > 0 && up <= 3; up++) {
    char *slash = strrchr(self, '/');
    if (up == 2 && slash) *slash = 0, slash = strrchr(self, '/');
    if (!slash) break;
    *slash = 0;
    for (size_t i = 0; i < 2; i++) {
      char probe[PATH_MAX + 64];
      if (snprintf(probe, sizeof probe, "%s%s/plots/README.md", self, place[i]) >= PATH_MAX) continue;
      if (access(probe, R_OK) != 0) continue;
      (void)snprintf(folder, sizeof folder, "%.*s", (int)(strlen(probe) - strlen("/plots/README.md")), probe);
      return folder;
    }
  }
  (void)snprintf(folder, sizeof folder, ".");
  return folder;
}

/* --- main --------------------------------------------------------------------------------------------------------- */

static void print_help(FILE *f) {
  (void)fputs("icebench - attention methods on CPUs: accuracy, speed and error\n\n"
              "usage: icebench VERB [options]      icebench VERB --help\n\nverbs:\n",
              f);
  for (int i = 0; cli_verbs[i]; i++)
    if (cli_verbs[i]->name[0] != '_') (void)fprintf(f, "  %-8s %s\n", cli_verbs[i]->name, cli_verbs[i]->summary);
  (void)fputs("\noptions of every verb:\n"
              "  --db FILE    database (default $ICEBENCH_DB, else results/icebench.db)\n"
              "  -q, -v       say less, say more        --no-color   plain text\n\n"
              "examples:\n"
              "  icebench list methods\n"
              "  icebench run configs/quickstart.yaml\n"
              "  icebench report --experiment quickstart\n"
              "  icebench attn --synth clustered:h=2,n=4096,d=32,seed=1 --methods dense,iceformer\n",
              f);
}

static const cli_verb *find_verb(const char *name, ice_err *e) {
  const char *names[MAX_NAMES];
  char near[256];
  int n = 0;
  for (int i = 0; cli_verbs[i]; i++) {
    if (!strcmp(cli_verbs[i]->name, name)) return cli_verbs[i];
    if (cli_verbs[i]->name[0] != '_' && n < MAX_NAMES) names[n++] = cli_verbs[i]->name;
  }
  if (name[0] == '-') {
    (void)ice_fail(e, ICE_USAGE, "option %s stands before the verb; write icebench VERB %s", name, name);
    return NULL;
  }
  registry_suggest(name, names, n, near, sizeof near);
  (void)ice_fail(e, ICE_USAGE, *near ? "unknown verb '%s'; did you mean %s?" : "unknown verb '%s'; see icebench help%s",
                 name, near);
  return NULL;
}

/* Takes the options of every verb out of argv; the rest moves up. Returns the new argc, or -1. */
static int strip_common(int argc, char **argv, cli_common *c, int *help, ice_err *e) {
  int kept = 1, verbatim = 0;
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i];
    verbatim |= !strcmp(a, "--");
    if (verbatim)
      argv[kept++] = argv[i];
    else if (!strcmp(a, "--help") || !strcmp(a, "-h"))
      *help = 1;
    else if (!strcmp(a, "-q") || !strcmp(a, "--quiet"))
      c->quiet = 1;
    else if (!strcmp(a, "-v") || !strcmp(a, "--verbose"))
      c->verbose = 1;
    else if (!strcmp(a, "--no-color"))
      c->color = 0;
    else if (!strncmp(a, "--db=", 5))
      c->db = a + 5;
    else if (!strcmp(a, "--db")) {
      if (i + 1 == argc) {
        (void)ice_fail(e, ICE_USAGE, "--db needs a file");
        return -1;
      }
      c->db = argv[++i];
    } else
      argv[kept++] = argv[i];
  }
  argv[kept] = NULL;
  if (c->db && !*c->db) {
    (void)ice_fail(e, ICE_USAGE, "--db = '', a file name is needed");
    return -1;
  }
  return kept;
}

static int run_verb(int argc, char **argv, ice_err *e) {
  const char *db = getenv("ICEBENCH_DB"), *plain = getenv("NO_COLOR");
  cli_common common = {.db = db && *db ? db : "results/icebench.db",
                       .color = isatty(STDOUT_FILENO) && !(plain && *plain)};
  int help = 0;
  ICE_TRY(registry_self_check(e));
  if (attn_micro_error()) return ice_fail(e, ICE_USAGE, "%s", attn_micro_error());
  const cli_verb *verb = find_verb(argv[0], e);
  if (!verb) return e->code;
  argc = strip_common(argc, argv, &common, &help, e);
  if (argc < 0) return e->code;
  if (help) {
    (void)fputs(verb->help, stdout);
    return ICE_OK;
  }
  return verb->main(&common, argc, argv, e);
}

int cli_main(int argc, char **argv) {
  ice_err e = {0};
  if (argc < 2) {
    print_help(stderr);
    return ICE_USAGE;
  }
  if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
    const cli_verb *verb = argc > 2 ? find_verb(argv[2], &e) : NULL;
    if (verb)
      (void)fputs(verb->help, stdout);
    else if (argc > 2)
      (void)fprintf(stderr, "icebench: %s\n", e.text);
    else
      print_help(stdout);
    return argc > 2 && !verb ? ICE_USAGE : ICE_OK;
  }
  if (!strcmp(argv[1], "--version")) {
    (void)printf("icebench %s (%.12s%s, %s)\n", ICE_VERSION, ICE_GIT_COMMIT, ICE_GIT_DIRTY ? ", modified" : "",
                 ICE_VARIANT);
    return ICE_OK;
  }
  const int rc = run_verb(argc - 1, argv + 1, &e);
  if (rc != ICE_OK && e.text[0]) (void)fprintf(stderr, "icebench: %s\n", e.text);
  if (rc == ICE_OK && (fflush(stdout) != 0 || ferror(stdout))) {
    (void)fprintf(stderr, "icebench: cannot write the output: %s\n", strerror(errno));
    return ICE_INTERNAL;
  }
  return rc;
}
