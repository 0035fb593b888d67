/* test_answer.c - marks of answers: the published vectors, and values worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "datasets/answer.h"
#include "datasets/translit.h"
#include "datasets/utf8.h"

static double part_of(answer_mark m, const char *prediction, const char *reference, int which) {
  double part[ANSWER_PARTS];
  assert_true(answer_score(m, prediction, &reference, 1, part));
  return part[which];
}
static double score(answer_mark m, const char *prediction, const char *reference) { return part_of(m, prediction, reference, 0); }

#define NEAR(a, b) assert_true(fabs((a) - (b)) < 1e-4)

/* SCROLLS' own example of three predictions: R1 72.2222, R2 33.3333, RL 72.2222, geometric mean 55.8136, F1 72.2222. */
static void test_score__example_of_scrolls(void **state) {
  (void)state;
  static const char *const prediction[] = {"exact match example", "hello there", "general kenobi"};
  static const char *const one[] = {"exact match example"}, *const two[] = {"hello", "hi there"}, *const three[] = {"commander kenobi"};
  static const char *const *const reference[] = {one, two, three};
  static const int n[] = {1, 2, 1};
  double sum[ANSWER_PARTS] = {0}, f1 = 0, part[ANSWER_PARTS];
  for (int i = 0; i < 3; i++) {
    assert_true(answer_score(ANSWER_ROUGE, prediction[i], reference[i], n[i], part));
    if (i == 1) NEAR(100 * part[0], 66.6667), NEAR(part[1], 0);
    for (int p = 0; p < ANSWER_PARTS; p++) sum[p] += 100 * part[p] / 3;
    assert_true(answer_score(ANSWER_F1, prediction[i], reference[i], n[i], part));
    f1 += 100 * part[0] / 3;
  }
  NEAR(sum[0], 72.2222), NEAR(sum[1], 33.3333), NEAR(sum[2], 72.2222), NEAR(f1, 72.2222);
  NEAR(answer_total(ANSWER_ROUGE, sum), 55.8136);
  NEAR(answer_total(ANSWER_F1, sum), sum[0]);
}

static void test_rouge__clipped_counts_order_and_empty_texts(void **state) {
  (void)state;
  /* "the the the" against "the cat the dog": 2 of 3 and 2 of 4 -> F = 2 * 2/3 * 1/2 / (7/6) = 4/7 */
  NEAR(part_of(ANSWER_ROUGE, "The the THE", "the cat the dog", 0), 4.0 / 7);
  NEAR(part_of(ANSWER_ROUGE, "the the the", "the cat the dog", 1), 0);
  /* a b c d e against e a c b d: common subsequence a c d or a b d, 3 of 5 */
  NEAR(part_of(ANSWER_ROUGE, "a b c d e", "e-a_c.b d", 2), 0.6);
  NEAR(part_of(ANSWER_ROUGE, "a b c d e", "e-a_c.b d", 0), 1);
  for (int p = 0; p < ANSWER_PARTS; p++) {
    NEAR(part_of(ANSWER_ROUGE, "", "", p), 0);
    NEAR(part_of(ANSWER_ROUGE, "...", "word", p), 0);
  }
  NEAR(part_of(ANSWER_ROUGE, "caf\xc3\xa9 au lait", "caf au lait", 0), 1);     /* other letters are spaces: "caf" "au" "lait" */
  NEAR(part_of(ANSWER_ROUGE, "5 \xe2\x84\xaa", "5 k", 0), 1);                  /* the sign of Kelvin is a k in lower case */
  NEAR(part_of(ANSWER_ROUGE, "\xc4\xb0zmir", "i zmir", 0), 1);                 /* I with a dot: i, and the dot as a space */
  NEAR(part_of(ANSWER_ROUGE, "running", "run", 0), 0);                         /* no stemming */
}

static void test_f1__articles_punctuation_accents(void **state) {
  (void)state;
  NEAR(score(ANSWER_F1, "The cat, an ANIMAL!", "cat animal"), 1);
  NEAR(score(ANSWER_F1, "the", "the"), 0); /* nothing left on both sides */
  NEAR(score(ANSWER_F1, "anthem theatre", "Anthem Theatre"), 1); /* articles inside words stay */
  NEAR(score(ANSWER_F1, "U.S.A.", "usa"), 1);
  NEAR(score(ANSWER_F1, "well-known", "wellknown"), 1);
  NEAR(score(ANSWER_F1, "caf\xc3\xa9", "cafe"), 1);
  NEAR(score(ANSWER_F1, "\xc3\x89mile Zola", "emile zola"), 1);
  NEAR(score(ANSWER_F1, "2\xc2\xbd miles", "2 1\xe2\x81\x84" "2 miles"), 1); /* a fraction stands apart */
  NEAR(score(ANSWER_F1, "\xd0\x9c\xd0\xbe\xd0\xb9", "\xd0\xbc\xd0\xbe\xd0\xb9"), 1); /* other scripts compare with themselves */
  NEAR(score(ANSWER_F1, "it\xe2\x80\x99s", "it's"), 0); /* the typographic apostrophe becomes one after punctuation went */
  NEAR(score(ANSWER_F1, "a\xe2\x80\x89" "b", "b"), 1);   /* a thin space separates, and "a" is an article */
  NEAR(score(ANSWER_F1, "red red blue", "red blue blue"), 2.0 / 3);
  NEAR(score(ANSWER_F1, "\xe5\x8c\x97\xe4\xba\xac", "\xe5\x8c\x97"), 2.0 / 3); /* ideographs are words */
  const char *none = "";
  double part[ANSWER_PARTS];
  assert_true(answer_score(ANSWER_F1, "x", &none, 0, part));
  NEAR(part[0], 0);
}

static void test_choice__first_lone_capital(void **state) {
  (void)state;
  NEAR(score(ANSWER_CHOICE, "The answer is (B).", "B"), 1);
  NEAR(score(ANSWER_CHOICE, "A good one is C", "C"), 0); /* "A" comes first */
  NEAR(score(ANSWER_CHOICE, "Because D", "D"), 1);
  NEAR(score(ANSWER_CHOICE, "b", "B"), 0);
  NEAR(score(ANSWER_CHOICE, "", "B"), 0);
  NEAR(score(ANSWER_CHOICE, "none", "none"), 0);
  NEAR(score(ANSWER_CHOICE, "B2 C", "C"), 1);
  NEAR(score(ANSWER_CHOICE, "\xc3\xa9" "B D", "D"), 1); /* an accented letter is part of the word */
}

static void test_percent__published_vector_and_forms(void **state) {
  (void)state;
  NEAR(100 * score(ANSWER_PERCENT, "40%", "50%"), 50);
  NEAR(score(ANSWER_PERCENT, "40", "50%"), 0);
  NEAR(score(ANSWER_PERCENT, "of 30 reviews 62.5% are positive", "62.5%"), 1);
  NEAR(score(ANSWER_PERCENT, "50.% or so", "50%"), 1);
  NEAR(score(ANSWER_PERCENT, "1.2.30%", "2.3%"), 1); /* the first match begins at the 2 */
  NEAR(score(ANSWER_PERCENT, "12 % 70%", "70%"), 1);
  NEAR(score(ANSWER_PERCENT, "60%", "50%"), score(ANSWER_PERCENT, "40%", "50%"));
}

static void test_order__published_vector_and_forms(void **state) {
  (void)state;
  NEAR(100 * score(ANSWER_ORDER, "1, 3, 2", "1, 2, 3"), 66.6667);
  NEAR(score(ANSWER_ORDER, "1, 2", "1, 2, 3"), 0);
  NEAR(score(ANSWER_ORDER, "1, 2, 2", "1, 2, 3"), 0);
  NEAR(score(ANSWER_ORDER, "3,2,1", "1,2,3"), 0);
  NEAR(score(ANSWER_ORDER, "Summary 2, Summary 1,\nSummary 3.", "2, 1, 3"), 1);
  NEAR(score(ANSWER_ORDER, "The order is 4 3 2 1", "4, 3, 1, 2"), 5.0 / 6);
  NEAR(score(ANSWER_ORDER, "", "1, 2"), 0);
  NEAR(score(ANSWER_ORDER, "", ""), 0);
  NEAR(score(ANSWER_ORDER, "7", "7"), 1);
  NEAR(score(ANSWER_ORDER, "99999999999999999999999999, 1", "1, 2"), 0);
}

static void test_number__last_one_counts(void **state) {
  (void)state;
  NEAR(score(ANSWER_NUMBER, "The <REGISTER_CONTENT> in line torpid-kid is <2416>.", "2416"), 1);
  NEAR(score(ANSWER_NUMBER, "2416, of 50000", "2416"), 0);
  NEAR(score(ANSWER_NUMBER, "no idea", "2416"), 0);
  NEAR(score(ANSWER_NUMBER, "002416", "2416"), 1);
  NEAR(score(ANSWER_NUMBER, "2416 99999999999999999999999999999999", "2416"), 0);
  NEAR(score(ANSWER_NUMBER, "99999999999999999999999999999999", "99999999999999999999999999999998"), 0);
  NEAR(score(ANSWER_NUMBER, "99999999999999999999999999999999", "99999999999999999999999999999999"), 0); /* no number of ours */
  NEAR(score(ANSWER_NUMBER, "", ""), 0);
}

static void test_topic__words_in_a_row(void **state) {
  (void)state;
  NEAR(score(ANSWER_TOPIC, "The first topic we discussed was the psychology of creativity.", "The psychology of creativity"), 1);
  NEAR(score(ANSWER_TOPIC, "Psychology and creativity", "The psychology of creativity"), 0);
  NEAR(score(ANSWER_TOPIC, "The impact of social media on communication", "The impact of social media"), 1);
  NEAR(score(ANSWER_TOPIC, "The benefits", "The benefits of volunteering"), 0);
  NEAR(score(ANSWER_TOPIC, "anything", "the"), 0);
}

static void test_utf8__next_and_offset(void **state) {
  (void)state;
  const char *s = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", *at = s;
  static const uint32_t want[] = {'a', 0xe9, 0x20ac, 0x1f600, 0, 0};
  for (int i = 0; i < 6; i++) assert_int_equal(utf8_next(&at), want[i]);
  assert_int_equal(utf8_offset(s, 0), 0);
  assert_int_equal(utf8_offset(s, 3), 6);
  assert_int_equal(utf8_offset(s, 4), 10);
  assert_int_equal(utf8_offset(s, 5), -1);
  assert_int_equal(utf8_offset(s, -1), -1);
  static const char *const bad[] = {"\x80", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\xff"};
  static const int marks[] = {1, 2, 3, 4, 2, 1}; /* one for each byte */
  for (int i = 0; i < 6; i++) {
    int n = 0;
    for (at = bad[i]; *at; n++) assert_int_equal(utf8_next(&at), 0xfffd);
    assert_int_equal(n, marks[i]);
  }
  for (uint32_t c = 1; c < 0x110000; c += c < 0x3000 ? 1 : 97) { /* there and back */
    char text[5] = {0};
    if (c >= 0xd800 && c < 0xe000) continue;
    const int n = utf8_put(c, text);
    at = text;
    assert_int_equal(utf8_next(&at), c);
    assert_int_equal(at - text, n);
  }
}

static void test_translit__spellings(void **state) {
  (void)state;
  static const struct {
    uint32_t c;
    const char *text;
  } want[] = {{'x', "x"}, {0xe4, "a"}, {0xdf, "ss"}, {0xe6, "ae"}, {0x1fd, "ae"}, {0x1ff, "o"}, {0x142, "l"}, {0x1ec7, "e"}, {0xfb03, "ffi"},
              {0x2019, "'"}, {0x2033, "''"}, {0x201c, "\""}, {0x2014, "--"}, {0x2011, "-"}, {0x2026, "..."}, {0x20ac, "EUR"}, {0xbd, " 1/2"},
              {0xb2, "2"}, {0x1d5c4, "k"}, {0xff41, "a"}, {0x301, ""}, {0x200d, ""}, {0xa0, " "}, {0x85, " "}, {0xb4, "'"},
              {0x3b8, "\xce\xb8"}, {0x3ac, "\xce\xb1"}, {0xb5, "\xce\xbc"}, {0x439, "\xd0\xb8"}, {0x449, "\xd1\x89"},
              {0x1f600, "\xf0\x9f\x98\x80"}, {0x5317, "\xe5\x8c\x97 "}};
  char out[8];
  for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
    translit(want[i].c, out);
    assert_string_equal(out, want[i].text);
  }
  for (uint32_t c = 1; c < 0x110000; c += c == 0xd7ff ? 0x801 : 1) { /* what is longer than out, ASan sees */
    translit(c, out);
    assert_in_range(strlen(out), 0, sizeof out - 1);
    if (c < 0x80) assert_true((uint32_t)out[0] == c && !out[1]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_score__example_of_scrolls),
      cmocka_unit_test(test_rouge__clipped_counts_order_and_empty_texts),
      cmocka_unit_test(test_f1__articles_punctuation_accents),
      cmocka_unit_test(test_choice__first_lone_capital),
      cmocka_unit_test(test_percent__published_vector_and_forms),
      cmocka_unit_test(test_order__published_vector_and_forms),
      cmocka_unit_test(test_number__last_one_counts),
      cmocka_unit_test(test_topic__words_in_a_row),
      cmocka_unit_test(test_utf8__next_and_offset),
      cmocka_unit_test(test_translit__spellings),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
