/* report_records.h - rows of a report for programs: CSV and JSON with every column of the view `results`. */
#ifndef ICE_REPORT_RECORDS_H
#define ICE_REPORT_RECORDS_H

#include <jansson.h>
#include <stdio.h>

#include "harness/report_pairs.h"
#include "harness/report_rows.h"

/** A head, then a line a row. */
void report_records_csv(const report_rows *r, FILE *f);
/** One field of CSV: in quotes where it has to be. Text that a spreadsheet would run as a formula (it begins with = + - @, a tab or a
 *  carriage return, and is no number) gets an apostrophe in front. NULL is an empty field. */
void report_records_csv_field(FILE *f, const char *text);

/** An array of objects; unknown is null; `compared` holds the comparisons of a row with earlier ones. */
int report_records_json(const report_rows *r, const report_pairs *pairs, FILE *f, ice_err *e);
/** A row as an object with every column; NULL when out of memory. */
json_t *report_record(const report_rows *r, int row);
/** A string, whatever the bytes. */
json_t *report_record_text(const char *text);
/** A number, or null when it is not finite. */
json_t *report_record_number(double v);

#endif
