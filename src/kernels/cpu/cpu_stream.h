#pragma once

#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "memory/buffer.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace bitnet {

// Attention handles this many queries of one key/value head at a time.
constexpr int64_t kQueriesAtOnce = 8;
// Tiles whose unpacked codes stay in a core's second-level cache while all tokens pass.
constexpr int64_t kTilesAtOnce = 2;

// A head's best logits are found for this many inputs at a time.
constexpr int64_t kInputsAtOnce = 16;

// A thread's list of rows or columns at work.
struct SparseLists {
  static constexpr int64_t kAtOnce = 8192;  // candidates that are looked at together
  static constexpr int64_t kCapacity = kAtOnce + kPiecesAhead + 8;
  int64_t n = 0;
  int32_t ids[kCapacity + kPiecesAhead];
  int8_t inputs[kCapacity];  // columns': what they are multiplied with
  int32_t sums[kCapacity];   // rows'
  float outputs[kCapacity];

  // Fills the list (n > 0) up to whole groups of four, whose length it returns, and beyond, with its last piece and
  // input 0.
  int64_t fill_up() {
    const int64_t n_whole = (n + 3) / 4 * 4;
    std::fill(ids + n, ids + n_whole + kPiecesAhead, ids[n - 1]);
    std::fill(inputs + n, inputs + n_whole, int8_t{0});
    return n_whole;
  }
  void drop(int64_t n_done) {
    std::copy(ids + n_done, ids + n, ids);
    std::copy(inputs + n_done, inputs + n, inputs);
    n -= n_done;
  }
  // Fetches those that no earlier piece has fetched.
  void prefetch_first(const uint8_t* pieces, int64_t piece_bytes) const {
    for (int64_t i = 0; i < std::min(n, kPiecesAhead); ++i) {
      const uint8_t* const piece = pieces + ids[i] * piece_bytes;
      for (int64_t at = 0; at < piece_bytes; at += kVectorBytes) __builtin_prefetch(piece + at);
    }
  }
};

// The threads of one session and all memory that its operations need beyond their arguments.
class CpuStream final : public Stream {
 public:
  static Result<std::unique_ptr<Stream>> create(const StreamOptions& options, const CpuKernels& kernels);
  CpuStream(int n_threads, Buffer memory) : pool_(n_threads), memory_(std::move(memory)) {}

  ThreadPool& pool() override { return pool_; }

  // Each [...] is one thread's own.
  int8_t* packed_tokens() const { return memory_.as<int8_t>(); }
  int8_t* packed_inputs() const { return packed_tokens() + packed_inputs_at_; }  // beside codes in packed_tokens()
  uint8_t* codes(int thread) const { return thread_memory(thread); }             // [kTilesAtOnce * 32 * cols]
  float* wide_rows(int thread) const { return reinterpret_cast<float*>(codes(thread)); }  // [kWideRows, cols]
  uint8_t* tile(int thread) const { return thread_memory(thread) + tile_at_; }            // [kBlockBytes * cols / 16]
  int8_t* spread(int thread) const { return reinterpret_cast<int8_t*>(tile(thread)); }    // [whole vectors of cols]
  SparseLists& lists(int thread) const { return *reinterpret_cast<SparseLists*>(thread_memory(thread) + lists_at_); }
  // [rows in whole vectors], of at most `cols` rows.
  int32_t* column_sums(int thread) const { return reinterpret_cast<int32_t*>(codes(thread)); }
  int32_t* sums(int thread) const { return reinterpret_cast<int32_t*>(thread_memory(thread) + sums_at_); }
  float* scores(int thread) const { return reinterpret_cast<float*>(thread_memory(thread) + scores_at_); }
  int64_t scores_stride() const { return scores_stride_; }  // [kQueriesAtOnce, n_ctx rounded up]
  // All threads' together: [n_heads, scores_stride()] and [n_heads].
  float* shared_scores() const { return reinterpret_cast<float*>(memory_.as<uint8_t>() + shared_scores_at_); }
  float* shared_sums() const { return shared_scores() + n_heads_ * scores_stride_; }
  int64_t n_heads() const { return n_heads_; }
  static constexpr int64_t kWideRows = kTilesAtOnce * kTileRows / int64_t{sizeof(float)};

  std::atomic<int64_t>& next_item() { return next_item_; }

  uint64_t weight_bytes_read() const override { return weight_bytes_.load(std::memory_order_relaxed); }
  void count_weight_bytes(int64_t n) { weight_bytes_.fetch_add(uint64_t(n), std::memory_order_relaxed); }

 private:
  uint8_t* thread_memory(int thread) const {
    return memory_.as<uint8_t>() + shared_bytes_ + thread * bytes_per_thread_;
  }

  ThreadPool pool_;
  Buffer memory_;
  int64_t packed_inputs_at_ = 0;
  int64_t shared_bytes_ = 0;
  int64_t bytes_per_thread_ = 0;
  int64_t tile_at_ = 0;
  int64_t lists_at_ = 0;
  int64_t sums_at_ = 0;
  int64_t scores_at_ = 0;
  int64_t scores_stride_ = 0;
  int64_t shared_scores_at_ = 0;
  int64_t n_heads_ = 0;
  alignas(64) std::atomic<int64_t> next_item_{0};
  alignas(64) std::atomic<uint64_t> weight_bytes_{0};
};

}  // namespace bitnet
