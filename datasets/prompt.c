/* prompt.c - see prompt.h */
#include "datasets/prompt.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* fastchat/conversation.py, template vicuna_v1.1; one space between all parts, none at the end. */
static const char SYSTEM[] = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
                             "polite answers to the user's questions.";
static const char BRIEF[] = " Do not provide any explanation."; /* zero_scrolls/experiments/api: for tasks that are no summaries */

const char *const prompt_template_names[PROMPT_TEMPLATES + 1] = {"vicuna", "plain", NULL};

/* --- sets ----------------------------------------------------------------------------------------------------------- */

prompt *prompt_add(prompt_set *s) {
  if (s->count == s->room) {
    const int64_t room = 2 * s->room + 64;
    prompt *grown = realloc(s->item, (size_t)room * sizeof *grown);
    if (!grown) return NULL;
    s->item = grown, s->room = room;
  }
  s->item[s->count] = (prompt){0};
  return s->item + s->count++;
}

int prompt_add_reference(prompt *p, const char *text) {
  char **grown = realloc(p->reference, ((size_t)p->references + 1) * sizeof *grown);
  if (!grown) return 0;
  p->reference = grown;
  if (!(grown[p->references] = strdup(text))) return 0;
  p->references++;
  return 1;
}

void prompt_set_free(prompt_set *s) {
  for (prompt *p = s->item; p && p < s->item + s->count; p++) {
    for (int i = 0; i < p->references; i++) free(p->reference[i]);
    free(p->reference);
    free(p->id), free(p->text), free(p->separator);
  }
  free(s->item);
  *s = (prompt_set){0};
}

int prompt_search(const task *t, task_split split, int64_t length, prompt_set *out, int *absent, ice_err *e) {
  char buf[8192], where[512] = "", size[48] = "", advice[512];
  const char *roots[64];
  *out = (prompt_set){0};
  *absent = 0;
  const int count = task_roots(buf, sizeof buf, roots, 64);
  if (!count) return ice_fail(e, ICE_USAGE, "ICEBENCH_DATA_DIR is longer than %zu bytes", sizeof buf - 16);
  for (int i = 0; i < count; i++) {
    int none = 0;
    const int rc = t->prompts->load(t, roots[i], split, length, out, &none, e);
    if (rc != ICE_OK) prompt_set_free(out);
    if (rc == ICE_OK || !none) return rc;
    const size_t n = strlen(where);
    (void)snprintf(where + n, sizeof where - n, "%s%s", n ? ", " : "", roots[i]);
  }
  *absent = 1;
  if (length) (void)snprintf(size, sizeof size, " of %" PRId64 " %s", length, t->prompts->length_of);
  task_advice(t, advice, sizeof advice);
  return ice_fail(e, ICE_DATA, "%s: no %s split%s below %s; %s", t->name, task_split_name(split), size, where, advice);
}

int prompt_load(const task *t, task_split split, int64_t length, prompt_set *out, ice_err *e) {
  int absent;
  return prompt_search(t, split, length, out, &absent, e);
}

/* --- templates ------------------------------------------------------------------------------------------------------ */

/* The end of the instruction: of what stands before the first blank line, without white space. */
static size_t instruction_end(const char *text) {
  const char *stop = strstr(text, "\n\n");
  size_t n = stop ? (size_t)(stop - text) : 0;
  while (n && strchr(" \t\n\r", text[n - 1])) n--;
  return n;
}

int prompt_wrap(const prompt *p, int brief, prompt_template t, prompt_wrapped *out, ice_err *e) {
  const int chat = t == PROMPT_VICUNA;
  const size_t insert = chat && brief ? instruction_end(p->text) : 0;
  const char *more = insert ? BRIEF : "";
  const size_t before = chat ? strlen(SYSTEM) + strlen(" USER: ") : 0;
  *out = (prompt_wrapped){.query = p->separator ? before + p->query + strlen(more) : 0};
  const int n = asprintf(&out->text, "%s%s%.*s%s%.*s%s", chat ? SYSTEM : "", chat ? " USER: " : "", (int)insert, p->text, more,
                         (int)((chat ? p->end : strlen(p->text)) - insert), p->text + insert, chat ? " ASSISTANT:" : "");
  if (n >= 0) return ICE_OK;
  out->text = NULL;
  return ice_fail(e, ICE_INTERNAL, "out of memory for a prompt");
}

int prompt_say(const char *message, int first, char **out, ice_err *e) {
  const prompt p = {.text = (char *)(uintptr_t)message, .end = strlen(message)};
  prompt_wrapped w = {0};
  const int rc = prompt_wrap(&p, 0, PROMPT_VICUNA, &w, e);
  const size_t skip = first ? 0 : sizeof SYSTEM; /* with the space behind it */
  if (rc == ICE_OK) memmove(w.text, w.text + skip, strlen(w.text + skip) + 1);
  *out = w.text;
  return rc;
}

/* --- ids ------------------------------------------------------------------------------------------------------------ */

/* Ids of the part before the query, then those of separator and rest, both whole. */
static int encode_halves(const prompt *p, const prompt_wrapped *w, prompt_encode encode, void *ctx, int32_t **head, int64_t *n_head,
                         int32_t **tail, int64_t *n_tail, ice_err *e) {
  char *rest = NULL;
  ICE_TRY(encode(ctx, w->text, w->query, 1, head, n_head, e));
  if (asprintf(&rest, "%s%s", p->separator, w->text + w->query) < 0) return ice_fail(e, ICE_INTERNAL, "out of memory for a prompt");
  const int rc = encode(ctx, rest, strlen(rest), 0, tail, n_tail, e);
  free(rest);
  return rc;
}

/* The rule of the ZeroSCROLLS runner: the query always stays, the context loses its end. */
static int shorten(const prompt *p, const prompt_wrapped *w, int64_t limit, prompt_encode encode, void *ctx, int32_t **ids, int64_t *count,
                   int64_t *cut, ice_err *e) {
  int32_t *head = NULL, *tail = NULL;
  int64_t n_head = 0, n_tail = 0;
  int rc = encode_halves(p, w, encode, ctx, &head, &n_head, &tail, &n_tail, e);
  if (rc == ICE_OK && n_tail >= limit)
    rc = ice_fail(e, ICE_USAGE, "prompt %s: its question alone has %" PRId64 " tokens, room is for %" PRId64, p->id, n_tail, limit);
  if (rc == ICE_OK) {
    const int64_t keep = n_head < limit - n_tail ? n_head : limit - n_tail;
    int32_t *all = realloc(head, (size_t)(keep + n_tail) * sizeof *all);
    if (all) {
      head = all;
      memcpy(all + keep, tail, (size_t)n_tail * sizeof *all);
      *cut = n_head - keep;
      *count = keep + n_tail;
    } else
      rc = ice_fail(e, ICE_INTERNAL, "out of memory for ids");
  }
  free(tail);
  if (rc != ICE_OK) free(head), head = NULL;
  *ids = head;
  return rc;
}

int prompt_ids(const prompt *p, const prompt_wrapped *w, int64_t limit, prompt_encode encode, void *ctx, int32_t **ids, int64_t *count,
               int64_t *cut, ice_err *e) {
  *cut = 0, *ids = NULL, *count = 0;
  const int rc = encode(ctx, w->text, strlen(w->text), 1, ids, count, e);
  if (rc == ICE_OK && *count <= limit) return ICE_OK;
  const int64_t all = *count;
  free(*ids);
  *ids = NULL, *count = 0;
  if (rc != ICE_OK) return rc;
  if (w->query) return shorten(p, w, limit, encode, ctx, ids, count, cut, e);
  return ice_fail(e, ICE_USAGE, "prompt %s has %" PRId64 " tokens, room is for %" PRId64
                  "; use shorter `lengths`, or a model with a longer context", p->id, all, limit);
}

/* --- answers -------------------------------------------------------------------------------------------------------- */

static int is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The answer header as a tag: "Summary IDs in Correct Order:" -> "summary_ids_in_correct_order". */
static void tag_of(const prompt *p, char *tag, size_t size) {
  const char *from = p->text + p->end;
  size_t n = 0;
  while (is_white(*from)) from++;
  for (; *from && *from != ':' && *from != '\n' && n + 1 < size; from++)
    tag[n++] = *from == ' ' ? '_' : *from >= 'A' && *from <= 'Z' ? (char)(*from + 32) : *from;
  tag[n] = '\0';
}

void prompt_tidy(const prompt *p, char *answer) {
  char tag[64], open[80], close[80];
  char *from = answer, *to;
  tag_of(p, tag, sizeof tag);
  (void)snprintf(open, sizeof open, "<%s>", tag);
  (void)snprintf(close, sizeof close, "</%s>", tag);
  if (*tag && (to = strstr(from, close))) *to = '\0';
  if (*tag && (to = strstr(from, open))) from = to + strlen(open);
  while (is_white(*from)) from++;
  size_t n = strlen(from);
  while (n && is_white(from[n - 1])) n--;
  memmove(answer, from, n);
  answer[n] = '\0';
}
