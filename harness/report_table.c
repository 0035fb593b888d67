/* report_table.c - see report_table.h */
#include "harness/report_table.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report_html.h"

/* --- text ----------------------------------------------------------------------------------------------------------- */

/* What a character is written as; NULL: as itself. A bar means something in the cells of a Markdown table only. */
static const char *escape(report_format format, int in_cell, char c) {
  switch (format) {
  case REPORT_HTML: return c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : c == '\'' ? "&#39;" : NULL;
  case REPORT_LATEX:
    switch (c) {
    case '\\': return "\\textbackslash{}";
    case '~': return "\\textasciitilde{}";
    case '^': return "\\textasciicircum{}";
    case '<': return "\\textless{}";
    case '>': return "\\textgreater{}";
    case '|': return "\\textbar{}";
    case '_': return "\\_";
    case '%': return "\\%";
    case '&': return "\\&";
    case '#': return "\\#";
    case '$': return "\\$";
    case '{': return "\\{";
    case '}': return "\\}";
    default: return NULL;
    }
  default: return c == '|' && in_cell ? "\\|" : c == '<' ? "\\<" : NULL;
  }
}

/* LaTeX sets Latin-1 with the fonts of T1 and TS1; of other characters it prints the number. Returns NULL for those it sets. */
static const char *latex_number(const char *c, int n, char *out, size_t size) {
  if (n == 1 || (n == 2 && (unsigned char)c[0] <= 0xc3)) return NULL;
  unsigned code = (unsigned char)c[0] & (0xffu >> (n + 1));
  for (int i = 1; i < n; i++) code = code << 6 | ((unsigned char)c[i] & 0x3f);
  (void)snprintf(out, size, "U+%04X", code);
  return out;
}

/* Writes the text and returns its width in characters; f = NULL only measures. */
static int put_text(FILE *f, report_format format, int in_cell, const char *text) {
  int width = 0;
  char number[16];
  while (*text) {
    const int n = ice_printable(text);
    const char *other = n == 0 ? "?" : n == 1 ? escape(format, in_cell, *text) : format == REPORT_LATEX ? latex_number(text, n, number, sizeof number) : NULL;
    if (f && other) (void)fputs(other, f);
    if (f && !other) (void)fwrite(text, 1, (size_t)n, f);
    width += other ? (int)strlen(other) : 1;
    text += n ? n : 1;
  }
  return width;
}

void report_text(FILE *f, report_format format, const char *text) { (void)put_text(f, format, 0, text); }

static void wrap(FILE *f, report_format format, const char *before, const char *text, const char *after) {
  (void)fputs(before, f);
  report_text(f, format, text);
  (void)fputs(after, f);
}

void report_heading(FILE *f, report_format format, const char *text) {
  if (format == REPORT_HTML) wrap(f, format, "<h2>", text, "</h2>\n");
  else if (format == REPORT_LATEX) wrap(f, format, "\\begin{table}\n\\centering\\footnotesize\n\\caption{", text, "}\n");
  else wrap(f, format, "## ", text, "\n\n");
}

void report_paragraph(FILE *f, report_format format, const char *text) {
  if (format == REPORT_HTML) wrap(f, format, "<p>", text, "</p>\n");
  else if (format == REPORT_LATEX) wrap(f, format, "", text, "\\par\\medskip\n");
  else wrap(f, format, "", text, "\n\n");
}

void report_list_start(FILE *f, report_format format) {
  if (format == REPORT_HTML) (void)fputs("<ul>\n", f);
  if (format == REPORT_LATEX) (void)fputs("\\begin{itemize}\\footnotesize\n", f);
}
void report_list_item(FILE *f, report_format format, const char *name, const char *text) {
  (void)fputs(format == REPORT_HTML ? "<li>" : format == REPORT_LATEX ? "\\item{} " : "- ", f);
  if (name) wrap(f, format, format == REPORT_HTML ? "<b>" : format == REPORT_LATEX ? "\\textbf{" : "**", name,
                 format == REPORT_HTML ? "</b>: " : format == REPORT_LATEX ? "}: " : "**: ");
  wrap(f, format, "", text, format == REPORT_HTML ? "</li>\n" : "\n");
}
void report_list_end(FILE *f, report_format format) {
  if (format == REPORT_HTML) (void)fputs("</ul>\n", f);
  if (format == REPORT_LATEX) (void)fputs("\\end{itemize}\n", f);
  if (format == REPORT_MD) (void)fputc('\n', f);
}

void report_section_start(FILE *f, report_format format, int group) {
  if (format == REPORT_HTML) (void)fprintf(f, "<section data-group=\"%d\">\n", group);
}
void report_section_end(FILE *f, report_format format) {
  if (format == REPORT_HTML) (void)fputs("</section>\n", f);
}

void report_document_start(FILE *f, report_format format) {
  if (format == REPORT_LATEX) (void)fputs("% needs \\usepackage[T1]{fontenc}, \\usepackage{booktabs} and UTF-8 input\n", f);
  if (format == REPORT_HTML) report_html_start(f);
}
void report_document_end(FILE *f, report_format format) {
  if (format == REPORT_HTML) report_html_end(f);
}

/* --- table ---------------------------------------------------------------------------------------------------------- */

int report_table_create(report_table *t, const report_column *column, int columns, int rows, ice_err *e) {
  *t = (report_table){.columns = columns, .rows = rows, .column = column};
  const size_t cells = (size_t)rows * (size_t)columns;
  t->cell = calloc(cells + 1, sizeof *t->cell);
  t->number = malloc((cells + 1) * sizeof *t->number);
  t->row = malloc(2 * ((size_t)rows + 1) * sizeof *t->row);
  t->other = t->row ? t->row + rows : NULL;
  for (size_t i = 0; t->number && i < cells; i++) t->number[i] = NAN;
  for (int i = 0; t->row && i < 2 * rows; i++) t->row[i] = -1;
  return t->cell && t->number && t->row ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory for a table");
}

void report_table_free(report_table *t) {
  for (int i = 0; t->cell && i < t->rows * t->columns; i++) free(t->cell[i]);
  free((void *)t->cell);
  free(t->number);
  free(t->row);
  t->cell = NULL, t->number = NULL, t->row = t->other = NULL;
}

void report_table_set(report_table *t, int row, int column, const char *fmt, ...) {
  char **cell = t->cell + row * t->columns + column;
  va_list ap;
  va_start(ap, fmt);
  free(*cell);
  if (vasprintf(cell, fmt, ap) < 0) *cell = NULL, t->failed = 1;
  va_end(ap);
}

void report_table_number(report_table *t, int row, int column, int decimals, double v) {
  report_table_interval(t, row, column, decimals, 0, (stats_interval){v, NAN, NAN});
}

void report_table_interval(report_table *t, int row, int column, int decimals, char sign, stats_interval v) {
  char text[3][400];
  const double part[] = {v.value, v.lo, v.hi};
  if (!isfinite(v.value)) return;
  for (int i = 0; i < 3; i++) (void)snprintf(text[i], sizeof text[i], sign == '+' ? "%+.*f" : "%.*f", decimals, part[i]);
  if (isfinite(v.lo) && isfinite(v.hi)) report_table_set(t, row, column, "%s [%s, %s]", text[0], text[1], text[2]);
  else report_table_set(t, row, column, "%s", text[0]);
  t->number[row * t->columns + column] = v.value;
}

static int has_values(const report_table *t, int column) {
  for (int i = 0; i < t->rows; i++)
    if (t->cell[i * t->columns + column]) return 1;
  return 0;
}

int report_table_used(const report_table *t, int column) {
  if (has_values(t, column)) return 1;
  if (t->column[column].with_next && has_values(t, column + 1)) return 1;
  return column > 0 && t->column[column - 1].with_next && has_values(t, column - 1);
}

static const char *cell_text(const report_table *t, int row, int column) { /* row -1: the head */
  const char *text = row < 0 ? t->column[column].head : t->cell[row * t->columns + column];
  return text ? text : t->column[column].align == 'l' ? "" : "-";
}

static void pad(FILE *f, int n, char with) {
  while (n-- > 0) (void)fputc(with, f);
}

/* Columns that are shown, rows [from, to), in Markdown. */
static void print_md_block(const report_table *t, const int *shown, const int *width, int from, int to, FILE *f) {
  for (int line = from - 2; line < to; line++) { /* head, rule, rows */
    for (int c = 0; c < t->columns; c++) {
      if (!shown[c]) continue;
      const int left = t->column[c].align == 'l';
      (void)fputs("| ", f);
      if (line == from - 1) {
        pad(f, width[c] - !left, '-');
        (void)fputs(left ? " " : ": ", f);
        continue;
      }
      const char *text = cell_text(t, line == from - 2 ? -1 : line, c);
      const int gap = width[c] - put_text(NULL, REPORT_MD, 1, text);
      if (!left) pad(f, gap, ' ');
      (void)put_text(f, REPORT_MD, 1, text);
      if (left) pad(f, gap, ' ');
      (void)fputc(' ', f);
    }
    (void)fputs("|\n", f);
  }
  (void)fputc('\n', f);
}

/* The same as a tabular. Long texts are broken into lines. */
static void print_latex_block(const report_table *t, const int *shown, const int *width, int from, int to, FILE *f) {
  enum { LONG = 40 };
  (void)fputs("\\begin{tabular}{", f);
  for (int c = 0; c < t->columns; c++)
    if (shown[c] && t->column[c].align == 'l' && width[c] > LONG) (void)fputs("p{20em}", f);
    else if (shown[c]) (void)fputc(t->column[c].align, f);
  (void)fputs("}\n\\toprule\n", f);
  for (int i = from - 1; i < to; i++) {
    const char *between = "";
    for (int c = 0; c < t->columns; c++) {
      if (!shown[c]) continue;
      (void)fputs(between, f);
      /* A row that starts with [ would be read as an option of the \\ before it. */
      if (!*between) (void)fputs("{}", f);
      report_text(f, REPORT_LATEX, cell_text(t, i < from ? -1 : i, c));
      between = " & ";
    }
    (void)fputs(i < from ? " \\\\\n\\midrule\n" : " \\\\\n", f);
  }
  (void)fputs("\\bottomrule\n\\end{tabular}\n", f);
}

/* A page of LaTeX: characters that a line of an article has room for in footnotesize, three of them between two columns, and rows of a float. */
enum { LATEX_WIDTH = 92, LATEX_ROWS = 40 };

/* The columns that are shown. In LaTeX a float has so many rows; what does not fit goes on in the next. */
static void print_block(const report_table *t, report_format format, const int *shown, const int *width, int first, FILE *f) {
  if (format != REPORT_LATEX) {
    print_md_block(t, shown, width, 0, t->rows, f);
    return;
  }
  for (int from = 0; from < t->rows; from += LATEX_ROWS) {
    if (from || !first) (void)fputs("\\end{table}\n\\begin{table}\n\\centering\\footnotesize\n(continued)\\par\n", f);
    print_latex_block(t, shown, width, from, from + LATEX_ROWS < t->rows ? from + LATEX_ROWS : t->rows, f);
  }
}

/* Cuts the columns into blocks that fit, each with the first two (which name the row). */
static void print_blocks(const report_table *t, report_format format, const int *used, int limit, int *shown, int *width, FILE *f) {
  for (int c = 0; c < t->columns; c++) {
    width[c] = 0;
    for (int i = -1; i < t->rows; i++) {
      const int w = put_text(NULL, format, 1, cell_text(t, i, c));
      if (w > width[c]) width[c] = w;
    }
    if (width[c] < 2) width[c] = 2; /* room for "-:" */
  }
  for (int c = 2, first = 1; c < t->columns;) {
    int total = 1, block = 0;
    memset(shown, 0, (size_t)t->columns * sizeof *shown);
    for (int k = 0; k < 2; k++)
      if ((shown[k] = used[k])) total += width[k] + 3;
    while (c < t->columns) {
      int piece = 0, end = c;
      do piece += used[end] ? width[end] + 3 : 0;
      while (t->column[end++].with_next);
      if (limit > 0 && block > 0 && total + piece > limit) break;
      for (; c < end; c++) shown[c] = used[c];
      total += piece;
      block += piece > 0;
    }
    if (block > 0) print_block(t, format, shown, width, first, f);
    first &= block == 0;
  }
}

static void print_html_head(const report_table *t, const int *used, FILE *f) {
  (void)fputs("<div class=\"scroll\"><table>\n<thead>\n<tr>", f);
  for (int c = 0; c < t->columns; c++) {
    if (!used[c]) continue;
    (void)fprintf(f, "<th scope=\"col\"%s", t->column[c].align == 'l' ? " class=\"l\"" : "");
    if (t->column[c].legend) wrap(f, REPORT_HTML, " data-legend=\"", t->column[c].legend, "\"");
    wrap(f, REPORT_HTML, ">", cell_text(t, -1, c), "</th>");
  }
  (void)fputs("</tr>\n</thead><tbody>\n", f);
}

static void print_html(const report_table *t, const int *used, FILE *f) {
  print_html_head(t, used, f);
  for (int i = 0; i < t->rows; i++) {
    (void)fputs("<tr", f);
    if (t->row[i] >= 0) (void)fprintf(f, " data-row=\"%d\"", t->row[i]);
    if (t->other[i] >= 0) (void)fprintf(f, " data-other=\"%d\"", t->other[i]);
    (void)fputc('>', f);
    for (int c = 0; c < t->columns; c++) {
      if (!used[c]) continue;
      const double number = t->number[i * t->columns + c];
      (void)fprintf(f, "<td%s", t->column[c].align == 'l' ? " class=\"l\"" : "");
      if (isfinite(number)) (void)fprintf(f, " data-v=\"%.10g\"", number);
      wrap(f, REPORT_HTML, ">", cell_text(t, i, c), "</td>");
    }
    (void)fputs("</tr>\n", f);
  }
  (void)fputs("</tbody></table></div>\n", f);
}

int report_table_print(const report_table *t, report_format format, int width, FILE *f, ice_err *e) {
  int *mem = t->failed ? NULL : calloc((size_t)t->columns * 3, sizeof *mem), *used = mem;
  if (!mem) return ice_fail(e, ICE_INTERNAL, "out of memory for a table");
  for (int c = 0; c < t->columns; c++) used[c] = report_table_used(t, c);
  if (format == REPORT_HTML) print_html(t, used, f);
  else print_blocks(t, format, used, format == REPORT_LATEX ? LATEX_WIDTH : width, mem + t->columns, mem + 2 * t->columns, f);
  if (format == REPORT_LATEX) (void)fputs("\\end{table}\n", f);
  free(mem);
  return ICE_OK;
}
