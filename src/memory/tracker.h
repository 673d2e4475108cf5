#pragma once

#include "memory/call_site.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace bitnet {

// How many allocations leave a note of who made them.
enum class Tracking : uint8_t {
  kOff,
  kSampled,  // about one every 512 KiB; counts and sizes of the others are estimates
  kFull,     // all
};

struct SiteUse {
  std::string site;  // "src/runtime/kv_cache.cc:42", "bitnet+0x1f4c"
  uint64_t n_blocks = 0;
  uint64_t size_bytes = 0;
};

// The live blocks that were noted, with their sites. Thread-safe.
class Tracker {
 public:
  static constexpr int64_t kSample_bytes = 512 << 10;

  Tracking level() const { return level_.load(std::memory_order_relaxed); }
  void set_level(Tracking level) { level_.store(level, std::memory_order_relaxed); }
  // Whether add() may have seen this block; false is certain.
  bool watches(const void* data) const {
    return n_noted_.load(std::memory_order_relaxed) != 0 && filter_[slot(data)].load(std::memory_order_relaxed) != 0;
  }
  // Does without the note where there is no memory for it.
  void add(const void* data, size_t size_bytes, const CallSite& site) noexcept;
  void remove(const void* data) noexcept;
  // The largest first.
  std::vector<SiteUse> sites() const;

 private:
  static constexpr size_t kSlots = 4096, kShards = 16;
  static size_t slot(const void* data) {
    const auto bits = reinterpret_cast<uintptr_t>(data) >> 4;
    return (bits ^ bits >> 12 ^ bits >> 24) % kSlots;
  }
  struct Note {
    size_t size_bytes;
    CallSite site;
    bool sampled;  // stands for others too
  };
  struct alignas(64) Shard {
    mutable std::mutex mutex;
    std::unordered_map<const void*, Note> notes;
  };
  Shard& shard(const void* data) { return shards_[slot(data) % kShards]; }

  std::atomic<Tracking> level_{Tracking::kOff};
  std::atomic<uint64_t> n_noted_{0};
  std::array<std::atomic<uint32_t>, kSlots> filter_{};
  std::array<Shard, kShards> shards_;
};

}  // namespace bitnet
