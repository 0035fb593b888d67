/* jsonl.h - files of one JSON object a line, read field by field; every fault names file, line, field and what is allowed. */
#ifndef ICE_JSONL_H
#define ICE_JSONL_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/core/err.h"

typedef struct jsonl {
  const char *name; /* for messages, borrowed */
  const uint8_t *p, *end;
  int64_t line;
  json_t *row; /* the object at hand, owned */
} jsonl;

/** Starts at the beginning of n bytes. */
void jsonl_open(jsonl *j, const uint8_t *p, size_t n, const char *name);
/** Goes to the next object; *more = 0 at the end. Blank lines are passed over. ICE_DATA for what is no object. */
int jsonl_next(jsonl *j, int *more, ice_err *e);
void jsonl_close(jsonl *j);

/** ICE_DATA with the place of the row at hand. */
int jsonl_fail(const jsonl *j, ice_err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/** A field's text (borrowed until the next row), and with `null` 1 also NULL for null or an absent field. */
int jsonl_string(const jsonl *j, const char *field, int null, const char **out, ice_err *e);
/** A field's whole number in [min, max]. */
int jsonl_int(const jsonl *j, const char *field, int64_t min, int64_t max, int64_t *out, ice_err *e);
/** A field's list of texts (borrowed), at least `least` of them. */
int jsonl_strings(const jsonl *j, const char *field, size_t least, json_t **out, ice_err *e);

#endif
