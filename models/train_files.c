/* train_files.c - see train_files.h. Reals travel as hexadecimal floats, so that a resumed run has the same bits. */
#include "models/train_files.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "models/safetensors.h"

static const char LOG_HEAD[] = "step,lr,loss,dev_accuracy\n";

/* XXH3 of the three vectors as 16 hexadecimal digits: a flipped bit must not train on. */
static void hash_of(const train_state *s, char text[17]) {
  const size_t bytes = (size_t)s->n_params * sizeof(float);
  XXH64_hash_t h = XXH3_64bits(s->params, bytes);
  h = XXH3_64bits_withSeed(s->m, bytes, h);
  h = XXH3_64bits_withSeed(s->v, bytes, h);
  (void)snprintf(text, 17, "%016llx", (unsigned long long)h);
}

int train_state_write(const char *path, const char *description, const train_state *s, ice_err *e) {
  char number[5][40], hash[17];
  hash_of(s, hash);
  (void)snprintf(number[0], sizeof number[0], "%lld", (long long)s->step);
  (void)snprintf(number[1], sizeof number[1], "%lld", (long long)s->best_step);
  (void)snprintf(number[2], sizeof number[2], "%a", s->best_accuracy);
  (void)snprintf(number[3], sizeof number[3], "%a", s->loss_sum);
  (void)snprintf(number[4], sizeof number[4], "%lld", (long long)s->loss_count);
  const char *meta[] = {"description", description,     "step",    number[0],  "best_step",
                        number[1],     "best_accuracy", number[2], "loss_sum", number[3],
                        "loss_count",  number[4],       "hash",    hash,       NULL};
  const st_out t[] = {{"params", ST_F32, 1, {s->n_params}, s->params},
                      {"adam_m", ST_F32, 1, {s->n_params}, s->m},
                      {"adam_v", ST_F32, 1, {s->n_params}, s->v}};
  return st_write(path, t, 3, meta, e);
}

/* A number of the metadata, whole string; range checked by the caller. */
static int meta_integer(const st_file *f, const char *path, const char *key, int64_t *out, ice_err *e) {
  const char *text = st_meta(f, key);
  char *end = NULL;
  errno = 0;
  long long v = text ? strtoll(text, &end, 10) : 0;
  if (!text || end == text || *end || errno || v < 0)
    return ice_fail(e, ICE_DATA, "%s: metadata %s = %s, a count is expected", path, key, text ? text : "(absent)");
  *out = v;
  return ICE_OK;
}
static int meta_real(const st_file *f, const char *path, const char *key, double *out, ice_err *e) {
  const char *text = st_meta(f, key);
  char *end = NULL;
  double v = text ? strtod(text, &end) : 0.0;
  if (!text || end == text || *end || !isfinite(v))
    return ice_fail(e, ICE_DATA, "%s: metadata %s = %s, a finite number is expected", path, key,
                    text ? text : "(absent)");
  *out = v;
  return ICE_OK;
}

static int read_opened(const st_file *f, const char *path, const char *description, train_state *s, ice_err *e) {
  const char *theirs = st_meta(f, "description");
  if (!theirs) return ice_fail(e, ICE_DATA, "%s: not a training state, its metadata has no description", path);
  if (strcmp(theirs, description) != 0)
    return ice_fail(e, ICE_USAGE,
                    "%s: belongs to another training; remove it to start anew, or restore its settings: %s", path,
                    theirs);
  ICE_TRY(meta_integer(f, path, "step", &s->step, e));
  ICE_TRY(meta_integer(f, path, "best_step", &s->best_step, e));
  ICE_TRY(meta_integer(f, path, "loss_count", &s->loss_count, e));
  ICE_TRY(meta_real(f, path, "best_accuracy", &s->best_accuracy, e));
  ICE_TRY(meta_real(f, path, "loss_sum", &s->loss_sum, e));
  ICE_TRY(st_copy_f32(f, "params", 1, &s->n_params, s->params, e));
  ICE_TRY(st_copy_f32(f, "adam_m", 1, &s->n_params, s->m, e));
  ICE_TRY(st_copy_f32(f, "adam_v", 1, &s->n_params, s->v, e));
  char hash[17];
  hash_of(s, hash);
  theirs = st_meta(f, "hash");
  if (!theirs)
    return ice_fail(e, ICE_DATA, "%s: has no hash of its numbers, so they cannot be trusted; remove it to start anew", path);
  if (strcmp(theirs, hash) != 0)
    return ice_fail(e, ICE_DATA, "%s: damaged: its numbers hash to %s, not to %s; remove it to start anew", path, hash,
                    theirs);
  return ICE_OK;
}

int train_state_read(const char *path, const char *description, train_state *s, int *found, ice_err *e) {
  *found = access(path, F_OK) == 0;
  if (!*found) return ICE_OK;
  st_file f;
  ICE_TRY(st_open(path, &f, e));
  int rc = read_opened(&f, path, description, s, e);
  st_close(&f);
  return rc;
}

static int64_t last_row(const char *log_path) {
  FILE *f = fopen(log_path, "r");
  char line[256];
  int64_t step = -1;
  while (f && fgets(line, sizeof line, f))
    if (line[0] >= '0' && line[0] <= '9' && strchr(line, '\n')) step = strtoll(line, NULL, 10);
  if (f) (void)fclose(f);
  return step;
}

int train_finished(const char *path, const char *log_path, const char *description, int64_t steps) {
  st_file f;
  if (last_row(log_path) != steps || st_open(path, &f, NULL) != ICE_OK) return 0;
  const char *theirs = st_meta(&f, "description");
  const int same = theirs && strcmp(theirs, description) == 0;
  st_close(&f);
  return same;
}

/* Copies the head and the rows up to `step` of the old log, if there is one. */
static int keep_rows(const char *path, int64_t step, FILE *out, ice_err *e) {
  FILE *old = fopen(path, "r");
  if (!old && errno != ENOENT) return ice_fail(e, ICE_INTERNAL, "%s: %s", path, strerror(errno));
  (void)fputs(LOG_HEAD, out);
  char line[256];
  while (old && fgets(line, sizeof line, old))
    if (line[0] >= '0' && line[0] <= '9' && strchr(line, '\n') && strtoll(line, NULL, 10) <= step)
      (void)fputs(line, out);
  if (old) (void)fclose(old);
  return ICE_OK;
}

int train_log_open(const char *path, int64_t step, FILE **out, ice_err *e) {
  char fresh[4096];
  if (snprintf(fresh, sizeof fresh, "%s.new", path) >= (int)sizeof fresh)
    return ice_fail(e, ICE_USAGE, "%s: path too long", path);
  FILE *f = fopen(fresh, "w");
  if (!f) return ice_fail(e, ICE_INTERNAL, "%s: %s", fresh, strerror(errno));
  int rc = step > 0 ? keep_rows(path, step, f, e) : (fputs(LOG_HEAD, f), ICE_OK);
  if (rc == ICE_OK && (ferror(f) || fflush(f) != 0 || rename(fresh, path) != 0))
    rc = ice_fail(e, ICE_INTERNAL, "%s: %s", path, strerror(errno));
  if (rc == ICE_OK) {
    *out = f;
    return ICE_OK;
  }
  (void)fclose(f);
  (void)unlink(fresh);
  return rc;
}

int train_log_row(FILE *f, const char *path, int64_t step, double lr, double loss, double dev_accuracy, ice_err *e) {
  (void)fprintf(f, "%lld,%.6g,%.6f,", (long long)step, lr, loss);
  if (!isnan(dev_accuracy)) (void)fprintf(f, "%.6f", dev_accuracy);
  (void)fputc('\n', f);
  if (fflush(f) != 0) return ice_fail(e, ICE_INTERNAL, "%s: %s", path, strerror(errno));
  return ICE_OK;
}

int train_log_sync(FILE *f, const char *path, ice_err *e) {
  return fsync(fileno(f)) == 0 ? ICE_OK : ice_fail(e, ICE_INTERNAL, "%s: %s", path, strerror(errno));
}
