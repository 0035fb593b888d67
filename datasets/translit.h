/* translit.h - lower-case text in ASCII, as the F1 of ZeroSCROLLS compares it.
 *
 * The published metric calls Python's Unidecode last of all. Here, from the Unicode Character Database and a short list of our own: Latin
 * letters without their marks, ligatures and letters in another dress, typographic quotes, dashes, dots, fractions, spaces as a
 * typewriter writes them; an ideograph is a word of its own.
 * Where a mark can differ from the published one: Greek, Cyrillic and all other scripts lose their marks at most and are not romanised, nor do signs
 * beyond the list become ASCII. They still equal themselves, so a mark differs only where an answer romanises or spells out what its
 * reference does not, or where two letters would have one romanisation. */
#ifndef ICE_TRANSLIT_H
#define ICE_TRANSLIT_H

#include <stdint.h>

/** The spelling of a code point, at most 7 bytes, into out [8]; "" when it is left out. */
void translit(uint32_t c, char *out);

#endif
