/* sums.h - checksums that lie beside data: a file SHA256SUMS, as sha256sum writes it, in the folder of a data file or above. */
#ifndef ICE_SUMS_H
#define ICE_SUMS_H

#include "kernels/core/err.h"

/** Compares the file (or the archive that the path leads into) with its line in the nearest SHA256SUMS. *found = 0 when there is no
 *  such file or line, or path is a folder. ICE_DATA, with both sums, when they differ. */
int sums_check(const char *path, int *found, ice_err *e);

#endif
