/* manifest.c - see manifest.h */
#include "datasets/manifest.h"

#include <inttypes.h>
#include <string.h>

#include "datasets/source.h"

int manifest_read(const char *dir, const char *task_name, json_t **made, ice_err *e) {
  char path[FILE_PATH];
  int found;
  *made = NULL;
  ICE_TRY(source_find(dir, MANIFEST_FILE, path, &found, e));
  if (!found) return ICE_OK;
  source s;
  json_error_t err;
  ICE_TRY(source_open(path, 1 << 16, &s, e));
  *made = json_loadb((const char *)s.p, s.n, JSON_REJECT_DUPLICATES, &err);
  source_close(&s);
  if (json_is_object(*made) && json_is_true(json_object_get(*made, "complete"))) return ICE_OK;
  const int object = json_is_object(*made);
  json_decref(*made);
  *made = NULL;
  if (!object) return ice_fail(e, ICE_DATA, "%s: not a JSON object; make the set again", path);
  return ice_fail(e, ICE_DATA, "%s: its making was interrupted; run `icebench data make %s` again", path, task_name);
}

int manifest_check(const json_t *made, task_split split, const task_data *d, ice_err *e) {
  const char *want = json_string_value(json_object_get(json_object_get(made, task_split_name(split)), "xxh3"));
  char have[17];
  (void)snprintf(have, sizeof have, "%016" PRIx64, d->hash);
  if (!want || !strcmp(want, have)) return ICE_OK;
  return ice_fail(e, ICE_DATA, "%s: checksum (xxh3) %s, " MANIFEST_FILE " beside it says %s; make the set again", d->origin, have, want);
}

json_t *manifest_new(const char *generator, uint64_t seed) {
  char text[24];
  (void)snprintf(text, sizeof text, "%" PRIu64, seed); /* text: 64 bits do not fit a JSON integer */
  return json_pack("{s:s,s:s,s:b}", "generator", generator, "seed", text, "complete", 0);
}

int manifest_add(json_t *made, task_split split, int64_t examples, uint64_t xxh3, ice_err *e) {
  char hex[17];
  (void)snprintf(hex, sizeof hex, "%016" PRIx64, xxh3);
  json_t *one = json_pack("{s:I,s:s}", "examples", (json_int_t)examples, "xxh3", hex);
  return one && !json_object_set_new(made, task_split_name(split), one) ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

int manifest_write(json_t *made, const char *dir, int complete, ice_err *e) {
  char path[FILE_PATH];
  file_out o;
  if (json_object_set_new(made, "complete", json_boolean(complete))) return ice_fail(e, ICE_INTERNAL, "out of memory");
  ICE_TRY(file_join(path, dir, MANIFEST_FILE, e));
  ICE_TRY(file_out_open(&o, path, e));
  if (json_dumpf(made, o.stream, JSON_INDENT(2)) || fputc('\n', o.stream) == EOF) {
    file_out_abort(&o);
    return ice_fail(e, ICE_INTERNAL, "%s: cannot be written", path);
  }
  return file_out_commit(&o, e);
}
