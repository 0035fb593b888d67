/* store_digest.h - what a row says, as one number: the same row in two databases has the same digest, an edited one another. */
#ifndef ICE_STORE_DIGEST_H
#define ICE_STORE_DIGEST_H

#include <stddef.h>

#include "harness/store_db.h"

enum { STORE_DIGEST = 65 }; /* hexadecimal SHA-256 with its end */

/** Digest of the attempt with this id, over everything that belongs to it: its columns, the facts of its machine and build,
 *  and its rows in every table with a column `cell_id`. Numbers that only place it in this database (ids, number of the
 *  attempt, time of its replacement) do not count, and neither do columns that are NULL: so a column that a later schema
 *  adds leaves the digests of older rows as they are. */
int store_digest(store *s, int64_t id, char out[STORE_DIGEST], ice_err *e);

/** Does every row that counts (of an experiment; NULL: of all) say what was stored, and with `older` every attempt that was replaced?
 *  ICE_DB and the first that does not fit its digest otherwise. Rows without a digest, of databases older than digests, pass. */
int store_verify(store *s, const char *experiment, int older, ice_err *e);

typedef struct store_tables { /* names of the tables whose rows belong to an attempt, in order */
  char name[16][64];
  int n;
} store_tables;
int store_tables_of_attempts(store *s, store_tables *out, ice_err *e);

/** Names of the columns of a table but those in `not` (NULL-terminated), quoted, in alphabetical order: "a", "b". The
 *  table's name is one of the schema, never a user's text. */
int store_columns(store *s, const char *table, const char *const *but, char *out, size_t size, ice_err *e);

#endif
