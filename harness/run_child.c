/* run_child.c - see run_child.h.
 *
 * Two pipes come back: results, and the error stream, of which the last line is kept as the reason of a crash. The loop
 * wakes up every 20 ms to look at the clock, the stop flag and the resident set. */
#include "kernels/core/clock.h"
#include "harness/run_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/measure.h"

enum { TICK_MS = 20, TAIL_BYTES = 4096 };

typedef struct stream { /* what arrived on a pipe; grows, or keeps its tail */
  int fd;               /* -1: closed */
  char *p;
  size_t n, room;
} stream;

typedef struct child {
  pid_t pid;
  stream out, err;
  char tail[TAIL_BYTES + 1];
  int forward;
  const run_limits *limits;
  int64_t started;
  double peak_gib;
  int too_long; /* output beyond the limit */
} child;

/* ---- Start. */

static void close_pair(int pair[2]) {
  for (int i = 0; i < 2; i++)
    if (pair[i] >= 0) (void)close(pair[i]);
}

/* Between fork and exec, in the child: only async-signal-safe calls. */
static void become(const char *const *argv, int in, int out, int err, pid_t parent) {
  (void)setpgid(0, 0); /* Ctrl-C reaches the parent alone, which decides */
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(125);
  (void)signal(SIGPIPE, SIG_DFL);
  (void)signal(SIGINT, SIG_DFL);
  (void)signal(SIGTERM, SIG_DFL);
  if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) _exit(126);
  (void)execv(argv[0], (char *const *)(uintptr_t)argv);
  _exit(127);
}

/* The input fits into the pipe's buffer, so that writing it cannot wait for the child. */
static int feed(int fd, const char *text, ice_err *e) {
  const size_t n = strlen(text);
  const ssize_t put = write(fd, text, n);
  if (put == (ssize_t)n || (put < 0 && errno == EPIPE)) return ICE_OK; /* a child that is gone speaks for itself */
  return ice_fail(e, ICE_INTERNAL, "cannot hand a job of %zu bytes over: %s", n,
                  put < 0 ? strerror(errno) : "pipe full");
}

static int start(child *c, const char *const *argv, const char *input, ice_err *e) {
  int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
  const pid_t self = getpid();
  int rc = pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0 &&
                   fcntl(in[1], F_SETFL, O_NONBLOCK) == 0
               ? ICE_OK
               : ice_fail(e, ICE_INTERNAL, "cannot make pipes: %s", strerror(errno));
  if (rc == ICE_OK) rc = feed(in[1], input, e);
  if (rc == ICE_OK) {
    c->pid = fork();
    if (c->pid == 0) become(argv, in[0], out[1], err[1], self);
    if (c->pid > 0) (void)setpgid(c->pid, c->pid); /* both sides do: whoever comes first */
    if (c->pid < 0) rc = ice_fail(e, ICE_INTERNAL, "cannot start a child process: %s", strerror(errno));
  }
  if (rc != ICE_OK) {
    close_pair(in), close_pair(out), close_pair(err);
    return rc;
  }
  close_pair(in);
  (void)close(out[1]);
  (void)close(err[1]);
  c->out.fd = out[0];
  c->err.fd = err[0];
  return ICE_OK;
}

/* ---- Watching. */

static void finish_stream(stream *s) {
  if (s->fd >= 0) (void)close(s->fd);
  s->fd = -1;
}

static void take_output(child *c) {
  stream *s = &c->out;
  if (s->room - s->n < 65536) {
    char *grown = s->room < c->limits->result_bytes + 65536 * 2 ? realloc(s->p, s->room * 2 + 65536 * 2) : NULL;
    if (!grown) {
      c->too_long = 1;
      finish_stream(s);
      return;
    }
    s->p = grown;
    s->room = s->room * 2 + 65536 * 2;
  }
  const ssize_t got = read(s->fd, s->p + s->n, s->room - s->n - 1);
  if (got > 0)
    s->n += (size_t)got;
  else if (got == 0 || errno != EINTR)
    finish_stream(s);
  if (s->n > c->limits->result_bytes) {
    c->too_long = 1;
    finish_stream(s);
  }
}

static void take_errors(child *c) {
  char buf[2048];
  const ssize_t got = read(c->err.fd, buf, sizeof buf);
  if (got == 0 || (got < 0 && errno != EINTR)) finish_stream(&c->err);
  if (got <= 0) return;
  const size_t n = (size_t)got;
  if (c->forward) (void)!write(STDERR_FILENO, buf, n);
  if (c->err.n + n > TAIL_BYTES) { /* keep the last bytes */
    const size_t keep = TAIL_BYTES - n;
    memmove(c->tail, c->tail + c->err.n - (c->err.n < keep ? c->err.n : keep), c->err.n < keep ? c->err.n : keep);
    c->err.n = c->err.n < keep ? c->err.n : keep;
  }
  memcpy(c->tail + c->err.n, buf, n);
  c->err.n += n;
}

/* Resident set of the child in GiB. */
static double resident(const child *c) {
  char path[64], text[128];
  long pages = 0;
  (void)snprintf(path, sizeof path, "/proc/%d/statm", (int)c->pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
  if (fd >= 0) (void)close(fd);
  if (n <= 0) return 0.0;
  text[n] = '\0';
  if (sscanf(text, "%*s %ld", &pages) != 1) return 0.0;
  return (double)pages * (double)sysconf(_SC_PAGESIZE) / 0x1p30;
}

/* Processes that the kernel killed for memory since it started. */
static long long kernel_kills(void) {
  char line[128];
  long long kills = 0;
  FILE *f = fopen("/proc/vmstat", "re");
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "oom_kill %lld", &kills) == 1) break;
  if (f) (void)fclose(f);
  return kills;
}

static double seconds_since(int64_t t) { return (double)(attn_now_ns() - t) * 1e-9; }

/* Lets it run until it ends or has to be ended; returns why it had to, or RUN_RESULT. */
static run_end watch(child *c, const volatile sig_atomic_t *stop) {
  const run_limits *l = c->limits;
  while (c->out.fd >= 0 || c->err.fd >= 0) {
    struct pollfd fds[2] = {{c->out.fd, POLLIN, 0}, {c->err.fd, POLLIN, 0}};
    if (poll(fds, 2, TICK_MS) > 0) {
      if (fds[0].revents) take_output(c);
      if (fds[1].revents) take_errors(c);
    }
    if (stop && *stop) return RUN_INTERRUPTED;
    if (c->too_long) return RUN_EXIT;
    if (l->seconds > 0.0 && seconds_since(c->started) > l->seconds) return RUN_TIMEOUT;
    const double now = resident(c);
    if (now > c->peak_gib) c->peak_gib = now;
    if (l->gib > 0.0 && now > l->gib) return RUN_OOM;
  }
  return RUN_RESULT;
}

/* Waits for the end; a child that closed its streams and stays is held to the same limits. */
static int collect(child *c, run_end *end, const volatile sig_atomic_t *stop) {
  int status = 0;
  struct rusage use;
  for (;;) {
    if (*end != RUN_RESULT) (void)kill(-c->pid, SIGKILL);
    const pid_t got = wait4(c->pid, &status, *end == RUN_RESULT ? WNOHANG : 0, &use);
    if (got == c->pid) break;
    if (got < 0 && errno != EINTR) return 0;
    if (*end != RUN_RESULT) continue;
    if (stop && *stop)
      *end = RUN_INTERRUPTED;
    else if (c->limits->seconds > 0.0 && seconds_since(c->started) > c->limits->seconds)
      *end = RUN_TIMEOUT;
    else
      (void)poll(NULL, 0, 1);
  }
  const double peak = (double)use.ru_maxrss / 0x1p20; /* kilobytes */
  if (peak > c->peak_gib) c->peak_gib = peak;
  return status;
}

/* ---- What happened. */

/* The last non-empty line of the error stream, without the program's own name in front. */
static const char *last_line(child *c) {
  char *end = c->tail + c->err.n;
  while (end > c->tail && (unsigned char)end[-1] <= ' ') end--;
  *end = '\0';
  char *line = strrchr(c->tail, '\n');
  line = line ? line + 1 : c->tail;
  return strncmp(line, "icebench: ", 10) ? line : line + 10;
}

static void judge(child *c, int status, run_end end, long long kills, run_outcome *out) {
  const run_limits *l = c->limits;
  ice_err text = {0};
  if (end == RUN_RESULT && WIFSIGNALED(status))
    end = WTERMSIG(status) == SIGKILL && kernel_kills() > kills ? RUN_OOM : RUN_SIGNAL;
  else if (end == RUN_RESULT && (WEXITSTATUS(status) != 0 || !c->out.n))
    end = RUN_EXIT;
  out->end = end;
  const char *said = last_line(c);
  switch (end) {
  case RUN_RESULT: break;
  case RUN_TIMEOUT: (void)ice_fail(&text, 0, "killed after %g s, the limit (limits.seconds)", l->seconds); break;
  case RUN_OOM:
    if (l->gib > 0.0 && c->peak_gib > l->gib)
      (void)ice_fail(&text, 0, "killed at %.2f GiB, the limit is %g GiB (limits.memory_gib)", c->peak_gib, l->gib);
    else
      (void)ice_fail(&text, 0, "killed by the kernel, which was out of memory, at %.2f GiB", c->peak_gib);
    break;
  case RUN_SIGNAL:
    (void)ice_fail(&text, 0, "killed by SIG%s%s%s",
                   sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "?", *said ? ": " : "", said);
    break;
  case RUN_INTERRUPTED: (void)ice_fail(&text, 0, "interrupted"); break;
  case RUN_EXIT:
    if (c->too_long)
      (void)ice_fail(&text, 0, "a result of more than %zu bytes", l->result_bytes);
    else
      (void)ice_fail(&text, 0, "exit code %d%s%s", WEXITSTATUS(status), *said ? ": " : "", said);
    break;
  }
  (void)snprintf(out->why, sizeof out->why, "%s", text.text);
}

int run_child(const char *const *argv, const char *input, const run_limits *limits, const volatile sig_atomic_t *stop,
              int forward_errors, run_outcome *out, ice_err *e) {
  child c = {.out.fd = -1, .err.fd = -1, .limits = limits, .forward = forward_errors, .started = attn_now_ns()};
  struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
  *out = (run_outcome){0};
  const long long kills = kernel_kills();
  (void)sigaction(SIGPIPE, &ignore, &before);
  int rc = start(&c, argv, input, e);
  if (rc == ICE_OK) {
    run_end end = watch(&c, stop);
    int status = collect(&c, &end, stop);
    judge(&c, status, end, kills, out);
    out->wall_ms = (attn_now_ns() - c.started) / 1000000;
    out->peak_gib = c.peak_gib;
    out->output = c.out.p;
    out->output_bytes = c.out.n;
    if (c.out.p) c.out.p[c.out.n] = '\0';
  }
  finish_stream(&c.out);
  finish_stream(&c.err);
  (void)sigaction(SIGPIPE, &before, NULL);
  return rc;
}
