/* test_registry.c - the table of methods, their parameters as text and JSON, and nearest names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/number.h"
#include "harness/registry/registry.h"

/* A method as small as the self-check allows, with one parameter of each type. */
typedef struct toy_params {
  int64_t k, order;
  double share;
} toy_params;
static const char *const order_words[] = {"dci", "l2", NULL};
static const attn_param toy_table[] = {
    {.key = "k", .doc = "keys", .type = ATTN_P_INT, .offset = offsetof(toy_params, k), .dflt = 8, .min = 1, .max = 64},
    {.key = "share",
     .doc = "of a cell",
     .type = ATTN_P_REAL,
     .offset = offsetof(toy_params, share),
     .dflt = 0.1,
     .min = 0,
     .max = 1},
    {.key = "order",
     .doc = "of keys",
     .type = ATTN_P_CHOICE,
     .offset = offsetof(toy_params, order),
     .dflt = 1,
     .choices = order_words},
    {.key = NULL}};
static attn_method toy(void) {
  attn_method m = *registry_methods[0];
  m.name = "toy", m.params_size = sizeof(toy_params), m.params = toy_table, m.training = NULL;
  return m;
}

static void test_table__of_the_program__is_sane(void **state) {
  (void)state;
  ice_err e = {0};
  if (registry_self_check(&e) != ICE_OK) fail_msg("%s", e.text);
  for (int i = 0; registry_methods[i]; i++)
    assert_ptr_equal(registry_find(registry_methods[i]->name, &e), registry_methods[i]);
}

static void test_find__unknown__names_the_nearest_or_all(void **state) {
  (void)state;
  ice_err e = {0};
  assert_null(registry_find("icefromer", &e));
  assert_int_equal(e.code, ICE_USAGE);
  assert_string_equal(e.text, "unknown method icefromer, did you mean iceformer, reformer?");
  assert_null(registry_find("zzz", &e));
  assert_non_null(strstr(e.text, "unknown method zzz, allowed vanilla, dense, "));
  assert_null(registry_find("", &e));
  char huge[5000];
  memset(huge, 'x', sizeof huge - 1);
  huge[sizeof huge - 1] = 0;
  assert_null(registry_find(huge, &e));
  assert_true(strlen(e.text) < 700);
}

static void test_suggest__near_names__nearest_first(void **state) {
  (void)state;
  static const char *const names[] = {"dense", "topk", "iceformer", "icecells", "reformer", "dci"};
  static const struct {
    const char *given, *near;
  } c[] = {{"dnese", "dense"}, {"dic", "dci"},           {"denss", "dense"},
           {"Dense", "dense"}, {"tokp", "topk"},         {"topkk", "topk"},
           {"ice", ""},        {"former", "reformer"},   {"iceforme", "iceformer"},
           {"xyz", ""},        {"reformer", "reformer"}, {"icefor", "iceformer"},
           {"k", ""}};
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    char out[100];
    registry_suggest(c[i].given, names, 6, out, sizeof out);
    if (*c[i].near ? strncmp(out, c[i].near, strlen(c[i].near)) != 0 : strcmp(c[i].given, "ice") != 0 && *out)
      fail_msg("%s: '%s'", c[i].given, out);
  }
  char tiny[4] = "xxx"; /* too small for any name */
  registry_suggest("dense", names, 6, tiny, sizeof tiny);
  assert_string_equal(tiny, "");
}

static void test_param_set__every_type__stores_or_refuses(void **state) {
  (void)state;
  const attn_method m = toy();
  toy_params v;
  ice_err e = {0};
  attn_params_default(&m, &v);
  assert_true(v.k == 8 && v.share == 0.1 && v.order == 1);
  static const struct {
    const char *key, *text, *message;
  } c[] = {
      {"k", "64", NULL},
      {"k", "+1", NULL},
      {"share", "1e-3", NULL},
      {"share", ".5", NULL},
      {"share", "1", NULL},
      {"order", "dci", NULL},
      {"k", "65", "toy.k = 65, allowed whole numbers 1..64"},
      {"k", "0", "toy.k = 0, allowed whole numbers 1..64"},
      {"k", "8.0", "toy.k = 8.0, allowed whole numbers 1..64"},
      {"k", "", "toy.k = , allowed whole numbers 1..64"},
      {"k", " 8", "toy.k =  8, allowed whole numbers 1..64"},
      {"k", "99999999999999999999", "toy.k = 99999999999999999999, allowed whole numbers 1..64"},
      {"share", "nan", "toy.share = nan, allowed numbers 0..1"},
      {"share", "1.0000001", "toy.share = 1.0000001, allowed numbers 0..1"},
      {"share", "0x1p-1", "toy.share = 0x1p-1, allowed numbers 0..1"},
      {"order", "L2", "toy.order = L2, allowed dci, l2"},
      {"order", "", "toy.order = , allowed dci, l2"},
  };
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    const attn_param *p = registry_param(&m, c[i].key, &e);
    assert_non_null(p);
    toy_params before = v;
    int rc = registry_param_set(&m, p, c[i].text, &v, &e);
    assert_int_equal(rc, c[i].message ? ICE_USAGE : ICE_OK);
    if (!c[i].message) continue;
    assert_string_equal(e.text, c[i].message);
    assert_memory_equal(&before, &v, sizeof v);
  }
  assert_true(v.k == 1 && v.share == 1.0 && v.order == 0);
  assert_null(registry_param(&m, "kk", &e));
  assert_string_equal(e.text, "unknown parameter of toy kk, did you mean k?");
  assert_null(registry_param(registry_find("dense", &e), "k", &e));
  assert_string_equal(e.text, "dense has no parameters, given k");
}

static void test_params_json__is_canonical_and_shortest(void **state) {
  (void)state;
  const attn_method m = toy();
  toy_params v = {.k = 9, .order = 0, .share = 0.1};
  char *json = registry_params_json(&m, &v);
  assert_string_equal(json, "{\"k\":9,\"share\":0.1,\"order\":\"dci\"}");
  free(json);
  v.share = nextafter(0.1, 1);
  json = registry_params_json(&m, &v);
  assert_string_equal(json, "{\"k\":9,\"share\":0.10000000000000002,\"order\":\"dci\"}");
  free(json);
  json = registry_params_json(registry_find("dense", NULL), NULL);
  assert_string_equal(json, "{}");
  free(json);
}

static void test_print__any_double__reads_back_equal(void **state) {
  (void)state;
  uint64_t bits = 88172645463325252u;
  char text[64];
  for (int i = 0; i < 20000; i++) {
    bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
    double value, back;
    memcpy(&value, &bits, sizeof value);
    if (!isfinite(value)) continue;
    number_print(value, text, sizeof text);
    assert_int_equal(number_real(text, -INFINITY, INFINITY, &back), 1);
    assert_memory_equal(&value, &back, sizeof value);
  }
}

static void test_number__limits_of_the_types(void **state) {
  (void)state;
  int64_t i;
  uint64_t u;
  assert_int_equal(number_int("9223372036854775807", INT64_MIN, INT64_MAX, &i), 1);
  assert_true(i == INT64_MAX);
  assert_int_equal(number_int("9223372036854775808", INT64_MIN, INT64_MAX, &i), 0);
  assert_int_equal(number_int("-9223372036854775808", INT64_MIN, INT64_MAX, &i), 1);
  assert_true(i == INT64_MIN);
  assert_int_equal(number_u64("18446744073709551615", &u), 1);
  assert_true(u == UINT64_MAX);
  assert_int_equal(number_u64("18446744073709551616", &u), 0);
  assert_int_equal(number_u64("-1", &u), 0);
  assert_int_equal(number_u64("", &u), 0);
}

static void test_self_check__broken_tables__are_caught(void **state) {
  (void)state;
  ice_err e = {0};
  attn_method a = toy(), b = a;
  const attn_method *twice[] = {&a, &b, NULL}, *one[] = {&b, NULL};
  if (registry_self_check_table(one, &e) != ICE_OK) fail_msg("%s", e.text);
#define CAUGHT(change, word)                                                                                           \
  do {                                                                                                                 \
    b = a;                                                                                                             \
    change;                                                                                                            \
    e.text[0] = 0;                                                                                                     \
    assert_int_equal(registry_self_check_table(one, &e), ICE_INTERNAL);                                                \
    if (!strstr(e.text, word)) fail_msg("'%s' does not say '%s'", e.text, word);                                       \
  } while (0)
  assert_int_equal(registry_self_check_table(twice, &e), ICE_INTERNAL);
  assert_string_equal(e.text, "method toy stands twice");
  CAUGHT(b.name = "Upper", "Upper is no [a-z0-9_]+");
  CAUGHT(b.name = "", "is no [a-z0-9_]+");
  CAUGHT(b.name = NULL, "is no [a-z0-9_]+");
  CAUGHT(b.version = "", "version, doc or cite");
  CAUGHT(b.doc = NULL, "version, doc or cite");
  CAUGHT(b.forward = NULL, "a function of its table");
  CAUGHT(b.release = NULL, "a function of its table");
  const attn_training half = {.sizes = NULL};
  CAUGHT(b.training = &half, "a function of its training part");
  CAUGHT(b.params_size = 16, "lies outside its struct");
  attn_param row[3] = {toy_table[0], {.key = NULL}, {.key = NULL}};
  CAUGHT(b.params = row; row[0].dflt = 65, "k = 65 by default, allowed 1..64");
  CAUGHT(b.params = row; row[0].dflt = NAN, "by default");
  CAUGHT(b.params = row; row[0].dflt = 1.5, "is no whole number");
  CAUGHT(b.params = row; row[0] = toy_table[0]; row[0].doc = "", "has no doc");
  CAUGHT(b.params = row; row[0] = toy_table[0]; row[1] = toy_table[0], "stands twice in its table");
  row[1].key = NULL;
  CAUGHT(b.params = row; row[0] = toy_table[2]; row[0].dflt = 2, "is no choice");
  CAUGHT(b.params = row; row[0].choices = NULL, "has no choices");
#undef CAUGHT
}

static void test_every_default__parses_back(void **state) {
  (void)state;
  for (int i = 0; registry_methods[i]; i++) {
    const attn_method *m = registry_methods[i];
    char *params = calloc(1, m->params_size + 1), *other = calloc(1, m->params_size + 1), text[64];
    ice_err e = {0};
    attn_params_default(m, params);
    for (const attn_param *p = m->params; p && p->key; p++) {
      registry_param_print(p, params, text, sizeof text);
      if (registry_param_set(m, p, text, other, &e) != ICE_OK) fail_msg("%s", e.text);
    }
    char *x = registry_params_json(m, params), *y = registry_params_json(m, other);
    assert_string_equal(x, y);
    free(x), free(y), free(params), free(other);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_table__of_the_program__is_sane),
      cmocka_unit_test(test_find__unknown__names_the_nearest_or_all),
      cmocka_unit_test(test_suggest__near_names__nearest_first),
      cmocka_unit_test(test_param_set__every_type__stores_or_refuses),
      cmocka_unit_test(test_params_json__is_canonical_and_shortest),
      cmocka_unit_test(test_print__any_double__reads_back_equal),
      cmocka_unit_test(test_number__limits_of_the_types),
      cmocka_unit_test(test_self_check__broken_tables__are_caught),
      cmocka_unit_test(test_every_default__parses_back),
  };
  return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
