/* test_task.c - the table of tasks and the search along the data roots: first hit, stand-ins last, faults not passed over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "datasets/prompt.h"
#include "kernels/core/fileio.h"
#include "tests/support/scratch.h"

#define HEAD "Source\tTarget\n"
#define ONE "( ( ( [MAX 2 ) 9 ) ] )\t9\n"

static const task *listops(void) {
  ice_err e = {0};
  const task *t = task_find("lra/listops", &e);
  assert_non_null(t);
  return t;
}
/* Writes rows examples into folder/basic_SPLIT.tsv below the scratch folder. */
static void put(const char *folder, const char *split, int rows) {
  char name[128], text[2048] = HEAD;
  ice_err e = {0};
  for (int i = 0; i < rows; i++) strcat(text, ONE);
  if (file_make_dirs(scratch_path(folder), &e) != ICE_OK) fail_msg("%s", e.text);
  (void)snprintf(name, sizeof name, "%s/basic_%s.tsv", folder, split);
  (void)scratch_write(name, text, strlen(text));
}
static void put_standin(const char *root) {
  char name[128];
  ice_err e = {0};
  (void)snprintf(name, sizeof name, "%s/lra/listops", root);
  if (file_make_dirs(scratch_path(name), &e) != ICE_OK) fail_msg("%s", e.text);
  (void)snprintf(name, sizeof name, "%s/lra/listops/nangia_bowman_test_d20s.tsv", root);
  (void)scratch_write(name, "7\t7\n", 4);
}
/* Sets the search path to folders a and b of the scratch folder, and moves there, away from any datasets/data. */
static void roots_a_b(void) {
  char path[600];
  (void)snprintf(path, sizeof path, "%s:%s", scratch_path("a"), scratch_path("b"));
  assert_int_equal(setenv("ICEBENCH_DATA_DIR", path, 1), 0);
  assert_int_equal(chdir(scratch_folder()), 0);
}

static void test_table__rows_are_complete(void **state) {
  (void)state;
  for (int i = 0; task_all[i]; i++) {
    const task *t = task_all[i];
    assert_true(t->name && t->doc && t->metric && t->source && !t->load == !!t->prompts);
    if (t->prompts) assert_true(t->prompts->load && t->prompts->answer_tokens > 0 && t->inputs == 1);
    else assert_true(t->vocab > 1 && t->positions > 0 && t->classes > 1 && (t->inputs == 1 || t->inputs == 2));
    assert_ptr_equal(task_find(t->name, NULL), t);
    for (int k = 0; k < i; k++) assert_string_not_equal(task_all[k]->name, t->name);
  }
  ice_err e = {0};
  assert_null(task_find("lra/listop", &e));
  assert_int_equal(e.code, ICE_USAGE);
  assert_non_null(strstr(e.text, "lra/listops"));
}

static void test_roots__environment_first_then_the_default(void **state) {
  (void)state;
  char buf[64];
  const char *roots[8];
  (void)setenv("ICEBENCH_DATA_DIR", "/x::/y:", 1);
  assert_int_equal(task_roots(buf, sizeof buf, roots, 8), 3);
  assert_string_equal(roots[0], "/x");
  assert_string_equal(roots[1], "/y");
  assert_string_equal(roots[2], "datasets/data");
  assert_int_equal(task_roots(buf, sizeof buf, roots, 2), 2);
  (void)setenv("ICEBENCH_DATA_DIR", "", 1);
  assert_int_equal(task_roots(buf, sizeof buf, roots, 8), 1);
  (void)unsetenv("ICEBENCH_DATA_DIR");
  assert_int_equal(task_roots(buf, sizeof buf, roots, 8), 1);
  assert_int_equal(task_roots(buf, 5, roots, 8), 0);
}

static void test_load__two_roots__the_first_wins(void **state) {
  (void)state;
  task_data d;
  ice_err e = {0};
  put("a/lra/listops-1000", "test", 1), put("b/lra/listops-1000", "test", 2);
  roots_a_b();
  assert_int_equal(task_load(listops(), TASK_TEST, &d, &e), ICE_OK);
  assert_int_equal(d.count, 1);
  assert_string_equal(d.origin, scratch_path("a/lra/listops-1000/basic_test.tsv"));
  assert_true(d.official && !d.standin);
  task_data_free(&d);
}

static void test_load__every_release_layout__found(void **state) {
  (void)state;
  const char *const places[] = {"a/lra/listops-1000", "a/lra/lra_release/lra_release/listops-1000",
                                "a/lra/lra_release/listops-1000", "a/lra_release/lra_release/listops-1000",
                                "a/lra_release/listops-1000", "a/listops-1000", "a/lra/listops"};
  const int count = (int)(sizeof places / sizeof *places);
  for (int i = count - 1; i >= 0; i--) { /* each new one goes before those already there */
    task_data d;
    ice_err e = {0};
    put(places[i], "val", i + 1);
    roots_a_b();
    if (task_load(listops(), TASK_DEV, &d, &e) != ICE_OK) fail_msg("%s", e.text);
    assert_int_equal(d.count, i + 1);
    task_data_free(&d);
  }
}

static void test_load__stand_in__only_where_no_root_has_the_task(void **state) {
  (void)state;
  task_data d;
  ice_err e = {0};
  put_standin("a");
  roots_a_b();
  assert_int_equal(task_load(listops(), TASK_TEST, &d, &e), ICE_OK);
  assert_true(d.standin && !d.official && d.label[0] == 7);
  task_data_free(&d);
  assert_int_equal(task_load(listops(), TASK_TRAIN, &d, &e), ICE_DATA);
  put("b/lra/listops-1000", "test", 2);
  assert_int_equal(task_load(listops(), TASK_TEST, &d, &e), ICE_OK);
  assert_true(!d.standin && d.count == 2);
  task_data_free(&d);
}

/* Splits of two sets must not mix: training on one and testing on the other may repeat examples. */
static void test_load__a_split_is_missing__no_other_root_fills_in(void **state) {
  (void)state;
  task_data d;
  ice_err e = {0};
  int absent;
  put("a/lra/listops-1000", "train", 1), put("b/lra/listops-1000", "test", 2);
  roots_a_b();
  assert_int_equal(task_search(listops(), TASK_TEST, &d, &absent, &e), ICE_DATA);
  assert_int_equal(absent, 0);
  assert_non_null(strstr(e.text, "a/lra/listops-1000/basic_test.tsv"));
}

static void test_load__damaged__no_other_root_fills_in(void **state) {
  (void)state;
  task_data d;
  ice_err e = {0};
  int absent;
  put("a/lra/listops-1000", "test", 0), put("b/lra/listops-1000", "test", 2);
  roots_a_b();
  assert_int_equal(task_search(listops(), TASK_TEST, &d, &absent, &e), ICE_DATA);
  assert_int_equal(absent, 0);
  assert_null(d.tokens);
}

static void test_load__nowhere__says_what_to_do(void **state) {
  (void)state;
  task_data d;
  ice_err e = {0};
  int absent;
  roots_a_b();
  for (int i = 0; task_all[i]; i++) {
    prompt_set s;
    if (task_all[i]->prompts) assert_int_equal(prompt_search(task_all[i], TASK_TEST, 5, &s, &absent, &e), ICE_DATA);
    else assert_int_equal(task_search(task_all[i], TASK_TEST, &d, &absent, &e), ICE_DATA);
    assert_int_equal(absent, 1);
    if (task_all[i]->make) assert_non_null(strstr(e.text, "icebench data make"));
    else if (task_all[i]->release) assert_non_null(strstr(e.text, "icebench data fetch"));
    else if (!task_all[i]->prompts) assert_non_null(strstr(e.text, "icebench data make lra/listops"));
    assert_non_null(strstr(e.text, scratch_path("a")));
  }
}

static void test_pieces__malformed_expressions__left_out(void **state) {
  (void)state;
  char text[4096] = HEAD;
  task_data d;
  ice_err e = {0};
  strcat(text, "[SM ]");
  for (int i = 0; i < 12; i++) strcat(text, " ( [MAX 1 ]");
  strcat(text, " ]\t1\n"); /* an operator closed, and then digits outside: no expression of 20 tokens */
  strcat(text, "[SM");
  for (int i = 0; i < 30; i++) strcat(text, " 3");
  strcat(text, " ]\t0\n");
  strcat(text, "[MAX [MIN ]");
  for (int i = 0; i < 30; i++) strcat(text, " 3");
  strcat(text, " ]\t3\n"); /* [MIN of nothing has no value */
  put("a/lra/listops-1000", "val", 1);
  (void)scratch_write("a/lra/listops-1000/basic_test.tsv", text, strlen(text));
  roots_a_b();
  if (task_load(task_find("synth/listops-pieces", &e), TASK_TEST, &d, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(d.count, 1);
  assert_int_equal(d.label[0], 0);
  assert_int_equal(task_len(&d, 0, 0), 32);
  task_data_free(&d);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_table__rows_are_complete),
      TEST(test_roots__environment_first_then_the_default),
      TEST(test_load__two_roots__the_first_wins),
      TEST(test_load__every_release_layout__found),
      TEST(test_load__stand_in__only_where_no_root_has_the_task),
      TEST(test_load__a_split_is_missing__no_other_root_fills_in),
      TEST(test_load__damaged__no_other_root_fills_in),
      TEST(test_load__nowhere__says_what_to_do),
      TEST(test_pieces__malformed_expressions__left_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
