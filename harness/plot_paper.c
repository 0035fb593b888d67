/* plot_paper.c - the latency figure of the paper, redrawn: for every task the bars of the published figure in its order, as time
 * relative to vanilla on that task (seconds of different machines say nothing), ours as bars and the published ones as marks. What
 * is compared with what stands in report_paper.h; the drawing in plots/paper/latency.gp. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/plot.h"
#include "harness/plot_script.h"
#include "harness/report_paper.h"
#include "kernels/core/fileio.h"

enum { BARS = 8, STEP = 10 }; /* bars of a task, and the width of its group on the axis */
static const struct {
  const char *method, *model, *name;
  int color;
} bar[BARS] = {{"vanilla", "softmax", "Transformer", PLOT_GREY},
               {"vanilla", "softmax-sharedqk", "Transformer, shared-KQ", PLOT_BLACK},
               {"reformer", "reformer", "Reformer", 2},
               {"lara", "lara", "LARA", 3},
               {"nystromformer", "nystromformer", "Nyströmformer", 4},
               {"htransformer1d", "htransformer1d", "H-Transformer-1D", 5},
               {"iceformer", "softmax", "IceFormer", 6},
               {"iceformer", "softmax-sharedqk", "IceFormer, shared-KQ", 7}};

static const paper_verdict *find(const report_paper *p, const paper_verdict *v, const char *task, int b) {
  for (int i = 0; i < p->n; i++)
    if (!strcmp(v[i].of->metric, "attention_s") && !strcmp(v[i].of->task, task) && !strcmp(v[i].of->method, bar[b].method) &&
        !strcmp(v[i].of->model, bar[b].model))
      return v + i;
  return NULL;
}

static void put(FILE *f, double v) {
  if (isfinite(v)) (void)fprintf(f, "\t%.6g", v);
  else (void)fputs("\tNaN", f);
}

/* Rows of bars, those of one series together; *known: how many of ours there are. */
static int write_bars(const report_paper *p, const paper_verdict *v, const paper_task task[PAPER_TASKS], const char *folder, const char *stem,
                      plot_axis *y, int *known, ice_err *e) {
  char path[PATH_MAX];
  file_out out;
  if (snprintf(path, sizeof path, "%s/%s.dat", folder, stem) >= PATH_MAX) return ice_fail(e, ICE_USAGE, "--out: the path is too long");
  ICE_TRY(file_out_open(&out, path, e));
  (void)fputs("s\ttask\tx\tours\tours_lo\tours_hi\tpublished\n", out.stream);
  *known = 0;
  for (int b = 0; b < BARS; b++)
    for (int t = 0; t < PAPER_TASKS; t++) {
      const paper_verdict *of = find(p, v, task[t].task, b);
      const int base = !strcmp(bar[b].method, "vanilla"); /* the unit of its own bars */
      const double ours = of && !base ? 1.0 / of->ours : b == 0 && isfinite(task[t].vanilla.value) ? 1.0 : NAN;
      const double published = of ? (base ? 1.0 : 1.0 / of->published) : NAN;
      *known += of && !base && isfinite(of->ours);
      (void)fprintf(out.stream, "%d\t%s%s%s\t%d", b + 1, task[t].task + strlen("lra/"), task[t].on == task[t].task ? "" : " as ",
                    task[t].on == task[t].task ? "" : task[t].on + strlen("lra/"), t * STEP + b);
      put(out.stream, ours);
      put(out.stream, of && !base ? 1.0 / of->hi : NAN);
      put(out.stream, of && !base ? 1.0 / of->lo : NAN);
      put(out.stream, published);
      (void)fputc('\n', out.stream);
      plot_axis_add(y, ours);
      plot_axis_add(y, published);
    }
  return file_out_commit(&out, e);
}

static int draw(const report_paper *p, const paper_verdict *v, const paper_task task[PAPER_TASKS], const plot_options *o, const char *body,
                ice_err *e) {
  plot_series series[BARS] = {0};
  plot_axis x = plot_axis_start(0), y = plot_axis_start(1);
  int known = 0;
  for (int b = 0; b < BARS; b++) {
    series[b].method = bar[b].method;
    series[b].color = series[b].shape = bar[b].color;
    (void)snprintf(series[b].name, sizeof series[b].name, "%s", bar[b].name);
  }
  ICE_TRY(write_bars(p, v, task, o->out, "paper-latency", &y, &known, e));
  if (!known) return ice_fail(e, ICE_NO_VERDICT, "no row of the paper's latency figure; icebench run configs/paper/lra.yaml makes them");
  plot_axis_add(&x, -1.5);
  plot_axis_add(&x, PAPER_TASKS * STEP - 1.5);
  plot_axis_pad(&y, 0.05, 0.1);
  const plot_script script = {.folder = o->out, .stem = "paper-latency", .terminal = o->terminal,
                              .subject = "time of attention relative to vanilla with padding, as published: baselines compute padding, IceFormer skips it",
                              .machine = "bars: ours, with 95 % interval; crosses: published (IceFormer project page, digitised). No bar: no row yet (icebench report --against paper says why)",
                              .build = "logarithmic; shared-KQ bars are relative to the Transformer with shared queries and keys", .body = body,
                              .series = series, .n = BARS, .x = x, .y = y};
  ICE_TRY(plot_script_write(&script, e));
  ICE_TRY(plot_script_run(&script, e));
  if (!o->quiet) (void)printf("%s/paper-latency.%s\n", o->out, o->terminal);
  return ICE_OK;
}

int plot_paper_draw(store *s, const plot_options *o, const char *published, ice_err *e) {
  char path[PATH_MAX], *body = NULL;
  report_paper p;
  paper_task task[PAPER_TASKS];
  paper_verdict *v = NULL;
  file_map map;
  if (!plot_terminal_known(o->terminal)) return ice_fail(e, ICE_USAGE, "--terminal = %s, allowed svg, png, pdf", o->terminal);
  if (snprintf(path, sizeof path, "%s/plots/paper/latency.gp", cli_share_dir()) >= PATH_MAX) return ice_fail(e, ICE_INTERNAL, "the path of plots/ is too long");
  ICE_TRY(file_open_map(path, 1 << 20, &map, e));
  body = strndup((const char *)map.p, map.n);
  file_close_map(&map);
  int rc = report_paper_parse(published, &p, e);
  if (rc == ICE_OK && (!body || !(v = calloc((size_t)p.n + 1, sizeof *v)))) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) rc = report_paper_judge(s, &p, o->experiment, v, task, e);
  if (rc == ICE_OK) rc = file_make_dirs(o->out, e);
  if (rc == ICE_OK) rc = draw(&p, v, task, o, body, e);
  report_paper_free(&p);
  free(v);
  free(body);
  return rc;
}
