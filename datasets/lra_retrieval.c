/* lra_retrieval.c - Retrieval of the Long Range Arena: are two papers of the ACL anthology related? Bytes of both texts.
 *
 * Files   tsv_data/new_aan_pairs.{train,eval,test}.tsv: label (0.0 or 1.0), id, id, text, text; quotes are ordinary characters. The
 *         texts are fed as they stand, escapes included, as the LRA and Nystromformer pipelines do.
 * Ids     byte + 1; 4,000 bytes of each text count, padded to 4096.
 * Source  google-research/long-range-arena: lra_benchmarks/matching/input_pipeline.py. */
#include "datasets/lra_retrieval.h"

#include <inttypes.h>
#include <string.h>

#include "datasets/build.h"
#include "datasets/source.h"

enum { LONGEST = 4000, COLUMNS = 5 };
#define MOST_FILE_BYTES ((size_t)32 << 30) /* mapped where the file is plain */

static int parse_label(const uint8_t *p, size_t n, int *label) {
  static const char *const known[] = {"0", "1", "0.0", "1.0"};
  for (int i = 0; i < 4; i++)
    if (n == strlen(known[i]) && !memcmp(p, known[i], n)) {
      *label = i % 2;
      return 1;
    }
  return 0;
}

static int parse_row(task_builder *b, const uint8_t *p, const uint8_t *end, const char *name, int64_t line, ice_err *e) {
  const uint8_t *at[COLUMNS];
  size_t n[COLUMNS];
  int label, column = 0;
  for (const uint8_t *from = p; column < COLUMNS; column++) {
    const uint8_t *tab = memchr(from, '\t', (size_t)(end - from));
    if (column == COLUMNS - 1 ? tab != NULL : tab == NULL) break;
    at[column] = from, n[column] = (size_t)((tab ? tab : end) - from);
    from = tab ? tab + 1 : end;
  }
  if (column < COLUMNS)
    return ice_fail(e, ICE_DATA, "%s:%" PRId64 ": %s; expected label, id, id, text, text with tabs between", name, line,
                    column == COLUMNS - 1 ? "more than 5 columns" : "fewer than 5 columns");
  if (!parse_label(at[0], n[0], &label))
    return ice_fail(e, ICE_DATA, "%s:%" PRId64 ": label '%.*s', allowed 0, 1, 0.0, 1.0", name, line, (int)(n[0] > 12 ? 12 : n[0]), (const char *)at[0]);
  ICE_TRY(task_build_text(b, at[3], n[3], LONGEST, e));
  ICE_TRY(task_build_text(b, at[4], n[4], LONGEST, e));
  task_build_example(b, label);
  return ICE_OK;
}

static int parse_rows(task_builder *b, const uint8_t *p, const uint8_t *end, const char *name, ice_err *e) {
  for (int64_t line = 1; p < end; line++) {
    const uint8_t *stop = memchr(p, '\n', (size_t)(end - p));
    if (!stop) stop = end;
    ICE_TRY(parse_row(b, p, stop > p && stop[-1] == '\r' ? stop - 1 : stop, name, line, e));
    p = stop + (stop < end);
  }
  return task_build_finish(b, name, e);
}

int retrieval_parse(const uint8_t *p, size_t n, const char *name, task_data *out, ice_err *e) {
  *out = (task_data){.inputs = 2};
  task_builder b = {.d = out};
  const int rc = parse_rows(&b, p, p + n, name, e);
  if (rc != ICE_OK) task_data_free(out);
  return rc;
}

static int load(const char *root, task_split split, task_data *out, int *absent, ice_err *e) {
  static const char *const places[] = {"lra/tsv_data", "lra/lra_release/lra_release/tsv_data", "lra/lra_release/tsv_data",
                                       "lra_release/lra_release/tsv_data", "lra_release/tsv_data", "tsv_data", "lra/retrieval", NULL};
  static const char *const files[] = {"new_aan_pairs.train.tsv", "new_aan_pairs.eval.tsv", "new_aan_pairs.test.tsv", NULL};
  char dir[FILE_PATH], path[FILE_PATH];
  int found;
  source s;
  ICE_TRY(source_locate(root, places, files, dir, &found, e));
  *absent = !found;
  if (!found) return ice_fail(e, ICE_DATA, "%s: holds no tsv_data/new_aan_pairs", root);
  ICE_TRY(source_find(dir, files[split], path, &found, e));
  if (!found) return ice_fail(e, ICE_DATA, "%s/%s: missing beside the other splits; fetch the set again", dir, files[split]);
  ICE_TRY(source_open(path, MOST_FILE_BYTES, &s, e));
  const int rc = retrieval_parse(s.p, s.n, path, out, e);
  if (rc == ICE_OK) {
    out->hash = s.hash, out->official = 1;
    task_set_origin(out, path);
  }
  source_close(&s);
  return rc;
}

static const char *const inside[] = {"lra_release/lra_release/tsv_data", "lra_release/tsv_data", "tsv_data", NULL};
static const task_release release = {.url = LRA_RELEASE_URL, .file = LRA_RELEASE_FILE, .inside = inside, .into = "lra/tsv_data"};

const task task_lra_retrieval = {
    .name = "lra/retrieval",
    .doc = "are two papers related? 2 x 4,000 bytes; 2 classes",
    .metric = "accuracy",
    .source = "fetch tsv_data/ of " LRA_RELEASE_URL " (a tar, 7.7 GB) into lra/ below a folder of $ICEBENCH_DATA_DIR; lra/retrieval-imdb "
              "stands in for it",
    .release = &release,
    .vocab = 512,
    .positions = 4096,
    .classes = 2,
    .inputs = 2,
    .official_count = {147086, 18090, 17437},
    .load = load,
};
