/* real.h - files of the real data sets, for tests that need them. */
#ifndef TEST_REAL_H
#define TEST_REAL_H

/** Path of a file below $ICEBENCH_DATA_DIR; says SKIP and skips the cmocka test when it is not there. */
const char *real_file(const char *name);

#endif
