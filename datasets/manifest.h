/* manifest.h - generated.json beside generated data: the generator, its seed, counts and checksums. Its absence marks official
 * files; until "complete" is true in it, nothing of the set is read. */
#ifndef ICE_MANIFEST_H
#define ICE_MANIFEST_H

#include <jansson.h>

#include "datasets/task.h"

#define MANIFEST_FILE "generated.json"

/** Reads the record of the set in dir (of source_locate); *made is NULL when there is none. ICE_DATA when it is damaged or
 *  says that the making was interrupted. */
int manifest_read(const char *dir, const char *task_name, json_t **made, ice_err *e);
/** ICE_DATA when the record has another checksum for the split than the file that was read. made may be NULL. */
int manifest_check(const json_t *made, task_split split, const task_data *d, ice_err *e);
/** A new record, not complete; NULL when out of memory. */
json_t *manifest_new(const char *generator, uint64_t seed);
/** Adds a split. */
int manifest_add(json_t *made, task_split split, int64_t examples, uint64_t xxh3, ice_err *e);
/** Writes it, whole or not at all; complete = 1 after the last file of the set is in place. */
int manifest_write(json_t *made, const char *dir, int complete, ice_err *e);

#endif
