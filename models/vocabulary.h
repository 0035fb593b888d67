/* vocabulary.h - the pieces of a tokenizer and what its files say about them: between the readers and writers of
 * tokenizer.model and GGUF on one side, and the BPE of tokenizer.c on the other. */
#ifndef ICE_VOCABULARY_H
#define ICE_VOCABULARY_H

#include "models/gguf.h"
#include "models/tokenizer.h"

enum {
  VOCABULARY_MAX = 1 << 24,     /* pieces */
  VOCABULARY_PIECE_MAX = 1 << 10 /* bytes of a piece */
};

typedef struct vocabulary_piece {
  char *text; /* 1..1024 bytes of UTF-8 without NUL */
  float score;
  int type; /* TOKENIZER_* */
} vocabulary_piece;

typedef struct vocabulary {
  int32_t n, room;
  vocabulary_piece *piece;       /* [n] in order of their ids */
  int32_t unk, bos, eos, pad;    /* ids, -1: none */
  int byte_fallback;             /* what is no piece becomes bytes; otherwise unk */
  int dummy_prefix, trim, escape; /* a space in front; runs of spaces are one, none at the ends; spaces are U+2581 */
} vocabulary;

/** An empty vocabulary with the defaults of SentencePiece. */
vocabulary vocabulary_empty(void);
void vocabulary_free(vocabulary *v);
/** Appends a piece. ICE_DATA, with file and id, for a text or type that is none. */
int vocabulary_add(vocabulary *v, const char *file, const char *text, size_t n, float score, int64_t type, ice_err *e);

/** Reads a tokenizer.model. */
int vocabulary_read_model(vocabulary *v, const uint8_t *bytes, size_t n, const char *file, ice_err *e);
/** Reads the arrays of a GGUF file. */
int vocabulary_read_gguf(vocabulary *v, const gguf_file *f, ice_err *e);
/** Writes a tokenizer.model that reads back equal; it appears whole or not at all. */
int vocabulary_write_model(const vocabulary *v, const char *path, ice_err *e);

/** A tokenizer that takes the vocabulary over (also when it fails). ICE_DATA for one that cannot work: a piece given twice,
 *  byte pieces missing. */
int tokenizer_create(tokenizer **t, vocabulary *v, const char *file, ice_err *e);
const vocabulary *tokenizer_vocabulary(const tokenizer *t);

#endif
