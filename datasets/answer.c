/* answer.c - see answer.h. A text becomes a list of words first; every metric but the two of single numbers compares such lists. */
#include "datasets/answer.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/translit.h"
#include "datasets/utf8.h"

const char *answer_mark_name(answer_mark m) {
  static const char *const name[ANSWER_MARKS] = {"rouge", "f1", "accuracy", "exp_similarity", "concordance_index", "accuracy", "accuracy"};
  return name[m];
}
int answer_parts(answer_mark m) { return m == ANSWER_ROUGE ? 3 : 1; }
int answer_is_share(answer_mark m) { return m == ANSWER_CHOICE || m == ANSWER_NUMBER || m == ANSWER_TOPIC; }

/* --- words ---------------------------------------------------------------------------------------------------------- */

typedef struct words { /* word i is text[start[i]] .., NUL-terminated */
  char *text;
  uint32_t *start, *number; /* number: equal words of two lists have equal ones, see count_alike */
  int n;
} words;

static void words_free(words *w) {
  free(w->text);
  free(w->start);
  free(w->number);
  *w = (words){0};
}

/* Takes over text [n], whose words are separated by bytes <= ' '. */
static int cut_words(char *text, size_t n, words *w) {
  *w = (words){.text = text, .start = malloc((n / 2 + 2) * sizeof *w->start), .number = malloc((n / 2 + 2) * sizeof *w->number)};
  if (!text || !w->start || !w->number) {
    words_free(w);
    return 0;
  }
  for (size_t i = 0; i < n; i++)
    if ((unsigned char)text[i] > ' ' && (i == 0 || !text[i - 1])) w->start[w->n++] = (uint32_t)i;
    else if ((unsigned char)text[i] <= ' ') text[i] = '\0';
  return 1;
}

/* ROUGE: runs of lower-case [a-z0-9]. Two other characters have an ASCII letter as lower case: the sign of Kelvin, dotted I. */
static int rouge_words(const char *s, words *w) {
  const size_t n = strlen(s);
  char *text = malloc(n + 1);
  size_t at = 0;
  for (uint32_t c; text && (c = utf8_next(&s));) {
    const int dotted = c == 0x130; /* its dot is a mark of its own, and those two bytes are room for both */
    c = c == 0x212a ? 'k' : dotted ? 'i' : utf8_lower(c);
    text[at++] = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? (char)c : ' ';
    if (dotted) text[at++] = ' ';
  }
  if (text) text[at] = '\0';
  return cut_words(text, at, w);
}

static int is_punctuation(uint32_t c) { return (c > ' ' && c < 0x7f && !utf8_is_word(c)) || c == '_'; }
static int is_article(const uint32_t *p, size_t n) {
  return (n == 1 && p[0] == 'a') || (n == 2 && p[0] == 'a' && p[1] == 'n') || (n == 3 && p[0] == 't' && p[1] == 'h' && p[2] == 'e');
}

/* Lower case without punctuation, as code points [at most 2 n], then articles to spaces. NULL when out of memory. */
static uint32_t *plain(const char *s, size_t *n) {
  uint32_t *p = malloc((2 * strlen(s) + 1) * sizeof *p);
  size_t at = 0;
  for (uint32_t c; p && (c = utf8_next(&s));) {
    if (is_punctuation(c)) continue;
    p[at++] = c == 0x130 ? 'i' : utf8_lower(c);
    if (c == 0x130) p[at++] = 0x307;
  }
  for (size_t i = 0, k; p && i < at; i = k) { /* maximal runs of word characters: what \b...\b can match is one of them */
    for (k = i; k < at && utf8_is_word(p[k]);) k++;
    if (is_article(p + i, k - i)) p[i] = ' ', memset(p + i + 1, 0, (k - i - 1) * sizeof *p);
    k += k == i;
  }
  *n = at;
  return p;
}

/* The words of F1 and of topics. Spelling in ASCII comes last, and only then is the text cut at white space. */
static int f1_words(const char *s, words *w) {
  size_t n = 0, at = 0;
  uint32_t *p = plain(s, &n);
  char *text = p ? malloc(8 * n + 1) : NULL;
  for (size_t i = 0; text && i < n; i++) {
    if (!p[i]) continue;
    translit(p[i], text + at);
    at += strlen(text + at);
  }
  free(p);
  if (text) text[at] = '\0';
  return cut_words(text, at, w);
}

typedef struct entry {
  const char *word;
  uint32_t *number;
} entry;
static int by_word(const void *a, const void *b) { return strcmp(((const entry *)a)->word, ((const entry *)b)->word); }

/* Numbers the words of both lists so that equal words, and only they, have equal numbers: 0, 1, ... Returns how many; -1: no memory. */
static int64_t number_alike(words *a, words *b) {
  const size_t n = (size_t)a->n + (size_t)b->n;
  entry *all = malloc((n + 1) * sizeof *all);
  int64_t count = 0;
  if (!all) return -1;
  for (size_t i = 0; i < n; i++) {
    words *w = i < (size_t)a->n ? a : b;
    const size_t k = i < (size_t)a->n ? i : i - (size_t)a->n;
    all[i] = (entry){w->text + w->start[k], w->number + k};
  }
  qsort(all, n, sizeof *all, by_word);
  for (size_t i = 0; i < n; i++) {
    if (i > 0 && strcmp(all[i].word, all[i - 1].word)) count++;
    *all[i].number = (uint32_t)count;
  }
  free(all);
  return n ? count + 1 : 0;
}

/* --- overlaps ------------------------------------------------------------------------------------------------------- */

static double f_of(double common, double predicted, double wanted) {
  const double p = common / (predicted > 1 ? predicted : 1), r = common / (wanted > 1 ? wanted : 1);
  return p + r > 0 ? 2 * p * r / (p + r) : 0;
}

static int by_gram(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}
/* The n-grams of a list (n is 1 or 2) as sorted numbers, to free(). */
static uint64_t *grams(const words *w, int n, int *count) {
  uint64_t *g = malloc(((size_t)w->n + 1) * sizeof *g);
  *count = w->n >= n ? w->n - n + 1 : 0;
  for (int i = 0; g && i < *count; i++) g[i] = n == 1 ? w->number[i] : (uint64_t)w->number[i] << 32 | w->number[i + 1];
  if (g) qsort(g, (size_t)*count, sizeof *g, by_gram);
  return g;
}
/* F of n-grams, each counted as often as both sides have it; -1: no memory. */
static double overlap(const words *a, const words *b, int n) {
  int na, nb, common = 0;
  uint64_t *ga = grams(a, n, &na), *gb = grams(b, n, &nb);
  const int memory = ga && gb;
  for (int i = 0, k = 0; memory && i < na && k < nb;) {
    common += ga[i] == gb[k];
    const int next_a = ga[i] <= gb[k], next_b = gb[k] <= ga[i];
    i += next_a, k += next_b;
  }
  free(ga), free(gb);
  return memory ? f_of(common, na, nb) : -1;
}

/* F of the longest common subsequence; -1: no memory. */
static double longest_common(const words *a, const words *b) {
  int *row = calloc((size_t)b->n + 1, sizeof *row);
  if (!row) return -1;
  for (int i = 0; i < a->n; i++)
    for (int k = 0, corner = 0; k < b->n; k++) {
      const int above = row[k + 1];
      row[k + 1] = a->number[i] == b->number[k] ? corner + 1 : above > row[k] ? above : row[k];
      corner = above;
    }
  const double f = a->n && b->n ? f_of(row[b->n], a->n, b->n) : 0;
  free(row);
  return f;
}

/* Do the words of b stand in a, one after the other? */
static int stands_in(const words *a, const words *b) {
  for (int i = 0; b->n && i + b->n <= a->n; i++)
    if (!memcmp(a->number + i, b->number, (size_t)b->n * sizeof *b->number)) return 1;
  return 0;
}

static int score_words(answer_mark m, const char *prediction, const char *reference, double *part) {
  int (*const cut)(const char *, words *) = m == ANSWER_ROUGE ? rouge_words : f1_words;
  words a = {0}, b = {0};
  int memory = cut(prediction, &a) && cut(reference, &b) && number_alike(&a, &b) >= 0;
  if (memory && m == ANSWER_ROUGE) {
    part[0] = overlap(&a, &b, 1);
    part[1] = overlap(&a, &b, 2);
    part[2] = longest_common(&a, &b);
    memory = part[0] >= 0 && part[1] >= 0 && part[2] >= 0;
  } else if (memory && m == ANSWER_F1) {
    part[0] = overlap(&a, &b, 1);
    memory = part[0] >= 0;
  } else if (memory)
    part[0] = stands_in(&a, &b);
  words_free(&a), words_free(&b);
  return memory;
}

/* --- single numbers and letters ------------------------------------------------------------------------------------- */

static int is_digit(char c) { return c >= '0' && c <= '9'; }

/* The first of A, B, C, D that is a word of its own; 0: none. */
static char choice_of(const char *s) {
  for (uint32_t c, before = ' '; (c = utf8_next(&s)); before = c) {
    const char *next = s;
    if (c >= 'A' && c <= 'D' && !utf8_is_word(before) && !utf8_is_word(utf8_next(&next))) return (char)c;
  }
  return 0;
}

/* The first number with a per cent sign, whole or with a decimal point; NAN: none. */
static double percent_of(const char *s) {
  for (; *s; s++) {
    if (!is_digit(*s)) continue;
    const char *end = s + strspn(s, "0123456789");
    if (*end == '.') end += 1 + strspn(end + 1, "0123456789");
    if (*end == '%') return strtod(s, NULL);
  }
  return NAN;
}

/* The last run of digits as a number; -1: none, or one that no task asks for. */
static int64_t last_number(const char *s) {
  int64_t number = -1;
  while (*s) {
    if (!is_digit(*s)) {
      s++;
      continue;
    }
    for (number = 0; is_digit(*s); s++) number = number < 0 || number > 100000000000000000 ? -2 : number * 10 + (*s - '0');
  }
  return number < 0 ? -1 : number;
}

/* --- orders --------------------------------------------------------------------------------------------------------- */

/* The whole numbers between spaces and commas, in their order, to free(); all other characters are left out first. */
static int64_t *ids_of(const char *s, int *count) {
  int64_t *id = malloc((strlen(s) + 1) * sizeof *id), now = -1;
  *count = 0;
  for (int more = 1; id && more;) {
    const uint32_t c = utf8_next(&s);
    more = c != 0;
    if (c >= '0' && c <= '9') now = (now < 0 ? 0 : now > 100000000000000000 ? 100000000000000000 : now) * 10 + (int64_t)(c - '0');
    else if ((!c || c == ',' || utf8_is_space(c)) && now >= 0) id[(*count)++] = now, now = -1;
  }
  return id;
}

typedef struct place {
  int64_t id;
  int at;
} place;
static int by_id(const void *a, const void *b) {
  const place *x = a, *y = b;
  return x->id != y->id ? (x->id > y->id) - (x->id < y->id) : (x->at > y->at) - (x->at < y->at);
}
static place *sorted_places(const int64_t *id, int n) {
  place *p = malloc(((size_t)n + 1) * sizeof *p);
  for (int i = 0; p && i < n; i++) p[i] = (place){id[i], i};
  if (p) qsort(p, (size_t)n, sizeof *p, by_id);
  return p;
}

/* Share of pairs of ids that stand in the same order; -1: no memory. A list of one id has no pairs and is in order. */
static double concordance(const int64_t *a, int na, const int64_t *b, int nb) {
  place *pa = sorted_places(a, na), *pb = sorted_places(b, nb);
  double share = -1;
  if (pa && pb) {
    int same = na == nb && na > 0;
    int64_t alike = 0;
    for (int i = 0; same && i < na; i++) same = pa[i].id == pb[i].id;
    for (int i = 0; same && i < na; i++)
      for (int k = 0; k < i; k++) alike += (pa[i].at > pa[k].at) == (pb[i].at > pb[k].at);
    share = !same ? 0 : na == 1 ? 1 : (double)alike / ((double)na * (na - 1) / 2);
  }
  free(pa), free(pb);
  return share;
}

static int score_order(const char *prediction, const char *reference, double *part) {
  int na, nb;
  int64_t *a = ids_of(prediction, &na), *b = ids_of(reference, &nb);
  part[0] = a && b ? concordance(a, na, b, nb) : -1;
  free(a), free(b);
  return part[0] >= 0;
}

/* --- all ------------------------------------------------------------------------------------------------------------ */

static double score_percent(const char *prediction, const char *reference) {
  const double p = percent_of(prediction), q = percent_of(reference);
  return isfinite(p) && isfinite(q) ? pow(0.5, fabs(p - q) / 10) : 0;
}

static int score_one(answer_mark m, const char *prediction, const char *reference, double *part) {
  switch (m) {
  case ANSWER_ROUGE:
  case ANSWER_F1:
  case ANSWER_TOPIC: return score_words(m, prediction, reference, part);
  case ANSWER_ORDER: return score_order(prediction, reference, part);
  case ANSWER_CHOICE: part[0] = choice_of(prediction) && choice_of(prediction) == choice_of(reference); return 1;
  case ANSWER_PERCENT: part[0] = score_percent(prediction, reference); return 1;
  case ANSWER_NUMBER: part[0] = last_number(prediction) >= 0 && last_number(prediction) == last_number(reference); return 1;
  case ANSWER_MARKS: break;
  }
  return 0;
}

int answer_score(answer_mark m, const char *prediction, const char *const *reference, int n, double *part) {
  for (int p = 0; p < ANSWER_PARTS; p++) part[p] = 0;
  for (int i = 0; i < n; i++) {
    double one[ANSWER_PARTS] = {0};
    if (!score_one(m, prediction, reference[i], one)) return 0;
    for (int p = 0; p < ANSWER_PARTS; p++)
      if (one[p] > part[p]) part[p] = one[p];
  }
  return 1;
}

double answer_total(answer_mark m, const double *part) { return answer_parts(m) == 1 ? part[0] : cbrt(part[0] * part[1] * part[2]); }
