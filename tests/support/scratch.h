/* scratch.h - a folder of its own for each test, and files in it. */
#ifndef TEST_SCRATCH_H
#define TEST_SCRATCH_H

#include <stddef.h>

/** cmocka setup and teardown: makes a folder, removes it with what is in it. */
int scratch_setup(void **state);
int scratch_teardown(void **state);
/** Path of a file in the folder; eight may be in use at a time. */
const char *scratch_path(const char *name);
/** Writes a file; returns its path. Ends the program when it cannot. */
const char *scratch_write(const char *name, const void *bytes, size_t n);
/** The path of the folder. */
const char *scratch_folder(void);

#endif
