/* fuzz_jsonl.c - any bytes as LongEval lines, LongEval topics, ZeroSCROLLS rows: refused with one line, or sane prompts, which are then
 * wrapped, cut, tidied and marked. The set is read as a user's would be, from a file. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/prompt.h"

static int byte_ids(void *ctx, const char *text, size_t n, int begin, int32_t **ids, int64_t *count, ice_err *e) {
  (void)e, (void)ctx;
  if (!(*ids = malloc((n + 1) * sizeof **ids))) abort();
  *count = begin;
  (*ids)[0] = 1;
  for (size_t i = 0; i < n; i++) (*ids)[(*count)++] = (unsigned char)text[i];
  return ICE_OK;
}

static void use(const task *t, const prompt *p) {
  const size_t n = strlen(p->text);
  if (p->query > p->end || p->end > n || !*p->id) abort();
  for (int form = 0; form < PROMPT_TEMPLATES; form++) {
    prompt_wrapped w;
    int32_t *ids = NULL;
    int64_t count, cut;
    if (prompt_wrap(p, t->prompts->brief, (prompt_template)form, &w, NULL) != ICE_OK) abort();
    if (w.query > strlen(w.text)) abort();
    for (int64_t limit = 4; limit < 5000; limit *= 7)
      if (prompt_ids(p, &w, limit, byte_ids, NULL, &ids, &count, &cut, NULL) == ICE_OK) {
        if (count > limit || count < 1) abort();
        free(ids);
      }
    free(w.text);
  }
  char *answer = strdup(p->text);
  if (!answer) abort();
  prompt_tidy(p, answer);
  for (int m = 0; m < ANSWER_MARKS; m++) {
    double part[ANSWER_PARTS];
    const char *reference[] = {p->references ? p->reference[0] : p->text};
    if (strlen(answer) > 4096 || strlen(reference[0]) > 4096) break; /* the common subsequence takes their product */
    if (!answer_score((answer_mark)m, answer, reference, 1, part)) abort();
    for (int i = 0; i < ANSWER_PARTS; i++)
      if (!(part[i] >= 0 && part[i] <= 1.0000001)) abort();
  }
  free(answer);
}

static void put(const char *path, const uint8_t *data, size_t size) {
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(data, 1, size, f) != size || fclose(f)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const struct {
    const char *task, *file;
  } kind[] = {{"longeval/lines", "longeval/lines/2_lines.jsonl"}, {"longeval/topics", "longeval/topics/2_topics.jsonl"}, {"zeroscrolls/qasper", "zeroscrolls/qasper.jsonl"}};
  char root[] = "/tmp/icebench-fuzz-XXXXXX", path[128];
  if (!mkdtemp(root)) abort();
  static const char *const folder[] = {"longeval", "longeval/lines", "longeval/topics", "zeroscrolls"};
  for (int i = 0; i < 4; i++) {
    (void)snprintf(path, sizeof path, "%s/%s", root, folder[i]);
    if (mkdir(path, 0777)) abort();
  }
  for (int i = 0; i < 3; i++) {
    const task *t = task_find(kind[i].task, NULL);
    prompt_set s = {0};
    ice_err e = {0};
    int absent;
    (void)snprintf(path, sizeof path, "%s/%s", root, kind[i].file);
    put(path, data, size);
    const int rc = t->prompts->load(t, root, TASK_TEST, t->prompts->lengths ? 2 : 0, &s, &absent, &e);
    if (rc != ICE_OK && (!e.text[0] || strchr(e.text, '\n') || absent)) abort();
    if (rc == ICE_OK && s.count < 1) abort();
    for (int64_t k = 0; rc == ICE_OK && k < s.count; k++) use(t, s.item + k);
    prompt_set_free(&s);
    (void)unlink(path);
  }
  for (int i = 3; i >= 0; i--) {
    (void)snprintf(path, sizeof path, "%s/%s", root, folder[i]);
    (void)rmdir(path);
  }
  (void)rmdir(root);
  return 0;
}
