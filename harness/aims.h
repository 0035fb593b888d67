/* aims.h - what the kernels are meant to reach, as a table (configs/bench/aims.yaml), and measuring one line of it.
 *
 * An aim compares two pieces of work that are timed round by round beside each other: `of`, a method on tensors, and `over`,
 * another one or sgemm. Kinds, with t for the time of a pass, building included:
 *
 *   rate      (4 h n^2 d / t of) / (2 * 1024^3 / t of sgemm), one sgemm per thread; the causal half is not counted
 *   speedup   t of over / t of of
 *   share     t of of / t of over
 *   exponent  ln(t of of / t of over) / ln(n of of / n of over): 1 is linear
 *   cpu_us    threads * t of of / (h n), in microseconds: what one query costs; there is no `over`
 *
 * `need` holds `of` to a quality, judged as everywhere (quality.h): {recall: 0.98}, {rel_l2_error: 0.1}. */
#ifndef ICE_AIMS_H
#define ICE_AIMS_H

#include "harness/stats.h"
#include "harness/yaml.h"
#include "kernels/attn.h"

typedef enum aim_kind { AIM_RATE, AIM_SPEEDUP, AIM_SHARE, AIM_EXPONENT, AIM_CPU_US, AIM_KINDS } aim_kind;

typedef struct aim_side {
  const char *method, *synth; /* registry id, which may be missing here; "clustered" */
  int64_t h, n, d, seed;
  int causal, threads;
  yaml_node *params; /* mapping, or NULL */
} aim_side;

typedef struct aim {
  const char *id, *text; /* "dense-sgemm-4096-32", one line */
  aim_kind kind;
  aim_side of, over;
  int has_over;
  double least, most;                 /* NAN: no such bound */
  double need_recall, need_error;     /* NAN: none */
} aim;

typedef struct aims {
  yaml_doc *doc;
  aim *list;
  int n, rounds, warmup;
  double max_seconds, limit_seconds, limit_gib;
} aims;

/** Reads the table. ICE_USAGE on any fault but a method that is not registered. */
int aims_read(aims *a, const char *path, ice_err *e);
void aims_free(aims *a);
/** 1 when a document is such a table. */
int aims_is_one(yaml_doc *doc);
const char *aim_kind_name(aim_kind k);

typedef struct aim_result {
  const char *status; /* ok, unsupported (no such method, or it refuses), failed */
  char reason[1024];  /* one line, unless ok */
  stats_interval measured;
  stats_interval ns;  /* a pass of `of` */
  double recall, rel_l2_error;
  int reached;
} aim_result;

/** Measures one aim in this process. Whatever goes wrong is in the result. */
void aim_measure(const aims *a, const aim *one, aim_result *out);
/** Do these numbers reach the aim? NAN never does. */
int aim_reached(const aim *one, double measured, double recall, double rel_l2_error);

#endif
