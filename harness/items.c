/* items.c - see items.h */
#include "harness/items.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(ice_err *e) { return ice_fail(e, ICE_INTERNAL, "out of memory for predictions"); }

static int by_item(const void *a, const void *b) {
  const int64_t x = ((const items_mark *)a)->item, y = ((const items_mark *)b)->item;
  return (x > y) - (x < y);
}

static uint32_t hex_word(const char *text) { /* 8 digits of 4 bytes, little-endian */
  uint32_t v = 0;
  for (int byte = 3; byte >= 0; byte--)
    for (int k = 0; k < 2; k++) {
      const char digit = text[2 * byte + k];
      v = v << 4 | (uint32_t)(isdigit((unsigned char)digit) ? digit - '0' : digit - 'A' + 10);
    }
  return v;
}

int items_read(const char *predictions, const char *marks, items *out, ice_err *e) {
  enum { TRIPLE = 24 }; /* (item, expected, predicted) of 4 bytes each, in hexadecimal */
  *out = (items){0};
  const size_t n = predictions ? strlen(predictions) / TRIPLE : 0, most = n ? n : marks ? strlen(marks) / 4 + 1 : 0;
  if (most && !(out->mark = malloc(most * sizeof *out->mark))) return no_memory(e);
  for (const char *at = predictions; out->n < n; at += TRIPLE)
    out->mark[out->n++] = (items_mark){(int32_t)hex_word(at), hex_word(at + 8) == hex_word(at + 16)};
  for (char *end = NULL; !n && marks && *marks; marks = end + (*end == ' ')) { /* "item mark item mark ..." */
    const int64_t item = strtoll(marks, &end, 10);
    out->mark[out->n++] = (items_mark){item, strtod(end, &end)};
  }
  if (out->n) qsort(out->mark, out->n, sizeof *out->mark, by_item);
  return ICE_OK;
}

void items_free(items *it) {
  free(it->mark);
  *it = (items){0};
}

static int is_hit(double mark) { return mark == 0.0 || mark == 1.0; }

int items_match(const items *a, const items *b, items_common *out, ice_err *e) {
  const size_t room = (a->n < b->n ? a->n : b->n) + 1;
  *out = (items_common){.a = malloc(2 * room * sizeof *out->a), .hits = 1};
  if (!out->a) return no_memory(e);
  out->b = out->a + room;
  for (size_t i = 0, k = 0; i < a->n && k < b->n;) {
    const int64_t x = a->mark[i].item, y = b->mark[k].item;
    if (x < y) i++;
    else if (y < x) k++;
    else {
      const double of_a = a->mark[i++].mark, of_b = b->mark[k++].mark;
      out->hits &= is_hit(of_a) && is_hit(of_b);
      out->count.only_a += of_a > of_b;
      out->count.only_b += of_b > of_a;
      out->a[out->n] = of_a, out->b[out->n++] = of_b;
    }
  }
  out->count.n = (int64_t)out->n;
  out->whole = out->n == a->n && out->n == b->n;
  return ICE_OK;
}

void items_common_free(items_common *c) {
  free(c->a);
  *c = (items_common){0};
}
