/* sql.h - the schema migrations, embedded at build time from harness/sql/NNNN_*.sql, in order; NULL-terminated. */
#ifndef ICE_SQL_H
#define ICE_SQL_H
extern const char *const store_migrations[];
#endif
