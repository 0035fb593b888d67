// faiss.cpp - k-nearest-neighbour attention by faiss (MIT licence), a plug-in beside our own searches.
//
// Never part of the program: `make plugins` builds it where Debian's libfaiss-dev is installed. One shared object exports
// one method, so this file is compiled twice:
//
//   build/plugins/faiss_ivf.so     faiss_ivf   inverted lists: keys in nlist cells of spherical k-means, nprobe of them are scanned
//   build/plugins/faiss_hnsw.so    faiss_hnsw  (-DFAISS_HNSW) a navigable graph, m links a key, searched with ef candidates
//
//   icebench attn --synth clustered:n=1000,nk=60000,d=784 --plugin build/plugins/faiss_ivf.so --methods topk,faiss_ivf --set 'faiss_ivf.nprobe=1|8|64'
//
// Both indices rank by inner product, one index per key head. A query attends to the k keys found: softmax over their exact
// inner products, sum of their values. `build` trains and fills the indices, so training is in the measured time.
// Threads  faiss gets OpenMP and OpenBLAS threads as the problem says, and the program its own settings back. The graph of
//          faiss_hnsw depends on their timing: its numbers move a little from build to build when there are several.
//          Two threads must not call `forward` of one plan of faiss_hnsw at once: ef is a setting of its index.
// Memory   faiss allocates by itself, in searches too: peak_bytes counts the lists of results, not the indices.
// pairs    faiss_ivf: centroids and scanned keys. faiss_hnsw: what faiss counts, which leaves out the upper levels of the graph.
#include "kernels/attn.h"

#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVFFlat.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

extern "C" {
#include "kernels/core/status.h"
void openblas_set_num_threads(int);
int openblas_get_num_threads(void);
const attn_method *icebench_plugin(uint32_t abi);
}

namespace {

struct params {
  int64_t k;
#ifdef FAISS_HNSW
  int64_t m, build_ef, ef;
#else
  int64_t nlist, nprobe;
#endif
};

struct plan { // lives in memory that the caller owns
  attn_problem pb;
  params p;
  attn_view v;
  std::vector<std::unique_ptr<faiss::Index>> *index; // [b * hkv]
};

// The threads of the problem for as long as it lives.
class thread_guard {
  int omp = omp_get_max_threads(), blas = openblas_get_num_threads();

 public:
  explicit thread_guard(int n) {
    omp_set_num_threads(n);
    openblas_set_num_threads(n);
  }
  ~thread_guard() {
    omp_set_num_threads(omp);
    openblas_set_num_threads(blas);
  }
};

// n rows of width d as faiss wants them: without gaps. Copied only if need be.
const float *dense_rows(const float *p, ptrdiff_t stride, int64_t n, int64_t d, std::vector<float> &copy) {
  if (stride == d) return p;
  copy.resize(static_cast<size_t>(n * d));
  for (int64_t i = 0; i < n; i++) std::copy_n(p + i * stride, d, copy.data() + i * d);
  return copy.data();
}

#ifdef FAISS_HNSW
std::unique_ptr<faiss::Index> make_index(const attn_problem &pb, const params &p, const float *keys) {
  auto x = std::make_unique<faiss::IndexHNSWFlat>(static_cast<int>(pb.d), static_cast<int>(p.m), faiss::METRIC_INNER_PRODUCT);
  x->hnsw.efConstruction = static_cast<int>(p.build_ef);
  x->add(pb.nk, keys);
  return x;
}

// Searches; returns the products evaluated. faiss 1.7.3 takes ef from the index and ignores SearchParametersHNSW.
uint64_t search(faiss::Index &x, const params &p, int64_t n, const float *q, int64_t k, float *score, int64_t *id) {
  dynamic_cast<faiss::IndexHNSW &>(x).hnsw.efSearch = static_cast<int>(std::max(p.ef, k));
  faiss::hnsw_stats.reset();
  x.search(n, q, k, score, id);
  return faiss::hnsw_stats.n3;
}
#else
std::unique_ptr<faiss::Index> make_index(const attn_problem &pb, const params &p, const float *keys) {
  const auto lists = p.nlist ? p.nlist : static_cast<int64_t>(4 * std::sqrt(static_cast<double>(pb.nk)));
  auto centroids = std::make_unique<faiss::IndexFlatIP>(pb.d);
  auto x = std::make_unique<faiss::IndexIVFFlat>(centroids.get(), static_cast<size_t>(pb.d),
                                                 static_cast<size_t>(std::min(lists, pb.nk)), faiss::METRIC_INNER_PRODUCT);
  x->own_fields = true;
  centroids.release();
  x->cp.spherical = true; // as faiss' own factory does for inner products
  x->cp.seed = static_cast<int>(pb.seed & 0x7fffffff);
  x->cp.min_points_per_centroid = 1; // small problems without a warning
  x->train(pb.nk, keys);
  x->add(pb.nk, keys);
  return x;
}

uint64_t search(faiss::Index &x, const params &p, int64_t n, const float *q, int64_t k, float *score, int64_t *id) {
  const auto lists = dynamic_cast<const faiss::IndexIVFFlat &>(x).nlist;
  faiss::SearchParametersIVF how;
  how.nprobe = std::min(static_cast<size_t>(p.nprobe), lists);
  faiss::indexIVF_stats.reset();
  x.search(n, q, k, score, id, &how);
  return faiss::indexIVF_stats.ndis + static_cast<uint64_t>(n) * lists;
}
#endif

int64_t found_at_most(const attn_problem &pb, const params &p) { return std::min(p.k, pb.nk); }

attn_status sizes(const attn_problem *pb, const void *ps, attn_mem *need) {
  const double results = static_cast<double>(pb->b) * static_cast<double>(pb->h) * static_cast<double>(pb->nq) *
                         static_cast<double>(found_at_most(*pb, *static_cast<const params *>(ps)));
  if (results > 0x1p40) return attn_fail(ATTN_ERR_NOMEM, "%.0f keys of all queries, allowed up to 2^40", results);
  need->plan = sizeof(plan);
  need->scratch = static_cast<size_t>(results) * (sizeof(int64_t) + sizeof(float)) + 64;
  return ATTN_OK;
}

attn_status prepare(void *at, const attn_problem *pb, const void *ps) {
  *static_cast<plan *>(at) = plan{*pb, *static_cast<const params *>(ps), {}, nullptr};
  return ATTN_OK;
}

void release(void *at) {
  if (!at) return;
  delete static_cast<plan *>(at)->index;
  static_cast<plan *>(at)->index = nullptr;
}

attn_status build(void *at, attn_view k, attn_view v, const uint8_t *, void *) try {
  plan *pl = static_cast<plan *>(at);
  const attn_problem &pb = pl->pb;
  const thread_guard threads(pb.threads);
  release(at);
  pl->v = v;
  pl->index = new std::vector<std::unique_ptr<faiss::Index>>;
  if (pb.nk == 0) return ATTN_OK;
  for (int64_t i = 0; i < pb.b * pb.hkv; i++) {
    std::vector<float> copy;
    const float *keys = k.p + i / pb.hkv * k.sb + i % pb.hkv * k.sh;
    pl->index->push_back(make_index(pb, pl->p, dense_rows(keys, k.sn, pb.nk, pb.d, copy)));
  }
  return ATTN_OK;
} catch (const std::bad_alloc &) {
  return attn_fail(ATTN_ERR_NOMEM, "faiss is out of memory while building");
} catch (const std::exception &e) {
  return attn_fail(ATTN_ERR_UNSUPPORTED, "faiss, building: %s", e.what());
}

// One query: softmax of the scores found, sum of the values. faiss fills up with -1. Returns how many keys there are.
int64_t attend(const attn_problem &pb, const float *v, ptrdiff_t sn, int64_t k, const int64_t *id, float *score, float *to) {
  int64_t n = 0;
  float most = -INFINITY, sum = 0.0f;
  while (n < k && id[n] >= 0) most = std::max(most, score[n++] * pb.scale);
  for (int64_t j = 0; j < n; j++) sum += score[j] = std::exp(score[j] * pb.scale - most);
  std::fill_n(to, pb.dv, 0.0f);
  for (int64_t j = 0; j < n; j++)
    for (int64_t t = 0; t < pb.dv; t++) to[t] += score[j] / sum * v[id[j] * sn + t];
  return n;
}

void report_keys(attn_stats *st, const attn_problem &pb, int64_t head, int64_t iq, const int64_t *id, int64_t n) {
  int32_t part[64];
  for (int64_t from = 0; from < n; from += 64) {
    const int64_t count = std::min<int64_t>(64, n - from);
    for (int64_t j = 0; j < count; j++) part[j] = static_cast<int32_t>(id[from + j]);
    st->on_keys(st->ctx, head / pb.h, head % pb.h, iq, part, count);
  }
}

attn_status forward(const void *at, const void *ps, attn_view q, attn_viewm out, void *scratch, attn_stats *st) try {
  const plan *pl = static_cast<const plan *>(at);
  const params &p = *static_cast<const params *>(ps);
  const attn_problem &pb = pl->pb;
  const int64_t k = found_at_most(pb, p), group = pb.h / pb.hkv, heads = pb.b * pb.h;
  int64_t *id = static_cast<int64_t *>(scratch); // [b, h, nq, k]
  float *score = reinterpret_cast<float *>(id + heads * pb.nq * k);
  uint64_t pairs = 0;
  if (!pl->index) return attn_fail(ATTN_ERR_ARG, "forward before build");
  const thread_guard threads(pb.threads);
  for (int64_t i = 0; i < heads && k > 0 && pb.nq > 0; i++) { // all searches first: what throws leaves `out` as it was
    std::vector<float> copy;
    const float *queries = dense_rows(q.p + i / pb.h * q.sb + i % pb.h * q.sh, q.sn, pb.nq, pb.d, copy);
    auto &index = *(*pl->index)[static_cast<size_t>(i / pb.h * pb.hkv + i % pb.h / group)];
    pairs += search(index, p, pb.nq, queries, k, score + i * pb.nq * k, id + i * pb.nq * k);
  }
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < heads * pb.nq; row++) {
    const int64_t i = row / pb.nq, ib = i / pb.h, ih = i % pb.h, iq = row % pb.nq;
    const float *values = pl->v.p + ib * pl->v.sb + ih / group * pl->v.sh;
    const int64_t n = attend(pb, values, pl->v.sn, k, id + row * k, score + row * k, out.p + ib * out.sb + ih * out.sh + iq * out.sn);
    if (st && st->on_keys) report_keys(st, pb, i, iq, id + row * k, n);
  }
  if (st) st->pairs = pairs;
  return ATTN_OK;
} catch (const std::bad_alloc &) {
  return attn_fail(ATTN_ERR_NOMEM, "faiss is out of memory while searching");
} catch (const std::exception &e) {
  return attn_fail(ATTN_ERR_UNSUPPORTED, "faiss, searching: %s", e.what());
}

const attn_param table[] = {
    {"k", "keys that a query attends to", ATTN_P_INT, 1, offsetof(params, k), 32, 1, 1 << 20, nullptr},
#ifdef FAISS_HNSW
    {"m", "links of a key", ATTN_P_INT, 0, offsetof(params, m), 32, 4, 512, nullptr},
    {"build_ef", "candidates while building", ATTN_P_INT, 0, offsetof(params, build_ef), 40, 1, 1 << 20, nullptr},
    {"ef", "candidates of a search, at least k", ATTN_P_INT, 1, offsetof(params, ef), 64, 1, 1 << 20, nullptr},
#else
    {"nlist", "cells, at most the number of keys; 0: 4 sqrt(nk)", ATTN_P_INT, 0, offsetof(params, nlist), 0, 0, 1 << 24, nullptr},
    {"nprobe", "cells scanned for a query", ATTN_P_INT, 1, offsetof(params, nprobe), 8, 1, 1 << 24, nullptr},
#endif
    {}};

constexpr uint32_t caps = ATTN_CAP_CROSS | ATTN_CAP_GQA | ATTN_CAP_RANDOMISED | ATTN_CAP_STOCHASTIC | ATTN_CAP_KEYSET;
#ifdef FAISS_HNSW
const char *const name = "faiss_hnsw", *const doc = "k nearest keys by faiss' navigable graph",
                  *const cite = "Malkov and Yashunin 2016 (arXiv:1603.09320); Johnson et al. 2017 (arXiv:1702.08734)";
#else
const char *const name = "faiss_ivf", *const doc = "k nearest keys by faiss' inverted lists", *const cite = "Johnson et al. 2017 (arXiv:1702.08734)";
#endif
const attn_method method = {name,    "1",    cite,  doc,     caps,    sizeof(params), table, nullptr,
                            sizes, prepare, build, forward, release, nullptr, nullptr};

} // namespace

const attn_method *icebench_plugin(uint32_t abi) { return abi == ATTN_ABI ? &method : nullptr; }
