#pragma once

#include "quant/ternary_codecs.h"

#include <cstdint>
#include <cstring>

namespace bitnet {

// Bytes written in order. So many that they would push each other out of the caches before anybody reads them go around
// these, by way of a buffer that stays in the nearest one: an ordinary store first reads what it overwrites, a third of
// the traffic of such an operation.
class PastCache {
 public:
  static constexpr int64_t kChunkBytes = 1024;  // that may be staged at once: long ones let memory rest meanwhile
  static constexpr int64_t kLargeBytes = int64_t{8} << 20;  // from here on around the caches
  // The operation writes n_bytes in all, of which these may be a part.
  PastCache(const TernaryCodecs& codecs, uint8_t* to, int64_t n_bytes) : codecs_(codecs), to_(to) {
    staged_ = codecs.store_lines != nullptr && n_bytes >= kLargeBytes;
    if (!staged_) return;
    first_ = held_ = int64_t(reinterpret_cast<uintptr_t>(to) % kLineBytes);
    to_ -= held_;
  }
  ~PastCache() {
    if (!staged_) return;
    std::memcpy(to_ + first_, stage_ + first_, size_t(held_ - first_));
    codecs_.fence();
  }
  PastCache(const PastCache&) = delete;
  PastCache& operator=(const PastCache&) = delete;

  // Blocks that may be written before the next add(); those of a few bytes in numbers that fill vectors.
  int64_t blocks_at_once(int64_t block_bytes) const {
    if (!staged_) return INT64_MAX;
    const int64_t n = kChunkBytes / block_bytes;
    return n > kLineBytes ? n - n % kLineBytes : n;
  }
  // Where the next bytes go.
  uint8_t* room() { return staged_ ? stage_ + held_ : to_; }
  // Whether bytes may be written to room_past() around the caches, by whoever can, instead.
  bool is_on_a_line() const { return staged_ && held_ == 0; }
  uint8_t* room_past() { return to_; }
  void add_past(int64_t n_bytes) {
    first_ = held_ = n_bytes % kLineBytes;
    to_ += n_bytes - held_;
  }
  // They have been written.
  void add(int64_t n_bytes) {
    if (!staged_) {
      to_ += n_bytes;
      return;
    }
    held_ += n_bytes;
    const int64_t begin = first_ == 0 ? 0 : kLineBytes, end = held_ - held_ % kLineBytes;
    if (end == 0) return;
    // The line in which the memory begins holds other bytes too.
    if (begin > 0) std::memcpy(to_ + first_, stage_ + first_, size_t(kLineBytes - first_));
    codecs_.store_lines(stage_ + begin, (end - begin) / kLineBytes, to_ + begin);
    std::memcpy(stage_, stage_ + end, size_t{kLineBytes});  // what is left is less than a line
    to_ += end;
    held_ -= end;
    first_ = 0;
  }

 private:
  const TernaryCodecs& codecs_;
  uint8_t* to_;  // staged: of the line that stage_ begins with
  bool staged_ = false;
  int64_t held_ = 0, first_ = 0;  // stage_[first_, held_) has not been written
  alignas(kLineBytes) uint8_t stage_[kChunkBytes + 2 * kLineBytes];
};

}  // namespace bitnet
