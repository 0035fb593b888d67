/* lra_listops.c - ListOps of the Long Range Arena: evaluate a nested list expression of 500 to 2000 tokens, 10 classes.
 *
 * Files   lra/listops-1000/basic_{train,val,test}.tsv (also inside lra/lra_release/lra_release/), plain or .gz: a header,
 *         then "expression<TAB>value", lines ending in CR LF or LF. Brackets ( ) carry no meaning and are dropped.
 * Make    The published script fixes no seed, so its files cannot be had again; ours draw from the same distribution,
 *         one stream of random numbers per split, no expression twice in any split. generated.json beside the files says
 *         so; it is marked complete only after the last file is in place.
 * Source  google-research/long-range-arena: lra_benchmarks/data/listops.py, lra_benchmarks/listops/input_pipeline.py;
 *         Nangia & Bowman 2018 (arXiv:1804.06028).
 * Limits  Probability 0.25 of an operator at depths 1..9, 2..10 arguments, lengths strictly between 500 and 2000. */
#include "datasets/lra_listops.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "datasets/build.h"
#include "datasets/manifest.h"
#include "datasets/source.h"

#define MIN_TOKENS 500 /* both bounds are exclusive */
#define MAX_FILE_BYTES ((size_t)4 << 30)
#define FOLDER "lra/listops-1000"
#define GENERATOR "icebench lra/listops 1" /* counted up whenever a seed gives other examples */

static const char *const token_text[] = {
    [1] = "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "[MIN", "[MAX", "[MED", "[SM", "]"};

/* --- expressions ---------------------------------------------------------------------------------------------- */

static int draw_node(attn_rng *r, listops_tree *t, int depth) {
  if (t->n >= LISTOPS_MAX_TOKENS - 1) return 0;
  if (depth >= LISTOPS_MAX_DEPTH || attn_rng_uniform(r) > 0.25) {
    t->id[t->n++] = (uint8_t)(LISTOPS_DIGIT_0 + attn_rng_below(r, 10));
    return 1;
  }
  int at = t->n++, args = 2 + (int)attn_rng_below(r, LISTOPS_MAX_ARGS - 1);
  t->args[at] = (uint8_t)args;
  for (int i = 0; i < args; i++)
    if (!draw_node(r, t, depth + 1)) return 0;
  if (t->n >= LISTOPS_MAX_TOKENS - 1) return 0;
  t->id[at] = (uint8_t)(LISTOPS_MIN + attn_rng_below(r, 4)); /* drawn after the arguments, as in the script */
  t->id[t->n++] = LISTOPS_CLOSE;
  return 1;
}

int listops_draw(attn_rng *r, listops_tree *t) {
  t->n = 0;
  return draw_node(r, t, 1);
}

/* Value of an operator on the multiset of its arguments, given as counts of the digits 0..9. */
static int apply(int op, const int count[10], int args) {
  int lo = -1, hi = -1, mid_lo = -1, mid_hi = -1, sum = 0, seen = 0;
  for (int v = 0; v < 10; v++) {
    if (!count[v]) continue;
    if (lo < 0) lo = v;
    hi = v;
    sum = (sum + v * count[v]) % 10;
    seen += count[v];
    if (mid_lo < 0 && seen > (args - 1) / 2) mid_lo = v;
    if (mid_hi < 0 && seen > args / 2) mid_hi = v;
  }
  switch (op) {
  case LISTOPS_MIN: return lo;
  case LISTOPS_MAX: return hi;
  case LISTOPS_MED: return (mid_lo + mid_hi) / 2; /* the mean of an even count is truncated */
  default: return sum;
  }
}

int listops_value(const int32_t *id, int64_t n) {
  struct open {
    int op, args, count[10];
  } stack[LISTOPS_MAX_TOKENS / 2];
  int depth = 0;
  if (n < 1 || n > LISTOPS_MAX_TOKENS) return -1;
  for (int64_t i = 0; i < n; i++) {
    int value = id[i] - LISTOPS_DIGIT_0;
    if (id[i] >= LISTOPS_MIN && id[i] <= LISTOPS_SM) {
      if (depth == (int)(sizeof stack / sizeof *stack)) return -1;
      stack[depth++] = (struct open){.op = id[i]};
      continue;
    }
    if (id[i] == LISTOPS_CLOSE) {
      if (!depth || !stack[depth - 1].args) return -1;
      depth--;
      value = apply(stack[depth].op, stack[depth].count, stack[depth].args);
    } else if (value < 0 || value > 9) {
      return -1;
    }
    if (!depth) return i == n - 1 ? value : -1;
    stack[depth - 1].args++;
    stack[depth - 1].count[value]++;
  }
  return -1;
}

/* Every operator of k arguments opens k+1 brackets; one closes after each argument and one after the "]". */
int listops_text(const listops_tree *t, char *out) {
  char *p = out;
  int depth = 0;
  for (int i = 0; i < t->n; i++) {
    const char *word = token_text[t->id[i]];
    size_t len = strlen(word);
    int is_op = t->id[i] >= LISTOPS_MIN && t->id[i] <= LISTOPS_SM;
    if (i) *p++ = ' ';
    for (int b = 0; is_op && b <= t->args[i]; b++) *p++ = '(', *p++ = ' ';
    memcpy(p, word, len);
    p += len;
    if (t->id[i] == LISTOPS_CLOSE) {
      *p++ = ' ', *p++ = ')';
      depth--;
    }
    if (is_op) depth++;
    else if (depth) *p++ = ' ', *p++ = ')';
  }
  return (int)(p - out);
}

/* --- reading -------------------------------------------------------------------------------------------------- */

/* What is being parsed: the rest of the text, and the growing result. */
typedef struct parser {
  const uint8_t *p, *end;
  const char *name;
  int64_t line;
  task_builder b;
} parser;

static int fault(const parser *ps, ice_err *e, const char *what, const uint8_t *at, const char *allowed) {
  int len = 0; /* the word at fault, shortened */
  while (len < 24 && at + len < ps->end && !strchr(" \t\r\n", at[len])) len++;
  return ice_fail(e, ICE_DATA, "%s:%" PRId64 ": %s '%.*s'; %s", ps->name, ps->line, what, len, (const char *)at, allowed);
}

static int ends_word(const parser *ps, const uint8_t *p) {
  return p >= ps->end || *p == ' ' || *p == '\t' || *p == '\r' || *p == '\n';
}

/* The id of the word at p, 0 for a bracket, -1 for anything else; *len gets its length. */
static inline int word_id(const parser *ps, const uint8_t *p, int *len) {
  *len = 1;
  if (ends_word(ps, p + 1)) {
    if (*p == '(' || *p == ')') return 0;
    if (*p >= '0' && *p <= '9') return LISTOPS_DIGIT_0 + *p - '0';
    return *p == ']' ? LISTOPS_CLOSE : -1;
  }
  if (*p != '[') return -1;
  for (int id = LISTOPS_MIN; id <= LISTOPS_SM; id++) {
    *len = (int)strlen(token_text[id]);
    if (ps->end - p >= *len && !memcmp(p, token_text[id], (size_t)*len) && ends_word(ps, p + *len)) return id;
  }
  return -1;
}

static int parse_expression(parser *ps, ice_err *e) {
  int32_t *t;
  int n = 0, len;
  ICE_TRY(task_build_room(&ps->b, LISTOPS_MAX_TOKENS, &t, e));
  while (ps->p < ps->end && *ps->p != '\t' && *ps->p != '\r' && *ps->p != '\n') {
    if (*ps->p == ' ') {
      ps->p++;
      continue;
    }
    int id = word_id(ps, ps->p, &len);
    if (id < 0) return fault(ps, e, "unknown token", ps->p, "allowed are 0..9 [MIN [MAX [MED [SM ] ( )");
    if (id && n == LISTOPS_MAX_TOKENS)
      return fault(ps, e, "too many tokens, at", ps->p, "at most 2000 besides brackets are allowed");
    if (id) t[n++] = id;
    ps->p += len;
  }
  if (!n) return fault(ps, e, "no expression before", ps->p, "expected tokens such as [MAX 2 9 ]");
  task_build_close(&ps->b, n);
  return ICE_OK;
}

static int parse_label(parser *ps, int32_t *label, ice_err *e) {
  if (ps->end - ps->p < 1 || *ps->p < '0' || *ps->p > '9' || !ends_word(ps, ps->p + 1))
    return fault(ps, e, "label", ps->p, "allowed are 0..9");
  *label = *ps->p++ - '0';
  return ICE_OK;
}

static int parse_tab(parser *ps, ice_err *e) {
  if (ps->p >= ps->end || *ps->p != '\t') return fault(ps, e, "missing column, at", ps->p, "expected two columns with one tab between");
  ps->p++;
  return ICE_OK;
}

static int parse_line_end(parser *ps, ice_err *e) {
  if (ps->end - ps->p >= 2 && ps->p[0] == '\r' && ps->p[1] == '\n') ps->p += 2;
  else if (ps->p < ps->end && *ps->p == '\n') ps->p++;
  else if (ps->p < ps->end) return fault(ps, e, "more after the last column:", ps->p + 1, "expected the end of the line");
  ps->line++;
  return ICE_OK;
}

static int parse_rows(parser *ps, listops_layout layout, ice_err *e) {
  static const char header[] = "Source\tTarget";
  if (layout == LISTOPS_RELEASE) {
    if (ps->end - ps->p < (ptrdiff_t)sizeof header - 1 || memcmp(ps->p, header, sizeof header - 1))
      return fault(ps, e, "first line begins with", ps->p, "expected the header Source<TAB>Target");
    ps->p += sizeof header - 1;
    ICE_TRY(parse_line_end(ps, e));
  }
  while (ps->p < ps->end) {
    int32_t label = 0;
    if (layout == LISTOPS_ORIGINAL) {
      ICE_TRY(parse_label(ps, &label, e));
      ICE_TRY(parse_tab(ps, e));
    }
    ICE_TRY(parse_expression(ps, e));
    if (layout == LISTOPS_RELEASE) {
      ICE_TRY(parse_tab(ps, e));
      ICE_TRY(parse_label(ps, &label, e));
    }
    ICE_TRY(parse_line_end(ps, e));
    task_build_example(&ps->b, label);
  }
  return task_build_finish(&ps->b, ps->name, e);
}

int listops_parse(const uint8_t *p, size_t n, const char *name, listops_layout layout, task_data *out, ice_err *e) {
  *out = (task_data){.inputs = 1};
  parser ps = {.p = p, .end = p + n, .name = name, .line = 1, .b = {.d = out}};
  const int rc = parse_rows(&ps, layout, e);
  if (rc) task_data_free(out);
  return rc;
}

static int load_file(const char *path, listops_layout layout, task_data *out, ice_err *e) {
  source s;
  ICE_TRY(source_open(path, MAX_FILE_BYTES, &s, e));
  int rc = listops_parse(s.p, s.n, path, layout, out, e);
  if (!rc) {
    out->hash = s.hash;
    task_set_origin(out, path);
  }
  source_close(&s);
  return rc;
}

static const char *const file_name[TASK_SPLITS] = {"basic_train.tsv", "basic_val.tsv", "basic_test.tsv"};

/* The folder [FILE_PATH] with the release layout below root, judged by any of its three files or the record of a
 * generation that may have been interrupted. */
static int find_folder(const char *root, char *dir, int *found, ice_err *e) {
  static const char *const places[] = {FOLDER, "lra/lra_release/lra_release/listops-1000",
                                       "lra/lra_release/listops-1000", "lra_release/lra_release/listops-1000",
                                       "lra_release/listops-1000", "listops-1000", "lra/listops", NULL};
  static const char *const names[] = {"basic_train.tsv", "basic_val.tsv", "basic_test.tsv", MANIFEST_FILE, NULL};
  return source_locate(root, places, names, dir, found, e);
}

/* --- loading -------------------------------------------------------------------------------------------------- */

static int load(const char *root, task_split split, task_data *out, int *absent, ice_err *e) {
  char dir[FILE_PATH], path[FILE_PATH];
  json_t *made = NULL;
  int found;
  ICE_TRY(find_folder(root, dir, &found, e));
  *absent = !found;
  if (*absent) return ice_fail(e, ICE_DATA, "%s: holds no " FOLDER, root);
  ICE_TRY(manifest_read(dir, "lra/listops", &made, e));
  int rc = source_find(dir, file_name[split], path, &found, e);
  if (rc == ICE_OK && !found)
    rc = ice_fail(e, ICE_DATA, "%s/%s: missing beside the other splits; make or fetch the set again", dir, file_name[split]);
  if (rc == ICE_OK) rc = load_file(path, LISTOPS_RELEASE, out, e);
  if (rc == ICE_OK) {
    out->official = !made;
    rc = manifest_check(made, split, out, e);
    if (rc) task_data_free(out);
  }
  json_decref(made);
  return rc;
}

static int load_standin(const char *root, task_split split, task_data *out, int *absent, ice_err *e) {
  char path[FILE_PATH];
  int found = 0;
  if (split == TASK_TEST) ICE_TRY(source_find(root, "lra/listops/nangia_bowman_test_d20s.tsv", path, &found, e));
  *absent = !found;
  if (*absent) return ice_fail(e, ICE_DATA, "%s: holds no stand-in for the %s split", root, task_split_name(split));
  return load_file(path, LISTOPS_ORIGINAL, out, e);
}

static int value_of(const task_data *d, int64_t e) { return listops_value(task_ids(d, e, 0), task_len(d, e, 0)); }

/* --- making --------------------------------------------------------------------------------------------------- */

/* Set of the 128-bit hashes of all expressions so far: open addressing, at most half full, never grows. */
typedef struct seen_set {
  XXH128_hash_t *slot;
  uint64_t mask;
} seen_set;

/* 1 when h was new. An all-zero hash marks a free slot; that it occurs has probability 2^-128. */
static int seen_add(seen_set *s, XXH128_hash_t h) {
  for (uint64_t i = h.low64 & s->mask;; i = (i + 1) & s->mask) {
    if (!s->slot[i].low64 && !s->slot[i].high64) {
      s->slot[i] = h;
      return 1;
    }
    if (XXH128_isEqual(s->slot[i], h)) return 0;
  }
}

static int make_split(const task_make_options *opt, const char *dir, task_split split, int64_t count, seen_set *seen,
                      int64_t *done, int64_t total, json_t *record, ice_err *e) {
  char path[FILE_PATH], *text = malloc(LISTOPS_MAX_TEXT + 16);
  listops_tree *t = malloc(sizeof *t);
  XXH3_state_t *hash = XXH3_createState();
  attn_rng rng;
  file_out o = {0};
  int rc = text && t && hash ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
  if (!rc) rc = file_join(path, dir, file_name[split], e);
  if (!rc) rc = file_out_open(&o, path, e);
  if (rc) goto done;
  attn_rng_seed(&rng, opt->seed, 0x6c6973746f7073u + (uint64_t)split); /* "listops" */
  (void)XXH3_64bits_reset(hash);
  int n = sprintf(text, "Source\tTarget\r\n");
  for (int64_t i = 0; i <= count; i++) {
    if (opt->stop && *opt->stop) {
      rc = ice_fail(e, ICE_INTERNAL, "%s: stopped after %" PRId64 " of %" PRId64 " examples", path, i, count);
      goto done;
    }
    (void)XXH3_64bits_update(hash, text, (size_t)n);
    if (fwrite(text, 1, (size_t)n, o.stream) != (size_t)n) break; /* commit reports it */
    if (i == count) break;
    do
      while (!listops_draw(&rng, t) || t->n <= MIN_TOKENS);
    while (!seen_add(seen, XXH3_128bits(t->id, (size_t)t->n)));
    int32_t id[LISTOPS_MAX_TOKENS];
    for (int k = 0; k < t->n; k++) id[k] = t->id[k];
    n = listops_text(t, text);
    n += sprintf(text + n, "\t%d\r\n", listops_value(id, t->n));
    if (opt->progress && ++*done % 256 == 0) opt->progress(opt->ctx, *done, total);
  }
  rc = file_out_commit(&o, e);
  if (!rc) rc = manifest_add(record, split, count, XXH3_64bits_digest(hash), e);
done:
  file_out_abort(&o);
  (void)XXH3_freeState(hash);
  free(t);
  free(text);
  return rc;
}

extern const task task_lra_listops;

static int make(const task_make_options *opt, ice_err *e) {
  char dir[FILE_PATH], path[FILE_PATH];
  int64_t count[TASK_SPLITS], total = 0, done = 0;
  int found, made_here = 0;
  if (opt->examples < 0)
    return ice_fail(e, ICE_USAGE, "%" PRId64 " examples; allowed are 0 (official sizes) and up", opt->examples);
  ICE_TRY(find_folder(opt->out, dir, &found, e));
  if (found) ICE_TRY(source_find(dir, MANIFEST_FILE, path, &made_here, e));
  if (found && !made_here)
    return ice_fail(e, ICE_USAGE, "%s: holds files that were not generated; choose another folder with --out", dir);
  ICE_TRY(file_join(dir, opt->out, FOLDER, e));
  ICE_TRY(file_make_dirs(dir, e));
  for (int s = 0; s < TASK_SPLITS; s++) {
    int64_t full = task_lra_listops.official_count[s];
    total += count[s] = opt->examples && opt->examples < full ? opt->examples : full;
  }
  uint64_t slots = 1024;
  while (slots < 2 * (uint64_t)total) slots *= 2;
  seen_set seen = {.slot = calloc(slots, sizeof *seen.slot), .mask = slots - 1};
  json_t *made = manifest_new(GENERATOR, opt->seed);
  int rc = seen.slot && made ? manifest_write(made, dir, 0, e) : ice_fail(e, ICE_INTERNAL, "out of memory");
  /* From the test split on, so that it does not depend on how many examples the others have. */
  for (int s = TASK_SPLITS - 1; s >= 0 && !rc; s--) rc = make_split(opt, dir, (task_split)s, count[s], &seen, &done, total, made, e);
  if (!rc) rc = manifest_write(made, dir, 1, e);
  if (!rc && opt->progress) opt->progress(opt->ctx, total, total);
  json_decref(made);
  free(seen.slot);
  return rc;
}

static const char *const inside[] = {"lra_release/lra_release/listops-1000", "lra_release/listops-1000", "listops-1000", NULL};
static const task_release release = {
    .url = LRA_RELEASE_URL, .file = LRA_RELEASE_FILE, .inside = inside, .into = FOLDER};

const task task_lra_listops = {
    .name = "lra/listops",
    .doc = "value of a nested list expression of 500 to 2000 tokens; 10 classes",
    .metric = "accuracy",
    .source = "fetch listops-1000/ of " LRA_RELEASE_URL " (a tar, 7.7 GB) into lra/ below a folder of $ICEBENCH_DATA_DIR",
    .release = &release,
    .vocab = 32,       /* 17 ids in the original pipeline; its model reserves 32 rows */
    .positions = 2048, /* 2000 rounded up to a power of two */
    .classes = 10,
    .inputs = 1,
    .official_count = {96000, 2000, 2000},
    .load = load,
    .load_standin = load_standin,
    .make = make,
    .value = value_of,
};
