/* tape.h - Q, K and V of a model run in a folder, to be replayed without the model.
 *
 * A tape is a folder of .npy files and one manifest.json, which is a JSON object:
 *
 *   format "icebench-tape", version 1
 *   task, model, method        names; method is the exact attention that stood in the model's slot
 *   model_hash, data_hash      XXH3 of the files, as in the database
 *   seed, dtype                of the draw of the examples; f4 or f2
 *   commit, dirty, isa         of the program that wrote it
 *   length                     of a task that comes in several, else 0
 *   layers, examples           how many layers; list of the items of the split
 *   calls                      list of {layer, example, input, h, n, d, scale, causal, q, k, v, mask, hash}: sizes, the names of
 *                              files [h,n,d] in this folder (k, v: of their own number of heads, if queries share them; mask [n] or
 *                              null), XXH3 of sizes and decoded contents
 *
 * Readers ignore other keys. A name that could lead out of the folder is refused. */
#ifndef ICE_TAPE_H
#define ICE_TAPE_H

#include "harness/measure_tensors.h"
#include "models/encoder.h"

enum { TAPE_MAX_CALLS = 100000, TAPE_MAX_LAYERS = 1024 };

/** What the manifest says of a tape as a whole. */
typedef struct tape_facts {
  const char *task, *model, *method, *model_hash, *data_hash;
  int64_t length;
  uint64_t seed;
  int layers, half; /* half: arrays are f2, not f4 */
} tape_facts;

/** A tape being written. It grows in a folder beside its own and takes its name when it is whole. */
typedef struct tape_writer {
  char dir[4000], temp[4096];
  tape_facts facts;
  struct json_t *calls, *examples;
} tape_writer;

/** ICE_USAGE when dir exists and is not an empty folder. */
int tape_begin(tape_writer *w, const char *dir, const tape_facts *facts, ice_err *e);
/** One attention call on input sequence `input` of an example. */
int tape_add(tape_writer *w, int64_t example, int input, const encoder_call *call, ice_err *e);
/** Writes the manifest and gives the folder its name. The writer is done, whatever happened. */
int tape_commit(tape_writer *w, ice_err *e);
/** Removes what was written. Does nothing after a commit, or on a zeroed struct. */
void tape_abort(tape_writer *w);

/** Reads a tape, each call one problem. ICE_DATA, with the file and the call, for anything missing, damaged or contradictory. */
int tape_read(measure_set *set, const char *dir, ice_err *e);

#endif
