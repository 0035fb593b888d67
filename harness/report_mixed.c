/* report_mixed.c - see report_mixed.h */
#include "harness/report_mixed.h"

#include <stdio.h>
#include <string.h>

typedef struct finding { /* what is said of the first table */
  char text[700];
} finding;

/* experiment, task, model, builds, commits, machines, names, sizes, numbers of examples */
static int take(void *ctx, int columns, char **names, char **values) {
  (void)columns, (void)names;
  finding *f = ctx;
  (void)snprintf(f->text, sizeof f->text, "%.60s: %.60s %.60s: one table would mix rows", values[0], values[1], values[2]);
  const char *between = " of";
  static const char *const what[] = {"builds", "machines", "numbers of examples, some partial"};
  for (int i = 0; i < 3; i++) {
    const char *many = values[3 + 2 * i], *which = values[4 + 2 * i];
    if (!many || !strcmp(many, "1")) continue;
    const size_t n = strlen(f->text);
    (void)snprintf(f->text + n, sizeof f->text - n, "%s %s %s (%.120s)", between, many, what[i], which ? which : "?");
    between = ",";
  }
  return 1;
}

int report_refuse_mixed(store *s, const char *experiment, ice_err *e) {
  finding f = {""};
  ICE_TRY(store_query(s,
                      "SELECT c.experiment, c.task, c.model, count(DISTINCT c.build_id), "
                      "group_concat(DISTINCT substr(b.git_commit, 1, 12) || CASE WHEN b.git_dirty THEN '+' || substr(b.git_diff, 1, 6) ELSE '' END), "
                      "count(DISTINCT c.machine_id), group_concat(DISTINCT k.cpu), "
                      "CASE WHEN max(c.partial) THEN count(DISTINCT c.examples) ELSE 1 END, group_concat(DISTINCT c.examples) "
                      "FROM cell c JOIN build b ON b.id = c.build_id JOIN machine k ON k.id = c.machine_id "
                      "WHERE c.status = 'ok' AND (?1 IS NULL OR c.experiment = ?1) GROUP BY c.experiment, c.task, c.model, c.threads, c.isa "
                      "HAVING count(DISTINCT c.build_id) > 1 OR count(DISTINCT c.machine_id) > 1 OR "
                      "(max(c.partial) AND count(DISTINCT c.examples) > 1) ORDER BY 1, 2, 3 LIMIT 1",
                      &experiment, 1, take, &f, e));
  if (!*f.text) return ICE_OK;
  return ice_fail(e, ICE_USAGE, "%s; --allow-mixed reports them all the same, icebench run --force makes them anew", f.text);
}
