/* translit.h - lower-case text in ASCII, as the F1 of ZeroSCROLLS compares it.
 *
 * The published metric calls Python's Unidecode last of all. Here: lower-case Latin letters without their marks, Greek and Cyrillic
 * ones romanised, typographic signs as typewriters write them, as it does. Other characters stay what they are, which tells words
 * apart as well as any spelling; an ideograph is a word of its own, as it is there. */
#ifndef ICE_TRANSLIT_H
#define ICE_TRANSLIT_H

#include <stdint.h>

/** The spelling of a code point, at most 7 bytes, into out [8]; "" when it is left out. */
void translit(uint32_t c, char *out);

#endif
