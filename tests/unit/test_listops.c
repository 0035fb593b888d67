/* test_listops.c - ListOps: the vectors and statistics of the original, and everything a bad file can hold. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <zlib.h>

#include "datasets/lra_listops.h"
#include "datasets/source.h"
#include "datasets/task.h"
#include "kernels/core/fileio.h"
#include "tests/support/scratch.h"

#define SEED_7_TEST_20 0xe543caf7139bbfa7u /* XXH3 of the first 20 test examples of seed 7 */
#define HEAD "Source\tTarget\r\n"
#define MAX_TREE "( ( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )"
#define SUM_TREE "( ( ( ( [SM 8 ) 7 ) ( ( ( ( ( [MED 3 ) 6 ) 9 ) 1 ) ] ) ) ] )"

static int parse(const char *text, task_data *d, ice_err *e) {
  const size_t n = strlen(text);
  uint8_t *exact = malloc(n ? n : 1);
  memcpy(exact, text, n);
  const int rc = listops_parse(exact, n, "x.tsv", LISTOPS_RELEASE, d, e);
  free(exact);
  return rc;
}

/* --- meaning -------------------------------------------------------------------------------------------------------- */

static void test_parse__vectors_of_the_original__ids_and_labels(void **state) {
  (void)state;
  task_data d;
  ice_err e = {0};
  if (parse(HEAD MAX_TREE "\t9\r\n" SUM_TREE "\t9\n", &d, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(d.count, 2);
  const int32_t max_ids[] = {12, 3, 10, 11, 5, 8, 15, 1, 15};
  assert_int_equal(task_len(&d, 0, 0), 9);
  assert_memory_equal(task_ids(&d, 0, 0), max_ids, sizeof max_ids);
  assert_int_equal(d.label[0], 9);
  assert_int_equal(listops_value(task_ids(&d, 0, 0), task_len(&d, 0, 0)), 9);
  assert_int_equal(listops_value(task_ids(&d, 1, 0), task_len(&d, 1, 0)), 9); /* (8+7+trunc(4.5)) mod 10 */
  task_data_free(&d);
}

static void test_value__medians__truncated_means(void **state) {
  (void)state;
  const struct {
    int32_t id[8];
    int n, value;
  } t[] = {{{13, 1, 10, 15}, 4, 4}, {{13, 2, 3, 10, 15}, 5, 2}, {{14, 10, 10, 10, 15}, 5, 7}, {{11, 8, 4, 15}, 4, 3}, {{5}, 1, 4}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) assert_int_equal(listops_value(t[i].id, t[i].n), t[i].value);
}

static void test_value__not_an_expression__refused(void **state) {
  (void)state;
  const struct {
    int32_t id[6];
    int n;
  } t[] = {{{0}, 0}, {{15}, 1}, {{12}, 1}, {{12, 1}, 2}, {{12, 15}, 2}, {{1, 1}, 2}, {{12, 1, 2, 15, 1}, 5}, {{16}, 1}, {{-1}, 1}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) assert_int_equal(listops_value(t[i].id, t[i].n), -1);
}

/* The writer against the vectors of the original, through tokens with the operators' numbers of arguments. */
static void test_text__vectors_of_the_original__same_bytes(void **state) {
  (void)state;
  static const struct {
    listops_tree t;
    const char *text;
  } v[] = {{{.n = 9, .id = {12, 3, 10, 11, 5, 8, 15, 1, 15}, .args = {4, 0, 0, 2}}, MAX_TREE},
           {{.n = 10, .id = {14, 9, 8, 13, 4, 7, 10, 2, 15, 15}, .args = {3, 0, 0, 4}}, SUM_TREE},
           {{.n = 1, .id = {6}}, "5"}};
  char text[LISTOPS_MAX_TEXT];
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    const int n = listops_text(&v[i].t, text);
    assert_int_equal(n, strlen(v[i].text));
    assert_memory_equal(text, v[i].text, (size_t)n);
  }
}

/* Trees of all lengths up to 1999 tokens stay far inside the bound that buffers rely on. */
static void test_text__drawn_trees__fit(void **state) {
  (void)state;
  listops_tree *t = calloc(1, sizeof *t);
  char *text = malloc(LISTOPS_MAX_TEXT);
  attn_rng r;
  int longest = 0;
  attn_rng_seed(&r, 5, 5);
  for (int i = 0; i < 20000; i++)
    if (listops_draw(&r, t)) {
      const int n = listops_text(t, text);
      assert_true(n <= 12 * t->n);
      longest = n > longest ? n : longest;
    }
  assert_true(longest > 10000);
  free(text);
  free(t);
}

/* --- generator ------------------------------------------------------------------------------------------------------- */

/* Statistics of 3,000 accepted trees against those of a simulation of the original script (20,000 trees): acceptance 8.3 %,
 * mean length 1032, five quantiles, 147 operators, depth 10 always reached, labels 16.8 % (0), 17.2 % (9), 7.2..8.9 % the rest.
 * Bounds are about 4 standard errors. */
static void test_draw__many__distribution_of_the_original(void **state) {
  (void)state;
  enum { TREES = 3000 };
  attn_rng r;
  listops_tree *t = malloc(sizeof *t);
  int label[10] = {0}, root[4] = {0}, accepted = 0;
  double draws = 0, sum = 0, square = 0, operators = 0;
  static const struct {
    int length;
    double share; /* of the trees not longer */
  } quantile[] = {{537, 0.05}, {699, 0.25}, {950, 0.5}, {1307, 0.75}, {1799, 0.95}};
  int not_longer[5] = {0};
  int32_t id[LISTOPS_MAX_TOKENS];
  attn_rng_seed(&r, 99, 1);
  while (accepted < TREES) {
    draws++;
    if (!listops_draw(&r, t) || t->n <= 500 || t->n >= 2000) continue;
    accepted++;
    for (int i = 0; i < t->n; i++) id[i] = t->id[i];
    const int value = listops_value(id, t->n);
    assert_in_range(value, 0, 9);
    label[value]++;
    root[t->id[0] - LISTOPS_MIN]++;
    sum += t->n, square += (double)t->n * t->n;
    for (int q = 0; q < 5; q++) not_longer[q] += t->n <= quantile[q].length;
    int depth = 0, deepest = 0;
    for (int i = 0; i < t->n; i++) {
      depth += t->id[i] == LISTOPS_CLOSE ? -1 : t->id[i] >= LISTOPS_MIN;
      deepest = depth > deepest ? depth : deepest;
      operators += t->id[i] == LISTOPS_CLOSE;
    }
    assert_int_equal(deepest, 9); /* and digits at depth 10 */
  }
  free(t);
  const double mean = sum / TREES, sd = sqrt(square / TREES - mean * mean), n = TREES;
  assert_true(fabs(accepted / draws - 0.083) < 0.007);
  assert_true(fabs(mean - 1032) < 4 * sd / sqrt(n));
  assert_true(fabs(operators / n - 147) < 3);
  for (int q = 0; q < 5; q++) { /* the reference itself has an error: 20,000 trees */
    const double share = quantile[q].share;
    assert_true(fabs(not_longer[q] / n - share) < 4 * sqrt(share * (1 - share) * (1 / n + 1.0 / 20000)));
  }
  assert_true(fabs(label[0] / n - 0.168) < 0.03 && fabs(label[9] / n - 0.172) < 0.03);
  for (int v = 1; v < 9; v++) assert_true(label[v] / n > 0.05 && label[v] / n < 0.11);
  for (int k = 0; k < 4; k++) assert_true(fabs(root[k] / n - 0.25) < 0.035);
}

static void make_ok(uint64_t seed, int64_t examples, const char *folder) {
  ice_err e = {0};
  const task_make_options o = {.seed = seed, .out = scratch_path(folder), .examples = examples};
  const task *t = task_find("lra/listops", &e);
  if (t->make(&o, &e) != ICE_OK) fail_msg("%s", e.text);
}
static void load_ok(const char *folder, task_split split, task_data *d) {
  ice_err e = {0};
  (void)setenv("ICEBENCH_DATA_DIR", scratch_path(folder), 1);
  if (task_load(task_find("lra/listops", &e), split, d, &e) != ICE_OK) fail_msg("%s", e.text);
}

static void test_make__then_load__right_labels_and_no_repeats(void **state) {
  (void)state;
  task_data d[TASK_SPLITS];
  make_ok(3, 150, "a");
  for (int s = 0; s < TASK_SPLITS; s++) {
    load_ok("a", (task_split)s, &d[s]);
    assert_int_equal(d[s].count, 150);
    assert_int_equal(d[s].official, 0);
    for (int64_t i = 0; i < d[s].count; i++) {
      assert_in_range(task_len(&d[s], i, 0), 501, 1999);
      assert_int_equal(listops_value(task_ids(&d[s], i, 0), task_len(&d[s], i, 0)), d[s].label[i]);
    }
  }
  for (int s = 0; s < TASK_SPLITS; s++) /* no expression twice, in any split */
    for (int64_t i = 0; i < 150; i++)
      for (int z = s; z < TASK_SPLITS; z++)
        for (int64_t k = z == s ? i + 1 : 0; k < 150; k++) {
          const int64_t n = task_len(&d[s], i, 0);
          if (n == task_len(&d[z], k, 0))
            assert_memory_not_equal(task_ids(&d[s], i, 0), task_ids(&d[z], k, 0), (size_t)n * sizeof(int32_t));
        }
  for (int s = 0; s < TASK_SPLITS; s++) task_data_free(&d[s]);
}

static void test_make__seed__decides_the_bytes(void **state) {
  (void)state;
  task_data a, b, c;
  make_ok(3, 40, "a"), make_ok(3, 40, "b"), make_ok(4, 40, "c");
  load_ok("a", TASK_TEST, &a), load_ok("b", TASK_TEST, &b), load_ok("c", TASK_TEST, &c);
  assert_true(a.hash == b.hash && a.hash != c.hash);
  task_data_free(&a), task_data_free(&b), task_data_free(&c);
}

static void test_make__fewer_examples__the_first_of_more(void **state) {
  (void)state;
  make_ok(3, 40, "a"), make_ok(3, 15, "b");
  for (int s = 0; s < TASK_SPLITS; s++) {
    task_data a, b;
    load_ok("a", (task_split)s, &a), load_ok("b", (task_split)s, &b);
    assert_int_equal(b.count, 15);
    assert_memory_equal(a.start, b.start, 16 * sizeof *a.start);
    assert_memory_equal(a.tokens, b.tokens, (size_t)b.start[15] * sizeof *a.tokens);
    task_data_free(&a), task_data_free(&b);
  }
}

/* The generator is part of what published numbers mean: the examples of a seed must never change unnoticed. */
static void test_make__seed_7__known_bytes(void **state) {
  (void)state;
  task_data d;
  make_ok(7, 20, "a");
  load_ok("a", TASK_TEST, &d);
  assert_true(d.hash == SEED_7_TEST_20);
  task_data_free(&d);
}

static void test_make__again__replaces_a_generated_set(void **state) {
  (void)state;
  task_data a, b;
  make_ok(3, 20, "a");
  load_ok("a", TASK_DEV, &a);
  make_ok(4, 10, "a");
  load_ok("a", TASK_DEV, &b);
  assert_int_equal(b.count, 10);
  assert_true(a.hash != b.hash);
  task_data_free(&a), task_data_free(&b);
}

static void test_make__stopped__is_not_read_until_made_again(void **state) {
  (void)state;
  const volatile sig_atomic_t stop = 1;
  task_data d;
  ice_err e = {0};
  make_ok(3, 20, "a");
  const task_make_options o = {.seed = 4, .out = scratch_path("a"), .examples = 20, .stop = &stop};
  assert_int_equal(task_find("lra/listops", &e)->make(&o, &e), ICE_INTERNAL);
  (void)setenv("ICEBENCH_DATA_DIR", scratch_path("a"), 1);
  assert_int_equal(task_load(task_find("lra/listops", &e), TASK_TEST, &d, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "again"));
  make_ok(4, 20, "a");
  load_ok("a", TASK_TEST, &d);
  task_data_free(&d);
}

static void test_make__negative_examples_or_no_folder__refused(void **state) {
  (void)state;
  ice_err e = {0};
  task_make_options o = {.seed = 1, .out = scratch_path("a"), .examples = -1};
  assert_int_equal(task_find("lra/listops", &e)->make(&o, &e), ICE_USAGE);
  o = (task_make_options){.seed = 1, .out = scratch_write("file", "x", 1), .examples = 1};
  assert_int_equal(task_find("lra/listops", &e)->make(&o, &e), ICE_INTERNAL);
  assert_non_null(strstr(e.text, "file"));
}

static void test_load__one_byte_of_a_generated_file_changed__checksum(void **state) {
  (void)state;
  task_data d;
  ice_err e = {0};
  make_ok(3, 20, "a");
  FILE *f = fopen(scratch_path("a/lra/listops-1000/basic_test.tsv"), "r+b");
  int c, at = 0;
  while ((c = fgetc(f)) != EOF && !(c >= '1' && c <= '8')) at++;
  (void)fseek(f, at, SEEK_SET);
  (void)fputc(c + 1, f);
  (void)fclose(f);
  (void)setenv("ICEBENCH_DATA_DIR", scratch_path("a"), 1);
  assert_int_equal(task_load(task_find("lra/listops", &e), TASK_TEST, &d, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "checksum"));
  assert_null(d.tokens);
  assert_int_equal(task_load(task_find("lra/listops", &e), TASK_DEV, &d, &e), ICE_OK);
  task_data_free(&d);
}

static void test_load__damaged_record__named(void **state) {
  (void)state;
  const char *const record[] = {"", "[]", "{\"complete\": 1}", "{\"complete\": false}", "{\"complete\": true, \"complete\": true}", "{\"complete\": true}\n{}"};
  task_data d;
  ice_err e = {0};
  make_ok(3, 2, "a");
  (void)setenv("ICEBENCH_DATA_DIR", scratch_path("a"), 1);
  for (size_t i = 0; i < sizeof record / sizeof *record; i++) {
    (void)scratch_write("a/lra/listops-1000/generated.json", record[i], strlen(record[i]));
    assert_int_equal(task_load(task_find("lra/listops", &e), TASK_TEST, &d, &e), ICE_DATA);
    assert_non_null(strstr(e.text, "generated.json"));
    assert_null(d.tokens);
  }
}

static void test_make__over_official_files__refused(void **state) {
  (void)state;
  ice_err e = {0};
  (void)mkdir(scratch_path("o"), 0700), (void)mkdir(scratch_path("o/lra"), 0700), (void)mkdir(scratch_path("o/lra/listops-1000"), 0700);
  for (int s = 0; s < TASK_SPLITS; s++) {
    char name[64];
    (void)snprintf(name, sizeof name, "o/lra/listops-1000/basic_%s.tsv", task_split_name((task_split)s));
    (void)scratch_write(name, HEAD MAX_TREE "\t9\r\n", strlen(HEAD MAX_TREE "\t9\r\n"));
  }
  const task_make_options o = {.seed = 1, .out = scratch_path("o"), .examples = 5};
  assert_int_equal(task_find("lra/listops", &e)->make(&o, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "--out"));
  task_data d;
  load_ok("o", TASK_TEST, &d);
  assert_int_equal(d.official, 1);
  task_data_free(&d);
}

/* --- reading --------------------------------------------------------------------------------------------------------- */

static void test_load__gzip__same_contents(void **state) {
  (void)state;
  task_data plain, packed;
  make_ok(5, 20, "a");
  load_ok("a", TASK_TEST, &plain);
  FILE *f = fopen(scratch_path("a/lra/listops-1000/basic_test.tsv"), "rb");
  gzFile z = gzopen(scratch_path("a/lra/listops-1000/basic_test.tsv.gz"), "wb");
  char buf[4096];
  for (size_t n; (n = fread(buf, 1, sizeof buf, f)) > 0;) assert_int_equal(gzwrite(z, buf, (unsigned)n), n);
  fclose(f), gzclose(z);
  assert_int_equal(remove(scratch_path("a/lra/listops-1000/basic_test.tsv")), 0);
  load_ok("a", TASK_TEST, &packed);
  assert_int_equal(packed.count, plain.count);
  assert_true(packed.hash == plain.hash);
  assert_memory_equal(packed.tokens, plain.tokens, (size_t)plain.start[plain.count] * sizeof(int32_t));
  task_data_free(&plain), task_data_free(&packed);
}

/* Two gzip members one after the other are one file; cut or damaged ones are none. */
static void test_load__gzip_members_and_damage(void **state) {
  (void)state;
  const char *const path = "g/lra/listops-1000/basic_test.tsv.gz";
  task_data d;
  ice_err e = {0};
  uint8_t packed[512];
  if (file_make_dirs(scratch_path("g/lra/listops-1000"), &e) != ICE_OK) fail_msg("%s", e.text);
  const char *const part[] = {HEAD MAX_TREE "\t9\r\n", SUM_TREE "\t9\r\n"};
  for (int i = 0; i < 2; i++) {
    gzFile z = gzopen(scratch_path(path), i ? "ab" : "wb");
    assert_int_equal(gzputs(z, part[i]), strlen(part[i]));
    gzclose(z);
  }
  load_ok("g", TASK_TEST, &d);
  assert_int_equal(d.count, 2);
  task_data_free(&d);
  FILE *f = fopen(scratch_path(path), "rb");
  const size_t n = fread(packed, 1, sizeof packed, f);
  (void)fclose(f);
  for (size_t cut = 0; cut < n; cut++) {
    (void)scratch_write(path, packed, cut);
    if (task_load(task_find("lra/listops", &e), TASK_TEST, &d, &e) == ICE_OK) {
      if (d.count != 1) fail_msg("%zu of %zu bytes were accepted", cut, n); /* between the members */
      task_data_free(&d);
    }
  }
  packed[n / 4] ^= 1;
  (void)scratch_write(path, packed, n);
  assert_int_equal(task_load(task_find("lra/listops", &e), TASK_TEST, &d, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "gzip"));
}

static void test_source__unpacks_to_more_than_allowed__refused(void **state) {
  (void)state;
  source s;
  ice_err e = {0};
  gzFile z = gzopen(scratch_path("bomb.gz"), "wb");
  static const char zeros[1 << 16];
  for (int i = 0; i < 64; i++) assert_int_equal(gzwrite(z, zeros, sizeof zeros), sizeof zeros);
  gzclose(z);
  assert_int_equal(source_open(scratch_path("bomb.gz"), 64 << 16, &s, &e), ICE_OK);
  assert_int_equal(s.n, 64 << 16);
  source_close(&s);
  assert_int_equal(source_open(scratch_path("bomb.gz"), (64 << 16) - 1, &s, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "unpacks to more"));
}

static void test_parse__faults__named_with_their_line(void **state) {
  (void)state;
  const struct {
    const char *text, *word;
  } t[] = {{"", "x.tsv"},
           {HEAD, "x.tsv"},
           {"Source,Target\n" MAX_TREE "\t9\n", "x.tsv:1"},
           {HEAD MAX_TREE "\n", "x.tsv:2"},
           {HEAD MAX_TREE "\t\n", "x.tsv:2"},
           {HEAD MAX_TREE "\t10\n", "x.tsv:2"},
           {HEAD MAX_TREE "\t-1\n", "x.tsv:2"},
           {HEAD MAX_TREE "\t9x\n", "x.tsv:2"},
           {HEAD MAX_TREE "\t9\n( ( [MAX 2 ) ] ) )\t2\n\n( ( ( [AVG 2 ) ] ) )\t9\n", "x.tsv:"},
           {HEAD "( ( ( [AVG 2 ) 9 ) ] )\t9\n", "[AVG"},
           {HEAD "( ( ( [MAX 2 ) 9 ) ] )\t9\textra\n", "x.tsv:2"},
           {HEAD "\t9\n", "x.tsv:2"},
           {HEAD MAX_TREE "\t9\r" SUM_TREE "\t9\n", "x.tsv:2"},
           {HEAD MAX_TREE "\t9\n" MAX_TREE "\t9", "ok"},
           {HEAD MAX_TREE "\t9\r\n" MAX_TREE "\t9", "ok"},
           {HEAD MAX_TREE "\t9\n\n", "x.tsv:3"},
           {HEAD "[MAX2 9 ]\t9\n", "[MAX2"},
           {HEAD "[MAX 22 9 ]\t9\n", "'22'"},
           {HEAD "[FIRST 2 9 ]\t2\n", "[FIRST"},
           {HEAD "\x01\xff [MAX 2 9 ]\t9\n", "x.tsv:2"},
           {"\xef\xbb\xbf" HEAD MAX_TREE "\t9\n", "x.tsv:1"}};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
    task_data d = {0};
    ice_err e = {0};
    const int rc = parse(t[i].text, &d, &e);
    if (rc == ICE_OK) task_data_free(&d);
    if (!strcmp(t[i].word, "ok")) { /* the last line needs no end */
      if (rc != ICE_OK) fail_msg("case %zu: %s", i, e.text);
      continue;
    }
    if (rc != ICE_DATA) fail_msg("case %zu was accepted", i);
    if (!strstr(e.text, t[i].word) || strchr(e.text, '\n')) fail_msg("case %zu: '%s' does not say '%s'", i, e.text, t[i].word);
    assert_null(d.tokens);
  }
}

static void test_parse__too_many_tokens__refused(void **state) {
  (void)state;
  char *text = malloc(20000);
  task_data d = {0};
  ice_err e = {0};
  size_t n = (size_t)sprintf(text, HEAD "[MAX");
  for (int i = 0; i < 2100; i++) n += (size_t)sprintf(text + n, " 1");
  (void)sprintf(text + n, " ]\t1\n");
  assert_int_equal(parse(text, &d, &e), ICE_DATA);
  free(text);
}

static void test_load__nothing_there__says_what_to_do(void **state) {
  (void)state;
  task_data d;
  ice_err e = {0};
  (void)setenv("ICEBENCH_DATA_DIR", scratch_path("empty"), 1);
  const int rc = task_load(task_find("lra/listops", &e), TASK_TEST, &d, &e);
  if (rc == ICE_OK) { /* datasets/data of this tree has the task */
    task_data_free(&d);
    return;
  }
  assert_int_equal(rc, ICE_DATA);
  assert_non_null(strstr(e.text, "icebench data make lra/listops"));
}

static void test_load__sample_in_the_format_of_the_release__labels_agree(void **state) {
  (void)state;
  const char *root = getenv("ICEBENCH_TEST_DATA");
  char path[FILE_PATH];
  task_data d;
  ice_err e = {0};
  source s;
  if (!root || file_join(path, root, "lra/listops/lra_format_sample.tsv", &e) != ICE_OK || !file_is_regular(path)) {
    print_message("SKIP ICEBENCH_DATA_DIR is not set: no real ListOps files\n");
    skip();
  }
  if (source_open(path, 1 << 20, &s, &e) != ICE_OK) fail_msg("%s", e.text);
  if (listops_parse(s.p, s.n, path, LISTOPS_RELEASE, &d, &e) != ICE_OK) fail_msg("%s", e.text);
  source_close(&s);
  assert_int_equal(d.count, 9);
  for (int64_t i = 0; i < d.count; i++) assert_int_equal(listops_value(task_ids(&d, i, 0), task_len(&d, i, 0)), d.label[i]);
  task_data_free(&d);
}

static void test_load__real_samples__labels_agree_with_values(void **state) {
  (void)state;
  const char *root = getenv("ICEBENCH_TEST_DATA");
  task_data d;
  ice_err e = {0};
  if (!root) {
    print_message("SKIP ICEBENCH_DATA_DIR is not set: no real ListOps files\n");
    skip();
  }
  (void)setenv("ICEBENCH_DATA_DIR", root, 1);
  if (task_load(task_find("lra/listops", &e), TASK_TEST, &d, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(d.official, 0);
  for (int64_t i = 0; i < d.count; i++) assert_int_equal(listops_value(task_ids(&d, i, 0), task_len(&d, i, 0)), d.label[i]);
  task_data_free(&d);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
  const char *real = getenv("ICEBENCH_DATA_DIR"); /* tests point the variable elsewhere */
  if (real && *real) (void)setenv("ICEBENCH_TEST_DATA", real, 1);
  const struct CMUnitTest tests[] = {
      TEST(test_parse__vectors_of_the_original__ids_and_labels),
      TEST(test_value__medians__truncated_means),
      TEST(test_value__not_an_expression__refused),
      TEST(test_text__vectors_of_the_original__same_bytes),
      TEST(test_text__drawn_trees__fit),
      TEST(test_draw__many__distribution_of_the_original),
      TEST(test_make__then_load__right_labels_and_no_repeats),
      TEST(test_make__seed__decides_the_bytes),
      TEST(test_make__fewer_examples__the_first_of_more),
      TEST(test_make__seed_7__known_bytes),
      TEST(test_make__again__replaces_a_generated_set),
      TEST(test_make__stopped__is_not_read_until_made_again),
      TEST(test_make__negative_examples_or_no_folder__refused),
      TEST(test_load__one_byte_of_a_generated_file_changed__checksum),
      TEST(test_load__damaged_record__named),
      TEST(test_make__over_official_files__refused),
      TEST(test_load__gzip__same_contents),
      TEST(test_load__gzip_members_and_damage),
      TEST(test_source__unpacks_to_more_than_allowed__refused),
      TEST(test_parse__faults__named_with_their_line),
      TEST(test_parse__too_many_tokens__refused),
      TEST(test_load__nothing_there__says_what_to_do),
      TEST(test_load__sample_in_the_format_of_the_release__labels_agree),
      TEST(test_load__real_samples__labels_agree_with_values),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
