#pragma once

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"

#include <atomic>
#include <cstdint>
#include <memory>

namespace bitnet {

// Attention handles this many queries of one key/value head at a time.
constexpr int64_t kQueriesAtOnce = 8;
// Tiles whose unpacked codes stay in a core's second-level cache while all tokens pass.
constexpr int64_t kTilesAtOnce = 2;

// A thread's lists for products with some rows or columns, of at most kAtOnce candidates.
struct SparseLists {
  static constexpr int64_t kAtOnce = 2048;
  int32_t ids[kAtOnce + 4 + kPiecesAhead];
  int8_t inputs[kAtOnce + 4];
  int32_t sums[kAtOnce + 4];
  float outputs[kAtOnce];
};
// Products with columns add up this many tokens at once.
constexpr int64_t kColumnTokens = 8;

// The threads of one session and all memory that its operations need beyond their arguments.
class CpuStream final : public Stream {
 public:
  static Result<std::unique_ptr<Stream>> create(const StreamOptions& options, const CpuKernels& kernels);
  CpuStream(int n_threads, Buffer memory) : pool_(n_threads), memory_(std::move(memory)) {}

  ThreadPool& pool() override { return pool_; }

  // Each [...] is one thread's own.
  int8_t* packed_tokens() const { return memory_.as<int8_t>(); }
  uint8_t* codes(int thread) const { return thread_memory(thread); }                      // [kTilesAtOnce * 32 * cols]
  float* wide_rows(int thread) const { return reinterpret_cast<float*>(codes(thread)); }  // [kWideRows, cols]
  uint8_t* tile(int thread) const { return thread_memory(thread) + tile_at_; }            // [kBlockBytes * cols / 16]
  int8_t* spread(int thread) const { return reinterpret_cast<int8_t*>(tile(thread)); }    // [whole vectors of cols]
  SparseLists& lists(int thread) const { return *reinterpret_cast<SparseLists*>(thread_memory(thread) + lists_at_); }
  // [kColumnTokens, rows in whole vectors], each of at most `cols` rows.
  int32_t* column_sums(int thread) const { return reinterpret_cast<int32_t*>(codes(thread)); }
  int32_t* sums(int thread) const { return reinterpret_cast<int32_t*>(thread_memory(thread) + sums_at_); }
  float* scores(int thread) const { return reinterpret_cast<float*>(thread_memory(thread) + scores_at_); }
  int64_t scores_stride() const { return scores_stride_; }  // [kQueriesAtOnce, n_ctx rounded up]
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
  int64_t shared_bytes_ = 0;
  int64_t bytes_per_thread_ = 0;
  int64_t tile_at_ = 0;
  int64_t lists_at_ = 0;
  int64_t sums_at_ = 0;
  int64_t scores_at_ = 0;
  int64_t scores_stride_ = 0;
  alignas(64) std::atomic<int64_t> next_item_{0};
  alignas(64) std::atomic<uint64_t> weight_bytes_{0};
};

}  // namespace bitnet
