/* cmd_show.c - verb `show`: one method and its parameters. */
#include <string.h>

#include <jansson.h>

#include "harness/capability.h"
#include "harness/cli.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"

static void show_text(const attn_method *m, const void *params) {
  (void)printf("%s (version %s)\n  %s\n  source: %s\n  capabilities:", m->name, m->version, m->doc, m->cite);
  for (int i = 0; capabilities[i].name; i++)
    if (m->caps & capabilities[i].bit) (void)printf(" %s", capabilities[i].name);
  (void)printf("%s\n", m->training ? "\n  can be trained" : "");
  if (!m->params || !m->params[0].key) {
    (void)printf("  no parameters\n");
    return;
  }
  int key_width = (int)strlen("parameter"), allowed_width = (int)strlen("allowed");
  char dflt[64], allowed[256];
  for (const attn_param *p = m->params; p->key; p++) {
    registry_param_allowed(p, allowed, sizeof allowed);
    if ((int)strlen(p->key) > key_width) key_width = (int)strlen(p->key);
    if ((int)strlen(allowed) > allowed_width) allowed_width = (int)strlen(allowed);
  }
  (void)printf("\n  %-*s  %-8s  %-*s\n", key_width, "parameter", "default", allowed_width, "allowed");
  for (const attn_param *p = m->params; p->key; p++) {
    registry_param_print(p, params, dflt, sizeof dflt);
    registry_param_allowed(p, allowed, sizeof allowed);
    (void)printf("  %-*s  %-8s  %-*s  %s%s\n", key_width, p->key, dflt, allowed_width, allowed, p->doc,
                 p->late ? " (late: a sweep reuses the index)" : "");
  }
}

/* {"key", "doc", "type", "late", "default", and "min", "max" or "choices"} */
static json_t *param_json(const attn_param *p, const void *params) {
  static const char *const type[] = {[ATTN_P_INT] = "integer", [ATTN_P_REAL] = "real", [ATTN_P_CHOICE] = "choice"};
  json_t *o = json_pack("{s:s, s:s, s:s, s:b}", "key", p->key, "doc", p->doc, "type", type[p->type], "late", p->late);
  if (p->type == ATTN_P_INT)
    (void)json_object_update_new(o, json_pack("{s:I, s:I, s:I}", "default", (json_int_t)p->dflt, "min",
                                              (json_int_t)p->min, "max", (json_int_t)p->max));
  if (p->type == ATTN_P_REAL)
    (void)json_object_update_new(o, json_pack("{s:f, s:f, s:f}", "default", p->dflt, "min", p->min, "max", p->max));
  if (p->type == ATTN_P_CHOICE) {
    char dflt[64];
    json_t *choices = json_array();
    for (int i = 0; p->choices[i]; i++) (void)json_array_append_new(choices, json_string(p->choices[i]));
    registry_param_print(p, params, dflt, sizeof dflt);
    (void)json_object_update_new(o, json_pack("{s:s, s:o}", "default", dflt, "choices", choices));
  }
  return o;
}

static json_t *method_json(const attn_method *m, const void *params) {
  json_t *rows = json_array(), *caps = json_array();
  for (int i = 0; capabilities[i].name; i++)
    if (m->caps & capabilities[i].bit) (void)json_array_append_new(caps, json_string(capabilities[i].name));
  for (const attn_param *p = m->params; p && p->key; p++) (void)json_array_append_new(rows, param_json(p, params));
  return json_pack("{s:s, s:s, s:s, s:s, s:o, s:b, s:o}", "name", m->name, "version", m->version, "doc", m->doc,
                   "source", m->cite, "capabilities", caps, "trainable", m->training != NULL, "params", rows);
}

static int show_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  (void)common;
  const char *name = NULL, *format = "text";
  int names = 0, json, rc = ICE_OK;
  const cli_option spec[] = {{.name = "format", .has_value = 1, .value = &format}, {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, &name, 1, &names, e));
  ICE_TRY(cli_format(format, &json, e));
  if (names != 1) return ice_fail(e, ICE_USAGE, "show: needs one method; see icebench list methods");
  const attn_method *m = registry_find(name, e);
  if (!m) return e->code;
  void *params = registry_defaults(m);
  if (!params) return ice_fail(e, ICE_INTERNAL, "out of memory");
  if (json)
    rc = cli_print_json(method_json(m, params), e);
  else
    show_text(m, params);
  attn_free(params);
  return rc;
}

const cli_verb cli_verb_show = {
    .name = "show",
    .summary = "describe a method and its parameters",
    .help = "usage: icebench show METHOD [--format text|json]\n"
            "\n"
            "Description, source, capabilities, and the parameters with defaults and ranges.\n"
            "\n"
            "examples:\n"
            "  icebench show iceformer\n"
            "  icebench show icecells --format json\n",
    .main = show_main,
};
