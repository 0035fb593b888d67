/* lra_listops.h - ListOps expressions as token ids: the parts that the generator, the loader and the tests share. */
#ifndef ICE_LRA_LISTOPS_H
#define ICE_LRA_LISTOPS_H

#include "datasets/task.h"
#include "kernels/core/rng.h"

/** Ids. The original takes its order from an unordered set, so any order is as good; this one is stored with weights. */
enum {
  LISTOPS_DIGIT_0 = 1, /* digit v is LISTOPS_DIGIT_0 + v */
  LISTOPS_MIN = 11,
  LISTOPS_MAX,
  LISTOPS_MED,
  LISTOPS_SM,
  LISTOPS_CLOSE, /* ']', called X in the original vocabulary */
};

#define LISTOPS_MAX_TOKENS 2000 /* where the original pipeline truncates; no example of the release is that long */
#define LISTOPS_MAX_ARGS 10
#define LISTOPS_MAX_DEPTH 10

/** An expression in the order of reading: operator, arguments, close. */
typedef struct listops_tree {
  int n;                            /* tokens */
  uint8_t id[LISTOPS_MAX_TOKENS];
  uint8_t args[LISTOPS_MAX_TOKENS]; /* number of arguments where id is an operator */
} listops_tree;

/** Draws one tree by the procedure of the LRA script (root at depth 1); returns 0 when it reached 2000 tokens, else 1. */
int listops_draw(attn_rng *r, listops_tree *t);
/** Value 0..9 of n ids, or -1 when they are not one complete expression of at most 2000 tokens. */
int listops_value(const int32_t *id, int64_t n);
/** Text form of the release, "( ( ( [MAX 2 ) 9 ) ] )", into out; returns its length, at most LISTOPS_MAX_TEXT. */
#define LISTOPS_MAX_TEXT (LISTOPS_MAX_TOKENS * 12)
int listops_text(const listops_tree *t, char *out);

typedef enum listops_layout {
  LISTOPS_RELEASE, /* header "Source<TAB>Target", then expression<TAB>label */
  LISTOPS_ORIGINAL /* no header, label<TAB>expression (Nangia & Bowman 2018) */
} listops_layout;
/** Parses a table in memory. ICE_DATA with name:line, what was found and what is allowed; *out is then empty. */
int listops_parse(const uint8_t *p, size_t n, const char *name, listops_layout layout, task_data *out, ice_err *e);

#endif
