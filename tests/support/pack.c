/* pack.c - see pack.h */
#include "tests/support/pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void need(struct archive *a, int rc) {
  if (rc == ARCHIVE_OK) return;
  (void)fprintf(stderr, "pack: %s\n", archive_error_string(a));
  exit(1);
}

void pack_write(const char *path, const char *how, const pack_member *m) {
  struct archive *a = archive_write_new();
  need(a, !strcmp(how, "zip") ? archive_write_set_format_zip(a) : archive_write_set_format_pax_restricted(a));
  need(a, strcmp(how, "tar.gz") ? archive_write_add_filter_none(a) : archive_write_add_filter_gzip(a));
  need(a, archive_write_open_filename(a, path));
  for (; m->name; m++) {
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, m->name);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_filetype(e, m->kind == 'd' ? S_IFDIR : m->kind == 's' ? S_IFLNK : m->kind == 'p' ? S_IFIFO : S_IFREG);
    if (m->kind == 's') archive_entry_set_symlink(e, m->bytes);
    if (m->kind == 'h') archive_entry_set_hardlink(e, m->bytes);
    const int file = !m->kind || m->kind == 'f';
    archive_entry_set_size(e, file ? (la_int64_t)m->n : 0);
    need(a, archive_write_header(a, e));
    if (file && m->n && archive_write_data(a, m->bytes, m->n) != (la_ssize_t)m->n) need(a, ARCHIVE_FATAL);
    archive_entry_free(e);
  }
  need(a, archive_write_close(a));
  (void)archive_write_free(a);
}
