/* attn.h - the one interface behind which every attention of this project lives.
 *
 * An attention is a table of functions, `attn_method`. The harness walks it in this order:
 *
 *     check -> sizes -> prepare -> build -> forward ... forward -> release
 *                                  ^ again for new keys and values
 *                                  (append between calls of forward, for keys and values that arrive one by one)
 *
 * Shapes  b batch, h query heads, hkv key heads (h a multiple of hkv: grouped query), nq queries, nk keys,
 *         d query and key width, dv value width. Tensors are [b, h, n, d]; the last axis is dense, the
 *         others have strides counted in floats.
 * Memory  The caller owns `plan` and `scratch`, both sized by `sizes` and 64-byte aligned. K and V stay the
 *         caller's and must outlive `forward`. `build` may allocate, through core/alloc.h only; `forward`
 *         never does.
 * Threads `forward` runs one parallel loop of problem.threads threads; `plan` is read-only there. The bits
 *         of the result depend neither on the number of threads nor on their timing.
 * Masks   kmask is [b, nk], 1 = keep, NULL = all. Causal: query i sees keys j <= i + (nk - nq). Masked keys
 *         and values may hold NaN. A query that sees no key yields zeros.
 * Errors  Every function returns a status and leaves one line of text for attn_last_error(); none exits.
 */
#ifndef ATTN_H
#define ATTN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of this interface. A plug-in is handed this number and refuses any other. */
#define ATTN_ABI 4u

/** Outcome of every call. The numbers are stored in results: append, never renumber. */
typedef enum attn_status {
  ATTN_OK = 0,
  ATTN_ERR_ARG = 1,         /* call out of order, null or misaligned pointer, scale that is no scale */
  ATTN_ERR_SHAPE = 2,       /* sizes or strides that contradict each other                           */
  ATTN_ERR_PARAM = 3,       /* a parameter of the method outside its range                           */
  ATTN_ERR_UNSUPPORTED = 4, /* legal, but not something this method does                             */
  ATTN_ERR_NOMEM = 5,
  ATTN_ERR_NUMERIC = 6 /* NaN or infinity where the method cannot carry it                      */
} attn_status;

/** What a method promises (attn_method.caps). The tests hold it to each promise. */
enum {
  ATTN_CAP_EXACT = 1u << 0,          /* softmax attention up to rounding                       */
  ATTN_CAP_CAUSAL = 1u << 1,         /*                                                        */
  ATTN_CAP_MASK = 1u << 2,           /* key-padding mask                                       */
  ATTN_CAP_CROSS = 1u << 3,          /* nq != nk                                               */
  ATTN_CAP_GQA = 1u << 4,            /* hkv < h                                                */
  ATTN_CAP_NEEDS_TRAINING = 1u << 5, /* the model must be trained with it; no drop-in          */
  ATTN_CAP_RANDOMISED = 1u << 6,     /* depends on problem.seed                                */
  ATTN_CAP_STOCHASTIC = 1u << 7,     /* each row of weights is >= 0 and sums to 1              */
  ATTN_CAP_ORDER_FREE = 1u << 8,     /* permuting keys and values together changes nothing     */
  ATTN_CAP_CONVERGES = 1u << 9,      /* has a budget parameter; at its maximum it is exact     */
  ATTN_CAP_KEYSET = 1u << 10,        /* attends to a subset of keys and reports it (on_keys)   */
  ATTN_CAP_SHARED_QK = 1u << 11      /* keys are the queries: K is not read                    */
};

/** One attention problem, fixed for the life of a plan. */
typedef struct attn_problem {
  int64_t b, h, hkv, nq, nk, d, dv; /* all >= 1 except nq, nk >= 0          */
  float scale;                      /* multiplies q.k, usually 1/sqrt(d); > 0 */
  int causal;                       /* query i sees keys j <= i + (nk - nq) */
  int threads;                      /* >= 1, chosen by the caller           */
  uint64_t seed;                    /* only for ATTN_CAP_RANDOMISED         */
  const float *weights;             /* learned tensors (attn_method.learned), one after the other; NULL: none */
  size_t weights_bytes;
  int64_t positions;                /* longest sequence that the learned tensors are made for, >= nk; 0 without them */
} attn_problem;

typedef struct attn_view { /* [b, h, n, width], read only; strides in floats, last axis dense */
  const float *p;
  ptrdiff_t sb, sh, sn;
} attn_view;

typedef struct attn_viewm { /* the same, writable */
  float *p;
  ptrdiff_t sb, sh, sn;
} attn_viewm;

typedef struct attn_mem { /* bytes, for 64-byte aligned blocks; scratch already counts all threads */
  size_t plan, scratch;
} attn_mem;

/** Optional outputs of `forward`. Zero the struct, set what is wanted. */
typedef struct attn_stats {
  uint64_t pairs;    /* out: q.k products evaluated                                          */
  uint64_t build_ns; /* out: part of `forward` spent on work that belongs to `build`, or 0   */
  float *lse;        /* out: log-sum-exp of each row's logits over the keys used,
                        [b, h, nq] dense, -inf for a row without keys; NULL = not wanted     */
  float *missing;    /* out: upper bound of the softmax mass of the visible keys not used,
                        [b, h, nq] dense; left alone by methods that have none; NULL likewise */
  const char *path;  /* out: "dense" when the method chose to be dense attention, else NULL  */
  /* Key sets, for ATTN_CAP_KEYSET: called with disjoint parts of the set of keys that row (ib, ih, iq)
     used, ids in [0, nk). May be called from several threads, for different rows. NULL = not wanted. */
  void (*on_keys)(void *ctx, int64_t ib, int64_t ih, int64_t iq, const int32_t *keys, int64_t count);
  void *ctx;
  /* out: bytes of keys, values and index that `forward` reads for this call; each time a tile of queries meets a stretch of them counts
     once, whatever the caches hold. A cost without noise, the same on every machine with the instruction set. 0: the method does not say. */
  uint64_t bytes;
} attn_stats;

typedef enum attn_ptype { ATTN_P_INT, ATTN_P_REAL, ATTN_P_CHOICE } attn_ptype;

/** One tunable of a method. The same row drives YAML, command line, help, documentation and result key.
 *  Storage in the method's parameter struct: ATTN_P_INT int64_t, ATTN_P_REAL double,
 *  ATTN_P_CHOICE int64_t (index into choices). */
typedef struct attn_param {
  const char *key, *doc; /* key == NULL ends a table */
  attn_ptype type;
  int late;      /* 1: read by `forward` only, so a sweep over it reuses the built plan */
  size_t offset; /* into the parameter struct */
  double dflt, min, max;
  const char *const *choices; /* ATTN_P_CHOICE: NULL-terminated; min and max unused */
} attn_param;

enum { ATTN_MAX_LEARNED = 4 };

/** A tensor that an attention learns and adds to every layer of a model (attn_method.learned), row-major. */
typedef struct attn_tensor {
  const char *name; /* in a checkpoint, below "mha.attn.": [a-z0-9_]+, at most 15 characters */
  int rank;         /* 1..3 */
  int64_t shape[3];
  float mean, sd; /* training starts from N(mean, sd^2) */
} attn_tensor;

/** Training part of a method; see attn_method.training. Views are those of `forward` and `build`.
 *  Everything is per call; no plan. `saved` carries what backward needs (bytes from sizes.plan). Learned tensors come in
 *  problem.weights. A randomised method draws by problem.seed, which the trainer changes from step to step; which bucket,
 *  cell or neighbour was chosen counts as constant. sizes never shrinks as n grows, so that memory for the longest
 *  sequence serves all. */
typedef struct attn_training {
  attn_status (*sizes)(const attn_problem *, const void *params, attn_mem *need);
  /** out = attention with dropout `drop` in [0,1) on the weights, keyed by `key`; fills saved. */
  attn_status (*forward)(const attn_problem *, const void *params, attn_view q, attn_view k, attn_view v,
                         const uint8_t *kmask, float drop, uint64_t key, attn_viewm out, void *saved, void *scratch);
  /** dq, dk, dv are overwritten (dk with zeros by ATTN_CAP_SHARED_QK). dweights, laid out as problem.weights, is added to;
   *  NULL when nothing is learned. The dropout mask is recomputed from `key`. */
  attn_status (*backward)(const attn_problem *, const void *params, attn_view q, attn_view k, attn_view v,
                          const uint8_t *kmask, float drop, uint64_t key, attn_view out, attn_view dout, attn_viewm dq,
                          attn_viewm dk, attn_viewm dv, float *dweights, void *saved, void *scratch);
} attn_training;

/** A method. `name` is its id everywhere ([a-z0-9_]+); `version` is bumped whenever its numbers may change. */
typedef struct attn_method {
  const char *name, *version, *cite, *doc;
  uint32_t caps;
  size_t params_size;
  const attn_param *params; /* ends with key == NULL */
  /** Can this method do this? No side effects. Capabilities were compared by attn_check() before. */
  attn_status (*check)(const attn_problem *, const void *params);
  attn_status (*sizes)(const attn_problem *, const void *params, attn_mem *need);
  /** Data-free preparation of `plan` (projections, tables). */
  attn_status (*prepare)(void *plan, const attn_problem *, const void *params);
  /** Takes K, V [b, hkv, nk, d|dv] and the mask; builds whatever index the method uses. May be repeated. */
  attn_status (*build)(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch);
  /** out [b, h, nq, dv] is overwritten and must not overlap q, K or V. On error `out` is untouched.
   *  Concurrent calls on one plan need distinct scratch. st may be NULL. `params` may differ from those
   *  of prepare in late parameters only. */
  attn_status (*forward)(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                         attn_stats *st);
  /** Frees only what prepare and build acquired; the plan memory is the caller's. NULL plan is fine. */
  void (*release)(void *plan);
  const attn_training *training; /* NULL: cannot be trained */
  /** Optional (NULL: only build): decoding with an index that stays. Rows [m, n) of the views given to build are valid now
   *  and join the keys, for every batch entry and head; m is the n of the call before, or after build the end of the last
   *  key that kmask kept in any batch entry. Masked keys before m stay out. nk is the capacity: m <= n <= nk, else
   *  ATTN_ERR_SHAPE. Cheap when amortised over many calls; what forward gives depends on the keys and on where build
   *  ended, not on how the rest was cut into calls. May allocate, as build may; not beside forward. On error the plan is
   *  as it was. */
  attn_status (*append)(void *plan, int64_t n, void *scratch);
  /** Optional (NULL: nothing is learned): the tensors that a layer of problem.h, d, dv, positions has, into out; their
   *  number. May depend on parameters that are not late. */
  int (*learned)(const attn_problem *, const void *params, attn_tensor out[ATTN_MAX_LEARNED]);
} attn_method;

/** Text of the last error of this thread: one line, with the offending value and what is allowed. Never NULL. */
const char *attn_last_error(void);
/** Fixed English name of a status ("out of memory"). */
const char *attn_status_text(attn_status);

/** Checks shapes, scale, threads, parameters against their rows and the problem against the capabilities,
 *  then calls m->check. The one gate in front of every method; harness and tests both pass through it. */
attn_status attn_check(const attn_method *m, const attn_problem *pb, const void *params);
/** Floats of the learned tensors of a layer, all together; 0 when there are none. */
size_t attn_learned_floats(const attn_method *m, const attn_problem *pb, const void *params);
/** Fills a parameter struct (m->params_size bytes) with the defaults of the table. */
void attn_params_default(const attn_method *m, void *params);

#ifdef __cplusplus
}
#endif
#endif
