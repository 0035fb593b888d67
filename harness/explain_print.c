/* explain_print.c - see explain_print.h */
#include "harness/explain_print.h"

#include <math.h>
#include <string.h>

#include "harness/report_table.h"
#include "harness/yaml.h"

/* ---- Values by layer and head. */

static int alike(const double *a, int n) {
  for (int i = 1; i < n; i++)
    if (a[i] != a[0]) return 0;
  return 1;
}

/* [[8, 64], 32], as in experiments: heads of a layer that agree are told once. */
static json_t *values_json(const explain_result *r, const double *value) {
  json_t *all = json_array();
  for (int l = 0; l < r->layers; l++) {
    const double *layer = value + l * r->heads;
    json_t *heads = alike(layer, r->heads) ? json_real(layer[0]) : json_array();
    for (int h = 0; json_is_array(heads) && h < r->heads; h++) (void)json_array_append_new(heads, json_real(layer[h]));
    (void)json_array_append_new(all, heads);
  }
  return all;
}

static int differs(const explain_result *r, int variant) { /* from all before it */
  for (int v = 0; v < variant; v++)
    if (!memcmp(r->variant[v].value, r->variant[variant].value, sizeof r->variant[v].value)) return 0;
  return 1;
}

/* ---- Text. */

enum { LAYER, HEAD, VALUE, REL_L2, BEST, L2, MASS, FEW, MISSED, LOGITS, CHANGED, HEAD_COLUMNS };
static const report_column head_columns[HEAD_COLUMNS] = {
    {"layer", NULL, 'r', 0},
    {"head", NULL, 'r', 0},
    {"value", "of the parameter, in the run that is explained", 'r', 0},
    {"rel. L2", "||O - O_dense|| / ||O_dense|| of the head's outputs, the same Q, K, V", 'r', 0},
    {"perfect", "rel. L2 of topk with the same k: the part that k alone costs", 'r', 0},
    {"L2 error", "mean over rows of ||o - o_dense||", 'r', 0},
    {"mass", "softmax mass on the keys used", 'r', 0},
    {"too few", "mass lost because only so many keys are used: a perfect search loses it too", 'r', 0},
    {"missed", "mass lost because the search did not find the best ones", 'r', 0},
    {"logits", "change of the logits with the method in this head (in these layers) alone, relative to their spread", 'r', 0},
    {"answers", "share of answers that are others then", 'r', 0}};

enum { NAME, VALUES, PAIRS, KEYS, V_REL_L2, ERRORS, V_LOGITS, V_LOGITS_RATIO, V_CHANGED, ACCURACY, VARIANT_COLUMNS };
static const report_column variant_columns[VARIANT_COLUMNS] = {
    {"variant", NULL, 'l', 0},
    {"values", "of the parameter: a list of layers, each one value or a list of heads", 'l', 0},
    {"pairs", "products q.k per query and head", 'r', 0},
    {"keys", "keys attended per query and head", 'r', 0},
    {"rel. L2", "of all attention outputs, each call against exact attention on the same Q, K, V", 'r', 0},
    {"error^2 x", "sum of squared errors, divided by that of the first row; 95 % interval, paired by examples", 'r', 0},
    {"logits", "change of the logits against exact attention, relative to their spread", 'r', 0},
    {"logits^2 x", "sum of squared changes, divided by that of the first row; 95 % interval", 'r', 0},
    {"answers", "share of answers that are not those of exact attention", 'r', 0},
    {"accuracy", NULL, 'r', 0}};

static void print_legend(FILE *f, const report_table *t) {
  report_list_start(f, REPORT_MD);
  for (int c = 0; c < t->columns; c++)
    if (t->column[c].legend && report_table_used(t, c)) report_list_item(f, REPORT_MD, t->column[c].head, t->column[c].legend);
  report_list_end(f, REPORT_MD);
}

/* Heads, then layers: what stands before which layer is a row without a head. */
static int print_heads(const explain_options *o, const explain_result *r, FILE *f, ice_err *e) {
  report_column column[HEAD_COLUMNS];
  report_table t;
  const int n = r->layers * r->heads;
  memcpy(column, head_columns, sizeof column);
  column[VALUE].head = o->vary->key;
  int rc = report_table_create(&t, column, HEAD_COLUMNS, n + r->layers, e);
  for (int i = 0; rc == ICE_OK && i < n; i++) {
    const explain_head *h = r->head + i;
    report_table_set(&t, i, LAYER, "%d", i / r->heads);
    report_table_set(&t, i, HEAD, "%d", i % r->heads);
    report_table_set(&t, i, VALUE, "%g", h->value);
    report_table_number(&t, i, REL_L2, 4, h->rel_l2_error);
    report_table_number(&t, i, BEST, 4, h->best_rel_l2_error);
    report_table_number(&t, i, L2, 4, h->l2_error);
    report_table_number(&t, i, MASS, 4, h->mass);
    report_table_number(&t, i, FEW, 4, h->few);
    report_table_number(&t, i, MISSED, 4, h->missed);
    report_table_number(&t, i, LOGITS, 4, h->logits);
    report_table_number(&t, i, CHANGED, 4, h->changed);
  }
  for (int l = 0; rc == ICE_OK && l < r->layers; l++) {
    report_table_set(&t, n + l, LAYER, l ? "0..%d" : "%d", l);
    report_table_set(&t, n + l, HEAD, "all");
    report_table_number(&t, n + l, LOGITS, 4, r->layer[l].logits);
    report_table_number(&t, n + l, CHANGED, 4, r->layer[l].changed);
  }
  if (rc == ICE_OK) rc = report_table_print(&t, REPORT_MD, 0, f, e);
  if (rc == ICE_OK) print_legend(f, &t);
  report_table_free(&t);
  return rc;
}

static int print_variants(const explain_result *r, FILE *f, ice_err *e) {
  report_table t;
  int rc = report_table_create(&t, variant_columns, VARIANT_COLUMNS, EXPLAIN_VARIANTS, e);
  for (int i = 0; rc == ICE_OK && i < EXPLAIN_VARIANTS; i++) {
    const explain_variant *v = r->variant + i;
    char *values = NULL;
    size_t n = 0;
    FILE *text = open_memstream(&values, &n);
    json_t *list = values_json(r, v->value);
    if (text) {
      yaml_print(text, list);
      (void)fclose(text);
    }
    json_decref(list);
    report_table_set(&t, i, NAME, "%s", v->name);
    report_table_set(&t, i, VALUES, "%s", values ? values : "");
    free(values);
    report_table_number(&t, i, PAIRS, 1, v->pairs);
    report_table_number(&t, i, KEYS, 1, v->keys);
    report_table_number(&t, i, V_REL_L2, 4, v->rel_l2_error);
    report_table_interval(&t, i, ERRORS, 3, 0, v->error_ratio);
    report_table_number(&t, i, V_LOGITS, 4, v->logits);
    report_table_interval(&t, i, V_LOGITS_RATIO, 3, 0, v->logits_ratio);
    report_table_number(&t, i, V_CHANGED, 4, v->changed);
    report_table_number(&t, i, ACCURACY, 4, v->accuracy);
  }
  if (rc == ICE_OK) rc = report_table_print(&t, REPORT_MD, 0, f, e);
  if (rc == ICE_OK) print_legend(f, &t);
  report_table_free(&t);
  return rc;
}

int explain_print_text(const explain_options *o, const explain_result *r, const explain_names *names, FILE *f, ice_err *e) {
  char line[1024];
  (void)snprintf(line, sizeof line, "%.100s: %s in %.200s", names->experiment, o->method->name, names->model);
  report_heading(f, REPORT_MD, line);
  (void)snprintf(line, sizeof line, "%s. Looked at %lld examples of split %s%s, with exact attention in all other heads.", names->params,
                 (long long)r->look, task_split_name(r->look_split), r->official ? "" : " (generated data)");
  report_paragraph(f, REPORT_MD, line);
  ICE_TRY(print_heads(o, r, f, e));
  (void)snprintf(line, sizeof line, "%s by layer and head", o->vary->key);
  report_heading(f, REPORT_MD, line);
  (void)snprintf(line, sizeof line,
                 "Chosen on the examples above, for the least squared error%s at the same work and for the least work at the same error; "
                 "measured on %lld examples of split %s that had no part in it. Exact attention answers %.4f of them rightly.",
                 o->by_logits ? ", weighed by what it does to the logits," : "", (long long)r->prove, task_split_name(r->prove_split), r->accuracy);
  report_paragraph(f, REPORT_MD, line);
  ICE_TRY(print_variants(r, f, e));
  if (!differs(r, 1) && !differs(r, 2)) report_paragraph(f, REPORT_MD, "No schedule is better than what was run.");
  if (names->file) {
    (void)snprintf(line, sizeof line, "Times: icebench run %.900s", names->file);
    report_paragraph(f, REPORT_MD, line);
  }
  return ICE_OK;
}

/* ---- JSON. */

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }
static json_t *interval(stats_interval x) { return json_pack("[o, o, o]", number(x.value), number(x.lo), number(x.hi)); }

static json_t *head_json(const explain_result *r, int i) {
  const explain_head *h = r->head + i;
  return json_pack("{s:i, s:i, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "layer", i / r->heads, "head", i % r->heads, "value", h->value,
                   "rel_l2_error", number(h->rel_l2_error), "best_rel_l2_error", number(h->best_rel_l2_error), "l2_error", number(h->l2_error), "mass",
                   number(h->mass), "lost_too_few", number(h->few), "lost_missed", number(h->missed), "keys", number(h->keys), "logits",
                   number(h->logits), "answers_changed", number(h->changed));
}

static json_t *variant_json(const explain_result *r, const explain_variant *v) {
  json_t *values = json_array();
  for (int l = 0; l < r->layers; l++) {
    json_t *layer = json_array();
    for (int h = 0; h < r->heads; h++) (void)json_array_append_new(layer, json_real(v->value[l * r->heads + h]));
    (void)json_array_append_new(values, layer);
  }
  return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "variant", v->name, "values", values, "pairs", number(v->pairs), "keys",
                   number(v->keys), "rel_l2_error", number(v->rel_l2_error), "error_ratio", interval(v->error_ratio), "logits", number(v->logits),
                   "logits_ratio", interval(v->logits_ratio), "answers_changed", number(v->changed), "accuracy", number(v->accuracy));
}

json_t *explain_json(const explain_options *o, const explain_result *r, const explain_names *names) {
  json_t *heads = json_array(), *layers = json_array(), *variants = json_array();
  for (int i = 0; i < r->layers * r->heads; i++) (void)json_array_append_new(heads, head_json(r, i));
  for (int l = 0; l < r->layers; l++)
    (void)json_array_append_new(layers, json_pack("{s:i, s:o, s:o}", "up_to", l, "logits", number(r->layer[l].logits), "answers_changed",
                                                  number(r->layer[l].changed)));
  for (int v = 0; v < EXPLAIN_VARIANTS; v++) (void)json_array_append_new(variants, variant_json(r, r->variant + v));
  return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:{s:I, s:s}, s:{s:I, s:s}, s:b, s:f, s:o, s:o, s:o, s:s?}", "experiment", names->experiment, "task",
                   o->task->name, "model", names->model, "method", o->method->name, "params", json_loads(names->params, 0, NULL), "vary", o->vary->key,
                   "looked_at", "examples", (json_int_t)r->look, "split", task_split_name(r->look_split), "proven_on", "examples",
                   (json_int_t)r->prove, "split", task_split_name(r->prove_split), "official", r->official, "accuracy_dense", r->accuracy, "heads", heads,
                   "layers", layers, "variants", variants, "file", names->file);
}

/* ---- YAML. */

/* `- iceformer: {comp: 2, k: 20}`, or with the values of a variant as its schedule. */
static void print_entry(FILE *f, const explain_options *o, const explain_result *r, const char *params, int variant) {
  json_t *all = json_loads(params, 0, NULL);
  const double *value = r->variant[variant].value;
  (void)json_object_del(all, o->vary->key);
  (void)json_object_del(all, "schedule");
  if (alike(value, r->layers * r->heads)) (void)json_object_set_new(all, o->vary->key, json_real(value[0]));
  else (void)json_object_set_new(all, "schedule", json_pack("{s:o}", o->vary->key, values_json(r, value)));
  (void)fprintf(f, "  - %s: ", o->method->name);
  yaml_print(f, all);
  (void)fprintf(f, " # %s\n", r->variant[variant].name);
  json_decref(all);
}

static json_int_t whole_or(const json_t *config, const char *key, json_int_t otherwise) {
  const json_t *v = json_object_get(config, key);
  return json_is_integer(v) && json_integer_value(v) > 0 ? json_integer_value(v) : otherwise;
}

void explain_print_yaml(const explain_options *o, const explain_result *r, const explain_names *names, FILE *f) {
  const json_int_t examples = whole_or(names->config, "examples", 0);
  (void)fprintf(f, "# Written by icebench explain: %s by layer and head, chosen on %lld examples of split %s.\n", o->vary->key, (long long)r->look,
                task_split_name(r->look_split));
  (void)fprintf(f, "name: %.90s-explained\ntask: %s\nmodel: \"%s\"\nseeds: %llu\n", names->experiment, o->task->name, names->model,
                (unsigned long long)o->seed);
  if (examples) (void)fprintf(f, "examples: %lld\n", (long long)examples);
  (void)fprintf(f, "threads: %d\n", names->threads);
  if (o->padded) (void)fputs("padding: compute\n", f);
  (void)fputs("methods:\n  - vanilla\n  - dense\n", f);
  for (int v = 0; v < EXPLAIN_VARIANTS; v++)
    if (differs(r, v)) print_entry(f, o, r, names->params, v);
  (void)fprintf(f, "measure: {rounds: %lld, warmup: %lld, inputs: %lld}\n", (long long)whole_or(names->config, "rounds", 9),
                (long long)whole_or(names->config, "warmup", 1), (long long)whole_or(names->config, "inputs", 16));
}
