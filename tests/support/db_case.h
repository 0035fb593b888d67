/* db_case.h - a database in a folder of its own for a test, with cells to put into it. */
#ifndef TEST_DB_CASE_H
#define TEST_DB_CASE_H

#include <stddef.h>

#include "harness/store.h"

extern char db_folder[], db_path[256]; /* the folder; the database, in db_folder/sub, which store_open makes */

/** Before and after every test. */
int db_setup(void **state);
int db_teardown(void **state);
#define DB_TEST(f) cmocka_unit_test_setup_teardown(f, db_setup, db_teardown)

/** The database at db_path, opened; a fault fails the test. */
store *db_open(store_mode mode);
/** A cell with metrics, samples and predictions; texts stay the caller's. */
store_cell db_cell(const char *key, const char *method, const char *status);
/** What a query gives, all values of all rows with '|' behind each; valid until the next call. */
const char *db_ask(store *s, const char *sql);
/** Opening is refused with exit code 8 and one line that holds `word`. */
void db_refused(store_mode mode, const char *word);
/** The folder of the database; a file with these bytes in its place. */
void db_make_sub(void);
void db_write_file(const char *text, size_t n);

#endif
