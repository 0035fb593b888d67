/* cmd_show.c - verb `show`: one method and its parameters. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "harness/capability.h"
#include "harness/cli.h"
#include "harness/registry/registry.h"
#include "kernels/core/alloc.h"

static int show_text(const attn_method *m, const void *params) {
  (void)printf("%s (version %s)\n  %s\n  source: %s\n  capabilities:", m->name, m->version, m->doc, m->cite);
  for (int i = 0; capabilities[i].name; i++)
    if (m->caps & capabilities[i].bit) (void)printf(" %s", capabilities[i].name);
  (void)printf("%s\n", m->training ? "\n  can be trained" : "");
  if (!m->params[0].key) {
    (void)printf("  no parameters\n");
    return ICE_OK;
  }
  (void)printf("\n  %-12s %-10s %-26s %s\n", "parameter", "default", "allowed", "");
  for (const attn_param *p = m->params; p->key; p++) {
    char dflt[64], allowed[256];
    registry_param_print(p, params, dflt, sizeof dflt);
    registry_param_allowed(p, allowed, sizeof allowed);
    (void)printf("  %-12s %-10s %-26s %s%s\n", p->key, dflt, allowed, p->doc,
                 p->late ? " (a sweep reuses the index)" : "");
  }
  return ICE_OK;
}

static int show_json(const attn_method *m, const void *params, ice_err *e) {
  json_t *rows = json_array(), *caps = json_array();
  for (int i = 0; capabilities[i].name; i++)
    if (m->caps & capabilities[i].bit) (void)json_array_append_new(caps, json_string(capabilities[i].name));
  for (const attn_param *p = m->params; p->key; p++) {
    char dflt[64], allowed[256];
    registry_param_print(p, params, dflt, sizeof dflt);
    registry_param_allowed(p, allowed, sizeof allowed);
    (void)json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:b, s:s}", "key", p->key, "default", dflt, "allowed",
                                                allowed, "late", p->late, "doc", p->doc));
  }
  json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:o, s:b, s:o}", "name", m->name, "version", m->version, "doc", m->doc,
                        "source", m->cite, "capabilities", caps, "trainable", m->training != NULL, "params", rows);
  char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
  json_decref(o);
  if (!text) return ice_fail(e, ICE_INTERNAL, "out of memory");
  (void)printf("%s\n", text);
  free(text);
  return ICE_OK;
}

static int show_main(const cli_common *common, int argc, char **argv, ice_err *e) {
  (void)common;
  const char *name = NULL, *format = "text";
  int names = 0;
  const cli_option spec[] = {{.name = "format", .has_value = 1, .value = &format}, {.name = NULL}};
  ICE_TRY(cli_parse(argc, argv, spec, &name, 1, &names, e));
  if (names != 1) return ice_fail(e, ICE_USAGE, "show: needs one method; see icebench list methods");
  const int json = !strcmp(format, "json");
  if (!json && strcmp(format, "text")) return ice_fail(e, ICE_USAGE, "--format = %s, allowed text, json", format);
  const attn_method *m = registry_find(name, e);
  if (!m) return e->code;
  void *params = attn_calloc(m->params_size);
  if (!params) return ice_fail(e, ICE_INTERNAL, "out of memory");
  attn_params_default(m, params);
  const int rc = json ? show_json(m, params, e) : show_text(m, params);
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
