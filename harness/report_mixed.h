/* report_mixed.h - is a table made of rows that belong together? */
#ifndef ICE_REPORT_MIXED_H
#define ICE_REPORT_MIXED_H

#include "harness/store.h"

/** ICE_USAGE when finished rows that would stand in one table (of an experiment; NULL: of any) come from several builds or
 *  machines, or when some have fewer examples than others because of --limit. The text names the first such table, what
 *  differs, and the way out. */
int report_refuse_mixed(store *s, const char *experiment, ice_err *e);

#endif
