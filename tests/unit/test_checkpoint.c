/* test_checkpoint.c - encoder checkpoints: what is saved comes back, what is not an encoder is refused in one line. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/core/alloc.h"
#include "kernels/methods/dense.h"
#include "models/safetensors.h"
#include "tests/support/encoder_ref.h"

static char folder[] = "/tmp/icebench-checkpoint-XXXXXX", path[256];

static int set_up(void **state) {
  (void)state;
  if (!mkdtemp(folder)) return -1;
  (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
  return 0;
}
static int tear_down(void **state) {
  (void)state;
  (void)unlink(path);
  return rmdir(folder); /* fails when something was left behind */
}

static const encoder_config small = {.vocab = 7,
                                     .positions = 16,
                                     .width = 12,
                                     .layers = 3,
                                     .heads = 3,
                                     .mlp = 10,
                                     .head_hidden = 5,
                                     .classes = 3,
                                     .inputs = 1};

static encoder make(encoder_config c) {
  encoder m;
  assert_int_equal(encoder_create(&m, &c, NULL), ICE_OK);
  encoder_scramble(&m, 2);
  return m;
}

static void test_save__then_load__same_encoder(void **state) {
  (void)state;
  encoder_config dual = small, lra = encoder_lra_config(32, 128, 10, 1);
  dual.inputs = 2, dual.layers = 8, dual.heads = 1;
  const encoder_config all[] = {small, dual, lra};
  for (int i = 0; i < 3; i++) {
    encoder m = make(all[i]), back;
    ice_err e = {0};
    const char *const meta[] = {"task", "lra/listops", "note", "caf\xc3\xa9 \"quoted\"", NULL};
    assert_int_equal(encoder_save(&m, m.params, path, i ? meta : NULL, &e), ICE_OK);
    if (encoder_load(&back, path, &e) != ICE_OK) fail_msg("%s", e.text);
    assert_memory_equal(&back.cfg, &m.cfg, sizeof m.cfg);
    assert_int_equal(back.n_params, m.n_params);
    assert_memory_equal(back.params, m.params, (size_t)m.n_params * sizeof(float));
    st_file f;
    assert_int_equal(st_open(path, &f, &e), ICE_OK);
    if (i) assert_string_equal(st_meta(&f, "note"), "caf\xc3\xa9 \"quoted\"");
    st_close(&f);
    encoder_destroy(&m), encoder_destroy(&back);
  }
}

static void test_save__impossible_place__refused_and_nothing_left(void **state) {
  (void)state;
  encoder m = make(small);
  ice_err e = {0};
  char bad[300];
  (void)snprintf(bad, sizeof bad, "%s/absent/model.safetensors", folder);
  assert_int_not_equal(encoder_save(&m, m.params, bad, NULL, &e), ICE_OK);
  assert_non_null(strstr(e.text, "absent"));
  assert_int_not_equal(encoder_save(&m, m.params, folder, NULL, &e), ICE_OK); /* a folder */
  encoder_destroy(&m);
}

/* --- checkpoints that are none -------------------------------------------------------------------------------- */

/* The tensors of an encoder as a list that a test may bend before it is written. */
typedef struct draft {
  encoder m;
  st_out t[160];
  int count;
  const char *meta[4];
} draft;

static void draft_new(draft *d, const encoder_config *c) {
  *d = (draft){.m = make(*c), .meta = {"heads", "3", NULL}};
  assert_true(d->m.n_tensors < 158);
  for (int i = 0; i < d->m.n_tensors; i++) {
    const encoder_tensor *t = d->m.tensor + i;
    d->t[d->count++] = (st_out){.name = t->name,
                                .dtype = ST_F32,
                                .rank = t->rank,
                                .shape = {t->shape[0], t->shape[1]},
                                .data = d->m.params + t->offset};
  }
}
static st_out *draft_find(draft *d, const char *name) {
  for (int i = 0; i < d->count; i++)
    if (strcmp(d->t[i].name, name) == 0) return d->t + i;
  fail_msg("no tensor %s", name);
  return NULL;
}
/* Writes the draft and expects that loading fails with ICE_DATA, in one line with the file and `word`. */
static void draft_refused(draft *d, const char *word) {
  encoder m;
  ice_err e = {0};
  const size_t live = attn_alloc_counters().live_bytes;
  assert_int_equal(st_write(path, d->t, d->count, d->meta, &e), ICE_OK);
  const int rc = encoder_load(&m, path, &e);
  if (rc != ICE_DATA) fail_msg("%s: code %d, expected %d", word, rc, ICE_DATA);
  if (!strstr(e.text, word) || !strstr(e.text, path)) fail_msg("\"%s\" lacks \"%s\" or the file", e.text, word);
  assert_null(strchr(e.text, '\n'));
  assert_true(m.params == NULL && m.tensor == NULL);
  assert_int_equal(attn_alloc_counters().live_bytes, live);
}

static void test_load__any_tensor_missing__named(void **state) {
  (void)state;
  draft whole;
  draft_new(&whole, &small);
  for (int i = 0; i < whole.count; i++) {
    draft d = whole;
    d.t[i] = d.t[--d.count];
    /* Without the first query projection of a layer the encoder looks shallower, and the rest is superfluous. */
    const int depth = strstr(whole.t[i].name, "W_q.weight") != NULL;
    draft_refused(&d, depth ? "tensor" : whole.t[i].name);
  }
  encoder_destroy(&whole.m);
}

static void test_load__any_tensor_of_another_shape__refused(void **state) {
  (void)state;
  draft whole;
  draft_new(&whole, &small);
  for (int i = 0; i < whole.count; i++)
    for (int form = 0; form < 3; form++) {
      draft d = whole;
      st_out *t = d.t + i;
      if (form == 0) t->shape[0]--; /* fewer rows */
      if (form == 1)
        t->shape[0] *= t->rank == 2 ? t->shape[1] : 1, t->shape[1] = 1, t->rank = 3 - t->rank; /* other rank */
      if (form == 2 && t->rank == 2) t->shape[1]--;
      if (form == 2 && t->rank == 1) t->rank = 0;
      /* A size that others follow (the width, the vocabulary) may be believed here and contradicted elsewhere. */
      const int alone = form == 0 && (strstr(t->name, "embeddings") || strstr(t->name, "mlpblock.2"));
      if (alone && !strstr(t->name, "mlpblock.2")) continue; /* a smaller vocabulary is a legal encoder */
      draft_refused(&d, "");
    }
  draft d = whole;
  draft_find(&d, "model.transformer_1.mha.W_k.weight")->shape[0] = 11;
  draft_refused(&d, "model.transformer_1.mha.W_k.weight has shape [11, 12], expected [12, 12]");
  encoder_destroy(&whole.m);
}

static void test_load__sizes_far_beyond_the_file__refused_without_memory(void **state) {
  (void)state;
  draft d;
  draft_new(&d, &small);
  float *many = calloc(1 << 20, sizeof *many);
  assert_non_null(many);
  st_out *tok = draft_find(&d, "model.embeddings.word_embeddings.weight");
  st_out *pos = draft_find(&d, "model.embeddings.position_embeddings.weight");
  tok->shape[0] = 1, tok->shape[1] = 4095, tok->data = many; /* width 4095 x 2^20 positions: 16 GiB */
  pos->shape[0] = 1 << 20, pos->shape[1] = 1, pos->data = many;
  attn_alloc_reset_peak();
  const size_t live = attn_alloc_counters().live_bytes;
  draft_refused(&d, "model.embeddings.position_embeddings.weight has shape [1048576, 1], expected [1048576, 4095]");
  assert_true(attn_alloc_counters().peak_bytes - live < 1 << 20);
  free(many);
  encoder_destroy(&d.m);
}

static void test_load__superfluous_tensor__refused(void **state) {
  (void)state;
  draft d;
  draft_new(&d, &small);
  const float one = 1.0f;
  d.t[d.count++] = (st_out){.name = "extra.weight", .dtype = ST_F32, .rank = 1, .shape = {1}, .data = &one};
  draft_refused(&d, "tensors");
  encoder_destroy(&d.m);
}

static void test_load__other_dtypes__reals_are_converted_integers_refused(void **state) {
  (void)state;
  draft whole;
  draft_new(&whole, &small);
  draft d = whole;
  const int64_t zeros[12 * 12] = {0};
  st_out *t = draft_find(&d, "model.transformer_0.mha.W_v.weight");
  t->dtype = ST_I64, t->data = zeros;
  draft_refused(&d, "model.transformer_0.mha.W_v.weight: dtype");
  d = whole;
  for (int i = 0; i < d.count; i++) d.t[i].dtype = ST_BF16;
  encoder back;
  ice_err e = {0};
  assert_int_equal(st_write(path, d.t, d.count, d.meta, &e), ICE_OK);
  assert_int_equal(encoder_load(&back, path, &e), ICE_OK);
  for (int64_t i = 0; i < back.n_params; i++) /* 8 significant bits, rounded */
    assert_true(fabsf(back.params[i] - whole.m.params[i]) <= 0x1p-8f * fabsf(whole.m.params[i]));
  encoder_destroy(&back), encoder_destroy(&whole.m);
}

static void test_load__parameter_not_finite__refused(void **state) {
  (void)state;
  const float bad[] = {NAN, INFINITY, -INFINITY};
  const char *const value[] = {"nan", "inf", "-inf"};
  for (int i = 0; i < 3; i++) {
    draft d;
    char want[120];
    draft_new(&d, &small);
    const encoder_tensor *t = d.m.tensor + i * (d.m.n_tensors - 1) / 2;
    const int64_t at = encoder_tensor_size(t) - 1;
    d.m.params[t->offset + at] = bad[i];
    (void)snprintf(want, sizeof want, "%s[%lld] = %s, allowed finite numbers", t->name, (long long)at, value[i]);
    draft_refused(&d, want);
    encoder_destroy(&d.m);
  }
}

static void test_load__bad_heads__refused_with_value(void **state) {
  (void)state;
  const char *const heads[] = {"0", "-3", "65", "", "x", "3x", "5", "99999999999999999999", "3 "};
  for (int i = 0; i < 9; i++) {
    draft d;
    draft_new(&d, &small);
    d.meta[1] = heads[i];
    draft_refused(&d, "heads"); /* 5 does not divide 12 */
    encoder_destroy(&d.m);
  }
}

static void test_load__nine_layers__refused(void **state) {
  (void)state;
  draft d;
  encoder_config most = small;
  most.layers = ENCODER_MAX_LAYERS;
  draft_new(&d, &most);
  char name[40][64];
  for (int i = 0, n = d.count, extra = 0; i < n; i++)
    if (strncmp(d.t[i].name, "model.transformer_7.", 20) == 0) {
      (void)snprintf(name[extra], sizeof name[0], "model.transformer_8.%s", d.t[i].name + 20);
      d.t[d.count] = d.t[i];
      d.t[d.count++].name = name[extra++];
    }
  draft_refused(&d, "layers = 9, allowed 1..8");
  encoder_destroy(&d.m);
}

static void test_load__no_such_file_or_no_format__refused(void **state) {
  (void)state;
  encoder m;
  ice_err e = {0};
  (void)unlink(path);
  assert_int_equal(encoder_load(&m, path, &e), ICE_DATA);
  assert_non_null(strstr(e.text, path));
  assert_int_equal(encoder_load(&m, folder, &e), ICE_DATA);
  const char *const bytes[] = {
      "", "1234567", "12345678", "\2\0\0\0\0\0\0\0{}", "\2\0\0\0\0\0\0\0{]", "not a checkpoint at all"};
  const size_t sizes[] = {0, 7, 8, 10, 10, 23};
  for (int i = 0; i < 6; i++) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes[i], 1, sizes[i], f), sizes[i]);
    (void)fclose(f);
    assert_int_equal(encoder_load(&m, path, &e), ICE_DATA);
    assert_non_null(strstr(e.text, path));
  }
}

static void test_load__truncated_anywhere__refused(void **state) {
  (void)state;
  encoder m = make(small), back;
  assert_int_equal(encoder_save(&m, m.params, path, NULL, NULL), ICE_OK);
  struct stat st;
  assert_int_equal(stat(path, &st), 0);
  for (off_t size = st.st_size - 1; size >= 0; size -= size > 4000 ? 997 : 61) {
    ice_err e = {0};
    assert_int_equal(truncate(path, size), 0);
    assert_int_equal(encoder_load(&back, path, &e), ICE_DATA);
    assert_non_null(strstr(e.text, path));
  }
  encoder_destroy(&m);
}

static void test_load__shipped_checkpoint__an_lra_encoder(void **state) {
  (void)state;
  encoder m;
  ice_err e = {0};
  const encoder_config want = encoder_lra_config(32, 2048, 10, 1);
  if (encoder_load(&m, "models/checkpoints/lra/listops/softmax.safetensors", &e) != ICE_OK) fail_msg("%s", e.text);
  assert_memory_equal(&m.cfg, &want, sizeof want);
  assert_int_equal(m.n_params, 209802);
  encoder_destroy(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_save__then_load__same_encoder),
      cmocka_unit_test(test_save__impossible_place__refused_and_nothing_left),
      cmocka_unit_test(test_load__any_tensor_missing__named),
      cmocka_unit_test(test_load__any_tensor_of_another_shape__refused),
      cmocka_unit_test(test_load__sizes_far_beyond_the_file__refused_without_memory),
      cmocka_unit_test(test_load__superfluous_tensor__refused),
      cmocka_unit_test(test_load__other_dtypes__reals_are_converted_integers_refused),
      cmocka_unit_test(test_load__parameter_not_finite__refused),
      cmocka_unit_test(test_load__bad_heads__refused_with_value),
      cmocka_unit_test(test_load__nine_layers__refused),
      cmocka_unit_test(test_load__no_such_file_or_no_format__refused),
      cmocka_unit_test(test_load__shipped_checkpoint__an_lra_encoder),
      cmocka_unit_test(test_load__truncated_anywhere__refused),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
