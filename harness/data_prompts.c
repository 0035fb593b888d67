/* data_prompts.c - see data_prompts.h */
#include "harness/data_prompts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "datasets/sums.h"

static const int one_size[] = {0, -1}; /* a single length, 0 */

static const char *kind_of(const prompt_set *s) { return s->official ? "official" : s->note ? s->note : "generated"; }

/* "test", or "200 lines" where there are lengths. */
static void name_split(const task *t, task_split split, int length, char *name, size_t size) {
  if (t->prompts->lengths) (void)snprintf(name, size, "%d %s", length, t->prompts->length_of);
  else (void)snprintf(name, size, "%s", task_split_name(split));
}

static int check_set(const task *t, const prompt_set *s, ice_err *e) {
  int64_t shortest = INT64_MAX, longest = 0, answered = 0;
  int found;
  for (const prompt *p = s->item; p < s->item + s->count; p++) {
    const int64_t n = (int64_t)strlen(p->text);
    shortest = n < shortest ? n : shortest, longest = n > longest ? n : longest;
    answered += p->references > 0;
  }
  (void)printf("        %" PRId64 "..%" PRId64 " bytes, %" PRId64 " of %" PRId64 " with right answers, xxh3 %016" PRIx64 "\n", shortest, longest, answered,
               s->count, s->hash);
  ICE_TRY(sums_check(s->origin, &found, e));
  if (found) (void)printf("        SHA-256 as in SHA256SUMS\n");
  const int64_t all = t->official_count[TASK_TEST];
  if (s->official && t->prompts->lengths && s->count != all)
    return ice_fail(e, ICE_DATA, "%s: %" PRId64 " cases, the release has %" PRId64 "; fetch the set again", s->origin, s->count, all);
  return ICE_OK;
}

/* One split of one length: read, told, checked if asked for. */
static int visit(const task *t, task_split split, int length, int check, int64_t *splits, ice_err *e) {
  prompt_set s;
  ice_err why = {0};
  int absent;
  char name[48];
  int rc = prompt_search(t, split, length, &s, &absent, &why);
  name_split(t, split, length, name, sizeof name);
  if (rc == ICE_OK) {
    (void)printf("  %-10s %6" PRId64 "  %s, %s\n", name, s.count, kind_of(&s), s.origin);
    if (check) rc = check_set(t, &s, &why);
    ++*splits;
    prompt_set_free(&s);
  } else if (absent) {
    if (!t->prompts->lengths) (void)printf("  %-10s absent\n", name);
    return ICE_OK;
  } else
    (void)printf("  %-10s %s\n", name, why.text);
  return rc == ICE_OK ? rc : ice_fail(e, rc, "%s", why.text);
}

static int visit_all(const task *t, int check, int64_t *splits, int *missing, ice_err *e) {
  const int *lengths = t->prompts->lengths;
  const int64_t before = *splits;
  int rc = ICE_OK;
  for (int split = lengths ? TASK_TEST : TASK_DEV; split < TASK_SPLITS; split++)
    for (const int *n = lengths ? lengths : one_size; lengths ? *n > 0 : *n == 0; n++) {
      ice_err why = {0};
      const int one = visit(t, (task_split)split, *n, check, splits, &why);
      if (one != ICE_OK && rc == ICE_OK) rc = ice_fail(e, one, "%s", why.text);
    }
  *missing = *splits == before && rc == ICE_OK;
  if (*missing && lengths) (void)printf("  %-10s absent\n", task_split_name(TASK_TEST));
  return rc;
}

void data_prompts_list(const task *t, int *missing) {
  int64_t splits = 0;
  (void)visit_all(t, 0, &splits, missing, NULL);
}

int data_prompts_check(const task *t, int64_t *splits, int *missing, ice_err *e) { return visit_all(t, 1, splits, missing, e); }
