/* test_lra_tasks.c - Text, Retrieval (and its stand-in) and Image: miniature files in every layout, faults, the real sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "datasets/imdb.h"
#include "datasets/lra_image.h"
#include "datasets/lra_retrieval.h"
#include "kernels/core/fileio.h"
#include "tests/support/pack.h"
#include "tests/support/scratch.h"

static void put(const char *path, const void *p, size_t n) {
  char folder[256];
  ice_err e = {0};
  (void)snprintf(folder, sizeof folder, "%s", path);
  *strrchr(folder, '/') = 0;
  if (file_make_dirs(scratch_path(folder), &e) != ICE_OK) fail_msg("%s", e.text);
  (void)scratch_write(path, p, n);
}
static int load(const char *name, const char *root, task_split split, task_data *d, ice_err *e) {
  int absent;
  *d = (task_data){0};
  return task_find(name, NULL)->load(scratch_path(root), split, d, &absent, e);
}
static void load_ok(const char *name, const char *root, task_split split, task_data *d) {
  ice_err e = {0};
  if (load(name, root, split, d, &e) != ICE_OK) fail_msg("%s %s: %s", name, root, e.text);
}
static void refused(const char *name, const char *root, task_split split, const char *word) {
  task_data d;
  ice_err e = {0};
  if (load(name, root, split, &d, &e) != ICE_DATA) fail_msg("%s was accepted, or another code: %s", word, e.text);
  if (!strstr(e.text, word) || strchr(e.text, '\n')) fail_msg("\"%s\" does not say \"%s\"", e.text, word);
  assert_null(d.tokens);
}
static void same(const task_data *a, const task_data *b) {
  assert_true(a->count == b->count && a->hash == b->hash);
  const int64_t n = a->count * a->inputs;
  assert_memory_equal(a->start, b->start, (size_t)(n + 1) * sizeof *a->start);
  assert_memory_equal(a->tokens, b->tokens, (size_t)a->start[n] * sizeof *a->tokens);
  assert_memory_equal(a->label, b->label, (size_t)a->count * sizeof *a->label);
}
static void text_is(const task_data *d, int64_t e, int i, const void *bytes, size_t n) {
  assert_int_equal(task_len(d, e, i), n);
  for (size_t k = 0; k < n; k++) assert_int_equal(task_ids(d, e, i)[k], ((const uint8_t *)bytes)[k] + 1);
}

/* --- Text ----------------------------------------------------------------------------------------------------------- */

/* A NUL, U+0085, a carriage return and a line separator within a review are characters like any other. */
#define ODD "odd\0 \xc2\x85 \r \xe2\x80\xa8 \x1c<br />"

static void test_text__table__bytes_as_ids_and_first_ones_kept(void **state) {
  (void)state;
  char big[6000];
  task_data d;
  memset(big, 'x', sizeof big);
  memcpy(big, "0\tAbc\n1\t" ODD "\n1\t", 8 + sizeof ODD - 1 + 3);
  const size_t head = 8 + sizeof ODD - 1 + 3;
  put("a/lra/text/test.tsv", big, sizeof big);
  put("a/lra/text/train.tsv", "1\tgood\n0\tbad", 12);
  for (int i = 0; i < 2; i++) {
    load_ok(i ? "lra/text-1k" : "lra/text", "a", TASK_TEST, &d);
    assert_true(d.count == 3 && d.inputs == 1 && !d.official && d.note != NULL);
    text_is(&d, 0, 0, "Abc", 3);
    assert_int_equal(task_ids(&d, 0, 0)[0], 66);
    text_is(&d, 1, 0, ODD, sizeof ODD - 1);
    text_is(&d, 2, 0, big + head, i ? 1000 : 4000);
    assert_true(d.label[0] == 0 && d.label[1] == 1 && d.label[2] == 1);
    task_data_free(&d);
  }
  load_ok("lra/text", "a", TASK_DEV, &d); /* dev is test */
  assert_int_equal(d.count, 3);
  task_data_free(&d);
  load_ok("lra/text", "a", TASK_TRAIN, &d);
  text_is(&d, 1, 0, "bad", 3);
  task_data_free(&d);
}

static void test_text__official_folders__in_order_and_stripped(void **state) {
  (void)state;
  const struct {
    const char *name, *text;
  } f[] = {{"test/pos/10_7.txt", " ten \r\n"}, {"test/pos/2_10.txt", "two+"}, {"test/neg/2_4.txt", "\ttwo-\n"}, {"test/neg/10_1.txt", "a\n\nb"},
           {"test/urls_pos.txt", "no review"}, {"test/neg/.DS_Store", "x"},   {"train/pos/0_9.txt", "p"},    {"train/neg/0_2.txt", "n"}};
  const char *const want[] = {"two-", "two+", "a\n\nb", "ten"};
  pack_member m[9] = {{0}};
  char path[128], inside[8][64];
  task_data d, packed;
  for (int i = 0; i < 8; i++) {
    (void)snprintf(path, sizeof path, "a/lra/aclImdb/%s", f[i].name);
    put(path, f[i].text, strlen(f[i].text));
    (void)snprintf(inside[i], sizeof inside[i], "aclImdb/%s", f[i].name);
    m[i] = (pack_member){inside[i], f[i].text, strlen(f[i].text), 0};
  }
  load_ok("lra/text", "a", TASK_TEST, &d);
  assert_true(d.count == 4 && d.official && !d.note);
  for (int i = 0; i < 4; i++) {
    text_is(&d, i, 0, want[i], strlen(want[i]));
    assert_int_equal(d.label[i], i % 2);
  }
  put("b/lra/x", "", 0);
  pack_write(scratch_path("b/lra/aclImdb_v1.tar.gz"), "tar.gz", m);
  load_ok("lra/text", "b", TASK_TEST, &packed);
  same(&d, &packed);
  task_data_free(&d), task_data_free(&packed);
}

static void test_text__faults__named_with_their_place(void **state) {
  (void)state;
  const struct {
    const char *text, *word;
  } t[] = {{"", "test.tsv: holds no reviews"}, {"1\tgood\n2\tbad\n", "test.tsv:2"}, {"1 good\n", "test.tsv:1"}, {"1\tgood\n\n", "test.tsv:2"},
           {"1\t\n", "test.tsv:1: no review"}, {"1\tx\n0", "test.tsv:2"}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    put("a/lra/text/test.tsv", t[i].text, strlen(t[i].text));
    refused("lra/text", "a", TASK_TEST, t[i].word);
  }
  refused("lra/text", "a", TASK_TRAIN, "train.tsv: missing");
  const struct {
    const char *name, *text, *word;
  } f[] = {{"pos/1_4.txt", "x", "rating 4, allowed 7..10"}, {"neg/1_7.txt", "x", "rating 7, allowed 1..4"}, {"pos/x_9.txt", "x", "such as 123_9.txt"},
           {"pos/1_9.txt.txt", "x", "such as"},             {"neg/1_2.txt", " \n", "empty"},              {"neg/1_2.txt", "", "empty"}};
  for (size_t i = 0; i < sizeof f / sizeof *f; i++) {
    char root[16], path[128];
    (void)snprintf(root, sizeof root, "r%zu", i);
    (void)snprintf(path, sizeof path, "%s/aclImdb/test/neg/0_1.txt", root), put(path, "n", 1);
    (void)snprintf(path, sizeof path, "%s/aclImdb/test/pos/0_9.txt", root), put(path, "p", 1);
    (void)snprintf(path, sizeof path, "%s/aclImdb/test/%s", root, f[i].name), put(path, f[i].text, strlen(f[i].text));
    refused("lra/text", root, TASK_TEST, f[i].word);
  }
}

/* --- Retrieval ------------------------------------------------------------------------------------------------------ */

static void test_retrieval__rows__raw_characters_of_both_texts(void **state) {
  (void)state;
  static char text[12000];
  task_data d;
  int n = sprintf(text, "1.0\tP1\tP2\tb'a \\n \"q\"'\t\"\n0.0\tP3\tP4\t");
  memset(text + n, 'y', 5000);
  n += 5000;
  n += sprintf(text + n, "\tz\r\n0\ta\tb\t\tlast");
  put("a/lra/lra_release/lra_release/tsv_data/new_aan_pairs.eval.tsv", text, (size_t)n);
  load_ok("lra/retrieval", "a", TASK_DEV, &d);
  assert_true(d.count == 3 && d.inputs == 2 && d.official);
  text_is(&d, 0, 0, "b'a \\n \"q\"'", 11);
  text_is(&d, 0, 1, "\"", 1);
  assert_int_equal(task_len(&d, 1, 0), 4000);
  text_is(&d, 1, 1, "z", 1);
  assert_true(task_len(&d, 2, 0) == 1 && task_ids(&d, 2, 0)[0] == 0); /* empty: one masked position */
  text_is(&d, 2, 1, "last", 4);
  assert_true(d.label[0] == 1 && d.label[1] == 0 && d.label[2] == 0);
  task_data_free(&d);
  refused("lra/retrieval", "a", TASK_TRAIN, "new_aan_pairs.train.tsv: missing");
}

static void test_retrieval__faults__named_with_their_line(void **state) {
  (void)state;
  const struct {
    const char *text, *word;
  } t[] = {{"", "x.tsv"},          {"2\ta\tb\tc\td\n", "x.tsv:1: label '2'"},          {"1\ta\tb\tc\n", "x.tsv:1: fewer than 5"},
           {"\n", "x.tsv:1"},      {"1\ta\tb\tc\td\te\n", "x.tsv:1: more than 5"},     {"1.0\ta\tb\tc\td\n0.5\ta\tb\tc\td\n", "x.tsv:2: label '0.5'"},
           {"1\ta\tb\tc\td\n\n", "x.tsv:2"}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    task_data d;
    ice_err e = {0};
    assert_int_equal(retrieval_parse((const uint8_t *)t[i].text, strlen(t[i].text), "x.tsv", &d, &e), ICE_DATA);
    if (!strstr(e.text, t[i].word)) fail_msg("\"%s\" does not say \"%s\"", e.text, t[i].word);
    assert_null(d.tokens);
  }
}

static void test_retrieval_imdb__pairs__share_a_label_or_not(void **state) {
  (void)state;
  char text[8192];
  task_data d[TASK_SPLITS];
  uint8_t where[200] = {0};
  size_t n = 0;
  for (int i = 0; i < 200; i++) n += (size_t)sprintf(text + n, "%d\t%c%d\n", i % 2, i % 2 ? 'p' : 'n', i); /* the text tells label and number */
  put("a/lra/text/train.tsv", text, n), put("a/lra/text/test.tsv", text, n);
  const int64_t want[] = {360, 20, 100};
  for (int s = 0; s < TASK_SPLITS; s++) {
    load_ok("lra/retrieval-imdb", "a", (task_split)s, &d[s]);
    assert_true(d[s].standin && !d[s].official && strstr(d[s].note, "stand-in"));
    assert_int_equal(d[s].count, want[s]);
    int64_t ones = 0;
    for (int64_t e = 0; e < d[s].count; e++) {
      int number[2];
      for (int i = 0; i < 2; i++) {
        number[i] = 0;
        for (int64_t k = 1; k < task_len(&d[s], e, i); k++) number[i] = 10 * number[i] + task_ids(&d[s], e, i)[k] - 1 - '0';
        if (s != TASK_TEST) where[number[i]] |= (uint8_t)(1 << s);
      }
      assert_int_equal(d[s].label[e], task_ids(&d[s], e, 0)[0] == task_ids(&d[s], e, 1)[0]);
      assert_int_not_equal(number[0], number[1]);
      ones += d[s].label[e];
    }
    assert_int_equal(2 * ones, d[s].count);
  }
  for (int i = 0; i < 200; i++) assert_int_not_equal(where[i], 3); /* no review in train and in dev */
  task_data again;
  load_ok("lra/retrieval-imdb", "a", TASK_TRAIN, &again);
  same(&d[TASK_TRAIN], &again);
  assert_true(d[TASK_TRAIN].hash != d[TASK_DEV].hash);
  task_data_free(&again);
  for (int s = 0; s < TASK_SPLITS; s++) task_data_free(&d[s]);
  put("b/lra/text/train.tsv", "0\ta\n0\tb\n1\tc\n", 12), put("b/lra/text/test.tsv", "0\ta\n0\tb\n1\tc\n", 12);
  refused("lra/retrieval-imdb", "b", TASK_TEST, "two reviews of each label");
}

/* --- Image ---------------------------------------------------------------------------------------------------------- */

static void test_image__gray__as_the_pipeline_computes_it(void **state) {
  (void)state;
  assert_int_equal(image_gray(255, 255, 255), 255);
  assert_int_equal(image_gray(255, 0, 0), 76);
  assert_int_equal(image_gray(0, 255, 0), 149); /* 255.5 * 0.5870 = 149.98 */
  assert_int_equal(image_gray(0, 0, 255), 29);
  assert_int_equal(image_gray(0, 0, 0), 0);
}

/* A record whose pixels tell its number. */
static void record(uint8_t *p, int rgb, int label, int number) {
  memset(p, 0, (size_t)(rgb ? 3073 : 1025));
  p[0] = (uint8_t)label;
  for (int plane = 0; plane < (rgb ? 3 : 1); plane++) memset(p + 1 + 1024 * plane, 1 + number, 3);
}
static void put_batches(const char *root, int per_batch) {
  static uint8_t bytes[10 * 3073];
  char path[128];
  for (int f = 0; f < 6; f++) {
    for (int i = 0; i < per_batch; i++) record(bytes + 3073 * i, 1, i % 10, f * per_batch + i);
    if (f < 5) (void)snprintf(path, sizeof path, "%s/cifar-10-batches-bin/data_batch_%d.bin", root, f + 1);
    else (void)snprintf(path, sizeof path, "%s/cifar-10-batches-bin/test_batch.bin", root);
    put(path, bytes, (size_t)(3073 * per_batch));
  }
}

static void test_image__official_batches__every_record_in_train_or_dev(void **state) {
  (void)state;
  task_data train, dev, test;
  int seen[256] = {0};
  put_batches("a/lra", 10);
  load_ok("lra/image", "a", TASK_TRAIN, &train);
  load_ok("lra/image", "a", TASK_DEV, &dev);
  load_ok("lra/image", "a", TASK_TEST, &test);
  assert_true(train.count == 45 && dev.count == 5 && test.count == 10 && train.official);
  const task_data *part[] = {&train, &dev};
  for (int s = 0; s < 2; s++)
    for (int64_t i = 0; i < part[s]->count; i++) {
      const int32_t *ids = task_ids(part[s], i, 0);
      const int64_t n = task_len(part[s], i, 0);
      assert_true(n == 1 || n == 3); /* black to the end is not stored */
      int which = -1;
      for (int k = 0; k < 50; k++)
        if (image_gray((uint8_t)(1 + k), (uint8_t)(1 + k), (uint8_t)(1 + k)) == ids[0] && part[s]->label[i] == k % 10 && !seen[k] && which < 0) which = k;
      if (which < 0) fail_msg("an image occurs twice, or with another label");
      seen[which] = 1;
    }
  for (int k = 0; k < 50; k++) assert_int_equal(seen[k], 1);
  int apart = 0; /* dev is drawn, not the end of the files */
  for (int64_t i = 0; i < dev.count; i++) apart += task_ids(&dev, i, 0)[0] < 40;
  assert_true(apart > 0);
  task_data_free(&train), task_data_free(&dev), task_data_free(&test);
}

static void test_image__archive_and_copy__found(void **state) {
  (void)state;
  static uint8_t gray[20 * 1025];
  task_data plain, packed, d;
  put_batches("a/lra", 2);
  pack_member m[7] = {{0}};
  static uint8_t bytes[6][2 * 3073];
  char name[6][64];
  for (int f = 0; f < 6; f++) {
    for (int i = 0; i < 2; i++) record(bytes[f] + 3073 * i, 1, i % 10, f * 2 + i);
    if (f < 5) (void)snprintf(name[f], sizeof name[f], "cifar-10-batches-bin/data_batch_%d.bin", f + 1);
    else (void)snprintf(name[f], sizeof name[f], "cifar-10-batches-bin/test_batch.bin");
    m[f] = (pack_member){name[f], bytes[f], sizeof bytes[f], 0};
  }
  put("b/lra/x", "", 0);
  pack_write(scratch_path("b/lra/cifar-10-binary.tar.gz"), "tar.gz", m);
  load_ok("lra/image", "a", TASK_TRAIN, &plain);
  load_ok("lra/image", "b", TASK_TRAIN, &packed);
  same(&plain, &packed);
  task_data_free(&plain), task_data_free(&packed);
  for (int i = 0; i < 20; i++) record(gray + 1025 * i, 0, i % 10, i);
  put("c/lra/image/train.gray.bin", gray, sizeof gray), put("c/lra/image/test.gray.bin", gray, sizeof gray);
  load_ok("lra/image", "c", TASK_TEST, &d);
  assert_true(d.count == 20 && !d.official && strstr(d.note, "JPEG") && d.label[13] == 3 && task_ids(&d, 13, 0)[2] == 14);
  task_data_free(&d);
  memset(gray, 0, 1025); /* all black: one masked position stands for it */
  put("c/lra/image/test.gray.bin", gray, 1025);
  load_ok("lra/image", "c", TASK_TEST, &d);
  assert_true(d.count == 1 && task_len(&d, 0, 0) == 1 && task_ids(&d, 0, 0)[0] == 0);
  task_data_free(&d);
}

static void test_image__faults__named_with_their_byte(void **state) {
  (void)state;
  uint8_t bytes[2 * 3073 + 7];
  put_batches("a", 2);
  for (int i = 0; i < 2; i++) record(bytes + 3073 * i, 1, 1, i);
  memset(bytes + 2 * 3073, 1, 7);
  put("a/cifar-10-batches-bin/test_batch.bin", bytes, sizeof bytes);
  refused("lra/image", "a", TASK_TEST, "test_batch.bin: record 3 at byte 6146 is cut short");
  bytes[3073] = 10;
  put("a/cifar-10-batches-bin/data_batch_3.bin", bytes, 2 * 3073);
  refused("lra/image", "a", TASK_TRAIN, "data_batch_3.bin: record 2 at byte 3073 has label 10");
  put("a/cifar-10-batches-bin/test_batch.bin", bytes, 0);
  refused("lra/image", "a", TASK_TEST, "no examples");
  assert_int_equal(unlink(scratch_path("a/cifar-10-batches-bin/data_batch_3.bin")), 0);
  refused("lra/image", "a", TASK_TRAIN, "data_batch_3.bin: missing");
}

/* --- a part of a split ---------------------------------------------------------------------------------------------- */

static void test_draw__some_examples__whole_in_order_and_always_the_same(void **state) {
  (void)state;
  char text[4096];
  size_t n = 0;
  for (int i = 0; i < 50; i++) n += (size_t)sprintf(text + n, "%d\tp%d\tq%d\t%0*d\t%0*d\n", i % 2, i, i, 1 + i % 7, i, 1 + i % 5, i);
  task_data d[3];
  ice_err e = {0};
  for (int k = 0; k < 3; k++) assert_int_equal(retrieval_parse((const uint8_t *)text, n, "x.tsv", &d[k], &e), ICE_OK);
  assert_int_equal(task_draw(&d[1], 20, &e), ICE_OK);
  assert_int_equal(task_draw(&d[2], 20, &e), ICE_OK);
  same(&d[1], &d[2]);
  int64_t from = -1;
  for (int64_t i = 0; i < 20; i++) { /* every one is an example of the whole, behind the one before */
    int found = 0;
    while (!found && ++from < d[0].count) {
      found = d[0].label[from] == d[1].label[i];
      for (int s = 0; s < 2; s++)
        found = found && task_len(&d[0], from, s) == task_len(&d[1], i, s) &&
                !memcmp(task_ids(&d[0], from, s), task_ids(&d[1], i, s), (size_t)task_len(&d[1], i, s) * sizeof(int32_t));
    }
    assert_true(found);
  }
  assert_true(from > 20); /* drawn, not cut off */
  assert_int_equal(task_draw(&d[2], 99, &e), ICE_OK);
  assert_int_equal(d[2].count, 20);
  for (int k = 0; k < 3; k++) task_data_free(&d[k]);
}

static void test_hold_out__some_examples__dev_and_rest_are_the_whole(void **state) {
  (void)state;
  char text[4096];
  size_t n = 0;
  for (int i = 0; i < 50; i++) n += (size_t)sprintf(text + n, "%d\tp%d\tq%d\t%0*d\t%0*d\n", i % 2, i, i, 1 + i, i, 1 + i % 5, i);
  task_data whole, rest, dev, bad;
  ice_err e = {0};
  assert_int_equal(retrieval_parse((const uint8_t *)text, n, "x.tsv", &whole, &e), ICE_OK);
  assert_int_equal(retrieval_parse((const uint8_t *)text, n, "x.tsv", &rest, &e), ICE_OK);
  assert_int_equal(task_hold_out(&rest, 12, &dev, &e), ICE_OK);
  assert_int_equal(dev.count, 12);
  assert_int_equal(rest.count, 38);
  for (int64_t i = 0, a = 0, b = 0; i < 50; i++) { /* text i has 1 + i characters: its length tells it from all others */
    const int64_t length = task_len(&whole, i, 0);
    task_data *side = a < dev.count && task_len(&dev, a, 0) == length ? &dev : &rest;
    const int64_t at = side == &dev ? a++ : b++;
    assert_int_equal(task_len(side, at, 0), length);
    assert_int_equal(side->label[at], whole.label[i]);
    for (int s = 0; s < 2; s++)
      assert_memory_equal(task_ids(side, at, s), task_ids(&whole, i, s), (size_t)task_len(&whole, i, s) * sizeof(int32_t));
  }
  assert_true(task_len(&dev, 11, 0) - task_len(&dev, 0, 0) > 12); /* drawn, not cut off */
  assert_int_equal(task_hold_out(&rest, 38, &bad, &e), ICE_USAGE);
  task_data_free(&whole), task_data_free(&rest), task_data_free(&dev);
}

/* --- the real sets -------------------------------------------------------------------------------------------------- */

static void real_set(const char *name, int64_t least, int64_t most) {
  const char *root = getenv("ICEBENCH_TEST_DATA");
  const task *t = task_find(name, NULL);
  task_data d;
  ice_err e = {0};
  int absent = 1;
  const int rc = root ? t->load(root, TASK_TEST, &d, &absent, &e) : ICE_DATA;
  if (rc != ICE_OK && absent) {
    print_message("SKIP ICEBENCH_DATA_DIR is not set, or has no %s\n", name);
    skip();
  }
  if (rc != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(d.count, t->official_count[TASK_TEST]);
  int64_t count[64] = {0};
  for (int64_t i = 0; i < d.count; i++) {
    assert_true(d.label[i] >= 0 && d.label[i] < t->classes);
    count[d.label[i]]++;
    for (int s = 0; s < d.inputs; s++) {
      assert_true(task_len(&d, i, s) >= least && task_len(&d, i, s) <= most);
      for (int64_t k = 0; k < task_len(&d, i, s); k++) assert_true(task_ids(&d, i, s)[k] >= 0 && task_ids(&d, i, s)[k] < t->vocab);
    }
  }
  for (int c = 0; c < t->classes; c++) assert_int_equal(count[c] * t->classes, d.count);
  task_data_free(&d);
}
static void test_real__text__whole_and_balanced(void **state) { (void)state, real_set("lra/text", 32, 4000); }
static void test_real__text_1k__whole_and_balanced(void **state) { (void)state, real_set("lra/text-1k", 32, 1000); }
static void test_real__image__whole_and_balanced(void **state) { (void)state, real_set("lra/image", 1, 1024); }
static void test_real__retrieval_imdb__whole_and_balanced(void **state) { (void)state, real_set("lra/retrieval-imdb", 32, 4000); }

static int group_setup(void **state) {
  (void)state;
  const char *real = getenv("ICEBENCH_DATA_DIR");
  if (real) (void)setenv("ICEBENCH_TEST_DATA", real, 1);
  return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_text__table__bytes_as_ids_and_first_ones_kept),
      TEST(test_text__official_folders__in_order_and_stripped),
      TEST(test_text__faults__named_with_their_place),
      TEST(test_retrieval__rows__raw_characters_of_both_texts),
      TEST(test_retrieval__faults__named_with_their_line),
      TEST(test_retrieval_imdb__pairs__share_a_label_or_not),
      TEST(test_image__gray__as_the_pipeline_computes_it),
      TEST(test_image__official_batches__every_record_in_train_or_dev),
      TEST(test_image__archive_and_copy__found),
      TEST(test_image__faults__named_with_their_byte),
      TEST(test_draw__some_examples__whole_in_order_and_always_the_same),
      TEST(test_hold_out__some_examples__dev_and_rest_are_the_whole),
      TEST(test_real__text__whole_and_balanced),
      TEST(test_real__text_1k__whole_and_balanced),
      TEST(test_real__image__whole_and_balanced),
      TEST(test_real__retrieval_imdb__whole_and_balanced),
  };
  return cmocka_run_group_tests(tests, group_setup, NULL);
}
