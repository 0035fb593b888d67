/* watch.c - see watch.h. The page is a memfd whose number the child finds in its environment. */
#include "harness/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/number.h"
#include "kernels/core/clock.h"

static const char page_variable[] = "ICEBENCH_WATCH_FD";
static const uint64_t page_magic = 0x686374617765636aULL;
enum { TICK_MS = 100 };

/* ---- The child's side. */

watch *watch_current(void) {
  static watch *page;
  const char *text = getenv(page_variable);
  int64_t fd;
  struct stat st;
  if (page || !text || !number_int(text, 3, 1 << 20, &fd) || fstat((int)fd, &st) != 0 || st.st_size != sizeof *page)
    return page;
  void *p = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, (int)fd, 0);
  if (p == MAP_FAILED) return NULL;
  if (((watch *)p)->magic == page_magic) page = p;
  return page;
}

void watch_begin(watch *w, const char *subject, const char *step) {
  if (!w) return;
  (void)snprintf(w->subject, sizeof w->subject, "%s", subject);
  (void)snprintf(w->step, sizeof w->step, "%s", step);
  w->since_ns = attn_now_ns();
}

void watch_end(watch *w) {
  if (w) w->since_ns = 0;
}

const char *watch_reason(const watch *w, const char *subject) {
  for (int i = 0; w && i < w->n_blamed; i++)
    if (!strncmp(w->blamed[i].subject, subject, sizeof w->subject - 1)) return w->blamed[i].reason;
  return NULL;
}

int watch_done(watch *w, int rc, ice_err *err) {
  if (!w) return rc;
  if (rc == ICE_OK && (fflush(stdout) != 0 || ferror(stdout)))
    rc = ice_fail(err, ICE_INTERNAL, "cannot write the output: %s", strerror(errno));
  w->rc = rc;
  w->err = *err;
  w->done = 1;
  err->text[0] = '\0';
  return rc;
}

/* ---- The parent's side. */

/* Between fork and exec: only async-signal-safe calls. */
static void become(const char *self, char **argv, char **env, pid_t parent) {
  const struct rlimit none = {0, 0};
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(125);
  (void)setrlimit(RLIMIT_CORE, &none);
  (void)execve(self, argv, env);
  _exit(127);
}

/* This environment and the number of the page; to free(). */
static char **child_environment(char *entry) {
  size_t n = 0;
  while (environ[n]) n++;
  char **env = calloc(n + 2, sizeof *env);
  if (!env) return NULL;
  env[0] = entry;
  memcpy(env + 1, environ, n * sizeof *env);
  return env;
}

static int overdue(const watch *w, double seconds) {
  const int64_t since = w->since_ns;
  return since && (double)(attn_now_ns() - since) > seconds * 1e9;
}

/* Waits for the child; *late when it was killed because of a step. */
static int wait_for(pid_t pid, const watch *w, double seconds, int *late) {
  struct pollfd ended = {.fd = pidfd_open(pid, 0), .events = POLLIN}; /* -1 makes poll a mere pause */
  int status = 0;
  *late = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    (void)poll(&ended, 1, TICK_MS);
    if (!*late && overdue(w, seconds)) {
      *late = 1;
      (void)kill(pid, SIGKILL);
    }
  }
  if (ended.fd >= 0) (void)close(ended.fd);
  return status;
}

static int blame(watch *w, int status, int late, double seconds, ice_err *e) {
  char end[128];
  if (WIFSIGNALED(status))
    (void)snprintf(end, sizeof end, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
  else
    (void)snprintf(end, sizeof end, "exit code %d", WEXITSTATUS(status));
  if (!w->since_ns || w->n_blamed == WATCH_MAX_BLAMED || watch_reason(w, w->subject))
    return ice_fail(e, ICE_INTERNAL, "the measuring process ended with %s", end);
  watch_blame *b = w->blamed + w->n_blamed++;
  memcpy(b->subject, w->subject, sizeof b->subject);
  if (late)
    (void)snprintf(b->reason, sizeof b->reason, "%s: no end after %g s", w->step, seconds);
  else
    (void)snprintf(b->reason, sizeof b->reason, "%s: crashed with %s", w->step, end);
  return ICE_OK;
}

static int run_children(watch *w, const char *self, char **argv, char **env, double seconds, ice_err *e) {
  const pid_t parent = getpid();
  for (;;) {
    int late;
    w->since_ns = 0;
    w->done = 0;
    (void)fflush(NULL);
    const pid_t pid = fork();
    if (pid < 0) return ice_fail(e, ICE_INTERNAL, "cannot start a child process: %s", strerror(errno));
    if (pid == 0) become(self, argv, env, parent);
    const int status = wait_for(pid, w, seconds, &late);
    if (w->done && WIFEXITED(status) && WEXITSTATUS(status) == w->rc) {
      *e = w->err;
      return w->rc;
    }
    ICE_TRY(blame(w, status, late, seconds, e));
  }
}

/* The options that every verb takes, behind the verb itself: they were cut out of argv. */
static void add_common(char **args, int argc, const cli_common *common) {
  static char db[] = "--db", quiet[] = "-q", verbose[] = "-v";
  char *extra[4];
  int n = 0;
  extra[n++] = db;
  extra[n++] = (char *)(uintptr_t)common->db; /* execve takes what it does not change */
  if (common->quiet) extra[n++] = quiet;
  if (common->verbose) extra[n++] = verbose;
  memmove(args + 1 + n, args + 1, (size_t)(argc - 1) * sizeof *args);
  memcpy(args + 1, extra, (size_t)n * sizeof *args);
}

int watch_run(const cli_common *common, int argc, char **argv, int job, double seconds, ice_err *e) {
  char self[4096] = "", entry[64];
  const int fd = memfd_create("icebench-watch", 0);
  void *page = fd >= 0 && ftruncate(fd, sizeof(watch)) == 0
                   ? mmap(NULL, sizeof(watch), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                   : MAP_FAILED;
  char **args = calloc((size_t)argc + 6, sizeof *args), **env = child_environment(entry);
  int rc = ICE_OK;
  if (page == MAP_FAILED || !args || !env || readlink("/proc/self/exe", self, sizeof self - 1) <= 0)
    rc = ice_fail(e, ICE_INTERNAL, "cannot prepare a child process: %s", strerror(errno));
  if (rc == ICE_OK) {
    watch *w = page;
    w->magic = page_magic;
    w->job = job;
    (void)snprintf(entry, sizeof entry, "%s=%d", page_variable, fd);
    args[0] = self;
    memcpy(args + 1, argv, (size_t)argc * sizeof *args);
    add_common(args + 1, argc, common);
    rc = run_children(w, self, args, env, seconds, e);
  }
  free(args);
  free(env);
  if (page != MAP_FAILED) (void)munmap(page, sizeof(watch));
  if (fd >= 0) (void)close(fd);
  return rc;
}
