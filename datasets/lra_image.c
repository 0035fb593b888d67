/* lra_image.c - Image of the Long Range Arena: what does a gray CIFAR-10 picture show? 1,024 pixels as a sequence, 10 classes.
 *
 * Official  cifar-10-batches-bin/data_batch_{1..5}.bin, test_batch.bin (also in cifar-10-binary.tar.gz): label, R, G, B planes.
 * Copy      lra/image/{train,test}.gray.bin: label and gray plane, decoded from JPEG copies; named so in reports.
 * Ids       gray values 0..255; black pixels count as padding, as in the Nystromformer pipeline.
 * Splits    TFDS cuts train 90 : 10 after shuffling by hashes of its own; here a fixed permutation (task_permute) chooses dev.
 * Source    mlpen/Nystromformer LRA/datasets/cifar10.py; tensorflow/python/ops/image_ops_impl.py. */
#include "datasets/lra_image.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "datasets/source.h"
#include "kernels/core/rng.h"

enum { SEED = 0x6369666172, CLASSES = 10 }; /* "cifar" */
#define MOST_FILE_BYTES ((size_t)1 << 30)

uint8_t image_gray(uint8_t r, uint8_t g, uint8_t b) {
  const float f = (0.2989f * (float)r + 0.5870f * (float)g + 0.1140f * (float)b) / 255.0f;
  return (uint8_t)(255.5f * f);
}

int image_parse(const uint8_t *p, size_t n, int rgb, const char *name, int64_t first, const uint8_t *chosen, int64_t n_chosen,
                task_builder *b, ice_err *e) {
  const size_t record = 1 + (size_t)IMAGE_PIXELS * (rgb ? 3 : 1);
  uint8_t gray[IMAGE_PIXELS];
  for (size_t at = 0; at < n; at += record) {
    const int64_t k = (int64_t)(at / record);
    if (n - at < record)
      return ice_fail(e, ICE_DATA, "%s: record %" PRId64 " at byte %zu is cut short: %zu of %zu bytes; fetch it again", name, k + 1, at, n - at, record);
    if (p[at] >= CLASSES)
      return ice_fail(e, ICE_DATA, "%s: record %" PRId64 " at byte %zu has label %d, allowed 0..9", name, k + 1, at, p[at]);
    if (chosen && (first + k >= n_chosen || !chosen[first + k])) continue;
    const uint8_t *pixel = p + at + 1;
    if (rgb) {
      for (int i = 0; i < IMAGE_PIXELS; i++) gray[i] = image_gray(pixel[i], pixel[i + IMAGE_PIXELS], pixel[i + 2 * IMAGE_PIXELS]);
      pixel = gray;
    }
    ICE_TRY(task_build_pixels(b, pixel, IMAGE_PIXELS, e));
    task_build_example(b, p[at]);
  }
  return ICE_OK;
}

/* A set found below a root. */
typedef struct layout {
  char dir[FILE_PATH];
  int rgb;
} layout;

static int find_layout(const char *root, layout *l, int *found, ice_err *e) {
  static const char *const places[] = {"lra/cifar-10-batches-bin",       "lra/cifar-10-binary", "lra/image/cifar-10-batches-bin",
                                       "lra/image/cifar-10-binary",      "cifar-10-batches-bin", "cifar-10-binary",
                                       "lra/image",                      NULL};
  static const char *const batches[] = {"data_batch_1.bin", "test_batch.bin", NULL};
  static const char *const copies[] = {"train.gray.bin", "test.gray.bin", NULL}, *const copy_places[] = {"lra/image", NULL};
  ICE_TRY(source_locate(root, places, batches, l->dir, found, e));
  l->rgb = *found;
  return *found ? ICE_OK : source_locate(root, copy_places, copies, l->dir, found, e);
}

/* chosen [count] = 1 for the images of a split of the training files. */
static uint8_t *choose(int64_t count, task_split split) {
  int64_t *order = malloc((size_t)count * sizeof *order + 1);
  uint8_t *chosen = malloc((size_t)count + 1);
  if (order && chosen) {
    task_permute(SEED, count, order);
    for (int64_t i = 0; i < count; i++) chosen[order[i]] = (i < count / 10) == (split == TASK_DEV);
  } else {
    free(chosen);
    chosen = NULL;
  }
  free(order);
  return chosen;
}

static int read_files(const layout *l, task_split split, source *s, int count, task_data *out, ice_err *e) {
  const int64_t record = 1 + IMAGE_PIXELS * (l->rgb ? 3 : 1);
  int64_t total = 0, first = 0;
  task_builder b = {.d = out};
  uint64_t hash = 0;
  for (int i = 0; i < count; i++) total += (int64_t)s[i].n / record;
  uint8_t *chosen = split == TASK_TEST ? NULL : choose(total, split);
  if (split != TASK_TEST && !chosen) return ice_fail(e, ICE_INTERNAL, "out of memory");
  int rc = ICE_OK;
  for (int i = 0; i < count && rc == ICE_OK; i++) {
    rc = image_parse(s[i].p, s[i].n, l->rgb, s[i].path, first, chosen, total, &b, e);
    first += (int64_t)s[i].n / record;
    hash = count == 1 ? s[i].hash : attn_hash(hash, s[i].hash, 0);
  }
  free(chosen);
  if (rc == ICE_OK) rc = task_build_finish(&b, l->dir, e);
  out->hash = hash;
  task_set_origin(out, count == 1 ? s[0].path : l->dir);
  return rc;
}

static int load(const char *root, task_split split, task_data *out, int *absent, ice_err *e) {
  layout l;
  source s[5] = {{0}};
  char path[FILE_PATH], name[32];
  int found, count = 0, rc = ICE_OK;
  ICE_TRY(find_layout(root, &l, &found, e));
  *absent = !found;
  if (!found) return ice_fail(e, ICE_DATA, "%s: holds no cifar-10-batches-bin", root);
  const int files = l.rgb && split != TASK_TEST ? 5 : 1;
  for (; count < files && rc == ICE_OK; count++) {
    if (!l.rgb) (void)snprintf(name, sizeof name, "%s.gray.bin", split == TASK_TEST ? "test" : "train");
    else if (split == TASK_TEST) (void)strcpy(name, "test_batch.bin");
    else (void)snprintf(name, sizeof name, "data_batch_%d.bin", count + 1);
    rc = source_find(l.dir, name, path, &found, e);
    if (rc == ICE_OK && !found) rc = ice_fail(e, ICE_DATA, "%s/%s: missing beside the other files; fetch the set again", l.dir, name);
    if (rc == ICE_OK) rc = source_open(path, MOST_FILE_BYTES, &s[count], e);
  }
  *out = (task_data){.inputs = 1, .official = l.rgb, .note = l.rgb ? NULL : "gray values of JPEG copies"};
  if (rc == ICE_OK) rc = read_files(&l, split, s, count, out, e);
  for (int i = 0; i < files; i++) source_close(&s[i]);
  if (rc != ICE_OK) task_data_free(out);
  return rc;
}

static const task_release release = {.url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                                     .file = "lra/cifar-10-binary.tar.gz",
                                     .bytes = 170052171,
                                     .sha256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"};

const task task_lra_image = {
    .name = "lra/image",
    .doc = "class of a gray CIFAR-10 picture, 1,024 pixels; 10 classes",
    .metric = "accuracy",
    .source = "fetch https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (162 MB) into lra/ below a folder of $ICEBENCH_DATA_DIR",
    .release = &release,
    .vocab = 512, /* 256 gray values; the original model reserves 512 rows */
    .positions = 1024,
    .classes = CLASSES,
    .inputs = 1,
    .official_count = {45000, 5000, 10000},
    .balanced = {0, 0, 1},
    .load = load,
};
