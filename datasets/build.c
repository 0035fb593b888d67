/* build.c - see build.h */
#include "datasets/build.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/rng.h"

enum { DRAW_SEED = 0x64726177 }; /* "draw" */

static int grow_rows(task_builder *b, ice_err *e) {
  task_data *d = b->d;
  const int64_t rows = 2 * b->row_room + 1024;
  int64_t *start = realloc(d->start, (size_t)(rows * d->inputs + 1) * sizeof *start);
  if (start) d->start = start;
  int32_t *label = realloc(d->label, (size_t)rows * sizeof *label);
  if (label) d->label = label;
  if (!start || !label) return ice_fail(e, ICE_INTERNAL, "out of memory for %" PRId64 " examples", rows);
  if (!b->row_room) d->start[0] = 0;
  b->row_room = rows;
  return ICE_OK;
}

int task_build_room(task_builder *b, int64_t most, int32_t **ids, ice_err *e) {
  task_data *d = b->d;
  if (d->count == b->row_room) ICE_TRY(grow_rows(b, e));
  const int64_t used = d->start[b->sequences];
  if (used + most > b->token_room) {
    const int64_t room = b->token_room + b->token_room / 2 + most + (1 << 16);
    int32_t *t = realloc(d->tokens, (size_t)room * sizeof *t);
    if (!t) return ice_fail(e, ICE_INTERNAL, "out of memory for %" PRId64 " tokens", room);
    d->tokens = t, b->token_room = room;
  }
  *ids = d->tokens + used;
  return ICE_OK;
}

void task_build_close(task_builder *b, int64_t n) {
  b->d->start[b->sequences + 1] = b->d->start[b->sequences] + n;
  b->sequences++;
}

void task_build_example(task_builder *b, int32_t label) { b->d->label[b->d->count++] = label; }

int task_build_finish(task_builder *b, const char *name, ice_err *e) {
  task_data *d = b->d;
  if (!d->count) return ice_fail(e, ICE_DATA, "%s: holds no examples; make or fetch it again", name);
  int32_t *t = realloc(d->tokens, (size_t)d->start[b->sequences] * sizeof *t);
  if (t) d->tokens = t;
  return ICE_OK;
}

int task_build_text(task_builder *b, const uint8_t *p, size_t n, int64_t most, ice_err *e) {
  const int64_t keep = (int64_t)n < most ? (int64_t)n : most;
  int32_t *ids = NULL;
  ICE_TRY(task_build_room(b, keep ? keep : 1, &ids, e));
  ids[0] = 0;
  for (int64_t i = 0; i < keep; i++) ids[i] = p[i] + 1;
  task_build_close(b, keep ? keep : 1);
  return ICE_OK;
}

int task_build_pixels(task_builder *b, const uint8_t *p, int64_t n, ice_err *e) {
  int32_t *ids = NULL;
  ICE_TRY(task_build_room(b, n, &ids, e));
  while (n > 1 && !p[n - 1]) n--;
  for (int64_t i = 0; i < n; i++) ids[i] = p[i];
  task_build_close(b, n);
  return ICE_OK;
}

static int is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

void task_strip(const uint8_t **p, size_t *n) {
  while (*n && is_space(**p)) ++*p, --*n;
  while (*n && is_space((*p)[*n - 1])) --*n;
}

void task_permute(uint64_t seed, int64_t n, int64_t *permutation) {
  attn_rng r;
  attn_rng_seed(&r, seed, (uint64_t)n);
  for (int64_t i = 0; i < n; i++) permutation[i] = i;
  for (int64_t i = n - 1; i > 0; i--) {
    const int64_t j = (int64_t)attn_rng_below(&r, (uint64_t)i + 1), x = permutation[i];
    permutation[i] = permutation[j];
    permutation[j] = x;
  }
}

void task_set_origin(task_data *d, const char *path) {
  (void)snprintf(d->origin, sizeof d->origin, "%.*s", (int)sizeof d->origin - 1, path);
}

/* Keeps the examples whose mark is `mark`, in their order and in place: nothing moves upwards. */
static void keep_marked(task_data *d, const uint8_t *marks, uint8_t mark) {
  int64_t at = 0, kept = 0;
  for (int64_t i = 0; i < d->count; i++) {
    if (marks[i] != mark) continue;
    for (int s = 0; s < d->inputs; s++) {
      const int64_t length = task_len(d, i, s);
      memmove(d->tokens + at, task_ids(d, i, s), (size_t)length * sizeof *d->tokens);
      d->start[kept * d->inputs + s] = at;
      at += length;
    }
    d->label[kept++] = d->label[i];
  }
  d->count = kept;
  d->start[kept * d->inputs] = at;
}

/* Marks n examples of a fixed permutation with 1, the others with 0; free() the marks. NULL: out of memory. */
static uint8_t *mark_drawn(const task_data *d, int64_t n, ice_err *e) {
  int64_t *order = malloc((size_t)d->count * sizeof *order);
  uint8_t *marks = calloc((size_t)d->count, 1);
  if (order && marks) {
    task_permute(DRAW_SEED, d->count, order);
    for (int64_t i = 0; i < n; i++) marks[order[i]] = 1;
  } else {
    (void)ice_fail(e, ICE_INTERNAL, "out of memory for %" PRId64 " examples", d->count);
    free(marks), marks = NULL;
  }
  free(order);
  return marks;
}

int task_draw(task_data *d, int64_t n, ice_err *e) {
  if (n >= d->count) return ICE_OK;
  uint8_t *marks = mark_drawn(d, n, e);
  if (!marks) return ICE_INTERNAL;
  keep_marked(d, marks, 1);
  free(marks);
  return ICE_OK;
}

static void *copy_of(const void *from, size_t bytes) {
  void *to = malloc(bytes ? bytes : 1);
  if (to) memcpy(to, from, bytes);
  return to;
}

int task_hold_out(task_data *train, int64_t n, task_data *dev, ice_err *e) {
  *dev = (task_data){0};
  if (n < 1 || n >= train->count)
    return ice_fail(e, ICE_USAGE, "hold_out = %" PRId64 ", allowed 1..%" PRId64 " of %s", n, train->count - 1, train->origin);
  const size_t starts = (size_t)(train->count * train->inputs + 1);
  uint8_t *marks = mark_drawn(train, n, e);
  if (!marks) return ICE_INTERNAL;
  *dev = *train;
  dev->tokens = copy_of(train->tokens, (size_t)train->start[starts - 1] * sizeof *dev->tokens);
  dev->start = copy_of(train->start, starts * sizeof *dev->start);
  dev->label = copy_of(train->label, (size_t)train->count * sizeof *dev->label);
  const int rc = dev->tokens && dev->start && dev->label ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for a dev split");
  if (rc == ICE_OK) {
    keep_marked(dev, marks, 1);
    keep_marked(train, marks, 0);
  } else
    task_data_free(dev);
  free(marks);
  return rc;
}
