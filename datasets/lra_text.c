/* lra_text.c - Text of the Long Range Arena: is a film review positive? Bytes of IMDb reviews, 4,000 or 1,000 of them.
 *
 * Ids     byte + 1; the first 4000 (or 1000) bytes count, padded to 4096 (1024). UTF-8 is taken byte by byte, HTML stays.
 * Splits  The set has no dev split: as in the LRA pipeline, dev is test. A checkpoint chosen on dev has seen test accuracies.
 * Source  google-research/long-range-arena: lra_benchmarks/text_classification/input_pipeline.py; mlpen/Nystromformer:
 *         LRA/datasets/text.py, issue 13 (the published numbers are those of 4K). */
#include "datasets/build.h"
#include "datasets/imdb.h"

static int build(const imdb *m, int64_t most, task_data *out, ice_err *e) {
  *out = (task_data){.inputs = 1, .hash = m->hash, .official = m->official, .note = m->official ? NULL : IMDB_TABLE_NOTE};
  task_builder b = {.d = out};
  task_set_origin(out, m->origin);
  for (int64_t i = 0; i < m->count; i++) {
    ICE_TRY(task_build_text(&b, m->review[i].p, m->review[i].n, most, e));
    task_build_example(&b, m->review[i].label);
  }
  return task_build_finish(&b, m->origin, e);
}

static int load(const char *root, task_split split, int64_t most, task_data *out, int *absent, ice_err *e) {
  imdb m;
  ICE_TRY(imdb_load(root, split != TASK_TRAIN, &m, absent, e));
  const int rc = build(&m, most, out, e);
  imdb_free(&m);
  if (rc != ICE_OK) task_data_free(out);
  return rc;
}
static int load_4k(const char *root, task_split split, task_data *out, int *absent, ice_err *e) {
  return load(root, split, 4000, out, absent, e);
}
static int load_1k(const char *root, task_split split, task_data *out, int *absent, ice_err *e) {
  return load(root, split, 1000, out, absent, e);
}

#define TEXT(length, L, loader)                                                                                        \
  .doc = "sentiment of a film review, " length " bytes; 2 classes; dev is test", .metric = "accuracy",                 \
  .source = "fetch https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz (80 MB) into lra/ below a folder "  \
            "of $ICEBENCH_DATA_DIR",                                                                                   \
  .release = &imdb_release, .vocab = 512, /* 257 ids; the original model reserves 512 rows */                          \
      .positions = (L), .classes = 2, .inputs = 1, .official_count = {25000, 25000, 25000}, .balanced = {1, 1, 1},     \
  .load = (loader)

const task task_lra_text = {.name = "lra/text", TEXT("the first 4,000", 4096, load_4k)};
const task task_lra_text_1k = {.name = "lra/text-1k", TEXT("the first 1,000", 1024, load_1k)};
