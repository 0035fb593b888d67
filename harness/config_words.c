/* config_words.c - see config_words.h */
#include "harness/config_words.h"

#include <string.h>

enum { MOST_LENGTH = 1000000, MOST_LENGTHS = 1000 };

/* The list that a task's lengths are in; NULL: none. */
static yaml_node *list_of(yaml_node *lengths, const task *t) {
  if (!lengths || !t->prompts || !t->prompts->lengths) return NULL;
  if (!yaml_is_map(lengths)) return lengths;
  for (int i = 0; i < yaml_count(lengths); i++)
    if (!strcmp(yaml_key(lengths, i), t->prompts->length_of)) return yaml_value(lengths, i);
  return NULL;
}

static int check_list(yaml_node *n, ice_err *e) {
  const int count = yaml_is_map(n) ? 0 : yaml_count(n);
  int64_t value, other;
  if (count < 1 || count > MOST_LENGTHS) return yaml_fail(n, e, "allowed a value or a list of 1..%d values", MOST_LENGTHS);
  for (int i = 0; i < count; i++) {
    ICE_TRY(yaml_int(yaml_item(n, i), 1, MOST_LENGTH, &value, e));
    for (int j = 0; j < i; j++) {
      ICE_TRY(yaml_int(yaml_item(n, j), 1, MOST_LENGTH, &other, e));
      if (value == other) return yaml_fail(yaml_item(n, i), e, "given twice in one list");
    }
  }
  return ICE_OK;
}

void config_lengths_accept(yaml_node *lengths) {
  for (int i = 0; lengths && yaml_is_map(lengths) && i < yaml_count(lengths); i++) (void)yaml_find(lengths, yaml_key(lengths, i));
}

/* What the tasks with lengths count, when all of them count the same; NULL: they do not, or there are none. */
static const char *common_unit(const task *const *all, int n) {
  const char *unit = NULL;
  for (int i = 0; i < n; i++) {
    const char *one = all[i]->prompts && all[i]->prompts->lengths ? all[i]->prompts->length_of : NULL;
    if (one && unit && strcmp(one, unit)) return NULL;
    if (one) unit = one;
  }
  return unit;
}

static int check_map(yaml_node *map, const task *const *all, int n, ice_err *e) {
  for (int i = 0; i < yaml_count(map); i++) {
    int used = 0;
    for (int t = 0; t < n; t++) used |= list_of(map, all[t]) == yaml_value(map, i);
    if (!used) return yaml_fail_key(yaml_value(map, i), e, "no task of this file comes in lengths of %s", yaml_key(map, i));
    ICE_TRY(check_list(yaml_value(map, i), e));
  }
  return ICE_OK;
}

int config_lengths_check(yaml_node *lengths, yaml_node *tasks, const task *const *all, int n, ice_err *e) {
  const char *unit = common_unit(all, n);
  if (lengths && yaml_is_map(lengths)) ICE_TRY(check_map(lengths, all, n, e));
  else if (lengths) {
    if (!unit) return yaml_fail_key(lengths, e, "allowed for longeval/lines or longeval/topics; for both {lines: [200, 300], topics: [5, 10]} in the file, "
                                             "or one with --set task=longeval/lines --set 'lengths=200|300'");
    ICE_TRY(check_list(lengths, e));
  }
  for (int i = 0; i < n; i++)
    if (all[i]->prompts && all[i]->prompts->lengths && !list_of(lengths, all[i]))
      return yaml_fail(yaml_item(tasks, i), e, "needs lengths, numbers of %s: `lengths: [%d, %d]`", all[i]->prompts->length_of,
                       all[i]->prompts->lengths[0], all[i]->prompts->lengths[1]);
  return ICE_OK;
}

int config_lengths_count(yaml_node *lengths, const task *t) {
  const yaml_node *list = list_of(lengths, t);
  return list ? yaml_count(list) : 1;
}

int64_t config_length(yaml_node *lengths, const task *t, int i) {
  yaml_node *list = list_of(lengths, t);
  int64_t n = 0;
  if (list) (void)yaml_int(yaml_item(list, i), 1, MOST_LENGTH, &n, NULL);
  return n;
}
