/* nystromformer.c - attention through landmarks: three small softmax matrices instead of one large one.
 *
 * Idea    Landmarks are means of consecutive tokens. F = softmax(Q Kbar^T), A = softmax(Qbar Kbar^T), B = softmax(Qbar K^T);
 *         out = F A^+ (B V) + convolution of V along the sequence, one learned kernel per head. A^+ by an iteration of order
 *         three that needs products only: Z <- Z (13 I - T (15 I - T (7 I - T))) / 4, T = A Z, from Z = A^T / kappa.
 * Source  Xiong et al. 2021 (arXiv:2102.03902). Segments of uneven length: the rule of its T2T-ViT form.
 * Cost    8 n m d + 48 m^3 + 4 m^2 d + 2 n d conv flops and 2 n m exponentials per head; O(n) memory without a copy of K
 *         or V: keys are packed by blocks, F is never stored beyond a block of rows.
 * Differs from the authors' code, where it errs or depends on its surroundings:
 *         - kappa is a matrix's own largest column sum; theirs is one maximum over batch and heads (kappa=global), so that
 *           a sequence's result depends on its neighbours in the batch.
 *         - a mask is resolved first: segments are cut over the kept tokens. Theirs averages zeros for padding and lets
 *           landmarks of padding take part.
 *         - any length; theirs needs a multiple of the landmarks. With no more tokens than landmarks both are softmax attention.
 * Limits  No causal form: means mix future tokens. Weights may be negative, rows sum to 1 only as far as Z has converged.
 * Threads Summaries of stretches of keys and the inverses are tasks of one loop; stretches are merged in order. */
#include "baselines/nystromformer.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/core/finite.h"
#include "kernels/core/softmax2.h"
#include "kernels/core/status.h"


typedef struct nystrom_plan {
  attn_problem pb;
  nystrom_params par;
  const attn_micro *mk;
  int built;
  attn_view k, v;
  int64_t most;   /* landmarks at most */
  segment_tokens kept;
  float *kt;      /* [b, h] panels of Kbar, scaled */
  float *taps;    /* [h, conv + 2 NYSTROM_CONV_ROWS] */
} nystrom_plan;

static int64_t taps_floats(const nystrom_params *p) { return p->conv ? p->conv + 2 * NYSTROM_CONV_ROWS : 0; }
static int64_t kt_floats(const nystrom_plan *pl) { return attn_padded(pl->mk, pl->most) * pl->pb.d; }

static nystrom_plan *plan_place(attn_layout *at, const attn_problem *pb, const nystrom_params *p) {
  nystrom_plan here = {.pb = *pb, .par = *p, .mk = attn_micro_get(), .most = nystrom_most(p, pb->nk)};
  nystrom_plan *pl = attn_place(at, sizeof *pl);
  segment_tokens_place(&here.kept, at, pb->b, pb->nk);
  here.kt = attn_place_floats(at, pb->b * pb->h, kt_floats(&here));
  here.taps = attn_place_floats(at, pb->h, taps_floats(p));
  if (pl) *pl = here;
  return pl;
}

/* What forward keeps for all heads, and for each thread. */
typedef struct nystrom_scratch {
  float *qbar, *qs, *a, *z, *u, *parts, *kappa; /* [b, h] each: [m, d] twice, [m, m] twice, [m, dv], stretches, 1 */
} nystrom_scratch;
static void scratch_place(nystrom_scratch *sc, attn_layout *at, const attn_problem *pb, const nystrom_params *p) {
  const int64_t heads = pb->b * pb->h, m = nystrom_most(p, pb->nk);
  float **rows[] = {&sc->qbar, &sc->qs, &sc->a, &sc->z, &sc->u};
  const int64_t width[] = {pb->d, pb->d, m, m, pb->dv};
  for (int i = 0; i < 5; i++) *rows[i] = attn_place_floats(at, heads, m * width[i]);
  sc->parts = attn_place_floats(at, heads * segment_chunks(pb->nk), segment_part_floats(m, pb->dv));
  sc->kappa = attn_place_floats(at, heads, 1);
}

static attn_status nystrom_check(const attn_problem *pb, const void *params) {
  (void)pb;
  const nystrom_params *p = params;
  ATTN_FAIL_IF(p->conv > 0 && p->conv % 2 == 0, ATTN_ERR_PARAM, "nystromformer.conv = %lld, allowed 0 and odd numbers",
               (long long)p->conv);
  return ATTN_OK;
}

static attn_status nystrom_sizes(const attn_problem *pb, const void *params, attn_mem *need) {
  attn_layout plan = {0}, shared = {0}, thread = {0};
  nystrom_scratch sc;
  nystrom_work w;
  (void)plan_place(&plan, pb, params);
  scratch_place(&sc, &shared, pb, params);
  nystrom_work_place(&w, &thread, pb, params);
  need->plan = plan.used;
  need->scratch = attn_add(shared.used, attn_mul((size_t)pb->threads, thread.used));
  return ATTN_OK;
}

static attn_status nystrom_prepare(void *plan, const attn_problem *pb, const void *params) {
  ATTN_FAIL_IF(!plan || (uintptr_t)plan % ATTN_ALIGN, ATTN_ERR_ARG, "nystromformer: plan is null or not 64-byte aligned");
  attn_layout at = {.p = plan};
  nystrom_plan *pl = plan_place(&at, pb, params);
  const int64_t conv = pl->par.conv;
  for (int64_t ih = 0; ih < pb->h && conv; ih++)
    nystrom_taps(pb->weights + ih * conv, conv, 0, pl->taps + ih * taps_floats(&pl->par));
  return ATTN_OK;
}

/* Rows of a tensor of head i of [b, h]; only the kept ones when the mask has holes. */
static segment_rows rows_of(const nystrom_plan *pl, attn_view x, int64_t i) {
  return segment_tokens_rows(&pl->kept, x, pl->pb.h, pl->pb.nk, i);
}

static attn_status nystrom_build(void *plan, attn_view k, attn_view v, const uint8_t *kmask, void *scratch) {
  nystrom_plan *pl = plan;
  ATTN_FAIL_IF(!pl, ATTN_ERR_ARG, "nystromformer: build without plan");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nk > 0 && (k.sn < pb->d || v.sn < pb->dv), ATTN_ERR_SHAPE,
               "nystromformer: key stride %td or value stride %td below the widths %lld, %lld", k.sn, v.sn, (long long)pb->d,
               (long long)pb->dv);
  segment_tokens_read(&pl->kept, pb->b, pb->nk, kmask);
  pl->k = k, pl->v = v, pl->built = 0;
  const float factor = (float)(pb->scale * LOG2E);
  const int64_t panels = attn_panels(pl->mk, pl->most), w = pl->mk->panel;
  int wild = 0;
#pragma omp parallel for num_threads(pb->threads) schedule(static) reduction(| : wild)
  for (int64_t task = 0; task < pb->b * pb->h * panels; task++) {
    const int64_t i = task / panels, kept = pl->kept.count[i / pb->h], c0 = task % panels * w;
    int exact;
    const int64_t m = nystrom_landmarks(&pl->par, kept, &exact), c1 = c0 + w < m ? c0 + w : m;
    float *kbar = (float *)scratch + i * pl->most * pb->d;
    if (c1 <= c0) continue;
    segment_means(pl->mk, rows_of(pl, k, i), pb->d, kept, m, c0, c1, kbar);
    wild |= !attn_all_finite((c1 - c0) * pb->d, kbar + c0 * pb->d);
    attn_pack_transposed(pl->mk, c1 - c0, pb->d, kbar + c0 * pb->d, pb->d, NULL, factor, pl->kt + i * kt_floats(pl) + c0 * pb->d);
  }
  ATTN_FAIL_IF(wild, ATTN_ERR_NUMERIC, "nystromformer: a key is NaN or infinite, or the mean of some is");
  pl->built = 1;
  return ATTN_OK;
}

/* One call of forward: what its loops share. */
typedef struct nystrom_call {
  const nystrom_plan *pl;
  attn_view q;
  attn_viewm out;
  nystrom_scratch sc;
  attn_stats *st;
} nystrom_call;

static int64_t head_landmarks(const nystrom_plan *pl, int64_t i, int *exact) {
  return nystrom_landmarks(&pl->par, pl->kept.count[i / pl->pb.h], exact);
}

/* Landmarks [c0, c1) of the queries of head i; 1 when they are finite. */
static int query_landmarks(const nystrom_call *c, int64_t i, int64_t part, int64_t parts) {
  const nystrom_plan *pl = c->pl;
  const int64_t d = pl->pb.d, at = i * pl->most * d;
  const float factor = (float)(pl->pb.scale * LOG2E);
  int exact;
  const int64_t m = head_landmarks(pl, i, &exact), c0 = m * part / parts, c1 = m * (part + 1) / parts;
  if (exact) return 1;
  segment_means(pl->mk, rows_of(pl, c->q, i), d, pl->kept.count[i / pl->pb.h], m, c0, c1, c->sc.qbar + at);
  for (int64_t t = c0 * d; t < c1 * d; t++) c->sc.qs[at + t] = c->sc.qbar[at + t] * factor;
  return attn_all_finite((c1 - c0) * d, c->sc.qbar + at + c0 * d);
}

static void scores(const nystrom_call *c, int64_t i, nystrom_work *w) {
  const nystrom_plan *pl = c->pl;
  int exact;
  int64_t column;
  const int64_t m = head_landmarks(pl, i, &exact);
  c->sc.kappa[i] = 0.0f;
  if (!exact && m > 0)
    c->sc.kappa[i] = nystrom_scores(pl->mk, m, pl->pb.d, c->sc.qbar + i * pl->most * pl->pb.d, pl->kt + i * kt_floats(pl),
                                    c->sc.a + i * pl->most * pl->most, w, &column);
}

static void invert(const nystrom_call *c, int64_t i, float kappa, nystrom_work *w) {
  const nystrom_plan *pl = c->pl;
  const int64_t square = pl->most * pl->most;
  int exact;
  const int64_t m = head_landmarks(pl, i, &exact);
  if (!exact && m > 0) nystrom_pinv(pl->mk, m, pl->par.iterations, c->sc.a + i * square, kappa, c->sc.z + i * square, 0, w);
}

static float *part_of(const nystrom_call *c, int64_t i, int64_t chunk, int64_t m) {
  const int64_t chunks = segment_chunks(c->pl->pb.nk), most = segment_part_floats(c->pl->most, c->pl->pb.dv);
  return c->sc.parts + i * chunks * most + chunk * segment_part_floats(m, c->pl->pb.dv);
}

static void summarise(const nystrom_call *c, int64_t i, int64_t chunk, nystrom_work *w) {
  const nystrom_plan *pl = c->pl;
  int exact;
  const int64_t kept = pl->kept.count[i / pl->pb.h], m = head_landmarks(pl, i, &exact), j0 = chunk * SEGMENT_CHUNK;
  if (exact || j0 >= kept) return;
  segment_summarise(pl->mk, m, pl->pb.d, pl->pb.dv, c->sc.qs + i * pl->most * pl->pb.d, rows_of(pl, pl->k, i),
                    rows_of(pl, pl->v, i), 0.0f, j0, kept - j0 < SEGMENT_CHUNK ? kept : j0 + SEGMENT_CHUNK,
                    part_of(c, i, chunk, m), &w->segment);
}

/* u = Z (B V), or the values themselves. */
static void combine(const nystrom_call *c, int64_t i) {
  const nystrom_plan *pl = c->pl;
  const int64_t dv = pl->pb.dv, kept = pl->kept.count[i / pl->pb.h];
  int exact;
  const int64_t m = head_landmarks(pl, i, &exact);
  float *u = c->sc.u + i * pl->most * dv;
  if (exact) {
    const segment_rows v = rows_of(pl, pl->v, i);
    for (int64_t j = 0; j < m; j++) memcpy(u + j * dv, segment_row(&v, j), (size_t)dv * sizeof(float));
    return;
  }
  float *sum = part_of(c, i, 0, m) + m * 17; /* merged in place of the first stretch */
  segment_merge(m, dv, segment_chunks(kept), part_of(c, i, 0, m), u, NULL);
  memcpy(sum, u, (size_t)(m * dv) * sizeof(float));
  pl->mk->gemm(m, dv, m, c->sc.z + i * pl->most * pl->most, m, 1, sum, dv, pl->mk->panel, u, dv, 0);
}

static void answer(const nystrom_call *c, int64_t i, int64_t i0, nystrom_work *w) {
  const nystrom_plan *pl = c->pl;
  const attn_problem *pb = &pl->pb;
  const int64_t ib = i / pb->h, ih = i % pb->h, i1 = pb->nq - i0 < NYSTROM_QUERIES ? pb->nq : i0 + NYSTROM_QUERIES;
  const float *q = c->q.p + ib * c->q.sb + ih * c->q.sh, *v = pl->v.p + ib * pl->v.sb + ih * pl->v.sh;
  float *out = c->out.p + ib * c->out.sb + ih * c->out.sh, lse2[NYSTROM_QUERIES];
  int exact;
  const int64_t m = head_landmarks(pl, i, &exact);
  if (m > 0)
    nystrom_answer(pl->mk, m, pb->d, pb->dv, i1 - i0, q + i0 * c->q.sn, c->q.sn, pl->kt + i * kt_floats(pl),
                   c->sc.u + i * pl->most * pb->dv, out + i0 * c->out.sn, c->out.sn, lse2, w);
  for (int64_t r = i0; r < i1; r++) {
    if (!m) memset(out + r * c->out.sn, 0, (size_t)pb->dv * sizeof(float));
    if (c->st && c->st->lse) c->st->lse[i * pb->nq + r] = m ? (float)((double)lse2[r - i0] * LN2) : -INFINITY;
  }
  if (pl->par.conv)
    nystrom_conv(pl->mk, pl->taps + ih * taps_floats(&pl->par), pl->par.conv, pb->nk, pb->dv, v, pl->v.sn,
                 segment_tokens_keep(&pl->kept, pb->nk, ib), i0, i1, out, c->out.sn, w);
}

static void tell(const nystrom_call *c) {
  const nystrom_plan *pl = c->pl;
  int all_exact = 1;
  c->st->pairs = 0;
  for (int64_t i = 0; i < pl->pb.b * pl->pb.h; i++) {
    int exact;
    const int64_t m = head_landmarks(pl, i, &exact);
    c->st->pairs += (uint64_t)(m * (pl->pb.nq + (exact ? 0 : m + pl->kept.count[i / pl->pb.h])));
    all_exact &= exact;
  }
  if (all_exact) c->st->path = "dense";
}

static attn_status nystrom_forward(const void *plan, const void *params, attn_view q, attn_viewm out, void *scratch,
                                   attn_stats *st) {
  (void)params;
  const nystrom_plan *pl = plan;
  ATTN_FAIL_IF(!pl || !pl->built, ATTN_ERR_ARG, "nystromformer: forward before build");
  ATTN_FAIL_IF(!scratch || (uintptr_t)scratch % ATTN_ALIGN, ATTN_ERR_ARG,
               "nystromformer: scratch is null or not 64-byte aligned");
  const attn_problem *pb = &pl->pb;
  ATTN_FAIL_IF(pb->nq > 0 && (q.sn < pb->d || out.sn < pb->dv), ATTN_ERR_SHAPE,
               "nystromformer: query stride %td or output stride %td below the widths %lld, %lld", q.sn, out.sn,
               (long long)pb->d, (long long)pb->dv);
  enum { PARTS = 4 };
  nystrom_call c = {.pl = pl, .q = q, .out = out, .st = st};
  attn_layout shared = {.p = scratch};
  scratch_place(&c.sc, &shared, pb, &pl->par);
  const int64_t heads = pb->b * pb->h, chunks = segment_chunks(pb->nk), blocks = (pb->nq + NYSTROM_QUERIES - 1) / NYSTROM_QUERIES;
  int wild = 0;
  float most = 0.0f;
#pragma omp parallel num_threads(pb->threads)
  {
    attn_layout own = {0};
    nystrom_work w;
    nystrom_work_place(&w, &own, pb, &pl->par);
    own = (attn_layout){.p = (char *)scratch + shared.used + (size_t)omp_get_thread_num() * own.used};
    nystrom_work_place(&w, &own, pb, &pl->par);
#pragma omp for schedule(static) reduction(| : wild)
    for (int64_t task = 0; task < heads * PARTS; task++) wild |= !query_landmarks(&c, task / PARTS, task % PARTS, PARTS);
    if (!wild) {
#pragma omp for schedule(static) reduction(max : most)
      for (int64_t i = 0; i < heads; i++) {
        scores(&c, i, &w);
        most = fmaxf(most, c.sc.kappa[i]);
      }
      /* Inverses first: each is longer than the summary of a stretch. */
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < heads * (1 + chunks); task++) {
        const int64_t i = task % heads;
        if (task < heads) invert(&c, i, pl->par.kappa == NYSTROM_KAPPA_GLOBAL ? most : c.sc.kappa[i], &w);
        else summarise(&c, i, task / heads - 1, &w);
      }
#pragma omp for schedule(static)
      for (int64_t i = 0; i < heads; i++) combine(&c, i);
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < heads * blocks; task++) answer(&c, task / blocks, task % blocks * NYSTROM_QUERIES, &w);
    }
  }
  ATTN_FAIL_IF(wild, ATTN_ERR_NUMERIC, "nystromformer: a query is NaN or infinite, or the mean of some is");
  if (st) tell(&c);
  return ATTN_OK;
}

static void nystrom_release(void *plan) { (void)plan; }

static int nystrom_learned(const attn_problem *pb, const void *params, attn_tensor out[ATTN_MAX_LEARNED]) {
  const nystrom_params *p = params;
  if (!p->conv) return 0;
  out[0] = (attn_tensor){.name = "conv", .rank = 2, .shape = {pb->h, p->conv}, .sd = 0.02f};
  return 1;
}

static const char *const kappas[] = {"matrix", "global", NULL}, *const shorts[] = {"softmax", "pinv", NULL};
#define AT(field) .offset = offsetof(nystrom_params, field)
static const attn_param nystrom_table[] = {
    {.key = "landmarks", .doc = "means of consecutive tokens that stand for all", .type = ATTN_P_INT, AT(landmarks), .dflt = 64, .min = 1, .max = 4096},
    {.key = "iterations", .doc = "steps towards the pseudo-inverse; above 8 rounding wins", .type = ATTN_P_INT, AT(iterations), .dflt = 6, .min = 0, .max = 32},
    {.key = "kappa", .doc = "the iteration starts from A^T / kappa: largest column sum of the matrix, or of all heads and batch entries (the authors' code)", .type = ATTN_P_CHOICE, AT(kappa), .choices = kappas},
    {.key = "conv", .doc = "taps of the learned convolution of V added to the output, odd; 0: none, and nothing is learned", .type = ATTN_P_INT, AT(conv), .dflt = 35, .min = 0, .max = 255},
    {.key = "short", .doc = "with no more tokens than landmarks: softmax attention, or the pseudo-inverse all the same", .type = ATTN_P_CHOICE, AT(shorter), .choices = shorts},
    {.key = NULL}};

const attn_method attn_method_nystromformer = {
    .name = "nystromformer",
    .version = "1",
    .cite = "arXiv:2102.03902",
    .doc = "softmax attention through landmarks (segment means) and an iterated pseudo-inverse, plus a learned convolution",
    .caps = ATTN_CAP_MASK | ATTN_CAP_NEEDS_TRAINING,
    .params_size = sizeof(nystrom_params),
    .params = nystrom_table,
    .check = nystrom_check,
    .sizes = nystrom_sizes,
    .prepare = nystrom_prepare,
    .build = nystrom_build,
    .forward = nystrom_forward,
    .release = nystrom_release,
    .training = &attn_training_nystromformer,
    .learned = nystrom_learned,
};
