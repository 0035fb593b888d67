/* real.h - files of the real data sets, for tests that need them. */
#ifndef TEST_REAL_H
#define TEST_REAL_H

#include <stdio.h>

/** Path of a file below $ICEBENCH_DATA_DIR; says SKIP and skips the cmocka test when it is not there. */
const char *real_file(const char *name);

/** Writes lines of all text below $ICEBENCH_DATA_DIR to a file: of every .jsonl file the texts in its objects, of every .tsv, .txt,
 *  .inp and .md file its lines. Of each file about `budget` bytes, evenly spread; all of them when it is 0. Returns the bytes
 *  written; skips the test when there is no such folder. */
size_t real_texts(FILE *to, size_t budget);

#endif
