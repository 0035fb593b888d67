/* tokenizer.h - text to token ids and back: SentencePiece BPE with byte fallback, the tokenizer of Llama models.
 *
 * A vocabulary comes from a `tokenizer.model` (a protocol buffer of SentencePiece) or from the three arrays of a GGUF
 * file. Encoding follows sentencepiece 0.1.97: no pre-tokenisation; adjacent symbols whose concatenation is a piece are
 * merged, best score first, the leftmost on ties; what is no piece becomes bytes. */
#ifndef ICE_TOKENIZER_H
#define ICE_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/core/err.h"

/** Kinds of pieces, numbered as in both file formats. */
enum {
  TOKENIZER_NORMAL = 1,
  TOKENIZER_UNKNOWN = 2,
  TOKENIZER_CONTROL = 3,
  TOKENIZER_USER = 4,
  TOKENIZER_UNUSED = 5,
  TOKENIZER_BYTE = 6
};

typedef struct tokenizer tokenizer;

/** Opens the tokenizer at `path`: a tokenizer.model, a GGUF file, or a folder that holds a tokenizer.model. ICE_DATA, with
 *  the file and what is wrong, when it is missing, damaged, or of another kind than BPE. */
int tokenizer_open(tokenizer **t, const char *path, ice_err *e);
/** The same for the bytes of a tokenizer.model; `name` is used in messages. */
int tokenizer_parse(tokenizer **t, const uint8_t *bytes, size_t n, const char *name, ice_err *e);
/** NULL is fine. */
void tokenizer_close(tokenizer *t);

/** Number of ids: 0 .. vocab - 1. */
int32_t tokenizer_vocab(const tokenizer *t);
/** Ids of the special pieces; -1 when there is none. A Llama prompt begins with bos; an answer ends at eos. */
int32_t tokenizer_bos(const tokenizer *t);
int32_t tokenizer_eos(const tokenizer *t);

/** Ids of n bytes of text, behind bos when `bos` is not 0 (and the vocabulary has one). *ids, to free(), has *count
 *  entries. Any bytes are legal: those that are no UTF-8 are read as U+FFFD, one for each. Control pieces written out in
 *  the text ("</s>") are plain text. O(n log n). ICE_INTERNAL when out of memory, ICE_USAGE beyond 2^30 bytes. */
int tokenizer_encode(const tokenizer *t, const char *text, size_t n, int bos, int32_t **ids, int64_t *count, ice_err *e);
/** Text of ids: *text, to free(), *n bytes of valid UTF-8 and a NUL behind them. Control pieces are left out; the one space
 *  that encoding puts in front is taken away again. ICE_DATA for an id that is none. */
int tokenizer_decode(const tokenizer *t, const int32_t *ids, int64_t count, char **text, size_t *n, ice_err *e);

#endif
