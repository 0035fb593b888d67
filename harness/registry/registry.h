/* registry.h - look-up of attentions by name. The table is methods.def. */
#ifndef ICE_REGISTRY_H
#define ICE_REGISTRY_H

#include "kernels/attn.h"
#include "kernels/core/err.h"

/** All methods, NULL-terminated, in the order of methods.def. */
extern const attn_method *const registry_methods[];
/** Method by id. NULL and *e (ICE_USAGE; the nearest names) when unknown. */
const attn_method *registry_find(const char *name, ice_err *e);
/** Row of a parameter. NULL and *e (ICE_USAGE; nearest names) when unknown. */
const attn_param *registry_param(const attn_method *m, const char *key, ice_err *e);
/** Parses text into the parameter inside `params`. ICE_USAGE with key, given value and what is allowed. */
int registry_param_set(const attn_method *m, const attn_param *p, const char *text, void *params, ice_err *e);
/** What is allowed: "whole numbers 1..64", "numbers 0..1", "a, b, c". */
void registry_param_allowed(const attn_param *p, char *out, size_t size);
/** Value of a parameter as registry_param_set() reads it. */
void registry_param_print(const attn_param *p, const void *params, char *out, size_t size);
/** A parameter struct with the defaults; to attn_free(), NULL when out of memory. */
void *registry_defaults(const attn_method *m);
/** Do two sets of parameters of a method differ in late ones at most, so that they share what `build` makes? */
int registry_same_build(const attn_method *m, const void *a, const void *b);
/** Canonical JSON of a parameter struct, keys in the order of the table: {"k":20,"comp":2,...}. Returns a string to
 *  free(), NULL when out of memory. Reals print with the fewest digits that read back equal. */
char *registry_params_json(const attn_method *m, const void *params);
/** Refuses duplicate or malformed names, defaults outside [min,max], missing functions. Called once by main and by the tests. */
int registry_self_check(ice_err *e);
/** The same for any NULL-terminated table. */
int registry_self_check_table(const attn_method *const *methods, ice_err *e);
/** Nearest names by edit distance, for "did you mean". Writes at most size bytes: "a, b, c", or "" when none is near. */
void registry_suggest(const char *given, const char *const *names, int n, char *out, size_t size);

#endif
