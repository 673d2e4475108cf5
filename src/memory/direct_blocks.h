#pragma once

#include "memory/region_heap.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

namespace bitnet {

// Blocks beyond the small ones, out of regions. Thread-safe.
class DirectBlocks {
 public:
  // A thread has one of these for its home: threads that take turns at a block would wait for each other's caches.
  static constexpr size_t kHomes = 4;
  static constexpr size_t kRegion_bytes = size_t{32} << 20;  // which blocks of up to kShared_bytes share
  static constexpr size_t kShared_bytes = size_t{2} << 20;   // larger ones begin a region of their own

  explicit DirectBlocks(const MemorySource& source);
  DirectBlocks(const DirectBlocks&) = delete;
  DirectBlocks& operator=(const DirectBlocks&) = delete;

  // What is mapped for a block in a region of its own.
  static size_t mapped_bytes(size_t size_bytes) { return RegionHeap::exact_region_bytes(size_bytes); }

  using Block = RegionHeap::Block;
  // `alone`: in a region of its own in small pages, fresh from the source, and back there if it is released alike. Null
  // data where the source has no more.
  Block take(size_t size_bytes, bool alone, size_t home);
  void release(std::byte* data, size_t size_bytes, bool alone);

  // At most so many bytes of released blocks are kept for others. Regions that blocks share lie in huge pages, or not.
  void configure(uint64_t kept_bytes, bool huge_pages);
  // Gives up what no block had since the call before the last; true if something is left for later calls.
  bool decay();
  void trim();

  struct Use {
    uint64_t n_live = 0, live_bytes = 0, mapped_bytes = 0;  // pages for the live ones
    uint64_t kept_bytes = 0;                                // pages that no live block touches
  };
  Use use() const;

 private:
  // Large blocks have a heap of their own: whole regions come and go with them.
  struct alignas(64) Home {
    Home(const MemorySource& source, size_t number) : shared(source, number), large(source, number) {}
    mutable std::mutex mutex;
    RegionHeap shared, large;
    uint64_t n_live = 0, live_bytes = 0;
    int64_t counted_bytes = 0;  // of what is kept, in the sum of all homes
    void count(const Block& block, size_t size_bytes) {
      n_live += block.data != nullptr;
      live_bytes += block.data != nullptr ? size_bytes : 0;
    }
    RegionHeap& heap_for(size_t size_bytes) { return size_bytes > kShared_bytes ? large : shared; }
    // About: that the first and the last page of a block may be a neighbour's too is left out.
    int64_t kept_bytes() const {
      return int64_t(shared.touched_bytes() + large.touched_bytes()) -
             int64_t(shared.live_run_bytes() + large.live_run_bytes());
    }
  };
  // A home may keep so much without telling: each telling takes the sum out of another processor's cache.
  int64_t untold_bytes() const { return int64_t(limit_bytes_.load(std::memory_order_relaxed) / 64); }
  // Calls fn(home) under its mutex, and counts what is kept.
  template <class Fn>
  auto in(Home& home, const Fn& fn);
  Block take_old(Home& home, size_t size_bytes);
  Block take_new(Home& home, size_t size_bytes, bool alone);

  std::array<Home, kHomes> homes_;
  std::atomic<uint64_t> limit_bytes_{0};
  std::atomic<bool> huge_pages_{false};
  alignas(64) std::atomic<int64_t> kept_bytes_{0};  // of all homes, as far as they have told
};

}  // namespace bitnet
