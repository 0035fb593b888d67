/* test_prompt.c - LongEval and ZeroSCROLLS from file to ids: loaders, generators, templates, truncation, bad input. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "datasets/longeval.h"
#include "kernels/core/fileio.h"
#include "tests/support/pack.h"
#include "tests/support/scratch.h"

/* --- help ------------------------------------------------------------------------------------------------------------ */

static const task *named(const char *name) {
  const task *t = task_find(name, NULL);
  assert_non_null(t);
  return t;
}

/* The real data, as the environment had them before a test changed it; NULL: none. */
static const char *real_data;

static void root_here(void) {
  assert_int_equal(setenv("ICEBENCH_DATA_DIR", scratch_folder(), 1), 0);
  assert_int_equal(chdir(scratch_folder()), 0);
}
static void put(const char *folder, const char *file, const char *text) {
  char name[300];
  ice_err e = {0};
  if (file_make_dirs(scratch_path(folder), &e) != ICE_OK) fail_msg("%s", e.text);
  (void)snprintf(name, sizeof name, "%s/%s", folder, file);
  (void)scratch_write(name, text, strlen(text));
}
static void load_ok(const char *name, task_split split, int64_t length, prompt_set *s) {
  ice_err e = {0};
  if (prompt_load(named(name), split, length, s, &e) != ICE_OK) fail_msg("%s", e.text);
}
/* Loading must fail with ICE_DATA and a text that holds `why`. */
static void refuses(const char *name, int64_t length, const char *why) {
  prompt_set s;
  ice_err e = {0};
  assert_int_equal(prompt_load(named(name), TASK_TEST, length, &s, &e), ICE_DATA);
  if (!strstr(e.text, why)) fail_msg("'%s' does not say '%s'", e.text, why);
  assert_null(s.item);
}
static uint32_t crc(const char *text, size_t n) { return (uint32_t)crc32(0, (const Bytef *)text, (uInt)n); }

static char *wrapped(const prompt *p, int brief, prompt_template t) {
  prompt_wrapped w;
  ice_err e = {0};
  if (prompt_wrap(p, brief, t, &w, &e) != ICE_OK) fail_msg("%s", e.text);
  return w.text;
}

/* --- LongEval --------------------------------------------------------------------------------------------------------- */

#define LINE_CASE(number) \
  "{\"random_idx\": [\"calm-fox\", 1], \"expected_number\": " number ", \"num_lines\": 2, \"correct_line\": \"x\", \"prompt\": " \
  "\"line tall-oak: REGISTER_CONTENT is <5>\\nline calm-fox: REGISTER_CONTENT is <17>\\nWhich?\"}\n"

static void test_lines__both_layouts_and_fields(void **state) {
  (void)state;
  prompt_set s;
  put("longeval/lines", "2_lines.jsonl", "\n" LINE_CASE("17") LINE_CASE("17"));
  root_here();
  load_ok("longeval/lines", TASK_TEST, 2, &s);
  assert_int_equal(s.count, 2);
  assert_true(s.official && !s.note);
  assert_string_equal(s.item[1].reference[0], "17");
  assert_string_equal(s.item[1].id, "2_lines_1");
  assert_int_equal(s.item[0].query, 0);
  prompt_set_free(&s);
  put("longeval/evaluation/lines/testcases", "2_lines.jsonl", LINE_CASE("17"));
  load_ok("longeval/lines", TASK_TEST, 2, &s);
  assert_int_equal(s.count, 1); /* upstream's own layout goes first */
  prompt_set_free(&s);
}

static void test_lines__bad_files__say_what_and_where(void **state) {
  (void)state;
  static const struct {
    const char *text, *why;
  } bad[] = {{"", "holds no test cases"},
             {"{\"prompt\": 5}\n", "field 'prompt' = 5, allowed a string"},
             {"\n\n{\"prompt\": \"x\"}\n", "2_lines.jsonl:3: field 'expected_number' is missing"},
             {"{\"prompt\": \"x\", \"expected_number\": \"17\"}", "field 'expected_number' = \"17\", allowed whole numbers"},
             {"{\"prompt\": \"x\", \"expected_number\": -4}", "allowed whole numbers"},
             {"{\"prompt\": \"x\", \"expected_number\": 1e3}", "allowed whole numbers"},
             {"{\"prompt\": \"x\", \"expected_number\": 17, \"num_lines\": 2}", "random_idx"},
             {"{\"prompt\": \"x\", \"expected_number\": 17, \"num_lines\": 2, \"random_idx\": [1.5, 2]}", "random_idx"},
             {"{\"prompt\": \"x\", \"expected_number\": 17, \"num_lines\": 3, \"random_idx\": [\"a\", 2]}", "field 'num_lines' = 3, the file is that of 2"},
             {LINE_CASE("18"), "the prompt has no 'line calm-fox: REGISTER_CONTENT is <18>'"},
             {"[1, 2]\n", "not a JSON object"},
             {"{\"prompt\": \"x\"", "byte"},
             {"{\"prompt\": \"a\", \"prompt\": \"b\"}", "uplicate"},
             {"{\"prompt\": \"\\ud83d\"}", "Unicode"},
             {"{\"prompt\": \"\xff\"}", "unable to decode byte 0xff"},
             {"{\"prompt\": \"\\u0000\"}", "u0000"}};
  root_here();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    put("longeval/lines", "2_lines.jsonl", bad[i].text);
    refuses("longeval/lines", 2, bad[i].why);
  }
  refuses("longeval/lines", 7, "data make longeval/lines");
  refuses("longeval/lines", 7, "of 7 lines");
}

static void test_topics__label_and_faults(void **state) {
  (void)state;
  prompt_set s;
  root_here();
  put("longeval/topics", "2_topics.jsonl",
      "{\"test_id\": 4, \"prompt\": \"USER: discuss the topic of the sea and its tides.\", \"topics\": [\"The sea and its tides\", \"B\"], \"prompt_length\": -1}");
  load_ok("longeval/topics", TASK_TEST, 2, &s);
  assert_string_equal(s.item[0].reference[0], "The sea and its tides");
  assert_string_equal(s.item[0].id, "2_topics_4");
  prompt_set_free(&s);
  put("longeval/topics", "2_topics.jsonl", "{\"test_id\": 4, \"prompt\": \"the sea\", \"topics\": [\"The tides\", \"B\"]}");
  refuses("longeval/topics", 2, "does not name the topic 'The tides'");
  put("longeval/topics", "2_topics.jsonl", "{\"test_id\": 4, \"prompt\": \"the sea\", \"topics\": [\"The sea\"]}");
  refuses("longeval/topics", 2, "'topics' has 1, the file is that of 2");
  put("longeval/topics", "2_topics.jsonl", "{\"test_id\": 4, \"prompt\": \"the sea\", \"topics\": []}");
  refuses("longeval/topics", 2, "a list of one or more strings");
  put("longeval/topics", "1_topics.jsonl", "{\"test_id\": 4, \"prompt\": \"the sea\", \"topics\": [\"The sea\"]}\n{\"test_id\": 4, \"prompt\": \"the sea\", \"topics\": [\"The sea\"]}");
  refuses("longeval/topics", 1, "test 1_topics_4 stands twice");
}

/* The frames of the published files, byte for byte (CRCs of the specification). */
static void test_make__frames_are_the_published_ones(void **state) {
  (void)state;
  attn_rng r;
  int64_t position;
  longeval_line asked;
  attn_rng_seed(&r, 1, 0);
  char *lines = longeval_lines_prompt(&r, 3, &position, &asked);
  assert_int_equal(crc(lines, 380), 0xf4078287);
  assert_memory_equal(lines + 378, "\n\nline ", 7);
  free(lines);
  const longeval_talk talk[5] = {{"A", "USER: a."}, {"B", "USER: b."}, {"C", "c"}, {"D", "d"}, {"E", "e"}};
  const longeval_talk *all[] = {talk, talk + 1, talk + 2, talk + 3, talk + 4};
  char *topics = longeval_topics_prompt(all, 5);
  const size_t n = strlen(topics);
  assert_int_equal(crc(topics, 325), 0xabca4faa);
  assert_int_equal(crc(topics + n - 115, 115), 0x07f9942f);
  assert_memory_equal(topics + 325, "USER: a.USER: b.cde ", 20);
  free(topics);
}

static void make(const char *name, uint64_t seed, const int *lengths, int64_t examples) {
  ice_err e = {0};
  const task_make_options o = {.seed = seed, .out = scratch_folder(), .examples = examples, .lengths = lengths};
  if (named(name)->make(&o, &e) != ICE_OK) fail_msg("%s", e.text);
}

static void test_make__loads_again_and_depends_on_the_seed_alone(void **state) {
  (void)state;
  static const int lengths[] = {3, 40, 0}, other[] = {40, 0};
  root_here();
  make("longeval/lines", 7, lengths, 4);
  make("longeval/topics", 7, lengths, 4);
  for (int i = 0; i < 2; i++) {
    const char *name = i ? "longeval/topics" : "longeval/lines";
    prompt_set a, b;
    load_ok(name, TASK_TEST, 40, &a);
    assert_int_equal(a.count, 4);
    assert_true(!a.official);
    assert_string_equal(a.note, "generated data");
    make(name, 7, other, 4);
    load_ok(name, TASK_TEST, 40, &b); /* the same bytes whatever else is made */
    assert_true(a.hash == b.hash);
    prompt_set_free(&b);
    load_ok(name, TASK_TEST, 3, &b); /* and what was there stays */
    prompt_set_free(&b);
    make(name, 8, other, 4);
    load_ok(name, TASK_TEST, 40, &b);
    assert_true(a.hash != b.hash);
    prompt_set_free(&b);
    prompt_set_free(&a);
    refuses(name, 3, "make the set again"); /* of the old seed */
  }
}

static void test_make__lines_are_distinct_and_answered(void **state) {
  (void)state;
  static const int lengths[] = {500, 0};
  prompt_set s;
  root_here();
  make("longeval/lines", 3, lengths, 6);
  load_ok("longeval/lines", TASK_TEST, 500, &s);
  for (int64_t i = 0; i < s.count; i++) {
    char *names[500], *copy = strdup(s.item[i].text), *save = NULL;
    int n = 0;
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
      if (!strncmp(line, "line ", 5)) {
        assert_true(n < 500);
        line[5 + strcspn(line + 5, ":")] = 0;
        for (int k = 0; k < n; k++) assert_string_not_equal(names[k], line + 5);
        names[n++] = line + 5;
      }
    assert_int_equal(n, 500);
    free(copy);
  }
  prompt_set_free(&s);
}

static void test_make__interrupted_or_over_official_files(void **state) {
  (void)state;
  static const int lengths[] = {2, 0}, many[] = {99999999, 0};
  static const volatile sig_atomic_t stop = 1;
  ice_err e = {0};
  task_make_options o = {.seed = 1, .out = scratch_folder(), .examples = 2, .lengths = lengths, .stop = &stop};
  root_here();
  assert_int_equal(named("longeval/lines")->make(&o, &e), ICE_INTERNAL);
  put("longeval/evaluation/lines/testcases", "2_lines.jsonl", LINE_CASE("17"));
  refuses("longeval/lines", 2, "interrupted");
  o.stop = NULL;
  assert_int_equal(named("longeval/lines")->make(&o, &e), ICE_OK);
  o.lengths = many;
  assert_int_equal(named("longeval/lines")->make(&o, &e), ICE_USAGE);
  o.lengths = lengths;
  put("longeval/evaluation/topics/testcases", "2_topics.jsonl", "official");
  assert_int_equal(named("longeval/topics")->make(&o, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "official files"));
}

static void test_make__pool_of_upstream(void **state) {
  (void)state;
  static const int lengths[] = {2, 0}, many[] = {3, 0};
  ice_err e = {0};
  prompt_set s;
  put("pool", "c.jsonl", "{\"topic_id\": 1, \"topic\": \"The sea\", \"conversation\": \"USER: topic of the sea. \"}\n"
                         "{\"topic_id\": 2, \"topic\": \"The sky\", \"conversation\": \"USER: topic of the sky. \"}\n");
  task_make_options o = {.seed = 1, .out = scratch_folder(), .examples = 8, .lengths = lengths, .pool = scratch_path("pool/c.jsonl")};
  root_here();
  if (named("longeval/topics")->make(&o, &e) != ICE_OK) fail_msg("%s", e.text);
  load_ok("longeval/topics", TASK_TEST, 2, &s);
  int sea = 0;
  for (int64_t i = 0; i < s.count; i++) sea += !strcmp(s.item[i].reference[0], "The sea");
  assert_true(sea > 0 && sea < 8);
  prompt_set_free(&s);
  o.lengths = many;
  assert_int_equal(named("longeval/topics")->make(&o, &e), ICE_USAGE);
  put("pool", "d.jsonl", "{\"topic\": \"The sea\"}\n");
  o.lengths = lengths, o.pool = scratch_path("pool/d.jsonl");
  assert_int_equal(named("longeval/topics")->make(&o, &e), ICE_DATA);
}

/* --- ZeroSCROLLS ------------------------------------------------------------------------------------------------------ */

/* Positions count code points: "é" and the smiley (a surrogate pair in the file) are one each. */
#define INPUT "Answer. \\n\\nStory:\\n\\u00e9\\ud83d\\ude00 long ago\\n\\nQuestion:\\nWho?\\n\\nAnswer:\\n"
/*             0                 10          17                         30                       45     */
#define ROW(id, output, more)                                                                                                          \
  "{\"id\": \"" id "\", \"pid\": \"p\", \"input\": \"" INPUT "\", \"output\": " output ", \"document_start_index\": 17, "               \
  "\"document_end_index\": 28, \"query_start_index\": 30, \"query_end_index\": 44, \"truncation_seperator\": \"... [cut]\\n\\n\"" more "}\n"

static void test_rows__code_points_and_several_answers(void **state) {
  (void)state;
  prompt_set s;
  root_here();
  put("zeroscrolls", "qasper.jsonl", ROW("a", "\"Ann\"", "") ROW("b", "null", "") ROW("a", "\"Mary Ann\"", "") ROW("c", "\"x\"", ", \"outputs\": [\"x\", \"y\"]"));
  load_ok("zeroscrolls/qasper", TASK_TEST, 0, &s);
  assert_int_equal(s.count, 3);
  assert_string_equal(s.note, "not the official rows");
  assert_int_equal(s.item[0].references, 2);
  assert_string_equal(s.item[0].reference[1], "Mary Ann");
  assert_int_equal(s.item[1].references, 0);
  assert_int_equal(s.item[2].references, 2);
  assert_memory_equal(s.item[0].text + s.item[0].query, "Question:\nWho?\n", 15);
  assert_string_equal(s.item[0].text + s.item[0].end, "\n\nAnswer:\n");
  prompt_set_free(&s);
}

static void test_rows__bad__say_what_and_where(void **state) {
  (void)state;
  static const struct {
    const char *text, *why;
  } bad[] = {{"", "holds no rows"},
             {ROW("", "null", ""), "field 'id' is empty"},
             {ROW("a", "5", ""), "field 'output' = 5, allowed a string or null"},
             {ROW("a", "null", ", \"outputs\": [1]"), "allowed a list of zero or more strings"},
             {"{\"id\": \"a\", \"input\": \"x\"}", "truncation_seperator"},
             {"{\"id\": \"a\", \"input\": \"xy\", \"truncation_seperator\": \"\", \"document_start_index\": 0, \"document_end_index\": 3}", "behind the end of the input"},
             {"{\"id\": \"a\", \"input\": \"xy\", \"truncation_seperator\": \"\", \"document_start_index\": 1, \"document_end_index\": 0}", "lies before"},
             {"{\"id\": \"a\", \"input\": \"xy\", \"truncation_seperator\": \"\", \"document_start_index\": 4294967296}", "allowed whole numbers"},
             {"{\"id\": \"a\", \"input\": \"xy\", \"truncation_seperator\": \"\", \"document_start_index\": true}", "allowed whole numbers"},
             {ROW("a", "null", "") "{\"id\": \"a\", \"input\": \"other\"}", "stands before with another input"}};
  root_here();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    put("zeroscrolls", "qasper.jsonl", bad[i].text);
    refuses("zeroscrolls/qasper", 0, bad[i].why);
  }
}

static void test_release__zip_and_folder(void **state) {
  (void)state;
  prompt_set s;
  const char *test = ROW("t", "null", "") ROW("u", "null", ""), *dev = ROW("v", "\"Ann\"", "");
  const pack_member flat[] = {{"test.jsonl", test, strlen(test), 'f'}, {"validation.jsonl", dev, strlen(dev), 'f'}, {0}};
  const pack_member nested[] = {{"qasper/test.jsonl", test, strlen(test), 'f'}, {"qasper/validation.jsonl", dev, strlen(dev), 'f'}, {0}};
  for (int i = 0; i < 2; i++) { /* roots of their own: the members of an archive are listed once */
    put(i ? "b/zeroscrolls" : "a/zeroscrolls", "other", "");
    pack_write(scratch_path(i ? "b/zeroscrolls/qasper.zip" : "a/zeroscrolls/qasper.zip"), "zip", i ? nested : flat);
    assert_int_equal(setenv("ICEBENCH_DATA_DIR", scratch_path(i ? "b" : "a"), 1), 0);
    load_ok("zeroscrolls/qasper", TASK_TEST, 0, &s);
    assert_true(s.count == 2 && s.official && !s.note);
    prompt_set_free(&s);
    load_ok("zeroscrolls/qasper", TASK_DEV, 0, &s);
    assert_true(s.count == 1 && !strcmp(s.item[0].reference[0], "Ann"));
    prompt_set_free(&s);
  }
  root_here();
  put("zeroscrolls/qasper", "test.jsonl", test);
  load_ok("zeroscrolls/qasper", TASK_TEST, 0, &s);
  assert_true(s.official);
  prompt_set_free(&s);
}

/* --- templates, truncation, answers ----------------------------------------------------------------------------------- */

static void test_wrap__plain_chat_and_brief(void **state) {
  (void)state;
  prompt_set s;
  root_here();
  put("zeroscrolls", "qasper.jsonl", ROW("a", "null", ""));
  load_ok("zeroscrolls/qasper", TASK_TEST, 0, &s);
  const prompt *p = s.item;
  char *plain = wrapped(p, 1, PROMPT_PLAIN), *chat = wrapped(p, 0, PROMPT_VICUNA), *brief = wrapped(p, 1, PROMPT_VICUNA);
  assert_string_equal(plain, p->text);
  assert_int_equal(crc(chat, 154), 0xbbc71ee0);
  assert_string_equal(chat + 154, " USER: Answer. \n\nStory:\n\xc3\xa9\xf0\x9f\x98\x80 long ago\n\nQuestion:\nWho? ASSISTANT:");
  assert_string_equal(brief + 154, " USER: Answer. Do not provide any explanation. \n\nStory:\n\xc3\xa9\xf0\x9f\x98\x80 long ago\n\nQuestion:\nWho? ASSISTANT:");
  prompt_wrapped w;
  assert_int_equal(prompt_wrap(p, 1, PROMPT_VICUNA, &w, NULL), ICE_OK);
  assert_memory_equal(w.text + w.query, "Question:\nWho? ASSISTANT:", 26);
  free(w.text), free(plain), free(chat), free(brief);
  prompt_set_free(&s);
}

/* A tokenizer of bytes: id 1000 begins, and the first byte of every text counts twice, as a dummy prefix might. */
static int byte_ids(void *ctx, const char *text, size_t n, int begin, int32_t **ids, int64_t *count, ice_err *e) {
  (void)e, (void)ctx;
  int32_t *p = malloc((n + 2) * sizeof *p);
  *count = 0;
  if (begin) p[(*count)++] = 1000;
  for (size_t i = 0; i < n; i++) p[(*count)++] = (unsigned char)text[i];
  *ids = p;
  return ICE_OK;
}

static void test_ids__limit__context_loses_its_end(void **state) {
  (void)state;
  prompt p = {.id = "x", .text = "0123456789Q?A:", .query = 10, .end = 12, .separator = "[..]"};
  prompt_wrapped w = {.text = p.text, .query = 10};
  int32_t *ids;
  int64_t n, cut;
  ice_err e = {0};
  assert_int_equal(prompt_ids(&p, &w, 15, byte_ids, NULL, &ids, &n, &cut, &e), ICE_OK); /* BOS and 14 bytes: fits */
  assert_true(n == 15 && cut == 0 && ids[0] == 1000 && ids[14] == ':');
  free(ids);
  assert_int_equal(prompt_ids(&p, &w, 14, byte_ids, NULL, &ids, &n, &cut, &e), ICE_OK);
  /* the rest takes 8 ("[..]Q?A:"), so 6 of the head stay: BOS 0 1 2 3 4 */
  assert_true(n == 14 && cut == 5 && ids[0] == 1000 && ids[5] == '4' && ids[6] == '[' && ids[13] == ':');
  for (int64_t i = 1; i < n; i++) assert_int_not_equal(ids[i], 1000); /* one beginning only */
  free(ids);
  assert_int_equal(prompt_ids(&p, &w, 8, byte_ids, NULL, &ids, &n, &cut, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "question alone has 8 tokens"));
  w.query = 0;
  assert_int_equal(prompt_ids(&p, &w, 14, byte_ids, NULL, &ids, &n, &cut, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "has 15 tokens, room is for 14"));
  assert_null(ids);
}

static void test_tidy__spaces_and_tags(void **state) {
  (void)state;
  prompt p = {.text = "Q\n\nSummary IDs in Correct Order:\n", .end = 1};
  static const struct {
    const char *answer, *want;
  } t[] = {{" \n 1, 2 \n", "1, 2"}, {"", ""}, {"<summary_ids_in_correct_order>1, 2</summary_ids_in_correct_order> and so on", "1, 2"},
           {"1, 2</summary_ids_in_correct_order>x", "1, 2"}, {"<other>1</other>", "<other>1</other>"}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    char text[200];
    (void)snprintf(text, sizeof text, "%s", t[i].answer);
    prompt_tidy(&p, text);
    assert_string_equal(text, t[i].want);
  }
}

/* --- the real files --------------------------------------------------------------------------------------------------- */

static void use_real_data(const char *need) {
  char path[4096];
  (void)snprintf(path, sizeof path, "%s/%s", real_data ? real_data : "", need);
  if (!real_data || access(path, R_OK)) {
    print_message("SKIP no %s below $ICEBENCH_DATA_DIR\n", need);
    skip();
  }
  assert_int_equal(setenv("ICEBENCH_DATA_DIR", real_data, 1), 0);
}

static void test_real__case_0_of_200_lines(void **state) {
  (void)state;
  prompt_set s;
  use_real_data("longeval/lines/200_lines.jsonl.gz");
  load_ok("longeval/lines", TASK_TEST, 200, &s);
  assert_int_equal(s.count, 50);
  char *text = wrapped(s.item, 0, PROMPT_VICUNA);
  assert_int_equal(strlen(text), 10627);
  assert_int_equal(crc(text, 10627), 0x35b7e7bb);
  assert_int_equal(crc(text + 154 + 7, 380), 0xf4078287);
  free(text);
  prompt_set_free(&s);
}

static void test_real__every_length_is_sane(void **state) {
  (void)state;
  use_real_data("longeval/topics/5_topics.jsonl.gz");
  static const struct {
    const char *task;
    int length[12];
  } part[] = {{"longeval/lines", {300, 400, 600, 680, 700, 800, 1000, 1350, 0}}, {"longeval/topics", {1, 5, 10, 20, 25, 30, 0}}};
  for (int i = 0; i < 2; i++)
    for (const int *n = part[i].length; *n; n++) {
      prompt_set s;
      load_ok(part[i].task, TASK_TEST, *n, &s);
      assert_int_equal(s.count, 50);
      assert_true(s.official);
      prompt_set_free(&s);
    }
}

/* Every row's question is where its indices say, though most texts have characters of several bytes. */
static void test_real__zeroscrolls_rows(void **state) {
  (void)state;
  use_real_data("zeroscrolls/qasper.jsonl.gz");
  static const struct {
    const char *task, *question, *header;
    int rows;
  } part[] = {{"zeroscrolls/gov_report", "", "Summary:\n", 13},      {"zeroscrolls/summ_screen_fd", "", "Summary:\n", 13},
              {"zeroscrolls/qmsum", "Query:\n", "Answer:\n", 50},     {"zeroscrolls/squality", "Question:\n", "Answer:\n", 50},
              {"zeroscrolls/qasper", "Question:\n", "Answer:\n", 50}, {"zeroscrolls/narrative_qa", "Question:\n", "Answer:\n", 42},
              {"zeroscrolls/quality", "Question and Possible Answers:\n", "Answer:\n", 50},
              {"zeroscrolls/musique", "Question:\n", "Answer:\n", 50},
              {"zeroscrolls/space_digest", "", "Percentage of Positive Reviews:\n", 20},
              {"zeroscrolls/space_digest_imdb", "", "Percentage of Positive Reviews:\n", 50},
              {"zeroscrolls/book_sum_sort", "", "Summary IDs in Correct Order:\n", 24}};
  for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
    prompt_set s;
    load_ok(part[i].task, TASK_TEST, 0, &s);
    assert_int_equal(s.count, part[i].rows);
    for (const prompt *p = s.item; p < s.item + s.count; p++) {
      assert_memory_equal(p->text + p->query, part[i].question, strlen(part[i].question));
      assert_memory_equal(p->text + p->query - 2, "\n\n", 2);
      assert_string_equal(p->text + p->end + (*part[i].question ? 2 : 0), part[i].header);
      double best[ANSWER_PARTS]; /* a right answer has full marks */
      for (int k = 0; k < p->references; k++) {
        assert_true(answer_score(named(part[i].task)->prompts->mark, p->reference[k], (const char *const *)p->reference, p->references, best));
        assert_true(best[0] > 0.9999);
      }
    }
    prompt_set_free(&s);
  }
}

static void test_say__the_message_between_user_and_assistant(void **state) {
  (void)state;
  char *first, *later;
  assert_int_equal(prompt_say("What is left?\n\nNothing. ", 1, &first, NULL), ICE_OK);
  assert_int_equal(prompt_say("What is left?\n\nNothing. ", 0, &later, NULL), ICE_OK);
  assert_string_equal(later, "USER: What is left?\n\nNothing.  ASSISTANT:");
  assert_true(!strncmp(first, "A chat between", 14) && strlen(first) > strlen(later));
  assert_string_equal(first + strlen(first) - strlen(later) - 1, " USER: What is left?\n\nNothing.  ASSISTANT:");
  free(first), free(later);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_lines__both_layouts_and_fields),
      TEST(test_lines__bad_files__say_what_and_where),
      TEST(test_topics__label_and_faults),
      TEST(test_make__frames_are_the_published_ones),
      TEST(test_make__loads_again_and_depends_on_the_seed_alone),
      TEST(test_make__lines_are_distinct_and_answered),
      TEST(test_make__interrupted_or_over_official_files),
      TEST(test_make__pool_of_upstream),
      TEST(test_rows__code_points_and_several_answers),
      TEST(test_rows__bad__say_what_and_where),
      TEST(test_release__zip_and_folder),
      TEST(test_wrap__plain_chat_and_brief),
      TEST(test_say__the_message_between_user_and_assistant),
      TEST(test_ids__limit__context_loses_its_end),
      TEST(test_tidy__spaces_and_tags),
      TEST(test_real__case_0_of_200_lines),
      TEST(test_real__every_length_is_sane),
      TEST(test_real__zeroscrolls_rows),
  };
  const char *given = getenv("ICEBENCH_DATA_DIR");
  char *copy = given && *given && !strchr(given, ':') ? realpath(given, NULL) : NULL;
  real_data = copy;
  const int rc = cmocka_run_group_tests(tests, NULL, NULL);
  free(copy);
  return rc;
}
