/* test_linformer.c - learned mixtures of keys against their definition in double: forward, gradients of inputs and of what is learned;
 * and the identities of the projection. What holds for every attention is tested in tests/property. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "baselines/linformer.h"
#include "harness/registry/registry.h"
#include "kernels/core/rng.h"
#include "models/encoder.h"
#include "tests/support/subject.h"
#include "tests/support/train_case.h"

static const attn_method *method;
static linformer_params settings;

static void set(int64_t rank, int64_t sharing, int64_t heads) {
  method = registry_find("linformer", NULL);
  settings = (linformer_params){rank, sharing, heads};
}

/* --- the definition ----------------------------------------------------------------------------------------------- */

/* x' [rank, width] = tensor^T x of one head, row j of the tensor for the j-th kept token. */
static void mix(const attn_problem *pb, const double *tensor, ref_view x, int64_t ib, int64_t ih, const uint8_t *mask, int64_t width,
                double *out) {
  const int64_t rank = settings.rank;
  int64_t row = 0;
  memset(out, 0, (size_t)(rank * width) * sizeof *out);
  for (int64_t j = 0; j < pb->nk; j++) {
    if (mask && !mask[ib * pb->nk + j]) continue;
    for (int64_t r = 0; r < rank; r++)
      for (int64_t t = 0; t < width; t++) out[r * width + t] += tensor[row * rank + r] * x.p[ib * x.sb + ih * x.sh + j * x.sn + t];
    row++;
  }
}

static void attend(const attn_problem *pb, const double *learned, ref_view q, ref_view k, ref_view v, const uint8_t *mask, float drop,
                   uint64_t key, ref_view out) {
  const int64_t rank = settings.rank, size = pb->positions * rank, tensors = settings.heads == LINFORMER_EACH ? pb->h : 1;
  double *kr = calloc((size_t)(rank * pb->d), sizeof *kr), *vr = calloc((size_t)(rank * pb->dv), sizeof *vr);
  attn_problem one = *pb;
  one.b = one.h = one.hkv = 1, one.nk = rank;
  for (int64_t ib = 0; ib < pb->b; ib++)
    for (int64_t ih = 0; ih < pb->h; ih++) {
      const double *e = learned + (tensors > 1 ? ih : 0) * size, *f = settings.sharing == LINFORMER_SEPARATE ? e + tensors * size : e;
      const attn_drop dr = attn_drop_make(drop, attn_hash(key, (uint64_t)ib, (uint64_t)ih));
      mix(pb, e, k, ib, ih, mask, pb->d, kr);
      mix(pb, f, v, ib, ih, mask, pb->dv, vr);
      for (int64_t i = 0; i < pb->nq; i++) {
        const double *row = q.p + ib * q.sb + ih * q.sh + i * q.sn;
        double weight[64], sum = 0.0, *o = out.p + ib * out.sb + ih * out.sh + i * out.sn;
        assert_true(rank <= 64);
        for (int64_t r = 0; r < rank; r++) {
          double dot = 0.0;
          for (int64_t t = 0; t < pb->d; t++) dot += row[t] * kr[r * pb->d + t];
          sum += weight[r] = exp((double)pb->scale * dot);
        }
        for (int64_t t = 0; t < pb->dv; t++) o[t] = 0.0;
        for (int64_t r = 0; r < rank; r++)
          for (int64_t t = 0; t < pb->dv; t++) o[t] += weight[r] / sum * (double)attn_drop_at(&dr, i, r) * vr[r * pb->dv + t];
      }
    }
  free(kr), free(vr);
}
static void define(train_case *x, int fresh) {
  (void)fresh;
  attend(&x->pb, x->ref[TRAIN_W], train_case_ref(x, TRAIN_Q), train_case_ref(x, TRAIN_K), train_case_ref(x, TRAIN_V), x->mask, x->drop,
         x->key, train_case_ref(x, TRAIN_OUT));
}

static const struct {
  int64_t b, h, n, d, dv, rank;
} shapes[] = {{1, 1, 1, 4, 4, 3}, {1, 2, 33, 8, 8, 2}, {2, 2, 50, 8, 5, 12}, {2, 3, 97, 5, 7, 50}, {1, 2, 530, 8, 8, 17}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* For every shape, sharing and mask, dropout in every other. */
static void each_case(double spread, void (*check)(train_case *)) {
  for (int i = 0; i < SHAPES; i++)
    for (int way = 0; way < 8; way++) {
      set(shapes[i].rank, way & 1, way >> 1 & 1);
      train_case x = train_case_new(method, &settings, train_case_problem(shapes[i].b, shapes[i].h, shapes[i].n, shapes[i].d, shapes[i].dv, 0),
                                    way & 1 ? 0.2f : 0.0f, way >> 2, spread);
      x.reference = define;
      check(&x);
      train_case_free(&x);
    }
}

static void check_forward(train_case *x) { train_case_check_forward(x, 5e-5); }
static void test_forward__every_shape_mask_dropout_and_sharing__as_defined(void **state) {
  (void)state;
  each_case(0.5, check_forward);
}

static void check_backward(train_case *x) { train_case_check_backward(x, x->pb.nk > 100 ? 3 : 12, 5e-5, 1e-5); }
static void test_backward__every_shape_mask_dropout_and_sharing__matches_slopes(void **state) {
  (void)state;
  each_case(0.5, check_backward);
}

static void test_bits__threads_and_the_method_itself__equal(void **state) {
  (void)state;
  for (int way = 0; way < 4; way++) {
    set(50, way & 1, way >> 1);
    train_case_check_bits(method, &settings, train_case_problem(2, 3, 700, 8, 6, 0));
  }
}

static void attend_layer(void *ctx, int l, const attn_problem *pb, ref_view q, ref_view k, ref_view v, const double *learned, float drop,
                         uint64_t key, ref_view out) {
  (void)ctx, (void)l;
  attend(pb, learned, q, k, v, NULL, drop, key, out);
}
static void test_encoder__gradient_of_every_parameter__matches_slopes(void **state) {
  (void)state;
  set(3, LINFORMER_SEPARATE, LINFORMER_EACH);
  encoder_config c = encoder_lra_config(9, 16, 3, 1);
  c.width = 8, c.heads = 2, c.mlp = 12, c.layers = 2;
  train_case_check_encoder(&c, method, &settings, 13, 0.2, attend_layer, NULL);
}

/* --- identities --------------------------------------------------------------------------------------------------- */

static train_case plain(int64_t rank, int64_t sharing, int64_t n) {
  set(rank, sharing, LINFORMER_EACH);
  return train_case_new(method, &settings, train_case_problem(1, 2, n, 8, 8, 0), 0.0f, 0, 1.0f);
}
/* Entry (head, token, mixture) of tensor `which` in both precisions. */
static void put(train_case *x, int which, int64_t ih, int64_t j, int64_t r, float value) {
  const int64_t at = ((which * x->pb.h + ih) * x->pb.positions + j) * settings.rank + r;
  x->t[TRAIN_W][at] = value, x->ref[TRAIN_W][at] = (double)value;
}

/* Outputs are softmax attention of the queries to nk keys and values, those of `keys` in double. */
static void check_softmax(train_case *x, int64_t nk, const train_case *keys) {
  attn_problem pb = x->pb;
  pb.nk = nk;
  train_case_forward(x);
  attention_ref(&pb, train_case_ref(x, TRAIN_Q), train_case_ref(keys, TRAIN_K), train_case_ref(keys, TRAIN_V), NULL, 0.0f, 0,
                train_case_ref(x, TRAIN_OUT));
  for (int64_t i = 0; i < x->size[TRAIN_OUT]; i++) assert_true(fabs((double)x->t[TRAIN_OUT][i] - x->ref[TRAIN_OUT][i]) < 1e-5);
}

/* LI1: with a mixture of its own for every token, attention is softmax attention. */
static void test_identity__one_mixture_for_every_token__softmax(void **state) {
  (void)state;
  enum { N = 40 };
  train_case x = plain(N, LINFORMER_KV, N);
  for (int64_t ih = 0; ih < 2; ih++)
    for (int64_t j = 0; j < N; j++)
      for (int64_t r = 0; r < N; r++) put(&x, 0, ih, j, r, j == r ? 1.0f : 0.0f);
  check_softmax(&x, N, &x);
  train_case_free(&x);
}

/* Mixtures that are means of stretches: softmax attention to the means. */
static void test_means__of_stretches__softmax_over_them(void **state) {
  (void)state;
  enum { N = 48, M = 6, LONG = N / M };
  train_case x = plain(M, LINFORMER_KV, N), small = plain(M, LINFORMER_KV, M);
  for (int64_t ih = 0; ih < 2; ih++)
    for (int64_t j = 0; j < N; j++)
      for (int64_t r = 0; r < M; r++) put(&x, 0, ih, j, r, j / LONG == r ? 1.0f / LONG : 0.0f);
  for (int side = TRAIN_K; side <= TRAIN_V; side++)
    for (int64_t ih = 0; ih < 2; ih++)
      for (int64_t r = 0; r < M; r++)
        for (int64_t t = 0; t < 8; t++) {
          double mean = 0.0;
          for (int64_t j = r * LONG; j < (r + 1) * LONG; j++) mean += train_case_row(&x, side, 0, ih, j)[t] / LONG;
          train_case_row(&small, side, 0, ih, r)[t] = mean;
        }
  check_softmax(&x, M, &small);
  train_case_free(&x), train_case_free(&small);
}

/* D2, as far as it holds: constant values come back where columns of F sum to 1. */
static void test_values__constant_and_columns_that_sum_to_one__constant(void **state) {
  (void)state;
  enum { N = 60, M = 9 };
  train_case x = plain(M, LINFORMER_SEPARATE, N);
  for (int64_t ih = 0; ih < 2; ih++)
    for (int64_t r = 0; r < M; r++) {
      float rest = 1.0f;
      for (int64_t j = 0; j < N - 1; j++) rest -= x.t[TRAIN_W][((2 + ih) * N + j) * M + r];
      put(&x, 1, ih, N - 1, r, rest);
    }
  for (int64_t j = 0; j < x.size[TRAIN_V]; j++) x.t[TRAIN_V][j] = 2.0f;
  train_case_forward(&x);
  for (int64_t i = 0; i < x.size[TRAIN_OUT]; i++) assert_true(fabsf(x.t[TRAIN_OUT][i] - 2.0f) < 1e-5f);
  train_case_free(&x);
}

static void test_rank__one__one_vector_for_every_query(void **state) {
  (void)state;
  train_case x = plain(1, LINFORMER_KV, 30);
  train_case_forward(&x);
  for (int64_t i = 0; i < x.size[TRAIN_OUT]; i++) assert_true(x.t[TRAIN_OUT][i] == x.t[TRAIN_OUT][i % 16]);
  train_case_free(&x);
}

/* --- masks and calls ---------------------------------------------------------------------------------------------- */

/* G1: padding behind the sequence, holding NaN, changes no bit of forward, nor of any gradient. */
static void test_padding__masked_tail_of_nan__same_bits(void **state) {
  (void)state;
  set(20, LINFORMER_SEPARATE, LINFORMER_ONE);
  train_case_check_padding(method, &settings, 150, 1e-5);
}

static void test_mask__nothing_left__zeros(void **state) {
  (void)state;
  set(20, LINFORMER_SEPARATE, LINFORMER_ONE);
  train_case_check_nothing_left(method, &settings);
}

static void test_check__tensors_missing_or_for_shorter_sequences__refused(void **state) {
  (void)state;
  static const float w[2 * 30 * 4];
  set(4, LINFORMER_KV, LINFORMER_EACH);
  attn_problem pb = train_case_problem(1, 2, 30, 8, 8, 0);
  pb.positions = 30;
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_ERR_ARG);
  pb.weights = w, pb.weights_bytes = sizeof w;
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_OK);
  pb.nq = pb.nk = 31;
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_ERR_SHAPE);
  assert_non_null(strstr(attn_last_error(), "30 positions"));
  pb.nq = pb.nk = 20; /* shorter ones are fine */
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_OK);
  settings.sharing = LINFORMER_SEPARATE;
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_ERR_SHAPE);
  settings = (linformer_params){0, LINFORMER_KV, LINFORMER_EACH};
  assert_int_equal(attn_check(method, &pb, &settings), ATTN_ERR_PARAM);
  assert_non_null(strstr(attn_last_error(), "rank"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward__every_shape_mask_dropout_and_sharing__as_defined),
      cmocka_unit_test(test_backward__every_shape_mask_dropout_and_sharing__matches_slopes),
      cmocka_unit_test(test_bits__threads_and_the_method_itself__equal),
      cmocka_unit_test(test_encoder__gradient_of_every_parameter__matches_slopes),
      cmocka_unit_test(test_identity__one_mixture_for_every_token__softmax),
      cmocka_unit_test(test_means__of_stretches__softmax_over_them),
      cmocka_unit_test(test_values__constant_and_columns_that_sum_to_one__constant),
      cmocka_unit_test(test_rank__one__one_vector_for_every_query),
      cmocka_unit_test(test_padding__masked_tail_of_nan__same_bits),
      cmocka_unit_test(test_mask__nothing_left__zeros),
      cmocka_unit_test(test_check__tensors_missing_or_for_shorter_sequences__refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
