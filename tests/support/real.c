/* real.c - see real.h */
#include "tests/support/real.h"

#include <fts.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "datasets/jsonl.h"
#include "datasets/source.h"

const char *real_file(const char *name) {
  static char path[4096];
  const char *root = getenv("ICEBENCH_DATA_DIR");
  (void)snprintf(path, sizeof path, "%s/%s", root ? root : "", name);
  if (!root || access(path, R_OK)) {
    print_message("SKIP ICEBENCH_DATA_DIR is not set, or has no %s\n", name);
    skip();
  }
  return path;
}

/* --- all text ------------------------------------------------------------------------------------------------------- */

typedef struct texts {
  FILE *to;
  size_t seen, written, every; /* lines of this file so far; bytes of all files; one line of so many */
} texts;

static void take_lines(texts *t, const char *p, size_t n) {
  for (const char *end = p + n; p < end;) {
    const char *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
    if (stop > p && t->seen++ % t->every == 0) {
      t->written += fwrite(p, 1, (size_t)(stop - p), t->to) + 1;
      (void)fputc('\n', t->to);
    }
    p = stop + 1;
  }
}

static void take_json(texts *t, const json_t *v) {
  const char *key;
  json_t *child;
  size_t i;
  if (json_is_string(v)) take_lines(t, json_string_value(v), json_string_length(v));
  json_object_foreach((json_t *)v, key, child) take_json(t, child);
  json_array_foreach(v, i, child) take_json(t, child);
}

static void take_file(texts *t, const char *path, size_t budget) {
  source s;
  jsonl j;
  ice_err e = {0};
  if (source_open(path, 1 << 30, &s, &e) != ICE_OK) fail_msg("%s", e.text);
  t->seen = 0;
  t->every = budget ? s.n / budget + 1 : 1;
  if (strstr(path, ".jsonl")) {
    jsonl_open(&j, s.p, s.n, path);
    for (int more = 1; more;) {
      if (jsonl_next(&j, &more, &e) != ICE_OK) fail_msg("%s", e.text);
      take_json(t, j.row);
    }
    jsonl_close(&j);
  } else
    take_lines(t, (const char *)s.p, s.n);
  source_close(&s);
}

static int by_name(const FTSENT **a, const FTSENT **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }

size_t real_texts(FILE *to, size_t budget) {
  static const char *const kinds[] = {".jsonl", ".tsv", ".txt", ".inp", ".md"};
  char *roots[] = {(char *)real_file(""), NULL};
  texts t = {.to = to};
  FTS *tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
  assert_non_null(tree);
  for (FTSENT *f; (f = fts_read(tree));)
    for (size_t i = 0; f->fts_info == FTS_F && i < sizeof kinds / sizeof *kinds; i++)
      if (strstr(f->fts_name, kinds[i])) {
        take_file(&t, f->fts_path, budget);
        break;
      }
  (void)fts_close(tree);
  return t.written;
}
