/* test_train.c - the trainer: schedule, order of examples, one run against a trainer in double, threads, kill and
 * resume, refusals, and that it learns.
 *
 * Every run is a child process, as users have it: it may be killed, and its threads do not leak into the next fork. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "kernels/core/rng.h"
#include "kernels/methods/dense.h"
#include "models/safetensors.h"
#include "models/train.h"
#include "tests/support/encoder_ref.h"

static char folder[] = "/tmp/icebench-train-XXXXXX", out[256], state_path[300], log_path[256];

static void clean(void) { /* everything, temporary files of killed runs too */
  DIR *d = opendir(folder);
  for (struct dirent *f; d && (f = readdir(d));) {
    char path[600];
    (void)snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
    (void)unlink(path);
  }
  if (d) (void)closedir(d);
}
static int set_up(void **state) {
  (void)state;
  if (!mkdtemp(folder)) return -1;
  (void)snprintf(out, sizeof out, "%s/model.safetensors", folder);
  (void)snprintf(state_path, sizeof state_path, "%s.state", out);
  (void)snprintf(log_path, sizeof log_path, "%s/model.log.csv", folder);
  return 0;
}
static int tear_down(void **state) {
  (void)state;
  clean();
  return rmdir(folder);
}
static int clean_up(void **state) {
  (void)state;
  clean();
  return 0;
}

/* --- a toy task: are there more 1s than 2s? -------------------------------------------------------------------- */

enum { VOCAB = 6, LONGEST = 15 };

static task_data toy(int64_t count, int inputs, uint64_t seed) {
  task_data d = {.count = count, .inputs = inputs, .origin = "toy"};
  d.tokens = malloc((size_t)(count * inputs * LONGEST) * sizeof *d.tokens);
  d.start = malloc((size_t)(count * inputs + 1) * sizeof *d.start);
  d.label = malloc((size_t)count * sizeof *d.label);
  assert_true(d.tokens && d.start && d.label);
  attn_rng r;
  attn_rng_seed(&r, seed, 0);
  int64_t at = 0;
  for (int64_t e = 0; e < count; e++) {
    int balance = 0;
    for (int i = 0; i < inputs; i++) {
      d.start[e * inputs + i] = at;
      for (int64_t n = 1 + (int64_t)attn_rng_below(&r, LONGEST); n > 0; n--) {
        const int32_t id = 1 + (int32_t)attn_rng_below(&r, VOCAB - 1);
        balance += id == 1 ? 1 : id == 2 ? -1 : 0;
        d.tokens[at++] = id;
      }
    }
    d.label[e] = balance > 0;
  }
  d.start[count * inputs] = at;
  return d;
}

static train_config config(int inputs) {
  return (train_config){.model = {.vocab = VOCAB,
                                  .positions = 16,
                                  .width = 16,
                                  .layers = 1,
                                  .heads = 2,
                                  .mlp = 16,
                                  .head_hidden = 16,
                                  .classes = 2,
                                  .inputs = inputs},
                        .method = &attn_method_dense,
                        .seed = 5,
                        .batch = 6,
                        .threads = 1,
                        .steps = 43,
                        .warmup = 10,
                        .lr = 3e-3,
                        .dropout = 0.1,
                        .eval_every = 7,
                        .save_every = 5,
                        .out = out,
                        .description = "toy"};
}

/* --- runs ------------------------------------------------------------------------------------------------------ */

typedef struct plan {
  train_config cfg;
  train_start resume;
  int inputs;
  int64_t kill_at, stop_at; /* at the first report of this step or a later one; 0: never */
  int kill_after_ms;        /* from outside; 0: never */
  uint64_t fail_at;         /* this allocation fails; 0: none */
} plan;

/* What a report saw, checked as it comes. */
typedef struct watch {
  const plan *p;
  volatile sig_atomic_t stop;
  int64_t last;
  int sane;
} watch;
static void on_report(void *ctx, const train_event *ev) {
  watch *w = ctx;
  const train_config *c = &w->p->cfg;
  const int eval = ev->step % c->eval_every == 0 || ev->step == c->steps;
  w->sane &=
      ev->step > w->last && ev->step <= c->steps && ev->steps == c->steps && ev->loss > 0.0 && isfinite(ev->loss);
  w->sane &= eval == !isnan(ev->dev_accuracy) && (eval || ev->step % 10 == 0) && ev->lr > 0.0 && ev->lr <= c->lr;
  w->sane &= !eval || (ev->best_accuracy >= ev->dev_accuracy && ev->best_step >= 1 && ev->best_step <= ev->step);
  w->last = ev->step;
  if (w->p->kill_at && ev->step >= w->p->kill_at) (void)raise(SIGKILL);
  if (w->p->stop_at && ev->step >= w->p->stop_at) w->stop = 1;
}

enum { KILLED = -SIGKILL, STOPPED = 100, INSANE = 99 };

static void child(const plan *p, const task_data *train, const task_data *dev, int pipe_end) {
  ice_err e = {0};
  int stopped = 0;
  watch w = {.p = p, .sane = 1};
  const size_t live = attn_alloc_counters().live_bytes;
  attn_alloc_fail_at(p->fail_at);
  int rc = train_run(&p->cfg, train, dev, p->resume, &w.stop, &stopped, on_report, &w, &e);
  w.sane &= attn_alloc_counters().live_bytes == live;
  (void)!write(pipe_end, e.text, strlen(e.text));
  _exit(!w.sane ? INSANE : stopped ? STOPPED + rc : rc);
}

/* Exit code of a run, KILLED, STOPPED + code when it obeyed a signal; its error text in text. */
static int run_on(const plan *p, const task_data *train, const task_data *dev, char text[1024]) {
  int ends[2], status;
  assert_int_equal(pipe(ends), 0);
  (void)fflush(stdout);
  const pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) child(p, train, dev, ends[1]);
  (void)close(ends[1]);
  if (p->kill_after_ms) {
    (void)nanosleep(&(struct timespec){.tv_nsec = p->kill_after_ms * 1000000L}, NULL);
    (void)kill(pid, SIGKILL);
  }
  ssize_t n = read(ends[0], text, 1023);
  text[n > 0 ? n : 0] = 0;
  (void)close(ends[0]);
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
static int run(const plan *p, char text[1024]) {
  task_data train = toy(100, p->cfg.model.inputs, 1), dev = toy(40, p->cfg.model.inputs, 2);
  const int rc = run_on(p, &train, &dev, text);
  task_data_free(&train), task_data_free(&dev);
  return rc;
}

typedef struct bytes {
  char *p;
  size_t n;
} bytes;
static bytes slurp(const char *path) {
  bytes b = {0};
  FILE *f = fopen(path, "rb");
  if (!f) fail_msg("%s is missing", path);
  assert_int_equal(fseek(f, 0, SEEK_END), 0);
  b.n = (size_t)ftell(f);
  rewind(f);
  b.p = malloc(b.n + 1);
  assert_non_null(b.p);
  assert_int_equal(fread(b.p, 1, b.n, f), b.n);
  b.p[b.n] = 0;
  (void)fclose(f);
  return b;
}
static void spill(const char *path, bytes b) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(b.p, 1, b.n, f), b.n);
  assert_int_equal(fclose(f), 0);
}
static void assert_file(const char *path, bytes want) {
  bytes b = slurp(path);
  if (b.n != want.n || memcmp(b.p, want.p, b.n) != 0) fail_msg("%s differs", path);
  free(b.p);
}
static int exists(const char *path) { return access(path, F_OK) == 0; }

/* The whole training in one go: the truth for the others. Leaves no files. */
static void truth(const train_config *c, bytes *model, bytes *log) {
  char text[1024];
  const plan p = {.cfg = *c};
  const int rc = run(&p, text);
  if (rc != ICE_OK) fail_msg("code %d: %s", rc, text);
  assert_false(exists(state_path));
  *model = slurp(out), *log = slurp(log_path);
  clean();
}

/* --- schedule and order ---------------------------------------------------------------------------------------- */

static void assert_near(double got, double want, double relative) {
  if (!(fabs(got - want) <= relative * fabs(want))) fail_msg("%.12g, expected %.12g", got, want);
}

static void test_schedule__pytorch_one_cycle__same_values(void **state) {
  (void)state;
  /* By hand from the documented formula: max_lr 1, 10 steps, pct_start 0.4: up to step 0.4*10 - 1 = 3, down to step 9;
   * start 1/25, end 1/25/1e4; beta1 0.95 -> 0.85 -> 0.95. */
  const double lr[] = {0.04, 0.36, 0.68, 1.0, 0.833334, 0.666668, 0.500002, 0.333336, 0.16667, 4e-6};
  const double beta[] = {0.95, 0.95 - 0.1 / 3, 0.95 - 0.2 / 3, 0.85, 0.85 + 0.1 / 6, 0.85 + 0.2 / 6,
                         0.9,  0.85 + 0.4 / 6, 0.85 + 0.5 / 6, 0.95};
  double l, b;
  for (int64_t t = 0; t < 10; t++) {
    train_schedule(t, 10, 4, 1.0, &l, &b);
    assert_near(l, lr[t], 1e-10), assert_near(b, beta[t], 1e-12);
  }
  const struct { /* the ListOps recipe */
    int64_t t;
    double lr;
  } listops[] = {{0, 4e-6}, {999, 1e-4}, {4999, 4e-10}, {500, 4e-6 + 9.6e-5 * 500 / 999}, {2999, 5.00002e-5}};
  for (int i = 0; i < 5; i++) {
    train_schedule(listops[i].t, 5000, 1000, 1e-4, &l, &b);
    assert_near(l, listops[i].lr, 1e-10);
  }
  train_schedule(0, 2, 1, 1.0, &l, &b); /* the shortest */
  assert_near(l, 1.0, 0.0), assert_near(b, 0.85, 1e-15);
  train_schedule(1, 2, 1, 1.0, &l, &b);
  assert_near(l, 4e-6, 1e-10), assert_near(b, 0.95, 1e-15);
}

static void test_stream__each_pass__a_permutation_of_its_own(void **state) {
  (void)state;
  enum { MOST = 1000, PASSES = 4 };
  const int64_t sizes[] = {1, 2, 7, MOST};
  int64_t permutation[MOST], pass = -1;
  static int32_t order[PASSES][MOST];
  for (int k = 0; k < 4; k++) {
    const int64_t n = sizes[k];
    pass = -1;
    for (int p = 0; p < PASSES; p++) {
      uint8_t seen[MOST] = {0};
      for (int64_t i = 0; i < n; i++) {
        const int64_t item = train_stream(9, n, p * n + i, permutation, &pass);
        assert_true(item >= 0 && item < n && !seen[item]);
        seen[item] = 1, order[p][i] = (int32_t)item;
      }
    }
    for (int p = 1; p < PASSES && n > 7; p++) assert_memory_not_equal(order[0], order[p], sizeof order[0]);
    for (int i = 0; i < 50; i++) { /* any place, in any order */
      const int64_t pos = (int64_t)(attn_mix64((uint64_t)i) % (uint64_t)(n * PASSES));
      assert_int_equal(train_stream(9, n, pos, permutation, &pass), order[pos / n][pos % n]);
    }
  }
  int same = 0;
  pass = -1;
  for (int64_t i = 0; i < MOST; i++) same += train_stream(10, MOST, i, permutation, &pass) == order[0][i];
  assert_true(same < 12); /* one expected by chance */
}

/* --- a run against its definition ------------------------------------------------------------------------------ */

/* One step of the recipe in double: mean gradient of the batch by central differences, Adam as PyTorch has it. */
static void reference_step(encoder_ref *r, const train_config *c, const task_data *train, int64_t step, double *m,
                           double *v, double *gradient) {
  enum { DROPOUT = 0xd201 }; /* trainer's key of the dropouts */
  double lr, beta1, logits[8];
  int64_t permutation[64], pass = -1;
  const int64_t np = r->m->n_params;
  memset(gradient, 0, (size_t)np * sizeof *gradient);
  for (int i = 0; i < c->batch; i++) {
    const int64_t item = train_stream(c->seed, train->count, step * c->batch + i, permutation, &pass);
    const int32_t *ids[2] = {task_ids(train, item, 0), NULL};
    const int64_t n[2] = {task_len(train, item, 0), 0};
    const uint64_t key = attn_hash(attn_hash(c->seed, DROPOUT, (uint64_t)step), (uint64_t)i, 0);
    (void)encoder_ref_loss(r, ids, n, train->label[item], (float)c->dropout, key, logits);
    assert_true(r->kink > 1e-4);
    for (int64_t p = 0; p < np; p++)
      gradient[p] += encoder_ref_slope(r, p, ids, n, train->label[item], (float)c->dropout, key) / c->batch;
  }
  train_schedule(step, c->steps, c->warmup, c->lr, &lr, &beta1);
  for (int64_t p = 0; p < np; p++) {
    m[p] = beta1 * m[p] + (1 - beta1) * gradient[p];
    v[p] = 0.999 * v[p] + 0.001 * gradient[p] * gradient[p];
    const double root = sqrt(v[p]) / sqrt(1 - pow(0.999, (double)step + 1)) + 1e-6;
    r->params[p] -= lr / (1 - pow(beta1, (double)step + 1)) * m[p] / root;
  }
}

static void test_run__three_steps__weights_of_the_recipe_in_double(void **state) {
  (void)state;
  train_config c = config(1);
  c.model.width = c.model.mlp = c.model.head_hidden = 8;
  c.batch = 3, c.steps = 3, c.warmup = 2, c.eval_every = 100, c.lr = 1e-2, c.seed = 8;
  task_data train = toy(7, 1, 3), dev = toy(4, 1, 4);
  char text[1024];
  const plan p = {.cfg = c};
  const int rc = run_on(&p, &train, &dev, text);
  if (rc != ICE_OK) fail_msg("code %d: %s", rc, text);
  encoder got, start;
  assert_int_equal(encoder_load(&got, out, NULL), ICE_OK); /* evaluated once, at the end: the last weights */
  assert_int_equal(encoder_create(&start, &c.model, NULL), ICE_OK);
  encoder_init(&start, c.seed);
  const int64_t np = start.n_params;
  encoder_ref r = encoder_ref_new(&start);
  double *m = calloc((size_t)np, sizeof *m), *v = calloc((size_t)np, sizeof *v), *g = calloc((size_t)np, sizeof *g);
  double *least = calloc((size_t)np, sizeof *least);
  assert_true(m && v && g && least);
  for (int64_t step = 0; step < 3; step++) {
    reference_step(&r, &c, &train, step, m, v, g);
    for (int64_t i = 0; i < np; i++) least[i] = step ? fmin(least[i], fabs(g[i])) : fabs(g[i]);
  }
  /* Adam divides by the gradient's size, so that its relative error counts: 2e-7 of rounding (see test_gradients.c), and
   * 1e-4 for the rest. Where the gradient all but vanishes only the length of the way is known. Gradients near the eps
   * of 1e-6 tell a mean over the batch from a sum. */
  int64_t compared = 0;
  double moved = 0.0;
  for (int64_t i = 0; i < np; i++) {
    const int sharp = least[i] > 2e-5;
    const double bound = 2 * c.lr * (sharp ? 1e-4 + 2e-7 / least[i] : 1.5);
    compared += sharp;
    if (!(fabs((double)got.params[i] - r.params[i]) <= bound))
      fail_msg("parameter %lld: %.9g, expected %.9g (from %.9g)", (long long)i, (double)got.params[i], r.params[i],
               (double)start.params[i]);
    moved += fabs((double)(got.params[i] - start.params[i]));
  }
  assert_true(compared > np / 3 && moved > 0.1 * c.lr * (double)np);
  for (int64_t row = LONGEST; row < c.model.positions; row++) /* a position no example has stays where it was */
    assert_memory_equal(got.params + row * 8, start.params + row * 8, 8 * sizeof(float));
  free(m), free(v), free(g), free(least);
  encoder_ref_free(&r), encoder_destroy(&got), encoder_destroy(&start);
  task_data_free(&train), task_data_free(&dev);
}

static void test_run__weights_to_start_from__are_the_start(void **state) {
  (void)state;
  train_config c = config(1);
  c.steps = 2, c.warmup = 1, c.lr = 1e-7;
  encoder start, got;
  assert_int_equal(encoder_create(&start, &c.model, NULL), ICE_OK);
  encoder_scramble(&start, 77);
  c.init = start.params;
  char text[1024];
  const plan p = {.cfg = c};
  assert_int_equal(run(&p, text), ICE_OK);
  assert_int_equal(encoder_load(&got, out, NULL), ICE_OK);
  for (int64_t i = 0; i < start.n_params; i++) /* two steps of at most a rate each, and the rounding of the weight */
    assert_true(fabsf(got.params[i] - start.params[i]) <= 2e-7f + 0x1p-23f * fabsf(start.params[i]));
  encoder_destroy(&start), encoder_destroy(&got);
}

static void test_run__threads__do_not_change_bits(void **state) {
  (void)state;
  for (int inputs = 1; inputs <= 2; inputs++) {
    train_config c = config(inputs);
    bytes model, log;
    c.threads = 1;
    truth(&c, &model, &log);
    for (c.threads = 2; c.threads <= 5; c.threads += 3) {
      bytes m, l;
      truth(&c, &m, &l);
      assert_int_equal(m.n, model.n);
      assert_memory_equal(m.p, model.p, m.n);
      assert_int_equal(l.n, log.n);
      assert_memory_equal(l.p, log.p, l.n);
      free(m.p), free(l.p);
    }
    free(model.p), free(log.p);
  }
}

static void test_run__log__a_row_every_ten_steps_and_evaluation(void **state) {
  (void)state;
  train_config c = config(1);
  bytes model, log;
  truth(&c, &model, &log);
  const int64_t want[] = {7, 10, 14, 20, 21, 28, 30, 35, 40, 42, 43};
  char *line = strtok(log.p, "\n");
  assert_string_equal(line, "step,lr,loss,dev_accuracy");
  for (int i = 0; i < 11; i++) {
    assert_non_null(line = strtok(NULL, "\n"));
    long long step;
    double lr, loss, accuracy, rate, beta1;
    const int fields = sscanf(line, "%lld,%lf,%lf,%lf", &step, &lr, &loss, &accuracy);
    assert_int_equal(step, want[i]);
    assert_int_equal(fields, step % 7 == 0 || step == 43 ? 4 : 3);
    train_schedule(step - 1, c.steps, c.warmup, c.lr, &rate, &beta1);
    assert_near(lr, rate, 1e-5);
    assert_true(loss > 0.05 && loss < 2.0 && (fields == 3 || (accuracy >= 0.0 && accuracy <= 1.0)));
  }
  assert_null(strtok(NULL, "\n"));
  free(model.p), free(log.p);
}

static void test_run__toy_task__learned(void **state) {
  (void)state;
  train_config c = config(1);
  c.steps = 400, c.warmup = 40, c.batch = 16, c.eval_every = 50, c.lr = 5e-3;
  task_data train = toy(500, 1, 1), dev = toy(200, 1, 2);
  char text[1024];
  const plan p = {.cfg = c};
  assert_int_equal(run_on(&p, &train, &dev, text), ICE_OK);
  st_file f;
  assert_int_equal(st_open(out, &f, NULL), ICE_OK);
  const double accuracy = atof(st_meta(&f, "dev_accuracy"));
  st_close(&f);
  int64_t positive = 0;
  for (int64_t i = 0; i < dev.count; i++) positive += dev.label[i];
  assert_true(positive < 130); /* a constant answer gets less than two thirds */
  if (accuracy < 0.9) fail_msg("dev accuracy %g", accuracy);
  bytes log = slurp(log_path);
  double first, last, lr;
  long long step;
  assert_int_equal(sscanf(strchr(log.p, '\n') + 1, "%lld,%lf,%lf", &step, &lr, &first), 3);
  char *row = log.p + log.n - 1;
  while (row[-1] != '\n') row--;
  assert_int_equal(sscanf(row, "%lld,%lf,%lf", &step, &lr, &last), 3);
  assert_true(step == 400 && last < 0.5 * first);
  free(log.p);
  task_data_free(&train), task_data_free(&dev);
}

/* --- kill, stop, resume ---------------------------------------------------------------------------------------- */

static void test_resume__killed_at_any_report__same_bytes(void **state) {
  (void)state;
  const train_config c = config(1);
  bytes model, log;
  truth(&c, &model, &log);
  const int64_t at[] = {7, 10, 14, 20, 28, 35, 42, 43};
  for (int i = 0; i < 8; i++) {
    char text[1024];
    plan p = {.cfg = c, .kill_at = at[i]};
    assert_int_equal(run(&p, text), KILLED);
    p.kill_at = 0, p.resume = TRAIN_RESUME, p.cfg.threads = 1 + i % 3;
    const int rc = run(&p, text);
    if (rc != ICE_OK) fail_msg("code %d: %s", rc, text);
    assert_file(out, model), assert_file(log_path, log);
    assert_false(exists(state_path));
    clean();
  }
  free(model.p), free(log.p);
}

static void test_resume__killed_again_and_again__same_bytes(void **state) {
  (void)state;
  train_config c = config(2);
  c.save_every = 1;
  bytes model, log;
  truth(&c, &model, &log);
  char text[1024];
  plan p = {.cfg = c, .resume = TRAIN_RESUME};
  int rc = KILLED, kills = 0;
  for (int i = 0; i < 25 && rc == KILLED; i++) { /* wherever it is by then: loading, a step, an evaluation, a save */
    p.kill_after_ms = 2 + i % 9;
    rc = run(&p, text);
    kills += rc == KILLED;
  }
  p.kill_after_ms = 0;
  if (rc == KILLED) rc = run(&p, text);
  if (rc != ICE_OK) fail_msg("code %d after %d kills: %s", rc, kills, text);
  assert_file(out, model), assert_file(log_path, log);
  free(model.p), free(log.p);
}

static void test_stop__signal__saves_and_resumes_with_same_bytes(void **state) {
  (void)state;
  const train_config c = config(1);
  bytes model, log;
  truth(&c, &model, &log);
  char text[1024];
  plan p = {.cfg = c};
  for (p.stop_at = 7; p.stop_at <= 42; p.stop_at += 7, p.resume = TRAIN_RESUME) {
    assert_int_equal(run(&p, text), STOPPED + ICE_INTERNAL);
    assert_non_null(strstr(text, "--resume"));
    assert_true(exists(state_path));
  }
  p.stop_at = 0;
  assert_int_equal(run(&p, text), ICE_OK);
  assert_file(out, model), assert_file(log_path, log);
  assert_false(exists(state_path));
  free(model.p), free(log.p);
}

static void test_resume__nothing_there_or_complete__starts_or_stays(void **state) {
  (void)state;
  const train_config c = config(1);
  bytes model, log;
  truth(&c, &model, &log);
  char text[1024];
  plan p = {.cfg = c, .resume = TRAIN_RESUME};
  assert_int_equal(run(&p, text), ICE_OK); /* nothing there */
  assert_file(out, model), assert_file(log_path, log);
  p.kill_at = 1;                           /* any report would kill it */
  assert_int_equal(run(&p, text), ICE_OK); /* complete */
  assert_file(out, model), assert_file(log_path, log);
  p.cfg.description = "another";
  assert_int_equal(run(&p, text), KILLED); /* of another training: trains */
  free(model.p), free(log.p);
}

/* Leaves the state of a training that was stopped at step 21. */
static bytes stopped_state(const train_config *c) {
  char text[1024];
  const plan p = {.cfg = *c, .stop_at = 21};
  assert_int_equal(run(&p, text), STOPPED + ICE_INTERNAL);
  return slurp(state_path);
}

static void test_resume__other_description__refused_and_kept(void **state) {
  (void)state;
  train_config c = config(1);
  bytes before = stopped_state(&c), model = slurp(out), log = slurp(log_path);
  c.description = "another";
  char text[1024];
  const plan p = {.cfg = c, .resume = TRAIN_RESUME};
  assert_int_equal(run(&p, text), ICE_USAGE);
  assert_non_null(strstr(text, state_path));
  assert_file(state_path, before), assert_file(out, model), assert_file(log_path, log);
  free(before.p), free(model.p), free(log.p);
}

static void test_resume__damaged_state__refused_and_kept(void **state) {
  (void)state;
  const train_config c = config(1);
  const bytes whole = stopped_state(&c);
  const size_t header = 8 + ((size_t)(unsigned char)whole.p[0] | (size_t)(unsigned char)whole.p[1] << 8);
  char text[1024];
  for (int i = 0; i < 13; i++) {
    bytes bad = {malloc(whole.n + 1), whole.n};
    assert_non_null(bad.p);
    memcpy(bad.p, whole.p, whole.n + 1);
    char *word = NULL;
    switch (i) {
    case 0: bad.n = 0; break;
    case 1: bad.n = whole.n - 1; break;
    case 2: bad.n = header; break;
    case 3: bad.p[header] ^= 1; break; /* one bit of a weight, of m, of v */
    case 4: bad.p[header + (whole.n - header) / 2] ^= 1; break;
    case 5: bad.p[whole.n - 4] ^= 1; break;
    case 6: bad.p[1] = 0x7f; break; /* header longer than the file */
    case 7: word = strstr(bad.p + 8, "\"step\":\"21\""), word[9] = 'x'; break;
    case 8: word = strstr(bad.p + 8, "\"step\":\"21\""), word[8] = '9'; break; /* of 43 */
    case 9: word = strstr(bad.p + 8, "best_accuracy"), word[0] = 'B'; break;
    case 10: word = strstr(bad.p + 8, "adam_v"), word[0] = 'A'; break;
    case 11: word = strstr(bad.p + 8, "\"hash\""), word[1] = 'H'; break;
    default: memset(bad.p + 8, ' ', header - 8); break;
    }
    spill(state_path, bad);
    const plan p = {.cfg = c, .resume = TRAIN_RESUME};
    const int rc = run(&p, text);
    if (rc != ICE_DATA || !strstr(text, state_path)) fail_msg("fault %d: code %d, \"%s\"", i, rc, text);
    assert_file(state_path, bad);
    free(bad.p);
  }
  train_config larger = c;
  larger.model.mlp++;
  spill(state_path, whole);
  const plan p = {.cfg = larger, .resume = TRAIN_RESUME};
  assert_int_equal(run(&p, text), ICE_DATA); /* same description, other model */
  assert_non_null(strstr(text, "params has shape"));
  free(whole.p);
}

static void test_run__state_of_an_earlier_run__refused_unless_told(void **state) {
  (void)state;
  const train_config c = config(1);
  const bytes whole = stopped_state(&c);
  char text[1024];
  plan p = {.cfg = c};
  assert_int_equal(run(&p, text), ICE_USAGE);
  assert_non_null(strstr(text, state_path));
  assert_non_null(strstr(text, "--resume"));
  assert_non_null(strstr(text, "--force"));
  assert_file(state_path, whole);
  p.resume = TRAIN_FORCE, p.stop_at = 1; /* starts anew: stops at its first report, far before the old state */
  assert_int_equal(run(&p, text), STOPPED + ICE_INTERNAL);
  int step = 0;
  assert_int_equal(sscanf(text, "stopped after step %d", &step), 1);
  assert_true(step <= 10);
  free(whole.p);
}

/* --- refusals -------------------------------------------------------------------------------------------------- */

static const attn_method untrainable = {.name = "untrainable"};

static void test_run__settings_out_of_range__usage_error(void **state) {
  (void)state;
  plan all[16];
  const char *word[16];
  int n = 0;
#define BEND(text, ...)                                                                                                \
  do {                                                                                                                 \
    train_config c = config(1);                                                                                        \
    __VA_ARGS__;                                                                                                       \
    word[n] = text;                                                                                                    \
    all[n++] = (plan){.cfg = c};                                                                                       \
  } while (0)
  BEND("batch = 0", c.batch = 0);
  BEND("batch = 1025", c.batch = 1025);
  BEND("threads = 0", c.threads = 0);
  BEND("threads = 257", c.threads = 257);
  BEND("steps = 1", c.steps = 1);
  BEND("warmup = 0", c.warmup = 0);
  BEND("warmup = 43", c.warmup = 43);
  BEND("dropout = 1", c.dropout = 1.0);
  BEND("dropout", c.dropout = NAN);
  BEND("lr = 0", c.lr = 0.0);
  BEND("lr", c.lr = NAN);
  BEND("eval_every", c.eval_every = 0);
  BEND("save_every", c.save_every = -1);
  BEND("no training part", c.method = &untrainable);
  BEND("heads = 3", c.model.heads = 3);
#undef BEND
  for (int i = 0; i < n; i++) {
    char text[1024];
    const int rc = run(&all[i], text);
    if (rc != ICE_USAGE || !strstr(text, word[i])) fail_msg("%s: code %d, \"%s\"", word[i], rc, text);
    assert_false(exists(out));
  }
  task_data train = toy(10, 2, 1), dev = toy(10, 2, 2);
  char text[1024];
  const plan p = {.cfg = config(1)};
  assert_int_equal(run_on(&p, &train, &dev, text), ICE_USAGE);
  assert_non_null(strstr(text, "1 inputs, the task has 2"));
  task_data_free(&train), task_data_free(&dev);
}

static void test_run__examples_that_do_not_fit__data_error_names_them(void **state) {
  (void)state;
  const char *const word[] = {
      "example 3 has label 2, allowed 0..1", "example 3 has label -1", "example 3, token 0 has id 6, allowed 0..5",
      "example 3, token 0 has id -1",         "example 3 has 0 tokens", "tokens, allowed 1..16"};
  for (int split = 0; split < 2; split++)
    for (int i = 0; i < 6; i++) {
      task_data d[2] = {toy(10, 1, 1), toy(10, 1, 2)};
      task_data *bad = &d[split];
      switch (i) {
      case 0: bad->label[3] = 2; break;
      case 1: bad->label[3] = -1; break;
      case 2: bad->tokens[bad->start[3]] = 6; break;
      case 3: bad->tokens[bad->start[3]] = -1; break;
      case 4: bad->start[4] = bad->start[3]; break;
      default:
        bad->start[1] = 0;
        bad->start[2] = bad->start[10] > 17 ? 17 : 0;
        for (int j = 3; j < 10; j++) bad->start[j] = bad->start[2] + j - 2;
        break;
      }
      char text[1024];
      const plan p = {.cfg = config(1)};
      const int rc = run_on(&p, &d[0], &d[1], text);
      if (rc != ICE_DATA || !strstr(text, word[i]) || !strstr(text, split ? "dev" : "train"))
        fail_msg("%s: code %d, \"%s\"", word[i], rc, text);
      assert_false(exists(out));
      task_data_free(&d[0]), task_data_free(&d[1]);
    }
}

static void test_run__exploding_loss__stops_with_advice(void **state) {
  (void)state;
  plan p = {.cfg = config(1)};
  p.cfg.lr = 1e38;
  char text[1024];
  assert_int_equal(run(&p, text), ICE_INTERNAL);
  assert_non_null(strstr(text, "not finite"));
  assert_non_null(strstr(text, "lr"));
}

static void test_run__out_cannot_be_written__refused_before_training(void **state) {
  (void)state;
  char blocked[300], text[1024];
  (void)snprintf(blocked, sizeof blocked, "%s/model.safetensors/x.safetensors", folder);
  spill(out, (bytes){(char[]){'x'}, 1}); /* a file where a folder is needed */
  plan p = {.cfg = config(1), .kill_at = 1};
  p.cfg.out = blocked;
  const int rc = run(&p, text);
  assert_true(rc == ICE_INTERNAL || rc == ICE_USAGE);
  assert_non_null(strstr(text, "model.safetensors"));
}

static void test_run__every_allocation_fails_once__reported_and_returned(void **state) {
  (void)state;
  plan p = {.cfg = config(2)};
  p.cfg.steps = 2, p.cfg.warmup = 1, p.cfg.threads = 2;
  int rc = ICE_INTERNAL;
  for (p.fail_at = 1; rc != ICE_OK; p.fail_at++) {
    char text[1024];
    rc = run(&p, text);
    if (rc != ICE_OK && (rc != ICE_INTERNAL || !strstr(text, "out of memory")))
      fail_msg("allocation %d: code %d, \"%s\"", (int)p.fail_at, rc, text);
    assert_true(p.fail_at < 60);
  }
  assert_true(p.fail_at > 15);
}

int main(void) {
#define TRAIN_TEST(f) cmocka_unit_test_teardown(f, clean_up)
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_schedule__pytorch_one_cycle__same_values),
      cmocka_unit_test(test_stream__each_pass__a_permutation_of_its_own),
      TRAIN_TEST(test_run__three_steps__weights_of_the_recipe_in_double),
      TRAIN_TEST(test_run__weights_to_start_from__are_the_start),
      TRAIN_TEST(test_run__threads__do_not_change_bits),
      TRAIN_TEST(test_run__log__a_row_every_ten_steps_and_evaluation),
      TRAIN_TEST(test_run__toy_task__learned),
      TRAIN_TEST(test_resume__killed_at_any_report__same_bytes),
      TRAIN_TEST(test_resume__killed_again_and_again__same_bytes),
      TRAIN_TEST(test_stop__signal__saves_and_resumes_with_same_bytes),
      TRAIN_TEST(test_resume__nothing_there_or_complete__starts_or_stays),
      TRAIN_TEST(test_resume__other_description__refused_and_kept),
      TRAIN_TEST(test_resume__damaged_state__refused_and_kept),
      TRAIN_TEST(test_run__state_of_an_earlier_run__refused_unless_told),
      TRAIN_TEST(test_run__settings_out_of_range__usage_error),
      TRAIN_TEST(test_run__examples_that_do_not_fit__data_error_names_them),
      TRAIN_TEST(test_run__every_allocation_fails_once__reported_and_returned),
      TRAIN_TEST(test_run__exploding_loss__stops_with_advice),
      TRAIN_TEST(test_run__out_cannot_be_written__refused_before_training),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
