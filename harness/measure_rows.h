/* measure_rows.h - what `attn` measures: rows, each a method with one set of parameters.
 *
 * Rows come from a list of methods and from settings METHOD.PARAMETER=A|B|C, which multiply out. Rows of a method that
 * differ in late parameters only are neighbours and share plan and built index. `vanilla` and `dense` are always among
 * the rows, because a speed-up needs both. */
#ifndef ICE_MEASURE_ROWS_H
#define ICE_MEASURE_ROWS_H

#include "harness/measure_method.h"
#include "harness/measure_store.h"
#include "harness/measure_tensors.h"
#include "harness/quality.h"
#include "harness/watch.h"

enum { MEASURE_MAX_ROWS = 1024, MEASURE_MAX_METHODS = 64, MEASURE_REASON = 1024 };

typedef struct measure_row {
  const attn_method *method;
  void *params;
  char *json;    /* canonical parameters                                                      */
  char *swept;   /* "k=8,levels=3": those that a sweep gave several values, or ""              */
  int reference; /* 1: nobody asked for it; timed only to be compared with                     */
  int column;    /* in the measurement; -1: refused or failed. The columns of layers follow it  */
  attn_status status;
  char reason[MEASURE_REASON]; /* one line, when status is not ATTN_OK */
  measure_cost *cost; /* [1 + layers]: all problems together, then those of each layer; owned   */
  quality *quality;   /* [1 + layers], owned                                                    */
} measure_row;

typedef struct measure_rows {
  measure_row *row;
  const void **params; /* [n] the rows' params, in order */
  int n;
  const attn_method *method[MEASURE_MAX_METHODS]; /* asked for, in order */
  int n_methods;
  const attn_method *plugin[MEASURE_MAX_METHODS];
  int n_plugins;
  attn_method *broken; /* [n_plugins]: stand in for plug-ins that did not load; owned */
  char (*why)[MEASURE_REASON]; /* [n_plugins]: the reasons, "" where all is well; owned */
  int no_keys;         /* 1: judge outputs alone, for the best keys of long inputs take longer than all the rest */
  watch *watch;        /* told of every step in a method's code; may be NULL */
} measure_rows;

/** Reads methods "a,b,c" (NULL: every method that needs no training, and the plug-ins), settings and plug-ins
 *  (NULL-terminated lists, or NULL). A plug-in is a shared object that exports
 *  `const attn_method *icebench_plugin(uint32_t abi)`; it stays loaded. One that cannot be used (another ABI, no such
 *  function, a table that is none) is a failed row with its reason, under the name that --methods calls it by. ICE_USAGE on
 *  any other fault. watch: NULL, or who learns whose code is about to run; a method that it has blamed fails unheard. */
int measure_rows_create(measure_rows *rows, const char *methods, const char *const *set, const char *const *plugin,
                        watch *w, ice_err *e);
void measure_rows_destroy(measure_rows *rows);
/** Puts `more` rows of the first row's method behind it, with default parameters for the caller to set, without names
 *  (json and swept are NULL). ICE_INTERNAL when memory is out; ICE_USAGE beyond MEASURE_MAX_ROWS. */
int measure_rows_repeat(measure_rows *rows, int more, ice_err *e);

/** Times all rows on the set, interleaved; a sample is the sum over its problems. A row that its method refuses for any
 *  of them, or that fails, says so in its status and leaves the others alone. out must be freed with measure_free() when
 *  ICE_OK is returned. */
int measure_rows_time(measure_rows *rows, const measure_set *set, const measure_plan *plan, measure_result *out,
                      ice_err *e);
/** Runs each good row once more for its errors, mass and recall; an output that is not finite fails the row. out_dir
 *  (NULL: none) receives <method>.o.npy and <method>.idx.npy, with the swept parameters in the name of rows of a sweep,
 *  in a folder of its own for each call of a tape. */
int measure_rows_judge(measure_rows *rows, const measure_set *set, const char *out_dir, ice_err *e);
/** Appends to text (a string in size bytes) why there is no speed-up against a reference that failed: "no speed-up against dense: ...", several
 *  with "; " between. Nothing where all is well. */
void measure_rows_explain(const measure_rows *rows, char *text, size_t size);
/** Columns a row is compared with: the first good rows of vanilla and dense. part 0: everything; 1 + l: layer l. */
measure_columns measure_rows_columns(const measure_rows *rows, const measure_row *row, int part);

#endif
