/* test_tokenizer.c - the published vectors of the Llama 2 vocabulary, the token counts of LongEval, SentencePiece's own
 * program as oracle; rules of BPE on small vocabularies; damaged files. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "datasets/source.h"
#include "models/tokenizer.h"
#include "models/vocabulary.h"
#include "tests/support/real.h"
#include "tests/support/scratch.h"

static tokenizer *open_tokenizer(const char *path) {
  tokenizer *t;
  ice_err e = {0};
  if (tokenizer_open(&t, path, &e) != ICE_OK) fail_msg("%s", e.text);
  return t;
}
static tokenizer *llama2(void) { return open_tokenizer(real_file("llama/ggml-vocab-llama-spm.gguf")); }

/* Encodes text and compares with ids, written as numbers with spaces. */
static int same_ids(const tokenizer *t, const char *text, size_t n, const char *want) {
  int32_t *ids;
  int64_t count;
  ice_err e = {0};
  assert_int_equal(tokenizer_encode(t, text, n, 0, &ids, &count, &e), ICE_OK);
  int same = 1;
  for (int64_t i = 0; i < count; i++) {
    char *end;
    const long id = strtol(want, &end, 10);
    same &= end != want && id == ids[i];
    want = end;
  }
  same &= want[strspn(want, " \n")] == '\0';
  free(ids);
  return same;
}
static void assert_ids(const tokenizer *t, const char *text, const char *want) {
  if (!same_ids(t, text, strlen(text), want)) fail_msg("'%s' is not %s", text, want);
}

/* --- the vocabulary of Llama 2 -------------------------------------------------------------------------------------- */

static void test_llama2__published_vectors__equal_ids(void **state) {
  (void)state;
  static const char separator[] = "\n__ggml_vocab_test__\n";
  source in, out;
  ice_err e = {0};
  tokenizer *t = llama2();
  assert_int_equal(source_open(real_file("llama/ggml-vocab-llama-spm.gguf.inp"), 1 << 20, &in, &e), ICE_OK);
  assert_int_equal(source_open(real_file("llama/ggml-vocab-llama-spm.gguf.out"), 1 << 20, &out, &e), ICE_OK);
  char *texts = strndup((const char *)in.p, in.n), *lines = strndup((const char *)out.p, out.n), *line = lines;
  int vectors = 0;
  for (char *text = texts; text && *line; vectors++) { /* a separator closes the last text, too */
    char *end = strstr(text, separator), *newline = strchr(line, '\n');
    const size_t n = end ? (size_t)(end - text) : strlen(text);
    assert_non_null(newline);
    *newline = '\0';
    if (!same_ids(t, text, n, line)) fail_msg("vector %d: '%.*s'", vectors, (int)n, text);
    text = end ? end + sizeof separator - 1 : NULL;
    line = newline + 1;
  }
  assert_int_equal(vectors, 46);
  free(texts);
  free(lines);
  source_close(&in);
  source_close(&out);
  tokenizer_close(t);
}

static int64_t count_wrapped(const tokenizer *t, const char *prompt) {
  static const char head[] = "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
                             "helpful, detailed, and polite answers to the user's questions. USER: ";
  char *text = malloc(sizeof head + strlen(prompt) + 16);
  int32_t *ids;
  int64_t count;
  ice_err e = {0};
  assert_non_null(text);
  (void)sprintf(text, "%s%s ASSISTANT:", head, prompt);
  assert_int_equal(tokenizer_encode(t, text, strlen(text), 1, &ids, &count, &e), ICE_OK);
  assert_int_equal(ids[0], 1);
  free(ids);
  free(text);
  return count;
}

static void test_llama2__longeval_lines__token_size_of_every_case(void **state) {
  (void)state;
  tokenizer *t = llama2();
  int cases = 0;
  for (int lines = 200; lines <= 680; lines += lines == 600 ? 80 : 100) {
    char name[64];
    source s;
    ice_err e = {0};
    if (lines == 500) continue; /* not among the sets */
    (void)snprintf(name, sizeof name, "longeval/lines/%d_lines.jsonl.gz", lines);
    if (source_open(real_file(name), 1 << 28, &s, &e) != ICE_OK) fail_msg("%s", e.text);
    const char *at = (const char *)s.p, *end = at + s.n;
    for (const char *newline; at < end; at = newline + 1, cases++) {
      newline = memchr(at, '\n', (size_t)(end - at));
      if (!newline) newline = end;
      json_t *row = json_loadb(at, (size_t)(newline - at), 0, NULL);
      assert_non_null(row);
      const json_int_t want = json_integer_value(json_object_get(row, "token_size"));
      const int64_t have = count_wrapped(t, json_string_value(json_object_get(row, "prompt")));
      if (have != want) fail_msg("%s, case %d: %lld tokens, expected %lld", name, cases, (long long)have, (long long)want);
      json_decref(row);
    }
    source_close(&s);
  }
  assert_int_equal(cases, 250);
  tokenizer_close(t);
}

static void assert_round_trip(const tokenizer *t, const char *text, const char *want) {
  int32_t *ids;
  int64_t count;
  char *back;
  size_t n;
  ice_err e = {0};
  assert_int_equal(tokenizer_encode(t, text, strlen(text), 1, &ids, &count, &e), ICE_OK);
  assert_int_equal(tokenizer_decode(t, ids, count, &back, &n, &e), ICE_OK);
  assert_string_equal(back, want);
  assert_int_equal(n, strlen(want));
  free(ids);
  free(back);
}

static void test_llama2__decode__gives_the_text_back(void **state) {
  (void)state;
  tokenizer *t = llama2();
  assert_round_trip(t, "", "");
  assert_round_trip(t, "Hello world", "Hello world");
  assert_round_trip(t, "  two spaces,\n\ttab, 1234 </s>", "  two spaces,\n\ttab, 1234 </s>");
  assert_round_trip(t, "\xf0\x9f\xa6\x99 \xe4\xbd\xa0\xe5\xa5\xbd \xcc\x81", "\xf0\x9f\xa6\x99 \xe4\xbd\xa0\xe5\xa5\xbd \xcc\x81");
  /* no UTF-8: a stray byte, a surrogate, too long a form, an end cut off */
  assert_round_trip(t, "a\xff" "b", "a\xef\xbf\xbd" "b");
  assert_round_trip(t, "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  assert_round_trip(t, "\xc0\x80|\xe2\x96", "\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd");
  char *back;
  size_t n;
  ice_err e = {0};
  const int32_t half[] = {1, 3 + 0xe2, 3 + 0x96, 2, 15043}; /* a character cut off, then " Hello" behind a control piece */
  assert_int_equal(tokenizer_decode(t, half, 5, &back, &n, &e), ICE_OK);
  assert_string_equal(back, "\xef\xbf\xbd\xef\xbf\xbd Hello");
  free(back);
  const int32_t wild[] = {1, 32000}, negative[] = {-1};
  assert_int_equal(tokenizer_decode(t, wild, 2, &back, &n, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "32000"));
  assert_int_equal(tokenizer_decode(t, negative, 1, &back, &n, &e), ICE_DATA);
  tokenizer_close(t);
}

/* --- SentencePiece's own program ------------------------------------------------------------------------------------- */

static void need_sentencepiece(void) {
  if (system("command -v spm_encode >/dev/null 2>&1 && command -v spm_train >/dev/null 2>&1") == 0) return;
  print_message("SKIP spm_encode is not installed (apt-get install sentencepiece)\n");
  skip();
}

/* Every line of a file, by spm_encode and by us. */
static void compare_with_sentencepiece(const tokenizer *t, const char *model, const char *texts) {
  char command[3 * FILE_PATH], *line = NULL, *ids = NULL;
  size_t a = 0, b = 0;
  ssize_t n;
  int lines = 0;
  (void)snprintf(command, sizeof command, "spm_encode --model=%s --output_format=id <%s 2>/dev/null", model, texts);
  FILE *oracle = popen(command, "r"), *in = fopen(texts, "r");
  assert_true(oracle && in);
  for (; (n = getline(&line, &a, in)) > 0; lines++) {
    if (line[n - 1] == '\n') n--;
    line[n] = '\0';
    if (getline(&ids, &b, oracle) < 0) fail_msg("spm_encode has no line %d", lines + 1);
    if (!same_ids(t, line, (size_t)n, ids)) fail_msg("line %d: '%.200s' is %.200s", lines + 1, line, ids);
  }
  assert_true(lines > 0);
  assert_int_equal(pclose(oracle), 0);
  (void)fclose(in);
  free(line);
  free(ids);
}

static const char *hard_lines =
    "Hello world\n\n one space\n  two  and   three   \ntab\there\nna\xc3\xafve \xe2\x96\x81lower \xf0\x9f\x98\x80\xf0\x9f\x98\x80\n"
    "3 33 333 3333 <0x41> <s> </s> <unk>\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
    "a\xff\xfe b \xed\xa0\x80 \xc0\x80 \xf8\x88\x80\x80\x80 \xe2\x96\n\xef\xbb\xbf" "bom\nthe end of the <sep> text<sep>s\n";

/* What was written as a tokenizer.model gives the ids that the program gives, and reads back the same. */
static void compare_real(const char *path, const char *texts) {
  ice_err e = {0};
  tokenizer *t = open_tokenizer(path);
  assert_int_equal(vocabulary_write_model(tokenizer_vocabulary(t), scratch_path("m"), &e), ICE_OK);
  compare_with_sentencepiece(t, scratch_path("m"), texts);
  tokenizer_close(t);
  t = open_tokenizer(scratch_path("m"));
  compare_with_sentencepiece(t, scratch_path("m"), scratch_write("hard", hard_lines, strlen(hard_lines)));
  tokenizer_close(t);
}

/* Of each file 64 KiB, or all of it: $ICEBENCH_TEST_TEXTS=all, which takes minutes. */
static void test_real_vocabularies__spm_encode_on_all_text__equal_ids(void **state) {
  (void)state;
  static const char ours[] = "models/checkpoints/icelm/tokenizer.model";
  const char *which = getenv("ICEBENCH_TEST_TEXTS");
  const int all = which && !strcmp(which, "all");
  need_sentencepiece();
  FILE *f = fopen(scratch_path("texts"), "w");
  assert_non_null(f);
  (void)fputs(hard_lines, f);
  print_message("%zu bytes of text\n", real_texts(f, all ? 0 : 64 << 10));
  assert_int_equal(fclose(f), 0);
  compare_real(real_file("llama/ggml-vocab-llama-spm.gguf"), scratch_path("texts"));
  compare_real(real_file("llama/stories260K.f32.gguf"), scratch_path("texts"));
  if (access(ours, R_OK) == 0) compare_real(ours, scratch_path("texts"));
}

static void test_trained_here__spm_encode__equal_ids(void **state) {
  (void)state;
  need_sentencepiece();
  static const char *const options[] = {
      "--byte_fallback --remove_extra_whitespaces=false", "--remove_extra_whitespaces=true",
      "--byte_fallback --add_dummy_prefix=false --user_defined_symbols='<sep>,333,aa'", "--character_coverage=0.98 --split_digits=true"};
  char command[4 * FILE_PATH];
  (void)scratch_write("texts", hard_lines, strlen(hard_lines));
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    (void)snprintf(command, sizeof command,
                   "spm_train --input=README.md,DESIGN.md --model_type=bpe --vocab_size=600 --normalization_rule_name=identity "
                   "--num_threads=1 --model_prefix=%s %s >/dev/null 2>&1",
                   scratch_path("m"), options[i]);
    if (system(command) != 0) fail_msg("%s", command);
    tokenizer *t = open_tokenizer(scratch_path("m.model"));
    compare_with_sentencepiece(t, scratch_path("m.model"), scratch_path("texts"));
    compare_with_sentencepiece(t, scratch_path("m.model"), "README.md");
    tokenizer_close(t);
  }
}

/* --- small vocabularies ---------------------------------------------------------------------------------------------- */

typedef struct entry {
  const char *text;
  float score;
  int type;
} entry;

static int make(tokenizer **t, const entry *list, int bytes, ice_err *e) {
  vocabulary v = vocabulary_empty();
  v.dummy_prefix = v.trim = 0;
  for (; list->text; list++) assert_int_equal(vocabulary_add(&v, "x", list->text, strlen(list->text), list->score, list->type, e), ICE_OK);
  for (int b = 0; b < bytes; b++) {
    char name[8];
    (void)snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
    assert_int_equal(vocabulary_add(&v, "x", name, 6, 0.0f, TOKENIZER_BYTE, e), ICE_OK);
  }
  v.byte_fallback = bytes > 0;
  return tokenizer_create(t, &v, "x", e);
}

static void test_bpe__order_of_merges__score_then_left(void **state) {
  (void)state;
  tokenizer *t;
  ice_err e = {0};
  const entry list[] = {{"<unk>", 0, 2}, {"a", -9, 1}, {"b", -9, 1}, {"aa", -1, 1}, {"ab", -2, 1}, {"aaa", -3, 1}, {0}};
  assert_int_equal(make(&t, list, 0, &e), ICE_OK);
  assert_ids(t, "aaaa", "3 3");  /* the leftmost pair first; aaa would need an aa and an a */
  assert_ids(t, "aaab", "3 4"); /* aa, then the left ab of equal parts */
  assert_ids(t, "aaa", "5");
  assert_ids(t, "bax", "2 1 0");
  assert_ids(t, "xxaxyz", "0 1 0"); /* one for a run of unknown ones */
  assert_ids(t, "", "");
  tokenizer_close(t);
}

static void test_bpe__unused_piece__falls_apart_again(void **state) {
  (void)state;
  tokenizer *t;
  ice_err e = {0};
  const entry list[] = {{"<unk>", 0, 2}, {"a", -9, 1}, {"b", -9, 1}, {"c", -9, 1}, {"ab", -1, 5}, {"abc", -2, 1}, {"bb", -3, 5}, {0}};
  assert_int_equal(make(&t, list, 0, &e), ICE_OK);
  assert_ids(t, "ab", "1 2");
  assert_ids(t, "abc", "5"); /* on the way it may be used */
  assert_ids(t, "bbb", "2 2 2");
  tokenizer_close(t);
}

static void test_bpe__byte_fallback__bytes_of_what_is_no_piece(void **state) {
  (void)state;
  tokenizer *t;
  ice_err e = {0};
  const entry list[] = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}, {"a", -1, 1}, {0}};
  assert_int_equal(make(&t, list, 256, &e), ICE_OK);
  assert_int_equal(tokenizer_bos(t), 1);
  assert_int_equal(tokenizer_eos(t), 2);
  assert_ids(t, "a\n", "3 14");
  assert_ids(t, "\xc3\xa9", "199 173");
  assert_ids(t, "<s>", "64 119 66");
  assert_int_equal(tokenizer_vocab(t), 260);
  tokenizer_close(t);
}

static void test_create__what_cannot_work__refused(void **state) {
  (void)state;
  tokenizer *t;
  ice_err e = {0};
  const entry twice[] = {{"<unk>", 0, 2}, {"a", -1, 1}, {"a", -2, 1}, {0}}, none[] = {{0}}, control[] = {{"<s>", 0, 3}, {0}};
  assert_int_equal(make(&t, twice, 0, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "twice"));
  assert_int_equal(make(&t, control, 255, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "<0xFF> is missing"));
  assert_int_equal(make(&t, none, 0, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "empty"));
  vocabulary v = vocabulary_empty();
  assert_int_equal(vocabulary_add(&v, "x", "", 0, 0, 1, &e), ICE_DATA);
  assert_int_equal(vocabulary_add(&v, "x", "a", 1, NAN, 1, &e), ICE_DATA);
  assert_int_equal(vocabulary_add(&v, "x", "a", 1, 0, 7, &e), ICE_DATA);
  assert_int_equal(vocabulary_add(&v, "x", "<0xZZ>", 6, 0, TOKENIZER_BYTE, &e), ICE_OK);
  assert_int_equal(tokenizer_create(&t, &v, "x", &e), ICE_DATA);
  assert_non_null(strstr(e.text, "<0x0A>"));
}

/* --- damaged files --------------------------------------------------------------------------------------------------- */

static void refused(const void *bytes, size_t n, const char *word) {
  tokenizer *t = NULL;
  ice_err e = {0};
  uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees one byte too far */
  assert_non_null(exact);
  memcpy(exact, bytes, n);
  assert_int_equal(tokenizer_parse(&t, exact, n, "x.model", &e), ICE_DATA);
  free(exact);
  assert_null(t);
  if (!strstr(e.text, word) || !strstr(e.text, "x.model")) fail_msg("'%s' does not say '%s'", e.text, word);
}

static void test_parse__damaged_models__refused(void **state) {
  (void)state;
  refused("", 0, "trainer_spec");
  refused("\x0a\x05", 2, "damaged");                           /* a piece of 5 bytes, none there */
  refused("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11, "damaged"); /* a length beyond 64 bits */
  refused("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "damaged"); /* 2^64 - 1 bytes */
  refused("\x0b", 1, "damaged");                               /* a group */
  refused("\x12\x02\x18\x01", 4, "BPE");                       /* unigram */
  refused("\x12\x05\x18\x02\xc0\x01\x01", 7, "suffix");
  refused("\x12\x02\x18\x02", 4, "empty");
  refused("\x0a\x02\x18\x09\x12\x02\x18\x02", 8, "0 bytes");   /* a piece without text */
  refused("\x0a\x05\x0a\x01" "a\x18\x09\x12\x02\x18\x02", 11, "type 7");
  refused("\x12\x02\x18\x02\x1a\x03\x12\x01x", 9, "normalises");
}

static void test_parse__every_truncation__no_wild_read(void **state) {
  (void)state;
  vocabulary v = vocabulary_empty();
  ice_err e = {0};
  static const char *const text[] = {"<unk>", "<s>", "a", "ab"};
  for (int i = 0; i < 4; i++) assert_int_equal(vocabulary_add(&v, "x", text[i], strlen(text[i]), (float)-i, i ? 1 : 2, &e), ICE_OK);
  assert_int_equal(vocabulary_write_model(&v, scratch_path("m"), &e), ICE_OK);
  vocabulary_free(&v);
  file_map map;
  assert_int_equal(file_open_map(scratch_path("m"), 1 << 20, &map, &e), ICE_OK);
  int fine = 0;
  for (size_t n = 0; n <= map.n; n++) {
    uint8_t *exact = malloc(n ? n : 1);
    tokenizer *t;
    assert_non_null(exact);
    memcpy(exact, map.p, n);
    if (tokenizer_parse(&t, exact, n, "x", &e) == ICE_OK) tokenizer_close(t), fine++;
    free(exact);
  }
  assert_int_equal(fine, 2); /* whole, and cut before the normaliser, whose fields have defaults */
  file_close_map(&map);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_llama2__published_vectors__equal_ids),
      TEST(test_llama2__longeval_lines__token_size_of_every_case),
      TEST(test_llama2__decode__gives_the_text_back),
      TEST(test_real_vocabularies__spm_encode_on_all_text__equal_ids),
      TEST(test_trained_here__spm_encode__equal_ids),
      TEST(test_bpe__order_of_merges__score_then_left),
      TEST(test_bpe__unused_piece__falls_apart_again),
      TEST(test_bpe__byte_fallback__bytes_of_what_is_no_piece),
      TEST(test_create__what_cannot_work__refused),
      TEST(test_parse__damaged_models__refused),
      TEST(test_parse__every_truncation__no_wild_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
