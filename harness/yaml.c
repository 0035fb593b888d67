/* yaml.c - see yaml.h. The scanner is libyaml's event parser; this file builds the tree, refuses what configuration
 * files have no use for, and turns scalars into checked values. */
#include "harness/yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#include "harness/number.h"
#include "harness/registry/registry.h"

typedef enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP } node_kind;

struct yaml_node {
  yaml_doc *doc;
  yaml_node *parent;
  node_kind kind;
  int line, column;
  char *key; /* of the pair this node is the value of; NULL in lists and at the top */
  int key_line, key_column;
  int asked; /* somebody looked at this value */
  /* scalar */
  char *text;
  int quoted;
  /* list, mapping */
  yaml_node **child;
  int n_children, room;
  /* mapping: keys somebody asked for, whether present or not */
  char **known;
  int n_known, known_room;
};

struct yaml_doc {
  char *name;
  yaml_node *root;
};

/* ---- Places and faults. */

static const char *kind_name(const yaml_node *n) {
  if (n->kind == NODE_SCALAR) return n->text;
  return n->kind == NODE_LIST ? n->n_children ? "a list" : "an empty list" : n->n_children ? "a mapping" : "an empty mapping";
}

/* Dotted keys from the top to the node: "methods.iceformer.k". */
static void node_path(const yaml_node *n, char *out, size_t size) {
  const yaml_node *chain[YAML_MAX_DEPTH + 2];
  int depth = 0;
  for (; n && depth < YAML_MAX_DEPTH + 2; n = n->parent)
    if (n->key) chain[depth++] = n;
  size_t used = 0;
  out[0] = 0;
  while (depth-- > 0 && used + 1 < size) {
    int wrote = snprintf(out + used, size - used, "%s%s", used ? "." : "", chain[depth]->key);
    used += wrote > 0 ? (size_t)wrote : 0;
  }
}

/* At most `max` bytes of text, cut at a character, with dots when something is missing. */
static void excerpt(const char *text, size_t max, char *out, size_t size) {
  size_t n = strlen(text);
  if (n > max) {
    n = max;
    while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) n--;
    (void)snprintf(out, size, "%.*s...", (int)n, text);
  } else {
    (void)snprintf(out, size, "%s", text);
  }
}

static int fail_at(const yaml_doc *doc, int line, int column, ice_err *e, const char *fmt, va_list ap) {
  char text[900];
  (void)vsnprintf(text, sizeof text, fmt, ap);
  if (line == 0) return ice_fail(e, ICE_USAGE, "%s %s", doc->name, text); /* an option, no file */
  return ice_fail(e, ICE_USAGE, "%s:%d:%d: %s", doc->name, line, column, text);
}

static int fail_mark(const yaml_doc *doc, int line, int column, ice_err *e, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
static int fail_mark(const yaml_doc *doc, int line, int column, ice_err *e, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  int rc = fail_at(doc, line, column, e, fmt, ap);
  va_end(ap);
  return rc;
}

int yaml_fail_at(const yaml_node *n, ice_err *e, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  int rc = fail_at(n->doc, n->line, n->column, e, fmt, ap);
  va_end(ap);
  return rc;
}

int yaml_fail_key(const yaml_node *n, ice_err *e, const char *fmt, ...) {
  char text[900];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (!n->key) return fail_mark(n->doc, n->line, n->column, e, "%s", text);
  const int named = n->key_line || !strncmp(text, n->key, strlen(n->key)); /* an option has no place but its key */
  return fail_mark(n->doc, n->key_line, n->key_column, e, "%s%s%s", named ? "" : n->key, named ? "" : ": ", text);
}

int yaml_fail(const yaml_node *n, ice_err *e, const char *fmt, ...) {
  char path[200], value[80], text[600];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  node_path(n, path, sizeof path);
  excerpt(kind_name(n), 60, value, sizeof value);
  const char *quote = n->kind == NODE_SCALAR && n->quoted ? "\"" : "";
  if (n->kind == NODE_SCALAR && !n->quoted && !*value) (void)snprintf(value, sizeof value, "(nothing)");
  return fail_mark(n->doc, n->line, n->column, e, "%s = %s%s%s, %s", *path ? path : "file", quote, value, quote, text);
}

/* ---- Building the tree. */

static int no_memory(const yaml_doc *doc, ice_err *e) {
  return ice_fail(e, ICE_INTERNAL, "%s: out of memory while reading", doc->name);
}

static void node_free(yaml_node *n) { /* recursion is bounded by YAML_MAX_DEPTH */
  if (!n) return;
  for (int i = 0; i < n->n_children; i++) node_free(n->child[i]);
  for (int i = 0; i < n->n_known; i++) free(n->known[i]);
  free(n->child);
  free(n->known);
  free(n->key);
  free(n->text);
  free(n);
}

static yaml_node *node_new(yaml_doc *doc, yaml_node *parent, node_kind kind, int line, int column) {
  yaml_node *n = calloc(1, sizeof *n);
  if (n) *n = (yaml_node){.doc = doc, .parent = parent, .kind = kind, .line = line, .column = column};
  return n;
}

static yaml_doc *doc_new(const char *name, ice_err *e) {
  yaml_doc *doc = calloc(1, sizeof *doc);
  if (doc && (doc->name = strdup(name))) return doc;
  free(doc);
  (void)ice_fail(e, ICE_INTERNAL, "%s: out of memory while reading", name);
  return NULL;
}

/* Appends to a pointer array that doubles; 0 when memory is out. */
static int push(void ***array, int *n, int *room, void *item) {
  if (*n == *room) {
    int more = *room ? 2 * *room : 8;
    void **grown = realloc(*array, (size_t)more * sizeof **array);
    if (!grown) return 0;
    *array = grown;
    *room = more;
  }
  (*array)[(*n)++] = item;
  return 1;
}

static int next_event(yaml_parser_t *p, const yaml_doc *doc, yaml_event_t *ev, ice_err *e) {
  if (yaml_parser_parse(p, ev)) return ICE_OK;
  if (p->error == YAML_MEMORY_ERROR) return no_memory(doc, e);
  const char *problem = p->problem ? p->problem : "not YAML";
  const char *context = p->context ? p->context : "";
  return fail_mark(doc, (int)p->problem_mark.line + 1, (int)p->problem_mark.column + 1, e, "not YAML: %s%s%s", context,
                   *context ? ", " : "", problem);
}

static int refuse_extras(const yaml_doc *doc, const yaml_event_t *ev, const yaml_char_t *anchor, const yaml_char_t *tag,
                         ice_err *e) {
  int line = (int)ev->start_mark.line + 1, column = (int)ev->start_mark.column + 1;
  if (anchor) return fail_mark(doc, line, column, e, "anchor &%.40s, not allowed here: write the value out", anchor);
  if (tag) return fail_mark(doc, line, column, e, "tag %.40s, not allowed here: leave it out", tag);
  return ICE_OK;
}

static int parse_node(yaml_parser_t *p, yaml_doc *doc, yaml_node *parent, const yaml_event_t *ev, int depth,
                      yaml_node **out, ice_err *e);

/* The key of the next pair of a mapping, checked. */
static int parse_key(const yaml_doc *doc, const yaml_node *map, const yaml_event_t *ev, char **key, ice_err *e) {
  int line = (int)ev->start_mark.line + 1, column = (int)ev->start_mark.column + 1;
  if (ev->type == YAML_ALIAS_EVENT)
    return fail_mark(doc, line, column, e, "alias *%.40s, not allowed here: write the value out",
                     ev->data.alias.anchor);
  if (ev->type != YAML_SCALAR_EVENT)
    return fail_mark(doc, line, column, e, "a key must be plain text, found a list or mapping");
  ICE_TRY(refuse_extras(doc, ev, ev->data.scalar.anchor, ev->data.scalar.tag, e));
  const char *text = (const char *)ev->data.scalar.value;
  size_t n = ev->data.scalar.length;
  if (n == 0) return fail_mark(doc, line, column, e, "empty key");
  if (n > YAML_MAX_KEY_BYTES || strlen(text) != n)
    return fail_mark(doc, line, column, e, "key of %zu bytes, allowed 1..%d without NUL", n, YAML_MAX_KEY_BYTES);
  for (int i = 0; i < map->n_children; i++)
    if (strcmp(map->child[i]->key, text) == 0)
      return fail_mark(doc, line, column, e, "duplicate key %s, given before in line %d", text,
                       map->child[i]->key_line);
  if (map->n_children == YAML_MAX_KEYS)
    return fail_mark(doc, line, column, e, "more than %d keys in one mapping", YAML_MAX_KEYS);
  *key = strdup(text);
  return *key ? ICE_OK : no_memory(doc, e);
}

/* Reads children up to the closing event. */
static int parse_children(yaml_parser_t *p, yaml_doc *doc, yaml_node *n, int depth, ice_err *e) {
  yaml_event_type_t end = n->kind == NODE_MAP ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
  for (;;) {
    yaml_event_t ev;
    ICE_TRY(next_event(p, doc, &ev, e));
    if (ev.type == end) {
      yaml_event_delete(&ev);
      return ICE_OK;
    }
    char *key = NULL;
    int key_line = (int)ev.start_mark.line + 1, key_column = (int)ev.start_mark.column + 1;
    int rc = ICE_OK;
    if (n->kind == NODE_MAP) {
      rc = parse_key(doc, n, &ev, &key, e);
      yaml_event_delete(&ev);
      if (rc == ICE_OK) rc = next_event(p, doc, &ev, e);
      if (rc != ICE_OK) {
        free(key);
        return rc;
      }
    }
    yaml_node *child = NULL;
    rc = parse_node(p, doc, n, &ev, depth + 1, &child, e);
    yaml_event_delete(&ev);
    if (rc == ICE_OK) {
      child->key = key, child->key_line = key_line, child->key_column = key_column;
      key = NULL;
      if (!push((void ***)&n->child, &n->n_children, &n->room, child)) {
        node_free(child);
        rc = no_memory(doc, e);
      }
    }
    free(key);
    ICE_TRY(rc);
  }
}

/* Builds the node that starts with *ev (which stays the caller's). */
static int parse_node(yaml_parser_t *p, yaml_doc *doc, yaml_node *parent, const yaml_event_t *ev, int depth,
                      yaml_node **out, ice_err *e) {
  int line = (int)ev->start_mark.line + 1, column = (int)ev->start_mark.column + 1;
  if (depth > YAML_MAX_DEPTH) return fail_mark(doc, line, column, e, "nested deeper than %d levels", YAML_MAX_DEPTH);
  yaml_node *n = NULL;
  int rc = ICE_OK;
  switch (ev->type) {
  case YAML_ALIAS_EVENT:
    return fail_mark(doc, line, column, e, "alias *%.40s, not allowed here: write the value out",
                     ev->data.alias.anchor);
  case YAML_SCALAR_EVENT:
    ICE_TRY(refuse_extras(doc, ev, ev->data.scalar.anchor, ev->data.scalar.tag, e));
    if (strlen((const char *)ev->data.scalar.value) != ev->data.scalar.length)
      return fail_mark(doc, line, column, e, "text with a NUL character");
    if (!(n = node_new(doc, parent, NODE_SCALAR, line, column))) return no_memory(doc, e);
    n->quoted = ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    n->text = strdup((const char *)ev->data.scalar.value);
    if (!n->text) rc = no_memory(doc, e);
    break;
  case YAML_SEQUENCE_START_EVENT:
    ICE_TRY(refuse_extras(doc, ev, ev->data.sequence_start.anchor, ev->data.sequence_start.tag, e));
    if (!(n = node_new(doc, parent, NODE_LIST, line, column))) return no_memory(doc, e);
    rc = parse_children(p, doc, n, depth, e);
    break;
  case YAML_MAPPING_START_EVENT:
    ICE_TRY(refuse_extras(doc, ev, ev->data.mapping_start.anchor, ev->data.mapping_start.tag, e));
    if (!(n = node_new(doc, parent, NODE_MAP, line, column))) return no_memory(doc, e);
    rc = parse_children(p, doc, n, depth, e);
    break;
  default: return fail_mark(doc, line, column, e, "not YAML: a value was expected");
  }
  if (rc != ICE_OK) {
    node_free(n);
    return rc;
  }
  *out = n;
  return ICE_OK;
}

/* The whole stream: one document with a mapping at the top. */
static int parse_stream(yaml_parser_t *p, yaml_doc *doc, ice_err *e) {
  yaml_event_t ev;
  for (;;) { /* stream start, document start */
    ICE_TRY(next_event(p, doc, &ev, e));
    yaml_event_type_t type = ev.type;
    if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT) break;
    yaml_event_delete(&ev);
  }
  if (ev.type == YAML_STREAM_END_EVENT) {
    yaml_event_delete(&ev);
    return fail_mark(doc, 1, 1, e, "nothing in the file, expected lines `key: value`");
  }
  int rc = parse_node(p, doc, NULL, &ev, 1, &doc->root, e);
  yaml_event_delete(&ev);
  ICE_TRY(rc);
  if (doc->root->kind != NODE_MAP)
    return fail_mark(doc, doc->root->line, doc->root->column, e, "found %s at the top, expected lines `key: value`",
                     doc->root->kind == NODE_LIST ? "a list"
                     : *doc->root->text           ? "plain text"
                                                  : "nothing");
  doc->root->asked = 1;
  for (;;) { /* document end, stream end */
    ICE_TRY(next_event(p, doc, &ev, e));
    yaml_event_type_t type = ev.type;
    int line = (int)ev.start_mark.line + 1;
    yaml_event_delete(&ev);
    if (type == YAML_STREAM_END_EVENT) return ICE_OK;
    if (type == YAML_DOCUMENT_START_EVENT) return fail_mark(doc, line, 1, e, "second document, allowed one per file");
  }
}

/* Bytes of the UTF-8 character at s (n bytes left), 0 when it is none: RFC 3629, so no overlong forms, no surrogates. */
static size_t utf8_length(const unsigned char *s, size_t n) {
  if (s[0] < 0x80) return 1;
  size_t len = s[0] >= 0xc2 && s[0] <= 0xdf ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : 0;
  if (len == 0 || len > n) return 0;
  for (size_t i = 1; i < len; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f)) return 0;
  if ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) return 0;
  return len;
}

static int check_bytes(const yaml_doc *doc, const char *bytes, size_t n, ice_err *e) {
  int line = 1, column = 1;
  for (size_t i = 0; i < n; column++) {
    unsigned char c = (unsigned char)bytes[i];
    size_t len = utf8_length((const unsigned char *)bytes + i, n - i);
    if (len == 0)
      return fail_mark(doc, line, column, e, "byte 0x%02x at offset %zu is not UTF-8, allowed UTF-8 text only", c, i);
    if (c == 0) return fail_mark(doc, line, column, e, "NUL byte at offset %zu, allowed UTF-8 text only", i);
    if (c == '\n') line++, column = 0;
    i += len;
  }
  return ICE_OK;
}

int yaml_parse(const char *bytes, size_t n, const char *name, yaml_doc **out, ice_err *e) {
  yaml_doc *doc = doc_new(name, e);
  if (!doc) return ICE_INTERNAL;
  yaml_parser_t parser;
  int rc;
  if (n >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3)) bytes += 3, n -= 3; /* a mark that some editors put before UTF-8 */
  if (n > YAML_MAX_BYTES)
    rc = ice_fail(e, ICE_USAGE, "%s: %zu bytes, allowed at most %d", name, n, (int)YAML_MAX_BYTES);
  else
    rc = check_bytes(doc, bytes, n, e);
  if (rc == ICE_OK) {
    if (!yaml_parser_initialize(&parser)) {
      rc = no_memory(doc, e);
    } else {
      yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
      yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, n);
      rc = parse_stream(&parser, doc, e);
      yaml_parser_delete(&parser);
    }
  }
  if (rc != ICE_OK) {
    yaml_close(doc);
    return rc;
  }
  *out = doc;
  return ICE_OK;
}

/* Opens without waiting, so that a pipe nobody writes to cannot hang the program. */
static int open_regular(const char *path, off_t *size, int *fd, ice_err *e) {
  *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (*fd < 0) return ice_fail(e, ICE_USAGE, "%s: cannot be opened: %s", path, strerror(errno));
  struct stat st;
  int rc = ICE_OK;
  if (fstat(*fd, &st) != 0)
    rc = ice_fail(e, ICE_INTERNAL, "%s: %s", path, strerror(errno));
  else if (!S_ISREG(st.st_mode))
    rc = ice_fail(e, ICE_USAGE, "%s: %s, allowed a regular file", path,
                  S_ISDIR(st.st_mode) ? "is a folder" : "is a pipe, socket or device");
  else if (st.st_size > YAML_MAX_BYTES)
    rc = ice_fail(e, ICE_USAGE, "%s: %lld bytes, allowed at most %d", path, (long long)st.st_size, (int)YAML_MAX_BYTES);
  if (rc != ICE_OK) (void)close(*fd);
  *size = rc == ICE_OK ? st.st_size : 0;
  return rc;
}

int yaml_read(const char *path, yaml_doc **out, ice_err *e) {
  int fd;
  off_t size;
  ICE_TRY(open_regular(path, &size, &fd, e));
  char *bytes = malloc(YAML_MAX_BYTES + 1); /* whatever fstat said: /proc files say 0, others grow */
  size_t n = 0;
  int rc = bytes ? ICE_OK : ice_fail(e, ICE_INTERNAL, "%s: out of memory while reading", path);
  while (rc == ICE_OK && n <= YAML_MAX_BYTES) {
    ssize_t got = read(fd, bytes + n, YAML_MAX_BYTES + 1 - n);
    if (got == 0) break;
    if (got > 0)
      n += (size_t)got;
    else if (errno != EINTR)
      rc = ice_fail(e, ICE_INTERNAL, "%s: cannot be read: %s", path, strerror(errno));
  }
  (void)close(fd);
  if (rc == ICE_OK) rc = yaml_parse(bytes, n, path, out, e);
  free(bytes);
  return rc;
}

/* ---- Overrides. */

static yaml_node *scalar_of(yaml_doc *doc, yaml_node *parent, const char *text, size_t n) {
  yaml_node *s = node_new(doc, parent, NODE_SCALAR, 0, 0);
  if (s && !(s->text = strndup(text, n))) {
    node_free(s);
    return NULL;
  }
  return s;
}

static int add_child(yaml_node *parent, yaml_node *child) {
  if (child && push((void ***)&parent->child, &parent->n_children, &parent->room, child)) return 1;
  node_free(child);
  return 0;
}

/* One assignment, a scalar or a list a|b|c. */
static int assign(yaml_doc *doc, const char *text, ice_err *e) {
  const char *value = strchr(text, '=');
  if (!value || value == text || value - text > YAML_MAX_KEY_BYTES || !value[1])
    return fail_mark(doc, 0, 0, e, "%.60s, expected KEY=VALUE, e.g. measure.rounds=3 or iceformer.k=8|16", text);
  size_t key = (size_t)(value++ - text);
  yaml_node *n = NULL;
  if (strchr(value, '|')) {
    n = node_new(doc, doc->root, NODE_LIST, 0, 0);
    int fine = n != NULL;
    for (const char *item = value; fine && item;) {
      const char *bar = strchrnul(item, '|');
      fine = add_child(n, scalar_of(doc, n, item, (size_t)(bar - item)));
      item = *bar ? bar + 1 : NULL;
    }
    if (n && !fine) node_free(n), n = NULL;
  } else {
    n = scalar_of(doc, doc->root, value, strlen(value));
  }
  if (n && !(n->key = strndup(text, key))) node_free(n), n = NULL;
  return add_child(doc->root, n) ? ICE_OK : no_memory(doc, e);
}

int yaml_assign(const char *const *assignments, const char *name, yaml_doc **out, ice_err *e) {
  yaml_doc *doc = doc_new(name, e);
  if (!doc) return ICE_INTERNAL;
  int rc = (doc->root = node_new(doc, NULL, NODE_MAP, 0, 0)) ? ICE_OK : no_memory(doc, e);
  for (; rc == ICE_OK && *assignments; assignments++) rc = assign(doc, *assignments, e);
  if (rc != ICE_OK) {
    yaml_close(doc);
    return rc;
  }
  *out = doc;
  return ICE_OK;
}

void yaml_close(yaml_doc *doc) {
  if (!doc) return;
  node_free(doc->root);
  free(doc->name);
  free(doc);
}

/* ---- Shape. */

yaml_node *yaml_root(yaml_doc *doc) { return doc->root; }
int yaml_is_list(const yaml_node *n) { return n->kind == NODE_LIST; }
int yaml_is_map(const yaml_node *n) { return n->kind == NODE_MAP; }
int yaml_is_scalar(const yaml_node *n) { return n->kind == NODE_SCALAR; }
int yaml_count(const yaml_node *n) { return n->kind == NODE_SCALAR ? 1 : n->n_children; }
yaml_node *yaml_item(yaml_node *n, int i) { return n->kind == NODE_LIST ? n->child[i] : n; }
const char *yaml_key(const yaml_node *map, int i) { return map->child[i]->key; }
int yaml_line(const yaml_node *n) { return n->line; }
int yaml_column(const yaml_node *n) { return n->column; }
const char *yaml_text(const yaml_node *n) { return kind_name(n); }

yaml_node *yaml_value(yaml_node *map, int i) {
  map->child[i]->asked = 1;
  return map->child[i];
}

/* ---- Ranges. */

/* Value i of a range. Both ends whole and reached by whole steps give whole numbers. */
static double range_value(double from, double step, double mult, int i) {
  return step > 0.0 ? from + i * step : from * pow(mult, i);
}

static int push_value(yaml_node *list, const yaml_node *at, double v, ice_err *e) {
  char text[40];
  if (v == floor(v) && fabs(v) < 9e15) (void)snprintf(text, sizeof text, "%.0f", v);
  else number_print(v, text, sizeof text);
  yaml_node *item = node_new(list->doc, list, NODE_SCALAR, at->line, at->column);
  if (item && (item->text = strdup(text)) && push((void ***)&list->child, &list->n_children, &list->room, item)) return ICE_OK;
  node_free(item);
  return no_memory(list->doc, e);
}

/* Appends the values of one range to a list. */
static int push_range(yaml_node *list, yaml_node *range, int max, ice_err *e) {
  double from = NAN, to = NAN, step = 0.0, mult = 0.0;
  ICE_TRY(yaml_get_real(range, "from", -1e15, 1e15, &from, e));
  ICE_TRY(yaml_get_real(range, "to", -1e15, 1e15, &to, e));
  ICE_TRY(yaml_get_real(range, "step", 1e-12, 1e15, &step, e));
  ICE_TRY(yaml_get_real(range, "mult", 1.000001, 1e15, &mult, e));
  int foreign = 0;
  for (int i = 0; i < range->n_children; i++) foreign |= !range->child[i]->asked;
  if (foreign || isnan(from) || isnan(to) || (step > 0.0) == (mult > 0.0))
    return yaml_fail(range, e, "allowed a value or a list, or a range: {from: 8, to: 64, mult: 2}, {from: 1, to: 9, step: 2}");
  if (from > to || (mult > 0.0 && from <= 0.0))
    return yaml_fail_at(range, e, "a range goes up from `from` to `to`%s", mult > 0.0 ? ", and `from` times `mult` needs more than 0" : "");
  const double end = to + 1e-9 * (step > 0.0 ? step : to); /* 0.1 + 0.1 + 0.1 > 0.3 */
  for (int i = 0; range_value(from, step, mult, i) <= end; i++) {
    if (i == max) return yaml_fail_at(range, e, "a range of more than %d values", max);
    ICE_TRY(push_value(list, range, range_value(from, step, mult, i), e));
  }
  return ICE_OK;
}

int yaml_expand(yaml_node *n, int max, ice_err *e) {
  int ranges = n->kind == NODE_MAP;
  for (int i = 0; n->kind == NODE_LIST && i < n->n_children; i++) ranges += n->child[i]->kind == NODE_MAP;
  if (!ranges) return ICE_OK;
  yaml_node old = *n; /* children move out, then in again or into the bin */
  n->kind = NODE_LIST, n->child = NULL, n->n_children = n->room = 0;
  int rc = ICE_OK;
  if (old.kind == NODE_MAP) {
    yaml_node range = old; /* where messages find its place */
    rc = push_range(n, &range, max, e);
    old.known = range.known, old.n_known = range.n_known;
    n->known = NULL, n->n_known = n->known_room = 0;
    for (int i = 0; i < old.n_known; i++) free(old.known[i]);
    free(old.known);
  }
  for (int i = 0; i < old.n_children; i++) {
    yaml_node *c = old.child[i];
    const int kept = old.kind == NODE_LIST && c->kind != NODE_MAP;
    if (rc == ICE_OK && kept) rc = push((void ***)&n->child, &n->n_children, &n->room, c) ? ICE_OK : no_memory(n->doc, e);
    else if (rc == ICE_OK && old.kind == NODE_LIST) rc = push_range(n, c, max, e);
    if (!kept || rc != ICE_OK) node_free(c);
  }
  free(old.child);
  return rc;
}

/* Remembers a key for yaml_finish(); forgotten when memory is out, which costs a line of help only. */
static void remember(yaml_node *map, const char *key) {
  for (int i = 0; i < map->n_known; i++)
    if (strcmp(map->known[i], key) == 0) return;
  char *copy = strdup(key);
  if (!copy || !push((void ***)&map->known, &map->n_known, &map->known_room, copy)) free(copy);
}

yaml_node *yaml_find(yaml_node *map, const char *key) {
  remember(map, key);
  for (int i = 0; i < map->n_children; i++)
    if (strcmp(map->child[i]->key, key) == 0) return yaml_value(map, i);
  return NULL;
}

static const yaml_node *first_unknown(const yaml_node *n) {
  for (int i = 0; i < n->n_children; i++) {
    const yaml_node *c = n->child[i];
    if (n->kind == NODE_MAP && !c->asked) return c;
    const yaml_node *below = first_unknown(c);
    if (below) return below;
  }
  return NULL;
}

int yaml_finish(const yaml_doc *doc, ice_err *e) {
  const yaml_node *n = first_unknown(doc->root);
  if (!n) return ICE_OK;
  const yaml_node *map = n->parent;
  char path[200], near[200], all[500] = "";
  node_path(n, path, sizeof path);
  registry_suggest(n->key, (const char *const *)map->known, map->n_known, near, sizeof near);
  size_t used = 0;
  for (int i = 0; i < map->n_known && used < sizeof all; i++) {
    int wrote = snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", map->known[i]);
    used += wrote > 0 ? (size_t)wrote : 0;
  }
  return fail_mark(doc, n->key_line, n->key_column, e, "unknown key %s%s%s%s, allowed %s", path,
                   *near ? ", did you mean " : "", near, *near ? "?" : "", *all ? all : "no key at all");
}

/* ---- Typed values. */

static int is_nothing(const yaml_node *n) {
  return n->kind == NODE_SCALAR && !n->quoted &&
         (!*n->text || strcmp(n->text, "~") == 0 || strcasecmp(n->text, "null") == 0);
}

int yaml_string(const yaml_node *n, const char **out, ice_err *e) {
  if (n->kind != NODE_SCALAR || is_nothing(n) || !*n->text) return yaml_fail(n, e, "allowed a text");
  *out = n->text;
  return ICE_OK;
}

int yaml_bool(const yaml_node *n, int *out, ice_err *e) {
  int yes = n->kind == NODE_SCALAR && !n->quoted && strcmp(n->text, "true") == 0;
  int no = n->kind == NODE_SCALAR && !n->quoted && strcmp(n->text, "false") == 0;
  if (!yes && !no) return yaml_fail(n, e, "allowed true, false");
  *out = yes;
  return ICE_OK;
}

int yaml_int(const yaml_node *n, int64_t min, int64_t max, int64_t *out, ice_err *e) {
  if (n->kind == NODE_SCALAR && !n->quoted && number_int(n->text, min, max, out)) return ICE_OK;
  return yaml_fail(n, e, "allowed whole numbers %lld..%lld%s", (long long)min, (long long)max,
                   n->kind == NODE_SCALAR && n->quoted ? ", without quotes" : "");
}

int yaml_real(const yaml_node *n, double min, double max, double *out, ice_err *e) {
  if (n->kind == NODE_SCALAR && !n->quoted && number_real(n->text, min, max, out)) return ICE_OK;
  return yaml_fail(n, e, "allowed numbers %g..%g%s", min, max,
                   n->kind == NODE_SCALAR && n->quoted ? ", without quotes" : "");
}

int yaml_choice(const yaml_node *n, const char *const *words, int *out, ice_err *e) {
  char all[400] = "";
  size_t used = 0;
  for (int i = 0; words[i]; i++) {
    if (n->kind == NODE_SCALAR && strcmp(n->text, words[i]) == 0) {
      *out = i;
      return ICE_OK;
    }
    int wrote = used < sizeof all ? snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", words[i]) : 0;
    used += wrote > 0 ? (size_t)wrote : 0;
  }
  return yaml_fail(n, e, "allowed %s", all);
}

/* ---- Typed values under a key. */

/* A needed key is absent: perhaps it is there, mistyped. */
static int missing(const yaml_node *map, const char *key, ice_err *e) {
  char path[200], near[80];
  node_path(map, path, sizeof path);
  for (int i = 0; i < map->n_children; i++) {
    const yaml_node *c = map->child[i];
    registry_suggest(c->key, &key, 1, near, sizeof near);
    if (!c->asked && *near)
      return fail_mark(map->doc, c->key_line, c->key_column, e, "unknown key %s, did you mean %s?", c->key, key);
  }
  return fail_mark(map->doc, map->line, map->column, e, "key %s is missing%s%s", key, *path ? " in " : "", path);
}

int yaml_get(yaml_node *map, const char *key, int needed, yaml_node **out, ice_err *e) {
  yaml_node *n = yaml_find(map, key);
  if (!n && needed) return missing(map, key, e);
  if (n && is_nothing(n)) return yaml_fail(n, e, "allowed a value, or leave the key out");
  *out = n;
  return ICE_OK;
}

int yaml_get_map(yaml_node *map, const char *key, int needed, yaml_node **out, ice_err *e) {
  yaml_node *n = NULL;
  ICE_TRY(yaml_get(map, key, needed, &n, e));
  if (n && n->kind != NODE_MAP) return yaml_fail(n, e, "allowed a mapping {key: value, ...}");
  *out = n;
  return ICE_OK;
}

int yaml_get_string(yaml_node *map, const char *key, int needed, const char **out, ice_err *e) {
  yaml_node *n = yaml_find(map, key);
  if (!n) return needed ? missing(map, key, e) : ICE_OK;
  return yaml_string(n, out, e);
}

int yaml_get_bool(yaml_node *map, const char *key, int *out, ice_err *e) {
  yaml_node *n = yaml_find(map, key);
  return n ? yaml_bool(n, out, e) : ICE_OK;
}

int yaml_get_int(yaml_node *map, const char *key, int64_t min, int64_t max, int64_t *out, ice_err *e) {
  yaml_node *n = yaml_find(map, key);
  return n ? yaml_int(n, min, max, out, e) : ICE_OK;
}

int yaml_get_real(yaml_node *map, const char *key, double min, double max, double *out, ice_err *e) {
  yaml_node *n = yaml_find(map, key);
  return n ? yaml_real(n, min, max, out, e) : ICE_OK;
}
