/* fetch.h - downloads the official archive of a task. The only code of the program that uses the network. */
#ifndef ICE_FETCH_H
#define ICE_FETCH_H

#include <signal.h>

#include "datasets/task.h"

typedef struct fetch_options {
  const char *out;  /* data root */
  const char *from; /* another address of the same archive: http, https or file; NULL: the official one */
  /** what = "download" (done and total in MiB, total 0 when unknown) or "unpack" (files); may be NULL */
  void (*progress)(void *ctx, const char *what, int64_t done, int64_t total);
  void *ctx;
  const volatile sig_atomic_t *stop; /* may be NULL */
} fetch_options;

/** Downloads t->release, checks size and checksum where they are known, unpacks what the task needs, and reads the test split.
 *  An interrupted download goes on where it stopped ("<archive>.part"); archive and folder appear whole or not at all.
 *  *fresh = 0 when everything was there already. ICE_DATA, with what to do, when it cannot be had or is not sane; ICE_USAGE
 *  when other files of the task are in the way or it has no release; ICE_INTERNAL for the disk, another fetch, *stop. */
int fetch_task(const task *t, const fetch_options *o, int *fresh, ice_err *e);

#endif
