/* sql.c - `sql FILE STATEMENT`: prints the rows of a query, columns separated by '|'. For the command-line tests, which need
 * the library anyway but not SQLite's own shell. */
#include <sqlite3.h>
#include <stdio.h>

static int print_row(void *ctx, int n, char **value, char **name) {
  (void)ctx, (void)name;
  for (int i = 0; i < n; i++) (void)printf("%s%s", i ? "|" : "", value[i] ? value[i] : "");
  return putchar('\n') == EOF;
}

int main(int argc, char **argv) {
  sqlite3 *db;
  char *error = NULL;
  if (argc != 3 || sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) return 2;
  (void)sqlite3_busy_timeout(db, 10000);
  if (sqlite3_exec(db, argv[2], print_row, NULL, &error) != SQLITE_OK) {
    (void)fprintf(stderr, "%s\n", error);
    return 1;
  }
  return sqlite3_close(db) != SQLITE_OK;
}
