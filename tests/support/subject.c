/* subject.c - see subject.h */
#include "tests/support/subject.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/registry/registry.h"

static const struct {
  const char *method, *settings;
} variants[] = {
    {"topk", "k=1"},
    {"topk", "k=3"},
    {"topk", "k=1048576"},
    {"iceformer", "levels=3 build_beam=5 build_retrieve=0.002 retrieve=0.8"},
    {"iceformer", "k=20 levels=3 beam=6"},
    {"iceformer", "k=3 levels=2 comp=1 simp=2 retrieve=0.3"},
    {"iceformer", "k=5 levels=1 comp=3 simp=3 visit=0.2 retrieve=0.5"},
    {"iceformer", "k=7 levels=4 beam=2 build_beam=1 order=l2"},
    {"iceformer", "k=1048576"},
    {"icecells", "dense_below=0 cell=8 visit=2"},
    {"icecells", "dense_below=0 cell=16"},
    {"icecells", "dense_below=0 cell=16 visit=3 mass=1 lloyd=0 far=none"},
    {"icecells", "dense_below=0 cell=8 visit=1000000000 mass=0.9 stop=bound"},
    {"icescan", "dense_below=0"},
    {"icescan", "dense_below=0 visit=2 mass=0.7"},
    {"icescan", "dense_below=0 mass=0.9 stop=bound"},
    {"reformer", "chunk=16"},
    {"reformer", "rounds=3 chunk=7 duplicates=removed leak=yes self=plain logits=dot"},
    {"reformer", "rounds=1 chunk=1 logits=scaled buckets=6"},
    {"nystromformer", "conv=0"},
    {"nystromformer", "conv=0 landmarks=9"},
    {"nystromformer", "conv=0 landmarks=48 short=pinv"},
    {"htransformer1d", "rank=2"},
    {"htransformer1d", "rank=6"},
    {"longformer", "window=3"},
    {"longformer", "window=40 global=70"},
    {"bigbird", "block=8"},
    {"bigbird", "block=16 random=1"},
    {"bigbird", "block=12 random=3 duplicates=counted"},
    {"lara", "landmarks=9"},
    {"lara", "landmarks=5 estimator=mis_bh"},
    {"lara", "landmarks=7 estimator=mis_biased"},
    {"linformer", "rank=16"},
    {"linformer", "rank=5 sharing=separate heads=one"},
    {"performer", "features=37 projection=iid eps=0.000000000001"},
    {"performer", "features=70 kernel=relu eps=0.001"},
    {"performer", "kernel=relu_plain eps=0.001"},
    {"performer", "features=16 scaling=twice redraw=never"},
};
static const struct {
  const char *method, *format;
} budgets[] = {{"topk", "k=%d"}, {"iceformer", "k=%d"}, {"icecells", "visit=%d mass=1"}, {"icescan", "visit=%d mass=1"}};

enum { MOST = 128 };
static subject table[MOST + 1];

static void apply(const attn_method *m, const char *settings, void *params) {
  char text[200], *rest = text;
  (void)snprintf(text, sizeof text, "%s", settings);
  for (char *word; (word = strtok_r(rest, " ", &rest)) != NULL;) {
    ice_err e = {0};
    char *value = strchr(word, '=');
    if (!value) fail_msg("%s: %s is no key=value", m->name, word);
    *value++ = '\0';
    const attn_param *p = registry_param(m, word, &e);
    if (!p || registry_param_set(m, p, value, params, &e) != ICE_OK) fail_msg("%s", e.text);
  }
}

static void add(const attn_method *m, const char *settings) {
  subject *s = table;
  while (s->m) s++;
  assert_true(s < table + MOST);
  s->params = calloc(1, m->params_size + 1);
  assert_non_null(s->params);
  attn_params_default(m, s->params);
  apply(m, settings, s->params);
  (void)snprintf(s->label, sizeof s->label, "%s%s%s", m->name, *settings ? " " : "", settings);
  s->m = m;
}

/* Does it, at its defaults, work with tensors that a model has learned? */
static int learns(const attn_method *m) {
  const attn_problem pb = {.b = 1, .h = 1, .hkv = 1, .nq = 8, .nk = 8, .d = 4, .dv = 4, .scale = 1.0f, .threads = 1, .positions = 8};
  void *params = calloc(1, m->params_size + 1);
  assert_non_null(params);
  attn_params_default(m, params);
  const size_t floats = attn_learned_floats(m, &pb, params);
  free(params);
  return floats > 0;
}

const attn_method *icebench_plugin(uint32_t abi); /* docs/plugin.c */

const subject *subjects(void) {
  if (table[0].m) return table;
  for (const attn_method *const *m = registry_methods; *m; m++) {
    if (!learns(*m)) add(*m, "");
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
      if (!strcmp(variants[i].method, (*m)->name)) add(*m, variants[i].settings);
  }
  const attn_method *example = icebench_plugin(ATTN_ABI);
  add(example, "");
  add(example, "k=3");
  return table;
}

void *subject_params(const subject *s, const char *settings) {
  void *p = malloc(s->m->params_size + 1);
  assert_non_null(p);
  memcpy(p, s->params, s->m->params_size);
  apply(s->m, settings, p);
  return p;
}

int subject_can(const subject *s, attn_shape shape) {
  const uint32_t needed = (shape.causal ? ATTN_CAP_CAUSAL : 0u) | (shape.masked ? ATTN_CAP_MASK : 0u) |
                          (shape.nq != shape.nk ? ATTN_CAP_CROSS : 0u) | (shape.h != shape.hkv ? ATTN_CAP_GQA : 0u);
  return (s->m->caps & needed) == needed;
}

int subject_reports_all(const subject *s) {
  if (!(s->m->caps & ATTN_CAP_KEYSET) || (s->m->caps & ATTN_CAP_SHARED_QK)) return 0;
  if (strstr(s->label, "duplicates=counted")) return 0;
  for (const attn_param *p = s->m->params; p->key; p++)
    if (!strcmp(p->key, "far")) { /* keys far away take part by their means */
      int64_t far;
      memcpy(&far, (const char *)s->params + p->offset, sizeof far);
      return far == 0;
    }
  return 1;
}

int subject_by_score(const subject *s) {
  static const char *const names[] = {"topk", "iceformer", "icecells", "icescan"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(s->m->name, names[i])) return 1;
  return 0;
}

int subject_uses(const subject *s, const attn_case *c, const attn_result *r, int64_t row, int64_t j) {
  const int64_t ib = row / (c->pb.h * c->pb.nq), iq = row % c->pb.nq;
  if (!attn_case_sees(c, ib, iq, j)) return 0;
  if (iq == j && c->pb.nq == c->pb.nk) return 1;
  if (subject_shares_queries(s)) return 0; /* rows of masked positions are zeros */
  return r->keys && !subject_by_score(s) ? r->keys[row * c->pb.nk + j] : 1;
}

int subject_shares_queries(const subject *s) { return !strcmp(s->m->name, "htransformer1d"); }

void *subject_budget(const subject *s, int budget) {
  char settings[64];
  for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++)
    if (!strcmp(budgets[i].method, s->m->name)) {
      (void)snprintf(settings, sizeof settings, budgets[i].format, budget);
      return subject_params(s, settings);
    }
  fail_msg("%s converges: name its budget in tests/support/subject.c", s->m->name);
  return NULL;
}

void subject_run(const subject *s, const void *params, const attn_case *c, int flags, attn_result *r) {
  if (attn_case_run(s->m, params ? params : s->params, c, flags, r) != ATTN_OK)
    fail_msg("%s refused b=%lld h=%lld hkv=%lld nq=%lld nk=%lld d=%lld causal=%d: %s", s->label, (long long)c->pb.b,
             (long long)c->pb.h, (long long)c->pb.hkv, (long long)c->pb.nq, (long long)c->pb.nk, (long long)c->pb.d,
             c->pb.causal, attn_last_error());
}
