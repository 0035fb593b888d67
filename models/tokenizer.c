/* tokenizer.c - see tokenizer.h.
 *
 * Encoding   The text, normalised, is a doubly linked list of symbols, at first its characters. A heap holds the pairs of
 *            neighbours whose concatenation is a piece; the best is merged, and the two pairs with the new neighbours join
 *            the heap. An entry whose symbols have changed meanwhile is recognised by its length and dropped.
 * Source     sentencepiece 0.1.97: normalizer.cc, bpe_model.cc, model_interface.cc, sentencepiece_processor.cc (read for
 *            behaviour: order of merges, treatment of unused, user-defined and byte pieces).
 * Cost       O(n log n) for n characters; 40 bytes for each character. */
#include "models/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "kernels/core/fileio.h"
#include "models/vocabulary.h"

#define SPACE "\xe2\x96\x81"   /* U+2581 stands for a space */
#define REPLACE "\xef\xbf\xbd" /* U+FFFD stands for what is no UTF-8 */
#define FILE_MAX ((size_t)1 << 30)
#define TEXT_MAX ((size_t)1 << 30)

struct tokenizer {
  vocabulary v;
  size_t *length;    /* [n] bytes of the pieces */
  uint32_t mask;     /* slots of the table less 1 */
  int32_t *slot;     /* ids by hash of the text, -1: free */
  int32_t byte[256]; /* ids of the byte pieces, -1: none */
  size_t longest_user;
  int unused; /* there are unused pieces */
};

/* --- vocabulary --------------------------------------------------------------------------------------------------- */

static int32_t find(const tokenizer *t, const char *text, size_t n) {
  for (uint32_t i = (uint32_t)XXH3_64bits(text, n) & t->mask;; i = (i + 1) & t->mask) {
    const int32_t id = t->slot[i];
    if (id < 0 || (t->length[id] == n && !memcmp(t->v.piece[id].text, text, n))) return id;
  }
}
/* Can symbols become this piece by merging? */
static int is_symbol(const tokenizer *t, int32_t id) {
  const int type = t->v.piece[id].type;
  return type == TOKENIZER_NORMAL || type == TOKENIZER_USER || type == TOKENIZER_UNUSED;
}

static int add_byte(tokenizer *t, int32_t id, const char *file, ice_err *e) {
  static const char digits[] = "0123456789ABCDEF";
  const char *p = t->v.piece[id].text;
  const char *high = t->length[id] == 6 ? strchr(digits, p[3]) : NULL, *low = high ? strchr(digits, p[4]) : NULL;
  if (!low || !*high || !*low || memcmp(p, "<0x", 3) || p[5] != '>')
    return ice_fail(e, ICE_DATA, "%s: byte piece %d is %s; a name like <0x0A> is needed", file, id, p);
  t->byte[(high - digits) * 16 + (low - digits)] = id;
  return ICE_OK;
}

static int add_pieces(tokenizer *t, const char *file, ice_err *e) {
  for (int32_t id = 0; id < t->v.n; id++) {
    const vocabulary_piece *p = t->v.piece + id;
    const size_t n = t->length[id] = strlen(p->text);
    if (find(t, p->text, n) >= 0) return ice_fail(e, ICE_DATA, "%s: piece %d, %s, comes twice", file, id, p->text);
    uint32_t i = (uint32_t)XXH3_64bits(p->text, n) & t->mask;
    while (t->slot[i] >= 0) i = (i + 1) & t->mask;
    t->slot[i] = id;
    if (p->type == TOKENIZER_BYTE) ICE_TRY(add_byte(t, id, file, e));
    if (p->type == TOKENIZER_USER && n > t->longest_user) t->longest_user = n;
    t->unused |= p->type == TOKENIZER_UNUSED;
  }
  for (int b = 0; t->v.byte_fallback && b < 256; b++)
    if (t->byte[b] < 0) return ice_fail(e, ICE_DATA, "%s: piece <0x%02X> is missing; byte fallback needs all 256", file, b);
  if (!t->v.byte_fallback && (t->v.unk < 0 || t->v.unk >= t->v.n))
    return ice_fail(e, ICE_DATA, "%s: has neither byte pieces nor an unknown piece", file);
  return ICE_OK;
}

static int32_t special(const tokenizer *t, int32_t id) {
  return id >= 0 && id < t->v.n && t->v.piece[id].type == TOKENIZER_CONTROL ? id : -1;
}

int tokenizer_create(tokenizer **out, vocabulary *v, const char *file, ice_err *e) {
  tokenizer *t = calloc(1, sizeof *t);
  *out = NULL;
  if (!t) {
    vocabulary_free(v);
    return ice_fail(e, ICE_INTERNAL, "out of memory");
  }
  t->v = *v;
  *v = (vocabulary){0};
  t->mask = 1;
  while (t->mask < 2 * (uint32_t)t->v.n) t->mask *= 2;
  t->length = calloc((size_t)t->v.n + 1, sizeof *t->length);
  t->slot = malloc(t->mask * sizeof *t->slot);
  int rc = t->length && t->slot ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (rc == ICE_OK) {
    memset(t->slot, 0xff, t->mask * sizeof *t->slot);
    memset(t->byte, 0xff, sizeof t->byte);
    t->mask--;
    rc = t->v.n ? add_pieces(t, file, e) : ice_fail(e, ICE_DATA, "%s: the vocabulary is empty", file);
  }
  if (rc != ICE_OK) {
    tokenizer_close(t);
    return rc;
  }
  t->v.bos = special(t, t->v.bos);
  t->v.eos = special(t, t->v.eos);
  *out = t;
  return ICE_OK;
}

int tokenizer_parse(tokenizer **t, const uint8_t *bytes, size_t n, const char *name, ice_err *e) {
  vocabulary v;
  *t = NULL;
  const int rc = vocabulary_read_model(&v, bytes, n, name, e);
  if (rc == ICE_OK) return tokenizer_create(t, &v, name, e);
  vocabulary_free(&v);
  return rc;
}

static int open_gguf(tokenizer **t, const char *path, ice_err *e) {
  gguf_file f;
  vocabulary v;
  ICE_TRY(gguf_open(path, &f, e));
  int rc = vocabulary_read_gguf(&v, &f, e);
  if (rc == ICE_OK) rc = tokenizer_create(t, &v, path, e);
  else vocabulary_free(&v);
  gguf_close(&f);
  return rc;
}

int tokenizer_open(tokenizer **t, const char *path, ice_err *e) {
  struct stat st;
  char inside[FILE_PATH];
  file_map map;
  *t = NULL;
  if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
    ICE_TRY(file_join(inside, path, "tokenizer.model", e));
    path = inside;
  }
  if (gguf_is(path)) return open_gguf(t, path, e);
  ICE_TRY(file_open_map(path, FILE_MAX, &map, e));
  const int rc = tokenizer_parse(t, map.p, map.n, path, e);
  file_close_map(&map);
  return rc;
}

void tokenizer_close(tokenizer *t) {
  if (!t) return;
  vocabulary_free(&t->v);
  free(t->length);
  free(t->slot);
  free(t);
}

const vocabulary *tokenizer_vocabulary(const tokenizer *t) { return &t->v; }
int32_t tokenizer_vocab(const tokenizer *t) { return t->v.n; }
int32_t tokenizer_bos(const tokenizer *t) { return t->v.bos; }
int32_t tokenizer_eos(const tokenizer *t) { return t->v.eos; }

/* --- encoding ----------------------------------------------------------------------------------------------------- */

typedef struct symbol {
  int64_t prev, next; /* neighbours, -1: none */
  const char *p;
  uint32_t n;  /* bytes; 0: merged into its left neighbour */
  int frozen;  /* a user-defined piece: takes no part in merges */
} symbol;

typedef struct merge {
  float score;
  uint32_t n; /* bytes of both together when the entry was made */
  int64_t left, right;
} merge;

typedef struct encoding { /* of one text */
  const tokenizer *t;
  char *text; /* normalised */
  size_t n;
  symbol *s;
  int64_t n_symbols;
  merge *heap;
  int64_t n_heap, room;
  uint32_t *split; /* [pieces] bytes of the left half that an unused piece was made of; NULL without such pieces */
  int32_t *ids;
  int64_t n_ids, ids_room;
} encoding;

/* Bytes of the UTF-8 character at p, with n more to come; 0 when it is none. */
static size_t character(const char *p, size_t n) {
  const uint8_t *u = (const uint8_t *)p;
  const size_t want = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;
  if (want > n) return 0;
  for (size_t i = 1; i < want; i++)
    if ((u[i] & 0xc0) != 0x80) return 0;
  if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) || (u[0] == 0xf0 && u[1] < 0x90) ||
      (u[0] == 0xf4 && u[1] > 0x8f))
    return 0; /* too long a form, a surrogate, beyond U+10FFFF */
  return want;
}

static void put(encoding *c, const char *p, size_t n) {
  memcpy(c->text + c->n, p, n);
  c->n += n;
}

/* Spaces become U+2581, what is no UTF-8 U+FFFD; a space in front, runs of spaces cut, as the vocabulary says. */
static void normalise(encoding *c, const char *text, size_t n) {
  const vocabulary *v = &c->t->v;
  const char *space = v->escape ? SPACE : " ";
  const size_t width = v->escape ? sizeof SPACE - 1 : 1;
  while (v->trim && n && *text == ' ') text++, n--;
  while (v->trim && n && text[n - 1] == ' ') n--;
  if (n && v->dummy_prefix) put(c, space, width);
  for (size_t i = 0, step; i < n; i += step) {
    step = character(text + i, n - i);
    if (text[i] == ' ') {
      if (!v->trim || text[i - 1] != ' ') put(c, space, width); /* i > 0: spaces in front are gone */
    } else if (step)
      put(c, text + i, step);
    else {
      put(c, REPLACE, sizeof REPLACE - 1);
      step = 1;
    }
  }
}

/* Bytes of the longest user-defined piece that begins here; 0: none. */
static size_t user_piece(const tokenizer *t, const char *p, size_t n) {
  for (size_t k = n < t->longest_user ? n : t->longest_user; k > 0; k--) {
    const int32_t id = find(t, p, k);
    if (id >= 0 && t->v.piece[id].type == TOKENIZER_USER) return k;
  }
  return 0;
}

static void split_symbols(encoding *c) {
  for (size_t i = 0; i < c->n;) {
    const size_t user = user_piece(c->t, c->text + i, c->n - i), step = user ? user : character(c->text + i, c->n - i);
    const int64_t k = c->n_symbols++;
    c->s[k] = (symbol){k - 1, k + 1, c->text + i, (uint32_t)step, user != 0};
    i += step;
  }
  if (c->n_symbols) c->s[c->n_symbols - 1].next = -1;
}

static int before(const merge *a, const merge *b) {
  return a->score > b->score || (a->score == b->score && a->left < b->left);
}

/* Adds the pair of neighbours (left, right) to the heap when together they are a piece. 0: out of memory. */
static int consider(encoding *c, int64_t left, int64_t right) {
  if (left < 0 || right < 0 || c->s[left].frozen || c->s[right].frozen) return 1;
  const uint32_t n = c->s[left].n + c->s[right].n; /* they lie side by side in the text */
  const int32_t id = n <= VOCABULARY_PIECE_MAX ? find(c->t, c->s[left].p, n) : -1;
  if (id < 0 || !is_symbol(c->t, id)) return 1;
  if (c->split && c->t->v.piece[id].type == TOKENIZER_UNUSED) c->split[id] = c->s[left].n;
  if (c->n_heap == c->room) {
    merge *heap = realloc(c->heap, (size_t)(c->room = 2 * c->room + 256) * sizeof *heap);
    if (!heap) return 0;
    c->heap = heap;
  }
  const merge m = {c->t->v.piece[id].score, n, left, right};
  int64_t i = c->n_heap++;
  for (; i > 0 && before(&m, c->heap + (i - 1) / 2); i = (i - 1) / 2) c->heap[i] = c->heap[(i - 1) / 2];
  c->heap[i] = m;
  return 1;
}

static merge pop(encoding *c) {
  const merge top = c->heap[0], last = c->heap[--c->n_heap];
  int64_t i = 0;
  for (int64_t child = 1; child < c->n_heap; i = child, child = 2 * i + 1) {
    if (child + 1 < c->n_heap && before(c->heap + child + 1, c->heap + child)) child++;
    if (!before(c->heap + child, &last)) break;
    c->heap[i] = c->heap[child];
  }
  if (c->n_heap) c->heap[i] = last;
  return top;
}

static int merge_all(encoding *c) {
  for (int64_t i = 1; i < c->n_symbols; i++)
    if (!consider(c, i - 1, i)) return 0;
  while (c->n_heap) {
    const merge m = pop(c);
    symbol *a = c->s + m.left, *b = c->s + m.right;
    if (!a->n || !b->n || a->n + b->n != m.n) continue; /* one of them has changed since */
    a->n = m.n;
    b->n = 0;
    a->next = b->next;
    if (b->next >= 0) c->s[b->next].prev = m.left;
    if (!consider(c, a->prev, m.left) || !consider(c, m.left, a->next)) return 0;
  }
  return 1;
}

static int emit(encoding *c, int32_t id) {
  if (c->n_ids == c->ids_room) {
    int32_t *ids = realloc(c->ids, (size_t)(c->ids_room = 2 * c->ids_room + 256) * sizeof *ids);
    if (!ids) return 0;
    c->ids = ids;
  }
  c->ids[c->n_ids++] = id;
  return 1;
}

/* Ids of a symbol: a piece; the halves of an unused one; bytes, or the unknown piece. */
static int emit_symbol(encoding *c, const char *p, size_t n) {
  const tokenizer *t = c->t;
  const int32_t id = find(t, p, n);
  if (id >= 0 && t->v.piece[id].type == TOKENIZER_UNUSED && c->split && c->split[id] && c->split[id] < n)
    return emit_symbol(c, p, c->split[id]) && emit_symbol(c, p + c->split[id], n - c->split[id]);
  if (id >= 0 && id != t->v.unk) return emit(c, id);
  if (!t->v.byte_fallback) return (c->n_ids && c->ids[c->n_ids - 1] == t->v.unk) || emit(c, t->v.unk); /* one for a run */
  for (size_t i = 0; i < n; i++)
    if (!emit(c, t->byte[(uint8_t)p[i]])) return 0;
  return 1;
}

static int encode(encoding *c, const char *text, size_t n, int bos) {
  const tokenizer *t = c->t;
  c->text = malloc(3 * n + 4); /* U+2581 and U+FFFD take three bytes */
  if (!c->text) return 0;
  normalise(c, text, n);
  c->s = malloc((c->n + 1) * sizeof *c->s);
  if (t->unused) c->split = calloc((size_t)t->v.n, sizeof *c->split);
  if (!c->s || (t->unused && !c->split)) return 0;
  split_symbols(c);
  if (!merge_all(c)) return 0;
  c->ids = malloc((size_t)(c->ids_room = c->n_symbols + 1) * sizeof *c->ids);
  if (!c->ids) return 0;
  if (bos && t->v.bos >= 0) c->ids[c->n_ids++] = t->v.bos;
  for (int64_t i = c->n_symbols ? 0 : -1; i >= 0; i = c->s[i].next)
    if (!emit_symbol(c, c->s[i].p, c->s[i].n)) return 0;
  return 1;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t n, int bos, int32_t **ids, int64_t *count, ice_err *e) {
  encoding c = {.t = t};
  *ids = NULL;
  *count = 0;
  if (n > TEXT_MAX) return ice_fail(e, ICE_USAGE, "text of %zu bytes; at most %zu can be tokenised", n, TEXT_MAX);
  const int ok = encode(&c, text, n, bos);
  free(c.text);
  free(c.s);
  free(c.heap);
  free(c.split);
  if (!ok) {
    free(c.ids);
    return ice_fail(e, ICE_INTERNAL, "out of memory for a text of %zu bytes", n);
  }
  *ids = c.ids;
  *count = c.n_ids;
  return ICE_OK;
}

/* --- decoding ----------------------------------------------------------------------------------------------------- */

typedef struct decoding {
  char *text;
  size_t n, room;
} decoding;

static int append(decoding *d, const char *p, size_t n) {
  if (d->n + n + 1 > d->room) {
    char *text = realloc(d->text, d->room = 2 * (d->n + n + 1));
    if (!text) return 0;
    d->text = text;
  }
  memcpy(d->text + d->n, p, n);
  d->n += n;
  d->text[d->n] = '\0';
  return 1;
}

/* Bytes that may be no UTF-8: each of those becomes U+FFFD. */
static int append_bytes(decoding *d, const char *p, size_t n) {
  for (size_t i = 0, step; i < n; i += step ? step : 1) {
    step = character(p + i, n - i);
    if (!append(d, step ? p + i : REPLACE, step ? step : sizeof REPLACE - 1)) return 0;
  }
  return 1;
}

/* A piece with U+2581 as spaces. */
static int append_piece(decoding *d, const char *p, int first) {
  const size_t width = sizeof SPACE - 1;
  if (first && !strncmp(p, SPACE, width)) p += width;
  for (const char *space; (space = strstr(p, SPACE)) != NULL; p = space + width)
    if (!append_bytes(d, p, (size_t)(space - p)) || !append(d, " ", 1)) return 0;
  return append_bytes(d, p, strlen(p));
}

static int decode(const tokenizer *t, const int32_t *ids, int64_t count, decoding *d, decoding *bytes) {
  int first = t->v.dummy_prefix || t->v.trim;
  for (int64_t i = 0; i <= count; i++) {
    const int type = i < count ? t->v.piece[ids[i]].type : 0;
    if (type == TOKENIZER_BYTE) {
      int b = 0;
      while (t->byte[b] != ids[i]) b++;
      if (!append(bytes, (const char[]){(char)b}, 1)) return 0;
      first = 0;
      continue;
    }
    if (bytes->n && !append_bytes(d, bytes->text, bytes->n)) return 0;
    bytes->n = 0;
    if (i == count || type == TOKENIZER_CONTROL) continue;
    if (type == TOKENIZER_UNKNOWN) {
      if (!append(d, " \xe2\x81\x87 ", 5)) return 0;
    } else if (!append_piece(d, t->v.piece[ids[i]].text, first))
      return 0;
    first = 0;
  }
  return append(d, "", 0);
}

int tokenizer_decode(const tokenizer *t, const int32_t *ids, int64_t count, char **text, size_t *n, ice_err *e) {
  decoding d = {0}, bytes = {0};
  *text = NULL;
  *n = 0;
  for (int64_t i = 0; i < count; i++)
    if (ids[i] < 0 || ids[i] >= t->v.n)
      return ice_fail(e, ICE_DATA, "token %lld has id %d, allowed 0..%d", (long long)i, ids[i], t->v.n - 1);
  const int ok = decode(t, ids, count, &d, &bytes);
  free(bytes.text);
  if (!ok) {
    free(d.text);
    return ice_fail(e, ICE_INTERNAL, "out of memory for %lld tokens", (long long)count);
  }
  *text = d.text;
  *n = d.n;
  return ICE_OK;
}
