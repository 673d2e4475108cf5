#pragma once

#include "memory/source.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <mutex>

namespace bitnet {

// Blocks beyond the small ones, each mapped by itself; some of those given back are kept for the next. Thread-safe.
class DirectBlocks {
 public:
  explicit DirectBlocks(const MemorySource& source) : source_(source) {}
  ~DirectBlocks() { trim(); }
  DirectBlocks(const DirectBlocks&) = delete;
  DirectBlocks& operator=(const DirectBlocks&) = delete;

  // What is mapped for a block: sizes 1/16 of an octave apart, so that blocks of similar size can follow each other.
  // The pages behind the block stay untouched.
  static constexpr size_t mapped_bytes(size_t size_bytes) {
    const size_t step = std::max<size_t>(size_t{1} << (63 - std::countl_zero(uint64_t(size_bytes))) >> 4, 4096);
    return size_bytes > SIZE_MAX - step ? size_bytes : (size_bytes + step - 1) / step * step;
  }

  struct Block {
    std::byte* data = nullptr;
    bool zeroed = false;
  };
  // `fresh`: only pages that nobody has touched will do. Null data where the source has no more.
  Block take(size_t size_bytes, bool huge_pages, bool fresh);
  void release(std::byte* data, size_t size_bytes, bool keep);
  void trim();
  // At most so many bytes are kept.
  void set_limit(uint64_t limit_bytes);

  struct Use {
    uint64_t n_live = 0, live_bytes = 0, mapped_bytes = 0;  // mapped for the live ones
    uint64_t kept_bytes = 0;
  };
  Use use() const;

 private:
  // Stands at the beginning of a kept block.
  struct Kept {
    size_t mapped_bytes;
    Kept *next, *previous;  // of the same size
    Kept *older, *newer;    // of all
  };
  static constexpr size_t kBins = 64 * 16;
  static size_t bin_of(size_t mapped_bytes) {
    const int log = 63 - std::countl_zero(uint64_t(mapped_bytes));
    return size_t(log) * 16 + (mapped_bytes >> (log - 4)) % 16;
  }
  void unlink(Kept* kept);
  void count_live(int n, size_t size_bytes);
  void drop_oldest();

  const MemorySource& source_;
  mutable std::mutex mutex_;
  std::array<Kept*, kBins> bins_{};  // the newest first
  Kept *oldest_ = nullptr, *newest_ = nullptr;
  uint64_t limit_bytes_ = 0;
  Use use_;
};

}  // namespace bitnet
