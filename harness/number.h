/* number.h - numbers as people write them in files and on command lines: decimal, whole string, nothing else. */
#ifndef ICE_NUMBER_H
#define ICE_NUMBER_H

#include <stddef.h>
#include <stdint.h>

/** 1 and *out when the whole text is [+-]digits and the value lies in [min, max]; 0 otherwise, *out untouched. */
int number_int(const char *text, int64_t min, int64_t max, int64_t *out);
/** The same for the seeds of random numbers: 0..2^64-1. */
int number_u64(const char *text, uint64_t *out);
/** 1 and *out when the whole text is a decimal number (1, -0.5, .5, 1e-3; no hexadecimal, infinity or NaN), finite and
 *  in [min, max]. */
int number_real(const char *text, double min, double max, double *out);
/** The fewest digits that read back as the same value. */
void number_print(double value, char *out, size_t size);

#endif
