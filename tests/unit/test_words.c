/* test_words.c - cells of tasks that are answered in words: a tiny model on small sets of our own, from prompts to marks; what the database keeps
 * of it; and the same on the real stories260K. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "datasets/prompt.h"
#include "harness/cell.h"
#include "harness/marks.h"
#include "harness/run.h"
#include "kernels/core/fileio.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_llama.h"

/* --- marks ------------------------------------------------------------------------------------------------------------ */

static double metric(const store_metric *m, int n, const char *name) {
  for (int i = 0; i < n; i++)
    if (!strcmp(m[i].name, name)) return m[i].value;
  return NAN;
}
#define NEAR(a, b) assert_true(fabs((a) - (b)) < 1e-6)

static void test_marks__rouge__geometric_mean_of_means(void **state) {
  (void)state;
  marks m = {.mark = ANSWER_ROUGE};
  store_metric out[MARKS_METRICS];
  double total;
  const char *one[] = {"exact match example"}, *two[] = {"hello", "hi there"}, *three[] = {"commander kenobi"};
  assert_true(marks_add(&m, "exact match example", one, 1, &total));
  NEAR(total, 1);
  assert_true(marks_add(&m, "hello there", two, 2, &total));
  assert_true(marks_add(&m, "general kenobi", three, 1, &total));
  assert_true(marks_add(&m, "no right answer is known", NULL, 0, &total));
  assert_true(isnan(total) && m.n == 3);
  const int n = marks_metrics(&m, 1, out);
  assert_int_equal(n, 5);
  assert_true(fabs(metric(out, n, "accuracy") - 0.558136) < 1e-6);
  assert_true(fabs(metric(out, n, "rouge1") - 0.722222) < 1e-6 && fabs(metric(out, n, "rouge2") - 1.0 / 3) < 1e-6);
  NEAR(metric(out, n, "rouge_instance"), 1.0 / 3); /* the other two have R2 = 0 */
  assert_true(isnan(out[0].lo)); /* three answers have no interval */
  marks_free(&m);
}

static void test_marks__intervals(void **state) {
  (void)state;
  store_metric out[MARKS_METRICS];
  double total;
  marks m = {.mark = ANSWER_NUMBER}, f = {.mark = ANSWER_PERCENT};
  const char *seven[] = {"7"}, *half[] = {"50%"};
  for (int i = 0; i < 10; i++) assert_true(marks_add(&m, i < 8 ? "7" : "8", seven, 1, &total));
  assert_int_equal(marks_metrics(&m, 1, out), 1);
  assert_true(out[0].value == 0.8 && fabs(out[0].lo - 0.4902) < 1e-3 && fabs(out[0].hi - 0.9433) < 1e-3); /* Wilson, 8 of 10 */
  for (int i = 0; i < 10; i++) assert_true(marks_add(&f, i % 2 ? "50%" : "40%", half, 1, &total));
  assert_int_equal(marks_metrics(&f, 1, out), 1);
  NEAR(out[0].value, 0.75); /* of 1 and 0.5 */
  assert_true(out[0].lo > 0.55 && out[0].lo < 0.7 && out[0].hi > 0.8 && out[0].hi < 0.95);
  const store_metric first = out[0];
  (void)marks_metrics(&f, 1, out);
  assert_true(first.lo == out[0].lo && first.hi == out[0].hi); /* by seed */
  marks_free(&m), marks_free(&f);
  assert_int_equal(marks_metrics(&m, 1, out), 0);
}

static void test_marks__stored_right_answers(void **state) {
  (void)state;
  marks m = {.mark = ANSWER_NUMBER};
  double total;
  ice_err e = {0};
  assert_int_equal(marks_add_json(&m, "is 7", "[\"6\", \"7\"]", &total, &e), ICE_OK);
  NEAR(total, 1);
  assert_int_equal(marks_add_json(&m, "is 7", "[]", &total, &e), ICE_OK);
  assert_true(isnan(total));
  assert_int_equal(marks_add_json(&m, "is 7", "{}", &total, &e), ICE_DB);
  assert_int_equal(marks_add_json(&m, "is 7", "[7]", &total, &e), ICE_DB);
  assert_int_equal(marks_add_json(&m, "is 7", "", &total, &e), ICE_DB);
  marks_free(&m);
}

/* --- cells ------------------------------------------------------------------------------------------------------------ */

enum { ROWS = 4 };

/* Rows with a story of `words` words each, and the answers given (NULL: none). */
static void write_rows(int words, const char *const *answer) {
  ice_err e = {0};
  char *text = NULL;
  size_t n = 0;
  FILE *f = open_memstream(&text, &n);
  assert_int_equal(file_make_dirs(scratch_path("data/zeroscrolls"), &e), ICE_OK);
  for (int i = 0; i < ROWS; i++) {
    char story[4000] = "";
    for (int k = 0; k < words; k++) (void)snprintf(story + strlen(story), sizeof story - strlen(story), "w%d ", (k * 7 + i * 13) % 29);
    const int document = 17, end = document + (int)strlen(story), query = end + 2, stop = query + 14;
    char input[4200], id[8];
    (void)snprintf(input, sizeof input, "Answer. \n\nStory:\n%s\n\nQuestion:\nWho?\n\nAnswer:\n", story);
    (void)snprintf(id, sizeof id, "q%d", i);
    json_t *row = json_pack("{s:s, s:s, s:s, s:s?, s:i, s:i, s:i, s:i, s:s}", "id", id, "pid", id, "input", input, "output", answer ? answer[i] : NULL,
                            "document_start_index", document, "document_end_index", end, "query_start_index", query, "query_end_index", stop,
                            "truncation_seperator", "... [cut]\n\n");
    char *line = json_dumps(row, 0);
    (void)fprintf(f, "%s\n", line);
    free(line);
    json_decref(row);
  }
  (void)fclose(f);
  (void)scratch_write("data/zeroscrolls/qasper.jsonl", text, n);
  free(text);
}

static int setup(void **state) {
  if (scratch_setup(state)) return 1;
  tiny_llama_write(scratch_path("tiny"), 1024);
  write_rows(40, NULL);
  (void)setenv("ICEBENCH_DATA_DIR", scratch_path("data"), 1);
  return 0;
}

static cell_job job_of(const char *method, const char *params) {
  static char model[4096];
  (void)snprintf(model, sizeof model, "%s", scratch_path("tiny"));
  return (cell_job){.task = "zeroscrolls/qasper", .model_path = model, .method = method, .params_json = params, .split = TASK_TEST, .seed = 1,
                    .timed = 2, .threads = 1, .rounds = 2, .warmup = 0, .quality = 1, .max_seconds = 60, .answer_tokens = 6, .template = PROMPT_PLAIN};
}
static void execute(const cell_job *j, cell_result *r) {
  cell_execute(j, r);
  if (strcmp(r->status, "ok")) fail_msg("%s: %s", r->status, r->reason);
}

static void test_cell__exact_methods_say_the_same(void **state) {
  (void)state;
  static const struct {
    const char *method, *params;
  } exact[] = {{"dense", "{}"}, {"vanilla", "{}"}, {"topk", "{\"k\": 1024}"}, {"iceformer", "{\"k\": 1024}"}};
  cell_result first = {0};
  for (int i = 0; i < 4; i++) {
    const cell_job j = job_of(exact[i].method, exact[i].params);
    cell_result r;
    execute(&j, &r);
    assert_true(r.n_answers == ROWS && r.examples == ROWS && r.causal == 1 && r.heads == 2 && r.head_dim == 8 && r.layers == 2);
    assert_true(r.n > 150 && r.n < 500);
    assert_true(isnan(metric(r.metric, r.n_metrics, "accuracy"))); /* nobody knows the right answers */
    assert_true(metric(r.metric, r.n_metrics, "attention_ns") > 0 && metric(r.metric, r.n_metrics, "model_ns") > metric(r.metric, r.n_metrics, "attention_ns"));
    assert_true(metric(r.metric, r.n_metrics, "rel_l2_error") < 1e-4 && metric(r.metric, r.n_metrics, "token_ns") > 0);
    if (i == 0) first = r;
    for (int k = 0; k < ROWS; k++) {
      assert_string_equal(r.answer[k].text, first.answer[k].text);
      assert_string_equal(r.answer[k].expected, "[]");
      assert_true(isnan(r.answer[k].mark) && r.answer[k].cut == 0 && r.answer[k].tokens > 150);
    }
    if (i) cell_result_free(&r);
  }
  cell_result_free(&first);
}

/* What the model said becomes the right answer: then it is right. */
static void test_cell__right_answers__full_marks(void **state) {
  (void)state;
  const cell_job j = job_of("dense", "{}");
  cell_result r;
  char said[ROWS][64];
  const char *answer[ROWS];
  execute(&j, &r);
  for (int i = 0; i < ROWS; i++) {
    (void)snprintf(said[i], sizeof said[i], "zebra %s", r.answer[i].text); /* a word, whatever the text is */
    answer[i] = said[i];
  }
  cell_result_free(&r);
  write_rows(40, answer);
  execute(&j, &r);
  double sum = 0;
  for (int i = 0; i < ROWS; i++) sum += r.answer[i].mark;
  NEAR(metric(r.metric, r.n_metrics, "accuracy"), sum / ROWS);
  assert_true(sum > 0 && sum < ROWS); /* all words but the zebra */
  assert_non_null(strstr(r.answer[0].expected, "zebra"));
  assert_int_equal(r.n_predictions, 0); /* F1 is no share of hits */
  cell_result_free(&r);
}

static void test_cell__context__story_is_cut_question_stays(void **state) {
  (void)state;
  cell_job j = job_of("dense", "{}");
  cell_result r;
  j.context = 120;
  execute(&j, &r);
  for (int i = 0; i < ROWS; i++) assert_true(r.answer[i].tokens == 120 - 6 && r.answer[i].cut > 0);
  assert_true(metric(r.metric, r.n_metrics, "cut_tokens") > 0);
  cell_result_free(&r);
  j.context = 40; /* less than question and separator take */
  cell_execute(&j, &r);
  assert_string_equal(r.status, "failed");
  assert_non_null(strstr(r.reason, "question alone"));
  cell_result_free(&r);
  j.context = 0, j.answer_tokens = 4096;
  cell_execute(&j, &r);
  assert_string_equal(r.status, "failed");
  assert_non_null(strstr(r.reason, "do not fit into a context of 1024"));
  cell_result_free(&r);
}

static void make_lines(int lines) {
  ice_err e = {0};
  const int lengths[] = {lines, 0};
  const task_make_options o = {.seed = 5, .out = scratch_path("data"), .examples = 3, .lengths = lengths};
  if (task_find("longeval/lines", NULL)->make(&o, &e) != ICE_OK) fail_msg("%s", e.text);
}

static void test_cell__lines__hits_are_predictions(void **state) {
  (void)state;
  cell_job j = job_of("dense", "{}");
  cell_result r;
  make_lines(2);
  j.task = "longeval/lines", j.length = 2, j.template = PROMPT_VICUNA;
  execute(&j, &r);
  assert_true(r.n_answers == 3 && r.n_predictions == 3);
  assert_true(metric(r.metric, r.n_metrics, "length") == 2);
  int hits = 0;
  for (int i = 0; i < 3; i++) {
    assert_int_equal(r.prediction[i].expected, 1);
    assert_true(r.prediction[i].predicted == (r.answer[i].mark > 0.5));
    hits += r.prediction[i].predicted;
  }
  NEAR(metric(r.metric, r.n_metrics, "accuracy"), hits / 3.0);
  cell_result_free(&r);
}

static void test_result__answers__round_trip(void **state) {
  (void)state;
  store_answer answer[] = {{3, "q", "caf\xc3\xa9 \"x\"", "[\"y\"]", 100, 7, 0.5}, {4, "r", "", "[]", 1, 0, NAN}};
  const cell_result r = {.status = "ok", .answer = answer, .n_answers = 2};
  char *text = cell_result_print(&r);
  cell_result back;
  assert_int_equal(cell_result_parse(text, strlen(text), &back, NULL), ICE_OK);
  assert_true(back.n_answers == 2 && back.answer[0].item == 3 && back.answer[0].tokens == 100 && back.answer[0].cut == 7 && back.answer[0].mark == 0.5);
  assert_string_equal(back.answer[0].text, "caf\xc3\xa9 \"x\"");
  assert_string_equal(back.answer[1].expected, "[]");
  assert_true(isnan(back.answer[1].mark));
  cell_result_free(&back);
  free(text);
}

/* --- the list of cells ------------------------------------------------------------------------------------------------ */

static int plan(run_plan *p, const char *yaml, ice_err *e) {
  const run_options o = {0};
  (void)scratch_write("x.yaml", yaml, strlen(yaml));
  return run_plan_create(p, scratch_path("x.yaml"), &o, e);
}

static void test_plan__lengths_and_context(void **state) {
  (void)state;
  char yaml[8192];
  run_plan p;
  ice_err e = {0};
  make_lines(2), make_lines(9);
  (void)snprintf(yaml, sizeof yaml, "name: x\ntask: longeval/lines\nmodel: %s\nlengths: [2, 9]\nanswer_tokens: 20\nthreads: 1\nmethods: [dense, vanilla]\n", scratch_path("tiny"));
  if (plan(&p, yaml, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_int_equal(p.n, 4);
  assert_true(p.cell[0].cell->length == 2 && p.cell[2].cell->length == 9);
  assert_string_not_equal(p.cell[0].key, p.cell[2].key);
  assert_string_equal(p.cell[0].label, "generated data");
  assert_true(p.cell[0].data->longest < p.cell[2].data->longest && p.cell[0].data->mean > 100);
  run_plan_destroy(&p);
  make_lines(40);
  (void)snprintf(yaml, sizeof yaml, "name: x\ntask: longeval/lines\nmodel: %s\nlengths: [40]\nmethods: [dense]\n", scratch_path("tiny"));
  assert_int_equal(plan(&p, yaml, &e), ICE_USAGE);
  assert_non_null(strstr(e.text, "40 lines: a prompt of "));
  assert_non_null(strstr(e.text, "the context of "));
  (void)snprintf(yaml, sizeof yaml, "name: x\ntask: longeval/lines\nmodel: nope\nlengths: [2]\nmethods: [dense]\n");
  assert_int_equal(plan(&p, yaml, &e), ICE_DATA);
  (void)snprintf(yaml, sizeof yaml, "name: x\ntask: longeval/lines\nmodel: %s\nlengths: [3]\nmethods: [dense]\n", scratch_path("tiny"));
  assert_int_equal(plan(&p, yaml, &e), ICE_DATA);
  assert_non_null(strstr(e.text, "data make longeval/lines"));
}

/* --- the database ----------------------------------------------------------------------------------------------------- */

static int take(void *ctx, int columns, char **names, char **values) {
  char *out = ctx;
  (void)names;
  for (int i = 0; i < columns; i++) (void)snprintf(out + strlen(out), 1000 - strlen(out), "%s|", values[i] ? values[i] : "NULL");
  return 0;
}
static const char *ask(store *s, const char *sql) {
  static char out[4][1000];
  static int next;
  char *text = out[next++ % 4];
  ice_err e = {0};
  text[0] = 0;
  if (store_query(s, sql, NULL, 0, take, text, &e) != ICE_OK) fail_msg("%s", e.text);
  return text;
}

static void test_store__answers_and_new_marks(void **state) {
  (void)state;
  store *s;
  ice_err e = {0};
  const store_metric m[] = {{"accuracy", 0.5, 0.1, 0.9}, {"length", 200, NAN, NAN}, {"cut_tokens", 3, NAN, NAN}};
  store_answer a[] = {{0, "q", "seven 'x'", "[\"7\"]", 100, 3, 0}, {1, "r", "", "[]", 90, 0, NAN}};
  const store_cell c = {.key = "k", .experiment = "x", .task = "longeval/lines", .model = "m", .method = "dense", .method_version = "1", .params = "{}",
                        .isa = "avx2", .status = "ok", .threads = 1, .metric = m, .n_metrics = 3, .answer = a, .n_answers = 2};
  if (store_open(scratch_path("r.db"), STORE_WRITE, &s, &e) != ICE_OK || store_put(s, &c, 0, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_string_equal(ask(s, "SELECT item, id, text, expected, tokens, cut, mark FROM answer ORDER BY item"), "0|q|seven 'x'|[\"7\"]|100|3|0.0|1|r||[]|90|0|NULL|");
  assert_string_equal(ask(s, "SELECT length, accuracy FROM results"), "200|0.5|");
  const char *before = ask(s, "SELECT digest FROM attempt");
  const store_metric better = {"accuracy", 0.75, 0.2, 0.95};
  a[0].mark = 1;
  if (store_remark(s, 1, &better, 1, a, 2, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_string_equal(ask(s, "SELECT accuracy, accuracy_hi, length FROM results"), "0.75|0.95|200|");
  assert_string_equal(ask(s, "SELECT mark FROM answer ORDER BY item"), "1.0|NULL|");
  assert_string_not_equal(before, ask(s, "SELECT digest FROM attempt"));
  a[0].mark = 0;
  if (store_remark(s, 1, m, 1, a, 2, &e) != ICE_OK) fail_msg("%s", e.text);
  assert_string_equal(before, ask(s, "SELECT digest FROM attempt")); /* the same row again */
  store_close(s);
}

/* --- the real model ---------------------------------------------------------------------------------------------------- */

static char *stories;

static void test_real__stories__dense_and_iceformer(void **state) {
  (void)state;
  if (!stories) {
    print_message("SKIP no llama/stories260K.f32.gguf below $ICEBENCH_DATA_DIR\n");
    skip();
  }
  cell_job j = job_of("dense", "{}");
  cell_result a, b;
  make_lines(2);
  j.task = "longeval/lines", j.length = 2, j.model_path = stories, j.answer_tokens = 12;
  execute(&j, &a);
  j.method = "topk", j.params_json = "{\"k\": 512}";
  execute(&j, &b);
  for (int i = 0; i < 3; i++) {
    assert_string_equal(a.answer[i].text, b.answer[i].text);
    assert_true(strlen(a.answer[i].text) > 5); /* it tells a story, whatever it is asked */
  }
  cell_result_free(&a), cell_result_free(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, scratch_teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_marks__rouge__geometric_mean_of_means),
      cmocka_unit_test(test_marks__intervals),
      cmocka_unit_test(test_marks__stored_right_answers),
      TEST(test_cell__exact_methods_say_the_same),
      TEST(test_cell__right_answers__full_marks),
      TEST(test_cell__context__story_is_cut_question_stays),
      TEST(test_cell__lines__hits_are_predictions),
      TEST(test_result__answers__round_trip),
      TEST(test_plan__lengths_and_context),
      TEST(test_store__answers_and_new_marks),
      TEST(test_real__stories__dense_and_iceformer),
  };
  char path[4096];
  const char *root = getenv("ICEBENCH_DATA_DIR"); /* tests change it */
  (void)snprintf(path, sizeof path, "%s/llama/stories260K.f32.gguf", root ? root : "");
  stories = root && file_is_regular(path) ? realpath(path, NULL) : NULL;
  const int rc = cmocka_run_group_tests(tests, NULL, NULL);
  free(stories);
  return rc;
}
