#pragma once

#include "memory/buffer.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

// An array that is wanted in the steps first_step to last_step of something that runs again and again.
struct Lifetime {
  size_t size_bytes = 0;
  int32_t first_step = 0;
  int32_t last_step = 0;
};
// Where each array begins in one piece of memory, so that those wanted in the same step lie apart.
struct ArenaPlan {
  size_t size_bytes = 0;
  std::vector<size_t> offsets;
};
// The largest arrays first, each at the lowest place free during its life. Offsets are multiples of `align_bytes`, a
// power of two. The sum of the sizes must be known to fit into size_t.
ArenaPlan plan_arena(std::span<const Lifetime> arrays, size_t align_bytes = 64);

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
