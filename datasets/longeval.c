/* longeval.c - see longeval.h. The loader; longeval_make.c has the generators. Prompts are fed as the file has them. */
#include "datasets/longeval.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/jsonl.h"
#include "datasets/manifest.h"
#include "datasets/source.h"

enum { MAX_LENGTH = 1000000, ANSWER_TOKENS_LINES = 100, ANSWER_TOKENS_TOPICS = 50 };
#define MOST_FILE_BYTES ((size_t)1 << 30)

static const int line_lengths[] = {200, 300, 400, 500, 600, 680, 700, 800, 900, 1000, 1100, 1200, 1350, 0};
static const int topic_lengths[] = {1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 100, 0};

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for prompts"); }

/* A message that no part of may be cut, and its answer. */
static int add(prompt_set *s, char *id, const char *text, const char *answer, ice_err *e) {
  prompt *p = id ? prompt_add(s) : NULL;
  if (!p) {
    free(id);
    return no_memory(e);
  }
  p->id = id;
  p->text = strdup(text);
  p->end = strlen(text);
  return p->text && prompt_add_reference(p, answer) ? ICE_OK : no_memory(e);
}

/* The name of the line that is asked for: a text, or a number in files with numbered lines. */
static int asked_name(const jsonl *j, char *name, size_t size, ice_err *e) {
  const json_t *pair = json_object_get(j->row, "random_idx"), *v = json_array_get(pair, 0);
  if (json_array_size(pair) != 2 || (!json_is_string(v) && !json_is_integer(v)) || !json_is_integer(json_array_get(pair, 1)))
    return jsonl_fail(j, e, "field 'random_idx': allowed [name of a line, its position]");
  const int n = json_is_string(v) ? snprintf(name, size, "%s", json_string_value(v)) : snprintf(name, size, "%lld", (long long)json_integer_value(v));
  return n > 0 && (size_t)n < size ? ICE_OK : jsonl_fail(j, e, "field 'random_idx': a name of 1..%zu bytes is allowed", size - 1);
}

/* Does the message have the line, with this number? */
static int check_line(const jsonl *j, const char *text, const char *name, int64_t number, ice_err *e) {
  char line[400];
  (void)snprintf(line, sizeof line, "line %s: REGISTER_CONTENT is <%" PRId64 ">", name, number);
  return strstr(text, line) ? ICE_OK : jsonl_fail(j, e, "the prompt has no '%s', which the answer is taken from", line);
}

static int read_lines(jsonl *j, int64_t length, prompt_set *out, ice_err *e) {
  const char *text;
  char name[300], answer[24], *id = NULL;
  int64_t number, lines;
  ICE_TRY(jsonl_string(j, "prompt", 0, &text, e));
  ICE_TRY(jsonl_int(j, "expected_number", 0, INT64_MAX, &number, e));
  ICE_TRY(jsonl_int(j, "num_lines", 1, MAX_LENGTH, &lines, e));
  ICE_TRY(asked_name(j, name, sizeof name, e));
  if (lines != length) return jsonl_fail(j, e, "field 'num_lines' = %" PRId64 ", the file is that of %" PRId64 " lines", lines, length);
  ICE_TRY(check_line(j, text, name, number, e));
  (void)snprintf(answer, sizeof answer, "%" PRId64, number);
  if (asprintf(&id, "%" PRId64 "_lines_%" PRId64, length, out->count) < 0) id = NULL;
  return add(out, id, text, answer, e);
}

static int read_topics(jsonl *j, int64_t length, prompt_set *out, ice_err *e) {
  const char *text;
  char *id = NULL;
  int64_t test;
  json_t *topics;
  double there[ANSWER_PARTS];
  ICE_TRY(jsonl_string(j, "prompt", 0, &text, e));
  ICE_TRY(jsonl_int(j, "test_id", 0, MAX_LENGTH, &test, e));
  ICE_TRY(jsonl_strings(j, "topics", 1, &topics, e));
  if ((int64_t)json_array_size(topics) != length)
    return jsonl_fail(j, e, "field 'topics' has %zu, the file is that of %" PRId64 " topics", json_array_size(topics), length);
  const char *first = json_string_value(json_array_get(topics, 0));
  if (!answer_score(ANSWER_TOPIC, text, &first, 1, there)) return no_memory(e);
  if (there[0] < 1) return jsonl_fail(j, e, "the prompt does not name the topic '%.60s', which the answer is", first);
  if (asprintf(&id, "%" PRId64 "_topics_%" PRId64, length, test) < 0) id = NULL;
  return add(out, id, text, first, e);
}

static int by_name(const void *a, const void *b) { return strcmp((*(const prompt *const *)a)->id, (*(const prompt *const *)b)->id); }
static int check_ids(const prompt_set *s, ice_err *e) {
  const prompt **p = malloc((size_t)s->count * sizeof *p);
  int rc = p ? ICE_OK : no_memory(e);
  for (int64_t i = 0; p && i < s->count; i++) p[i] = s->item + i;
  if (p) qsort((void *)p, (size_t)s->count, sizeof *p, by_name);
  for (int64_t i = 1; rc == ICE_OK && i < s->count; i++)
    if (!strcmp(p[i]->id, p[i - 1]->id)) rc = ice_fail(e, ICE_DATA, "%s: test %s stands twice", s->origin, p[i]->id);
  free((void *)p);
  return rc;
}

static int read_all(const source *f, int lines, int64_t length, prompt_set *out, ice_err *e) {
  jsonl j;
  int more = 1, rc = ICE_OK;
  jsonl_open(&j, f->p, f->n, f->path);
  while (rc == ICE_OK && (rc = jsonl_next(&j, &more, e)) == ICE_OK && more)
    rc = lines ? read_lines(&j, length, out, e) : read_topics(&j, length, out, e);
  jsonl_close(&j);
  if (rc == ICE_OK && !out->count) rc = ice_fail(e, ICE_DATA, "%s: holds no test cases; make or fetch it again", f->path);
  return rc == ICE_OK ? check_ids(out, e) : rc;
}

/* A set that says it was generated has, in its record, this very file. */
static int check_made(const json_t *made, const char *file, const source *f, ice_err *e) {
  const char *want = json_string_value(json_object_get(json_object_get(made, file), "xxh3"));
  char have[17];
  (void)snprintf(have, sizeof have, "%016" PRIx64, f->hash);
  if (!made || (want && !strcmp(want, have))) return ICE_OK;
  return ice_fail(e, ICE_DATA, "%s: checksum (xxh3) %s, " MANIFEST_FILE " beside it says %s; make the set again", f->path, have, want ? want : "nothing");
}

static int load(const task *t, const char *root, task_split split, int64_t length, prompt_set *out, int *absent, ice_err *e) {
  const int lines = t->prompts->mark == ANSWER_NUMBER;
  const char *const places[] = {lines ? "longeval/evaluation/lines/testcases" : "longeval/evaluation/topics/testcases",
                                lines ? "longeval/lines" : "longeval/topics", NULL};
  char dir[FILE_PATH], path[FILE_PATH], file[64];
  int found = 0;
  json_t *made = NULL;
  source f;
  *absent = 1;
  if (split != TASK_TEST) return ice_fail(e, ICE_DATA, "%s: has a test split alone", t->name);
  (void)snprintf(file, sizeof file, "%" PRId64 "_%s.jsonl", length, t->prompts->length_of);
  const char *const names[] = {file, NULL};
  ICE_TRY(source_locate(root, places, names, dir, &found, e));
  if (found) ICE_TRY(source_find(dir, file, path, &found, e));
  if (!found) return ice_fail(e, ICE_DATA, "%s: no %s below %s", t->name, file, root);
  *absent = 0;
  ICE_TRY(manifest_read(dir, t->name, &made, e));
  int rc = source_open(path, MOST_FILE_BYTES, &f, e);
  if (rc == ICE_OK) {
    out->hash = f.hash;
    out->official = made == NULL;
    out->note = made ? "generated data" : NULL;
    (void)snprintf(out->origin, sizeof out->origin, "%.*s", (int)sizeof out->origin - 1, path);
    rc = check_made(made, file, &f, e);
    if (rc == ICE_OK) rc = read_all(&f, lines, length, out, e);
    source_close(&f);
  }
  json_decref(made);
  return rc;
}

#define UPSTREAM(kind)                                                                                                                 \
  "fetch longeval/evaluation/" kind "/testcases/ of https://github.com/DachengLi1/LongChat into longeval/evaluation/" kind "/testcases/ " \
  "below a folder of $ICEBENCH_DATA_DIR"

static const prompt_task lines_prompts = {
    .mark = ANSWER_NUMBER, .answer_tokens = ANSWER_TOKENS_LINES, .lengths = line_lengths, .length_of = "lines", .load = load};
static const prompt_task topics_prompts = {
    .mark = ANSWER_TOPIC, .answer_tokens = ANSWER_TOKENS_TOPICS, .lengths = topic_lengths, .length_of = "topics", .load = load};

const task task_longeval_lines = {.name = "longeval/lines",
                                  .doc = "the number in one of 200 to 1,350 lines; 50 cases of each length",
                                  .metric = "accuracy",
                                  .source = UPSTREAM("lines"),
                                  .inputs = 1,
                                  .official_count = {0, 0, 50},
                                  .make = longeval_make_lines,
                                  .prompts = &lines_prompts};
const task task_longeval_topics = {.name = "longeval/topics",
                                   .doc = "the first of 5 to 25 topics of a talk; 50 cases of each length",
                                   .metric = "accuracy",
                                   .source = UPSTREAM("topics"),
                                   .inputs = 1,
                                   .official_count = {0, 0, 50},
                                   .make = longeval_make_topics,
                                   .prompts = &topics_prompts};
