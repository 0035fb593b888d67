/* test_yaml.c - configuration files as trees: values, places, and everything that is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/yaml.h"

static yaml_doc *parse(const char *text) {
  yaml_doc *doc = NULL;
  ice_err e = {0};
  int rc = yaml_parse(text, strlen(text), "t.yaml", &doc, &e);
  if (rc != ICE_OK) fail_msg("%s", e.text);
  return doc;
}

/* The text is refused with ICE_USAGE and exactly this message. */
static void refuses_bytes(const char *text, size_t n, const char *message) {
  yaml_doc *doc = NULL;
  ice_err e = {0};
  assert_int_equal(yaml_parse(text, n, "t.yaml", &doc, &e), ICE_USAGE);
  assert_null(doc);
  assert_string_equal(e.text, message);
}
static void refuses(const char *text, const char *message) { refuses_bytes(text, strlen(text), message); }

static void test_values__of_every_type__are_read(void **state) {
  (void)state;
  yaml_doc *doc = parse("name: lra-listops\n"
                        "rounds: 9\n"
                        "seconds: 1.5e2\n"
                        "quality: true # comment\n"
                        "k: [8, 16, 32]\n"
                        "quoted: \"a: b\"\n"
                        "measure: {warmup: 0}\n");
  yaml_node *top = yaml_root(doc), *k = NULL, *measure = NULL;
  const char *name = NULL, *quoted = NULL;
  int64_t rounds = 0, warmup = 7, absent = 5;
  double seconds = 0;
  int quality = 0;
  ice_err e = {0};
  assert_int_equal(yaml_get_string(top, "name", 1, &name, &e), 0);
  assert_string_equal(name, "lra-listops");
  assert_int_equal(yaml_get_int(top, "rounds", 1, 1000, &rounds, &e), 0);
  assert_int_equal(rounds, 9);
  assert_int_equal(yaml_get_real(top, "seconds", 0, 1000, &seconds, &e), 0);
  assert_true(seconds == 150);
  assert_int_equal(yaml_get_bool(top, "quality", &quality, &e), 0);
  assert_int_equal(quality, 1);
  assert_int_equal(yaml_get_string(top, "quoted", 1, &quoted, &e), 0);
  assert_string_equal(quoted, "a: b");
  assert_int_equal(yaml_get(top, "k", 1, &k, &e), 0);
  assert_true(yaml_is_list(k));
  assert_int_equal(yaml_count(k), 3);
  int64_t third = 0;
  assert_int_equal(yaml_int(yaml_item(k, 2), 1, 100, &third, &e), 0);
  assert_int_equal(third, 32);
  assert_int_equal(yaml_line(yaml_item(k, 2)), 5);
  assert_int_equal(yaml_column(yaml_item(k, 2)), 12);
  assert_int_equal(yaml_get_map(top, "measure", 1, &measure, &e), 0);
  assert_int_equal(yaml_get_int(measure, "warmup", 0, 9, &warmup, &e), 0);
  assert_int_equal(warmup, 0);
  assert_int_equal(yaml_get_int(measure, "absent", 0, 9, &absent, &e), 0);
  assert_int_equal(absent, 5);
  assert_int_equal(yaml_finish(doc, &e), 0);
  yaml_close(doc);
}

static void test_parse__mark_of_utf8_in_front__is_no_text(void **state) {
  (void)state;
  yaml_doc *doc = parse("\xef\xbb\xbfname: a\n");
  const char *name;
  yaml_node *n;
  ice_err e = {0};
  assert_int_equal(yaml_get(yaml_root(doc), "name", 1, &n, &e), ICE_OK);
  assert_int_equal(yaml_string(n, &name, &e), ICE_OK);
  assert_string_equal(name, "a");
  yaml_close(doc);
}

static void test_item__of_a_scalar__is_the_scalar(void **state) {
  (void)state;
  yaml_doc *doc = parse("k: 8\nm: {a: 1}\n");
  yaml_node *k = yaml_find(yaml_root(doc), "k");
  assert_int_equal(yaml_count(k), 1);
  assert_ptr_equal(yaml_item(k, 0), k);
  yaml_close(doc);
}

static void test_pairs__of_a_mapping__are_walked_in_order(void **state) {
  (void)state;
  yaml_doc *doc = parse("b: 1\na: 2\n");
  yaml_node *top = yaml_root(doc);
  ice_err e;
  assert_int_equal(yaml_count(top), 2);
  assert_string_equal(yaml_key(top, 0), "b");
  assert_string_equal(yaml_key(top, 1), "a");
  assert_string_equal(yaml_text(yaml_value(top, 1)), "2");
  assert_int_equal(yaml_finish(doc, &e), ICE_USAGE); /* b was not looked at */
  (void)yaml_value(top, 0);
  assert_int_equal(yaml_finish(doc, &e), ICE_OK);
  yaml_close(doc);
}

static void test_finish__unknown_key__names_place_and_neighbours(void **state) {
  (void)state;
  yaml_doc *doc = parse("name: x\nmeasure:\n  ruonds: 3\n");
  yaml_node *top = yaml_root(doc), *measure = NULL;
  const char *name;
  int64_t v = 0;
  ice_err e = {0};
  assert_int_equal(yaml_get_string(top, "name", 1, &name, &e), 0);
  assert_int_equal(yaml_get_map(top, "measure", 1, &measure, &e), 0);
  assert_int_equal(yaml_get_int(measure, "rounds", 1, 9, &v, &e), 0);
  assert_int_equal(yaml_get_int(measure, "warmup", 1, 9, &v, &e), 0);
  assert_int_equal(yaml_finish(doc, &e), ICE_USAGE);
  assert_string_equal(e.text, "t.yaml:3:3: unknown key measure.ruonds, did you mean rounds?, allowed rounds, warmup");
  yaml_close(doc);
}

static void test_get__missing_but_mistyped__names_the_neighbour(void **state) {
  (void)state;
  yaml_doc *doc = parse("name: x\ntsak: y\n");
  const char *s;
  ice_err e = {0};
  assert_int_equal(yaml_get_string(yaml_root(doc), "task", 1, &s, &e), ICE_USAGE);
  assert_string_equal(e.text, "t.yaml:2:1: unknown key tsak, did you mean task?");
  assert_int_equal(yaml_get_string(yaml_root(doc), "model", 1, &s, &e), ICE_USAGE);
  assert_string_equal(e.text, "t.yaml:1:1: key model is missing");
  yaml_close(doc);
}

typedef struct bad_value {
  const char *text, *message;
} bad_value;

static void test_int__anything_but_a_whole_number_in_range__is_refused(void **state) {
  (void)state;
  static const bad_value bad[] = {
      {"k: 0", "t.yaml:1:4: k = 0, allowed whole numbers 1..64"},
      {"k: 65", "t.yaml:1:4: k = 65, allowed whole numbers 1..64"},
      {"k: -1", "t.yaml:1:4: k = -1, allowed whole numbers 1..64"},
      {"k: 1.0", "t.yaml:1:4: k = 1.0, allowed whole numbers 1..64"},
      {"k: 0x10", "t.yaml:1:4: k = 0x10, allowed whole numbers 1..64"},
      {"k: 99999999999999999999999", "t.yaml:1:4: k = 99999999999999999999999, allowed whole numbers 1..64"},
      {"k: \"8\"", "t.yaml:1:4: k = \"8\", allowed whole numbers 1..64, without quotes"},
      {"k: eight", "t.yaml:1:4: k = eight, allowed whole numbers 1..64"},
      {"k: [8]", "t.yaml:1:4: k = a list, allowed whole numbers 1..64"},
      {"k: {a: 8}", "t.yaml:1:4: k = a mapping, allowed whole numbers 1..64"},
      {"k:", "t.yaml:1:3: k = (nothing), allowed whole numbers 1..64"},
      {"k: ~", "t.yaml:1:4: k = ~, allowed whole numbers 1..64"},
      {"k: 8 9", "t.yaml:1:4: k = 8 9, allowed whole numbers 1..64"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    yaml_doc *doc = parse(bad[i].text);
    int64_t v = 77;
    ice_err e = {0};
    assert_int_equal(yaml_get_int(yaml_root(doc), "k", 1, 64, &v, &e), ICE_USAGE);
    assert_string_equal(e.text, bad[i].message);
    assert_int_equal(v, 77);
    yaml_close(doc);
  }
}

static void test_real__infinite_or_no_number__is_refused(void **state) {
  (void)state;
  static const char *const bad[] = {"1e400", "-1e400", ".inf", "inf",   "nan", ".nan",
                                    "0x1p3", "1e",     ".",    "1.5.2", "2.5", "[1]"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char text[40];
    (void)snprintf(text, sizeof text, "x: %s", bad[i]);
    yaml_doc *doc = parse(text);
    double v = 7;
    ice_err e = {0};
    assert_int_equal(yaml_get_real(yaml_root(doc), "x", -1, 2, &v, &e), ICE_USAGE);
    assert_true(v == 7);
    yaml_close(doc);
  }
}

static void test_bool__only_true_and_false(void **state) {
  (void)state;
  static const char *const bad[] = {"yes", "1", "True", "\"true\"", "[true]"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char text[40];
    (void)snprintf(text, sizeof text, "x: %s", bad[i]);
    yaml_doc *doc = parse(text);
    int v = 7;
    ice_err e = {0};
    assert_int_equal(yaml_get_bool(yaml_root(doc), "x", &v, &e), ICE_USAGE);
    assert_int_equal(v, 7);
    yaml_close(doc);
  }
}

static void test_choice__unknown_word__lists_the_words(void **state) {
  (void)state;
  static const char *const words[] = {"test", "dev", NULL};
  yaml_doc *doc = parse("split: tset\nok: dev\n");
  int v = 7;
  ice_err e = {0};
  assert_int_equal(yaml_choice(yaml_find(yaml_root(doc), "split"), words, &v, &e), ICE_USAGE);
  assert_string_equal(e.text, "t.yaml:1:8: split = tset, allowed test, dev");
  assert_int_equal(yaml_choice(yaml_find(yaml_root(doc), "ok"), words, &v, &e), ICE_OK);
  assert_int_equal(v, 1);
  yaml_close(doc);
}

static void test_parse__what_is_no_configuration__is_refused(void **state) {
  (void)state;
  refuses("", "t.yaml:1:1: nothing in the file, expected lines `key: value`");
  refuses("# only a comment\n", "t.yaml:1:1: nothing in the file, expected lines `key: value`");
  refuses("---\n", "t.yaml:2:1: found nothing at the top, expected lines `key: value`");
  refuses("- a\n- b\n", "t.yaml:1:1: found a list at the top, expected lines `key: value`");
  refuses("hello\n", "t.yaml:1:1: found plain text at the top, expected lines `key: value`");
  refuses("a: 1\n---\nb: 2\n", "t.yaml:2:1: second document, allowed one per file");
  refuses("a: 1\nb: 2\na: 3\n", "t.yaml:3:1: duplicate key a, given before in line 1");
  refuses("a: {b: 1, b: 2}\n", "t.yaml:1:11: duplicate key b, given before in line 1");
  refuses("a: &x [1]\nb: *x\n", "t.yaml:1:4: anchor &x, not allowed here: write the value out");
  refuses("b: *x\n", "t.yaml:1:4: alias *x, not allowed here: write the value out");
  refuses("*x : 1\n", "t.yaml:1:1: alias *x, not allowed here: write the value out");
  refuses("a: !!int 3\n", "t.yaml:1:4: tag tag:yaml.org,2002:int, not allowed here: leave it out");
  refuses("[1, 2]: 3\n", "t.yaml:1:1: a key must be plain text, found a list or mapping");
  refuses("\"\": 3\n", "t.yaml:1:1: empty key");
  refuses("a: \"x\\0y\"\n", "t.yaml:1:4: text with a NUL character");
  refuses("a: [1, 2\nb: 3\n", "t.yaml:2:2: not YAML: while parsing a flow sequence, did not find expected ',' or ']'");
}

static void test_parse__bytes_that_are_no_text__are_refused(void **state) {
  (void)state;
  refuses_bytes("a: 1\nb\0: 2\n", 11, "t.yaml:2:2: NUL byte at offset 6, allowed UTF-8 text only");
  refuses("a: \xff\n", "t.yaml:1:4: byte 0xff at offset 3 is not UTF-8, allowed UTF-8 text only");
  refuses("a: \xc0\xaf\n", "t.yaml:1:4: byte 0xc0 at offset 3 is not UTF-8, allowed UTF-8 text only");
  refuses("a: \xed\xa0\x80\n", "t.yaml:1:4: byte 0xed at offset 3 is not UTF-8, allowed UTF-8 text only");
  refuses("a: \xe2\x82", "t.yaml:1:4: byte 0xe2 at offset 3 is not UTF-8, allowed UTF-8 text only");
  refuses_bytes("\xff\xfe"
                "a\0",
                4, "t.yaml:1:1: byte 0xff at offset 0 is not UTF-8, allowed UTF-8 text only");
  yaml_doc *doc = parse("\xef\xbb\xbf"
                        "a: \xc3\xa9\n"); /* byte order mark and accents are fine */
  assert_string_equal(yaml_text(yaml_find(yaml_root(doc), "a")), "\xc3\xa9");
  yaml_close(doc);
}

static void test_parse__too_deep_or_too_wide__is_refused(void **state) {
  (void)state;
  char *text = malloc(200000);
  assert_non_null(text);
  memcpy(text, "a: ", 4);
  memset(text + 3, '[', 100000);
  text[100003] = 0;
  refuses(text, "t.yaml:1:35: nested deeper than 32 levels");
  size_t used = 0;
  for (int i = 0; i <= YAML_MAX_KEYS; i++) used += (size_t)sprintf(text + used, "k%d: 1\n", i);
  refuses(text, "t.yaml:1025:1: more than 1024 keys in one mapping");
  memset(text, 'k', 300);
  memcpy(text + 300, ": 1", 4);
  refuses(text, "t.yaml:1:1: key of 300 bytes, allowed 1..255 without NUL");
  free(text);
}

static void test_parse__deep_but_allowed__is_read_and_freed(void **state) {
  (void)state;
  char text[100] = "a: ";
  memset(text + 3, '[', YAML_MAX_DEPTH - 1);
  memset(text + 3 + YAML_MAX_DEPTH - 1, ']', YAML_MAX_DEPTH - 1);
  yaml_close(parse(text));
}

static void refuses_file(const char *path, const char *message) {
  yaml_doc *doc = NULL;
  ice_err e = {0};
  assert_int_equal(yaml_read(path, &doc, &e), ICE_USAGE);
  assert_null(doc);
  if (!strstr(e.text, message)) fail_msg("%s", e.text);
}

static void test_read__what_is_no_regular_file__is_refused_at_once(void **state) {
  (void)state;
  char dir[] = "/tmp/icebench-yaml-XXXXXX", path[64];
  assert_non_null(mkdtemp(dir));
  refuses_file(dir, ": is a folder, allowed a regular file");
  refuses_file("/dev/zero", "/dev/zero: is a pipe, socket or device, allowed a regular file");
  (void)snprintf(path, sizeof path, "%s/fifo", dir);
  refuses_file(path, "fifo: cannot be opened: No such file or directory");
  assert_int_equal(mkfifo(path, 0600), 0);
  refuses_file(path, "fifo: is a pipe, socket or device, allowed a regular file");
  assert_int_equal(unlink(path), 0);
  (void)snprintf(path, sizeof path, "%s/huge", dir);
  int fd = open(path, O_CREAT | O_WRONLY, 0600);
  assert_true(fd >= 0);
  assert_int_equal(ftruncate(fd, 100 << 20), 0); /* 100 MiB, sparse */
  assert_int_equal(close(fd), 0);
  refuses_file(path, "huge: 104857600 bytes, allowed at most 1048576");
  assert_int_equal(unlink(path), 0);
  assert_int_equal(rmdir(dir), 0);
}

static void test_fail__long_values__are_cut_between_characters(void **state) {
  (void)state;
  char text[400] = "a: x";
  for (int i = 0; i < 100; i++) memcpy(text + 4 + 2 * i, "\xc3\xa9", 3);
  yaml_doc *doc = parse(text);
  ice_err e = {0};
  assert_int_equal(yaml_fail(yaml_find(yaml_root(doc), "a"), &e, "allowed %d", 3), ICE_USAGE);
  assert_int_equal(strlen(e.text), strlen("t.yaml:1:4: a = x") + 58 + strlen("..., allowed 3"));
  yaml_close(doc);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_values__of_every_type__are_read),
      cmocka_unit_test(test_parse__mark_of_utf8_in_front__is_no_text),
      cmocka_unit_test(test_item__of_a_scalar__is_the_scalar),
      cmocka_unit_test(test_pairs__of_a_mapping__are_walked_in_order),
      cmocka_unit_test(test_finish__unknown_key__names_place_and_neighbours),
      cmocka_unit_test(test_get__missing_but_mistyped__names_the_neighbour),
      cmocka_unit_test(test_int__anything_but_a_whole_number_in_range__is_refused),
      cmocka_unit_test(test_real__infinite_or_no_number__is_refused),
      cmocka_unit_test(test_bool__only_true_and_false),
      cmocka_unit_test(test_choice__unknown_word__lists_the_words),
      cmocka_unit_test(test_parse__what_is_no_configuration__is_refused),
      cmocka_unit_test(test_parse__bytes_that_are_no_text__are_refused),
      cmocka_unit_test(test_parse__too_deep_or_too_wide__is_refused),
      cmocka_unit_test(test_parse__deep_but_allowed__is_read_and_freed),
      cmocka_unit_test(test_read__what_is_no_regular_file__is_refused_at_once),
      cmocka_unit_test(test_fail__long_values__are_cut_between_characters),
  };
  return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
