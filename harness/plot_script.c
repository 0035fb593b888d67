/* plot_script.c - see plot_script.h */
#include "harness/plot_script.h"

#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/core/fileio.h"

extern char **environ;

static const struct {
  const char *name, *line;
} terminals[] = {{"svg", "set terminal svg size 960,600 dynamic enhanced font 'Helvetica,13' background rgb 'white'"},
                 {"png", "set terminal pngcairo size 1440,900 enhanced font 'sans,13' fontscale 1.2 background rgb 'white'"},
                 {"pdf", "set terminal pdfcairo size 12in,7.5in enhanced font 'sans,13' fontscale 0.72 linewidth 0.8 background rgb 'white'"}};
enum { TERMINALS = sizeof terminals / sizeof *terminals };

/* Okabe and Ito's palette, which colour-blind readers can tell apart. */
static const char *const palette[PLOT_COLORS] = {"#7f7f7f", "#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"};
/* Filled shapes; each number less one is its hollow twin. */
static const int shapes[] = {7, 5, 9, 13, 11, 15};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* --- writing -------------------------------------------------------------------------------------------------------- */

/* A string of gnuplot. Quotes, backslashes and above all backquotes, whose text gnuplot would hand to a shell, are
 * written as octal numbers. */
static void put_string(FILE *f, const char *text) {
  (void)fputc('"', f);
  while (*text) {
    const int n = ice_printable(text);
    if (n == 0) (void)fputc('?', f);
    else if (n == 1 && strchr("\"\\'`$@", *text)) (void)fprintf(f, "\\%03o", (unsigned)*text);
    else (void)fwrite(text, 1, (size_t)n, f);
    text += n ? n : 1;
  }
  (void)fputc('"', f);
}
static void put_definition(FILE *f, const char *name, const char *text, const char *tail) {
  char value[PATH_MAX];
  (void)snprintf(value, sizeof value, "%s%s", text, tail);
  (void)fprintf(f, "%s = ", name);
  put_string(f, value);
  (void)fputc('\n', f);
}

static int find_terminal(const char *name) {
  int i = 0;
  while (i < TERMINALS && strcmp(name, terminals[i].name)) i++;
  return i < TERMINALS ? i : -1;
}
int plot_terminal_known(const char *name) { return find_terminal(name) >= 0; }

/* What every figure shares. Figures set their heading, axes and lines. */
static const char preamble[] =
    "set encoding utf8\n"
    "set datafile separator tab\n"
    "set datafile columnheaders\n"
    "set datafile missing 'NaN'\n"
    "set lmargin at screen 0.085\n"
    "set rmargin at screen 0.765\n"
    "set tmargin at screen 0.865\n"
    "set bmargin at screen 0.165\n"
    "set label 91 SUBJECT noenhanced at screen 0.02, screen 0.905 font ',11' textcolor rgb '#555555'\n"
    "set label 92 MACHINE noenhanced at screen 0.02, screen 0.05 font ',8' textcolor rgb '#777777'\n"
    "set label 93 BUILD noenhanced at screen 0.02, screen 0.022 font ',8' textcolor rgb '#777777'\n"
    "set key at screen 0.78, screen 0.865 left top Left reverse noenhanced samplen 2 spacing 1.35 font ',11'\n"
    "set border 3 linecolor rgb '#888888'\n"
    "set format '%g'\n"
    "set tics nomirror font ',11' textcolor rgb '#333333'\n"
    "set grid linetype 1 linewidth 0.7 linecolor rgb '#d4d4d4'\n"
    "# column of series i; nothing for rows of other series\n"
    "of(i, name) = column('s') == i ? column(name) : NaN\n"
    "heading(text) = sprintf('set label 90 \"{/:Bold %s}\" at screen 0.02, screen 0.955 font \",15\"', text)\n"
    "# marks of a logarithmic axis: these digits in every decade\n"
    "marks(axis, digits) = sprintf(\"set %stics (1); do for [e=-8:7] { do for [m in '%s'] { set %stics add (sprintf('%%g', m*10.0**e) m*10.0**e) } }\", axis, digits, axis)\n"
    "set xrange [X_LO:X_HI]\n"
    "set yrange [Y_LO:Y_HI]\n"
    "# the same for the exact attentions only, which some figures draw as vertical lines\n"
    "exact(i) = METHOD[i] eq 'vanilla' || METHOD[i] eq 'dense'\n"
    "exact_at(i, name) = exact(i) ? of(i, name) : NaN\n"
    "name_height(i) = METHOD[i] eq 'dense' ? 0.98 : 0.945\n"
    "\n";

/* Half way to white. */
static void pale(const char *color, char out[8]) {
  unsigned rgb = 0;
  (void)sscanf(color, "#%x", &rgb);
  (void)snprintf(out, 8, "#%06x", (rgb >> 1 & 0x7f7f7f) + 0x7f7f7f);
}

static void put_series(const plot_script *p, FILE *f) {
  (void)fprintf(f, "N = %d\narray NAME[N]\narray METHOD[N]\narray COLOR[N]\narray PALE[N]\narray SHAPE[N]\n", p->n);
  for (int i = 0; i < p->n; i++) {
    const plot_series *s = p->series + i;
    const char *color = palette[s->color % PLOT_COLORS];
    char faint[8];
    pale(color, faint);
    (void)fprintf(f, "NAME[%d] = ", i + 1);
    put_string(f, s->name);
    (void)fprintf(f, "; METHOD[%d] = ", i + 1);
    put_string(f, s->method);
    (void)fprintf(f, "; COLOR[%d] = '%s'; PALE[%d] = '%s'; SHAPE[%d] = %d\n", i + 1, color, i + 1, faint, i + 1, shapes[s->shape % SHAPES]);
  }
}

int plot_script_write(const plot_script *p, ice_err *e) {
  const int terminal = find_terminal(p->terminal);
  char path[PATH_MAX], tail[16];
  file_out out;
  if (snprintf(path, sizeof path, "%s/%s.gp", p->folder, p->stem) >= PATH_MAX) return ice_fail(e, ICE_USAGE, "--out: the path is too long");
  ICE_TRY(file_out_open(&out, path, e));
  FILE *f = out.stream;
  (void)fprintf(f, "# gnuplot %s.gp, in this folder, draws %s.%s from %s.dat.\n%s\n", p->stem, p->stem, p->terminal, p->stem, terminals[terminal].line);
  (void)snprintf(tail, sizeof tail, ".%s", p->terminal);
  put_definition(f, "PICTURE", p->stem, tail);
  put_definition(f, "DATA", p->stem, ".dat");
  put_definition(f, "SUBJECT", p->subject, "");
  put_definition(f, "MACHINE", p->machine, "");
  put_definition(f, "BUILD", p->build, "");
  (void)fprintf(f, "X_LO = %.8g; X_HI = %.8g; Y_LO = %.8g; Y_HI = %.8g\n", p->x.lo, p->x.hi, p->y.lo, p->y.hi);
  (void)fprintf(f, "y_at(share) = %s\n", p->y.log ? "Y_LO * (Y_HI / Y_LO)**share" : "Y_LO + (Y_HI - Y_LO) * share");
  put_series(p, f);
  (void)fputs("set output PICTURE\n", f);
  (void)fputs(preamble, f);
  (void)fputs(p->body, f);
  return file_out_commit(&out, e);
}

/* --- running -------------------------------------------------------------------------------------------------------- */

static int spawn_gnuplot(const plot_script *p, const char *script, int say, int other_end, pid_t *pid) {
  posix_spawn_file_actions_t act;
  char *const argv[] = {"gnuplot", "-d", (char *)(uintptr_t)script, NULL}; /* -d: no start-up files of the user */
  int rc = posix_spawn_file_actions_init(&act);
  if (rc != 0) return rc;
  rc |= posix_spawn_file_actions_addclose(&act, other_end);
  rc |= posix_spawn_file_actions_adddup2(&act, say, STDERR_FILENO);
  rc |= posix_spawn_file_actions_adddup2(&act, say, STDOUT_FILENO);
  rc |= posix_spawn_file_actions_addchdir_np(&act, p->folder);
  if (rc == 0) rc = posix_spawnp(pid, "gnuplot", &act, NULL, argv, environ);
  (void)posix_spawn_file_actions_destroy(&act);
  return rc;
}

/* Reads to the end; keeps the beginning. */
static void listen_to(int fd, char *said, size_t size) {
  char waste[512];
  size_t n = 0;
  ssize_t got = 1;
  while (got > 0 || (got < 0 && errno == EINTR)) {
    const size_t room = size - 1 - n;
    got = read(fd, room ? said + n : waste, room ? room : sizeof waste);
    if (got > 0 && room) n += (size_t)got;
  }
  said[n] = 0;
}

int plot_script_run(const plot_script *p, ice_err *e) {
  char script[PATH_MAX], said[600];
  int fd[2], status = 0;
  pid_t pid = 0;
  (void)snprintf(script, sizeof script, "./%s.gp", p->stem); /* a name may begin with a dash */
  if (pipe(fd) != 0) return ice_fail(e, ICE_INTERNAL, "pipe: %s", strerror(errno));
  const int rc = spawn_gnuplot(p, script, fd[1], fd[0], &pid);
  (void)close(fd[1]);
  if (rc == 0) listen_to(fd[0], said, sizeof said);
  (void)close(fd[0]);
  if (rc == ENOENT)
    return ice_fail(e, ICE_INTERNAL, "gnuplot is not installed: apt-get install gnuplot-nox; the script waits in %s/%s.gp", p->folder, p->stem);
  if (rc != 0) return ice_fail(e, ICE_INTERNAL, "gnuplot: %s", strerror(rc));
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return ICE_OK;
  return ice_fail(e, ICE_INTERNAL, "gnuplot %s/%s.gp failed: %s", p->folder, p->stem, *said ? said : "it said nothing");
}
