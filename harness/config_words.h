/* config_words.h - the key `lengths` of tasks that come in several: `lengths: [200, 300]` where the tasks of a file count the same
 * thing, `lengths: {lines: [200, 300], topics: [5, 10]}` where they do not. */
#ifndef ICE_CONFIG_WORDS_H
#define ICE_CONFIG_WORDS_H

#include "datasets/prompt.h"
#include "harness/yaml.h"

/** The keys of a mapping are those of tasks, which are checked later than the file's own: takes note of them. NULL is fine. */
void config_lengths_accept(yaml_node *lengths);
/** Every task [n] that has lengths must have some, others none; `lengths` may be NULL. ICE_USAGE on any fault. */
int config_lengths_check(yaml_node *lengths, yaml_node *tasks, const task *const *all, int n, ice_err *e);
/** How many a checked node gives a task; 1 where the task has none. */
int config_lengths_count(yaml_node *lengths, const task *t);
/** The i-th; 0 where the task has none. */
int64_t config_length(yaml_node *lengths, const task *t, int i);

#endif
