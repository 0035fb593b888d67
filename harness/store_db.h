/* store_db.h - a connection to the database for the store*.c files: opening, migrating, statements, faults. Everybody else
 * uses store.h. */
#ifndef ICE_STORE_DB_H
#define ICE_STORE_DB_H

#include <sqlite3.h>

#include "harness/store.h"

struct store {
  sqlite3 *db;
  char *path;
  int writes;
};

/** Does the file lie on a file system of another machine? Tests put another answer here. */
extern int (*store_is_remote)(const char *path);

/** The last fault of the connection as ICE_DB with file, what was being done, SQLite's words and the next step. */
int store_fail(const store *s, const char *doing, ice_err *e);
/** Statements without values or rows. */
int store_execute(store *s, const char *sql, const char *doing, ice_err *e);

/** A prepared statement whose values are bound in order. */
typedef struct store_statement {
  store *s;
  sqlite3_stmt *st;
  int next, bad; /* the place of the next value; a bind failed */
} store_statement;

int store_prepare(store *s, store_statement *t, const char *sql, ice_err *e);
void store_bind_text(store_statement *t, const char *v);    /* NULL is NULL */
void store_bind_int(store_statement *t, int64_t v);
void store_bind_known(store_statement *t, int64_t v); /* 0 is unknown, NULL */
void store_bind_real(store_statement *t, double v);   /* NAN is unknown, NULL */
/** Runs a statement without rows and makes it ready for the next values. */
int store_step(store_statement *t, const char *doing, ice_err *e);
void store_finish(store_statement *t);
/** First number of the first row. */
int store_number(store *s, const char *sql, int64_t *out, ice_err *e);

#endif
