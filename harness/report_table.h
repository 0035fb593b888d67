/* report_table.h - tables and the text around them, for people: Markdown that also reads well in a terminal, LaTeX
 * (booktabs), HTML. Every text is escaped here and nowhere else. */
#ifndef ICE_REPORT_TABLE_H
#define ICE_REPORT_TABLE_H

#include <stdio.h>

#include "harness/report.h"
#include "harness/stats.h"

typedef struct report_column {
  const char *head, *legend;
  char align;    /* 'l' or 'r'                                                                     */
  char with_next; /* 1: never separated from the next column, and shown whenever one of them has values */
} report_column;

typedef struct report_table {
  int columns, rows, failed; /* failed: out of memory */
  const report_column *column;
  char **cell;    /* [rows * columns], owned; NULL = unknown */
  double *number; /* [rows * columns], owned: what a cell is sorted by; NAN: by its text */
  int *row, *other; /* [rows], owned: rows of the report that a row tells of, for its provenance in HTML; -1: none */
} report_table;

/** A table without values. ICE_INTERNAL when out of memory; free it in any case. */
int report_table_create(report_table *t, const report_column *column, int columns, int rows, ice_err *e);
void report_table_free(report_table *t);
/** Sets a cell; the text may be of any length. */
void report_table_set(report_table *t, int row, int column, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/** Sets a cell to a number with so many decimals; an unknown (not finite) one is none. */
void report_table_number(report_table *t, int row, int column, int decimals, double v);
/** "0.40 [0.36, 0.44]", without brackets where the interval is unknown. sign '+': positive numbers have one, too; 0: they have none. */
void report_table_interval(report_table *t, int row, int column, int decimals, char sign, stats_interval v);
/** 1 when the column has a value, or belongs to one that has. */
int report_table_used(const report_table *t, int column);
/** Prints the columns in use. width > 0: a Markdown table wider than this is cut into several that repeat the first two
 *  columns. ICE_INTERNAL when a cell could not be set. */
int report_table_print(const report_table *t, report_format format, int width, FILE *f, ice_err *e);

/** Escaped text: bytes that are no UTF-8 and control characters become '?'. */
void report_text(FILE *f, report_format format, const char *text);
/** Text as a whole: a heading, a paragraph, a list of lines "name: text" (name may be NULL). */
void report_heading(FILE *f, report_format format, const char *text);
void report_paragraph(FILE *f, report_format format, const char *text);
void report_list_start(FILE *f, report_format format);
void report_list_item(FILE *f, report_format format, const char *name, const char *text);
void report_list_end(FILE *f, report_format format);
/** Around the tables of rows that belong together: number `group` of them. Only HTML shows it. */
void report_section_start(FILE *f, report_format format, int group);
void report_section_end(FILE *f, report_format format);
/** What stands around all of it. */
void report_document_start(FILE *f, report_format format);
void report_document_end(FILE *f, report_format format);

#endif
