/* imdb.h - reviews of IMDb (Maas et al. 2011), in the official folders or as one table; what lra/text and lra/retrieval-imdb share.
 *
 * Official  aclImdb/{train,test}/{neg,pos}/<number>_<rating>.txt (also in aclImdb_v1.tar.gz). White space at both ends is dropped.
 * Table     lra/text/{train,test}.tsv: label<TAB>text, one review a line; only line feeds end a line. */
#ifndef ICE_IMDB_H
#define ICE_IMDB_H

#include "datasets/task.h"

typedef struct imdb_review {
  const uint8_t *p;
  size_t n;
  int label;  /* 0 negative, 1 positive */
  int number; /* of the file, or of the line counted in pairs: neg 0, pos 0, neg 1, ... */
} imdb_review;

typedef struct imdb {
  imdb_review *review; /* [count], by number, negative first */
  int64_t count;
  uint64_t hash;
  char origin[512];
  int official; /* 0: the table */
  void *memory; /* what the texts point into */
} imdb;

extern const task_release imdb_release;
#define IMDB_TABLE_NOTE "IMDb as a table: line breaks and tabs are spaces"

/** Reads the train or test reviews found below root. *absent as of task.load. */
int imdb_load(const char *root, int test, imdb *out, int *absent, ice_err *e);
void imdb_free(imdb *m);
/** Parses a table in memory (the texts point into it). ICE_DATA with name:line; out is then empty. */
int imdb_parse(const uint8_t *p, size_t n, const char *name, imdb *out, ice_err *e);

#endif
