/* test_longeval_drill.c - conversations for training: what is asked is said above, and nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "datasets/longeval_drill.h"
#include "tests/support/scratch.h"

static drill made(const drill_plan *plan, const drill_words *words, uint64_t seed) {
  attn_rng r;
  drill d;
  ice_err e = {0};
  attn_rng_seed(&r, seed, 0);
  if (drill_make(&r, plan, words, &d, &e) != ICE_OK) fail_msg("%s", e.text);
  return d;
}

static int64_t occurrences(const char *text, const char *part) {
  int64_t n = 0;
  for (; (text = strstr(text, part)) != NULL; text++) n++;
  return n;
}

static void test_lines__answers_are_those_of_the_record(void **state) {
  (void)state;
  const drill_plan plan = {.kind = DRILL_LINES, .least = 3, .most = 40, .turns = 6};
  const drill_words none = {0};
  int64_t fewest = 100, most = 0;
  for (uint64_t seed = 0; seed < 60; seed++) {
    drill d = made(&plan, &none, seed);
    const int64_t lines = occurrences(d.turn->message, ": REGISTER_CONTENT is <");
    fewest = lines < fewest ? lines : fewest, most = lines > most ? lines : most;
    assert_int_equal(d.turns, 6);
    for (int64_t t = 0; t < d.turns; t++) {
      char name[128], number[32], line[256], question[256];
      assert_int_equal(sscanf(d.turn[t].answer, "line %127[^:]: REGISTER_CONTENT is <%31[0-9]>", name, number), 2);
      (void)snprintf(line, sizeof line, "\nline %s: REGISTER_CONTENT is <%s>\n", name, number);
      assert_int_equal(occurrences(d.turn->message, line), 1);
      (void)snprintf(line, sizeof line, "\nline %s:", name);
      assert_int_equal(occurrences(d.turn->message, line), 1); /* no other line has the name */
      (void)snprintf(question, sizeof question, "in line %s? I need the number.", name);
      assert_int_equal(occurrences(d.turn[t].message, question), 1);
    }
    drill_free(&d);
  }
  assert_true(fewest >= 3 && fewest < 10 && most <= 40 && most > 30);
}

/* Pairs of two words have four names, beside which syllables and published names are drawn: many a draw is one that stands above. */
static void test_lines__few_words__every_name_once(void **state) {
  (void)state;
  const drill_plan plan = {.kind = DRILL_REPEAT, .least = 200, .most = 200};
  char ice[] = "ice", bench[] = "bench", *two[] = {ice, bench};
  const drill_words words = {.word = two, .count = 2};
  drill d = made(&plan, &words, 5);
  char *at = d.turn->answer;
  for (char *line; (line = strsep(&at, "\n")) != NULL && *line;) {
    char name[160];
    (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(line, ":") + 1, line);
    assert_int_equal(occurrences(d.turn->message, name), 1);
  }
  drill_free(&d);
}

static void test_lines__bare__nothing_but_lines_and_a_question(void **state) {
  (void)state;
  const drill_plan plan = {.kind = DRILL_LINES, .least = 3, .most = 3, .turns = 2, .bare = 1};
  const drill_words none = {0};
  drill d = made(&plan, &none, 1);
  assert_memory_equal(d.turn->message, "line ", 5);
  assert_int_equal(occurrences(d.turn->message, "\n"), 3);
  assert_memory_equal(strrchr(d.turn->message, '\n'), "\nTell me what is", 16);
  drill_free(&d);
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void test_repeat__the_same_lines_in_another_order(void **state) {
  (void)state;
  const drill_plan plan = {.kind = DRILL_REPEAT, .least = 5, .most = 5, .turns = 9};
  const drill_words none = {0};
  int differ = 0;
  for (uint64_t seed = 0; seed < 20; seed++) {
    drill d = made(&plan, &none, seed);
    assert_int_equal(d.turns, 1);
    differ += strcmp(d.turn->message, d.turn->answer) != 0;
    char *line[2][5], *at[2] = {d.turn->message, d.turn->answer};
    for (int i = 0; i < 5; i++)
      for (int k = 0; k < 2; k++) assert_non_null(line[k][i] = strsep(at + k, "\n"));
    assert_string_equal(at[0], "");
    assert_string_equal(at[1], "");
    for (int k = 0; k < 2; k++) qsort(line[k], 5, sizeof *line[k], by_text);
    for (int i = 0; i < 5; i++) assert_string_equal(line[0][i], line[1][i]);
    drill_free(&d);
  }
  assert_true(differ > 15);
}

static void test_words__again_in_the_same_order(void **state) {
  (void)state;
  const drill_plan plan = {.kind = DRILL_WORDS, .least = 4, .most = 9, .turns = 3};
  const drill_words none = {0};
  drill d = made(&plan, &none, 1), other = made(&plan, &none, 2);
  const int64_t spaces = occurrences(d.turn->message, " ");
  assert_true(d.turns == 1 && spaces >= 3 && spaces <= 8);
  assert_string_equal(d.turn->message, d.turn->answer);
  assert_string_not_equal(d.turn->message, other.turn->message);
  drill_free(&d), drill_free(&other);
}

static void test_topics__the_first_one_is_the_answer(void **state) {
  (void)state;
  const drill_plan plan = {.kind = DRILL_TOPICS, .least = 2, .most = 6, .exchanges = 2};
  const drill_words none = {0};
  static const char cue[] = "I would like to discuss the topic of ", opening[] = "Now the record start. USER: ";
  int branched = 0; /* talks behind the first that begin with its first two words, "the X" */
  for (uint64_t seed = 0; seed < 60; seed++) {
    drill d = made(&plan, &none, seed);
    const char *first = strstr(d.turn->message, opening), *answer = d.turn->answer;
    assert_non_null(first);
    assert_memory_equal(first, answer, strlen(answer)); /* word for word, with the full stop */
    assert_memory_equal(answer + strlen(opening), cue, strlen(cue));
    assert_int_equal(answer[strlen(answer) - 1], '.');
    first += strlen(opening);
    const int64_t talks = occurrences(first, cue);
    const char *topic = first + strlen(cue), *second = strchr(strchr(topic, ' ') + 1, ' ');
    for (const char *at = strstr(topic, cue); at; at = strstr(at + 1, cue))
      branched += !strncmp(at + strlen(cue), topic, (size_t)(second - topic) + 1) && strncmp(at + strlen(cue), topic, strcspn(topic, ".") + 1) != 0;
    assert_true(talks >= 2 && talks <= 6);
    assert_int_equal(d.turns, 1);
    drill_free(&d);
  }
  assert_in_range(branched, 40, 120); /* of about 180: a third, and a few by chance */
}

static void test_words__of_a_list__appear(void **state) {
  (void)state;
  const drill_plan plan = {.kind = DRILL_LINES, .least = 30, .most = 30, .turns = 1};
  drill_words w;
  ice_err e = {0};
  static const char list[] = "quagga\nZebra\nno\nit's\nxylophones\nmuchtoolongforaword\nlast";
  scratch_write("words", list, sizeof list - 1);
  assert_int_equal(drill_words_read(&w, scratch_path("words"), &e), ICE_OK);
  assert_int_equal(w.count, 3);
  assert_string_equal(w.word[0], "quagga");
  assert_string_equal(w.word[2], "last");
  drill d = made(&plan, &w, 1), same = made(&plan, &w, 1), other = made(&plan, &w, 2);
  assert_non_null(strstr(d.turn->message, "line quagga-"));
  assert_string_equal(d.turn->message, same.turn->message);
  assert_string_not_equal(d.turn->message, other.turn->message);
  drill_free(&d), drill_free(&same), drill_free(&other);
  drill_words_free(&w);
  scratch_write("words", "A\nB\n", 4);
  assert_int_equal(drill_words_read(&w, scratch_path("words"), &e), ICE_DATA);
  assert_non_null(strstr(e.text, "has no word of 3 to 12 lower-case letters"));
  drill_words_free(&w);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_lines__answers_are_those_of_the_record),
      TEST(test_lines__few_words__every_name_once),
      TEST(test_lines__bare__nothing_but_lines_and_a_question),
      TEST(test_repeat__the_same_lines_in_another_order),
      TEST(test_words__again_in_the_same_order),
      TEST(test_topics__the_first_one_is_the_answer),
      TEST(test_words__of_a_list__appear),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
