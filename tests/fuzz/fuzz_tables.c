/* fuzz_tables.c - any bytes as IMDb table, Retrieval table, CIFAR-10 records, Pathfinder list or picture: refused with one line, or
 * sane examples. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/imdb.h"
#include "datasets/lra_image.h"
#include "datasets/lra_pathfinder.h"
#include "datasets/lra_retrieval.h"

static void refused(const ice_err *e) {
  if (!e->text[0] || strchr(e->text, '\n')) abort();
}

static void sane(task_data *d, int classes, int vocab, int64_t most) {
  for (int64_t i = 0; i < d->count; i++) {
    if (d->label[i] < 0 || d->label[i] >= classes) abort();
    for (int s = 0; s < d->inputs; s++) {
      const int64_t n = task_len(d, i, s);
      if (n < 1 || n > most) abort();
      for (int64_t k = 0; k < n; k++)
        if (task_ids(d, i, s)[k] < 0 || task_ids(d, i, s)[k] >= vocab) abort();
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  task_data d;
  ice_err e = {0};
  if (retrieval_parse(data, size, "input", &d, &e) != ICE_OK) refused(&e);
  else sane(&d, 2, 257, 4000), task_data_free(&d);

  imdb m;
  e = (ice_err){0};
  if (imdb_parse(data, size, "input", &m, &e) != ICE_OK) refused(&e);
  for (int64_t i = 0; i < m.count; i++)
    if (!m.review[i].n || m.review[i].p < data || m.review[i].p + m.review[i].n > data + size || memchr(m.review[i].p, '\n', m.review[i].n)) abort();
  imdb_free(&m);

  for (int rgb = 0; rgb < 2; rgb++) {
    d = (task_data){.inputs = 1};
    task_builder b = {.d = &d};
    e = (ice_err){0};
    if (image_parse(data, size, rgb, "input", 0, NULL, 0, &b, &e) != ICE_OK) refused(&e);
    else sane(&d, 10, 256, IMAGE_PIXELS);
    task_data_free(&d);
  }

  pathfinder_list list = {0};
  e = (ice_err){0};
  if (pathfinder_parse(data, size, "input", 0, &list, &e) != ICE_OK) refused(&e);
  for (int64_t i = 0; i < list.count; i++)
    if (list.row[i].label & ~1 || !memchr(list.row[i].name, 0, sizeof list.row[i].name)) abort();
  free(list.row);

  uint8_t pixels[PATHFINDER_PIXELS];
  e = (ice_err){0};
  if (pathfinder_png(data, size, "input", pixels, &e) != ICE_OK) refused(&e);
  return 0;
}
