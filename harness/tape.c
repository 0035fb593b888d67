/* tape.c - see tape.h */
#include "harness/tape.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/machine.h"
#include "kernels/core/alloc.h"
#include "kernels/core/fileio.h"
#include "kernels/core/rng.h"

static const char format_name[] = "icebench-tape";
enum { FORMAT_VERSION = 1, MANIFEST_BYTES = 64 << 20 };

/* ---- Writing. */

/* 1 when nothing is called dir, or an empty folder, which rename() will replace. */
static int is_free(const char *dir) {
  struct stat st;
  int entries = 0;
  if (lstat(dir, &st) != 0) return errno == ENOENT || errno == ENOTDIR; /* of the latter mkdir will tell */
  DIR *d = S_ISDIR(st.st_mode) ? opendir(dir) : NULL;
  if (!d) return 0;
  while (readdir(d)) entries++;
  (void)closedir(d);
  return entries <= 2; /* . and .. */
}

int tape_begin(tape_writer *w, const char *dir, const tape_facts *facts, ice_err *e) {
  *w = (tape_writer){.facts = *facts};
  size_t n = strlen(dir);
  while (n > 1 && dir[n - 1] == '/') n--;
  if (!n || n + 32 > sizeof w->dir) return ice_fail(e, ICE_USAGE, "--out: a folder name of 1..%zu bytes", sizeof w->dir - 32);
  (void)snprintf(w->dir, sizeof w->dir, "%.*s", (int)n, dir);
  if (!is_free(w->dir))
    return ice_fail(e, ICE_USAGE, "--out %s: exists; name a new folder, or remove that one", w->dir);
  char *slash = strrchr(w->dir, '/');
  if (slash && slash != w->dir) {
    char parent[sizeof w->dir];
    (void)snprintf(parent, sizeof parent, "%.*s", (int)(slash - w->dir), w->dir);
    ICE_TRY(file_make_dirs(parent, e));
  }
  (void)snprintf(w->temp, sizeof w->temp, "%s.part-%ld", w->dir, (long)getpid());
  if (mkdir(w->temp, 0777) != 0) {
    int rc = ice_fail(e, ICE_INTERNAL, "%s: cannot be created: %s", w->temp, strerror(errno));
    w->temp[0] = '\0';
    return rc;
  }
  w->calls = json_array();
  w->examples = json_array();
  if (w->calls && w->examples) return ICE_OK;
  tape_abort(w);
  return ice_fail(e, ICE_INTERNAL, "out of memory");
}

/* One tensor [h, n, width] of a call; its file name goes to `name`. */
static int write_tensor(const tape_writer *w, const char *stem, char what, attn_view v, int64_t h, int64_t n,
                        int64_t width, char *name, size_t size, ice_err *e) {
  char path[FILE_PATH];
  float *dense = attn_alloc((size_t)(h * n * width) * sizeof *dense);
  if (!dense) return ice_fail(e, ICE_INTERNAL, "out of memory for a tensor");
  for (int64_t ih = 0; ih < h; ih++)
    for (int64_t i = 0; i < n; i++)
      memcpy(dense + (ih * n + i) * width, v.p + ih * v.sh + i * v.sn, (size_t)width * sizeof *dense);
  (void)snprintf(name, size, "%s.%c.npy", stem, what);
  int rc = file_join(path, w->temp, name, e);
  if (rc == ICE_OK)
    rc = (w->facts.half ? npy_write_f16 : npy_write_f32)(path, 3, (int64_t[]){h, n, width}, dense, e);
  attn_free(dense);
  return rc;
}

/* What a reader will find in the files just written: their hash. */
static int read_back(const tape_writer *w, char (*name)[80], const attn_problem *pb, uint64_t *hash, ice_err *e) {
  char path[3][FILE_PATH];
  measure_tensors t;
  for (int i = 0; i < 3; i++) ICE_TRY(file_join(path[i], w->temp, name[i], e));
  ICE_TRY(measure_tensors_read(&t, path[0], path[1], path[2], NULL, pb->causal, e));
  *hash = t.hash;
  measure_tensors_free(&t);
  return ICE_OK;
}

int tape_add(tape_writer *w, int64_t example, int input, const encoder_call *call, ice_err *e) {
  static const char what[] = "qkv";
  const attn_problem *pb = &call->problem;
  const attn_view view[] = {call->q, call->k, call->v};
  const int64_t heads[] = {pb->h, pb->hkv, pb->hkv}, rows[] = {pb->nq, pb->nk, pb->nk}, width[] = {pb->d, pb->d, pb->dv};
  char stem[60], name[3][80], hash_text[17];
  uint64_t hash;
  if (pb->b != 1) return ice_fail(e, ICE_INTERNAL, "tape: a call of batch %" PRId64 ", expected 1", pb->b);
  int n = snprintf(stem, sizeof stem, "x%" PRId64, example);
  if (input) n += snprintf(stem + n, sizeof stem - (size_t)n, "-i%d", input);
  (void)snprintf(stem + n, sizeof stem - (size_t)n, "-l%d", call->layer);
  for (int i = 0; i < 3; i++)
    ICE_TRY(write_tensor(w, stem, what[i], view[i], heads[i], rows[i], width[i], name[i], sizeof name[i], e));
  ICE_TRY(read_back(w, name, pb, &hash, e));
  (void)snprintf(hash_text, sizeof hash_text, "%016" PRIx64, hash);
  json_t *entry = json_pack("{s:i, s:I, s:i, s:I, s:I, s:I, s:f, s:b, s:s, s:s, s:s, s:n, s:s}", "layer", call->layer,
                            "example", (json_int_t)example, "input", input, "h", (json_int_t)pb->h, "n",
                            (json_int_t)pb->nk, "d", (json_int_t)pb->d, "scale", (double)pb->scale, "causal",
                            pb->causal, "q", name[0], "k", name[1], "v", name[2], "mask", "hash", hash_text);
  const size_t seen = json_array_size(w->examples);
  if (!seen || json_integer_value(json_array_get(w->examples, seen - 1)) != example)
    (void)json_array_append_new(w->examples, json_integer((json_int_t)example));
  return entry && json_array_append_new(w->calls, entry) == 0 ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

static int write_manifest(const tape_writer *w, ice_err *e) {
  const tape_facts *f = &w->facts;
  const machine_facts *m = machine_get();
  char path[FILE_PATH], seed[24];
  file_out out;
  (void)snprintf(seed, sizeof seed, "%" PRIu64, f->seed);
  json_t *o = json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:i, s:O, s:O}", "format", format_name,
                        "version", FORMAT_VERSION, "task", f->task, "length", (json_int_t)f->length, "model", f->model, "method", f->method,
                        "model_hash", f->model_hash, "data_hash", f->data_hash, "seed", seed, "dtype",
                        f->half ? "f2" : "f4", "commit", m->git_commit, "dirty", m->git_dirty, "isa", m->isa,
                        "layers", f->layers, "examples", w->examples, "calls", w->calls);
  if (!o) return ice_fail(e, ICE_INTERNAL, "out of memory for the manifest");
  int rc = file_join(path, w->temp, "manifest.json", e);
  if (rc == ICE_OK) rc = file_out_open(&out, path, e);
  if (rc == ICE_OK) {
    (void)json_dumpf(o, out.stream, JSON_INDENT(1) | JSON_PRESERVE_ORDER); /* what fails here, commit finds */
    (void)fputc('\n', out.stream);
    rc = file_out_commit(&out, e);
  }
  json_decref(o);
  return rc;
}

int tape_commit(tape_writer *w, ice_err *e) {
  int rc = write_manifest(w, e);
  if (rc == ICE_OK && rename(w->temp, w->dir) != 0)
    rc = ice_fail(e, ICE_INTERNAL, "%s: cannot be renamed to %s: %s", w->temp, w->dir, strerror(errno));
  if (rc == ICE_OK) w->temp[0] = '\0';
  tape_abort(w);
  return rc;
}

void tape_abort(tape_writer *w) {
  DIR *d = *w->temp ? opendir(w->temp) : NULL;
  for (struct dirent *entry; d && (entry = readdir(d)) != NULL;)
    if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) (void)unlinkat(dirfd(d), entry->d_name, 0);
  if (d) (void)closedir(d);
  if (*w->temp) (void)rmdir(w->temp);
  json_decref(w->calls);
  json_decref(w->examples);
  *w = (tape_writer){0};
}

/* ---- Reading. */

/* A file of this folder: no separators, no hidden files, nothing that is not plain. */
static int plain_name(const char *s) {
  const size_t n = s ? strlen(s) : 0;
  return n > 0 && n < 128 && s[0] != '.' &&
         strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

typedef struct manifest {
  const char *path, *dir;
  json_t *root, *calls;
  int layers;
} manifest;

static int open_manifest(manifest *m, ice_err *e) {
  file_map map;
  json_error_t bad;
  const char *format = NULL;
  int version = 0;
  ICE_TRY(file_open_map(m->path, MANIFEST_BYTES, &map, e));
  m->root = json_loadb((const char *)map.p, map.n, JSON_REJECT_DUPLICATES, &bad);
  file_close_map(&map);
  if (!m->root) return ice_fail(e, ICE_DATA, "%s:%d:%d: %s", m->path, bad.line, bad.column, bad.text);
  if (json_unpack(m->root, "{s:s, s:i}", "format", &format, "version", &version) != 0 || strcmp(format, format_name))
    return ice_fail(e, ICE_DATA, "%s: no manifest of a tape: format must be \"%s\"", m->path, format_name);
  if (version != FORMAT_VERSION)
    return ice_fail(e, ICE_DATA, "%s: version = %d, this program reads %d", m->path, version, FORMAT_VERSION);
  m->calls = json_object_get(m->root, "calls");
  m->layers = (int)json_integer_value(json_object_get(m->root, "layers"));
  const size_t n = json_array_size(m->calls);
  if (n < 1 || n > TAPE_MAX_CALLS)
    return ice_fail(e, ICE_DATA, "%s: calls must be a list of 1..%d", m->path, TAPE_MAX_CALLS);
  if (m->layers < 1 || m->layers > TAPE_MAX_LAYERS)
    return ice_fail(e, ICE_DATA, "%s: layers = %d, allowed 1..%d", m->path, m->layers, TAPE_MAX_LAYERS);
  return ICE_OK;
}

typedef struct call_entry {
  const char *file[4]; /* q, k, v, mask or NULL */
  const char *hash;
  json_int_t example, h, n, d;
  int layer, input, causal;
  double scale;
} call_entry;

static int read_entry(const manifest *m, size_t i, call_entry *c, ice_err *e) {
  json_error_t bad;
  json_t *mask;
  if (json_unpack_ex(json_array_get(m->calls, i), &bad, 0,
                     "{s:i, s:I, s:i, s:I, s:I, s:I, s:F, s:b, s:s, s:s, s:s, s:o, s:s}", "layer", &c->layer, "example",
                     &c->example, "input", &c->input, "h", &c->h, "n", &c->n, "d", &c->d, "scale", &c->scale, "causal",
                     &c->causal, "q", &c->file[0], "k", &c->file[1], "v", &c->file[2], "mask", &mask, "hash",
                     &c->hash) != 0)
    return ice_fail(e, ICE_DATA, "%s: call %zu: %s", m->path, i, bad.text);
  c->file[3] = json_string_value(mask);
  if (!c->file[3] && !json_is_null(mask)) return ice_fail(e, ICE_DATA, "%s: call %zu: mask: allowed a file or null", m->path, i);
  for (int f = 0; f < 4; f++)
    if ((f < 3 || c->file[f]) && !plain_name(c->file[f]))
      return ice_fail(e, ICE_DATA, "%s: call %zu: file '%s', allowed a name in this folder (letters, digits, . _ -)",
                      m->path, i, c->file[f]);
  if (c->layer < 0 || c->layer >= m->layers)
    return ice_fail(e, ICE_DATA, "%s: call %zu: layer = %d, allowed 0..%d", m->path, i, c->layer, m->layers - 1);
  if (c->input < 0 || c->example < 0)
    return ice_fail(e, ICE_DATA, "%s: call %zu: example and input must be >= 0", m->path, i);
  if (!((float)c->scale > 0.0f) || !isfinite((float)c->scale))
    return ice_fail(e, ICE_DATA, "%s: call %zu: scale = %g, allowed numbers > 0", m->path, i, c->scale);
  return ICE_OK;
}

static int read_call(const manifest *m, size_t i, measure_tensors *t, ice_err *e) {
  call_entry c;
  char path[4][FILE_PATH], hash[17];
  ICE_TRY(read_entry(m, i, &c, e));
  for (int f = 0; f < 4; f++)
    if (c.file[f]) ICE_TRY(file_join(path[f], m->dir, c.file[f], e));
  ICE_TRY(measure_tensors_read(t, path[0], path[1], path[2], c.file[3] ? path[3] : NULL, c.causal, e));
  attn_problem *pb = &t->in.pb;
  pb->scale = (float)c.scale;
  t->layer = c.layer;
  int n = snprintf(t->name, sizeof t->name, "x%lld", (long long)c.example);
  if (c.input) n += snprintf(t->name + n, sizeof t->name - (size_t)n, "-i%d", c.input);
  (void)snprintf(t->name + n, sizeof t->name - (size_t)n, "-l%d", c.layer);
  (void)snprintf(hash, sizeof hash, "%016" PRIx64, t->hash);
  int rc = ICE_OK;
  if (pb->h != c.h || pb->nk != c.n || pb->d != c.d)
    rc = ice_fail(e, ICE_DATA, "%s: call %zu: h = %lld, n = %lld, d = %lld, its files have %lld, %lld, %lld", m->path, i,
                  (long long)c.h, (long long)c.n, (long long)c.d, (long long)pb->h, (long long)pb->nk, (long long)pb->d);
  else if (strcmp(hash, c.hash))
    rc = ice_fail(e, ICE_DATA, "%s: call %zu: checksum %s, its files have %s; make the tape anew", m->path, i, c.hash, hash);
  if (rc != ICE_OK) measure_tensors_free(t);
  return rc;
}

/* The calls of one model differ in their length alone. */
static int same_kind(const manifest *m, size_t i, const attn_problem *a, const attn_problem *b, ice_err *e) {
  if (a->b == b->b && a->h == b->h && a->hkv == b->hkv && a->d == b->d && a->dv == b->dv && a->causal == b->causal)
    return ICE_OK;
  return ice_fail(e, ICE_DATA, "%s: call %zu: heads, widths and order must be those of call 0", m->path, i);
}

/* Names for stored rows, and everything but the calls as text. */
static int read_facts(const manifest *m, measure_set *set, ice_err *e) {
  const char *task = json_string_value(json_object_get(m->root, "task"));
  const char *model = json_string_value(json_object_get(m->root, "model"));
  if (!task || !model || !*task || !*model || strlen(task) > 64 || strlen(model) >= sizeof set->model)
    return ice_fail(e, ICE_DATA, "%s: task and model must be names", m->path);
  (void)snprintf(set->task, sizeof set->task, "tape/%s", task);
  (void)snprintf(set->model, sizeof set->model, "%s", model);
  json_t *rest = json_copy(m->root);
  (void)json_object_del(rest, "calls");
  set->origin = rest ? json_dumps(rest, JSON_COMPACT) : NULL;
  json_decref(rest);
  return set->origin ? ICE_OK : ice_fail(e, ICE_INTERNAL, "out of memory");
}

int tape_read(measure_set *set, const char *dir, ice_err *e) {
  char path[FILE_PATH];
  manifest m = {.path = path, .dir = dir};
  *set = (measure_set){0};
  ICE_TRY(file_join(path, dir, "manifest.json", e));
  int rc = open_manifest(&m, e);
  if (rc == ICE_OK) rc = read_facts(&m, set, e);
  const size_t n = json_array_size(m.calls);
  set->layers = m.layers;
  if (rc == ICE_OK && !(set->t = calloc(n, sizeof *set->t))) rc = ice_fail(e, ICE_INTERNAL, "out of memory");
  for (size_t i = 0; rc == ICE_OK && i < n; i++) {
    rc = read_call(&m, i, set->t + i, e);
    if (rc != ICE_OK) break;
    set->n++;
    rc = same_kind(&m, i, &set->t[0].in.pb, &set->t[i].in.pb, e);
    set->hash = attn_hash(set->hash, set->t[i].hash, (uint64_t)set->t[i].layer);
  }
  json_decref(m.root);
  if (rc != ICE_OK) measure_set_free(set);
  return rc;
}
