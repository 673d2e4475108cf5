#pragma once

#include "base/buffer.h"

#include <atomic>
#include <cstddef>

namespace bitnet {

// One piece of memory that is handed out from its beginning and taken back as a whole. Thread-safe.
class Arena {
 public:
  static constexpr size_t kAlign_bytes = 256;
  static constexpr size_t padded(size_t size_bytes) {
    return (size_bytes + kAlign_bytes - 1) / kAlign_bytes * kAlign_bytes;
  }

  Arena() = default;
  explicit Arena(Buffer memory) : memory_(std::move(memory)) {}
  size_t size_bytes() const { return memory_.size_bytes(); }

  // Null where there is not enough left.
  std::byte* take(size_t size_bytes) {
    const size_t n = padded(size_bytes), at = used_bytes_.fetch_add(n);
    if (at + n <= memory_.size_bytes()) return memory_.data() + at;
    used_bytes_.fetch_sub(n);
    return nullptr;
  }

 private:
  Buffer memory_;
  std::atomic<size_t> used_bytes_{0};
};

}  // namespace bitnet
