/* longeval_drill.c - see longeval_drill.h. */
#include "datasets/longeval_drill.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/source.h"

const char *const drill_kind_names[DRILL_KINDS + 1] = {"lines", "topics", "repeat", "words", NULL};

enum { SHORTEST_WORD = 3, LONGEST_WORD = 12 };

/* --- words ---------------------------------------------------------------------------------------------------------- */

static int is_word(const char *p, size_t n) {
  if (n < SHORTEST_WORD || n > LONGEST_WORD) return 0;
  for (size_t i = 0; i < n; i++)
    if (p[i] < 'a' || p[i] > 'z') return 0;
  return 1;
}

static int add_word(drill_words *w, int64_t *room, const char *p, size_t n) {
  if (w->count == *room) {
    char **grown = realloc(w->word, (size_t)(*room * 2 + 1024) * sizeof *grown);
    if (!grown) return 0;
    w->word = grown;
    *room = *room * 2 + 1024;
  }
  return (w->word[w->count] = strndup(p, n)) != NULL && ++w->count;
}

int drill_words_read(drill_words *w, const char *path, ice_err *e) {
  source s;
  int64_t room = 0;
  int enough = 1;
  *w = (drill_words){0};
  ICE_TRY(source_open(path, (size_t)1 << 26, &s, e));
  w->hash = s.hash;
  for (const char *at = (const char *)s.p, *end = at + s.n; at < end && enough;) {
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    const size_t n = (size_t)((newline ? newline : end) - at);
    if (is_word(at, n)) enough = add_word(w, &room, at, n);
    at += n + 1;
  }
  source_close(&s);
  if (!enough) return ice_fail(e, ICE_INTERNAL, "out of memory for words");
  if (!w->count) return ice_fail(e, ICE_DATA, "%s: has no word of %d to %d lower-case letters on a line of its own", path, SHORTEST_WORD, LONGEST_WORD);
  return ICE_OK;
}

void drill_words_free(drill_words *w) {
  for (int64_t i = 0; i < w->count; i++) free(w->word[i]);
  free(w->word);
  *w = (drill_words){0};
}

/* Two to four syllables. */
static void write_syllables(attn_rng *r, char *out) {
  static const char consonants[] = "bcdfghjklmnpqrstvwxz", vowels[] = "aeiouy";
  for (uint64_t i = 2 + attn_rng_below(r, 3); i > 0; i--) {
    *out++ = consonants[attn_rng_below(r, sizeof consonants - 1)];
    *out++ = vowels[attn_rng_below(r, sizeof vowels - 1)];
    if (!attn_rng_below(r, 3)) *out++ = consonants[attn_rng_below(r, sizeof consonants - 1)];
  }
  *out = 0;
}

static void draw_word(attn_rng *r, const drill_words *w, char out[LONGEST_WORD + 1]) {
  if (w->count && attn_rng_below(r, 4)) (void)snprintf(out, LONGEST_WORD + 1, "%s", w->word[attn_rng_below(r, (uint64_t)w->count)]);
  else write_syllables(r, out);
}

/* A sentence of words that mean nothing together. */
static void babble(void *ctx, attn_rng *r, FILE *f) {
  char word[LONGEST_WORD + 1];
  for (uint64_t i = 5 + attn_rng_below(r, 16), k = 0; k < i; k++) {
    draw_word(r, ctx, word);
    (void)fprintf(f, " %s%s", word, k + 1 == i ? "." : attn_rng_below(r, 8) ? "" : ",");
  }
}

/* --- lines ---------------------------------------------------------------------------------------------------------- */

static int has_name(const longeval_line *line, int64_t n, const char *name) {
  for (int64_t i = 0; i < n; i++)
    if (!strcmp(line[i].name, name)) return 1;
  return 0;
}

static void draw_name(attn_rng *r, const drill_words *w, char name[LONGEVAL_NAME]) {
  char first[LONGEST_WORD + 1], second[LONGEST_WORD + 1];
  if (attn_rng_below(r, 2)) {
    longeval_name((int64_t)attn_rng_below(r, (uint64_t)longeval_most_lines()), name);
    return;
  }
  draw_word(r, w, first);
  draw_word(r, w, second);
  (void)snprintf(name, LONGEVAL_NAME, "%s-%s", first, second);
}

/* The lines alone, in the order `order` (NULL: as they are); a question behind them unless `asked` is NULL. NULL when out of memory. */
static char *bare_record(int64_t n, const longeval_line *line, const int64_t *order, const char *asked) {
  char *text = NULL;
  size_t size = 0;
  FILE *f = open_memstream(&text, &size);
  if (!f) return NULL;
  for (int64_t i = 0; i < n; i++) {
    const longeval_line *x = line + (order ? order[i] : i);
    (void)fprintf(f, LONGEVAL_LINE "\n", x->name, x->number);
  }
  if (asked) (void)fprintf(f, LONGEVAL_QUESTION, asked);
  if (fclose(f)) free(text), text = NULL;
  return text;
}

/* The published prompts end in a space up to 680 lines, and in none beyond. */
static char *with_space(char *text) {
  const size_t n = text ? strlen(text) : 0;
  char *longer = text ? realloc(text, n + 2) : NULL;
  if (longer) strcpy(longer + n, " ");
  else free(text);
  return longer;
}

/* n lines of different names, to free(); NULL when out of memory. */
static longeval_line *draw_lines(attn_rng *r, int64_t n, const drill_words *w) {
  longeval_line *line = malloc((size_t)n * sizeof *line);
  for (int64_t i = 0; line && i < n; i++) {
    line[i].number = longeval_number(r);
    do draw_name(r, w, line[i].name);
    while (has_name(line, i, line[i].name));
  }
  return line;
}

static char *ask(const drill_plan *plan, int64_t turn, int64_t n, const longeval_line *line, int64_t asked) {
  char *text;
  if (turn == 0 && plan->bare) return bare_record(n, line, NULL, line[asked].name);
  if (turn == 0) return longeval_lines_text(n, line, asked);
  return asprintf(&text, LONGEVAL_QUESTION, line[asked].name) < 0 ? NULL : text;
}

static int make_lines(attn_rng *r, const drill_plan *plan, int64_t n, const longeval_line *line, drill *out) {
  for (int64_t t = 0; t < out->turns; t++) {
    const int64_t asked = (int64_t)attn_rng_below(r, (uint64_t)n);
    drill_turn *turn = out->turn + t;
    turn->message = ask(plan, t, n, line, asked);
    if (attn_rng_below(r, 2)) turn->message = with_space(turn->message);
    if (asprintf(&turn->answer, LONGEVAL_LINE, line[asked].name, line[asked].number) < 0) turn->answer = NULL;
    if (!turn->message || !turn->answer) return 0;
  }
  return 1;
}

static int make_repeat(attn_rng *r, int64_t n, const longeval_line *line, drill *out) {
  int64_t *order = malloc((size_t)n * sizeof *order);
  for (int64_t i = 0; order && i < n; i++) {
    const int64_t k = (int64_t)attn_rng_below(r, (uint64_t)i + 1);
    order[i] = order[k], order[k] = i;
  }
  out->turn->message = bare_record(n, line, NULL, NULL);
  out->turn->answer = order ? bare_record(n, line, order, NULL) : NULL;
  free(order);
  return out->turn->message && out->turn->answer;
}

static int make_words(attn_rng *r, int64_t n, const drill_words *w, drill *out) {
  char word[LONGEST_WORD + 1];
  size_t size = 0;
  FILE *f = open_memstream(&out->turn->message, &size);
  for (int64_t i = 0; f && i < n; i++) {
    draw_word(r, w, word);
    (void)fprintf(f, "%s%s", i ? " " : "", word);
  }
  if (!f || fclose(f)) return 0;
  return (out->turn->answer = strdup(out->turn->message)) != NULL;
}

/* --- topics --------------------------------------------------------------------------------------------------------- */

/* "The origins of brass mill", "The bafo of honest": whatever words. */
static void draw_topic(attn_rng *r, const drill_words *w, char topic[LONGEVAL_TOPIC], const char **subject) {
  char word[4][LONGEST_WORD + 1];
  longeval_own_topic(r, topic, subject);
  if (!attn_rng_below(r, 4)) return;
  for (int i = 0; i < 4; i++) draw_word(r, w, word[i]);
  const int aspect = (int)(strstr(topic, " of ") - topic);
  const int words = 1 + (int)attn_rng_below(r, 3);
  char tail[4 * (LONGEST_WORD + 8)] = "";
  for (int i = 0; i < words; i++) {
    const char *between = i == 0 ? "" : attn_rng_below(r, 4) ? " " : attn_rng_below(r, 2) ? " and " : " in ";
    (void)snprintf(tail + strlen(tail), sizeof tail - strlen(tail), "%s%s", between, word[i]);
  }
  char head[LONGEVAL_TOPIC];
  if (attn_rng_below(r, 2)) (void)snprintf(head, sizeof head, "%.*s", aspect, topic);
  else (void)snprintf(head, sizeof head, "The %s", word[3]);
  (void)snprintf(topic, LONGEVAL_TOPIC, "%.60s of %.60s", head, tail);
  *subject = strstr(topic, " of ") + 4;
}

/* A topic that begins like another and ends in words of its own: only from farther back can it be told how the other one goes on. */
static void branch_topic(attn_rng *r, const drill_words *w, const char *other, char topic[LONGEVAL_TOPIC], const char **subject) {
  char word[2][LONGEST_WORD + 1];
  int spaces = 0;
  for (const char *at = other; *at; at++) spaces += *at == ' ';
  int keep = 2 + (int)attn_rng_below(r, (uint64_t)(spaces > 2 ? spaces - 1 : 1)); /* words; at least "The X", at most all but the last */
  size_t n = 0;
  while (other[n] && !(other[n] == ' ' && --keep == 0)) n++;
  for (int i = 0; i < 2; i++) draw_word(r, w, word[i]);
  const int two = (int)attn_rng_below(r, 2);
  (void)snprintf(topic, LONGEVAL_TOPIC, "%.*s %s%s%s", (int)(n < 90 ? n : 90), other, word[0], two ? " " : "", two ? word[1] : "");
  const char *of = strstr(topic, " of ");
  *subject = of ? of + 4 : topic;
}

static int make_topics(attn_rng *r, const drill_plan *plan, int64_t n, const drill_words *w, drill *out) {
  const longeval_words other = {.sentence = babble, .ctx = (void *)(uintptr_t)w};
  longeval_talk *talk = calloc((size_t)n, sizeof *talk);
  const longeval_talk **each = calloc((size_t)n, sizeof *each);
  int enough = talk && each;
  for (int64_t i = 0; enough && i < n; i++) {
    char topic[LONGEVAL_TOPIC];
    const char *subject;
    if (i > 0 && attn_rng_below(r, 3) == 0) branch_topic(r, w, talk->topic, topic, &subject);
    else draw_topic(r, w, topic, &subject);
    enough = longeval_write_talk(r, topic, subject, 1, plan->exchanges, &other, talk + i);
    each[i] = talk + i;
  }
  if (enough) out->turn->message = longeval_topics_prompt(each, n);
  /* As the record has it: the first talk is the one that stands behind these words, so that it is found like a line. */
  if (enough && asprintf(&out->turn->answer, "Now the record start. USER: I would like to discuss the topic of %c%s.", *talk->topic | 0x20, talk->topic + 1) < 0)
    out->turn->answer = NULL;
  for (int64_t i = 0; talk && i < n; i++) longeval_free_talk(talk + i);
  free(talk), free((void *)each);
  return enough && out->turn->message && out->turn->answer;
}

/* -------------------------------------------------------------------------------------------------------------------- */

int drill_make(attn_rng *r, const drill_plan *plan, const drill_words *words, drill *out, ice_err *e) {
  const int64_t n = plan->least + (int64_t)attn_rng_below(r, (uint64_t)(plan->most - plan->least + 1));
  longeval_line *line = plan->kind == DRILL_LINES || plan->kind == DRILL_REPEAT ? draw_lines(r, n, words) : NULL;
  *out = (drill){.turns = plan->kind == DRILL_LINES ? plan->turns : 1};
  out->turn = calloc((size_t)out->turns, sizeof *out->turn);
  int made = 0;
  if (!out->turn) out->turns = 0;
  else if (plan->kind == DRILL_TOPICS) made = make_topics(r, plan, n, words, out);
  else if (plan->kind == DRILL_WORDS) made = make_words(r, n, words, out);
  else if (line) made = plan->kind == DRILL_LINES ? make_lines(r, plan, n, line, out) : make_repeat(r, n, line, out);
  free(line);
  return made ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for a conversation");
}

void drill_free(drill *d) {
  for (int64_t i = 0; i < d->turns; i++) free(d->turn[i].message), free(d->turn[i].answer);
  free(d->turn);
  *d = (drill){0};
}
