/* httpd.h - a web server on this machine that misbehaves on demand, for tests of downloads. */
#ifndef TEST_HTTPD_H
#define TEST_HTTPD_H

#include <stddef.h>
#include <sys/types.h>

typedef struct httpd {
  pid_t pid;
  int port;
  int *requests; /* shared counter */
} httpd;

enum { HTTPD_CUT = 50000 }; /* bytes that /cut/ gives per connection */

/** Serves the bytes under any path: the first folder of the path says how.
 *  /ok/ with ranges · /norange/ without · /cut/ breaks off after HTTPD_CUT bytes · /mute/ breaks off after the head ·
 *  /half/ a complete answer of the first half · /more/ one byte too many · /loop/ redirects to itself · /to-ok/ redirects ·
 *  /to-file/ redirects to file:///etc/passwd · anything else 404. Ends the program when it cannot start. */
void httpd_start(httpd *h, const void *bytes, size_t n);
void httpd_stop(httpd *h);

#endif
