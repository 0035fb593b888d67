/* translit.c - see translit.h. Unicode takes a character apart (translit.def); what is left has the spellings of a short list of ours. */
#include "datasets/translit.h"

#include <stdlib.h>
#include <string.h>

#include "datasets/utf8.h"

/* Characters without their marks, in order. */
static const struct part {
  uint32_t c;
  const char *base;
} parts[] = {
#define X(c, base) {c, base},
#include "datasets/translit.def"
#undef X
};

/* Letters that Unicode does not take apart, in their usual English spelling; signs as a typewriter has them. */
static const struct {
  const char *from, *to;
} spellings[] = {{"æ", "ae"}, {"œ", "oe"}, {"ß", "ss"}, {"ø", "o"}, {"ł", "l"}, {"đð", "d"}, {"þ", "th"}, {"ħ", "h"}, {"ı", "i"}, {"ŧ", "t"}, {"ŋ", "ng"},
                 {"µ", "μ"}, {"ς", "σ"}, {"‘’‚‛′‵´ʹʼ", "'"}, {"“”„‟", "\""}, {"‐‒–−", "-"}, {"—―", "--"}, {"‹", "<"}, {"›", ">"}, {"«", "<<"}, {"»", ">>"},
                 {"•·", "*"}, {"⁄∕÷", "/"}, {"×", "x"}, {"±", "+-"}, {"≤", "<="}, {"≥", ">="}, {"¡", "!"}, {"¿", "?"}, {"©", "(c)"}, {"®", "(r)"}, {"€", "EUR"}};

/* Combining and typographic characters without a spelling. */
static int is_silent(uint32_t c) {
  return c == 0xad || (c >= 0x300 && c < 0x370) || (c >= 0x200b && c < 0x2010) || (c >= 0x202a && c < 0x202f) || (c >= 0x2060 && c < 0x2070) || c == 0xfeff;
}
static int is_ideograph(uint32_t c) { return (c >= 0x3400 && c < 0x4dc0) || (c >= 0x4e00 && c < 0xa000) || (c >= 0x20000 && c < 0x30000); }

static int by_code(const void *key, const void *row) {
  const uint32_t a = *(const uint32_t *)key, b = ((const struct part *)row)->c;
  return (a > b) - (a < b);
}

/* Our spelling of what has no marks; returns its bytes. */
static int spell(uint32_t c, char *out) {
  for (size_t i = 0; c >= 0x80 && i < sizeof spellings / sizeof *spellings; i++)
    for (const char *s = spellings[i].from; *s;)
      if (utf8_next(&s) == c) {
        memcpy(out, spellings[i].to, strlen(spellings[i].to));
        return (int)strlen(spellings[i].to);
      }
  return utf8_put(c, out);
}

void translit(uint32_t c, char *out) {
  char whole[5] = {0};
  int n = 0;
  const struct part *p = c < 0x80 ? NULL : bsearch(&c, parts, sizeof parts / sizeof *parts, sizeof *parts, by_code);
  if (c >= 0x80 && utf8_is_space(c)) c = ' ';
  if (!p && !is_silent(c)) (void)utf8_put(c, whole);
  for (const char *s = p ? p->base : whole; *s;) n += spell(utf8_next(&s), out + n);
  if (is_ideograph(c)) out[n++] = ' ';
  out[n] = '\0';
}
