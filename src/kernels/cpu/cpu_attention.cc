#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_matrix.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/shares.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

// Values are added in chunks of positions that stay in the first-level cache while all queries pass.
constexpr int64_t kValuesAtOnce = 64;

// Queries that share a key/value head: either some heads of one token, or one head of some tokens, so that they lie at
// one stride in q.
struct QueryGroup {
  int64_t token, n_tokens;
  int64_t head, n_heads;
};

class Attention {
 public:
  Attention(const CpuKernels& kernels, MatrixView q, const KvLayer& kv, int64_t first_position, MatrixView out,
            int n_threads)
      : kernels_(kernels), q_(q), kv_(kv), first_position_(first_position), out_(out) {
    heads_per_kv_ = q.n_cols / kv.head_dim / kv.n_kv_heads;
    // Several heads of one token where there are some, several tokens of one head otherwise: they share the reading of
    // keys and values. Smaller groups only where a thread would have none.
    heads_at_once_ = std::min(kQueriesAtOnce, heads_per_kv_);
    tokens_at_once_ = heads_per_kv_ == 1 ? std::min(kQueriesAtOnce, q.n_rows) : 1;
    while (n_groups() < n_threads && heads_at_once_ > 1) heads_at_once_ = (heads_at_once_ + 1) / 2;
  }

  int64_t n_groups() const { return kv_.n_kv_heads * head_parts() * token_parts(); }

  // Later tokens first: they see more positions, and short work last lets the threads finish together.
  QueryGroup group(int64_t i) const {
    const int64_t token = (token_parts() - 1 - i % token_parts()) * tokens_at_once_;
    const int64_t head_part = i / token_parts() % head_parts(), kv_head = i / token_parts() / head_parts();
    const int64_t head = head_part * heads_at_once_;
    return {token, std::min(tokens_at_once_, q_.n_rows - token), kv_head * heads_per_kv_ + head,
            std::min(heads_at_once_, heads_per_kv_ - head)};
  }

  void run(const QueryGroup& group, float* scores, int64_t scores_stride) const {
    const int64_t n = group.n_tokens * group.n_heads, d = kv_.head_dim;
    const int64_t stride = group.n_tokens > 1 ? q_.n_cols : d;  // out has q's shape
    const int64_t row_bytes = kv_.row_bytes();
    const int64_t kv_offset = group.head / heads_per_kv_ * kv_.n_ctx * row_bytes;
    const uint8_t* const keys = static_cast<const uint8_t*>(kv_.k) + kv_offset;
    const uint8_t* const values = static_cast<const uint8_t*>(kv_.v) + kv_offset;
    float* const out = out_.row(group.token) + group.head * d;
    const int64_t shortest = first_position_ + group.token + 1;  // positions that the first query sees
    const auto length = [&](int64_t query) { return shortest + (group.n_tokens > 1 ? query : 0); };

    const size_t type = size_t(weight_type(kv_.dtype));
    kernels_.dot[type]({.rows = keys,
                        .row_bytes = row_bytes,
                        .n_rows = length(n - 1),
                        .x = q_.row(group.token) + group.head * d,
                        .x_stride = stride,
                        .n_x = n,
                        .n_cols = d,
                        .out = scores,
                        .out_stride = scores_stride});
    float inverse[kQueriesAtOnce];
    const float scale = 1.0f / std::sqrt(float(d));
    for (int64_t j = 0; j < n; ++j) inverse[j] = kernels_.softmax(scores + j * scores_stride, length(j), scale);

    WeightedSumArgs sum = {.values = values,
                           .row_bytes = row_bytes,
                           .n_values = 0,
                           .n_cols = d,
                           .weights = scores,
                           .weights_stride = scores_stride,
                           .n_out = n,
                           .out = out,
                           .out_stride = stride};
    for (int64_t j = 0; j < n; ++j) std::fill_n(out + j * stride, d, 0.0f);
    for (int64_t t = 0; t < shortest; t += kValuesAtOnce) {
      sum.values = values + t * row_bytes;
      sum.n_values = std::min(kValuesAtOnce, shortest - t);
      sum.weights = scores + t;
      kernels_.weighted_sum[type](sum);
    }
    for (int64_t j = 1; j < n && group.n_tokens > 1; ++j) {  // what only later tokens see
      sum.values = values + shortest * row_bytes;
      sum.n_values = length(j) - shortest;
      sum.weights = scores + j * scores_stride + shortest;
      sum.n_out = 1;
      sum.out = out + j * stride;
      kernels_.weighted_sum[type](sum);
    }
    for (int64_t j = 0; j < n; ++j) kernels_.scale(out + j * stride, d, inverse[j]);
  }

 private:
  int64_t head_parts() const { return (heads_per_kv_ + heads_at_once_ - 1) / heads_at_once_; }
  int64_t token_parts() const { return (q_.n_rows + tokens_at_once_ - 1) / tokens_at_once_; }

  const CpuKernels& kernels_;
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
class LongAttention {
 public:
  static constexpr int64_t kLeastPositions = 512;

  LongAttention(const CpuKernels& kernels, CpuStream& stream, MatrixView q, const KvLayer& kv, int64_t n_positions,
                MatrixView out)
      : kernels_(kernels), stream_(stream), q_(q), kv_(kv), n_positions_(n_positions), out_(out) {
    heads_per_kv_ = q.n_cols / kv.head_dim / kv.n_kv_heads;
    parts_per_kv_ = (heads_per_kv_ + kQueriesAtOnce - 1) / kQueriesAtOnce;
  }

  void run() const {
    const int64_t n_chunks = (n_positions_ + kPositions - 1) / kPositions;
    for_each_run(n_chunks, [&](const Queries& queries, int64_t begin, int64_t end) {
      score(queries, begin * kPositions, std::min(end * kPositions, n_positions_));
    });
    const float scale = 1.0f / std::sqrt(float(kv_.head_dim));
    parallel_shares(stream_, kv_.n_kv_heads * heads_per_kv_, [&](int64_t begin, int64_t end, int) {
      for (int64_t head = begin; head < end; ++head) {
        stream_.shared_sums()[head] = kernels_.softmax(scores(head), n_positions_, scale);
      }
    });
    const int64_t n_parts = (kv_.head_dim + kColumns - 1) / kColumns;
    for_each_run(n_parts, [&](const Queries& queries, int64_t begin, int64_t end) {
      add_values(queries, begin * kColumns, std::min(end * kColumns, kv_.head_dim));
    });
  }

 private:
  static constexpr int64_t kPositions = 128;
  static constexpr int64_t kColumns = 64;  // whole blocks of every type

  struct Queries {  // that share a key/value head
    int64_t kv_head, head, n;
  };
  float* scores(int64_t head) const { return stream_.shared_scores() + head * stream_.scores_stride(); }

  // fn(queries, begin, end) for shares of n_pieces pieces of each group of queries.
  template <class Fn>
  void for_each_run(int64_t n_pieces, const Fn& fn) const {
    parallel_shares(stream_, kv_.n_kv_heads * parts_per_kv_ * n_pieces, [&](int64_t begin, int64_t end, int) {
      while (begin < end) {
        const int64_t group = begin / n_pieces, first = begin % n_pieces;
        const int64_t last = std::min(n_pieces, first + end - begin);
        const int64_t kv_head = group / parts_per_kv_, part = group % parts_per_kv_ * kQueriesAtOnce;
        fn(Queries{kv_head, kv_head * heads_per_kv_ + part, std::min(kQueriesAtOnce, heads_per_kv_ - part)}, first,
           last);
        begin += last - first;
      }
    });
  }

  void score(const Queries& queries, int64_t begin, int64_t end) const {
    const int64_t d = kv_.head_dim;
    kernels_.dot[type_]({.rows = rows(kv_.k, queries.kv_head) + begin * kv_.row_bytes(),
                         .row_bytes = kv_.row_bytes(),
                         .n_rows = end - begin,
                         .x = q_.row(0) + queries.head * d,
                         .x_stride = d,
                         .n_x = queries.n,
                         .n_cols = d,
                         .out = scores(queries.head) + begin,
                         .out_stride = stream_.scores_stride()});
  }

  // Columns [begin, end) of the queries' outputs.
  void add_values(const Queries& queries, int64_t begin, int64_t end) const {
    const int64_t d = kv_.head_dim, row_bytes = kv_.row_bytes();
    float* const out = out_.row(0) + queries.head * d + begin;
    for (int64_t j = 0; j < queries.n; ++j) std::fill_n(out + j * d, end - begin, 0.0f);
    for (int64_t t = 0; t < n_positions_; t += kValuesAtOnce) {
      kernels_.weighted_sum[type_]({.values = rows(kv_.v, queries.kv_head) + t * row_bytes + begin * row_bytes / d,
                                    .row_bytes = row_bytes,
                                    .n_values = std::min(kValuesAtOnce, n_positions_ - t),
                                    .n_cols = end - begin,
                                    .weights = scores(queries.head) + t,
                                    .weights_stride = stream_.scores_stride(),
                                    .n_out = queries.n,
                                    .out = out,
                                    .out_stride = d});
    }
    for (int64_t j = 0; j < queries.n; ++j) {
      kernels_.scale(out + j * d, end - begin, stream_.shared_sums()[queries.head + j]);
    }
  }

  const uint8_t* rows(const void* cache, int64_t kv_head) const {
    return static_cast<const uint8_t*>(cache) + kv_head * kv_.n_ctx * kv_.row_bytes();
  }

  const CpuKernels& kernels_;
  CpuStream& stream_;
  const MatrixView q_;
  const KvLayer& kv_;
  const int64_t n_positions_;
  const MatrixView out_;
  const size_t type_ = size_t(weight_type(kv_.dtype));
  int64_t heads_per_kv_ = 1;
  int64_t parts_per_kv_ = 1;
};

}  // namespace

void CpuBackend::attention(Stream& stream, MatrixView q, const KvLayer& kv, int64_t first_position,
                           MatrixView out) const {
  auto& cpu_stream = static_cast<CpuStream&>(stream);
  const int64_t n_positions = first_position + q.n_rows;
  if (q.n_rows == 1 && stream.pool().n_threads() > 1 && n_positions >= LongAttention::kLeastPositions &&
      q.n_cols <= cpu_stream.n_heads() * kv.head_dim) {
    LongAttention(kernels_, cpu_stream, q, kv, n_positions, out).run();
    return;
  }
  const Attention attention(kernels_, q, kv, first_position, out, stream.pool().n_threads());
  // Groups differ in length, so threads take the next one when they are free. Who does what never shows in the result.
  std::atomic<int64_t>& next = cpu_stream.next_item();
  next.store(0, std::memory_order_relaxed);
  stream.pool().run([&](int thread) {
    while (true) {
      const int64_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= attention.n_groups()) return;
      attention.run(attention.group(i), cpu_stream.scores(thread), cpu_stream.scores_stride());
    }
  });
}

}  // namespace bitnet
