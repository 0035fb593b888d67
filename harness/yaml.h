/* yaml.h - configuration files as a tree: YAML in, typed values out, every fault with its place.
 *
 * A reader asks a mapping for the keys it knows; what was never asked for is an unknown key:
 *
 *     yaml_doc *doc;
 *     ICE_TRY(yaml_read("run.yaml", &doc, e));
 *     yaml_node *top = yaml_root(doc);
 *     int64_t rounds = 9;                                     // the default: left alone when the key is absent
 *     const char *name = NULL;
 *     int rc = yaml_get_string(top, "name", 1, &name, e);     // 1: must be there
 *     if (rc == ICE_OK) rc = yaml_get_int(top, "rounds", 1, 1000, &rounds, e);
 *     if (rc == ICE_OK) rc = yaml_finish(doc, e);             // refuses keys nobody asked for
 *     yaml_close(doc);                                        // strings and nodes die here
 *
 * Every fault is ICE_USAGE and one line, `file:line:column: key = value, allowed ...`.
 * The subset of YAML: one document, a mapping at the top, scalars, lists, mappings, comments, quotes, block text.
 * Refused: anchors, aliases, tags, duplicate keys, keys that are no plain text, NUL, anything but UTF-8, and files
 * beyond the limits below. Numbers are decimal, truth is true or false; a quoted scalar is text, never a number. */
#ifndef ICE_YAML_H
#define ICE_YAML_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/core/err.h"

enum {
  YAML_MAX_BYTES = 1 << 20, /* of a file                     */
  YAML_MAX_DEPTH = 32,      /* of nesting                    */
  YAML_MAX_KEYS = 1024,     /* of one mapping                */
  YAML_MAX_KEY_BYTES = 255  /* of one key                    */
};

typedef struct yaml_doc yaml_doc;
typedef struct yaml_node yaml_node; /* scalar, list or mapping; owned by its document */

/** Reads a regular file (not a pipe, device or folder). To close with yaml_close(). */
int yaml_read(const char *path, yaml_doc **out, ice_err *e);
/** The same on bytes in memory; `name` stands in the messages. Both are copied. */
int yaml_parse(const char *bytes, size_t n, const char *name, yaml_doc **out, ice_err *e);
/** Overrides of a command line as a document: "measure.rounds=3" is the pair `measure.rounds: 3` of its mapping, and
 *  "iceformer.k=8|16" a list. `assignments` ends with NULL; `name` (the option) stands in the messages. */
int yaml_assign(const char *const *assignments, const char *name, yaml_doc **out, ice_err *e);
/** NULL is fine. */
void yaml_close(yaml_doc *doc);
/** The mapping at the top. */
yaml_node *yaml_root(yaml_doc *doc);
/** Refuses the first key that nobody asked for, with the nearest names and all keys allowed at its place. */
int yaml_finish(const yaml_doc *doc, ice_err *e);

/* ---- Shape of a node. */

int yaml_is_list(const yaml_node *n);
int yaml_is_map(const yaml_node *n);
int yaml_is_scalar(const yaml_node *n);
/** Children of a list, pairs of a mapping; 1 for a scalar, which is so a list of itself. */
int yaml_count(const yaml_node *n);
/** Item i of a list, or the node itself (i = 0) when it is none: `k: 8` reads like `k: [8]`. Not for mappings. */
yaml_node *yaml_item(yaml_node *n, int i);
/** Writes ranges out: a mapping {from, to, step} or {from, to, mult}, alone or as items of a list, becomes the values it
 *  stands for (`to` included where it is met), at its place. Everything else stays. ICE_USAGE for a range that is none or
 *  has more than max values. */
int yaml_expand(yaml_node *n, int max, ice_err *e);
/** Key and value of pair i of a mapping. The value counts as asked for. */
const char *yaml_key(const yaml_node *map, int i);
yaml_node *yaml_value(yaml_node *map, int i);
/** Value under a key, NULL when absent; either way the key counts as known. `map` must be a mapping. */
yaml_node *yaml_find(yaml_node *map, const char *key);

/* ---- Typed values of a node. */

/** Text, not empty; valid until yaml_close(). */
int yaml_string(const yaml_node *n, const char **out, ice_err *e);
int yaml_bool(const yaml_node *n, int *out, ice_err *e);
int yaml_int(const yaml_node *n, int64_t min, int64_t max, int64_t *out, ice_err *e);
/** Finite. */
int yaml_real(const yaml_node *n, double min, double max, double *out, ice_err *e);
/** One of a NULL-terminated list of words; *out is its index. */
int yaml_choice(const yaml_node *n, const char *const *words, int *out, ice_err *e);

/* ---- Typed values under a key of a mapping. An absent key leaves *out alone; `needed` makes that a
 *      fault. A node is NULL when absent. */

int yaml_get(yaml_node *map, const char *key, int needed, yaml_node **out, ice_err *e);
int yaml_get_map(yaml_node *map, const char *key, int needed, yaml_node **out, ice_err *e);
int yaml_get_string(yaml_node *map, const char *key, int needed, const char **out, ice_err *e);
int yaml_get_bool(yaml_node *map, const char *key, int *out, ice_err *e);
int yaml_get_int(yaml_node *map, const char *key, int64_t min, int64_t max, int64_t *out, ice_err *e);
int yaml_get_real(yaml_node *map, const char *key, double min, double max, double *out, ice_err *e);

/** Writes a JSON value in flow style, as experiments have it: {k: 8, schedule: {k: [[8, 64], 32]}}. */
struct json_t;
void yaml_print(FILE *f, const struct json_t *v);

/* ---- Places and faults. */

int yaml_line(const yaml_node *n);
int yaml_column(const yaml_node *n);
/** The scalar as written, "a list" or "a mapping" otherwise: for messages. */
const char *yaml_text(const yaml_node *n);
/** ICE_USAGE with `file:line:column: key = value, ` in front of the formatted text ("allowed 1..9"). */
int yaml_fail(const yaml_node *n, ice_err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/** The same without key and value. */
int yaml_fail_at(const yaml_node *n, ice_err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/** The same at the key that n is the value of. */
int yaml_fail_key(const yaml_node *n, ice_err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
