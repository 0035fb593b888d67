/* fetch.c - see fetch.h. libcurl does the transfer; what is here decides when to go on, begin again, or give up. */
#include "harness/fetch.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sha256.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/extract.h"
#include "datasets/prompt.h"
#include "kernels/core/fileio.h"
#include "version.h"

enum { MAX_REDIRECTS = 10, MAX_ATTEMPTS = 20, STALLED_SECONDS = 60 };
#define MOST_BYTES ((int64_t)64 << 30) /* of an archive of unknown size */

typedef struct transfer {
  const task_release *r;
  const fetch_options *o;
  const char *url;
  char part[FILE_PATH];
  int fd;
  int64_t have, limit; /* bytes in part; most it may get */
  int too_long, errnum;
} transfer;

static size_t on_data(char *p, size_t size, size_t count, void *ctx) {
  transfer *t = ctx;
  const size_t n = size * count;
  t->too_long = (int64_t)n > t->limit - t->have;
  for (size_t done = 0; done < n && !t->too_long;) {
    const ssize_t w = write(t->fd, p + done, n - done);
    if (w < 0 && errno == EINTR) continue;
    if (w <= 0) {
      t->errnum = errno;
      return 0;
    }
    done += (size_t)w, t->have += w;
  }
  return t->too_long ? 0 : n;
}

static int on_progress(void *ctx, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up) {
  const transfer *t = ctx;
  (void)up_total, (void)up;
  const int64_t whole = t->r->bytes ? t->r->bytes : total > 0 ? t->have - now + total : 0;
  if (t->o->progress) t->o->progress(t->o->ctx, "download", t->have >> 20, whole >> 20);
  return t->o->stop && *t->o->stop;
}

static int restart(transfer *t, ice_err *e) {
  t->have = 0;
  if (ftruncate(t->fd, 0) == 0 && lseek(t->fd, 0, SEEK_SET) == 0) return ICE_OK;
  return ice_fail(e, ICE_INTERNAL, "%s: cannot be emptied: %s", t->part, strerror(errno));
}

/* One request, from the byte that is missing on. *status is the answer's, 0 for none. */
static CURLcode request(transfer *t, long *status, char why[CURL_ERROR_SIZE]) {
  CURL *c = curl_easy_init();
  if (!c) return CURLE_OUT_OF_MEMORY;
  why[0] = '\0';
  (void)curl_easy_setopt(c, CURLOPT_URL, t->url);
  (void)curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https,file");
  (void)curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  (void)curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
  (void)curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
  (void)curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
  (void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  (void)curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 30L);
  (void)curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
  (void)curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)STALLED_SECONDS);
  (void)curl_easy_setopt(c, CURLOPT_USERAGENT, "icebench/" ICE_VERSION);
  (void)curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
  (void)curl_easy_setopt(c, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)t->have);
  (void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
  (void)curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
  (void)curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
  (void)curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
  (void)curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
  const CURLcode rc = curl_easy_perform(c);
  *status = 0;
  (void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, status);
  curl_easy_cleanup(c);
  return rc;
}

/* The server cannot continue from there: it ignores ranges, or the file is shorter by now. (A 416 is no failure to libcurl.) */
static int refuses_range(CURLcode rc, long status) {
  return rc == CURLE_RANGE_ERROR || rc == CURLE_BAD_DOWNLOAD_RESUME || status == 416;
}

/* Requests until the file is complete; a broken connection is taken up again as long as every attempt brings something. */
static int download_rest(transfer *t, ice_err *e) {
  char why[CURL_ERROR_SIZE];
  long status = 0;
  CURLcode rc = CURLE_OK;
  for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    const int64_t before = t->have;
    if (t->r->bytes && t->have == t->r->bytes) return ICE_OK;
    rc = request(t, &status, why);
    if (rc == CURLE_OK && status != 416) return ICE_OK;
    if (t->o->stop && *t->o->stop)
      return ice_fail(e, ICE_INTERNAL, "%s: stopped after %" PRId64 " bytes; run the same command again to go on", t->url, t->have);
    if (t->errnum) return ice_fail(e, ICE_INTERNAL, "%s: cannot be written: %s", t->part, strerror(t->errnum));
    if (t->too_long) break;
    if (refuses_range(rc, status) && before > 0) ICE_TRY(restart(t, e));
    else if (t->have == before) break;
  }
  if (t->too_long) {
    (void)unlink(t->part);
    return ice_fail(e, ICE_DATA, "%s: gives more than the %" PRId64 " bytes of the release; it is another file, try another address with --from",
                    t->url, t->limit);
  }
  const char *text = why[0] ? why : curl_easy_strerror(rc);
  return ice_fail(e, ICE_DATA, "%s: cannot be fetched: %s; run the same command again (it goes on after %" PRId64
                  " bytes), name another address with --from, or put the file at %.*s by hand",
                  t->url, text, t->have, (int)strlen(t->part) - 5, t->part);
}

/* Size and checksum; what fails is removed, since going on from it would not mend it. */
static int verify(const transfer *t, ice_err *e) {
  char sum[SHA256_DIGEST_STRING_LENGTH];
  int rc = ICE_OK;
  if (t->r->bytes && t->have != t->r->bytes)
    rc = ice_fail(e, ICE_DATA, "%s: %" PRId64 " bytes, the release has %" PRId64 "; try another address with --from", t->url, t->have, t->r->bytes);
  else if (t->r->sha256 && !SHA256File(t->part, sum))
    return ice_fail(e, ICE_INTERNAL, "%s: cannot be read: %s", t->part, strerror(errno));
  else if (t->r->sha256 && strcmp(sum, t->r->sha256))
    rc = ice_fail(e, ICE_DATA, "%s: SHA-256 %s, the release has %s; try another address with --from", t->url, sum, t->r->sha256);
  if (rc != ICE_OK) (void)unlink(t->part);
  return rc;
}

static int finish(transfer *t, const char *path, ice_err *e) {
  ICE_TRY(download_rest(t, e));
  ICE_TRY(verify(t, e));
  if (fsync(t->fd) == 0 && rename(t->part, path) == 0) return ICE_OK;
  return ice_fail(e, ICE_INTERNAL, "%s: cannot be put in place: %s", path, strerror(errno));
}

static int download(const task_release *r, const fetch_options *o, const char *path, ice_err *e) {
  transfer t = {.r = r, .o = o, .url = o->from ? o->from : r->url, .limit = r->bytes ? r->bytes : MOST_BYTES};
  if (snprintf(t.part, sizeof t.part, "%s.part", path) >= (int)sizeof t.part) return ice_fail(e, ICE_USAGE, "%s: the path is too long", path);
  t.fd = open(t.part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
  struct stat st;
  if (t.fd < 0 || fstat(t.fd, &st) || !S_ISREG(st.st_mode)) {
    if (t.fd >= 0) (void)close(t.fd);
    return ice_fail(e, ICE_INTERNAL, "%s: cannot be opened as a file: %s", t.part, strerror(errno));
  }
  int rc = flock(t.fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK ? ice_fail(e, ICE_INTERNAL, "%s: another fetch is at work on it", t.part) : ICE_OK;
  t.have = lseek(t.fd, 0, SEEK_END);
  if (rc == ICE_OK && t.have > t.limit) rc = restart(&t, e);
  if (rc == ICE_OK) rc = finish(&t, path, e);
  (void)close(t.fd);
  return rc;
}

/* --- a task --------------------------------------------------------------------------------------------------------- */

static int exists(const char *path) {
  struct stat st;
  return lstat(path, &st) == 0;
}

/* Whether the task is read from these files, as official ones. */
static int sane(const task *t, const char *out, ice_err *e) {
  task_data d = {0};
  int absent;
  if (t->prompts) {
    prompt_set s = {0};
    const int rc = t->prompts->load(t, out, TASK_TEST, 0, &s, &absent, e);
    prompt_set_free(&s);
    return rc;
  }
  ICE_TRY(t->load(out, TASK_TEST, &d, &absent, e));
  const int official = d.official;
  char origin[sizeof d.origin];
  (void)snprintf(origin, sizeof origin, "%s", d.origin);
  task_data_free(&d);
  return official ? ICE_OK : ice_fail(e, ICE_DATA, "%s: not official", origin);
}

static void count_files(void *ctx, int64_t done, int64_t total) {
  const fetch_options *o = ctx;
  if (o->progress) o->progress(o->ctx, "unpack", done, total);
}

static int unpack(const task_release *r, const fetch_options *o, const char *archive, const char *into, ice_err *e) {
  const extract_options x = {.limits = &archive_default_limits, .progress = count_files, .ctx = (void *)(uintptr_t)o, .stop = o->stop};
  return extract_folder(archive, r->inside, into, &x, e);
}

int fetch_task(const task *t, const fetch_options *o, int *fresh, ice_err *e) {
  const task_release *r = t->release;
  char archive[FILE_PATH], into[FILE_PATH], folder[FILE_PATH];
  ice_err why = {0};
  *fresh = 0;
  if (!r) return ice_fail(e, ICE_USAGE, "%s is not downloaded; %s", t->name, t->source);
  ICE_TRY(file_join(archive, o->out, r->file, e));
  ICE_TRY(file_join(into, o->out, r->inside ? r->into : r->file, e));
  if (exists(into)) {
    if (sane(t, o->out, &why) == ICE_OK) return ICE_OK;
    return ice_fail(e, ICE_USAGE, "%s: in the way (%s); remove it, or choose another folder with --out", into, why.text);
  }
  (void)snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(archive, '/') - archive), archive);
  ICE_TRY(file_make_dirs(folder, e));
  *fresh = 1;
  const int had = exists(archive);
  if (!had) ICE_TRY(download(r, o, archive, e));
  int rc = r->inside ? unpack(r, o, archive, into, &why) : ICE_OK;
  if (rc == ICE_OK) rc = sane(t, o->out, &why);
  if (rc == ICE_OK) return ICE_OK;
  if (rc != ICE_DATA) return ice_fail(e, rc, "%s", why.text);
  if (!had) (void)unlink(archive); /* so that the next fetch does not trip over it */
  return ice_fail(e, ICE_DATA, "%s: not usable (%s); %s, then run the same command again", t->name, why.text,
                  had ? "remove the archive" : "the archive was removed, try another address with --from");
}
