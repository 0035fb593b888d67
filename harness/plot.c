/* plot.c - see plot.h. Files are written whole before gnuplot starts; gnuplot gets an argument vector, no shell. */
#include "harness/plot.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/cli.h"
#include "harness/machine.h"
#include "harness/registry/registry.h"
#include "kernels/core/fileio.h"

extern char **environ;

static const struct {
  const char *name, *line;
} terminals[] = {{"svg", "set terminal svg size 900,560 dynamic enhanced font 'Helvetica,13' background rgb 'white'"},
                 {"png", "set terminal pngcairo size 1350,840 enhanced font 'Helvetica,15' background rgb 'white'"},
                 {"pdf", "set terminal pdfcairo size 9in,5.6in enhanced font 'Helvetica,13' background rgb 'white'"}};

/* Okabe and Ito's palette, safe for colour-blind readers; vanilla and dense are grey and black everywhere. */
static const char *const palette[] = {"#7f7f7f", "#000000", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9"};
enum { COLORS = sizeof palette / sizeof *palette };

/* --- data --------------------------------------------------------------------------------------------------------- */

typedef struct table {
  FILE *f;
  int rows;
  char series[1024]; /* distinct first columns, blank-separated */
} table;

static void write_field(FILE *f, const char *text) { /* a field of a tab-separated line */
  for (const char *c = text; *c; c++) (void)fputc(*c == '\t' || *c == '\n' || *c == '"' ? ' ' : *c, f);
}

static int add_row(void *ctx, int columns, char **names, char **values) {
  table *t = ctx;
  if (t->rows++ == 0)
    for (int i = 0; i < columns; i++) (void)fprintf(t->f, "%s%c", names[i], i + 1 < columns ? '\t' : '\n');
  for (int i = 0; i < columns; i++) {
    write_field(t->f, values[i] ? values[i] : "NaN");
    (void)fputc(i + 1 < columns ? '\t' : '\n', t->f);
  }
  char word[128], list[1100];
  (void)snprintf(word, sizeof word, " %s ", values[0] ? values[0] : "unknown");
  (void)snprintf(list, sizeof list, " %s ", t->series);
  const size_t n = strlen(t->series);
  if (!strstr(list, word)) (void)snprintf(t->series + n, sizeof t->series - n, "%s%s", n ? " " : "", values[0] ? values[0] : "unknown");
  return 0;
}

static int write_data(store *s, const char *sql, const char *experiment, const char *path, table *t, ice_err *e) {
  file_out out;
  ICE_TRY(file_out_open(&out, path, e));
  *t = (table){.f = out.stream};
  int rc = store_query(s, sql, &experiment, 1, add_row, t, e);
  if (rc == ICE_OK && t->rows > 0) return file_out_commit(&out, e);
  file_out_abort(&out);
  return rc;
}

/* --- script ------------------------------------------------------------------------------------------------------- */

/* A string of gnuplot. Quotes, backslashes and above all backquotes, whose text gnuplot would hand to a shell, are
 * written as octal numbers. */
static void write_quoted(FILE *f, const char *text) {
  (void)fputc('"', f);
  for (const char *c = text; *c; c++) {
    if ((unsigned char)*c < ' ') (void)fputc(' ', f);
    else if (strchr("\"\\'`$@", *c)) (void)fprintf(f, "\\%03o", (unsigned)*c);
    else (void)fputc(*c, f);
  }
  (void)fputc('"', f);
}

static int write_script(const char *path, const char *stem, const plot_options *o, int terminal, const char *series, const char *body, ice_err *e) {
  const machine_facts *m = machine_get();
  file_out out;
  char text[512];
  ICE_TRY(file_out_open(&out, path, e));
  FILE *f = out.stream;
  (void)fprintf(f, "# %s: drawn by icebench %s; gnuplot %s.gp draws it again.\n%s\nset output ", stem, m->version, stem, terminals[terminal].line);
  (void)snprintf(text, sizeof text, "%s.%s", stem, terminals[terminal].name);
  write_quoted(f, text);
  (void)snprintf(text, sizeof text, "%s.dat", stem);
  (void)fputs("\nDATA = ", f);
  write_quoted(f, text);
  (void)fputs("\nTITLE = ", f);
  write_quoted(f, o->experiment);
  (void)snprintf(text, sizeof text, "%s, %d cores, %s; %s", m->cpu, m->cores, m->isa, m->blas);
  (void)fputs("\nFOOTER = ", f);
  write_quoted(f, text);
  (void)fputs("\nSERIES = ", f);
  write_quoted(f, series);
  (void)fputs("\ncolor(m) = ", f);
  for (int i = 0; registry_methods[i]; i++) (void)fprintf(f, "m eq \"%s\" ? \"%s\" : ", registry_methods[i]->name, palette[i % COLORS]);
  (void)fputs("\"#444444\"\n"
              "set datafile separator tab\nset datafile columnheaders\nset datafile missing \"NaN\"\n"
              "set title TITLE noenhanced\n"
              "set label 99 FOOTER noenhanced at screen 0.01, screen 0.015 font ',8' textcolor rgb '#777777'\n"
              "set bmargin 5\nset border 3\nset tics nomirror\n\n",
              f);
  (void)fputs(body, f);
  return file_out_commit(&out, e);
}

/* --- gnuplot ------------------------------------------------------------------------------------------------------- */

/* Runs gnuplot on a script in a folder; its complaints end up in the message. */
static int run_gnuplot(const char *folder, const char *script, ice_err *e) {
  int fd[2];
  if (pipe(fd) != 0) return ice_fail(e, ICE_INTERNAL, "pipe: %s", strerror(errno));
  posix_spawn_file_actions_t act;
  pid_t pid;
  char *const argv[] = {"gnuplot", (char *)(uintptr_t)script, NULL};
  (void)posix_spawn_file_actions_init(&act);
  (void)posix_spawn_file_actions_addclose(&act, fd[0]);
  (void)posix_spawn_file_actions_adddup2(&act, fd[1], STDERR_FILENO);
  (void)posix_spawn_file_actions_adddup2(&act, fd[1], STDOUT_FILENO);
  (void)posix_spawn_file_actions_addchdir_np(&act, folder);
  const int rc = posix_spawnp(&pid, "gnuplot", &act, NULL, argv, environ);
  (void)posix_spawn_file_actions_destroy(&act);
  (void)close(fd[1]);
  if (rc != 0) {
    (void)close(fd[0]);
    return ice_fail(e, ICE_INTERNAL, rc == ENOENT ? "gnuplot is not installed; apt-get install gnuplot-nox%s" : "gnuplot: %s", rc == ENOENT ? "" : strerror(rc));
  }
  char said[600], waste[512];
  size_t n = 0;
  ssize_t got;
  while ((got = read(fd[0], n < sizeof said - 1 ? said + n : waste, n < sizeof said - 1 ? sizeof said - 1 - n : sizeof waste)) > 0)
    if (n < sizeof said - 1) n += (size_t)got;
  said[n] = 0;
  (void)close(fd[0]);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return ICE_OK;
  return ice_fail(e, ICE_INTERNAL, "gnuplot %s/%s failed: %s", folder, script, n ? said : "no message");
}

/* --- figures ------------------------------------------------------------------------------------------------------ */

/* Whole file as text, to free. */
static int read_text(const char *folder, const char *name, const char *tail, char **out, ice_err *e) {
  char path[PATH_MAX];
  file_map map;
  if (snprintf(path, sizeof path, "%s/%s%s", folder, name, tail) >= PATH_MAX) return ice_fail(e, ICE_INTERNAL, "%s: path too long", folder);
  ICE_TRY(file_open_map(path, 1 << 20, &map, e));
  *out = strndup((const char *)map.p, map.n);
  file_close_map(&map);
  return *out ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

/* Letters, digits, '-', '_' and '.' stay: names come from users and become file names. */
static void safe_name(const char *text, char *out, size_t size) {
  size_t n = 0;
  for (; *text && n + 1 < size; text++) {
    const char c = *text;
    const int fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-_.", c);
    out[n] = fine && !(n == 0 && c == '.') ? c : '_';
    n++;
  }
  out[n] = 0;
}

static int draw_one(store *s, const plot_options *o, int terminal, const char *folder, const char *figure, int *drawn, ice_err *e) {
  char name[128], stem[256], data[PATH_MAX], script[PATH_MAX], file[300], *sql = NULL, *body = NULL;
  table t;
  safe_name(o->experiment, name, sizeof name);
  (void)snprintf(stem, sizeof stem, "%s-%s", name, figure);
  if (snprintf(data, sizeof data, "%s/%s.dat", o->out, stem) >= PATH_MAX || snprintf(script, sizeof script, "%s/%s.gp", o->out, stem) >= PATH_MAX)
    return ice_fail(e, ICE_USAGE, "--out: the path is too long");
  (void)snprintf(file, sizeof file, "%s.gp", stem);
  int rc = read_text(folder, figure, ".sql", &sql, e);
  if (rc == ICE_OK) rc = read_text(folder, figure, ".gp", &body, e);
  if (rc == ICE_OK) rc = write_data(s, sql, o->experiment, data, &t, e);
  if (rc == ICE_OK && t.rows > 0) {
    rc = write_script(script, stem, o, terminal, t.series, body, e);
    if (rc == ICE_OK) rc = run_gnuplot(o->out, file, e);
    if (rc == ICE_OK) {
      (*drawn)++;
      if (!o->quiet) (void)printf("%s/%s.%s\n", o->out, stem, terminals[terminal].name);
    }
  }
  free(sql);
  free(body);
  return rc;
}

static int is_script(const struct dirent *d) {
  const size_t n = strlen(d->d_name);
  return n > 3 && n < 64 && !strcmp(d->d_name + n - 3, ".gp");
}

int plot_draw(store *s, const plot_options *o, ice_err *e) {
  int terminal = -1, drawn = 0, known = 0, rc = ICE_OK;
  for (int i = 0; i < (int)(sizeof terminals / sizeof *terminals); i++)
    if (!strcmp(o->terminal, terminals[i].name)) terminal = i;
  if (terminal < 0) return ice_fail(e, ICE_USAGE, "--terminal = %s, allowed svg, png, pdf", o->terminal);
  ICE_TRY(file_make_dirs(o->out, e));
  char folder[PATH_MAX];
  if (snprintf(folder, sizeof folder, "%s/plots", cli_share_dir()) >= PATH_MAX) return ice_fail(e, ICE_INTERNAL, "path too long");
  struct dirent **entry = NULL;
  const int n = scandir(folder, &entry, is_script, alphasort);
  for (int i = 0; i < n; i++) {
    char figure[64];
    (void)snprintf(figure, sizeof figure, "%.*s", (int)(strlen(entry[i]->d_name) - 3), entry[i]->d_name);
    if (rc == ICE_OK && (!o->figure || !strcmp(o->figure, figure))) {
      known = 1;
      rc = draw_one(s, o, terminal, folder, figure, &drawn, e);
    }
    free(entry[i]);
  }
  free((void *)entry);
  if (rc == ICE_OK && !known)
    rc = ice_fail(e, ICE_USAGE, "--figure = %s: no such figure in %s", o->figure ? o->figure : "(any)", folder);
  if (rc == ICE_OK && drawn == 0)
    rc = ice_fail(e, ICE_NO_VERDICT, "experiment '%s' has no rows for a chart; icebench run makes them", o->experiment);
  return rc;
}
