/* attn_report.h - what `attn` measured, as a table, as JSON, and as rows of the database. */
#ifndef ICE_ATTN_REPORT_H
#define ICE_ATTN_REPORT_H

#include "harness/measure_rows.h"
#include "harness/roofline.h"
#include "harness/store.h"

typedef struct attn_report {
  const measure_set *set;
  const measure_rows *rows;
  const measure_result *result;
  int threads, rounds; /* asked for */
  uint64_t seed;
  const roofline *roof; /* [2]: one thread, all threads; or NULL */
} attn_report;

/** One object: problem, machine, methods; a row of a tape has an object of its own for each layer. */
int attn_report_json(const attn_report *r, ice_err *e);
int attn_report_text(const attn_report *r, ice_err *e);
/** Stores the rows that were asked for as experiment `attn`; measured again, they replace their predecessors. */
int attn_report_save(const attn_report *r, store *db, int64_t started_ms, ice_err *e);

#endif
