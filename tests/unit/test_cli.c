/* test_cli.c - options, numbers, progress, choosing a verb. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli.h"
#include "tests/support/scratch.h"

/* --- output of a call, through files ------------------------------------------------------------------------------- */

static int saved_out, saved_err;

static void capture(void) {
  assert_int_equal(fflush(NULL), 0);
  saved_out = dup(STDOUT_FILENO), saved_err = dup(STDERR_FILENO);
  int out = open(scratch_path("out"), O_CREAT | O_TRUNC | O_RDWR, 0600);
  int err = open(scratch_path("err"), O_CREAT | O_TRUNC | O_RDWR, 0600);
  assert_true(saved_out >= 0 && saved_err >= 0 && out >= 0 && err >= 0);
  (void)dup2(out, STDOUT_FILENO), (void)dup2(err, STDERR_FILENO);
  (void)close(out), (void)close(err);
}
static const char *release(const char *which) { /* "out" or "err"; gives the terminal back on first call */
  static char text[2][20000];
  char *to = text[which[0] == 'e'];
  if (saved_out >= 0) {
    (void)fflush(NULL);
    (void)dup2(saved_out, STDOUT_FILENO), (void)dup2(saved_err, STDERR_FILENO);
    (void)close(saved_out), (void)close(saved_err);
    saved_out = -1;
  }
  FILE *f = fopen(scratch_path(which), "r");
  assert_non_null(f);
  to[fread(to, 1, sizeof text[0] - 1, f)] = 0;
  (void)fclose(f);
  return to;
}

static int words(const char *line, char **argv) { /* cuts at spaces; the copy lives until the next call */
  static char copy[1000];
  int n = 0;
  (void)snprintf(copy, sizeof copy, "%s", line);
  for (char *w = strtok(copy, " "); w && n < 30; w = strtok(NULL, " ")) argv[n++] = w;
  argv[n] = NULL;
  return n;
}

/* --- options ------------------------------------------------------------------------------------------------------- */

typedef struct parsed {
  const char *threads, *force, *x, **set, *file[2];
  int files;
} parsed;

static int parse(const char *line, parsed *p, ice_err *e) {
  char *argv[32];
  int argc = words(line, argv);
  *p = (parsed){0};
  const cli_option spec[] = {{.name = "threads", .has_value = 1, .value = &p->threads},
                             {.name = "force", .value = &p->force},
                             {.name = "set", .has_value = 1, .list = &p->set},
                             {.name = "x", .value = &p->x},
                             {.name = NULL}};
  return cli_parse(argc, argv, spec, p->file, 2, &p->files, e);
}

static void test_parse__every_form__is_taken(void **state) {
  (void)state;
  parsed p;
  ice_err e = {0};
  assert_int_equal(parse("run a.yaml --threads 2 --force --set a=1 --set=b=2 -x b.yaml", &p, &e), ICE_OK);
  assert_string_equal(p.threads, "2");
  assert_string_equal(p.force, "1");
  assert_string_equal(p.x, "1");
  assert_string_equal(p.set[0], "a=1");
  assert_string_equal(p.set[1], "b=2");
  assert_null(p.set[2]);
  assert_int_equal(p.files, 2);
  assert_string_equal(p.file[1], "b.yaml");
  free((void *)p.set);
  assert_int_equal(parse("run --threads=1 --threads 3 -", &p, &e), ICE_OK); /* the last one counts; - is a file */
  assert_string_equal(p.threads, "3");
  assert_string_equal(p.file[0], "-");
  assert_null(p.set);
  assert_int_equal(parse("run -- --force", &p, &e), ICE_OK);
  assert_string_equal(p.file[0], "--force");
  assert_null(p.force);
  assert_int_equal(parse("run", &p, &e), ICE_OK);
  assert_int_equal(p.files, 0);
}

static void test_parse__faults__are_named(void **state) {
  (void)state;
  static const struct {
    const char *line, *message;
  } c[] = {
      {"run --thread 2", "run: unknown option --thread; did you mean --threads?"},
      {"run --zzzzzz", "run: unknown option --zzzzzz; known: --threads, --force, --set, --x, --help"},
      {"run --threads", "run: --threads needs a value"},
      {"run --force=1", "run: --force takes no value"},
      {"run -force", "run: unknown option --force; did you mean --force?"},
      {"run a b c", "run: unexpected argument 'c'; see icebench run --help"},
      {"run -y", "run: unknown option --y; did you mean --x?"},
  };
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    parsed p;
    ice_err e = {0};
    assert_int_equal(parse(c[i].line, &p, &e), ICE_USAGE);
    assert_string_equal(e.text, c[i].message);
    free((void *)p.set);
  }
}

static void test_parse__many_options__the_list_is_cut_not_overrun(void **state) {
  (void)state;
  static char name[100][40];
  cli_option spec[101] = {{.name = NULL}};
  const char *value = NULL;
  char *argv[] = {"verb", "--~", NULL};
  int n;
  ice_err e = {0};
  for (int i = 0; i < 100; i++) {
    (void)snprintf(name[i], sizeof name[i], "option-with-a-long-name-%d", i);
    spec[i] = (cli_option){.name = name[i], .value = &value};
  }
  spec[100].name = NULL;
  assert_int_equal(cli_parse(2, argv, spec, NULL, 0, &n, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "known: --option-with-a-long-name-0, "));
}

static void test_numbers__bounds_and_whole_strings(void **state) {
  (void)state;
  long long v = 7;
  double d = 7;
  ice_err e = {0};
  assert_int_equal(cli_int("limit", "12", 1, 12, &v, &e), ICE_OK);
  assert_true(v == 12);
  static const char *const bad[] = {"13", "0", "", "x", "1x", "1e1", "0x1", "99999999999999999999", " 1", "1 "};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(cli_int("limit", bad[i], 1, 12, &v, &e), ICE_USAGE);
  assert_true(v == 12);
  assert_int_equal(cli_int("limit", "13", 1, 12, &v, &e), ICE_USAGE);
  assert_string_equal(e.text, "--limit = 13, allowed 1..12");
  assert_int_equal(cli_real("max-hours", "0.5", 0, 1, &d, &e), ICE_OK);
  assert_true(d == 0.5);
  static const char *const no[] = {"1.1", "nan", "inf", "", "0,5", "1e400", "-0.1"};
  for (size_t i = 0; i < sizeof no / sizeof *no; i++)
    assert_int_equal(cli_real("max-hours", no[i], 0, 1, &d, &e), ICE_USAGE);
  assert_true(d == 0.5);
}

static void test_format__text_or_json(void **state) {
  (void)state;
  int json = 7;
  ice_err e = {0};
  assert_int_equal(cli_format("json", &json, &e), ICE_OK);
  assert_int_equal(json, 1);
  assert_int_equal(cli_format("text", &json, &e), ICE_OK);
  assert_int_equal(json, 0);
  assert_int_equal(cli_format("xml", &json, &e), ICE_USAGE);
  assert_string_equal(e.text, "--format = xml, allowed text, json");
  assert_int_equal(cli_print_json(NULL, &e), ICE_INTERNAL);
}

/* --- progress ------------------------------------------------------------------------------------------------------ */

static void test_progress__no_terminal__plain_lines(void **state) {
  (void)state;
  cli_progress p;
  capture();
  cli_progress_start(&p, "cells", 1);
  cli_progress_tick(&p, 10, 10, "the last"); /* the end is always told */
  cli_progress_end(&p);
  cli_progress_start(&p, "silent", 0);
  cli_progress_tick(&p, 1, 1, NULL);
  cli_progress_end(&p);
  assert_string_equal(release("err"), "cells: 10 of 10, the last\n");
  assert_string_equal(release("out"), "");
}

/* --- verbs --------------------------------------------------------------------------------------------------------- */

static int start(const char *line) {
  char *argv[32];
  int argc = words(line, argv);
  capture();
  return cli_main(argc, argv);
}

static void test_help__lists_every_verb_but_hidden_ones(void **state) {
  (void)state;
  static const char *const line[] = {"icebench help", "icebench --help", "icebench -h"};
  for (size_t i = 0; i < 3; i++) {
    int rc = start(line[i]);
    const char *out = release("out");
    assert_int_equal(rc, ICE_OK);
    assert_string_equal(release("err"), "");
    for (int v = 0; cli_verbs[v]; v++) {
      char row[64];
      (void)snprintf(row, sizeof row, "\n  %s ", cli_verbs[v]->name);
      assert_true((strstr(out, row) != NULL) == (cli_verbs[v]->name[0] != '_'));
    }
  }
  assert_int_equal(start("icebench"), ICE_USAGE); /* nothing asked: the same text, as an error */
  assert_non_null(strstr(release("err"), "usage: icebench VERB"));
}

static void test_help__of_every_verb__by_both_ways(void **state) {
  (void)state;
  for (int v = 0; cli_verbs[v]; v++) {
    char line[100];
    if (cli_verbs[v]->name[0] == '_') continue;
    (void)snprintf(line, sizeof line, "icebench %s --help", cli_verbs[v]->name);
    int rc = start(line);
    assert_string_equal(release("out"), cli_verbs[v]->help);
    assert_int_equal(rc, ICE_OK);
    (void)snprintf(line, sizeof line, "icebench help %s", cli_verbs[v]->name);
    rc = start(line);
    assert_string_equal(release("out"), cli_verbs[v]->help);
    assert_int_equal(rc, ICE_OK);
    assert_non_null(strstr(cli_verbs[v]->help, "usage: icebench "));
    assert_non_null(strstr(cli_verbs[v]->help, "example"));
    assert_int_equal(cli_verbs[v]->help[strlen(cli_verbs[v]->help) - 1], '\n');
  }
}

static void test_verb__unknown_or_misplaced__exit_2_and_one_line(void **state) {
  (void)state;
  static const struct {
    const char *line, *message;
  } c[] = {
      {"icebench rnu", "icebench: unknown verb 'rnu'; did you mean run?\n"},
      {"icebench zzzzzzz", "icebench: unknown verb 'zzzzzzz'; see icebench help\n"},
      {"icebench -q list", "icebench: option -q stands before the verb; write icebench VERB -q\n"},
      {"icebench help lits", "icebench: unknown verb 'lits'; did you mean list?\n"},
      {"icebench list methods --db", "icebench: --db needs a file\n"},
      {"icebench list methods --db=", "icebench: --db = '', a file name is needed\n"},
      {"icebench list", "icebench: list: of what? allowed methods, tasks, models, configs\n"},
      {"icebench show icefromer", "icebench: unknown method icefromer, did you mean iceformer, reformer?\n"},
  };
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    int rc = start(c[i].line);
    assert_string_equal(release("err"), c[i].message);
    assert_string_equal(release("out"), "");
    assert_int_equal(rc, ICE_USAGE);
  }
}

static void test_common_options__anywhere_after_the_verb(void **state) {
  (void)state;
  assert_int_equal(start("icebench list -q methods --db x.db -v --no-color --format json"), ICE_OK);
  json_t *rows = json_loads(release("out"), 0, NULL);
  assert_true(json_is_array(rows) && json_array_size(rows) >= 4);
  json_decref(rows);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_parse__every_form__is_taken),
      TEST(test_parse__faults__are_named),
      TEST(test_parse__many_options__the_list_is_cut_not_overrun),
      TEST(test_numbers__bounds_and_whole_strings),
      TEST(test_format__text_or_json),
      TEST(test_progress__no_terminal__plain_lines),
      TEST(test_help__lists_every_verb_but_hidden_ones),
      TEST(test_help__of_every_verb__by_both_ways),
      TEST(test_verb__unknown_or_misplaced__exit_2_and_one_line),
      TEST(test_common_options__anywhere_after_the_verb),
  };
  return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
