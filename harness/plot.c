/* plot.c - see plot.h. A picture is the rows of one group (task, model, threads, instruction set, machine of an experiment)
 * as plots/rows.sql selects and names them and plots/<figure>.sql picks columns, drawn by plots/<figure>.gp. Data and
 * script are written whole before gnuplot starts, and stay. */
#include "harness/plot.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/config_shape.h"
#include "harness/plot_layout.h"
#include "harness/plot_script.h"
#include "harness/published.h"
#include "harness/report_rows.h"
#include "kernels/core/fileio.h"

/* --- files ---------------------------------------------------------------------------------------------------------- */

/* Folder of the figures. */
static int plots_folder(char *out, size_t size, ice_err *e) {
  const int n = snprintf(out, size, "%s/plots", cli_share_dir());
  return n > 0 && (size_t)n < size ? ICE_OK : ice_fail(e, ICE_INTERNAL, "the path of plots/ is too long");
}

/* Text of plots/<name><tail>, to free. */
static int read_text(const char *name, const char *tail, char **out, ice_err *e) {
  char path[PATH_MAX];
  file_map map;
  ICE_TRY(plots_folder(path, sizeof path - 100, e));
  const size_t n = strlen(path);
  (void)snprintf(path + n, sizeof path - n, "/%.80s%s", name, tail);
  ICE_TRY(file_open_map(path, 1 << 20, &map, e));
  *out = strndup((const char *)map.p, map.n);
  file_close_map(&map);
  return *out ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

/* Appends to the name of a file: letters, digits, '-', '_' and '.' stay, for names come from anywhere. */
static void add_name(char *stem, size_t size, const char *text) {
  size_t n = strlen(stem);
  if (n && n + 1 < size) stem[n++] = '-';
  for (const size_t first = n; *text && n + 1 < size && n - first < 60; text++, n++) {
    const char c = *text;
    const int fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-_.", c);
    stem[n] = fine && (n || c != '.') ? c : '_';
  }
  stem[n] = 0;
}

/* --- data ----------------------------------------------------------------------------------------------------------- */

/* The columns of every figure: series, method, x, y, then more values of y. The texts of a last column `setting`, if there
 * is one, are written beside the points (x, y). */
enum { SERIES, METHOD, X, Y, FIXED_COLUMNS };

/* The rows of a picture, series by series. */
typedef struct table {
  report_rows rows;
  int *order;          /* [rows.n] rows in the order of the series */
  int *number;         /* [rows.n] number of the series of each, from 1 */
  plot_series *series; /* [n] */
  int n;
  plot_axis x, y;
  plot_point *point; /* [rows.n] in the order of the series */
} table;

static const char *cell(const table *t, int row, int column) {
  const char *text = t->rows.cell[row * t->rows.columns + column];
  return text ? text : "unknown";
}

static void free_table(table *t) {
  report_rows_free(&t->rows);
  free(t->order);
  free(t->number);
  free(t->series);
  free(t->point);
  *t = (table){0};
}

/* Methods as the registry lists them, within a method as selected (insertion: few rows). */
static void sort_by_method(table *t) {
  for (int i = 0; i < t->rows.n; i++) {
    int j = i;
    for (; j > 0; j--) {
      const char *a = cell(t, t->order[j - 1], METHOD), *b = cell(t, i, METHOD);
      const int rank = report_rows_rank(a) - report_rows_rank(b);
      if (rank < 0 || (rank == 0 && strcmp(a, b) <= 0)) break;
      t->order[j] = t->order[j - 1];
    }
    t->order[j] = i;
  }
}

/* A colour for each method of the group, the same in all its figures; vanilla is grey and dense black everywhere. */
static int color_of(const report_rows *methods, const char *method) {
  int before = 0;
  if (!strcmp(method, "vanilla")) return PLOT_GREY;
  if (!strcmp(method, "dense")) return PLOT_BLACK;
  for (int i = 0; i < methods->n; i++) {
    const char *other = report_rows_text(methods, i, "method");
    if (!other || !strcmp(other, "vanilla") || !strcmp(other, "dense")) continue;
    const int rank = report_rows_rank(other) - report_rows_rank(method);
    before += rank < 0 || (rank == 0 && strcmp(other, method) < 0);
  }
  return PLOT_FIRST_COLOR + before % (PLOT_COLORS - PLOT_FIRST_COLOR);
}

/* The name of a series in the legend; what a reader must know of its method stands in brackets. */
static void name_series(plot_series *s, const char *name, const report_rows *methods) {
  char shared[256], own[256] = "";
  report_rows_shared_label(methods, 0, methods->n, shared, sizeof shared);
  for (int i = 0; i < methods->n; i++) {
    const char *method = report_rows_text(methods, i, "method"), *label = report_rows_text(methods, i, "label");
    if (label && !strcmp(method, s->method)) report_label_parts(label, shared, 0, own, sizeof own);
  }
  (void)snprintf(s->name, sizeof s->name, *own ? "%.100s (%s)" : "%.100s", name, own);
}

static void find_series(table *t, const report_rows *methods) {
  for (int i = 0; i < t->rows.n; i++) {
    const int row = t->order[i];
    const char *name = cell(t, row, SERIES);
    if (i == 0 || strcmp(name, cell(t, t->order[i - 1], SERIES))) {
      plot_series *s = t->series + t->n++;
      s->method = cell(t, row, METHOD);
      s->color = s->shape = color_of(methods, s->method);
      for (plot_series *other = t->series; other < s; other++) s->shape += other->color == s->color; /* same colour, other shape */
      name_series(s, name, methods);
    }
    t->number[i] = t->n;
  }
}

static double number(const table *t, int row, int column) {
  const char *text = t->rows.cell[row * t->rows.columns + column];
  return text ? strtod(text, NULL) : (double)NAN;
}

/* Ranges of the axes and places of the labels. Which axes are logarithmic the body of the figure says. */
static void lay_out(table *t, const char *body) {
  const int log_both = strstr(body, "set logscale xy") != NULL;
  t->x = plot_axis_start(log_both || strstr(body, "set logscale x") != NULL);
  t->y = plot_axis_start(log_both);
  for (int row = 0; row < t->rows.n; row++) {
    plot_axis_add(&t->x, number(t, row, X));
    for (int c = Y; c < t->rows.columns; c++)
      if (strcmp(t->rows.name[c], "setting")) plot_axis_add(&t->y, number(t, row, c));
  }
  plot_axis_pad(&t->x, 0.08, 0.12);
  plot_axis_pad(&t->y, 0.08, 0.12);
  for (int i = 0; i < t->rows.n; i++) {
    const int row = t->order[i];
    t->point[i] = (plot_point){.x = plot_axis_unit(&t->x, number(t, row, X)), .y = plot_axis_unit(&t->y, number(t, row, Y)),
                               .series = t->number[i], .label = report_rows_text(&t->rows, row, "setting")};
  }
  plot_place_labels(t->point, t->rows.n);
}

static int make_table(table *t, const report_rows *methods, const char *body, ice_err *e) {
  const size_t n = (size_t)t->rows.n;
  if (t->rows.columns < FIXED_COLUMNS || strcmp(t->rows.name[SERIES], "series") || strcmp(t->rows.name[METHOD], "method"))
    return ice_fail(e, ICE_INTERNAL, "the first columns of a figure's .sql must be series, method, x, y");
  t->order = calloc(n, sizeof *t->order);
  t->number = calloc(n, sizeof *t->number);
  t->series = calloc(n, sizeof *t->series);
  t->point = calloc(n, sizeof *t->point);
  if (!t->order || !t->number || !t->series || !t->point) return ice_fail(e, ICE_INTERNAL, "out of memory");
  sort_by_method(t);
  find_series(t, methods);
  lay_out(t, body);
  return ICE_OK;
}

static void put_field(FILE *f, const char *text, char end) {
  for (const char *c = text ? text : "NaN"; *c; c++) (void)fputc((unsigned char)*c < ' ' || *c == '"' ? ' ' : *c, f);
  (void)fputc(end, f);
}

static void put_place(FILE *f, const table *t, int i) {
  const plot_point *p = t->point + i;
  (void)fprintf(f, "%d\t", t->number[i]);
  if (isfinite(p->label_x)) (void)fprintf(f, "%.8g\t%.8g\t", plot_axis_value(&t->x, p->label_x), plot_axis_value(&t->y, p->label_y));
  else (void)fputs("NaN\tNaN\t", f);
}

static int write_data(const table *t, const char *folder, const char *stem, ice_err *e) {
  char path[PATH_MAX];
  file_out out;
  if (snprintf(path, sizeof path, "%s/%s.dat", folder, stem) >= PATH_MAX) return ice_fail(e, ICE_USAGE, "--out: the path is too long");
  ICE_TRY(file_out_open(&out, path, e));
  for (int i = -1; i < t->rows.n; i++) {
    char **row = i < 0 ? t->rows.name : t->rows.cell + t->order[i] * t->rows.columns;
    if (i < 0) (void)fputs("s\tlabel_x\tlabel_y\t", out.stream);
    else put_place(out.stream, t, i);
    for (int c = 0; c < t->rows.columns; c++) put_field(out.stream, row[c], c + 1 < t->rows.columns ? '\t' : '\n');
  }
  return file_out_commit(&out, e);
}

/* --- one group, one figure -------------------------------------------------------------------------------------------- */

enum { GROUP = 6 };
static const char group_columns[] = "experiment, task, model, threads, isa, machine_id";

typedef struct picture {
  const plot_options *o;
  char **group;         /* [GROUP] values of group_columns */
  const char *rows_sql; /* text of plots/rows.sql */
  const char *published; /* JSON of published.h */
  const char *stem;     /* names of its files begin so */
  report_rows facts;    /* one row a method */
  char subject[800], machine[400], build[500];
  int drawn;
} picture;

static int select_rows(store *s, const picture *p, const char *sql, report_rows *r, ice_err *e) {
  char *text = NULL;
  const char *bind[GROUP + 1];
  *r = (report_rows){0};
  for (int i = 0; i < GROUP; i++) bind[i] = p->group[i];
  bind[GROUP] = p->published;
  if (asprintf(&text, "%s\n%s", p->rows_sql, sql) < 0) return ice_fail(e, ICE_INTERNAL, "out of memory");
  const int rc = report_rows_select(s, text, bind, GROUP + 1, r, e);
  free(text);
  return rc;
}

static const char *fact(const picture *p, const char *column) {
  const char *text = report_rows_text(&p->facts, 0, column);
  return text ? text : "?";
}

/* What the rows have in common: the line under the heading, and two at the foot. */
static int read_facts(store *s, picture *p, ice_err *e) {
  static const char sql[] =
      "SELECT method, max(label) AS label, machine, cores, caches, round(memory_bytes / 1073741824.0, 1) AS gib, os, blas, variant, "
      "group_concat(DISTINCT substr(git_commit, 1, 12) || iif(git_dirty, ' with local changes', '')) AS commits, "
      "max(examples) AS examples, max(timed_inputs) AS inputs, max(n) AS n, count(DISTINCT seed) AS seeds, min(seed) AS seed, "
      "(SELECT iif(max(n) > min(n), min(n) || ' to ' || max(n), max(n)) FROM named) AS sizes "
      "FROM named GROUP BY method";
  char seeds[60], shared[100];
  ICE_TRY(select_rows(s, p, sql, &p->facts, e));
  if (p->facts.n == 0) return ICE_OK;
  const int one = !strcmp(fact(p, "seeds"), "1");
  (void)snprintf(seeds, sizeof seeds, one ? "seed %.30s" : "mean of %.30s seeds", fact(p, one ? "seed" : "seeds"));
  report_rows_shared_label(&p->facts, 0, p->facts.n, shared, sizeof shared);
  if (config_shape_task(p->group[1]))
    (void)snprintf(p->subject, sizeof p->subject, "%.80s: %.40s%s%s, %.60s, n = %s; %s; %s threads, %.16s", p->group[0], p->group[1],
                   *shared ? ", " : "", shared, p->group[2], fact(p, "sizes"), seeds, p->group[3], p->group[4]);
  else
    (void)snprintf(p->subject, sizeof p->subject, "%.80s: %.40s%s%s, model %.60s; %s examples, %s; %s timed inputs of about %s tokens; %s threads, %.16s",
                   p->group[0], p->group[1], *shared ? ", " : "", shared, p->group[2], fact(p, "examples"), seeds, fact(p, "inputs"), fact(p, "n"),
                   p->group[3], p->group[4]);
  (void)snprintf(p->machine, sizeof p->machine, "%.90s, %s cores, %.100s, %s GiB, %.100s", fact(p, "machine"), fact(p, "cores"), fact(p, "caches"),
                 fact(p, "gib"), fact(p, "os"));
  (void)snprintf(p->build, sizeof p->build, "BLAS: %.200s; commit %.100s, %.16s build", fact(p, "blas"), fact(p, "commits"), fact(p, "variant"));
  return ICE_OK;
}

static int draw_table(picture *p, const char *figure, const char *body, const table *t, ice_err *e) {
  char stem[400];
  (void)snprintf(stem, sizeof stem, "%s", p->stem);
  add_name(stem, sizeof stem, figure);
  const plot_script script = {.folder = p->o->out, .stem = stem, .terminal = p->o->terminal, .subject = p->subject, .machine = p->machine,
                              .build = p->build, .body = body, .series = t->series, .n = t->n, .x = t->x, .y = t->y};
  ICE_TRY(write_data(t, p->o->out, stem, e));
  ICE_TRY(plot_script_write(&script, e));
  ICE_TRY(plot_script_run(&script, e));
  if (!p->o->quiet) (void)printf("%s/%s.%s\n", p->o->out, stem, p->o->terminal);
  p->drawn++;
  return ICE_OK;
}

static int draw_figure(store *s, picture *p, const char *figure, ice_err *e) {
  char *sql = NULL, *body = NULL;
  table t = {0};
  int rc = read_text(figure, ".sql", &sql, e);
  if (rc == ICE_OK) rc = read_text(figure, ".gp", &body, e);
  if (rc == ICE_OK) rc = select_rows(s, p, sql, &t.rows, e);
  if (rc == ICE_OK && t.rows.n > 0) rc = make_table(&t, &p->facts, body, e);
  if (rc == ICE_OK && t.rows.n > 0) rc = draw_table(p, figure, body, &t, e);
  free_table(&t);
  free(sql);
  free(body);
  return rc;
}

/* --- all of it ------------------------------------------------------------------------------------------------------ */

static int is_script(const struct dirent *d) {
  const size_t n = strlen(d->d_name);
  return n > 3 && n < 64 && d->d_name[0] != '.' && !strcmp(d->d_name + n - 3, ".gp");
}

/* The figures of plots/; their entries lose the ".gp". */
static int list_figures(struct dirent ***entry, int *n, ice_err *e) {
  char folder[PATH_MAX];
  ICE_TRY(plots_folder(folder, sizeof folder, e));
  *n = scandir(folder, entry, is_script, alphasort);
  if (*n <= 0) return ice_fail(e, ICE_INTERNAL, "%s: no figures there", folder);
  for (int i = 0; i < *n; i++) (*entry)[i]->d_name[strlen((*entry)[i]->d_name) - 3] = 0;
  return ICE_OK;
}

static int check_figure(const char *wanted, struct dirent *const *entry, int n, ice_err *e) {
  char all[400] = "";
  for (int i = 0; i < n; i++) {
    if (!wanted || !strcmp(wanted, entry[i]->d_name)) return ICE_OK;
    const size_t at = strlen(all);
    (void)snprintf(all + at, sizeof all - at, "%s%s", i ? ", " : "", entry[i]->d_name);
  }
  return ice_fail(e, ICE_USAGE, "--figure = %s, allowed %s", wanted, all);
}

typedef char group_stem[380];

/* The stem of a group's files: the experiment, and what tells the group from the experiment's others. Where it would be that of a group
 * before - experiment x with a group called 1, and experiment x-1; names that differ in odd characters only - it gets a number: x-1.2. */
static void name_group(const report_rows *groups, int row, group_stem *stems) {
  char **mine = groups->cell + row * GROUP, *stem = stems[row];
  const size_t size = sizeof *stems - 12;
  stem[0] = 0;
  add_name(stem, size, mine[0]);
  for (int c = 1; c < GROUP; c++) {
    int differs = 0;
    for (char **other = groups->cell; other < groups->cell + groups->n * GROUP; other += GROUP)
      differs |= !strcmp(other[0], mine[0]) && strcmp(other[c], mine[c]);
    if (differs) add_name(stem, size, mine[c]);
  }
  const size_t n = strlen(stem);
  int copy = 1;
  for (int other = 0; other < row; other++)
    if (!strcmp(stems[other], stem)) {
      (void)snprintf(stem + n, sizeof *stems - n, ".%d", ++copy);
      other = -1; /* is the new one free? */
    }
}

static int draw_groups(store *s, const plot_options *o, const report_rows *groups, const char *rows_sql, const char *published, struct dirent *const *entry,
                       int n, ice_err *e) {
  int drawn = 0, rc = ICE_OK;
  group_stem *stem = calloc((size_t)groups->n + 1, sizeof *stem);
  if (!stem) return ice_fail(e, ICE_INTERNAL, "out of memory");
  for (int row = 0; rc == ICE_OK && row < groups->n; row++) {
    name_group(groups, row, stem);
    picture p = {.o = o, .group = groups->cell + row * GROUP, .rows_sql = rows_sql, .published = published, .stem = stem[row]};
    rc = read_facts(s, &p, e);
    for (int i = 0; rc == ICE_OK && i < n; i++)
      if (!o->figure || !strcmp(o->figure, entry[i]->d_name)) rc = draw_figure(s, &p, entry[i]->d_name, e);
    report_rows_free(&p.facts);
    drawn += p.drawn;
  }
  free(stem);
  if (rc != ICE_OK || drawn) return rc;
  if (o->experiment) return ice_fail(e, ICE_NO_VERDICT, "experiment '%s' has no rows for a chart; icebench run makes them", o->experiment);
  return ice_fail(e, ICE_NO_VERDICT, "no rows for a chart; icebench run makes them");
}

int plot_draw(store *s, const plot_options *o, ice_err *e) {
  struct dirent **entry = NULL;
  report_rows groups = {0};
  char *rows_sql = NULL, *published = NULL, sql[300];
  int n = 0;
  if (!plot_terminal_known(o->terminal)) return ice_fail(e, ICE_USAGE, "--terminal = %s, allowed svg, png, pdf", o->terminal);
  (void)snprintf(sql, sizeof sql, "SELECT DISTINCT %s FROM results WHERE status = 'ok' %s ORDER BY %s", group_columns,
                 o->experiment ? "AND experiment = ?1" : "", group_columns);
  int rc = list_figures(&entry, &n, e);
  if (rc == ICE_OK) rc = check_figure(o->figure, entry, n, e);
  if (rc == ICE_OK) rc = read_text("rows", ".sql", &rows_sql, e);
  if (rc == ICE_OK) rc = report_rows_select(s, sql, &o->experiment, o->experiment ? 1 : 0, &groups, e);
  if (rc == ICE_OK) rc = file_make_dirs(o->out, e);
  if (rc == ICE_OK) rc = published_read(&published, e);
  if (rc == ICE_OK) rc = draw_groups(s, o, &groups, rows_sql, published, entry, n, e);
  for (int i = 0; i < n; i++) free(entry[i]);
  free((void *)entry);
  report_rows_free(&groups);
  free(rows_sql);
  free(published);
  return rc;
}
