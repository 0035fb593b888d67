/* explain_print.h - what explain.h found, for people and programs, and as an experiment. */
#ifndef ICE_EXPLAIN_PRINT_H
#define ICE_EXPLAIN_PRINT_H

#include <jansson.h>
#include <stdio.h>

#include "harness/explain.h"

typedef struct explain_names { /* of the row that is explained */
  const char *experiment, *model, *params; /* params: canonical JSON */
  const json_t *config;                    /* the cell as it was configured */
  int threads;                             /* it ran with */
  const char *file;                        /* where the schedules are, NULL: nowhere */
} explain_names;

/** Tables with a legend, Markdown that also reads well in a terminal. ICE_INTERNAL when out of memory. */
int explain_print_text(const explain_options *o, const explain_result *r, const explain_names *names, FILE *f, ice_err *e);
/** The same as JSON; NULL when out of memory. */
json_t *explain_json(const explain_options *o, const explain_result *r, const explain_names *names);
/** An experiment that `run` takes: exact attention, the method as it was, and its schedules where they differ from that. */
void explain_print_yaml(const explain_options *o, const explain_result *r, const explain_names *names, FILE *f);

#endif
