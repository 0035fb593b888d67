/* task.c - the table of tasks, and the search for their files along the data roots. */
#include "datasets/task.h"

#include <stdlib.h>
#include <string.h>

#define TASK(id) extern const task task_##id;
#include "datasets/tasks.def"
#undef TASK
#define TASK(id) &task_##id,
const task *const task_all[] = {
#include "datasets/tasks.def"
    NULL};
#undef TASK

const task *task_find(const char *name, ice_err *e) {
  char known[800] = "";
  for (int i = 0; task_all[i]; i++) {
    if (!strcmp(task_all[i]->name, name)) return task_all[i];
    size_t n = strlen(known);
    (void)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", task_all[i]->name);
  }
  (void)ice_fail(e, ICE_USAGE, "unknown task '%s'; known are %s", name, known);
  return NULL;
}

int task_roots(char *buf, size_t size, const char **roots, int max) {
  const char *env = getenv("ICEBENCH_DATA_DIR");
  int count = 0, n = snprintf(buf, size, "%s%sdatasets/data", env ? env : "", env && *env ? ":" : "");
  if (n < 0 || (size_t)n >= size) return 0;
  char *save = NULL;
  for (char *r = strtok_r(buf, ":", &save); r && count < max; r = strtok_r(NULL, ":", &save)) roots[count++] = r;
  return count;
}

void task_advice(const task *t, char *out, size_t size) {
  char make[160] = "", fetch[160] = "";
  if (t->make) (void)snprintf(make, sizeof make, "make it with `icebench data make %s --seed 1`, or ", t->name);
  if (t->release) (void)snprintf(fetch, sizeof fetch, "get it with `icebench data fetch %s`, or by hand: ", t->name);
  (void)snprintf(out, size, "%s%s%s", make, fetch, t->source);
}

int task_search(const task *t, task_split split, task_data *out, int *absent, ice_err *e) {
  char buf[8192], where[512] = "";
  const char *roots[64];
  *out = (task_data){0};
  *absent = 0;
  if (!t->load) return ice_fail(e, ICE_USAGE, "%s is asked and answered in words; `icebench run` with a language model does it", t->name);
  int count = task_roots(buf, sizeof buf, roots, 64);
  if (!count) return ice_fail(e, ICE_USAGE, "ICEBENCH_DATA_DIR is longer than %zu bytes", sizeof buf - 16);
  /* A stand-in serves only where no root has the task itself. */
  int (*const load[])(const char *, task_split, task_data *, int *, ice_err *) = {t->load, t->load_standin};
  for (int pass = 0; pass < 2 && load[pass]; pass++)
    for (int i = 0; i < count; i++) {
      int none = 0, rc = load[pass](roots[i], split, out, &none, e);
      if (rc == ICE_OK && pass) out->standin = 1, out->note = "stand-in data";
      if (rc == ICE_OK || !none) return rc;
    }
  *absent = 1;
  for (int i = 0; i < count; i++) {
    size_t n = strlen(where);
    (void)snprintf(where + n, sizeof where - n, "%s%s", n ? ", " : "", roots[i]);
  }
  char advice[512];
  task_advice(t, advice, sizeof advice);
  return ice_fail(e, ICE_DATA, "%s: no %s split below %s; %s", t->name, task_split_name(split), where, advice);
}

int task_load(const task *t, task_split split, task_data *out, ice_err *e) {
  int absent;
  return task_search(t, split, out, &absent, e);
}

void task_data_free(task_data *d) {
  free(d->tokens);
  free(d->start);
  free(d->label);
  *d = (task_data){0};
}
