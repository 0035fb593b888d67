/* lra_retrieval.h - the table of document pairs, for the loader and the tests. */
#ifndef ICE_LRA_RETRIEVAL_H
#define ICE_LRA_RETRIEVAL_H

#include "datasets/task.h"

/** Parses label, id, id, text, text (tab-separated, no header) in memory. ICE_DATA with name:line; *out is then empty. */
int retrieval_parse(const uint8_t *p, size_t n, const char *name, task_data *out, ice_err *e);

#endif
