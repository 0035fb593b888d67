/* zeroscrolls.c - ZeroSCROLLS: ten tasks on long documents, asked without examples.
 *
 * Layout  zeroscrolls/<task>.zip as released (validation.jsonl and test.jsonl in it, or in a folder of it), the same unpacked, or one
 *         zeroscrolls/<task>.jsonl of other rows of the same form, which serves both splits and is named so in reports.
 * Rows    Indices count code points. Rows of one id are one input with several right answers; `outputs`, a list of all of them, is read
 *         too (not an official field). Test answers were withheld at first: null is fine, such rows have predictions but no marks.
 * Source  tau-nlp/zero_scrolls, the data set tau/zero_scrolls on the Hugging Face hub; arXiv 2305.14196. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/jsonl.h"
#include "datasets/prompt.h"
#include "datasets/source.h"
#include "datasets/utf8.h"

#define MOST_FILE_BYTES ((size_t)1 << 31)

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for prompts"); }

/* --- rows ----------------------------------------------------------------------------------------------------------- */

/* A position in code points of the input as one in bytes; [least, end of the text]. */
static int read_index(const jsonl *j, const char *field, const char *text, size_t least, size_t *out, ice_err *e) {
  int64_t points;
  ICE_TRY(jsonl_int(j, field, 0, INT32_MAX, &points, e));
  const int64_t bytes = utf8_offset(text, points);
  if (bytes < 0) return jsonl_fail(j, e, "field '%s' = %" PRId64 " lies behind the end of the input", field, points);
  if ((size_t)bytes < least) return jsonl_fail(j, e, "field '%s' = %" PRId64 " lies before the field that should precede it", field, points);
  *out = (size_t)bytes;
  return ICE_OK;
}

static int read_spans(const jsonl *j, const char *text, prompt *p, ice_err *e) {
  size_t document = 0, document_end = 0;
  ICE_TRY(read_index(j, "document_start_index", text, 0, &document, e));
  ICE_TRY(read_index(j, "document_end_index", text, document, &document_end, e));
  ICE_TRY(read_index(j, "query_start_index", text, document_end, &p->query, e));
  return read_index(j, "query_end_index", text, p->query, &p->end, e);
}

static int add_answers(const jsonl *j, prompt *p, ice_err *e) {
  const char *one;
  json_t *all, *v;
  size_t i;
  if (json_object_get(j->row, "outputs")) {
    ICE_TRY(jsonl_strings(j, "outputs", 0, &all, e));
    json_array_foreach(all, i, v)
      if (!prompt_add_reference(p, json_string_value(v))) return no_memory(e);
    return ICE_OK;
  }
  ICE_TRY(jsonl_string(j, "output", 1, &one, e));
  return !one || prompt_add_reference(p, one) ? ICE_OK : no_memory(e);
}

static int read_row(const jsonl *j, prompt_set *out, ice_err *e) {
  const char *id, *text, *separator;
  ICE_TRY(jsonl_string(j, "id", 0, &id, e));
  ICE_TRY(jsonl_string(j, "input", 0, &text, e));
  if (!*id) return jsonl_fail(j, e, "field 'id' is empty");
  /* Further answers to an input stand behind it; a set has at most some hundreds of them. */
  for (prompt *p = out->item; p && p < out->item + out->count; p++) {
    if (strcmp(p->id, id)) continue;
    return strcmp(p->text, text) ? jsonl_fail(j, e, "id '%.60s' stands before with another input", id) : add_answers(j, p, e);
  }
  ICE_TRY(jsonl_string(j, "truncation_seperator", 0, &separator, e)); /* spelled so */
  prompt *p = prompt_add(out);
  if (!p) return no_memory(e);
  p->id = strdup(id), p->text = strdup(text), p->separator = strdup(separator);
  if (!p->id || !p->text || !p->separator) return no_memory(e);
  ICE_TRY(read_spans(j, text, p, e));
  return add_answers(j, p, e);
}

static int read_all(const source *f, prompt_set *out, ice_err *e) {
  jsonl j;
  int more = 1, rc = ICE_OK;
  jsonl_open(&j, f->p, f->n, f->path);
  while (rc == ICE_OK && (rc = jsonl_next(&j, &more, e)) == ICE_OK && more) rc = read_row(&j, out, e);
  jsonl_close(&j);
  return rc != ICE_OK || out->count ? rc : ice_fail(e, ICE_DATA, "%s: holds no rows; fetch it again", f->path);
}

/* --- files ---------------------------------------------------------------------------------------------------------- */

static int find_release(const char *id, const char *root, task_split split, char *path, int *any, int *found, ice_err *e) {
  char plain[80], nested[160], dir[FILE_PATH];
  const char *const names[] = {"validation.jsonl", "test.jsonl", NULL};
  (void)snprintf(plain, sizeof plain, "zeroscrolls/%s", id);
  (void)snprintf(nested, sizeof nested, "zeroscrolls/%s/%s", id, id);
  const char *const places[] = {plain, nested, NULL};
  *found = 0;
  ICE_TRY(source_locate(root, places, names, dir, any, e));
  return *any ? source_find(dir, split == TASK_TEST ? "test.jsonl" : "validation.jsonl", path, found, e) : ICE_OK;
}

static int load(const task *t, const char *root, task_split split, int64_t length, prompt_set *out, int *absent, ice_err *e) {
  const char *id = strchr(t->name, '/') + 1;
  char path[FILE_PATH], dir[FILE_PATH], file[80];
  int release = 0, found = 0;
  source f;
  (void)length; /* they come in one size */
  *absent = 1;
  if (split == TASK_TRAIN) return ice_fail(e, ICE_DATA, "%s: has no train split", t->name);
  ICE_TRY(find_release(id, root, split, path, &release, &found, e));
  if (!release) {
    (void)snprintf(file, sizeof file, "%s.jsonl", id);
    ICE_TRY(file_join(dir, root, "zeroscrolls", e));
    ICE_TRY(source_find(dir, file, path, &found, e));
  }
  *absent = !release && !found;
  if (!found) return ice_fail(e, ICE_DATA, "%s: no %s split below %s; fetch it again", t->name, task_split_name(split), root);
  ICE_TRY(source_open(path, MOST_FILE_BYTES, &f, e));
  out->hash = f.hash;
  out->official = release;
  out->note = release ? NULL : "not the official rows";
  (void)snprintf(out->origin, sizeof out->origin, "%.*s", (int)sizeof out->origin - 1, path);
  const int rc = read_all(&f, out, e);
  source_close(&f);
  return rc;
}

/* --- tasks ---------------------------------------------------------------------------------------------------------- */

#define HUB "https://huggingface.co/datasets/tau/zero_scrolls/resolve/main/"
#define ZEROSCROLLS(symbol, id, text, name_of_mark, what, tokens, is_brief, dev, test)                                                  \
  static const task_release symbol##_release = {.url = HUB id ".zip", .file = "zeroscrolls/" id ".zip"};                               \
  static const prompt_task symbol##_prompts = {.mark = (what), .answer_tokens = (tokens), .brief = (is_brief), .load = load};          \
  const task task_zeroscrolls_##symbol = {                                                                                             \
      .name = "zeroscrolls/" id, .doc = text, .metric = name_of_mark, .inputs = 1, .official_count = {0, dev, test},                   \
      .source = "fetch " HUB id ".zip into zeroscrolls/ below a folder of $ICEBENCH_DATA_DIR", .release = &symbol##_release,           \
      .prompts = &symbol##_prompts}

ZEROSCROLLS(gov_report, "gov_report", "a page about a report of the government", "rouge", ANSWER_ROUGE, 1024, 0, 20, 500);
ZEROSCROLLS(summ_screen_fd, "summ_screen_fd", "a paragraph about an episode of a series", "rouge", ANSWER_ROUGE, 512, 0, 20, 337);
ZEROSCROLLS(qmsum, "qmsum", "a question about a meeting, answered in sentences", "rouge", ANSWER_ROUGE, 512, 0, 20, 281);
ZEROSCROLLS(squality, "squality", "a question about a story, answered in a paragraph", "rouge", ANSWER_ROUGE, 512, 0, 20, 260);
ZEROSCROLLS(qasper, "qasper", "a question about a paper", "f1", ANSWER_F1, 128, 1, 20, 500);
ZEROSCROLLS(narrative_qa, "narrative_qa", "a question about a book or a film", "f1", ANSWER_F1, 64, 1, 20, 500);
ZEROSCROLLS(quality, "quality", "a question about a story with four answers to choose from", "accuracy", ANSWER_CHOICE, 10, 1, 20, 500);
ZEROSCROLLS(musique, "musique", "a question that needs several paragraphs", "f1", ANSWER_F1, 32, 1, 20, 500);
ZEROSCROLLS(space_digest, "space_digest", "the share of positive reviews of a hotel", "exponential similarity", ANSWER_PERCENT, 36, 1, 20, 500);
ZEROSCROLLS(book_sum_sort, "book_sum_sort", "the order of shuffled summaries of chapters", "concordance index", ANSWER_ORDER, 256, 1, 20, 500);

/* A stand-in of the same form with known answers: films instead of hotels (the files of space_digest may have none). */
static const prompt_task imdb_prompts = {.mark = ANSWER_PERCENT, .answer_tokens = 36, .brief = 1, .load = load};
const task task_zeroscrolls_space_digest_imdb = {
    .name = "zeroscrolls/space_digest_imdb", .doc = "a stand-in for space_digest: the share of positive reviews of a film", .metric = "exponential similarity",
    .inputs = 1, .official_count = {0, 0, 50}, .source = "put space_digest_imdb.jsonl, rows of the form of zeroscrolls/space_digest, into zeroscrolls/ below a folder of $ICEBENCH_DATA_DIR",
    .prompts = &imdb_prompts};
