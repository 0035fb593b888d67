/* httpd.c - see httpd.h. One request per connection, in a child process. */
#include "tests/support/httpd.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void send_all(int fd, const char *p, size_t n) {
  while (n) {
    const ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
    if (w <= 0) return;
    p += w, n -= (size_t)w;
  }
}

static int is(const char *path, const char *way) { return !strncmp(path, way, strlen(way)); }

static void answer(int fd, int port, const char *bytes, size_t n) {
  char ask[4096] = "", head[512], path[256] = "";
  size_t have = 0;
  while (have < sizeof ask - 1 && !strstr(ask, "\r\n\r\n")) {
    const ssize_t r = recv(fd, ask + have, sizeof ask - 1 - have, 0);
    if (r <= 0) return;
    have += (size_t)r;
    ask[have] = '\0';
  }
  if (sscanf(ask, "GET %255s", path) != 1) return;
  const char *range = strstr(ask, "Range: bytes=");
  size_t from = range && !is(path, "/norange/") ? strtoul(range + 13, NULL, 10) : 0;
  const char *to = is(path, "/loop/") ? "/loop/again" : is(path, "/to-ok/") ? "/ok/x" : NULL;
  int m;
  if (to || is(path, "/to-file/")) {
    char where[128];
    (void)snprintf(where, sizeof where, "http://127.0.0.1:%d%s", port, to ? to : "");
    m = snprintf(head, sizeof head, "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", to ? where : "file:///etc/passwd");
    send_all(fd, head, (size_t)m);
    return;
  }
  if (!is(path, "/ok/") && !is(path, "/norange/") && !is(path, "/cut/") && !is(path, "/mute/") && !is(path, "/half/") && !is(path, "/more/")) {
    m = snprintf(head, sizeof head, "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone");
    send_all(fd, head, (size_t)m);
    return;
  }
  const size_t end = is(path, "/half/") ? n / 2 : n, extra = is(path, "/more/") ? 1 : 0;
  if (from >= end && from > 0) {
    m = snprintf(head, sizeof head, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    send_all(fd, head, (size_t)m);
    return;
  }
  m = from ? snprintf(head, sizeof head, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %zu-%zu/%zu\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
                      from, end - 1, end, end - from + extra)
           : snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", end + extra);
  send_all(fd, head, (size_t)m);
  size_t give = end - from;
  if (is(path, "/cut/") && give > HTTPD_CUT) give = HTTPD_CUT;
  if (is(path, "/mute/")) give = 0;
  send_all(fd, bytes + from, give);
  if (extra) send_all(fd, "!", 1);
}

static void need(int ok, const char *what) {
  if (ok) return;
  perror(what);
  exit(1);
}

void httpd_start(httpd *h, const void *bytes, size_t n) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof at;
  const int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  need(door >= 0 && !bind(door, (struct sockaddr *)&at, sizeof at) && !listen(door, 16) && !getsockname(door, (struct sockaddr *)&at, &size), "httpd");
  h->port = ntohs(at.sin_port);
  h->requests = mmap(NULL, sizeof *h->requests, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  need(h->requests != MAP_FAILED, "httpd");
  (void)fflush(NULL);
  h->pid = fork();
  need(h->pid >= 0, "httpd");
  while (h->pid == 0) {
    const int fd = accept(door, NULL, NULL);
    if (fd < 0) continue;
    ++*h->requests;
    answer(fd, h->port, bytes, n);
    (void)shutdown(fd, SHUT_WR);
    char rest[256]; /* no reset while the other side still reads */
    while (recv(fd, rest, sizeof rest, 0) > 0) {}
    (void)close(fd);
  }
  (void)close(door);
}

void httpd_stop(httpd *h) {
  (void)kill(h->pid, SIGKILL);
  (void)waitpid(h->pid, NULL, 0);
  (void)munmap(h->requests, sizeof *h->requests);
}
