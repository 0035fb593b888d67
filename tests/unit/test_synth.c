/* test_synth.c - sources from text, their bits, and what makes them hostile or friendly. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/synth.h"

static void test_parse__full_text__sets_every_field(void **state) {
  (void)state;
  synth_source s;
  ice_err e;
  assert_int_equal(
      synth_parse("clustered:b=2,h=8,hkv=4,n=100,nk=200,d=32,dv=16,causal=1,seed=18446744073709551615", &s, &e),
      ICE_OK);
  assert_int_equal(s.kind, SYNTH_CLUSTERED);
  assert_true(s.b == 2 && s.h == 8 && s.hkv == 4 && s.nq == 100 && s.nk == 200 && s.d == 32 && s.dv == 16 &&
              s.causal == 1);
  assert_true(s.seed == UINT64_MAX);
}

static void test_parse__bare_name__takes_defaults(void **state) {
  (void)state;
  synth_source s;
  assert_int_equal(synth_parse("gauss", &s, NULL), ICE_OK);
  assert_true(s.b == 1 && s.h == 1 && s.hkv == 1 && s.nq == 1024 && s.nk == 1024 && s.d == 64 && s.dv == 64 &&
              !s.causal);
  assert_int_equal(synth_parse("lowrank:n=7,h=3", &s, NULL), ICE_OK);
  assert_true(s.nk == 7 && s.hkv == 3);
}

static void test_parse__bad_text__is_one_line_with_place_and_allowed_values(void **state) {
  (void)state;
  const struct {
    const char *text, *needle;
  } bad[] = {{"", "unknown source ''"},
             {"gaus", "unknown source 'gaus', allowed gauss, clustered, lowrank"},
             {"gauss2:n=3", "unknown source"},
             {"gauss:", "no KEY=VALUE"},
             {"gauss:n", "'n' is no KEY=VALUE"},
             {"gauss:n=", "n = , allowed"},
             {"gauss:n=4,", "no KEY=VALUE"},
             {"gauss:,n=4", "no KEY=VALUE"},
             {"gauss:n=0", "n = 0, allowed whole numbers 1..268435456"},
             {"gauss:n=-1", "n = -1"},
             {"gauss:n=1e3", "n = 1e3"},
             {"gauss:n=99999999999999999999", "n = 99999999999999999999"},
             {"gauss:d=65537", "d = 65537, allowed whole numbers 1..65536"},
             {"gauss:h=3,hkv=2", "hkv = 2, allowed divisors of h = 3"},
             {"gauss:causal=2", "causal = 2, allowed 0, 1"},
             {"gauss:seed=-1", "seed = -1"},
             {"gauss:m=4", "unknown key 'm', allowed b, h"},
             {"gauss:n=4,d=8,n=5", "n is given twice"},
             {"gauss:seed=1,seed=1", "seed is given twice"},
             {"gauss:N=4", "unknown key 'N'"},
             {"gauss:n=268435456,h=65536,d=65536", "elements, allowed up to"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    synth_source s;
    ice_err e = {0};
    assert_int_equal(synth_parse(bad[i].text, &s, &e), ICE_USAGE);
    if (!strstr(e.text, bad[i].needle)) fail_msg("'%s' gave '%s', expected '%s'", bad[i].text, e.text, bad[i].needle);
    assert_null(strchr(e.text, '\n'));
  }
  char *longer = malloc(100001);
  memset(longer, 'a', 100000);
  longer[100000] = '\0';
  assert_int_equal(synth_parse(longer, &(synth_source){0}, NULL), ICE_USAGE);
  free(longer);
}

typedef struct tensors {
  synth_source s;
  float *q, *k, *v;
  size_t nq, nk, nv;
} tensors;

static tensors make(const char *text) {
  tensors t = {0};
  assert_int_equal(synth_parse(text, &t.s, NULL), ICE_OK);
  t.nq = (size_t)(t.s.b * t.s.h * t.s.nq * t.s.d);
  t.nk = (size_t)(t.s.b * t.s.hkv * t.s.nk * t.s.d);
  t.nv = (size_t)(t.s.b * t.s.hkv * t.s.nk * t.s.dv);
  t.q = malloc(t.nq * sizeof(float));
  t.k = malloc(t.nk * sizeof(float));
  t.v = malloc(t.nv * sizeof(float));
  assert_int_equal(synth_fill(&t.s, t.q, t.k, t.v, NULL), ICE_OK);
  for (size_t i = 0; i < t.nq; i++) assert_true(isfinite(t.q[i]));
  for (size_t i = 0; i < t.nk; i++) assert_true(isfinite(t.k[i]));
  for (size_t i = 0; i < t.nv; i++) assert_true(isfinite(t.v[i]));
  return t;
}
static void drop(tensors *t) {
  free(t->q);
  free(t->k);
  free(t->v);
}

static void test_fill__same_seed__same_bits_and_other_seeds_differ(void **state) {
  (void)state;
  const char *kinds[] = {"gauss", "clustered", "lowrank"};
  for (int i = 0; i < 3; i++) {
    char one[64], two[64], wide[64];
    (void)snprintf(one, sizeof one, "%s:h=2,n=65,nk=70,d=9,dv=5,seed=4", kinds[i]);
    (void)snprintf(two, sizeof two, "%s:h=2,n=65,nk=70,d=9,dv=5,seed=5", kinds[i]);
    (void)snprintf(wide, sizeof wide, "%s:h=3,n=65,nk=70,d=9,dv=5,seed=4", kinds[i]);
    tensors a = make(one), b = make(one), c = make(two), w = make(wide);
    assert_memory_equal(a.q, b.q, a.nq * sizeof(float));
    assert_memory_equal(a.k, b.k, a.nk * sizeof(float));
    assert_memory_equal(a.v, b.v, a.nv * sizeof(float));
    assert_memory_not_equal(a.q, c.q, a.nq * sizeof(float));
    assert_memory_not_equal(a.k, c.k, a.nk * sizeof(float));
    assert_memory_not_equal(a.v, c.v, a.nv * sizeof(float));
    assert_memory_equal(a.k, w.k, a.nk * sizeof(float)); /* a head does not depend on its neighbours */
    assert_memory_not_equal(a.q, a.q + a.nq / 2, a.nq / 2 * sizeof(float));
    drop(&a), drop(&b), drop(&c), drop(&w);
  }
}

static int descending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

/* Mean softmax mass on the best k keys, and the mean standard deviation of a row's logits. */
static void concentration(const tensors *t, int64_t k, double *mass, double *spread) {
  double *z = malloc((size_t)t->s.nk * sizeof *z);
  *mass = *spread = 0.0;
  for (int64_t i = 0; i < t->s.nq; i++) {
    double sum = 0.0, best = 0.0, mean = 0.0, square = 0.0;
    for (int64_t j = 0; j < t->s.nk; j++) {
      z[j] = 0.0;
      for (int64_t c = 0; c < t->s.d; c++) z[j] += (double)t->q[i * t->s.d + c] * (double)t->k[j * t->s.d + c];
      z[j] /= sqrt((double)t->s.d);
      mean += z[j] / (double)t->s.nk;
      square += z[j] * z[j] / (double)t->s.nk;
    }
    qsort(z, (size_t)t->s.nk, sizeof *z, descending);
    for (int64_t j = 0; j < t->s.nk; j++) {
      double p = exp(z[j] - z[0]);
      sum += p;
      if (j < k) best += p;
    }
    *mass += best / sum / (double)t->s.nq;
    *spread += sqrt(square - mean * mean) / (double)t->s.nq;
  }
  free(z);
}

static void test_fill__sources__are_as_hostile_or_friendly_as_described(void **state) {
  (void)state;
  double mass, spread;
  tensors g = make("gauss:n=256,nk=2048,d=32,seed=7");
  concentration(&g, 20, &mass, &spread);
  assert_true(mass > 0.05 && mass < 0.2);
  assert_true(fabs(spread - 1.0) < 0.05);
  drop(&g);
  tensors c = make("clustered:n=256,nk=2048,d=32,seed=7");
  concentration(&c, 20, &mass, &spread);
  assert_true(mass > 0.6 && mass < 0.98); /* concentrated, yet not a mere look-up */
  drop(&c);
  tensors l = make("lowrank:n=256,nk=2048,d=32,seed=7");
  concentration(&l, 20, &mass, &spread);
  assert_true(mass < 0.4);
  assert_true(spread > 1.2 && spread < 1.8);
  drop(&l);
}

static void test_fill__gauss__has_zero_mean_and_unit_variance(void **state) {
  (void)state;
  tensors g = make("gauss:b=2,h=2,n=512,d=16,seed=3");
  const float *all[] = {g.q, g.k, g.v};
  for (int t = 0; t < 3; t++) {
    double m = 0.0, s = 0.0;
    for (size_t i = 0; i < g.nq; i++) m += (double)all[t][i], s += (double)all[t][i] * (double)all[t][i];
    m /= (double)g.nq;
    s /= (double)g.nq;
    assert_true(fabs(m) < 5.0 / sqrt((double)g.nq));
    assert_true(fabs(s - 1.0) < 5.0 * sqrt(2.0 / (double)g.nq));
  }
  drop(&g);
}

static void test_fill__causal_clustered__looks_at_topics_already_seen(void **state) {
  (void)state;
  tensors c = make("clustered:n=1024,d=32,seed=2,causal=1");
  /* Late rows: the best visible key is a near match (logit about 14), wherever it lies before. */
  int64_t near = 0, rows = 0;
  for (int64_t i = 0; i < 1024; i += 7, rows++) {
    double best = -1e9;
    for (int64_t j = 0; j <= i; j++) {
      double z = 0.0;
      for (int t = 0; t < 32; t++) z += (double)c.q[i * 32 + t] * (double)c.k[j * 32 + t];
      if (z > best) best = z;
    }
    near += best / sqrt(32.0) > 9.0;
  }
  assert_true(near > rows * 9 / 10);
  drop(&c);
}

static void test_fill__smallest_sizes__work(void **state) {
  (void)state;
  const char *text[] = {"gauss:n=1,d=1", "clustered:n=1,d=1", "lowrank:n=1,d=1", "clustered:n=3,nk=1,d=2,dv=1,causal=1",
                        "lowrank:n=2,d=3,dv=1"};
  for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
    tensors t = make(text[i]);
    drop(&t);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_parse__full_text__sets_every_field),
      cmocka_unit_test(test_parse__bare_name__takes_defaults),
      cmocka_unit_test(test_parse__bad_text__is_one_line_with_place_and_allowed_values),
      cmocka_unit_test(test_fill__same_seed__same_bits_and_other_seeds_differ),
      cmocka_unit_test(test_fill__sources__are_as_hostile_or_friendly_as_described),
      cmocka_unit_test(test_fill__gauss__has_zero_mean_and_unit_variance),
      cmocka_unit_test(test_fill__causal_clustered__looks_at_topics_already_seen),
      cmocka_unit_test(test_fill__smallest_sizes__work),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
