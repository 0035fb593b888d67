/* lra_retrieval_imdb.c - stand-in for lra/retrieval, whose data (AAN) may not be had: do two film reviews share their label?
 *
 * Same shape as Retrieval: two texts of up to 4,000 bytes through one encoder, two classes. Another question, so accuracies
 * compare with nothing published; times and errors of attention do. Every report calls the data a stand-in.
 * Pairs   Fixed: review i of a split meets one drawn by hash(i), of its own label for even pairs, of the other for odd ones.
 *         Dev is cut off train (one review in ten), so that choosing a checkpoint does not look at test. */
#include <stdlib.h>

#include "datasets/build.h"
#include "datasets/imdb.h"
#include "kernels/core/rng.h"

enum { LONGEST = 4000, SEED = 0x696d6462 }; /* "imdb" */

/* Indices of the reviews of a split. */
static int64_t choose(const imdb *m, task_split split, int64_t *index) {
  const int64_t dev = split == TASK_TEST ? 0 : m->count / 10;
  task_permute(SEED, m->count, index);
  if (split == TASK_DEV) return dev;
  for (int64_t i = dev; i < m->count; i++) index[i - dev] = index[i];
  return m->count - dev;
}

static int build(const imdb *m, task_split split, const int64_t *index, int64_t n, task_data *out, ice_err *e) {
  const int64_t pairs = split == TASK_TRAIN ? 2 * n : split == TASK_DEV ? n : n / 2;
  *out = (task_data){.inputs = 2, .hash = attn_hash(m->hash, SEED, (uint64_t)split), .standin = 1, .note = "stand-in data"};
  task_builder b = {.d = out};
  task_set_origin(out, m->origin);
  int64_t of[2] = {0, 0};
  for (int64_t i = 0; i < n; i++) of[m->review[index[i]].label]++;
  if (of[0] < 2 || of[1] < 2) return ice_fail(e, ICE_DATA, "%s: pairs need two reviews of each label", m->origin);
  for (int64_t i = 0; i < pairs; i++) {
    const imdb_review *x = m->review + index[i % n], *y;
    const int same = i % 2 == 0;
    uint64_t draw = 0;
    do y = m->review + index[attn_hash(SEED + (uint64_t)split, (uint64_t)i, draw++) % (uint64_t)n];
    while (y == x || (y->label == x->label) != same);
    ICE_TRY(task_build_text(&b, x->p, x->n, LONGEST, e));
    ICE_TRY(task_build_text(&b, y->p, y->n, LONGEST, e));
    task_build_example(&b, same);
  }
  return task_build_finish(&b, m->origin, e);
}

static int load(const char *root, task_split split, task_data *out, int *absent, ice_err *e) {
  imdb m;
  ICE_TRY(imdb_load(root, split == TASK_TEST, &m, absent, e));
  int64_t *index = malloc((size_t)m.count * sizeof *index);
  int rc = index ? build(&m, split, index, choose(&m, split, index), out, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  free(index);
  imdb_free(&m);
  if (rc != ICE_OK) task_data_free(out);
  return rc;
}

const task task_lra_retrieval_imdb = {
    .name = "lra/retrieval-imdb",
    .doc = "stand-in for lra/retrieval: do two film reviews share their label? 2 x 4,000 bytes; 2 classes",
    .metric = "accuracy",
    .source = "it is paired from lra/text: fetch https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz (80 MB) into lra/ "
              "below a folder of $ICEBENCH_DATA_DIR",
    .release = &imdb_release,
    .vocab = 512,
    .positions = 4096,
    .classes = 2,
    .inputs = 2,
    .official_count = {45000, 2500, 12500},
    .balanced = {1, 1, 1},
    .load = load,
};
