#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/head_cache.h"
#include "kernels/cpu/shares.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

// Any number of tokens: a thread takes a run of queries through all steps.
template <class Cache>
class RunAttention {
 public:
  RunAttention(const CpuKernels& kernels, MatrixView q, const KvLayer& kv, int64_t first_position, MatrixView out,
               int n_threads)
      : kernels_(kernels), cache_(kernels, kv), q_(q), kv_(kv), first_position_(first_position), out_(out) {
    heads_per_kv_ = q.n_cols / kv.head_dim / kv.n_kv_heads;
    // Several heads of one token where there are some, several tokens of one head otherwise: they share the reading of
    // keys and values. Smaller runs only where a thread would have none.
    heads_at_once_ = std::min(kQueriesAtOnce, heads_per_kv_);
    tokens_at_once_ = heads_per_kv_ == 1 ? std::min(kQueriesAtOnce, q.n_rows) : 1;
    while (n_runs() < n_threads && heads_at_once_ > 1) heads_at_once_ = (heads_at_once_ + 1) / 2;
  }

  int64_t n_runs() const { return kv_.n_kv_heads * head_parts() * token_parts(); }

  // Later tokens first: they see more positions, and short work last lets the threads finish together.
  void attend(int64_t i, const ScoreRows& scores) const {
    const int64_t token = (token_parts() - 1 - i % token_parts()) * tokens_at_once_;
    const int64_t head_part = i / token_parts() % head_parts(), kv_head = i / token_parts() / head_parts();
    const int64_t n_tokens = std::min(tokens_at_once_, q_.n_rows - token);
    const int64_t head = head_part * heads_at_once_, n_heads = std::min(heads_at_once_, heads_per_kv_ - head);
    const int64_t at = (kv_head * heads_per_kv_ + head) * kv_.head_dim;
    const QueryRun run = {.kv_head = kv_head,
                          .q = q_.row(token) + at,
                          .out = out_.row(token) + at,
                          .n = n_tokens * n_heads,
                          .stride = n_tokens > 1 ? q_.n_cols : kv_.head_dim,
                          .n_seen = first_position_ + token + 1,
                          .tokens = n_tokens > 1};
    cache_.begin(run);
    cache_.score(run, 0, run.longest(), scores);
    float inverse[kQueriesAtOnce];
    const float scale = 1.0f / std::sqrt(float(kv_.head_dim));
    for (int64_t j = 0; j < run.n; ++j) {
      inverse[j] = kernels_.softmax(scores.row(j), run.length(j), scale);
      cache_.weigh(run, j, scores.row(j), run.length(j));
    }
    cache_.add_values(run, scores, inverse, 0, cache_.n_parts());
    for (int64_t j = 0; j < run.n; ++j) cache_.finish(run.out + j * run.stride, inverse[j]);
  }

 private:
  int64_t head_parts() const { return (heads_per_kv_ + heads_at_once_ - 1) / heads_at_once_; }
  int64_t token_parts() const { return (q_.n_rows + tokens_at_once_ - 1) / tokens_at_once_; }

  const CpuKernels& kernels_;
  const Cache cache_;
  const MatrixView q_;
  const KvLayer& kv_;
  const int64_t first_position_;
  const MatrixView out_;
  int64_t heads_per_kv_ = 1;
  int64_t heads_at_once_ = 1;
  int64_t tokens_at_once_ = 1;
};

// One token that sees many positions: all threads share each step's work evenly, whatever the number of heads. Scores
// are divided by positions, values by columns, and no sum is divided.
template <class Cache>
class LongAttention {
 public:
  LongAttention(const CpuKernels& kernels, CpuStream& stream, MatrixView q, const KvLayer& kv, int64_t n_positions,
                MatrixView out)
      : kernels_(kernels),
        cache_(kernels, kv),
        stream_(stream),
        q_(q),
        out_(out),
        n_kv_heads_(kv.n_kv_heads),
        head_dim_(kv.head_dim),
        heads_per_kv_(q.n_cols / kv.head_dim / kv.n_kv_heads),
        parts_per_kv_((heads_per_kv_ + kQueriesAtOnce - 1) / kQueriesAtOnce),
        n_positions_(n_positions) {}

  void run() const {
    if constexpr (Cache::kFinishes) {
      for (int64_t i = 0; i < n_kv_heads_ * parts_per_kv_; ++i) cache_.begin(queries(i));
    }
    const int64_t n_chunks = (n_positions_ + Cache::kPositions - 1) / Cache::kPositions;
    for_each_run(n_chunks, [&](const QueryRun& run, int64_t head, int64_t begin, int64_t end) {
      cache_.score(run, begin * Cache::kPositions, std::min(end * Cache::kPositions, n_positions_), scores(head));
    });
    const float scale = 1.0f / std::sqrt(float(head_dim_));
    for_each_head([&](int64_t head) {
      sums()[head] = kernels_.softmax(scores(head).data, n_positions_, scale);
      const int64_t in_kv = head % heads_per_kv_;
      const QueryRun run = queries(head / heads_per_kv_ * parts_per_kv_ + in_kv / kQueriesAtOnce);
      cache_.weigh(run, in_kv % kQueriesAtOnce, scores(head).data, n_positions_);
    });
    for_each_run(cache_.n_parts(), [&](const QueryRun& run, int64_t head, int64_t begin, int64_t end) {
      cache_.add_values(run, scores(head), sums() + head, begin, end);
    });
    if constexpr (Cache::kFinishes) {
      for_each_head([&](int64_t head) { cache_.finish(out_.row(0) + head * head_dim_, sums()[head]); });
    }
  }

 private:
  ScoreRows scores(int64_t head) const {
    return {stream_.shared_scores() + head * stream_.scores_stride(), stream_.scores_stride()};
  }
  float* sums() const { return stream_.shared_sums(); }

  int64_t first_head(int64_t i) const { return i / parts_per_kv_ * heads_per_kv_ + i % parts_per_kv_ * kQueriesAtOnce; }
  QueryRun queries(int64_t i) const {
    const int64_t head = first_head(i), kv_head = i / parts_per_kv_;
    return {.kv_head = kv_head,
            .q = q_.row(0) + head * head_dim_,
            .out = out_.row(0) + head * head_dim_,
            .n = std::min(kQueriesAtOnce, (kv_head + 1) * heads_per_kv_ - head),
            .stride = head_dim_,
            .n_seen = n_positions_,
            .tokens = false};
  }

  // fn(run, its first head, begin, end) for shares of n_pieces pieces of each run of queries.
  template <class Fn>
  void for_each_run(int64_t n_pieces, const Fn& fn) const {
    parallel_shares(stream_, n_kv_heads_ * parts_per_kv_ * n_pieces, [&](int64_t begin, int64_t end, int) {
      while (begin < end) {
        const int64_t i = begin / n_pieces, first = begin % n_pieces;
        const int64_t last = std::min(n_pieces, first + end - begin);
        fn(queries(i), first_head(i), first, last);
        begin += last - first;
      }
    });
  }
  template <class Fn>
  void for_each_head(const Fn& fn) const {
    parallel_shares(stream_, n_kv_heads_ * heads_per_kv_, [&](int64_t begin, int64_t end, int) {
      for (int64_t head = begin; head < end; ++head) fn(head);
    });
  }

  const CpuKernels& kernels_;
  const Cache cache_;
  CpuStream& stream_;
  const MatrixView q_, out_;
  const int64_t n_kv_heads_, head_dim_, heads_per_kv_, parts_per_kv_, n_positions_;
};
constexpr int64_t kLongPositions = 512;  // from here on LongAttention

template <class Cache>
void attend(const CpuKernels& kernels, CpuStream& stream, MatrixView q, const KvLayer& kv, int64_t first_position,
            MatrixView out) {
  const int64_t n_positions = first_position + q.n_rows;
  if (q.n_rows == 1 && stream.pool().n_threads() > 1 && n_positions >= kLongPositions &&
      q.n_cols <= stream.n_heads() * kv.head_dim) {
    LongAttention<Cache>(kernels, stream, q, kv, n_positions, out).run();
    return;
  }
  const RunAttention<Cache> attention(kernels, q, kv, first_position, out, stream.pool().n_threads());
  // Runs differ in length, so threads take the next one when they are free. Who does what never shows in the result.
  std::atomic<int64_t>& next = stream.next_item();
  next.store(0, std::memory_order_relaxed);
  stream.pool().run([&](int thread) {
    while (true) {
      const int64_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= attention.n_runs()) return;
      attention.attend(i, {stream.scores(thread), stream.scores_stride()});
    }
  });
}

}  // namespace

void CpuBackend::attention(Stream& stream, MatrixView q, const KvLayer& kv, int64_t first_position,
                           MatrixView out) const {
  auto& cpu_stream = static_cast<CpuStream&>(stream);
  if (kv.tiled()) {
    attend<TileCache>(kernels_, cpu_stream, q, kv, first_position, out);
  } else {
    attend<RowCache>(kernels_, cpu_stream, q, kv, first_position, out);
  }
}

}  // namespace bitnet
